//! What belongs to one running process: its folder under `tmp/`, and clearing those of dead ones.
//!
//! The lock file is held by `flock` as long as the process runs, so that nobody else removes the folder; the kernel drops
//! the lock when the process dies, however it does. While a collection runs no session's folder is removed, not even by
//! its own process: what it leased, and may have recorded since, has to be seen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cas_fs::{FsError, Operation};

use crate::disk::{Access, Disk, LockMode, lock};
use crate::epoch::is_live;

/// Pauses to wait for others who start.
const PATIENCE: u32 = 5_000;

/// Folder of a running process.
#[derive(Debug)]
pub(crate) struct Session<D: Disk> {
    disk: Arc<D>,
    path: PathBuf,
    collect_lock: PathBuf,
    /// Folders of dead processes that could not be removed.
    left: Vec<PathBuf>,
    /// Held open for its lock; given up last.
    _lock: D::File,
}

impl<D: Disk> Session<D> {
    /// Makes a folder of this process in `tmp`, and removes those of processes that are gone.
    pub(crate) fn start(disk: Arc<D>, folder: &Path) -> Result<Self, FsError> {
        let tmp = folder.join("tmp");
        let collect_lock = folder.join("collect.lock");
        // A folder gets its lock before anybody else may look at it.
        let starting = no_start(&*disk, folder)?;
        let dead = dead_sessions(&*disk, &tmp)?;
        let path = loop {
            let name = format!("{}-{:08x}", std::process::id(), disk.random() & 0xffff_ffff);
            let path = tmp.join(name);
            if disk.create_folder(&path)? {
                break path;
            }
        };
        let lock_path = path.join("lock");
        let held = disk.open(&lock_path, Access::New)?.expect("a new file is made or an error");
        // Somebody who tries whether it is free may hold it for a moment.
        while !disk
            .try_lock(&held, LockMode::Exclusive)
            .map_err(|error| FsError::new(Operation::Open, &lock_path, error))?
        {
            disk.pause();
        }
        drop(starting);
        let mut left = Vec::new();
        if let Some(_idle) = no_collection(&*disk, &collect_lock)? {
            // What cannot be removed now is removed by a later start, or by [`Session::remove_left`].
            left = dead.into_iter().filter(|path| disk.remove_tree(path).is_err()).collect();
        }
        Ok(Self { disk, path, collect_lock, left, _lock: held })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets somebody else remove what this process could not remove when it started. While a collection runs, nothing is done.
    pub(crate) fn remove_left<E>(&self, mut remove: impl FnMut(&Path) -> Result<(), E>) -> Result<(), E> {
        if self.left.is_empty() {
            return Ok(());
        }
        // Whoever starts after the collection does it.
        let Ok(Some(_idle)) = no_collection(&*self.disk, &self.collect_lock) else { return Ok(()) };
        self.left.iter().try_for_each(|path| remove(path))
    }
}

impl<D: Disk> Drop for Session<D> {
    fn drop(&mut self) {
        // What is not removed now is removed by a later start.
        if let Ok(Some(_idle)) = no_collection(&*self.disk, &self.collect_lock) {
            let _ = self.disk.remove_tree(&self.path);
            // Sandboxes of a process that was just killed end a moment after it, and wrote there until then.
            self.left.iter().for_each(|path| drop(self.disk.remove_tree(path)));
        }
    }
}

/// Keeps sessions from starting as long as the result lives.
pub(crate) fn no_start<D: Disk>(disk: &D, folder: &Path) -> Result<D::File, FsError> {
    let path = folder.join("sessions.lock");
    lock(disk, &path, LockMode::Exclusive, PATIENCE)?
        .ok_or_else(|| FsError::new(Operation::Open, &path, std::io::ErrorKind::TimedOut.into()))
}

/// Keeps a collection from starting as long as the result lives; `None` when one runs.
pub(crate) fn no_collection<D: Disk>(disk: &D, path: &Path) -> Result<Option<D::File>, FsError> {
    lock(disk, path, LockMode::Shared, 1)
}

/// Folders of sessions whose process is gone.
pub(crate) fn dead_sessions<D: Disk>(disk: &D, tmp: &Path) -> Result<Vec<PathBuf>, FsError> {
    let mut dead = Vec::new();
    for entry in disk.list(tmp)? {
        let path = tmp.join(&entry.name);
        if !is_live(disk, &path)? {
            dead.push(path);
        }
    }
    Ok(dead)
}
