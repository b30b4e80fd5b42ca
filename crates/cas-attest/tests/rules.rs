//! Policies: each rule lets something through and stops something else, and files that could be misread are no policies.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use cas_attest::{
    Bundle, Candidate, KeyAlgorithm, Policy, PolicyFile, PrivateKey, PublicKey, Question, SIGN_PREDICATE,
    SPDX_PREDICATE, Signer, SignerError, SimplePayload, SimpleSignature, SimpleType, Statement, Subject,
};
use cas_digest::{Digest, DigestFunction};

const HERE: &str = "registry.example/app";
/// The first of January 2026.
const NOW: i64 = 1_767_225_600;

fn key(byte: u8) -> PrivateKey {
    let mut random = |bytes: &mut [u8]| {
        bytes.fill(byte);
        Ok(())
    };
    let algorithm = if byte.is_multiple_of(2) { KeyAlgorithm::EcdsaP256 } else { KeyAlgorithm::Ed25519 };
    PrivateKey::generate(algorithm, &mut random).unwrap()
}

/// Keys by name, each also in a file of its name.
fn keys() -> BTreeMap<String, PrivateKey> {
    ["alice", "bob", "carol"].into_iter().zip(1..).map(|(name, byte)| (name.to_owned(), key(byte))).collect()
}

fn artifact() -> Digest {
    Digest::of(DigestFunction::Sha256, b"artifact")
}

fn policy(text: &str) -> Result<Policy, String> {
    let file = PolicyFile::parse(text).map_err(|error| error.to_string())?;
    let found: BTreeMap<String, PublicKey> = file
        .keys()
        .map(|(name, _)| (name.to_owned(), keys()[name.trim_end_matches('2')].public_key().clone()))
        .collect();
    file.with_keys(&found).map_err(|error| error.to_string())
}

fn head(keys: &str) -> String {
    let keys = keys.split(' ').map(|name| format!("[key.{name}]\nfile = \"{name}.pub\"\n"));
    format!("version = 1\n{}", keys.collect::<String>())
}

