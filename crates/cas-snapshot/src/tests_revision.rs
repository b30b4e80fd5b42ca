//! Snapshots of revisions, with a checkout of the same revision as the judge.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::symlink;
use std::path::Path;

use cas_digest::DigestFunction;
use cas_tree::Directory;

use crate::tests_git::git;
use crate::{Options, Revised, Revision, RevisionError, Selection, Snapshot, SnapshotError, Trust};

fn write(root: &Path, path: &str, content: &str) {
    let at = root.join(path);
    cas_fs::create_dir_all(at.parent().expect("below the root")).expect("our folder");
    cas_fs::write(&at, content.as_bytes()).expect("our folder");
}

fn remove(root: &Path, path: &str) {
    let at = root.join(path);
    match cas_fs::symlink_metadata(&at).expect("it is there").is_dir() {
        true => cas_fs::remove_tree(&at).expect("our folder"),
        false => cas_fs::remove_file(&at).expect("our file"),
    }
}

fn take(root: &Path) -> Snapshot {
    let options = Options { function: DigestFunction::Blake3, trust: Trust::Local, caches: None, watchers: None };
    Snapshot::take(root, &options).expect("readable")
}

fn at(root: &Path, revision: &str) -> Result<Revised, RevisionError> {
    let snapshot = take(root);
    let revision = Revision::open(&snapshot, revision, &BTreeMap::new())?;
    Ok(snapshot.at::<Infallible>(&revision, &|_| false, &mut |_, _| Ok(())).expect("the objects are there"))
}

fn tree(snapshot: &Snapshot) -> Directory {
    let picked = snapshot.select(&Selection::default()).expect("nothing is missing");
    // Both ways to name content agree.
    snapshot.fingerprint(&picked).expect("readable");
    snapshot.tree(&picked).expect("readable")
}

fn commit(root: &Path) {
    git(root, &["add", "--all"]);
    git(root, &["commit", "--quiet", "--allow-empty", "--message", "state"]);
}

/// A repository of a few states, the workspace in a folder of it.
fn repository(home: &Path) -> Vec<String> {
    let root = home.join("top/work");
    cas_fs::create_dir_all(&root).expect("our folder");
    git(&home.join("top"), &["init", "--quiet"]);
    write(&home.join("top"), "outside", "x");
    let states: [fn(&Path); 5] = [
        |root| {
            for path in ["a", "a.b", "a-b/c", "d/e/f", "d/e/g", "d/h", "cas.toml", "cas-out/x", "ä/\u{1f600} x"] {
                write(root, path, path);
            }
            write(root, ".gitignore", "ignored\n*.tmp\n");
        },
        |root| {
            write(root, "a", "other");
            remove(root, "d/e");
            write(root, "d/e", "a file in the place of a folder");
            symlink("../a", root.join("d/link")).expect("our folder");
        },
        |root| {
            remove(root, "d/e");
            write(root, "d/e/x/y", "deep");
            remove(root, "d/link");
            symlink("e", root.join("d/link")).expect("our folder");
            cas_fs::set_mode(&root.join("a-b/c"), 0o755).expect("our file");
            write(root, "x.tmp", "tracked in spite of the rules");
            git(root, &["add", "--force", "x.tmp"]);
        },
        |root| {
            remove(root, "ä");
            remove(root, "d/link");
            write(root, "d/link", "a file in the place of a link");
            git(root, &["rm", "--quiet", "--cached", "x.tmp"]);
        },
        |root| remove(root, "d"),
    ];
    let mut revisions = Vec::new();
    for state in states {
        state(&root);
        commit(&home.join("top"));
        revisions.push(String::from_utf8_lossy(&git(&root, &["rev-parse", "HEAD"])).trim().to_owned());
    }
    revisions
}

