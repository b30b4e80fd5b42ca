//! Private keys under a password, as cosign has them: scrypt (RFC 7914) and NaCl's `crypto_secretbox`.
//!
//! The box is XSalsa20 and Poly1305, put together here: the first 32 bytes of the stream are the key of the tag, the rest
//! encrypts, and the tag stands before what it is over.

use std::fmt;

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::private::MAX_PKCS8_BYTES;
use super::{KeyError, MAX_KEY_FILE_BYTES, PrivateKey, Random};
use crate::error::shown;
use crate::{DocumentError, encoding, json};

const WHAT: &str = "the encrypted key";
const SALT_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// scrypt's cost in steps, as its logarithm: cosign's former one, and the one it writes. Both take `128 r N` bytes.
const COSTS: [u8; 2] = [15, 16];
const BLOCK_SIZE: u32 = 8;
const PARALLELIZATION: u32 = 1;
/// No longer one is typed, and each byte is hashed.
const MAX_PASSWORD_BYTES: usize = 4 << 10;

/// The label of an encrypted private key, which says nothing but who named it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyLabel {
    /// `ENCRYPTED SIGSTORE PRIVATE KEY`, which cosign writes since version 2.
    #[default]
    Sigstore,
    /// `ENCRYPTED COSIGN PRIVATE KEY`, which all versions read.
    Cosign,
}

impl KeyLabel {
    /// The label between `BEGIN` and the dashes.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Sigstore => "ENCRYPTED SIGSTORE PRIVATE KEY",
            Self::Cosign => "ENCRYPTED COSIGN PRIVATE KEY",
        }
    }

    pub(super) fn of(text: &str) -> Option<Self> {
        [Self::Sigstore, Self::Cosign].into_iter().find(|label| label.text() == text)
    }
}

/// A private key under a password.
pub struct EncryptedKey {
    label: KeyLabel,
    cost: u8,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
    /// The tag, and what it is over.
    boxed: Vec<u8>,
}

impl EncryptedKey {
    /// Reads the JSON in the PEM block. Costs are judged before anything is paid.
    pub(super) fn parse(label: KeyLabel, bytes: &[u8]) -> Result<Self, KeyError> {
        let document = json::read(bytes, WHAT, MAX_KEY_FILE_BYTES)?;
        let refused =
            |field, value: &str, expected| DocumentError::Value { what: WHAT, field, value: shown(value), expected };
        let kdf = document.object("kdf", "`kdf` of the encrypted key")?;
        let name = kdf.text("name")?;
        let params = kdf.object("params", "`params` of the encrypted key")?;
        let (n, r, p) = (params.number("N")?, params.number("r")?, params.number("p")?);
        let cost = COSTS.into_iter().find(|cost| 1 << cost == n);
        let cost = cost.filter(|_| name == "scrypt" && r == u64::from(BLOCK_SIZE) && p == u64::from(PARALLELIZATION));
        let cost = cost.ok_or_else(|| {
            let value = format!("{name} with N={n}, r={r}, p={p}");
            refused("kdf", &value, "scrypt with N=32768 or N=65536, r=8, p=1")
        })?;
        let cipher = document.object("cipher", "`cipher` of the encrypted key")?;
        let name = cipher.text("name")?;
        if name != "nacl/secretbox" {
            return Err(refused("cipher", &name, "nacl/secretbox").into());
        }
        let salt = kdf.bytes("salt", SALT_BYTES)?;
        let salt =
            salt.try_into().map_err(|_| DocumentError::Kind { what: WHAT, field: "salt", expected: "32 bytes" })?;
        let nonce = cipher.bytes("nonce", NONCE_BYTES)?;
        let nonce =
            nonce.try_into().map_err(|_| DocumentError::Kind { what: WHAT, field: "nonce", expected: "24 bytes" })?;
        let boxed = document.bytes("ciphertext", MAX_PKCS8_BYTES + TAG_BYTES)?;
        if boxed.len() <= TAG_BYTES {
            let expected = "a tag and a key";
            return Err(DocumentError::Kind { what: WHAT, field: "ciphertext", expected }.into());
        }
        Ok(Self { label, cost, salt, nonce, boxed })
    }

