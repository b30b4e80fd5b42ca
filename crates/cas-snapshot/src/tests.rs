//! The workspace as targets see it.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Node, RelPath};

use crate::{KeepError, Options, Selection, Snapshot, SnapshotError, Trust};

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

const FUNCTION: DigestFunction = DigestFunction::Blake3;

fn take(root: &Path) -> Result<Snapshot, SnapshotError> {
    Snapshot::take(root, &Options { function: FUNCTION, trust: Trust::Local, caches: None, watchers: None })
}

fn take_cached(root: &Path, caches: &Path) -> Snapshot {
    let options = Options { function: FUNCTION, trust: Trust::Local, caches: Some(caches), watchers: None };
    Snapshot::take(root, &options).expect("it can be read")
}

fn tree(snapshot: &Snapshot, selection: &Selection) -> Result<Directory, SnapshotError> {
    snapshot.tree(&snapshot.select(selection)?)
}

fn listing(snapshot: &Snapshot, selection: &Selection) -> Vec<String> {
    let picked = snapshot.select(selection).expect("the patterns are fine");
    let paths: Vec<String> = snapshot.paths(&picked).map(|path| path.to_string()).collect();
    let tree = snapshot.tree(&picked).expect("all of it can be read");
    let nodes = tree.walk().filter(|(_, node)| node.as_directory().is_none());
    assert_eq!(paths, nodes.map(|(path, _)| path.to_string()).collect::<Vec<_>>());
    paths
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
    let snapshot = take(root.path()).expect("readable");
    let all = listing(&snapshot, &Selection::default());
    assert_eq!(all, [".gitignore", "a.txt", "p/.gitignore", "p/.hidden", "p/keep.log"]);
}

#[test]
fn packages_do_not_see_each_other() {
    let root = workspace(&[("p/a", ""), ("p/inner/b", ""), ("p/innermost/c", ""), ("q/d", ""), ("shared/e.json", "")]);
    let snapshot = take(root.path()).expect("readable");
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
    let snapshot = take(root.path()).expect("readable");
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
    let snapshot = take(root.path()).expect("readable");
    let error = tree(&snapshot, &Selection::default()).expect_err("it leaves");
    assert_eq!(error.to_string(), "symbolic link `p/out` leads to `../../x`, outside of the workspace");

    let root = workspace(&[("a", "")]);
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("s")).expect("a short path");
    let snapshot = take(root.path()).expect("readable");
    let error = tree(&snapshot, &Selection::default()).expect_err("a socket");
    assert_eq!(error.to_string(), "`s` is a socket, which cannot be an input");
}

#[test]
fn only_the_right_to_execute_counts() {
    let root = workspace(&[("a", "x"), ("b", "x")]);
    cas_fs::set_mode(&root.path().join("a"), 0o640).expect("our file");
    cas_fs::set_mode(&root.path().join("b"), 0o700).expect("our file");
    let tree = tree(&take(root.path()).expect("readable"), &Selection::default()).expect("readable");
    let modes: Vec<u32> = tree.walk().filter_map(|(_, node)| node.metadata()).map(|metadata| metadata.mode).collect();
    assert_eq!(modes, [0o644, 0o755]);
    assert!(tree.walk().all(|(_, node)| matches!(node, Node::File { .. })));
}

/// Other content of the same length, and the modification time put back.
fn edit_secretly(at: &Path, content: &str) {
    let before = cas_fs::metadata(at).expect("there").modified().expect("Linux has it");
    let mut file = std::fs::OpenOptions::new().write(true).open(at).expect("our file");
    std::io::Write::write_all(&mut file, content.as_bytes()).expect("the disk has room");
    file.set_modified(before).expect("our file");
}

