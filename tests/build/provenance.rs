//! Provenance: everything that something was made of, by SHA-256, and what of that is gone.

use std::collections::BTreeMap;
use std::fs;

use cas_digest::{Digest, DigestFunction};
use serde_json::Value;

use crate::npm::{build, workspace};
use crate::{Home, SHA256, text};

const SECRET: &str = "a-value-that-nobody-may-see";

/// The npm workspace with an image over what a step made, which had a variable and a secret.
fn home() -> Option<Home> {
    let (home, _) = workspace()?;
    let manifest = home.read("apps/web/cas.toml").replace(
        "[image.image]",
        "env = { KEY = \"public-value\" }\nenv_in = [\"CHANNEL\"]\nsecrets = [\"TOKEN\"]\n\
         [image.listed]\ncompression = \"zstd\"\nlayers = [{ from = \":look\", path = \"list\", to = \"/srv\" }, { files = [\"site/**\"], to = \"/site\" }]\n[image.image]",
    );
    home.write("apps/web/cas.toml", &manifest);
    home.write("apps/web/site/a b.html", "<p>page</p>\n");
    std::os::unix::fs::symlink("a b.html", home.workspace().join("apps/web/site/link")).unwrap();
    Some(home)
}

fn cas(home: &Home, arguments: &[&str]) -> std::process::Output {
    let registry = format!("file://{}/registry", home.folder.path().display());
    let mut command = home.command(arguments);
    command.env("npm_config_registry", registry).env("TOKEN", SECRET).env("CHANNEL", "private-channel");
    command.output().unwrap()
}

#[track_caller]
fn statement(home: &Home, arguments: &[&str]) -> (String, Value) {
    let output = cas(home, &[&["provenance"], arguments].concat());
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let value = serde_json::from_str(&told).unwrap();
    (told, value)
}

/// Inputs as `kind name`, with their digests.
fn inputs(statement: &Value) -> BTreeMap<String, Value> {
    let inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array().unwrap();
    let named = |input: &Value| {
        let kind = input["annotations"]["kind"].as_str().unwrap();
        format!("{kind} {}", input["name"].as_str().unwrap())
    };
    inputs.iter().map(|input| (named(input), input.clone())).collect()
}

#[test]
fn everything_that_an_image_is_made_of_is_told() {
    let Some(home) = home() else { return };
    let (told, statement) = statement(&home, &["//apps/web:listed"]);
    let found = inputs(&statement);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "debian busybox",
            "link apps/web/site/link",
            "npm @s/left@2.0.0",
            "npm tool@1.0.0",
            "source apps/web/cas.toml",
            "source apps/web/package.json",
            "source apps/web/site/a b.html",
            "source cas.toml",
            "source libs/ui/cas.toml",
            "source libs/ui/package.json",
            "source package-lock.json",
        ],
        "what is not reached is not told"
    );
    for input in found.values() {
        let hex = input["digest"]["sha256"].as_str().unwrap_or_else(|| panic!("{input}"));
        assert_eq!(hex.len(), 64, "{input}");
    }
    let page = Digest::of(DigestFunction::Sha256, b"<p>page</p>\n").to_hex();
    assert_eq!(found["source apps/web/site/a b.html"]["digest"]["sha256"], page.as_str());
    assert_eq!(found["npm @s/left@2.0.0"]["uri"], "pkg:npm/%40s/left@2.0.0");
    let internal = &statement["predicate"]["buildDefinition"]["internalParameters"];
    let actions: Vec<&String> = internal["actions"].as_object().unwrap().keys().collect();
    assert_eq!(actions, ["//apps/web:look", "//libs/ui:build"]);
    assert_eq!(internal["codecs"].as_array().map(Vec::len), Some(1), "{internal}");

    // The image is the one that is exported.
    let output = cas(&home, &["--format", "json", "build", "//apps/web:listed"]);
    let built: Value = serde_json::from_slice(&output.stdout).unwrap();
    let digest = format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap());
    assert_eq!(built["results"][0]["digest"].as_str(), Some(&*digest), "{built}");

    // Nothing that is of this machine or nobody's business; and the same words again.
    for private in [SECRET, "private-channel", "public-value", &*home.folder.path().display().to_string()] {
        assert!(!told.contains(private), "{private}: {told}");
    }
    assert_eq!(self::statement(&home, &["//apps/web:listed"]).0, told);
    let (_, predicate) =
        self::statement(&home, &["//apps/web:listed", "--predicate", "--builder-id", "https://ci.example"]);
    assert_eq!(predicate["runDetails"]["builder"]["id"], "https://ci.example");
    assert_eq!(predicate["buildDefinition"], statement["predicate"]["buildDefinition"]);
}

