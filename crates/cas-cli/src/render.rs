//! Printing: results on standard output, everything else on standard error.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use cas_build::BuildError;
use cas_config::{Label, without_tokens};
use cas_fs::FsError;
use cas_init::InitError;
use cas_registry::RegistryError;
use cas_sandbox::{SandboxError, StartError};
use cas_server::ServerError;
use cas_snapshot::SnapshotError;
use cas_snapshot::watch::WatchError;
use cas_store::StoreError;
use cas_sync::SyncError;
use serde_json::{Value, json};

use crate::args::Format;
use crate::commands;
use crate::exit::Exit;
use crate::progress::{Counts, Progress};
use crate::screen;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine said so.
    Build(Box<BuildError>),
    /// The command line is wrong.
    Usage(String),
    /// The environment lacks something.
    Usable(String, String),
    /// A rule of the workspace says no.
    Refused(String, String),
    /// There is nothing that could be written for a folder.
    Init(InitError),
    /// A watcher could not be started, asked or ended.
    Watch(WatchError),
    /// There is no such folder to work in.
    Folder(PathBuf, Option<FsError>),
    /// The parser does not understand the command line: what it says, and what it advises.
    Arguments(String, Option<String>),
    /// A push did not get where it was to get.
    Sync(SyncError),
    /// There is no server.
    Serve(ServerError),
    /// Printing failed.
    Output(io::Error),
}

impl<E: Into<BuildError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Build(Box::new(error.into()))
    }
}

impl Failure {
    /// What the parser of the command line says, in the parts that other errors have.
    pub(crate) fn of_arguments(error: &clap::Error) -> Self {
        let text = error.to_string();
        let mut parts = text.split("\n\n").map(str::trim);
        let message = parts.next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message);
        let tip = parts.find_map(|part| part.strip_prefix("tip: "));
        let join = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        Self::Arguments(join(message), tip.map(join))
    }

    /// Whether the store lost what it said to have, so that doing it again may help.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(self, Self::Build(error) if error.is_loss())
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Build(error) => exit_of(error),
            Self::Usage(_) | Self::Usable(..) | Self::Folder(..) | Self::Arguments(..) => Exit::Usage,
            Self::Refused(..) => Exit::Policy,
            Self::Init(error) if error.is_about_configuration() => Exit::Usage,
            Self::Init(InitError::Text { .. }) => Exit::Bug,
            Self::Init(InitError::Fs(error)) if error.is_about_rights() => Exit::Host,
            Self::Init(_) => Exit::Failed,
            Self::Watch(WatchError::Fs(_)) => Exit::Store,
            Self::Watch(WatchError::Running { .. }) => Exit::Failed,
            Self::Watch(WatchError::Silent { .. } | WatchError::System { .. }) => Exit::Host,
            Self::Sync(error) => exit_of_push(error),
            Self::Serve(ServerError::Open { .. }) => Exit::Usage,
            Self::Serve(ServerError::Listen { .. } | ServerError::Runtime(_)) => Exit::Host,
            Self::Serve(_) => Exit::Store,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
        }
    }
}

/// What shells and other programs that run images end with when there is no such program.
const NOT_FOUND: u8 = 127;
/// The same when it cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

