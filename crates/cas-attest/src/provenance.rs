//! Provenance of SLSA 1.0: what something was made of. Format: docs/formats/provenance.md.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::error::shown;
use crate::json::{self, Object};
use crate::{DocumentError, MAX_PAYLOAD_BYTES};

/// How a build of this kind is to be read.
pub const BUILD_TYPE: &str = "urn:cas:build:1";
/// Who built, where nobody says so.
pub const LOCAL_BUILDER: &str = "urn:cas:builder:local";

const WHAT: &str = "the provenance";
const WHAT_INPUT: &str = "an input of the provenance";
const MAX_ACTIONS: usize = 10_000;
const MAX_INPUTS: usize = 250_000;
const MAX_LABELS: usize = 10_000;
const MAX_DIGESTS: usize = 32;
const MAX_ANNOTATIONS: usize = 64;
const MAX_TEXT_BYTES: usize = 8 << 10;

/// What something was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Label of what was built.
    pub target: String,
    /// For each step, by label: the name of its action, `function:hex/size`.
    pub actions: BTreeMap<String, String>,
    /// Ids of the codecs of its archives.
    pub codecs: BTreeSet<String>,
    /// The function that names actions.
    pub digest_function: String,
    /// Labels of toolchains with programs of the machine.
    pub hosts: BTreeSet<String>,
    /// Labels of steps that kept state from earlier runs.
    pub incremental: BTreeSet<String>,
    /// Names of the weaker sandboxes that steps ran in.
    pub sandboxes: BTreeSet<String>,
    /// Everything that went into it.
    pub inputs: BTreeSet<Input>,
    /// Who built: a URI.
    pub builder: String,
    /// The version of the program that built.
    pub version: String,
}

/// Something that went into a build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// What it is: `source`, `link`, `debian`, `npm`, `cargo`, `download`, `image`.
    pub kind: String,
    /// What it is called.
    pub name: String,
    /// Its digests by the names of their functions, in lower-case hex; SHA-256 is one of them.
    pub digests: BTreeMap<String, String>,
    /// Bytes that it has.
    pub size: u64,
    /// Where it is from, where that has an address.
    pub uri: Option<String>,
}

impl Provenance {
    /// The predicate: JSON without white space, and the same for the same.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut internal = Map::new();
        internal.insert("actions".to_owned(), json!(self.actions));
        internal.insert("codecs".to_owned(), json!(self.codecs));
        internal.insert("digestFunction".to_owned(), json!(self.digest_function));
        internal.insert("formatVersion".to_owned(), json!(1));
        for (name, labels) in
            [("hosts", &self.hosts), ("incremental", &self.incremental), ("sandboxes", &self.sandboxes)]
        {
            if !labels.is_empty() {
                internal.insert(name.to_owned(), json!(labels));
            }
        }
        let inputs: Vec<Value> = self.inputs.iter().map(Input::to_json).collect();
        let document = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "target": self.target },
                "internalParameters": internal,
                "resolvedDependencies": inputs,
            },
            "runDetails": { "builder": { "id": self.builder, "version": { "cas": self.version } } },
        });
        document.to_string()
    }

    /// Reads a predicate. Fields that are not known are ignored.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for what is none, or of another kind of build.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = json::read(bytes, WHAT, MAX_PAYLOAD_BYTES)?;
        let definition = document.object("buildDefinition", WHAT)?;
        let kind = definition.text("buildType")?;
        if kind != BUILD_TYPE {
            let value = shown(&kind);
            return Err(DocumentError::Value { what: WHAT, field: "buildType", value, expected: BUILD_TYPE });
        }
        let internal = definition.object("internalParameters", WHAT)?;
        let (actions, total) = internal.texts("actions", MAX_ACTIONS)?;
        if actions.len() != total {
            return Err(DocumentError::Kind { what: WHAT, field: "actions", expected: "an object of texts" });
        }
        let inputs = definition.objects("resolvedDependencies", WHAT_INPUT, MAX_INPUTS)?;
        let builder = document.object("runDetails", WHAT)?.object("builder", WHAT)?;
        let (mut versions, _) = builder.texts("version", MAX_ANNOTATIONS)?;
        Ok(Self {
            target: definition.object("externalParameters", WHAT)?.short_text("target", MAX_TEXT_BYTES)?,
            actions,
            codecs: labels(&internal, "codecs")?,
            digest_function: internal.short_text("digestFunction", MAX_TEXT_BYTES)?,
            hosts: labels(&internal, "hosts")?,
            incremental: labels(&internal, "incremental")?,
            sandboxes: labels(&internal, "sandboxes")?,
            inputs: inputs.iter().map(Input::read).collect::<Result<_, _>>()?,
            builder: builder.short_text("id", MAX_TEXT_BYTES)?,
            version: versions.remove("cas").unwrap_or_default(),
        })
    }
}

