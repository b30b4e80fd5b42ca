//! Header blocks: ustar, with one extended header before it where ustar is too narrow.
//!
//! Source: POSIX.1-2017, `pax`, ustar Interchange Format and pax Extended Header. Normal form: docs/formats/layer.md.

use std::collections::BTreeMap;

use cas_tree::EPOCH_SECONDS;

/// Size of a block: headers and the padding of contents.
pub(crate) const BLOCK_BYTES: usize = 512;

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const MAX_SHORT_ID: u32 = 0o7_777_777;
const MAX_SHORT_SIZE: u64 = 0o77_777_777_777;

/// Why a node has no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A name that layers use for whiteouts.
    #[error("`{path}` cannot be in a layer: names that begin with `.wh.` mean that something is removed")]
    WhiteoutName {
        /// The path.
        path: String,
    },
    /// A whiteout in a tree that is not a layer's.
    #[error("`{path}` removes something, which this kind of archive cannot tell")]
    Whiteout {
        /// The path.
        path: String,
    },
    /// A kind that the archive cannot hold.
    #[error("`{path}` is not a regular file")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// A name that eStargz has for itself.
    #[error("`{path}` cannot be in an eStargz layer, which has a file of that name for itself")]
    StargzName {
        /// The path.
        path: String,
    },
    /// What a table of contents cannot tell.
    #[error("`{path}` cannot be in a layer with a table of contents: {why}")]
    Contents {
        /// The path, as far as it is text.
        path: String,
        /// What is in the way.
        why: &'static str,
    },
    /// A device number that the header has no room for.
    #[error("device `{path}` has a number over 2097151")]
    DeviceNumber {
        /// The path.
        path: String,
    },
}

/// What a header tells.
pub(crate) struct Header<'a> {
    /// Without a leading `/`; of a directory with one at its end.
    pub(crate) name: &'a [u8],
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) time: u32,
    pub(crate) type_flag: u8,
    pub(crate) link_name: &'a [u8],
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: &'a BTreeMap<Box<[u8]>, Box<[u8]>>,
}

impl<'a> Header<'a> {
    pub(crate) fn new(name: &'a [u8], type_flag: u8, xattrs: &'a BTreeMap<Box<[u8]>, Box<[u8]>>) -> Self {
        Self {
            name,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            time: EPOCH_SECONDS,
            type_flag,
            link_name: b"",
            device: (0, 0),
            xattrs,
        }
    }

    /// The header's blocks, with an extended header before it where one is needed.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let split = split_name(self.name);
        if split.is_none() || !self.name.is_ascii() {
            records.insert(b"path".to_vec(), self.name.to_vec());
        }
        if self.link_name.len() > NAME_BYTES || !self.link_name.is_ascii() {
            records.insert(b"linkpath".to_vec(), self.link_name.to_vec());
        }
        if self.size > MAX_SHORT_SIZE {
            records.insert(b"size".to_vec(), self.size.to_string().into_bytes());
        }
        for (key, id) in [(&b"uid"[..], self.uid), (b"gid", self.gid)] {
            if id > MAX_SHORT_ID {
                records.insert(key.to_vec(), id.to_string().into_bytes());
            }
        }
        for (name, value) in self.xattrs {
            records.insert([b"SCHILY.xattr.", &name[..]].concat(), value.to_vec());
        }
        if !records.is_empty() {
            let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            let mut block = Block::new();
            block.text(0, NAME_BYTES, b"pax");
            block.octal(100, 8, 0o644);
            block.owner(0, 0);
            block.octal(124, 12, body.len() as u64);
            block.octal(136, 12, 0);
            block.finish(b'x', (0, 0), into);
            into.extend_from_slice(&body);
            pad(into, body.len() as u64);
        }
        let mut block = Block::new();
        let ascii = |text: &[u8]| text.is_ascii();
        match split.filter(|_| ascii(self.name)) {
            Some((prefix, name)) => {
                block.text(0, NAME_BYTES, name);
                block.text(345, PREFIX_BYTES, prefix);
            }
            // The extended header has the name; old readers see its beginning.
            None => block.text(0, NAME_BYTES, &narrow(self.name)),
        }
        block.octal(100, 8, u64::from(self.mode));
        block.owner(self.uid, self.gid);
        block.octal(124, 12, self.size.min(MAX_SHORT_SIZE));
        block.octal(136, 12, u64::from(self.time));
        if self.link_name.len() <= NAME_BYTES && ascii(self.link_name) {
            block.text(157, NAME_BYTES, self.link_name);
        } else {
            block.text(157, NAME_BYTES, &narrow(self.link_name));
        }
        block.finish(self.type_flag, self.device, into);
    }
}

