//! Generic packages of GitLab: files under a name and a version (GitLab documentation, "GitLab generic packages repository", "Packages API").
//!
//! A token goes to the host of the package alone: redirects, as to the place where files are kept, are followed without it. A `PUT` is made
//! once, because what is sent twice may be kept twice.
//!
//! Not here: what is sent in which order, and what may stand in the way (`cas-sync`).

use std::fmt;
use std::str::FromStr;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction, Hasher};
use cas_oci::{Repository, digest_of};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::address::{Endpoint, is_loopback};
use crate::client::{ATTEMPTS, Client, now, read_limited, transport};
use crate::pause::told;
use crate::push::header;
use crate::sending::{Content, Failure, body};
use crate::{Access, Credentials, Login, RegistryError};

/// How places of packages begin.
pub const GENERIC_SCHEME: &str = "gitlab-generic://";
/// Longest page of a list, and longest answer.
const MAX_PAGE_BYTES: u64 = 4 << 20;
/// Pages that are read of one list.
const MAX_PAGES: usize = 100;
/// Redirects that are followed for one file.
const MAX_REDIRECTS: usize = 3;

/// A version of a package in a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenericPackage {
    /// `gitlab.com`, or another host, with a port or not.
    pub host: String,
    /// The project's path, or its number.
    pub project: String,
    /// The package.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Why a text names no version of a package.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no version of a package")]
pub struct ParsePackageError {
    text: String,
}

impl ParsePackageError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        format!(
            "write `{GENERIC_SCHEME}HOST/PROJECT/PACKAGE/VERSION`, the project by its path or its number; names are of letters, digits \
             and `.`, `_`, `-`, `+`"
        )
    }
}

/// Whether GitLab takes a text for the name of a package or file.
#[must_use]
pub fn is_package_word(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'+');
    !text.is_empty() && text.len() <= 255 && text.bytes().all(is_fine) && !text.starts_with('.') && !text.contains("..")
}

/// A word of a package in an address.
fn quoted(word: &str) -> String {
    word.replace('+', "%2B")
}

impl FromStr for GenericPackage {
    type Err = ParsePackageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What stands before an `@` may be a password.
        let refused = || ParsePackageError { text: text.rsplit('@').next().unwrap_or_default().to_owned() };
        let rest = text.strip_prefix(GENERIC_SCHEME).ok_or_else(refused)?;
        let words: Vec<&str> = rest.split('/').collect();
        let [host, project @ .., name, version] = &words[..] else { return Err(refused()) };
        let is_host = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':'));
        let is_fine = is_host && !host.is_empty() && !project.is_empty();
        if !is_fine || ![*name, *version].iter().chain(project).all(|word| is_package_word(word)) {
            return Err(refused());
        }
        Ok(Self {
            host: (*host).to_owned(),
            project: project.join("/"),
            name: (*name).to_owned(),
            version: (*version).to_owned(),
        })
    }
}

impl fmt::Display for GenericPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{GENERIC_SCHEME}{}/{}/{}/{}", self.host, self.project, self.name, self.version)
    }
}

impl GenericPackage {
    fn endpoint(&self) -> Endpoint {
        let scheme = if is_loopback(&self.host) { "http" } else { "https" };
        let repository = Repository { host: self.host.clone(), path: self.project.clone() };
        Endpoint { origin: format!("{scheme}://{}", self.host), repository }
    }

    fn url(&self, rest: &str) -> String {
        let project = self.project.replace('/', "%2F");
        format!("{}/api/v4/projects/{project}/packages{rest}", self.endpoint().origin)
    }

    fn file_url(&self, name: &str) -> String {
        self.url(&format!("/generic/{}/{}/{}", quoted(&self.name), quoted(&self.version), quoted(name)))
    }
}

/// A token with the header that GitLab reads it from. It is never shown.
#[derive(Clone)]
pub struct PackageToken {
    header: HeaderName,
    value: HeaderValue,
}

impl fmt::Debug for PackageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackageToken({}: …)", self.header)
    }
}

impl PackageToken {
    fn new(header: &'static str, value: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some(Self { header: HeaderName::from_static(header), value })
    }

    /// The token of a job of a pipeline.
    #[must_use]
    pub fn of_job(token: &str) -> Option<Self> {
        Self::new("job-token", token)
    }

