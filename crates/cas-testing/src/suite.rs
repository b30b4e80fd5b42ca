//! What every place that blobs can be put into promises, as one suite.

use std::io::Read;

use cas_blob::{BlobStore, Descriptor, OpenBlobError};
use cas_digest::DigestFunction;

use crate::sources::{Endless, Failing, Interrupted, bytes};

/// Functions that name blobs. SHA-1 names none.
const FUNCTIONS: [DigestFunction; 3] = [DigestFunction::Blake3, DigestFunction::Sha256, DigestFunction::Sha512];
/// Where places may begin to treat blobs in another way.
const BOUNDARY: usize = 256 * 1024;
const SIZES: [usize; 6] = [0, 1, BOUNDARY - 1, BOUNDARY, BOUNDARY + 1, 3 << 20];

/// Runs all checks, each with an empty place of its own. What is wrong is a panic.
pub fn conformance<S: BlobStore>(make: impl Fn() -> S) {
    let checks: [fn(&S); 9] = [
        what_is_put_is_here_and_reads_back,
        the_empty_blob_is_everywhere,
        unknown_blobs_are_misses,
        many_are_answered_in_their_order,
        other_bytes_than_announced_leave_nothing,
        sources_that_fail_leave_nothing,
        interruptions_are_no_failures,
        readers_may_stop_anywhere,
        writers_of_one_blob_agree,
    ];
    for check in checks {
        check(&make());
    }
}

/// Bytes of a blob; `None` when it is not here.
#[track_caller]
fn read(store: &impl BlobStore, blob: &Descriptor) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    match store.open_blob(blob) {
        Ok(mut reader) => drop(reader.read_to_end(&mut content).unwrap()),
        Err(OpenBlobError::Missing(missing)) => {
            assert_eq!(missing, *blob);
            return None;
        }
        Err(error) => panic!("{blob} is neither here nor a miss: {error:?}"),
    }
    Some(content)
}

#[track_caller]
fn assert_here(store: &impl BlobStore, blob: &Descriptor, bytes: &[u8]) {
    assert!(store.has(blob).unwrap(), "{blob} is not here");
    assert_eq!(store.has_many(&[*blob]).unwrap(), [true], "{blob}");
    assert!(read(store, blob).as_deref() == Some(bytes), "{blob} has other bytes, or none");
}

#[track_caller]
fn assert_gone(store: &impl BlobStore, blob: &Descriptor) {
    assert!(!store.has(blob).unwrap(), "{blob} is said to be here");
    assert_eq!(store.has_many(&[*blob]).unwrap(), [false], "{blob}");
    assert!(read(store, blob).is_none(), "{blob} can be read");
}

fn what_is_put_is_here_and_reads_back<S: BlobStore>(store: &S) {
    for function in FUNCTIONS {
        for (salt, size) in (0..).zip(SIZES) {
            let bytes = bytes(size, salt);
            let blob = Descriptor::of(function, &bytes);
            if size > 0 {
                assert_gone(store, &blob);
            }
            // Twice in each way: the second time it is there already.
            for _ in 0..2 {
                assert_eq!(store.put(function, &mut bytes.as_slice()).unwrap(), blob);
                assert_here(store, &blob, &bytes);
            }
            let announced = self::bytes(size, salt + 100);
            let blob = Descriptor::of(function, &announced);
            for _ in 0..2 {
                let proof = store.put_expected(&mut announced.as_slice(), &blob).unwrap();
                assert_eq!(proof.descriptor(), blob);
                assert_here(store, &blob, &announced);
            }
        }
    }
    // Nothing that came later took the place of something else.
    for function in FUNCTIONS {
        for (salt, size) in (0..).zip(SIZES) {
            for salt in [salt, salt + 100] {
                let bytes = bytes(size, salt);
                assert_here(store, &Descriptor::of(function, &bytes), &bytes);
            }
        }
    }
}

