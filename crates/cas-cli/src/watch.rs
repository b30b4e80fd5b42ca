//! `cas watch`: the watcher of a workspace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas_build::Workspace;
use cas_snapshot::watch::{self, Status, WatchError};
use serde_json::{Value, json};

use crate::args::{Global, WatchCommand};
use crate::commands::{here, open_store, print};
use crate::exit::Exit;
use crate::render::Failure;

pub(crate) fn run(global: &Global, command: WatchCommand) -> Result<Exit, Failure> {
    if let WatchCommand::Serve { watchers, root, idle_seconds } = command {
        watch::serve(&watchers, &root, Duration::from_secs(idle_seconds)).map_err(Failure::Watch)?;
        return Ok(Exit::Done);
    }
    let root = Workspace::find(&here(global))?;
    let watchers = absolute(&open_store(global)?.watchers())?;
    let at = root.display();
    let (row, line) = match command {
        WatchCommand::Start { idle_seconds } => {
            let idle = OsString::from(idle_seconds.to_string());
            let arguments = ["watch".into(), "serve".into(), watchers.clone().into(), root.clone().into(), idle];
            match watch::start(&watchers, &root, &program()?, &arguments) {
                Ok(status) => (describe(&root, Some(status)), format!("watching `{at}`, process {}", status.process)),
                Err(WatchError::Running { .. }) => {
                    let status = watch::status(&watchers, &root).map_err(Failure::Watch)?;
                    (describe(&root, status), format!("a watcher of `{at}` runs already"))
                }
                Err(other) => return Err(Failure::Watch(other)),
            }
        }
        WatchCommand::Stop => {
            let was_there = watch::stop(&watchers, &root).map_err(Failure::Watch)?;
            let line = if was_there { format!("`{at}` is not watched any more") } else { none(&root) };
            (describe(&root, None), line)
        }
        WatchCommand::Status | WatchCommand::Serve { .. } => {
            let status = watch::status(&watchers, &root).map_err(Failure::Watch)?;
            let line = match status {
                None => none(&root),
                Some(Status { process, is_limit_reached: true, .. }) => format!(
                    "process {process} cannot watch `{at}`: it has more folders than this user may watch, and builds look at \
                     every file; raise the limit `fs.inotify.max_user_watches` with sysctl, and start it anew"
                ),
                Some(Status { process, folder_count, .. }) => {
                    format!("watching `{at}`, process {process}, {folder_count} folders")
                }
            };
            (describe(&root, status), line)
        }
    };
    print(global, &[row], |_| line.clone())?;
    Ok(Exit::Done)
}

fn none(root: &Path) -> String {
    format!("no watcher of `{}` runs", root.display())
}

fn describe(root: &Path, status: Option<Status>) -> Value {
    json!({
        "workspace": root.display().to_string(),
        "running": status.is_some(),
        "process": status.map(|status| status.process),
        "folders": status.map(|status| status.folder_count),
        "limit_reached": status.map(|status| status.is_limit_reached),
    })
}

fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::Usable(format!("could not find this program: {error}"), String::new()))
}

/// The watcher has another current folder.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let parent = path.parent().unwrap_or(path);
    let parent = cas_fs::canonicalize(parent).map_err(cas_build::BuildError::from)?;
    Ok(path.file_name().map_or(parent.clone(), |name| parent.join(name)))
}
