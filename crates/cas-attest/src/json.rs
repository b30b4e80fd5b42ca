//! JSON of others, read so that no two readers find different things in it: no field stands twice, at any depth, and what
//! is to be an object is none but that.
//!
//! A document is looked through once for its shape without being kept; fields are then cut out of it as texts. The depth
//! is that of `serde_json`, 127.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::DocumentError;
use crate::encoding;
use crate::error::shown;

/// Fields of one object, whose names are all kept while it is looked through.
const MAX_FIELDS: usize = 1 << 18;

/// Fields of an object, by name.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    what: &'static str,
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
}

/// A text of JSON, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The fields of a value that is an object; a later one of the same name was found before.
struct Fields<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    fields.insert(name, value);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Looks through a value of any kind.
struct Shape;

impl<'de> DeserializeSeed<'de> for Shape {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Shape)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(Text(name)) = map.next_key()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("the field `{}` stands twice", shown(&name))));
            }
            if names.len() == MAX_FIELDS {
                return Err(A::Error::custom(format_args!("an object has more than {MAX_FIELDS} fields")));
            }
            names.insert(name);
            map.next_value_seed(Shape)?;
        }
        Ok(())
    }
}

/// Reads a document that is an object.
pub(crate) fn read<'a>(bytes: &'a [u8], what: &'static str, limit: usize) -> Result<Object<'a>, DocumentError> {
    if bytes.len() > limit {
        return Err(DocumentError::TooLarge { what, limit, actual: bytes.len() });
    }
    let syntax = |source| DocumentError::Syntax { what, source };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Shape.deserialize(&mut deserializer).map_err(syntax)?;
    let Fields(fields) = serde_json::from_slice(bytes).map_err(syntax)?;
    Ok(Object { what, fields })
}

impl<'a> Object<'a> {
    fn missing(&self, field: &'static str) -> DocumentError {
        DocumentError::Missing { what: self.what, field }
    }

    fn kind(&self, field: &'static str, expected: &'static str) -> DocumentError {
        DocumentError::Kind { what: self.what, field, expected }
    }

    /// Refuses fields that are not among `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), DocumentError> {
        match self.fields.keys().find(|name| !known.contains(&name.as_ref())) {
            Some(name) => Err(DocumentError::Unknown { what: self.what, field: shown(name) }),
            None => Ok(()),
        }
    }

    /// The text of a field as it stands there; `null` is no value.
    pub(crate) fn raw(&self, field: &str) -> Option<&'a RawValue> {
        self.fields.get(field).copied().filter(|value| value.get() != "null")
    }

    pub(crate) fn optional_text(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, DocumentError> {
        let read = |value: &'a RawValue| match serde_json::from_str(value.get()) {
            Ok(Text(text)) => Ok(text),
            Err(_) => Err(self.kind(field, "a text")),
        };
        self.raw(field).map(read).transpose()
    }

    pub(crate) fn text(&self, field: &'static str) -> Result<Cow<'a, str>, DocumentError> {
        self.optional_text(field)?.ok_or_else(|| self.missing(field))
    }

    /// A text that is no longer than `limit` bytes.
    pub(crate) fn short_text(&self, field: &'static str, limit: usize) -> Result<String, DocumentError> {
        let text = self.text(field)?;
        if text.len() > limit {
            return Err(DocumentError::TooLarge { what: field, limit, actual: text.len() });
        }
        Ok(text.into_owned())
    }

    /// Bytes that stand as base64, at most `limit` of them.
    pub(crate) fn bytes(&self, field: &'static str, limit: usize) -> Result<Vec<u8>, DocumentError> {
        let text = self.text(field)?;
        let most = limit.div_ceil(3) * 4;
        if text.len() > most {
            return Err(DocumentError::TooLarge { what: field, limit: most, actual: text.len() });
        }
        encoding::decode(&text).ok_or(DocumentError::Base64 { what: self.what, field })
    }

    pub(crate) fn number(&self, field: &'static str) -> Result<u64, DocumentError> {
        let value = self.raw(field).ok_or_else(|| self.missing(field))?;
        value.get().parse().map_err(|_| self.kind(field, "a whole number"))
    }

    pub(crate) fn optional_object(
        &self,
        field: &'static str,
        what: &'static str,
    ) -> Result<Option<Object<'a>>, DocumentError> {
        let read = |value| item(value, what).ok_or_else(|| self.kind(field, "an object"));
        self.raw(field).map(read).transpose()
    }

    pub(crate) fn object(&self, field: &'static str, what: &'static str) -> Result<Object<'a>, DocumentError> {
        self.optional_object(field, what)?.ok_or_else(|| self.missing(field))
    }

    /// The items of a list; one that is not there has none.
    pub(crate) fn list(&self, field: &'static str, most: usize) -> Result<Vec<&'a RawValue>, DocumentError> {
        let Some(value) = self.raw(field) else { return Ok(Vec::new()) };
        let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(|_| self.kind(field, "a list"))?;
        if items.len() > most {
            return Err(DocumentError::Count { what: self.what, field, least: 0, most, actual: items.len() });
        }
        Ok(items)
    }

    /// The objects of a list.
    pub(crate) fn objects(
        &self,
        field: &'static str,
        what: &'static str,
        most: usize,
    ) -> Result<Vec<Object<'a>>, DocumentError> {
        let read = |value| item(value, what).ok_or_else(|| self.kind(field, "a list of objects"));
        self.list(field, most)?.into_iter().map(read).collect()
    }

    /// Those fields of an object that are texts.
    pub(crate) fn texts(
        &self,
        field: &'static str,
        most: usize,
    ) -> Result<(BTreeMap<String, String>, usize), DocumentError> {
        let Some(object) = self.optional_object(field, self.what)? else { return Ok((BTreeMap::new(), 0)) };
        let total = object.fields.len();
        if total > most {
            return Err(DocumentError::Count { what: self.what, field, least: 0, most, actual: total });
        }
        let texts = object.fields.into_iter().filter_map(|(name, value)| {
            let Text(text) = serde_json::from_str(value.get()).ok()?;
            Some((name.into_owned(), text.into_owned()))
        });
        Ok((texts.collect(), total))
    }
}

