//! `cas provenance`.

use std::path::PathBuf;

use cas_attest::{PROVENANCE_PREDICATE, Provenance, Statement};
use cas_build::{BuildError, Described, Workspace, absent_of};
use cas_config::Label;
use cas_store::Store;
use clap::Args;
use serde_json::{Value, json};

use crate::args::{Format, Global, InputArgs};
use crate::commands::{
    Options, build_options, in_here, one_target, open_store, open_workspace, outputs, text, with_builder,
};
use crate::exit::Exit;
use crate::progress::Progress;
use crate::render::{self, Failure};

/// Longest document that is checked.
const MAX_DOCUMENT_BYTES: u64 = 32 << 20;

#[derive(Args, Debug)]
pub(crate) struct ProvenanceArgs {
    /// Target: `//package:name` or `:name`, an image, an artifact or a tarball
    #[arg(required_unless_present = "check", conflicts_with = "check")]
    target: Option<String>,
    /// Print the predicate alone, for programs that make the statement themselves
    #[arg(long, conflicts_with = "check")]
    predicate: bool,
    /// Who builds, as a URI, in place of `urn:cas:builder:local`
    #[arg(long, value_name = "URI", conflicts_with = "check",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    builder_id: Option<String>,
    /// Look whether everything that a statement or predicate names is in the store, and tell what is not
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    #[command(flatten)]
    input: InputArgs,
}

pub(crate) fn run(global: &Global, args: &ProvenanceArgs) -> Result<Exit, Failure> {
    match (&args.check, &args.target) {
        (Some(file), _) => check(global, file),
        (None, Some(target)) => describe(global, args, target),
        (None, None) => Err(Failure::Usage("no target is named".to_owned())),
    }
}

fn describe(global: &Global, args: &ProvenanceArgs, target: &str) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let label = one_target(&workspace, package.as_ref(), target)?;
    let store = open_store(global)?;
    let options = build_options(None, &args.input);
    outputs(&workspace, &store, std::slice::from_ref(&label), &options)?;
    let Described { subjects, mut provenance, .. } = described(&workspace, &store, &label, &options)?;
    if let Some(builder) = &args.builder_id {
        provenance.builder.clone_from(builder);
    }
    let predicate = provenance.encode();
    let document = match args.predicate {
        true => predicate,
        false => Statement::new(subjects, PROVENANCE_PREDICATE, &predicate).map_err(too_much)?.encode(),
    };
    match global.format {
        Format::Json => {
            let document: Value = serde_json::from_str(&document).expect("it was written as JSON");
            let row = json!({ "target": label.to_string(), "provenance": document });
            render::lines([json!({ "exit": Exit::Done.word(), "results": [row] }).to_string()])?;
        }
        Format::Text => render::lines([document])?,
    }
    Ok(Exit::Done)
}

/// What a target was made of that was built before.
pub(crate) fn described(
    workspace: &Workspace,
    store: &Store,
    label: &Label,
    options: &Options,
) -> Result<Described, Failure> {
    with_builder(workspace, store, options, &Progress::default(), |builder| builder.provenance(label))
}

/// What it says is of this build; how much may be said has limits.
fn too_much(error: impl std::error::Error) -> Failure {
    let hint = "split the target, or leave files out of its `inputs`";
    Failure::Usable(format!("the provenance cannot be written: {error}"), hint.to_owned())
}

fn check(global: &Global, file: &std::path::Path) -> Result<Exit, Failure> {
    let path = in_here(global, file);
    let bytes = cas_fs::read_limited(&path, MAX_DOCUMENT_BYTES).map_err(BuildError::Fs)?;
    let refused = |error: &dyn std::error::Error| {
        let hint = "give a statement of `cas provenance`, or its predicate";
        Failure::Usable(format!("`{}` is no provenance: {error}", file.display()), hint.to_owned())
    };
    let provenance = match Statement::decode(&bytes) {
        Ok(statement) if statement.predicate_type() == PROVENANCE_PREDICATE => {
            Provenance::decode(statement.predicate().as_bytes())
        }
        Ok(statement) => {
            let hint = format!("give a statement with `{PROVENANCE_PREDICATE}`");
            return Err(Failure::Usable(format!("`{}` says `{}`", file.display(), statement.predicate_type()), hint));
        }
        Err(_) => Provenance::decode(&bytes),
    };
    let provenance = provenance.map_err(|error| refused(&error))?;
    let store = open_store(global)?;
    let rows = absent(&store, &provenance)?;
    let exit = if rows.is_empty() { Exit::Done } else { Exit::Failed };
    match global.format {
        Format::Json => render::lines([json!({ "exit": exit.word(), "results": rows }).to_string()])?,
        Format::Text => render::lines(rows.iter().map(line))?,
    }
    render::note(&summary(&provenance, rows.len()));
    Ok(exit)
}

/// What a provenance names and the store does not have, as rows.
pub(crate) fn absent(store: &Store, provenance: &Provenance) -> Result<Vec<Value>, Failure> {
    let absent = absent_of(store, provenance)?;
    Ok(absent.iter().map(|one| json!({ "kind": one.kind, "name": one.name, "absent": one.what })).collect())
}

/// A row in words.
pub(crate) fn line(row: &Value) -> String {
    format!("{} {}: {} is not in the store", text(&row["kind"]), text(&row["name"]), text(&row["absent"]))
}

/// How much was looked at, and how much of it is gone.
pub(crate) fn summary(provenance: &Provenance, absent_count: usize) -> String {
    format!(
        "{}: {} and {}, {absent_count} of them not in the store",
        provenance.target,
        render::counted(provenance.actions.len() as u64, "action"),
        render::counted(provenance.inputs.len() as u64, "input"),
    )
}
