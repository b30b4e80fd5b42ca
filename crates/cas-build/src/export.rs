//! Writing images out: where to, and folders. Archives are made in `archive`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::{Digest, DigestFunction, HashingWriter};
use cas_oci::{
    BadPart, IndexEntry, LAYOUT_FILE, LayoutIndex, MANIFEST_MEDIA_TYPE, TagKind, is_name_with_tag, split_place,
};
use cas_store::{Store, StoreError};
use cas_tar::Recipe;

use crate::seen::Seen;
use crate::written::{not_written, put_at};
use crate::{
    Artifact, ArtifactPart, BuildError, Engine, Image, ImageLayer, Pulled, Referring, Tarball, archive, layer,
};

/// Longest `index.json` that is added to.
const MAX_INDEX_BYTES: u64 = 4 << 20;
/// How long others may take to add to the index of a layout: they write two small files.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// Where an image is written to, in skopeo's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `oci:FOLDER[:TAG]`
    Layout {
        /// The folder, made if missing.
        folder: PathBuf,
        /// The tag in its index.
        tag: String,
    },
    /// `oci-archive:FILE[:TAG]`
    Archive {
        /// The file, replaced.
        file: PathBuf,
        /// The tag in its index.
        tag: String,
    },
    /// `dir:FOLDER`, as skopeo has it.
    Directory {
        /// The folder, made if missing.
        folder: PathBuf,
    },
    /// `docker-archive:FILE[:NAME:TAG]`: what `docker load` takes.
    DockerArchive {
        /// The file, replaced.
        file: PathBuf,
        /// What it is called there.
        name: Option<String>,
    },
    /// `containers-storage:NAME:TAG` or `docker-daemon:NAME:TAG`: what another program keeps.
    Engine {
        /// Which one.
        engine: Engine,
        /// What it is called there.
        name: String,
    },
    /// `tar:FILE`: the files of all layers together.
    RootFileSystem {
        /// The file, replaced.
        file: PathBuf,
    },
}

impl Destination {
    /// The same with its path below a folder, unless that goes from the root on.
    #[must_use]
    pub fn below(mut self, base: &Path) -> Self {
        match &mut self {
            Self::Layout { folder: path, .. } | Self::Directory { folder: path } => *path = base.join(&*path),
            Self::Archive { file: path, .. }
            | Self::DockerArchive { file: path, .. }
            | Self::RootFileSystem { file: path } => *path = base.join(&*path),
            Self::Engine { .. } => {}
        }
        self
    }

    /// The one file that is written, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Archive { file, .. } | Self::DockerArchive { file, .. } | Self::RootFileSystem { file } => Some(file),
            Self::Layout { .. } | Self::Directory { .. } | Self::Engine { .. } => None,
        }
    }
}

/// Text that is not a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// It begins with no transport that images are written to.
    #[error("`{text}` is not a destination")]
    Transport {
        /// The text.
        text: String,
    },
    /// A part of it is not what it must be.
    #[error("`{text}` has {part}")]
    Part {
        /// The text.
        text: String,
        /// Which part.
        part: BadPart,
    },
}

impl DestinationError {
    /// What to write instead.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Transport { .. } => {
                "write `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`, `dir:FOLDER`, `tar:FILE`, `containers-storage:NAME:TAG` or `docker-daemon:NAME:TAG`"
            }
            Self::Part { part, .. } => part.hint(),
        }
    }
}

/// The tag of an image in a layout where none is told.
const DEFAULT_TAG: &str = "image";

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let wrong = |part| DestinationError::Part { text: text.to_owned(), part };
        let plain = |path: &str| match path.is_empty() || path.contains('\0') {
            true => Err(wrong(BadPart::Path)),
            false => Ok(PathBuf::from(path)),
        };
        let place = |rest| match split_place(rest, TagKind::Tag) {
            Ok((path, tag)) => Ok((PathBuf::from(path), tag.unwrap_or(DEFAULT_TAG).to_owned())),
            Err(part) => Err(wrong(part)),
        };
        let (transport, rest) =
            text.split_once(':').ok_or_else(|| DestinationError::Transport { text: text.to_owned() })?;
        match transport {
            "oci" => place(rest).map(|(folder, tag)| Self::Layout { folder, tag }),
            "oci-archive" => place(rest).map(|(file, tag)| Self::Archive { file, tag }),
            "docker-archive" => {
                let (file, name) = split_place(rest, TagKind::Name).map_err(wrong)?;
                Ok(Self::DockerArchive { file: PathBuf::from(file), name: name.map(str::to_owned) })
            }
            "dir" => Ok(Self::Directory { folder: plain(rest)? }),
            "tar" => Ok(Self::RootFileSystem { file: plain(rest)? }),
            _ => match Engine::of_transport(transport) {
                None => Err(DestinationError::Transport { text: text.to_owned() }),
                Some(engine) if is_name_with_tag(rest) => Ok(Self::Engine { engine, name: rest.to_owned() }),
                Some(_) => Err(wrong(BadPart::Name { name: rest.to_owned() })),
            },
        }
    }
}

