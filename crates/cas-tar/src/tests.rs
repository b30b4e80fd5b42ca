//! The archive as a whole: what is written is read back, by this crate and by the `tar` crate, and the bytes stay.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Mutex;

use cas_blob::{Descriptor, OpenBlob, OpenBlobError};
use cas_digest::DigestFunction;
use cas_tree::{DeviceKind, Directory, Metadata, Node, RelPath};
use proptest::prelude::*;

use crate::*;

#[derive(Default)]
struct Memory(Mutex<BTreeMap<Descriptor, Vec<u8>>>);

impl Memory {
    fn put(&self, bytes: &[u8]) -> Descriptor {
        let blob = Descriptor::of(DigestFunction::Blake3, bytes);
        self.0.lock().expect("no test panics with it").insert(blob, bytes.to_vec());
        blob
    }
}

impl OpenBlob for Memory {
    fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, OpenBlobError> {
        let found = self.0.lock().expect("no test panics with it").get(blob).cloned();
        found.map_or(Err(OpenBlobError::Missing(*blob)), |bytes| Ok(Box::new(io::Cursor::new(bytes)) as Box<_>))
    }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

fn example(place: &Memory) -> Directory {
    let mut tree = Directory::root();
    let parents = Metadata::root_owned(0o750);
    let long = "long/".repeat(60) + "name";
    let deep = format!("{}/{}", "p".repeat(120), "n".repeat(90));
    let mut add = |at: &str, node: Node| tree.insert(&path(at), node, &parents).expect("nothing is in the way");
    add("bin/tool", Node::file(place.put(b"#!/bin/sh\n"), 0o4755));
    add("bin/again", Node::Link { target: path("bin/tool") });
    add("bin.d/x", Node::file(place.put(b""), 0o644));
    add(
        "dev/null",
        Node::Device { metadata: Metadata::root_owned(0o666), kind: DeviceKind::Character, major: 1, minor: 3 },
    );
    add("pipe", Node::Fifo { metadata: Metadata::root_owned(0o600) });
    add("link", Node::symlink("bin/tool"));
    add("far", Node::symlink("x".repeat(300)));
    add(&long, Node::file(place.put(b"long"), 0o600));
    add(&deep, Node::file(place.put(b"split"), 0o600));
    add("größe", Node::file(place.put(b"utf-8"), 0o644));
    add("gone", Node::Whiteout);
    let mut xattrs = BTreeMap::new();
    xattrs.insert(b"security.capability"[..].into(), b"\x01\x00=\x00"[..].into());
    add(
        "ping",
        Node::File { metadata: Metadata { mode: 0o755, uid: 3_000_000, gid: 7, xattrs }, blob: place.put(&[7; 1000]) },
    );
    let mut opaque = Directory::new(Metadata::root_owned(0o755));
    opaque.opaque = true;
    add("opaque", Node::Directory(opaque.into()));
    add("empty", Node::Directory(Directory::new(Metadata::root_owned(0o1777)).into()));
    tree
}

fn tar_of(plan: &LayerPlan, place: &Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in &plan.groups {
        let before = bytes.len() as u64;
        copy_pieces(group.pieces(), place, &mut bytes).expect("all contents are here");
        assert_eq!(bytes.len() as u64 - before, group.size());
    }
    bytes
}

fn compressed(plan: &LayerPlan, place: &Memory, codec: Codec) -> Vec<u8> {
    let mut bytes = codec.header().to_vec();
    let mut summaries = Vec::new();
    for group in &plan.groups {
        let mut encoder = codec.encoder(&mut bytes, group.size()).expect("there is memory");
        copy_pieces(group.pieces(), place, &mut encoder).expect("all contents are here");
        summaries.push(encoder.finish().expect("a vector takes everything").1);
    }
    bytes.extend(codec.trailer(&summaries));
    bytes
}

fn read(bytes: &[u8], place: &Memory) -> Result<Directory, ReadTarError<io::Error>> {
    read_tree(&mut &bytes[..], Whiteouts::Layer, ReadTarLimits { content_bytes: 1 << 30 }, &mut |content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(place.put(&bytes))
    })
}

#[test]
fn a_layer_holds_the_tree() {
    let place = Memory::default();
    let tree = example(&place);
    let bytes = tar_of(&LayerPlan::new(&tree).expect("a layer can tell it"), &place);
    assert_eq!(read(&bytes, &place).expect("it is an archive"), tree);
    // An independent reader sees the same names in the same order.
    let mut archive = tar::Archive::new(&bytes[..]);
    let names: Vec<String> = archive
        .entries()
        .expect("it is an archive")
        .map(|entry| String::from_utf8_lossy(&entry.expect("an entry").path_bytes()).into_owned())
        .filter(|name| name.len() < 20)
        .collect();
    assert_eq!(names[..8], [".wh.gone", "bin/", "bin/again", "bin/tool", "bin.d/", "bin.d/x", "dev/", "dev/null"]);
}

