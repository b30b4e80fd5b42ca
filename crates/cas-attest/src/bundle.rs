//! Sigstore bundles of version 0.3: an envelope, and what its signer says to be.
//!
//! Read as strictly as sigstore's own tools read them, since a field that one reader ignores is where another one finds
//! something else. Certificates, log entries and timestamps are counted and not looked at.

use crate::dsse::{Known, MAX_ENVELOPE_BYTES};
use crate::error::shown;
use crate::json::{self, quoted};
use crate::{DocumentError, Envelope, STATEMENT_PAYLOAD_TYPE, Signer, Statement};

/// Media type of a bundle, and artifact type of the manifest that refers to an image with it.
pub const BUNDLE_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The same version, in the form that came before.
const FORMER_MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle+json;version=0.3";
/// Annotation of the manifest that tells what the bundle holds: [`CONTENT_DSSE`].
pub const CONTENT_ANNOTATION: &str = "dev.sigstore.bundle.content";
/// The bundle holds an envelope.
pub const CONTENT_DSSE: &str = "dsse-envelope";
/// Annotation of the manifest with the type of the predicate. It is not signed: it helps to choose, and decides nothing.
pub const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";
/// Longest bundle that is read.
pub const MAX_BUNDLE_BYTES: usize = MAX_ENVELOPE_BYTES;

const WHAT: &str = "the bundle";
const WHAT_MATERIAL: &str = "`verificationMaterial` of the bundle";
const MAX_HINT_BYTES: usize = 1 << 10;
const MAX_LOG_ENTRIES: usize = 32;

/// Who is said to have signed. Nothing of it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The owner of a key, with a hint at which one.
    Key {
        /// As [`crate::KeyId::hint`] has it, if the signer keeps to that.
        hint: String,
    },
    /// Whoever a certificate names. Keys verify no such bundle.
    Certificate,
}

/// An envelope with one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    identity: Identity,
    envelope: Envelope,
    log_entry_count: usize,
}

impl Bundle {
    /// Signs a statement: the bytes of the bundle, JSON without white space.
    ///
    /// Bundles of others are kept as their bytes, and never written again from what was read.
    ///
    /// # Errors
    ///
    /// [`DocumentError::TooLarge`] for a statement that no reader would take, [`DocumentError::Signer`].
    pub fn sign(key: &dyn Signer, statement: &Statement) -> Result<String, DocumentError> {
        let envelope = Envelope::sign(key, STATEMENT_PAYLOAD_TYPE, statement.encode().into_bytes())?;
        Ok(encode(&key.public_key().id().hint(), &envelope))
    }

    /// Reads a bundle.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for other versions, several signatures, fields that are not known, and `messageSignature`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = json::read(bytes, WHAT, MAX_BUNDLE_BYTES)?;
        let media_type = document.text("mediaType")?;
        if ![BUNDLE_MEDIA_TYPE, FORMER_MEDIA_TYPE].contains(&media_type.as_ref()) {
            return Err(DocumentError::Value {
                what: WHAT,
                field: "mediaType",
                value: shown(&media_type),
                expected: BUNDLE_MEDIA_TYPE,
            });
        }
        document.only(&["mediaType", "verificationMaterial", "messageSignature", "dsseEnvelope"])?;
        if document.raw("messageSignature").is_some() {
            return Err(DocumentError::MessageSignature);
        }
        let material = document.object("verificationMaterial", WHAT_MATERIAL)?;
        material.only(&[
            "publicKey",
            "certificate",
            "x509CertificateChain",
            "tlogEntries",
            "timestampVerificationData",
        ])?;
        let key = material.optional_object("publicKey", "`publicKey` of the bundle")?;
        let certificates = ["certificate", "x509CertificateChain"];
        let certificates = certificates.iter().filter(|field| material.raw(field).is_some()).count();
        let identity = match (key, certificates) {
            (Some(key), 0) => {
                key.only(&["hint"])?;
                let hint = key.raw("hint").map(|_| key.short_text("hint", MAX_HINT_BYTES)).transpose()?;
                Identity::Key { hint: hint.unwrap_or_default() }
            }
            (None, 1) => Identity::Certificate,
            (None, 0) => return Err(DocumentError::Missing { what: WHAT_MATERIAL, field: "publicKey" }),
            (key, _) => {
                let actual = certificates + usize::from(key.is_some());
                return Err(DocumentError::Count { what: WHAT_MATERIAL, field: "content", least: 1, most: 1, actual });
            }
        };
        let log_entry_count = material.list("tlogEntries", MAX_LOG_ENTRIES)?.len();
        let envelope = Envelope::of(&document.object("dsseEnvelope", "the envelope of the bundle")?, Known::Only)?;
        if envelope.signatures.len() != 1 {
            let actual = envelope.signatures.len();
            let what = "the envelope of the bundle";
            return Err(DocumentError::Count { what, field: "signatures", least: 1, most: 1, actual });
        }
        Ok(Self { identity, envelope, log_entry_count })
    }

    /// Who is said to have signed.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is signed.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Entries of transparency logs, which nobody looked at.
    #[must_use]
    pub fn log_entry_count(&self) -> usize {
        self.log_entry_count
    }
}

