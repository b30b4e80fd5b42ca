//! What targets gave, below `cas-out/` of the workspace: written anew only where it is not there already.
//!
//! A file in the store says what was put where, and how it looked then. What looks like that is left as it is, so that a
//! build without news costs a look at each file; whatever differs is replaced as a whole. Rules: docs/formats/history.md.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cas_build::{
    BuildError, Destination, Output, Workspace, export_artifact, export_image, history_folder, write_tarball,
};
use cas_config::Label;
use cas_digest::{DigestFunction, Hasher};
use cas_fs::{FsError, Operation};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};
use rayon::prelude::*;

use crate::render::Failure;

/// The folder of outputs at the root of a workspace.
pub(crate) const OUTPUT_FOLDER: &str = "cas-out";
/// The first line of the file of what is there.
const HEAD: &str = "cas placed 1";
/// How often others may be first when a folder is replaced.
const ATTEMPTS: usize = 100;
/// Longest such file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// What was put where: for each label what it is, and how it looked afterwards.
type Known = BTreeMap<String, (String, String)>;

/// Writes what targets gave; returns where each is that has a place.
pub(crate) fn place(
    workspace: &Workspace,
    store: &Store,
    outputs: &BTreeMap<Label, Output>,
) -> Result<BTreeMap<Label, PathBuf>, Failure> {
    let state = history_folder(store, &workspace.root).join("placed");
    // What cannot be read is not known.
    let mut known = cas_fs::read_limited(&state, MAX_BYTES)
        .ok()
        .and_then(|bytes| parse(std::str::from_utf8(&bytes).ok()?))
        .unwrap_or_default();
    let out = workspace.root.join(OUTPUT_FOLDER);
    if cas_fs::symlink_metadata(&out).is_ok_and(|metadata| !metadata.is_dir()) {
        let problem = format!("`{}` is in the way of what targets give: it is no folder", out.display());
        return Err(Failure::Usable(problem, "remove or rename it".to_owned()));
    }
    let outputs: Vec<(&Label, &Output)> = outputs.iter().collect();
    let placed: Vec<Option<Placed>> = outputs
        .par_iter()
        .map(|(label, output)| one(workspace, store, &known, label, output))
        .collect::<Result<_, _>>()?;
    let (mut paths, mut is_changed) = (BTreeMap::new(), false);
    for ((label, _), placed) in outputs.into_iter().zip(placed) {
        let Some(Placed { path, new }) = placed else { continue };
        paths.insert(label.clone(), path);
        if let Some(new) = new {
            known.insert(label.to_string(), new);
            is_changed = true;
        }
    }
    if is_changed {
        // What cannot be written down is written out again next time.
        let _ = cas_fs::create_dir_all(state.parent().unwrap_or(Path::new("/")))
            .and_then(|()| cas_fs::replace(&state, to_text(&known).as_bytes()));
    }
    Ok(paths)
}

struct Placed {
    path: PathBuf,
    /// What it is and how it looks, if it was written.
    new: Option<(String, String)>,
}

