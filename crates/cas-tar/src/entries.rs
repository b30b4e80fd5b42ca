//! The entries of a tar stream: headers of all the dialects that are about, within limits.
//!
//! POSIX.1-2017 (`pax`, "pax Interchange Format", "ustar Interchange Format"), the GNU tar manual (appendix "Tar Internals":
//! long names, numbers in base 256, sparse files), star's prefix and the format before POSIX. Where programs read one stream in
//! different ways, what nobody writes is an error here; otherwise it is read as Go's `archive/tar` reads it, which most
//! programs for images use. Not here: what entries mean (`read`).

use std::collections::BTreeMap;
use std::io::{self, Read};

/// A header or a block of content is padded to this.
const BLOCK: usize = 512;
/// Longest extended header, long name, or list of the parts of a sparse file, as in Go's `archive/tar`.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;
/// Numbers of octal digits have this base.
const OCTAL: u32 = 8;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Link,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
    /// Any other type flag.
    Other(u8),
}

/// An entry without its content.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Of its content, with the holes of a sparse file.
    pub(crate) size: u64,
    /// Where a link leads.
    pub(crate) target: Vec<u8>,
    pub(crate) device: Option<(u32, u32)>,
    pub(crate) xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// What else the headers tell, for those who tell it again.
    pub(crate) stated: Stated,
}

/// What a tree has no place for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stated {
    /// As it stands there, with bits of its type that some programs write.
    pub(crate) mode: u64,
    /// The length that the headers tell, whatever the entry is.
    pub(crate) size: u64,
    /// Numbers of a device, whatever the entry is.
    pub(crate) device: (u64, u64),
    pub(crate) modified: Moment,
    pub(crate) accessed: Moment,
    pub(crate) changed: Moment,
    pub(crate) user: Vec<u8>,
    pub(crate) group: Vec<u8>,
    pub(crate) is_sparse: bool,
    pub(crate) flag: u8,
    /// A header for all that follows stood before it.
    pub(crate) is_after_global: bool,
}

/// A time since 1970: seconds, and the nanoseconds after them. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// Reads entries one after another.
pub(crate) struct Entries<R> {
    source: R,
    /// Bytes read so far.
    at: u64,
    /// Bytes of the current entry that the stream still holds, and of its padding.
    left: u64,
    padding: u64,
    /// Parts of a sparse file that have bytes in the stream, the next one last.
    parts: Vec<(u64, u64)>,
    /// Position in the content, and its length.
    position: u64,
    size: u64,
}

