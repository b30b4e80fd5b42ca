//! What images tell of the commit and the version: in their configuration alone.

use std::process::Command;

use serde_json::Value;

use crate::{Home, text};

const IMAGES: &str = "[workspace]\n[command.build]\ntoolchain = \":sh\"\noutputs = [\"out\"]\nrun = \"cat a > out\"\ninputs = [\"a\"]\n\
    [image.plain]\nlayers = [{ from = \":build\", to = \"/\" }]\n\
    [image.stamped]\nlayers = [{ from = \":build\", to = \"/\" }]\nstamp = [\"version\", \"revision\"]\n";

pub(crate) fn git(home: &Home, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgSign=false"]).args(arguments);
    command
        .current_dir(home.workspace())
        .env("GIT_COMMITTER_DATE", "2024-02-29T23:59:59Z")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn inspect(home: &Home, image: &str) -> Value {
    let output = home.cas(&["image", "inspect", image]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn commit_and_version_are_in_the_configuration_alone() {
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("SKIPPED: git is missing");
        return;
    }
    let Some(home) = Home::with_busybox(IMAGES, &[("a", "1"), (".gitignore", "x\n")]) else { return };
    let none = home.cas(&["build", ":stamped"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).contains("is to tell its version, and nothing says it"), "{}", text(&none.stderr));
    git(&home, &["init", "-q"]);
    git(&home, &["add", "."]);
    git(&home, &["commit", "-q", "-m", "one"]);
    git(&home, &["tag", "-m", "x", "v1.4.0-rc.1"]);
    git(&home, &["tag", "-m", "x", "vendor-1"]);
    let commit = git(&home, &["rev-parse", "HEAD"]);
    let labels = |image: &Value| image["config"]["config"]["Labels"].clone();
    let stamped = inspect(&home, ":stamped");
    assert_eq!(labels(&stamped)["org.opencontainers.image.revision"], commit.as_str());
    assert_eq!(labels(&stamped)["org.opencontainers.image.version"], "1.4.0-rc.1");
    assert_eq!(stamped["config"]["created"], "2024-02-29T23:59:59Z");
    let plain = inspect(&home, ":plain");
    assert_eq!((labels(&plain), &plain["config"]["created"]), (Value::Null, &Value::from("1985-10-26T08:15:00Z")));
    assert_eq!(stamped["manifest"]["layers"], plain["manifest"]["layers"], "no layer knows of it");

    // Another commit runs nothing, and is another configuration.
    home.write("other", "2");
    let changed = inspect(&home, ":stamped");
    assert_eq!(labels(&changed)["org.opencontainers.image.revision"], format!("{commit}-changed").as_str());
    git(&home, &["add", "."]);
    git(&home, &["commit", "-q", "-m", "two"]);
    let built = home.cas(&["build", ":stamped"]);
    assert_eq!(text(&built.stderr).matches("ran //").count(), 0, "{}", text(&built.stderr));
    let commit = git(&home, &["rev-parse", "HEAD"]);
    let version = format!("1.4.0-rc.1+1.g{}", &commit[..12]);
    assert_eq!(labels(&inspect(&home, ":stamped"))["org.opencontainers.image.version"], version.as_str());

    // What an image would tell differs, so it is affected; what tells nothing is not.
    let affected = |since: &str| {
        let output = home.cas(&["affected", "--kind", "image", "--since", since]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(affected("HEAD"), [""; 0]);
    assert_eq!(affected("HEAD~1"), ["//:stamped"]);

    // Manifests come before tags, and have to agree.
    home.write("package.json", "{\"name\": \"x\", \"version\": \"2.0.0\"}");
    assert_eq!(labels(&inspect(&home, ":stamped"))["org.opencontainers.image.version"], "2.0.0");
    git(&home, &["add", "."]);
    git(&home, &["commit", "-q", "-m", "three"]);
    home.write("cas.toml", &home.read("cas.toml").replace(", \"revision\"]", "]"));
    git(&home, &["commit", "-q", "-a", "-m", "four"]);
    assert_eq!(affected("HEAD"), [""; 0]);
    let manifest = home.read("cas.toml");
    home.write("cas.toml", &format!("version = \"2.1.0\"\n{manifest}"));
    assert_eq!(affected("HEAD"), ["//:stamped"], "another version");
    home.write("cas.toml", &manifest);
    home.write("cas.toml", &format!("version = \"2.0.0\"\n{manifest}"));
    assert_eq!(labels(&inspect(&home, ":stamped"))["org.opencontainers.image.version"], "2.0.0");
    home.write("cas.toml", &format!("version = \"2.0.1\"\n{manifest}"));
    let output = home.cas(&["build", ":stamped"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("`//:stamped` has two versions: 2.0.1 in `cas.toml`, 2.0.0 in `package.json`"), "{stderr}");
    home.write("cas.toml", &format!("version = \"two\"\n{manifest}"));
    assert!(text(&home.cas(&["build"]).stderr).contains("`two` is not a version"));
}
