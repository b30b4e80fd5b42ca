//! The digest itself: parse, print, compare.

use std::fmt;
use std::str::FromStr;

use crate::{DigestFunction, Hasher, UnknownFunction};

/// Length of the longest digest in bytes.
const MAX_LEN: usize = 64;

/// The name of some bytes: a function and the value it gave.
///
/// Printed and parsed as `function:lower-case-hex`, the form of the OCI image specification 1.1 (descriptor.md, Digests).
/// Ordered by function, then by value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    function: DigestFunction,
    /// The value, padded with zeros past the length of the function.
    bytes: [u8; MAX_LEN],
}

impl Digest {
    /// Hashes `bytes` with `function`.
    #[must_use]
    pub fn of(function: DigestFunction, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(function);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Takes the raw value of a digest that somebody else computed.
    ///
    /// # Errors
    ///
    /// [`ParseDigestError::Length`] when `value` is not as long as digests of `function` are.
    pub fn from_value(function: DigestFunction, value: &[u8]) -> Result<Self, ParseDigestError> {
        if value.len() != function.digest_len() {
            return Err(ParseDigestError::Length {
                function,
                expected: function.digest_len() * 2,
                actual: value.len() * 2,
            });
        }
        let mut bytes = [0; MAX_LEN];
        bytes[..value.len()].copy_from_slice(value);
        Ok(Self { function, bytes })
    }

    /// Parses the hex digits of a digest whose function is known from elsewhere.
    ///
    /// # Errors
    ///
    /// As for parsing a whole digest.
    pub fn from_hex(function: DigestFunction, digits: &str) -> Result<Self, ParseDigestError> {
        let expected = function.digest_len() * 2;
        if digits.len() != expected {
            return Err(ParseDigestError::Length { function, expected, actual: digits.len() });
        }
        if digits.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseDigestError::Digit);
        }
        let mut bytes = [0; MAX_LEN];
        hex::decode_to_slice(digits, &mut bytes[..function.digest_len()]).map_err(|_| ParseDigestError::Digit)?;
        Ok(Self { function, bytes })
    }

    /// The function that gave the value.
    #[must_use]
    pub const fn function(&self) -> DigestFunction {
        self.function
    }

    /// The value, as long as the function's digests are.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.bytes[..self.function.digest_len()]
    }

    /// The value as lower-case hex, without the function.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.with_hex(str::to_owned)
    }

    /// Names are made of digests by the thousand, so the digits are put together without going to the heap.
    fn with_hex<T>(&self, take: impl FnOnce(&str) -> T) -> T {
        let value = self.value();
        let mut digits = [0; 2 * MAX_LEN];
        let digits = &mut digits[..2 * value.len()];
        hex::encode_to_slice(value, digits).expect("there are two digits for each byte");
        take(std::str::from_utf8(digits).expect("digits are ASCII"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_hex(|digits| write!(f, "{}:{digits}", self.function))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// There is no colon between a function and a value.
    #[error("digest has no `function:` before its value")]
    NoFunction,
    /// The function is not known.
    #[error(transparent)]
    Function(#[from] UnknownFunction),
    /// The value is too short or too long for the function.
    #[error("a `{function}` digest has {expected} hex digits, not {actual}")]
    Length {
        /// The function named.
        function: DigestFunction,
        /// Digits that its digests have.
        expected: usize,
        /// Digits that were given.
        actual: usize,
    },
    /// Something else than `0-9a-f` stands in the value.
    #[error("digest holds a character that is not a lower-case hex digit")]
    Digit,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (function, digits) = text.split_once(':').ok_or(ParseDigestError::NoFunction)?;
        Self::from_hex(function.parse()?, digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_published_vectors() {
        for (function, input, expected) in [
            (DigestFunction::Sha256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (DigestFunction::Sha256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (DigestFunction::Blake3, "", "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
            (DigestFunction::Sha1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ] {
            assert_eq!(Digest::of(function, input.as_bytes()).to_hex(), expected, "{function} of {input:?}");
        }
    }

    #[test]
    fn text_round_trips() {
        for function in DigestFunction::ALL {
            let digest = Digest::of(function, b"round trip");
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }

    #[test]
    fn parsing_refuses_what_is_not_canonical() {
        let upper = format!("sha256:{}", "A".repeat(64));
        for (text, expected) in [
            ("", ParseDigestError::NoFunction),
            ("ba78", ParseDigestError::NoFunction),
            ("md5:00", ParseDigestError::Function(UnknownFunction { name: "md5".into() })),
            ("sha256:00", ParseDigestError::Length { function: DigestFunction::Sha256, expected: 64, actual: 2 }),
            (upper.as_str(), ParseDigestError::Digit),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text:?}");
        }
    }
}
