//! Waits for changes of a workspace's files, for as long as a command looks on.
//!
//! The kernel's events say when to look and, together with the looks, at what: a path counts when it looks otherwise than
//! at the last look, or when it belongs to the workspace and an event names it, for two writes within one tick of the clock
//! look alike. So events that are lost, folders that come and go, and rules that change need nothing of their own: they
//! show in the next look. A folder is watched before it is looked at, which is why nothing is missed in between.
//!
//! Not here: the watcher in the background, which spares builds looks (`watch`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas_digest::DigestFunction;
use cas_fs::{FsError, Operation};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::SnapshotError;
use crate::cache::Kind;
use crate::snapshot::{Options, Snapshot};
use crate::stamp::{Stamp, Trust};
use crate::walk::{Root, join};
use crate::watch::FOLDER_EVENTS;

/// How often it is looked where no event comes.
const POLL: Duration = Duration::from_secs(1);
/// How often folders may appear while the others are looked at; of more, those that appear last are watched late, and looked
/// at again with the next change.
const ATTEMPTS: usize = 5;
/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 64 << 10;
/// Files that describe a build and belong to no package.
const MANIFEST: &[u8] = b"cas.toml";
const LOCK: &[u8] = b"cas.lock";
/// Sees changes of a workspace's files, of `cas.toml` files and of `cas.lock`.
#[derive(Debug)]
pub struct Lookout {
    root: PathBuf,
    /// Paths that whoever looks on writes, from the root on.
    own: Vec<PathBuf>,
    /// `None` when the system gives no events.
    inotify: Option<OwnedFd>,
    /// Whether changes can come without events.
    is_remote: bool,
    watches: HashMap<i32, Box<[u8]>>,
    seen: BTreeMap<Box<[u8]>, Stamp>,
    /// What events named since the last look.
    named: BTreeSet<Box<[u8]>>,
}

impl Lookout {
    /// Begins to look at the workspace at `root`. What is at or below `own`, and temporary files beside them, is no change.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Fs`] when the root cannot be opened.
    pub fn new(root: &Path, own: &[PathBuf]) -> Result<Self, SnapshotError> {
        let opened = Root::open(root)?;
        let volumes = crate::stamp::Volumes::new(Trust::Local);
        Ok(Self {
            root: root.to_owned(),
            own: own.iter().filter_map(|path| Some(path.strip_prefix(root).ok()?.to_owned())).collect(),
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok(),
            is_remote: !volumes.is_root_believed(&opened),
            watches: HashMap::new(),
            seen: BTreeMap::new(),
            named: BTreeSet::new(),
        })
    }

    /// A descriptor that can be read when something may have changed.
    #[must_use]
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// How often to look without an event: other machines' changes cause none, and a system can refuse to give any.
    #[must_use]
    pub fn poll(&self) -> Option<Duration> {
        (self.is_remote || self.inotify.is_none()).then_some(POLL)
    }