/// What somebody signs: who, of which predicate, for which repository, in which form.
#[derive(Clone)]
enum Said {
    Bundle(&'static str, &'static str, Option<&'static str>),
    Claiming(&'static str, &'static str),
    Older(&'static str, &'static str),
    Other(&'static str),
}

fn signed(said: &Said) -> (String, Option<String>) {
    let bundle = |who: &str, digest: &Digest, predicate: &str, repository: Option<&str>, claim: Option<&str>| {
        let mut subject = Subject::of(digest);
        subject.name = repository.map(str::to_owned);
        subject.annotations.extend(claim.map(|claim| ("stage".to_owned(), claim.to_owned())));
        let statement = Statement::new(vec![subject], predicate, "{}").unwrap();
        (Bundle::sign(&keys()[who], &statement).unwrap(), None)
    };
    match said {
        Said::Bundle(who, predicate, repository) => bundle(who, &artifact(), predicate, *repository, None),
        Said::Claiming(who, claim) => bundle(who, &artifact(), SIGN_PREDICATE, Some(HERE), Some(claim)),
        Said::Other(who) => {
            bundle(who, &Digest::of(DigestFunction::Sha256, b"other"), SIGN_PREDICATE, Some(HERE), None)
        }
        Said::Older(who, repository) => {
            let (manifest, reference) = (artifact(), (*repository).to_owned());
            let payload = SimplePayload { kind: SimpleType::Cosign, reference, manifest, claims: BTreeMap::new() };
            let (payload, signature) = payload.sign(&keys()[*who]).unwrap();
            (payload, Some(signature))
        }
    }
}

fn passes(policy: &Policy, said: &[Said]) -> bool {
    let made: Vec<_> = said.iter().map(signed).collect();
    let mut candidates = Vec::new();
    for pair in &made {
        candidates.push(match pair {
            (content, Some(signature)) => Candidate::Simple(SimpleSignature { payload: content.as_bytes(), signature }),
            (content, None) => Candidate::Bundle(content.as_bytes()),
        });
    }
    let question = Question { artifact: &[artifact()], repository: HERE, now: NOW };
    let answers = policy.ask(question, &candidates);
    assert!(!answers.is_empty());
    answers.iter().all(|answer| answer.result.is_ok())
}

#[test]
fn each_rule_lets_through_and_stops() {
    use Said::{Bundle, Claiming, Older, Other};
    let sign = |rest: &str| format!("[require.signature]\ntype = \"{SIGN_PREDICATE}\"\n{rest}\n");
    let alice = sign("keys = [\"alice\"]");
    let two = sign("keys = [\"alice\", \"bob\", \"carol\"]\nthreshold = 2");
    let sbom = format!("[require.sbom]\ntype = \"{SPDX_PREDICATE}\"\nkeys = [\"bob\"]\n");
    let elsewhere = "registry.example/other";
    let good = Bundle("alice", SIGN_PREDICATE, Some(HERE));
    let unnamed = Bundle("alice", SIGN_PREDICATE, None);
    let list = Bundle("bob", SPDX_PREDICATE, Some(HERE));
    let window = |words: &str| {
        format!("version = 1\n[key.alice]\nfile = \"alice.pub\"\n{words}\n{}", sign("keys = [\"alice\"]"))
    };
    // What it is called, the policy, what passes, and what does not.
    type Row = (&'static str, String, Vec<Said>, Vec<Vec<Said>>);
    let rows: Vec<Row> = vec![
        (
            "a key of the slot",
            head("alice bob carol") + &alice,
            vec![good.clone()],
            vec![
                vec![],
                vec![Bundle("bob", SIGN_PREDICATE, Some(HERE))],
                vec![Other("alice")],
                vec![Bundle("alice", SPDX_PREDICATE, Some(HERE))],
            ],
        ),
        (
            "two keys of three, in either form",
            head("alice bob carol") + &two,
            vec![good.clone(), Older("carol", HERE)],
            vec![
                vec![good.clone()],
                vec![good.clone(), good.clone()],
                vec![good.clone(), Older("alice", HERE)],
                vec![good.clone(), Claiming("alice", "beta")],
                vec![good.clone(), Older("bob", elsewhere)],
                vec![good.clone(), list.clone()],
            ],
        ),
        (
            "every slot, each by its own keys",
            head("alice bob carol") + &alice + &sbom,
            vec![list.clone(), good.clone()],
            vec![
                vec![good.clone()],
                vec![list.clone()],
                vec![good.clone(), Bundle("alice", SPDX_PREDICATE, Some(HERE))],
                vec![list.clone(), Bundle("bob", SIGN_PREDICATE, Some(HERE))],
            ],
        ),
        (
            "the older form signs and says nothing else",
            head("bob") + &sbom,
            vec![list.clone()],
            vec![vec![Older("bob", HERE)]],
        ),
        (
            "the repository that the image is in",
            head("alice") + &alice,
            vec![good.clone()],
            vec![
                vec![Bundle("alice", SIGN_PREDICATE, Some(elsewhere))],
                vec![unnamed.clone()],
                vec![Older("alice", elsewhere)],
            ],
        ),
        (
            "another repository",
            head("alice") + &sign(&format!("keys = [\"alice\"]\nrepository = \"{elsewhere}\"")),
            vec![Bundle("alice", SIGN_PREDICATE, Some(elsewhere))],
            vec![vec![good.clone()], vec![unnamed.clone()]],
        ),
        (
            "no repository, or the right one",
            head("alice") + &sign("keys = [\"alice\"]\nunclaimed = true"),
            vec![unnamed.clone()],
            vec![vec![Bundle("alice", SIGN_PREDICATE, Some(elsewhere))], vec![Older("alice", "")]],
        ),
        (
            "a claim",
            head("alice") + &sign("keys = [\"alice\"]\nclaims = { stage = \"release\" }"),
            vec![Claiming("alice", "release")],
            vec![vec![Claiming("alice", "beta")], vec![good.clone()]],
        ),
        (
            "from a moment on",
            window("not_before = \"2026-01-01\""),
            vec![good.clone()],
            vec![vec![Bundle("bob", SIGN_PREDICATE, Some(HERE))]],
        ),
        (
            "until a moment",
            window("not_after = \"2026-01-01T00:00:00Z\""),
            vec![good.clone()],
            vec![vec![Bundle("bob", SIGN_PREDICATE, Some(HERE))]],
        ),
    ];
    for (name, text, right, wrong) in rows {
        let policy = policy(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(passes(&policy, &right), "{name}");
        // What does no good does no harm.
        let more: Vec<Said> = wrong.iter().flatten().cloned().chain(right.clone()).collect();
        assert!(passes(&policy, &more), "{name}, with more");
        for (index, said) in wrong.iter().enumerate() {
            assert!(!passes(&policy, said), "{name}, {index}");
        }
    }
    for words in ["not_before = \"2026-01-01T00:00:01Z\"", "not_after = \"2025-12-31T23:59:59Z\""] {
        assert!(!passes(&policy(&window(words)).unwrap(), std::slice::from_ref(&good)), "{words}");
    }
}

#[test]
fn what_could_be_misread_is_no_policy() {
    let slot = |words: &str| format!("[require.signature]\ntype = \"{SIGN_PREDICATE}\"\n{words}\n");
    let good = head("alice bob") + &slot("keys = [\"alice\"]");
    policy(&good).unwrap();
    for (name, text, expected) in [
        ("nothing", String::new(), "version"),
        ("another version", good.replace("version = 1", "version = 2"), "`version` is 2"),
        ("no slots", head("alice"), "asks for nothing"),
        ("a word that is not known", good.replace("keys", "key"), "unknown field"),
        ("a section that is not known", good.clone() + "[rules]\n", "unknown field"),
        ("a word of a key that is not known", good.replacen("file", "fil", 1), "unknown field"),
        ("a window with a wrong name", good.replacen("file", "not_afer = \"2026-01-01\"\nfile", 1), "unknown field"),
        ("no type", good.replace("type", "#"), "missing field"),
        ("an empty type", good.replace(SIGN_PREDICATE, ""), "has 0 bytes"),
        ("no keys", head("alice") + &slot(""), "missing field"),
        ("an empty list of keys", good.replace("[\"alice\"]", "[]"), "trusts no key"),
        ("a key that is not there", good.replace("[\"alice\"]", "[\"mallory\"]"), "no key `mallory`"),
        ("a key twice", good.replace("[\"alice\"]", "[\"alice\", \"alice\"]"), "named twice"),
        (
            "one key under two names",
            (head("alice alice2") + &slot("keys = [\"alice\", \"alice2\"]\nthreshold = 2")),
            "are the same key",
        ),
        ("a threshold of none", good.clone() + "threshold = 0\n", "`threshold` is 0"),
        ("a threshold out of reach", good.clone() + "threshold = 2\n", "`threshold` is 2, of 1"),
        ("a negative threshold", good.clone() + "threshold = -1\n", "invalid value"),
        ("an empty repository", good.clone() + "repository = \"\"\n", "`repository` is empty"),
        ("a claim that is no text", good.clone() + "claims = { a = 1 }\n", "invalid type"),
        ("a key in no file", good.replacen("file = \"alice.pub\"\n", "", 1), "one of `file` and `pem`"),
        ("a key in two places", good.replacen("file", "pem = \"x\"\nfile", 1), "one of `file` and `pem`"),
        ("no moment", good.replacen("file", "not_after = \"soon\"\nfile", 1), "`soon` is no moment"),
        (
            "valid at no time",
            good.replacen("file", "not_before = \"2026-01-02\"\nnot_after = \"2026-01-01\"\nfile", 1),
            "valid at no time",
        ),
        ("a section twice", good.clone() + &slot("keys = [\"bob\"]"), "duplicate key"),
        ("a book", format!("{good}# {}", "x".repeat(1 << 20)), "at most"),
    ] {
        match policy(&text) {
            Err(error) => assert!(error.contains(expected), "{name}: {error}"),
            Ok(_) => panic!("{name}: {text}"),
        }
    }
    // Keys that were not read are missed.
    let error = PolicyFile::parse(&good).unwrap().with_keys(&BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("`alice` was not read") && error.span.is_some(), "{error}");
}

/// Signs with one key and says to be another, gives nonsense, or nothing.
struct Liar(PublicKey, Result<Vec<u8>, SignerError>);

impl Signer for Liar {
    fn public_key(&self) -> &PublicKey {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.1.clone()
    }
}

/// The other form of a signature of ECDSA.
struct High(PrivateKey);

impl Signer for High {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let order: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
            0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
        ];
        let low = self.0.sign(message);
        let r = usize::from(low[3]);
        let s = &low[4 + r + 2..];
        let (mut padded, mut high, mut borrow) = ([0; 32], Vec::new(), 0_i16);
        let s = s.strip_prefix(&[0]).unwrap_or(s);
        padded[32 - s.len()..].copy_from_slice(s);
        for (all, part) in order.iter().zip(&padded).rev() {
            let difference = i16::from(*all) - i16::from(*part) - borrow;
            borrow = i16::from(difference < 0);
            high.insert(0, u8::try_from(difference & 0xff).unwrap());
        }
        high.insert(0, 0);
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let mut der = [&low[2..4 + r], &[2, length(&high)], &high].concat();
        der = [&[0x30, length(&der)], &der[..]].concat();
        assert!(self.0.public_key().verify(message, &der).is_ok() && der != low);
        Ok(der)
    }
}

#[test]
fn what_a_signer_gives_is_checked_before_it_is_used() {
    let statement = Statement::signature_of(Subject::of(&artifact())).unwrap();
    let (alice, bob) = (key(1), key(2));
    let nothing = SignerError { reason: "no device".to_owned(), hint: None };
    for (name, answer, expected) in [
        ("another key's", Ok(alice.sign(b"DSSEv1")), "gave no signature"),
        ("nothing", Ok(Vec::new()), "gave no signature"),
        ("nonsense", Ok(vec![7; 64]), "gave no signature"),
        ("an error", Err(nothing), "no device"),
    ] {
        for public in [&alice, &bob] {
            let liar = Liar(public.public_key().clone(), answer.clone());
            let error = Bundle::sign(&liar, &statement).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }
    // Written is one form alone, whoever signs.
    let expected = Bundle::sign(&bob, &statement).unwrap();
    assert_eq!(Bundle::sign(&High(bob), &statement).unwrap(), expected);
}
