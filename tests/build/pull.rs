//! Pulls: what a registry has comes into the store, whole and once.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas_testing::registry::{FakeRegistry, Fault, Gate};
use serde_json::Value;

use crate::push::{Registry, ends, home, json};
use crate::{Home, text};

fn filled(home: &Home, address: &str) {
    for name in ["web", "one", "docs"] {
        ends(home, &["push", &format!(":{name}"), &format!("{address}/src/{name}:1.0.0")], 0, &[]);
    }
}

/// Requests for blobs that were made after the first `before`.
fn blobs(fake: &FakeRegistry, before: usize) -> Vec<String> {
    let lines = fake.requests().into_iter().skip(before).map(|request| request.line);
    lines.filter(|line| line.starts_with("GET ") && line.contains("/blobs/")).collect()
}

#[test]
fn what_is_pulled_has_its_name_and_goes_on_as_it_came() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Open));
    filled(&home, fake.address());
    let other = Home::new("[workspace]\n");
    let from = |name: &str| format!("{}/src/{name}:1.0.0", fake.address());
    let (web, one, docs) = (from("web"), from("one"), from("docs"));
    let before = fake.requests().len();
    let pulled = json(&other, &["pull", &web, &one, &docs, &one, "--all"]);
    let rows = pulled["results"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["name"].as_str().unwrap()).collect::<Vec<_>>(), [&web, &one, &docs]);
    assert_eq!(rows[0]["platforms"].as_array().map(Vec::len), Some(2), "{pulled}");
    assert_eq!(rows[2]["artifact_type"], "application/vnd.example.docs");
    let mut fetched = blobs(&fake, before);
    fetched.sort();
    let count = fetched.len();
    fetched.dedup();
    assert_eq!(fetched.len(), count, "nothing comes twice");
    for (row, path) in rows.iter().zip(["web", "one", "docs"]) {
        let layout = other.folder.path().join(path);
        let (name, place) = (row["name"].as_str().unwrap(), format!("oci:{}", layout.display()));
        // The store's names come before the registry.
        ends(&other, &["image", "export", name, &place], 0, &[]);
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], row["digest"]);
        let back = json(&other, &["push", name, &format!("{}/back/{path}:1", fake.address())]);
        assert_eq!(back["results"][0]["digest"], row["digest"]);
        assert_eq!(fake.get(&format!("back/{path}/manifests/1")), fake.get(&format!("src/{path}/manifests/1.0.0")));
    }
    // What is there stays there, and gets further names.
    let before = fake.requests().len();
    let named = json(&other, &["pull", &docs, "--name", "team/docs:2"]);
    assert_eq!(named["results"][0]["name"], "team/docs:2");
    ends(&other, &["pull", &web, &one, &docs, "--all"], 0, &[]);
    assert_eq!(blobs(&fake, before), [""; 0]);
    let listed = text(&other.cas(&["image", "ls"]).stdout);
    for name in [&*web, &one, &docs, "team/docs:2"] {
        assert!(listed.contains(name), "{listed}");
    }
    // One platform, and by digest.
    let arm = json(&other, &["pull", &web, "--platform", "linux/arm64", "--name", "web:arm"]);
    let digest = arm["results"][0]["digest"].as_str().unwrap();
    assert!(text(&fake.get("src/web/manifests/1.0.0").unwrap()).contains(digest), "{arm}");
    let by_digest = format!("{}/src/web@{digest}", fake.address());
    let pulled = json(&other, &["pull", &by_digest, "--name", "web:digest"]);
    assert_eq!(pulled["results"][0]["digest"], digest);
    assert_eq!(blobs(&fake, before), [""; 0]);
}

