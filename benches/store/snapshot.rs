//! The snapshot: nothing changed, everything read, one large file.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use cas_digest::DigestFunction;
use cas_snapshot::{Options, Selection, Snapshot, Trust};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::harness::{Bench, Job, clear, is_there, run, say_peak, table};

/// Size of the large file.
const LARGE_MIB: usize = 2000;

/// Lists every folder and looks at every name: what nobody can do without. Folders found are left to `waiting`.
fn look(folder: impl AsFd, path: &Path, waiting: &mut Vec<std::path::PathBuf>) -> u64 {
    let mut count = 0;
    for entry in Dir::read_from(&folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        count += 1;
        rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        if entry.file_type() == FileType::Directory {
            waiting.push(path.join(name.to_str().unwrap()));
        }
    }
    count
}

/// The whole loop, by so many threads that take folders from one list.
fn look_at_all(top: &Path, threads: usize) {
    let (waiting, busy) = (Mutex::new(vec![top.to_owned()]), std::sync::atomic::AtomicUsize::new(0));
    let order = std::sync::atomic::Ordering::SeqCst;
    let work = || {
        let mut count = 0;
        let mut own: Vec<std::path::PathBuf> = Vec::new();
        loop {
            let next = own.pop().or_else(|| {
                let mut waiting = waiting.lock().unwrap();
                let next = waiting.pop();
                if next.is_some() {
                    busy.fetch_add(1, order);
                }
                next
            });
            let Some(path) = next else {
                if busy.load(order) == 0 && waiting.lock().unwrap().is_empty() {
                    return count;
                }
                std::thread::yield_now();
                continue;
            };
            let folder = rustix::fs::open(&path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            count += look(folder, &path, &mut own);
            if own.len() > 1 {
                waiting.lock().unwrap().extend(own.drain(1..));
            }
            if own.is_empty() {
                busy.fetch_sub(1, order);
            }
        }
    };
    let total: u64 = std::thread::scope(|scope| {
        let others: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        others.into_iter().map(|other| other.join().unwrap()).sum()
    });
    assert!(total > 0);
}

fn take(corpus: &Path, caches: Option<&Path>) -> usize {
    let options = Options { function: DigestFunction::Blake3, trust: Trust::Local, caches, watchers: None };
    let snapshot = Snapshot::take(corpus, &options).unwrap();
    let all = snapshot.select(&Selection::default()).unwrap();
    snapshot.fingerprint(&all).unwrap();
    snapshot.save().unwrap();
    all.len()
}

pub(crate) fn unchanged(bench: &Bench) {
    let (caches, repository) = (bench.at("caches"), bench.at("git"));
    fs::create_dir_all(&caches).unwrap();
    take(&bench.corpus, Some(&caches));
    let mut jobs = vec![
        Job::new("getdents and statx, one thread", || look_at_all(&bench.corpus, 1)),
        Job::new("the same, two threads", || look_at_all(&bench.corpus, 2)),
        Job::new("**snapshot, nothing changed**", || assert!(take(&bench.corpus, Some(&caches)) > 0)),
    ];
    if is_there("git") {
        bench.git_init(&repository);
        bench.git(&repository, &["add", "-A", "-f"]);
        bench.git(&repository, &["status", "--porcelain"]);
        jobs.push(Job::new("`git status`", || bench.git(&repository, &["status", "--porcelain"])));
    }
    table("Nothing changed", &jobs);
    drop(jobs);
    clear(&repository);
    clear(&caches);
}

pub(crate) fn digests(bench: &Bench) {
    let tar = || {
        let script = "tar cf - -C \"$0\" . | cat >/dev/null";
        run(Command::new("sh").args(["-c", script]).arg(&bench.corpus));
    };
    let jobs = [
        Job::new("`tar c \\| cat`", tar),
        Job::new("**snapshot, no cache**", || assert!(take(&bench.corpus, None) > 0)),
    ];
    table("Digests of everything", &jobs);
    say_peak("snapshots");
}

pub(crate) fn large(bench: &Bench) {
    let (folder, caches) = (bench.at("large"), bench.at("no-caches"));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("file");
    let mut file = fs::File::create(&path).unwrap();
    let mut block = vec![0u8; 1 << 20];
    for number in 0..LARGE_MIB {
        block.iter_mut().zip(number..).for_each(|(byte, value)| *byte = value.to_le_bytes()[0]);
        file.write_all(&block).unwrap();
    }
    drop(file);
    let mut jobs = Vec::new();
    if is_there("b3sum") {
        jobs.push(Job::new("`b3sum`", || run(Command::new("b3sum").arg(&path))));
        jobs.push(Job::new("`b3sum --num-threads 1`", || {
            run(Command::new("b3sum").args(["--num-threads", "1"]).arg(&path));
        }));
    }
    jobs.push(Job::new("**snapshot of it, no cache**", || assert_eq!(take(&folder, None), 1)));
    jobs.push(Job::new("`cat`", || run(Command::new("cat").arg(&path))));
    table(&format!("One file of {LARGE_MIB} MiB"), &jobs);
    say_peak("with it");
    drop(jobs);
    clear(&folder);
    clear(&caches);
}
