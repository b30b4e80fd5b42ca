//! Signatures of images in registries: made, verified, and refused when anything about them is not what was signed.

use std::fs;
use std::io::Write;
use std::process::Command;

use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner};
use serde_json::Value;

use crate::push::Registry;
use crate::terminal::{Terminal, XTERM};
use crate::{Home, text};

const MANIFEST: &str = "[workspace]\n\
    [image.one]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n\
    [image.two]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/other\" }]\n";
pub(crate) const PASSWORD: &str = "s3cret-of-the-key";

pub(crate) fn home() -> Home {
    let home = Home::new(MANIFEST);
    home.write("site/index.html", "<p>one</p>\n");
    home
}

/// What a command ends with, and all that it says; the password is never in it.
pub(crate) fn run(home: &Home, arguments: &[&str]) -> (i32, String) {
    let mut command = home.command(arguments);
    let output =
        command.env("CAS_KEYS", home.folder.path().join("keys")).env("CAS_KEY_PASSWORD", PASSWORD).output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!said.contains(PASSWORD) && !said.contains("PRIVATE KEY-----"), "{arguments:?}: {said}");
    (output.status.code().unwrap(), said)
}

#[track_caller]
pub(crate) fn ends(home: &Home, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let (actual, said) = run(home, arguments);
    assert_eq!(actual, code, "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {word}: {said}");
    }
    said
}

pub(crate) fn fake(referrers: Option<usize>) -> FakeRegistry {
    let fake = FakeRegistry::start(Gate::Open);
    let (lists_referrers, referrers_page) = (referrers.is_some(), referrers);
    fake.manner(Manner { lists_referrers, referrers_page, ..Manner::default() });
    fake
}

pub(crate) fn digest_of(said: &str) -> String {
    let start = said.find("sha256:").unwrap();
    said[start..start + 71].to_owned()
}

