//! Logging in and out: whether a registry takes a name and a password, and where they are kept.
//!
//! They are kept where [`Credentials`] looks for them: with the helper of the host where one is configured, else in the first file, as
//! docker and podman write it. All else in the files stays as it is.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use cas_fs::{FsError, Operation};
use cas_oci::Repository;
use serde_json::{Map, Value, json};

use crate::client::{Ask, Client};
use crate::credentials::{Helper, is_flat, place_of, read_logins};
use crate::quirks::Quirks;
use crate::{Login, RegistryError};

/// Mode of a file of logins.
const MODE: u32 = 0o600;
/// Mode of a folder that is made for one.
const FOLDER_MODE: u32 = 0o700;

/// Where a login is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A file.
    File(PathBuf),
    /// A program, `docker-credential-…`.
    Helper(String),
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Helper(program) => f.write_str(program),
        }
    }
}

impl Client {
    /// Whether a registry takes a login: `false` where it lets everybody in and does not ask.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Refused`] where it does not take it, and what else may go wrong with a request.
    pub async fn try_login(&self, host: &str, login: &Login) -> Result<bool, RegistryError> {
        let repository = Repository { host: host.to_owned(), path: String::new() };
        let endpoint = self.endpoint(&repository);
        let client = self.with_login(endpoint.clone(), login.clone());
        let ask = Ask::get(format!("{}/v2/", endpoint.origin));
        match client.send(&endpoint, host, &ask).await {
            Ok(_) => Ok(client.has_proof(&endpoint)),
            Err(RegistryError::Denied { origin, status, said, .. }) => {
                Err(RegistryError::Refused { origin, status, said })
            }
            Err(other) => Err(other),
        }
    }
}

/// Keeps a login for a host in the place of what was there before. `paths` are the files that are read, the first one first.
///
/// # Errors
///
/// [`RegistryError`]: of files that are damaged or cannot be written, and of helpers.
pub fn keep_login(paths: &[PathBuf], host: &str, user: &str, password: &str) -> Result<Keeper, RegistryError> {
    let mut files = paths.iter().map(|path| File::read(path)).collect::<Result<Vec<_>, _>>()?;
    let helper = files.iter().enumerate().find_map(|(number, file)| Some((number, file.helper(host)?)));
    if let Some((number, helper)) = helper {
        helper.store(Quirks::default().login_key(host), user, password)?;
        // What stands in the files up to there would be found before it.
        for file in &mut files[..=number] {
            if file.remove(host) {
                file.write()?;
            }
        }
        return Ok(Keeper::Helper(helper.program()));
    }
    let Some(file) = files.first_mut() else { return Err(RegistryError::NoFile) };
    file.remove(host);
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    file.auths_mut()?.insert(Quirks::default().login_key(host).to_owned(), json!({ "auth": auth }));
    file.write()?;
    Ok(Keeper::File(file.path.clone()))
}

/// Takes away every login for a host itself from the files that are read and from helpers. Those for parts of it stay.
///
/// # Errors
///
/// As [`keep_login`].
pub fn drop_login(paths: &[PathBuf], host: &str) -> Result<Vec<Keeper>, RegistryError> {
    let (mut dropped, quirks) = (Vec::new(), Quirks::default());
    let server = quirks.login_key(host);
    for path in paths {
        let mut file = File::read(path)?;
        if let Some(helper) = file.helper(host)
            && helper.get(server)?.is_some()
        {
            helper.erase(server)?;
            dropped.push(Keeper::Helper(helper.program()));
        }
        if file.remove(host) {
            file.write()?;
            dropped.push(Keeper::File(path.clone()));
        }
    }
    Ok(dropped)
}

/// A file of logins with all that is in it.
struct File {
    path: PathBuf,
    whole: Map<String, Value>,
}

impl File {
    /// One that is not there is empty.
    fn read(path: &Path) -> Result<Self, RegistryError> {
        let whole = read_logins::<Map<String, Value>>(path)?.unwrap_or_default();
        Ok(Self { path: path.to_owned(), whole })
    }

    fn helper(&self, host: &str) -> Option<Helper> {
        if is_flat(&self.path) {
            return None;
        }
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let helpers = self.whole.get("credHelpers");
        let own = [host, Quirks::default().login_key(host)].into_iter().find_map(|key| text(helpers?.get(key)?));
        own.or_else(|| text(self.whole.get("credsStore")?)).map(Helper::new)
    }

    /// The entries by host.
    fn auths_mut(&mut self) -> Result<&mut Map<String, Value>, RegistryError> {
        if is_flat(&self.path) {
            return Ok(&mut self.whole);
        }
        let auths = self.whole.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        let path = || self.path.clone();
        let damaged = |path: PathBuf| RegistryError::Credentials { path, source: "its `auths` is no object".into() };
        auths.as_object_mut().ok_or_else(|| damaged(path()))
    }

    /// Takes away the entries for a host, whatever way they are written; whether there was one.
    fn remove(&mut self, host: &str) -> bool {
        let auths = match is_flat(&self.path) {
            true => Some(&mut self.whole),
            false => self.whole.get_mut("auths").and_then(Value::as_object_mut),
        };
        let Some(auths) = auths else { return false };
        let (before, quirks) = (auths.len(), Quirks::default());
        auths.retain(|key, _| place_of(key, &quirks) != host);
        auths.len() < before
    }

    /// Replaces the file; nobody sees half of it, and nobody else may read it.
    fn write(&self) -> Result<(), RegistryError> {
        let mut text = serde_json::to_string_pretty(&self.whole).expect("a value always has JSON");
        text.push('\n');
        // A link stays one.
        let path = cas_fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = cas_fs::folder_of(&path);
        if !cas_fs::exists(folder)? {
            let above = cas_fs::folder_of(folder);
            cas_fs::create_dir_all(above)?;
            match cas_fs::create_dir_with_mode(folder, FOLDER_MODE) {
                Err(error) if !error.is_already_exists() => return Err(error.into()),
                _ => {}
            }
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let written = write_private(&temporary, text.as_bytes()).and_then(|()| cas_fs::rename(&temporary, &path));
        if written.is_err() {
            // The error is what counts; it may not be there at all.
            let _ = cas_fs::remove_file(&temporary);
        }
        Ok(written?)
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let mut file = match cas_fs::create_new(path, MODE) {
        // One of a process of that number that was killed.
        Err(error) if error.is_already_exists() => {
            cas_fs::remove_file(path)?;
            cas_fs::create_new(path, MODE)?
        }
        other => other?,
    };
    let at = |operation| move |source| FsError::new(operation, path, source);
    file.write_all(bytes).map_err(at(Operation::Write))?;
    file.sync_all().map_err(at(Operation::Sync))
}

#[cfg(test)]
mod tests;
