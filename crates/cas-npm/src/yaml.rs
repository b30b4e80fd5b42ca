//! The YAML that pnpm writes, as the values of JSON.
//!
//! Mappings, sequences and scalars; a plain `true`, `false` or `null` is that word's value, every other scalar is a
//! string, also one that looks like a number: versions do. Anchors, aliases and tags are refused, so a value is never
//! larger than its text, and so are keys that are there twice. Events are asked for one by one; nothing recurses.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Deepest nesting; pnpm needs five.
const MAX_DEPTH: usize = 32;
/// Most documents: pnpm writes its own version and that of configuration in one before the lockfile.
const MAX_DOCUMENTS: usize = 2;

/// Why a text cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not YAML as pnpm writes it: line {line}: {what}")]
pub struct YamlError {
    /// Line, from 1 on.
    line: usize,
    /// What is wrong there.
    what: String,
}

/// A mapping or sequence that is not complete.
enum Open {
    Mapping(Map<String, Value>, Option<String>),
    Sequence(Vec<Value>),
}

/// The documents of a text, in order.
pub(crate) fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut documents = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| YamlError { line: error.marker().line(), what: error.info().into() })?;
        let wrong = |what: &str| YamlError { line: span.start.line(), what: what.to_owned() };
        let value = match event {
            Event::Scalar(text, style, 0, None) => match (&*text, style) {
                ("true", ScalarStyle::Plain) => Value::Bool(true),
                ("false", ScalarStyle::Plain) => Value::Bool(false),
                ("" | "~" | "null", ScalarStyle::Plain) => Value::Null,
                _ => Value::String(text.into_owned()),
            },
            Event::MappingStart(0, None) | Event::SequenceStart(0, None) => {
                if open.len() == MAX_DEPTH {
                    return Err(wrong("too deep"));
                }
                open.push(match event {
                    Event::MappingStart(..) => Open::Mapping(Map::new(), None),
                    _ => Open::Sequence(Vec::new()),
                });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(Open::Mapping(map, None)) => Value::Object(map),
                Some(Open::Sequence(values)) => Value::Array(values),
                _ => return Err(wrong("a key without a value")),
            },
            Event::Scalar(..) | Event::MappingStart(..) | Event::SequenceStart(..) | Event::Alias(_) => {
                return Err(wrong("anchors, aliases and tags are not used in lockfiles"));
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
        };
        match open.last_mut() {
            None if documents.len() == MAX_DOCUMENTS => return Err(wrong("too many documents")),
            None => documents.push(value),
            Some(Open::Sequence(values)) => values.push(value),
            Some(Open::Mapping(map, key)) => match (key.take(), value) {
                (Some(key), value) => {
                    if map.insert(key, value).is_some() {
                        return Err(wrong("a key that is there twice"));
                    }
                }
                (None, Value::String(text)) => *key = Some(text),
                (None, Value::Bool(word)) => *key = Some(word.to_string()),
                (None, Value::Null) => *key = Some("null".to_owned()),
                (None, _) => return Err(wrong("a key that is no text")),
            },
        }
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pnpm_writes_is_read() {
        let text = "lockfileVersion: '9.0'\n\nimporters:\n\n  .: {}\n\n  apps/web:\n    '@s/a':\n      version: 1.10\n      optional: true\n\
             x: {integrity: sha512-a+b==, os: [linux, '!win32'], cpu: []}\ntext: 'it''s'\nlong: >-\n  one\n  two\n";
        let expected = serde_json::json!([{
            "lockfileVersion": "9.0",
            "importers": {".": {}, "apps/web": {"@s/a": {"version": "1.10", "optional": true}}},
            "x": {"integrity": "sha512-a+b==", "os": ["linux", "!win32"], "cpu": []},
            "text": "it's",
            "long": "one two",
        }]);
        assert_eq!(documents(text).map(Value::Array), Ok(expected));
        assert_eq!(documents("---\na: b\n---\nc: d\n").map(|documents| documents.len()), Ok(2));
        assert_eq!(documents(""), Ok(Vec::new()));
    }

    #[test]
    fn what_lockfiles_do_not_need_is_refused() {
        for (text, message) in [
            ("a: &x 1\nb: *x\n", "line 1: anchors, aliases and tags are not used in lockfiles"),
            ("a: 1\nb: !!str x\n", "line 2: anchors, aliases and tags are not used in lockfiles"),
            ("a: 1\na: 2\n", "line 2: a key that is there twice"),
            ("? [a]\n: b\n", "line 1: a key that is no text"),
            ("--- 1\n--- 2\n--- 3\n", "line 3: too many documents"),
            (&"[".repeat(40), "line 1: too deep"),
        ] {
            let error = documents(text).expect_err("it is refused").to_string();
            assert_eq!(error, format!("it is not YAML as pnpm writes it: {message}"), "{text}");
        }
        assert!(documents("a: [").is_err());
    }
}
