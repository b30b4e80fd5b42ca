//! Archives, and images of others.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Metadata, Node};

use crate::{fuzz, path, tree};

#[test]
fn archives() {
    let plan = cas_tar::npm_plan(&[(path("päckage.json"), 0o644, Descriptor::empty(DigestFunction::Blake3))]);
    let mut tar = Vec::new();
    struct Nothing;
    impl cas_blob::OpenBlob for Nothing {
        fn open_blob(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, cas_blob::OpenBlobError> {
            Ok(Box::new(std::io::empty()))
        }
    }
    for group in &plan.groups {
        cas_tar::copy_pieces(group.pieces(), &Nothing, &mut tar).unwrap();
    }
    fuzz("tar", &[tar.clone()], |bytes| {
        let keep = &mut |content: &mut dyn Read| {
            let mut kept = Vec::new();
            content.take(1 << 20).read_to_end(&mut kept).ok();
            Ok::<_, Infallible>(Descriptor::of(DigestFunction::Blake3, &kept))
        };
        let limits = cas_tar::ReadTarLimits { content_bytes: 1 << 20 };
        let _ = cas_tar::read_tree(&mut &bytes[..], limits, keep);
        let mut tree = cas_tree::Unpacking::new(cas_tree::Directory::root());
        for _ in 0..2 {
            let _ = cas_tar::read_layer(&mut tree, &mut &bytes[..], limits, keep);
        }
        let _ = tree.finish();
        let _ = cas_tar::read_entries(&mut &bytes[..], limits, &mut |_, _, content| keep(content), &mut |_| Ok(()));
    });
    let mut gzip = cas_tar::Codec::Gzip6.header().to_vec();
    let encoder = cas_tar::Codec::Gzip6.encoder(Vec::new(), 3).unwrap();
    let (body, summary) = {
        let mut encoder = encoder;
        std::io::Write::write_all(&mut encoder, b"abc").unwrap();
        encoder.finish().unwrap()
    };
    gzip.extend(body);
    gzip.extend(cas_tar::Codec::Gzip6.trailer(&[summary]));
    fuzz(
        "decompress",
        &[gzip, b"\x28\xb5\x2f\xfd\x04\x00\x19\x00\x00abc".to_vec(), b"\xfd7zXZ\0\0\x04".to_vec()],
        |bytes| {
            let compression = cas_tar::Compression::detect(bytes);
            if let Ok(reader) = cas_tar::decompress(bytes, compression, 1 << 20) {
                std::io::copy(&mut reader.take(2 << 20), &mut std::io::sink()).ok();
            }
        },
    );
}

/// An image of one file, or of what a damaged archive holds.
/// Archives of others are planned without losing a byte, and what a table of contents cannot tell is an error.
#[test]
fn archives_of_others() {
    #[derive(Default)]
    struct Memory(std::sync::Mutex<BTreeMap<Descriptor, Vec<u8>>>);
    impl cas_blob::OpenBlob for Memory {
        fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, cas_blob::OpenBlobError> {
            let found = self.0.lock().unwrap().get(blob).cloned();
            found
                .map_or(Err(cas_blob::OpenBlobError::Missing(*blob)), |bytes| Ok(Box::new(std::io::Cursor::new(bytes))))
        }
    }
    let place = Memory::default();
    let put = |bytes: &[u8]| {
        let blob = Descriptor::of(DigestFunction::Blake3, bytes);
        place.0.lock().unwrap().insert(blob, bytes.to_vec());
        blob
    };
    let mut tree = tree();
    put(b"x");
    let parents = Metadata::root_owned(0o755);
    for (name, content) in [("files/a", &b"content"[..]), ("files/b", &[7; 1500]), ("files/empty", b"")] {
        tree.insert(&path(name), Node::file(put(content), 0o644), &parents).unwrap();
    }
    let seeds: Vec<Vec<u8>> = [cas_tar::LayerPlan::stargz(&tree, put(cas_tar::LANDMARK))]
        .into_iter()
        .chain([cas_tar::LayerPlan::new(&tree)])
        .filter_map(|plan| {
            let mut bytes = Vec::new();
            for group in &plan.ok()?.groups {
                cas_tar::copy_pieces(group.pieces(), &place, &mut bytes).ok()?;
            }
            Some(bytes)
        })
        .collect();
    assert!(!seeds.is_empty());
    fuzz("scan", &seeds, |bytes| {
        let place = Memory::default();
        let keep = &mut |content: &mut dyn Read| {
            let mut kept = Vec::new();
            content.take(1 << 20).read_to_end(&mut kept)?;
            let blob = Descriptor::of(DigestFunction::Blake3, &kept);
            place.0.lock().unwrap().insert(blob, kept);
            Ok::<_, std::io::Error>(blob)
        };
        let limits = cas_tar::ReadTarLimits { content_bytes: 1 << 20 };
        let whole = cas_tar::LayerPlan::scan(&mut &bytes[..], limits, cas_tar::ScanForm::Whole, keep);
        let Ok(plan) = whole else { return };
        let mut again = Vec::new();
        for group in &plan.groups {
            cas_tar::copy_pieces(group.pieces(), &place, &mut again).unwrap();
        }
        assert!(again == bytes, "every byte is there");
        for codec in [cas_tar::Codec::ZstdChunked3, cas_tar::Codec::Stargz6] {
            let mut groups = Vec::new();
            for group in &plan.groups {
                let (frame, encoded) = codec.encode(group, &place, Vec::new()).unwrap();
                groups.push((frame.len() as u64, encoded.contents));
            }
            let groups: Vec<_> =
                groups.iter().map(|(size, contents)| cas_tar::GroupIndex { size: *size, contents }).collect();
            let _ = cas_tar::Tail::new(codec, &plan, &groups, &mut std::io::sink());
        }
    });
    let digest = Descriptor::of(DigestFunction::Sha256, b"x").digest;
    let chunk = cas_tar::ChunkIndex { size: 1, start: 0, end: 9, sha256: digest };
    let index = cas_tar::ContentIndex { sha256: digest, crc64: 7, chunks: vec![chunk] };
    fuzz("contents", &[cas_tar::ContentIndex::encode(&[index])], |bytes| {
        let _ = cas_tar::ContentIndex::decode(bytes);
    });
}

#[test]
fn images_to_look_at() {
    let seeds: [(&str, &str); 6] = [
        ("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nVersion: 2\n"),
        ("var/lib/dpkg/info/a.list", "/.\n/usr/bin/a\n/../x\n"),
        ("lib/apk/db/installed", "P:b\nV:2\nF:usr/bin\nR:a\n\nP:c\nV:3\n"),
        ("a/demo-1.dist-info/RECORD", "demo/a.py,,\n\"b,c\",,\n../../x,,\n"),
        ("node_modules/a/package.json", r#"{"name":"a","version":"1"}"#),
        ("node_modules/.package-lock.json", r#"{"packages":{"node_modules/a":{"dev":true}}}"#),
    ];
    let entry = |name: &str, content: &[u8]| cas_analyze::Entry {
        path: Some(path(name)),
        what: cas_analyze::What::Node(Node::file(Descriptor::of(DigestFunction::Sha256, content), 0o644)),
        bytes: 512 + (content.len() as u64).next_multiple_of(512),
        header_bytes: 512,
        content: content.to_vec(),
    };
    for (name, seed) in seeds {
        fuzz("analyze", &[seed.as_bytes().to_vec()], |bytes| {
            let mut image = cas_analyze::Image::new();
            image.begin_layer();
            let mut total = 0;
            for (other, content) in seeds.iter().chain(&[("root/.docker/config.json", "")]) {
                let is_damaged = *other == name || content.is_empty();
                let entry = entry(other, if is_damaged { bytes } else { content.as_bytes() });
                total += entry.bytes;
                image.add(entry).unwrap();
            }
            image.end_layer(cas_analyze::LayerFacts::default());
            let report = cas_analyze::analyze(&image);
            assert!(report.savings().0 <= total);
        });
    }
}
