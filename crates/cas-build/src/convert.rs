//! Images in another layer format. What a layer holds stays byte for byte, and so do its diffID and the configuration; but for
//! eStargz, which adds entries. Rules: docs/formats/image-export.md.

use std::collections::BTreeMap;
use std::io;

use cas_blob::{Descriptor, OpenBlob};
use cas_config::Compression;
use cas_digest::{Digest, DigestFunction, HashingReader};
use cas_oci::{ImageFormat, LayerKind, LayerReference, MAX_DOCUMENT_BYTES, encode_image_index, encode_manifest};
use cas_store::{Store, StoreError};
use cas_tar::{Codec, LANDMARK, LayerPlan, Profile, ReadTarLimits, Recipe, ScanForm, decompress};
use serde_json::{Value, json};

use crate::assemble::{Assembled, Holds, assemble};
use crate::export::keep_whole;
use crate::foreign::{MAX_LAYER_BYTES, compression_of};
use crate::image::{codec, put_document, reference};
use crate::layer::{self, LayerError};
use crate::{BuildError, Image, ImageIndex, ImageLayer};

/// Tells a layer of zstd:chunked.
const CHUNKED_ANNOTATION: &str = "io.github.containers.zstd-chunked.manifest-checksum";
/// Tells a layer of eStargz.
const STARGZ_ANNOTATION: &str = "containerd.io/snapshot/stargz/toc.digest";

/// An image in another format.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The image; it has no record in the store.
    pub image: Image,
    /// Its configuration has a check, which OCI's documents do not tell; so it has Docker's.
    pub is_docker_for_check: bool,
    /// Its configuration has a check, and its layers have a format that Docker's documents cannot tell: podman drops the check.
    pub drops_check: bool,
    /// All layers had the format before, and are as they were.
    pub is_already: bool,
}

/// Converts the layers of an image. Those that are as they are to be stay.
///
/// # Errors
///
/// [`BuildError::Layer`] for what the format cannot tell, [`BuildError::ForeignLayer`] for what is no archive, and what the store says.
pub fn convert_image(
    store: &Store,
    function: DigestFunction,
    image: &Image,
    compression: Compression,
) -> Result<Converted, BuildError> {
    let Some(index) = &image.index else { return one(store, function, image, codec(compression)) };
    let mut all = Vec::new();
    for image in &index.images {
        all.push(one(store, function, image, codec(compression))?);
    }
    let main = index.images.iter().position(|other| other.manifest == image.manifest).unwrap_or(0);
    let images: Vec<Image> = all.iter().map(|converted| converted.image.clone()).collect();
    // Documents of both kinds in one list: OCI's index may name any, Docker's list only its own.
    let is_docker = images.iter().all(|image| image.format == ImageFormat::Docker);
    let format = if is_docker { ImageFormat::Docker } else { ImageFormat::Oci };
    let manifests: Vec<_> = images.iter().map(|image| (image.format, &image.platform, image.manifest)).collect();
    let blob =
        put_document(store, "index", &image.reference, &encode_image_index(format, &manifests, &BTreeMap::new()))?;
    let (is_docker_for_check, drops_check) =
        (all.iter().any(|one| one.is_docker_for_check), all.iter().any(|one| one.drops_check));
    let is_already = all.iter().all(|one| one.is_already);
    let mut image = all.swap_remove(main).image;
    image.index = Some(ImageIndex { blob, format, images });
    Ok(Converted { image, is_docker_for_check, drops_check, is_already })
}

