//! What the user writes: `cas.toml`, labels, and what `cas` pins in `cas.lock`.
//!
//! Texts in, values out; every error of a text is a [`Diagnostic`] with the place and the way out. Formats:
//! docs/formats/cas-toml.md and docs/formats/cas-lock.md.
//!
//! Not here: finding files, globs, whether a label's target exists (`cas-build`); drawing diagnostics (`cas-cli`).

mod artifact;
mod check;
mod diagnostic;
mod explain;
mod image;
mod label;
mod lock;
mod lock_changes;
mod manifest;
mod nearest;
mod publish;
mod raw;
mod run;
mod secret;
mod step;
mod version;

pub use artifact::{Artifact, ArtifactConfig, ArtifactFile, ArtifactSource};
pub use cas_oci::{Healthcheck, ImageFormat, ImageSource, TargetPlatform};
pub use diagnostic::Diagnostic;
pub use label::{Label, LabelError, Pattern, Reference, is_target_name};
pub use lock::{Lock, LockError, LockedDebian, LockedImage, LockedNpm, LockedPackage};
pub use lock_changes::LockChange;
pub use manifest::{
    Addition, Compression, Debian, DebianArchive, Fetch, Host, Image, ImageConfig, ImageLayer, ImageRoot, LayerSource,
    Located, LockfileKind, MAX_MANIFEST_BYTES, Manifest, Npm, NpmPackage, Owner, Principal, Rights, RootSource, Stamp,
    Target, TargetKind, Toolchain, WorkspaceSection,
};
pub use nearest::nearest;
pub use publish::{Publication, PublishGate};
pub use run::Run;
pub use secret::{is_secret_like, token_in, without_tokens};
pub use step::{Command, Defaults, Program};
pub use version::is_version;
