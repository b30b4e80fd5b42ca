//! Behaviour of the store as its users see it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use cas_blob::{Descriptor, OpenBlob, OpenBlobError};
use cas_digest::DigestFunction;
use cas_tree::{Directory, EPOCH_SECONDS, Metadata, Node, RelPath};
use rayon::prelude::*;

use crate::pins::PinFile;
use crate::{Depth, Store, StoreError, StoreOptions};

fn store() -> (tempfile::TempDir, Store) {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let store = Store::open(home.path()).expect("the folder is new");
    (home, store)
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

#[test]
fn what_is_put_can_be_read_again() {
    let (_home, store) = store();
    for size in [0usize, 1, 1000, 256 * 1024, 256 * 1024 + 1, 3_000_000] {
        let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 253).expect("below 256")).collect();
        for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
            let blob = store.put(function, &mut bytes.as_slice()).expect("the disk has room");
            assert_eq!(blob, Descriptor::of(function, &bytes));
            assert!(store.contains(&blob).expect("the store is readable"));
            assert!(store.load(&blob, u64::MAX).expect("it was stored") == bytes, "{size} bytes");
        }
    }
}

#[test]
fn a_right_digest_with_a_wrong_size_is_a_miss() {
    let (_home, store) = store();
    let blob = store.put_bytes(DigestFunction::Blake3, b"content").expect("the disk has room");
    let lie = Descriptor { size: 8, ..blob };
    assert!(!store.contains(&lie).expect("the store is readable"));
    assert!(matches!(store.open_blob(&lie).err(), Some(OpenBlobError::Missing(_))));
    assert_eq!(store.load(&blob, 100).expect("the lie harmed nothing"), b"content");
    let empty_lie = Descriptor { size: 0, ..blob };
    assert!(!store.contains(&empty_lie).expect("the store is readable"));
}

#[test]
fn announced_bytes_are_stored_only_when_they_come() {
    let (_home, store) = store();
    let blob = Descriptor::of(DigestFunction::Sha256, b"announced");
    assert!(matches!(store.put_expected(&mut &b"delivered"[..], &blob), Err(StoreError::Verify(_))));
    assert!(!store.contains(&blob).expect("the store is readable"));
    store.put_expected(&mut &b"announced"[..], &blob).expect("these are the bytes");
    assert!(store.contains(&blob).expect("the store is readable"));
}

/// Each way to damage an object: the reader fails, and the object is a miss from then on, and can be stored again.
#[test]
fn damaged_objects_are_never_read_as_right() {
    for damage in ["flipped", "cut", "longer"] {
        let (_home, store) = store();
        let blob = store.put_bytes(DigestFunction::Blake3, b"some content").expect("the disk has room");
        let object = store.object_path(&blob).expect("it was stored");
        cas_fs::set_mode(&object, 0o644).expect("our file");
        let bytes: &[u8] = match damage {
            "flipped" => b"some Content",
            "cut" => b"some",
            _ => b"some content and more",
        };
        cas_fs::write(&object, bytes).expect("our file");
        assert!(store.load(&blob, 100).is_err(), "{damage}");
        assert!(!store.contains(&blob).expect("the store is readable"), "{damage}");
        store.put_bytes(DigestFunction::Blake3, b"some content").expect("the disk has room");
        assert_eq!(store.load(&blob, 100).expect("stored again"), b"some content", "{damage}");
    }
}

#[test]
fn second_names_lead_to_the_same_bytes() {
    let (home, store) = store();
    let (primary, alias) = store
        .put_with_alias(DigestFunction::Blake3, DigestFunction::Sha256, &mut &b"two names"[..])
        .expect("the disk has room");
    assert_eq!(alias, Descriptor::of(DigestFunction::Sha256, b"two names"));
    assert_eq!(store.load(&alias, 100).expect("it has this name"), b"two names");
    assert_eq!(store.object_path(&alias).expect("known"), store.object_path(&primary).expect("known"));
    let third = store.name_with(DigestFunction::Sha512, &primary).expect("it is here");
    assert_eq!(third, Descriptor::of(DigestFunction::Sha512, b"two names"));
    drop(store);
    let store = Store::open(home.path()).expect("it was there");
    assert_eq!(store.load(&third, 100).expect("names are kept"), b"two names");
}

#[test]
fn a_lost_or_damaged_index_costs_misses_alone() {
    let (home, store) = store();
    let (primary, alias) = store
        .put_with_alias(DigestFunction::Blake3, DigestFunction::Sha256, &mut &b"two names"[..])
        .expect("the disk has room");
    drop(store);
    for damage in [None, Some(&b"this is not a database, but it is long enough to be looked at as one"[..])] {
        let index = home.path().join("v1/index.db");
        match damage {
            None => cas_fs::remove_file(&index).expect("our file"),
            Some(bytes) => cas_fs::write(&index, &bytes.repeat(100)).expect("our file"),
        }
        let store = Store::open(home.path()).expect("an index is begun anew");
        assert_eq!(store.load(&primary, 100).expect("objects need no index"), b"two names");
        assert!(!store.contains(&alias).expect("the store is readable"));
    }
}