/// Writes an image out. In a layout that is there already, blobs that it has are left and other tags stay.
///
/// # Errors
///
/// [`BuildError::Record`] when part of the image is gone, [`BuildError::WhichPlatform`] when it is for several platforms and the
/// destination holds one, [`BuildError::NotWritten`], [`BuildError::LayoutIndex`], [`BuildError::LayoutLocked`], [`BuildError::Store`].
pub fn export_image(store: &Store, image: &Image, destination: &Destination) -> Result<(), BuildError> {
    let holds_all = match destination {
        Destination::Layout { .. } | Destination::Archive { .. } => true,
        Destination::Engine { engine, .. } => *engine == Engine::Podman,
        _ => false,
    };
    if image.index.is_some() && !holds_all {
        let known = image.all_platforms().map(|image| image.platform.to_string()).collect();
        return Err(BuildError::WhichPlatform { name: image.reference.clone(), known });
    }
    match destination {
        Destination::Layout { folder, tag } => layout(store, &Whole::of_image(store, image)?, &[], folder, tag),
        Destination::Archive { file, tag } => archive::oci(store, &Whole::of_image(store, image)?, &[], file, tag),
        Destination::Directory { folder } => directory(store, &Whole::of_image(store, image)?, folder),
        Destination::DockerArchive { file, name } => archive::docker(store, image, file, name.as_deref()),
        Destination::Engine { engine, name } => engine.load(store, image, name),
        Destination::RootFileSystem { file } => archive::root_file_system(store, image, file),
    }
}

/// Writes an artifact out, as [`export_image`] does an image. What it is about is not written with it.
///
/// # Errors
///
/// [`BuildError::ArtifactDestination`] where images alone can be, and as for an image.
pub fn export_artifact(store: &Store, artifact: &Artifact, destination: &Destination) -> Result<(), BuildError> {
    let whole = || Whole::of_artifact(store, artifact);
    let destination = match destination {
        Destination::Layout { folder, tag } => return layout(store, &whole()?, &[], folder, tag),
        Destination::Archive { file, tag } => return archive::oci(store, &whole()?, &[], file, tag),
        Destination::Directory { folder } => return directory(store, &whole()?, folder),
        Destination::DockerArchive { .. } => "docker-archive",
        Destination::Engine { engine, .. } => engine.transport(),
        Destination::RootFileSystem { .. } => "tar",
    };
    Err(BuildError::ArtifactDestination { name: artifact.reference.clone(), destination })
}

/// Writes out what was found in some place; into layouts and archives of them also what refers to it, without tags.
///
/// # Errors
///
/// As [`export_image`] and [`export_artifact`].
pub fn export_with_referring(
    store: &Store,
    found: &Pulled,
    referring: &[Referring],
    destination: &Destination,
) -> Result<(), BuildError> {
    let whole = Whole::of(store, found)?;
    let beside: Vec<Whole<'_>> = referring.iter().map(|one| Whole::of(store, &one.found)).collect::<Result<_, _>>()?;
    match destination {
        Destination::Layout { folder, tag } => layout(store, &whole, &beside, folder, tag),
        Destination::Archive { file, tag } => archive::oci(store, &whole, &beside, file, tag),
        _ => match found {
            Pulled::Image(image) => export_image(store, image, destination),
            Pulled::Artifact(artifact) => export_artifact(store, artifact, destination),
        },
    }
}

/// Writes a tarball into a folder, under the name that npm gives it; returns its path. A file of that name is replaced.
///
/// # Errors
///
/// [`BuildError::NotWritten`], [`BuildError::Store`].
pub fn write_tarball(store: &Store, tarball: &Tarball, folder: &Path) -> Result<PathBuf, BuildError> {
    let path = folder.join(&tarball.file_name);
    cas_fs::create_dir_all(folder).map_err(not_written(&path))?;
    put_at(folder, &path, &path, &mut |writer| layer::write(store, &tarball.recipe, writer))?;
    Ok(path)
}

