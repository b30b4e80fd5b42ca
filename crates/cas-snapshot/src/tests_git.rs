//! The workspace as a part of git repositories, with git itself as the judge.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cas_digest::DigestFunction;
use cas_tree::RelPath;

use crate::{Options, Selection, Snapshot, SnapshotError, Trust};

/// Runs git without the settings of the machine. git is a tool that working on `cas` needs.
pub(crate) fn git(root: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always", "-c", "user.name=n", "-c", "user.email=e@example"])
        .args(arguments)
        .current_dir(root)
        .env("HOME", root)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .expect("git is there");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn write(root: &Path, path: &str, content: &str) {
    let at = root.join(path);
    cas_fs::create_dir_all(at.parent().expect("below the root")).expect("our folder");
    cas_fs::write(&at, content.as_bytes()).expect("our folder");
}

fn take(root: &Path, caches: Option<&Path>) -> Result<Snapshot, SnapshotError> {
    Snapshot::take(root, &Options { function: DigestFunction::Blake3, trust: Trust::Local, caches, watchers: None })
}

fn listing(snapshot: &Snapshot) -> Vec<String> {
    let picked = snapshot.select(&Selection::default()).expect("nothing is missing");
    snapshot.fingerprint(&picked).expect("readable");
    snapshot.paths(&picked).map(|path| path.to_string()).collect()
}

/// Tracked files that are there and untracked ones that are not ignored, below a folder.
fn theirs(root: &Path) -> Vec<String> {
    let text = git(root, &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let paths = text.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    let paths = paths.map(|path| RelPath::new(path).expect("a path"));
    let is_file = |path: &RelPath| {
        let path = path.to_string();
        let never = path.split('/').any(|part| matches!(part, "cas.toml" | "cas.lock" | "cas-out"));
        !never && cas_fs::symlink_metadata(&root.join(&path)).is_ok_and(|metadata| !metadata.is_dir())
    };
    paths.filter(is_file).collect::<BTreeSet<_>>().into_iter().map(|path| path.to_string()).collect()
}

/// Takes snapshots with and without a cache, and compares what belongs to the workspace with what git says.
#[track_caller]
fn check(root: &Path, caches: &Path, what: &str) -> Vec<String> {
    let theirs = theirs(root);
    assert_eq!(listing(&take(root, None).expect("readable")), theirs, "{what}");
    for round in 0..2 {
        let snapshot = take(root, Some(caches)).expect("readable");
        assert_eq!(listing(&snapshot), theirs, "{what}, round {round} with the cache");
        snapshot.save().expect("the disk has room");
    }
    theirs
}

/// A repository with files that a `.gitignore` names and git tracks.
fn repository(format: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    git(root.path(), &["init", "-q", &format!("--object-format={format}")]);
    for (path, content) in [
        ("a.txt", "a"),
        (".gitignore", "*.o\n/build/\nvendor\n"),
        ("tracked.o", "o"),
        ("untracked.o", "o"),
        ("build/tracked/deep/x", "x"),
        ("build/tracked/y", "x"),
        ("build/.gitignore", "!*\n"),
        ("vendor/tracked", "x"),
        ("vendor/untracked", "x"),
        ("p/.gitignore", "link\n!keep.o\n"),
        ("p/keep.o", "o"),
        ("p/other.o", "o"),
        ("q/.gitignore", "*.x\n"),
        ("q/tracked.x", ""),
        ("q/untracked.x", ""),
        ("cas.toml", ""),
    ] {
        write(root.path(), path, content);
    }
    cas_fs::symlink(Path::new("../a.txt"), &root.path().join("p/link")).expect("our folder");
    git(root.path(), &["add", "."]);
    git(root.path(), &["add", "-f", "tracked.o", "build/tracked/deep/x", "vendor/tracked", "p/link", "q/tracked.x"]);
    git(root.path(), &["commit", "-qm", "first"]);
    root
}

#[test]
fn tracked_files_belong_whatever_a_gitignore_says() {
    for format in ["sha1", "sha256"] {
        let root = repository(format);
        let caches = tempfile::tempdir().expect("the temporary folder is writable");
        let (root, caches) = (root.path(), caches.path());
        let listed = check(root, caches, "version 2");
        for path in ["tracked.o", "build/tracked/deep/x", "vendor/tracked", "p/link"] {
            assert!(listed.contains(&path.to_owned()), "{path}");
        }
        for path in ["build/tracked/y", "untracked.o", "build/.gitignore"] {
            assert!(!listed.contains(&path.to_owned()), "{path}");
        }
        git(root, &["update-index", "--index-version", "4"]);
        check(root, caches, "version 4");
        git(root, &["update-index", "--split-index"]);
        git(root, &["add", "-f", "untracked.o"]);
        check(root, caches, "split");
        git(root, &["update-index", "--no-split-index"]);
        git(root, &["worktree", "add", "-q", "--detach", &root.join("build/tree").display().to_string()]);
        check(&root.join("build/tree"), caches, "worktree");
        git(root, &["worktree", "remove", "--force", "build/tree"]);
        assert_eq!(check(&root.join("q"), caches, "a folder of the repository"), [".gitignore", "tracked.x"]);
    }
}

/// The index changes without any change of the folder whose names it decides about.
#[test]
fn the_cache_follows_the_index() {
    let root = repository("sha1");
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    let (root, caches) = (root.path(), caches.path());
    // Old enough for every file system's times.
    check(root, caches, "at first");
    let steps: [&[&str]; 10] = [
        &["rm", "-q", "--cached", "tracked.o"],
        &["add", "-f", "untracked.o"],
        &["rm", "-q", "--cached", "p/link"],
        &["add", "-f", "p/link"],
        &["rm", "-q", "--cached", "build/tracked/deep/x"],
        &["add", "-f", "build/tracked"],
        &["rm", "-q", "-r", "--cached", "build"],
        &["add", "-f", "build/.gitignore"],
        &["rm", "-q", "--cached", "vendor/tracked"],
        &["rm", "-q", "-r", "--cached", "."],
    ];
    let mut seen = vec![listing(&take(root, None).expect("readable"))];
    for step in steps {
        git(root, step);
        let listed = check(root, caches, &format!("{step:?}"));
        assert_ne!(seen.last(), Some(&listed), "{step:?} changes something");
        seen.push(listed);
    }
    write(root, "build/.gitignore", "other");
    git(root, &["add", "-f", "build/.gitignore"]);
    write(root, "build/.gitignore", "OTHER");
    check(root, caches, "edited");
    cas_fs::rename(&root.join(".git"), &root.join(".gone")).expect("our folder");
    assert!(!listing(&take(root, Some(caches)).expect("readable")).contains(&"build/.gitignore".to_owned()));
}

fn selection(package: &str, inputs: Option<&[&str]>) -> Selection {
    let package = (!package.is_empty()).then(|| RelPath::new(package).expect("a path"));
    let inputs = inputs.map(|inputs| inputs.iter().map(ToString::to_string).collect());
    Selection { package, inputs, ..Selection::default() }
}

#[track_caller]
fn fails(root: &Path, package: &str, inputs: Option<&[&str]>) -> Option<(String, String)> {
    let snapshot = take(root, None).expect("readable");
    let error = snapshot.select(&selection(package, inputs)).err()?;
    assert!(matches!(error, SnapshotError::Sparse { .. } | SnapshotError::Submodule { .. }), "{error}");
    Some((error.to_string(), error.hint().expect("there is a way out")))
}

#[test]
fn what_a_sparse_checkout_leaves_out_is_an_error_where_it_is_an_input() {
    for mode in ["--no-sparse-index", "--sparse-index"] {
        let root = tempfile::tempdir().expect("the temporary folder is writable");
        let root = root.path();
        git(root, &["init", "-q"]);
        for path in ["top", "p/a", "p/sub/b.c", "p/sub/c.h", "q/d", "q/in/e", "r/f"] {
            write(root, path, path);
        }
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "first"]);
        git(root, &["sparse-checkout", "set", mode, "q"]);
        assert_eq!(fails(root, "q", None), None, "{mode}");
        assert_eq!(fails(root, "", Some(&["top", "q/**"])), None, "{mode}");
        let (error, hint) = fails(root, "p", None).expect("it is not there");
        let named = if mode == "--sparse-index" { "p/" } else { "p/a" };
        assert_eq!(error, format!("`{named}` is tracked by git, but the sparse checkout leaves it out"), "{mode}");
        assert!(hint.starts_with("`git sparse-checkout add p`"), "{hint}");
        assert!(fails(root, "", None).is_some(), "{mode}");
        assert!(fails(root, "", Some(&["p/sub/*.c"])).is_some(), "{mode}");
        assert_eq!(fails(root, "", Some(&["top"])), None, "{mode}");
        let snapshot = take(root, None).expect("readable");
        let pick = |path: &str| snapshot.pick(&[RelPath::new(path).expect("a path")]).map(|picked| picked.len()).ok();
        assert_eq!((pick("p/sub/b.c"), pick("q/d"), pick("q/none")), (None, Some(1), Some(0)), "{mode}");
        // Files that stand there in spite of it.
        git(root, &["sparse-checkout", "set", mode, "q", "p"]);
        assert_eq!(fails(root, "p", None), None, "{mode}");
        git(root, &["sparse-checkout", "disable"]);
        assert_eq!(fails(root, "", None), None, "{mode}");
    }
}

