//! The archive as a whole: what is written is read back, by this crate and by the `tar` crate, and the bytes stay.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Mutex;

use cas_blob::{Descriptor, OpenBlob, OpenBlobError};
use cas_digest::DigestFunction;
use cas_tree::{DeviceKind, Directory, Metadata, Node, RelPath, Unpacking};
use proptest::prelude::*;

use crate::*;

#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<Descriptor, Vec<u8>>>);

impl Memory {
    pub(crate) fn put(&self, bytes: &[u8]) -> Descriptor {
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

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path")
}

pub(crate) fn example(place: &Memory) -> Directory {
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

pub(crate) fn tar_of(plan: &LayerPlan, place: &Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in &plan.groups {
        let before = bytes.len() as u64;
        copy_pieces(group.pieces(), place, &mut bytes).expect("all contents are here");
        assert_eq!(bytes.len() as u64 - before, group.size());
    }
    bytes
}

fn compressed(plan: &LayerPlan, place: &Memory, codec: Codec) -> Vec<u8> {
    with_tail(plan, place, codec).expect("a table can tell it").0
}

/// The bytes of an archive, what its tail adds to the tar, and the annotations.
type WithTail = (Vec<u8>, Vec<u8>, BTreeMap<String, String>);

pub(crate) fn with_tail(plan: &LayerPlan, place: &Memory, codec: Codec) -> Result<WithTail, ContentsError> {
    let mut bytes = codec.header().to_vec();
    let (mut summaries, mut groups) = (Vec::new(), Vec::new());
    for group in &plan.groups {
        let (frame, encoded) = codec.encode(group, place, Vec::new()).expect("all contents are here");
        bytes.extend_from_slice(&frame);
        summaries.push(encoded.summary);
        groups.push((frame.len() as u64, encoded.contents));
    }
    bytes.extend(codec.trailer(&summaries));
    let groups: Vec<_> = groups.iter().map(|(size, contents)| GroupIndex { size: *size, contents }).collect();
    let mut tar = Vec::new();
    let tail = Tail::new(codec, plan, &groups, &mut tar)?;
    assert_eq!(tail.is_some(), codec.has_contents());
    let annotations = tail.map_or_else(BTreeMap::new, |tail| {
        assert_eq!(tail.tar_length, tar.len() as u64);
        bytes.extend(tail.bytes);
        tail.annotations
    });
    Ok((bytes, tar, annotations))
}

pub(crate) const LIMITS: ReadTarLimits = ReadTarLimits { content_bytes: 1 << 30 };

pub(crate) fn keep(place: &Memory) -> impl FnMut(&mut dyn Read) -> io::Result<Descriptor> + '_ {
    |content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(place.put(&bytes))
    }
}

fn read(bytes: &[u8], place: &Memory) -> Result<Directory, ReadTarError<io::Error>> {
    read_tree(&mut &bytes[..], LIMITS, &mut keep(place))
}

/// Layers one over the other.
fn unpacked(layers: &[Vec<u8>], place: &Memory) -> Result<Directory, ReadTarError<io::Error>> {
    let mut tree = Unpacking::new(Directory::root());
    for bytes in layers {
        read_layer(&mut tree, &mut &bytes[..], LIMITS, &mut keep(place))?;
    }
    Ok(tree.finish())
}