/// The bytes are a contract: a digest that changes here needs a new profile or codec id.
#[test]
fn bytes_are_golden() {
    let place = Memory::default();
    let plan = LayerPlan::new(&example(&place)).expect("a layer can tell it");
    let digest = |bytes: &[u8]| Descriptor::of(DigestFunction::Sha256, bytes).to_string();
    let npm = npm_plan(&[(path("package.json"), 0o644, place.put(b"{}")), (path("bin/ä.js"), 0o755, place.put(b"1"))]);
    let actual = [
        digest(&tar_of(&plan, &place)),
        digest(&compressed(&plan, &place, Codec::Zstd3)),
        digest(&compressed(&plan, &place, Codec::Gzip6)),
        digest(&tar_of(&npm, &place)),
        digest(&compressed(&npm, &place, Codec::Gzip9)),
    ];
    assert_eq!(actual, GOLDEN);
}

const GOLDEN: [&str; 5] = [
    "sha256:7a0cc66fe5846be2939f3455db748f0a4fe74aaf8d77b0500c6a35d24f80cc9e/58880",
    "sha256:384f9d99af90d8bad532ac62e327f19136981d15bfe61431f5af5e62e400f8b0/1146",
    "sha256:4e9a23c483f0977acab0c48e91a22cefe79595c16070f171d6843cbf7f0f02fc/1464",
    "sha256:033fcc96d612a7409273f4d0a493020c6ff92d41021efc09bf23a046ced852ac/4096",
    "sha256:caddf67313cf2d6dc90901cc26903cf1c5f68960fb90903e633f0f8a9071e3e2/217",
];

#[test]
fn every_codec_gives_the_tar_back() {
    let place = Memory::default();
    let mut tree = example(&place);
    // Several groups, of content that does not compress.
    let noise = |seed: u8| -> Vec<u8> {
        let mut state = u32::from(seed) + 1;
        (0..900_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect()
    };
    for seed in 0..12 {
        let blob = place.put(&noise(seed));
        tree.insert(&path(&format!("noise/{seed}")), Node::file(blob, 0o644), &Metadata::root_owned(0o755))
            .expect("free");
    }
    let plan = LayerPlan::new(&tree).expect("a layer can tell it");
    assert!(plan.groups.len() > 2);
    let expected = tar_of(&plan, &place);
    for (codec, compression) in [
        (Codec::Identity, Compression::None),
        (Codec::Gzip6, Compression::Gzip),
        (Codec::Gzip9, Compression::Gzip),
        (Codec::Zstd3, Compression::Zstd),
    ] {
        let bytes = compressed(&plan, &place, codec);
        assert_eq!(Compression::detect(&bytes), compression);
        let mut back = Vec::new();
        decompress(&bytes[..], compression, u64::MAX)
            .expect("there is memory")
            .read_to_end(&mut back)
            .expect("it is whole");
        assert!(back == expected, "{}", codec.id());
        // A reader of one member alone must get everything.
        if compression == Compression::Gzip {
            let mut back = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut back).expect("it is whole");
            assert!(back == expected, "{}", codec.id());
        }
    }
}

#[test]
fn one_changed_file_changes_one_group() {
    let place = Memory::default();
    let mut tree = Directory::root();
    let parents = Metadata::root_owned(0o755);
    for index in 0..400 {
        let blob = place.put(format!("{index} ").repeat(20_000).as_bytes());
        tree.insert(&path(&format!("d/{index:04}")), Node::file(blob, 0o644), &parents).expect("free");
    }
    let keys =
        |tree: &Directory| -> Vec<_> { LayerPlan::new(tree).expect("plain").groups.iter().map(Group::key).collect() };
    let before = keys(&tree);
    assert!(before.len() > 5, "{}", before.len());
    let mut changed = tree.clone();
    changed.insert(&path("d/0200"), Node::file(place.put(b"new"), 0o644), &parents).expect("there");
    let after = keys(&changed);
    let new = after.iter().filter(|key| !before.contains(key)).count();
    assert!((1..=3).contains(&new), "{new} of {}", after.len());
    let mut more = tree.clone();
    more.insert(&path("d/0200a"), Node::file(place.put(&[1; 60_000]), 0o644), &parents).expect("free");
    let after = keys(&more);
    let new = after.iter().filter(|key| !before.contains(key)).count();
    assert!((1..=4).contains(&new), "{new} of {}", after.len());
}

