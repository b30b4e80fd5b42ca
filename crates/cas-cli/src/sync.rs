//! `cas sync`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cas_build::BuildError;
use cas_sync::{
    ItemState, MAX_SYNC_FILE_BYTES, MAX_SYNC_LOCK_BYTES, SyncFile, SyncFileError, SyncItem, SyncLock, SyncOutcome,
    apply_sync, look_sync, resolve_sync, sync_items,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::{Format, Global};
use crate::commands::{cancel_on_signals, in_here, logins, text};
use crate::exit::Exit;
use crate::render::{self, Failure, exit_of_push};
use crate::whereabouts::remembering_if_there;

/// Longest journal that is counted.
const MAX_JOURNAL_BYTES: u64 = 1 << 30;
/// The first word of a line of what is done.
const DONE: &str = "done ";

#[derive(Subcommand, Debug)]
pub(crate) enum SyncCommand {
    /// Pin what tags stand for, and tell what would be brought
    ///
    /// Pins are written beside the file, with `.lock` in the place of `.toml`. What is pinned stays, until its section has other words or
    /// `--update` is given.
    Plan(PlanArgs),
    /// Bring what is pinned and is not where it is to be
    ///
    /// A tag is brought as it was pinned, also when it has moved since. What is there is not sent again; a run that broke off is made again by
    /// running it. Versions and commits never move.
    Apply(SyncArgs),
    /// Look whether everything that is pinned is where it is to be
    Verify(SyncArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    common: SyncArgs,
    /// Pin everything anew
    #[arg(long)]
    update: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SyncArgs {
    /// What is brought from where to where, as docs/formats/sync.md has it
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(global: &Global, command: &SyncCommand) -> Result<Exit, Failure> {
    match command {
        SyncCommand::Plan(args) => plan(global, args),
        SyncCommand::Apply(args) => apply(global, args),
        SyncCommand::Verify(args) => verify(global, args),
    }
}

/// A file with what belongs to it.
struct Files {
    file: SyncFile,
    lock: SyncLock,
    lock_path: PathBuf,
    journal: PathBuf,
}

impl Files {
    fn read(global: &Global, path: &Path) -> Result<Self, Failure> {
        let at = in_here(global, path);
        if path.extension().is_none_or(|extension| extension != "toml") {
            let hint = "give it a name that ends with `.toml`: its pins are beside it";
            return Err(Failure::Usable(
                format!("`{}` is no name of a file for `cas sync`", path.display()),
                hint.to_owned(),
            ));
        }
        let text = read(&at, MAX_SYNC_FILE_BYTES)?;
        let file = SyncFile::parse(&text).map_err(|error| refused(path, &text, error))?;
        let lock_path = at.with_extension("lock");
        let lock = match read(&lock_path, MAX_SYNC_LOCK_BYTES) {
            Ok(text) => SyncLock::parse(&text).map_err(|error| refused(&path.with_extension("lock"), &text, error))?,
            Err(Failure::Build(error)) if matches!(&*error, BuildError::Fs(error) if error.is_not_found()) => {
                SyncLock::default()
            }
            Err(other) => return Err(other),
        };
        Ok(Self { file, lock, lock_path, journal: at.with_extension("journal") })
    }

    fn items(&self) -> Result<Vec<SyncItem>, Failure> {
        sync_items(&self.file, &self.lock).map_err(Failure::Sync)
    }
}

fn read(path: &Path, limit: u64) -> Result<String, Failure> {
    let bytes = cas_fs::read_limited(path, limit).map_err(BuildError::Fs)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn refused(path: &Path, text: &str, error: SyncFileError) -> Failure {
    let line = error.span.map(|span| text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1));
    let place = line.map_or_else(String::new, |line| format!(", line {line}"));
    let message = format!("`{}`{place}: {}", path.display(), error.message);
    Failure::Usable(message, error.hint.unwrap_or_else(|| "docs/formats/sync.md says what it may have".to_owned()))
}

fn plan(global: &Global, args: &PlanArgs) -> Result<Exit, Failure> {
    let mut files = Files::read(global, &args.common.file)?;
    let signals = cancel_on_signals()?;
    let client = Arc::new(signals.client(logins(), Default::default()));
    let resolved = resolve_sync(&client, &files.file, &files.lock, args.update).map_err(Failure::Sync)?;
    if resolved != files.lock {
        cas_fs::write_atomic(&files.lock_path, resolved.to_text().as_bytes()).map_err(BuildError::Fs)?;
        render::note(&format!("note: `{}` has new pins; commit it", args.common.file.with_extension("lock").display()));
    }
    files.lock = resolved;
    let items = files.items()?;
    let found = look_sync(&client, &files.file, &items).map_err(Failure::Sync)?;
    let exit = exit_of(&found);
    show(global, exit, &items, &found)?;
    Ok(exit)
}

fn apply(global: &Global, args: &SyncArgs) -> Result<Exit, Failure> {
    let files = Files::read(global, &args.file)?;
    let items = files.items()?;
    let signals = cancel_on_signals()?;
    let client = Arc::new(remembering_if_there(signals.client(logins(), Default::default()), global));
    if let Ok(before) = cas_fs::read_limited(&files.journal, MAX_JOURNAL_BYTES) {
        let done = String::from_utf8_lossy(&before).lines().filter(|line| line.starts_with(DONE)).count();
        render::note(&format!(
            "note: the last run broke off when it had brought {}",
            render::counted(done as u64, "tag")
        ));
    }
    let found = look_sync(&client, &files.file, &items).map_err(Failure::Sync)?;
    cas_fs::replace(&files.journal, b"cas sync journal 1\n").map_err(BuildError::Fs)?;
    let journal = Mutex::new(&files.journal);
    let told = |item: &SyncItem, outcome: &SyncOutcome| {
        if outcome.is_ok() {
            let line = format!("{DONE}{}:{} {} {}\n", item.from, item.tag, item.digest, item.to);
            let path = journal.lock().unwrap_or_else(PoisonError::into_inner);
            // It tells what was done, and decides nothing.
            let _ = cas_fs::append(&path, line.as_bytes());
        }
    };
    let outcomes = apply_sync(&client, &files.file, &items, found, &told).map_err(Failure::Sync)?;
    let exit = exit_of(&outcomes);
    show(global, exit, &items, &outcomes)?;
    let brought = outcomes.iter().filter(|outcome| matches!(outcome, Ok(ItemState::New | ItemState::Moves(_)))).count();
    render::note(&format!("{} brought", render::counted(brought as u64, "tag")));
    if exit == Exit::Done {
        cas_fs::remove_file_if_there(&files.journal).map_err(BuildError::Fs)?;
    }
    Ok(exit)
}

fn verify(global: &Global, args: &SyncArgs) -> Result<Exit, Failure> {
    let files = Files::read(global, &args.file)?;
    let items = files.items()?;
    let signals = cancel_on_signals()?;
    let client = Arc::new(signals.client(logins(), Default::default()));
    let found = look_sync(&client, &files.file, &items).map_err(Failure::Sync)?;
    let is_same = |outcome: &SyncOutcome| matches!(outcome, Ok(ItemState::Same));
    let exit = match exit_of(&found) {
        Exit::Done if !found.iter().all(is_same) => Exit::Mismatch,
        exit => exit,
    };
    show(global, exit, &items, &found)?;
    Ok(exit)
}

/// That of the first failure.
fn exit_of(outcomes: &[SyncOutcome]) -> Exit {
    outcomes.iter().find_map(|outcome| outcome.as_ref().err()).map_or(Exit::Done, |error| exit_of_push(error))
}

/// Tells what is not as it is pinned, and counts the rest.
fn show(global: &Global, exit: Exit, items: &[SyncItem], outcomes: &[SyncOutcome]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut same = 0u64;
    for (item, outcome) in items.iter().zip(outcomes) {
        let (state, before) = match outcome {
            Ok(ItemState::Same) => ("same", None),
            Ok(ItemState::New) => ("new", None),
            Ok(ItemState::Moves(found)) => ("moved", Some(*found)),
            Ok(ItemState::Taken(found)) => ("taken", Some(*found)),
            Err(_) => ("failed", None),
        };
        same += u64::from(state == "same");
        if state == "same" && global.format == Format::Text {
            continue;
        }
        let mut row = json!({
            "tag": state,
            "source": format!("{}:{}", item.from, item.tag),
            "digest": item.digest.to_string(),
            "destination": format!("{}:{}", item.to, item.tag),
        });
        if let Some(before) = before {
            row["before"] = json!(before.to_string());
        }
        if let Err(error) = outcome {
            let mut words = vec![error.to_string()];
            let mut next = std::error::Error::source(&**error);
            while let Some(cause) = next {
                words.push(cause.to_string());
                next = cause.source();
            }
            row["error"] = json!(words.join(": "));
        }
        rows.push(row);
    }
    match global.format {
        Format::Json => render::lines([json!({ "exit": exit.word(), "results": rows }).to_string()])?,
        Format::Text => render::lines(rows.iter().map(line))?,
    }
    render::note(&format!("{}, {same} of them as pinned", render::counted(items.len() as u64, "tag")));
    Ok(())
}

fn line(row: &Value) -> String {
    let [tag, source, digest, destination] = ["tag", "source", "digest", "destination"].map(|name| text(&row[name]));
    let rest = match (&row["error"], &row["before"]) {
        (Value::String(error), _) => format!(": {error}"),
        (_, Value::String(before)) => format!(", where {before} is"),
        _ => String::new(),
    };
    format!("{tag} {source} {digest} {destination}{rest}")
}
