//! `cargo xtask bench [NAME]`: cas and its peers side by side, in one run. Writes `docs/benchmarks/NAME.md`.
//!
//! Each row is a job that both do, from the same files to what a user would take away. After the timing a file is edited
//! so that size and time stay; the result of the next run must change, and be that of a build that knows nothing.

mod debian;
mod graph;
mod image;
mod random;
mod registry;
mod root;
mod step;
mod store;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Failure, cargo, workspace};

/// Runs of each command; the median counts.
const RUNS: usize = 5;
/// With this in the environment `cargo xtask bench` tries itself out: the program as tests build it, tiny sizes where a
/// benchmark knows them (`image`), and the page is printed alone.
const SMALL: &str = "CAS_BENCH_SMALL";
/// Measures and reports.
type Row = fn(&mut Bench) -> Result<(), Failure>;

struct Bench {
    cas: PathBuf,
    folder: PathBuf,
    report: String,
    is_small: bool,
}

/// Runs the benchmarks whose name holds `filter`, or is the beginning of it (`images`).
pub(crate) fn run(filter: &str) -> Result<bool, Failure> {
    let root = workspace();
    let is_small = std::env::var_os(SMALL).is_some();
    let (profile, built) = if is_small { ("dev", "debug") } else { ("release", "release") };
    if !cargo(&["build", "--locked", "--profile", profile, "--bin", "cas"]).status()?.success() {
        return Ok(false);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // A file system in memory keeps what the disk's does with thousands of new and removed files out of the figures.
    let folder = std::env::var_os("CAS_BENCH_DIR").map_or_else(|| target.join("bench"), PathBuf::from);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let rows: [(&str, Row); 8] = [
        ("image", image::image),
        ("step", step::step),
        ("example", example),
        ("store", store::store),
        ("graph", graph::graph),
        ("root", root::root),
        ("debian", debian::debian),
        ("registry", registry::registry),
    ];
    for (name, row) in rows {
        if !name.contains(filter) && !filter.starts_with(name) {
            continue;
        }
        println!("== {name}");
        let cas = target.join(built).join("cas");
        let mut bench = Bench { cas, folder: folder.join(name), report: String::new(), is_small };
        fs::create_dir_all(&bench.folder)?;
        row(&mut bench)?;
        print!("{}", bench.report);
        if !is_small {
            let path = root.join(format!("docs/benchmarks/{name}.md"));
            fs::create_dir_all(root.join("docs/benchmarks"))?;
            fs::write(&path, &bench.report)?;
            println!("written to {}", path.display());
        }
        fs::remove_dir_all(&bench.folder)?;
    }
    Ok(true)
}

impl Bench {
    fn cas(&self, workspace: &Path, store: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cas);
        command.arg("--store").arg(self.folder.join(store)).args(arguments).current_dir(workspace).env_remove("CI");
        command
    }

    fn write(&mut self, text: &str) {
        self.report.push_str(text);
        self.report.push('\n');
    }

    fn head(&mut self, title: &str) -> Result<(), Failure> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cores = std::thread::available_parallelism()?;
        let model = fs::read_to_string("/proc/cpuinfo")?;
        let model = model
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or(": unknown")
            .trim_start_matches(['\t', ':', ' ']);
        let place = output(Command::new("stat").args(["-f", "-c", "%T"]).arg(&self.folder))?;
        self.write(&format!(
            "# {title}\n\nWritten by `cargo xtask bench`. Linux {}, {cores} cores, {model}; everything on {}; warm page cache; medians\nof {RUNS} runs.\n",
            kernel.trim(),
            place.trim()
        ));
        Ok(())
    }
}

/// Runs a command that must succeed; returns its standard output.
fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&said)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The median time of a command, each run after its preparation.
fn median(mut prepare: impl FnMut() -> Result<Command, Failure>) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut command = prepare()?;
        let started = Instant::now();
        output(&mut command)?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times[RUNS / 2])
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

fn ratio(ours: Duration, theirs: Duration) -> String {
    format!("{:.2}", ours.as_secs_f64() / theirs.as_secs_f64())
}

