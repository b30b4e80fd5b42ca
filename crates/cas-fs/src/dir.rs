//! Folders.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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

/// Removes a folder and all below it, also where folders lack the owner's rights. A missing path is done already.
///
/// Never follows a symlink.
///
/// # Errors
///
/// [`FsError`]; a part may be removed then.
pub fn remove_tree(path: &Path) -> Result<(), FsError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(FsError::new(Operation::Stat, path, error)),
        Ok(metadata) if !metadata.is_dir() => return fs::remove_file(path).at(Operation::Remove, path),
        Ok(metadata) if metadata.permissions().mode() & 0o700 != 0o700 => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at(Operation::SetMode, path)?;
        }
        Ok(_) => {}
    }
    for entry in read_dir(path)? {
        let child = path.join(&entry.name);
        if entry.is_dir {
            remove_tree(&child)?;
        } else {
            fs::remove_file(&child).at(Operation::Remove, &child)?;
        }
    }
    remove_dir(path)
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
        match create_dir_with_mode(&path, 0o700) {
            Ok(()) => return Ok(path),
            // Left by an earlier process with the same id.
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_removed_even_without_rights_and_links_are_not_followed() {
        let top = temporary_dir_in(&std::env::temp_dir(), "cas-fs-test-").expect("the temporary folder is writable");
        let outside = top.join("outside");
        let inside = top.join("inside");
        create_dir(&outside).expect("free name");
        crate::write(&outside.join("kept"), b"x").expect("folder is there");
        create_dir_all(&inside.join("a/b")).expect("free name");
        crate::symlink(&outside, &inside.join("a/link")).expect("free name");
        crate::set_mode(&inside.join("a/b"), 0).expect("our folder");
        remove_tree(&inside).expect("everything can be removed");
        assert!(!crate::exists(&inside).expect("parent is readable"));
        assert!(crate::exists(&outside.join("kept")).expect("parent is readable"));
        remove_tree(&top).expect("everything can be removed");
    }
}
