//! Compressed bitmaps, as git writes them: EWAH with words of 64 bits.
//!
//! Source: git's Documentation/technical/bitmap-format.adoc, Appendix A. A bitmap becomes the ranges of its set bits, so
//! that a run of a billion costs no more than the word that says so.

use std::ops::Range;

use crate::IndexError;
use crate::index::Reader;

const PART: &str = "a bitmap";

/// Ranges of set bits, in order, none next to another.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Vec<Range<u32>>, IndexError> {
    let bit_count = u64::from(reader.number(PART)?);
    let word_count = reader.number(PART)? as usize;
    let words = reader.take(word_count.saturating_mul(8), PART)?;
    // Where the last marker is: only writers need it.
    reader.number(PART)?;
    let mut words = words.chunks_exact(8).map(|word| u64::from_be_bytes(word.try_into().expect("eight bytes")));
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let mut at = 0u64;
    let mut add = |start: u64, end: u64| {
        // Bits past the end are padding of the last word.
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end.min(bit_count))) else { return };
        match ranges.last_mut() {
            _ if start >= end => {}
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    };
    while let Some(marker) = words.next() {
        let run = (marker >> 1 & 0xffff_ffff) * 64;
        if marker & 1 == 1 {
            add(at, at + run);
        }
        at += run;
        for _ in 0..marker >> 33 {
            let mut word = words.next().ok_or(IndexError::Link { problem: "a bitmap lacks words" })?;
            let mut base = at;
            while word != 0 {
                let zeros = word.trailing_zeros();
                word = word.checked_shr(zeros).unwrap_or(0);
                let ones = word.trailing_ones();
                base += u64::from(zeros);
                add(base, base + u64::from(ones));
                base += u64::from(ones);
                word = word.checked_shr(ones).unwrap_or(0);
            }
            at += 64;
        }
        if at > bit_count + 64 {
            return Err(IndexError::Link { problem: "a bitmap is longer than it says" });
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bit_count: u32, words: &[u64]) -> Vec<u8> {
        let mut bytes = bit_count.to_be_bytes().to_vec();
        bytes.extend(u32::try_from(words.len()).expect("few").to_be_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "ranges are what is decoded")]
    fn runs_and_words() {
        let marker = |bit: u64, run: u64, literals: u64| bit | run << 1 | literals << 33;
        for (bit_count, words, expected) in [
            (0, vec![], Ok(vec![])),
            (3, vec![marker(0, 0, 1), 0b101], Ok(vec![0..1, 2..3])),
            (128, vec![marker(1, 1, 1), 0b11], Ok(vec![0..66])),
            (200, vec![marker(0, 2, 1), u64::MAX], Ok(vec![128..192])),
            (70, vec![marker(1, 2, 0)], Ok(vec![0..70])),
            (200, vec![marker(0, 1, 1), 1 << 63, marker(1, 1, 0)], Ok(vec![127..192])),
            (64, vec![marker(0, 0, 2), 1], Err(IndexError::Link { problem: "a bitmap lacks words" })),
            (64, vec![marker(1, 0xffff_ffff, 0)], Err(IndexError::Link { problem: "a bitmap is longer than it says" })),
        ] {
            let bytes = encode(bit_count, &words);
            assert_eq!(decode(&mut Reader { bytes: &bytes, at: 0 }), expected, "{words:x?}");
        }
    }
}
