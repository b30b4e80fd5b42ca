//! An image at one state of its dependencies, as its layers say it, and what of it is new since another state.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use cas_blob::{BlobStore, Descriptor};
use cas_digest::DigestFunction;
use cas_tar::{Compression, ReadTarLimits, decompress, read_tree};
use cas_testing::MemoryStore;
use cas_tree::{Directory, Metadata, Node, RelPath};
use serde_json::Value;

use crate::run::Failure;

/// Most bytes of a layer, uncompressed.
const LAYER_BYTES: u64 = 4 << 30;

/// A blob of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) size: u64,
}

/// The layers of an image, lowest first, as its manifest has them.
pub(crate) struct Manifest {
    pub(crate) layers: Vec<Blob>,
    /// Digests of the uncompressed layers: equal ones for every compression.
    pub(crate) diff_ids: Vec<String>,
}

impl Manifest {
    /// Reads a layout with one image.
    pub(crate) fn read(layout: &Path) -> Result<Self, Failure> {
        let json = |path: &Path| Ok::<Value, Failure>(serde_json::from_slice(&fs::read(path)?)?);
        let index = json(&layout.join("index.json"))?;
        let manifest = json(&blob_path(layout, text(&index["manifests"][0]["digest"])?))?;
        let config = json(&blob_path(layout, text(&manifest["config"]["digest"])?))?;
        let blob = |layer: &Value| {
            let size = layer["size"].as_u64().ok_or("a layer has no size")?;
            Ok(Blob { digest: text(&layer["digest"])?.to_owned(), size })
        };
        let layers = list(&manifest["layers"])?.iter().map(blob).collect::<Result<_, Failure>>()?;
        let diff_ids = list(&config["rootfs"]["diff_ids"])?.iter().map(|id| Ok(text(id)?.to_owned()));
        Ok(Self { layers, diff_ids: diff_ids.collect::<Result<_, Failure>>()? })
    }

    /// Bytes of the blobs that another image does not have.
    pub(crate) fn new_bytes(&self, before: &Self) -> u64 {
        self.layers.iter().filter(|blob| !before.layers.contains(blob)).map(|blob| blob.size).sum()
    }

    /// The tree of each layer; contents go into `place`.
    pub(crate) fn trees(&self, layout: &Path, place: &MemoryStore) -> Result<Vec<Directory>, Failure> {
        self.layers.iter().map(|layer| read_layer(&blob_path(layout, &layer.digest), place)).collect()
    }
}

fn text(value: &Value) -> Result<&str, Failure> {
    value.as_str().ok_or_else(|| format!("`{value}` is not a text").into())
}

fn list(value: &Value) -> Result<&Vec<Value>, Failure> {
    value.as_array().ok_or_else(|| format!("`{value}` is not a list").into())
}

fn blob_path(layout: &Path, digest: &str) -> std::path::PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn read_layer(path: &Path, place: &MemoryStore) -> Result<Directory, Failure> {
    let mut head = Vec::new();
    File::open(path)?.take(6).read_to_end(&mut head)?;
    let mut tar = decompress(File::open(path)?, Compression::detect(&head), LAYER_BYTES)?;
    let limits = ReadTarLimits { content_bytes: LAYER_BYTES };
    Ok(read_tree(&mut tar, limits, &mut |content| place.put(DigestFunction::Blake3, content))?)
}

/// What is at a path: a file also where it is another name of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    File(Metadata, Descriptor),
    /// A directory, without what it holds.
    Directory(Metadata),
    Other(Node),
}

/// The files of an image, by the bytes of their paths: a directory comes before what it holds.
pub(crate) type Files = BTreeMap<Vec<u8>, Thing>;

/// What layers hold together. None of them removes anything: this is of images that `cas` built of whole trees.
pub(crate) fn files<'a>(layers: impl IntoIterator<Item = &'a Directory>) -> Files {
    let mut files = Files::new();
    for tree in layers {
        for (path, node) in tree.walk() {
            let thing = match (tree.file_of(node), node) {
                (Some((metadata, blob)), _) => Thing::File(metadata.clone(), blob),
                (None, Node::Directory(directory)) => Thing::Directory(directory.metadata.clone()),
                (None, node) => Thing::Other(node.clone()),
            };
            files.insert(path.as_bytes().to_vec(), thing);
        }
    }
    files
}

/// What is new: a path, or its content, mode, owner or type.
pub(crate) fn changed(before: &Files, after: &Files) -> Files {
    let is_new = |(path, thing): &(&Vec<u8>, &Thing)| before.get(*path) != Some(*thing);
    after.iter().filter(is_new).map(|(path, thing)| (path.clone(), thing.clone())).collect()
}

/// The tree with these files and the directories that they are in.
pub(crate) fn tree<'a>(files: impl IntoIterator<Item = (&'a Vec<u8>, &'a Thing)>) -> Result<Directory, Failure> {
    let mut tree = Directory::root();
    for (path, thing) in files {
        let node = match thing {
            Thing::File(metadata, blob) => Node::File { metadata: metadata.clone(), blob: *blob },
            // What it holds comes later: it sorts before all of that.
            Thing::Directory(metadata) => Node::Directory(Directory::new(metadata.clone()).into()),
            Thing::Other(node) => node.clone(),
        };
        tree.insert(&RelPath::new(path)?, node, &Metadata::root_owned(0o755))?;
    }
    Ok(tree)
}

/// Bytes of the contents.
pub(crate) fn content_bytes<'a>(things: impl IntoIterator<Item = &'a Thing>) -> u64 {
    let size = |thing: &Thing| if let Thing::File(_, blob) = thing { blob.size } else { 0 };
    things.into_iter().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(entries: &[(&str, &str, u32)]) -> Files {
        let mut tree = Directory::root();
        for (path, content, mode) in entries {
            let blob = Descriptor::of(DigestFunction::Blake3, content.as_bytes());
            let path = RelPath::new(path).expect("a path");
            tree.insert(&path, Node::file(blob, *mode), &Metadata::root_owned(0o755)).expect("nothing is in the way");
        }
        files([&tree])
    }

    #[test]
    fn a_new_path_content_or_mode_is_a_change_and_nothing_else() {
        let before =
            of(&[("a/same", "x", 0o644), ("a/content", "x", 0o644), ("a/mode", "x", 0o644), ("gone", "x", 0o644)]);
        let after =
            of(&[("a/same", "x", 0o644), ("a/content", "y", 0o644), ("a/mode", "x", 0o755), ("b/new", "x", 0o644)]);
        let changed = changed(&before, &after);
        let names: Vec<String> = changed.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert_eq!(names, ["a/content", "a/mode", "b", "b/new"]);
        let tree = tree(&changed).expect("it is a tree");
        let names: Vec<String> = tree.walk().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["a", "a/content", "a/mode", "b", "b/new"], "a layer of them has their directories too");
    }

    #[test]
    fn a_second_name_changes_with_the_content() {
        let link = |content: &str| {
            let mut tree = Directory::root();
            let blob = Descriptor::of(DigestFunction::Blake3, content.as_bytes());
            let parents = Metadata::root_owned(0o755);
            let path = |text: &str| RelPath::new(text).expect("a path");
            tree.insert(&path("a"), Node::file(blob, 0o644), &parents).expect("nothing is in the way");
            tree.insert(&path("b"), Node::Link { target: path("a") }, &parents).expect("the target is there");
            files([&tree])
        };
        assert_eq!(changed(&link("x"), &link("y")).len(), 2);
        assert_eq!(changed(&link("x"), &link("x")).len(), 0);
    }
}
