//! Relations between packages: `Depends: a (>= 1) | b, c:any`, deb-control(5) and Policy 7.1.
//!
//! A field is parsed as a list of groups that all have to hold, each of which holds when one of its alternatives does.
//! What only source packages may use, lists of architectures and build profiles, is an error.
//!
//! Not here: which package of an index fulfils a relation ([`crate::PackageIndex`]).

use std::fmt;

use crate::{ParseVersionError, Version};

/// Why a text is not a list of relations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRelationError {
    /// A relation has no or no valid package name.
    #[error("relation `{text}` does not begin with the name of a package")]
    Name {
        /// The relation.
        text: String,
    },
    /// Something else than a version in parentheses follows the name.
    #[error("relation `{text}` is not a package and a version in parentheses")]
    Syntax {
        /// The relation.
        text: String,
    },
    /// The version compared with is not one.
    #[error("relation `{text}` has no valid version")]
    Version {
        /// The relation.
        text: String,
        /// What is wrong with the version.
        source: ParseVersionError,
    },
}

/// How the version of a package has to compare with that of the relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>>`
    Greater,
}

impl Comparison {
    /// Whether `left` stands so to `right`.
    #[must_use]
    pub fn holds(self, left: &Version, right: &Version) -> bool {
        let order = left.cmp(right);
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Equal => order.is_eq(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Greater => order.is_gt(),
        }
    }

    const fn sign(self) -> &'static str {
        match self {
            Self::Less => "<<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">>",
        }
    }
}

/// A package, perhaps of some architecture, perhaps in some versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Name of the package, or of what packages provide.
    pub name: Box<str>,
    /// What follows a colon: `any`, `native` or an architecture.
    pub architecture: Option<Box<str>>,
    /// The versions meant.
    pub version: Option<(Comparison, Version)>,
}

impl Relation {
    /// Parses one relation.
    ///
    /// # Errors
    ///
    /// [`ParseRelationError`]
    pub fn parse(text: &str) -> Result<Self, ParseRelationError> {
        let text = text.trim_ascii();
        let syntax = || ParseRelationError::Syntax { text: text.to_owned() };
        let end =
            text.find(|character: char| character.is_ascii_whitespace() || character == '(').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let (name, architecture) = match name.split_once(':') {
            None => (name, None),
            Some((name, architecture)) => (name, Some(architecture)),
        };
        if !is_package_name(name) {
            return Err(ParseRelationError::Name { text: text.to_owned() });
        }
        if architecture.is_some_and(|architecture| !is_package_name(architecture)) {
            return Err(syntax());
        }
        let rest = rest.trim_ascii_start();
        let version = if rest.is_empty() {
            None
        } else {
            let inner = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(syntax)?.trim_ascii();
            let (comparison, version) = split_comparison(inner).ok_or_else(syntax)?;
            let version = Version::parse(version.trim_ascii())
                .map_err(|source| ParseRelationError::Version { text: text.to_owned(), source })?;
            Some((comparison, version))
        };
        Ok(Self { name: name.into(), architecture: architecture.map(Into::into), version })
    }

    /// Whether the version is one of those meant.
    #[must_use]
    pub fn accepts(&self, version: &Version) -> bool {
        self.version.as_ref().is_none_or(|(comparison, than)| comparison.holds(version, than))
    }
}

fn split_comparison(text: &str) -> Option<(Comparison, &str)> {
    // The single signs mean "or equal": an old form that dpkg still takes so.
    for (sign, comparison) in [
        ("<<", Comparison::Less),
        ("<=", Comparison::LessOrEqual),
        (">>", Comparison::Greater),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::LessOrEqual),
        (">", Comparison::GreaterOrEqual),
        ("=", Comparison::Equal),
    ] {
        if let Some(version) = text.strip_prefix(sign) {
            return Some((comparison, version));
        }
    }
    None
}

