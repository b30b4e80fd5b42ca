//! Made up trees of many files: the same bytes each time, in the sizes of real trees, compressible as those are.
//!
//! Each file is made of its number alone, so a smaller tree is the beginning of a larger one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::random::Random;
use crate::run::Failure;

/// Of a thousand files, how many have a size between two limits; 20 KB come out in the mean.
const SIZES: [(usize, usize, usize); 5] =
    [(400, 200, 2_000), (350, 2_000, 12_000), (200, 12_000, 60_000), (46, 60_000, 220_000), (4, 220_000, 2_000_000)];
/// Of a hundred parts of a file, those of bytes that nothing compresses.
const NOISE: usize = 16;
/// Bytes of a part.
const PART: (usize, usize) = (100, 1_000);
const WORDS: usize = 4096;
const ENDINGS: [&str; 5] = ["js", "json", "so", "md", "d.ts"];
/// Every so many files one is executable.
const EXECUTABLE: usize = 20;

/// Writes `count` files below a new folder.
pub(super) fn fill(folder: &Path, count: usize, seed: u64) -> Result<(), Failure> {
    let words = words(seed);
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| {
        let working: Vec<_> = (0..threads)
            .map(|thread| {
                let words = &words;
                scope.spawn(move || {
                    // A folder has a hundred files, and is one thread's.
                    (0..count)
                        .filter(|number| number / 100 % threads == thread)
                        .try_for_each(|number| write(folder, number, seed, words))
                })
            })
            .collect();
        for thread in working {
            thread.join().map_err(|_| "a thread that writes files panicked")??;
        }
        Ok(())
    })
}

fn write(folder: &Path, number: usize, seed: u64, words: &[String]) -> std::io::Result<()> {
    let within = folder.join(format!("lib/p{:03}/d{}", number / 1000, number / 100 % 10));
    if number.is_multiple_of(100) {
        fs::create_dir_all(&within)?;
    }
    let mut random = Random(seed.wrapping_mul(1 << 32).wrapping_add(u64::try_from(number).unwrap_or(0)));
    // Neighbouring seeds give neighbouring first numbers.
    for _ in 0..4 {
        random.next();
    }
    let ending = ENDINGS[random.below(ENDINGS.len())];
    let path = within.join(format!("file-{:02}.{ending}", number % 100));
    let size = size(&mut random);
    fs::write(&path, content(&mut random, size, words))?;
    let mode = if number.is_multiple_of(EXECUTABLE) { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
}

fn size(random: &mut Random) -> usize {
    let mut left = random.below(1000);
    for (share, least, most) in SIZES {
        if left < share {
            return least + random.below(most - least);
        }
        left -= share;
    }
    unreachable!("the shares make up a thousand")
}

fn content(random: &mut Random, size: usize, words: &[String]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + PART.1);
    while bytes.len() < size {
        let end = bytes.len() + PART.0 + random.below(PART.1 - PART.0);
        if random.below(100) < NOISE {
            while bytes.len() < end {
                bytes.extend_from_slice(&(random.next() >> 16).to_le_bytes()[..6]);
            }
        } else {
            while bytes.len() < end {
                // Few words are used often, as in any text.
                let rank = random.below(WORDS) * random.below(WORDS) / WORDS;
                bytes.extend_from_slice(words[rank].as_bytes());
            }
        }
    }
    bytes.truncate(size);
    bytes
}

/// Words of two to five syllables, with what separates them.
fn words(seed: u64) -> Vec<String> {
    let mut random = Random(seed);
    (0..WORDS)
        .map(|_| {
            let mut word = String::new();
            for _ in 0..2 + random.below(4) {
                word.push(char::from(b"bcdfghjklmnprstvwz"[random.below(18)]));
                word.push(char::from(b"aeiou"[random.below(5)]));
            }
            word.push_str([" ", " ", " ", ", ", "\n    ", "(", "): ", " = "][random.below(8)]);
            word
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_mean_that_two_gigabytes_of_a_hundred_thousand_files_need() {
        let mut random = Random(7);
        let total: usize = (0..100_000).map(|_| size(&mut random)).sum();
        assert!((1_900_000_000..2_200_000_000).contains(&total), "{total}");
        assert_eq!(SIZES.iter().map(|(share, ..)| share).sum::<usize>(), 1000);
    }

    #[test]
    fn a_file_is_the_same_in_trees_of_any_size() {
        let words = words(1);
        let once = content(&mut Random(5), 5000, &words);
        assert_eq!(once, content(&mut Random(5), 5000, &words));
        assert_ne!(once, content(&mut Random(6), 5000, &words));
    }
}
