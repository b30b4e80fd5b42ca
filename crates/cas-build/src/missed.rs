//! What a failed step looked for and was not given, with the line that gives it. Rules: docs/formats/step.md.
//!
//! A guess, made of paths alone: programs look for much that they do not need. So what other targets make comes first, and
//! little is told.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas_config::{Command, Fetch, Label, LockfileKind, TargetKind};
use cas_tree::{Directory, RelPath};

use crate::error::quoted;
use crate::inputs::{Given, Sources, in_package};

/// How many are told.
const MAX_MISSED: usize = 5;
/// What npm and pnpm look for in every folder above. It may hold a token, so no line that would make it an input is told.
const NPMRC: &[u8] = b".npmrc";
/// The folder that package managers fill.
const NODE_MODULES: &[u8] = b"node_modules";

/// A path that a step looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The path, from the workspace's root.
    pub path: RelPath,
    /// What would give it.
    pub advice: String,
}

/// How much it says of why the step failed; the first ones are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// Another target makes it.
    Made,
    /// It is a file of the package.
    Own,
    /// It is a file of another one.
    Foreign,
    /// Programs look for manifests in all folders above.
    Manifest,
}

/// What of `looked` the step was not given.
pub(crate) fn missed(
    sources: &Sources<'_>,
    given: &Given<'_>,
    command: &Command,
    inputs: &Directory,
    looked: &BTreeSet<PathBuf>,
) -> Vec<Missed> {
    let package = given.label.package.as_ref();
    let own = command.outputs.iter().map(|output| &output.value).chain(&command.scratch).chain(&command.cache);
    let own: Vec<RelPath> = own.map(|path| in_package(package, path)).collect();
    let made = Made::new(sources, given);
    let mut found: BTreeMap<(Weight, String), RelPath> = BTreeMap::new();
    for path in looked {
        let Ok(path) = RelPath::new(path.as_os_str().as_bytes()) else { continue };
        let is_own = own.iter().any(|own| path == *own || path.strip_prefix(own).is_some());
        if is_own || inputs.get(&path).is_some() {
            continue;
        }
        if let Some((weight, advice)) = made.advice(&path).or_else(|| of_workspace(sources, package, &path)) {
            // One line is told once, with the first path that it helps.
            found.entry((weight, advice)).or_insert(path);
        }
    }
    found.into_iter().take(MAX_MISSED).map(|((_, advice), path)| Missed { path, advice }).collect()
}

/// What targets make that the step does not depend on.
struct Made {
    outputs: Vec<(RelPath, Label)>,
    lockfile: Option<Label>,
}

impl Made {
    fn new(sources: &Sources<'_>, given: &Given<'_>) -> Self {
        let depends: BTreeSet<&Label> = given.all().into_iter().map(|target| given.graph.label(target)).collect();
        let (mut outputs, mut lockfile, mut has_lockfile) = (Vec::new(), None, false);
        for (label, target) in sources.workspace.targets() {
            let depends = depends.contains(&label);
            match &target.kind {
                TargetKind::Command(other) if !depends && label != *given.label => {
                    let paths = other.outputs.iter().map(|output| in_package(label.package.as_ref(), &output.value));
                    outputs.extend(paths.map(|path| (path, label.clone())));
                }
                TargetKind::Fetch(Fetch::Lockfile(path))
                    if LockfileKind::of(&path.value) != Some(LockfileKind::Cargo) =>
                {
                    has_lockfile |= depends;
                    lockfile = Some(label);
                }
                _ => {}
            }
        }
        Self { outputs, lockfile: lockfile.filter(|_| !has_lockfile) }
    }

    fn advice(&self, path: &RelPath) -> Option<(Weight, String)> {
        let made = self.outputs.iter().find(|(output, _)| path == output || path.strip_prefix(output).is_some());
        let is_module = || path.as_bytes().split(|byte| *byte == b'/').any(|part| part == NODE_MODULES);
        let label = made.map(|(_, label)| label).or_else(|| self.lockfile.as_ref().filter(|_| is_module()))?;
        Some((Weight::Made, format!("`{label}` makes it: add {} to `deps`", quoted(&label.to_string()))))
    }
}

/// A glob that means this path alone.
fn literal(path: &RelPath) -> String {
    let mut glob = String::new();
    for letter in path.to_string().chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '{' | '}' | '!' | '\\') {
            glob.push('\\');
        }
        glob.push(letter);
    }
    glob
}

/// Whether a path is one of git's own folder.
fn is_of_git(path: &RelPath) -> bool {
    path.as_bytes().split(|byte| *byte == b'/').any(|part| part == b".git")
}

/// A file of the workspace that is no input of the step.
fn of_workspace(sources: &Sources<'_>, package: Option<&RelPath>, path: &RelPath) -> Option<(Weight, String)> {
    if is_of_git(path) {
        let advice = "steps see no repository: `stamp` of an image tells the commit";
        return Some((Weight::Made, advice.to_owned()));
    }
    if path.name().as_bytes() == NPMRC {
        return None;
    }
    let on_disk = sources.workspace.root.join(Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())));
    cas_fs::metadata(&on_disk).ok().filter(std::fs::Metadata::is_file)?;
    let mut owner = path.parent();
    while owner.as_ref().is_some_and(|folder| !sources.workspace.packages.contains_key(&Some(folder.clone()))) {
        owner = owner.and_then(|folder| folder.parent());
    }
    let is_known = sources.snapshot.pick(std::slice::from_ref(path)).is_ok_and(|picked| !picked.is_empty());
    if !is_known {
        return Some((Weight::Own, "git ignores it, so it is no input: track it, or let a target make it".to_owned()));
    }
    if owner.as_ref() == package {
        let inside = package.and_then(|package| path.strip_prefix(package)).unwrap_or_else(|| path.clone());
        return Some((Weight::Own, format!("add {} to `inputs`", quoted(&literal(&inside)))));
    }
    let weight = if path.name().as_bytes() == b"package.json" { Weight::Manifest } else { Weight::Foreign };
    Some(match owner {
        None => (weight, format!("add {} to `inputs` of `[workspace]`", quoted(&literal(path)))),
        Some(owner) => (weight, format!("it belongs to `//{owner}`: depend on a target there that gives it")),
    })
}
