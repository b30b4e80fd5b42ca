//! Running an image in the sandbox.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use cas_oci::{Healthcheck, Inherited, MAX_DOCUMENT_BYTES};
use cas_sandbox::{
    Cancel, Check, Ending, Health, Network, Overlay, Port, Runner, SandboxError, Spec, Stop, Streams, Tier, Volume,
};
use cas_store::{Store, StoreError};
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::accounts::{Account, Accounts};
use crate::step::without_devices;
use crate::{BuildError, Image, platforms};

/// Where programs are looked for when the image does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Without a network: who answers there tells that a name was looked up.
const OWN_RESOLVER: &[u8] = b"nameserver 127.0.0.1\n";
/// What ends a program whose image names no signal, or none that there is.
const DEFAULT_STOP_SIGNAL: &str = "SIGTERM";
/// What an image without such a file knows.
const OWN_HOSTS: &[u8] = b"127.0.0.1 localhost cas\n::1 localhost\n";
/// Longest file of the host that says how names are looked up.
const MAX_NAMES_BYTES: u64 = 4 << 20;
/// Most links that a path is followed through, as in the kernel.
const MAX_LINKS: usize = 40;

/// What to run in an image.
#[derive(Debug)]
pub struct RunRequest {
    /// Program and arguments instead of the image's own; empty for those.
    pub command: Vec<String>,
    /// Variables over those of the image.
    pub env: BTreeMap<String, String>,
    /// What else is not as the image says.
    pub changes: RunChanges,
    /// Ports of the host that lead to the program's; without a network of the host's alone.
    pub ports: Vec<Port>,
    /// Where the program's streams go.
    pub streams: Streams,
    /// How long a program that was asked to end is waited for.
    pub stop_timeout: Duration,
    /// Whether an image without a check is refused.
    pub wants_check: bool,
    /// How much of a sandbox it gets. Nothing but the whole one has the image's root.
    pub tier: Tier,
}

/// What a run has in the place of what the image's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunChanges {
    /// A program in the place of entrypoint and command; [`RunRequest::command`] are its arguments then.
    pub entrypoint: Option<String>,
    /// User, and perhaps group behind a colon, by names that the image's files know or by numbers.
    pub user: Option<String>,
    /// Working directory, an absolute path; made where the image lacks it.
    pub working_directory: Option<PathBuf>,
    /// Parts of the host that it sees, in any order.
    pub volumes: Vec<Volume>,
    /// Which network it has.
    pub network: Network,
    /// Whether the image's check is left out.
    pub has_no_check: bool,
}

/// Something to say of a run while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEvent {
    /// The image's check found something else than before.
    Health(Health),
    /// The files belong to the program's user alone, whatever the image says, and it makes a difference.
    OwnersNotKept {
        /// One for which it does, from the root on.
        path: RelPath,
    },
}

/// An image that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ending: Ending,
    /// The first name that the program looked up without a network.
    pub missed_name: Option<String>,
}

/// What asks the program whether it works, if there is something. `shell` runs texts.
fn check(healthcheck: &Healthcheck, shell: &[String]) -> Option<Check> {
    let words = healthcheck.test.get(1..).unwrap_or_default();
    let command: Vec<OsString> = match healthcheck.test.first().map(String::as_str) {
        Some("CMD") => words.iter().map(OsString::from).collect(),
        Some("CMD-SHELL") if shell.is_empty() => {
            ["/bin/sh".into(), "-c".into()].into_iter().chain(words.iter().map(OsString::from)).collect()
        }
        Some("CMD-SHELL") => shell.iter().chain(words).map(OsString::from).collect(),
        // `NONE`, and what a later Docker may know.
        _ => return None,
    };
    let time = |ns: u64, default_seconds| match ns {
        0 => Duration::from_secs(default_seconds),
        ns => Duration::from_nanos(ns),
    };
    // Without a program nothing can be asked.
    let has_program = command.first().is_some_and(|program| !program.is_empty());
    (!words.is_empty() && has_program).then(|| Check {
        command,
        interval: time(healthcheck.interval_ns, 30),
        timeout: time(healthcheck.timeout_ns, 30),
        start_period: time(healthcheck.start_period_ns, 0),
        start_interval: time(healthcheck.start_interval_ns, 5),
        retries: Some(healthcheck.retries).filter(|retries| *retries > 0).unwrap_or(3),
    })
}

