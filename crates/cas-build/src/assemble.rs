//! Archives: their frames in order, made in parallel, and both digests in the same pass.
//!
//! Workers compress groups as they are planned, or fetch what was made of them before; one thread takes what they give in order and
//! digests the tar, a second one digests the blob. What a layer was hashed to at the end of each group is kept with its place in an
//! image, so that next time only what follows the first change is read again.

use std::borrow::Cow;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::{DigestFunction, Sha256};
use cas_store::{Store, StoreError};
use cas_tar::{
    Codec, ContentsError, EntryError, Frame, FrameSummary, Group, GroupIndex, LayerGroups, LayerPlan, RecipeTail, Tail,
    copy_pieces,
};
use cas_tree::Directory;

use crate::BuildError;
use crate::frame::{Compressed, Made, load_contents, make};
use crate::frame_line::{Groups, Line, Next, Stop};
use crate::layer::LayerError;
use crate::layer_states::{GroupState, LayerStates};

/// Uncompressed bytes of groups that are being worked on, or wait to be digested, of all archives that are made at the same time.
const IN_FLIGHT_BYTES: u64 = 16 << 20;
/// Frames that wait for the thread that digests the blob.
const WAITING_FRAMES: usize = 1;
/// An archive whose first group is shorter has no other, and is made by one thread.
const APART_BYTES: u64 = 1 << 20;

/// What an archive holds.
#[derive(Clone, Copy)]
pub(crate) enum Holds<'a> {
    /// The entries of a tree.
    Tree(&'a Directory),
    /// The same as eStargz has it, with the name of the landmark's bytes.
    StargzTree(&'a Directory, Descriptor),
    /// What was planned.
    Plan(&'a LayerPlan),
}

impl<'a> Holds<'a> {
    fn groups(self) -> Result<Groups<'a>, EntryError> {
        Ok(match self {
            Self::Tree(tree) => Box::new(LayerGroups::new(tree)),
            Self::StargzTree(tree, landmark) => Box::new(LayerGroups::stargz(tree, landmark)?),
            Self::Plan(plan) => Box::new(plan.groups.iter().cloned().map(Ok)),
        })
    }

    /// All of it, for the tables of some codecs.
    fn plan(self) -> Result<Cow<'a, LayerPlan>, EntryError> {
        Ok(match self {
            Self::Tree(tree) => Cow::Owned(LayerPlan::new(tree)?),
            Self::StargzTree(tree, landmark) => Cow::Owned(LayerPlan::stargz(tree, landmark)?),
            Self::Plan(plan) => Cow::Borrowed(plan),
        })
    }
}

/// What an archive was made of.
pub(crate) struct Assembled {
    pub(crate) tar: Descriptor,
    pub(crate) blob: Descriptor,
    pub(crate) frames: Vec<Frame>,
    pub(crate) tail: Option<RecipeTail>,
    pub(crate) states: LayerStates,
}

/// Bytes in their order: what they are hashed to so far, and how many there were.
#[derive(Clone, Default)]
struct Digesting {
    sha256: Sha256,
    size: u64,
}

impl Digesting {
    fn feed(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn finish(self) -> Descriptor {
        Descriptor { digest: self.sha256.finish(), size: self.size }
    }
}

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The blob on its way: what it is hashed to, and what it was behind each frame.
struct BlobDigesting<'a> {
    store: &'a Store,
    blob: Digesting,
    states: Vec<Vec<u8>>,
}

impl BlobDigesting<'_> {
    /// Goes on with a frame, whose bytes are in memory or in the store.
    fn feed(&mut self, frame: &Descriptor, bytes: Option<&[u8]>) -> Result<(), BuildError> {
        match bytes {
            Some(bytes) => self.blob.feed(bytes),
            None => {
                let mut source = self.store.open_blob(frame).map_err(StoreError::from)?;
                io::copy(&mut source, &mut self.blob).map_err(BuildError::Compress)?;
            }
        }
        self.states.push(self.blob.sha256.state());
        Ok(())
    }

    fn feed_all(&mut self, frames: &Receiver<(Descriptor, Option<Vec<u8>>)>) -> Result<(), BuildError> {
        frames.iter().try_for_each(|(frame, bytes)| self.feed(&frame, bytes.as_deref()))
    }
}

