//! What refers to what, as the registry of tests knows it.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::State;
use super::uploads::name;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The digest of what a document is about.
pub(super) fn subject(document: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(document).ok()?;
    Some(document.get("subject")?.get("digest")?.as_str()?.to_owned())
}

/// The list at `/v2/…/referrers/DIGEST`: its bytes, media type and further header line. `None` where none is kept.
pub(super) fn listed(state: &Mutex<State>, target: &str) -> Option<(Vec<u8>, String, Option<String>)> {
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if !state.manner.lists_referrers {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (repository, digest) = path.split_once("/referrers/")?;
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    let wanted = value("artifactType").map(|text| text.replace("%2F", "/").replace("%2B", "+"));
    let from: usize = value("last").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut items = Vec::new();
    let documents = state.documents.iter().filter(|_| !state.manner.empty_lists);
    for (place, (body, media_type)) in documents {
        let is_digest = place.starts_with(&format!("{repository}/manifests/sha256:"));
        if !is_digest || subject(body).as_deref() != Some(digest) {
            continue;
        }
        let document: Value = serde_json::from_slice(body).ok()?;
        if wanted.as_ref().is_some_and(|wanted| document["artifactType"] != json!(wanted)) {
            continue;
        }
        items.push(json!({
            "mediaType": media_type,
            "digest": name(body).to_string(),
            "size": body.len(),
            "artifactType": document["artifactType"],
            "annotations": document["annotations"],
        }));
    }
    let to = state.manner.referrers_page.map_or(items.len(), |page| items.len().min(from + page));
    let more = (to < items.len()).then(|| {
        let filter = value("artifactType").map(|text| format!("artifactType={text}&")).unwrap_or_default();
        format!("Link: <{path}?{filter}last={to}>; rel=\"next\"")
    });
    let page = items.get(from..to).unwrap_or_default();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": page });
    Some((index.to_string().into_bytes(), INDEX.to_owned(), more))
}