/// What extended headers say of the next entry.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    records: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    is_after_global: bool,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, at: 0, left: 0, padding: 0, parts: Vec::new(), position: 0, size: 0 }
    }

    /// What is read from.
    pub(crate) fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// Bytes of the current entry that the stream still holds, as they are there.
    pub(crate) const fn left(&self) -> u64 {
        self.left
    }

    /// Says that the caller has read the rest of the current entry from the source.
    pub(crate) fn took_rest(&mut self) {
        self.at += std::mem::take(&mut self.left);
    }

    /// Skips what was not read of the current entry's content, and its padding.
    pub(crate) fn finish_entry(&mut self) -> io::Result<()> {
        self.skip(self.left)?;
        self.skip_padding()
    }

    /// The next entry; what was not read of the last one's content is skipped.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        self.finish_entry()?;
        self.parts.clear();
        (self.position, self.size) = (0, 0);
        let mut extended = Extended::default();
        loop {
            let start = self.at;
            let Some(header) = self.header()? else {
                let is_lone = extended.name.is_none() && extended.target.is_none() && extended.records.is_none();
                return if is_lone {
                    Ok(None)
                } else {
                    Err(malformed(start, "is missing: it would be of what was extended"))
                };
            };
            let field = |range: std::ops::Range<usize>| &header[range];
            let bad = |what: &str| malformed(start, what);
            let size = number(field(124..136)).ok_or_else(|| bad("has no length"))?;
            let twice = || bad("extends the same entry again");
            match header[156] {
                b'L' => {
                    let text = self.extension(start, size)?;
                    if extended.name.replace(until_nul(&text).to_vec()).is_some() {
                        return Err(twice());
                    }
                }
                b'K' => {
                    let text = self.extension(start, size)?;
                    if extended.target.replace(until_nul(&text).to_vec()).is_some() {
                        return Err(twice());
                    }
                }
                // Solaris wrote `X`.
                b'x' | b'X' => {
                    let text = self.extension(start, size)?;
                    let records = records(&text).ok_or_else(|| bad("is no list of records"))?;
                    if extended.records.replace(records).is_some() {
                        return Err(twice());
                    }
                }
                b'g' => {
                    let text = self.extension(start, size)?;
                    let records = records(&text).ok_or_else(|| bad("is no list of records"))?;
                    // GNU tar applies them to all that follows, Go to nothing.
                    if let Some((key, _)) = records.iter().find(|(key, _)| is_meant(key)) {
                        return Err(bad(&format!("sets `{}` for all entries", String::from_utf8_lossy(key))));
                    }
                    extended.is_after_global = true;
                }
                flag => return self.entry(start, &header, flag, size, extended).map(Some),
            }
        }
    }

    /// Where the content of the current entry begins in the stream, and where its padding ends.
    pub(crate) const fn bounds(&self) -> (u64, u64) {
        (self.at, self.at + self.left + self.padding)
    }

    /// The content of the current entry.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content { entries: self }
    }

    fn entry(
        &mut self,
        start: u64,
        header: &[u8; BLOCK],
        flag: u8,
        stored: u64,
        extended: Extended,
    ) -> io::Result<Entry> {
        let bad = |what: &str| malformed(start, what);
        let Extended { name, target, records, is_after_global } = extended;
        let has_records = records.is_some();
        let said = Said::of(records.unwrap_or_default()).map_err(|key| bad(&format!("has a bad `{key}`")))?;
        // `ustar\0`, or GNU's `ustar  \0`, which has other things where the prefix would be.
        let (is_posix, is_gnu) = (&header[257..263] == b"ustar\0", &header[257..265] == b"ustar  \0");
        let is_star = is_posix && &header[508..] == b"tar\0";
        let mut own_name = until_nul(&header[..100]).to_vec();
        if is_posix {
            // star has times after a shorter prefix.
            let end = if is_star { 345 + 131 } else { 500 };
            let prefix = until_nul(&header[345..end]);
            if !prefix.is_empty() {
                own_name = [prefix, b"/", &own_name].concat();
            }
        }
        // Go before 1.8 put a prefix where GNU's format has times. As Go reads it since: what is no time there is one.
        let is_old_go = is_gnu && [&header[345..357], &header[357..369]].into_iter().any(|field| !is_time(field));
        if is_old_go {
            let prefix = until_nul(&header[345..500]);
            if !prefix.is_empty() && prefix.is_ascii() {
                own_name = [prefix, b"/", &own_name].concat();
            }
        }
        let either = |long: Option<Vec<u8>>, record: Option<Vec<u8>>, own: Vec<u8>, what| match (long, record) {
            (Some(long), Some(record)) if long != record => Err(bad(&format!("has two {what}"))),
            (Some(text), _) | (None, Some(text)) => Ok(text),
            (None, None) => Ok(own),
        };
        let name = either(name, said.name, own_name, "names")?;
        let target = either(target, said.target, until_nul(&header[157..257]).to_vec(), "targets")?;
        let is_sparse = said.sparse.is_some() || said.is_sparse_1 || flag == b'S';
        let kind = match flag {
            0 if name.ends_with(b"/") => Kind::Directory,
            // `7` asks for one piece of disk.
            0 | b'0' | b'7' => Kind::File,
            b'S' if is_gnu => Kind::File,
            b'1' => Kind::Link,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        };
        if is_sparse && kind != Kind::File {
            return Err(bad("is sparse and no file"));
        }
        // What is no file has no content, whatever length some programs give.
        let has_content = matches!(kind, Kind::File | Kind::Other(_));
        let stated_size = said.size.unwrap_or(stored);
        let stored = if has_content { stated_size } else { 0 };
        (self.left, self.padding) = (stored, stored.wrapping_neg() % BLOCK as u64);
        self.size = stored;
        if is_sparse {
            let (parts, size) = match said.sparse {
                Some(parts) => (parts, said.real_size),
                None if said.is_sparse_1 => (self.sparse_map(start)?, said.real_size),
                None => {
                    let size = number(&header[483..495]).ok_or_else(|| bad("has no length"))?;
                    (self.sparse_headers(start, header)?, Some(size))
                }
            };
            self.size = size.ok_or_else(|| bad("has no length"))?;
            if !is_in_order(&parts, self.size, self.left) {
                return Err(bad("has parts that do not fit"));
            }
            self.parts = parts;
            self.parts.reverse();
        } else if has_content {
            self.parts.push((0, stored));
        }
        let id = |record: Option<u64>, field: &[u8], what: &str| match record {
            Some(id) => Ok(id),
            None => number(field).ok_or_else(|| bad(&format!("has a bad {what}"))),
        };
        let uid = id(said.uid, &header[108..116], "user id")?;
        let gid = id(said.gid, &header[116..124], "group id")?;
        let device = match kind {
            Kind::Character | Kind::Block if is_posix || is_gnu || has_records => {
                let part = |field| number(field).and_then(|number| u32::try_from(number).ok());
                Some((
                    part(&header[329..337]).ok_or_else(|| bad("has a bad device number"))?,
                    part(&header[337..345]).ok_or_else(|| bad("has a bad device number"))?,
                ))
            }
            _ => None,
        };
        let mode = number(&header[100..108]).ok_or_else(|| bad("has a bad mode"))?;
        let in_ustar = |range: std::ops::Range<usize>| if is_posix || is_gnu { &header[range] } else { &[] };
        let time = |record: Option<Moment>, field: &[u8]| {
            record.unwrap_or_else(|| Moment { seconds: signed_number(field).unwrap_or(0), nanoseconds: 0 })
        };
        // GNU tar writes these times where it has them, star always, others never.
        let times = match (is_star, is_gnu) {
            (true, _) => (&header[476..488], &header[488..500]),
            (_, true) if !is_old_go => (&header[345..357], &header[357..369]),
            _ => (&[][..], &[][..]),
        };
        let stated = Stated {
            mode,
            size: stated_size,
            device: (number(in_ustar(329..337)).unwrap_or(0), number(in_ustar(337..345)).unwrap_or(0)),
            modified: time(said.modified, &header[136..148]),
            accessed: time(said.accessed, times.0),
            changed: time(said.changed, times.1),
            user: said.user.unwrap_or_else(|| until_nul(in_ustar(265..297)).to_vec()),
            group: said.group.unwrap_or_else(|| until_nul(in_ustar(297..329)).to_vec()),
            is_sparse,
            flag,
            is_after_global,
        };
        let mode = u32::try_from(mode & 0o7777).expect("it has twelve bits");
        Ok(Entry { name, kind, mode, uid, gid, size: self.size, target, device, xattrs: said.xattrs, stated })
    }

    /// A header with a right checksum; `None` at the end.
    fn header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let start = self.at;
        let mut block = [0; BLOCK];
        if !self.fill(&mut block)? {
            return Ok(None);
        }
        if block == [0; BLOCK] {
            // The end is two blocks of zeros, or one and nothing more.
            return match self.fill(&mut block)? {
                true if block != [0; BLOCK] => Err(malformed(start, "is empty, and something follows")),
                _ => Ok(None),
            };
        }
        let told = number(&block[148..156]);
        let bytes = || block[..148].iter().chain(&[b' '; 8]).chain(&block[156..]);
        let unsigned: u64 = bytes().map(|byte| u64::from(*byte)).sum();
        // Some early programs summed signed bytes.
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if told != Some(unsigned) && told.and_then(|told| i64::try_from(told).ok()) != Some(signed) {
            return Err(malformed(start, "has a wrong checksum"));
        }
        Ok(Some(block))
    }

    /// The content of an extended header.
    fn extension(&mut self, start: u64, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENDED_BYTES {
            return Err(malformed(start, "is an extended header of more than 1048576 bytes"));
        }
        let mut bytes = vec![0; usize::try_from(size).expect("it is limited")];
        if !self.fill(&mut bytes)? && size > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.padding = size.wrapping_neg() % BLOCK as u64;
        self.skip_padding()?;
        Ok(bytes)
    }

    /// The parts of a sparse file in the format 1.0: decimal numbers in the blocks before its content.
    fn sparse_map(&mut self, start: u64) -> io::Result<Vec<(u64, u64)>> {
        let mut text = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        let mut wanted = 1;
        while numbers.len() < wanted {
            let Some(end) = text.iter().position(|byte| *byte == b'\n') else {
                let mut block = [0; BLOCK];
                let is_too_long = text.len() as u64 > MAX_EXTENDED_BYTES;
                if is_too_long || self.left < BLOCK as u64 || !self.fill(&mut block)? {
                    return Err(malformed(start, "has no list of its parts"));
                }
                self.left -= BLOCK as u64;
                text.extend(block);
                continue;
            };
            let line: Vec<u8> = text.drain(..=end).collect();
            let number = decimal(&line[..end]).ok_or_else(|| malformed(start, "has no list of its parts"))?;
            if numbers.is_empty() {
                let count = usize::try_from(number).ok().filter(|count| *count as u64 <= MAX_EXTENDED_BYTES);
                wanted = count.ok_or_else(|| malformed(start, "has too many parts"))? * 2 + 1;
            }
            numbers.push(number);
        }
        Ok(pairs(&numbers[1..]))
    }

    /// The parts of a sparse file as GNU tar first had them: in the header, and blocks after it.
    fn sparse_headers(&mut self, start: u64, header: &[u8; BLOCK]) -> io::Result<Vec<(u64, u64)>> {
        let mut numbers = Vec::new();
        let mut take = |fields: &[u8]| {
            for field in fields.chunks_exact(12) {
                if field[0] == 0 {
                    break;
                }
                numbers.push(number(field)?);
            }
            Some(())
        };
        let bad = || malformed(start, "has a bad list of its parts");
        take(&header[386..482]).ok_or_else(bad)?;
        let (mut has_more, mut read_bytes) = (header[482] != 0, 0);
        while has_more {
            let mut block = [0; BLOCK];
            read_bytes += BLOCK as u64;
            if read_bytes > MAX_EXTENDED_BYTES || !self.fill(&mut block)? {
                return Err(bad());
            }
            take(&block[..504]).ok_or_else(bad)?;
            has_more = block[504] != 0;
        }
        if !numbers.len().is_multiple_of(2) {
            return Err(bad());
        }
        Ok(pairs(&numbers))
    }

    /// Fills a buffer; `false` when the stream ended before.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += filled as u64;
        Ok(true)
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        if io::copy(&mut (&mut self.source).take(count), &mut io::sink())? != count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count;
        self.left = self.left.saturating_sub(count);
        Ok(())
    }

    fn skip_padding(&mut self) -> io::Result<()> {
        let count = std::mem::take(&mut self.padding);
        // The last block of a stream that was cut there holds all of its content.
        let skipped = io::copy(&mut (&mut self.source).take(count), &mut io::sink())?;
        self.at += skipped;
        Ok(())
    }
}