    /// Whether the system refuses to give events, mostly because this user watches too many folders.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.inotify.is_none()
    }

    /// Reads events without looking.
    pub fn drain(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                // Nothing more is there; whatever is wrong beside that shows when it is looked.
                Err(_) => return,
            };
            // An event of the folder itself, or of lost events, names nothing: the look will tell.
            if let (Some(folder), Some(name)) = (self.watches.get(&event.wd()), event.file_name())
                && !event.events().contains(ReadFlags::ISDIR)
            {
                self.named.insert(join(folder, name.to_bytes()).into());
            }
        }
    }

    /// Looks, and returns the paths that changed since the last look, from the root on and in order. All of them are new at
    /// the first look.
    ///
    /// # Errors
    ///
    /// As for [`Snapshot::take`]. Then the next look compares with the last one that succeeded.
    pub fn changes(&mut self) -> Result<Vec<PathBuf>, SnapshotError> {
        self.drain();
        let now = self.look()?;
        let mut changed: BTreeSet<Box<[u8]>> = BTreeSet::new();
        for (path, stamp) in &now {
            if self.seen.get(path) != Some(stamp) {
                changed.insert(path.clone());
            }
        }
        changed.extend(self.seen.keys().filter(|path| !now.contains_key(*path)).cloned());
        let named = std::mem::take(&mut self.named);
        changed.extend(named.into_iter().filter(|path| now.contains_key(path)));
        self.seen = now;
        let paths = changed.into_iter().map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(&path)));
        Ok(paths.filter(|path| !self.is_own(path)).collect())
    }

    /// All files with their stamps, each in a folder that was watched before.
    fn look(&mut self) -> Result<BTreeMap<Box<[u8]>, Stamp>, SnapshotError> {
        let options = Options { function: DigestFunction::Blake3, trust: Trust::Local, caches: None, watchers: None };
        for attempt in 1.. {
            let snapshot = Snapshot::take(&self.root, &options)?;
            let has_new = self.watch(&snapshot);
            if !has_new || attempt == ATTEMPTS {
                return self.stamps(&snapshot);
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Watches the folders of a snapshot, and no others; returns whether there are new ones.
    ///
    /// A folder that is watched already keeps its number, wherever it was moved; one that was made anew has another.
    fn watch(&mut self, snapshot: &Snapshot) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut watches = HashMap::new();
        for slot in &snapshot.folders {
            match inotify::add_watch(
                inotify,
                snapshot.root.at(&slot.path),
                FOLDER_EVENTS.union(WatchFlags::DONT_FOLLOW),
            ) {
                Ok(number) => {
                    watches.insert(number, slot.path.clone());
                }
                // It is gone again: the folder that holds it is watched.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(_) => {
                    self.inotify = None;
                    self.watches.clear();
                    return false;
                }
            }
        }
        let has_new = watches.iter().any(|(number, path)| self.watches.get(number) != Some(path));
        for number in self.watches.keys().filter(|number| !watches.contains_key(*number)) {
            // Of a folder that is gone, the kernel removed it.
            let _ = inotify::remove_watch(inotify, *number);
        }
        self.watches = watches;
        has_new
    }

    fn stamps(&self, snapshot: &Snapshot) -> Result<BTreeMap<Box<[u8]>, Stamp>, SnapshotError> {
        let mut stamps = BTreeMap::new();
        for slot in &snapshot.folders {
            for name in &slot.read().names {
                if let Kind::File(held) | Kind::Symlink(held) = &name.kind {
                    stamps.insert(join(&slot.path, &name.name).into(), held.stamp);
                }
            }
            let lock = slot.path.is_empty().then_some(LOCK);
            for name in [MANIFEST].into_iter().chain(lock) {
                let path = join(&slot.path, name);
                match rustix::fs::lstat(snapshot.root.at(&path)) {
                    Ok(stat) => {
                        stamps.insert(path.into(), Stamp::of(&stat));
                    }
                    Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(error) => {
                        return Err(FsError::new(Operation::Stat, &snapshot.root.at(&path), error.into()).into());
                    }
                }
            }
        }
        Ok(stamps)
    }

    fn is_own(&self, path: &Path) -> bool {
        self.own.iter().any(|own| {
            let part = own.file_name().map(|name| [b".", name.as_bytes(), b"."].concat()).unwrap_or_default();
            let is_beside = path.parent() == own.parent();
            let is_part = || path.file_name().is_some_and(|name| name.as_bytes().starts_with(&part));
            path.starts_with(own) || (is_beside && is_part())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(lookout: &mut Lookout) -> Vec<String> {
        let changed = lookout.changes().expect("the workspace can be read");
        changed.into_iter().map(|path| path.display().to_string()).collect()
    }

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        cas_fs::create_dir_all(path.parent().expect("it is below the root")).expect("the disk has room");
        cas_fs::write(&path, content.as_bytes()).expect("the disk has room");
    }

    #[test]
    fn every_kind_of_change_is_seen_once() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let root = &cas_fs::canonicalize(home.path()).expect("it is there");
        write(root, "cas.toml", "");
        write(root, "a/one", "1");
        write(root, ".gitignore", "ignored\n");
        let mut lookout = Lookout::new(root, &[root.join("report.xml")]).expect("it is there");
        assert_eq!(changes(&mut lookout), [".gitignore", "a/one", "cas.toml"]);
        let mut check = |what: &str, expected: &[&str]| {
            assert_eq!(changes(&mut lookout), expected, "{what}");
            assert!(changes(&mut lookout).is_empty(), "{what}, a second time");
        };
        write(root, "a/one", "2");
        check("content", &["a/one"]);
        write(root, "b/c/d/new", "");
        check("folders that are new", &["b/c/d/new"]);
        write(root, "b/c/d/new", "x");
        check("a file in them", &["b/c/d/new"]);
        cas_fs::rename(&root.join("b/c"), &root.join("e")).expect("it is there");
        check("a folder that is moved", &["b/c/d/new", "e/d/new"]);
        write(root, "e/d/new", "y");
        check("a file in it", &["e/d/new"]);
        cas_fs::remove_tree(&root.join("e")).expect("it is there");
        write(root, "e/d/new", "y");
        check("a folder that is made anew", &["e/d/new"]);
        write(root, "e/d/new", "z");
        check("a file in that", &["e/d/new"]);
        write(root, "ignored", "");
        write(root, "cas-out/x", "");
        write(root, "report.xml", "");
        write(root, ".report.xml.1.tmp", "");
        check("what is nobody's", &[]);
        write(root, "cas.lock", "");
        write(root, "cas.toml", "x");
        check("what describes a build", &["cas.lock", "cas.toml"]);
        cas_fs::remove_file(&root.join(".gitignore")).expect("it is there");
        check("rules", &[".gitignore", "ignored"]);
        cas_fs::set_mode(&root.join("a/one"), 0o755).expect("it is there");
        check("rights", &["a/one"]);
        cas_fs::symlink(Path::new("one"), &root.join("a/link")).expect("it is new");
        check("a link", &["a/link"]);
    }

    #[test]
    fn events_name_what_looks_the_same() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let root = &cas_fs::canonicalize(home.path()).expect("it is there");
        write(root, "a", "1");
        let mut lookout = Lookout::new(root, &[]).expect("it is there");
        changes(&mut lookout);
        write(root, "a", "2");
        // As if the clock had not moved.
        let looks = lookout.look().expect("it can be read");
        lookout.seen = looks;
        assert_eq!(changes(&mut lookout), ["a"]);
        assert_eq!(lookout.poll().is_some(), lookout.is_remote);
        // Without events, looks alone tell.
        lookout.inotify = None;
        assert!(lookout.is_blind() && lookout.poll().is_some());
        write(root, "b", "");
        assert_eq!(changes(&mut lookout), ["b"]);
    }
}
