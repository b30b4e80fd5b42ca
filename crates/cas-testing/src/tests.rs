//! The suite passes what is right and finds what is not.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cas_blob::{BlobStore, Descriptor, OpenBlob, OpenBlobError, VerifiedBlob, VerifyError};
use cas_digest::DigestFunction;

use crate::{MemoryError, MemoryStore, conformance, conformance_with_faults};

#[test]
fn a_store_in_memory_passes() {
    conformance(MemoryStore::default);
}

/// A mistake that a place could make.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    BelievesSizes,
    CountsDuplicatesOnce,
    DamagesLongOnes,
    TakesAllBeforeItLooks,
    KeepsWhatItRefuses,
    KeepsHalfOfAFailure,
    FailsWhenInterrupted,
    HasNothingEmpty,
    KnowsOneFunction,
    ForgetsWhatIsPutTwice,
    EndsEarly,
}

const FLAWS: [Flaw; 11] = [
    Flaw::BelievesSizes,
    Flaw::CountsDuplicatesOnce,
    Flaw::DamagesLongOnes,
    Flaw::TakesAllBeforeItLooks,
    Flaw::KeepsWhatItRefuses,
    Flaw::KeepsHalfOfAFailure,
    Flaw::FailsWhenInterrupted,
    Flaw::HasNothingEmpty,
    Flaw::KnowsOneFunction,
    Flaw::ForgetsWhatIsPutTwice,
    Flaw::EndsEarly,
];

struct Flawed(MemoryStore, Flaw);

impl OpenBlob for Flawed {
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError> {
        let mut bytes = Vec::new();
        self.0.open_blob(blob)?.read_to_end(&mut bytes).unwrap();
        match self.1 {
            Flaw::DamagesLongOnes if bytes.len() > 1 << 20 => bytes[7] ^= 1,
            Flaw::EndsEarly if bytes.len() > 256 << 10 => bytes.truncate(256 << 10),
            _ => {}
        }
        Ok(Box::new(Cursor::new(bytes)))
    }
}

impl BlobStore for Flawed {
    type Error = MemoryError;

    fn has(&self, blob: &Descriptor) -> Result<bool, MemoryError> {
        match self.1 {
            Flaw::BelievesSizes => {
                Ok(self.0.has(&Descriptor { size: blob.size.saturating_sub(1), ..*blob })? || self.0.has(blob)?)
            }
            Flaw::HasNothingEmpty if blob.size == 0 => Ok(false),
            _ => self.0.has(blob),
        }
    }

    fn has_many(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, MemoryError> {
        let mut blobs = blobs.to_vec();
        if self.1 == Flaw::CountsDuplicatesOnce {
            blobs.dedup();
        }
        self.0.has_many(&blobs)
    }

    fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, MemoryError> {
        let function = if self.1 == Flaw::KnowsOneFunction { DigestFunction::Blake3 } else { function };
        let mut bytes = Vec::new();
        match (source.read_to_end(&mut bytes), self.1) {
            (Ok(_), Flaw::ForgetsWhatIsPutTwice) if self.0.has(&Descriptor::of(function, &bytes))? => {
                self.0.forget(&Descriptor::of(function, &bytes));
                Ok(Descriptor::of(function, &bytes))
            }
            (Ok(_), _) => self.0.put(function, &mut bytes.as_slice()),
            (Err(error), Flaw::KeepsHalfOfAFailure) => {
                self.0.put(function, &mut bytes.as_slice())?;
                Err(MemoryError::Source(error))
            }
            (Err(error), _) => Err(MemoryError::Source(error)),
        }
    }

    fn put_expected(&self, source: &mut dyn Read, expected: &Descriptor) -> Result<VerifiedBlob, MemoryError> {
        let mut bytes = Vec::new();
        match self.1 {
            Flaw::TakesAllBeforeItLooks => {
                source.take(1 << 30).read_to_end(&mut bytes).map_err(MemoryError::Source)?;
                self.0.put_expected(&mut bytes.as_slice(), expected)
            }
            Flaw::KeepsWhatItRefuses => {
                let read = source.take(expected.size + 1).read_to_end(&mut bytes);
                read.map_err(|source| VerifyError::Read { expected: *expected, source })?;
                self.0.put(expected.digest.function(), &mut bytes.as_slice())?;
                Ok(cas_blob::verify_bytes(&bytes, expected)?)
            }
            Flaw::FailsWhenInterrupted => {
                let mut buffer = vec![0; 1 << 16];
                while let count @ 1.. = source.read(&mut buffer).map_err(MemoryError::Source)? {
                    bytes.extend(&buffer[..count]);
                    if bytes.len() as u64 > expected.size {
                        break;
                    }
                }
                self.0.put_expected(&mut bytes.as_slice(), expected)
            }
            _ => self.0.put_expected(source, expected),
        }
    }
}

#[test]
fn each_flaw_is_found() {
    let unnoticed: Vec<Flaw> = FLAWS
        .into_iter()
        .filter(|flaw| catch_unwind(|| conformance(|| Flawed(MemoryStore::default(), *flaw))).is_ok())
        .collect();
    assert_eq!(unnoticed, []);
}

/// What a place over something that fails may get wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    /// Nothing.
    Error,
    SaysItWasPut,
    SaysItIsHere,
    SaysItIsGone,
    GivesOtherBytes,
}

