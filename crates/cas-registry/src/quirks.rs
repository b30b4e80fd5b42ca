//! What is particular about registries that others run, as rows of data that the client reads.
//!
//! A row is proved three times by `tests/quirks.rs`: a registry that behaves so, a plain client that fails there, and this client, which does
//! not, unless the row is taken away. Rules hold for every host, because most of these programs are also run under names of their own; the names
//! in a row say who is known for it, which is what `cas registry probe` compares. docs/formats/registry.md has the same table.

use std::fmt;

/// A registry, or a program for one, that rows tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hosted {
    /// GitHub's.
    Ghcr,
    /// GitLab's, hosted or not.
    GitLab,
    /// Docker's.
    DockerHub,
    /// Amazon's.
    Ecr,
    /// JFrog's.
    Artifactory,
    /// Red Hat's, hosted or not.
    Quay,
    /// The CNCF's.
    Harbor,
    /// Sonatype's.
    Nexus,
    /// Google's.
    Google,
    /// Programs behind proxies and copies of themselves, and whatever has no name of its own here.
    Others,
}

impl fmt::Display for Hosted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ghcr => "GHCR",
            Self::GitLab => "GitLab",
            Self::DockerHub => "Docker Hub",
            Self::Ecr => "ECR",
            Self::Artifactory => "Artifactory",
            Self::Quay => "Quay",
            Self::Harbor => "Harbor",
            Self::Nexus => "Nexus",
            Self::Google => "Google",
            Self::Others => "others",
        })
    }
}

impl Hosted {
    /// All that have rows.
    pub const ALL: [Self; 10] = [
        Self::Ghcr,
        Self::GitLab,
        Self::DockerHub,
        Self::Ecr,
        Self::Artifactory,
        Self::Quay,
        Self::Harbor,
        Self::Nexus,
        Self::Google,
        Self::Others,
    ];

    /// The name in small letters, with `-` for spaces.
    #[must_use]
    pub fn word(self) -> String {
        self.to_string().to_lowercase().replace(' ', "-")
    }

    /// Whose a host is, by its name alone; `None` for names that say nothing.
    #[must_use]
    pub fn of_host(host: &str) -> Option<Self> {
        let name = host.split(':').next().unwrap_or(host);
        let has = |part: &str| name.split('.').any(|label| label == part);
        Some(match name {
            "ghcr.io" => Self::Ghcr,
            "docker.io" | "registry-1.docker.io" => Self::DockerHub,
            "quay.io" => Self::Quay,
            "public.ecr.aws" => Self::Ecr,
            "gcr.io" => Self::Google,
            _ if name.contains(".dkr.ecr.") => Self::Ecr,
            _ if name.ends_with(".pkg.dev") || name.ends_with(".gcr.io") => Self::Google,
            _ if name.ends_with(".jfrog.io") || has("artifactory") => Self::Artifactory,
            _ if has("gitlab") => Self::GitLab,
            _ if has("goharbor") || has("harbor") => Self::Harbor,
            _ if has("quay") => Self::Quay,
            _ if has("nexus") => Self::Nexus,
            _ => return None,
        })
    }
}

