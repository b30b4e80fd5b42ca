//! Blobs on disk: read-only files, `objects/<function>/<2 hex>/<rest>`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cas_blob::{Descriptor, VerifiedBlob, copy_verified};
use cas_digest::{Digest, DigestFunction, Hasher, HashingWriter};
use cas_fs::{FsError, Operation};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::StoreError;

/// Blobs up to this size are read whole before anything is written, so that what is there already costs no write.
const SMALL_BYTES: usize = 256 * 1024;

/// The folder of objects.
#[derive(Debug)]
pub(crate) struct Objects {
    folder: PathBuf,
    quarantine: PathBuf,
    /// For file systems without `O_TMPFILE`.
    fallback: PathBuf,
    unnamed_works: AtomicBool,
    count: AtomicU64,
}

impl Objects {
    pub(crate) fn new(folder: PathBuf, quarantine: PathBuf, fallback: PathBuf) -> Result<Self, FsError> {
        for function in [DigestFunction::Blake3, DigestFunction::Sha256, DigestFunction::Sha512] {
            let top = folder.join(function.name());
            // The last folder tells that all are there: they are made in order.
            if cas_fs::exists(&top.join("ff"))? {
                continue;
            }
            for byte in 0..=255u8 {
                cas_fs::create_dir_all(&top.join(format!("{byte:02x}")))?;
            }
        }
        Ok(Self { folder, quarantine, fallback, unnamed_works: AtomicBool::new(true), count: AtomicU64::new(0) })
    }

    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.to_hex();
        let (head, rest) = hex.split_at(2);
        self.folder.join(digest.function().name()).join(head).join(rest)
    }

    /// Opens an object of the right size; one of another size is damaged, moved aside and a miss.
    pub(crate) fn open(&self, blob: &Descriptor) -> Result<Option<File>, FsError> {
        let path = self.path(&blob.digest);
        let file = match cas_fs::open(&path) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let size = file.metadata().map_err(|error| FsError::new(Operation::Stat, &path, error))?.len();
        if size != blob.size {
            // Either the object is cut, or the caller asks for a size that never was: only bytes can tell.
            self.quarantine_if_damaged(&blob.digest);
            return Ok(None);
        }
        Ok(Some(file))
    }

    pub(crate) fn contains(&self, blob: &Descriptor) -> Result<bool, FsError> {
        match cas_fs::symlink_metadata(&self.path(&blob.digest)) {
            Ok(metadata) => Ok(metadata.len() == blob.size),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Hashes an object, and moves it aside when it is not what its name says.
    pub(crate) fn quarantine_if_damaged(&self, digest: &Digest) {
        let path = self.path(digest);
        let Ok(mut file) = cas_fs::open(&path) else { return };
        let mut writer = HashingWriter::new(io::sink(), &[digest.function()]);
        if io::copy(&mut file, &mut writer).is_ok() && writer.finish().1.first() != Some(digest) {
            self.quarantine(digest);
        }
    }

    pub(crate) fn quarantine(&self, digest: &Digest) {
        let aside = self.quarantine.join(format!("{}-{}", digest.function(), digest.to_hex()));
        // A failure leaves the object where it is: readers go on refusing it.
        let _ = cas_fs::rename(&self.path(digest), &aside);
    }

    /// Stores bytes of which nothing is known, and names them with `function`.
    pub(crate) fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, StoreError> {
        let mut head = Vec::new();
        source.take(SMALL_BYTES as u64 + 1).read_to_end(&mut head).map_err(StoreError::Source)?;
        if head.len() <= SMALL_BYTES {
            return self.put_bytes(function, &head);
        }
        let mut hasher = Hasher::new(function);
        let mut size = 0u64;
        let mut target = self.begin()?;
        let mut buffer = head;
        loop {
            hasher.update(&buffer);
            size += buffer.len() as u64;
            target.write(&buffer)?;
            buffer.resize(SMALL_BYTES, 0);
            let count = match source.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StoreError::Source(error)),
            };
            if count == 0 {
                break;
            }
            buffer.truncate(count);
        }
        let blob = Descriptor { digest: hasher.finish(), size };
        self.publish(target, &blob)?;
        Ok(blob)
    }

    pub(crate) fn put_bytes(&self, function: DigestFunction, bytes: &[u8]) -> Result<Descriptor, StoreError> {
        let blob = Descriptor::of(function, bytes);
        if blob.size > 0 && !self.contains(&blob)? {
            let mut target = self.begin()?;
            target.write(bytes)?;
            self.publish(target, &blob)?;
        }
        Ok(blob)
    }

    /// Stores bytes that must match `expected`; other bytes leave nothing behind.
    pub(crate) fn put_expected(
        &self,
        source: &mut dyn Read,
        expected: &Descriptor,
    ) -> Result<VerifiedBlob, StoreError> {
        let mut target = self.begin()?;
        let proof = copy_verified(source, &mut target.file, expected)?;
        self.publish(target, expected)?;
        Ok(proof)
    }

    fn begin(&self) -> Result<Target, StoreError> {
        if self.unnamed_works.load(Ordering::Relaxed) {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            match rustix::fs::open(&self.folder, flags, Mode::from_raw_mode(0o444)) {
                Ok(file) => return Ok(Target { file: File::from(file), path: None, folder: self.folder.clone() }),
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
                    self.unnamed_works.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(FsError::new(Operation::Create, &self.folder, error.into()).into()),
            }
        }
        let path = self.fallback.join(format!("object-{}", self.count.fetch_add(1, Ordering::Relaxed)));
        let file = cas_fs::create_new(&path, 0o600)?;
        Ok(Target { file, path: Some(path), folder: self.folder.clone() })
    }

    fn publish(&self, mut target: Target, blob: &Descriptor) -> Result<(), StoreError> {
        let path = self.path(&blob.digest);
        let at = |error: rustix::io::Errno| FsError::new(Operation::Link, &path, error.into());
        match target.path.take() {
            None => {
                // The umask took bits away from the mode given at creation.
                rustix::fs::fchmod(&target.file, Mode::from_raw_mode(0o444)).map_err(at)?;
                // AT_EMPTY_PATH needs a capability before Linux 6.10; the way through /proc does not.
                let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target.file.as_fd()));
                match rustix::fs::linkat(CWD, &source, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
                    Ok(()) => {}
                    Err(rustix::io::Errno::EXIST) => {
                        if !self.contains(blob)? {
                            // A cut object stands there. It is moved aside and the whole one takes its name.
                            self.quarantine(&blob.digest);
                            match rustix::fs::linkat(CWD, &source, CWD, &path, AtFlags::SYMLINK_FOLLOW) {
                                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                                Err(error) => return Err(at(error).into()),
                            }
                        }
                    }
                    Err(error) => return Err(at(error).into()),
                }
            }
            Some(temporary) => {
                cas_fs::set_mode(&temporary, 0o444)?;
                cas_fs::rename(&temporary, &path)?;
            }
        }
        Ok(())
    }
}

