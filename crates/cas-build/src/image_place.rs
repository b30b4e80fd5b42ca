//! Where images of others come from: registries, layouts on disk, and archives of both kinds that are about.
//!
//! An [`ImagePlace`] puts documents and blobs into the store, each compared with its name. Not here: what they mean (`foreign`),
//! and places without a layout (`image_loose`).

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cas_blob::{Descriptor, OpenBlob, VerifyError};
use cas_digest::{Digest, DigestFunction};
use cas_oci::{
    Document, ImageFormat, ImageSource, IndexItem, LayerKind, LayerReference, Links, MAX_DOCUMENT_BYTES, Reference,
    Repository, TargetPlatform, encode_manifest, parse_saved,
};
use cas_registry::{Body, Client, RegistryError};
use cas_store::{Store, StoreError};
use cas_tar::{Compression, ReadTarError, ReadTarLimits, decompress, read_tree};
use cas_tree::{Directory, Node, RelPath};
use tokio::runtime::Runtime;

use crate::export::keep_whole;
use crate::platforms::own;
use crate::{BuildError, Image, ImageLayer, layer};

/// Largest archive of images that is read.
const MAX_ARCHIVE_BYTES: u64 = 64 << 30;
/// Longest chain of links between files of an archive.
const MAX_LINKS: usize = 8;

/// ImageRegistries, for whoever does not wait in tasks.
#[derive(Debug)]
pub struct ImageRegistries {
    client: Client,
    runtime: OnceLock<Runtime>,
}

impl ImageRegistries {
    /// Asks registries with a client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client, runtime: OnceLock::new() }
    }

    fn runtime(&self) -> Result<&Runtime, BuildError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let made = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let made = made.map_err(BuildError::Runtime)?;
        Ok(self.runtime.get_or_init(|| made))
    }
}

/// An archive of the other kind than was told.
#[derive(Debug, thiserror::Error)]
#[error("it has no `{path}`")]
pub(crate) struct OtherArchive {
    /// What it would have.
    path: String,
    /// Where it is.
    pub(crate) place: String,
    /// The kind that it seems to be of.
    pub(crate) transport: &'static str,
}

/// Where an image is.
#[derive(Clone)]
pub(crate) enum ImagePlace {
    Registry(Arc<ImageRegistries>, Reference),
    Layout(PathBuf, Option<String>),
    Archive {
        file: PathBuf,
        tag: Option<String>,
        is_docker: bool,
    },
    /// A folder of skopeo's.
    Folder(PathBuf),
    /// Files alone, for a platform where one is told.
    Root(PathBuf, Option<TargetPlatform>),
    /// One that was built here.
    Built(Arc<Image>),
}

impl fmt::Debug for ImagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

impl ImagePlace {
    /// `folder` is that of the package that names the image.
    pub(crate) fn new(source: &ImageSource, folder: &Path, registries: &Arc<ImageRegistries>) -> Self {
        match source {
            ImageSource::Registry(reference) => Self::Registry(Arc::clone(registries), reference.clone()),
            ImageSource::Layout { path, tag } => Self::Layout(folder.join(path), tag.clone()),
            ImageSource::Archive { path, tag } => {
                Self::Archive { file: folder.join(path), tag: tag.clone(), is_docker: false }
            }
            ImageSource::DockerArchive { path, tag } => {
                Self::Archive { file: folder.join(path), tag: tag.clone(), is_docker: true }
            }
            ImageSource::Folder { path } => Self::Folder(folder.join(path)),
            ImageSource::Root { path, platform } => Self::Root(folder.join(path), platform.clone()),
        }
    }

    /// The same where somebody asks for a platform: files alone are for it, unless their name tells another one.
    pub(crate) fn for_platform(mut self, wanted: Option<&TargetPlatform>) -> Self {
        if let Self::Root(_, platform @ None) = &mut self {
            *platform = wanted.cloned();
        }
        self
    }

