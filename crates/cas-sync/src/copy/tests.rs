//! Copies between registries of tests.

use std::collections::BTreeMap;

use cas_digest::DigestFunction;
use cas_oci::{DOCKER_INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Repository};
use cas_registry::{Delivery, RegistryError};
use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner};

use super::*;
use crate::{TagChange, TagClass};

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor::of(DigestFunction::Sha256, bytes)
}

fn client() -> Arc<Client> {
    Arc::new(Client::new(Vec::new(), BTreeMap::new()))
}

fn reference(fake: &FakeRegistry, rest: &str) -> Reference {
    format!("{}/{rest}", fake.address()).parse().expect("it is a name")
}

fn target(fake: &FakeRegistry, path: &str, tags: &[&str]) -> Target {
    let repository = Repository { host: fake.address().to_owned(), path: path.to_owned() };
    Target { repository, tags: tags.iter().map(|tag| (*tag).to_owned()).collect() }
}

fn link(media_type: &str, bytes: &[u8], more: &str) -> String {
    let blob = of(bytes);
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}{more}}}"#, blob.digest, blob.size)
}

fn index(media_type: &str, links: &[String]) -> String {
    format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]}}"#, links.join(","))
}

/// A layer that comes in several pieces.
fn layer(number: u8) -> Vec<u8> {
    (0..300_000u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1] ^ number).collect()
}

