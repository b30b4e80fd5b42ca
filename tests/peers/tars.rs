//! Archives and layers as others write and unpack them: GNU tar and Python write, umoci unpacks.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tar::{ReadTarLimits, read_layer, read_tree};
use cas_tree::{Directory, Node, Unpacking};
use serde_json::json;

use crate::{has, missing, run};

const LIMITS: ReadTarLimits = ReadTarLimits { content_bytes: 1 << 30 };

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor::of(DigestFunction::Sha256, bytes)
}

fn keep(content: &mut dyn Read) -> std::io::Result<Descriptor> {
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes)?;
    Ok(of(&bytes))
}

/// What a tree holds, a line for each path.
fn listing(tree: &Directory) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for (path, node) in tree.walk() {
        let line = match node {
            Node::Directory(directory) => format!("d {:o}", directory.metadata.mode),
            Node::Symlink { target, .. } => format!("l {}", String::from_utf8_lossy(target)),
            Node::Fifo { metadata } => format!("p {:o}", metadata.mode),
            node => match tree.file_of(node) {
                Some((metadata, blob)) => format!("f {:o} {}", metadata.mode, blob.digest.to_hex()),
                None => "other".to_owned(),
            },
        };
        lines.insert(path.to_string(), line);
    }
    lines
}

/// The same of a folder.
fn listing_of(root: &Path) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            let line = if metadata.is_dir() {
                pending.push(path.clone());
                format!("d {mode:o}")
            } else if metadata.is_symlink() {
                format!("l {}", fs::read_link(&path).unwrap().display())
            } else if metadata.is_file() {
                format!("f {mode:o} {}", of(&fs::read(&path).unwrap()).digest.to_hex())
            } else {
                format!("p {mode:o}")
            };
            lines.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), line);
        }
    }
    lines
}

