//! The store itself.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cas_blob::{BlobStore, Descriptor, NamedBytes, OpenBlob, OpenBlobError, VerifiedBlob};
use cas_digest::{DigestFunction, HashingReader};
use cas_fs::FsError;

use crate::check::{Check, Depth};
use crate::disk::{Disk, HostDisk};
use crate::index::{Index, MemoRows};
use crate::objects::SMALL_BYTES;
use crate::pins::{Keep, Pin, PinFile};
use crate::retain::{self, Collected, Needs, Plan, Retention};
use crate::room::Amount;
use crate::sealer::Sealer;
use crate::vault::Vault;
use crate::{Durability, Quota, StoreError, format, network};

/// How a store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreOptions {
    /// What survives a loss of power.
    pub durability: Durability,
    /// Whether a network file system is good enough: its locks and its index are slow, and as right as its server is.
    pub allow_network: bool,
    /// Whether what is put becomes durable after a while, by a thread that waits for the disk.
    pub seals: bool,
    /// What rows of the index need. Without it nothing that a row may need is ever removed.
    pub needs: Option<Needs>,
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Number of objects.
    pub objects: u64,
    /// Lengths of their contents together.
    pub content_bytes: u64,
    /// Bytes that they take on the disk.
    pub object_bytes: u64,
    /// Objects that have to be read before they are trusted, because power may have been lost while they were written.
    pub suspects: u64,
    /// Number of trees written out.
    pub roots: u64,
    /// Bytes that they take on the disk; where files share blocks it is less.
    pub root_bytes: u64,
    /// Files and folders of both.
    pub inodes: u64,
    /// Second names of objects.
    pub aliases: u64,
    /// Results of actions.
    pub results: u64,
    /// Memos.
    pub memos: u64,
    /// Pins.
    pub pins: u64,
    /// Bytes that are free on the disk.
    pub free_bytes: u64,
    /// Limits.
    pub quota: Quota,
}

/// The local store of one user. Several processes may have it open, and threads share one.
#[derive(Debug)]
pub struct Store {
    pub(crate) folder: PathBuf,
    pub(crate) index: Arc<Index>,
    /// Whether a file may share an object's blocks, as far as is known.
    pub(crate) blocks_can_be_shared: AtomicBool,
    /// Whether times of its files may be those of another machine.
    pub(crate) is_on_network: bool,
    needs: Option<Needs>,
    _sealer: Option<Sealer>,
    /// Last, so that the session ends when everything else is closed.
    pub(crate) vault: Arc<Vault<HostDisk>>,
}

impl Store {
    /// Opens the store in `home`, and makes it when it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] when the folder cannot be made or written, [`StoreError::Newer`] when a newer program made
    /// it, [`StoreError::Index`] when the index fails, [`StoreError::Network`] for a network file system.
    pub fn open(home: &Path) -> Result<Self, StoreError> {
        Self::open_with(home, StoreOptions::default())
    }