    /// What errors call it.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Registry(_, reference) => reference.to_string(),
            Self::Layout(folder, _) | Self::Folder(folder) => folder.display().to_string(),
            Self::Archive { file, .. } | Self::Root(file, _) => file.display().to_string(),
            Self::Built(image) => image.reference.clone(),
        }
    }

    /// The manifest or index that is asked for now; it is in the store afterwards.
    pub(crate) fn resolve(&self, store: &Store) -> Result<Descriptor, BuildError> {
        match self {
            Self::Registry(registries, Reference { repository, tag, digest }) => {
                let client = &registries.client;
                let fetched = registries.runtime()?.block_on(async {
                    match (digest, tag) {
                        (Some(digest), _) => client.document(repository, digest).await,
                        (None, Some(tag)) => client.resolve(repository, tag).await,
                        (None, None) => unreachable!("a name has one of them"),
                    }
                })?;
                store.put_expected(&mut &fetched.bytes[..], &fetched.blob)?;
                Ok(fetched.blob)
            }
            Self::Layout(folder, tag) => {
                let bytes = cas_fs::read_limited(&folder.join("index.json"), MAX_DOCUMENT_BYTES)?;
                let item = self.listed(&bytes, tag.as_deref())?;
                self.document(store, &item.blob)?;
                self.agrees(store, item)
            }
            Self::Archive { tag, is_docker: false, .. } => {
                let files = self.unpacked(store)?;
                let bytes = self.file(store, &files, "index.json")?;
                let item = self.listed(&bytes, tag.as_deref())?;
                self.small(&item.blob)?;
                self.take(store, &files, &item.blob)?;
                self.agrees(store, item)
            }
            Self::Folder(folder) => self.resolve_folder(store, folder),
            Self::Root(file, platform) => self.resolve_root(store, file, &platform.clone().unwrap_or_else(own)),
            Self::Built(image) => Ok(image.manifest),
            Self::Archive { tag, is_docker: true, .. } => {
                let files = self.unpacked(store)?;
                self.saved(store, &files, tag.as_deref())
            }
        }
    }

    /// What the index of a layout has without a tag; of other places nothing.
    pub(crate) fn untagged(&self, store: &Store) -> Result<Vec<Descriptor>, BuildError> {
        let bytes = match self {
            Self::Layout(folder, _) => cas_fs::read_limited(&folder.join("index.json"), MAX_DOCUMENT_BYTES)?,
            Self::Archive { is_docker: false, .. } => self.file(store, &self.unpacked(store)?, "index.json")?,
            _ => return Ok(Vec::new()),
        };
        match Document::parse(&bytes, Some(cas_oci::INDEX_MEDIA_TYPE)) {
            Ok(Document::Index(items)) => {
                Ok(items.into_iter().filter(|item| item.tag.is_none()).map(|item| item.blob).collect())
            }
            _ => Err(self.damaged("its `index.json` is no index".to_owned())),
        }
    }

    /// What a registry lists as referring to a document; of other places nothing.
    pub(crate) fn referring(&self, subject: &Digest) -> Result<Vec<Descriptor>, BuildError> {
        let Self::Registry(registries, Reference { repository, .. }) = self else { return Ok(Vec::new()) };
        let listed = registries.runtime()?.block_on(registries.client.referrers(repository, subject, None))?;
        Ok(listed.into_iter().map(|referrer| referrer.blob).collect())
    }

    /// Puts a document into the store, unless it is there.
    pub(crate) fn document(&self, store: &Store, blob: &Descriptor) -> Result<(), BuildError> {
        self.small(blob)?;
        match self {
            Self::Registry(registries, Reference { repository, .. }) if !store.contains(blob)? => {
                let fetched = registries.runtime()?.block_on(registries.client.document(repository, &blob.digest))?;
                let kept = store.put_expected(&mut &fetched.bytes[..], blob);
                kept.map(drop).map_err(|error| self.kept(blob, error))
            }
            _ => self.blob(store, blob),
        }
    }

    fn small(&self, document: &Descriptor) -> Result<(), BuildError> {
        match document.size > MAX_DOCUMENT_BYTES {
            true => Err(self.damaged(format!("`{}` is longer than {MAX_DOCUMENT_BYTES} bytes", document.digest))),
            false => Ok(()),
        }
    }

    /// A document of the store, which must be what the index says that it is.
    fn agrees(&self, store: &Store, item: IndexItem) -> Result<Descriptor, BuildError> {
        let bytes = store.load(&item.blob, MAX_DOCUMENT_BYTES)?;
        self.is_document(&bytes, Some(&*item.media_type).filter(|text| !text.is_empty()))?;
        Ok(item.blob)
    }

    /// Refuses what is neither an image nor an artifact. Whoever wants an image says so later.
    pub(crate) fn is_document(&self, bytes: &[u8], told: Option<&str>) -> Result<(), BuildError> {
        match Document::parse(bytes, told) {
            Ok(_) => Ok(()),
            Err(_) if Links::parse(bytes, told).is_ok_and(|links| links.artifact_type.is_some()) => Ok(()),
            Err(error) => Err(BuildError::Image { place: self.place(), source: Box::new(error) }),
        }
    }

    /// Puts a blob into the store, unless it is there.
    pub(crate) fn blob(&self, store: &Store, blob: &Descriptor) -> Result<(), BuildError> {
        if store.contains(blob)? {
            return Ok(());
        }
        match self {
            Self::Registry(registries, Reference { repository, .. }) => {
                self.pulled(store, registries, repository, blob)
            }
            Self::Layout(folder, _) => {
                let path = folder.join("blobs").join(blob.digest.function().to_string()).join(blob.digest.to_hex());
                let mut file = match cas_fs::open(&path) {
                    Ok(file) => file,
                    Err(error) if error.is_not_found() => return Err(self.gone(blob)),
                    Err(error) => return Err(error.into()),
                };
                store.put_expected(&mut file, blob).map(drop).map_err(|error| self.kept(blob, error))
            }
            Self::Folder(folder) => self.take_from_folder(store, folder, blob),
            Self::Root(..) => {
                // Its manifest is made from what it is now.
                self.resolve(store)?;
                if store.contains(blob)? { Ok(()) } else { Err(self.gone(blob)) }
            }
            Self::Built(image) => {
                for layer in &image.layers {
                    if let ImageLayer::Made { recipe, .. } = layer
                        && let Some(recipe) = layer::find(store, recipe)?
                        && recipe.blob == *blob
                    {
                        return keep_whole(store, &recipe);
                    }
                }
                // It is made again with the image.
                Err(StoreError::Missing(*blob).into())
            }
            Self::Archive { tag, is_docker, .. } => {
                let files = self.unpacked(store)?;
                if *is_docker {
                    // Its manifest is made from what is in there.
                    self.saved(store, &files, tag.as_deref())?;
                }
                self.take(store, &files, blob)
            }
        }
    }

    fn pulled(
        &self,
        store: &Store,
        registries: &ImageRegistries,
        repository: &Repository,
        blob: &Descriptor,
    ) -> Result<(), BuildError> {
        let runtime = registries.runtime()?;
        let body = runtime.block_on(registries.client.blob(repository, blob))?;
        let mut reader = Reading { runtime, body, chunk: Vec::new(), position: 0, failure: None };
        let result = store.put_expected(&mut reader, blob);
        match (result, reader.failure) {
            (Ok(_), _) => Ok(()),
            (Err(_), Some(failure)) => Err(failure.into()),
            (Err(error), None) => Err(self.kept(blob, error)),
        }
    }

    /// The files of an archive; their contents are in the store, named by SHA-256.
    fn unpacked(&self, store: &Store) -> Result<Directory, BuildError> {
        let Self::Archive { file: path, .. } = self else { unreachable!("others have no files") };
        let mut head = Vec::new();
        let mut file = BufReader::new(cas_fs::open(path)?);
        let failed = |error: io::Error| self.damaged(error.to_string());
        (&mut file).take(6).read_to_end(&mut head).map_err(failed)?;
        let whole = io::Cursor::new(head.clone()).chain(file);
        let mut tar = decompress(whole, Compression::detect(&head), MAX_ARCHIVE_BYTES).map_err(failed)?;
        let limits = ReadTarLimits { content_bytes: MAX_ARCHIVE_BYTES };
        let keep = &mut |content: &mut dyn Read| store.put(DigestFunction::Sha256, content);
        read_tree(&mut tar, limits, keep).map_err(|error| match error {
            // The archive is in order; the store is full, or fails.
            ReadTarError::Keep { path, source } if !matches!(source, StoreError::Source(_)) => {
                BuildError::Keep { path: format!("{path} of {}", self.place()), source }
            }
            error => BuildError::Image { place: self.place(), source: Box::new(error) },
        })
    }

    /// The name of a file of an archive; links between files are followed.
    fn find(files: &Directory, path: &str) -> Option<Descriptor> {
        let mut path = RelPath::new(path).ok()?;
        for _ in 0..MAX_LINKS {
            match files.get(&path)? {
                Node::Symlink { target, .. } => {
                    let mut parts: Vec<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
                    parts.pop();
                    for part in target.split(|byte| *byte == b'/') {
                        match part {
                            b"" | b"." => {}
                            b".." => drop(parts.pop()),
                            part => parts.push(part.to_vec()),
                        }
                    }
                    path = RelPath::new(parts.join(&b'/')).ok()?;
                }
                node => return files.file_of(node).map(|(_, blob)| blob),
            }
        }
        None
    }

    fn file(&self, store: &Store, files: &Directory, path: &str) -> Result<Vec<u8>, BuildError> {
        let blob = Self::find(files, path).ok_or_else(|| self.lacks(files, path))?;
        if blob.size > MAX_DOCUMENT_BYTES {
            return Err(self.damaged(format!("`{path}` is longer than {MAX_DOCUMENT_BYTES} bytes")));
        }
        Ok(store.load(&blob, MAX_DOCUMENT_BYTES)?)
    }

    /// What an archive is not read for that has no file of this name at its top: it may be of the other kind.
    fn lacks(&self, files: &Directory, path: &str) -> BuildError {
        let transport = match self {
            Self::Archive { is_docker: true, .. } if Self::find(files, "index.json").is_some() => "oci-archive",
            Self::Archive { is_docker: false, .. } if Self::find(files, "manifest.json").is_some() => "docker-archive",
            _ => return self.damaged(format!("it has no `{path}`")),
        };
        let other = OtherArchive { path: path.to_owned(), place: self.place(), transport };
        BuildError::Image { place: self.place(), source: Box::new(other) }
    }

    /// Puts a blob into the store that an archive of a layout has.
    fn take(&self, store: &Store, files: &Directory, blob: &Descriptor) -> Result<(), BuildError> {
        if store.contains(blob)? {
            return Ok(());
        }
        let path = format!("blobs/{}/{}", blob.digest.function(), blob.digest.to_hex());
        let found = Self::find(files, &path).ok_or_else(|| self.gone(blob))?;
        let mut file = open(store, &found)?;
        store.put_expected(&mut file, blob).map(drop).map_err(|error| self.kept(blob, error))
    }

    /// The manifest that an archive of `docker save` stands for.
    fn saved(&self, store: &Store, files: &Directory, tag: Option<&str>) -> Result<Descriptor, BuildError> {
        let images = parse_saved(&self.file(store, files, "manifest.json")?);
        let images = images.map_err(|error| BuildError::Image { place: self.place(), source: Box::new(error) })?;
        let has = |names: &[String], tag: &str| {
            names.iter().any(|name| name == tag || name.strip_prefix("docker.io/").is_some_and(|name| name == tag))
        };
        let known = || images.iter().flat_map(|image| image.repo_tags.iter().cloned()).collect::<Vec<_>>();
        let image = match (tag, &images[..]) {
            (None, [image]) => image,
            (None, _) => return Err(self.unclear(None, known())),
            (Some(tag), images) => {
                let found = images.iter().find(|image| has(&image.repo_tags, tag));
                found.ok_or_else(|| self.unclear(Some(tag), known()))?
            }
        };
        let missing = |path: &str| self.damaged(format!("it has no `{path}`"));
        let config = Self::find(files, &image.config).ok_or_else(|| missing(&image.config))?;
        let mut layers = Vec::new();
        for path in &image.layers {
            let blob = Self::find(files, path).ok_or_else(|| missing(path))?;
            let mut head = Vec::new();
            let read = open(store, &blob)?.take(6).read_to_end(&mut head);
            read.map_err(|error| self.damaged(error.to_string()))?;
            let kind = match Compression::detect(&head) {
                Compression::Gzip => LayerKind::Gzip,
                Compression::Zstd => LayerKind::Zstd,
                Compression::None | Compression::Xz => LayerKind::Plain,
            };
            let annotations = BTreeMap::new();
            layers.push(LayerReference { kind, blob, diff_id: blob.digest, created_by: String::new(), annotations });
        }
        let manifest = encode_manifest(ImageFormat::Oci, &config, &layers, &BTreeMap::new());
        Ok(store.put_bytes(DigestFunction::Sha256, &manifest.expect("OCI has a media type for each of these"))?)
    }

    /// The document of an index of a layout that is asked for.
    fn listed(&self, bytes: &[u8], tag: Option<&str>) -> Result<IndexItem, BuildError> {
        let document = Document::parse(bytes, Some(cas_oci::INDEX_MEDIA_TYPE));
        let items = match document {
            Ok(Document::Index(items)) => items,
            Ok(Document::Manifest(_)) => return Err(self.damaged("its `index.json` is no index".to_owned())),
            Err(error) => return Err(BuildError::Image { place: self.place(), source: Box::new(error) }),
        };
        let mut tagged = items.iter().filter(|item| item.tag.is_some());
        let found: Option<&IndexItem> = match (tag, &items[..]) {
            (None, [item]) => Some(item),
            // What has no tag beside one with a tag is about that, or nothing that is meant.
            (None, _) => tagged.next().filter(|_| tagged.next().is_none()),
            (Some(tag), items) => items.iter().find(|item| item.tag.as_deref() == Some(tag)),
        };
        let known = || items.iter().filter_map(|item| item.tag.clone()).collect();
        found.cloned().ok_or_else(|| self.unclear(tag, known()))
    }

    fn unclear(&self, tag: Option<&str>, known: Vec<String>) -> BuildError {
        BuildError::WhichImage { place: self.place(), tag: tag.map(str::to_owned), known }
    }

    pub(crate) fn gone(&self, blob: &Descriptor) -> BuildError {
        BuildError::ImageGone { place: self.place(), digest: blob.digest.to_string() }
    }

    pub(crate) fn damaged(&self, said: String) -> BuildError {
        BuildError::Image { place: self.place(), source: said.into() }
    }

    /// What a blob could not be kept for.
    pub(crate) fn kept(&self, blob: &Descriptor, error: StoreError) -> BuildError {
        match error {
            StoreError::Verify(VerifyError::Size { .. } | VerifyError::Digest { .. }) => {
                BuildError::Mismatch { url: format!("{} of {}", blob.digest, self.place()), source: error }
            }
            other => other.into(),
        }
    }
}

/// Reads a blob of the store.
pub(crate) fn open(store: &Store, blob: &Descriptor) -> Result<Box<dyn Read + Send>, BuildError> {
    Ok(store.open_blob(blob).map_err(StoreError::from)?)
}

/// A body on its way, for whoever reads.
struct Reading<'a> {
    runtime: &'a Runtime,
    body: Body<'a>,
    chunk: Vec<u8>,
    position: usize,
    /// Why it broke off.
    failure: Option<RegistryError>,
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.chunk.len() {
            match self.runtime.block_on(self.body.chunk()) {
                Ok(None) => return Ok(0),
                Ok(Some(chunk)) => {
                    self.chunk.clear();
                    self.chunk.extend_from_slice(chunk.as_ref());
                    self.position = 0;
                }
                Err(error) => {
                    self.failure = Some(error);
                    return Err(io::Error::other("the connection broke off"));
                }
            }
        }
        let rest = &self.chunk[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}
