//! The reserve: a few megabytes that are given back to a full disk, so that whoever clears it can write.
//!
//! Opening a store, leasing, forgetting rows and publishing a collector's batch take room; on a disk without any they would
//! fail, and nothing could be removed. Format: docs/formats/store.md, "Room".

use std::path::{Path, PathBuf};

use cas_fs::{FsError, Operation};

use crate::StoreError;
use crate::disk::{Access, Disk};
use crate::vault::Vault;

/// Files of the reserve, and their size: 8 MiB together.
const FILES: u32 = 64;
const FILE_BYTES: u64 = 128 << 10;
/// Less free room than this, and the reserve is given back.
const SCARCE_BYTES: u64 = 16 << 20;
const SCARCE_INODES: u64 = 256;

fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join("reserve").join(format!("{number:02}"))
}

/// Makes the files of the reserve that are missing. A disk that is too full for them is no error: it is filled later.
pub(crate) fn fill<D: Disk>(disk: &D, folder: &Path) -> Result<(), StoreError> {
    let room = disk.room(folder)?;
    if room.bytes < SCARCE_BYTES + 2 * u64::from(FILES) * FILE_BYTES {
        return Ok(());
    }
    disk.create_folder(&folder.join("reserve"))?;
    for number in 0..FILES {
        let path = path_of(folder, number);
        if disk.stat(&path)?.is_some_and(|stat| stat.size >= FILE_BYTES) {
            continue;
        }
        let file = disk.open(&path, Access::Write)?.expect("a missing file is made");
        let failure = disk.allocate(&file, FILE_BYTES).map_err(|error| FsError::new(Operation::Write, &path, error));
        match failure {
            Err(error) if error.is_full() => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}

/// Gives the reserve back; whether there was one.
///
/// What cannot be removed does not help: whoever needs the room says what is wrong.
pub(crate) fn spend<D: Disk>(disk: &D, folder: &Path) -> bool {
    let mut is_spent = false;
    for number in 0..FILES {
        is_spent |= disk.remove(&path_of(folder, number)).unwrap_or(false);
    }
    is_spent
}

impl<D: Disk> Vault<D> {
    /// Gives the reserve back when there is next to no room left.
    pub(crate) fn spend_reserve_if_scarce(&self) -> Result<(), StoreError> {
        let room = self.disk.room(&self.folder)?;
        let no_inodes = room.total_inodes > 0 && room.inodes < SCARCE_INODES;
        if room.bytes < SCARCE_BYTES || no_inodes {
            spend(&*self.disk, &self.folder);
        }
        Ok(())
    }
}
