//! Every decoder of outside bytes gets damaged ones: it must return, with a value or an error, and never panic.
//!
//! Each target is a valid input and a function; inputs are mutated by a generator with a fixed seed, so that a failure
//! repeats. `cargo test --test fuzz` does a few thousand rounds of each; the variable `CAS_FUZZ_SECONDS` makes every
//! target go on for so long, with another seed each time, and a failing input is written to the temporary folder.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "a test reads its environment and the clock plainly")]
#![expect(clippy::print_stderr, reason = "a failing input is named")]

mod builds;
mod images;
mod packages;
mod registries;
mod stores;
#[path = "../common/toolchain.rs"]
mod toolchain;
mod workspaces;

use std::time::{Duration, Instant};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Metadata, Node, RelPath};

const ROUNDS: u64 = 3000;
/// So many keys take longer than other seeds.
const KEYRING_ROUNDS: u64 = 300;
/// A round of a whole store takes so much longer.
const STORE_ROUNDS: u64 = 20;
/// No single input takes longer.
const SLOW: Duration = Duration::from_secs(5);

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }
}

/// Values at which fields are often wrong.
const ODD: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"/",
    b"..",
    b"../../x",
    b"\n",
    b"-1",
    b"99999999999999999999",
    b"{",
    b"[",
    b"\"",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"%",
    b" ",
    b"18446744073709551615",
];

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => bytes.truncate(at),
            3 => {
                let odd = ODD[random.below(ODD.len())];
                bytes.splice(at..at, odd.iter().copied());
            }
            4 => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + random.below(256)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            _ => {
                let odd = ODD[random.below(ODD.len())];
                let end = (at + odd.len()).min(bytes.len());
                bytes.splice(at..end, odd.iter().copied());
            }
        }
    }
    bytes
}

#[track_caller]
fn fuzz(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    fuzz_rounds(name, ROUNDS, seeds, target);
}

#[track_caller]
fn fuzz_rounds(name: &str, rounds: u64, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    for seed in seeds {
        target(seed);
    }
    let soak = std::env::var("CAS_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let started = Instant::now();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let mut random = Random(if soak.is_some() { clock | 1 } else { 0x9E37_79B9_7F4A_7C15 });
    let mut round = 0;
    while soak.map_or(round < rounds, |soak| started.elapsed() < soak) {
        round += 1;
        let bytes = mutate(&seeds[random.below(seeds.len())], &mut random);
        let begun = Instant::now();
        let result = std::panic::catch_unwind(|| target(&bytes));
        if result.is_err() || begun.elapsed() > SLOW {
            let path = std::env::temp_dir().join(format!("cas-fuzz-{name}"));
            std::fs::write(&path, &bytes).unwrap();
            eprintln!("round {round} of {name} failed; the input is in {}", path.display());
            panic!("{name} panicked or was slow");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn tree() -> Directory {
    let mut tree = Directory::root();
    let blob = Descriptor::of(DigestFunction::Blake3, b"x");
    let parents = Metadata::root_owned(0o755);
    for (at, node) in [
        ("a/b", Node::file(blob, 0o4755)),
        ("a/c", Node::Link { target: path("a/b") }),
        ("d", Node::symlink("a")),
        ("ü/e", Node::file(blob, 0o644)),
    ] {
        tree.insert(&path(at), node, &parents).unwrap();
    }
    tree
}
