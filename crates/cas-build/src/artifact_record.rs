//! Artifacts that the store knows by name.
//!
//! An artifact's record is a memo of kind `artifact`, keyed by its name: lines `manifest D`, `type MEDIATYPE`, `config D`, those of
//! an image's record for what it was made with, and for each file in its order `file D` or, where it is a folder, `folder RECIPE
//! TREE`. All documents are blobs.

use std::sync::Arc;

use cas_blob::Descriptor;
use cas_store::Store;

use crate::image_record::{read_taint, taint_lines};
use crate::{Artifact, ArtifactPart, BuildError, Taints};

/// The kind of its memo.
pub(crate) const ARTIFACT_MEMO: &str = "artifact";

/// Puts an artifact into the store under its name.
pub(crate) fn put(store: &Store, artifact: &Artifact) -> Result<(), BuildError> {
    Ok(store.put_memo(ARTIFACT_MEMO, artifact.reference.as_bytes(), encode(artifact).as_bytes())?)
}

fn encode(artifact: &Artifact) -> String {
    let Artifact { reference: _, artifact_type, manifest, config, parts, taints } = artifact;
    let mut text = format!("manifest {manifest}\ntype {artifact_type}\nconfig {config}\n");
    text.push_str(&taint_lines(taints));
    for part in parts {
        text.push_str(&match part {
            ArtifactPart::File(blob) => format!("file {blob}\n"),
            ArtifactPart::Folder { recipe, tree } => format!("folder {recipe} {tree}\n"),
        });
    }
    text
}

/// The artifact that a record tells of.
pub(crate) fn decode(reference: &str, record: &[u8]) -> Option<Artifact> {
    let mut lines = std::str::from_utf8(record).ok()?.lines();
    let manifest: Descriptor = lines.next()?.strip_prefix("manifest ")?.parse().ok()?;
    let artifact_type = lines.next()?.strip_prefix("type ")?.to_owned();
    let config: Descriptor = lines.next()?.strip_prefix("config ")?.parse().ok()?;
    let (mut parts, mut taints) = (Vec::new(), Taints::default());
    for line in lines {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "file" => parts.push(ArtifactPart::File(rest.parse().ok()?)),
            "folder" => {
                let (recipe, tree) = rest.split_once(' ')?;
                parts.push(ArtifactPart::Folder { recipe: recipe.parse().ok()?, tree: tree.parse().ok()? });
            }
            word => read_taint(word, rest, &mut taints)?,
        }
    }
    Some(Artifact { reference: reference.to_owned(), artifact_type, manifest, config, parts, taints })
}

/// The artifact of this name in the store, a full label.
///
/// # Errors
///
/// [`BuildError::UnknownImage`], and what the store says.
pub fn find_artifact(store: &Store, name: &str) -> Result<Arc<Artifact>, BuildError> {
    let record = store.memo(ARTIFACT_MEMO, name.as_bytes())?;
    let artifact = record.and_then(|record| decode(name, &record));
    artifact.map(Arc::new).ok_or_else(|| BuildError::UnknownImage { name: name.to_owned() })
}

/// The artifacts in the store, by name.
///
/// # Errors
///
/// What the store says.
pub fn list_artifacts(store: &Store) -> Result<Vec<Artifact>, BuildError> {
    let records = store.memos(ARTIFACT_MEMO)?;
    // A record that makes no sense names no artifact.
    Ok(records.iter().filter_map(|(name, record)| decode(std::str::from_utf8(name).ok()?, record)).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let of = |text: &str| Descriptor::of(DigestFunction::Sha256, text.as_bytes());
        let taints = Taints {
            hosts: BTreeSet::from(["//:host".to_owned()]),
            incremental: BTreeSet::from(["//a:b".to_owned()]),
            sandboxes: BTreeSet::from(["none".to_owned()]),
        };
        let artifact = Artifact {
            reference: "//:x".to_owned(),
            artifact_type: "application/vnd.x".to_owned(),
            manifest: of("m"),
            config: of("c"),
            parts: vec![ArtifactPart::File(of("f")), ArtifactPart::Folder { recipe: of("r"), tree: of("t") }],
            taints,
        };
        let record = encode(&artifact);
        assert_eq!(decode("//:x", record.as_bytes()), Some(artifact));
        assert_eq!(decode("//:x", &record.as_bytes()[..record.len() - 4]), None);
        assert_eq!(decode("//:x", format!("{record}layer x\n").as_bytes()), None);
        assert_eq!(decode("//:x", b"manifest x\n"), None);
    }
}