#[test]
fn a_layer_holds_the_tree() {
    let place = Memory::default();
    let tree = example(&place);
    let bytes = tar_of(&LayerPlan::new(&tree).expect("a layer can tell it"), &place);
    let mut base = Directory::root();
    for name in ["gone", "opaque/below", "bin/kept", "kept"] {
        base.insert(&path(name), Node::file(place.put(b"lower"), 0o600), &Metadata::root_owned(0o711)).expect("free");
    }
    let lower = tar_of(&LayerPlan::new(&base).expect("a layer can tell it"), &place);
    base.apply_layer(&tree);
    assert_eq!(unpacked(&[lower, bytes.clone()], &place).expect("they are archives"), base);
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
    "sha256:5c4f1d864b797c53f229c02bbc88173f7e7f86c94781e67948f008434f3073e6/58880",
    "sha256:b4d677fd1aa844d1be63d330baf1b66dc56c8a88b487bd72d3db0d87adbeb4ff/1144",
    "sha256:50f211b3ac839539d1bf5b125cf608ecf01e3efcab32f4ac2b83fca6e012d184/1467",
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
        tail: None,
    };
    let bytes = recipe.encode();
    assert_eq!(Recipe::decode(&bytes), Ok(recipe.clone()));
    let annotations = BTreeMap::from([("a".to_owned(), "1:2".to_owned()), ("b".to_owned(), "x y".to_owned())]);
    let tail = RecipeTail { blob: of("tail"), tar_length: 6, annotations };
    let with_tail = Recipe {
        codec: Codec::Stargz6,
        tar: Descriptor { size: 36, ..recipe.tar },
        blob: Descriptor { size: 9, ..recipe.blob },
        tail: Some(tail),
        ..recipe.clone()
    };
    let text = String::from_utf8(with_tail.encode()).expect("it is text");
    assert_eq!(Recipe::decode(text.as_bytes()), Ok(with_tail));
    for (from, to) in [
        ("annotation b", "annotation a"),
        ("annotation a", "annotation c"),
        ("/4 6", "/4 7"),
        ("/4 6", "/5 6"),
        ("\ntail", "\ntails"),
        ("estargz/zlib-rs-0.6.8/6/chunks-v1", "zstd/1.5.7/3/frames-v1"),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(Recipe::decode(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
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

/// A header of the format of POSIX with some fields, and what follows it in whole blocks.
pub(crate) fn header(name: &[u8], flag: u8, fields: &[(usize, &[u8])], content: &[u8]) -> Vec<u8> {
    let mut block = [0; 512];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, name);
    set(100, b"0000644\0");
    set(124, format!("{:011o}\0", content.len()).as_bytes());
    set(156, &[flag]);
    set(257, b"ustar\0");
    for (at, bytes) in fields {
        set(*at, bytes);
    }
    set(148, b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [&block, content, &vec![0; padding]].concat()
}

pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..9).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length);
    let length = length.expect("it is short");
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn entry(name: &[u8], kind: tar::EntryType, link: &[u8]) -> Vec<u8> {
    header(name, kind.as_byte(), &[(157, link)], b"")
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
        (vec![(b"a", T::Link, b"../b")], "the archive holds the name `../b`"),
        (vec![(b"a", T::Symlink, b"")], "entry `a` of the archive has a bad link target"),
        (vec![(b"a", T::new(b'Z'), b"")], "entry `a` of the archive has the unknown type `Z`"),
    ] {
        let mut bytes: Vec<u8> = entries.iter().flat_map(|(name, kind, link)| entry(name, *kind, link)).collect();
        bytes.extend([0; 1024]);
        assert_eq!(read(&bytes, &place).expect_err("it must be refused").to_string(), expected);
    }
    // Attributes longer than a file system has, and more of them than anybody.
    let with = |length: usize, name: &str| {
        let records = record("SCHILY.xattr.user.x", &vec![b'x'; length]);
        [header(b"pax", b'x', &[], &records), header(name.as_bytes(), b'0', &[], b"")].concat()
    };
    let told = |bytes: &[u8]| read(bytes, &place).expect_err("it must be refused").to_string();
    assert_eq!(told(&with((64 << 10) + 1, "a")), "entry `a` of the archive has a bad extended attribute");
    let nameless = [header(b"pax", b'x', &[], &record("SCHILY.xattr.", b"x")), header(b"a", b'0', &[], b"")].concat();
    assert_eq!(told(&nameless), "could not read the archive");
    let many: Vec<u8> = (0..1030).flat_map(|number| with(64 << 10, &number.to_string())).collect();
    assert_eq!(
        told(&many),
        "the archive holds more than 67108864 bytes of extended attributes, the limit of its use here"
    );
    // As deep as it may be, and one more: by records, which have no limit of their own.
    for (parts, is_fine) in [(256, true), (257, false), (2000, false)] {
        let name = vec!["d"; parts].join("/");
        let bytes =
            [header(b"pax", b'x', &[], &record("path", name.as_bytes())), header(b"a", b'0', &[], b"")].concat();
        for result in [read(&bytes, &place), unpacked(std::slice::from_ref(&bytes), &place)] {
            assert_eq!(result.is_ok(), is_fine, "{parts}");
        }
    }
    let bytes = entry(b"/usr/./x", T::Regular, b"");
    assert!(read(&bytes, &place).expect("cleaned").get(&path("usr/x")).is_some());
}

