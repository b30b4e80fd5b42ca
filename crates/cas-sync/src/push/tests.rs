//! Pushes to registries of tests.

use std::io::Write;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_oci::{INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Repository};
use cas_registry::Content;
use cas_testing::registry::{FakeRegistry, Fault, Gate, Request};

use super::*;
use crate::{ShippedBlob, ShippedDocument};

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor::of(DigestFunction::Sha256, bytes)
}

fn blob(bytes: &'static [u8]) -> ShippedBlob {
    let content: Content = Arc::new(move |sink: &mut dyn Write| sink.write_all(bytes));
    ShippedBlob { blob: of(bytes), content, source: None }
}

fn document(media_type: &str, text: String) -> ShippedDocument {
    ShippedDocument { blob: of(text.as_bytes()), media_type: media_type.to_owned(), bytes: text.into_bytes() }
}

/// Two manifests over three blobs, and the index of both; `what` makes it another one.
fn shipment(what: &str) -> Shipment {
    let blobs = vec![blob(b"config"), blob(b"layer"), blob(b"another layer")];
    let manifest = |layer: usize| {
        let (config, layer) = (blobs[0].blob.digest, blobs[layer].blob.digest);
        let text = format!(r#"{{"what":"{what}","config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}}]}}"#);
        document(MANIFEST_MEDIA_TYPE, text)
    };
    let (one, other) = (manifest(1), manifest(2));
    let names = format!(r#"{{"digest":"{}"}},{{"digest":"{}"}}"#, one.blob.digest, other.blob.digest);
    let index = document(INDEX_MEDIA_TYPE, format!(r#"{{"manifests":[{names}]}}"#));
    Shipment { documents: vec![one, other, index], blobs }
}

fn client() -> Client {
    Client::new(Vec::new(), std::collections::BTreeMap::new())
}

fn target(fake: &FakeRegistry, path: &str, tags: &[&str]) -> Target {
    let repository = Repository { host: fake.address().to_owned(), path: path.to_owned() };
    Target { repository, tags: tags.iter().map(|tag| (*tag).to_owned()).collect() }
}

fn pushed(shipment: &Shipment, targets: &[Target], options: &PushOptions) -> Result<Vec<Pushed>, SyncError> {
    push(&client(), shipment, targets, options, &|_| ())
}

/// Requests that write.
fn writes(fake: &FakeRegistry) -> Vec<String> {
    let writes = |request: &Request| !request.line.starts_with("HEAD ");
    fake.requests().into_iter().filter(writes).map(|request| request.line).collect()
}

#[test]
fn everything_is_by_digest_before_it_has_a_tag_and_is_sent_once() {
    let (one, other) = (FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    let shipment = shipment("x");
    let targets = [target(&one, "a", &["1.0.0", "1"]), target(&other, "b/c", &["1.0.0"])];
    let done = pushed(&shipment, &targets, &PushOptions::default()).expect("both take it");
    for (fake, path, pushed) in [(&one, "a", &done[0]), (&other, "b/c", &done[1])] {
        assert_eq!((pushed.sent, pushed.known), ((3, 24), (0, 0)));
        assert!(pushed.tags.iter().all(|tag| tag.change == TagChange::New), "{pushed:?}");
        let root = &shipment.root().bytes;
        assert_eq!(fake.get(&format!("{path}/manifests/1.0.0")).as_ref(), Some(root));
        let lines = writes(fake);
        let tag = lines.iter().position(|line| line.ends_with("manifests/1.0.0")).expect("it has it");
        // Three blobs of two requests, three documents, and then tags.
        assert_eq!(tag, 9, "{lines:?}");
    }
    let again = pushed(&shipment, &targets, &PushOptions::default()).expect("they have it");
    assert_eq!((again[0].sent, again[0].known), ((0, 0), (3, 24)));
    assert!(again.iter().flat_map(|pushed| &pushed.tags).all(|tag| tag.change == TagChange::Same));
    assert_eq!((writes(&one).len(), writes(&other).len()), (11, 10));
}

#[test]
fn one_document_for_one_place_goes_by_its_tag() {
    let fake = FakeRegistry::start(Gate::Open);
    let whole = shipment("x");
    let shipment = Shipment { documents: whole.documents[..1].to_vec(), blobs: whole.blobs[..2].to_vec() };
    pushed(&shipment, &[target(&fake, "a", &["1.0.0", "1"])], &PushOptions::default()).expect("it is taken");
    let lines = writes(&fake);
    assert_eq!(lines[4..], ["PUT /v2/a/manifests/1.0.0", "PUT /v2/a/manifests/1"], "{lines:?}");
    // Where there is a second place, nobody gets a tag before both have all of it.
    let other = FakeRegistry::start(Gate::Open);
    other.fail("PUT /v2/b/manifests", Fault::Status(400, Vec::new()), 1);
    let targets = [target(&fake, "b", &["1.0.0"]), target(&other, "b", &["1.0.0"])];
    pushed(&shipment, &targets, &PushOptions::default()).expect_err("one of them fails");
    assert!(fake.get("b/manifests/1.0.0").is_none());
    // Without a tag it has its digest.
    pushed(&shipment, &[target(&fake, "c", &[])], &PushOptions::default()).expect("it is taken");
    assert!(fake.get(&format!("c/manifests/{}", shipment.root().blob.digest)).is_some());
}

#[test]
fn tags_move_when_somebody_says_so_and_versions_never() {
    let fake = FakeRegistry::start(Gate::Open);
    let (old, new) = (shipment("old"), shipment("new"));
    pushed(&old, &[target(&fake, "a", &["1.0.0", "stable", "4f2a9c1"])], &PushOptions::default()).expect("it is new");
    let moving = |tags: &[&str]| PushOptions {
        moved: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        is_dry: false,
        ..PushOptions::default()
    };
    let before = writes(&fake).len();
    for (tag, moved, class) in [
        ("1.0.0", &[][..], TagClass::Version),
        ("1.0.0", &["1.0.0"], TagClass::Version),
        ("4f2a9c1", &["4f2a9c1"], TagClass::Commit),
        ("stable", &["other"], TagClass::Moving),
    ] {
        // A tag that would be free gets nothing either.
        let error = pushed(&new, &[target(&fake, "a", &["2.0.0", tag])], &moving(moved)).expect_err("it is taken");
        assert!(matches!(&error, SyncError::Taken { class: found, .. } if *found == class), "{error}");
    }
    assert_eq!(writes(&fake).len(), before, "nothing was sent");
    let done = pushed(&new, &[target(&fake, "a", &["2.0.0", "stable"])], &moving(&["stable"])).expect("it may");
    let old = old.root().blob.digest;
    assert_eq!(done[0].tags.iter().map(|tag| tag.change).collect::<Vec<_>>(), [TagChange::New, TagChange::Moved(old)]);
    assert_eq!(fake.get("a/manifests/stable").as_ref(), Some(&new.root().bytes));
    let error =
        pushed(&new, &[target(&fake, "a", &["latest"])], &PushOptions::default()).expect_err("that is all it has");
    assert!(matches!(error, SyncError::OnlyLatest { .. }), "{error}");
    pushed(&new, &[target(&fake, "a", &["2.0.0", "latest"])], &PushOptions::default()).expect("it has a version");
    // Nobody needs a tag.
    pushed(&new, &[target(&fake, "b", &[])], &PushOptions::default()).expect("it has its digest");
    assert!(fake.get(&format!("b/manifests/{}", new.root().blob.digest)).is_some());
}

#[test]
fn when_one_registry_fails_no_tag_is_set_and_the_next_push_ends_it() {
    let (one, other) = (FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    let shipment = shipment("x");
    let targets = [target(&one, "a", &["1.0.0"]), target(&other, "b", &["1.0.0"])];
    for line in ["PUT /v2/b/blobs", &format!("PUT /v2/b/manifests/{}", shipment.documents[1].blob.digest)] {
        other.fail(line, Fault::Status(400, Vec::new()), 1);
        let error = pushed(&shipment, &targets, &PushOptions::default()).expect_err("one of them fails");
        let [(name, failure)] = error.failures() else { panic!("{:?}", error.failures()) };
        assert!(name.ends_with("/b") && matches!(**failure, SyncError::Registry(_)), "{failure}");
        assert!(one.get("a/manifests/1.0.0").is_none() && other.get("b/manifests/1.0.0").is_none());
    }
    other.fail("PUT /v2/b/manifests/1.0.0", Fault::Status(400, Vec::new()), 1);
    let error = pushed(&shipment, &targets, &PushOptions::default()).expect_err("one of them fails");
    assert!(matches!(error, SyncError::PartialTags { .. }), "{error}");
    assert!(one.get("a/manifests/1.0.0").is_some() && other.get("b/manifests/1.0.0").is_none());
    let done = pushed(&shipment, &targets, &PushOptions::default()).expect("it goes on");
    assert_eq!((done[0].tags[0].change, done[1].tags[0].change), (TagChange::Same, TagChange::New));
    assert_eq!((done[1].sent.0, done[1].known.0), (0, 3));
}

#[test]
fn a_dry_run_sends_nothing_and_tells_all() {
    let fake = FakeRegistry::start(Gate::Open);
    let shipment = shipment("x");
    fake.put(&format!("a/blobs/{}", of(b"layer").digest), "application/octet-stream", b"layer");
    let options = PushOptions { is_dry: true, ..PushOptions::default() };
    let done = pushed(&shipment, &[target(&fake, "a", &["1.0.0"])], &options).expect("it would work");
    assert_eq!((done[0].sent, done[0].known, done[0].tags[0].change), ((2, 19), (1, 5), TagChange::New));
    assert_eq!(writes(&fake), [""; 0]);
}

/// Looking and writing are two requests.
#[test]
fn a_tag_that_somebody_else_sets_meanwhile_is_theirs() {
    let fake = FakeRegistry::start(Gate::Open);
    let (theirs, ours) = (shipment("theirs"), shipment("ours"));
    let options = PushOptions::default();
    let told = |_: PushEvent<'_>| fake.put("a/manifests/1.0.0", INDEX_MEDIA_TYPE, &theirs.root().bytes);
    let error =
        push(&client(), &ours, &[target(&fake, "a", &["1.0.0"])], &options, &told).expect_err("it is taken now");
    assert!(matches!(error, SyncError::Moved { .. }), "{error}");
    assert_eq!(fake.get("a/manifests/1.0.0").as_ref(), Some(&theirs.root().bytes));
}

#[test]
fn a_long_blob_is_read_once_for_all_registries() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (one, other) = (FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let (reads, blob) = (Arc::new(AtomicUsize::new(0)), of(&bytes));
    let (count, shared) = (Arc::clone(&reads), bytes.clone());
    let content: Content = Arc::new(move |sink: &mut dyn Write| {
        count.fetch_add(1, Ordering::SeqCst);
        sink.write_all(&shared)
    });
    let text = format!(r#"{{"layers":[{{"digest":"{}"}}]}}"#, blob.digest);
    let blobs = vec![ShippedBlob { blob, content, source: None }];
    let shipment = Shipment { documents: vec![document(MANIFEST_MEDIA_TYPE, text)], blobs };
    let targets = [target(&one, "a", &["1.0.0"]), target(&other, "b", &["1.0.0"])];
    pushed(&shipment, &targets, &PushOptions::default()).expect("both take it");
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    for (fake, path) in [(&one, "a"), (&other, "b")] {
        assert!(fake.get(&format!("{path}/blobs/{}", blob.digest)) == Some(bytes.clone()), "{path}");
    }
    // One that breaks off in the middle reads the rest by itself, and holds nobody up.
    let targets = [target(&one, "c", &["1.0.0"]), target(&other, "d", &["1.0.0"])];
    one.fail("PUT /v2/c/blobs/uploads", Fault::CutRequest(700_000), 1);
    pushed(&shipment, &targets, &PushOptions::default()).expect("both take it");
    assert!(reads.load(Ordering::SeqCst) > 2);
    assert!(one.get(&format!("c/blobs/{}", blob.digest)) == Some(bytes));
}
