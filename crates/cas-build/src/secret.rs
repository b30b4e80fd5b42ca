//! Secrets of steps: where their values come from, and that they stay nowhere. Rules: docs/formats/secrets.md.
//!
//! A value is shown to the step in memory alone. What the step prints passes a [`Redactor`] before anything is kept of it,
//! and what it leaves is looked through with the same [`Finder`]. Neither can find what a program encrypted or compressed.
//!
//! Not here: files in memory (`cas-sandbox`), and secrets that somebody wrote into the workspace itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use cas_sandbox::{MAX_SECRET_BYTES, Secret};

use crate::BuildError;

/// Shorter values are refused: they would be found everywhere, and whoever sees the gaps could guess them.
pub const MIN_SECRET_BYTES: usize = 6;
/// What stands in a log for a secret.
const MARK: &[u8] = b"***";
/// Bytes that are not letters, digits, `-`, `.`, `_` or `~`, which URLs carry as they are (RFC 3986, 2.3).
const UNRESERVED: &[u8] = b"-._~";
/// What JavaScript's `encodeURIComponent` leaves beside them.
const UNRESERVED_BY_SCRIPTS: &[u8] = b"-._~!'()*";

/// Where values of secrets come from: files that were named, else variables of whoever builds.
#[derive(Clone, Default)]
pub struct SecretSources {
    /// Files by the secret's name.
    pub files: BTreeMap<String, PathBuf>,
}

impl fmt::Debug for SecretSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

impl SecretSources {
    /// The values of some secrets.
    ///
    /// # Errors
    ///
    /// [`BuildError::SecretMissing`], [`BuildError::SecretSize`]; a named file that cannot be read.
    pub(crate) fn values(
        &self,
        label: &str,
        names: &[Box<str>],
        variables: &BTreeMap<String, String>,
    ) -> Result<Vec<Secret>, BuildError> {
        let mut secrets = Vec::new();
        for name in names {
            let content = match (self.files.get(&**name), variables.get(&**name)) {
                (Some(path), _) => cas_fs::read_limited(path, MAX_SECRET_BYTES as u64)?,
                (None, Some(value)) => value.clone().into_bytes(),
                (None, None) => {
                    return Err(BuildError::SecretMissing { label: label.to_owned(), name: name.to_string() });
                }
            };
            if trimmed(&content).len() < MIN_SECRET_BYTES || content.len() > MAX_SECRET_BYTES {
                return Err(BuildError::SecretSize { label: label.to_owned(), name: name.to_string() });
            }
            secrets.push(Secret { name: name.to_string(), content });
        }
        Ok(secrets)
    }
}

/// Files often end with a line break that is no part of the value.
fn trimmed(content: &[u8]) -> &[u8] {
    content.trim_ascii()
}

/// Finds secrets in bytes, also as text of base64, hexadecimal digits, URLs and JSON, and over line breaks.
#[derive(Clone)]
pub(crate) struct Finder {
    patterns: Arc<AhoCorasick>,
    /// Name of the secret of each pattern.
    names: Arc<[String]>,
    longest: usize,
}

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names.iter().collect::<BTreeSet<_>>()).finish()
    }
}

impl Finder {
    /// One for these secrets; `None` for none.
    pub(crate) fn new(secrets: &[Secret]) -> Option<Self> {
        let (mut patterns, mut names) = (Vec::new(), Vec::new());
        for secret in secrets {
            for form in forms(&secret.content) {
                patterns.push(form);
                names.push(secret.name.clone());
            }
        }
        let longest = patterns.iter().map(Vec::len).max()?;
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(patterns)
            .expect("secrets are far shorter than what the automaton can hold");
        Some(Self { patterns: Arc::new(automaton), names: names.into(), longest })
    }

    /// The name of a secret that is in the bytes.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<&str> {
        let (text, _) = without_breaks(bytes);
        self.patterns.find(&text).map(|found| &*self.names[found.pattern().as_usize()])
    }

    /// The name of a secret that is in a file.
    pub(crate) fn find_in(&self, mut source: impl Read) -> io::Result<Option<&str>> {
        let mut kept = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            kept.extend(buffer[..count].iter().filter(|byte| !is_break(**byte)));
            if let Some(found) = self.patterns.find(&kept) {
                return Ok(Some(&self.names[found.pattern().as_usize()]));
            }
            // The beginning of one may be at the end.
            kept.drain(..kept.len().saturating_sub(self.longest - 1));
        }
    }
}

