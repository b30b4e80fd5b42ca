//! Which names `.gitignore` files leave out: gitignore(5), from the workspace's root down.

use std::path::Path;
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::SnapshotError;

/// Name of the files that are read here.
pub(crate) const GITIGNORE: &[u8] = b".gitignore";

/// The rules that hold in a folder: those of its own `.gitignore`, then those of the folders above.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    above: Option<Arc<Rules>>,
    own: Option<Gitignore>,
    is_everything: bool,
}

impl Rules {
    /// The rules of a folder that is left out itself.
    pub(crate) fn everything() -> Self {
        Self { is_everything: true, ..Self::default() }
    }

    /// The rules in a folder, `path` from the root on, whose `.gitignore` holds `text`.
    pub(crate) fn below(above: &Arc<Self>, path: &[u8], text: &[u8]) -> Result<Arc<Self>, SnapshotError> {
        let mut builder = GitignoreBuilder::new(Path::new(OsStr::from_bytes(path)));
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.first() == Some(&b'#') {
                continue;
            }
            let wrong = |why: String| SnapshotError::Gitignore {
                path: Path::new(OsStr::from_bytes(path)).join(".gitignore"),
                line: index + 1,
                why,
            };
            let line = std::str::from_utf8(line).map_err(|error| wrong(error.to_string()))?;
            builder.add_line(None, line).map_err(|error| wrong(error.to_string()))?;
        }
        let own = builder.build().map_err(SnapshotError::Patterns)?;
        Ok(Arc::new(Self { above: Some(Arc::clone(above)), own: Some(own), is_everything: false }))
    }

    /// Whether a path from the root on is left out. That folders above it are not is known.
    pub(crate) fn ignores(&self, path: &[u8], is_dir: bool) -> bool {
        if self.is_everything {
            return true;
        }
        let path = Path::new(OsStr::from_bytes(path));
        let mut rules = Some(self);
        while let Some(level) = rules {
            if let Some(own) = &level.own {
                let found = own.matched(path, is_dir);
                if !found.is_none() {
                    return found.is_ignore();
                }
            }
            rules = level.above.as_deref();
        }
        false
    }
}
