//! What a verifier can be talked into: the ways in which others were, as tables. docs/formats/signing.md, "What verifies".

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use cas_attest::{
    Bundle, Envelope, Expectation, KeyAlgorithm, KeySet, KeySetError, MAX_CANDIDATES, PrivateKey, Rejection,
    SIGN_PREDICATE, SPDX_PREDICATE, STATEMENT_PAYLOAD_TYPE, SimplePayload, SimpleSignature, SimpleType, Statement,
    Subject, TrustedKey, Verified, VerifyError, verify_bundles, verify_simple,
};
use cas_digest::{Digest, DigestFunction};

const NOW: i64 = 1_000;
const HIGH: &str = include_str!("../../../testdata/signing/p256.high.bundle.json");
const LOW: &str = include_str!("../../../testdata/signing/p256.bundle.json");
const P256: &str = include_str!("../../../testdata/signing/p256.pub");

fn key(algorithm: KeyAlgorithm, byte: u8) -> PrivateKey {
    let mut random = |bytes: &mut [u8]| {
        bytes.fill(byte);
        Ok(())
    };
    PrivateKey::generate(algorithm, &mut random).unwrap()
}

fn trusted(name: &str, key: &PrivateKey) -> TrustedKey {
    TrustedKey { name: name.to_owned(), key: key.public_key().clone(), not_before: None, not_after: None }
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(DigestFunction::Sha256, bytes)
}

/// A world: two trusted keys, one that is not, and an artifact.
struct World {
    alice: PrivateKey,
    bob: PrivateKey,
    mallory: PrivateKey,
    keys: KeySet,
    artifact: [Digest; 2],
    annotations: BTreeMap<String, String>,
}

impl World {
    fn new() -> Self {
        let (alice, bob) = (key(KeyAlgorithm::Ed25519, 1), key(KeyAlgorithm::EcdsaP256, 2));
        let keys = KeySet::new(vec![trusted("alice", &alice), trusted("bob", &bob)]).unwrap();
        let artifact = [sha256(b"artifact"), Digest::of(DigestFunction::Blake3, b"artifact")];
        let mallory = key(KeyAlgorithm::Ed25519, 3);
        Self { alice, bob, mallory, keys, artifact, annotations: BTreeMap::new() }
    }

    fn expectation(&self, threshold: usize) -> Expectation<'_> {
        Expectation {
            artifact: &self.artifact,
            predicate_type: SIGN_PREDICATE,
            repository: None,
            is_unclaimed_enough: false,
            annotations: &self.annotations,
            threshold: NonZeroUsize::new(threshold).unwrap(),
            now: NOW,
        }
    }

    fn subject(&self) -> Subject {
        let mut subject = Subject::of(&self.artifact[0]);
        subject.name = Some("registry.example/app".to_owned());
        subject.annotations.insert("tag".to_owned(), "1.0".to_owned());
        subject
    }

    fn statement(&self) -> Statement {
        Statement::signature_of(self.subject()).unwrap()
    }

    fn bundle(&self, key: &PrivateKey) -> String {
        Bundle::sign(key, &self.statement()).unwrap()
    }

    fn ask(&self, threshold: usize, bundles: &[&str]) -> Result<Verified, VerifyError> {
        verify_bundles(&self.keys, &self.expectation(threshold), bundles)
    }

    /// What one bundle is refused for.
    fn refusal(&self, name: &str, bundle: &str) -> Rejection {
        match self.ask(1, &[bundle]) {
            Err(VerifyError::Threshold { mut rejected, accepted, .. }) if accepted.is_empty() => {
                rejected.pop().expect("one reason").reason
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// A bundle around an envelope with any type and payload.
fn bundle_of(envelope: &Envelope, hint: &str) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{{"publicKey":{{"hint":"{hint}"}},"tlogEntries":[]}},"dsseEnvelope":{}}}"#,
        envelope.encode()
    )
}

