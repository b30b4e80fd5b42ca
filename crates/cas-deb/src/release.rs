//! The signed list of a suite's indexes: `InRelease`.
//!
//! A [`Release`] exists only after a signature over its text was good, so the descriptors in it can be trusted as far as
//! the keyring can. Its fields: <https://wiki.debian.org/DebianRepository/Format>, "Release files".
//!
//! Not here: the keys ([`Keyring`]), fetching what the list names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_time::Utc;
use cas_tree::RelPath;

use crate::cleartext::{Cleartext, FrameError};
use crate::deb822::{Deb822Error, Paragraph, Paragraphs};
use crate::keyring::{Keyring, SignatureError};
use crate::package::parse_size;

/// How far ahead of this machine's clock an archive's may be.
const MAX_AHEAD_SECONDS: u64 = 3600;
/// Most files that a release lists; Debian's list 700, Ubuntu's 2,000.
const MAX_FILES: usize = 1 << 16;

/// When a release is judged, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The time of this machine's clock. That of an archive may be a bit ahead of it.
    Now(u64),
    /// A time that was named, since the archive is a snapshot of then.
    AsOf(u64),
}

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(seconds) => write!(formatter, "it is {} now", date(*seconds)),
            Self::AsOf(seconds) => write!(formatter, "`as_of` is {}", date(*seconds)),
        }
    }
}

