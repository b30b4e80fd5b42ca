//! The store and the snapshot beside the limits of the machine and beside peers, on one corpus, in one run.
//!
//! `cargo bench --bench store -- CORPUS FOLDER` prints a page of Markdown. CORPUS is a tree of files (the source of Linux is what
//! the budgets are stated for), FOLDER an empty place on the file system that is to be measured. Each row is repeated, the
//! median counts, and rows that are compared with each other take turns. Peers that are not installed are left out.

#![expect(clippy::print_stdout, reason = "this is a command line tool")]
#![expect(clippy::disallowed_methods, reason = "the rules are those of cas; this runs beside it")]
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::DigestFunction;
use cas_snapshot::{Options, Selection, Snapshot, Trust};
use cas_store::{Retention, Store, StoreOptions};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

/// Runs of each command; the median counts.
const RUNS: usize = 5;
/// Digests that are asked for at once.
const ASKED: usize = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [corpus, folder] = arguments.as_slice() else {
        // Cargo runs every benchmark without arguments when it tests.
        println!("usage: cargo bench --bench store -- CORPUS FOLDER");
        return;
    };
    let bench = Bench { corpus: corpus.into(), folder: folder.into() };
    fs::create_dir_all(&bench.folder).unwrap();
    bench.head();
    bench.unchanged();
    bench.digest();
    bench.store();
    bench.asked_and_written();
    bench.collected();
    fs::remove_dir_all(&bench.folder).unwrap();
}

struct Bench {
    corpus: PathBuf,
    folder: PathBuf,
}

type Job<'a> = (&'a str, Box<dyn Fn() -> Duration + 'a>);

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Most memory that this process ever held, in MiB.
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Lists every folder and looks at every name, on one thread: what nobody can do without.
fn look(folder: impl AsFd, count: &mut u64) {
    for entry in Dir::read_from(&folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *count += 1;
        rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        if entry.file_type() == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            look(rustix::fs::openat(&folder, name, flags, Mode::empty()).unwrap(), count);
        }
    }
}

