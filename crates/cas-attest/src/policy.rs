//! Which keys have said a thing about an artifact.
//!
//! Every question names the artifact by its digests, the predicate, the time and how many keys it takes; the answer is a
//! value only when all of it holds. Signatures are checked before anything they are over is read, and a key counts
//! once, whatever it signed. What is wrong with each candidate is told, so that an error says more than "no".

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use cas_digest::{Digest, DigestFunction};

use crate::dsse::pre_authentication_encoding;
use crate::error::shown;
use crate::simple::MAX_SIMPLE_BYTES;
use crate::statement::Match;
use crate::{
    Bundle, DocumentError, Identity, KeyId, PublicKey, SIGN_PREDICATE, STATEMENT_PAYLOAD_TYPE, SimplePayload,
    SimpleType, Statement, Subject, encoding,
};

/// Keys of a set. Each is tried on each candidate, and hashes all of it.
pub const MAX_KEYS: usize = 64;
/// Bundles or signatures looked at for one question: whoever may write to a registry may add any number of them.
pub const MAX_CANDIDATES: usize = 1024;
/// No signature is longer, as base64 (docs/formats/signing.md).
const MAX_SIGNATURE_TEXT_BYTES: usize = 2 << 10;

/// A key that is trusted, for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// What people call it.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// First second at which it counts, since 1970.
    pub not_before: Option<i64>,
    /// Last second at which it counts, since 1970.
    pub not_after: Option<i64>,
}

impl TrustedKey {
    fn is_valid_at(&self, now: i64) -> bool {
        self.not_before.is_none_or(|first| first <= now) && self.not_after.is_none_or(|last| now <= last)
    }
}

/// Keys that may sign a thing: at least one, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet(Vec<TrustedKey>);

/// Why keys are no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Nobody is trusted.
    #[error("the set of keys is empty, so that nothing could be verified; name a key")]
    Empty,
    /// There are too many.
    #[error("the set has {actual} keys; at most {MAX_KEYS} are tried")]
    TooMany {
        /// Keys that were given.
        actual: usize,
    },
    /// Two keys have one name.
    #[error("two keys are called `{name}`; give each its own name")]
    Name {
        /// The name.
        name: String,
    },
    /// Two names have one key, which would count twice.
    #[error("`{first}` and `{second}` are the same key `{id}`; remove one")]
    Key {
        /// One name.
        first: String,
        /// The other one.
        second: String,
        /// The key.
        id: KeyId,
    },
    /// The time of a key ends before it begins.
    #[error("the key `{name}` is valid at no time: it ends before it begins")]
    Window {
        /// The key.
        name: String,
    },
}

impl KeySet {
    /// Puts keys together.
    ///
    /// # Errors
    ///
    /// [`KeySetError`] when there are none or too many, or one of them twice.
    pub fn new(keys: Vec<TrustedKey>) -> Result<Self, KeySetError> {
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany { actual: keys.len() });
        }
        let (mut names, mut ids) = (BTreeMap::new(), BTreeMap::new());
        for key in &keys {
            if names.insert(&key.name, ()).is_some() {
                return Err(KeySetError::Name { name: key.name.clone() });
            }
            if let Some(first) = ids.insert(key.key.id(), &key.name) {
                let (first, second) = (first.clone(), key.name.clone());
                return Err(KeySetError::Key { first, second, id: key.key.id() });
            }
            if key.not_before.zip(key.not_after).is_some_and(|(first, last)| last < first) {
                return Err(KeySetError::Window { name: key.name.clone() });
            }
        }
        Ok(Self(keys))
    }

    /// The keys, in the order given.
    #[must_use]
    pub fn keys(&self) -> &[TrustedKey] {
        &self.0
    }
}

