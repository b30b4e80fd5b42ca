//! What an image takes over from the one below it: configuration and history.
//!
//! The rules are those of Docker's `FROM` (moby `builder/dockerfile`, BuildKit `dockerfile2llb`): what is set above wins,
//! variables and labels are joined by name, ports and volumes are joined, and who sets an entry point means another program,
//! so the inherited arguments go. Fields: OCI image-spec 1.1, config.md, and Docker's `Healthcheck` beside them.
//!
//! Not here: which image is below (`cas-build`). What no container runs with (`OnBuild`) is left out.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::document::{null_is_default, variables, without_nul};
use crate::json::{self, Object};
use crate::{Healthcheck, ImageConfig, ParseDocumentError};

/// An entry of an image's history. Every entry but those of an empty layer stands for a layer, the lowest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When, as RFC 3339 has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Anything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it changed the configuration alone.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

/// What an image gives to those that are made on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Its configuration. When it was made is not in there: that is of no other image.
    pub config: ImageConfig,
    /// Its history.
    pub history: Vec<HistoryEntry>,
    /// What runs texts of its check; empty for `/bin/sh -c`. It is of no other image.
    pub shell: Vec<String>,
}

#[derive(Deserialize)]
struct RawImage {
    config: Option<Object<RawExecution>>,
    history: Option<Vec<Object<HistoryEntry>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawExecution {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Words>,
    cmd: Option<Words>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<Object<RawHealthcheck>>,
    shell: Option<Vec<String>>,
}

/// A command: old versions of Docker wrote one word as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawHealthcheck {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    start_interval: Option<i64>,
    retries: Option<i64>,
}

impl Inherited {
    /// Reads what a configuration gives.
    ///
    /// # Errors
    ///
    /// [`ParseDocumentError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseDocumentError> {
        let Object(raw): Object<RawImage> = json::read(bytes, "configuration of an image")?;
        let history = raw.history.unwrap_or_default().into_iter().map(|entry| entry.0).collect();
        let Some(Object(raw)) = raw.config else { return Ok(Self { history, ..Self::default() }) };
        let set = |text: Option<String>| text.filter(|text| !text.is_empty());
        let words = |words: Option<Words>| match words {
            Some(Words::One(word)) => Some(vec![word]),
            Some(Words::Many(words)) => Some(words),
            None => None,
        };
        let env = raw.env.unwrap_or_default();
        // What is below zero is as good as not said.
        let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
        let check = raw.healthcheck.and_then(|Object(raw)| {
            Some(Healthcheck {
                test: raw.test.filter(|test| !test.is_empty())?,
                interval_ns: number(raw.interval),
                timeout_ns: number(raw.timeout),
                start_period_ns: number(raw.start_period),
                start_interval_ns: number(raw.start_interval),
                retries: number(raw.retries),
            })
        });
        let shell = raw.shell.unwrap_or_default();
        without_nul("Shell", &shell)?;
        without_nul("Healthcheck", check.iter().flat_map(|check| &check.test))?;
        without_nul("Env", &env)?;
        without_nul("User", &raw.user)?;
        without_nul("WorkingDir", &raw.working_dir)?;
        without_nul("Volumes", raw.volumes.iter().flat_map(BTreeMap::keys))?;
        let config = ImageConfig {
            user: set(raw.user),
            exposed_ports: raw.exposed_ports.unwrap_or_default().into_keys().collect(),
            env: variables(&env),
            entrypoint: words(raw.entrypoint),
            cmd: words(raw.cmd),
            volumes: raw.volumes.unwrap_or_default().into_keys().collect(),
            // Some programs write one without `/`, which other programs take as one from the root on, or refuse.
            working_dir: set(raw.working_dir).map(|path| if path.starts_with('/') { path } else { format!("/{path}") }),
            labels: raw.labels.unwrap_or_default(),
            stop_signal: set(raw.stop_signal),
            healthcheck: check,
            created: None,
        };
        without_nul("Entrypoint", config.entrypoint.iter().flatten())?;
        without_nul("Cmd", config.cmd.iter().flatten())?;
        Ok(Self { config, history, shell })
    }

    /// Drops a history that tells of more layers than there are: nobody could say which entry is of which layer.
    pub fn fit_history(&mut self, layer_count: usize) {
        if self.history.iter().filter(|entry| !entry.empty_layer).count() > layer_count {
            self.history.clear();
        }
    }
}

