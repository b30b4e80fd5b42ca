//! Descriptors of blobs, proof that bytes match one, and the traits of the places that hold blobs.
//!
//! A [`Descriptor`] is a digest and a size: the size is part of the identity, and right bytes under a wrong size are
//! refused. A [`VerifiedBlob`] exists only after its bytes matched. [`OpenBlob`] is what an archive writer or a
//! materialiser needs of a place, whichever place that is.
//!
//! Not here: the places themselves (`cas-store`), trees (`cas-tree`).

mod descriptor;
mod verify;

pub use descriptor::{Descriptor, ParseDescriptorError};
pub use verify::{VerifiedBlob, VerifyError, copy_verified, verify_bytes};

use std::io::{self, Read};

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
