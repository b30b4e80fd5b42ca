//! Hashing: one function, several functions, and readers and writers that hash what passes.

use std::io::{self, Read, Write};

use sha2::Digest as _;

use crate::{Digest, DigestFunction, Sha256};

/// Computes one digest over bytes given in pieces.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
    Sha512(sha2::Sha512),
    Sha1(sha1::Sha1),
}

impl Hasher {
    /// Starts over no bytes.
    #[must_use]
    pub fn new(function: DigestFunction) -> Self {
        Self(match function {
            DigestFunction::Blake3 => State::Blake3(Box::new(blake3::Hasher::new())),
            DigestFunction::Sha256 => State::Sha256(Sha256::new()),
            DigestFunction::Sha512 => State::Sha512(sha2::Sha512::new()),
            DigestFunction::Sha1 => State::Sha1(sha1::Sha1::new()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Blake3(hasher) => {
                hasher.update(bytes);
            }
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
            State::Sha1(hasher) => hasher.update(bytes),
        }
    }

    /// Ends, and names the bytes.
    #[must_use]
    pub fn finish(self) -> Digest {
        let value = match self.0 {
            State::Sha256(hasher) => return hasher.finish(),
            State::Blake3(hasher) => Digest::from_value(DigestFunction::Blake3, hasher.finalize().as_bytes()),
            State::Sha512(hasher) => Digest::from_value(DigestFunction::Sha512, &hasher.finalize()),
            State::Sha1(hasher) => Digest::from_value(DigestFunction::Sha1, &hasher.finalize()),
        };
        value.expect("a function's output has the length of its digests")
    }
}

/// Computes several digests of the same bytes in one pass, and counts them.
#[derive(Clone, Debug)]
pub struct MultiHasher {
    hashers: Vec<Hasher>,
    len: u64,
}

impl MultiHasher {
    /// Bytes hashed by one function before the next one sees them: small enough to stay in a core's second cache.
    const BLOCK: usize = 64 * 1024;

    /// Starts over no bytes. The digests come out in the order of `functions`.
    #[must_use]
    pub fn new(functions: &[DigestFunction]) -> Self {
        Self { hashers: functions.iter().copied().map(Hasher::new).collect(), len: 0 }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(Self::BLOCK) {
            for hasher in &mut self.hashers {
                hasher.update(block);
            }
        }
        self.len += bytes.len() as u64;
    }

    /// Ends with the digests, in the order of the functions given, and the number of bytes.
    #[must_use]
    pub fn finish(self) -> (Vec<Digest>, u64) {
        (self.hashers.into_iter().map(Hasher::finish).collect(), self.len)
    }
}

/// Hashes what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: MultiHasher,
}

impl<R: Read> HashingReader<R> {
    /// Wraps `inner`.
    pub fn new(inner: R, functions: &[DigestFunction]) -> Self {
        Self { inner, hasher: MultiHasher::new(functions) }
    }

    /// Ends with the digests of the bytes read so far and their number.
    pub fn finish(self) -> (Vec<Digest>, u64) {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Hashes what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: MultiHasher,
}

impl<W: Write> HashingWriter<W> {
    /// Wraps `inner`.
    pub fn new(inner: W, functions: &[DigestFunction]) -> Self {
        Self { inner, hasher: MultiHasher::new(functions) }
    }

    /// Ends with the writer, the digests of the bytes written so far, and their number.
    pub fn finish(self) -> (W, Vec<Digest>, u64) {
        let (digests, len) = self.hasher.finish();
        (self.inner, digests, len)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pass_gives_the_digests_of_separate_passes() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        let functions = [DigestFunction::Sha256, DigestFunction::Blake3, DigestFunction::Sha512];
        for piece in [1, 63, 4096, 70_000, 200_000] {
            let mut hasher = MultiHasher::new(&functions);
            bytes.chunks(piece).for_each(|chunk| hasher.update(chunk));
            let (digests, len) = hasher.finish();
            assert_eq!(len, 200_000);
            assert_eq!(digests, functions.map(|f| Digest::of(f, &bytes)), "in pieces of {piece}");
        }
    }
}
