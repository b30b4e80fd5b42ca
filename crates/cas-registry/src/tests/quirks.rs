//! Every row of the table, three times: a registry that behaves so, a plain client that fails there, and ours, which does not unless the row
//! is taken away. A row without a scene here is a failure.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use cas_blob::Descriptor;
use cas_oci::{ArtifactBlob, ArtifactManifest, EMPTY_CONTENT, INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE, Repository};
use cas_testing::registry::{FakeRegistry, Fault, Gate, Manner, Scopes};
use reqwest::{Method, Response, Url};
use serde_json::Value;

use super::{DOCUMENT, logins, of, run};
use crate::quirks::{Cope, QUIRKS, Quirk, Quirks};
use crate::{Client, Content, Delivery, Referrer, RegistryError, referrers_tag};

/// What is done in a scene, and what a plain client does for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// A blob gets there; plainly in one request.
    Push,
    /// The same; plainly in pieces of so many bytes.
    Pieces(usize),
    /// The same; plainly from where the upload says that it is.
    Resume,
    /// The same, where another repository has it, and plainly cannot be sent.
    Mount,
    /// It is taken from there.
    Mounted,
    /// What was not kept is found out.
    NotKept,
    /// What refers to a manifest is found again.
    Refer,
    /// Nothing refers to an index.
    Alone,
    /// What a tag names is told; plainly by `HEAD`.
    Look,
    /// The same; plainly by `GET`.
    LookInside,
    /// All tags are listed.
    Tags,
    /// A document is read.
    Read,
    /// A blob is refused, and it is told what to do.
    Refused,
    /// A tag is refused, and it is told what to do.
    RefusedTag,
}

/// A registry that behaves as a row says.
struct Scene {
    task: Task,
    fake: FakeRegistry,
    /// The host in names, where it is another one.
    front: FakeRegistry,
    /// The row with the addresses of this scene.
    row: Quirk,
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
}

/// How a registry behaves for a row; `None` for a row that nothing proves.
fn behaviour(row: &Quirk) -> Option<(Gate, Manner, Task)> {
    let open = |manner: Manner, task| Some((Gate::Open, manner, task));
    let plain = Manner::default;
    let short = Some(100_000);
    match row.name {
        "wait-in-message" | "lost-upload" => open(plain(), Task::Push),
        "write-package" => open(plain(), Task::Refused),
        "not-kept" => open(plain(), Task::NotKept),
        "immutable-ecr" | "immutable-harbor" => open(plain(), Task::RefusedTag),
        "pieces-of-4-mib" => {
            open(Manner { drops_after: short, most_piece: Some(4 << 20), ..plain() }, Task::Pieces(8 << 20))
        }
        "body-limit" => open(Manner { most_whole: short, ..plain() }, Task::Push),
        "no-pieces" => open(Manner { no_pieces: true, ..plain() }, Task::Pieces(500_000)),
        "created-piece" => open(Manner { most_whole: short, says_created: true, ..plain() }, Task::Pieces(500_000)),
        "range-lags" => open(Manner { most_whole: short, keeps: Some(300_000), ..plain() }, Task::Pieces(900_000)),
        "zero-range" => open(Manner { most_whole: short, zero_range: true, ..plain() }, Task::Resume),
        "relative-location" => open(Manner { is_relative: true, ..plain() }, Task::Push),
        "mount-ignored" => open(plain(), Task::Mount),
        "mount-refused" => Some((Gate::Scoped(Scopes::Last), Manner { mounts: true, ..plain() }, Task::Mount)),
        "mount-needs-source" => Some((Gate::Scoped(Scopes::All), Manner { mounts: true, ..plain() }, Task::Mounted)),
        "no-scope" => Some((Gate::Scoped(Scopes::Untold), plain(), Task::Push)),
        "short-tokens" => Some((Gate::Short(1), plain(), Task::Push)),
        "no-referrers" | "subject-unseen" => open(plain(), Task::Refer),
        "referrers-400" | "referrers-405" | "referrers-401" => {
            let Cope::NoReferrers(status) = row.cope else { return None };
            open(Manner { referrers_status: Some(status), ..plain() }, Task::Refer)
        }
        "page-for-people" => open(Manner { has_pages: true, ..plain() }, Task::Refer),
        "empty-lists" => open(Manner { lists_referrers: true, empty_lists: true, ..plain() }, Task::Refer),
        "tag-is-digest" => open(Manner { tag_is_digest: true, ..plain() }, Task::Alone),
        "no-digest" => open(Manner { hides_digest: true, ..plain() }, Task::Look),
        "no-head" => open(Manner { head_status: Some(405), ..plain() }, Task::Look),
        "head-is-free" => open(Manner { get_status: Some(429), ..plain() }, Task::LookInside),
        "pages-of-tags" => open(Manner { tags_page: Some(2), ..plain() }, Task::Tags),
        "other-host" | "library" => open(plain(), Task::Read),
        "login-key" => Some((Gate::Basic("Basic bWU6czNjcmV0".to_owned()), plain(), Task::Read)),
        "no-repository" => open(Manner { no_repositories: true, ..plain() }, Task::Refused),
        _ => None,
    }
}

