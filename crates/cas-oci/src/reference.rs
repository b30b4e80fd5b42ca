//! Names of images in registries, and of places that hold one.
//!
//! Names: distribution's grammar (`reference/reference.go`: `[host[:port]/]path[:tag][@digest]`), with a host always written.
//! Places: the transports of containers/image, as skopeo has them (containers-transports(5)).

use std::fmt;
use std::str::FromStr;

use cas_digest::{Digest, DigestFunction};

use crate::TargetPlatform;

/// Longest name of a repository, without its host.
const MAX_REPOSITORY_BYTES: usize = 255;
/// What digests begin with, known here or not.
const DIGEST_WORDS: [&str; 3] = ["sha", "blake", "md5"];
/// What to do about a login in a name.
const LOGIN_HINT: &str = "leave it out: `cas login HOST` keeps one, and files of docker and podman are read";
/// Longest tag.
const MAX_TAG_BYTES: usize = 128;
/// Docker's public registry, as names have it.
pub const DOCKER_HUB: &str = "docker.io";

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// Host, and port where it is not the usual one, as names have it.
    pub host: String,
    /// Path, like `library/node`.
    pub path: String,
}

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Where.
    pub repository: Repository,
    /// What it is called there.
    pub tag: Option<String>,
    /// What it is. It counts where both are told.
    pub digest: Option<Digest>,
}

/// A place that holds an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// `host/path:tag`, `host/path@digest`, with `docker://` before it or not.
    Registry(Reference),
    /// `oci:FOLDER[:TAG]`: an image layout.
    Layout {
        /// The folder.
        path: String,
        /// Which of its images; the only one where none is told.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: a tar of an image layout.
    Archive {
        /// The file.
        path: String,
        /// Which of its images.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:NAME:TAG]`: what `docker save` writes.
    DockerArchive {
        /// The file.
        path: String,
        /// Which of its images.
        tag: Option<String>,
    },
    /// `dir:FOLDER`: a manifest beside its blobs, as skopeo has it. All that follows the colon is the path.
    Folder {
        /// The folder.
        path: String,
    },
    /// `tar:FILE[:PLATFORM]`: the files of an image without anything else.
    Root {
        /// The file.
        path: String,
        /// What it is for, where that is told.
        platform: Option<TargetPlatform>,
    },
}

/// Why a text names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// There is no host.
    #[error("`{text}` does not name its registry")]
    NoHost {
        /// The text.
        text: String,
    },
    /// A login stands before the host.
    #[error("a login stands before `{rest}`")]
    Login {
        /// What is behind it.
        rest: String,
    },
    /// Neither a tag nor a digest.
    #[error("`{text}` has neither a tag nor a digest")]
    NoVersion {
        /// The text.
        text: String,
    },
    /// A part of it is not what it must be.
    #[error("`{text}` has a bad {part}")]
    Part {
        /// The text.
        text: String,
        /// Which part.
        part: &'static str,
    },
    /// A part of a place with a path is not what it must be.
    #[error("`{text}` has {part}")]
    Place {
        /// The text.
        text: String,
        /// Which part.
        part: BadPart,
    },
}

/// What is behind the path of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagKind {
    /// `TAG`: the name of an image in a layout.
    Tag,
    /// `NAME:TAG`, as docker has it.
    Name,
}

/// The part of a place's name that is not what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadPart {
    /// Nothing is before the first colon, or a NUL byte.
    Path,
    /// What is behind the first colon.
    Tag {
        /// What it must be.
        kind: TagKind,
        /// What it is.
        tag: String,
    },
    /// All of it, where there is no path.
    Name {
        /// What it is.
        name: String,
    },
}

impl fmt::Display for BadPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("a bad path"),
            Self::Tag { kind: TagKind::Tag, tag } => write!(f, "a bad tag, `{tag}`"),
            Self::Tag { kind: TagKind::Name, tag: name } | Self::Name { name } => write!(f, "a bad name, `{name}`"),
        }
    }
}

