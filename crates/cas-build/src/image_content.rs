//! What the layers of an image hold, entry by entry: of images of the store, and of others without a workspace.
//!
//! Each layer is compared with its diffID on the way. What is found in there is for `cas-analyze`: docs/formats/image-analyze.md.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use cas_analyze::{AddError, Entry, LayerFacts, Want, What, wanted};
use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction, HashingReader};
use cas_oci::{ImageSource, MAX_DOCUMENT_BYTES, TargetPlatform};
use cas_store::{Store, StoreError};
use cas_tar::{Compression, LayerEntry, LayerItem, ReadTarError, ReadTarLimits, decompress, read_entries};
use serde_json::Value;

use crate::foreign::{MAX_LAYER_BYTES, chosen, fetch};
use crate::image_place::{ImagePlace, open};
use crate::platforms::own;
use crate::{BuildError, Image, ImageLayer, ImageRegistries, layer};

/// An image with where its layers are.
#[derive(Clone, Debug)]
pub struct ImageContent {
    /// What it is called.
    pub name: String,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Its configuration, as the document is.
    pub config: Value,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerContent>,
}

/// A layer of an image.
#[derive(Clone, Debug)]
pub struct LayerContent {
    /// Its bytes as they are sent.
    pub blob: Descriptor,
    /// Digest of its uncompressed bytes.
    pub diff_id: Digest,
    /// What its bytes are made of, unless they are in the store as they are.
    recipe: Option<Descriptor>,
}

/// An image of the store.
///
/// # Errors
///
/// [`BuildError::Record`] when part of it is gone, and what the store says.
pub fn stored_image(store: &Store, image: &Image) -> Result<ImageContent, BuildError> {
    let layer = |layer: &ImageLayer| -> Result<LayerContent, BuildError> {
        Ok(match layer {
            ImageLayer::Made { recipe, .. } => {
                let found = layer::find(store, recipe)?.ok_or(BuildError::Record { what: *recipe })?;
                LayerContent { blob: found.blob, diff_id: found.tar.digest, recipe: Some(*recipe) }
            }
            ImageLayer::Foreign { blob, diff_id, .. } => LayerContent { blob: *blob, diff_id: *diff_id, recipe: None },
        })
    };
    let layers = image.layers.iter().map(layer).collect::<Result<_, _>>()?;
    let config = document(store, &image.config)?;
    Ok(ImageContent { name: image.reference.clone(), manifest: image.manifest, config, layers })
}

/// An image of others; its documents and layers are in the store then. Paths are below `folder`. `wanted` is which image
/// of an index, that for this machine where it is not told.
///
/// # Errors
///
/// What [`BuildError`] has of images of others.
pub fn foreign_image(
    store: &Store,
    source: &ImageSource,
    folder: &Path,
    registries: &Arc<ImageRegistries>,
    wanted: Option<&TargetPlatform>,
) -> Result<ImageContent, BuildError> {
    let origin = ImagePlace::new(source, folder, registries).for_platform(wanted);
    let named = origin.resolve(store)?;
    let own = own();
    let (manifest_name, manifest, config) = chosen(store, &origin, &named, wanted.unwrap_or(&own))?;
    fetch(store, &origin, &manifest)?;
    let pairs = manifest.layers.iter().zip(&config.diff_ids);
    let layers = pairs.map(|(layer, diff_id)| LayerContent { blob: layer.blob, diff_id: *diff_id, recipe: None });
    Ok(ImageContent {
        name: source.to_string(),
        manifest: manifest_name,
        config: document(store, &manifest.config)?,
        layers: layers.collect(),
    })
}

fn document(store: &Store, blob: &Descriptor) -> Result<Value, BuildError> {
    let bytes = store.load(blob, MAX_DOCUMENT_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|_| BuildError::Record { what: *blob })
}

impl ImageContent {
    /// Reads all layers.
    ///
    /// # Errors
    ///
    /// [`BuildError::Image`] and [`BuildError::ForeignLayer`] for what is no layer, and what the store says.
    pub fn read(&self, store: &Store) -> Result<cas_analyze::Image, BuildError> {
        let history = self.history();
        let mut image = cas_analyze::Image::new();
        for (index, layer) in self.layers.iter().enumerate() {
            image.begin_layer();
            let bytes = match &layer.recipe {
                None => self.layer(layer, &mut image, open(store, &layer.blob)?)?,
                Some(recipe) => {
                    let recipe = layer::find(store, recipe)?.ok_or(BuildError::Record { what: *recipe })?;
                    let (reader, mut writer) = io::pipe().map_err(BuildError::Compress)?;
                    std::thread::scope(|scope| {
                        let thread = scope.spawn(move || {
                            layer::write(store, &recipe, &mut writer)?;
                            writer.flush().map_err(BuildError::Compress)
                        });
                        let read = self.layer(layer, &mut image, reader);
                        let written = thread.join().expect("writing does not panic");
                        // What the reader gave up for counts before what the writer found then.
                        let bytes = read?;
                        written.map(|()| bytes)
                    })?
                }
            };
            let created_by = history.get(index).cloned().unwrap_or_default();
            image.end_layer(LayerFacts {
                digest: layer.blob.digest.to_string(),
                diff_id: layer.diff_id.to_string(),
                // What the store has no recipe of may have been made by others in other stores.
                is_own: layer.recipe.is_some() || created_by.starts_with("cas //"),
                created_by,
                compressed_bytes: layer.blob.size,
                bytes,
            });
        }
        Ok(image)
    }

