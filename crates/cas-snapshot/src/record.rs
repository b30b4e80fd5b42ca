//! The record of a folder in the stat cache: its bytes, and a view of them that allocates nothing.
//!
//! In a workspace where nothing changed, most folders are asked for nothing but their names and one digest of all that
//! their files hold; these stay [`Record`]s. Where more is asked for they become [`Folder`]s. Format:
//! docs/formats/snapshot.md, "The stat cache".
//!
//! Not here: where in the file a record is, and whether its bytes are those that were written (`cache`).

use std::ops::Range;
use std::sync::Arc;

use cas_digest::{DigestFunction, Hasher};

use crate::cache::{Content, Folder, Held, Kind, Name};
use crate::stamp::Stamp;
use crate::walk::to_content;

const HAS_STAMP: u8 = 1;
const HAS_TWINS: u8 = 2;
const IS_CLOSED: u8 = 4;
const HAS_DIGEST: u8 = 8;
const HAS_POINTERS: u8 = 16;
const HAS_OWN_RULES: u8 = 32;
const ALL_FLAGS: u8 = 63;
/// Added to the kind of a name.
const IGNORED: u8 = 0x80;
const STAMP_LEN: usize = 52;
const CONTENT_LEN: usize = 32;
const HELD_LEN: usize = STAMP_LEN + 1 + CONTENT_LEN;
/// Flags, the folder's stamp, rules, digest of what its files hold, number of names, number of files and links.
const HEAD_LEN: usize = 1 + STAMP_LEN + 2 * CONTENT_LEN + 4 + 4;

/// A folder's record. Its form is right: no byte of it is out of bounds, names are in order and can be names.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
    /// Where what is held of the first file or link stands, from the record's beginning on.
    held_at: usize,
    /// The folders in it: positions among the names, and where the names stand.
    directories: Vec<(u32, usize)>,
    /// Positions of the names that are left out.
    left_out: Vec<u32>,
    name_count: u32,
    has_ignored: bool,
}

/// What a name in a folder is, without what is known of a file or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    File,
    Symlink,
    Directory,
    Special,
    Ignored { is_dir: bool },
}

/// A name in a folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) class: Class,
    /// As [`Name::is_ignored`].
    pub(crate) is_ignored: bool,
    /// For files and links of records.
    held: Option<&'a [u8; HELD_LEN]>,
}

impl Record {
    /// The record in this range of a file's bytes; `None` when it is none.
    pub(crate) fn new(bytes: &Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        let whole = bytes.get(range.clone())?;
        let mut reader = Reader { bytes: whole, at: 0 };
        let [flags] = reader.array()?;
        reader.take(HEAD_LEN - 1 - 8)?;
        let (name_count, held_count) = (reader.length()?, reader.length()?);
        if flags & !ALL_FLAGS != 0 {
            return None;
        }
        if flags & HAS_OWN_RULES != 0 {
            reader.take(HELD_LEN)?;
        }
        let (mut found_held_count, mut directories, mut left_out) = (0, Vec::new(), Vec::new());
        let mut has_ignored = false;
        let mut last: &[u8] = b"";
        let name_count = u32::try_from(name_count).ok()?;
        for index in 0..name_count {
            let at = reader.at;
            let (name, kind) = reader.name()?;
            // No name is empty, so that the first one is after `last` as well.
            let has_wrong_byte = name.iter().fold(false, |found, byte| found | matches!(byte, b'/' | 0));
            if has_wrong_byte || name <= last || matches!(name, b"." | b"..") {
                return None;
            }
            last = name;
            let (class, is_ignored) = class_of(kind)?;
            found_held_count += usize::from(class.is_held());
            if class == Class::Directory {
                directories.push((index, at));
            }
            if matches!(class, Class::Ignored { .. }) {
                left_out.push(index);
            }
            has_ignored |= is_ignored;
        }
        let held_at = reader.at;
        reader.take(held_count.checked_mul(HELD_LEN)?)?;
        let is_whole = found_held_count == held_count && reader.at == whole.len();
        has_ignored |= !left_out.is_empty();
        let bytes = Arc::clone(bytes);
        is_whole.then_some(Self { bytes, range, held_at, directories, left_out, name_count, has_ignored })
    }