    pub(super) fn encrypt(
        label: KeyLabel,
        pkcs8: &[u8],
        password: &[u8],
        random: &mut Random<'_>,
    ) -> Result<Self, KeyError> {
        let [_, cost] = COSTS;
        let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
        random(&mut salt).and_then(|()| random(&mut nonce)).map_err(KeyError::Random)?;
        let key = derive(password, &salt, cost)?;
        Ok(Self { label, cost, salt, nonce, boxed: seal(&key, &nonce, pkcs8) })
    }

    pub(super) fn to_json(&self) -> String {
        let [salt, nonce, boxed] = [&self.salt[..], &self.nonce, &self.boxed].map(encoding::encode);
        format!(
            r#"{{"kdf":{{"name":"scrypt","params":{{"N":{},"r":{BLOCK_SIZE},"p":{PARALLELIZATION}}},"salt":"{salt}"}},"cipher":{{"name":"nacl/secretbox","nonce":"{nonce}"}},"ciphertext":"{boxed}"}}"#,
            1_u64 << self.cost
        )
    }

    /// How the file was labelled.
    #[must_use]
    pub fn label(&self) -> KeyLabel {
        self.label
    }

    /// The key. Takes 64 MiB of memory at most and some tenths of a second.
    ///
    /// # Errors
    ///
    /// [`KeyError::Password`] for a wrong password and for a damaged file alike; errors of reading PKCS#8.
    pub fn decrypt(&self, password: &[u8]) -> Result<PrivateKey, KeyError> {
        let key = derive(password, &self.salt, self.cost)?;
        let pkcs8 = open(&key, &self.nonce, &self.boxed).ok_or(KeyError::Password)?;
        PrivateKey::from_pkcs8_der(&pkcs8)
    }
}

impl fmt::Debug for EncryptedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EncryptedKey({})", self.label.text())
    }
}

type Secret = Zeroizing<[u8; 32]>;

fn derive(password: &[u8], salt: &[u8], cost: u8) -> Result<Secret, KeyError> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(KeyError::LongPassword { limit: MAX_PASSWORD_BYTES, actual: password.len() });
    }
    let params = scrypt::Params::new(cost, BLOCK_SIZE, PARALLELIZATION).expect("the costs are constants");
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(password, salt, &params, &mut *key).expect("scrypt gives 32 bytes");
    Ok(key)
}

/// The cipher behind the bytes that are the key of the tag, and that key.
fn stream(key: &Secret, nonce: &[u8; NONCE_BYTES]) -> (XSalsa20, Poly1305) {
    let mut cipher = XSalsa20::new((&**key).into(), nonce.into());
    let mut tag_key = Zeroizing::new([0; 32]);
    cipher.apply_keystream(&mut *tag_key);
    (cipher, Poly1305::new((&*tag_key).into()))
}

fn seal(key: &Secret, nonce: &[u8; NONCE_BYTES], message: &[u8]) -> Vec<u8> {
    let (mut cipher, tag) = stream(key, nonce);
    let mut hidden = Zeroizing::new(message.to_vec());
    cipher.apply_keystream(&mut hidden);
    [tag.compute_unpadded(&hidden).as_slice(), &hidden[..]].concat()
}

fn open(key: &Secret, nonce: &[u8; NONCE_BYTES], boxed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (found, hidden) = boxed.split_at_checked(TAG_BYTES)?;
    let (mut cipher, tag) = stream(key, nonce);
    if !bool::from(tag.compute_unpadded(hidden).as_slice().ct_eq(found)) {
        return None;
    }
    let mut message = Zeroizing::new(hidden.to_vec());
    cipher.apply_keystream(&mut message);
    Some(message)
}