impl BadPart {
    /// What to write instead.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Path => "name a file or folder behind the transport, as `oci:FOLDER:TAG`",
            Self::Tag { kind: TagKind::Tag, .. } => {
                "the path ends at the first colon; a tag has at most 128 letters, digits, `.`, `_` and `-`, and begins with a letter, a digit or `_`"
            }
            Self::Tag { kind: TagKind::Name, .. } => {
                "the path ends at the first colon; write `NAME:TAG` in small letters behind it"
            }
            Self::Name { .. } => "write `NAME:TAG` in small letters, with the registry before it if it has one",
        }
    }
}

/// Splits what follows the transport of a place into a path and what is behind it.
///
/// The first colon separates them, as in containers/image (`oci/internal`, `docker/archive`): a path with a colon has no name.
///
/// # Errors
///
/// The part that is not what it must be.
pub fn split_place(rest: &str, kind: TagKind) -> Result<(&str, Option<&str>), BadPart> {
    let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
    let is_fine = match kind {
        TagKind::Tag => is_tag,
        TagKind::Name => is_name_with_tag,
    };
    match tag {
        _ if path.is_empty() || path.contains('\0') => Err(BadPart::Path),
        Some(tag) if !is_fine(tag) => Err(BadPart::Tag { kind, tag: tag.to_owned() }),
        tag => Ok((path, tag)),
    }
}

impl ParseReferenceError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NoHost { text } => format!("write `{DOCKER_HUB}/{}{text}`", if text.contains('/') { "" } else { "library/" }),
            Self::NoVersion { text } => format!("write `{text}:TAG`: which version it is then is pinned in `cas.lock`"),
            Self::Place { part, .. } => part.hint().to_owned(),
            Self::Login { .. } => LOGIN_HINT.to_owned(),
            Self::Part { .. } => {
                "write `host/path:tag`, `host/path@sha256:…`, `oci:FOLDER:TAG`, `oci-archive:FILE`, `docker-archive:FILE`, `dir:FOLDER` or `tar:FILE`".to_owned()
            }
        }
    }
}

/// Ends of the names of archives that say what they are, the longer ones first.
const ARCHIVE_ENDS: [&str; 7] = [".tar.gz", ".tar.zst", ".tar.xz", ".tgz", ".tzst", ".txz", ".tar"];
/// The tag of an image whose place tells none.
const DEFAULT_TAG: &str = "latest";

impl ImageSource {
    /// What an image of this place is called where nobody says otherwise: a name without a transport and without folders, so that it
    /// means the same wherever it is written. `None` where the place has none that can be a name with a tag.
    #[must_use]
    pub fn default_name(&self) -> Option<String> {
        let (path, tag) = match self {
            Self::Registry(reference) => return Some(reference.to_string()),
            Self::DockerArchive { tag: Some(name), .. } => return Some(name.clone()),
            Self::Layout { path, tag } | Self::Archive { path, tag } => (path, tag.as_deref()),
            Self::DockerArchive { path, tag: None } | Self::Folder { path } | Self::Root { path, .. } => (path, None),
        };
        let last = path.trim_end_matches('/').rsplit('/').next()?;
        let stem = ARCHIVE_ENDS.iter().find_map(|end| last.strip_suffix(end)).unwrap_or(last);
        let name = format!("{stem}:{}", tag.unwrap_or(DEFAULT_TAG));
        is_name_with_tag(&name).then_some(name)
    }
}

