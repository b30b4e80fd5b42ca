//! Keys that may sign a release, and whether a signature is one of theirs.
//!
//! A key counts as far as its own signatures carry it (RFC 9580, sections 5.2.3 and 10.1): the primary key needs a good
//! self-signature, a subkey a good binding that allows signing and is signed back; expiry comes from the newest of each,
//! and is compared with the time of the signature in question. A key that was revoked as compromised, or without a
//! reason, is of no use; one that was only retired still vouches for what it signed before.
//!
//! Not here: the web of trust. A ring is trusted whole, because somebody put it there.

use std::io::Read;

use pgp::armor::{BlockType, Dearmor};
use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::errors::Error;
use pgp::packet::{Packet, PacketParser, RevocationCode, Signature, SignatureType, SubpacketData};
use pgp::types::{Fingerprint, KeyDetails, KeyId, Tag};

/// The keys of the Debian archive; keyrings/README.md says where they are from.
const DEBIAN_ARCHIVE: &[u8] = include_bytes!("../keyrings/debian-archive-keyring.gpg");
/// Largest keyring; Debian's has 56 KB, of which most are signatures of people on the keys.
const MAX_KEYRING_BYTES: usize = 16 << 20;

/// Why bytes are not a keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// They cannot be decoded as OpenPGP keys.
    #[error("the keyring is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There is no key in it.
    #[error("the keyring holds no key")]
    Empty,
    /// It is larger than any real one.
    #[error("the keyring is larger than {MAX_KEYRING_BYTES} bytes")]
    TooLarge,
}

/// Why no signature of a message can be relied on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A key of the ring is named as the signer, and the signature is not over this text.
    #[error("the signature that names key `{key}` does not match the text: one of them was changed")]
    Bad {
        /// Fingerprint of the key.
        key: String,
    },
    /// A signature matches the text, and its key must not be relied on.
    #[error("the text is signed by key `{key}`, which does not count: {reason}")]
    Unusable {
        /// Fingerprint of the key.
        key: String,
        /// Why it does not count.
        reason: Unusable,
    },
    /// No signature names a key of the ring.
    #[error("no signature is by a key of the keyring; signers: {}", .issuers.join(", "))]
    UnknownKey {
        /// Fingerprints or key ids that the signatures name.
        issuers: Vec<String>,
    },
}

/// Why a signature that matches does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The key was not valid any more when the signature was made.
    Expired,
    /// The key, or its binding to its primary key, was withdrawn.
    Revoked,
    /// Nothing says that the key may sign, or nothing binds it to its primary key.
    NotForSigning,
    /// The signature uses a digest function that can be forged, or is of a kind that signs no text.
    WeakSignature,
    /// The signature says no time, one before the key was made, or that it ended before now.
    Time,
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "it had expired before the signature was made",
            Self::Revoked => "it was revoked",
            Self::NotForSigning => "it is not bound as a signing key",
            Self::WeakSignature => "the signature is of a weak kind",
            Self::Time => "the signature gives no possible time",
        })
    }
}

/// A set of trusted keys.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// A primary key or a subkey of the ring that a signature may be by.
#[derive(Clone, Copy)]
struct Candidate<'ring> {
    key: &'ring SignedPublicKey,
    subkey: Option<&'ring SignedPublicSubKey>,
}

impl Keyring {
    /// The keys of the Debian archive, as of trixie.
    ///
    /// # Panics
    ///
    /// Never: the embedded file is checked by a test.
    #[must_use]
    pub fn debian() -> Self {
        Self::parse(DEBIAN_ARCHIVE).expect("the embedded keyring is checked by a test")
    }

