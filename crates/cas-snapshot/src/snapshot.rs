//! The files of a workspace at one time.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_fs::FsError;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::SnapshotError;
use crate::cache::{self, Cache, Content, Held, Kind, Written};
use crate::gaps::Gap;
use crate::git::Tracked;
use crate::record::{digest_of, put_u32};
use crate::slot::Slot;
use crate::stamp::{Trust, Volumes};
use crate::walk::{Root, Visited, Walker, join, walk_order};
use crate::watch::{Changes, Watched};

/// How a snapshot is taken.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// What names content: a function of 32 bytes.
    pub function: DigestFunction,
    /// Whose times are believed.
    pub trust: Trust,
    /// Folder of the stat caches, one file a workspace; without it every file is read.
    pub caches: Option<&'a Path>,
    /// Folder of the watchers, one folder a workspace; without it, and without caches, none is asked.
    pub watchers: Option<&'a Path>,
}

/// The files of a workspace at one time.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) root: Root,
    pub(crate) function: DigestFunction,
    pub(crate) volumes: Volumes,
    pub(crate) cache: Option<(PathBuf, cache::State)>,
    /// In the order of a tree's walk.
    pub(crate) folders: Vec<Slot>,
    /// In the order of a tree's walk.
    pub(crate) files: Vec<FileAt>,
    /// What was given out to be kept, for [`Snapshot::verify_unchanged`].
    pub(crate) taken: Vec<AtomicBool>,
    /// What has been kept.
    pub(crate) kept: Vec<AtomicBool>,
    /// What was selected so far, for [`Snapshot::notes`].
    pub(crate) selected: Vec<AtomicBool>,
    /// What git tracks.
    pub(crate) tracked: Tracked,
    /// What git tracks and the working tree lacks for a reason, by path.
    pub(crate) gaps: Vec<Gap>,
    /// Files that globs over the whole workspace picked, by globs: the same for every target.
    pub(crate) everywhere: Mutex<Vec<(Vec<String>, Vec<u32>)>>,
    /// Targets of symbolic links that are not on the disk, by path: those of a revision.
    pub(crate) links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Folders that a watcher spared looking at.
    #[cfg(test)]
    pub(crate) spared_count: usize,
}

/// Where a file is: its folder, and its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileAt {
    pub(crate) folder: u32,
    pub(crate) name: u32,
}

/// Files of a snapshot that a target sees, in the order of a tree's walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picked(pub(crate) Vec<u32>);

impl Picked {
    /// Number of files.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Snapshot {
    /// Looks at the files of the workspace at `root`: those that git tracks, and those that its `.gitignore` files leave.
    /// None is read yet.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Fs`] when a folder cannot be read, [`SnapshotError::Gitignore`], [`SnapshotError::Unstable`],
    /// [`SnapshotError::GitIndex`] and [`SnapshotError::GitConfig`].
    pub fn take(root: &Path, options: &Options<'_>) -> Result<Self, SnapshotError> {
        let function = options.function;
        let root = Root::open(root)?;
        let volumes = Volumes::new(options.trust);
        let path = options.caches.map(|caches| cache::path_in(caches, &root.path));
        let loaded = path.as_ref().map_or_else(Cache::default, |path| Cache::load(path, function));
        let mut state = loaded.state();
        let tracked = Tracked::open(&root)?;
        // Where times are not believed, changes can come from other machines, of which no watcher hears either.
        let is_local = options.trust == Trust::Local && path.is_some();
        let watchers = options.watchers.filter(|_| is_local && volumes.is_root_believed(&root));
        let watched = watchers.and_then(|at| Watched::ask(at, &root, loaded.token(), || loaded.wanted()));
        let changes = watched.as_ref().and_then(|watched| watched.changes.as_ref());
        let visited = Walker::new(&root, &volumes, &loaded, function, &tracked).sparing(changes).walk()?;
        drop(loaded);
        #[cfg(test)]
        let spared_count = visited.iter().filter(|visited| !visited.is_looked_at).count();
        state.token = watched.as_ref().and_then(|watched| watched.confirm(&visited));
        state.is_token_due = !changes.is_some_and(Changes::is_empty);
        let (folders, files) = place(visited);
        let flags = || files.iter().map(|_| AtomicBool::new(false)).collect();
        let (taken, kept, selected) = (flags(), flags(), flags());
        let cache = path.map(|path| (path, state));
        let mut snapshot = Self {
            root,
            function,
            volumes,
            cache,
            folders,
            files,
            taken,
            kept,
            selected,
            tracked,
            gaps: Vec::new(),
            everywhere: Mutex::new(Vec::new()),
            links: BTreeMap::new(),
            #[cfg(test)]
            spared_count,
        };
        snapshot.gaps = snapshot.find_gaps();
        Ok(snapshot)
    }

