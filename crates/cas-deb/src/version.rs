//! Versions and their order: deb-version(7).
//!
//! Two versions can be equal and read differently (`1.0` and `1.0-0`), so equality is that of the order, and a version
//! keeps its text.

use std::cmp::Ordering;
use std::fmt;

/// Why a text is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version: {problem}")]
pub struct ParseVersionError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub problem: VersionProblem,
}

/// What is wrong with the text of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionProblem {
    /// There is nothing before the revision, or nothing at all.
    Empty,
    /// The epoch is not a number below 2³¹.
    Epoch,
    /// A hyphen is the last character.
    EmptyRevision,
    /// A character other than letters, digits and `.+~`, or `-` and `:` at their places.
    Character(char),
}

impl fmt::Display for VersionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::Epoch => f.write_str("its epoch is not a number"),
            Self::EmptyRevision => f.write_str("its revision is empty"),
            Self::Character(character) => write!(f, "it holds {character:?}"),
        }
    }
}

/// A version of a package: epoch, upstream version and revision.
#[derive(Clone)]
pub struct Version {
    text: Box<str>,
}

impl Version {
    /// Parses `[epoch:]upstream[-revision]`.
    ///
    /// # Errors
    ///
    /// [`ParseVersionError`]
    pub fn parse(text: &str) -> Result<Self, ParseVersionError> {
        let fail = |problem| Err(ParseVersionError { text: text.to_owned(), problem });
        let rest = match text.split_once(':') {
            None => text,
            Some((epoch, rest)) => {
                // dpkg keeps it in a signed integer.
                if !epoch.bytes().all(|byte| byte.is_ascii_digit()) || epoch.parse::<i32>().is_err() {
                    return fail(VersionProblem::Epoch);
                }
                rest
            }
        };
        let (upstream, revision) = match rest.rsplit_once('-') {
            None => (rest, None),
            Some((upstream, revision)) => (upstream, Some(revision)),
        };
        if upstream.is_empty() {
            return fail(VersionProblem::Empty);
        }
        if revision == Some("") {
            return fail(VersionProblem::EmptyRevision);
        }
        let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '+' | '~');
        let odd = |part: &str, more: &[char]| part.chars().find(|c| !plain(*c) && !more.contains(c));
        if let Some(character) = odd(upstream, &['-', ':']).or_else(|| odd(revision.unwrap_or_default(), &[])) {
            return fail(VersionProblem::Character(character));
        }
        Ok(Self { text: text.into() })
    }

    /// The text that was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn parts(&self) -> (u32, &str, &str) {
        let (epoch, rest) = match self.text.split_once(':') {
            None => (0, &*self.text),
            Some((epoch, rest)) => (epoch.parse().unwrap_or_default(), rest),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
}

/// Compares upstream versions or revisions: alternately a run without digits and a number.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split_at_first(left, u8::is_ascii_digit);
        let (right_text, right_rest) = split_at_first(right, u8::is_ascii_digit);
        // The end of a run stands between `~` and everything else.
        for index in 0..left_text.len().max(right_text.len()) {
            match weight(left_text.get(index)).cmp(&weight(right_text.get(index))) {
                Ordering::Equal => {}
                different => return different,
            }
        }
        let (left_number, left_rest) = split_at_first(left_rest, |byte| !byte.is_ascii_digit());
        let (right_number, right_rest) = split_at_first(right_rest, |byte| !byte.is_ascii_digit());
        match compare_numbers(left_number, right_number) {
            Ordering::Equal => (left, right) = (left_rest, right_rest),
            different => return different,
        }
    }
    Ordering::Equal
}

fn split_at_first(bytes: &[u8], stop: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(stop).unwrap_or(bytes.len()))
}

/// `~` sorts before the end, the end before letters, letters before all else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Compares digits as numbers of any length. No digits count as zero.
fn compare_numbers(left: &[u8], right: &[u8]) -> Ordering {
    let (_, left) = split_at_first(left, |byte| *byte != b'0');
    let (_, right) = split_at_first(right, |byte| *byte != b'0');
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (left, right) = (self.parts(), other.parts());
        left.0.cmp(&right.0).then_with(|| compare_part(left.1, right.1)).then_with(|| compare_part(left.2, right.2))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).expect("a version")
    }

    /// Each line's answer is that of `dpkg --compare-versions` 1.21.
    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        use Ordering::*;
        for (left, right, expected) in [
            ("1.0", "1.0", Equal),
            ("1.0", "1.0-0", Equal),
            ("1.00", "1.0", Equal),
            ("0:1.0", "1.0", Equal),
            ("1.", "1.0", Equal),
            ("1.0", "1.0-1", Less),
            ("1.9", "1.10", Less),
            ("1.2.3", "1.2.3.1", Less),
            ("1.0~rc1", "1.0", Less),
            ("1.0~~", "1.0~~a", Less),
            ("1.0~~a", "1.0~", Less),
            ("1.0~", "1.0", Less),
            ("1.0", "1.0a", Less),
            ("1.0a", "1.0+", Less),
            ("1.0.", "1.0+", Greater),
            ("1.0-1~deb12u1", "1.0-1", Less),
            ("1.0-1+b1", "1.0-1", Greater),
            ("2.0", "1:0.1", Less),
            ("1:1.0", "2:0.1", Less),
            ("1.0-1-1", "1.0-2", Greater),
            ("9999999999999999999999", "10000000000000000000000", Less),
            ("1:2:3", "1:2.3", Greater),
            ("A", "a", Less),
        ] {
            assert_eq!(version(left).cmp(&version(right)), expected, "{left} {right}");
            assert_eq!(version(right).cmp(&version(left)), expected.reverse(), "{right} {left}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        use VersionProblem::*;
        for (text, problem) in [
            ("", Empty),
            ("-1", Empty),
            ("1:", Empty),
            ("x:1", Epoch),
            (":1", Epoch),
            ("2147483648:1", Epoch),
            ("1.0-", EmptyRevision),
            ("1.0 1", Character(' ')),
            ("1_0", Character('_')),
            ("1.0-a:b", Epoch),
            ("1:1.0-a:b", Character(':')),
            ("1.ö", Character('ö')),
        ] {
            assert_eq!(Version::parse(text).map_err(|error| error.problem), Err(problem), "{text:?}");
        }
    }
}
