//! Where something goes: a repository, and the tags that it gets there.

use std::collections::BTreeMap;
use std::fmt;

use cas_oci::{ParseReferenceError, Reference, Repository};

/// A repository and the tags that are to name what is sent. Without tags its digest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub repository: Repository,
    /// Tags, in the order in which they are set.
    pub tags: Vec<String>,
}

/// Why a text names no place in a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// It is no name.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// It has a digest, which nobody chooses.
    #[error("`{text}` has a digest")]
    Digest {
        /// The text.
        text: String,
    },
}

impl ParseTargetError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Reference(ParseReferenceError::NoHost { text }) => format!("write `HOST/{text}`"),
            Self::Reference(error @ ParseReferenceError::Login { .. }) => error.hint(),
            Self::Reference(_) => "write `HOST/NAME:TAG`, or `HOST/NAME` for no tag".to_owned(),
            Self::Digest { .. } => "leave it out: the digest is that of what is sent".to_owned(),
        }
    }
}

impl Target {
    /// Reads `HOST/NAME[:TAG]`, with `docker://` before it or not; those of one repository become one target, in the order of the
    /// first of each.
    ///
    /// # Errors
    ///
    /// [`ParseTargetError`]
    pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>, ParseTargetError> {
        let mut targets: Vec<Self> = Vec::new();
        let mut places: BTreeMap<Repository, usize> = BTreeMap::new();
        for text in texts {
            let name = text.strip_prefix("docker://").unwrap_or(text);
            let parsed = match name.parse::<Reference>() {
                // Without a tag it is one with any tag.
                Err(ParseReferenceError::NoVersion { .. }) => {
                    let Reference { repository, digest, .. } = format!("{name}:x").parse()?;
                    Reference { repository, tag: None, digest }
                }
                other => other?,
            };
            if parsed.digest.is_some() {
                return Err(ParseTargetError::Digest { text: text.to_owned() });
            }
            let place = *places.entry(parsed.repository.clone()).or_insert_with(|| {
                targets.push(Self { repository: parsed.repository, tags: Vec::new() });
                targets.len() - 1
            });
            let tags = &mut targets[place].tags;
            tags.extend(parsed.tag.filter(|tag| !tags.contains(tag)).into_iter().collect::<Vec<_>>());
        }
        Ok(targets)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_repository_are_one_target() {
        let target = |host: &str, path: &str, tags: &[&str]| Target {
            repository: Repository { host: host.to_owned(), path: path.to_owned() },
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        let parsed = |texts: &[&str]| Target::parse_all(texts.iter().copied());
        assert_eq!(
            parsed(&["ghcr.io/a/b:2", "docker://127.0.0.1:5000/c", "ghcr.io/a/b:1", "ghcr.io/a/b:2", "docker.io/d:x"]),
            Ok(vec![
                target("ghcr.io", "a/b", &["2", "1"]),
                target("127.0.0.1:5000", "c", &[]),
                target("docker.io", "library/d", &["x"]),
            ])
        );
        let digest = format!("ghcr.io/a@sha256:{}", "0".repeat(64));
        for (text, error, hint) in [
            ("a:1", "`a:1` does not name its registry", "write `HOST/a:1`"),
            ("ghcr.io/A:1", "`ghcr.io/A:1` has a bad path", "write `HOST/NAME:TAG`, or `HOST/NAME` for no tag"),
            ("ghcr.io/a:.", "`ghcr.io/a:.` has a bad tag", "write `HOST/NAME:TAG`, or `HOST/NAME` for no tag"),
            (&digest, &format!("`{digest}` has a digest"), "leave it out: the digest is that of what is sent"),
        ] {
            let found = parsed(&[text]).expect_err("it is wrong");
            assert_eq!((found.to_string(), found.hint()), (error.to_owned(), hint.to_owned()));
        }
    }
}