fn the_empty_blob_is_everywhere<S: BlobStore>(store: &S) {
    for function in FUNCTIONS {
        let empty = Descriptor::empty(function);
        assert_here(store, &empty, b"");
        let lie = Descriptor { size: 0, ..Descriptor::of(function, b"x") };
        assert_gone(store, &lie);
        assert!(store.put_expected(&mut &b""[..], &lie).is_err(), "nothing was taken for {lie}");
        assert!(store.put_expected(&mut &b"x"[..], &empty).is_err(), "a byte was taken for nothing");
        assert_gone(store, &lie);
        assert_here(store, &empty, b"");
        assert_eq!(store.put(function, &mut &b""[..]).unwrap(), empty);
        assert_eq!(store.put_expected(&mut &b""[..], &empty).unwrap().descriptor(), empty);
    }
}

fn unknown_blobs_are_misses<S: BlobStore>(store: &S) {
    for function in FUNCTIONS {
        for size in SIZES.into_iter().filter(|size| *size > 0) {
            let bytes = bytes(size, 1);
            let blob = Descriptor::of(function, &bytes);
            assert_gone(store, &blob);
            store.put(function, &mut bytes.as_slice()).unwrap();
            // The size is part of the name.
            for size in [0, blob.size - 1, blob.size + 1, u64::MAX] {
                assert_gone(store, &Descriptor { size, ..blob });
            }
            assert_here(store, &blob, &bytes);
            // The same bytes by another function's name are another blob's matter: it may be here, with these bytes alone.
            for other in FUNCTIONS.into_iter().filter(|other| *other != function) {
                let name = Descriptor::of(other, &bytes);
                assert_eq!(read(store, &name).is_some(), store.has(&name).unwrap(), "{name}");
            }
        }
    }
}

fn many_are_answered_in_their_order<S: BlobStore>(store: &S) {
    assert_eq!(store.has_many(&[]).unwrap(), [false; 0]);
    let mut asked = Vec::new();
    let mut expected = Vec::new();
    for number in 0..200_u8 {
        let bytes = [number, 7];
        let function = FUNCTIONS[usize::from(number) % FUNCTIONS.len()];
        let blob = Descriptor::of(function, &bytes);
        let is_put = number % 3 != 0;
        if is_put {
            store.put(function, &mut bytes.as_slice()).unwrap();
        }
        // Some are asked for twice in a row, some again at the end.
        for _ in 0..1 + number % 2 {
            asked.push(blob);
            expected.push(is_put);
        }
    }
    asked.push(Descriptor::empty(DigestFunction::Sha256));
    expected.push(true);
    asked.extend_from_within(..50);
    expected.extend_from_within(..50);
    assert_eq!(store.has_many(&asked).unwrap(), expected);
}

fn other_bytes_than_announced_leave_nothing<S: BlobStore>(store: &S) {
    for function in FUNCTIONS {
        for (salt, size) in (0..).zip(SIZES).filter(|(_, size)| *size > 0) {
            let right = bytes(size, salt);
            let blob = Descriptor::of(function, &right);
            let mut flipped = right.clone();
            flipped[size / 2] ^= 1;
            let longer = [right.as_slice(), b"x"].concat();
            let wrong: [&[u8]; 5] = [&flipped, &right[..size - 1], &right[..size / 2], b"", &longer];
            let refuse = || {
                for wrong in wrong {
                    assert!(store.put_expected(&mut &*wrong, &blob).is_err(), "{} bytes for {blob}", wrong.len());
                    if !wrong.is_empty() {
                        assert_gone(store, &Descriptor::of(function, wrong));
                    }
                }
                let mut endless = Endless::new(&right);
                assert!(store.put_expected(&mut endless, &blob).is_err(), "an endless source for {blob}");
                assert!(endless.taken <= blob.size + 1, "{} bytes were taken for {blob}", endless.taken);
                // The right bytes under a wrong size.
                for size in [blob.size - 1, blob.size + 1] {
                    let lie = Descriptor { size, ..blob };
                    assert!(store.put_expected(&mut right.as_slice(), &lie).is_err(), "{lie}");
                    assert_gone(store, &lie);
                }
            };
            refuse();
            assert_gone(store, &blob);
            store.put_expected(&mut right.as_slice(), &blob).unwrap();
            // What is here already stays as it is, and excuses nothing.
            refuse();
            assert_here(store, &blob, &right);
        }
    }
}

