//! What `cas test` adds to a build: parts of the tests, what is noted of each, the report for CI systems.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cas_build::{BuildError, Event, Origin};
use cas_config::Label;
use serde_json::{Value, json};

use crate::args::Shard;
use crate::commands::text;
use crate::junit::{Case, Problem, Verdict, document};
use crate::render::{self, counted};

/// What was noted of targets while they were built.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<BTreeMap<Label, Note>>);

/// What was noted of one target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note {
    /// All attempts together.
    elapsed: Duration,
    is_cached: bool,
    /// The failures that were followed by another attempt.
    earlier: Vec<Problem>,
}

impl Notes {
    /// Takes notes, and tells of tests that do not give the same each time.
    pub(crate) fn event(&self, event: &Event<'_>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Step { label, origin } => {
                let note = notes.entry((*label).clone()).or_default();
                match origin {
                    Origin::Cached => note.is_cached = true,
                    Origin::Ran { elapsed, .. } => note.elapsed += *elapsed,
                }
            }
            Event::Attempt { label, elapsed, error, is_last, passed_before } => {
                let note = notes.entry((*label).clone()).or_default();
                note.elapsed += *elapsed;
                if *passed_before {
                    render::note(&format!("warning: `{label}` passed before and failed now, with the same inputs"));
                }
                if !*is_last {
                    let problem = problem(error);
                    render::note(&format!("{}; trying it again", problem.message));
                    note.earlier.push(problem);
                }
            }
            _ => {}
        }
    }

    fn of(&self, label: &Label) -> Note {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(label).cloned().unwrap_or_default()
    }

    /// How often a target failed before it passed.
    pub(crate) fn failure_count(&self, label: &Label) -> usize {
        self.of(label).earlier.len()
    }
}

/// The part of what is selected that a shard has: of `N`, each `N`th one in the order of the labels, so that parts have
/// equally many and the tests of one package are spread.
pub(crate) fn part(labels: Vec<Label>, shard: Shard) -> Vec<Label> {
    let own = |position: usize| position % shard.count == shard.number - 1;
    labels.into_iter().enumerate().filter(|(position, _)| own(*position)).map(|(_, label)| label).collect()
}

/// What is told when there is nothing to test.
pub(crate) fn nothing(shard: Option<Shard>) -> String {
    match shard {
        Some(Shard { number, count }) => format!("note: no test is in part {number} of {count}"),
        None => "note: there is no test here".to_owned(),
    }
}

/// Says of a row whether its test passed at once.
pub(crate) fn mark(row: &mut Value, label: &Label, notes: &Notes) {
    let failure_count = notes.failure_count(label);
    if failure_count > 0 && text(&row["status"]) == "passed" {
        row["status"] = json!("flaky");
        row["attempts"] = json!(failure_count + 1);
        render::note(&format!(
            "warning: `{label}` is flaky: it failed {} before it passed",
            counted(failure_count as u64, "time")
        ));
        render::note("hint: that it passed is not kept, and the next `cas test` runs it again");
    }
}

/// Writes the report.
pub(crate) fn report(
    path: &Path,
    labels: &[Label],
    failures: &BTreeMap<Label, BuildError>,
    untried: &[Label],
    notes: &Notes,
) -> Result<(), BuildError> {
    // What tests needed and did not get is part of the report, too.
    let mut all: Vec<&Label> = labels.iter().chain(failures.keys()).collect();
    all.sort();
    all.dedup();
    let case = |label: &Label| {
        let Note { elapsed, is_cached, earlier } = notes.of(label);
        let verdict = match failures.get(label) {
            Some(error @ BuildError::Step { .. }) if labels.contains(label) => Verdict::Failed(problem(error)),
            Some(error) => Verdict::Error(problem(error)),
            None if untried.contains(label) => Verdict::Error(Problem {
                message: "not tried, because of what failed before".to_owned(),
                text: String::new(),
            }),
            None => Verdict::Passed,
        };
        let package = label.package.as_ref().map_or_else(|| "//".to_owned(), |package| format!("//{package}"));
        Case { package, name: label.name.to_string(), elapsed, is_cached, earlier, verdict }
    };
    let cases: Vec<Case> = all.into_iter().map(case).collect();
    if let Some(folder) = path.parent() {
        cas_fs::create_dir_all(folder)?;
    }
    Ok(cas_fs::write_atomic(path, document(&cases).as_bytes())?)
}

fn problem(error: &BuildError) -> Problem {
    let mut lines: Vec<String> = render::causes(error).iter().map(|cause| format!("cause: {cause}")).collect();
    if let BuildError::Step { log, .. } = error {
        lines.push(log.tail.clone());
    }
    lines.extend(error.hint());
    Problem { message: error.to_string(), text: lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_all_of_it_together_and_share_nothing() {
        let labels: Vec<Label> =
            (0..17).map(|number| Label { package: None, name: format!("t{number:02}").into() }).collect();
        for count in 1..20 {
            let mut together = Vec::new();
            for number in 1..=count {
                let part = part(labels.clone(), Shard { number, count });
                assert!(part.len().abs_diff(labels.len() / count) <= 1);
                together.extend(part);
            }
            together.sort();
            assert_eq!(together, labels, "{count} parts");
        }
    }
}
