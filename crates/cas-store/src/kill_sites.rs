//! A process that is killed at each named site in turn: before what the site does, and after it.
//!
//! The tests run themselves as a worker, whose disk is the real one but for the site at which it kills its own process. The
//! code is the one that ships; no hook is left in it. Kills at any moment are in `tests/store`, losses of power in `simulator`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_fs::{DirEntry, FsError};
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::disk::{Access, Disk, HostDisk, LockMode, Mark, Room, Site, Stat, write_all};
use crate::format::{self, Format};
use crate::pins::{Keep, Pin};
use crate::roots::{TREE_FILE, encode_directories};
use crate::vault::Vault;
use crate::{Depth, Durability, Quota, Store};

/// Numbers of the site and of its occurrence, `before` or `after`, and the store's folder; without them the worker does
/// nothing.
const WORK: &str = "CAS_STORE_TEST_KILL_SITE";
/// Kills at each site, and no fewer.
const KILLS: u64 = 6;
/// A worker that passed its site so often without being killed never will.
const ROUNDS: u64 = 20;

/// The disk of this machine, and the death of the process at a site.
#[derive(Debug)]
struct KillDisk {
    site: Site,
    /// Which time it is passed, from one on.
    occurrence: u64,
    /// Killed before what it does, or after it.
    is_before: bool,
    count: AtomicU64,
}

impl KillDisk {
    fn at<T>(&self, site: Site, act: impl FnOnce() -> T) -> T {
        let is_here = site == self.site && self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.occurrence;
        if is_here && self.is_before {
            die();
        }
        let result = act();
        if is_here {
            die();
        }
        result
    }
}

fn die() -> ! {
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
    unreachable!("the signal comes before the call returns")
}

impl Disk for KillDisk {
    type File = File;

    fn create_unnamed(&self, folder: &Path) -> Result<Option<File>, FsError> {
        if self.site == Site::RenameObject { Ok(None) } else { HostDisk.create_unnamed(folder) }
    }
    fn open(&self, path: &Path, access: Access) -> Result<Option<File>, FsError> {
        HostDisk.open(path, access)
    }
    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        HostDisk.read_at(file, offset, buffer)
    }
    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        HostDisk.write_at(file, offset, bytes)
    }
    fn finish(&self, file: &File, mark: Mark) -> io::Result<()> {
        HostDisk.finish(file, mark)
    }
    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        HostDisk.stat_file(file)
    }
    fn stat(&self, path: &Path) -> Result<Option<Stat>, FsError> {
        HostDisk.stat(path)
    }
    fn mark(&self, path: &Path, mark: Mark) -> Result<(), FsError> {
        HostDisk.mark(path, mark)
    }
    fn touch(&self, path: &Path, seconds: i64) -> Result<(), FsError> {
        HostDisk.touch(path, seconds)
    }
    fn allocate(&self, file: &File, bytes: u64) -> io::Result<()> {
        HostDisk.allocate(file, bytes)
    }
    fn link(&self, site: Site, file: &File, path: &Path) -> Result<bool, FsError> {
        self.at(site, || HostDisk.link(site, file, path))
    }
    fn rename(&self, site: Site, from: &Path, to: &Path) -> Result<(), FsError> {
        self.at(site, || HostDisk.rename(site, from, to))
    }
    fn remove(&self, path: &Path) -> Result<bool, FsError> {
        HostDisk.remove(path)
    }
    fn remove_tree(&self, path: &Path) -> Result<(), FsError> {
        HostDisk.remove_tree(path)
    }
    fn list(&self, folder: &Path) -> Result<Vec<DirEntry>, FsError> {
        HostDisk.list(folder)
    }
    fn create_folder(&self, path: &Path) -> Result<bool, FsError> {
        HostDisk.create_folder(path)
    }
    fn sync_file(&self, site: Site, file: &File) -> io::Result<()> {
        self.at(site, || HostDisk.sync_file(site, file))
    }
    fn sync_folder(&self, site: Site, path: &Path) -> Result<(), FsError> {
        self.at(site, || HostDisk.sync_folder(site, path))
    }
    fn sync_all(&self, site: Site, file: &File) -> io::Result<()> {
        self.at(site, || HostDisk.sync_all(site, file))
    }
    fn open_folder(&self, path: &Path) -> Result<File, FsError> {
        HostDisk.open_folder(path)
    }
    fn try_lock(&self, file: &File, mode: LockMode) -> io::Result<bool> {
        HostDisk.try_lock(file, mode)
    }
    fn room(&self, folder: &Path) -> Result<Room, FsError> {
        HostDisk.room(folder)
    }
    fn boot(&self) -> Option<String> {
        HostDisk.boot()
    }
    fn now(&self) -> i64 {
        HostDisk.now()
    }
    fn random(&self) -> u64 {
        HostDisk.random()
    }
    fn pause(&self) {
        HostDisk.pause();
    }
}