/// A file that has no name in the store yet.
struct Target {
    file: File,
    /// Its temporary name, where files cannot be without one.
    path: Option<PathBuf>,
    folder: PathBuf,
}

impl Target {
    fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        let path: &Path = self.path.as_deref().unwrap_or(&self.folder);
        self.file.write_all(bytes).map_err(|error| FsError::new(Operation::Write, path, error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // It was not published; what stays is removed with the process's folder.
            let _ = cas_fs::remove_file(path);
        }
    }
}

/// Reads an object and checks it on the way: the last read fails when the bytes were not the announced ones.
#[derive(Debug)]
pub struct VerifyingReader {
    file: File,
    hasher: Option<Hasher>,
    remaining: u64,
    expected: Digest,
    path: PathBuf,
    quarantine: PathBuf,
}

impl VerifyingReader {
    pub(crate) fn new(file: File, blob: &Descriptor, objects: &Objects) -> Self {
        Self {
            file,
            hasher: Some(Hasher::new(blob.digest.function())),
            remaining: blob.size,
            expected: blob.digest,
            path: objects.path(&blob.digest),
            quarantine: objects.quarantine.clone(),
        }
    }

    fn damaged(&self, what: String) -> io::Error {
        let name = format!("{}-{}", self.expected.function(), self.expected.to_hex());
        // A failure leaves the object where it is: readers go on refusing it.
        let _ = cas_fs::rename(&self.path, &self.quarantine.join(name));
        io::Error::new(io::ErrorKind::InvalidData, what)
    }
}

impl Read for VerifyingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.remaining == 0 {
            if let Some(hasher) = self.hasher.take() {
                let actual = hasher.finish();
                if actual != self.expected {
                    return Err(self.damaged(format!("stored bytes of `{}` hash to `{actual}`", self.expected)));
                }
            }
            return Ok(0);
        }
        let limit = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..limit])?;
        if count == 0 {
            return Err(self.damaged(format!("stored bytes of `{}` end {} too early", self.expected, self.remaining)));
        }
        self.remaining -= count as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        // The check comes with the last bytes, not after them: a caller that knows the size stops reading there.
        if self.remaining == 0
            && let Some(hasher) = self.hasher.take()
        {
            let actual = hasher.finish();
            if actual != self.expected {
                return Err(self.damaged(format!("stored bytes of `{}` hash to `{actual}`", self.expected)));
            }
        }
        Ok(count)
    }
}