/// Runs a program over the image's layers, with a loopback of its own and no other network unless it is to have the host's.
///
/// When `cancel` is thrown, the program is sent the image's stop signal, and is killed when it has not ended after the time it has, or
/// when `cancel` [insists](Cancel::insist).
///
/// `told` is called before the program begins, if there is something to say, and on another thread when the image's check finds something
/// else than before.
///
/// # Errors
///
/// [`BuildError::NoCommand`], [`BuildError::NoCheck`], [`BuildError::User`], [`BuildError::VolumePlace`], [`BuildError::VolumesMeet`], [`BuildError::Platform`], [`BuildError::RootNotEntered`], [`BuildError::Sandbox`], and what the
/// store says.
pub fn run_image(
    store: &Store,
    image: &Image,
    request: RunRequest,
    told: &(dyn Fn(RunEvent) + Sync),
    cancel: &Cancel,
) -> Result<Ran, BuildError> {
    if !request.tier.is_whole() {
        let (label, root) = (image.reference.clone(), image.reference.clone());
        return Err(BuildError::RootNotEntered { label, root, tier: request.tier });
    }
    if !platforms::can_run(&image.platform) {
        let known = image.all_platforms().map(|image| image.platform.to_string()).collect();
        let (place, wanted) = (image.reference.clone(), platforms::own().to_string());
        return Err(BuildError::Platform { place, wanted, known });
    }
    let failed = |error| BuildError::Image { place: image.reference.clone(), source: Box::new(error) };
    let Inherited { config: execution, shell, .. } =
        Inherited::parse(&store.load(&image.config, MAX_DOCUMENT_BYTES)?).map_err(failed)?;
    let (tree, function) = image.tree(store)?;
    // As toolchains do: the sandbox has a `/dev` of its own.
    let tree = without_devices(&tree);
    let RunChanges { entrypoint, user, working_directory, mut volumes, network, has_no_check } = request.changes;
    let check = execution.healthcheck.as_ref().filter(|_| !has_no_check).and_then(|found| check(found, &shell));
    if request.wants_check && check.is_none() {
        return Err(BuildError::NoCheck { name: image.reference.clone() });
    }
    let stop = execution.stop_signal.as_deref().and_then(|signal| Stop::new(signal, request.stop_timeout));
    let stop = stop.or_else(|| Stop::new(DEFAULT_STOP_SIGNAL, request.stop_timeout));
    let own_directory = execution.working_dir.map_or("/".into(), PathBuf::from);
    let working_directory = working_directory.unwrap_or(own_directory);
    let command = match entrypoint {
        Some(program) => [vec![program], request.command].concat(),
        None if request.command.is_empty() => {
            [execution.entrypoint.unwrap_or_default(), execution.cmd.unwrap_or_default()].concat()
        }
        None => request.command,
    };
    if command.is_empty() {
        return Err(BuildError::NoCommand { name: image.reference.clone() });
    }
    behind_links_of(image, &tree, &mut volumes)?;
    let (uid, gid, home) = account(store, image, &tree, &user.or(execution.user).unwrap_or_default())?;
    if let Some(path) = not_kept(&tree, uid, gid) {
        told(RunEvent::OwnersNotKept { path });
    }
    let name = store.put_tree(&tree, function)?;
    let root = store.materialize(&name, &tree).map_err(|error| match error {
        StoreError::Node { path, kind } => BuildError::NotRunnable { name: image.reference.clone(), path, kind },
        other => other.into(),
    })?;
    // A program that has not begun needs not be asked.
    if cancel.is_cancelled() {
        return Ok(Ran { ending: Ending::Cancelled, missed_name: None });
    }
    let scratch = cas_fs::temporary_dir_in(store.scratch(), "run-")?;
    let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
    environment.insert("PATH".into(), DEFAULT_PATH.into());
    environment.insert("HOME".into(), home.into());
    environment.extend(execution.env.into_iter().map(|(name, value)| (name.into(), value.into())));
    environment.extend(request.env.into_iter().map(|(name, value)| (name.into(), value.into())));
    let names = match names(&tree, network, &scratch) {
        Ok(names) => names,
        Err(error) => {
            cas_fs::remove_tree(&scratch)?;
            return Err(error);
        }
    };
    let overlay = Overlay { lowers: names.into_iter().chain([root]).collect(), scratch: scratch.clone() };
    // As other programs that run images have it. A working directory that cannot be made cannot be entered, which is said. All
    // that is written goes when the run ends, so a volume of the image's needs no more than to be there.
    let own_volumes = execution.volumes.iter().map(Path::new);
    let folders = own_volumes.chain([working_directory.as_path()]).filter_map(inside);
    let folders = folders.map(|path| behind_links(&tree, &path)).filter(|path| *path != Path::new("")).collect();
    // Each after those above it.
    volumes.sort_by(|a, b| a.inside.cmp(&b.inside));
    let spec = Spec {
        environment,
        working_directory,
        uid,
        gid,
        folders,
        volumes,
        network,
        check,
        stop,
        ..Spec::new(overlay, command)
    };
    let outcome = Runner::this_program().run_served(
        &spec,
        request.streams,
        request.ports,
        &|health| told(RunEvent::Health(health)),
        cancel,
    );
    let removed = cas_fs::remove_tree(&scratch);
    let (outcome, missed_name) = outcome.map_err(|error| match error {
        SandboxError::Start(source) => BuildError::ImageNotStarted { name: image.reference.clone(), source },
        other => other.into(),
    })?;
    removed?;
    Ok(Ran { ending: outcome.ending, missed_name })
}

