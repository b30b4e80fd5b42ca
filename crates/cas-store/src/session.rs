//! What belongs to one running process: its folder under `tmp/`, and clearing those of dead ones.
//!
//! The lock file is held by `flock` as long as the process runs, so that nobody else removes the folder; the kernel drops
//! the lock when the process dies, however it does.

use std::fs::File;
use std::path::{Path, PathBuf};

use cas_fs::FsError;
use rustix::fs::{FlockOperation, flock};

/// Folder of a running process.
#[derive(Debug)]
pub(crate) struct Session {
    path: PathBuf,
    /// Held open for its lock.
    _lock: File,
}

impl Session {
    /// Makes a folder of this process in `tmp`, and removes those of processes that are gone.
    pub(crate) fn start(tmp: &Path) -> Result<Self, FsError> {
        remove_dead(tmp)?;
        let path = cas_fs::temporary_dir_in(tmp, "")?;
        let lock_path = path.join("lock");
        let lock = cas_fs::create_new(&lock_path, 0o600)?;
        flock(&lock, FlockOperation::NonBlockingLockShared)
            .map_err(|error| FsError::new(cas_fs::Operation::Create, &lock_path, error.into()))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What cannot be removed now is removed by a later start.
        let _ = cas_fs::remove_tree(&self.path);
    }
}

fn remove_dead(tmp: &Path) -> Result<(), FsError> {
    for entry in cas_fs::read_dir(tmp)? {
        let path = tmp.join(&entry.name);
        let lock = match cas_fs::open(&path.join("lock")) {
            Ok(lock) => lock,
            // Either its process is about to make the lock, or it died before: told apart by whether it still runs.
            Err(error) if error.is_not_found() => {
                let running = entry
                    .name
                    .to_string_lossy()
                    .split('-')
                    .next()
                    .is_some_and(|process| cas_fs::exists(&Path::new("/proc").join(process)).unwrap_or(true));
                if !running {
                    let _ = cas_fs::remove_tree(&path);
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // Two starting processes may both try; what one cannot find, the other removed.
            let _ = cas_fs::remove_tree(&path);
        }
    }
    Ok(())
}
