//! Who asks: the files and programs where docker, podman and skopeo keep logins.
//!
//! containers-auth.json(5) and docker's `config.json`; the helpers' protocol is that of docker-credential-helpers. A file counts
//! before the ones after it; in a file a helper for the host, then the entry with the longest path, then the helper for all.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use cas_oci::Repository;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::RegistryError;
use crate::quirks::Quirks;

/// Longest file, and longest answer of a helper.
const MAX_BYTES: u64 = 1 << 20;
/// Longest wait for a helper, which may ask its user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// Name of the user with which a helper says that the secret is a token.
const TOKEN_USER: &str = "<token>";

/// Proof of who asks. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that gives others.
    IdentityToken(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
        })
    }
}

/// Files of logins.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<(PathBuf, Logins)>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Logins {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Clone, Default, Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(…)")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// Reads files, the first one first; those that are not there are left out.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Credentials`]
    pub fn read(paths: impl IntoIterator<Item = PathBuf>) -> Result<Self, RegistryError> {
        let mut files = Vec::new();
        for path in paths {
            let logins = match is_flat(&path) {
                true => read_logins(&path)?.map(|auths| Logins { auths, ..Logins::default() }),
                false => read_logins(&path)?,
            };
            files.extend(logins.map(|logins| (path, logins)));
        }
        Ok(Self { files })
    }

    /// The login for a repository; waits for a helper where one keeps it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Credentials`], [`RegistryError::Helper`]
    pub fn find(&self, repository: &Repository) -> Result<Option<Login>, RegistryError> {
        self.find_with(repository, &Quirks::default())
    }

    pub(crate) fn find_with(&self, repository: &Repository, quirks: &Quirks) -> Result<Option<Login>, RegistryError> {
        let host = &*repository.host;
        let server = quirks.login_key(host);
        for (path, logins) in &self.files {
            let helper = logins.cred_helpers.get(host).or_else(|| logins.cred_helpers.get(server));
            if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
                if let Some(login) = Helper::new(helper.clone()).get(server)? {
                    return Ok(Some(login));
                }
                continue;
            }
            let damaged = |source| RegistryError::Credentials { path: path.clone(), source };
            if let Some(login) = logins.entry(repository, quirks).map_err(damaged)? {
                return Ok(Some(login));
            }
            if !logins.creds_store.is_empty()
                && let Some(login) = Helper::new(logins.creds_store.clone()).get(server)?
            {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

/// The host, or the host and the beginning of a path, that an entry is for.
pub(crate) fn place_of<'a>(key: &'a str, quirks: &Quirks) -> &'a str {
    let place = match key.split_once("://") {
        // Old entries are addresses, of which the host counts.
        Some((_, place)) => place.split('/').next().unwrap_or(place),
        None => key.trim_end_matches('/'),
    };
    quirks.host_of_key(place).unwrap_or(place)
}

/// Whether a file has the first format, which was the list of `auths` alone.
pub(crate) fn is_flat(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == ".dockercfg")
}

/// Reads a file of logins; `None` where there is none, or nothing in it.
pub(crate) fn read_logins<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RegistryError> {
    let bytes = match cas_fs::read_limited(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(RegistryError::file(path.to_owned(), error)),
    };
    // Some images of CI have an empty one.
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        // What the parser says may hold what it found there.
        let said = format!("no logins as docker keeps them, from line {}, column {} on", error.line(), error.column());
        RegistryError::Credentials { path: path.to_owned(), source: said.into() }
    })
}

