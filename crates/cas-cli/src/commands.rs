//! The commands.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use cas_build::{
    Artifact, BuildError, Builder, Built, Event, Image, ImageRegistries, LOCK_FILE, MANIFEST_FILE, Mode, Observer,
    Output, SecretSources, Taints, Trials, Workspace, article, find_artifact, find_image, healing, row_needs,
    write_tarball,
};
use cas_config::{Fetch, Label, LockChange, Pattern, RootSource, Target, TargetKind, Toolchain};
use cas_fetch::{Fetcher, npm_registry as fetch_npm_registry};
use cas_init::Source;
use cas_registry::Client;
use cas_sandbox::{Cancel, Runner, SandboxError, Tier};
use cas_snapshot::Trust;
use cas_store::{Durability, Store, StoreOptions};
use cas_tree::RelPath;
use etcetera::BaseStrategy;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::{
    Cli, Command, Format, Global, ImportCommand, InputArgs, LockArgs, NpmCommand, PackArgs, SandboxCommand, Shard,
    StepArgs,
};
use crate::exit::Exit;
use crate::image_file::ImageFiles;
use crate::init;
use crate::place::place;
use crate::progress::Progress;
use crate::render::{self, Failure};
use crate::timeline::Timeline;
use crate::{affected, checkout, doctor, image, image_file, own_files, pages, rebuild, remarks, store, test, why};

/// Signals are 128 and the number in a shell's exit codes.
pub(crate) const SIGNAL_BASE: i32 = 128;

pub(crate) fn run(cli: Cli, arguments: &[std::ffi::OsString]) -> Result<Exit, Failure> {
    let Cli { global, command } = cli;
    check_folder(&global)?;
    match command {
        Command::Init(args) => init::run(&global, Source::Folder, &args),
        Command::Import(ImportCommand::Turbo(args)) => init::run(&global, Source::Turbo, &args),
        Command::Import(ImportCommand::Nx(args)) => init::run(&global, Source::Nx, &args),
        Command::Build(args) => {
            let purpose = if args.tests { Purpose::Both } else { Purpose::Build };
            let images = ImageFiles { metadata: args.metadata_file, id: args.iidfile };
            let work = Work { purpose, trials: Trials::default(), shard: None, junit: None, images };
            build_or_watch(&global, arguments, &args.common, work)
        }
        Command::Test(args) => {
            let trials = Trials { rerun: args.rerun, retry_count: args.retries, arguments: args.arguments };
            let images = ImageFiles::default();
            let work = Work { purpose: Purpose::Test, trials, shard: args.shard, junit: args.junit, images };
            build_or_watch(&global, arguments, &args.common, work)
        }
        Command::Checkout(args) => checkout::run(&global, &args),
        Command::Run(args) => crate::run::run(&global, args),
        Command::Sandbox(SandboxCommand::Shell(args)) => crate::run::shell(&global, args),
        Command::Why(args) => why::why(&global, &args),
        Command::Affected(args) => affected::run(&global, &args),
        Command::Query(args) => why::query(&global, &args),
        Command::Graph(args) => why::graph(&global, &args),
        Command::Lock(args) => lock(&global, &args),
        Command::Npm(NpmCommand::Pack(args)) => npm_pack(&global, &args),
        Command::Image(command) => image::run(&global, command),
        Command::Provenance(args) => crate::provenance::run(&global, &args),
        Command::Key(command) => crate::key::run(&global, command),
        Command::Sign(args) => crate::sign::sign(&global, &args),
        Command::Attest(args) => crate::sign::attest(&global, &args),
        Command::Verify(args) => crate::verify::verify(&global, &args),
        Command::Push(args) => crate::push::run(&global, &args),
        Command::Publish(args) => crate::publish::run(&global, &args),
        Command::Serve(args) => crate::serve::run(&global, &args),
        Command::Copy(args) => crate::copy::copy(&global, &args),
        Command::Registry(command) => crate::registry::run(&global, &command),
        Command::Sync(command) => crate::sync::run(&global, &command),
        Command::Pull(args) => crate::pull::run(&global, &args),
        Command::Login(args) => crate::login::login(&global, &args),
        Command::Logout(args) => crate::login::logout(&global, &args),
        Command::Tag(args) => crate::copy::tag(&global, &args),
        Command::Store(command) => store::run(&global, command),
        Command::Watch(command) => crate::watch::run(&global, command),
        Command::Doctor => doctor::doctor(&global),
        Command::Schema => pages::schema(),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { folder } => pages::man(&folder),
    }
}

