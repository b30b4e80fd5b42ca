//! The local content-addressed store: blobs as files, names and results in SQLite, trees written out for sandboxes.
//!
//! A blob is whole and correct, or absent: bytes go to a file without a name (`O_TMPFILE`), are hashed on the way and
//! checked, and get their name by `linkat`. Readers take no lock and verify what they read; damage found is moved aside and
//! is a miss from then on. Format: docs/formats/store.md.
//!
//! Not here: what to do on a miss (`cas-build`), archives of trees (`cas-tar`), what runs over a root (`cas-sandbox`).

mod actions;
mod check;
mod collect;
#[cfg(test)]
mod conformance;
mod disk;
mod epoch;
mod error;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod index;
#[cfg(test)]
mod kill_sites;
mod lease;
#[cfg(test)]
mod lease_tests;
mod locked;
mod looks;
mod mark;
mod network;
mod objects;
mod pins;
mod private;
mod reserve;
mod retain;
mod room;
mod roots;
mod sealer;
mod session;
#[cfg(test)]
mod simulator;
mod store;
#[cfg(test)]
mod tests;
mod trees;
mod vault;
mod work;
mod write;

pub use check::{Check, Depth};
pub use error::StoreError;
pub use index::{MemoRows, Row};
pub use looks::Looks;
pub use pins::{Keep, Pin};
pub use private::PrivateFolder;
pub use retain::{Collected, Load, Needs, Retention};
pub use store::{Statistics, Store, StoreOptions};
pub use work::Work;

/// What of a store survives a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What was put since the last seal may be gone, and is hashed before it is trusted. Nobody waits for the disk.
    #[default]
    Epoch,
    /// A blob whose put returned is there. Each put waits for the disk.
    Durable,
    /// As `Epoch`, and nothing is ever sealed by this process: for machines that are thrown away.
    None,
}

/// Limits of a store. Nothing is put that would break one: what was not used for longest leaves first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Most bytes that the store may take on the disk.
    pub max_bytes: Option<u64>,
    /// Most files and folders of it.
    pub max_inodes: Option<u64>,
    /// Bytes of the file system that stay free; by default the smaller of 5 % and 1 GiB.
    pub min_free_bytes: Option<u64>,
}
