//! The bytes of a blob, which go on where a connection broke off.

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use crate::RegistryError;
use crate::address::Endpoint;
use crate::client::{Ask, Client, transport};

/// How often in a row a body may break off without a byte.
const ATTEMPTS: u32 = 4;

/// Bytes of a blob on their way.
#[derive(Debug)]
pub struct Body<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    name: String,
    url: String,
    response: Response,
    /// How long it is to be.
    size: u64,
    /// Bytes that were handed out.
    position: u64,
    /// Bytes that come again, because the server began anew.
    skip: u64,
    failures: u32,
}

impl<'a> Body<'a> {
    pub(crate) fn new(
        client: &'a Client,
        endpoint: Endpoint,
        name: String,
        url: String,
        response: Response,
        size: u64,
        position: u64,
    ) -> Self {
        let skip = skipped(&response, position);
        Self { client, endpoint, name, url, response, size, position, skip, failures: 0 }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] when the connection broke off again and again.
    pub async fn chunk(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, RegistryError> {
        loop {
            match self.client.unless_stopped(self.response.chunk()).await? {
                Ok(None) => return Ok(None),
                Ok(Some(mut chunk)) => {
                    let repeated = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
                    self.skip -= repeated as u64;
                    let chunk = chunk.split_off(repeated);
                    if chunk.is_empty() {
                        continue;
                    }
                    self.failures = 0;
                    self.position += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                // All is here, and only the end of the message is missing.
                Err(_) if self.position == self.size => return Ok(None),
                Err(error) => {
                    self.failures += 1;
                    if self.failures == ATTEMPTS {
                        return Err(transport(&self.endpoint, &self.name, error));
                    }
                    self.resume().await?;
                }
            }
        }
    }

    async fn resume(&mut self) -> Result<(), RegistryError> {
        let from = (self.position > 0).then_some(self.position);
        self.response = self.client.send(&self.endpoint, &self.name, &Ask::get(self.url.as_str()).from(from)).await?;
        self.skip = skipped(&self.response, self.position);
        Ok(())
    }
}

/// What comes again of a body that is wanted from a position on.
fn skipped(response: &Response, position: u64) -> u64 {
    // A server that gives something else than was asked for is taken at its word: whoever keeps the bytes finds out.
    let header = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = header.and_then(|text| text.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok());
    match (response.status(), start) {
        (StatusCode::PARTIAL_CONTENT, Some(start)) => position.saturating_sub(start),
        (StatusCode::PARTIAL_CONTENT, None) => 0,
        _ => position,
    }
}