#[test]
fn recipes_are_read_as_they_were_written() {
    let of = |text: &str| Descriptor::of(DigestFunction::Sha256, text.as_bytes());
    let frame = |length, text: &str| Frame { blob: of(text), summary: FrameSummary { length, crc32: 7 } };
    let recipe = Recipe {
        profile: Profile::Layer1,
        codec: Codec::Zstd3,
        tree: of("tree"),
        tar: Descriptor { size: 30, ..of("tar") },
        blob: Descriptor { size: 5, ..of("blob") },
        frames: vec![frame(10, "ab"), frame(20, "abc")],
    };
    let bytes = recipe.encode();
    assert_eq!(Recipe::decode(&bytes), Ok(recipe.clone()));
    for (from, to) in [
        ("cas-recipe 1", "cas-recipe 2"),
        ("layer-1", "layer-2"),
        ("zstd/1.5.7", "zstd/1.5.8"),
        (" 10 0", " 010 0"),
        (" 10 0", " 11 0"),
        ("00000007", "7"),
        ("frame", "frames"),
        ("tree sha256", "tree md5"),
    ] {
        let text = String::from_utf8(bytes.clone()).expect("it is text").replacen(from, to, 1);
        assert!(Recipe::decode(text.as_bytes()).is_err(), "{to}");
    }
    for end in 0..bytes.len() {
        assert!(Recipe::decode(&bytes[..end]).is_err(), "{end}");
    }
}

fn entry(name: &[u8], kind: tar::EntryType, link: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn what_must_not_be_in_an_archive_is_an_error() {
    use tar::EntryType as T;
    let place = Memory::default();
    for (entries, expected) in [
        (vec![(&b"../x"[..], T::Regular, &b""[..])], "the archive holds the name `../x`"),
        (vec![(b"a/../../x", T::Regular, b"")], "the archive holds the name `a/../../x`"),
        (vec![(b"a", T::Regular, b""), (b"a/b", T::Regular, b"")], "entry `a/b` of the archive cannot be placed"),
        (vec![(b"a", T::Symlink, b"/etc"), (b"a/b", T::Regular, b"")], "entry `a/b` of the archive cannot be placed"),
        (vec![(b"a", T::Link, b"b")], "entry `a` of the archive cannot be placed"),
        (vec![(b"a", T::Link, b"../b")], "the archive holds the name `a`"),
        (vec![(b"a", T::Symlink, b"")], "entry `a` of the archive has a bad link target"),
        (vec![(b"a", T::new(b'Z'), b"")], "entry `a` of the archive has the unknown type `Z`"),
    ] {
        let mut bytes: Vec<u8> = entries.iter().flat_map(|(name, kind, link)| entry(name, *kind, link)).collect();
        bytes.extend([0; 1024]);
        assert_eq!(read(&bytes, &place).expect_err("it must be refused").to_string(), expected);
    }
    let bytes = entry(b"/usr/./x", T::Regular, b"");
    assert!(read(&bytes, &place).expect("cleaned").get(&path("usr/x")).is_some());
}

#[test]
fn what_a_layer_cannot_tell_is_an_error() {
    let mut tree = Directory::root();
    tree.insert(&path("a/.wh.b"), Node::symlink("x"), &Metadata::root_owned(0o755)).expect("free");
    assert!(matches!(LayerPlan::new(&tree), Err(EntryError::WhiteoutName { .. })));
}

#[test]
fn decompression_has_a_limit() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("there is memory");
    encoder.write_all(&vec![0; 1 << 20]).expect("a vector takes everything");
    let bytes = encoder.finish().expect("a vector takes everything");
    let result = decompress(&bytes[..], Compression::Zstd, 1000).expect("there is memory").read_to_end(&mut Vec::new());
    assert_eq!(result.expect_err("too long").to_string(), "holds more than 1000 bytes, the limit of its use here");
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let place = Memory::default();
        let _ = read(&bytes, &place);
        let _ = Recipe::decode(&bytes);
        for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
            let _ = decompress(&bytes[..], compression, 1 << 20).expect("there is memory").read_to_end(&mut Vec::new());
        }
    }

    #[test]
    fn damaged_archives_never_panic(position in 0..8000usize, value in any::<u8>()) {
        let place = Memory::default();
        let mut bytes = tar_of(&LayerPlan::new(&example(&place)).expect("a layer can tell it"), &place);
        let position = position % bytes.len();
        bytes[position] = value;
        let _ = read(&bytes, &place);
    }
}
