//! The snapshot of a revision, made of that of the working tree: what git takes to be the same is taken over with its digest,
//! and what may differ is read from the repository.
//!
//! Nothing is checked out. The files belong to packages by the same rules: what a revision tracks, but for names that never do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cas_digest::{Digest, Hasher};
use cas_tree::RelPath;

use crate::cache::{Content, Folder, Held, Kind, Name};
use crate::gaps::Gap;
use crate::git::Tracked;
use crate::revision::{Doubt, Entry, Mode, Revision, RevisionError, ancestors, is_never};
use crate::slot::Known;
use crate::snapshot::{Snapshot, place};
use crate::stamp::{Stamp, Volumes};
use crate::walk::{Root, Visited, join, to_content};
use crate::{KeepError, Picked, SnapshotError};

/// Longest target of a symbolic link; the kernel takes no longer one.
const MAX_TARGET_BYTES: u64 = 4096;

/// What stands at a path in the revision.
enum Edit {
    Nothing,
    Is(Kind),
}

/// The files of a revision.
#[derive(Debug)]
pub struct Revised {
    /// Them.
    pub snapshot: Snapshot,
    /// Paths that may not be the same as in the working tree.
    pub differing: Vec<Vec<u8>>,
}

/// Keeps the content of a file, which is at this path.
pub type KeepContent<'a, E> = dyn FnMut(&[u8], &mut dyn Read) -> Result<(), E> + 'a;

impl<E: std::error::Error> From<RevisionError> for KeepError<E> {
    fn from(error: RevisionError) -> Self {
        Self::Revision(error)
    }
}

impl Snapshot {
    /// The files of the workspace as a revision has them, named by the function `self` names them with.
    ///
    /// The content of files that differ is not on the disk. Whoever will need it says so by `is_kept`, and gets it once, to
    /// keep it where [`Snapshot::keep`] looks for it.
    ///
    /// # Errors
    ///
    /// [`KeepError`]
    pub fn at<E: std::error::Error>(
        &self,
        revision: &Revision,
        is_kept: &dyn Fn(&[u8]) -> bool,
        keep: &mut KeepContent<'_, E>,
    ) -> Result<Revised, KeepError<E>> {
        let mut edits = Edits::default();
        let mut differing = Vec::new();
        self.read_doubtful(revision).map_err(KeepError::Snapshot)?;
        let here = self.kinds();
        let gaps: BTreeSet<&[u8]> = self.gaps.iter().map(|gap| gap.path.as_slice()).collect();
        for path in here.keys().filter(|path| !revision.is_file(path)) {
            edits.set(path, Edit::Nothing);
            differing.push(path.clone());
        }
        let mut open: Vec<Vec<u8>> = Vec::new();
        for (path, entry) in &revision.entries {
            let is_file = matches!(entry.mode, Mode::File { .. } | Mode::Symlink);
            if !is_file || is_never(path) || ancestors(path).any(|above| gaps.contains(above)) {
                continue;
            }
            if !here.contains_key(path) || revision.doubts.contains_key(path) {
                open.push(path.clone());
            }
        }
        let links = self.read_revised(revision, &open, &here, &mut edits, is_kept, keep)?;
        let mut revised = self.edited(&edits).map_err(KeepError::Snapshot)?;
        revised.links = links;
        let id_of = |path: &[u8]| revision.entries.get(path).map(|entry| entry.id.clone()).unwrap_or_default();
        let known = self.gaps.iter().map(|gap| gap.with_id(id_of(&gap.path)));
        let lost = revision.lost.iter().map(|(path, id)| Gap::submodule(path.clone(), id.clone()));
        revised.gaps = known.chain(lost).collect();
        differing.append(&mut open);
        Ok(Revised { snapshot: revised, differing })
    }

    /// Reads the files that git takes for changed, so that equal ones are known.
    fn read_doubtful(&self, revision: &Revision) -> Result<(), SnapshotError> {
        let changed = revision.doubts.iter().filter(|(_, doubt)| **doubt == Doubt::Changed);
        let positions = changed.filter_map(|(path, _)| self.position(&RelPath::new(path).ok()?));
        let is_file = |index: &u32| {
            let at = self.files[*index as usize];
            matches!(self.folders[at.folder as usize].read().names[at.name as usize].kind, Kind::File(_))
        };
        let mut files: Vec<u32> = positions.filter(is_file).collect();
        files.sort_unstable();
        self.read(&Picked(files))
    }

    /// Every file of the workspace.
    fn kinds(&self) -> BTreeMap<Vec<u8>, Kind> {
        let all = Picked((0u32..).take(self.files.len()).collect());
        let mut kinds = BTreeMap::new();
        self.each(&all, |folder, name, kind| {
            kinds.insert(join(folder, name), *kind);
        });
        kinds
    }

