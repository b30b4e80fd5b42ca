//! npm packages: manifests, file selection, the order of tarballs, lockfiles and what a package reaches by them.
//!
//! Pure: names and bytes in, values out. Rules: docs/formats/npm.md.
//!
//! Not here: the tarball's bytes (`cas-tar`), fetching (`cas-fetch`), which files a package has (`cas-snapshot`), the
//! trees of `node_modules` (`cas-build`).

mod glob;
mod integrity;
mod json;
mod layout;
mod lockfile;
mod manifest;
mod order;
mod packlist;
mod platform;
mod pnpm;
mod pnpm_layout;
mod workspace;
mod yaml;

pub use integrity::{Integrity, IntegrityError};
pub use layout::{Layout, ModulesLock, Owner, Programs};
pub use lockfile::{Location, LockedPackage, Lockfile, LockfileError, PackageSource, Part};
pub use manifest::{DependencyKind, Manifest, ManifestError};
pub use order::in_tarball_order;
pub use packlist::{PackError, PackFile, PatternError, packed_files};
pub use pnpm::PnpmLockfile;
pub use workspace::{RewriteError, WorkspaceMember, rewrite_workspace_ranges};
pub use yaml::YamlError;
