//! What refers to a manifest, in registries that keep lists and in those that do not.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_oci::{ArtifactBlob, ArtifactManifest, EMPTY_CONTENT, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Repository};
use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner};

use super::{DOCUMENT, client, of, run};
use crate::{Linked, Referrer, RegistryError, referrers_tag};

/// A registry with a manifest to refer to.
fn registry(manner: Manner) -> (FakeRegistry, Repository) {
    let fake = FakeRegistry::start(Gate::Open);
    fake.manner(manner);
    fake.put(&format!("a/b/manifests/{}", of(DOCUMENT).digest), MANIFEST_MEDIA_TYPE, DOCUMENT);
    fake.put(&format!("a/b/blobs/{}", of(EMPTY_CONTENT).digest), "application/octet-stream", EMPTY_CONTENT);
    let repository = Repository { host: fake.address().to_owned(), path: "a/b".to_owned() };
    (fake, repository)
}

fn referrer(kind: &str, note: &str) -> (Referrer, Vec<u8>) {
    let annotations = BTreeMap::from([("note".to_owned(), note.to_owned())]);
    let bytes = cas_oci::encode_artifact(&ArtifactManifest {
        artifact_type: kind,
        config: &ArtifactBlob::empty(),
        files: &[],
        subject: Some((MANIFEST_MEDIA_TYPE, of(DOCUMENT))),
        annotations: &annotations,
    });
    let (blob, media_type): (Descriptor, _) = (of(&bytes), MANIFEST_MEDIA_TYPE.to_owned());
    (Referrer { media_type, blob, artifact_type: Some(kind.to_owned()), annotations }, bytes)
}

#[test]
fn what_refers_to_a_manifest_is_found_in_every_manner() {
    let subject = of(DOCUMENT).digest;
    for (manner, expected) in [
        (Manner::default(), Linked::ByTag),
        (Manner { lists_referrers: true, ..Manner::default() }, Linked::ByRegistry),
        (Manner { lists_referrers: true, referrers_page: Some(2), ..Manner::default() }, Linked::ByRegistry),
    ] {
        let (fake, repository) = registry(manner.clone());
        let found = |kind| run(client().referrers(&repository, &subject, kind)).expect("the registry answers");
        assert_eq!(found(None), [], "{manner:?}");
        let mut all = Vec::new();
        for (kind, note) in [("a/x+json", "1"), ("a/x+json", "2"), ("a/y", "3"), ("a/x+json", "4"), ("a/x+json", "5")] {
            let (referrer, bytes) = referrer(kind, note);
            // Twice, and there once.
            for _ in 0..2 {
                let linked =
                    run(client().push_referrer(&repository, &subject, &referrer, &bytes)).expect("it is taken");
                assert_eq!(linked, expected, "{manner:?}");
            }
            all.push(referrer);
        }
        for (kind, count) in [(None, 5), (Some("a/x+json"), 4), (Some("a/y"), 1), (Some("a/z"), 0)] {
            let mut found = found(kind);
            found.sort_by_key(|referrer| referrer.annotations.clone());
            let wanted = |referrer: &&Referrer| kind.is_none() || referrer.artifact_type.as_deref() == kind;
            let expected: Vec<Referrer> = all.iter().filter(wanted).cloned().collect();
            assert_eq!((found.len(), found), (count, expected), "{manner:?} {kind:?}");
        }
        let tag = fake.get(&format!("a/b/manifests/{}", referrers_tag(&subject)));
        assert_eq!(tag.is_some(), expected == Linked::ByTag, "{manner:?}");
    }
}

