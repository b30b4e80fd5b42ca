//! SHA-256 of eight blocks at a time, for processors that have AVX2 and no instructions for SHA-256.
//!
//! A block's message schedule depends on the block alone: those of eight blocks are computed side by side, a lane of a vector each.
//! The rounds of one block follow those of the block before, word by word; they are plain arithmetic. The code is plain Rust,
//! compiled for such a processor: the compiler makes the vectors.

#[cfg(target_arch = "x86_64")]
use super::{prime, root_fraction};

/// Goes on with as many blocks as this is good for, from the first on; returns the others.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn compress<'a>(_chain: &mut [u32; 8], blocks: &'a [[u8; 64]]) -> &'a [[u8; 64]] {
    blocks
}

/// Goes on with as many blocks as this is good for, from the first on; returns the others.
#[cfg(target_arch = "x86_64")]
pub(super) fn compress<'a>(chain: &mut [u32; 8], blocks: &'a [[u8; 64]]) -> &'a [[u8; 64]] {
    use std::arch::is_x86_feature_detected as has;

    let (eights, rest) = blocks.as_chunks();
    if eights.is_empty() || has!("sha") || !has!("avx2") || !has!("bmi2") {
        return blocks;
    }
    #[expect(unsafe_code, reason = "the compiler cannot see that the processor was asked")]
    // SAFETY: the processor has what the function was compiled for, as was asked just now.
    unsafe {
        compress_eights(chain, eights);
    }
    rest
}

/// Blocks whose schedules are computed together: words of 32 bits in a vector.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 8;

/// The constants of the rounds: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
#[cfg(target_arch = "x86_64")]
const ROUNDS: [u32; 64] = {
    let (mut rounds, mut index) = ([0; 64], 0);
    while index < 64 {
        rounds[index] = root_fraction(prime(index), 3);
        index += 1;
    }
    rounds
};

/// What each round adds, of every lane: a word of the message schedule and the round's constant.
#[cfg(target_arch = "x86_64")]
type Added = [[u32; LANES]; 64];

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi2")]
fn compress_eights(chain: &mut [u32; 8], eights: &[[[u8; 64]; LANES]]) {
    let mut added = [[0; LANES]; 64];
    for blocks in eights {
        schedule(blocks, &mut added);
        for lane in 0..LANES {
            rounds(chain, &added, lane);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn schedule(blocks: &[[u8; 64]; LANES], words: &mut Added) {
    for (lane, block) in blocks.iter().enumerate() {
        for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            word[lane] = u32::from_be_bytes(*bytes);
        }
    }
    for t in 16..64 {
        let (before, from) = words.split_at_mut(t);
        for (lane, word) in from[0].iter_mut().enumerate() {
            let (early, late) = (before[t - 15][lane], before[t - 2][lane]);
            let early = early.rotate_right(7) ^ early.rotate_right(18) ^ (early >> 3);
            let late = late.rotate_right(17) ^ late.rotate_right(19) ^ (late >> 10);
            *word = before[t - 16][lane].wrapping_add(early).wrapping_add(before[t - 7][lane]).wrapping_add(late);
        }
    }
    for (word, constant) in words.iter_mut().zip(ROUNDS) {
        for word in word {
            *word = word.wrapping_add(constant);
        }
    }
}

/// The rounds of one block. Words change places from round to round: eight rounds bring them back.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn rounds(chain: &mut [u32; 8], added: &Added, lane: usize) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *chain;
    // Where `b` and `c` differ; the next round's is what this round computes of `a` and `b`.
    let mut differ = b ^ c;
    for eight in added.as_chunks::<8>().0 {
        macro_rules! round {
            ($t:literal, $a:ident, $b:ident, $d:ident, $e:ident, $f:ident, $g:ident, $h:ident) => {
                let high = $e.rotate_right(6) ^ $e.rotate_right(11) ^ $e.rotate_right(25);
                // Of `f` where `e` has ones, of `g` where it has zeros: no carry, the halves do not meet.
                $h = $h.wrapping_add(eight[$t][lane]).wrapping_add(!$e & $g).wrapping_add($e & $f).wrapping_add(high);
                $d = $d.wrapping_add($h);
                let low = $a.rotate_right(2) ^ $a.rotate_right(13) ^ $a.rotate_right(22);
                // What most of `a`, `b` and `c` have: `b`, but for where both others differ from it.
                let now = $a ^ $b;
                $h = $h.wrapping_add((now & differ) ^ $b).wrapping_add(low);
                differ = now;
            };
        }
        round!(0, a, b, d, e, f, g, h);
        round!(1, h, a, c, d, e, f, g);
        round!(2, g, h, b, c, d, e, f);
        round!(3, f, g, a, b, c, d, e);
        round!(4, e, f, h, a, b, c, d);
        round!(5, d, e, g, h, a, b, c);
        round!(6, c, d, f, g, h, a, b);
        round!(7, b, c, e, f, g, h, a);
    }
    for (word, more) in chain.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *word = word.wrapping_add(more);
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::arch::is_x86_feature_detected as has;

    /// Where the processor has both, either must give the same; the module's own choice would leave one untried.
    #[test]
    fn eights_give_what_another_implementation_gives() {
        if !has!("avx2") || !has!("bmi2") {
            return;
        }
        let bytes: Vec<u8> = (0..64 * 24_u32).map(|i| ((i * i) >> 3).to_le_bytes()[0]).collect();
        let blocks = bytes.as_chunks().0;
        let (mut ours, mut theirs) = (super::super::START, super::super::START);
        #[expect(unsafe_code, reason = "the compiler cannot see that the processor was asked")]
        // SAFETY: the processor has what the function was compiled for, as was asked just now.
        unsafe {
            super::compress_eights(&mut ours, blocks.as_chunks().0);
        }
        sha2::block_api::compress256(&mut theirs, blocks);
        assert_eq!(ours, theirs);
    }
}