fn sources_that_fail_leave_nothing<S: BlobStore>(store: &S) {
    for function in FUNCTIONS {
        for (salt, size) in (0..).zip(SIZES) {
            let bytes = bytes(size, salt);
            for length in [0, size / 2, size] {
                let part = &bytes[..length];
                assert!(store.put(function, &mut Failing(part)).is_err(), "{length} bytes, then an error");
                if length > 0 {
                    assert_gone(store, &Descriptor::of(function, part));
                }
                if size > 0 {
                    let blob = Descriptor::of(function, &bytes);
                    assert!(
                        store.put_expected(&mut Failing(part), &blob).is_err(),
                        "{length} of {blob}, then an error"
                    );
                    assert_gone(store, &blob);
                }
            }
        }
    }
}

fn interruptions_are_no_failures<S: BlobStore>(store: &S) {
    for (salt, size) in (0..).zip(SIZES) {
        let (one, other) = (bytes(size, salt), bytes(size, salt + 100));
        let blob = store.put(DigestFunction::Blake3, &mut Interrupted::new(&one)).unwrap();
        assert_eq!(blob, Descriptor::of(DigestFunction::Blake3, &one));
        assert_here(store, &blob, &one);
        let blob = Descriptor::of(DigestFunction::Sha256, &other);
        store.put_expected(&mut Interrupted::new(&other), &blob).unwrap();
        assert_here(store, &blob, &other);
    }
}

fn readers_may_stop_anywhere<S: BlobStore>(store: &S) {
    for size in SIZES {
        let bytes = bytes(size, 4);
        let blob = store.put(DigestFunction::Blake3, &mut bytes.as_slice()).unwrap();
        for length in [0, size / 2, size.saturating_sub(1), size] {
            let mut part = vec![0; length];
            let mut reader = store.open_blob(&blob).unwrap();
            reader.read_exact(&mut part).unwrap();
            assert!(part == bytes[..length], "{length} bytes of {blob}");
            // Two readers of one blob have nothing to do with each other.
            assert_here(store, &blob, &bytes);
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            assert!(rest == bytes[length..], "all but {length} bytes of {blob}");
            assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0, "there is something behind the end of {blob}");
            drop((store.open_blob(&blob).unwrap(), part));
        }
    }
}

fn writers_of_one_blob_agree<S: BlobStore>(store: &S) {
    for size in SIZES {
        let bytes = bytes(size, 5);
        let blob = Descriptor::of(DigestFunction::Blake3, &bytes);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let bytes = &bytes;
                scope.spawn(move || match number % 2 {
                    0 => assert_eq!(store.put(DigestFunction::Blake3, &mut bytes.as_slice()).unwrap(), blob),
                    _ => drop(store.put_expected(&mut bytes.as_slice(), &blob).unwrap()),
                });
            }
            // Whoever reads meanwhile gets all or nothing.
            scope.spawn(|| {
                for _ in 0..20 {
                    let is_here = store.has(&blob).unwrap();
                    match read(store, &blob) {
                        Some(found) => assert!(found == bytes, "half of {blob} was read"),
                        None => assert!(!is_here, "{blob} was said to be here"),
                    }
                }
            });
        });
        assert_here(store, &blob, &bytes);
    }
}