fn one(
    workspace: &Workspace,
    store: &Store,
    known: &Known,
    label: &Label,
    output: &Output,
) -> Result<Option<Placed>, Failure> {
    let mut folder = workspace.root.join(OUTPUT_FOLDER);
    if let Some(package) = &label.package {
        folder.push(package.to_string());
    }
    folder.push(&*label.name);
    let (what, path) = match output {
        Output::Image(image) => (format!("image {}", image.document()), folder.clone()),
        Output::Artifact(artifact) => (format!("artifact {}", artifact.manifest), folder.clone()),
        Output::Tarball(tarball) => (format!("tarball {}", tarball.recipe.blob), folder.join(&tarball.file_name)),
        Output::Download(download) => (format!("file {}", download.blob), folder.join(&download.file_name)),
        Output::Files(files) if !files.paths.is_empty() => (format!("files {}", files.name), folder.clone()),
        _ => return Ok(None),
    };
    // A file's name is not part of what it holds.
    let what = format!("{what} {}", path.file_name().unwrap_or_default().to_string_lossy());
    if let Some((kept, looks)) = known.get(&label.to_string())
        && *kept == what
        && look(&path).is_ok_and(|now| now == *looks)
    {
        return Ok(Some(Placed { path, new: None }));
    }
    match output {
        Output::Image(image) => {
            let destination = Destination::Layout { folder, tag: label.name.to_string() };
            match export_image(store, image, &destination) {
                // What is below `cas-out/` is made anew where it is not as it was.
                Err(BuildError::LayoutIndex { path, .. }) => {
                    cas_fs::remove_file(&path).map_err(BuildError::from)?;
                    export_image(store, image, &destination)?;
                }
                exported => exported.map_err(of_workspace)?,
            }
        }
        Output::Artifact(artifact) => {
            let destination = Destination::Layout { folder, tag: label.name.to_string() };
            export_artifact(store, artifact, &destination)?;
        }
        Output::Tarball(tarball) => {
            write_tarball(store, tarball, &folder).map_err(of_workspace)?;
        }
        Output::Download(download) => {
            let mut tree = Directory::root();
            let name = RelPath::new(&download.file_name).expect("a download's name is one");
            tree.insert(&name, Node::file(download.blob, 0o644), &Metadata::default()).expect("the tree is empty");
            write_out(store, &tree, &folder)?;
        }
        Output::Files(files) => {
            let tree = match &label.package {
                None => files.tree(store)?.clone(),
                Some(package) => files.tree(store)?.subtree(package).unwrap_or_else(Directory::root),
            };
            write_out(store, &tree, &folder)?;
        }
        Output::Toolchain(_) | Output::Package(_) | Output::Packages(_) | Output::Crates(_) => {}
    }
    // Another build may be replacing it this moment: then nobody knows how it looks.
    let new = look(&path).ok().map(|looks| (what, looks));
    Ok(Some(Placed { path, new }))
}

/// Nobody named this place: where the whole workspace cannot be written, another place for one output is no way out.
fn of_workspace(error: BuildError) -> BuildError {
    match error {
        BuildError::NotWritten { path, source } if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            FsError::new(Operation::Write, &path, source).into()
        }
        other => other,
    }
}

/// How everything at a path looks: names, kinds, and of files rights, sizes, inodes and times.
fn look(path: &Path) -> Result<String, FsError> {
    let mut hasher = Hasher::new(DigestFunction::Blake3);
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = cas_fs::symlink_metadata(&path)?;
        let name = path.as_os_str().as_bytes();
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(&metadata.mode().to_le_bytes());
        if metadata.is_dir() {
            // A folder's own times move with its names, which are looked at themselves.
            let mut entries = cas_fs::read_dir(&path)?;
            entries.sort_by(|a, b| b.name.cmp(&a.name));
            open.extend(entries.into_iter().map(|entry| path.join(entry.name)));
            continue;
        }
        for number in [metadata.dev(), metadata.ino(), metadata.size()] {
            hasher.update(&number.to_le_bytes());
        }
        for number in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
            hasher.update(&number.to_le_bytes());
        }
    }
    Ok(hasher.finish().to_hex())
}

fn parse(text: &str) -> Option<Known> {
    let mut lines = text.lines();
    (lines.next()? == HEAD).then_some(())?;
    let mut known = Known::new();
    for line in lines {
        let mut parts = line.split('\t');
        let (label, what, looks) = (parts.next()?, parts.next()?, parts.next()?);
        known.insert(label.to_owned(), (what.to_owned(), looks.to_owned()));
    }
    Some(known)
}

fn to_text(known: &Known) -> String {
    let mut text = format!("{HEAD}\n");
    for (label, (what, looks)) in known {
        // What would not be read as it is written is not known next time.
        if [label, what].iter().all(|part| !part.contains(['\t', '\n', '\r'])) {
            text.push_str(&format!("{label}\t{what}\t{looks}\n"));
        }
    }
    text
}

