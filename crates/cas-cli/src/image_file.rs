//! Files that tell whoever comes after a build what images and artifacts it made: `--metadata-file` and `--iidfile`.
//!
//! Names of fields are those of BuildKit's `--metadata-file` (moby/buildkit `exporter/containerimage/exptypes`), by label as in bake's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cas_build::{Artifact, Image, Output, Workspace, try_file, write_file};
use cas_config::{Label, TargetKind};
use cas_digest::Digest;
use cas_oci::MANIFEST_MEDIA_TYPE;
use serde_json::{Value, json};

use crate::args::Global;
use crate::commands::in_here;
use crate::render::Failure;

/// Which of them are wanted.
#[derive(Debug, Default)]
pub(crate) struct ImageFiles {
    /// What is told of all.
    pub(crate) metadata: Option<PathBuf>,
    /// The digest of the configuration of the only one; of an artifact that of the manifest.
    pub(crate) id: Option<PathBuf>,
}

impl ImageFiles {
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.metadata.iter().chain(&self.id)
    }

    /// Refuses, before anything is built, what could not be told.
    pub(crate) fn check(&self, global: &Global, workspace: &Workspace, labels: &[Label]) -> Result<(), Failure> {
        self.paths().try_for_each(|path| try_file(&in_here(global, path)))?;
        if self.id.is_none() {
            return Ok(());
        }
        let image = |label: &Label| match &workspace.target(label)?.kind {
            TargetKind::Image(image) => Some((label.clone(), image.platforms.len())),
            TargetKind::Artifact(_) => Some((label.clone(), 1)),
            _ => None,
        };
        let images: Vec<(Label, usize)> = labels.iter().filter_map(image).collect();
        match &images[..] {
            [(label, platform_count)] if *platform_count > 1 => Err(Failure::Usable(
                format!("`{label}` is for {platform_count} platforms, and `--iidfile` is for one"),
                "use `--metadata-file`".to_owned(),
            )),
            [_] => Ok(()),
            others => Err(Failure::Usable(
                format!("`--iidfile` is for one image, and these targets have {}", others.len()),
                "name one, or use `--metadata-file`".to_owned(),
            )),
        }
    }

    /// Writes them; each is replaced at once.
    pub(crate) fn write(&self, global: &Global, outputs: &BTreeMap<Label, Output>) -> Result<(), Failure> {
        let told = outputs.iter().filter_map(|(label, output)| match output {
            Output::Image(image) => Some((label, metadata(image), image.config.digest)),
            // Configurations of artifacts are all alike, so the manifest names one.
            Output::Artifact(artifact) => Some((label, artifact_metadata(artifact), artifact.manifest.digest)),
            _ => None,
        });
        let told: Vec<(&Label, Value, Digest)> = told.collect();
        if let Some(path) = &self.metadata {
            let all: serde_json::Map<String, Value> =
                told.iter().map(|(label, metadata, _)| (label.to_string(), metadata.clone())).collect();
            let text = serde_json::to_string_pretty(&all).expect("a value always has JSON");
            write_file(&in_here(global, path), format!("{text}\n").as_bytes())?;
        }
        if let (Some(path), [(_, _, id)]) = (&self.id, &told[..]) {
            write_file(&in_here(global, path), id.to_string().as_bytes())?;
        }
        Ok(())
    }
}

fn metadata(image: &Image) -> Value {
    let document = image.document();
    let mut told = json!({
        "containerimage.descriptor": {
            "mediaType": image.media_type(),
            "digest": document.digest.to_string(),
            "size": document.size,
        },
        "containerimage.digest": document.digest.to_string(),
        "image.name": image.reference,
        "platforms": platforms(image),
    });
    // Of several platforms each has its own.
    if image.index.is_none() {
        told["containerimage.config.digest"] = json!(image.config.digest.to_string());
        told["containerimage.descriptor"]["platform"] = platform(image);
    }
    told
}

fn artifact_metadata(artifact: &Artifact) -> Value {
    json!({
        "containerimage.descriptor": {
            "mediaType": MANIFEST_MEDIA_TYPE,
            "digest": artifact.manifest.digest.to_string(),
            "size": artifact.manifest.size,
            "artifactType": artifact.artifact_type,
        },
        "containerimage.digest": artifact.manifest.digest.to_string(),
        "containerimage.config.digest": artifact.config.digest.to_string(),
        "image.name": artifact.reference,
    })
}

fn platform(image: &Image) -> Value {
    let mut told = json!({ "architecture": image.platform.architecture, "os": image.platform.os });
    if !image.platform.variant.is_empty() {
        told["variant"] = json!(image.platform.variant);
    }
    told
}

/// What rows of results tell of an image.
pub(crate) fn describe(image: &Image, row: &mut Value) {
    row["digest"] = json!(image.document().digest.to_string());
    row["layers"] = json!(image.layers.len());
    if image.index.is_some() {
        row["platforms"] = platforms(image);
    }
}

/// What rows of results tell of an artifact.
pub(crate) fn describe_artifact(artifact: &Artifact, row: &mut Value) {
    row["digest"] = json!(artifact.manifest.digest.to_string());
    row["artifact_type"] = json!(artifact.artifact_type);
    row["layers"] = json!(artifact.parts.len());
}

/// What an image is for, in its order.
fn platforms(image: &Image) -> Value {
    image
        .all_platforms()
        .map(|image| {
            json!({
                "platform": image.platform.to_string(),
                "digest": image.manifest.digest.to_string(),
                "size": image.manifest.size,
                "config": image.config.digest.to_string(),
            })
        })
        .collect()
}
