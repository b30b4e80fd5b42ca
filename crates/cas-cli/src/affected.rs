//! `cas affected`: the targets that differ from a revision.

use cas_build::{Affected, AffectedTarget, Cause, Workspace};
use serde_json::{Value, json};

use crate::args::{AffectedArgs, Format, Global};
use crate::commands::{build_options, open_store, open_workspace, patterns, with_builder};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::render::{self, Failure};

/// How many causes of a target are told on a line.
const MAX_TOLD_CAUSES: usize = 2;
/// How many causes of a target a document has.
const MAX_CAUSES: usize = 100;

pub(crate) fn run(global: &Global, args: &AffectedArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let store = open_store(global)?;
    let patterns = patterns(&args.targets)?;
    let mut inputs = args.inputs.clone();
    // Comparing fetches nothing.
    inputs.offline = true;
    let options = build_options(None, &inputs);
    let mut affected = with_builder(&workspace, &store, &options, &Progress::default(), |builder| {
        builder.affected(&args.since, package.as_ref(), &patterns)
    })?;
    let is_wanted = |kind: &str| args.kind.is_empty() || args.kind.iter().any(|wanted| wanted == kind);
    affected.targets.retain(|target| is_wanted(kind(&workspace, target)));
    affected.removed.retain(|(_, kind)| is_wanted(kind));
    match global.format {
        Format::Json => render::lines([document(&workspace, &args.since, &affected).to_string()])?,
        Format::Text => {
            let removed = affected.removed.iter().map(|(label, kind)| format!("removed {kind} {label}"));
            render::lines(affected.targets.iter().map(|target| line(&workspace, target)).chain(removed))?;
            if let Some(why) = &affected.everything {
                render::note(&format!("everything is affected: in {} {why}", args.since));
            }
        }
    }
    Ok(Exit::Done)
}

fn kind(workspace: &Workspace, target: &AffectedTarget) -> &'static str {
    workspace.target(&target.label).map_or("target", |target| target.kind.name())
}

fn line(workspace: &Workspace, target: &AffectedTarget) -> String {
    let told: Vec<String> = target.causes.iter().take(MAX_TOLD_CAUSES).map(told).collect();
    let more = target.causes.len() - told.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let by = if target.is_refined { "" } else { " (by static keys)" };
    format!("{} {}  {}{more}{by}", kind(workspace, target), target.label, told.join(", "))
}

fn told(cause: &Cause) -> String {
    match cause {
        Cause::New => "new".to_owned(),
        Cause::Failure(text) => format!("cannot be built: {text}"),
        Cause::File(path) => format!("file {path}"),
        Cause::Definition(part) => format!("definition ({part})"),
        Cause::Lock => "cas.lock".to_owned(),
        Cause::Lockfile(path) => format!("lockfile {path}"),
        Cause::Toolchain(label) => format!("toolchain {label}"),
        Cause::Through(label) => format!("through {label}"),
        Cause::Everything => "everything".to_owned(),
    }
}

fn document(workspace: &Workspace, since: &str, affected: &Affected) -> Value {
    let targets = affected.targets.iter().map(|target| {
        let reasons = target.causes.iter().take(MAX_CAUSES).map(|cause| {
            let (kind, name) = match cause {
                Cause::New => ("new", None),
                Cause::Failure(text) => ("failure", Some(text)),
                Cause::File(path) => ("file", Some(path)),
                Cause::Definition(part) => ("definition", Some(part)),
                Cause::Lock => ("lock", None),
                Cause::Lockfile(path) => ("lockfile", Some(path)),
                Cause::Toolchain(label) => ("toolchain", Some(label)),
                Cause::Through(label) => ("through", Some(label)),
                Cause::Everything => ("everything", None),
            };
            json!({ "kind": kind, "name": name })
        });
        json!({
            "target": target.label.to_string(),
            "kind": kind(workspace, target),
            "by": if target.is_refined { "results" } else { "static-keys" },
            "reasons": reasons.collect::<Vec<_>>(),
        })
    });
    let removed = affected.removed.iter().map(|(label, kind)| json!({ "target": label.to_string(), "kind": kind }));
    json!({
        "exit": Exit::Done.word(),
        "since": since,
        "commit": affected.commit,
        "everything": affected.everything,
        "results": targets.collect::<Vec<_>>(),
        "removed": removed.collect::<Vec<_>>(),
    })
}