/// The bytes of a tarball as one blob, named with the function of its tree.
pub(crate) fn tarball_blob(store: &Store, tarball: &Tarball) -> Result<Descriptor, BuildError> {
    keep_whole(store, &tarball.recipe)?;
    Ok(store.name_with(tarball.recipe.tree.digest.function(), &tarball.recipe.blob)?)
}

/// Keeps the bytes of an archive as one blob, for those who cannot read recipes.
pub(crate) fn keep_whole(store: &Store, recipe: &Recipe) -> Result<(), BuildError> {
    keep(store, &recipe.blob, &mut |file| layer::write(store, recipe, file))
}

/// Keeps what `write` makes under its name, unless it is here.
pub(crate) fn keep(
    store: &Store,
    blob: &Descriptor,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    if store.contains(blob)? {
        return Ok(());
    }
    let folder = cas_fs::temporary_dir_in(store.scratch(), "archive-")?;
    let kept = (|| -> Result<(), BuildError> {
        let path = folder.join("part");
        let mut part = std::io::BufWriter::new(cas_fs::create_new(&path, 0o600)?);
        write(&mut part)?;
        part.flush().map_err(BuildError::Compress)?;
        drop(part);
        store.put_expected(&mut cas_fs::open(&path)?, blob)?;
        Ok(())
    })();
    cas_fs::remove_tree(&folder)?;
    kept
}

fn layout(store: &Store, whole: &Whole<'_>, beside: &[Whole<'_>], folder: &Path, tag: &str) -> Result<(), BuildError> {
    let below = folder.join("blobs/sha256");
    cas_fs::create_dir_all(&below).map_err(not_written(folder))?;
    let all = || [whole].into_iter().chain(beside);
    let documents: Vec<Part> = all().map(|whole| Part::stored(whole.document)).collect();
    place_all(store, folder, &below, all().flat_map(|whole| &whole.parts).chain(&documents))?;
    let beside = beside.iter().map(|whole| whole.entry(None)).collect();
    name(folder, whole.entry(Some(tag)), beside, LOCK_LIMIT)
}

/// Adds an entry to the index of a layout, and others without a tag beside it. Nobody else that asks as this does adds one meanwhile, for no longer than `limit`.
fn name(folder: &Path, entry: IndexEntry, beside: Vec<IndexEntry>, limit: Duration) -> Result<(), BuildError> {
    // A file that every layout has: others find nothing new, and those who only read do not wait.
    let file = folder.join("oci-layout");
    let locked = cas_fs::lock(&file, limit).map_err(|error| match error.source.kind() {
        io::ErrorKind::TimedOut => BuildError::LayoutLocked { folder: folder.to_owned() },
        _ => not_written(folder)(error),
    })?;
    let path = folder.join("index.json");
    let mut index = match cas_fs::read_limited(&path, MAX_INDEX_BYTES) {
        Ok(bytes) => {
            LayoutIndex::parse(&bytes).map_err(|source| BuildError::LayoutIndex { path: path.clone(), source })?
        }
        Err(error) if error.is_not_found() => LayoutIndex::default(),
        Err(error) => return Err(error.into()),
    };
    index.set(entry);
    beside.into_iter().for_each(|entry| index.add(entry));
    if cas_fs::read_limited(&file, MAX_INDEX_BYTES).ok().as_deref() != Some(LAYOUT_FILE) {
        // Another file in its place would be another lock.
        cas_fs::write(&file, LAYOUT_FILE).map_err(not_written(folder))?;
    }
    // Last, so that whoever reads the index finds everything.
    cas_fs::write_atomic(&path, &index.encode()).map_err(not_written(folder))?;
    drop(locked);
    Ok(())
}

/// Writes parts into `below` under their digests, unless they are there. Errors tell `folder`.
fn place_all<'a>(
    store: &Store,
    folder: &Path,
    below: &Path,
    parts: impl Iterator<Item = &'a Part>,
) -> Result<(), BuildError> {
    let mut seen = Seen::load(store, &cas_fs::canonicalize(below).map_err(not_written(folder))?)?;
    for part in parts {
        let path = below.join(part.blob.digest.to_hex());
        if !seen.holds(&path, &part.blob) {
            put_at(below, &path, folder, &mut |writer| part.write(store, writer))?;
        }
        seen.add(&path, &part.blob);
    }
    Ok(seen.keep(store)?)
}

