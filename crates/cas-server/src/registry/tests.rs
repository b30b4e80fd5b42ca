use cas_oci::MANIFEST_MEDIA_TYPE;
use cas_store::{Load, Retention, Row, StoreOptions};

use super::*;

const NOTHING_STAYS: Retention = Retention { min_age_seconds: 0, keep_seconds: 0 };

#[expect(clippy::unnecessary_wraps, reason = "the store wants it so")]
fn no_needs(_: &Row, _: &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError> {
    Ok(Some(Vec::new()))
}

fn open_store(home: &tempfile::TempDir) -> Arc<Store> {
    let options = StoreOptions { needs: Some(no_needs), ..StoreOptions::default() };
    Arc::new(Store::open_with(home.path(), options).expect("the folder is writable"))
}

fn open(home: &tempfile::TempDir, options: Options) -> Registry {
    Registry::open(open_store(home), options).expect("nobody else has it")
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary folder is writable")
}

/// Removes all that nobody needs.
fn collect(home: &tempfile::TempDir) {
    open_store(home).collect(NOTHING_STAYS, Some(0), false).expect("nothing is in its way");
}

fn sha256(bytes: &[u8]) -> Descriptor {
    Descriptor::of(DigestFunction::Sha256, bytes)
}

fn put_blob(registry: &Registry, name: &str, mut bytes: &[u8]) -> Descriptor {
    let blob = sha256(bytes);
    registry.put_blob(name, &blob.digest, blob.size, &mut bytes).expect("it is that blob");
    blob
}

fn manifest_of(config: &Descriptor, layer: &Descriptor) -> Vec<u8> {
    let item = |blob: &Descriptor| format!(r#"{{"mediaType":"a/b","digest":"{}","size":{}}}"#, blob.digest, blob.size);
    format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, item(config), item(layer)).into_bytes()
}

fn index_of(manifests: &[Digest], size: usize) -> Vec<u8> {
    let item =
        |digest: &Digest| format!(r#"{{"mediaType":"{MANIFEST_MEDIA_TYPE}","digest":"{digest}","size":{size}}}"#);
    let items: Vec<String> = manifests.iter().map(item).collect();
    format!(r#"{{"mediaType":"{}","manifests":[{}]}}"#, cas_oci::INDEX_MEDIA_TYPE, items.join(",")).into_bytes()
}

fn tag(text: &str) -> Version {
    Version::Tag(text.to_owned())
}

fn put(registry: &Registry, name: &str, version: &Version, bytes: &[u8]) -> Result<Digest, (u16, &'static str)> {
    let is_index = bytes.starts_with(b"{\"mediaType\"");
    let media_type = (!is_index).then_some(MANIFEST_MEDIA_TYPE);
    let put = registry.put_manifest(name, version, &[], media_type, bytes);
    put.map(|put| put.digest).map_err(|refusal| refusal.status_and_code())
}

fn all(registry: &Registry, blob: &Descriptor) -> Vec<u8> {
    let mut bytes = Vec::new();
    registry.read(blob).expect("it is there").read_to_end(&mut bytes).expect("it is whole");
    bytes
}

#[test]
fn what_a_manifest_needs_survives_collections_and_a_lost_index_of_the_store() {
    let home = home();
    let registry = open(&home, Options::default());
    let [config, layer, other] =
        [&b"{}"[..], b"layer", b"nobody needs it"].map(|bytes| put_blob(&registry, "a", bytes));
    let manifest = manifest_of(&config, &layer);
    let digest = put(&registry, "a", &tag("1.0.0"), &manifest).expect("all is there");
    let index = put(&registry, "a", &tag("x"), &index_of(&[digest], manifest.len())).expect("all is there");
    drop(registry);
    for name in ["index.db", "index.db-wal", "index.db-shm"] {
        let _ = cas_fs::remove_file(&home.path().join("v1").join(name));
    }
    collect(&home);
    let registry = open(&home, Options { allow_deletes: true, ..Options::default() });
    let kept = registry.manifest("a", &tag("1.0.0")).expect("it stays");
    assert_eq!(all(&registry, &kept.blob), manifest);
    assert_eq!(all(&registry, &registry.blob("a", &layer.digest).expect("it stays")), b"layer");
    assert!(matches!(registry.blob("a", &other.digest), Err(Refusal::UnknownBlob { .. })));
    // It can be sent again, and what is removed leaves.
    put_blob(&registry, "a", b"nobody needs it");
    registry.blob("a", &other.digest).expect("it is back");
    for version in [Version::Digest(index), Version::Digest(digest)] {
        registry.remove_manifest("a", &version).expect("nobody needs it");
    }
    assert!(registry.manifest("a", &tag("1.0.0")).is_err());
    drop(registry);
    collect(&home);
    assert!(!open_store(&home).contains(&layer).expect("the disk works"), "nothing keeps it");
}

#[test]
fn what_a_crash_left_half_done_is_mended() {
    let home = home();
    let registry = open(&home, Options::default());
    let [config, layer] = [&b"{}"[..], b"layer"].map(|bytes| put_blob(&registry, "a", bytes));
    let digest = put(&registry, "a", &tag("x"), &manifest_of(&config, &layer)).expect("all is there");
    let store = Arc::clone(&registry.store);
    drop(registry);
    // A pin came before its rows, and others are of nobody's business.
    store.pin(&pin_name("b", &digest), &[Keep::Blob(layer)]).expect("it is here");
    store.pin("mine", &[Keep::Blob(layer)]).expect("it is here");
    store.unpin(&pin_name("a", &digest)).expect("the disk works");
    drop(store);
    drop(open(&home, Options::default()));
    let names = |home| open_store(home).pins().expect("they are whole").into_iter().map(|pin| pin.name);
    assert_eq!(names(&home).collect::<Vec<_>>(), ["mine".to_owned(), pin_name("a", &digest)]);
    // Without the rows nobody knows what a pin is for.
    for name in ["registry.db", "registry.db-wal"] {
        let _ = cas_fs::remove_file(&home.path().join("v1").join(name));
    }
    drop(open(&home, Options::default()));
    assert_eq!(names(&home).count(), 2);
}

#[test]
fn manifests_need_all_that_they_name() {
    let home = home();
    let registry = open(&home, Options::default());
    let [config, layer] = [&b"{}"[..], b"layer"].map(|bytes| put_blob(&registry, "a", bytes));
    let missing = sha256(b"missing");
    let longer = Descriptor { size: layer.size + 1, ..layer };
    let manifest = manifest_of(&config, &layer);
    let digest = sha256(&manifest).digest;
    // Two that name each other cannot be made, so one that names what is to come stands for it.
    let to_come = index_of(&[sha256(b"to come").digest], 7);
    for (bytes, expected) in [
        (manifest_of(&config, &missing), (400, "MANIFEST_BLOB_UNKNOWN")),
        (manifest_of(&missing, &layer), (400, "MANIFEST_BLOB_UNKNOWN")),
        (manifest_of(&config, &longer), (400, "SIZE_INVALID")),
        (index_of(&[digest], manifest.len()), (400, "MANIFEST_BLOB_UNKNOWN")),
        (index_of(&[layer.digest], 5), (400, "MANIFEST_BLOB_UNKNOWN")),
        (to_come, (400, "MANIFEST_BLOB_UNKNOWN")),
        (b"{}".to_vec(), (400, "MANIFEST_INVALID")),
    ] {
        assert_eq!(put(&registry, "a", &tag("x"), &bytes), Err(expected), "{}", String::from_utf8_lossy(&bytes));
        assert!(registry.manifest("a", &tag("x")).is_err());
    }
    assert_eq!(put(&registry, "a", &Version::Digest(missing.digest), &manifest), Err((400, "DIGEST_INVALID")));
    // What another repository has is not here.
    assert_eq!(put(&registry, "b", &tag("x"), &manifest), Err((400, "MANIFEST_BLOB_UNKNOWN")));
    assert_eq!(put(&registry, "a", &tag("x"), &manifest), Ok(digest));
    assert_eq!(put(&registry, "a", &tag("y"), &index_of(&[digest], manifest.len() + 1)), Err((400, "SIZE_INVALID")));
    let sha512 = Digest::of(DigestFunction::Sha512, &manifest);
    assert_eq!(put(&registry, "a", &Version::Digest(sha512), &manifest), Ok(sha512));
}

#[test]
fn versions_and_commits_do_not_move_and_tags_are_set_together() {
    let home = home();
    let registry = open(&home, Options::default());
    let [config, one, two] = [&b"{}"[..], b"one", b"two"].map(|bytes| put_blob(&registry, "a", bytes));
    let (one, two) = (manifest_of(&config, &one), manifest_of(&config, &two));
    for (name, moves) in
        [("1.2.3", false), ("v1.2.3-rc.1", false), ("4f2a9c1", false), ("stable", true), ("latest", true)]
    {
        let first = put(&registry, "a", &tag(name), &one).expect("it is new");
        assert_eq!(put(&registry, "a", &tag(name), &one), Ok(first), "the same again");
        let second = put(&registry, "a", &tag(name), &two);
        assert_eq!(second.is_ok(), moves, "{name}: {second:?}");
        let now = registry.manifest("a", &tag(name)).expect("it is there").blob.digest;
        assert_eq!(now != first, moves, "{name}");
    }
    // One that must not move keeps the others where they are.
    let tags = ["new".to_owned(), "1.2.3".to_owned()];
    let digest = Version::Digest(sha256(&two).digest);
    let refused = registry.put_manifest("a", &digest, &tags, Some(MANIFEST_MEDIA_TYPE), &two);
    assert!(matches!(refused, Err(Refusal::Taken { .. })), "{refused:?}");
    assert!(registry.manifest("a", &tag("new")).is_err());
    drop(registry);
    let registry = open(&home, Options { allow_moves: true, ..Options::default() });
    assert!(registry.put_manifest("a", &digest, &tags, Some(MANIFEST_MEDIA_TYPE), &two).is_ok());
    assert_eq!(registry.manifest("a", &tag("1.2.3")).expect("it is there").blob, sha256(&two));
}

#[test]
fn only_what_nobody_needs_is_removed_and_only_where_that_is_allowed() {
    let home = home();
    let registry = open(&home, Options::default());
    let [config, layer] = [&b"{}"[..], b"layer"].map(|bytes| put_blob(&registry, "a", bytes));
    let manifest = manifest_of(&config, &layer);
    let digest = put(&registry, "a", &tag("x"), &manifest).expect("all is there");
    let index = put(&registry, "a", &tag("y"), &index_of(&[digest], manifest.len())).expect("all is there");
    assert!(matches!(registry.remove_blob("a", &layer.digest), Err(Refusal::NoDeletes)));
    assert!(matches!(registry.remove_manifest("a", &tag("x")), Err(Refusal::NoDeletes)));
    drop(registry);
    let registry = open(&home, Options { allow_deletes: true, ..Options::default() });
    assert!(matches!(registry.remove_blob("a", &layer.digest), Err(Refusal::Needed { by }) if by == digest));
    assert!(
        matches!(registry.remove_manifest("a", &Version::Digest(digest)), Err(Refusal::Needed { by }) if by == index)
    );
    registry.remove_manifest("a", &tag("y")).expect("it is a tag alone");
    registry.manifest("a", &Version::Digest(index)).expect("it stays without its tag");
    for version in [Version::Digest(index), Version::Digest(digest)] {
        registry.remove_manifest("a", &version).expect("nobody needs it");
        assert!(matches!(registry.remove_manifest("a", &version), Err(Refusal::UnknownManifest { .. })));
    }
    registry.remove_blob("a", &layer.digest).expect("nobody needs it");
    assert!(matches!(registry.remove_blob("a", &layer.digest), Err(Refusal::UnknownBlob { .. })));
}

#[test]
fn a_repository_has_what_was_sent_to_it_or_mounted() {
    let home = home();
    let registry = open(&home, Options::default());
    let built = registry.store.put_bytes(DigestFunction::Sha256, b"built here").expect("there is room");
    assert!(registry.blob("a", &built.digest).is_err());
    assert!(!registry.mount("a", &built.digest, None).expect("the disk works"), "what was built here is nobody's");
    let blob = put_blob(&registry, "a", b"sent");
    assert!(registry.blob("b", &blob.digest).is_err());
    assert!(!registry.mount("b", &blob.digest, Some("c")).expect("the disk works"));
    assert!(registry.mount("b", &blob.digest, Some("a")).expect("the disk works"));
    assert!(registry.mount("c", &blob.digest, None).expect("the disk works"));
    assert!(registry.blob("b", &blob.digest).is_ok() && registry.blob("c", &blob.digest).is_ok());
}

#[test]
fn bytes_that_are_not_those_announced_are_not_kept() {
    let home = home();
    let registry = open(&home, Options { max_blob_bytes: 100, ..Options::default() });
    let digest = sha256(b"bytes").digest;
    let put = |size, mut bytes: &[u8]| registry.put_blob("a", &digest, size, &mut bytes);
    assert!(matches!(put(5, b"other"), Err(Refusal::Mismatch(_))));
    assert!(matches!(put(5, b"byte"), Err(Refusal::Length { .. })));
    assert!(matches!(put(4, b"bytes"), Err(Refusal::Length { .. })));
    assert!(matches!(put(101, b"bytes"), Err(Refusal::LongBlob { limit: 100 })));
    assert!(matches!(put(0, b""), Err(Refusal::Mismatch(_))));
    assert!(registry.blob("a", &digest).is_err());
    let id = registry.uploads.begin("a").expect("there is room");
    let mut upload = registry.uploads.take("a", &id).expect("it is there");
    upload.append(&mut &b"by"[..], None).expect("there is room");
    assert!(matches!(registry.finish("a", &digest, upload), Err(Refusal::Mismatch(_))));
    assert!(matches!(registry.uploads.take("a", &id), Err(Refusal::UnknownUpload)));
    put(5, b"bytes").expect("they are those");
    // Damage on the disk is found by whoever reads.
    let path = registry.store.object_path(&Descriptor { digest, size: 5 }).expect("it is here");
    cas_fs::remove_file(&path).expect("it is ours");
    cas_fs::write(&path, b"bYtes").expect("it is ours");
    let blob = registry.blob("a", &digest);
    assert!(blob.is_err() || registry.read(&blob.expect("it was")).is_err());
    assert!(registry.blob("a", &digest).is_err());
    put(5, b"bytes").expect("it is sent again");
    assert_eq!(all(&registry, &registry.blob("a", &digest).expect("it is back")), b"bytes");
}

#[test]
fn referrers_are_listed_in_parts() {
    let home = home();
    let registry = open(&home, Options::default());
    let config = put_blob(&registry, "a", b"{}");
    let subject = sha256(b"not here");
    let mut digests = Vec::new();
    for number in 0..5 {
        let kind = if number % 2 == 0 { "x/even" } else { "x/odd" };
        let text = format!(
            r#"{{"schemaVersion":2,"artifactType":"{kind}","config":{{"mediaType":"a/b","digest":"{}","size":2}},"layers":[],"subject":{{"digest":"{}","size":8}},"annotations":{{"n":"{number}"}}}}"#,
            config.digest, subject.digest
        );
        digests.push(put(&registry, "a", &tag("x"), text.as_bytes()).expect("all is there").to_string());
    }
    digests.sort();
    let page = |most, after: &str| Page { most, after: after.to_owned() };
    let of = |name: &str, kind, page| registry.referrers(name, &subject.digest, kind, &page).expect("the disk works");
    let found = of("a", None, page(3, ""));
    assert_eq!((found.descriptors.len(), found.more_after.as_ref()), (3, Some(&digests[2])));
    let rest = of("a", None, page(3, &digests[2]));
    assert_eq!((rest.descriptors.len(), rest.more_after), (2, None));
    let all: String = found.descriptors.into_iter().chain(rest.descriptors).collect();
    assert!(digests.iter().all(|digest| all.contains(digest)), "{all}");
    assert_eq!(of("a", Some("x/even"), page(10, "")).descriptors.len(), 3);
    assert_eq!(of("a", Some("x/none"), page(10, "")).descriptors.len(), 0);
    assert_eq!(of("b", None, page(10, "")).descriptors.len(), 0);
    assert_eq!(of("a", None, page(0, "")).more_after, None);
}
