//! Trees written out where files can share blocks, and where they cannot: nobody can tell one from the other.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_store::Durability;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::power::{CANNOT, Mounted, make_image, run_with_mounts};
use crate::{assert_clean, open};

/// Around the length from which on blocks are shared, and around a block; one is longer than is read whole.
const LENGTHS: [usize; 8] = [0, 1, 4096, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 100_000, 600_000];

fn content(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&length.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn tree() -> Directory {
    let mut tree = Directory::root();
    let parents = Metadata::root_owned(0o750);
    let mut insert = |path: String, node| tree.insert(&RelPath::new(path).unwrap(), node, &parents).unwrap();
    for (length, mode) in LENGTHS.into_iter().zip([0o644, 0o755, 0o600, 0o444, 0o4755].into_iter().cycle()) {
        let blob = Descriptor::of(DigestFunction::Blake3, &content(length));
        insert(format!("d/{length}"), Node::file(blob, mode));
        // The same bytes under another path are another file.
        insert(format!("e/f/{length}"), Node::file(blob, 0o640));
        insert(format!("z{length}"), Node::Link { target: RelPath::new(format!("d/{length}")).unwrap() });
    }
    insert("link".to_owned(), Node::symlink("d/1"));
    tree
}

/// What a program sees of a tree: for each path what it is, its rights, time and content, and which paths are one inode.
fn seen(root: &Path) -> BTreeMap<String, String> {
    let (mut seen, mut first_paths, mut waiting) = (BTreeMap::new(), BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = waiting.pop() {
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let mut words =
            format!("{:o} {}.{:09} {}:{}", stat.mode(), stat.mtime(), stat.mtime_nsec(), stat.uid(), stat.gid());
        if stat.is_dir() {
            let mut below: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            waiting.extend(below.into_iter().rev());
        } else if stat.is_symlink() {
            words += &format!(" -> {}", std::fs::read_link(&path).unwrap().display());
        } else {
            let first = first_paths.entry(stat.ino()).or_insert_with(|| name.clone());
            let bytes = std::fs::read(&path).unwrap();
            words += &format!(" {} links, as {first}, {} bytes, {}", stat.nlink(), stat.len(), blake3::hash(&bytes));
        }
        seen.insert(name, words);
    }
    seen
}

/// Puts the tree into a store and writes it out; what is seen of it, and how many of its files share blocks.
fn write_out(home: &Path) -> (BTreeMap<String, String>, usize) {
    let store = open(home, Durability::Durable).unwrap();
    for length in LENGTHS {
        store.put_bytes(DigestFunction::Blake3, &content(length)).unwrap();
    }
    let tree = tree();
    let name = store.put_tree(&tree, DigestFunction::Blake3).unwrap();
    let root = store.materialize(&name, &tree).unwrap();
    let shared = LENGTHS
        .iter()
        .filter(|length| {
            let output = Command::new("filefrag").arg("-v").arg(root.join(format!("e/f/{length}"))).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("shared")
        })
        .count();
    let seen = seen(&root);
    assert_clean(&store, "after writing it out");
    // A file that shares blocks is a file of its own: what is written to it changes no object.
    let written = root.join("e/f/600000");
    std::fs::write(&written, b"written to").unwrap();
    for length in LENGTHS {
        let blob = Descriptor::of(DigestFunction::Blake3, &content(length));
        assert!(store.load(&blob, 1 << 20).unwrap() == content(length), "{length}");
    }
    (seen, shared)
}

/// Compares roots on file systems with and without shared blocks. Mounts are of this process alone, and end with it.
pub(crate) fn compare(folder: &Path) {
    let mut copied = None;
    for (kind, arguments, megabytes, shares) in [
        ("ext4", &["-q", "-F"][..], 96, false),
        ("xfs", &["-q", "-m", "reflink=1"][..], 320, true),
        ("btrfs", &["-q"], 160, true),
    ] {
        let image = folder.join(format!("{kind}.img"));
        let made = make_image(&format!("mkfs.{kind}"), arguments, &image, megabytes << 20)
            .and_then(|()| Mounted::new(&image, &folder.join(kind)));
        let _mounted = match made {
            Ok(mounted) => mounted,
            Err(error) if copied.is_some() => {
                eprintln!("SKIPPED: no {kind}: {error}");
                continue;
            }
            Err(error) => {
                eprintln!("{error}");
                #[expect(clippy::exit, reason = "a code that the harness does not use")]
                std::process::exit(CANNOT);
            }
        };
        let (seen, shared) = write_out(&folder.join(kind).join("home"));
        let long = LENGTHS.iter().filter(|length| **length >= 32 * 1024).count();
        eprintln!("{kind}: {shared} of {} files share blocks", LENGTHS.len());
        assert_eq!(shared, if shares { long } else { 0 }, "{kind}");
        let copied = copied.get_or_insert_with(|| seen.clone());
        assert_eq!(seen.len(), copied.len(), "{kind}");
        for (path, words) in &seen {
            assert_eq!(copied.get(path), Some(words), "{kind}: {path}");
        }
    }
}

#[test]
fn a_root_that_shares_blocks_equals_one_that_was_copied() {
    let home = tempfile::tempdir().unwrap();
    if let Some(words) = run_with_mounts("share", home.path(), 0) {
        eprintln!("{words}");
    }
}
