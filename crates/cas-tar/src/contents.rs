//! Tables of contents: what the headers of a plan tell, entry by entry, and where each content is.
//!
//! Both formats that have one list the entries of the tar as JSON. The headers themselves are read again, so that trees of ours and
//! archives of others are told in one way, and the table cannot differ from what it stands for.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cas_time::Utc;
use serde_json::{Map, Value};

use crate::entries::{Entries, Entry, Kind, Moment};
use crate::header::EntryError;
use crate::{ContentIndex, LayerPlan, Piece};

/// Last year that RFC 3339 can tell.
const MAX_YEAR: i64 = 9999;

/// An object of a table, with its keys in order.
pub(crate) type Item = BTreeMap<&'static str, Value>;

/// A group as it was written.
#[derive(Clone, Copy, Debug)]
pub struct GroupIndex<'a> {
    /// Length of its compressed bytes.
    pub size: u64,
    /// Its contents, in order.
    pub contents: &'a [ContentIndex],
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// An entry that a table cannot tell.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Reading or writing failed.
    #[error("could not write a table of contents")]
    Io(#[from] io::Error),
}

/// An entry, with what it takes to tell of it.
pub(crate) struct Listed<'a> {
    pub(crate) entry: &'a Entry,
    /// Its name, which is text.
    pub(crate) name: &'a str,
    /// What stands in the archive between the last content and this one: padding and headers.
    pub(crate) raw: &'a [u8],
    /// Where its group begins, and where its content is in there.
    pub(crate) content: Option<(u64, &'a ContentIndex)>,
}