    /// Opens the store in `home` as `options` say, and makes it when it is not there.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`].
    pub fn open_with(home: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let unusable = |source: FsError| StoreError::Unusable { path: home.to_owned(), source };
        cas_fs::create_dir_all(home).map_err(unusable)?;
        // Its paths are handed to sandboxes and other programs, which work in other folders.
        let home = &cas_fs::canonicalize(home).map_err(unusable)?;
        let network = network::name(home).map_err(unusable)?;
        if let Some(kind) = network
            && !options.allow_network
        {
            return Err(StoreError::Network { path: home.to_owned(), kind });
        }
        let folder = home.join("v1");
        let user = rustix::process::geteuid().as_raw();
        match cas_fs::metadata(&folder) {
            Ok(metadata) if metadata.uid() != user => {
                return Err(StoreError::Foreign { path: home.to_owned(), owner: metadata.uid(), user });
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(unusable(error)),
        }
        let vault = Arc::new(Vault::open(Arc::new(HostDisk), &folder, options.durability)?);
        let index = Arc::new(Index::open(&vault, network.is_some())?);
        if let Some(needs) = options.needs {
            let (weak_vault, index) = (Arc::downgrade(&vault), Arc::clone(&index));
            let make_room = move |missing: Amount| {
                let Some(vault) = weak_vault.upgrade() else { return Ok(()) };
                let plan = Plan { retention: Retention::default(), missing, most_bytes: None, is_dry: false };
                retain::collect(&vault, &index, needs, &plan).map(drop)
            };
            // The vault is new, so nobody has set it.
            let _ = vault.claims.make_room.set(Box::new(make_room));
        }
        let blocks_can_be_shared = AtomicBool::new(true);
        let sealer = (options.seals && options.durability != Durability::None).then(|| Sealer::start(&vault));
        let is_on_network = network.is_some();
        Ok(Self { folder, index, blocks_can_be_shared, is_on_network, needs: options.needs, _sealer: sealer, vault })
    }

    /// Removes what is not needed any more; with `most_bytes`, as much as it takes to get there. Running builds of other
    /// processes go on meanwhile and lose nothing that they use.
    ///
    /// # Errors
    ///
    /// [`StoreError::Pin`] and [`StoreError::PinIncomplete`] when nobody knows what a pin keeps, and others when something
    /// cannot be read: nothing is removed then. [`StoreError::Busy`] when another collection goes on for too long.
    pub fn collect(
        &self,
        retention: Retention,
        most_bytes: Option<u64>,
        is_dry: bool,
    ) -> Result<Collected, StoreError> {
        let Some(needs) = self.needs else { return Ok(Collected::default()) };
        let plan = Plan { retention, missing: Amount::default(), most_bytes, is_dry };
        retain::collect(&self.vault, &self.index, needs, &plan)
    }

    /// Looks for damage, and sets aside what is found.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be told.
    pub fn check(&self, depth: Depth) -> Result<Check, StoreError> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut check = self.vault.check(depth, threads)?;
        if !self.index.is_whole()? {
            self.index.begin_anew(&self.vault)?;
            check.is_index_damaged = true;
        }
        self.check_roots(depth, &mut check)?;
        // What a pin keeps is looked up last: what was damaged is gone by now.
        for entry in self.vault.disk.list(&self.folder.join("pins"))? {
            let path = self.folder.join("pins").join(&entry.name);
            let PinFile::Whole(pin) = self.vault.read_pin(&entry.name, &path)? else { continue };
            for keep in &pin.keeps {
                let missing = match keep {
                    Keep::Blob(blob) if self.contains(blob)? => continue,
                    Keep::Blob(blob) => *blob,
                    Keep::Tree(tree) => match self.missing_of_tree(tree)? {
                        None => continue,
                        Some(blob) => blob,
                    },
                };
                check.missing.push((pin.name.clone(), missing));
            }
        }
        Ok(check)
    }

