//! Why a registry could not be used.

use std::fmt;
use std::path::PathBuf;

use cas_fs::FsError;

use crate::quirks::named_host;

/// Why a registry could not be used. Addresses in messages carry no credentials.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The network may not be used.
    #[error("`{name}` is not in the store, and the network may not be used")]
    Offline {
        /// What was asked for.
        name: String,
    },
    /// The registry does not have it.
    #[error("`{name}` does not exist in `{origin}` (HTTP status {status})")]
    NotFound {
        /// What was asked for.
        name: String,
        /// The server.
        origin: String,
        /// 404 or 410.
        status: u16,
        /// What is known about such an answer.
        advice: Option<&'static str>,
    },
    /// Whoever asks may not have it.
    #[error("`{origin}` does not let us {access} `{name}` (HTTP status {status}){said}")]
    Denied {
        /// What was asked for.
        name: String,
        /// The server.
        origin: String,
        /// 401 or 403.
        status: u16,
        /// What the server said, after a colon.
        said: String,
        /// What was to be done.
        access: Access,
        /// Whether credentials were sent.
        is_known: bool,
        /// Whether the server says whom to ask.
        is_asked: bool,
        /// What is known about such an answer.
        advice: Option<&'static str>,
    },
    /// The server refused or is broken.
    #[error("`{origin}` answered for `{name}` with HTTP status {status}{said}")]
    Status {
        /// What was asked for.
        name: String,
        /// The server.
        origin: String,
        /// What it said.
        status: u16,
        /// What the server said, after a colon.
        said: String,
        /// What is known about such an answer.
        advice: Option<&'static str>,
    },
    /// The server could not be reached, or broke off.
    #[error("`{origin}` could not be asked about `{name}`")]
    Transport {
        /// What was asked for.
        name: String,
        /// The server.
        origin: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What came is not what was asked for.
    #[error("`{origin}` gave something else for `{name}`: {actual}")]
    Mismatch {
        /// What was asked for.
        name: String,
        /// The server.
        origin: String,
        /// The digest of what came.
        actual: String,
    },
    /// A document that is longer than any real one.
    #[error("`{origin}` gave more than {limit} bytes for `{name}`")]
    TooLong {
        /// What was asked for.
        name: String,
        /// The server.
        origin: String,
        /// The limit.
        limit: u64,
    },
    /// What came cannot be meant.
    #[error("`{origin}` gave {said} for {name}")]
    Answer {
        /// What was asked for.
        name: String,
        /// The server.
        origin: String,
        /// What came.
        said: String,
    },
    /// The server names a place for tokens that must not have credentials.
    #[error("`{origin}` wants credentials to be sent to `{realm}`, which is not encrypted")]
    Realm {
        /// The server.
        origin: String,
        /// The place.
        realm: String,
    },
    /// The place for tokens gave none.
    #[error("`{realm}` gave no token: {said}")]
    Token {
        /// The place.
        realm: String,
        /// Why not.
        said: String,
    },
    /// A file of credentials cannot be read.
    #[error("the credentials in `{path}` cannot be used")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A program that keeps credentials failed.
    #[error("`{program}`, which keeps the credentials of `{host}`, failed: {said}")]
    Helper {
        /// The program.
        program: String,
        /// What it was asked for.
        host: String,
        /// Why.
        said: String,
    },
    /// The server does not know this name and password.
    #[error("`{origin}` does not take the name and the password (HTTP status {status}){said}")]
    Refused {
        /// The server.
        origin: String,
        /// 401 or 403.
        status: u16,
        /// What the server said, after a colon.
        said: String,
    },
    /// There is no place for a login.
    #[error("there is no file where a login could be kept")]
    NoFile,
    /// A file of logins could not be written.
    #[error("the login could not be kept")]
    Write(#[from] FsError),
    /// The server took it, and does not have it, or has another length of it.
    #[error("`{origin}` took `{name}` and does not have it")]
    NotKept {
        /// What was sent.
        name: String,
        /// The server.
        origin: String,
    },
    /// The server leads an upload to somewhere that it must not go.
    #[error("`{origin}` wants `{name}` to be sent to `{location}`")]
    Location {
        /// What was to be sent.
        name: String,
        /// The server.
        origin: String,
        /// The address.
        location: String,
    },
    /// More refers to a manifest than is looked at.
    #[error("`{origin}` names more than {limit} manifests, or too many pages of them, that refer to `{name}`")]
    TooMany {
        /// The manifest.
        name: String,
        /// The server.
        origin: String,
        /// The limit.
        limit: usize,
    },
    /// The next page of a list is said to be on another server.
    #[error("`{origin}` leads to `{address}` for more of what refers to `{name}`")]
    Page {
        /// The manifest.
        name: String,
        /// The server.
        origin: String,
        /// Where it leads.
        address: String,
    },
    /// What should list manifests does not.
    #[error("`{origin}` has something at `{name}` that is not an index")]
    NoIndex {
        /// The tag or manifest.
        name: String,
        /// The server.
        origin: String,
    },
    /// Others write the same tag all the time.
    #[error("`{name}` in `{origin}` is written by others again and again")]
    Contended {
        /// The tag.
        name: String,
        /// The server.
        origin: String,
    },
    /// What was to be sent could not be read.
    #[error("`{name}` could not be read to be sent")]
    Content {
        /// What was to be sent.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The program was told to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What is done with something in a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "have",
            Self::Write => "write",
        })
    }
}