/// Makes the frames of an archive. `before` is what was kept of an earlier archive in the same place, `at_once` how many archives are
/// made at the same time, which share processors and memory.
pub(crate) fn assemble(
    store: &Store,
    function: DigestFunction,
    codec: Codec,
    holds: Holds<'_>,
    before: Option<&LayerStates>,
    at_once: usize,
) -> Result<Assembled, LayerError> {
    let mut groups = holds.groups().map_err(LayerError::Entry)?;
    let (mut resumed, first) = Resumed::new(store, codec, &mut groups, before)?;
    let is_long = first.as_ref().is_some_and(|group| group.size() >= APART_BYTES);
    let line = Line::new(first, groups, IN_FLIGHT_BYTES / at_once.max(1) as u64);
    let make = |group: &Group| make(store, function, codec, group);
    let (tar, made) = (&mut resumed.tar, &mut resumed.made);
    let mut tar_states = Vec::new();
    let blob = Mutex::new(BlobDigesting { store, blob: resumed.blob.clone(), states: Vec::new() });
    let digested = thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        let workers = if is_long { processors.div_ceil(at_once.max(1)) } else { 1 };
        // Workers stop when this thread does, whatever the reason.
        let _stop = Stop(&line);
        for started in 0..workers {
            let spawned = thread::Builder::new().spawn_scoped(scope, || line.work(&make));
            // A machine that has no room for more threads has enough with those that run.
            if let Err(error) = spawned {
                match started {
                    0 => return Err(BuildError::Compress(error).into()),
                    _ => break,
                }
            }
        }
        let (sender, receiver) = sync_channel(WAITING_FRAMES);
        let apart = (is_long && codec != Codec::Identity).then(|| {
            let digest = || lock(&blob).feed_all(&{ receiver });
            thread::Builder::new().spawn_scoped(scope, digest)
        });
        let apart = apart.and_then(Result::ok);
        let told = digest(store, &line, tar, &mut tar_states, made, &mut |frame, bytes| match &apart {
            _ if codec == Codec::Identity => Ok(true),
            None => lock(&blob).feed(&frame, bytes.as_deref()).map(|()| true),
            Some(_) => Ok(sender.send((frame, bytes)).is_ok()),
        });
        drop(sender);
        // A thread that has ended before tells why.
        let ended = apart.map_or(Ok(()), |apart| apart.join().unwrap_or_else(|panic| resume_unwind(panic)));
        told.and(ended.map_err(LayerError::Build))
    });
    digested?;
    let BlobDigesting { blob, states: blob_states, .. } = blob.into_inner().unwrap_or_else(PoisonError::into_inner);
    // What is not compressed is the tar.
    let (blob, blob_states) =
        if codec == Codec::Identity { (resumed.tar.clone(), tar_states.clone()) } else { (blob, blob_states) };
    resumed.blob = blob;
    let known = resumed.states.len();
    for ((made, tar), blob) in resumed.made[known..].iter().zip(tar_states).zip(blob_states) {
        let contents = made.contents.as_ref().map(|(name, _)| *name);
        resumed.states.push(GroupState { key: made.key, frame: made.frame, contents, tar, blob });
    }
    resumed.finish(function, codec, holds)
}

/// Digests the tar, group by group, and keeps what it was behind each. `pass_on` gets the frames, and tells whether anybody takes more.
fn digest(
    store: &Store,
    line: &Line<'_>,
    tar: &mut Digesting,
    states: &mut Vec<Vec<u8>>,
    all: &mut Vec<Made>,
    pass_on: &mut dyn FnMut(Descriptor, Option<Vec<u8>>) -> Result<bool, BuildError>,
) -> Result<(), LayerError> {
    while let Some(next) = line.take(states.len())? {
        let Compressed { made, bytes } = match next {
            Next::Long(group) => {
                copy_pieces(group.pieces(), store, tar).map_err(BuildError::Compress)?;
                continue;
            }
            Next::Made(compressed) => *compressed,
        };
        let (tar_bytes, frame_bytes) = bytes.unzip();
        if !pass_on(made.frame.blob, frame_bytes)? {
            break;
        }
        if let Some(bytes) = tar_bytes {
            tar.feed(&bytes);
        }
        states.push(tar.sha256.state());
        all.push(made);
    }
    Ok(())
}