/// What must have been said, of what, and by how many.
#[derive(Clone, Debug)]
pub struct Expectation<'a> {
    /// Digests of the artifact, all of them true. SHA-1 does not count.
    pub artifact: &'a [Digest],
    /// The predicate; signatures of the older form have none.
    pub predicate_type: &'a str,
    /// The repository that the signer must have named, if any.
    pub repository: Option<&'a str>,
    /// Whether it is enough to name none, as cosign 3 does. A signer who names another one is refused all the same.
    pub is_unclaimed_enough: bool,
    /// What else the signer must have claimed.
    pub annotations: &'a BTreeMap<String, String>,
    /// So many keys must have signed.
    pub threshold: NonZeroUsize,
    /// The present second, since 1970.
    pub now: i64,
}

/// A key that counts, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Name of the key in the set.
    pub key_name: String,
    /// The key.
    pub key_id: KeyId,
    /// Position of the bundle or signature among those given.
    pub candidate: usize,
    /// Position of the subject in its statement; 0 for the older form.
    pub subject: usize,
    /// The digest by which the subject is the artifact.
    pub digest: Digest,
    /// What was said; the older form says nothing more.
    pub statement: Option<Statement>,
}

/// Enough keys count.
#[derive(Debug)]
pub struct Verified {
    /// The keys, each once: as many as the threshold says, of the first candidates that have them.
    pub accepted: Vec<Acceptance>,
    /// What did not count on the way there.
    pub rejected: Vec<Rejected>,
}

/// A candidate that did not count.
#[derive(Debug)]
pub struct Rejected {
    /// Its position among those given.
    pub candidate: usize,
    /// Why.
    pub reason: Rejection,
}

/// Why a bundle or signature did not count.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It is by the owner of a certificate.
    #[error("it is signed with a certificate, which no key verifies")]
    Certificate,
    /// None of the keys made it.
    #[error("no key of the set made the signature")]
    NoKey,
    /// The key that made it does not count now.
    #[error("the key `{name}` made the signature, and is not valid at the present time")]
    NotValid {
        /// The key.
        name: String,
    },
    /// What is signed is no statement.
    #[error("what is signed is of the type `{actual}`, not `{STATEMENT_PAYLOAD_TYPE}`")]
    PayloadType {
        /// Its type, shortened.
        actual: String,
    },
    /// Something else is said.
    #[error("it says `{actual}`, not `{expected}`")]
    PredicateType {
        /// What was asked for.
        expected: String,
        /// What is said, shortened.
        actual: String,
    },
    /// It is about other artifacts.
    #[error("it is about another artifact: `{actual}`")]
    Artifact {
        /// Its first subject.
        actual: String,
    },
    /// A subject is the artifact by one digest, and another one by the next.
    #[error("a subject has a digest of the artifact, and another one for `{function}`")]
    Contradiction {
        /// The function whose value differs.
        function: DigestFunction,
    },
    /// It is about the artifact in another repository, or does not say in which.
    #[error("it is for the repository `{actual}`, not `{expected}`")]
    Repository {
        /// What was asked for.
        expected: String,
        /// What is claimed, shortened; empty without a claim.
        actual: String,
    },
    /// A claim that was asked for is missing, or another one.
    #[error("it does not claim `{name}` to be `{expected}`")]
    Annotation {
        /// The claim.
        name: String,
        /// The value asked for.
        expected: String,
    },
    /// It is a signature of another program's kind.
    #[error("it is a payload for OpenPGP signatures, not one of cosign's")]
    SimpleType,
    /// The key counts already.
    #[error("the key `{name}` has counted once, by another signature")]
    Repeated {
        /// The key.
        name: String,
    },
}

