//! How long steps took when they last ran, for who wants to know what was saved. Rules: docs/formats/history.md.
//!
//! Only told, never relied on, as all of the history.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cas_store::Store;

use crate::history::{Built, history_folder};

/// The first line of the file.
const HEAD: &str = "cas times 1";
/// Longest file that is read: ten thousand steps take half a MiB.
const MAX_BYTES: u64 = 64 << 20;

/// Takes up how long steps took, and tells how long those once took that did not run. A step that never ran in this workspace
/// counts nothing.
pub(crate) fn record(store: &Store, root: &Path, steps: &[Built]) -> Duration {
    let path = history_folder(store, root).join("times");
    let bytes = cas_fs::read_limited(&path, MAX_BYTES).unwrap_or_default();
    let mut known = parse(&bytes).unwrap_or_default();
    let cached = steps.iter().filter(|step| step.action.is_some() && step.ran_ms.is_none());
    let saved = cached.filter_map(|step| known.get(&step.label)).fold(0_u64, |sum, took| sum.saturating_add(*took));
    let ran: Vec<(String, u64)> = steps.iter().filter_map(|step| Some((step.label.clone(), step.ran_ms?))).collect();
    if !ran.is_empty() {
        known.extend(ran);
        // What cannot be written down is not told next time.
        let _ = cas_fs::replace(&path, to_text(&known).as_bytes());
    }
    Duration::from_millis(saved)
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<String, u64>> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    (lines.next()? == HEAD).then_some(())?;
    lines
        .map(|line| line.rsplit_once('\t').and_then(|(label, took)| Some((label.to_owned(), took.parse().ok()?))))
        .collect()
}

fn to_text(known: &BTreeMap<String, u64>) -> String {
    let mut text = format!("{HEAD}\n");
    // A label with a line in it has no place here.
    for (label, took) in known.iter().filter(|(label, _)| !label.contains(['\n', '\r'])) {
        text.push_str(&format!("{label}\t{took}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let known = BTreeMap::from([("//a b:x".to_owned(), 12), ("//:y".to_owned(), 0)]);
        assert_eq!(parse(to_text(&known).as_bytes()), Some(known));
        for wrong in ["", "cas times 2\n", "cas times 1\nx\n", "cas times 1\nx\t-1\n"] {
            assert_eq!(parse(wrong.as_bytes()), None, "{wrong}");
        }
        let odd = BTreeMap::from([("//a\nb:x".to_owned(), 12)]);
        assert_eq!(parse(to_text(&odd).as_bytes()), Some(BTreeMap::new()));
    }
}