impl ImageConfig {
    /// Takes over from the image below what it does not say itself.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let joined = |mut below: Vec<String>, own: Vec<String>| {
            below.extend(own);
            below.sort();
            below.dedup();
            below
        };
        let merged = |mut below: BTreeMap<String, String>, own: BTreeMap<String, String>| {
            below.extend(own);
            below
        };
        // Arguments are of the program that they were written for.
        let cmd = if self.entrypoint.is_some() { self.cmd } else { self.cmd.or(below.cmd) };
        Self {
            user: self.user.or(below.user),
            exposed_ports: joined(below.exposed_ports, self.exposed_ports),
            env: merged(below.env, self.env),
            entrypoint: self.entrypoint.or(below.entrypoint),
            cmd,
            volumes: joined(below.volumes, self.volumes),
            working_dir: self.working_dir.or(below.working_dir),
            labels: merged(below.labels, self.labels),
            stop_signal: self.stop_signal.or(below.stop_signal),
            healthcheck: self.healthcheck.or(below.healthcheck),
            created: self.created,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z",
        "config":{"User":"node","ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin","A=1","odd","=x"],"Entrypoint":["/init"],
        "Cmd":["serve"],"Volumes":{"/data":{}},"WorkingDir":"/srv","Labels":{"a":"1","b":"2"},"StopSignal":"SIGINT",
        "Healthcheck":{"Test":["CMD","true"],"Interval":30000000000,"Retries":3},"OnBuild":null,"Shell":["/bin/sh"]},
        "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created":"2026-01-01T00:00:00Z","created_by":"ADD x","comment":"c","more":1},
        {"created_by":"ENV A=1","author":"me","empty_layer":true}]}"#;

    fn base() -> ImageConfig {
        Inherited::parse(BASE.as_bytes()).expect("it is a configuration").config
    }

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn what_is_not_said_is_taken_over() {
        let own = ImageConfig::default().over(base());
        assert_eq!(own, base());
        assert_eq!((own.user.as_deref(), own.working_dir.as_deref()), (Some("node"), Some("/srv")));
        assert_eq!((own.entrypoint, own.cmd), (words(&["/init"]), words(&["serve"])));
        assert_eq!(own.env.keys().collect::<Vec<_>>(), ["A", "PATH"]);
        assert_eq!(own.healthcheck.map(|check| (check.interval_ns, check.retries)), Some((30_000_000_000, 3)));
        assert_eq!(own.created, None);
    }

    #[test]
    fn what_is_said_wins_and_an_entry_point_takes_the_arguments_away() {
        for (entrypoint, cmd, expected) in [
            (None, words(&["x"]), (words(&["/init"]), words(&["x"]))),
            (words(&["/own"]), None, (words(&["/own"]), None)),
            (words(&["/own"]), words(&["x"]), (words(&["/own"]), words(&["x"]))),
            (words(&[]), None, (words(&[]), None)),
            (None, words(&[]), (words(&["/init"]), words(&[]))),
        ] {
            let own = ImageConfig { entrypoint: entrypoint.clone(), cmd: cmd.clone(), ..ImageConfig::default() };
            let made = own.over(base());
            assert_eq!((made.entrypoint, made.cmd), expected, "{entrypoint:?} {cmd:?}");
        }
        let own = ImageConfig {
            user: Some("0".to_owned()),
            exposed_ports: vec!["443/tcp".to_owned(), "80/tcp".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "2".to_owned())]),
            volumes: vec!["/cache".to_owned()],
            labels: BTreeMap::from([("b".to_owned(), "3".to_owned())]),
            stop_signal: Some("SIGTERM".to_owned()),
            ..ImageConfig::default()
        };
        let made = own.over(base());
        assert_eq!((made.user.as_deref(), made.stop_signal.as_deref()), (Some("0"), Some("SIGTERM")));
        assert_eq!((&made.env["A"][..], &made.env["PATH"][..]), ("2", "/bin"));
        assert_eq!((&made.labels["a"][..], &made.labels["b"][..]), ("1", "3"));
        assert_eq!((made.exposed_ports, made.volumes.len()), (vec!["443/tcp".to_owned(), "80/tcp".to_owned()], 2));
    }

    #[test]
    fn history_is_kept_as_far_as_it_can_be_of_these_layers() {
        let read = || Inherited::parse(BASE.as_bytes()).expect("it is a configuration");
        let mut fits = read();
        fits.fit_history(1);
        assert_eq!(fits.history, read().history);
        let text = serde_json::to_string(&fits.history).expect("it has JSON");
        assert_eq!(
            text,
            r#"[{"created":"2026-01-01T00:00:00Z","created_by":"ADD x","comment":"c"},{"created_by":"ENV A=1","author":"me","empty_layer":true}]"#
        );
        let mut longer = read();
        longer.fit_history(0);
        assert_eq!(longer.history, []);
    }

    #[test]
    fn what_docker_writes_is_read() {
        for text in [
            r#"{"config":null,"history":null}"#,
            r#"{"config":{"Env":null,"Cmd":null,"Entrypoint":null,"Labels":null,"Volumes":null,"ExposedPorts":null,"User":"","WorkingDir":"","Healthcheck":null}}"#,
            r#"{"config":{"Healthcheck":{"Test":[]}}}"#,
        ] {
            assert_eq!(Inherited::parse(text.as_bytes()).expect("it is read"), Inherited::default(), "{text}");
        }
        let one = Inherited::parse(br#"{"config":{"Cmd":"/x"}}"#).expect("it is read");
        assert_eq!(one.config.cmd, words(&["/x"]));
        let relative = Inherited::parse(br#"{"config":{"WorkingDir":"srv/app"}}"#).expect("it is read");
        assert_eq!(relative.config.working_dir.as_deref(), Some("/srv/app"));
        assert!(Inherited::parse(br#"{"config":7}"#).is_err());
        for (text, field) in [
            (r#"{"Env":["A=\u0000"]}"#, "Env"),
            (r#"{"User":"a\u0000"}"#, "User"),
            (r#"{"WorkingDir":"/a\u0000"}"#, "WorkingDir"),
            (r#"{"Volumes":{"/a\u0000":{}}}"#, "Volumes"),
            (r#"{"Entrypoint":["/a\u0000"]}"#, "Entrypoint"),
            (r#"{"Cmd":["/a\u0000"]}"#, "Cmd"),
        ] {
            let error = Inherited::parse(format!(r#"{{"config":{text}}}"#).as_bytes()).expect_err(text);
            assert_eq!(error.to_string(), format!("its `{field}` holds a NUL byte"));
        }
    }
}
