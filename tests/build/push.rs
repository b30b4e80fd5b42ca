//! Pushes: to a registry of tests that fails as told, and to a real one where it is installed.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner};
use serde_json::Value;

use crate::{Home, text};

const MANIFEST: &str = "[workspace]\n\
    [image.web]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n\
    [image.one]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n\
    [artifact.docs]\ntype = \"application/vnd.example.docs\"\nfiles = [{ path = \"site\" }]\n";

pub(crate) fn home() -> Home {
    let home = Home::new(MANIFEST);
    home.write("site/index.html", "<p>one</p>\n");
    home
}

pub(crate) fn json(home: &Home, arguments: &[&str]) -> Value {
    let output = home.cas(&[&["--format", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {}", text(&output.stderr)))
}

#[track_caller]
pub(crate) fn ends(home: &Home, arguments: &[&str], code: i32, said: &[&str]) {
    let output = home.cas(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    for said in said {
        assert!(stderr.contains(said), "{arguments:?}: {said}: {stderr}");
    }
}

#[test]
fn what_is_pushed_is_what_is_exported() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Open));
    let to = |rest: &str| format!("{}/{rest}", fake.address());
    for (name, path) in [(":web", "a/web"), (":one", "a/one"), (":docs", "docs")] {
        let layout = home.folder.path().join(path.replace('/', "-"));
        assert_eq!(home.cas(&["image", "export", name, &format!("oci:{}", layout.display())]).status.code(), Some(0));
        let found = json(&home, &["push", name, &to(&format!("{path}:1.0.0"))]);
        let row = &found["results"][0];
        assert_eq!((row["tag"].as_str(), row["known"]["blobs"].as_u64()), (Some("new"), Some(0)), "{found}");
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], row["digest"]);
        // Every blob of the layout is in the registry, as a document or as a blob.
        for entry in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
            let entry = entry.unwrap();
            let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
            let kept = ["blobs", "manifests"].map(|kind| fake.get(&format!("{path}/{kind}/{digest}")));
            assert_eq!(kept.into_iter().flatten().next(), Some(fs::read(entry.path()).unwrap()), "{path} {digest}");
        }
        let again = json(&home, &["push", name, &to(&format!("{path}:1.0.0"))]);
        assert_eq!((&again["results"][0]["tag"], &again["results"][0]["sent"]["blobs"]), (&"same".into(), &0.into()));
    }
    // And comes back.
    let name = to("a/one:1.0.0");
    let imported = json(&home, &["image", "import", &format!("docker://{name}")]);
    let exported = json(&home, &["push", ":one", &to("b")]);
    assert_eq!(imported["results"][0]["digest"], exported["results"][0]["digest"]);
    assert!(exported["results"][0]["destination"].as_str().unwrap().contains("/b@sha256:"), "{exported}");
    // What the registry has elsewhere it takes from there, for whoever pushes next from this store.
    let numbers: String = (0..40_000_u32).map(|number| format!("{:x}", number.wrapping_mul(2_654_435_761))).collect();
    home.write("site/long.bin", &numbers);
    fake.manner(Manner { mounts: true, ..Manner::default() });
    for (path, counts) in [("a/first", [2, 0]), ("a/second", [1, 1])] {
        let found = json(&home, &["push", ":one", &to(&format!("{path}:1.0.0"))]);
        let found = ["sent", "mounted"].map(|word| found["results"][0][word]["blobs"].as_u64());
        assert_eq!(found, counts.map(Some), "{path}");
    }
}

