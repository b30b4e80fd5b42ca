//! Where registries have blobs, remembered in the store: `docs/formats/registry.md`, "Pushes".

use std::sync::Arc;

use cas_blob::Descriptor;
use cas_oci::{Repository, is_repository};
use cas_registry::{Client, Whereabouts};
use cas_store::Store;

use crate::args::Global;
use crate::commands::open_store;

/// Kind of the records: host and blob to the path of a repository.
const MEMO: &str = "registry-blob-1";

struct InStore(Arc<Store>);

/// A client that remembers in the store where blobs are.
pub(crate) fn remembering(client: Client, store: &Arc<Store>) -> Client {
    client.remembering(Arc::new(InStore(Arc::clone(store))))
}

/// The same for what works without a store.
pub(crate) fn remembering_if_there(client: Client, global: &Global) -> Client {
    match open_store(global) {
        Ok(store) => remembering(client, &Arc::new(store)),
        // What is not remembered is sent.
        Err(_) => client,
    }
}

fn key(host: &str, blob: &Descriptor) -> Vec<u8> {
    format!("{host} {blob}").into_bytes()
}

impl Whereabouts for InStore {
    fn find(&self, host: &str, blob: &Descriptor) -> Option<String> {
        let path = self.0.memo(MEMO, &key(host, blob)).ok().flatten()?;
        String::from_utf8(path).ok().filter(|path| is_repository(path))
    }

    fn note(&self, repository: &Repository, blob: &Descriptor) {
        let key = key(&repository.host, blob);
        let path = repository.path.as_bytes();
        if self.0.memo(MEMO, &key).ok().flatten().as_deref() != Some(path) {
            // What is not remembered is sent.
            let _ = self.0.put_memo(MEMO, &key, path);
        }
    }
}
