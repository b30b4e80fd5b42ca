//! Publications: to registries of tests that fail as told, killed and resumed; gates; and inputs that come back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner};
use serde_json::Value;

use crate::npm::workspace;
use crate::push::Registry;
use crate::{Home, text};

const IMAGES: &str = "[workspace]\n\
    [image.web]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n\
    [artifact.docs]\ntype = \"application/vnd.example.docs\"\nfiles = [{ path = \"site\" }]\n";
const TOKEN: &str = "s3cret-of-the-scanner";
const PASSWORD: &str = "s3cret-of-the-registry";

/// A workspace with `publication` as `[publish.release]`; `ONE` and `TWO` are the registries.
fn home(one: &FakeRegistry, two: &FakeRegistry, publication: &str) -> Home {
    let publication = publication.replace("ONE", one.address()).replace("TWO", two.address());
    let home = Home::new(&format!("{IMAGES}[publish.release]\n{publication}"));
    home.write("site/index.html", "<p>one</p>\n");
    home
}

fn registry() -> FakeRegistry {
    let fake = FakeRegistry::start(Gate::Open);
    fake.manner(Manner { lists_referrers: true, ..Manner::default() });
    fake
}

fn command(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command(arguments);
    command.env("CAS_KEYS", home.folder.path().join("keys")).env("TOKEN", TOKEN);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command
}

/// What is printed; secrets never are.
fn told(output: &Output) -> String {
    let said = text(&output.stdout) + &text(&output.stderr);
    for secret in [TOKEN, PASSWORD, "PRIVATE KEY"] {
        assert!(!said.contains(secret), "{said}");
    }
    said
}

#[track_caller]
fn ends(home: &Home, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let output = command(home, arguments).output().unwrap();
    let said = told(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {word}: {said}");
    }
    said
}

/// Requests that change something.
fn writes(fake: &FakeRegistry) -> Vec<String> {
    let lines = fake.requests().into_iter().map(|request| request.line);
    lines.filter(|line| !line.starts_with("HEAD ") && !line.starts_with("GET ")).collect()
}

fn tag(fake: &FakeRegistry, name: &str) -> Option<Vec<u8>> {
    let (path, tag) = name.split_once(':').unwrap();
    fake.get(&format!("{path}/manifests/{tag}"))
}

#[test]
fn several_targets_go_to_several_registries_by_digest_first() {
    let (one, two) = (registry(), registry());
    let home = home(
        &one,
        &two,
        "of = [\":web\", \":docs\"]\nto = [\"ONE/a/{name}:1.4.0\", \"TWO/{name}:1.4.0\"]\nmoving = [\"stable\"]\nsign = \"mine\"\nattest = [\"provenance\"]\n",
    );
    ends(&home, &["key", "generate", "mine", "--plain"], 0, &[]);
    // A dry run tells what would be, and sends nothing.
    let said = ends(&home, &["publish", "--dry-run"], 0, &["a/web:1.4.0 new", "docs:stable new", "would be sent"]);
    assert!(!said.contains("0 blobs (0 bytes) would"), "{said}");
    assert_eq!((writes(&one), writes(&two)), (Vec::new(), Vec::new()));
    ends(&home, &["publish", "release"], 0, &["a/web:1.4.0 new", "docs:stable new"]);
    for (fake, names) in [(&one, ["a/web", "a/docs"]), (&two, ["web", "docs"])] {
        let lines = writes(fake);
        let is_tag = |line: &String| line.ends_with("manifests/1.4.0") || line.ends_with("manifests/stable");
        let first = lines.iter().position(is_tag).unwrap();
        assert_eq!(lines.iter().filter(|line| is_tag(line)).count(), 4, "{lines:?}");
        assert!(lines[first..].iter().all(is_tag), "tags are last: {lines:?}");
        for name in names {
            assert_eq!(tag(fake, &format!("{name}:1.4.0")), tag(fake, &format!("{name}:stable")));
            let image = format!("{}/{name}:1.4.0", fake.address());
            ends(&home, &["verify", &image, "--key", "mine"], 0, &["is signed by mine", ".sig, layer 1"]);
            ends(&home, &["verify", &image, "--key", "mine", "--inputs"], 0, &["0 of them not in the store"]);
        }
    }
    // The same again changes nothing, and sends nothing.
    let (before, of_two) = (writes(&one).len(), writes(&two).len());
    let said = ends(&home, &["publish", ":release"], 0, &["a/web:1.4.0 same", "0 blobs (0 bytes) sent"]);
    assert!(!said.contains(" new"), "{said}");
    assert_eq!((&writes(&one)[before..], &writes(&two)[of_two..]), (&[][..], &[][..]));
    // What is moving moves, a version does not, and nothing at all happens then.
    home.write("site/index.html", "<p>two</p>\n");
    ends(&home, &["publish"], 7, &["and versions do not move"]);
    assert_eq!(writes(&one).len(), before);
    let manifest = home.read("cas.toml");
    home.write("cas.toml", &manifest.replace("1.4.0", "1.4.1"));
    ends(&home, &["publish"], 0, &["web:1.4.1 new", "web:stable moved"]);
    assert_ne!(tag(&one, "a/web:stable"), tag(&one, "a/web:1.4.0"));
}

