//! Files of a store.

use std::sync::atomic::{AtomicU64, Ordering};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Metadata, Node};

use crate::{STORE_ROUNDS, fuzz, fuzz_rounds, path};

/// Every file of a store but the objects, which are hashed, and the index.
#[test]
fn files_of_a_store() {
    use cas_store::fuzzing;
    let blob = Descriptor::of(DigestFunction::Blake3, b"x");
    let second = Descriptor::of(DigestFunction::Sha256, b"x");
    let description = br#"{ "version": 1, "compatible": ["new"], "ro_compatible": [], "incompatible": ["epochs"],
        "quota": { "max_bytes": 21474836480, "max_inodes": 1000000, "min_free_bytes": 1073741824 } }"#;
    let pin = format!("cas pin 1\nwhile /a%20b/%25\nname {second} {blob}\nblob {blob}\ntree {blob}\nend\n");
    let record = [&[1][..], &blob.digest.value()[..31]].concat();
    let batch = [&7u64.to_le_bytes()[..], &2u64.to_le_bytes(), &[0; 16], &record, &record, &[0; 64]].concat();
    let boot = b"01234567-89ab-cdef-0123-456789abcdef 1234567890 17\n";
    type Target = fn(&[u8]) -> bool;
    let targets: [(&str, Target, &[&[u8]]); 9] = [
        ("store.json", fuzzing::description, &[description, br#"{"version": 1}"#]),
        ("epoch-sealed", fuzzing::sealed, &[b"cas epochs 1\n268435456 0-3 5-5\n1234567890 7-9\n", b"cas epochs 1\n"]),
        ("epoch-boot", fuzzing::boot, &[boot]),
        ("session-epoch", fuzzing::session_epoch, &[b"1234567890 0000000017\n"]),
        ("pin", fuzzing::pin, &[pin.as_bytes(), b"cas pin 1\nend\n"]),
        ("leases", fuzzing::leases, &[&record, &[record.as_slice(), &record].concat()]),
        ("collect", fuzzing::batch, &[&batch]),
        ("usage", fuzzing::amount, &[b"0000000007 00000000000000004096 00000000000000000001\n"]),
        ("root-size", fuzzing::root_size, &[b"12288 3\n"]),
    ];
    for (name, target, seeds) in targets {
        let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
        for seed in &seeds {
            assert!(target(seed), "{name}: {}", seed.escape_ascii());
        }
        fuzz(name, &seeds, |bytes| {
            target(bytes);
        });
    }
    fuzz("pin-name", &[b"apps%2Fweb:image@1".to_vec()], |bytes| {
        fuzzing::pin_name(std::os::unix::ffi::OsStrExt::from_bytes(bytes));
    });
}

/// A store with one damaged file never gives wrong bytes, and what a pin keeps stays: a pin that cannot be read stops
/// whoever would remove something.
#[test]
fn a_store_with_a_damaged_file() {
    use cas_store::{Depth, Keep, Quota, Retention, Store, StoreOptions};
    const NOTHING_STAYS: Retention = Retention { min_age_seconds: 0, keep_seconds: 0 };
    let home = tempfile::tempdir().unwrap();
    let options = StoreOptions { needs: Some(|_, _| Ok(Some(Vec::new()))), ..StoreOptions::default() };
    let open = || Store::open_with(home.path(), options);
    let contents = [b"pinned".to_vec(), b"in a tree".to_vec(), vec![3; 300_000], b"nobody's".to_vec()];
    let blobs = contents.each_ref().map(|bytes| Descriptor::of(DigestFunction::Blake3, bytes));
    let mut tree = Directory::root();
    for (number, blob) in blobs[1..3].iter().enumerate() {
        tree.insert(&path(&format!("d/{number}")), Node::file(*blob, 0o644), &Metadata::root_owned(0o755)).unwrap();
    }
    let fill = || {
        let store = open().unwrap();
        for bytes in &contents {
            store.put_bytes(DigestFunction::Blake3, bytes).unwrap();
        }
        let name = store.put_tree(&tree, DigestFunction::Blake3).unwrap();
        let root = store.materialize(&name, &tree).unwrap();
        store.pin("a", &[Keep::Blob(blobs[0])]).unwrap();
        store.pin("b/c", &[Keep::Tree(name)]).unwrap();
        (store.pins().unwrap(), root.with_file_name("size"))
    };
    open().unwrap().set_quota(Quota { max_bytes: Some(64 << 20), ..Quota::default() }).unwrap();
    let (pins, size) = fill();
    let names = ["store.json", "index.db", "epoch/sealed", "epoch/boot", "pins/a", "pins/b%2Fc", "collect", "usage"];
    let files: Vec<_> = names.iter().map(|name| home.path().join("v1").join(name)).chain([size]).collect();
    let whole: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for (file, whole) in files.iter().zip(&whole) {
        let name = file.file_name().unwrap().display();
        let unread = AtomicU64::new(0);
        let mut seeds = vec![whole.clone()];
        if file.ends_with("size") {
            // Sums with it leave the range of numbers.
            seeds.push(b"18446744073709551615 18446744073709551615\n".to_vec());
        }
        fuzz_rounds(&format!("store-with-{name}"), STORE_ROUNDS, &seeds, |bytes| {
            std::fs::write(file, bytes).unwrap();
            match open() {
                // A description that cannot be read keeps everybody out.
                Err(error) => assert!(file.ends_with("store.json"), "{error}"),
                Ok(store) => {
                    let found = store.pins();
                    let dry = store.collect(NOTHING_STAYS, Some(0), true);
                    let collected = store.collect(NOTHING_STAYS, Some(0), false);
                    drop((store.statistics(), store.seal(), dry));
                    match &found {
                        Ok(found) if *found == pins => {
                            assert!(collected.is_ok() || file.ends_with("index.db"), "{collected:?}");
                            let gone = !store.contains(&blobs[3]).unwrap_or(false);
                            assert!(gone || collected.is_err(), "the collection did nothing");
                        }
                        // A line that was damaged into another one cannot be told from one that was written.
                        Ok(_) => assert!(file.starts_with(home.path().join("v1/pins"))),
                        Err(error) => {
                            unread.fetch_add(1, Ordering::Relaxed);
                            assert!(collected.is_err(), "a collection went on although {error}");
                        }
                    }
                    let has_all = found.is_err() || found.is_ok_and(|found| found == pins);
                    for (blob, bytes) in blobs.iter().zip(&contents) {
                        match store.load(blob, 1 << 20) {
                            Ok(found) => assert!(found == *bytes, "{blob} has other bytes"),
                            Err(error) => assert!(!has_all || *blob == blobs[3], "{blob} was pinned: {error}"),
                        }
                    }
                    let check = store.check(Depth::Fast).unwrap();
                    assert!(check.damaged.is_empty() && (!has_all || check.missing.is_empty()), "{check:?}");
                }
            }
            // A root was collected with its size, and is made anew.
            if file.parent().unwrap().exists() {
                std::fs::write(file, whole).unwrap();
            }
            fill();
        });
        let is_pin = file.starts_with(home.path().join("v1/pins"));
        assert_eq!(unread.into_inner() > 0, is_pin, "{name}");
    }
}
