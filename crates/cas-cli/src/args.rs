//! The command line.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::args_remote::{CopyArgs, LoginArgs, LogoutArgs, PullArgs, PushArgs, TagArgs};

/// A hermetic builder, cache and artifact tool
///
/// Builds what `cas.toml` describes, each step in a sandbox that holds its declared inputs and nothing else, and keeps
/// every result by the digest of its content. The same inputs give the same bytes on every machine.
#[derive(Debug, Parser)]
#[command(name = "cas", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Work as if started in this folder
    #[arg(short = 'C', long, global = true, value_name = "FOLDER")]
    pub(crate) directory: Option<PathBuf>,
    /// Folder of the store [default: $CAS_HOME, else `cas` in the user's cache folder]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) store: Option<PathBuf>,
    /// Use a store on a network file system, slowly, and as safely as its server's locks are
    #[arg(long, global = true)]
    pub(crate) store_on_network: bool,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people; for `cas graph`, Graphviz's language
    #[value(alias = "dot")]
    Text,
    /// One JSON document on standard output
    Json,
}

/// Whether arguments that could not be understood ask for JSON, so that who reads them gets it.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    let own = arguments.iter().take_while(|argument| *argument != "--");
    let before = std::iter::once(None).chain(arguments.iter().map(Some));
    own.zip(before).any(|(argument, before)| {
        argument == "--format=json" || (argument == "json" && before.is_some_and(|before| before == "--format"))
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write cas.toml files for what is in this folder
    ///
    /// Recognises workspaces of npm, pnpm and yarn, Cargo workspaces and Go modules, and writes one file for each package with
    /// targets for its scripts. Only what is certain is written; the report says what was found, what to do before the first
    /// build, what deserves a look, and what would make the result hermetic. All files are written, or none; a cas.toml that
    /// is there is never changed. In a git repository `cas-out/` is added to .gitignore.
    Init(InitArgs),
    /// Write cas.toml files for what another tool describes
    #[command(subcommand)]
    Import(ImportCommand),
    /// Build targets and put what they give under cas-out/
    ///
    /// What was built before from the same inputs is not built again. What the targets named give is written below
    /// `cas-out/` in the workspace: outputs of commands, packages, images and artifacts as layouts; everything else stays in the store.
    /// Without a target, every target of the workspace but its tests is built.
    Build(BuildArgs),
    /// Run tests, each as a cached step
    ///
    /// A test that passed is not run again until one of its inputs changes. A test that fails does not keep others from
    /// running. Without a target, every test of the workspace is run. Ends with 0 only if every test passed, be it after
    /// `--retries`.
    Test(TestArgs),
    /// Write what targets give to their own places in the workspace, for editors and servers
    ///
    /// Outputs of commands go to the paths that `outputs` names, a lockfile's packages to the `node_modules` of all packages of
    /// the workspace that it was made for, other fetches to where steps find them. Only what differs is written, each file
    /// whole; a folder that is not there appears whole. A place must be one that a `.gitignore` of the workspace names, or,
    /// without git, where nothing else is: steps never take it for their sources. A file there that is not as the last checkout
    /// left it is not touched, and then nothing is. With a pattern like `//...`, commands with outputs and lockfiles are taken.
    Checkout(CheckoutArgs),
    /// Run an image, a command, a test, or a program of a `[run]` section
    ///
    /// Of an image, the layers become the root file system, its configuration gives user, environment and working directory.
    /// A command or test finds what it finds in a build, and what it writes is dropped. For both, what is needed is built
    /// first, and there is no network but a loopback of its own, unless an image is given one by `--network host`.
    ///
    /// A `[run]` section is for servers and tools of development: what it depends on is built and checked out (see `cas
    /// checkout`), then the program runs in its package's folder, outside of the sandbox, with the user's environment and the
    /// programs of `node_modules/.bin`. It gets the terminal and the signals, and what it started ends with it.
    ///
    /// Streams are those of this process, nothing is kept of them, and the exit code is the program's.
    Run(RunArgs),
    /// Look into the sandbox that steps run in
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Tell why a target would run now, or, if it would not, with what it last changed
    ///
    /// Compares what the target is made of with what it was made of in its last build: files, variables, toolchains, what
    /// it depends on. Nothing is run and nothing is fetched.
    Why(WhyArgs),
    /// List the targets that differ from a revision of git
    ///
    /// Compares what each target is made of in the working tree, untracked files included, with what it is made of at the
    /// revision: files, definitions, pins, lockfiles, and the same of all it depends on. Nothing is checked out, run or
    /// fetched. Everything that a build would do otherwise is listed. Where results of both states are in the store, a
    /// target is not listed whose dependencies changed and give the same; what could not be looked at so closely is listed
    /// `by static keys`. For a branch, name where it began: `--since "$(git merge-base main HEAD)"`.
    Affected(AffectedArgs),
    /// List targets, with what they need or what needs them
    Query(QueryArgs),
    /// Print how targets depend on each other
    ///
    /// In Graphviz's language, or with `--format json` as a list. Of `^name` the nearest targets are shown, and those
    /// behind them where they do not wait for them themselves.
    Graph(GraphArgs),
    /// Bring cas.lock up to date
    ///
    /// Resolves what has no entry yet. With `--update` everything is resolved anew.
    Lock(LockArgs),
    /// Make npm tarballs
    #[command(subcommand)]
    Npm(NpmCommand),
    /// Look at images and artifacts in the store, and write them out
    #[command(subcommand)]
    Image(ImageCommand),
    /// Send an image or artifact to registries
    ///
    /// A target is built first. Blobs that a registry has are not sent again. First everything goes everywhere under its digest, and when
    /// all of it is there, tags are set: when one registry fails, no tag is set anywhere, and the same command goes on where it
    /// was. A tag that names something else is not moved: versions (`1.2.3`) and commits never, others with `--move-tag`. `latest` is
    /// set beside another tag alone. Credentials are those of docker and podman.
    Push(PushArgs),
    /// Build, check, sign and send what a `[publish.NAME]` of `cas.toml` names, to all of its registries
    ///
    /// Tags are looked at and gates run before the first byte is sent. Then everything goes everywhere under its digest, signatures and
    /// statements after it, and when all of that is there, tags are set: when one registry fails, no tag is set anywhere, and the same
    /// command goes on where it was. Versions and commits never move.
    Publish(crate::publish::PublishArgs),
    /// Tell what an image, artifact or tarball was made of, as a statement to be signed; or look whether all of that is there
    ///
    /// The target is built first. Told are the actions of its steps and every input with its SHA-256: files, packages, images,
    /// downloads. There are no times, paths of the machine, variables or arguments in it.
    Provenance(crate::provenance::ProvenanceArgs),
    /// Serve the store to other programs, until it is interrupted
    ///
    /// With `--registry`, a registry of images and artifacts at an address of this machine. What is pushed there is kept in the store, and leaves
    /// it no more until it is removed. Versions (`1.2.3`) and commits as tags never come to name something else. What was built here is not
    /// served by itself: `cas push :web 127.0.0.1:5000/web:1.2.3` puts it there. Nobody is asked who they are. The exit code is 0 after a signal.
    Serve(crate::serve::ServeArgs),
    /// Copy an image or artifact from a registry to others
    ///
    /// Byte for byte, with all platforms, and without unpacking anything: blobs go from one registry to the other as they come, and are
    /// compared with their names on the way. What is there is not sent again. Order and tags are those of `push`. Places on this machine,
    /// as `oci:FOLDER`, go by way of the store. Credentials are those of docker and podman.
    Copy(CopyArgs),
    /// Bring images and artifacts from registries into the store
    ///
    /// All of it is compared with its digests, and what the store has is not fetched again, so that the same command goes on after it
    /// was stopped. As `cas image import` does for images, each layer is looked into. `cas run`, `cas image export` and the like take
    /// it by its name then.
    Pull(PullArgs),
    /// Keep the name and the password for a registry
    ///
    /// They are tried first. They are kept where docker and podman find them, too: with the helper that is configured for the host, or
    /// in the first file that is read. The password is asked for at the terminal, or comes with `--password-stdin`.
    Login(LoginArgs),
    /// Forget the name and the password for a registry
    ///
    /// In all files that are read, and with helpers. Logins for parts of a host stay.
    Logout(LogoutArgs),
    /// Set further tags on what is in a registry
    ///
    /// Nothing but the tags is sent. Which of them may move is as with `push`.
    Tag(TagArgs),
    /// Look at registries
    #[command(subcommand)]
    Registry(crate::registry::RegistryCommand),
    /// Bring tags from registries to registries as a file says, again and again
    #[command(subcommand)]
    Sync(crate::sync::SyncCommand),
    /// Make and list keys that images are signed with
    #[command(subcommand)]
    Key(crate::key::KeyCommand),
    /// Sign images in registries
    ///
    /// The tag is asked for once, and what is signed is the digest and the repository. The signature is a sigstore bundle that refers to
    /// the image, and the older form under the tag `sha256-DIGEST.sig`. Signing again with the same key changes nothing.
    Sign(crate::sign::SignArgs),
    /// Say something of an image in a registry, signed
    ///
    /// The predicate is put into a statement about the digest and the repository, and signed as a bundle that refers to the image.
    /// `cas provenance --predicate` prints one; `cas verify --type URI` looks for it.
    Attest(crate::sign::AttestArgs),
    /// Tell who signed an image in a registry
    ///
    /// Bundles and signatures of the older form count when a key that is trusted made them, for this digest and this repository. One is
    /// enough; those that are refused are told with the reason. Ends with 3 when none counts.
    Verify(crate::verify::VerifyArgs),
    /// Look at the store, clear it, check it, keep things in it
    #[command(subcommand)]
    Store(StoreCommand),
    /// Watch the workspace, so that builds need not look at every file
    #[command(subcommand)]
    Watch(WatchCommand),
    /// Say what this host can do, and what to change where it cannot
    Doctor,
    /// Print the JSON Schema of cas.toml, for editors and other programs
    Schema,
    /// Print what a shell needs to complete commands and options
    ///
    /// For bash: `cas completions bash > ~/.local/share/bash-completion/completions/cas`.
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    Man {
        /// Folder for the pages, made if missing; `share/man/man1` of a prefix, as a rule
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// Turn the tasks of turbo.json into targets
    ///
    /// Reads the turbo.json of the root and of packages, of version 1 and 2. Tasks, inputs, outputs, what they wait for and
    /// variables are carried; what is not is listed with its place. Files are written as `cas init` does it.
    Turbo(InitArgs),
    /// Turn the targets of nx.json and project.json into targets
    ///
    /// Reads nx.json, every project.json, and `nx` of package.json. Targets that run a command or a script are carried, with
    /// defaults and named inputs; what plugins infer and other executors do is known to Nx alone, and is listed with its place.
    /// Files are written as `cas init` does it.
    Nx(InitArgs),
}

/// `NAME=FILE`
fn parse_secret(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("write `NAME=FILE`".to_owned()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct CheckoutArgs {
    /// Targets: `//package:name`, `:name`, `//package/...`
    #[arg(value_name = "TARGET", required_unless_present = "clean")]
    pub(crate) targets: Vec<String>,
    /// Remove what checkouts of the targets, or of all, wrote; other files in these folders stay
    #[arg(long)]
    pub(crate) clean: bool,
    /// Replace or remove also what is not as the last checkout left it
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

/// Where inputs may come from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct InputArgs {
    /// Fail if cas.lock would change (implied by the variable CI)
    #[arg(long)]
    pub(crate) locked: bool,
    /// Use what is in the store, and no network
    #[arg(long)]
    pub(crate) offline: bool,
    /// Read every input, whatever is known of it from earlier builds
    ///
    /// Without it a file is read when its size, times, mode or inode differ from when it was last read. A program that
    /// writes through a memory map can change a file without that, so releases are built with this option.
    #[arg(long)]
    pub(crate) verify_inputs: bool,
    /// Believe the times of network, FUSE and overlay file systems
    ///
    /// Their times can be another machine's and late, so that every input on them is read each time without this option.
    #[arg(long, conflicts_with = "verify_inputs")]
    pub(crate) trust_network_mtime: bool,
    /// How much of a sandbox steps get: for hosts where the whole one cannot be had
    ///
    /// Less is never chosen by itself. What it makes is labelled, has keys and results of its own, and is taken for nothing else.
    /// Only steps whose toolchain is the machine itself (`host`) can have less.
    #[arg(long, value_name = "TIER", value_enum, default_value_t)]
    pub(crate) sandbox: Sandbox,
    /// Take a secret of steps from a file, instead of the variable of its name
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_secret)]
    pub(crate) secret: Vec<(String, PathBuf)>,
}

/// How much holds steps; the names are those of [`cas_sandbox::Tier`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// All of it: steps see their root and their inputs, and no network
    #[default]
    Namespaces,
    /// What the kernel's Landlock holds: of the machine's files what the toolchain shows, no TCP
    Landlock,
    /// Nothing: steps see and may change what the user can, and reach the network
    None,
}

impl From<Sandbox> for cas_sandbox::Tier {
    fn from(sandbox: Sandbox) -> Self {
        match sandbox {
            Sandbox::Namespaces => Self::Namespaces,
            Sandbox::Landlock => Self::Landlock,
            Sandbox::None => Self::None,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) common: StepArgs,
    /// Run the tests that the patterns select, too
    #[arg(long)]
    pub(crate) tests: bool,
    /// Write down what was made of each image and artifact, as JSON
    ///
    /// By label: `containerimage.digest`, `containerimage.config.digest`, `containerimage.descriptor`, `image.name` and
    /// `platforms`, as BuildKit names them. It is written at once, when everything was built.
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Write the digest of an image's configuration, its ID for docker and podman, to a file
    ///
    /// One image of one platform has to be built, or one artifact, whose manifest counts. It is written at once, when everything was built.
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct StepArgs {
    /// Run steps although their outputs are known, twice if they are not, and fail those that do not repeat
    #[arg(long)]
    pub(crate) check_repeat: bool,
    /// Go on with what does not depend on a target that failed (always for `cas test`)
    #[arg(short, long)]
    pub(crate) keep_going: bool,
    /// Targets: `//package:name`, `:name`, `//package/...`
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Write down when what happened, for Chrome's trace viewer or Perfetto
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Build, then wait for changes of the workspace and build again, until Ctrl-C
    ///
    /// A change is one of a file that belongs to the workspace, a cas.toml or cas.lock. A change during a build lets it go to
    /// its end, and is followed by another one; what is wrong is told, and waited on. It ends with 130, or with 143 by SIGTERM,
    /// and no build is left.
    #[arg(long)]
    pub(crate) watch: bool,
    /// The process that watches, with which this one ends
    #[arg(long, hide = true)]
    pub(crate) watched_by: Option<i32>,
    /// Targets that are built at once [default: the number of processors]
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) common: StepArgs,
    /// Run the selected tests although it is known that they pass
    ///
    /// A result that is there stays, whatever this run gives; a test that passed before and fails now is told of.
    #[arg(long, conflicts_with = "check_repeat")]
    pub(crate) rerun: bool,
    /// Run a selected test that fails again, up to N times
    ///
    /// One that passes then is reported as flaky, and fails nothing. That it passed is not kept: the next `cas test` runs it
    /// again.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=1000),
        conflicts_with = "check_repeat"
    )]
    pub(crate) retries: u32,
    /// Of what is selected, take each Nth target in the order of the labels, from the Ith on
    ///
    /// The parts 1/N to N/N together are all targets, each in one part, on every machine. With no test in its part the
    /// command says so and ends with 0.
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    pub(crate) shard: Option<Shard>,
    /// Write a report in JUnit's XML, also when tests fail
    ///
    /// A suite for each package, a case for each target, with its time, whether its result was known, and the end of what it
    /// printed if it failed. The file is replaced as a whole. In the workspace it should be where git ignores it, or below
    /// `cas-out/`: else it is an input of the package's steps.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Arguments behind those of the selected tests' commands
    ///
    /// In the place of `$@` in a shell's text, or at its end. They are part of the key: tests with other arguments are other
    /// tests, cached apart.
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) arguments: Vec<String>,
}