/// Same size and same modification time: the inode's change time still tells.
#[test]
fn edits_of_kept_files_are_noticed_and_touches_are_not_edits() {
    let root = workspace(&[("a", "one"), ("b", "two"), ("c", "three")]);
    let snapshot = take(root.path()).expect("readable");
    let picked = snapshot.pick(&["a", "b"].map(|path| RelPath::new(path).expect("a path"))).expect("no gaps");
    let has = |_: &Descriptor| Ok::<_, Infallible>(false);
    let put = |source: &mut dyn std::io::Read, blob: &Descriptor| {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).expect("the file is readable");
        assert_eq!(Descriptor::of(FUNCTION, &bytes), *blob);
        Ok(())
    };
    snapshot.keep(&picked, &has, &put).expect("readable");
    snapshot.verify_unchanged().expect("nobody wrote");
    // A second name, other rights and a touch change the inode, but not what it holds.
    cas_fs::hard_link(&root.path().join("a"), &root.path().join("link")).expect("our folder");
    cas_fs::set_mode(&root.path().join("b"), 0o600).expect("our file");
    edit_secretly(&root.path().join("c"), "THREE");
    snapshot.verify_unchanged().expect("what was kept holds the same");
    edit_secretly(&root.path().join("a"), "ONE");
    let error = snapshot.verify_unchanged().expect_err("it was edited");
    assert_eq!(error.to_string(), "`a` changed during the build");
    cas_fs::remove_file(&root.path().join("a")).expect("our file");
    assert!(matches!(snapshot.verify_unchanged(), Err(SnapshotError::Changed { .. })));
}

#[test]
fn a_keeper_that_fails_is_named_with_the_file() {
    let root = workspace(&[("p/a", "one")]);
    let snapshot = take(root.path()).expect("readable");
    let picked = snapshot.select(&Selection::default()).expect("no pattern");
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = snapshot.keep(&picked, &|_| Ok(false), &|_, _| Err(full())).expect_err("the keeper fails");
    assert_eq!(error.to_string(), "could not store `p/a`");
    assert!(matches!(error, KeepError::Keep { .. }));
    let asked = AtomicUsize::new(0);
    let has = |_: &Descriptor| {
        asked.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(true)
    };
    for round in ["what could not be kept is asked for again", "what was kept is not"] {
        snapshot.keep(&picked, &has, &|_, _| unreachable!("it is there")).expect("readable");
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{round}");
    }
}