/// An archive as far as it is known.
struct Resumed<'a> {
    store: &'a Store,
    tar: Digesting,
    blob: Digesting,
    made: Vec<Made>,
    states: Vec<GroupState>,
}

impl<'a> Resumed<'a> {
    /// Goes on behind the groups that are the same as before, whose frames are all here; gives the first one that is not.
    fn new(
        store: &'a Store,
        codec: Codec,
        groups: &mut Groups<'_>,
        before: Option<&LayerStates>,
    ) -> Result<(Self, Option<Group>), LayerError> {
        let mut fresh =
            Self { store, tar: Digesting::default(), blob: Digesting::default(), made: Vec::new(), states: Vec::new() };
        fresh.blob.feed(codec.header());
        let before = before.map_or(&[][..], |states| &states.groups[..]);
        let blobs: Vec<Descriptor> = before.iter().map(|state| state.frame.blob).collect();
        let mut before = before.iter().zip(store.contain(&blobs)?);
        for group in groups.by_ref() {
            let group = group.map_err(LayerError::Entry)?;
            let state = before.next().filter(|(state, is_here)| *is_here && state.key == group.key());
            let is_known = state.map_or(Ok(false), |(state, _)| fresh.goes_on_with(state))?;
            if !is_known {
                return Ok((fresh, Some(group)));
            }
        }
        Ok((fresh, None))
    }

    /// Adds a group as it was before, if all that is needed of it is here.
    fn goes_on_with(&mut self, state: &GroupState) -> Result<bool, BuildError> {
        let contents = match &state.contents {
            Some(name) => match load_contents(self.store, name)? {
                Some(contents) => Some((*name, contents)),
                None => return Ok(false),
            },
            None => None,
        };
        let (Some(tar), Some(blob)) = (Sha256::resume(&state.tar), Sha256::resume(&state.blob)) else {
            return Ok(false);
        };
        self.tar = Digesting { sha256: tar, size: self.tar.size + state.frame.summary.length };
        self.blob = Digesting { sha256: blob, size: self.blob.size + state.frame.blob.size };
        self.made.push(Made { key: state.key, frame: state.frame, contents });
        self.states.push(state.clone());
        Ok(true)
    }

    /// Adds what stands behind the groups.
    fn finish(mut self, function: DigestFunction, codec: Codec, holds: Holds<'_>) -> Result<Assembled, LayerError> {
        let frames: Vec<Frame> = self.made.iter().map(|made| made.frame).collect();
        let summaries: Vec<FrameSummary> = frames.iter().map(|frame| frame.summary).collect();
        self.blob.feed(&codec.trailer(&summaries));
        let indexes: Vec<GroupIndex<'_>> = self
            .made
            .iter()
            .map(|made| GroupIndex {
                size: made.frame.blob.size,
                contents: made.contents.as_ref().map_or(&[][..], |(_, contents)| &contents[..]),
            })
            .collect();
        let tail = match codec.has_contents() {
            false => None,
            true => {
                let plan = holds.plan().map_err(LayerError::Entry)?;
                Tail::new(codec, &plan, &indexes, &mut self.tar.sha256).map_err(|error| match error {
                    ContentsError::Entry(error) => LayerError::Entry(error),
                    ContentsError::Io(error) => LayerError::Build(BuildError::Compress(error)),
                })?
            }
        };
        let tail = match tail {
            None => None,
            Some(Tail { bytes, tar_length, annotations }) => {
                self.blob.feed(&bytes);
                self.tar.size += tar_length;
                let blob = self.store.put_bytes(function, &bytes)?;
                Some(RecipeTail { blob, tar_length, annotations })
            }
        };
        Ok(Assembled {
            tar: self.tar.finish(),
            blob: self.blob.finish(),
            frames,
            tail,
            states: LayerStates { groups: self.states },
        })
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
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
        let holds = match codec {
            Codec::Stargz6 => Holds::StargzTree(tree, landmark),
            _ => Holds::Tree(tree),
        };
        match assemble(store, DigestFunction::Blake3, codec, holds, before, 1) {
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
