//! A file system in memory that knows what a loss of power would leave of it.
//!
//! It records every operation. A crash replays a prefix of the record: after the death of processes all of it, after a loss
//! of power what was synced, and of the rest whatever the choice says: nothing, names without content, anything. Content and
//! names are lost independently, in any order, which is more than journalling file systems do.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use cas_fs::{DirEntry, FsError, Operation};

use super::{Access, Disk, LockMode, Mark, Room, Site, Stat};

type Inode = u64;

/// A path as text: `Path` compares by components, which is slow.
type Key = String;

fn key(path: &Path) -> Key {
    path.to_str().expect("paths of the model are text").to_owned()
}

fn parent(key: &str) -> &str {
    match key.rfind('/') {
        Some(0) => "/",
        Some(at) => &key[..at],
        None => "",
    }
}

/// Everything below a folder, in a map that is sorted by path.
fn below<'m, V>(map: &'m BTreeMap<Key, V>, folder: &str) -> impl Iterator<Item = (&'m Key, &'m V)> {
    // The character after `/` ends the range.
    let folder = folder.trim_end_matches('/');
    map.range(format!("{folder}/")..format!("{folder}0"))
}

/// What is on the disk.
#[derive(Clone, Debug, Default)]
struct Volume {
    files: BTreeMap<Key, Inode>,
    folders: BTreeMap<Key, Mark>,
    data: BTreeMap<Inode, (Vec<u8>, Mark)>,
}

/// Something that changed the disk, or made changes durable.
#[derive(Clone, Debug)]
enum Change {
    Write {
        inode: Inode,
        offset: usize,
        bytes: Vec<u8>,
    },
    Mark {
        inode: Inode,
        mark: Mark,
    },
    Name {
        path: Key,
        inode: Inode,
    },
    Folder {
        path: Key,
    },
    MarkFolder {
        path: Key,
        mark: Mark,
    },
    /// Of a file: its new name leads to it even where the old name was never written.
    Rename {
        from: Key,
        to: Key,
        inode: Option<Inode>,
    },
    Remove {
        path: Key,
    },
    SyncFile {
        inode: Inode,
    },
    SyncFolder {
        path: Key,
    },
    SyncAll,
    /// Content that was not durable yet will never be, although later syncs succeed.
    SyncFailed,
}

impl Volume {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { inode, offset, bytes } => {
                let data = &mut self.data.entry(*inode).or_insert_with(new_file).0;
                if data.len() < offset + bytes.len() {
                    data.resize(offset + bytes.len(), 0);
                }
                data[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Change::Mark { inode, mark } => self.data.entry(*inode).or_insert_with(new_file).1 = *mark,
            Change::Name { path, inode } => {
                self.data.entry(*inode).or_insert_with(new_file);
                self.files.insert(path.clone(), *inode);
            }
            Change::Folder { path } => {
                self.folders.entry(path.clone()).or_insert(NOW);
            }
            Change::MarkFolder { path, mark } => {
                if let Some(folder) = self.folders.get_mut(path) {
                    *folder = *mark;
                }
            }
            Change::Rename { from, to, inode: Some(inode) } => {
                self.data.entry(*inode).or_insert_with(new_file);
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
            Change::Rename { from, to, inode: None } => {
                let mark = self.folders.remove(from).unwrap_or(NOW);
                self.folders.insert(to.clone(), mark);
                let moved = |path: &Key| format!("{to}{}", &path[from.len()..]);
                let files: Vec<(Key, Inode)> =
                    below(&self.files, from).map(|(at, inode)| (at.clone(), *inode)).collect();
                for (path, inode) in files {
                    self.files.remove(&path);
                    self.files.insert(moved(&path), inode);
                }
                let folders: Vec<(Key, Mark)> =
                    below(&self.folders, from).map(|(at, mark)| (at.clone(), *mark)).collect();
                for (path, mark) in folders {
                    self.folders.remove(&path);
                    self.folders.insert(moved(&path), mark);
                }
            }
            Change::Remove { path } => {
                self.files.remove(path);
                self.folders.remove(path);
            }
            Change::SyncFile { .. } | Change::SyncFolder { .. } | Change::SyncAll | Change::SyncFailed => {}
        }
    }

