//! Simple signing, cosign's older form: a payload that names a repository and a manifest, and a signature over its bytes.
//!
//! Format: `containers-signature(5)` and cosign's `SIGNATURE_SPEC.md`.

use std::collections::BTreeMap;

use cas_digest::{Digest, DigestFunction};

use crate::error::shown;
use crate::json::{self, object_of, quoted};
use crate::{DocumentError, Signer, signer};

/// Media type of a layer that is a payload.
pub const SIMPLE_MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation of such a layer: its signature, as base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

const COSIGN_TYPE: &str = "cosign container image signature";
const ATOMIC_TYPE: &str = "atomic container signature";
const WHAT: &str = "the payload";
pub(crate) const MAX_SIMPLE_BYTES: usize = 64 << 10;
const MAX_CLAIMS: usize = 64;
const MAX_REFERENCE_BYTES: usize = 4 << 10;

/// The tag at which cosign keeps the signatures of a manifest.
#[must_use]
pub fn signature_tag(manifest: &Digest) -> String {
    format!("{}-{}.sig", manifest.function(), manifest.to_hex())
}

/// The tag at which cosign keeps what is attested of a manifest.
#[must_use]
pub fn attestation_tag(manifest: &Digest) -> String {
    format!("{}-{}.att", manifest.function(), manifest.to_hex())
}

/// Whose kind of signature it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimpleType {
    /// cosign's.
    Cosign,
    /// That of podman and skopeo, whose signatures are OpenPGP messages and no keys' of ours.
    Atomic,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimplePayload {
    /// The kind.
    pub kind: SimpleType,
    /// The repository that the manifest is signed for.
    pub reference: String,
    /// The manifest, by SHA-256.
    pub manifest: Digest,
    /// Claims, of which texts alone are read.
    pub claims: BTreeMap<String, String>,
}

impl SimplePayload {
    /// Reads a payload. What is critical and not known is refused.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for what is no payload.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = json::read(bytes, WHAT, MAX_SIMPLE_BYTES)?;
        document.only(&["critical", "optional"])?;
        let critical = document.object("critical", "`critical` of the payload")?;
        critical.only(&["identity", "image", "type"])?;
        let identity = critical.object("identity", "`identity` of the payload")?;
        identity.only(&["docker-reference"])?;
        let image = critical.object("image", "`image` of the payload")?;
        image.only(&["docker-manifest-digest"])?;
        let value =
            |field, text: &str, expected| DocumentError::Value { what: WHAT, field, value: shown(text), expected };
        let kind = match critical.text("type")?.as_ref() {
            COSIGN_TYPE => SimpleType::Cosign,
            ATOMIC_TYPE => SimpleType::Atomic,
            other => return Err(value("type", other, COSIGN_TYPE)),
        };
        let text = image.text("docker-manifest-digest")?;
        let digest = text.parse::<Digest>().ok().filter(|digest| digest.function() == DigestFunction::Sha256);
        let manifest = digest.ok_or_else(|| value("docker-manifest-digest", &text, "a digest of SHA-256"))?;
        let reference = identity.short_text("docker-reference", MAX_REFERENCE_BYTES)?;
        let (claims, _) = document.texts("optional", MAX_CLAIMS)?;
        Ok(Self { kind, reference, manifest, claims })
    }

    /// JSON without white space, and the same for the same payload.
    #[must_use]
    pub fn encode(&self) -> String {
        let kind = match self.kind {
            SimpleType::Cosign => COSIGN_TYPE,
            SimpleType::Atomic => ATOMIC_TYPE,
        };
        let optional = if self.claims.is_empty() {
            "null".to_owned()
        } else {
            object_of(self.claims.iter().map(|(name, text)| (name.as_str(), text.as_str())))
        };
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":{}}},"image":{{"docker-manifest-digest":"{}"}},"type":"{kind}"}},"optional":{optional}}}"#,
            quoted(&self.reference),
            self.manifest
        )
    }

    /// The bytes of the layer, and its signature as the annotation has it.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for what would not be read again, and when the signer does not sign.
    pub fn sign(&self, key: &dyn Signer) -> Result<(String, String), DocumentError> {
        let payload = self.encode();
        Self::decode(payload.as_bytes())?;
        let signature = crate::encoding::encode(&signer::sign(key, payload.as_bytes())?);
        Ok((payload, signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_say_what_is_known_and_nothing_else() {
        let hex = "ab".repeat(32);
        let whole = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r.example/a"}},"image":{{"docker-manifest-digest":"sha256:{hex}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        let payload = SimplePayload::decode(whole.as_bytes()).unwrap();
        assert_eq!(payload.encode(), whole);
        assert_eq!(signature_tag(&payload.manifest), format!("sha256-{hex}.sig"));
        assert_eq!(attestation_tag(&payload.manifest), format!("sha256-{hex}.att"));
        for (from, to, right) in [
            ("cosign container image signature", "atomic container signature", true),
            ("cosign container image signature", "container signature", false),
            ("null", r#"{"creator":"x","timestamp":7}"#, true),
            ("null", "[]", false),
            (r#","optional":null"#, "", true),
            (r#""optional":null"#, r#""optional":null,"more":1"#, false),
            (r#""critical":{"#, r#""critical":{"more":1,"#, false),
            (r#""identity":{"#, r#""identity":{"more":1,"#, false),
            (r#""image":{"#, r#""image":{"more":1,"#, false),
            (r#""docker-reference":"r.example/a""#, "", false),
            (r#""docker-reference":"r.example/a""#, r#""docker-reference":null"#, false),
            ("sha256:ab", "sha256:AB", false),
            ("sha256:ab", "sha256:a", false),
            ("sha256:", "sha512:", false),
            ("sha256:", "blake3:", false),
            (r#""type":"#, r#""type":"cosign container image signature","type":"#, false),
        ] {
            let text = whole.replacen(from, to, 1);
            assert_ne!(text, whole, "{from}");
            let read = SimplePayload::decode(text.as_bytes());
            assert_eq!(read.is_ok(), right, "{text}: {read:?}");
            if let Ok(payload) = read {
                assert_eq!(SimplePayload::decode(payload.encode().as_bytes()).unwrap(), payload);
            }
        }
    }
}