/// Changes of the working tree that are in no commit.
fn disturb(root: &Path) {
    write(root, "untracked/file", "new");
    write(root, "d", "a file in the place of a folder that was");
    write(root, "a", "changed");
    write(root, "ignored", "ignored");
    remove(root, "a.b");
    write(root, "added", "added");
    git(root, &["add", "added"]);
    write(root, "intended", "intended");
    git(root, &["add", "--intent-to-add", "intended"]);
    git(root, &["update-index", "--assume-unchanged", "a-b/c"]);
    write(root, "a-b/c", "git does not look here");
}

#[test]
fn a_revision_is_what_a_checkout_of_it_is() {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let revisions = repository(home.path());
    let root = home.path().join("top/work");
    for is_disturbed in [false, true] {
        if is_disturbed {
            disturb(&root);
        }
        for (number, revision) in revisions.iter().enumerate() {
            let checkout = home.path().join(format!("checkout-{is_disturbed}-{number}"));
            let path = checkout.to_str().expect("our path is text");
            git(&root, &["worktree", "add", "--quiet", "--detach", path, revision]);
            let expected = tree(&take(&checkout.join("work")));
            let found = at(&root, revision).expect("it is a revision");
            assert_eq!(tree(&found.snapshot), expected, "state {number}, disturbed: {is_disturbed}");
        }
    }
    assert!(at(&root, "HEAD").expect("it is a revision").differing.contains(&b"untracked/file".to_vec()));
}

#[test]
fn what_git_takes_for_changed_differs_although_its_bytes_do_not() {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let root = home.path();
    git(root, &["init", "--quiet"]);
    write(root, "file", "a\r\n");
    write(root, "plain", "a\n");
    commit(root);
    assert_eq!(tree(&at(root, "HEAD").expect("it is a revision").snapshot), tree(&take(root)));
    // Line ends would be converted now: a checkout may write other bytes.
    write(root, ".git/info/attributes", "file text eol=lf\n");
    write(root, "file", "a\r\n");
    let found = at(root, "HEAD").expect("it is a revision").snapshot;
    let picked = |snapshot: &Snapshot, path: &str| {
        let path = cas_tree::RelPath::new(path).expect("a path");
        snapshot.fingerprint(&snapshot.pick(&[path]).expect("it is there")).expect("readable")
    };
    assert_ne!(picked(&found, "file"), picked(&take(root), "file"));
    assert_eq!(picked(&found, "plain"), picked(&take(root), "plain"));
}

#[test]
fn submodules_are_compared_where_they_are_checked_out() {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let (inner, root) = (home.path().join("inner"), home.path().join("top"));
    for folder in [&inner, &root] {
        cas_fs::create_dir_all(folder).expect("our folder");
        git(folder, &["init", "--quiet"]);
    }
    write(&inner, "file", "one");
    commit(&inner);
    git(&root, &["submodule", "--quiet", "add", "../inner", "sub"]);
    commit(&root);
    let before = tree(&take(&root));
    write(&root, "sub/file", "two");
    write(&root, "sub/new", "new");
    assert_eq!(tree(&at(&root, "HEAD").expect("it is a revision").snapshot), before);
    commit(&root.join("sub"));
    commit(&root);
    assert_eq!(tree(&at(&root, "HEAD~1").expect("it is a revision").snapshot), before);
    // A submodule that is gone leaves a place of which nothing is known.
    git(&root, &["rm", "--quiet", "--force", "sub"]);
    commit(&root);
    let found = at(&root, "HEAD~1").expect("it is a revision").snapshot;
    assert!(matches!(found.select(&Selection::default()), Err(SnapshotError::Submodule { path }) if path == b"sub"));
}

