//! Names of targets.

use std::fmt;
use std::str::FromStr;

use cas_tree::{RelPath, RelPathError};

/// A target of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label {
    /// Folder of its package; `None` for the root.
    pub package: Option<RelPath>,
    /// Its name there.
    pub name: Box<str>,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.package {
            None => write!(f, "//:{}", self.name),
            Some(package) => write!(f, "//{package}:{}", self.name),
        }
    }
}

/// What a `cas.toml` writes where a target is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// `:name`
    Own(Box<str>),
    /// `//folder:name`
    Full(Label),
    /// `^name`: this target of every package that the package depends on.
    Dependencies(Box<str>),
}

/// What the command line writes where targets are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// One target.
    One(Reference),
    /// Every target of the packages in and below a folder; `None` for the whole workspace.
    Below(Option<RelPath>),
}

/// Text that is not a label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// It begins with none of `//`, `:` and `^`, or has no name.
    #[error("`{text}` is not a label")]
    Form {
        /// The text.
        text: String,
    },
    /// The name has characters that names do not have.
    #[error("`{name}` is not a name of a target: letters, digits, `-`, `_` and `.`, first a letter or digit")]
    Name {
        /// The name.
        name: String,
    },
    /// The folder is not a path in the workspace.
    #[error("`{folder}` is not a folder of the workspace")]
    Folder {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        source: RelPathError,
    },
}

impl LabelError {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        matches!(self, Self::Form { .. })
            .then_some("write `//folder:name`, `//:name` for the root, or `:name` for the same package")
    }
}

/// Whether a target may be named so.
#[must_use]
pub fn is_target_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn name(text: &str) -> Result<Box<str>, LabelError> {
    if is_target_name(text) { Ok(text.into()) } else { Err(LabelError::Name { name: text.to_owned() }) }
}

fn folder(text: &str) -> Result<Option<RelPath>, LabelError> {
    if text.is_empty() {
        return Ok(None);
    }
    RelPath::new(text).map(Some).map_err(|source| LabelError::Folder { folder: text.to_owned(), source })
}

impl FromStr for Reference {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if let Some(own) = text.strip_prefix(':') {
            return Ok(Self::Own(name(own)?));
        }
        if let Some(every) = text.strip_prefix('^') {
            return Ok(Self::Dependencies(name(every)?));
        }
        let form = || LabelError::Form { text: text.to_owned() };
        let (package, target) = text.strip_prefix("//").and_then(|rest| rest.rsplit_once(':')).ok_or_else(form)?;
        Ok(Self::Full(Label { package: folder(package)?, name: name(target)? }))
    }
}

impl FromStr for Pattern {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        if let Some(below) = text.strip_prefix("//").and_then(|rest| rest.strip_suffix("...")) {
            return Ok(Self::Below(folder(below.strip_suffix('/').unwrap_or(below))?));
        }
        text.parse().map(Self::One)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_one_form_each() {
        for text in ["//:node", "//apps/web:image", "//a:b.c-d_e", "//größe:x"] {
            let Ok(Reference::Full(label)) = text.parse() else { panic!("{text} is a full label") };
            assert_eq!(label.to_string(), text);
        }
        assert_eq!(":x".parse(), Ok(Reference::Own("x".into())));
        assert_eq!("^build".parse(), Ok(Reference::Dependencies("build".into())));
        for text in
            ["", "x", "//", "//a", "//a:", ":", "^", "//../a:b", "///a:b", "//a/:b", "//a:-b", "//a:b c", "/a:b"]
        {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn patterns_select_folders() {
        let below = |text: &str| Pattern::Below(Some(RelPath::new(text).expect("a path")));
        assert_eq!("//...".parse(), Ok(Pattern::Below(None)));
        assert_eq!("//apps/...".parse(), Ok(below("apps")));
        assert!(matches!(":x".parse(), Ok(Pattern::One(Reference::Own(_)))));
        assert!("//../...".parse::<Pattern>().is_err());
    }
}
