//! Disks that are full.

use std::path::Path;
use std::process::Command;

use cas_store::{Quota, Store};

use crate::{
    Descriptor, DigestFunction, Durability, NOTHING_STAYS, Random, StoreError, assert_clean, command, content, open,
    reads_right, soak, tree_of,
};

/// What is not the store's, and leaves.
const BALLAST_BYTES: usize = 256 << 10;

/// Each way to write, until one finds no room.
fn fill_until_full(store: &Store, durable: &Store, random: &mut Random, told: &mut Vec<Descriptor>) -> StoreError {
    loop {
        let result = match random.below(30) {
            0 => store.seal(),
            1 => store.pin(&format!("pin-{}", random.below(5)), &[]),
            2 => store.put_memo("test", &random.next().to_le_bytes(), &content(random.below(100))),
            3 => {
                let tree = tree_of(&told[told.len().saturating_sub(4)..]);
                store.put_tree(&tree, DigestFunction::Blake3).and_then(|name| store.materialize(&name, &tree).map(drop))
            }
            number => {
                let target = if number % 4 == 0 { durable } else { store };
                let bytes = content(random.next());
                target.put(DigestFunction::Blake3, &mut bytes.as_slice()).map(|blob| told.push(blob))
            }
        };
        if let Err(error) = result {
            return error;
        }
    }
}

/// Fills the disk that the store is on, twice, and clears it.
pub(crate) fn fill(home: &Path, seed: u64) {
    let hint = format!("seed {seed}");
    let mut random = Random(seed);
    // Half of the disks are filled up to the last byte, half up to the store's own limit.
    if seed.is_multiple_of(2) {
        let store = open(home, Durability::Epoch).unwrap();
        store.set_quota(Quota { min_free_bytes: Some(0), ..Quota::default() }).unwrap();
    }
    let ballast = home.join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    for has_ballast in [false, true] {
        let mut told = Vec::new();
        {
            let store = open(home, Durability::Epoch).unwrap();
            let durable = open(home, Durability::Durable).unwrap();
            for _ in 0..3 {
                let error = fill_until_full(&store, &durable, &mut random, &mut told);
                assert!(error.is_full(), "{error:?}; {hint}");
            }
            assert!(has_ballast || told.len() > 10, "{}; {hint}", told.len());
        }
        // Looking takes a lease, which takes room, so every other time somebody makes a little.
        let hint = &format!("{hint}, ballast {has_ballast}");
        if has_ballast {
            std::fs::remove_file(&ballast).unwrap();
        }
        let store = open(home, Durability::Epoch).unwrap_or_else(|error| panic!("{error:?}; {hint}"));
        for blob in &told {
            match store.load(blob, 1 << 20) {
                Err(error) if error.is_full() && !has_ballast => continue,
                _ => assert!(reads_right(&store, blob, hint), "{blob} is gone; {hint}"),
            }
        }
        if has_ballast {
            assert_clean(&store, hint);
        }
        drop(store);
        // What a session looked at is leased, so another one clears the store.
        let store = open(home, Durability::Epoch).unwrap_or_else(|error| panic!("{error:?}; {hint}"));
        let collected =
            store.collect(NOTHING_STAYS, Some(64 << 10), false).unwrap_or_else(|error| panic!("{error:?}; {hint}"));
        assert!(collected.objects > 0, "{collected:?}; {hint}");
        let blob = store
            .put(DigestFunction::Blake3, &mut content(random.next()).as_slice())
            .unwrap_or_else(|error| panic!("{error:?} after {collected:?}; {hint}"));
        assert!(reads_right(&store, &blob, hint), "{hint}");
        assert_clean(&store, hint);
    }
}

/// A write that finds no room is told as such, wherever it is; what was put before is whole, and the store can be cleared.
#[test]
fn a_full_disk_loses_nothing_and_can_be_cleared() {
    let home = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=\"$1\" cas \"$2\" || exit 99; shift 2; exec \"$@\"";
    for round in 0..22 * soak() {
        // Ends that fall within anything; the large ones have room for a reserve.
        let megabytes = if round % 11 == 10 { 40 } else { 2 + round % 11 };
        let kilobytes = megabytes * 1024 + Random(round).below(256) * 4;
        let worker = command("fill", &home.path().join("store"), round);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        command.arg(format!("{kilobytes}k")).arg(home.path().join("store"));
        std::fs::create_dir_all(home.path().join("store")).unwrap();
        command.arg(worker.get_program()).args(worker.get_args());
        command.envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output();
        let Some(output) = output.ok().filter(|output| !matches!(output.status.code(), Some(1 | 99))) else {
            eprintln!("SKIPPED: no memory file system can be mounted here");
            return;
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{kilobytes} KiB, seed {round}, {}:\n{stderr}", output.status);
    }
}
