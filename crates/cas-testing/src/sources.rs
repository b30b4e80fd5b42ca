//! Sources of bytes that behave as real ones may.

use std::io::{self, Read};

/// Bytes that depend on `salt`, without a short period.
pub(crate) fn bytes(size: usize, salt: u8) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(salt);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Gives a few bytes at a time, and is interrupted before each of them.
pub(crate) struct Interrupted<'a> {
    bytes: &'a [u8],
    is_interrupted: bool,
}

impl<'a> Interrupted<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, is_interrupted: false }
    }
}

impl Read for Interrupted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_interrupted = !self.is_interrupted;
        if self.is_interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = buffer.len().min(1000);
        self.bytes.read(&mut buffer[..count])
    }
}

/// Gives bytes, then fails.
pub(crate) struct Failing<'a>(pub(crate) &'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::ConnectionReset.into()),
            count => Ok(count),
        }
    }
}

/// Gives bytes, then zeros for ever; counts what was taken.
pub(crate) struct Endless<'a> {
    bytes: &'a [u8],
    pub(crate) taken: u64,
}

impl<'a> Endless<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, taken: 0 }
    }
}

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self.bytes.read(buffer)? {
            0 => {
                buffer.fill(0);
                buffer.len()
            }
            count => count,
        };
        self.taken += count as u64;
        assert!(self.taken < 1 << 30, "an endless source is read for ever");
        Ok(count)
    }
}
