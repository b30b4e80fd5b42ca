//! Layers with a table of contents: what the table says is where it says, and archives of others stay what they are.

use std::collections::BTreeMap;
use std::io::{self, Read};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_tree::{Directory, Metadata, Node};
use serde_json::Value;

use crate::tests::{LIMITS, Memory, example, header, keep, path, record, tar_of, with_tail};
use crate::*;

/// Content that does not compress.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// The example, and files of several chunks.
fn large(place: &Memory) -> Directory {
    let mut tree = example(place);
    for (seed, length) in [(1, 900_000), (2, 10 << 20), (3, (4 << 20) + 1), (4, 4 << 20), (5, 1 << 20), (6, 1)] {
        let blob = place.put(&noise(seed, length));
        tree.insert(&path(&format!("noise/{seed}")), Node::file(blob, 0o644), &Metadata::root_owned(0o755))
            .expect("free");
    }
    tree
}

fn unpacked(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut back = Vec::new();
    let reader = decompress(bytes, compression, u64::MAX).expect("there is memory");
    { reader }.read_to_end(&mut back).expect("it is whole");
    back
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(DigestFunction::Sha256, bytes).to_string()
}

/// Files by name as a table tells them, read at the places that it names and no others.
fn files(table: &Value, blob: &[u8], compression: Compression) -> BTreeMap<String, Vec<u8>> {
    let entries = table["entries"].as_array().expect("it has entries");
    let number = |entry: &Value, key: &str| usize::try_from(entry[key].as_u64().unwrap_or(0)).expect("it is small");
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| matches!(entry["type"].as_str(), Some("reg" | "chunk"))) {
        let name = entry["name"].as_str().expect("it has a name").to_owned();
        let content = files.entry(name.clone()).or_default();
        if number(entry, "offset") == 0 {
            assert_eq!(number(entry, "size"), 0, "{name}");
            continue;
        }
        assert_eq!(content.len(), number(entry, "chunkOffset"), "{name}");
        let length = match number(entry, "chunkSize") {
            0 => number(entry, "size"),
            length => length,
        };
        let mut chunk = Vec::new();
        let from = decompress(&blob[number(entry, "offset")..], compression, u64::MAX).expect("there is memory");
        from.take(length as u64).read_to_end(&mut chunk).expect("it is whole");
        if let Some(digest) = entry["chunkDigest"].as_str() {
            assert_eq!(digest, sha256(&chunk), "{name}");
        }
        content.extend(chunk);
    }
    for entry in entries.iter().filter(|entry| entry["type"] == "reg") {
        let name = entry["name"].as_str().expect("it has a name");
        if number(entry, "size") > 0 {
            assert_eq!(entry["digest"].as_str(), Some(&*sha256(&files[name])), "{name}");
        }
    }
    files
}

/// The regular files of a tar.
fn files_of_tar(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().expect("it is an archive") {
        let mut entry = entry.expect("an entry");
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("these are text");
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("it is whole");
            files.insert(name, content);
        }
    }
    files
}

fn range(annotation: &str) -> std::ops::Range<usize> {
    let mut numbers = annotation.split(':').map(|number| number.parse::<usize>().expect("it is a number"));
    let (start, length) = (numbers.next().expect("an offset"), numbers.next().expect("a length"));
    start..start + length
}

