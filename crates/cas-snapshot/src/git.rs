//! What git tracks: the index of the repository that holds the workspace, and those of submodules in it.
//!
//! Indexes are read whole, each time: nothing that is remembered of them could be stale. Which files are read, and what is
//! not looked at: docs/formats/git-index.md.
//!
//! Not here: what follows for a name (`walk`), for what is not there (`gaps`), and for what is converted (`notes`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cas_fs::FsError;
use cas_git::{Config, Decoded, Entry, Index, IndexError, MAX_INDEX_BYTES, MAX_LINK_BYTES, Mode, ObjectFormat};

use crate::SnapshotError;
use crate::walk::{NEVER, Root, join};

/// Longest `config` that is read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// How often a split index is read again whose shared one is gone: git replaced both meanwhile.
const ATTEMPTS: usize = 3;
/// Deepest submodule in submodules. Each is a folder, so that a repository cannot hold itself.
const MAX_DEPTH: usize = 64;

/// A repository, as far as it is known.
#[derive(Debug)]
pub(crate) struct Repository {
    /// The workspace's root from the top of the working tree on, with a slash at its end; empty when it is the top.
    prefix: Vec<u8>,
    /// The top of the working tree from the workspace's root on; empty when that is not below it.
    folder: Vec<u8>,
    index: Index,
    pub(crate) config: Config,
}

impl Repository {
    /// A path from the workspace's root on as the index has it.
    fn inner(&self, path: &[u8]) -> Vec<u8> {
        let below = if self.folder.is_empty() { path } else { path.get(self.folder.len() + 1..).unwrap_or_default() };
        [&self.prefix, below].concat()
    }

    /// Paths from the workspace's root on whose files git does not look at, because it was told so; and whether that is
    /// because a sparse checkout may leave them out. A folder stands for all below it.
    pub(crate) fn flagged(&self) -> impl Iterator<Item = (Vec<u8>, bool)> {
        let prefix = self.prefix.strip_suffix(b"/").unwrap_or(&self.prefix);
        let below = self.index.below(prefix).filter(|entry| entry.is_skipped || entry.is_assumed_valid);
        below.map(|entry| {
            let path = &entry.path[self.prefix.len()..];
            (join(&self.folder, path.strip_suffix(b"/").unwrap_or(path)), entry.is_skipped)
        })
    }

    /// The entries that may have no files, with their paths from the workspace's root on: those that a sparse checkout
    /// leaves out, and submodules. What never belongs to a package is none of them.
    pub(crate) fn absent(&self) -> impl Iterator<Item = (Vec<u8>, Entry<'_>)> {
        let prefix = self.prefix.strip_suffix(b"/").unwrap_or(&self.prefix);
        // A sparse folder above the workspace's root would mean that the root is not there either.
        let below = self.index.below(prefix);
        below.filter(|entry| entry.is_skipped || entry.mode == Mode::Gitlink).filter_map(|entry| {
            let below = &entry.path[self.prefix.len()..];
            let is_never = below.split(|byte| *byte == b'/').any(|part| NEVER.contains(&part));
            (!is_never).then(|| (join(&self.folder, below), entry))
        })
    }
}

/// What git tracks of a workspace.
#[derive(Debug, Default)]
pub(crate) struct Tracked {
    top: Option<Repository>,
    /// The top of the working tree.
    top_folder: Option<PathBuf>,
    /// By folder, from the workspace's root on. `None`: it is not checked out.
    submodules: BTreeMap<Vec<u8>, Option<Repository>>,
    /// `.git` files that lead to nothing.
    pub(crate) lost: Vec<PathBuf>,
}

impl Tracked {
    /// Reads the index of the repository that holds a workspace, and those of its submodules. Without one nothing is tracked.
    pub(crate) fn open(root: &Root) -> Result<Self, SnapshotError> {
        let mut tracked = Self::default();
        let Some((top, git_dir)) = find(&root.path, &mut tracked.lost)? else { return Ok(tracked) };
        let path = cas_fs::canonicalize(&root.path)?;
        let prefix = path.strip_prefix(&top).unwrap_or(Path::new("")).as_os_str().as_bytes();
        let prefix = if prefix.is_empty() { Vec::new() } else { [prefix, b"/"].concat() };
        let repository = open(&git_dir, prefix, Vec::new())?;
        let mut open_links = gitlinks(&repository, 0);
        tracked.top = Some(repository);
        tracked.top_folder = Some(top);
        while let Some((folder, depth)) = open_links.pop() {
            let repository = match git_dir_of(&root.at(&folder), &mut tracked.lost)? {
                Some(git_dir) => Some(open(&git_dir, Vec::new(), folder.clone())?),
                None => None,
            };
            open_links
                .extend(repository.iter().filter(|_| depth < MAX_DEPTH).flat_map(|inner| gitlinks(inner, depth + 1)));
            tracked.submodules.insert(folder, repository);
        }
        Ok(tracked)
    }

    /// The top of the working tree that holds the workspace.
    pub(crate) fn top_folder(&self) -> Option<&Path> {
        self.top_folder.as_deref()
    }

    /// Whether a repository holds the workspace.
    pub(crate) fn has_repository(&self) -> bool {
        self.top.is_some()
    }

    /// Whether git tracks a file at a path from the workspace's root on, or something below a folder.
    pub(crate) fn has(&self, path: &[u8], is_dir: bool) -> bool {
        if is_dir && self.submodules.contains_key(path) {
            return true;
        }
        let Some(repository) = self.repository(path) else { return false };
        let inner = repository.inner(path);
        match is_dir {
            true => repository.index.below(&inner).any(|entry| entry.mode != Mode::SparseDirectory),
            false => repository.index.tracks(&inner),
        }
    }