/// Uses a place while what is below it fails by lot, and says how many calls failed and how many did not.
///
/// Every call gives the right answer or an error; when the faults have ended, what was put is here, and what could not be
/// put can be. `open` opens the same place each time, `fail` begins and ends the faults; `seed` chooses what is done.
pub fn conformance_with_faults<S: BlobStore>(open: impl Fn() -> S, fail: impl Fn(bool), seed: u64) -> (u64, u64) {
    let mut random = seed;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % limit
    };
    let contents: Vec<(Descriptor, Vec<u8>)> = (0..24_u8)
        .map(|salt| {
            let size = [1, 100, 5000, BOUNDARY, BOUNDARY + 1, 600_000][usize::from(salt) % 6];
            let bytes = bytes(size, salt);
            (Descriptor::of(FUNCTIONS[usize::from(salt) % 3], &bytes), bytes)
        })
        .collect();
    let mut put = vec![false; contents.len()];
    let mut tried = vec![false; contents.len()];
    let (mut failures, mut successes) = (0, 0);
    let store = open();
    fail(true);
    for _ in 0..300 {
        let at = below(contents.len());
        let (blob, bytes) = &contents[at];
        let is_done = match below(8) {
            0 | 1 => {
                tried[at] = true;
                let result = store.put(blob.digest.function(), &mut Interrupted::new(bytes));
                if let Ok(name) = &result {
                    assert_eq!(name, blob, "seed {seed}");
                    put[at] = true;
                }
                result.is_ok()
            }
            2 | 3 => {
                tried[at] = true;
                let result = store.put_expected(&mut bytes.as_slice(), blob);
                if let Ok(proof) = &result {
                    assert_eq!(proof.descriptor(), *blob, "seed {seed}");
                    put[at] = true;
                }
                result.is_ok()
            }
            4 => {
                let wrong = &contents[(at + 6) % contents.len()].1;
                assert!(
                    store.put_expected(&mut wrong.as_slice(), blob).is_err(),
                    "seed {seed}: wrong bytes for {blob}"
                );
                continue;
            }
            5 => {
                let asked: Vec<Descriptor> = contents.iter().map(|(blob, _)| *blob).collect();
                let result = store.has_many(&asked);
                if let Ok(answers) = &result {
                    assert_eq!(answers.len(), asked.len(), "seed {seed}");
                    for (at, is_here) in answers.iter().enumerate() {
                        // A put that failed may have come as far as to be here.
                        let is_right = if put[at] { *is_here } else { tried[at] || !is_here };
                        assert!(is_right, "seed {seed}: {} is said to be here: {is_here}", contents[at].0);
                    }
                }
                result.is_ok()
            }
            6 => {
                let result = store.has(blob);
                if let Ok(is_here) = &result {
                    let is_right = if put[at] { *is_here } else { tried[at] || !is_here };
                    assert!(is_right, "seed {seed}: {blob} is said to be here: {is_here}");
                }
                result.is_ok()
            }
            _ => {
                let mut found = Vec::new();
                match store.open_blob(blob) {
                    Ok(mut reader) => {
                        let is_read = reader.read_to_end(&mut found).is_ok();
                        assert!(!is_read || found == *bytes, "seed {seed}: {blob} has other bytes");
                        is_read
                    }
                    Err(OpenBlobError::Missing(_)) => {
                        assert!(!put[at], "seed {seed}: {blob} was put and is gone");
                        true
                    }
                    Err(_) => false,
                }
            }
        };
        *(if is_done { &mut successes } else { &mut failures }) += 1;
    }
    fail(false);
    // Some of what is below fails for good: the place is opened again.
    drop(store);
    let store = open();
    for (at, (blob, bytes)) in contents.iter().enumerate() {
        if put[at] {
            assert_here(&store, blob, bytes);
        } else if !tried[at] {
            assert_gone(&store, blob);
        }
    }
    for (blob, bytes) in &contents {
        assert_eq!(store.put(blob.digest.function(), &mut bytes.as_slice()).unwrap(), *blob, "seed {seed}");
        assert_here(&store, blob, bytes);
    }
    (failures, successes)
}
