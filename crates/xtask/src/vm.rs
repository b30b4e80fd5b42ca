//! `cargo xtask vm`: the sandbox on other kernels, and on hosts that lack something, in virtual machines.
//!
//! Each kernel is started once, with the files of this machine as its root (read-only, over 9p), an empty disk and no network. What
//! the machine writes elsewhere it keeps in memory. It ends by itself, or is killed. So all tools and paths of the tests are there.
//! Kernels come from distributions, pinned, and are kept beside the peers. Table of what came out: docs/formats/sandbox-hosts.md.

mod kernels;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use self::kernels::{Bootable, KERNELS, Kernel, succeed};
use self::rows::{End, OLD_ROWS, ROWS, Row};
use crate::peers;
use crate::run::{Failure, cargo, workspace};

const QEMU: &str = "qemu-system-x86_64";
/// Programs of Debian and Ubuntu, with their packages.
const PACKAGES: [(&str, &str); 6] = [
    (QEMU, "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("mke2fs", "e2fsprogs"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];
/// Memory of a machine. The tests' bombs take a quarter of a gibibyte each.
const MEMORY_MIB: u32 = 3072;
/// Size of its disk, of which the host keeps what was written.
const DISK: &str = "6G";
/// How long a machine may take, with the processor's help and without.
const LIMIT: Duration = Duration::from_secs(30 * 60);
const SLOW_LIMIT: Duration = Duration::from_secs(3 * 60 * 60);
/// How long the processor's help may take to start one: there are machines, themselves virtual ones, with a `/dev/kvm` that starts
/// no ordinary kernel.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Starts each kernel whose release holds a text, and runs the rows whose name holds another one; whether no row failed.
pub(crate) fn run(kernel: &str, row: &str) -> Result<bool, Failure> {
    let kernels: Vec<&Kernel> = KERNELS.iter().filter(|other| other.release.contains(kernel)).collect();
    if kernels.is_empty() {
        return Err(format!("no kernel has `{kernel}` in its release").into());
    }
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let obstacle = obstacle()?;
    let mut accelerator = Accelerator::of_this_host();
    let programs = if obstacle.is_none() { Some(Programs::build()?) } else { None };
    for kernel in kernels {
        let rows: &[Row] = if kernel.is_too_old { &OLD_ROWS } else { &ROWS };
        let rows: Vec<&Row> = rows.iter().filter(|other| other.name.contains(row)).collect();
        if rows.is_empty() {
            continue;
        }
        let ends = match (&programs, &obstacle) {
            (Some(programs), _) => start(kernel, &rows, programs, &mut accelerator),
            (None, obstacle) => Err(obstacle.clone().unwrap_or_default().into()),
        };
        let ends = ends.unwrap_or_else(|why| rows.iter().map(|_| End::Skipped(why.to_string())).collect());
        for (row, end) in rows.iter().zip(ends) {
            let name = format!("{} {}", kernel.release, row.name);
            match end {
                End::Passed(how) => {
                    println!("passed   {name}: {how}");
                    passed += 1;
                }
                End::Skipped(why) => {
                    println!("skipped  {name}: {why}");
                    skipped += 1;
                }
                End::Failed(why) => {
                    println!("FAILED   {name}: {why}");
                    failed += 1;
                }
            }
        }
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

/// Why no virtual machine can be started here.
fn obstacle() -> Result<Option<String>, Failure> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Some("the kernels are for x86-64 alone".to_owned()));
    }
    Ok((!peers::from_packages(&PACKAGES)?).then(|| "programs are missing, see above".to_owned()))
}

/// What is run in the machines.
struct Programs {
    cas: PathBuf,
    tests: PathBuf,
    /// Where the tests put the programs that they compile.
    attackers: PathBuf,
    /// Holds what machines leave.
    home: PathBuf,
}

impl Programs {
    fn build() -> Result<Self, Failure> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        let mut build =
            cargo(&["test", "--locked", "--quiet", "--test", "sandbox", "--no-run", "--message-format=json"]);
        let output = build.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err("the tests could not be built".into());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // One message a line; the tests' one is the last that names an executable of this name.
        let executable = |line: &str| {
            let path = line.split_once("\"executable\":\"")?.1.split('"').next()?;
            line.contains("\"kind\":[\"test\"]").then(|| PathBuf::from(path))
        };
        let tests = text.lines().rev().find_map(executable).ok_or("cargo does not say where the tests are")?;
        Ok(Self {
            cas: target.join("debug/cas"),
            tests,
            attackers: target.join("tmp/attackers"),
            home: target.join("vm"),
        })
    }
}

/// What runs the machine's instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    /// The processor.
    Kvm,
    /// A program, about ten times slower.
    Software,
}

