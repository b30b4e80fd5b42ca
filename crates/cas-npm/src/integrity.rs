//! Integrity of a tarball, as `package-lock.json` and registries have it (W3C Subresource Integrity).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cas_digest::{Digest, DigestFunction};

/// Longest text that is read.
const MAX_BYTES: usize = 4096;

/// The strongest digest of an `integrity` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Integrity(pub Digest);

/// Why a text is no integrity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an integrity of SHA-512 or SHA-1")]
pub struct IntegrityError {
    /// The text.
    text: String,
}

impl std::str::FromStr for Integrity {
    type Err = IntegrityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || IntegrityError { text: text.chars().take(160).collect() };
        if text.len() > MAX_BYTES {
            return Err(wrong());
        }
        for (prefix, function) in [("sha512-", DigestFunction::Sha512), ("sha1-", DigestFunction::Sha1)] {
            let found = text.split_ascii_whitespace().find_map(|word| word.strip_prefix(prefix));
            if let Some(value) = found {
                let value = STANDARD.decode(value.split('?').next().unwrap_or(value)).map_err(|_| wrong())?;
                return Ok(Self(Digest::from_value(function, &value).map_err(|_| wrong())?));
            }
        }
        Err(wrong())
    }
}

impl std::fmt::Display for Integrity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0.function().name(), STANDARD.encode(self.0.value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_digest_counts() {
        let digest = Digest::of(DigestFunction::Sha512, b"x");
        let text = Integrity(digest).to_string();
        assert_eq!(text.parse(), Ok(Integrity(digest)));
        assert_eq!(format!("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk= {text}?x").parse(), Ok(Integrity(digest)));
        for text in ["", "sha512-", "sha512-AAAA", "md5-1B2M2Y8AsgTpgAmY7PhCfg==", "sha512-***"] {
            assert!(text.parse::<Integrity>().is_err(), "{text}");
        }
    }
}
