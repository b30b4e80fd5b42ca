//! Whether a place of the workspace belongs to anybody: to git, to the sources, or to neither.
//!
//! Decided by the same rules as a snapshot (`rules`, `git`), but for single paths, and also where nothing is yet.

use std::path::Path;
use std::sync::Arc;

use cas_tree::RelPath;

use crate::SnapshotError;
use crate::git::Tracked;
use crate::rules::{GITIGNORE, Rules};
use crate::snapshot::Snapshot;
use crate::walk::{MAX_GITIGNORE_BYTES, Root, join};

/// What a place of a workspace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// git tracks it, or something below it.
    Tracked,
    /// A `.gitignore` of the workspace names it or a folder above it, and git tracks nothing there.
    Ignored,
    /// What is there belongs to the workspace's files.
    Listed,
}

/// Tells what places of a workspace are.
#[derive(Debug)]
pub struct Places {
    root: Root,
    tracked: Tracked,
}

impl Places {
    /// Reads what git tracks of the workspace at `root`.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Fs`], [`SnapshotError::GitIndex`] and [`SnapshotError::GitConfig`].
    pub fn open(root: &Path) -> Result<Self, SnapshotError> {
        let root = Root::open(root)?;
        let tracked = Tracked::open(&root)?;
        Ok(Self { root, tracked })
    }

    /// Whether the workspace is in a repository of git.
    #[must_use]
    pub fn has_repository(&self) -> bool {
        self.tracked.has_repository()
    }

    /// What a place is, or would be if a folder was there, or something else.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Fs`] and [`SnapshotError::Gitignore`].
    pub fn standing(&self, path: &RelPath, is_dir: bool) -> Result<Standing, SnapshotError> {
        if self.tracked.has(path.as_bytes(), is_dir) || self.tracked.has(path.as_bytes(), false) {
            return Ok(Standing::Tracked);
        }
        let mut rules = Arc::new(Rules::default());
        let (mut folder, mut names) = (Vec::new(), path.components().peekable());
        while let Some(name) = names.next() {
            if self.tracked.is_submodule(&folder) {
                // It knows nothing of rules above it.
                rules = Arc::new(Rules::default());
            }
            if let Some(text) = self.own_rules(&folder)? {
                rules = Rules::below(&rules, &folder, &text)?;
            }
            folder = join(&folder, name);
            if rules.ignores(&folder, is_dir || names.peek().is_some()) {
                return Ok(Standing::Ignored);
            }
        }
        Ok(Standing::Listed)
    }

    /// The text of a folder's `.gitignore`. A link of that name is none, as in git.
    fn own_rules(&self, folder: &[u8]) -> Result<Option<Vec<u8>>, SnapshotError> {
        let path = self.root.at(&join(folder, GITIGNORE));
        if !cas_fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            return Ok(None);
        }
        Ok(Some(cas_fs::read_limited(&path, MAX_GITIGNORE_BYTES)?))
    }
}

impl Snapshot {
    /// Whether the workspace is in a repository of git.
    #[must_use]
    pub fn has_repository(&self) -> bool {
        self.tracked.has_repository()
    }
}
