//! What a request is about: a path and a query in parts.
//!
//! Names of repositories hold slashes, so a path is read from its end: its last part but one tells what it is (OCI
//! distribution-spec 1.1, "Endpoints"). Pure: text in, values out.

use cas_digest::{Digest, DigestFunction};
use cas_oci::{digest_of, is_repository, is_tag};

use crate::refusal::Refusal;

/// Longest path with its query.
const MAX_BYTES: usize = 8 * 1024;
/// Most tags that one request sets: the specification wants ten.
const MAX_TAGS: usize = 64;
/// Digits of the name of an upload.
pub(crate) const UPLOAD_DIGITS: usize = 32;
/// Most entries of a list.
pub(crate) const MAX_ENTRIES: usize = 1_000;

/// A tag, or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Tag(String),
    Digest(Digest),
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// At most so many.
    pub(crate) most: usize,
    /// Those behind this one.
    pub(crate) after: String,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Base,
    Catalog {
        page: Page,
    },
    Tags {
        name: String,
        page: Page,
    },
    Manifest {
        name: String,
        version: Version,
        tags: Vec<String>,
    },
    Blob {
        name: String,
        digest: Digest,
    },
    /// Where uploads begin.
    Uploads {
        name: String,
        digest: Option<Digest>,
        mount: Option<Digest>,
        from: Option<String>,
    },
    /// One that goes on.
    Upload {
        name: String,
        id: String,
        digest: Option<Digest>,
    },
    Referrers {
        name: String,
        subject: Digest,
        artifact_type: Option<String>,
        page: Page,
    },
}

impl Route {
    /// Reads a path, and what follows its question mark.
    pub(crate) fn parse(path: &str, query: &str) -> Result<Self, Refusal> {
        if path.len() + query.len() > MAX_BYTES {
            return Err(Refusal::LongPath { limit: MAX_BYTES });
        }
        let rest = path.strip_prefix("/v2").ok_or(Refusal::Path)?;
        if rest.is_empty() || rest == "/" {
            return Ok(Self::Base);
        }
        let parts = rest.strip_prefix('/').ok_or(Refusal::Path)?.split('/').map(decode_part);
        let mut parts: Vec<String> = parts.collect::<Result<_, _>>()?;
        let query = Query::parse(query)?;
        if parts == ["_catalog"] {
            return Ok(Self::Catalog { page: query.page()? });
        }
        // `uploads` and `uploads/` are one.
        if let [.., blobs, uploads, last] = &parts[..]
            && (blobs.as_str(), uploads.as_str(), last.as_str()) == ("blobs", "uploads", "")
        {
            parts.pop();
        }
        let tail: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (name, route) = match &tail[..] {
            [name @ .., "tags", "list"] => (name, Kind::Tags),
            [name @ .., "manifests", version] => (name, Kind::Manifest(version)),
            [name @ .., "referrers", digest] => (name, Kind::Referrers(digest)),
            [name @ .., "blobs", "uploads", id] => (name, Kind::Upload(id)),
            [name @ .., "blobs", "uploads"] => (name, Kind::Uploads),
            [name @ .., "blobs", digest] => (name, Kind::Blob(digest)),
            _ => return Err(Refusal::Path),
        };
        let name = name.join("/");
        if !is_repository(&name) {
            return Err(Refusal::Name(shown(&name)));
        }
        Ok(match route {
            Kind::Tags => Self::Tags { name, page: query.page()? },
            Kind::Manifest(version) => Self::Manifest { name, version: version_of(version)?, tags: query.tags()? },
            Kind::Referrers(subject) => Self::Referrers {
                name,
                subject: digest(subject)?,
                artifact_type: query.first("artifactType").map(str::to_owned),
                page: query.page()?,
            },
            Kind::Upload(id) if !is_upload(id) => return Err(Refusal::UnknownUpload),
            Kind::Upload(id) => Self::Upload { name, id: (*id).to_owned(), digest: query.digest("digest")? },
            Kind::Uploads => {
                let from = query.first("from").map(str::to_owned);
                if let Some(from) = from.as_ref().filter(|from| !is_repository(from)) {
                    return Err(Refusal::Name(shown(from)));
                }
                let known = [DigestFunction::Sha256, DigestFunction::Sha512];
                if query.first("digest-algorithm").is_some_and(|name| known.iter().all(|known| known.name() != name)) {
                    return Err(Refusal::Query { name: "digest-algorithm" });
                }
                Self::Uploads { name, digest: query.digest("digest")?, mount: query.digest("mount")?, from }
            }
            Kind::Blob(text) => Self::Blob { name, digest: digest(text)? },
        })
    }
}