/// Reads the content of an entry, with zeros for the holes of a sparse file.
pub(crate) struct Content<'a, R> {
    entries: &'a mut Entries<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let entries = &mut *self.entries;
        while entries.parts.last().is_some_and(|(_, length)| *length == 0) {
            entries.parts.pop();
        }
        let limit = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
        let hole_end = entries.parts.last().map_or(entries.size, |(offset, _)| *offset);
        if entries.position < hole_end {
            let count = limit(hole_end - entries.position);
            buffer[..count].fill(0);
            entries.position += count as u64;
            return Ok(count);
        }
        let Some((offset, length)) = entries.parts.last_mut() else { return Ok(0) };
        let count = limit(*length);
        if count == 0 {
            return Ok(0);
        }
        let count = entries.source.read(&mut buffer[..count])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (*offset, *length) = (*offset + count as u64, *length - count as u64);
        entries.position += count as u64;
        entries.at += count as u64;
        entries.left -= count as u64;
        Ok(count)
    }
}

/// What the records of an extended header say, as far as it matters here.
#[derive(Default)]
struct Said {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    real_size: Option<u64>,
    /// Parts of a sparse file in the formats 0.0 and 0.1.
    sparse: Option<Vec<(u64, u64)>>,
    is_sparse_1: bool,
    modified: Option<Moment>,
    accessed: Option<Moment>,
    changed: Option<Moment>,
    user: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
}

