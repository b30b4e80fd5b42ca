//! The frames of an archive, made in parallel, and both of its digests in the same pass.
//!
//! Workers compress groups, or fetch what was made of them before; one thread takes what they give in order and digests it. What a
//! layer was hashed to at the end of each group is kept with its place in an image, so that next time only what follows the first
//! change is read again. Bytes in flight are bounded; a file that is too long for memory goes by way of the disk.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use cas_blob::{Descriptor, OpenBlob, OpenBlobError};
use cas_digest::{Digest, DigestFunction, Sha256};
use cas_store::{Store, StoreError};
use cas_tar::{
    Codec, ContentIndex, ContentsError, Encoded, Frame, FrameSummary, Group, GroupIndex, LayerPlan, Piece, RecipeTail,
    Tail, copy_pieces,
};

use crate::BuildError;
use crate::layer::LayerError;
use crate::layer_states::{GroupState, LayerStates};

/// A group up to this size is compressed in memory, a larger one by way of a file.
const IN_MEMORY_BYTES: u64 = 8 << 20;
/// Uncompressed bytes of groups that are being worked on, or wait to be digested, of all archives that are made at the same time.
const IN_FLIGHT_BYTES: u64 = 32 << 20;
/// Longest index of a group's contents that is read.
const MAX_CONTENTS_BYTES: u64 = 64 << 20;

/// What an archive was made of.
pub(crate) struct Assembled {
    pub(crate) tar: Descriptor,
    pub(crate) blob: Descriptor,
    pub(crate) frames: Vec<Frame>,
    pub(crate) tail: Option<RecipeTail>,
    pub(crate) states: LayerStates,
}

/// A group that was compressed, now or before.
#[derive(Clone)]
struct Made {
    frame: Frame,
    contents: Option<(Descriptor, Vec<ContentIndex>)>,
    /// The group's bytes, and those of its frame, where they fit into memory.
    bytes: Option<(Arc<Vec<u8>>, Vec<u8>)>,
}

/// Makes the frames of a plan. `before` is what was kept of an earlier archive in the same place, `at_once` how many archives are
/// made at the same time, which share processors and memory.
pub(crate) fn assemble(
    store: &Store,
    function: DigestFunction,
    codec: Codec,
    plan: &LayerPlan,
    before: Option<&LayerStates>,
    at_once: usize,
) -> Result<Assembled, LayerError> {
    let groups = &plan.groups;
    let keys: Vec<Digest> = groups.iter().map(Group::key).collect();
    let mut run = Run { store, codec, tar: Sha256::new(), blob: Sha256::new(), sizes: (0, 0), made: Vec::new() };
    run.feed_blob(codec.header());
    let mut states = LayerStates { groups: run.resume(&keys, before)? };
    let first = states.groups.len();
    let line = Line::new(&groups[first..], IN_FLIGHT_BYTES / at_once.max(1) as u64);
    let make = |index: usize| make(store, function, codec, &groups[first + index], &keys[first + index]);
    let digested = thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        let workers = processors.div_ceil(at_once.max(1)).min(groups.len() - first);
        // Workers stop when this thread does, whatever the reason.
        let _stop = Stop(&line);
        for started in 0..workers {
            let spawned = thread::Builder::new().spawn_scoped(scope, || line.work(&make));
            // A machine that has no room for more threads has enough with those that run.
            if let Err(error) = spawned {
                match started {
                    0 => return Err(BuildError::Compress(error)),
                    _ => break,
                }
            }
        }
        for (index, group) in groups[first..].iter().enumerate() {
            if group.size() > IN_MEMORY_BYTES {
                // Its bytes are in the store: this need not wait for the frame.
                run.feed_tar_of(group)?;
            }
            let made = line.take(index)?;
            states.groups.push(run.feed(&keys[first + index], group, made)?);
        }
        Ok::<_, BuildError>(())
    });
    digested?;
    run.finish(function, plan, states)
}

/// The digests of what there is of an archive.
struct Run<'a> {
    store: &'a Store,
    codec: Codec,
    tar: Sha256,
    blob: Sha256,
    /// Bytes of the tar and of the blob.
    sizes: (u64, u64),
    made: Vec<Made>,
}

