//! Keys: making, reading, writing, signing and checking.
//!
//! Secret bytes are overwritten when they are dropped, and no `Debug` or error shows them.

mod encrypted;
mod error;
mod identity;
mod pem;
mod private;
mod public;
#[cfg(test)]
mod tests;

pub use encrypted::{EncryptedKey, KeyLabel};
pub use error::KeyError;
pub use identity::{KeyAlgorithm, KeyId};
pub use pem::MAX_KEY_FILE_BYTES;
pub use private::{PrivateKey, PrivateKeyFile};
pub use public::PublicKey;

/// Fills a slice with bytes that nobody can guess, as the operating system's `getrandom` does.
pub type Random<'a> = dyn FnMut(&mut [u8]) -> std::io::Result<()> + 'a;
