//! Base64 in its only form: padded, and without bits, blanks or line ends that do not count.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Writes the standard alphabet.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads either alphabet, but no mixture (DSSE 1.0.0, protocol.md: verifiers must accept either).
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_one_form_in_either_alphabet() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("+/8=", Some(b"\xfb\xff")),
            ("-_8=", Some(b"\xfb\xff")),
            ("_w==", Some(b"\xff")),
            ("YWJj", Some(b"abc")),
            ("+_8=", None),
            ("-/8=", None),
            ("YQ", None),
            ("YQ=", None),
            ("YR==", None), // bits past the end
            ("YQ==\n", None),
            ("YW Jj", None),
            ("YQ==YQ==", None),
            ("====", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text:?}");
        }
        assert_eq!(encode(b"\xfb\xff"), "+/8=");
    }
}
