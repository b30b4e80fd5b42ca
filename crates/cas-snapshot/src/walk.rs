//! Looks at every folder and file of the workspace, several folders at once, and takes over what the cache knows.
//!
//! A folder whose own stamp and rules are those of its record is not listed again, and a file whose stamp is that of its
//! record keeps its digest; whatever differs is looked at anew. Paths are opened from the root's descriptor and never
//! through a symbolic link, so a folder that is replaced by a link meanwhile leads nowhere else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cas_digest::{Digest, DigestFunction};
use cas_fs::{FsError, Operation};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::SnapshotError;
use crate::cache::{Cache, Content, Folder, Held, Kind, Name};
use crate::git::Tracked;
use crate::notes::has_twins;
use crate::record::{Class, Entry, Record};
use crate::rules::{GITIGNORE, Rules};
use crate::slot::Known;
use crate::stamp::{Begun, Stamp, Volumes};
use crate::watch::Changes;

/// Names that never belong to a package, wherever they are.
pub(crate) const NEVER: [&[u8]; 4] = [b".git", b"cas-out", b"cas.toml", b"cas.lock"];
/// How often a folder that changes meanwhile is listed again. After that its list is used, but not recorded.
const ATTEMPTS: usize = 3;
/// Longest `.gitignore` that is read.
pub(crate) const MAX_GITIGNORE_BYTES: u64 = 4 << 20;
/// Folders with more names are looked at by several threads.
const NAMES_A_TASK: usize = 512;

/// A folder that was looked at.
#[derive(Debug)]
pub(crate) struct Visited {
    /// From the root on; empty for the root.
    pub(crate) path: Box<[u8]>,
    pub(crate) folder: Known,
    /// Whether its record has to be written.
    pub(crate) is_changed: bool,
    /// Whether it was looked at, or its record taken as it is because a watcher saw no change.
    pub(crate) is_looked_at: bool,
}

/// What was found of one folder.
struct Found {
    folder: Known,
    level: Arc<Level>,
    is_changed: bool,
    /// Whether it was looked at; not when a watcher spared that.
    is_looked_at: bool,
    before: Before,
}

/// What a folder's record had.
enum Before {
    /// The same names.
    Same,
    /// Maybe others, if there was a record.
    Other(Option<Box<Folder>>),
}

impl Before {
    /// Whether a name that is a folder now was one.
    fn had(&self, name: &[u8]) -> bool {
        match self {
            Self::Same => true,
            Self::Other(record) => {
                record.as_ref().is_some_and(|record| find(&record.names, name) == Some(&Kind::Directory))
            }
        }
    }
}

/// The workspace's root, open.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    descriptor: OwnedFd,
}

impl Root {
    pub(crate) fn open(path: &Path) -> Result<Self, FsError> {
        Ok(Self { path: path.to_owned(), descriptor: cas_fs::open(path)?.into() })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub(crate) fn at(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// Opens a folder below the root without following a link.
    pub(crate) fn folder(&self, path: &[u8]) -> Result<OwnedFd, FsError> {
        let path_or_dot = if path.is_empty() { b"." } else { path };
        open_below(self.descriptor.as_fd(), path_or_dot, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|error| FsError::new(Operation::Open, &self.at(path), error.into()))
    }
}

/// Opens what is at `path` below a folder, through no link and out of no way; it is not waited for at a fifo.
pub(crate) fn open_below(folder: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve) {
        // Filters of container runtimes from before 2021 know no openat2. Then the last component alone is checked.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(folder, path, flags, Mode::empty()),
        // The kernel could not tell because something was renamed meanwhile.
        Err(Errno::AGAIN) => rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve),
        other => other,
    }
}

/// Path of a name in a folder.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// The order of a tree's walk: `a/b` before `a.b`.
pub(crate) fn walk_order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    // No name holds NUL, so the separator comes before everything.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// The rules of a folder: their digest always, the rules themselves when a list has to be made.
#[derive(Debug)]
struct Level {
    above: Option<Arc<Level>>,
    path: Box<[u8]>,
    digest: [u8; 32],
    /// Digest of the folder's own `.gitignore`.
    own: Option<Content>,
    /// Whether only what git tracks belongs to the workspace: a `.gitignore` names the folder or one above it.
    is_ignored: bool,
    rules: OnceLock<Arc<Rules>>,
}

