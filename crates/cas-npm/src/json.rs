//! Where the strings of a JSON text are, so that one can be replaced and every other byte stays.

use std::ops::Range;

/// The places of the strings at `object[section][name]`, with section and name, in the order of the text.
///
/// The text must be valid JSON; keys are compared as they are written, after their escapes.
pub(crate) fn strings_of_sections(text: &str, wanted: impl Fn(&str) -> bool) -> Vec<(String, String, Range<usize>)> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0 };
    let mut found = Vec::new();
    scanner.object(&mut |scanner, section| {
        if !wanted(&section) || scanner.peek() != Some(b'{') {
            return scanner.skip();
        }
        scanner.object(&mut |scanner, name| {
            let start = scanner.at;
            let is_string = scanner.peek() == Some(b'"');
            scanner.skip();
            if is_string {
                found.push((section.clone(), name, start..scanner.at));
            }
        });
    });
    found
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.bytes.get(self.at).copied()
    }

    /// Calls `member` at each value of an object.
    fn object(&mut self, member: &mut dyn FnMut(&mut Self, String)) {
        if self.peek() != Some(b'{') {
            return;
        }
        self.at += 1;
        while self.peek() == Some(b'"') {
            let start = self.at;
            self.string();
            let key = serde_json::from_slice(&self.bytes[start..self.at]).unwrap_or_default();
            if self.peek() == Some(b':') {
                self.at += 1;
            }
            self.peek();
            member(self, key);
            if self.peek() != Some(b',') {
                break;
            }
            self.at += 1;
        }
        self.peek();
        self.at += 1;
    }

    fn string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += match byte {
                b'"' => break,
                b'\\' => 2,
                _ => 1,
            };
        }
        self.at += 1;
    }

    /// Passes a value of any kind.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth == 0 => return,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' if depth == 0 => return,
                _ => self.at += 1,
            }
            if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_where_they_are() {
        let text = r#" { "x" : [ { "dependencies": {"no": "1"} } , "}" ], "dependencies": { "a\"b" : "w:*" ,"c":7,"d":"\\" } ,"y":{} } "#;
        let found = strings_of_sections(text, |section| section == "dependencies");
        let found: Vec<(&str, &str)> =
            found.iter().map(|(_, name, range)| (name.as_str(), &text[range.clone()])).collect();
        assert_eq!(found, [("a\"b", "\"w:*\""), ("d", "\"\\\\\"")]);
    }
}
