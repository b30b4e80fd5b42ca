//! The stat cache: what the folders and files of a workspace looked like when they were read, and what they held.
//!
//! A file of segments, each with a checksum: a build that found changes adds one with the folders that changed. Whatever is
//! cut, damaged or not understood is not there, which costs reading those files again. Format:
//! docs/formats/snapshot.md, "The stat cache".
//!
//! Not here: when a record may be used (`walk`), what makes it trusted (`stamp`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cas_digest::{Digest, DigestFunction};
use cas_fs::FsError;

use crate::record::{Reader, Record, put_u32};
use crate::stamp::Stamp;
use crate::text::Text;
use crate::watch::{Token, Wanted};

const MAGIC: &[u8; 8] = b"casscan3";
/// Magic and the digest function's number, padded to eight bytes.
const HEADER_LEN: usize = 16;
/// Longest cache that is read: a million files take about 110 MB.
const MAX_BYTES: u64 = 4 << 30;
const CHECKSUM_LEN: usize = 16;
const SEGMENT_HEAD_LEN: usize = 8;
/// Payloads that are longer are checked by several threads.
const LONG_BYTES: usize = 1 << 20;

/// The value of the digest of what a file or link holds. The size is in its stamp, the function is the cache's.
pub(crate) type Content = [u8; 32];

/// A file's or link's state and what it held then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) stamp: Stamp,
    /// `None` when it is not known.
    pub(crate) content: Option<Content>,
    /// Whether every later write changes the stamp, so that the content may be recorded.
    pub(crate) is_trusted: bool,
    /// Whether the content is a pointer of Git LFS; only known with the content.
    pub(crate) is_pointer: bool,
}

impl Held {
    /// Whether the owner may execute it: no other right counts.
    pub(crate) fn is_executable(&self) -> bool {
        self.stamp.mode & 0o100 != 0
    }
}

/// What a name in a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File(Held),
    /// A symbolic link; its content is its target.
    Symlink(Held),
    /// A folder.
    Directory,
    /// A socket, fifo or device.
    Special,
    /// Left out by a `.gitignore`.
    Ignored { is_dir: bool },
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: Text,
    pub(crate) kind: Kind,
    /// Whether a `.gitignore` names it, and it is there because git tracks it or something below it.
    pub(crate) is_ignored: bool,
}

/// A folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// How it looked when its names were listed; `None` when that is not to be trusted.
    pub(crate) stamp: Option<Stamp>,
    /// Digest of the rules that left names out, those of its own `.gitignore` included.
    pub(crate) rules: [u8; 32],
    /// Whether some names differ by case only.
    pub(crate) has_twins: bool,
    /// Whether no file in it has a second name, or is of another file system, so that a change is one in this folder.
    pub(crate) is_closed: bool,
    /// Its `.gitignore`, if that is a file which is left out itself. One that belongs is among the names.
    pub(crate) own_rules: Option<Held>,
    /// Sorted by their bytes.
    pub(crate) names: Vec<Name>,
}

/// What was read of a cache.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    bytes: Arc<Vec<u8>>,
    /// Where the last record of a folder is.
    folders: HashMap<Box<[u8]>, Range<usize>>,
    /// Whether segments can be added: the file is whole, and not full of records that later ones replaced.
    is_worth_adding_to: bool,
    /// A watcher's moment from which on it tells of every change of what is recorded here.
    token: Option<Token>,
    place: Place,
}

/// Where a segment is: its offset, and the checksum of the one before it. Another process's segment has another place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    offset: u64,
    before: [u8; CHECKSUM_LEN],
}

impl Place {
    /// That of the first segment of a file.
    const FIRST: Self = Self { offset: HEADER_LEN as u64, before: [0; CHECKSUM_LEN] };
}

impl Cache {
    /// Reads a cache. One that is missing, damaged or of another function is empty, or as much of it as makes sense.
    pub(crate) fn load(path: &Path, function: DigestFunction) -> Self {
        let Ok(bytes) = cas_fs::read_limited(path, MAX_BYTES) else { return Self::default() };
        Self::decode(bytes, function)
    }

