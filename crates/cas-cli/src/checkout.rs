//! `cas checkout`: outputs at their own places in the workspace.

use std::collections::{BTreeMap, BTreeSet};

use cas_build::{Force, Output, Place, Workspace, checkout, clean_checkout};
use cas_config::{Fetch, Label, LockfileKind, Pattern, TargetKind};
use cas_store::Store;
use cas_tree::RelPath;
use serde_json::{Value, json};

use crate::args::{CheckoutArgs, Global};
use crate::commands::{Options, build_options, healed, open_store, open_workspace, outputs, patterns, print, text};
use crate::exit::Exit;
use crate::render::Failure;

pub(crate) fn run(global: &Global, args: &CheckoutArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let store = open_store(global)?;
    let force = if args.force { Force::Yes } else { Force::No };
    let places = if args.clean {
        let labels = match args.targets.is_empty() {
            true => None,
            false => {
                Some(selected(&workspace, package.as_ref(), &args.targets)?.iter().map(Label::to_string).collect())
            }
        };
        clean_checkout(&workspace, &store, labels.as_ref(), force)?
    } else {
        let labels: Vec<Label> = selected(&workspace, package.as_ref(), &args.targets)?.into_iter().collect();
        let options = build_options(None, &args.inputs);
        built_at_places(&workspace, &store, &labels, &options, force)?
    };
    print(global, &places.iter().map(describe).collect::<Vec<_>>(), line)?;
    Ok(Exit::Done)
}

/// Builds targets and checks out what they give.
pub(crate) fn built_at_places(
    workspace: &Workspace,
    store: &Store,
    labels: &[Label],
    options: &Options,
    force: Force,
) -> Result<Vec<Place>, Failure> {
    let mut work = || -> Result<Vec<Place>, Failure> {
        let built: BTreeMap<Label, Output> = outputs(workspace, store, labels, options)?;
        Ok(checkout(workspace, store, &built, force)?)
    };
    healed(store, &mut work)
}

/// What is named, and of what a pattern selects, what has a place that others than steps look at.
fn selected(workspace: &Workspace, package: Option<&RelPath>, texts: &[String]) -> Result<BTreeSet<Label>, Failure> {
    let mut labels = BTreeSet::new();
    for pattern in patterns(texts)? {
        let is_exact = matches!(pattern, Pattern::One(_));
        let found = workspace.select(package, &[pattern])?;
        labels.extend(found.into_iter().filter(|label| is_exact || has_place(workspace, label)));
    }
    Ok(labels)
}

/// Whether a target gives something that has a place outside of steps.
pub(crate) fn is_placed(workspace: &Workspace, label: &Label) -> bool {
    match workspace.target(label).map(|target| &target.kind) {
        Some(TargetKind::Fetch(Fetch::Url { .. } | Fetch::Npm(_))) => true,
        _ => has_place(workspace, label),
    }
}

fn has_place(workspace: &Workspace, label: &Label) -> bool {
    match workspace.target(label).map(|target| &target.kind) {
        Some(TargetKind::Command(command)) => !command.outputs.is_empty(),
        Some(TargetKind::Fetch(Fetch::Lockfile(path))) => LockfileKind::of(&path.value) != Some(LockfileKind::Cargo),
        _ => false,
    }
}

fn describe(place: &Place) -> Value {
    json!({
        "target": place.label,
        "path": place.path.to_string(),
        "written": place.written_count,
        "removed": place.removed_count,
    })
}

fn line(row: &Value) -> String {
    let count = |key: &str, word: &str| match row[key].as_u64().unwrap_or_default() {
        0 => String::new(),
        count => format!(", {count} {word}"),
    };
    let changes = format!("{}{}", count("written", "written"), count("removed", "removed"));
    let changes = if changes.is_empty() { ", as it was".to_owned() } else { changes };
    format!("{} {}{changes}", text(&row["path"]), text(&row["target"]))
}