const fn is_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Bytes without line breaks, and where each was. Base64 is wrapped, and keys have several lines.
fn without_breaks(bytes: &[u8]) -> (Vec<u8>, Vec<usize>) {
    bytes.iter().enumerate().filter(|(_, byte)| !is_break(**byte)).map(|(at, byte)| (*byte, at)).unzip()
}

/// How a value may look, without line breaks.
fn forms(content: &[u8]) -> BTreeSet<Vec<u8>> {
    let whole = trimmed(content);
    let lines = whole.split(|byte| is_break(*byte)).map(trimmed);
    let parts: BTreeSet<&[u8]> = lines.filter(|line| line.len() >= MIN_SECRET_BYTES).chain([content, whole]).collect();
    let mut forms = BTreeSet::new();
    for part in parts {
        forms.insert(part.to_vec());
        forms.insert(hex(part, b"0123456789abcdef"));
        forms.insert(hex(part, b"0123456789ABCDEF"));
        for skipped in 0..3 {
            forms.extend(base64_inside(part, skipped, &STANDARD_NO_PAD));
            forms.extend(base64_inside(part, skipped, &URL_SAFE_NO_PAD));
        }
        for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
            for plain in [UNRESERVED, UNRESERVED_BY_SCRIPTS] {
                forms.insert(in_url(part, digits, plain, b"%20"));
                forms.insert(in_url(part, digits, plain, b"+"));
            }
        }
        let text = serde_json::Value::from(String::from_utf8_lossy(part)).to_string();
        forms.insert(text.trim_matches('"').as_bytes().to_vec());
    }
    let bare = forms.into_iter().map(|form| without_breaks(&form).0);
    bare.filter(|form| form.len() >= MIN_SECRET_BYTES).collect()
}

