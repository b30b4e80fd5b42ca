//! `cargo xtask dist`: the program for others, in one file that needs nothing of a machine but its kernel.
//!
//! It is built twice, the second time from a copy of the sources in another folder, and both must have the same bytes. Then it is put into
//! an empty root — no libraries, no certificates, no accounts — where it looks at the host, builds with a step over HTTPS and pushes; and
//! it makes, signs and pushes the image of itself. Everything happens below `target/dist`.

mod image;
mod trial;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use cas_digest::{Digest, DigestFunction};

use crate::run::{Failure, workspace};

/// What the C code of dependencies and the compiler take for the time.
const EPOCH: &str = "315532800";
/// How often the program is started for the median.
const STARTS: usize = 51;

/// Builds and tries it; whether all of that went well.
pub(crate) fn run() -> Result<bool, Failure> {
    let root = workspace();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let dist = target.join("dist");
    fs::create_dir_all(&dist)?;
    let kind = Kind::of_this_machine()?;
    println!("== building for {}", kind.triple);
    let first = build(&root, &dist.join("one"), &kind)?;
    println!("== building again, from a copy in another folder");
    let copy = dist.join("a copy of the sources");
    copy_sources(&root, &copy)?;
    let second = build(&copy, &dist.join("two"), &kind)?;
    let (one, two) = (fs::read(&first)?, fs::read(&second)?);
    let digest = Digest::of(DigestFunction::Sha256, &one);
    if one != two {
        eprintln!("error: the second build is another: {digest}, {}", Digest::of(DigestFunction::Sha256, &two));
        eprintln!("note: compare {} and {}", first.display(), second.display());
        return Ok(false);
    }
    let name = format!("cas-{}-{}", env!("CARGO_PKG_VERSION"), kind.triple);
    let program = dist.join(&name);
    fs::copy(&first, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    fs::write(dist.join("SHA256SUMS"), format!("{}  {name}\n", digest.to_hex()))?;
    println!("both are {digest}, {} bytes", one.len());
    println!("== in an empty root");
    let is_well = trial::run(&dist.join("root"), &program)?;
    println!("== the image of itself");
    let has_image = image::run(&dist.join("image"), &program)?;
    println!("it starts in {:.1} ms, the median of {STARTS}", start(&program)?);
    println!("{}", program.display());
    Ok(is_well && has_image)
}

/// The median of many starts, in milliseconds.
fn start(program: &Path) -> Result<f64, Failure> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        if !Command::new(program).arg("--version").stdout(Stdio::null()).status()?.success() {
            return Err("it does not start".into());
        }
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[STARTS / 2])
}

/// Removes a folder in which programs made folders that nobody may write to.
fn remove(folder: &Path) -> Result<(), Failure> {
    if folder.exists() {
        Command::new("chmod").args(["-R", "u+w"]).arg(folder).stderr(Stdio::null()).status()?;
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

struct Kind {
    triple: &'static str,
}

impl Kind {
    /// musl where Rust and C have it, else glibc, linked in.
    fn of_this_machine() -> Result<Self, Failure> {
        if !cfg!(target_arch = "x86_64") {
            return Err("releases are built on x86_64".into());
        }
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output()?.stdout;
        let sysroot = PathBuf::from(String::from_utf8(sysroot)?.trim());
        let has_rust = sysroot.join("lib/rustlib/x86_64-unknown-linux-musl").exists();
        let has_c = Command::new("musl-gcc").arg("--version").output().is_ok();
        let triple = if has_rust && has_c { "x86_64-unknown-linux-musl" } else { "x86_64-unknown-linux-gnu" };
        Ok(Self { triple })
    }
}

/// Builds the program of the sources in `root`, and gives its place.
fn build(root: &Path, target: &Path, kind: &Kind) -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = variable("HOME").unwrap_or_default();
    let cargo_home = variable("CARGO_HOME").unwrap_or_else(|| home.join(".cargo"));
    // No path of this machine is in it. The last one that fits counts, so the folders within others come behind them.
    let paths = [(&*cargo_home, "/cargo"), (root, "/cas"), (target, "/target")];
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(paths.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    // The compiler of C has no way to quote a space, and needs none: files are named below `cargo_home` and `target`.
    let c_flags: Vec<String> = paths
        .iter()
        .filter(|(from, _)| !from.display().to_string().contains(' '))
        .map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()))
        .collect();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--bin", "cas", "--target", kind.triple]).current_dir(root);
    cargo.env("CARGO_TARGET_DIR", target).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo.env("CFLAGS", c_flags.join(" ")).env("SOURCE_DATE_EPOCH", EPOCH).env_remove("RUSTFLAGS");
    if !cargo.status()?.success() {
        return Err("the build failed".into());
    }
    Ok(target.join(kind.triple).join("release/cas"))
}

/// What git has of the sources, and nothing beside it.
fn copy_sources(root: &Path, to: &Path) -> Result<(), Failure> {
    remove(to)?;
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    if !listed.status.success() {
        return Err("`git ls-files` failed".into());
    }
    for path in listed.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
        let path = Path::new(std::str::from_utf8(path)?);
        let (from, to) = (root.join(path), to.join(path));
        fs::create_dir_all(to.parent().expect("it is below the copy"))?;
        let kind = fs::symlink_metadata(&from)?;
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&from)?, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