/// One of equal parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// From 1 on.
    pub(crate) number: usize,
    pub(crate) count: usize,
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
    match parts {
        Some((number, count)) if (1..=count).contains(&number) => Ok(Shard { number, count }),
        _ => Err("a part is `1/N`, `2/N` and so on to `N/N`".to_owned()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// Target: `//package:name` or `:name`
    pub(crate) target: String,
    /// Compare with a revision of git instead: a commit, branch or tag
    #[arg(long, value_name = "REV")]
    pub(crate) since: Option<String>,
    /// Compare with the last build in a lane of results, by its name or how that begins: `strict`, `host`, `incremental`
    #[arg(long, value_name = "LANE", conflicts_with = "since",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) lane: Option<String>,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct AffectedArgs {
    /// Revision: a commit, branch or tag, or what git makes one of
    #[arg(long, value_name = "REV")]
    pub(crate) since: String,
    /// Only targets of this kind; several with commas
    #[arg(long, value_name = "KIND", value_delimiter = ',',
          value_parser = ["toolchain", "fetch", "command", "test", "image", "artifact", "npm"])]
    pub(crate) kind: Vec<String>,
    /// Targets: `//package:name`, `:name`, `//package/...` [default: all]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// Targets: `//package:name`, `:name`, `//package/...` [default: all]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Only targets of this kind; several with commas
    #[arg(long, value_name = "KIND", value_delimiter = ',',
          value_parser = ["toolchain", "fetch", "command", "test", "image", "artifact", "npm", "run"])]
    pub(crate) kind: Vec<String>,
    /// These and everything that they need
    #[arg(long, conflicts_with = "needed_by")]
    pub(crate) needs: bool,
    /// These and everything that needs them
    #[arg(long)]
    pub(crate) needed_by: bool,
}