/// How the client copes, with what it has to know for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cope {
    /// Waits as long as a message says behind these words, also where the status alone would be final.
    WaitInMessage(&'static str),
    /// Answered with this status, goes on in pieces of at most so many bytes.
    Pieces {
        /// The status.
        status: u16,
        /// The longest piece.
        bytes: u64,
    },
    /// Sends a blob in one request first.
    WholeFirst,
    /// Takes 201 for a piece as 202.
    CreatedPiece,
    /// Believes `Range` of an answer, and not what was sent.
    RangeCounts,
    /// Takes `Range: 0-0` for nothing.
    ZeroIsNothing,
    /// Begins another upload when the server does not know the one that it began.
    BeginAgain,
    /// Looks afterwards whether what was taken is there, in its length.
    LookAfterwards,
    /// Reads a `Location` that is a path alone.
    RelativeLocation,
    /// Sends the bytes where a mount is answered with the beginning of an upload.
    MountIgnored,
    /// Sends the bytes where a mount is refused with this status.
    MountRefused(u16),
    /// Asks for a token that is good for the source of a mount, too.
    SourceScope,
    /// Names the right itself where the server names none.
    OwnScope,
    /// Asks for another token when the one before is no longer taken.
    TokenAgain,
    /// Takes this status for a registry without lists of referrers, and reads the tag.
    NoReferrers(u16),
    /// Takes what is no index by its media type for no list of referrers.
    ListsAreIndexes,
    /// Reads the tag where the list of referrers is empty.
    EmptyLists,
    /// Writes the tag where the answer has no `OCI-Subject`.
    SubjectUnseen,
    /// Takes no notice of a tag of referrers that gives the manifest itself.
    TagIsDigest,
    /// Reads a document where `HEAD` does not tell its digest.
    NoDigest,
    /// Reads a document where `HEAD` is answered with this status.
    NoHead(u16),
    /// Asks with `HEAD` what a tag names.
    HeadFirst,
    /// Follows `Link` as it stands from page to page.
    Pages,
    /// Asks another host than the one in names.
    OtherHost {
        /// The host in names.
        name: &'static str,
        /// The one that is asked.
        host: &'static str,
    },
    /// Puts something before names of one word.
    Prefix {
        /// The host in names.
        name: &'static str,
        /// What comes before.
        prefix: &'static str,
    },
    /// Looks for a login under another key.
    LoginKey {
        /// The host in names.
        name: &'static str,
        /// The key in files and for helpers.
        key: &'static str,
    },
    /// Says what to do about an answer.
    Advice {
        /// Its status.
        status: u16,
        /// The method and a part of the address; empty for any.
        request: &'static str,
        /// Words in what the server said; empty for any.
        words: &'static str,
        /// What to do.
        advice: &'static str,
    },
}

/// Something that is particular about registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirk {
    /// What the row is called.
    pub name: &'static str,
    /// Who is known for it.
    pub registries: &'static [Hosted],
    /// What they do.
    pub differs: &'static str,
    /// What the client does about it.
    pub cope: Cope,
    /// The same in words.
    pub copes: &'static str,
    /// Where it is told: a document, or an issue as `OWNER/NAME#NUMBER`.
    pub source: &'static str,
    /// The day on which it was seen at a live registry, if it was.
    pub tried_live: Option<&'static str>,
    /// The line of a probe that shows it, and what it says there.
    pub seen: Option<(&'static str, &'static str)>,
}

const MIB: u64 = 1 << 20;

/// Shortens the table; nothing of it was tried live so far.
const fn row(
    name: &'static str,
    registries: &'static [Hosted],
    differs: &'static str,
    cope: Cope,
    copes: &'static str,
    source: &'static str,
) -> Quirk {
    Quirk { name, registries, differs, cope, copes, source, tried_live: None, seen: None }
}

impl Quirk {
    /// The same, which a probe sees.
    const fn seen(mut self, line: &'static str, value: &'static str) -> Self {
        self.seen = Some((line, value));
        self
    }
}

use Hosted::{Artifactory, DockerHub, Ecr, Ghcr, GitLab, Google, Harbor, Nexus, Others, Quay};

