//! Signing a thousand digests and checking as many, on one core: rows of a table, for `cargo xtask bench registry`.

#![expect(clippy::print_stdout, reason = "the rows are what it is for")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use cas_attest::{
    Bundle, Expectation, KeyAlgorithm, KeySet, PrivateKey, SIGN_PREDICATE, Statement, Subject, TrustedKey,
    verify_bundles,
};
use cas_digest::{Digest, DigestFunction};

const COUNT: usize = 1000;
const TURNS: usize = 5;

fn main() {
    for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::EcdsaP256] {
        let mut next = 0_u8;
        let key = PrivateKey::generate(algorithm, &mut |bytes: &mut [u8]| {
            for byte in bytes {
                next = next.wrapping_mul(5).wrapping_add(41);
                *byte = next;
            }
            Ok(())
        });
        let key = key.expect("the numbers are a key");
        let digests: Vec<Digest> =
            (0..COUNT).map(|number| Digest::of(DigestFunction::Sha256, &number.to_le_bytes())).collect();
        let mut bundles = Vec::new();
        let signing = median(|| {
            bundles = digests.iter().map(|digest| sign(&key, digest)).collect();
        });
        let trusted =
            TrustedKey { name: "key".to_owned(), key: key.public_key().clone(), not_before: None, not_after: None };
        let keys = KeySet::new(vec![trusted]).expect("it is one key");
        let claims = BTreeMap::new();
        let checking = median(|| {
            for (digest, bundle) in digests.iter().zip(&bundles) {
                let artifact = [*digest];
                let expected = Expectation {
                    artifact: &artifact,
                    predicate_type: SIGN_PREDICATE,
                    repository: None,
                    annotations: &claims,
                    is_unclaimed_enough: false,
                    threshold: NonZeroUsize::MIN,
                    now: 0,
                };
                verify_bundles(&keys, &expected, [bundle.as_bytes()]).expect("it was signed");
            }
        });
        println!("| {algorithm} | {} ms | {} ms |", signing.as_millis(), checking.as_millis());
    }
}

fn sign(key: &PrivateKey, digest: &Digest) -> String {
    let statement = Statement::signature_of(Subject::of(digest)).expect("a signature has a subject");
    Bundle::sign(key, &statement).expect("it is small enough")
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..TURNS)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[TURNS / 2]
}
