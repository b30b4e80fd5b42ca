//! First `cas.toml` files for a folder: from what is there (`cas init`), or from another tool's description
//! (`cas import turbo|nx`).
//!
//! A folder in, a [`Proposal`] out: the texts of `cas.toml` files, and a report of what was found, what has to be done before
//! a build, what was not carried, and what would make the result hermetic. Rules: docs/formats/init.md. Only what is certain is
//! written: an output is one because a compiler's settings, a program's default or a published path that git ignores says so.
//!
//! Not here: writing the files (`cas-cli`), what they mean (`cas-config`, `cas-build`).

mod cargo;
mod cycles;
mod draft;
mod error;
mod folder;
mod globs;
mod go;
mod host;
mod import;
mod init;
mod javascript;
mod jsonc;
mod note;
mod nx;
mod outputs;
mod plain;
mod render;
mod tools;
mod tsconfig;
mod turbo;
mod yaml;

#[cfg(test)]
mod tests;

pub use error::InitError;
pub use host::Host;
pub use init::{Proposal, Source, propose};
pub use note::{Note, NoteKind, Place};
