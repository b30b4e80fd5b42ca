//! Which tags of a repository are brought: patterns, regular expressions, ranges of versions. Rules: docs/formats/sync.md.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobMatcher};
use nodejs_semver::{Range, Version};
use regex::{Regex, RegexBuilder};

/// Longest pattern or expression.
const MAX_PATTERN_BYTES: usize = 1 << 10;
/// What a compiled expression may take.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// What makes a pattern of a tag.
const PATTERN_LETTERS: [char; 4] = ['*', '?', '[', '{'];

/// Why a filter is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is longer than any that is of use.
    #[error("a pattern has {bytes} bytes; at most {MAX_PATTERN_BYTES} are read")]
    TooLong {
        /// Bytes that it has.
        bytes: usize,
    },
    /// It is no glob.
    #[error("`{pattern}` is no pattern: {message}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        message: String,
    },
    /// It is no regular expression, or one that takes too much memory.
    #[error("`{pattern}` is no regular expression: {message}")]
    Regex {
        /// The expression.
        pattern: String,
        /// Why.
        message: String,
    },
    /// It is no range of versions.
    #[error("`{range}` is no range of versions")]
    Range {
        /// The range.
        range: String,
    },
    /// Nothing says which tags are meant.
    #[error("nothing says which tags are meant")]
    Empty,
}

/// What a section says of tags, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagRequest {
    /// Patterns, and tags that must be there.
    pub tags: Vec<String>,
    /// For whole tags.
    pub regex: Option<String>,
    /// As npm writes it.
    pub semver: Option<String>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// So many versions, the newest ones.
    pub newest: Option<usize>,
}

/// Chooses among tags.
#[derive(Debug)]
pub struct TagFilter {
    named: BTreeSet<String>,
    patterns: Vec<GlobMatcher>,
    regex: Option<Regex>,
    semver: Option<Range>,
    exclude: Vec<GlobMatcher>,
    newest: Option<usize>,
}

/// The tags that were chosen, and those that were named and are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// In order.
    pub tags: BTreeSet<String>,
    /// In order.
    pub missing: BTreeSet<String>,
}

impl TagFilter {
    /// Reads what a section says.
    ///
    /// # Errors
    ///
    /// [`FilterError`]
    pub fn new(request: &TagRequest) -> Result<Self, FilterError> {
        if request.tags.is_empty() && request.regex.is_none() && request.semver.is_none() {
            return Err(FilterError::Empty);
        }
        let (patterns, named): (Vec<&String>, Vec<&String>) =
            request.tags.iter().partition(|tag| tag.contains(PATTERN_LETTERS));
        let range = |range: &String| {
            limited(range)?;
            range.parse::<Range>().map_err(|_| FilterError::Range { range: range.clone() })
        };
        Ok(Self {
            named: named.into_iter().cloned().collect(),
            patterns: patterns.into_iter().map(|text| glob(text)).collect::<Result<_, _>>()?,
            regex: request.regex.as_deref().map(regex).transpose()?,
            semver: request.semver.as_ref().map(range).transpose()?,
            exclude: request.exclude.iter().map(|text| glob(text)).collect::<Result<_, _>>()?,
            newest: request.newest,
        })
    }

    /// Whether the tags of the repository have to be listed: names alone are looked at one by one.
    #[must_use]
    pub fn needs_list(&self) -> bool {
        !self.patterns.is_empty() || self.regex.is_some() || self.semver.is_some()
    }

    /// The tags that are named, whatever there is.
    #[must_use]
    pub fn named(&self) -> &BTreeSet<String> {
        &self.named
    }

    /// Chooses among all tags of a repository.
    #[must_use]
    pub fn choose<'a>(&self, all: impl IntoIterator<Item = &'a str>) -> Chosen {
        let mut missing = self.named.clone();
        let mut tags = BTreeSet::new();
        let mut versions: Vec<(Version, &str)> = Vec::new();
        for tag in all {
            missing.remove(tag);
            let is_left_out = self.exclude.iter().any(|pattern| pattern.is_match(tag));
            if is_left_out || !(self.named.contains(tag) || self.is_meant(tag)) {
                continue;
            }
            match self.newest.and(version(tag)) {
                Some(version) => versions.push((version, tag)),
                None => drop(tags.insert(tag.to_owned())),
            }
        }
        // Of one version with and without a `v` both stay, or none.
        versions.sort_by(|(one, tag), (other, another)| other.cmp(one).then(tag.cmp(another)));
        let last = self.newest.and_then(|count| Some(versions.get(count.checked_sub(1)?)?.0.clone()));
        let newest = versions.into_iter().filter(|(version, _)| last.as_ref().is_none_or(|last| version >= last));
        tags.extend(newest.map(|(_, tag)| tag.to_owned()));
        Chosen { tags, missing }
    }

    fn is_meant(&self, tag: &str) -> bool {
        if is_companion(tag) {
            return false;
        }
        self.patterns.iter().any(|pattern| pattern.is_match(tag))
            || self.regex.as_ref().is_some_and(|regex| regex.is_match(tag))
            || self.semver.as_ref().is_some_and(|range| version(tag).is_some_and(|version| range.satisfies(&version)))
    }
}