    /// Reads what differs; returns the targets of links.
    fn read_revised<E: std::error::Error>(
        &self,
        revision: &Revision,
        paths: &[Vec<u8>],
        here: &BTreeMap<Vec<u8>, Kind>,
        edits: &mut Edits,
        is_kept: &dyn Fn(&[u8]) -> bool,
        keep: &mut KeepContent<'_, E>,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, KeepError<E>> {
        let mut links = BTreeMap::new();
        let mut found: Vec<Option<(Content, u64)>> = vec![None; paths.len()];
        revision.each::<KeepError<E>>(paths, &mut |index, size, content| {
            let path = &paths[index];
            let mut content = Hashing { hasher: Hasher::new(self.function), content };
            if revision.entries.get(path).is_some_and(|entry| entry.mode == Mode::Symlink) {
                let mut target = Vec::new();
                if size > MAX_TARGET_BYTES {
                    let problem = "a symbolic link is too long";
                    return Err(RevisionError::Output { command: "cat-file", problem }.into());
                }
                content.read_to_end(&mut target).map_err(RevisionError::Program)?;
                links.insert(path.clone(), target);
            } else if is_kept(path) {
                keep(path, &mut content).map_err(|source| KeepError::Keep { path: path.clone(), source })?;
            }
            std::io::copy(&mut content, &mut std::io::sink()).map_err(RevisionError::Program)?;
            found[index] = Some((to_content(&content.hasher.finish()), size));
            Ok(())
        })?;
        for (path, found) in paths.iter().zip(found) {
            let Some(entry) = revision.entries.get(path) else { continue };
            let kind = self.revised_kind(entry, found, here.get(path), revision.doubts.get(path));
            edits.set(path, Edit::Is(kind));
        }
        Ok(links)
    }

    /// What stands at a path of the revision. Content that nobody here has, and content that git takes for another one than
    /// that of an equal file in the working tree, has a name that no content has.
    fn revised_kind(
        &self,
        entry: &Entry,
        found: Option<(Content, u64)>,
        here: Option<&Kind>,
        doubt: Option<&Doubt>,
    ) -> Kind {
        let other = || to_content(&Digest::of(self.function, format!("content of {}", entry.id).as_bytes()));
        let (mut content, size) = found.unwrap_or_else(|| (other(), 0));
        let mode = match entry.mode {
            Mode::File { is_executable: true } => 0o100_755,
            Mode::Symlink => 0o120_777,
            _ => 0o100_644,
        };
        let mut stamp = Stamp { device: 0, inode: 0, mode, size, modified: (0, 0), changed: (0, 0) };
        // A filter or the ends of lines can make a file another one for git whose bytes are the same.
        if let Some(Kind::File(now)) = here
            && doubt == Some(&Doubt::Changed)
            && now.content == Some(content)
            && now.is_executable() == (mode & 0o100 != 0)
        {
            content = other();
        }
        let held = |stamp| Held { stamp, content: Some(content), is_trusted: false, is_pointer: false };
        match entry.mode {
            Mode::Symlink => {
                stamp.size = size;
                Kind::Symlink(held(stamp))
            }
            _ => Kind::File(held(stamp)),
        }
    }

    /// This snapshot with other files.
    fn edited(&self, edits: &Edits) -> Result<Self, SnapshotError> {
        let mut visited = Vec::new();
        // The way to a folder goes through those that are there in the revision, so that others are left out with all below.
        let mut open: Vec<Vec<u8>> = vec![Vec::new()];
        while let Some(path) = open.pop() {
            let slot = self.folder_position(&path).map(|position| &self.folders[position]);
            let known = match (slot, edits.0.get(&path)) {
                (Some(slot), None) => slot.known(),
                (slot, edits) => Known::Folder(Box::new(edited(slot.map(|slot| slot.read().clone()), edits))),
            };
            let first = open.len();
            open.extend(known.directories().map(|(_, entry)| join(&path, entry.name)));
            open[first..].reverse();
            visited.push(Visited {
                path: path.into_boxed_slice(),
                folder: known,
                is_changed: false,
                is_looked_at: true,
            });
        }
        let (folders, files) = place(visited);
        let flags = || files.iter().map(|_| AtomicBool::new(false)).collect();
        let (taken, kept, selected) = (flags(), flags(), flags());
        Ok(Self {
            root: Root::open(&self.root.path)?,
            function: self.function,
            volumes: Volumes::new(self.volumes.trust()),
            cache: None,
            folders,
            files,
            taken,
            kept,
            selected,
            tracked: Tracked::default(),
            gaps: Vec::new(),
            everywhere: Mutex::default(),
            links: BTreeMap::new(),
            #[cfg(test)]
            spared_count: 0,
        })
    }
}

/// What differs in each folder, by name.
#[derive(Default)]
struct Edits(BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Edit>>);

impl Edits {
    /// Says what stands at a path; folders above something are there.
    fn set(&mut self, path: &[u8], edit: Edit) {
        let (folder, name) = parted(path);
        let is_there = matches!(edit, Edit::Is(_));
        let names = self.0.entry(folder.to_vec()).or_default();
        // What is not there says nothing of a folder that is.
        if is_there || !names.contains_key(name) {
            names.insert(name.to_vec(), edit);
        }
        if is_there && !folder.is_empty() {
            let (above, own) = parted(folder);
            let is_known = self.0.get(above).and_then(|names| names.get(own));
            if !matches!(is_known, Some(Edit::Is(Kind::Directory))) {
                self.set(folder, Edit::Is(Kind::Directory));
            }
        }
    }
}

/// The folder of a path, and its name there.
fn parted(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn edited(before: Option<Folder>, edits: Option<&BTreeMap<Vec<u8>, Edit>>) -> Folder {
    let mut folder = before.unwrap_or(Folder {
        stamp: None,
        rules: [0; 32],
        has_twins: false,
        is_closed: false,
        own_rules: None,
        names: Vec::new(),
    });
    folder.stamp = None;
    let Some(edits) = edits else { return folder };
    folder.names.retain(|name| !edits.contains_key(&*name.name));
    let there = edits.iter().filter_map(|(name, edit)| match edit {
        Edit::Is(kind) => Some(Name { name: name.as_slice().into(), kind: *kind, is_ignored: false }),
        Edit::Nothing => None,
    });
    folder.names.extend(there);
    folder.names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    folder
}

/// A reader that hashes what is read.
struct Hashing<'a> {
    hasher: Hasher,
    content: &'a mut dyn Read,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
