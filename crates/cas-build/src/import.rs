//! Images of others in the store, byte for byte: documents, configurations and layers as they are.

use std::path::Path;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_config::LockedImage;
use cas_digest::DigestFunction;
use cas_oci::{Document, ImageFormat, ImageSource, Inherited, MAX_DOCUMENT_BYTES, ParseDocumentError, TargetPlatform};
use cas_store::Store;
use serde_json::Value;

use crate::foreign::{self, chosen, fetch};
use crate::image_place::ImagePlace;
use crate::platforms::own;
use crate::{BuildError, Image, ImageIndex, ImageRegistries, Taints, name_image};

/// Which images of an index are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Platforms {
    /// The one for this machine.
    #[default]
    Own,
    /// The one for this platform.
    One(TargetPlatform),
    /// All of them.
    All,
}

impl Platforms {
    /// The platform that is asked for.
    pub(crate) const fn one(&self) -> Option<&TargetPlatform> {
        match self {
            Self::One(platform) => Some(platform),
            Self::Own | Self::All => None,
        }
    }
}

/// Finds an image of others and brings what it is made of into the store. Paths are below `folder`. Its layers are not looked into,
/// so nothing says yet that they are what the configuration tells.
///
/// # Errors
///
/// What [`BuildError`] has of images of others; of an index that names anything but images, when all of it is wanted.
pub fn fetch_image(
    store: &Store,
    source: &ImageSource,
    folder: &Path,
    registries: &Arc<ImageRegistries>,
    platforms: &Platforms,
) -> Result<Image, BuildError> {
    let origin = ImagePlace::new(source, folder, registries).for_platform(platforms.one());
    let document = origin.resolve(store)?;
    found(store, &origin, &source.to_string(), &document, platforms, None)
}

/// The same with a look into each layer, which must be what the configuration tells. The image is in the store under `name` then,
/// and can be run.
///
/// # Errors
///
/// As [`fetch_image`], and when a layer is no archive or has another digest.
pub fn import_image(
    store: &Store,
    function: DigestFunction,
    source: &ImageSource,
    folder: &Path,
    registries: &Arc<ImageRegistries>,
    platforms: &Platforms,
    name: &str,
) -> Result<Image, BuildError> {
    let origin = ImagePlace::new(source, folder, registries).for_platform(platforms.one());
    let document = origin.resolve(store)?;
    import_from(store, function, &origin, &document, platforms, name)
}

/// The same of a document that is known.
pub(crate) fn import_from(
    store: &Store,
    function: DigestFunction,
    origin: &ImagePlace,
    document: &Descriptor,
    platforms: &Platforms,
    name: &str,
) -> Result<Image, BuildError> {
    let image = found(store, origin, name, document, platforms, Some(function))?;
    name_image(store, &image, name)
}

/// The image that a document is; with a digest function it is looked into.
pub(crate) fn found(
    store: &Store,
    origin: &ImagePlace,
    name: &str,
    document: &Descriptor,
    platforms: &Platforms,
    unpack: Option<DigestFunction>,
) -> Result<Image, BuildError> {
    let failed = |error| BuildError::Image { place: origin.place(), source: Box::new(error) };
    origin.document(store, document)?;
    let parsed = Document::parse(&store.load(document, MAX_DOCUMENT_BYTES)?, None).map_err(failed)?;
    let one = |document: &Descriptor, platform: &TargetPlatform| one(store, origin, name, document, platform, unpack);
    match (parsed, platforms) {
        (Document::Index(items), Platforms::All) => {
            let mut images = Vec::new();
            for item in &items {
                let platform = item.platform.as_ref().filter(|_| !item.is_attestation);
                let platform = platform.ok_or_else(|| {
                    origin.damaged(format!("its index has `{}`, which is no image; name a platform", item.blob.digest))
                })?;
                let mut image = one(&item.blob, platform)?;
                if image.manifest != item.blob {
                    let said =
                        format!("its index has `{}`, which is an index itself; name a platform", item.blob.digest);
                    return Err(origin.damaged(said));
                }
                // Configurations often leave the variant to the index.
                if image.platform.variant.is_empty() {
                    image.platform.variant.clone_from(&platform.variant);
                }
                images.push(image);
            }
            let main = images.iter().position(|image| crate::platforms::can_run(&image.platform)).unwrap_or(0);
            let mut image =
                images.get(main).cloned().ok_or_else(|| origin.damaged("its index names no image".to_owned()))?;
            let raw: Value = serde_json::from_slice(&store.load(document, MAX_DOCUMENT_BYTES)?).unwrap_or_default();
            let format = format_of(raw["mediaType"].as_str());
            image.index = Some(ImageIndex { blob: *document, format, images });
            Ok(image)
        }
        (_, Platforms::One(platform)) => {
            let image = one(document, platform)?;
            let (own, wanted) = (&image.platform, platform);
            if !own.runs_where(wanted) {
                let (place, known) = (origin.place(), vec![own.to_string()]);
                return Err(BuildError::Platform { place, wanted: wanted.to_string(), known });
            }
            Ok(image)
        }
        (_, Platforms::Own | Platforms::All) => one(document, &own()),
    }
}

fn one(
    store: &Store,
    origin: &ImagePlace,
    name: &str,
    document: &Descriptor,
    platform: &TargetPlatform,
    unpack: Option<DigestFunction>,
) -> Result<Image, BuildError> {
    let (manifest_name, manifest, config) = chosen(store, origin, document, platform)?;
    fetch(store, origin, &manifest)?;
    if unpack.is_some() {
        // What it is to run is read when it runs, or when something is made on it, and all of it when it is shown.
        let bytes = store.load(&manifest.config, MAX_DOCUMENT_BYTES)?;
        let whole = serde_json::from_slice::<Value>(&bytes);
        let whole = whole.map_err(|source| ParseDocumentError::Syntax { what: "configuration of an image", source });
        let failed = |error| BuildError::Image { place: origin.place(), source: Box::new(error) };
        whole.and_then(|_| Inherited::parse(&bytes)).map_err(failed)?;
    }
    let pairs = manifest.layers.iter().zip(&config.diff_ids);
    let layers =
        pairs.map(|(layer, diff_id)| foreign::layer(store, origin, layer, diff_id)).collect::<Result<_, _>>()?;
    let base_tree = match unpack {
        None => None,
        Some(function) => {
            let pin = LockedImage { target: name.to_owned(), request: origin.place(), document: manifest_name };
            Some(foreign::make(store, function, origin, &pin, &config.platform)?.0.tree)
        }
    };
    let raw: Value = serde_json::from_slice(&store.load(&manifest_name, MAX_DOCUMENT_BYTES)?).unwrap_or_default();
    let media_type = raw["mediaType"].as_str().or_else(|| raw["config"]["mediaType"].as_str());
    Ok(Image {
        reference: name.to_owned(),
        manifest: manifest_name,
        config: manifest.config,
        format: format_of(media_type),
        platform: config.platform,
        layers,
        base_tree,
        taints: Taints::default(),
        index: None,
    })
}

/// Whose document has a media type.
fn format_of(media_type: Option<&str>) -> ImageFormat {
    match media_type.is_some_and(|text| text.starts_with("application/vnd.docker.")) {
        true => ImageFormat::Docker,
        false => ImageFormat::Oci,
    }
}
