//! Public keys: their one form, and checking what they signed.

use std::fmt;

use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::der::Decode as _;
use p256::pkcs8::spki::SubjectPublicKeyInfoRef;

use super::{KeyAlgorithm, KeyError, KeyId, pem};

const LABEL: &str = "PUBLIC KEY";
/// DER before the 32 bytes of an Ed25519 key (RFC 8410, 4).
const ED25519_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
/// DER before the 65 bytes of an uncompressed point of P-256 (RFC 5480, 2).
const P256_PREFIX: [u8; 26] =
    *b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

pub(super) const ED25519_OID: &str = "1.3.101.112";
pub(super) const EC_OID: &str = "1.2.840.10045.2.1";
pub(super) const P256_OID: &str = "1.2.840.10045.3.1.7";

#[derive(Clone, PartialEq, Eq)]
enum Inner {
    Ed25519(ed25519_dalek::VerifyingKey),
    EcdsaP256(p256::ecdsa::VerifyingKey),
}

/// A public key, which is a point that signatures prove something under.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    inner: Inner,
    id: KeyId,
}

impl PublicKey {
    fn new(inner: Inner) -> Self {
        Self { id: KeyId::of(&spki(&inner)), inner }
    }

    pub(super) fn ed25519(key: ed25519_dalek::VerifyingKey) -> Self {
        Self::new(Inner::Ed25519(key))
    }

    pub(super) fn ecdsa_p256(key: p256::ecdsa::VerifyingKey) -> Self {
        Self::new(Inner::EcdsaP256(key))
    }

    /// Reads a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    ///
    /// [`KeyError::Algorithm`], [`KeyError::Der`] for anything but the one form of a key, [`KeyError::Value`] for what
    /// is no point, or one of small order.
    pub fn from_spki_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let der = || KeyError::Der { what: LABEL };
        let info = SubjectPublicKeyInfoRef::from_der(bytes).map_err(|_| der())?;
        let bits = info.subject_public_key.as_bytes().ok_or_else(der)?;
        let key = match info.algorithm.oid.to_string().as_str() {
            ED25519_OID => {
                let algorithm = KeyAlgorithm::Ed25519;
                let value: &[u8; 32] = bits.try_into().map_err(|_| der())?;
                let key = ed25519_dalek::VerifyingKey::from_bytes(value)
                    .map_err(|_| KeyError::Value { algorithm, reason: "it is no point of the curve" })?;
                if key.is_weak() {
                    return Err(KeyError::Value { algorithm, reason: "it is a point of small order" });
                }
                Self::ed25519(key)
            }
            EC_OID => {
                let curve = info.algorithm.parameters_oid().map_err(|_| der())?.to_string();
                if curve != P256_OID {
                    return Err(KeyError::Algorithm { oid: curve });
                }
                let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(bits).map_err(|_| KeyError::Value {
                    algorithm: KeyAlgorithm::EcdsaP256,
                    reason: "it is no point of the curve",
                })?;
                Self::ecdsa_p256(key)
            }
            oid => return Err(KeyError::Algorithm { oid: oid.to_owned() }),
        };
        // Compressed points and parameters that do not belong there would give one key several ids.
        if key.to_spki_der() != bytes {
            return Err(der());
        }
        Ok(key)
    }

    /// Reads a file with one PEM block `PUBLIC KEY`.
    ///
    /// # Errors
    ///
    /// As for the DER, and for files that are no such block.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let block = pem::read(text)?;
        if block.label != LABEL {
            return Err(KeyError::Label { label: block.label, expected: "public key (`PUBLIC KEY`)" });
        }
        Self::from_spki_der(&block.bytes)
    }

    /// The SubjectPublicKeyInfo.
    #[must_use]
    pub fn to_spki_der(&self) -> Vec<u8> {
        spki(&self.inner)
    }

    /// The file of the key.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::write(LABEL, &self.to_spki_der()).to_string()
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> KeyAlgorithm {
        match self.inner {
            Inner::Ed25519(_) => KeyAlgorithm::Ed25519,
            Inner::EcdsaP256(_) => KeyAlgorithm::EcdsaP256,
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// A signature in the form that is written, which of ECDSA is the one with the lower `s`.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::verify`].
    pub fn checked(&self, message: &[u8], signature: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.verify(message, signature)?;
        match &self.inner {
            Inner::Ed25519(_) => Ok(signature.to_vec()),
            Inner::EcdsaP256(_) => {
                let form = |_| KeyError::SignatureForm { algorithm: self.algorithm() };
                let signature = p256::ecdsa::Signature::from_der(signature).map_err(form)?;
                Ok(signature.normalize_s().to_der().as_bytes().to_vec())
            }
        }
    }

    /// Proves that the key's owner signed `message`.
    ///
    /// # Errors
    ///
    /// [`KeyError::SignatureForm`] for bytes that are no signature of the algorithm, [`KeyError::Signature`] for one that
    /// does not fit.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let form = || KeyError::SignatureForm { algorithm: self.algorithm() };
        match &self.inner {
            Inner::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| form())?;
                key.verify_strict(message, &signature).map_err(|_| KeyError::Signature)
            }
            Inner::EcdsaP256(key) => {
                let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| form())?;
                key.verify(message, &signature).map_err(|_| KeyError::Signature)
            }
        }
    }
}

fn spki(inner: &Inner) -> Vec<u8> {
    match inner {
        Inner::Ed25519(key) => [&ED25519_PREFIX[..], key.as_bytes()].concat(),
        Inner::EcdsaP256(key) => [&P256_PREFIX[..], key.to_sec1_point(false).as_bytes()].concat(),
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({} {})", self.algorithm(), self.id)
    }
}
