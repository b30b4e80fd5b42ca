//! Looking for damage, and setting aside what is found: `cas store fsck`.
//!
//! A fast check looks at every name and reads what a loss of power may have torn; a full one reads everything. What is
//! damaged is moved to `quarantine/` and is a miss from then on, so that a second check of the same store is clean.
//!
//! Not here: what the index and trees written out are checked for (`store`, `roots`).

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_fs::FsError;

use crate::StoreError;
use crate::disk::{Disk, Site};
use crate::objects::{FUNCTIONS, Found, digest_of};
use crate::pins::PinFile;
use crate::vault::Vault;

/// How thorough a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every name is looked at; objects that a loss of power may have torn are read.
    Fast,
    /// Every object and every tree written out is read.
    Full,
}

/// What a check found, and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Objects looked at.
    pub object_count: u64,
    /// Their sizes together.
    pub object_bytes: u64,
    /// Objects of these that were read.
    pub read_count: u64,
    /// Objects whose bytes were not theirs; moved aside.
    pub damaged: Vec<Digest>,
    /// Files among the objects that are none; moved aside.
    pub strays: Vec<PathBuf>,
    /// Pins that cannot be read.
    pub damaged_pins: Vec<PathBuf>,
    /// Blobs that a pin keeps and that are not here, with the pin's name.
    pub missing: Vec<(String, Descriptor)>,
    /// Trees written out that were not what they are named after; removed.
    pub damaged_roots: Vec<PathBuf>,
    /// Trees written out that were looked at.
    pub root_count: u64,
    /// Whether the index was damaged; it was begun anew.
    pub is_index_damaged: bool,
}

impl Check {
    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty()
            && self.strays.is_empty()
            && self.damaged_pins.is_empty()
            && self.missing.is_empty()
            && self.damaged_roots.is_empty()
            && !self.is_index_damaged
    }

    fn add(&mut self, other: Self) {
        self.object_count += other.object_count;
        self.object_bytes += other.object_bytes;
        self.read_count += other.read_count;
        self.damaged.extend(other.damaged);
        self.strays.extend(other.strays);
    }
}

impl<D: Disk> Vault<D> {
    /// Checks objects and pins, with so many threads.
    pub(crate) fn check(&self, depth: Depth, threads: usize) -> Result<Check, StoreError> {
        let mut shards = Vec::new();
        for function in FUNCTIONS {
            let top = self.folder.join("objects").join(function.name());
            for entry in self.list_if_there(&top)? {
                shards.push((function, top.join(&entry.name), entry));
            }
        }
        let (next, total) = (AtomicUsize::new(0), Mutex::new(Check::default()));
        let work = || -> Result<(), StoreError> {
            while let Some((function, path, entry)) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
                let found = if entry.is_dir && entry.name.len() == 2 {
                    self.check_shard(*function, path, &entry.name, depth)?
                } else {
                    self.set_aside_stray(path)?;
                    Check { strays: vec![path.clone()], ..Check::default() }
                };
                total.lock().unwrap_or_else(PoisonError::into_inner).add(found);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                result = result.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            result
        })?;
        let mut check = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        check.damaged.sort_unstable();
        check.strays.sort_unstable();
        self.check_pins(&mut check)?;
        Ok(check)
    }

    fn check_shard(
        &self,
        function: DigestFunction,
        folder: &std::path::Path,
        shard: &std::ffi::OsStr,
        depth: Depth,
    ) -> Result<Check, StoreError> {
        let mut check = Check::default();
        for entry in self.disk.list(folder)? {
            let path = folder.join(&entry.name);
            let Some(digest) = digest_of(function, shard, &entry.name).filter(|_| !entry.is_dir) else {
                self.set_aside_stray(&path)?;
                check.strays.push(path);
                continue;
            };
            // It may have been collected meanwhile.
            let Some(stat) = self.disk.stat(&path)? else { continue };
            check.object_count += 1;
            check.object_bytes += stat.size;
            let must_read = depth == Depth::Full || stat.size == 0 || !self.epochs.trusts(stat.mark);
            if must_read {
                check.read_count += 1;
                if self.vet(&digest)? == Found::Damaged {
                    check.damaged.push(digest);
                }
            }
        }
        Ok(check)
    }

    pub(crate) fn set_aside_stray(&self, path: &std::path::Path) -> Result<(), FsError> {
        let aside = self.folder.join("quarantine").join(format!("stray-{:016x}", self.disk.random()));
        match self.disk.rename(Site::Quarantine, path, &aside) {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    fn check_pins(&self, check: &mut Check) -> Result<(), StoreError> {
        let folder = self.folder.join("pins");
        for entry in self.disk.list(&folder)? {
            let path = folder.join(&entry.name);
            if self.read_pin(&entry.name, &path)? == PinFile::Damaged {
                check.damaged_pins.push(path);
            }
        }
        Ok(())
    }
}
