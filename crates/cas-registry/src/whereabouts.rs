//! Which repositories of a server have which blobs, as far as somebody remembers: what one has need not be sent to the next.

use cas_blob::Descriptor;
use cas_oci::Repository;

/// A shorter blob is sooner sent than remembered.
pub(crate) const MIN_REMEMBERED_BYTES: u64 = 64 << 10;

/// What is remembered of blobs and repositories. It may be wrong: a server is asked, and what it does not have is sent.
pub trait Whereabouts: Send + Sync {
    /// The path of a repository of this host that had the blob.
    fn find(&self, host: &str, blob: &Descriptor) -> Option<String>;

    /// The repository has the blob.
    fn note(&self, repository: &Repository, blob: &Descriptor);
}