impl Said {
    /// Later records count; an empty value takes an earlier one back. The error is the key of a bad value.
    fn of(records: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, String> {
        let mut said = Self::default();
        let (mut sparse_name, mut offsets, mut version) = (None, Vec::new(), (None, None));
        for (key, value) in records {
            let bad = || String::from_utf8_lossy(&key).into_owned();
            let count = || match value.is_empty() {
                true => Ok(None),
                false => decimal(&value).map(Some).ok_or_else(bad),
            };
            let text = || (!value.is_empty()).then(|| value.clone());
            match &*key {
                b"path" => said.name = text(),
                b"linkpath" => said.target = text(),
                b"size" => said.size = count()?,
                b"uid" => said.uid = count()?,
                b"gid" => said.gid = count()?,
                // A time that is none is no reason to refuse an archive: trees have no times.
                b"mtime" => said.modified = moment(&value),
                b"atime" => said.accessed = moment(&value),
                b"ctime" => said.changed = moment(&value),
                b"uname" => said.user = text(),
                b"gname" => said.group = text(),
                b"GNU.sparse.name" => sparse_name = text(),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => said.real_size = count()?,
                b"GNU.sparse.major" => version.0 = count()?,
                b"GNU.sparse.minor" => version.1 = count()?,
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let is_offset = key.ends_with(b"offset");
                    if is_offset != offsets.len().is_multiple_of(2) {
                        return Err(bad());
                    }
                    offsets.push(count()?.ok_or_else(bad)?);
                }
                b"GNU.sparse.map" => {
                    offsets.clear();
                    for part in value.split(|byte| *byte == b',').filter(|_| !value.is_empty()) {
                        offsets.push(decimal(part).ok_or_else(bad)?);
                    }
                    if !offsets.len().is_multiple_of(2) {
                        return Err(bad());
                    }
                    said.sparse = Some(Vec::new());
                }
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        // No file system has one without a name.
                        if name.is_empty() {
                            return Err(bad());
                        }
                        said.xattrs.insert(name.into(), value.into());
                    }
                }
            }
        }
        match version {
            (Some(1), Some(0)) => said.is_sparse_1 = true,
            (None | Some(0), None | Some(0 | 1)) => {
                if !offsets.is_empty() || said.sparse.is_some() {
                    if !offsets.len().is_multiple_of(2) {
                        return Err("GNU.sparse.offset".to_owned());
                    }
                    said.sparse = Some(pairs(&offsets));
                }
            }
            _ => return Err("GNU.sparse.major".to_owned()),
        }
        if said.is_sparse_1 || said.sparse.is_some() {
            said.name = sparse_name.or(said.name);
        }
        Ok(said)
    }
}

