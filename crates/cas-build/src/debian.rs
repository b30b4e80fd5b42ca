//! Toolchains of Debian packages: resolving, fetching, unpacking, merging. Rules: docs/formats/debian.md.

use std::io::{BufReader, Read};
use std::path::Path;

use cas_blob::{Descriptor, OpenBlob};
use cas_config::{Debian, DebianArchive, Label, LockedDebian, LockedPackage};
use cas_deb::{AddedFile, Control, DebReader, IndexBuilder, Keyring, MemberKind, Moment, Unpacked};
use cas_digest::{Digest, DigestFunction};
use cas_fetch::{FetchError, Fetcher};
use cas_sandbox::{Cancel, SandboxError, Users};
use cas_store::{Store, StoreError};
use cas_tar::{Compression, ReadTarError, ReadTarLimits, decompress, read_tree};
use cas_time::rfc3339;
use cas_tree::{Directory, RelPath};
use rayon::prelude::*;

use crate::configure::configured;
use crate::inputs::in_package;
use crate::outline::stand_in;
use crate::workspace::at;
use crate::{BuildError, Toolchain, debian_index};

/// Longest `InRelease`; Debian's has 150 KiB.
const MAX_RELEASE_BYTES: u64 = 16 << 20;
/// Largest content of one package.
const MAX_PACKAGE_BYTES: u64 = 16 << 30;
/// Most content of a control archive: scripts, and a line for each file of the package.
const MAX_CONTROL_CONTENT_BYTES: u64 = 64 << 20;
/// What every package may hold, and how many times its compressed size beyond that: nothing real is compressed so well.
const SLACK_BYTES: u64 = 256 << 20;
/// See [`SLACK_BYTES`].
const MAX_RATIO: u64 = 256;
/// Largest keyring.
const MAX_KEYRING_BYTES: u64 = 16 << 20;
/// Largest control file.
const MAX_CONTROL_BYTES: u64 = 4 << 20;

/// Where packages come from, and where they go.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Store,
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) function: DigestFunction,
    /// Roots of the archives, in the order of the section; none where nothing is fetched.
    pub(crate) mirrors: Vec<String>,
    /// Whether the scripts of the packages run, and what ends them.
    pub(crate) scripts: Option<Cancel>,
}

/// What `cas.lock` says of a request.
pub(crate) fn request(debian: &Debian) -> String {
    let mut text = String::new();
    for (number, archive) in debian.archives.iter().enumerate() {
        text.push_str(if number == 0 { "" } else { " + " });
        text.push_str(&format!("{} {}", archive.suite, archive.components.join(",")));
        if number == 0 {
            text.push_str(&format!(" {}", debian.packages.join(",")));
            if let Some(as_of) = &debian.as_of {
                text.push_str(&format!(" as of {}", rfc3339(as_of.value.cast_signed())));
            }
        }
        if let Some(keyring) = &archive.keyring {
            text.push_str(&format!(" by {keyring}"));
        }
    }
    text
}

/// The keys that an archive's releases are signed by.
fn keyring(root: &Path, label: &Label, archive: &DebianArchive) -> Result<Keyring, BuildError> {
    let Some(keyring) = &archive.keyring else { return Ok(Keyring::debian()) };
    let path = at(root, Some(&in_package(label.package.as_ref(), keyring)));
    let bytes = cas_fs::read_limited(&path, MAX_KEYRING_BYTES);
    let unread = |source| BuildError::ToolchainFile { label: label.to_string(), key: "keyring", source };
    let bytes = bytes.map_err(unread)?;
    Keyring::parse(&bytes).map_err(|error| BuildError::Keyring { path, source: Box::new(error) })
}

