//! Trees in the store: each directory is a blob.

use std::collections::HashMap;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, MAX_DIRECTORY_BYTES, decode};
use rayon::prelude::*;

use crate::lease::Record;
use crate::{Store, StoreError};

/// Directories of a tree that are loaded ahead; what comes after them is loaded one after the other.
const MAX_LOADED_BYTES: usize = 64 << 20;
/// Fewer directories than this, and a second thread costs more than it saves.
const DIRECTORIES_A_THREAD: usize = 16;

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
        let loaded = self.load_directories(root)?;
        let mut load = |directory: &Descriptor| match loaded.get(directory) {
            Some(bytes) => Ok(bytes.clone()),
            None => self.load(directory, MAX_DIRECTORY_BYTES),
        };
        decode(root, &mut load).map_err(|error| match error {
            cas_tree::DecodeTreeError::Load(error) => error,
            source => StoreError::Tree { root: *root, source: Box::new(source) },
        })
    }

    /// The directories of a tree, as far as a bound on memory goes: one level after the other, each by several threads and
    /// with one lease for all.
    fn load_directories(&self, root: &Descriptor) -> Result<HashMap<Descriptor, Vec<u8>>, StoreError> {
        let (mut loaded, mut held) = (HashMap::new(), 0);
        let mut level = vec![*root];
        while !level.is_empty() && held < MAX_LOADED_BYTES {
            let leases: Vec<Record> = level.iter().map(|directory| Record::object(&directory.digest)).collect();
            self.vault.leases.take(&leases)?;
            let all: Vec<Vec<u8>> = level
                .par_iter()
                .with_min_len(DIRECTORIES_A_THREAD)
                .map(|directory| self.load(directory, MAX_DIRECTORY_BYTES))
                .collect::<Result<_, _>>()?;
            let mut below = Vec::new();
            for (directory, bytes) in level.into_iter().zip(all) {
                // What is no directory is told by whoever decodes it.
                if let Ok(references) = cas_tree::references(&bytes, root.digest.function()) {
                    below.extend(references.directories);
                }
                held += bytes.len();
                loaded.insert(directory, bytes);
            }
            below.sort_unstable();
            below.dedup();
            below.retain(|directory| !loaded.contains_key(directory));
            level = below;
        }
        Ok(loaded)
    }

    /// The first blob of a tree that is not here.
    pub(crate) fn missing_of_tree(&self, root: &Descriptor) -> Result<Option<Descriptor>, StoreError> {
        match self.load_tree(root) {
            Ok(tree) => self.missing_file(&tree),
            Err(StoreError::Missing(blob)) => Ok(Some(blob)),
            Err(error) => Err(error),
        }
    }

    /// The first file of a tree whose content is not here.
    fn missing_file(&self, tree: &Directory) -> Result<Option<Descriptor>, StoreError> {
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
        Ok(if self.missing_file(&tree)?.is_none() { Some(tree) } else { None })
    }
}
