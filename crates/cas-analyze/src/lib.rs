//! What the layers of an image hold: what is wasted, what each package takes, what looks like a secret, what to change; how
//! two images differ; and into which layers a tree is best cut.
//!
//! A tree is cut by [`cut`]: docs/formats/cut.md. An [`Image`] is given its layers entry by entry, with the few contents that [`wanted`] asks for. [`analyze`] and
//! [`compare`] look at it then. Rules, limits and what bytes are counted: docs/formats/image-analyze.md.
//!
//! Every function is pure, and what is read is input of others. Not here: archives (`cas-tar`), where images are
//! (`cas-build`), rendering (`cas-cli`).

mod advice;
mod config;
mod cut;
mod difference;
mod image;
mod package;
mod report;
mod rules;
mod secret;
#[cfg(test)]
mod tests;
mod told;

pub use advice::{Advice, AdviceKind, Level, LinkKind, Removal};
pub use config::ConfigChange;
pub use cut::{cut, layers_for, shares, telling};
pub use difference::{Difference, FileChange, FileState, PackageChange, compare};
pub use image::{AddError, Entry, Fate, Image, LayerFacts, MAX_PARSED_BYTES, Skipped, What};
pub use package::Package;
pub use report::{LayerReport, PackageShare, Report, SecretFile, analyze};
pub use rules::{Want, wanted};
pub use secret::SecretKind;
pub use told::{Guesses, Place, ToldKind, ToldSecret, masked, told_secrets};