/// Debian's name of the architecture that this program runs on.
pub(crate) const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Finds the packages that the suites have now. `root` is the workspace's folder, where keyrings are. What is in `kept` stays, as
/// far as it is still offered. Releases are judged as of when the section says, else now. No release may be older than that of
/// `before`, where that is of the same suites.
pub(crate) fn resolve(
    context: &Context<'_>,
    root: &Path,
    label: &Label,
    debian: &Debian,
    before: Option<&LockedDebian>,
    kept: &[LockedPackage],
    now_unix_seconds: u64,
) -> Result<LockedDebian, BuildError> {
    let mut index = IndexBuilder::new(architecture());
    kept.iter().for_each(|package| index.prefer(package.blob));
    let before = before.filter(|entry| suites_of(entry) == suites(debian));
    let moment = debian.as_of.as_ref().map_or(Moment::Now(now_unix_seconds), |as_of| Moment::AsOf(as_of.value));
    let mut release_dates = Vec::new();
    for (number, (archive, mirror)) in debian.archives.iter().zip(&context.mirrors).enumerate() {
        let keyring = keyring(root, label, archive)?;
        index.name_archive(number, &archive.suite);
        let pinned = before.and_then(|entry| entry.release_dates.get(number)).copied();
        let (date, indexes) = read_archive(context, label, archive, mirror, &keyring, pinned, moment)?;
        for packages in indexes {
            let failed = |source| named(label, &archive.suite, Box::new(source));
            index.add(number, &packages[..]).map_err(failed)?;
        }
        release_dates.push(date);
    }
    let index = index.build();
    let failed = |source| named(label, &suites(debian), Box::new(source));
    let packages = cas_deb::closure(&index, &debian.packages).map_err(failed)?;
    Ok(LockedDebian {
        target: label.to_string(),
        request: request(debian),
        architecture: architecture().to_owned(),
        release_dates,
        packages: packages
            .into_iter()
            .map(|package| LockedPackage {
                name: package.control.name.to_string(),
                version: package.control.version.as_str().to_owned(),
                archive: package.archive,
                path: package.filename.clone(),
                blob: package.blob,
            })
            .collect(),
    })
}

/// The suites of a request, for errors.
fn suites(debian: &Debian) -> String {
    debian.archives.iter().map(|archive| &*archive.suite).collect::<Vec<_>>().join(" with ")
}

