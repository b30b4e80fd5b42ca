//! The index: the list of tracked files, sorted by path, of versions 2, 3 and 4.
//!
//! Source: git's Documentation/gitformat-index.adoc. What is decoded is whole: the checksum at the end was right, paths
//! stay below the top of the working tree, and they are in order, so that they can be searched.
//!
//! Not here: the part of a split index that lies in another file ([`crate::SplitIndex`]).

use std::ops::Range;

use cas_digest::{Digest, DigestFunction};

use crate::SplitIndex;
use crate::split::Link;

/// Longest index that is read: eight million entries of the usual length. The largest known repositories have half of that.
pub const MAX_INDEX_BYTES: u64 = 1 << 30;
/// Longest path, as Linux has it.
const MAX_PATH_BYTES: usize = 4096;
/// Most bytes of all paths together: prefix compression makes long ones of a few bytes.
const MAX_PATHS_BYTES: usize = 1 << 30;
const HEADER_LEN: usize = 12;
/// Times, device, inode, mode, user, group and size of an entry.
const STAT_LEN: usize = 40;

/// What objects of a repository are named by: `extensions.objectFormat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ObjectFormat {
    /// The default.
    #[default]
    Sha1,
    /// `git init --object-format=sha256`.
    Sha256,
}

impl ObjectFormat {
    /// Bytes of a name.
    #[must_use]
    pub const fn id_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    const fn function(self) -> DigestFunction {
        match self {
            Self::Sha1 => DigestFunction::Sha1,
            Self::Sha256 => DigestFunction::Sha256,
        }
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A regular file.
    File {
        /// Whether it has the right to execute.
        is_executable: bool,
    },
    /// A symbolic link.
    Symlink,
    /// A commit of another repository: a submodule.
    Gitlink,
    /// A folder that stands for all of its files, none of which is in the working tree. Its path ends with a slash.
    SparseDirectory,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// From the top of the working tree on.
    pub path: &'a [u8],
    /// What it is.
    pub mode: Mode,
    /// 0, or 1 to 3 in a conflict.
    pub stage: u8,
    /// `git update-index --assume-unchanged`
    pub is_assumed_valid: bool,
    /// Sparse checkouts leave it out of the working tree.
    pub is_skipped: bool,
    /// `git add --intent-to-add`
    pub is_intended: bool,
    /// The object's name.
    pub id: &'a [u8],
    /// Size of the file when it was last looked at, modulo 2^32.
    pub size: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// Where its path is in all of them; it is empty for an entry of a split index that replaces another.
    start: usize,
    len: usize,
    mode: Mode,
    flags: u8,
    size: u32,
}

const STAGE: u8 = 0b11;
const ASSUMED_VALID: u8 = 1 << 2;
const SKIPPED: u8 = 1 << 3;
const INTENDED: u8 = 1 << 4;

/// The tracked files of a repository, sorted by path and stage.
#[derive(Clone, Debug, Default)]
pub struct Index {
    paths: Vec<u8>,
    ids: Vec<u8>,
    id_len: usize,
    records: Vec<Record>,
}

/// What an index file holds.
#[derive(Clone, Debug)]
pub enum Decoded {
    /// All of the index.
    Whole(Index),
    /// Changes to another file's.
    Split(SplitIndex),
}

/// Why an index cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// It does not begin as one.
    #[error("it does not begin with `DIRC`")]
    Signature,
    /// A version that is not known.
    #[error("it is of version {version}; 2, 3 and 4 are known")]
    Version {
        /// The version.
        version: u32,
    },
    /// It is longer than is read.
    #[error("it is longer than {limit_bytes} bytes")]
    TooLong {
        /// How much is read.
        limit_bytes: u64,
    },
    /// The checksum at its end is another.
    #[error("its checksum is `{actual}`, but it ends with `{expected}`")]
    Checksum {
        /// What it ends with, in hex.
        expected: String,
        /// What it should end with, in hex.
        actual: String,
    },
    /// It ends too early.
    #[error("it ends at byte {offset}, within {part}")]
    Truncated {
        /// Where.
        offset: usize,
        /// In what.
        part: &'static str,
    },
    /// An entry is not one.
    #[error("entry {position} has a wrong {field}")]
    Entry {
        /// From 0.
        position: usize,
        /// What is wrong.
        field: &'static str,
    },
    /// An extension that must be understood is not.
    #[error("it has an extension `{name}`, which is not known")]
    Extension {
        /// Its name, with what cannot be printed escaped.
        name: String,
    },
    /// The changes of a split index do not fit the shared one.
    #[error("the changes of the split index do not fit its shared index: {problem}")]
    Link {
        /// What does not fit.
        problem: &'static str,
    },
}