/// An image for two platforms under `src:1`, by OCI's or Docker's media types. White space stays as it is.
fn filled(gate: Gate, is_docker: bool) -> (FakeRegistry, String) {
    let fake = FakeRegistry::start(gate);
    let (manifest_type, index_type) = match is_docker {
        true => (DOCKER_MANIFEST_MEDIA_TYPE, DOCKER_INDEX_MEDIA_TYPE),
        false => (MANIFEST_MEDIA_TYPE, INDEX_MEDIA_TYPE),
    };
    let put = |bytes: &[u8]| fake.put(&format!("src/blobs/{}", of(bytes).digest), "application/octet-stream", bytes);
    let document = |media_type: &str, text: &str| {
        fake.put(&format!("src/manifests/{}", of(text.as_bytes()).digest), media_type, text.as_bytes());
    };
    let mut links = Vec::new();
    for (number, architecture) in [(1, "amd64"), (2, "arm64")] {
        let config =
            format!(r#"{{"architecture":"{architecture}","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}}}}"#);
        let layers = [layer(0), layer(number)];
        put(config.as_bytes());
        layers.iter().for_each(|layer| put(layer));
        let layers = layers.map(|bytes| link("application/vnd.x", &bytes, "")).join(", ");
        let config = link("application/vnd.oci.image.config.v1+json", config.as_bytes(), "");
        let text = format!(
            "{{ \"schemaVersion\":2,\"mediaType\":\"{manifest_type}\",\n\"config\":{config},\"layers\":[{layers}]}}"
        );
        document(manifest_type, &text);
        let platform = format!(r#","platform":{{"os":"linux","architecture":"{architecture}"}}"#);
        links.push(link(manifest_type, text.as_bytes(), &platform));
    }
    let text = index(index_type, &links);
    document(index_type, &text);
    fake.put("src/manifests/1", index_type, text.as_bytes());
    (fake, text)
}

fn copied(fake: &FakeRegistry, targets: &[Target]) -> Result<Copied, SyncError> {
    copy(&client(), &reference(fake, "src:1"), &CopyOptions::default(), targets, &PushOptions::default(), &|_| ())
}

#[test]
fn all_of_an_index_comes_to_all_registries_byte_for_byte() {
    for is_docker in [false, true] {
        let (source, text) = filled(Gate::Anonymous, is_docker);
        let (one, other) = (FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
        let targets = [target(&one, "a", &["1.0.0"]), target(&other, "b/c", &["1.0.0", "latest"])];
        let done = copied(&source, &targets).expect("all is there");
        assert_eq!(done.root, of(text.as_bytes()));
        for (pushed, fake, path) in [(&done.done[0], &one, "a"), (&done.done[1], &other, "b/c")] {
            assert_eq!((pushed.sent.0, pushed.known.0), (5, 0));
            assert_eq!(fake.get(&format!("{path}/manifests/1.0.0")), Some(text.clone().into_bytes()));
            for line in source.requests().iter().filter_map(|request| request.line.strip_prefix("GET /v2/src/")) {
                let (kind, name) = line.split_once('/').expect("it has a name");
                let bytes = source.get(&format!("src/{kind}/{name}"));
                if name != "1" {
                    assert!(bytes.is_some(), "{line}");
                    assert_eq!(fake.get(&format!("{path}/{kind}/{name}")), bytes, "{line}");
                }
            }
        }
        // What is there is not read again.
        let before = source.requests().len();
        let again = copied(&source, &targets).expect("all is there");
        assert!(again.done.iter().all(|pushed| pushed.sent.0 == 0 && pushed.known.0 == 5), "{again:?}");
        let lines: Vec<String> = source.requests()[before..].iter().map(|request| request.line.clone()).collect();
        assert!(!lines.iter().any(|line| line.contains("/blobs/")), "{lines:?}");
    }
}

#[test]
fn one_platform_is_the_manifest_for_it() {
    let (source, text) = filled(Gate::Open, false);
    let fake = FakeRegistry::start(Gate::Open);
    let with = |source: &Reference, platform: &str, path: &str| {
        let platform = platform.parse().expect("it is one");
        let what = CopyOptions { platform: Some(&platform), referrers: true };
        copy(&client(), source, &what, &[target(&fake, path, &["1"])], &PushOptions::default(), &|_| ())
    };
    let done = with(&reference(&source, "src:1"), "linux/arm64", "a").expect("it is there");
    assert!(text.contains(&done.root.digest.to_string()));
    let own = fake.get("a/manifests/1").expect("it has a tag");
    assert_eq!((of(&own), done.done[0].sent.0), (done.root, 3));
    assert!(String::from_utf8_lossy(&own).contains(&of(&layer(2)).digest.to_string()));
    // A manifest of its own is compared by its configuration.
    let own = reference(&source, &format!("src@{}", done.root.digest));
    assert_eq!(with(&own, "linux/arm64", "b").expect("it is for that").root, done.root);
    for source in [reference(&source, "src:1"), own] {
        let error = with(&source, "linux/riscv64", "c").expect_err("it is not there");
        assert!(matches!(error, SyncError::Platform { .. }), "{error}");
    }
    assert!(fake.get("c/manifests/1").is_none());
}

#[test]
fn a_source_that_lies_gives_nothing_a_tag() {
    let other: Vec<u8> = layer(9);
    for (what, line, fault, count, said) in [
        ("other bytes", "blobs", Fault::Body(other.clone()), 1, "is not what it is named as: its bytes are `sha256:"),
        ("fewer", "blobs", Fault::Body(layer(0)[..5].to_vec()), 1, "it ends after 5 of 300000 bytes"),
        ("more", "blobs", Fault::Body([layer(0), vec![0]].concat()), 1, "it has more than 300000 bytes"),
        ("no end", "blobs", Fault::Endless, 1, "it has more than 300000 bytes"),
        ("nothing", "blobs", Fault::Cut(0), 99, "could not be asked about"),
        ("not there", "blobs", Fault::Status(404, Vec::new()), 99, "does not exist in"),
        ("another document", "manifests/sha256", Fault::Body(b"{}".to_vec()), 1, "gave something else for"),
        ("no document", "manifests/1", Fault::Body(b"[]".to_vec()), 1, "cannot be copied"),
    ] {
        let (source, _) = filled(Gate::Open, false);
        let fakes = [FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open)];
        let bad = of(&layer(0)).digest;
        let line = if line == "blobs" { format!("GET /v2/src/blobs/{bad}") } else { format!("GET /v2/src/{line}") };
        source.fail(&line, fault, count);
        let targets = [target(&fakes[0], "a", &["1.0.0"]), target(&fakes[1], "b", &["1.0.0"])];
        let error = copied(&source, &targets[..1]).expect_err(what);
        let told = error.to_string();
        assert!(told.contains(said) && told.contains(source.address()), "{what}: {told}");
        assert!(!told.contains(fakes[0].address()), "{what}: it is not that one's fault: {told}");
        if line.contains("blobs") {
            assert!(told.contains(&bad.to_string()), "{what}: {told}");
            assert!(fakes[0].get(&format!("a/blobs/{bad}")).is_none(), "{what}");
        }
        // The other one has all of it by now or not; no tag either way.
        source.fail(&line, Fault::Body(b"x".to_vec()), 1);
        copied(&source, &targets).expect_err(what);
        assert!(fakes[0].get("a/manifests/1.0.0").is_none() && fakes[1].get("b/manifests/1.0.0").is_none(), "{what}");
    }
}

#[test]
fn a_copy_goes_on_after_either_side_broke_off() {
    let (source, text) = filled(Gate::Open, false);
    let fake = FakeRegistry::start(Gate::Open);
    source.fail("GET /v2/src/blobs", Fault::Cut(100_000), 3);
    // Of one layer: other blobs may come first, and are shorter.
    let put = |number| format!("digest=sha256%3A{}", of(&layer(number)).digest.to_hex());
    fake.fail(&put(0), Fault::CutRequest(200_000), 1);
    let pieces = FakeRegistry::start(Gate::Open);
    copied(&source, &[target(&fake, "a", &["1.0.0"])]).expect("it goes on");
    // What an upload that broke off has is not read again.
    let ranges: Vec<String> =
        source.requests().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert!(ranges.iter().any(|range| *range == "bytes=200000-"), "{ranges:?}");
    source.fail("GET /v2/src/blobs", Fault::Whole, 9);
    for number in 0..2 {
        pieces.fail(&put(number), Fault::CutRequest(250_000), 1);
    }
    copied(&source, &[target(&pieces, "a", &["1.0.0"])]).expect("it goes on");
    for number in 0..3 {
        assert_eq!(pieces.get(&format!("a/blobs/{}", of(&layer(number)).digest)), Some(layer(number)));
    }
    assert_eq!(fake.get("a/manifests/1.0.0"), Some(text.into_bytes()));
    for number in 0..3 {
        assert_eq!(fake.get(&format!("a/blobs/{}", of(&layer(number)).digest)), Some(layer(number)));
    }
}

#[test]
fn what_one_host_has_is_not_read() {
    let (fake, text) = filled(Gate::Open, false);
    fake.manner(Manner { mounts: true, ..Manner::default() });
    let done = copied(&fake, &[target(&fake, "a", &["1.0.0"])]).expect("it is there");
    assert_eq!((done.done[0].mounted.0, done.done[0].sent.0), (5, 0));
    assert_eq!(fake.get("a/manifests/1.0.0"), Some(text.into_bytes()));
    assert!(!fake.requests().iter().any(|request| request.line.starts_with("GET /v2/src/blobs")));
    // Where the registry does not do it, all comes the long way.
    fake.manner(Manner::default());
    let events = std::sync::Mutex::new(Vec::new());
    let told = |event: PushEvent<'_>| {
        let PushEvent::Delivered { delivery, .. } = event else { return };
        events.lock().expect("nobody panics").push(delivery);
    };
    let targets = [target(&fake, "b", &["1.0.0"])];
    let done =
        copy(&client(), &reference(&fake, "src:1"), &CopyOptions::default(), &targets, &PushOptions::default(), &told);
    assert_eq!(done.expect("it is there").done[0].sent.0, 5);
    assert_eq!(events.into_inner().expect("nobody panics"), vec![Delivery::Sent; 5]);
}

#[test]
fn indexes_of_indexes_have_an_end() {
    let (fake, mut text) = filled(Gate::Open, false);
    let to = FakeRegistry::start(Gate::Open);
    for (depth, is_fine) in [(3, true), (4, true), (5, false)] {
        if depth > 3 {
            text = index(INDEX_MEDIA_TYPE, &[link(INDEX_MEDIA_TYPE, text.as_bytes(), "")]);
        } else {
            let twice = link(INDEX_MEDIA_TYPE, text.as_bytes(), "");
            text = index(INDEX_MEDIA_TYPE, &[twice.clone(), twice]);
        }
        fake.put(&format!("src/manifests/{}", of(text.as_bytes()).digest), INDEX_MEDIA_TYPE, text.as_bytes());
        fake.put(&format!("src/manifests/d{depth}"), INDEX_MEDIA_TYPE, text.as_bytes());
        let source = reference(&fake, &format!("src:d{depth}"));
        let targets = [target(&to, &format!("d{depth}"), &["1"])];
        let done = copy(&client(), &source, &CopyOptions::default(), &targets, &PushOptions::default(), &|_| ());
        match done {
            Ok(done) => assert!(is_fine && done.root == of(text.as_bytes()), "{depth}"),
            Err(error) => assert!(!is_fine && matches!(error, SyncError::Nested { .. }), "{depth}: {error}"),
        }
        assert_eq!(to.get(&format!("d{depth}/manifests/1")).is_some(), is_fine, "{depth}");
    }
    // A size that is not that of what is there.
    let wrong = link(INDEX_MEDIA_TYPE, text.as_bytes(), "").replace("\"size\":", "\"size\":1");
    let text = index(INDEX_MEDIA_TYPE, &[wrong]);
    fake.put("src/manifests/1", INDEX_MEDIA_TYPE, text.as_bytes());
    let error = copied(&fake, &[target(&to, "x", &["1"])]).expect_err("it is another one");
    assert!(matches!(error, SyncError::Named { .. }), "{error}");
}

#[test]
fn layers_that_may_not_be_given_away_stay_where_they_are() {
    let (fake, to) = (FakeRegistry::start(Gate::Open), FakeRegistry::start(Gate::Open));
    fake.put(&format!("src/blobs/{}", of(b"{}").digest), "application/octet-stream", b"{}");
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let foreign =
        link(foreign, b"far away", r#","urls":["https://x.example/"]"#).replace("\"digest\":", "\"digest\": ");
    let config = link("application/vnd.docker.container.image.v1+json", b"{}", "");
    let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{foreign}]}}"#);
    fake.put("src/manifests/1", DOCKER_MANIFEST_MEDIA_TYPE, text.as_bytes());
    let done = copied(&fake, &[target(&to, "a", &["1.0.0"])]).expect("it is not looked for");
    assert_eq!((done.elsewhere, done.done[0].sent.0), (vec![of(b"far away")], 1));
}

