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
                (Some(path), _) => cas_fs::read_stream_limited(path, MAX_SECRET_BYTES as u64)?,
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

/// Finds secrets in bytes, also as base64 and hexadecimal digits, in URLs, JSON and web pages, and over line breaks.
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
        let views = [View::plain(bytes), View::decoded(bytes)];
        let found = views.iter().find_map(|view| self.patterns.find(&view.text));
        found.map(|found| &*self.names[found.pattern().as_usize()])
    }

    /// How much of the beginning of bytes that go on holds nothing that ends in what is still to come.
    fn safe(&self, bytes: &[u8]) -> usize {
        let safe = |view: &View, tail: usize| {
            let count = view.text.len().saturating_sub(self.longest - 1 + tail);
            view.places.get(count).map_or(bytes.len(), |(begin, _)| *begin)
        };
        // An escape may have begun at the end; then its letters were taken for themselves.
        safe(&View::plain(bytes), 0).min(safe(&View::decoded(bytes), MAX_ESCAPE_BYTES))
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
            kept.extend_from_slice(&buffer[..count]);
            if let Some(name) = self.find(&kept) {
                return Ok(Some(name));
            }
            // The beginning of one may be at the end.
            kept.drain(..self.safe(&kept));
        }
    }
}

const fn is_break(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// How a value may look in a [`View`], without line breaks.
fn forms(content: &[u8]) -> BTreeSet<Vec<u8>> {
    let whole = trimmed(content);
    let lines = whole.split(|byte| is_break(*byte)).map(trimmed);
    let parts: BTreeSet<&[u8]> = lines.filter(|line| line.len() >= MIN_SECRET_BYTES).chain([content, whole]).collect();
    let mut forms = BTreeSet::new();
    for part in parts {
        forms.insert(part.to_vec());
        // As forms of web pages send it.
        forms.insert(part.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect());
        forms.insert(hex(part, b"0123456789abcdef"));
        forms.insert(hex(part, b"0123456789ABCDEF"));
        for skipped in 0..3 {
            forms.extend(base64_inside(part, skipped, &STANDARD_NO_PAD));
            forms.extend(base64_inside(part, skipped, &URL_SAFE_NO_PAD));
        }
    }
    let bare = forms.into_iter().map(|form| form.into_iter().filter(|byte| !is_break(*byte)).collect::<Vec<u8>>());
    bare.filter(|form| form.len() >= MIN_SECRET_BYTES).collect()
}

/// Bytes as somebody could read them, each with the place in the original where it begins and the one behind it.
#[derive(Default)]
struct View {
    text: Vec<u8>,
    places: Vec<(usize, usize)>,
}

impl View {
    fn add(&mut self, byte: u8, begin: usize, end: usize) {
        if !is_break(byte) {
            self.text.push(byte);
            self.places.push((begin, end));
        }
    }

    /// As it is, but for line breaks: base64 is wrapped, and keys have several lines.
    fn plain(bytes: &[u8]) -> Self {
        let mut view = Self::default();
        for (at, byte) in bytes.iter().enumerate() {
            view.add(*byte, at, at + 1);
        }
        view
    }

    /// With what URLs (`%2F`), JSON and programs (`\"`, `\u0026`) and web pages (`&amp;`, `&#38;`) write for a byte read as that
    /// byte. Whoever encodes chooses freely which ones to write so.
    fn decoded(bytes: &[u8]) -> Self {
        let mut view = Self::default();
        let mut at = 0;
        while at < bytes.len() {
            let (byte, length) = escaped(&bytes[at..]).unwrap_or((bytes[at], 1));
            view.add(byte, at, at + length);
            at += length;
        }
        view
    }
}

/// Longest way to write one byte.
const MAX_ESCAPE_BYTES: usize = 8;

/// The byte that an escape at the beginning stands for, and the escape's length.
fn escaped(bytes: &[u8]) -> Option<(u8, usize)> {
    let number = |digits: &[u8], radix| u8::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok();
    match bytes {
        [b'%', a, b, ..] => Some((number(&[*a, *b], 16)?, 3)),
        [b'\\', b'u', b'0', b'0', a, b, ..] => Some((number(&[*a, *b], 16)?, 6)),
        [b'\\', b'x', a, b, ..] => Some((number(&[*a, *b], 16)?, 4)),
        [b'\\', byte @ (b'"' | b'\'' | b'\\' | b'/'), ..] => Some((*byte, 2)),
        [b'&', rest @ ..] => {
            let end = rest.iter().take(MAX_ESCAPE_BYTES - 1).position(|byte| *byte == b';')?;
            let byte = match &rest[..end] {
                b"amp" => b'&',
                b"lt" => b'<',
                b"gt" => b'>',
                b"quot" => b'"',
                b"apos" => b'\'',
                [b'#', b'x' | b'X', digits @ ..] => number(digits, 16)?,
                [b'#', digits @ ..] => number(digits, 10)?,
                _ => return None,
            };
            Some((byte, end + 2))
        }
        _ => None,
    }
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
        for view in [View::plain(&self.waiting), View::decoded(&self.waiting)] {
            for found in self.finder.patterns.find_overlapping_iter(&view.text) {
                self.hidden[view.places[found.start()].0..view.places[found.end() - 1].1].fill(true);
            }
        }
        // Whatever begins before this place ends in what is here.
        self.give(self.finder.safe(&self.waiting), clean);
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

/// A text without some values, in whatever form they are in it. Values that are too short to be told from other text are left.
#[must_use]
pub fn redacted(text: &[u8], values: &[Vec<u8>]) -> Vec<u8> {
    let values = values.iter().filter(|value| trimmed(value).len() >= MIN_SECRET_BYTES);
    let secrets: Vec<Secret> = values.map(|value| Secret { name: String::new(), content: value.clone() }).collect();
    let Some(finder) = Finder::new(&secrets) else { return text.to_vec() };
    let (mut redactor, mut clean) = (Redactor::new(finder), Vec::new());
    redactor.push(text, &mut clean);
    redactor.finish(&mut clean);
    clean
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
            "s3cr3t/T0ken%2Bwith%20%22odd%22%20parts".to_owned(),
            "s3cr3t%2FT0ken+with+%22odd%22+parts".to_owned(),
            "%733cr3t/T0k\\u0065n+with &quot;odd&#34; part&#x73;".to_owned(),
            URL_SAFE_NO_PAD.encode(VALUE).replace('-', "%2D"),
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
