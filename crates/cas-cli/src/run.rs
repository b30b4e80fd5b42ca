//! `cas run`: images, commands and tests in the sandbox, and programs with the workspace as it is.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{ffi::OsStr, io};

use cas_build::{
    BuildError, Force, Platforms, Program, Ran, RunEvent, RunRequest, Workspace, command_line, deps_of, run_image,
};
use cas_config::{Label, Run, TargetKind};
use cas_sandbox::{Ending, Health, Streams};
use cas_store::Store;

use crate::args::{Global, RunArgs, ShellArgs};
use crate::checkout::{built_at_places, is_placed};
use crate::commands::{
    Options, SIGNAL_BASE, build_options, cancel_on_signals, find, healed, interrupted, leave_signals, one_target,
    open_store, open_workspace, outputs, patterns, variables, with_builder,
};
use crate::exit::Exit;
use crate::image_look::fetched;
use crate::live::{Live, program_folders};
use crate::progress::Progress;
use crate::render::{self, Failure};
use crate::run_image;

/// What runs where somebody looks around.
const SHELL: &str = "/bin/sh";
/// How long a program that was asked to end is waited for, as other programs that run images do.
const STOP_TIMEOUT_SECONDS: u32 = 10;

pub(crate) fn run(global: &Global, args: RunArgs) -> Result<Exit, Failure> {
    let env = run_image::variables(&args.env_file, &args.env)?;
    let options = build_options(None, &args.inputs);
    if let Some((workspace, label)) = target(global, &args.target)? {
        let kind = &workspace.target(&label).expect("it was resolved").kind;
        // No option makes an artifact one that can be run, which is told below.
        if !matches!(kind, TargetKind::Image(_) | TargetKind::Artifact(_)) {
            run_image::refuse(&args.image, &label, kind.name())?;
        }
        match &workspace.target(&label).expect("it was resolved").kind {
            TargetKind::Run(run) if run.is_live => {
                let store = open_store(global)?;
                prepare(&workspace, &store, &label, &options)?;
                drop(store);
                return live(&workspace, &label, run, env, &args.command);
            }
            TargetKind::Command(_) | TargetKind::Test(_) | TargetKind::Run(_) => {
                let store = open_store(global)?;
                let program = || {
                    let (arguments, env) = (args.command.clone(), env.clone());
                    Ok(Program { instead: None, arguments, env, streams: streams()? })
                };
                return attached(&workspace, &store, &label, &options, &program);
            }
            _ => {}
        }
    }
    let store = open_store(global)?;
    // Before the image is built, which may take long.
    let (changes, ports) = (run_image::changes(&args.image)?, run_image::ports(&args.image)?);
    let image = match fetched(global, &store, &args.target, &Platforms::Own, args.inputs.offline)? {
        Some((image, _)) => Arc::new(image),
        None => find(global, &store, &args.target, &options)?,
    };
    let (wants_check, tier) = (args.image.health_exit, options.tier);
    let stop_timeout = Duration::from_secs(args.image.stop_timeout.unwrap_or(STOP_TIMEOUT_SECONDS).into());
    let streams = streams()?;
    let request = RunRequest { command: args.command, env, changes, ports, streams, stop_timeout, wants_check, tier };
    let (signals, is_ended_as_unhealthy) = (cancel_on_signals()?, AtomicBool::new(false));
    let cancel = &signals.0;
    let told = |event: RunEvent| {
        let health: Health = match event {
            RunEvent::Health(health) => health,
            RunEvent::OwnersNotKept { path } => {
                return render::note(&format!(
                    "warning: owners of the image's files are not kept here: everything belongs to the user, `/{path}` too"
                ));
            }
        };
        run_image::tell_health(&health);
        if args.image.health_exit && !health.is_healthy && !cancel.is_cancelled() {
            is_ended_as_unhealthy.store(true, Ordering::SeqCst);
            cancel.cancel();
        }
    };
    let Ran { ending, missed_name } = run_image(&store, &image, request, &told, cancel)?;
    // However it has ended then: it was asked to.
    if is_ended_as_unhealthy.into_inner() {
        render::note("the program was ended because it is unhealthy");
        return Ok(Exit::Failed);
    }
    if let (Some(name), Ending::Exited(1..) | Ending::Signalled(_)) = (missed_name, ending) {
        render::note(&format!(
            "`{name}` was looked up, and there is no network: `--network host` gives this machine's"
        ));
    }
    // By the signal that asked it to end, which is not always the one that this process got.
    let is_stopped = matches!(ending, Ending::Signalled(_)) && cancel.is_cancelled();
    Ok(if is_stopped { interrupted() } else { exit(ending) })
}

