//! The suites of all places of blobs and of results (`cas-testing`), on a disk and on a model of one that fails.

use std::cell::Cell;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use cas_blob::{ActionLane, BlobStore, Descriptor, OpenBlob, OpenBlobError, Recorded, VerifiedBlob};
use cas_digest::DigestFunction;
use cas_testing::{actions_conformance, conformance, conformance_with_faults};

use crate::disk::Disk;
use crate::disk::model::{Faults, ModelDisk};
use crate::vault::Vault;
use crate::{Depth, Durability, Store, StoreError, StoreOptions};

#[test]
fn the_store_passes_the_suite_of_places() {
    let home = tempfile::tempdir().unwrap();
    for durability in [Durability::Epoch, Durability::Durable, Durability::None] {
        let count = Cell::new(0);
        let folder = |number: u32| home.path().join(format!("{durability:?}-{number}"));
        conformance(|| {
            count.set(count.get() + 1);
            Store::open_with(&folder(count.get()), StoreOptions { durability, ..StoreOptions::default() }).unwrap()
        });
        // No failure left a file behind, nor a damaged one.
        for number in 1..=count.get() {
            let folder = folder(number);
            let check = Store::open(&folder).unwrap().check(Depth::Full).unwrap();
            assert!(check.is_clean(), "{}: {check:?}", folder.display());
            for emptied in ["tmp", "quarantine"] {
                let left = cas_fs::read_dir(&folder.join("v1").join(emptied)).unwrap();
                assert!(left.is_empty(), "{}: {emptied} has {left:?}", folder.display());
            }
        }
    }
}

/// The part of the store that is generic over the disk, as a place of blobs.
#[derive(Debug)]
struct Place(Arc<Vault<ModelDisk>>);

impl Place {
    fn open(disk: &Arc<ModelDisk>, durability: Durability) -> Self {
        Self(Arc::new(Vault::open(Arc::clone(disk), Path::new("/store"), durability).unwrap()))
    }
}

fn is_empty(blob: &Descriptor) -> bool {
    *blob == Descriptor::empty(blob.digest.function())
}

impl OpenBlob for Place {
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError> {
        if is_empty(blob) {
            return Ok(Box::new(io::empty()));
        }
        match self.0.open_object(blob) {
            Ok(content) => content.ok_or(OpenBlobError::Missing(*blob)),
            Err(error) => Err(OpenBlobError::Io { blob: *blob, source: io::Error::other(error) }),
        }
    }
}

impl BlobStore for Place {
    type Error = StoreError;

    fn has(&self, blob: &Descriptor) -> Result<bool, StoreError> {
        Ok(is_empty(blob) || self.0.contains(blob)?)
    }

    fn has_many(&self, blobs: &[Descriptor]) -> Result<Vec<bool>, StoreError> {
        let found = self.0.contain(blobs)?;
        Ok(found.into_iter().zip(blobs).map(|(is_here, blob)| is_here || is_empty(blob)).collect())
    }

    fn put(&self, function: DigestFunction, source: &mut dyn Read) -> Result<Descriptor, StoreError> {
        self.0.put(function, source)
    }

    fn put_expected(&self, source: &mut dyn Read, expected: &Descriptor) -> Result<VerifiedBlob, StoreError> {
        self.0.put_expected(source, expected)
    }
}

fn disk(seed: u64, unnamed: bool) -> Arc<ModelDisk> {
    let mut disk = ModelDisk::new(seed);
    disk.unnamed = unnamed;
    disk.create_folder(Path::new("/store")).unwrap();
    Arc::new(disk)
}

#[test]
fn the_model_of_a_disk_passes_the_suite_of_places() {
    for unnamed in [true, false] {
        conformance(|| Place::open(&disk(1, unnamed), Durability::Durable));
    }
}

/// Short reads and writes, interruptions, errors, no room, no descriptors: each is an error of the call, or made good.
#[test]
fn a_disk_that_fails_passes_the_suite_of_places() {
    let (mut failures, mut successes) = (0, 0);
    for seed in 0..60 {
        let disk = disk(seed, seed % 4 < 2);
        let durability = if seed % 2 == 0 { Durability::Epoch } else { Durability::Durable };
        // From one that hardly works to one that hardly fails: a call is many operations.
        let one_in = 4 + (seed % 10) * 12;
        let fail = |fails| disk.set_faults(Faults { one_in: if fails { one_in } else { 0 }, fail_next_sync: false });
        let (failed, succeeded) = conformance_with_faults(|| Place::open(&disk, durability), fail, seed);
        failures += failed;
        successes += succeeded;
        let vault = Place::open(&disk, durability).0;
        assert!(vault.check(Depth::Full, 1).unwrap().is_clean(), "seed {seed}");
    }
    assert!(failures > 1000 && successes > 1000, "{failures} failures, {successes} successes");
}

#[test]
fn the_store_passes_the_suite_of_places_of_results() {
    let home = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    actions_conformance(|| {
        count.set(count.get() + 1);
        Store::open(&home.path().join(count.get().to_string())).unwrap()
    });
}

/// Two sessions of one store are two processes that share it.
#[test]
fn two_sessions_agree_on_the_first_result() {
    let home = tempfile::tempdir().unwrap();
    let sessions = [Store::open(home.path()).unwrap(), Store::open(home.path()).unwrap()];
    let lane = ActionLane::strict();
    for round in 0..50 {
        let action = Descriptor::of(DigestFunction::Blake3, format!("{round}").as_bytes());
        let recorded: Vec<Recorded> = std::thread::scope(|scope| {
            let threads = sessions.each_ref().map(|store| {
                let lane = &lane;
                scope.spawn(move || store.record_action_result(lane, &action, format!("{store:p}").as_bytes()).unwrap())
            });
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let found = sessions.each_ref().map(|store| store.action_result(&lane, &action).unwrap().unwrap());
        assert_eq!(found[0], found[1]);
        assert!(recorded.contains(&Recorded::Own) && recorded.contains(&Recorded::Other(found[0].clone())));
    }
}
