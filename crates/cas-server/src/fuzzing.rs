//! Decoders of what strangers send, for tests with damaged input (`tests/fuzz`). Not an interface.

use crate::manifest::Manifest;
use crate::range;
use crate::route::Route;

/// Reads a path with its query, a range and the range of a piece, each on a line.
pub fn request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n');
    let target = lines.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if let Ok(Route::Blob { name, .. } | Route::Upload { name, .. } | Route::Tags { name, .. }) =
        Route::parse(path, query)
    {
        assert!(!name.contains("..") && !name.starts_with('/'), "{name:?}");
    }
    let header = lines.next().unwrap_or_default();
    if let range::Wanted::Part(first, last) = range::wanted(Some(header), 1000) {
        assert!(first <= last && last < 1000, "{header:?}");
    }
    let _ = range::piece(lines.next().unwrap_or_default());
}

/// Reads a manifest.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes, Some(cas_oci::MANIFEST_MEDIA_TYPE)) {
        let blob = cas_blob::Descriptor::of(cas_digest::DigestFunction::Sha256, bytes);
        assert!(serde_json::from_str::<serde_json::Value>(&manifest.descriptor(&blob)).is_ok());
    }
}