fn hex(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

/// The letters that base64 has for a value behind so many bytes more than a multiple of three: whatever follows, and at the
/// end of the text, where its last letter is the value's too.
fn base64_inside(value: &[u8], bytes_before: usize, engine: &impl Engine) -> [Vec<u8>; 2] {
    let mut bytes = vec![0; bytes_before];
    bytes.extend_from_slice(value);
    let text = engine.encode(&bytes).into_bytes();
    let first = (bytes_before * 8).div_ceil(6);
    let end = (bytes.len() * 8 / 6).max(first);
    [text[first..end].to_vec(), text[first..].to_vec()]
}

fn in_url(bytes: &[u8], digits: &[u8; 16], plain: &[u8], space: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            b' ' => text.extend_from_slice(space),
            byte if byte.is_ascii_alphanumeric() || plain.contains(byte) => text.push(*byte),
            byte => text.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    text
}

/// Takes secrets out of what a program prints, however it is cut into pieces.
#[derive(Debug)]
pub(crate) struct Redactor {
    finder: Finder,
    /// What is not given on yet, because a secret may have begun in it.
    waiting: Vec<u8>,
    /// Which bytes of it belong to one.
    hidden: Vec<bool>,
    was_hidden: bool,
}

impl Redactor {
    pub(crate) const fn new(finder: Finder) -> Self {
        Self { finder, waiting: Vec::new(), hidden: Vec::new(), was_hidden: false }
    }

    /// Takes a piece, and adds to `clean` what is safe by now.
    pub(crate) fn push(&mut self, piece: &[u8], clean: &mut Vec<u8>) {
        self.waiting.extend_from_slice(piece);
        self.hidden.resize(self.waiting.len(), false);
        let (text, places) = without_breaks(&self.waiting);
        for found in self.finder.patterns.find_overlapping_iter(&text) {
            self.hidden[places[found.start()]..=places[found.end() - 1]].fill(true);
        }
        // Whatever begins before this place ends in what is here.
        let safe = text.len().saturating_sub(self.finder.longest - 1);
        let safe = places.get(safe).copied().unwrap_or(self.waiting.len());
        self.give(safe, clean);
    }

    /// What was left at the end.
    pub(crate) fn finish(mut self, clean: &mut Vec<u8>) {
        self.give(self.waiting.len(), clean);
    }

    fn give(&mut self, count: usize, clean: &mut Vec<u8>) {
        for (byte, is_hidden) in self.waiting.drain(..count).zip(self.hidden.drain(..count)) {
            if !is_hidden {
                clean.push(byte);
            } else if !self.was_hidden {
                clean.extend_from_slice(MARK);
            }
            self.was_hidden = is_hidden;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "s3cr3t/T0ken+with \"odd\" parts";

    fn finder(value: &[u8]) -> Finder {
        Finder::new(&[Secret { name: "TOKEN".to_owned(), content: value.to_vec() }]).expect("there is one")
    }

    fn redacted(finder: &Finder, text: &[u8], piece: usize) -> String {
        let (mut redactor, mut clean) = (Redactor::new(finder.clone()), Vec::new());
        for piece in text.chunks(piece) {
            redactor.push(piece, &mut clean);
        }
        redactor.finish(&mut clean);
        String::from_utf8_lossy(&clean).into_owned()
    }

    /// Each form alone, in whatever pieces it is printed.
    #[test]
    fn whatever_a_secret_looks_like_it_is_not_printed() {
        let finder = finder(VALUE.as_bytes());
        let encoded = |text: &str| STANDARD_NO_PAD.encode(text);
        for text in [
            VALUE.to_owned(),
            encoded(VALUE),
            URL_SAFE_NO_PAD.encode(VALUE),
            "s3cr3t%2FT0ken%2Bwith%20%22odd%22%20parts".to_owned(),
            "s3cr3t%2fT0ken%2bwith+%22odd%22+parts".to_owned(),
            "s3cr3t/T0ken+with \\\"odd\\\" parts".to_owned(),
            VALUE.bytes().map(|byte| format!("{byte:02x}")).collect(),
            VALUE.bytes().map(|byte| format!("{byte:02X}")).collect(),
            "s3cr3t/T0k\nen+with \"odd\"\r\n parts".to_owned(),
        ] {
            for piece in [1, 7, 1 << 20] {
                assert_eq!(redacted(&finder, format!("a {text} b").as_bytes(), piece), "a *** b", "{text} by {piece}");
            }
            assert_eq!(finder.find(format!("x{text}y").as_bytes()), Some("TOKEN"), "{text}");
            assert_eq!(finder.find_in(format!("x{text}y").as_bytes()).expect("it is in memory"), Some("TOKEN"));
        }
        // In the middle of something else, base64 has other letters: only those of the edges are left.
        for before in ["", "u", "us", "use"] {
            let shown = redacted(&finder, encoded(&format!("{before}{VALUE}:more")).as_bytes(), 3);
            assert!(shown.contains("***") && shown.len() < 16, "{before}: {shown}");
        }
        let plain = "nothing of it: s3cr3t/T0ken, S3CR3T\n\n";
        assert_eq!(redacted(&finder, plain.as_bytes(), 5), plain);
        assert_eq!(finder.find(plain.as_bytes()), None);
    }

    #[test]
    fn lines_of_a_key_and_secrets_that_overlap_are_found() {
        let key = "-----BEGIN KEY-----\nAAAAbbbbCCCC\nddddEEEEffff\n-----END KEY-----\n";
        let finder = finder(key.as_bytes());
        assert_eq!(redacted(&finder, b"one line: ddddEEEEffff.", 4), "one line: ***.");
        let secrets = ["abcdefgh", "fghijklm", "abcdefghXYZ"]
            .map(|value| Secret { name: value.to_uppercase(), content: value.as_bytes().to_vec() });
        let finder = Finder::new(&secrets).expect("there are some");
        for piece in [1, 3, 100] {
            assert_eq!(redacted(&finder, b"<abcdefghijklm><abcdefghXYZ>", piece), "<***><***>");
        }
    }

    #[test]
    fn values_come_from_files_before_variables_and_have_a_size() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let file = home.path().join("token");
        cas_fs::write(&file, b"from-the-file\n").expect("the folder is ours");
        let sources = SecretSources { files: BTreeMap::from([("A".to_owned(), file)]) };
        let variables: BTreeMap<String, String> =
            [("A", "from-a-variable"), ("B", "variable"), ("C", "short"), ("D", "  12345\n")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        let of = |name: &str| sources.values("//:x", &[name.into()], &variables);
        assert_eq!(of("A").expect("it is there")[0].content, b"from-the-file\n");
        assert_eq!(of("B").expect("it is there")[0].content, b"variable");
        for name in ["C", "D"] {
            assert!(matches!(of(name), Err(BuildError::SecretSize { .. })), "{name}");
        }
        assert!(matches!(of("E"), Err(BuildError::SecretMissing { .. })));
        assert!(!format!("{:?} {:?}", of("B"), finder(b"variable")).contains("variable"), "it shows nowhere");
    }
}
