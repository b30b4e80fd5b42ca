//! Artifacts: files with a manifest over them that says what they are, and no image. Rules: docs/formats/artifact.md.
//!
//! Not here: which artifacts the store knows by name (`artifact_record`), and what one is made of by name (`artifact_outline`).

use std::collections::BTreeSet;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_config::{Artifact as ArtifactTarget, ArtifactFile, ArtifactSource, Label, TargetKind};
use cas_digest::DigestFunction;
use cas_oci::{
    ArtifactBlob, ArtifactManifest, EMPTY_CONTENT, LayerKind, MANIFEST_MEDIA_TYPE, TITLE_ANNOTATION, encode_artifact,
};
use cas_snapshot::Picked;
use cas_store::{Store, StoreError};
use cas_tar::Codec;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::builder::Shared;
use crate::export::keep_whole;
use crate::graph::{Graph, TargetId};
use crate::inputs::{Sources, in_package};
use crate::layer::LayerError;
use crate::part::{package_of, without};
use crate::stamp::Told;
use crate::{Artifact, ArtifactPart, BuildError, Builder, Files, Output, Taints, artifact_record, image, layer, stamp};

/// What a file is of which nothing is said.
const FILE_MEDIA_TYPE: &str = "application/octet-stream";
/// What a folder is of which nothing is said.
const FOLDER_MEDIA_TYPE: &str = LayerKind::Gzip.media_type();
/// When it was made (OCI image-spec 1.1, annotations.md).
const CREATED: &str = "org.opencontainers.image.created";
/// What ORAS knows a packed folder by: that it is to be unpacked, and the digest of the tar.
const UNPACK: &str = "io.deis.oras.content.unpack";
const UNPACKED_DIGEST: &str = "io.deis.oras.content.digest";
/// What targets become here.
const FILE_ROLE: &str = "a file of an artifact";
const SUBJECT_ROLE: &str = "the subject of an artifact";

/// What a source is, once it is there.
struct Found {
    /// Its own name.
    name: Vec<u8>,
    content: Content,
}

enum Content {
    File(Descriptor),
    Folder(Directory),
}

/// Fails when what an artifact names can be no part of it, before anything is built.
pub(crate) fn check_roles(graph: &Graph<'_>, target: TargetId, artifact: &ArtifactTarget) -> Result<(), BuildError> {
    let named = &graph.needs(target).named;
    let file_count = named.len() - usize::from(artifact.subject.is_some());
    for (position, need) in named.iter().enumerate() {
        let kind = &graph.target(*need).kind;
        let (is_fine, role) = match kind {
            TargetKind::Image(_) | TargetKind::Artifact(_) => (position >= file_count, FILE_ROLE),
            TargetKind::Command(_) | TargetKind::Fetch(_) | TargetKind::Npm(_) => (position < file_count, SUBJECT_ROLE),
            _ => (false, if position < file_count { FILE_ROLE } else { SUBJECT_ROLE }),
        };
        if !is_fine {
            return Err(BuildError::Role { label: graph.label(*need).to_string(), kind: kind.name(), role });
        }
    }
    Ok(())
}

