//! What git tracks and the working tree lacks: files of a sparse checkout, submodules that are not checked out.
//!
//! A target that would have such a file among its inputs must not be built without it. Elsewhere nothing happens.

use cas_git::Mode;
use cas_tree::RelPath;

use crate::record::Class;
use crate::select::Pattern;
use crate::{Selection, Snapshot, SnapshotError};

/// A place without what git tracks there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// From the workspace's root on.
    pub(crate) path: Vec<u8>,
    what: What,
    /// What git has there: the object's name, in hexadecimal.
    pub(crate) id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    File,
    Folder,
    Submodule,
}

impl Gap {
    /// A submodule whose files at a commit are not here.
    pub(crate) fn submodule(path: Vec<u8>, id: String) -> Self {
        Self { path, what: What::Submodule, id }
    }

    /// The same place with another object.
    pub(crate) fn with_id(&self, id: String) -> Self {
        Self { id, ..self.clone() }
    }

    /// Whether a path is in it.
    pub(crate) fn holds(&self, path: &[u8]) -> bool {
        match self.what {
            What::File => self.path == path,
            What::Folder | What::Submodule => below(path, &self.path).is_some(),
        }
    }

    fn error(&self) -> SnapshotError {
        let path = match self.what {
            What::Submodule => return SnapshotError::Submodule { path: self.path.clone() },
            What::File => self.path.clone(),
            What::Folder => [&self.path[..], b"/"].concat(),
        };
        SnapshotError::Sparse { path }
    }
}

impl Snapshot {
    pub(crate) fn find_gaps(&self) -> Vec<Gap> {
        let mut gaps = Vec::new();
        // Files of one folder follow each other, and in a sparse checkout most of the folders are not there.
        let mut last: Option<(Vec<u8>, Option<usize>)> = None;
        let mut is_there = |path: &[u8]| {
            let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(at) => (&path[..at], &path[at + 1..]),
                None => (&b""[..], path),
            };
            if last.as_ref().is_none_or(|(known, _)| known != folder) {
                last = Some((folder.to_vec(), self.folder_position(folder)));
            }
            let slot = last.as_ref().and_then(|(_, slot)| *slot);
            slot.is_some_and(|slot| {
                self.folders[slot].class(name).is_some_and(|class| !matches!(class, Class::Ignored { .. }))
            })
        };
        for (path, entry) in self.tracked.repositories().flat_map(|repository| repository.absent()) {
            let what = match entry.mode {
                Mode::SparseDirectory => What::Folder,
                Mode::Gitlink if self.tracked.is_submodule(&path) || self.has_files(&path) => continue,
                Mode::Gitlink if entry.is_skipped => What::Folder,
                Mode::Gitlink => What::Submodule,
                // It is there in spite of the flag: git takes that as if the flag were not set.
                _ if is_there(&path) => continue,
                _ => What::File,
            };
            let id = entry.id.iter().map(|byte| format!("{byte:02x}")).collect();
            gaps.push(Gap { path: path.strip_suffix(b"/").unwrap_or(&path).to_vec(), what, id });
        }
        gaps.sort_by(|a, b| a.path.cmp(&b.path));
        gaps
    }

    pub(crate) fn is_gap(&self, path: &[u8]) -> bool {
        self.gaps.iter().any(|gap| gap.path == path)
    }

    /// What git has in the places without files, as text: where that differs, what cannot be selected differs, too.
    #[must_use]
    pub fn absent(&self) -> String {
        self.gaps.iter().map(|gap| format!("{} {}\n", String::from_utf8_lossy(&gap.path), gap.id)).collect()
    }

    /// Fails with the first gap that would have been picked.
    pub(crate) fn check_gaps(&self, selection: &Selection) -> Result<(), SnapshotError> {
        if self.gaps.is_empty() {
            return Ok(());
        }
        let compile =
            |patterns: &[String]| patterns.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>();
        let inputs = selection.inputs.as_deref().map(compile).transpose()?;
        let everywhere = compile(&selection.workspace_inputs)?;
        let package = selection.package.as_ref().map_or(&b""[..], RelPath::as_bytes);
        for gap in &self.gaps {
            let is_folder = gap.what != What::File;
            let selects =
                |pattern: &Pattern, path: &[u8]| pattern.matches(path) || is_folder && pattern.may_match_below(path);
            let is_others = selection.other_packages.iter().any(|other| below(&gap.path, other.as_bytes()).is_some());
            // The package itself may lie in what is left out.
            let is_around = is_folder && below(package, &gap.path).is_some();
            let in_package = below(&gap.path, package).is_some_and(|path| {
                !is_others && inputs.as_ref().is_none_or(|inputs| inputs.iter().any(|pattern| selects(pattern, path)))
            });
            if is_around || in_package || everywhere.iter().any(|pattern| selects(pattern, &gap.path)) {
                return Err(gap.error());
            }
        }
        Ok(())
    }

    /// Fails when one of these paths is a gap, or may be in one.
    pub(crate) fn check_paths(&self, paths: &[RelPath]) -> Result<(), SnapshotError> {
        let is_in = |gap: &&Gap| paths.iter().any(|path| gap.holds(path.as_bytes()));
        self.gaps.iter().find(is_in).map_or(Ok(()), |gap| Err(gap.error()))
    }

    /// Whether a folder has files: a submodule with files and no repository was put there by hand, and is a folder like others.
    fn has_files(&self, folder: &[u8]) -> bool {
        self.folder_position(folder).is_some_and(|position| !self.folders[position].files.is_empty())
    }
}

/// The rest of a path below a folder, which is empty for the root.
fn below<'p>(path: &'p [u8], folder: &[u8]) -> Option<&'p [u8]> {
    match folder {
        b"" => Some(path),
        _ if path == folder => Some(b""),
        _ => path.strip_prefix(folder)?.strip_prefix(b"/"),
    }
}

impl Pattern {
    /// Whether the pattern could match something below a folder: never wrongly no.
    fn may_match_below(&self, folder: &[u8]) -> bool {
        let text = self.text.strip_prefix("./").unwrap_or(&self.text).trim_end_matches('/');
        let mut parts = folder.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
        for wanted in text.split('/') {
            // Alternatives and escapes can hold slashes, so nothing is said of what follows.
            if wanted.contains("**") || wanted.contains(['{', '}', '\\', '[', ']']) {
                return true;
            }
            // The folder ends within the pattern: the rest of the pattern may be in it.
            let Some(part) = parts.next() else { return true };
            let is_match = Pattern::new(wanted).is_ok_and(|pattern| pattern.matches(part));
            if !is_match {
                return false;
            }
        }
        // The pattern names a folder above it.
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_may_reach_into_a_folder() {
        for (pattern, folder, expected) in [
            ("src/**", "src/a", true),
            ("src/**", "docs", false),
            ("src", "src/a/b", true),
            ("src/a/b/*.c", "src/a", true),
            ("src/x/*.c", "src/a", false),
            ("*.js", "docs", false),
            ("*/x", "docs", true),
            ("**/*.js", "docs", true),
            ("./src/", "src", true),
            ("{a,b}/c", "b", true),
        ] {
            let pattern = Pattern::new(pattern).expect("a glob");
            assert_eq!(pattern.may_match_below(folder.as_bytes()), expected, "{} {folder}", pattern.text);
        }
    }
}
