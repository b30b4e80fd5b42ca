//! The part of JSON Schema, draft 7, that docs/cas.schema.json uses. A keyword that is not known is an error, so that nothing
//! is passed over.

use serde_json::{Map, Value};

/// Says why a value does not satisfy a schema, with the place; nothing if it does.
pub(crate) fn validate(root: &Value, value: &Value) -> Result<(), String> {
    check(root, root, value, "")
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let schema = schema.as_object().expect("a schema is an object");
    for (word, rule) in schema {
        let is_good = match word.as_str() {
            "$schema" | "title" | "description" | "default" | "examples" | "definitions" => true,
            "$ref" => {
                let name = rule.as_str().and_then(|text| text.strip_prefix('#')).expect("it is in this file");
                check(root, root.pointer(name).expect("it is defined"), value, at)?;
                true
            }
            "type" => is_of(rule.as_str().expect("one type"), value),
            "enum" => rule.as_array().expect("a list").contains(value),
            "pattern" => value.as_str().is_none_or(|text| matches(rule.as_str().expect("a pattern"), text)),
            "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().expect("a number")),
            "required" => {
                let keys = rule.as_array().expect("a list").iter().filter_map(Value::as_str);
                value.as_object().is_none_or(|object| keys.into_iter().all(|key| object.contains_key(key)))
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{index}"))?;
                }
                true
            }
            "properties" | "additionalProperties" | "propertyNames" => {
                members(root, schema, word, rule, value, at)?;
                true
            }
            "allOf" => {
                for part in rule.as_array().expect("a list") {
                    check(root, part, value, at)?;
                }
                true
            }
            "anyOf" => count(root, rule, value, at) > 0,
            "oneOf" => count(root, rule, value, at) == 1,
            other => panic!("`{other}` is not known here"),
        };
        if !is_good {
            return Err(format!("`{at}` is not as `{word}` says: {rule}"));
        }
    }
    Ok(())
}

fn members(
    root: &Value,
    schema: &Map<String, Value>,
    word: &str,
    rule: &Value,
    value: &Value,
    at: &str,
) -> Result<(), String> {
    for (key, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{key}");
        let own = schema.get("properties").and_then(|properties| properties.get(key));
        match (word, own) {
            ("properties", Some(own)) => check(root, own, member, &at)?,
            ("propertyNames", _) => check(root, rule, &Value::String(key.clone()), &at)?,
            ("additionalProperties", None) if *rule == Value::Bool(false) => {
                return Err(format!("`{at}` is not a key that is known"));
            }
            ("additionalProperties", None) => check(root, rule, member, &at)?,
            _ => {}
        }
    }
    Ok(())
}

fn count(root: &Value, rule: &Value, value: &Value, at: &str) -> usize {
    rule.as_array().expect("a list").iter().filter(|part| check(root, part, value, at).is_ok()).count()
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("`{other}` is no type that is known here"),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    regex::Regex::new(pattern).expect("it is a pattern").is_match(text)
}