impl FromStr for ImageSource {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = |rest: &str| match rest.is_empty() || rest.contains('\0') {
            true => Err(ParseReferenceError::Part { text: text.to_owned(), part: "path" }),
            false => Ok(rest.to_owned()),
        };
        let place = |rest, tag_kind| match split_place(rest, tag_kind) {
            Ok((path, tag)) => Ok((path.to_owned(), tag.map(str::to_owned))),
            Err(part) => Err(ParseReferenceError::Place { text: text.to_owned(), part }),
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            return place(rest, TagKind::Tag).map(|(path, tag)| Self::Layout { path, tag });
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return place(rest, TagKind::Tag).map(|(path, tag)| Self::Archive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            return place(rest, TagKind::Name).map(|(path, tag)| Self::DockerArchive { path, tag });
        }
        if let Some(rest) = text.strip_prefix("dir:") {
            return path(rest).map(|path| Self::Folder { path });
        }
        if let Some(rest) = text.strip_prefix("tar:") {
            // A colon before anything else belongs to the path.
            let told =
                rest.rsplit_once(':').and_then(|(path, words)| Some((path, words.parse::<TargetPlatform>().ok()?)));
            let (rest, platform) = told.map_or((rest, None), |(path, platform)| (path, Some(platform)));
            return path(rest).map(|path| Self::Root { path, platform });
        }
        text.strip_prefix("docker://").unwrap_or(text).parse().map(Self::Registry)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = behind_login(text) {
            return Err(ParseReferenceError::Login { rest: rest.to_owned() });
        }
        let bad = |part| ParseReferenceError::Part { text: text.to_owned(), part };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest_of(digest).ok_or_else(|| bad("digest"))?)),
            None => (text, None),
        };
        // A colon before the last slash is of a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("tag"));
        }
        let no_host = || ParseReferenceError::NoHost { text: text.to_owned() };
        let (host, path) = name.split_once('/').ok_or_else(no_host)?;
        if !(host.contains(['.', ':']) || host == "localhost") {
            return Err(no_host());
        }
        if !is_host(host) {
            return Err(bad("host"));
        }
        let host = if host == "index.docker.io" { DOCKER_HUB } else { host };
        let path = match host == DOCKER_HUB && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        if !is_repository(&path) {
            return Err(bad("path"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(ParseReferenceError::NoVersion { text: text.to_owned() });
        }
        let repository = Repository { host: host.to_owned(), path };
        Ok(Self { repository, tag: tag.map(str::to_owned), digest })
    }
}

/// What is behind the last `@` that no digest follows: before it may be a password, which is never shown.
fn behind_login(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once('@')?;
    let function = rest.split_once(':').map_or(rest, |(function, _)| function);
    let is_digest = !rest.contains('/') && DIGEST_WORDS.iter().any(|word| function.starts_with(word));
    (!is_digest).then_some(rest)
}

/// A digest that names documents and blobs of images: SHA-256 or SHA-512 (OCI image-spec 1.1, descriptor.md, Digests).
#[must_use]
pub fn digest_of(text: &str) -> Option<Digest> {
    let digest: Digest = text.parse().ok()?;
    matches!(digest.function(), DigestFunction::Sha256 | DigestFunction::Sha512).then_some(digest)
}

/// Whether a text is a name with a tag as `docker load` has it: a repository, with or without its host, a colon, and the tag.
#[must_use]
pub fn is_name_with_tag(text: &str) -> bool {
    let Some((name, tag)) = text.rsplit_once(':') else { return false };
    let is_first_host = |part: &str| name != part && part.contains(['.', ':']) && is_host(part);
    let is_part = |(index, part): (usize, &str)| is_component(part) || (index == 0 && is_first_host(part));
    is_tag(tag) && name.len() <= MAX_REPOSITORY_BYTES && name.split('/').enumerate().all(is_part)
}

/// Whether a text is the path of a repository, without its host.
#[must_use]
pub fn is_repository(path: &str) -> bool {
    path.len() <= MAX_REPOSITORY_BYTES && path.split('/').all(is_component)
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_part = |part: &str| {
        let is_fine = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_fine && !part.is_empty() && !part.starts_with('-') && !part.ends_with('-')
    };
    let is_address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_name = match is_address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_part),
    };
    is_name && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Lower case and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let has_ends =
        bytes.first().is_some_and(|byte| is_letter(*byte)) && bytes.last().is_some_and(|byte| is_letter(*byte));
    has_ends
        && bytes.split(|byte| is_letter(*byte)).all(|between| match between {
            b"" | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|byte| *byte == b'-'),
        })
}

