//! Why a command did not run.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use cas_fs::FsError;

use crate::host::HostCannot;
use crate::spec::SpecError;
use crate::wire::{StartFailure, StartKind};

/// Why there is no [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The host forbids or lacks something that a sandbox needs; exit code 6.
    #[error("this host cannot run sandboxes")]
    Host(#[from] HostCannot),
    /// The sandbox was complete, but the command is not in it or cannot run; the step's fault.
    #[error("command did not start")]
    Start(#[from] StartError),
    /// The specification is one that nothing could run.
    #[error("specification of the step is not valid")]
    Spec(#[from] SpecError),
    /// The root has something else than a directory where the sandbox mounts something.
    #[error("root file system has something other than a directory at `{}`", path.display())]
    MountPoint {
        /// Path in the root.
        path: PathBuf,
    },
    /// The scratch folder could not be prepared.
    #[error("could not prepare the scratch folder")]
    Scratch(#[from] FsError),
    /// The helper program did not start.
    #[error("could not start sandbox helper `{}`", helper.display())]
    Helper {
        /// Its path.
        helper: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no copy of the helper that nobody can change; a check and volumes need one.
    #[error("could not make a sealed copy of the sandbox helper in memory")]
    Seal(#[source] io::Error),
    /// The helper ended without a report, for example killed by somebody; the command died with it.
    #[error("sandbox helper ended without a report: {status}")]
    HelperEnded {
        /// How it ended.
        status: ExitStatus,
    },
    /// The connection to the helper broke.
    #[error("could not talk to the sandbox helper")]
    Connection(#[source] io::Error),
    /// Something else went wrong while the sandbox was made.
    #[error("could not {action}{}", path.as_ref().map(|path| format!(" `{}`", path.display())).unwrap_or_default())]
    Setup {
        /// What was tried.
        action: String,
        /// On which path, of the host or of the sandbox.
        path: Option<PathBuf>,
        /// What the system said.
        source: io::Error,
    },
}

impl SandboxError {
    /// What the user can do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Host(cannot) => cannot.hint(),
            Self::Start(error) => error.hint(),
            Self::Seal(error) if error.kind() == io::ErrorKind::PermissionDenied => Some(
                "the setting `vm.memfd_noexec` of this machine must be 0 or 1; without it, leave out `--volume` and say `--no-healthcheck`"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// Why a command did not start in a complete sandbox.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No such file; or none of that name in the folders of `PATH`.
    #[error("program `{}` is not in the root file system", program.display())]
    NotFound {
        /// As the command names it.
        program: OsString,
    },
    /// There is a file, without the right to execute it.
    #[error("`{}` is not executable", program.display())]
    NotExecutable {
        /// Path of the file.
        program: PathBuf,
    },
    /// There is a file, but its `#!` program or its dynamic loader is missing.
    #[error("the interpreter or dynamic loader of `{}` is not in the root file system", program.display())]
    InterpreterMissing {
        /// Path of the file.
        program: PathBuf,
    },
    /// There is an executable file that this machine cannot run.
    #[error("`{}` is not a program for this machine, and has no `#!` line", program.display())]
    WrongFormat {
        /// Path of the file.
        program: PathBuf,
    },
    /// Arguments and environment exceed what the kernel takes.
    #[error("arguments and environment of `{}` are longer than the kernel allows", program.display())]
    ArgumentsTooLong {
        /// Path of the program.
        program: PathBuf,
    },
    /// The working directory is not there, or is none.
    #[error("could not enter working directory `{}`", path.display())]
    WorkingDirectory {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system said something else.
    #[error("could not execute `{}`", program.display())]
    Other {
        /// Path of the program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StartError {
    pub(crate) fn from_wire(failure: StartFailure) -> Self {
        let source = io::Error::from_raw_os_error(failure.errno);
        let program = failure.path.into_path();
        match failure.kind {
            StartKind::NotFound => Self::NotFound { program: program.into_os_string() },
            StartKind::NotExecutable => Self::NotExecutable { program },
            StartKind::InterpreterMissing => Self::InterpreterMissing { program },
            StartKind::WrongFormat => Self::WrongFormat { program },
            StartKind::ArgumentsTooLong => Self::ArgumentsTooLong { program },
            StartKind::WorkingDirectory => Self::WorkingDirectory { path: program, source },
            StartKind::Other => Self::Other { program, source },
        }
    }

    /// What the user can do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { program } => {
                Some(format!("add what provides `{}` to the toolchain, or correct `PATH`", program.display()))
            }
            Self::InterpreterMissing { .. } => Some(
                "add the interpreter, or the C library that the program is linked against, to the toolchain".into(),
            ),
            _ => None,
        }
    }
}