/// Everything that can happen to a file between two builds, each followed by a snapshot with the cache and one without.
#[test]
fn the_cache_never_hides_a_change() {
    let root = workspace(&[
        ("a", "one"),
        ("d/b", "two"),
        ("d/link", "->b"),
        ("e/c", "x"),
        (".gitignore", "*.o\n"),
        ("x.o", ""),
    ]);
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    let at = |path: &str| root.path().join(path);
    type Change<'a> = (&'a str, &'a dyn Fn());
    let changes: [Change<'_>; 17] = [
        ("nothing", &|| {}),
        ("same size, same mtime", &|| edit_secretly(&at("a"), "ONE")),
        ("at once again", &|| edit_secretly(&at("a"), "oNe")),
        ("replaced by a file of the same size and time", &|| {
            let time = cas_fs::metadata(&at("a")).expect("there").modified().expect("Linux has it");
            cas_fs::write(&at("new"), b"1ne").expect("our folder");
            cas_fs::open(&at("new")).expect("ours").set_modified(time).expect("our file");
            cas_fs::rename(&at("new"), &at("a")).expect("our folder");
        }),
        ("removed and made again, maybe with its inode", &|| {
            cas_fs::remove_file(&at("a")).expect("our file");
            cas_fs::write(&at("a"), b"2ne").expect("our folder");
        }),
        ("two files change places", &|| {
            cas_fs::write(&at("d/z"), b"3ne").expect("our folder");
            cas_fs::rename(&at("a"), &at("d/y")).expect("our folder");
            cas_fs::rename(&at("d/z"), &at("a")).expect("our folder");
            cas_fs::rename(&at("d/y"), &at("d/z")).expect("our folder");
        }),
        ("a new file", &|| cas_fs::write(&at("e/new"), b"n").expect("our folder")),
        ("a removed file", &|| cas_fs::remove_file(&at("e/c")).expect("our file")),
        ("a right", &|| cas_fs::set_mode(&at("d/b"), 0o755).expect("our file")),
        ("a link elsewhere", &|| {
            cas_fs::remove_file(&at("d/link")).expect("our link");
            cas_fs::symlink(Path::new("z"), &at("d/link")).expect("our folder");
        }),
        ("a file becomes a folder", &|| {
            cas_fs::remove_file(&at("d/b")).expect("our file");
            cas_fs::create_dir(&at("d/b")).expect("our folder");
            cas_fs::write(&at("d/b/deep"), b"d").expect("our folder");
        }),
        ("a folder becomes a file", &|| {
            cas_fs::remove_tree(&at("d/b")).expect("our folder");
            cas_fs::write(&at("d/b"), b"f").expect("our folder");
        }),
        ("a folder moves", &|| cas_fs::rename(&at("d"), &at("moved")).expect("our folder")),
        ("a folder in its place", &|| {
            cas_fs::rename(&at("moved"), &at("away")).expect("our folder");
            cas_fs::create_dir(&at("moved")).expect("our folder");
            cas_fs::write(&at("moved/b"), b"g").expect("our folder");
        }),
        ("other rules", &|| cas_fs::write(&at(".gitignore"), b"*.p\n").expect("our folder")),
        ("rules of the same size and time", &|| edit_secretly(&at(".gitignore"), "*.q\n")),
        ("no rules", &|| cas_fs::remove_file(&at(".gitignore")).expect("our file")),
    ];
    let mut seen: Vec<cas_digest::Digest> = Vec::new();
    for (what, change) in changes {
        change();
        let fresh = take(root.path()).expect("readable");
        let fresh = (
            fresh.fingerprint(&fresh.select(&Selection::default()).expect("no pattern")).expect("readable"),
            listing(&fresh, &Selection::default()),
        );
        for round in 0..2 {
            let cached = take_cached(root.path(), caches.path());
            let picked = cached.select(&Selection::default()).expect("no pattern");
            let fingerprint = cached.fingerprint(&picked).expect("readable");
            assert_eq!((fingerprint, listing(&cached, &Selection::default())), fresh, "{what}, round {round}");
            cached.save().expect("the disk has room");
        }
        assert!(what == "nothing" || !seen.contains(&fresh.0), "{what} is a change");
        seen.push(fresh.0);
    }
}

/// A file written all the time, and read by snapshots that follow each other: the last one must see the last content.
#[test]
fn racy_writes_are_seen() {
    let root = workspace(&[("a", "00000000")]);
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    for round in 0..400 {
        let content = format!("{round:08}");
        edit_secretly(&root.path().join("a"), &content);
        let snapshot = take_cached(root.path(), caches.path());
        let tree = tree(&snapshot, &Selection::default()).expect("readable");
        let (_, blob) = tree.get_file(&RelPath::new("a").expect("a path")).expect("it is there");
        assert_eq!(blob, Descriptor::of(FUNCTION, content.as_bytes()), "round {round}");
        snapshot.save().expect("the disk has room");
    }
}

