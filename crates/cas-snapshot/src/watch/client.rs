//! The builds' side: asks a watcher, and starts, looks at and ends one. No answer in time is as good as no watcher.

use std::collections::HashSet;
use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::message::{Answer, Change, Request, Token, Wanted, receive, send};
use super::server::{identity_of, lock};
use super::{COOKIE, LOG, PATIENCE, SOCKET, WatchError, folder_in, mounts, path_through};
use crate::walk::{Root, Visited};

/// How long a new watcher may take until it answers.
const START: Duration = Duration::from_secs(10);
/// How long a watcher may take to end.
const STOP: Duration = Duration::from_secs(10);
/// Between two looks at whether it does.
const STEP: Duration = Duration::from_millis(5);

/// What is known of a workspace's folders since the state that a stat cache describes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    own: HashSet<Box<[u8]>>,
    deep: HashSet<Box<[u8]>>,
}

impl Changes {
    fn new(changes: Vec<Change>) -> Self {
        let mut found = Self::default();
        for Change { path, is_deep } in changes {
            if is_deep { &mut found.deep } else { &mut found.own }.insert(path);
        }
        found
    }

    /// Whether the folder's names and files are what they were.
    pub(crate) fn spare(&self, path: &[u8]) -> bool {
        !self.own.contains(path) && !self.deep.contains(path)
    }

    /// Whether nothing is known of what is below the folder.
    pub(crate) fn are_below(&self, path: &[u8]) -> bool {
        self.deep.contains(path)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.deep.is_empty()
    }
}

/// A watcher that answered.
#[derive(Debug)]
pub(crate) struct Watched {
    folder: OwnedFd,
    /// From before the workspace is looked at: what changes from here on is told next time.
    now: Token,
    /// Since the token that was given; `None` when that is not known.
    pub(crate) changes: Option<Changes>,
}

impl Watched {
    /// Asks the watcher of a workspace, if there is one, what changed since `since`.
    ///
    /// `known` are the folders of the stat cache: a watcher that cannot tell what changed is to watch them from now on.
    pub(crate) fn ask(
        watchers: &Path,
        root: &Root,
        since: Option<Token>,
        known: impl FnOnce() -> Vec<Wanted>,
    ) -> Option<Self> {
        let started = Instant::now();
        let folder: OwnedFd = cas_fs::open(&folder_in(watchers, &root.path)).ok()?.into();
        let stream = connect(&folder)?;
        let cookie = Cookie::new(&folder)?;
        let request = Request::Changes { since, cookie: cookie.name.as_bytes().into() };
        let answer = exchange(stream, &request, started);
        drop(cookie);
        let Some(Answer::Changes { root: watched, now, changes }) = answer else { return None };
        // Another folder may be at the path by now, and what is mounted inside shows what no watch saw.
        if identity_of(root.descriptor()) != Ok(watched) || mounts::any_below(&canonical(root)?) {
            return None;
        }
        let mut found = Self { folder, now, changes: changes.map(Changes::new) };
        if found.changes.is_none() {
            // Records outlive their folders, so some may be refused; what is visited is confirmed afterwards.
            found.now = found.watch(known())?.0;
        }
        Some(found)
    }

    /// Has the watcher watch what was visited. Returns the token from before the visit if it now watches all of that.
    pub(crate) fn confirm(&self, visited: &[Visited]) -> Option<Token> {
        let folders: Vec<Wanted> = visited
            .iter()
            .filter(|visited| visited.is_looked_at)
            .map(|Visited { path, folder, .. }| Wanted {
                path: path.clone(),
                identity: folder.stamp().map(|stamp| stamp.identity()),
            })
            .collect();
        if !folders.is_empty() {
            let (now, refused_count) = self.watch(folders)?;
            if now.instance != self.now.instance || refused_count > 0 {
                return None;
            }
        }
        Some(self.now)
    }

    /// Has folders watched; returns from when on they are, and how many are not.
    fn watch(&self, folders: Vec<Wanted>) -> Option<(Token, u32)> {
        match exchange(connect(&self.folder)?, &Request::Watch(folders), Instant::now())? {
            Answer::Watching { now, refused_count } => Some((now, refused_count)),
            _ => None,
        }
    }
}

fn canonical(root: &Root) -> Option<PathBuf> {
    cas_fs::canonicalize(&root.path).ok()
}

/// A file whose creation the watcher sees after all changes that were made before; removed in any case.
struct Cookie<'a> {
    folder: &'a OwnedFd,
    name: String,
}

impl<'a> Cookie<'a> {
    fn new(folder: &'a OwnedFd) -> Option<Self> {
        let name = format!("{COOKIE}{}-{:016x}", std::process::id(), RandomState::new().hash_one(()));
        cas_fs::create_new(&path_through(folder.as_fd(), &name), 0o600).ok()?;
        Some(Self { folder, name })
    }
}

impl Drop for Cookie<'_> {
    fn drop(&mut self) {
        // A watcher that starts removes what is left.
        let _ = cas_fs::remove_file(&path_through(self.folder.as_fd(), &self.name));
    }
}

