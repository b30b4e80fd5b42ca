//! Results of steps in the action cache: which one counts, and whether what it names is there. Rules: docs/formats/step.md.
//!
//! Not here: what makes a key, and running what has no result (`step`).

use std::collections::{BTreeMap, BTreeSet};

use cas_action::{DecodeResultError, EncodedResult, decode_result};
use cas_blob::{ActionCache, ActionLane, Descriptor, Recorded, wait};
use cas_digest::DigestFunction;
use cas_store::{Store, StoreError};
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::BuildError;

/// Longest result that is read.
const MAX_RESULT_BYTES: usize = 64 << 20;
/// Longest `Tree` message that is read.
const MAX_TREE_BYTES: u64 = 1 << 30;
/// How often a result is recorded where another one stands that names what is gone.
const ATTEMPTS: usize = 4;
/// How many paths that differ are told.
const MAX_TOLD_PATHS: usize = 20;

/// The results of one lane.
#[derive(Clone, Debug)]
pub(crate) struct Results<'a> {
    pub(crate) actions: &'a dyn ActionCache,
    pub(crate) store: &'a Store,
    pub(crate) lane: ActionLane,
    /// Names what results name.
    pub(crate) function: DigestFunction,
}

impl Results<'_> {
    /// The outputs of an action, relative to its package, if there is a result and all of them are in the store.
    pub(crate) fn find(&self, action: &Descriptor) -> Result<Option<Whole>, BuildError> {
        match wait(self.actions.find(&self.lane, action))? {
            Some(result) => self.complete(&result),
            None => Ok(None),
        }
    }

    /// The same, and a result that names what is gone, or makes no sense, is forgotten.
    pub(crate) fn find_or_forget(&self, action: &Descriptor) -> Result<Option<Whole>, BuildError> {
        let Some(result) = wait(self.actions.find(&self.lane, action))? else { return Ok(None) };
        let outputs = self.complete(&result)?;
        if outputs.is_none() {
            wait(self.actions.forget(&self.lane, action, &result))?;
        }
        Ok(outputs)
    }

    /// Records what an action gave, whose blobs are in the store. Another process may have been first: everybody goes on with
    /// the outputs of the first. With them, where the two differ.
    pub(crate) fn record(
        &self,
        action: &Descriptor,
        own: &Directory,
        encoded: &EncodedResult,
    ) -> Result<(Whole, Option<String>), BuildError> {
        for (_, bytes) in &encoded.trees {
            self.store.put_bytes(self.function, bytes)?;
        }
        for _ in 0..ATTEMPTS {
            match wait(self.actions.record(&self.lane, action, &encoded.bytes))? {
                Recorded::Own => {
                    let outputs = self.complete(&encoded.bytes)?.ok_or(BuildError::Record { what: *action })?;
                    return Ok((outputs, None));
                }
                Recorded::Other(first) => match self.complete(&first)? {
                    Some(outputs) => {
                        let differing = differing_paths(&outputs.outputs, own);
                        return Ok((outputs, differing));
                    }
                    None => wait(self.actions.forget(&self.lane, action, &first))?,
                },
            }
        }
        Err(BuildError::Record { what: *action })
    }

    fn complete(&self, result: &[u8]) -> Result<Option<Whole>, BuildError> {
        decode(self.store, result, self.function)
    }
}

/// What a result names, all of which is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    /// The result.
    pub(crate) result: Vec<u8>,
    /// The outputs, relative to the package of the step.
    pub(crate) outputs: Directory,
    /// Everything that is needed for them.
    pub(crate) blobs: Vec<Descriptor>,
}

/// What a result names, if all of it is in the store.
pub(crate) fn decode(store: &Store, result: &[u8], function: DigestFunction) -> Result<Option<Whole>, BuildError> {
    if result.len() > MAX_RESULT_BYTES {
        return Ok(None);
    }
    let mut trees = Vec::new();
    let load = &mut |blob: &Descriptor| {
        trees.push(*blob);
        store.load(blob, MAX_TREE_BYTES)
    };
    let outputs = match decode_result(result, function, load) {
        Ok(outputs) => outputs,
        // Only a failure to read says nothing about the result.
        Err(DecodeResultError::Load { source, .. }) if is_unreadable(&source) => return Err(source.into()),
        Err(_) => return Ok(None),
    };
    let mut blobs: Vec<Descriptor> = outputs
        .walk()
        .filter_map(|(_, node)| match node {
            Node::File { blob, .. } => Some(*blob),
            _ => None,
        })
        .collect();
    let is_here = store.contain(&blobs)?.into_iter().all(|found| found);
    blobs.append(&mut trees);
    Ok(is_here.then(|| Whole { result: result.to_vec(), outputs, blobs }))
}

