//! Files of `cas sync`, and the pins beside them. Rules: docs/formats/sync.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use cas_digest::Digest;
use cas_oci::{Reference, Repository, TargetPlatform, digest_of};
use serde::Deserialize;
use toml::Spanned;

use crate::{FilterError, TagFilter, TagRequest};

/// Longest file.
pub const MAX_SYNC_FILE_BYTES: u64 = 1 << 20;
/// Longest pins.
pub const MAX_SYNC_LOCK_BYTES: u64 = 64 << 20;
/// Most sections.
const MAX_SECTIONS: usize = 10_000;
/// Images on their way to or from a host, where nobody says so.
const DEFAULT_AT_ONCE: usize = 4;
/// Most images on their way.
const MOST_AT_ONCE: usize = 64;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyncFileError {
    /// What.
    pub message: String,
    /// Where, in bytes.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What is brought from where to where.
#[derive(Debug)]
pub struct SyncFile {
    /// In the order of the file.
    pub sections: Vec<SyncSection>,
    /// Images on their way to or from a host at once.
    hosts: BTreeMap<String, usize>,
}

/// Tags of one repository, and where they go.
#[derive(Debug)]
pub struct SyncSection {
    /// Where they are from.
    pub from: Repository,
    /// Where they go.
    pub to: Vec<Repository>,
    /// Which.
    pub filter: TagFilter,
    /// The same in words, which the pins are of.
    pub request: String,
    /// The one that is brought alone.
    pub platform: Option<TargetPlatform>,
    /// Whether documents about an image come with it.
    pub referrers: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    image: Vec<RawSection>,
    #[serde(default)]
    host: BTreeMap<String, RawHost>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSection {
    from: Spanned<String>,
    to: Vec<Spanned<String>>,
    #[serde(default)]
    tags: Vec<String>,
    regex: Option<String>,
    semver: Option<String>,
    #[serde(default)]
    exclude: Vec<String>,
    newest: Option<Spanned<usize>>,
    #[serde(default)]
    platforms: Vec<Spanned<String>>,
    #[serde(default = "yes")]
    referrers: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    at_once: Spanned<usize>,
}

const fn yes() -> bool {
    true
}

fn wrong(message: impl Into<String>, span: Range<usize>, hint: impl Into<String>) -> SyncFileError {
    SyncFileError { message: message.into(), span: Some(span), hint: Some(hint.into()) }
}

impl SyncFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`SyncFileError`]
    pub fn parse(text: &str) -> Result<Self, SyncFileError> {
        let raw: Raw = toml::from_str(text).map_err(|error| SyncFileError {
            message: error.message().to_owned(),
            span: error.span(),
            hint: None,
        })?;
        if raw.image.len() > MAX_SECTIONS {
            let message = format!("it has {} sections, and at most {MAX_SECTIONS} are read", raw.image.len());
            return Err(SyncFileError { message, span: None, hint: Some("make several files of it".to_owned()) });
        }
        let mut places = BTreeSet::new();
        let sections: Vec<SyncSection> =
            raw.image.into_iter().map(|section| read(section, &mut places)).collect::<Result<_, _>>()?;
        let mut hosts = BTreeMap::new();
        for (host, section) in raw.host {
            let count = *section.at_once.get_ref();
            if !(1..=MOST_AT_ONCE).contains(&count) {
                let message = format!("`at_once` is {count}");
                return Err(wrong(message, section.at_once.span(), format!("write a number from 1 to {MOST_AT_ONCE}")));
            }
            hosts.insert(host, count);
        }
        Ok(Self { sections, hosts })
    }

    /// Images on their way to or from a host at once.
    #[must_use]
    pub fn at_once(&self, host: &str) -> usize {
        self.hosts.get(host).copied().unwrap_or(DEFAULT_AT_ONCE)
    }
}