#[test]
fn submodules_are_folders_with_an_index_of_their_own() {
    let inner = repository("sha1");
    let outer = tempfile::tempdir().expect("the temporary folder is writable");
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    let root = outer.path();
    git(root, &["init", "-q"]);
    write(root, ".gitignore", "*.txt\n");
    write(root, "q/x", "");
    let from = inner.path().display().to_string();
    git(root, &["submodule", "--quiet", "add", &from, "p/sub"]);
    git(root, &["add", "."]);
    git(root, &["commit", "-qm", "first"]);
    write(root, "p/sub/new", "");
    write(root, "p/sub/new.o", "");
    write(root, "p/sub/new.txt", "");
    let inside: Vec<String> = theirs(&root.join("p/sub")).iter().map(|path| format!("p/sub/{path}")).collect();
    assert!(inside.contains(&"p/sub/tracked.o".to_owned()) && inside.contains(&"p/sub/new.txt".to_owned()));
    for _ in 0..2 {
        let snapshot = take(root, Some(caches.path())).expect("readable");
        let listed = listing(&snapshot);
        let below: Vec<_> = listed.iter().filter(|path| path.starts_with("p/sub/")).cloned().collect();
        assert_eq!(below, inside);
        snapshot.save().expect("the disk has room");
    }
    // Nested, and not checked out.
    let clone = tempfile::tempdir().expect("the temporary folder is writable");
    git(clone.path(), &["init", "-q"]);
    git(clone.path(), &["submodule", "--quiet", "add", &root.display().to_string(), "deep"]);
    let (error, hint) = fails(clone.path(), "", None).expect("the inner one is not there");
    assert_eq!(error, "submodule `deep/p/sub` is not checked out");
    assert_eq!(hint, "run `git submodule update --init deep/p/sub`");
    assert_eq!(fails(clone.path(), "deep/q", None), None);
    assert_eq!(fails(clone.path(), "deep", Some(&["q/**"])), None);
    assert!(fails(clone.path(), "deep/p", None).is_some());
    git(clone.path(), &["submodule", "--quiet", "update", "--init", "--recursive"]);
    assert_eq!(fails(clone.path(), "", None), None);
    // Files without their repository, as in a container that has the working tree alone.
    cas_fs::remove_tree(&clone.path().join(".git/modules/deep/modules")).expect("our folder");
    assert_eq!(fails(clone.path(), "", None), None);
    let lost = take(clone.path(), None).expect("readable").notes().expect("readable");
    assert!(matches!(&lost[..], [crate::Note::Lost { path }] if path.ends_with("deep/p/sub/.git")), "{lost:?}");
}