impl Logins {
    /// The entry with the longest path that the repository is below.
    fn entry(
        &self,
        repository: &Repository,
        quirks: &Quirks,
    ) -> Result<Option<Login>, Box<dyn std::error::Error + Send + Sync>> {
        let name = repository.to_string();
        let length = |key: &str| {
            let place = place_of(key, quirks);
            let rest = name.strip_prefix(place)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(place.len())
        };
        let matching = self.auths.iter().filter_map(|(key, auth)| Some((length(key)?, auth)));
        let mut matching: Vec<(usize, &Auth)> = matching.collect();
        matching.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        for (_, auth) in matching {
            if let Some(login) = auth.login()? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

impl Auth {
    /// `None` for an entry that only says that a helper has it.
    fn login(&self) -> Result<Option<Login>, Box<dyn std::error::Error + Send + Sync>> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::IdentityToken(self.identitytoken.clone())));
        }
        if !self.auth.is_empty() {
            let bytes = base64::engine::general_purpose::STANDARD.decode(self.auth.trim());
            let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = text.ok_or("an `auth` is no base64 of a text")?;
            let (user, password) = text.split_once(':').ok_or("an `auth` holds no password")?;
            let password = password.trim_end_matches('\0');
            return Ok(Some(Login::Password { user: user.to_owned(), password: password.to_owned() }));
        }
        let is_told = !self.username.is_empty() && !self.password.is_empty();
        Ok(is_told.then(|| Login::Password { user: self.username.clone(), password: self.password.clone() }))
    }
}

/// A program that keeps logins (docker-credential-helpers).
pub(crate) struct Helper {
    name: String,
}

impl Helper {
    pub(crate) const fn new(name: String) -> Self {
        Self { name }
    }

    pub(crate) fn program(&self) -> String {
        format!("docker-credential-{}", self.name)
    }

    /// What it has for a server; `None` when it has nothing.
    pub(crate) fn get(&self, server: &str) -> Result<Option<Login>, RegistryError> {
        let (status, bytes) = self.run("get", server, server.as_bytes())?;
        if !status.success() {
            let said = String::from_utf8_lossy(&bytes);
            // The protocol has no code for it; this is the text of all of them.
            let is_absent = said.contains("credentials not found") || said.contains("no credentials");
            return if is_absent { Ok(None) } else { Err(self.ended(server, status, &said)) };
        }
        let Answer { username, secret } =
            serde_json::from_slice(&bytes).map_err(|_| self.failed(server, "its answer is no login".to_owned()))?;
        Ok(Some(match username == TOKEN_USER {
            true => Login::IdentityToken(secret),
            false => Login::Password { user: username, password: secret },
        }))
    }

    /// Gives it a login to keep.
    pub(crate) fn store(&self, server: &str, user: &str, password: &str) -> Result<(), RegistryError> {
        let text = json!({ "ServerURL": server, "Username": user, "Secret": password }).to_string();
        match self.run("store", server, text.as_bytes())? {
            (status, _) if status.success() => Ok(()),
            // One that repeats what it was given would tell it.
            (status, _) => Err(self.ended(server, status, "it did not keep the login")),
        }
    }

    /// Lets it forget what it has for a server.
    pub(crate) fn erase(&self, server: &str) -> Result<(), RegistryError> {
        match self.run("erase", server, server.as_bytes())? {
            (status, _) if status.success() => Ok(()),
            (status, bytes) => Err(self.ended(server, status, &String::from_utf8_lossy(&bytes))),
        }
    }

    fn failed(&self, server: &str, said: String) -> RegistryError {
        RegistryError::Helper { program: self.program(), host: server.to_owned(), said }
    }

    fn ended(&self, server: &str, status: ExitStatus, said: &str) -> RegistryError {
        self.failed(server, format!("{status}: {}", said.trim().chars().take(200).collect::<String>()))
    }