#[test]
fn tags_are_set_on_what_is_there_by_the_rules_of_a_push() {
    let (fake, text) = filled(Gate::Anonymous, false);
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
    let set = |rest: &str, names: &[&str], moved: &[&str]| {
        let options = PushOptions { moved: tags(moved).into_iter().collect(), is_dry: false, ..PushOptions::default() };
        tag(&client(), &reference(&fake, rest), &tags(names), &options)
    };
    let done = set("src:1", &["1.0.0", "stable", "latest"], &[]).expect("they are new");
    assert_eq!(done.root, of(text.as_bytes()));
    let changes: Vec<_> = done.done[0].tags.iter().map(|tag| (&*tag.tag, tag.change)).collect();
    assert_eq!(changes, [("1.0.0", TagChange::New), ("stable", TagChange::New), ("latest", TagChange::New)]);
    // Another one, which is there by its digest alone.
    let other = text.replace("\"schemaVersion\":2", "\"schemaVersion\": 2");
    let digest = of(other.as_bytes()).digest;
    fake.put(&format!("src/manifests/{digest}"), INDEX_MEDIA_TYPE, other.as_bytes());
    let by_digest = format!("src@{digest}");
    for (names, moved, class) in
        [(&["1.0.0"][..], &["1.0.0"][..], TagClass::Version), (&["2.0.0", "stable"], &[], TagClass::Moving)]
    {
        let error = set(&by_digest, names, moved).expect_err("it is taken");
        assert!(matches!(&error, SyncError::Taken { class: found, .. } if *found == class), "{error}");
    }
    assert!(fake.get("src/manifests/2.0.0").is_none());
    let error = set(&by_digest, &["latest"], &["latest"]).expect_err("nothing else names it");
    assert!(matches!(error, SyncError::OnlyLatest { .. }), "{error}");
    let done = set(&by_digest, &["stable"], &["stable"]).expect("it may");
    assert_eq!(done.done[0].tags[0].change, TagChange::Moved(of(text.as_bytes()).digest));
    // By its tag `latest` has company.
    let done = set("src:stable", &["latest"], &["latest"]).expect("it may");
    assert_eq!((done.done[0].tags.len(), done.root), (1, of(other.as_bytes())));
    assert_eq!(fake.get("src/manifests/latest"), Some(other.into_bytes()));
    let error = set("src:nope", &["3.0.0"], &[]).expect_err("it is not there");
    assert!(matches!(error, SyncError::Registry(RegistryError::NotFound { .. })), "{error}");
}