#[derive(Args, Debug)]
pub(crate) struct GraphArgs {
    /// Targets: `//package:name`, `:name`, `//package/...` [default: all]
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Target: an image, a command, a test or a run; or an image by its name in the store or its place, named as for `image analyze`
    pub(crate) target: String,
    /// Arguments behind those of the target's command; for an image, a command instead of its own
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) command: Vec<String>,
    /// Set a variable in the program's environment, over what its section says; `NAME` alone has the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables of a file: `NAME=VALUE` or `NAME` a line
    ///
    /// Lines that are empty or begin with `#` say nothing. Of several files the later one wins, and `--env` wins over all.
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) image: RunImageArgs,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

/// What can be said of a run of an image alone.
#[derive(Args, Debug)]
pub(crate) struct RunImageArgs {
    /// For an image: run a program instead of its entrypoint and command, with the arguments behind `--`
    #[arg(long, value_name = "PROGRAM", help_heading = "Images")]
    pub(crate) entrypoint: Option<String>,
    /// For an image: run as this user, by a name that the image has or by number
    ///
    /// All files of the image belong to that user here, whatever owners it gives them, so that none is kept from the program.
    #[arg(long, value_name = "USER[:GROUP]", help_heading = "Images")]
    pub(crate) user: Option<String>,
    /// For an image: begin in this folder, which is made if the image lacks it
    #[arg(long, value_name = "PATH", help_heading = "Images")]
    pub(crate) workdir: Option<PathBuf>,
    /// For an image: show a folder or file of this machine at a path of the image, to be read and written, or with `:ro` read only
    ///
    /// It must be there; the path in the image is made where it is not. What is written there stays, and belongs to whoever runs `cas`.
    #[arg(long, value_name = "HOST:PATH[:ro|:rw]", help_heading = "Images")]
    pub(crate) volume: Vec<PathBuf>,
    /// For an image: which network it has
    #[arg(long, value_name = "NETWORK", value_enum, default_value_t, help_heading = "Images")]
    pub(crate) network: RunNetwork,
    /// For an image: pass connections to a port of this machine's loopback on to a port of the program; `PORT` alone takes a free one
    ///
    /// `HOSTPORT:PORT`, also as `127.0.0.1:HOSTPORT:PORT` and with `/tcp` at the end. Which port was taken is said. No other machine
    /// reaches it, and the program reaches nothing by it. At most 256 connections at once.
    #[arg(long, value_name = "[HOSTPORT:]PORT", help_heading = "Images")]
    pub(crate) publish: Vec<String>,
    /// For an image: how long a program that was asked to end has for it, in seconds [default: 10]
    ///
    /// By Ctrl-C, `SIGTERM` or `SIGHUP` the program is sent the `StopSignal` of the image, else `SIGTERM`, and killed when it has not
    /// ended after this time. A second one kills it at once.
    #[arg(long, value_name = "SECONDS", help_heading = "Images")]
    pub(crate) stop_timeout: Option<u32>,
    /// For an image: leave its health check out
    ///
    /// Else the check of its configuration is run again and again beside the program, and when that finds something else than before,
    /// `healthy` or `unhealthy` is said, with what the check printed.
    #[arg(long, help_heading = "Images")]
    pub(crate) no_healthcheck: bool,
    /// For an image: end the program when its health check finds it unhealthy, and fail
    #[arg(long, help_heading = "Images", conflicts_with = "no_healthcheck")]
    pub(crate) health_exit: bool,
}

