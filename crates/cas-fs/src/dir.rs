//! Folders.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Context;
use crate::{FsError, Operation};

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Name, without the folder's path.
    pub name: OsString,
    /// Whether the name itself is a folder (a symlink to one is not).
    pub is_dir: bool,
}

/// Lists a folder, sorted by the bytes of the names.
///
/// # Errors
///
/// [`FsError`] as for every function of this module.
pub fn read_dir(path: &Path) -> Result<Vec<DirEntry>, FsError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).at(Operation::List, path)? {
        let entry = entry.at(Operation::List, path)?;
        let is_dir = entry.file_type().at(Operation::Stat, &entry.path())?.is_dir();
        entries.push(DirEntry { name: entry.file_name(), is_dir });
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Creates a folder that must not exist yet.
///
/// # Errors
///
/// [`FsError`]
pub fn create_dir(path: &Path) -> Result<(), FsError> {
    fs::create_dir(path).at(Operation::CreateDirectory, path)
}

/// Creates a folder that must not exist yet, with the given mode less the umask.
///
/// # Errors
///
/// [`FsError`]
pub fn create_dir_with_mode(path: &Path, mode: u32) -> Result<(), FsError> {
    DirBuilder::new().mode(mode).create(path).at(Operation::CreateDirectory, path)
}

/// Creates a folder and the missing ones above it.
///
/// # Errors
///
/// [`FsError`]
pub fn create_dir_all(path: &Path) -> Result<(), FsError> {
    fs::create_dir_all(path).at(Operation::CreateDirectory, path)
}

/// Removes an empty folder.
///
/// # Errors
///
/// [`FsError`]
pub fn remove_dir(path: &Path) -> Result<(), FsError> {
    fs::remove_dir(path).at(Operation::Remove, path)
}

/// Temporary folders that are there.
static TEMPORARY: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// How often a folder is emptied in which somebody still writes.
const ROUNDS: usize = 16;

/// Forgets a folder that is to be removed.
pub(crate) fn forget_temporary(path: &Path) {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
}

/// Removes what [`temporary_dir_in`] made and nobody has removed yet, for a process that ends in the middle of its work.
///
/// From then on nobody can make or remove one: who tries waits for the end of the process, and tells nobody of a failure.
pub fn remove_temporary_dirs() {
    let folders = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    for folder in folders.iter() {
        // What cannot be removed stays, as after a process that was killed.
        let _ = (0..ROUNDS).find(|_| crate::remove::remove_folder(folder).is_ok());
    }
    std::mem::forget(folders);
}

/// Creates a folder with a name that nobody else uses, in `parent`, readable by its owner alone.
///
/// # Errors
///
/// [`FsError`]
pub fn temporary_dir_in(parent: &Path, prefix: &str) -> Result<PathBuf, FsError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{prefix}{}-{count}", std::process::id()));
        let mut folders = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
        match create_dir_with_mode(&path, 0o700) {
            Ok(()) => {
                folders.insert(path.clone());
                return Ok(path);
            }
            // Left by an earlier process with the same id.
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
    }
}
