//! The folder that is looked at: its files, and which of them git ignores.
//!
//! Paths are texts from the folder on, with `/` between names and no `.` or `..`; the folder itself is the empty one. Names
//! that are not UTF-8 are passed over: no description of a package has them. Reading is limited in bytes and in folders.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::InitError;
use crate::jsonc::Document;

/// Longest file of a description that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most folders that one search enters.
const MAX_FOLDERS: usize = 100_000;
/// Longest `.gitignore` that is read; as in a snapshot.
const MAX_GITIGNORE_BYTES: u64 = 4 << 20;
/// Folders that hold what was installed or made, whatever git says.
const NEVER_ENTERED: [&str; 4] = ["node_modules", "target", "vendor", "cas-out"];

pub(crate) struct Folder {
    root: PathBuf,
    rules: RefCell<BTreeMap<String, Option<Rc<Gitignore>>>>,
}

/// What is called for a folder, with what is in it; says whether to go on below.
type Visit<'a> = dyn FnMut(&str, &[Entry]) -> Result<bool, InitError> + 'a;

/// One name in a folder.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) is_dir: bool,
}

impl Folder {
    pub(crate) fn new(root: &Path) -> Result<Self, InitError> {
        Ok(Self { root: cas_fs::canonicalize(root)?, rules: RefCell::default() })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    pub(crate) fn exists(&self, path: &str) -> Result<bool, InitError> {
        Ok(cas_fs::exists(&self.at(path))?)
    }

    pub(crate) fn is_file(&self, path: &str) -> bool {
        cas_fs::metadata(&self.at(path)).is_ok_and(|metadata| metadata.is_file())
    }

    pub(crate) fn is_dir(&self, path: &str) -> bool {
        cas_fs::metadata(&self.at(path)).is_ok_and(|metadata| metadata.is_dir())
    }

    /// What is in a folder, sorted; nothing where there is none.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Entry>, InitError> {
        match cas_fs::read_dir(&self.at(path)) {
            Ok(entries) => Ok(entries
                .into_iter()
                .filter_map(|entry| Some(Entry { name: entry.name.into_string().ok()?, is_dir: entry.is_dir }))
                .collect()),
            Err(error) if is_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// A whole file of text; `None` where there is none.
    pub(crate) fn read(&self, path: &str) -> Result<Option<String>, InitError> {
        self.read_up_to(path, MAX_FILE_BYTES)
    }

    pub(crate) fn read_up_to(&self, path: &str, limit_bytes: u64) -> Result<Option<String>, InitError> {
        if !self.is_file(path) {
            return Ok(None);
        }
        match cas_fs::read_limited(&self.at(path), limit_bytes) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(InitError::NotText { path: path.to_owned() }),
            },
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn json(&self, path: &str) -> Result<Option<Document>, InitError> {
        self.read(path)?.map(|text| Document::parse(path, text)).transpose()
    }

    /// Whether a `.gitignore` of this folder names a path, or a folder above it.
    pub(crate) fn is_ignored(&self, path: &str, is_dir: bool) -> bool {
        let mut end = 0;
        while let Some(next) = path[end..].find('/') {
            end += next;
            if self.is_named(&path[..end], true) {
                return true;
            }
            end += 1;
        }
        !path.is_empty() && self.is_named(path, is_dir)
    }

    fn is_named(&self, path: &str, is_dir: bool) -> bool {
        let mut folder = parent(path);
        loop {
            if let Some(rules) = self.rules(folder) {
                let found = rules.matched(Path::new(path), is_dir);
                if !found.is_none() {
                    return found.is_ignore();
                }
            }
            if folder.is_empty() {
                return false;
            }
            folder = parent(folder);
        }
    }

    fn rules(&self, folder: &str) -> Option<Rc<Gitignore>> {
        if let Some(known) = self.rules.borrow().get(folder) {
            return known.clone();
        }
        // A `.gitignore` that cannot be read or understood is an error of the build, which names it; here it says nothing.
        let rules =
            cas_fs::read_limited(&self.at(&join(folder, ".gitignore")), MAX_GITIGNORE_BYTES).ok().and_then(|bytes| {
                let mut builder = GitignoreBuilder::new(Path::new(folder));
                for line in String::from_utf8_lossy(&bytes).lines() {
                    let _ = builder.add_line(None, line);
                }
                builder.build().ok().map(Rc::new)
            });
        self.rules.borrow_mut().insert(folder.to_owned(), rules.clone());
        rules
    }

    /// Calls `visit` for every folder below `from`, itself first, in order, that git does not ignore and is not hidden.
    ///
    /// `visit` gets what is in it, and says whether to go on below.
    pub(crate) fn walk(&self, from: &str, max_depth: usize, visit: &mut Visit<'_>) -> Result<(), InitError> {
        let mut open = vec![(from.to_owned(), 0)];
        let mut count = 0;
        while let Some((path, depth)) = open.pop() {
            count += 1;
            if count > MAX_FOLDERS {
                return Err(InitError::TooMany { what: "folders", limit: MAX_FOLDERS });
            }
            let entries = self.list(&path)?;
            if !visit(&path, &entries)? || depth == max_depth {
                continue;
            }
            for entry in entries.iter().rev().filter(|entry| entry.is_dir) {
                let below = join(&path, &entry.name);
                let is_passed = entry.name.starts_with('.') || NEVER_ENTERED.contains(&entry.name.as_str());
                if !is_passed && !self.is_ignored(&below, true) {
                    open.push((below, depth + 1));
                }
            }
        }
        Ok(())
    }
}

fn is_absent(error: &cas_fs::FsError) -> bool {
    error.is_not_found() || error.source.kind() == std::io::ErrorKind::NotADirectory
}

/// The folder of a path.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(crate) fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A relative path from a folder; `None` when it leaves the root.
pub(crate) fn resolve(folder: &str, relative: &str) -> Option<String> {
    if relative.starts_with('/') || relative.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// What is left of a path below a folder; `None` when it is not at or below it.
pub(crate) fn below<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    if folder.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}
