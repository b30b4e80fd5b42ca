//! Folders that steps keep for themselves from one run to the next: state that tools use to be faster.
//!
//! Nothing in them is verified, shared, or an object of the store. One has one user at a time; it is locked meanwhile, and
//! the kernel lets go when a process ends in any way. Format: docs/formats/store.md.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cas_digest::{Digest, DigestFunction};

use crate::locked::{Locked, lock};
use crate::{Store, StoreError};

/// Folder of the folders.
const FOLDER: &str = "private";
/// What they hold, and a text that tells whose they are; the lock is on the latter.
const DATA: &str = "data";
const OWNER: &str = "owner";

/// A folder that nobody else uses until this is dropped.
#[derive(Debug)]
pub struct PrivateFolder {
    folder: PathBuf,
    _lock: File,
}

impl PrivateFolder {
    /// Where its owner may write.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(DATA)
    }

    /// Makes it empty: for what may have been left half done.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fs`]
    pub fn clear(&self) -> Result<(), StoreError> {
        cas_fs::remove_tree(&self.path())?;
        Ok(cas_fs::create_dir(&self.path())?)
    }
}

impl Store {
    /// The folder of `owner`, a text that tells whose it is, once nobody else uses it; `None` when `is_cancelled` says so.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fs`]
    pub fn private_folder(
        &self,
        owner: &str,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<PrivateFolder>, StoreError> {
        let name = Digest::of(DigestFunction::Blake3, owner.as_bytes()).to_hex();
        let top = self.folder().join(FOLDER);
        cas_fs::create_dir_all(&top)?;
        // A step can leave a program there that runs with its owner's rights, whoever starts it: nobody else may come near.
        cas_fs::set_mode(&top, 0o700)?;
        let folder = top.join(&name[..32]);
        loop {
            cas_fs::create_dir_all(&folder.join(DATA))?;
            match lock(&folder.join(OWNER), is_cancelled)? {
                Locked::Held(lock) => {
                    // Its time says when it was used last.
                    cas_fs::write(&folder.join(OWNER), owner.as_bytes())?;
                    cas_fs::create_dir_all(&folder.join(DATA))?;
                    return Ok(Some(PrivateFolder { folder, _lock: lock }));
                }
                Locked::Gone => {}
                Locked::Cancelled => return Ok(None),
            }
        }
    }

    /// Removes those that were not used for longer than `keep`, and says how many they were. Those in use stay.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fs`]
    pub fn remove_private(&self, keep: Duration, is_dry: bool) -> Result<u64, StoreError> {
        let top = self.folder().join(FOLDER);
        let entries = match cas_fs::read_dir(&top) {
            Err(error) if error.is_not_found() => return Ok(0),
            other => other?,
        };
        let mut count = 0;
        for entry in entries {
            let folder = top.join(&entry.name);
            let used = cas_fs::metadata(&folder.join(OWNER)).ok().and_then(|metadata| metadata.modified().ok());
            #[expect(clippy::disallowed_methods, reason = "ages are told by the clock that set the files' times")]
            let age = used.and_then(|used| SystemTime::now().duration_since(used).ok());
            if age.is_none_or(|age| age < keep) {
                continue;
            }
            let Locked::Held(lock) = lock(&folder.join(OWNER), &|| true)? else { continue };
            if !is_dry {
                // The lock's file goes last: until then nobody takes what is being removed.
                cas_fs::remove_tree(&folder.join(DATA))?;
                // Whoever began to use it at this moment makes it anew.
                let _ = cas_fs::remove_tree(&folder);
            }
            drop(lock);
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_has_one_user_and_goes_when_nobody_wants_it() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let stores = [(); 2].map(|()| Store::open(home.path()).expect("the folder is writable"));
        let never = &|| false;
        let held = stores[0].private_folder("//a:x target", never).expect("the disk works").expect("it is free");
        cas_fs::write(&held.path().join("state"), b"1").expect("it is ours");
        let top = cas_fs::metadata(&stores[0].folder().join(FOLDER)).expect("it is there");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&top.permissions()) & 0o777, 0o700);
        assert!(stores[1].private_folder("//a:x target", &|| true).expect("the disk works").is_none());
        assert!(stores[1].private_folder("//b:x target", &|| true).expect("the disk works").is_some());
        assert_eq!(stores[1].remove_private(Duration::ZERO, false).expect("the disk works"), 1, "one is in use");
        drop(held);
        let again = stores[1].private_folder("//a:x target", never).expect("the disk works").expect("it is free");
        assert_eq!(cas_fs::read(&again.path().join("state")).expect("it stayed"), b"1");
        again.clear().expect("it is ours");
        assert!(!cas_fs::exists(&again.path().join("state")).expect("the folder is there"));
        drop(again);
        assert_eq!(stores[0].remove_private(Duration::from_secs(60), false).expect("the disk works"), 0, "it is new");
        // A process that another test is just starting may hold the lock, too, until it is that program.
        let settled = |is_dry| {
            let counts = (0..500).map(|_| {
                let count = stores[0].remove_private(Duration::ZERO, is_dry).expect("the disk works");
                if count == 0 {
                    std::thread::sleep(Duration::from_millis(10));
                }
                count
            });
            counts.into_iter().find(|count| *count > 0)
        };
        assert_eq!(settled(true), Some(1), "it would go");
        assert_eq!(settled(false), Some(1));
        assert_eq!(cas_fs::read_dir(&stores[0].folder().join(FOLDER)).expect("it is there").len(), 0);
    }
}
