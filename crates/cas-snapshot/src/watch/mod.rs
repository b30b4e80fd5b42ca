//! The watcher: a process beside the builds of one workspace that remembers which folders changed since which moment.
//!
//! It only accelerates. A build asks what changed since the state that its stat cache describes, and looks at the rest of
//! the workspace only if there is no answer in time, or one that it does not understand. The watcher knows no rules of what
//! belongs to a package: builds tell it which folders they visited. What it cannot see, and why the answers are right
//! otherwise: docs/formats/snapshot.md, "The watcher".
//!
//! Not here: what a build does with an answer (`walk`), the token's place in the stat cache (`cache`).

mod client;
mod journal;
mod message;
mod mounts;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas_fs::FsError;

pub(crate) use client::{Changes, Watched};
pub use client::{Status, start, status, stop};
pub(crate) use message::{Identity, Token, Wanted};
pub(crate) use server::FOLDER_EVENTS;
pub use server::serve;

/// How long a watcher runs that no build asks.
pub const IDLE: Duration = Duration::from_secs(3600);
/// How long a build waits for an answer in all: a full look at a large workspace takes less.
const PATIENCE: Duration = Duration::from_secs(2);
/// Name of the socket in the watcher's folder.
const SOCKET: &str = "socket";
/// Name of the file that a running watcher has locked.
const LOCK: &str = "lock";
/// Name of the file that takes what a watcher says.
const LOG: &str = "log";
/// What names of cookies begin with.
const COOKIE: &str = "cookie-";

/// Why a watcher could not be started, asked or ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A file or folder cannot be used.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// One watcher a workspace.
    #[error("a watcher of `{}` runs already", root.display())]
    Running {
        /// The workspace.
        root: PathBuf,
    },
    /// It ended, or does not answer.
    #[error("the watcher of `{}` does not answer", root.display())]
    Silent {
        /// The workspace.
        root: PathBuf,
        /// Where it says why.
        log: PathBuf,
    },
    /// The system refused.
    #[error("could not watch `{}`", root.display())]
    System {
        /// The workspace.
        root: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl WatchError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Running { .. } => Some("`cas watch status` tells more of it, `cas watch stop` ends it".to_owned()),
            Self::Silent { log, .. } => Some(format!("builds go on without it; `{}` may say why", log.display())),
            Self::System { source, .. } if source.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                Some("raise the limit `fs.inotify.max_user_instances` with sysctl".to_owned())
            }
            _ => None,
        }
    }
}

/// The folder of a workspace's watcher below the folder of all of them.
fn folder_in(watchers: &Path, root: &Path) -> PathBuf {
    watchers.join(crate::cache::name_of(root))
}

/// A path to a name in an open folder: the path of a socket has 107 bytes at most, and a store's folder may have more.
fn path_through(folder: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// Whether bytes are a message of the watcher's protocol: for tests of the decoder with damaged ones.
#[doc(hidden)]
#[must_use]
pub fn is_message(bytes: &[u8]) -> bool {
    message::receive(&mut &bytes[..], || true)
        .is_ok_and(|body| message::Request::decode(&body).is_some() || message::Answer::decode(&body).is_some())
}
