//! `Cargo.lock` of versions 3 and 4: the crates that are to be fetched.

use std::collections::BTreeMap;

use cas_digest::{Digest, DigestFunction};
use serde::Deserialize;

/// How lockfiles name the registry crates.io.
pub const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Longest lockfile that is read, in bytes. One of 1,000 packages has 250 KiB.
const MAX_BYTES: usize = 32 << 20;
/// Longest name of a crate.
const MAX_NAME_BYTES: usize = 128;
/// Longest version.
const MAX_VERSION_BYTES: usize = 256;

/// A crate of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedCrate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its registry, as the lockfile names it: `registry+URL` or `sparse+URL`.
    pub registry: String,
    /// SHA-256 of its archive.
    pub checksum: Digest,
}

impl LockedCrate {
    /// The folder that its archive has, and that it gets: `name-version`.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// A lockfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CargoLock {
    /// Its crates of registries, by folder.
    pub crates: Vec<LockedCrate>,
}

/// Why a lockfile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CargoLockError {
    /// It is longer than any real one.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    Text(#[from] std::str::Utf8Error),
    /// It is not TOML of this shape.
    #[error("it is not a lockfile of cargo")]
    Syntax(#[from] toml::de::Error),
    /// Another version.
    #[error("it has version {version}; known are 3 and 4, which cargo 1.53 and later write")]
    Version {
        /// The version; files without one are of version 1 or 2.
        version: i64,
    },
    /// Crates that come from git.
    #[error("{crates} come from git, which is not available yet")]
    Git {
        /// Names, versions and places.
        crates: String,
    },
    /// A crate from another kind of place.
    #[error("`{name}` comes from `{place}`, which is no registry")]
    Source {
        /// The crate.
        name: String,
        /// The place.
        place: String,
    },
    /// A crate without a checksum.
    #[error("`{name}` has no checksum")]
    NoChecksum {
        /// The crate.
        name: String,
    },
    /// A checksum that is not one.
    #[error("`{name}` has a bad checksum: {source}")]
    Checksum {
        /// The crate.
        name: String,
        /// Why.
        source: cas_digest::ParseDigestError,
    },
    /// A name or version that no crate has.
    #[error("it names the crate `{name}` of version `{version}`")]
    Name {
        /// The name.
        name: String,
        /// The version.
        version: String,
    },
    /// Two crates of one name and version.
    #[error("it has `{name}` of two registries, which one folder cannot hold")]
    Twice {
        /// Name and version.
        name: String,
    },
}

impl CargoLockError {
    /// What the user can do about it.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Version { .. } => {
                Some("write it anew with a current cargo: `cargo generate-lockfile`, which takes newer crates, too")
            }
            Self::Git { .. } => {
                Some("use a version from a registry, or add the sources to the workspace and depend on them by `path`")
            }
            Self::NoChecksum { .. } | Self::Checksum { .. } | Self::Name { .. } => {
                Some("restore `Cargo.lock`, or write it anew with `cargo generate-lockfile`")
            }
            _ => None,
        }
    }
}

mod raw {
    use super::{BTreeMap, Deserialize};

    #[derive(Deserialize)]
    pub(super) struct Lockfile {
        pub(super) version: Option<i64>,
        #[serde(default)]
        pub(super) package: Vec<Package>,
        // Version 1 has checksums here.
        #[serde(default)]
        pub(super) metadata: BTreeMap<String, toml::Value>,
    }

    #[derive(Deserialize)]
    pub(super) struct Package {
        pub(super) name: String,
        pub(super) version: String,
        pub(super) source: Option<String>,
        pub(super) checksum: Option<String>,
    }
}

