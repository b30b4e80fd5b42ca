//! The client against a registry that asks, lies and breaks off.

mod push;
mod quirks;
mod referrers;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_oci::{MANIFEST_MEDIA_TYPE, Repository};
use cas_testing::registry::{FakeRegistry, Fault, Gate};

use crate::{Client, RegistryError};

const DOCUMENT: &[u8] = br#"{"schemaVersion": 2}"#;

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("the machine has threads").block_on(work)
}

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor::of(DigestFunction::Sha256, bytes)
}

/// A registry with a tag `v1`, the same by digest, and a blob of 300,000 bytes.
fn registry(gate: Gate) -> (FakeRegistry, Repository, Vec<u8>) {
    let fake = FakeRegistry::start(gate);
    let blob: Vec<u8> = (0..300_000u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    fake.put("a/b/manifests/v1", &format!("{MANIFEST_MEDIA_TYPE}; charset=utf-8"), DOCUMENT);
    fake.put(&format!("a/b/manifests/{}", of(DOCUMENT).digest), MANIFEST_MEDIA_TYPE, DOCUMENT);
    fake.put(&format!("a/b/blobs/{}", of(&blob).digest), "application/octet-stream", &blob);
    let repository = Repository { host: fake.address().to_owned(), path: "a/b".to_owned() };
    (fake, repository, blob)
}

fn client() -> Client {
    Client::new(Vec::new(), std::collections::BTreeMap::new())
}

async fn whole(client: &Client, repository: &Repository, blob: &Descriptor) -> Result<Vec<u8>, RegistryError> {
    let mut body = client.blob(repository, blob).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(chunk.as_ref());
    }
    Ok(bytes)
}