fn item<'a>(value: &'a RawValue, what: &'static str) -> Option<Object<'a>> {
    let Fields(fields) = serde_json::from_str(value.get()).ok()?;
    Some(Object { what, fields })
}

/// A text with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An object of texts, in the order of their names.
pub(crate) fn object_of<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let items: Vec<String> =
        texts.into_iter().map(|(name, text)| format!("{}:{}", quoted(name), quoted(text))).collect();
    format!("{{{}}}", items.join(","))
}

/// Valid JSON without the white space between its parts.
pub(crate) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_text, mut escaped) = (false, false);
    for letter in json.chars() {
        if in_text {
            (in_text, escaped) = match letter {
                _ if escaped => (true, false),
                '\\' => (true, true),
                _ => (letter != '"', false),
            };
        } else if matches!(letter, ' ' | '\t' | '\n' | '\r') {
            continue;
        } else {
            in_text = letter == '"';
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_one_reading() {
        let deep = format!("{}{}", "{\"a\":".repeat(200), "1".to_owned() + &"}".repeat(200));
        for (text, right) in [
            ("{}", true),
            (r#"{"a":1,"b":{"a":1}}"#, true),
            (r#"{"a":1.50,"b":[1e400]}"#, false), // serde_json has no such number
            ("[]", false),
            ("null", false),
            ("", false),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":1,"\u0061":1}"#, false),
            (r#"{"x":[{"y":{"a":1,"a":2}}]}"#, false),
            ("{} {}", false),
            ("{}\0", false),
            ("\u{feff}{}", false),
            (r#"{"a":01}"#, false),
            (r#"{"a":1,}"#, false),
            ("{'a':1}", false),
            (r#"{"a":"\ud800"}"#, false),
            (deep.as_str(), false),
        ] {
            assert_eq!(read(text.as_bytes(), "it", 1 << 20).is_ok(), right, "{text}");
        }
        assert!(read(b"{\"a\":\"\xff\"}", "it", 100).is_err());
        assert!(matches!(read(b"{}  ", "it", 3), Err(DocumentError::TooLarge { limit: 3, actual: 4, .. })));
    }

    #[test]
    fn compacting_leaves_texts_and_numbers_as_they_are() {
        for (text, expected) in [
            ("{ }", "{}"),
            ("{\n\t\"a b\" : [ 1.50 , 18446744073709551616 ] }\r\n", r#"{"a b":[1.50,18446744073709551616]}"#),
            (r#"{"a\" : b" : "\\" , "c": " ü "}"#, r#"{"a\" : b":"\\","c":" ü "}"#),
        ] {
            assert_eq!(compact(text), expected);
        }
    }

    #[test]
    fn lists_are_no_objects() {
        let document = read(br#"{"a":["x"],"b":{"x":1},"c":null,"d":7,"e":-1}"#, "it", 100).unwrap();
        assert!(document.object("a", "part").is_err());
        assert!(document.list("b", 9).is_err());
        assert!(document.optional_object("c", "part").unwrap().is_none());
        assert!(document.list("a", 0).is_err());
        assert_eq!(document.number("d").unwrap(), 7);
        assert!(document.number("e").is_err() && document.number("a").is_err());
        assert!(document.only(&["a", "b", "c", "d"]).is_err());
        document.only(&["a", "b", "c", "d", "e"]).unwrap();
    }
}
