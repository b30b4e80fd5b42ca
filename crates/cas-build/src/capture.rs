//! From what a step wrote to its outputs. Rules: docs/formats/step.md.

use std::fs::File;
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cas_digest::DigestFunction;
use cas_fs::{FsError, Operation};
use cas_sandbox::{Change, Kind};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::BuildError;
use crate::secret::Finder;

/// Folders in a package that tools use for themselves; writes there are dropped as those in `scratch` are.
const ALWAYS_SCRATCH: [&str; 4] = [".cache", ".turbo", ".npm", "node_modules/.cache"];
/// The folder that package managers fill, and tools use.
const NODE_MODULES: &[u8] = b"node_modules";
/// Most names of one kind that an error tells.
const MAX_TOLD: usize = 8;

/// What a step may do in `/src`; paths are those of the workspace.
pub(crate) struct Allowed<'a> {
    pub(crate) label: String,
    pub(crate) package: Option<&'a RelPath>,
    pub(crate) outputs: &'a [RelPath],
    pub(crate) scratch: &'a [RelPath],
    /// Finds what must not be kept.
    pub(crate) secrets: Option<&'a Finder>,
}

impl Allowed<'_> {
    /// A path as the package's manifest names it.
    fn in_package(&self, path: &RelPath) -> Option<RelPath> {
        self.package.map_or_else(|| Some(path.clone()), |package| path.strip_prefix(package))
    }

    fn is_output(&self, path: &RelPath) -> bool {
        self.outputs.iter().any(|output| is_at_or_below(path, output))
    }

    fn is_above_output(&self, path: &RelPath) -> bool {
        self.outputs.iter().any(|output| output.strip_prefix(path).is_some())
    }

    fn is_scratch(&self, path: &RelPath) -> bool {
        let always = ALWAYS_SCRATCH
            .iter()
            .map(|text| crate::inputs::in_package(self.package, &RelPath::new(text).expect("they are paths")));
        self.scratch.iter().any(|scratch| is_at_or_below(path, scratch))
            // A folder that is only there to hold one of them was made for it.
            || always.clone().any(|scratch| is_at_or_below(path, &scratch) || scratch.strip_prefix(path).is_some())
    }
}

impl Allowed<'_> {
    /// Fails when a secret is in the bytes.
    fn check(&self, bytes: &[u8], place: impl FnOnce() -> String) -> Result<(), BuildError> {
        match self.secrets.and_then(|secrets| secrets.find(bytes)) {
            None => Ok(()),
            Some(name) => {
                Err(BuildError::SecretLeft { label: self.label.clone(), name: name.to_owned(), place: place() })
            }
        }
    }

    /// Fails when a secret is in a file; before anything of it is kept.
    fn check_file(&self, file: &mut File, path: &RelPath) -> Result<(), BuildError> {
        let Some(secrets) = self.secrets else { return Ok(()) };
        let found = secrets.find_in(&mut *file).and_then(|found| file.rewind().map(|()| found));
        match found.map_err(|error| FsError::new(Operation::Read, path.to_string().as_ref(), error))? {
            None => Ok(()),
            Some(name) => {
                let place = format!("into `{path}`");
                Err(BuildError::SecretLeft { label: self.label.clone(), name: name.to_owned(), place })
            }
        }
    }
}

fn is_at_or_below(path: &RelPath, folder: &RelPath) -> bool {
    path == folder || path.strip_prefix(folder).is_some()
}

/// Whether a path is at or below a hidden entry of a `node_modules`, and the step was not given that entry: tools keep there what
/// they know from one run to the next, also in the one at the root, and no step could name each of them.
fn is_of_tools(inputs: &Directory, path: &RelPath) -> bool {
    let mut at = Some(path.clone());
    while let Some(entry) = at {
        let Some(folder) = entry.parent() else { return false };
        if folder.name().as_bytes() == NODE_MODULES && entry.name().as_bytes().starts_with(b".") {
            return inputs.get(&entry).is_none();
        }
        at = Some(folder);
    }
    false
}