fn read(section: RawSection, places: &mut BTreeSet<Repository>) -> Result<SyncSection, SyncFileError> {
    let from = repository(&section.from)?;
    let place = section.from.span();
    if section.to.is_empty() {
        return Err(wrong("`to` names no place", place, "write `to = [\"registry.example/NAME\"]`"));
    }
    let mut to = Vec::new();
    for text in &section.to {
        let repository = repository(text)?;
        if repository == from {
            return Err(wrong(format!("`{repository}` is where it comes from"), text.span(), "name another place"));
        }
        if !places.insert(repository.clone()) {
            let message = format!("`{repository}` is a destination twice");
            return Err(wrong(message, text.span(), "what two sections bring there would mix: give each its own"));
        }
        to.push(repository);
    }
    if let Some(newest) = section.newest.as_ref().filter(|newest| *newest.get_ref() == 0) {
        return Err(wrong("`newest` is 0", newest.span(), "write how many versions are brought"));
    }
    let platform = match &section.platforms[..] {
        [] => None,
        [one] => {
            let platform = one.get_ref().parse();
            let hint = "write it as `linux/arm64`";
            Some(platform.map_err(|_| wrong(format!("`{}` is no platform", one.get_ref()), one.span(), hint))?)
        }
        [_, second, ..] => {
            let hint = "name one, or leave it out and bring all: an index with some of its images would be another one";
            return Err(wrong("`platforms` names several", second.span(), hint));
        }
    };
    let request = TagRequest {
        tags: section.tags,
        regex: section.regex,
        semver: section.semver,
        exclude: section.exclude,
        newest: section.newest.map(Spanned::into_inner),
    };
    let filter = TagFilter::new(&request).map_err(|error| {
        let hint = match error {
            FilterError::Empty => "write `tags = [\"1.*\"]`, `semver = \"^1.2\"` or `regex = \"v\\\\d+\"`",
            FilterError::Range { .. } => "write it as npm does: `^1.2`, `>=1.2 <3`, `1.x`",
            FilterError::TooLong { .. } => "make several sections of it",
            FilterError::Pattern { .. } => "write a glob, as `1.*` or `{12,13}*`",
            FilterError::Regex { .. } => "write a shorter or simpler one",
        };
        wrong(error.to_string(), place, hint)
    })?;
    let request = words(&request, platform.as_ref());
    Ok(SyncSection { from, to, filter, request, platform, referrers: section.referrers })
}

