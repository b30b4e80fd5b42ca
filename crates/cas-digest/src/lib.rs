//! Digests and one-pass hashing under several functions.
//!
//! A [`Digest`] names bytes by a [`DigestFunction`] and the value it gave; it comes from hashing or from parsing, nothing
//! else. [`Hasher`] computes one digest, [`MultiHasher`] several in one pass, so that no byte is read twice when a blob
//! needs a name for the build and one for a registry. [`hash_parts`] hashes something long on all cores.
//! [`Sha256`] can be kept in the middle and gone on with.
//!
//! Not here: sizes and media types (`cas-blob`), proof that bytes match a digest (`cas_blob::VerifiedBlob`).

mod digest;
mod function;
mod hasher;
mod parallel;
mod sha256;

pub use digest::{Digest, ParseDigestError};
pub use function::{DigestFunction, UnknownFunction};
pub use hasher::{Hasher, HashingReader, HashingWriter, MultiHasher};
pub use parallel::{ReadPart, hash_parts};
pub use sha256::Sha256;