#[test]
fn a_registry_that_fails_stops_the_tags_everywhere() {
    let publication = "of = \":web\"\nto = [\"ONE/a:1.0.0\", \"TWO/b:1.0.0\"]\nsign = \"mine\"\n";
    // In a blob, in the manifest, and in the signature.
    for what in ["POST /v2/b/blobs/uploads", "PUT /v2/b/manifests/sha256:", "PUT /v2/b/manifests/sha256-"] {
        let (one, two) = (registry(), registry());
        let home = home(&one, &two, publication);
        ends(&home, &["key", "generate", "mine", "--plain"], 0, &[]);
        two.fail(what, Fault::Status(400, Vec::new()), 1);
        ends(&home, &["publish"], 4, &["1 of 2 registries have not all of it", "hint: do it again"]);
        assert!(tag(&one, "a:1.0.0").is_none() && tag(&two, "b:1.0.0").is_none(), "{what}");
        ends(&home, &["publish"], 0, &["note: the last run broke off when it had set 0 of 2 tags", "a:1.0.0 new"]);
        // What is there is not sent again.
        let mut sent: Vec<String> =
            writes(&one).into_iter().filter_map(|line| Some(line.split_once("digest=")?.1.to_owned())).collect();
        let count = sent.len();
        sent.sort();
        sent.dedup();
        assert!(count > 2 && sent.len() == count, "{what}: {sent:?}");
        assert!(tag(&one, "a:1.0.0").is_some() && tag(&two, "b:1.0.0").is_some(), "{what}");
        ends(&home, &["verify", &format!("{}/b:1.0.0", two.address()), "--key", "mine"], 0, &[]);
    }
    // While tags are set: the other registry has its own, and the next run tells how far the last one was.
    let (one, two) = (registry(), registry());
    let home = home(&one, &two, publication);
    ends(&home, &["key", "generate", "mine", "--plain"], 0, &[]);
    two.fail("PUT /v2/b/manifests/1.0.0", Fault::Status(400, Vec::new()), 1);
    ends(&home, &["publish"], 4, &["1 of 2 registries have not all tags"]);
    assert!(tag(&one, "a:1.0.0").is_some() && tag(&two, "b:1.0.0").is_none());
    // Something else in between is warned of, and refused where the version is.
    home.write("site/index.html", "<p>two</p>\n");
    ends(&home, &["publish"], 7, &["warning: the last run was for something else", "/a:1.0.0`", "do not move"]);
    home.write("site/index.html", "<p>one</p>\n");
    ends(&home, &["publish"], 0, &["had set 1 of 2 tags", "a:1.0.0 same", "b:1.0.0 new"]);
    let said = ends(&home, &["publish"], 0, &["a:1.0.0 same", "b:1.0.0 same"]);
    assert!(!said.contains("broke off"), "{said}");
}

