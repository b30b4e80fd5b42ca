//! Downloads: a stream for an address, with retries and clear errors; and where Debian's and npm's files are.
//!
//! Nothing here decides whether bytes are the right ones: the caller stores them by an announced digest. Redirects are
//! followed, bodies are never decompressed (a digest is over what the server keeps).
//!
//! Not here: which bytes are wanted (`cas-config`), storing them (`cas-store`), registries' protocols.

pub mod defaults;
mod error;
mod fetcher;
mod sources;

pub use error::{FetchError, redact};
pub use fetcher::Fetcher;
pub use sources::{debian_mirror, npm_registry};