/// Puts a tree in the place of whatever is there; never half of it.
fn write_out(store: &Store, tree: &Directory, folder: &Path) -> Result<(), Failure> {
    let parent = folder.parent().unwrap_or(Path::new("."));
    cas_fs::create_dir_all(parent).map_err(BuildError::from)?;
    let temporary = cas_fs::temporary_dir_in(parent, ".cas-").map_err(BuildError::from)?;
    let written = store.write_tree(tree, &temporary.join("new")).map_err(BuildError::from).and_then(|()| {
        cas_fs::set_mode(&temporary.join("new"), 0o755)?;
        Ok(replace_folder(&temporary, folder)?)
    });
    let removed = cas_fs::remove_tree(&temporary);
    written?;
    Ok(removed.map_err(BuildError::from)?)
}

/// Puts `new` of a folder of one's own in the place of another folder or file, which goes to the own one.
///
/// Another build may do the same at the same time: then what is in the way is another one than a moment ago.
fn replace_folder(own: &Path, folder: &Path) -> Result<(), FsError> {
    let mut attempt = 0;
    loop {
        match cas_fs::rename(folder, &own.join(format!("old-{attempt}"))) {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        match cas_fs::rename(&own.join("new"), folder) {
            Ok(()) => return Ok(()),
            Err(error) if attempt < ATTEMPTS && is_in_the_way(&error) => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn is_in_the_way(error: &FsError) -> bool {
    use std::io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(error.source.kind(), AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

#[cfg(test)]
mod tests {
    use cas_digest::Digest;

    use super::*;

    #[test]
    fn what_was_placed_is_read_as_it_was_written() {
        let digest = Digest::of(DigestFunction::Blake3, b"x").to_hex();
        let known = Known::from([
            ("//:a".to_owned(), ("files x a".to_owned(), digest.clone())),
            ("//b c:d".to_owned(), ("file y name with space".to_owned(), digest.clone())),
        ]);
        assert_eq!(parse(&to_text(&known)), Some(known));
        let odd = Known::from([("//:a".to_owned(), ("file y tab\there".to_owned(), digest))]);
        assert_eq!(parse(&to_text(&odd)), Some(Known::new()));
        assert_eq!(parse("cas placed 2\n"), None);
        assert_eq!(parse("cas placed 1\nx\ty\n"), None);
    }

    #[test]
    fn many_replace_one_folder_at_once() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let target = home.path().join("out");
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (home, target) = (home.path(), &target);
                scope.spawn(move || {
                    for round in 0..50 {
                        let own = home.join(format!("own-{number}-{round}"));
                        cas_fs::create_dir_all(&own.join("new")).expect("the disk has room");
                        cas_fs::write(&own.join("new/file"), b"whole").expect("the disk has room");
                        replace_folder(&own, target).expect("nobody is in the way for ever");
                    }
                });
            }
        });
        assert_eq!(cas_fs::read(&target.join("file")).expect("it is whole"), b"whole");
    }

    #[test]
    fn a_look_sees_every_change_of_a_file() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let at = home.path().join("out");
        cas_fs::create_dir_all(&at.join("below")).expect("the disk has room");
        let file = at.join("below/file");
        cas_fs::write(&file, b"one").expect("the disk has room");
        let before = look(&at).expect("it is there");
        assert_eq!(look(&at).expect("it is there"), before);
        let mut seen = vec![before];
        let mut check = |what: &str| {
            let now = look(&at).expect("it is there");
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        // Times of older kernels move every four milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        cas_fs::write(&file, b"two").expect("the disk has room");
        check("content of the same size");
        cas_fs::set_mode(&file, 0o600).expect("it is there");
        check("rights");
        cas_fs::rename(&file, &at.join("below/other")).expect("it is there");
        check("name");
        cas_fs::write(&at.join("new"), b"").expect("the disk has room");
        check("a new file");
        cas_fs::remove_file(&at.join("below/other")).expect("it is there");
        check("a file that is gone");
    }
}
