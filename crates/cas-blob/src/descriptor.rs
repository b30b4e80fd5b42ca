//! The descriptor: which blob, and how long.

use std::fmt;

use cas_digest::{Digest, DigestFunction};

/// A digest and the number of bytes it names.
///
/// Both together are the identity of a blob, as in the Remote Execution API (v2, `Digest`) and in the OCI image
/// specification (1.1, descriptor.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Descriptor {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
}

impl Descriptor {
    /// Describes `bytes`.
    #[must_use]
    pub fn of(function: DigestFunction, bytes: &[u8]) -> Self {
        Self { digest: Digest::of(function, bytes), size: bytes.len() as u64 }
    }

    /// Describes no bytes. Every place holds this blob.
    #[must_use]
    pub fn empty(function: DigestFunction) -> Self {
        Self::of(function, &[])
    }
}

impl fmt::Display for Descriptor {
    /// Prints `function:hex/size`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.digest, self.size)
    }
}