impl Level {
    /// That of the workspace's root and of submodules, which know nothing of rules above them.
    fn top() -> Arc<Self> {
        Arc::new(Self {
            above: None,
            path: Box::default(),
            digest: [0; 32],
            own: None,
            is_ignored: false,
            rules: OnceLock::from(Arc::new(Rules::default())),
        })
    }

    /// That of a folder which is left out, but for what is tracked in it.
    fn ignored(above: &Arc<Self>) -> Arc<Self> {
        if above.is_ignored {
            return Arc::clone(above);
        }
        Arc::new(Self {
            above: None,
            path: Box::default(),
            digest: content_of(DigestFunction::Blake3, b"everything"),
            own: None,
            is_ignored: true,
            rules: OnceLock::from(Arc::new(Rules::everything())),
        })
    }
}

pub(crate) struct Walker<'a> {
    pub(crate) root: &'a Root,
    pub(crate) volumes: &'a Volumes,
    pub(crate) cache: &'a Cache,
    pub(crate) function: DigestFunction,
    tracked: &'a Tracked,
    /// What a watcher saw of the folders since the cache was written.
    pub(crate) changes: Option<&'a Changes>,
    visited: Mutex<Vec<Visited>>,
    failure: Mutex<Option<SnapshotError>>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(
        root: &'a Root,
        volumes: &'a Volumes,
        cache: &'a Cache,
        function: DigestFunction,
        tracked: &'a Tracked,
    ) -> Self {
        Self {
            root,
            volumes,
            cache,
            function,
            tracked,
            changes: None,
            visited: Mutex::new(Vec::new()),
            failure: Mutex::new(None),
        }
    }

    /// Spares what a watcher saw no change of.
    pub(crate) fn sparing(self, changes: Option<&'a Changes>) -> Self {
        Self { changes, ..self }
    }

    /// Every folder, in the order of a tree's walk.
    pub(crate) fn walk(self) -> Result<Vec<Visited>, SnapshotError> {
        let left = self.visit_spared(Level::top());
        if !left.is_empty() {
            rayon::scope(|scope| {
                for (path, above, is_known) in left {
                    let walker = &self;
                    scope.spawn(move |scope| walker.visit(scope, path, &above, is_known));
                }
            });
        }
        if let Some(failure) = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let mut visited = self.visited.into_inner().unwrap_or_else(PoisonError::into_inner);
        visited.par_sort_unstable_by(|a, b| walk_order(&a.path, &b.path));
        Ok(visited)
    }

    /// Takes what a watcher spares, from the root down; returns where it has to be looked.
    ///
    /// On one thread: there is no system call to wait for, and most of the time would go into handing out the work and
    /// into memory for each thread.
    fn visit_spared(&self, top: Arc<Level>) -> Vec<(Box<[u8]>, Arc<Level>, bool)> {
        let Some(changes) = self.changes else { return vec![(Box::default(), top, false)] };
        let mut left = Vec::new();
        let mut visited = lock(&self.visited);
        let mut open: Vec<(Box<[u8]>, Arc<Level>)> = vec![(Box::default(), top)];
        while let Some((path, above)) = open.pop() {
            let spared = if changes.are_below(&path) { None } else { self.spared(&path, &above) };
            let Some(Found { folder, level, .. }) = spared else {
                left.push((path, above, true));
                continue;
            };
            let first = open.len();
            for (_, Entry { name, is_ignored, .. }) in folder.directories() {
                let child = join(&path, name).into_boxed_slice();
                let level = self.level_below(&child, is_ignored, &level);
                open.push((child, level));
            }
            // The first one is taken first, so that they are in order.
            open[first..].reverse();
            visited.push(Visited { path, folder, is_changed: false, is_looked_at: false });
        }
        left
    }

    /// `is_known` tells that a watcher would have told if this was not the folder of its record.
    fn visit<'s>(&'s self, scope: &rayon::Scope<'s>, path: Box<[u8]>, above: &Arc<Level>, is_known: bool) {
        if lock(&self.failure).is_some() {
            return;
        }
        let is_known = is_known && self.changes.is_some_and(|changes| !changes.are_below(&path));
        let spared = if is_known { self.spared(&path, above) } else { None };
        let found = match spared {
            Some(found) => Ok(Some(found)),
            None => self.folder(&path, above),
        };
        match found {
            Ok(Some(Found { folder, level, is_changed, is_looked_at, before })) => {
                for (_, Entry { name, is_ignored, .. }) in folder.directories() {
                    // The record of a folder that its parent did not have last time is older than that.
                    let is_known = is_known && before.had(name);
                    let child = join(&path, name).into_boxed_slice();
                    let level = self.level_below(&child, is_ignored, &level);
                    scope.spawn(move |scope| self.visit(scope, child, &level, is_known));
                }
                lock(&self.visited).push(Visited { path, folder, is_changed, is_looked_at });
            }
            // It was removed or replaced since its parent was listed.
            Ok(None) => {}
            Err(error) => {
                lock(&self.failure).get_or_insert(error);
            }
        }
    }

    /// A folder as its record has it, if a watcher saw no change of it and would have.
    fn spared(&self, path: &[u8], above: &Arc<Level>) -> Option<Found> {
        let changes = self.changes?;
        if !changes.spare(path) {
            return None;
        }
        // Without a trusted stamp its names may be others than those that were recorded.
        let record = self.cache.record(path).filter(|record| record.is_closed() && record.stamp().is_some())?;
        let level = match record.find(GITIGNORE) {
            None => Arc::clone(above),
            // As in git, which does not look for rules in what is left out.
            Some(_) if above.is_ignored => Arc::clone(above),
            Some(own) => match own.class {
                Class::File => Self::level_of(path, above, own.content()?),
                Class::Ignored { is_dir: false } => Self::level_of(path, above, record.own_rules()?.content?),
                _ => return None,
            },
        };
        // What git tracks of ignored names changes without the folder.
        let is_same = record.rules() == level.digest && self.is_decided(path, &record);
        is_same.then_some(Found {
            folder: Known::Record(record),
            level,
            is_changed: false,
            is_looked_at: false,
            before: Before::Same,
        })
    }

    /// Looks at one folder.
    fn folder(&self, path: &[u8], above: &Arc<Level>) -> Result<Option<Found>, SnapshotError> {
        if path.len() > MAX_PATH_BYTES {
            let source = cas_tree::RelPathError::TooLong;
            return Err(SnapshotError::Path { path: OsStr::from_bytes(path).into(), source });
        }
        let at = || self.root.at(path);
        let descriptor = match self.root.folder(path) {
            Ok(descriptor) => descriptor,
            Err(error)
                if !path.is_empty()
                    && [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
                        .iter()
                        .any(|gone| error.source.raw_os_error() == Some(gone.raw_os_error())) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let descriptor = descriptor.as_fd();
        let look = || {
            rustix::fs::fstat(descriptor)
                .map(|stat| Stamp::of(&stat))
                .map_err(|error| FsError::new(Operation::Stat, &at(), error.into()))
        };
        let mut before = look()?;
        let record = self.cache.record(path).filter(|_| self.volumes.is_believed(before.device, descriptor));
        let is_same = record.as_ref().is_some_and(|record| record.stamp() == Some(before));
        let (level, own) = self.level(path, descriptor, record.as_ref(), is_same, above)?;
        let is_same = is_same && record.as_ref().is_some_and(|record| record.rules() == level.digest);
        let record = match record {
            Some(record) if is_same => match self.is_as_recorded(descriptor, path, &record, own, before.device)? {
                true => {
                    let (folder, before) = (Known::Record(record), Before::Same);
                    return Ok(Some(Found { folder, level, is_changed: false, is_looked_at: true, before }));
                }
                false => Some(record.folder()),
            },
            record => record.map(|record| record.folder()),
        };
        let is_closed = AtomicBool::new(true);
        let found = |names: Vec<Name>, stamp: Option<Stamp>, has_twins: bool, record: Option<Folder>| {
            let is_closed = is_closed.load(Ordering::Relaxed);
            let own_rules = own.filter(|_| find(&names, GITIGNORE) == Some(&Kind::Ignored { is_dir: false }));
            let folder = Folder { stamp, rules: level.digest, has_twins, is_closed, own_rules, names };
            let is_changed = record.as_ref() != Some(&folder);
            let (folder, before) = (Known::Folder(Box::new(folder)), Before::Other(record.map(Box::new)));
            Found { folder, level: Arc::clone(&level), is_changed, is_looked_at: true, before }
        };
        if let Some(record) = record.as_ref().filter(|_| is_same)
            && let Some(names) =
                self.look_at(descriptor, path, self.decide(path, record.names.clone()), before.device, &is_closed)?
        {
            let (stamp, has_twins) = (record.stamp, record.has_twins);
            return Ok(Some(found(names, stamp, has_twins, Some(record.clone()))));
        }
        let rules = self.rules(&level)?;
        let mut attempt = 1;
        loop {
            let begun = Begun::now();
            let names = self.list(descriptor, path, &rules, record.as_ref())?;
            let names = self.look_at(descriptor, path, names, before.device, &is_closed)?;
            let after = look()?;
            let is_still = before == after;
            match names {
                Some(names) if is_still || attempt == ATTEMPTS => {
                    let is_trusted = is_still && self.volumes.is_trusted(&after, begun, descriptor);
                    let has_twins = has_twins(&names);
                    return Ok(Some(found(names, is_trusted.then_some(after), has_twins, record)));
                }
                None if attempt == ATTEMPTS => {
                    return Err(SnapshotError::Unstable { path: path.into() });
                }
                _ => {}
            }
            before = after;
            attempt += 1;
        }
    }

    /// The rules of a folder, by digest; and its own `.gitignore` if it may be recorded.
    fn level(
        &self,
        path: &[u8],
        descriptor: BorrowedFd<'_>,
        record: Option<&Record>,
        is_same: bool,
        above: &Arc<Level>,
    ) -> Result<(Arc<Level>, Option<Held>), SnapshotError> {
        // As in git, which does not look for rules in what is left out.
        if above.is_ignored {
            return Ok((Arc::clone(above), None));
        }
        let recorded = record.and_then(|record| record.find(GITIGNORE));
        if is_same && recorded.is_none() {
            return Ok((Arc::clone(above), None));
        }
        let look = || match rustix::fs::statat(descriptor, GITIGNORE, AtFlags::SYMLINK_NOFOLLOW) {
            // As in git, a link or folder of this name holds no rules.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(Some(stat)),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(FsError::new(Operation::Stat, &self.root.at(&join(path, GITIGNORE)), error.into())),
        };
        let begun = Begun::now();
        let Some(stat) = look()? else { return Ok((Arc::clone(above), None)) };
        let stamp = Stamp::of(&stat);
        let known = recorded.and_then(|recorded| match recorded.class {
            Class::File if recorded.stamp() == Some(stamp) => recorded.content(),
            Class::Ignored { is_dir: false } => {
                record.and_then(Record::own_rules).filter(|own| own.stamp == stamp)?.content
            }
            _ => None,
        });
        let (content, is_still) = match known {
            Some(content) => (content, true),
            None => {
                let content = content_of(self.function, &self.gitignore(path)?);
                (content, look()?.is_some_and(|stat| Stamp::of(&stat) == stamp))
            }
        };
        // A watcher hears nothing of what is written through another name.
        let is_trusted = is_still && stat.st_nlink == 1 && self.volumes.is_trusted(&stamp, begun, descriptor);
        let own = Held { stamp, content: Some(content), is_trusted, is_pointer: false };
        Ok((Self::level_of(path, above, content), Some(own).filter(|_| is_trusted)))
    }

    /// The rules of a folder whose `.gitignore` has this digest.
    fn level_of(path: &[u8], above: &Arc<Level>, own: Content) -> Arc<Level> {
        let text = [&above.digest, &own, path].concat();
        let digest = content_of(DigestFunction::Blake3, &text);
        Arc::new(Level {
            above: Some(Arc::clone(above)),
            path: path.into(),
            digest,
            own: Some(own),
            is_ignored: false,
            rules: OnceLock::new(),
        })
    }

    fn gitignore(&self, folder: &[u8]) -> Result<Vec<u8>, SnapshotError> {
        let folder_descriptor = self.root.folder(folder)?;
        let at = || self.root.at(&join(folder, GITIGNORE));
        let file = open_below(folder_descriptor.as_fd(), GITIGNORE, OFlags::RDONLY)
            .map_err(|error| FsError::new(Operation::Open, &at(), error.into()))?;
        let mut text = Vec::new();
        File::from(file)
            .take(MAX_GITIGNORE_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(|error| FsError::new(Operation::Read, &at(), error))?;
        if text.len() as u64 > MAX_GITIGNORE_BYTES {
            let error = io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_GITIGNORE_BYTES} bytes"));
            return Err(FsError::new(Operation::Read, &at(), error).into());
        }
        Ok(text)
    }

    fn rules(&self, level: &Level) -> Result<Arc<Rules>, SnapshotError> {
        if let Some(rules) = level.rules.get() {
            return Ok(Arc::clone(rules));
        }
        let above = level.above.as_ref().expect("the top level has its rules");
        let above = self.rules(above)?;
        let text = self.gitignore(&level.path)?;
        if level.own != Some(content_of(self.function, &text)) {
            return Err(SnapshotError::Unstable { path: join(&level.path, GITIGNORE) });
        }
        let rules = Rules::below(&above, &level.path, &text)?;
        Ok(Arc::clone(level.rules.get_or_init(|| rules)))
    }

    /// The names in a folder, sorted, with what the record knows of them.
    fn list(
        &self,
        descriptor: BorrowedFd<'_>,
        path: &[u8],
        rules: &Rules,
        record: Option<&Folder>,
    ) -> Result<Vec<Name>, SnapshotError> {
        let failed = |error: Errno| FsError::new(Operation::List, &self.root.at(path), error.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(descriptor).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || NEVER.contains(&name) {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(failed(error).into()),
                },
                known => known,
            };
            let is_dir = file_type == FileType::Directory;
            let at = join(path, name);
            let is_ignored = rules.ignores(&at, is_dir);
            let is_there = !is_ignored || self.tracked.has(&at, is_dir);
            let kind = if !is_there {
                Kind::Ignored { is_dir }
            } else {
                match file_type {
                    FileType::Directory => Kind::Directory,
                    FileType::RegularFile => Kind::File(NOT_SEEN),
                    FileType::Symlink => Kind::Symlink(NOT_SEEN),
                    _ => Kind::Special,
                }
            };
            names.push(Name { name: name.into(), kind, is_ignored: is_ignored && is_there });
        }
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for name in &mut names {
            // Stamps are compared when the files are looked at.
            if let Some(known) = record.and_then(|record| find(&record.names, &name.name)) {
                match (&mut name.kind, known) {
                    (kind @ Kind::File(_), Kind::File(_)) | (kind @ Kind::Symlink(_), Kind::Symlink(_)) => {
                        *kind = *known;
                    }
                    _ => {}
                }
            }
        }
        Ok(names)
    }

    /// Asks again what git tracks of recorded names that a `.gitignore` names: that changes without the folder.
    fn decide(&self, path: &[u8], mut names: Vec<Name>) -> Vec<Name> {
        for Name { name, kind, is_ignored } in &mut names {
            let is_dir = match &*kind {
                Kind::Ignored { is_dir } => *is_dir,
                kind if *is_ignored => kind == &Kind::Directory,
                _ => continue,
            };
            let is_tracked = self.tracked.has(&join(path, name), is_dir);
            match kind {
                Kind::Ignored { .. } if !is_tracked => {}
                // If it is a link, looking at it will tell, and the folder is listed anew.
                Kind::Ignored { .. } => *kind = if is_dir { Kind::Directory } else { Kind::File(NOT_SEEN) },
                _ if is_tracked => {}
                _ => *kind = Kind::Ignored { is_dir },
            }
            *is_ignored = is_tracked;
        }
        names
    }

    /// Whether git tracks of the names that a `.gitignore` names what it tracked when they were recorded.
    fn is_decided(&self, path: &[u8], record: &Record) -> bool {
        !record.has_ignored()
            || record.entries().all(|Entry { name, class, is_ignored, .. }| {
                let is_dir = match class {
                    Class::Ignored { is_dir } => is_dir,
                    class if is_ignored => class == Class::Directory,
                    _ => return true,
                };
                self.tracked.has(&join(path, name), is_dir) == is_ignored
            })
    }

    /// Whether a folder that has its recorded names is in all else what its record says. `device` is that of the folder,
    /// and of a believed file system.
    fn is_as_recorded(
        &self,
        descriptor: BorrowedFd<'_>,
        path: &[u8],
        record: &Record,
        own: Option<Held>,
        device: u64,
    ) -> Result<bool, SnapshotError> {
        let own_rules =
            own.filter(|_| record.find(GITIGNORE).is_some_and(|own| own.class == Class::Ignored { is_dir: false }));
        if record.own_rules() != own_rules || !self.is_decided(path, record) {
            return Ok(false);
        }
        let is_closed = AtomicBool::new(true);
        let one = |entry: &Entry<'_>| -> bool {
            // What cannot be looked at is not as it was; looking again says why.
            let Ok(stat) = rustix::fs::statat(descriptor, entry.name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
            if stat.st_nlink > 1 {
                is_closed.store(false, Ordering::Relaxed);
            }
            // Its stamp has its type, too. A file of another file system is not taken for one that is believed.
            stat.st_dev == device && entry.stamp() == Some(Stamp::of(&stat))
        };
        let held = || record.entries().filter(|entry| entry.class.is_held());
        let is_same = if record.held_count() > 2 * NAMES_A_TASK {
            let held: Vec<Entry<'_>> = held().collect();
            held.par_iter().with_min_len(NAMES_A_TASK).all(one)
        } else {
            held().all(|entry| one(&entry))
        };
        Ok(is_same && is_closed.into_inner() == record.is_closed())
    }

    /// The rules above what is in a folder: a submodule knows nothing of those around it.
    fn level_below(&self, child: &[u8], is_ignored: bool, level: &Arc<Level>) -> Arc<Level> {
        match is_ignored {
            _ if self.tracked.is_submodule(child) => Level::top(),
            true => Level::ignored(level),
            false => Arc::clone(level),
        }
    }

    /// Looks at each file. What looks otherwise than its record loses its digest; `None` when a name is of another kind.
    ///
    /// `is_closed` becomes false when a file has other names, or is not on `device`, that of the folder.
    fn look_at(
        &self,
        descriptor: BorrowedFd<'_>,
        path: &[u8],
        mut names: Vec<Name>,
        device: u64,
        is_closed: &AtomicBool,
    ) -> Result<Option<Vec<Name>>, SnapshotError> {
        let one = |name: &mut Name| -> Result<bool, SnapshotError> {
            let (held, wanted) = match &mut name.kind {
                Kind::File(held) => (held, FileType::RegularFile),
                Kind::Symlink(held) => (held, FileType::Symlink),
                _ => return Ok(true),
            };
            let stat = match rustix::fs::statat(descriptor, &*name.name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(false),
                Err(error) => {
                    let at = self.root.at(&join(path, &name.name));
                    return Err(FsError::new(Operation::Stat, &at, error.into()).into());
                }
            };
            if FileType::from_raw_mode(stat.st_mode) != wanted {
                return Ok(false);
            }
            let now = Stamp::of(&stat);
            if stat.st_nlink > 1 || now.device != device {
                is_closed.store(false, Ordering::Relaxed);
            }
            // A file can be of another file system than its folder: something may be mounted on it.
            if held.stamp != now || !self.volumes.is_believed(now.device, descriptor) {
                *held = Held { stamp: now, ..NOT_SEEN };
            }
            Ok(true)
        };
        let is_known = if names.len() > 2 * NAMES_A_TASK {
            names
                .par_chunks_mut(NAMES_A_TASK)
                .map(|names| names.iter_mut().try_fold(true, |known, name| Ok(known & one(name)?)))
                .try_reduce(|| true, |a, b| Ok::<_, SnapshotError>(a & b))?
        } else {
            names.iter_mut().try_fold(true, |known, name| Ok::<_, SnapshotError>(known & one(name)?))?
        };
        Ok(is_known.then_some(names))
    }
}

