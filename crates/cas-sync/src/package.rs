//! The files of an artifact as a generic package of GitLab, with their checksums beside them.
//!
//! All that is there is looked at first: a file of other bytes under a name of ours is a refusal, and nothing is sent then. Files go one after
//! the other, as GitLab asks for it, the checksums last: a version that has them has all. What was sent is read back. GitLab has no compare and
//! set: what somebody else sends at the same moment is found out afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_registry::{Client, Content, GenericPackage, PackageToken, RegistryError, is_package_word};
use serde::Deserialize;

use crate::push::runtime;
use crate::{Shipment, SyncError};

/// The file with the checksums of all others, as `sha256sum --check` reads it.
pub const CHECKSUMS: &str = "SHA256SUMS";
/// How often a file is sent before its failure is the answer.
const ATTEMPTS: u32 = 3;
/// How a blob of a folder is written.
const FOLDER_ENDING: &str = ".tar.gz";

/// What a package has now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedPackage {
    /// Where.
    pub package: GenericPackage,
    /// The files in order of their names, the checksums last.
    pub files: Vec<PushedFile>,
}

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedFile {
    /// Its name.
    pub name: String,
    /// What it is.
    pub blob: Descriptor,
    /// Whether it was there before.
    pub is_known: bool,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A file that is to be there.
struct File {
    name: String,
    blob: Descriptor,
    content: Content,
}

/// Sends the files of an artifact to a version of a package; `is_dry` looks alone. `job` is the token of a pipeline's job, for where no file of
/// logins has one.
///
/// # Errors
///
/// [`SyncError::PackageFile`] where another file stands there, [`SyncError::PackageName`] for what GitLab takes no name from, and
/// [`SyncError::Registry`].
pub fn push_package(
    client: &Client,
    shipment: &Shipment,
    package: &GenericPackage,
    job: Option<PackageToken>,
    is_dry: bool,
) -> Result<PushedPackage, SyncError> {
    let files = files(shipment)?;
    let token = client.package_token(package)?.or(job);
    runtime()?.block_on(async {
        let there = there(client, package, token.as_ref(), &files).await?;
        let mut pushed = Vec::new();
        for (file, is_known) in files.iter().zip(there) {
            if !is_known && !is_dry {
                send(client, package, token.as_ref(), file).await?;
            }
            pushed.push(PushedFile { name: file.name.clone(), blob: file.blob, is_known });
        }
        if !is_dry {
            let kept = there_now(client, package, token.as_ref(), &files).await?;
            if let Some((file, _)) = files.iter().zip(kept).find(|(_, is_there)| !is_there) {
                let (name, origin) = (format!("{package}/{}", file.name), package.host.clone());
                return Err(RegistryError::NotKept { name, origin }.into());
            }
        }
        Ok(PushedPackage { package: package.clone(), files: pushed })
    })
}

/// The files that an artifact's manifest names, and their checksums.
fn files(shipment: &Shipment) -> Result<Vec<File>, SyncError> {
    let root = shipment.root();
    let refused = |name: &str| SyncError::PackageName { name: name.to_owned() };
    let manifest: Manifest = serde_json::from_slice(&root.bytes).map_err(|_| refused(&root.blob.digest.to_string()))?;
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    for layer in manifest.layers {
        let note = |key: &str| layer.annotations.get(key).map(String::as_str);
        // The empty descriptor of an artifact without files has no title.
        let Some(title) = note("org.opencontainers.image.title") else { continue };
        let is_folder = note("io.deis.oras.content.unpack") == Some("true");
        let ending = if is_folder && !title.ends_with(FOLDER_ENDING) { FOLDER_ENDING } else { "" };
        let name = format!("{title}{ending}");
        let blob = shipment.blobs.iter().find(|blob| blob.blob.digest.to_string() == layer.digest);
        let blob = blob.filter(|_| is_package_word(&name) && name != CHECKSUMS).ok_or_else(|| refused(&name))?;
        let file = File { name: name.clone(), blob: blob.blob, content: Arc::clone(&blob.content) };
        if files.insert(name.clone(), file).is_some() {
            return Err(refused(&name));
        }
    }
    if files.is_empty() {
        return Err(SyncError::NoFiles);
    }
    let sums: String = files.values().map(|file| format!("{}  {}\n", file.blob.digest.to_hex(), file.name)).collect();
    let blob = Descriptor::of(DigestFunction::Sha256, sums.as_bytes());
    let content: Content = Arc::new(move |sink| sink.write_all(sums.as_bytes()));
    let sums = File { name: CHECKSUMS.to_owned(), blob, content };
    Ok(files.into_values().chain([sums]).collect())
}

/// Which files are there; another one under a name of ours is an error.
async fn there(
    client: &Client,
    package: &GenericPackage,
    token: Option<&PackageToken>,
    files: &[File],
) -> Result<Vec<bool>, SyncError> {
    let listed = client.package_files(package, token).await?;
    let mut there = Vec::new();
    for file in files {
        let mut is_there = false;
        for found in listed.iter().filter(|found| found.name == file.name) {
            // A list that tells no digest says nothing.
            let digest = match found.digest {
                Some(digest) => digest,
                None => client.package_file_digest(package, token, &file.name).await?.digest,
            };
            if digest != file.blob.digest {
                return Err(other(package, file, digest));
            }
            is_there = true;
        }
        there.push(is_there);
    }
    Ok(there)
}

/// The same after something was sent: the list may be a moment behind.
async fn there_now(
    client: &Client,
    package: &GenericPackage,
    token: Option<&PackageToken>,
    files: &[File],
) -> Result<Vec<bool>, SyncError> {
    let mut kept = there(client, package, token, files).await?;
    for _ in 1..ATTEMPTS {
        if kept.iter().all(|is_there| *is_there) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        kept = there(client, package, token, files).await?;
    }
    Ok(kept)
}

/// Sends a file and reads it back. After a failure it is looked for before it is sent again.
async fn send(
    client: &Client,
    package: &GenericPackage,
    token: Option<&PackageToken>,
    file: &File,
) -> Result<(), SyncError> {
    let mut attempt = 1;
    loop {
        let sent = client.push_package_file(package, token, &file.name, &file.blob, &file.content).await;
        let error = match sent {
            Ok(()) => break,
            Err(error) => error,
        };
        let may_be_there = matches!(
            error,
            RegistryError::Transport { .. } | RegistryError::Status { .. } | RegistryError::Denied { status: 403, .. }
        );
        if !may_be_there {
            return Err(error.into());
        }
        // Somebody else may have been there first, or the answer alone was lost.
        match there(client, package, token, std::slice::from_ref(file)).await?[..] {
            [true] => break,
            _ if attempt == ATTEMPTS || matches!(error, RegistryError::Denied { .. }) => return Err(error.into()),
            _ if matches!(error, RegistryError::Status { status: 400..=428, .. }) => return Err(error.into()),
            _ => attempt += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let found = client.package_file_digest(package, token, &file.name).await?;
    match found == file.blob {
        true => Ok(()),
        false => Err(other(package, file, found.digest)),
    }
}

fn other(package: &GenericPackage, file: &File, found: Digest) -> SyncError {
    SyncError::PackageFile { package: package.to_string(), file: file.name.clone(), found, wanted: file.blob.digest }
}