    /// What a login is: its user says which kind of a token the password is.
    fn of_login(login: &Login) -> Option<Self> {
        match login {
            Login::Password { user, password } if user == "gitlab-ci-token" => Self::of_job(password),
            Login::Password { user, password } if user.starts_with("gitlab+deploy-token") => {
                Self::new("deploy-token", password)
            }
            Login::Password { password: token, .. } | Login::IdentityToken(token) => Self::new("private-token", token),
        }
    }
}

/// A file of a package, as the list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageFile {
    /// Its name; several may have one.
    pub name: String,
    /// Its digest, where the list tells it.
    pub digest: Option<Digest>,
}

#[derive(Deserialize)]
struct ListedPackage {
    id: u64,
    name: String,
    version: Option<String>,
}

#[derive(Deserialize)]
struct ListedFile {
    file_name: String,
    file_sha256: Option<String>,
}

impl ListedFile {
    fn digest(&self) -> Option<Digest> {
        digest_of(&format!("sha256:{}", self.file_sha256.as_deref()?))
    }
}

/// A request to GitLab.
struct Call<'a> {
    package: &'a GenericPackage,
    name: String,
    token: Option<&'a PackageToken>,
    access: Access,
}

impl Client {
    /// The token for a package in the files of logins, by its host and project; `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Credentials`], [`RegistryError::Helper`]
    pub fn package_token(&self, package: &GenericPackage) -> Result<Option<PackageToken>, RegistryError> {
        let repository = package.endpoint().repository;
        let login = Credentials::read(self.logins.iter().cloned())?.find_with(&repository, &self.quirks)?;
        Ok(login.as_ref().and_then(PackageToken::of_login))
    }

