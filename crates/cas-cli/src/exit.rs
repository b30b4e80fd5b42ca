//! Exit codes: part of the interface, as numbers and as the words of the JSON output.

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The work failed: a step, a test, a build; or two artifacts differ.
    Failed,
    /// The command line or a configuration file is wrong, or a lock is stale.
    Usage,
    /// Bytes or signatures are not what they should be.
    Mismatch,
    /// A remote refused, or could not be reached.
    Remote,
    /// The store cannot be used.
    Store,
    /// This host cannot do it: the sandbox, or rights.
    Host,
    /// A policy refuses it.
    Policy,
    /// A bug in `cas`.
    Bug,
    /// Interrupted from the terminal.
    Interrupted,
    /// Ended by `SIGTERM`.
    Terminated,
    /// The code of a program that `cas run` ran.
    Program(u8),
}

impl Exit {
    /// The number that the process ends with.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Mismatch => 3,
            Self::Remote => 4,
            Self::Store => 5,
            Self::Host => 6,
            Self::Policy => 7,
            Self::Bug => 70,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::Program(code) => code,
        }
    }

    /// The word in JSON output.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Mismatch => "mismatch",
            Self::Remote => "remote",
            Self::Store => "store",
            Self::Host => "host",
            Self::Policy => "policy",
            Self::Bug => "bug",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
            Self::Program(_) => "program",
        }
    }
}
