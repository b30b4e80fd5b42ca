//! What is sent: documents and blobs.

use std::fmt;

use cas_blob::Descriptor;
use cas_oci::Repository;
use cas_registry::Content;

/// An image, an index or an artifact, with all that it is made of.
#[derive(Clone, Debug)]
pub struct Shipment {
    /// Manifests and indexes, each after those that it names: the last one is what is meant.
    pub documents: Vec<ShippedDocument>,
    /// Configurations and layers, each once.
    pub blobs: Vec<ShippedBlob>,
}

impl Shipment {
    /// What is meant.
    ///
    /// # Panics
    ///
    /// When there is no document: nobody may make one without.
    #[must_use]
    pub fn root(&self) -> &ShippedDocument {
        self.documents.last().expect("a shipment has a document")
    }
}

/// A manifest or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippedDocument {
    /// Its name.
    pub blob: Descriptor,
    /// What it is.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A configuration or layer.
#[derive(Clone)]
pub struct ShippedBlob {
    /// Its name.
    pub blob: Descriptor,
    /// Its bytes.
    pub content: Content,
    /// A repository that has it, for registries that take it from there.
    pub source: Option<Repository>,
}

impl fmt::Debug for ShippedBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShippedBlob").field("blob", &self.blob).field("source", &self.source).finish_non_exhaustive()
    }
}