/// Why the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is nothing to verify.
    #[error("there is no signature; {threshold} of `{predicate_type}` must be there")]
    NoSignature {
        /// Keys that must have signed.
        threshold: usize,
        /// What was asked for.
        predicate_type: String,
    },
    /// Not enough keys count.
    #[error("{} of {threshold} keys signed `{predicate_type}` for this artifact{}", accepted.len(), reasons(rejected))]
    Threshold {
        /// Keys that must have signed.
        threshold: usize,
        /// What was asked for.
        predicate_type: String,
        /// Keys that count.
        accepted: Vec<Acceptance>,
        /// What did not count.
        rejected: Vec<Rejected>,
    },
    /// Nobody could ever sign enough.
    #[error("{threshold} keys must have signed, and the set has {keys}; lower the threshold or add keys")]
    Unreachable {
        /// Keys that must have signed.
        threshold: usize,
        /// Keys of the set.
        keys: usize,
    },
    /// The artifact is not named by anything that names one artifact alone.
    #[error("the artifact has no digest that can be verified; name it by SHA-256")]
    NoDigest,
    /// The older form is signed for a repository, which is not known.
    #[error("signatures of cosign's older form are for one repository; name it")]
    NoRepository,
    /// There are too many candidates.
    #[error(
        "none of the first {MAX_CANDIDATES} signatures was enough, and no more are looked at; remove those that nobody needs"
    )]
    TooMany,
}

/// Why candidates did not count: the first few.
fn reasons(rejected: &[Rejected]) -> String {
    const SHOWN: usize = 4;
    let mut text = String::new();
    for Rejected { candidate, reason } in rejected.iter().take(SHOWN) {
        text.push_str(&format!("; signature {}: {reason}", candidate + 1));
    }
    if rejected.len() > SHOWN {
        text.push_str(&format!("; and {} more", rejected.len() - SHOWN));
    }
    text
}

impl VerifyError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let Self::Threshold { rejected, .. } = self else { return None };
        rejected.iter().find_map(|rejected| match &rejected.reason {
            Rejection::Document(error) => error.hint(),
            Rejection::NotValid { name } => Some(format!(
                "there is no proof of when something was signed: sign again with a key that is valid, or give `{name}` more time"
            )),
            Rejection::NoKey => Some("if its signer is trusted, add the public key to the set".to_owned()),
            _ => None,
        })
    }
}

/// A signature of cosign's older form.
#[derive(Clone, Copy, Debug)]
pub struct SimpleSignature<'a> {
    /// The bytes of the layer.
    pub payload: &'a [u8],
    /// Its annotation [`crate::SIGNATURE_ANNOTATION`].
    pub signature: &'a str,
}

/// A bundle, or a signature of the older form.
#[derive(Clone, Copy, Debug)]
pub enum Candidate<'a> {
    /// The bytes of a bundle.
    Bundle(&'a [u8]),
    /// The older form, which says nothing but that something is signed.
    Simple(SimpleSignature<'a>),
}

/// Proves that enough keys have said the predicate of the artifact, in either form; a key that signed in both counts once.
///
/// # Errors
///
/// As [`verify_bundles`] and [`verify_simple`].
pub fn verify_candidates<'a>(
    keys: &KeySet,
    expected: &Expectation<'_>,
    candidates: impl IntoIterator<Item = Candidate<'a>>,
) -> Result<Verified, VerifyError> {
    let repository = expected.repository.ok_or(VerifyError::NoRepository)?;
    verify(keys, expected, candidates, |candidate| match candidate {
        Candidate::Bundle(bundle) => judge_bundle(keys, expected, bundle),
        Candidate::Simple(signature) => {
            let acceptance = judge_simple(keys, expected, repository, signature)?;
            if expected.predicate_type != SIGN_PREDICATE {
                let (expected, actual) = (expected.predicate_type.to_owned(), SIGN_PREDICATE.to_owned());
                return Err(Rejection::PredicateType { expected, actual });
            }
            Ok(acceptance)
        }
    })
}

/// Proves that enough keys have said the predicate of the artifact, each in a bundle of its own.
///
/// Bundles are taken one by one, and none after those that are enough, so that they can be fetched on the way.
///
/// # Errors
///
/// [`VerifyError`] in every other case, with what is wrong with each bundle.
pub fn verify_bundles<B: AsRef<[u8]>>(
    keys: &KeySet,
    expected: &Expectation<'_>,
    bundles: impl IntoIterator<Item = B>,
) -> Result<Verified, VerifyError> {
    verify(keys, expected, bundles, |bundle| judge_bundle(keys, expected, bundle.as_ref()))
}