impl IndexError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Link { .. } => "`git update-index --no-split-index` writes the index as one file",
            Self::Version { .. } | Self::Extension { .. } => {
                "`git update-index --index-version 4 --force-write-index` writes it in a form that is known, unless a newer feature of git is on"
            }
            _ => {
                "`git status` says whether git can read it; `git read-tree HEAD` makes it anew, without what was staged"
            }
        }
    }
}

impl Index {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether nothing is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// All entries, by path and stage.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        (0..self.records.len()).map(|position| self.entry(position))
    }

    /// Whether this very path is tracked, as a file, link or submodule.
    #[must_use]
    pub fn tracks(&self, path: &[u8]) -> bool {
        self.records.binary_search_by(|record| self.path(record).cmp(path)).is_ok()
    }

    /// The entries below a folder, which is empty for the top. That of a sparse folder itself is one of them.
    pub fn below<'a>(&'a self, folder: &[u8]) -> impl ExactSizeIterator<Item = Entry<'a>> + use<'a> {
        self.range_below(folder).map(|position| self.entry(position))
    }

    fn range_below(&self, folder: &[u8]) -> Range<usize> {
        if folder.is_empty() {
            return 0..self.records.len();
        }
        // Everything below begins with the folder and a slash, and sorts before the same with the byte after the slash.
        let at = |after: u8| {
            self.records.partition_point(|record| {
                let path = self.path(record);
                match path.get(..folder.len()) {
                    Some(head) if head == folder => path.get(folder.len()).is_none_or(|next| *next < after),
                    _ => path < folder,
                }
            })
        };
        at(b'/')..at(b'/' + 1)
    }

    pub(crate) fn path(&self, record: &Record) -> &[u8] {
        &self.paths[record.start..record.start + record.len]
    }

    pub(crate) fn entry(&self, position: usize) -> Entry<'_> {
        let record = &self.records[position];
        Entry {
            path: self.path(record),
            mode: record.mode,
            stage: record.flags & STAGE,
            is_assumed_valid: record.flags & ASSUMED_VALID != 0,
            is_skipped: record.flags & SKIPPED != 0,
            is_intended: record.flags & INTENDED != 0,
            id: &self.ids[position * self.id_len..(position + 1) * self.id_len],
            size: record.size,
        }
    }

    /// Adds an entry of another index under a path of its own.
    pub(crate) fn push(&mut self, entry: &Entry<'_>, path: &[u8]) {
        self.id_len = entry.id.len();
        let start = self.paths.len();
        self.paths.extend_from_slice(path);
        self.ids.extend_from_slice(entry.id);
        let mut flags = entry.stage;
        for (is_set, flag) in
            [(entry.is_assumed_valid, ASSUMED_VALID), (entry.is_skipped, SKIPPED), (entry.is_intended, INTENDED)]
        {
            flags |= if is_set { flag } else { 0 };
        }
        self.records.push(Record { start, len: path.len(), mode: entry.mode, flags, size: entry.size });
    }

    /// Checks that each entry comes after the one before, from `first` on.
    pub(crate) fn in_order(&self, first: usize) -> Result<(), IndexError> {
        let records = &self.records[first..];
        let key = |record: &Record| (record.start, record.len, record.flags & STAGE);
        for (offset, pair) in records.windows(2).enumerate() {
            let (before, after) = (key(&pair[0]), key(&pair[1]));
            if (&self.paths[before.0..before.0 + before.1], before.2)
                >= (&self.paths[after.0..after.0 + after.1], after.2)
            {
                return Err(IndexError::Entry { position: first + offset + 1, field: "place in the order" });
            }
        }
        Ok(())
    }
}

