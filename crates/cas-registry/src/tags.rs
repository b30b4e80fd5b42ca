//! The tags of a repository (OCI distribution-spec 1.1, "Listing Tags").

use std::collections::BTreeSet;

use cas_oci::Repository;
use serde::Deserialize;

use crate::RegistryError;
use crate::client::{Ask, Client, read_limited, transport};
use crate::pages::Next;
use crate::quirks::Cope;

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
        let endpoint = self.endpoint(repository);
        let name = format!("the tags of {repository}");
        let mut url = format!("{}/v2/{}/tags/list", endpoint.origin, endpoint.repository.path);
        let mut tags = BTreeSet::new();
        for page in 0..MAX_PAGES {
            let response = match self.send(&endpoint, &name, &Ask::get(url.as_str())).await {
                Err(error) if page == 0 && error.is_not_found() => return Ok(tags),
                other => other?,
            };
            let next = match self.quirks.has(Cope::Pages) {
                true => Next::of(&response, &url, &endpoint),
                false => Next::End,
            };
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
            url = match next {
                Next::End => return Ok(tags),
                // Pages bring something, or there is no end.
                _ if tags.len() == before => return Err(told("a list without an end")),
                Next::Page(url) => url,
                Next::Elsewhere(_) => return Err(told("a list that goes on at another server")),
            };
        }
        Err(RegistryError::Answer { name, origin: endpoint.origin, said: "a list without an end".to_owned() })
    }
}
