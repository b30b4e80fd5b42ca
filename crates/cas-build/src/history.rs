//! What the last builds of a workspace were made of, and a log of builds. Rules: docs/formats/history.md.
//!
//! Only told, never relied on: a history that is lost or damaged costs explanations.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_fs::FsError;
use cas_store::Store;
use serde_json::{Value, json};

/// The first line of a file of states.
const HEAD: &str = "cas history 1";
/// Longest file of states that is read: ten thousand targets take 2 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// A longer log begins anew, and the one before it is kept.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// The last states of the steps of a workspace.
#[derive(Debug)]
pub(crate) struct History {
    folder: PathBuf,
    states: BTreeMap<String, State>,
}

/// What a step was made of in its last build, and in the last one that was different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) now: Descriptor,
    pub(crate) before: Option<Descriptor>,
}

/// A step of a build.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) label: String,
    /// Names what it is made of.
    pub(crate) static_name: Descriptor,
    /// `None` for one that failed.
    pub(crate) action: Option<Descriptor>,
    /// How long it ran; `None` where an equal step had given the outputs.
    pub(crate) ran_ms: Option<u64>,
}

/// Where what is remembered of the builds of the workspace at `root` is.
#[must_use]
pub fn history_folder(store: &Store, root: &Path) -> PathBuf {
    let name = Digest::of(DigestFunction::Blake3, root.as_os_str().as_bytes()).to_hex();
    store.folder().join("history").join(&name[..32])
}

impl History {
    /// Reads the history of the workspace at `root`; what cannot be read is empty.
    pub(crate) fn open(store: &Store, root: &Path) -> Self {
        let folder = history_folder(store, root);
        let states = cas_fs::read_limited(&folder.join("states"), MAX_BYTES)
            .ok()
            .and_then(|bytes| parse(std::str::from_utf8(&bytes).ok()?))
            .unwrap_or_default();
        Self { folder, states }
    }

    /// The last states of a step.
    pub(crate) fn state(&self, label: &str) -> Option<State> {
        self.states.get(label).copied()
    }

    /// Takes up what a build gave, and adds it to the log. `about` tells of the build as a whole.
    pub(crate) fn record(&mut self, built: &[Built], about: Value) -> Result<(), FsError> {
        let mut changed = Vec::new();
        for step in built {
            let known = self.states.get(&step.label).copied();
            let is_same = known.is_some_and(|state| state.now == step.static_name);
            if !is_same {
                let before = known.map(|state| state.now);
                self.states.insert(step.label.clone(), State { now: step.static_name, before });
            }
            if !is_same || step.ran_ms.is_some() {
                changed.push(json!({
                    "target": step.label,
                    "made_of": step.static_name.to_string(),
                    "action": step.action.map(|action| action.to_string()),
                    "ran_ms": step.ran_ms,
                }));
            }
        }
        cas_fs::create_dir_all(&self.folder)?;
        if !changed.is_empty() {
            cas_fs::replace(&self.folder.join("states"), self.to_text().as_bytes())?;
        }
        let mut line = json!({ "build": about, "steps": built.len(), "changed": changed }).to_string();
        line.push('\n');
        let log = self.folder.join("log");
        if cas_fs::metadata(&log).is_ok_and(|metadata| metadata.len() > MAX_LOG_BYTES) {
            cas_fs::rename(&log, &self.folder.join("log.1"))?;
        }
        match cas_fs::append(&log, line.as_bytes()) {
            Err(error) if error.is_not_found() => cas_fs::replace(&log, line.as_bytes()),
            other => other,
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (label, State { now, before }) in &self.states {
            // Writing to a string cannot fail.
            let _ = match before {
                Some(before) => writeln!(text, "{label} {now} {before}"),
                None => writeln!(text, "{label} {now}"),
            };
        }
        text
    }
}

fn parse(text: &str) -> Option<BTreeMap<String, State>> {
    let mut lines = text.lines();
    (lines.next()? == HEAD).then_some(())?;
    let mut states = BTreeMap::new();
    for line in lines {
        // A label's folder may have spaces, descriptors have none.
        let mut parts: Vec<&str> = line.rsplitn(3, ' ').collect();
        parts.reverse();
        let last = parts.pop()?.parse().ok()?;
        let state = match parts.pop().map(|text| (text, text.parse())) {
            Some((_, Ok(now))) => State { now, before: Some(last) },
            Some((text, Err(_))) => {
                parts.push(text);
                State { now: last, before: None }
            }
            None => return None,
        };
        states.insert(parts.join(" "), state);
    }
    Some(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_as_they_were_written() {
        let of = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        let states = BTreeMap::from([
            ("//:a".to_owned(), State { now: of("1"), before: None }),
            ("//a b/c d:x".to_owned(), State { now: of("2"), before: None }),
            ("//a b:x".to_owned(), State { now: of("3"), before: Some(of("2")) }),
        ]);
        let history = History { folder: PathBuf::new(), states: states.clone() };
        assert_eq!(parse(&history.to_text()), Some(states));
        for wrong in ["", "cas history 2\n", "cas history 1\n//:a\n", "cas history 1\n//:a nonsense\n"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_long_log_begins_anew_and_the_old_one_stays() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let mut history = History { folder: home.path().to_owned(), states: BTreeMap::new() };
        let log = home.path().join("log");
        let long = cas_fs::create_new(&log, 0o644).expect("the folder is ours").set_len(MAX_LOG_BYTES + 1);
        long.expect("the file system has sparse files");
        history.record(&[], json!({})).expect("the disk has room");
        assert_eq!(cas_fs::metadata(&home.path().join("log.1")).expect("it was kept").len(), MAX_LOG_BYTES + 1);
        assert_eq!(cas_fs::read_to_string(&log).expect("it was begun").lines().count(), 1);
    }

    #[test]
    fn the_last_different_state_is_kept() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let of = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        let mut history = History { folder: home.path().join("h"), states: BTreeMap::new() };
        let step = |name: &str, ran_ms| Built {
            label: "//:a".to_owned(),
            static_name: of(name),
            action: Some(of("action")),
            ran_ms,
        };
        for (name, ran, before) in
            [("1", Some(5), None), ("1", None, None), ("2", Some(5), Some("1")), ("2", None, Some("1"))]
        {
            history.record(&[step(name, ran)], json!({})).expect("the disk has room");
            assert_eq!(history.state("//:a"), Some(State { now: of(name), before: before.map(of) }));
        }
        let log = cas_fs::read_to_string(&home.path().join("h/log")).expect("it was written");
        let changed: Vec<usize> = log
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).expect("it is JSON")["changed"].as_array().map_or(9, Vec::len)
            })
            .collect();
        assert_eq!(changed, [1, 0, 1, 0]);
    }
}