    /// The bytes of the record.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.range.clone()]
    }

    fn flags(&self) -> u8 {
        self.bytes()[0]
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes()[at..at + N].try_into().expect("the length is that of the array")
    }

    /// As [`Folder::stamp`].
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        (self.flags() & HAS_STAMP != 0).then(|| get_stamp(&self.array(1)))
    }

    /// As [`Folder::rules`].
    pub(crate) fn rules(&self) -> [u8; 32] {
        self.array(1 + STAMP_LEN)
    }

    /// The digest of what all files and links hold, when that is known of each of them and there is nothing else.
    pub(crate) fn digest(&self) -> Option<Content> {
        (self.flags() & HAS_DIGEST != 0).then(|| self.array(1 + STAMP_LEN + CONTENT_LEN))
    }

    /// As [`Folder::has_twins`].
    pub(crate) fn has_twins(&self) -> bool {
        self.flags() & HAS_TWINS != 0
    }

    /// As [`Folder::is_closed`].
    pub(crate) fn is_closed(&self) -> bool {
        self.flags() & IS_CLOSED != 0
    }

    /// Whether a file in it is a pointer of Git LFS.
    pub(crate) fn has_pointers(&self) -> bool {
        self.flags() & HAS_POINTERS != 0
    }

    /// As [`Folder::own_rules`].
    pub(crate) fn own_rules(&self) -> Option<Held> {
        (self.flags() & HAS_OWN_RULES != 0).then(|| get_held(&self.array(HEAD_LEN)))
    }

    /// Whether a `.gitignore` names something in it.
    pub(crate) fn has_ignored(&self) -> bool {
        self.has_ignored
    }

    /// Number of files and links.
    pub(crate) fn held_count(&self) -> usize {
        (self.range.len() - self.held_at) / HELD_LEN
    }

    /// The names, in their order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let (names, held) = self.bytes().split_at(self.held_at);
        let own_rules_len = if self.flags() & HAS_OWN_RULES != 0 { HELD_LEN } else { 0 };
        let mut names = Reader { bytes: names, at: HEAD_LEN + own_rules_len };
        let (mut held, _) = held.as_chunks();
        std::iter::from_fn(move || {
            let (name, kind) = names.name()?;
            let (class, is_ignored) = class_of(kind)?;
            let (own, rest) =
                if class.is_held() { held.split_first().map(|(own, rest)| (Some(own), rest))? } else { (None, held) };
            held = rest;
            Some(Entry { name, class, is_ignored, held: own })
        })
    }

    /// The folders in it, with their positions among the names.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (u32, Entry<'_>)> {
        self.directories.iter().filter_map(|(index, at)| {
            let (name, kind) = Reader { bytes: self.bytes(), at: *at }.name()?;
            let (class, is_ignored) = class_of(kind)?;
            Some((*index, Entry { name, class, is_ignored, held: None }))
        })
    }

    /// Positions of the names that are left out, in their order.
    pub(crate) fn left_out(&self) -> &[u32] {
        &self.left_out
    }

    /// Number of names.
    pub(crate) fn name_count(&self) -> u32 {
        self.name_count
    }

    /// The name, if it is there.
    pub(crate) fn find(&self, wanted: &[u8]) -> Option<Entry<'_>> {
        self.entries().find(|entry| entry.name >= wanted).filter(|entry| entry.name == wanted)
    }

    /// All of it.
    pub(crate) fn folder(&self) -> Folder {
        let names = self.entries().map(|entry| Name {
            name: entry.name.into(),
            kind: match (entry.class, entry.held) {
                (Class::File, Some(held)) => Kind::File(get_held(held)),
                (Class::Symlink, Some(held)) => Kind::Symlink(get_held(held)),
                (Class::Directory, _) => Kind::Directory,
                (Class::Ignored { is_dir }, _) => Kind::Ignored { is_dir },
                // Files and links of records have what is held of them.
                (Class::Special | Class::File | Class::Symlink, _) => Kind::Special,
            },
            is_ignored: entry.is_ignored,
        });
        Folder {
            stamp: self.stamp(),
            rules: self.rules(),
            has_twins: self.has_twins(),
            is_closed: self.is_closed(),
            own_rules: self.own_rules(),
            names: names.collect(),
        }
    }
}

impl Class {
    /// Whether it is a file or link.
    pub(crate) fn is_held(self) -> bool {
        matches!(self, Self::File | Self::Symlink)
    }
}

impl From<&Kind> for Class {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::File(_) => Self::File,
            Kind::Symlink(_) => Self::Symlink,
            Kind::Directory => Self::Directory,
            Kind::Special => Self::Special,
            Kind::Ignored { is_dir } => Self::Ignored { is_dir: *is_dir },
        }
    }
}

