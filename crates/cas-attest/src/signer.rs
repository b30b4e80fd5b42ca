//! Who signs: a private key that is here, or whoever has one and gives signatures alone.

use crate::{DocumentError, PrivateKey, PublicKey};

/// Gives signatures by one key. What it gives is checked with the public half before anybody gets it.
pub trait Signer {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs bytes.
    ///
    /// # Errors
    ///
    /// [`SignerError`] when there is no signature to be had.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError>;
}

/// Why there is no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SignerError {
    /// Why.
    pub reason: String,
    /// What the user can do about it.
    pub hint: Option<String>,
}

impl Signer for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        Self::public_key(self)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(Self::sign(self, message))
    }
}

/// A signature by the key of the signer, in the form that is written.
pub(crate) fn sign(signer: &dyn Signer, message: &[u8]) -> Result<Vec<u8>, DocumentError> {
    let signature = signer.sign(message).map_err(DocumentError::Signer)?;
    signer.public_key().checked(message, &signature).map_err(|error| {
        let hint = "name the public key of the private one that it signs with".to_owned();
        let reason = format!("it gave no signature by the key `{}`: {error}", signer.public_key().id());
        DocumentError::Signer(SignerError { reason, hint: Some(hint) })
    })
}