impl CargoLock {
    /// Reads a lockfile. Packages without a source are those of the workspace.
    ///
    /// # Errors
    ///
    /// [`CargoLockError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, CargoLockError> {
        if bytes.len() > MAX_BYTES {
            return Err(CargoLockError::TooLong);
        }
        let raw: raw::Lockfile = toml::from_str(std::str::from_utf8(bytes)?)?;
        match raw.version {
            Some(3 | 4) => {}
            Some(version) => return Err(CargoLockError::Version { version }),
            None => return Err(CargoLockError::Version { version: if raw.metadata.is_empty() { 2 } else { 1 } }),
        }
        let mut crates: BTreeMap<String, LockedCrate> = BTreeMap::new();
        let mut git = Vec::new();
        for raw::Package { name, version, source, checksum } in raw.package {
            if !is_name(&name) || !is_version(&version) {
                return Err(CargoLockError::Name { name, version });
            }
            let Some(source) = source else { continue };
            if let Some(place) = source.strip_prefix("git+") {
                git.push(format!("`{name} {version}` ({})", place.split(['?', '#']).next().unwrap_or(place)));
                continue;
            }
            if !source.starts_with("registry+") && !source.starts_with("sparse+") {
                return Err(CargoLockError::Source { name, place: source });
            }
            let checksum = checksum.ok_or_else(|| CargoLockError::NoChecksum { name: format!("{name} {version}") })?;
            let checksum = Digest::from_hex(DigestFunction::Sha256, &checksum)
                .map_err(|source| CargoLockError::Checksum { name: format!("{name} {version}"), source })?;
            let found = LockedCrate { name, version, registry: source, checksum };
            let folder = found.folder();
            if crates.insert(folder.clone(), found).is_some() {
                return Err(CargoLockError::Twice { name: folder });
            }
        }
        if !git.is_empty() {
            return Err(CargoLockError::Git { crates: git.join(", ") });
        }
        Ok(Self { crates: crates.into_values().collect() })
    }
}

/// Whether a text is the name of a crate, and of a part of a folder and an address.
fn is_name(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(part)
}

/// Whether a text has the letters of a semantic version and begins as one.
fn is_version(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'+');
    text.as_bytes().first().is_some_and(u8::is_ascii_digit) && text.len() <= MAX_VERSION_BYTES && text.bytes().all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn parse(packages: &str) -> Result<CargoLock, String> {
        let packages = packages
            .replace("CRATES", &format!("source = \"{CRATES_IO}\""))
            .replace("SUM", &format!("checksum = \"{SUM}\""));
        let text = format!("version = 4\n{packages}");
        CargoLock::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn crates_of_registries_are_found() {
        let text = "[[package]]\nname = \"own\"\nversion = \"0.1.0\"\ndependencies = [\"b\", \"a 1.0.0\"]\n\
            [[package]]\nname = \"b\"\nversion = \"2.0.0-rc.1+x\"\nsource = \"sparse+https://host/index/\"\nSUM\n\
            [[package]]\nname = \"a\"\nversion = \"1.0.0\"\nCRATES\nSUM\n\
            [[package]]\nname = \"a\"\nversion = \"2.0.0\"\nCRATES\nSUM\n\
            [[patch.unused]]\nname = \"c\"\nversion = \"1.0.0\"\n";
        let lock = parse(text).expect("it is a lockfile");
        let folders: Vec<String> = lock.crates.iter().map(LockedCrate::folder).collect();
        assert_eq!(folders, ["a-1.0.0", "a-2.0.0", "b-2.0.0-rc.1+x"]);
        assert_eq!(lock.crates[0].registry, CRATES_IO);
        assert_eq!(lock.crates[2].registry, "sparse+https://host/index/");
        assert_eq!(lock.crates[0].checksum.to_hex(), SUM);
        assert_eq!(parse("").map(|lock| lock.crates.len()), Ok(0));
    }

    #[test]
    fn what_a_lockfile_must_not_say_is_an_error() {
        let package = |rest: &str| format!("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n{rest}\n");
        let git = "source = \"git+https://host/a?branch=x#0123\"";
        let rows = [
            (package("CRATES"), "`a 1.0.0` has no checksum"),
            (package("CRATES\nchecksum = \"zz\""), "`a 1.0.0` has a bad checksum: "),
            (package(git), "`a 1.0.0` (https://host/a) come from git, which is not available yet"),
            (package("source = \"path+file:///x\""), "`a` comes from `path+file:///x`, which is no registry"),
            (package("CRATES\nSUM").replace("\"a\"", "\"../a\""), "it names the crate `../a` of version `1.0.0`"),
            (package("CRATES\nSUM").replace("1.0.0", "../1"), "it names the crate `a` of version `../1`"),
            (
                format!("{}{}", package("CRATES\nSUM"), package("source = \"sparse+https://host/\"\nSUM")),
                "it has `a-1.0.0` of two registries, which one folder cannot hold",
            ),
            ("package = 1\n".to_owned(), "it is not a lockfile of cargo"),
        ];
        for (text, message) in rows {
            let error = parse(&text).expect_err("it is wrong");
            assert!(error.starts_with(message), "{text} gave {error}");
        }
        for (text, version) in [("version = 5\n", 5), ("", 2), ("[metadata]\nx = \"y\"\n", 1)] {
            let error = CargoLock::parse(text.as_bytes()).expect_err("another version");
            assert!(matches!(error, CargoLockError::Version { version: found } if found == version), "{error}");
        }
    }
}