#[test]
fn zstd_chunked_is_the_tar_and_a_table_of_it() {
    let place = Memory::default();
    let plan = LayerPlan::new(&large(&place)).expect("a layer can tell it");
    let tar = tar_of(&plan, &place);
    let (blob, added, annotations) = with_tail(&plan, &place, Codec::ZstdChunked3).expect("a table can tell it");
    assert!(added.is_empty());
    assert!(unpacked(&blob, Compression::Zstd) == tar);
    let annotation = |key: &str| annotations[&format!("io.github.containers.zstd-chunked.{key}")].clone();
    let position = annotation("manifest-position");
    let compressed = &blob[range(&position)];
    assert_eq!(annotation("manifest-checksum"), sha256(compressed));
    let table = unpacked(compressed, Compression::Zstd);
    assert!(position.ends_with(&format!(":{}:1", table.len())), "{position}");
    let table: Value = serde_json::from_slice(&table).expect("it is JSON");
    assert_eq!(files(&table, &blob, Compression::Zstd), files_of_tar(&tar));
    // The tar is put together again out of its other part and the contents.
    let split = &blob[range(&annotation("tarsplit-position"))];
    assert_eq!(table["tarSplitDigest"].as_str(), Some(&*sha256(split)));
    let contents = files_of_tar(&tar);
    let mut again = Vec::new();
    for (position, line) in unpacked(split, Compression::Zstd).split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let line: Value = serde_json::from_slice(line).expect("it is JSON");
        assert_eq!(line["position"], position);
        match (line["type"].as_u64(), line["name"].as_str()) {
            (Some(1), Some(name)) if line["size"].as_u64() > Some(0) => again.extend(&contents[name]),
            (Some(1), Some(_)) => assert!(line["payload"].is_null()),
            (Some(2), None) => {
                use base64::Engine as _;
                let payload = line["payload"].as_str().expect("it has bytes");
                again.extend(base64::engine::general_purpose::STANDARD.decode(payload).expect("it is base64"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(again == tar);
}

#[test]
fn estargz_is_the_tree_between_a_landmark_and_a_table() {
    let place = Memory::default();
    let tree = large(&place);
    let plan = LayerPlan::stargz(&tree, place.put(LANDMARK)).expect("such a layer can tell it");
    let (blob, added, annotations) = with_tail(&plan, &place, Codec::Stargz6).expect("a table can tell it");
    let tar = [tar_of(&plan, &place), added].concat();
    assert!(unpacked(&blob, Compression::Gzip) == tar);
    assert_eq!(annotations["io.containers.estargz.uncompressed-size"], tar.len().to_string());
    let footer = &blob[blob.len() - 51..];
    assert!(unpacked(footer, Compression::Gzip).is_empty());
    let offset = std::str::from_utf8(&footer[16..32]).expect("it is text");
    let offset = usize::from_str_radix(offset, 16).expect("it is a number");
    let mut listed = files_of_tar(&unpacked(&blob[offset..], Compression::Gzip));
    let table = listed.remove("stargz.index.json").expect("it is the only one");
    assert_eq!(annotations["containerd.io/snapshot/stargz/toc.digest"], sha256(&table));
    let table: Value = serde_json::from_slice(&table).expect("it is JSON");
    let files = files(&table, &blob, Compression::Gzip);
    assert_eq!(files[".no.prefetch.landmark"], LANDMARK);
    let mut expected = files_of_tar(&tar);
    expected.remove("stargz.index.json");
    assert_eq!(files, expected);
    // Converted again, it is what it was.
    let form = ScanForm::Stargz(place.put(LANDMARK));
    let again = LayerPlan::scan(&mut &tar[..], LIMITS, form, &mut keep(&place)).expect("it is an archive");
    assert!(again == plan);
    let mut taken = tree.clone();
    taken.insert(&path("stargz.index.json"), Node::symlink("x"), &Metadata::root_owned(0o755)).expect("free");
    let error = LayerPlan::stargz(&taken, place.put(LANDMARK)).expect_err("the name is taken");
    assert_eq!(
        error.to_string(),
        "`stargz.index.json` cannot be in an eStargz layer, which has a file of that name for itself"
    );
}

/// The bytes are a contract: a digest that changes here needs a new codec id.
#[test]
fn bytes_are_golden() {
    let place = Memory::default();
    let tree = large(&place);
    let plan = LayerPlan::new(&tree).expect("a layer can tell it");
    let stargz = LayerPlan::stargz(&tree, place.put(LANDMARK)).expect("such a layer can tell it");
    let digest = |plan, codec| {
        let (blob, ..) = with_tail(plan, &place, codec).expect("a table can tell it");
        Descriptor::of(DigestFunction::Sha256, &blob).to_string()
    };
    assert_eq!([digest(&plan, Codec::ZstdChunked3), digest(&stargz, Codec::Stargz6)], GOLDEN);
}

const GOLDEN: [&str; 2] = [
    "sha256:65d0bb42691559c9bae8bf23038f07fc4541f810d6fe1515250c9a0c63b4b44a/20830121",
    "sha256:88961d03fae0b1a4316b331ae54f99848a7a0786cedd0ae157fac9e2c7830a04/20833763",
];

/// What others wrote is cut as the same tree is here, and not one byte is lost.
#[test]
fn archives_of_others_stay_what_they_are() {
    let place = Memory::default();
    let plan = LayerPlan::new(&large(&place)).expect("a layer can tell it");
    let tar = tar_of(&plan, &place);
    let scan = |tar: &[u8]| LayerPlan::scan(&mut { tar }, LIMITS, ScanForm::Whole, &mut keep(&place));
    assert!(scan(&tar).expect("it is an archive") == plan);
    let entry = header(b"./x/", b'5', &[(136, b"00000000017\0")], b"");
    let sparse = header(b"s", b'0', &[(257, b"ustar\0")], b"not sparse");
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("no end", entry.clone()),
        ("one empty block", [&entry[..], &[0; 512]].concat()),
        ("10 KiB of end", [&sparse[..], &[0; 10_240]].concat()),
        ("something behind the end", [&entry[..], &[0; 1024], b"hello"].concat()),
        ("a lot behind the end", [&entry[..], &[0; 1024], &noise(9, 3 << 20)].concat()),
        ("padding that is not zero", [&sparse[..1022], b"xy", &[0; 1024]].concat()),
        ("a file cut at its padding", sparse[..522].to_vec()),
    ] {
        let plan = scan(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(tar_of(&plan, &place) == bytes, "{what}");
    }
    // As eStargz has it, a table follows, which must begin at a block.
    let form = ScanForm::Stargz(place.put(LANDMARK));
    let short = LayerPlan::scan(&mut &sparse[..522], LIMITS, form, &mut keep(&place)).expect("it is an archive");
    assert_eq!(short.size() % 512, 0);
    // What eStargz has names for goes without being looked at, however long it is.
    let own = header(b".prefetch.landmark", b'0', &[], &[0; 20 << 20]);
    let dropped = LayerPlan::scan(&mut &own[..], LIMITS, form, &mut keep(&place)).expect("it is an archive");
    assert_eq!(dropped.size(), 1024);
    let global: Vec<u8> =
        (0..20).flat_map(|_| header(b"g", b'g', &[], &record("comment", &[b'x'; 1_000_000]))).collect();
    assert_eq!(scan(&global).expect_err("nobody has such headers").to_string(), "could not read the archive");
    let cut = scan(&sparse[..520]).expect_err("its content is not whole");
    assert_eq!(cut.to_string(), "could not read the archive");
}

#[test]
fn what_a_table_cannot_tell_is_an_error() {
    let place = Memory::default();
    let global = |key: &str| header(b"g", b'g', &[], &record(key, b"x"));
    let plain = header(b"x", b'0', &[], b"1");
    let map = [record("GNU.sparse.major", b"1"), record("GNU.sparse.minor", b"0"), record("GNU.sparse.realsize", b"9")];
    let mut content = b"0\n".to_vec();
    content.resize(512, 0);
    let sparse = [header(b"x", b'x', &[], &map.concat()), header(b"s", b'0', &[], &content)].concat();
    for (bytes, why, chunked_alone) in [
        (header(b"\xff", b'0', &[], b""), "its name is not UTF-8", false),
        (header(b"x", b'2', &[(157, b"\xff")], b""), "the path that it links to is not UTF-8", false),
        (header(b"x", b'7', &[], b""), "its type is none of those that tables have", false),
        (header(b"x", b'Z', &[], b""), "its type is none of those that tables have", false),
        (header(b"x", b'1', &[(157, b"y"), (124, b"00000000007\0")], b""), "it is no file and tells a length", false),
        ([global("comment"), plain.clone()].concat(), "a header for all entries stands before it", false),
        (sparse, "it is sparse", false),
        (header(b"x", b'0', &[(136, b"777777777777")], b""), "", false),
        (header(b"x", b'0', &[(136, b"\x80\0\0\0\x7f\0\0\0\0\0\0\0")], b""), "its time has a year", false),
        ([plain.clone(), header(b"./x", b'5', &[], b"")].concat(), "another entry has its name", true),
        ([plain.clone(), header(b"y", b'0', &[], b"2")[..520].to_vec()].concat(), "ends within its last block", false),
    ] {
        for codec in [Codec::ZstdChunked3, Codec::Stargz6] {
            let scanned = LayerPlan::scan(&mut &bytes[..], LIMITS, ScanForm::Whole, &mut keep(&place));
            let plan = scanned.expect("it is an archive");
            let made = with_tail(&plan, &place, codec).map(drop);
            let is_fine = why.is_empty() || (chunked_alone && codec == Codec::Stargz6);
            match made {
                Ok(()) => assert!(is_fine, "{why}"),
                Err(error) => assert!(!is_fine && error.to_string().contains(why), "{why}: {error}"),
            }
        }
    }
}

/// Times, owners' names and numbers of devices are told as Go's reader sees them, for its clients compare.
#[test]
fn tables_tell_what_headers_say() {
    let place = Memory::default();
    let extended = [record("mtime", b"1.5"), record("atime", b"-0.25"), record("uname", "Bob".as_bytes())].concat();
    let bytes = [
        header(b"p", b'x', &[], &extended),
        header(
            b"x",
            b'0',
            &[(157, b"t"), (100, b"0100644\0"), (136, b"00000000017\0"), (265, b"alice"), (329, b"0000003\0")],
            b"",
        ),
        header(
            b"y",
            b'3',
            &[(329, b"0000001\0"), (337, b"0000003\0"), (136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")],
            b"",
        ),
    ]
    .concat();
    let scanned = LayerPlan::scan(&mut &bytes[..], LIMITS, ScanForm::Whole, &mut keep(&place));
    let plan = scanned.expect("it is an archive");
    let (blob, _, annotations) = with_tail(&plan, &place, Codec::ZstdChunked3).expect("a table can tell it");
    let table = &blob[range(&annotations["io.github.containers.zstd-chunked.manifest-position"])];
    let table: Value = serde_json::from_slice(&unpacked(table, Compression::Zstd)).expect("it is JSON");
    let expected = serde_json::json!([
        { "type": "reg", "name": "x", "mode": 0o100_644, "modtime": "1970-01-01T00:00:01.5Z", "devMajor": 3, "linkName": "t",
          "accesstime": "1969-12-31T23:59:59.75Z" },
        { "type": "char", "name": "y", "mode": 0o644, "modtime": "1969-12-31T23:59:59Z", "devMajor": 1, "devMinor": 3 },
    ]);
    assert_eq!(table["entries"], expected);
    let (blob, ..) = with_tail(&plan, &place, Codec::Stargz6).expect("a table can tell it");
    let all = unpacked(&blob, Compression::Gzip);
    let text = String::from_utf8_lossy(&all);
    assert!(text.contains(r#""modtime":"1970-01-01T00:00:02Z","name":"x","type":"reg","userName":"Bob""#), "{text}");
}

#[test]
fn failures_of_a_place_are_told() {
    let place = Memory::default();
    let plan = LayerPlan::new(&large(&place)).expect("a layer can tell it");
    let empty = Memory::default();
    for codec in [Codec::ZstdChunked3, Codec::Stargz6, Codec::Zstd3] {
        let error = codec.encode(&plan.groups[0], &empty, io::sink()).expect_err("nothing is there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
    assert!(Codec::ZstdChunked3.encoder(io::sink(), 0).is_err());
}