impl Scene {
    fn of(row: &Quirk) -> Option<Self> {
        let (gate, manner, task) = behaviour(row)?;
        let (fake, front) = (FakeRegistry::start(gate), FakeRegistry::start(Gate::Open));
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let length = if row.name == "pieces-of-4-mib" { 9 << 20 } else { 900_000u32 };
        let bytes: Vec<u8> = (0..length).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
        fake.manner(manner);
        let mut row = *row;
        let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        match &mut row.cope {
            Cope::OtherHost { name, host } => (*name, *host) = (leak(front.address()), leak(fake.address())),
            Cope::Prefix { name, .. } | Cope::LoginKey { name, .. } => *name = leak(fake.address()),
            _ => {}
        }
        let path = if row.name == "library" { "library/node" } else { "a/b" };
        for tag in ["v1", "v2", "v3", "v4", "v5"] {
            fake.put(&format!("{path}/manifests/{tag}"), MANIFEST_MEDIA_TYPE, DOCUMENT);
        }
        fake.put(&format!("{path}/manifests/{}", of(DOCUMENT).digest), MANIFEST_MEDIA_TYPE, DOCUMENT);
        fake.put(&format!("a/b/manifests/{}", of(&index()).digest), INDEX_MEDIA_TYPE, &index());
        fake.put(&format!("a/b/blobs/{}", of(EMPTY_CONTENT).digest), "application/octet-stream", EMPTY_CONTENT);
        fake.put(&format!("base/blobs/{}", of(&bytes).digest), "application/octet-stream", &bytes);
        match row.name {
            "wait-in-message" => {
                let said = "You have exceeded a secondary rate limit, retry-after: 10.3ms".to_owned();
                fake.fail("PUT /v2/a/b/blobs", Fault::Refuse(403, said), 2);
            }
            "lost-upload" => fake.fail("PUT /v2/a/b/blobs", Fault::Status(404, Vec::new()), 2),
            "not-kept" => fake.fail("PUT /v2/a/b/blobs", Fault::Forget, 9),
            "write-package" => {
                let said = "permission_denied: write_package".to_owned();
                fake.fail("POST ", Fault::Refuse(403, said), 9);
            }
            "immutable-ecr" => {
                let said = "The image tag 'v1' already exists and cannot be overwritten because the tag is immutable.";
                fake.fail("PUT ", Fault::Refuse(400, said.to_owned()), 9);
            }
            "immutable-harbor" => {
                let said = "Failed to process request due to 'v1' configured as immutable.".to_owned();
                fake.fail("PUT ", Fault::Refuse(412, said), 9);
            }
            _ => {}
        }
        Some(Self { task, fake, front, row, folder, bytes })
    }

    fn repository(&self) -> Repository {
        let (host, path) = match self.row.name {
            "other-host" => (self.front.address(), "a/b"),
            "library" => (self.fake.address(), "node"),
            _ => (self.fake.address(), "a/b"),
        };
        Repository { host: host.to_owned(), path: path.to_owned() }
    }

    fn kept(&self) -> bool {
        self.fake.get(&format!("a/b/blobs/{}", of(&self.bytes).digest)).as_ref() == Some(&self.bytes)
    }

