//! SHA-256 that can be kept in the middle and gone on with later, as fast as the processor allows.
//!
//! Source: FIPS 180-4, sections 4.1.2, 4.2.2, 5.1.1, 5.3.3 and 6.2. Blocks go to `sha2`, which knows the instructions that some
//! processors have for this; where there are none, [`lanes`] takes what comes in eights.

mod lanes;

use std::io::{self, Write};

use crate::{Digest, DigestFunction};

/// Bytes of a block.
const BLOCK: usize = 64;
/// Chaining value before the first block: the first 32 bits of the fractional parts of the square roots of the first eight primes.
const START: [u32; 8] = {
    let (mut start, mut index) = ([0; 8], 0);
    while index < 8 {
        start[index] = root_fraction(prime(index), 2);
        index += 1;
    }
    start
};

/// A SHA-256 over bytes given in pieces.
#[derive(Clone, Debug)]
pub struct Sha256 {
    chain: [u32; 8],
    /// Bytes so far.
    len: u64,
    /// The block that is not whole, `len % 64` bytes of it.
    block: [u8; BLOCK],
}

impl Default for Sha256 {
    fn default() -> Self {
        Self { chain: START, len: 0, block: [0; BLOCK] }
    }
}

impl Sha256 {
    /// Length of a kept state in bytes.
    pub const STATE_BYTES: usize = 32 + 8 + BLOCK;

    /// Starts over no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of the block that is not whole.
    fn filled(&self) -> usize {
        usize::try_from(self.len % BLOCK as u64).expect("a block is short")
    }

    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let filled = self.filled();
        self.len += bytes.len() as u64;
        if filled > 0 {
            let (taken, rest) = bytes.split_at(bytes.len().min(BLOCK - filled));
            self.block[filled..filled + taken.len()].copy_from_slice(taken);
            if filled + taken.len() < BLOCK {
                return;
            }
            compress(&mut self.chain, &[self.block]);
            bytes = rest;
        }
        let (blocks, rest) = bytes.as_chunks();
        compress(&mut self.chain, blocks);
        self.block[..rest.len()].copy_from_slice(rest);
    }

    /// What has been computed so far: chaining value and number of bytes, big-endian, and the block that is not whole, filled up
    /// with zeros.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        let mut state: Vec<u8> = self.chain.iter().flat_map(|word| word.to_be_bytes()).collect();
        state.extend(self.len.to_be_bytes());
        state.extend(&self.block[..self.filled()]);
        state.resize(Self::STATE_BYTES, 0);
        state
    }

    /// Goes on from what [`Sha256::state`] gave; `None` for bytes that are no state.
    #[must_use]
    pub fn resume(state: &[u8]) -> Option<Self> {
        let state: &[u8; Self::STATE_BYTES] = state.try_into().ok()?;
        let (chain, rest) = state.split_first_chunk::<32>()?;
        let (len, block) = rest.split_first_chunk::<8>()?;
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(chain.as_chunks().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        let resumed = Self { chain: words, len: u64::from_be_bytes(*len), block: block.try_into().ok()? };
        resumed.block[resumed.filled()..].iter().all(|byte| *byte == 0).then_some(resumed)
    }

    /// Ends, and names the bytes.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        let bits = self.len.wrapping_mul(8).to_be_bytes();
        let mut end = [0; 2 * BLOCK];
        end[0] = 0x80;
        // A bit that is one, zeros, and the number of bits up to the end of a block.
        let zeros = (2 * BLOCK - 9 - self.filled()) % BLOCK;
        end[1 + zeros..9 + zeros].copy_from_slice(&bits);
        self.update(&end[..9 + zeros]);
        let value: Vec<u8> = self.chain.iter().flat_map(|word| word.to_be_bytes()).collect();
        Digest::from_value(DigestFunction::Sha256, &value).expect("the function's output has the length of its digests")
    }
}

impl Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Goes on with whole blocks.
fn compress(chain: &mut [u32; 8], blocks: &[[u8; BLOCK]]) {
    let rest = lanes::compress(chain, blocks);
    sha2::block_api::compress256(chain, rest);
}

/// The prime at an index, 2 at 0.
const fn prime(index: usize) -> u32 {
    let (mut number, mut left) = (2_u32, index);
    loop {
        let mut divisor = 2;
        while divisor < number && !number.is_multiple_of(divisor) {
            divisor += 1;
        }
        if divisor == number {
            if left == 0 {
                return number;
            }
            left -= 1;
        }
        number += 1;
    }
}

/// The first 32 bits of the fractional part of a small number's square root or cube root.
#[expect(clippy::cast_possible_truncation, reason = "the fraction is what is left")]
const fn root_fraction(number: u32, degree: u32) -> u32 {
    // The whole root of the number, moved by as many times 32 bits as the degree: its last 32 bits are the fraction.
    let moved = (number as u128) << (32 * degree);
    let (mut low, mut high) = (0, 1_u128 << 40);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if middle.pow(degree) <= moved {
            low = middle;
        } else {
            high = middle;
        }
    }
    low as u32
}

#[cfg(test)]
mod tests {
    use sha2::Digest as _;

    use super::*;

    fn bytes(len: u32) -> Vec<u8> {
        (0..len).map(|i| (i % 251).to_le_bytes()[0]).collect()
    }

    fn named(bytes: &[u8]) -> Digest {
        Digest::from_value(DigestFunction::Sha256, &sha2::Sha256::digest(bytes)).expect("32 bytes")
    }

    /// FIPS 180-4 lists the constants; the examples of its first edition are the first two of these.
    #[test]
    fn the_examples_of_the_standard() {
        assert_eq!((START[0], START[7]), (0x6a09_e667, 0x5be0_cd19));
        let of = |bytes: &[u8]| {
            let mut sha256 = Sha256::new();
            sha256.update(bytes);
            sha256.finish().to_hex()
        };
        assert_eq!(of(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            of(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(of(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn pieces_of_any_length_give_what_another_implementation_gives() {
        let bytes = bytes(5000);
        for len in (0..200).chain([511, 512, 513, 575, 1023, 1024, 4999, 5000]) {
            let expected = named(&bytes[..len]);
            for piece in [1, 3, 63, 64, 65, 128, 500, 512, 600, 5000] {
                let mut sha256 = Sha256::new();
                bytes[..len].chunks(piece).for_each(|piece| sha256.update(piece));
                assert_eq!(sha256.finish(), expected, "{len} bytes in pieces of {piece}");
            }
        }
    }

    /// Blocks that go through the lanes are many times as many as those that do not.
    #[test]
    fn long_bytes_give_what_another_implementation_gives() {
        let bytes = bytes(1 << 20);
        let mut sha256 = Sha256::new();
        sha256.update(&bytes);
        assert_eq!(sha256.finish(), named(&bytes));
    }

    #[test]
    fn a_kept_state_goes_on_where_it_was() {
        let bytes = bytes(1000);
        for cut in [0, 1, 63, 64, 65, 512, 999, 1000] {
            let mut first = Sha256::new();
            first.update(&bytes[..cut]);
            let state = first.state();
            assert_eq!(state.len(), Sha256::STATE_BYTES);
            let mut second = Sha256::resume(&state).expect("it is a state");
            assert_eq!(second.state(), state);
            second.update(&bytes[cut..]);
            assert_eq!(second.finish(), named(&bytes), "cut at {cut}");
            assert!(Sha256::resume(&state[1..]).is_none());
        }
        let mut wrong = Sha256::new().state();
        wrong[Sha256::STATE_BYTES - 1] = 1;
        assert!(Sha256::resume(&wrong).is_none(), "there are bytes behind the end");
    }
}