/// Fails when there is nothing to work in: a folder that is none, or one that was removed under the shell.
fn check_folder(global: &Global) -> Result<(), Failure> {
    let folder = here(global);
    // What `.` leads to can be looked at even when it has no name any more.
    let real = cas_fs::canonicalize(&folder).map_err(|error| Failure::Folder(error.path.clone(), Some(error)))?;
    match cas_fs::metadata(&real) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::Folder(folder, None)),
        Err(error) => Err(Failure::Folder(folder, Some(error))),
    }
}

pub(crate) fn here(global: &Global) -> PathBuf {
    global.directory.clone().unwrap_or_else(|| PathBuf::from("."))
}

/// A path of the command line, which goes by the folder that is worked in.
pub(crate) fn in_here(global: &Global, path: &Path) -> PathBuf {
    global.directory.as_ref().map_or_else(|| path.to_owned(), |folder| folder.join(path))
}

#[expect(clippy::disallowed_methods, reason = "this is where the process's environment is read")]
pub(crate) fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Removes what killed builds left that belongs to other users of a sandbox.
pub(crate) fn remove_left(store: &Store) -> Result<(), SandboxError> {
    store.remove_left(|folder| Runner::this_program().remove(folder))
}

pub(crate) fn open_store(global: &Global) -> Result<Store, Failure> {
    let home = match global.store.clone().or_else(|| variable("CAS_HOME").map(PathBuf::from)) {
        Some(home) => home,
        None => {
            let strategy = etcetera::choose_base_strategy().map_err(|error| {
                Failure::Usable(format!("there is no home folder: {error}"), "use `--store FOLDER`".to_owned())
            })?;
            strategy.cache_dir().join("cas")
        }
    };
    let options = StoreOptions {
        durability: Durability::Epoch,
        allow_network: global.store_on_network,
        seals: true,
        needs: Some(row_needs),
    };
    let store = Store::open_with(&home, options)?;
    // What stays for want of users is no reason not to go on; `cas store gc` tells of it.
    let _ = remove_left(&store);
    Ok(store)
}

/// The workspace, and the package that the current folder is in.
pub(crate) fn open_workspace(global: &Global) -> Result<(Workspace, Option<RelPath>), Failure> {
    let here = here(global);
    let root = Workspace::find(&here)?;
    let workspace = Workspace::load(&root)?;
    for pattern in workspace.members_without_packages() {
        render::note(&format!("warning: `{pattern}` of `members` selects no folder with a `{MANIFEST_FILE}`"));
    }
    let here = cas_fs::canonicalize(&here).map_err(BuildError::from)?;
    let inside = here.strip_prefix(&root).unwrap_or(Path::new(""));
    let package = inside.ancestors().find_map(|folder| {
        let path = RelPath::new(std::os::unix::ffi::OsStrExt::as_bytes(folder.as_os_str())).ok()?;
        workspace.packages.contains_key(&Some(path.clone())).then_some(path)
    });
    Ok((workspace, package))
}

/// Whether it was `SIGTERM` that ended the work.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// The exit of work that was interrupted, by the signal that did it.
pub(crate) fn interrupted() -> Exit {
    if TERMINATED.load(Ordering::SeqCst) { Exit::Terminated } else { Exit::Interrupted }
}

/// What signals do.
static ON_SIGNAL: Mutex<OnSignal> = Mutex::new(OnSignal::End);

/// What a signal that ends programs does to this one.
enum OnSignal {
    /// Ends it at once, and takes away what it has not finished.
    End,
    /// Ends the work that looks at the switch, the second time without patience, the third time as [`OnSignal::End`].
    Cancel(Cancel, usize),
    /// Nothing: somebody else listens.
    Nothing,
}

/// As long as it lives, signals throw its switch; then they do what they did before.
pub(crate) struct OnSignals(pub(crate) Cancel, OnSignal);

impl Drop for OnSignals {
    fn drop(&mut self) {
        *on_signal() = std::mem::replace(&mut self.1, OnSignal::End);
    }
}

fn on_signal() -> MutexGuard<'static, OnSignal> {
    ON_SIGNAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets signals throw a switch.
pub(crate) fn cancel_on_signals() -> Result<OnSignals, Failure> {
    let cancel = Cancel::new().map_err(not_watched)?;
    let before = std::mem::replace(&mut *on_signal(), OnSignal::Cancel(cancel.clone(), 0));
    let cancelling = OnSignals(cancel, before);
    watch_signals()?;
    Ok(cancelling)
}

