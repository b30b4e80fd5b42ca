//! The workspace: its packages, their targets, its lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cas_config::{Label, Lock, MAX_MANIFEST_BYTES, Manifest, Pattern, Reference, Target, WorkspaceSection, nearest};
use cas_tree::RelPath;
use globset::{GlobBuilder, GlobMatcher};
use rayon::prelude::*;

use crate::BuildError;
use crate::npm::PACKAGE_JSON;

/// Name of the file that describes a package.
pub const MANIFEST_FILE: &str = "cas.toml";
/// Name of the lock at the root of a workspace.
pub const LOCK_FILE: &str = "cas.lock";

/// Longest lock that is read.
pub(crate) const MAX_LOCK_BYTES: u64 = 64 << 20;

/// A folder with a `cas.toml`.
#[derive(Debug)]
pub struct WorkspacePackage {
    /// What its `cas.toml` says; packages whose files say the same share it.
    pub manifest: Arc<Manifest>,
    /// Its `package.json`, if it has one.
    pub npm: Option<cas_npm::Manifest>,
}

/// What the user wrote.
#[derive(Debug)]
pub struct Workspace {
    /// Its folder.
    pub root: PathBuf,
    /// `[workspace]`
    pub section: WorkspaceSection,
    /// `[mirror]`: where addresses lead that begin with a host, or a host and a path.
    pub mirrors: BTreeMap<String, String>,
    /// By folder; `None` is the root.
    pub packages: BTreeMap<Option<RelPath>, WorkspacePackage>,
    /// What is pinned.
    pub lock: Lock,
    /// The commit whose state it is; `None` for the working tree.
    pub(crate) commit: Option<String>,
    /// Patterns of `members` that select no package.
    idle_members: Vec<String>,
}

impl Workspace {
    /// The root of the workspace that holds `start`.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoWorkspace`], and what stands in the way of reading a `cas.toml`.
    pub fn find(start: &Path) -> Result<PathBuf, BuildError> {
        let start = cas_fs::canonicalize(start)?;
        for folder in start.ancestors() {
            let path = folder.join(MANIFEST_FILE);
            if cas_fs::exists(&path)? {
                let text = read(&path)?;
                // A file that is wrong may still be the root's: its findings are told when it is loaded.
                if text.lines().any(|line| line.trim_start().starts_with("[workspace")) {
                    return Ok(folder.to_owned());
                }
            }
        }
        Err(BuildError::NoWorkspace { start })
    }

    /// Reads every `cas.toml` and the lock.
    ///
    /// # Errors
    ///
    /// [`BuildError::Manifest`], [`BuildError::Lock`], [`BuildError::Members`], [`BuildError::NoWorkspace`].
    pub fn load(root: &Path) -> Result<Self, BuildError> {
        Self::load_from(root, &Disk { root })
    }

