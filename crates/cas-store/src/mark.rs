//! Who needs which object: what a collection knows before it decides.
//!
//! Every object is listed once. Pins and rows then say what they need, and trees are walked for them; nothing is written.
//!
//! Not here: what leaves (`retain`), and how (`collect`).

use std::collections::HashMap;

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_tree::MAX_DIRECTORY_BYTES;

use crate::StoreError;
use crate::collect::{Kind, Victim};
use crate::disk::HostDisk;
use crate::index::Index;
use crate::pins::Keep;
use crate::vault::Vault;

/// Nobody needs it.
pub(crate) const NOBODY: u32 = u32::MAX;
/// A pin needs it.
pub(crate) const PINNED: u32 = 0;

/// An object, and who needs it: the number of the row that was used last, from 1 on.
pub(crate) struct Object {
    pub(crate) victim: Victim,
    pub(crate) needed_by: u32,
    /// For whom everything below it was marked: not for whoever needs its bytes alone.
    walked_by: u32,
}

/// All objects, and who needs them as far as that was told.
pub(crate) struct Marker<'a> {
    vault: &'a Vault<HostDisk>,
    index: &'a Index,
    /// In the order of their digests: a million of them are 136 MB, and a table beside them would be half as much again.
    pub(crate) objects: Vec<Object>,
    /// Second names that pins know, for when the index was lost.
    pub(crate) names: HashMap<Descriptor, Descriptor>,
}

impl<'a> Marker<'a> {
    /// Everything that is here, needed by nobody yet.
    pub(crate) fn list(vault: &'a Vault<HostDisk>, index: &'a Index) -> Result<Self, StoreError> {
        let mut objects = Vec::new();
        vault.each_object(&mut |digest, stat| {
            let victim = Victim { kind: Kind::Object, digest, stat };
            objects.push(Object { victim, needed_by: NOBODY, walked_by: NOBODY });
            Ok(())
        })?;
        objects.sort_unstable_by_key(|object| object.victim.digest);
        Ok(Self { vault, index, objects, names: HashMap::new() })
    }

    fn find(&self, digest: &Digest) -> Option<usize> {
        self.objects.binary_search_by_key(digest, |object| object.victim.digest).ok()
    }

    /// Whether somebody said that they need an object.
    pub(crate) fn is_needed(&self, digest: &Digest) -> bool {
        self.find(digest).is_some_and(|position| self.objects[position].needed_by != NOBODY)
    }

    /// Notes that `by` needs a blob; gives the object, `None` when it is not here.
    fn mark(&mut self, blob: &Descriptor, by: u32) -> Result<Option<&mut Object>, StoreError> {
        let mut found = self.find(&blob.digest);
        if found.is_none() {
            let primary = match self.names.get(blob) {
                Some(primary) => Some(*primary),
                None => self.index.alias(blob)?,
            };
            found = primary.and_then(|primary| self.find(&primary.digest));
        }
        let Some(position) = found else { return Ok(None) };
        let object = &mut self.objects[position];
        object.needed_by = object.needed_by.min(by);
        Ok(Some(object))
    }

    /// Marks what is kept; gives a directory of a tree that is not here, if there is one.
    pub(crate) fn need(&mut self, keep: &Keep, by: u32) -> Result<Option<Descriptor>, StoreError> {
        match keep {
            Keep::Blob(blob) => {
                self.mark(blob, by)?;
                Ok(None)
            }
            Keep::Tree(tree) => self.mark_tree(tree, by),
        }
    }

    /// Marks a tree; gives a directory that is not here, if there is one. Files that are not here are left out.
    fn mark_tree(&mut self, root: &Descriptor, by: u32) -> Result<Option<Descriptor>, StoreError> {
        let mut waiting = vec![*root];
        let mut missing = None;
        while let Some(directory) = waiting.pop() {
            match self.mark(&directory, by)? {
                None => missing = missing.or(Some(directory)),
                // What is below it was marked for this one, or for one that stays longer.
                Some(object) if object.walked_by <= by => {}
                Some(object) => {
                    object.walked_by = by;
                    let bytes =
                        if directory.size > MAX_DIRECTORY_BYTES { None } else { self.vault.peek(&directory)? };
                    let references =
                        bytes.and_then(|bytes| cas_tree::references(&bytes, directory.digest.function()).ok());
                    let Some(references) = references else {
                        missing = missing.or(Some(directory));
                        continue;
                    };
                    for file in &references.files {
                        self.mark(file, by)?;
                    }
                    waiting.extend(references.directories);
                }
            }
        }
        Ok(missing)
    }
}

impl Vault<HostDisk> {
    /// Bytes of a blob by any of its names, without a lease.
    pub(crate) fn peek_named(&self, index: &Index, blob: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(bytes) = self.peek(blob)? {
            return Ok(Some(bytes));
        }
        match index.alias(blob)? {
            Some(primary) => self.peek(&primary),
            None => Ok(None),
        }
    }
}