fn say(words: &str) {
    // One write a line: what is told is told whole.
    io::stdout().lock().write_all(format!("\n{words}\n").as_bytes()).unwrap();
}

/// What the root holds.
fn root_tree() -> Directory {
    let mut tree = Directory::root();
    let file = Node::file(Descriptor::of(DigestFunction::Blake3, b"whole"), 0o600);
    tree.insert(&RelPath::new("file").unwrap(), file, &Metadata::root_owned(0o755)).unwrap();
    tree
}

fn root_name() -> Descriptor {
    root_tree().encode(DigestFunction::Blake3).unwrap().root
}

fn root_path(folder: &Path) -> PathBuf {
    folder.join("roots").join(crate::roots::root_name(&root_name().digest))
}

/// Passes every site in each round, and tells what was promised.
fn work(folder: &Path, site: Site, occurrence: u64, is_before: bool) {
    let disk = Arc::new(KillDisk { site, occurrence, is_before, count: AtomicU64::new(0) });
    let open = |durability| Arc::new(Vault::open(Arc::clone(&disk), folder, durability).unwrap());
    let (store, durable) = (open(Durability::Epoch), open(Durability::Durable));
    for round in 0..ROUNDS {
        let content = |what: &str| format!("{what} {site:?} {occurrence} {round}").into_bytes();
        let put = |vault: &Vault<KillDisk>, what: &str| {
            let blob = vault.put_bytes(DigestFunction::Blake3, &content(what)).unwrap();
            say(&format!("put {blob}"));
            blob
        };
        put(&store, "for an epoch");
        put(&durable, "for an epoch");
        let blob = put(&durable, "durable");
        store.seal().unwrap();
        let name = format!("{site:?}/{occurrence}/{round}");
        store.pin(&Pin { name: name.clone(), keeps: vec![Keep::Blob(blob)], ..Pin::default() }).unwrap();
        say(&format!("pinned {name} {blob}"));
        if round % 2 == 1 {
            // Told before: from here on it may be gone.
            say(&format!("unpinning {name}"));
            store.unpin(&name).unwrap();
        }
        let (made, root) = (store.temporary("root"), root_path(folder));
        cas_fs::create_dir_all(&made.join("root")).unwrap();
        let file = disk.open(&made.join("root/file"), Access::New).unwrap().unwrap();
        write_all(&*disk, &file, 0, b"whole").unwrap();
        let directories = encode_directories(&root_tree(), &root_name()).unwrap();
        cas_fs::write(&made.join(TREE_FILE), &directories).unwrap();
        store.remove_root(&root).unwrap();
        store.publish_root(&made, &root).unwrap();
        let quota = Quota { max_bytes: Some((1 << 40) + round), ..Quota::default() };
        let format = Format { quota, ..store.format.clone() };
        format::write(&*disk, folder, &store.temporary("format"), &format).unwrap();
        if site == Site::Quarantine {
            let rotten = store.put_bytes(DigestFunction::Blake3, &content("rotten")).unwrap();
            let path = store.path(&rotten.digest);
            cas_fs::set_mode(&path, 0o644).unwrap();
            cas_fs::write(&path, b"other bytes").unwrap();
            assert_eq!(store.read_small(&rotten).unwrap(), None);
        }
    }
}

