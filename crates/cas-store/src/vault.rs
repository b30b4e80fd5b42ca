//! The part of the store that must not lose or forge a byte: its folders, sessions, epochs and leases together.
//!
//! Generic over the disk, so that the crash simulator runs the very code that ships. What is done with it has its own
//! modules: `objects`, `pins`, `collect`, `check`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cas_digest::{Digest, DigestFunction};
use cas_fs::FsError;

use crate::disk::{Disk, LockMode, lock};
use crate::epoch::Epochs;
use crate::lease::{Leases, make_batch_file};
use crate::objects::{FUNCTIONS, path_below};
use crate::room::Claims;
use crate::session::Session;
use crate::{Durability, StoreError, format, reserve};

/// Pauses to wait for another process that makes or converts the store.
const PATIENCE: u32 = 15_000;

/// Folders of a store; `objects` has more below.
const FOLDERS: [&str; 9] = ["objects", "roots", "pins", "epoch", "quarantine", "reserve", "tmp", "logs", "scan"];

/// The objects of a store, as one process has them open.
#[derive(Debug)]
pub(crate) struct Vault<D: Disk> {
    pub(crate) disk: Arc<D>,
    pub(crate) folder: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) epochs: Epochs<D>,
    pub(crate) leases: Leases<D>,
    pub(crate) session: Session<D>,
    pub(crate) format: format::Format,
    /// Set by a flush that failed: what is in the page cache may not be what is on the disk.
    poisoned: AtomicBool,
    pub(crate) unnamed_works: AtomicBool,
    pub(crate) claims: Claims,
    /// When the session started, in seconds.
    pub(crate) started: i64,
    count: AtomicU64,
    /// Number of objects that were moved aside.
    pub(crate) quarantined: AtomicU64,
}

impl<D: Disk> Vault<D> {
    /// Opens the store in `folder`, and makes it when it is not there.
    ///
    /// On a full disk the reserve is given back, so that the store can be opened to be cleared.
    pub(crate) fn open(disk: Arc<D>, folder: &Path, durability: Durability) -> Result<Self, StoreError> {
        match Self::try_open(&disk, folder, durability) {
            Err(error) if error.is_full() && reserve::spend(&*disk, folder) => {
                Self::try_open(&disk, folder, durability)
            }
            result => result,
        }
    }

    fn try_open(disk: &Arc<D>, folder: &Path, durability: Durability) -> Result<Self, StoreError> {
        let unusable = |source: FsError| StoreError::Unusable { path: folder.to_owned(), source };
        let format = match format::read(&**disk, folder)? {
            Some(format) => format,
            None => Self::make(disk, folder)?,
        };
        // Folders that somebody emptied or removed are made again.
        for name in FOLDERS {
            disk.create_folder(&folder.join(name)).map_err(unusable)?;
        }
        let session = Session::start(Arc::clone(disk), folder).map_err(unusable)?;
        let epochs = Epochs::open(Arc::clone(disk), &folder.join("epoch"), &folder.join("tmp"), session.path())
            .map_err(unusable)?;
        let leases = Leases::open(Arc::clone(disk), session.path(), folder).map_err(unusable)?;
        let started = disk.now();
        Ok(Self {
            disk: Arc::clone(disk),
            folder: folder.to_owned(),
            durability,
            epochs,
            leases,
            session,
            format,
            poisoned: AtomicBool::new(false),
            unnamed_works: AtomicBool::new(true),
            claims: Claims::default(),
            started,
            count: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
        })
    }

    /// Makes a store, or turns one of an older version into one of this.
    fn make(disk: &Arc<D>, folder: &Path) -> Result<format::Format, StoreError> {
        let unusable = |source: FsError| StoreError::Unusable { path: folder.to_owned(), source };
        disk.create_folder(folder).map_err(unusable)?;
        let path = folder.join("format.lock");
        let Some(_lock) = lock(&**disk, &path, LockMode::Exclusive, PATIENCE).map_err(unusable)? else {
            return Err(StoreError::Busy { path });
        };
        // Another process may have been faster.
        if let Some(format) = format::read(&**disk, folder)? {
            return Ok(format);
        }
        for name in FOLDERS {
            disk.create_folder(&folder.join(name)).map_err(unusable)?;
        }
        for function in FUNCTIONS {
            let top = folder.join("objects").join(function.name());
            disk.create_folder(&top).map_err(unusable)?;
            for byte in 0..=255u8 {
                disk.create_folder(&top.join(format!("{byte:02x}"))).map_err(unusable)?;
            }
        }
        let own = |error| match error {
            StoreError::Fs(source) => unusable(source),
            error => error,
        };
        reserve::fill(&**disk, folder).map_err(own)?;
        make_batch_file(&**disk, folder).map_err(unusable)?;
        format::create(&**disk, folder).map_err(own)
    }

    /// Folder of the objects that are named with a function.
    pub(crate) fn function_folder(&self, function: DigestFunction) -> PathBuf {
        self.folder.join("objects").join(function.name())
    }

    /// Path of an object.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.function_folder(digest.function()).join(path_below(digest))
    }

    /// A name in the session's folder that nobody has used.
    pub(crate) fn temporary(&self, prefix: &str) -> PathBuf {
        self.session.path().join(format!("{prefix}-{}", self.count.fetch_add(1, Ordering::Relaxed)))
    }

    /// Fails when a flush failed before.
    pub(crate) fn check_poison(&self) -> Result<(), StoreError> {
        if self.poisoned.load(Ordering::Acquire) { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// Notes a failed flush, and passes its error on.
    pub(crate) fn poison(&self, error: FsError) -> StoreError {
        self.poisoned.store(true, Ordering::Release);
        error.into()
    }

    /// Flushes what was put, so that it is trusted after a loss of power.
    pub(crate) fn seal(&self) -> Result<(), StoreError> {
        self.check_poison()?;
        self.epochs.seal().map_err(|error| self.flush_failed(error))
    }

    /// Notes an error of flushing; one that came before or after it, as for want of room, leaves the store usable.
    pub(crate) fn flush_failed(&self, error: FsError) -> StoreError {
        if error.operation == cas_fs::Operation::Sync { self.poison(error) } else { error.into() }
    }
}

impl<D: Disk> Drop for Vault<D> {
    fn drop(&mut self) {
        // What stays counted is found by the next count; until then the store seems fuller than it is.
        let _ = self.give_back();
    }
}