impl<'a> From<&'a Name> for Entry<'a> {
    fn from(Name { name, kind, is_ignored }: &'a Name) -> Self {
        Self { name, class: kind.into(), is_ignored: *is_ignored, held: None }
    }
}

impl Entry<'_> {
    /// The recorded stamp of a file or link.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.held.map(|held| get_stamp(held.first_chunk().expect("it begins with its stamp")))
    }

    /// What a file or link held.
    pub(crate) fn content(&self) -> Option<Content> {
        self.held.and_then(|held| get_held(held).content)
    }
}

/// Writes a folder's record.
pub(crate) fn encode(folder: &Folder, function: DigestFunction) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_LEN + folder.names.len() * 112);
    let held = || {
        folder.names.iter().filter_map(|name| match &name.kind {
            Kind::File(held) | Kind::Symlink(held) => Some(held),
            _ => None,
        })
    };
    let is_known = folder.names.iter().all(|name| name.kind != Kind::Special)
        && held().all(|held| held.is_trusted && held.content.is_some());
    let digest = if is_known { digest_of(function, folder.names.iter()) } else { None };
    let has_pointers = held().any(|held| held.is_trusted && held.is_pointer);
    bytes.push(
        [
            (folder.stamp.is_some(), HAS_STAMP),
            (folder.has_twins, HAS_TWINS),
            (folder.is_closed, IS_CLOSED),
            (digest.is_some(), HAS_DIGEST),
            (has_pointers, HAS_POINTERS),
            (folder.own_rules.is_some(), HAS_OWN_RULES),
        ]
        .into_iter()
        .fold(0, |flags, (is_set, flag)| if is_set { flags | flag } else { flags }),
    );
    match &folder.stamp {
        Some(stamp) => put_stamp(&mut bytes, stamp),
        None => bytes.extend_from_slice(&[0; STAMP_LEN]),
    }
    bytes.extend_from_slice(&folder.rules);
    bytes.extend_from_slice(&digest.unwrap_or_default());
    put_u32(&mut bytes, folder.names.len());
    put_u32(&mut bytes, held().count());
    if let Some(held) = &folder.own_rules {
        put_held(&mut bytes, held);
    }
    for Name { name, kind, is_ignored } in &folder.names {
        let len = u16::try_from(name.len()).expect("a folder's entry of the kernel is shorter than 64 KiB");
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(name);
        let number = match kind {
            Kind::File(_) => 1,
            Kind::Symlink(_) => 2,
            Kind::Directory => 3,
            Kind::Special => 4,
            Kind::Ignored { is_dir: false } => 5,
            Kind::Ignored { is_dir: true } => 6,
        };
        bytes.push(number | if *is_ignored { IGNORED } else { 0 });
    }
    held().for_each(|held| put_held(&mut bytes, held));
    bytes
}

/// Names what files and links of one folder hold, in the order of their names; `None` when that is not known of one.
pub(crate) fn digest_of<'n>(function: DigestFunction, names: impl Iterator<Item = &'n Name>) -> Option<Content> {
    let mut bytes = Vec::with_capacity(1 << 12);
    for Name { name, kind, .. } in names {
        let (tag, held) = match kind {
            Kind::Symlink(held) => (2, held),
            Kind::File(held) => (u8::from(held.is_executable()), held),
            _ => continue,
        };
        put_u32(&mut bytes, name.len());
        bytes.extend_from_slice(name);
        bytes.push(tag);
        bytes.extend_from_slice(&held.stamp.size.to_le_bytes());
        bytes.extend_from_slice(&held.content?);
    }
    let mut hasher = Hasher::new(function);
    hasher.update(&bytes);
    Some(to_content(&hasher.finish()))
}

fn class_of(kind: u8) -> Option<(Class, bool)> {
    let is_ignored = kind & IGNORED != 0;
    let class = match kind & !IGNORED {
        1 => Class::File,
        2 => Class::Symlink,
        3 => Class::Directory,
        4 => Class::Special,
        5 if !is_ignored => Class::Ignored { is_dir: false },
        6 if !is_ignored => Class::Ignored { is_dir: true },
        _ => return None,
    };
    Some((class, is_ignored))
}

fn get_held(bytes: &[u8; HELD_LEN]) -> Held {
    let (stamp, rest) = bytes.split_first_chunk().expect("it begins with its stamp");
    let content: Content = rest[1..].try_into().expect("it ends with its content");
    // Another flag is of a writer that this reader does not know: the file is read.
    let content = matches!(rest[0], 1 | 2).then_some(content);
    Held { stamp: get_stamp(stamp), content, is_trusted: content.is_some(), is_pointer: rest[0] == 2 }
}

