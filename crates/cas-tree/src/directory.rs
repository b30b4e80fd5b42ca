//! The directory: entries in order, looking up, walking.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_blob::Descriptor;

use crate::{Metadata, Name, Node, RelPath};

/// A directory with all below it, or a whole tree when it is the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Rights and owners of the directory itself.
    pub metadata: Metadata,
    /// Hides what lower layers hold in this directory, where the tree is a layer.
    pub opaque: bool,
    pub(crate) entries: BTreeMap<Name, Node>,
}

impl Directory {
    /// An empty directory.
    #[must_use]
    pub const fn new(metadata: Metadata) -> Self {
        Self { metadata, opaque: false, entries: BTreeMap::new() }
    }

    /// An empty directory of user and group 0 with mode `0755`.
    #[must_use]
    pub const fn root() -> Self {
        Self::new(Metadata::root_owned(0o755))
    }

    /// The entries, in the order of the bytes of their names.
    pub fn entries(&self) -> impl Iterator<Item = (&Name, &Node)> {
        self.entries.iter()
    }

    /// Number of entries of the directory itself.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry with this name.
    #[must_use]
    pub fn entry(&self, name: &[u8]) -> Option<&Node> {
        self.entries.get(name)
    }

    /// The node at `path`. Symbolic links on the way are not followed.
    #[must_use]
    pub fn get(&self, path: &RelPath) -> Option<&Node> {
        let mut components = path.components();
        let mut node = self.entries.get(components.next()?)?;
        for component in components {
            node = node.as_directory()?.entries.get(component)?;
        }
        Some(node)
    }

    /// The directory at `path`. Symbolic links on the way are not followed.
    #[must_use]
    pub fn get_directory(&self, path: &RelPath) -> Option<&Arc<Self>> {
        self.get(path)?.as_directory()
    }

    /// Rights and content of the regular file at `path`, also through a hard link.
    #[must_use]
    pub fn get_file(&self, path: &RelPath) -> Option<(&Metadata, Descriptor)> {
        self.file_of(self.get(path)?)
    }

    /// Rights and content of a regular file or hard link of this tree.
    #[must_use]
    pub fn file_of<'a>(&'a self, node: &'a Node) -> Option<(&'a Metadata, Descriptor)> {
        match node {
            Node::File { metadata, blob } => Some((metadata, *blob)),
            Node::Link { target } => match self.get(target)? {
                Node::File { metadata, blob } => Some((metadata, *blob)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Every node below the root, depth first: a directory before what it holds, siblings by the bytes of their names.
    #[must_use]
    pub fn walk(&self) -> Walk<'_> {
        Walk { stack: vec![(None, self.entries.iter())] }
    }

    /// Number of nodes below the root and sum of the sizes of regular files; further names of a file count as nodes only.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.walk().fold((0, 0), |(count, bytes), (_, node)| {
            let size = if let Node::File { blob, .. } = node { blob.size } else { 0 };
            (count + 1, bytes + size)
        })
    }
}

/// Iterator of [`Directory::walk`].
#[derive(Debug)]
pub struct Walk<'tree> {
    stack: Vec<(Option<RelPath>, std::collections::btree_map::Iter<'tree, Name, Node>)>,
}

impl<'tree> Iterator for Walk<'tree> {
    type Item = (RelPath, &'tree Node);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (parent, entries) = self.stack.last_mut()?;
            let Some((name, node)) = entries.next() else {
                self.stack.pop();
                continue;
            };
            let path = match parent {
                None => RelPath::from(name.clone()),
                Some(parent) => parent.join(name),
            };
            if let Node::Directory(directory) = node {
                self.stack.push((Some(path.clone()), directory.entries.iter()));
            }
            return Some((path, node));
        }
    }
}