/// Whether a text is a tag (OCI distribution-spec 1.1, "Pulling manifests").
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= MAX_TAG_BYTES
        && bytes.first().is_some_and(|byte| is_word(*byte))
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-'))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match self {
            Self::Registry(reference) => return write!(f, "{reference}"),
            Self::Folder { path } => return write!(f, "dir:{path}"),
            Self::Root { path, platform: None } => return write!(f, "tar:{path}"),
            Self::Root { path, platform: Some(platform) } => return write!(f, "tar:{path}:{platform}"),
            Self::Layout { path, tag } => ("oci", path, tag),
            Self::Archive { path, tag } => ("oci-archive", path, tag),
            Self::DockerArchive { path, tag } => ("docker-archive", path, tag),
        };
        write!(f, "{transport}:{path}")?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_whole() {
        let hex = "a".repeat(64);
        for (text, expected) in [
            ("docker.io/library/node:18-slim", "docker.io/library/node:18-slim"),
            ("docker://docker.io/node:18", "docker.io/library/node:18"),
            ("index.docker.io/a/b:1", "docker.io/a/b:1"),
            ("localhost:5000/x/y_z/a--b.c:V1.0_x", "localhost:5000/x/y_z/a--b.c:V1.0_x"),
            ("127.0.0.1:5000/x:1", "127.0.0.1:5000/x:1"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1"),
            (&format!("ghcr.io/a/b@sha256:{hex}"), &format!("ghcr.io/a/b@sha256:{hex}")),
            (&format!("ghcr.io/a/b:1@sha256:{hex}"), &format!("ghcr.io/a/b:1@sha256:{hex}")),
            ("oci:images/base:v1", "oci:images/base:v1"),
            ("oci:/srv/images", "oci:/srv/images"),
            ("oci-archive:a.tar", "oci-archive:a.tar"),
            ("docker-archive:a.tar:docker.io/x/y:1", "docker-archive:a.tar:docker.io/x/y:1"),
            ("dir:a:b/c", "dir:a:b/c"),
            ("tar:a.tar", "tar:a.tar"),
            ("tar:a:b.tar", "tar:a:b.tar"),
            ("tar:a.tar:linux/arm64/v8", "tar:a.tar:linux/arm64/v8"),
        ] {
            let source: ImageSource = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(source.to_string(), expected);
        }
    }

    #[test]
    fn names_of_places_tell_no_folders() {
        for (text, expected) in [
            ("docker://docker.io/node:18", Some("docker.io/library/node:18")),
            ("oci:vendor/shell:1", Some("shell:1")),
            ("oci:./shell/", Some("shell:latest")),
            ("oci:/srv/images/shell", Some("shell:latest")),
            ("oci-archive:out/web.tar.gz:v1", Some("web:v1")),
            ("docker-archive:saved.tar", Some("saved:latest")),
            ("docker-archive:saved.tar:acme/web:1", Some("acme/web:1")),
            ("dir:a/folder", Some("folder:latest")),
            ("dir:a/folder:1", None),
            ("tar:root.tar:linux/arm64", Some("root:latest")),
            ("tar:root.txt", Some("root.txt:latest")),
            ("oci:.", None),
            ("oci:..:v1", None),
            ("oci:/", None),
            ("oci:Shell", None),
            ("oci:a b", None),
            ("tar:.tar", None),
        ] {
            let source: ImageSource = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(source.default_name().as_deref(), expected, "{text}");
        }
    }

    /// What is no platform is part of the path, as in all other places of files.
    #[test]
    fn only_a_platform_is_split_from_the_name_of_an_archive() {
        for (text, expected_path, expected_platform) in [
            ("tar:a.tar", "a.tar", None),
            ("tar:a.tar:linux/arm64", "a.tar", Some("linux/arm64")),
            ("tar:a:linux/arm64:linux/arm/v7", "a:linux/arm64", Some("linux/arm/v7")),
            ("tar:a.tar:linux/none", "a.tar:linux/none", None),
            ("tar:a.tar:v1", "a.tar:v1", None),
        ] {
            let Ok(ImageSource::Root { path, platform }) = text.parse() else { panic!("{text}") };
            let platform = platform.map(|platform: TargetPlatform| platform.to_string());
            assert_eq!((&*path, platform.as_deref()), (expected_path, expected_platform));
        }
    }

    #[test]
    fn the_first_colon_ends_a_path() {
        use TagKind::{Name, Tag};
        let long = "a".repeat(129);
        for (rest, kind, expected) in [
            ("a", Tag, Ok(("a", None))),
            ("a/b c:v1", Tag, Ok(("a/b c", Some("v1")))),
            ("a:_V.1-x", Tag, Ok(("a", Some("_V.1-x")))),
            ("a:host/b:1", Tag, Err("host/b:1")),
            ("a:b:c", Tag, Err("b:c")),
            ("a:", Tag, Err("")),
            ("a:b c", Tag, Err("b c")),
            ("a:.x", Tag, Err(".x")),
            (&format!("a:{long}"), Tag, Err(&long)),
            ("a", Name, Ok(("a", None))),
            ("a:host:5000/b/c:1", Name, Ok(("a", Some("host:5000/b/c:1")))),
            ("a:b", Name, Err("b")),
            ("a:B:1", Name, Err("B:1")),
        ] {
            let expected = expected.map_err(|tag| BadPart::Tag { kind, tag: tag.to_owned() });
            assert_eq!(split_place(rest, kind), expected, "{rest}");
        }
        for rest in ["", ":v1", "a\0b", "a\0b:v1"] {
            assert_eq!(split_place(rest, Tag), Err(BadPart::Path), "{rest:?}");
        }
    }

    #[test]
    fn what_names_nothing_says_what_to_write() {
        for (text, message, hint) in [
            ("node:18", "`node:18` does not name its registry", "write `docker.io/library/node:18`"),
            ("acme/web:1", "`acme/web:1` does not name its registry", "write `docker.io/acme/web:1`"),
            ("ghcr.io/a/b", "`ghcr.io/a/b` has neither a tag nor a digest", "write `ghcr.io/a/b:TAG`"),
            ("ghcr.io/A/b:1", "`ghcr.io/A/b:1` has a bad path", "write `host/path:tag`"),
            ("ghcr.io/a..b:1", "`ghcr.io/a..b:1` has a bad path", ""),
            ("ghcr.io/../b:1", "`ghcr.io/../b:1` has a bad path", ""),
            ("ghcr.io//b:1", "`ghcr.io//b:1` has a bad path", ""),
            ("ghcr.io/a:-x", "`ghcr.io/a:-x` has a bad tag", ""),
            ("ghcr.io/a:", "`ghcr.io/a:` has a bad tag", ""),
            ("user@ghcr.io/a:1", "a login stands before `ghcr.io/a:1`", ""),
            ("ghcr.io/a@sha256:aa", "`ghcr.io/a@sha256:aa` has a bad digest", ""),
            ("-x.io/a:1", "`-x.io/a:1` has a bad host", ""),
            ("x.io:99999/a:1", "`x.io:99999/a:1` has a bad host", ""),
            ("oci:", "`oci:` has a bad path", ""),
            ("dir:", "`dir:` has a bad path", "write `host/path:tag`"),
            ("tar:", "`tar:` has a bad path", ""),
            ("tar::linux/amd64", "`tar::linux/amd64` has a bad path", ""),
            ("oci:a:b:c", "`oci:a:b:c` has a bad tag, `b:c`", "the path ends at the first colon; a tag"),
            ("oci-archive:a.tar:", "`oci-archive:a.tar:` has a bad tag, ``", ""),
            (
                "docker-archive:a:b",
                "`docker-archive:a:b` has a bad name, `b`",
                "the path ends at the first colon; write `NAME:TAG`",
            ),
        ] {
            let error = text.parse::<ImageSource>().expect_err(text);
            assert_eq!(error.to_string(), message);
            assert!(error.hint().starts_with(hint), "{text}: {}", error.hint());
        }
    }
}