/// Whether a record changes what an entry is.
fn is_meant(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid")
        || key.starts_with(b"SCHILY.xattr.")
        || key.starts_with(b"GNU.sparse.")
}

/// The records of an extended header: `length key=value\n`, where the length is of all of it. Values are any bytes.
fn records(mut text: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !text.is_empty() {
        let space = text.iter().take(20).position(|byte| *byte == b' ')?;
        let length = usize::try_from(decimal(&text[..space])?).ok()?;
        let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        text = &text[length..];
    }
    Some(records)
}

fn pairs(numbers: &[u64]) -> Vec<(u64, u64)> {
    numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Whether parts follow each other within a file, and have as many bytes as the stream.
fn is_in_order(parts: &[(u64, u64)], size: u64, stored: u64) -> bool {
    let (mut end, mut sum) = (0u64, 0u64);
    parts.iter().all(|(offset, length)| {
        let is_after = *offset >= end;
        end = offset.saturating_add(*length);
        sum = sum.saturating_add(*length);
        is_after && end <= size
    }) && sum == stored
}

/// The number in a field: octal digits, or from the first bit on in base 256. Nothing is zero.
fn number(field: &[u8]) -> Option<u64> {
    match field {
        // Negative numbers are for times alone.
        [first, rest @ ..] if first & 0x80 != 0 => {
            let start = u64::from(first & 0x7f);
            if first & 0x40 != 0 {
                return None;
            }
            rest.iter().try_fold(start, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(*byte)))
        }
        field => {
            let is_blank = |byte: &u8| matches!(*byte, b' ' | 0);
            let start = field.iter().position(|byte| !is_blank(byte)).unwrap_or(field.len());
            let digits = &field[start..];
            let end = digits.iter().position(is_blank).unwrap_or(digits.len());
            let (digits, rest) = digits.split_at(end);
            if !rest.iter().all(is_blank) {
                return None;
            }
            digits.iter().try_fold(0u64, |sum, byte| {
                sum.checked_mul(OCTAL.into())?.checked_add(char::from(*byte).to_digit(OCTAL)?.into())
            })
        }
    }
}