    /// Reads every `cas.toml` and the lock where `source` has them. Paths of errors are below `root`.
    pub(crate) fn load_from(root: &Path, source: &dyn Source) -> Result<Self, BuildError> {
        let path = root.join(MANIFEST_FILE);
        let none = || BuildError::NoWorkspace { start: root.to_owned() };
        let text = source.text(None, MANIFEST_FILE)?.ok_or_else(none)?;
        let manifest = checked(&path, text, Manifest::parse)?;
        let (defaults, mirrors) = (manifest.defaults.clone(), manifest.mirrors.clone());
        let section = manifest.workspace.clone().ok_or_else(none)?;
        let npm = package_json(root, source, None)?;
        let mut packages = BTreeMap::from([(None, WorkspacePackage { manifest: Arc::new(manifest), npm })]);
        let mut folders = BTreeSet::new();
        let mut selected = Vec::new();
        for pattern in &section.members {
            let found = members(source, pattern)?;
            folders.extend(found.iter().cloned());
            selected.push((pattern, found));
        }
        // Where a workspace has defaults, many packages say the same.
        let parsed: Mutex<HashMap<String, Arc<Manifest>>> = Mutex::default();
        let read: Vec<Result<(RelPath, Option<WorkspacePackage>), BuildError>> = folders
            .into_par_iter()
            .map(|folder| {
                let at = at(root, Some(&folder));
                let package = match source.text(Some(&folder), MANIFEST_FILE)? {
                    None => None,
                    Some(text) => {
                        let known = parsed.lock().unwrap_or_else(PoisonError::into_inner).get(&text).cloned();
                        let manifest = match known {
                            Some(manifest) => manifest,
                            None => {
                                let parse = |text: &str| Manifest::parse_member(text, &defaults);
                                let manifest = Arc::new(checked(&at.join(MANIFEST_FILE), text.clone(), parse)?);
                                let mut parsed = parsed.lock().unwrap_or_else(PoisonError::into_inner);
                                parsed.insert(text, Arc::clone(&manifest));
                                manifest
                            }
                        };
                        Some(WorkspacePackage { manifest, npm: package_json(root, source, Some(&folder))? })
                    }
                };
                Ok((folder, package))
            })
            .collect();
        // The first one that is wrong is told, whichever thread was first.
        for one in read {
            let (folder, package) = one?;
            packages.extend(package.map(|package| (Some(folder), package)));
        }
        let is_package = |folder: &RelPath| packages.contains_key(&Some(folder.clone()));
        let idle = selected.iter().filter(|(_, found)| !found.iter().any(is_package));
        let idle_members = idle.map(|(pattern, _)| (*pattern).clone()).collect();
        let mut names: BTreeMap<&str, &Option<RelPath>> = BTreeMap::new();
        for (folder, package) in &packages {
            let Some(name) = package.npm.as_ref().and_then(|manifest| manifest.name.as_deref()) else { continue };
            if let Some(other) = names.insert(name, folder) {
                let show =
                    |folder: &Option<RelPath>| folder.as_ref().map_or_else(|| ".".to_owned(), ToString::to_string);
                return Err(BuildError::SameName { name: name.to_owned(), one: show(other), other: show(folder) });
            }
        }
        let lock = match source.bytes(None, LOCK_FILE, MAX_LOCK_BYTES)? {
            Some(bytes) => Lock::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|source| BuildError::Lock { path: root.join(LOCK_FILE), source })?,
            None => Lock::default(),
        };
        Ok(Self { root: root.to_owned(), section, mirrors, packages, lock, commit: None, idle_members })
    }

    /// Patterns of `members` that select no folder with a `cas.toml`, in their order.
    pub fn members_without_packages(&self) -> impl Iterator<Item = &str> {
        self.idle_members.iter().map(String::as_str)
    }

    /// The target of a label.
    #[must_use]
    pub fn target(&self, label: &Label) -> Option<&Target> {
        self.packages.get(&label.package)?.manifest.targets.get(&label.name)
    }

    /// All targets with their labels, in order.
    pub fn targets(&self) -> impl Iterator<Item = (Label, &Target)> {
        self.packages.iter().flat_map(|(folder, package)| {
            package
                .manifest
                .targets
                .iter()
                .map(|(name, target)| (Label { package: folder.clone(), name: name.clone() }, target))
        })
    }

    /// The label that a reference in the package `from` means.
    ///
    /// # Errors
    ///
    /// [`BuildError::UnknownTarget`]
    pub fn resolve(&self, from: Option<&RelPath>, reference: &Reference) -> Result<Label, BuildError> {
        let label = match reference {
            Reference::Own(name) => Label { package: from.cloned(), name: name.clone() },
            Reference::Full(label) => label.clone(),
            // A name with `^` stands for targets of other packages, never for one.
            Reference::Dependencies(name) => {
                return Err(BuildError::UnknownTarget { label: format!("^{name}"), near: Some(format!(":{name}")) });
            }
        };
        if self.target(&label).is_some() { Ok(label) } else { Err(self.unknown(&label)) }
    }

    /// The labels that patterns of the command line select, from the package that `from` is in.
    ///
    /// # Errors
    ///
    /// [`BuildError::UnknownTarget`] also for a folder without targets.
    pub fn select(&self, from: Option<&RelPath>, patterns: &[Pattern]) -> Result<Vec<Label>, BuildError> {
        let mut labels = Vec::new();
        for pattern in patterns {
            match pattern {
                Pattern::One(reference) => labels.push(self.resolve(from, reference)?),
                Pattern::Below(folder) => {
                    let inside = |label: &Label| match (folder, &label.package) {
                        (None, _) => true,
                        (Some(_), None) => false,
                        (Some(folder), Some(package)) => package == folder || package.strip_prefix(folder).is_some(),
                    };
                    let found: Vec<Label> = self.targets().map(|(label, _)| label).filter(inside).collect();
                    if found.is_empty() {
                        let folder = folder.as_ref().map(|folder| format!("{folder}/")).unwrap_or_default();
                        return Err(BuildError::UnknownTarget { label: format!("//{folder}..."), near: None });
                    }
                    labels.extend(found);
                }
            }
        }
        labels.sort();
        labels.dedup();
        Ok(labels)
    }

    pub(crate) fn unknown(&self, label: &Label) -> BuildError {
        let labels: Vec<String> = self.targets().map(|(label, _)| label.to_string()).collect();
        let text = label.to_string();
        let near = nearest(&text, labels.iter().map(String::as_str)).map(str::to_owned);
        BuildError::UnknownTarget { label: text, near }
    }

    /// What is wrong at a place of the `cas.toml` that has a target, as far as that can be read again.
    pub(crate) fn wrong(&self, label: &Label, span: Range<usize>, message: &str, hint: &str) -> BuildError {
        let path = at(&self.root, label.package.as_ref()).join(MANIFEST_FILE);
        let finding =
            cas_config::Diagnostic { message: message.to_owned(), span: Some(span), hint: Some(hint.to_owned()) };
        match read(&path) {
            Ok(text) => BuildError::Manifest { path, text, findings: vec![finding] },
            Err(error) => error,
        }
    }
}

