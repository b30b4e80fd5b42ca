//! `cas.lock`: what is pinned.

use std::fmt::Write as _;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction, ParseDigestError};
use cas_oci::digest_of;
use cas_tree::{RelPath, RelPathError};
use serde::Deserialize;

/// Longest lock that is read, in bytes.
const MAX_LOCK_BYTES: usize = 64 << 20;

/// What a workspace has pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// Toolchains, by target and architecture.
    pub debian: Vec<LockedDebian>,
    /// Images of others, by target.
    pub image: Vec<LockedImage>,
    /// Packages of an npm registry, by target.
    pub npm: Vec<LockedNpm>,
}

/// The packages of a toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedDebian {
    /// Label of the target.
    pub target: String,
    /// What was asked for.
    pub request: String,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// Dates of the suites' releases that were resolved against, in the order of the archives, in seconds since 1970.
    pub release_dates: Vec<u64>,
    /// By name.
    pub packages: Vec<LockedPackage>,
}

/// A pinned `.deb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Which of the toolchain's archives has it, in their order.
    pub archive: usize,
    /// Path below the archive's root.
    pub path: RelPath,
    /// SHA-256 and size.
    pub blob: Descriptor,
}

/// A pinned image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedImage {
    /// Label of the target.
    pub target: String,
    /// What was asked for.
    pub request: String,
    /// Digest and size of its manifest, or of its index.
    pub document: Descriptor,
}

/// A pinned package of an npm registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedNpm {
    /// Label of the target.
    pub target: String,
    /// `name@version`.
    pub request: String,
    /// Path of the tarball below the registry's root.
    pub path: RelPath,
    /// `sha512-` and base64, as npm writes it.
    pub integrity: String,
}

/// Why a lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It is longer than any real one.
    #[error("the lock is longer than {MAX_LOCK_BYTES} bytes")]
    TooLong,
    /// It is not TOML of this shape.
    #[error("the lock is damaged: {}", .0.message())]
    Syntax(#[from] toml::de::Error),
    /// It was written by a later version.
    #[error("the lock has format {format}, this version knows 1")]
    Format {
        /// The format.
        format: u64,
    },
    /// A path leaves its root.
    #[error("the lock names the path `{path}` for `{target}`")]
    Path {
        /// The path.
        path: String,
        /// What it is for.
        target: String,
        /// What is wrong with it.
        source: RelPathError,
    },
    /// The digest of an image is not one.
    #[error("the lock has a bad digest for `{target}`")]
    ImageDigest {
        /// The target.
        target: String,
    },
    /// A digest is not one.
    #[error("the lock has a bad digest for `{package}` of `{target}`")]
    Digest {
        /// The package.
        package: String,
        /// Of which toolchain.
        target: String,
        /// What is wrong with it.
        source: ParseDigestError,
    },
    /// Entries are not sorted, or one is there twice.
    #[error("the lock is not sorted at `{at}`")]
    Order {
        /// The entry or package.
        at: String,
    },
}

impl LockError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Format { .. } => "use a newer cas",
            _ => "restore the file from version control, or remove it and run `cas lock`",
        }
    }
}

mod raw {
    use super::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Lock {
        #[serde(rename = "format")]
        pub(super) _format: u64,
        #[serde(default)]
        pub(super) debian: Vec<Debian>,
        #[serde(default)]
        pub(super) image: Vec<Image>,
        #[serde(default)]
        pub(super) npm: Vec<Npm>,
    }

    #[derive(Deserialize)]
    pub(super) struct Format {
        pub(super) format: u64,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Debian {
        pub(super) target: String,
        pub(super) request: String,
        pub(super) architecture: String,
        pub(super) release_date: Dates,
        pub(super) packages: Vec<Package>,
    }

