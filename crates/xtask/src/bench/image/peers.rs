//! buildah, umoci, and the bare programs that archive, compress and digest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{output, remove, version};
use super::subject::{Cell, Codec, Limits, Subject, timed};
use super::tree::Tree;
use crate::run::Failure;

/// What BuildKit and buildah are told to build.
pub(super) const DOCKERFILE: &str = "FROM scratch\nCOPY . /\n";

/// Whether a program of the machine can be started.
pub(in crate::bench) fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// buildah with a storage of its own.
pub(super) struct Buildah {
    folder: PathBuf,
    context: PathBuf,
}

impl Buildah {
    /// None without the program.
    pub(super) fn new(folder: &Path, context: &Path) -> Result<Option<Self>, Failure> {
        if !is_there("buildah") {
            return Ok(None);
        }
        fs::create_dir_all(folder)?;
        fs::write(folder.join("Dockerfile"), DOCKERFILE)?;
        Ok(Some(Self { folder: folder.to_owned(), context: context.to_owned() }))
    }
}

impl Subject for Buildah {
    fn name(&self) -> String {
        "buildah".to_owned()
    }

    fn codecs(&self) -> &'static [Codec] {
        &[Codec::Zstd, Codec::Gzip]
    }

    fn forget(&mut self) -> Result<(), Failure> {
        for part in ["storage", "run", "zstd", "gzip"] {
            remove(&self.folder.join(part))?;
        }
        Ok(())
    }

    fn build(&self, codec: Codec) -> Command {
        let at = |part: &str| self.folder.join(part).display().to_string();
        // Without its own mount of the storage, so that this can be removed.
        let buildah = format!(
            "buildah --root {} --runroot {} --storage-driver overlay --storage-opt overlay.skip_mount_home=true",
            at("storage"),
            at("run")
        );
        let script = format!(
            "{buildah} bud --quiet --isolation chroot --layers --tag t --file {} {} && \
             {buildah} push --quiet --compression-format {} localhost/t oci:{}:t",
            at("Dockerfile"),
            self.context.display(),
            codec.name(),
            at(codec.name())
        );
        shell(&script)
    }

    fn layout(&self, codec: Codec) -> PathBuf {
        self.folder.join(codec.name())
    }
}

/// umoci, which inserts a folder as a layer into an empty layout.
pub(super) struct Umoci {
    layout: PathBuf,
    context: PathBuf,
}

impl Umoci {
    /// None without the program.
    pub(super) fn new(folder: &Path, context: &Path) -> Option<Self> {
        is_there("umoci").then(|| Self { layout: folder.to_owned(), context: context.to_owned() })
    }

    fn image(&self) -> String {
        format!("{}:t", self.layout.display())
    }
}

impl Subject for Umoci {
    fn name(&self) -> String {
        "umoci".to_owned()
    }

    fn codecs(&self) -> &'static [Codec] {
        &[Codec::Gzip]
    }

    fn remembers(&self) -> bool {
        false
    }

    fn forget(&mut self) -> Result<(), Failure> {
        remove(&self.layout)?;
        output(Command::new("umoci").args(["init", "--layout"]).arg(&self.layout))?;
        output(Command::new("umoci").args(["new", "--image", &self.image()]))?;
        Ok(())
    }

    fn build(&self, _: Codec) -> Command {
        let mut command = Command::new("umoci");
        command.args(["insert", "--rootless", "--image", &self.image()]).arg(&self.context).arg("/r");
        command
    }

    fn layout(&self, _: Codec) -> PathBuf {
        self.layout.clone()
    }
}

/// What a job cannot do without.
pub(super) struct Bare {
    pub(super) what: &'static str,
    pub(super) cell: Cell,
    /// What it wrote, where that says something.
    pub(super) bytes: Option<u64>,
}

/// The bare programs over a tree, in the order of the page: archive and zstd, zstd alone, archive and pigz, SHA-256 alone.
pub(super) fn bare(folder: &Path, tree: &Tree, limits: Limits) -> Result<[Bare; 4], Failure> {
    fs::create_dir_all(folder)?;
    let at = |name: &str| folder.join(name).display().to_string();
    let (tree, archive, zstd, gzip) = (tree.folder.display(), at("tar"), at("zst"), at("gz"));
    output(&mut shell(&format!("tar c -C {tree} . > {archive}")))?;
    let run = |script: String| timed(limits.job, || Ok(shell(&script)));
    let size = |path: &str| Ok::<_, Failure>(Some(fs::metadata(path)?.len()));
    let both = run(format!("tar c -C {tree} . | zstd -q -3 -T2 > {zstd}"))?;
    let alone = run(format!("zstd -q -f -3 -T2 {archive} -o {zstd}"))?;
    let zstd = size(&zstd)?;
    let has_pigz = is_there("pigz");
    let pigz = if has_pigz { run(format!("tar c -C {tree} . | pigz > {gzip}"))? } else { Cell::Missing };
    let gzip = if has_pigz { size(&gzip)? } else { None };
    let sha256 = run(format!("sha256sum {archive} > /dev/null"))?;
    remove(folder)?;
    Ok([
        Bare { what: "`tar c \\| zstd -3 -T2`", cell: both, bytes: zstd },
        Bare { what: "`zstd -3 -T2` of the tar", cell: alone, bytes: zstd },
        Bare { what: "`tar c \\| pigz`", cell: pigz, bytes: gzip },
        Bare { what: "`sha256sum` of the tar", cell: sha256, bytes: None },
    ])
}

/// The first line that a program tells of its version.
pub(in crate::bench) fn first_line(program: &str) -> String {
    version(program).lines().next().unwrap_or_default().trim_matches(['*', ' ']).to_owned()
}

/// A line of the shell.
pub(super) fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}