    /// Number of files of the workspace.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether the workspace has no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The files at these paths; those that are not there are left out.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Sparse`] and [`SnapshotError::Submodule`] for one that git tracks and the checkout lacks.
    pub fn pick(&self, paths: &[RelPath]) -> Result<Picked, SnapshotError> {
        self.check_paths(paths)?;
        let mut picked: Vec<u32> = paths.iter().filter_map(|path| self.position(path)).collect();
        picked.sort_unstable();
        picked.dedup();
        Ok(Picked(picked))
    }

    /// What is picked but for what is at or below one of these paths.
    #[must_use]
    pub fn without(&self, picked: &Picked, paths: &[RelPath]) -> Picked {
        let mut left: Vec<Range<u32>> = Vec::new();
        for path in paths {
            left.extend(self.position(path).map(|position| position..position + 1));
            left.extend(self.folder_position(path.as_bytes()).map(|position| self.folders[position].files.clone()));
        }
        Picked(picked.0.iter().copied().filter(|file| !left.iter().any(|range| range.contains(file))).collect())
    }

    /// Both together.
    #[must_use]
    pub fn union(&self, one: &Picked, other: &Picked) -> Picked {
        let mut files = [&one.0[..], &other.0[..]].concat();
        files.sort_unstable();
        files.dedup();
        Picked(files)
    }

    /// Paths of picked files.
    pub fn paths<'a>(&'a self, picked: &'a Picked) -> impl Iterator<Item = RelPath> + 'a {
        picked.0.iter().map(|index| self.path(*index))
    }

    /// Names paths and contents of picked files: equal for equal trees, whatever their owners, times and other rights.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::read`].
    pub fn fingerprint(&self, picked: &Picked) -> Result<Digest, SnapshotError> {
        // Only the folders between the first and the last one of the picked files: there are many targets, and most have few.
        let folders = picked.0.iter().map(|index| self.files[*index as usize].folder);
        let (first, end) = match (folders.clone().min(), folders.max()) {
            (Some(first), Some(last)) => (first as usize, last as usize + 1),
            _ => (0, 0),
        };
        let at = |index: &u32| self.files[*index as usize].folder as usize - first;
        let mut counts = vec![0; end - first];
        for index in &picked.0 {
            counts[at(index)] += 1;
        }
        let slots = &self.folders[first..end];
        // Where all files of a folder are picked, the digest in its record stands for them.
        let recorded: Vec<Option<Content>> = (slots.iter().zip(&counts))
            .map(|(slot, count)| if *count > 0 && *count == slot.own_count { slot.digest() } else { None })
            .collect();
        let is_open = |index: &u32| recorded[at(index)].is_none();
        let open = Picked(picked.0.iter().copied().filter(is_open).collect());
        self.read(&open)?;
        let mut names: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for index in &open.0 {
            names.entry(at(index)).or_default().push(self.files[*index as usize].name);
        }
        let mut text = Vec::new();
        for (position, (slot, recorded)) in slots.iter().zip(recorded).enumerate() {
            if counts[position] == 0 {
                continue;
            }
            let digest = recorded.unwrap_or_else(|| {
                let folder = slot.read();
                let names = names.get(&position).into_iter().flatten();
                digest_of(self.function, names.map(|name| &folder.names[*name as usize])).expect("they were read")
            });
            put_u32(&mut text, slot.path.len());
            text.extend_from_slice(&slot.path);
            text.extend_from_slice(&digest);
        }
        Ok(Digest::of(self.function, &text))
    }

    /// The tree of picked files, from the workspace's root on.
    ///
    /// Modes are `0755` and `0644`, owners 0: only the owner's right to execute counts.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::read`].
    pub fn tree(&self, picked: &Picked) -> Result<Directory, SnapshotError> {
        let mut tree = Directory::root();
        let parents = Metadata::root_owned(0o755);
        for (path, node) in self.listing(picked)? {
            tree.insert(&path, node, &parents).expect("a file system gave these paths, so none is below a file");
        }
        Ok(tree)
    }

    /// The files of that tree, with their paths from the workspace's root, in their order.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::read`].
    pub fn listing(&self, picked: &Picked) -> Result<Vec<(RelPath, Node)>, SnapshotError> {
        self.read(picked)?;
        let mut nodes = Vec::with_capacity(picked.len());
        self.each(picked, |path, name, kind| {
            let node = match kind {
                Kind::File(held) => Node::file(self.blob(held), if held.is_executable() { 0o755 } else { 0o644 }),
                // The target is read below, without the folder's lock.
                _ => Node::symlink(b""),
            };
            nodes.push((join(path, name), node, *kind));
        });
        let full = |(path, mut node, kind): (Vec<u8>, Node, Kind)| {
            if let Kind::Symlink(held) = kind {
                node = Node::symlink(self.symlink_target(&path, &held)?);
            }
            Ok((rel_path(&path)?, node))
        };
        nodes.into_iter().map(full).collect()
    }

