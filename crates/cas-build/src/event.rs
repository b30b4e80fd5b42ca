//! What happens while a build goes on, and who is told.

use std::time::{Duration, Instant};

use cas_config::Label;
use cas_snapshot::Note;

use crate::{BuildError, Origin};

/// What happens while a build goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// So many targets are to be looked at; again where something that was lost has to be made once more.
    Planned {
        /// Those that were asked for, and all that they need.
        count: usize,
    },
    /// A target's turn has come: its outputs are looked for, or made.
    Begun {
        /// The target.
        label: &'a Label,
    },
    /// A target has its outputs, or failed.
    Ended {
        /// The target.
        label: &'a Label,
    },
    /// How long the steps that did not run once took, as far as that is known.
    Saved {
        /// The sum of their times.
        time: Duration,
    },
    /// A step has its outputs.
    Step {
        /// The target.
        label: &'a Label,
        /// From where.
        origin: &'a Origin,
    },
    /// A test that was asked for failed.
    Attempt {
        /// The target.
        label: &'a Label,
        /// How long it took.
        elapsed: Duration,
        /// How it failed.
        error: &'a BuildError,
        /// Whether it is not tried again.
        is_last: bool,
        /// Whether an equal one passed before.
        passed_before: bool,
    },
    /// A step gave something else than what is recorded for an equal one, which stays.
    Differs {
        /// The target.
        label: &'a Label,
        /// Where.
        paths: &'a str,
    },
    /// Something is done, that this thread began a while ago.
    Span {
        /// What: a label, or a part of the build as a whole.
        name: &'a str,
        /// The kind of target, or `build`.
        kind: &'static str,
        /// When it began.
        started: Instant,
    },
    /// Something about the workspace's files that were read.
    Note(&'a Note),
}

/// Who is told what happens; by several threads.
pub trait Observer: Sync + std::fmt::Debug {
    /// Something happened.
    fn event(&self, event: Event<'_>);
}