/// As skopeo's `dir:`: manifest, configuration and layers side by side, under their digests.
fn directory(store: &Store, whole: &Whole<'_>, folder: &Path) -> Result<(), BuildError> {
    cas_fs::create_dir_all(folder).map_err(not_written(folder))?;
    place_all(store, folder, folder, whole.parts.iter())?;
    cas_fs::write_atomic(&folder.join("version"), b"Directory Transport Version: 1.1\n")
        .map_err(not_written(folder))?;
    // Last, so that whoever reads the manifest finds everything.
    let manifest = store.load(&whole.document, MAX_INDEX_BYTES)?;
    cas_fs::write_atomic(&folder.join("manifest.json"), &manifest).map_err(not_written(folder))
}

/// What is written out, or sent somewhere: a document, and all that it names.
#[derive(Debug)]
pub struct Whole<'a> {
    pub(crate) document: Descriptor,
    media_type: &'static str,
    artifact_type: Option<&'a str>,
    /// Documents that the document names.
    children: Vec<(Descriptor, &'static str)>,
    pub(crate) parts: Vec<Part>,
}

impl<'a> Whole<'a> {
    /// An image or an artifact.
    ///
    /// # Errors
    ///
    /// As [`Whole::of_image`].
    pub fn of(store: &Store, found: &'a Pulled) -> Result<Self, BuildError> {
        match found {
            Pulled::Image(image) => Whole::of_image(store, image),
            Pulled::Artifact(artifact) => Whole::of_artifact(store, artifact),
        }
    }

    /// An image, of all its platforms.
    ///
    /// # Errors
    ///
    /// [`BuildError::Record`], [`BuildError::Store`]
    pub fn of_image(store: &Store, image: &Image) -> Result<Self, BuildError> {
        let (document, media_type) = (*image.document(), image.media_type());
        let images = image.index.iter().flat_map(|index| &index.images);
        let children = images.map(|image| (image.manifest, image.media_type())).collect();
        Ok(Self { document, media_type, artifact_type: None, children, parts: blobs(store, image)? })
    }

    /// What it is named by.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.document.digest
    }

    /// The documents with their media types, each after those that it names.
    pub fn documents(&self) -> impl Iterator<Item = (Descriptor, &'static str)> {
        self.children.iter().copied().chain([(self.document, self.media_type)])
    }

    /// Everything but the documents, each once.
    #[must_use]
    pub fn into_blobs(self) -> Vec<Part> {
        let mut seen: BTreeSet<Descriptor> = self.documents().map(|(document, _)| document).collect();
        self.parts.into_iter().filter(|part| seen.insert(part.blob)).collect()
    }

    /// An artifact.
    ///
    /// # Errors
    ///
    /// As [`Whole::of_image`].
    pub fn of_artifact(store: &Store, artifact: &'a Artifact) -> Result<Self, BuildError> {
        let mut parts = Vec::new();
        for part in &artifact.parts {
            parts.push(match part {
                ArtifactPart::File(blob) => Part::stored(*blob),
                ArtifactPart::Folder { recipe, .. } => Part::made(store, recipe)?,
            });
        }
        parts.push(Part::stored(artifact.config));
        let (document, artifact_type) = (artifact.manifest, Some(artifact.artifact_type.as_str()));
        Ok(Self { document, media_type: MANIFEST_MEDIA_TYPE, artifact_type, children: Vec::new(), parts })
    }

    /// How the index of a layout names it.
    pub(crate) fn entry(&self, tag: Option<&str>) -> IndexEntry {
        let entry = match tag {
            Some(tag) => IndexEntry::new(tag, self.media_type, &self.document),
            None => IndexEntry::untagged(self.media_type, &self.document),
        };
        match self.artifact_type {
            Some(artifact_type) => entry.of_type(artifact_type),
            None => entry,
        }
    }
}

/// A part of an image or artifact.
#[derive(Debug)]
pub struct Part {
    /// Its name.
    pub blob: Descriptor,
    made: Option<MadePart>,
}

/// A part that is not in the store as it is.
#[derive(Debug)]
struct MadePart {
    recipe: Recipe,
    /// The store made it, so its bytes have been hashed: whoever reads what it is made of is told of any change.
    is_known: bool,
}