    /// Drops what cannot be reached.
    fn prune(&mut self) {
        // Folders come before what is in them.
        let mut reachable: BTreeMap<Key, Mark> = BTreeMap::new();
        for (path, mark) in std::mem::take(&mut self.folders) {
            if path == "/" || reachable.contains_key(parent(&path)) {
                reachable.insert(path, mark);
            }
        }
        self.files.retain(|path, _| reachable.contains_key(parent(path)));
        self.folders = reachable;
    }

    fn has_children(&self, path: &str) -> bool {
        below(&self.files, path).next().is_some() || below(&self.folders, path).next().is_some()
    }
}

/// The mark of what nobody marked: a time of today.
const NOW: Mark = Mark { seconds: 1_790_000_000, nanoseconds: 0 };

fn new_file() -> (Vec<u8>, Mark) {
    (Vec::new(), NOW)
}

/// How the disk loses what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// Processes die, the machine runs on: nothing is lost.
    Kill,
    /// Power is lost and with it everything that was not synced.
    Nothing,
    /// Power is lost; names and attributes were written, content was not.
    NamesOnly,
    /// Power is lost; each change was written or not, by lot.
    Lots(u64),
}

/// Faults by lot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// One operation of so many fails; 0 for none.
    pub(crate) one_in: u64,
    /// The next sync of everything fails and loses what was not durable.
    pub(crate) fail_next_sync: bool,
}

#[derive(Debug)]
struct State {
    base: Volume,
    now: Volume,
    record: Vec<Change>,
    locks: BTreeMap<Inode, (u32, bool)>,
    next_inode: Inode,
    random: u64,
    faults: Faults,
    clock: i64,
    room: u64,
}

/// What runs before each operation; lets a test decide who goes on.
pub(crate) type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// A file system in memory.
pub(crate) struct ModelDisk {
    state: Arc<Mutex<State>>,
    boot: String,
    pub(crate) unnamed: bool,
    /// A sync or rename that is left out, though it says that it was done.
    pub(crate) disabled: Option<Site>,
    pub(crate) hook: Option<Hook>,
}

impl std::fmt::Debug for ModelDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelDisk").field("boot", &self.boot).finish_non_exhaustive()
    }
}

/// An open file of the model.
#[derive(Debug)]
pub(crate) struct ModelFile {
    state: Arc<Mutex<State>>,
    inode: Inode,
    lock: Mutex<Option<LockMode>>,
}

impl Drop for ModelFile {
    fn drop(&mut self) {
        let held = self.lock.get_mut().unwrap().take();
        release(&mut self.state.lock().unwrap(), self.inode, held);
    }
}

