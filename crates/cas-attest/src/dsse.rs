//! Envelopes of DSSE 1.0.0 (protocol.md, envelope.md): bytes with a type, and signatures over both.

use crate::error::shown;
use crate::json::{self, Object, quoted};
use crate::{DocumentError, KeyError, PublicKey, Signer, encoding, signer};

/// Longest payload. An SBOM of a large image has a few megabytes.
pub const MAX_PAYLOAD_BYTES: usize = 32 << 20;
/// Longest envelope: the payload as base64, and as much again as signatures and log entries may have.
pub(crate) const MAX_ENVELOPE_BYTES: usize = 48 << 20;
const MAX_TYPE_BYTES: usize = 1 << 10;
/// An RSA signature of 8192 bits has that many; ours have 72 at most.
const MAX_SIGNATURE_BYTES: usize = 1 << 10;
const MAX_SIGNATURES: usize = 16;
const WHAT: &str = "the envelope";

/// What is signed in place of the payload, so that no payload can stand for one of another type.
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// A signature of an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What the signer calls the key. It is not signed, and decides nothing.
    pub key_id: Option<String>,
    /// The signature.
    pub bytes: Vec<u8>,
}

/// Bytes, their type, and who is said to have signed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// How the payload is to be read.
    pub payload_type: String,
    /// The bytes. Nobody should look at them before a signature is checked.
    pub payload: Vec<u8>,
    /// At least one.
    pub signatures: Vec<Signature>,
}

impl Envelope {
    /// Signs bytes of a type.
    ///
    /// # Errors
    ///
    /// [`DocumentError::TooLarge`] for what no reader would take, [`DocumentError::Signer`].
    pub fn sign(key: &dyn Signer, payload_type: &str, payload: Vec<u8>) -> Result<Self, DocumentError> {
        for (what, limit, actual) in [
            ("the payload type", MAX_TYPE_BYTES, payload_type.len()),
            ("the payload", MAX_PAYLOAD_BYTES, payload.len()),
        ] {
            if actual > limit {
                return Err(DocumentError::TooLarge { what, limit, actual });
            }
        }
        let bytes = signer::sign(key, &pre_authentication_encoding(payload_type, &payload))?;
        let signatures = vec![Signature { key_id: None, bytes }];
        Ok(Self { payload_type: payload_type.to_owned(), payload, signatures })
    }