impl OnSignals {
    /// A client of registries that these signals stop.
    pub(crate) fn client(&self, logins: Vec<PathBuf>, mirrors: BTreeMap<String, String>) -> Client {
        let switch = self.0.clone();
        Client::new(logins, mirrors).until(move || switch.is_cancelled())
    }
}

/// Leaves signals to somebody else who listens, from now on.
pub(crate) fn leave_signals() {
    *on_signal() = OnSignal::Nothing;
}

fn not_watched(error: io::Error) -> Failure {
    Failure::Usable(format!("could not watch for signals: {error}"), String::new())
}

/// Lets signals do what [`ON_SIGNAL`] says, which is to end the process and to leave nothing unfinished if nobody has said otherwise.
pub(crate) fn watch_signals() -> Result<(), Failure> {
    static IS_WATCHED: AtomicBool = AtomicBool::new(false);
    if IS_WATCHED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(not_watched)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let mut does = on_signal();
            match &mut *does {
                OnSignal::Nothing => continue,
                OnSignal::Cancel(cancel, count @ ..=1) => {
                    *count += 1;
                    if *count == 1 && !cancel.is_cancelled() {
                        // A terminal that was closed ends the work as well, and with it what steps have written so far.
                        TERMINATED.store(signal != SIGINT, Ordering::SeqCst);
                        cancel.cancel();
                    } else {
                        cancel.insist();
                    }
                }
                OnSignal::Cancel(..) | OnSignal::End => {
                    cas_fs::remove_temporary_dirs();
                    let exit = if signal == SIGINT { Exit::Interrupted } else { Exit::Terminated };
                    // Without what others would do at the end: they are in the middle of something.
                    cas_sys::exit(exit.code().into())
                }
            }
        }
    });
    Ok(())
}

fn apt_sources() -> Vec<String> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    // A machine without apt, or without rights to read its files, uses the default mirror.
    for entry in cas_fs::read_dir(Path::new("/etc/apt/sources.list.d")).unwrap_or_default() {
        paths.push(Path::new("/etc/apt/sources.list.d").join(entry.name));
    }
    paths.iter().filter_map(|path| cas_fs::read_to_string(path).ok()).collect()
}

/// The registry that npm would use: of its variable, the workspace's `.npmrc`, the user's, else npm's own.
fn npm_registry(workspace: &Workspace) -> String {
    let address = |text: &str| fetch_npm_registry(&format!("registry={text}"));
    let named = ["npm_config_registry", "NPM_CONFIG_REGISTRY"]
        .into_iter()
        .find_map(|name| address(&variable(name)?.into_string().ok()?));
    let file = |path: &Path| fetch_npm_registry(&cas_fs::read_to_string(path).ok()?);
    named
        .or_else(|| file(&workspace.root.join(".npmrc")))
        .or_else(|| {
            let user = variable("NPM_CONFIG_USERCONFIG").or_else(|| variable("npm_config_userconfig"));
            let home = variable("HOME").map(|home| PathBuf::from(home).join(".npmrc"));
            file(&user.map(PathBuf::from).or(home)?)
        })
        .unwrap_or_else(|| cas_fetch::defaults::NPM.to_owned())
}

