//! The shape of `cas.toml` as serde sees it. Private: what others get is made of it in `manifest`.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

pub(crate) type Text = Spanned<String>;
type Table<T> = BTreeMap<Text, Spanned<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) workspace: Option<Spanned<Workspace>>,
    pub(crate) defaults: Option<Spanned<Defaults>>,
    pub(crate) version: Option<Text>,
    #[serde(default)]
    pub(crate) mirror: BTreeMap<Text, Text>,
    #[serde(default)]
    pub(crate) toolchain: Table<Toolchain>,
    #[serde(default)]
    pub(crate) fetch: Table<Fetch>,
    #[serde(default)]
    pub(crate) command: Table<Step>,
    #[serde(default)]
    pub(crate) test: Table<Step>,
    #[serde(default)]
    pub(crate) image: Table<Image>,
    #[serde(default)]
    pub(crate) artifact: Table<Artifact>,
    #[serde(default)]
    pub(crate) npm: Table<Npm>,
    #[serde(default)]
    pub(crate) run: Table<RunSection>,
    #[serde(default)]
    pub(crate) publish: Table<Publish>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workspace {
    #[serde(default)]
    pub(crate) members: Vec<String>,
    pub(crate) digest_function: Option<Text>,
    #[serde(default)]
    pub(crate) inputs: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Toolchain {
    pub(crate) debian: Option<Debian>,
    pub(crate) image: Option<Text>,
    pub(crate) host: Option<Host>,
    #[serde(default)]
    pub(crate) add: Vec<Spanned<Addition>>,
}

/// Something put into a root: outputs of a target, or a symbolic link.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Addition {
    pub(crate) from: Option<Text>,
    pub(crate) path: Option<Text>,
    pub(crate) to: Option<Text>,
    pub(crate) link: Option<Text>,
    pub(crate) target: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    pub(crate) identity: Option<String>,
    #[serde(default)]
    pub(crate) paths: Vec<Text>,
    #[serde(default)]
    pub(crate) probe: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Debian {
    pub(crate) suite: Text,
    pub(crate) components: Option<Vec<Text>>,
    pub(crate) packages: Vec<Text>,
    pub(crate) mirror: Option<Text>,
    pub(crate) keyring: Option<Text>,
    pub(crate) as_of: Option<Text>,
    pub(crate) also: Option<Vec<Archive>>,
    #[serde(default)]
    pub(crate) configure: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archive {
    pub(crate) suite: Text,
    pub(crate) components: Option<Vec<Text>>,
    pub(crate) mirror: Option<Text>,
    pub(crate) keyring: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fetch {
    pub(crate) url: Option<Text>,
    pub(crate) sha256: Option<Text>,
    pub(crate) npm: Option<Text>,
    pub(crate) lockfile: Option<Text>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Run {
    Shell(String),
    Program(Vec<String>),
}

/// A command or test; or a part of one, in `[defaults]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) toolchain: Option<Spanned<OneOrMany>>,
    pub(crate) run: Option<Spanned<Run>>,
    pub(crate) deps: Option<Vec<Text>>,
    pub(crate) inputs: Option<Vec<String>>,
    pub(crate) outputs: Option<Vec<Text>>,
    pub(crate) scratch: Option<Vec<Text>>,
    pub(crate) cache: Option<Vec<Text>>,
    #[serde(default)]
    pub(crate) env: BTreeMap<Text, String>,
    #[serde(default)]
    pub(crate) env_in: Vec<Text>,
    #[serde(default)]
    pub(crate) secrets: Vec<Text>,
    pub(crate) timeout: Option<Text>,
    pub(crate) memory: Option<Text>,
    pub(crate) cpus: Option<Spanned<u32>>,
    pub(crate) aslr: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defaults {
    pub(crate) toolchain: Option<Spanned<OneOrMany>>,
    pub(crate) scratch: Option<Vec<Text>>,
    #[serde(default)]
    pub(crate) env: BTreeMap<Text, String>,
    #[serde(default)]
    pub(crate) env_in: Vec<Text>,
    pub(crate) timeout: Option<Text>,
    pub(crate) memory: Option<Text>,
    pub(crate) cpus: Option<Spanned<u32>>,
    pub(crate) aslr: Option<bool>,
    #[serde(default)]
    pub(crate) command: Table<Step>,
    #[serde(default)]
    pub(crate) test: Table<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    pub(crate) base: Option<Text>,
    #[serde(default)]
    pub(crate) layers: Vec<Layer>,
    pub(crate) max_layers: Option<Spanned<u64>>,
    pub(crate) compression: Option<Text>,
    pub(crate) format: Option<Text>,
    #[serde(default)]
    pub(crate) config: ImageConfig,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<Text, String>,
    #[serde(default)]
    pub(crate) platforms: Vec<Text>,
    #[serde(default)]
    pub(crate) stamp: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layer {
    pub(crate) from: Option<Text>,
    pub(crate) files: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    pub(crate) exclude: Vec<Text>,
    pub(crate) path: Option<Text>,
    pub(crate) to: Text,
    #[serde(rename = "for")]
    pub(crate) purpose: Option<Text>,
    pub(crate) mode: Option<Text>,
    pub(crate) dir_mode: Option<Text>,
    pub(crate) owner: Option<Text>,
    pub(crate) split: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageConfig {
    pub(crate) entrypoint: Option<Vec<Text>>,
    pub(crate) cmd: Option<Vec<Text>>,
    pub(crate) user: Option<Text>,
    pub(crate) workdir: Option<Text>,
    #[serde(default)]
    pub(crate) env: BTreeMap<Text, String>,
    #[serde(default)]
    pub(crate) expose: Vec<Text>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<Text, String>,
    #[serde(default)]
    pub(crate) volumes: Vec<Text>,
    pub(crate) stop_signal: Option<Text>,
    pub(crate) healthcheck: Option<Healthcheck>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Healthcheck {
    pub(crate) test: Spanned<OneOrMany>,
    pub(crate) interval: Option<Text>,
    pub(crate) timeout: Option<Text>,
    pub(crate) start_period: Option<Text>,
    pub(crate) start_interval: Option<Text>,
    pub(crate) retries: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Artifact {
    #[serde(rename = "type")]
    pub(crate) kind: Text,
    #[serde(default)]
    pub(crate) files: Vec<Spanned<ArtifactFile>>,
    pub(crate) config: Option<Spanned<ArtifactConfig>>,
    pub(crate) subject: Option<Text>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<Text, String>,
    #[serde(default)]
    pub(crate) stamp: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArtifactFile {
    pub(crate) from: Option<Text>,
    pub(crate) path: Option<Text>,
    #[serde(default)]
    pub(crate) exclude: Vec<Text>,
    pub(crate) media_type: Option<Text>,
    pub(crate) title: Option<Text>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<Text, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArtifactConfig {
    pub(crate) from: Option<Text>,
    pub(crate) path: Option<Text>,
    pub(crate) media_type: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Npm {
    pub(crate) from: Option<Spanned<OneOrMany>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunSection {
    pub(crate) toolchain: Option<Spanned<OneOrMany>>,
    pub(crate) run: Option<Spanned<Run>>,
    pub(crate) deps: Option<Vec<Text>>,
    #[serde(default)]
    pub(crate) env: BTreeMap<Text, String>,
    #[serde(default)]
    pub(crate) env_in: Vec<Text>,
    pub(crate) live: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    pub(crate) of: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    pub(crate) to: Vec<Text>,
    #[serde(default)]
    pub(crate) moving: Vec<Text>,
    pub(crate) sign: Option<Text>,
    #[serde(default)]
    pub(crate) attest: Vec<Text>,
    pub(crate) inputs: Option<bool>,
    #[serde(default)]
    pub(crate) gates: Table<Gate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gate {
    #[serde(default)]
    pub(crate) run: Vec<Text>,
    pub(crate) timeout: Option<Text>,
    #[serde(default)]
    pub(crate) env_in: Vec<Text>,
    #[serde(default)]
    pub(crate) secrets: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}