/// Decodes an index file.
///
/// # Errors
///
/// [`IndexError`] for whatever is not an index that git could have written.
pub fn decode_index(bytes: &[u8], format: ObjectFormat) -> Result<Decoded, IndexError> {
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(IndexError::TooLong { limit_bytes: MAX_INDEX_BYTES });
    }
    let Some(end) = bytes.len().checked_sub(format.id_len()).filter(|end| *end >= HEADER_LEN) else {
        return Err(IndexError::Truncated { offset: bytes.len(), part: "its header" });
    };
    let (body, trailer) = bytes.split_at(end);
    let mut reader = Reader { bytes: body, at: 0 };
    if reader.take(4, "its header")? != b"DIRC" {
        return Err(IndexError::Signature);
    }
    let version = reader.number("its header")?;
    if !(2..=4).contains(&version) {
        return Err(IndexError::Version { version });
    }
    // Zeros are what `index.skipHash` leaves.
    if trailer.iter().any(|byte| *byte != 0) {
        let actual = Digest::of(format.function(), body);
        if actual.value() != trailer {
            let expected = trailer.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(IndexError::Checksum { expected, actual: actual.to_hex() });
        }
    }
    let count = reader.number("its header")? as usize;
    let index = entries(&mut reader, version, count, format)?;
    let link = extensions(&mut reader, format)?;
    match link {
        Some(link) => Ok(Decoded::Split(SplitIndex::new(index, link)?)),
        None => {
            if let Some(position) = index.records.iter().position(|record| record.len == 0) {
                return Err(IndexError::Entry { position, field: "path" });
            }
            index.in_order(0)?;
            Ok(Decoded::Whole(index))
        }
    }
}

fn entries(reader: &mut Reader<'_>, version: u32, count: usize, format: ObjectFormat) -> Result<Index, IndexError> {
    const PART: &str = "an entry";
    // A wrong count cannot ask for more memory than the file is long.
    let capacity = count.min(reader.bytes.len() / (STAT_LEN + format.id_len() + 2));
    let mut index = Index {
        paths: Vec::with_capacity(capacity.saturating_mul(32)),
        ids: Vec::with_capacity(capacity * format.id_len()),
        id_len: format.id_len(),
        records: Vec::with_capacity(capacity),
    };
    let mut last = 0..0;
    for position in 0..count {
        let wrong = |field| IndexError::Entry { position, field };
        let begin = reader.at;
        let stat = reader.take(STAT_LEN, PART)?;
        let number = |at: usize| u32::from_be_bytes(stat[at..at + 4].try_into().expect("four bytes"));
        let mode = mode(number(24)).ok_or_else(|| wrong("mode"))?;
        let size = number(36);
        index.ids.extend_from_slice(reader.take(format.id_len(), PART)?);
        let short = reader.short(PART)?;
        let is_extended = short & 0x4000 != 0;
        if is_extended && version == 2 {
            return Err(wrong("flag"));
        }
        let mut flags = ((short >> 12) & 0b11) as u8;
        flags |= if short & 0x8000 != 0 { ASSUMED_VALID } else { 0 };
        if is_extended {
            let more = reader.short(PART)?;
            // A flag that is not known may change what the entry means: git refuses it as well.
            if more & 0x9fff != 0 {
                return Err(wrong("flag"));
            }
            flags |= if more & 0x4000 != 0 { SKIPPED } else { 0 };
            flags |= if more & 0x2000 != 0 { INTENDED } else { 0 };
        }
        let start = index.paths.len();
        if version == 4 {
            let stripped = reader.offset(PART)?;
            let kept = last.len().checked_sub(stripped).ok_or_else(|| wrong("prefix"))?;
            index.paths.extend_from_within(last.start..last.start + kept);
            index.paths.extend_from_slice(reader.until_nul(PART)?);
        } else {
            let announced = usize::from(short & 0x0fff);
            let path = if announced < 0x0fff { reader.take(announced, PART)? } else { reader.peek_until_nul(PART)? };
            if announced == 0x0fff {
                reader.at += path.len();
            }
            index.paths.extend_from_slice(path);
            // One to eight zeros, up to a multiple of eight.
            let padding = 8 - (reader.at - begin) % 8;
            if reader.take(padding, PART)?.iter().any(|byte| *byte != 0) {
                return Err(wrong("padding"));
            }
        }
        last = start..index.paths.len();
        let path = &index.paths[last.clone()];
        if !is_path(path, mode) || last.len() > MAX_PATH_BYTES || index.paths.len() > MAX_PATHS_BYTES {
            return Err(wrong("path"));
        }
        index.records.push(Record { start, len: last.len(), mode, flags, size });
    }
    Ok(index)
}