#[test]
fn the_answer_names_key_subject_and_digest() {
    let world = World::new();
    let other = Subject::of(&sha256(b"another"));
    let statement = Statement::new(vec![other, world.subject()], SIGN_PREDICATE, "{}").unwrap();
    let bundle = Bundle::sign(&world.bob, &statement).unwrap();
    let verified = world.ask(1, &["{}", &world.bundle(&world.mallory), &bundle]).unwrap();
    let [acceptance] = &verified.accepted[..] else { panic!("{verified:?}") };
    assert_eq!((acceptance.key_name.as_str(), acceptance.key_id), ("bob", world.bob.public_key().id()));
    assert_eq!((acceptance.candidate, acceptance.subject, acceptance.digest), (2, 1, world.artifact[0]));
    assert_eq!(acceptance.statement.as_ref(), Some(&statement));
    assert_eq!(verified.rejected.len(), 2);
}

#[test]
fn each_confusion_is_refused_for_its_own_reason() {
    let world = World::new();
    let good = world.bundle(&world.alice);
    world.ask(1, &[&good]).unwrap();
    let statement = |subject: Subject, predicate: &str| Statement::new(vec![subject], predicate, "{}").unwrap();
    let signed = |statement: &Statement| Bundle::sign(&world.alice, statement).unwrap();
    let with = |payload_type: &str, payload: &[u8]| {
        bundle_of(&Envelope::sign(&world.alice, payload_type, payload.to_vec()).unwrap(), "")
    };
    let body = world.statement().encode();
    // The signature of one bundle under the payload of another.
    let swapped = {
        let other = signed(&statement(Subject::of(&sha256(b"other")), SIGN_PREDICATE));
        let payload = |text: &str| {
            let start = text.find(r#""payload":""#).unwrap() + 11;
            (start, start + text[start..].find('"').unwrap())
        };
        let ((from, to), (start, end)) = (payload(&good), payload(&other));
        format!("{}{}{}", &other[..start], &good[from..to], &other[end..])
    };
    let retyped = {
        let mut envelope = Envelope::sign(&world.alice, "text/plain", body.clone().into_bytes()).unwrap();
        envelope.payload_type = STATEMENT_PAYLOAD_TYPE.to_owned();
        bundle_of(&envelope, "")
    };
    let two = {
        let mut envelope = Bundle::decode(good.as_bytes()).unwrap().envelope().clone();
        let more = Bundle::decode(world.bundle(&world.mallory).as_bytes()).unwrap().envelope().signatures.clone();
        envelope.signatures.extend(more);
        bundle_of(&envelope, "")
    };
    let stripped = good.replacen(&good[good.find(r#"{"sig""#).unwrap()..good.rfind(']').unwrap()], "", 1);
    let contradicting = {
        let mut subject = world.subject();
        subject.digests.insert("blake3".to_owned(), "00".repeat(32));
        subject
    };
    let sha1_alone = Subject::of(&Digest::of(DigestFunction::Sha1, b"artifact"));
    let borrowed = {
        // mallory's signature with alice's hint
        let hint = world.alice.public_key().id().hint();
        let envelope = Bundle::decode(world.bundle(&world.mallory).as_bytes()).unwrap().envelope().clone();
        bundle_of(&envelope, &hint)
    };
    type Check = fn(&Rejection) -> bool;
    let document: Check = |reason| matches!(reason, Rejection::Document(_));
    let no_key: Check = |reason| matches!(reason, Rejection::NoKey);
    let artifact: Check = |reason| matches!(reason, Rejection::Artifact { .. });
    let predicate: Check = |reason| matches!(reason, Rejection::PredicateType { .. });
    let payload_type: Check = |reason| matches!(reason, Rejection::PayloadType { .. });
    let rows: Vec<(&str, String, Check)> = vec![
        ("an SBOM in place of a signature", signed(&statement(world.subject(), SPDX_PREDICATE)), predicate),
        ("a longer predicate type", signed(&statement(world.subject(), &format!("{SIGN_PREDICATE}/"))), predicate),
        ("another artifact", signed(&statement(Subject::of(&sha256(b"other")), SIGN_PREDICATE)), artifact),
        ("SHA-1 alone", signed(&statement(sha1_alone, SIGN_PREDICATE)), artifact),
        ("one digest right and one wrong", signed(&statement(contradicting, SIGN_PREDICATE)), |reason| {
            matches!(reason, Rejection::Contradiction { function: DigestFunction::Blake3 })
        }),
        ("another payload type", with("application/json", body.as_bytes()), payload_type),
        ("a payload type with other letters", with("application/vnd.in-toto+JSON", body.as_bytes()), payload_type),
        ("no payload type", with("", body.as_bytes()), payload_type),
        ("a type that was not signed", retyped, no_key),
        ("no statement", with(STATEMENT_PAYLOAD_TYPE, b"artifact"), document),
        ("an empty payload", with(STATEMENT_PAYLOAD_TYPE, b""), document),
        (
            "a statement of another version",
            with(STATEMENT_PAYLOAD_TYPE, body.replace("/v1\"", "/v2\"").as_bytes()),
            document,
        ),
        (
            "a field twice",
            with(STATEMENT_PAYLOAD_TYPE, body.replacen('{', r#"{"predicateType":"x","#, 1).as_bytes()),
            document,
        ),
        ("a signature of another payload", swapped, no_key),
        ("a key nobody trusts", world.bundle(&world.mallory), no_key),
        ("a hint that is borrowed", borrowed, no_key),
        (
            "entries of a log",
            world.bundle(&world.mallory).replacen(r#""tlogEntries":[]"#, r#""tlogEntries":[{},{}]"#, 1),
            no_key,
        ),
        ("two signatures, one of them good", two, document),
        ("no signature", stripped, document),
        ("a certificate", good.replacen(r#""publicKey":{"#, r#""certificate":{"#, 1), |reason| {
            matches!(reason, Rejection::Certificate)
        }),
        ("an envelope without a bundle", Bundle::decode(good.as_bytes()).unwrap().envelope().encode(), document),
        ("another version", good.replacen("v0.3", "v0.2", 1), document),
        ("half of it", good[..good.len() / 2].to_owned(), document),
        ("nothing", String::new(), document),
    ];
    for (name, bundle, is_expected) in &rows {
        assert_ne!(*bundle, good, "{name}");
        let reason = world.refusal(name, bundle);
        assert!(is_expected(&reason), "{name}: {reason:?}");
        // A wrong one beside a right one does no harm.
        world.ask(1, &[bundle, &good]).unwrap();
    }
}

#[test]
fn repository_and_annotations_are_claims_of_the_signer() {
    let world = World::new();
    let mut nameless = world.subject();
    nameless.name = None;
    let anonymous = Bundle::sign(&world.alice, &Statement::signature_of(nameless.clone()).unwrap()).unwrap();
    let both = Statement::new(vec![nameless, world.subject()], SIGN_PREDICATE, "{}").unwrap();
    let both = Bundle::sign(&world.alice, &both).unwrap();
    let named = world.bundle(&world.alice);
    for (bundle, repository, annotation, right) in [
        (&named, None, None, true),
        (&named, Some("registry.example/app"), Some(("tag", "1.0")), true),
        (&named, Some("registry.example/other"), None, false),
        (&named, Some("registry.example/app/"), None, false),
        (&named, None, Some(("tag", "1.1")), false),
        (&named, None, Some(("more", "1.0")), false),
        (&anonymous, None, None, true),
        (&anonymous, Some("registry.example/app"), None, false),
        (&both, Some("registry.example/app"), None, true),
    ] {
        let annotations: BTreeMap<_, _> =
            annotation.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let expected = Expectation { repository, annotations: &annotations, ..world.expectation(1) };
        let answer = verify_bundles(&world.keys, &expected, [bundle]);
        assert_eq!(answer.is_ok(), right, "{repository:?} {annotation:?}: {answer:?}");
    }
}

#[test]
fn keys_count_within_their_time() {
    let world = World::new();
    let bundle = world.bundle(&world.alice);
    for (not_before, not_after, right) in [
        (None, None, true),
        (Some(NOW), Some(NOW), true),
        (Some(NOW + 1), None, false),
        (None, Some(NOW - 1), false),
        (Some(i64::MIN), Some(i64::MAX), true),
        (Some(0), Some(NOW - 1), false),
    ] {
        let alice = TrustedKey { not_before, not_after, ..trusted("alice", &world.alice) };
        let keys = KeySet::new(vec![alice, trusted("bob", &world.bob)]).unwrap();
        let answer = verify_bundles(&keys, &world.expectation(1), [&bundle]);
        assert_eq!(answer.is_ok(), right, "{not_before:?} {not_after:?}");
        if let Err(error) = answer {
            assert!(error.to_string().contains("`alice`") && error.hint().is_some(), "{error}");
        }
    }
}

#[test]
fn a_key_counts_once() {
    let world = World::new();
    let (alice, bob) = (world.bundle(&world.alice), world.bundle(&world.bob));
    let other = {
        let statement = Statement::new(vec![world.subject()], SIGN_PREDICATE, r#"{"again":1}"#).unwrap();
        Bundle::sign(&world.alice, &statement).unwrap()
    };
    let spaced = format!(" {alice}");
    let hinted = alice.replacen(&world.alice.public_key().id().hint(), &world.bob.public_key().id().hint(), 1);
    assert_ne!(hinted, alice);
    for (bundles, threshold, right) in [
        (vec![alice.as_str()], 1, true),
        (vec![&alice, &bob], 2, true),
        (vec![&alice, &alice, &bob], 2, true),
        (vec![&alice], 2, false),
        (vec![&alice, &alice], 2, false),
        (vec![&alice, &other], 2, false),
        (vec![&alice, &spaced], 2, false),
        (vec![&alice, &hinted], 2, false),
    ] {
        let answer = world.ask(threshold, &bundles);
        assert_eq!(answer.is_ok(), right, "{answer:?}");
    }
    // Two forms of one ECDSA signature.
    let p256 = cas_attest::PublicKey::from_pem(P256.as_bytes()).unwrap();
    let p256 = TrustedKey { name: "p256".to_owned(), key: p256, not_before: None, not_after: None };
    let keys = KeySet::new(vec![p256, trusted("alice", &world.alice)]).unwrap();
    let artifact = [format!("sha256:{}", "ab".repeat(32)).parse().unwrap()];
    let expected = |threshold| Expectation { artifact: &artifact, ..world.expectation(threshold) };
    for bundle in [LOW, HIGH] {
        verify_bundles(&keys, &expected(1), [bundle]).unwrap();
    }
    assert!(verify_bundles(&keys, &expected(2), [LOW, HIGH]).is_err());
}

#[test]
fn questions_that_prove_nothing_are_errors() {
    let world = World::new();
    let bundle = world.bundle(&world.alice);
    assert!(matches!(world.ask(1, &[]), Err(VerifyError::NoSignature { .. })));
    assert!(matches!(world.ask(3, &[&bundle]), Err(VerifyError::Unreachable { threshold: 3, keys: 2 })));
    let bad = world.bundle(&world.mallory);
    let mut many = vec![bad.as_str(); MAX_CANDIDATES - 1];
    many.push(&bundle);
    world.ask(1, &many).unwrap();
    many.insert(0, &bad);
    assert!(matches!(world.ask(1, &many), Err(VerifyError::TooMany)));
    let sha1 = [Digest::of(DigestFunction::Sha1, b"artifact")];
    for artifact in [&sha1[..], &[]] {
        let expected = Expectation { artifact, ..world.expectation(1) };
        assert!(matches!(verify_bundles(&world.keys, &expected, [&bundle]), Err(VerifyError::NoDigest)));
    }
    let (alice, bob) = (trusted("alice", &world.alice), trusted("bob", &world.bob));
    let again = TrustedKey { name: "alice2".to_owned(), ..alice.clone() };
    let never = TrustedKey { not_before: Some(2), not_after: Some(1), ..alice.clone() };
    for (keys, expected) in [
        (vec![], KeySetError::Empty),
        (
            vec![alice.clone(), again],
            KeySetError::Key { first: "alice".to_owned(), second: "alice2".to_owned(), id: alice.key.id() },
        ),
        (
            vec![alice.clone(), TrustedKey { name: "alice".to_owned(), ..bob }],
            KeySetError::Name { name: "alice".to_owned() },
        ),
        (vec![never], KeySetError::Window { name: "alice".to_owned() }),
        (vec![alice; 65], KeySetError::TooMany { actual: 65 }),
    ] {
        assert_eq!(KeySet::new(keys), Err(expected));
    }
}

#[test]
fn simple_signatures_are_for_one_manifest_of_one_repository() {
    let world = World::new();
    let payload = SimplePayload {
        kind: SimpleType::Cosign,
        reference: "registry.example/app".to_owned(),
        manifest: world.artifact[0],
        claims: BTreeMap::from([("tag".to_owned(), "1.0".to_owned())]),
    };
    let expected = Expectation { repository: Some("registry.example/app"), ..world.expectation(1) };
    let (bytes, signature) = payload.sign(&world.bob).unwrap();
    let good = SimpleSignature { payload: bytes.as_bytes(), signature: &signature };
    let verified = verify_simple(&world.keys, &expected, [good]).unwrap();
    assert_eq!((verified.accepted[0].key_name.as_str(), verified.accepted[0].digest), ("bob", world.artifact[0]));
    let other = |change: fn(&mut SimplePayload), key: &PrivateKey| {
        let mut payload = payload.clone();
        change(&mut payload);
        payload.sign(key).unwrap()
    };
    type Check = fn(&Rejection) -> bool;
    let rows: [(&str, (String, String), Check); 9] = [
        ("another manifest", other(|payload| payload.manifest = sha256(b"other"), &world.alice), |reason| {
            matches!(reason, Rejection::Artifact { .. })
        }),
        ("another repository", other(|payload| payload.reference.push('2'), &world.alice), |reason| {
            matches!(reason, Rejection::Repository { .. })
        }),
        ("no repository", other(|payload| payload.reference.clear(), &world.alice), |reason| {
            matches!(reason, Rejection::Repository { .. })
        }),
        ("another program's", other(|payload| payload.kind = SimpleType::Atomic, &world.alice), |reason| {
            matches!(reason, Rejection::SimpleType)
        }),
        ("another key", other(|_| {}, &world.mallory), |reason| matches!(reason, Rejection::NoKey)),
        ("a signature of other bytes", (format!("{bytes} "), signature.clone()), |reason| {
            matches!(reason, Rejection::NoKey)
        }),
        ("no base64", (bytes.clone(), format!("{signature}\n")), |reason| matches!(reason, Rejection::Document(_))),
        ("no signature", (bytes.clone(), String::new()), |reason| matches!(reason, Rejection::NoKey)),
        (
            "a statement",
            {
                let statement = world.statement().encode();
                let envelope =
                    Envelope::sign(&world.alice, STATEMENT_PAYLOAD_TYPE, statement.clone().into_bytes()).unwrap();
                let text = envelope.encode();
                let sig = text.split(r#""sig":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
                (statement, sig)
            },
            |reason| matches!(reason, Rejection::NoKey),
        ),
    ];
    for (name, (bytes, signature), is_expected) in &rows {
        let candidate = SimpleSignature { payload: bytes.as_bytes(), signature };
        match verify_simple(&world.keys, &expected, [candidate]) {
            Err(VerifyError::Threshold { rejected, .. }) => {
                assert!(is_expected(&rejected[0].reason), "{name}: {:?}", rejected[0]);
            }
            answer => panic!("{name}: {answer:?}"),
        }
    }
    assert!(matches!(verify_simple(&world.keys, &world.expectation(1), [good]), Err(VerifyError::NoRepository)));
    assert!(matches!(verify_simple(&world.keys, &expected, []), Err(VerifyError::NoSignature { .. })));
    let twice = Expectation { threshold: NonZeroUsize::new(2).unwrap(), ..expected };
    assert!(verify_simple(&world.keys, &twice, [good, good]).is_err());
}
