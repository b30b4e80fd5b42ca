//! What a step was made of, in words: kept beside its key, so that two of them can be compared. Rules: docs/formats/history.md.
//!
//! Nothing of it decides anything: a trace that is lost costs an explanation.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use cas_tree::{Node, RelPath};

/// The first line of a trace.
const HEAD: &str = "cas trace 1";
/// What an executable file's digest ends with.
const EXECUTABLE: &str = " executable";

/// What a step is made of: values by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace(BTreeMap<Key, String>);

/// A kind, and which of that.
type Key = (Cow<'static, str>, String);

/// A difference between two traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `file`, `dependency`, `toolchain`, `env`, `run`, `output`, `timeout`, `rules`.
    pub kind: String,
    /// Which of them: a path, a label, a variable's name; empty where there is one only.
    pub name: String,
    /// What happened to it.
    pub what: What,
}

/// What happened to a part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another one.
    Changed {
        /// What it was.
        from: String,
        /// What it is.
        to: String,
    },
    /// A file has another path and the same content.
    Renamed {
        /// Its path before.
        from: String,
    },
    /// Only whether it may be executed is different.
    Mode,
}

impl Trace {
    /// Notes a part.
    pub(crate) fn add(&mut self, kind: &'static str, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert((Cow::Borrowed(kind), name.into()), value.into());
    }

    /// Notes files and links; what else there is has no content.
    pub(crate) fn add_files(&mut self, files: impl IntoIterator<Item = (RelPath, Node)>) {
        for (path, node) in files {
            match node {
                Node::File { blob, metadata } => {
                    let executable = if metadata.mode & 0o100 != 0 { EXECUTABLE } else { "" };
                    self.add("file", path.to_string(), format!("{}{executable}", blob.digest));
                }
                Node::Symlink { target, .. } => {
                    self.add("file", path.to_string(), format!("link to {}", String::from_utf8_lossy(&target)));
                }
                _ => {}
            }
        }
    }

    /// The paths of its files and links.
    pub(crate) fn file_paths(&self) -> impl Iterator<Item = RelPath> + '_ {
        let files = self.0.keys().filter(|(kind, _)| kind == "file");
        files.filter_map(|(_, path)| RelPath::new(path.as_bytes()).ok())
    }

    /// Adds the parts of another one.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// As it is kept.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for ((kind, name), value) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{kind}\t{}\t{}", escape(name), escape(value));
        }
        text
    }

    /// What was kept; `None` for what makes no sense.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        (lines.next()? == HEAD).then_some(())?;
        let mut trace = Self::default();
        for line in lines {
            let mut parts = line.split('\t');
            let (kind, name, value) = (parts.next()?, parts.next()?, parts.next()?);
            parts.next().is_none().then_some(())?;
            trace.0.insert((Cow::Owned(kind.to_owned()), unescape(name)?), unescape(value)?);
        }
        Some(trace)
    }

    /// How this one differs from an earlier one, in order.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut add = |key: &Key, what| {
            found.push(Difference { kind: key.0.to_string(), name: key.1.clone(), what });
        };
        let is_file = |key: &Key| key.0 == "file";
        // A file that is gone and one that came with the same content are one that was renamed.
        let mut gone: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (key, value) in before.0.iter().filter(|(key, _)| is_file(key) && !self.0.contains_key(*key)) {
            gone.entry(value).or_default().push(&key.1);
        }
        for (key, value) in &self.0 {
            let what = match before.0.get(key) {
                Some(old) if old == value => continue,
                Some(old) if is_file(key) && bare(old) == bare(value) => What::Mode,
                Some(old) => What::Changed { from: old.clone(), to: value.clone() },
                None => match gone.get_mut(value.as_str()).filter(|_| is_file(key)).and_then(Vec::pop) {
                    Some(from) => What::Renamed { from: from.to_owned() },
                    None => What::Added,
                },
            };
            add(key, what);
        }
        let left =
            |key: &Key, value: &str| !is_file(key) || gone.get(value).is_some_and(|names| names.contains(&&*key.1));
        for (key, value) in before.0.iter().filter(|(key, _)| !self.0.contains_key(*key)) {
            if left(key, value) {
                add(key, What::Removed);
            }
        }
        found
    }
}

fn bare(value: &str) -> &str {
    value.strip_suffix(EXECUTABLE).unwrap_or(value)
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(parts: &[(&'static str, &str, &str)]) -> Trace {
        let mut trace = Trace::default();
        for (kind, name, value) in parts {
            trace.add(kind, *name, *value);
        }
        trace
    }

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else_is() {
        let all = trace(&[("file", "a\tb\n\\n", "x"), ("env", "A", "1\r\n2"), ("run", "", "[\"sh\"]")]);
        assert_eq!(Trace::parse(&all.to_text()), Some(all.clone()));
        for wrong in
            ["", "cas trace 2\n", "cas trace 1\nfile\ta", "cas trace 1\nfile\ta\tb\tc", "cas trace 1\nfile\t\\x\tb"]
        {
            assert_eq!(Trace::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn differences_say_what_happened() {
        let before = trace(&[
            ("file", "changed", "1"),
            ("file", "gone", "2"),
            ("file", "mode", "3"),
            ("file", "old", "4"),
            ("env", "A", "x"),
            ("env", "B", "y"),
        ]);
        let after = trace(&[
            ("file", "changed", "9"),
            ("file", "mode", "3 executable"),
            ("file", "new", "4"),
            ("file", "fresh", "5"),
            ("env", "A", "z"),
        ]);
        let found: Vec<String> = (after.differences(&before).into_iter())
            .map(|difference| format!("{} {} {:?}", difference.kind, difference.name, difference.what))
            .collect();
        assert_eq!(
            found,
            [
                "env A Changed { from: \"x\", to: \"z\" }",
                "file changed Changed { from: \"1\", to: \"9\" }",
                "file fresh Added",
                "file mode Mode",
                "file new Renamed { from: \"old\" }",
                "env B Removed",
                "file gone Removed",
            ]
        );
        assert_eq!(after.differences(&after), []);
    }
}