/// All that is known.
pub const QUIRKS: &[Quirk] = &[
    row(
        "wait-in-message",
        &[Ghcr],
        "limits are told in the message alone, `retry-after: 10.3ms`, also with 403",
        Cope::WaitInMessage("retry-after:"),
        "waits as long and asks again",
        "chainguard-images/images#173, canonical/authd#1765",
    ),
    row(
        "pieces-of-4-mib",
        &[Ghcr],
        "a `PATCH` of more than 4 MiB is answered with 416",
        Cope::Pieces { status: 416, bytes: 4 * MIB },
        "goes on from where the upload is, in pieces of 4 MiB",
        "oras-project/rust-oci-client#35, ocx-sh/ocx#237",
    ),
    row(
        "body-limit",
        &[Others],
        "a proxy before the registry takes no large body (413)",
        Cope::Pieces { status: 413, bytes: 64 * MIB },
        "sends the rest in pieces of 64 MiB",
        "jdx/mise#11141",
    ),
    row(
        "no-pieces",
        &[Harbor],
        "a second piece finds no upload (404)",
        Cope::WholeFirst,
        "sends a blob in one `PUT`, and pieces only after that has failed",
        "oras-project/rust-oci-client#294",
    ),
    row(
        "created-piece",
        &[Ecr],
        "`PATCH` is answered with 201 in the place of 202",
        Cope::CreatedPiece,
        "takes both for a piece that is there",
        "regclient scheme/reg/blob.go, jdx/mise#11376",
    )
    .seen("upload-pieces", "201"),
    row(
        "range-lags",
        &[Artifactory, Others],
        "less is kept of a piece than was sent, and `Range` says so",
        Cope::RangeCounts,
        "goes on from where the registry says that it is",
        "oras-project/rust-oci-client#179; distribution-spec 1.1, Pushing a blob in chunks",
    ),
    row(
        "zero-range",
        &[GitLab, Harbor, DockerHub],
        "an upload with nothing in it has `Range: 0-0`",
        Cope::ZeroIsNothing,
        "begins with the first byte, also where one is there",
        "distribution registry/handlers/blobupload.go",
    ),
    row(
        "lost-upload",
        &[Others],
        "an upload is unknown a moment later: several servers behind one name (404)",
        Cope::BeginAgain,
        "begins another one, four in all",
        "distribution/distribution#2225",
    ),
    row(
        "not-kept",
        &[Artifactory],
        "201 for a blob that is not there, or is another length",
        Cope::LookAfterwards,
        "looks with `HEAD` after each blob and document; an error where it is not there",
        "oras-project/rust-oci-client#179",
    ),
    row(
        "relative-location",
        &[Harbor, Others],
        "`Location` is a path alone",
        Cope::RelativeLocation,
        "reads it from the address that was asked",
        "distribution docs, configuration, http.relativeurls",
    ),
    row(
        "mount-ignored",
        &[Ecr],
        "a mount is answered with 202, unless the account has turned it on",
        Cope::MountIgnored,
        "goes on with the upload that was begun",
        "AWS documentation, blob mounting",
    )
    .seen("mount", "no"),
    row(
        "mount-refused",
        &[GitLab],
        "a token for two repositories is good for one of them, and the mount is 401",
        Cope::MountRefused(401),
        "begins an upload without the mount",
        "estesp/manifest-tool#53",
    ),
    row(
        "mount-needs-source",
        &[DockerHub, GitLab, Harbor, Quay],
        "a mount is refused unless the token is good for its source",
        Cope::SourceScope,
        "asks for `repository:SOURCE:pull` beside its own right",
        "distribution docs, spec/auth/token.md",
    ),
    row(
        "no-scope",
        &[Others],
        "the challenge names no right, and a token without one opens nothing",
        Cope::OwnScope,
        "asks for the repository's right itself",
        "distribution docs, spec/auth/token.md (`scope` is optional)",
    ),
    row(
        "short-tokens",
        &[GitLab],
        "tokens end after some minutes, in the midst of a push",
        Cope::TokenAgain,
        "asks for another one at the next 401, and sends the request again",
        "GitLab documentation, container registry, token duration",
    )
    .seen("token-service", "container_registry"),
    row(
        "no-referrers",
        &[Ghcr, GitLab],
        "there is no referrers API (404)",
        Cope::NoReferrers(404),
        "reads the index at the tag `sha256-HEX`",
        "actions/attest-build-provenance#71, oras-project/oras-go#1396",
    )
    .seen("referrers", "404"),
    row(
        "referrers-400",
        &[Quay],
        "the referrers API answers 400 for a manifest that it does not find",
        Cope::NoReferrers(400),
        "reads the tag",
        "quay/quay#3071",
    ),
    row(
        "referrers-405",
        &[Ecr],
        "the referrers API answers 405 for some manifests",
        Cope::NoReferrers(405),
        "reads the tag",
        "aws/containers-roadmap#2783",
    ),
    row(
        "referrers-401",
        &[Harbor],
        "up to 2.7 the referrers API answers 401 without a challenge",
        Cope::NoReferrers(401),
        "reads the tag, where no `WWW-Authenticate` says who is to be asked",
        "goharbor/harbor#18305",
    ),
    row(
        "page-for-people",
        &[Google],
        "paths that are not known lead to a page for people (200, `text/html`)",
        Cope::ListsAreIndexes,
        "takes for a list what is an index by its media type alone",
        "kubernetes/registry.k8s.io#287",
    ),
    row(
        "empty-lists",
        &[Others],
        "the referrers API answers with an empty list whatever is there",
        Cope::EmptyLists,
        "reads the tag as well",
        "sigstore/sigstore-js#1187",
    ),
    row(
        "subject-unseen",
        &[DockerHub, Ghcr, GitLab],
        "a manifest with `subject` is taken like any other, without `OCI-Subject`",
        Cope::SubjectUnseen,
        "adds it to the index at the tag",
        "docker/roadmap#724",
    )
    .seen("subject", "no"),
    row(
        "tag-is-digest",
        &[GitLab],
        "the tag `sha256-HEX` gives the manifest with that digest, whose children then look like what refers to it",
        Cope::TagIsDigest,
        "takes the manifest itself for no list",
        "oras-project/oras-go#1396",
    ),
    row(
        "no-digest",
        &[Others],
        "`HEAD` of a tag has no `Docker-Content-Digest` (`registry.redhat.io`, buckets of files)",
        Cope::NoDigest,
        "reads the document and digests it",
        "regclient/regclient#363, distribution/distribution#2384",
    ),
    row(
        "no-head",
        &[Nexus, Others],
        "`HEAD` of a manifest is not known (405)",
        Cope::NoHead(405),
        "reads the document",
        "merll/docker-registry-util#3, distribution/distribution#1485",
    ),
    row(
        "head-is-free",
        &[DockerHub],
        "`GET` of a manifest counts as a pull and is 429 when there were too many; `HEAD` does not count",
        Cope::HeadFirst,
        "asks with `HEAD` what a tag names",
        "Docker documentation, usage and limits, pulls",
    ),
    row(
        "pages-of-tags",
        &[Quay, Artifactory, DockerHub, Ghcr],
        "lists of tags come in pages though none were asked for, and the next one has words of its own, not `last`",
        Cope::Pages,
        "follows `Link` as it stands, on the same server",
        "deitch/docker_registry2#56, camallo/dkregistry-rs#236",
    ),
    row(
        "other-host",
        &[DockerHub],
        "names have `docker.io`, which is not the registry",
        Cope::OtherHost { name: "docker.io", host: "registry-1.docker.io" },
        "asks `registry-1.docker.io`",
        "regclient config/host.go",
    )
    .seen("token-service", "registry.docker.io"),
    row(
        "library",
        &[DockerHub],
        "names of one word are in `library/`",
        Cope::Prefix { name: "docker.io", prefix: "library/" },
        "puts it before them",
        "distribution/reference normalize.go",
    ),
    row(
        "login-key",
        &[DockerHub],
        "logins are kept under `https://index.docker.io/v1/`",
        Cope::LoginKey { name: "docker.io", key: "https://index.docker.io/v1/" },
        "looks for them there, and keeps them there",
        "containers/image docs, containers-auth.json(5)",
    ),
    row(
        "no-repository",
        &[Ecr],
        "repositories are not made by a push: 404 at the first upload",
        Cope::Advice {
            status: 404,
            request: "POST /blobs/uploads/",
            words: "",
            advice: "the repository is not there, and this registry may not make it by itself: make it first (for ECR `aws ecr \
                     create-repository --repository-name NAME`, or a creation template)",
        },
        "says that the repository is to be made, and how",
        "AWS documentation, pushing an image",
    ),
    row(
        "write-package",
        &[Ghcr],
        "403 `permission_denied: write_package` for a package that is not linked to the repository",
        Cope::Advice {
            status: 403,
            request: "",
            words: "write_package",
            advice: "the token lacks `write:packages`, or the package is not linked to the repository: set the label \
                     `org.opencontainers.image.source`, and let Actions write in the settings of the package",
        },
        "says what is missing",
        "docker/build-push-action#981",
    ),
    row(
        "immutable-ecr",
        &[Ecr],
        "400 for a tag that is immutable and names something else",
        Cope::Advice {
            status: 400,
            request: "PUT /manifests/",
            words: "immutable",
            advice: "the registry keeps its tags as they are: choose another one, or make them mutable there",
        },
        "says that it is the registry's rule",
        "AWS documentation, tag immutability",
    ),
    row(
        "immutable-harbor",
        &[Harbor],
        "412 for a tag that a rule of the project keeps",
        Cope::Advice {
            status: 412,
            request: "PUT /manifests/",
            words: "",
            advice: "a rule of the project keeps the tag as it is: choose another one, or change the rule there",
        },
        "says that it is the project's rule",
        "goharbor/harbor#17332",
    ),
];

