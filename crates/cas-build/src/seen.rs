//! Blobs in folders of others that were written or compared, and how they looked then: what looks the same is not read again.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cas_blob::Descriptor;
use cas_digest::HashingReader;
use cas_store::{Store, StoreError};

/// Kind of the records: path of a folder to a line for each blob.
pub(crate) const SEEN_MEMO: &str = "seen-1";

/// What is known of the blobs of a folder.
pub(crate) struct Seen {
    folder: Vec<u8>,
    known: BTreeMap<String, String>,
    now: BTreeMap<String, String>,
}

impl Seen {
    /// What was written down of a folder, whose path has no links.
    pub(crate) fn load(store: &Store, folder: &Path) -> Result<Self, StoreError> {
        let folder = folder.as_os_str().as_bytes().to_vec();
        let value = store.memo(SEEN_MEMO, &folder)?.unwrap_or_default();
        // What makes no sense is not known.
        let text = std::str::from_utf8(&value).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let known = lines.map(|(digest, looks)| (digest.to_owned(), looks.to_owned())).collect();
        Ok(Self { folder, known, now: BTreeMap::new() })
    }

    /// Whether the file at a path is a blob, byte for byte: by how it looks if that is known, else by reading it.
    pub(crate) fn holds(&self, path: &Path, blob: &Descriptor) -> bool {
        let looks = looks(path, blob);
        looks.is_some() && (self.known.get(&blob.digest.to_string()) == looks.as_ref() || is_equal(path, blob))
    }

    /// Remembers how a file looks that is a blob.
    pub(crate) fn add(&mut self, path: &Path, blob: &Descriptor) {
        self.now.extend(looks(path, blob).map(|looks| (blob.digest.to_string(), looks)));
    }

    /// Writes down what is known now, if that is news. Blobs that were not asked for are forgotten.
    pub(crate) fn keep(&self, store: &Store) -> Result<(), StoreError> {
        if self.now == self.known {
            return Ok(());
        }
        let lines: String = self.now.iter().map(|(digest, looks)| format!("{digest} {looks}\n")).collect();
        store.put_memo(SEEN_MEMO, &self.folder, lines.as_bytes())
    }
}

/// What moves when a file is changed or replaced; `None` for what cannot be the blob.
fn looks(path: &Path, blob: &Descriptor) -> Option<String> {
    let metadata = cas_fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() != blob.size {
        return None;
    }
    Some(format!(
        "{} {} {}.{:09} {}.{:09}",
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec()
    ))
}

/// What cannot be read is not equal, and is written anew.
fn is_equal(path: &Path, blob: &Descriptor) -> bool {
    let Ok(file) = cas_fs::open_no_follow(path) else { return false };
    let mut reader = HashingReader::new(file, &[blob.digest.function()]);
    let read = io::copy(&mut reader, &mut io::sink());
    let (digests, size) = reader.finish();
    read.is_ok() && size == blob.size && digests[0] == blob.digest
}