/// Makes a folder to be shown above the root, in which are the files that say how names are looked up; none where the root has no
/// place for them. A folder above the root and no mounts, so that the image may have links in their place, as many have.
fn names(tree: &Directory, network: Network, scratch: &Path) -> Result<Option<PathBuf>, BuildError> {
    let path = |text: &str| RelPath::new(text).expect("it is a path");
    let etc = tree.get(&path("etc"));
    if etc.is_some_and(|node| node.as_directory().is_none()) {
        return Ok(None);
    }
    let shown = scratch.join("names");
    let folder = shown.join("etc");
    cas_fs::create_dir_all(&folder)?;
    let put = |name: &str, bytes: &[u8]| -> Result<(), BuildError> {
        cas_fs::write(&folder.join(name), bytes)?;
        Ok(cas_fs::set_mode(&folder.join(name), 0o644)?)
    };
    match network {
        Network::None => {
            put("resolv.conf", OWN_RESOLVER)?;
            if tree.get(&path("etc/hosts")).is_none() {
                put("hosts", OWN_HOSTS)?;
            }
        }
        Network::Host => {
            for name in ["resolv.conf", "hosts"] {
                // A machine without one looks names up without one.
                if let Ok(bytes) = cas_fs::read_limited(&Path::new("/etc").join(name), MAX_NAMES_BYTES) {
                    put(name, &bytes)?;
                }
            }
        }
    }
    let mode = etc.and_then(Node::metadata).map_or(0o755, |metadata| metadata.mode);
    for (folder, mode) in [(&folder, mode), (&shown, 0o755)] {
        cas_fs::set_mode(folder, mode)?;
    }
    Ok(Some(shown))
}

/// A path from the root on, if it is one that is clean and not the root itself.
fn inside(path: &Path) -> Option<PathBuf> {
    let inside = path.strip_prefix("/").ok().filter(|inside| *inside != Path::new(""))?;
    inside.components().all(|part| matches!(part, Component::Normal(_))).then(|| inside.to_owned())
}

