//! Removing objects and roots beside writers and readers of other processes.
//!
//! What may go is decided by whoever calls (`retain`); here is how it goes without anybody losing what they use. In batches:
//! publish the names, then read the leases of all sessions, then remove what nobody leased and nothing touched since it was
//! listed. Why that is enough is told in `lease`. While a collection runs, ended sessions keep their leases (`session`), so
//! that what they recorded after the marking is spared too.
//!
//! A collector that dies leaves objects as they are, removed or not; its lock goes with it, and so does its batch.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use cas_digest::Digest;
use cas_fs::{FsError, Operation};

use crate::StoreError;
use crate::disk::{Access, Disk, LockMode, Stat, lock, read_full, write_all};
use crate::lease::{BATCH, Batch, Record};
use crate::objects::{FUNCTIONS, path_below};
use crate::roots::root_name;
use crate::session::{dead_sessions, no_start};
use crate::vault::Vault;

/// Pauses to wait for another collection, or for sessions that start and end.
const PATIENCE: u32 = 5_000;

/// What kind of thing is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An object.
    Object,
    /// A tree written out.
    Root,
}

/// Something to remove, as it was when it was listed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
    pub(crate) stat: Stat,
}

/// What was removed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removed<'v> {
    pub(crate) removed: Vec<&'v Victim>,
    /// How many were leased or touched in the meantime.
    pub(crate) spared: u64,
}

impl Removed<'_> {
    /// Both together.
    pub(crate) fn extend(&mut self, other: Self) {
        self.removed.extend(other.removed);
        self.spared += other.spared;
    }
}

/// A running collection: one at a time in a store.
#[derive(Debug)]
pub(crate) struct Collection<'a, D: Disk> {
    vault: &'a Vault<D>,
    path: PathBuf,
    file: D::File,
    generation: u64,
    leased: HashSet<Record>,
    /// How far each session's file has been read.
    offsets: HashMap<PathBuf, u64>,
    /// Sessions that had ended when it began.
    dead: Vec<PathBuf>,
    _lock: D::File,
}

impl<D: Disk> Vault<D> {
    /// Begins a collection. Everything that is leased from now on is spared; the caller marks what else is to stay.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] when another one goes on for too long.
    pub(crate) fn begin_collection(&self) -> Result<Collection<'_, D>, StoreError> {
        let lock_path = self.folder.join("collect.lock");
        let Some(lock) = lock(&*self.disk, &lock_path, LockMode::Exclusive, PATIENCE)? else {
            return Err(StoreError::Busy { path: lock_path });
        };
        let path = self.folder.join("collect");
        let file = self.disk.open(&path, Access::Write)?.expect("a missing file is made");
        let mut bytes = vec![0; 32 + BATCH * 32];
        let count = read_full(&*self.disk, &file, 0, &mut bytes)
            .map_err(|error| FsError::new(Operation::Read, &path, error))?;
        // What a dead collector left torn is followed by a number that nobody has seen.
        let generation =
            Batch::decode(&bytes[..count]).map_or_else(|| self.disk.random() >> 1, |batch| batch.generation);
        let dead = {
            // One that is just starting has its folder before it has its lock.
            let _nobody_starts = no_start(&*self.disk, &self.folder)?;
            dead_sessions(&*self.disk, &self.folder.join("tmp"))?
        };
        Ok(Collection {
            vault: self,
            path,
            file,
            generation,
            leased: HashSet::new(),
            offsets: HashMap::new(),
            dead,
            _lock: lock,
        })
    }
}

impl<D: Disk> Collection<'_, D> {
    /// Removes what nobody uses of `victims`.
    pub(crate) fn remove<'v>(&mut self, victims: &[&'v Victim]) -> Result<Removed<'v>, StoreError> {
        let mut removed = Removed::default();
        for batch in victims.chunks(BATCH) {
            let records = batch
                .iter()
                .map(|victim| match victim.kind {
                    Kind::Object => Record::object(&victim.digest),
                    Kind::Root => Record::root(&victim.digest),
                })
                .collect();
            let records = self.publish(records)?;
            self.read_leases()?;
            let free = batch.iter().zip(&records).filter(|(_, record)| !self.leased.contains(record));
            let free = free.map(|(victim, _)| *victim);
            let before = removed.removed.len();
            self.remove_free(free, &mut removed.removed)?;
            removed.spared += (batch.len() - (removed.removed.len() - before)) as u64;
        }
        self.publish(Vec::new())?;
        Ok(removed)
    }

    /// Ends the collection, and clears away sessions that had ended before it.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        for path in &self.dead {
            match self.vault.disk.remove_tree(path) {
                // Files of other users, for which [`Session::remove_left`](crate::session::Session::remove_left) is there.
                Err(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes what nobody leased, unless it was put again since: then it belongs to somebody, even if his session has ended.
    fn remove_free<'v>(
        &self,
        victims: impl Iterator<Item = &'v Victim>,
        removed: &mut Vec<&'v Victim>,
    ) -> Result<(), StoreError> {
        let vault = self.vault;
        let (objects, roots): (Vec<&Victim>, Vec<&Victim>) = victims.partition(|victim| victim.kind == Kind::Object);
        for victim in roots {
            let path = vault.folder.join("roots").join(root_name(&victim.digest));
            if vault.disk.stat(&path)?.is_some_and(|stat| stat.is_same(&victim.stat)) {
                vault.remove_root(&path)?;
                removed.push(victim);
            }
        }
        for function in FUNCTIONS {
            let of_it = |victim: &&&Victim| victim.digest.function() == function;
            let objects: Vec<&Victim> = objects.iter().filter(of_it).copied().collect();
            if objects.is_empty() {
                continue;
            }
            let files: Vec<(String, Stat)> =
                objects.iter().map(|victim| (path_below(&victim.digest), victim.stat)).collect();
            let gone = vault.disk.remove_each(&vault.function_folder(function), &files)?;
            removed.extend(objects.into_iter().zip(gone).filter(|(_, gone)| *gone).map(|(victim, _)| victim));
        }
        Ok(())
    }

    /// Tells all sessions what is about to be removed.
    fn publish(&mut self, records: Vec<Record>) -> Result<Vec<Record>, StoreError> {
        self.generation += 1;
        let batch = Batch { generation: self.generation, records };
        write_all(&*self.vault.disk, &self.file, 0, &batch.encode())
            .map_err(|error| FsError::new(Operation::Write, &self.path, error))?;
        Ok(batch.records)
    }

    /// Adds what was leased since the last time, by running sessions and by those that ended meanwhile.
    fn read_leases(&mut self) -> Result<(), StoreError> {
        let tmp = self.vault.folder.join("tmp");
        for entry in self.vault.disk.list(&tmp)? {
            let path = tmp.join(&entry.name).join("leases");
            if self.dead.iter().any(|dead| path.starts_with(dead)) {
                continue;
            }
            let Some(file) = self.vault.disk.open(&path, Access::Read)? else { continue };
            let offset = self.offsets.entry(path.clone()).or_default();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = read_full(&*self.vault.disk, &file, *offset, &mut buffer)
                    .map_err(|error| FsError::new(Operation::Read, &path, error))?;
                let whole = count - count % crate::lease::RECORD_BYTES;
                self.leased.extend(Record::decode_all(&buffer[..whole]));
                *offset += whole as u64;
                if count < buffer.len() {
                    break;
                }
            }
        }
        Ok(())
    }
}