/// The tree of the outputs, with paths of the workspace; their content is in the store.
///
/// `inputs` is what the step saw; what it changed comes with the folder that holds it.
pub(crate) fn outputs(
    store: &Store,
    function: DigestFunction,
    allowed: &Allowed<'_>,
    inputs: &Directory,
    (upper, changes): &(PathBuf, Vec<Change>),
) -> Result<Directory, BuildError> {
    let parents = Metadata::root_owned(0o755);
    let mut outputs = Directory::root();
    for path in allowed.outputs {
        // What a dependency gave there is in the output as well.
        if let Some(node) = inputs.get(path) {
            outputs.insert(path, node.clone(), &parents).map_err(|source| BuildError::Place { source })?;
        }
    }
    let (mut undeclared, mut overwritten) = (Vec::new(), Vec::new());
    for change in changes {
        let path = change.path().clone();
        // Also what is dropped may be named in an error.
        allowed.check(path.as_bytes(), || "into the name of a file".to_owned())?;
        if !allowed.is_output(&path) {
            if allowed.is_scratch(&path) {
                continue;
            }
            let input = inputs.get(&path);
            let fine = match change {
                Change::Written { kind: Kind::Directory, .. } => {
                    allowed.is_above_output(&path)
                        || matches!(input, Some(Node::Directory(_)))
                        // Made for what tools keep in it; anything else there is told by itself.
                        || path.name().as_bytes() == NODE_MODULES
                }
                // Only a directory that hides nothing is marked so and was no input.
                Change::Opaque { .. } => input.is_none(),
                Change::Removed { .. } => false,
                Change::Written { kind, mode, .. } => {
                    input.is_some_and(|input| is_unchanged(inputs, input, *kind, *mode, &at(upper, &path), function))
                }
            };
            match input {
                _ if fine => {}
                Some(_) => overwritten.push(path),
                None if is_of_tools(inputs, &path) => {}
                None => undeclared.push(path),
            }
            continue;
        }
        match change {
            Change::Removed { .. } => {
                outputs.remove(&path);
            }
            Change::Opaque { .. } => {
                if matches!(inputs.get(&path), Some(Node::Directory(_))) {
                    insert(&mut outputs, &path, empty())?;
                }
            }
            Change::Written { kind, mode, .. } => {
                let node = match *kind {
                    Kind::File => {
                        let mut file = cas_fs::open_no_follow(&at(upper, &path))?;
                        allowed.check_file(&mut file, &path)?;
                        Node::file(store.put(function, &mut file)?, if mode & 0o100 != 0 { 0o755 } else { 0o644 })
                    }
                    Kind::Symlink => {
                        let target = link_target(&at(upper, &path))?;
                        allowed.check(&target, || format!("into the link `{path}`"))?;
                        Node::symlink(target)
                    }
                    Kind::Directory if matches!(outputs.get(&path), Some(Node::Directory(_))) => continue,
                    Kind::Directory => empty(),
                    Kind::Fifo => return Err(special(allowed, &path, "fifo")),
                    Kind::Socket => return Err(special(allowed, &path, "socket")),
                    Kind::Device => return Err(special(allowed, &path, "device")),
                };
                insert(&mut outputs, &path, node)?;
            }
        }
    }
    if !overwritten.is_empty() {
        return Err(BuildError::InputWritten { label: allowed.label.clone(), paths: told(&overwritten) });
    }
    let missing: Vec<RelPath> = allowed.outputs.iter().filter(|path| outputs.get(path).is_none()).cloned().collect();
    // One mistake in a name is both; then the missing one says more.
    if !missing.is_empty() {
        let written = told(&undeclared);
        return Err(BuildError::OutputMissing { label: allowed.label.clone(), paths: told(&missing), written });
    }
    if !undeclared.is_empty() {
        let undeclared = topmost(undeclared);
        let names: Vec<RelPath> = undeclared.iter().filter_map(|path| allowed.in_package(path)).collect();
        // What is outside of the package cannot be declared.
        let names = if names.len() == undeclared.len() { names } else { Vec::new() };
        return Err(BuildError::Undeclared { label: allowed.label.clone(), paths: told(&undeclared), names });
    }
    Ok(outputs)
}

