//! Reading the content of inputs, each file once, and only when it holds still.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use cas_blob::Descriptor;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::list::{EntryKind, Stamp, stat};
use crate::{Snapshot, SnapshotError};

/// How often a file that changes under the reader is read again before that is an error.
const ATTEMPTS: usize = 3;

impl Snapshot {
    /// The tree of `paths`, from the workspace's root on. `ingest` keeps the content of a file and names it.
    ///
    /// Modes are `0755` and `0644`, owners 0: only the owner's right to execute counts.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] for what cannot be an input, with its path.
    pub fn tree<E: std::error::Error + 'static>(
        &self,
        paths: &[RelPath],
        ingest: &dyn Fn(&mut dyn Read) -> Result<Descriptor, E>,
    ) -> Result<Directory, SnapshotError<E>> {
        let mut tree = Directory::root();
        let parents = Metadata::root_owned(0o755);
        for path in paths {
            let node = match self.entries.get(path) {
                Some(EntryKind::File { executable }) => {
                    let blob = self.read_file(path, ingest)?;
                    Node::file(blob, if *executable { 0o755 } else { 0o644 })
                }
                Some(EntryKind::Symlink) => self.read_symlink(path)?,
                Some(EntryKind::Special(kind)) => return Err(SnapshotError::Special { path: path.clone(), kind }),
                None => continue,
            };
            tree.insert(path, node, &parents).expect("a file system gave these paths, so none is below a file");
        }
        Ok(tree)
    }

    fn read_file<E: std::error::Error + 'static>(
        &self,
        path: &RelPath,
        ingest: &dyn Fn(&mut dyn Read) -> Result<Descriptor, E>,
    ) -> Result<Descriptor, SnapshotError<E>> {
        if let Some((blob, _)) = self.lock().get(path) {
            return Ok(*blob);
        }
        let at = self.at(path);
        for _ in 0..ATTEMPTS {
            let mut file = cas_fs::open_no_follow(&at)?;
            let before = Stamp::of(&stat(&file, &at)?);
            let blob = ingest(&mut file).map_err(|source| SnapshotError::Ingest { path: path.clone(), source })?;
            let after = stat(&file, &at)?;
            if Stamp::of(&after) == before && after.len() == blob.size {
                self.lock().insert(path.clone(), (blob, before));
                return Ok(blob);
            }
        }
        Err(SnapshotError::Unstable { path: path.clone() })
    }

    fn read_symlink<E: std::error::Error + 'static>(&self, path: &RelPath) -> Result<Node, SnapshotError<E>> {
        let at = self.at(path);
        let target = cas_fs::read_link(&at)?;
        let bytes = target.as_os_str().as_bytes();
        if leaves(path, bytes) {
            let target = target.display().to_string();
            return Err(SnapshotError::LeavesWorkspace { path: path.clone(), target });
        }
        let stamp = Stamp::of(&cas_fs::symlink_metadata(&at)?);
        let content = Descriptor::of(cas_digest::DigestFunction::Blake3, bytes);
        self.lock().insert(path.clone(), (content, stamp));
        Ok(Node::symlink(bytes))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<RelPath, (Descriptor, Stamp)>> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Whether a link at `path` with this target leaves the workspace, going by the names alone.
fn leaves(path: &RelPath, target: &[u8]) -> bool {
    if target.first() == Some(&b'/') {
        return true;
    }
    let mut depth = path.components().count() - 1;
    for component in target.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_may_climb_as_far_as_the_workspace() {
        for (path, target, expected) in [
            ("a/b/link", "../../c", false),
            ("a/b/link", "../../../c", true),
            ("link", "a/../b", false),
            ("link", "..", true),
            ("link", "/etc/passwd", true),
            ("a/link", ".//x", false),
        ] {
            let path = RelPath::new(path).expect("a path");
            assert_eq!(leaves(&path, target.as_bytes()), expected, "{path} -> {target}");
        }
    }
}
