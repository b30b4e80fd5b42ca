//! From labels to outputs.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::Descriptor;
use cas_config::{Fetch, Label, Lock, LockedDebian, TargetKind};
use cas_fetch::Fetcher;
use cas_sandbox::Cancel;
use cas_store::Store;

use crate::debian::{self, Context};
use crate::{BuildError, Download, LOCK_FILE, Output, Workspace, image, schedule};

/// What a build may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It may add what `cas.lock` lacks.
    Normal,
    /// A lock that would change is an error.
    Locked,
    /// Everything is resolved anew.
    Update,
}

/// Builds targets of a workspace.
#[derive(Debug)]
pub struct Builder<'a> {
    /// What is built.
    pub workspace: &'a Workspace,
    /// Where results are.
    pub store: &'a Store,
    /// Where missing inputs come from.
    pub fetcher: &'a Fetcher,
    /// Targets at once.
    pub jobs: NonZeroUsize,
    /// What may change.
    pub mode: Mode,
    /// Texts of apt's sources, for the mirror.
    pub apt_sources: Vec<String>,
    /// The time, in seconds since 1970: only to see whether a suite's index has expired.
    pub now_unix_seconds: u64,
    /// Ends the build.
    pub cancel: Cancel,
}

impl Builder<'_> {
    /// Builds the targets and what they need. Returns the outputs of those asked for, and whether `cas.lock` changed.
    ///
    /// # Errors
    ///
    /// The failure of the first target in order of labels; outputs of others are kept in the store.
    pub fn build(&self, labels: &[Label]) -> Result<(BTreeMap<Label, Output>, bool), BuildError> {
        let graph = self.graph(labels)?;
        let lock = Mutex::new(self.workspace.lock.clone());
        let stop = || self.cancel.is_cancelled();
        let mut finished =
            schedule::run(&graph, self.jobs, &stop, &|label: &Label, needs| self.one(label, &needs, &lock));
        let lock = lock.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What was resolved stays resolved, also when another target failed.
        let changed = lock != self.workspace.lock;
        if changed {
            cas_fs::write_atomic(&self.workspace.root.join(LOCK_FILE), lock.to_text().as_bytes())?;
        }
        if let Some((_, error)) = finished.errors.pop_first() {
            return Err(error);
        }
        if self.cancel.is_cancelled() {
            return Err(BuildError::Interrupted);
        }
        finished.values.retain(|label, _| labels.contains(label));
        Ok((finished.values, changed))
    }

    /// What is to be built, each with what it needs.
    fn graph(&self, labels: &[Label]) -> Result<BTreeMap<Label, BTreeSet<Label>>, BuildError> {
        let mut graph: BTreeMap<Label, BTreeSet<Label>> = BTreeMap::new();
        // The way from a requested target to the current one, each with the needs that are still to be looked at.
        let mut way: Vec<(Label, Vec<Label>)> = Vec::new();
        for label in labels {
            if graph.contains_key(label) {
                continue;
            }
            way.push((label.clone(), self.needs(label, &mut graph)?));
            while let Some((_, open)) = way.last_mut() {
                let Some(next) = open.pop() else {
                    way.pop();
                    continue;
                };
                if let Some(at) = way.iter().position(|(label, _)| *label == next) {
                    let cycle = way[at..].iter().map(|(label, _)| label.to_string());
                    return Err(BuildError::Cycle { cycle: cycle.chain([next.to_string()]).collect() });
                }
                if !graph.contains_key(&next) {
                    let needs = self.needs(&next, &mut graph)?;
                    way.push((next, needs));
                }
            }
        }
        Ok(graph)
    }

    fn needs(&self, label: &Label, graph: &mut BTreeMap<Label, BTreeSet<Label>>) -> Result<Vec<Label>, BuildError> {
        let needs = self.workspace.needs(label)?;
        graph.insert(label.clone(), needs.iter().cloned().collect());
        Ok(needs)
    }

    fn one(&self, label: &Label, needs: &BTreeMap<Label, Output>, lock: &Mutex<Lock>) -> Result<Output, BuildError> {
        let target = self.workspace.target(label).expect("the graph holds targets of the workspace");
        match &target.kind {
            TargetKind::Toolchain(toolchain) => {
                let suite = &toolchain.debian.suite;
                let mirror = cas_fetch::debian_mirror(&self.apt_sources, suite)
                    .unwrap_or_else(|| cas_fetch::defaults::DEBIAN.to_owned());
                let function = self.workspace.section.digest_function;
                let context = Context { store: self.store, fetcher: self.fetcher, function, mirror };
                let locked = self.locked(&context, label, &toolchain.debian, lock)?;
                Ok(Output::Toolchain(Arc::new(debian::toolchain(&context, &locked)?)))
            }
            TargetKind::Fetch(Fetch::Url { url, digest }) => self.download(&url.value, *digest),
            TargetKind::Image(image) => {
                let package = label.package.as_ref();
                let output = |reference| -> Result<(String, Output), BuildError> {
                    let label = self.workspace.resolve(package, reference)?;
                    let output = needs.get(&label).expect("the graph names every need").clone();
                    Ok((label.to_string(), output))
                };
                let base = image.base.as_ref().map(|base| output(&base.value)).transpose()?;
                let layers = image.layers.iter().map(|layer| output(&layer.from.value)).collect::<Result<_, _>>()?;
                let function = self.workspace.section.digest_function;
                Ok(Output::Image(Arc::new(image::build(self.store, function, label, image, base, layers)?)))
            }
            kind => Err(BuildError::NotAvailable { label: label.to_string(), kind: kind.name() }),
        }
    }

    /// The pins of a toolchain, resolved where they are missing or stale.
    fn locked(
        &self,
        context: &Context<'_>,
        label: &Label,
        debian: &cas_config::Debian,
        lock: &Mutex<Lock>,
    ) -> Result<LockedDebian, BuildError> {
        let target = label.to_string();
        let is_ours = |entry: &LockedDebian| entry.target == target && entry.architecture == debian::architecture();
        let found = self.workspace.lock.debian.iter().find(|entry| is_ours(entry));
        if let Some(entry) = found
            && entry.request == debian::request(debian)
            && self.mode != Mode::Update
        {
            return Ok(entry.clone());
        }
        if self.mode == Mode::Locked {
            return Err(BuildError::LockStale { entry: format!("`{target}`") });
        }
        let entry = debian::resolve(context, &target, debian, self.now_unix_seconds)?;
        let mut lock = lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.debian.retain(|entry| !is_ours(entry));
        lock.debian.push(entry.clone());
        lock.debian.sort_by(|a, b| (&a.target, &a.architecture).cmp(&(&b.target, &b.architecture)));
        Ok(entry)
    }

    fn download(&self, url: &str, digest: cas_digest::Digest) -> Result<Output, BuildError> {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        let last = path.rsplit('/').next().filter(|name| cas_tree::Name::new(name).is_ok()).unwrap_or("download");
        let file_name = last.to_owned();
        // Sizes are not announced; a memo remembers the one that had this digest.
        let key = digest.to_string();
        let known = self.store.memo("download", key.as_bytes())?;
        let blob = known.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<Descriptor>().ok());
        if let Some(blob) = blob
            && self.store.contains(&blob)?
        {
            let blob = self.store.name_with(self.workspace.section.digest_function, &blob)?;
            return Ok(Output::Download(Arc::new(Download { blob, file_name })));
        }
        let mut body = self.fetcher.get(url)?;
        let function = self.workspace.section.digest_function;
        let (blob, named) =
            self.store.put_with_alias(function, digest.function(), &mut body).map_err(|error| match error {
                cas_store::StoreError::Source(source) => BuildError::Fetch(cas_fetch::FetchError::Transport {
                    url: cas_fetch::redact(url),
                    source: Box::new(source),
                }),
                other => other.into(),
            })?;
        if named.digest != digest {
            let expected = Descriptor { digest, size: named.size };
            let source = cas_blob::VerifyError::Digest { expected, actual: named.digest };
            return Err(BuildError::Mismatch { url: cas_fetch::redact(url), source: source.into() });
        }
        self.store.put_memo("download", key.as_bytes(), named.to_string().as_bytes())?;
        Ok(Output::Download(Arc::new(Download { blob, file_name })))
    }
}
