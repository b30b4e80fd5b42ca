//! Blobs on disk: read-only files, `objects/<function>/<2 hex>/<rest>`.
//!
//! An object is whole or absent: bytes go to a file without a name, are hashed on the way, and get their name by `linkat`.
//! What a loss of power may have torn is suspect (`epoch`), and is hashed before anybody is told that it is there. Whoever
//! reads hashes what he reads; damage found is moved aside and is a miss from then on.

use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cas_blob::{Descriptor, NamedBytes, OpenBlobError, VerifiedBlob, VerifyError, copy_verified};
use cas_digest::{Digest, DigestFunction, Hasher};
use cas_fs::{DirEntry, FsError, Operation};

use crate::disk::{Access, Disk, LockMode, Site, Stat, is_no_file, lock, read_full, write_all};
use crate::epoch::DURABLE;
use crate::lease::Record;
use crate::room::Amount;
use crate::vault::Vault;
use crate::{Durability, StoreError};

/// Blobs up to this size are read and checked whole: before anything is written, so that what is there already costs no
/// write, and before anything is handed out, so that a damaged one is a miss and not an error halfway.
pub(crate) const SMALL_BYTES: usize = 256 * 1024;

/// A use is noted again after so long.
pub(crate) const USE_RESOLUTION_SECONDS: i64 = 3600;

/// Pauses to wait for others who publish, where that needs a lock.
const PATIENCE: u32 = 5_000;

/// Room for content whose length nobody knows is claimed in such pieces.
const CLAIM_BYTES: u64 = 1 << 20;

/// So many folders are listed before what is in them is looked at: bounds the memory of a walk through a large store.
const SHARDS_AT_ONCE: usize = 32;

/// Functions that objects are named with. SHA-1 names are second names alone.
pub(crate) const FUNCTIONS: [DigestFunction; 3] =
    [DigestFunction::Blake3, DigestFunction::Sha256, DigestFunction::Sha512];

/// What was found where an object should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its bytes are those of its name.
    Whole,
    /// They were not, and it was moved aside.
    Damaged,
    /// There was nothing.
    Nothing,
}

/// What an opened object gives: a small one is in memory and verified, a large one is verified while it is read.
pub(crate) type Content = Box<dyn Read + Send>;

impl<D: Disk> Vault<D> {
    /// Whether the object is here and whole as far as can be known without reading: what this answers stays true until the
    /// session ends.
    pub(crate) fn contains(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        self.leases.take(&[Record::object(&blob.digest)])?;
        self.is_here(blob)
    }