/// Proves that enough keys have signed the artifact in cosign's older form. The predicate is that of a signature, whatever
/// was asked for.
///
/// # Errors
///
/// As [`verify_bundles`], and [`VerifyError::NoRepository`]: without it, a signature for one repository would do in
/// another.
pub fn verify_simple<'a>(
    keys: &KeySet,
    expected: &Expectation<'_>,
    signatures: impl IntoIterator<Item = SimpleSignature<'a>>,
) -> Result<Verified, VerifyError> {
    let repository = expected.repository.ok_or(VerifyError::NoRepository)?;
    verify(keys, expected, signatures, |signature| judge_simple(keys, expected, repository, signature))
}

fn verify<C>(
    keys: &KeySet,
    expected: &Expectation<'_>,
    candidates: impl IntoIterator<Item = C>,
    judge: impl Fn(C) -> Result<Acceptance, Rejection>,
) -> Result<Verified, VerifyError> {
    let threshold = expected.threshold.get();
    if threshold > keys.0.len() {
        return Err(VerifyError::Unreachable { threshold, keys: keys.0.len() });
    }
    if expected.artifact.iter().all(|digest| digest.function() == DigestFunction::Sha1) {
        return Err(VerifyError::NoDigest);
    }
    let predicate_type = expected.predicate_type.to_owned();
    let (mut accepted, mut rejected) = (Vec::<Acceptance>::new(), Vec::new());
    for (candidate, bytes) in candidates.into_iter().enumerate() {
        if candidate == MAX_CANDIDATES {
            return Err(VerifyError::TooMany);
        }
        match judge(bytes) {
            Ok(acceptance) if accepted.iter().any(|other| other.key_id == acceptance.key_id) => {
                rejected.push(Rejected { candidate, reason: Rejection::Repeated { name: acceptance.key_name } });
            }
            Ok(acceptance) => accepted.push(Acceptance { candidate, ..acceptance }),
            Err(reason) => rejected.push(Rejected { candidate, reason }),
        }
        if accepted.len() == threshold {
            return Ok(Verified { accepted, rejected });
        }
    }
    if accepted.is_empty() && rejected.is_empty() {
        return Err(VerifyError::NoSignature { threshold, predicate_type });
    }
    Err(VerifyError::Threshold { threshold, predicate_type, accepted, rejected })
}

/// The key that made a signature; `verify` tells whether one did.
fn signer(keys: &KeySet, now: i64, verify: impl Fn(&PublicKey) -> bool) -> Result<&TrustedKey, Rejection> {
    let key = keys.0.iter().find(|trusted| verify(&trusted.key)).ok_or(Rejection::NoKey)?;
    if !key.is_valid_at(now) {
        return Err(Rejection::NotValid { name: key.name.clone() });
    }
    Ok(key)
}

fn judge_bundle(keys: &KeySet, expected: &Expectation<'_>, bytes: &[u8]) -> Result<Acceptance, Rejection> {
    let bundle = Bundle::decode(bytes)?;
    if *bundle.identity() == Identity::Certificate {
        return Err(Rejection::Certificate);
    }
    let envelope = bundle.envelope();
    let message = pre_authentication_encoding(&envelope.payload_type, &envelope.payload);
    let key = signer(keys, expected.now, |key| envelope.verify_message(key, &message).is_ok())?;
    if envelope.payload_type != STATEMENT_PAYLOAD_TYPE {
        return Err(Rejection::PayloadType { actual: shown(&envelope.payload_type) });
    }
    let statement = Statement::decode(&envelope.payload)?;
    if statement.predicate_type() != expected.predicate_type {
        return Err(Rejection::PredicateType {
            expected: expected.predicate_type.to_owned(),
            actual: shown(statement.predicate_type()),
        });
    }
    let (subject, digest) = judge_subjects(expected, statement.subjects())?;
    Ok(Acceptance {
        key_name: key.name.clone(),
        key_id: key.key.id(),
        candidate: 0,
        subject,
        digest,
        statement: Some(statement),
    })
}