fn exit_of(error: &BuildError) -> Exit {
    match error {
        BuildError::NoWorkspace { .. }
        | BuildError::Manifest { .. }
        | BuildError::Lock { .. }
        | BuildError::LockStale { .. }
        | BuildError::UnknownTarget { .. }
        | BuildError::Cycle { .. }
        | BuildError::Role { .. }
        | BuildError::SameName { .. }
        | BuildError::NotIgnored { .. }
        | BuildError::PlaceTracked { .. }
        | BuildError::Members { .. }
        | BuildError::UnknownImage { .. }
        | BuildError::NoCommand { .. }
        | BuildError::NoManifest { .. }
        | BuildError::Lockfile { .. }
        | BuildError::LockfileName { .. }
        | BuildError::CargoLock { .. }
        | BuildError::CargoConfig { .. }
        | BuildError::NoLockfile { .. }
        | BuildError::OutsideLockfile { .. }
        | BuildError::TwoVersions { .. }
        | BuildError::Pack { .. }
        | BuildError::PackageJson { .. }
        | BuildError::NoSuchOutput { .. }
        | BuildError::WhichOutput { .. }
        | BuildError::ArtifactFile { .. }
        | BuildError::TwoTitles { .. }
        | BuildError::NoTitle { .. }
        | BuildError::ArtifactDestination { .. }
        | BuildError::InputConflict { .. }
        | BuildError::RootConflict { .. }
        | BuildError::HostMerged { .. }
        | BuildError::HostPath { .. }
        | BuildError::Place { .. }
        | BuildError::Project { .. }
        | BuildError::Snapshot(
            SnapshotError::NoMatch { .. } | SnapshotError::Pattern { .. } | SnapshotError::Gitignore { .. },
        )
        | BuildError::SecretMissing { .. }
        | BuildError::TwoOwnVersions { .. }
        | BuildError::NoVersion { .. }
        | BuildError::SecretSize { .. }
        | BuildError::Revision(_)
        | BuildError::NoLane { .. }
        | BuildError::Keyring { .. }
        | BuildError::NoComponent { .. }
        | BuildError::RootShape { .. }
        | BuildError::Platform { .. }
        | BuildError::WhichImage { .. }
        | BuildError::UnknownAccount { .. }
        | BuildError::BlindLink { .. }
        | BuildError::LayerFormat { .. }
        | BuildError::DocumentTooLong { .. }
        | BuildError::ForeignPlatform { .. }
        | BuildError::WhichPlatform { .. }
        | BuildError::User { .. }
        | BuildError::VolumePlace { .. }
        | BuildError::VolumeKind { .. }
        | BuildError::NotRunnable { .. }
        | BuildError::NoCheck { .. }
        | BuildError::VolumesMeet { .. } => Exit::Usage,
        BuildError::Fs(error) | BuildError::Snapshot(SnapshotError::Fs(error)) if error.is_about_rights() => Exit::Host,
        BuildError::NotWritten { source, .. }
            if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
        {
            Exit::Host
        }
        BuildError::ToolchainFile { source, .. } if source.is_about_rights() => Exit::Host,
        BuildError::ToolchainFile { .. } => Exit::Usage,
        BuildError::Mismatch { .. }
        | BuildError::Package { .. }
        | BuildError::Image { .. }
        | BuildError::ForeignLayer { .. } => Exit::Mismatch,
        BuildError::Registry(error) => exit_of_registry(error),
        BuildError::Runtime(_) => Exit::Host,
        BuildError::Fetch(_)
        | BuildError::NoSuite { .. }
        | BuildError::Archive { .. }
        | BuildError::ImageGone { .. }
        | BuildError::ActionCache(_)
        | BuildError::PackageGone { .. }
        | BuildError::NotInRegistry { .. } => Exit::Remote,
        // What configuration says of a registry is wrong, or the registry itself.
        BuildError::CargoIndex { source, .. } => match source.downcast_ref::<cas_cargo::IndexError>() {
            Some(_) => Exit::Usage,
            None => Exit::Remote,
        },
        BuildError::Debian { source, .. } => match source.downcast_ref::<cas_deb::ReleaseError>() {
            Some(_) => Exit::Mismatch,
            None if source.is::<cas_deb::ClosureError>() => Exit::Usage,
            None => Exit::Failed,
        },
        BuildError::Store(StoreError::Verify(_)) => Exit::Mismatch,
        BuildError::Log(error) if error.kind() == io::ErrorKind::StorageFull => Exit::Store,
        BuildError::Store(_) | BuildError::Keep { .. } | BuildError::Record { .. } => Exit::Store,
        BuildError::Sandbox(SandboxError::Host(_))
        | BuildError::RootNotEntered { .. }
        | BuildError::SecretsNotHeld { .. } => Exit::Host,
        BuildError::ImageNotStarted {
            source: StartError::NotFound { .. } | StartError::InterpreterMissing { .. },
            ..
        } => Exit::Program(NOT_FOUND),
        BuildError::ImageNotStarted { .. } => Exit::Program(NOT_EXECUTABLE),
        BuildError::Sandbox(_)
        | BuildError::Step { .. }
        | BuildError::Configure { .. }
        | BuildError::Probe { .. }
        | BuildError::NotStarted { .. }
        | BuildError::NotRepeatable { .. }
        | BuildError::OutputMissing { .. }
        | BuildError::Undeclared { .. }
        | BuildError::InputWritten { .. }
        | BuildError::SecretLeft { .. }
        | BuildError::OutputKind { .. }
        | BuildError::Unportable { .. }
        | BuildError::Capture { .. }
        | BuildError::Log(_)
        | BuildError::Snapshot(_)
        | BuildError::Fs(_)
        | BuildError::ReadTar(_)
        | BuildError::Layer { .. }
        | BuildError::NotArchived { .. }
        | BuildError::Engine { .. }
        | BuildError::NotWritten { .. }
        | BuildError::LayoutIndex { .. }
        | BuildError::LayoutLocked { .. }
        | BuildError::Compress(_) => Exit::Failed,
        BuildError::WouldRun { .. } | BuildError::InTheWay { .. } => Exit::Failed,
        BuildError::Interrupted => commands::interrupted(),
    }
}

