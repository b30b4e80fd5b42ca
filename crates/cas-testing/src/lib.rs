//! What tests share: places in memory and failing ones, and one suite for all places of blobs, one for those of results.
//!
//! A place of blobs is right when [`conformance`] passes; one that can fail underneath also passes
//! [`conformance_with_faults`]. For results of actions these are [`actions_conformance`] and [`actions_conformance_with_faults`]. Tests
//! alone depend on this crate, so what is wrong here is a panic.
//!
//! [`registry`] is a registry of images that asks who comes, and fails as it is told to; [`gitlab`] has generic packages.
//!
//! Not here: what only one place promises, such as what survives a crash (`cas-store`).

#![expect(clippy::unwrap_used, reason = "this is test code: a panic is how it fails")]

mod actions;
mod actions_suite;
pub mod gitlab;
mod memory;
pub mod registry;
mod sources;
mod suite;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_actions;

pub use actions::{FaultyActions, Lost, MemoryActions};
pub use actions_suite::{actions_conformance, actions_conformance_with_faults};
pub use memory::{MemoryError, MemoryStore};
pub use suite::{conformance, conformance_with_faults};
