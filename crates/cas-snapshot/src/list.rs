//! The list of the workspace's files.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cas_blob::Descriptor;
use cas_fs::{FsError, Operation};
use cas_tree::RelPath;
use ignore::WalkBuilder;

use crate::SnapshotError;

/// Names that never belong to a package, wherever they are.
const NEVER: [&str; 4] = [".git", "cas-out", "cas.toml", "cas.lock"];

/// What an entry of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Symlink,
    /// Something that cannot be an input; an error only where a target selects it.
    Special(&'static str),
}

/// A file of the workspace.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path from the workspace's root.
    pub path: RelPath,
    /// What it is.
    pub kind: EntryKind,
}

/// The files of a workspace at one time.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) root: PathBuf,
    pub(crate) entries: BTreeMap<RelPath, EntryKind>,
    /// What was read so far, and how the file looked then.
    pub(crate) known: Mutex<BTreeMap<RelPath, (Descriptor, Stamp)>>,
}

/// What tells that a file was written to, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: u64,
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            inode: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Snapshot {
    /// Lists the files of the workspace at `root` that its `.gitignore` files leave.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Walk`] or [`SnapshotError::Fs`] when a folder cannot be read.
    pub fn take(root: &Path) -> Result<Self, SnapshotError<Infallible>> {
        let mut entries = BTreeMap::new();
        let walk = WalkBuilder::new(root)
            .hidden(false)
            .parents(false)
            .ignore(false)
            .git_global(false)
            .git_exclude(false)
            .git_ignore(true)
            .require_git(false)
            .follow_links(false)
            .filter_entry(|entry| entry.depth() == 0 || !NEVER.iter().any(|name| entry.file_name() == *name))
            .build();
        for entry in walk {
            let entry = entry.map_err(SnapshotError::Walk)?;
            let Some(file_type) = entry.file_type().filter(|_| entry.depth() > 0) else { continue };
            if file_type.is_dir() {
                continue;
            }
            let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let path = RelPath::new(relative.as_os_str().as_bytes())
                .map_err(|source| SnapshotError::Path { path: relative.to_owned(), source })?;
            let kind = if file_type.is_symlink() {
                EntryKind::Symlink
            } else if file_type.is_file() {
                let metadata = cas_fs::symlink_metadata(entry.path())?;
                EntryKind::File { executable: metadata.permissions().mode() & 0o100 != 0 }
            } else if file_type.is_socket() {
                EntryKind::Special("socket")
            } else if file_type.is_fifo() {
                EntryKind::Special("fifo")
            } else {
                EntryKind::Special("device")
            };
            entries.insert(path, kind);
        }
        Ok(Self { root: root.to_owned(), entries, known: Mutex::new(BTreeMap::new()) })
    }

    /// Every file, in the order of a tree's walk.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.entries.iter().map(|(path, kind)| Entry { path: path.clone(), kind: *kind })
    }

    /// Checks that no file that was read looks otherwise now.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Changed`] with the first such file.
    pub fn verify_unchanged(&self) -> Result<(), SnapshotError<Infallible>> {
        let known = self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (path, (_, stamp)) in known.iter() {
            let at = self.at(path);
            let metadata = match cas_fs::symlink_metadata(&at) {
                Ok(metadata) => metadata,
                Err(error) if error.is_not_found() => return Err(SnapshotError::Changed { path: path.clone() }),
                Err(error) => return Err(error.into()),
            };
            if Stamp::of(&metadata) != *stamp {
                return Err(SnapshotError::Changed { path: path.clone() });
            }
        }
        Ok(())
    }

    pub(crate) fn at(&self, path: &RelPath) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
    }
}

/// The metadata of an open file.
pub(crate) fn stat(file: &std::fs::File, path: &Path) -> Result<Metadata, FsError> {
    file.metadata().map_err(|error| FsError::new(Operation::Stat, path, error))
}
