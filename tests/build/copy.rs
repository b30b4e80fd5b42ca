//! Copies and tags: between registries of tests that fail as told, and real ones where they are installed.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner};
use serde_json::Value;

use crate::push::{Registry, ends, home, json};
use crate::{Home, text};

/// A registry that has `:web` for two platforms, `:one` and `:docs` under `src/…:1.0.0`.
fn filled(home: &Home, address: &str) {
    for name in ["web", "one", "docs"] {
        ends(home, &["push", &format!(":{name}"), &format!("{address}/src/{name}:1.0.0")], 0, &[]);
    }
}

#[test]
fn what_is_copied_is_what_was_pushed() {
    let (home, source, fake) = (home(), FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    filled(&home, source.address());
    // Nothing of the store is needed.
    let other = Home::new("[workspace]\n");
    for (name, blobs) in [("web", 3), ("one", 2), ("docs", 2)] {
        let from = format!("{}/src/{name}:1.0.0", source.address());
        let found = json(&other, &["copy", &from, &format!("{}/to/{name}:1.0.0", fake.address())]);
        let row = &found["results"][0];
        assert_eq!((row["tag"].as_str(), row["sent"]["blobs"].as_u64()), (Some("new"), Some(blobs)), "{found}");
        let of = |fake: &FakeRegistry, folder: &str| fake.get(&format!("{folder}/{name}/manifests/1.0.0"));
        assert_eq!(of(&fake, "to"), of(&source, "src"));
        let again = json(&other, &["copy", &from, &format!("{}/to/{name}:1.0.0", fake.address())]);
        assert_eq!((&again["results"][0]["tag"], &again["results"][0]["sent"]["blobs"]), (&"same".into(), &0.into()));
        assert_eq!(again["results"][0]["digest"], row["digest"]);
    }
    // Of one platform, by digest, and to a place on this machine.
    let web = format!("docker://{}/src/web:1.0.0", source.address());
    let one = json(&other, &["copy", &web, &format!("{}/arm:1", fake.address()), "--platform", "linux/arm64"]);
    let digest = one["results"][0]["digest"].as_str().unwrap().to_owned();
    assert!(text(&source.get("src/web/manifests/1.0.0").unwrap()).contains(&digest), "{one}");
    let by_digest = format!("{}/src/web@{digest}", source.address());
    let copied = json(&other, &["copy", &by_digest, &format!("{}/digest", fake.address())]);
    assert_eq!(copied["results"][0]["digest"], *digest);
    let layout = format!("oci:{}", other.folder.path().join("layout").display());
    let copied = json(&other, &["copy", &web, &layout, &format!("{}/both:1", fake.address())]);
    assert_eq!(copied["results"][0]["digest"], copied["results"][1]["digest"], "{copied}");
    let back = json(&other, &["copy", &layout, &format!("{}/back:1", fake.address())]);
    assert_eq!(back["results"][0]["digest"], copied["results"][0]["digest"], "{back}");
    assert_eq!(fake.get("back/manifests/1"), source.get("src/web/manifests/1.0.0"));
}

#[test]
fn tags_of_copies_are_kept_and_failures_are_told() {
    let (home, source, fake) = (home(), FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    filled(&home, source.address());
    let from = |rest: &str| format!("{}/src/{rest}", source.address());
    let to = |rest: &str| format!("{}/{rest}", fake.address());
    let (one, web) = (from("one:1.0.0"), from("web:1.0.0"));
    ends(&home, &["copy", &one, &to("a:1.0.0"), &to("a:stable")], 0, &["2 blobs", "sent"]);
    for (arguments, code, said) in [
        (&["copy", &web, &to("a:1.0.0")][..], 7, "and versions do not move"),
        (&["copy", &web, &to("a:1.0.0"), "--move-tag", "1.0.0"], 7, "and versions do not move"),
        (&["copy", &web, &to("a:stable")], 7, "hint: `--move-tag stable` moves it"),
        (&["copy", &web, &to("b:latest")], 7, "would get `latest` alone"),
        (&["copy", &web, &to("b:1"), "--move-tag", "stable"], 2, "no destination has that tag"),
        (&["copy", &web, &to("b:1"), "--platform", "linux/riscv64"], 2, "has nothing for `linux/riscv64`, only for"),
        (&["copy", &from("web:nope"), &to("b:1")], 4, "does not exist in"),
        (&["copy", ":web", &to("b:1")], 2, "hint: `cas push :web HOST/NAME:TAG`"),
        (&["copy", "web:1", &to("b:1")], 2, "does not name its registry"),
        (&["copy", &web], 2, "DESTINATIONS"),
        (&["copy", &web, "b:1"], 2, "hint: write `HOST/b:1`"),
        (&["copy", &web, &to("a:stable"), "--dry-run", "--move-tag", "stable"], 0, "would be sent"),
        (&["tag", &web, "1.0.0", "a:b"], 2, "`a:b` is not a tag"),
        (&["tag", "oci:x", "1"], 2, "is in no registry"),
        (&["tag", &one, "2.0.0", "--move-tag", "3"], 2, "no destination has that tag"),
        (&["tag", &to("a:nope"), "2.0.0"], 4, "does not exist in"),
    ] {
        ends(&home, arguments, code, &[said]);
    }
    assert_eq!(fake.get("a/manifests/stable"), source.get("src/one/manifests/1.0.0"));
    assert!(fake.get("b/manifests/1").is_none());
    ends(&home, &["copy", &web, &to("a:stable"), "--move-tag", "stable"], 0, &[]);
    assert_eq!(fake.get("a/manifests/stable"), source.get("src/web/manifests/1.0.0"));
    // Tags of what is there.
    let tagged = json(&home, &["tag", &to("a:stable"), "2.0.0", "latest", "2.0.0"]);
    assert_eq!(tagged["results"].as_array().map(Vec::len), Some(2), "{tagged}");
    assert_eq!(fake.get("a/manifests/latest"), source.get("src/web/manifests/1.0.0"));
    ends(&home, &["tag", &to("a:1.0.0"), "stable"], 7, &["hint: `--move-tag stable` moves it"]);
    ends(&home, &["tag", &to("a:1.0.0"), "stable", "--move-tag", "stable", "--dry-run"], 0, &[]);
    assert_eq!(fake.get("a/manifests/stable"), source.get("src/web/manifests/1.0.0"));
}

#[test]
fn a_source_that_lies_is_told_and_gives_nothing_a_tag() {
    let (home, source) = (home(), FakeRegistry::start(Gate::Open));
    filled(&home, source.address());
    let manifest: Value = serde_json::from_slice(&source.get("src/one/manifests/1.0.0").unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let bytes = source.get(&format!("src/one/blobs/{layer}")).unwrap();
    let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    for (fault, count, code, said) in [
        (Fault::Body(other), 1, 3, "its bytes are `sha256:"),
        (Fault::Body(bytes[1..].to_vec()), 1, 3, "it ends after"),
        (Fault::Endless, 1, 3, "it has more than"),
        (Fault::Cut(0), 99, 4, "could not be asked about"),
    ] {
        let fake = FakeRegistry::start(Gate::Open);
        source.fail(&format!("GET /v2/src/one/blobs/{layer}"), fault, count);
        let (from, to) = (format!("{}/src/one:1.0.0", source.address()), format!("{}/a:1.0.0", fake.address()));
        ends(&home, &["copy", &from, &to], code, &[said, layer, source.address()]);
        assert!(fake.get("a/manifests/1.0.0").is_none(), "{said}");
        assert!(fake.get(&format!("a/blobs/{layer}")).is_none(), "{said}");
        if count == 1 {
            ends(&home, &["copy", &from, &to], 0, &[]);
            assert!(fake.get("a/manifests/1.0.0").is_some(), "{said}");
        }
    }
}

#[test]
fn signatures_come_along_unless_nobody_wants_them() {
    let (home, source, fake) = (home(), FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    filled(&home, source.address());
    let subject = source.get("src/one/manifests/1.0.0").unwrap();
    let digest = |bytes: &[u8]| cas_digest::Digest::of(cas_digest::DigestFunction::Sha256, bytes).to_string();
    source.put(&format!("src/one/blobs/{}", digest(b"{}")), "application/octet-stream", b"{}");
    let signature = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2 },
        "layers": [],
        "subject": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(&subject), "size": subject.len() },
    });
    let signature = signature.to_string().into_bytes();
    let path = format!("manifests/{}", digest(&signature));
    source.put(&format!("src/one/{path}"), "application/vnd.oci.image.manifest.v1+json", &signature);
    source.manner(Manner { lists_referrers: true, ..Manner::default() });
    let from = format!("{}/src/one:1.0.0", source.address());
    let to = |name: &str| format!("{}/{name}:1.0.0", fake.address());
    ends(&home, &["copy", &from, &to("a"), "--referrers=false"], 0, &[]);
    assert!(fake.get(&format!("a/{path}")).is_none());
    ends(&home, &["copy", &from, &to("a"), "--dry-run"], 0, &["1 signature or other referrer would come along"]);
    ends(&home, &["copy", &from, &to("a")], 0, &["1 signature or other referrer came along"]);
    assert_eq!(fake.get(&format!("a/{path}")), Some(signature.clone()));
    // By way of a file or a folder, and without the store that wrote it.
    let place = |name: &str| home.folder.path().join(name).display().to_string();
    for (number, there) in
        [format!("oci:{}:v1", place("one")), format!("oci-archive:{}:v1", place("one.tar"))].iter().enumerate()
    {
        ends(&home, &["copy", &from, there], 0, &["1 signature or other referrer came along"]);
        let (other, name) = (crate::copy::home(), format!("file-{number}"));
        // The only image with a tag is meant where nobody says which.
        for there in [there, there.strip_suffix(":v1").unwrap()] {
            ends(
                &other,
                &["copy", there, &to(&name), "--dry-run"],
                0,
                &["1 signature or other referrer would come along"],
            );
            assert!(fake.get(&format!("{name}/manifests/1.0.0")).is_none());
        }
        ends(&other, &["copy", there, &to(&name)], 0, &["1 signature or other referrer came along"]);
        assert_eq!(fake.get(&format!("{name}/{path}")), Some(signature.clone()));
        assert!(fake.get(&format!("{name}/manifests/{}", digest(&subject).replace(':', "-"))).is_some());
        ends(&other, &["copy", there, &to(&format!("{name}-alone")), "--referrers=false"], 0, &[]);
        assert!(fake.get(&format!("{name}-alone/{path}")).is_none());
    }
    let (folder, said) = (format!("dir:{}", place("dir")), "signatures and other referrers are not in `dir:");
    ends(&home, &["copy", &from, &folder], 0, &[said]);
    // One that lacks a part is told, one that is not there is about nothing, and nothing else is lost by that.
    let lacks = format!("`{}` is listed as referring to it, and is not there or cannot be read", digest(&signature));
    for (name, gone, said) in [("part", digest(b"{}"), vec![&*lacks]), ("gone", digest(&signature), Vec::new())] {
        fs::remove_file(home.folder.path().join("one/blobs/sha256").join(&gone[7..])).unwrap();
        let other = crate::copy::home();
        ends(&other, &["copy", &format!("oci:{}", place("one")), &to(name)], 0, &said);
        assert!(
            fake.get(&format!("{name}/manifests/1.0.0")).is_some() && fake.get(&format!("{name}/{path}")).is_none()
        );
    }
    // The tag that lists it where the registry does not.
    assert!(fake.get(&format!("a/manifests/{}", digest(&subject).replace(':', "-"))).is_some());
    source.fail("/referrers/", Fault::Status(403, Vec::new()), 1);
    ends(
        &home,
        &["copy", &from, &to("b")],
        4,
        &["nothing tells what refers to", "hint: no tag was set; `--referrers=false`"],
    );
    assert!(fake.get("b/manifests/1.0.0").is_none());
}

