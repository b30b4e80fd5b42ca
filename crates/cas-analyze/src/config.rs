//! Configurations of images, as far as they differ.
//!
//! OCI image-spec 1.1, config.md. The history and the digests of layers tell how an image was made, and are left out.

use std::collections::BTreeMap;

use serde_json::Value;

/// A part of the configuration that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// Its name, as `Env.PATH`.
    pub key: String,
    /// What it is in the first image.
    pub from: Option<String>,
    /// What it is in the second one.
    pub to: Option<String>,
}

/// Fields of the document that count.
const FIELDS: [&str; 7] = ["architecture", "os", "variant", "os.version", "os.features", "author", "created"];

pub(crate) fn compare(one: &Value, other: &Value) -> Vec<ConfigChange> {
    let (one, other) = (fields(one), fields(other));
    let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
    keys.sort();
    keys.dedup();
    let change = |key: &String| {
        let (from, to) = (one.get(key).cloned(), other.get(key).cloned());
        (from != to).then(|| ConfigChange { key: key.clone(), from, to })
    };
    keys.into_iter().filter_map(change).collect()
}

fn fields(document: &Value) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for key in FIELDS {
        set(&mut fields, key.to_owned(), &document[key]);
    }
    for (key, value) in document["config"].as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("Env", Value::Array(variables)) => {
                for variable in variables.iter().filter_map(Value::as_str) {
                    let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                    fields.insert(format!("Env.{name}"), value.to_owned());
                }
            }
            ("Labels", Value::Object(items)) => {
                for (name, value) in items {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    fields.insert(format!("Labels.{name}"), value);
                }
            }
            ("ExposedPorts" | "Volumes", Value::Object(items)) => {
                for (name, value) in items {
                    fields.insert(format!("{key}.{name}"), value.to_string());
                }
            }
            (_, value) => set(&mut fields, key.clone(), value),
        }
    }
    fields
}

/// What is empty is as good as not there.
fn set(fields: &mut BTreeMap<String, String>, key: String, value: &Value) {
    let text = match value {
        Value::Null | Value::Bool(false) => return,
        Value::String(text) if text.is_empty() => return,
        Value::Array(items) if items.is_empty() => return,
        Value::Object(items) if items.is_empty() => return,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields.insert(key, text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_differ_in_what_matters() {
        let base = json!({ "os": "linux", "architecture": "amd64", "history": [1],
            "config": { "Env": ["A=1", "B=2"], "Cmd": ["x"], "User": "", "ExposedPorts": { "80/tcp": {} } } });
        for (change, expected) in [
            (json!({}), ""),
            (json!({ "history": [] }), ""),
            (json!({ "os": "plan9" }), "os linux>plan9"),
            (json!({ "config": { "Env": ["B=2", "A=1"], "Cmd": ["x"], "ExposedPorts": { "80/tcp": {} } } }), ""),
            (
                json!({ "config": { "Env": ["A=2"], "Cmd": ["x", "y"], "Labels": { "l": "m" } } }),
                "Cmd [\"x\"]>[\"x\",\"y\"]; Env.A 1>2; Env.B 2>-; ExposedPorts.80/tcp {}>-; Labels.l ->m",
            ),
        ] {
            let mut other = base.clone();
            for (key, value) in change.as_object().expect("it is one") {
                other[key] = value.clone();
            }
            let told = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            let changes = compare(&base, &other).into_iter();
            let changes: Vec<String> =
                changes.map(|change| format!("{} {}>{}", change.key, told(change.from), told(change.to))).collect();
            assert_eq!(changes.join("; "), expected, "{change}");
        }
    }
}
