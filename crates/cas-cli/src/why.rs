//! `cas why`, `cas query` and `cas graph`: the targets of a workspace, how they depend on each other, and why they run.

use std::collections::{BTreeMap, BTreeSet};

use cas_build::{Builder, Difference, Reason, Verdict, What, Workspace, needs_of};
use cas_config::Label;
use serde_json::{Value, json};

use crate::args::{Format, Global, GraphArgs, QueryArgs, WhyArgs};
use crate::commands::{build_options, one_target, open_store, open_workspace, patterns, print, text, with_builder};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::render::{self, Failure};

/// Digests are shown this short.
const SHOWN_DIGITS: usize = 12;

pub(crate) fn why(global: &Global, args: &WhyArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let label = one_target(&workspace, package.as_ref(), &args.target)?;
    let store = open_store(global)?;
    let mut inputs = args.inputs.clone();
    // Explaining fetches nothing.
    inputs.offline = true;
    let options = build_options(None, &inputs);
    let ask = |builder: &Builder<'_>| match (&args.since, &args.lane) {
        (Some(revision), _) => Ok((None, builder.why_since(&label, revision)?)),
        (None, Some(lane)) => builder.why_in_lane(&label, lane).map(|(lane, reason)| (Some(lane), reason)),
        (None, None) => Ok((None, builder.why(&label)?)),
    };
    let (lane, reason) = with_builder(&workspace, &store, &options, &Progress::default(), ask)?;
    match global.format {
        Format::Json => {
            let mut told = json!({ "exit": Exit::Done.word(), "reason": document(&reason) });
            if let Some(lane) = lane {
                told["lane"] = json!(lane);
            }
            render::lines([told.to_string()])?;
        }
        Format::Text => {
            let mut lines = Vec::new();
            lines.extend(lane.map(|lane| format!("compared with the last build in lane {lane}")));
            tell(&reason, 0, &mut lines);
            render::lines(lines)?;
        }
    }
    Ok(Exit::Done)
}

fn word(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::UpToDate => ("up-to-date", "is up to date"),
        Verdict::Known => ("known", "has its outputs from an earlier build; since the last one"),
        Verdict::Changed => ("changed", "would run"),
        Verdict::Waits => ("waits", "would run after what it depends on"),
        Verdict::New => ("new", "would run: it never did in this workspace"),
        Verdict::Again => ("again", "would run: nothing changed, but its last run failed or its result is gone"),
        Verdict::Absent => ("absent", "has to be fetched first"),
        Verdict::Same => ("same", "is made of the same"),
        Verdict::Differs => ("differs", "is made of something else"),
        Verdict::Added => ("added", "is new"),
        Verdict::Unknown => ("unknown", "is up to date or not, but nobody remembers what it was made of"),
    }
}

fn tell(reason: &Reason, depth: usize, lines: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let (_, words) = word(reason.verdict);
    let last = reason.verdict == Verdict::UpToDate && !reason.differences.is_empty();
    let tail = if last { ", and last changed with" } else { "" };
    lines.push(format!("{indent}{} {words}{tail}", reason.label));
    for difference in &reason.differences {
        lines.push(format!("{indent}  {}", describe(difference)));
    }
    for because in &reason.because {
        tell(because, depth + 1, lines);
    }
}

fn describe(difference: &Difference) -> String {
    let Difference { kind, name, what } = difference;
    let name = if name.is_empty() { kind.clone() } else { format!("{kind} {name}") };
    // Contents are told by their digests, which say nothing to a reader but that they differ.
    let is_content = matches!(kind.as_str(), "file" | "dependency");
    match what {
        _ if kind == "revision" => format!("nothing can be compared: {}", difference.name),
        What::Added if kind == "failure" => format!("it cannot be built: {}", difference.name),
        What::Removed if kind == "failure" => format!("it could not be built: {}", difference.name),
        What::Added => format!("{name} is new"),
        What::Removed => format!("{name} is gone"),
        What::Mode => format!("{name} may be executed now, or no longer"),
        What::Renamed { from } => format!("{name} was {from}"),
        What::Changed { .. } if is_content => format!("{name} changed"),
        What::Changed { from, to } => format!("{name}: {} -> {}", short(from), short(to)),
    }
}

