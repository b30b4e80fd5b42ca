//! The digest functions that `cas` computes.

use std::fmt;
use std::str::FromStr;

/// A function that names bytes.
///
/// BLAKE3 is the default of a workspace, SHA-256 is what OCI and most REAPI services use, SHA-512 and SHA-1 appear as the
/// integrity of npm packages. SHA-1 is only ever compared with, never used to name a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestFunction {
    /// BLAKE3 with its default 32-byte output.
    Blake3,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SHA-1, kept for old npm lockfiles.
    Sha1,
}

impl DigestFunction {
    /// Every function, in the order of their names' use.
    pub const ALL: [Self; 4] = [Self::Blake3, Self::Sha256, Self::Sha512, Self::Sha1];

    /// Length of a digest of this function in bytes.
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Blake3 | Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
        }
    }

    /// Name as it stands before the colon of a digest and in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Sha1 => "sha1",
        }
    }
}

impl fmt::Display for DigestFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a digest function that `cas` computes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a digest function; known are `blake3`, `sha256`, `sha512` and `sha1`")]
pub struct UnknownFunction {
    /// What was given.
    pub name: String,
}

impl FromStr for DigestFunction {
    type Err = UnknownFunction;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|function| function.name() == text)
            .ok_or_else(|| UnknownFunction { name: text.chars().take(32).collect() })
    }
}
