//! Signed release files: which are believed, and how those that are not are told apart.
//!
//! Keys and messages are made here, with times of the tests' choice, out of a fixed seed.

use cas_deb::{Keyring, KeyringError, Moment, ReleaseError, SignatureError, Unusable, verify_inrelease};
use pgp::composed::{ArmorOptions, CleartextSignedMessage, Deserializable, KeyType, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{
    KeyFlags, PacketParser, PacketTrait, PubKeyInner, PublicKey, PublicSubkey, RevocationCode, SecretKey, SecretSubkey,
    Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
};
use pgp::ser::Serialize;
use pgp::types::{Duration, KeyDetails, KeyVersion, PacketHeaderVersion, Password, SigningKey, Tag, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;

const CREATED: u32 = 1_000_000_000;
const SIGNED: u32 = CREATED + 1000;
const NOW: u64 = SIGNED as u64 + 1000;

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn release_text() -> String {
    format!(
        "Origin: Test\nSuite: oldstable\nCodename: bookworm\nDate: Sun, 09 Sep 2001 01:46:40 UTC\n\
         Valid-Until: Sun, 09 Sep 2001 03:46:40 UTC\nAcquire-By-Hash: yes\nDescription: dashes\n - - x\nSHA256:\n \
         {EMPTY_SHA256}        7 main/binary-amd64/Packages\n {EMPTY_SHA256} 5 main/binary-amd64/Packages.xz"
    )
}

/// A key with one signing subkey, and how they are bound.
struct TestKey {
    primary: SecretKey,
    subkey: SecretSubkey,
}

#[derive(Clone, Copy, Default)]
struct Options {
    lifetime: Option<u32>,
    subkey_lifetime: Option<u32>,
    /// Revokes the primary key for this reason at this time.
    revoked: Option<(RevocationReason, u32)>,
    subkey_revoked: bool,
    without_back_signature: bool,
    only_certifies: bool,
    without_self_signature: bool,
}

#[derive(Clone, Copy)]
enum RevocationReason {
    Compromised,
    Retired,
}

fn config(
    key: &impl SigningKey,
    kind: SignatureType,
    hash: HashAlgorithm,
    at: u32,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(kind, key.algorithm(), hash);
    config.hashed_subpackets = std::iter::once(SubpacketData::SignatureCreationTime(Timestamp::from_secs(at)))
        .chain(more)
        .map(|data| Subpacket::regular(data).expect("a short subpacket"))
        .collect();
    config
}

fn flags(sign: bool) -> SubpacketData {
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(sign);
    SubpacketData::KeyFlags(flags)
}

impl TestKey {
    fn new(seed: u64) -> Self {
        Self::of_type(&KeyType::Ed25519Legacy, seed)
    }

    fn of_type(key_type: &KeyType, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut part = || key_type.generate(&mut random).expect("a key");
        let created = Timestamp::from_secs(CREATED);
        let inner = |public| PubKeyInner::new(KeyVersion::V4, key_type.to_alg(), created, None, public).expect("a key");
        let (public, secret) = part();
        let public = PublicKey::from_inner(inner(public)).expect("a key");
        let primary = SecretKey::new(public, secret).expect("a key");
        let (public, secret) = part();
        let public = PublicSubkey::from_inner(inner(public)).expect("a key");
        let subkey = SecretSubkey::new(public, secret).expect("a key");
        Self { primary, subkey }
    }

    /// The public key as it stands in a ring.
    fn ring(&self, options: Options) -> Vec<u8> {
        let nobody = Password::empty();
        let (primary, subkey) = (self.primary.public_key(), self.subkey.public_key());
        let own = SubpacketData::IssuerFingerprint(primary.fingerprint());
        let lifetime = |seconds: Option<u32>| {
            seconds.map(|seconds| SubpacketData::KeyExpirationTime(Duration::from_secs(seconds)))
        };
        let mut bytes = Vec::new();
        primary.to_writer_with_header(&mut bytes).expect("into memory");
        if let Some((reason, at)) = options.revoked {
            let code = match reason {
                RevocationReason::Compromised => RevocationCode::KeyCompromised,
                RevocationReason::Retired => RevocationCode::KeyRetired,
            };
            let reason = SubpacketData::RevocationReason(code, Vec::new().into());
            config(&self.primary, SignatureType::KeyRevocation, HashAlgorithm::Sha256, at, vec![own.clone(), reason])
                .sign_key(&self.primary, &nobody, &primary)
                .and_then(|signature| signature.to_writer_with_header(&mut bytes))
                .expect("a signature");
        }
        let name = UserId::from_str(PacketHeaderVersion::New, "Test <test@example.invalid>").expect("a name");
        name.to_writer_with_header(&mut bytes).expect("into memory");
        let mut told = vec![own.clone(), flags(!options.only_certifies)];
        told.extend(lifetime(options.lifetime));
        let by = if options.without_self_signature { &Self::new(999).primary } else { &self.primary };
        config(by, SignatureType::CertPositive, HashAlgorithm::Sha256, CREATED, told)
            .sign_certification(by, &primary, &nobody, Tag::UserId, &name)
            .and_then(|signature| signature.to_writer_with_header(&mut bytes))
            .expect("a signature");
        subkey.to_writer_with_header(&mut bytes).expect("into memory");
        let mut told = vec![own.clone(), flags(true)];
        told.extend(lifetime(options.subkey_lifetime));
        if !options.without_back_signature {
            let back = config(
                &self.subkey,
                SignatureType::KeyBinding,
                HashAlgorithm::Sha256,
                CREATED,
                vec![SubpacketData::IssuerFingerprint(subkey.fingerprint())],
            );
            let back = back.sign_primary_key_binding(&self.subkey, &subkey, &nobody, &primary).expect("a signature");
            told.push(SubpacketData::EmbeddedSignature(Box::new(back)));
        }
        config(&self.primary, SignatureType::SubkeyBinding, HashAlgorithm::Sha256, CREATED, told)
            .sign_subkey_binding(&self.primary, &primary, &nobody, &subkey)
            .and_then(|signature| signature.to_writer_with_header(&mut bytes))
            .expect("a signature");
        if options.subkey_revoked {
            config(&self.primary, SignatureType::SubkeyRevocation, HashAlgorithm::Sha256, CREATED + 1, vec![own])
                .sign_subkey_binding(&self.primary, &primary, &nobody, &subkey)
                .and_then(|signature| signature.to_writer_with_header(&mut bytes))
                .expect("a signature");
        }
        bytes
    }

    fn keyring(&self, options: Options) -> Keyring {
        Keyring::parse(&self.ring(options)).expect("a ring")
    }
}

fn sign(text: &str, signers: &[&dyn Fn(&str) -> Signature]) -> String {
    CleartextSignedMessage::new_many(text, |text| Ok(signers.iter().map(|sign| sign(text)).collect()))
        .and_then(|message| message.to_armored_string(ArmorOptions::default()))
        .expect("a message")
}

fn signature_by(key: &impl SigningKey, at: u32, kind: SignatureType, hash: HashAlgorithm, text: &str) -> Signature {
    let config = config(key, kind, hash, at, vec![SubpacketData::IssuerFingerprint(key.fingerprint())]);
    // By hand, because a library that signs refuses what a verifier has to refuse.
    let mut hasher = hash.new_hasher().expect("it is known");
    // A stand-alone signature is checked against the first byte alone, so one would fit nearly every text.
    hasher.update(if kind == SignatureType::Standalone { &text.as_bytes()[..1] } else { text.as_bytes() });
    let length = config.hash_signature_data(&mut hasher).expect("into memory");
    hasher.update(&config.trailer(length).expect("into memory"));
    let digest = hasher.finalize();
    let signature = key.sign(&Password::empty(), hash, &digest).expect("a signature");
    Signature::from_config(config, [digest[0], digest[1]], signature).expect("a signature")
}

fn by_subkey(key: &TestKey, at: u32) -> impl Fn(&str) -> Signature {
    move |text| signature_by(&key.subkey, at, SignatureType::Text, HashAlgorithm::Sha512, text)
}

fn by_primary(key: &TestKey, at: u32) -> impl Fn(&str) -> Signature {
    move |text| signature_by(&key.primary, at, SignatureType::Binary, HashAlgorithm::Sha256, text)
}

#[test]
fn a_good_signature_makes_a_release() {
    let key = TestKey::new(1);
    let message = sign(&release_text(), &[&by_subkey(&key, SIGNED)]);
    let release =
        verify_inrelease(message.as_bytes(), &key.keyring(Options::default()), Moment::Now(NOW)).expect("it is signed");
    assert_eq!((release.codename.as_str(), release.suite.as_deref()), ("bookworm", Some("oldstable")));
    assert_eq!((release.date, release.valid_until), (1_000_000_000, Some(1_000_007_200)));
    assert!(release.acquire_by_hash);
    assert_eq!(release.files.len(), 2);
    let (path, descriptor) = release.package_index("main", "amd64").expect("it is listed");
    assert_eq!((path.to_string().as_str(), descriptor.size), ("main/binary-amd64/Packages.xz", 5));
    assert_eq!(descriptor.digest.to_hex(), EMPTY_SHA256);
    assert_eq!(release.signed_by, hex(&key.subkey.fingerprint()));
    // The ends of lines in the transport are not part of what is signed.
    let windows = message.replace('\n', "\r\n");
    assert_eq!(
        verify_inrelease(windows.as_bytes(), &key.keyring(Options::default()), Moment::Now(NOW)).expect("it is signed"),
        release
    );
}

fn hex(fingerprint: &pgp::types::Fingerprint) -> String {
    fingerprint.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn one_known_key_among_the_signers_is_enough() {
    let (ours, other) = (TestKey::new(1), TestKey::new(2));
    let message = sign(&release_text(), &[&by_subkey(&other, SIGNED), &by_primary(&ours, SIGNED)]);
    let release = verify_inrelease(message.as_bytes(), &ours.keyring(Options::default()), Moment::Now(NOW))
        .expect("it is signed");
    assert_eq!(release.signed_by, hex(&ours.primary.fingerprint()));
    let both = [ours.ring(Options::default()), other.ring(Options::default())].concat();
    let both = Keyring::parse(&both).expect("a ring");
    assert_eq!(both.fingerprints().count(), 2);
    let release = verify_inrelease(message.as_bytes(), &both, Moment::Now(NOW)).expect("it is signed");
    assert_eq!(release.signed_by, hex(&other.subkey.fingerprint()));
}

#[test]
fn a_changed_text_and_an_unknown_key_are_told_apart() {
    let (key, other) = (TestKey::new(1), TestKey::new(2));
    let ring = key.keyring(Options::default());
    let message = sign(&release_text(), &[&by_subkey(&key, SIGNED)]);
    let changed = message.replace("Codename: bookworm", "Codename: trixie");
    assert!(matches!(
        verify_inrelease(changed.as_bytes(), &ring, Moment::Now(NOW)),
        Err(ReleaseError::Signature(SignatureError::Bad { key: named })) if named == hex(&key.subkey.fingerprint())
    ));
    let foreign = sign(&release_text(), &[&by_primary(&other, SIGNED)]);
    assert!(matches!(
        verify_inrelease(foreign.as_bytes(), &ring, Moment::Now(NOW)),
        Err(ReleaseError::Signature(SignatureError::UnknownKey { issuers }))
            if issuers == [hex(&other.primary.fingerprint())]
    ));
}

#[test]
fn keys_count_only_as_far_as_their_own_signatures_carry_them() {
    let key = TestKey::new(1);
    let none = Options::default();
    let after = |at: u32| Some(at - CREATED);
    for (name, options, at, by_the_subkey, by_the_primary) in [
        ("plain", none, SIGNED, Ok(()), Ok(())),
        (
            "expired before",
            Options { lifetime: after(SIGNED), ..none },
            SIGNED,
            Err(Unusable::Expired),
            Err(Unusable::Expired),
        ),
        ("expired later", Options { lifetime: after(SIGNED + 1), ..none }, SIGNED, Ok(()), Ok(())),
        ("subkey expired", Options { subkey_lifetime: after(SIGNED), ..none }, SIGNED, Err(Unusable::Expired), Ok(())),
        ("subkey revoked", Options { subkey_revoked: true, ..none }, SIGNED, Err(Unusable::Revoked), Ok(())),
        (
            "compromised, found out later",
            Options { revoked: Some((RevocationReason::Compromised, SIGNED + 9)), ..none },
            SIGNED,
            Err(Unusable::Revoked),
            Err(Unusable::Revoked),
        ),
        (
            "retired later",
            Options { revoked: Some((RevocationReason::Retired, SIGNED + 9)), ..none },
            SIGNED,
            Ok(()),
            Ok(()),
        ),
        (
            "retired before",
            Options { revoked: Some((RevocationReason::Retired, SIGNED)), ..none },
            SIGNED,
            Err(Unusable::Revoked),
            Err(Unusable::Revoked),
        ),
        (
            "subkey that did not sign back",
            Options { without_back_signature: true, ..none },
            SIGNED,
            Err(Unusable::NotForSigning),
            Ok(()),
        ),
        (
            "primary key that certifies only",
            Options { only_certifies: true, ..none },
            SIGNED,
            Ok(()),
            Err(Unusable::NotForSigning),
        ),
        (
            "self-signature by another",
            Options { without_self_signature: true, ..none },
            SIGNED,
            Err(Unusable::NotForSigning),
            Err(Unusable::NotForSigning),
        ),
        ("before the key was made", none, CREATED - 1, Err(Unusable::Time), Err(Unusable::Time)),
    ] {
        let ring = key.keyring(options);
        let verdict = |message: String| match verify_inrelease(message.as_bytes(), &ring, Moment::Now(NOW)) {
            Ok(_) => Ok(()),
            Err(ReleaseError::Signature(SignatureError::Unusable { reason, .. })) => Err(reason),
            Err(error) => panic!("{name}: {error}"),
        };
        assert_eq!(verdict(sign(&release_text(), &[&by_subkey(&key, at)])), by_the_subkey, "{name}, subkey");
        assert_eq!(verdict(sign(&release_text(), &[&by_primary(&key, at)])), by_the_primary, "{name}, primary");
    }
}

/// SHA-1 can be made to collide, and a signature of another kind is not over the text.
#[test]
fn weak_signatures_do_not_count() {
    // Only RSA signs digests that weak here; the key is short because making one takes long.
    let key = TestKey::of_type(&KeyType::Rsa(1024), 1);
    let ring = key.keyring(Options::default());
    let verdict = |kind, hash| {
        let message = sign(&release_text(), &[&|text: &str| signature_by(&key.primary, SIGNED, kind, hash, text)]);
        verify_inrelease(message.as_bytes(), &ring, Moment::Now(NOW)).map(drop)
    };
    assert!(verdict(SignatureType::Text, HashAlgorithm::Sha256).is_ok());
    for (kind, hash) in [
        (SignatureType::Text, HashAlgorithm::Sha1),
        (SignatureType::Binary, HashAlgorithm::Md5),
        (SignatureType::Standalone, HashAlgorithm::Sha256),
    ] {
        match verdict(kind, hash) {
            Err(ReleaseError::Signature(SignatureError::Unusable { reason: Unusable::WeakSignature, .. })) => {}
            other => panic!("{kind:?} {hash:?}: {other:?}"),
        }
    }
}

#[test]
fn an_expired_release_is_an_error_that_holds_it() {
    let key = TestKey::new(1);
    let message = sign(&release_text(), &[&by_subkey(&key, SIGNED)]);
    let ring = key.keyring(Options::default());
    assert!(verify_inrelease(message.as_bytes(), &ring, Moment::Now(1_000_007_200)).is_ok());
    match verify_inrelease(message.as_bytes(), &ring, Moment::Now(1_000_007_201)) {
        Err(ReleaseError::Expired { valid_until: 1_000_007_200, moment: Moment::Now(1_000_007_201), release }) => {
            assert_eq!(release.files.len(), 2);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_release_from_the_future_or_from_before_the_pinned_one_is_refused() {
    const DATE: u64 = CREATED as u64;
    let key = TestKey::new(1);
    let message = sign(&release_text(), &[&by_subkey(&key, SIGNED)]);
    let ring = key.keyring(Options::default());
    match verify_inrelease(message.as_bytes(), &ring, Moment::Now(DATE - 3601)) {
        Err(error @ ReleaseError::NotYet { .. }) => assert_eq!(
            error.to_string(),
            "the release file of `bookworm` is of 2001-09-09 01:46:40 UTC, and it is 2001-09-09 00:46:39 UTC now"
        ),
        other => panic!("{other:?}"),
    }
    let release =
        verify_inrelease(message.as_bytes(), &ring, Moment::Now(DATE - 3600)).expect("clocks differ a little");
    match verify_inrelease(message.as_bytes(), &ring, Moment::AsOf(DATE - 1)) {
        Err(error @ ReleaseError::NotYet { .. }) => assert_eq!(
            (error.to_string().as_str(), error.hint().as_deref()),
            (
                "the release file of `bookworm` is of 2001-09-09 01:46:40 UTC, and `as_of` is 2001-09-09 01:46:39 UTC",
                Some("use the snapshot of then as `mirror`, or write `as_of = \"2001-09-09T01:46:40Z\"`")
            )
        ),
        other => panic!("a moment that was named is no clock that is a bit late: {other:?}"),
    }
    assert!(verify_inrelease(message.as_bytes(), &ring, Moment::AsOf(DATE)).is_ok());
    assert!(release.check_date(DATE).is_ok());
    let error = release.check_date(DATE + 1).expect_err("it is older");
    assert_eq!(
        error.to_string(),
        "the release file of `bookworm` is of 2001-09-09 01:46:40 UTC, older than that of 2001-09-09 01:46:41 UTC which is pinned"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("cas.lock")));
}

/// What stands outside of the frame was not signed, and readers that skip it can be shown another text.
#[test]
fn a_damaged_frame_is_named() {
    let key = TestKey::new(1);
    let ring = key.keyring(Options::default());
    let good = sign(&release_text(), &[&by_subkey(&key, SIGNED)]);
    assert!(verify_inrelease(good.as_bytes(), &ring, Moment::Now(NOW)).is_ok());
    let begin = "-----BEGIN PGP SIGNATURE-----\n\n";
    let middle = good.find(begin).expect("it is there") + begin.len();
    let unsigned = "-----BEGIN PGP SIGNED MESSAGE-----";
    let beginning = "the release file is not a clear-signed message: it does not begin with \
                     `-----BEGIN PGP SIGNED MESSAGE-----`";
    for (message, expected) in [
        (String::new(), beginning),
        (release_text(), beginning),
        (format!("Codename: trixie\n{good}"), beginning),
        (format!("\n{good}"), beginning),
        (format!("{good}\nCodename: trixie\n"), "empty, as all after the signature"),
        (format!("{good}{good}"), "empty, as all after the signature"),
        (good[..middle + 20].to_owned(), "it ends before `-----END PGP SIGNATURE-----`"),
        (good[..200].to_owned(), "it ends before `-----END PGP SIGNATURE-----`"),
        (good.replace("Hash: ", "NotDashEscaped: "), "line 2 is not a `Hash` header or empty"),
        (good.replace("Hash: SHA512\n", "Hash: SHA512\nCodename: x\n"), "line 3 is not a `Hash` header or empty"),
        (good.replacen("Suite", "-Suite", 1), "text with its dashes escaped"),
        (good.replacen("Suite", "\rSuite", 1), "text without control characters"),
        (good.replacen("Suite", &format!("{unsigned}\n\nSuite"), 1), "text with its dashes escaped"),
        (format!("{}!!!!{}", &good[..middle], &good[middle + 4..]), "the signature block is damaged"),
        (good[..middle].to_owned() + "-----END PGP SIGNATURE-----\n", "signature block"),
    ] {
        let error = match verify_inrelease(message.as_bytes(), &ring, Moment::Now(NOW)) {
            Err(error @ ReleaseError::Frame(_)) => error.to_string(),
            other => panic!("{expected}: {other:?}"),
        };
        assert!(error.contains(expected), "{error}");
    }
    let mut bytes = good.into_bytes();
    bytes[60] = 0xff;
    assert!(matches!(verify_inrelease(&bytes, &ring, Moment::Now(NOW)), Err(ReleaseError::Frame(_))));
}

#[test]
fn signed_text_that_lists_nothing_is_refused() {
    let key = TestKey::new(1);
    let ring = key.keyring(Options::default());
    for (text, message) in [
        ("", "the release file does not hold one paragraph"),
        ("Codename: x\n\nCodename: y", "the release file has no field `Date`"),
        ("Date: today\nCodename: x", "field `Date` of the release file holds `today`"),
        ("Date: Sun, 09 Sep 2001 01:46:40 UTC\nCodename: x", "the release file has no field `SHA256`"),
    ] {
        let signed = sign(text, &[&by_subkey(&key, SIGNED)]);
        let error = verify_inrelease(signed.as_bytes(), &ring, Moment::Now(NOW)).expect_err("it is no release");
        assert_eq!(error.to_string(), message);
    }
}

/// As `gpg` keeps rings, and as Ubuntu's is published; and as text.
#[test]
fn notes_of_whoever_kept_a_ring_stand_in_nobodys_way() {
    let key = TestKey::new(1);
    let ring = key.ring(Options::default());
    let mut noted = Vec::new();
    for packet in PacketParser::new(&ring[..]) {
        packet.expect("a packet").to_writer(&mut noted).expect("into memory");
        // An old header with one byte of length: a trust packet of two bytes.
        noted.extend([0xb0, 2, 0, 0]);
    }
    let text = SignedPublicKey::from_bytes(&ring[..]).and_then(|key| key.to_armored_string(ArmorOptions::default()));
    for bytes in [&noted[..], text.expect("a key").as_bytes()] {
        let ring = Keyring::parse(bytes).expect("a ring");
        for message in
            [sign(&release_text(), &[&by_subkey(&key, SIGNED)]), sign(&release_text(), &[&by_primary(&key, SIGNED)])]
        {
            verify_inrelease(message.as_bytes(), &ring, Moment::Now(NOW)).expect("it is signed");
        }
    }
}

#[test]
fn what_is_no_keyring_is_refused() {
    assert!(matches!(Keyring::parse(b""), Err(KeyringError::Empty)));
    assert!(Keyring::parse(b"not a key").is_err());
    let whole = TestKey::new(1).ring(Options::default());
    assert!(Keyring::parse(&whole[..40]).is_err());
}

#[test]
fn the_embedded_keyring_holds_the_keys_of_debian() {
    let fingerprints: Vec<String> = Keyring::debian().fingerprints().collect();
    assert_eq!(
        fingerprints,
        [
            "1f89983e0081fde018f3cc9673a4f27b8dd47936", // 11 automatic
            "ac530d520f2f3269f5e98313a48449044aad5c5d", // 11 security
            "a4285295fc7b1a81600062a9605c66f00d6c9793", // 11 release
            "4d64fec119c2029067d6e791f8d2585b8783d481", // 12 release
            "b8b80b5b623eab6ad8775c45b7c5d7d6350947f8", // 12 automatic
            "05ab90340c0c5e797f44a8c8254cf3b5aec0a8f0", // 12 security
            "04b54c3cdca79751b16bc6b5225629df75b188bd", // 13 automatic
            "5e04a1e3223a19a20706e20f9904613d4cce68c6", // 13 security
            "41587f7db8c774bccf131416762f67a0b2c39de4", // 13 release
        ]
    );
}
