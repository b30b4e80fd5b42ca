//! Images in places that have no layout: skopeo's folders, and root file systems, which are files alone.
//!
//! What a folder holds is compared with its name like everything else. A root file system gets the manifest and the
//! configuration that it lacks, the same ones for the same bytes. Rules: docs/formats/image-root.md.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction, HashingReader};
use cas_oci::{
    ImageConfig, ImageFormat, LayerKind, LayerReference, MAX_DOCUMENT_BYTES, TargetPlatform, encode_config,
    encode_manifest,
};
use cas_store::{Store, StoreError};
use cas_tar::{Compression, ReadTarError, ReadTarLimits, decompress, read_layer};
use cas_tree::{Directory, Unpacking};

use crate::BuildError;
use crate::foreign::MAX_LAYER_BYTES;
use crate::image_place::{ImagePlace, open};

/// What a folder of skopeo's says of itself in `version`, up to the number that only grows when more is in there.
const VERSION: &[u8] = b"Directory Transport Version: 1.";
/// Longest text of a version.
const MAX_VERSION_BYTES: u64 = 1024;
/// What the history of a root file system says.
const CREATED_BY: &str = "root file system";

impl ImagePlace {
    /// The manifest or index of a folder; it is in the store afterwards.
    pub(crate) fn resolve_folder(&self, store: &Store, folder: &Path) -> Result<Descriptor, BuildError> {
        match cas_fs::read_limited(&folder.join("version"), MAX_VERSION_BYTES) {
            Ok(version) if !version.starts_with(VERSION) => {
                return Err(
                    self.damaged(format!("its version is {:?}, and 1 is read", String::from_utf8_lossy(&version)))
                );
            }
            Ok(_) => {}
            // The first ones had none, and nobody who reads them asks for it.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        let bytes = cas_fs::read_limited(&folder.join("manifest.json"), MAX_DOCUMENT_BYTES)?;
        self.is_document(&bytes, None)?;
        Ok(store.put_bytes(DigestFunction::Sha256, &bytes)?)
    }

    /// Puts a blob into the store that a folder has.
    pub(crate) fn take_from_folder(&self, store: &Store, folder: &Path, blob: &Descriptor) -> Result<(), BuildError> {
        let hex = blob.digest.to_hex();
        let name = match blob.digest.function() {
            DigestFunction::Sha256 => hex,
            function => format!("{function}-{hex}"),
        };
        // Below an index, manifests have names of their own.
        for name in [format!("{name}.manifest.json"), name] {
            match cas_fs::open(&folder.join(name)) {
                Ok(mut file) => {
                    return store.put_expected(&mut file, blob).map(drop).map_err(|error| self.kept(blob, error));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        // The first document is not named by its digest.
        if blob.size <= MAX_DOCUMENT_BYTES {
            match cas_fs::read_limited(&folder.join("manifest.json"), MAX_DOCUMENT_BYTES) {
                Ok(bytes) if Descriptor::of(blob.digest.function(), &bytes) == *blob => {
                    return Ok(store.put_expected(&mut &bytes[..], blob).map(drop)?);
                }
                Ok(_) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(self.gone(blob))
    }

    /// The manifest of a root file system; it, the configuration and the layer are in the store afterwards.
    ///
    /// The layer is the file as it is, but for xz, which no manifest can tell.
    pub(crate) fn resolve_root(
        &self,
        store: &Store,
        path: &Path,
        platform: &TargetPlatform,
    ) -> Result<Descriptor, BuildError> {
        let failed = |error: io::Error| self.damaged(error.to_string());
        let mut file = cas_fs::open(path)?;
        if cas_fs::metadata(path)?.len() > MAX_LAYER_BYTES {
            return Err(self.damaged(format!("it is longer than {MAX_LAYER_BYTES} bytes")));
        }
        let mut head = Vec::new();
        (&mut file).take(6).read_to_end(&mut head).map_err(failed)?;
        let mut whole = io::Cursor::new(head.clone()).chain(file).take(MAX_LAYER_BYTES);
        let compression = Compression::detect(&head);
        let (kind, kept) = match compression {
            Compression::None => (LayerKind::Plain, store.put(DigestFunction::Sha256, &mut whole)),
            Compression::Gzip => (LayerKind::Gzip, store.put(DigestFunction::Sha256, &mut whole)),
            Compression::Zstd => (LayerKind::Zstd, store.put(DigestFunction::Sha256, &mut whole)),
            Compression::Xz => {
                let mut plain = decompress(whole, compression, MAX_LAYER_BYTES).map_err(failed)?;
                (LayerKind::Plain, store.put(DigestFunction::Sha256, &mut plain))
            }
        };
        let blob = kept.map_err(|error| match error {
            StoreError::Source(error) if error.kind() != io::ErrorKind::StorageFull => failed(error),
            error => error.into(),
        })?;
        let diff_id = self.looked_through(store, &blob, kind)?;
        let (created_by, annotations) = (CREATED_BY.to_owned(), BTreeMap::new());
        let layers = [LayerReference { kind, blob, diff_id, created_by, annotations }];
        let config = encode_config(platform, &ImageConfig::default(), &[], &layers);
        let config = store.put_bytes(DigestFunction::Sha256, &config)?;
        let manifest = encode_manifest(ImageFormat::Oci, &config, &layers, &BTreeMap::new());
        Ok(store.put_bytes(DigestFunction::Sha256, &manifest.expect("OCI has a media type for each of these"))?)
    }

    /// The digest of the uncompressed bytes of a layer, which must be an archive.
    fn looked_through(&self, store: &Store, blob: &Descriptor, kind: LayerKind) -> Result<Digest, BuildError> {
        let failed = |error: io::Error| self.damaged(error.to_string());
        let compression = crate::foreign::compression_of(kind);
        // Headers and padding of very many small files can be longer than what is in them.
        let bytes = decompress(open(store, blob)?, compression, MAX_LAYER_BYTES.saturating_mul(2)).map_err(failed)?;
        let mut bytes = HashingReader::new(bytes, &[DigestFunction::Sha256]);
        let limits = ReadTarLimits { content_bytes: MAX_LAYER_BYTES };
        let digest = Digest::of(DigestFunction::Sha256, b"");
        let skip = &mut |content: &mut dyn Read| match io::copy(content, &mut io::sink()) {
            // Nobody looks at the tree, whose files could have any name.
            Ok(size) => Ok(Descriptor { digest, size }),
            Err(error) => Err(StoreError::Source(error)),
        };
        read_layer(&mut Unpacking::new(Directory::root()), &mut bytes, limits, skip).map_err(
            |error: ReadTarError<StoreError>| {
                let (place, layer) = (self.place(), blob.digest.to_string());
                BuildError::ForeignLayer { place, layer, source: Box::new(error) }
            },
        )?;
        io::copy(&mut bytes, &mut io::sink()).map_err(failed)?;
        Ok(bytes.finish().0[0])
    }
}
