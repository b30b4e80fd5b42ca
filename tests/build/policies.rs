//! `cas verify --policy`: all that a file asks for, and nothing that it does not say.

use serde_json::Value;

use crate::Home;
use crate::sign::{ends, fake, home};

const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const CHECK: &str = "https://example.com/check/v1";

fn keys(home: &Home) {
    for (name, kind) in [("alice", "ed25519"), ("bob", "ecdsa-p256"), ("carol", "ed25519")] {
        ends(home, &["key", "generate", name, "--type", kind, "--plain"], 0, &[]);
    }
}

/// A file in the folder of the workspace, whose keys are beside it.
fn policy(slots: &str) -> String {
    let key = |name: &str| format!("[key.{name}]\nfile = \"../keys/{name}.pub\"\n");
    format!("version = 1\n{}{}{}{slots}", key("alice"), key("bob"), key("carol"))
}

#[test]
fn all_that_a_policy_asks_for_must_be_there() {
    for referrers in [None, Some(1)] {
        let (home, fake) = (home(), fake(referrers));
        let one = format!("{}/a/one:1.0.0", fake.address());
        let two = format!("{}/a/two:1.0.0", fake.address());
        ends(&home, &["push", ":one", &one], 0, &[]);
        ends(&home, &["push", ":two", &two], 0, &[]);
        keys(&home);
        home.write("said.json", "{}");
        let slots = format!(
            "[require.signature]\ntype = \"{SIGN}\"\nkeys = [\"alice\", \"bob\"]\nthreshold = 2\n\
             [require.checked]\ntype = \"{CHECK}\"\nkeys = [\"carol\"]\n"
        );
        home.write("trust.toml", &policy(&slots));
        let verify = ["verify", &one, "--policy", "trust.toml"];
        ends(&home, &verify, 7, &["`signature` is not filled: 0 of 2", "`checked` is not filled: 0 of 1"]);
        ends(&home, &["sign", &one, "--key", "alice"], 0, &[]);
        // In both forms, and yet one key.
        ends(&home, &verify, 7, &["`signature` is not filled: 1 of 2", "the key `alice` has counted once"]);
        ends(&home, &["sign", &one, "--key", "carol"], 0, &[]);
        ends(&home, &verify, 7, &["`signature` is not filled: 1 of 2", "no key of the set"]);
        ends(&home, &["sign", &one, "--key", "bob"], 0, &[]);
        let said = ends(&home, &verify, 7, &["signature: alice", "signature: bob", "`checked` is not filled: 0 of 1"]);
        assert!(!said.contains("`signature` is not filled"), "{said}");
        let attest = |key: &'static str, image: &str, kind: &'static str| {
            ends(&home, &["attest", image, "--key", key, "--type", kind, "--predicate", "said.json"], 0, &[]);
        };
        attest("bob", &one, CHECK);
        attest("carol", &one, "https://example.com/other");
        ends(&home, &verify, 7, &["`checked` is not filled: 0 of 1"]);
        attest("carol", &one, CHECK);
        let said = ends(&home, &verify, 0, &["signature: alice", "signature: bob", "checked: carol"]);
        assert!(!said.contains("error") && !said.contains("refused"), "{said}");
        let row = ends(&home, &["--format", "json", "verify", &one, "--policy", "trust.toml"], 0, &[]);
        let row: Value = serde_json::from_str(row.trim()).unwrap();
        let result = &row["results"][0];
        assert_eq!((&row["exit"], &result["verified"]), (&"done".into(), &true.into()));
        let slot = |at: usize| (result["slots"][at]["slot"].as_str(), result["slots"][at]["filled"].as_bool());
        assert_eq!((slot(0), slot(1)), ((Some("checked"), Some(true)), (Some("signature"), Some(true))));
        // Another image of the same keys is another image.
        ends(&home, &["verify", &two, "--policy", "trust.toml"], 7, &["0 of 2"]);
    }
}