    /// Parses keys, binary or in ASCII armor (one block of any number of keys).
    ///
    /// # Errors
    ///
    /// [`KeyringError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        if bytes.len() > MAX_KEYRING_BYTES {
            return Err(KeyringError::TooLarge);
        }
        let damaged = |error: pgp::errors::Error| KeyringError::Damaged(Box::new(error));
        if bytes.is_empty() {
            return Err(KeyringError::Empty);
        }
        // The first bit of every packet is set, and armor is ASCII.
        let keys = if bytes[0] & 0x80 != 0 {
            keys_of(bytes).map_err(damaged)?
        } else {
            let mut dearmor = Dearmor::new(bytes);
            let mut packets = Vec::new();
            dearmor.read_to_end(&mut packets).map_err(|error| damaged(error.into()))?;
            if !matches!(dearmor.typ, Some(BlockType::PublicKey)) {
                return Err(KeyringError::Empty);
            }
            keys_of(&packets).map_err(damaged)?
        };
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        Ok(Self { keys })
    }

    /// Fingerprints of the primary keys, in the order of the ring, in lower-case hex.
    pub fn fingerprints(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| hex(&key.fingerprint()))
    }

    /// Fingerprint of the key of the first signature that is good and counts.
    pub(crate) fn verify(&self, signatures: &[Signature], signed: &[u8]) -> Result<String, SignatureError> {
        let (mut bad, mut unusable, mut issuers) = (None, None, Vec::new());
        for signature in signatures {
            let mut known = false;
            for candidate in self.candidates(signature) {
                known = true;
                let key = hex(&candidate.fingerprint());
                if !candidate.matches(signature, signed) {
                    bad = bad.or(Some(SignatureError::Bad { key }));
                    continue;
                }
                match candidate.check(signature) {
                    Ok(()) => return Ok(key),
                    Err(reason) => unusable = unusable.or(Some(SignatureError::Unusable { key, reason })),
                }
            }
            if !known {
                issuers.push(issuer(signature));
            }
        }
        Err(bad.or(unusable).unwrap_or(SignatureError::UnknownKey { issuers }))
    }

    /// Keys of the ring that a signature names as its own.
    fn candidates(&self, signature: &Signature) -> impl Iterator<Item = Candidate<'_>> {
        let fingerprints: Vec<Fingerprint> = signature.issuer_fingerprint().into_iter().cloned().collect();
        let ids: Vec<KeyId> = signature.issuer_key_id().into_iter().copied().collect();
        self.keys
            .iter()
            .flat_map(|key| {
                let subkeys = key.public_subkeys.iter().map(move |subkey| Candidate { key, subkey: Some(subkey) });
                std::iter::once(Candidate { key, subkey: None }).chain(subkeys)
            })
            .filter(move |candidate| {
                fingerprints.contains(&candidate.fingerprint())
                    || (fingerprints.is_empty() && ids.contains(&candidate.key_id()))
            })
    }
}

/// The keys among some packets.
fn keys_of(bytes: &[u8]) -> pgp::errors::Result<Vec<SignedPublicKey>> {
    let packets = PacketParser::new(bytes).filter(|packet| match packet {
        // Trust packets are notes of whoever kept the ring, and stand between a name and the signatures on it (RFC 9580, section
        // 5.10): Ubuntu's ring has them.
        Ok(packet) => !matches!(packet, Packet::Trust(_) | Packet::Marker(_) | Packet::Padding(_)),
        // Of a kind or version that is not known here: what it is for does not count.
        Err(Error::Unsupported { .. }) => false,
        Err(Error::InvalidPacketContent { source }) => !matches!(**source, Error::Unsupported { .. }),
        Err(_) => true,
    });
    SignedPublicKey::from_packets(packets.peekable()).collect()
}

