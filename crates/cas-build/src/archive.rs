//! Images as archives: a layout, what `docker load` takes, and the files alone. All have the normal form of layers, so they repeat.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::slice;

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::DigestFunction;
use cas_oci::{LAYOUT_FILE, LayoutIndex};
use cas_store::{Store, StoreError};
use cas_tar::{Codec, Compression, LayerGroups, Piece, copy_pieces, decompress};
use cas_tree::{Directory, Metadata, Node, RelPath};
use serde_json::json;

use crate::export::{Part, Whole, keep, keep_whole};
use crate::foreign::{MAX_LAYER_BYTES, compression_of};
use crate::layer::LayerError;
use crate::written::write_with;
use crate::{BuildError, Image, ImageLayer, layer};

/// Files of an archive, by path.
struct Files(Directory);

impl Files {
    fn new() -> Self {
        Self(Directory::root())
    }

    fn add(&mut self, path: String, blob: Descriptor) {
        let path = RelPath::new(path).expect("digests and fixed names are paths");
        let parents = Metadata::root_owned(0o755);
        self.0.insert(&path, Node::file(blob, 0o644), &parents).expect("no name is below a file");
    }
}

/// A layout; what is beside the image has no tag.
pub(crate) fn oci(
    store: &Store,
    whole: &Whole<'_>,
    beside: &[Whole<'_>],
    file: &Path,
    tag: &str,
) -> Result<(), BuildError> {
    let (mut files, mut parts) = (Files::new(), BTreeMap::new());
    let named = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.to_hex());
    for whole in [whole].into_iter().chain(beside) {
        for part in &whole.parts {
            files.add(named(&part.blob), part.blob);
            parts.insert(part.blob, part);
        }
        files.add(named(&whole.document), whole.document);
    }
    let mut index = LayoutIndex::default();
    index.set(whole.entry(Some(tag)));
    beside.iter().for_each(|whole| index.add(whole.entry(None)));
    files.add("index.json".to_owned(), store.put_bytes(DigestFunction::Sha256, &index.encode())?);
    files.add("oci-layout".to_owned(), store.put_bytes(DigestFunction::Sha256, LAYOUT_FILE)?);
    write(store, &files.0, &parts, file)
}

/// What `docker save` writes since 1.10: a list of images, their configurations, and layers, which must not be compressed.
pub(crate) fn docker(store: &Store, image: &Image, file: &Path, name: Option<&str>) -> Result<(), BuildError> {
    let mut files = Files::new();
    let mut layers = Vec::new();
    for layer in &image.layers {
        let tar = uncompressed(store, layer)?;
        let path = format!("{}.tar", tar.digest.to_hex());
        files.add(path.clone(), tar);
        layers.push(path);
    }
    let config = format!("{}.json", image.config.digest.to_hex());
    files.add(config.clone(), image.config);
    let tags: Vec<&str> = name.into_iter().collect();
    let list = json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string();
    files.add("manifest.json".to_owned(), store.put_bytes(DigestFunction::Sha256, list.as_bytes())?);
    write(store, &files.0, &BTreeMap::new(), file)
}

/// The files of all layers together.
pub(crate) fn root_file_system(store: &Store, image: &Image, file: &Path) -> Result<(), BuildError> {
    write(store, &image.tree(store)?.0, &BTreeMap::new(), file)
}

/// The uncompressed bytes of a layer, as one blob.
fn uncompressed(store: &Store, layer: &ImageLayer) -> Result<Descriptor, BuildError> {
    match layer {
        ImageLayer::Made { recipe, tree } => {
            let recipe = layer::find(store, recipe)?.ok_or(BuildError::Record { what: *recipe })?;
            // The table of contents of eStargz is in the tar too, and made of how the rest was compressed.
            let is_of_tree = recipe.codec != Codec::Stargz6;
            if !is_of_tree && !store.contains(&recipe.tar)? {
                keep_whole(store, &recipe)?;
            }
            keep(store, &recipe.tar, &mut |part| {
                if is_of_tree {
                    let tree = store.load_tree(tree)?;
                    return tar(store, &tree, &BTreeMap::new(), part)
                        .map_err(|error| error.or(|_| BuildError::Record { what: recipe.tree }));
                }
                let source = store.open_blob(&recipe.blob).map_err(StoreError::from)?;
                let bytes = decompress(source, Compression::Gzip, MAX_LAYER_BYTES).map_err(BuildError::Compress)?;
                io::copy(&mut { bytes }, part).map(drop).map_err(BuildError::Compress)
            })?;
            Ok(recipe.tar)
        }
        ImageLayer::Foreign { blob, diff_id, kind, .. } => {
            let source = store.open_blob(blob).map_err(StoreError::from)?;
            let mut bytes = decompress(source, compression_of(*kind), MAX_LAYER_BYTES).map_err(BuildError::Compress)?;
            let tar = store.put(DigestFunction::Sha256, &mut bytes)?;
            if tar.digest == *diff_id { Ok(tar) } else { Err(BuildError::Record { what: *blob }) }
        }
    }
}

/// Writes a tree as a tar, at once. Contents that are not in the store as they are are among `parts`.
fn write(store: &Store, tree: &Directory, parts: &BTreeMap<Descriptor, &Part>, file: &Path) -> Result<(), BuildError> {
    write_with(file, &mut |writer| {
        let written = tar(store, tree, parts, writer);
        written.map_err(|error| error.or(|source| BuildError::NotArchived { file: file.to_owned(), source }))
    })
}

fn tar(
    store: &Store,
    tree: &Directory,
    parts: &BTreeMap<Descriptor, &Part>,
    writer: &mut dyn Write,
) -> Result<(), LayerError> {
    let part_of = |piece: &Piece| match piece {
        Piece::Content(blob) => parts.get(blob).copied(),
        Piece::Bytes(_) => None,
    };
    for group in LayerGroups::new(tree) {
        for piece in group.map_err(LayerError::Entry)?.pieces() {
            match part_of(piece) {
                Some(part) => part.write(store, writer)?,
                None => copy_pieces(slice::from_ref(piece), store, writer).map_err(BuildError::Compress)?,
            }
        }
    }
    Ok(())
}