fn encode(hint: &str, envelope: &Envelope) -> String {
    format!(
        r#"{{"mediaType":"{BUNDLE_MEDIA_TYPE}","verificationMaterial":{{"publicKey":{{"hint":{}}},"tlogEntries":[]}},"dsseEnvelope":{}}}"#,
        quoted(hint),
        envelope.encode()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_are_read_strictly() {
        let whole = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"aA=="},"tlogEntries":[]},"dsseEnvelope":{"payload":"YQ==","payloadType":"t","signatures":[{"sig":"YQ=="}]}}"#;
        let bundle = Bundle::decode(whole.as_bytes()).unwrap();
        assert_eq!(encode("aA==", bundle.envelope()), whole);
        for (from, to, right) in [
            ("bundle.v0.3+json", "bundle+json;version=0.3", true),
            ("bundle.v0.3+json", "bundle+json;version=0.2", false),
            ("bundle.v0.3+json", "bundle+json;version=0.1", false),
            ("bundle.v0.3+json", "bundle.v0.4+json", false),
            (r#""mediaType""#, r#""media_type""#, false),
            (r#"{"mediaType""#, r#"{"dsse_envelope":{},"mediaType""#, false),
            (r#""publicKey":"#, r#""public_key":"#, false),
            (r#"{"hint":"aA=="}"#, "{}", true),
            (r#"{"hint":"aA=="}"#, r#"{"hint":"aA==","rawBytes":"aA=="}"#, false),
            (r#""publicKey":{"hint":"aA=="},"#, "", false),
            (r#""publicKey":{"hint":"aA=="}"#, r#""certificate":{"rawBytes":"aA=="}"#, true),
            (r#""publicKey":{"hint":"aA=="}"#, r#""publicKey":{},"certificate":{"rawBytes":"aA=="}"#, false),
            (r#""tlogEntries":[]"#, r#""tlogEntries":[{},{}]"#, true),
            (r#""tlogEntries":[]"#, r#""tlogEntries":{}"#, false),
            (r#"{"sig":"YQ=="}"#, r#"{"sig":"YQ=="},{"sig":"YQ=="}"#, false),
            (r#"{"sig":"YQ=="}"#, "", false),
            (r#"{"sig":"YQ=="}"#, r#"{"sig":"YQ==","keyid":"k"}"#, true),
            (r#"{"sig":"YQ=="}"#, r#"{"sig":"YQ==","cert":"k"}"#, false),
            (r#""dsseEnvelope":{"#, r#""dsseEnvelope":{"x":1,"#, false),
            (r#""dsseEnvelope""#, r#""messageSignature":{},"dsseEnvelope""#, false),
        ] {
            let text = whole.replacen(from, to, 1);
            assert_ne!(text, whole, "{from}");
            let read = Bundle::decode(text.as_bytes());
            assert_eq!(read.is_ok(), right, "{text}: {read:?}");
        }
        let message = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{},"messageSignature":{}}"#;
        let error = Bundle::decode(message.as_bytes()).unwrap_err();
        assert!(matches!(error, DocumentError::MessageSignature) && error.hint().is_some(), "{error}");
    }
}
