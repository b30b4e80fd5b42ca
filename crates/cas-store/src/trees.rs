//! Trees in the store: each directory is a blob.

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, MAX_DIRECTORY_BYTES, decode};

use crate::{Store, StoreError};

impl Store {
    /// Stores the directories of a tree and returns the tree's name. The content of its files is not looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError::Encode`] when a file's content is named by another function.
    pub fn put_tree(&self, tree: &Directory, function: DigestFunction) -> Result<Descriptor, StoreError> {
        let encoded = tree.encode(function)?;
        for (_, bytes) in &encoded.directories {
            self.put_bytes(function, bytes)?;
        }
        Ok(encoded.root)
    }

    /// Loads a tree.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when one of its directories is not here, [`StoreError::Tree`] when one is damaged.
    pub fn load_tree(&self, root: &Descriptor) -> Result<Directory, StoreError> {
        decode(root, &mut |directory| self.load(directory, MAX_DIRECTORY_BYTES)).map_err(|error| match error {
            cas_tree::DecodeTreeError::Load(error) => error,
            source => StoreError::Tree { root: *root, source: Box::new(source) },
        })
    }

    /// The first blob of a tree that is not here.
    pub(crate) fn missing_of_tree(&self, root: &Descriptor) -> Result<Option<Descriptor>, StoreError> {
        let tree = match self.load_tree(root) {
            Ok(tree) => tree,
            Err(StoreError::Missing(blob)) => return Ok(Some(blob)),
            Err(error) => return Err(error),
        };
        let blobs: Vec<Descriptor> = tree
            .walk()
            .filter_map(|(_, node)| match node {
                cas_tree::Node::File { blob, .. } => Some(*blob),
                _ => None,
            })
            .collect();
        let found = self.contain(&blobs)?;
        Ok(blobs.into_iter().zip(found).find(|(_, found)| !found).map(|(blob, _)| blob))
    }

    /// The tree with this name, if all of it is here: its directories and the content of its files.
    ///
    /// # Errors
    ///
    /// [`StoreError`] for damage; what is only missing gives `None`.
    pub fn find_tree(&self, root: &Descriptor) -> Result<Option<Directory>, StoreError> {
        let tree = match self.load_tree(root) {
            Ok(tree) => tree,
            Err(StoreError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        for (_, node) in tree.walk() {
            if let cas_tree::Node::File { blob, .. } = node
                && !self.contains(blob)?
            {
                return Ok(None);
            }
        }
        Ok(Some(tree))
    }
}