/// Runs a shell in the place of a step's command.
pub(crate) fn shell(global: &Global, args: ShellArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let label = one_target(&workspace, package.as_ref(), &args.target)?;
    let command = match &workspace.target(&label).expect("it was resolved").kind {
        TargetKind::Command(command) | TargetKind::Test(command) => command,
        TargetKind::Run(run) if !run.is_live => &run.command,
        other => {
            let (label, kind) = (label.to_string(), other.name());
            return Err(BuildError::Role { label, kind, role: "looked into: it does not run in the sandbox" }.into());
        }
    };
    if args.command.is_empty() {
        let own = match &command.run {
            cas_config::Program::Shell(text) => text.trim().to_owned(),
            cas_config::Program::Arguments(arguments) => format!("{arguments:?}"),
        };
        render::note(&format!("in the sandbox of {label}; what is written here is dropped. Its command:\n{own}"));
    }
    let shell = if args.command.is_empty() { vec![SHELL.to_owned()] } else { args.command };
    let options = build_options(None, &args.inputs);
    let store = open_store(global)?;
    let program = || {
        let (arguments, env) = (Vec::new(), BTreeMap::new());
        Ok(Program { instead: Some(shell.clone()), arguments, env, streams: streams()? })
    };
    attached(&workspace, &store, &label, &options, &program)
}

/// The target that a text names; `None` if it names none, for there may be an image of that name.
fn target(global: &Global, text: &str) -> Result<Option<(Workspace, Label)>, Failure> {
    let (workspace, package) = match open_workspace(global) {
        Ok(found) => found,
        Err(Failure::Build(error)) if matches!(*error, BuildError::NoWorkspace { .. }) => return Ok(None),
        Err(other) => return Err(other),
    };
    let Ok(patterns) = patterns(&[text.to_owned()]) else { return Ok(None) };
    let found = workspace.select(package.as_ref(), &patterns).ok();
    let label = found.and_then(|labels| <[Label; 1]>::try_from(labels).ok());
    Ok(label.map(|[label]| (workspace, label)))
}

/// The streams of this process, for a program.
fn streams() -> Result<Streams, Failure> {
    let own = |stream: &dyn AsFd| {
        stream.as_fd().try_clone_to_owned().map_err(|error| {
            Failure::Usable(format!("could not hand over a stream: {error}"), "leave the streams open".to_owned())
        })
    };
    Ok(Streams { stdin: Some(own(&io::stdin())?), stdout: own(&io::stdout())?, stderr: own(&io::stderr())? })
}

fn exit(ending: Ending) -> Exit {
    match ending {
        Ending::Exited(number) => code(number),
        Ending::Signalled(signal) => code(SIGNAL_BASE + signal),
        Ending::TimedOut | Ending::OverLimit(_) => Exit::Failed,
        Ending::Cancelled => interrupted(),
    }
}

fn code(code: i32) -> Exit {
    Exit::Program(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// Runs a step with the streams of this process. What the store lost is made again before it begins.
fn attached(
    workspace: &Workspace,
    store: &Store,
    label: &Label,
    options: &Options,
    program: &dyn Fn() -> Result<Program, Failure>,
) -> Result<Exit, Failure> {
    let mut work = || -> Result<Ending, Failure> {
        outputs(workspace, store, &deps_of(workspace, label)?, options)?;
        // With what was pinned just now.
        let workspace = Workspace::load(&workspace.root)?;
        let progress = Progress::default();
        let program = program()?;
        with_builder(&workspace, store, options, &progress, |builder| builder.run(label, program))
    };
    // A program that ran has ended one way or another: that is no loss.
    Ok(exit(healed(store, &mut work)?))
}

/// Builds what a live program depends on and puts it where the program looks for it.
fn prepare(workspace: &Workspace, store: &Store, label: &Label, options: &Options) -> Result<(), Failure> {
    let (placed, others): (Vec<Label>, Vec<Label>) =
        deps_of(workspace, label)?.into_iter().partition(|dep| is_placed(workspace, dep));
    outputs(workspace, store, &others, options)?;
    built_at_places(workspace, store, &placed, options, Force::No)?;
    Ok(())
}

/// Runs a program in the package's folder, with the workspace as it is.
fn live(
    workspace: &Workspace,
    label: &Label,
    run: &Run,
    more_env: BTreeMap<String, String>,
    arguments: &[String],
) -> Result<Exit, Failure> {
    let mut folder = workspace.root.clone();
    if let Some(package) = &label.package {
        folder.push(OsStr::from_bytes(package.as_bytes()));
    }
    let own = variables();
    let taken = |name: &str| run.command.env_in.iter().any(|taken| **taken == *name) && own.contains_key(name);
    let mut env: BTreeMap<String, String> = run.command.env.clone();
    env.retain(|name, _| !taken(name));
    env.extend(more_env);
    let command_line = command_line(&run.command.run, arguments);
    let program_folders = program_folders(&workspace.root, &folder);
    let program = command_line.first().cloned().unwrap_or_default();
    leave_signals();
    let ended = Live { command_line, folder, env, program_folders }.run().map_err(|error| {
        Failure::Usable(format!("could not run `{program}`: {error}"), "see `run` of its section".to_owned())
    });
    Ok(code(ended?))
}