#[test]
fn tags_are_kept_and_failures_are_told() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Open));
    let to = |rest: &str| format!("{}/{rest}", fake.address());
    let (version, stable, latest) = (to("a:1.0.0"), to("a:stable"), to("a:latest"));
    ends(&home, &["push", ":one", &version, &stable], 0, &["2 blobs", "sent"]);
    home.write("site/index.html", "<p>two</p>\n");
    let before = fake.get("a/manifests/stable");
    ends(&home, &["push", ":one", &version], 7, &["and versions do not move", "hint: give it another tag"]);
    ends(&home, &["push", ":one", &version, "--move-tag", "1.0.0"], 7, &["and versions do not move"]);
    ends(&home, &["push", ":one", &stable], 7, &["hint: `--move-tag stable` moves it"]);
    ends(&home, &["push", ":one", &latest], 7, &["would get `latest` alone"]);
    ends(&home, &["push", ":one", &stable, "--dry-run", "--move-tag", "stable"], 0, &["would be sent"]);
    assert_eq!(fake.get("a/manifests/stable"), before);
    ends(&home, &["push", ":one", &stable, "--move-tag", "stable"], 0, &[]);
    assert_ne!(fake.get("a/manifests/stable"), before);
    for login in [
        "bob:hunter2SECRET@r.example/a:1",
        "https://bob:hunter2SECRET@r.example/a",
        "bob:hunter2/SECRET@r.example:5000",
    ] {
        for verb in [
            &["push", ":one"][..],
            &["pull"],
            &["copy", "oci:nowhere"],
            &["sign", "--key", "k"],
            &["verify", "--key", "k"],
        ] {
            let output = home.cas(&[verb, &[login]].concat());
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{verb:?}: {stderr}");
            assert!(!stderr.contains("SECRET") && stderr.contains("`cas login HOST`"), "{verb:?}: {stderr}");
        }
    }
    for (destination, said) in [
        ("web:1", "hint: write `HOST/web:1`"),
        ("r.example/a@sha256:x", "bad digest"),
        ("oci:x", "does not name its registry"),
    ] {
        ends(&home, &["push", ":one", destination], 2, &[said]);
    }
    ends(&home, &["push", ":one", &version, "--move-tag", "stable"], 2, &["no destination has that tag"]);
    ends(&home, &["push", ":nope", &version], 2, &[]);
    ends(&home, &["push", ":one", &version, "--offline"], 2, &["a push needs the network"]);
    // Two registries, one of which fails in the middle: no tag anywhere, and the same command ends it.
    let other = FakeRegistry::start(Gate::Open);
    let both = [to("b:2.0.0"), format!("{}/b:2.0.0", other.address())];
    other.fail("PUT /v2/b/manifests/sha256", Fault::Status(400, Vec::new()), 1);
    let push: Vec<&str> = ["push", ":one"].into_iter().chain(both.iter().map(String::as_str)).collect();
    ends(&home, &push, 4, &["1 of 2 registries have not all of it", "HTTP status 400", "hint: do it again"]);
    assert!(fake.get("b/manifests/2.0.0").is_none() && other.get("b/manifests/2.0.0").is_none());
    ends(&home, &push, 0, &["0 blobs (0 bytes) sent"]);
    assert!(fake.get("b/manifests/2.0.0").is_some() && other.get("b/manifests/2.0.0").is_some());
}