/// Where links of the tree lead a path to, both from the root on: the sandbox mounts over none. A path that leads nowhere stays.
fn behind_links(tree: &Directory, path: &Path) -> PathBuf {
    let mut rest: Vec<OsString> = path.iter().rev().map(OsStr::to_owned).collect();
    let (mut found, mut links) = (PathBuf::new(), 0);
    while let Some(part) = rest.pop() {
        if part == ".." {
            found.pop();
            continue;
        }
        found.push(part);
        let node = RelPath::new(found.as_os_str().as_bytes()).ok().and_then(|found| tree.get(&found).cloned());
        let Some(Node::Symlink { target, .. }) = node else { continue };
        links += 1;
        if links > MAX_LINKS {
            return path.to_owned();
        }
        found.pop();
        for part in Path::new(OsStr::from_bytes(&target)).components().rev() {
            match part {
                Component::RootDir => found = PathBuf::new(),
                Component::ParentDir => rest.push("..".into()),
                Component::Normal(name) => rest.push(name.to_owned()),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }
    found
}

/// Leads volumes to where links of the image do. Two that are at different paths may meet there.
fn behind_links_of(image: &Image, tree: &Directory, volumes: &mut [Volume]) -> Result<(), BuildError> {
    let mut places: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for volume in volumes {
        let inside = behind_links(tree, &volume.inside);
        let given = std::mem::replace(&mut volume.inside, inside.clone());
        if !Volume::can_be_at(&inside) {
            let [given, inside] = [given, inside].map(|path| Path::new("/").join(path));
            return Err(BuildError::VolumePlace { name: image.reference.clone(), given, inside });
        }
        if let Some((found, at)) = in_the_way(tree, &inside, volume.is_folder) {
            let kind = if volume.is_folder { "folder" } else { "file" };
            let [inside, at] = [given, at].map(|path| Path::new("/").join(path));
            return Err(BuildError::VolumeKind { name: image.reference.clone(), inside, kind, found, at });
        }
        if let Some(other) = places.insert(inside.clone(), given.clone()) {
            let [first, second, inside] = [other, given, inside].map(|path| Path::new("/").join(path));
            return Err(BuildError::VolumesMeet { name: image.reference.clone(), first, second, inside });
        }
    }
    Ok(())
}

/// What of the root a volume at a path cannot cover, and where that is.
fn in_the_way(tree: &Directory, inside: &Path, is_folder: bool) -> Option<(&'static str, PathBuf)> {
    let mut above: Vec<&Path> = inside.ancestors().filter(|path| *path != Path::new("")).collect();
    above.reverse();
    above.into_iter().find_map(|path| {
        let node = tree.get(&RelPath::new(path.as_os_str().as_bytes()).ok()?)?;
        let wants_folder = path != inside || is_folder;
        let found = match (node, wants_folder) {
            (Node::Directory(_), true) => return None,
            (Node::Directory(_), false) => "a folder",
            (Node::File { .. } | Node::Link { .. }, true) => "a file",
            (Node::File { .. } | Node::Link { .. }, false) => return None,
            _ => "neither a file nor a folder",
        };
        Some((found, path.to_owned()))
    })
}

/// Why the program gets more than the image's owners would let it have, as far as owners are plain to see: a path that belongs to another
/// user than root and itself, or that the user could not read.
fn not_kept(tree: &Directory, uid: u32, gid: u32) -> Option<RelPath> {
    for (path, node) in tree.walk() {
        let Some(Metadata { uid: owner_uid, gid: owner_gid, mode, .. }) = node.metadata() else { continue };
        let wanted = match node {
            Node::File { .. } => 0o4,
            // There is nothing that it could keep.
            Node::Directory(folder) if folder.is_empty() => 0,
            Node::Directory(_) => 0o5,
            _ => continue,
        };
        let shift = if *owner_uid == uid {
            6
        } else if *owner_gid == gid {
            3
        } else {
            0
        };
        let is_refused = uid != 0 && (mode >> shift) & wanted != wanted;
        if is_refused || ![0, uid].contains(owner_uid) {
            return Some(path);
        }
    }
    None
}

/// Numbers and home of a user; root where nothing is said.
fn account(store: &Store, image: &Image, tree: &Directory, text: &str) -> Result<(u32, u32, String), BuildError> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let wanted = if user.is_empty() { "0" } else { user };
    let accounts = Accounts::of(store, tree)?;
    let unknown = || BuildError::User { name: image.reference.clone(), user: text.to_owned() };
    let number = |text: &str| text.parse::<u32>().ok();
    let Account { uid, gid: own_group, home } = match (accounts.user(wanted), number(wanted)) {
        (Some(account), _) => account,
        (None, Some(uid)) => Account { uid, gid: 0, home: "/".to_owned() },
        (None, None) => return Err(unknown()),
    };
    let by_name = || number(group).or_else(|| accounts.group(group)).ok_or_else(unknown);
    let gid = if group.is_empty() { own_group } else { by_name()? };
    Ok((uid, gid, home))
}

#[cfg(test)]
mod tests {
    use cas_tree::Metadata;

    use super::*;

    #[test]
    fn a_check_is_read_as_docker_reads_it() {
        let check = |text: &str| {
            let document = format!(r#"{{"config": {{"Cmd": null, "Volumes": null, {text}}}}}"#);
            let read = Inherited::parse(document.as_bytes()).expect("it can be read");
            read.config.healthcheck.and_then(|found| check(&found, &read.shell))
        };
        let seconds = Duration::from_secs;
        let usual = Check {
            command: vec!["/bin/check".into(), "-x".into()],
            interval: seconds(30),
            timeout: seconds(30),
            start_period: seconds(0),
            start_interval: seconds(5),
            retries: 3,
        };
        let with = |words: &[&str]| Check { command: words.iter().map(OsString::from).collect(), ..usual.clone() };
        let given = Check {
            interval: Duration::from_millis(1500),
            timeout: seconds(2),
            start_period: seconds(3),
            start_interval: seconds(4),
            retries: 5,
            ..with(&["/bin/check"])
        };
        for (text, expected) in [
            (r#""Healthcheck": {"Test": ["CMD", "/bin/check", "-x"]}"#, Some(usual.clone())),
            (
                r#""Healthcheck": {"Test": ["CMD", "/bin/check", "-x"], "Interval": null, "Retries": -1}"#,
                Some(usual.clone()),
            ),
            (r#""Healthcheck": {"Test": ["CMD-SHELL", "a | b"]}"#, Some(with(&["/bin/sh", "-c", "a | b"]))),
            (
                r#""Shell": ["/bin/bash", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "a | b"]}"#,
                Some(with(&["/bin/bash", "-ec", "a | b"])),
            ),
            (
                r#""Healthcheck": {"Test": ["CMD", "/bin/check"], "Interval": 1500000000, "Timeout": 2000000000,
                "StartPeriod": 3000000000, "StartInterval": 4000000000, "Retries": 5}"#,
                Some(given),
            ),
            (r#""Healthcheck": {"Test": ["NONE"]}"#, None),
            (r#""Healthcheck": {"Test": ["CMD"]}"#, None),
            (r#""Healthcheck": {"Test": []}"#, None),
            (r#""Healthcheck": {"Test": null, "Interval": 1}"#, None),
            (r#""Healthcheck": null"#, None),
            (r#""User": "0""#, None),
        ] {
            assert_eq!(check(text), expected, "{text}");
        }
    }

    #[test]
    fn owners_that_would_hold_the_user_back_are_found() {
        let path = |text: &str| RelPath::new(text).expect("a path");
        let blob = cas_blob::Descriptor::of(cas_digest::DigestFunction::Blake3, b"x");
        for (uid, gid, mode, as_user, expected) in [
            (0, 0, 0o644, (1000, 1000), false),
            (0, 0, 0o600, (1000, 1000), true),
            (0, 0, 0o600, (0, 0), false),
            (0, 42, 0o640, (1000, 42), false),
            (0, 42, 0o640, (1000, 1000), true),
            (1000, 0, 0o600, (1000, 1000), false),
            (1000, 0, 0o644, (0, 0), true),
            (1000, 0, 0o644, (1001, 1001), true),
        ] {
            let mut tree = Directory::root();
            let node = Node::File { metadata: Metadata { uid, gid, ..Metadata::root_owned(mode) }, blob };
            tree.insert(&path("a/f"), node, &Metadata::root_owned(0o755)).expect("free");
            let found = not_kept(&tree, as_user.0, as_user.1);
            assert_eq!(found, expected.then(|| path("a/f")), "{uid}:{gid} {mode:o} {as_user:?}");
        }
    }

    #[test]
    fn places_are_behind_links_and_in_the_root() {
        let mut tree = Directory::root();
        let parents = Metadata::root_owned(0o755);
        for (path, target) in [
            ("bin", "usr/bin"),
            ("usr/bin/.keep", "x"),
            ("var/run", "/run"),
            ("var/lock", "../run/lock"),
            ("out", "../../../etc"),
            ("loop", "loop"),
            ("top", "/"),
        ] {
            tree.insert(&RelPath::new(path).expect("a path"), Node::symlink(target), &parents).expect("free");
        }
        for (path, expected) in [
            ("bin/x", "usr/bin/x"),
            ("new/x", "new/x"),
            ("var/run", "run"),
            ("var/run/a/b", "run/a/b"),
            ("var/lock/x", "run/lock/x"),
            ("out/x", "etc/x"),
            ("loop/x", "loop/x"),
            ("top", ""),
        ] {
            assert_eq!(behind_links(&tree, Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
