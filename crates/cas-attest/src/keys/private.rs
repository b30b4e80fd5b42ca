//! Private keys: making, reading and writing them in the clear, and signing.

use std::fmt;

use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::PrivateKeyInfoRef;
use p256::pkcs8::der::Decode as _;
use zeroize::Zeroizing;

use super::public::{EC_OID, ED25519_OID, P256_OID};
use super::{EncryptedKey, KeyAlgorithm, KeyError, KeyLabel, PublicKey, Random, pem};

const LABEL: &str = "PRIVATE KEY";
/// What labels of private keys are called in errors.
const EXPECTED: &str =
    "private key (`PRIVATE KEY`, `ENCRYPTED SIGSTORE PRIVATE KEY` or `ENCRYPTED COSIGN PRIVATE KEY`)";
/// PKCS#8 of the algorithms here has less than a tenth of it.
pub(super) const MAX_PKCS8_BYTES: usize = 4 << 10;
/// DER before the 32 bytes of an Ed25519 seed (RFC 8410, 7).
const ED25519_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// DER before the 32 bytes of a scalar of P-256: PKCS#8 around an ECPrivateKey without parameters (RFC 5915).
const P256_PREFIX: [u8; 36] = *b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20";
/// DER between the scalar and the 65 bytes of the public point.
const P256_BETWEEN: [u8; 5] = *b"\xa1\x44\x03\x42\x00";
/// A random number is no scalar of P-256 once in 2³² times; so many in a row are no accident.
const MAX_TRIES: usize = 16;

enum Inner {
    Ed25519(ed25519_dalek::SigningKey),
    EcdsaP256(p256::ecdsa::SigningKey),
}

/// A private key. It is overwritten when it is dropped, and cannot be cloned.
pub struct PrivateKey {
    /// In one place, so that moving the key leaves no copies of it behind.
    inner: Box<Inner>,
    public: PublicKey,
}

/// A file with a private key, which may need a password.
#[derive(Debug)]
pub enum PrivateKeyFile {
    /// The key, in the clear.
    Plain(PrivateKey),
    /// What a password opens.
    Encrypted(EncryptedKey),
}

impl PrivateKeyFile {
    /// Reads a file with one PEM block.
    ///
    /// # Errors
    ///
    /// [`KeyError`] for what is no private key of a supported kind, or an encrypted one that asks for more than is
    /// safe.
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let block = pem::read(text)?;
        if block.label == LABEL {
            return PrivateKey::from_pkcs8_der(&block.bytes).map(Self::Plain);
        }
        match KeyLabel::of(&block.label) {
            Some(label) => EncryptedKey::parse(label, &block.bytes).map(Self::Encrypted),
            None => Err(KeyError::Label { label: block.label, expected: EXPECTED }),
        }
    }

    /// The key; `password` is asked only if one is needed.
    ///
    /// # Errors
    ///
    /// [`KeyError::NeedsPassword`] when there is none, [`KeyError::Password`] when it is wrong.
    pub fn open(self, password: Option<&[u8]>) -> Result<PrivateKey, KeyError> {
        match self {
            Self::Plain(key) => Ok(key),
            Self::Encrypted(key) => key.decrypt(password.ok_or(KeyError::NeedsPassword)?),
        }
    }
}

impl PrivateKey {
    /// Makes a new key of bytes that `random` gives.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`] when it gives none, [`KeyError::BadRandom`] when they cannot be random.
    pub fn generate(algorithm: KeyAlgorithm, random: &mut Random<'_>) -> Result<Self, KeyError> {
        for _ in 0..MAX_TRIES {
            let mut bytes = Zeroizing::new([0; 32]);
            random(&mut *bytes).map_err(KeyError::Random)?;
            // Nobody gets all zeros by chance, but from a source that does nothing.
            if *bytes != [0; 32]
                && let Ok(key) = Self::from_secret(algorithm, &bytes)
            {
                return Ok(key);
            }
        }
        Err(KeyError::BadRandom)
    }

    fn from_secret(algorithm: KeyAlgorithm, bytes: &[u8; 32]) -> Result<Self, KeyError> {
        Ok(match algorithm {
            KeyAlgorithm::Ed25519 => {
                let key = ed25519_dalek::SigningKey::from_bytes(bytes);
                Self { public: PublicKey::ed25519(key.verifying_key()), inner: Box::new(Inner::Ed25519(key)) }
            }
            KeyAlgorithm::EcdsaP256 => {
                let key = p256::ecdsa::SigningKey::from_slice(bytes)
                    .map_err(|_| KeyError::Value { algorithm, reason: "it is no number below the curve's order" })?;
                Self { public: PublicKey::ecdsa_p256(*key.verifying_key()), inner: Box::new(Inner::EcdsaP256(key)) }
            }
        })
    }

