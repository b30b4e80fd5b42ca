//! What a step gave, as an `ActionResult`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_tree::{Directory, EditError, Metadata, Node, RelPath, RelPathError};
use prost::Message;

use crate::messages;
use crate::project::{EncodedBlob, ProjectError, project};

/// Deepest tree that is read (docs/formats/tree.md).
const MAX_DEPTH: usize = 1024;
/// Most nodes that a result has. A `Tree` names a directory once however often it occurs, so that few bytes can stand for
/// very many nodes.
const MAX_NODES: u64 = 10_000_000;

/// A result in bytes, with the messages that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedResult {
    /// The `ActionResult` message.
    pub bytes: Vec<u8>,
    /// The `Tree` messages of output directories.
    pub trees: Vec<EncodedBlob>,
}

/// Why a result cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DecodeResultError<E: std::error::Error + 'static> {
    /// It is not an `ActionResult`, or a tree of it is not a `Tree`.
    #[error("the result of a step is damaged")]
    Message(#[from] prost::DecodeError),
    /// A digest is missing or not one.
    #[error("the result of a step has a bad digest for `{path}`")]
    Digest {
        /// The output.
        path: String,
    },
    /// A path leaves its root.
    #[error("the result of a step names the path `{path}`")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        source: RelPathError,
    },
    /// Outputs are in each other's way.
    #[error("the outputs of a step do not make a tree")]
    Place(#[from] EditError),
    /// A directory names one that its `Tree` does not have.
    #[error("the tree of output `{path}` is not complete")]
    Incomplete {
        /// The output.
        path: String,
    },
    /// Two outputs have one path, or one is below the other.
    #[error("the result of a step has `{path}` twice")]
    Twice {
        /// The path.
        path: String,
    },
    /// Deeper or larger than any real tree.
    #[error("the tree of output `{path}` is too large")]
    TooLarge {
        /// The output.
        path: String,
    },
    /// A `Tree` could not be loaded.
    #[error("could not load the tree of output `{path}`")]
    Load {
        /// The output.
        path: String,
        /// Why not.
        source: E,
    },
}

/// Encodes what a step gave: `outputs`, relative to its working directory, of which `paths` are the declared ones.
///
/// Every declared path that `outputs` has is in the result; what else `outputs` has is not.
///
/// # Errors
///
/// [`ProjectError`] for what executors cannot give.
pub fn encode_result(
    outputs: &Directory,
    paths: &[RelPath],
    function: DigestFunction,
) -> Result<EncodedResult, ProjectError> {
    // Refuses, with its place, everything that messages cannot carry.
    let mut declared = Directory::root();
    for path in paths {
        // Declared paths do not overlap, so nothing is in the way.
        let parents = Metadata::root_owned(0o755);
        let _ = match outputs.subtree(path) {
            Some(directory) => declared.graft(path, directory, &parents),
            None => resolved(outputs, path).map_or(Ok(()), |node| declared.insert(path, node, &parents)),
        };
    }
    project(&declared, function)?;
    let mut result = messages::ActionResult::default();
    let mut trees = Vec::new();
    let sorted: BTreeSet<&RelPath> = paths.iter().collect();
    for path in sorted {
        let Some(node) = declared.get(path) else { continue };
        let at = path;
        let path = path.to_string();
        match node {
            Node::Directory(_) => {
                // By itself, so that its links are its own.
                let directory = declared.subtree(at).expect("it is a directory");
                let (root, tree) = tree(&directory, function)?;
                let output = messages::OutputDirectory {
                    path,
                    tree_digest: Some((&tree.0).into()),
                    root_directory_digest: Some((&root).into()),
                };
                result.output_directories.push(output);
                trees.push(tree);
            }
            Node::Symlink { target, .. } => {
                let target = String::from_utf8_lossy(target).into_owned();
                result.output_symlinks.push(messages::OutputSymlink { path, target });
            }
            _ => {
                if let Some((metadata, blob)) = declared.file_of(node) {
                    let is_executable = metadata.mode & 0o100 != 0;
                    let output = messages::OutputFile { path, digest: Some((&blob).into()), is_executable };
                    result.output_files.push(output);
                }
            }
        }
    }
    Ok(EncodedResult { bytes: result.encode_to_vec(), trees })
}

/// The node at a path that is no directory, with a hard link to elsewhere made a file of its own.
fn resolved(tree: &Directory, path: &RelPath) -> Option<Node> {
    match tree.get(path)? {
        node @ Node::Link { .. } => {
            let (metadata, blob) = tree.file_of(node)?;
            Some(Node::File { metadata: metadata.clone(), blob })
        }
        node => Some(node.clone()),
    }
}