/// A file of logins with one entry for the registry.
fn logins(folder: &tempfile::TempDir, fake: &FakeRegistry, entry: &str) -> Vec<PathBuf> {
    let path = folder.path().join("auth.json");
    cas_fs::write(&path, format!(r#"{{"auths": {{"{}": {entry}}}}}"#, fake.address()).as_bytes()).expect("it is ours");
    vec![path]
}

#[test]
fn tags_are_listed_page_by_page_and_lists_have_an_end() {
    let (fake, repository, _) = registry(Gate::Anonymous);
    let tags = || run(client().tags(&repository));
    assert_eq!(tags().expect("nobody knows the repository").len(), 0);
    fake.put("a/b/tags/list", "application/json", br#"{"name": "a/b", "tags": ["1", "3"]}"#);
    fake.header("a/b/tags/list", "Link: </v2/a/b/tags/second?last=3>; rel=\"next\"");
    fake.put("a/b/tags/second?last=3", "application/json", br#"{"name": "a/b", "tags": ["2", "3"]}"#);
    assert_eq!(tags().expect("it is there").into_iter().collect::<Vec<_>>(), ["1", "2", "3"]);
    // Some registries say `null` for none.
    fake.put("a/b/tags/second?last=3", "application/json", br#"{"name": "a/b", "tags": null}"#);
    assert_eq!(tags().expect("it is there").len(), 2);
    fake.header("a/b/tags/second?last=3", "Link: </v2/a/b/tags/list>; rel=\"next\"");
    let error = tags().expect_err("it goes round").to_string();
    assert!(error.contains("a list without an end"), "{error}");
    fake.header("a/b/tags/list", "Link: <https://elsewhere.example/v2/a/b/tags/list>; rel=\"next\"");
    let error = tags().expect_err("it goes elsewhere").to_string();
    assert!(error.contains("another server"), "{error}");
    fake.put("a/b/tags/list", "application/json", b"[]");
    let error = tags().expect_err("it is no list").to_string();
    assert!(error.contains("no list of tags"), "{error}");
}

#[test]
fn a_tag_and_a_digest_give_the_document_and_the_blob_its_bytes() {
    let (fake, repository, blob) = registry(Gate::Open);
    let client = client();
    let fetched = run(client.resolve(&repository, "v1")).expect("it is there");
    assert_eq!((&fetched.bytes[..], fetched.blob), (DOCUMENT, of(DOCUMENT)));
    assert_eq!(fetched.media_type.as_deref(), Some(MANIFEST_MEDIA_TYPE));
    assert_eq!(run(client.document(&repository, &of(DOCUMENT).digest)).expect("it is there").bytes, DOCUMENT);
    assert_eq!(run(whole(&client, &repository, &of(&blob))).expect("it is there"), blob);
    let accept: Vec<String> =
        fake.requests()[0].headers.iter().filter(|line| line.starts_with("accept: ")).cloned().collect();
    assert_eq!(accept.len(), 4, "{accept:?}");
    let error = run(client.resolve(&repository, "v2")).expect_err("it is not there");
    assert!(
        error.is_not_found() && error.to_string().starts_with(&format!("`{repository}:v2` does not exist")),
        "{error}"
    );
    let offline = run(Client::offline().resolve(&repository, "v1"));
    assert!(matches!(offline, Err(RegistryError::Offline { .. })));
}

#[test]
fn whoever_is_asked_for_a_login_gives_the_one_that_is_kept() {
    // `me:s3cret`
    let (basic, entry) = ("Basic bWU6czNjcmV0".to_owned(), r#"{"auth": "bWU6czNjcmV0"}"#);
    for (gate, entry, token_count) in [
        (Gate::Basic(basic.clone()), entry, 0),
        (Gate::Anonymous, "{}", 1),
        (Gate::Token(basic.clone()), entry, 1),
        (Gate::Identity("long-lived".to_owned()), r#"{"identitytoken": "long-lived"}"#, 1),
    ] {
        let (fake, repository, blob) = registry(gate.clone());
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let client = Client::new(logins(&folder, &fake, entry), std::collections::BTreeMap::new());
        assert_eq!(run(client.resolve(&repository, "v1")).expect("it is let in").bytes, DOCUMENT, "{gate:?}");
        assert_eq!(run(whole(&client, &repository, &of(&blob))).expect("it is let in"), blob, "{gate:?}");
        let requests = fake.requests();
        // Once it is known who asks, nobody is asked again.
        let tokens: Vec<_> = requests.iter().filter(|request| request.line.contains("/token")).collect();
        assert_eq!((tokens.len(), requests.len()), (token_count, 3 + token_count), "{gate:?}: {requests:?}");
        if let [token] = tokens[..] {
            let told = format!("{} {}", token.line, token.body);
            assert!(told.contains("service=fake") && told.contains("scope=repository%3Ax%3Apull"), "{told}");
        }
    }
    // Those that give tokens may be busy, too.
    let (fake, repository, _) = registry(Gate::Anonymous);
    fake.fail("/token", Fault::Status(503, Vec::new()), 1);
    assert_eq!(run(client().resolve(&repository, "v1")).expect("it is let in in the end").bytes, DOCUMENT);
    for (gate, entry, told) in [
        (Gate::Basic(basic.clone()), "{}", "log in with"),
        (Gate::Basic(basic.clone()), r#"{"auth": "bWU6d3Jvbmc="}"#, "the account that is logged in"),
        (Gate::Token(basic), "{}", "log in with"),
        (Gate::Closed, "{}", "log in with"),
    ] {
        let (fake, repository, _) = registry(gate.clone());
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let client = Client::new(logins(&folder, &fake, entry), std::collections::BTreeMap::new());
        let error = run(client.resolve(&repository, "v1")).expect_err("it is not let in");
        let hint = error.hint().unwrap_or_default();
        assert!(matches!(error, RegistryError::Denied { .. }) && hint.contains(told), "{gate:?}: {error} {hint}");
        assert!(!format!("{error:?} {hint}").contains("d3Jvbmc"), "{error:?}");
        // It does not go on for ever.
        assert!(fake.requests().len() <= 3, "{:?}", fake.requests());
    }
}

#[test]
fn what_is_sent_to_one_host_does_not_reach_another() {
    let (fake, repository, blob) = registry(Gate::Basic("Basic bWU6czNjcmV0".to_owned()));
    let (elsewhere, _, _) = registry(Gate::Open);
    let path = format!("/v2/a/b/blobs/{}", of(&blob).digest);
    fake.fail(&path, Fault::Status(307, vec![format!("Location: http://{}{path}", elsewhere.address())]), 1);
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let logins = logins(&folder, &fake, r#"{"auth": "bWU6czNjcmV0"}"#);
    let client = Client::new(logins, std::collections::BTreeMap::new());
    assert_eq!(run(whole(&client, &repository, &of(&blob))).expect("it is there"), blob);
    let requests = elsewhere.requests();
    assert_eq!((requests.len(), requests[0].header("authorization")), (1, None));
}

#[test]
fn a_busy_registry_is_asked_again_and_a_liar_is_not_believed() {
    let (fake, repository, _) = registry(Gate::Open);
    let client = client();
    for status in [429, 500, 503] {
        fake.fail("manifests/v1", Fault::Status(status, vec!["Retry-After: 0".to_owned()]), 2);
        assert_eq!(run(client.resolve(&repository, "v1")).expect("it is there in the end").bytes, DOCUMENT);
    }
    fake.fail("manifests/v1", Fault::Cut(5), 1);
    assert_eq!(run(client.resolve(&repository, "v1")).expect("it is there in the end").bytes, DOCUMENT);
    fake.fail("manifests/v1", Fault::Status(503, vec!["Retry-After: 0".to_owned()]), 9);
    let error = run(client.resolve(&repository, "v1")).expect_err("it is busy");
    assert!(matches!(error, RegistryError::Status { status: 503, .. }), "{error}");
    let (fake, repository, _) = registry(Gate::Open);
    fake.fail("manifests/sha256", Fault::Body(b"{}".to_vec()), 1);
    let error = run(client.document(&repository, &of(DOCUMENT).digest)).expect_err("it is another one");
    assert!(matches!(error, RegistryError::Mismatch { .. }), "{error}");
    for (header, fault) in [
        (Some(format!("Docker-Content-Digest: {}", of(b"other").digest)), None),
        (None, Some(Fault::Endless)),
        (None, Some(Fault::Body(vec![b' '; 5 << 20]))),
        (None, Some(Fault::Status(404, Vec::new()))),
        (None, Some(Fault::Status(400, Vec::new()))),
    ] {
        let (fake, repository, _) = registry(Gate::Open);
        header.iter().for_each(|line| fake.header("a/b/manifests/v1", line));
        fault.iter().for_each(|fault| fake.fail("manifests/v1", fault.clone(), 1));
        let error = run(client.resolve(&repository, "v1")).expect_err("it is wrong");
        assert_eq!(fake.requests().len(), 1, "{error}");
    }
}

#[test]
fn a_blob_goes_on_where_it_broke_off() {
    let client = client();
    for (what, faults, request_count) in [
        ("once", vec![(Fault::Cut(100_000), 1)], 2),
        ("again and again", vec![(Fault::Cut(70_000), 4)], 5),
        ("a server that begins anew", vec![(Fault::Cut(100_000), 1), (Fault::Whole, 1)], 2),
        ("a busy one", vec![(Fault::Cut(1), 1), (Fault::Status(503, vec!["Retry-After: 0".to_owned()]), 1)], 3),
    ] {
        let (fake, repository, blob) = registry(Gate::Open);
        faults.into_iter().for_each(|(fault, count)| fake.fail("blobs", fault, count));
        assert_eq!(run(whole(&client, &repository, &of(&blob))).expect(what), blob, "{what}");
        assert_eq!(fake.requests().len(), request_count, "{what}");
    }
    let (fake, repository, blob) = registry(Gate::Open);
    fake.fail("blobs", Fault::Cut(0), 99);
    let error = run(whole(&client, &repository, &of(&blob))).expect_err("nothing comes");
    assert!(matches!(error, RegistryError::Transport { .. }), "{error}");
}

#[test]
fn whoever_waits_can_be_told_to_stop() {
    let (fake, repository, _) = registry(Gate::Open);
    fake.fail("manifests", Fault::Hang, 1);
    let stop = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&stop);
    let client = client().until(move || switch.load(Ordering::Relaxed));
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    let start = Instant::now();
    assert!(matches!(run(client.resolve(&repository, "v1")), Err(RegistryError::Interrupted)));
    assert!(start.elapsed() < Duration::from_secs(20));
}
