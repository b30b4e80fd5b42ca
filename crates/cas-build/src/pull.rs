//! What a registry or another place has comes into the store, under a name or without one: an image, or files that are none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_oci::{
    ImageSource, LayerBlob, Links, MANIFEST_MEDIA_TYPE, MAX_DOCUMENT_BYTES, Manifest, Reference, is_media_type,
};
use cas_store::Store;

use crate::foreign::{checked, fetch};
use crate::image_place::ImagePlace;
use crate::import::{found, import_from};
use crate::{Artifact, ArtifactPart, BuildError, Image, ImageRegistries, Platforms, Taints, name_artifact};

/// What came into the store.
#[derive(Clone, Debug)]
pub enum Pulled {
    /// An image, which was looked into.
    Image(Arc<Image>),
    /// An artifact, of which nobody knows what it holds.
    Artifact(Arc<Artifact>),
}

/// Brings what a registry has into the store under `name`, as [`import_image`](crate::import_image) does. What the store has is not
/// fetched. Paths of mirrors are below `folder`.
///
/// # Errors
///
/// As for an import.
pub fn pull(
    store: &Store,
    function: DigestFunction,
    reference: &Reference,
    folder: &Path,
    registries: &Arc<ImageRegistries>,
    platforms: &Platforms,
    name: &str,
) -> Result<Pulled, BuildError> {
    let origin = ImagePlace::new(&ImageSource::Registry(reference.clone()), folder, registries);
    let document = origin.resolve(store)?;
    match artifact(store, &origin, &document, platforms, name)? {
        Some(artifact) => name_artifact(store, &artifact, name).map(|artifact| Pulled::Artifact(Arc::new(artifact))),
        None => import_from(store, function, &origin, &document, platforms, name)
            .map(|image| Pulled::Image(Arc::new(image))),
    }
}

/// Brings what is in a place into the store without a name, as [`fetch_image`](crate::fetch_image) does an image.
///
/// # Errors
///
/// As for an image.
pub fn fetch_any(
    store: &Store,
    source: &ImageSource,
    folder: &Path,
    registries: &Arc<ImageRegistries>,
    platforms: &Platforms,
) -> Result<Pulled, BuildError> {
    let origin = ImagePlace::new(source, folder, registries).for_platform(platforms.one());
    let document = origin.resolve(store)?;
    fetch_document(store, &origin, &source.to_string(), &document, platforms)
}

/// The same of a document that is known, and is in the store.
pub(crate) fn fetch_document(
    store: &Store,
    origin: &ImagePlace,
    name: &str,
    document: &Descriptor,
    platforms: &Platforms,
) -> Result<Pulled, BuildError> {
    match artifact(store, origin, document, platforms, name)? {
        Some(artifact) => Ok(Pulled::Artifact(Arc::new(artifact))),
        None => {
            let image = found(store, origin, name, document, platforms, None)?;
            Ok(Pulled::Image(Arc::new(image)))
        }
    }
}

/// What a document is where it is no image, with its files in the store.
fn artifact(
    store: &Store,
    origin: &ImagePlace,
    document: &Descriptor,
    platforms: &Platforms,
    name: &str,
) -> Result<Option<Artifact>, BuildError> {
    let failed = |error| BuildError::Image { place: origin.place(), source: Box::new(error) };
    let links = Links::parse(&store.load(document, MAX_DOCUMENT_BYTES)?, None).map_err(failed)?;
    let Some(artifact_type) = links.artifact_type else { return Ok(None) };
    let told = artifact_type.escape_debug();
    if let Platforms::One(platform) = platforms {
        return Err(origin.damaged(format!("it is an artifact of the type `{told}`, and not for `{platform}`")));
    }
    if !is_media_type(&artifact_type) || links.media_type != MANIFEST_MEDIA_TYPE {
        return Err(
            origin.damaged(format!("it is an artifact, and `{told}` or its manifest's media type is none of one"))
        );
    }
    if let Some(blob) = links.elsewhere.first() {
        return Err(origin.damaged(format!("its file `{}` is in no registry", blob.digest)));
    }
    let [config, files @ ..] = &links.blobs[..] else { unreachable!("a manifest has a configuration") };
    origin.blob(store, &checked(origin, config)?)?;
    let layer = |blob| LayerBlob { media_type: String::new(), blob, annotations: BTreeMap::new() };
    fetch(store, origin, &Manifest { config: *config, layers: files.iter().copied().map(layer).collect() })?;
    Ok(Some(Artifact {
        reference: name.to_owned(),
        artifact_type,
        manifest: *document,
        config: *config,
        parts: files.iter().copied().map(ArtifactPart::File).collect(),
        taints: Taints::default(),
    }))
}