#[test]
fn what_is_gone_is_told_by_name() {
    let Some(home) = home() else { return };
    let (told, _) = statement(&home, &["//apps/web:listed"]);
    let file = home.folder.path().join("statement.json");
    fs::write(&file, &told).unwrap();
    let check = |name: &str| {
        let output = cas(&home, &["provenance", "--check", &format!("{}/{name}", home.folder.path().display())]);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, stdout, stderr) = check("statement.json");
    assert_eq!((code, &*stdout), (Some(0), ""), "{stderr}");
    assert!(stderr.contains("2 actions and 11 inputs, 0 of them not in the store"), "{stderr}");

    // A file whose content nobody has: an input of an image and of no step.
    let page = Digest::of(DigestFunction::Sha256, b"<p>page</p>\n").to_hex();
    let other = told.replace(&page, &"0".repeat(64));
    let blake = Digest::of(DigestFunction::Blake3, b"<p>page</p>\n").to_hex();
    fs::write(&file, other.replace(&blake, &"1".repeat(64))).unwrap();
    let (code, stdout, _) = check("statement.json");
    assert_eq!(code, Some(1));
    assert_eq!(stdout, format!("source apps/web/site/a b.html: sha256:{} is not in the store\n", "0".repeat(64)));

    // An action is missed with all that hangs on it, and a file of its input root by its path.
    let predicate: Value = serde_json::from_str(&told).unwrap();
    let action = predicate["predicate"]["buildDefinition"]["internalParameters"]["actions"]["//apps/web:look"].as_str();
    let action: cas_blob::Descriptor = action.unwrap().parse().unwrap();
    let store = cas_store::Store::open(&home.folder.path().join("store")).unwrap();
    let left = cas_blob::Descriptor::of(DigestFunction::Blake3, b"left");
    fs::remove_file(store.object_path(&left).unwrap()).unwrap();
    fs::write(&file, &told).unwrap();
    let (code, stdout, _) = check("statement.json");
    assert_eq!(
        (code, &*stdout),
        (
            Some(1),
            &*format!("action //apps/web:look: /src/node_modules/@s/left/index.js, {left} is not in the store\n")
        )
    );
    fs::remove_file(store.object_path(&action).unwrap()).unwrap();
    let (_, stdout, _) = check("statement.json");
    assert_eq!(stdout, format!("action //apps/web:look: {action} is not in the store\n"));

    for (content, said) in [
        ("{}", "`buildDefinition`"),
        ("nonsense", "JSON"),
        (&*told.replace("slsa.dev/provenance/v1", "example.com/other"), "example.com/other"),
        (&*told.replace("urn:cas:build:1", "urn:other"), "urn:other"),
    ] {
        fs::write(&file, content).unwrap();
        let (code, _, stderr) = check("statement.json");
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    let (code, _, stderr) = check("nothing");
    assert!(code == Some(1) && stderr.contains("nothing"), "{stderr}");
}

#[test]
fn downloads_tarballs_and_artifacts_have_one_as_well() {
    let home = Home::new(&format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n\
         [artifact.docs]\ntype = \"application/vnd.example\"\nfiles = [{{ from = \":data\" }}, {{ path = \"docs\" }}]\n\
         [npm.package]\n"
    ));
    home.write("docs/a.md", "a\n");
    home.write("package.json", "{\"name\": \"p\", \"version\": \"1.0.0\"}");
    let (_, docs) = statement(&home, &[":docs"]);
    let found = inputs(&docs);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["download //:data", "source cas.toml", "source docs/a.md"]);
    assert_eq!(found["download //:data"]["digest"]["sha256"], SHA256);
    let (_, package) = statement(&home, &[":package"]);
    let subject = &package["subject"][0];
    let made = build(&home, &["npm", "pack", ":package", "--pack-destination", "packed"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    assert_eq!(subject["name"], "p-1.0.0.tgz");
    let bytes = fs::read(home.workspace().join("packed").join("p-1.0.0.tgz")).unwrap();
    for function in [DigestFunction::Sha256, DigestFunction::Sha512] {
        assert_eq!(subject["digest"][function.name()], Digest::of(function, &bytes).to_hex());
    }
    let found = inputs(&package);
    assert!(found.contains_key("source package.json"), "{found:?}");
    let output = cas(&home, &["provenance", ":data"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("`//:data`"), "{}", text(&output.stderr));
}