/// Whether the text can name a package: the rule of dpkg, which is wider than that of Policy 5.6.7.
pub(crate) fn is_package_name(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_'))
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(architecture) = &self.architecture {
            write!(f, ":{architecture}")?;
        }
        match &self.version {
            Some((comparison, version)) => write!(f, " ({} {version})", comparison.sign()),
            None => Ok(()),
        }
    }
}

/// Relations of which one has to hold. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternatives(Vec<Relation>);

impl Alternatives {
    /// The alternatives, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &Relation> {
        self.0.iter()
    }

    /// The relation, where there is no alternative to it.
    pub(crate) fn single(&self) -> Option<&Relation> {
        self.0.first().filter(|_| self.0.len() == 1)
    }
}

impl fmt::Display for Alternatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, relation) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " | " };
            write!(f, "{separator}{relation}")?;
        }
        Ok(())
    }
}

/// Value of a field: alternatives that all have to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relations(Vec<Alternatives>);

impl Relations {
    /// Parses the value of a field. An empty value holds no relations.
    ///
    /// # Errors
    ///
    /// [`ParseRelationError`]
    pub fn parse(text: &str) -> Result<Self, ParseRelationError> {
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        text.split(',')
            .map(|group| group.split('|').map(Relation::parse).collect::<Result<_, _>>().map(Alternatives))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The groups in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Alternatives> {
        self.0.iter()
    }

    /// Every relation, where the field has no alternatives: `Provides`, `Conflicts`, `Breaks`, `Replaces`.
    pub fn flat(&self) -> impl Iterator<Item = &Relation> {
        self.0.iter().flat_map(Alternatives::iter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_parsed_and_printed() {
        for (text, printed) in [
            ("", ""),
            ("a", "a"),
            (
                "libc6 (>= 2.34), a|b:any(<<1),\n c:amd64 ( = 1:2-3 )",
                "libc6 (>= 2.34); a | b:any (<< 1); c:amd64 (= 1:2-3)",
            ),
            ("x (< 1), y (> 2)", "x (<= 1); y (>= 2)"),
            ("g++-12 (<= 3~), lib.so_1 (>> 0)", "g++-12 (<= 3~); lib.so_1 (>> 0)"),
        ] {
            let relations = Relations::parse(text).expect("a field");
            let groups: Vec<String> = relations.iter().map(ToString::to_string).collect();
            assert_eq!(groups.join("; "), printed, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_relation_is_refused() {
        for (text, message) in [
            ("a,", "relation `` does not begin with the name of a package"),
            ("a || b", "relation `` does not begin with the name of a package"),
            ("(>= 1)", "relation `(>= 1)` does not begin with the name of a package"),
            ("${misc:Depends}", "relation `${misc:Depends}` does not begin with the name of a package"),
            ("a [amd64]", "relation `a [amd64]` is not a package and a version in parentheses"),
            ("a <!nocheck>", "relation `a <!nocheck>` is not a package and a version in parentheses"),
            ("a (1)", "relation `a (1)` is not a package and a version in parentheses"),
            ("a (>= 1", "relation `a (>= 1` is not a package and a version in parentheses"),
            ("a: (>= 1)", "relation `a: (>= 1)` is not a package and a version in parentheses"),
            ("a (>= )", "relation `a (>= )` has no valid version"),
        ] {
            assert_eq!(Relations::parse(text).map_err(|error| error.to_string()), Err(message.to_owned()));
        }
    }

    #[test]
    fn versions_are_compared_by_the_sign() {
        for (relation, accepted) in [
            ("a", [true, true, true]),
            ("a (<< 2)", [true, false, false]),
            ("a (<= 2)", [true, true, false]),
            ("a (= 2)", [false, true, false]),
            ("a (>= 2)", [false, true, true]),
            ("a (>> 2)", [false, false, true]),
        ] {
            let relation = Relation::parse(relation).expect("a relation");
            let versions = ["1", "2-0", "3"].map(|text| Version::parse(text).expect("a version"));
            assert_eq!(versions.map(|version| relation.accepts(&version)), accepted, "{relation}");
        }
    }
}
