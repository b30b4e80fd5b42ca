//! What a rebuild needs, beside an image: attached, and brought back. Rules: docs/formats/inputs.md.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cas_blob::{Descriptor, OpenBlob};
use cas_build::{Described, ImageRegistries, PackedInputs, Platforms, Pulled, pack_inputs, pull, unpack_inputs};
use cas_digest::DigestFunction;
use cas_oci::{INPUTS_ARTIFACT_TYPE, INPUTS_CONFIG_MEDIA_TYPE, PACK_MEDIA_TYPE, Reference};
use cas_registry::Content;
use cas_store::Store;
use cas_sync::{Attachable, Attachment, Attachments, ShippedBlob};

use crate::args::Global;
use crate::commands::{cancel_on_signals, here, logins};
use crate::image_convert::mirrors;
use crate::render::{self, Failure};

/// How many artifacts of inputs of one image are taken: whoever may write there may attach any number of them.
const MAX_ARTIFACTS: usize = 8;

/// What is attached to an image, so that it can be built again where this store is not.
pub(crate) fn attachment(store: &Arc<Store>, described: &Described, image: &Attachable) -> Result<Attachment, Failure> {
    let PackedInputs { config, packs, blob_count } = pack_inputs(store, described)?;
    let bytes: u64 = packs.iter().map(|pack| pack.size).sum();
    let (blobs, packed) = (render::counted(blob_count as u64, "blob"), render::counted(packs.len() as u64, "pack"));
    render::note(&format!("{}: {blobs} of inputs in {packed} ({bytes} bytes)", described.provenance.target));
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

/// Brings the inputs of images into the store.
pub(crate) fn bring(global: &Global, store: &Store, sources: &[Reference]) -> Result<(), Failure> {
    let (mirrors, function) = mirrors(global)?;
    let client = cas_registry::Client::new(logins(), mirrors.clone());
    let registries = Arc::new(ImageRegistries::new(client));
    for source in sources {
        let (subject, found) = {
            let signals = cancel_on_signals()?;
            let client = signals.client(logins(), mirrors.clone());
            let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
            let subject = attachments.find(source).map_err(Failure::Sync)?;
            let found = attachments.listed(&subject, INPUTS_ARTIFACT_TYPE).map_err(Failure::Sync)?;
            (subject, found)
        };
        if found.is_empty() {
            let hint = "`cas push --with-inputs` sends them, and `inputs = true` of a publication";
            let message = format!("nothing with the inputs of `{source}` refers to it");
            return Err(Failure::Usable(message, hint.to_owned()));
        }
        for digest in found.into_iter().take(MAX_ARTIFACTS) {
            let repository = subject.repository.clone();
            let artifact = Reference { repository, tag: None, digest: Some(digest) };
            unpack(global, store, function, &artifact, &registries)?;
        }
    }
    Ok(())
}

fn unpack(
    global: &Global,
    store: &Store,
    function: DigestFunction,
    artifact: &Reference,
    registries: &Arc<ImageRegistries>,
) -> Result<(), Failure> {
    let name = artifact.to_string();
    let pulled = pull(store, function, artifact, &here(global), registries, &Platforms::Own, &name)?;
    let Pulled::Artifact(pulled) = pulled else {
        let message = format!("`{name}` is listed as inputs, and is an image");
        return Err(Failure::Usable(message, "look at what is attached there".to_owned()));
    };
    let (count, provenance) = unpack_inputs(store, &pulled)?;
    render::note(&format!("{}: {} of inputs", provenance.target, render::counted(count as u64, "blob")));
    Ok(())
}