impl Accelerator {
    fn of_this_host() -> Self {
        if fs::File::options().read(true).write(true).open("/dev/kvm").is_ok() {
            return Self::Kvm;
        }
        println!("vm: /dev/kvm cannot be used: machines run in software, which is slow");
        Self::Software
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            // What is left out cannot be set in some machines that are virtual themselves.
            Self::Kvm => ["-accel", "kvm", "-cpu", "host,-arch-capabilities"],
            Self::Software => ["-accel", "tcg", "-cpu", "max"],
        }
    }

    fn limit(self) -> Duration {
        if self == Self::Kvm { LIMIT } else { SLOW_LIMIT }
    }
}

/// Starts a machine, waits for its end, and says how the rows ended.
///
/// # Errors
///
/// That the kernel cannot be had, or that it does not start. All rows are skipped then.
fn start(
    kernel: &Kernel,
    rows: &[&Row],
    programs: &Programs,
    accelerator: &mut Accelerator,
) -> Result<Vec<End>, Failure> {
    let home = programs.home.join(kernel.release);
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    let out = home.join("out");
    fs::create_dir_all(&out)?;
    let bootable = kernel.obtain(&home)?;
    // Links, so that they stay these while others are built.
    for (program, name) in [(&programs.cas, "cas"), (&programs.tests, "tests")] {
        fs::hard_link(program, out.join(name))?;
    }
    let mut script = format!("ATTACKERS='{}'\n", programs.attackers.display());
    script += include_str!("vm/guest.sh");
    script.extend(rows.iter().map(|row| row.script()));
    fs::write(out.join("guest.sh"), script)?;
    let disk = home.join("disk");
    fs::File::create(&disk)?;
    succeed(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&disk).arg(DISK))?;
    println!("vm: {} of {}", kernel.release, kernel.from);
    let started = Instant::now();
    let mut ended = qemu(&bootable, &out, &disk, *accelerator)?;
    if ended == Ended::NotStarted && *accelerator == Accelerator::Kvm {
        println!("vm: /dev/kvm starts no ordinary kernel: machines run in software, which is slow");
        *accelerator = Accelerator::Software;
        ended = qemu(&bootable, &out, &disk, *accelerator)?;
    }
    fs::remove_file(&disk)?;
    let how = match ended {
        Ended::ByItself => "ended",
        Ended::Late => "was killed, because its time was over",
        Ended::NotStarted => return Err(format!("it does not start: {}", out.join("console").display()).into()),
    };
    let seconds = started.elapsed().as_secs();
    println!("vm: {} {how} after {seconds} s; what it left is in {}", kernel.release, out.display());
    Ok(rows.iter().map(|row| row.end(&out)).collect())
}

/// How a machine ended.
#[derive(PartialEq, Eq)]
enum Ended {
    ByItself,
    /// Its time was over.
    Late,
    /// Its script did not begin.
    NotStarted,
}

/// Runs a machine to its end.
fn qemu(bootable: &Bootable, out: &Path, disk: &Path, accelerator: Accelerator) -> Result<Ended, Failure> {
    // A comma in a value is written twice.
    let escaped = |path: &Path| path.display().to_string().replace(',', ",,");
    let share = |path: &Path, tag: &str, more: &str| {
        format!("local,path={},mount_tag={tag},security_model=none,multidevs=remap{more}", escaped(path))
    };
    let mut child = Command::new(QEMU)
        .args(accelerator.arguments())
        .args(["-smp", "2", "-m", &format!("{MEMORY_MIB}M")])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(&bootable.kernel)
        .arg("-initrd")
        .arg(&bootable.initial)
        .args(["-append", "console=ttyS0 panic=-1 loglevel=5"])
        .arg("-serial")
        .arg(format!("file:{}", escaped(&out.join("console"))))
        .args(["-virtfs", &share(Path::new("/"), "host", ",readonly=on"), "-virtfs", &share(out, "out", "")])
        .args(["-drive", &format!("file={},format=raw,if=virtio,cache=unsafe", escaped(disk))])
        .stdin(Stdio::null())
        .stderr(fs::File::create(out.join("qemu"))?)
        .spawn()
        .map_err(|error| format!("{QEMU}: {error}"))?;
    let began = Instant::now();
    let has_started = || out.join("started").exists();
    let status = loop {
        let status = child.try_wait()?;
        let is_stuck = accelerator == Accelerator::Kvm && began.elapsed() >= START_LIMIT && !has_started();
        if status.is_some() || is_stuck || began.elapsed() >= accelerator.limit() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(match status {
        _ if !has_started() => Ended::NotStarted,
        Some(_) => Ended::ByItself,
        None => Ended::Late,
    })
}
