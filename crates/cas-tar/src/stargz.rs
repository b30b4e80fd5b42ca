//! What an eStargz layer has beside the entries of its tree: the landmark before them, the table of contents and the footer behind.
//!
//! Source: containerd/stargz-snapshotter, `docs/estargz.md` and `estargz/`; rules in docs/formats/layer.md.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use cas_blob::Descriptor;
use cas_digest::Sha256;

use crate::LayerPlan;
use crate::contents::{ContentsError, GroupIndex, Item, Listed, clean, each, fields, item, time, with_chunks};
use crate::entries::{Kind, Moment};
use crate::header::{BLOCK_BYTES, EntryError, Header, pad};
use crate::plan::Builder;
use crate::seekable::gzip_member;
use crate::tail::Tail;

/// The content of the landmark.
pub const LANDMARK: &[u8] = &[0x0f];
/// This landmark says that nothing is to be fetched before it is asked for.
const LANDMARK_NAME: &str = ".no.prefetch.landmark";
const TABLE_NAME: &str = "stargz.index.json";
/// Names that the format has for itself.
pub(crate) const OWN_NAMES: [&str; 3] = [LANDMARK_NAME, ".prefetch.landmark", TABLE_NAME];
const TABLE_ANNOTATION: &str = "containerd.io/snapshot/stargz/toc.digest";
const SIZE_ANNOTATION: &str = "io.containers.estargz.uncompressed-size";

/// Adds the landmark.
pub(crate) fn landmark(builder: &mut Builder, blob: Descriptor) {
    let none = BTreeMap::new();
    let mut header = Vec::new();
    let name = LANDMARK_NAME.as_bytes();
    Header { mode: 0o644, size: blob.size, ..Header::new(name, b'0', &none) }.encode(&mut header);
    builder.open(name, &header, Some(blob));
    let mut padding = Vec::new();
    pad(&mut padding, blob.size);
    builder.tail(&padding);
}

/// Makes the tail of a layer whose groups begin at the blob's first byte; `tar` gets what it adds to the uncompressed bytes.
pub(crate) fn tail(plan: &LayerPlan, groups: &[GroupIndex<'_>], tar: &mut dyn Write) -> Result<Tail, ContentsError> {
    let mut measure = Measure { digest: Sha256::new(), length: 0 };
    table(plan, groups, &mut measure)?;
    let (length, digest) = (measure.length, measure.digest.finish());
    let none = BTreeMap::new();
    let mut header = Vec::new();
    Header { mode: 0o644, size: length, ..Header::new(TABLE_NAME.as_bytes(), b'0', &none) }.encode(&mut header);
    let mut end = Vec::new();
    pad(&mut end, length);
    end.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
    let start: u64 = groups.iter().map(|group| group.size).sum();
    let mut bytes = Vec::new();
    gzip_member(&mut bytes, |member| {
        let mut both = io::BufWriter::with_capacity(64 << 10, Both(member, tar));
        both.write_all(&header)?;
        table(plan, groups, &mut both).map_err(io::Error::other)?;
        both.write_all(&end)?;
        both.flush()
    })?;
    bytes.extend_from_slice(&footer(start));
    let tar_length = (header.len() + end.len()) as u64 + length;
    let annotations = BTreeMap::from([
        (TABLE_ANNOTATION.to_owned(), digest.to_string()),
        (SIZE_ANNOTATION.to_owned(), (plan.size() + tar_length).to_string()),
    ]);
    Ok(Tail { bytes, tar_length, annotations })
}

/// An empty member of gzip that tells where the member of the table begins.
fn footer(table_start: u64) -> [u8; 51] {
    let mut bytes = [0; 51];
    // With extra fields; then the length of these, and of the one that is there (RFC 1952, 2.3.1.1).
    bytes[..16].copy_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0]);
    bytes[16..38].copy_from_slice(format!("{table_start:016x}STARGZ").as_bytes());
    // A last block, stored, of no bytes; CRC and length are zero.
    bytes[38..43].copy_from_slice(&[1, 0, 0, 0xff, 0xff]);
    bytes
}

fn table(plan: &LayerPlan, groups: &[GroupIndex<'_>], sink: &mut dyn Write) -> Result<(), ContentsError> {
    let mut is_first = true;
    let (mut users, mut owners) = (BTreeMap::new(), BTreeMap::new());
    sink.write_all(br#"{"version":1,"entries":["#)?;
    // Files of several chunks: a later entry of such a name would be read with the chunks of both.
    let mut in_chunks = BTreeSet::new();
    each(plan, groups, &mut |listed| {
        let name = clean(listed.name);
        if in_chunks.contains(&name) {
            let why = "an entry of several chunks has its name, which eStargz's readers confuse";
            return Err(EntryError::Contents { path: listed.name.to_owned(), why }.into());
        }
        if listed.content.is_some_and(|(_, content)| content.chunks.len() > 1) {
            in_chunks.insert(name);
        }
        let mut maps = entry(listed)?;
        let stated = &listed.entry.stated;
        // A name is told where it is not the one that the number had before.
        for (key, names, id, name) in [
            ("userName", &mut users, listed.entry.uid, &stated.user),
            ("groupName", &mut owners, listed.entry.gid, &stated.group),
        ] {
            let known = names.insert(id, name.clone()).unwrap_or_default();
            if known != *name {
                maps[0].insert(key, String::from_utf8_lossy(name).into());
            }
        }
        maps.iter().try_for_each(|map| Ok(item(map, &mut is_first, sink)?))
    })?;
    Ok(sink.write_all(b"]}")?)
}

/// What the table says of an entry: one item, and one more for each further chunk.
fn entry(listed: &Listed<'_>) -> Result<Vec<Item>, ContentsError> {
    let mut map = fields(listed)?;
    let stated = &listed.entry.stated;
    // To the second, to the nearer one.
    let nearer = i64::from(stated.modified.nanoseconds >= 500_000_000);
    let seconds = stated.modified.seconds.saturating_add(nearer);
    if let Some(text) = time(Moment { seconds, nanoseconds: 0 }, listed.name)? {
        map.insert("modtime", text.into());
    }
    if matches!(listed.entry.kind, Kind::Character | Kind::Block) {
        for (key, number) in [("devMajor", stated.device.0), ("devMinor", stated.device.1)] {
            if number > 0 {
                map.insert(key, number.into());
            }
        }
    }
    if listed.entry.kind == Kind::File {
        let digest = listed.content.map_or_else(|| Sha256::new().finish(), |(_, content)| content.sha256);
        map.insert("digest", digest.to_string().into());
    }
    Ok(match listed.content {
        None => vec![map],
        Some((start, content)) => with_chunks(map, listed.name, start, content, true),
    })
}

struct Measure {
    digest: Sha256,
    length: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Both<'a>(&'a mut dyn Write, &'a mut dyn Write);

impl Write for Both<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        self.1.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
