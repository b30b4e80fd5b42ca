//! Platforms, in Go's words: what an image runs on.
//!
//! OCI image-spec 1.1, image-index.md, "platform variants"; names of architectures as `go tool dist list` has them for linux.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Architectures of linux, each with the variants that have a name.
const ARCHITECTURES: [(&str, &[&str]); 13] = [
    ("386", &[]),
    ("amd64", &["v1", "v2", "v3", "v4"]),
    ("arm", &["v5", "v6", "v7", "v8"]),
    ("arm64", &["v8", "v9"]),
    ("loong64", &[]),
    ("mips", &[]),
    ("mips64", &[]),
    ("mips64le", &[]),
    ("mipsle", &[]),
    ("ppc64", &[]),
    ("ppc64le", &[]),
    ("riscv64", &[]),
    ("s390x", &[]),
];

/// Longest word of a platform.
const MAX_WORD_BYTES: usize = 64;

/// How well an image fits a machine that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fitness {
    /// It is made for a lower variant.
    Lower((u32, u32)),
    /// It is made for this one.
    Same,
}

/// A platform, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct TargetPlatform {
    /// Like `linux`.
    pub os: String,
    /// Like `amd64`.
    pub architecture: String,
    /// Like `v8`.
    #[serde(default, deserialize_with = "crate::document::null_is_default")]
    pub variant: String,
}

/// Why a text is no platform that images are made for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePlatformError {
    /// It has another form.
    #[error("`{0}` is not a platform")]
    Form(String),
    /// The system is not linux.
    #[error("images are made for linux, and not for `{0}`")]
    System(String),
    /// Nobody has such a machine.
    #[error("unknown architecture `{0}`")]
    Architecture(String),
    /// There is no such variant.
    #[error("unknown variant `{variant}` of `{architecture}`")]
    Variant {
        /// The architecture.
        architecture: String,
        /// What it is to be of it.
        variant: String,
    },
}

impl ParsePlatformError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Form(_) | Self::System(_) => "write `linux/amd64`, or `linux/arm64/v8`".to_owned(),
            Self::Architecture(_) => {
                let known: Vec<&str> = ARCHITECTURES.iter().map(|(name, _)| *name).collect();
                format!("known: {}", known.join(", "))
            }
            Self::Variant { architecture, .. } => {
                let known = ARCHITECTURES.iter().find(|(name, _)| name == architecture);
                match known.map(|(_, variants)| variants.join(", ")).filter(|known| !known.is_empty()) {
                    Some(known) => format!("known: {known}"),
                    None => "write none".to_owned(),
                }
            }
        }
    }
}

impl TargetPlatform {
    /// The same with the variant that is meant where none is said, so that two texts for one platform are equal.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let variant = match (&*self.architecture, &*self.variant) {
            ("amd64", "") => "v1",
            ("arm", "") => "v7",
            ("arm64", "") => "v8",
            (_, own) => own,
        };
        Self { variant: variant.to_owned(), ..self.clone() }
    }

    /// Whether what is made for this platform runs on `wanted`: variants count up, and each runs what is made for those below
    /// it. `None` where it does not; of those that do, the greatest fits best. Other variants than `v` with a number are only
    /// like themselves.
    pub(crate) fn fitness(&self, wanted: &Self) -> Option<Fitness> {
        if (&self.os, &self.architecture) != (&wanted.os, &wanted.architecture) {
            return None;
        }
        let (own, wanted) = (self.normalized().variant, wanted.normalized().variant);
        if own == wanted {
            return Some(Fitness::Same);
        }
        match (level(&own), level(&wanted)) {
            (Some(own), Some(wanted)) if own < wanted => Some(Fitness::Lower(own)),
            // What every machine of the architecture runs.
            (None, _) if own.is_empty() => Some(Fitness::Lower((0, 0))),
            _ => None,
        }
    }

    /// Whether an image whose configuration says this runs where one for `wanted` is asked for. Configurations often leave the
    /// variant to the index that names the image, so none is none of the wrong ones.
    #[must_use]
    pub fn runs_where(&self, wanted: &Self) -> bool {
        match self.variant.is_empty() {
            true => (&self.os, &self.architecture) == (&wanted.os, &wanted.architecture),
            false => self.fitness(wanted).is_some(),
        }
    }

    /// Reads what [`Display`](fmt::Display) writes, whatever the words are.
    #[must_use]
    pub fn from_words(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, '/').map(str::to_owned);
        let (os, architecture) = (words.next()?, words.next()?);
        Some(Self { os, architecture, variant: words.next().unwrap_or_default() })
    }

    /// Whether each of its words can be one: letters, digits, dots, dashes and underscores; only the variant may be empty.
    pub(crate) fn is_plain(&self) -> bool {
        let is_word = |text: &str| {
            text.len() <= MAX_WORD_BYTES
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        !self.os.is_empty()
            && !self.architecture.is_empty()
            && [&self.os, &self.architecture, &self.variant].into_iter().all(|text| is_word(text))
    }
}

