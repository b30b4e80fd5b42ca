//! Whether this host can run sandboxes, found out by running one.

use std::path::{Path, PathBuf};

use cas_fs::FsError;

use crate::cancel::Cancel;
use crate::changes::{Change, Kind, changes};
use crate::error::SandboxError;
use crate::host::{self, Facts, HostCannot};
use crate::limits::Enforcement;
use crate::run::{Ending, Runner, Streams};
use crate::spec::{Overlay, Spec};
use crate::wire::Task;

/// What a successful probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostReport {
    /// The kernel, as `uname -r` says.
    pub kernel: String,
    /// The file system of the scratch folder.
    pub file_system: String,
    /// What holds memory and processes of steps to their limits.
    pub enforcement: Enforcement,
    /// Why sandboxes with many users cannot be had; steps need none.
    pub no_many_users: Option<HostCannot>,
}

/// Names that the probe's command removes, replaces and writes; see `helper/probe.rs`.
pub(crate) const REMOVED: &str = "removed";
pub(crate) const REPLACED: &str = "replaced";
pub(crate) const WRITTEN: &str = "written";

/// Makes a whole sandbox with scratch folders in `parent`, and lets the helper itself use it in place of a command.
///
/// Takes some milliseconds. Everything that a run needs is really tried: namespaces, overlay on that very file system with
/// its notes of removed and replaced names, `/proc`, devices.
///
/// # Errors
///
/// [`SandboxError::Host`] says what the host lacks; the others as for [`Runner::run`].
pub fn probe(runner: &Runner, parent: &Path) -> Result<HostReport, SandboxError> {
    let home = cas_fs::temporary_dir_in(parent, "probe-")?;
    let result = probe_in(runner, &home);
    let removed = cas_fs::remove_tree(&home);
    let report = result?;
    removed?;
    Ok(report)
}

fn probe_in(runner: &Runner, home: &Path) -> Result<HostReport, SandboxError> {
    let lower = lower_of(home);
    prepare(&lower)?;
    let root = Overlay { lowers: vec![lower], scratch: home.join("scratch") };
    let spec = Spec { working_directory: "/".into(), ..Spec::new(root, ["probe"]) };
    let sink = || cas_fs::create_new(&home.join("output"), 0o600);
    let output = sink()?;
    let second = output.try_clone().map_err(SandboxError::Connection)?;
    let cancel = Cancel::new().map_err(SandboxError::Connection)?;
    let outcome = runner.run_task(&spec, Task::Probe, Streams::new(output, second), None, &cancel)?;
    let facts = Facts::read(home);
    let found = changes(&spec.root.upper()).map_err(|error| SandboxError::Setup {
        action: "read what the probe wrote".to_owned(),
        path: Some(spec.root.upper()),
        source: std::io::Error::other(error),
    })?;
    if outcome.ending != Ending::Exited(0) || !is_as_written(&found) {
        return Err(
            HostCannot::ScratchUnsuitable { path: home.to_owned(), file_system: host::file_system(home) }.into()
        );
    }
    // Removed as user 0 of many: what stands in the way of them stands in the way of this.
    let no_many_users = match runner.remove(&lower_of(home)) {
        Ok(()) => None,
        Err(SandboxError::Host(cannot)) => Some(cannot),
        Err(other) => return Err(other),
    };
    Ok(HostReport {
        kernel: facts.release,
        file_system: facts.scratch_file_system,
        enforcement: Enforcement::best(),
        no_many_users,
    })
}

fn lower_of(home: &Path) -> PathBuf {
    home.join("lower")
}

fn prepare(lower: &Path) -> Result<(), FsError> {
    cas_fs::create_dir_all(&lower.join(REPLACED))?;
    cas_fs::write(&lower.join(REPLACED).join("hidden"), b"")?;
    cas_fs::write(&lower.join(REMOVED), b"")
}

/// Whether the changes are those of the probe, as the file system kept them.
fn is_as_written(found: &[Change]) -> bool {
    let name = |change: &Change| String::from_utf8_lossy(change.path().as_bytes()).into_owned();
    let kinds: Vec<(String, Option<Kind>)> = found
        .iter()
        .map(|change| match change {
            Change::Written { kind, .. } => (name(change), Some(*kind)),
            Change::Removed { .. } | Change::Opaque { .. } => (name(change), None),
        })
        .collect();
    let expected = [(REMOVED, None), (REPLACED, Some(Kind::Directory)), (REPLACED, None), (WRITTEN, Some(Kind::File))];
    kinds == expected.map(|(name, kind)| (name.to_owned(), kind))
}
