//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people
    Text,
    /// One JSON document on standard output
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build targets and put what they give under cas-out/
    ///
    /// What was built before from the same inputs is not built again. What the targets named give is written below
    /// `cas-out/` in the workspace: outputs of commands, packages, images as layouts; everything else stays in the store.
    /// Without a target, every target of the workspace but its tests is built.
    Build(BuildArgs),
    /// Run tests, each as a cached step
    ///
    /// A test that passed is not run again until one of its inputs changes. A test that fails does not keep others from
    /// running. Without a target, every test of the workspace is run.
    Test(BuildArgs),
    /// Run a command in an image, in the sandbox
    ///
    /// The image's layers become the root file system, its configuration gives user, environment and working directory.
    /// There is no network but a loopback of its own. Ends with the exit code of the command.
    Run(RunArgs),
    /// Bring cas.lock up to date
    ///
    /// Resolves what has no entry yet. With `--update` everything is resolved anew.
    Lock(LockArgs),
    /// Make npm tarballs
    #[command(subcommand)]
    Npm(NpmCommand),
    /// Look at images in the store, and write them out
    #[command(subcommand)]
    Image(ImageCommand),
    /// Watch the workspace, so that builds need not look at every file
    #[command(subcommand)]
    Watch(WatchCommand),
    /// Say what this host can do, and what to change where it cannot
    Doctor,
}

/// Where inputs may come from.
#[derive(Args, Debug, Default)]
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
}

#[derive(Args, Debug)]
pub(crate) struct BuildArgs {
    /// Targets: `//package:name`, `:name`, `//package/...`
    #[arg(value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// Targets that are built at once [default: the number of processors]
    #[arg(short, long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Image: a target of the workspace, which is built first, or the name of one in the store
    pub(crate) image: String,
    /// Command and arguments instead of the image's own
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// Set a variable in the command's environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) inputs: InputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct LockArgs {
    /// Resolve everything anew, also what has an entry
    #[arg(long)]
    pub(crate) update: bool,
    /// Fail instead of writing when the lock would change
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images in the store
    Ls,
    /// Print the manifest and configuration of an image
    Inspect {
        /// Image: a target or a name
        image: String,
    },
    /// Write an image to a layout folder or archive
    Export {
        /// Image: a target or a name
        image: String,
        /// Where to: `oci:FOLDER[:TAG]` or `oci-archive:FILE[:TAG]`
        destination: String,
    },
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