impl Part {
    /// One that is in the store.
    const fn stored(blob: Descriptor) -> Self {
        Self { blob, made: None }
    }

    /// One that is made, by the name of its recipe.
    fn made(store: &Store, name: &Descriptor) -> Result<Self, BuildError> {
        let recipe = layer::find(store, name)?.ok_or(BuildError::Record { what: *name })?;
        let is_known = layer::is_made_here(store, name, &recipe)?;
        Ok(Self { blob: recipe.blob, made: Some(MadePart { recipe, is_known }) })
    }

    /// Writes the bytes, which are those of the part's name or an error.
    ///
    /// # Errors
    ///
    /// [`BuildError::Record`], [`BuildError::Store`], [`BuildError::Compress`]
    pub fn write(&self, store: &Store, sink: &mut dyn Write) -> Result<(), BuildError> {
        let Some(MadePart { recipe, is_known }) = &self.made else {
            // The store compares what it gives with its name.
            let mut source = store.open_blob(&self.blob).map_err(StoreError::from)?;
            return std::io::copy(&mut source, sink).map(drop).map_err(BuildError::Compress);
        };
        let functions = if *is_known { &[][..] } else { &[DigestFunction::Sha256] };
        let mut writer = HashingWriter::new(sink, functions);
        layer::write(store, recipe, &mut writer)?;
        let (_, digests, size) = writer.finish();
        match size == self.blob.size && digests.iter().all(|digest| *digest == self.blob.digest) {
            true => Ok(()),
            false => Err(BuildError::Record { what: self.blob }),
        }
    }
}

