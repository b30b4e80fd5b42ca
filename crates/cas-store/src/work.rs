//! Work that is done once: whoever comes second waits for it, be it another thread or another process.
//!
//! A file for each key, locked while somebody works on it; the kernel lets go when a process ends in any way. The file is
//! removed by whoever worked.

use std::fs::File;
use std::path::PathBuf;

use cas_blob::Descriptor;

use crate::locked::{Locked, lock};
use crate::{Store, StoreError};

/// Folder of the files.
const FOLDER: &str = "work";

/// Held while its owner works; ended by dropping it.
#[derive(Debug)]
pub struct Work {
    path: PathBuf,
    _file: File,
}

impl Drop for Work {
    fn drop(&mut self) {
        // While it is still locked. One that stays is only a name.
        let _ = cas_fs::remove_file(&self.path);
    }
}

impl Store {
    /// Waits until nobody else works on `key`, and begins; `None` when `is_cancelled` says so meanwhile.
    ///
    /// The other one may have given the result, so look for it afterwards.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fs`]
    pub fn work_on(&self, key: &Descriptor, is_cancelled: &dyn Fn() -> bool) -> Result<Option<Work>, StoreError> {
        let folder = self.folder().join(FOLDER);
        cas_fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}-{}", key.digest.function(), key.digest.to_hex()));
        loop {
            match lock(&path, is_cancelled)? {
                Locked::Held(file) => return Ok(Some(Work { path, _file: file })),
                // The one who had it removed it before this one got the lock.
                Locked::Gone => {}
                Locked::Cancelled => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn one_at_a_time_works_on_a_key() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let stores = [(); 2].map(|()| Store::open(home.path()).expect("the folder is writable"));
        let key = Descriptor::of(DigestFunction::Blake3, b"key");
        let (now, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for store in stores.iter().chain(&stores) {
                let (now, done) = (&now, &done);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let work = store.work_on(&key, &|| false).expect("the disk works").expect("nobody cancels");
                        assert_eq!(now.fetch_add(1, Ordering::SeqCst), 0, "two work on one key");
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                        drop(work);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 200);
        assert_eq!(cas_fs::read_dir(&stores[0].folder().join(FOLDER)).expect("it is there").len(), 0);
        let other = Descriptor::of(DigestFunction::Blake3, b"other");
        let held = stores[0].work_on(&key, &|| false).expect("the disk works");
        assert!(stores[1].work_on(&other, &|| false).expect("the disk works").is_some(), "another key is free");
        assert!(stores[1].work_on(&key, &|| true).expect("the disk works").is_none(), "a wait can be cancelled");
        drop(held);
    }
}
