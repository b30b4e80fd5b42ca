//! `cargo xtask test --peers arch`: the golden digests of `testdata/golden` on another processor, which qemu plays.
//!
//! `cas` and the tests of the formats are compiled for 64-bit Arm and run by qemu's user mode; no step runs, and nothing of
//! others. What is missing is put beside the peers and never into the user's own toolchain: rustup has a home of its own
//! there, and cargo a target folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::run::{Failure, cargo, workspace};
use crate::{peers, test};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const QEMU: &str = "qemu-aarch64-static";
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// Programs and files of Debian and Ubuntu, with their packages.
const PACKAGES: [(&str, &str); 3] = [
    (QEMU, "qemu-user-static"),
    (LINKER, "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
];
/// Crates that run nothing of others: vocabulary, formats, configuration and files.
const CRATES: [&str; 13] = [
    "cas-digest",
    "cas-blob",
    "cas-tree",
    "cas-tar",
    "cas-deb",
    "cas-action",
    "cas-oci",
    "cas-npm",
    "cas-cargo",
    "cas-git",
    "cas-analyze",
    "cas-config",
    "cas-fs",
];

/// What compiles for the other processor.
struct Toolchain {
    cargo: PathBuf,
    /// The compiler, where it is not the one of this cargo.
    rustc: Option<PathBuf>,
}

/// Runs the tests; whether none failed.
pub(crate) fn run() -> Result<bool, Failure> {
    let toolchain = match toolchain() {
        Ok(toolchain) => toolchain,
        Err(why) => {
            println!("SKIPPED: golden digests on another processor: {why}");
            return Ok(true);
        }
    };
    let started = Instant::now();
    if !toolchain.command(&["build", "--locked", "--bin", "cas", "--target", TARGET]).status()?.success() {
        return Err(format!("cas could not be compiled for {TARGET}").into());
    }
    println!("peers: cas was compiled for {TARGET} in {} s", started.elapsed().as_secs());
    let started = Instant::now();
    let packages = CRATES.iter().flat_map(|name| ["-p", name]);
    let arguments: Vec<&str> = ["test", "--locked", "--lib", "--target", TARGET].into_iter().chain(packages).collect();
    let (units, unit_count) = test::run_command(&mut toolchain.command(&arguments))?;
    println!("peers: the formats were tested on {TARGET} in {} s", started.elapsed().as_secs());
    let program = folder().join("target").join(TARGET).join("debug/cas");
    let arguments = ["test", "--test", "peers", "--locked", "--", "--ignored", "--nocapture", "arch::"];
    let variables = [("CAS_ARCH_PROGRAM", program.as_os_str()), ("CAS_ARCH_RUNNER", QEMU.as_ref())];
    let (whole, whole_count) = test::run_with(&arguments, &variables)?;
    if unit_count == 0 || (whole && whole_count == 0) {
        return Err("nothing ran on the other processor".into());
    }
    Ok(units && whole)
}

fn folder() -> PathBuf {
    peers::folder().join("arch")
}

impl Toolchain {
    /// Cargo with all that it needs to compile and run for the other processor.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(arguments).current_dir(workspace());
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc).env_remove("RUSTUP_TOOLCHAIN");
            // What runs this has its own libraries there, and a compiler looks for the others beside those of its own that it finds.
            command.env_remove("LD_LIBRARY_PATH");
        }
        command.env("CARGO_TARGET_DIR", folder().join("target")).env("CARGO_INCREMENTAL", "0");
        // Nobody looks into what is compiled here, and with it the folder would be three times as large.
        command.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_PROFILE_TEST_DEBUG", "0");
        command.env("CC_aarch64_unknown_linux_gnu", LINKER);
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
        // So qemu needs no libraries of the other processor.
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static");
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", QEMU);
        command
    }
}

/// What compiles, installed where it can be; the reason where there is none.
fn toolchain() -> Result<Toolchain, String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("this machine is no x86-64; the core tests compare the same table here".to_owned());
    }
    if !peers::from_packages(&PACKAGES).map_err(|error| error.to_string())? {
        return Err("programs are missing, see above".to_owned());
    }
    let output = |command: &mut Command| -> Result<String, String> {
        let output = command.current_dir(workspace()).output().map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let own = output(Command::new("rustc").arg("--print=sysroot"))?;
    if library(Path::new(own.trim())).exists() {
        let cargo = cargo(&[]).get_program().into();
        return Ok(Toolchain { cargo, rustc: None });
    }
    let told = output(Command::new("rustc").arg("-vV"))?;
    let release = release(&told).ok_or("the compiler is none that was released, so rustup has no such libraries")?;
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let home = folder().join("rustup");
    let sysroot = home.join("toolchains").join(format!("{release}-{host}"));
    if !library(&sysroot).exists() {
        println!("peers: installing Rust {release} for {TARGET} in {}", home.display());
        std::fs::create_dir_all(&home).map_err(|error| error.to_string())?;
        let mut rustup = Command::new("rustup");
        rustup.env("RUSTUP_HOME", &home).env_remove("RUSTUP_TOOLCHAIN");
        rustup.args(["toolchain", "install", &format!("{release}-{host}"), "--profile", "minimal"]);
        rustup.args(["--no-self-update", "--target", TARGET]);
        match rustup.status() {
            Ok(status) if status.success() => {}
            Ok(_) => return Err(format!("rustup could not install Rust {release} for {TARGET}, see above")),
            Err(error) => return Err(format!("there are no libraries for {TARGET}, and no rustup: {error}")),
        }
    }
    Ok(Toolchain { cargo: sysroot.join("bin/cargo"), rustc: Some(sysroot.join("bin/rustc")) })
}

/// Where a toolchain has what programs for the other processor are linked with.
fn library(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib").join(TARGET).join("lib")
}

/// The version that `rustc -vV` tells of a release; betas and nightlies have none.
fn release(text: &str) -> Option<&str> {
    let release = text.lines().find_map(|line| line.strip_prefix("release: "))?;
    (!release.contains('-')).then_some(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_in_the_making_has_no_release() {
        for (text, expected) in [
            ("rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 20\n", Some("1.95.0")),
            ("release: 1.97.0-nightly\n", None),
            ("release: 1.96.0-beta.2\n", None),
            ("", None),
        ] {
            assert_eq!(release(text), expected, "{text}");
        }
    }
}
