//! A `policy.json` that demands a signature, asked by the library that podman, skopeo and CRI-O ask; `cargo xtask test --peers signing`
//! builds it, since Debian's podman and skopeo are built without signatures of this kind.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::registries::{Started, start_named};
use crate::{Home, run};

const MANIFEST: &str =
    "[workspace]\n[image.one]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n";

struct Judge<'a> {
    program: PathBuf,
    home: &'a Home,
    address: &'a str,
}

impl Judge<'_> {
    /// Whether an image may run where this key must have signed it; what is said where it may not.
    fn takes(&self, key: &Path, image: &str, identity: &serde_json::Value) -> Result<(), String> {
        let registries = self.home.path("registries.d");
        std::fs::create_dir_all(&registries).unwrap();
        let text = format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", self.address);
        std::fs::write(registries.join("a.yaml"), text).unwrap();
        let demand = json!([{ "type": "sigstoreSigned", "keyPath": key, "signedIdentity": identity }]);
        let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": { self.address: demand } } });
        let file = self.home.path("policy.json");
        std::fs::write(&file, policy.to_string()).unwrap();
        let output = Command::new(&self.program).arg(file).arg(registries).arg(image).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(said),
            _ => panic!("{image} could not be asked for: {said}"),
        }
    }
}

#[test]
#[ignore = "cargo xtask test --peers signing"]
fn a_policy_of_podman_takes_what_is_signed_and_nothing_else() {
    let program = std::env::var_os("CAS_POLICY_JUDGE").map(PathBuf::from).expect("CAS_POLICY_JUDGE is not set");
    let home = Home::new(MANIFEST);
    let Started { address, _server } =
        start_named(&home, "docker-registry").expect("docker-registry is missing: run `cargo xtask peers`");
    let site = home.workspace().join("site");
    std::fs::create_dir(&site).unwrap();
    let cas = |arguments: &[&str]| run(home.cas(arguments).env("CAS_KEYS", home.path("keys")));
    let push = |name: &str, content: &str| {
        std::fs::write(site.join("index.html"), content).unwrap();
        let image = format!("{address}/{name}:1.0.0");
        cas(&["push", ":one", &image]);
        image
    };
    let judge = Judge { program, home: &home, address: &address };
    let exact = json!({ "type": "matchRepoDigestOrExact" });
    let repository = json!({ "type": "matchRepository" });
    for kind in ["ed25519", "ecdsa-p256"] {
        for name in ["mine", "other"] {
            cas(&["key", "generate", "--plain", "--type", kind, &format!("{name}-{kind}")]);
        }
        let key = |name: &str| home.path(&format!("keys/{name}-{kind}.pub"));
        let sign = |image: &str| cas(&["sign", image, "--key", &format!("mine-{kind}")]);
        let signed = push(&format!("signed/{kind}"), "one");
        sign(&signed);
        let takes = |key_name: &str, image: &str| judge.takes(&key(key_name), image, &repository);
        assert_eq!(takes("mine", &signed), Ok(()), "{kind}");
        // A repository is signed for, and no tag: who demands that a tag was signed is not content.
        assert!(judge.takes(&key("mine"), &signed, &exact).is_err(), "{kind}");
        let refused = |key_name: &str, image: &str, reason: &str| {
            let said = takes(key_name, image).expect_err(reason);
            assert!(said.contains(reason), "{image}: {said}");
        };
        refused("other", &signed, "signature verification failed");
        refused("mine", &push(&format!("unsigned/{kind}"), "two"), "no signature exists");
        // The same bytes under another name, with the signature for the first one.
        let elsewhere = format!("{address}/elsewhere/{kind}:1.0.0");
        cas(&["copy", &signed, &elsewhere]);
        move_signature(&signed, &elsewhere);
        refused("mine", &elsewhere, "is not accepted");
        // Another image with the signature of the first one.
        let tampered = push(&format!("tampered/{kind}"), "three");
        move_signature(&signed, &tampered);
        refused("mine", &tampered, "does not match");
    }
}

/// Gives an image the signature, in the older form, that another one has.
fn move_signature(from: &str, to: &str) {
    let crane = std::env::var_os("CAS_CRANE").expect("CAS_CRANE is not set");
    let tag = |image: &str| {
        let digest = run(Command::new(&crane).args(["digest", image])).stdout;
        let digest = String::from_utf8(digest).unwrap();
        format!("{}:{}.sig", image.rsplit_once(':').unwrap().0, digest.trim().replace(':', "-"))
    };
    run(Command::new(&crane).args(["copy", &tag(from), &tag(to)]));
}