/// Without what is in a folder that is there itself.
fn topmost(mut paths: Vec<RelPath>) -> Vec<RelPath> {
    paths.sort();
    let mut top: Vec<RelPath> = Vec::new();
    for path in paths {
        if !top.iter().rev().any(|above| path.strip_prefix(above).is_some()) {
            top.push(path);
        }
    }
    top
}

fn insert(tree: &mut Directory, path: &RelPath, node: Node) -> Result<(), BuildError> {
    tree.insert(path, node, &Metadata::root_owned(0o755)).map_err(|source| BuildError::Place { source })
}

fn empty() -> Node {
    Node::Directory(Arc::new(Directory::new(Metadata::root_owned(0o755))))
}

fn special(allowed: &Allowed<'_>, path: &RelPath, kind: &'static str) -> BuildError {
    BuildError::OutputKind { label: allowed.label.clone(), path: path.clone(), kind }
}

fn told(paths: &[RelPath]) -> String {
    let mut text =
        paths.iter().take(MAX_TOLD).map(|path| format!("`{}`", on_one_line(path))).collect::<Vec<_>>().join(", ");
    if paths.len() > MAX_TOLD {
        text.push_str(&format!(" and {} more", paths.len() - MAX_TOLD));
    }
    text
}

/// A path as part of a line: a step chose it, and must not write lines of its own.
fn on_one_line(path: &RelPath) -> String {
    let text = path.to_string();
    let letters = text.chars().map(|letter| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    });
    letters.collect()
}

fn at(upper: &Path, path: &RelPath) -> std::path::PathBuf {
    upper.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.as_bytes()))
}

fn link_target(path: &Path) -> Result<Vec<u8>, BuildError> {
    Ok(std::os::unix::ffi::OsStringExt::into_vec(cas_fs::read_link(path)?.into_os_string()))
}

/// Whether what is at an input's path now is what was there: tools touch files, or write what they read.
fn is_unchanged(
    inputs: &Directory,
    input: &Node,
    kind: Kind,
    mode: u32,
    file: &Path,
    function: DigestFunction,
) -> bool {
    match (kind, input) {
        (Kind::Symlink, Node::Symlink { target, .. }) => link_target(file).is_ok_and(|now| now[..] == target[..]),
        (Kind::File, _) => inputs.file_of(input).is_some_and(|(metadata, blob)| {
            let same_right = (metadata.mode & 0o100 != 0) == (mode & 0o100 != 0);
            let now = cas_fs::open_no_follow(file).ok().and_then(|mut content| {
                let mut writer = cas_digest::HashingWriter::new(std::io::sink(), &[function]);
                std::io::copy(&mut content, &mut writer).ok()?;
                let (_, digests, size) = writer.finish();
                Some(cas_blob::Descriptor { digest: digests[0], size })
            });
            same_right && now == Some(blob)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_entries_of_node_modules_are_those_of_tools() {
        let path = |text: &str| RelPath::new(text).expect("it is a path");
        let mut inputs = Directory::root();
        insert(&mut inputs, &path("node_modules/.pnpm/x"), empty()).expect("there is room");
        for (text, expected) in [
            ("node_modules/.vite", true),
            ("node_modules/.vite-temp/config.mjs", true),
            ("packages/a/node_modules/.vite/vitest/results.json", true),
            // What is installed is not theirs.
            ("node_modules/.pnpm/y", false),
            ("node_modules/y/.cache", false),
            ("node_modules", false),
            (".vite/x", false),
        ] {
            assert_eq!(is_of_tools(&inputs, &path(text)), expected, "{text}");
        }
    }
}
