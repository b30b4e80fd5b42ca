//! Printing: results on standard output, everything else on standard error.

use std::error::Error;
use std::io::{self, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use cas_build::BuildError;
use cas_sandbox::SandboxError;
use cas_store::StoreError;
use serde_json::json;

use crate::args::Format;
use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine said so.
    Build(Box<BuildError>),
    /// The command line is wrong.
    Usage(String),
    /// The environment lacks something.
    Usable(String, String),
    /// Printing failed.
    Output(io::Error),
}

impl<E: Into<BuildError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Build(Box::new(error.into()))
    }
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Self::Build(error) => exit_of(error),
            Self::Usage(_) | Self::Usable(..) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
        }
    }
}

fn exit_of(error: &BuildError) -> Exit {
    match error {
        BuildError::NoWorkspace { .. }
        | BuildError::Manifest { .. }
        | BuildError::Lock { .. }
        | BuildError::LockStale { .. }
        | BuildError::UnknownTarget { .. }
        | BuildError::Cycle { .. }
        | BuildError::Role { .. }
        | BuildError::NotAvailable { .. }
        | BuildError::Members { .. }
        | BuildError::UnknownImage { .. }
        | BuildError::NoCommand { .. }
        | BuildError::User { .. } => Exit::Usage,
        BuildError::Mismatch { .. } | BuildError::Package { .. } => Exit::Mismatch,
        BuildError::Fetch(_) | BuildError::PackageGone { .. } => Exit::Remote,
        BuildError::Debian { source, .. } => match source.downcast_ref::<cas_deb::ReleaseError>() {
            Some(_) => Exit::Mismatch,
            None if source.is::<cas_deb::ClosureError>() => Exit::Usage,
            None => Exit::Failed,
        },
        BuildError::Store(StoreError::Verify(_)) => Exit::Mismatch,
        BuildError::Store(_) | BuildError::Record { .. } => Exit::Store,
        BuildError::Sandbox(SandboxError::Host(_)) => Exit::Host,
        BuildError::Sandbox(_)
        | BuildError::Fs(_)
        | BuildError::ReadTar(_)
        | BuildError::Layer { .. }
        | BuildError::Compress(_) => Exit::Failed,
        BuildError::Interrupted => Exit::Interrupted,
    }
}

/// Prints a failure; returns what the process ends with.
pub(crate) fn failure(failure: &Failure, format: Format) -> Exit {
    let exit = failure.exit();
    let (message, causes, hint) = match failure {
        Failure::Build(error) => (error.to_string(), causes(error.as_ref()), error.hint()),
        Failure::Usage(message) => (message.clone(), Vec::new(), None),
        Failure::Usable(message, hint) => (message.clone(), Vec::new(), Some(hint.clone())),
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return exit,
        Failure::Output(error) => ("could not print the result".to_owned(), vec![error.to_string()], None),
    };
    let mut stderr = io::stderr().lock();
    // Where standard error is closed there is nobody to tell.
    let _ = match format {
        Format::Json => writeln!(
            io::stdout().lock(),
            "{}",
            json!({ "exit": exit.word(), "error": message, "causes": causes, "hint": hint, "findings": findings(failure) })
        ),
        Format::Text => {
            if let Failure::Build(error) = failure
                && let BuildError::Manifest { path, text, findings } = error.as_ref()
            {
                for finding in findings {
                    let _ = writeln!(stderr, "{}", draw(&path.display().to_string(), text, finding));
                }
                return exit;
            }
            let _ = writeln!(stderr, "error: {message}");
            for cause in causes {
                let _ = writeln!(stderr, "  cause: {cause}");
            }
            match hint {
                Some(hint) => writeln!(stderr, "hint: {hint}"),
                None => Ok(()),
            }
        }
    };
    exit
}

fn causes(error: &dyn Error) -> Vec<String> {
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
    let title = Level::ERROR.primary_title(finding.message.as_str());
    let Some(span) = finding.span.clone().filter(|span| span.end <= text.len()) else {
        return Renderer::plain().render(&[Group::with_title(title)]);
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
    let mut stdout = io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}").map_err(Failure::Output)?;
    }
    Ok(())
}

/// Says something on the way.
pub(crate) fn note(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