fn get_stamp(bytes: &[u8; STAMP_LEN]) -> Stamp {
    let mut reader = Reader { bytes, at: 0 };
    let mut u64 = || u64::from_le_bytes(reader.array().expect("it is long enough"));
    let (device, inode) = (u64(), u64());
    let mut stamp = Stamp { device, inode, mode: 0, size: 0, modified: (0, 0), changed: (0, 0) };
    stamp.mode = u32::from_le_bytes(reader.array().expect("it is long enough"));
    stamp.size = u64::from_le_bytes(reader.array().expect("it is long enough"));
    for time in [&mut stamp.modified, &mut stamp.changed] {
        time.0 = i64::from_le_bytes(reader.array().expect("it is long enough"));
        time.1 = u32::from_le_bytes(reader.array().expect("it is long enough"));
    }
    stamp
}

pub(crate) fn put_u32(bytes: &mut Vec<u8>, value: usize) {
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

fn put_held(bytes: &mut Vec<u8>, held: &Held) {
    put_stamp(bytes, &held.stamp);
    let content = held.content.filter(|_| held.is_trusted);
    bytes.push(match content {
        None => 0,
        Some(_) if held.is_pointer => 2,
        Some(_) => 1,
    });
    bytes.extend_from_slice(&content.unwrap_or_default());
}

/// Reads numbers and names; `None` past the end.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.array()?)).ok()
    }

    /// A name and its kind.
    fn name(&mut self) -> Option<(&'a [u8], u8)> {
        let len = u16::from_le_bytes(self.array()?);
        let name = self.take(usize::from(len))?;
        let [kind] = self.array()?;
        Some((name, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn held(seed: u8) -> Held {
        let times = (i64::from(seed) - 100, u32::from(seed));
        let size = u64::from(seed) << 32;
        Held {
            stamp: Stamp { device: 1, inode: 2, mode: 0o100_644, size, modified: times, changed: times },
            content: Some([seed; 32]),
            is_trusted: true,
            is_pointer: false,
        }
    }

    fn name(name: &str, kind: Kind) -> Name {
        Name { name: name.as_bytes().into(), kind, is_ignored: false }
    }

    fn folder(names: Vec<Name>) -> Folder {
        let (stamp, rules, own_rules) = (Some(held(9).stamp), [7; 32], Some(held(8)));
        Folder { stamp, rules, has_twins: true, is_closed: true, own_rules, names }
    }

    fn record(folder: &Folder) -> Option<Record> {
        // Something stands before it.
        let bytes = [b"before", &encode(folder, FUNCTION)[..]].concat();
        let range = 6..bytes.len();
        Record::new(&Arc::new(bytes), range)
    }

    fn digest(names: Vec<Name>) -> Option<Content> {
        record(&folder(names)).expect("it is a record").digest()
    }

    fn files() -> Vec<Name> {
        vec![
            name("a", Kind::File(held(1))),
            name("b", Kind::Directory),
            name("c", Kind::Symlink(held(3))),
            name("d", Kind::Ignored { is_dir: true }),
        ]
    }

    #[test]
    fn a_record_says_what_its_folder_says() {
        let mut folder = folder(files());
        folder.names[0].is_ignored = true;
        let record = record(&folder).expect("it is a record");
        assert_eq!(record.folder(), folder);
        assert_eq!((record.stamp(), record.rules()), (folder.stamp, folder.rules));
        assert_eq!(record.own_rules(), folder.own_rules);
        assert!(record.has_twins() && record.is_closed() && record.has_ignored() && !record.has_pointers());
        assert_eq!((record.held_count(), record.name_count()), (2, 4));
        let directories: Vec<_> = record.directories().map(|(index, entry)| (index, entry.name, entry.class)).collect();
        assert_eq!(directories, [(1, &b"b"[..], Class::Directory)]);
        assert_eq!(record.left_out(), [3]);
        for ((entry, of_name), name) in record.entries().zip(folder.names.iter().map(Entry::from)).zip(&folder.names) {
            assert_eq!(
                (entry.name, entry.class, entry.is_ignored),
                (&*name.name, Class::from(&name.kind), name.is_ignored)
            );
            assert_eq!((of_name.name, of_name.class), (entry.name, entry.class));
            let found = record.find(&name.name).expect("it is there");
            assert_eq!((found.class, found.stamp(), found.content()), (entry.class, entry.stamp(), entry.content()));
        }
        assert_eq!(record.find(b"c").and_then(|entry| entry.stamp()), Some(held(3).stamp));
        assert_eq!(record.find(b"c").and_then(|entry| entry.content()), held(3).content);
        assert!([&b""[..], b"A", b"bb", b"z"].iter().all(|other| record.find(other).is_none()));
    }

    /// The digest stands for the files when nobody looks at them.
    #[test]
    fn the_digest_differs_with_whatever_counts_of_any_file() {
        let expected = digest(files());
        assert!(expected.is_some());
        let changed = |index: usize, change: &dyn Fn(&mut Name)| {
            let mut names = files();
            change(&mut names[index]);
            digest(names)
        };
        let of = |change: fn(&mut Held)| {
            move |name: &mut Name| match &mut name.kind {
                Kind::File(held) | Kind::Symlink(held) => change(held),
                other => panic!("{other:?}"),
            }
        };
        for index in [0, 2] {
            let different = [
                changed(index, &of(|held| held.content = Some([8; 32]))),
                changed(index, &of(|held| held.stamp.size += 1)),
                changed(index, &|name| name.name = [&name.name, &b"x"[..]].concat()[..].into()),
                changed(index, &|name| {
                    name.kind = match name.kind {
                        Kind::File(held) => Kind::Symlink(held),
                        _ => Kind::File(held(3)),
                    }
                }),
                changed(index, &|name| name.kind = Kind::Ignored { is_dir: false }),
            ];
            for (case, different) in different.iter().enumerate() {
                assert!(different.is_some() && *different != expected, "name {index}, case {case}");
            }
            let equal = of(|held| {
                let Stamp { mode, size, .. } = held.stamp;
                held.stamp = Stamp { mode: mode | 0o022, size, ..Stamp { device: 5, inode: 6, ..held.stamp } };
                (held.stamp.modified, held.stamp.changed) = ((1, 2), (3, 4));
            });
            assert_eq!(changed(index, &equal), expected, "name {index}");
        }
        assert_ne!(changed(0, &of(|held| held.stamp.mode |= 0o100)), expected);
        assert_eq!(changed(1, &|name| name.name = b"bb"[..].into()), expected, "folders have their own");
        // A boundary between two files is not one of bytes.
        let pair = |one, other| digest(vec![name(one, Kind::File(held(1))), name(other, Kind::File(held(1)))]);
        assert_ne!(pair("a", "bc"), pair("ab", "c"));
    }

    #[test]
    fn there_is_no_digest_of_what_is_not_known() {
        let unknown = Held { content: None, ..held(1) };
        let untrusted = Held { is_trusted: false, ..held(1) };
        for kind in [Kind::File(unknown), Kind::Symlink(unknown), Kind::File(untrusted), Kind::Special] {
            let mut names = files();
            names.push(name("e", kind));
            assert_eq!(digest(names), None, "{kind:?}");
        }
    }

    /// Checksums keep damage away, but whatever gets here must not lead out of the record.
    #[test]
    fn what_is_no_record_is_none_and_what_is_can_be_read() {
        let bytes = encode(&folder(files()), FUNCTION);
        let read = |bytes: Vec<u8>| {
            let len = bytes.len();
            let record = Record::new(&Arc::new(bytes), 0..len)?;
            let (mut names, folder) = (record.entries(), record.folder());
            assert!(folder.names.iter().all(|name| names.next().is_some_and(|entry| entry.name == &*name.name)));
            assert_eq!(
                folder.names.iter().filter(|name| Class::from(&name.kind).is_held()).count(),
                record.held_count()
            );
            Some(folder)
        };
        assert!(read(bytes.clone()).is_some());
        assert!(read([&bytes[..], b"x"].concat()).is_none());
        for at in 0..bytes.len() {
            assert!(read(bytes[..at].to_vec()).is_none(), "cut to {at}");
            for flip in 1..=255 {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let _ = read(damaged);
            }
        }
        for names in [["b", "a"], ["a", "a"], ["", "a"], [".", "a"], ["..", "a"], ["a/b", "c"], ["a\0", "b"]] {
            let names = names.iter().map(|text| name(text, Kind::Directory)).collect();
            assert!(record(&folder(names)).is_none());
        }
        assert!(Record::new(&Arc::new(bytes), 1..1 << 40).is_none());
    }
}