/// The cache cut at each length and damaged at each byte: the workspace is the same.
#[test]
fn a_damaged_cache_costs_only_time() {
    let root = workspace(&[("a", "one"), ("d/b", "two"), ("d/link", "->b")]);
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    let fingerprint = |snapshot: &Snapshot| {
        snapshot.fingerprint(&snapshot.select(&Selection::default()).expect("no pattern")).expect("readable")
    };
    let first = take_cached(root.path(), caches.path());
    let expected = fingerprint(&first);
    first.save().expect("the disk has room");
    let entries = cas_fs::read_dir(caches.path()).expect("our folder");
    let [entry] = &entries[..] else { panic!("one cache, not {entries:?}") };
    let file = caches.path().join(&entry.name);
    let whole = cas_fs::read(&file).expect("our file");
    for at in 0..whole.len() {
        cas_fs::write(&file, &whole[..at]).expect("our file");
        assert_eq!(fingerprint(&take_cached(root.path(), caches.path())), expected, "cut to {at}");
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        cas_fs::write(&file, &damaged).expect("our file");
        let snapshot = take_cached(root.path(), caches.path());
        assert_eq!(fingerprint(&snapshot), expected, "byte {at}");
        if at % 97 == 0 {
            snapshot.save().expect("the disk has room");
            assert_eq!(fingerprint(&take_cached(root.path(), caches.path())), expected, "written over byte {at}");
        }
    }
    // A cache that cannot be read at all.
    cas_fs::remove_file(&file).expect("our file");
    cas_fs::create_dir(&file).expect("our folder");
    assert_eq!(fingerprint(&take_cached(root.path(), caches.path())), expected);
}