/// Calls `take` for each entry of a plan; returns what follows the last one.
pub(crate) fn each(
    plan: &LayerPlan,
    groups: &[GroupIndex<'_>],
    take: &mut dyn FnMut(&Listed<'_>) -> Result<(), ContentsError>,
) -> Result<Vec<u8>, ContentsError> {
    let mut start = 0;
    let mut contents = Vec::new();
    for group in groups {
        contents.extend(group.contents.iter().map(|content| (start, content)));
        start += group.size;
    }
    let mut contents = contents.into_iter();
    let mut last = String::new();
    let mut padding = 0;
    let mut entries = Entries::new(Headers { plan, group: 0, piece: 0, at: 0, raw: Vec::new() });
    while let Some(entry) = entries.next_entry()? {
        let name = text(&entry.name, &entry.name, "its name is not UTF-8")?.to_owned();
        let refuse = |why| EntryError::Contents { path: name.clone(), why };
        if entry.stated.is_sparse {
            return Err(refuse("it is sparse").into());
        }
        if entry.stated.is_after_global {
            return Err(refuse("a header for all entries stands before it").into());
        }
        if matches!(entry.kind, Kind::Other(_)) || entry.stated.flag == b'7' {
            return Err(refuse("its type is none of those that tables have").into());
        }
        if entry.kind != Kind::File && entry.stated.size > 0 {
            return Err(refuse("it is no file and tells a length").into());
        }
        let content = match entry.size {
            0 => None,
            size => {
                let found = contents.next().filter(|(_, content)| content.size() == size);
                Some(found.ok_or_else(|| io::Error::other("contents and headers of a plan differ"))?)
            }
        };
        let raw = std::mem::take(&mut entries.source().raw);
        take(&Listed { entry: &entry, name: &name, raw: &raw, content })?;
        padding = entry.size.wrapping_neg() % 512;
        last = name;
    }
    io::copy(entries.source(), &mut io::sink())?;
    if contents.next().is_some() {
        let why = "more than 1 MiB follows the end of the archive";
        return Err(EntryError::Contents { path: "the layer".to_owned(), why }.into());
    }
    let rest = std::mem::take(&mut entries.source().raw);
    if !rest.is_empty() && (rest.len() as u64) < padding {
        return Err(EntryError::Contents { path: last, why: "the archive ends within its last block" }.into());
    }
    Ok(rest)
}

/// The fields that both formats have, in the words of Go's `archive/tar`; nothing that is empty or zero.
pub(crate) fn fields(listed: &Listed<'_>) -> Result<Item, ContentsError> {
    let Listed { entry, name, .. } = listed;
    let kind = match entry.kind {
        Kind::File => "reg",
        Kind::Link => "hardlink",
        Kind::Symlink => "symlink",
        Kind::Character => "char",
        Kind::Block => "block",
        Kind::Directory => "dir",
        Kind::Fifo => "fifo",
        Kind::Other(_) => return Err(io::Error::other("entries of other types are refused").into()),
    };
    let mut map = Item::new();
    map.insert("type", kind.into());
    map.insert("name", (*name).into());
    if !entry.target.is_empty() && matches!(entry.kind, Kind::Link | Kind::Symlink) {
        let target = text(&entry.target, name.as_bytes(), "the path that it links to is not UTF-8")?;
        map.insert("linkName", target.into());
    }
    let mut number = |key: &'static str, value: u64| {
        if value > 0 {
            map.insert(key, value.into());
        }
    };
    number("mode", entry.stated.mode);
    number("size", entry.size);
    number("uid", entry.uid);
    number("gid", entry.gid);
    if !entry.xattrs.is_empty() {
        // Keys go in sorted, so the order is theirs whatever the map's own is.
        let mut xattrs = Map::new();
        for (key, value) in &entry.xattrs {
            let key = text(key, name.as_bytes(), "the name of an extended attribute is not UTF-8")?;
            xattrs.insert(key.to_owned(), BASE64.encode(value).into());
        }
        map.insert("xattrs", xattrs.into());
    }
    Ok(map)
}

/// The item of an entry with its chunks: the first one's fields are in it, each other chunk is an item of its own. `start` is where the
/// group begins, `has_digests` whether digests of chunks are told.
pub(crate) fn with_chunks(map: Item, name: &str, start: u64, content: &ContentIndex, has_digests: bool) -> Vec<Item> {
    let (mut maps, mut offset) = (vec![map], 0u64);
    for (index, chunk) in content.chunks.iter().enumerate() {
        if index > 0 {
            maps.push(Item::from([("type", "chunk".into()), ("name", name.into()), ("chunkOffset", offset.into())]));
        }
        let map = maps.last_mut().expect("there is one");
        map.insert("offset", (start + chunk.start).into());
        if content.chunks.len() > 1 {
            map.insert("chunkSize", chunk.size.into());
        }
        if has_digests {
            map.insert("chunkDigest", chunk.sha256.to_string().into());
        }
        offset += chunk.size;
    }
    maps
}

/// A time as RFC 3339 has it, with its fraction if `exact`; `None` for the beginning of 1970, which stands for no time.
pub(crate) fn time(moment: Moment, name: &str) -> Result<Option<String>, EntryError> {
    let date = Utc::from_unix(moment.seconds);
    if moment == Moment::default() {
        return Ok(None);
    }
    if !(0..=MAX_YEAR).contains(&date.year) {
        return Err(EntryError::Contents {
            path: name.to_owned(),
            why: "its time has a year of more than four digits",
        });
    }
    let text = date.to_string();
    let fraction = format!("{:09}", moment.nanoseconds);
    Ok(Some(match fraction.trim_end_matches('0') {
        "" => text,
        digits => format!("{}.{digits}Z", text.trim_end_matches('Z')),
    }))
}

/// A name as two names that are the same for a reader have it.
pub(crate) fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Writes an item of a list.
pub(crate) fn item(map: &Item, is_first: &mut bool, sink: &mut dyn Write) -> io::Result<()> {
    if !std::mem::take(is_first) {
        sink.write_all(b",")?;
    }
    serde_json::to_writer(sink, map).map_err(io::Error::from)
}

pub(crate) fn text<'a>(bytes: &'a [u8], name: &[u8], why: &'static str) -> Result<&'a str, EntryError> {
    std::str::from_utf8(bytes)
        .map_err(|_| EntryError::Contents { path: String::from_utf8_lossy(name).into_owned(), why })
}

/// The bytes of a plan without its contents, which are read as zeros.
struct Headers<'a> {
    plan: &'a LayerPlan,
    group: usize,
    piece: usize,
    at: u64,
    /// Headers and padding that were read.
    raw: Vec<u8>,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(group) = self.plan.groups.get(self.group) else { return Ok(0) };
            let Some(piece) = group.pieces().get(self.piece) else {
                (self.group, self.piece, self.at) = (self.group + 1, 0, 0);
                continue;
            };
            let length = match piece {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Content(blob) => blob.size,
            };
            let count = usize::try_from(length - self.at).unwrap_or(usize::MAX).min(buffer.len());
            if count == 0 && self.at == length {
                (self.piece, self.at) = (self.piece + 1, 0);
                continue;
            }
            match piece {
                Piece::Bytes(bytes) => {
                    let at = usize::try_from(self.at).expect("it is within a slice");
                    buffer[..count].copy_from_slice(&bytes[at..at + count]);
                    self.raw.extend_from_slice(&bytes[at..at + count]);
                }
                Piece::Content(_) => buffer[..count].fill(0),
            }
            self.at += count as u64;
            return Ok(count);
        }
    }
}
