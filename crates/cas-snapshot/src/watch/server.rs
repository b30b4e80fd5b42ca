//! The watcher's own process: events of the kernel on one side, questions of builds on the other, one thread for both.
//!
//! Events arrive in one queue in the order of the changes, whatever folder they are of. So when the event of a cookie was
//! read, those of all changes before it were, too. Whatever is not understood means that everything may have changed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::journal::Journal;
use super::message::{Answer, Identity, Request, Token, Wanted, receive, send};
use super::{COOKIE, LOCK, PATIENCE, SOCKET, WatchError, folder_in, path_through};
use crate::rules::GITIGNORE;
use crate::walk::{Root, join};

/// Longest sleep: then it is looked whether the workspace and the store are still there.
const CHECK: Duration = Duration::from_secs(20);
/// Cookies that are remembered until their question comes; of more, the oldest are forgotten.
const MAX_COOKIES: usize = 256;
/// Bytes of events that are read at once.
const EVENT_BYTES: usize = 64 << 10;

/// Watches the workspace at `root` until there is no use in it any more: on request, when nobody asked for `idle`, when
/// the workspace or the store is gone.
///
/// The process should do nothing else; it becomes the leader of a session of its own if it can.
///
/// # Errors
///
/// [`WatchError::Running`] when there is one already, [`WatchError::Fs`] and [`WatchError::System`].
pub fn serve(watchers: &Path, root: &Path, idle: Duration) -> Result<(), WatchError> {
    // The first process of a session cannot make another one, and need not.
    let _ = rustix::process::setsid();
    serve_here(watchers, root, idle)
}

