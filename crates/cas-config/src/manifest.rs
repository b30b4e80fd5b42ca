//! `cas.toml` as values: what a workspace, a target, and each kind of target is.

use std::collections::BTreeMap;
use std::ops::Range;

use cas_digest::{Digest, DigestFunction};
use cas_oci::{Healthcheck, ImageFormat, ImageSource, TargetPlatform};
use cas_tree::RelPath;

use crate::artifact::Artifact;
use crate::label::Reference;
use crate::publish::Publication;
use crate::run::Run;
use crate::step::{Command, Defaults};

/// Longest `cas.toml` that is read, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A value with its place in the text.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Bytes of the text.
    pub span: Range<usize>,
}

/// A `cas.toml`.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// What makes its folder the root of a workspace.
    pub workspace: Option<WorkspaceSection>,
    /// What steps of this and, in the root, of all packages need not say.
    pub defaults: Defaults,
    /// The targets by name.
    pub targets: BTreeMap<Box<str>, Target>,
    /// What is published together, by name.
    pub publications: BTreeMap<Box<str>, Publication>,
    /// Version of what the package gives.
    pub version: Option<String>,
    /// Where addresses lead that begin with a host, or a host and a path: the beginnings of both. In the root only.
    pub mirrors: BTreeMap<String, String>,
}

/// `[workspace]`
#[derive(Clone, Debug)]
pub struct WorkspaceSection {
    /// Globs of the packages' folders.
    pub members: Vec<String>,
    /// What content is named with.
    pub digest_function: DigestFunction,
    /// Globs over the workspace, part of every package's inputs.
    pub inputs: Vec<String>,
}

/// A target.
#[derive(Clone, Debug)]
pub struct Target {
    /// Place of its name.
    pub span: Range<usize>,
    /// What it is.
    pub kind: TargetKind,
}

/// What a target is.
#[derive(Clone, Debug)]
pub enum TargetKind {
    /// A root file system for steps.
    Toolchain(Toolchain),
    /// Something downloaded.
    Fetch(Fetch),
    /// A step with outputs.
    Command(Command),
    /// A step without.
    Test(Command),
    /// An image.
    Image(Image),
    /// Files that are no image.
    Artifact(Artifact),
    /// An npm tarball.
    Npm(Npm),
    /// A program that people start.
    Run(Run),
}

impl TargetKind {
    /// The section's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Toolchain(_) => "toolchain",
            Self::Fetch(_) => "fetch",
            Self::Command(_) => "command",
            Self::Test(_) => "test",
            Self::Image(_) => "image",
            Self::Artifact(_) => "artifact",
            Self::Npm(_) => "npm",
            Self::Run(_) => "run",
        }
    }
}

/// `[toolchain.NAME]`
#[derive(Clone, Debug)]
pub enum Toolchain {
    /// Packages of a Debian suite.
    Debian(Debian),
    /// The files of an image.
    Image(ImageRoot),
    /// The programs of the machine that builds.
    Host(Host),
}

/// Which image a root is of.
#[derive(Clone, Debug)]
pub enum RootSource {
    /// One of others; paths are relative to the package's folder, or absolute.
    Place(ImageSource),
    /// One of the workspace.
    Target(Located<Reference>),
}

/// The files of an image.
#[derive(Clone, Debug)]
pub struct ImageRoot {
    /// Which image.
    pub source: RootSource,
    /// What is in the root beside them, in order.
    pub add: Vec<Addition>,
}

/// The programs of the machine that builds, shown read-only: not hermetic, and said so in everything made with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// What the user calls this state of the machine.
    pub identity: Option<String>,
    /// Absolute paths that are shown beside the usual ones; sorted.
    pub paths: Vec<Box<str>>,
    /// Command lines whose output tells versions.
    pub probe: Vec<Box<str>>,
}

/// Packages of a Debian suite.
#[derive(Clone, Debug)]
pub struct Debian {
    /// Where packages may come from, the suite of the section first; at least one.
    pub archives: Vec<DebianArchive>,
    /// Sorted names.
    pub packages: Vec<Box<str>>,
    /// What is in the root beside the packages, in order.
    pub add: Vec<Addition>,
    /// Whether the packages' scripts run.
    pub configure: bool,
    /// When the releases are judged, in seconds since 1970, instead of now: the archives are snapshots of then.
    pub as_of: Option<Located<u64>>,
}

/// A suite of an archive of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebianArchive {
    /// Like `bookworm`.
    pub suite: Box<str>,
    /// Like `main`; sorted, at least one.
    pub components: Vec<Box<str>>,
    /// Address of the archive, instead of the one that the machine's apt uses.
    pub mirror: Option<String>,
    /// File in the package with the keys that may sign, instead of Debian's own.
    pub keyring: Option<RelPath>,
}

/// Something put into a root.
#[derive(Clone, Debug)]
pub enum Addition {
    /// Outputs of a target.
    Outputs(ImageLayer),
    /// A symbolic link.
    Link {
        /// Where it is.
        at: RelPath,
        /// Where it leads.
        target: String,
    },
}

