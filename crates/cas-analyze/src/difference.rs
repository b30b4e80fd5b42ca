//! How two images differ: configuration, packages, files.

use std::collections::{BTreeMap, BTreeSet};

use cas_blob::Descriptor;
use cas_tree::{DeviceKind, Metadata, Node, RelPath};
use serde_json::Value;

use crate::config::{self, ConfigChange};
use crate::image::{Image, What};
use crate::package::Packages;

/// How two images differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// By key.
    pub config: Vec<ConfigChange>,
    /// By ecosystem and name.
    pub packages: Vec<PackageChange>,
    /// By path.
    pub files: Vec<FileChange>,
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.config.is_empty() && self.packages.is_empty() && self.files.is_empty()
    }
}

/// A package that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageChange {
    /// `deb`, `apk`, `python` or `npm`.
    pub ecosystem: &'static str,
    /// Its name.
    pub name: String,
    /// Versions in the first image.
    pub from: BTreeSet<String>,
    /// Versions in the second one.
    pub to: BTreeSet<String>,
}

/// A path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path.
    pub path: RelPath,
    /// In what: `added`, `removed`, or the fields that differ.
    pub changed: Vec<&'static str>,
    /// What is there in the first image.
    pub from: Option<FileState>,
    /// What is there in the second one.
    pub to: Option<FileState>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileState {
    /// What kind of thing.
    pub kind: &'static str,
    /// Rights, owners and extended attributes.
    pub metadata: Metadata,
    /// Content of a regular file.
    pub content: Option<Descriptor>,
    /// Target of a symbolic link.
    pub target: Option<Box<[u8]>>,
    /// The first name of the same file.
    pub link: Option<RelPath>,
    /// Numbers of a device.
    pub device: Option<(u32, u32)>,
}

/// Compares two images with their configurations.
#[must_use]
pub fn compare(one: (&Image, &Value), other: (&Image, &Value)) -> Difference {
    let (from, to) = (states(one.0), states(other.0));
    let paths: BTreeSet<&RelPath> = from.keys().chain(to.keys()).collect();
    let mut files = Vec::new();
    for path in paths {
        let (from, to) = (from.get(path), to.get(path));
        let changed = changed(from, to);
        if !changed.is_empty() {
            files.push(FileChange { path: path.clone(), changed, from: from.cloned(), to: to.cloned() });
        }
    }
    let (from, to) = (versions(one.0), versions(other.0));
    let names: BTreeSet<&(&'static str, String)> = from.keys().chain(to.keys()).collect();
    let package = |key: &(&'static str, String)| {
        let (from, to) = (from.get(key).cloned().unwrap_or_default(), to.get(key).cloned().unwrap_or_default());
        (from != to).then(|| PackageChange { ecosystem: key.0, name: key.1.clone(), from, to })
    };
    Difference {
        config: config::compare(one.1, other.1),
        packages: names.into_iter().filter_map(package).collect(),
        files,
    }
}

fn versions(image: &Image) -> BTreeMap<(&'static str, String), BTreeSet<String>> {
    let mut versions: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for package in Packages::of(image).packages {
        versions.entry((package.ecosystem, package.name)).or_default().insert(package.version);
    }
    versions
}

fn states(image: &Image) -> BTreeMap<RelPath, FileState> {
    let mut first: BTreeMap<usize, RelPath> = BTreeMap::new();
    let mut states = BTreeMap::new();
    for (path, number) in image.paths() {
        let Some(number) = number else {
            let metadata = Metadata::root_owned(0o755);
            let state =
                FileState { kind: "directory", metadata, content: None, target: None, link: None, device: None };
            states.insert(path, state);
            continue;
        };
        let source = image.entries[number].source;
        let What::Node(node) = &image.entries[source].what else { continue };
        let mut state = FileState {
            kind: "file",
            metadata: node.metadata().cloned().unwrap_or_default(),
            content: None,
            target: None,
            link: None,
            device: None,
        };
        match node {
            Node::File { blob, .. } => {
                state.content = Some(*blob);
                match first.get(&source) {
                    Some(name) => state.link = Some(name.clone()),
                    None => drop(first.insert(source, path.clone())),
                }
            }
            Node::Directory(_) => state.kind = "directory",
            Node::Symlink { target, .. } => {
                state.kind = "symlink";
                state.target = Some(target.clone());
            }
            Node::Device { kind, major, minor, .. } => {
                state.kind = if *kind == DeviceKind::Block { "block" } else { "character" };
                state.device = Some((*major, *minor));
            }
            Node::Fifo { .. } => state.kind = "fifo",
            Node::Link { .. } | Node::Whiteout => continue,
        }
        states.insert(path, state);
    }
    states
}

fn changed(from: Option<&FileState>, to: Option<&FileState>) -> Vec<&'static str> {
    let (from, to) = match (from, to) {
        (None, None) => return Vec::new(),
        (None, Some(_)) => return vec!["added"],
        (Some(_), None) => return vec!["removed"],
        (Some(from), Some(to)) => (from, to),
    };
    let (one, other) = (&from.metadata, &to.metadata);
    let differ = [
        ("type", from.kind != to.kind),
        ("content", from.content != to.content),
        ("mode", one.mode != other.mode),
        ("owner", (one.uid, one.gid) != (other.uid, other.gid)),
        ("target", from.target != to.target),
        ("link", from.link != to.link),
        ("device", from.device != to.device),
        ("xattrs", one.xattrs != other.xattrs),
    ];
    differ.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}
