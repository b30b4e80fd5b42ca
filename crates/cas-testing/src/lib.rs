//! What tests share: a store in memory, and one suite for all places that blobs can be put into.
//!
//! A place is right when [`conformance`] passes; one that can fail underneath also passes [`conformance_with_faults`]. Tests
//! alone depend on this crate, so what is wrong here is a panic.
//!
//! Not here: what only one place promises, such as what survives a crash (`cas-store`).

#![expect(clippy::unwrap_used, reason = "this is test code: a panic is how it fails")]

mod memory;
mod sources;
mod suite;
#[cfg(test)]
mod tests;

pub use memory::{MemoryError, MemoryStore};
pub use suite::{conformance, conformance_with_faults};