    /// What the store holds.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn statistics(&self) -> Result<Statistics, StoreError> {
        let counted = self.vault.count()?;
        let (aliases, results, memos) = self.index.counts()?;
        Ok(Statistics {
            objects: counted.objects,
            content_bytes: counted.content_bytes,
            object_bytes: counted.objects_amount.bytes,
            suspects: counted.suspects,
            roots: counted.roots,
            root_bytes: counted.roots_amount.bytes,
            inodes: counted.objects_amount.inodes + counted.roots_amount.inodes,
            aliases,
            results,
            memos,
            pins: self.vault.disk.list(&self.folder.join("pins"))?.len() as u64,
            free_bytes: self.vault.disk.room(&self.folder)?.bytes,
            quota: self.vault.format.quota,
        })
    }

    /// Number of damaged objects that this process moved aside so far.
    #[must_use]
    pub fn quarantined(&self) -> u64 {
        self.vault.quarantined.load(Ordering::Relaxed)
    }

    /// Folder of the store.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sets the limits of the store. They hold for processes that open it from now on.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn set_quota(&self, quota: Quota) -> Result<(), StoreError> {
        let changed = format::Format { quota, ..self.vault.format.clone() };
        format::write(&*self.vault.disk, &self.folder, &self.vault.temporary("format"), &changed)?;
        self.vault.forget_usage()
    }

    /// Waits until everything that was put is on the disk, so that it is trusted after a loss of power without being read.
    ///
    /// # Errors
    ///
    /// [`StoreError::Fs`] when the disk failed; the store refuses to go on then ([`StoreError::Poisoned`]).
    pub fn seal(&self) -> Result<(), StoreError> {
        self.vault.seal()
    }

    /// Keeps blobs and trees under a name, durably, in place of what the name kept before.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when something of it is not here, [`StoreError::PinName`].
    pub fn pin(&self, name: &str, keeps: &[Keep]) -> Result<(), StoreError> {
        self.pin_while(name, keeps, None)
    }

    /// The same, for as long as there is something at `lifetime`.
    ///
    /// # Errors
    ///
    /// As for [`Store::pin`].
    pub fn pin_while(&self, name: &str, keeps: &[Keep], lifetime: Option<PathBuf>) -> Result<(), StoreError> {
        let mut names: BTreeMap<Descriptor, Descriptor> = BTreeMap::new();
        let mut note = |blob: &Descriptor| -> Result<(), StoreError> {
            if !self.contains(blob)? {
                return Err(StoreError::Missing(*blob));
            }
            // Second names are rows of the index, which may be lost.
            if blob.size > 0
                && !self.vault.contains(blob)?
                && let Some(primary) = self.index.alias(blob)?
            {
                names.insert(*blob, primary);
            }
            Ok(())
        };
        for keep in keeps {
            note(keep.blob())?;
            if let Keep::Tree(tree) = keep {
                for (_, node) in self.load_tree(tree)?.walk() {
                    if let cas_tree::Node::File { blob, .. } = node {
                        note(blob)?;
                    }
                }
            }
        }
        // A pin holds after a loss of power, so what it holds must.
        self.vault.seal()?;
        let names = names.into_iter().collect();
        self.vault.pin(&Pin { name: name.to_owned(), lifetime, keeps: keeps.to_vec(), names })
    }

    /// Ends a pin; `false` when there is none of this name.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        self.vault.unpin(name)
    }

    /// Whether there is a pin of this name.
    ///
    /// # Errors
    ///
    /// [`StoreError::PinName`]
    pub fn has_pin(&self, name: &str) -> Result<bool, StoreError> {
        self.vault.has_pin(name)
    }

    /// All pins, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`StoreError::Pin`] for one that cannot be read.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.vault.pins()
    }

    /// Folder of this process alone, on the store's file system; removed when the store is closed.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.vault.session.path()
    }

    /// Lets `remove` take away folders of processes that were killed, as far as this process could not do so when it opened the
    /// store: files of other users may be in them. `remove` is given what may be gone already.
    ///
    /// # Errors
    ///
    /// The first one of `remove`; what stays is met again by whoever opens the store next.
    pub fn remove_left<E>(&self, remove: impl FnMut(&Path) -> Result<(), E>) -> Result<(), E> {
        self.vault.session.remove_left(remove)
    }

    /// Folder of what is remembered of workspaces' files.
    #[must_use]
    pub fn scans(&self) -> PathBuf {
        self.folder.join("scan")
    }

    /// Folder of the watchers of workspaces.
    #[must_use]
    pub fn watchers(&self) -> PathBuf {
        self.folder.join("watch")
    }

    /// Folder of the logs of steps.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// Stores bytes and names them with `function`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is stored then.
    pub fn put_bytes(&self, function: DigestFunction, bytes: &[u8]) -> Result<Descriptor, StoreError> {
        self.vault.put_bytes(function, bytes)
    }

    /// Stores bytes that have their name already.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is stored then.
    pub fn put_named<B: AsRef<[u8]>>(&self, named: &NamedBytes<B>) -> Result<(), StoreError> {
        self.vault.put_named(named)
    }

    /// Stores all that `source` gives, in bounded memory, and names it with `function`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is stored then.
    pub fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, StoreError> {
        self.vault.put(function, source)
    }

    /// Stores all that `source` gives, names it with `function`, and in the same pass with `second` too.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is stored then.
    pub fn put_with_alias(
        &self,
        function: DigestFunction,
        second: DigestFunction,
        source: &mut dyn Read,
    ) -> Result<(Descriptor, Descriptor), StoreError> {
        let mut reader = HashingReader::new(source, &[second]);
        let primary = self.vault.put(function, &mut reader)?;
        let (digests, size) = reader.finish();
        let alias = Descriptor { digest: digests[0], size };
        self.add_name(&alias, &primary)?;
        Ok((primary, alias))
    }

    /// Stores bytes that are announced, and returns the proof that they are those.
    ///
    /// # Errors
    ///
    /// [`StoreError::Verify`] when they are others; nothing is stored then.
    pub fn put_expected(&self, source: &mut dyn Read, expected: &Descriptor) -> Result<VerifiedBlob, StoreError> {
        self.vault.put_expected(source, expected)
    }

    /// Records that `name` names the same bytes as `primary`. The caller has hashed them with both functions.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn add_name(&self, name: &Descriptor, primary: &Descriptor) -> Result<(), StoreError> {
        if name == primary || name.size == 0 { Ok(()) } else { self.index.put_alias(name, primary) }
    }

    /// The name of a stored blob under `function`: its own, a known second one, or one computed now and kept.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when the blob is not here.
    pub fn name_with(&self, function: DigestFunction, blob: &Descriptor) -> Result<Descriptor, StoreError> {
        if blob.digest.function() == function {
            return Ok(*blob);
        }
        let memo_kind = format!("name:{function}");
        let key = blob.to_string();
        if let Some(value) = self.index.memo(&memo_kind, key.as_bytes())?
            && let Ok(text) = std::str::from_utf8(&value)
            && let Ok(digest) = text.parse()
        {
            return Ok(Descriptor { digest, size: blob.size });
        }
        let mut reader = HashingReader::new(self.open_blob(blob)?, &[function]);
        io::copy(&mut reader, &mut io::sink()).map_err(|source| StoreError::Read { blob: *blob, source })?;
        let name = Descriptor { digest: reader.finish().0[0], size: blob.size };
        self.add_name(&name, blob)?;
        self.index.put_memo(&memo_kind, key.as_bytes(), name.digest.to_string().as_bytes())?;
        Ok(name)
    }

    /// Whether the blob is here, under its own or a second name.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be told.
    pub fn contains(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        if blob.size == 0 {
            return Ok(*blob == Descriptor::empty(blob.digest.function()));
        }
        if self.vault.contains(blob)? {
            return Ok(true);
        }
        match self.index.alias(blob)? {
            Some(primary) => self.vault.contains(&primary),
            None => Ok(false),
        }
    }

    /// For each of `blobs` whether it is here, under its own or a second name; faster than asking for one after the other.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be told.
    pub fn contain(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, StoreError> {
        let mut found = self.vault.contain(blobs)?;
        for (found, blob) in found.iter_mut().zip(blobs).filter(|(found, _)| !**found) {
            *found = self.contains(blob)?;
        }
        Ok(found)
    }

    /// Path of the file that holds the blob's bytes, which were checked in this boot of the machine. For reading alone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`]
    pub fn object_path(&self, blob: &Descriptor) -> Result<PathBuf, StoreError> {
        self.checked_path(blob)?.ok_or(StoreError::Missing(*blob))
    }

    pub(crate) fn checked_path(&self, blob: &Descriptor) -> Result<Option<PathBuf>, StoreError> {
        if let Some(path) = self.vault.checked_path(blob)? {
            return Ok(Some(path));
        }
        match self.index.alias(blob)? {
            Some(primary) => self.vault.checked_path(&primary),
            None => Ok(None),
        }
    }

    /// Reads a whole blob of at most `limit_bytes`, verified.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`], [`StoreError::TooLong`], or [`StoreError::Read`].
    pub fn load(&self, blob: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>, StoreError> {
        if blob.size > limit_bytes {
            return Err(StoreError::TooLong { blob: *blob, limit_bytes });
        }
        if (1..=SMALL_BYTES as u64).contains(&blob.size)
            && let Some(bytes) = self.vault.read_small(blob)?
        {
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        self.open_blob(blob)?.read_to_end(&mut bytes).map_err(|source| StoreError::Read { blob: *blob, source })?;
        Ok(bytes)
    }

    /// What the pure function `kind` gave for `key`, if it is remembered.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn memo(&self, kind: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.index.memo(kind, key)
    }

    /// Everything remembered of `kind`: keys and values, in the order of the keys.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn memos(&self, kind: &str) -> Result<MemoRows, StoreError> {
        self.index.memos(kind)
    }

    /// Remembers what the pure function `kind` gave for `key`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn put_memo(&self, kind: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.index.put_memo(kind, key, value)
    }

    /// Forgets what the function `kind` gave for `key`; whether it was remembered. What it names leaves with the next collection, unless
    /// something else needs it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn remove_memo(&self, kind: &str, key: &[u8]) -> Result<bool, StoreError> {
        self.index.remove_memo(kind, key)
    }
}