fn remove(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

/// Files and bytes of a folder.
fn count(folder: &Path) -> Result<(u64, u64), Failure> {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let (more, size) = count(&entry.path())?;
            files += more;
            bytes += size;
        } else {
            files += 1;
            bytes += if kind.is_file() { entry.metadata()?.len() } else { 0 };
        }
    }
    Ok((files, bytes))
}

/// Changes one byte of a file; size and modification time stay.
fn edit(path: &Path) -> Result<(), Failure> {
    let before = fs::metadata(path)?.modified()?;
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs::write(path, bytes)?;
    fs::File::options().write(true).open(path)?.set_modified(before)?;
    Ok(())
}

fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or_else(|_| "missing".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The most memory that a command had.
fn peak_kib(command: &Command) -> Result<u64, Failure> {
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M", "-o"]).arg(peak_file()).arg(command.get_program()).args(command.get_args());
    timed.current_dir(command.get_current_dir().unwrap_or_else(|| Path::new("."))).env_remove("CI");
    output(&mut timed)?;
    let text = fs::read_to_string(peak_file())?;
    fs::remove_file(peak_file())?;
    Ok(text.trim().parse()?)
}

fn peak_file() -> PathBuf {
    std::env::temp_dir().join(format!("cas-bench-{}", std::process::id()))
}

/// Makes R, a Debian root file system with node, as a folder, and the packages' downloads.
fn root_file_system(bench: &Bench, store: &str) -> Result<PathBuf, Failure> {
    let maker = bench.folder.join("maker");
    fs::create_dir_all(&maker)?;
    fs::write(
        maker.join("cas.toml"),
        "[workspace]\n[toolchain.node]\ndebian = { suite = \"bookworm\", packages = [\"nodejs\"] }\n\
         [command.r]\ntoolchain = \":node\"\nrun = \"mkdir r && cp -dR /bin /etc /lib /lib64 /sbin /usr /var r/ && find r -type l -lname '/*' -delete\"\noutputs = [\"r\"]\n",
    )?;
    output(&mut bench.cas(&maker, store, &["build", ":r"]))?;
    Ok(maker.join("cas-out/r/r"))
}

const SHELL: &str = "[toolchain.sh]\ndebian = { suite = \"bookworm\", packages = [] }\n";

fn version_of_cas(bench: &Bench) -> String {
    version(&bench.cas.display().to_string())
}

fn example(bench: &mut Bench) -> Result<(), Failure> {
    let place = bench.folder.join("workspace");
    output(Command::new("cp").arg("-a").arg(workspace().join("testdata/monorepo")).arg(&place))?;
    remove(&place.join("cas-out"))?;
    output(&mut bench.cas(&place, "store", &["build"]))?;
    let build = median(|| Ok(bench.cas(&place, "store", &["build"])))?;
    output(&mut bench.cas(&place, "store", &["test"]))?;
    let test = median(|| Ok(bench.cas(&place, "store", &["test"])))?;
    let one = median(|| Ok(bench.cas(&place, "store", &["build", "//libs/text:build"])))?;
    let before = output(&mut bench.cas(&place, "store", &["build"]))?;
    edit(&place.join("libs/text/src/index.js"))?;
    let after = output(&mut bench.cas(&place, "store", &["build"]))?;
    let clean = output(&mut bench.cas(&place, "fresh", &["build"]))?;
    if before == after || after != clean {
        return Err("an edit that keeps size and time was not seen".into());
    }
    bench.head("Nothing to do in the example")?;
    bench.write("The example monorepo, built before: 12 targets and 5 tests of 6 packages, two Debian toolchains. No peer in this table.\n");
    bench.write("| command | cas |\n|---|---|");
    bench.write(&format!("| `cas build`, with everything written to `cas-out` | {} |", milliseconds(build)));
    bench.write(&format!("| `cas test` | {} |", milliseconds(test)));
    bench.write(&format!("| `cas build //libs/text:build` | {} |", milliseconds(one)));
    bench.write(&format!(
        "\nAn edit that keeps size and time was seen, and gave the digests of a build that knew nothing. {}.",
        version_of_cas(bench)
    ));
    Ok(())
}