/// The files of a package at or below a path of it.
pub(crate) fn own_picked(
    sources: &Sources<'_>,
    package: Option<&RelPath>,
    path: &RelPath,
    exclude: &[String],
) -> Result<Picked, BuildError> {
    let mut pattern = String::new();
    for character in path.to_string().chars() {
        if r"*?[]{}!\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    sources.own_picked(package, &[pattern], exclude)
}

/// Where in the outputs of a step a file of an artifact is: what is said, else the only one that there is.
pub(crate) fn place_of(from: &str, files: &Files, path: Option<&RelPath>) -> Result<RelPath, BuildError> {
    let package = package_of(from);
    match (path, &files.paths[..]) {
        (Some(path), _) => Ok(in_package(package.as_ref(), path)),
        (None, [only]) => Ok(only.clone()),
        (None, several) => {
            let below = package.map_or_else(String::new, |package| format!("{package}/"));
            let own = |path: &RelPath| {
                let path = path.to_string();
                path.strip_prefix(&below).map_or(path.clone(), str::to_owned)
            };
            Err(BuildError::WhichOutput { label: from.to_owned(), known: several.iter().map(own).collect() })
        }
    }
}

impl Builder<'_> {
    /// Builds an artifact.
    pub(crate) fn artifact(
        &self,
        target: TargetId,
        artifact: &ArtifactTarget,
        shared: &Shared<'_>,
    ) -> Result<Artifact, BuildError> {
        let (store, label) = (self.store, shared.graph.label(target));
        let outputs: Vec<(String, Output)> =
            shared.graph.needs(target).named.iter().map(|need| shared.output(*need)).collect();
        let taints = Taints::of(outputs.iter().map(|(_, output)| output));
        // In the order of the section: files, configuration, subject.
        let mut outputs = outputs.iter();
        let mut found = Vec::new();
        for source in artifact.sources() {
            found.push(match source {
                ArtifactSource::Outputs { path, exclude, .. } => {
                    let (from, output) = outputs.next().expect("each has a need");
                    of_output(store, from, output, path.as_ref(), exclude)?
                }
                ArtifactSource::Own { path, exclude } => {
                    let sources = self.sources(shared);
                    let package = label.package.as_ref();
                    let files = sources.kept(&own_picked(&sources, package, path, exclude)?)?;
                    at(&label.to_string(), &files, &in_package(package, path))?
                }
            });
        }
        let mut found = found.into_iter();
        let (mut blobs, mut parts, mut titles) = (Vec::new(), Vec::new(), BTreeSet::new());
        for file in &artifact.files {
            let found = found.next().expect("each file has a source");
            let title = title_of(label, file, &found.name)?;
            if !titles.insert(title.clone()) {
                return Err(BuildError::TwoTitles { label: label.to_string(), title: title.to_string() });
            }
            let (blob, part) = self.artifact_file(label, file, &title, found.content)?;
            blobs.push(blob);
            parts.push(part);
        }
        let empty = ArtifactBlob::empty();
        let config = match &artifact.config {
            None => empty.clone(),
            Some(config) => {
                let Found { name, content } = found.next().expect("it has a source");
                let Content::File(blob) = content else {
                    let path = String::from_utf8_lossy(&name).into_owned();
                    let (label, wanted) = (label.to_string(), "the configuration of an artifact is a file");
                    return Err(BuildError::ArtifactFile { label, path, is: "a folder", wanted });
                };
                let annotations = empty.annotations.clone();
                ArtifactBlob { media_type: config.media_type.clone(), blob: by_sha256(store, &blob)?, annotations }
            }
        };
        if config == empty || blobs.is_empty() {
            store.put_bytes(DigestFunction::Sha256, EMPTY_CONTENT)?;
        }
        if blobs.is_empty() {
            parts.push(ArtifactPart::File(empty.blob));
        }
        let subject = match artifact.subject.as_ref().and_then(|_| outputs.next()) {
            None => None,
            Some((_, Output::Image(image))) => Some((image.media_type(), *image.document())),
            Some((_, Output::Artifact(other))) => Some((MANIFEST_MEDIA_TYPE, other.manifest)),
            Some((from, output)) => {
                return Err(BuildError::Role { label: from.clone(), kind: output.kind(), role: SUBJECT_ROLE });
            }
        };
        let mut annotations = artifact.annotations.clone();
        let Told { labels, created } = stamp::told(self.workspace, &self.variables, label, &artifact.stamp)?;
        annotations.extend(labels);
        annotations.extend(created.map(|created| (CREATED.to_owned(), created)));
        let (artifact_type, annotations) = (&*artifact.artifact_type, &annotations);
        let manifest = ArtifactManifest { artifact_type, config: &config, files: &blobs, subject, annotations };
        let manifest = encode_artifact(&manifest);
        let made = Artifact {
            reference: label.to_string(),
            artifact_type: artifact_type.to_owned(),
            manifest: image::put_document(store, "manifest", &label.to_string(), &manifest)?,
            config: config.blob,
            parts,
            taints,
        };
        artifact_record::put(store, &made)?;
        Ok(made)
    }

    /// A file as the manifest names it and as the store has it; a folder is packed below its title.
    fn artifact_file(
        &self,
        label: &Label,
        file: &ArtifactFile,
        title: &RelPath,
        content: Content,
    ) -> Result<(ArtifactBlob, ArtifactPart), BuildError> {
        let store = self.store;
        let mut annotations = file.annotations.clone();
        annotations.insert(TITLE_ANNOTATION.to_owned(), title.to_string());
        let media_type = |usual: &str| file.media_type.clone().unwrap_or_else(|| usual.to_owned());
        match content {
            Content::File(blob) => {
                let blob = by_sha256(store, &blob)?;
                let named = ArtifactBlob { media_type: media_type(FILE_MEDIA_TYPE), blob, annotations };
                Ok((named, ArtifactPart::File(blob)))
            }
            Content::Folder(folder) => {
                let mut tree = Directory::root();
                let placed = tree.graft(title, folder, &Metadata::root_owned(0o755));
                placed.map_err(|source| BuildError::Place { source })?;
                let name = tree.encode(self.workspace.section.digest_function).map_err(StoreError::from)?.root;
                let tree = Arc::new(tree);
                let place = format!("{label} {title}");
                let packed = layer::build(store, &|| Ok(Arc::clone(&tree)), &name, Codec::Gzip6, &place, 1);
                let (recipe_name, recipe) = packed.map_err(|error| match error {
                    LayerError::Build(error) => error,
                    LayerError::Entry(source) => {
                        BuildError::Pack { label: label.to_string(), source: Box::new(source) }
                    }
                })?;
                annotations.insert(UNPACKED_DIGEST.to_owned(), recipe.tar.digest.to_string());
                annotations.insert(UNPACK.to_owned(), "true".to_owned());
                let blob = recipe.blob;
                let named = ArtifactBlob { media_type: media_type(FOLDER_MEDIA_TYPE), blob, annotations };
                Ok((named, ArtifactPart::Folder { recipe: recipe_name, tree: name }))
            }
        }
    }
}