/// `[fetch.NAME]`
#[derive(Clone, Debug)]
pub enum Fetch {
    /// A file by address and digest.
    Url {
        /// Where it is.
        url: Located<String>,
        /// SHA-256.
        digest: Digest,
    },
    /// The content of an npm package.
    Npm(Located<NpmPackage>),
    /// The packages of a lockfile, a path in the package; its name has a [`LockfileKind`].
    Lockfile(Located<RelPath>),
}

/// Whose a lockfile is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockfileKind {
    /// `package-lock.json`
    Npm,
    /// `pnpm-lock.yaml`
    Pnpm,
    /// `Cargo.lock`
    Cargo,
}

impl LockfileKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Npm, Self::Pnpm, Self::Cargo];

    /// The name of the file.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Npm => "package-lock.json",
            Self::Pnpm => "pnpm-lock.yaml",
            Self::Cargo => "Cargo.lock",
        }
    }

    /// The kind of the file at a path.
    #[must_use]
    pub fn of(path: &RelPath) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| path.name().as_bytes() == kind.file_name().as_bytes())
    }
}

/// An npm package of an exact version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpmPackage {
    /// `name` or `@scope/name`.
    pub name: Box<str>,
    /// Exact version.
    pub version: Box<str>,
}

/// `[image.NAME]`
#[derive(Clone, Debug)]
pub struct Image {
    /// A toolchain or image below the layers.
    pub base: Option<Located<Reference>>,
    /// From the lowest on.
    pub layers: Vec<ImageLayer>,
    /// Trees are cut into no more layers than this.
    pub max_layers: usize,
    /// How layers are compressed.
    pub compression: Compression,
    /// Whose documents it has.
    pub format: ImageFormat,
    /// What runs, and how.
    pub config: ImageConfig,
    /// What its manifest says of it.
    pub annotations: BTreeMap<String, String>,
    /// What it is for, in this order; the platform of whoever builds where there is none.
    pub platforms: Vec<TargetPlatform>,
    /// What is told of the commit and the version, sorted.
    pub stamp: Vec<Stamp>,
}

/// What an image tells of where it comes from, in its configuration alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stamp {
    /// The commit, and when it was made.
    Revision,
    /// The version of its package.
    Version,
}

/// What a layer is of.
#[derive(Clone, Debug)]
pub enum LayerSource {
    /// Outputs of a target.
    Outputs(Located<Reference>),
    /// Files of the package that match patterns as those of `inputs`.
    Files(Vec<String>),
}

impl LayerSource {
    /// The target.
    #[must_use]
    pub const fn outputs(&self) -> Option<&Located<Reference>> {
        match self {
            Self::Outputs(reference) => Some(reference),
            Self::Files(_) => None,
        }
    }
}

/// What is put somewhere: a layer of an image, or a part of a root.
#[derive(Clone, Debug)]
pub struct ImageLayer {
    /// What is put there.
    pub from: LayerSource,
    /// Part of it, a path in its package.
    pub path: Option<RelPath>,
    /// Globs over paths in its package, of what is left out.
    pub exclude: Vec<String>,
    /// Where they go; `None` for the root.
    pub to: Option<RelPath>,
    /// Which part of a lockfile: that of `production`.
    pub production: bool,
    /// What is said of rights and owners.
    pub rights: Rights,
    /// Whether it is one layer, and not cut.
    pub is_whole: bool,
}

/// Rights and owner of what a layer puts somewhere; what is not said stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// The low 12 bits of the mode of files.
    pub mode: Option<u32>,
    /// Those of the mode of folders.
    pub directory_mode: Option<u32>,
    /// Whose everything is.
    pub owner: Option<Owner>,
}

/// A user, and perhaps a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: Principal,
    /// The group; without it that of the user.
    pub group: Option<Principal>,
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// By number.
    Number(u32),
    /// By a name, which the files of an image know.
    Name(Box<str>),
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the formats' own names")]
pub enum Compression {
    Gzip,
    Zstd,
    None,
    ZstdChunked,
    Stargz,
}

impl Compression {
    /// All of them, as they are written.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("gzip", Self::Gzip),
        ("zstd", Self::Zstd),
        ("none", Self::None),
        ("zstd:chunked", Self::ZstdChunked),
        ("estargz", Self::Stargz),
    ];

    /// The one of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(own, _)| *own == name).map(|(_, compression)| compression)
    }
}

/// `config` of an image.
#[derive(Clone, Debug, Default)]
pub struct ImageConfig {
    /// Program and first arguments; `None` where it is not said.
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, or the program; `None` where it is not said.
    pub cmd: Option<Vec<String>>,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: Option<String>,
    /// Absolute path.
    pub workdir: Option<String>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// `port/tcp` or `port/udp`, sorted.
    pub expose: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Absolute paths, sorted.
    pub volumes: Vec<String>,
    /// Like `SIGTERM`.
    pub stop_signal: Option<String>,
    /// How a container is asked whether it works.
    pub healthcheck: Option<Healthcheck>,
}

/// `[npm.NAME]`
#[derive(Clone, Debug)]
pub struct Npm {
    /// Whose outputs are in the tarball beside the package's files.
    pub from: Vec<Located<Reference>>,
}