    /// Whether our client does it with these rows.
    async fn ours(&self, quirks: Quirks) -> bool {
        let logins = match self.row.cope {
            Cope::LoginKey { key, .. } => {
                let path = self.folder.path().join("auth.json");
                let text = format!(r#"{{"auths": {{"{key}": {{"auth": "bWU6czNjcmV0"}}}}}}"#);
                cas_fs::write(&path, text.as_bytes()).expect("it is ours");
                vec![path]
            }
            _ => logins(&self.folder, &self.fake, "{}"),
        };
        let client = Client::new(logins, BTreeMap::new()).knowing(quirks);
        let repository = self.repository();
        let source = Repository { path: "base".to_owned(), ..repository.clone() };
        let written = self.bytes.clone();
        let content: Content = Arc::new(move |sink: &mut dyn Write| sink.write_all(&written));
        let push = async |source| client.push_blob(&repository, &of(&self.bytes), &content, source).await;
        let advised = |error: Option<RegistryError>| match self.row.cope {
            Cope::Advice { advice, .. } => error.and_then(|error| error.hint()).as_deref() == Some(advice),
            _ => false,
        };
        match self.task {
            Task::Push | Task::Pieces(_) | Task::Resume => push(None).await.is_ok() && self.kept(),
            Task::Mount => push(Some(&source)).await.is_ok() && self.kept(),
            Task::Mounted => matches!(push(Some(&source)).await, Ok(Delivery::Mounted)),
            Task::NotKept => matches!(push(None).await, Err(RegistryError::NotKept { .. })),
            Task::Refer => {
                let (referrer, bytes) = referrer();
                let subject = of(DOCUMENT).digest;
                let pushed = client.push_referrer(&repository, &subject, &referrer, &bytes).await;
                let found = client.referrers(&repository, &subject, None).await;
                pushed.is_ok() && found.is_ok_and(|found| found == [referrer])
            }
            Task::Alone => {
                client.referrers(&repository, &of(&index()).digest, None).await.is_ok_and(|found| found.is_empty())
            }
            Task::Look | Task::LookInside => {
                client.look(&repository, "v1").await.is_ok_and(|found| found == Some(of(DOCUMENT).digest))
            }
            Task::Tags => client.tags(&repository).await.is_ok_and(|tags| tags.len() == 5),
            Task::Read => client.resolve(&repository, "v1").await.is_ok_and(|found| found.bytes == DOCUMENT),
            Task::Refused => advised(push(None).await.err()),
            Task::RefusedTag => {
                let digest = of(DOCUMENT).digest;
                let pushed = client.push_document(&repository, "v1", MANIFEST_MEDIA_TYPE, DOCUMENT, &digest).await;
                advised(pushed.err())
            }
        }
    }

    /// Whether a client does it that knows the specification alone.
    async fn plainly(&self) -> bool {
        self.plain_steps().await.is_some()
    }

    async fn plain_steps(&self) -> Option<()> {
        let repository = self.repository();
        let base = format!("http://{}/v2/{}", repository.host, repository.path);
        let plain = Plain::new(&repository.path);
        let digest = of(&self.bytes).digest.to_string();
        let same = |is: bool| is.then_some(());
        match self.task {
            Task::Push | Task::NotKept | Task::Refused => {
                let begun = plain.ask(Method::POST, &format!("{base}/blobs/uploads/"), None, Vec::new(), 202).await?;
                let mut url = Url::parse(begun.headers().get("location")?.to_str().ok()?).ok()?;
                url.query_pairs_mut().append_pair("digest", &digest);
                plain.ask(Method::PUT, url.as_str(), None, self.bytes.clone(), 201).await?;
                same(self.kept())
            }
            Task::Pieces(_) | Task::Resume => {
                let begun = plain.ask(Method::POST, &format!("{base}/blobs/uploads/"), None, Vec::new(), 202).await?;
                let location =
                    |response: &Response| Some(response.headers().get("location")?.to_str().ok()?.to_owned());
                let mut url = location(&begun)?;
                let (size, mut from) = (self.bytes.len(), 0);
                if self.task == Task::Resume {
                    let status = plain.ask(Method::GET, &url, None, Vec::new(), 204).await?;
                    let range = status.headers().get("range").and_then(|range| range.to_str().ok()?.split_once('-'));
                    from = range.and_then(|(_, end)| end.parse::<usize>().ok()).map_or(0, |end| end + 1);
                }
                let most = if let Task::Pieces(most) = self.task { most } else { size };
                while from < size {
                    let to = size.min(from + most);
                    let range = format!("{from}-{}", to - 1);
                    let body = self.bytes[from..to].to_vec();
                    url = location(&plain.ask(Method::PATCH, &url, Some(("content-range", &range)), body, 202).await?)?;
                    from = to;
                }
                let mut url = Url::parse(&url).ok()?;
                url.query_pairs_mut().append_pair("digest", &digest);
                plain.ask(Method::PUT, url.as_str(), None, Vec::new(), 201).await?;
                same(self.kept())
            }
            Task::Mount | Task::Mounted => {
                let url = format!("{base}/blobs/uploads/?mount={digest}&from=base");
                let plain = if self.task == Task::Mount { plain.with_source("base") } else { plain };
                plain.ask(Method::POST, &url, None, Vec::new(), 201).await.map(drop)
            }
            Task::Refer => {
                let (referrer, bytes) = referrer();
                let url = format!("{base}/manifests/{}", referrer.blob.digest);
                let kind = Some(("content-type", MANIFEST_MEDIA_TYPE));
                plain.ask(Method::PUT, &url, kind, bytes, 201).await?;
                let url = format!("{base}/referrers/{}", of(DOCUMENT).digest);
                let found = plain.ask(Method::GET, &url, None, Vec::new(), 200).await?;
                same(manifests(found).await? == 1)
            }
            Task::Alone => {
                let url = format!("{base}/manifests/{}", referrers_tag(&of(&index()).digest));
                match plain.ask(Method::GET, &url, None, Vec::new(), 200).await {
                    Some(found) => same(manifests(found).await? == 0),
                    None => Some(()),
                }
            }
            Task::Look => {
                let found = plain.ask(Method::HEAD, &format!("{base}/manifests/v1"), None, Vec::new(), 200).await?;
                same(found.headers().get("docker-content-digest")? == of(DOCUMENT).digest.to_string().as_str())
            }
            Task::LookInside | Task::Read => {
                let found = plain.ask(Method::GET, &format!("{base}/manifests/v1"), None, Vec::new(), 200).await?;
                same(found.bytes().await.ok()? == DOCUMENT)
            }
            Task::Tags => {
                let mut tags: Vec<String> = Vec::new();
                loop {
                    let last = tags.last().map(|last| format!("?last={last}")).unwrap_or_default();
                    let url = format!("{base}/tags/list{last}");
                    let found = plain.ask(Method::GET, &url, None, Vec::new(), 200).await?;
                    let list: Value = serde_json::from_slice(&found.bytes().await.ok()?).ok()?;
                    let page: Vec<String> = serde_json::from_value(list["tags"].clone()).ok()?;
                    if page.is_empty() {
                        return same(tags.len() == 5);
                    }
                    // It would go on for ever.
                    if tags.contains(&page[0]) {
                        return None;
                    }
                    tags.extend(page);
                }
            }
            Task::RefusedTag => {
                let url = format!("{base}/manifests/v1");
                let kind = Some(("content-type", MANIFEST_MEDIA_TYPE));
                plain.ask(Method::PUT, &url, kind, DOCUMENT.to_vec(), 201).await.map(drop)
            }
        }
    }
}

/// A client without rules: one token, one way, one try.
struct Plain {
    http: reqwest::Client,
    scopes: Vec<String>,
    token: std::sync::Mutex<Option<String>>,
}

impl Plain {
    fn new(path: &str) -> Self {
        let scopes = vec![format!("repository:{path}:pull,push")];
        let http = reqwest::Client::builder().tls_backend_preconfigured(cas_tls::config());
        Self { http: http.build().expect("it is a client"), scopes, token: std::sync::Mutex::default() }
    }

