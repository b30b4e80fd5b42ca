//! Descriptors of blobs, proof that bytes match one, and the traits of the places that hold blobs.
//!
//! A [`Descriptor`] is a digest and a size: the size is part of the identity, and right bytes under a wrong size are
//! refused. A [`VerifiedBlob`] exists only after its bytes matched. [`OpenBlob`] is what an archive writer or a
//! materialiser needs of a place, whichever place that is; [`BlobStore`] is a place that blobs can be put into, and
//! [`ActionCache`] one that holds what actions gave.
//!
//! Not here: the places themselves (`cas-store`), the suite that all of them pass (`cas-testing`), trees (`cas-tree`).

mod actions;
mod descriptor;
mod verify;

pub use actions::{ActionCache, ActionCacheError, ActionLane, Pending, Recorded, wait};
pub use descriptor::{Descriptor, NamedBytes, ParseDescriptorError};
pub use verify::{VerifiedBlob, VerifyError, copy_verified, verify_bytes};

use std::io::{self, Read};

use cas_digest::DigestFunction;

/// A place whose blobs can be read as streams.
pub trait OpenBlob: Sync {
    /// Opens the blob for reading from its first byte.
    ///
    /// The reader gives exactly the announced bytes or fails: a place checks digest and size, at the latest at the end.
    ///
    /// # Errors
    ///
    /// [`OpenBlobError::Missing`] when the place does not hold the blob, [`OpenBlobError::Io`] when it cannot be read.
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError>;
}

/// A place that blobs can be put into.
///
/// A blob is whole and right, or absent: a put that fails leaves nothing behind that anybody finds, and it may be tried
/// again. The empty blob is always here. Several threads may do all of this at once.
pub trait BlobStore: OpenBlob {
    /// Why the place could not do it.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Whether the blob is here. An error means that it cannot be told.
    ///
    /// # Errors
    ///
    /// When what is below the place fails.
    fn has(&self, blob: &Descriptor) -> Result<bool, Self::Error>;

    /// For each of `blobs`, in their order, whether it is here. A blob may be asked for several times.
    ///
    /// # Errors
    ///
    /// When what is below the place fails, for all of them.
    fn has_many(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, Self::Error>;

    /// Stores all that `source` gives, in bounded memory or the place's own, and names it with `function`, which is one of
    /// those that name blobs.
    ///
    /// # Errors
    ///
    /// When the source or the place fails.
    fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, Self::Error>;

    /// Stores bytes that are announced, and returns the proof that they are those. Takes at most one byte more than announced
    /// from `source`.
    ///
    /// # Errors
    ///
    /// When they are others, also when the blob is here already, and when the source or the place fails.
    fn put_expected(&self, source: &mut dyn Read, expected: &Descriptor) -> Result<VerifiedBlob, Self::Error>;
}

/// Why a blob could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenBlobError {
    /// The place does not hold it, or holds only damaged bytes.
    #[error("blob `{0}` is not here")]
    Missing(Descriptor),
    /// It was there, and its bytes are others.
    #[error("stored bytes of `{blob}` {found}")]
    Damaged {
        /// The blob asked for.
        blob: Descriptor,
        /// What was found.
        found: String,
    },
    /// It is there, and reading failed.
    #[error("could not read blob `{blob}`")]
    Io {
        /// The blob asked for.
        blob: Descriptor,
        /// What the system said.
        source: io::Error,
    },
}
