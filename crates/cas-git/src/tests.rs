//! Indexes that git itself wrote, in each of its forms, and damaged ones.

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use crate::{Decoded, Index, IndexError, Mode, ObjectFormat, decode_index};

/// Runs git without the settings of the machine. git is a tool that working on `cas` needs.
fn git(root: &Path, arguments: &[&str]) -> Vec<u8> {
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

fn repository(format: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("the temporary folder is writable");
    git(root.path(), &["init", "-q", &format!("--object-format={format}")]);
    for index in 0..200 {
        write(root.path(), &format!("d{}/e{}/file{index}", index % 7, index % 3), &format!("{index}"));
    }
    write(root.path(), "a", "x");
    write(root.path(), "a.b", "x");
    write(root.path(), &format!("deep/{}/{}", "n".repeat(200), "m".repeat(250)), "x");
    for part in 0..17 {
        let path = format!("{}/f{part}", vec!["l".repeat(230); part + 1].join("/"));
        write(root.path(), &path, "x");
    }
    cas_fs::set_mode(&root.path().join("a"), 0o755).expect("our file");
    cas_fs::symlink(Path::new("a"), &root.path().join("link")).expect("our folder");
    git(root.path(), &["add", "."]);
    git(root.path(), &["commit", "-qm", "first"]);
    root
}

fn load(git_dir: &Path, format: ObjectFormat) -> Index {
    let read = |name: &str| cas_fs::read(&git_dir.join(name)).expect("git wrote it");
    match decode_index(&read("index"), format).expect("git wrote it") {
        Decoded::Whole(index) => index,
        Decoded::Split(split) => match decode_index(&read(&split.base_name()), format).expect("git wrote it") {
            Decoded::Whole(base) => split.over(&base).expect("they belong together"),
            Decoded::Split(_) => panic!("a shared index is whole"),
        },
    }
}

/// As `git ls-files --stage` prints it, with a tag before: `S` for what a sparse checkout leaves out.
fn listing(index: &Index) -> Vec<String> {
    let line = |entry: crate::Entry<'_>| {
        let mode = match entry.mode {
            Mode::File { is_executable: false } => "100644",
            Mode::File { is_executable: true } => "100755",
            Mode::Symlink => "120000",
            Mode::Gitlink => "160000",
            Mode::SparseDirectory => "040000",
        };
        let id: String = entry.id.iter().map(|byte| format!("{byte:02x}")).collect();
        let tag = if entry.is_skipped {
            'S'
        } else if entry.stage > 0 {
            'M'
        } else {
            'H'
        };
        format!("{tag} {mode} {id} {}\t{}", entry.stage, String::from_utf8_lossy(entry.path))
    };
    index.entries().map(line).collect()
}

