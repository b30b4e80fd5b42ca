//! Images and artifacts as the OCI image specification 1.1 has them: configuration, manifest, layout, in one canonical form;
//! documents of others, and names of images.
//!
//! What is written here is JSON without white space, fields in the order of the specification's Go types, maps sorted, so
//! that equal images have equal bytes. Received documents are never written again from a parsed view.
//!
//! Not here: layers (`cas-tar`), where blobs are (`cas-store`), registries.

mod artifact;
mod document;
mod image;
mod inherit;
mod json;
mod layout;
mod links;
mod pack;
mod platform;
mod reference;
mod tag;

pub use artifact::{
    ArtifactBlob, ArtifactManifest, EMPTY_CONTENT, EMPTY_MEDIA_TYPE, TITLE_ANNOTATION, encode_artifact, is_media_type,
};
pub use document::{
    ConfigView, DOCKER_INDEX_MEDIA_TYPE, DOCKER_MANIFEST_MEDIA_TYPE, Document, IndexItem, LayerBlob,
    MAX_DOCUMENT_BYTES, Manifest, ParseDocumentError, SavedImage, choose, parse_saved,
};
pub use image::{
    Healthcheck, ImageConfig, ImageFormat, LayerKind, LayerReference, encode_config, encode_image_index,
    encode_manifest,
};
pub use inherit::{HistoryEntry, Inherited};
pub use layout::{IndexEntry, LAYOUT_FILE, LayoutIndex, ParseIndexError};
pub use links::Links;
pub use pack::{
    INPUTS_ARTIFACT_TYPE, INPUTS_CONFIG_MEDIA_TYPE, PACK_MEDIA_TYPE, PackEntry, pack_length, read_pack, write_pack,
};
pub use platform::{ParsePlatformError, TargetPlatform};
pub use reference::{
    BadPart, DOCKER_HUB, ImageSource, ParseReferenceError, Reference, Repository, TagKind, digest_of, is_name_with_tag,
    is_repository, is_tag, split_place,
};
pub use tag::TagClass;

/// Media type of a manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a configuration.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an index.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What images carry as the time of their making: the constant of `format_version` 1.
pub const CREATED: &str = "1985-10-26T08:15:00Z";