/// Why an `InRelease` file is not to be believed, or not to be used.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It is the release of another suite, which the same keys sign.
    #[error("this is the release of `{found}`, not of `{expected}`")]
    Suite {
        /// The suite that was asked for.
        expected: String,
        /// What it calls itself.
        found: String,
    },
    /// It is not a whole clear-signed message.
    #[error("the release file is not a clear-signed message: {0}")]
    Frame(#[from] FrameError),
    /// No signature of a trusted key is good.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is signed well and not valid any more. Whoever replays a pinned state may go on with what it says.
    #[error("the release file of `{}` was valid until {}, and {moment}", release.codename, date(*.valid_until))]
    Expired {
        /// Last second of validity.
        valid_until: u64,
        /// The time given.
        moment: Moment,
        /// What it says.
        release: Box<Release>,
    },
    /// It is from the future: a lock that took it would refuse what is right until then.
    #[error("the release file of `{codename}` is of {}, and {moment}", date(*.made))]
    NotYet {
        /// What the suite calls itself.
        codename: String,
        /// When it says to be made.
        made: u64,
        /// The time given.
        moment: Moment,
    },
    /// It is older than one that was taken before: a state with known holes, which was good once, may be in its place.
    #[error("the release file of `{codename}` is of {}, older than that of {} which is pinned", date(*.made), date(*.pinned))]
    Older {
        /// What the suite calls itself.
        codename: String,
        /// When it was made.
        made: u64,
        /// When the one was that was taken.
        pinned: u64,
    },
    /// The signed text is not made of fields.
    #[error("the release file is damaged")]
    Syntax(#[from] Deb822Error),
    /// The signed text is not one paragraph.
    #[error("the release file does not hold one paragraph")]
    NotOneParagraph,
    /// A required field is not there.
    #[error("the release file has no field `{field}`")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field holds what it must not.
    #[error("field `{field}` of the release file holds `{value}`")]
    Field {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
    },
}

impl ReleaseError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Expired { moment: Moment::Now(_), release, .. } => {
                return Some(format!(
                    "the mirror is not kept up to date, or this machine's clock is wrong: use another mirror; if it is a snapshot \
                     on purpose, say so with `as_of = \"{}\"`",
                    rfc3339(release.date)
                ));
            }
            Self::Expired { moment: Moment::AsOf(_), .. } => {
                "name the moment of the snapshot with `as_of`: from the release's `Date` until its `Valid-Until`"
            }
            Self::NotYet { moment: Moment::Now(_), .. } => "this machine's clock is wrong, or that of the archive",
            Self::NotYet { moment: Moment::AsOf(_), made, .. } => {
                return Some(format!(
                    "use the snapshot of then as `mirror`, or write `as_of = \"{}\"`",
                    rfc3339(*made)
                ));
            }
            Self::Older { .. } => {
                "use a mirror that is up to date; to go back on purpose, remove the entry of this target from `cas.lock`"
            }
            Self::Signature(SignatureError::UnknownKey { .. }) => {
                "if that is the key of this archive, name as `keyring` a file in the package that has it; who publishes the \
                 archive publishes that file, too"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// What a suite consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Name that stays, like `bookworm`.
    pub codename: String,
    /// Name that moves, like `oldstable`.
    pub suite: Option<String>,
    /// When it was made, in seconds since 1970.
    pub date: u64,
    /// Until when it may be believed, in seconds since 1970.
    pub valid_until: Option<u64>,
    /// Whether files can also be fetched as `<folder>/by-hash/SHA256/<hex>`, which a mirror's update does not disturb.
    pub acquire_by_hash: bool,
    /// Files below the suite's folder, by path.
    pub files: BTreeMap<RelPath, Descriptor>,
    /// Fingerprint of the key whose signature was good, in lower-case hex.
    pub signed_by: String,
}

/// Checks the signatures of an `InRelease` file and reads the signed text.
///
/// One good signature by a key of the ring is enough; signatures by other keys are passed over. `moment` is
/// compared with `Valid-Until` and `Date` alone. Keys are judged at the time that the signature gives, so that an old state can be
/// replayed: whether it is too old is for `Valid-Until` and the caller to say.
///
/// # Errors
///
/// [`ReleaseError`]
pub fn verify_inrelease(message: &[u8], keyring: &Keyring, moment: Moment) -> Result<Release, ReleaseError> {
    let cleartext = Cleartext::decode(message)?;
    let signed_by = keyring.verify(&cleartext.signatures, &cleartext.signed)?;
    let mut paragraphs = Paragraphs::new(cleartext.text.as_bytes());
    let release = match paragraphs.next_paragraph()? {
        Some(paragraph) => Release::from_paragraph(&paragraph, signed_by)?,
        None => return Err(ReleaseError::NotOneParagraph),
    };
    if paragraphs.next_paragraph()?.is_some() {
        return Err(ReleaseError::NotOneParagraph);
    }
    let (seconds, latest) = match moment {
        Moment::Now(seconds) => (seconds, seconds.saturating_add(MAX_AHEAD_SECONDS)),
        Moment::AsOf(seconds) => (seconds, seconds),
    };
    if release.date > latest {
        return Err(ReleaseError::NotYet { codename: release.codename, made: release.date, moment });
    }
    match release.valid_until {
        Some(valid_until) if valid_until < seconds => {
            Err(ReleaseError::Expired { valid_until, moment, release: Box::new(release) })
        }
        _ => Ok(release),
    }
}

impl Release {
    fn from_paragraph(paragraph: &Paragraph<'_>, signed_by: String) -> Result<Self, ReleaseError> {
        let required = |field| paragraph.get(field).ok_or(ReleaseError::Missing { field });
        let date = |field, value: &str| {
            parse_date(value).ok_or_else(|| ReleaseError::Field { field, value: value.chars().take(100).collect() })
        };
        Ok(Self {
            codename: required("Codename")?.to_owned(),
            suite: paragraph.get("Suite").map(str::to_owned),
            date: date("Date", required("Date")?)?,
            valid_until: paragraph.get("Valid-Until").map(|value| date("Valid-Until", value)).transpose()?,
            acquire_by_hash: paragraph.get("Acquire-By-Hash") == Some("yes"),
            files: parse_files(required("SHA256")?)?,
            signed_by,
        })
    }

    /// Fails when this is another suite than `suite`: its release may be in the place of this one's, signed as well.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Suite`]
    pub fn check_suite(&self, suite: &str) -> Result<(), ReleaseError> {
        if self.codename == suite || self.suite.as_deref() == Some(suite) {
            return Ok(());
        }
        let found = self.suite.as_ref().map(|moving| format!("{} ({moving})", self.codename));
        Err(ReleaseError::Suite { expected: suite.to_owned(), found: found.unwrap_or_else(|| self.codename.clone()) })
    }

    /// Fails when this was made before the release that is pinned.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Older`]
    pub fn check_date(&self, pinned: u64) -> Result<(), ReleaseError> {
        if self.date >= pinned {
            return Ok(());
        }
        Err(ReleaseError::Older { codename: self.codename.clone(), made: self.date, pinned })
    }

    /// The components that have a package index which can be decoded, in order.
    #[must_use]
    pub fn components(&self, architecture: &str) -> BTreeSet<&str> {
        let paths = self.files.keys().filter_map(|path| std::str::from_utf8(path.as_bytes()).ok());
        paths.filter_map(|path| component(path, architecture)).collect()
    }

    /// The smallest form of a component's package index that can be decoded: `.xz`, `.gz` or plain.
    #[must_use]
    pub fn package_index(&self, component: &str, architecture: &str) -> Option<(&RelPath, &Descriptor)> {
        [".xz", ".gz", ""].iter().find_map(|ending| {
            let path = RelPath::new(format!("{component}/binary-{architecture}/Packages{ending}")).ok()?;
            self.files.get_key_value(&path)
        })
    }
}

/// See [`Release::components`].
fn component<'path>(path: &'path str, architecture: &str) -> Option<&'path str> {
    let (component, file) = path.split_once("/binary-")?;
    let name = file.strip_prefix(architecture)?.strip_prefix("/Packages")?;
    (matches!(name, ".xz" | ".gz" | "") && !component.contains('/')).then_some(component)
}

