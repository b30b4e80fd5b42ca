//! Names of images and artifacts in the store: further ones, and those that end.
//!
//! A name is the key of a record, so it goes at once, and what the record needed leaves with a collection. An image and an artifact
//! do not have the same name. Not here: the records (`image_record`, `artifact_record`).

use cas_store::Store;

use crate::artifact_record::{self, ARTIFACT_MEMO};
use crate::image_record::{self, IMAGE_MEMO};
use crate::{Artifact, BuildError, Image};

/// Gives an image of the store a further name, in place of what had it.
///
/// # Errors
///
/// What the store says.
pub fn name_image(store: &Store, image: &Image, name: &str) -> Result<Image, BuildError> {
    let image = Image { reference: name.to_owned(), ..image.clone() };
    image_record::put(store, &image)?;
    store.remove_memo(ARTIFACT_MEMO, name.as_bytes())?;
    Ok(image)
}

/// Gives an artifact of the store a further name, in place of what had it.
///
/// # Errors
///
/// What the store says.
pub fn name_artifact(store: &Store, artifact: &Artifact, name: &str) -> Result<Artifact, BuildError> {
    let artifact = Artifact { reference: name.to_owned(), ..artifact.clone() };
    artifact_record::put(store, &artifact)?;
    store.remove_memo(IMAGE_MEMO, name.as_bytes())?;
    Ok(artifact)
}

/// Whether the store has an image or artifact of this name, whatever its record says.
///
/// # Errors
///
/// What the store says.
pub fn is_named(store: &Store, name: &str) -> Result<bool, BuildError> {
    let has = |kind| store.memo(kind, name.as_bytes()).map(|record| record.is_some());
    Ok(has(IMAGE_MEMO)? || has(ARTIFACT_MEMO)?)
}

/// Ends a name of an image or artifact; whether there was one.
///
/// # Errors
///
/// What the store says.
pub fn remove_name(store: &Store, name: &str) -> Result<bool, BuildError> {
    let image = store.remove_memo(IMAGE_MEMO, name.as_bytes())?;
    Ok(store.remove_memo(ARTIFACT_MEMO, name.as_bytes())? || image)
}
