//! Why a request is refused, with the status and the code of the specification (OCI distribution-spec 1.1, "Error Codes").

use std::io;

use cas_digest::Digest;
use cas_oci::TagClass;
use cas_store::StoreError;

/// Why a request is refused. Format: docs/formats/registry-server.md, "Errors".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "`{0}` is no name of a repository: small letters and digits with `.`, `_` or `-` between them, in parts with `/`"
    )]
    Name(String),
    #[error("`{0}` is no SHA-256 or SHA-512 digest, as `sha256:` and 64 small hexadecimal digits")]
    Digest(String),
    #[error("`{0}` is no tag: at most 128 letters, digits, `.`, `_` and `-`, with a letter, a digit or `_` first")]
    Tag(String),
    #[error("there is nothing at this path")]
    Path,
    #[error("a path and its query have at most {limit} bytes")]
    LongPath { limit: usize },
    #[error("one request sets at most {limit} tags")]
    ManyTags { limit: usize },
    #[error("the path does not have this method")]
    Method,
    #[error("`{name}` of the query has a wrong value")]
    Query { name: &'static str },
    #[error("there is no repository `{0}`")]
    UnknownName(String),
    #[error("`{name}` has no manifest `{reference}`")]
    UnknownManifest { name: String, reference: String },
    #[error("`{name}` has no blob `{digest}`")]
    UnknownBlob { name: String, digest: Digest },
    #[error("there is no such upload; it may have ended for want of bytes, or with the server: begin a new one")]
    UnknownUpload,
    #[error("another request writes to this upload")]
    BusyUpload,
    #[error("there are {limit} uploads already: try again later")]
    ManyUploads { limit: usize },
    #[error("what was sent is not `{0}`")]
    Mismatch(Digest),
    #[error("{sent} bytes were sent, and {said} were said")]
    Length { said: u64, sent: u64 },
    #[error("a blob has at most {limit} bytes here; `--max-blob-size` of the server changes that")]
    LongBlob { limit: u64 },
    #[error("a manifest has at most {limit} bytes")]
    LongManifest { limit: u64 },
    #[error("the manifest cannot be taken: {0}")]
    Manifest(#[from] crate::manifest::ManifestError),
    #[error("the manifest names {what} `{digest}`, which `{name}` does not have: send it first")]
    Missing { name: String, what: &'static str, digest: Digest },
    #[error("the manifest names `{digest}` with {said} bytes, and it has {size}")]
    MissingSize { digest: Digest, said: u64, size: u64 },
    #[error("`{tag}` is `{found}`, and {} do not move: push it under another tag", class.words())]
    Taken { tag: String, found: Digest, class: TagClass },
    #[error("the server removes nothing; `--allow-deletes` changes that")]
    NoDeletes,
    #[error("the manifest `{by}` needs it: remove that first")]
    Needed { by: Digest },
    #[error("`Content-Range` is no range of bytes, as `0-99`")]
    ContentRange,
    #[error("the upload has {have} bytes, and the piece begins at {from}")]
    OutOfOrder { location: String, have: u64, from: u64 },
    #[error("the blob has {size} bytes")]
    OutsideBlob { size: u64 },
    #[error("the server is asked by a name that is not this machine's")]
    Host,
    #[error("pages of browsers may not ask")]
    Origin,
    #[error("the body ended early")]
    Body(#[source] io::Error),
    #[error("the disk is full")]
    NoRoom,
    #[error("the store failed")]
    Store(#[source] StoreError),
    #[error("`registry.db` failed")]
    Catalog(#[source] rusqlite::Error),
    #[error("a file failed")]
    Fs(#[source] cas_fs::FsError),
    #[error("a task failed")]
    Task,
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if error.is_full() { Self::NoRoom } else { Self::Store(error) }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        let is_full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        if is_full { Self::NoRoom } else { Self::Catalog(error) }
    }
}

impl From<cas_fs::FsError> for Refusal {
    fn from(error: cas_fs::FsError) -> Self {
        if error.is_full() { Self::NoRoom } else { Self::Fs(error) }
    }
}

impl Refusal {
    /// The status of HTTP, and the code of the specification.
    pub(crate) const fn status_and_code(&self) -> (u16, &'static str) {
        match self {
            Self::Name(_) => (400, "NAME_INVALID"),
            Self::Digest(_) | Self::Mismatch(_) => (400, "DIGEST_INVALID"),
            Self::Tag(_) | Self::Manifest(_) => (400, "MANIFEST_INVALID"),
            Self::Missing { .. } => (400, "MANIFEST_BLOB_UNKNOWN"),
            Self::Length { .. } | Self::MissingSize { .. } => (400, "SIZE_INVALID"),
            Self::Query { .. } => (400, "UNSUPPORTED"),
            Self::Body(_) | Self::ContentRange => (400, "BLOB_UPLOAD_INVALID"),
            Self::Host | Self::Origin => (403, "DENIED"),
            Self::Path => (404, "UNSUPPORTED"),
            Self::UnknownName(_) => (404, "NAME_UNKNOWN"),
            Self::UnknownManifest { .. } => (404, "MANIFEST_UNKNOWN"),
            Self::UnknownBlob { .. } => (404, "BLOB_UNKNOWN"),
            Self::UnknownUpload => (404, "BLOB_UPLOAD_UNKNOWN"),
            Self::Method | Self::NoDeletes => (405, "UNSUPPORTED"),
            Self::BusyUpload => (409, "BLOB_UPLOAD_INVALID"),
            Self::Taken { .. } | Self::Needed { .. } => (409, "DENIED"),
            Self::LongBlob { .. } => (413, "SIZE_INVALID"),
            Self::LongManifest { .. } => (413, "MANIFEST_INVALID"),
            Self::LongPath { .. } | Self::ManyTags { .. } => (414, "UNSUPPORTED"),
            Self::OutOfOrder { .. } | Self::OutsideBlob { .. } => (416, "BLOB_UPLOAD_INVALID"),
            Self::ManyUploads { .. } => (429, "TOOMANYREQUESTS"),
            Self::NoRoom => (507, "DENIED"),
            Self::Store(_) | Self::Catalog(_) | Self::Fs(_) | Self::Task => (500, "UNSUPPORTED"),
        }
    }

    /// The body of the response. What failed on this side is told to its owner alone.
    pub(crate) fn body(&self) -> String {
        let (_, code) = self.status_and_code();
        serde_json::json!({ "errors": [{ "code": code, "message": self.to_string() }] }).to_string()
    }

    /// Whether it is this side that failed.
    pub(crate) const fn is_ours(&self) -> bool {
        self.status_and_code().0 == 500
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cas_digest::DigestFunction;

    /// Every code that the specification has, and no other; what is told to strangers names no path of this machine.
    #[test]
    fn refusals_have_codes_of_the_specification() {
        let digest = Digest::of(DigestFunction::Sha256, b"");
        let path = std::path::Path::new("/home/me/.cache/cas");
        let failed = || cas_fs::FsError::new(cas_fs::Operation::Open, path, io::ErrorKind::PermissionDenied.into());
        let full = cas_fs::FsError::new(cas_fs::Operation::Write, path, io::ErrorKind::StorageFull.into());
        for (refusal, status, code) in [
            (Refusal::Name("A".to_owned()), 400, "NAME_INVALID"),
            (Refusal::Digest("md5:0".to_owned()), 400, "DIGEST_INVALID"),
            (Refusal::Mismatch(digest), 400, "DIGEST_INVALID"),
            (Refusal::Tag("-".to_owned()), 400, "MANIFEST_INVALID"),
            (Refusal::Missing { name: "a".to_owned(), what: "the blob", digest }, 400, "MANIFEST_BLOB_UNKNOWN"),
            (Refusal::Length { said: 1, sent: 2 }, 400, "SIZE_INVALID"),
            (Refusal::UnknownName("a".to_owned()), 404, "NAME_UNKNOWN"),
            (Refusal::UnknownBlob { name: "a".to_owned(), digest }, 404, "BLOB_UNKNOWN"),
            (Refusal::UnknownUpload, 404, "BLOB_UPLOAD_UNKNOWN"),
            (Refusal::NoDeletes, 405, "UNSUPPORTED"),
            (Refusal::Taken { tag: "1.0.0".to_owned(), found: digest, class: TagClass::Version }, 409, "DENIED"),
            (Refusal::LongManifest { limit: 1 }, 413, "MANIFEST_INVALID"),
            (Refusal::OutsideBlob { size: 1 }, 416, "BLOB_UPLOAD_INVALID"),
            (Refusal::ManyUploads { limit: 1 }, 429, "TOOMANYREQUESTS"),
            (Refusal::from(failed()), 500, "UNSUPPORTED"),
            (Refusal::from(StoreError::from(failed())), 500, "UNSUPPORTED"),
            (Refusal::from(full), 507, "DENIED"),
        ] {
            assert_eq!(refusal.status_and_code(), (status, code), "{refusal}");
            let body = refusal.body();
            assert!(body.starts_with(&format!(r#"{{"errors":[{{"code":"{code}","message":""#)), "{body}");
            assert!(!body.contains("/home"), "{body}");
            assert_eq!(refusal.is_ours(), status == 500);
        }
    }
}
