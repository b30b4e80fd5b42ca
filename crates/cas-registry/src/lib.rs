//! A client of image registries (OCI distribution-spec 1.1, "Pull"): what a tag names, documents and blobs.
//!
//! [`Client::document`] gives a manifest or index byte for byte, its digest checked; [`Client::blob`] a [`Body`] that goes on
//! where a connection broke off. Whoever keeps a blob compares it with its name. Credentials come from the files that docker,
//! podman and skopeo use ([`Credentials`]). Formats and order: docs/formats/registry.md.
//!
//! Not here: what documents say (`cas-oci`), where blobs go (`cas-store`), sending anything.

mod address;
mod body;
mod challenge;
mod client;
mod credentials;
mod error;
#[cfg(test)]
mod tests;

pub use body::Body;
pub use client::{Client, Fetched};
pub use credentials::{Credentials, Login};
pub use error::RegistryError;
