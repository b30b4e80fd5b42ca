//! Trees written out as folders: what a sandbox shows as its lower, read-only part.
//!
//! A root has one inode per path but for the tree's own hard links: files that share an inode by accident look like hard
//! links to an archiver inside a step. It is never linked to objects, so a step that finds a way to write harms no blob;
//! where the file system can share blocks between files, it shares those of objects. Roots count for the store's limits and
//! leave when they were not used for long; whoever needs one again writes it again.
//!
//! Not here: how a tree becomes files (`write`), which roots leave (`retain`).

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas_blob::Descriptor;
use cas_digest::Digest;
use cas_tree::Directory;

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
        let amount = amount_of(tree);
        vault.claim(amount)?;
        let temporary = vault.temporary("root");
        let written = cas_fs::create_dir_with_mode(&temporary, 0o700)
            .map_err(StoreError::from)
            .and_then(|()| write_tree(self, tree, &temporary.join("root")))
            .and_then(|()| vault.write_size(&temporary, amount))
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

    /// Whether the files of a root are those of its tree. A tree that is not here any more cannot be compared with.
    fn is_root_whole(&self, digest: &Digest, path: &Path) -> Result<bool, StoreError> {
        let name = self.vault.disk.stat(&self.vault.path(digest))?;
        let Some(name) = name.map(|stat| Descriptor { digest: *digest, size: stat.size }) else { return Ok(true) };
        let Some(tree) = self.find_tree(&name)? else { return Ok(true) };
        for (at, node) in tree.walk() {
            let file = path.join("root").join(std::ffi::OsStr::from_bytes(at.as_bytes()));
            let cas_tree::Node::File { blob, .. } = node else {
                if self.vault.disk.stat(&file)?.is_none() {
                    return Ok(false);
                }
                continue;
            };
            let source = match cas_fs::open_no_follow(&file) {
                Ok(source) => source,
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let mut reader = cas_digest::HashingReader::new(source, &[blob.digest.function()]);
            io::copy(&mut reader, &mut io::sink())
                .map_err(|error| cas_fs::FsError::new(cas_fs::Operation::Read, &file, error))?;
            let (digests, size) = reader.finish();
            if (Descriptor { digest: digests[0], size }) != *blob {
                return Ok(false);
            }
        }
        Ok(true)
    }
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

    fn write_size(&self, root: &Path, amount: Amount) -> Result<(), StoreError> {
        let path = root.join(SIZE_FILE);
        let file = self.disk.open(&path, Access::New)?.expect("a new file is made or an error");
        write_all(&*self.disk, &file, 0, encode_size(amount).as_bytes())
            .map_err(|error| cas_fs::FsError::new(cas_fs::Operation::Write, &path, error).into())
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
    // The folder of the root, the tree's top and the file with the size.
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
