//! JSON as tools of JavaScript read it, with comments and trailing commas, and with the place of every value.
//!
//! Places are what a report needs, and what no parser at hand gives. Nesting and size are limited; of two members with one
//! name the last one counts, as everywhere.

use crate::InitError;
use crate::note::Place;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// A value, and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number,
    String(String),
    Array(Vec<Value>),
    Object(Vec<Member>),
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) key_at: usize,
    pub(crate) value: Value,
}

impl Value {
    pub(crate) fn members(&self) -> &[Member] {
        if let Kind::Object(members) = &self.kind { members } else { &[] }
    }

    pub(crate) fn items(&self) -> &[Value] {
        if let Kind::Array(items) = &self.kind { items } else { &[] }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.members().iter().rev().find(|member| member.key == key).map(|member| &member.value)
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Kind::String(text) = &self.kind { Some(text) } else { None }
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        if let Kind::Bool(value) = self.kind { Some(value) } else { None }
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Every string in it, at any depth, in order.
    pub(crate) fn strings(&self) -> Vec<&str> {
        let mut strings = Vec::new();
        let mut open = vec![self];
        while let Some(value) = open.pop() {
            match &value.kind {
                Kind::String(text) => strings.push(text.as_str()),
                Kind::Array(items) => open.extend(items.iter().rev()),
                Kind::Object(members) => open.extend(members.iter().rev().map(|member| &member.value)),
                Kind::Null | Kind::Bool(_) | Kind::Number => {}
            }
        }
        strings
    }
}

/// A file of JSON.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) root: Value,
    text: String,
}

impl Document {
    pub(crate) fn parse(path: &str, text: String) -> Result<Self, InitError> {
        let mut parser = Parser { text: &text, at: 0 };
        match parser.document() {
            Ok(root) => Ok(Self { path: path.to_owned(), root, text }),
            Err(Fault { at, message }) => {
                let (line, column) = position(&text, at);
                Err(InitError::Syntax { path: path.to_owned(), line, column, message })
            }
        }
    }

    /// The place of a byte of the text.
    pub(crate) fn place(&self, at: usize) -> Place {
        let (line, column) = position(&self.text, at);
        Place { file: self.path.clone(), line, column }
    }
}

/// Line and column of a byte, both from 1, columns in characters.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.bytes().filter(|byte| *byte == b'\n').count() + 1, before[line_start..].chars().count() + 1)
}

struct Fault {
    at: usize,
    message: String,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn fault<T>(&self, message: impl Into<String>) -> Result<T, Fault> {
        Err(Fault { at: self.at, message: message.into() })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn document(&mut self) -> Result<Value, Fault> {
        if self.text.starts_with('\u{feff}') {
            self.at = '\u{feff}'.len_utf8();
        }
        let value = self.value(0)?;
        self.space()?;
        if self.at < self.text.len() { self.fault("nothing was expected after the value") } else { Ok(value) }
    }

    /// Passes over white space and comments.
    fn space(&mut self) -> Result<(), Fault> {
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            match rest {
                [b' ' | b'\t' | b'\n' | b'\r', ..] => self.at += 1,
                [b'/', b'/', ..] => self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
                [b'/', b'*', inside @ ..] => match inside.windows(2).position(|pair| pair == b"*/") {
                    Some(end) => self.at += end + 4,
                    None => return self.fault("the comment does not end"),
                },
                _ => return Ok(()),
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        self.space()?;
        if depth > MAX_DEPTH {
            return self.fault(format!("nested deeper than {MAX_DEPTH}"));
        }
        let at = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Kind::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => self.word()?,
            None => return self.fault("a value was expected, and the file ends"),
        };
        Ok(Value { at, kind })
    }

    fn word(&mut self) -> Result<Kind, Fault> {
        for (word, kind) in [("true", Kind::Bool(true)), ("false", Kind::Bool(false)), ("null", Kind::Null)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(kind);
            }
        }
        self.fault("a value was expected")
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        if self.text[self.at..self.at + end].parse::<f64>().is_err() {
            return self.fault("this is not a number");
        }
        self.at += end;
        Ok(Kind::Number)
    }

