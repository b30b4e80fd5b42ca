//! Files that are named on the command line, seen against the workspace: one of its files is an input of steps.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas_build::{BuildError, LOCK_FILE, MANIFEST_FILE, Workspace};
use cas_config::TargetKind;
use cas_snapshot::{Places, Standing};
use cas_tree::RelPath;

use crate::place::OUTPUT_FOLDER;
use crate::render::{self, Failure};

/// Refuses secrets that no step reads, that are not there, or that steps would find as an input.
pub(crate) fn check_secrets(workspace: &Workspace, secrets: &[(String, PathBuf)], here: &Path) -> Result<(), Failure> {
    let known: BTreeSet<&str> = workspace
        .targets()
        .filter_map(|(_, target)| match &target.kind {
            TargetKind::Command(step) | TargetKind::Test(step) => Some(&step.secrets),
            _ => None,
        })
        .flatten()
        .map(|name| &**name)
        .collect();
    let mut seen = BTreeSet::new();
    for (name, file) in secrets {
        let file = here.join(file);
        if !known.contains(name.as_str()) {
            let message = format!("no step of the workspace has the secret `{name}`");
            return Err(Failure::Usable(message, "name it in `secrets` of the step".to_owned()));
        }
        if !seen.insert(name) {
            return Err(Failure::Usage(format!("`--secret {name}=…` is there twice")));
        }
        cas_fs::metadata(&file).map_err(|error| Failure::Usage(error.to_string()))?;
        if is_input(workspace, &file)? {
            let message =
                format!("the secret `{name}` is in `{}`, a file that steps of the workspace find", file.display());
            let hint = "keep it outside of the workspace, or name it in .gitignore";
            return Err(Failure::Usable(message, hint.to_owned()));
        }
    }
    Ok(())
}

/// Refuses reports in the place of what says what to build, and warns of those that would be inputs of the next build.
pub(crate) fn check_reports(workspace: &Workspace, reports: &[&Path], here: &Path) -> Result<(), Failure> {
    for report in reports {
        if is_definition(workspace, &here.join(report)) {
            let message =
                format!("`{}` would be replaced: it is a file that the workspace is read from", report.display());
            return Err(Failure::Usable(message, format!("write it to `{OUTPUT_FOLDER}/`, or name another file")));
        }
        if is_input(workspace, &here.join(report))? {
            render::note(&format!(
                "warning: `{}` is a file of the workspace: what it says makes steps of its package run again",
                report.display()
            ));
            render::note(&format!("hint: write it to `{OUTPUT_FOLDER}/`, or name it in .gitignore"));
        }
    }
    Ok(())
}

/// Whether a place, or what a link there leads to, is a `cas.toml` or the lock of the workspace.
fn is_definition(workspace: &Workspace, path: &Path) -> bool {
    let whole = cas_fs::canonicalize(path).ok().or_else(|| {
        // There is no such file yet.
        Some(cas_fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?))
    });
    whole.is_some_and(|whole| {
        let is_manifest = whole.starts_with(&workspace.root) && whole.file_name() == Some(MANIFEST_FILE.as_ref());
        is_manifest || whole == workspace.root.join(LOCK_FILE)
    })
}

/// Whether a place belongs to the files of the workspace.
fn is_input(workspace: &Workspace, path: &Path) -> Result<bool, Failure> {
    // The file may not be there yet; its folder is, or writing will fail.
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    let Ok(folder) = cas_fs::canonicalize(folder) else { return Ok(false) };
    let whole = folder.join(name);
    let Ok(inside) = whole.strip_prefix(&workspace.root) else { return Ok(false) };
    if inside.starts_with(OUTPUT_FOLDER) {
        return Ok(false);
    }
    let Ok(path) = RelPath::new(inside.as_os_str().as_bytes()) else { return Ok(false) };
    let standing = Places::open(&workspace.root).and_then(|places| places.standing(&path, false));
    Ok(standing.map_err(BuildError::from)? != Standing::Ignored)
}