/// A manifest about another one, with a blob of its own.
fn about(fake: &FakeRegistry, subject: &[u8], what: &str) -> Vec<u8> {
    fake.put(&format!("src/blobs/{}", of(what.as_bytes()).digest), "application/octet-stream", what.as_bytes());
    let (blob, subject) = (link("application/vnd.x", what.as_bytes(), ""), link(INDEX_MEDIA_TYPE, subject, ""));
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST_MEDIA_TYPE}","artifactType":"application/vnd.{what}","config":{blob},"layers":[],"subject":{subject}}}"#
    );
    fake.put(&format!("src/manifests/{}", of(text.as_bytes()).digest), MANIFEST_MEDIA_TYPE, text.as_bytes());
    text.into_bytes()
}

#[test]
fn what_refers_to_it_comes_along() {
    for (lists, keeps) in [(true, true), (true, false), (false, true), (false, false)] {
        let (source, text) = filled(Gate::Open, false);
        let fake = FakeRegistry::start(Gate::Open);
        source.manner(Manner { lists_referrers: lists, ..Manner::default() });
        fake.manner(Manner { lists_referrers: keeps, ..Manner::default() });
        let contents = about(&source, text.as_bytes(), "contents");
        let signature = about(&source, &contents, "signature");
        // One is listed and gone, one is about something else.
        let other = about(&source, b"something else", "other");
        let gone = link(MANIFEST_MEDIA_TYPE, b"gone", "");
        let tag = |subject: &[u8]| format!("src/manifests/{}", cas_registry::referrers_tag(&of(subject).digest));
        if !lists {
            let links = [link(MANIFEST_MEDIA_TYPE, &contents, ""), gone, link(MANIFEST_MEDIA_TYPE, &other, "")];
            source.put(&tag(text.as_bytes()), INDEX_MEDIA_TYPE, index(INDEX_MEDIA_TYPE, &links).as_bytes());
            let links = [link(MANIFEST_MEDIA_TYPE, &signature, "")];
            source.put(&tag(&contents), INDEX_MEDIA_TYPE, index(INDEX_MEDIA_TYPE, &links).as_bytes());
        }
        let what = CopyOptions { platform: None, referrers: true };
        let name = reference(&source, "src:1");
        let targets = [target(&fake, "a", &["1.0.0"])];
        for _ in 0..2 {
            let done = copy(&client(), &name, &what, &targets, &PushOptions::default(), &|_| ()).expect("all is there");
            let lost = if lists { Vec::new() } else { vec![of(b"gone").digest] };
            assert_eq!((done.referrers, done.lost, done.done[0].known.0 + done.done[0].sent.0), (2, lost, 7));
        }
        // They are found where they are now, by whatever way that registry has.
        let runtime = runtime().expect("the machine has threads");
        for (subject, referrer) in [(text.as_bytes(), &contents), (&contents, &signature)] {
            let (client, digest) = (client(), of(subject).digest);
            let found = runtime.block_on(client.referrers(&targets[0].repository, &digest, None));
            let found = found.expect("they are listed");
            assert_eq!(found.iter().map(|found| found.blob).collect::<Vec<_>>(), [of(referrer)], "{lists} {keeps}");
            let at = fake.get(&format!("a/manifests/{}", of(referrer).digest));
            assert_eq!(at.as_ref(), Some(referrer), "{lists} {keeps}");
        }
        assert!(fake.get(&format!("a/manifests/{}", of(&other).digest)).is_none());
        // Before the tag, so that nobody meets it without.
        let lines: Vec<String> = fake.requests().into_iter().map(|request| request.line).collect();
        let place = |text: &str| lines.iter().position(|line| line.starts_with("PUT") && line.contains(text));
        assert!(place(&of(&signature).digest.to_string()) < place("manifests/1.0.0"), "{lines:?}");
        // And not where nobody wants them.
        let without = [target(&fake, "b", &["1.0.0"])];
        let name = reference(&source, "src:1");
        let done = copy(&client(), &name, &CopyOptions::default(), &without, &PushOptions::default(), &|_| ());
        assert_eq!(done.expect("all is there").referrers, 0);
        assert!(fake.get(&format!("b/manifests/{}", of(&contents).digest)).is_none());
    }
}