/// What was asked for, so that pins are known to be of it.
fn words(request: &TagRequest, platform: Option<&TargetPlatform>) -> String {
    let list = |name: &str, items: &[String]| (!items.is_empty()).then(|| format!("{name} {}", items.join(" ")));
    let one = |name: &str, item: Option<String>| item.map(|item| format!("{name} {item}"));
    let parts = [
        list("tags", &request.tags),
        one("regex", request.regex.clone()),
        one("semver", request.semver.clone()),
        list("exclude", &request.exclude),
        one("newest", request.newest.map(|count| count.to_string())),
        one("platform", platform.map(ToString::to_string)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// A name of a repository, without a tag.
fn repository(text: &Spanned<String>) -> Result<Repository, SyncFileError> {
    let name = text.get_ref().strip_prefix("docker://").unwrap_or(text.get_ref());
    let hint = "write `HOST/NAME`, without a tag";
    let has_version = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    match format!("{name}:x").parse::<Reference>() {
        Ok(reference) if !has_version => Ok(reference.repository),
        _ => Err(wrong(format!("`{name}` is no repository"), text.span(), hint)),
    }
}

/// What tags of sections stood for when they were resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncLock {
    /// By repository and request: tags with what they name.
    pins: BTreeMap<(String, String), BTreeMap<String, Digest>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLock {
    version: u32,
    #[serde(default)]
    image: Vec<RawPins>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPins {
    from: String,
    request: String,
    tags: BTreeMap<String, String>,
}

impl SyncLock {
    /// Reads pins.
    ///
    /// # Errors
    ///
    /// [`SyncFileError`]
    pub fn parse(text: &str) -> Result<Self, SyncFileError> {
        let hint = || Some("remove it, and `cas sync plan` writes it anew".to_owned());
        let plain = |message: String| SyncFileError { message, span: None, hint: hint() };
        let raw: RawLock = toml::from_str(text).map_err(|error| SyncFileError {
            message: error.message().to_owned(),
            span: error.span(),
            hint: hint(),
        })?;
        if raw.version != 1 {
            return Err(plain(format!("the pins have version {}, and this program knows 1", raw.version)));
        }
        let mut lock = Self::default();
        for section in raw.image {
            let mut pins = BTreeMap::new();
            for (tag, digest) in section.tags {
                let parsed = digest_of(&digest).ok_or_else(|| plain(format!("`{digest}` is no digest")))?;
                pins.insert(tag, parsed);
            }
            lock.pins.insert((section.from, section.request), pins);
        }
        Ok(lock)
    }

    /// The pins of a section; `None` where it was never resolved as it is now.
    #[must_use]
    pub fn get(&self, section: &SyncSection) -> Option<&BTreeMap<String, Digest>> {
        self.pins.get(&(section.from.to_string(), section.request.clone()))
    }

    /// Pins a section anew.
    pub fn set(&mut self, section: &SyncSection, pins: BTreeMap<String, Digest>) {
        self.pins.insert((section.from.to_string(), section.request.clone()), pins);
    }

    /// Forgets the pins of what a file no longer has.
    pub fn retain(&mut self, file: &SyncFile) {
        let known: BTreeSet<(String, String)> =
            file.sections.iter().map(|section| (section.from.to_string(), section.request.clone())).collect();
        self.pins.retain(|key, _| known.contains(key));
    }

    /// As it is written.
    #[must_use]
    pub fn to_text(&self) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut text =
            "# Written by `cas sync plan`. Commit it beside the file that it belongs to.\nversion = 1\n".to_owned();
        for ((from, request), pins) in &self.pins {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[[image]]\nfrom = {}\nrequest = {}\n[image.tags]\n", quoted(from), quoted(request));
            for (tag, digest) in pins {
                let _ = writeln!(text, "{} = {}", quoted(tag), quoted(&digest.to_string()));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn files_say_what_goes_where() {
        let file = SyncFile::parse(
            "[[image]]\nfrom = \"docker.io/debian\"\nto = [\"r.example/debian\", \"docker://127.0.0.1:5000/d\"]\n\
             tags = [\"12*\", \"trixie\"]\nexclude = [\"*-backports\"]\n\
             [[image]]\nfrom = \"ghcr.io/a/b\"\nto = [\"r.example/b\"]\nsemver = \">=1.2 <3\"\nnewest = 3\n\
             platforms = [\"linux/arm64\"]\nreferrers = false\n[host.\"docker.io\"]\nat_once = 2\n",
        )
        .expect("it is one");
        let [debian, other] = &file.sections[..] else { panic!("there are two") };
        assert_eq!(debian.from.to_string(), "docker.io/library/debian");
        assert_eq!(
            debian.to.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["r.example/debian", "127.0.0.1:5000/d"]
        );
        assert_eq!(debian.request, "tags 12* trixie; exclude *-backports");
        assert_eq!(other.request, "semver >=1.2 <3; newest 3; platform linux/arm64");
        assert!(debian.referrers && !other.referrers && other.platform.is_some());
        assert_eq!((file.at_once("docker.io"), file.at_once("r.example")), (2, DEFAULT_AT_ONCE));
        assert!(SyncFile::parse("").expect("nothing is brought").sections.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let section = |rest: &str| format!("[[image]]\nfrom = \"h.example/a\"\nto = [\"r.example/a\"]\n{rest}");
        let tags = "tags = [\"1\"]\n";
        for (text, said, hint) in [
            ("image = 3".to_owned(), "expected", ""),
            ("[[image]]\nform = \"x\"\n".to_owned(), "unknown field `form`", ""),
            (section(""), "nothing says which tags", "write `tags"),
            (section("tags = [\"a[\"]\n"), "`a[` is no pattern", "write a glob"),
            (section("semver = \"x.y\"\n"), "no range of versions", "as npm does"),
            (section(&format!("{tags}newest = 0\n")), "`newest` is 0", "how many"),
            (section(&format!("{tags}platforms = [\"linux\"]\n")), "`linux` is no platform", "`linux/arm64`"),
            (section(&format!("{tags}platforms = [\"linux/amd64\", \"linux/arm64\"]\n")), "names several", "name one"),
            (section(&format!("{tags}[host.x]\nat_once = 0\n")), "`at_once` is 0", "from 1 to 64"),
            (format!("{0}{tags}{0}{tags}", section("")), "`r.example/a` is a destination twice", "its own"),
            (section(tags).replace("r.example/a", "h.example/a"), "is where it comes from", "another place"),
            (
                section(tags).replace("r.example/a", "r.example/a:1"),
                "`r.example/a:1` is no repository",
                "without a tag",
            ),
            (section(tags).replace("r.example/a", "a"), "`a` is no repository", "HOST/NAME"),
            (section(tags).replace("[\"r.example/a\"]", "[]"), "`to` names no place", "to = "),
        ] {
            let error = SyncFile::parse(&text).expect_err(said);
            assert!(error.message.contains(said), "{said}: {error}");
            assert!(error.span.is_some(), "{said}");
            assert!(error.hint.unwrap_or_default().contains(hint), "{said}");
        }
    }

    #[test]
    fn pins_are_read_as_they_were_written_and_belong_to_their_words() {
        let text = "[[image]]\nfrom = \"h.example/a\"\nto = [\"r.example/a\"]\ntags = [\"1.*\"]\n";
        let file = SyncFile::parse(text).expect("it is one");
        let digest = Digest::of(DigestFunction::Sha256, b"x");
        let mut lock = SyncLock::default();
        assert_eq!(lock.get(&file.sections[0]), None);
        lock.set(&file.sections[0], BTreeMap::from([("1.0".to_owned(), digest), ("1.1".to_owned(), digest)]));
        let read = SyncLock::parse(&lock.to_text()).expect("it was written");
        assert_eq!(read, lock);
        assert_eq!(read.get(&file.sections[0]).map(BTreeMap::len), Some(2));
        let other = SyncFile::parse(&text.replace("1.*", "2.*")).expect("it is one");
        assert_eq!(read.get(&other.sections[0]), None);
        let mut kept = read;
        kept.retain(&other);
        assert_eq!(kept, SyncLock::default());
        for (from, to, said) in [
            ("version = 1", "version = 2", "version 2"),
            ("sha256:", "sha999:", "no digest"),
            ("request", "requests", "unknown field"),
        ] {
            let error = SyncLock::parse(&lock.to_text().replace(from, to)).expect_err(said).to_string();
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