    /// What made each layer, where the configuration tells as many as there are.
    fn history(&self) -> Vec<String> {
        let all = self.config["history"].as_array().into_iter().flatten();
        let own = all.filter(|one| one["empty_layer"].as_bool() != Some(true));
        let texts: Vec<String> = own.map(|one| one["created_by"].as_str().unwrap_or_default().to_owned()).collect();
        if texts.len() == self.layers.len() { texts } else { Vec::new() }
    }

    /// Reads a layer; how long it is uncompressed.
    fn layer(
        &self,
        layer: &LayerContent,
        image: &mut cas_analyze::Image,
        mut source: impl Read + Send,
    ) -> Result<u64, BuildError> {
        let damaged = |said: String| BuildError::Image {
            place: self.name.clone(),
            source: format!("layer `{}`: {said}", layer.blob.digest).into(),
        };
        let failed = |error: io::Error| damaged(error.to_string());
        let mut head = Vec::new();
        (&mut source).take(6).read_to_end(&mut head).map_err(failed)?;
        let compression = Compression::detect(&head);
        // Headers and padding of very many small files can be longer than what is in them.
        let limit = MAX_LAYER_BYTES.saturating_mul(2);
        let bytes = decompress(io::Cursor::new(head).chain(source), compression, limit).map_err(failed)?;
        let mut bytes = HashingReader::new(bytes, &[layer.diff_id.function()]);
        let content = RefCell::new(Vec::new());
        let keep = &mut |path: &cas_tree::RelPath, size: u64, source: &mut dyn Read| {
            let want = wanted(path);
            let mut source = HashingReader::new(source, &[DigestFunction::Sha256]);
            let mut kept = Vec::new();
            let is_parsed = want == Want::Head || size <= want.limit_bytes();
            let limit = if is_parsed { want.limit_bytes() } else { 0 };
            let from = |error| StoreError::Source(error);
            (&mut source).take(limit).read_to_end(&mut kept).map_err(from)?;
            io::copy(&mut source, &mut io::sink()).map_err(from)?;
            content.replace(kept);
            let (digests, size) = source.finish();
            Ok(Descriptor { digest: digests[0], size })
        };
        let take = &mut |entry: LayerEntry| {
            let LayerEntry { path, what, span } = entry;
            let what = match what {
                LayerItem::Root(metadata) => What::Root(metadata),
                LayerItem::Node(node) => What::Node(node),
                LayerItem::Link(target) => What::Link(target),
                LayerItem::Whiteout(removed) => What::Whiteout(removed),
                LayerItem::Opaque => What::Opaque,
                LayerItem::Note => What::Note,
            };
            let (header_bytes, bytes) = (span.header_bytes, span.bytes);
            let entry = Entry { path: path.clone(), what, bytes, header_bytes, content: content.take() };
            image.add(entry).map_err(|error| match (error, path) {
                (AddError::Unpack(source), Some(path)) => ReadTarError::Unpack { path, source },
                (AddError::Unpack(source), None) => ReadTarError::Archive(io::Error::other(source)),
                (AddError::TooMany { limit, unit }, _) => ReadTarError::TooLarge { limit: limit as u64, unit },
            })
        };
        let limits = ReadTarLimits { content_bytes: MAX_LAYER_BYTES };
        read_entries(&mut bytes, limits, keep, take).map_err(|error| BuildError::ForeignLayer {
            place: self.name.clone(),
            layer: layer.blob.digest.to_string(),
            source: Box::new(error),
        })?;
        io::copy(&mut bytes, &mut io::sink()).map_err(failed)?;
        let (digests, size) = bytes.finish();
        if digests[0] != layer.diff_id {
            return Err(damaged(format!(
                "its uncompressed bytes are `{}`, and were to be `{}`",
                digests[0], layer.diff_id
            )));
        }
        Ok(size)
    }
}
