//! What refers to an image or artifact where it comes from: signatures, statements, and what refers to those. It is brought into the
//! store, and written out beside the image.
//!
//! Registries list it (docs/formats/registry.md, "What refers to a manifest"); in layouts it is what the index has without a tag
//! (docs/formats/image-export.md, "What refers to an image").

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_oci::{ImageSource, Links, MAX_DOCUMENT_BYTES};
use cas_store::{Store, StoreError};

use crate::export::Whole;
use crate::image_place::ImagePlace;
use crate::pull::fetch_document;
use crate::{BuildError, ImageRegistries, Platforms, Pulled};

/// How far something may be from the image.
const MAX_DEPTH: usize = 3;
/// More than anything has.
const MAX_REFERRERS: usize = 1024;

/// Something that refers to a document.
#[derive(Clone, Debug)]
pub struct Referring {
    /// The document.
    pub subject: Digest,
    /// What refers to it.
    pub found: Pulled,
}

/// What refers to an image, each behind what it refers to, and what is listed and cannot be had.
///
/// # Errors
///
/// When a list cannot be had, or has no end.
pub fn fetch_referring(
    store: &Store,
    source: &ImageSource,
    folder: &Path,
    registries: &Arc<ImageRegistries>,
    found: &Pulled,
) -> Result<(Vec<Referring>, Vec<Digest>), BuildError> {
    let origin = ImagePlace::new(source, folder, registries);
    let listed = origin.untagged(store)?;
    let by_subject = by_subject(store, &origin, &listed)?;
    let whole = Whole::of(store, found)?;
    let mut open: VecDeque<(Digest, usize)> = whole.documents().map(|(document, _)| (document.digest, 0)).collect();
    let mut known: BTreeSet<Digest> = open.iter().map(|(digest, _)| *digest).collect();
    let (mut referring, mut lost) = (Vec::new(), Vec::new());
    while let Some((subject, depth)) = open.pop_front() {
        let here = by_subject.get(&subject).cloned().unwrap_or_default();
        for blob in origin.referring(&subject)?.into_iter().chain(here) {
            if !known.insert(blob.digest) {
                continue;
            }
            if depth == MAX_DEPTH || known.len() > MAX_REFERRERS {
                return Err(
                    origin.damaged(format!("what refers to it has no end at {MAX_DEPTH} deep, {MAX_REFERRERS} in all"))
                );
            }
            match fetch_one(store, &origin, &blob, &subject) {
                Ok(Some(found)) => {
                    open.push_back((blob.digest, depth + 1));
                    referring.push(Referring { subject, found });
                }
                // Lists are written by anybody.
                Ok(None) => {}
                Err(error) if is_of_it(&error) => lost.push(blob.digest),
                Err(error) => return Err(error),
            }
        }
    }
    Ok((referring, lost))
}

/// Whether an error is about what is listed, and not about this machine or the way there.
fn is_of_it(error: &BuildError) -> bool {
    match error {
        BuildError::Image { .. } | BuildError::ImageGone { .. } | BuildError::Mismatch { .. } => true,
        BuildError::Registry(error) => error.is_not_found(),
        _ => false,
    }
}

/// A document with all that it names, if it is about the other one.
fn fetch_one(
    store: &Store,
    origin: &ImagePlace,
    blob: &Descriptor,
    subject: &Digest,
) -> Result<Option<Pulled>, BuildError> {
    origin.document(store, blob)?;
    let failed = |error| BuildError::Image { place: origin.place(), source: Box::new(error) };
    let links = Links::parse(&store.load(blob, MAX_DOCUMENT_BYTES)?, None).map_err(failed)?;
    if links.subject != Some(*subject) {
        return Ok(None);
    }
    fetch_document(store, origin, &origin.place(), blob, &Platforms::All).map(Some)
}

/// Documents of an index by what they are about. What is none, or is not there, is about nothing.
fn by_subject(
    store: &Store,
    origin: &ImagePlace,
    listed: &[Descriptor],
) -> Result<BTreeMap<Digest, Vec<Descriptor>>, BuildError> {
    let mut by_subject: BTreeMap<Digest, Vec<Descriptor>> = BTreeMap::new();
    for blob in listed.iter().take(MAX_REFERRERS) {
        match origin.document(store, blob) {
            Err(error) if is_of_it(&error) => continue,
            other => other?,
        }
        let bytes = match store.load(blob, MAX_DOCUMENT_BYTES) {
            Err(StoreError::Missing(_)) => continue,
            other => other?,
        };
        if let Ok(Links { subject: Some(subject), .. }) = Links::parse(&bytes, None) {
            by_subject.entry(subject).or_default().push(*blob);
        }
    }
    Ok(by_subject)
}
