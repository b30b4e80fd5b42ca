//! What a registry does, without HTTP: blobs, manifests and tags over the store and the catalog.
//!
//! Nothing is told to be there before its bytes are in the store, hashed, and kept: pins come before rows, and rows go before pins. Whoever
//! changes manifests, tags or what they need holds `writing`, so that looking and writing are one step.
//!
//! All of this blocks. Format: docs/formats/registry-server.md.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cas_blob::{Descriptor, OpenBlob, VerifyError};
use cas_digest::{Digest, DigestFunction};
use cas_store::{Keep, Store, StoreError};

use crate::catalog::{Catalog, Kept, New, OpenCatalogError};
use crate::manifest::Manifest;
use crate::refusal::Refusal;
use crate::route::{Page, Version};
use crate::server::{Options, ServerError};
use crate::upload::{Taken, Uploads};

/// What all names of pins begin with.
const PINS: &str = "registry/";
/// Most entries and bytes of one answer about referrers.
const MAX_REFERRERS: usize = 500;
const MAX_REFERRERS_BYTES: usize = 3 << 20;

/// A registry over a store.
#[derive(Debug)]
pub(crate) struct Registry {
    store: Arc<Store>,
    catalog: Mutex<Catalog>,
    writing: Mutex<()>,
    pub(crate) uploads: Arc<Uploads>,
    options: Options,
}

/// What became of a manifest that was pushed.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
}

/// Descriptors of referrers, and the digest behind which there are more.
#[derive(Debug)]
pub(crate) struct Referrers {
    pub(crate) descriptors: Vec<String>,
    pub(crate) more_after: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // SQLite rolls back what a panic left half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name of the pin of a manifest.
fn pin_name(name: &str, digest: &Digest) -> String {
    let both = Digest::of(DigestFunction::Blake3, format!("{name}\n{digest}").as_bytes());
    format!("{PINS}{}", &both.to_hex()[..32])
}

impl Registry {
    /// Opens the registry of a store, and ends what a crash left half done.
    pub(crate) fn open(store: Arc<Store>, options: Options) -> Result<Self, ServerError> {
        let path = store.folder().join("registry.db");
        let (catalog, is_new) = Catalog::open(&path).map_err(|error| match error {
            OpenCatalogError::InUse => ServerError::InUse { path: path.clone() },
            OpenCatalogError::Newer => ServerError::Newer { path: path.clone() },
            other => ServerError::Catalog { path: path.clone(), source: Box::new(other) },
        })?;
        let uploads = Uploads::new(store.scratch(), options.max_blob_bytes)?;
        let registry = Self {
            store,
            catalog: Mutex::new(catalog),
            writing: Mutex::default(),
            uploads: Arc::new(uploads),
            options,
        };
        let failed = |error: Refusal| ServerError::Registry { path, source: Box::new(error) };
        registry.mend(is_new).map_err(failed)?;
        Ok(registry)
    }

