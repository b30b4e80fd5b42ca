//! npm packages: manifests, file selection, the order of tarballs, lockfiles and the `node_modules` trees that they
//! describe.
//!
//! Pure: names and bytes in, values out. Rules: docs/formats/npm.md.
//!
//! Not here: the tarball's bytes (`cas-tar`), fetching (`cas-fetch`), which files a package has (`cas-snapshot`).

mod manifest;

pub use manifest::{DependencyKind, Manifest, ManifestError};