impl RegistryError {
    /// Whether the registry says that it does not have it, as opposed to not answering.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// What is known about such an answer of such a registry.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::NotFound { advice, .. } | Self::Denied { advice, .. } | Self::Status { advice, .. } => *advice,
            _ => None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        if let Some(advice) = self.advice() {
            return Some(advice.to_owned());
        }
        Some(match self {
            Self::Offline { .. } => "run it once without `--offline`".to_owned(),
            Self::NotFound { .. } => "look at its name; a registry also says so of what we may not see".to_owned(),
            Self::Denied { origin, is_known: false, .. } => {
                let host = origin.split("://").last().unwrap_or(origin);
                format!("log in with `cas login {}`, or as docker, podman and skopeo do", named_host(host))
            }
            Self::Denied { access: Access::Read, .. } => "the account that is logged in may not read it".to_owned(),
            Self::Denied { access: Access::Write, .. } => {
                "the account that is logged in may not write there, or the repository must be made first".to_owned()
            }
            Self::Mismatch { .. } => "nothing was kept; the registry or a proxy on the way changed it".to_owned(),
            Self::Credentials { .. } => "mend the file, or log in again".to_owned(),
            Self::Helper { .. } => "run it by hand, or log in again".to_owned(),
            Self::Realm { .. } => "the registry is set up wrongly, or somebody is on the way to it".to_owned(),
            Self::TooLong { .. } => "it is no image".to_owned(),
            Self::NotKept { .. } => {
                "push it again; when it happens again, the registry or a proxy before it is broken".to_owned()
            }
            Self::Location { .. } => {
                "the registry is set up wrongly: its address as it knows it is not encrypted".to_owned()
            }
            Self::TooMany { .. } => "remove those that nobody needs from the repository".to_owned(),
            Self::Page { .. } => "the registry is set up wrongly, or a proxy before it is".to_owned(),
            Self::NoIndex { .. } => "that tag is for an index alone; remove what is there".to_owned(),
            Self::Contended { .. } => "try it again when the others are done".to_owned(),
            Self::Content { .. } => "`cas store fsck` looks for damage; build it again".to_owned(),
            Self::Status { .. } | Self::Transport { .. } | Self::Token { .. } => {
                "try again later; `[mirror]` in `cas.toml` names another place to fetch from".to_owned()
            }
            Self::Answer { .. } => {
                "look at what it says there; another registry, or a proxy, may be in its place".to_owned()
            }
            Self::Refused { .. } => {
                "nothing was kept; many registries want a token of the account in place of its password".to_owned()
            }
            Self::NoFile => "name one: `--authfile FILE`".to_owned(),
            Self::Write(_) => "`--authfile FILE` names another one".to_owned(),
            Self::Interrupted => return None,
        })
    }
}

/// What a file could not be read for.
impl RegistryError {
    pub(crate) fn file(path: PathBuf, source: FsError) -> Self {
        Self::Credentials { path, source: Box::new(source) }
    }
}
