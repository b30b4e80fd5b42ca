//! `.gitattributes`: which files git changes on their way to the working tree.
//!
//! Source: gitattributes(5). Of macros `binary` alone is known. A line whose pattern begins with `!` holds nothing, as in git.
//!
//! Not here: whether a pattern matches a path (`cas-snapshot`, with the patterns of `.gitignore`).

/// Most lines that are used: git's own repositories have a few dozen.
const MAX_LINES: usize = 10_000;
/// Longest line, as in git.
const MAX_LINE_BYTES: usize = 2048;

/// What a line says of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `text`
    Set,
    /// `-text`
    Unset,
    /// `!text`
    Unspecified,
    /// `eol=crlf`
    Value(String),
}

/// A line with its pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeLine {
    /// From 1.
    pub line: usize,
    /// As for a `.gitignore`, but for `!`.
    pub pattern: String,
    /// In the order of the line.
    pub attributes: Vec<(String, Setting)>,
}

/// The lines of a file; later ones are stronger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// In the order of the file.
    pub lines: Vec<AttributeLine>,
}

impl Attributes {
    /// Parses a file. Lines that are not UTF-8, are longer than git reads or come after 10,000 others say nothing.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut lines = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate().take(MAX_LINES) {
            let Some(line) = std::str::from_utf8(line).ok().filter(|line| line.len() <= MAX_LINE_BYTES) else {
                continue;
            };
            let line = line.trim_matches([' ', '\t', '\r']);
            let Some((pattern, rest)) = pattern(line) else { continue };
            let attributes = rest.split_ascii_whitespace().flat_map(settings).collect();
            lines.push(AttributeLine { line: index + 1, pattern, attributes });
        }
        Self { lines }
    }
}

/// The pattern of a line and what follows it.
fn pattern(line: &str) -> Option<(String, &str)> {
    if line.is_empty() || line.starts_with(['#', '!']) || line.starts_with("[attr]") {
        return None;
    }
    let Some(quoted) = line.strip_prefix('"') else {
        let end = line.find(|c: char| c.is_ascii_whitespace()).unwrap_or(line.len());
        return Some((line[..end].to_owned(), &line[end..]));
    };
    let mut pattern = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((pattern, &quoted[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => pattern.push('\n'),
                't' => pattern.push('\t'),
                c @ ('"' | '\\') => pattern.push(c),
                // Octal bytes and the rest: no pattern that anybody writes by hand.
                _ => return None,
            },
            c => pattern.push(c),
        }
    }
    None
}

fn settings(word: &str) -> Vec<(String, Setting)> {
    if word == "binary" {
        return ["diff", "merge", "text"].map(|name| (name.to_owned(), Setting::Unset)).to_vec();
    }
    let (name, setting) = match word.split_at_checked(1) {
        Some(("-", name)) => (name, Setting::Unset),
        Some(("!", name)) => (name, Setting::Unspecified),
        _ => match word.split_once('=') {
            Some((name, value)) => (name, Setting::Value(value.to_owned())),
            None => (word, Setting::Set),
        },
    };
    vec![(name.to_owned(), setting)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_pattern_and_settings() {
        let text =
            b"# c\n* text=auto\r\n*.png binary\n\"a b\\\"\" -text !eol ident\n!x text\n[attr]m -text\n\xff text\n\n";
        let attributes = Attributes::parse(text);
        let shown: Vec<String> = attributes
            .lines
            .iter()
            .map(|line| format!("{} {} {:?}", line.line, line.pattern, line.attributes))
            .collect();
        assert_eq!(
            shown,
            [
                "2 * [(\"text\", Value(\"auto\"))]",
                "3 *.png [(\"diff\", Unset), (\"merge\", Unset), (\"text\", Unset)]",
                "4 a b\" [(\"text\", Unset), (\"eol\", Unspecified), (\"ident\", Set)]",
            ]
        );
    }
}