/// Two registries with a password each, in one file of logins.
#[test]
fn secrets_of_one_host_do_not_reach_the_other() {
    // `me:s3cret`, `you:0ther`
    let (mine, yours) = ("bWU6czNjcmV0", "eW91OjB0aGVy");
    let gate = |login: &str| Gate::Basic(format!("Basic {login}"));
    let (source, fake) = (FakeRegistry::start(gate(mine)), FakeRegistry::start(gate(yours)));
    let home = home();
    let file = home.folder.path().join("auth.json");
    let entry = |fake: &FakeRegistry, login: &str| format!(r#""{}": {{"auth": "{login}"}}"#, fake.address());
    fs::write(&file, format!(r#"{{"auths": {{{}, {}}}}}"#, entry(&source, mine), entry(&fake, yours))).unwrap();
    let from = format!("{}/src:1.0.0", source.address());
    let to = format!("{}/a:1.0.0", fake.address());
    for arguments in [&["push", ":web", &from][..], &["copy", &from, &to], &["tag", &to, "stable"]] {
        let output = home.command(arguments).env("REGISTRY_AUTH_FILE", &file).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        for secret in ["s3cret", "0ther", mine, yours] {
            assert!(!said.contains(secret), "{said}");
        }
    }
    for (fake, own) in [(&source, mine), (&fake, yours)] {
        let sent: Vec<String> =
            fake.requests().iter().filter_map(|request| request.header("authorization").map(str::to_owned)).collect();
        assert!(!sent.is_empty() && sent.iter().all(|value| *value == format!("Basic {own}")), "{sent:?}");
    }
    // What one of them leads elsewhere is asked for there without any.
    let manifest: Value = serde_json::from_slice(&source.get("src/manifests/1.0.0").unwrap()).unwrap();
    let elsewhere = FakeRegistry::start(Gate::Open);
    let manifest = manifest["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let manifest: Value = serde_json::from_slice(&source.get(&format!("src/manifests/{manifest}")).unwrap()).unwrap();
    let path = format!("src/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    elsewhere.put(&path, "application/octet-stream", &source.get(&path).unwrap());
    let location = format!("Location: http://{}/v2/{path}", elsewhere.address());
    source.fail(&format!("GET /v2/{path}"), Fault::Status(307, vec![location]), 1);
    let again = format!("{}/b:1.0.0", fake.address());
    let output = home.command(&["copy", &from, &again]).env("REGISTRY_AUTH_FILE", &file).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let requests = elsewhere.requests();
    assert_eq!((requests.len(), requests[0].header("authorization")), (1, None));
}

#[test]
fn a_killed_copy_goes_on_and_a_stopped_one_says_so() {
    let (home, source) = (home(), FakeRegistry::start(Gate::Open));
    filled(&home, source.address());
    let index = text(&source.get("src/web/manifests/1.0.0").unwrap());
    for (signal, code) in [("KILL", None), ("INT", Some(130)), ("TERM", Some(143))] {
        let fake = FakeRegistry::start(Gate::Open);
        // All blobs but the last are there, which does not come.
        let documents: Value = serde_json::from_str(&index).unwrap();
        let last = documents["manifests"][1]["digest"].as_str().unwrap();
        let last: Value = serde_json::from_slice(&source.get(&format!("src/web/manifests/{last}")).unwrap()).unwrap();
        let last = last["config"]["digest"].as_str().unwrap();
        let source = FakeRegistry::start(Gate::Open);
        filled(&home, source.address());
        let asked = format!("GET /v2/src/web/blobs/{last}");
        source.fail(&asked, Fault::Hang, 1);
        let (from, to) = (format!("{}/src/web:1.0.0", source.address()), format!("{}/a:1.0.0", fake.address()));
        let mut command = home.command(&["copy", &from, &to]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        let kept = || {
            let asked = source.requests().into_iter().map(|request| request.line);
            let names = asked.filter_map(|line| line.strip_prefix("GET /v2/src/web/blobs/").map(str::to_owned));
            names.filter(|name| fake.get(&format!("a/blobs/{name}")).is_some()).count()
        };
        while kept() < 2 || !source.requests().iter().any(|request| request.line == asked) {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", fake.requests());
            std::thread::sleep(Duration::from_millis(10));
        }
        let number = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &number]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), code, "{signal}");
        assert!(fake.get("a/manifests/1.0.0").is_none(), "{signal}");
        let done = json(&home, &["copy", &from, &to]);
        let row = &done["results"][0];
        let known = row["known"]["blobs"].as_u64().unwrap();
        assert!(row["tag"] == "new" && known + row["sent"]["blobs"].as_u64().unwrap() == 3 && known == 2, "{done}");
        assert_eq!(fake.get("a/manifests/1.0.0").map(|bytes| text(&bytes)).as_ref(), Some(&index));
    }
}

#[test]
fn artifacts_go_to_files_and_come_back() {
    let (home, source, fake) = (home(), FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    filled(&home, source.address());
    let from = format!("{}/src/docs:1.0.0", source.address());
    for (name, there) in
        [("a", "oci:FOLDER/layout:v1"), ("b", "oci-archive:FOLDER/file.tar:v1"), ("c", "dir:FOLDER/dir")]
    {
        let there = there.replace("FOLDER", &home.folder.path().display().to_string());
        ends(&home, &["copy", &from, &there], 0, &[]);
        let (other, to) = (crate::copy::home(), format!("{}/{name}:1.0.0", fake.address()));
        ends(&other, &["copy", &there, &to], 0, &[]);
        assert_eq!(fake.get(&format!("{name}/manifests/1.0.0")), source.get("src/docs/manifests/1.0.0"), "{there}");
        ends(
            &other,
            &["copy", &there, &to, "--platform", "linux/amd64"],
            3,
            &["it is an artifact", "not for `linux/amd64`"],
        );
    }
}

#[test]
fn real_registries_take_copies_and_skopeo_reads_them_back() {
    let home = home();
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (Some((_one, from)), Some((_other, to))) =
        (Registry::start(folders[0].path()), Registry::start(folders[1].path()))
    else {
        eprintln!("SKIPPED: docker-registry is missing");
        return;
    };
    // More than one piece of the body.
    let noise: Vec<u8> = (0..400_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(home.workspace().join("site/noise"), noise).unwrap();
    filled(&home, &from);
    for (name, blobs) in [("web", 4_u64), ("one", 3), ("docs", 2)] {
        let source = format!("{from}/src/{name}:1.0.0");
        let (same, other) = (format!("{from}/same/{name}:1.0.0"), format!("{to}/a/{name}:1.0.0"));
        let found = json(&home, &["copy", &source, &same, &other]);
        let rows = found["results"].as_array().unwrap();
        assert_eq!(rows[0]["mounted"]["blobs"], blobs, "{found}");
        // The layer of both images is taken from where the first one brought it.
        let counts = ["sent", "mounted"].map(|word| rows[1][word]["blobs"].as_u64().unwrap());
        assert_eq!(counts, if name == "one" { [blobs - 1, 1] } else { [blobs, 0] }, "{found}");
        ends(&home, &["tag", &other, "stable", "latest"], 0, &[]);
        if Command::new("skopeo").arg("--version").output().is_err() {
            eprintln!("SKIPPED: skopeo is missing");
            continue;
        }
        let copy = folders[1].path().join(name);
        let copied = crate::push::skopeo(folders[1].path())
            .args(["copy", "--all", "--src-tls-verify=false", &format!("docker://{to}/a/{name}:latest")])
            .arg(format!("oci:{}:x", copy.display()))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", text(&copied.stderr));
        let index: Value = serde_json::from_slice(&fs::read(copy.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], rows[0]["digest"], "{name}");
    }
}

/// The specification has 404 for it, and registries have more.
#[test]
fn registries_without_lists_of_referrers_are_copied_from_and_to() {
    let home = home();
    for status in [400, 401, 404, 405] {
        let (source, fake) = (FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
        filled(&home, source.address());
        for registry in [&source, &fake] {
            registry.manner(Manner { referrers_status: Some(status), ..Manner::default() });
        }
        let (from, to) = (format!("{}/src/web:1.0.0", source.address()), format!("{}/web:1.0.0", fake.address()));
        ends(&home, &["copy", &from, &to], 0, &[]);
        assert_eq!(fake.get("web/manifests/1.0.0"), source.get("src/web/manifests/1.0.0"), "{status}");
    }
}