impl Run<'_> {
    /// Goes on behind the groups that are the same as before, whose frames are all here; returns their states.
    fn resume(&mut self, keys: &[Digest], before: Option<&LayerStates>) -> Result<Vec<GroupState>, BuildError> {
        let before = before.map_or(&[][..], |states| &states.groups[..]);
        let same = before.iter().zip(keys).take_while(|(state, key)| state.key == **key).count();
        let blobs: Vec<Descriptor> = before[..same].iter().map(|state| state.frame.blob).collect();
        let same = self.store.contain(&blobs)?.iter().take_while(|is_here| **is_here).count();
        let mut states = Vec::new();
        for state in &before[..same] {
            let contents = match &state.contents {
                Some(name) => match load_contents(self.store, name)? {
                    Some(contents) => Some((*name, contents)),
                    None => break,
                },
                None => None,
            };
            self.made.push(Made { frame: state.frame, contents, bytes: None });
            states.push(state.clone());
        }
        let resumed = states.last().and_then(|last| Some((Sha256::resume(&last.tar)?, Sha256::resume(&last.blob)?)));
        let Some(resumed) = resumed else {
            self.made.clear();
            return Ok(Vec::new());
        };
        (self.tar, self.blob) = resumed;
        for made in &self.made {
            self.sizes.0 += made.frame.summary.length;
            self.sizes.1 += made.frame.blob.size;
        }
        Ok(states)
    }

    fn feed_blob(&mut self, bytes: &[u8]) {
        self.blob.update(bytes);
        self.sizes.1 += bytes.len() as u64;
    }

    fn feed_tar_of(&mut self, group: &Group) -> Result<(), BuildError> {
        copy_pieces(group.pieces(), self.store, &mut self.tar).map_err(BuildError::Compress)
    }

    fn feed(&mut self, key: &Digest, group: &Group, made: Made) -> Result<GroupState, BuildError> {
        match &made.bytes {
            Some((tar, frame)) => {
                self.tar.update(tar);
                self.blob.update(frame);
            }
            None => {
                let mut source = self.store.open_blob(&made.frame.blob).map_err(StoreError::from)?;
                io::copy(&mut source, &mut self.blob).map_err(BuildError::Compress)?;
            }
        }
        self.sizes.0 += group.size();
        self.sizes.1 += made.frame.blob.size;
        let contents = made.contents.as_ref().map(|(name, _)| *name);
        let state =
            GroupState { key: *key, frame: made.frame, contents, tar: self.tar.state(), blob: self.blob.state() };
        self.made.push(Made { bytes: None, ..made });
        Ok(state)
    }

    fn finish(
        mut self,
        function: DigestFunction,
        plan: &LayerPlan,
        states: LayerStates,
    ) -> Result<Assembled, LayerError> {
        let frames: Vec<Frame> = self.made.iter().map(|made| made.frame).collect();
        let summaries: Vec<FrameSummary> = frames.iter().map(|frame| frame.summary).collect();
        self.feed_blob(&self.codec.trailer(&summaries));
        let indexes: Vec<GroupIndex<'_>> = self
            .made
            .iter()
            .map(|made| GroupIndex {
                size: made.frame.blob.size,
                contents: made.contents.as_ref().map_or(&[][..], |(_, contents)| &contents[..]),
            })
            .collect();
        let tail = Tail::new(self.codec, plan, &indexes, &mut self.tar).map_err(|error| match error {
            ContentsError::Entry(error) => LayerError::Entry(error),
            ContentsError::Io(error) => LayerError::Build(BuildError::Compress(error)),
        })?;
        let tail = match tail {
            None => None,
            Some(Tail { bytes, tar_length, annotations }) => {
                self.feed_blob(&bytes);
                self.sizes.0 += tar_length;
                let blob = self.store.put_bytes(function, &bytes)?;
                Some(RecipeTail { blob, tar_length, annotations })
            }
        };
        let (tar_size, blob_size) = self.sizes;
        Ok(Assembled {
            tar: Descriptor { digest: self.tar.finish(), size: tar_size },
            blob: Descriptor { digest: self.blob.finish(), size: blob_size },
            frames,
            tail,
            states,
        })
    }
}

/// Groups that wait for workers, and what workers made of them.
struct Line<'a> {
    groups: &'a [Group],
    /// Most uncompressed bytes of groups that are being worked on, or wait to be digested.
    most_bytes: u64,
    state: Mutex<LineState>,
    moved: Condvar,
}

#[derive(Default)]
struct LineState {
    next: usize,
    in_flight_bytes: u64,
    made: BTreeMap<usize, Result<Made, BuildError>>,
    is_over: bool,
}

/// Tells workers that nobody waits for them any more.
struct Stop<'a, 'b>(&'a Line<'b>);

impl Drop for Stop<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.moved.notify_all();
    }
}

