//! The stat cache: what the folders and files of a workspace looked like when they were read, and what they held.
//!
//! A file of segments, each with a checksum: a build that found changes adds one with the folders that changed. Whatever is
//! cut, damaged or not understood is not there, which costs reading those files again. Format:
//! docs/formats/snapshot.md, "The stat cache".
//!
//! Not here: when a record may be used (`walk`), what makes it trusted (`stamp`).

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas_digest::{Digest, DigestFunction};
use cas_fs::FsError;

use crate::stamp::Stamp;
use crate::text::Text;
use crate::watch::{Token, Wanted};

const MAGIC: &[u8; 8] = b"casscan2";
/// Magic and the digest function's number, padded to eight bytes.
const HEADER_LEN: usize = 16;
/// Longest cache that is read: a million files take about 110 MB.
const MAX_BYTES: u64 = 4 << 30;
/// Most names of one folder.
const MAX_ENTRIES: usize = 1 << 26;
const CHECKSUM_LEN: usize = 16;
const SEGMENT_HEAD_LEN: usize = 8;
/// Added to the flag of a folder's stamp.
const TWINS: u8 = 2;
/// Added to the kind of a name.
const IGNORED: u8 = 0x80;

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
    /// Sorted by their bytes.
    pub(crate) names: Vec<Name>,
}

