//! Patterns as npm's ignore files have them.
//!
//! They are those of the library `minimatch` with the options `dot`, `matchBase`, `nocase`, `flipNegate`: braces expand,
//! `*` and `?` stay inside a name, `**` passes folders, `[a-z]` and `[!a-z]` are sets, a pattern without a slash is
//! compared with the last name of a path. Patterns such as `+(a|b)` are refused.

/// Longest pattern.
const MAX_BYTES: usize = 64 << 10;
/// Most patterns that braces of one expand to.
const MAX_ALTERNATIVES: usize = 1024;

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Too long, or its braces stand for too many patterns.
    #[error("it is too long or stands for too many patterns")]
    TooLong,
    /// `+(…)` and its like.
    #[error("`{construct}` is not supported")]
    Extended {
        /// How it begins.
        construct: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Globstar,
    Tokens(Vec<Token>),
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Glob {
    alternatives: Vec<Vec<Part>>,
    ignore_case: bool,
    by_base_name: bool,
}

impl Glob {
    /// A pattern of an ignore file, without its `!`.
    pub(crate) fn of_ignore_file(pattern: &str) -> Result<Self, PatternError> {
        Self::new(pattern, true)
    }

    /// A pattern over paths from a root; case counts.
    pub(crate) fn of_paths(pattern: &str) -> Result<Self, PatternError> {
        Self::new(pattern, false)
    }

    fn new(pattern: &str, in_ignore_file: bool) -> Result<Self, PatternError> {
        if pattern.len() > MAX_BYTES {
            return Err(PatternError::TooLong);
        }
        let mut expanded = Vec::new();
        expand(&pattern.chars().collect::<Vec<_>>(), &mut expanded)?;
        let mut alternatives = Vec::new();
        for text in expanded {
            let mut parts: Vec<Part> = Vec::new();
            for (index, part) in text.split(|c| *c == '/').enumerate() {
                // Several slashes are one, but for the first place.
                if part.is_empty() && index > 1 && matches!(parts.last(), Some(Part::Tokens(last)) if last.is_empty()) {
                    continue;
                }
                let part = match part {
                    ['*', '*'] => Part::Globstar,
                    other => Part::Tokens(tokens(other, in_ignore_file)?),
                };
                if part != Part::Globstar || parts.last() != Some(&Part::Globstar) {
                    parts.push(part);
                }
            }
            alternatives.push(parts);
        }
        Ok(Self { alternatives, ignore_case: in_ignore_file, by_base_name: in_ignore_file })
    }

    /// Whether the pattern is so short that it can be meant for a name at any depth: at most one name beside the slashes.
    pub(crate) fn is_relative(&self) -> bool {
        self.alternatives.iter().any(|parts| {
            let ends_open = matches!(parts.last(), Some(Part::Tokens(last)) if last.is_empty());
            parts.len() <= if ends_open { 2 } else { 1 }
        })
    }

    /// Whether the pattern matches the path. With `partial`, also whether something below the path could match.
    pub(crate) fn matches(&self, path: &str, partial: bool) -> bool {
        let folded;
        let path = if self.ignore_case {
            folded = path.to_lowercase();
            folded.as_str()
        } else {
            path
        };
        let parts: Vec<&str> = path.split('/').collect();
        let base = parts.iter().rev().find(|part| !part.is_empty()).copied().unwrap_or_default();
        self.alternatives.iter().any(|pattern| {
            if self.by_base_name && pattern.len() == 1 {
                return match_path(&[base], pattern, partial);
            }
            match_path(&parts, pattern, partial)
        })
    }
}

/// Dynamic programming from the ends: no pattern makes this slow.
fn match_path(path: &[&str], pattern: &[Part], partial: bool) -> bool {
    let (rows, columns) = (path.len() + 1, pattern.len() + 1);
    let mut table = vec![false; rows * columns];
    let at = |file: usize, glob: usize| file * columns + glob;
    for file in (0..rows).rev() {
        for glob in (0..columns).rev() {
            table[at(file, glob)] = if glob == pattern.len() {
                // What ends with a slash is matched by what does not.
                file == path.len() || (file + 1 == path.len() && path[file].is_empty())
            } else if file == path.len() {
                partial
            } else {
                match &pattern[glob] {
                    Part::Globstar => {
                        let swallows = !matches!(path[file], "." | "..");
                        if glob + 1 == pattern.len() {
                            swallows && (file + 1 == path.len() || table[at(file + 1, glob)])
                        } else {
                            table[at(file, glob + 1)] || (swallows && table[at(file + 1, glob)])
                        }
                    }
                    Part::Tokens(tokens) => match_name(path[file], tokens) && table[at(file + 1, glob + 1)],
                }
            };
        }
    }
    table[at(0, 0)]
}

fn match_name(name: &str, tokens: &[Token]) -> bool {
    let starts_open = matches!(tokens.first(), Some(Token::Many | Token::One | Token::Set { .. }));
    if starts_open && matches!(name, "" | "." | "..") {
        return false;
    }
    let name: Vec<char> = name.chars().collect();
    // One row of the table for each token, from the last on.
    let mut row = vec![false; name.len() + 1];
    row[name.len()] = true;
    for token in tokens.iter().rev() {
        let mut next = vec![false; name.len() + 1];
        for at in (0..=name.len()).rev() {
            next[at] = match token {
                Token::Many => row[at] || (at < name.len() && next[at + 1]),
                _ if at == name.len() => false,
                Token::One => row[at + 1],
                Token::Literal(c) => name[at] == *c && row[at + 1],
                Token::Set { negated, ranges } => {
                    ranges.iter().any(|(low, high)| (*low..=*high).contains(&name[at])) != *negated && row[at + 1]
                }
            };
        }
        row = next;
    }
    row[0]
}

fn tokens(part: &[char], ignore_case: bool) -> Result<Vec<Token>, PatternError> {
    let fold = |c: char| -> Vec<char> { if ignore_case { c.to_lowercase().collect() } else { vec![c] } };
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < part.len() {
        let c = part[at];
        if matches!(c, '?' | '*' | '+' | '@' | '!') && part.get(at + 1) == Some(&'(') {
            return Err(PatternError::Extended { construct: format!("{c}(") });
        }
        at += 1;
        match c {
            '\\' if at < part.len() => {
                tokens.extend(fold(part[at]).into_iter().map(Token::Literal));
                at += 1;
            }
            '*' => {
                if tokens.last() != Some(&Token::Many) {
                    tokens.push(Token::Many);
                }
            }
            '?' => tokens.push(Token::One),
            '[' => match set(part, at, ignore_case) {
                Some((token, next)) => {
                    tokens.push(token);
                    at = next;
                }
                None => tokens.push(Token::Literal('[')),
            },
            c => tokens.extend(fold(c).into_iter().map(Token::Literal)),
        }
    }
    Ok(tokens)
}

/// The set that begins behind a `[`, and where it ends. Without an end the bracket is a character.
fn set(part: &[char], mut at: usize, ignore_case: bool) -> Option<(Token, usize)> {
    let negated = matches!(part.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let mut ranges = Vec::new();
    let first = at;
    loop {
        let mut low = *part.get(at)?;
        if low == ']' && at > first {
            break;
        }
        if low == '\\' {
            at += 1;
            low = *part.get(at)?;
        }
        at += 1;
        let mut high = low;
        if part.get(at) == Some(&'-') && part.get(at + 1).is_some_and(|c| *c != ']') {
            high = part[at + 1];
            at += 2;
        }
        ranges.push((low, high));
        if ignore_case && low.is_ascii_alphabetic() && high.is_ascii_alphabetic() {
            ranges.push((low.to_ascii_lowercase(), high.to_ascii_lowercase()));
        }
    }
    Some((Token::Set { negated, ranges }, at + 1))
}

/// Expands the first braces, and those of what comes out.
fn expand(pattern: &[char], into: &mut Vec<Vec<char>>) -> Result<(), PatternError> {
    let mut open = vec![pattern.to_vec()];
    let mut steps = 0;
    while let Some(pattern) = open.pop() {
        steps += 1;
        if steps > 4 * MAX_ALTERNATIVES || into.len() > MAX_ALTERNATIVES {
            return Err(PatternError::TooLong);
        }
        match braces(&pattern) {
            None => into.push(pattern),
            Some((start, end, alternatives)) => {
                for alternative in alternatives.iter().rev() {
                    open.push([&pattern[..start], alternative, &pattern[end + 1..]].concat());
                }
            }
        }
    }
    Ok(())
}

/// Place and alternatives of the first braces with a comma.
fn braces(pattern: &[char]) -> Option<(usize, usize, Vec<Vec<char>>)> {
    let mut start = 0;
    while start < pattern.len() {
        match pattern[start] {
            '\\' => start += 1,
            '{' if start == 0 || pattern[start - 1] != '$' => {
                let (mut depth, mut at, mut begin) = (0, start, start + 1);
                let mut alternatives = Vec::new();
                while at < pattern.len() {
                    match pattern[at] {
                        '\\' => at += 1,
                        '{' => depth += 1,
                        ',' if depth == 1 => {
                            alternatives.push(pattern[begin..at].to_vec());
                            begin = at + 1;
                        }
                        '}' => {
                            depth -= 1;
                            if depth == 0 {
                                if alternatives.is_empty() {
                                    break;
                                }
                                alternatives.push(pattern[begin..at].to_vec());
                                return Some((start, at, alternatives));
                            }
                        }
                        _ => {}
                    }
                    at += 1;
                }
            }
            _ => {}
        }
        start += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_npm() {
        for (pattern, path, expected) in [
            ("*.js", "a.js", true),
            ("*.js", "/x/A.JS", true),
            ("*.js", ".js", true),
            ("/a", "/a", true),
            ("/a", "a", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/", true),
            ("a/b", "/a/b", false),
            ("a/", "a/", true),
            ("a/", "a", false),
            ("**/x/**", "x/y", true),
            ("**/x/**", "p/q/x/y/z", true),
            ("**/x/**", "x", false),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("a/**/d", "a/d", true),
            ("/readme{,.*[^~$]}", "/README.md", true),
            ("/readme{,.*[^~$]}", "/readme", true),
            ("/readme{,.*[^~$]}", "/readme.md~", false),
            (".*.swp", ".a.swp", true),
            ("._*", "x/._y", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("{a,b{c,d}}", "bd", true),
            ("{a}", "{a}", true),
            ("[", "[", true),
            ("?", "", false),
        ] {
            let glob = Glob::of_ignore_file(pattern).expect("a pattern");
            assert_eq!(glob.matches(path, false), expected, "{pattern} {path}");
        }
        let glob = Glob::of_ignore_file("/a/b/*.js").expect("a pattern");
        assert!(glob.matches("/a", true) && glob.matches("/a/b", true) && !glob.matches("/c", true));
        assert!(!Glob::of_paths("*.js").expect("a pattern").matches("x/a.js", false));
        assert!(!Glob::of_paths("A").expect("a pattern").matches("a", false));
    }

    #[test]
    fn what_would_take_long_is_refused_or_quick() {
        assert_eq!(Glob::of_paths(&"{a,b}".repeat(20)).err(), Some(PatternError::TooLong));
        assert!(matches!(Glob::of_paths("+(a|b)"), Err(PatternError::Extended { .. })));
        let glob = Glob::of_paths(&format!("{}z", "**/a*/".repeat(300))).expect("a pattern");
        assert!(!glob.matches(&"aaaa/".repeat(300), false));
    }
}
