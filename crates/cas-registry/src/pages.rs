//! Lists that come in pages: where the next one is (OCI distribution-spec 1.1, "Listing Tags", "Listing Referrers"; RFC 8288).

use reqwest::header::LINK;
use reqwest::{Response, Url};

use crate::address::Endpoint;

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nowhere: this was the last page.
    End,
    /// At this address of the same server.
    Page(String),
    /// At another server, or nowhere that is an address: what it says.
    Elsewhere(String),
}

impl Next {
    /// What the answer to a request for `url` says.
    pub(crate) fn of(response: &Response, url: &str, endpoint: &Endpoint) -> Self {
        let mut links = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        links.find_map(target).map_or(Self::End, |link| Self::at(link, url, endpoint))
    }

    fn at(link: &str, url: &str, endpoint: &Endpoint) -> Self {
        let joined = Url::parse(url).and_then(|base| base.join(link)).ok().map(|url| url.to_string());
        match joined.filter(|url| endpoint.is_at(url)) {
            Some(url) => Self::Page(url),
            None => Self::Elsewhere(link.to_owned()),
        }
    }
}

/// The address of `<…>; rel="next"`.
fn target(link: &str) -> Option<&str> {
    link.split(',').find_map(|one| {
        let (target, parameters) = one.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = |parameter: &str| {
            let (name, value) = parameter.trim().split_once('=').unwrap_or_default();
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
        };
        parameters.split(';').any(is_next).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use cas_oci::Repository;

    use super::*;

    #[test]
    fn a_list_goes_on_where_its_link_leads() {
        for (link, expected) in [
            ("</v2/a/tags/list?n=2&last=b>; rel=\"next\"", Some("/v2/a/tags/list?n=2&last=b")),
            ("<https://r.example/x>;rel=next", Some("https://r.example/x")),
            ("</first>; rel=\"first\", </second>; title=x; Rel=\"Next\"", Some("/second")),
            ("</v2/a>; rel=\"prev\"", None),
            ("/v2/a; rel=next", None),
            ("</v2/a", None),
            ("", None),
        ] {
            assert_eq!(target(link), expected, "{link}");
        }
    }

    #[test]
    fn a_list_stays_at_its_server() {
        let repository = Repository { host: "r.example".to_owned(), path: "a".to_owned() };
        let endpoint = Endpoint::of(&repository, &Default::default(), &Default::default());
        let page = |url: &str| Next::Page(url.to_owned());
        let elsewhere = |link: &str| Next::Elsewhere(link.to_owned());
        for (link, expected) in [
            ("/v2/a/tags/list?last=b", page("https://r.example/v2/a/tags/list?last=b")),
            ("?last=b", page("https://r.example/v2/a/tags/list?last=b")),
            ("https://r.example/v2/x", page("https://r.example/v2/x")),
            ("https://other.example/v2/a", elsewhere("https://other.example/v2/a")),
            ("//other.example/v2/a", elsewhere("//other.example/v2/a")),
            ("http://r.example/v2/a", elsewhere("http://r.example/v2/a")),
        ] {
            assert_eq!(Next::at(link, "https://r.example/v2/a/tags/list", &endpoint), expected, "{link}");
        }
    }
}
