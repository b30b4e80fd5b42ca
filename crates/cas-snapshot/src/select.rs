//! Which files a target sees.

use cas_tree::RelPath;
use globset::{GlobBuilder, GlobMatcher};

use crate::{Snapshot, SnapshotError};

/// Which files of the workspace are inputs.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Folder of the package; `None` for the root of the workspace.
    pub package: Option<RelPath>,
    /// Folders of other packages, whose files are theirs.
    pub other_packages: Vec<RelPath>,
    /// Globs over the package's files; `None` selects all of them.
    pub inputs: Option<Vec<String>>,
    /// Globs over the whole workspace, added to them.
    pub workspace_inputs: Vec<String>,
}

struct Pattern {
    text: String,
    matcher: GlobMatcher,
    below: GlobMatcher,
}

impl Pattern {
    fn new<E: std::error::Error + 'static>(text: &str) -> Result<Self, SnapshotError<E>> {
        let build = |pattern: &str| {
            GlobBuilder::new(pattern)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map(|glob| glob.compile_matcher())
                .map_err(|source| SnapshotError::Pattern { pattern: text.to_owned(), source })
        };
        let trimmed = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
        Ok(Self { text: text.to_owned(), matcher: build(trimmed)?, below: build(&format!("{trimmed}/**"))? })
    }

    fn matches(&self, path: &RelPath) -> bool {
        let path = std::path::Path::new(std::ffi::OsStr::new(path_str(path)));
        self.matcher.is_match(path) || self.below.is_match(path)
    }
}

fn path_str(path: &RelPath) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(path.as_bytes())
}

impl Snapshot {
    /// The paths that a selection picks, in order.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Pattern`] and [`SnapshotError::NoMatch`].
    pub fn select<E: std::error::Error + 'static>(
        &self,
        selection: &Selection,
    ) -> Result<Vec<RelPath>, SnapshotError<E>> {
        let compile =
            |patterns: &[String]| patterns.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>();
        let inputs = selection.inputs.as_deref().map(compile).transpose()?;
        let everywhere = compile(&selection.workspace_inputs)?;
        let mut used = vec![false; inputs.as_ref().map_or(0, Vec::len)];
        let mut selected = Vec::new();
        for path in self.entries.keys() {
            let own = match &selection.package {
                None => Some(path.clone()),
                Some(package) => path.strip_prefix(package),
            }
            .filter(|_| !selection.other_packages.iter().any(|other| path.strip_prefix(other).is_some()));
            let by_package = match (&own, &inputs) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(own), Some(inputs)) => {
                    let mut any = false;
                    for (index, pattern) in inputs.iter().enumerate() {
                        if pattern.matches(own) {
                            used[index] = true;
                            any = true;
                        }
                    }
                    any
                }
            };
            if by_package || everywhere.iter().any(|pattern| pattern.matches(path)) {
                selected.push(path.clone());
            }
        }
        if let Some(inputs) = inputs
            && let Some(index) = used.iter().position(|used| !used)
        {
            return Err(SnapshotError::NoMatch {
                pattern: inputs[index].text.clone(),
                package: selection.package.as_ref().map(ToString::to_string).unwrap_or_default(),
            });
        }
        Ok(selected)
    }
}
