//! Proof that bytes are those that a descriptor announces.

use std::io::{self, Read, Write};

use cas_digest::{Digest, Hasher};

use crate::Descriptor;

/// Bytes read at once while copying.
const BUFFER_BYTES: usize = 256 * 1024;

/// Proof that bytes matched their descriptor. Only the functions of this module make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedBlob(Descriptor);

impl VerifiedBlob {
    /// What was verified.
    #[must_use]
    pub const fn descriptor(&self) -> Descriptor {
        self.0
    }
}

/// Why bytes are not the announced blob, or could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There are fewer or more bytes than announced; `actual` is at least the number seen.
    #[error("blob announced as `{expected}` has {actual} bytes or more, not {}", expected.size)]
    Size {
        /// The blob announced.
        expected: Descriptor,
        /// Bytes seen before giving up.
        actual: u64,
    },
    /// The bytes are another blob's: damage on the way or at rest, or a lying server.
    #[error("blob announced as `{}` hashes to `{actual}`", expected.digest)]
    Digest {
        /// The blob announced.
        expected: Descriptor,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// The source failed.
    #[error("could not read blob `{expected}`")]
    Read {
        /// The blob announced.
        expected: Descriptor,
        /// What the source said.
        source: io::Error,
    },
    /// The sink failed.
    #[error("could not write blob `{expected}`")]
    Write {
        /// The blob announced.
        expected: Descriptor,
        /// What the sink said.
        source: io::Error,
    },
}

/// Copies `source` to `sink` and returns proof that every byte matched `expected`.
///
/// Takes at most `expected.size + 1` bytes from `source`, so an endless one is refused, not stored.
///
/// # Errors
///
/// [`VerifyError::Size`] or [`VerifyError::Digest`] when the content is not the announced one, and
/// [`VerifyError::Read`] or [`VerifyError::Write`] when a side fails. On any error, discard what `sink` got.
pub fn copy_verified(
    source: impl Read,
    sink: &mut impl Write,
    expected: &Descriptor,
) -> Result<VerifiedBlob, VerifyError> {
    let expected = *expected;
    // One byte past the limit tells "exactly that long" from "longer" without reading the rest.
    let mut source = source.take(expected.size.saturating_add(1));
    let mut hasher = Hasher::new(expected.digest.function());
    let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(expected.size).unwrap_or(BUFFER_BYTES).max(1) + 1)];
    let mut actual = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(VerifyError::Read { expected, source }),
        };
        actual += count as u64;
        if actual > expected.size {
            return Err(VerifyError::Size { expected, actual });
        }
        hasher.update(&buffer[..count]);
        sink.write_all(&buffer[..count]).map_err(|source| VerifyError::Write { expected, source })?;
    }
    conclude(expected, hasher.finish(), actual)
}

/// Returns proof that `bytes` match `expected`.
///
/// # Errors
///
/// [`VerifyError::Size`] or [`VerifyError::Digest`].
pub fn verify_bytes(bytes: &[u8], expected: &Descriptor) -> Result<VerifiedBlob, VerifyError> {
    conclude(*expected, Digest::of(expected.digest.function(), bytes), bytes.len() as u64)
}

fn conclude(expected: Descriptor, actual: Digest, size: u64) -> Result<VerifiedBlob, VerifyError> {
    if size != expected.size {
        return Err(VerifyError::Size { expected, actual: size });
    }
    if actual != expected.digest {
        return Err(VerifyError::Digest { expected, actual });
    }
    Ok(VerifiedBlob(expected))
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn only_the_announced_bytes_are_verified() {
        let expected = Descriptor::of(DigestFunction::Blake3, b"content");
        let mut sink = Vec::new();
        let proof = copy_verified(&b"content"[..], &mut sink, &expected).expect("these are the bytes");
        assert_eq!((proof.descriptor(), sink.as_slice()), (expected, &b"content"[..]));
        assert!(matches!(
            copy_verified(&b"conten"[..], &mut io::sink(), &expected),
            Err(VerifyError::Size { actual: 6, .. })
        ));
        assert!(matches!(copy_verified(&b"Content"[..], &mut io::sink(), &expected), Err(VerifyError::Digest { .. })));
        assert!(matches!(
            copy_verified(io::repeat(b'c'), &mut io::sink(), &expected),
            Err(VerifyError::Size { actual: 8, .. })
        ));
    }

    #[test]
    fn the_empty_blob_is_verified_too() {
        for function in DigestFunction::ALL {
            let empty = Descriptor::empty(function);
            assert!(copy_verified(io::empty(), &mut io::sink(), &empty).is_ok());
            assert!(copy_verified(&b"x"[..], &mut io::sink(), &empty).is_err());
        }
    }
}
