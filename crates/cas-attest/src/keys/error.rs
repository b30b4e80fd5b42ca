//! Why a key cannot be made, read, written or used.

use super::KeyAlgorithm;
use crate::DocumentError;

/// Why a key is refused, or a signature.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is longer than keys are.
    #[error("the key file has {actual} bytes; keys have at most {limit}")]
    TooLarge {
        /// Bytes that are allowed.
        limit: usize,
        /// Bytes that it has.
        actual: usize,
    },
    /// The file is no PEM.
    #[error("the key file is not a PEM block")]
    Pem {
        /// What is wrong with it.
        #[source]
        source: pem_rfc7468::Error,
    },
    /// The file has several PEM blocks.
    #[error("the key file holds {count} PEM blocks; one key is expected")]
    SeveralKeys {
        /// Blocks that were found.
        count: usize,
    },
    /// The label of the PEM block is of another kind of key.
    #[error("the key file holds a `{label}`, not a {expected}")]
    Label {
        /// The label found.
        label: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// The bytes in the PEM block are no key.
    #[error("the {what} is not the DER that its kind of key has")]
    Der {
        /// The kind of key.
        what: &'static str,
    },
    /// The algorithm is another one.
    #[error("the key is of the algorithm `{oid}`; supported are Ed25519 and ECDSA on P-256")]
    Algorithm {
        /// Its object identifier.
        oid: String,
    },
    /// The bytes are of the right length, and yet no key.
    #[error("the {algorithm} key is not one: {reason}")]
    Value {
        /// The algorithm.
        algorithm: KeyAlgorithm,
        /// Why.
        reason: &'static str,
    },
    /// A public key beside the private one is another's.
    #[error("the public key in the file of the private key is another key's")]
    Mismatch,
    /// The file of an encrypted key is damaged, or asks for what is not supported.
    #[error("the encrypted key cannot be read")]
    Encrypted(#[from] DocumentError),
    /// The password is longer than passwords are.
    #[error("the password has {actual} bytes; at most {limit} are taken")]
    LongPassword {
        /// Bytes that are allowed.
        limit: usize,
        /// Bytes that it has.
        actual: usize,
    },
    /// The password does not open the file.
    #[error("the password is wrong, or the key file is damaged")]
    Password,
    /// The file is encrypted and there is no password.
    #[error("the private key is encrypted")]
    NeedsPassword,
    /// The source of randomness failed.
    #[error("no random bytes could be had for the key")]
    Random(#[source] std::io::Error),
    /// The source of randomness gives always the same bytes.
    #[error("the source of random bytes gave no usable key")]
    BadRandom,
    /// The text is no id of a key.
    #[error("`{text}` is not the id of a key, which has 64 hexadecimal digits in lower case")]
    Id {
        /// The text, shortened.
        text: String,
    },
    /// The text is no name of an algorithm.
    #[error("`{text}` is not an algorithm for keys; supported are `ed25519` and `ecdsa-p256`")]
    AlgorithmName {
        /// The text, shortened.
        text: String,
    },
    /// The bytes have not the form of signatures of the key's algorithm.
    #[error("these are no bytes of an {algorithm} signature")]
    SignatureForm {
        /// The algorithm of the key.
        algorithm: KeyAlgorithm,
    },
    /// The signature was not made by the key over these bytes.
    #[error("the signature does not fit the key and what was signed")]
    Signature,
}

impl KeyError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Label { label, .. } => match label.as_str() {
                "EC PRIVATE KEY" | "EC PARAMETERS" => {
                    "convert it: openssl pkcs8 -topk8 -nocrypt -in OLD.pem -out NEW.pem"
                }
                "ENCRYPTED PRIVATE KEY" => "decrypt it first: openssl pkcs8 -in OLD.pem -out NEW.pem",
                "CERTIFICATE" => "take the key out of it: openssl x509 -pubkey -noout -in CERTIFICATE.pem",
                "RSA PRIVATE KEY" | "OPENSSH PRIVATE KEY" => "make a new key: cas key generate",
                _ => return None,
            },
            Self::Algorithm { .. } => "make a new key: cas key generate",
            Self::SeveralKeys { .. } => "put each key into a file of its own",
            Self::Encrypted(error) => return error.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}
