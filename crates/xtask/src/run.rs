//! Running cargo.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What went wrong, for a person.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("xtask is two folders below the root").to_owned()
}

/// The cargo that runs this, in the root of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace());
    command
}

/// Checks formatting and warnings; whether both are fine.
pub(crate) fn lint() -> Result<bool, Failure> {
    let formatted = cargo(&["fmt", "--all", "--check"]).status()?.success();
    let clean = cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"])
        .status()?
        .success();
    Ok(formatted && clean)
}
