//! How the folders of objects look, so that what was found in them need not be looked for again.
//!
//! An object that leaves, for whatever reason and by whoever's hand, changes the times of its folder. So blobs that were here
//! are here as long as their folders look the same, in one boot of the machine. Only told to who can do without: what is in an
//! object is verified when it is read.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};

use crate::Store;
use crate::disk::{Disk, HostDisk};

/// A folder that changed within this time may change once more and have the same times, where these are coarse.
const SETTLING_SECONDS: i64 = 2;

/// How the folders of objects looked at one moment.
#[derive(Clone, Debug)]
pub struct Looks {
    function: DigestFunction,
    folders: Vec<Option<u64>>,
}

impl Store {
    /// How the folders of the objects that `function` names look now. Whoever looks for blobs afterwards may believe it of
    /// those that are found.
    #[must_use]
    pub fn looks(&self, function: DigestFunction) -> Looks {
        let top = self.vault.function_folder(function);
        let (boot, now) = (self.vault.epochs.boot(), HostDisk.now());
        let has_fine_times =
            !self.is_on_network && cas_fs::open(&top).is_ok_and(|folder| cas_fs::has_multigrain_times(folder.as_fd()));
        let device = cas_fs::symlink_metadata(&top).map_or(0, |metadata| metadata.dev());
        let look = |number: u8| {
            let metadata = cas_fs::symlink_metadata(&top.join(format!("{number:02x}"))).ok()?;
            let is_settled = metadata.ctime().max(metadata.mtime()).saturating_add(SETTLING_SECONDS) < now;
            let may_be_believed = has_fine_times || (is_settled && !self.is_on_network);
            if !metadata.is_dir() || metadata.dev() != device || !may_be_believed {
                return None;
            }
            let mut bytes = Vec::with_capacity(56);
            bytes.extend(boot.to_le_bytes());
            bytes.extend(metadata.dev().to_le_bytes());
            bytes.extend(metadata.ino().to_le_bytes());
            for time in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
                bytes.extend(time.to_le_bytes());
            }
            let digest = Digest::of(DigestFunction::Blake3, &bytes);
            Some(u64::from_le_bytes(digest.value()[..8].try_into().expect("it is longer")))
        };
        Looks { function, folders: (0..=u8::MAX).map(look).collect() }
    }
}

impl Looks {
    /// The function that names the objects.
    #[must_use]
    pub fn function(&self) -> DigestFunction {
        self.function
    }

    /// The number of the folder that a blob is in; `None` for one of another function.
    #[must_use]
    pub fn folder_of(&self, blob: &Descriptor) -> Option<u8> {
        (blob.digest.function() == self.function).then(|| blob.digest.value()[0])
    }

    /// How a folder looks; `None` when that says nothing, because it may change unseen.
    #[must_use]
    pub fn of(&self, folder: u8) -> Option<u64> {
        self.folders[usize::from(folder)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_folder_looks_the_same_until_something_leaves_it_or_comes() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let store = Store::open(home.path()).expect("the folder is empty");
        let function = DigestFunction::Blake3;
        let blob = store.put_bytes(function, b"content").expect("the disk has room");
        let number = store.looks(function).folder_of(&blob).expect("the function is this");
        // With coarse times a folder says nothing for a while.
        let settled = || {
            for _ in 0..100 {
                if let Some(look) = store.looks(function).of(number) {
                    return look;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            panic!("the folder does not settle");
        };
        let before = settled();
        assert_eq!(store.looks(function).of(number), Some(before));
        let object = store.object_path(&blob).expect("it is here");
        cas_fs::remove_file(&object).expect("it is ours");
        assert_ne!(store.looks(function).of(number), Some(before), "it left");
        let without = settled();
        assert_ne!(without, before);
        store.put_bytes(function, b"content").expect("the disk has room");
        assert_ne!(store.looks(function).of(number), Some(without), "it came");
        let folder = object.parent().expect("it is in one");
        let here = settled();
        cas_fs::rename(folder, &folder.with_extension("away")).expect("it is ours");
        assert_eq!(store.looks(function).of(number), None, "the folder left");
        store.put_bytes(function, b"content").expect("the disk has room");
        assert_ne!(settled(), here, "another folder came");
        assert_eq!(store.looks(function).folder_of(&Descriptor::of(DigestFunction::Sha256, b"content")), None);
    }
}
