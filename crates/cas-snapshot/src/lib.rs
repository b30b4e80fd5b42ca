//! Digests the workspace: which files belong to it, and what they hold.
//!
//! [`Snapshot::take`] looks at every file once; [`Snapshot::read`] reads those that a target picks and whose digests no
//! earlier snapshot recorded. [`Snapshot::at`] is the same of a revision of git. [`Snapshot::fingerprint`] and [`Snapshot::tree`] name what was picked. Rules, and the format
//! of the record: docs/formats/snapshot.md.
//!
//! Not here: where content is kept (the caller of [`Snapshot::keep`]), what a target selects by default (`cas-build`).

mod cache;
mod error;
mod gaps;
mod git;
mod head;
mod lookout;
mod notes;
mod read;
mod record;
mod revised;
mod revision;
mod rules;
mod select;
mod slot;
mod snapshot;
mod stamp;
mod standing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_git;
#[cfg(test)]
mod tests_revision;
mod text;
mod walk;
pub mod watch;

pub use error::{KeepError, SnapshotError};
pub use head::Head;
pub use lookout::Lookout;
pub use notes::Note;
pub use revised::{KeepContent, Revised};
pub use revision::{Revision, RevisionError};
pub use select::{Globs, Selection};
pub use snapshot::{Options, Picked, Snapshot};
pub use stamp::Trust;
pub use standing::{Places, Standing};