impl<'a> Line<'a> {
    fn new(groups: &'a [Group], most_bytes: u64) -> Self {
        Self { groups, most_bytes, state: Mutex::default(), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a group counts for: the bytes that it has in memory.
    fn weight(&self, index: usize) -> u64 {
        Some(self.groups[index].size()).filter(|size| *size <= IN_MEMORY_BYTES).unwrap_or(0)
    }

    fn work(&self, make: &dyn Fn(usize) -> Result<Made, BuildError>) {
        loop {
            let mut state = self.lock();
            let index = loop {
                if state.is_over || state.next == self.groups.len() {
                    return;
                }
                let weight = self.weight(state.next);
                if state.in_flight_bytes == 0 || state.in_flight_bytes + weight <= self.most_bytes {
                    state.in_flight_bytes += weight;
                    state.next += 1;
                    break state.next - 1;
                }
                state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            // Should it panic, nobody waits for ever.
            let stop = Stop(self);
            let made = make(index);
            std::mem::forget(stop);
            self.lock().made.insert(index, made);
            self.moved.notify_all();
        }
    }

    /// Waits for a group, and lets the next ones in.
    fn take(&self, index: usize) -> Result<Made, BuildError> {
        let mut state = self.lock();
        loop {
            if let Some(made) = state.made.remove(&index) {
                state.in_flight_bytes -= self.weight(index);
                self.moved.notify_all();
                return made;
            }
            assert!(!state.is_over, "a thread that compresses panicked");
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn make(
    store: &Store,
    function: DigestFunction,
    codec: Codec,
    group: &Group,
    key: &Digest,
) -> Result<Made, BuildError> {
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
        let bytes = if is_small { Some((tar, store.load(&frame.blob, frame.blob.size)?)) } else { None };
        return Ok(Made { frame, contents, bytes });
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
    Ok(Made { frame: Frame { blob, summary }, contents, bytes })
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
fn load_contents(store: &Store, name: &Descriptor) -> Result<Option<Vec<ContentIndex>>, BuildError> {
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

#[cfg(test)]
mod tests {
    use cas_tree::{Directory, Metadata, Node, RelPath};

    use super::*;

    /// Files of which some are in memory and one is not.
    fn tree(store: &Store, changed: Option<(&str, &str)>) -> Directory {
        let mut tree = Directory::root();
        let parents = Metadata::root_owned(0o755);
        let mut add = |name: &str, bytes: &[u8]| {
            let blob = store.put_bytes(DigestFunction::Blake3, bytes).expect("the store works");
            let path = RelPath::new(name).expect("a path");
            tree.insert(&path, Node::file(blob, 0o644), &parents).expect("no name is below a file");
        };
        for index in 0..40 {
            add(&format!("d/{index:02}"), format!("{index} ").repeat(100_000).as_bytes());
        }
        add("large", &[7; 9 << 20]);
        if let Some((name, content)) = changed {
            add(name, content.as_bytes());
        }
        tree
    }

    fn made(store: &Store, tree: &Directory, codec: Codec, before: Option<&LayerStates>) -> Assembled {
        let landmark = store.put_bytes(DigestFunction::Blake3, cas_tar::LANDMARK).expect("the store works");
        let plan = match codec {
            Codec::Stargz6 => LayerPlan::stargz(tree, landmark),
            _ => LayerPlan::new(tree),
        };
        match assemble(store, DigestFunction::Blake3, codec, &plan.expect("a layer can tell it"), before, 1) {
            Ok(assembled) => assembled,
            Err(LayerError::Entry(error)) => panic!("{error}"),
            Err(LayerError::Build(error)) => panic!("{error}"),
        }
    }

    /// What was kept of a layer changes what is read, never what comes out; also when it is of another layer, or cut.
    #[test]
    fn a_layer_is_the_same_whatever_was_kept() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let store = Store::open(home.path()).expect("the folder is empty");
        for codec in [Codec::Identity, Codec::Gzip6, Codec::Zstd3, Codec::ZstdChunked3, Codec::Stargz6] {
            let first = made(&store, &tree(&store, None), codec, None);
            assert!(first.states.groups.len() > 3, "{}", codec.id());
            for changed in [("d/20", "new"), ("d/00a", "new"), ("z", "new"), ("d/39", "")] {
                let tree = tree(&store, Some(changed));
                let fresh = made(&store, &tree, codec, None);
                let again = made(&store, &tree, codec, Some(&first.states));
                assert_ne!(fresh.tar, first.tar);
                let mut cut = first.states.clone();
                cut.groups.truncate(2);
                let other = LayerStates { groups: fresh.states.groups.iter().rev().cloned().collect() };
                let cut = made(&store, &tree, codec, Some(&cut));
                let other = made(&store, &tree, codec, Some(&other));
                for one in [again, cut, other] {
                    assert_eq!((one.tar, one.blob), (fresh.tar, fresh.blob), "{} {changed:?}", codec.id());
                    assert_eq!((one.frames, one.tail), (fresh.frames.clone(), fresh.tail.clone()));
                    assert_eq!(one.states, fresh.states);
                }
            }
        }
    }

    /// The state of a group stands for what is before it: with another one the digests are others, so it is used.
    #[test]
    fn what_was_kept_is_gone_on_with() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let store = Store::open(home.path()).expect("the folder is empty");
        let tree = tree(&store, None);
        let first = made(&store, &tree, Codec::Zstd3, None);
        let mut wrong = first.states.clone();
        wrong.groups.truncate(3);
        wrong.groups[2].tar = Sha256::new().state();
        let made = made(&store, &tree, Codec::Zstd3, Some(&wrong));
        assert_ne!(made.tar.digest, first.tar.digest);
        assert_eq!(made.blob.digest, first.blob.digest);
    }
}