/// The same of one that is pinned.
fn suites_of(locked: &LockedDebian) -> String {
    locked.request.split(" + ").filter_map(|archive| archive.split(' ').next()).collect::<Vec<_>>().join(" with ")
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn named(label: &Label, suite: &str, source: Cause) -> BuildError {
    BuildError::Debian { label: label.to_string(), suite: suite.to_owned(), source }
}

/// Why no tree could be made of pinned packages.
pub(crate) fn failed(locked: &LockedDebian, source: Cause) -> BuildError {
    BuildError::Debian { label: locked.target.clone(), suite: suites_of(locked), source }
}

/// The date of the release of an archive's suite, and its package indexes.
fn read_archive(
    context: &Context<'_>,
    label: &Label,
    archive: &DebianArchive,
    mirror: &str,
    keyring: &Keyring,
    pinned: Option<u64>,
    moment: Moment,
) -> Result<(u64, Vec<Vec<u8>>), BuildError> {
    let failed = |source: Cause| named(label, &archive.suite, source);
    let unreachable =
        |source| BuildError::Archive { label: label.to_string(), suite: archive.suite.to_string(), source };
    let suite = format!("{mirror}/dists/{}", archive.suite);
    let mut message = Vec::new();
    let url = format!("{suite}/InRelease");
    let body = context.fetcher.get(&url).map_err(|source| match source.is_not_found() {
        true => BuildError::NoSuite { label: label.to_string(), suite: archive.suite.to_string(), source },
        false => unreachable(source),
    })?;
    let read = body.take(MAX_RELEASE_BYTES).read_to_end(&mut message);
    read.map_err(|source| {
        unreachable(FetchError::Transport { url: cas_fetch::redact(&url), source: Box::new(source) })
    })?;
    let release = cas_deb::verify_inrelease(&message, keyring, moment).map_err(|error| failed(Box::new(error)))?;
    release.check_suite(&archive.suite).map_err(|error| failed(Box::new(error)))?;
    release.check_date(pinned.unwrap_or(0)).map_err(|error| failed(Box::new(error)))?;
    let mut indexes = Vec::with_capacity(archive.components.len());
    for component in &archive.components {
        let (path, blob) = release.package_index(component, architecture()).ok_or_else(|| BuildError::NoComponent {
            label: label.to_string(),
            suite: archive.suite.to_string(),
            component: component.to_string(),
            architecture: architecture(),
            known: release.components(architecture()).into_iter().map(str::to_owned).collect(),
        })?;
        let url = if release.acquire_by_hash {
            let folder = path.parent().map(|folder| format!("{folder}/")).unwrap_or_default();
            format!("{suite}/{folder}by-hash/SHA256/{}", blob.digest.to_hex())
        } else {
            format!("{suite}/{path}")
        };
        let loaded = debian_index::load(context, &url, blob, &failed).map_err(|error| match error {
            BuildError::Fetch(source) => unreachable(source),
            other => other,
        })?;
        indexes.push(loaded);
    }
    Ok((release.date, indexes))
}

/// Names the tree of pinned packages: the name is remembered, and the tree made only where it is not.
pub(crate) fn toolchain(context: &Context<'_>, locked: LockedDebian) -> Result<Toolchain, BuildError> {
    if let Some(name) = recorded(context.store.memo(TREE_MEMO, tree_key(context, &locked).as_bytes())?) {
        return Ok(Toolchain::debian(locked, context.mirrors.clone(), context.scripts.clone(), name, None));
    }
    let (name, tree) = make(context, &locked)?;
    Ok(Toolchain::debian(locked, context.mirrors.clone(), context.scripts.clone(), name, Some(tree)))
}

/// The same without making anything: where the name is not remembered, what pins the packages stands for it.
pub(crate) fn outline(context: &Context<'_>, locked: LockedDebian) -> Result<Toolchain, BuildError> {
    let key = tree_key(context, &locked);
    let known = recorded(context.store.memo(TREE_MEMO, key.as_bytes())?);
    let name = known.unwrap_or_else(|| stand_in(context.function, TREE_MEMO, &key));
    Ok(Toolchain::debian(locked, context.mirrors.clone(), context.scripts.clone(), name, None))
}

/// The same with all packages in the store.
pub(crate) fn fetched(context: &Context<'_>, locked: LockedDebian) -> Result<Toolchain, BuildError> {
    locked.packages.par_iter().try_for_each(|package| ensure_package(context, &locked, package))?;
    outline(context, locked)
}

/// The tree of pinned packages, whole: from the store, or made again where something of it is gone.
pub(crate) fn tree(context: &Context<'_>, locked: &LockedDebian, name: &Descriptor) -> Result<Directory, BuildError> {
    if let Some(tree) = context.store.find_tree(name)? {
        return Ok(tree);
    }
    let (made, tree) = make(context, locked)?;
    // The record named another tree, which is corrected now: whoever went on with that name begins again.
    if made == *name { Ok(tree) } else { Err(StoreError::Missing(*name).into()) }
}

/// Kind of the memos that name the trees of pinned packages.
const TREE_MEMO: &str = "debian-tree";
/// What the rules of trees without and with scripts are called, docs/formats/debian.md; a change of them changes it.
const RULES: &str = "1";
const CONFIGURED_RULES: &str = "configured-1";

fn tree_key(context: &Context<'_>, locked: &LockedDebian) -> String {
    let rules = if context.scripts.is_some() { CONFIGURED_RULES } else { RULES };
    let mut key = format!("{rules} {}\n", context.function);
    for package in &locked.packages {
        key.push_str(&format!("{}\n", package.blob));
    }
    Digest::of(DigestFunction::Blake3, key.as_bytes()).to_string()
}

fn make(context: &Context<'_>, locked: &LockedDebian) -> Result<(Descriptor, Directory), BuildError> {
    let store = context.store;
    if context.scripts.is_some() {
        // Before anything is fetched.
        Users::Many.check().map_err(SandboxError::from)?;
    }
    let unpacked: Vec<Unpacked> =
        locked.packages.par_iter().map(|package| unpack(context, locked, package)).collect::<Result<_, _>>()?;
    let failed = |source: Cause| failed(locked, source);
    let tree = match &context.scripts {
        Some(cancel) => configured(context, locked, &unpacked, cancel)?,
        None => {
            let mut tree = cas_deb::merge(unpacked).map_err(|error| failed(Box::new(error)))?;
            let added = cas_deb::fix_up(&mut tree, context.function).map_err(|error| failed(Box::new(error)))?;
            keep_added(context, &added)?;
            tree
        }
    };
    let name = store.put_tree(&tree, context.function)?;
    store.put_memo(TREE_MEMO, tree_key(context, locked).as_bytes(), name.to_string().as_bytes())?;
    Ok((name, tree))
}

/// Puts the content of files that no package ships into the store.
pub(crate) fn keep_added(context: &Context<'_>, added: &[AddedFile]) -> Result<(), BuildError> {
    for file in added {
        context.store.put_bytes(context.function, file.content.as_bytes())?;
    }
    Ok(())
}

fn recorded(value: Option<Vec<u8>>) -> Option<Descriptor> {
    // A record that makes no sense is a miss.
    std::str::from_utf8(&value?).ok()?.parse().ok()
}

/// The files and the control file of a package, from the store where it was unpacked before.
fn unpack(context: &Context<'_>, locked: &LockedDebian, package: &LockedPackage) -> Result<Unpacked, BuildError> {
    let store = context.store;
    let label = format!("{} {}", package.name, package.version);
    let damaged =
        |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Package { package: label.clone(), source };
    let key = format!("1 {} {}", context.function, package.blob);
    let record = store.memo("debian-package", key.as_bytes())?.and_then(|value| String::from_utf8(value).ok());
    if let Some((tree, control)) = record.as_deref().and_then(|record| record.split_once('\n'))
        && let (Ok(tree), Ok(control)) = (tree.parse(), control.parse())
        && let Some(tree) = store.find_tree(&tree)?
        && store.contains(&control)?
    {
        let text = store.load(&control, MAX_CONTROL_BYTES)?;
        let control = Control::parse(&text).map_err(|error| damaged(Box::new(error)))?;
        return Ok(Unpacked { control, tree });
    }
    ensure_package(context, locked, package)?;
    let file = store.open_blob(&package.blob).map_err(StoreError::from)?;
    let mut reader = DebReader::new(BufReader::new(file)).map_err(|error| damaged(Box::new(error)))?;
    let (mut control, mut tree) = (None, None);
    while let Some(member) = reader.next_member().map_err(|error| damaged(Box::new(error)))? {
        let compression = match member.compression {
            cas_deb::Compression::None => Compression::None,
            cas_deb::Compression::Gzip => Compression::Gzip,
            cas_deb::Compression::Xz => Compression::Xz,
            cas_deb::Compression::Zstd => Compression::Zstd,
        };
        let kind = member.kind;
        let content_bytes = match kind {
            MemberKind::Control => MAX_CONTROL_CONTENT_BYTES,
            MemberKind::Data => {
                member.size.saturating_mul(MAX_RATIO).saturating_add(SLACK_BYTES).min(MAX_PACKAGE_BYTES)
            }
        };
        let limits = ReadTarLimits { content_bytes };
        let read = read_member(context, member, compression, limits).map_err(|error| match error {
            // The archive is in order; the store is full, or fails.
            BuildError::ReadTar(ReadTarError::Keep { path, source }) if !matches!(source, StoreError::Source(_)) => {
                BuildError::Keep { path: format!("{path} of {label}"), source }
            }
            BuildError::ReadTar(error) => damaged(Box::new(error)),
            other => other,
        })?;
        match kind {
            MemberKind::Control => control = Some(read),
            MemberKind::Data => tree = Some(read),
        }
        if tree.is_some() {
            break;
        }
    }
    let (Some(control), Some(tree)) = (control, tree) else {
        return Err(damaged("it has no control or no data archive".into()));
    };
    let path = RelPath::new("control").expect("it is a name");
    let (_, blob) = control.get_file(&path).ok_or_else(|| damaged("it has no control file".into()))?;
    let control = Control::parse(&store.load(&blob, MAX_CONTROL_BYTES)?).map_err(|error| damaged(Box::new(error)))?;
    if *control.name != *package.name {
        return Err(damaged(format!("it is the package `{}`", control.name).into()));
    }
    let name = store.put_tree(&tree, context.function)?;
    store.put_memo("debian-package", key.as_bytes(), format!("{name}\n{blob}").as_bytes())?;
    Ok(Unpacked { control, tree })
}

fn read_member(
    context: &Context<'_>,
    member: impl Read + Send,
    compression: Compression,
    limits: ReadTarLimits,
) -> Result<Directory, BuildError> {
    let mut tar = decompress(member, compression, limits.content_bytes.saturating_mul(2))
        .map_err(|error| BuildError::ReadTar(ReadTarError::Archive(error)))?;
    Ok(read_tree(&mut tar, limits, &mut |content| context.store.put(context.function, content))?)
}

/// Fetches a package unless it is here.
pub(crate) fn ensure_package(
    context: &Context<'_>,
    locked: &LockedDebian,
    package: &LockedPackage,
) -> Result<(), BuildError> {
    let label = format!("{} {}", package.name, package.version);
    let stale = || BuildError::LockStale { entry: format!("the archive of `{label}`") };
    let url = format!("{}/{}", context.mirrors.get(package.archive).ok_or_else(stale)?, package.path);
    ensure(context, &url, &package.blob).map_err(|error| match error {
        BuildError::Fetch(source) if source.is_not_found() => {
            BuildError::PackageGone { package: label.clone(), source }
        }
        BuildError::Fetch(source) => {
            BuildError::Archive { label: locked.target.clone(), suite: suites_of(locked), source }
        }
        other => other,
    })
}

/// Fetches a blob unless it is here.
pub(crate) fn ensure(context: &Context<'_>, url: &str, blob: &Descriptor) -> Result<(), BuildError> {
    if context.store.contains(blob)? {
        return Ok(());
    }
    let mut body = context.fetcher.get(url)?;
    context.store.put_expected(&mut body, blob).map_err(|source| match source {
        StoreError::Verify(cas_blob::VerifyError::Read { source, .. }) => {
            FetchError::Transport { url: cas_fetch::redact(url), source: Box::new(source) }.into()
        }
        StoreError::Verify(cas_blob::VerifyError::Size { .. } | cas_blob::VerifyError::Digest { .. }) => {
            BuildError::Mismatch { url: cas_fetch::redact(url), source }
        }
        other => other.into(),
    })?;
    Ok(())
}