/// What GNU tar, Go, Python and others write; what they read is asked of themselves elsewhere.
#[test]
fn headers_of_all_dialects_are_read() {
    let place = Memory::default();
    let long = "d/".repeat(99) + "name";
    let [gnu_magic, star]: [(usize, &[u8]); 2] = [(257, b"ustar  \0"), (508, b"tar\0")];
    for (what, bytes, expected, mode, content) in [
        ("no magic", header(b"a", 0, &[(257, &[0; 6]), (345, b"not/a/prefix")], b"1"), "a", 0o644, &b"1"[..]),
        ("a prefix", header(b"a", b'0', &[(345, b"p/q")], b"1"), "p/q/a", 0o644, b"1"),
        ("GNU's times in its place", header(b"a", b'0', &[gnu_magic, (345, b"14012345670")], b"1"), "a", 0o644, b"1"),
        ("a prefix of Go before 1.8", header(b"a", b'0', &[gnu_magic, (345, b"p/q")], b"1"), "p/q/a", 0o644, b"1"),
        (
            "one behind what could be a time",
            header(b"a", b'0', &[gnu_magic, (345, b"01234567012/x")], b"1"),
            "01234567012/x/a",
            0o644,
            b"1",
        ),
        ("times before 1970", header(b"a", b'0', &[gnu_magic, (345, &[0xff; 24])], b"1"), "a", 0o644, b"1"),
        ("no time and no text", header(b"a", b'0', &[gnu_magic, (345, b"p\xe9")], b"1"), "a", 0o644, b"1"),
        (
            "star's shorter prefix",
            header(b"a", b'0', &[(345, b"p"), (476, b"14012345670"), star], b"1"),
            "p/a",
            0o644,
            b"1",
        ),
        ("blanks around numbers", header(b"a", b'7', &[(100, b"  755 \0 ")], b"1"), "a", 0o755, b"1"),
        ("a kind in the mode", header(b"a", b'0', &[(100, b"0104755\0")], b""), "a", 0o4755, b""),
        (
            "a number of base 256",
            header(b"a", b'0', &[(124, b"\x80\0\0\0\0\0\0\0\0\0\0\x03")], b"123"),
            "a",
            0o644,
            b"123",
        ),
        ("no number", header(b"a", b'0', &[(100, b"\0\0\0\0\0\0\0\0")], b""), "a", 0, b""),
        (
            "a long name",
            [
                header(b"././@LongLink", b'L', &[gnu_magic], format!("{long}\0").as_bytes()),
                header(b"d/", b'0', &[gnu_magic], b"1"),
            ]
            .concat(),
            &long,
            0o644,
            b"1",
        ),
        (
            "records",
            [
                header(
                    b"pax",
                    b'x',
                    &[],
                    &[record("path", long.as_bytes()), record("size", b"2"), record("mtime", b"-1.5")].concat(),
                ),
                header(b"d", b'0', &[(124, b"00000000007\0")], b"12"),
            ]
            .concat(),
            &long,
            0o644,
            b"12",
        ),
        (
            "a comment for all",
            [header(b"pax", b'g', &[], &record("comment", b"a\nb")), header(b"a", b'0', &[], b"1")].concat(),
            "a",
            0o644,
            b"1",
        ),
        (
            "a record that takes another back",
            [
                header(b"pax", b'x', &[], &[record("path", b"b"), record("path", b"")].concat()),
                header(b"a", b'0', &[], b"1"),
            ]
            .concat(),
            "a",
            0o644,
            b"1",
        ),
        ("no end", header(b"a", b'0', &[], b"1")[..513].to_vec(), "a", 0o644, b"1"),
        ("one block of end", [header(b"a", b'0', &[], b"1"), vec![0; 512]].concat(), "a", 0o644, b"1"),
        ("what follows the end", [header(b"a", b'0', &[], b"1"), vec![0; 1024], vec![7; 9]].concat(), "a", 0o644, b"1"),
    ] {
        let tree = read(&bytes, &place).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let (metadata, blob) = tree.get_file(&path(expected)).unwrap_or_else(|| panic!("{what}: {tree:?}"));
        assert_eq!((metadata.mode, blob), (mode, place.put(content)), "{what}");
        assert_eq!(tree.walk().filter(|(_, node)| matches!(node, Node::File { .. })).count(), 1, "{what}");
    }
    // Values of extended attributes are any bytes, also the ends of lines.
    let value = b"\x01\0\0\x02\n\x0a=\0";
    let records = [record("SCHILY.xattr.security.capability", value), record("SCHILY.xattr.user.overlay.opaque", b"y")];
    let bytes = [header(b"pax", b'x', &[], &records.concat()), header(b"a", b'0', &[], b"")].concat();
    let tree = read(&bytes, &place).expect("it is an archive");
    let xattrs = &tree.get_file(&path("a")).expect("it is there").0.xattrs;
    assert_eq!(xattrs.iter().collect::<Vec<_>>(), [(&b"security.capability"[..].into(), &value[..].into())]);
}