    pub(crate) fn decode(bytes: Vec<u8>, function: DigestFunction) -> Self {
        let mut folders = HashMap::new();
        let mut is_whole = bytes.get(..HEADER_LEN) == Some(&header(function)[..]);
        let mut at = HEADER_LEN;
        let (mut record_bytes, mut live_bytes) = (0, 0);
        let (mut token, mut place) = (None, Place::FIRST);
        while is_whole && at < bytes.len() {
            let Some(payload) = segment(&bytes, at) else {
                is_whole = false;
                break;
            };
            at = payload.end + CHECKSUM_LEN;
            record_bytes += payload.len();
            let mut reader = Reader { bytes: &bytes[..payload.end], at: payload.start };
            let Some(said) = token_at(&mut reader) else {
                is_whole = false;
                break;
            };
            // A token is of the state that its writer had read and what it adds; not if others added meanwhile.
            token = said.filter(|(_, of)| *of == place).map(|(token, _)| token);
            let checksum = &bytes[payload.end..at];
            place = Place { offset: at as u64, before: checksum.try_into().expect("a segment ends with its checksum") };
            while reader.at < payload.end {
                // The segment's checksum was right, so this is no damage but a writer that this reader does not know.
                let Some((path, record)) = path_and_record(&mut reader) else {
                    is_whole = false;
                    break;
                };
                live_bytes += record.len();
                if let Some(old) = folders.insert(path, record) {
                    live_bytes -= old.len();
                }
            }
        }
        let is_worth_adding_to = is_whole && record_bytes <= live_bytes.saturating_mul(2).max(1 << 20);
        let token = token.filter(|_| is_whole);
        Self { bytes: Arc::new(bytes), folders, is_worth_adding_to, token, place }
    }

    /// What is known of a folder, by its path from the root on, which is empty for the root itself.
    pub(crate) fn record(&self, path: &[u8]) -> Option<Record> {
        Record::new(&self.bytes, self.folders.get(path)?.clone())
    }

    /// The moment of a watcher that this state belongs to.
    pub(crate) fn token(&self) -> Option<Token> {
        self.token
    }

    /// Every folder that is known, for a watcher.
    pub(crate) fn wanted(&self) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = self
            .folders
            .iter()
            .map(|(path, range)| {
                let stamp = Record::new(&self.bytes, range.clone()).and_then(|record| record.stamp());
                Wanted { path: path.clone(), identity: stamp.map(|stamp| stamp.identity()) }
            })
            .collect();
        wanted.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        wanted
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.folders.len()
    }

    /// What is needed to write the next state.
    pub(crate) fn state(&self) -> State {
        State {
            folder_count: self.folders.len(),
            is_worth_adding_to: self.is_worth_adding_to,
            place: self.place,
            token: None,
            is_token_due: false,
        }
    }
}

/// What is needed of a cache that was read, to write the next state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    folder_count: usize,
    is_worth_adding_to: bool,
    place: Place,
    /// A new moment of a watcher, from before anything was looked at for the next state.
    pub(crate) token: Option<Token>,
    /// Whether the token of the file has so much after it that a new one is worth writing alone.
    pub(crate) is_token_due: bool,
}

/// A folder's path and record.
pub(crate) type Written<'a> = (&'a [u8], Cow<'a, [u8]>);

/// Writes what changed: adds to the file that `loaded` was read from, or puts a new one in its place.
///
/// `all` gives every folder of the workspace, `changed` those whose records are new.
pub(crate) fn save<'a>(
    path: &Path,
    loaded: State,
    function: DigestFunction,
    changed: &[Written<'a>],
    all: &mut dyn Iterator<Item = Written<'a>>,
) -> Result<(), FsError> {
    // When nothing changed, the token of the file still says from when on that is known.
    let is_due = loaded.is_token_due && loaded.token.is_some();
    if changed.is_empty() && !is_due && loaded.is_worth_adding_to {
        return Ok(());
    }
    let is_added = loaded.is_worth_adding_to && changed.len() < loaded.folder_count.div_ceil(2);
    if is_added {
        // Another process may add at the same time: one write of the kernel's append mode each.
        let bytes = encode_segment(loaded.token.map(|token| (token, loaded.place)), changed.iter().cloned());
        match cas_fs::append(path, &bytes) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let mut bytes = header(function).to_vec();
    bytes.extend(encode_segment(loaded.token.map(|token| (token, Place::FIRST)), all));
    // No sync: after a power loss the checksums tell what is there.
    cas_fs::replace(path, &bytes)
}

fn header(function: DigestFunction) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len()] = function_number(function);
    header
}

