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
const HEAD: &str = "cas history 2";
/// Longest file of states that is read: ten thousand targets take 2 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// Lanes that are remembered of a step: the machine's programs change now and then.
const MAX_LANES: usize = 8;
/// Stands where there is no state.
const NONE: &str = "-";
/// A longer log begins anew, and the one before it is kept.
const MAX_LOG_BYTES: u64 = 16 << 20;

/// The last states of the steps of a workspace.
#[derive(Debug)]
pub(crate) struct History {
    folder: PathBuf,
    states: BTreeMap<String, State>,
}

/// What a step was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// In its last build.
    pub(crate) now: Descriptor,
    /// In the last build that was different.
    pub(crate) before: Option<Descriptor>,
    /// In the last build of each lane, the last one first: its first entry is `now`.
    pub(crate) lanes: Vec<(String, Descriptor)>,
}

impl State {
    fn new(lane: &str, now: Descriptor) -> Self {
        Self { now, before: None, lanes: vec![(lane.to_owned(), now)] }
    }

    /// The last build in a lane whose name begins so.
    pub(crate) fn in_lane(&self, beginning: &str) -> Option<(&str, Descriptor)> {
        let found = self.lanes.iter().find(|(lane, _)| lane.starts_with(beginning));
        found.map(|(lane, now)| (&**lane, *now))
    }

    /// Takes up another build; whether it changes anything.
    fn note(&mut self, lane: &str, now: Descriptor) -> bool {
        if self.lanes.first().is_some_and(|(last, name)| last == lane && *name == now) {
            return false;
        }
        if self.now != now {
            self.before = Some(self.now);
            self.now = now;
        }
        self.lanes.retain(|(known, _)| known != lane);
        self.lanes.insert(0, (lane.to_owned(), now));
        self.lanes.truncate(MAX_LANES);
        true
    }
}

/// A step of a build.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) label: String,
    /// Name of the lane that its results are in.
    pub(crate) lane: String,
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
    pub(crate) fn state(&self, label: &str) -> Option<&State> {
        self.states.get(label)
    }

    /// Takes up what a build gave, and adds it to the log. `about` tells of the build as a whole.
    pub(crate) fn record(&mut self, built: &[Built], about: Value) -> Result<(), FsError> {
        let mut changed = Vec::new();
        for step in built {
            let is_same = match self.states.get_mut(&step.label) {
                Some(state) => !state.note(&step.lane, step.static_name),
                None => {
                    self.states.insert(step.label.clone(), State::new(&step.lane, step.static_name));
                    false
                }
            };
            if !is_same || step.ran_ms.is_some() {
                changed.push(json!({
                    "target": step.label,
                    "lane": step.lane,
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
        for (label, State { before, lanes, .. }) in &self.states {
            text.push_str(&before.map_or_else(|| NONE.to_owned(), |before| before.to_string()));
            for (lane, now) in lanes {
                // Writing to a string cannot fail.
                let _ = write!(text, " {lane}={now}");
            }
            let _ = writeln!(text, " {label}");
        }
        text
    }
}

fn parse(text: &str) -> Option<BTreeMap<String, State>> {
    let mut lines = text.lines();
    (lines.next()? == HEAD).then_some(())?;
    lines.map(parse_line).collect()
}

/// A label's folder may have spaces: it begins with `//`, which nothing else does, and is the rest.
fn parse_line(line: &str) -> Option<(String, State)> {
    let (state, label) = line.split_at_checked(line.find(" //")?)?;
    let mut parts = state.split(' ');
    let before = match parts.next()? {
        NONE => None,
        before => Some(before.parse().ok()?),
    };
    let mut lanes = Vec::new();
    for part in parts {
        let (lane, now) = part.split_once('=')?;
        lanes.push((lane.to_owned(), now.parse().ok()?));
    }
    let now = lanes.first()?.1;
    Some((label.get(1..)?.to_owned(), State { now, before, lanes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Descriptor {
        Descriptor::of(DigestFunction::Blake3, text.as_bytes())
    }

    #[test]
    fn states_are_read_as_they_were_written() {
        let mut both = State::new("strict", of("2"));
        assert!(both.note("host:ab", of("3")) && both.note("incremental:strict", of("3")));
        let states = BTreeMap::from([
            ("//:a".to_owned(), State::new("strict", of("1"))),
            ("//a b/c d:x".to_owned(), both),
            ("//a // b:x".to_owned(), State { before: Some(of("2")), ..State::new("strict", of("3")) }),
        ]);
        let history = History { folder: PathBuf::new(), states: states.clone() };
        assert_eq!(parse(&history.to_text()), Some(states));
        let one = of("1");
        for wrong in [
            "",
            "cas history 1\n",
            "cas history 2\n//:a\n",
            "cas history 2\n- //:a\n",
            &format!("cas history 2\nstrict={one} //:a\n"),
            "cas history 2\n- strict=nonsense //:a\n",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn each_lane_has_its_last_state() {
        let mut state = State::new("strict", of("1"));
        assert!(!state.note("strict", of("1")));
        assert!(state.note("host:ab", of("2")));
        assert!(state.note("strict", of("3")));
        let lanes = vec![("strict".to_owned(), of("3")), ("host:ab".to_owned(), of("2"))];
        assert_eq!(state, State { now: of("3"), before: Some(of("2")), lanes });
        for number in 0..20 {
            state.note(&format!("host:{number}"), of("4"));
        }
        assert_eq!((state.lanes.len(), &*state.lanes[0].0, state.before), (MAX_LANES, "host:19", Some(of("3"))));
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
        let mut history = History { folder: home.path().join("h"), states: BTreeMap::new() };
        let step = |name: &str, ran_ms| Built {
            label: "//:a".to_owned(),
            lane: "strict".to_owned(),
            static_name: of(name),
            action: Some(of("action")),
            ran_ms,
        };
        for (name, ran, before) in
            [("1", Some(5), None), ("1", None, None), ("2", Some(5), Some("1")), ("2", None, Some("1"))]
        {
            history.record(&[step(name, ran)], json!({})).expect("the disk has room");
            let state = history.state("//:a").map(|state| (state.now, state.before));
            assert_eq!(state, Some((of(name), before.map(of))));
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