    /// Whether a folder is the top of a submodule that is checked out.
    pub(crate) fn is_submodule(&self, path: &[u8]) -> bool {
        !self.submodules.is_empty() && self.submodules.get(path).is_some_and(Option::is_some)
    }

    /// The repository that a path belongs to.
    pub(crate) fn repository(&self, path: &[u8]) -> Option<&Repository> {
        if !self.submodules.is_empty() {
            for at in (0..path.len()).rev().filter(|at| path[*at] == b'/') {
                if let Some(Some(repository)) = self.submodules.get(&path[..at]) {
                    return Some(repository);
                }
            }
        }
        self.top.as_ref()
    }

    pub(crate) fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.top.iter().chain(self.submodules.values().flatten())
    }
}

fn gitlinks(repository: &Repository, depth: usize) -> Vec<(Vec<u8>, usize)> {
    let links = repository.absent().filter(|(_, entry)| entry.mode == Mode::Gitlink);
    links.map(|(path, _)| (path, depth)).collect()
}

/// The top of the working tree that a folder belongs to, and the repository's folder.
fn find(root: &Path, lost: &mut Vec<PathBuf>) -> Result<Option<(PathBuf, PathBuf)>, FsError> {
    let root = cas_fs::canonicalize(root)?;
    let device = cas_fs::metadata(&root)?.dev();
    for folder in root.ancestors() {
        // As git, which does not go on into another file system.
        if cas_fs::metadata(folder)?.dev() != device {
            break;
        }
        let before = lost.len();
        if let Some(git_dir) = git_dir_of(folder, lost)? {
            return Ok(Some((folder.to_owned(), git_dir)));
        }
        if lost.len() > before {
            break;
        }
    }
    Ok(None)
}

/// The folder of the repository whose working tree has its top here.
fn git_dir_of(folder: &Path, lost: &mut Vec<PathBuf>) -> Result<Option<PathBuf>, FsError> {
    let dot_git = folder.join(".git");
    let metadata = match cas_fs::metadata(&dot_git) {
        Ok(metadata) => metadata,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if metadata.is_dir() {
        return Ok(is_repository(&dot_git)?.then_some(dot_git));
    }
    if metadata.is_file()
        && let Ok(path) = cas_git::gitfile(&cas_fs::read_limited(&dot_git, MAX_LINK_BYTES)?)
    {
        let git_dir = folder.join(OsStr::from_bytes(path));
        if is_repository(&git_dir)? {
            return Ok(Some(git_dir));
        }
    }
    lost.push(dot_git);
    Ok(None)
}

fn is_repository(git_dir: &Path) -> Result<bool, FsError> {
    // `HEAD` can be a link to a branch that does not exist yet.
    match cas_fs::symlink_metadata(&git_dir.join("HEAD")) {
        Ok(_) => {}
        Err(error) if is_absent(&error) => return Ok(false),
        Err(error) => return Err(error),
    }
    let common = common_dir(git_dir)?;
    Ok(cas_fs::exists(&common.join("objects"))? && cas_fs::exists(&common.join("refs"))?)
}

/// Where what worktrees share is.
fn common_dir(git_dir: &Path) -> Result<PathBuf, FsError> {
    match cas_fs::read_limited(&git_dir.join("commondir"), MAX_LINK_BYTES) {
        Ok(content) => {
            Ok(cas_git::commondir(&content).map_or(git_dir.to_owned(), |path| git_dir.join(OsStr::from_bytes(path))))
        }
        Err(error) if is_absent(&error) => Ok(git_dir.to_owned()),
        Err(error) => Err(error),
    }
}

fn open(git_dir: &Path, prefix: Vec<u8>, folder: Vec<u8>) -> Result<Repository, SnapshotError> {
    let path = common_dir(git_dir)?.join("config");
    let config = match cas_fs::read_limited(&path, MAX_CONFIG_BYTES) {
        Ok(text) => Config::parse(&text).map_err(|source| SnapshotError::GitConfig { path, source })?,
        Err(error) if is_absent(&error) => Config::default(),
        Err(error) => return Err(error.into()),
    };
    let format = match config.get("extensions", "objectformat") {
        Some(name) if name.eq_ignore_ascii_case(b"sha256") => ObjectFormat::Sha256,
        _ => ObjectFormat::Sha1,
    };
    Ok(Repository { prefix, folder, index: read_index(git_dir, format)?, config })
}

fn read_index(git_dir: &Path, format: ObjectFormat) -> Result<Index, SnapshotError> {
    let path = git_dir.join("index");
    let wrong = |source| SnapshotError::GitIndex { path: path.clone(), source };
    let mut attempt = 1;
    loop {
        let bytes = match cas_fs::read_limited(&path, MAX_INDEX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if is_absent(&error) => return Ok(Index::default()),
            Err(error) => return Err(error.into()),
        };
        let split = match cas_git::decode_index(&bytes, format).map_err(wrong)? {
            Decoded::Whole(index) => return Ok(index),
            Decoded::Split(split) => split,
        };
        match cas_fs::read_limited(&git_dir.join(split.base_name()), MAX_INDEX_BYTES) {
            Ok(bytes) => match cas_git::decode_index(&bytes, format).map_err(wrong)? {
                Decoded::Whole(base) => return split.over(&base).map_err(wrong),
                Decoded::Split(_) => {
                    return Err(wrong(IndexError::Link { problem: "the shared index is split itself" }));
                }
            },
            Err(error) if is_absent(&error) && attempt < ATTEMPTS => attempt += 1,
            Err(error) if is_absent(&error) => {
                return Err(wrong(IndexError::Link { problem: "the shared index is not there" }));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_absent(error: &FsError) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.source.kind(), NotFound | NotADirectory)
}