fn exit_of_registry(error: &RegistryError) -> Exit {
    match error {
        RegistryError::Mismatch { .. } | RegistryError::TooLong { .. } => Exit::Mismatch,
        RegistryError::Interrupted => commands::interrupted(),
        RegistryError::Credentials { .. } | RegistryError::Helper { .. } => Exit::Usage,
        RegistryError::NoFile => Exit::Usage,
        RegistryError::Write(_) => Exit::Host,
        RegistryError::Content { .. } => Exit::Store,
        _ => Exit::Remote,
    }
}

pub(crate) fn exit_of_push(error: &SyncError) -> Exit {
    match error {
        SyncError::Registry(error) | SyncError::Referrers { source: error, .. } => exit_of_registry(error),
        SyncError::Taken { .. } | SyncError::OnlyLatest { .. } | SyncError::PackageFile { .. } => Exit::Policy,
        SyncError::Moved { .. } => Exit::Remote,
        SyncError::Document { .. } | SyncError::Nested { .. } | SyncError::Named { .. } => Exit::Mismatch,
        SyncError::NoTag { .. } => Exit::Remote,
        SyncError::Platform { .. } | SyncError::Unpinned { .. } => Exit::Usage,
        SyncError::PackageName { .. } | SyncError::NoFiles => Exit::Usage,
        SyncError::Partial { failures, .. } | SyncError::PartialTags { failures, .. } => {
            failures.first().map_or(Exit::Remote, |(_, failure)| exit_of_push(failure))
        }
        SyncError::Runtime(_) => Exit::Host,
    }
}

/// Prints a failure; returns what the process ends with.
pub(crate) fn failure(failure: &Failure, format: Format) -> Exit {
    let exit = failure.exit();
    if let Failure::Output(error) = failure
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        return exit;
    }
    // Where a stream is closed there is nobody to tell.
    let _ = match format {
        Format::Json => {
            let mut document = explain(failure);
            document["exit"] = json!(exit.word());
            writeln!(io::stdout().lock(), "{document}")
        }
        Format::Text => tell(failure),
    };
    exit
}