/// Whether a field can be a time, or nothing.
fn is_time(field: &[u8]) -> bool {
    let start = field.iter().position(|byte| !matches!(*byte, b' ' | 0)).unwrap_or(field.len());
    field[0] == 0 || field[0] & 0x80 != 0 || signed_number(until_nul(&field[start..])).is_some()
}

/// The same for times, which can be before 1970.
fn signed_number(field: &[u8]) -> Option<i64> {
    match field {
        [first, ..] if first & 0xc0 == 0xc0 => {
            let bytes = field.iter().map(|byte| !byte);
            let inverse = bytes.enumerate().try_fold(0i64, |sum, (at, byte)| {
                let byte = if at == 0 { byte & 0x7f } else { byte };
                sum.checked_mul(256)?.checked_add(byte.into())
            })?;
            Some(!inverse)
        }
        field => i64::try_from(number(field)?).ok(),
    }
}

/// Seconds with a fraction, as records have times. Digits behind the ninth are cut off.
fn moment(text: &[u8]) -> Option<Moment> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let (is_negative, digits) = whole.strip_prefix('-').map_or((false, whole), |digits| (true, digits));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = i64::try_from(decimal(digits.as_bytes())?).ok()?;
    let nanoseconds: u32 = format!("{fraction:0<9.9}").parse().ok()?;
    Some(match (is_negative, nanoseconds) {
        (false, _) => Moment { seconds, nanoseconds },
        (true, 0) => Moment { seconds: -seconds, nanoseconds },
        (true, _) => Moment { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// A number of decimal digits alone.
fn decimal(text: &[u8]) -> Option<u64> {
    let is_plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn malformed(start: u64, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the header at byte {start} {what}"))
}