    /// Reads an envelope. Fields that are not known are ignored.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for what is no envelope, has no signature, or is beyond the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        Self::of(&json::read(bytes, WHAT, MAX_ENVELOPE_BYTES)?, Known::Any)
    }

    pub(crate) fn of(object: &Object<'_>, known: Known) -> Result<Self, DocumentError> {
        let items = object.objects("signatures", "a signature of the envelope", MAX_SIGNATURES)?;
        if known == Known::Only {
            object.only(&["payload", "payloadType", "signatures"])?;
            items.iter().try_for_each(|item| item.only(&["sig", "keyid"]))?;
        }
        if items.is_empty() {
            return Err(DocumentError::Missing { what: WHAT, field: "signatures" });
        }
        let signature = |item: &Object<'_>| {
            let key_id = item.optional_text("keyid")?.filter(|text| !text.is_empty());
            Ok(Signature { key_id: key_id.map(|text| shown(&text)), bytes: item.bytes("sig", MAX_SIGNATURE_BYTES)? })
        };
        let signatures = items.iter().map(signature).collect::<Result<_, _>>()?;
        let payload_type = object.short_text("payloadType", MAX_TYPE_BYTES)?;
        let payload = object.bytes("payload", MAX_PAYLOAD_BYTES)?;
        Ok(Self { payload_type, payload, signatures })
    }

    /// JSON without white space.
    #[must_use]
    pub fn encode(&self) -> String {
        let signature = |signature: &Signature| {
            let key_id = signature.key_id.as_deref().map(|id| format!(r#","keyid":{}"#, quoted(id)));
            format!(r#"{{"sig":"{}"{}}}"#, encoding::encode(&signature.bytes), key_id.unwrap_or_default())
        };
        let signatures: Vec<String> = self.signatures.iter().map(signature).collect();
        format!(
            r#"{{"payload":"{}","payloadType":{},"signatures":[{}]}}"#,
            encoding::encode(&self.payload),
            quoted(&self.payload_type),
            signatures.join(",")
        )
    }

    /// Proves that one of the signatures is by `key`.
    ///
    /// # Errors
    ///
    /// [`KeyError::SignatureForm`] when none has the form of the key's algorithm, else [`KeyError::Signature`].
    pub fn verify(&self, key: &PublicKey) -> Result<(), KeyError> {
        let message = pre_authentication_encoding(&self.payload_type, &self.payload);
        self.verify_message(key, &message)
    }

    /// As [`Envelope::verify`], for many keys and one encoding.
    pub(crate) fn verify_message(&self, key: &PublicKey, message: &[u8]) -> Result<(), KeyError> {
        let mut failure = KeyError::SignatureForm { algorithm: key.algorithm() };
        for signature in &self.signatures {
            match key.verify(message, &signature.bytes) {
                Ok(()) => return Ok(()),
                Err(KeyError::SignatureForm { .. }) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// Which fields an envelope may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Any (DSSE).
    Any,
    /// Those that are known alone (bundles).
    Only,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DSSE 1.0.0, protocol.md, Test Vectors.
    #[test]
    fn the_encoding_is_that_of_the_specification() {
        for (payload_type, payload, expected) in [
            ("http://example.com/HelloWorld", "hello world", "DSSEv1 29 http://example.com/HelloWorld 11 hello world"),
            ("", "", "DSSEv1 0  0 "),
            ("ü", "é", "DSSEv1 2 ü 2 é"), // bytes are counted
        ] {
            assert_eq!(pre_authentication_encoding(payload_type, payload.as_bytes()), expected.as_bytes());
        }
    }

    #[test]
    fn envelopes_are_read_within_limits() {
        let signatures = |count| vec![r#"{"sig":"YQ=="}"#; count].join(",");
        let long = "x".repeat(MAX_TYPE_BYTES + 1);
        for (text, right) in [
            (r#"{"payload":"YQ==","payloadType":"t","signatures":[{"sig":"YQ=="}]}"#.to_owned(), true),
            (r#"{"payload":"","payloadType":"","signatures":[{"sig":"","keyid":"k","x":1}],"x":{}}"#.to_owned(), true),
            (format!(r#"{{"payload":"-_8=","payloadType":"t","signatures":[{}]}}"#, signatures(16)), true),
            (format!(r#"{{"payload":"YQ==","payloadType":"t","signatures":[{}]}}"#, signatures(17)), false),
            (r#"{"payload":"YQ==","payloadType":"t","signatures":[]}"#.to_owned(), false),
            (r#"{"payload":"YQ==","payloadType":"t"}"#.to_owned(), false),
            (r#"{"payload":"YQ==","payloadType":"t","signatures":[["YQ=="]]}"#.to_owned(), false),
            (r#"{"payload":"YQ==","payloadType":"t","signatures":[{"keyid":"k"}]}"#.to_owned(), false),
            (r#"{"payload":"YQ","payloadType":"t","signatures":[{"sig":"YQ=="}]}"#.to_owned(), false),
            (r#"{"payload":"YQ==","payloadType":1,"signatures":[{"sig":"YQ=="}]}"#.to_owned(), false),
            (
                r#"{"payload":"YQ==","payload":"Yg==","payloadType":"t","signatures":[{"sig":"YQ=="}]}"#.to_owned(),
                false,
            ),
            (format!(r#"{{"payload":"YQ==","payloadType":"{long}","signatures":[{{"sig":"YQ=="}}]}}"#), false),
        ] {
            let read = Envelope::decode(text.as_bytes());
            assert_eq!(read.is_ok(), right, "{text}: {read:?}");
            if let Ok(envelope) = read {
                assert_eq!(Envelope::decode(envelope.encode().as_bytes()).unwrap(), envelope);
            }
        }
    }
}