#[test]
fn roots_show_modes_times_links_and_one_inode_a_path() {
    let (_home, store) = store();
    let blob = store.put_bytes(DigestFunction::Blake3, b"#!/bin/sh\n").expect("the disk has room");
    let mut tree = Directory::root();
    let parents = Metadata::root_owned(0o700);
    for (at, node) in [
        ("d/one", Node::file(blob, 0o755)),
        ("d/same", Node::file(blob, 0o755)),
        ("z", Node::Link { target: path("d/one") }),
        ("link", Node::symlink("d/one")),
    ] {
        tree.insert(&path(at), node, &parents).expect("free");
    }
    let name = store.put_tree(&tree, DigestFunction::Blake3).expect("the disk has room");
    assert_eq!(store.load_tree(&name).expect("it was stored"), tree);
    let root = store.materialize(&name, &tree).expect("the disk has room");
    assert_eq!(store.materialize(&name, &tree).expect("it is there"), root);
    let stat = |at: &str| cas_fs::symlink_metadata(&root.join(at)).expect("it was written");
    assert_eq!(stat("d/one").permissions().mode() & 0o7777, 0o755);
    assert_eq!(stat("d").permissions().mode() & 0o7777, 0o700);
    assert_eq!(stat("d/one").ino(), stat("z").ino());
    assert_ne!(stat("d/one").ino(), stat("d/same").ino());
    for at in ["", "d", "d/one", "d/same", "z", "link"] {
        assert_eq!(stat(at).mtime(), i64::from(EPOCH_SECONDS), "{at}");
    }
    assert!(matches!(
        {
            tree.insert(&path("pipe"), Node::Fifo { metadata: Metadata::default() }, &parents).expect("free");
            let name = store.put_tree(&tree, DigestFunction::Blake3).expect("the disk has room");
            store.materialize(&name, &tree)
        },
        Err(StoreError::Node { kind: "fifo", .. })
    ));
}

#[test]
fn a_tree_is_found_only_when_all_of_it_is_here() {
    let (_home, store) = store();
    let blob = store.put_bytes(DigestFunction::Blake3, b"content").expect("the disk has room");
    let mut tree = Directory::root();
    tree.insert(&path("a"), Node::file(blob, 0o644), &Metadata::default()).expect("free");
    let name = store.put_tree(&tree, DigestFunction::Blake3).expect("the disk has room");
    assert_eq!(store.find_tree(&name).expect("the store is readable"), Some(tree));
    cas_fs::remove_file(&store.object_path(&blob).expect("it was stored")).expect("our file");
    assert_eq!(store.find_tree(&name).expect("the store is readable"), None);
}

#[test]
fn folders_of_dead_processes_are_removed_and_those_of_live_ones_kept() {
    let (home, first) = store();
    let dead = home.path().join("v1/tmp/999999999-0");
    cas_fs::create_dir(&dead).expect("free");
    let second = Store::open(home.path()).expect("two may have it open");
    assert!(!cas_fs::exists(&dead).expect("readable"));
    assert!(cas_fs::exists(first.scratch()).expect("readable") && cas_fs::exists(second.scratch()).expect("readable"));
    let scratch = first.scratch().to_owned();
    drop(first);
    assert!(!cas_fs::exists(&scratch).expect("readable"));
}

#[test]
fn many_writers_of_one_blob_agree() {
    let (_home, store) = store();
    let bytes = vec![7u8; 600_000];
    let blobs: Vec<Descriptor> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| store.put(DigestFunction::Blake3, &mut bytes.as_slice()).expect("room")))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert!(blobs.iter().all(|blob| *blob == Descriptor::of(DigestFunction::Blake3, &bytes)));
    assert_eq!(store.load(&blobs[0], u64::MAX).expect("stored"), bytes);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let file = home.path().join("file");
    cas_fs::write(&file, b"").expect("our folder");
    let error = Store::open(&file).expect_err("a file is no folder");
    assert!(matches!(&error, StoreError::Unusable { path, .. } if *path == file), "{error:?}");
}

/// Between the listing of pins and the reading of one, another process may end it: neither a collection nor a check may
/// take that for damage.
#[test]
fn a_pin_that_ends_while_pins_are_read_is_not_a_damaged_one() {
    let (home, store) = store();
    let pins = home.path().join("v1/pins");
    let read = |name: &str| store.vault.read_pin(name.as_ref(), &pins.join(name)).expect("the disk works");
    assert_eq!(read("ended"), PinFile::Gone);
    cas_fs::write(&pins.join("cut"), b"cas pin 1\n").expect("our folder");
    assert_eq!(read("cut"), PinFile::Damaged);
    assert!(matches!(store.pins(), Err(StoreError::Pin { path }) if path == pins.join("cut")));
}