/// Memory that programs can have now without anything being swapped out, by the kernel's own estimate.
fn available_memory() -> Option<u64> {
    let text = cas_fs::read_to_string(Path::new("/proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The variables that steps may take over: those that are texts.
pub(crate) fn variables() -> BTreeMap<String, String> {
    let texts = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(texts).collect()
}

/// Cargo's own folder.
/// Files where docker, podman and skopeo keep logins, the first one first.
pub(crate) fn logins() -> Vec<PathBuf> {
    let named = |name: &str| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = named("HOME");
    let config = named("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let docker = named("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
    let places = [
        named("REGISTRY_AUTH_FILE"),
        named("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
        config.map(|folder| folder.join("containers/auth.json")),
        // Where podman and skopeo keep them without a folder of the session, as in cron.
        Some(format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw()).into()),
        docker.map(|folder| folder.join("config.json")),
        home.map(|home| home.join(".dockercfg")),
    ];
    places.into_iter().flatten().collect()
}

fn cargo_home() -> Option<PathBuf> {
    let named = variable("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    named.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read: to see expired indexes")]
pub(crate) fn now_unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// What targets are built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Their outputs.
    Build,
    /// Whether tests pass.
    Test,
    /// Both.
    Both,
}

/// What is done with what the command line selects.
struct Work {
    purpose: Purpose,
    trials: Trials,
    shard: Option<Shard>,
    junit: Option<PathBuf>,
    images: ImageFiles,
}

pub(crate) struct Options {
    jobs: Option<NonZeroUsize>,
    mode: Mode,
    /// What an update is of; all, when there is nothing.
    only: BTreeSet<String>,
    pins_only: bool,
    offline: bool,
    keep_going: bool,
    check_repeat: bool,
    trials: Trials,
    trust: Trust,
    secrets: SecretSources,
    pub(crate) tier: Tier,
}

/// Does something again when the store turns out to have lost what it said to have.
pub(crate) fn healed<T>(store: &Store, work: &mut dyn FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let is_loss = |result: &Result<T, Failure>| result.as_ref().is_err_and(Failure::is_loss);
    healing(store, &|| false, work, &is_loss)
}

/// Does something with a builder as the command line and the environment describe it.
pub(crate) fn with_builder<T>(
    workspace: &Workspace,
    store: &Store,
    options: &Options,
    progress: &Progress,
    work: impl FnOnce(&Builder<'_>) -> Result<T, BuildError>,
) -> Result<T, Failure> {
    let signals = cancel_on_signals()?;
    let cancel = signals.0.clone();
    let switch = cancel.clone();
    let fetcher = if options.offline { Fetcher::offline() } else { Fetcher::new() };
    let fetcher = fetcher.until(move || switch.is_cancelled()).through(workspace.mirrors.clone());
    let client = if options.offline { Client::offline() } else { Client::new(logins(), workspace.mirrors.clone()) };
    let switch = cancel.clone();
    let registries = ImageRegistries::new(client.until(move || switch.is_cancelled()));
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let builder = Builder {
        workspace,
        store,
        actions: store,
        fetcher: &fetcher,
        registries: Arc::new(registries),
        jobs,
        memory_bytes: available_memory(),
        mode: options.mode,
        only: options.only.clone(),
        pins_only: options.pins_only,
        keep_going: options.keep_going,
        check_repeat: options.check_repeat,
        tier: options.tier,
        trials: options.trials.clone(),
        trust: options.trust,
        observer: progress,
        apt_sources: apt_sources(),
        npm_registry: npm_registry(workspace),
        variables: variables(),
        secrets: options.secrets.clone(),
        cargo_home: cargo_home(),
        now_unix_seconds: now_unix_seconds(),
        cancel,
    };
    Ok(work(&builder)?)
}

pub(crate) fn build_options(jobs: Option<NonZeroUsize>, inputs: &InputArgs) -> Options {
    let mode = if inputs.locked || variable("CI").is_some() { Mode::Locked } else { Mode::Normal };
    let trust = match (inputs.verify_inputs, inputs.trust_network_mtime) {
        (true, _) => Trust::Nothing,
        (false, true) => Trust::Network,
        (false, false) => Trust::Local,
    };
    let secrets = SecretSources { files: inputs.secret.iter().cloned().collect() };
    let trials = Trials::default();
    let only = BTreeSet::new();
    let tier = inputs.sandbox.into();
    doctor::note_tier(tier);
    Options {
        jobs,
        mode,
        only,
        offline: inputs.offline,
        keep_going: false,
        check_repeat: false,
        pins_only: false,
        trials,
        trust,
        secrets,
        tier,
    }
}

/// The outputs of targets, with a word when the lock changed on the way.
pub(crate) fn outputs(
    workspace: &Workspace,
    store: &Store,
    labels: &[Label],
    options: &Options,
) -> Result<BTreeMap<Label, Output>, Failure> {
    let progress = Progress::default();
    let Built { outputs, mut failures, lock_changed, .. } =
        with_builder(workspace, store, options, &progress, |builder| match builder.build(labels)? {
            // What was to be done with them is not begun.
            _ if builder.cancel.is_cancelled() => Err(BuildError::Interrupted),
            built => Ok(built),
        })?;
    note_lock(lock_changed);
    match failures.pop_first() {
        Some((_, error)) => Err(error.into()),
        None => Ok(outputs),
    }
}

fn note_lock(changed: bool) {
    if changed {
        render::note(&format!("note: `{LOCK_FILE}` has new entries; commit it"));
    }
}

fn build_or_watch(
    global: &Global,
    arguments: &[std::ffi::OsString],
    args: &StepArgs,
    work: Work,
) -> Result<Exit, Failure> {
    if args.watch {
        let own: Vec<PathBuf> = args.trace.iter().chain(&work.junit).chain(work.images.paths()).cloned().collect();
        return rebuild::run(global, arguments, &own);
    }
    if let Some(parent) = args.watched_by {
        rebuild::end_with(parent)?;
    }
    build(global, args, work)
}

fn build(global: &Global, args: &StepArgs, work: Work) -> Result<Exit, Failure> {
    let Work { purpose, trials, shard, junit, images } = work;
    let timeline = args.trace.as_ref().map(|_| Timeline::new());
    let progress = Progress::with_timeline(timeline).on_terminal(global.format);
    let done = |name: &str, started: Instant| progress.event(Event::Span { name, kind: "build", started });
    let started = Instant::now();
    let (workspace, package) = open_workspace(global)?;
    let workspace = ManuallyDrop::new(workspace);
    remarks::tell(&workspace);
    let reports: Vec<&Path> = args.trace.iter().chain(&junit).chain(images.paths()).map(PathBuf::as_path).collect();
    own_files::check_secrets(&workspace, &args.inputs.secret, &here(global))?;
    own_files::check_reports(&workspace, &reports, &here(global))?;
    done("workspace", started);
    let started = Instant::now();
    let store = open_store(global)?;
    done("store", started);
    let labels = if args.targets.is_empty() {
        wanted(&workspace, workspace.targets().map(|(label, _)| label).collect(), purpose)
    } else {
        let mut labels = Vec::new();
        for pattern in patterns(&args.targets)? {
            let exact = matches!(pattern, Pattern::One(_));
            let found = workspace.select(package.as_ref(), &[pattern])?;
            if exact && purpose == Purpose::Test {
                note_others(&workspace, &found);
            }
            // What is named is built whatever it is; a pattern means what the command is for.
            labels.extend(if exact { found } else { wanted(&workspace, found, purpose) });
        }
        labels.sort();
        labels.dedup();
        labels
    };
    let labels = match shard {
        Some(shard) => test::part(labels, shard),
        None => labels,
    };
    images.check(global, &workspace, &labels)?;
    if labels.is_empty() && purpose == Purpose::Test {
        render::note(&test::nothing(shard));
    }
    let options = Options {
        keep_going: args.keep_going || purpose == Purpose::Test,
        check_repeat: args.check_repeat,
        trials,
        ..build_options(args.jobs, &args.inputs)
    };
    let mut work = || -> Result<(Built, Vec<Value>), Failure> {
        let built = with_builder(&workspace, &store, &options, &progress, |builder| builder.build(&labels))?;
        note_lock(built.lock_changed);
        let started = Instant::now();
        let paths = place(&workspace, &store, &built.outputs)?;
        done("outputs", started);
        let mut rows = Vec::new();
        for (label, output) in &built.outputs {
            let kind = workspace.target(label).map_or("target", |target| target.kind.name());
            let mut row = describe(label, kind, output);
            test::mark(&mut row, label, &progress.notes);
            if let Some(path) = paths.get(label) {
                row["path"] = json!(path.strip_prefix(&workspace.root).unwrap_or(path).display().to_string());
            }
            rows.push(row);
        }
        Ok((built, rows))
    };
    let (Built { outputs, failures, untried, .. }, rows) = healed(&store, &mut work)?;
    // The process ends soon, and the kernel takes thousands of small pieces back at once.
    let (outputs, rows) = (ManuallyDrop::new(outputs), ManuallyDrop::new(rows));
    if let Some(path) = junit {
        test::report(&here(global).join(path), &labels, &failures, &untried, &progress.notes)?;
    }
    if failures.is_empty() && untried.is_empty() {
        images.write(global, &outputs)?;
    }
    let failures: Vec<(Label, Failure)> = failures.into_iter().map(|(label, error)| (label, error.into())).collect();
    progress.rest();
    let made = outputs.values().filter_map(|output| match output {
        Output::Image(image) => Some(&**image),
        _ => None,
    });
    remarks::tell_images(&store, made);
    let damaged = store.quarantined();
    if damaged > 0 {
        let what = render::counted(damaged, "damaged object");
        let (were, them) = if damaged == 1 { ("was", "it") } else { ("were", "them") };
        render::note(&format!("warning: {what} {were} moved aside, and what was needed of {them} made again"));
        render::note("hint: `cas store fsck --full` looks at everything else");
    }
    let untried: Vec<String> = untried.iter().map(ToString::to_string).collect();
    if let (Some(timeline), Some(path)) = (&progress.timeline, &args.trace) {
        timeline.write(&here(global).join(path)).map_err(BuildError::from)?;
    }
    render::results(global.format, &rows, &failures, &untried, &progress)
}

/// Tells of what was named and is no test, so that nobody takes it for one that passed.
fn note_others(workspace: &Workspace, labels: &[Label]) {
    for (label, target) in labels.iter().filter_map(|label| Some((label, workspace.target(label)?))) {
        if !matches!(target.kind, TargetKind::Test(_)) {
            let kind = target.kind.name();
            render::note(&format!("note: `{label}` is no test but {} {kind}: it is built", article(kind)));
        }
    }
}

/// Of what a pattern selects, what the command is for.
fn wanted(workspace: &Workspace, labels: Vec<Label>, purpose: Purpose) -> Vec<Label> {
    let is_test =
        |label: &Label| matches!(workspace.target(label).map(|target| &target.kind), Some(TargetKind::Test(_)));
    let is_run = |label: &Label| matches!(workspace.target(label).map(|target| &target.kind), Some(TargetKind::Run(_)));
    let is_wanted =
        |label: &Label| !is_run(label) && (purpose == Purpose::Both || is_test(label) == (purpose == Purpose::Test));
    labels.into_iter().filter(is_wanted).collect()
}

fn npm_pack(global: &Global, args: &PackArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let store = open_store(global)?;
    let is_npm = |label: &Label| matches!(workspace.target(label).map(|target| &target.kind), Some(TargetKind::Npm(_)));
    let labels: Vec<Label> = if args.targets.is_empty() {
        let own = workspace.targets().map(|(label, _)| label).filter(|label| label.package == package);
        own.filter(|label| is_npm(label)).collect()
    } else {
        let mut labels = Vec::new();
        for pattern in patterns(&args.targets)? {
            let exact = matches!(pattern, Pattern::One(_));
            let found = workspace.select(package.as_ref(), &[pattern])?;
            labels.extend(found.into_iter().filter(|label| exact || is_npm(label)));
        }
        labels
    };
    if labels.is_empty() {
        return Err(Failure::Usable("there is no `npm` target here".to_owned(), "name one".to_owned()));
    }
    for label in &labels {
        if !is_npm(label) {
            let kind = workspace.target(label).map_or("target", |target| target.kind.name());
            return Err(BuildError::Role { label: label.to_string(), kind, role: "packed" }.into());
        }
    }
    let built = outputs(&workspace, &store, &labels, &build_options(None, &args.inputs))?;
    let mut rows = Vec::new();
    for (label, output) in &built {
        let Output::Tarball(tarball) = output else { continue };
        let mut row = describe(label, "npm", output);
        if !args.dry_run {
            let path = write_tarball(&store, tarball, &here(global).join(&args.pack_destination))?;
            row["path"] = json!(path.display().to_string());
        }
        rows.push(row);
    }
    print(global, &rows, |row| match row["path"].as_str() {
        Some(path) => format!("{} {} {path}", text(&row["name"]), text(&row["integrity"])),
        None => {
            let files = row["files"].as_array().into_iter().flatten().map(text);
            files.collect::<Vec<_>>().join("\n")
        }
    })?;
    Ok(Exit::Done)
}

/// The one target that a text names.
pub(crate) fn one_target(workspace: &Workspace, package: Option<&RelPath>, text: &str) -> Result<Label, Failure> {
    let labels = workspace.select(package, &patterns(&[text.to_owned()])?)?;
    match <[Label; 1]>::try_from(labels) {
        Ok([label]) => Ok(label),
        Err(_) => Err(Failure::Usage(format!("`{text}` is not one target"))),
    }
}

pub(crate) fn patterns(texts: &[String]) -> Result<Vec<Pattern>, Failure> {
    let parse = |text: &String| {
        text.parse().map_err(|error: cas_config::LabelError| match error.hint() {
            Some(_) if text.starts_with("//") && !text.contains(':') => {
                Failure::Usable(error.to_string(), format!("did you mean `{}/...`?", text.trim_end_matches('/')))
            }
            Some(_) if text.contains('/') && !text.contains(':') => {
                Failure::Usable(error.to_string(), format!("did you mean `//{}/...`?", text.trim_matches(['/', '.'])))
            }
            Some(_) if cas_config::is_target_name(text) => {
                Failure::Usable(error.to_string(), format!("did you mean `:{text}`, or `//{text}/...`?"))
            }
            Some(hint) => Failure::Usable(error.to_string(), hint.to_owned()),
            None => Failure::Usage(error.to_string()),
        })
    };
    texts.iter().map(parse).collect()
}

fn describe(label: &Label, kind: &str, output: &Output) -> Value {
    let mut row = json!({ "target": label.to_string(), "kind": kind });
    if let Some(Taints { hosts, incremental, sandboxes }) = output.taints() {
        for (key, labels) in [("hosts", hosts), ("incremental", incremental), ("sandboxes", sandboxes)] {
            if !labels.is_empty() {
                row[key] = json!(labels);
            }
        }
    }
    if let Output::Files(files) = output {
        row["action"] = json!(files.action.to_string());
    }
    match output {
        Output::Toolchain(toolchain) => {
            row["digest"] = json!(toolchain.name.digest.to_string());
            row["root"] = json!(toolchain.kind());
            if let Some(count) = toolchain.package_count() {
                row["packages"] = json!(count);
            }
            if let Some(identity) = toolchain.host_identity() {
                row["host"] = json!(identity);
            }
        }
        Output::Download(download) => {
            row["digest"] = json!(download.blob.digest.to_string());
            row["size"] = json!(download.blob.size);
        }
        Output::Package(package) => row["digest"] = json!(package.name.digest.to_string()),
        Output::Packages(packages) => {
            row["digest"] = json!(packages.name.digest.to_string());
            row["packages"] = json!(packages.trees.len());
        }
        Output::Crates(crates) => {
            row["digest"] = json!(crates.name.digest.to_string());
            row["packages"] = json!(crates.trees.len());
        }
        Output::Tarball(tarball) => {
            row["digest"] = json!(tarball.recipe.blob.digest.to_string());
            row["name"] = json!(tarball.name);
            row["version"] = json!(tarball.version);
            row["integrity"] = json!(tarball.integrity.to_string());
            row["tar"] = json!(tarball.recipe.tar.digest.to_string());
            row["size"] = json!(tarball.recipe.blob.size);
            row["files"] = json!(tarball.paths.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
        // A test that has an output is one that passed.
        Output::Files(_) if kind == "test" => row["status"] = json!("passed"),
        Output::Files(files) => row["digest"] = json!(files.name.digest.to_string()),
        Output::Image(image) => image_file::describe(image, &mut row),
        Output::Artifact(artifact) => image_file::describe_artifact(artifact, &mut row),
    }
    row
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn print(global: &Global, rows: &[Value], line: impl Fn(&Value) -> String) -> Result<(), Failure> {
    match global.format {
        Format::Json => render::lines([json!({ "exit": Exit::Done.word(), "results": rows }).to_string()]),
        Format::Text => render::lines(rows.iter().map(line)),
    }
}

/// What the store has by name.
pub(crate) enum Named {
    /// An image.
    Image(Arc<Image>),
    /// An artifact.
    Artifact(Arc<Artifact>),
}

impl Named {
    /// What the store has by a name, images first.
    pub(crate) fn of_store(store: &Store, name: &str) -> Result<Self, BuildError> {
        match find_image(store, name) {
            Err(BuildError::UnknownImage { .. }) => find_artifact(store, name).map(Self::Artifact),
            found => found.map(Self::Image),
        }
    }
}

/// An image by name: a label is a target of the workspace, which is built first; other names are looked for in the store, and outside of
/// workspaces labels too.
pub(crate) fn find(global: &Global, store: &Store, name: &str, options: &Options) -> Result<Arc<Image>, Failure> {
    match named(global, store, name, options, false)? {
        Named::Image(image) => Ok(image),
        Named::Artifact(artifact) => Err(no_image(&artifact.reference, "artifact")),
    }
}

fn no_image(label: &str, kind: &'static str) -> Failure {
    BuildError::Role { label: label.to_owned(), kind, role: "used as an image" }.into()
}

/// An image or, where it `may_be_artifact`, an artifact by name, as [`find`] has it.
pub(crate) fn named(
    global: &Global,
    store: &Store,
    name: &str,
    options: &Options,
    may_be_artifact: bool,
) -> Result<Named, Failure> {
    // Also without a build: what is done with the image may be long, and leaves nothing behind then.
    watch_signals()?;
    let (workspace, package) = match open_workspace(global) {
        Ok(found) => found,
        Err(Failure::Build(error)) if matches!(*error, BuildError::NoWorkspace { .. }) => {
            return Ok(Named::of_store(store, name)?);
        }
        Err(other) => return Err(other),
    };
    let patterns = match patterns(&[name.to_owned()]) {
        Ok(patterns) => patterns,
        // Images of others have names of their own.
        Err(error) => return Named::of_store(store, name).map_err(|_| error),
    };
    // A label means this workspace alone: what the store has by it may be of another one.
    let labels = workspace.select(package.as_ref(), &patterns)?;
    if let [label] = labels.as_slice()
        && let Some(target) = workspace.target(label)
        && !matches!(target.kind, TargetKind::Image(_))
        && !(may_be_artifact && matches!(target.kind, TargetKind::Artifact(_)))
    {
        return Err(no_image(&label.to_string(), target.kind.name()));
    }
    let [label] = labels.as_slice() else {
        return Err(Failure::Usage(format!("`{name}` is not one image")));
    };
    match outputs(&workspace, store, &labels, options)?.remove(label) {
        Some(Output::Image(image)) => Ok(Named::Image(image)),
        Some(Output::Artifact(artifact)) => Ok(Named::Artifact(artifact)),
        _ => Err(BuildError::UnknownImage { name: name.to_owned() }.into()),
    }
}

/// Labels of targets, written whole, and names of packages that are pinned.
fn only_these(workspace: &Workspace, package: Option<&RelPath>, texts: &[String]) -> Result<BTreeSet<String>, Failure> {
    let mut only = BTreeSet::new();
    for text in texts {
        let is_label = text.starts_with(['/', ':']);
        let is_pinned = || workspace.lock.debian.iter().flat_map(|entry| &entry.packages).any(|one| one.name == *text);
        if !is_label && !is_pinned() {
            return Err(Failure::Usage(format!(
                "`{LOCK_FILE}` pins no package `{text}`; a target is written `:{text}`"
            )));
        }
        only.insert(if is_label { one_target(workspace, package, text)?.to_string() } else { text.clone() });
    }
    Ok(only)
}

fn lock(global: &Global, args: &LockArgs) -> Result<Exit, Failure> {
    let (workspace, package) = open_workspace(global)?;
    let store = open_store(global)?;
    let is_pinned = |target: &Target| match &target.kind {
        // Of an image of the workspace nothing is pinned: what it is made of is.
        TargetKind::Toolchain(Toolchain::Image(image)) => matches!(image.source, RootSource::Place(_)),
        // Of this machine neither, and its probes may not run here.
        TargetKind::Toolchain(Toolchain::Host(_)) => false,
        TargetKind::Toolchain(_) | TargetKind::Fetch(Fetch::Npm(_)) => true,
        _ => false,
    };
    let labels: Vec<Label> =
        workspace.targets().filter(|(_, target)| is_pinned(target)).map(|(label, _)| label).collect();
    let mode = match (args.check, args.update) {
        (true, _) => Mode::Locked,
        (false, true) => Mode::Update,
        (false, false) => Mode::Normal,
    };
    let only = only_these(&workspace, package.as_ref(), &args.only)?;
    let options = Options { mode, only, pins_only: true, ..build_options(None, &InputArgs::default()) };
    let mut built = {
        let progress = Progress::default().on_terminal(global.format);
        with_builder(&workspace, &store, &options, &progress, |builder| builder.build(&labels))?
    };
    if let Some((_, error)) = built.failures.pop_first() {
        return Err(error.into());
    }
    let changed = built.lock_changed;
    let mut rows = Vec::new();
    if changed {
        let now = Workspace::load(&workspace.root)?;
        for LockChange { target, item, from, to } in workspace.lock.changes(&now.lock) {
            rows.push(json!({ "target": target, "item": item, "from": from, "to": to }));
        }
    }
    rows.push(json!({ "target": LOCK_FILE, "changed": changed }));
    print(global, &rows, |row| match row.get("changed") {
        Some(changed) if *changed == json!(true) => format!("{LOCK_FILE} was written"),
        Some(_) => format!("{LOCK_FILE} is up to date"),
        None => {
            let what = [text(&row["target"]), text(&row["item"])].join(" ");
            match (row["from"].as_str(), row["to"].as_str()) {
                (Some(from), Some(to)) => format!("{}: {from} -> {to}", what.trim()),
                (Some(from), None) => format!("{}: {from} is gone", what.trim()),
                (None, to) => format!("{}: {} is new", what.trim(), to.unwrap_or_default()),
            }
        }
    })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_within_work_leaves_signals_to_the_outer_one() {
        let outer = cancel_on_signals().expect("signals are watched");
        drop(cancel_on_signals().expect("signals are watched"));
        match &*on_signal() {
            OnSignal::Cancel(cancel, 0) => cancel.cancel(),
            _ => panic!("signals do something else"),
        }
        assert!(outer.0.is_cancelled(), "it is the switch of the inner one");
        drop(outer);
        assert!(matches!(*on_signal(), OnSignal::End));
    }
}
