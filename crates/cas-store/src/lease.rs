//! Leases: what running sessions use is not collected.
//!
//! A session writes down the name of an object **before** it looks for it; the collector publishes the names of what it is
//! about to remove **before** it reads the leases. Whatever the order of the two, one sees the other: either the collector
//! spares the object, or the session sees it condemned, waits for the end of the batch and then finds it gone. Every
//! interleaving of the two is tried by a test. No reader holds a lock.
//!
//! Format: docs/formats/store.md, "Leases" and "Collection".

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cas_digest::{Digest, DigestFunction};
use cas_fs::{FsError, Operation};

use crate::disk::{Access, Disk, LockMode, read_full, write_all};

/// Bytes of one record.
pub(crate) const RECORD_BYTES: usize = 32;
/// Most names in a batch of the collector: nobody waits for longer than their removal takes.
pub(crate) const BATCH: usize = 512;
const HEADER_BYTES: usize = 32;

/// What can be leased: a kind and the first 31 bytes of a digest, which tell everything in a store apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record([u8; RECORD_BYTES]);

impl Hash for Record {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Digests are spread evenly: eight bytes of one are as good as all.
        state.write_u64(u64::from_le_bytes(self.0[1..9].try_into().expect("eight bytes")));
    }
}

impl Record {
    /// An object.
    pub(crate) fn object(digest: &Digest) -> Self {
        let kind = match digest.function() {
            DigestFunction::Blake3 => 1,
            DigestFunction::Sha256 => 2,
            DigestFunction::Sha512 => 3,
            DigestFunction::Sha1 => 4,
        };
        Self::new(kind, digest)
    }

    /// A tree written out.
    pub(crate) fn root(digest: &Digest) -> Self {
        let mut record = Self::object(digest);
        record.0[0] |= 0x80;
        record
    }

    fn new(kind: u8, digest: &Digest) -> Self {
        let mut record = [0; RECORD_BYTES];
        record[0] = kind;
        let value = digest.value();
        let length = value.len().min(RECORD_BYTES - 1);
        record[1..=length].copy_from_slice(&value[..length]);
        Self(record)
    }

    /// What `bytes` of a lease file hold; a record that is cut is none.
    pub(crate) fn decode_all(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.as_chunks::<RECORD_BYTES>().0.iter().map(|chunk| Self(*chunk)).filter(|record| record.0[0] != 0)
    }
}

/// The batch that the collector removes, as the file `collect` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Batch {
    /// Grows with each batch.
    pub(crate) generation: u64,
    /// Empty when none is being removed.
    pub(crate) records: Vec<Record>,
}

impl Batch {
    /// Generation, number of names, 16 bytes of the BLAKE3 of what follows and precedes; then the names.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.records.len() * RECORD_BYTES);
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend((self.records.len() as u64).to_le_bytes());
        bytes.extend([0; 16]);
        for record in &self.records {
            bytes.extend(record.0);
        }
        put_check(&mut bytes);
        bytes
    }

    /// The opposite; `None` for what is torn. An empty file is the time before the first batch.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let header = bytes.get(..HEADER_BYTES)?;
        let generation = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
        let count = usize::try_from(u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"))).ok()?;
        if count > BATCH {
            return None;
        }
        let all = bytes.get(..HEADER_BYTES + count * RECORD_BYTES)?;
        if check(all) != header[16..] {
            return None;
        }
        Some(Self { generation, records: Record::decode_all(&all[HEADER_BYTES..]).collect() })
    }
}

fn check(bytes: &[u8]) -> [u8; 16] {
    let mut input = bytes.to_vec();
    input[16..HEADER_BYTES].fill(0);
    Digest::of(DigestFunction::Blake3, &input).value()[..16].try_into().expect("a digest is longer")
}

/// Puts the check of a batch where it belongs; bytes too few for one are left alone.
pub(crate) fn put_check(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_BYTES {
        let check = check(bytes);
        bytes[16..HEADER_BYTES].copy_from_slice(&check);
    }
}

