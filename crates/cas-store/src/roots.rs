//! Trees written out as folders: what a sandbox shows as its lower, read-only part.
//!
//! A root has one inode per path but for the tree's own hard links: files that share an inode by accident look like hard
//! links to an archiver inside a step. It is never linked to objects, so a step that finds a way to write harms no blob;
//! where the file system can share blocks between files, it shares those of objects. Roots count for the store's limits and
//! leave when they were not used for long; whoever needs one again writes it again.
//!
//! Not here: how a tree becomes files (`write`), which roots leave (`retain`).

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction, HashingReader};
use cas_fs::{FsError, Operation};
use cas_tree::{Directory, Node};

use crate::check::{Check, Depth};
use crate::disk::{Access, Disk, Site, Stat, read_file, write_all};
use crate::lease::Record;
use crate::room::Amount;
use crate::vault::Vault;
use crate::write::write_tree;
use crate::{Store, StoreError};

/// No tree takes a pebibyte.
const MAX_ROOT_BYTES: u64 = 1 << 50;
/// The file beside a tree that says how much it takes.
const SIZE_FILE: &str = "size";
/// The file beside it that says what it is.
pub(crate) const TREE_FILE: &str = "tree";
/// Longer ones are not read: a million files take some 100 MiB.
const MAX_TREE_FILE_BYTES: u64 = 1 << 30;

impl Store {
    /// Writes the tree out, unless that was done before, and returns the folder. It must not be written.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when content is not here, [`StoreError::Node`] for devices, fifos and whiteouts,
    /// [`StoreError::Fs`].
    pub fn materialize(&self, name: &Descriptor, tree: &Directory) -> Result<PathBuf, StoreError> {
        let vault = &self.vault;
        vault.leases.take(&[Record::root(&name.digest)])?;
        let path = self.folder.join("roots").join(root_name(&name.digest));
        if vault.find_root(&path)? {
            return Ok(path.join("root"));
        }
        let directories = encode_directories(tree, name)?;
        let amount = amount_of(tree).add(Amount::of_file(directories.len() as u64));
        vault.claim(amount)?;
        let temporary = vault.temporary("root");
        let written = cas_fs::create_dir_with_mode(&temporary, 0o700)
            .map_err(StoreError::from)
            .and_then(|()| write_tree(self, tree, &temporary.join("root")))
            .and_then(|()| vault.write_beside(&temporary, TREE_FILE, &directories))
            .and_then(|()| vault.write_beside(&temporary, SIZE_FILE, encode_size(amount).as_bytes()))
            .and_then(|()| vault.publish_root(&temporary, &path));
        match written {
            Ok(true) => vault.use_claim(amount),
            _ => vault.unclaim(amount),
        }
        if written.is_err() {
            // What cannot be removed now goes with the session's folder.
            let _ = vault.disk.remove_tree(&temporary);
        }
        written?;
        Ok(path.join("root"))
    }

    /// Writes the tree into the new folder `target`, with the constant time and the modes of the tree.
    ///
    /// # Errors
    ///
    /// As for [`Store::materialize`]; the folder is then incomplete.
    pub fn write_tree(&self, tree: &Directory, target: &Path) -> Result<(), StoreError> {
        write_tree(self, tree, target)
    }
}

impl Store {
    /// Looks at trees written out. In full they are read: a file that is not the tree's ends the root.
    pub(crate) fn check_roots(&self, depth: Depth, check: &mut Check) -> Result<(), StoreError> {
        let mut roots = Vec::new();
        self.vault.each_root(&mut |digest, _, _| {
            roots.push(digest);
            Ok(())
        })?;
        for digest in roots {
            let path = self.folder.join("roots").join(root_name(&digest));
            check.root_count += 1;
            // One that a loss of power may have torn is removed without a word, as by everybody who meets it.
            if self.vault.find_root(&path)? && depth == Depth::Full && !self.is_root_whole(&digest, &path)? {
                self.vault.remove_root(&path)?;
                check.damaged_roots.push(path);
            }
        }
        Ok(())
    }

    /// Whether a root is its tree and nothing else.
    fn is_root_whole(&self, digest: &Digest, path: &Path) -> Result<bool, StoreError> {
        let bytes = match cas_fs::read_limited(&path.join(TREE_FILE), MAX_TREE_FILE_BYTES) {
            Ok(bytes) => bytes,
            // One of an earlier version: what it should hold is not known, so it is written again when it is needed.
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(tree) = decode_directories(&bytes, digest) else { return Ok(false) };
        Ok(is_like(&tree, &tree, &path.join("root"))?)
    }
}

/// The directories of a tree, as they are kept beside it: for each its length (32 bits, little-endian) and its bytes.
pub(crate) fn encode_directories(tree: &Directory, name: &Descriptor) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    for (_, directory) in tree.encode(name.digest.function())?.directories {
        bytes.extend(u32::try_from(directory.len()).expect("directories are limited").to_le_bytes());
        bytes.extend(directory);
    }
    Ok(bytes)
}