/// The rows that a client keeps to: all of them, but in tests.
#[derive(Clone, Debug)]
pub(crate) struct Quirks {
    rows: Vec<Quirk>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self { rows: QUIRKS.to_vec() }
    }
}

impl Quirks {
    /// Others than those of the table.
    #[cfg(test)]
    pub(crate) fn of(rows: Vec<Quirk>) -> Self {
        Self { rows }
    }

    /// Whether something is done that needs no further word.
    pub(crate) fn has(&self, cope: Cope) -> bool {
        self.rows.iter().any(|row| row.cope == cope)
    }

    /// What rows of one kind have.
    pub(crate) fn find<T>(&self, pick: impl Fn(Cope) -> Option<T>) -> Option<T> {
        self.rows.iter().find_map(|row| pick(row.cope))
    }

    /// The longest piece after a status.
    pub(crate) fn piece_bytes(&self, answer: u16) -> Option<u64> {
        self.find(|cope| match cope {
            Cope::Pieces { status, bytes } if status == answer => Some(bytes),
            _ => None,
        })
    }

    /// What to do about an answer.
    pub(crate) fn advice(&self, answer: u16, method: &str, url: &str, said: &str) -> Option<&'static str> {
        let said = said.to_ascii_lowercase();
        let is_meant =
            |request: &str| request.split_once(' ').is_none_or(|(verb, path)| verb == method && url.contains(path));
        self.find(|cope| match cope {
            Cope::Advice { status, request, words, advice }
                if status == answer && is_meant(request) && said.contains(words) =>
            {
                Some(advice)
            }
            _ => None,
        })
    }

    /// What files and helpers call a host.
    pub(crate) fn login_key<'a>(&self, host: &'a str) -> &'a str {
        let key = self.find(|cope| match cope {
            Cope::LoginKey { name, key } if name == host => Some(key),
            _ => None,
        });
        key.unwrap_or(host)
    }

    /// The host that a key is for, where it is another word.
    pub(crate) fn host_of_key(&self, place: &str) -> Option<&'static str> {
        self.find(|cope| match cope {
            Cope::LoginKey { name, key } if key.split('/').nth(2) == Some(place) => Some(name),
            _ => None,
        })
    }
}