/// The first subject that is the artifact and has all claims. A subject that contradicts the artifact spoils the rest:
/// its signer does not know what is signed.
fn judge_subjects(expected: &Expectation<'_>, subjects: &[Subject]) -> Result<(usize, Digest), Rejection> {
    let (mut found, mut lacking) = (None, None);
    for (position, subject) in subjects.iter().enumerate() {
        match subject.matches(expected.artifact) {
            Match::Contradiction(function) => return Err(Rejection::Contradiction { function }),
            Match::Same(digest) if found.is_none() => match judge_claims(expected, subject) {
                Ok(()) => found = Some((position, digest)),
                Err(reason) => lacking = lacking.or(Some(reason)),
            },
            Match::Same(_) | Match::Other => {}
        }
    }
    let other = || {
        let named = subjects.first().and_then(|subject| subject.digests.iter().next());
        let actual = named.map_or_else(String::new, |(function, value)| shown(&format!("{function}:{value}")));
        Rejection::Artifact { actual }
    };
    found.ok_or_else(|| lacking.unwrap_or_else(other))
}

fn judge_claims(expected: &Expectation<'_>, subject: &Subject) -> Result<(), Rejection> {
    if let Some(repository) = expected.repository
        && subject.name.as_deref() != Some(repository)
        && !(expected.is_unclaimed_enough && subject.name.is_none())
    {
        let actual = subject.name.as_deref().map(shown).unwrap_or_default();
        return Err(Rejection::Repository { expected: repository.to_owned(), actual });
    }
    judge_annotations(expected, &subject.annotations)
}

fn judge_annotations(expected: &Expectation<'_>, found: &BTreeMap<String, String>) -> Result<(), Rejection> {
    match expected.annotations.iter().find(|(name, value)| found.get(*name) != Some(value)) {
        Some((name, value)) => Err(Rejection::Annotation { name: name.clone(), expected: value.clone() }),
        None => Ok(()),
    }
}

/// Docker Hub has a second name, with which cosign claims repositories.
fn canonical(repository: &str) -> &str {
    if repository.starts_with("index.docker.io/") { &repository["index.".len()..] } else { repository }
}

fn judge_simple(
    keys: &KeySet,
    expected: &Expectation<'_>,
    repository: &str,
    candidate: SimpleSignature<'_>,
) -> Result<Acceptance, Rejection> {
    let (what, field) = ("the signature", "dev.cosignproject.cosign/signature");
    for (what, limit, actual) in [
        (what, MAX_SIGNATURE_TEXT_BYTES, candidate.signature.len()),
        ("the payload", MAX_SIMPLE_BYTES, candidate.payload.len()),
    ] {
        if actual > limit {
            return Err(DocumentError::TooLarge { what, limit, actual }.into());
        }
    }
    let signature = encoding::decode(candidate.signature).ok_or(DocumentError::Base64 { what, field })?;
    let key = signer(keys, expected.now, |key| key.verify(candidate.payload, &signature).is_ok())?;
    let payload = SimplePayload::decode(candidate.payload)?;
    if payload.kind != SimpleType::Cosign {
        return Err(Rejection::SimpleType);
    }
    if !expected.artifact.contains(&payload.manifest) {
        return Err(Rejection::Artifact { actual: payload.manifest.to_string() });
    }
    if canonical(&payload.reference) != canonical(repository) {
        let (expected, actual) = (repository.to_owned(), shown(&payload.reference));
        return Err(Rejection::Repository { expected, actual });
    }
    judge_annotations(expected, &payload.claims)?;
    let (key_name, key_id) = (key.name.clone(), key.key.id());
    Ok(Acceptance { key_name, key_id, candidate: 0, subject: 0, digest: payload.manifest, statement: None })
}
