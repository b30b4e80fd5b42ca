//! Paragraphs of fields: the syntax of control files, package indexes and Release files, deb822(5).
//!
//! A reader gives one paragraph at a time out of one buffer, so an index of any length costs the memory of its longest
//! paragraph. The syntax is taken strictly: a line that is neither field, continuation nor separator is an error, and so
//! is a field that stands twice, since readers differ in which of the two they believe.
//!
//! Not here: what the fields mean ([`crate::Package`], [`crate::Release`]).

use std::io::{self, BufRead, Read};
use std::ops::Range;

/// Longest paragraph. Of Debian 12 the longest in an index has 76 KB, and the Release file of a suite, which is one
/// paragraph, 150 KB; Ubuntu's have twice that.
pub(crate) const MAX_PARAGRAPH_BYTES: usize = 16 << 20;
/// Most fields of a paragraph; real ones have up to 40.
const MAX_FIELDS: usize = 256;

/// Why a text is not made of paragraphs of fields.
#[derive(Debug, thiserror::Error)]
pub enum Deb822Error {
    /// A line is neither a field nor the continuation of one.
    #[error("line {line} is not a field: `{text}`")]
    Line {
        /// Number of the line, from 1.
        line: u64,
        /// Its beginning.
        text: String,
    },
    /// A paragraph has a field twice.
    #[error("line {line} repeats the field `{name}`")]
    Repeated {
        /// Number of the line.
        line: u64,
        /// The field.
        name: String,
    },
    /// A paragraph is not UTF-8.
    #[error("the paragraph that begins at line {line} is not UTF-8")]
    NotUtf8 {
        /// Number of its first line.
        line: u64,
    },
    /// A paragraph is longer, or has more fields, than any real one.
    #[error(
        "the paragraph that begins at line {line} is longer than the limit of {MAX_PARAGRAPH_BYTES} bytes and {MAX_FIELDS} fields"
    )]
    TooLong {
        /// Number of its first line.
        line: u64,
    },
    /// The source failed.
    #[error("could not read paragraphs")]
    Read(#[source] io::Error),
}

/// Reads paragraphs.
#[derive(Debug)]
pub struct Paragraphs<R> {
    source: R,
    /// Number of lines read.
    line: u64,
    text: Vec<u8>,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

/// Some fields, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Paragraph<'reader> {
    text: &'reader str,
    fields: &'reader [Field],
    line: u64,
}

impl<R: BufRead> Paragraphs<R> {
    /// Begins to read.
    pub const fn new(source: R) -> Self {
        Self { source, line: 0, text: Vec::new(), fields: Vec::new() }
    }

    /// Reads the next paragraph; `None` when only separators are left.
    ///
    /// # Errors
    ///
    /// [`Deb822Error`]
    pub fn next_paragraph(&mut self) -> Result<Option<Paragraph<'_>>, Deb822Error> {
        self.text.clear();
        self.fields.clear();
        let mut first_line = self.line + 1;
        loop {
            let start = self.text.len();
            // One byte past the limit tells "that long" from "longer".
            let limit = (MAX_PARAGRAPH_BYTES + 1 - start) as u64;
            let count =
                self.source.by_ref().take(limit).read_until(b'\n', &mut self.text).map_err(Deb822Error::Read)?;
            if self.text.len() > MAX_PARAGRAPH_BYTES {
                return Err(Deb822Error::TooLong { line: first_line });
            }
            if count > 0 {
                self.line += 1;
            }
            let end = start + self.text[start..].trim_ascii_end().len();
            if start == end {
                if count > 0 && self.fields.is_empty() {
                    self.text.clear();
                    first_line = self.line + 1;
                    continue;
                }
                break;
            }
            self.take_line(start, end, first_line)?;
        }
        if self.fields.is_empty() {
            return Ok(None);
        }
        let text = str::from_utf8(&self.text).map_err(|_| Deb822Error::NotUtf8 { line: first_line })?;
        Ok(Some(Paragraph { text, fields: &self.fields, line: first_line }))
    }

    /// Makes a field, or a part of the last one, of the line in `start..end` of the buffer.
    fn take_line(&mut self, start: usize, end: usize, first_line: u64) -> Result<(), Deb822Error> {
        let line = &self.text[start..end];
        if matches!(line[0], b' ' | b'\t') {
            let Some(field) = self.fields.last_mut() else { return Err(not_a_field(self.line, line)) };
            field.value.end = end;
            return Ok(());
        }
        let colon = line.iter().position(|byte| *byte == b':');
        // Policy 5.1: printable ASCII without space and colon, not beginning with `#` or `-`.
        let name = match colon.map(|colon| &line[..colon]) {
            Some(name @ [first, ..]) if *first != b'#' && *first != b'-' && name.iter().all(u8::is_ascii_graphic) => {
                name
            }
            _ => return Err(not_a_field(self.line, line)),
        };
        if self.fields.iter().any(|field| self.text[field.name.clone()].eq_ignore_ascii_case(name)) {
            return Err(Deb822Error::Repeated { line: self.line, name: String::from_utf8_lossy(name).into_owned() });
        }
        if self.fields.len() == MAX_FIELDS {
            return Err(Deb822Error::TooLong { line: first_line });
        }
        let name = start..start + name.len();
        self.fields.push(Field { value: name.end + 1..end, name });
        Ok(())
    }
}