    /// The files of a version; none where it is not there.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn package_files(
        &self,
        package: &GenericPackage,
        token: Option<&PackageToken>,
    ) -> Result<Vec<PackageFile>, RegistryError> {
        let call = Call { package, name: package.to_string(), token, access: Access::Read };
        let filter = format!("package_name={}&package_version={}", quoted(&package.name), quoted(&package.version));
        let listed: Vec<ListedPackage> =
            self.package_list(&call, &package.url(&format!("?package_type=generic&{filter}"))).await?;
        let mut files = Vec::new();
        // Names are looked for by their parts.
        let is_meant = |listed: &&ListedPackage| {
            listed.name == package.name && listed.version.as_deref() == Some(&package.version)
        };
        for ListedPackage { id, .. } in listed.iter().filter(is_meant) {
            let listed: Vec<ListedFile> =
                self.package_list(&call, &package.url(&format!("/{id}/package_files?"))).await?;
            let file = |file: ListedFile| PackageFile { digest: file.digest(), name: file.file_name };
            files.extend(listed.into_iter().map(file));
        }
        Ok(files)
    }

    /// Sends a file, once. What stands there under its name is to be looked at before.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; [`RegistryError::Mismatch`] where GitLab says that it has got something else.
    pub async fn push_package_file(
        &self,
        package: &GenericPackage,
        token: Option<&PackageToken>,
        name: &str,
        blob: &Descriptor,
        content: &Content,
    ) -> Result<(), RegistryError> {
        let call = Call { package, name: format!("{package}/{name}"), token, access: Access::Write };
        let url = format!("{}?select=package_file", package.file_url(name));
        let failure = Failure::default();
        let send = async || {
            let request = self.package_request(&call, Method::PUT, &url)?;
            let request = request.header(CONTENT_LENGTH, blob.size).header(CONTENT_TYPE, "application/octet-stream");
            let request = request.body(body(content, None, 0..blob.size, &failure));
            request.send().await.map_err(|error| transport(&package.endpoint(), &call.name, error))
        };
        let sent = self.unless_stopped(send()).await?;
        if let Some(source) = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            return Err(RegistryError::Content { name: call.name, source });
        }
        let response = call.judged(sent?).await.map_err(|(error, _)| error)?;
        let file: Option<ListedFile> = self.package_answer(&call, response).await?;
        match file.and_then(|file| file.digest()) {
            Some(found) if found != blob.digest => {
                let (name, origin) = (call.name, package.endpoint().origin);
                Err(RegistryError::Mismatch { name, origin, actual: found.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Reads a file, and tells what it is.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]
    pub async fn package_file_digest(
        &self,
        package: &GenericPackage,
        token: Option<&PackageToken>,
        name: &str,
    ) -> Result<Descriptor, RegistryError> {
        let call = Call { package, name: format!("{package}/{name}"), token, access: Access::Read };
        let failed = |error| transport(&package.endpoint(), &call.name, error);
        let mut attempt = 1;
        loop {
            let mut response = self.package_get(&call, &package.file_url(name)).await?;
            let (mut hasher, mut size) = (Hasher::new(DigestFunction::Sha256), 0);
            let error = loop {
                match self.unless_stopped(response.chunk()).await? {
                    Ok(Some(chunk)) => {
                        hasher.update(&chunk);
                        size += chunk.len() as u64;
                    }
                    Ok(None) => return Ok(Descriptor { digest: hasher.finish(), size }),
                    Err(error) => break error,
                }
            };
            if attempt == ATTEMPTS {
                return Err(failed(error));
            }
            self.wait(None, attempt).await?;
            attempt += 1;
        }
    }

    /// All entries of a list, page by page. The address ends in its query.
    async fn package_list<T: DeserializeOwned>(&self, call: &Call<'_>, url: &str) -> Result<Vec<T>, RegistryError> {
        let mut all = Vec::new();
        let mut page = "1".to_owned();
        for _ in 0..MAX_PAGES {
            let response = self.package_get(call, &format!("{url}&per_page=100&page={page}")).await?;
            let next = header(&response, &HeaderName::from_static("x-next-page"));
            let next = next.filter(|next| next.parse::<u32>().is_ok()).map(str::to_owned);
            let entries: Option<Vec<T>> = self.package_answer(call, response).await?;
            all.extend(entries.ok_or_else(|| call.answer("what is no list of packages"))?);
            match next {
                Some(next) => page = next,
                None => return Ok(all),
            }
        }
        Err(call.answer("a list without an end"))
    }

    async fn package_answer<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        response: Response,
    ) -> Result<Option<T>, RegistryError> {
        let read = self.unless_stopped(read_limited(response, MAX_PAGE_BYTES)).await?;
        let bytes = read.map_err(|error| transport(&call.package.endpoint(), &call.name, error))?;
        Ok(serde_json::from_slice(&bytes.unwrap_or_default()).ok())
    }

    /// Reads something, at another address where it is led there.
    async fn package_get(&self, call: &Call<'_>, url: &str) -> Result<Response, RegistryError> {
        let (mut attempt, mut redirects) = (1, 0);
        let mut url = url.to_owned();
        loop {
            let send = async || {
                let request = self.package_request(call, Method::GET, &url)?;
                request.send().await.map_err(|error| transport(&call.package.endpoint(), &call.name, error))
            };
            let (error, pause) = match self.unless_stopped(send()).await? {
                Ok(response) if response.status().is_redirection() && redirects < MAX_REDIRECTS => {
                    url = call.redirected(&response, &url)?;
                    redirects += 1;
                    continue;
                }
                Ok(response) => match call.judged(response).await {
                    Ok(response) => return Ok(response),
                    Err(failed) => failed,
                },
                Err(error) => (error, None),
            };
            let may_help = match &error {
                RegistryError::Transport { .. } => true,
                RegistryError::Status { status, .. } => *status == 429 || *status >= 500,
                _ => false,
            };
            if attempt == ATTEMPTS || !may_help {
                return Err(error);
            }
            self.wait(pause, attempt).await?;
            attempt += 1;
        }
    }

    /// A request, which has the token where it goes to the host of the package.
    fn package_request(
        &self,
        call: &Call<'_>,
        method: Method,
        url: &str,
    ) -> Result<reqwest::RequestBuilder, RegistryError> {
        if self.is_offline() {
            return Err(RegistryError::Offline { name: call.name.clone() });
        }
        let endpoint = call.package.endpoint();
        let http = self.direct().map_err(|error| transport(&endpoint, &call.name, error))?;
        let request = http.request(method, url);
        Ok(match call.token.filter(|_| endpoint.is_at(url)) {
            Some(token) => request.header(token.header.clone(), token.value.clone()),
            None => request,
        })
    }
}

impl Call<'_> {
    fn answer(&self, said: &str) -> RegistryError {
        let (name, origin) = (self.name.clone(), self.package.endpoint().origin);
        RegistryError::Answer { name, origin, said: said.to_owned() }
    }

    /// Where something is said to be, which is not to be read in clear by others.
    fn redirected(&self, response: &Response, base: &str) -> Result<String, RegistryError> {
        let location = header(response, &LOCATION).unwrap_or_default();
        let url = Url::parse(base).and_then(|base| base.join(location)).ok();
        let url = url.filter(|url| url.scheme() == "https" || url.host_str().is_some_and(is_loopback));
        url.map(Into::into).ok_or_else(|| self.answer("an address that is not encrypted"))
    }

    /// The response, or what a bad status means, and how long to wait.
    async fn judged(&self, response: Response) -> Result<Response, (RegistryError, Option<std::time::Duration>)> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let told_in = header(&response, &RETRY_AFTER).map(str::to_owned);
        let pause = told(told_in.as_deref(), "", None, now());
        let said = message(response).await;
        let (name, origin, status) = (self.name.clone(), self.package.endpoint().origin, status.as_u16());
        let error = match status {
            404 | 410 => {
                let advice = Some(
                    "GitLab says so also of what a token may not see: look at the project, and at the token's rights (`api`, \
                     `write_package_registry`, or the job token's access to the project)",
                );
                RegistryError::NotFound { name, origin, status, advice }
            }
            401 | 403 => RegistryError::Denied {
                name,
                origin,
                status,
                said,
                access: self.access,
                is_known: self.token.is_some(),
                is_asked: true,
                advice: Some(match self.token {
                    Some(_) => {
                        "the token may not do that: it needs `api`, or `write_package_registry` for a deploy token"
                    }
                    None => {
                        "put a token into a file of logins, as `auths.HOST` with a name and the token; in a pipeline `CI_JOB_TOKEN` \
                         is used for the server that it is of"
                    }
                }),
            },
            _ => RegistryError::Status { name, origin, status, said, advice: None },
        };
        Err((error, pause))
    }
}