/// Threads of the shared pool wait for the one that makes room; it must not wait for them.
#[test]
fn room_is_made_while_all_threads_of_the_pool_wait_for_it() {
    const BLOB_BYTES: u64 = 64 << 10;
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let options = StoreOptions { needs: Some(|_, _| Ok(Some(Vec::new()))), ..StoreOptions::default() };
    let content = |number: u64| {
        let mut bytes = vec![7; usize::try_from(BLOB_BYTES).expect("it is small")];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let first = Store::open_with(home.path(), options).expect("the disk has room");
    first.set_quota(crate::Quota { max_bytes: Some(64 * BLOB_BYTES), ..crate::Quota::default() }).expect("room");
    for number in 0..60 {
        first.put_bytes(DigestFunction::Blake3, &content(number)).expect("the disk has room");
    }
    drop(first);
    let store = std::sync::Arc::new(Store::open_with(home.path(), options).expect("the disk has room"));
    let (sender, receiver) = std::sync::mpsc::channel();
    let put = move |number: u64| store.put_bytes(DigestFunction::Blake3, &content(number)).map(drop);
    std::thread::spawn(move || {
        let of_the_pool = std::thread::scope(|scope| {
            let own = scope.spawn(|| (1000..1012).try_for_each(&put));
            let of_the_pool = (2000..2012u64).into_par_iter().try_for_each(&put);
            own.join().expect("no panic").and(of_the_pool)
        });
        // Nobody listens any more when it took too long.
        let _ = sender.send(of_the_pool);
    });
    let result = receiver.recv_timeout(std::time::Duration::from_secs(60));
    result.expect("nobody waits for ever").expect("what is not in use leaves");
}

/// SQLite does not wait for others when the kind of a new index's journal is set.
#[test]
fn a_new_index_is_waited_for_while_another_process_writes_it() {
    let (home, first) = store();
    drop(first);
    let path = home.path().join("v1/index.db");
    cas_fs::remove_file(&path).expect("the store is closed");
    let other = rusqlite::Connection::open(&path).expect("our folder");
    other.execute_batch("CREATE TABLE other(x); BEGIN IMMEDIATE").expect("it is new");
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| Store::open(home.path()).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(300));
        other.execute_batch("COMMIT").expect("it changed nothing");
        opening.join().expect("no panic").expect("it was waited for");
    });
}

/// What another session's count would miss, because no name leads there yet, is in this session's claim.
#[test]
fn what_is_being_written_counts_against_the_limit() {
    struct Counted<'a>(usize, &'a dyn Fn());
    impl std::io::Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                (self.1)();
                return Ok(0);
            }
            let count = buffer.len().min(self.0);
            buffer[..count].fill(7);
            self.0 -= count;
            Ok(count)
        }
    }
    let (home, first) = store();
    let quota = crate::Quota { max_bytes: Some(256 << 20), ..crate::Quota::default() };
    first.set_quota(quota).expect("the disk has room");
    let options = StoreOptions { needs: Some(|_, _| Ok(Some(Vec::new()))), ..StoreOptions::default() };
    let open = || Store::open_with(home.path(), options).expect("the disk has room");
    let (writer, other) = (open(), open());
    let collect = || {
        other.collect(crate::Retention::default(), None, false).expect("the store is readable");
    };
    let blob = writer.put(DigestFunction::Blake3, &mut Counted(50 << 20, &collect)).expect("below the limit");
    let usage = cas_fs::read_to_string(&home.path().join("v1/usage")).expect("somebody claimed");
    let counted: u64 = usage.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number");
    assert!(counted >= blob.size, "{counted} of {}", blob.size);
}

/// Whatever is in the place of an object is no object: it is moved aside, and the object is a miss.
#[test]
fn what_is_no_file_is_moved_aside() {
    use std::os::unix::fs::symlink;
    type Put = fn(&std::path::Path);
    let in_its_place: [(&str, Put); 3] = [
        ("a folder", |path| cas_fs::create_dir(path).expect("our folder")),
        ("a link", |path| symlink("/etc/passwd", path).expect("our folder")),
        ("a pipe", |path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).expect("our folder")),
    ];
    for size in [7, 300_000] {
        for (what, put) in in_its_place {
            for by_check in [false, true] {
                let (_home, store) = store();
                let content = vec![b'x'; size];
                let blob = store.put_bytes(DigestFunction::Blake3, &content).expect("the disk has room");
                let path = store.object_path(&blob).expect("it is here");
                cas_fs::remove_file(&path).expect("our file");
                put(&path);
                if by_check {
                    let found = store.check(Depth::Full).expect("the disk works");
                    assert!(!found.is_clean(), "{what}");
                } else {
                    assert!(store.load(&blob, 1 << 20).is_err(), "{what} was read");
                }
                assert!(!store.contains(&blob).expect("the disk works"), "{what}");
                store.put_bytes(DigestFunction::Blake3, &content).expect("the disk has room");
                assert!(store.load(&blob, 1 << 20).expect("it is back") == content, "{what}");
                assert!(store.check(Depth::Full).expect("the disk works").is_clean(), "{what}");
            }
        }
    }
}