/// Length in the stream and holes of one file in the four formats of sparse files.
#[test]
fn sparse_files_have_their_holes() {
    let place = Memory::default();
    let mut expected = vec![0; 3000];
    expected[1024..1536].fill(b'1');
    expected[2048..2050].fill(b'2');
    let stored = [vec![b'1'; 512], b"22".to_vec()].concat();
    let octal = |number: usize| format!("{number:011o}\0").into_bytes();
    let map: Vec<u8> = [1024, 512, 2048, 2].iter().flat_map(|number| octal(*number)).collect();
    let old = header(b"a", b'S', &[(257, b"ustar  \0"), (386, &map), (483, &octal(3000))], &stored);
    let more: Vec<u8> = [&octal(1024)[..], &octal(512)].concat();
    let mut block = [0; 512];
    block[..24].copy_from_slice(&[octal(2048), octal(2)].concat());
    let fields: [(usize, &[u8]); 4] = [(257, b"ustar  \0"), (386, &more), (482, &[1]), (483, &octal(3000))];
    let mut continued = header(b"a", b'S', &fields, &stored);
    continued.splice(512..512, block);
    let with = |records: &[Vec<u8>], stored: &[u8]| {
        [header(b"pax", b'x', &[], &records.concat()), header(b"GNUSparseFile.0/a", b'0', &[], stored)].concat()
    };
    let (name, size) = (record("GNU.sparse.name", b"a"), record("GNU.sparse.size", b"3000"));
    let parts = [("offset", "1024"), ("numbytes", "512"), ("offset", "2048"), ("numbytes", "2")];
    let parts: Vec<Vec<u8>> =
        parts.iter().map(|(key, value)| record(&format!("GNU.sparse.{key}"), value.as_bytes())).collect();
    let version = [record("GNU.sparse.major", b"1"), record("GNU.sparse.minor", b"0")].concat();
    let mut list = b"2\n1024\n512\n2048\n2\n".to_vec();
    list.resize(512, 0);
    let real = record("GNU.sparse.realsize", b"3000");
    for (what, bytes) in [
        ("of old", old),
        ("of old, continued", continued),
        ("0.0", with(&[size.clone(), name.clone(), parts.concat()], &stored)),
        ("0.1", with(&[size.clone(), name.clone(), record("GNU.sparse.map", b"1024,512,2048,2")], &stored)),
        ("1.0", with(&[version.clone(), name.clone(), real.clone()], &[&list[..], &stored].concat())),
    ] {
        let bytes = [bytes, header(b"next", b'0', &[], b"")].concat();
        let tree = read(&bytes, &place).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_eq!(tree.get_file(&path("a")).map(|(_, blob)| blob), Some(place.put(&expected)), "{what}");
        assert!(tree.get(&path("next")).is_some(), "{what}");
    }
    for (what, bytes) in [
        ("parts that overlap", with(&[size.clone(), record("GNU.sparse.map", b"1024,512,1030,2")], &stored)),
        ("parts after the end", with(&[size.clone(), record("GNU.sparse.map", b"1024,512,2999,2")], &stored)),
        ("fewer bytes than parts", with(&[size.clone(), record("GNU.sparse.map", b"1024,512")], &stored)),
        ("half a part", with(&[size.clone(), record("GNU.sparse.map", b"1024,512,2048")], &stored)),
        ("no length", with(&[record("GNU.sparse.map", b"1024,512,2048,2")], &stored)),
        ("a list without end", with(&[version.clone(), real.clone()], &[b'1'; 512])),
        ("more parts than numbers", with(&[version, real], b"99999999999999\n")),
        ("a later version", with(&[record("GNU.sparse.major", b"2"), size], &stored)),
    ] {
        assert!(matches!(read(&bytes, &place), Err(ReadTarError::Archive(_))), "{what}");
    }
}

