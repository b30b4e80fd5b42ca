//! Names of algorithms and of keys.

use std::fmt;
use std::str::FromStr;

use cas_digest::{Digest, DigestFunction};

use super::KeyError;
use crate::encoding;
use crate::error::shown;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyAlgorithm {
    /// Pure Ed25519 (RFC 8032): the algorithm of `cas` itself.
    Ed25519,
    /// ECDSA with SHA-256 on P-256 (FIPS 186-5): the one that every other tool knows.
    EcdsaP256,
}

impl KeyAlgorithm {
    /// Both, in the order in which they are offered.
    pub const ALL: [Self; 2] = [Self::Ed25519, Self::EcdsaP256];

    /// Name on the command line and in lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256",
        }
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for KeyAlgorithm {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|algorithm| algorithm.name() == text);
        found.ok_or_else(|| KeyError::AlgorithmName { text: shown(text) })
    }
}

/// The name of a public key: SHA-256 of its SubjectPublicKeyInfo.
///
/// Printed and parsed as 64 hexadecimal digits; bundles have it as base64 ([`KeyId::hint`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Digest);

impl KeyId {
    pub(crate) fn of(subject_public_key_info: &[u8]) -> Self {
        Self(Digest::of(DigestFunction::Sha256, subject_public_key_info))
    }

    /// What stands as `hint` in a bundle. It is not signed, and proves nothing.
    #[must_use]
    pub fn hint(&self) -> String {
        encoding::encode(self.0.value())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digest = Digest::from_hex(DigestFunction::Sha256, text);
        digest.map(Self).map_err(|_| KeyError::Id { text: shown(text) })
    }
}