/// Zeros up to the next block.
pub(crate) fn pad(into: &mut Vec<u8>, length: u64) {
    into.resize(into.len() + padding(length), 0);
}

/// How many zeros follow a content of `length` bytes.
pub(crate) fn padding(length: u64) -> usize {
    let over = usize::try_from(length % BLOCK_BYTES as u64).expect("it is below 512");
    if over == 0 { 0 } else { BLOCK_BYTES - over }
}

/// Prefix and name as ustar splits them, the prefix as short as can be; `None` when the fields are too short.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_BYTES {
        return Some((b"", name));
    }
    // The separator itself is in neither field, and the name must not become empty.
    let first = name.len().checked_sub(NAME_BYTES + 1)?;
    let last = PREFIX_BYTES.min(name.len().checked_sub(2)?);
    let at = (first..=last).find(|at| name[*at] == b'/' && *at > 0)?;
    Some((&name[..at], &name[at + 1..]))
}

/// What fits of a name, with `_` for what is not ASCII.
fn narrow(name: &[u8]) -> Vec<u8> {
    name.iter().take(NAME_BYTES).map(|byte| if byte.is_ascii() { *byte } else { b'_' }).collect()
}

/// One record of an extended header: its own length, the key, the value.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

struct Block([u8; BLOCK_BYTES]);

impl Block {
    const fn new() -> Self {
        Self([0; BLOCK_BYTES])
    }

    fn text(&mut self, at: usize, length: usize, text: &[u8]) {
        debug_assert!(text.len() <= length, "the caller has checked the length");
        self.0[at..at + text.len()].copy_from_slice(text);
    }

    /// A number of `length - 1` octal digits and a NUL.
    fn octal(&mut self, at: usize, length: usize, value: u64) {
        let digits = format!("{value:0width$o}", width = length - 1);
        self.text(at, length, digits.as_bytes());
    }

    fn owner(&mut self, uid: u32, gid: u32) {
        // The extended header has what is too large.
        let short = |id: u32| if id > MAX_SHORT_ID { 0 } else { u64::from(id) };
        self.octal(108, 8, short(uid));
        self.octal(116, 8, short(gid));
    }

    fn finish(mut self, type_flag: u8, device: (u32, u32), into: &mut Vec<u8>) {
        self.0[156] = type_flag;
        self.text(257, 8, b"ustar\x0000");
        self.octal(329, 8, u64::from(device.0));
        self.octal(337, 8, u64::from(device.1));
        // The sum is over the header with spaces in its own field.
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        self.text(148, 8, format!("{sum:06o}\0 ").as_bytes());
        into.extend_from_slice(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_where_ustar_can() {
        let long = |parts: &[usize]| parts.iter().map(|n| "x".repeat(*n)).collect::<Vec<_>>().join("/").into_bytes();
        assert_eq!(split_name(b"a/b"), Some((&b""[..], &b"a/b"[..])));
        assert_eq!(split_name(&long(&[100])).map(|(prefix, _)| prefix.len()), Some(0));
        assert_eq!(split_name(&long(&[101])), None);
        assert_eq!(split_name(&long(&[155, 100])).map(|(prefix, name)| (prefix.len(), name.len())), Some((155, 100)));
        assert_eq!(split_name(&long(&[156, 99])), None);
        assert_eq!(split_name(&long(&[50, 60, 70])).map(|(prefix, _)| prefix.len()), Some(111));
    }

    #[test]
    fn records_count_their_own_length() {
        assert_eq!(record(b"path", b"x"), b"9 path=x\n");
        assert_eq!(record(b"k", &[b'v'; 92]).len(), 98);
        let long = record(b"k", &[b'v'; 94]);
        assert!(long.starts_with(b"101 k="), "{}", String::from_utf8_lossy(&long));
        assert_eq!(long.len(), 101);
    }
}
