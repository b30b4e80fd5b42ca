//! Single files by address.

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_fetch::Fetcher;
use cas_store::{Store, StoreError};

use crate::{BuildError, npm};

/// Kind of the memos of downloads.
const MEMO: &str = "download";

/// Name of what is downloaded from an address.
pub(crate) fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let last = path.rsplit('/').next().filter(|name| cas_tree::Name::new(name).is_ok());
    last.unwrap_or("download").to_owned()
}

/// A file that was downloaded before and is still in the store.
pub(crate) fn stored(
    store: &Store,
    function: DigestFunction,
    digest: cas_digest::Digest,
) -> Result<Option<Descriptor>, BuildError> {
    // A memo remembers the size that had this digest.
    let known = store.memo(MEMO, digest.to_string().as_bytes())?;
    let blob = known.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<Descriptor>().ok());
    match blob {
        Some(blob) if store.contains(&blob)? => Ok(Some(store.name_with(function, &blob)?)),
        _ => Ok(None),
    }
}

/// A file by address and digest, from the store if it is there; its size is not announced.
pub(crate) fn fetch_pinned(
    store: &Store,
    fetcher: &Fetcher,
    function: DigestFunction,
    url: &str,
    digest: cas_digest::Digest,
) -> Result<Descriptor, BuildError> {
    if let Some(blob) = stored(store, function, digest)? {
        return Ok(blob);
    }
    let mut body = fetcher.get(url)?;
    let (blob, named) = store.put_with_alias(function, digest.function(), &mut body).map_err(|error| match error {
        StoreError::Source(source) => npm::transport(url, source),
        other => other.into(),
    })?;
    if named.digest != digest {
        let expected = Descriptor { digest, size: named.size };
        let source = cas_blob::VerifyError::Digest { expected, actual: named.digest };
        return Err(BuildError::Mismatch { url: cas_fetch::redact(url), source: source.into() });
    }
    remember(store, &named)?;
    Ok(blob)
}

/// Remembers which size a download has, of which others know the digest alone.
pub(crate) fn remember(store: &Store, named: &Descriptor) -> Result<(), StoreError> {
    store.put_memo(MEMO, named.digest.to_string().as_bytes(), named.to_string().as_bytes())
}