/// Parses lines of digest, size and path.
fn parse_files(list: &str) -> Result<BTreeMap<RelPath, Descriptor>, ReleaseError> {
    let wrong = |line: &str| ReleaseError::Field { field: "SHA256", value: line.chars().take(200).collect() };
    let mut files = BTreeMap::new();
    for line in list.lines().filter(|line| !line.trim_ascii().is_empty()) {
        let parse = || {
            let mut words = line.split_ascii_whitespace();
            let digest = Digest::from_hex(DigestFunction::Sha256, words.next()?).ok()?;
            let size = parse_size(words.next()?)?;
            let path = RelPath::new(words.next()?).ok()?;
            words.next().is_none().then_some((path, Descriptor { digest, size }))
        };
        let (path, descriptor) = parse().ok_or_else(|| wrong(line))?;
        if files.insert(path, descriptor).is_some_and(|before| before != descriptor) || files.len() > MAX_FILES {
            return Err(wrong(line));
        }
    }
    Ok(files)
}

/// Seconds since 1970 of a date like `Sat, 11 Jul 2026 10:16:37 UTC`, the one form that archives write.
fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_ascii_whitespace();
    if !words.next()?.ends_with(',') {
        return None;
    }
    let day = parse_size(words.next()?)?;
    let month_name = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month_name)? as u64 + 1;
    let year = parse_size(words.next()?)?;
    let mut clock = words.next()?.split(':');
    let (hour, minute, second) = (parse_size(clock.next()?)?, parse_size(clock.next()?)?, parse_size(clock.next()?)?);
    if clock.next().is_some() || !matches!(words.next()?, "UTC" | "GMT" | "+0000" | "Z") || words.next().is_some() {
        return None;
    }
    let small = |number: u64| u8::try_from(number).ok();
    let moment = Utc {
        year: i64::try_from(year).ok()?,
        month: u8::try_from(month).ok()?,
        day: small(day)?,
        hour: small(hour)?,
        minute: small(minute)?,
        // A leap second is the one before it.
        second: small(second)?.min(if second == 60 { 59 } else { u8::MAX }),
    };
    u64::try_from(moment.to_unix()?).ok().filter(|_| year < 10_000)
}

/// A time as `2026-07-11 10:16:37 UTC`.
fn date(seconds: u64) -> String {
    rfc3339(seconds).replacen('T', " ", 1).replace('Z', " UTC")
}

/// The same as `2026-07-11T10:16:37Z`.
fn rfc3339(seconds: u64) -> String {
    cas_time::rfc3339(i64::try_from(seconds).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_printed_as_they_are_meant() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (1_783_764_997, "2026-07-11 10:16:37 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }

    #[test]
    fn dates_are_parsed() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Sat, 11 Jul 2026 10:16:37 UTC", Some(1_783_764_997)),
            ("Sat, 26 Oct 1985 08:15:00 GMT", Some(499_162_500)),
            ("Thu, 29 Feb 2024 23:59:59 +0000", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024  0:00:00 UTC", Some(1_709_251_200)),
            ("Wed, 29 Feb 2023 00:00:00 UTC", None),
            ("Sun, 31 Apr 2023 00:00:00 UTC", None),
            ("Thu, 01 Jan 1970 24:00:00 UTC", None),
            ("Thu, 01 Jan 1970 00:00:00 CET", None),
            ("Thu, 01 Jan 1970 00:00:00", None),
            ("01 Jan 1970 00:00:00 UTC", None),
            ("Thu, 01 Jan 99999 00:00:00 UTC", None),
            ("", None),
        ] {
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }

    #[test]
    fn components_are_folders_with_an_index_of_the_architecture() {
        for (path, expected) in [
            ("main/binary-amd64/Packages.xz", Some("main")),
            ("non-free/binary-amd64/Packages", Some("non-free")),
            ("main/binary-amd64/Release", None),
            ("main/binary-amd64/Packages.bz2", None),
            ("main/binary-arm64/Packages.xz", None),
            // Packages of the installer are none of a component's.
            ("main/debian-installer/binary-amd64/Packages.xz", None),
            ("main/source/Sources.xz", None),
        ] {
            assert_eq!(component(path, "amd64"), expected, "{path}");
        }
    }

    #[test]
    fn files_are_below_the_suite_and_listed_once() {
        let digest = "0".repeat(64);
        let good = format!("\n {digest}   12 main/a\n {digest} 0 b\n {digest} 0 b");
        assert_eq!(parse_files(&good).expect("a list").len(), 2);
        for bad in ["x 1 a", "DIGEST 1", "DIGEST 1 ../a", "DIGEST 1 a b", "DIGEST -1 a", "DIGEST 1 a\n DIGEST 2 a"] {
            let bad = bad.replace("DIGEST", &digest);
            assert!(matches!(parse_files(&bad), Err(ReleaseError::Field { field: "SHA256", .. })), "{bad}");
        }
    }
}