#[test]
fn a_sparse_checkout_lacks_the_same_in_both() {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let root = home.path();
    git(root, &["init", "--quiet"]);
    for path in ["here/a", "away/b", "far/c"] {
        write(root, path, path);
    }
    commit(root);
    write(root, "away/b", "other");
    commit(root);
    git(root, &["sparse-checkout", "set", "here"]);
    let now = take(root);
    let same = at(root, "HEAD").expect("it is a revision").snapshot;
    let other = at(root, "HEAD~1").expect("it is a revision").snapshot;
    for snapshot in [&now, &same, &other] {
        assert!(matches!(snapshot.select(&Selection::default()), Err(SnapshotError::Sparse { .. })));
        assert_eq!(snapshot.len(), 1);
    }
    assert_eq!(now.absent(), same.absent());
    assert_ne!(now.absent(), other.absent());
}

#[test]
fn what_is_no_revision_is_told() {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let (root, clone) = (home.path().join("top"), home.path().join("clone"));
    cas_fs::create_dir_all(&root).expect("our folder");
    assert!(matches!(at(&root, "HEAD"), Err(RevisionError::NoRepository { .. })));
    git(&root, &["init", "--quiet"]);
    assert!(matches!(at(&root, "HEAD"), Err(RevisionError::Unknown { is_shallow: false, .. })));
    write(&root, "file", "one");
    commit(&root);
    write(&root, "file", "two");
    commit(&root);
    let first = String::from_utf8_lossy(&git(&root, &["rev-parse", "HEAD~1"])).trim().to_owned();
    for wrong in ["none", "", "-h", "--all", "HEAD^{tree}", "HEAD:file", "a\nb", "HEAD..HEAD"] {
        assert!(matches!(at(&root, wrong), Err(RevisionError::Unknown { .. })), "{wrong:?}");
    }
    let url = format!("file://{}", root.display());
    git(home.path(), &["clone", "--quiet", "--depth=1", &url, "clone"]);
    assert!(matches!(at(&clone, &first), Err(RevisionError::Unknown { is_shallow: true, .. })));
    git(&clone, &["config", "core.worktree", home.path().to_str().expect("our path is text")]);
    assert!(matches!(at(&clone, "HEAD"), Err(RevisionError::OtherTop { .. })));
}

/// Whatever a repository's configuration says, nothing is run and nothing is written.
#[test]
fn git_runs_nothing_and_writes_nothing() {
    let home = tempfile::tempdir().expect("the temporary folder is writable");
    let root = &home.path().join("top");
    cas_fs::create_dir_all(root).expect("our folder");
    git(root, &["init", "--quiet"]);
    write(root, "file", "one");
    write(root, ".gitattributes", "* diff=x\n");
    commit(root);
    write(root, "file", "two");
    let program = home.path().join("program");
    write(home.path(), "program", &format!("#!/bin/sh\necho \"$0\" >> {}/ran\n", home.path().display()));
    cas_fs::set_mode(&program, 0o755).expect("our file");
    let program = program.to_str().expect("our path is text");
    write(root, ".git/hooks/post-index-change", &format!("#!/bin/sh\n{program}\n"));
    cas_fs::set_mode(&root.join(".git/hooks/post-index-change"), 0o755).expect("our file");
    for (name, value) in [
        ("core.fsmonitor", program),
        ("diff.external", program),
        ("diff.x.textconv", program),
        ("diff.x.command", program),
        ("core.pager", program),
        ("diff.orderFile", "/nonexistent"),
        ("diff.renames", "copies"),
        ("diff.noprefix", "true"),
    ] {
        git(root, &["config", name, value]);
    }
    let _ = cas_fs::remove_file(&home.path().join("ran"));
    let index = cas_fs::read(&root.join(".git/index")).expect("it is there");
    let names = || cas_fs::read_dir(&root.join(".git")).expect("it is there").len();
    let count = names();
    write(root, "file", "two");
    let found = at(root, "HEAD").expect("it is a revision");
    assert_eq!(found.differing, [b"file".to_vec()]);
    assert!(!cas_fs::exists(&home.path().join("ran")).expect("readable"));
    assert_eq!(cas_fs::read(&root.join(".git/index")).expect("it is there"), index);
    assert_eq!(names(), count);
}
