//! Roots of Debian packages whose maintainer scripts ran, in a sandbox with many users. Rules: docs/formats/debian.md.
//!
//! dpkg of the packages themselves installs them, as it would on a machine: what it has to know afterwards is all there. What is
//! kept is what it left, without what tells of the moment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas_config::LockedDebian;
use cas_deb::{USER_LISTS, Unpacked};
use cas_sandbox::{Cancel, Overlay, Owner, Runner, Spec, Streams, Users};
use cas_tar::{ReadTarError, ReadTarLimits, read_layer};
use cas_tree::{Directory, EPOCH_SECONDS, Metadata, Name, Node, RelPath, Unpacking};

use crate::BuildError;
use crate::debian::{self, Context};
use crate::log::Recorder;
use crate::step::{PATH, failure, for_sandbox};

/// Installs the groups in `/src`, the first one by force: its packages need each other, and are unpacked already.
const SCRIPT: &str = "\
cd /src
dpkg --force-depends --force-unsafe-io --log=/dev/null --install 0/*.deb
for group in $(ls | sort -n); do
  [ $group = 0 ] || dpkg --force-unsafe-io --log=/dev/null --install $group/*.deb
done
audit=$(dpkg --audit || echo dpkg --audit failed)
[ -z \"$audit\" ] || { echo \"$audit\"; exit 1; }
";

/// Beside `PATH` and `SOURCE_DATE_EPOCH`. No script asks anybody, and times that are written are the constant one. With that
/// epoch `py_compile` goes by the content of files; a plain import would write what goes by their times.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("HOME", "/root"),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    ("DEBCONF_NOWARNINGS", "yes"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

/// Long enough for thousands of packages on a slow machine.
const TIMEOUT: Duration = Duration::from_hours(2);
/// Most content of a root.
const MAX_ROOT_BYTES: u64 = 256 << 30;
/// Longest list of users.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// The tree of the packages after their scripts.
pub(crate) fn configured(
    context: &Context<'_>,
    locked: &LockedDebian,
    unpacked: &[Unpacked],
    cancel: &Cancel,
) -> Result<Directory, BuildError> {
    let scratch = cas_fs::temporary_dir_in(context.store.scratch(), "configure-")?;
    let work = Work { context, locked, unpacked, cancel, runner: Runner::this_program(), scratch: &scratch };
    let result = work.run();
    // Also what other users have there.
    let removed = cas_fs::remove_tree(&scratch).or_else(|_| work.runner.remove(&scratch).map_err(BuildError::from));
    let tree = result?;
    removed?;
    Ok(tree)
}

struct Work<'a> {
    context: &'a Context<'a>,
    locked: &'a LockedDebian,
    unpacked: &'a [Unpacked],
    cancel: &'a Cancel,
    runner: Runner,
    scratch: &'a Path,
}

impl Work<'_> {
    fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BuildError {
        debian::failed(self.locked, source.into())
    }

    fn run(&self) -> Result<Directory, BuildError> {
        let (store, function) = (self.context.store, self.context.function);
        self.unpacked.iter().try_for_each(cas_deb::check_owners).map_err(|error| self.failed(error))?;
        let controls: Vec<_> = self.unpacked.iter().map(|package| &package.control).collect();
        let groups = cas_deb::installation_order(&controls).map_err(|error| self.failed(error))?;
        let essential = groups.first().map(Vec::as_slice).unwrap_or_default();
        let essential = essential.iter().map(|position| self.unpacked[*position].clone());
        let mut base = cas_deb::merge(essential).map_err(|error| self.failed(error))?;
        let added = cas_deb::before_scripts(&mut base, function).map_err(|error| self.failed(error))?;
        debian::keep_added(self.context, &added)?;
        let overlay = self.install(&base, &groups)?;
        let mut tree = self.read(base, &overlay)?;
        let shipped = |path: &RelPath| self.unpacked.iter().any(|package| package.tree.get(path).is_some());
        cas_deb::after_scripts(&mut tree, function, &shipped);
        store.put_bytes(function, b"")?;
        self.order_users(&mut tree)?;
        Ok(tree)
    }

    /// Lets dpkg install all packages over the essential ones.
    fn install(&self, base: &Directory, groups: &[Vec<usize>]) -> Result<Overlay, BuildError> {
        let (store, scratch) = (self.context.store, self.scratch);
        let (lower, debs) = (scratch.join("essential"), scratch.join("packages"));
        let (plain, owners) = without_owners(base);
        self.locked
            .packages
            .iter()
            .try_for_each(|package| debian::ensure_package(self.context, self.locked, package))?;
        store.write_tree(&plain, &lower)?;
        store.write_tree(&self.archives(groups)?, &debs)?;
        let root = Overlay { lowers: vec![lower], scratch: scratch.join("root") };
        let mut environment: BTreeMap<String, String> =
            ENVIRONMENT.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        environment.insert("PATH".to_owned(), PATH.to_owned());
        environment.insert("SOURCE_DATE_EPOCH".to_owned(), EPOCH_SECONDS.to_string());
        let spec = Spec {
            source: Some(Overlay { lowers: vec![debs], scratch: scratch.join("source") }),
            environment: for_sandbox(environment),
            uid: 0,
            gid: 0,
            users: Users::Many,
            owners,
            timeout: Some(TIMEOUT),
            ..Spec::new(root.clone(), ["/bin/sh", "-euc", SCRIPT])
        };
        let (recorder, stdout) = Recorder::start(&scratch.join("log"), None)?;
        let stderr = stdout.try_clone().map_err(BuildError::Log)?;
        let outcome = self.runner.run(&spec, Streams::new(stdout, stderr), self.cancel);
        let logs = store.logs();
        cas_fs::create_dir_all(&logs)?;
        let log = recorder.finish(&logs.join(format!("configure-{}.log", self.name())))?;
        match failure(&outcome?.ending, (spec.timeout, &spec.limits))? {
            None => Ok(root),
            Some(how) => Err(BuildError::Configure { label: self.locked.target.clone(), how, log: Box::new(log) }),
        }
    }

    /// A name for this set of packages.
    fn name(&self) -> String {
        let text: String = self.locked.packages.iter().map(|package| format!("{}\n", package.blob)).collect();
        cas_digest::Digest::of(cas_digest::DigestFunction::Blake3, text.as_bytes()).to_hex()
    }

    /// The packages, in a folder for each group.
    fn archives(&self, groups: &[Vec<usize>]) -> Result<Directory, BuildError> {
        let parents = Metadata::root_owned(0o755);
        let mut tree = Directory::root();
        for (number, group) in groups.iter().enumerate() {
            for (place, position) in group.iter().enumerate() {
                // In the order of the group, whatever collation a shell has.
                let path = RelPath::new(format!("{number}/{place:05}.deb")).expect("they are numbers");
                let node = Node::file(self.locked.packages[*position].blob, 0o644);
                tree.insert(&path, node, &parents).map_err(|source| BuildError::Place { source })?;
            }
        }
        Ok(tree)
    }

    /// What the run left, over what it began with.
    fn read(&self, base: Directory, overlay: &Overlay) -> Result<Directory, BuildError> {
        let (store, function) = (self.context.store, self.context.function);
        let (mut reader, writer) = std::io::pipe().map_err(BuildError::Log)?;
        let mut tree = Unpacking::new(base);
        std::thread::scope(|scope| {
            let packing = scope.spawn(|| self.runner.pack(overlay, writer.into(), self.cancel));
            let limits = ReadTarLimits { content_bytes: MAX_ROOT_BYTES };
            let read = read_layer(&mut tree, &mut reader, limits, &mut |content| store.put(function, content));
            // To its end, or the other side fails for want of a reader.
            let drained = read.is_ok().then(|| std::io::copy(&mut reader, &mut std::io::sink()));
            drop(reader);
            let packed = packing.join().map_err(|_| BuildError::Log(std::io::Error::other("packing ended early")))?;
            // Without a reader packing fails as well. Else, why it failed says more than that the archive ends early.
            if let Err(error @ ReadTarError::Keep { .. }) = read {
                return Err(error.into());
            }
            packed?;
            read?;
            drained.transpose().map_err(BuildError::Log)?;
            Ok(tree.finish())
        })
    }

    fn order_users(&self, tree: &mut Directory) -> Result<(), BuildError> {
        let (store, function) = (self.context.store, self.context.function);
        let paths = USER_LISTS.map(|path| RelPath::new(path).expect("they are paths"));
        let mut lists = [const { None }; 4];
        for (path, list) in paths.iter().zip(&mut lists) {
            if let Some((_, blob)) = tree.get_file(path) {
                *list = String::from_utf8(store.load(&blob, MAX_LIST_BYTES)?).ok();
            }
        }
        cas_deb::order_users(&mut lists);
        for (path, list) in paths.iter().zip(lists) {
            let (Some(text), Some((metadata, _))) = (list, tree.get_file(path)) else { continue };
            let node = Node::File { metadata: metadata.clone(), blob: store.put_bytes(function, text.as_bytes())? };
            tree.insert(path, node, &Metadata::root_owned(0o755)).map_err(|source| BuildError::Place { source })?;
        }
        Ok(())
    }
}

/// A tree as one user's files can show it, each name a file of its own, and what has to be put right in it.
///
/// Trees are at most 1,024 directories deep, so recursion is bounded.
fn without_owners(tree: &Directory) -> (Directory, Vec<Owner>) {
    let mut owners = Vec::new();
    let plain = plain(tree, tree, &PathBuf::new(), &mut owners);
    (plain, owners)
}

fn plain(top: &Directory, directory: &Directory, at: &Path, owners: &mut Vec<Owner>) -> Directory {
    /// Set-id bits would be the invoking user's.
    const SHOWN: u32 = 0o1777;
    let mut shown = Directory::new(Metadata::root_owned(directory.metadata.mode & SHOWN));
    for (name, node) in directory.entries() {
        let inside = at.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name.as_bytes()));
        let file = top.file_of(node);
        if let Some(Metadata { uid, gid, mode, .. }) = file.map(|(metadata, _)| metadata).or(node.metadata())
            && (*uid, *gid, *mode & !SHOWN) != (0, 0, 0)
        {
            owners.push(Owner { inside: inside.clone(), uid: *uid, gid: *gid, mode: *mode });
        }
        let node = match (node, file) {
            (Node::Directory(child), _) => Node::Directory(plain(top, child, &inside, owners).into()),
            (_, Some((metadata, blob))) => Node::file(blob, metadata.mode & SHOWN),
            (other, None) => other.clone(),
        };
        let path = RelPath::from(Name::clone(name));
        shown.insert(&path, node, &Metadata::root_owned(0o755)).expect("names are there once");
    }
    shown
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn owners_and_set_id_bits_are_told_apart_from_what_files_can_show() {
        let path = |text: &str| RelPath::new(text).expect("it is a path");
        let blob = Descriptor::of(DigestFunction::Blake3, b"x");
        let root_owned = Metadata::root_owned;
        let mut tree = Directory::root();
        tree.insert(&path("usr/bin/su"), Node::file(blob, 0o4755), &root_owned(0o755)).expect("free names");
        let link = Node::Link { target: path("usr/bin/su") };
        tree.insert(&path("usr/bin/sw"), link, &root_owned(0o755)).expect("free names");
        tree.insert(&path("usr/bin/sh"), Node::file(blob, 0o755), &root_owned(0o755)).expect("free names");
        let mail = Directory::new(Metadata { gid: 8, ..root_owned(0o2775) });
        tree.insert(&path("var/mail"), Node::Directory(mail.into()), &root_owned(0o755)).expect("free names");
        let open = Directory::new(root_owned(0o1777));
        tree.insert(&path("tmp"), Node::Directory(open.into()), &root_owned(0o755)).expect("free names");
        let (plain, owners) = without_owners(&tree);
        let owner = |inside: &str, gid, mode| Owner { inside: inside.into(), uid: 0, gid, mode };
        assert_eq!(
            owners,
            [owner("usr/bin/su", 0, 0o4755), owner("usr/bin/sw", 0, 0o4755), owner("var/mail", 8, 0o2775)]
        );
        let mode =
            |at: &str| plain.get(&path(at)).and_then(Node::metadata).map(|metadata| (metadata.gid, metadata.mode));
        let modes = ["usr/bin/su", "usr/bin/sh", "var/mail", "tmp"].map(mode);
        assert_eq!(modes, [0o755, 0o755, 0o775, 0o1777].map(|mode| Some((0, mode))));
    }
}
