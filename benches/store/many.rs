//! A store of a million blobs: how it grows, is asked, and is collected beside a writer.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_store::{Retention, Store, StoreOptions};

use crate::harness::{Bench, clear, median, on_all_cores, reset_peak, run, say_peak, time};

/// Sizes at which the store is looked at.
const STAGES: [usize; 3] = [10_000, 100_000, 1_000_000];
/// Blobs that are put, or asked for, at once to tell how long one takes.
const WINDOW: usize = 10_000;
/// Rounds of the collection; the median counts.
const ROUNDS: usize = 3;

fn content(number: usize) -> [u8; 100] {
    let mut bytes = [b'.'; 100];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn put(store: &Store, from: usize, to: usize) -> Vec<Descriptor> {
    on_all_cores(to - from, &|index| store.put_bytes(DigestFunction::Blake3, &content(from + index)).unwrap())
}

/// Time of one question of a session that has not asked before.
fn ask(home: &Path, wanted: &[Descriptor]) -> f64 {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let fresh = Store::open(home).unwrap();
            time(|| assert!(fresh.contain(wanted).unwrap().iter().all(|found| *found)))
        })
        .collect();
    median(&mut times).as_secs_f64() / wanted.len() as f64
}

/// Fills a store; with `report` a line is printed at each stage.
fn fill(home: &Path, report: bool) {
    let store = Store::open(home).unwrap();
    let mut held = 0;
    for stage in STAGES {
        put(&store, held, stage - WINDOW);
        let start = Instant::now();
        let last = put(&store, stage - WINDOW, stage);
        let put_time = start.elapsed().as_secs_f64() / WINDOW as f64;
        held = stage;
        if !report {
            continue;
        }
        // Spread over the whole store, and not what was put last.
        let wanted: Vec<Descriptor> = (0..WINDOW)
            .map(|index| Descriptor::of(DigestFunction::Blake3, &content(index * (stage / WINDOW))))
            .collect();
        let ask_time = ask(home, &wanted);
        let mut walk = Vec::new();
        for _ in 0..3 {
            walk.push(time(|| assert!(store.statistics().unwrap().objects >= stage as u64)));
        }
        let walk = median(&mut walk).as_secs_f64() / stage as f64;
        println!(
            "| {stage} | {:.1} | {:.2} | {:.2} | {:.2} |",
            put_time * 1e6,
            ask_time * 1e6,
            1.0 / ask_time / 1e6,
            walk * 1e6
        );
        assert_eq!(last.len(), WINDOW);
    }
}

/// Puts blobs that nobody has, one after the other, until told to stop; how long each took.
fn write_until(store: &Store, stop: &AtomicBool, start: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let number = start + times.len();
        times.push(time(|| {
            store.put_bytes(DigestFunction::Blake3, &content(number)).unwrap();
        }));
        std::thread::sleep(Duration::from_micros(100));
    }
    times
}

fn stalls(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    format!("{} puts: median {:.3} ms, p99 {:.2} ms, longest {:.1} ms", times.len(), at(50), at(99), at(100))
}

/// Collects everything that is in the store, while another session puts; how long it took, and the puts.
fn collect(home: &Path, expected: usize) -> (Duration, Vec<Duration>, Vec<Duration>) {
    let writer = Store::open(home).unwrap();
    let options = StoreOptions { needs: Some(|_, _| Ok(Some(Vec::new()))), ..StoreOptions::default() };
    let store = Store::open_with(home, options).unwrap();
    // What was put a second ago is older than nothing.
    std::thread::sleep(Duration::from_millis(1100));
    let retention = Retention { min_age_seconds: 0, keep_seconds: 0 };
    let (stop, quiet) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| write_until(&writer, &quiet, 1 << 40));
        std::thread::sleep(Duration::from_secs(1));
        quiet.store(true, Ordering::Relaxed);
        let alone = alone.join().unwrap();
        let beside = scope.spawn(|| write_until(&writer, &stop, 1 << 41));
        let mut removed = 0;
        let took = time(|| removed = store.collect(retention, None, false).unwrap().objects);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(removed, expected as u64);
        (took, alone, beside.join().unwrap())
    })
}

pub(crate) fn many(bench: &Bench) {
    let home = bench.at("many");
    let total = STAGES[STAGES.len() - 1];
    clear(&home);
    println!("## A store that grows, blobs of 100 bytes\n");
    println!(
        "| blobs | µs a put, two threads | µs a digest asked for | million a second | µs a blob of `cas store stat` |"
    );
    println!("|---|---|---|---|---|");
    fill(&home, true);
    println!();
    say_peak("filling and asking");
    let (mut removals, mut collections) = (Vec::new(), Vec::new());
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round > 0 {
            fill(&home, false);
        }
        removals.push(time(|| run(Command::new("rm").arg("-rf").arg(home.join("v1/objects/blake3")))));
        clear(&home);
        fill(&home, false);
        reset_peak();
        let (took, without, with) = collect(&home, total);
        collections.push(took);
        alone.extend(without);
        beside.extend(with);
        clear(&home);
    }
    let (removal, collection) = (median(&mut removals).as_secs_f64(), median(&mut collections).as_secs_f64());
    println!("## {total} blobs collected, medians of {ROUNDS}\n\n| | seconds | of the first |\n|---|---|---|");
    println!("| `rm -rf` of an equal store's objects | {removal:.3} | 1.00 |");
    println!("| **collection of all of them** | {collection:.3} | {:.2} |\n", collection / removal);
    println!(
        "Another session that puts, 0.1 ms after the last: alone {}; beside the collection {}.\n",
        stalls(alone),
        stalls(beside)
    );
    say_peak("collecting");
}