#[test]
fn keys_are_made_once_and_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = home();
    ends(&home, &["key", "generate", "a"], 0, &["ecdsa-p256", "a.pub"]);
    ends(&home, &["key", "generate", "b", "--type", "ed25519", "--plain"], 0, &["ed25519"]);
    ends(&home, &["key", "generate", "a"], 2, &["is there already", "hint: choose another name"]);
    for name in ["", "../a", ".a", "a/b"] {
        ends(&home, &["key", "generate", name], 2, &["is no name of a key"]);
    }
    ends(&home, &["key", "list"], 0, &["a ", "b ", "ed25519"]);
    let keys = home.folder.path().join("keys");
    for (file, label) in [("a.key", "ENCRYPTED SIGSTORE PRIVATE KEY"), ("b.key", "BEGIN PRIVATE KEY")] {
        assert!(fs::read_to_string(keys.join(file)).unwrap().contains(label), "{file}");
        assert_eq!(fs::metadata(keys.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[test]
fn what_is_signed_is_verified_and_nothing_else_is() {
    for referrers in [None, Some(1)] {
        for kind in ["ed25519", "ecdsa-p256"] {
            let (home, fake) = (home(), fake(referrers));
            let to = |rest: &str| format!("{}/{rest}", fake.address());
            let (one, two) = (to("a/one:1.0.0"), to("a/two:1.0.0"));
            ends(&home, &["push", ":one", &one], 0, &[]);
            ends(&home, &["push", ":two", &two], 0, &[]);
            ends(&home, &["key", "generate", "mine", "--type", kind, "--plain"], 0, &[]);
            ends(&home, &["key", "generate", "other", "--type", kind, "--plain"], 0, &[]);
            ends(&home, &["key", "generate", "alien", "--type", "ed25519", "--plain"], 0, &[]);
            ends(&home, &["verify", &one, "--key", "mine"], 3, &["there is no signature"]);
            let said = ends(&home, &["sign", &one, "--key", "mine"], 0, &["signed for"]);
            let digest = digest_of(&said);
            let verified =
                ends(&home, &["verify", &one, "--key", "mine"], 0, &["is signed by mine", "referrer sha256:"]);
            assert!(verified.contains(".sig, layer 1") && !verified.contains("refused"), "{verified}");
            // Signing again changes nothing.
            let list = |fake: &FakeRegistry| fake.get(&format!("a/one/manifests/{}.sig", digest.replace(':', "-")));
            let before = list(&fake);
            ends(&home, &["sign", &one, "--key", "mine"], 0, &[]);
            assert!(before.is_some() && list(&fake) == before);
            for key in ["other", "alien"] {
                ends(&home, &["verify", &one, "--key", key], 3, &["refused", "no key of the set", "not verified"]);
            }
            ends(&home, &["verify", &one, "--key", "other", "--key", "mine"], 0, &["is signed by mine"]);
            let other = to("b/else");
            ends(&home, &["verify", &one, "--key", "mine", "--repository", &other], 3, &["it is for the repository"]);
            let kind = "https://slsa.dev/provenance/v1";
            ends(&home, &["verify", &one, "--key", "mine", "--type", kind], 3, &["it says"]);
            ends(&home, &["verify", &two, "--key", "mine"], 3, &["there is no signature"]);
            // Two signers: each counts, and the other one is told as refused.
            ends(&home, &["sign", &one, "--key", "other"], 0, &[]);
            for key in ["mine", "other"] {
                ends(&home, &["verify", &one, "--key", key], 0, &["refused", "is signed by"]);
            }
            // Signed for where it will be.
            ends(&home, &["sign", &two, "--key", "mine", "--repository", &other, "--no-legacy"], 0, &[]);
            ends(&home, &["verify", &two, "--key", "mine"], 3, &["it is for the repository"]);
            ends(&home, &["verify", &two, "--key", "mine", "--repository", &other], 0, &[]);
        }
    }
}

#[test]
fn signatures_of_other_images_and_changed_ones_are_refused() {
    let (home, fake) = (home(), fake(None));
    let to = |rest: &str| format!("{}/{rest}", fake.address());
    let (one, two) = (to("a:1.0.0"), to("a:2.0.0"));
    ends(&home, &["push", ":one", &one], 0, &[]);
    ends(&home, &["push", ":two", &two], 0, &[]);
    ends(&home, &["key", "generate", "mine"], 0, &[]);
    let digest = digest_of(&ends(&home, &["sign", &one, "--key", "mine"], 0, &[]));
    let index = |digest: &str| format!("a/manifests/{}", digest.replace(':', "-"));
    let found = ends(&home, &["--format", "json", "verify", &two, "--key", "mine"], 3, &[]);
    let found: Value = serde_json::from_str(&found[..=found.rfind('}').unwrap()]).unwrap();
    let second = found["results"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!((&found["exit"], &found["results"][0]["verified"]), (&"mismatch".into(), &false.into()));
    // Replayed: the lists of the one image are put beside the other one.
    let image_index = "application/vnd.oci.image.index.v1+json";
    fake.put(&index(&second), image_index, &fake.get(&index(&digest)).unwrap());
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    fake.put(&format!("{}.sig", index(&second)), manifest, &fake.get(&format!("{}.sig", index(&digest))).unwrap());
    let said = ends(&home, &["verify", &two, "--key", "mine"], 3, &["it is about another artifact", "2 of 2"]);
    assert!(!said.contains("is signed by"), "{said}");
    // The signature is taken out, and the payload is changed.
    let place = format!("{}.sig", index(&digest));
    let older: Value = serde_json::from_slice(&fake.get(&place).unwrap()).unwrap();
    let mut stripped = older.clone();
    stripped["layers"][0]["annotations"] = serde_json::json!({});
    fake.put(&place, manifest, stripped.to_string().as_bytes());
    ends(&home, &["verify", &one, "--key", "mine"], 0, &["layer 1: it has no signature", "is signed by mine"]);
    fake.put(&place, manifest, older.to_string().as_bytes());
    let layer = format!("a/blobs/{}", older["layers"][0]["digest"].as_str().unwrap());
    let changed = text(&fake.get(&layer).unwrap()).replacen("/a", "/b", 1);
    fake.put(&layer, "application/octet-stream", changed.as_bytes());
    ends(&home, &["verify", &one, "--key", "mine"], 0, &["refused: tag", "gave something else"]);
    // All is removed.
    fake.put(&index(&digest), image_index, br#"{"manifests":[]}"#);
    ends(&home, &["verify", &one, "--key", "mine"], 3, &["refused: tag", "not verified"]);
}

/// Whoever would give something else the second time is not asked a second time.
#[test]
fn a_tag_is_asked_for_once() {
    let (home, fake) = (home(), fake(Some(9)));
    let one = format!("{}/a:1.0.0", fake.address());
    ends(&home, &["push", ":one", &one], 0, &[]);
    ends(&home, &["key", "generate", "mine", "--plain"], 0, &[]);
    for arguments in [["sign", &one, "--key", "mine"], ["verify", &one, "--key", "mine"]] {
        let before = fake.requests().len();
        ends(&home, &arguments, 0, &[]);
        let requests = fake.requests();
        let lines = requests[before..].iter().map(|request| request.line.as_str());
        let asked: Vec<&str> = lines.filter(|line| line.contains("/manifests/1.0.0")).collect();
        assert_eq!(asked.len(), 1, "{arguments:?}: {asked:?}");
    }
}

#[test]
fn what_is_attested_is_no_signature_and_the_other_way_round() {
    let (home, fake) = (home(), fake(Some(100)));
    let one = format!("{}/a:1.0.0", fake.address());
    let kind = "https://example.com/check/v1";
    ends(&home, &["push", ":one", &one], 0, &[]);
    ends(&home, &["key", "generate", "mine", "--plain"], 0, &[]);
    home.write("said.json", "{\"fine\": true}\n");
    home.write("list.json", "[]\n");
    let attest = |file: &'static str| ["attest", &one, "--key", "mine", "--type", kind, "--predicate", file].to_vec();
    ends(&home, &attest("list.json"), 2, &["predicate"]);
    ends(&home, &attest("said.json"), 0, &["attested"]);
    ends(&home, &["verify", &one, "--key", "mine", "--type", kind], 0, &["is signed by mine"]);
    ends(&home, &["verify", &one, "--key", "mine"], 3, &["it says", "not verified"]);
    ends(&home, &["verify", &one, "--key", "mine", "--type", "https://example.com/other"], 3, &["it says"]);
}

#[test]
fn a_wrong_password_is_told_and_not_repeated() {
    let (home, fake) = (home(), fake(None));
    let one = format!("{}/a:1.0.0", fake.address());
    ends(&home, &["push", ":one", &one], 0, &[]);
    ends(&home, &["key", "generate", "mine"], 0, &[]);
    let mut command = home.command(&["sign", &one, "--key", "mine"]);
    let command = command.env("CAS_KEYS", home.folder.path().join("keys")).env("CAS_KEY_PASSWORD", "wrong-one");
    let output = command.output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("password") && !said.contains("wrong-one"), "{said}");
    ends(&home, &["verify", &one, "--key", "mine"], 3, &["there is no signature"]);
    ends(&home, &["sign", &one, "--key", "nobody"], 2, &["there is no key `nobody`"]);
}

#[test]
fn skopeo_takes_the_older_form_of_a_real_registry_and_refuses_what_is_changed() {
    let home = home();
    let folder = tempfile::tempdir().unwrap();
    let Some((_registry, address)) = Registry::start(folder.path()) else {
        eprintln!("SKIPPED: docker-registry is missing");
        return;
    };
    let (one, two) = (format!("{address}/a:1.0.0"), format!("{address}/a:2.0.0"));
    ends(&home, &["push", ":one", &one], 0, &[]);
    ends(&home, &["push", ":two", &two], 0, &[]);
    ends(&home, &["key", "generate", "mine"], 0, &[]);
    ends(&home, &["key", "generate", "other"], 0, &[]);
    ends(&home, &["sign", &one, "--key", "mine"], 0, &[]);
    ends(&home, &["verify", &one, "--key", "mine"], 0, &["is signed by mine"]);
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("SKIPPED: skopeo is missing");
        return;
    }
    let registries = folder.path().join("registries.d");
    fs::create_dir(&registries).unwrap();
    fs::write(registries.join("a.yaml"), format!("docker:\n  {address}:\n    use-sigstore-attachments: true\n"))
        .unwrap();
    for (key, image, is_fine) in [("mine", &one, true), ("other", &one, false), ("mine", &two, false)] {
        let public = home.folder.path().join(format!("keys/{key}.pub"));
        let policy = serde_json::json!({ "default": [{ "type": "reject" }], "transports": { "docker": { address.as_str(): [{
            "type": "sigstoreSigned", "keyPath": public, "signedIdentity": { "type": "matchRepository" } }] } } });
        let file = folder.path().join("policy.json");
        fs::write(&file, policy.to_string()).unwrap();
        let copy = tempfile::tempdir().unwrap();
        let copied = crate::push::skopeo(folder.path())
            .arg("--policy")
            .arg(&file)
            .arg("--registries.d")
            .arg(&registries)
            .args(["copy", "--remove-signatures", "--src-tls-verify=false", &format!("docker://{image}")])
            .arg(format!("oci:{}:x", copy.path().display()))
            .output()
            .unwrap();
        let said = text(&copied.stderr);
        if said.contains("sigstore disabled") {
            eprintln!("SKIPPED: this skopeo is built without sigstore");
            return;
        }
        assert_eq!(copied.status.success(), is_fine, "{key} {image}: {said}");
    }
}

#[test]
fn a_signed_provenance_leads_to_every_input() {
    let (home, fake) = (home(), fake(Some(9)));
    let one = format!("{}/a:1.0.0", fake.address());
    ends(&home, &["push", ":one", &one], 0, &[]);
    ends(&home, &["key", "generate", "mine"], 0, &[]);
    let told = home.cas(&["provenance", ":one", "--predicate"]);
    home.write("said.json", &text(&told.stdout));
    let slsa = "https://slsa.dev/provenance/v1";
    let attest = ["attest", &one, "--key", "mine", "--type", slsa, "--predicate", "said.json"];
    ends(&home, &["verify", &one, "--key", "mine", "--inputs"], 3, &["there is no signature"]);
    ends(&home, &attest, 0, &["attested"]);
    let verify = ["verify", &one, "--key", "mine", "--inputs"];
    ends(&home, &verify, 0, &["is signed by mine", "//:one: 0 actions and 2 inputs, 0 of them not in the store"]);
    // What else is said of the image is nobody's fault.
    ends(&home, &["sign", &one, "--key", "mine"], 0, &[]);
    let said = ends(&home, &verify, 0, &[]);
    assert!(!said.contains("refused"), "{said}");
    // One that is whole is enough, whatever else was signed with the key.
    let mut other: Value = serde_json::from_slice(&told.stdout).unwrap();
    for input in other["buildDefinition"]["resolvedDependencies"].as_array_mut().unwrap() {
        input["digest"]["sha256"] = "0".repeat(64).into();
    }
    for (name, predicate) in [("none.json", "{\"a\": 1}".to_owned()), ("other.json", other.to_string())] {
        home.write(name, &predicate);
        let attest = ["attest", &one, "--key", "mine", "--type", slsa, "--predicate", name];
        ends(&home, &attest, 0, &["attested"]);
    }
    ends(&home, &verify, 0, &["0 of them not in the store"]);
    // A file that the store lost is told, by its path.
    let store = cas_store::Store::open(&home.folder.path().join("store")).unwrap();
    let page = cas_blob::Descriptor::of(cas_digest::DigestFunction::Blake3, b"<p>one</p>\n");
    fs::remove_file(store.object_path(&page).unwrap()).unwrap();
    ends(&home, &verify, 1, &["source site/index.html: sha256:", "1 of them not in the store"]);
    ends(&home, &["verify", &one, "--key", "mine", "--inputs", "--type", slsa], 2, &["--type"]);
    // What is signed as a provenance and is none of this program's is told.
    home.write("said.json", "{\"buildDefinition\": {\"buildType\": \"https://example.com/other\"}}");
    let two = format!("{}/b:1.0.0", fake.address());
    ends(&home, &["push", ":two", &two], 0, &[]);
    ends(&home, &["attest", &two, "--key", "mine", "--type", slsa, "--predicate", "said.json"], 0, &[]);
    ends(&home, &["verify", &two, "--key", "mine", "--inputs"], 2, &["can be looked through", "whoever signed it"]);
    for repository in ["not valid/..", "r.example/a:tag"] {
        ends(&home, &["sign", &two, "--key", "mine", "--repository", repository], 2, &["is no repository"]);
    }
}

/// What is signed is signed where it is brought to, and one platform is brought alone.
#[test]
fn signatures_come_along_with_sync_and_a_platform_can_come_alone() {
    let (home, source, target) = (home(), fake(None), fake(Some(9)));
    let web = "[image.web]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nlayers = [{ files = [\"site/**\"], to = \"/\" }]\n";
    home.write("cas.toml", &format!("{MANIFEST}{web}"));
    let from = |rest: &str| format!("{}/{rest}", source.address());
    let to = |rest: &str| format!("{}/{rest}", target.address());
    ends(&home, &["push", ":one", &from("a:1.0.0")], 0, &[]);
    ends(&home, &["push", ":web", &from("web:1.0.0")], 0, &[]);
    ends(&home, &["key", "generate", "mine"], 0, &[]);
    ends(&home, &["sign", &from("a:1.0.0"), "--key", "mine"], 0, &[]);
    let section = |from: &str, to: &str, rest: &str| {
        format!("[[image]]\nfrom = \"{from}\"\nto = [\"{to}\"]\ntags = [\"1.0.0\"]\n{rest}")
    };
    let file = section(&from("a"), &to("with"), "")
        + &section(&from("a"), &to("without"), "referrers = false\n")
        + &section(&from("web"), &to("arm"), "platforms = [\"linux/arm64\"]\n");
    home.write("m.toml", &file);
    ends(&home, &["sync", "plan", "m.toml"], 0, &[]);
    ends(&home, &["sync", "apply", "m.toml"], 0, &["3 tags brought"]);
    let verify = |name: &str, code, said: &str| {
        let image = to(&format!("{name}:1.0.0"));
        ends(&home, &["verify", &image, "--key", "mine", "--repository", &from("a")], code, &[said])
    };
    verify("with", 0, "is signed by mine");
    verify("without", 3, "there is no signature");
    let arm: Value = serde_json::from_slice(&target.get("arm/manifests/1.0.0").unwrap()).unwrap();
    assert!(arm.get("layers").is_some() && arm.get("manifests").is_none(), "{arm}");
    ends(&home, &["sync", "verify", "m.toml"], 0, &["3 tags, 3 of them as pinned"]);
    // What was pinned and is gone at the source is told by the tag that was to have it.
    source.fail("GET /v2/a/manifests/", Fault::Status(404, Vec::new()), 99);
    home.write("m.toml", &file.replace("/with", "/new").replace("/newout", "/other"));
    ends(&home, &["sync", "apply", "m.toml"], 4, &["/new:1.0.0: ", "does not exist"]);
    assert!(target.get("new/manifests/1.0.0").is_none());
}

#[test]
fn a_password_of_a_key_is_asked_for_twice_and_not_shown() {
    let home = home();
    let keys = home.folder.path().join("keys");
    let variables = [XTERM, ("CAS_KEYS", keys.to_str().unwrap())];
    let start = |answers: [&str; 2]| {
        let terminal = Terminal::start(&home, &["key", "generate", "mine"], (100, 24), &variables);
        let mut typed = terminal.master.try_clone().unwrap();
        terminal.wait_for("the question", |screen| screen.contains("Password of the new key:"));
        typed.write_all(answers[0].as_bytes()).unwrap();
        if answers[0].ends_with('\n') {
            terminal.wait_for("the second question", |screen| screen.contains("The same again:"));
            typed.write_all(answers[1].as_bytes()).unwrap();
        }
        let (code, screen, bytes) = terminal.end();
        assert!(!bytes.contains("s3c"), "{bytes}");
        (code, screen)
    };
    let (code, screen) = start(["s3cret\n", "s3crets\n"]);
    assert!(code == Some(2) && screen.contains("the two passwords differ"), "{screen}");
    assert_eq!(start(["s3c\x03", ""]).0, Some(130));
    assert!(!keys.join("mine.key").exists());
    assert_eq!(start(["s3cret\n", "s3cret\n"]).0, Some(0));
    assert!(fs::read_to_string(keys.join("mine.key")).unwrap().contains("ENCRYPTED"));
}