    /// Ends pins without rows, and pins what rows say once more where that was lost. A catalog that is new says nothing about pins.
    fn mend(&self, is_new: bool) -> Result<(), Refusal> {
        if is_new {
            return Ok(());
        }
        let mut known = BTreeSet::new();
        let manifests = lock(&self.catalog).manifests()?;
        for (name, manifest) in manifests {
            known.insert(pin_name(&name, &manifest.digest));
            if !self.store.has_pin(&pin_name(&name, &manifest.digest))? {
                let needs = lock(&self.catalog).needs(&name, &manifest.digest)?;
                match self.keep(&name, &manifest, &needs) {
                    // A part of it is gone; whoever asks for that is told so, and can send it again.
                    Ok(()) | Err(Refusal::Store(StoreError::Missing(_))) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        for pin in self.store.pins()? {
            if pin.name.starts_with(PINS) && !known.contains(&pin.name) {
                self.store.unpin(&pin.name)?;
            }
        }
        Ok(())
    }

    /// Pins a manifest with what it needs, durably.
    fn keep(&self, name: &str, manifest: &Descriptor, needs: &[Descriptor]) -> Result<(), Refusal> {
        let mut keeps = vec![Keep::Blob(*manifest)];
        for need in needs {
            // What may be elsewhere is not here.
            if self.store.contains(need)? {
                keeps.push(Keep::Blob(*need));
            }
        }
        Ok(self.store.pin(&pin_name(name, &manifest.digest), &keeps)?)
    }

    /// A blob of a repository that is here.
    pub(crate) fn blob(&self, name: &str, digest: &Digest) -> Result<Descriptor, Refusal> {
        self.blob_here(name, digest)?.ok_or_else(|| Refusal::UnknownBlob { name: name.to_owned(), digest: *digest })
    }

    fn blob_here(&self, name: &str, digest: &Digest) -> Result<Option<Descriptor>, Refusal> {
        let Some(blob) = lock(&self.catalog).blob(name, digest)? else { return Ok(None) };
        Ok(self.store.contains(&blob)?.then_some(blob))
    }

    /// The bytes of a blob or manifest, which are hashed while they are read.
    pub(crate) fn read(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, Refusal> {
        self.store.open_blob(blob).map_err(|error| StoreError::from(error).into())
    }

    /// The bytes of a blob from a position on. They were hashed in this boot.
    pub(crate) fn read_from(&self, blob: &Descriptor, position: u64) -> Result<File, Refusal> {
        let mut file = cas_fs::open(&self.store.object_path(blob)?)?;
        file.seek(SeekFrom::Start(position)).map_err(StoreError::Source)?;
        Ok(file)
    }

    /// Takes a blob of a length that is known straight into the store.
    pub(crate) fn put_blob(
        &self,
        name: &str,
        digest: &Digest,
        size: u64,
        source: &mut dyn Read,
    ) -> Result<(), Refusal> {
        if size > self.uploads.max_bytes() {
            return Err(Refusal::LongBlob { limit: self.uploads.max_bytes() });
        }
        let blob = Descriptor { digest: *digest, size };
        self.store.put_expected(source, &blob).map_err(|error| match error {
            StoreError::Verify(VerifyError::Digest { .. }) => Refusal::Mismatch(*digest),
            StoreError::Verify(VerifyError::Size { actual, .. }) => Refusal::Length { said: size, sent: actual },
            StoreError::Verify(VerifyError::Read { source, .. }) => Refusal::Body(source),
            other => other.into(),
        })?;
        lock(&self.catalog).add_blob(name, &blob)
    }

    /// Takes what an upload has as a blob. Whatever comes of it, the upload has ended, but for a disk that is full.
    pub(crate) fn finish(&self, name: &str, digest: &Digest, upload: Taken) -> Result<(), Refusal> {
        let result = self.put_blob(name, digest, upload.length(), &mut upload.open()?);
        if !matches!(result, Err(Refusal::NoRoom)) {
            upload.end();
        }
        result
    }

    /// Lets a repository have a blob that another one has; `false` where none has it.
    pub(crate) fn mount(&self, name: &str, digest: &Digest, from: Option<&str>) -> Result<bool, Refusal> {
        let found = match from {
            Some(from) => self.blob_here(from, digest)?,
            None => {
                let blob = lock(&self.catalog).blob_of_any(digest)?;
                match blob {
                    Some(blob) if self.store.contains(&blob)? => Some(blob),
                    _ => None,
                }
            }
        };
        let Some(blob) = found else { return Ok(false) };
        lock(&self.catalog).add_blob(name, &blob)?;
        Ok(true)
    }

    /// A manifest of a repository, by tag or digest.
    pub(crate) fn manifest(&self, name: &str, version: &Version) -> Result<Kept, Refusal> {
        let catalog = lock(&self.catalog);
        let digest = match version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(tag) => catalog.tag(name, tag)?,
        };
        let unknown = || Refusal::UnknownManifest { name: name.to_owned(), reference: version.to_string() };
        let kept = digest.map(|digest| catalog.manifest(name, &digest)).transpose()?.flatten().ok_or_else(unknown)?;
        drop(catalog);
        // Damage is a miss, and can be mended by sending it again.
        if self.store.contains(&kept.blob)? { Ok(kept) } else { Err(unknown()) }
    }

    /// Takes a manifest, and lets tags name it: all of them, or none.
    pub(crate) fn put_manifest(
        &self,
        name: &str,
        version: &Version,
        tags: &[String],
        content_type: Option<&str>,
        bytes: &[u8],
    ) -> Result<Put, Refusal> {
        let mut tags = tags.to_vec();
        let function = match version {
            Version::Digest(digest) => digest.function(),
            Version::Tag(tag) => {
                tags.push(tag.clone());
                DigestFunction::Sha256
            }
        };
        let blob = Descriptor::of(function, bytes);
        if let Version::Digest(digest) = version
            && *digest != blob.digest
        {
            return Err(Refusal::Mismatch(*digest));
        }
        let manifest = Manifest::parse(bytes, content_type)?;
        let _writing = lock(&self.writing);
        if !self.options.allow_moves
            && let Some(taken) = lock(&self.catalog).taken(name, &tags, &blob.digest)?
        {
            return Err(taken);
        }
        for need in &manifest.needs {
            self.check_need(name, need)?;
        }
        self.store.put_expected(&mut &bytes[..], &blob)?;
        let needs: Vec<Descriptor> = manifest.needs.iter().map(|need| need.blob).collect();
        self.keep(name, &blob, &needs)?;
        let new = New {
            kept: Kept { blob, media_type: manifest.media_type.clone() },
            needs: &manifest.needs,
            subject: manifest.subject,
            artifact_type: manifest.artifact_type(),
            descriptor: manifest.descriptor(&blob),
        };
        lock(&self.catalog).add_manifest(name, &new, &tags)?;
        Ok(Put { digest: blob.digest, subject: manifest.subject })
    }

    /// Whether the repository has what a manifest names, as it names it.
    fn check_need(&self, name: &str, need: &crate::manifest::Need) -> Result<(), Refusal> {
        let digest = need.blob.digest;
        let (found, what) = if need.is_manifest {
            (lock(&self.catalog).manifest(name, &digest)?.map(|kept| kept.blob), "the manifest")
        } else {
            (lock(&self.catalog).blob(name, &digest)?, "the blob")
        };
        match found {
            Some(found) if found.size != need.blob.size => {
                Err(Refusal::MissingSize { digest, said: need.blob.size, size: found.size })
            }
            Some(found) if self.store.contains(&found)? => Ok(()),
            _ if need.may_be_missing => Ok(()),
            _ => Err(Refusal::Missing { name: name.to_owned(), what, digest }),
        }
    }

    /// Removes a tag, or a manifest with its tags.
    pub(crate) fn remove_manifest(&self, name: &str, version: &Version) -> Result<(), Refusal> {
        self.check_deletes()?;
        let _writing = lock(&self.writing);
        let unknown = || Refusal::UnknownManifest { name: name.to_owned(), reference: version.to_string() };
        match version {
            Version::Tag(tag) => {
                if lock(&self.catalog).remove_tag(name, tag)? {
                    Ok(())
                } else {
                    Err(unknown())
                }
            }
            Version::Digest(digest) => {
                let mut catalog = lock(&self.catalog);
                if let Some(by) = catalog.needed_by(name, digest)? {
                    return Err(Refusal::Needed { by });
                }
                if !catalog.remove_manifest(name, digest)? {
                    return Err(unknown());
                }
                drop(catalog);
                self.store.unpin(&pin_name(name, digest))?;
                Ok(())
            }
        }
    }

    /// Removes a blob from a repository.
    pub(crate) fn remove_blob(&self, name: &str, digest: &Digest) -> Result<(), Refusal> {
        self.check_deletes()?;
        let _writing = lock(&self.writing);
        let mut catalog = lock(&self.catalog);
        if let Some(by) = catalog.needed_by(name, digest)? {
            return Err(Refusal::Needed { by });
        }
        if catalog.remove_blob(name, digest)? {
            Ok(())
        } else {
            Err(Refusal::UnknownBlob { name: name.to_owned(), digest: *digest })
        }
    }

    const fn check_deletes(&self) -> Result<(), Refusal> {
        if self.options.allow_deletes { Ok(()) } else { Err(Refusal::NoDeletes) }
    }

    /// Tags of a repository, and whether there are more.
    pub(crate) fn tags(&self, name: &str, page: &Page) -> Result<(Vec<String>, bool), Refusal> {
        lock(&self.catalog).tags(name, page)?.ok_or_else(|| Refusal::UnknownName(name.to_owned()))
    }

    /// Names of repositories, and whether there are more.
    pub(crate) fn repositories(&self, page: &Page) -> Result<(Vec<String>, bool), Refusal> {
        lock(&self.catalog).repositories(page)
    }

    /// What is about a manifest.
    pub(crate) fn referrers(
        &self,
        name: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page,
    ) -> Result<Referrers, Refusal> {
        let page = Page { most: page.most.min(MAX_REFERRERS), after: page.after.clone() };
        let (rows, mut has_more) = lock(&self.catalog).referrers(name, subject, artifact_type, &page)?;
        let (mut descriptors, mut length, mut last) = (Vec::new(), 0, None);
        for (digest, descriptor) in rows {
            if !descriptors.is_empty() && length + descriptor.len() > MAX_REFERRERS_BYTES {
                has_more = true;
                break;
            }
            length += descriptor.len();
            descriptors.push(descriptor);
            last = Some(digest);
        }
        Ok(Referrers { descriptors, more_after: last.filter(|_| has_more) })
    }
}

#[cfg(test)]
mod tests;
