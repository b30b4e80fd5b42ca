//! A client of image registries (OCI distribution-spec 1.1): what a tag names, documents and blobs, read and written.
//!
//! [`Client::document`] gives a manifest or index byte for byte, its digest checked; [`Client::blob`] a [`Body`] that goes on
//! where a connection broke off. Whoever keeps a blob compares it with its name. [`Client::push_blob`] and [`Client::push_document`] send
//! what is not there, and look whether it is afterwards; [`Client::referrers`] finds what refers to a manifest. Credentials come from the
//! files that docker, podman and skopeo use ([`Credentials`]); [`keep_login`] and [`drop_login`] change these. What is particular about
//! registries is in rows ([`QUIRKS`]). Formats and order: docs/formats/registry.md.
//!
//! Not here: what documents say (`cas-oci`), where blobs go (`cas-store`), what is sent in which order (`cas-sync`).

mod address;
mod body;
mod challenge;
mod client;
mod credentials;
mod error;
mod login;
mod packages;
mod pages;
mod pause;
mod probe;
mod pull;
mod push;
mod quirks;
mod referrers;
mod sending;
mod tags;
#[cfg(test)]
mod tests;
mod token;
mod whereabouts;

pub use body::Body;
pub use client::{Client, Fetched};
pub use credentials::{Credentials, Login};
pub use error::{Access, RegistryError};
pub use login::{Keeper, drop_login, keep_login};
pub use packages::{GENERIC_SCHEME, GenericPackage, PackageFile, PackageToken, ParsePackageError, is_package_word};
pub use probe::Finding;
pub use push::{Delivery, is_same};
pub use quirks::{Cope, Hosted, QUIRKS, Quirk};
pub use referrers::{Linked, MAX_REFERRERS, Referrer, referrers_tag};
pub use sending::{Content, Tail};
pub use whereabouts::Whereabouts;