/// Tags of documents about an image: those of cosign, and the one of referrers.
fn is_companion(tag: &str) -> bool {
    let Some(rest) = tag.strip_prefix("sha256-") else { return false };
    let hex = rest.split('.').next().unwrap_or(rest);
    hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A whole version, with `v` before it or not.
fn version(tag: &str) -> Option<Version> {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    // The parser takes more than tags should have: `=1.2.3`, spaces.
    let is_plain = text.starts_with(|first: char| first.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

fn limited(text: &str) -> Result<(), FilterError> {
    if text.len() > MAX_PATTERN_BYTES { Err(FilterError::TooLong { bytes: text.len() }) } else { Ok(()) }
}

fn glob(pattern: &str) -> Result<GlobMatcher, FilterError> {
    limited(pattern)?;
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    let glob =
        glob.map_err(|error| FilterError::Pattern { pattern: pattern.to_owned(), message: error.kind().to_string() })?;
    Ok(glob.compile_matcher())
}

fn regex(pattern: &str) -> Result<Regex, FilterError> {
    limited(pattern)?;
    let whole = format!("^(?:{pattern})$");
    RegexBuilder::new(&whole).size_limit(MAX_COMPILED_BYTES).build().map_err(|error| FilterError::Regex {
        pattern: pattern.to_owned(),
        // The last line says why; those before it show the place.
        message: error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 14] = [
        "1.2.2",
        "1.2.3",
        "v1.2.3",
        "1.3.0",
        "1.3.0-rc.1",
        "2.0.0",
        "1.2",
        "10",
        "12",
        "12.1",
        "trixie",
        "latest",
        "sha256-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.sig",
        "sha256-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn tags_are_chosen_by_each_of_the_keys() {
        let tags = |list: &[&str]| TagRequest { tags: texts(list), ..TagRequest::default() };
        let regex = |text: &str| TagRequest { regex: Some(text.to_owned()), ..TagRequest::default() };
        let semver = |text: &str| TagRequest { semver: Some(text.to_owned()), ..TagRequest::default() };
        for (request, expected, missing) in [
            (tags(&["12*", "trixie"]), &["12", "12.1", "trixie"][..], &[][..]),
            (tags(&["trixie", "sid"]), &["trixie"], &["sid"]),
            (tags(&["1{0,2}"]), &["10", "12"], &[]),
            (tags(&["*"]), &ALL[..12], &[]),
            (TagRequest { exclude: texts(&["1*", "v*"]), ..tags(&["*"]) }, &["2.0.0", "latest", "trixie"], &[]),
            // What is named and left out is not missing: it is there.
            (TagRequest { exclude: texts(&["t*"]), ..tags(&["trixie"]) }, &[], &[]),
            // A tag of cosign is brought where it is named.
            (tags(&[ALL[12]]), &ALL[12..13], &[]),
            (regex("1\\d"), &["10", "12"], &[]),
            (regex("1|trixie"), &["trixie"], &[]),
            (semver(">=1.2.3 <2"), &["1.2.3", "1.3.0", "v1.2.3"], &[]),
            (semver(">=1.3.0-rc.1 <2"), &["1.3.0", "1.3.0-rc.1"], &[]),
            (semver("^1.2"), &["1.2.2", "1.2.3", "1.3.0", "v1.2.3"], &[]),
            (TagRequest { newest: Some(2), ..semver("^1.2") }, &["1.2.3", "1.3.0", "v1.2.3"], &[]),
            (TagRequest { newest: Some(1), ..tags(&["*.*.*", "trixie"]) }, &["2.0.0", "trixie"], &[]),
            (TagRequest { newest: Some(9), ..semver("2") }, &["2.0.0"], &[]),
        ] {
            let filter = TagFilter::new(&request).expect("it is one");
            let chosen = filter.choose(ALL);
            let mut expected = texts(expected);
            expected.sort();
            assert_eq!(chosen.tags.into_iter().collect::<Vec<_>>(), expected, "{request:?}");
            assert_eq!(chosen.missing.into_iter().collect::<Vec<_>>(), texts(missing), "{request:?}");
            let needs_list = request.tags.iter().any(|tag| tag.contains(['*', '{']));
            assert_eq!(filter.needs_list(), needs_list || request.regex.is_some() || request.semver.is_some());
        }
    }

    #[test]
    fn what_is_no_filter_is_told() {
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        let some = || texts(&["a"]);
        for (request, said) in [
            (TagRequest::default(), "which tags"),
            (TagRequest { exclude: some(), ..TagRequest::default() }, "which tags"),
            (TagRequest { tags: texts(&["a["]), ..TagRequest::default() }, "`a[` is no pattern"),
            (TagRequest { tags: some(), exclude: texts(&["{"]), ..TagRequest::default() }, "`{` is no pattern"),
            (TagRequest { regex: Some("a(".to_owned()), ..TagRequest::default() }, "`a(` is no regular expression"),
            (
                TagRequest { regex: Some("\\w{100}{100}{10}".to_owned()), ..TagRequest::default() },
                "no regular expression",
            ),
            (TagRequest { semver: Some("newer".to_owned()), ..TagRequest::default() }, "no range of versions"),
            (TagRequest { regex: Some(long.clone()), ..TagRequest::default() }, "1025 bytes"),
            (TagRequest { tags: vec![format!("{long}*")], ..TagRequest::default() }, "1026 bytes"),
        ] {
            let error = TagFilter::new(&request).expect_err(said).to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
