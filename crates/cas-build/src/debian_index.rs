//! Package indexes of suites, kept in the store in a short form.
//!
//! The index of Debian's main has 50 MB in 9 MB of xz, and most of it are descriptions and tags. What resolving looks at is
//! written out once, uncompressed, and named by the digest of the index: decompression was two thirds of the time of a resolution.
//! The short form is a `Packages` file, too, so there is one parser, and nothing but the store's digests to trust.
//!
//! Not here: which indexes there are, and the proof that they are the suite's (`debian.rs`).

use std::io::BufReader;

use cas_blob::Descriptor;
use cas_tar::{Compression, decompress};

use crate::BuildError;
use crate::debian::{Context, ensure};

/// Largest package index, uncompressed; Debian's main has 50 MiB.
const MAX_INDEX_BYTES: u64 = 1 << 30;
/// Kind of the memos that name the short forms of indexes.
pub(crate) const INDEX_MEMO: &str = "debian-index";

/// The short form of the index that `blob` is the compressed form of, fetched from `url` where it is not known.
///
/// # Errors
///
/// What the fetch and the store say; `failed` names the suite in what is wrong with the index.
pub(crate) fn load(
    context: &Context<'_>,
    url: &str,
    blob: &Descriptor,
    failed: &dyn Fn(Box<dyn std::error::Error + Send + Sync>) -> BuildError,
) -> Result<Vec<u8>, BuildError> {
    let store = context.store;
    let key = format!("1 {} {blob}", context.function);
    let record = store.memo(INDEX_MEMO, key.as_bytes())?.and_then(|value| String::from_utf8(value).ok());
    if let Some(short) = record.and_then(|record| record.parse().ok())
        && store.contains(&short)?
    {
        return Ok(store.load(&short, MAX_INDEX_BYTES)?);
    }
    ensure(context, url, blob)?;
    let bytes = store.load(blob, MAX_INDEX_BYTES)?;
    let compression = Compression::detect(&bytes);
    let text = decompress(&bytes[..], compression, MAX_INDEX_BYTES).map_err(|error| failed(Box::new(error)))?;
    let short = cas_deb::shorten(BufReader::new(text)).map_err(|error| failed(Box::new(error)))?;
    let name = store.put_bytes(context.function, &short)?;
    store.put_memo(INDEX_MEMO, key.as_bytes(), name.to_string().as_bytes())?;
    Ok(short)
}