    fn array(&mut self, depth: usize) -> Result<Kind, Fault> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.space()?;
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(Kind::Array(items));
            }
            items.push(self.value(depth + 1)?);
            self.separator(b']', "`,` or `]`")?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Kind, Fault> {
        self.at += 1;
        let mut members = Vec::new();
        loop {
            self.space()?;
            let key_at = self.at;
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Kind::Object(members));
                }
                Some(b'"') => {}
                _ => return self.fault("a key in double quotes or `}` was expected"),
            }
            let key = self.string()?;
            self.space()?;
            if self.peek() != Some(b':') {
                return self.fault("`:` was expected");
            }
            self.at += 1;
            let value = self.value(depth + 1)?;
            members.push(Member { key, key_at, value });
            self.separator(b'}', "`,` or `}`")?;
        }
    }

    /// A comma, or the end, which stays.
    fn separator(&mut self, end: u8, expected: &str) -> Result<(), Fault> {
        self.space()?;
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(())
            }
            Some(byte) if byte == end => Ok(()),
            _ => self.fault(format!("{expected} was expected")),
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(end) = rest.find(['"', '\\', '\n', '\r']) else {
                return self.fault("the string does not end");
            };
            text.push_str(&rest[..end]);
            self.at += end;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => return self.fault("the string does not end in its line"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let letter = self.text.as_bytes().get(self.at + 1).copied();
        let plain = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return self.fault("this escape is not one of JSON's"),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, Fault> {
        let unit = |at: usize| -> Option<u32> {
            let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
            digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let Some(first) = unit(self.at) else { return self.fault("`\\u` needs four hexadecimal digits") };
        if let Some(single) = char::from_u32(first) {
            self.at += 6;
            return Ok(single);
        }
        let second = unit(self.at + 6).filter(|second| (0xDC00..0xE000).contains(second));
        let pair = match second {
            Some(second) if first < 0xDC00 => char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)),
            _ => None,
        };
        match pair {
            Some(pair) => {
                self.at += 12;
                Ok(pair)
            }
            None => self.fault("half of a surrogate pair"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_commas_and_escapes_are_read_with_places() {
        let text = "\u{feff}// a\n{ /* b */ \"x\": [1, -2.5e3, true, null, \"\\u00e9\\ud83d\\ude00\\n\",],\n  \"y\": {\"x\": 1},\n  \"y\": \"last\", }";
        let document = Document::parse("a.json", text.to_owned()).expect("it is right");
        assert_eq!(document.root.text("y"), Some("last"));
        assert_eq!(document.root.get("x").expect("it is there").items()[4].as_str(), Some("\u{e9}\u{1f600}\n"));
        assert_eq!(document.place(document.root.members()[1].key_at).to_string(), "a.json:3:3");
    }

    #[test]
    fn mistakes_are_told_with_their_places() {
        let deep = "[".repeat(100);
        for (text, line, column, message) in [
            ("", 1, 1, "a value was expected, and the file ends"),
            ("{\n  \"a\" 1}", 2, 7, "`:` was expected"),
            ("{\"a\": 1 \"b\": 2}", 1, 9, "`,` or `}` was expected"),
            ("[1 2]", 1, 4, "`,` or `]` was expected"),
            ("{a: 1}", 1, 2, "a key in double quotes or `}` was expected"),
            ("\"a\nb\"", 1, 3, "the string does not end in its line"),
            ("\"a", 1, 2, "the string does not end"),
            ("\"\\x\"", 1, 2, "this escape is not one of JSON's"),
            ("\"\\ud800\"", 1, 2, "half of a surrogate pair"),
            ("\"\\u12g4\"", 1, 2, "`\\u` needs four hexadecimal digits"),
            ("/* a", 1, 1, "the comment does not end"),
            ("1-2", 1, 1, "this is not a number"),
            ("{} x", 1, 4, "nothing was expected after the value"),
            ("\"\u{e9}\" \u{e9}", 1, 5, "nothing was expected after the value"),
            ("nul", 1, 1, "a value was expected"),
            (deep.as_str(), 1, 66, "nested deeper than 64"),
        ] {
            let error = Document::parse("a.json", text.to_owned()).expect_err("it is wrong");
            let expected = format!("`a.json`, line {line}, column {column}: {message}");
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