fn mode(bits: u32) -> Option<Mode> {
    match bits >> 12 {
        0o10 => Some(Mode::File { is_executable: bits & 0o100 != 0 }),
        0o12 => Some(Mode::Symlink),
        0o16 => Some(Mode::Gitlink),
        0o4 => Some(Mode::SparseDirectory),
        _ => None,
    }
}

/// Whether a path stays below the top. The empty one is of an entry of a split index, which has another's path.
fn is_path(path: &[u8], mode: Mode) -> bool {
    let path = match (mode, path) {
        (_, b"") => return true,
        (Mode::SparseDirectory, [folder @ .., b'/']) => folder,
        (Mode::SparseDirectory, _) => return false,
        (_, path) => path,
    };
    path.split(|byte| *byte == b'/')
        .all(|part| !matches!(part, b"" | b"." | b"..") && !part.eq_ignore_ascii_case(b".git") && !part.contains(&0))
}

fn extensions(reader: &mut Reader<'_>, format: ObjectFormat) -> Result<Option<Link>, IndexError> {
    const PART: &str = "an extension";
    let mut link = None;
    while reader.at < reader.bytes.len() {
        let name = reader.take(4, PART)?;
        let len = reader.number(PART)? as usize;
        let content = reader.take(len, PART)?;
        match name {
            b"link" => link = Link::decode(content, format)?,
            // It says that there are sparse folders; they show by their mode.
            b"sdir" => {}
            [b'A'..=b'Z', ..] => {}
            _ => return Err(IndexError::Extension { name: name.escape_ascii().to_string() }),
        }
    }
    Ok(link)
}

pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, len: usize, part: &'static str) -> Result<&'a [u8], IndexError> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(IndexError::Truncated { offset: self.bytes.len(), part })?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn number(&mut self, part: &'static str) -> Result<u32, IndexError> {
        Ok(u32::from_be_bytes(self.take(4, part)?.try_into().expect("four bytes")))
    }

    fn short(&mut self, part: &'static str) -> Result<u16, IndexError> {
        Ok(u16::from_be_bytes(self.take(2, part)?.try_into().expect("two bytes")))
    }

    fn peek_until_nul(&self, part: &'static str) -> Result<&'a [u8], IndexError> {
        let rest = &self.bytes[self.at..];
        // No path is longer, so a missing NUL costs no pass over the file for each entry.
        let rest = &rest[..rest.len().min(MAX_PATH_BYTES + 1)];
        let end = rest.iter().position(|byte| *byte == 0);
        end.map(|end| &rest[..end]).ok_or(IndexError::Truncated { offset: self.at + rest.len(), part })
    }

    fn until_nul(&mut self, part: &'static str) -> Result<&'a [u8], IndexError> {
        let text = self.peek_until_nul(part)?;
        self.at += text.len() + 1;
        Ok(text)
    }

    /// A number as gitformat-pack(5) has offsets: seven bits a byte, most significant first, one added at each byte but the first.
    fn offset(&mut self, part: &'static str) -> Result<usize, IndexError> {
        let mut value = 0usize;
        for index in 0.. {
            let byte = self.take(1, part)?[0];
            if index > 0 {
                value += 1;
            }
            // No path is that long, and nothing can overflow.
            if value > MAX_PATH_BYTES {
                break;
            }
            value = value << 7 | usize::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Ok(usize::MAX)
    }
}
