//! The store itself.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cas_blob::{Descriptor, OpenBlob, OpenBlobError, VerifiedBlob};
use cas_digest::{DigestFunction, HashingReader};
use cas_fs::FsError;

use crate::index::{ActionLane, Index, MemoRows};
use crate::objects::{Objects, VerifyingReader};
use crate::session::Session;
use crate::{StoreError, roots};

/// The local store of one user. Several processes may have it open, and threads share one.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    objects: Objects,
    index: Index,
    session: Session,
}

impl Store {
    /// Opens the store in `home`, and makes it when it is not there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unusable`] when the folder cannot be made or written, [`StoreError::Index`] when the index fails.
    pub fn open(home: &Path) -> Result<Self, StoreError> {
        let folder = home.join("v1");
        let unusable = |source: FsError| StoreError::Unusable { path: home.to_owned(), source };
        for name in ["objects", "roots", "quarantine", "tmp", "logs", "scan"] {
            cas_fs::create_dir_all(&folder.join(name)).map_err(unusable)?;
        }
        let session = Session::start(&folder.join("tmp")).map_err(unusable)?;
        let quarantine = folder.join("quarantine");
        let objects =
            Objects::new(folder.join("objects"), quarantine.clone(), session.path().to_owned()).map_err(unusable)?;
        let index = Index::open(&folder.join("index.db"), &quarantine)?;
        Ok(Self { folder, objects, index, session })
    }

    /// Folder of this process alone, on the store's file system; removed when the store is closed.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        self.session.path()
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

    pub(crate) fn roots(&self) -> roots::Roots<'_> {
        roots::Roots { folder: self.folder.join("roots"), store: self }
    }

    /// Stores bytes and names them with `function`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is stored then.
    pub fn put_bytes(&self, function: DigestFunction, bytes: &[u8]) -> Result<Descriptor, StoreError> {
        self.objects.put_bytes(function, bytes)
    }

    /// Stores all that `source` gives, in bounded memory, and names it with `function`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing is stored then.
    pub fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, StoreError> {
        self.objects.put(function, source)
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
        let primary = self.objects.put(function, &mut reader)?;
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
        self.objects.put_expected(source, expected)
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
        if self.objects.contains(blob)? {
            return Ok(true);
        }
        match self.index.alias(blob)? {
            Some(primary) => Ok(self.objects.contains(&primary)?),
            None => Ok(false),
        }
    }

    /// Path of the object file that holds the blob, for reading alone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`]
    pub fn object_path(&self, blob: &Descriptor) -> Result<PathBuf, StoreError> {
        if self.objects.contains(blob)? {
            return Ok(self.objects.path(&blob.digest));
        }
        if let Some(primary) = self.index.alias(blob)?
            && self.objects.contains(&primary)?
        {
            return Ok(self.objects.path(&primary.digest));
        }
        Err(StoreError::Missing(*blob))
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
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size).unwrap_or(0));
        self.open_blob(blob)?.read_to_end(&mut bytes).map_err(|source| StoreError::Read { blob: *blob, source })?;
        Ok(bytes)
    }

    /// The recorded result of an action, encoded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn action_result(&self, lane: &ActionLane, key: &Descriptor) -> Result<Option<Vec<u8>>, StoreError> {
        self.index.action(lane, key)
    }

    /// Records the result of an action, unless one is there. Returns the one that is recorded then.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn put_action_result(&self, lane: &ActionLane, key: &Descriptor, result: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.index.put_action(lane, key, result)
    }

    /// Forgets the result of an action, because what it names is gone.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`]
    pub fn remove_action_result(&self, lane: &ActionLane, key: &Descriptor) -> Result<(), StoreError> {
        self.index.remove_action(lane, key)
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
        if let Some(file) = self.objects.open(blob).map_err(|error| failed(error.into()))? {
            return Ok(Box::new(VerifyingReader::new(file, blob, &self.objects)));
        }
        if let Some(primary) = self.index.alias(blob).map_err(failed)?
            && let Some(file) = self.objects.open(&primary).map_err(|error| failed(error.into()))?
        {
            return Ok(Box::new(VerifyingReader::new(file, &primary, &self.objects)));
        }
        Err(OpenBlobError::Missing(*blob))
    }
}