fn release(state: &mut State, inode: Inode, held: Option<LockMode>) {
    if let Some(entry) = state.locks.get_mut(&inode) {
        match held {
            Some(LockMode::Shared) => entry.0 -= 1,
            Some(LockMode::Exclusive) => entry.1 = false,
            None => {}
        }
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn system(error: rustix::io::Errno) -> io::Error {
    error.into()
}

impl ModelDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let mut base = Volume::default();
        base.folders.insert("/".to_owned(), NOW);
        Self::with(base, "boot-1".to_owned(), seed)
    }

    fn with(base: Volume, boot: String, seed: u64) -> Self {
        let next_inode = base.data.keys().max().map_or(1, |last| last + 1);
        let state = State {
            now: base.clone(),
            base,
            record: Vec::new(),
            locks: BTreeMap::new(),
            next_inode,
            random: seed,
            faults: Faults::default(),
            clock: 1_790_000_000,
            room: 1 << 40,
        };
        Self { state: Arc::new(Mutex::new(state)), boot, unnamed: true, disabled: None, hook: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes recorded so far.
    pub(crate) fn position(&self) -> usize {
        self.state().record.len()
    }

    /// Makes what is there the beginning: crashes are after it.
    pub(crate) fn begin_here(&self) {
        let mut state = self.state();
        state.base = state.now.clone();
        state.record.clear();
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// The disk as it is after a crash at `position`, with a machine that runs on or was started again.
    pub(crate) fn crash(&self, position: usize, crash: Crash, seed: u64) -> Self {
        let state = self.state();
        let record = &state.record[..position];
        let mut volume = state.base.clone();
        let keep = survivors(record, crash);
        for (change, kept) in record.iter().zip(&keep) {
            match (change, kept) {
                (_, Kept::Whole) => volume.apply(change),
                (Change::Write { inode, offset, bytes }, Kept::Zeros) => {
                    volume.apply(&Change::Write { inode: *inode, offset: *offset, bytes: vec![0; bytes.len()] });
                }
                _ => {}
            }
        }
        volume.prune();
        let boot = if crash == Crash::Kill { self.boot.clone() } else { format!("{}+", self.boot) };
        let mut disk = Self::with(volume, boot, seed);
        disk.unnamed = self.unnamed;
        disk.state().clock = state.clock;
        disk
    }

    /// Bytes of a file, as they are.
    pub(crate) fn peek(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.now.files.get(&key(path)).map(|inode| state.now.data[inode].0.clone())
    }

    /// Changes a byte of a file behind everybody's back.
    pub(crate) fn damage(&self, path: &Path) {
        let mut state = self.state();
        let inode = state.now.files[&key(path)];
        let byte = state.now.data[&inode].0[0] ^ 1;
        let change = Change::Write { inode, offset: 0, bytes: vec![byte] };
        state.now.apply(&change);
        state.record.push(change);
    }

    fn step(&self, name: &'static str) {
        if let Some(hook) = &self.hook {
            hook(name);
        }
    }

    fn fault(&self, errors: &[rustix::io::Errno]) -> Option<io::Error> {
        let mut state = self.state();
        if state.faults.one_in == 0 {
            return None;
        }
        let lot = split_mix(&mut state.random);
        if !lot.is_multiple_of(state.faults.one_in) {
            return None;
        }
        let index = usize::try_from((lot >> 32) % errors.len() as u64).unwrap();
        Some(system(errors[index]))
    }

    fn handle(&self, inode: Inode) -> ModelFile {
        ModelFile { state: Arc::clone(&self.state), inode, lock: Mutex::default() }
    }

    fn change(&self, change: Change) {
        let mut state = self.state();
        state.now.apply(&change);
        state.record.push(change);
    }

    fn new_inode(&self) -> Inode {
        let mut state = self.state();
        let inode = state.next_inode;
        state.next_inode += 1;
        state.now.data.insert(inode, new_file());
        inode
    }

    fn parent_exists(&self, path: &Path) -> bool {
        self.state().now.folders.contains_key(parent(&key(path)))
    }
}

/// What is left of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Whole,
    /// A file's new length, filled with zeros.
    Zeros,
    Lost,
}

fn survivors(record: &[Change], crash: Crash) -> Vec<Kept> {
    if crash == Crash::Kill {
        return vec![Kept::Whole; record.len()];
    }
    let mut lots = match crash {
        Crash::Lots(seed) => seed,
        _ => 0,
    };
    let mut all_synced = false;
    let mut lost_content = false;
    let mut files = BTreeSet::new();
    let mut folders: BTreeSet<Key> = BTreeSet::new();
    let mut kept = vec![Kept::Lost; record.len()];
    // Backwards: what comes later decides about what came before.
    for (index, change) in record.iter().enumerate().rev() {
        let (durable, content) = match change {
            Change::SyncAll => {
                all_synced = true;
                lost_content = false;
                continue;
            }
            Change::SyncFailed => {
                all_synced = false;
                files.clear();
                lost_content = true;
                continue;
            }
            Change::SyncFile { inode } => {
                files.insert(*inode);
                continue;
            }
            Change::SyncFolder { path } => {
                folders.insert(path.clone());
                continue;
            }
            Change::Write { inode, .. } => (files.contains(inode), true),
            Change::Mark { inode, .. } => (files.contains(inode), false),
            Change::Name { path, .. }
            | Change::Folder { path }
            | Change::MarkFolder { path, .. }
            | Change::Remove { path }
            | Change::Rename { to: path, .. } => (folders.contains(parent(path)), false),
        };
        kept[index] = if durable || all_synced {
            Kept::Whole
        } else if content && lost_content {
            Kept::Lost
        } else {
            match crash {
                Crash::Nothing | Crash::Kill => Kept::Lost,
                Crash::NamesOnly if content => Kept::Lost,
                Crash::NamesOnly => Kept::Whole,
                Crash::Lots(_) => match split_mix(&mut lots) % 4 {
                    0 | 1 => Kept::Whole,
                    2 if content => Kept::Zeros,
                    _ => Kept::Lost,
                },
            }
        };
    }
    kept
}

const NO_ROOM: &[rustix::io::Errno] =
    &[rustix::io::Errno::NOSPC, rustix::io::Errno::IO, rustix::io::Errno::MFILE, rustix::io::Errno::DQUOT];
const NO_READ: &[rustix::io::Errno] = &[rustix::io::Errno::IO, rustix::io::Errno::INTR];

impl Disk for ModelDisk {
    type File = ModelFile;

    fn create_unnamed(&self, folder: &Path) -> Result<Option<ModelFile>, FsError> {
        self.step("create");
        if let Some(error) = self.fault(NO_ROOM) {
            return Err(FsError::new(Operation::Create, folder, error));
        }
        Ok(self.unnamed.then(|| self.handle(self.new_inode())))
    }

    fn open(&self, path: &Path, access: Access) -> Result<Option<ModelFile>, FsError> {
        self.step("open");
        if let Some(error) = self.fault(&[rustix::io::Errno::MFILE]) {
            return Err(FsError::new(Operation::Open, path, error));
        }
        let found = self.state().now.files.get(&key(path)).copied();
        match (found, access) {
            (Some(_), Access::New) => Err(FsError::new(Operation::Create, path, system(rustix::io::Errno::EXIST))),
            (Some(inode), _) => Ok(Some(self.handle(inode))),
            (None, Access::Read) => Ok(None),
            (None, _) if !self.parent_exists(path) => {
                Err(FsError::new(Operation::Create, path, system(rustix::io::Errno::NOENT)))
            }
            (None, _) => {
                let inode = self.new_inode();
                self.change(Change::Name { path: key(path), inode });
                Ok(Some(self.handle(inode)))
            }
        }
    }

    fn read_at(&self, file: &ModelFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.step("read");
        if let Some(error) = self.fault(NO_READ) {
            return Err(error);
        }
        let short = self.fault(NO_READ).is_some();
        let state = self.state();
        let data = &state.now.data[&file.inode].0;
        let start = usize::try_from(offset).unwrap().min(data.len());
        let mut count = buffer.len().min(data.len() - start);
        if short && count > 1 {
            count /= 2;
        }
        buffer[..count].copy_from_slice(&data[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, file: &ModelFile, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.step("write");
        if let Some(error) = self.fault(&[rustix::io::Errno::NOSPC, rustix::io::Errno::IO, rustix::io::Errno::INTR]) {
            return Err(error);
        }
        let short = self.fault(NO_READ).is_some();
        let count = if short && bytes.len() > 1 { bytes.len() / 2 } else { bytes.len() };
        let offset = usize::try_from(offset).unwrap();
        self.change(Change::Write { inode: file.inode, offset, bytes: bytes[..count].to_vec() });
        Ok(count)
    }

    fn finish(&self, file: &ModelFile, mark: Mark) -> io::Result<()> {
        self.step("finish");
        if let Some(error) = self.fault(&[rustix::io::Errno::IO]) {
            return Err(error);
        }
        self.change(Change::Mark { inode: file.inode, mark });
        Ok(())
    }

    fn stat_file(&self, file: &ModelFile) -> io::Result<Stat> {
        self.step("stat");
        let state = self.state();
        let (data, mark) = &state.now.data[&file.inode];
        Ok(Stat {
            size: data.len() as u64,
            allocated: data.len() as u64,
            mark: *mark,
            changed: 0,
            used: 0,
            inode: file.inode,
        })
    }

    fn stat(&self, path: &Path) -> Result<Option<Stat>, FsError> {
        self.step("stat");
        let state = self.state();
        if let Some(inode) = state.now.files.get(&key(path)) {
            let (data, mark) = &state.now.data[inode];
            let size = data.len() as u64;
            return Ok(Some(Stat { size, allocated: size, mark: *mark, changed: 0, used: 0, inode: *inode }));
        }
        let folder = state.now.folders.get(&key(path));
        Ok(folder.map(|mark| Stat { size: 0, allocated: 0, mark: *mark, changed: 0, used: 0, inode: 0 }))
    }

    fn mark(&self, path: &Path, mark: Mark) -> Result<(), FsError> {
        self.step("mark");
        let inode = self.state().now.files.get(&key(path)).copied();
        self.change(match inode {
            Some(inode) => Change::Mark { inode, mark },
            None => Change::MarkFolder { path: key(path), mark },
        });
        Ok(())
    }

    fn touch(&self, _: &Path, _: i64) -> Result<(), FsError> {
        Ok(())
    }

    fn allocate(&self, _: &ModelFile, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, site: Site, file: &ModelFile, path: &Path) -> Result<bool, FsError> {
        self.step("link");
        if let Some(error) = self.fault(NO_ROOM) {
            return Err(FsError::new(Operation::Link, path, error));
        }
        if self.disabled == Some(site) {
            return Ok(true);
        }
        if !self.parent_exists(path) {
            return Err(FsError::new(Operation::Link, path, system(rustix::io::Errno::NOENT)));
        }
        if self.state().now.files.contains_key(&key(path)) {
            return Ok(false);
        }
        self.change(Change::Name { path: key(path), inode: file.inode });
        Ok(true)
    }

    fn rename(&self, site: Site, from: &Path, to: &Path) -> Result<(), FsError> {
        self.step("rename");
        if let Some(error) = self.fault(NO_ROOM) {
            return Err(FsError::new(Operation::Rename, from, error));
        }
        if self.disabled == Some(site) {
            return Ok(());
        }
        let (source, target) = (key(from), key(to));
        let (inode, is_folder, taken) = {
            let state = self.state();
            let taken = state.now.folders.contains_key(&target) && state.now.has_children(&target);
            (state.now.files.get(&source).copied(), state.now.folders.contains_key(&source), taken)
        };
        if inode.is_none() && !is_folder {
            return Err(FsError::new(Operation::Rename, from, system(rustix::io::Errno::NOENT)));
        }
        if is_folder && taken {
            return Err(FsError::new(Operation::Rename, to, system(rustix::io::Errno::NOTEMPTY)));
        }
        self.change(Change::Rename { from: source, to: target, inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<bool, FsError> {
        self.step("remove");
        if !self.state().now.files.contains_key(&key(path)) {
            return Ok(false);
        }
        self.change(Change::Remove { path: key(path) });
        Ok(true)
    }

    fn remove_tree(&self, path: &Path) -> Result<(), FsError> {
        self.step("remove tree");
        let top = key(path);
        let mut doomed: Vec<Key> = {
            let state = self.state();
            let own = state.now.folders.get_key_value(&top).map(|(path, _)| path);
            let files = below(&state.now.files, &top).map(|(path, _)| path);
            files.chain(below(&state.now.folders, &top).map(|(path, _)| path)).chain(own).cloned().collect()
        };
        // Content before folders.
        doomed.sort_by_key(|at| std::cmp::Reverse(at.matches('/').count()));
        for path in doomed {
            self.change(Change::Remove { path });
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> Result<Vec<DirEntry>, FsError> {
        self.step("list");
        if let Some(error) = self.fault(&[rustix::io::Errno::MFILE, rustix::io::Errno::IO]) {
            return Err(FsError::new(Operation::List, folder, error));
        }
        let state = self.state();
        let at = key(folder);
        if !state.now.folders.contains_key(&at) {
            return Err(FsError::new(Operation::List, folder, system(rustix::io::Errno::NOENT)));
        }
        let child = |path: &Key| (parent(path) == at).then(|| OsString::from(&path[path.rfind('/').unwrap() + 1..]));
        let files = below(&state.now.files, &at).filter_map(|(path, _)| child(path));
        let folders = below(&state.now.folders, &at).filter_map(|(path, _)| child(path));
        let mut entries: Vec<DirEntry> = files
            .map(|name| DirEntry { name, is_dir: false })
            .chain(folders.map(|name| DirEntry { name, is_dir: true }))
            .collect();
        entries.sort_unstable();
        Ok(entries)
    }

    fn create_folder(&self, path: &Path) -> Result<bool, FsError> {
        self.step("create folder");
        if let Some(error) = self.fault(NO_ROOM) {
            return Err(FsError::new(Operation::CreateDirectory, path, error));
        }
        if self.state().now.folders.contains_key(&key(path)) {
            return Ok(false);
        }
        if !self.parent_exists(path) {
            return Err(FsError::new(Operation::CreateDirectory, path, system(rustix::io::Errno::NOENT)));
        }
        self.change(Change::Folder { path: key(path) });
        Ok(true)
    }

    fn sync_file(&self, site: Site, file: &ModelFile) -> io::Result<()> {
        self.step("sync file");
        if let Some(error) = self.fault(&[rustix::io::Errno::IO]) {
            self.change(Change::SyncFailed);
            return Err(error);
        }
        if self.disabled != Some(site) {
            self.change(Change::SyncFile { inode: file.inode });
        }
        Ok(())
    }

    fn sync_folder(&self, site: Site, path: &Path) -> Result<(), FsError> {
        self.step("sync folder");
        if self.disabled != Some(site) {
            self.change(Change::SyncFolder { path: key(path) });
        }
        Ok(())
    }

    fn sync_all(&self, site: Site, _: &ModelFile) -> io::Result<()> {
        self.step("sync all");
        let fail = std::mem::take(&mut self.state().faults.fail_next_sync);
        if fail || self.fault(&[rustix::io::Errno::IO]).is_some() {
            self.change(Change::SyncFailed);
            return Err(system(rustix::io::Errno::IO));
        }
        if self.disabled != Some(site) {
            self.change(Change::SyncAll);
        }
        Ok(())
    }

    fn open_folder(&self, path: &Path) -> Result<ModelFile, FsError> {
        self.step("open");
        if self.state().now.folders.contains_key(&key(path)) {
            Ok(self.handle(0))
        } else {
            Err(FsError::new(Operation::Open, path, system(rustix::io::Errno::NOENT)))
        }
    }

    fn try_lock(&self, file: &ModelFile, mode: LockMode) -> io::Result<bool> {
        self.step("lock");
        let mut held = file.lock.lock().unwrap();
        let mut state = self.state();
        release(&mut state, file.inode, held.take());
        let entry = state.locks.entry(file.inode).or_default();
        let free = match mode {
            LockMode::Shared => !entry.1,
            LockMode::Exclusive => !entry.1 && entry.0 == 0,
        };
        if free {
            match mode {
                LockMode::Shared => entry.0 += 1,
                LockMode::Exclusive => entry.1 = true,
            }
            *held = Some(mode);
        }
        Ok(free)
    }

    fn room(&self, _: &Path) -> Result<Room, FsError> {
        let room = self.state().room;
        Ok(Room { bytes: room, total_bytes: 1 << 41, inodes: 1 << 30, total_inodes: 1 << 31 })
    }

    fn boot(&self) -> Option<String> {
        Some(self.boot.clone())
    }

    fn now(&self) -> i64 {
        self.state().clock
    }

    fn random(&self) -> u64 {
        split_mix(&mut self.state().random)
    }

    fn pause(&self) {
        self.step("pause");
        if self.hook.is_none() {
            std::thread::yield_now();
        }
    }
}