    /// Reads PKCS#8 in DER, of version 1 or 2.
    ///
    /// # Errors
    ///
    /// [`KeyError::Algorithm`], [`KeyError::Der`], [`KeyError::Value`], and [`KeyError::Mismatch`] when a public key in
    /// it is not this one's: signing with such a pair would give the private key away.
    pub fn from_pkcs8_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let der = || KeyError::Der { what: LABEL };
        if bytes.len() > MAX_PKCS8_BYTES {
            return Err(KeyError::TooLarge { limit: MAX_PKCS8_BYTES, actual: bytes.len() });
        }
        let info = PrivateKeyInfoRef::from_der(bytes).map_err(|_| der())?;
        let private = info.private_key.as_bytes();
        let key = match info.algorithm.oid.to_string().as_str() {
            ED25519_OID => {
                // An OCTET STRING in an OCTET STRING (RFC 8410, 7).
                let seed = private.strip_prefix(b"\x04\x20").and_then(|seed| <&[u8; 32]>::try_from(seed).ok());
                if info.algorithm.parameters.is_some() {
                    return Err(der());
                }
                Self::from_secret(KeyAlgorithm::Ed25519, seed.ok_or_else(der)?)?
            }
            EC_OID => {
                let curve = info.algorithm.parameters_oid().map_err(|_| der())?.to_string();
                if curve != P256_OID {
                    return Err(KeyError::Algorithm { oid: curve });
                }
                let secret = sec1::EcPrivateKey::from_der(private).map_err(|_| der())?;
                let scalar = <&[u8; 32]>::try_from(secret.private_key).map_err(|_| der())?;
                let key = Self::from_secret(KeyAlgorithm::EcdsaP256, scalar)?;
                let named = secret.parameters.and_then(|parameters| parameters.named_curve());
                if named.is_some_and(|curve| curve.to_string() != P256_OID) {
                    return Err(der());
                }
                key.check_public(secret.public_key)?;
                key
            }
            oid => return Err(KeyError::Algorithm { oid: oid.to_owned() }),
        };
        let beside = info.public_key.map(|bits| bits.as_bytes().ok_or_else(der)).transpose()?;
        key.check_public(beside)?;
        Ok(key)
    }

    /// Refuses the bytes of a public key that is not this one's.
    fn check_public(&self, found: Option<&[u8]>) -> Result<(), KeyError> {
        let Some(found) = found else { return Ok(()) };
        let is_own = match &*self.inner {
            Inner::Ed25519(key) => key.verifying_key().as_bytes() == found,
            Inner::EcdsaP256(key) => {
                p256::ecdsa::VerifyingKey::from_sec1_bytes(found).is_ok_and(|other| other == *key.verifying_key())
            }
        };
        if is_own { Ok(()) } else { Err(KeyError::Mismatch) }
    }

    /// PKCS#8 in DER, version 1.
    #[must_use]
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PKCS8_BYTES));
        match &*self.inner {
            Inner::Ed25519(key) => {
                bytes.extend_from_slice(&ED25519_PREFIX);
                bytes.extend_from_slice(key.as_bytes());
            }
            Inner::EcdsaP256(key) => {
                bytes.extend_from_slice(&P256_PREFIX);
                let scalar = Zeroizing::new(<[u8; 32]>::from(key.to_bytes()));
                bytes.extend_from_slice(&*scalar);
                bytes.extend_from_slice(&P256_BETWEEN);
                bytes.extend_from_slice(key.verifying_key().to_sec1_point(false).as_bytes());
            }
        }
        bytes
    }

    /// The file of the key in the clear.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::write(LABEL, &self.to_pkcs8_der())
    }

    /// The file of the key under a password, as cosign writes it. Takes 64 MiB of memory and some tenths of a second.
    ///
    /// # Errors
    ///
    /// [`KeyError::Random`] and [`KeyError::LongPassword`].
    pub fn to_encrypted_pem(
        &self,
        label: KeyLabel,
        password: &[u8],
        random: &mut Random<'_>,
    ) -> Result<String, KeyError> {
        let key = EncryptedKey::encrypt(label, &self.to_pkcs8_der(), password, random)?;
        Ok(pem::write(label.text(), key.to_json().as_bytes()).to_string())
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs bytes. The same key and bytes give the same signature (RFC 8032; RFC 6979, with the lower `s`).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &*self.inner {
            Inner::Ed25519(key) => ed25519_dalek::Signer::sign(key, message).to_bytes().to_vec(),
            Inner::EcdsaP256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.normalize_s().to_der().as_bytes().to_vec()
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PrivateKey(*** of {})", self.public.id())
    }
}
