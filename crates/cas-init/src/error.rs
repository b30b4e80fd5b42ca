//! Why there is no proposal.

use cas_fs::FsError;

/// Why a folder's description could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A `cas.toml` is there already.
    #[error("`{path}` is there already, and is not overwritten")]
    Exists {
        /// Its path from the folder on.
        path: String,
    },
    /// A file is not what its name says.
    #[error("`{path}`, line {line}, column {column}: {message}")]
    Syntax {
        /// Its path from the folder on.
        path: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A file is not text.
    #[error("`{path}` is not UTF-8")]
    NotText {
        /// Its path from the folder on.
        path: String,
    },
    /// The tool to import from has no file here.
    #[error("there is no `{file}` in this folder")]
    NothingToImport {
        /// The file.
        file: &'static str,
    },
    /// The workspace is larger than any that is known.
    #[error("there are more than {limit} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many are read.
        limit: usize,
    },
    /// A text that was made is not a `cas.toml`: a bug.
    #[error("the text made for `{path}` is not right: {message}")]
    Text {
        /// Which one.
        path: String,
        /// What its parser says.
        message: String,
    },
    /// The system said no.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl InitError {
    /// What to do about it, where something can be done.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { .. } => Some("remove it, or change it by hand".to_owned()),
            Self::Syntax { path, .. } => Some(format!("mend `{path}`")),
            Self::NotText { path } => Some(format!("write `{path}` in UTF-8")),
            Self::NothingToImport { .. } => {
                Some("go to the root of the workspace, or use `cas init`, which needs no other tool".to_owned())
            }
            Self::TooMany { .. } => Some("begin in a folder with less below it".to_owned()),
            Self::Text { .. } => Some("this is a bug in cas; please report it".to_owned()),
            Self::Fs(_) => None,
        }
    }

    /// Whether this is about a file that the user wrote.
    #[must_use]
    pub const fn is_about_configuration(&self) -> bool {
        !matches!(self, Self::Text { .. } | Self::Fs(_))
    }
}