/// Connects without waiting for a watcher that does not.
fn connect(folder: &OwnedFd) -> Option<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    let address = SocketAddrUnix::new(path_through(folder.as_fd(), SOCKET)).ok()?;
    rustix::net::connect(&socket, &address).ok()?;
    // The folder is its owner's alone; so must be the one who answers.
    let peer = rustix::net::sockopt::socket_peercred(&socket).ok()?;
    if peer.uid != rustix::process::geteuid() {
        return None;
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false).ok()?;
    Some(stream)
}

/// One request, one answer; `None` when there is none before [`PATIENCE`] is over.
fn exchange(mut stream: UnixStream, request: &Request, started: Instant) -> Option<Answer> {
    let left = || PATIENCE.checked_sub(started.elapsed()).filter(|left| !left.is_zero());
    stream.set_write_timeout(Some(left()?)).ok()?;
    send(&mut stream, &request.encode()).ok()?;
    let bytes = receive(&mut Timed { stream: &mut stream, left: &left }, || left().is_some()).ok()?;
    Answer::decode(&bytes)
}

/// Reads only as long as there is time left.
struct Timed<'a> {
    stream: &'a mut UnixStream,
    left: &'a dyn Fn() -> Option<Duration>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some((self.left)().ok_or(io::ErrorKind::TimedOut)?))?;
        self.stream.read(buffer)
    }
}

/// What a watcher says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Id of its process.
    pub process: u32,
    /// Number of folders that it watches.
    pub folder_count: u32,
    /// Whether the user's limit of watches is too low for this workspace.
    pub is_limit_reached: bool,
}

/// Asks the watcher of the workspace at `root` for its state; `None` when there is none.
///
/// # Errors
///
/// [`WatchError::Silent`] when there is one that does not answer.
pub fn status(watchers: &Path, root: &Path) -> Result<Option<Status>, WatchError> {
    match ask(watchers, root, &Request::Status)? {
        None => Ok(None),
        Some(Answer::Status { process, folder_count, is_limit_reached }) => {
            Ok(Some(Status { process, folder_count, is_limit_reached }))
        }
        Some(_) => Err(silent(watchers, root)),
    }
}

/// Ends the watcher of the workspace at `root`, and waits until it has ended. Returns whether there was one.
///
/// # Errors
///
/// [`WatchError::Silent`] when it does not end.
pub fn stop(watchers: &Path, root: &Path) -> Result<bool, WatchError> {
    match ask(watchers, root, &Request::Stop)? {
        None => return Ok(false),
        Some(Answer::Stopping) => {}
        Some(_) => return Err(silent(watchers, root)),
    }
    let started = Instant::now();
    while started.elapsed() < STOP {
        if !is_locked(watchers, root)? {
            return Ok(true);
        }
        std::thread::sleep(STEP);
    }
    Err(silent(watchers, root))
}

/// Starts a watcher of the workspace at `root`: `program` with `arguments`, which must call [`super::serve`]. Returns when
/// it answers.
///
/// It gets an empty environment, `/` as its folder, and no descriptor of this process but a log in its own folder.
///
/// # Errors
///
/// [`WatchError::Running`] when there is one already, [`WatchError::Silent`] when it ends or does not answer.
pub fn start(watchers: &Path, root: &Path, program: &Path, arguments: &[OsString]) -> Result<Status, WatchError> {
    let folder = folder_in(watchers, root);
    match lock(&folder)? {
        Some(unused) => drop(unused),
        None => return Err(WatchError::Running { root: root.to_owned() }),
    }
    let log = folder.join(LOG);
    cas_fs::write(&log, b"")?;
    let failed = |source| WatchError::System { root: root.to_owned(), source };
    let log = std::fs::OpenOptions::new().append(true).open(&log).map_err(failed)?;
    // An old kernel lacks the call; then what this process inherited is inherited again.
    let _ = cas_sys::close_on_exec_from(3);
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let started = Instant::now();
    while started.elapsed() < START {
        if let Some(Answer::Status { process, folder_count, is_limit_reached }) = find(watchers, root, &Request::Status)
        {
            // Two may have been started at once: then the other one is the watcher.
            return if process == child.id() {
                Ok(Status { process, folder_count, is_limit_reached })
            } else {
                Err(WatchError::Running { root: root.to_owned() })
            };
        }
        if child.try_wait().map_err(failed)?.is_some() {
            break;
        }
        std::thread::sleep(STEP);
    }
    // It is of no use, and may have ended itself.
    let _ = child.kill();
    let _ = child.wait();
    Err(silent(watchers, root))
}

fn silent(watchers: &Path, root: &Path) -> WatchError {
    WatchError::Silent { root: root.to_owned(), log: folder_in(watchers, root).join(LOG) }
}

/// Whether a watcher of the workspace runs, which holds its lock.
fn is_locked(watchers: &Path, root: &Path) -> Result<bool, WatchError> {
    let folder = folder_in(watchers, root);
    if !cas_fs::exists(&folder)? { Ok(false) } else { Ok(lock(&folder)?.is_none()) }
}

fn find(watchers: &Path, root: &Path, request: &Request) -> Option<Answer> {
    let folder: OwnedFd = cas_fs::open(&folder_in(watchers, root)).ok()?.into();
    exchange(connect(&folder)?, request, Instant::now())
}

fn ask(watchers: &Path, root: &Path, request: &Request) -> Result<Option<Answer>, WatchError> {
    match find(watchers, root, request) {
        None if is_locked(watchers, root)? => Err(silent(watchers, root)),
        other => Ok(other),
    }
}