fn function_number(function: DigestFunction) -> u8 {
    match function {
        DigestFunction::Blake3 => 1,
        DigestFunction::Sha256 => 2,
        DigestFunction::Sha512 => 3,
        DigestFunction::Sha1 => 4,
    }
}

/// Where the payload of the segment at `at` is, when its checksum is right.
fn segment(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let head: [u8; SEGMENT_HEAD_LEN] = bytes.get(at..)?.get(..SEGMENT_HEAD_LEN)?.try_into().ok()?;
    let len = usize::try_from(u64::from_le_bytes(head)).ok()?;
    let start = at + SEGMENT_HEAD_LEN;
    let end = start.checked_add(len)?;
    let checksum = bytes.get(end..end.checked_add(CHECKSUM_LEN)?)?;
    (checksum_of(&bytes[start..end]) == checksum).then_some(start..end)
}

fn checksum_of(payload: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    if payload.len() > LONG_BYTES {
        hasher.update_rayon(payload);
    } else {
        // Waking other threads takes longer.
        hasher.update(payload);
    }
    *hasher.finalize().as_bytes().first_chunk().expect("a digest is longer than a checksum")
}

fn encode_segment<'a>(token: Option<(Token, Place)>, folders: impl Iterator<Item = Written<'a>>) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT_HEAD_LEN];
    bytes.push(u8::from(token.is_some()));
    if let Some((token, place)) = token {
        bytes.extend_from_slice(&token.instance);
        bytes.extend_from_slice(&token.sequence.to_le_bytes());
        bytes.extend_from_slice(&place.offset.to_le_bytes());
        bytes.extend_from_slice(&place.before);
    }
    for (path, record) in folders {
        put_u32(&mut bytes, path.len());
        bytes.extend_from_slice(path);
        put_u32(&mut bytes, record.len());
        bytes.extend_from_slice(&record);
    }
    let payload_len = (bytes.len() - SEGMENT_HEAD_LEN) as u64;
    bytes[..SEGMENT_HEAD_LEN].copy_from_slice(&payload_len.to_le_bytes());
    let checksum = checksum_of(&bytes[SEGMENT_HEAD_LEN..]);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// The token that a segment begins with, and the place that it is for.
fn token_at(reader: &mut Reader<'_>) -> Option<Option<(Token, Place)>> {
    match reader.array()? {
        [0] => Some(None),
        [1] => {
            let token = Token { instance: reader.array()?, sequence: u64::from_le_bytes(reader.array()?) };
            let place = Place { offset: u64::from_le_bytes(reader.array()?), before: reader.array()? };
            Some(Some((token, place)))
        }
        _ => None,
    }
}

/// The path of the next record, and where the record itself is.
fn path_and_record(reader: &mut Reader<'_>) -> Option<(Box<[u8]>, Range<usize>)> {
    let len = reader.length()?;
    let path = reader.take(len)?;
    let len = reader.length()?;
    reader.take(len)?;
    Some((path.into(), reader.at - len..reader.at))
}

/// Where the cache of a workspace is below the folder of all of them.
pub(crate) fn path_in(folder: &Path, root: &Path) -> PathBuf {
    folder.join(format!("{}.idx", name_of(root)))
}

