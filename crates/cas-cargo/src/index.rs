//! `config.json` of an index: where a registry keeps archives (The Cargo Book, "Index Format", "Index Configuration").

use serde::Deserialize;

use crate::LockedCrate;

/// Longest `config.json` that is read, in bytes.
const MAX_BYTES: usize = 1 << 16;

/// Where a registry keeps archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloads {
    template: String,
}

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// It is longer than any real one.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not JSON of this shape.
    #[error("it is not the configuration of an index")]
    Syntax(#[from] serde_json::Error),
    /// It names an address that cannot be fetched.
    #[error("`dl` is `{template}`, which is not an address that can be fetched")]
    Address {
        /// The address.
        template: String,
    },
}

impl Downloads {
    /// Most bytes that are worth reading.
    pub const LIMIT_BYTES: u64 = MAX_BYTES as u64 + 1;

    /// Reads a `config.json`.
    ///
    /// # Errors
    ///
    /// [`DownloadError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, DownloadError> {
        #[derive(Deserialize)]
        struct Document {
            dl: String,
        }
        if bytes.len() > MAX_BYTES {
            return Err(DownloadError::TooLong);
        }
        let Document { dl: template } = serde_json::from_slice(bytes)?;
        if !["https://", "http://", "file:///"].iter().any(|scheme| template.starts_with(scheme)) {
            return Err(DownloadError::Address { template });
        }
        Ok(Self { template })
    }

    /// Address of a crate's archive.
    #[must_use]
    pub fn address(&self, of: &LockedCrate) -> String {
        let LockedCrate { name, version, checksum, .. } = of;
        let prefix = prefix(name);
        let lower = prefix.to_ascii_lowercase();
        let checksum = checksum.to_hex();
        let markers = [
            ("{crate}", name.as_str()),
            ("{version}", version),
            ("{prefix}", &prefix),
            ("{lowerprefix}", &lower),
            ("{sha256-checksum}", &checksum),
        ];
        if !markers.iter().any(|(marker, _)| self.template.contains(marker)) {
            return format!("{}/{name}/{version}/download", self.template.trim_end_matches('/'));
        }
        // Values have no braces, so the order does not matter.
        markers.iter().fold(self.template.clone(), |text, (marker, value)| text.replace(marker, value))
    }
}

/// The folders that indexes have for a name, which is ASCII.
fn prefix(name: &str) -> String {
    match name.len() {
        0..=2 => name.len().to_string(),
        3 => format!("3/{}", &name[..1]),
        _ => format!("{}/{}", &name[..2], &name[2..4]),
    }
}

#[cfg(test)]
mod tests {
    use cas_digest::{Digest, DigestFunction};

    use super::*;

    #[test]
    fn addresses_follow_the_template() {
        let checksum = Digest::of(DigestFunction::Sha256, b"test");
        let of = |name: &str| LockedCrate {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            registry: String::new(),
            checksum,
        };
        for (template, name, expected) in [
            ("https://h/api/v1/crates", "Serde", "https://h/api/v1/crates/Serde/1.0.0/download"),
            ("https://h/crates/", "a", "https://h/crates/a/1.0.0/download"),
            ("https://h/{crate}/{crate}-{version}.crate", "a-b", "https://h/a-b/a-b-1.0.0.crate"),
            ("https://h/{prefix}/{lowerprefix}/{crate}", "ABcd", "https://h/AB/cd/ab/cd/ABcd"),
            ("https://h/{prefix}", "abc", "https://h/3/a"),
            ("https://h/{prefix}", "ab", "https://h/2"),
            (
                "https://h/{sha256-checksum}",
                "x",
                "https://h/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            ),
        ] {
            let document = format!("{{\"dl\": \"{template}\", \"api\": null}}");
            let downloads = Downloads::parse(document.as_bytes()).expect("it is one");
            assert_eq!(downloads.address(&of(name)), expected);
        }
        assert!(matches!(Downloads::parse(b"{\"dl\": \"ftp://x\"}"), Err(DownloadError::Address { .. })));
        assert!(matches!(Downloads::parse(b"{}"), Err(DownloadError::Syntax(_))));
    }
}