impl Candidate<'_> {
    fn fingerprint(&self) -> Fingerprint {
        self.subkey.map_or_else(|| self.key.primary_key.fingerprint(), |subkey| subkey.key.fingerprint())
    }

    fn key_id(&self) -> KeyId {
        self.subkey.map_or_else(|| self.key.primary_key.legacy_key_id(), |subkey| subkey.key.legacy_key_id())
    }

    /// Whether the signature is this key's over these bytes.
    fn matches(&self, signature: &Signature, signed: &[u8]) -> bool {
        match self.subkey {
            None => signature.verify(&self.key.primary_key, signed).is_ok(),
            Some(subkey) => signature.verify(&subkey.key, signed).is_ok(),
        }
    }

    /// Whether a signature that matches counts.
    fn check(&self, signature: &Signature) -> Result<(), Unusable> {
        // Another kind, for example over a name, can be made to look as if it were over some text.
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) || !is_strong(signature) {
            return Err(Unusable::WeakSignature);
        }
        let at = signature.created().ok_or(Unusable::Time)?.as_secs();
        self.check_primary(at)?;
        match self.subkey {
            None => Ok(()),
            Some(subkey) => self.check_subkey(subkey, at),
        }
    }

    fn check_primary(&self, at: u32) -> Result<(), Unusable> {
        let primary = &self.key.primary_key;
        let details = &self.key.details;
        let revoked = details
            .revocation_signatures
            .iter()
            .any(|revocation| counts_at(revocation, at) && revocation.verify_key(primary).is_ok());
        if revoked {
            return Err(Unusable::Revoked);
        }
        let direct = details
            .direct_signatures
            .iter()
            .filter(|signature| signature.typ() == Some(SignatureType::Key) && signature.verify_key(primary).is_ok());
        let of_names = details.users.iter().flat_map(|user| {
            let own = user
                .signatures
                .iter()
                .filter(|signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok());
            // The newest own signature on a name says whether the name still belongs to the key.
            own.max_by_key(|signature| signature.created())
                .filter(|signature| signature.typ() != Some(SignatureType::CertRevocation))
        });
        let newest =
            direct.chain(of_names).max_by_key(|signature| signature.created()).ok_or(Unusable::NotForSigning)?;
        check_time(primary.created_at().as_secs(), newest, at)?;
        if self.subkey.is_none() && !may_sign(newest, true) {
            return Err(Unusable::NotForSigning);
        }
        Ok(())
    }

    fn check_subkey(&self, subkey: &SignedPublicSubKey, at: u32) -> Result<(), Unusable> {
        let primary = &self.key.primary_key;
        let own = |kind| {
            subkey.signatures.iter().filter(move |signature| {
                signature.typ() == Some(kind) && signature.verify_subkey_binding(primary, &subkey.key).is_ok()
            })
        };
        if own(SignatureType::SubkeyRevocation).any(|revocation| counts_at(revocation, at)) {
            return Err(Unusable::Revoked);
        }
        let newest = own(SignatureType::SubkeyBinding)
            .max_by_key(|signature| signature.created())
            .ok_or(Unusable::NotForSigning)?;
        // Without the signature back, anybody could take another's key for a subkey and its signatures for own ones.
        let signed_back = newest
            .embedded_signature()
            .is_some_and(|signature| signature.verify_primary_key_binding(&subkey.key, primary).is_ok());
        if !may_sign(newest, false) || !signed_back {
            return Err(Unusable::NotForSigning);
        }
        check_time(subkey.key.created_at().as_secs(), newest, at)
    }
}

/// Whether the digest of a signature is of a function without known collisions, and nothing in it is not understood.
fn is_strong(signature: &Signature) -> bool {
    use HashAlgorithm::{Sha3_256, Sha3_512, Sha256, Sha384, Sha512};
    let understood = signature.config().is_some_and(|config| {
        !config.hashed_subpackets().any(|subpacket| {
            subpacket.is_critical
                && matches!(subpacket.data, SubpacketData::Experimental(..) | SubpacketData::Other(..))
        })
    });
    understood && matches!(signature.hash_alg(), Some(Sha256 | Sha384 | Sha512 | Sha3_256 | Sha3_512))
}

/// Whether a revocation takes the signatures of time `at` with it.
fn counts_at(revocation: &Signature, at: u32) -> bool {
    match revocation.revocation_reason_code() {
        Some(RevocationCode::KeySuperseded | RevocationCode::KeyRetired) => {
            revocation.created().is_none_or(|created| created.as_secs() <= at)
        }
        // Compromised, or for all that is known so: whoever has the key can give any time.
        _ => true,
    }
}

/// Whether the newest self-signature lets the key sign; `unless_told` is the answer where it has no word on that.
fn may_sign(own: &Signature, unless_told: bool) -> bool {
    let told = own.config().is_some_and(|config| {
        config.hashed_subpackets().any(|subpacket| matches!(subpacket.data, SubpacketData::KeyFlags(_)))
    });
    if told { own.key_flags().sign() } else { unless_told }
}

/// Whether a key made at `created` was there at time `at`, and not past what its newest self-signature allows.
fn check_time(created: u32, own: &Signature, at: u32) -> Result<(), Unusable> {
    if at < created {
        return Err(Unusable::Time);
    }
    match own.key_expiration_time().map(|lifetime| lifetime.as_secs()) {
        Some(lifetime) if lifetime > 0 && u64::from(at) >= u64::from(created) + u64::from(lifetime) => {
            Err(Unusable::Expired)
        }
        _ => Ok(()),
    }
}

fn issuer(signature: &Signature) -> String {
    match (signature.issuer_fingerprint().first(), signature.issuer_key_id().first()) {
        (Some(fingerprint), _) => hex(fingerprint),
        (None, Some(id)) => id.to_string(),
        (None, None) => "unnamed".to_owned(),
    }
}

fn hex(fingerprint: &Fingerprint) -> String {
    fingerprint.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}