    /// For each of `blobs` whether it is here.
    pub(crate) fn contain(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, StoreError> {
        let records: Vec<Record> = blobs.iter().map(|blob| Record::object(&blob.digest)).collect();
        self.leases.take(&records)?;
        let mut found = vec![false; blobs.len()];
        for function in FUNCTIONS {
            let asked: Vec<usize> =
                (0..blobs.len()).filter(|position| blobs[*position].digest.function() == function).collect();
            if asked.is_empty() {
                continue;
            }
            let paths: Vec<String> = asked.iter().map(|position| path_below(&blobs[*position].digest)).collect();
            let stats = self.disk.stat_each(&self.function_folder(function), &paths)?;
            for (position, stat) in asked.into_iter().zip(stats) {
                found[position] = match stat {
                    Some(stat) => self.is_whole(&blobs[position], &stat)?,
                    None => false,
                };
            }
        }
        Ok(found)
    }

    /// The same with the lease in hand.
    fn is_here(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        match self.disk.stat(&self.path(&blob.digest))? {
            Some(stat) => self.is_whole(blob, &stat),
            None => Ok(false),
        }
    }

    /// Whether what stands where the object should be is the object.
    fn is_whole(&self, blob: &Descriptor, stat: &Stat) -> Result<bool, StoreError> {
        if stat.size != blob.size {
            // Either the object is cut, or the caller asks for a size that never was: only bytes can tell.
            self.vet(&blob.digest)?;
            return Ok(false);
        }
        let is_whole = self.epochs.trusts(stat.mark) || self.vet(&blob.digest)? == Found::Whole;
        if is_whole {
            self.note_use(stat, || self.path(&blob.digest));
        }
        Ok(is_whole)
    }

    /// Notes that something is used, unless that was done lately.
    pub(crate) fn note_use(&self, stat: &Stat, path: impl FnOnce() -> PathBuf) {
        if stat.used.saturating_add(USE_RESOLUTION_SECONDS) < self.started {
            // A use that is not noted makes it leave earlier than it should, which costs making it again.
            let _ = self.disk.touch(&path(), self.disk.now());
        }
    }

    /// Path of an object that was read in this boot of the machine: for those who read it without checking.
    pub(crate) fn checked_path(&self, blob: &Descriptor) -> Result<Option<PathBuf>, StoreError> {
        if !self.contains(blob)? {
            return Ok(None);
        }
        let path = self.path(&blob.digest);
        let Some(stat) = self.disk.stat(&path)? else { return Ok(None) };
        if !self.epochs.is_of_this_boot(stat.mark) && self.vet_anew(&blob.digest, true)? != Found::Whole {
            return Ok(None);
        }
        Ok(Some(path))
    }

    /// Bytes of a small object without a lease: for whoever decides what may be removed, and holds what it reads for a
    /// moment alone.
    pub(crate) fn peek(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        if blob.size == 0 {
            return Ok(Some(Vec::new()));
        }
        let path = self.path(&blob.digest);
        let Some(file) = self.disk.open(&path, Access::Read)? else { return Ok(None) };
        self.read_whole(&file, &path, blob)
    }

    /// Bytes of an object, or nothing when they are not what they should be.
    fn read_whole(&self, file: &D::File, path: &Path, blob: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        let read = |error| FsError::new(Operation::Read, path, error);
        // The size may be what a damaged row says: no more memory is taken than the file is long.
        if self.disk.stat_file(file).map_err(read)?.size != blob.size {
            return Ok(None);
        }
        let size = usize::try_from(blob.size).map_err(|_| read(io::ErrorKind::FileTooLarge.into()))?;
        // One more byte than it should have shows a longer file.
        let mut bytes = vec![0; size + 1];
        let count = read_full(&*self.disk, file, 0, &mut bytes).map_err(read)?;
        bytes.truncate(count);
        Ok((Descriptor::of(blob.digest.function(), &bytes) == *blob).then_some(bytes))
    }

    /// Bytes of an object up to [`SMALL_BYTES`]; a damaged one, and one of another size, is moved aside and a miss.
    pub(crate) fn read_small(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        self.leases.take(&[Record::object(&blob.digest)])?;
        let path = self.path(&blob.digest);
        let Ok(file) = self.open_file(&blob.digest)? else { return Ok(None) };
        let bytes = self.read_whole(&file, &path, blob)?;
        if bytes.is_none() {
            self.vet(&blob.digest)?;
        }
        Ok(bytes)
    }

    /// The file of an object; or what is in its place, which is moved aside if it is no file.
    fn open_file(&self, digest: &Digest) -> Result<Result<D::File, Found>, StoreError> {
        match self.disk.open(&self.path(digest), Access::Read) {
            Ok(Some(file)) => Ok(Ok(file)),
            Ok(None) => Ok(Err(Found::Nothing)),
            Err(error) if is_no_file(&error) => {
                self.set_aside_stray(&self.path(digest))?;
                self.quarantined.fetch_add(1, Ordering::Relaxed);
                Ok(Err(Found::Damaged))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Hashes an object. One that is what its name says counts as written now; another one is moved aside.
    pub(crate) fn vet(&self, digest: &Digest) -> Result<Found, StoreError> {
        self.vet_anew(digest, false)
    }

    /// The same; one that is trusted already can be marked as read in this boot.
    fn vet_anew(&self, digest: &Digest, is_marked: bool) -> Result<Found, StoreError> {
        let path = self.path(digest);
        let file = match self.open_file(digest)? {
            Ok(file) => file,
            Err(found) => return Ok(found),
        };
        let read = |error| FsError::new(Operation::Read, &path, error);
        let mut hasher = Hasher::new(digest.function());
        let mut buffer = vec![0; SMALL_BYTES];
        let mut offset = 0;
        loop {
            let count = match read_full(&*self.disk, &file, offset, &mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                // Unreadable sectors are damage; that this process has no memory or descriptors left is not.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    self.quarantine(digest)?;
                    return Ok(Found::Damaged);
                }
                Err(error) => return Err(read(error).into()),
            };
            hasher.update(&buffer[..count]);
            offset += count as u64;
        }
        if hasher.finish() != *digest {
            self.quarantine(digest)?;
            return Ok(Found::Damaged);
        }
        if !is_marked && self.epochs.trusts(self.disk.stat_file(&file).map_err(read)?.mark) {
            return Ok(Found::Whole);
        }
        let writing = self.epochs.write()?;
        self.disk.finish(&file, writing.mark).map_err(|error| FsError::new(Operation::SetMode, &path, error))?;
        Ok(Found::Whole)
    }

    /// Moves an object aside; nobody finds it from then on.
    pub(crate) fn quarantine(&self, digest: &Digest) -> Result<(), FsError> {
        let aside = self.folder.join("quarantine").join(format!("{}-{}", digest.function(), digest.to_hex()));
        match self.disk.rename(Site::Quarantine, &self.path(digest), &aside) {
            Err(error) if error.is_not_found() => Ok(()),
            Ok(()) => {
                self.quarantined.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            result => result,
        }
    }

    /// Opens an object; a damaged small one, and one of another size, is moved aside and a miss.
    pub(crate) fn open_object(self: &Arc<Self>, blob: &Descriptor) -> Result<Option<Content>, StoreError> {
        if blob.size <= SMALL_BYTES as u64 {
            return Ok(self.read_small(blob)?.map(|bytes| -> Content { Box::new(Cursor::new(bytes)) }));
        }
        self.leases.take(&[Record::object(&blob.digest)])?;
        let path = self.path(&blob.digest);
        let Ok(file) = self.open_file(&blob.digest)? else { return Ok(None) };
        let read = |error| FsError::new(Operation::Read, &path, error);
        let stat = self.disk.stat_file(&file).map_err(read)?;
        let is_whole = stat.size == blob.size && self.epochs.trusts(stat.mark);
        // One of another size is read too: it is damaged, or the caller asks for a size that never was.
        if !is_whole && (self.vet(&blob.digest)? != Found::Whole || stat.size != blob.size) {
            return Ok(None);
        }
        Ok(Some(Box::new(VerifyingReader::new(Arc::clone(self), file, blob))))
    }

    /// Stores bytes of which nothing is known, and names them with `function`.
    pub(crate) fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, StoreError> {
        let mut head = Vec::new();
        source.take(SMALL_BYTES as u64 + 1).read_to_end(&mut head).map_err(StoreError::Source)?;
        if head.len() <= SMALL_BYTES {
            return self.put_bytes(function, &head);
        }
        let mut hasher = Hasher::new(function);
        let mut target = self.begin()?;
        let mut buffer = head;
        loop {
            hasher.update(&buffer);
            target.write_all(&buffer).map_err(|error| target.failed(error))?;
            buffer.resize(SMALL_BYTES, 0);
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    buffer.clear();
                    continue;
                }
                Err(error) => return Err(StoreError::Source(error)),
            };
            if count == 0 {
                break;
            }
            buffer.truncate(count);
        }
        let blob = Descriptor { digest: hasher.finish(), size: target.length };
        self.leases.take(&[Record::object(&blob.digest)])?;
        self.publish(target, &blob)?;
        Ok(blob)
    }

    /// Stores bytes and names them with `function`.
    pub(crate) fn put_bytes(&self, function: DigestFunction, bytes: &[u8]) -> Result<Descriptor, StoreError> {
        let named = NamedBytes::new(function, bytes);
        self.put_named(&named)?;
        Ok(*named.blob())
    }

    /// Stores bytes that have their name already.
    pub(crate) fn put_named<B: AsRef<[u8]>>(&self, named: &NamedBytes<B>) -> Result<(), StoreError> {
        let (blob, bytes) = (named.blob(), named.bytes());
        if blob.size == 0 {
            return Ok(());
        }
        self.leases.take(&[Record::object(&blob.digest)])?;
        if self.is_settled(blob)? {
            return Ok(());
        }
        match self.write_bytes(blob, bytes) {
            // The disk is full before the store's own limit is reached.
            Err(error) if error.is_full() && !matches!(error, StoreError::Quota { .. }) => {
                let Some(make_room) = self.claims.make_room.get() else { return Err(error) };
                make_room(Amount::of_file(blob.size))?;
                self.write_bytes(blob, bytes)
            }
            result => result,
        }
    }

    fn write_bytes(&self, blob: &Descriptor, bytes: &[u8]) -> Result<(), StoreError> {
        let mut target = self.begin()?;
        target.write_all(bytes).map_err(|error| target.failed(error))?;
        self.publish(target, blob)
    }

    /// Stores bytes that must match `expected`; other bytes leave nothing behind.
    pub(crate) fn put_expected(
        &self,
        source: &mut dyn Read,
        expected: &Descriptor,
    ) -> Result<VerifiedBlob, StoreError> {
        let mut target = self.begin()?;
        let proof = copy_verified(source, &mut target, expected).map_err(|error| match error {
            // What a claim said comes through the writer.
            VerifyError::Write { source, expected } => match source.downcast::<StoreError>() {
                Ok(error) => error,
                Err(source) => VerifyError::Write { source, expected }.into(),
            },
            error => error.into(),
        })?;
        if expected.size > 0 {
            self.leases.take(&[Record::object(&expected.digest)])?;
            self.publish(target, expected)?;
        }
        Ok(proof)
    }

    fn begin(&self) -> Result<Target<'_, D>, StoreError> {
        self.check_poison()?;
        let folder = self.folder.join("objects");
        if self.unnamed_works.load(Ordering::Relaxed) {
            if let Some(file) = self.disk.create_unnamed(&folder)? {
                return Ok(Target { vault: self, file, path: None, folder, length: 0, claimed: 0 });
            }
            self.unnamed_works.store(false, Ordering::Relaxed);
        }
        let path = self.temporary("object");
        let file = self.disk.open(&path, Access::New)?.expect("a new file is made or an error");
        Ok(Target { vault: self, file, path: Some(path), folder, length: 0, claimed: 0 })
    }

    /// Gives the bytes their name. The caller holds the lease, and the bytes are those of `blob`.
    fn publish(&self, mut target: Target<'_, D>, blob: &Descriptor) -> Result<(), StoreError> {
        let path = self.path(&blob.digest);
        match target.path.clone() {
            None => {
                let mut is_named = self.name(&mut target, &path)?;
                // What stood there is moved aside when it is damaged, and the whole one takes its name.
                if !is_named && !self.stands(blob)? {
                    is_named = self.name(&mut target, &path)?;
                    if !is_named && !self.is_here(blob)? {
                        return Err(StoreError::Missing(*blob));
                    }
                }
            }
            Some(temporary) => {
                // A rename replaces what stands there, perhaps something durable with something that is not yet.
                let lock_path = self.folder.join("publish.lock");
                let _one = lock(&*self.disk, &lock_path, LockMode::Exclusive, PATIENCE)?
                    .ok_or(StoreError::Busy { path: lock_path })?;
                if self.disk.stat(&path)?.is_some() && self.stands(blob)? {
                    self.disk.remove(&temporary)?;
                } else {
                    self.name(&mut target, &path)?;
                }
            }
        }
        if self.durability == Durability::Durable {
            let folder = path.parent().expect("objects are in folders");
            self.disk.sync_folder(Site::SyncObjectFolder, folder).map_err(|error| self.poison(error))?;
        }
        Ok(())
    }

    /// Makes the folder of an object again.
    fn restore_folder(&self, object: &Path) -> Result<(), StoreError> {
        let shard = object.parent().expect("objects are in folders");
        let top = shard.parent().expect("functions have folders");
        self.disk.create_folder(&self.folder.join("objects"))?;
        self.disk.create_folder(top)?;
        self.disk.create_folder(shard)?;
        if self.durability == Durability::Durable {
            let folder = self.disk.open_folder(&self.folder)?;
            self.disk
                .sync_all(Site::SyncLayout, &folder)
                .map_err(|error| self.poison(FsError::new(Operation::Sync, shard, error)))?;
        }
        Ok(())
    }

    /// Marks the file and gives it its name; `false` when something has it.
    fn name(&self, target: &mut Target<'_, D>, path: &Path) -> Result<bool, StoreError> {
        let is_durable = self.durability == Durability::Durable;
        // Until the name is there the epoch cannot be sealed. Nothing in here may ask for the epoch a second time: whoever
        // seals waits in between.
        let writing = if is_durable { None } else { Some(self.epochs.write()?) };
        let mark = writing.as_ref().map_or(DURABLE, |writing| writing.mark);
        self.disk.finish(&target.file, mark).map_err(|error| FsError::new(Operation::SetMode, path, error))?;
        if is_durable {
            self.disk
                .sync_file(Site::SyncObject, &target.file)
                .map_err(|error| self.poison(FsError::new(Operation::Sync, path, error)))?;
        }
        let give = || match &target.path {
            None => self.disk.link(Site::LinkObject, &target.file, path),
            Some(temporary) => self.disk.rename(Site::RenameObject, temporary, path).map(|()| true),
        };
        let is_named = match give() {
            // Somebody removed the folder.
            Err(error) if error.is_not_found() => {
                self.restore_folder(path)?;
                give()?
            }
            result => result?,
        };
        if is_named {
            target.path = None;
        }
        if is_named {
            target.keep();
        }
        Ok(is_named)
    }

    /// Whether nothing is left to do for an object: it is here, and durable where that is asked for.
    fn is_settled(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        if !self.is_here(blob)? {
            return Ok(false);
        }
        if self.durability != Durability::Durable {
            return Ok(true);
        }
        Ok(self.disk.stat(&self.path(&blob.digest))?.is_some_and(|stat| self.epochs.is_durable(stat.mark)))
    }

    /// Whether the object that has the name already can stay, in place of an equal new one.
    fn stands(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        if self.is_settled(blob)? {
            return Ok(true);
        }
        if self.durability != Durability::Durable {
            return Ok(false);
        }
        let path = self.path(&blob.digest);
        // Written by somebody who did not wait for the disk.
        if self.vet(&blob.digest)? != Found::Whole {
            return Ok(false);
        }
        let Some(file) = self.disk.open(&path, Access::Read)? else { return Ok(false) };
        // The mark may reach the disk at any time, so the content goes first.
        self.disk
            .sync_file(Site::SyncStanding, &file)
            .map_err(|error| self.poison(FsError::new(Operation::Sync, &path, error)))?;
        self.disk.finish(&file, DURABLE).map_err(|error| FsError::new(Operation::SetMode, &path, error))?;
        Ok(true)
    }

    /// The names in a folder, none when somebody removed it.
    pub(crate) fn list_if_there(&self, folder: &Path) -> Result<Vec<DirEntry>, StoreError> {
        match self.disk.list(folder) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            result => Ok(result?),
        }
    }