impl OpenBlob for Store {
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError> {
        let failed = |error: StoreError| match error {
            StoreError::Fs(error) => OpenBlobError::Io { blob: *blob, source: error.source },
            error => OpenBlobError::Io { blob: *blob, source: io::Error::other(error) },
        };
        if blob.size == 0 {
            let known = *blob == Descriptor::empty(blob.digest.function());
            return if known { Ok(Box::new(io::empty())) } else { Err(OpenBlobError::Missing(*blob)) };
        }
        if let Some(content) = self.vault.open_object(blob).map_err(failed)? {
            return Ok(content);
        }
        if let Some(primary) = self.index.alias(blob).map_err(failed)?
            && let Some(content) = self.vault.open_object(&primary).map_err(failed)?
        {
            return Ok(content);
        }
        Err(OpenBlobError::Missing(*blob))
    }
}

impl BlobStore for Store {
    type Error = StoreError;

    fn has(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        self.contains(blob)
    }

    fn has_many(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, StoreError> {
        self.contain(blobs)
    }

    fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, StoreError> {
        self.vault.put(function, source)
    }

    fn put_expected(&self, source: &mut dyn Read, expected: &Descriptor) -> Result<VerifiedBlob, StoreError> {
        self.vault.put_expected(source, expected)
    }
}
