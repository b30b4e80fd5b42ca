//! docs/cas.schema.json: made of the shape of `cas.toml` and of the words in docs/book/keys.toml. JSON Schema, draft 7, which
//! editors read.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::shape::{Field, Shape, ShapeKind, Type, shapes};

/// Names of targets (docs/formats/cas-toml.md, Labels).
const NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._-]*$";
/// The tables of a file whose keys are names of targets.
const TARGETS: [&str; 8] = ["toolchain", "fetch", "command", "test", "image", "artifact", "npm", "run"];

/// What docs/book/keys.toml says.
pub(crate) struct Words(toml::Table);

impl Words {
    pub(crate) fn read(root: &Path) -> Self {
        Self(std::fs::read_to_string(root.join("docs/book/keys.toml")).unwrap().parse().unwrap())
    }

    /// What is said of a key of a structure.
    pub(crate) fn of(&self, shape: &str, key: &str) -> Option<&toml::Table> {
        let own = self.0.get(&format!("{shape}.{key}"));
        let of_step = || self.0.get(&format!("Step.{key}")).filter(|_| shape == "Defaults");
        own.or_else(of_step).and_then(toml::Value::as_table)
    }

    fn one_of(&self, shape: &str) -> Option<Value> {
        let sets = self.0.get(shape)?.get("one_of")?.as_array()?;
        Some(sets.iter().map(|set| json!({ "required": json_of(set) })).collect())
    }
}

fn json_of(value: &toml::Value) -> Value {
    serde_json::to_value(value).unwrap()
}

/// The schema.
pub(crate) fn schema(root: &Path) -> Value {
    let (shapes, words) = (shapes(root), Words::read(root));
    let mut definitions = Map::new();
    let mut file = json!({});
    for shape in &shapes {
        let schema = of_shape(shape, &words);
        if shape.name == "File" {
            file = schema;
        } else {
            definitions.insert(shape.name.clone(), schema);
        }
    }
    file["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    file["title"] = json!("cas.toml");
    file["description"] = json!("A package of a workspace, or its root");
    file["definitions"] = Value::Object(definitions);
    file
}

fn of_shape(shape: &Shape, words: &Words) -> Value {
    match &shape.kind {
        ShapeKind::Choice(forms) => {
            json!({ "anyOf": forms.iter().map(|form| of_type(form, &Map::new())).collect::<Vec<_>>() })
        }
        ShapeKind::Structure(fields) => {
            let properties = fields.iter().map(|field| (field.key.clone(), property(&shape.name, field, words)));
            let properties: Map<String, Value> = properties.collect();
            let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
            let required: Vec<&str> =
                fields.iter().filter(|field| field.is_required).map(|field| &*field.key).collect();
            if !required.is_empty() {
                schema["required"] = json!(required);
            }
            if let Some(sets) = words.one_of(&shape.name) {
                schema["oneOf"] = sets;
            }
            schema
        }
    }
}

fn property(shape: &str, field: &Field, words: &Words) -> Value {
    let said = words.of(shape, &field.key);
    let mut innermost = Map::new();
    let mut outer = Map::new();
    for (word, value) in said.into_iter().flatten() {
        match word.as_str() {
            "pattern" | "enum" | "minimum" => innermost.insert(word.clone(), json_of(value)),
            "default" | "examples" => outer.insert(word.clone(), json_of(value)),
            "about" => outer.insert("description".to_owned(), json_of(value)),
            other => panic!("`{other}` of `{shape}.{}` is no word that is known", field.key),
        };
    }
    let mut schema = of_type(&field.of, &innermost);
    if shape == "File" && TARGETS.contains(&&*field.key) {
        schema["propertyNames"] = json!({ "pattern": NAME });
    }
    if schema.get("$ref").is_some() {
        // Beside a reference nothing else counts.
        schema = json!({ "allOf": [schema] });
    }
    schema.as_object_mut().unwrap().extend(outer);
    schema
}

/// A type; what is said of the innermost text or number goes there.
fn of_type(of: &Type, innermost: &Map<String, Value>) -> Value {
    let plain = |kind: &str| {
        let mut schema = innermost.clone();
        schema.insert("type".to_owned(), json!(kind));
        Value::Object(schema)
    };
    match of {
        Type::Text => plain("string"),
        Type::Number => {
            let mut schema = plain("integer");
            if schema.get("minimum").is_none() {
                schema["minimum"] = json!(0);
            }
            schema
        }
        Type::Truth => plain("boolean"),
        Type::List(of) => json!({ "type": "array", "items": of_type(of, innermost) }),
        Type::Table(of) => json!({ "type": "object", "additionalProperties": of_type(of, innermost) }),
        Type::Named(name) => json!({ "$ref": format!("#/definitions/{name}") }),
    }
}

/// The keys that docs/book/keys.toml says nothing of.
pub(crate) fn wordless(root: &Path) -> Vec<String> {
    let (shapes, words) = (shapes(root), Words::read(root));
    let mut missing = Vec::new();
    for shape in &shapes {
        let ShapeKind::Structure(fields) = &shape.kind else { continue };
        let is_missing =
            |field: &&Field| words.of(&shape.name, &field.key).is_none_or(|said| !said.contains_key("about"));
        missing.extend(fields.iter().filter(is_missing).map(|field| format!("{}.{}", shape.name, field.key)));
    }
    missing
}