/// What a manifest names: the layers, lowest first, and the configuration; of several platforms all of that, and the manifests.
fn blobs(store: &Store, image: &Image) -> Result<Vec<Part>, BuildError> {
    let mut parts = Vec::new();
    if let Some(index) = &image.index {
        for image in &index.images {
            parts.extend(blobs(store, image)?);
            parts.push(Part::stored(image.manifest));
        }
        return Ok(parts);
    }
    for layer in &image.layers {
        parts.push(match layer {
            ImageLayer::Made { recipe, .. } => Part::made(store, recipe)?,
            ImageLayer::Foreign { blob, .. } => Part::stored(*blob),
        });
    }
    parts.push(Part::stored(image.config));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the store has not hashed itself is hashed on the way out, and nothing goes by another's name.
    #[test]
    fn bytes_are_those_of_their_name() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let store = Store::open(home.path()).expect("the folder is empty");
        let mut tree = cas_tree::Directory::root();
        let content = store.put_bytes(DigestFunction::Blake3, b"content").expect("the store works");
        let at = cas_tree::RelPath::new("a").expect("it is a path");
        let node = cas_tree::Node::file(content, 0o644);
        tree.insert(&at, node, &cas_tree::Metadata::root_owned(0o755)).expect("the tree is empty");
        let name = store.put_tree(&tree, DigestFunction::Blake3).expect("the store works");
        let tree = std::sync::Arc::new(tree);
        let made = layer::build(&store, &|| Ok(tree.clone()), &name, cas_tar::Codec::Gzip6, "here", 1);
        let Ok((recipe_name, recipe)) = made else { panic!("a layer can tell it") };
        assert!(layer::is_made_here(&store, &recipe_name, &recipe).expect("the store works"));
        assert!(!layer::is_made_here(&store, &name, &recipe).expect("the store works"));
        let other = Descriptor::of(DigestFunction::Sha256, b"other");
        let renamed = Descriptor { size: recipe.blob.size, ..other };
        for (blob, is_known, is_fine) in
            [(recipe.blob, true, true), (recipe.blob, false, true), (renamed, false, false), (other, true, false)]
        {
            let part = Part { blob, made: Some(MadePart { recipe: recipe.clone(), is_known }) };
            let written = part.write(&store, &mut std::io::sink());
            assert_eq!(written.is_ok(), is_fine, "{blob} {is_known}");
        }
    }

    #[test]
    fn nobody_waits_for_ever_for_a_layout() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let entry = || IndexEntry::new("v1", "application/x", &Descriptor::of(DigestFunction::Sha256, b"x"));
        let locked = cas_fs::lock(&folder.path().join("oci-layout"), Duration::ZERO).expect("nobody has it");
        let error = name(folder.path(), entry(), Vec::new(), Duration::from_millis(20)).expect_err("it is locked");
        assert!(error.to_string().starts_with("another program is writing into the layout `/"), "{error}");
        drop(locked);
        name(folder.path(), entry(), Vec::new(), Duration::ZERO).expect("nobody has it any more");
        assert_eq!(cas_fs::read(&folder.path().join("oci-layout")).expect("it is there"), LAYOUT_FILE);
    }

    #[test]
    fn destinations_are_parsed() {
        let layout = |folder: &str, tag: &str| Destination::Layout { folder: folder.into(), tag: tag.to_owned() };
        assert_eq!("oci:out".parse(), Ok(layout("out", "image")));
        assert_eq!("oci:a/b:v1".parse(), Ok(layout("a/b", "v1")));
        assert!(matches!("oci-archive:x.tar:1".parse(), Ok(Destination::Archive { .. })));
        assert_eq!("dir:a:b".parse(), Ok(Destination::Directory { folder: "a:b".into() }));
        assert_eq!("tar:root.tar".parse(), Ok(Destination::RootFileSystem { file: "root.tar".into() }));
        let docker =
            |name: Option<&str>| Destination::DockerArchive { file: "x".into(), name: name.map(str::to_owned) };
        assert_eq!("docker-archive:x".parse(), Ok(docker(None)));
        assert_eq!("docker-archive:x:host:5000/a/b:v1".parse(), Ok(docker(Some("host:5000/a/b:v1"))));
        let engine = |engine, name: &str| Destination::Engine { engine, name: name.to_owned() };
        assert_eq!("containers-storage:a/b:1".parse(), Ok(engine(Engine::Podman, "a/b:1")));
        assert_eq!("docker-daemon:host:5000/a:1".parse(), Ok(engine(Engine::Docker, "host:5000/a:1")));
        for (text, message, hint) in [
            ("", "`` is not a destination", "write `oci:FOLDER[:TAG]`"),
            ("oci", "`oci` is not a destination", "write `oci:FOLDER[:TAG]`"),
            ("docker:x", "`docker:x` is not a destination", "write `oci:FOLDER[:TAG]`"),
            ("oci:", "`oci:` has a bad path", "name a file or folder"),
            ("oci::t", "`oci::t` has a bad path", "name a file or folder"),
            ("oci:x:", "`oci:x:` has a bad tag, ``", "the path ends at the first colon; a tag has"),
            ("oci:x:a b", "`oci:x:a b` has a bad tag, `a b`", "the path ends at the first colon; a tag has"),
            ("oci:x:y:v1", "`oci:x:y:v1` has a bad tag, `y:v1`", "the path ends at the first colon; a tag has"),
            (
                "oci-archive:x:.v1",
                "`oci-archive:x:.v1` has a bad tag, `.v1`",
                "the path ends at the first colon; a tag has",
            ),
            ("docker-archive:", "`docker-archive:` has a bad path", "name a file or folder"),
            (
                "docker-archive:x:name",
                "`docker-archive:x:name` has a bad name, `name`",
                "the path ends at the first colon; write",
            ),
            (
                "docker-archive:x:A:v1",
                "`docker-archive:x:A:v1` has a bad name, `A:v1`",
                "the path ends at the first colon; write",
            ),
            ("docker-archive:x:a//b:v1", "`docker-archive:x:a//b:v1` has a bad name, `a//b:v1`", ""),
            ("docker-archive:x:A/b:v1", "`docker-archive:x:A/b:v1` has a bad name, `A/b:v1`", ""),
            (
                "docker-archive:x:host:port/b:v1",
                "`docker-archive:x:host:port/b:v1` has a bad name, `host:port/b:v1`",
                "",
            ),
            ("dir:", "`dir:` has a bad path", "name a file or folder"),
            ("tar:", "`tar:` has a bad path", "name a file or folder"),
            ("containers-storage:x", "`containers-storage:x` has a bad name, `x`", "write `NAME:TAG` in small letters"),
            ("containers-storage:", "`containers-storage:` has a bad name, ``", "write `NAME:TAG` in small letters"),
            ("docker-daemon:X:1", "`docker-daemon:X:1` has a bad name, `X:1`", "write `NAME:TAG` in small letters"),
            ("docker-daemon:--all:1", "`docker-daemon:--all:1` has a bad name, `--all:1`", ""),
        ] {
            let error = text.parse::<Destination>().expect_err(text);
            assert_eq!(error.to_string(), message);
            assert!(error.hint().starts_with(hint), "{text}: {}", error.hint());
        }
    }
}
