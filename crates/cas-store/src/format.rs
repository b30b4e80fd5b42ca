//! `store.json`: what a program must know to read or write the store, and its limits.
//!
//! Three lists of features: unknown compatible ones are ignored, with an unknown one of `ro_compatible` a program may read
//! but not write, with an unknown incompatible one it must not open the store. Format: docs/formats/store.md, "store.json".

use std::path::Path;

use cas_fs::FsError;
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, Replacement, Site, read_file, replace_durably};
use crate::{Quota, StoreError};

const NAME: &str = "store.json";
const MAX_BYTES: usize = 64 * 1024;
/// Objects carry the epoch in which they were written.
const EPOCHS: &str = "epochs";
const INCOMPATIBLE: [&str; 1] = [EPOCHS];

/// The description of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) quota: Quota,
    /// Of newer programs; kept as they are.
    pub(crate) compatible: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wire {
    version: u32,
    #[serde(default)]
    compatible: Vec<String>,
    #[serde(default)]
    ro_compatible: Vec<String>,
    #[serde(default)]
    incompatible: Vec<String>,
    #[serde(default)]
    quota: WireQuota,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct WireQuota {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_inodes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_free_bytes: Option<u64>,
}

/// Reads the description. `None` when the folder is no store, or one of before there were descriptions.
pub(crate) fn read<D: Disk>(disk: &D, folder: &Path) -> Result<Option<Format>, StoreError> {
    let path = folder.join(NAME);
    let unusable = |source: FsError| StoreError::Unusable { path: folder.to_owned(), source };
    let Some(bytes) = read_file(disk, &path, MAX_BYTES).map_err(unusable)? else {
        // One that is too long is a description all the same, and must not be written over.
        return match disk.stat(&path).map_err(unusable)? {
            None => Ok(None),
            Some(_) => Err(StoreError::Description { path, source: serde::de::Error::custom("it is too long") }),
        };
    };
    decode(&bytes).map(Some).map_err(|problem| match problem {
        Problem::Json(source) => StoreError::Description { path, source },
        Problem::Unknown(features) => StoreError::Newer { path, features },
    })
}

/// Why a description is of no use.
pub(crate) enum Problem {
    Json(serde_json::Error),
    Unknown(Vec<String>),
}

/// Reads the bytes of a description.
pub(crate) fn decode(bytes: &[u8]) -> Result<Format, Problem> {
    let wire: Wire = serde_json::from_slice(bytes).map_err(Problem::Json)?;
    let mut unknown: Vec<String> = wire.ro_compatible;
    unknown.extend(wire.incompatible.into_iter().filter(|feature| !INCOMPATIBLE.contains(&feature.as_str())));
    if wire.version != 1 {
        unknown.push(format!("version {}", wire.version));
    }
    if !unknown.is_empty() {
        return Err(Problem::Unknown(unknown));
    }
    let quota = Quota {
        max_bytes: wire.quota.max_bytes,
        max_inodes: wire.quota.max_inodes,
        min_free_bytes: wire.quota.min_free_bytes,
    };
    Ok(Format { quota, compatible: wire.compatible })
}

/// The opposite.
pub(crate) fn encode(format: &Format) -> Vec<u8> {
    let wire = Wire {
        version: 1,
        compatible: format.compatible.clone(),
        ro_compatible: Vec::new(),
        incompatible: INCOMPATIBLE.map(str::to_owned).to_vec(),
        quota: WireQuota {
            max_bytes: format.quota.max_bytes,
            max_inodes: format.quota.max_inodes,
            min_free_bytes: format.quota.min_free_bytes,
        },
    };
    let mut bytes = serde_json::to_vec_pretty(&wire).expect("lists of strings have a form in JSON");
    bytes.push(b'\n');
    bytes
}

/// Writes the first description; the folders are there, and the caller holds the lock of the format.
pub(crate) fn create<D: Disk>(disk: &D, folder: &Path) -> Result<Format, StoreError> {
    // A durable object must not lose the folder that it is in.
    let top = disk.open_folder(folder)?;
    disk.sync_all(Site::SyncLayout, &top).map_err(|error| FsError::new(cas_fs::Operation::Sync, folder, error))?;
    let format = Format { quota: Quota::default(), compatible: Vec::new() };
    write(disk, folder, &folder.join(format!("{NAME}.new")), &format)?;
    Ok(format)
}

/// Replaces the description, by way of a temporary file on the same file system.
pub(crate) fn write<D: Disk>(disk: &D, folder: &Path, temporary: &Path, format: &Format) -> Result<(), StoreError> {
    disk.remove(temporary)?;
    let sites = Replacement { sync: Site::SyncFormat, rename: Site::RenameFormat, sync_folder: Site::SyncFormatFolder };
    Ok(replace_durably(disk, temporary, &folder.join(NAME), &encode(format), sites)?)
}