#[test]
fn repositories_and_times_are_the_policys_to_say() {
    let (home, fake) = (home(), fake(Some(9)));
    let one = format!("{}/a/one:1.0.0", fake.address());
    let elsewhere = "registry.example/public/one";
    ends(&home, &["push", ":one", &one], 0, &[]);
    keys(&home);
    ends(&home, &["sign", &one, "--key", "alice", "--repository", elsewhere], 0, &[]);
    let slot = |more: &str| format!("[require.signature]\ntype = \"{SIGN}\"\nkeys = [\"alice\"]\n{more}");
    for (slots, code, expected) in [
        (slot(""), 7, "it is for the repository"),
        (slot("unclaimed = true\n"), 7, "it is for the repository"),
        (slot(&format!("repository = \"{elsewhere}\"\n")), 0, "signature: alice"),
        (slot(&format!("repository = \"{elsewhere}/\"\n")), 7, "it is for the repository"),
    ] {
        home.write("trust.toml", &policy(&slots));
        ends(&home, &["verify", &one, "--policy", "trust.toml"], code, &[expected]);
    }
    let slots = slot(&format!("repository = \"{elsewhere}\"\n"));
    for (window, code, expected) in [
        ("not_before = \"2001-01-01\"\nnot_after = \"2999-01-01\"", 0, "signature: alice"),
        ("not_before = \"2999-01-01\"", 7, "is not valid at the present time"),
        ("not_after = \"2001-01-01T00:00:00Z\"", 7, "is not valid at the present time"),
    ] {
        home.write("trust.toml", &policy(&slots).replacen("[key.bob]", &format!("{window}\n[key.bob]"), 1));
        ends(&home, &["verify", &one, "--policy", "trust.toml"], code, &[expected]);
    }
    // What the command line says loosens nothing.
    for more in [&["--key", "alice"][..], &["--repository", elsewhere], &["--unclaimed"], &["--type", CHECK]] {
        let arguments = [&["verify", &one, "--policy", "trust.toml"], more].concat();
        ends(&home, &arguments, 2, &["cannot be used with"]);
    }
}

#[test]
fn a_policy_that_cannot_be_read_lets_nothing_through() {
    let (home, fake) = (home(), fake(Some(9)));
    let one = format!("{}/a/one:1.0.0", fake.address());
    ends(&home, &["push", ":one", &one], 0, &[]);
    keys(&home);
    ends(&home, &["sign", &one, "--key", "alice"], 0, &[]);
    let good = policy(&format!("[require.signature]\ntype = \"{SIGN}\"\nkeys = [\"alice\"]\n"));
    let broken =
        std::fs::read_to_string(home.folder.path().join("keys/alice.pub")).unwrap().replace("MCowBQ", "MDowBQ");
    let inline = good.replacen("file = \"../keys/alice.pub\"", &format!("pem = \"\"\"\n{broken}\"\"\""), 1);
    for (text, code, expected) in [
        (good.clone(), 0, "signature: alice"),
        (inline.replace("MDowBQ", "MCowBQ"), 0, "signature: alice"),
        (inline.clone(), 2, "trust.toml"),
        (good.replacen("version = 1\n", "", 1), 2, "version"),
        (good.replacen("keys = ", "threshhold = 1\nkeys = ", 1), 2, "line 10: unknown field `threshhold`"),
        (good.replacen("alice.pub", "nobody.pub", 1), 2, "nobody.pub"),
        (good.replacen("alice.pub", "alice.key", 1), 2, "not a public key"),
        (
            good.replacen("alice.pub", "bob.pub", 1).replace("[\"alice\"]", "[\"alice\", \"bob\"]"),
            2,
            "are the same key",
        ),
        (String::new(), 2, "version"),
    ] {
        home.write("trust.toml", &text);
        let (actual, said) = crate::sign::run(&home, &["verify", &one, "--policy", "trust.toml"]);
        assert!(actual == code && said.contains(expected), "{expected}: {actual}: {said}");
    }
    ends(&home, &["verify", &one, "--policy", "nowhere.toml"], 2, &["nowhere.toml"]);
    ends(&home, &["verify", &one], 2, &["--key"]);
}