/// What the program of an image reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunNetwork {
    /// A loopback of its own
    #[default]
    None,
    /// What this machine reaches
    Host,
}

#[derive(Args, Debug)]
pub(crate) struct LockArgs {
    /// Resolve everything anew, also what has an entry
    #[arg(long)]
    pub(crate) update: bool,
    /// Of what is resolved anew only this: a Debian package, or all that a target has pinned
    ///
    /// All other packages stay as they are pinned, as far as the archive still offers them.
    #[arg(long, value_name = "PACKAGE|TARGET", requires = "update")]
    pub(crate) only: Vec<String>,
    /// Fail instead of writing when the lock would change
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images and artifacts in the store
    Ls,
    /// Print the manifest and configuration of an image, or the manifest of an artifact
    Inspect(InspectArgs),
    /// Write an image or artifact to a layout folder or archive
    ///
    /// An artifact goes to `oci:`, `oci-archive:` and `dir:` alone. Of an image for several platforms `oci:` and `oci-archive:` get all,
    /// podman (`containers-storage:`) takes that of its machine, and the others hold one: name it with `--platform`. An image of others
    /// has no name in the store afterwards.
    Export(ExportArgs),
    /// Bring an image of others into the store, byte for byte
    ///
    /// Each layer is looked into and must be what the configuration tells. The image can be run, exported and built upon then.
    Import(ImportImageArgs),
    /// Give an image or artifact of the store a further name
    ///
    /// What had the name before has it no more. The image stays for as long as one of its names is used (`cas store gc`); a name that is to
    /// stay in any case is pinned with `cas store pin add`.
    Tag {
        /// Image or artifact: a target, which is built first, or a name in the store
        source: String,
        /// The further name, `NAME:TAG` in small letters
        name: String,
    },
    /// End names of images and artifacts in the store
    ///
    /// What they name leaves the store with the next `cas store gc`, as far as no other name, pin or recent build needs it. If one of the
    /// names is not there, none is ended. A target has its name again when it is built.
    Rm {
        /// Names, as `cas image ls` has them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Write an image out with its layers in another format
    ///
    /// What layers hold stays as it is, and so do their diffIDs and the configuration; but for `estargz`, which adds entries. The
    /// manifest is a new one, so signatures and what else refers to the former one have to be made again.
    Convert(ConvertArgs),
    /// Say what an image holds and wastes, and what to change
    ///
    /// Looks at every entry of every layer: what later layers overwrite or remove, equal files, caches of package managers,
    /// compilers, documentation, and files that look like secrets, of which nothing but their path is told. Each piece of advice says
    /// how many bytes the uncompressed layers have less when it is followed; for compressed layers that is an estimate.
    Analyze(AnalyzeArgs),
    /// Compare two images by configuration, packages and files
    ///
    /// How the files are cut into layers does not count. Ends with 0 when the images are equal and with 1 when they differ.
    Diff(DiffArgs),
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Image or artifact, named as for `analyze`
    pub(crate) image: String,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Image or artifact, named as for `analyze`
    pub(crate) image: String,
    /// Where to: `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`, `dir:FOLDER` as skopeo has it,
    /// `tar:FILE` for the files alone, `containers-storage:NAME:TAG` or `docker-daemon:NAME:TAG`
    pub(crate) destination: String,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ImportImageArgs {
    /// Where the image is: `docker://HOST/PATH:TAG`, `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`,
    /// `dir:FOLDER` as skopeo has it, or `tar:FILE[:PLATFORM]` for files alone
    pub(crate) source: String,
    /// What it is called in the store, `NAME:TAG` in small letters, in place of what had the name before [default: the name that it has in
    /// its registry, archive or engine; of other places the name of the file or folder and its tag, or `latest`]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
}

/// Which images of an index are taken.
#[derive(Args, Debug)]
pub(crate) struct WhichArgs {
    /// Of several platforms the one for this, as `linux/arm64/v8` [default: all of an image of the store, that of this machine of others];
    /// for files alone what they are for
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = parse_platform)]
    pub(crate) platform: Option<cas_oci::TargetPlatform>,
    /// All platforms of an image of others, under their index
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all: bool,
    /// Use no network
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ConvertArgs {
    /// Image, named as for `analyze`
    pub(crate) image: String,
    /// The format of its layers: `gzip`, `zstd`, `none`, `zstd:chunked` or `estargz`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) compression: String,
    /// Where to, as for `export`
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
}

#[derive(Args, Debug)]
pub(crate) struct AnalyzeArgs {
    /// Image: a target, a name in the store, `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`,
    /// `dir:FOLDER`, `tar:FILE[:PLATFORM]`, `containers-storage:NAME:TAG`, `docker-daemon:NAME:TAG` or `docker://HOST/PATH:TAG`; without
    /// `docker://` before it, what the store has by that name comes before the registry
    pub(crate) image: String,
    /// Write a page for a browser as well, in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) look: LookArgs,
}

#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// First image, named as for `analyze`
    pub(crate) from: String,
    /// Second image
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) look: LookArgs,
}

