//! Why a download failed.

use cas_fs::FsError;

/// Why a download failed. Addresses in messages carry no credentials.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The network may not be used.
    #[error("`{url}` is not in the store, and the network may not be used")]
    Offline {
        /// The address.
        url: String,
    },
    /// The server does not have it.
    #[error("`{url}` does not exist there (HTTP status {status})")]
    NotFound {
        /// The address.
        url: String,
        /// 404 or 410.
        status: u16,
    },
    /// The server refused.
    #[error("`{url}` answered with HTTP status {status}")]
    Status {
        /// The address.
        url: String,
        /// What it said.
        status: u16,
    },
    /// The server could not be reached, or broke off.
    #[error("could not fetch `{url}`")]
    Transport {
        /// The address.
        url: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A local file could not be read.
    #[error("could not read `{url}`")]
    File {
        /// The address.
        url: String,
        /// What the system said.
        source: FsError,
    },
    /// The address is not one, or of a kind that cannot be fetched.
    #[error("`{url}` is not an address that can be fetched")]
    Address {
        /// The address.
        url: String,
    },
}

impl FetchError {
    /// Whether the origin says that it does not have the file, as opposed to not answering.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::File { source, .. } => source.is_not_found(),
            _ => false,
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// The address without user and password.
#[must_use]
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (url, expected) in [
            ("https://user:pass@host/x", "https://host/x"),
            ("https://host/@scope/x", "https://host/@scope/x"),
            ("https://u@h", "https://h"),
            ("file:///a@b", "file:///a@b"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(redact(url), expected);
        }
    }
}
