//! What a rebuild needs, beside an image: attached. Rules: docs/formats/inputs.md.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cas_attest::Provenance;
use cas_blob::{Descriptor, OpenBlob};
use cas_build::{PackedInputs, pack_inputs};
use cas_oci::{INPUTS_ARTIFACT_TYPE, INPUTS_CONFIG_MEDIA_TYPE, PACK_MEDIA_TYPE};
use cas_registry::Content;
use cas_store::Store;
use cas_sync::{Attachable, Attachment, ShippedBlob};

use crate::render::{self, Failure};

/// What is attached to an image, so that it can be built again where this store is not.
pub(crate) fn attachment(
    store: &Arc<Store>,
    provenance: &Provenance,
    image: &Attachable,
) -> Result<Attachment, Failure> {
    let PackedInputs { config, packs, blob_count } = pack_inputs(store, provenance)?;
    let bytes: u64 = packs.iter().map(|pack| pack.size).sum();
    let (blobs, packed) = (render::counted(blob_count as u64, "blob"), render::counted(packs.len() as u64, "pack"));
    render::note(&format!("{}: {blobs} of inputs in {packed} ({bytes} bytes)", provenance.target));
    let layers = packs.into_iter().map(|pack| (PACK_MEDIA_TYPE.to_owned(), stored(store, pack))).collect();
    let config = (INPUTS_CONFIG_MEDIA_TYPE, stored(store, config));
    Ok(Attachment::new(image, INPUTS_ARTIFACT_TYPE, config, layers, BTreeMap::new()))
}

fn stored(store: &Arc<Store>, blob: Descriptor) -> ShippedBlob {
    let store = Arc::clone(store);
    let content: Content = Arc::new(move |sink| {
        let mut source = store.open_blob(&blob).map_err(io::Error::other)?;
        io::copy(&mut source, sink).map(drop)
    });
    ShippedBlob { blob, content, source: None }
}
