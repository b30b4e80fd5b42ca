//! Frames of archives: a group that is compressed, or the frame that was made of it before.
//!
//! What was made is remembered by the group's key, the codec and the function that names frames. A group that is too long for memory
//! goes by way of the disk.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use cas_blob::{Descriptor, OpenBlob, OpenBlobError};
use cas_digest::{Digest, DigestFunction};
use cas_store::Store;
use cas_tar::{Codec, ContentIndex, Encoded, Frame, FrameSummary, Group, Piece, copy_pieces};

use crate::BuildError;

/// A group up to this size is compressed in memory, a larger one by way of a file.
pub(crate) const IN_MEMORY_BYTES: u64 = 8 << 20;
/// Longest index of a group's contents that is read.
const MAX_CONTENTS_BYTES: u64 = 64 << 20;

/// A group that was compressed, now or before.
pub(crate) struct Made {
    /// Names the group.
    pub(crate) key: Digest,
    pub(crate) frame: Frame,
    pub(crate) contents: Option<(Descriptor, Vec<ContentIndex>)>,
}

/// The bytes of a group, and those of its frame; of a frame that is the group's bytes none.
pub(crate) type Bytes = (Arc<Vec<u8>>, Vec<u8>);

/// What became of a group, and its bytes where they fit into memory.
pub(crate) struct Compressed {
    pub(crate) made: Made,
    pub(crate) bytes: Option<Bytes>,
}

/// Compresses a group, unless that was done before.
pub(crate) fn make(
    store: &Store,
    function: DigestFunction,
    codec: Codec,
    group: &Group,
) -> Result<Compressed, BuildError> {
    let key = group.key();
    let kind = format!("frame {} {function}", codec.id());
    let is_small = group.size() <= IN_MEMORY_BYTES;
    let known = store.memo(&kind, key.value())?.and_then(|value| parse(&value, group.size(), codec));
    let mut tar = Vec::new();
    if is_small {
        tar.reserve_exact(usize::try_from(group.size()).unwrap_or_default());
        copy_pieces(group.pieces(), store, &mut tar).map_err(BuildError::Compress)?;
    }
    let tar = Arc::new(tar);
    if let Some((frame, name)) = known
        && store.contains(&frame.blob)?
        && let Some(contents) = name.map_or(Ok(Some(None)), |name| {
            load_contents(store, &name).map(|contents| contents.map(|contents| Some((name, contents))))
        })?
    {
        let bytes = match (is_small, codec) {
            (false, _) => None,
            (true, Codec::Identity) => Some((tar, Vec::new())),
            (true, _) => Some((tar, store.load(&frame.blob, frame.blob.size)?)),
        };
        return Ok(Compressed { made: Made { key, frame, contents }, bytes });
    }
    let (blob, encoded, bytes) = if is_small {
        let place = InMemory::new(group, &tar);
        let (bytes, encoded) = codec.encode(group, &place, Vec::new()).map_err(BuildError::Compress)?;
        (store.put_bytes(function, &bytes)?, encoded, Some((tar, bytes)))
    } else {
        // Another image may be at the same group, with this codec or another one.
        let folder = cas_fs::temporary_dir_in(store.scratch(), "frame-")?;
        let result = encode_by_file(store, function, codec, group, &folder.join("part"));
        // Made or not, the file has served; what stays goes with the process's folder.
        let _ = cas_fs::remove_tree(&folder);
        let (blob, encoded) = result?;
        (blob, encoded, None)
    };
    let Encoded { summary, contents } = encoded;
    let mut value = format!("{blob} {:08x}", summary.crc32);
    let contents = match codec.has_contents() {
        false => None,
        true => {
            let name = store.put_bytes(function, &ContentIndex::encode(&contents))?;
            value.push_str(&format!(" {name}"));
            Some((name, contents))
        }
    };
    store.put_memo(&kind, key.value(), value.as_bytes())?;
    Ok(Compressed { made: Made { key, frame: Frame { blob, summary }, contents }, bytes })
}

/// What a memo tells of a group: its frame, and the name of its contents' index.
fn parse(value: &[u8], length: u64, codec: Codec) -> Option<(Frame, Option<Descriptor>)> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let blob = words.next()?.parse().ok()?;
    let crc32 = u32::from_str_radix(words.next()?, 16).ok()?;
    let contents = words.next().map(str::parse).transpose().ok()?;
    let frame = Frame { blob, summary: FrameSummary { length, crc32 } };
    (contents.is_some() == codec.has_contents()).then_some((frame, contents))
}

/// The index of a group's contents; `None` when it is gone or makes no sense.
pub(crate) fn load_contents(store: &Store, name: &Descriptor) -> Result<Option<Vec<ContentIndex>>, BuildError> {
    if !store.contains(name)? {
        return Ok(None);
    }
    Ok(ContentIndex::decode(&store.load(name, MAX_CONTENTS_BYTES)?))
}

fn encode_by_file(
    store: &Store,
    function: DigestFunction,
    codec: Codec,
    group: &Group,
    path: &std::path::Path,
) -> Result<(Descriptor, Encoded), BuildError> {
    let file = io::BufWriter::with_capacity(1 << 20, cas_fs::create_new(path, 0o600)?);
    let (mut writer, encoded) = codec.encode(group, store, file).map_err(BuildError::Compress)?;
    writer.flush().map_err(BuildError::Compress)?;
    drop(writer);
    let mut source: Box<dyn Read> = Box::new(cas_fs::open(path)?);
    Ok((store.put(function, &mut source)?, encoded))
}

/// The contents of a group whose bytes are in memory.
struct InMemory {
    bytes: Arc<Vec<u8>>,
    starts: BTreeMap<Descriptor, usize>,
}

impl InMemory {
    fn new(group: &Group, bytes: &Arc<Vec<u8>>) -> Self {
        let (mut starts, mut at) = (BTreeMap::new(), 0);
        for piece in group.pieces() {
            at += match piece {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::Content(blob) => {
                    starts.insert(*blob, at);
                    usize::try_from(blob.size).unwrap_or(usize::MAX)
                }
            };
        }
        Self { bytes: Arc::clone(bytes), starts }
    }
}

impl OpenBlob for InMemory {
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError> {
        let start = self.starts.get(blob).ok_or(OpenBlobError::Missing(*blob))?;
        Ok(Box::new(Slice { bytes: Arc::clone(&self.bytes), at: *start }.take(blob.size)))
    }
}

struct Slice {
    bytes: Arc<Vec<u8>>,
    at: usize,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&self.bytes[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}