/// A place whose calls fail now and then.
struct Failing<'a> {
    store: &'a MemoryStore,
    is_failing: &'a AtomicBool,
    calls: AtomicU64,
    answer: Answer,
}

impl Failing<'_> {
    /// The error of this call, if it is one that fails.
    fn fault(&self) -> Option<std::io::Error> {
        let fails = self.is_failing.load(Ordering::Relaxed) && self.calls.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        fails.then(|| std::io::ErrorKind::Other.into())
    }
}

impl OpenBlob for Failing<'_> {
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError> {
        match self.fault() {
            None => self.store.open_blob(blob),
            Some(_) if self.answer == Answer::GivesOtherBytes => Ok(Box::new(&b"other"[..])),
            Some(_) if self.answer == Answer::SaysItIsGone => Err(OpenBlobError::Missing(*blob)),
            Some(source) => Err(OpenBlobError::Io { blob: *blob, source }),
        }
    }
}

impl BlobStore for Failing<'_> {
    type Error = MemoryError;

    fn has(&self, blob: &Descriptor) -> Result<bool, MemoryError> {
        match self.fault() {
            None => self.store.has(blob),
            Some(_) if self.answer == Answer::SaysItIsHere => Ok(true),
            Some(_) if self.answer == Answer::SaysItIsGone => Ok(false),
            Some(error) => Err(MemoryError::Source(error)),
        }
    }

    fn has_many(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, MemoryError> {
        match self.fault() {
            None => self.store.has_many(blobs),
            Some(error) => Err(MemoryError::Source(error)),
        }
    }

    fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, MemoryError> {
        match self.fault() {
            None => self.store.put(function, source),
            Some(_) if self.answer == Answer::SaysItWasPut => MemoryStore::default().put(function, source),
            Some(error) => Err(MemoryError::Source(error)),
        }
    }

    fn put_expected(&self, source: &mut dyn Read, expected: &Descriptor) -> Result<VerifiedBlob, MemoryError> {
        match self.fault() {
            None => self.store.put_expected(source, expected),
            Some(error) => Err(MemoryError::Source(error)),
        }
    }
}

#[test]
fn errors_are_right_and_wrong_answers_are_found() {
    let answers =
        [Answer::Error, Answer::SaysItWasPut, Answer::SaysItIsHere, Answer::SaysItIsGone, Answer::GivesOtherBytes];
    for answer in answers {
        let (store, is_failing) = (MemoryStore::default(), AtomicBool::default());
        let open = || Failing { store: &store, is_failing: &is_failing, calls: AtomicU64::new(0), answer };
        let fail = |fails| is_failing.store(fails, Ordering::Relaxed);
        let result = catch_unwind(AssertUnwindSafe(|| conformance_with_faults(open, fail, 1)));
        match result {
            Ok((failures, successes)) => {
                assert_eq!(answer, Answer::Error, "it is not found");
                assert!(failures > 50 && successes > 50, "{failures} failures, {successes} successes");
            }
            Err(_) => assert_ne!(answer, Answer::Error, "errors are taken for wrong answers"),
        }
    }
}
