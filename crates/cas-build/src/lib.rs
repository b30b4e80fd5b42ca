//! The engine: from a workspace's `cas.toml` to toolchains, downloads, outputs of steps and images in the store.
//!
//! [`Workspace`] is what the user wrote, [`Builder`] turns targets into [`Output`]s, several at once, and pins what it had
//! to resolve. Images are recipes of frames, written out by [`export_image`] and run by [`run_image`].
//!
//! Not here: rendering and exit codes (`cas-cli`), formats of any kind (the format crates).

mod accounts;
mod ahead;
mod archive;
mod artifact;
mod artifact_outline;
mod artifact_record;
mod assemble;
mod attached;
mod behind;
mod builder;
mod capture;
mod cargo;
mod checkout;
mod closure;
mod complete;
mod configure;
mod convert;
mod debian;
mod debian_index;
mod download;
mod engine;
mod error;
mod event;
mod execute;
mod export;
mod foreign;
mod frame;
mod frame_line;
mod graph;
mod healing;
mod hint;
mod history;
mod host;
mod image;
mod image_base;
mod image_content;
mod image_loose;
mod image_place;
mod image_record;
mod import;
mod inputs;
mod kept;
mod layer;
mod layer_cut;
mod layer_states;
mod limits;
mod log;
mod missed;
mod modules;
mod names;
mod needs;
mod npm;
mod outline;
mod output;
mod over;
mod part;
mod platforms;
mod provenance;
mod pull;
mod recent;
mod record;
mod referring;
mod resources;
mod results;
mod roles;
mod run;
mod schedule;
mod secret;
mod seen;
mod since;
mod stamp;
mod step;
mod times;
mod toolchain;
mod trace;
mod trial;
mod why;
mod workspace;
mod world;
mod written;

pub use artifact_record::{find_artifact, list_artifacts};
pub use attached::Program;
pub use builder::{Builder, Built, Mode};
pub use checkout::{Force, Place, checkout, clean_checkout};
pub use closure::{PackedInputs, pack_inputs, unpack_inputs};
pub use convert::{Converted, convert_image};
pub use engine::{Engine, Saved};
pub use error::{BuildError, article};
pub use event::{Event, Observer};
pub use export::{
    Destination, DestinationError, Part, Whole, export_artifact, export_image, export_with_referring, write_tarball,
};
pub use graph::{deps_of, needs_of};
pub use healing::healing;
pub use history::history_folder;
pub use image_content::{ImageContent, LayerContent, foreign_image, stored_image};
pub use image_place::ImageRegistries;
pub use image_record::{find_image, list_images};
pub use import::{Platforms, fetch_image, import_image};
pub use log::Log;
pub use missed::Missed;
pub use names::{is_named, name_artifact, name_image, remove_name};
pub use needs::{artifact_keeps, image_keeps, row_needs};
pub use output::{
    Artifact, ArtifactPart, Crates, Download, Files, Image, ImageIndex, ImageLayer, Output, Package, Packages, Taints,
    Tarball,
};
pub use provenance::{Absent, Described, absent_of};
pub use pull::{Pulled, fetch_any, pull};
pub use referring::{Referring, fetch_referring};
pub use run::{Ran, RunChanges, RunEvent, RunRequest, run_image};
pub use secret::{MIN_SECRET_BYTES, SecretSources, redacted};
pub use since::{Affected, AffectedTarget, Cause};
pub use stamp::{commit_of, version_of};
pub use step::Origin;
pub use toolchain::Toolchain;
pub use trace::{Difference, What};
pub use trial::{Trials, command_line};
pub use why::{Reason, Verdict};
pub use workspace::{LOCK_FILE, MANIFEST_FILE, Workspace, WorkspacePackage};
pub use written::{try_file, write_file};