/// What GitLab says of an error, after a colon.
async fn message(response: Response) -> String {
    let bytes = read_limited(response, MAX_PAGE_BYTES).await.ok().flatten().unwrap_or_default();
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = ["message", "error"].iter().find_map(|key| match value.get(key)? {
        serde_json::Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    });
    let text: String = text.unwrap_or_default().chars().filter(|character| !character.is_control()).take(200).collect();
    if text.is_empty() { text } else { format!(": {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_packages_are_read_and_written() {
        for (text, expected) in [
            ("gitlab-generic://gitlab.com/acme/tool/1.0.0", Some(("gitlab.com", "acme", "tool", "1.0.0"))),
            ("gitlab-generic://gitlab.com/acme/deep/er/tool/1.0", Some(("gitlab.com", "acme/deep/er", "tool", "1.0"))),
            ("gitlab-generic://localhost:8080/17/tool/1.0+x", Some(("localhost:8080", "17", "tool", "1.0+x"))),
            ("gitlab-generic://gitlab.com/tool/1.0.0", None),
            ("gitlab-generic://gitlab.com/acme/tool/", None),
            ("gitlab-generic://gitlab.com/acme/../tool/1.0", None),
            ("gitlab-generic://gitlab.com/acme/tool/1.0?x=y", None),
            ("gitlab-generic://me:s3cret@gitlab.com/acme/tool/1.0", None),
            ("gitlab.com/acme/tool/1.0.0", None),
        ] {
            let found = text.parse::<GenericPackage>();
            assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
            let parts = found.as_ref().ok().map(|found| (&*found.host, &*found.project, &*found.name, &*found.version));
            assert_eq!(parts, expected, "{text}");
            assert!(found.is_err() || found.is_ok_and(|found| found.to_string() == text));
        }
    }

    #[test]
    fn the_user_of_a_login_says_which_token_it_is() {
        for (user, expected) in
            [("gitlab-ci-token", "job-token"), ("gitlab+deploy-token-12", "deploy-token"), ("octocat", "private-token")]
        {
            let login = Login::Password { user: user.to_owned(), password: "s3cret".to_owned() };
            let token = PackageToken::of_login(&login).expect("it is a header's text");
            assert_eq!((token.header.as_str(), token.value.as_bytes()), (expected, &b"s3cret"[..]));
            assert!(!format!("{token:?}").contains("s3cret"));
        }
    }
}