    fn run(&self, verb: &str, server: &str, input: &[u8]) -> Result<(ExitStatus, Vec<u8>), RegistryError> {
        let failed = |said: String| self.failed(server, said);
        let is_name = self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !is_name {
            return Err(failed("that is no name of a program".to_owned()));
        }
        let mut command = Command::new(self.program());
        command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // One that does not read says enough by its end.
        let _ = stdin.write_all(input);
        drop(stdin);
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // Whoever waited may have given up.
            let _ = sender.send(stdout.take(MAX_BYTES).read_to_end(&mut bytes).map(|_| bytes));
        });
        let start = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|error| failed(error.to_string()))? {
                Some(status) => break status,
                None if start.elapsed() > HELPER_TIMEOUT => {
                    // It may have ended just now.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("it did not end in {} seconds", HELPER_TIMEOUT.as_secs())));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        // What it started may keep its output open.
        let read = receiver.recv_timeout(HELPER_TIMEOUT.saturating_sub(start.elapsed()));
        let read = read.map_err(|_| failed("its output did not end".to_owned()))?;
        Ok((status, read.map_err(|error| failed(error.to_string()))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(files: &[(&str, &str)], name: &str) -> Result<Option<Login>, RegistryError> {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let paths = files.iter().map(|(name, text)| {
            let path = folder.path().join(name);
            cas_fs::write(&path, text.as_bytes()).expect("the folder is ours");
            path
        });
        let paths: Vec<PathBuf> = paths.chain([folder.path().join("not-there")]).collect();
        let (host, path) = name.split_once('/').expect("a name");
        Credentials::read(paths)?.find(&Repository { host: host.to_owned(), path: path.to_owned() })
    }

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn the_longest_entry_of_the_first_file_counts() {
        // `u:p`, `v:q:r`
        let auths = r#"{"auths": {"r.example": {"auth": "dTpw"}, "r.example/a": {"auth": "djpxOnI="},
            "https://index.docker.io/v1/": {"username": "hub", "password": "x"}, "https://old.example/v2/": {"auth": "dTpw"},
            "t.example": {"identitytoken": "tok", "auth": "dTpw"}, "empty.example": {}}}"#;
        let other = r#"{"auths": {"r.example": {"auth": "djpxOnI="}, "other.example": {"auth": "dTpw"}}}"#;
        for (name, expected) in [
            ("r.example/b", password("u", "p")),
            ("r.example/a", password("v", "q:r")),
            ("r.example/a/b", password("v", "q:r")),
            ("r.example/ab", password("u", "p")),
            ("docker.io/library/node", password("hub", "x")),
            ("old.example/a", password("u", "p")),
            ("t.example/a", Some(Login::IdentityToken("tok".to_owned()))),
            ("other.example/a", password("u", "p")),
            ("empty.example/a", None),
            ("unknown.example/a", None),
        ] {
            assert_eq!(
                find(&[("a.json", auths), ("b.json", other)], name).expect("they are files"),
                expected,
                "{name}"
            );
        }
        let old = [(".dockercfg", r#"{"https://index.docker.io/v1/": {"auth": "dTpw"}}"#)];
        assert_eq!(find(&old, "docker.io/a/b").expect("it is one"), password("u", "p"));
        assert_eq!(find(&[("a.json", " \n")], "docker.io/a/b").expect("it is empty"), None);
    }

    #[test]
    fn what_is_damaged_is_told_without_secrets() {
        for (text, expected) in [
            (r#"{"auths": {"r.example": {"auth": "s3cret!"}}}"#, "an `auth` is no base64 of a text"),
            (r#"{"auths": {"r.example": {"auth": "czNjcmV0"}}}"#, "an `auth` holds no password"),
            (r#"{"auths": "s3cret"}"#, "no logins as docker keeps them, from line 1, column 1"),
            (r#"{"auths": {"r.example": "u:s3cret"}}"#, "no logins as docker keeps them"),
            (r#"{"auths": {"r.example": {"username": "u", "password": 31415926}}}"#, "no logins as docker keeps them"),
        ] {
            let error = find(&[("a.json", text)], "r.example/a").expect_err(text);
            let told = format!("{error}: {:?}", std::error::Error::source(&error).map(ToString::to_string));
            assert!(told.contains("a.json") && told.contains(expected), "{told}");
            for secret in ["czNjcmV0", "s3cret", "31415926"] {
                assert!(!format!("{error:?} {told}").contains(secret), "{told}");
            }
        }
        let Err(RegistryError::Helper { said, .. }) = find(&[("a.json", r#"{"credsStore": "../x"}"#)], "r.example/a")
        else {
            panic!("it must be refused")
        };
        assert_eq!(said, "that is no name of a program");
        assert!(!format!("{:?}", password("u", "s3cret")).contains("s3cret"));
    }
}
