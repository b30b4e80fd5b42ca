//! The tags of a repository (OCI distribution-spec 1.1, "Listing Tags").

use std::collections::BTreeSet;

use cas_oci::Repository;
use reqwest::header::LINK;
use serde::Deserialize;

use crate::RegistryError;
use crate::address::Endpoint;
use crate::client::{Ask, Client, read_limited, transport};

/// Longest page.
const MAX_PAGE_BYTES: u64 = 16 << 20;
/// More pages than any registry has.
const MAX_PAGES: usize = 10_000;
/// More tags than any repository has.
const MAX_TAGS: usize = 1_000_000;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of a repository, in order; none where nobody knows it. Mirrors are not asked.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]: also for a list that has no end.
    pub async fn tags(&self, repository: &Repository) -> Result<BTreeSet<String>, RegistryError> {
        let endpoint = Endpoint::of(repository, &Default::default());
        let name = format!("the tags of {repository}");
        let mut url = format!("{}/v2/{}/tags/list", endpoint.origin, endpoint.repository.path);
        let mut tags = BTreeSet::new();
        for page in 0..MAX_PAGES {
            let response = match self.send(&endpoint, &name, &Ask::get(url.as_str())).await {
                Err(error) if page == 0 && error.is_not_found() => return Ok(tags),
                other => other?,
            };
            let links = response.headers().get_all(LINK).iter().filter_map(|value| value.to_str().ok());
            let next = links.filter_map(next).next().map(str::to_owned);
            let told = |said: &str| RegistryError::Answer {
                name: name.clone(),
                origin: endpoint.origin.clone(),
                said: said.to_owned(),
            };
            let read = self.unless_stopped(read_limited(response, MAX_PAGE_BYTES)).await?;
            let bytes = read.map_err(|error| transport(&endpoint, &name, error))?;
            let bytes = bytes.ok_or_else(|| told("a page that is too long"))?;
            let found: Page = serde_json::from_slice(&bytes).map_err(|_| told("what is no list of tags"))?;
            let before = tags.len();
            tags.extend(found.tags.unwrap_or_default());
            if tags.len() > MAX_TAGS {
                return Err(told("more tags than any repository has"));
            }
            let Some(next) = next else { return Ok(tags) };
            // Pages bring something, or there is no end.
            if tags.len() == before {
                return Err(told("a list without an end"));
            }
            url = if next.starts_with('/') { format!("{}{next}", endpoint.origin) } else { next };
            if !endpoint.is_at(&url) {
                return Err(told("a list that goes on at another server"));
            }
        }
        Err(RegistryError::Answer { name, origin: endpoint.origin, said: "a list without an end".to_owned() })
    }
}

/// Where a list goes on (RFC 8288).
pub(crate) fn next(link: &str) -> Option<&str> {
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
            assert_eq!(next(link), expected, "{link}");
        }
    }
}