/// The name of a directory's own message, and its `Tree` message.
fn tree(directory: &Directory, function: DigestFunction) -> Result<(Descriptor, EncodedBlob), ProjectError> {
    let projection = project(directory, function)?;
    let decode = |bytes: &[u8]| messages::Directory::decode(bytes).expect("it was encoded just now");
    let root = decode(&projection.directories[&projection.root]);
    // Each directory once, in the order in which a walk from the root meets it.
    let mut children = Vec::new();
    let mut seen = BTreeSet::new();
    let mut open: Vec<messages::DirectoryNode> = root.directories.iter().rev().cloned().collect();
    while let Some(node) = open.pop() {
        let Some(blob) = descriptor(node.digest.as_ref(), function) else { continue };
        if seen.insert(blob) {
            let child = decode(&projection.directories[&blob]);
            open.extend(child.directories.iter().rev().cloned());
            children.push(child);
        }
    }
    let bytes = messages::Tree { root: Some(root), children }.encode_to_vec();
    Ok((projection.root, (Descriptor::of(function, &bytes), bytes)))
}

pub(crate) fn descriptor(digest: Option<&messages::Digest>, function: DigestFunction) -> Option<Descriptor> {
    let digest = digest?;
    let size = u64::try_from(digest.size_bytes).ok()?;
    Some(Descriptor { digest: Digest::from_hex(function, &digest.hash).ok()?, size })
}

/// Decodes a result into the tree of its outputs, relative to the step's working directory.
///
/// `load` gives the bytes of a `Tree` message, verified. Files get mode `0755` or `0644`.
///
/// # Errors
///
/// [`DecodeResultError`]
pub fn decode_result<E: std::error::Error + 'static>(
    bytes: &[u8],
    function: DigestFunction,
    load: &mut dyn FnMut(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Directory, DecodeResultError<E>> {
    let result = messages::ActionResult::decode(bytes)?;
    let mut outputs = Directory::root();
    let place =
        |path: &str| RelPath::new(path).map_err(|source| DecodeResultError::Path { path: path.to_owned(), source });
    for file in result.output_files {
        let blob = descriptor(file.digest.as_ref(), function)
            .ok_or_else(|| DecodeResultError::Digest { path: file.path.clone() })?;
        insert(&mut outputs, place(&file.path)?, Node::file(blob, mode(file.is_executable)))?;
    }
    for link in result.output_symlinks {
        insert(&mut outputs, place(&link.path)?, Node::symlink(link.target))?;
    }
    for output in result.output_directories {
        let path = output.path;
        let blob = descriptor(output.tree_digest.as_ref(), function)
            .ok_or_else(|| DecodeResultError::Digest { path: path.clone() })?;
        let bytes = load(&blob).map_err(|source| DecodeResultError::Load { path: path.clone(), source })?;
        let tree = messages::Tree::decode(&bytes[..])?;
        let children: BTreeMap<Descriptor, messages::Directory> =
            tree.children.into_iter().map(|child| (Descriptor::of(function, &child.encode_to_vec()), child)).collect();
        let mut reader = TreeReader { path: &path, function, children: &children, read: BTreeMap::new() };
        let directory = reader.directory(&tree.root.unwrap_or_default(), 0)?.directory;
        insert(&mut outputs, place(&path)?, Node::Directory(directory))?;
    }
    Ok(outputs)
}

const fn mode(is_executable: bool) -> u32 {
    if is_executable { 0o755 } else { 0o644 }
}

/// Puts an output where nothing is.
fn insert<E: std::error::Error + 'static>(
    tree: &mut Directory,
    path: RelPath,
    node: Node,
) -> Result<(), DecodeResultError<E>> {
    if tree.get(&path).is_some() {
        return Err(DecodeResultError::Twice { path: path.to_string() });
    }
    Ok(tree.insert(&path, node, &Metadata::root_owned(0o755))?)
}

struct TreeReader<'a> {
    path: &'a str,
    function: DigestFunction,
    children: &'a BTreeMap<Descriptor, messages::Directory>,
    /// Each child is read once and shared, so that reading takes time by the bytes, not by what they unfold to.
    read: BTreeMap<Descriptor, Unfolded>,
}

/// A directory, and what it is with all below it.
#[derive(Clone)]
struct Unfolded {
    directory: Arc<Directory>,
    node_count: u64,
    depth: usize,
}