fn one(store: &Store, function: DigestFunction, image: &Image, codec: Codec) -> Result<Converted, BuildError> {
    let (mut references, mut layers) = (Vec::new(), Vec::new());
    for (layer_index, layer) in image.layers.iter().enumerate() {
        let (reference, layer) = match layer {
            ImageLayer::Made { .. } => made(store, image, layer_index, layer, codec)?,
            ImageLayer::Foreign { .. } => foreign(store, function, image, layer_index, layer, codec)?,
        };
        references.push(reference);
        layers.push(layer);
    }
    let damaged = || BuildError::Record { what: image.config };
    let mut config: Value =
        serde_json::from_slice(&store.load(&image.config, MAX_DOCUMENT_BYTES)?).map_err(|_| damaged())?;
    let has_check = config["config"]["Healthcheck"].is_object();
    let diff_ids = json!(references.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>());
    let rootfs = config.get_mut("rootfs").and_then(Value::as_object_mut).ok_or_else(damaged)?;
    // The document stays as it is, to the byte, where it is right.
    let config = match rootfs.get("diff_ids") == Some(&diff_ids) {
        true => image.config,
        false => {
            rootfs.insert("diff_ids".to_owned(), diff_ids);
            put_document(store, "configuration", &image.reference, config.to_string().as_bytes())?
        }
    };
    let raw: Value = serde_json::from_slice(&store.load(&image.manifest, MAX_DOCUMENT_BYTES)?).unwrap_or_default();
    let annotations: BTreeMap<String, String> = serde_json::from_value(raw["annotations"].clone()).unwrap_or_default();
    let docker = encode_manifest(ImageFormat::Docker, &config, &references, &annotations)
        .filter(|_| has_check && !references.iter().any(|layer| has_table(&layer.annotations)));
    let drops_check = has_check && docker.is_none();
    let (format, manifest) = match docker {
        Some(manifest) => (ImageFormat::Docker, manifest),
        None => {
            let manifest = encode_manifest(ImageFormat::Oci, &config, &references, &annotations);
            (ImageFormat::Oci, manifest.expect("OCI's manifest tells every kind of layer"))
        }
    };
    let manifest = put_document(store, "manifest", &image.reference, &manifest)?;
    let is_docker_for_check = format == ImageFormat::Docker;
    let is_already = layers == image.layers;
    let image = Image { manifest, config, format, layers, index: None, ..image.clone() };
    Ok(Converted { image, is_docker_for_check, drops_check, is_already })
}

/// A layer that is made of a tree.
fn made(
    store: &Store,
    image: &Image,
    layer_index: usize,
    layer: &ImageLayer,
    codec: Codec,
) -> Result<(LayerReference, ImageLayer), BuildError> {
    let ImageLayer::Made { recipe: name, tree } = layer else { unreachable!("the caller has looked") };
    let found = layer::find(store, name)?.ok_or(BuildError::Record { what: *name })?;
    if found.codec == codec {
        return Ok((reference(&found, String::new()), layer.clone()));
    }
    let place = format!("{} {} {layer_index} converted", image.reference, image.platform);
    let load = || store.load_tree(tree).map(std::sync::Arc::new);
    let built = layer::build(store, &load, tree, codec, &place, 1);
    let (recipe_name, recipe) = built.map_err(|error| failed(image, layer_index, error))?;
    if ![found.codec, codec].contains(&Codec::Stargz6) && recipe.tar.digest != found.tar.digest {
        return Err(BuildError::Record { what: *name });
    }
    Ok((reference(&recipe, String::new()), ImageLayer::Made { recipe: recipe_name, tree: *tree }))
}