#[test]
fn the_index_of_others_is_added_to_and_what_is_none_is_left() {
    let (subject, (referrer, bytes)) = (of(DOCUMENT).digest, referrer("a/x", "1"));
    let place = format!("a/b/manifests/{}", referrers_tag(&subject));
    let item = format!(
        r#"{{"mediaType":"{MANIFEST_MEDIA_TYPE}","digest":"{}","size":20,"platform":{{"os":"linux"}},"other":[1]}}"#,
        subject
    );
    let (fake, repository) = registry(Manner::default());
    fake.put(&place, INDEX_MEDIA_TYPE, format!(r#"{{"schemaVersion":2,"manifests":[{item},{{}}]}}"#).as_bytes());
    run(client().push_referrer(&repository, &subject, &referrer, &bytes)).expect("it is added");
    let index: serde_json::Value = serde_json::from_slice(&fake.get(&place).expect("it is there")).expect("it is JSON");
    assert_eq!(index["manifests"][0], serde_json::from_str::<serde_json::Value>(&item).expect("it is JSON"));
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(3));
    let (fake, repository) = registry(Manner::default());
    let other = br#"{"schemaVersion": 2, "layers": []}"#;
    fake.put(&place, MANIFEST_MEDIA_TYPE, other);
    let error = run(client().push_referrer(&repository, &subject, &referrer, &bytes)).expect_err("it is no index");
    assert!(matches!(error, RegistryError::NoIndex { .. }), "{error}");
    assert_eq!(fake.get(&place).as_deref(), Some(&other[..]));
}

/// cosign 3.0 keeps such an index, and tells the type of the configuration in it.
#[test]
fn what_an_index_kept_by_hand_has_without_a_type_may_be_what_is_wanted() {
    let subject = of(DOCUMENT).digest;
    let place = format!("a/b/manifests/{}", referrers_tag(&subject));
    for (kind, is_found) in [
        (r#","artifactType":"a/x""#, true),
        (r#","artifactType":"application/vnd.oci.empty.v1+json""#, true),
        (r#","artifactType":"""#, true),
        ("", true),
        (r#","artifactType":"a/y""#, false),
    ] {
        let item = format!(r#"{{"mediaType":"{MANIFEST_MEDIA_TYPE}","digest":"{subject}","size":20{kind}}}"#);
        let (fake, repository) = registry(Manner::default());
        fake.put(&place, INDEX_MEDIA_TYPE, format!(r#"{{"schemaVersion":2,"manifests":[{item}]}}"#).as_bytes());
        let found = run(client().referrers(&repository, &subject, Some("a/x"))).expect("it is a list");
        assert_eq!(found.len(), usize::from(is_found), "{kind}");
    }
}

#[test]
fn a_tag_that_does_not_stay_is_written_again_and_not_for_ever() {
    let (subject, (referrer, bytes)) = (of(DOCUMENT).digest, referrer("a/x", "1"));
    let line = format!("PUT /v2/a/b/manifests/{}", referrers_tag(&subject));
    for (count, is_taken) in [(1, true), (99, false)] {
        let (fake, repository) = registry(Manner::default());
        fake.fail(&line, Fault::Forget, count);
        let pushed = run(client().push_referrer(&repository, &subject, &referrer, &bytes));
        match is_taken {
            true => assert_eq!(pushed.expect("the second one stays"), Linked::ByTag),
            false => assert!(matches!(pushed, Err(RegistryError::Contended { .. })), "{pushed:?}"),
        }
        let writes = fake.requests().iter().filter(|request| request.line.starts_with(&line)).count();
        assert_eq!(writes, if is_taken { 2 } else { 5 });
    }
}

#[test]
fn lists_that_lie_are_not_believed() {
    let (subject, (referrer, bytes)) = (of(DOCUMENT).digest, referrer("a/x", "1"));
    let list = format!("a/b/referrers/{subject}");
    let empty = br#"{"schemaVersion":2,"manifests":[]}"#;
    // A page for people, and a list that is empty whatever is there.
    for (media_type, body) in [("text/html", &b"<html>"[..]), (INDEX_MEDIA_TYPE, empty)] {
        let (fake, repository) = registry(Manner::default());
        fake.put(&list, media_type, body);
        run(client().push_referrer(&repository, &subject, &referrer, &bytes)).expect("it is taken");
        let found = run(client().referrers(&repository, &subject, None)).expect("the tag has it");
        assert_eq!(found, std::slice::from_ref(&referrer), "{media_type}");
    }
    // Pages without end, and pages elsewhere.
    for (link, is_elsewhere) in
        [(format!("</v2/{list}>; rel=next"), false), ("<http://r.example/>; rel=\"next\"".to_owned(), true)]
    {
        let (fake, repository) = registry(Manner::default());
        fake.put(&list, INDEX_MEDIA_TYPE, empty);
        fake.header(&list, &format!("Link: {link}"));
        let error = run(client().referrers(&repository, &subject, None)).expect_err("there is no end");
        match is_elsewhere {
            true => assert!(matches!(error, RegistryError::Page { .. }), "{error}"),
            false => assert!(matches!(error, RegistryError::TooMany { .. }), "{error}"),
        }
        assert!(fake.requests().len() <= 64);
    }
    let (fake, repository) = registry(Manner::default());
    fake.put(&list, INDEX_MEDIA_TYPE, b"[");
    assert!(matches!(run(client().referrers(&repository, &subject, None)), Err(RegistryError::NoIndex { .. })));
    fake.fail("/referrers/", Fault::Status(403, Vec::new()), 1);
    assert!(matches!(run(client().referrers(&repository, &subject, None)), Err(RegistryError::Denied { .. })));
}
