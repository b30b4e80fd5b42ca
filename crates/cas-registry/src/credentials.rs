//! Who asks: the files and programs where docker, podman and skopeo keep logins.
//!
//! containers-auth.json(5) and docker's `config.json`; the helpers' protocol is that of docker-credential-helpers. A file counts
//! before the ones after it; in a file a helper for the host, then the entry with the longest path, then the helper for all.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use cas_oci::{DOCKER_HUB, Repository};
use serde::Deserialize;

use crate::RegistryError;

/// Longest file, and longest answer of a helper.
const MAX_BYTES: u64 = 1 << 20;
/// Longest wait for a helper, which may ask its user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// What docker calls its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
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
            let bytes = match cas_fs::read_limited(&path, MAX_BYTES) {
                Ok(bytes) => bytes,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(RegistryError::file(path, error)),
            };
            // Some images of CI have an empty one.
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let parsed = serde_json::from_slice(&bytes);
            // The first format was the list of `auths` alone.
            let parsed = match path.file_name().is_some_and(|name| name == ".dockercfg") {
                true => serde_json::from_slice(&bytes).map(|auths| Logins { auths, ..Logins::default() }),
                false => parsed,
            };
            match parsed {
                Ok(logins) => files.push((path, logins)),
                // What the parser says may hold what it found there.
                Err(error) => {
                    let said = format!(
                        "no logins as docker keeps them, from line {}, column {} on",
                        error.line(),
                        error.column()
                    );
                    return Err(RegistryError::Credentials { path, source: said.into() });
                }
            }
        }
        Ok(Self { files })
    }

    /// The login for a repository; waits for a helper where one keeps it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Credentials`], [`RegistryError::Helper`]
    pub fn find(&self, repository: &Repository) -> Result<Option<Login>, RegistryError> {
        let host = &*repository.host;
        let server = if host == DOCKER_HUB { DOCKER_HUB_KEY } else { host };
        for (path, logins) in &self.files {
            let helper = logins.cred_helpers.get(host).or_else(|| logins.cred_helpers.get(server));
            if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
                if let Some(login) = ask(helper, server)? {
                    return Ok(Some(login));
                }
                continue;
            }
            let damaged = |source| RegistryError::Credentials { path: path.clone(), source };
            if let Some(login) = logins.entry(repository).map_err(damaged)? {
                return Ok(Some(login));
            }
            if !logins.creds_store.is_empty()
                && let Some(login) = ask(&logins.creds_store, server)?
            {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

impl Logins {
    /// The entry with the longest path that the repository is below.
    fn entry(&self, repository: &Repository) -> Result<Option<Login>, Box<dyn std::error::Error + Send + Sync>> {
        let name = repository.to_string();
        let length = |key: &str| {
            let place = match key.split_once("://") {
                // Old entries are addresses, of which the host counts.
                Some((_, place)) => place.split('/').next().unwrap_or(place),
                None => key.trim_end_matches('/'),
            };
            let place = if place == "index.docker.io" { DOCKER_HUB } else { place };
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

/// Asks a helper; `None` when it has nothing for the server.
fn ask(helper: &str, server: &str) -> Result<Option<Login>, RegistryError> {
    let program = format!("docker-credential-{helper}");
    let failed = |said: String| RegistryError::Helper { program: program.clone(), host: server.to_owned(), said };
    let is_name = helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !is_name {
        return Err(failed("that is no name of a program".to_owned()));
    }
    let spawned =
        Command::new(&program).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = spawned.map_err(|error| failed(error.to_string()))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that does not read says enough by its end.
    let _ = stdin.write_all(server.as_bytes());
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
    let bytes = read.map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&bytes);
        let said = said.trim();
        // The protocol has no code for it; this is the text of all of them.
        let is_absent = said.contains("credentials not found") || said.contains("no credentials");
        return if is_absent {
            Ok(None)
        } else {
            Err(failed(format!("{status}: {}", said.chars().take(200).collect::<String>())))
        };
    }
    let Answer { username, secret } =
        serde_json::from_slice(&bytes).map_err(|_| failed("its answer is no login".to_owned()))?;
    Ok(Some(match username == TOKEN_USER {
        true => Login::IdentityToken(secret),
        false => Login::Password { user: username, password: secret },
    }))
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
