//! Cargo: lockfiles, and configuration that says where crates come from.
//!
//! Pure: text in, values out. Rules: docs/formats/cargo.md.
//!
//! Not here: fetching (`cas-fetch`), crates as trees, the folder of all of them (`cas-build`), resolving: cargo has done
//! that when it wrote the lockfile.

mod config;
mod index;
mod lock;
mod manifest;

pub use config::{CargoConfig, CargoConfigError, IndexError, index_of};
pub use index::{DownloadError, Downloads};
pub use lock::{CRATES_IO, CargoLock, CargoLockError, LockedCrate};
pub use manifest::package_version;