enum Kind<'a> {
    Tags,
    Manifest(&'a str),
    Referrers(&'a str),
    Upload(&'a str),
    Uploads,
    Blob(&'a str),
}

fn digest(text: &str) -> Result<Digest, Refusal> {
    digest_of(text).ok_or_else(|| Refusal::Digest(shown(text)))
}

/// A tag has no colon, and a digest has one.
fn version_of(text: &str) -> Result<Version, Refusal> {
    if text.contains(':') {
        return digest(text).map(Version::Digest);
    }
    if is_tag(text) { Ok(Version::Tag(text.to_owned())) } else { Err(Refusal::Tag(shown(text))) }
}

fn is_upload(id: &str) -> bool {
    id.len() == UPLOAD_DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// As much of what was sent as a message needs, without anything that does something to a terminal.
fn shown(text: &str) -> String {
    text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A part of a path. What is decoded to a slash would be a part of its own to some and not to others.
fn decode_part(part: &str) -> Result<String, Refusal> {
    let decoded = decode(part, false).ok_or(Refusal::Path)?;
    if decoded.contains(['/', '\0']) { Err(Refusal::Path) } else { Ok(decoded) }
}

/// Percent signs with two digits as bytes; `None` where that is no text.
fn decode(text: &str, is_query: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            b'+' if is_query => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name, true)?, decode(value, true)?))
        };
        let pairs: Option<Vec<_>> = text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        pairs.map(Self).ok_or(Refusal::Query { name: "something" })
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// What is empty is as good as missing.
    fn first(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    fn digest(&self, name: &str) -> Result<Option<Digest>, Refusal> {
        self.first(name).map(digest).transpose()
    }

    fn page(&self) -> Result<Page, Refusal> {
        let most = match self.first("n") {
            Some(text) => text.parse::<usize>().map_err(|_| Refusal::Query { name: "n" })?,
            None => MAX_ENTRIES,
        };
        Ok(Page { most: most.min(MAX_ENTRIES), after: self.first("last").unwrap_or_default().to_owned() })
    }

    fn tags(&self) -> Result<Vec<String>, Refusal> {
        let mut tags = Vec::new();
        for tag in self.all("tag") {
            if !is_tag(tag) {
                return Err(Refusal::Tag(shown(tag)));
            }
            if !tags.iter().any(|known| known == tag) {
                tags.push(tag.to_owned());
            }
        }
        if tags.len() > MAX_TAGS { Err(Refusal::ManyTags { limit: MAX_TAGS }) } else { Ok(tags) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(target: &str) -> Result<Route, (u16, &'static str)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Route::parse(path, query).map_err(|refusal| refusal.status_and_code())
    }

    #[test]
    fn names_with_slashes_are_told_from_what_follows() {
        let digest: Digest = format!("sha256:{HEX}").parse().expect("it is one");
        let page = |most, after: &str| Page { most, after: after.to_owned() };
        let all = || page(MAX_ENTRIES, "");
        let own = str::to_owned;
        let manifest = |name: &str, version, tags: &[&str]| Route::Manifest {
            name: own(name),
            version,
            tags: tags.iter().copied().map(own).collect(),
        };
        let id = "0123456789abcdef0123456789abcdef";
        let uploads = |name: &str| Route::Uploads { name: own(name), digest: None, mount: None, from: None };
        for (target, expected) in [
            ("/v2", Route::Base),
            ("/v2/", Route::Base),
            ("/v2/_catalog?n=2&last=a%2Fb", Route::Catalog { page: page(2, "a/b") }),
            ("/v2/a/tags/list", Route::Tags { name: own("a"), page: all() }),
            ("/v2/tags/list/tags/list?n=99999", Route::Tags { name: own("tags/list"), page: all() }),
            ("/v2/a/b/c/manifests/1.0", manifest("a/b/c", Version::Tag(own("1.0")), &[])),
            ("/v2/manifests/manifests/manifests", manifest("manifests", Version::Tag(own("manifests")), &[])),
            ("/v2/a/blobs/uploads/manifests/uploads", manifest("a/blobs/uploads", Version::Tag(own("uploads")), &[])),
            (&format!("/v2/a/manifests/sha256:{HEX}"), manifest("a", Version::Digest(digest), &[])),
            (
                &format!("/v2/a/manifests/sha256%3A{HEX}?tag=x&tag=y&tag=x"),
                manifest("a", Version::Digest(digest), &["x", "y"]),
            ),
            (&format!("/v2/a/blobs/blobs/sha256:{HEX}"), Route::Blob { name: own("a/blobs"), digest }),
            ("/v2/a/blobs/uploads", uploads("a")),
            ("/v2/a/b/blobs/uploads/", uploads("a/b")),
            ("/v2/uploads/blobs/uploads/?digest-algorithm=sha512", uploads("uploads")),
            (
                &format!("/v2/a/blobs/uploads/?mount=sha256:{HEX}&from=b/c"),
                Route::Uploads { name: own("a"), digest: None, mount: Some(digest), from: Some(own("b/c")) },
            ),
            (
                &format!("/v2/a/blobs/uploads/{id}?digest=sha256%3A{HEX}"),
                Route::Upload { name: own("a"), id: own(id), digest: Some(digest) },
            ),
            (
                &format!("/v2/a/referrers/sha256:{HEX}?artifactType=a%2Fb%2Bc"),
                Route::Referrers { name: own("a"), subject: digest, artifact_type: Some(own("a/b+c")), page: all() },
            ),
        ] {
            assert_eq!(parse(target), Ok(expected), "{target}");
        }
    }

    #[test]
    fn what_is_no_path_of_a_registry_is_refused() {
        let long = "a/".repeat(5_000);
        let many: Vec<String> = (0..=MAX_TAGS).map(|number| format!("tag=t{number}")).collect();
        let name = (400, "NAME_INVALID");
        for (target, expected) in [
            ("/", (404, "UNSUPPORTED")),
            ("/v1/", (404, "UNSUPPORTED")),
            ("/v2x/a/tags/list", (404, "UNSUPPORTED")),
            ("/v2/a", (404, "UNSUPPORTED")),
            ("/v2/a/tags/other", (404, "UNSUPPORTED")),
            ("/v2/a/tags/list/", (404, "UNSUPPORTED")),
            ("/v2/tags/list", name),
            ("/v2//tags/list", name),
            ("/v2/a//b/tags/list", name),
            ("/v2/A/tags/list", name),
            ("/v2/../tags/list", name),
            ("/v2/a/../../etc/tags/list", name),
            ("/v2/./a/tags/list", name),
            ("/v2/a/%2e%2e/tags/list", name),
            ("/v2/a%20b/tags/list", name),
            ("/v2/a%0ab/tags/list", name),
            ("/v2/a%2Fb/tags/list", (404, "UNSUPPORTED")),
            ("/v2/a%2/tags/list", (404, "UNSUPPORTED")),
            ("/v2/a%+f/tags/list", (404, "UNSUPPORTED")),
            ("/v2/a%00/tags/list", (404, "UNSUPPORTED")),
            ("/v2/a%ff/tags/list", (404, "UNSUPPORTED")),
            (&format!("/v2/{}/tags/list", "a".repeat(256)), name),
            (&format!("/v2/{long}tags/list"), (414, "UNSUPPORTED")),
            ("/v2/a/manifests/", (400, "MANIFEST_INVALID")),
            ("/v2/a/manifests/..", (400, "MANIFEST_INVALID")),
            ("/v2/a/manifests/%2e%2e%5cx", (400, "MANIFEST_INVALID")),
            ("/v2/a/manifests/sha256:0", (400, "DIGEST_INVALID")),
            (&format!("/v2/a/manifests/sha256:{}", HEX.to_uppercase()), (400, "DIGEST_INVALID")),
            (&format!("/v2/a/blobs/blake3:{HEX}"), (400, "DIGEST_INVALID")),
            ("/v2/a/blobs/..", (400, "DIGEST_INVALID")),
            ("/v2/a/referrers/x", (400, "DIGEST_INVALID")),
            ("/v2/a/blobs/uploads/..", (404, "BLOB_UPLOAD_UNKNOWN")),
            ("/v2/a/blobs/uploads/0123456789ABCDEF0123456789abcdef", (404, "BLOB_UPLOAD_UNKNOWN")),
            ("/v2/a/blobs/uploads/?digest=x", (400, "DIGEST_INVALID")),
            ("/v2/a/blobs/uploads/?from=../b", name),
            ("/v2/a/blobs/uploads/?digest-algorithm=md5", (400, "UNSUPPORTED")),
            ("/v2/a/tags/list?n=-1", (400, "UNSUPPORTED")),
            ("/v2/a/tags/list?n=%", (400, "UNSUPPORTED")),
            ("/v2/a/manifests/x?tag=-", (400, "MANIFEST_INVALID")),
            (&format!("/v2/a/manifests/x?{}", many.join("&")), (414, "UNSUPPORTED")),
        ] {
            assert_eq!(parse(target), Err(expected), "{target}");
        }
    }
}