/// A layer of others.
fn foreign(
    store: &Store,
    function: DigestFunction,
    image: &Image,
    layer_index: usize,
    layer: &ImageLayer,
    codec: Codec,
) -> Result<(LayerReference, ImageLayer), BuildError> {
    let ImageLayer::Foreign { blob, diff_id, kind, annotations } = layer else { unreachable!("the caller has looked") };
    let damaged = |said: String| BuildError::Image {
        place: image.reference.clone(),
        source: format!("layer `{}`: {said}", blob.digest).into(),
    };
    let has_digest = |found: &Digest| match found == diff_id {
        true => Ok(()),
        false => Err(damaged(format!("its uncompressed bytes are `{found}`, and were to be `{diff_id}`"))),
    };
    if is_already(*kind, annotations, codec) {
        // Whoever imported it has looked into it.
        if image.base_tree.is_none() {
            let mut bytes = HashingReader::new(plain(store, blob, *kind)?, &[diff_id.function()]);
            io::copy(&mut bytes, &mut io::sink()).map_err(|error| damaged(error.to_string()))?;
            has_digest(&bytes.finish().0[0])?;
        }
        let (blob, diff_id, kind, annotations) = (*blob, *diff_id, *kind, annotations.clone());
        let reference = LayerReference { kind, blob, diff_id, created_by: String::new(), annotations };
        return Ok((reference, layer.clone()));
    }
    let form = match codec {
        Codec::Stargz6 => ScanForm::Stargz(store.put_bytes(function, LANDMARK)?),
        _ => ScanForm::Whole,
    };
    let mut bytes = HashingReader::new(plain(store, blob, *kind)?, &[diff_id.function()]);
    let limits = ReadTarLimits { content_bytes: MAX_LAYER_BYTES };
    let keep = &mut |content: &mut dyn io::Read| store.put(function, content);
    let plan = LayerPlan::scan(&mut bytes, limits, form, keep).map_err(|error| BuildError::ForeignLayer {
        place: image.reference.clone(),
        layer: blob.digest.to_string(),
        source: Box::new(error),
    })?;
    io::copy(&mut bytes, &mut io::sink()).map_err(|error| damaged(error.to_string()))?;
    has_digest(&bytes.finish().0[0])?;
    let assembled = assemble(store, function, codec, Holds::Plan(&plan), None, 1);
    let Assembled { tar, blob: made, frames, tail, .. } =
        assembled.map_err(|error| failed(image, layer_index, error))?;
    let recipe = Recipe { profile: Profile::Layer1, codec, tree: *blob, tar, blob: made, frames, tail };
    if codec != Codec::Stargz6 && diff_id.function() == DigestFunction::Sha256 && tar.digest != *diff_id {
        return Err(BuildError::Record { what: *blob });
    }
    keep_whole(store, &recipe)?;
    let reference = reference(&recipe, String::new());
    let LayerReference { kind, blob, diff_id, annotations, .. } = reference.clone();
    Ok((reference, ImageLayer::Foreign { blob, diff_id, kind, annotations }))
}

/// The uncompressed bytes of a layer of others.
fn plain(store: &Store, blob: &Descriptor, kind: LayerKind) -> Result<Box<dyn io::Read + Send>, BuildError> {
    let source = store.open_blob(blob).map_err(StoreError::from)?;
    decompress(source, compression_of(kind), MAX_LAYER_BYTES.saturating_mul(2)).map_err(BuildError::Compress)
}

/// Whether a layer has a table of contents, which its annotations tell.
fn has_table(annotations: &BTreeMap<String, String>) -> bool {
    [CHUNKED_ANNOTATION, STARGZ_ANNOTATION].iter().any(|key| annotations.contains_key(*key))
}

/// Whether a layer has the format that is asked for.
fn is_already(kind: LayerKind, annotations: &BTreeMap<String, String>, codec: Codec) -> bool {
    let has = |key: &str| annotations.contains_key(key);
    match codec {
        Codec::Identity => kind == LayerKind::Plain,
        Codec::Gzip6 | Codec::Gzip9 => kind == LayerKind::Gzip && !has(STARGZ_ANNOTATION),
        Codec::Zstd3 => kind == LayerKind::Zstd && !has(CHUNKED_ANNOTATION),
        Codec::ZstdChunked3 => kind == LayerKind::Zstd && has(CHUNKED_ANNOTATION),
        Codec::Stargz6 => kind == LayerKind::Gzip && has(STARGZ_ANNOTATION),
    }
}

fn failed(image: &Image, layer_index: usize, error: LayerError) -> BuildError {
    match error {
        LayerError::Entry(source) => BuildError::Layer { label: image.reference.clone(), layer_index, source },
        LayerError::Build(error) => error,
    }
}
