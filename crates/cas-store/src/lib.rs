//! The local content-addressed store: blobs as files, names and results in SQLite, trees written out for sandboxes.
//!
//! A blob is whole and correct, or absent: bytes go to a file without a name (`O_TMPFILE`), are hashed on the way and
//! checked, and get their name by `linkat`. Readers take no lock and verify what they read; damage found is moved aside and
//! is a miss from then on. Format: docs/formats/store.md.
//!
//! Not here: what to do on a miss (`cas-build`), archives of trees (`cas-tar`), what runs over a root (`cas-sandbox`).

mod error;
mod index;
mod objects;
mod roots;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod trees;

pub use error::StoreError;
pub use index::{ActionLane, MemoRows};
pub use objects::VerifyingReader;
pub use store::Store;