#[test]
fn what_programs_read_in_different_ways_is_an_error() {
    let place = Memory::default();
    let end = header(b"a", b'0', &[], b"1");
    let x = |records: &[Vec<u8>]| header(b"pax", b'x', &[], &records.concat());
    let long = header(b"././@LongLink", b'L', &[], b"other\0");
    for (bytes, expected) in [
        (
            vec![header(b"pax", b'g', &[], &record("path", b"b")), end.clone()],
            "the header at byte 0 sets `path` for all entries",
        ),
        (
            vec![header(b"pax", b'g', &[], &record("size", b"9")), end.clone()],
            "the header at byte 0 sets `size` for all entries",
        ),
        (vec![x(&[record("path", b"b")]), long.clone(), end.clone()], "the header at byte 2048 has two names"),
        (vec![x(&[]), x(&[record("size", b"0")]), end.clone()], "the header at byte 512 extends the same entry again"),
        (vec![long.clone(), long.clone(), end.clone()], "the header at byte 1024 extends the same entry again"),
        (vec![x(&[record("size", b"-1")]), end.clone()], "the header at byte 1024 has a bad `size`"),
        (vec![x(&[record("uid", b"1x")]), end.clone()], "the header at byte 1024 has a bad `uid`"),
        (vec![x(&[b"8 path=b\n".to_vec()])], "the header at byte 0 is no list of records"),
        (vec![x(&[b"99 path=b\n".to_vec()])], "the header at byte 0 is no list of records"),
        (vec![x(&[b"+9 path=b\n".to_vec()])], "the header at byte 0 is no list of records"),
        (vec![long], "the header at byte 1024 is missing: it would be of what was extended"),
        (vec![vec![0; 512], end.clone()], "the header at byte 0 is empty, and something follows"),
        (
            vec![header(b"a", b'0', &[(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")], b"")],
            "the header at byte 0 has no length",
        ),
        (vec![header(b"a", b'0', &[(124, b"0000008\0")], b"")], "the header at byte 0 has no length"),
        (
            vec![header(b"a", b'x', &[(124, b"77777777777\0")], b"")],
            "the header at byte 0 is an extended header of more than 1048576 bytes",
        ),
        (vec![vec![1; 512]], "the header at byte 0 has a wrong checksum"),
    ] {
        let error = match read(&bytes.concat(), &place) {
            Err(ReadTarError::Archive(error)) => error.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(error, expected);
    }
    // Cut anywhere but between entries, it is no archive.
    let whole = [x(&[record("path", b"long")]), header(b"a", b'0', &[], &[1; 700])].concat();
    for end in (1..whole.len()).filter(|end| *end < 1024 + 512 + 700) {
        assert!(read(&whole[..end], &place).is_err(), "{end}");
    }
}

/// Layers that programs which follow links, or trust lengths, were led astray by.
#[test]
fn layers_stay_inside() {
    use tar::EntryType as T;
    let place = Memory::default();
    for (what, entries, expected) in [
        ("a link out", vec![(&b"a"[..], T::Symlink, &b"/etc"[..]), (b"a/b", T::Regular, b"")], "a etc etc/b"),
        ("a way up", vec![(b"a", T::Symlink, b"../../etc"), (b"a/b", T::Regular, b"")], "a etc etc/b"),
        (
            "a hard link through a link",
            vec![(b"f", T::Regular, b""), (b"a", T::Symlink, b"/"), (b"b", T::Link, b"a/f")],
            "a b f",
        ),
        ("whiteouts of nothing", vec![(b".wh.x", T::Regular, b""), (b"a/.wh..wh..opq", T::Regular, b"")], ""),
        ("whiteouts that are links", vec![(b".wh.a", T::Regular, b""), (b".wh.b", T::Link, b".wh.a")], ""),
        ("AUFS's own", vec![(b".wh..wh.plnk", T::Directory, b""), (b".wh..wh.aufs", T::Regular, b"")], ""),
    ] {
        let bytes: Vec<u8> = entries.iter().flat_map(|(name, kind, link)| entry(name, *kind, link)).collect();
        let tree = unpacked(&[bytes], &place).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let names: Vec<String> = tree.walk().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names.join(" "), expected, "{what}");
    }
    for (what, entries, expected) in [
        ("a way up", vec![(&b"../x"[..], T::Regular, &b""[..])], "the archive holds the name `../x`"),
        ("a whiteout up", vec![(b"a/.wh...", T::Regular, b"")], "the archive holds the name `a/.wh...`"),
        ("a whiteout of no name", vec![(b".wh.", T::Regular, b"")], "the archive holds the name `.wh.`"),
        (
            "a loop",
            vec![(b"a", T::Symlink, b"a"), (b"a/b", T::Regular, b"")],
            "entry `a/b` of the layer cannot be placed",
        ),
        ("a link to nothing", vec![(b"a", T::Link, b"b")], "entry `a` of the layer cannot be placed"),
    ] {
        let bytes: Vec<u8> = entries.iter().flat_map(|(name, kind, link)| entry(name, *kind, link)).collect();
        assert_eq!(unpacked(&[bytes], &place).expect_err(what).to_string(), expected, "{what}");
    }
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
        let _ = unpacked(&[bytes.clone(), bytes.clone()], &place);
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
        let _ = unpacked(&[bytes.clone(), bytes], &place);
    }
}