/// Which image is looked at.
#[derive(Args, Debug)]
pub(crate) struct LookArgs {
    /// Of images of several platforms take that for this one, as `linux/arm64/v8` [default: that of this machine]
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = parse_platform)]
    pub(crate) platform: Option<cas_oci::TargetPlatform>,
    /// Use no network
    #[arg(long)]
    pub(crate) offline: bool,
}

pub(crate) fn parse_platform(text: &str) -> Result<cas_oci::TargetPlatform, String> {
    text.parse().map_err(|error: cas_oci::ParsePlatformError| format!("{error}; {}", error.hint()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Run a shell where a command or a test would run, to find out what it meets
    ///
    /// The shell finds what the step finds: its root, its inputs in /src, its environment, its secrets, no network. What the
    /// step needs is built first. What is written in the shell is dropped when it ends, but for private `cache` folders. Streams are those
    /// of this process, nothing is kept of them, and the exit code is the shell's. The root has to hold /bin/sh.
    Shell(ShellArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ShellArgs {
    /// Target: a command, a test, or a run for the sandbox
    pub(crate) target: String,
    /// What runs in the place of a shell
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WatchCommand {
    /// Start the workspace's watcher, a process in the background
    ///
    /// It remembers which folders change, and builds ask it instead of looking at every file. Builds give the same results
    /// with it and without it: when it is not there, slow or not sure, they look. `--verify-inputs` does not ask it. It ends
    /// when no build asked for an hour, and when the workspace or the store is gone.
    Start {
        /// Seconds without a question after which it ends
        #[arg(long, hide = true, default_value_t = cas_snapshot::watch::IDLE.as_secs())]
        idle_seconds: u64,
    },
    /// End the workspace's watcher
    Stop,
    /// Say whether the workspace's watcher runs, and how many folders it watches
    ///
    /// Builds tell it which folders there are, so there are none before the first build.
    Status,
    /// Be the watcher
    #[command(hide = true)]
    Serve {
        /// Folder of the watchers
        watchers: PathBuf,
        /// The workspace
        root: PathBuf,
        /// As for `start`
        idle_seconds: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NpmCommand {
    /// Build `npm` targets and write their tarballs to a folder
    ///
    /// The tarball has the files that `npm pack` takes, the outputs of the target's `from`, and ranges of the workspace
    /// written as a registry needs them. Without a target, every `npm` target of the current package is packed.
    Pack(PackArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PackArgs {
    /// Targets: `//package:name`, `:name`, `//package/...`
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Folder that the tarballs are written to
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(crate) pack_destination: PathBuf,
    /// Print the files of the tarballs and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Say what the store holds, and its limits
    Stat,
    /// Remove what is not needed any more
    ///
    /// Pins and what recent builds used stay, and so does whatever running builds of other processes use. Results that were
    /// not used for `--keep` are forgotten, and what nothing needs leaves when it was not used for `--min-age`. With
    /// `--max-size`, what was not used for longest leaves until the store is as small as that.
    Gc(GcArgs),
    /// Look for damage, and set aside what is found
    ///
    /// Looks at every name, and reads what a loss of power may have torn; with `--full`, reads everything. Damaged objects
    /// are moved to `quarantine/` in the store and are made or fetched again when something needs them. Ends with 3 when
    /// something was found.
    Fsck {
        /// Read every object and every tree written out
        #[arg(long)]
        full: bool,
    },
    /// Print the path of the file that holds a blob
    ///
    /// The file is read-only, and was checked since this machine was started.
    Path {
        /// Blob: `FUNCTION:HEX/SIZE`
        blob: String,
    },
    /// Keep things for as long as a name says
    #[command(subcommand)]
    Pin(PinCommand),
    /// Set the limits of the store; without options, print them
    Limit(LimitArgs),
}

#[derive(Args, Debug)]
pub(crate) struct GcArgs {
    /// Remove what was not used for longest until the store takes no more than this, as `20G` or `500M`
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_size: Option<u64>,
    /// How long what nothing needs stays after its last use, as `24h`, `30m` or `7d`
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "24h")]
    pub(crate) min_age: u64,
    /// How long results stay after their last use
    #[arg(long, value_name = "TIME", value_parser = parse_time, default_value = "30d")]
    pub(crate) keep: u64,
    /// Say what would leave, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PinCommand {
    /// Keep images, artifacts, blobs or trees under a name, in place of what the name kept before
    Add {
        /// Name: letters, digits and `._-+@:/`
        name: String,
        /// Image or artifact in the store, `blob:FUNCTION:HEX/SIZE` or `tree:FUNCTION:HEX/SIZE`
        #[arg(required = true, value_name = "WHAT")]
        keeps: Vec<String>,
    },
    /// End a pin
    Rm {
        /// Its name
        name: String,
    },
    /// List the pins
    Ls,
}

#[derive(Args, Debug)]
pub(crate) struct LimitArgs {
    /// Most that the store may take on its disk, as `20G`; `none` for no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_limit_size)]
    pub(crate) max_size: Option<LimitValue>,
    /// Most files and folders; `none` for no limit
    #[arg(long, value_name = "N", value_parser = parse_limit_count)]
    pub(crate) max_files: Option<LimitValue>,
    /// How much of its disk stays free; `none` for the default, the smaller of 5 % and 1 GiB
    #[arg(long, value_name = "SIZE", value_parser = parse_limit_size)]
    pub(crate) min_free: Option<LimitValue>,
}

/// What a limit is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitValue(pub(crate) Option<u64>);

pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "a size is a number with K, M, G or T, as `20G`".to_owned())?;
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        unit => return Err(format!("`{unit}` is no unit of size: K, M, G, T are, by 1,024")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than any disk holds".to_owned())
}

fn parse_time(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "a time is a number with s, m, h or d, as `24h`".to_owned())?;
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        unit => return Err(format!("`{unit}` is no unit of time: s, m, h, d and w are")),
    };
    number.checked_mul(seconds).ok_or_else(|| "that is too long".to_owned())
}

fn parse_limit_size(text: &str) -> Result<LimitValue, String> {
    if text == "none" { Ok(LimitValue(None)) } else { parse_size(text).map(|size| LimitValue(Some(size))) }
}

fn parse_limit_count(text: &str) -> Result<LimitValue, String> {
    let number = |text: &str| text.parse().map_err(|_| "a number, or `none`".to_owned());
    if text == "none" { Ok(LimitValue(None)) } else { number(text).map(|count| LimitValue(Some(count))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_a_number_from_one_on() {
        assert_eq!(parse_shard("2/3"), Ok(Shard { number: 2, count: 3 }));
        for wrong in ["0/3", "4/3", "3", "1/0", "/", "-1/2", "1/2/3", ""] {
            assert!(parse_shard(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        for (text, expected) in [
            ("0", Some(0)),
            ("500M", Some(500 << 20)),
            ("20GiB", Some(20 << 30)),
            ("1k", Some(1024)),
            ("99999999999T", None),
            ("G", None),
            ("1X", None),
            ("-1", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        }
        for (text, expected) in
            [("24h", Some(86_400)), ("0s", Some(0)), ("2w", Some(1_209_600)), ("5", None), ("h", None), ("1y", None)]
        {
            assert_eq!(parse_time(text).ok(), expected, "{text}");
        }
    }
}