#[test]
fn what_was_killed_goes_on() {
    for what in ["POST /v2/b/blobs/uploads", "PUT /v2/b/manifests/sha256:", "PUT /v2/b/manifests/1.0.0"] {
        let (one, two) = (registry(), registry());
        let home = home(&one, &two, "of = \":web\"\nto = [\"ONE/{name}:1.0.0\", \"TWO/b:1.0.0\"]\n");
        two.fail(what, Fault::Hang, 1);
        let mut child = command(&home, &["publish"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while !two.requests().iter().any(|request| request.line.starts_with(what)) {
            assert!(start.elapsed() < Duration::from_secs(120), "{what} does not come");
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(tag(&two, "b:1.0.0").is_none());
        ends(&home, &["publish"], 0, &["note: the last run broke off", "b:1.0.0 new"]);
        assert_eq!(tag(&one, "web:1.0.0"), tag(&two, "b:1.0.0"), "{what}");
    }
}

/// A program of the workspace.
fn script(home: &Home, name: &str, lines: &str) {
    home.write(name, &format!("#!/bin/sh\n{lines}\n"));
    fs::set_permissions(home.workspace().join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn gates_come_before_the_first_byte() {
    let (one, two) = (registry(), registry());
    let publication = "of = [\":web\", \":docs\"]\nto = [\"ONE/{name}:1.0.0\"]\ninputs = true\n\
        [publish.release.gates.scan]\nrun = [\"./scan.sh\", \"{layout}\", \"{digest}\", \"{target}\"]\ntimeout = \"TIME\"\nsecrets = [\"TOKEN\"]\n";
    let home = home(&one, &two, publication);
    let manifest = home.read("cas.toml");
    let with = |from: &str, to: &str| home.write("cas.toml", &manifest.replace(from, to).replace("TIME", "1m"));
    with("", "");
    ends(&home, &["publish"], 7, &["the gate `scan` does not let `//:web` pass: `./scan.sh` cannot be run"]);
    // What it prints is shown, but for secrets; a variable that it does not name, it does not have.
    script(&home, "scan.sh", "echo found in $3 with $TOKEN and $CAS_KEYS.\necho s3cret-of-%74he-scanner >&2\nexit 3");
    let said =
        ends(&home, &["publish"], 7, &["does not let `//:web` pass: exit status: 3", "found in //:web with *** and ."]);
    assert!(!said.contains("%74he"), "{said}");
    with("./scan.sh\"", "no-such-scanner\"");
    ends(&home, &["publish"], 7, &["`no-such-scanner` cannot be run"]);
    with("[\"TOKEN\"]", "[\"TOKEN\", \"NOT_SET\"]");
    ends(&home, &["publish"], 2, &["the gate `scan` needs the secret `NOT_SET`"]);
    // What it started ends with it.
    home.write("cas.toml", &manifest.replace("TIME", "1s"));
    script(&home, "scan.sh", "sleep 600 & echo $! > pid\nwait");
    ends(&home, &["publish"], 7, &["it did not end in 1 seconds"]);
    let left = home.read("pid");
    let start = Instant::now();
    while fs::read_to_string(format!("/proc/{}/stat", left.trim())).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(start.elapsed() < Duration::from_secs(30), "{left} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The second target is refused as the first one is.
    with("", "");
    script(&home, "scan.sh", "test \"$3\" = //:web");
    let said = ends(&home, &["publish"], 7, &["lets `//:web` pass", "does not let `//:docs` pass"]);
    assert!(!said.contains("of inputs in"), "what is refused is not packed: {said}");
    assert_eq!(writes(&one), Vec::<String>::new());
    // A dry run runs none.
    ends(&home, &["publish", "--dry-run"], 0, &["web:1.0.0 new"]);
    // It sees the image itself.
    script(&home, "scan.sh", "test -f \"$1/blobs/sha256/${2#sha256:}\" && grep -q \"$2\" \"$1/index.json\"");
    ends(&home, &["publish"], 0, &["lets `//:docs` pass", "docs:1.0.0 new", "//:docs: ", "of inputs in"]);
}

#[test]
fn tags_and_names_are_checked_before_anything_is_asked() {
    let (one, two) = (registry(), registry());
    for (publication, code, words) in [
        ("of = \":web\"\nto = [\"ONE/a\"]\nmoving = [\"latest\"]\n", 2, "would get `latest` alone"),
        ("of = \":web\"\nto = [\"ONE/a:latest\"]\n", 2, "hint: name a version, and `latest` in `moving`"),
        ("of = \":web\"\nto = [\"ONE/a:stable\"]\n", 2, "`stable` in `moving`"),
        ("of = \":web\"\nto = [\"ONE/a:1.0.0\"]\nmoving = [\"2.0.0\"]\n", 2, "`2.0.0` cannot move"),
        ("of = \":web\"\nto = [\"ONE/a:1.0.0\"]\nmoving = [\"a b\"]\n", 2, "`a b` is not a tag"),
        ("of = \":web\"\nto = [\"ONE/a:1.0.0\", \"npm:\"]\n", 2, "those come later"),
        ("of = \":web\"\nto = [\"ONE/a:{verson}\"]\n", 2, "stands for nothing"),
        ("of = [\":web\", \":docs\"]\nto = [\"ONE/a:1.0.0\"]\n", 2, "a:1.0.0` would be `//:web` and `//:docs`"),
        ("of = \":site\"\nto = [\"ONE/a:1.0.0\"]\n", 2, "there is no target `//:site`"),
        ("of = \":web\"\nto = [\"ONE/a:1.0.0\"]\nsign = \"nobody\"\n", 2, "there is no key `nobody`"),
    ] {
        let home = home(&one, &two, publication);
        ends(&home, &["publish"], code, &[words]);
    }
    let home = home(&one, &two, "of = \":web\"\nto = [\"ONE/a:1.0.0\"]\n");
    ends(&home, &["publish", "other"], 2, &["there is no publication `//:other`", "there are `//:release`"]);
    ends(&home, &["publish", "--offline"], 2, &["a publication needs the network"]);
    assert_eq!(one.requests().len(), 0);
    let found = command(&home, &["--format", "json", "publish"]).output().unwrap();
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((&found["results"][0]["name"], &found["results"][0]["tag"]), (&"//:web".into(), &"new".into()));
}

#[test]
fn passwords_are_tried_before_gates_and_shown_nowhere() {
    let encoded = "bWU6czNjcmV0LW9mLXRoZS1yZWdpc3RyeQ==";
    let (one, two) = (FakeRegistry::start(Gate::Basic(format!("Basic {encoded}"))), registry());
    let home = home(
        &one,
        &two,
        "of = \":web\"\nto = [\"TWO/a:1.0.0\", \"ONE/a:1.0.0\"]\ngates.scan = { run = [\"./scan.sh\"] }\n",
    );
    script(&home, "scan.sh", "echo ran; cat auth.json; exit 1");
    let said = ends(&home, &["publish"], 4, &["does not let us"]);
    assert!(!said.contains("ran") && writes(&two).is_empty(), "{said}");
    let file = home.workspace().join("auth.json");
    fs::write(&file, format!(r#"{{"auths": {{"{}": {{"auth": "{encoded}"}}}}}}"#, one.address())).unwrap();
    let output = command(&home, &["publish"]).env("REGISTRY_AUTH_FILE", &file).output().unwrap();
    let said = told(&output);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert!(said.contains("ran") && said.contains("***") && !said.contains("LW9mLXRoZS1yZWdpc3Ry"), "{said}");
    assert!(writes(&one).is_empty() && writes(&two).is_empty());
}

#[test]
fn what_a_rebuild_needs_comes_back() {
    let Some((home, _)) = workspace() else { return };
    let manifest = home.read("apps/web/cas.toml").replace(
        "[image.image]",
        "[image.listed]\ncompression = \"zstd\"\nlayers = [{ from = \":look\", path = \"list\", to = \"/srv\" }, { files = [\"site/**\"], to = \"/site\" }]\n[image.image]",
    );
    // The list is not there while it is made, or it would be in itself now and then.
    let manifest =
        manifest.replace("find . | sort > apps/web/list", "find . | sort > /tmp/list; cp /tmp/list apps/web/list");
    assert!(manifest.contains("/tmp/list"), "{manifest}");
    home.write("apps/web/cas.toml", &manifest);
    home.write("apps/web/site/page.html", "<p>page</p>\n");
    let folder = tempfile::tempdir().unwrap();
    let (_registry, address) = match Registry::start(folder.path()) {
        Some((registry, address)) => (Some(registry), address),
        None => {
            eprintln!("docker-registry is missing: a registry of tests takes its place");
            let fake = Box::leak(Box::new(registry()));
            (None, fake.address().to_owned())
        }
    };
    let npm = format!("file://{}/registry", home.folder.path().display());
    let run = |store: &str, arguments: &[&str]| {
        let mut command = command(&home, arguments);
        command.env("npm_config_registry", &npm).env("CAS_HOME", home.folder.path().join(store));
        let output = command.output().unwrap();
        let said = told(&output);
        (output.status.code(), said)
    };
    let image = format!("{address}/listed:1.0.0");
    assert_eq!(run("store", &["key", "generate", "mine", "--plain"]).0, Some(0));
    let (code, pushed) = run("store", &["push", "//apps/web:listed", &image, "--with-inputs"]);
    assert!(code == Some(0) && pushed.contains("of inputs in"), "{pushed}");
    let (_, predicate) = run("store", &["provenance", "//apps/web:listed", "--predicate"]);
    let file = home.folder.path().join("predicate.json");
    fs::write(&file, predicate.lines().next().unwrap()).unwrap();
    let kind = "https://slsa.dev/provenance/v1";
    let (code, said) =
        run("store", &["attest", &image, "--predicate", file.to_str().unwrap(), "--type", kind, "--key", "mine"]);
    assert_eq!(code, Some(0), "{said}");
    // The same again sends nothing.
    let (code, again) = run("store", &["push", "//apps/web:listed", &image, "--with-inputs"]);
    assert!(code == Some(0) && again.contains("0 blobs (0 bytes) sent"), "{again}");
    let digest = pushed[pushed.find("sha256:").unwrap()..][..71].to_owned();

    // Elsewhere nothing of it is there, and the origins are gone.
    let (code, said) = run("elsewhere", &["verify", &image, "--key", "mine", "--inputs"]);
    assert!(code == Some(1) && said.contains("is not in the store"), "{said}");
    fs::rename(home.folder.path().join("registry"), home.folder.path().join("gone")).unwrap();
    let (code, said) = run("elsewhere", &["build", "//apps/web:listed", "--offline", "--locked"]);
    assert_ne!(code, Some(0), "{said}");
    let (code, said) = run("elsewhere", &["pull", &image, "--with-inputs"]);
    assert!(code == Some(0) && said.contains("blobs of inputs"), "{said}");
    let (code, said) = run("elsewhere", &["verify", &image, "--key", "mine", "--inputs"]);
    assert!(code == Some(0) && said.contains("0 of them not in the store"), "{said}");
    let (code, said) = run("elsewhere", &["build", "//apps/web:listed", "--offline", "--locked"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&digest), "{digest}: {said}");
    // An image without inputs has none to bring.
    let bare = format!("{address}/bare:1.0.0");
    assert_eq!(run("store", &["push", "//apps/web:listed", &bare]).0, Some(0));
    let (code, said) = run("third", &["pull", &bare, "--with-inputs"]);
    assert!(code == Some(2) && said.contains("--with-inputs"), "{said}");
}
