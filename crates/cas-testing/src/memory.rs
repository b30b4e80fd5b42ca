//! The simplest place that is right.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex};

use cas_blob::{BlobStore, Descriptor, OpenBlob, OpenBlobError, VerifiedBlob, VerifyError, copy_verified};
use cas_digest::DigestFunction;

/// Blobs in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<Descriptor, Arc<[u8]>>>);

/// Why a blob could not be put.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The source failed.
    #[error("could not read what was to be stored")]
    Source(#[source] io::Error),
    /// The bytes are not the announced ones.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl MemoryStore {
    fn get(&self, blob: &Descriptor) -> Option<Arc<[u8]>> {
        if *blob == Descriptor::empty(blob.digest.function()) {
            return Some(Arc::default());
        }
        self.0.lock().unwrap().get(blob).cloned()
    }

    #[cfg(test)]
    pub(crate) fn forget(&self, blob: &Descriptor) {
        self.0.lock().unwrap().remove(blob);
    }

    fn keep(&self, blob: Descriptor, bytes: Vec<u8>) {
        self.0.lock().unwrap().insert(blob, bytes.into());
    }
}

impl OpenBlob for MemoryStore {
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError> {
        let bytes = self.get(blob).ok_or(OpenBlobError::Missing(*blob))?;
        Ok(Box::new(Cursor::new(bytes)))
    }
}

impl BlobStore for MemoryStore {
    type Error = MemoryError;

    fn has(&self, blob: &Descriptor) -> Result<bool, MemoryError> {
        Ok(self.get(blob).is_some())
    }

    fn has_many(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, MemoryError> {
        blobs.iter().map(|blob| self.has(blob)).collect()
    }

    fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, MemoryError> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).map_err(MemoryError::Source)?;
        let blob = Descriptor::of(function, &bytes);
        self.keep(blob, bytes);
        Ok(blob)
    }

    fn put_expected(&self, source: &mut dyn Read, expected: &Descriptor) -> Result<VerifiedBlob, MemoryError> {
        let mut bytes = Vec::new();
        let proof = copy_verified(source, &mut bytes, expected)?;
        self.keep(*expected, bytes);
        Ok(proof)
    }
}