fn labels(object: &Object<'_>, field: &'static str) -> Result<BTreeSet<String>, DocumentError> {
    let read = |value: &&serde_json::value::RawValue| serde_json::from_str(value.get());
    let labels: Result<BTreeSet<String>, _> = object.list(field, MAX_LABELS)?.iter().map(read).collect();
    labels.map_err(|_| DocumentError::Kind { what: WHAT, field, expected: "a list of texts" })
}

impl Input {
    fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("annotations".to_owned(), json!({ "kind": self.kind, "size": self.size.to_string() }));
        fields.insert("digest".to_owned(), json!(self.digests));
        fields.insert("name".to_owned(), json!(self.name));
        if let Some(uri) = &self.uri {
            fields.insert("uri".to_owned(), json!(uri));
        }
        Value::Object(fields)
    }

    fn read(object: &Object<'_>) -> Result<Self, DocumentError> {
        let missing = |field| DocumentError::Missing { what: WHAT_INPUT, field };
        let (digests, _) = object.texts("digest", MAX_DIGESTS)?;
        if !digests.contains_key("sha256") {
            return Err(missing("sha256"));
        }
        let (mut annotations, _) = object.texts("annotations", MAX_ANNOTATIONS)?;
        let size = annotations.remove("size").ok_or_else(|| missing("size"))?;
        let number = DocumentError::Kind { what: WHAT_INPUT, field: "size", expected: "a whole number" };
        Ok(Self {
            kind: annotations.remove("kind").ok_or_else(|| missing("kind"))?,
            name: object.short_text("name", MAX_TEXT_BYTES)?,
            digests,
            size: size.parse().map_err(|_| number)?,
            uri: object.raw("uri").map(|_| object.short_text("uri", MAX_TEXT_BYTES)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance() -> Provenance {
        let set = |text: &str| BTreeSet::from([text.to_owned()]);
        let input = |kind: &str, name: &str, uri: Option<&str>| Input {
            kind: kind.to_owned(),
            name: name.to_owned(),
            digests: BTreeMap::from([("sha256".to_owned(), "00".repeat(32))]),
            size: 7,
            uri: uri.map(str::to_owned),
        };
        Provenance {
            target: "//a:b".to_owned(),
            actions: BTreeMap::from([("//a:c".to_owned(), "blake3:00/7".to_owned())]),
            codecs: set("zstd"),
            digest_function: "blake3".to_owned(),
            hosts: set("//:host"),
            incremental: BTreeSet::new(),
            sandboxes: set("none"),
            inputs: BTreeSet::from([input("source", "b \"q\"", None), input("npm", "a@1", Some("pkg:npm/a@1"))]),
            builder: LOCAL_BUILDER.to_owned(),
            version: "1".to_owned(),
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_written_once_in_one_way() {
        let one = provenance();
        let text = one.encode();
        assert_eq!(Provenance::decode(text.as_bytes()).expect("it was written"), one);
        assert!(!text.contains("incremental") && !text.contains(": "), "{text}");
        assert!(text.find("pkg:npm") < text.find("source"), "sorted by kind: {text}");
    }

    #[test]
    fn what_is_no_provenance_of_ours_is_told() {
        let text = provenance().encode();
        for (from, to, said) in [
            (BUILD_TYPE, "https://example.com/other", "buildType"),
            ("\"sha256\"", "\"md5\"", "sha256"),
            ("\"size\":\"7\"", "\"size\":\"x\"", "size"),
            ("\"kind\"", "\"kinds\"", "kind"),
            ("[\"zstd\"]", "[7]", "codecs"),
            ("\"blake3:00/7\"", "7", "actions"),
            ("\"target\"", "\"targets\"", "target"),
            ("{\"buildDefinition\"", "{\"buildDefinition\":{},\"buildDefinition\"", "JSON"),
        ] {
            let wrong = text.replace(from, to);
            assert_ne!(wrong, text, "{from}");
            let error = Provenance::decode(wrong.as_bytes()).expect_err(from).to_string();
            assert!(error.contains(said), "{from}: {error}");
        }
    }
}
