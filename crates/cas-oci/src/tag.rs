//! Tags, by what people expect of them.

/// Shortest abbreviation of a commit that git prints.
const LEAST_COMMIT_DIGITS: usize = 7;
/// Digits of a commit in SHA-256.
const MOST_COMMIT_DIGITS: usize = 64;

/// What people expect of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TagClass {
    /// A whole version, as `1.2.3`, `v1.2.3` or `1.2.3-rc.1`: it never names anything else.
    Version,
    /// A commit or a digest, as `4f2a9c1`, `sha-4f2a9c1`: the same.
    Commit,
    /// Anything else, as `1.2`, `stable` or `latest`: it moves when somebody says so.
    Moving,
}

impl TagClass {
    /// The class of a tag.
    #[must_use]
    pub fn of(tag: &str) -> Self {
        if is_version(tag) {
            Self::Version
        } else if is_commit(tag.strip_prefix("sha-").or_else(|| tag.strip_prefix("git-")).unwrap_or(tag)) {
            Self::Commit
        } else {
            Self::Moving
        }
    }

    /// How messages call tags of it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Version => "versions",
            Self::Commit => "commits",
            Self::Moving => "other tags",
        }
    }
}

/// Semantic Versioning 2.0.0 without build metadata, which no tag can have, and with a `v` as many write it.
fn is_version(tag: &str) -> bool {
    let text = tag.strip_prefix('v').unwrap_or(tag);
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (text, None),
    };
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_identifier = |part: &str| {
        let is_fine = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_fine && (is_number(part) || !part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_identifier))
}

/// Hexadecimal digits with a letter among them or as many as a whole commit has: a date is not one.
fn is_commit(text: &str) -> bool {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let has_letter = text.bytes().any(|byte| byte.is_ascii_lowercase());
    is_hex && (LEAST_COMMIT_DIGITS..=MOST_COMMIT_DIGITS).contains(&text.len()) && (has_letter || text.len() >= 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_apart() {
        let whole = "4f2a9c14f2a9c14f2a9c14f2a9c14f2a9c14f2a9";
        for (tag, expected) in [
            ("1.2.3", TagClass::Version),
            ("v1.2.3", TagClass::Version),
            ("0.0.0", TagClass::Version),
            ("1.2.3-rc.1", TagClass::Version),
            ("1.2.3-alpine", TagClass::Version),
            ("1.2.3-0.3.7-x", TagClass::Version),
            ("1.2", TagClass::Moving),
            ("1", TagClass::Moving),
            ("01.2.3", TagClass::Moving),
            ("1.2.3-", TagClass::Moving),
            ("1.2.3-01", TagClass::Moving),
            ("1.2.3.4", TagClass::Moving),
            ("vv1.2.3", TagClass::Moving),
            ("latest", TagClass::Moving),
            ("4f2a9c1", TagClass::Commit),
            (whole, TagClass::Commit),
            ("sha-4f2a9c1", TagClass::Commit),
            ("git-4f2a9c1", TagClass::Commit),
            ("4f2a9c", TagClass::Moving),
            ("20261127", TagClass::Moving),
            ("4F2A9C1", TagClass::Moving),
            ("deadbeefs", TagClass::Moving),
        ] {
            assert_eq!(TagClass::of(tag), expected, "{tag}");
        }
    }
}