/// The tree of this name among them; `None` for what is cut or damaged.
fn decode_directories(bytes: &[u8], digest: &Digest) -> Option<Directory> {
    let function = digest.function();
    let (mut directories, mut root, mut rest) = (HashMap::new(), None, bytes);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (directory, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let name = Descriptor::of(function, directory);
        root = root.or((name.digest == *digest).then_some(name));
        directories.insert(name, directory);
        rest = after;
    }
    let mut load = |name: &Descriptor| directories.get(name).map(|bytes| bytes.to_vec()).ok_or(NotThere);
    cas_tree::decode(&root?, &mut load).ok()
}

/// A directory that its tree names and that is not beside it.
#[derive(Debug, thiserror::Error)]
#[error("a directory is missing")]
struct NotThere;

/// Whether a folder holds a directory and nothing else. `top` is what hard links are looked up in.
fn is_like(top: &Directory, directory: &Directory, folder: &Path) -> Result<bool, FsError> {
    let found = match cas_fs::read_dir(folder) {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut found: Vec<_> = found.into_iter().map(|entry| entry.name).collect();
    found.sort_unstable();
    if !found.iter().map(|name| name.as_bytes()).eq(directory.entries().map(|(name, _)| name.as_bytes())) {
        return Ok(false);
    }
    for (name, node) in directory.entries() {
        let path = folder.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let metadata = match cas_fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        let has_mode = |mode: u32| metadata.permissions().mode() & 0o7777 == mode & 0o7777;
        let is_same = match (node, top.file_of(node)) {
            (Node::Directory(child), _) => {
                metadata.is_dir() && has_mode(child.metadata.mode) && is_like(top, child, &path)?
            }
            (Node::Symlink { target, .. }, _) => {
                metadata.is_symlink() && cas_fs::read_link(&path)?.as_os_str().as_bytes() == &target[..]
            }
            (_, Some((expected, blob))) => {
                metadata.is_file()
                    && metadata.len() == blob.size
                    && has_mode(expected.mode)
                    && digest_of_file(&path, blob.digest.function())? == blob.digest
            }
            // Nothing else is ever written out.
            _ => false,
        };
        if !is_same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn digest_of_file(path: &Path, function: DigestFunction) -> Result<Digest, FsError> {
    let mut reader = HashingReader::new(cas_fs::open_no_follow(path)?, &[function]);
    io::copy(&mut reader, &mut io::sink()).map_err(|error| FsError::new(Operation::Read, path, error))?;
    Ok(reader.finish().0[0])
}

/// Name of a root's folder; in it, the tree is the folder `root`.
pub(crate) fn root_name(digest: &Digest) -> String {
    format!("{}-{}", digest.function(), digest.to_hex())
}

impl<D: Disk> Vault<D> {
    /// Whether a root is here and whole. One that a loss of power may have torn is taken away.
    pub(crate) fn find_root(&self, path: &Path) -> Result<bool, StoreError> {
        let Some(stat) = self.disk.stat(path)? else { return Ok(false) };
        if self.epochs.trusts(stat.mark) {
            self.note_use(&stat, || path.to_owned());
            return Ok(true);
        }
        self.remove_root(path)?;
        Ok(false)
    }

    /// Gives a root its name; `false` when another process was faster. It is marked as objects are; nobody reads one of an epoch that was lost.
    pub(crate) fn publish_root(&self, made: &Path, path: &Path) -> Result<bool, StoreError> {
        self.check_poison()?;
        let writing = self.epochs.write()?;
        self.disk.mark(made, writing.mark)?;
        match self.disk.rename(Site::RenameRoot, made, path) {
            Ok(()) => Ok(true),
            // Another process was faster; its root is equal.
            Err(_) if self.disk.stat(path)?.is_some() => {
                self.disk.remove_tree(made)?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a root away: its name goes first, so that nobody sees half of it.
    pub(crate) fn remove_root(&self, path: &Path) -> Result<(), StoreError> {
        let aside = self.temporary("trash");
        match self.disk.rename(Site::TrashRoot, path, &aside) {
            Ok(()) => Ok(self.disk.remove_tree(&aside)?),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_beside(&self, root: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = root.join(name);
        let file = self.disk.open(&path, Access::New)?.expect("a new file is made or an error");
        write_all(&*self.disk, &file, 0, bytes).map_err(|error| FsError::new(Operation::Write, &path, error).into())
    }

    /// Every root with what is known of it: its digest, its folder's stat, what it takes.
    pub(crate) fn each_root(
        &self,
        visit: &mut dyn FnMut(Digest, Stat, Amount) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let top = self.folder.join("roots");
        for entry in self.disk.list(&top)? {
            let digest = entry.name.to_str().and_then(|name| name.replacen('-', ":", 1).parse().ok());
            let path = top.join(&entry.name);
            let (Some(digest), Some(stat)) = (digest, self.disk.stat(&path)?) else { continue };
            let amount = read_file(&*self.disk, &path.join(SIZE_FILE), 64)?.and_then(|bytes| decode_size(&bytes));
            visit(digest, stat, amount.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// Text of the file `size`.
pub(crate) fn encode_size(amount: Amount) -> String {
    format!("{} {}\n", amount.bytes, amount.inodes)
}

/// The opposite; `None` for what makes no sense.
pub(crate) fn decode_size(bytes: &[u8]) -> Option<Amount> {
    let (bytes, inodes) = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split_once(' ')?;
    let amount = Amount { bytes: bytes.parse().ok()?, inodes: inodes.parse().ok()? };
    // A damaged one must not take the sums of all out of their range.
    (amount.bytes <= MAX_ROOT_BYTES && amount.inodes <= MAX_ROOT_BYTES).then_some(amount)
}

/// What a tree takes when it is written out.
fn amount_of(tree: &Directory) -> Amount {
    // The folder of the root, the tree's top and the file with the size. The file with the tree is counted by who writes it.
    let mut amount = Amount { bytes: 3 * 4096, inodes: 3 };
    for (_, node) in tree.walk() {
        amount = amount.add(match node {
            cas_tree::Node::File { blob, .. } => Amount::of_file(blob.size),
            cas_tree::Node::Link { .. } => Amount::default(),
            _ => Amount::of_file(4096),
        });
    }
    amount
}

#[cfg(test)]
mod tests {
    use cas_tree::{Metadata, RelPath};

    use super::*;

    type Change = (&'static str, fn(&Path));

    const CHANGES: [Change; 9] = [
        ("other bytes of equal length", |root| {
            cas_fs::set_mode(&root.join("root/d/file"), 0o644).expect("it is ours");
            cas_fs::write(&root.join("root/d/file"), b"CONTENT").expect("it is ours");
        }),
        ("more bytes", |root| cas_fs::write(&root.join("root/d/file"), b"content and more").expect("it is ours")),
        ("a file that is gone", |root| cas_fs::remove_file(&root.join("root/d/file")).expect("it is ours")),
        ("one that came", |root| cas_fs::write(&root.join("root/d/more"), b"").expect("it is ours")),
        ("a folder that came", |root| cas_fs::create_dir(&root.join("root/more")).expect("it is ours")),
        ("the right to execute", |root| cas_fs::set_mode(&root.join("root/d/file"), 0o755).expect("it is ours")),
        ("a link to elsewhere", |root| {
            cas_fs::remove_file(&root.join("root/link")).expect("it is ours");
            cas_fs::symlink(Path::new("elsewhere"), &root.join("root/link")).expect("it is ours");
        }),
        ("a file in the place of a folder", |root| {
            cas_fs::remove_tree(&root.join("root/d")).expect("it is ours");
            cas_fs::write(&root.join("root/d"), b"").expect("it is ours");
        }),
        ("what it is", |root| cas_fs::write(&root.join(TREE_FILE), b"\x05\0\0\0dir").expect("it is ours")),
    ];

    #[test]
    fn a_root_that_is_not_its_tree_is_found_and_written_again() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let store = Store::open(home.path()).expect("the folder is empty");
        let function = DigestFunction::Blake3;
        let blob = store.put_bytes(function, b"content").expect("the disk has room");
        let mut tree = Directory::root();
        let parents = Metadata::root_owned(0o755);
        for (path, node) in [("d/file", Node::file(blob, 0o644)), ("link", Node::symlink(b"d/file"))] {
            let path = RelPath::new(path).expect("it is a path");
            tree.insert(&path, node, &parents).expect("nothing is in the way");
        }
        let name = tree.encode(function).expect("it is a tree").root;
        let check = || store.check(Depth::Full).expect("the disk works");
        for (what, change) in CHANGES {
            let root = store.materialize(&name, &tree).expect("the disk works");
            assert!(check().is_clean(), "before {what}");
            let root = root.parent().expect("it is in the root's folder").to_owned();
            change(&root);
            assert_eq!(check().damaged_roots, [root], "{what}");
            assert!(check().is_clean(), "after {what}");
        }
    }
}