/// A folder with what archives differ in.
fn hard_tree(root: &Path) {
    let long = "long-".repeat(30);
    for (path, content) in [
        ("plain", "1"),
        ("empty", ""),
        ("ä name\nwith a line", "2"),
        (&*format!("{long}/{long}"), "3"),
        (&*format!("{}/deep", "d/".repeat(60)), "4"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::set_permissions(root.join("plain"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("plain"), root.join("plain again")).unwrap();
    fs::hard_link(root.join(format!("{long}/{long}")), root.join("long again")).unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink(format!("{long}/{long}"), root.join("link to long")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for part in 0..40u64 {
        sparse.write_all_at(format!("part {part}").as_bytes(), part * 100_000).unwrap();
    }
    sparse.set_len(5_000_000).unwrap();
    let hole = fs::File::create(root.join("hole")).unwrap();
    hole.set_len(300_000).unwrap();
}

#[test]
fn what_tar_and_python_write_is_read_whole() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    fs::create_dir(&root).unwrap();
    hard_tree(&root);
    let expected = listing_of(&root);
    let compare = |what: &str, bytes: &[u8]| {
        let tree = read_tree(&mut &bytes[..], LIMITS, &mut keep).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let found = listing(&tree);
        for (path, line) in &expected {
            assert_eq!(found.get(path), Some(line), "{what}: {path}");
        }
        assert_eq!(found.len(), expected.len(), "{what}");
        // Both names are of one file.
        assert_eq!(tree.links().count(), 2, "{what}");
    };
    for arguments in [
        &["--format=gnu"][..],
        &["--format=oldgnu"],
        &["--format=posix"],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
        &["--format=posix", "--xattrs", "--acls", "--selinux"],
    ] {
        let output = Command::new("tar").args(arguments).args(["-cf", "-", "-C"]).arg(&root).arg(".").output().unwrap();
        assert!(!output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        compare(&arguments.join(" "), &output.stdout);
    }
    if !has("python3") {
        return missing("python3");
    }
    for format in ["GNU_FORMAT", "PAX_FORMAT"] {
        let file = place.path().join("python.tar");
        let script = format!(
            "import sys, tarfile\nwith tarfile.open(sys.argv[1], 'w', format=tarfile.{format}) as tar: tar.add(sys.argv[2], '.')"
        );
        run(Command::new("python3").args(["-c", &script]).arg(&file).arg(&root));
        compare(format, &fs::read(&file).unwrap());
    }
}

/// An entry of a layer, as text: `d NAME`, `f NAME=CONTENT`, `l NAME=TARGET`, `h NAME=TARGET`.
fn entry(text: &str) -> Vec<u8> {
    let (kind, rest) = text.split_at(1);
    let (name, value) = rest.trim().split_once('=').unwrap_or((rest.trim(), ""));
    let (flag, mode) = match kind {
        "d" => (b'5', 0o755),
        "f" => (b'0', 0o644),
        "l" => (b'2', 0o777),
        "h" => (b'1', 0o644),
        _ => panic!("{text}"),
    };
    let content = if flag == b'0' { value } else { "" };
    let mut block = [0; 512];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, name.as_bytes());
    set(100, format!("{mode:07o}\0").as_bytes());
    for at in [108, 116] {
        set(at, b"0000000\0");
    }
    set(124, format!("{:011o}\0", content.len()).as_bytes());
    set(136, b"00000000000\0");
    set(148, b"        ");
    set(156, &[flag]);
    if flag != b'0' {
        set(157, value.as_bytes());
    }
    set(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [&block, content.as_bytes(), &vec![0; padding]].concat()
}

/// Layers in a layout with the tag `t`.
fn write_layout(folder: &Path, layers: &[Vec<u8>]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        fs::write(blobs.join(of(bytes).digest.to_hex()), bytes).unwrap();
        json!({ "digest": of(bytes).digest.to_string(), "size": bytes.len() })
    };
    let with = |mut descriptor: serde_json::Value, media_type: &str| {
        descriptor["mediaType"] = json!(media_type);
        descriptor
    };
    let parts: Vec<serde_json::Value> =
        layers.iter().map(|bytes| with(put(bytes), "application/vnd.oci.image.layer.v1.tar")).collect();
    let diff_ids: Vec<String> = layers.iter().map(|bytes| of(bytes).digest.to_string()).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {},
                         "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = with(put(config.to_string().as_bytes()), "application/vnd.oci.image.config.v1+json");
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": parts });
    let mut item = with(put(manifest.to_string().as_bytes()), media_type);
    item["annotations"] = json!({ "org.opencontainers.image.ref.name": "t" });
    let index = json!({ "schemaVersion": 2, "manifests": [item] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn layers_give_what_umoci_unpacks() {
    if !has("umoci") {
        return missing("umoci");
    }
    for layers in [
        "f a/b=1, -, f a/c=2",
        "f a/b=1, -, f a=2",
        "f a=1, -, d a, f a/b=1",
        "f a=1, f b=1, -, f .wh.a",
        "f a=1, -, f .wh.a, f a=2",
        "f d/a=1, -, f .wh.d, d d, f d/b=1",
        "f d/a=1, f d/e/f=1, -, d d, f d/.wh..wh..opq, f d/b=1",
        "f d/a=1, f d/e/f=1, -, d d, f d/b=1, f d/.wh..wh..opq",
        "f .wh.nothing, f a=1",
        "l lib=usr/lib, d usr/lib, f usr/lib/a=1, -, f lib/b=1",
        "l lib=/usr/lib, d usr/lib, f usr/lib/a=1, -, f lib/b=1",
        "l lib=../../../usr/lib, d usr/lib, f usr/lib/a=1, -, f lib/b=1",
        "l lib=usr/lib, d usr/lib, f usr/lib/a=1, -, f lib/.wh.a",
        "d real, l f=real, -, f f=1",
        "f a=1, h b=a, -, f a=2",
        "f a=1, -, h b=a",
        "f a=1, h b=a, h c=b, -, f .wh.a",
        "f d/a=1, h b=d/a, -, f .wh.d",
        "f ./a=1, f /b=2",
        "d a, f a/x=1, -, l a=b",
    ] {
        let place = tempfile::tempdir().unwrap();
        let bytes: Vec<Vec<u8>> = layers
            .split(", -, ")
            .map(|layer| [layer.split(", ").flat_map(entry).collect(), vec![0; 1024]].concat())
            .collect();
        write_layout(&place.path().join("layout"), &bytes);
        let bundle = place.path().join("bundle");
        let source = format!("{}:t", place.path().join("layout").display());
        run(Command::new("umoci").args(["unpack", "--rootless", "--image", &source]).arg(&bundle));
        let mut tree = Unpacking::new(Directory::root());
        for layer in &bytes {
            read_layer(&mut tree, &mut &layer[..], LIMITS, &mut keep)
                .unwrap_or_else(|error| panic!("{layers}: {error:?}"));
        }
        let tree = tree.finish();
        let rootfs = bundle.join("rootfs");
        assert_eq!(listing(&tree), listing_of(&rootfs), "{layers}");
        // What is one file there is one here.
        let inode = |path: &str| fs::symlink_metadata(rootfs.join(path)).unwrap().ino();
        let links: Vec<(String, String)> =
            tree.links().map(|(path, target)| (path.to_string(), target.to_string())).collect();
        let is_file = |node: &Node| matches!(node, Node::File { .. } | Node::Link { .. });
        let files: Vec<String> =
            tree.walk().filter(|(_, node)| is_file(node)).map(|(path, _)| path.to_string()).collect();
        for (count, one) in files.iter().enumerate() {
            for other in &files[..count] {
                let same = inode(one) == inode(other);
                let linked =
                    |a: &str| links.iter().find(|(path, _)| path == a).map_or(a.to_owned(), |(_, to)| to.clone());
                assert_eq!(linked(one) == linked(other), same, "{layers}: {one} and {other}");
            }
        }
    }
}
