//! Files that are locked by name: a lock counts only while the name still leads to the file that was locked, since whoever
//! has it may remove it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use cas_fs::{FsError, Operation};

use crate::StoreError;
use crate::disk::{Access, Disk, HostDisk, LockMode};

/// Between two looks at whether the other one is done.
const PAUSE: Duration = Duration::from_millis(5);

/// What became of an attempt.
#[derive(Debug)]
pub(crate) enum Locked {
    /// Nobody else has it until the file is dropped.
    Held(File),
    /// It was removed meanwhile, or the folder that it would be in.
    Gone,
    /// It was said to wait no longer.
    Cancelled,
}

/// Opens the file at `path`, makes it where it is not there, and waits until nobody else has it locked.
pub(crate) fn lock(path: &Path, is_cancelled: &dyn Fn() -> bool) -> Result<Locked, StoreError> {
    let failed = |source| FsError::new(Operation::Open, path, source);
    let Some(file) = HostDisk.open(path, Access::Write)? else { return Ok(Locked::Gone) };
    while !HostDisk.try_lock(&file, LockMode::Exclusive).map_err(failed)? {
        if is_cancelled() {
            return Ok(Locked::Cancelled);
        }
        std::thread::sleep(PAUSE);
    }
    let locked = file.metadata().map_err(failed)?;
    match cas_fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => Ok(Locked::Held(file)),
        Ok(_) => Ok(Locked::Gone),
        Err(error) if error.is_not_found() => Ok(Locked::Gone),
        Err(error) => Err(error.into()),
    }
}
