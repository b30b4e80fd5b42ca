//! Which files a target sees.

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use cas_tree::RelPath;
use globset::{GlobBuilder, GlobMatcher};

use crate::{Picked, Snapshot, SnapshotError};

/// Which files of the workspace are inputs.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Folder of the package; `None` for the root of the workspace.
    pub package: Option<RelPath>,
    /// Folders of other packages, whose files are theirs.
    pub other_packages: Vec<RelPath>,
    /// Globs over the package's files; `None` selects all of them.
    pub inputs: Option<Vec<String>>,
    /// Globs over the package's files that leave some of them out. They need not match anything.
    pub exclude: Vec<String>,
    /// Globs over the whole workspace, added to them.
    pub workspace_inputs: Vec<String>,
}

/// Globs over paths, as those of a selection: each stands for what it matches and for all below that.
pub struct Globs(Vec<Pattern>);

impl Globs {
    /// Reads globs.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Pattern`] for the first that is none.
    pub fn new(patterns: &[String]) -> Result<Self, SnapshotError> {
        patterns.iter().map(|text| Pattern::new(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of them matches a path, or a folder above it.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.0.iter().any(|pattern| pattern.matches(path))
    }
}

impl std::fmt::Debug for Globs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|pattern| &pattern.text)).finish()
    }
}

pub(crate) struct Pattern {
    pub(crate) text: String,
    matcher: GlobMatcher,
    below: GlobMatcher,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Result<Self, SnapshotError> {
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

    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        self.matcher.is_match(path) || self.below.is_match(path)
    }
}

impl Snapshot {
    /// The files that a selection picks.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Pattern`] and [`SnapshotError::NoMatch`]; [`SnapshotError::Sparse`] and [`SnapshotError::Submodule`]
    /// when files that git tracks are not there, which would have been picked.
    pub fn select(&self, selection: &Selection) -> Result<Picked, SnapshotError> {
        self.check_gaps(selection)?;
        let package = selection.package.as_ref().map_or(&b""[..], RelPath::as_bytes);
        let mut picked = Vec::new();
        if let Some(slot) = self.folder_position(package).map(|position| &self.folders[position]) {
            let mut next = slot.files.start;
            for others in self.ranges(&selection.other_packages) {
                if others.start >= next && others.start < slot.files.end {
                    picked.extend(next..others.start);
                    next = others.end;
                }
            }
            picked.extend(next..slot.files.end);
        }
        if let Some(inputs) = &selection.inputs {
            picked = self.matching(picked, inputs, package, true).map_err(|error| match error {
                SnapshotError::NoMatch { pattern, .. } => {
                    SnapshotError::NoMatch { pattern, package: String::from_utf8_lossy(package).into_owned() }
                }
                other => other,
            })?;
        }
        if !selection.exclude.is_empty() {
            let globs = Globs::new(&selection.exclude)?;
            let prefix = if package.is_empty() { 0 } else { package.len() + 1 };
            picked.retain(|index| !globs.matches(&self.path_bytes(self.files[*index as usize])[prefix..]));
        }
        if !selection.workspace_inputs.is_empty() {
            let mut known = self.everywhere.lock().unwrap_or_else(PoisonError::into_inner);
            let more = match known.iter().find(|(patterns, _)| *patterns == selection.workspace_inputs) {
                Some((_, files)) => files.clone(),
                None => {
                    let all = (0u32..).take(self.files.len()).collect();
                    let files = self.matching(all, &selection.workspace_inputs, b"", false)?;
                    known.push((selection.workspace_inputs.clone(), files.clone()));
                    files
                }
            };
            picked.extend(more);
            picked.sort_unstable();
            picked.dedup();
        }
        for index in &picked {
            self.selected[*index as usize].store(true, Ordering::Relaxed);
        }
        Ok(Picked(picked))
    }

    /// Positions of the files below folders, ranges in order, none inside of another.
    fn ranges(&self, folders: &[RelPath]) -> Vec<Range<u32>> {
        let mut ranges: Vec<Range<u32>> = folders
            .iter()
            .filter_map(|folder| self.folder_position(folder.as_bytes()))
            .map(|position| self.folders[position].files.clone())
            .filter(|range| !range.is_empty())
            .collect();
        ranges.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
        let mut end = 0;
        ranges.retain(|range| {
            let is_outer = range.end > end;
            end = end.max(range.end);
            is_outer
        });
        ranges
    }

    /// Those of `files` that a pattern matches, by their paths below `folder`.
    fn matching(
        &self,
        files: Vec<u32>,
        patterns: &[String],
        folder: &[u8],
        must_match: bool,
    ) -> Result<Vec<u32>, SnapshotError> {
        let patterns = patterns.iter().map(|text| Pattern::new(text)).collect::<Result<Vec<_>, _>>()?;
        let prefix = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let mut used = vec![false; patterns.len()];
        let mut picked = Vec::new();
        for index in files {
            let path = self.path_bytes(self.files[index as usize]);
            let mut any = false;
            for (pattern, used) in patterns.iter().zip(&mut used) {
                if (!any || !*used) && pattern.matches(&path[prefix..]) {
                    *used = true;
                    any = true;
                }
            }
            if any {
                picked.push(index);
            }
        }
        match used.iter().position(|used| !used).filter(|_| must_match) {
            Some(index) => {
                Err(SnapshotError::NoMatch { pattern: patterns[index].text.clone(), package: String::new() })
            }
            None => Ok(picked),
        }
    }
}
