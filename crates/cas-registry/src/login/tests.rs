//! Logins before a registry of tests, and in files as others write them. Helpers are tried with the program (`tests/build/login.rs`).

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use cas_testing::registry::{FakeRegistry, Gate};

use super::*;

/// `me:s3cret`
const LOGIN: &str = "bWU6czNjcmV0";

fn tried(gate: Gate, password: &str) -> (Result<bool, RegistryError>, FakeRegistry) {
    let fake = FakeRegistry::start(gate);
    fake.put("", "application/json", b"{}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let client = Client::new(Vec::new(), BTreeMap::new());
    let login = Login::Password { user: "me".to_owned(), password: password.to_owned() };
    let done = runtime.expect("the machine has threads").block_on(client.try_login(fake.address(), &login));
    (done, fake)
}

#[test]
fn a_registry_is_asked_whether_it_takes_a_login() {
    let basic = format!("Basic {LOGIN}");
    for (gate, password, expected) in [
        (Gate::Open, "s3cret", Some(false)),
        (Gate::Basic(basic.clone()), "s3cret", Some(true)),
        (Gate::Basic(basic.clone()), "wr0ng", None),
        (Gate::Token(basic.clone()), "s3cret", Some(true)),
        (Gate::Token(basic), "wr0ng", None),
        (Gate::Closed, "s3cret", None),
    ] {
        let (done, fake) = tried(gate.clone(), password);
        match (&done, expected) {
            (Ok(asked), Some(expected)) => assert_eq!(*asked, expected, "{gate:?}"),
            (Err(error @ RegistryError::Refused { .. }), None) => {
                let told = format!("{error} {error:?} {:?}", error.hint());
                assert!(told.contains(fake.address()) && !told.contains(password), "{told}");
            }
            other => panic!("{gate:?} {password}: {other:?}"),
        }
        // Nothing is sent before somebody asks, and no right is asked for.
        let requests = fake.requests();
        assert_eq!((&*requests[0].line, requests[0].header("authorization")), ("GET /v2/", None), "{gate:?}");
        let tokens: Vec<&str> =
            requests.iter().map(|request| &*request.line).filter(|line| line.contains("/token")).collect();
        // What the server asks for itself is its word.
        assert!(tokens.iter().all(|line| line.matches("scope=").count() == 1), "{tokens:?}");
    }
}

/// The files after a login or, without one, a logout; `None` for one that is not there.
fn changed(files: &[(&str, Option<&str>)], host: &str, login: Option<(&str, &str)>) -> Vec<Option<Value>> {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    for (path, (_, text)) in paths.iter().zip(files) {
        if let Some(text) = text {
            cas_fs::write(path, text.as_bytes()).expect("the folder is ours");
            cas_fs::set_mode(path, 0o644).expect("it is there");
        }
    }
    match login {
        Some((user, password)) => {
            let keeper = keep_login(&paths, host, user, password).expect("it is kept");
            assert_eq!(keeper, Keeper::File(paths[0].clone()));
            let mode = cas_fs::metadata(&paths[0]).expect("it is there").mode();
            assert_eq!(mode & 0o777, MODE);
            let found = crate::Credentials::read(paths.clone()).expect("they are files");
            let repository = Repository { host: host.to_owned(), path: "a/b".to_owned() };
            let expected = Login::Password { user: user.to_owned(), password: password.to_owned() };
            assert_eq!(found.find(&repository).expect("it is one"), Some(expected));
        }
        None => {
            drop_login(&paths, host).expect("they are dropped");
        }
    }
    let folders: Vec<_> = cas_fs::read_dir(folder.path()).expect("it is there");
    assert!(!folders.iter().any(|entry| entry.name.to_string_lossy().ends_with(".tmp")));
    let read =
        |path: &PathBuf| cas_fs::read(path).ok().map(|bytes| serde_json::from_slice(&bytes).expect("it is JSON"));
    paths.iter().map(read).collect()
}

#[test]
fn files_keep_what_is_of_others() {
    let other = r#"{"auths": {"other.example": {"auth": "dTpw", "email": "x@y"}, "r.example/part": {"auth": "dTpw"}},
        "HttpHeaders": {"A": [1, 2.5, null]}, "credHelpers": {"gcr.io": "gcloud"}, "detachKeys": "ctrl-e,e"}"#;
    let with = |text: &str, key: &str, entry: Value| {
        let mut whole: Value = serde_json::from_str(text).expect("it is JSON");
        whole["auths"][key] = entry;
        whole
    };
    let own = json!({ "auth": LOGIN });
    let me = Some(("me", "s3cret"));
    // Nothing there, an empty file, one with others, one with an old login in other words.
    for (text, expected) in [
        (None, json!({ "auths": { "r.example": own } })),
        (Some(" \n"), json!({ "auths": { "r.example": own } })),
        (Some(r#"{"auths": null}"#), json!({ "auths": { "r.example": own } })),
        (Some(other), with(other, "r.example", own.clone())),
        (
            Some(r#"{"auths": {"https://r.example/v1/": {"auth": "eDp5"}, "r.example": {"identitytoken": "t"}}}"#),
            json!({ "auths": { "r.example": own } }),
        ),
    ] {
        assert_eq!(changed(&[("a.json", text), ("b.json", Some(other))], "r.example", me)[0], Some(expected));
    }
    assert_eq!(
        changed(&[("config.json", None)], "docker.io", me)[0],
        Some(json!({ "auths": { "https://index.docker.io/v1/": own } })),
        "docker and podman find it there"
    );
    let old = Some(r#"{"x.example": {"auth": "dTpw"}}"#);
    let expected = json!({ "x.example": { "auth": "dTpw" }, "r.example": own });
    assert_eq!(changed(&[(".dockercfg", old)], "r.example", me)[0], Some(expected));
    // And back, in all of them.
    let files = [("a.json", Some(other)), ("b.json", Some(r#"{"auths": {"https://r.example": {"auth": "dTpw"}}}"#))];
    let after = changed(&files, "r.example", None);
    let untouched: Value = serde_json::from_str(other).expect("it is JSON");
    assert_eq!(after, [Some(untouched), Some(json!({ "auths": {} }))]);
}

#[test]
fn what_is_damaged_is_left_as_it_is() {
    for text in [r#"{"auths": "s3cret"}"#, r#"{"auths": {"r.example": {"auth": "s3cr"#, "[]"] {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let path = folder.path().join("auth.json");
        cas_fs::write(&path, text.as_bytes()).expect("the folder is ours");
        let error = keep_login(std::slice::from_ref(&path), "r.example", "me", "n3w").expect_err(text);
        let told = format!("{error} {error:?}");
        assert!(matches!(error, RegistryError::Credentials { .. }) && !told.contains("s3cr"), "{told}");
        assert_eq!(cas_fs::read(&path).expect("it is there"), text.as_bytes());
    }
    assert!(matches!(keep_login(&[], "r.example", "me", "n3w"), Err(RegistryError::NoFile)));
    // A link stays one, and a folder that is made for it is nobody else's.
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let (link, real) = (folder.path().join("config.json"), folder.path().join("real.json"));
    cas_fs::write(&real, b"{}").expect("the folder is ours");
    cas_fs::symlink(&real, &link).expect("the folder is ours");
    keep_login(std::slice::from_ref(&link), "r.example", "me", "n3w").expect("it is kept");
    assert_eq!(cas_fs::read_link(&link).expect("it is one"), real);
    let below = folder.path().join("x/y/auth.json");
    keep_login(&[below], "r.example", "me", "n3w").expect("it is kept");
    let mode = cas_fs::metadata(&folder.path().join("x/y")).expect("it is there").mode();
    assert_eq!(mode & 0o777, FOLDER_MODE);
}