/// Makes the file of the batch, as long as it ever gets: on a full disk it can still be written over.
pub(crate) fn make_batch_file<D: Disk>(disk: &D, folder: &Path) -> Result<(), FsError> {
    let path = folder.join("collect");
    let mut bytes = Batch::default().encode();
    bytes.resize(HEADER_BYTES + BATCH * RECORD_BYTES, 0);
    let file = disk.open(&path, Access::Write)?.expect("a missing file is made");
    write_all(disk, &file, 0, &bytes).map_err(|error| FsError::new(Operation::Write, &path, error))
}

#[derive(Debug, Default)]
struct Written {
    records: HashSet<Record>,
    /// Bytes in the session's file.
    length: u64,
    /// The last batch seen: its generation and names.
    generation: u64,
    condemned: HashSet<Record>,
}

/// The leases of this session.
#[derive(Debug)]
pub(crate) struct Leases<D: Disk> {
    disk: Arc<D>,
    path: PathBuf,
    file: D::File,
    /// What the collector is about to remove.
    collect_path: PathBuf,
    collect: D::File,
    collect_lock: PathBuf,
    written: Mutex<Written>,
}

impl<D: Disk> Leases<D> {
    pub(crate) fn open(disk: Arc<D>, session: &Path, folder: &Path) -> Result<Self, FsError> {
        let path = session.join("leases");
        let file = disk.open(&path, Access::New)?.expect("a new file is made or an error");
        let collect_path = folder.join("collect");
        let collect = disk.open(&collect_path, Access::Write)?.expect("a missing file is made");
        let collect_lock = folder.join("collect.lock");
        Ok(Self { disk, path, file, collect_path, collect, collect_lock, written: Mutex::default() })
    }

    /// Takes leases. From the return on, what of this is in the store stays there until the session ends; what is not
    /// there may be looked for.
    pub(crate) fn take(&self, wanted: &[Record]) -> Result<(), FsError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<Record> = wanted.iter().filter(|record| !written.records.contains(record)).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = new.iter().flat_map(|record| record.0).collect();
        write_all(&*self.disk, &self.file, written.length, &bytes)
            .map_err(|error| FsError::new(Operation::Write, &self.path, error))?;
        written.length += bytes.len() as u64;
        // Only now: another thread that finds it in the set relies on its being in the file.
        self.wait_for_batch(&mut written, &new)?;
        written.records.extend(new);
        Ok(())
    }

    /// Waits until no batch that holds one of `records` is being removed.
    fn wait_for_batch(&self, written: &mut Written, records: &[Record]) -> Result<(), FsError> {
        loop {
            let at = |error| FsError::new(Operation::Read, &self.collect_path, error);
            let mut header = [0; HEADER_BYTES];
            let count = read_full(&*self.disk, &self.collect, 0, &mut header).map_err(at)?;
            if count == 0 {
                return Ok(());
            }
            let generation = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
            if count < HEADER_BYTES || generation != written.generation {
                let mut bytes = vec![0; HEADER_BYTES + BATCH * RECORD_BYTES];
                let count = read_full(&*self.disk, &self.collect, 0, &mut bytes).map_err(at)?;
                match Batch::decode(&bytes[..count]) {
                    Some(batch) => {
                        written.generation = batch.generation;
                        written.condemned = batch.records.into_iter().collect();
                    }
                    // Read while it was written, or left torn by a collector that died.
                    None if self.collector_runs()? => {
                        self.disk.pause();
                        continue;
                    }
                    None => return Ok(()),
                }
            }
            if !records.iter().any(|record| written.condemned.contains(record)) || !self.collector_runs()? {
                return Ok(());
            }
            self.disk.pause();
        }
    }

    fn collector_runs(&self) -> Result<bool, FsError> {
        let path = &self.collect_lock;
        let file = self.disk.open(path, Access::Write)?.expect("a missing file is made");
        let free =
            self.disk.try_lock(&file, LockMode::Shared).map_err(|error| FsError::new(Operation::Open, path, error))?;
        Ok(!free)
    }
}
