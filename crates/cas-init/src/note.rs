//! The report.

use std::fmt;

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteKind {
    /// Something that was recognised.
    Found,
    /// Something to do before the first build.
    Todo,
    /// Something that could not be known, or was chosen, and deserves a look.
    Check,
    /// Something that is there and was not carried.
    Dropped,
    /// What would make the result hermetic.
    Hermetic,
}

impl NoteKind {
    /// The word in the report.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Todo => "to do",
            Self::Check => "check",
            Self::Dropped => "not carried",
            Self::Hermetic => "hermetic",
        }
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Path from the folder on.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// What it is about.
    pub kind: NoteKind,
    /// Where it comes from.
    pub place: Option<Place>,
    /// What it says.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{}: {place}: {}", self.kind.word(), self.text),
            None => write!(f, "{}: {}", self.kind.word(), self.text),
        }
    }
}

/// A number of things: "1 file", "2 files".
pub(crate) fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