    /// One for the archive, or one for each.
    #[derive(Deserialize)]
    #[serde(untagged)]
    pub(super) enum Dates {
        One(u64),
        Each(Vec<u64>),
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Package {
        pub(super) name: String,
        pub(super) version: String,
        #[serde(default)]
        pub(super) archive: usize,
        pub(super) path: String,
        pub(super) sha256: String,
        pub(super) size: u64,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Image {
        pub(super) target: String,
        pub(super) request: String,
        pub(super) digest: String,
        pub(super) size: u64,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub(super) struct Npm {
        pub(super) target: String,
        pub(super) request: String,
        pub(super) path: String,
        pub(super) integrity: String,
    }
}

impl Lock {
    /// Reads a lock.
    ///
    /// # Errors
    ///
    /// [`LockError`]
    pub fn parse(text: &str) -> Result<Self, LockError> {
        if text.len() > MAX_LOCK_BYTES {
            return Err(LockError::TooLong);
        }
        // First alone: a later format may have a shape that this version would call damaged.
        let raw::Format { format } = toml::from_str(text)?;
        if format != 1 {
            return Err(LockError::Format { format });
        }
        let raw: raw::Lock = toml::from_str(text)?;
        let path = |path: &str, target: &str| {
            RelPath::new(path).map_err(|source| LockError::Path {
                path: path.to_owned(),
                target: target.to_owned(),
                source,
            })
        };
        let mut lock = Self::default();
        for entry in raw.debian {
            let raw::Debian { target, request, architecture, release_date, packages: found } = entry;
            let release_dates = match release_date {
                raw::Dates::One(date) => vec![date],
                raw::Dates::Each(dates) => dates,
            };
            let mut packages = Vec::with_capacity(found.len());
            for package in found {
                let digest = Digest::from_hex(DigestFunction::Sha256, &package.sha256).map_err(|source| {
                    LockError::Digest { package: package.name.clone(), target: target.clone(), source }
                })?;
                packages.push(LockedPackage {
                    path: path(&package.path, &target)?,
                    blob: Descriptor { digest, size: package.size },
                    archive: package.archive,
                    name: package.name,
                    version: package.version,
                });
            }
            sorted(&packages, |package| (package.name.as_str(), ""))?;
            lock.debian.push(LockedDebian { target, request, architecture, release_dates, packages });
        }
        sorted(&lock.debian, |entry| (entry.target.as_str(), entry.architecture.as_str()))?;
        for entry in raw.image {
            let raw::Image { target, request, digest, size } = entry;
            let digest = digest_of(&digest).ok_or_else(|| LockError::ImageDigest { target: target.clone() })?;
            lock.image.push(LockedImage { target, request, document: Descriptor { digest, size } });
        }
        sorted(&lock.image, |entry| (entry.target.as_str(), ""))?;
        for entry in raw.npm {
            let path = path(&entry.path, &entry.target)?;
            lock.npm.push(LockedNpm { target: entry.target, request: entry.request, path, integrity: entry.integrity });
        }
        sorted(&lock.npm, |entry| (entry.target.as_str(), ""))?;
        Ok(lock)
    }

    /// The lock's text; whatever the order of the entries, it is sorted.
    #[must_use]
    pub fn to_text(&self) -> String {
        let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = "# Written by cas. What is pinned here is fetched by these digests, from wherever it can be had.\nformat = 1\n".to_owned();
        let mut debian: Vec<&LockedDebian> = self.debian.iter().collect();
        debian.sort_by_key(|entry| (&entry.target, &entry.architecture));
        let fine = "a string takes everything";
        for entry in debian {
            let dates: Vec<String> = entry.release_dates.iter().map(u64::to_string).collect();
            let dates = if dates.len() == 1 { dates.concat() } else { format!("[{}]", dates.join(", ")) };
            write!(
                text,
                "\n[[debian]]\ntarget = {}\nrequest = {}\narchitecture = {}\nrelease_date = {}\npackages = [\n",
                quote(&entry.target),
                quote(&entry.request),
                quote(&entry.architecture),
                dates
            )
            .expect(fine);
            let mut packages: Vec<&LockedPackage> = entry.packages.iter().collect();
            packages.sort_by_key(|package| &package.name);
            for package in packages {
                let archive = match package.archive {
                    0 => String::new(),
                    number => format!("archive = {number}, "),
                };
                writeln!(
                    text,
                    "  {{ name = {}, version = {}, {archive}path = {}, sha256 = \"{}\", size = {} }},",
                    quote(&package.name),
                    quote(&package.version),
                    quote(&package.path.to_string()),
                    package.blob.digest.to_hex(),
                    package.blob.size
                )
                .expect(fine);
            }
            text.push_str("]\n");
        }
        let mut image: Vec<&LockedImage> = self.image.iter().collect();
        image.sort_by_key(|entry| &entry.target);
        for entry in image {
            write!(
                text,
                "\n[[image]]\ntarget = {}\nrequest = {}\ndigest = \"{}\"\nsize = {}\n",
                quote(&entry.target),
                quote(&entry.request),
                entry.document.digest,
                entry.document.size
            )
            .expect(fine);
        }
        let mut npm: Vec<&LockedNpm> = self.npm.iter().collect();
        npm.sort_by_key(|entry| &entry.target);
        for entry in npm {
            write!(
                text,
                "\n[[npm]]\ntarget = {}\nrequest = {}\npath = {}\nintegrity = {}\n",
                quote(&entry.target),
                quote(&entry.request),
                quote(&entry.path.to_string()),
                quote(&entry.integrity)
            )
            .expect(fine);
        }
        text
    }
}

fn sorted<'a, T>(entries: &'a [T], key: impl Fn(&'a T) -> (&'a str, &'a str)) -> Result<(), LockError> {
    match entries.windows(2).find(|pair| key(&pair[0]) >= key(&pair[1])) {
        Some(pair) => Err(LockError::Order { at: key(&pair[1]).0.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Lock {
        let package = |name: &str| LockedPackage {
            name: name.to_owned(),
            version: "1:2.3-4+b1".to_owned(),
            archive: usize::from(name == "nodejs"),
            path: RelPath::new(format!("pool/main/{name}_2.3.deb")).expect("a path"),
            blob: Descriptor::of(DigestFunction::Sha256, name.as_bytes()),
        };
        Lock {
            debian: vec![LockedDebian {
                target: "//:node".to_owned(),
                request: "bookworm main nodejs".to_owned(),
                architecture: "amd64".to_owned(),
                release_dates: vec![1_748_167_200, 1_748_167_300],
                packages: vec![package("b\"q"), package("nodejs")],
            }],
            image: vec![LockedImage {
                target: "//:base".to_owned(),
                request: "docker.io/library/node:22".to_owned(),
                document: Descriptor::of(DigestFunction::Sha256, b"index"),
            }],
            npm: vec![LockedNpm {
                target: "//:npm".to_owned(),
                request: "npm@11.6.2".to_owned(),
                path: RelPath::new("npm/-/npm-11.6.2.tgz").expect("a path"),
                integrity: "sha512-AAAA".to_owned(),
            }],
        }
    }

    #[test]
    fn locks_are_read_as_they_were_written() {
        let text = example().to_text();
        assert_eq!(Lock::parse(&text).expect("it is a lock"), example());
        assert_eq!(Lock::parse("format = 1").expect("it is a lock"), Lock::default());
        assert!(text.contains("\nrelease_date = [1748167200, 1748167300]\n"), "{text}");
        let mut single = example();
        single.debian[0].release_dates.pop();
        assert!(single.to_text().contains("\nrelease_date = 1748167200\n"));
        assert_eq!(Lock::parse(&single.to_text()).expect("it is a lock"), single);
        let mut turned = example();
        turned.debian[0].packages.reverse();
        assert_eq!(turned.to_text(), text, "order of entries does not matter");
    }

    #[test]
    fn what_must_not_be_in_a_lock_is_an_error() {
        let text = example().to_text();
        for (from, to, message) in [
            ("format = 1", "format = 2", "the lock has format 2, this version knows 1"),
            ("pool/main", "../main", "the lock names the path `../main/b\"q_2.3.deb` for `//:node`"),
            ("npm/-/npm", "/npm", "the lock names the path `/npm-11.6.2.tgz` for `//:npm`"),
            ("sha256 = \"", "sha256 = \"x", "the lock has a bad digest for `b\"q` of `//:node`"),
            ("digest = \"sha256", "digest = \"blake3", "the lock has a bad digest for `//:base`"),
            ("nodejs\", version", "a\", version", "the lock is not sorted at `a`"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert_eq!(Lock::parse(&changed).expect_err("it is wrong").to_string(), message);
        }
        assert!(Lock::parse(&text.replacen("request", "requests", 1)).is_err());
    }
}
