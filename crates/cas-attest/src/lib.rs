//! Keys, signatures and statements: what `cas` signs with and what it checks, in the formats of cosign, sigstore and in-toto.
//!
//! A [`PrivateKey`] signs a [`Statement`] into a [`Bundle`]; [`verify_bundles`] answers which keys of a [`KeySet`] have said
//! a thing about an artifact. Nothing is believed before its signature is checked, what cannot be read counts as
//! nothing, and there is no way to ask without naming the predicate type. [`SimplePayload`] is cosign's older form.
//!
//! Not here: files, registries, clocks and randomness, which callers bring; certificates and transparency logs.
//! Formats: docs/formats/signing.md and provenance.md.

mod bundle;
mod dsse;
mod encoding;
mod error;
mod json;
mod keys;
mod policy;
mod provenance;
mod rules;
mod signer;
mod simple;
mod statement;

pub use bundle::{
    BUNDLE_MEDIA_TYPE, Bundle, CONTENT_ANNOTATION, CONTENT_DSSE, Identity, MAX_BUNDLE_BYTES, PREDICATE_ANNOTATION,
};
pub use dsse::{Envelope, MAX_PAYLOAD_BYTES, Signature, pre_authentication_encoding};
pub use error::DocumentError;
pub use keys::{
    EncryptedKey, KeyAlgorithm, KeyError, KeyId, KeyLabel, MAX_KEY_FILE_BYTES, PrivateKey, PrivateKeyFile, PublicKey,
    Random,
};
pub use policy::{
    Acceptance, Candidate, Expectation, KeySet, KeySetError, MAX_CANDIDATES, MAX_KEYS, Rejected, Rejection,
    SimpleSignature, TrustedKey, Verified, VerifyError, verify_bundles, verify_candidates, verify_simple,
};
pub use provenance::{BUILD_TYPE, Input, LOCAL_BUILDER, Provenance};
pub use rules::{Answer, KeySource, MAX_POLICY_BYTES, Policy, PolicyFile, PolicyFileError, Question, Slot};
pub use signer::{Signer, SignerError};
pub use simple::{SIGNATURE_ANNOTATION, SIMPLE_MEDIA_TYPE, SimplePayload, SimpleType, attestation_tag, signature_tag};
pub use statement::{
    CYCLONEDX_PREDICATE, PROVENANCE_PREDICATE, SIGN_PREDICATE, SPDX_PREDICATE, STATEMENT_PAYLOAD_TYPE, STATEMENT_TYPE,
    Statement, Subject, VULNERABILITIES_PREDICATE,
};
