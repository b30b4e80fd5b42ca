//! The descriptor: which blob, and how long.

use std::fmt;
use std::str::FromStr;

use cas_digest::{Digest, DigestFunction, ParseDigestError};

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

/// Bytes with their name, which nobody needs to compute again.
#[derive(Clone, Copy, Debug)]
pub struct NamedBytes<B> {
    blob: Descriptor,
    bytes: B,
}

impl<B: AsRef<[u8]>> NamedBytes<B> {
    /// Names `bytes`.
    #[must_use]
    pub fn new(function: DigestFunction, bytes: B) -> Self {
        Self { blob: Descriptor::of(function, bytes.as_ref()), bytes }
    }

    /// Their name.
    #[must_use]
    pub fn blob(&self) -> &Descriptor {
        &self.blob
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// Text that is not a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDescriptorError {
    /// There is no size, or it is not a decimal number.
    #[error("a descriptor is `function:hex/size`")]
    Size,
    /// The digest is not one.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
}

impl FromStr for Descriptor {
    type Err = ParseDescriptorError;

    /// Parses what [`Display`](fmt::Display) prints, and nothing else.
    fn from_str(text: &str) -> Result<Self, ParseDescriptorError> {
        let (digest, size) = text.split_once('/').ok_or(ParseDescriptorError::Size)?;
        let number: u64 = size.parse().map_err(|_| ParseDescriptorError::Size)?;
        // One text per descriptor: no sign, no leading zero.
        if number.to_string() != size {
            return Err(ParseDescriptorError::Size);
        }
        Ok(Self { digest: digest.parse()?, size: number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_as_it_is_printed() {
        let blob = Descriptor::of(DigestFunction::Sha256, b"x");
        assert_eq!(blob.to_string().parse(), Ok(blob));
        for end in ["", "/", "/x", "/01", "/+1", "/1/1"] {
            assert!(format!("{}{end}", blob.digest).parse::<Descriptor>().is_err(), "{end:?}");
        }
    }
}
