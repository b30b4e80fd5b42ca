//! What follows the frames of a zstd:chunked layer: the table of contents, the tar without its contents, and the footer.
//!
//! Source: containers/storage, `pkg/chunked/internal/minimal/compression.go` and `pkg/chunked/compressor`, and tar-split's
//! `tar/asm/disassemble.go`; rules in docs/formats/layer.md.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cas_digest::{Digest, DigestFunction};

use crate::LayerPlan;
use crate::contents::{ContentsError, GroupIndex, Item, Listed, clean, each, fields, item, text, time, with_chunks};
use crate::header::EntryError;
use crate::tail::Tail;

/// Magic number of a skippable frame (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// Last bytes of the footer.
const MAGIC: &[u8; 8] = b"GNUlInUx";
/// The one kind of table that there is.
const TYPE: u64 = 1;
/// How much the table and the tar without its contents are compressed.
const LEVEL: i32 = 8;
/// The same for those that are longer than [`MAX_HELD_BYTES`]: of 100,000 files the difference is a second.
const LONG_LEVEL: i32 = 3;
const MAX_HELD_BYTES: usize = 4 << 20;
const PREFIX: &str = "io.github.containers.zstd-chunked";

/// Makes the tail of a layer whose groups begin at the blob's first byte.
pub(crate) fn tail(plan: &LayerPlan, groups: &[GroupIndex<'_>]) -> Result<Tail, ContentsError> {
    let (mut table, mut split) = (Document::new(), Document::new());
    let mut seen = BTreeSet::new();
    let (mut is_first, mut position) = (true, 0u64);
    table.write(br#"{"version":1,"entries":["#)?;
    let rest = each(plan, groups, &mut |listed| {
        if !seen.insert(clean(listed.name)) {
            let why = "another entry has its name, which zstd:chunked does not allow";
            return Err(EntryError::Contents { path: listed.name.to_owned(), why }.into());
        }
        for map in entry(listed)? {
            item(&map, &mut is_first, &mut table.writer)?;
        }
        segment(&mut split, &mut position, listed.raw)?;
        let mut file = Item::new();
        file.insert("type", 1.into());
        file.insert("name", listed.name.into());
        if listed.entry.size > 0 {
            file.insert("size", listed.entry.size.into());
        }
        let checksum = listed.content.map(|(_, content)| BASE64.encode(content.crc64.to_be_bytes()));
        file.insert("payload", checksum.into());
        line(&mut split, &mut position, file)
    })?;
    if !rest.is_empty() {
        segment(&mut split, &mut position, &rest)?;
    }
    let (split, split_length) = split.finish()?;
    table.write(format!("],\"tarSplitDigest\":\"{}\"}}", Digest::of(DigestFunction::Sha256, &split)).as_bytes())?;
    let (table, table_length) = table.finish()?;
    let frames: u64 = groups.iter().map(|group| group.size).sum();
    let table_start = frames + 8;
    let split_start = table_start + table.len() as u64 + 8;
    let mut bytes = Vec::with_capacity(table.len() + split.len() + 88);
    skippable(&mut bytes, &table)?;
    skippable(&mut bytes, &split)?;
    let mut footer = Vec::with_capacity(64);
    for number in [table_start, table.len() as u64, table_length, TYPE, split_start, split.len() as u64, split_length] {
        footer.extend_from_slice(&number.to_le_bytes());
    }
    footer.extend_from_slice(MAGIC);
    skippable(&mut bytes, &footer)?;
    let annotations = BTreeMap::from([
        (format!("{PREFIX}.manifest-checksum"), Digest::of(DigestFunction::Sha256, &table).to_string()),
        (format!("{PREFIX}.manifest-position"), format!("{table_start}:{}:{table_length}:{TYPE}", table.len())),
        (format!("{PREFIX}.tarsplit-position"), format!("{split_start}:{}:{split_length}", split.len())),
    ]);
    Ok(Tail { bytes, tar_length: 0, annotations })
}

/// What the table says of an entry: one item, and one more for each further chunk.
fn entry(listed: &Listed<'_>) -> Result<Vec<Item>, ContentsError> {
    let mut map = fields(listed)?;
    let stated = &listed.entry.stated;
    // Readers compare the field of every entry, whatever it is.
    if !listed.entry.target.is_empty() {
        let why = "the path that it links to is not UTF-8";
        map.insert("linkName", text(&listed.entry.target, listed.name.as_bytes(), why)?.into());
    }
    for (key, moment) in [("modtime", stated.modified), ("accesstime", stated.accessed), ("changetime", stated.changed)]
    {
        if let Some(text) = time(moment, listed.name)? {
            map.insert(key, text.into());
        }
    }
    for (key, number) in [("devMajor", stated.device.0), ("devMinor", stated.device.1)] {
        if number > 0 {
            map.insert(key, number.into());
        }
    }
    let Some((start, content)) = listed.content else { return Ok(vec![map]) };
    let end = content.chunks.last().map_or(0, |chunk| start + chunk.end);
    map.insert("digest", content.sha256.to_string().into());
    map.insert("endOffset", end.into());
    let mut maps = with_chunks(map, listed.name, start, content, content.chunks.len() > 1);
    // Readers look for it at the last chunk; without it they fetch up to the next file.
    maps.last_mut().expect("there is one").insert("endOffset", end.into());
    Ok(maps)
}

/// Bytes of the tar as they are.
fn segment(split: &mut Document, position: &mut u64, bytes: &[u8]) -> Result<(), ContentsError> {
    let mut map = Item::new();
    map.insert("type", 2.into());
    map.insert("payload", BASE64.encode(bytes).into());
    line(split, position, map)
}

fn line(split: &mut Document, position: &mut u64, mut map: Item) -> Result<(), ContentsError> {
    map.insert("position", (*position).into());
    *position += 1;
    serde_json::to_writer(&mut split.writer, &map).map_err(io::Error::from)?;
    split.write(b"\n")
}

fn skippable(into: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a table of contents is over 4 GiB"))?;
    into.extend_from_slice(&SKIPPABLE);
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(bytes);
    Ok(())
}

/// Something that is compressed when it is whole, or as it is written where it is too long for that.
struct Document {
    writer: BufWriter<Compressing>,
}

struct Compressing {
    state: State,
    length: u64,
}

enum State {
    Held(Vec<u8>),
    Open(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Document {
    fn new() -> Self {
        let compressing = Compressing { state: State::Held(Vec::new()), length: 0 };
        Self { writer: BufWriter::with_capacity(64 << 10, compressing) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ContentsError> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// The compressed bytes, and the length of the others.
    fn finish(self) -> io::Result<(Vec<u8>, u64)> {
        let Compressing { state, length } = self.writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        let encoder = match state {
            State::Open(encoder) => encoder,
            State::Held(bytes) => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
                encoder.write_all(&bytes)?;
                encoder
            }
        };
        Ok((encoder.finish()?, length))
    }
}

impl Write for Compressing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.length += bytes.len() as u64;
        match &mut self.state {
            State::Held(held) if held.len() + bytes.len() <= MAX_HELD_BYTES => held.extend_from_slice(bytes),
            State::Held(held) => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LONG_LEVEL)?;
                encoder.write_all(held)?;
                encoder.write_all(bytes)?;
                self.state = State::Open(encoder);
            }
            State::Open(encoder) => encoder.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_documents_are_compressed_with_less_effort() {
        let bytes: Vec<u8> = (0u32..)
            .flat_map(|number| format!("{}\n", number.wrapping_mul(40_503) % 9973).into_bytes())
            .take(MAX_HELD_BYTES + 1)
            .collect();
        for (length, level) in [(0, LEVEL), (1000, LEVEL), (MAX_HELD_BYTES, LEVEL), (MAX_HELD_BYTES + 1, LONG_LEVEL)] {
            let mut document = Document::new();
            for part in bytes[..length].chunks(999) {
                document.write(part).expect("it is in memory");
            }
            let (compressed, told) = document.finish().expect("it is in memory");
            assert_eq!(told, length as u64);
            let mut expected = zstd::stream::write::Encoder::new(Vec::new(), level).expect("there is memory");
            expected.write_all(&bytes[..length]).expect("it is in memory");
            assert!(compressed == expected.finish().expect("it is in memory"), "{length}");
            assert!(zstd::decode_all(&compressed[..]).expect("it is whole") == bytes[..length], "{length}");
        }
    }
}