fn theirs(root: &Path) -> Vec<String> {
    let text = git(root, &["ls-files", "-z", "-t", "--stage", "--sparse"]);
    let lines = text.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

/// Checks what was decoded against git, and that searching finds just what is there.
fn check(root: &Path, format: ObjectFormat, what: &str) {
    let index = load(&root.join(".git"), format);
    assert_eq!(listing(&index), theirs(root), "{what}");
    for entry in index.entries() {
        assert!(index.tracks(entry.path), "{what}");
        assert!(!index.tracks(&[entry.path, b"!"].concat()), "{what}");
        for at in (0..entry.path.len()).filter(|at| entry.path[*at] == b'/') {
            let folder = &entry.path[..at];
            let below: Vec<_> = index.below(folder).map(|entry| entry.path).collect();
            let prefix = [folder, b"/"].concat();
            let expected: Vec<_> = index.entries().map(|entry| entry.path).filter(|p| p.starts_with(&prefix)).collect();
            assert_eq!(below, expected, "{what} {}", folder.escape_ascii());
        }
    }
    assert_eq!(index.below(b"").len(), index.len());
    assert_eq!(index.below(b"nowhere").len(), 0);
}

#[test]
fn every_form_of_the_index_is_read_as_git_reads_it() {
    for (name, format) in [("sha1", ObjectFormat::Sha1), ("sha256", ObjectFormat::Sha256)] {
        let root = repository(name);
        let root = root.path();
        check(root, format, "version 2");
        write(root, "new", "x");
        git(root, &["add", "-N", "new"]);
        check(root, format, "version 3, for what is to be added");
        assert!(load(&root.join(".git"), format).entries().any(|entry| entry.is_intended && entry.path == b"new"));
        git(root, &["update-index", "--assume-unchanged", "a"]);
        assert!(load(&root.join(".git"), format).entries().any(|entry| entry.is_assumed_valid && entry.path == b"a"));
        git(root, &["update-index", "--index-version", "4"]);
        check(root, format, "version 4");
        git(root, &["-c", "index.skipHash=true", "update-index", "--force-write-index", "--no-assume-unchanged", "a"]);
        check(root, format, "without a checksum");
        git(root, &["update-index", "--split-index"]);
        check(root, format, "split");
        let bytes = cas_fs::read(&root.join(".git/index")).expect("git wrote it");
        assert!(matches!(decode_index(&bytes, format), Ok(Decoded::Split(_))));
        write(root, "a.a", "added");
        write(root, "d1/e1/file1", "replaced");
        git(root, &["add", "a.a", "d1"]);
        git(root, &["rm", "-q", "--cached", "d2/e2/file2", "d3/e0/file3", "link"]);
        check(root, format, "split, with changes");
        git(root, &["update-index", "--index-version", "2"]);
        check(root, format, "split, version 2");
        git(root, &["update-index", "--no-split-index"]);
        git(root, &["add", "."]);
        git(root, &["commit", "-qm", "second"]);
        git(root, &["sparse-checkout", "set", "d1", "d2/e1"]);
        check(root, format, "sparse");
        git(root, &["sparse-checkout", "set", "--sparse-index", "d1", "d2/e1"]);
        check(root, format, "sparse, with folders");
        assert!(load(&root.join(".git"), format).entries().any(|entry| entry.mode == Mode::SparseDirectory));
        git(root, &["sparse-checkout", "disable"]);
        check(root, format, "not sparse any more");
    }
}

#[test]
fn conflicts_have_stages() {
    let root = repository("sha1");
    let root = root.path();
    git(root, &["checkout", "-qb", "other"]);
    write(root, "a.b", "theirs");
    git(root, &["commit", "-qam", "theirs"]);
    git(root, &["checkout", "-q", "-"]);
    write(root, "a.b", "ours");
    git(root, &["commit", "-qam", "ours"]);
    let merge = Command::new("git")
        .args(["-c", "user.name=n", "-c", "user.email=e@example", "merge", "-q", "other"])
        .current_dir(root)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output();
    assert!(!merge.expect("git is there").status.success());
    check(root, ObjectFormat::Sha1, "conflict");
    let index = load(&root.join(".git"), ObjectFormat::Sha1);
    let stages = index.entries().filter(|entry| entry.path == b"a.b").map(|entry| entry.stage);
    assert_eq!(stages.collect::<Vec<_>>(), [1, 2, 3]);
}

/// An index of one entry, with what follows it, without a checksum.
fn small(version: u32, path: &[u8], mode: u32, flags: u16, extensions: &[u8]) -> Vec<u8> {
    let mut bytes = b"DIRC".to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(1u32.to_be_bytes());
    let begin = bytes.len();
    bytes.extend([0; 24]);
    bytes.extend(mode.to_be_bytes());
    bytes.extend([0; 12]);
    bytes.extend([7; 20]);
    bytes.extend((flags | u16::try_from(path.len()).expect("short")).to_be_bytes());
    if version == 4 {
        bytes.push(0);
    }
    bytes.extend(path);
    bytes.push(0);
    while version < 4 && !(bytes.len() - begin).is_multiple_of(8) {
        bytes.push(0);
    }
    bytes.extend(extensions);
    bytes.extend([0; 20]);
    bytes
}

#[test]
fn what_git_would_not_write_is_an_error() {
    let entry = |field| Err(IndexError::Entry { position: 0, field });
    let file = 0o100_644;
    let extension = |name: &str| [name.as_bytes(), &3u32.to_be_bytes(), b"abc"].concat();
    for (bytes, expected) in [
        (small(2, b"a/b", file, 0, b""), Ok(())),
        (small(4, b"a/b", file, 0, b""), Ok(())),
        (small(2, b"a/b", file, 0, &extension("ABCD")), Ok(())),
        (small(2, b"a/b", file, 0, &extension("abcd")), Err(IndexError::Extension { name: "abcd".into() })),
        (
            small(2, b"a/b", file, 0, b"ABCD\0\0\xff\xff"),
            Err(IndexError::Truncated { offset: 92, part: "an extension" }),
        ),
        (small(2, b"/a", file, 0, b""), entry("path")),
        (small(2, b"a/../b", file, 0, b""), entry("path")),
        (small(2, b"a//b", file, 0, b""), entry("path")),
        (small(2, b"a/.GIT/b", file, 0, b""), entry("path")),
        (small(2, b"", file, 0, b""), entry("path")),
        (small(2, b"a/", file, 0, b""), entry("path")),
        (small(2, b"a", 0o040_000, 0, b""), entry("path")),
        (small(2, b"a/", 0o040_000, 0, b""), Ok(())),
        (small(2, b"a", 0o060_000, 0, b""), entry("mode")),
        (small(2, b"a", file, 0x4000, b""), entry("flag")),
        (small(5, b"a", file, 0, b""), Err(IndexError::Version { version: 5 })),
        (b"DIRC".to_vec(), Err(IndexError::Truncated { offset: 4, part: "its header" })),
        (vec![0; 64], Err(IndexError::Signature)),
    ] {
        let actual = decode_index(&bytes, ObjectFormat::Sha1).map(drop);
        assert_eq!(actual, expected, "{}", bytes.escape_ascii());
    }
    let mut damaged = small(2, b"a/b", file, 0, b"");
    *damaged.last_mut().expect("it has bytes") = 1;
    assert!(matches!(decode_index(&damaged, ObjectFormat::Sha1), Err(IndexError::Checksum { .. })));
}

/// A few bytes of a bitmap can say that four billion entries are replaced.
#[test]
fn a_split_index_must_fit_its_base() {
    let bitmap = |bits: u32, word: u64| {
        [&bits.to_be_bytes()[..], &1u32.to_be_bytes(), &word.to_be_bytes(), &0u32.to_be_bytes()].concat()
    };
    let link = |deleted: &[u8], replaced: &[u8]| {
        let content = [&[9; 20], deleted, replaced].concat();
        [b"link", &u32::try_from(content.len()).expect("short").to_be_bytes()[..], &content].concat()
    };
    let none = bitmap(0, 0);
    let all = bitmap(u32::MAX, 1 | 0x3ff_ffff << 1);
    let decode = |link: &[u8]| decode_index(&small(2, b"b", 0o100_644, 0, link), ObjectFormat::Sha1);
    let error = decode(&link(&none, &all)).map(drop);
    assert_eq!(error, Err(IndexError::Link { problem: "it replaces more entries than it has" }));
    let Ok(Decoded::Whole(base)) = decode(b"") else { panic!("it is whole") };
    let Ok(Decoded::Split(split)) = decode(&link(&all, &none)) else { panic!("it is split") };
    assert_eq!(split.base_name(), format!("sharedindex.{}", "09".repeat(20)));
    assert_eq!(split.over(&base).map(drop), Err(IndexError::Link { problem: "a bitmap goes past the shared index" }));
    let Ok(Decoded::Split(split)) = decode(&link(&bitmap(1, 1 | 1 << 1), &none)) else { panic!("it is split") };
    assert_eq!(split.over(&base).map(|index| index.len()), Ok(1));
}

proptest! {
    /// Whatever the bytes are, what is decoded is in order and stays below the top.
    #[test]
    fn damaged_indexes_are_errors_or_in_order(
        at in 0usize..400, value: u8, cut in 0usize..40, version in 2u32..=4, tail in prop::collection::vec(any::<u8>(), 0..40)
    ) {
        let mut bytes = small(version, b"some/path", 0o100_644, 0, &tail);
        let len = bytes.len();
        bytes[at % len] = value;
        bytes.truncate(len - cut % len);
        if let Ok(Decoded::Whole(index)) = decode_index(&bytes, ObjectFormat::Sha1) {
            let paths: Vec<_> = index.entries().map(|entry| (entry.path, entry.stage)).collect();
            prop_assert!(paths.is_sorted());
            prop_assert!(paths.iter().all(|(path, _)| !path.is_empty() && path[0] != b'/'));
        }
    }

    #[test]
    fn other_texts_never_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::Config::parse(&text);
        let _ = crate::Attributes::parse(&text);
        let _ = (crate::gitfile(&text), crate::commondir(&text), crate::is_lfs_pointer(&text));
    }
}
