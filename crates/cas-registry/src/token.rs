//! Proof of who asks: tokens and passwords, when a server wants them.

use base64::Engine;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;

use crate::address::{Endpoint, is_loopback};
use crate::challenge::Challenge;
use crate::client::{Client, Rights, read_limited, said, transport};
use crate::quirks::{Cope, Quirks};
use crate::{Access, Credentials, Login, RegistryError};

/// Longest answer that is read for what it says of a token.
const MAX_ANSWER_BYTES: u64 = 256 << 10;

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// What to send to a server that wants to know who asks; `None` when there is nothing.
    pub(crate) async fn prove(
        &self,
        endpoint: &Endpoint,
        wanted: &[Challenge],
        rights: &Rights,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let bearer = wanted.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(wanted.first()) else { return Ok(None) };
        let login = match &self.given {
            Some((own, login)) => Some(login.clone()).filter(|_| own == endpoint),
            None => Credentials::read(self.logins.iter().cloned())?.find_with(&endpoint.repository, &self.quirks)?,
        };
        match challenge {
            Challenge::Basic => match login {
                Some(Login::Password { user, password }) => Ok(Some(basic(&user, &password))),
                _ => Ok(None),
            },
            Challenge::Bearer { realm, service, scope } => {
                let token = {
                    let scope = scopes(endpoint, scope.as_deref(), rights, &self.quirks);
                    self.token(endpoint, realm, service.as_deref(), &scope, login.as_ref()).await?
                };
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| RegistryError::Token { realm: realm.clone(), said: "it is no text".to_owned() })?;
                value.set_sensitive(true);
                Ok(Some(value))
            }
        }
    }

    /// A token for a repository (distribution, "Token Authentication Specification" and "OAuth2 Token Authentication").
    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        login: Option<&Login>,
    ) -> Result<String, RegistryError> {
        let url = reqwest::Url::parse(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url =
            url.ok_or_else(|| RegistryError::Token { realm: realm.to_owned(), said: "it is no address".to_owned() })?;
        // Whoever speaks in clear with a server has nothing to hide from its neighbours.
        let is_clear = url.scheme() == "http" && !url.host_str().is_some_and(is_loopback);
        if is_clear && endpoint.origin.starts_with("https:") {
            return Err(RegistryError::Realm { origin: endpoint.origin.clone(), realm: realm.to_owned() });
        }
        let http = self.http().map_err(|error| transport(endpoint, realm, error))?;
        let request = match login {
            Some(Login::IdentityToken(token)) => {
                let mut form = url::form();
                form.add("grant_type", "refresh_token");
                form.add("client_id", "cas");
                form.add("service", service.unwrap_or_default());
                form.add("scope", scope);
                form.add("refresh_token", token);
                http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.finish())
            }
            login => {
                let mut url = url;
                {
                    let mut query = url.query_pairs_mut();
                    if let Some(service) = service {
                        query.append_pair("service", service);
                    }
                    // Some servers list several rights with spaces between.
                    for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
                        query.append_pair("scope", scope);
                    }
                }
                let request = http.get(url);
                match login {
                    Some(Login::Password { user, password }) => request.header(AUTHORIZATION, basic(user, password)),
                    _ => request,
                }
            }
        };
        let response = request.send().await.map_err(|error| transport(endpoint, realm, error))?;
        let (status, realm) = (response.status(), || realm.to_owned());
        if !status.is_success() {
            return Err(match status.as_u16() {
                status @ (401 | 403) => RegistryError::Denied {
                    name: endpoint.repository.to_string(),
                    origin: endpoint.origin.clone(),
                    status,
                    said: said(response).await,
                    access: if scope.contains("push") { Access::Write } else { Access::Read },
                    is_known: login.is_some(),
                    is_asked: true,
                    advice: None,
                },
                status => RegistryError::Token {
                    realm: realm(),
                    said: format!("HTTP status {status}{}", said(response).await),
                },
            });
        }
        let bytes = read_limited(response, MAX_ANSWER_BYTES).await.ok().flatten().unwrap_or_default();
        let answer: Option<TokenAnswer> = serde_json::from_slice(&bytes).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token)).filter(|token| !token.is_empty());
        token.ok_or_else(|| RegistryError::Token { realm: realm(), said: "its answer holds none".to_owned() })
    }
}

/// What a token is to be for: what the server says, else reading; writing as well where that comes next, so that there is one token; and
/// whatever else is read. Words with spaces between.
fn scopes(endpoint: &Endpoint, told: Option<&str>, rights: &Rights, quirks: &Quirks) -> String {
    let own = format!("repository:{}:", endpoint.repository.path);
    // Whoever asks for the server alone needs no right.
    let is_told = endpoint.repository.path.is_empty() || !quirks.has(Cope::OwnScope);
    let least = if is_told { String::new() } else { format!("{own}pull") };
    let told = told.filter(|scope| !scope.trim().is_empty()).map_or(least, str::to_owned);
    let widened = |scope: &str| match scope.strip_prefix(&own) {
        Some("pull" | "push") if rights.may_push => format!("{own}pull,push"),
        _ => scope.to_owned(),
    };
    let mut scopes: Vec<String> = told.split_whitespace().map(widened).collect();
    let source = rights.source.iter().filter(|_| quirks.has(Cope::SourceScope));
    scopes.extend(source.map(|source| format!("repository:{source}:pull")));
    scopes.join(" ")
}

/// Text of a form (WHATWG URL, `application/x-www-form-urlencoded`), by way of the query of an address.
mod url {
    pub(super) struct Form(reqwest::Url);

    pub(super) fn form() -> Form {
        Form(reqwest::Url::parse("http://form.invalid/").expect("it is an address"))
    }

    impl Form {
        pub(super) fn add(&mut self, name: &str, value: &str) {
            self.0.query_pairs_mut().append_pair(name, value);
        }

        pub(super) fn finish(self) -> String {
            self.0.query().unwrap_or_default().to_owned()
        }
    }
}

fn basic(user: &str, password: &str) -> HeaderValue {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).expect("base64 is a header's text");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use cas_oci::Repository;

    use super::*;

    #[test]
    fn one_token_is_for_all_that_comes() {
        let repository = Repository { host: "r.example".to_owned(), path: "a/b".to_owned() };
        let endpoint = Endpoint { origin: "https://r.example".to_owned(), repository };
        let with = |may_push, source: Option<&str>| Rights { may_push, source: source.map(str::to_owned) };
        for (told, rights, expected) in [
            (None, with(false, None), "repository:a/b:pull"),
            (Some(""), with(true, None), "repository:a/b:pull,push"),
            (Some("repository:a/b:pull"), with(true, None), "repository:a/b:pull,push"),
            (Some("repository:a/b:push"), with(true, None), "repository:a/b:pull,push"),
            (Some("repository:a/b:pull,push,delete"), with(true, None), "repository:a/b:pull,push,delete"),
            (Some("repository:x:pull"), with(true, None), "repository:x:pull"),
            (
                Some("repository:a/b:pull x"),
                with(true, Some("base")),
                "repository:a/b:pull,push x repository:base:pull",
            ),
        ] {
            assert_eq!(scopes(&endpoint, told, &rights, &Quirks::default()), expected, "{told:?} {rights:?}");
        }
    }
}
