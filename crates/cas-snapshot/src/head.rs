//! The commit that the working tree is at, for whoever puts its name into an artifact. Nothing that is built depends on it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::RevisionError;
use crate::revision::Git;

/// The commit that the working tree is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its name, in hexadecimal.
    pub commit: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// Whether the working tree has something else, new files that are not ignored too.
    pub is_changed: bool,
    /// The nearest tag that looks like a version, and how many commits came after it.
    pub tag: Option<(String, u64)>,
}

impl Head {
    /// Asks git. `variables` are those of whoever asks.
    ///
    /// # Errors
    ///
    /// [`RevisionError`]
    pub fn of(root: &Path, variables: &BTreeMap<String, String>) -> Result<Self, RevisionError> {
        let git = Git { folder: root, variables };
        let commit = git.resolve("HEAD", None)?;
        let odd = |command| RevisionError::Output { command, problem: "it is no time" };
        let time = git.print("log", &["-1", "--no-show-signature", "--format=%ct", &commit])?;
        let time =
            std::str::from_utf8(&time).ok().and_then(|text| text.trim().parse().ok()).ok_or_else(|| odd("log"))?;
        // What was built is no change of what it was built from.
        let options = ["--porcelain", "-z", "--untracked-files=normal", "--no-renames", "--no-ahead-behind"];
        let status = [&options[..], &["--", ".", ":(exclude)cas-out"]].concat();
        let is_changed = !git.print("status", &status)?.is_empty();
        // Without a tag of the kind it fails, which is an answer.
        let (described, complaint) =
            git.run("describe", &["--tags", "--long", "--match=v[0-9]*", "--match=[0-9]*", &commit])?;
        let tag = if complaint.is_some() { None } else { parse(&String::from_utf8_lossy(&described)) };
        Ok(Self { commit, time, is_changed, tag })
    }
}

/// `TAG-COUNT-gNAME`
fn parse(described: &str) -> Option<(String, u64)> {
    let (rest, _) = described.trim().rsplit_once("-g")?;
    let (tag, count) = rest.rsplit_once('-')?;
    Some((tag.to_owned(), count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_may_have_dashes() {
        assert_eq!(parse("v1.2.3-rc.1-gamma-14-gdeadbee\n"), Some(("v1.2.3-rc.1-gamma".to_owned(), 14)));
        assert_eq!(parse("v1.2.3-0-gdeadbee"), Some(("v1.2.3".to_owned(), 0)));
        assert_eq!(parse("nothing"), None);
    }
}