/// Outputs with paths from the workspace's root.
pub(crate) fn in_place(package: Option<&RelPath>, outputs: &Directory) -> Result<Directory, BuildError> {
    let mut tree = Directory::root();
    match package {
        None => tree = outputs.clone(),
        Some(package) if !outputs.is_empty() => tree
            .graft(package, outputs.clone(), &Metadata::root_owned(0o755))
            .map_err(|source| BuildError::Place { source })?,
        Some(_) => {}
    }
    Ok(tree)
}

/// Whether an object may be whole and this user may not read it.
fn is_unreadable(error: &StoreError) -> bool {
    matches!(error, StoreError::Fs(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Where two runs of a step gave different things, in words; `None` when they did not.
pub(crate) fn differing_paths(before: &Directory, now: &Directory) -> Option<String> {
    let nodes = |tree: &Directory| -> BTreeMap<String, String> {
        let what = |node: &Node| match node {
            Node::Directory(_) => "folder".to_owned(),
            Node::File { blob, metadata } => format!("{blob} {:o}", metadata.mode),
            Node::Symlink { target, .. } => format!("link to {}", String::from_utf8_lossy(target)),
            other => format!("{other:?}"),
        };
        tree.walk().map(|(path, node)| (path.to_string(), what(node))).collect()
    };
    let (before, now) = (nodes(before), nodes(now));
    let all: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let mut paths: Vec<String> = Vec::new();
    for path in all {
        match (before.get(path), now.get(path)) {
            (Some(one), Some(other)) if one == other => {}
            (Some(_), Some(_)) => paths.push(format!("`{path}`")),
            (Some(_), None) => paths.push(format!("`{path}` (in one run only)")),
            (None, _) => paths.push(format!("`{path}` (in the other run only)")),
        }
    }
    let more = paths.len().saturating_sub(MAX_TOLD_PATHS);
    paths.truncate(MAX_TOLD_PATHS);
    if more > 0 {
        paths.push(format!("and {more} more"));
    }
    (!paths.is_empty()).then(|| paths.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas_action::encode_result;
    use cas_testing::{FaultyActions, MemoryActions};

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let store = Store::open(home.path()).expect("the folder is empty");
        (home, store)
    }

    /// What a step could have given: a file `f` and a folder `d` with one.
    fn outputs(store: &Store, content: &str) -> (Directory, EncodedResult) {
        let mut tree = Directory::root();
        for path in ["f", "d/inner"] {
            let blob = store.put_bytes(FUNCTION, format!("{path} {content}").as_bytes()).expect("the disk has room");
            let path = RelPath::new(path).expect("it is a path");
            tree.insert(&path, Node::file(blob, 0o644), &Metadata::root_owned(0o755)).expect("nothing is in the way");
        }
        let paths = ["f", "d"].map(|path| RelPath::new(path).expect("it is a path"));
        let encoded = encode_result(&tree, &paths, FUNCTION).expect("messages can carry it");
        (tree, encoded)
    }

    fn blobs(tree: &Directory) -> Vec<Descriptor> {
        let blob = |node: &Node| if let Node::File { blob, .. } = node { Some(*blob) } else { None };
        tree.walk().filter_map(|(_, node)| blob(node)).collect()
    }

    fn lose(store: &Store, blob: &Descriptor) {
        cas_fs::remove_file(&store.object_path(blob).expect("it is there")).expect("the store is ours");
    }

    fn action() -> Descriptor {
        Descriptor::of(FUNCTION, b"action")
    }

    fn found(results: &Results<'_>) -> Option<Directory> {
        results.find(&action()).expect("the place works").map(|whole| whole.outputs)
    }

    /// Each place that a build may have its results in.
    fn with_each_place(check: &dyn Fn(&Results<'_>)) {
        let (_home, store) = store();
        let (memory, faulty) = (MemoryActions::default(), FaultyActions::new(MemoryActions::default(), 3));
        let places: [&dyn ActionCache; 3] = [&store, &memory, &faulty];
        for actions in places {
            check(&Results { actions, store: &store, lane: ActionLane::strict(), function: FUNCTION });
        }
    }

    #[test]
    fn a_result_is_found_when_all_that_it_names_is_there() {
        with_each_place(&|results| {
            let (tree, encoded) = outputs(results.store, "one");
            assert_eq!(found(results), None);
            let (whole, differing) = results.record(&action(), &tree, &encoded).expect("the place works");
            assert_eq!((whole.outputs, differing), (tree.clone(), None));
            assert_eq!(whole.blobs.len(), 3, "a file, one in a folder, and the message of the folder");
            assert_eq!(found(results).as_ref(), Some(&tree));
            for lost in [blobs(&tree)[0], blobs(&tree)[1], encoded.trees[0].0] {
                lose(results.store, &lost);
                assert_eq!(found(results), None, "{lost} is gone");
                // Who only looks changes nothing: the blob may come back.
                outputs(results.store, "one");
                results.store.put_bytes(FUNCTION, &encoded.trees[0].1).expect("the disk has room");
                assert_eq!(found(results).as_ref(), Some(&tree));
                lose(results.store, &lost);
                assert_eq!(results.find_or_forget(&action()).expect("the place works"), None);
                assert_eq!(wait(results.actions.find(&results.lane, &action())).expect("the place works"), None);
                outputs(results.store, "one");
                results.record(&action(), &tree, &encoded).expect("the place works");
            }
        });
    }

    #[test]
    fn the_first_complete_result_counts_and_others_are_told() {
        with_each_place(&|results| {
            let ((one, first), (other, second)) = (outputs(results.store, "one"), outputs(results.store, "two"));
            results.record(&action(), &one, &first).expect("the place works");
            let (counts, differing) = results.record(&action(), &other, &second).expect("the place works");
            assert_eq!(counts.outputs, one);
            assert_eq!(differing.as_deref(), Some("`d/inner`, `f`"));
            let evidence = wait(results.actions.differing(&results.lane, &action())).expect("the place works");
            assert_eq!(evidence.as_ref(), Some(&second.bytes));
            // One that names what is gone does not count.
            lose(results.store, &blobs(&one)[0]);
            let (counts, differing) = results.record(&action(), &other, &second).expect("the place works");
            assert_eq!((counts.outputs, differing), (other, None));
        });
    }

    #[test]
    fn what_makes_no_sense_is_no_result() {
        with_each_place(&|results| {
            for (number, nonsense) in [&b"\xff\xff\xff"[..], &vec![0; MAX_RESULT_BYTES + 1]].iter().enumerate() {
                let action = Descriptor::of(FUNCTION, &[number.try_into().expect("there are two")]);
                wait(results.actions.record(&results.lane, &action, nonsense)).expect("the place works");
                assert_eq!(results.find_or_forget(&action).expect("the place works"), None);
                assert_eq!(wait(results.actions.find(&results.lane, &action)).expect("the place works"), None);
            }
        });
    }

    /// A place that fails makes errors, never wrong outputs; and as soon as it works everything is as if it always had.
    #[test]
    fn failures_of_the_place_are_errors_and_nothing_else() {
        let (_home, store) = store();
        let (mut failures, mut successes) = (0, 0);
        for seed in 0..40 {
            let place = FaultyActions::new(MemoryActions::default(), seed);
            let (lane, actions) = (ActionLane::strict(), &place);
            let results = Results { actions, store: &store, lane, function: FUNCTION };
            place.set_faults(2 + seed % 5);
            let made = ["one", "two"].map(|content| outputs(&store, content));
            let mut first: Option<Directory> = None;
            for round in 0..8 {
                let (tree, encoded) = &made[round % 2];
                let found = match round % 4 {
                    3 => results.find(&action()),
                    _ => results.record(&action(), tree, encoded).map(|(whole, _)| Some(whole)),
                };
                match found {
                    Ok(found) => {
                        successes += 1;
                        let Some(found) = found.map(|whole| whole.outputs) else { continue };
                        assert_eq!(*first.get_or_insert_with(|| found.clone()), found, "seed {seed}");
                    }
                    Err(error) => {
                        failures += 1;
                        assert!(matches!(error, BuildError::ActionCache(_)), "{error:?}");
                    }
                }
            }
            place.set_faults(0);
            let (tree, encoded) = &made[0];
            let (whole, _) = results.record(&action(), tree, encoded).expect("the place works again");
            assert!(first.is_none_or(|first| first == whole.outputs), "seed {seed}");
        }
        assert!(failures > 40 && successes > 40, "{failures} failures, {successes} successes");
    }
}
