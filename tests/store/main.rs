//! Crashes of the local store that really happen: processes that are killed, disks that are full, power that is lost; and
//! trees written out on disks of several kinds.
//!
//! The binary runs itself as a worker that uses the store at random and tells on its output what it was promised. What
//! it was told must hold afterwards, whatever happened. All randomness comes from seeds that a failure prints, but the
//! kernel's timing does not repeat. `CAS_SOAK=n` does everything n times over, with other seeds.
//!
//! Not here: every order in which writes may be lost; a model of a disk tries those inside `cas-store`.
#![expect(clippy::disallowed_methods, reason = "tests look at the disk as others do, and pass on an environment")]
#![expect(clippy::unwrap_used, reason = "a failed helper fails its test, and the place tells which")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod full;
mod kills;
mod power;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_store::{Depth, Durability, Keep, Load, Retention, Row, Store, StoreError, StoreOptions};
use cas_tree::{Directory, Metadata, Node, RelPath};

/// What the worker does; without it the test `worker` is empty.
const WORK: &str = "CAS_STORE_TEST_WORK";
/// Folder that it does it in, and the seed.
const FOLDER: &str = "CAS_STORE_TEST_FOLDER";
const SEED: &str = "CAS_STORE_TEST_SEED";
/// A worker that nobody ends, ends by itself.
const WORKER_LIFE: Duration = Duration::from_secs(60);
/// One of so many contents is longer than what is read and written whole.
const LONG_ONE_IN: u64 = 16;
const LONG_BYTES: u64 = 300 << 10;

/// The tests run themselves with this one as their only test.
#[test]
fn worker() {
    let Some(work) = std::env::var_os(WORK) else { return };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    match work.to_str().unwrap() {
        "keep" => work_forever(&folder, seed, kills::POOL, Retention::default()),
        "clear" => work_forever(&folder, seed, kills::POOL, NOTHING_STAYS),
        "write" => work_forever(&folder, seed, power::POOL, Retention::default()),
        "fill" => full::fill(&folder, seed),
        "power" => power::lose(&folder, seed),
        "share" => shared::compare(&folder),
        work => panic!("`{work}` is no work"),
    }
}

/// All that nobody pinned or uses may leave at once.
const NOTHING_STAYS: Retention = Retention { min_age_seconds: 0, keep_seconds: 0 };

/// How often everything is done.
fn soak() -> u64 {
    std::env::var("CAS_SOAK").ok().map_or(1, |text| text.parse().expect("CAS_SOAK is a number"))
}

fn command(work: &str, folder: &Path, seed: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "worker", "--nocapture"]);
    command.env(WORK, work).env(FOLDER, folder).env(SEED, seed.to_string());
    command
}

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The content with a number. All workers draw from one pool, so that they meet each other's objects.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let length = if random.below(LONG_ONE_IN) == 0 { LONG_BYTES } else { 1 } + random.below(6000);
    let mut bytes = vec![0; usize::try_from(length).unwrap()];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

#[expect(clippy::unnecessary_wraps, reason = "the form that the store asks for")]
fn no_needs(_: &Row, _: &mut Load<'_>) -> Result<Option<Vec<Keep>>, StoreError> {
    Ok(Some(Vec::new()))
}

fn open(home: &Path, durability: Durability) -> Result<Store, StoreError> {
    Store::open_with(home, StoreOptions { durability, needs: Some(no_needs), ..StoreOptions::default() })
}

/// A tree of three blobs.
fn tree_of(blobs: &[Descriptor]) -> Directory {
    let mut tree = Directory::root();
    for (position, blob) in blobs.iter().enumerate() {
        let path = RelPath::new(format!("d{}/file-{position}", position % 2)).unwrap();
        tree.insert(&path, Node::file(*blob, 0o644), &Metadata::root_owned(0o755)).unwrap();
    }
    tree
}

fn say(words: &str) {
    // One write a line: what is told is told whole.
    std::io::stdout().lock().write_all(format!("{words}\n").as_bytes()).unwrap();
}

/// Uses the store in all ways, tells what was promised, and does not end.
fn work_forever(home: &Path, seed: u64, pool: u64, retention: Retention) {
    let started = Instant::now();
    let mut random = Random(seed);
    // Two sessions at once, of which one waits for the disk.
    let store = open(home, Durability::Epoch).unwrap();
    let durable = open(home, Durability::Durable).unwrap();
    let mut recent = vec![store.put_bytes(DigestFunction::Blake3, b"first").unwrap()];
    let mut pins = Vec::new();
    // The harness has begun a line.
    say("\nworking");
    while started.elapsed() < WORKER_LIFE {
        match random.below(40) {
            0 => {
                store.seal().unwrap();
                say("sealed");
            }
            1 => drop(store.collect(retention, None, false).unwrap()),
            2 | 3 => {
                let at = usize::try_from(random.below(recent.len() as u64)).unwrap();
                let name = format!("{seed}/{}", pins.len());
                store.pin(&name, &[Keep::Blob(recent[at])]).unwrap();
                say(&format!("pinned {name} {}", recent[at]));
                pins.push(name);
            }
            4 if !pins.is_empty() => {
                let at = usize::try_from(random.below(pins.len() as u64)).unwrap();
                // Told before: from here on it may be gone.
                say(&format!("unpinning {}", pins[at]));
                store.unpin(&pins[at]).unwrap();
            }
            5 | 6 => {
                let tree = tree_of(&recent[recent.len().saturating_sub(3)..]);
                let name = store.put_tree(&tree, DigestFunction::Blake3).unwrap();
                store.materialize(&name, &tree).unwrap();
            }
            7 => store.put_memo("test", &random.next().to_le_bytes(), b"value").unwrap(),
            number => {
                let bytes = content(random.below(pool));
                let is_durable = number % 3 == 0;
                let target = if is_durable { &durable } else { &store };
                let blob = target.put(DigestFunction::Blake3, &mut bytes.as_slice()).unwrap();
                say(&format!("{} {blob}", if is_durable { "durable" } else { "put" }));
                recent.push(blob);
            }
        }
    }
}