impl Bench {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Takes turns, and prints the medians; ratios to the first row.
    fn table(&self, title: &str, jobs: &[Job<'_>]) {
        let mut times: Vec<Vec<Duration>> = vec![Vec::new(); jobs.len()];
        for _ in 0..RUNS {
            for (times, (_, job)) in times.iter_mut().zip(jobs) {
                times.push(job());
            }
        }
        println!("## {title}\n\n| | seconds | ratio |\n|---|---|---|");
        let medians: Vec<f64> = times
            .iter_mut()
            .map(|times| {
                times.sort_unstable();
                times[times.len() / 2].as_secs_f64()
            })
            .collect();
        for ((name, _), median) in jobs.iter().zip(&medians) {
            println!("| {name} | {median:.3} | {:.2} |", median / medians[0]);
        }
        println!();
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut open = vec![self.corpus.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => open.push(entry.path()),
                    kind if kind.is_file() => files.push(entry.path()),
                    _ => {}
                }
            }
        }
        files.sort();
        files
    }

    fn head(&self) {
        let files = self.files();
        let bytes: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let cores = std::thread::available_parallelism().unwrap();
        let load = fs::read_to_string("/proc/loadavg").unwrap();
        println!("# The store and the snapshot\n");
        println!(
            "Written by `cargo bench --bench store`. Linux {}, {cores} cores, load before {}; {} files, {} MB; warm page cache; \
             medians of {RUNS} turns.\n",
            kernel.trim(),
            load.split(' ').next().unwrap(),
            files.len(),
            bytes / 1_000_000
        );
    }

    fn snapshot(&self, caches: Option<&Path>) -> usize {
        let options = Options { function: DigestFunction::Blake3, trust: Trust::Local, caches, watchers: None };
        let snapshot = Snapshot::take(&self.corpus, &options).unwrap();
        let all = snapshot.select(&Selection::default()).unwrap();
        snapshot.fingerprint(&all).unwrap();
        snapshot.save().unwrap();
        all.len()
    }

    fn unchanged(&self) {
        let (caches, work_tree) = (self.at("caches"), self.at("git"));
        fs::create_dir_all(&caches).unwrap();
        self.snapshot(Some(&caches));
        let mut jobs: Vec<Job<'_>> = vec![
            (
                "getdents and statx, one thread",
                Box::new(|| {
                    time(|| {
                        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                        let top = rustix::fs::open(&self.corpus, flags, Mode::empty()).unwrap();
                        let mut count = 0;
                        look(top, &mut count);
                        assert!(count > 0);
                    })
                }),
            ),
            ("snapshot, nothing changed", Box::new(|| time(|| assert!(self.snapshot(Some(&caches)) > 0)))),
        ];
        if is_there("git") {
            fs::create_dir_all(&work_tree).unwrap();
            run(Command::new("git").args(["init", "-q"]).current_dir(&work_tree));
            let git_folder = work_tree.join(".git");
            let git = move |arguments: &[&str]| {
                run(Command::new("git")
                    .arg(format!("--git-dir={}", git_folder.display()))
                    .arg(format!("--work-tree={}", self.corpus.display()))
                    .args(["-c", "core.fsync=none"])
                    .args(arguments)
                    .current_dir(&self.corpus));
            };
            git(&["add", "-A", "-f"]);
            git(&["status", "--porcelain"]);
            jobs.push(("`git status`", Box::new(move || time(|| git(&["status", "--porcelain"])))));
        }
        self.table("Nothing changed", &jobs);
        drop(jobs);
        // Not there without git.
        let _ = fs::remove_dir_all(&work_tree);
    }

    fn digest(&self) {
        let jobs: Vec<Job<'_>> = vec![
            (
                "`tar c \\| cat`",
                Box::new(|| {
                    time(|| {
                        let script = "tar cf - -C \"$0\" . | cat >/dev/null";
                        run(Command::new("sh").args(["-c", script]).arg(&self.corpus));
                    })
                }),
            ),
            ("snapshot, no cache", Box::new(|| time(|| assert!(self.snapshot(None) > 0)))),
        ];
        self.table("Digests of everything", &jobs);
        println!("Most memory of the snapshot so far: {} MiB.\n", peak_mib());
    }

    /// Puts every file; the descriptors, in the order of the paths.
    fn put(&self, store: &Store, files: &[PathBuf]) -> Vec<Descriptor> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            let mut blobs = Vec::new();
            loop {
                let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(path) = files.get(index) else { return blobs };
                let mut file = fs::File::open(path).unwrap();
                blobs.push(store.put(DigestFunction::Blake3, &mut file).unwrap());
            }
        };
        on_all_cores(&work)
    }

    fn read_back(store: &Store, blobs: &[Descriptor]) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            let mut buffer = vec![0; 1 << 16];
            while let Some(blob) = blobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                let mut content = store.open_blob(blob).unwrap();
                while content.read(&mut buffer).unwrap() > 0 {}
            }
            Vec::<()>::new()
        };
        on_all_cores(&work);
    }

    fn store(&self) {
        let files = self.files();
        let clean = |name: &str| {
            let path = self.at(name);
            // The first time there is nothing.
            let _ = fs::remove_dir_all(&path);
            path
        };
        let mut jobs: Vec<Job<'_>> = vec![
            (
                "`cp -r`",
                Box::new(|| {
                    let target = clean("copy");
                    time(|| run(Command::new("cp").arg("-r").arg(&self.corpus).arg(&target)))
                }),
            ),
            (
                "every file stored, and read back",
                Box::new(|| {
                    let target = clean("store");
                    time(|| {
                        let store = Store::open(&target).unwrap();
                        let blobs = self.put(&store, &files);
                        Self::read_back(&store, &blobs);
                    })
                }),
            ),
        ];
        if is_there("git") {
            jobs.push((
                "`git add`, no fsync",
                Box::new(|| {
                    let target = clean("git");
                    fs::create_dir_all(&target).unwrap();
                    run(Command::new("git").args(["init", "-q"]).current_dir(&target));
                    time(|| {
                        run(Command::new("git")
                            .arg(format!("--git-dir={}", target.join(".git").display()))
                            .arg(format!("--work-tree={}", self.corpus.display()))
                            .args(["-c", "core.fsync=none", "add", "-A", "-f"])
                            .current_dir(&self.corpus));
                    })
                }),
            ));
        }
        if is_there("ostree") {
            jobs.push((
                "`ostree commit`, no fsync",
                Box::new(|| {
                    let target = clean("ostree");
                    let repository = format!("--repo={}", target.display());
                    run(Command::new("ostree").args([&repository, "init", "--mode=bare-user"]));
                    run(Command::new("ostree").args([&repository, "config", "set", "core.fsync", "false"]));
                    time(|| {
                        run(Command::new("ostree")
                            .args([&repository, "commit", "-b", "x"])
                            .arg(format!("--tree=dir={}", self.corpus.display())));
                    })
                }),
            ));
        }
        if is_there("restic") {
            jobs.push((
                "`restic backup`",
                Box::new(|| {
                    let target = clean("restic");
                    let restic = || {
                        let mut command = Command::new("restic");
                        command.env("RESTIC_PASSWORD", "x").args(["-q", "--no-cache", "-r"]).arg(&target);
                        command
                    };
                    run(restic().arg("init"));
                    time(|| run(restic().arg("backup").arg(&self.corpus)))
                }),
            ));
        }
        if is_there("casync") {
            jobs.push((
                "`casync make`",
                Box::new(|| {
                    let target = clean("casync");
                    fs::create_dir_all(&target).unwrap();
                    time(|| {
                        run(Command::new("casync")
                            .arg("make")
                            .arg(format!("--store={}", target.join("s").display()))
                            .arg(target.join("i.caidx"))
                            .arg(&self.corpus));
                    })
                }),
            ));
        }
        self.table("Everything stored", &jobs);
        println!("Most memory so far: {} MiB.\n", peak_mib());
        drop(jobs);
        for name in ["copy", "git", "ostree", "restic", "casync"] {
            clean(name);
        }
    }

    /// Uses the store that the table before filled.
    fn asked_and_written(&self) {
        let store = Store::open(&self.at("store")).unwrap();
        let mut files = self.files();
        files.truncate(40_000);
        let blobs = self.put(&store, &files);
        let wanted: Vec<Descriptor> = blobs.iter().copied().take(ASKED).collect();
        let mut times = Vec::new();
        for _ in 0..RUNS {
            // A session knows what it asked for before; each has its own memory.
            let fresh = Store::open(&self.at("store")).unwrap();
            times.push(time(|| assert!(fresh.contain(&wanted).unwrap().iter().all(|found| *found))));
        }
        times.sort_unstable();
        let median = times[RUNS / 2].as_secs_f64();
        println!("`has` of {} digests: {:.2} million a second.\n", wanted.len(), wanted.len() as f64 / median / 1e6);

        // A tree of these files, a thousand to a folder.
        let mut tree = cas_tree::Directory::root();
        let metadata = cas_tree::Metadata::root_owned(0o755);
        for (index, blob) in blobs.iter().enumerate() {
            let path = cas_tree::RelPath::new(format!("{}/{index}", index / 1000)).unwrap();
            tree.insert(&path, cas_tree::Node::file(*blob, 0o644), &metadata).unwrap();
        }
        let (copy, written) = (self.at("tree-copy"), self.at("tree"));
        store.write_tree(&tree, &written).unwrap();
        let source = self.at("tree-source");
        fs::rename(&written, &source).unwrap();
        let jobs: Vec<Job<'_>> = vec![
            (
                "`cp -a`",
                Box::new(|| {
                    // The first time there is nothing.
                    let _ = fs::remove_dir_all(&copy);
                    time(|| run(Command::new("cp").arg("-a").arg(&source).arg(&copy)))
                }),
            ),
            (
                "a tree written out",
                Box::new(|| {
                    // As above.
                    let _ = fs::remove_dir_all(&written);
                    time(|| store.write_tree(&tree, &written).unwrap())
                }),
            ),
        ];
        self.table(&format!("{} files written out", blobs.len()), &jobs);
        drop(jobs);
        for path in [&copy, &written, &source] {
            fs::remove_dir_all(path).unwrap();
        }
    }

    fn collected(&self) {
        let (store_path, copy) = (self.at("store"), self.at("victims"));
        let objects = store_path.join("v1/objects");
        run(Command::new("cp").arg("-a").arg(&objects).arg(&copy));
        let removed = time(|| run(Command::new("rm").arg("-rf").arg(&copy)));
        let options = StoreOptions { needs: Some(|_, _| Ok(Some(Vec::new()))), ..StoreOptions::default() };
        let store = Store::open_with(&store_path, options).unwrap();
        // What was put a second ago is older than nothing.
        std::thread::sleep(Duration::from_millis(1100));
        let retention = Retention { min_age_seconds: 0, keep_seconds: 0 };
        let mut objects = 0;
        let collected = time(|| objects = store.collect(retention, None, false).unwrap().objects);
        println!("## {objects} objects collected\n\n| | seconds | ratio |\n|---|---|---|");
        println!("| `rm -rf` of a copy | {:.3} | 1.00 |", removed.as_secs_f64());
        println!(
            "| collection | {:.3} | {:.2} |\n",
            collected.as_secs_f64(),
            collected.as_secs_f64() / removed.as_secs_f64()
        );
        println!("Most memory of the whole run: {} MiB.", peak_mib());
    }
}

fn on_all_cores<T: Send>(work: &(impl Fn() -> Vec<T> + Sync)) -> Vec<T> {
    let cores = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
