//! What an executor sees of a tree.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Name, Node, RelPath};
use prost::Message;

use crate::messages;

/// A message with its name.
pub type EncodedBlob = (Descriptor, Vec<u8>);

/// A tree as `Directory` messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Name of the root's message.
    pub root: Descriptor,
    /// Every message once, by name.
    pub directories: BTreeMap<Descriptor, Vec<u8>>,
}

impl Projection {
    /// This tree with another one, named with the same function, at `name` in its root, in the place of what is there: of its
    /// messages those that this projection lacks.
    ///
    /// # Errors
    ///
    /// [`ProjectError::NotUtf8`] for the name.
    pub fn with(&self, name: &Name, below: &Self) -> Result<Self, ProjectError> {
        let Ok(text) = String::from_utf8(name.as_bytes().to_vec()) else {
            return Err(ProjectError::NotUtf8 { path: name.clone().into() });
        };
        let mut message = messages::Directory::decode(&self.directories[&self.root][..]).expect("it was encoded here");
        message.files.retain(|node| node.name != text);
        message.symlinks.retain(|node| node.name != text);
        message.directories.retain(|node| node.name != text);
        let at = message.directories.partition_point(|node| node.name < text);
        let digest = Some((&below.root).into());
        message.directories.insert(at, messages::DirectoryNode { name: text, digest });
        let bytes = message.encode_to_vec();
        let root = Descriptor::of(self.root.digest.function(), &bytes);
        let is_new = |name: &Descriptor| !self.directories.contains_key(name);
        let new = below.directories.iter().filter(|(name, _)| is_new(name));
        let mut directories: BTreeMap<_, _> = new.map(|(name, bytes)| (*name, bytes.clone())).collect();
        if is_new(&root) {
            directories.insert(root, bytes);
        }
        Ok(Self { root, directories })
    }
}

/// Why an executor cannot be shown a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// A name or link target that protocol buffers cannot carry.
    #[error("`{path}` is not UTF-8, which steps cannot be given")]
    NotUtf8 {
        /// Where.
        path: RelPath,
    },
    /// A kind of node that executors do not know.
    #[error("`{path}` is a {kind}, which steps cannot be given")]
    Kind {
        /// Where.
        path: RelPath,
        /// What it is.
        kind: &'static str,
    },
    /// The content of a file is named by another function than the messages are.
    #[error("`{path}` is named by another digest function than the action")]
    Function {
        /// Where.
        path: RelPath,
    },
}

/// Projects a tree whose contents are named with `function`.
///
/// Owners, rights but the owner's right to execute, attributes and hard links are dropped.
///
/// # Errors
///
/// [`ProjectError`], for the first node in the order of the walk.
pub fn project(tree: &Directory, function: DigestFunction) -> Result<Projection, ProjectError> {
    let mut directories = BTreeMap::new();
    let (root, _) = encode(tree, tree, None, function, &mut directories)?;
    Ok(Projection { root, directories })
}

/// Trees are at most 1,024 directories deep (docs/formats/tree.md), so recursion is bounded.
fn encode(
    top: &Directory,
    directory: &Directory,
    parent: Option<&RelPath>,
    function: DigestFunction,
    into: &mut BTreeMap<Descriptor, Vec<u8>>,
) -> Result<EncodedBlob, ProjectError> {
    let mut message = messages::Directory::default();
    for (name, node) in directory.entries() {
        let path = parent.map_or_else(|| RelPath::from(name.clone()), |parent| parent.join(name));
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| ProjectError::NotUtf8 { path: path.clone() });
        let kind = |kind| Err(ProjectError::Kind { path: path.clone(), kind });
        let name = text(name.as_bytes())?;
        match node {
            Node::Directory(child) if child.opaque => return kind("directory of a layer that hides others"),
            Node::Directory(child) => {
                let (blob, _) = encode(top, child, Some(&path), function, into)?;
                message.directories.push(messages::DirectoryNode { name, digest: Some((&blob).into()) });
            }
            Node::File { .. } | Node::Link { .. } => {
                let Some((metadata, blob)) = top.file_of(node) else { return kind("hard link to nothing") };
                if blob.digest.function() != function {
                    return Err(ProjectError::Function { path: path.clone() });
                }
                let is_executable = metadata.mode & 0o100 != 0;
                message.files.push(messages::FileNode { name, digest: Some((&blob).into()), is_executable });
            }
            Node::Symlink { target, .. } => {
                message.symlinks.push(messages::SymlinkNode { name, target: text(target)? });
            }
            Node::Device { .. } => return kind("device"),
            Node::Fifo { .. } => return kind("fifo"),
            Node::Whiteout => return kind("whiteout"),
        }
    }
    let bytes = message.encode_to_vec();
    let blob = Descriptor::of(function, &bytes);
    into.insert(blob, bytes.clone());
    Ok((blob, bytes))
}