/// What workers were promised.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Lines of any kind.
    count: usize,
    is_working: bool,
    /// What was put and not sealed yet.
    open: Vec<Descriptor>,
    durable: BTreeSet<Descriptor>,
    pins: BTreeMap<String, Descriptor>,
    /// Pins that were ended, or are about to be.
    unpinned: BTreeSet<String>,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["working"] => self.is_working = true,
            ["put", blob] => self.open.push(blob.parse().unwrap()),
            ["durable", blob] => drop(self.durable.insert(blob.parse().unwrap())),
            ["sealed"] => self.durable.extend(self.open.drain(..)),
            ["pinned", name, blob] => drop(self.pins.insert(name.to_owned(), blob.parse().unwrap())),
            ["unpinning", name] => {
                self.pins.remove(name);
                self.unpinned.insert(name.to_owned());
            }
            // What the harness says.
            _ => return,
        }
        self.count += 1;
    }
}

/// A worker process; it is ended when this is dropped.
struct Worker {
    child: Child,
    told: Arc<(Mutex<Told>, Condvar)>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Worker {
    fn start(work: &str, folder: &Path, seed: u64) -> Self {
        let mut command = command(work, folder, seed);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it is this program");
        let told = Arc::new((Mutex::new(Told::default()), Condvar::new()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let hears = Arc::clone(&told);
        let promises = std::thread::spawn(move || {
            for line in output.split(b'\n') {
                hears.0.lock().unwrap().hear(std::str::from_utf8(&line.unwrap()).unwrap());
                hears.1.notify_all();
            }
        });
        let mut output = child.stderr.take().unwrap();
        let complaints = std::thread::spawn(move || {
            // Whether it was killed meanwhile or not, a worker has nothing to complain of.
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            assert!(text.is_empty(), "seed {seed}: {text}");
        });
        Self { child, told, readers: vec![promises, complaints] }
    }

    /// Waits until the worker is in its loop.
    fn wait_until_working(&self) {
        let told = self.told.0.lock().unwrap();
        let limit = Duration::from_secs(30);
        let (told, _) = self.told.1.wait_timeout_while(told, limit, |told| !told.is_working).unwrap();
        assert!(told.is_working, "the worker did not begin");
    }

    /// What was heard so far.
    fn told(&self) -> Told {
        self.told.0.lock().unwrap().clone()
    }

    /// Kills it; whether it was working, and all that it was told.
    fn kill(mut self) -> (bool, Told) {
        let was_alive = self.child.try_wait().unwrap().is_none();
        self.end();
        (was_alive, self.told())
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let result = reader.join();
            assert!(result.is_ok() || std::thread::panicking(), "the worker failed: see above");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a blob is here. One that is, is right.
#[track_caller]
fn reads_right(store: &Store, blob: &Descriptor, hint: &str) -> bool {
    let bytes = match store.load(blob, 1 << 20) {
        Ok(bytes) => bytes,
        Err(StoreError::Missing(_)) => return false,
        Err(error) => panic!("{blob} is neither here nor a miss: {error:?}; {hint}"),
    };
    assert_eq!(Descriptor::of(DigestFunction::Blake3, &bytes), *blob, "{hint}");
    true
}

/// Every content that a worker may have put is right or a miss, and who asks is told which.
#[track_caller]
fn assert_pool_is_right(store: &Store, pool: u64, hint: &str) {
    for number in 0..pool {
        let blob = Descriptor::of(DigestFunction::Blake3, &content(number));
        let is_here = store.contains(&blob).unwrap();
        assert_eq!(reads_right(store, &blob, hint), is_here, "{blob}; {hint}");
    }
}

#[track_caller]
fn assert_pins_hold(store: &Store, pins: &BTreeMap<String, Descriptor>, hint: &str) {
    let stored = store.pins().unwrap();
    for (name, blob) in pins {
        let pin = stored.iter().find(|pin| pin.name == *name).unwrap_or_else(|| panic!("pin {name} is gone; {hint}"));
        assert_eq!(pin.keeps, [Keep::Blob(*blob)], "{hint}");
        assert!(reads_right(store, blob, hint), "{blob} is gone, which {name} pins; {hint}");
    }
}

/// A check finds nothing.
#[track_caller]
fn assert_clean(store: &Store, hint: &str) {
    let check = store.check(Depth::Full).unwrap();
    assert!(check.is_clean(), "{check:?}; {hint}");
}

/// Names in a folder of the store.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