    fn with_source(mut self, path: &str) -> Self {
        self.scopes.push(format!("repository:{path}:pull"));
        self
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        header: Option<(&str, &str)>,
        body: Vec<u8>,
        wanted: u16,
    ) -> Option<Response> {
        let send = async || {
            let mut request = self.http.request(method.clone(), url).body(body.clone());
            if let Some((name, value)) = header {
                request = request.header(name, value);
            }
            if let Some(token) = self.token.lock().expect("nobody panics with it").as_ref() {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            request.send().await.ok()
        };
        let mut response = send().await?;
        let has_token = self.token.lock().expect("nobody panics with it").is_some();
        if response.status() == 401 && !has_token {
            let challenge = response.headers().get("www-authenticate")?.to_str().ok()?.to_owned();
            let value = |key: &str| challenge.split_once(&format!("{key}=\""))?.1.split('"').next().map(str::to_owned);
            let mut realm = Url::parse(&value("realm")?).ok()?;
            // What is told is asked for, and what this client knows to need beside it.
            for scope in self.scopes.iter().filter(|_| value("scope").is_some()) {
                realm.query_pairs_mut().append_pair("scope", scope);
            }
            let answer = self.http.get(realm).send().await.ok()?.bytes().await.ok()?;
            let answer: Value = serde_json::from_slice(&answer).ok()?;
            *self.token.lock().expect("nobody panics with it") = Some(answer["token"].as_str()?.to_owned());
            response = send().await?;
        }
        (response.status() == wanted).then_some(response)
    }
}

async fn manifests(response: Response) -> Option<usize> {
    let list: Value = serde_json::from_slice(&response.bytes().await.ok()?).ok()?;
    Some(list["manifests"].as_array()?.len())
}

/// An index of one manifest.
fn index() -> Vec<u8> {
    let Descriptor { digest, size } = of(DOCUMENT);
    let item = format!(r#"{{"mediaType":"{MANIFEST_MEDIA_TYPE}","digest":"{digest}","size":{size}}}"#);
    format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_MEDIA_TYPE}","manifests":[{item}]}}"#).into_bytes()
}

fn referrer() -> (Referrer, Vec<u8>) {
    let annotations = BTreeMap::new();
    let bytes = cas_oci::encode_artifact(&ArtifactManifest {
        artifact_type: "a/x",
        config: &ArtifactBlob::empty(),
        files: &[],
        subject: Some((MANIFEST_MEDIA_TYPE, of(DOCUMENT))),
        annotations: &annotations,
    });
    let (blob, media_type) = (of(&bytes), MANIFEST_MEDIA_TYPE.to_owned());
    (Referrer { media_type, blob, artifact_type: Some("a/x".to_owned()), annotations }, bytes)
}

/// All three proofs of a row; what is wrong with it.
fn judge(row: &Quirk) -> Option<String> {
    let scene = || Scene::of(row);
    let Some(first) = scene() else { return Some(format!("{}: no scene behaves so", row.name)) };
    if run(first.plainly()) {
        return Some(format!("{}: a plain client does it as well", row.name));
    }
    let (with, without) = (scene()?, scene()?);
    let mut rows: Vec<Quirk> = QUIRKS.iter().filter(|other| other.name != row.name).copied().collect();
    if run(without.ours(Quirks::of(rows.clone()))) {
        return Some(format!("{}: the client does it without the row", row.name));
    }
    rows.push(with.row);
    if !run(with.ours(Quirks::of(rows))) {
        let lines: Vec<String> = with.fake.requests().into_iter().map(|request| request.line).collect();
        return Some(format!("{}: the client does not do it: {lines:#?}", row.name));
    }
    None
}

#[test]
fn every_row_is_needed_and_is_enough() {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let rows: Vec<_> = QUIRKS.iter().map(|row| scope.spawn(|| judge(row))).collect();
        rows.into_iter().filter_map(|row| row.join().expect("no scene panics")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table of the format's page is that of the code.
#[test]
fn the_page_has_the_same_table() {
    let mut table =
        "| row | who | what is particular | what the client does | source | tried live |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for row in QUIRKS {
        let who: Vec<String> = row.registries.iter().map(ToString::to_string).collect();
        let tried = row.tried_live.unwrap_or("never");
        let cells = [row.name, &who.join(", "), row.differs, row.copes, row.source, tried];
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats/registry.md");
    let page = cas_fs::read_limited(std::path::Path::new(path), 1 << 20).expect("the page is there");
    let page = String::from_utf8(page).expect("it is text");
    assert!(page.contains(&table), "docs/formats/registry.md is to have this table:\n{table}");
}
