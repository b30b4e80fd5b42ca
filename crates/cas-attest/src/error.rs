//! Why a document cannot be read or written.

use crate::SignerError;

/// Why an envelope, bundle, statement, payload or key file is refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is longer than anybody needs.
    #[error("{what} has {actual} bytes; at most {limit} are read")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// Bytes that are allowed.
        limit: usize,
        /// Bytes that it has.
        actual: usize,
    },
    /// It is no JSON, or has a field twice.
    #[error("{what} is not valid JSON")]
    Syntax {
        /// What was read.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A field is not there.
    #[error("{what} has no `{field}`")]
    Missing {
        /// What was read.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A value is of another kind.
    #[error("`{field}` of {what} is not {expected}")]
    Kind {
        /// What was read.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// The kind that it must be of.
        expected: &'static str,
    },
    /// A field is not known where none but known ones are safe.
    #[error("{what} has the unknown field `{field}`")]
    Unknown {
        /// What was read.
        what: &'static str,
        /// The field, shortened.
        field: String,
    },
    /// A text is not base64 in its only form.
    #[error("`{field}` of {what} is not base64 with padding")]
    Base64 {
        /// What was read.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A list or map has too many items, or too few.
    #[error("`{field}` of {what} has {actual} items, not {least} to {most}")]
    Count {
        /// What was read.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// Items that it has at least.
        least: usize,
        /// Items that it has at most.
        most: usize,
        /// Items that are there.
        actual: usize,
    },
    /// A value is none that is supported.
    #[error("`{field}` of {what} is `{value}`; supported is {expected}")]
    Value {
        /// What was read.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// The value, shortened.
        value: String,
        /// What is supported.
        expected: &'static str,
    },
    /// The bundle signs an artifact as such and not a statement about it.
    #[error("the bundle holds a `messageSignature`, which says nothing about what was signed")]
    MessageSignature,
    /// Whoever has the key did not sign.
    #[error("nothing is signed: {0}")]
    Signer(#[source] SignerError),
}

impl DocumentError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MessageSignature => {
                Some("sign a statement instead: `cas sign`, or `cosign attest-blob` in place of `sign-blob`".to_owned())
            }
            Self::Value { field: "mediaType", .. } => {
                Some("sign again with a tool that writes sigstore bundles of version 0.3, such as cosign 3".to_owned())
            }
            Self::Value { field: "kdf", .. } => Some(
                "decrypt the key with the tool that made it, and encrypt it again with `cas key import`".to_owned(),
            ),
            Self::Signer(error) => error.hint.clone(),
            _ => None,
        }
    }
}

/// A value for an error: no longer than a line, and without control characters.
pub(crate) fn shown(value: &str) -> String {
    const MOST: usize = 80;
    let mut text: String = value.chars().take(MOST).flat_map(char::escape_debug).collect();
    if value.chars().nth(MOST).is_some() {
        text.push('…');
    }
    text
}