/// What a file is called: as it is said, else by its own name.
fn title_of(label: &Label, file: &ArtifactFile, name: &[u8]) -> Result<RelPath, BuildError> {
    if let Some(title) = &file.title {
        return Ok(title.clone());
    }
    let text = std::str::from_utf8(name).ok().filter(|name| !name.chars().any(char::is_control));
    text.and_then(|name| RelPath::new(name).ok())
        .ok_or_else(|| BuildError::NoTitle { label: label.to_string(), name: name.escape_ascii().to_string() })
}

/// The name of a blob by SHA-256, under which the store has it as well.
fn by_sha256(store: &Store, blob: &Descriptor) -> Result<Descriptor, StoreError> {
    if blob.size == 0 {
        return Ok(Descriptor::empty(DigestFunction::Sha256));
    }
    let name = store.name_with(DigestFunction::Sha256, blob)?;
    // What is known of a blob outlives it, and it may be here again.
    store.add_name(&name, blob)?;
    Ok(name)
}

/// What an output gives to an artifact, or a part of it.
fn of_output(
    store: &Store,
    from: &str,
    output: &Output,
    path: Option<&RelPath>,
    exclude: &[String],
) -> Result<Found, BuildError> {
    let whole = |name: &str, blob: &Descriptor| match path {
        None => Ok(Found { name: name.as_bytes().to_vec(), content: Content::File(*blob) }),
        Some(path) => Err(BuildError::NoSuchOutput { label: from.to_owned(), path: path.to_string() }),
    };
    match output {
        Output::Download(download) => whole(&download.file_name, &download.blob),
        Output::Tarball(tarball) => {
            keep_whole(store, &tarball.recipe)?;
            whole(&tarball.file_name, &tarball.recipe.blob)
        }
        Output::Files(files) => {
            let tree = without(files.tree(store)?, package_of(from).as_ref(), exclude)?;
            at(from, &tree, &place_of(from, files, path)?)
        }
        Output::Package(package) => match path {
            Some(path) => at(from, &without(&package.tree, None, exclude)?, path),
            None => {
                let name = from.rsplit_once(':').map_or(from, |(_, name)| name);
                Ok(Found {
                    name: name.as_bytes().to_vec(),
                    content: Content::Folder(without(&package.tree, None, exclude)?),
                })
            }
        },
        Output::Toolchain(_) | Output::Image(_) | Output::Artifact(_) | Output::Packages(_) | Output::Crates(_) => {
            Err(BuildError::Role { label: from.to_owned(), kind: output.kind(), role: FILE_ROLE })
        }
    }
}

/// What is at a path of a tree.
fn at(from: &str, tree: &Directory, path: &RelPath) -> Result<Found, BuildError> {
    let name = path.name().as_bytes().to_vec();
    let node = tree.get(path);
    let node = node.ok_or_else(|| BuildError::NoSuchOutput { label: from.to_owned(), path: path.to_string() })?;
    if let Node::Directory(_) = node {
        let folder = tree.subtree(path).expect("it is a directory");
        return Ok(Found { name, content: Content::Folder(folder) });
    }
    let (_, blob) = tree.file_of(node).ok_or_else(|| BuildError::ArtifactFile {
        label: from.to_owned(),
        path: path.to_string(),
        is: "a symbolic link",
        wanted: "an artifact is of files and folders",
    })?;
    Ok(Found { name, content: Content::File(blob) })
}
