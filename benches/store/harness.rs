//! Turns, medians and tables.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Turns of a table; the median counts.
const TURNS: usize = 5;
/// Turns of a job that takes longer than [`SLOW`].
const SLOW_TURNS: usize = 3;
const SLOW: Duration = Duration::from_secs(12);

/// What is measured, on what, and where.
pub(crate) struct Bench {
    pub(crate) corpus: PathBuf,
    pub(crate) folder: PathBuf,
}

/// One row: its name, what comes before each turn and does not count, and what does.
pub(crate) struct Job<'a> {
    name: String,
    prepare: Box<dyn Fn() + 'a>,
    work: Box<dyn Fn() + 'a>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(name: &str, work: impl Fn() + 'a) -> Self {
        Self { name: name.to_owned(), prepare: Box::new(|| {}), work: Box::new(work) }
    }

    pub(crate) fn after(self, prepare: impl Fn() + 'a) -> Self {
        Self { prepare: Box::new(prepare), ..self }
    }
}

pub(crate) fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The middle one.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Jobs take turns, so that a change of the machine meets all of them; prints medians, and ratios to the first row.
pub(crate) fn table(title: &str, jobs: &[Job<'_>]) {
    let times: Vec<RefCell<Vec<Duration>>> = jobs.iter().map(|_| RefCell::default()).collect();
    for turn in 0..TURNS {
        for (times, job) in times.iter().zip(jobs) {
            let mut times = times.borrow_mut();
            if turn >= SLOW_TURNS && times.iter().all(|time| *time > SLOW) {
                continue;
            }
            (job.prepare)();
            times.push(time(&job.work));
        }
    }
    println!("## {title}\n\n| | seconds | of the first | lowest to highest |\n|---|---|---|---|");
    let mut first = None;
    for (times, job) in times.into_iter().zip(jobs) {
        let mut times = times.into_inner();
        let middle = median(&mut times).as_secs_f64();
        let ratio = middle / *first.get_or_insert(middle);
        let (low, high) = (times[0].as_secs_f64(), times[times.len() - 1].as_secs_f64());
        println!("| {} | {middle:.3} | {ratio:.2} | {low:.3} to {high:.3} |", job.name);
    }
    println!();
}

pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether a program can be started; what is not there is left out of the tables.
pub(crate) fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Forgets the most memory that this process held so far.
pub(crate) fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Most memory that this process held since then.
pub(crate) fn say_peak(what: &str) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let mib = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024;
    println!("Most memory of the process, {what}: {mib} MiB.\n");
}

/// Removes a folder, if it is there.
pub(crate) fn clear(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", path.display()),
        _ => {}
    }
}

/// Runs `work` for each number below `count`, on all cores; the results in the order of the numbers.
pub(crate) fn on_all_cores<T: Send>(count: usize, work: &(impl Fn(usize) -> T + Sync)) -> Vec<T> {
    let cores = std::thread::available_parallelism().unwrap().get();
    let next = AtomicUsize::new(0);
    let one = || {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return results;
            }
            results.push((index, work(index)));
        }
    };
    let mut results: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

impl Bench {
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The regular files of the corpus, sorted.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
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

    pub(crate) fn head(&self) {
        let files = self.files();
        let bytes: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let cores = std::thread::available_parallelism().unwrap();
        let load = fs::read_to_string("/proc/loadavg").unwrap();
        println!("# The store and the snapshot\n");
        println!(
            "Written by `cargo xtask bench store`. Linux {}, {cores} cores, load before {}; S: {} files, {} MB; warm page cache; \
             rows of a table take turns, medians of {TURNS} ({SLOW_TURNS} where one takes over {} s).\n",
            kernel.trim(),
            load.split(' ').next().unwrap(),
            files.len(),
            bytes / 1_000_000,
            SLOW.as_secs()
        );
    }

    pub(crate) fn git(&self, git_folder: &Path, arguments: &[&str]) {
        run(Command::new("git")
            .arg(format!("--git-dir={}", git_folder.join(".git").display()))
            .arg(format!("--work-tree={}", self.corpus.display()))
            .args(["-c", "core.fsync=none"])
            .args(arguments)
            .current_dir(&self.corpus));
    }

    /// A new repository whose working tree is the corpus.
    pub(crate) fn git_init(&self, git_folder: &Path) {
        clear(git_folder);
        fs::create_dir_all(git_folder).unwrap();
        run(Command::new("git").args(["init", "-q"]).current_dir(git_folder));
    }
}
