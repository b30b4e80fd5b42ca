//! How much of a sandbox a command gets.

use std::fmt;

/// How much holds a command, the most first. Whoever wants less than all of it says so: none is ever chosen for want of another.
///
/// What each holds is a table of docs/formats/sandbox.md, "Weaker tiers".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Namespaces and a root of its own: [`Runner::run`](crate::Runner::run).
    #[default]
    Namespaces,
    /// The host as it is, of which it may use what a ruleset of Landlock says.
    Landlock,
    /// The host as it is.
    None,
}

impl Tier {
    /// Its name on command lines, in lanes and in actions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }

    /// Whether it is the whole sandbox.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Namespaces)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
