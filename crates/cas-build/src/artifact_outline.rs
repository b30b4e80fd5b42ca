//! What artifacts are made of, by name, with nothing built.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_config::{Artifact as ArtifactTarget, ArtifactSource, Label};
use cas_store::StoreError;
use cas_tree::RelPath;

use crate::artifact::{own_picked, place_of};
use crate::builder::Shared;
use crate::graph::TargetId;
use crate::outline::{Found, name_of, stand_in, whole_name};
use crate::part::{package_of, without};
use crate::trace::Trace;
use crate::{Artifact, BuildError, Builder, Output, Taints, stamp};

impl Builder<'_> {
    /// What an artifact would be made of.
    pub(crate) fn outlined_artifact(
        &self,
        target: TargetId,
        artifact: &ArtifactTarget,
        shared: &Shared<'_>,
    ) -> Result<Found, BuildError> {
        let label = shared.graph.label(target);
        let mut words = Trace::default();
        words.add("type", "", &artifact.artifact_type);
        words.add("annotations", "", format!("{:?}", artifact.annotations));
        if !artifact.stamp.is_empty() {
            words.extend(stamp::words(&self.sources(shared), &self.variables, label, &artifact.stamp)?);
        }
        let said = artifact.files.iter().map(|file| {
            let title = file.title.as_ref().map(ToString::to_string);
            format!("{:?} {title:?} {:?}", file.media_type, file.annotations)
        });
        let said = said.chain(artifact.config.iter().map(|config| config.media_type.clone()));
        let mut outputs = shared.graph.needs(target).named.iter().map(|need| shared.output(*need));
        let mut taints = Taints::default();
        // One target may give several files.
        let mut parts: BTreeMap<String, String> = BTreeMap::new();
        for (index, (source, said)) in artifact.sources().zip(said).enumerate() {
            let (kind, which) = match index < artifact.files.len() {
                true => ("files", index.to_string()),
                false => ("config", String::new()),
            };
            let ((from, output), path) = match source {
                ArtifactSource::Own { path, exclude } => {
                    let sources = self.sources(shared);
                    let picked = own_picked(&sources, label.package.as_ref(), path, exclude)?;
                    words.add(kind, which, format!("own {path} {said}{}", without_words(exclude)));
                    words.add_files(sources.snapshot.listing(&picked)?);
                    continue;
                }
                ArtifactSource::Outputs { path, exclude, .. } => {
                    (outputs.next().expect("each has a need"), (path, exclude))
                }
            };
            let (path, exclude) = path;
            taints.extend(&Taints::of([&output]));
            let shown = path.as_ref().map_or_else(String::new, ToString::to_string);
            words.add(kind, which, format!("{from} {shown} {said}{}", without_words(exclude)));
            let part = self.artifact_part(&from, &output, path.as_ref(), exclude)?;
            parts.entry(from).or_default().push_str(&format!("{part} "));
        }
        if let Some((from, output)) = artifact.subject.as_ref().and_then(|_| outputs.next()) {
            taints.extend(&Taints::of([&output]));
            words.add("subject", "", &from);
            parts.insert(from, whole_name(&output));
        }
        for (from, parts) in parts {
            words.add("dependency", from, parts);
        }
        let function = self.workspace.section.digest_function;
        let name = name_of(function, &words);
        let stands = Artifact { taints, ..no_artifact(label, stand_in(function, "artifact", &name.to_string())) };
        Ok(Found { output: Output::Artifact(Arc::new(stands)), name, words, is_known: true })
    }

    /// Names the part of an output that an artifact takes, or all of it where nobody has it.
    fn artifact_part(
        &self,
        from: &str,
        output: &Output,
        path: Option<&RelPath>,
        exclude: &[String],
    ) -> Result<String, BuildError> {
        let Output::Files(files) = output else { return Ok(whole_name(output)) };
        let tree = files.tree(self.store)?;
        if tree.is_empty() {
            return Ok(whole_name(output));
        }
        let place = place_of(from, files, path)?;
        let tree = &without(tree, package_of(from).as_ref(), exclude)?;
        let function = self.workspace.section.digest_function;
        if let Some(folder) = tree.subtree(&place) {
            return Ok(folder.encode(function).map_err(StoreError::from)?.root.to_string());
        }
        // Of something else whoever builds it is told.
        Ok(tree.get_file(&place).map_or_else(|| whole_name(output), |(_, blob)| blob.to_string()))
    }
}

/// What is told of globs of what is left out, where there are some.
fn without_words(exclude: &[String]) -> String {
    if exclude.is_empty() { String::new() } else { format!(" without {exclude:?}") }
}

/// An artifact that is a name and nothing else.
pub(crate) fn no_artifact(label: &Label, name: Descriptor) -> Artifact {
    Artifact {
        reference: label.to_string(),
        artifact_type: String::new(),
        manifest: name,
        config: name,
        parts: Vec::new(),
        taints: Taints::default(),
    }
}
