//! Properties of the canonical encoding.

use std::collections::BTreeMap;
use std::fmt;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use proptest::prelude::*;

use crate::{DecodeError, DecodeTreeError, DeviceKind, Directory, EncodedTree, Metadata, Node, RelPath, decode};

fn metadata() -> impl Strategy<Value = Metadata> {
    let xattr = (prop::collection::vec(any::<u8>(), 1..6), prop::collection::vec(any::<u8>(), 0..6));
    (0..0o10000u32, any::<u32>(), any::<u32>(), prop::collection::vec(xattr, 0..2)).prop_map(
        |(mode, uid, gid, xattrs)| {
            let xattrs = xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            Metadata { mode, uid, gid, xattrs }
        },
    )
}

fn leaf() -> impl Strategy<Value = Node> {
    prop_oneof![
        (metadata(), any::<u64>()).prop_map(|(metadata, seed)| Node::File {
            metadata,
            blob: Descriptor::of(DigestFunction::Sha256, &seed.to_le_bytes()),
        }),
        prop::collection::vec(any::<u8>(), 1..9).prop_map(Node::symlink),
        (metadata(), any::<u32>(), any::<u32>()).prop_map(|(metadata, major, minor)| Node::Device {
            metadata,
            kind: DeviceKind::Block,
            major,
            minor,
        }),
        metadata().prop_map(|metadata| Node::Fifo { metadata }),
        Just(Node::Whiteout),
        Just(Node::Link { target: RelPath::new("0").expect("a path") }),
    ]
}

fn edits() -> impl Strategy<Value = Vec<(RelPath, Node)>> {
    let path = "[a-c.\u{e9}]{1,3}(/[a-c]{1,2}){0,3}".prop_filter_map("dots", |text| RelPath::new(text).ok());
    prop::collection::vec((path, leaf()), 0..24)
}

fn build(edits: &[(RelPath, Node)]) -> Directory {
    let mut tree = Directory::root();
    let first = Node::file(Descriptor::of(DigestFunction::Sha256, b"first"), 0o644);
    tree.insert(&RelPath::new("0").expect("a path"), first, &Metadata::default()).expect("the tree is empty");
    for (path, node) in edits {
        // A file on the way is a fair answer to a random path.
        let _ = tree.insert(path, node.clone(), &Metadata::root_owned(0o755));
    }
    tree
}

#[derive(Debug, PartialEq)]
struct Absent;

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("absent")
    }
}

impl std::error::Error for Absent {}

fn load(encoded: &EncodedTree) -> Result<Directory, DecodeTreeError<Absent>> {
    let blobs: BTreeMap<Descriptor, Vec<u8>> = encoded.directories.iter().cloned().collect();
    decode(&encoded.root, &mut |descriptor| blobs.get(descriptor).cloned().ok_or(Absent))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_gives_the_tree_that_was_encoded(edits in edits()) {
        let tree = build(&edits);
        let encoded = tree.encode(DigestFunction::Sha256).expect("all content is named by SHA-256");
        prop_assert_eq!(load(&encoded).expect("we wrote it"), tree);
    }

    #[test]
    fn the_order_of_insertion_does_not_matter(edits in edits(), rotation in 0usize..24) {
        let distinct: BTreeMap<RelPath, Node> = edits.into_iter()
            .filter(|(path, _)| path.parent().is_none()).collect();
        let mut edits: Vec<_> = distinct.into_iter().collect();
        let one = build(&edits);
        if !edits.is_empty() { let middle = rotation % edits.len(); edits.rotate_left(middle); }
        prop_assert_eq!(build(&edits), one);
    }

    #[test]
    fn damaged_blobs_never_decode_to_another_tree_silently(edits in edits(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let tree = build(&edits);
        let mut encoded = tree.encode(DigestFunction::Sha256).expect("all content is named by SHA-256");
        let (_, bytes) = encoded.directories.last_mut().expect("the root is there");
        let index = at.index(bytes.len());
        bytes[index] ^= flip;
        let damaged = bytes.clone();
        // Whatever still decodes is a canonical tree: encoding it gives the damaged bytes back.
        if let Ok(tree) = load(&encoded) {
            let again = tree.encode(DigestFunction::Sha256).expect("content digests kept their function");
            prop_assert_eq!(&again.directories.last().expect("the root is there").1, &damaged);
        }
    }
}

#[test]
fn digests_of_format_version_1_do_not_change() {
    let mut tree = Directory::root();
    let parents = Metadata::root_owned(0o755);
    let path = |text: &str| RelPath::new(text).expect("a path");
    let blob = Descriptor::of(DigestFunction::Blake3, b"#!/bin/sh\n");
    tree.insert(&path("bin/run"), Node::file(blob, 0o755), &parents).expect("free");
    tree.insert(&path("bin/link"), Node::symlink("run"), &parents).expect("free");
    tree.insert(&path("usr/run"), Node::Link { target: path("bin/run") }, &parents).expect("free");
    let encoded = tree.encode(DigestFunction::Blake3).expect("all content is named by BLAKE3");
    assert_eq!(encoded.root.to_string(), GOLDEN);
}

/// Changes with the format's version alone.
const GOLDEN: &str = "blake3:5ee42874bc1444b8cc89e6039b83a4ee4b2a74ee5b289eae70063e9898d265d2/93";

#[test]
fn hostile_trees_end_in_errors() {
    // Thirty directories of ten thousand entries that all name the next one: 10^120 nodes in a few megabytes.
    let mut encoded = Directory::root().encode(DigestFunction::Sha256).expect("it is empty");
    let mut child = encoded.root;
    for _ in 0..30 {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"castree\n\x01\x02\x00\x00\x00\x00\x00");
        bytes.extend_from_slice(&[0x90, 0x4e]); // 10,000
        for index in 0..10_000 {
            bytes.push(5);
            bytes.extend_from_slice(format!("{index:05}").as_bytes());
            bytes.push(1);
            bytes.extend_from_slice(child.digest.value());
            let mut size = child.size;
            while size >= 0x80 {
                bytes.push((size & 0x7f) as u8 | 0x80);
                size >>= 7;
            }
            bytes.push(u8::try_from(size).expect("below 128"));
        }
        child = Descriptor::of(DigestFunction::Sha256, &bytes);
        encoded.directories.push((child, bytes));
    }
    encoded.root = child;
    let error = load(&encoded).expect_err("it is too large");
    assert!(
        matches!(error, DecodeTreeError::Bytes { source: DecodeError::Limit { what: "nodes", .. }, .. }),
        "{error:?}"
    );
}

#[test]
fn a_link_must_name_an_earlier_file() {
    let mut tree = Directory::root();
    tree.entries
        .insert(crate::Name::new("a").expect("a name"), Node::Link { target: RelPath::new("b").expect("a path") });
    let file = Node::file(Descriptor::of(DigestFunction::Sha256, b""), 0o644);
    tree.entries.insert(crate::Name::new("b").expect("a name"), file);
    let encoded = tree.encode(DigestFunction::Sha256).expect("it has an encoding, of a wrong tree");
    let error = load(&encoded).expect_err("the link comes first");
    assert!(matches!(error, DecodeTreeError::Bytes { source: DecodeError::Link { .. }, .. }), "{error:?}");
}
