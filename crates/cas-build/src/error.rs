//! Why a build failed.

use std::io;
use std::path::PathBuf;

use cas_blob::{ActionCacheError, Descriptor, OpenBlobError};
use cas_config::{Diagnostic, LockError};
use cas_fetch::FetchError;
use cas_fs::FsError;
use cas_registry::RegistryError;
use cas_sandbox::{SandboxError, Tier};
use cas_snapshot::{RevisionError, SnapshotError};
use cas_store::StoreError;
use cas_tar::ReadTarError;
use cas_tree::RelPath;

use crate::{Log, Missed};

/// A text as `cas.toml` has it.
pub(crate) fn quoted(text: &str) -> String {
    // What JSON escapes in a string, a basic string of TOML does in the same way.
    serde_json::Value::from(text).to_string()
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No folder from here up is a workspace.
    #[error("`{}` is not in a workspace: no `cas.toml` with `[workspace]` here or above", start.display())]
    NoWorkspace {
        /// Where the search began.
        start: PathBuf,
    },
    /// A `cas.toml` is wrong.
    #[error("`{}` is wrong", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Its text.
        text: String,
        /// What is wrong with it, in order.
        findings: Vec<Diagnostic>,
    },
    /// `cas.lock` cannot be used.
    #[error("`{}` cannot be used", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: LockError,
    },
    /// `cas.lock` does not have what is needed, and may not be changed.
    #[error("`cas.lock` is not up to date: {entry} would change")]
    LockStale {
        /// The target.
        entry: String,
    },
    /// No such target.
    #[error("there is no target `{label}`")]
    UnknownTarget {
        /// What was asked for.
        label: String,
        /// One that it may be.
        near: Option<String>,
    },
    /// Targets need each other.
    #[error("targets need each other: {}", cycle.join(" → "))]
    Cycle {
        /// The labels, the first one again at the end.
        cycle: Vec<String>,
    },
    /// A target is used as what it is not.
    #[error("`{label}` is {} {kind}, and cannot be {role}", article(kind))]
    Role {
        /// The target.
        label: String,
        /// What it is.
        kind: &'static str,
        /// What it is used as.
        role: &'static str,
    },
    /// A place for outputs is one of sources.
    #[error("`{path}` is where `{label}` would be checked out, and git does not ignore it")]
    NotIgnored {
        /// The target.
        label: String,
        /// The place.
        path: RelPath,
    },
    /// git tracks a place for outputs.
    #[error("`{path}` is where `{label}` would be checked out, and git tracks it")]
    PlaceTracked {
        /// The target.
        label: String,
        /// The place.
        path: RelPath,
    },
    /// What is not an output of `cas` would be replaced or removed.
    #[error("{paths} {} in the way of outputs: {}", if paths.contains(", ") { "are" } else { "is" }, if *is_folder { "no folder" } else { "not as `cas checkout` left it" })]
    InTheWay {
        /// Some of the paths.
        paths: String,
        /// Whether a folder should be there.
        is_folder: bool,
    },
    /// Two packages have one name in their `package.json`.
    #[error("the packages in `{one}` and `{other}` are both named `{name}` in their `package.json`")]
    SameName {
        /// The name.
        name: String,
        /// The folder of one.
        one: String,
        /// That of the other one.
        other: String,
    },
    /// A pattern of `members` is not one.
    #[error("`{pattern}` of `members` is not a glob of folders")]
    Members {
        /// The pattern.
        pattern: String,
    },
    /// A Debian toolchain could not be made.
    #[error("could not make the toolchain `{label}` of `{suite}`")]
    Debian {
        /// The toolchain.
        label: String,
        /// The suite.
        suite: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An archive of packages does not have a suite, or is none.
    #[error("the archive has no suite `{suite}`, which the toolchain `{label}` names")]
    NoSuite {
        /// The toolchain.
        label: String,
        /// The suite.
        suite: String,
        /// What the archive said.
        source: FetchError,
    },
    /// A suite does not have a part that is asked for, at least not for this machine.
    #[error("`{suite}` of the toolchain `{label}` has no component `{component}` for {architecture}")]
    NoComponent {
        /// The toolchain.
        label: String,
        /// The suite.
        suite: String,
        /// The part.
        component: String,
        /// Debian's name of this machine's architecture.
        architecture: &'static str,
        /// The parts that there are.
        known: Vec<String>,
    },
    /// An archive of packages could not be used.
    #[error("could not use the archive of `{suite}` for the toolchain `{label}`")]
    Archive {
        /// The toolchain.
        label: String,
        /// The suite, or all of the toolchain.
        suite: String,
        /// What the archive said, or the network.
        source: FetchError,
    },
    /// A file or folder that a toolchain names cannot be read.
    #[error("`{key}` of the toolchain `{label}` cannot be read")]
    ToolchainFile {
        /// The toolchain.
        label: String,
        /// What names it.
        key: &'static str,
        /// What the system said.
        source: FsError,
    },
    /// The root of a step has something in the way of what every step is given.
    #[error("`{label}` cannot run in the root of `{root}`: it has something other than a folder at `{}`", path.display())]
    RootShape {
        /// The target.
        label: String,
        /// The toolchain.
        root: String,
        /// Path in the root.
        path: PathBuf,
    },
    /// A package cannot be read.
    #[error("package `{package}` is damaged")]
    Package {
        /// Its name and version.
        package: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image of others cannot be used.
    #[error("the image of `{place}` cannot be used")]
    Image {
        /// Where it is.
        place: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer of an image of others cannot be unpacked.
    #[error("layer `{layer}` of `{place}` cannot be unpacked")]
    ForeignLayer {
        /// Where the image is.
        place: String,
        /// Digest of the layer.
        layer: String,
        /// Why not.
        source: Box<ReadTarError<StoreError>>,
    },
    /// An image is not for this machine.
    #[error("`{place}` has no image for {wanted}")]
    Platform {
        /// Where it is.
        place: String,
        /// What was looked for.
        wanted: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A layout or an archive does not have the image that is asked for, or has several.
    #[error("{}", which_image(place, tag.as_deref()))]
    WhichImage {
        /// Where it is.
        place: String,
        /// What was asked for.
        tag: Option<String>,
        /// Tags that there are.
        known: Vec<String>,
    },
    /// The origin no longer has a pinned image, or a part of it.
    #[error("`{place}` no longer has `{digest}`")]
    ImageGone {
        /// Where it was.
        place: String,
        /// The digest.
        digest: String,
    },
    /// A registry could not be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Waiting for registries could not be set up.
    #[error("could not start what waits for registries")]
    Runtime(#[source] io::Error),
    /// The origin no longer has a pinned package.
    #[error("the archive no longer has `{package}`, which `cas.lock` pins")]
    PackageGone {
        /// Its name and version.
        package: String,
        /// What the origin said.
        source: FetchError,
    },
    /// What was fetched is not what was announced.
    #[error("`{url}` is not what is pinned")]
    Mismatch {
        /// The address.
        url: String,
        /// What differs.
        source: StoreError,
    },
    /// A download failed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// No build of a target is remembered that could be compared with.
    #[error("no build of `{label}` in a lane `{lane}` is remembered")]
    NoLane {
        /// The target.
        label: String,
        /// How the lane's name begins.
        lane: String,
        /// The lanes that are remembered, the last one first.
        known: Vec<String>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of keys cannot be used.
    #[error("`{}` is not a keyring", path.display())]
    Keyring {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A place of results, other than the store, failed.
    #[error(transparent)]
    ActionCache(ActionCacheError),
    /// A file operation failed.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// An archive cannot be read.
    #[error(transparent)]
    ReadTar(#[from] ReadTarError<StoreError>),
    /// A tree cannot be a layer.
    #[error("layer {layer_index} of `{label}` cannot be written")]
    Layer {
        /// The image.
        label: String,
        /// Number of the layer, from 0.
        layer_index: usize,
        /// Why not.
        source: cas_tar::EntryError,
    },
    /// Files cannot be an archive.
    #[error("`{}` cannot be written", file.display())]
    NotArchived {
        /// The archive.
        file: PathBuf,
        /// Why not.
        source: cas_tar::EntryError,
    },
    /// What somebody asked for could not be written where they asked for it.
    #[error("could not write `{}`", path.display())]
    NotWritten {
        /// The place, as it was named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index of a layout cannot be read, so nothing can be added to it.
    #[error("`{}` cannot be added to", path.display())]
    LayoutIndex {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: cas_oci::ParseIndexError,
    },
    /// Another program adds to a layout and does not come to an end.
    #[error("another program is writing into the layout `{}`", folder.display())]
    LayoutLocked {
        /// The layout.
        folder: PathBuf,
    },
    /// Compressing failed.
    #[error("could not compress a layer")]
    Compress(#[source] io::Error),
    /// A stored record makes no sense, or what it names is gone.
    #[error("`{what}` of the store is damaged or incomplete")]
    Record {
        /// What it is.
        what: Descriptor,
    },
    /// No image of this name.
    #[error("there is no image `{name}` in the store")]
    UnknownImage {
        /// The name.
        name: String,
    },
    /// The image says nothing of what to run.
    #[error("image `{name}` has neither entrypoint nor command")]
    NoCommand {
        /// The image.
        name: String,
    },
    /// An image names a user or group that its files do not know.
    #[error("`{label}`: its {place} names the {kind} `{name}`, which the image does not have")]
    UnknownAccount {
        /// The image.
        label: String,
        /// What of it names them.
        place: String,
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A layer has a folder where a link is below, which leads to no folder.
    #[error("`{label}`: layer {} has a folder at `/{folder}`, where what is below has a link {why}", layer_index + 1)]
    BlindLink {
        /// The image.
        label: String,
        /// Which of its layers, from 0 on.
        layer_index: usize,
        /// The folder.
        folder: String,
        /// Where the link leads.
        why: &'static str,
    },
    /// An image is to be for a platform that what it is made of cannot be had for.
    #[error("`{label}` cannot be made for {platform}: {why}")]
    ForeignPlatform {
        /// The image.
        label: String,
        /// The platform.
        platform: String,
        /// What is in the way.
        why: String,
    },
    /// A document of an image that is made here is longer than any that is read.
    #[error("the {what} of `{name}` has {bytes} bytes, and registries take {limit}", limit = cas_oci::MAX_DOCUMENT_BYTES)]
    DocumentTooLong {
        /// Which one.
        what: &'static str,
        /// Of which image.
        name: String,
        /// How long it is.
        bytes: usize,
    },
    /// An image is for several platforms, and one is wanted.
    #[error("`{name}` is for several platforms")]
    WhichPlatform {
        /// The image.
        name: String,
        /// For which.
        known: Vec<String>,
    },
    /// A program that keeps images failed.
    #[error("`{program}` failed: {said}")]
    Engine {
        /// The program.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// A layer is compressed in a way that the manifest cannot tell.
    #[error("`{label}` has a layer of zstd below its own, which a manifest of Docker cannot tell")]
    LayerFormat {
        /// The image.
        label: String,
    },
    /// The image's user or group is not in its `/etc/passwd` or `/etc/group`.
    #[error("image `{name}` is to run as `{user}`, which its `/etc/passwd` and `/etc/group` do not have")]
    User {
        /// The image.
        name: String,
        /// The user.
        user: String,
    },
    /// Two parts of the host are to be shown at one place of an image.
    #[error("volumes at `{}` and `{}` are both at `{}` of image `{name}`", first.display(), second.display(), inside.display())]
    VolumesMeet {
        /// The image.
        name: String,
        /// One path in the image.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// Where links of the image lead both.
        inside: PathBuf,
    },
    /// A volume is led to where none can be.
    #[error("the volume at `{given}` of `{name}` is led to `{inside}` by links of the image, and no volume can be there", given = given.display(), inside = inside.display())]
    VolumePlace {
        /// The image.
        name: String,
        /// The path in the image that was asked for.
        given: PathBuf,
        /// Where links of the image lead it.
        inside: PathBuf,
    },
    /// A volume is where the image has something that it cannot cover.
    #[error("the volume for `{}` of `{name}` is a {kind}, and at `{}` the image has {found}", inside.display(), at.display())]
    VolumeKind {
        /// The image.
        name: String,
        /// Where it is in the image.
        inside: PathBuf,
        /// What the volume is.
        kind: &'static str,
        /// What is in the way.
        found: &'static str,
        /// Where, there or above.
        at: PathBuf,
    },
    /// An image has something that cannot be written out to be run.
    #[error("`{name}` cannot be run here: `/{path}` in it is a {kind}, which only root of the machine could make")]
    NotRunnable {
        /// The image.
        name: String,
        /// Where, from the root on.
        path: RelPath,
        /// What it is.
        kind: &'static str,
    },
    /// The program of an image did not start.
    #[error("the program of `{name}` did not start")]
    ImageNotStarted {
        /// The image.
        name: String,
        /// Why not.
        source: cas_sandbox::StartError,
    },
    /// An image that is to be ended when it is unhealthy has nothing that asks.
    #[error("`{name}` has no health check")]
    NoCheck {
        /// The image.
        name: String,
    },
    /// A step failed.
    #[error("`{label}` failed: {how}")]
    Step {
        /// The target.
        label: String,
        /// How it ended.
        how: String,
        /// What it printed.
        log: Box<Log>,
        /// What it looked for and was not given.
        missed: Vec<Missed>,
    },
    /// The scripts of a toolchain's packages failed.
    #[error("the packages of `{label}` could not be configured: {how}")]
    Configure {
        /// The toolchain.
        label: String,
        /// How dpkg ended.
        how: String,
        /// What it printed.
        log: Box<Log>,
    },
    /// The program of a step did not start.
    #[error("`{label}` did not start")]
    NotStarted {
        /// The target.
        label: String,
        /// Why not.
        source: cas_sandbox::StartError,
    },
    /// A step has a root of its own, into which nothing but the whole sandbox leads.
    #[error("`{label}` runs in the root of `{root}`, and with `--sandbox={tier}` steps run in this machine's own")]
    RootNotEntered {
        /// The target, or an image.
        label: String,
        /// The toolchain.
        root: String,
        /// What was asked for.
        tier: Tier,
    },
    /// A step has secrets, and only the whole sandbox has memory to show them in.
    #[error("`{label}` has secrets, which `--sandbox={tier}` cannot keep off the disk")]
    SecretsNotHeld {
        /// The target.
        label: String,
        /// What was asked for.
        tier: Tier,
    },
    /// A declared output is not there.
    #[error("`{label}` did not make {paths}")]
    OutputMissing {
        /// The target.
        label: String,
        /// The outputs.
        paths: String,
        /// What it made that was not declared; may be empty.
        written: String,
    },
    /// A step left files that it does not declare.
    #[error("`{label}` left {paths}, which its `outputs` do not name")]
    Undeclared {
        /// The target.
        label: String,
        /// The files and folders.
        paths: String,
        /// The same as the package's manifest would name them; none where it cannot.
        names: Vec<RelPath>,
    },
    /// A step changed what it reads.
    #[error("`{label}` changed its inputs {paths}")]
    InputWritten {
        /// The target.
        label: String,
        /// The files.
        paths: String,
    },
    /// Two files say different versions of one package.
    #[error("`{label}` has two versions: {one}, {other}")]
    TwoOwnVersions {
        /// The target.
        label: String,
        /// One of them, and where it stands.
        one: String,
        /// The other one.
        other: String,
    },
    /// An image is to tell its version, and has none.
    #[error("`{label}` is to tell its version, and nothing says it")]
    NoVersion {
        /// The target.
        label: String,
    },
    /// A step needs a secret that nobody gave.
    #[error("`{label}` needs the secret `{name}`, which is not there")]
    SecretMissing {
        /// The target.
        label: String,
        /// The secret.
        name: String,
    },
    /// A secret cannot be kept out of logs, or is none.
    #[error(
        "the secret `{name}` of `{label}` has fewer than {} or more than {} bytes",
        crate::MIN_SECRET_BYTES,
        cas_sandbox::MAX_SECRET_BYTES
    )]
    SecretSize {
        /// The target.
        label: String,
        /// The secret.
        name: String,
    },
    /// A step left a secret where it would be kept.
    #[error("`{label}` wrote the secret `{name}` {place}")]
    SecretLeft {
        /// The target.
        label: String,
        /// The secret.
        name: String,
        /// Where: never a text that holds it.
        place: String,
    },
    /// An output is not a file, folder or symbolic link.
    #[error("`{label}` made `{path}`, a {kind}")]
    OutputKind {
        /// The target.
        label: String,
        /// Where.
        path: RelPath,
        /// What it is.
        kind: &'static str,
    },
    /// What a step wrote cannot be read.
    #[error("could not read what `{label}` wrote")]
    Capture {
        /// The target.
        label: String,
        /// Why not.
        source: cas_sandbox::ChangesError,
    },
    /// A layer names an output that its target does not have.
    #[error("`{label}` has no output `{path}`")]
    NoSuchOutput {
        /// The target.
        label: String,
        /// The path in its package.
        path: String,
    },
    /// An artifact takes one output of a target that has another number of them.
    #[error("a file of an artifact is one output, and `{label}` has {}", known.len())]
    WhichOutput {
        /// The target.
        label: String,
        /// Paths of its outputs, in its package.
        known: Vec<String>,
    },
    /// What is to be a file of an artifact is something else.
    #[error("`{path}` of `{label}` is {is}, and {wanted}")]
    ArtifactFile {
        /// Whose it is.
        label: String,
        /// Where it is, or its name.
        path: String,
        /// What it is.
        is: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// Two files of an artifact have one title.
    #[error("two files of `{label}` have the title `{title}`")]
    TwoTitles {
        /// The artifact.
        label: String,
        /// The title.
        title: String,
    },
    /// The name of a file cannot be its title.
    #[error("the name `{name}` of a file of `{label}` is no title")]
    NoTitle {
        /// The artifact.
        label: String,
        /// The name, escaped.
        name: String,
    },
    /// A destination holds images alone.
    #[error("`{name}` is an artifact, and `{destination}:` holds images alone")]
    ArtifactDestination {
        /// The artifact.
        name: String,
        /// The transport.
        destination: &'static str,
    },
    /// Two toolchains of a step have different things at one path.
    #[error("toolchains of one step differ at `{path}`, which `{label}` has otherwise")]
    RootConflict {
        /// The toolchain that does not go with those before it.
        label: String,
        /// Where.
        path: RelPath,
    },
    /// The programs of the machine and another root in one step.
    #[error("`{label}` shows the programs of this machine, which would hide the other toolchains of the step")]
    HostMerged {
        /// The toolchain.
        label: String,
    },
    /// A path of the machine that a step cannot see.
    #[error("`{}` of the toolchain `{label}` cannot be shown: {why}", path.display())]
    HostPath {
        /// The toolchain.
        label: String,
        /// The path.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// A probe failed.
    #[error("probe `{probe}` of the toolchain `{label}` failed: {how}")]
    Probe {
        /// The toolchain.
        label: String,
        /// What was run.
        probe: String,
        /// How it ended.
        how: String,
        /// What it printed.
        log: Box<Log>,
    },
    /// Two inputs of a step are different files at one path.
    #[error("two inputs of `{label}` differ at `{path}`")]
    InputConflict {
        /// The target.
        label: String,
        /// Where.
        path: RelPath,
    },
    /// Something is in the way of an input or output.
    #[error("inputs or outputs are in each other's way")]
    Place {
        /// Where.
        source: cas_tree::EditError,
    },
    /// A tree holds what steps cannot be given.
    #[error("`{label}` has a file that no step can have")]
    Project {
        /// Whose tree.
        label: String,
        /// Which file.
        source: cas_action::ProjectError,
    },
    /// A step made what no other step can be given.
    #[error("`{label}` made a file that cannot be an output")]
    Unportable {
        /// The target.
        label: String,
        /// Which file.
        source: cas_action::ProjectError,
    },
    /// The output of a step could not be kept.
    #[error("could not keep what a step prints")]
    Log(#[source] io::Error),
    /// The workspace could not be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A revision could not be read.
    #[error(transparent)]
    Revision(#[from] RevisionError),
    /// A file of the workspace, or of a package, could not be put into the store.
    #[error("could not store `{path}`")]
    Keep {
        /// The file, from the workspace's root on; or one of a package, which is named, too.
        path: String,
        /// What the store said.
        source: StoreError,
    },
    /// A `package.json` cannot be used.
    #[error("`{}` cannot be used", path.display())]
    PackageJson {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: cas_npm::ManifestError,
    },
    /// A lockfile has a name that says nothing.
    #[error("`{path}` is no lockfile that is known")]
    LockfileName {
        /// Its path.
        path: String,
    },
    /// A lockfile of cargo cannot be used.
    #[error("`{path}` cannot be used")]
    CargoLock {
        /// The file.
        path: String,
        /// Why not.
        source: cas_cargo::CargoLockError,
    },
    /// A configuration of cargo cannot be used.
    #[error("`{}` cannot be used", path.display())]
    CargoConfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: cas_cargo::CargoConfigError,
    },
    /// It is not known where the crates of a registry are.
    #[error("could not find where the crates of `{path}` are")]
    CargoIndex {
        /// The lockfile.
        path: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The registry does not have what a lockfile names.
    #[error("the registry does not have `{package}`, which `{path}` names")]
    NotInRegistry {
        /// Its name and version.
        package: String,
        /// The lockfile.
        path: String,
        /// What the registry said.
        source: FetchError,
    },
    /// A lockfile of npm or pnpm cannot be used.
    #[error("`{path}` cannot be used")]
    Lockfile {
        /// The file.
        path: String,
        /// Why not.
        source: cas_npm::LockfileError,
    },
    /// There is no such lockfile, or it is ignored.
    #[error("the workspace has no file `{path}`")]
    NoLockfile {
        /// Its path.
        path: String,
    },
    /// A target uses a lockfile that is not for its package.
    #[error("`{label}` uses `{path}`, but its package has no `package.json` or is not below it")]
    OutsideLockfile {
        /// The target.
        label: String,
        /// The lockfile.
        path: String,
    },
    /// A folder cannot hold both.
    #[error("`{label}` would need both {places} at one place")]
    TwoVersions {
        /// The target.
        label: String,
        /// Two places of the lockfile.
        places: String,
    },
    /// A package cannot be packed.
    #[error("could not pack `{label}`")]
    Pack {
        /// The target.
        label: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// `^name` in a package that has no `package.json`.
    #[error("`^{name}` of `{label}`: its package has no `package.json` that names dependencies")]
    NoManifest {
        /// The target.
        label: String,
        /// The name.
        name: String,
    },
    /// A step gave different things in two runs.
    #[error("`{label}` does not repeat: two runs differ in {paths}")]
    NotRepeatable {
        /// The target.
        label: String,
        /// Where they differ.
        paths: String,
    },
    /// A step would run, and nothing may: only where that is asked.
    #[error("`{label}` would run")]
    WouldRun {
        /// The target.
        label: String,
        /// What it is made of.
        trace: Box<crate::trace::Trace>,
    },
    /// The build was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// The article before the name of a kind of target.
#[must_use]
pub fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) || word == "npm" { "an" } else { "a" }
}

/// What is unclear about an archive or layout of images.
fn which_image(place: &str, tag: Option<&str>) -> String {
    match tag {
        Some(tag) => format!("`{place}` has no image `{tag}`"),
        None => format!("`{place}` has several images or none, and no tag is given"),
    }
}

impl From<ActionCacheError> for BuildError {
    fn from(error: ActionCacheError) -> Self {
        // The store as a place of results fails as the store.
        error.downcast().map_or_else(Self::ActionCache, Self::Store)
    }
}

impl BuildError {
    /// Whether something that was in the store was found damaged or gone. It is made or fetched again when it is asked for
    /// once more.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        // An error that stands for another one shows that one's cause, not that one itself.
        let mut next: Option<&(dyn std::error::Error + 'static)> = match self {
            Self::Store(error) => Some(error),
            error => Some(error),
        };
        while let Some(error) = next {
            let is_lost = match error.downcast_ref::<StoreError>() {
                Some(StoreError::Missing(_) | StoreError::Tree { .. }) => true,
                Some(StoreError::Read { source, .. }) => source.kind() == io::ErrorKind::InvalidData,
                _ => false,
            };
            // An error of input and output shows the cause of the error in it, not that error itself.
            let io = error.downcast_ref::<io::Error>();
            let inside = io.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<OpenBlobError>());
            let is_open_lost =
                |error: &OpenBlobError| matches!(error, OpenBlobError::Missing(_) | OpenBlobError::Damaged { .. });
            let is_lost_inside = inside.is_some_and(is_open_lost);
            let is_missing = error.downcast_ref::<OpenBlobError>().is_some_and(is_open_lost);
            if is_lost || is_lost_inside || is_missing {
                return true;
            }
            next = error.source();
        }
        false
    }
}