/// The tests run themselves with this one as their only test.
#[test]
#[expect(clippy::disallowed_methods, reason = "a worker is told by its environment what to do")]
fn worker() {
    let Ok(work) = std::env::var(WORK) else { return };
    let words: Vec<&str> = work.splitn(4, ' ').collect();
    let site = Site::ALL[words[0].parse::<usize>().unwrap()];
    self::work(Path::new(words[3]), site, words[1].parse().unwrap(), words[2] == "before");
}

/// Kills a worker at a site; what it told, and whether it was killed.
fn kill(home: &Path, site: usize, occurrence: u64, is_before: bool) -> (String, bool) {
    use std::os::unix::process::ExitStatusExt;
    let moment = if is_before { "before" } else { "after" };
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill_sites::worker", "--nocapture"])
        .env(WORK, format!("{site} {occurrence} {moment} {}", home.join("v1").display()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{:?}, {occurrence}: {errors}", Site::ALL[site]);
    (String::from_utf8(output.stdout).unwrap(), output.status.signal() == Some(9))
}

#[test]
#[expect(clippy::print_stderr, reason = "how often each site was hit is told")]
fn a_kill_at_any_named_site_loses_nothing_and_leaves_nothing_half() {
    for (number, site) in Site::ALL.into_iter().enumerate() {
        let mut home = tempfile::tempdir().unwrap();
        let mut kills = 0;
        let mut put: Vec<Descriptor> = Vec::new();
        let mut pins: BTreeMap<String, Descriptor> = BTreeMap::new();
        for occurrence in 1..=KILLS {
            let hint = format!("{site:?}, {occurrence}");
            // The layout of a store is made once. All others are hit in a store that kills have left.
            let time = if site == Site::SyncLayout {
                home = tempfile::tempdir().unwrap();
                (put, pins) = (Vec::new(), BTreeMap::new());
                1
            } else {
                occurrence
            };
            let (told, is_killed) = kill(home.path(), number, time, occurrence % 2 == 1);
            kills += u64::from(is_killed);
            for line in told.lines() {
                match line.split(' ').collect::<Vec<_>>()[..] {
                    ["put", blob] => put.push(blob.parse().unwrap()),
                    ["pinned", name, blob] => drop(pins.insert(name.to_owned(), blob.parse().unwrap())),
                    ["unpinning", name] => drop(pins.remove(name)),
                    // What the harness says.
                    _ => {}
                }
            }
            let store = Store::open(home.path()).unwrap();
            for blob in &put {
                assert!(store.contains(blob).unwrap(), "{blob} is gone; {hint}");
                let bytes = store.load(blob, 1000).unwrap();
                assert_eq!(Descriptor::of(DigestFunction::Blake3, &bytes), *blob, "{hint}");
            }
            let found = store.pins().unwrap();
            for (name, blob) in &pins {
                let keeps = found.iter().find(|pin| pin.name == *name).map(|pin| pin.keeps.clone());
                assert_eq!(keeps, Some(vec![Keep::Blob(*blob)]), "{name}; {hint}");
            }
            let root = root_path(store.folder());
            if store.vault.find_root(&root).unwrap() {
                let mut text = String::new();
                cas_fs::open(&root.join("root/file")).unwrap().read_to_string(&mut text).unwrap();
                assert_eq!(text, "whole", "{hint}");
            }
            let check = store.check(Depth::Full).unwrap();
            // What the worker damaged itself is found, if it was killed before it moved it aside.
            let is_right = check.is_clean() || (site == Site::Quarantine && check.damaged.len() == 1);
            assert!(is_right, "{check:?}; {hint}");
            assert!(store.check(Depth::Full).unwrap().is_clean(), "{hint}");
            assert_eq!(cas_fs::read_dir(&store.folder().join("tmp")).unwrap().len(), 1, "work of the dead; {hint}");
        }
        eprintln!("{site:?}: {kills} kills");
        assert!(kills >= 5, "only {kills} workers were killed at {site:?}");
    }
}