pub(super) fn serve_here(watchers: &Path, root: &Path, idle: Duration) -> Result<(), WatchError> {
    let folder = folder_in(watchers, root);
    let Some(_lock) = lock(&folder)? else { return Err(WatchError::Running { root: root.to_owned() }) };
    let failed = |source: std::io::Error| WatchError::System { root: root.to_owned(), source };
    for entry in cas_fs::read_dir(&folder)? {
        // Of one that was killed.
        if entry.name == SOCKET || entry.name.as_bytes().starts_with(COOKIE.as_bytes()) {
            cas_fs::remove_file(&folder.join(&entry.name))?;
        }
    }
    let descriptor = cas_fs::open(&folder)?;
    let listener = UnixListener::bind(path_through(descriptor.as_fd(), SOCKET)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let mut watcher = Watcher::new(root, &folder).map_err(|error| failed(error.into()))?;
    drop(descriptor);
    let ended = watcher.run(&listener, idle);
    // It may be gone with the store.
    let _ = cas_fs::remove_file(&folder.join(SOCKET));
    ended.map_err(|error| failed(error.into()))
}

/// Takes the lock of a workspace's watcher; `None` when another has it.
pub(super) fn lock(folder: &Path) -> Result<Option<File>, WatchError> {
    cas_fs::create_dir_all(folder)?;
    cas_fs::set_mode(folder, 0o700)?;
    let path = folder.join(LOCK);
    let file = match cas_fs::create_new(&path, 0o600) {
        Ok(file) => file,
        Err(error) if error.is_already_exists() => cas_fs::open(&path)?,
        Err(error) => return Err(error.into()),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(cas_fs::FsError::new(cas_fs::Operation::Open, &path, error.into()).into()),
    }
}

/// A watched folder.
#[derive(Clone, Copy, Debug)]
struct Watch {
    number: i32,
    identity: Identity,
}

#[derive(Debug)]
pub(super) struct Watcher {
    root: PathBuf,
    identity: Identity,
    folder: PathBuf,
    folder_identity: Identity,
    inotify: OwnedFd,
    /// The watch of its own folder, where cookies appear.
    own: i32,
    paths: HashMap<i32, Box<[u8]>>,
    watches: BTreeMap<Box<[u8]>, Watch>,
    journal: Journal,
    cookies: VecDeque<Box<[u8]>>,
    /// How often everything was forgotten.
    loss_count: u64,
    is_limit_reached: bool,
    is_ending: bool,
    last_question: Instant,
}

impl Watcher {
    pub(super) fn new(root: &Path, folder: &Path) -> rustix::io::Result<Self> {
        let mut instance = [0; 16];
        rustix::rand::getrandom(&mut instance, rustix::rand::GetRandomFlags::empty())?;
        let (inotify, own) = queue(folder)?;
        Ok(Self {
            root: root.to_owned(),
            identity: identity_at(root)?,
            folder: folder.to_owned(),
            folder_identity: identity_at(folder)?,
            inotify,
            own,
            paths: HashMap::new(),
            watches: BTreeMap::new(),
            journal: Journal::new(instance),
            cookies: VecDeque::new(),
            loss_count: 0,
            is_limit_reached: false,
            is_ending: false,
            last_question: Instant::now(),
        })
    }

    fn run(&mut self, listener: &UnixListener, idle: Duration) -> rustix::io::Result<()> {
        while !self.is_ending && self.is_of_use() {
            let Some(left) = idle.checked_sub(self.last_question.elapsed()).filter(|left| !left.is_zero()) else {
                return Ok(());
            };
            let mut ready = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
            match poll(&mut ready, Some(&timespec(left.min(CHECK)))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            self.read_events()?;
            while let Ok((stream, _)) = listener.accept() {
                // Whoever asks has to go on without an answer then.
                let _ = self.converse(stream);
            }
        }
        Ok(())
    }

    /// Whether what is watched, and where questions come from, are still at their paths.
    fn is_of_use(&self) -> bool {
        identity_at(&self.root) == Ok(self.identity) && identity_at(&self.folder) == Ok(self.folder_identity)
    }

    fn converse(&mut self, mut stream: UnixStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let deadline = Instant::now() + PATIENCE;
        let bytes = receive(&mut stream, || Instant::now() < deadline)?;
        let request = Request::decode(&bytes).ok_or(std::io::ErrorKind::InvalidData)?;
        let answer = self.answer(request)?;
        send(&mut stream, &answer.encode())
    }

    pub(super) fn answer(&mut self, request: Request) -> rustix::io::Result<Answer> {
        match request {
            Request::Changes { since, cookie } => {
                self.last_question = Instant::now();
                self.changes(since, &cookie)
            }
            Request::Watch(folders) => {
                self.last_question = Instant::now();
                // Folders that were moved meanwhile are dropped by their events, before they are known by other paths.
                self.read_events()?;
                let refused_count = self.watch(&folders);
                Ok(Answer::Watching { now: self.journal.now(), refused_count })
            }
            Request::Status => Ok(Answer::Status {
                process: rustix::process::getpid().as_raw_nonzero().get().cast_unsigned(),
                folder_count: u32::try_from(self.watches.len()).unwrap_or(u32::MAX),
                is_limit_reached: self.is_limit_reached,
            }),
            Request::Stop => {
                self.is_ending = true;
                Ok(Answer::Stopping)
            }
        }
    }

    fn changes(&mut self, since: Option<Token>, cookie: &[u8]) -> rustix::io::Result<Answer> {
        let deadline = Instant::now() + PATIENCE;
        let loss_count = self.loss_count;
        loop {
            self.read_events()?;
            if let Some(at) = self.cookies.iter().position(|seen| **seen == *cookie) {
                self.cookies.remove(at);
                break;
            }
            if self.loss_count != loss_count {
                // The cookie's event is lost as well, but so is every token from before.
                break;
            }
            let left = deadline.checked_duration_since(Instant::now()).ok_or(Errno::TIMEDOUT)?;
            match poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], Some(&timespec(left))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        let changes = since.and_then(|since| self.journal.since(&since));
        Ok(Answer::Changes { root: self.identity, now: self.journal.now(), changes })
    }

    /// Reads what the kernel has to tell until there is no more.
    fn read_events(&mut self) -> rustix::io::Result<()> {
        loop {
            let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
            let inotify = self.inotify.try_clone().map_err(|_| Errno::MFILE)?;
            let mut reader = inotify::Reader::new(inotify, &mut buffer);
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(Errno::AGAIN) => return Ok(()),
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error),
                };
                let (number, flags) = (event.wd(), event.events());
                let name = event.file_name().map(|name| Box::from(name.to_bytes()));
                let loss_count = self.loss_count;
                self.event(number, flags, name.as_deref())?;
                if self.loss_count != loss_count {
                    // What is left is of the queue that was given up.
                    break;
                }
            }
        }
    }

    pub(super) fn event(&mut self, number: i32, flags: ReadFlags, name: Option<&[u8]>) -> rustix::io::Result<()> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.forget();
        }
        let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED;
        if number == self.own {
            match name {
                Some(name) if name.starts_with(COOKIE.as_bytes()) => {
                    if flags.contains(ReadFlags::CREATE) {
                        self.cookies.push_back(name.into());
                        if self.cookies.len() > MAX_COOKIES {
                            self.cookies.pop_front();
                        }
                    }
                }
                // Nobody could ask any more.
                Some(name) if name == SOCKET.as_bytes() || name == LOCK.as_bytes() => self.is_ending = true,
                Some(_) => {}
                None => self.is_ending |= flags.intersects(gone),
            }
            return Ok(());
        }
        // Of a folder that is not watched any more; it was marked when that ended.
        let Some(path) = self.paths.get(&number).cloned() else { return Ok(()) };
        if flags.intersects(gone) {
            if path.is_empty() {
                return self.forget();
            }
            self.drop_below(&path);
            return Ok(());
        }
        let Some(name) = name else {
            self.journal.mark(&path, false);
            return Ok(());
        };
        self.journal.mark(&path, name == GITIGNORE);
        let moves = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        if flags.intersects(moves) && flags.contains(ReadFlags::ISDIR) {
            self.drop_below(&join(&path, name));
        }
        Ok(())
    }

    /// Gives up a folder and all below it. Whoever visits them later says so, and they are watched anew.
    fn drop_below(&mut self, path: &[u8]) {
        self.journal.mark(path, true);
        let mut inside: Vec<Box<[u8]>> = Vec::new();
        if self.watches.contains_key(path) {
            inside.push(path.into());
        }
        let from = [path, b"/"].concat();
        let below = self.watches.range::<[u8], _>((std::ops::Bound::Included(&from[..]), std::ops::Bound::Unbounded));
        inside.extend(below.map(|(path, _)| path).take_while(|path| path.starts_with(&from)).cloned());
        for path in inside {
            if let Some(watch) = self.watches.remove(&path) {
                self.paths.remove(&watch.number);
                // It is gone already when the folder is.
                let _ = inotify::remove_watch(&self.inotify, watch.number);
            }
        }
    }

    /// Begins anew: every token from before is worth nothing, no folder is watched.
    fn forget(&mut self) -> rustix::io::Result<()> {
        self.journal.lose();
        self.loss_count += 1;
        self.paths.clear();
        self.watches.clear();
        self.cookies.clear();
        // A new queue: what is in the old one is of watches that are no more.
        (self.inotify, self.own) = queue(&self.folder)?;
        Ok(())
    }

    /// Watches folders as well; returns how many of them it could not.
    fn watch(&mut self, folders: &[Wanted]) -> u32 {
        let all = u32::try_from(folders.len()).unwrap_or(u32::MAX);
        let root = Root::open(&self.root).ok().filter(|root| identity_of(root.descriptor()) == Ok(self.identity));
        let Some(root) = root.filter(|_| !self.is_limit_reached) else { return all };
        let mut refused_count = 0;
        for wanted in folders {
            match self.watch_one(&root, wanted) {
                Ok(true) => {}
                Ok(false) => refused_count += 1,
                Err(Errno::NOSPC) => {
                    self.is_limit_reached = true;
                    // Half of a workspace is of no use, and others need watches, too.
                    self.is_ending |= self.forget().is_err();
                    return all;
                }
                Err(_) => refused_count += 1,
            }
        }
        refused_count
    }

    fn watch_one(&mut self, root: &Root, wanted: &Wanted) -> rustix::io::Result<bool> {
        let is_it = |identity: Identity| wanted.identity.is_none_or(|wanted| wanted == identity);
        if let Some(watch) = self.watches.get(&wanted.path) {
            if is_it(watch.identity) {
                return Ok(true);
            }
            self.drop_below(&wanted.path);
        }
        let Ok(folder) = root.folder(&wanted.path) else { return Ok(false) };
        let identity = identity_of(folder.as_fd())?;
        if !is_it(identity) || identity.device != self.identity.device {
            return Ok(false);
        }
        // The descriptor is the folder that was just looked at, whatever is at the path by now.
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        let number = inotify::add_watch(&self.inotify, path, FOLDER_EVENTS)?;
        if self.paths.contains_key(&number) || number == self.own {
            // It was moved a moment ago; the event that tells is still to come.
            return Ok(false);
        }
        self.paths.insert(number, wanted.path.clone());
        self.watches.insert(wanted.path.clone(), Watch { number, identity });
        // What happened in it and below it until now is not known.
        self.journal.mark(&wanted.path, true);
        Ok(true)
    }
}

/// What is told of a folder. `EXCL_UNLINK` leaves out files that have no name any more; reading is never told.
pub(crate) const FOLDER_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::EXCL_UNLINK);

/// A queue of events, and in it the watch of the watcher's own folder.
fn queue(folder: &Path) -> rustix::io::Result<(OwnedFd, i32)> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let events = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR
        | WatchFlags::DONT_FOLLOW;
    let own = inotify::add_watch(&inotify, folder, events)?;
    Ok((inotify, own))
}

fn identity_at(path: &Path) -> rustix::io::Result<Identity> {
    rustix::fs::stat(path).map(|stat| Identity { device: stat.st_dev, inode: stat.st_ino })
}

pub(super) fn identity_of(folder: std::os::fd::BorrowedFd<'_>) -> rustix::io::Result<Identity> {
    rustix::fs::fstat(folder).map(|stat| Identity { device: stat.st_dev, inode: stat.st_ino })
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}