#[test]
fn secrets_of_registries_are_not_printed() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Basic("Basic bWU6czNjcmV0".to_owned())));
    let destination = format!("{}/a:1.0.0", fake.address());
    let output = home.cas(&["push", ":one", &destination]);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("does not let us write"), "{}", text(&output.stderr));
    let file = home.folder.path().join("auth.json");
    for (entry, code) in [(r#"{"auth": "bWU6d3Jvbmc="}"#, 4), (r#"{"auth": "bWU6czNjcmV0"}"#, 0)] {
        fs::write(&file, format!(r#"{{"auths": {{"{}": {entry}}}}}"#, fake.address())).unwrap();
        let mut command = home.command(&["push", ":one", &destination]);
        let output = command.env("REGISTRY_AUTH_FILE", &file).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        for secret in ["s3cret", "czNjcmV0", "wrong", "d3Jvbmc"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

/// A registry that ends with the test.
pub(crate) struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Registry {
    /// Debian's, on a port that is free; `None` where it is not installed.
    pub(crate) fn start(folder: &Path) -> Option<(Self, String)> {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let data = folder.join("data");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            data.display()
        );
        fs::write(folder.join("config.yml"), text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(folder.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self(command.spawn().ok()?);
        let start = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some((registry, address))
    }
}

/// skopeo with logins of its own: those of the machine may be somebody else's.
pub(crate) fn skopeo(folder: &Path) -> Command {
    let logins = folder.join("no-logins.json");
    fs::write(&logins, "{}").unwrap();
    let mut command = Command::new("skopeo");
    command.env("REGISTRY_AUTH_FILE", logins);
    command
}

#[test]
fn a_real_registry_takes_it_and_skopeo_reads_it_back() {
    let home = home();
    let folder = tempfile::tempdir().unwrap();
    let Some((_registry, address)) = Registry::start(folder.path()) else {
        eprintln!("SKIPPED: docker-registry is missing");
        return;
    };
    // More than one piece of the body.
    let noise: Vec<u8> = (0..400_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(home.workspace().join("site/noise"), noise).unwrap();
    for (name, path) in [(":web", "a/web"), (":one", "a/one"), (":docs", "docs")] {
        let destination = format!("{address}/{path}:1.0.0");
        let found = json(&home, &["push", name, &destination, &format!("{address}/{path}:stable")]);
        assert_eq!(found["results"][1]["tag"], "new", "{found}");
        ends(&home, &["push", name, &destination], 0, &["0 blobs (0 bytes) sent"]);
        if Command::new("skopeo").arg("--version").output().is_err() {
            eprintln!("SKIPPED: skopeo is missing");
            continue;
        }
        let copy = folder.path().join(path.replace('/', "-"));
        let copied = skopeo(folder.path())
            .args(["copy", "--all", "--src-tls-verify=false", &format!("docker://{address}/{path}:stable")])
            .arg(format!("oci:{}:x", copy.display()))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", text(&copied.stderr));
        let index: Value = serde_json::from_slice(&fs::read(copy.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], found["results"][0]["digest"], "{path}");
    }
}

#[test]
fn destinations_have_the_words_of_the_workspace() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Open));
    let to = |rest: &str| format!("{}/{rest}", fake.address());
    for (rest, said) in [
        ("a:{version}", "nothing says it"),
        ("a:{git.sha}", "error:"),
        ("a:{verson}", "known are `{name}`"),
        ("a:{version", "write words as `{version}`"),
    ] {
        ends(&home, &["push", ":one", &to(rest)], 2, &[said]);
    }
    home.write("package.json", r#"{ "name": "web", "version": "1.4.0" }"#);
    home.write(".gitignore", "cas-out\n");
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("SKIPPED: git is missing");
        return;
    }
    let git = |arguments: &[&str]| crate::stamps::git(&home, arguments);
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "one"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let run = |arguments: &[&str]| {
        let mut command = home.command(&[&["--format", "json"], arguments].concat());
        let output = command.env("PATH", std::env::var_os("PATH").unwrap()).output().unwrap();
        (output.status.code(), text(&output.stdout))
    };
    let places = ["{name}:{version}", "{name}:{git.sha}", "b/{name}:git-{git.short}"].map(to);
    let (code, stdout) = run(&["push", ":one", &places[0], &places[1], &places[2]]);
    assert_eq!(code, Some(0), "{stdout}");
    let pushed: Value = serde_json::from_str(&stdout).unwrap();
    let found: Vec<&str> =
        pushed["results"].as_array().unwrap().iter().map(|row| row["destination"].as_str().unwrap()).collect();
    let expected = [to("one:1.4.0"), to(&format!("one:{commit}")), to(&format!("b/one:git-{}", &commit[..12]))];
    assert_eq!(found, expected);
    // What is in no commit has the name of none.
    home.write("site/index.html", "<p>two</p>\n");
    let (code, told) = run(&["push", ":one", &places[1]]);
    assert!(code == Some(2) && told.contains("changes beside it"), "{told}");
    // A version with what tells of the build is no tag.
    home.write("package.json", r#"{ "name": "web", "version": "1.4.0+3.g00" }"#);
    let (code, told) = run(&["push", ":one", &places[0]]);
    assert!(code == Some(2) && told.contains("`1.4.0+3.g00`"), "{told}");
}