    /// Writes down what was read, for the next snapshot of this workspace.
    ///
    /// # Errors
    ///
    /// [`FsError`]; the next snapshot reads more then.
    pub fn save(&self) -> Result<(), FsError> {
        let Some((path, state)) = &self.cache else { return Ok(()) };
        let changed = self.folders.iter().filter(|slot| slot.is_changed());
        let changed: Vec<Written<'_>> = changed.map(|slot| slot.written(self.function)).collect();
        let mut all = self.folders.iter().map(|slot| slot.written(self.function));
        cache::save(path, *state, self.function, &changed, &mut all)
    }

    /// The blob of a file that was read.
    pub(crate) fn blob(&self, held: &Held) -> Descriptor {
        let digest = Digest::from_value(self.function, &known(held)).expect("workspaces' functions give 32 bytes");
        Descriptor { digest, size: held.stamp.size }
    }

    /// Calls `with` for each picked file: path of its folder, its name, what it is.
    pub(crate) fn each(&self, picked: &Picked, mut with: impl FnMut(&[u8], &[u8], &Kind)) {
        let mut files = picked.0.iter().map(|index| self.files[*index as usize]).peekable();
        while let Some(first) = files.peek().copied() {
            let slot = &self.folders[first.folder as usize];
            let folder = slot.read();
            // One lock for the files of one folder that follow each other.
            while let Some(file) = files.next_if(|file| file.folder == first.folder) {
                let name = &folder.names[file.name as usize];
                with(&slot.path, &name.name, &name.kind);
            }
        }
    }

    /// Position of the file at a path.
    pub(crate) fn position(&self, path: &RelPath) -> Option<u32> {
        let bytes = path.as_bytes();
        let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (&b""[..], bytes),
        };
        let slot_index = self.folder_position(parent)?;
        let slot = &self.folders[slot_index];
        let folder = slot.read();
        let name = folder.names.binary_search_by(|known| (*known.name).cmp(name)).ok()?;
        let wanted = FileAt { folder: u32::try_from(slot_index).ok()?, name: u32::try_from(name).ok()? };
        drop(folder);
        // Files of folders below stand between those of this one, so the position is searched for.
        let range = slot.files.start as usize..slot.files.end as usize;
        let found = self.files[range].binary_search_by(|file| {
            if file.folder == wanted.folder {
                file.name.cmp(&wanted.name)
            } else {
                walk_order(&self.path_bytes(*file), bytes)
            }
        });
        found.ok().and_then(|offset| u32::try_from(offset).ok()).map(|offset| slot.files.start + offset)
    }

    pub(crate) fn folder_position(&self, path: &[u8]) -> Option<usize> {
        self.folders.binary_search_by(|slot| walk_order(&slot.path, path)).ok()
    }

    pub(crate) fn path_bytes(&self, file: FileAt) -> Vec<u8> {
        let slot = &self.folders[file.folder as usize];
        join(&slot.path, &slot.read().names[file.name as usize].name)
    }

    fn path(&self, index: u32) -> RelPath {
        rel_path(&self.path_bytes(self.files[index as usize])).expect("it was a path when it was selected")
    }
}

/// Gives folders and files their positions in the order of a walk. `visited` has the folders in that order.
pub(crate) fn place(visited: Vec<Visited>) -> (Vec<Slot>, Vec<FileAt>) {
    let position = |len: usize| u32::try_from(len).expect("a workspace has fewer than 2^32 files");
    let mut files = Vec::new();
    // For each folder: the files in it and below it, and the number of those in it.
    let mut places: Vec<(Range<u32>, u32)> = Vec::with_capacity(visited.len());
    // The way from the root to the current folder: its place, the folders in it that are still to be looked at, and the
    // first name behind the last one of them.
    let mut way = Vec::new();
    if let Some(root) = visited.first() {
        places.push((0..0, 0));
        way.push((0, root.folder.directories(), 0));
    }
    while let Some((index, directories, next)) = way.last_mut() {
        let index = *index;
        let folder = &visited[index].folder;
        let directory = directories.next();
        let before = *next..directory.as_ref().map_or_else(|| folder.name_count(), |(name, _)| *name);
        let own_count = &mut places[index].1;
        folder.each_kept(before, |name| {
            files.push(FileAt { folder: position(index), name });
            *own_count += 1;
        });
        let Some((name, entry)) = directory else {
            places[index].0.end = position(files.len());
            way.pop();
            continue;
        };
        *next = name + 1;
        // One that vanished meanwhile was not visited.
        let path = join(&visited[index].path, entry.name);
        if let Some(child) = visited.get(places.len()).filter(|child| *child.path == *path) {
            way.push((places.len(), child.folder.directories(), 0));
            places.push((position(files.len())..0, 0));
        }
    }
    drop(way);
    let slots = visited.into_iter().zip(places).map(|(visited, (files, own))| Slot::new(visited, files, own));
    (slots.collect(), files)
}

fn known(held: &Held) -> Content {
    held.content.expect("it was read before")
}

pub(crate) fn rel_path(bytes: &[u8]) -> Result<RelPath, SnapshotError> {
    RelPath::new(bytes).map_err(|source| SnapshotError::Path { path: OsStr::from_bytes(bytes).into(), source })
}
