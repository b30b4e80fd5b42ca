//! Power that is lost: the state of a disk at one moment, from which the file system recovers as after a loss of power.
//!
//! The disk is an image file in a file system that can share blocks: a clone of the image is what the disk had at one
//! moment, while a plain copy would mix moments and show writes without those that were flushed before them.
//!
//! Not here: a disk that loses writes of its own cache which nobody flushed; the kernel alone may hold back writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::{
    Durability, Random, Told, Worker, assert_clean, assert_pins_hold, assert_pool_is_right, command, open, reads_right,
    soak,
};

/// Many contents, so that there is something new to write all the time.
pub(crate) const POOL: u64 = 1500;
const SNAPSHOTS: usize = 25;
const LONGEST_GAP_US: u64 = 150_000;
/// What a worker for this exits with where no disk can be mounted; the harness has no such code.
pub(crate) const CANNOT: i32 = 77;

fn run(command: &mut Command) -> Result<(), String> {
    let output: Output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}: {}", output.status, stderr.trim())) }
}

/// A file system in an image file, until this is dropped. Its loop device goes with it.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    pub(crate) fn new(image: &Path, at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).args([image, at]))?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.0)) {
            // Files that are still open keep it a moment longer, no longer than the namespace.
            eprintln!("{error}");
            let _ = run(Command::new("umount").arg("-l").arg(&self.0));
        }
    }
}

pub(crate) fn make_image(program: &str, arguments: &[&str], path: &Path, bytes: u64) -> Result<(), String> {
    std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
    run(Command::new(program).args(arguments).arg(path))
}

/// One image of the disk, and what was told before it was taken.
struct Snapshot {
    image: PathBuf,
    told: Told,
}

/// Takes images of a disk that a worker writes to.
fn take_snapshots(image: &Path, disk: &Path, seed: u64) -> Vec<Snapshot> {
    let mut random = Random(seed);
    let _mounted = Mounted::new(image, disk).unwrap_or_else(|error| panic!("{error}; seed {seed}"));
    let mut worker = Worker::start("write", &disk.join("home"), seed);
    let mut snapshots = Vec::new();
    for number in 0..SNAPSHOTS {
        // The first ones may meet a store that is being made.
        std::thread::sleep(Duration::from_micros(random.below(LONGEST_GAP_US)));
        let told = worker.told();
        let copy = image.with_extension(number.to_string());
        run(Command::new("cp").arg("--reflink=always").args([image, &copy])).unwrap();
        assert!(worker.child.try_wait().unwrap().is_none(), "the worker ended by itself; seed {seed}");
        snapshots.push(Snapshot { image: copy, told });
    }
    let (_, told) = worker.kill();
    for snapshot in &mut snapshots {
        // A pin may have been ended between what was heard and the image.
        snapshot.told.pins.retain(|name, _| !told.unpinned.contains(name));
    }
    assert!(told.count > 100, "the worker did next to nothing: {}; seed {seed}", told.count);
    snapshots
}

/// Opens the store as after the loss of power, and looks at all that was told.
fn recover(snapshot: &Snapshot, disk: &Path, hint: &str) -> usize {
    let _mounted = Mounted::new(&snapshot.image, disk)
        .unwrap_or_else(|error| panic!("the file system does not recover: {error}; {hint}"));
    let home = disk.join("home");
    // The machine did not really start anew, so its `boot_id` is that of the worker, and what the worker wrote would be
    // trusted. Without this file a store takes other random seconds for its marks, which is all that a new boot is to it.
    let _ = std::fs::remove_file(home.join("v1/epoch/boot"));
    let store = open(&home, Durability::Epoch).unwrap_or_else(|error| panic!("{error:?}; {hint}"));
    for blob in &snapshot.told.durable {
        assert!(store.contains(blob).unwrap(), "{blob} is gone; {hint}");
        assert!(reads_right(&store, blob, hint), "{blob} is gone; {hint}");
    }
    assert_pins_hold(&store, &snapshot.told.pins, hint);
    assert_pool_is_right(&store, POOL, hint);
    let check = store.check(cas_store::Depth::Full).unwrap();
    // Writes that nobody waited for may be torn, and trees with them. All else is whole.
    assert!(check.missing.is_empty() && check.damaged_pins.is_empty(), "{check:?}; {hint}");
    assert!(check.strays.is_empty(), "{check:?}; {hint}");
    assert_clean(&store, hint);
    let torn = crate::names(&home.join("v1/quarantine")).len();
    // The store goes on.
    let blob = store.put_bytes(cas_digest::DigestFunction::Blake3, b"after the loss of power").unwrap();
    store.seal().unwrap();
    assert!(reads_right(&store, &blob, hint), "{hint}");
    torn
}

/// Loses power on each file system that there is. Mounts are of this process alone, and end with it.
pub(crate) fn lose(folder: &Path, seed: u64) {
    // A place with clones, on which the disks are.
    let lower = folder.join("lower.img");
    let made = make_image("mkfs.xfs", &["-q", "-m", "reflink=1"], &lower, 4 << 30)
        .and_then(|()| Mounted::new(&lower, &folder.join("lower")));
    let _lower = match made {
        Ok(mounted) => mounted,
        Err(error) => {
            eprintln!("{error}");
            #[expect(clippy::exit, reason = "a code that the harness does not use")]
            std::process::exit(CANNOT);
        }
    };
    for (kind, arguments, megabytes) in
        [("ext4", &["-q", "-F"][..], 96), ("xfs", &["-q"][..], 320), ("btrfs", &["-q"][..], 160)]
    {
        let image = folder.join(format!("lower/{kind}.img"));
        let disk = folder.join(kind);
        let made = make_image(&format!("mkfs.{kind}"), arguments, &image, megabytes << 20)
            .and_then(|()| Mounted::new(&image, &disk).map(drop));
        if let Err(error) = made {
            eprintln!("SKIPPED: no {kind}: {error}");
            continue;
        }
        let snapshots = take_snapshots(&image, &disk, seed);
        let mut torn = 0;
        for (number, snapshot) in snapshots.iter().enumerate() {
            torn += recover(snapshot, &disk, &format!("snapshot {number} of {kind}, seed {seed}"));
            std::fs::remove_file(&snapshot.image).unwrap();
        }
        let last = &snapshots[SNAPSHOTS - 1].told;
        let (durable, count) = (last.durable.len(), last.count);
        eprintln!("{kind}, seed {seed}: {SNAPSHOTS} losses, {torn} torn objects, {durable} of {count} told durable");
        std::fs::remove_file(&image).unwrap();
    }
}

/// Does work in a namespace of its own, where it may mount; its words, or `None` where it cannot, which is told.
pub(crate) fn run_with_mounts(work: &str, folder: &Path, seed: u64) -> Option<String> {
    let worker = command(work, folder, seed);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(worker.get_program()).args(worker.get_args());
    command.envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output();
    let Some(output) = output.ok().filter(|output| !matches!(output.status.code(), Some(1 | CANNOT))) else {
        eprintln!("SKIPPED: images of XFS cannot be made and mounted here (root, loop devices, xfsprogs)");
        return None;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{work}, seed {seed}, {}:\n{stderr}", output.status);
    Some(stderr.trim().to_owned())
}

/// Whatever the kernel had not written yet is lost; what was promised to be there is there, and the rest is right or a miss.
#[test]
fn a_loss_of_power_takes_nothing_that_was_durable() {
    for seed in 1..=soak() {
        let home = tempfile::tempdir().unwrap();
        let Some(words) = run_with_mounts("power", home.path(), seed) else { return };
        eprintln!("{words}");
    }
}