fn read(path: &Path) -> Result<String, BuildError> {
    let wrong = |message: String, hint: &str| {
        let finding = cas_config::Diagnostic { message, span: None, hint: Some(hint.to_owned()) };
        BuildError::Manifest { path: path.to_owned(), text: String::new(), findings: vec![finding] }
    };
    let metadata = cas_fs::metadata(path)?;
    // Nobody waits for whoever might write to a fifo of this name.
    if !metadata.is_file() {
        return Err(wrong("this is no file".to_owned(), "rename or remove what has this name"));
    }
    if metadata.len() > MAX_MANIFEST_BYTES {
        let message = format!("the file is longer than {MAX_MANIFEST_BYTES} bytes");
        return Err(wrong(message, "give folders a `cas.toml` of their own, and name them in `members`"));
    }
    let bytes = cas_fs::read_limited(path, MAX_MANIFEST_BYTES)?;
    String::from_utf8(bytes).map_err(|error| wrong(format!("not UTF-8: {}", error.utf8_error()), "save it as UTF-8"))
}

/// Where the files are that describe a workspace.
pub(crate) trait Source: Sync {
    /// The text of a file of a folder of the workspace, which is a manifest; `None` when it is not there.
    fn text(&self, folder: Option<&RelPath>, name: &str) -> Result<Option<String>, BuildError>;

    /// The bytes of a file of a folder of the workspace; `None` when it is not there.
    fn bytes(&self, folder: Option<&RelPath>, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, BuildError>;

    /// The names of the folders in a folder that may lead to packages.
    fn folders(
        &self,
        folder: Option<&RelPath>,
        is_wanted: &dyn Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, BuildError>;
}

/// The working tree.
struct Disk<'a> {
    root: &'a Path,
}

impl Source for Disk<'_> {
    fn text(&self, folder: Option<&RelPath>, name: &str) -> Result<Option<String>, BuildError> {
        match read(&at(self.root, folder).join(name)) {
            Ok(text) => Ok(Some(text)),
            // Without the root's there is no workspace, and whoever looks for it is told so.
            Err(BuildError::Fs(error)) if error.is_not_found() && folder.is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn bytes(&self, folder: Option<&RelPath>, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, BuildError> {
        match cas_fs::read_limited(&at(self.root, folder).join(name), limit_bytes) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn folders(
        &self,
        folder: Option<&RelPath>,
        is_wanted: &dyn Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, BuildError> {
        let folder = at(self.root, folder);
        let mut names = Vec::new();
        for entry in cas_fs::read_dir(&folder)? {
            if is_wanted(&entry.name) && cas_fs::metadata(&folder.join(&entry.name))?.is_dir() {
                names.push(entry.name);
            }
        }
        Ok(names)
    }
}

/// Where a folder of the workspace at `root` is.
pub(crate) fn at(root: &Path, folder: Option<&RelPath>) -> PathBuf {
    folder.map_or_else(|| root.to_owned(), |folder| root.join(OsStr::from_bytes(folder.as_bytes())))
}

fn package_json(
    root: &Path,
    source: &dyn Source,
    folder: Option<&RelPath>,
) -> Result<Option<cas_npm::Manifest>, BuildError> {
    let Some(bytes) = source.bytes(folder, PACKAGE_JSON, MAX_MANIFEST_BYTES)? else { return Ok(None) };
    let failed = |source| BuildError::PackageJson { path: at(root, folder).join(PACKAGE_JSON), source };
    cas_npm::Manifest::parse(&bytes).map(Some).map_err(failed)
}

fn checked(
    path: &Path,
    text: String,
    parse: impl FnOnce(&str) -> Result<Manifest, Vec<cas_config::Diagnostic>>,
) -> Result<Manifest, BuildError> {
    parse(&text).map_err(|findings| BuildError::Manifest { path: path.to_owned(), text, findings })
}

/// The folders that a pattern of `members` selects, in order. Hidden folders are not looked at.
fn members(source: &dyn Source, pattern: &str) -> Result<Vec<RelPath>, BuildError> {
    let wrong = || BuildError::Members { pattern: pattern.to_owned() };
    let matcher = |part: &str| -> Result<GlobMatcher, BuildError> {
        let glob = GlobBuilder::new(part).literal_separator(true).build().map_err(|_| wrong())?;
        Ok(glob.compile_matcher())
    };
    let mut found: Vec<Option<RelPath>> = vec![None];
    for part in pattern.trim_end_matches('/').split('/') {
        if matches!(part, "" | "." | ".." | "**") {
            return Err(wrong());
        }
        let matcher = matcher(part)?;
        let mut next = Vec::new();
        for parent in found {
            let is_wanted = |name: &OsStr| name.as_bytes().first() != Some(&b'.') && matcher.is_match(Path::new(name));
            for name in source.folders(parent.as_ref(), &is_wanted)? {
                let path = match &parent {
                    None => RelPath::new(name.as_bytes()),
                    Some(parent) => RelPath::new([parent.as_bytes(), b"/", name.as_bytes()].concat()),
                };
                next.push(Some(path.map_err(|_| wrong())?));
            }
        }
        found = next;
    }
    Ok(found.into_iter().flatten().collect())
}
