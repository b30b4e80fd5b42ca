//! A repository's `config`: sections, subsections, values.
//!
//! Source: git-config(1), "Syntax". `include` and `includeIf` are not followed.

use std::collections::BTreeMap;

/// Why a config file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a section or a setting")]
pub struct ConfigError {
    /// From 1.
    pub line: usize,
}

/// The settings of a file. Of those that are given more than once, the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<(String, Vec<u8>, String), Vec<u8>>,
}

impl Config {
    /// Parses a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the line that git would refuse as well.
    pub fn parse(text: &[u8]) -> Result<Self, ConfigError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut parser = Parser { text, at: 0, line: 1 };
        let mut section: Option<(String, Vec<u8>)> = None;
        let mut values = BTreeMap::new();
        loop {
            parser.skip_space();
            match parser.peek() {
                None => return Ok(Self { values }),
                Some(b'\n') => parser.advance(),
                Some(b'#' | b';') => parser.skip_line(),
                Some(b'[') => section = Some(parser.section()?),
                Some(byte) if byte.is_ascii_alphabetic() => {
                    let (name, value) = parser.setting()?;
                    let (section, subsection) = section.clone().ok_or(ConfigError { line: parser.line })?;
                    values.insert((section, subsection, name), value);
                }
                Some(_) => return Err(ConfigError { line: parser.line }),
            }
        }
    }

    /// The value of a setting of a section without subsection; names are in lower case. One without a value is `true`.
    #[must_use]
    pub fn get(&self, section: &str, name: &str) -> Option<&[u8]> {
        self.values.get(&(section.to_owned(), Vec::new(), name.to_owned())).map(Vec::as_slice)
    }

    /// The value as git takes it for a truth value; `None` when it is not set, or is none.
    #[must_use]
    pub fn is_true(&self, section: &str, name: &str) -> Option<bool> {
        match self.get(section, name)?.to_ascii_lowercase().as_slice() {
            b"true" | b"yes" | b"on" => Some(true),
            b"false" | b"no" | b"off" | b"" => Some(false),
            number => std::str::from_utf8(number).ok()?.parse::<i64>().ok().map(|number| number != 0),
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        match self.text.get(self.at..)? {
            // A carriage return before the end of a line is not part of it.
            [b'\r', b'\n', ..] => Some(b'\n'),
            rest => rest.first().copied(),
        }
    }

    fn advance(&mut self) {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
            self.at += 1;
        }
        if self.text.get(self.at) == Some(&b'\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n' && byte.is_ascii_whitespace()) {
            self.advance();
        }
    }

    fn skip_line(&mut self) {
        while self.peek().is_some_and(|byte| byte != b'\n') {
            self.advance();
        }
    }

    fn wrong(&self) -> ConfigError {
        ConfigError { line: self.line }
    }

    fn word(&mut self, is_part: fn(u8) -> bool) -> String {
        let mut word = String::new();
        while let Some(byte) = self.peek().filter(|byte| is_part(*byte)) {
            word.push(char::from(byte.to_ascii_lowercase()));
            self.advance();
        }
        word
    }

    /// `[section]`, `[section "subsection"]` or `[section.subsection]`.
    fn section(&mut self) -> Result<(String, Vec<u8>), ConfigError> {
        self.advance();
        let name = self.word(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
        self.skip_space();
        let mut subsection = Vec::new();
        let name = match name.split_once('.') {
            Some((name, rest)) => {
                subsection = rest.as_bytes().to_vec();
                name.to_owned()
            }
            None => name,
        };
        if self.peek() == Some(b'"') {
            self.advance();
            loop {
                match self.peek() {
                    None | Some(b'\n') => return Err(self.wrong()),
                    Some(b'"') => break self.advance(),
                    Some(b'\\') => {
                        self.advance();
                        subsection.push(self.peek().filter(|byte| *byte != b'\n').ok_or(self.wrong())?);
                        self.advance();
                    }
                    Some(byte) => {
                        subsection.push(byte);
                        self.advance();
                    }
                }
            }
        }
        if self.peek() != Some(b']') || name.is_empty() {
            return Err(self.wrong());
        }
        self.advance();
        Ok((name, subsection))
    }

    fn setting(&mut self) -> Result<(String, Vec<u8>), ConfigError> {
        let name = self.word(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        self.skip_space();
        match self.peek() {
            Some(b'=') => self.advance(),
            None | Some(b'\n' | b'#' | b';') => {
                self.skip_line();
                return Ok((name, b"true".to_vec()));
            }
            Some(_) => return Err(self.wrong()),
        }
        self.skip_space();
        let mut value = Vec::new();
        // Space at the end is none of the value, but for what is quoted.
        let mut kept = 0;
        let mut is_quoted = false;
        loop {
            match self.peek() {
                None | Some(b'\n') if is_quoted => return Err(self.wrong()),
                None | Some(b'\n') => break,
                Some(b'#' | b';') if !is_quoted => {
                    self.skip_line();
                    break;
                }
                Some(b'"') => {
                    is_quoted = !is_quoted;
                    kept = value.len();
                    self.advance();
                }
                Some(b'\\') => {
                    self.advance();
                    match self.peek() {
                        Some(b'\n') => {}
                        Some(b'n') => value.push(b'\n'),
                        Some(b't') => value.push(b'\t'),
                        Some(b'b') => value.push(8),
                        Some(byte @ (b'"' | b'\\')) => value.push(byte),
                        _ => return Err(self.wrong()),
                    }
                    kept = value.len();
                    self.advance();
                }
                Some(byte) => {
                    value.push(byte);
                    if is_quoted || !byte.is_ascii_whitespace() {
                        kept = value.len();
                    }
                    self.advance();
                }
            }
        }
        value.truncate(kept);
        Ok((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_git_reads_them() {
        let text =
            b"\xef\xbb\xbf# c\n[core]\n\tautocrlf = input ; c\r\n\tBare\n eol=\"cr\"lf\n[Remote \"a \\\"b\"] url = x\n\
            [core] path = a\\\n  b \"c # \" # d\n[extensions]\nobjectFormat = sha256\n[old.sub]\nk = 1\n";
        let config = Config::parse(text).expect("it is one");
        assert_eq!(config.get("core", "autocrlf"), Some(&b"input"[..]));
        assert_eq!(config.get("core", "eol"), Some(&b"crlf"[..]));
        assert_eq!(config.get("core", "path"), Some(&b"a  b c # "[..]));
        assert_eq!(config.is_true("core", "bare"), Some(true));
        assert_eq!(config.is_true("core", "autocrlf"), None);
        assert_eq!(config.get("extensions", "objectformat"), Some(&b"sha256"[..]));
        assert_eq!(config.get("remote", "url"), None);
    }

    #[test]
    fn what_is_no_config_is_named_with_its_line() {
        for (text, line) in
            [("\nx = 1", 2), ("[core\n", 1), ("[a]\nb c\n", 2), ("[a]\nb = \"c\n", 2), ("[a]\nb = \\q", 2), ("[]", 1)]
        {
            assert_eq!(Config::parse(text.as_bytes()), Err(ConfigError { line }), "{text:?}");
        }
    }
}