#[test]
fn what_cannot_be_pulled_is_told_and_has_no_name() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Open));
    filled(&home, fake.address());
    let from = |name: &str| format!("{}/src/{name}", fake.address());
    let (one, docs) = (from("one:1.0.0"), from("docs:1.0.0"));
    for (arguments, code, said) in [
        (&["pull", &*one, &docs, "--name", "a:1"][..], 2, "`--name` is for one"),
        (&["pull", &one, "--name", "A:1"], 2, "is not a name with a tag"),
        (&["pull", "oci:x"], 2, "hint: `cas image import oci:x`"),
        (&["pull", "one:1"], 2, "does not name its registry"),
        (&["pull", &from("one:nope")], 4, "does not exist in"),
        (&["pull", &docs, "--platform", "linux/arm64"], 3, "is an artifact of the type `application/vnd.example.docs`"),
        (&["pull", &one, "--platform", "linux/riscv64"], 2, "linux/riscv64"),
    ] {
        ends(&home, arguments, code, &[said]);
    }
    for (path, kind) in [("one", "layers"), ("docs", "layers")] {
        let other = Home::new("[workspace]\n");
        let name = from(&format!("{path}:1.0.0"));
        let manifest: Value =
            serde_json::from_slice(&fake.get(&format!("src/{path}/manifests/1.0.0")).unwrap()).unwrap();
        let layer = manifest[kind][0]["digest"].as_str().unwrap();
        let bytes = fake.get(&format!("src/{path}/blobs/{layer}")).unwrap();
        let other_bytes: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        for fault in [Fault::Body(other_bytes), Fault::Body(bytes[1..].to_vec()), Fault::Endless] {
            fake.fail(&format!("GET /v2/src/{path}/blobs/{layer}"), fault, 1);
            ends(&other, &["pull", &name], 3, &[layer]);
            assert_eq!(text(&other.cas(&["image", "ls"]).stdout), "");
        }
        ends(&other, &["pull", &name], 0, &[]);
        assert!(text(&other.cas(&["image", "ls"]).stdout).contains(&name));
    }
    // Of several those come that can.
    let other = Home::new("[workspace]\n");
    let output = other.cas(&["pull", &from("nope:1"), &docs]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(&docs) && text(&output.stderr).contains("nope:1"));
}

#[test]
fn a_killed_pull_goes_on_with_what_it_has() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Open));
    filled(&home, fake.address());
    let manifest: Value = serde_json::from_slice(&fake.get("src/one/manifests/1.0.0").unwrap()).unwrap();
    let [config, layer] = [&manifest["config"], &manifest["layers"][0]].map(|part| part["digest"].as_str().unwrap());
    let name = format!("{}/src/one:1.0.0", fake.address());
    for (signal, code) in [("KILL", None), ("INT", Some(130)), ("TERM", Some(143))] {
        let other = Home::new("[workspace]\n");
        let before = fake.requests().len();
        fake.fail(&format!("GET /v2/src/one/blobs/{layer}"), Fault::Hang, 1);
        let mut command = other.command(&["pull", &name]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !blobs(&fake, before).iter().any(|line| line.contains(layer)) {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", fake.requests());
            std::thread::sleep(Duration::from_millis(10));
        }
        let number = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &number]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        assert_eq!(text(&other.cas(&["image", "ls"]).stdout), "", "{signal}");
        let before = fake.requests().len();
        ends(&other, &["pull", &name], 0, &[]);
        let again = blobs(&fake, before);
        assert!(again.len() == 1 && again[0].contains(layer) && !again[0].contains(config), "{signal}: {again:?}");
    }
}

#[test]
fn what_skopeo_brings_to_a_real_registry_is_pulled() {
    let (home, folder) = (home(), tempfile::tempdir().unwrap());
    let Some((_registry, address)) = Registry::start(folder.path()) else {
        eprintln!("SKIPPED: docker-registry is missing");
        return;
    };
    let layout = folder.path().join("layout");
    ends(&home, &["image", "export", ":one", &format!("oci:{}:x", layout.display())], 0, &[]);
    // Docker's documents stay Docker's.
    for format in ["oci", "v2s2"] {
        let to = format!("docker://{address}/{format}:1.0.0");
        let copied = Command::new("skopeo")
            .args(["copy", "--dest-tls-verify=false", "--format", format, &format!("oci:{}:x", layout.display()), &to])
            .output();
        let Ok(copied) = copied else {
            eprintln!("SKIPPED: skopeo is missing");
            return;
        };
        assert!(copied.status.success(), "{}", text(&copied.stderr));
        let shown = Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &to]).output().unwrap();
        let digest = cas_digest::Digest::of(cas_digest::DigestFunction::Sha256, &shown.stdout).to_string();
        let pulled = json(&home, &["pull", &format!("{address}/{format}:1.0.0")]);
        assert_eq!(pulled["results"][0]["digest"], *digest, "{format}");
        let copied = json(&home, &["copy", &to, &format!("{address}/copy/{format}:1.0.0")]);
        assert_eq!(copied["results"][0]["digest"], *digest, "{format}");
    }
}
