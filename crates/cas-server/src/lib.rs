//! Servers over the local store: a registry of images, as OCI distribution-spec 1.1 has it.
//!
//! What was pushed is in the store, named by `registry.db` beside it and kept by pins. A blob is hashed before anybody sees it, a manifest needs all
//! that it names, and a tag that is a version does not move. Format: docs/formats/registry-server.md.
//!
//! Not here: who may ask (nobody is asked), TLS, what was built and never pushed (`cas push`).

mod catalog;
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod manifest;
mod range;
mod refusal;
mod registry;
mod route;
mod server;
mod transfer;
mod upload;

pub use server::{Options, Server, ServerError};