/// The number of a variant: `v8`, or `v8.2`.
fn level(variant: &str) -> Option<(u32, u32)> {
    let digits = variant.strip_prefix('v')?;
    let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some((number(major)?, number(minor)?))
}

impl fmt::Display for TargetPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for TargetPlatform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, ParsePlatformError> {
        let form = || ParsePlatformError::Form(text.to_owned());
        let (os, rest) = text.split_once('/').ok_or_else(form)?;
        let (architecture, variant) =
            rest.split_once('/').map_or((rest, None), |(name, variant)| (name, Some(variant)));
        if os.is_empty() || architecture.is_empty() || variant.is_some_and(|text| text.is_empty() || text.contains('/'))
        {
            return Err(form());
        }
        if os != "linux" {
            return Err(ParsePlatformError::System(os.to_owned()));
        }
        let known = ARCHITECTURES.iter().find(|(name, _)| *name == architecture);
        let (_, variants) = known.ok_or_else(|| ParsePlatformError::Architecture(architecture.to_owned()))?;
        let (architecture, variant) = (architecture.to_owned(), variant.unwrap_or_default().to_owned());
        if !variant.is_empty() && !variants.contains(&&*variant) {
            return Err(ParsePlatformError::Variant { architecture, variant });
        }
        Ok(Self { os: os.to_owned(), architecture, variant })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_those_of_a_table() {
        for text in ["linux/amd64", "linux/arm64", "linux/arm64/v8", "linux/arm/v6", "linux/s390x", "linux/amd64/v3"] {
            assert_eq!(text.parse::<TargetPlatform>().expect(text).to_string(), text);
        }
        for (text, message, hint) in [
            ("amd64", "`amd64` is not a platform", "write `linux/amd64`, or `linux/arm64/v8`"),
            ("linux/", "`linux/` is not a platform", "write `linux/amd64`, or `linux/arm64/v8`"),
            ("linux/arm64/", "`linux/arm64/` is not a platform", "write `linux/amd64`, or `linux/arm64/v8`"),
            ("linux/arm/v7/x", "`linux/arm/v7/x` is not a platform", "write `linux/amd64`, or `linux/arm64/v8`"),
            (
                "windows/amd64",
                "images are made for linux, and not for `windows`",
                "write `linux/amd64`, or `linux/arm64/v8`",
            ),
            ("linux/arm64/v7", "unknown variant `v7` of `arm64`", "known: v8, v9"),
            ("linux/s390x/v1", "unknown variant `v1` of `s390x`", "write none"),
        ] {
            let error = text.parse::<TargetPlatform>().expect_err(text);
            assert_eq!((error.to_string().as_str(), error.hint().as_str()), (message, hint));
        }
        let error = "linux/x86_64".parse::<TargetPlatform>().expect_err("that is not Go's word");
        assert_eq!(error.to_string(), "unknown architecture `x86_64`");
        assert!(error.hint().starts_with("known: 386, amd64, arm,"));
        let same = |one: &str, other: &str| {
            let normalized = |text: &str| text.parse::<TargetPlatform>().expect(text).normalized();
            normalized(one) == normalized(other)
        };
        assert!(same("linux/arm64", "linux/arm64/v8") && same("linux/arm", "linux/arm/v7"));
        assert!(!same("linux/arm/v6", "linux/arm"));
    }
}