fn notes(root: &Path, caches: &Path) -> Vec<String> {
    let snapshot = take(root, Some(caches)).expect("readable");
    listing(&snapshot);
    let notes = snapshot.notes().expect("readable").iter().map(ToString::to_string).collect();
    snapshot.save().expect("the disk has room");
    notes
}

#[test]
fn what_differs_on_other_machines_is_noted_each_time() {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    let (root, caches) = (root.path(), caches.path());
    let pointer = format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1234\n", "0a".repeat(32));
    write(root, "d/big.bin", &pointer);
    write(root, "d/other.dat", &pointer);
    write(root, "d/README", "");
    assert_eq!(notes(root, caches), Vec::<String>::new());
    git(root, &["init", "-q"]);
    git(root, &["add", "."]);
    assert_eq!(notes(root, caches), Vec::<String>::new(), "no attribute says that it is one");
    write(root, ".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    let expected = ["`d/big.bin` is a Git LFS pointer, not the file it stands for"];
    for _ in 0..3 {
        assert_eq!(notes(root, caches), expected);
    }
    write(root, "d/big.bin", "the file itself");
    assert_eq!(notes(root, caches), Vec::<String>::new());
    write(root, "d/ReadMe", "");
    write(root, "D/x", "");
    for _ in 0..2 {
        assert_eq!(notes(root, caches), ["`D` and `d` differ by case only (and 1 more)"]);
    }
    cas_fs::remove_tree(&root.join("D")).expect("our folder");
    cas_fs::remove_file(&root.join("d/ReadMe")).expect("our file");
    for (attributes, expected) in [
        (
            "* eol=crlf\n",
            Some("`d/README` can hold other bytes on another machine, because of `eol=crlf` in `.gitattributes`"),
        ),
        ("* eol=crlf\n* -text\n", None),
        ("* text=auto\n", None),
        (
            "READ* ident\n",
            Some("`d/README` can hold other bytes on another machine, because of `ident` in `.gitattributes`"),
        ),
        ("READ* filter=x\nREADME !filter\n", None),
        ("* filter=lfs\n", Some("`d/other.dat` is a Git LFS pointer, not the file it stands for")),
        ("*.none eol=crlf\n", None),
    ] {
        write(
            root,
            ".gitattributes",
            &format!(".gitattributes -text\n{attributes}.gitattributes -text -ident -filter\n"),
        );
        write(root, "d/big.bin", "x");
        git(root, &["rm", "-q", "-f", "--cached", "--ignore-unmatch", "d/big.bin", "d/other.dat"]);
        assert_eq!(notes(root, caches), Vec::from_iter(expected), "{attributes}");
    }
    write(root, ".gitattributes", "");
    git(root, &["add", "."]);
    git(root, &["config", "core.autocrlf", "true"]);
    assert_eq!(
        notes(root, caches),
        [
            "`.gitattributes` can hold other bytes on another machine, because of `core.autocrlf=true` in the repository's config"
        ]
    );
}

#[test]
fn a_git_file_that_leads_nowhere_is_noted() {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    write(root.path(), "a", "");
    write(root.path(), ".git", "gitdir: /nowhere/at/all\n");
    let [note] = &notes(root.path(), caches.path())[..] else { panic!("one note") };
    assert!(note.ends_with("/.git` leads to no git repository"), "{note}");
}

#[test]
fn a_damaged_index_is_an_error_that_names_it() {
    let root = repository("sha1");
    write(root.path(), ".git/index", "DIRC nonsense that is longer than a header");
    let error = take(root.path(), None).expect_err("it is damaged");
    assert!(matches!(&error, SnapshotError::GitIndex { path, .. } if path.ends_with(".git/index")), "{error}");
    assert!(error.hint().is_some());
}