/// A number of things: "1 object", "2 objects".
pub(crate) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// Prints what a build gave, and why parts of it gave nothing.
pub(crate) fn results(
    format: Format,
    rows: &[Value],
    failures: &[(Label, Failure)],
    untried: &[String],
    progress: &Progress,
) -> Result<Exit, Failure> {
    let counts = progress.counts();
    let exit = failures.first().map_or(Exit::Done, |(_, failure)| failure.exit());
    match format {
        Format::Json => {
            let failed: Vec<Value> = failures
                .iter()
                .map(|(label, failure)| {
                    let mut document = explain(failure);
                    document["target"] = json!(label.to_string());
                    document
                })
                .collect();
            let steps = json!({ "ran": counts.ran, "cached": counts.cached });
            let mut document = json!({ "exit": exit.word(), "results": rows, "steps": steps, "untried": untried });
            if let [first, ..] = failed.as_slice() {
                for key in ["error", "causes", "hint", "findings"] {
                    document[key] = first[key].clone();
                }
                document["failures"] = json!(failed);
            }
            lines([document.to_string()])?;
        }
        Format::Text => {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            lines(rows.iter().map(|row| {
                let path = row["path"].as_str().map(|path| format!("  {path}")).unwrap_or_default();
                let value = if row["status"].is_string() { &row["status"] } else { &row["digest"] };
                let host = if row["hosts"].is_array() { "  (made with programs of this machine)" } else { "" };
                let kept = if row["incremental"].is_array() { "  (made with state of earlier runs)" } else { "" };
                let names = row["sandboxes"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
                let weaker = if names.is_empty() { String::new() } else { format!("  (made with --sandbox={names})") };
                let target = text(&row["target"]);
                let line = format!("{} {target} {}{path}{host}{kept}{weaker}", text(&row["kind"]), text(value));
                screen::printable(&line)
            }))?;
            for (_, failure) in failures {
                // As above.
                let _ = tell(failure);
            }
            let has_outputs = rows.iter().any(|row| row["path"].is_string());
            let whole = progress.whole(has_outputs);
            if counts != Counts::default() || !failures.is_empty() || !whole.is_empty() {
                let failed = if failures.is_empty() { String::new() } else { format!(", {} failed", failures.len()) };
                let (ran, were) = (counted(counts.ran, "step"), if counts.cached == 1 { "was" } else { "were" });
                note(&format!("{ran} ran, {} {were} cached{failed}{whole}", counts.cached));
            }
            if let [first, others @ ..] = untried {
                let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
                note(&format!("{first}{more} not tried, because of what failed before"));
            }
        }
    }
    Ok(exit)
}

fn message(failure: &Failure) -> (String, Vec<String>, Option<String>) {
    match failure {
        Failure::Build(error) => (error.to_string(), causes(error.as_ref()), error.hint()),
        Failure::Init(error) => (error.to_string(), causes(error), error.hint()),
        Failure::Watch(error) => (error.to_string(), causes(error), error.hint()),
        Failure::Serve(error) => (error.to_string(), causes(error), error.hint()),
        Failure::Sync(error) => {
            let place = |(place, failure): &(String, Box<SyncError>)| {
                let words = [failure.to_string()].into_iter().chain(causes(failure.as_ref()));
                format!("{place}: {}", words.collect::<Vec<_>>().join(": "))
            };
            let places: Vec<String> = error.failures().iter().map(place).collect();
            (error.to_string(), if places.is_empty() { causes(error) } else { places }, error.hint())
        }
        Failure::Usage(message) => (message.clone(), Vec::new(), None),
        Failure::Arguments(message, hint) => (message.clone(), Vec::new(), hint.clone()),
        Failure::Folder(path, None) => {
            (format!("`{}` is not a folder", path.display()), Vec::new(), Some("name one with `-C FOLDER`".to_owned()))
        }
        Failure::Folder(path, Some(error)) => {
            let hint = match path == Path::new(".") {
                true => "the folder that the shell is in was removed: go to another one with `cd`",
                false => "name a folder that is there with `-C FOLDER`",
            };
            (format!("cannot work in `{}`", path.display()), vec![error.source.to_string()], Some(hint.to_owned()))
        }
        Failure::Usable(message, hint) | Failure::Refused(message, hint) => {
            (message.clone(), Vec::new(), Some(hint.clone()))
        }
        Failure::Output(error) => ("could not print the result".to_owned(), vec![error.to_string()], None),
    }
}

fn explain(failure: &Failure) -> Value {
    let (message, causes, hint) = message(failure);
    let mut document = json!({ "error": message, "causes": causes, "hint": hint, "findings": findings(failure) });
    if let Some(log) = log(failure) {
        document["log"] = json!({ "path": log.path.display().to_string(), "tail": log.tail });
    }
    let missed = missed(failure).iter();
    let missed: Vec<Value> =
        missed.map(|missed| json!({ "path": missed.path.to_string(), "advice": missed.advice })).collect();
    if !missed.is_empty() {
        document["missed"] = json!(missed);
    }
    document
}

/// What the step printed that failed.
fn log(failure: &Failure) -> Option<&cas_build::Log> {
    match failure {
        Failure::Build(error) => match error.as_ref() {
            BuildError::Step { log, .. } | BuildError::Configure { log, .. } | BuildError::Probe { log, .. } => {
                Some(log)
            }
            _ => None,
        },
        _ => None,
    }
}

/// What the step looked for that failed, and was not given.
fn missed(failure: &Failure) -> &[cas_build::Missed] {
    match failure {
        Failure::Build(error) => match error.as_ref() {
            BuildError::Step { missed, .. } => missed,
            _ => &[],
        },
        _ => &[],
    }
}

fn tell(failure: &Failure) -> io::Result<()> {
    screen::clear();
    let mut stderr = io::stderr().lock();
    if let Failure::Build(error) = failure
        && let BuildError::Manifest { path, text, findings } = error.as_ref()
    {
        for finding in findings {
            writeln!(stderr, "{}", draw(&path.display().to_string(), text, finding))?;
        }
        return Ok(());
    }
    let (message, causes, hint) = message(failure);
    // Names of files and what others say may hold anything.
    writeln!(stderr, "error: {}", screen::printable(&message))?;
    for cause in causes {
        writeln!(stderr, "  cause: {}", screen::printable(&cause))?;
    }
    for line in log(failure).map(|log| log.tail.lines()).into_iter().flatten() {
        // What steps print must not move the cursor of whoever reads it here.
        writeln!(stderr, "  | {}", screen::printable(line))?;
    }
    for missed in missed(failure) {
        writeln!(stderr, "  looked for `{}`: {}", missed.path, missed.advice)?;
    }
    match hint.filter(|hint| !hint.is_empty()) {
        Some(hint) => writeln!(stderr, "hint: {}", screen::printable(&hint)),
        None => Ok(()),
    }
}

pub(crate) fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Errors that stand for their cause would tell it twice.
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

fn findings(failure: &Failure) -> serde_json::Value {
    if let Failure::Init(InitError::Syntax { path, line, column, message }) = failure {
        return json!([{ "file": path, "line": line, "column": column, "message": message, "hint": null }]);
    }
    let Failure::Build(error) = failure else { return json!([]) };
    let BuildError::Manifest { path, text, findings } = error.as_ref() else { return json!([]) };
    let rows = findings.iter().map(|finding| {
        let position = finding.position(text);
        json!({
            "file": path.display().to_string(),
            "line": position.map(|(line, _)| line),
            "column": position.map(|(_, column)| column),
            "message": finding.message,
            "hint": finding.hint,
        })
    });
    rows.collect()
}

fn draw(path: &str, text: &str, finding: &cas_config::Diagnostic) -> String {
    // A line that is shown may hold what nobody should see.
    let text = &*without_tokens(text);
    let title = Level::ERROR.primary_title(finding.message.as_str());
    let Some(span) = finding.span.clone().filter(|span| span.end <= text.len()) else {
        let help = finding.hint.as_ref().map(|hint| format!("\n  = help: {hint}")).unwrap_or_default();
        return format!("{}\n --> {path}{help}", Renderer::plain().render(&[Group::with_title(title)]));
    };
    let snippet = Snippet::source(text).path(path).annotation(AnnotationKind::Primary.span(span));
    let mut group = title.element(snippet);
    if let Some(hint) = &finding.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    Renderer::plain().render(&[group])
}

/// Prints lines of a result.
pub(crate) fn lines(lines: impl IntoIterator<Item = String>) -> Result<(), Failure> {
    screen::clear();
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(stdout, "{line}").map_err(Failure::Output)?;
    }
    stdout.flush().map_err(Failure::Output)
}

/// Says something on the way.
pub(crate) fn note(text: &str) {
    screen::print(&format!("{}\n", screen::printable(text)));
}
