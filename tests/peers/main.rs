//! Other programs as judges: what they run, read and install is what `cas` made.
//!
//! `cargo xtask peers` installs them; one that is missing is skipped loudly at home, and fails where `CI` is set and the
//! user could have installed it.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "tests look at the disk as others do")]

mod arch;
mod debian;
mod execution;
#[path = "../common/golden.rs"]
mod golden_table;
mod images;
mod layers;
mod policies;
mod reapi;
mod registries;
mod registry;
mod signing;
mod tars;
#[path = "../common/toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where `cargo xtask peers` puts what no package manager has.
fn folder() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    std::env::var_os("CAS_PEERS").map_or_else(
        || std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from).join("cas-peers"),
        PathBuf::from,
    )
}

/// Says that a peer is missing; root in CI has no excuse.
fn missing(peer: &str) {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    assert!(std::env::var_os("CI").is_none() || !is_root, "{peer} is missing: run `cargo xtask peers`");
    eprintln!("SKIPPED: {peer} is missing; `cargo xtask peers` installs it");
}

/// Whether a program can be started.
fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    output
}

/// A workspace and a store in a folder of their own.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new(manifest: &str) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(home.workspace()).unwrap();
        std::fs::write(home.workspace().join("cas.toml"), manifest).unwrap();
        home
    }

    fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn cas(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cas"));
        command.args(arguments).current_dir(self.workspace()).env("CAS_HOME", self.store()).env_remove("CI");
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        let path: &Path = self.folder.path();
        path.join(name)
    }
}