    /// Every object: its digest and what is known of it without reading.
    pub(crate) fn each_object(
        &self,
        visit: &mut dyn FnMut(Digest, Stat) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for function in FUNCTIONS {
            let top = self.function_folder(function);
            let shards: Vec<DirEntry> = self.list_if_there(&top)?.into_iter().filter(|entry| entry.is_dir).collect();
            for shards in shards.chunks(SHARDS_AT_ONCE) {
                let folders: Vec<PathBuf> = shards.iter().map(|shard| top.join(&shard.name)).collect();
                for (shard, entries) in shards.iter().zip(self.disk.list_each(&folders)?) {
                    for (entry, stat) in entries {
                        if let Some(digest) = digest_of(function, &shard.name, &entry.name) {
                            visit(digest, stat)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The digest that a file among the objects is named after.
pub(crate) fn digest_of(function: DigestFunction, shard: &std::ffi::OsStr, name: &std::ffi::OsStr) -> Option<Digest> {
    let mut digits = shard.to_str()?.to_owned();
    digits.push_str(name.to_str()?);
    Digest::from_hex(function, &digits).ok()
}

/// Path of an object below the folder of its function.
pub(crate) fn path_below(digest: &Digest) -> String {
    let mut path = digest.to_hex();
    path.insert(2, '/');
    path
}

/// A file that has no name in the store yet.
struct Target<'a, D: Disk> {
    vault: &'a Vault<D>,
    file: D::File,
    /// Its temporary name, where files cannot be without one.
    path: Option<PathBuf>,
    folder: PathBuf,
    length: u64,
    /// Bytes that there is room for.
    claimed: u64,
}

impl<D: Disk> Target<'_, D> {
    /// Claims room for bytes that are about to be written.
    fn claim(&mut self, count: u64) -> Result<(), StoreError> {
        let needed = (self.length + count).saturating_sub(self.claimed);
        if needed == 0 {
            return Ok(());
        }
        // One whose length nobody knows is claimed in pieces that grow with it; what is too much is given back.
        let piece = needed.max(self.claimed.min(CLAIM_BYTES));
        let amount = Amount { inodes: u64::from(self.claimed == 0), ..Amount::of_file(piece) };
        self.vault.claim(amount)?;
        self.claimed += amount.bytes;
        Ok(())
    }

    /// The file stays: what was claimed for it is used.
    fn keep(&mut self) {
        let used = Amount::of_file(self.length);
        let claimed = Amount { bytes: self.claimed, inodes: u64::from(self.claimed > 0) };
        self.vault.unclaim(claimed.less(used));
        self.vault.use_claim(used);
        self.claimed = 0;
    }

    fn failed(&self, error: io::Error) -> StoreError {
        // The claim's own words come through the writer that is given to others.
        let error = match error.downcast::<StoreError>() {
            Ok(error) => return error,
            Err(error) => error,
        };
        let path: &Path = self.path.as_deref().unwrap_or(&self.folder);
        FsError::new(Operation::Write, path, error).into()
    }
}

impl<D: Disk> Write for Target<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.claim(bytes.len() as u64).map_err(io::Error::other)?;
        write_all(&*self.vault.disk, &self.file, self.length, bytes)?;
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<D: Disk> Drop for Target<'_, D> {
    fn drop(&mut self) {
        self.vault.unclaim(Amount { bytes: self.claimed, inodes: u64::from(self.claimed > 0) });
        if let Some(path) = &self.path {
            // It was not published; what stays is removed with the process's folder.
            let _ = self.vault.disk.remove(path);
        }
    }
}

/// Reads an object and checks it on the way: the last read fails when the bytes were not the announced ones.
#[derive(Debug)]
struct VerifyingReader<D: Disk> {
    vault: Arc<Vault<D>>,
    file: D::File,
    hasher: Option<Hasher>,
    offset: u64,
    expected: Descriptor,
}

impl<D: Disk> VerifyingReader<D> {
    fn new(vault: Arc<Vault<D>>, file: D::File, blob: &Descriptor) -> Self {
        Self { vault, file, hasher: Some(Hasher::new(blob.digest.function())), offset: 0, expected: *blob }
    }

    fn damaged(&self, found: String) -> io::Error {
        // A failure leaves the object where it is: readers go on refusing it.
        let _ = self.vault.quarantine(&self.expected.digest);
        io::Error::new(io::ErrorKind::InvalidData, OpenBlobError::Damaged { blob: self.expected, found })
    }

    fn conclude(&mut self) -> io::Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        if actual == self.expected.digest {
            return Ok(());
        }
        Err(self.damaged(format!("hash to `{actual}`")))
    }
}

impl<D: Disk> Read for VerifyingReader<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let remaining = self.expected.size - self.offset;
        let limit = usize::try_from(remaining).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let count = self.vault.disk.read_at(&self.file, self.offset, &mut buffer[..limit])?;
        if count == 0 {
            return Err(self.damaged(format!("end {remaining} too early")));
        }
        self.offset += count as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        // The check comes with the last bytes, not after them: a caller that knows the size stops reading there.
        if self.offset == self.expected.size {
            self.conclude()?;
        }
        Ok(count)
    }
}