fn not_a_field(line: u64, text: &[u8]) -> Deb822Error {
    Deb822Error::Line { line, text: String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned() }
}

impl<'reader> Paragraph<'reader> {
    /// Value of a field, whose name is compared without case.
    ///
    /// White space around the value is gone; where it spans lines, their ends and indents are part of it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'reader str> {
        let field = self.fields.iter().find(|field| self.text[field.name.clone()].eq_ignore_ascii_case(name))?;
        Some(self.text[field.value.clone()].trim_ascii_start())
    }

    /// All fields in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&'reader str, &'reader str)> {
        let text = self.text;
        self.fields.iter().map(move |field| (&text[field.name.clone()], text[field.value.clone()].trim_ascii_start()))
    }

    /// Number of the first line, from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Vec<Vec<(String, String)>>, String> {
        let mut reader = Paragraphs::new(text);
        let mut found = Vec::new();
        while let Some(paragraph) = reader.next_paragraph().map_err(|error| error.to_string())? {
            found.push(paragraph.fields().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        }
        Ok(found)
    }

    fn fields(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn paragraphs_are_separated_by_blank_lines() {
        let text = b"\n \nPackage:  a \nDescription: one\n two\n .\n\tthree\n\t\n\nPackage:b\r\nEmpty:\n\n\n";
        assert_eq!(
            parse(text),
            Ok(vec![
                fields(&[("Package", "a"), ("Description", "one\n two\n .\n\tthree")]),
                fields(&[("Package", "b"), ("Empty", "")]),
            ])
        );
        assert_eq!(parse(b"Package: last line without end"), Ok(vec![fields(&[("Package", "last line without end")])]));
        assert_eq!(parse(b""), Ok(vec![]));
    }

    #[test]
    fn a_value_may_begin_on_the_next_line() {
        assert_eq!(parse(b"SHA256:\n aa 1 x\n bb 2 y\n"), Ok(vec![fields(&[("SHA256", "aa 1 x\n bb 2 y")])]));
    }

    #[test]
    fn names_are_compared_without_case() {
        let mut reader = Paragraphs::new(&b"Multi-Arch: same\n"[..]);
        let paragraph = reader.next_paragraph().expect("a paragraph").expect("a paragraph");
        assert_eq!((paragraph.get("multi-arch"), paragraph.get("Multi"), paragraph.line()), (Some("same"), None, 1));
    }

    #[test]
    fn what_is_no_field_is_refused() {
        for (text, message) in [
            (&b" continued\n"[..], "line 1 is not a field: ` continued`"),
            (b"A: 1\n\n\n continued\n", "line 4 is not a field: ` continued`"),
            (b"A: 1\nno colon\n", "line 2 is not a field: `no colon`"),
            (b"A: 1\n# comment: x\n", "line 2 is not a field: `# comment: x`"),
            (b"A b: 1\n", "line 1 is not a field: `A b: 1`"),
            (b": 1\n", "line 1 is not a field: `: 1`"),
            (b"A: 1\nb: 2\na: 3\n", "line 3 repeats the field `a`"),
            (b"A: 1\n\nB: \xff\n", "the paragraph that begins at line 3 is not UTF-8"),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn paragraphs_have_a_limit() {
        let endless = Paragraphs::new(io::BufReader::new(io::repeat(b'A'))).next_paragraph().map(drop);
        assert!(matches!(endless, Err(Deb822Error::TooLong { line: 1 })));
        let many: String = (0..=MAX_FIELDS).map(|number| format!("F{number}: x\n")).collect();
        assert!(matches!(Paragraphs::new(many.as_bytes()).next_paragraph(), Err(Deb822Error::TooLong { line: 1 })));
    }
}