/// The host that names have, for one that is asked.
pub(crate) fn named_host(asked: &str) -> &str {
    let name = QUIRKS.iter().find_map(|row| match row.cope {
        Cope::OtherHost { name, host } if host == asked => Some(name),
        _ => None,
    });
    name.unwrap_or(asked)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_whole_and_have_names_of_their_own() {
        let names: BTreeSet<&str> = QUIRKS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), QUIRKS.len());
        for row in QUIRKS {
            let texts = [row.name, row.differs, row.copes, row.source];
            assert!(texts.iter().all(|text| !text.is_empty() && !text.contains('|')), "{row:?}");
            assert!(!row.registries.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn hosts_are_known_by_their_names() {
        for (host, expected) in [
            ("ghcr.io", Some(Hosted::Ghcr)),
            ("docker.io", Some(Hosted::DockerHub)),
            ("registry.gitlab.com", Some(Hosted::GitLab)),
            ("registry.gitlab.example.com:5050", Some(Hosted::GitLab)),
            ("1.dkr.ecr.eu-central-1.amazonaws.com", Some(Hosted::Ecr)),
            ("acme.jfrog.io", Some(Hosted::Artifactory)),
            ("quay.io", Some(Hosted::Quay)),
            ("demo.goharbor.io", Some(Hosted::Harbor)),
            ("europe-docker.pkg.dev", Some(Hosted::Google)),
            ("nexus.example.com:5000", Some(Hosted::Nexus)),
            ("ghcr.io.example.com", None),
            ("127.0.0.1:5000", None),
        ] {
            assert_eq!(Hosted::of_host(host), expected, "{host}");
        }
    }
}