impl TreeReader<'_> {
    /// `above` is how deep the message itself is, which bounds the recursion.
    fn directory<E: std::error::Error + 'static>(
        &mut self,
        message: &messages::Directory,
        above: usize,
    ) -> Result<Unfolded, DecodeResultError<E>> {
        let output = self.path.to_owned();
        let too_large = || DecodeResultError::TooLarge { path: output.clone() };
        if above > MAX_DEPTH {
            return Err(too_large());
        }
        let name = |name: &str| {
            cas_tree::Name::new(name)
                .map(RelPath::from)
                .map_err(|source| DecodeResultError::Path { path: format!("{output}/{name}"), source })
        };
        let digest = |digest: Option<&messages::Digest>, function| {
            descriptor(digest, function).ok_or_else(|| DecodeResultError::Digest { path: output.clone() })
        };
        let mut directory = Directory::root();
        let (mut node_count, mut depth) = (0u64, 0);
        for file in &message.files {
            let blob = digest(file.digest.as_ref(), self.function)?;
            insert(&mut directory, name(&file.name)?, Node::file(blob, mode(file.is_executable)))?;
            node_count += 1;
        }
        for link in &message.symlinks {
            insert(&mut directory, name(&link.name)?, Node::symlink(&link.target))?;
            node_count += 1;
        }
        for node in &message.directories {
            let blob = digest(node.digest.as_ref(), self.function)?;
            let known = self.read.get(&blob).cloned();
            let child = match known {
                Some(child) => child,
                None => {
                    let message = self
                        .children
                        .get(&blob)
                        .ok_or_else(|| DecodeResultError::Incomplete { path: output.clone() })?;
                    let child = self.directory(message, above + 1)?;
                    self.read.insert(blob, child.clone());
                    child
                }
            };
            node_count = node_count.saturating_add(child.node_count).saturating_add(1);
            depth = depth.max(child.depth + 1);
            if node_count > MAX_NODES || above + depth > MAX_DEPTH {
                return Err(too_large());
            }
            insert(&mut directory, name(&node.name)?, Node::Directory(child.directory))?;
        }
        Ok(Unfolded { directory: directory.into(), node_count, depth })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const F: DigestFunction = DigestFunction::Blake3;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    fn outputs() -> Directory {
        let mut tree = Directory::root();
        let file = |text: &str, mode| Node::file(Descriptor::of(F, text.as_bytes()), mode);
        for (at, node) in [
            ("dist/a/x", file("x", 0o644)),
            ("dist/b/x", file("x", 0o644)), // the same directory twice
            ("dist/run", file("run", 0o755)),
            ("dist/link", Node::symlink("run")),
            ("report", file("report", 0o644)),
            ("current", Node::symlink("dist")),
            ("other", file("not declared", 0o644)),
        ] {
            tree.insert(&path(at), node, &Metadata::root_owned(0o755)).expect("free");
        }
        tree.insert(&path("dist/empty"), Node::Directory(Directory::root().into()), &Metadata::root_owned(0o755))
            .expect("free");
        tree
    }

    fn declared() -> Vec<RelPath> {
        ["report", "dist", "missing", "current"].map(path).to_vec()
    }

    fn decode(encoded: &EncodedResult) -> Result<Directory, String> {
        let mut load = |blob: &Descriptor| {
            let tree = encoded.trees.iter().find(|(name, _)| name == blob).expect("the result names its trees");
            Ok::<_, Infallible>(tree.1.clone())
        };
        decode_result(&encoded.bytes, F, &mut load).map_err(|error| error.to_string())
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let encoded = encode_result(&outputs(), &declared(), F).expect("executors can give it");
        let mut expected = outputs();
        expected.remove(&path("other"));
        assert_eq!(decode(&encoded), Ok(expected));
        let mut turned = declared();
        turned.reverse();
        assert_eq!(encode_result(&outputs(), &turned, F), Ok(encoded));
    }

    #[test]
    fn what_a_result_must_not_hold_is_an_error() {
        let good = encode_result(&outputs(), &declared(), F).expect("executors can give it");
        let result = messages::ActionResult::decode(&good.bytes[..]).expect("it is one");
        let change = |change: &dyn Fn(&mut messages::ActionResult)| {
            let mut changed = result.clone();
            change(&mut changed);
            decode(&EncodedResult { bytes: changed.encode_to_vec(), trees: good.trees.clone() })
                .expect_err("it is wrong")
        };
        assert_eq!(
            change(&|result| result.output_files[0].path = "../x".to_owned()),
            "the result of a step names the path `../x`"
        );
        assert_eq!(
            change(&|result| result.output_files[0].digest = None),
            "the result of a step has a bad digest for `report`"
        );
        assert_eq!(
            change(&|result| result.output_files[0].path = "current/x".to_owned()),
            "the result of a step has `current` twice"
        );
        let mut tree = messages::Tree::decode(&good.trees[0].1[..]).expect("it is one");
        tree.children.clear();
        let bytes = tree.encode_to_vec();
        let name = good.trees[0].0;
        let error = decode(&EncodedResult { bytes: good.bytes.clone(), trees: vec![(name, bytes)] }).expect_err("cut");
        assert_eq!(error, "the tree of output `dist` is not complete");
    }

    /// Forty directories that each hold the next one twice stand for a million million nodes.
    #[test]
    fn a_tree_that_unfolds_without_end_is_refused() {
        let mut children = vec![messages::Directory::default()];
        for _ in 0..40 {
            let last = children.last().expect("there is one");
            let digest = Some((&Descriptor::of(F, &last.encode_to_vec())).into());
            let node = |name: &str| messages::DirectoryNode { name: name.to_owned(), digest: digest.clone() };
            children.push(messages::Directory { directories: vec![node("a"), node("b")], ..Default::default() });
        }
        let tree = messages::Tree { root: children.pop(), children }.encode_to_vec();
        let name = Descriptor::of(F, &tree);
        let output = messages::OutputDirectory {
            path: "dist".to_owned(),
            tree_digest: Some((&name).into()),
            root_directory_digest: None,
        };
        let result = messages::ActionResult { output_directories: vec![output], ..Default::default() };
        let encoded = EncodedResult { bytes: result.encode_to_vec(), trees: vec![(name, tree)] };
        assert_eq!(decode(&encoded).expect_err("too large"), "the tree of output `dist` is too large");
    }
}
