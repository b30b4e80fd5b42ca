//! Pushes, to registries of all manners.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use cas_blob::Descriptor;
use cas_oci::{MANIFEST_MEDIA_TYPE, Repository};
use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner};

use super::{DOCUMENT, client, logins, of, run};
use crate::{Access, Client, Content, Delivery, RegistryError, Whereabouts};

fn blob() -> (Vec<u8>, Descriptor, Content) {
    let bytes: Vec<u8> = (0..900_000u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    let (blob, written) = (of(&bytes), bytes.clone());
    (bytes, blob, Arc::new(move |sink: &mut dyn Write| sink.write_all(&written)))
}

fn repository(fake: &FakeRegistry, path: &str) -> Repository {
    Repository { host: fake.address().to_owned(), path: path.to_owned() }
}

fn kept(fake: &FakeRegistry, path: &str, blob: &Descriptor) -> Option<Vec<u8>> {
    fake.get(&format!("{path}/blobs/{}", blob.digest))
}

/// Requests that are not only looks.
fn written(fake: &FakeRegistry) -> Vec<String> {
    let lines = fake.requests().into_iter().map(|request| request.line);
    lines
        .filter(|line| !line.starts_with("HEAD "))
        .map(|line| line.split('?').next().unwrap_or(&line).to_owned())
        .collect()
}

#[test]
fn a_blob_is_sent_once_and_found_the_next_time() {
    let (bytes, blob, content) = blob();
    let fake = FakeRegistry::start(Gate::Open);
    let (client, repository) = (client(), repository(&fake, "a/b"));
    assert_eq!(run(client.push_blob(&repository, &blob, &content, None)).expect("it is taken"), Delivery::Sent);
    assert_eq!(kept(&fake, "a/b", &blob), Some(bytes));
    assert_eq!(written(&fake), ["POST /v2/a/b/blobs/uploads/", "PUT /v2/a/b/blobs/uploads/0"]);
    assert_eq!(run(client.push_blob(&repository, &blob, &content, None)).expect("it is there"), Delivery::Known);
    assert_eq!(fake.requests().len(), 5);
    // Nothing is a blob, too.
    let (nothing, none): (_, Content) = (of(b""), Arc::new(|_| Ok(())));
    assert_eq!(run(client.push_blob(&repository, &nothing, &none, None)).expect("it is taken"), Delivery::Sent);
}

#[test]
fn what_another_repository_has_is_not_sent() {
    let (bytes, blob, content) = blob();
    for (mounts, expected) in [(true, Delivery::Mounted), (false, Delivery::Sent)] {
        let fake = FakeRegistry::start(Gate::Open);
        fake.manner(Manner { mounts, ..Manner::default() });
        fake.put(&format!("base/blobs/{}", blob.digest), "application/octet-stream", &bytes);
        let (target, source) = (repository(&fake, "a/b"), repository(&fake, "base"));
        assert_eq!(run(client().push_blob(&target, &blob, &content, Some(&source))).expect("it is taken"), expected);
        assert_eq!(kept(&fake, "a/b", &blob), Some(bytes.clone()), "{mounts}");
        assert!(fake.requests().iter().any(|request| request.line.contains("from=base")), "{mounts}");
        // Another server's is of no use.
        let elsewhere = Repository { host: "r.example".to_owned(), path: "base".to_owned() };
        let more = of(b"more");
        let content: Content = Arc::new(|sink| sink.write_all(b"more"));
        assert_eq!(
            run(client().push_blob(&target, &more, &content, Some(&elsewhere))).expect("it is taken"),
            Delivery::Sent
        );
        assert!(!fake.requests().iter().any(|request| request.line.contains("r.example")));
    }
}

/// What was noted, and what is told in its place.
#[derive(Default)]
struct Notes(Mutex<BTreeMap<(String, Descriptor), String>>);

impl Whereabouts for Notes {
    fn find(&self, host: &str, blob: &Descriptor) -> Option<String> {
        self.0.lock().expect("nothing panics").get(&(host.to_owned(), *blob)).cloned()
    }

    fn note(&self, repository: &Repository, blob: &Descriptor) {
        self.0.lock().expect("nothing panics").insert((repository.host.clone(), *blob), repository.path.clone());
    }
}

#[test]
fn what_is_remembered_is_mounted_and_what_is_wrong_about_it_is_sent() {
    let (bytes, blob, content) = blob();
    let (fake, other) = (FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    for fake in [&fake, &other] {
        fake.manner(Manner { mounts: true, ..Manner::default() });
    }
    let notes = Arc::new(Notes::default());
    let client = client().remembering(Arc::clone(&notes) as Arc<dyn Whereabouts>);
    let push = |fake: &FakeRegistry, path: &str| run(client.push_blob(&repository(fake, path), &blob, &content, None));
    assert_eq!(push(&fake, "one").expect("it is taken"), Delivery::Sent);
    assert_eq!(push(&fake, "two").expect("it is taken"), Delivery::Mounted);
    assert_eq!(kept(&fake, "two", &blob), Some(bytes.clone()));
    assert_eq!(push(&fake, "two").expect("it is there"), Delivery::Known);
    // Another server has its own.
    assert_eq!(push(&other, "two").expect("it is taken"), Delivery::Sent);
    assert!(!other.requests().iter().any(|request| request.line.contains("from=")));
    // A repository that is gone, and servers that say so in their own way.
    for (path, fault) in [
        ("three", None),
        ("four", Some(Fault::Status(404, Vec::new()))),
        ("five", Some(Fault::Status(400, Vec::new()))),
        ("six", Some(Fault::Status(403, Vec::new()))),
        ("seven", Some(Fault::Status(201, Vec::new()))),
    ] {
        notes.note(&repository(&fake, "gone"), &blob);
        if let Some(fault) = fault {
            fake.fail(&format!("POST /v2/{path}/blobs/uploads/?mount"), fault, 1);
        }
        assert_eq!(push(&fake, path).expect("it is taken"), Delivery::Sent, "{path}");
        let asked = fake.requests().into_iter().any(|request| request.line.contains("from=gone"));
        assert!(asked && kept(&fake, path, &blob) == Some(bytes.clone()), "{path}");
        // The next one is told of this one.
        assert_eq!(notes.find(fake.address(), &blob).as_deref(), Some(path));
    }
    // Nobody remembers what is short.
    let (short, content): (_, Content) = (of(b"short"), Arc::new(|sink| sink.write_all(b"short")));
    run(client.push_blob(&repository(&fake, "one"), &short, &content, None)).expect("it is taken");
    assert_eq!(notes.find(fake.address(), &short), None);
}

/// Each cut is where the request breaks off, in bytes.
#[test]
fn what_breaks_off_goes_on_where_it_was() {
    let (bytes, blob, content) = blob();
    for (cut, manner) in (0..14).map(|part| part * (64 << 10)).flat_map(|cut| {
        [Manner::default(), Manner { is_relative: true, says_created: true, ..Manner::default() }]
            .map(|manner| (cut, manner))
    }) {
        let fake = FakeRegistry::start(Gate::Open);
        fake.manner(manner.clone());
        fake.fail("PUT ", Fault::CutRequest(cut), 1);
        let pushed = run(client().push_blob(&repository(&fake, "a/b"), &blob, &content, None));
        assert_eq!(pushed.expect("it gets there"), Delivery::Sent, "{cut} {manner:?}");
        assert_eq!(kept(&fake, "a/b", &blob), Some(bytes.clone()), "{cut} {manner:?}");
        let sent: usize = fake
            .requests()
            .iter()
            .filter(|request| request.line.starts_with("PATCH "))
            .filter_map(|request| request.header("content-length")?.parse::<usize>().ok())
            .sum();
        assert_eq!(sent, bytes.len() - cut, "{cut} {manner:?}");
    }
    // Again and again, as long as it gets on.
    let fake = FakeRegistry::start(Gate::Open);
    fake.fail("PUT ", Fault::CutRequest(100_000), 1);
    fake.fail("PATCH ", Fault::CutRequest(200_000), 3);
    let pushed = run(client().push_blob(&repository(&fake, "a/b"), &blob, &content, None));
    assert_eq!((pushed.expect("it gets there"), kept(&fake, "a/b", &blob)), (Delivery::Sent, Some(bytes)));
    // And not for ever.
    let fake = FakeRegistry::start(Gate::Open);
    fake.fail("PUT ", Fault::CutRequest(10), 99);
    fake.fail("PATCH ", Fault::CutRequest(0), 99);
    let error =
        run(client().push_blob(&repository(&fake, "a/b"), &blob, &content, None)).expect_err("nothing gets through");
    assert!(matches!(error, RegistryError::Transport { .. }), "{error}");
    assert!(fake.requests().len() < 40, "{}", fake.requests().len());
}

#[test]
fn a_server_that_gets_nowhere_is_left() {
    let (_, blob, content) = blob();
    let fake = FakeRegistry::start(Gate::Open);
    fake.manner(Manner { stays: true, ..Manner::default() });
    fake.fail("PUT ", Fault::CutRequest(0), 99);
    let error = run(client().push_blob(&repository(&fake, "a/b"), &blob, &content, None)).expect_err("it never ends");
    assert!(matches!(error, RegistryError::Transport { .. }), "{error}");
    assert!(fake.requests().len() < 40, "{}", fake.requests().len());
}

#[test]
fn a_server_that_takes_less_at_once_gets_less() {
    let (bytes, blob, content) = blob();
    let fake = FakeRegistry::start(Gate::Open);
    fake.manner(Manner { least_bytes: Some(100), ..Manner::default() });
    fake.fail("PUT ", Fault::Status(413, Vec::new()), 1);
    let pushed = run(client().push_blob(&repository(&fake, "a/b"), &blob, &content, None));
    assert_eq!((pushed.expect("it is taken"), kept(&fake, "a/b", &blob)), (Delivery::Sent, Some(bytes)));
    let lines = written(&fake);
    assert!(lines.iter().any(|line| line.starts_with("PATCH ")), "{lines:?}");
}

#[test]
fn a_busy_server_is_asked_again_and_one_that_forgets_is_told_of() {
    let (bytes, blob, content) = blob();
    let digest = of(DOCUMENT).digest;
    for (line, fault, count) in [
        ("POST ", Fault::Status(429, vec!["Retry-After: 0".to_owned()]), 2),
        ("POST ", Fault::Status(503, vec!["Retry-After: 0".to_owned()]), 3),
        ("PUT /v2/a/b/blobs", Fault::Status(500, vec!["Retry-After: 0".to_owned()]), 2),
        ("PUT /v2/a/b/blobs", Fault::Status(404, Vec::new()), 2),
        ("PUT /v2/a/b/manifests", Fault::Status(503, vec!["Retry-After: 0".to_owned()]), 2),
        ("HEAD ", Fault::Status(503, vec!["Retry-After: 0".to_owned()]), 2),
    ] {
        let fake = FakeRegistry::start(Gate::Open);
        fake.put(&format!("a/b/blobs/{}", of(b"there").digest), "application/octet-stream", b"there");
        fake.fail(line, fault, count);
        let (client, repository) = (client(), repository(&fake, "a/b"));
        run(client.push_blob(&repository, &blob, &content, None)).expect(line);
        run(client.push_document(&repository, "v1", MANIFEST_MEDIA_TYPE, DOCUMENT, &digest)).expect(line);
        assert_eq!(kept(&fake, "a/b", &blob), Some(bytes.clone()), "{line}");
        assert_eq!(fake.get("a/b/manifests/v1").as_deref(), Some(DOCUMENT), "{line}");
    }
    let fake = FakeRegistry::start(Gate::Open);
    fake.fail("PUT ", Fault::Forget, 2);
    let (client, repository) = (client(), repository(&fake, "a/b"));
    let error = run(client.push_blob(&repository, &blob, &content, None)).expect_err("it is not there");
    assert!(matches!(error, RegistryError::NotKept { .. }), "{error}");
    let error = run(client.push_document(&repository, "v1", MANIFEST_MEDIA_TYPE, DOCUMENT, &digest));
    assert!(matches!(error, Err(RegistryError::NotKept { .. })), "{error:?}");
}

#[test]
fn what_cannot_be_read_is_no_fault_of_the_server() {
    let (_, blob, _) = blob();
    let fake = FakeRegistry::start(Gate::Open);
    for (content, expected) in [
        (
            Arc::new(|_: &mut dyn Write| Err(std::io::ErrorKind::PermissionDenied.into())) as Content,
            "permission denied",
        ),
        (Arc::new(|sink: &mut dyn Write| sink.write_all(b"short")), "unexpected end of file"),
    ] {
        let error =
            run(client().push_blob(&repository(&fake, "a/b"), &blob, &content, None)).expect_err("it has not all");
        let RegistryError::Content { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind().to_string(), expected);
        assert_eq!(kept(&fake, "a/b", &blob), None);
    }
    // Other bytes are not taken.
    let content: Content = Arc::new(|sink: &mut dyn Write| sink.write_all(&[0; 900_000]));
    let error = run(client().push_blob(&repository(&fake, "a/b"), &blob, &content, None)).expect_err("they are others");
    assert!(matches!(error, RegistryError::Status { status: 400, .. }), "{error}");
    assert_eq!(kept(&fake, "a/b", &blob), None);
}

#[test]
fn writers_are_asked_who_they_are_and_other_hosts_are_told_nothing() {
    let (bytes, blob, content) = blob();
    let (basic, entry) = ("Basic bWU6czNjcmV0".to_owned(), r#"{"auth": "bWU6czNjcmV0"}"#);
    for gate in [Gate::Basic(basic.clone()), Gate::Token(basic.clone())] {
        let fake = FakeRegistry::start(gate.clone());
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let client = Client::new(logins(&folder, &fake, entry), std::collections::BTreeMap::new());
        run(client.push_blob(&repository(&fake, "x"), &blob, &content, None)).expect("it is let in");
        assert_eq!(kept(&fake, "x", &blob), Some(bytes.clone()), "{gate:?}");
        let tokens: Vec<String> =
            fake.requests().into_iter().map(|request| request.line).filter(|line| line.contains("/token")).collect();
        match gate {
            Gate::Token(_) => assert!(tokens.len() == 1 && tokens[0].contains("x%3Apull%2Cpush"), "{tokens:?}"),
            _ => assert!(tokens.is_empty(), "{tokens:?}"),
        }
    }
    let fake = FakeRegistry::start(Gate::Closed);
    let error = run(client().push_blob(&repository(&fake, "x"), &blob, &content, None)).expect_err("it is not let in");
    assert!(matches!(error, RegistryError::Denied { access: Access::Write, .. }), "{error}");
    // An upload that goes to another host.
    let (fake, elsewhere) = (FakeRegistry::start(Gate::Basic(basic)), FakeRegistry::start(Gate::Open));
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let client = Client::new(logins(&folder, &fake, entry), std::collections::BTreeMap::new());
    fake.manner(Manner { elsewhere: Some(format!("http://{}", elsewhere.address())), ..Manner::default() });
    let pushed = run(client.push_blob(&repository(&fake, "x"), &blob, &content, None));
    assert!(pushed.is_err(), "nobody has begun it there");
    let requests = elsewhere.requests();
    assert!(!requests.is_empty() && requests.iter().all(|request| request.header("authorization").is_none()));
}