/// What was read of a cache.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    bytes: Vec<u8>,
    /// Where the last record of a folder is.
    folders: HashMap<Box<[u8]>, std::ops::Range<usize>>,
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
            let Some(said) = reader.token() else {
                is_whole = false;
                break;
            };
            // A token is of the state that its writer had read and what it adds; not if others added meanwhile.
            token = said.filter(|(_, of)| *of == place).map(|(token, _)| token);
            let checksum = &bytes[payload.end..at];
            place = Place { offset: at as u64, before: checksum.try_into().expect("a segment ends with its checksum") };
            while reader.at < payload.end {
                // The segment's checksum was right, so this is no damage but a writer that this reader does not know.
                let Some((path, record)) = reader.record() else {
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
        Self { bytes, folders, is_worth_adding_to, token, place }
    }

    /// What is known of a folder, by its path from the root on, which is empty for the root itself.
    pub(crate) fn folder(&self, path: &[u8]) -> Option<Folder> {
        let range = self.folders.get(path)?;
        Reader { bytes: &self.bytes[..range.end], at: range.start }.folder()
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
                let stamp = Reader { bytes: &self.bytes[..range.end], at: range.start }
                    .folder_stamp()
                    .and_then(|(stamp, _)| stamp);
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

/// Writes what changed: adds to the file that `loaded` was read from, or puts a new one in its place.
///
/// `all` gives every folder of the workspace, `changed` those whose records are new.
pub(crate) fn save<'a>(
    path: &Path,
    loaded: State,
    function: DigestFunction,
    changed: &[(&'a [u8], &'a Folder)],
    all: &mut dyn Iterator<Item = (&'a [u8], &'a Folder)>,
) -> Result<(), FsError> {
    // When nothing changed, the token of the file still says from when on that is known.
    let is_due = loaded.is_token_due && loaded.token.is_some();
    if changed.is_empty() && !is_due && loaded.is_worth_adding_to {
        return Ok(());
    }
    let is_added = loaded.is_worth_adding_to && changed.len() < loaded.folder_count.div_ceil(2);
    if is_added {
        // Another process may add at the same time: one write of the kernel's append mode each.
        let bytes = encode_segment(loaded.token.map(|token| (token, loaded.place)), changed.iter().copied());
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
fn segment(bytes: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let head: [u8; SEGMENT_HEAD_LEN] = bytes.get(at..)?.get(..SEGMENT_HEAD_LEN)?.try_into().ok()?;
    let len = usize::try_from(u64::from_le_bytes(head)).ok()?;
    let start = at + SEGMENT_HEAD_LEN;
    let end = start.checked_add(len)?;
    let checksum = bytes.get(end..end.checked_add(CHECKSUM_LEN)?)?;
    (checksum_of(&bytes[start..end]) == checksum).then_some(start..end)
}

fn checksum_of(payload: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = Digest::of(DigestFunction::Blake3, payload);
    digest.value()[..CHECKSUM_LEN].try_into().expect("a digest is longer than a checksum")
}

fn encode_segment<'a>(token: Option<(Token, Place)>, folders: impl Iterator<Item = (&'a [u8], &'a Folder)>) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT_HEAD_LEN];
    bytes.push(u8::from(token.is_some()));
    if let Some((token, place)) = token {
        bytes.extend_from_slice(&token.instance);
        bytes.extend_from_slice(&token.sequence.to_le_bytes());
        bytes.extend_from_slice(&place.offset.to_le_bytes());
        bytes.extend_from_slice(&place.before);
    }
    for (path, folder) in folders {
        let mut record = Vec::with_capacity(128 + folder.names.len() * 112);
        encode_folder(&mut record, folder);
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

fn encode_folder(bytes: &mut Vec<u8>, folder: &Folder) {
    bytes.push(u8::from(folder.stamp.is_some()) | if folder.has_twins { TWINS } else { 0 });
    if let Some(stamp) = &folder.stamp {
        put_stamp(bytes, stamp);
    }
    bytes.extend_from_slice(&folder.rules);
    bytes.push(u8::from(folder.is_closed));
    put_u32(bytes, folder.names.len());
    for Name { name, kind, is_ignored } in &folder.names {
        put_u32(bytes, name.len());
        bytes.extend_from_slice(name);
        let (tag, held) = match kind {
            Kind::File(held) => (1, Some(held)),
            Kind::Symlink(held) => (2, Some(held)),
            Kind::Directory => (3, None),
            Kind::Special => (4, None),
            Kind::Ignored { is_dir: false } => (5, None),
            Kind::Ignored { is_dir: true } => (6, None),
        };
        bytes.push(tag | if *is_ignored { IGNORED } else { 0 });
        if let Some(held) = held {
            put_stamp(bytes, &held.stamp);
            let content = held.content.filter(|_| held.is_trusted);
            bytes.push(match content {
                None => 0,
                Some(_) if held.is_pointer => 2,
                Some(_) => 1,
            });
            if let Some(content) = content {
                bytes.extend_from_slice(&content);
            }
        }
    }
}

fn put_u32(bytes: &mut Vec<u8>, value: usize) {
    let value = u32::try_from(value).expect("names, paths and folders are far shorter");
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn put_stamp(bytes: &mut Vec<u8>, stamp: &Stamp) {
    let Stamp { device, inode, mode, size, modified, changed } = stamp;
    bytes.extend_from_slice(&device.to_le_bytes());
    bytes.extend_from_slice(&inode.to_le_bytes());
    bytes.extend_from_slice(&mode.to_le_bytes());
    bytes.extend_from_slice(&size.to_le_bytes());
    for (seconds, nanoseconds) in [modified, changed] {
        bytes.extend_from_slice(&seconds.to_le_bytes());
        bytes.extend_from_slice(&nanoseconds.to_le_bytes());
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    /// The path of the next record, and where the record itself is.
    fn record(&mut self) -> Option<(Box<[u8]>, std::ops::Range<usize>)> {
        let len = self.length()?;
        let path = self.take(len)?;
        let len = self.length()?;
        self.take(len)?;
        Some((path.into(), self.at - len..self.at))
    }

    fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp {
            device: u64::from_le_bytes(self.array()?),
            inode: u64::from_le_bytes(self.array()?),
            mode: u32::from_le_bytes(self.array()?),
            size: u64::from_le_bytes(self.array()?),
            modified: (i64::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?)),
            changed: (i64::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?)),
        })
    }

    fn held(&mut self) -> Option<Held> {
        let stamp = self.stamp()?;
        let (content, is_pointer) = match self.array()? {
            [0] => (None, false),
            [flag @ (1 | 2)] => (Some(self.array()?), flag == 2),
            _ => return None,
        };
        Some(Held { stamp, content, is_trusted: content.is_some(), is_pointer })
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// The path of the next record, and where the record itself is.
    /// The folder's stamp, and whether names in it differ by case only.
    fn folder_stamp(&mut self) -> Option<(Option<Stamp>, bool)> {
        let [flags @ 0..=3] = self.array()? else { return None };
        let stamp = if flags & 1 != 0 { Some(self.stamp()?) } else { None };
        Some((stamp, flags & TWINS != 0))
    }

    /// The token that a segment begins with, and the place that it is for.
    fn token(&mut self) -> Option<Option<(Token, Place)>> {
        if !self.flag()? {
            return Some(None);
        }
        let token = Token { instance: self.array()?, sequence: u64::from_le_bytes(self.array()?) };
        Some(Some((token, Place { offset: u64::from_le_bytes(self.array()?), before: self.array()? })))
    }

    fn folder(&mut self) -> Option<Folder> {
        let (stamp, has_twins) = self.folder_stamp()?;
        let rules = self.array()?;
        let is_closed = self.flag()?;
        let count = self.length().filter(|count| *count <= MAX_ENTRIES)?;
        // A name takes at least six bytes, so that a wrong count cannot ask for more memory than the file is long.
        let mut names: Vec<Name> = Vec::with_capacity(count.min((self.bytes.len() - self.at) / 6));
        for _ in 0..count {
            let len = self.length()?;
            let name = self.take(len)?;
            let is_next = names.last().is_none_or(|last| *last.name < *name);
            let is_name = !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0);
            if !is_name || !is_next {
                return None;
            }
            let [tag] = self.array()?;
            let is_ignored = tag & IGNORED != 0;
            let kind = match tag & !IGNORED {
                1 => Kind::File(self.held()?),
                2 => Kind::Symlink(self.held()?),
                3 => Kind::Directory,
                4 => Kind::Special,
                5 if !is_ignored => Kind::Ignored { is_dir: false },
                6 if !is_ignored => Kind::Ignored { is_dir: true },
                _ => return None,
            };
            names.push(Name { name: name.into(), kind, is_ignored });
        }
        (self.at == self.bytes.len()).then_some(Folder { stamp, rules, has_twins, is_closed, names })
    }
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

    fn encoded(segments: &[&[(&[u8], &Folder)]]) -> Vec<u8> {
        let mut bytes = header(FUNCTION).to_vec();
        for segment in segments {
            bytes.extend(encode_segment(None, segment.iter().copied()));
        }
        bytes
    }

    #[test]
    fn later_records_replace_earlier_ones() {
        let (first, second, other) = (folder(2), folder(3), folder(4));
        let bytes = encoded(&[&[(b"", &first), (b"x/y", &other)], &[(b"", &second)]]);
        let cache = Cache::decode(bytes, FUNCTION);
        assert_eq!(cache.folder(b""), Some(second));
        assert_eq!(cache.folder(b"x/y"), Some(other));
        assert_eq!(cache.folder(b"x"), None);
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
                assert!(cache.folder(path).is_none_or(|found| found == *folder), "{what}");
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
        let all = || folders.iter().map(|(path, folder)| (&path[..], folder));
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
