//! The workspace as targets see it.

use std::convert::Infallible;
use std::io::Read;
use std::path::Path;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Node, RelPath};

use crate::{Selection, Snapshot, SnapshotError};

fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    for (path, content) in files {
        let at = root.path().join(path);
        cas_fs::create_dir_all(at.parent().expect("below the root")).expect("our folder");
        match content.strip_prefix("->") {
            Some(target) => cas_fs::symlink(Path::new(target), &at).expect("our folder"),
            None => cas_fs::write(&at, content.as_bytes()).expect("our folder"),
        }
    }
    root
}

fn ingest(source: &mut dyn Read) -> Result<Descriptor, Infallible> {
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).expect("the file is readable");
    Ok(Descriptor::of(DigestFunction::Blake3, &bytes))
}

fn tree(snapshot: &Snapshot, selection: &Selection) -> Result<Directory, SnapshotError<Infallible>> {
    snapshot.tree(&snapshot.select(selection)?, &ingest)
}

fn listing(snapshot: &Snapshot, selection: &Selection) -> Vec<String> {
    let tree = tree(snapshot, selection).expect("all of it can be read");
    tree.walk().filter(|(_, node)| node.as_directory().is_none()).map(|(path, _)| path.to_string()).collect()
}

fn package(path: &str, others: &[&str]) -> Selection {
    Selection {
        package: Some(RelPath::new(path).expect("a path")),
        other_packages: others.iter().map(|other| RelPath::new(other).expect("a path")).collect(),
        ..Selection::default()
    }
}

#[test]
fn ignored_files_and_build_descriptions_are_left_out() {
    let root = workspace(&[
        ("a.txt", "a"),
        (".gitignore", "*.log\n/dist\n"),
        ("dist/out", ""),
        ("x.log", ""),
        ("p/.hidden", ""),
        ("p/.gitignore", "!keep.log\nbuild/\n"),
        ("p/keep.log", ""),
        ("p/build/x", ""),
        ("cas.toml", ""),
        ("p/cas.toml", ""),
        ("cas.lock", ""),
        ("cas-out/x", ""),
        (".git/config", ""),
    ]);
    let snapshot = Snapshot::take(root.path()).expect("readable");
    let all = listing(&snapshot, &Selection::default());
    assert_eq!(all, [".gitignore", "a.txt", "p/.gitignore", "p/.hidden", "p/keep.log"]);
}

#[test]
fn packages_do_not_see_each_other() {
    let root = workspace(&[("p/a", ""), ("p/inner/b", ""), ("p/innermost/c", ""), ("q/d", ""), ("shared/e.json", "")]);
    let snapshot = Snapshot::take(root.path()).expect("readable");
    assert_eq!(listing(&snapshot, &package("p", &["p/inner"])), ["p/a", "p/innermost/c"]);
    let with_shared = Selection { workspace_inputs: vec!["shared/*.json".into()], ..package("q", &[]) };
    assert_eq!(listing(&snapshot, &with_shared), ["q/d", "shared/e.json"]);
}

#[test]
fn inputs_are_globs_within_the_package() {
    let root = workspace(&[
        ("p/src/a.js", ""),
        ("p/src/deep/b.js", ""),
        ("p/src/c.ts", ""),
        ("p/README.md", ""),
        ("a b/ü", ""),
    ]);
    let snapshot = Snapshot::take(root.path()).expect("readable");
    for (patterns, expected) in [
        (&["src/*.js"][..], &["p/src/a.js"][..]),
        (&["src/**"], &["p/src/a.js", "p/src/c.ts", "p/src/deep/b.js"]),
        (&["src"], &["p/src/a.js", "p/src/c.ts", "p/src/deep/b.js"]),
        (&["**/*.{js,md}"], &["p/README.md", "p/src/a.js", "p/src/deep/b.js"]),
    ] {
        let inputs = Some(patterns.iter().map(ToString::to_string).collect());
        assert_eq!(listing(&snapshot, &Selection { inputs, ..package("p", &[]) }), expected, "{patterns:?}");
    }
    let nothing = Selection { inputs: Some(vec!["src/*.rs".into()]), ..package("p", &[]) };
    assert!(matches!(tree(&snapshot, &nothing), Err(SnapshotError::NoMatch { pattern, .. }) if pattern == "src/*.rs"));
}

#[test]
fn links_that_leave_and_special_files_are_named() {
    let root = workspace(&[("ok", "->a/b"), ("p/out", "->../../x")]);
    let snapshot = Snapshot::take(root.path()).expect("readable");
    let error = tree(&snapshot, &Selection::default()).expect_err("it leaves");
    assert_eq!(error.to_string(), "symbolic link `p/out` leads to `../../x`, outside of the workspace");

    let root = workspace(&[("a", "")]);
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).expect("a short path");
    let snapshot = Snapshot::take(root.path()).expect("readable");
    let error = tree(&snapshot, &Selection::default()).expect_err("a socket");
    assert_eq!(error.to_string(), "`s` is a socket, which cannot be an input");
}

#[test]
fn only_the_right_to_execute_counts() {
    let root = workspace(&[("a", "x"), ("b", "x")]);
    cas_fs::set_mode(&root.path().join("a"), 0o640).expect("our file");
    cas_fs::set_mode(&root.path().join("b"), 0o700).expect("our file");
    let tree = tree(&Snapshot::take(root.path()).expect("readable"), &Selection::default()).expect("readable");
    let modes: Vec<u32> = tree.walk().filter_map(|(_, node)| node.metadata()).map(|metadata| metadata.mode).collect();
    assert_eq!(modes, [0o644, 0o755]);
    assert!(tree.walk().all(|(_, node)| matches!(node, Node::File { .. })));
}

/// Same size and same modification time: the inode's change time still tells.
#[test]
fn edits_after_reading_are_noticed() {
    let root = workspace(&[("a", "one"), ("b", "two")]);
    let snapshot = Snapshot::take(root.path()).expect("readable");
    tree(&snapshot, &Selection::default()).expect("readable");
    snapshot.verify_unchanged().expect("nobody wrote");
    let at = root.path().join("a");
    let before = cas_fs::metadata(&at).expect("there").modified().expect("Linux has it");
    let mut file = std::fs::OpenOptions::new().write(true).open(&at).expect("our file");
    std::io::Write::write_all(&mut file, b"ONE").expect("the disk has room");
    file.set_modified(before).expect("our file");
    let error = snapshot.verify_unchanged().expect_err("it was edited");
    assert_eq!(error.to_string(), "`a` changed during the build");
}