/// A value on one line, a digest by its beginning.
fn short(value: &str) -> String {
    let line = value.replace('\n', "; ");
    match line.split_once(':') {
        Some((function, hex)) if matches!(function, "blake3" | "sha256") => {
            format!("{function}:{}", &hex[..SHOWN_DIGITS.min(hex.len())])
        }
        _ => line,
    }
}

fn document(reason: &Reason) -> Value {
    let differences = reason.differences.iter().map(|Difference { kind, name, what }| {
        let mut row = json!({ "kind": kind, "name": name });
        match what {
            What::Added => row["what"] = json!("added"),
            What::Removed => row["what"] = json!("removed"),
            What::Mode => row["what"] = json!("mode"),
            What::Renamed { from } => {
                row["what"] = json!("renamed");
                row["from"] = json!(from);
            }
            What::Changed { from, to } => {
                row["what"] = json!("changed");
                row["from"] = json!(from);
                row["to"] = json!(to);
            }
        }
        row
    });
    json!({
        "target": reason.label.to_string(),
        "verdict": word(reason.verdict).0,
        "differences": differences.collect::<Vec<_>>(),
        "because": reason.because.iter().map(document).collect::<Vec<_>>(),
    })
}

/// The targets that patterns select; without one, all.
fn selected(
    workspace: &Workspace,
    texts: &[String],
    package: Option<&cas_tree::RelPath>,
) -> Result<Vec<Label>, Failure> {
    if texts.is_empty() {
        return Ok(workspace.targets().map(|(label, _)| label).collect());
    }
    Ok(workspace.select(package, &patterns(texts)?)?)
}

pub(crate) fn query(global: &Global, args: &QueryArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let mut labels = selected(&workspace, &args.targets, package.as_ref())?;
    if args.needs || args.needed_by {
        let all: Vec<Label> = match args.needed_by {
            true => workspace.targets().map(|(label, _)| label).collect(),
            false => labels.clone(),
        };
        let edges = needs_of(&workspace, &all)?;
        labels = if args.needs {
            edges.into_keys().collect()
        } else {
            let mut needed_by: BTreeMap<&Label, Vec<&Label>> = BTreeMap::new();
            for (label, needs) in &edges {
                for need in needs {
                    needed_by.entry(need).or_default().push(label);
                }
            }
            let (mut found, mut open) = (BTreeSet::new(), labels);
            while let Some(label) = open.pop() {
                if !found.contains(&label) {
                    open.extend(needed_by.get(&label).into_iter().flatten().map(|label| (*label).clone()));
                    found.insert(label);
                }
            }
            found.into_iter().collect()
        };
    }
    let mut rows = Vec::new();
    for label in labels {
        let Some(target) = workspace.target(&label) else { continue };
        let kind = target.kind.name();
        if args.kind.is_empty() || args.kind.iter().any(|wanted| wanted == kind) {
            rows.push(json!({ "target": label.to_string(), "kind": kind }));
        }
    }
    print(global, &rows, |row| format!("{} {}", text(&row["kind"]), text(&row["target"])))?;
    Ok(Exit::Done)
}

pub(crate) fn graph(global: &Global, args: &GraphArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let labels = selected(&workspace, &args.targets, package.as_ref())?;
    let edges = needs_of(&workspace, &labels)?;
    let kind = |label: &Label| workspace.target(label).map_or("target", |target| target.kind.name());
    match global.format {
        Format::Json => {
            let rows: Vec<Value> = edges
                .iter()
                .map(|(label, needs)| {
                    let needs: Vec<String> = needs.iter().map(ToString::to_string).collect();
                    json!({ "target": label.to_string(), "kind": kind(label), "needs": needs })
                })
                .collect();
            render::lines([json!({ "exit": Exit::Done.word(), "targets": rows }).to_string()])?;
        }
        Format::Text => {
            let quoted =
                |label: &Label| format!("\"{}\"", label.to_string().replace('\\', "\\\\").replace('"', "\\\""));
            let mut lines = vec!["digraph cas {".to_owned()];
            for (label, needs) in &edges {
                lines.push(format!("  {} [tooltip=\"{}\"];", quoted(label), kind(label)));
                lines.extend(needs.iter().map(|need| format!("  {} -> {};", quoted(label), quoted(need))));
            }
            lines.push("}".to_owned());
            render::lines(lines)?;
        }
    }
    Ok(Exit::Done)
}
