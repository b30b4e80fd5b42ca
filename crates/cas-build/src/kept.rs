//! Folders that a step keeps from one run to the next: `cache`. Rules: docs/formats/step.md.
//!
//! Outside of keys and of results. What is in them can make a step faster and must not make it different;
//! `--check-repeat` compares with a run that has none of it.

use std::path::PathBuf;

use cas_sandbox::{Ending, Private};
use cas_store::PrivateFolder;
use cas_tree::RelPath;

use crate::BuildError;
use crate::inputs::in_package;

/// Where the folders of one run are.
pub(crate) enum Kept {
    /// The step has none.
    Nothing,
    /// In the store, for this step alone.
    Stays(PrivateFolder),
    /// In the run's own folder, empty and gone afterwards.
    Once(PathBuf),
}

impl Kept {
    /// The folders, made where they are missing, and where the step sees them.
    pub(crate) fn private(&self, package: Option<&RelPath>, paths: &[RelPath]) -> Result<Vec<Private>, BuildError> {
        let top = match self {
            Self::Nothing => return Ok(Vec::new()),
            Self::Stays(folder) => folder.path(),
            Self::Once(folder) => folder.clone(),
        };
        let folder = |path: &RelPath| -> Result<Private, BuildError> {
            let host = top.join(path.to_string());
            cas_fs::create_dir_all(&host)?;
            Ok(Private { host, inside: PathBuf::from(in_package(package, path).to_string()) })
        };
        paths.iter().map(folder).collect()
    }

    /// A program that was killed may have left something half done, on which the next run must not build.
    pub(crate) fn settle(&self, ending: &Ending) -> Result<(), BuildError> {
        match (self, ending) {
            (
                Self::Stays(folder),
                Ending::Signalled(_) | Ending::TimedOut | Ending::OverLimit(_) | Ending::Cancelled,
            ) => Ok(folder.clear()?),
            _ => Ok(()),
        }
    }
}