/// Snapshots of what is recorded, once everything is: where times are coarse, young files are not.
fn recorded(root: &Path, caches: &Path) -> Snapshot {
    for _ in 0..100 {
        let snapshot = take_cached(root, caches);
        let everything = snapshot.select(&Selection::default()).expect("no pattern");
        snapshot.read(&everything).expect("readable");
        snapshot.save().expect("the disk has room");
        let snapshot = take_cached(root, caches);
        if snapshot.folders.iter().all(|slot| slot.digest().is_some()) {
            return snapshot;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("nothing is recorded");
}

/// The digest in a folder's record says the same as its files, whichever of them are picked.
#[test]
fn fingerprints_of_recorded_folders_are_those_of_their_files() {
    let files = [("a", "1"), ("d/b", "2"), ("d/e/c", "3"), ("d/e/d", "4"), ("d/link", "->b"), ("f/g/h", "5")];
    let (root, caches) = (workspace(&files), tempfile::tempdir().expect("the temporary folder is writable"));
    let all = |snapshot: &Snapshot| snapshot.select(&Selection::default()).expect("no pattern");
    let check = |what: &str| {
        let (with, fresh) = (recorded(root.path(), caches.path()), take(root.path()).expect("readable"));
        let inputs = |globs: &[&str]| Some(globs.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut seen = std::collections::BTreeSet::new();
        for globs in [&["**"][..], &["d/**"], &["**/{b,c}"], &["d/e/c"], &["d/e/d", "f"], &["d/link"]] {
            let selection = Selection { inputs: inputs(globs), ..Selection::default() };
            let fingerprint = |snapshot: &Snapshot| {
                let Ok(picked) = snapshot.select(&selection) else { return None };
                Some(snapshot.fingerprint(&picked).expect("readable").to_string())
            };
            assert_eq!(fingerprint(&with), fingerprint(&fresh), "{what}: {globs:?}");
            assert!(seen.insert(fingerprint(&with)), "{what}: {globs:?} is another selection");
        }
        let without: Vec<RelPath> = ["d/e/d", "f"].map(|path| RelPath::new(path).expect("a path")).to_vec();
        let of = |snapshot: &Snapshot| snapshot.fingerprint(&snapshot.without(&all(snapshot), &without));
        assert_eq!(of(&with).expect("readable"), of(&fresh).expect("readable"), "{what}");
        with.fingerprint(&all(&with)).expect("readable")
    };
    let mut before = check("at first");
    let path = |name: &str| root.path().join(name);
    let changes: [(&str, &dyn Fn()); 5] = [
        ("the same length", &|| cas_fs::write(&path("d/e/d"), b"x").expect("our file")),
        ("executable", &|| cas_fs::set_mode(&path("d/b"), 0o755).expect("our file")),
        ("another name", &|| cas_fs::rename(&path("f/g/h"), &path("f/g/i")).expect("our file")),
        ("another folder", &|| cas_fs::rename(&path("f/g"), &path("f/h")).expect("our folder")),
        ("a file more", &|| cas_fs::write(&path("d/e/e"), b"").expect("our file")),
    ];
    for (what, change) in changes {
        change();
        let after = check(what);
        assert_ne!(after, before, "{what}");
        before = after;
    }
}

/// As docs/formats/snapshot.md has it: what is remembered of a step is found by it.
#[test]
fn a_fingerprint_is_made_as_documented() {
    let root = workspace(&[("a.txt", "one"), ("d/e/run", "two!"), ("d/link", "->e")]);
    cas_fs::set_mode(&root.path().join("d/e/run"), 0o755).expect("our file");
    let blake3 = |bytes: &[u8]| cas_digest::Digest::of(FUNCTION, bytes).value().to_vec();
    let number = |len: usize| u32::try_from(len).expect("it is small").to_le_bytes();
    let entry = |name: &str, tag: u8, content: &str| {
        let size = (content.len() as u64).to_le_bytes();
        [&number(name.len())[..], name.as_bytes(), &[tag], &size, &blake3(content.as_bytes())].concat()
    };
    let folder = |path: &str, entries: &[u8]| [&number(path.len())[..], path.as_bytes(), &blake3(entries)].concat();
    let text = [
        folder("", &entry("a.txt", 0, "one")),
        folder("d", &entry("link", 2, "e")),
        folder("d/e", &entry("run", 1, "two!")),
    ];
    let snapshot = take(root.path()).expect("readable");
    let everything = snapshot.select(&Selection::default()).expect("no pattern");
    assert_eq!(snapshot.fingerprint(&everything).expect("readable").value(), blake3(&text.concat()));
}

/// What is recorded is not read again: shown by content that changes under a stamp that stays, as nothing else could.
#[test]
fn what_is_recorded_is_not_read_again_unless_asked() {
    let root = workspace(&[("a", "one")]);
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    let everything = Selection::default();
    let expected = ["a"];
    // The same stamp with another digest: what only a hand that writes the cache itself could make.
    let content = cas_digest::Digest::of(FUNCTION, b"one");
    let recorded = || {
        let snapshot = take_cached(root.path(), caches.path());
        assert_eq!(listing(&snapshot, &everything), expected);
        snapshot.save().expect("the disk has room");
        let file = caches.path().join(&cas_fs::read_dir(caches.path()).expect("our folder")[0].name);
        let bytes = cas_fs::read(&file).expect("our file");
        bytes.windows(32).position(|window| window == content.value()).map(|at| (file, bytes, at))
    };
    let (file, bytes, at) = recorded().unwrap_or_else(|| {
        // Where times are coarse, nothing is recorded of a file that is younger than two seconds.
        std::thread::sleep(std::time::Duration::from_millis(3100));
        recorded().expect("the file is old now")
    });
    let mut forged = bytes.clone();
    forged[at..at + 32].copy_from_slice(cas_digest::Digest::of(FUNCTION, b"two").value());
    let payload = forged[24..forged.len() - 16].to_vec();
    let end = forged.len();
    forged[end - 16..].copy_from_slice(&cas_digest::Digest::of(DigestFunction::Blake3, &payload).value()[..16]);
    cas_fs::write(&file, &forged).expect("our file");
    let digest = |trust| {
        let options = Options { function: FUNCTION, trust, caches: Some(caches.path()), watchers: None };
        let snapshot = Snapshot::take(root.path(), &options).expect("readable");
        assert_eq!(listing(&snapshot, &everything), expected);
        let tree = tree(&snapshot, &everything).expect("readable");
        tree.get_file(&RelPath::new("a").expect("a path")).expect("it is there").1
    };
    assert_eq!(digest(Trust::Local), Descriptor::of(FUNCTION, b"two"));
    assert_eq!(digest(Trust::Nothing), Descriptor::of(FUNCTION, b"one"));
}

#[test]
fn odd_names_are_names() {
    let long = "n".repeat(255);
    let odd = ["new\nline", "tab\t", " ", "-rf", "a\\b", "*?[", &long, "ünï"];
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    for name in odd {
        cas_fs::write(&root.path().join(name), name.as_bytes()).expect("our folder");
    }
    let bytes: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    cas_fs::write(&root.path().join(bytes), b"bytes").expect("our folder");
    let snapshot = take(root.path()).expect("readable");
    let picked = snapshot.select(&Selection::default()).expect("no pattern");
    let tree = snapshot.tree(&picked).expect("readable");
    for name in odd {
        let (_, blob) = tree.get_file(&RelPath::new(name).expect("a path")).expect("it is there");
        assert_eq!(blob, Descriptor::of(FUNCTION, name.as_bytes()), "{name:?}");
    }
    assert_eq!(picked.len(), odd.len() + 1);
}

/// Deeper than a path can be given to the system from the workspace's own folder on.
#[test]
fn a_thousand_folders_deep_and_a_path_of_four_thousand_bytes() {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    let make = |parts: &[String], content: &[u8]| {
        use rustix::fs::{Mode, OFlags};
        let mut folder = rustix::fs::open(root.path(), OFlags::RDONLY, Mode::empty()).expect("our folder");
        for part in parts {
            rustix::fs::mkdirat(&folder, part, Mode::RWXU).expect("a free name");
            folder = rustix::fs::openat(&folder, part, OFlags::RDONLY, Mode::empty()).expect("our folder");
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let file = rustix::fs::openat(&folder, "file", flags, Mode::RWXU).expect("a free name");
        rustix::io::write(&file, content).expect("the disk has room");
    };
    make(&vec!["d".to_owned(); 1000], b"deep");
    make(&vec!["l".repeat(226); 18], b"long");
    for _ in 0..2 {
        let snapshot = take_cached(root.path(), caches.path());
        let picked = snapshot.select(&Selection::default()).expect("no pattern");
        let tree = snapshot.tree(&picked).expect("readable");
        let blobs: Vec<_> = snapshot
            .paths(&picked)
            .map(|path| (path.as_bytes().len(), tree.get_file(&path).expect("there").1))
            .collect();
        assert_eq!(blobs, [(2004, Descriptor::of(FUNCTION, b"deep")), (4090, Descriptor::of(FUNCTION, b"long"))]);
        snapshot.save().expect("the disk has room");
    }
}

#[test]
fn many_names_in_one_folder() {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    let caches = tempfile::tempdir().expect("the temporary folder is writable");
    for index in 0..5000 {
        cas_fs::write(&root.path().join(format!("f{index}")), format!("{index}").as_bytes()).expect("our folder");
    }
    let fingerprint = || {
        let snapshot = take_cached(root.path(), caches.path());
        let picked = snapshot.select(&Selection::default()).expect("no pattern");
        assert_eq!(picked.len(), 5000);
        let fingerprint = snapshot.fingerprint(&picked).expect("readable");
        snapshot.save().expect("the disk has room");
        fingerprint
    };
    let first = fingerprint();
    assert_eq!(fingerprint(), first);
    edit_secretly(&root.path().join("f4711"), "4712");
    assert_ne!(fingerprint(), first);
}

/// A folder that is swapped for a link while the workspace is read must not lead elsewhere.
#[test]
fn links_in_place_of_folders_are_not_followed() {
    let outside = workspace(&[("f", "secret")]);
    let root = workspace(&[("d/f", "public")]);
    let snapshot = take(root.path()).expect("readable");
    let picked = snapshot.select(&Selection::default()).expect("no pattern");
    cas_fs::rename(&root.path().join("d"), &root.path().join("gone")).expect("our folder");
    cas_fs::symlink(outside.path(), &root.path().join("d")).expect("our folder");
    let error = snapshot.read(&picked).expect_err("the folder is a link now");
    assert!(matches!(&error, SnapshotError::Fs(error) if error.path.ends_with("d")), "{error:?}");
}

#[test]
fn a_wrong_pattern_is_named_with_its_line() {
    let root = workspace(&[("p/.gitignore", "ok\n# \\xff is fine in a comment\n{a\n")]);
    let error = take(root.path()).expect_err("a glob that does not end");
    assert!(error.to_string().starts_with("line 3 of `p/.gitignore` is not a pattern: "), "{error}");
}

/// git itself is the judge of what is left out, in random trees with random rules.
#[test]
#[expect(clippy::print_stderr, reason = "a skipped check must be seen")]
fn what_is_left_out_is_what_git_leaves_out() {
    let git = |root: &Path, arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(root)
            .env("HOME", root)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stderr(Stdio::null());
        command.output().ok().filter(|output| output.status.success()).map(|output| output.stdout)
    };
    if Command::new("git").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no git to compare with");
        return;
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("below a usize")
    };
    let names = ["a", "b", "ab", "a.o", "b.o", "x y", ".h", "build"];
    let patterns = [
        "a", "*.o", "!a.o", "/b", "build/", "a/b", "**/ab", "a/**", "/a/*", "!*.h", "*", "!*/", "x\\ y", "x y", "[ab]",
        "[!a]*.o", "ab/", "a/**/b", "#a", "\\#a", "?", "!/a/b", ".h",
    ];
    for round in 0..60 {
        let root = tempfile::tempdir().expect("the temporary folder is writable");
        let mut folders = vec![root.path().to_owned()];
        for _ in 0..6 {
            let folder = folders[random(folders.len())].join(names[random(names.len())]);
            if !cas_fs::exists(&folder).expect("our folder") {
                cas_fs::create_dir(&folder).expect("our folder");
                folders.push(folder);
            }
        }
        for folder in &folders {
            for _ in 0..4 {
                let file = folder.join(names[random(names.len())]);
                if !cas_fs::exists(&file).expect("our folder") {
                    cas_fs::write(&file, b"").expect("our folder");
                }
            }
            if random(2) == 0 {
                let rules: Vec<&str> = (0..1 + random(3)).map(|_| patterns[random(patterns.len())]).collect();
                cas_fs::write(&folder.join(".gitignore"), (rules.join("\n") + "\n").as_bytes()).expect("our folder");
            }
        }
        let ours = listing(&take(root.path()).expect("readable"), &Selection::default());
        git(root.path(), &["init", "-q"]).expect("git makes a repository");
        let theirs = git(root.path(), &["ls-files", "-z", "--others", "--exclude-standard"]).expect("git lists files");
        let mut theirs: Vec<RelPath> = theirs
            .split(|byte| *byte == 0)
            .filter(|path| !path.is_empty())
            .map(|path| RelPath::new(path).expect("a path"))
            .collect();
        theirs.sort();
        let theirs: Vec<String> = theirs.iter().map(ToString::to_string).collect();
        assert_eq!(ours, theirs, "round {round} in {}", root.path().display());
    }
}

/// A large file is hashed in parts, by all threads; its name is that of its bytes.
#[test]
fn a_large_file_is_named_as_its_bytes_are() {
    let root = workspace(&[("p/small", "x")]);
    let bytes: Vec<u8> = (0..5_000_001u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    cas_fs::write(&root.path().join("p/large"), &bytes).expect("our folder");
    let options = Options { function: FUNCTION, trust: Trust::Local, caches: None, watchers: None };
    let snapshot = Snapshot::take(root.path(), &options).expect("it can be read");
    let tree = tree(&snapshot, &package("p", &[])).expect("it can be read");
    let (_, blob) = tree.get_file(&RelPath::new("p/large").expect("a path")).expect("it is an input");
    assert_eq!(blob, cas_blob::Descriptor::of(FUNCTION, &bytes));
}
