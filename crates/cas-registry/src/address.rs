//! Where a repository is asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cas_oci::Repository;

use crate::quirks::{Cope, Quirks};

/// A repository as a server has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// `https://host`, without a slash at its end.
    pub(crate) origin: String,
    /// The repository there.
    pub(crate) repository: Repository,
}

impl Endpoint {
    /// The repository itself, or where it is mirrored: the longest beginning of whole parts that has a mirror counts.
    pub(crate) fn of(repository: &Repository, mirrors: &BTreeMap<String, String>, quirks: &Quirks) -> Self {
        let mut repository = repository.clone();
        let is_word = !repository.path.is_empty() && !repository.path.contains('/');
        let prefix = quirks.find(|cope| match cope {
            Cope::Prefix { name, prefix } if is_word && name == repository.host => Some(prefix),
            _ => None,
        });
        repository.path.insert_str(0, prefix.unwrap_or_default());
        let name = repository.to_string();
        let rest = |from: &str| name.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let mirror = mirrors.iter().filter_map(|(from, to)| Some((from.len(), to, rest(from)?)));
        if let Some((_, address, rest)) = mirror.max_by_key(|(length, ..)| *length)
            && let Some((scheme, place)) = address.split_once("://")
        {
            let (host, path) = place.split_once('/').unwrap_or((place, ""));
            let path = [path.trim_matches('/'), rest.trim_matches('/')];
            let path: Vec<&str> = path.into_iter().filter(|part| !part.is_empty()).collect();
            let repository = Repository { host: host.to_owned(), path: path.join("/") };
            return Self { origin: format!("{scheme}://{host}"), repository };
        }
        let other = quirks.find(|cope| match cope {
            Cope::OtherHost { name, host } if name == repository.host => Some(host),
            _ => None,
        });
        let host = other.unwrap_or(&repository.host);
        let scheme = if is_loopback(host) { "http" } else { "https" };
        Self { origin: format!("{scheme}://{host}"), repository }
    }

    /// Whether an address is on the server itself, by its scheme, host and port.
    pub(crate) fn is_at(&self, url: &str) -> bool {
        url.strip_prefix(&self.origin).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    pub(crate) fn url(&self, kind: &str, name: &str) -> String {
        format!("{}/v2/{}/{kind}/{name}", self.origin, self.repository.path)
    }
}

/// Whether a host is this machine itself, where nobody listens on the way.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, _)) if !host.ends_with(']') => name,
        _ => host,
    };
    let address: Option<IpAddr> = name.trim_matches(['[', ']']).parse().ok();
    name == "localhost" || address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_asked_for_at_their_hosts_or_mirrors() {
        let mirrors = [
            ("docker.io", "https://mirror.example.net/hub"),
            ("docker.io/acme", "http://127.0.0.1:5000"),
            ("quay.io/a", "file:///srv/quay"),
        ];
        let mirrors = mirrors.map(|(from, to)| (from.to_owned(), to.to_owned())).into();
        let none = BTreeMap::new();
        for (host, path, mirrors, expected) in [
            ("docker.io", "library/node", &none, "https://registry-1.docker.io/v2/library/node/blobs/x"),
            ("docker.io", "node", &none, "https://registry-1.docker.io/v2/library/node/blobs/x"),
            ("ghcr.io", "a/b", &mirrors, "https://ghcr.io/v2/a/b/blobs/x"),
            ("localhost:5000", "a", &none, "http://localhost:5000/v2/a/blobs/x"),
            ("[::1]:5000", "a", &none, "http://[::1]:5000/v2/a/blobs/x"),
            ("127.0.0.1.example.org", "a", &none, "https://127.0.0.1.example.org/v2/a/blobs/x"),
            ("docker.io", "library/node", &mirrors, "https://mirror.example.net/v2/hub/library/node/blobs/x"),
            ("docker.io", "acme/web", &mirrors, "http://127.0.0.1:5000/v2/web/blobs/x"),
            ("docker.io", "acme2/web", &mirrors, "https://mirror.example.net/v2/hub/acme2/web/blobs/x"),
        ] {
            let repository = Repository { host: host.to_owned(), path: path.to_owned() };
            assert_eq!(Endpoint::of(&repository, mirrors, &Quirks::default()).url("blobs", "x"), expected);
        }
    }

    #[test]
    fn other_servers_are_told_from_this_one() {
        let repository = Repository { host: "r.example".to_owned(), path: "a".to_owned() };
        let endpoint = Endpoint::of(&repository, &BTreeMap::new(), &Quirks::default());
        for (url, expected) in [
            ("https://r.example/v2/a", true),
            ("https://r.example?x", true),
            ("http://r.example/v2/a", false),
            ("https://r.example:444/v2/a", false),
            ("https://r.example.net/v2/a", false),
            ("https://r.example@evil.example/", false),
            ("https://evil.example/https://r.example/", false),
        ] {
            assert_eq!(endpoint.is_at(url), expected, "{url}");
        }
    }
}