/// What stands for a workspace in names of files: 32 hexadecimal digits.
pub(crate) fn name_of(root: &Path) -> String {
    let mut name = Digest::of(DigestFunction::Blake3, root.as_os_str().as_bytes()).to_hex();
    name.truncate(32);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::encode;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn stamp(seed: u64) -> Stamp {
        Stamp {
            device: seed,
            inode: seed << 40,
            mode: 0o100_644,
            size: u64::MAX - seed,
            modified: (-5, 7),
            changed: (i64::MAX, 999_999_999),
        }
    }

    fn folder(seed: u64) -> Folder {
        let name = |name: &str, kind| Name { name: name.as_bytes().into(), kind, is_ignored: name == "a" };
        let held = |seed: u64, content| Held {
            stamp: stamp(seed),
            content,
            is_trusted: content.is_some(),
            is_pointer: content.is_some() && seed.is_multiple_of(3),
        };
        let content = Some([u8::try_from(seed % 251).expect("below 251"); 32]);
        Folder {
            stamp: seed.is_multiple_of(2).then(|| stamp(seed)),
            rules: [7; 32],
            has_twins: seed.is_multiple_of(3),
            is_closed: seed.is_multiple_of(3),
            own_rules: content.filter(|_| seed.is_multiple_of(2)).map(|content| held(seed, Some(content))),
            names: vec![
                name("a", Kind::File(held(seed + 1, content))),
                name("b\n", Kind::File(held(seed + 2, None))),
                name("c", Kind::Symlink(held(seed + 3, content))),
                name("d", Kind::Directory),
                name("e", Kind::Special),
                name("f", Kind::Ignored { is_dir: true }),
                name("g", Kind::Ignored { is_dir: false }),
            ],
        }
    }

    fn written<'a>((path, folder): (&'a [u8], &Folder)) -> Written<'a> {
        (path, Cow::Owned(encode(folder, FUNCTION)))
    }

    fn found(cache: &Cache, path: &[u8]) -> Option<Folder> {
        cache.record(path).map(|record| record.folder())
    }

    fn encoded(segments: &[&[(&[u8], &Folder)]]) -> Vec<u8> {
        let mut bytes = header(FUNCTION).to_vec();
        for segment in segments {
            bytes.extend(encode_segment(None, segment.iter().copied().map(written)));
        }
        bytes
    }

    #[test]
    fn later_records_replace_earlier_ones() {
        let (first, second, other) = (folder(2), folder(3), folder(4));
        let bytes = encoded(&[&[(b"", &first), (b"x/y", &other)], &[(b"", &second)]]);
        let cache = Cache::decode(bytes, FUNCTION);
        assert_eq!(found(&cache, b""), Some(second));
        assert_eq!(found(&cache, b"x/y"), Some(other));
        assert_eq!(found(&cache, b"x"), None);
        assert!(cache.is_worth_adding_to);
    }

    #[test]
    fn a_cache_of_another_function_is_empty() {
        let cache = Cache::decode(encoded(&[&[(b"", &folder(2))]]), DigestFunction::Sha256);
        assert_eq!(cache.len(), 0);
        assert!(!cache.is_worth_adding_to);
    }

    /// Whatever is left of a damaged file, a record is right or not there.
    #[test]
    fn cuts_and_flipped_bits_only_lose_records() {
        let (first, second) = (folder(2), folder(4));
        let bytes = encoded(&[&[(b"", &first)], &[(b"x", &second)]]);
        let check = |bytes: Vec<u8>, what: &str| {
            let cache = Cache::decode(bytes, FUNCTION);
            for (path, folder) in [(&b""[..], &first), (b"x", &second)] {
                assert!(found(&cache, path).is_none_or(|found| found == *folder), "{what}");
            }
            cache
        };
        let first_end = encoded(&[&[(b"", &first)]]).len();
        for end in 0..bytes.len() {
            let cache = check(bytes[..end].to_vec(), &format!("cut to {end}"));
            assert_eq!(cache.len(), usize::from(end >= first_end), "cut to {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let cache = check(damaged, &format!("bit {bit} of byte {at}"));
                // The bytes that pad the header are compared, too.
                assert!(cache.len() < 2, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn files_are_added_to_until_most_of_them_is_old() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let path = home.path().join("x.idx");
        let folders: Vec<(Vec<u8>, Folder)> =
            (0..2000u64).map(|index| (format!("{index:04}").into_bytes(), folder(index))).collect();
        let all = || folders.iter().map(|(path, folder)| written((&path[..], folder)));
        save(&path, Cache::default().state(), FUNCTION, &[], &mut all()).expect("the disk has room");
        let whole = cas_fs::metadata(&path).expect("it was written").len();
        let mut largest = 0;
        for _ in 0..20 {
            let cache = Cache::load(&path, FUNCTION);
            assert_eq!(cache.len(), 2000);
            let changed: Vec<_> = all().take(500).collect();
            save(&path, cache.state(), FUNCTION, &changed, &mut all()).expect("the disk has room");
            largest = largest.max(cas_fs::metadata(&path).expect("it was written").len());
        }
        assert!(largest > whole && largest < whole * 3, "{whole} grew to {largest}");
        let before = cas_fs::metadata(&path).expect("it was written").len();
        save(&path, Cache::load(&path, FUNCTION).state(), FUNCTION, &[], &mut all()).expect("nothing to do");
        assert!(cas_fs::metadata(&path).expect("it was written").len() <= before);
    }
}
