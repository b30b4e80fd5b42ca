//! Workers that are killed.

use std::time::Duration;

use crate::{
    Durability, Random, Told, Worker, assert_clean, assert_pins_hold, assert_pool_is_right, names, open, reads_right,
    soak,
};

/// Few contents, so that workers meet each other's objects.
pub(crate) const POOL: u64 = 500;
const WORKERS: usize = 3;
const KILLS: u64 = 30;
/// A worker is killed at any moment of so many after its first word.
const LONGEST_DELAY_US: u64 = 40_000;

/// Kills workers of one store again and again; what all of them were told.
fn kill_workers(work: &str, home: &std::path::Path, seed: u64) -> Told {
    let mut random = Random(seed);
    let mut all = Told::default();
    let mut next_seed = seed * 10_000;
    let mut start = || {
        next_seed += 1;
        Worker::start(work, home, next_seed)
    };
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| start()).collect();
    let mut hits = 0;
    for kill in 0..KILLS + WORKERS as u64 {
        let at = usize::try_from(random.below(workers.len() as u64)).unwrap();
        let worker = workers.swap_remove(at);
        worker.wait_until_working();
        std::thread::sleep(Duration::from_micros(random.below(LONGEST_DELAY_US)));
        let (was_alive, told) = worker.kill();
        assert!(was_alive, "a worker ended by itself: its words are above; seed {seed}");
        hits += u64::from(was_alive && told.is_working);
        all.count += told.count;
        all.durable.extend(told.durable);
        all.open.extend(told.open);
        // Names of pins are of one worker alone.
        all.pins.extend(told.pins);
        if kill < KILLS {
            workers.push(start());
        }
    }
    let kills = KILLS + WORKERS as u64;
    eprintln!("{work}, seed {seed}: {kills} kills, {hits} of a worker at work, {} promises", all.count);
    assert!(hits * 10 >= kills * 8, "{hits} of {kills} kills hit a worker at work; seed {seed}");
    all
}

fn assert_nothing_lies_about(home: &std::path::Path, hint: &str) {
    let folder = home.join("v1");
    assert_eq!(names(&folder.join("tmp")).len(), 1, "work of the dead is cleared when a store is opened; {hint}");
    assert_eq!(names(&folder.join("quarantine")), [""; 0], "a kill damages nothing; {hint}");
}

/// A kill loses nothing that a put returned for, and leaves nothing half.
#[test]
fn killed_processes_lose_nothing_and_leave_nothing_half() {
    for seed in 1..=soak() {
        let home = tempfile::tempdir().unwrap();
        let told = kill_workers("keep", home.path(), seed);
        let hint = format!("seed {seed}");
        let store = open(home.path(), Durability::Epoch).unwrap();
        assert_nothing_lies_about(home.path(), &hint);
        // The machine went on, so what nobody waited for is there as well.
        for blob in told.durable.iter().chain(&told.open) {
            assert!(reads_right(&store, blob, &hint), "{blob} is gone; {hint}");
        }
        assert_pins_hold(&store, &told.pins, &hint);
        assert_pool_is_right(&store, POOL, &hint);
        assert_clean(&store, &hint);
        assert_clean(&store, &hint);
    }
}

/// Collections that are killed, and others that run meanwhile, take nothing that is pinned, and half of nothing.
#[test]
fn killed_collections_take_nothing_that_is_pinned() {
    for seed in 1001..=1000 + soak() {
        let home = tempfile::tempdir().unwrap();
        let told = kill_workers("clear", home.path(), seed);
        let hint = format!("seed {seed}");
        let store = open(home.path(), Durability::Epoch).unwrap();
        assert_nothing_lies_about(home.path(), &hint);
        assert_pins_hold(&store, &told.pins, &hint);
        assert_pool_is_right(&store, POOL, &hint);
        assert_clean(&store, &hint);
        drop(store);
        // A session's own leases end with it, so this one takes all that is not pinned.
        let store = open(home.path(), Durability::Epoch).unwrap();
        store.collect(crate::NOTHING_STAYS, None, false).unwrap();
        assert_pins_hold(&store, &told.pins, &hint);
        assert_clean(&store, &hint);
    }
}