/// Longest path that one system call takes, without its NUL.
const MAX_PATH_BYTES: usize = 4095;

/// What was not looked at yet.
const NOT_SEEN: Held = Held {
    stamp: Stamp { device: 0, inode: 0, mode: 0, size: 0, modified: (0, 0), changed: (0, 0) },
    content: None,
    is_trusted: false,
    is_pointer: false,
};

pub(crate) fn content_of(function: DigestFunction, bytes: &[u8]) -> Content {
    to_content(&Digest::of(function, bytes))
}

pub(crate) fn to_content(digest: &Digest) -> Content {
    digest.value().try_into().expect("the functions of workspaces give 32 bytes")
}

pub(crate) fn find<'n>(names: &'n [Name], name: &[u8]) -> Option<&'n Kind> {
    names.binary_search_by(|known| (*known.name).cmp(name)).ok().map(|index| &names[index].kind)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use cas_tree::RelPath;

    use super::*;

    #[test]
    fn the_order_is_that_of_paths() {
        let texts = ["", "a", "a/b", "a/b/c", "a.b", "a-x", "ab", "b\n/x", "b"];
        let mut by_order = texts;
        by_order.sort_by(|a, b| walk_order(a.as_bytes(), b.as_bytes()));
        let mut by_path: Vec<RelPath> = texts[1..].iter().map(|text| RelPath::new(text).expect("a path")).collect();
        by_path.sort();
        assert_eq!(by_order[1..].to_vec(), by_path.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
}
