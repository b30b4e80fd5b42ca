//! Runs a command in namespaces of its own over a materialised root.
//!
//! What a step sees is fixed by docs/formats/sandbox.md and does not depend on the host, its user or its environment.
//! The invariant: a sandbox is whole or the command does not start; nothing is weakened because the host lacks a part.
//! Trees given as lower directories are never written.
//!
//! The calling process may have threads, and a process with threads cannot fork safely; so [`Runner`] starts its own
//! program again with the hidden argument [`HELPER_ARGUMENT`], whose `main` calls [`sandbox_main`] before anything
//! else. That helper supervises; its child is process 1 of the sandbox, and the command is process 2.
//!
//! Where a host cannot have that, whoever asks for it can have less, told by [`Tier`]: [`Plain`] runs on the host as it is.
//!
//! Not here: where roots come from (`cas-store`), what becomes of the changes (`cas-build`), system calls (`cas-sys`).

mod before;
mod cancel;
mod cgroup;
mod changes;
mod error;
mod helper;
mod helpers;
mod host;
mod ids;
mod landlock;
mod limits;
mod plain;
mod probe;
mod run;
mod scratch;
mod sealed;
mod spec;
mod tier;
mod wire;

pub use before::Before;
pub use cancel::Cancel;
pub use changes::{Change, ChangesError, Kind, changes};
pub use error::{SandboxError, StartError};
pub use helper::sandbox_main;
pub use helpers::MAX_PORTS;
pub use host::{HostCannot, LandlockObstacle, ManyIdsObstacle, NamespaceObstacle};
pub use landlock::Landlock;
pub use limits::{Enforcement, Limit, Limits, MAX_SCRATCH_DEPTH, processors};
pub use plain::Plain;
pub use probe::{HostReport, probe};
pub use run::{Ending, Health, Outcome, Port, Runner, Streams};
pub use spec::{
    Check, EPOCH_SECONDS, HOST_NAME, MAX_SECRET_BYTES, Network, Overlay, Owner, Private, SECRETS_DIRECTORY,
    SOURCE_DIRECTORY, Secret, Spec, SpecError, Stop, Users, Volume,
};
pub use tier::Tier;

/// The first argument that makes the program a sandbox helper.
pub const HELPER_ARGUMENT: &str = "__sandbox";
