//! What differs between the workspace as it is and as a revision of git has it. Rules: docs/formats/affected.md.
//!
//! Both states are outlined (`outline`), nothing is checked out, run or fetched; then targets are compared by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cas_config::{Fetch, Label, LockfileKind, MAX_MANIFEST_BYTES, Pattern, TargetKind};
use cas_snapshot::{KeepError, Revised, Revision, RevisionError, Snapshot};
use cas_store::StoreError;
use cas_tree::RelPath;

use crate::builder::Aim;
use crate::graph::{Graph, TargetId};
use crate::npm::PACKAGE_JSON;
use crate::outline::{Outlined, Outlines};
use crate::schedule::Values;
use crate::trace::{Difference, Trace, What};
use crate::workspace::{MAX_LOCK_BYTES, Source, at};
use crate::{BuildError, Builder, LOCK_FILE, MANIFEST_FILE, Output, Reason, Verdict, Workspace};

/// What a revision and the working tree differ in.
#[derive(Debug)]
pub struct Affected {
    /// The revision's commit.
    pub commit: String,
    /// Why everything is affected, when the revision cannot be compared target by target.
    pub everything: Option<String>,
    /// The targets that are affected, in order.
    pub targets: Vec<AffectedTarget>,
    /// What the revision has and the workspace does not, in order: label and kind.
    pub removed: Vec<(Label, &'static str)>,
}

/// A target that would be built otherwise.
#[derive(Debug)]
pub struct AffectedTarget {
    /// Its label.
    pub label: Label,
    /// Whether everything that it depends on has known outputs on both sides, so that a build would do something else for it.
    /// Otherwise what it depends on may turn out to give the same.
    pub is_refined: bool,
    /// In which respects, the nearest first; at least one.
    pub causes: Vec<Cause>,
}

/// In which respect a target is affected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The revision does not have it.
    New,
    /// It cannot be built, or could not.
    Failure(String),
    /// A file of its own.
    File(String),
    /// A part of what `cas.toml` says of it.
    Definition(String),
    /// What `cas.lock` pins for it.
    Lock,
    /// What its package reaches of a lockfile.
    Lockfile(String),
    /// A toolchain that it runs in.
    Toolchain(String),
    /// What a target gives that it depends on, or whether it depends on it.
    Through(String),
    /// Nothing can be told apart.
    Everything,
}

/// One state of the workspace, outlined.
struct Side<'a> {
    builder: &'a Builder<'a>,
    graph: Graph<'a>,
    snapshot: &'a Snapshot,
    values: Values<Output>,
    outlines: BTreeMap<TargetId, Outlined>,
}

impl<'a> Side<'a> {
    fn new(
        builder: &'a Builder<'a>,
        snapshot: &'a Snapshot,
        labels: &[Label],
        differing: Vec<Vec<u8>>,
    ) -> Result<Self, BuildError> {
        let graph = Graph::new(builder.workspace, labels)?;
        let outlines = Outlines { absent: snapshot.absent(), differing, ..Outlines::default() };
        let (lock, steps) = (Mutex::new(builder.workspace.lock.clone()), Mutex::default());
        let aim = Aim::Outline(&outlines);
        let mut finished = builder.go(&graph, Some(snapshot), &BTreeSet::new(), &lock, &steps, aim);
        if builder.cancel.is_cancelled() {
            return Err(BuildError::Interrupted);
        }
        if let Some((_, error)) = finished.errors.pop_first() {
            return Err(error);
        }
        Ok(Self { builder, graph, snapshot, values: Values::of(finished.values), outlines: outlines.into_map() })
    }

    fn outlined(&self, label: &Label) -> Option<&Outlined> {
        self.outlines.get(&self.graph.find(label)?)
    }

    /// What targets are made of, in words.
    fn words(&self, labels: &BTreeSet<Label>) -> Result<BTreeMap<Label, Trace>, BuildError> {
        let words = Mutex::default();
        let is_told = |target: &TargetId| self.outlines[target].failure.is_none();
        let targets: Vec<TargetId> = labels.iter().filter_map(|label| self.graph.find(label)).filter(is_told).collect();
        let lock = Mutex::new(self.builder.workspace.lock.clone());
        self.builder.all_words(&self.graph, self.snapshot, &lock, &self.values, &targets, &words)?;
        let words = words.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(words.into_iter().map(|(target, trace)| (self.graph.label(target).clone(), trace)).collect())
    }
}

/// Both states.
struct Sides<'a> {
    now: Side<'a>,
    then: Side<'a>,
}

impl Sides<'_> {
    fn kind(side: &Side<'_>, label: &Label) -> Option<&'static str> {
        Some(side.builder.workspace.target(label)?.kind.name())
    }

    /// Whether a build of the one state does the same for a target as one of the other.
    fn are_same(&self, label: &Label) -> bool {
        let (Some(now), Some(then)) = (self.now.outlined(label), self.then.outlined(label)) else { return false };
        // Other words for one action are no other action.
        let is_same_action = now.action.is_some() && now.action == then.action;
        Self::kind(&self.now, label) == Self::kind(&self.then, label) && (now.name == then.name || is_same_action)
    }

    /// In which respects a target is affected, by what it was and is made of.
    fn causes(&self, label: &Label, now: Option<&Trace>, then: Option<&Trace>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let outlined = [self.now.outlined(label), self.then.outlined(label)];
        if outlined[1].is_none() {
            return vec![Cause::New];
        }
        for failure in outlined.into_iter().flatten().filter_map(|outlined| outlined.failure.clone()) {
            causes.push(Cause::Failure(failure));
        }
        if Self::kind(&self.now, label) != Self::kind(&self.then, label) {
            causes.push(Cause::Definition("kind".to_owned()));
        }
        let differences = now.zip(then).map(|(now, then)| now.differences(then)).unwrap_or_default();
        let is_step = self.is_step(label);
        for difference in &differences {
            causes.push(self.cause(difference, is_step));
            // A file that has another name is two files that differ.
            if let What::Renamed { from } = &difference.what {
                causes.push(Cause::File(from.clone()));
            }
        }
        causes.sort();
        causes.dedup();
        // What remains is told by the text of its section alone, as a dependency on targets of which there are none.
        if causes.is_empty() { vec![Cause::Definition("deps".to_owned())] } else { causes }
    }

    fn is_step(&self, label: &Label) -> bool {
        let target = self.now.builder.workspace.target(label);
        target.is_some_and(|target| matches!(target.kind, TargetKind::Command(_) | TargetKind::Test(_)))
    }

    fn cause(&self, difference: &Difference, is_step: bool) -> Cause {
        let Difference { kind, name, .. } = difference;
        match kind.as_str() {
            "file" => Cause::File(name.clone()),
            "lockfile" => Cause::Lockfile(name.clone()),
            "pin" => Cause::Lock,
            "toolchain" | "host" if is_step => Cause::Toolchain(name.clone()),
            "dependency" => self.lockfile_of(name).map_or_else(|| Cause::Through(name.clone()), Cause::Lockfile),
            "version of" => Cause::Definition(format!("version of {name}")),
            _ if name.is_empty() => Cause::Definition(kind.clone()),
            _ => Cause::Definition(format!("{kind} {name}")),
        }
    }

    /// The lockfile that a target is the packages of.
    fn lockfile_of(&self, label: &str) -> Option<String> {
        let Ok(cas_config::Reference::Full(label)) = label.parse() else { return None };
        match &self.now.builder.workspace.target(&label)?.kind {
            TargetKind::Fetch(Fetch::Lockfile(path)) => {
                Some(crate::inputs::in_package(label.package.as_ref(), &path.value).to_string())
            }
            _ => None,
        }
    }
}

impl Builder<'_> {
    /// The targets of which a build of the workspace as it is does something else than one of a revision, among those that
    /// `patterns` select from the package `from`; without patterns, among all. Nothing is run and nothing is fetched.
    ///
    /// # Errors
    ///
    /// [`BuildError::Revision`], and as for [`Builder::build`] what is wrong with the workspace as it is.
    pub fn affected(
        &self,
        revision: &str,
        from: Option<&RelPath>,
        patterns: &[Pattern],
    ) -> Result<Affected, BuildError> {
        let snapshot = self.whole_snapshot()?;
        let revision = Revision::open(&snapshot, revision, &self.variables)?;
        let labels = select(self.workspace, from, patterns);
        let then = match self.workspace_of(&revision)? {
            Ok(then) => then,
            Err(why) => return Ok(self.all_of(&revision, labels?, why)),
        };
        let of_then = select(&then, from, patterns);
        let removed: Vec<(Label, &'static str)> = (of_then.iter().flatten())
            .filter(|label| self.workspace.target(label).is_none())
            .filter_map(|label| Some((label.clone(), then.target(label)?.kind.name())))
            .collect();
        // A folder that is gone has targets in the revision alone.
        let labels = match labels {
            Err(_) if !removed.is_empty() => Vec::new(),
            labels => labels?,
        };
        let now = Side::new(self, &snapshot, &labels, Vec::new())?;
        // As after a build.
        let _ = snapshot.save();
        let Revised { snapshot: revised, differing } = self.revised(&snapshot, &revision)?;
        let builder = self.of(&then);
        let both: Vec<Label> = labels.iter().filter(|label| then.target(label).is_some()).cloned().collect();
        let then = match Side::new(&builder, &revised, &both, differing) {
            Ok(side) => side,
            Err(error) if is_of_graph(&error) => return Ok(self.all_of(&revision, labels, error.to_string())),
            Err(error) => return Err(error),
        };
        let sides = Sides { now, then };
        let affected: BTreeSet<Label> = labels.into_iter().filter(|label| !sides.are_same(label)).collect();
        let (now, before) = (sides.now.words(&affected)?, sides.then.words(&affected)?);
        let targets = affected.into_iter().map(|label| {
            let is_exact = |side: &Side<'_>| side.outlined(&label).is_some_and(|outlined| outlined.is_exact);
            AffectedTarget {
                // What is new has nothing to be compared with.
                is_refined: sides.then.outlined(&label).is_none() || is_exact(&sides.now) && is_exact(&sides.then),
                causes: sides.causes(&label, now.get(&label), before.get(&label)),
                label,
            }
        });
        Ok(Affected { commit: revision.commit().to_owned(), everything: None, targets: targets.collect(), removed })
    }

    /// Tells in what a target differs from what it is made of at a revision. Nothing is run and nothing is fetched.
    ///
    /// # Errors
    ///
    /// As for [`Builder::affected`].
    pub fn why_since(&self, label: &Label, revision: &str) -> Result<Reason, BuildError> {
        let snapshot = self.whole_snapshot()?;
        let revision = Revision::open(&snapshot, revision, &self.variables)?;
        let then = match self.workspace_of(&revision)? {
            Ok(then) if then.target(label).is_some() => then,
            Ok(_) => return Ok(Reason::of(label, Verdict::Added)),
            Err(why) => return Ok(incomparable(label, why)),
        };
        let labels = std::slice::from_ref(label);
        let now = Side::new(self, &snapshot, labels, Vec::new())?;
        // As after a build.
        let _ = snapshot.save();
        let Revised { snapshot: revised, differing } = self.revised(&snapshot, &revision)?;
        let builder = self.of(&then);
        let then = match Side::new(&builder, &revised, labels, differing) {
            Err(error) if is_of_graph(&error) => return Ok(incomparable(label, error.to_string())),
            side => side?,
        };
        let sides = Sides { now, then };
        sides.reason(label, &mut BTreeSet::new())
    }

    /// The same builder of another state of the workspace.
    fn of<'a>(&'a self, workspace: &'a Workspace) -> Builder<'a> {
        Builder {
            workspace,
            registries: Arc::clone(&self.registries),
            only: self.only.clone(),
            variables: self.variables.clone(),
            secrets: self.secrets.clone(),
            trials: self.trials.clone(),
            apt_sources: self.apt_sources.clone(),
            npm_registry: self.npm_registry.clone(),
            cargo_home: self.cargo_home.clone(),
            cancel: self.cancel.clone(),
            ..*self
        }
    }

    /// The workspace that a revision describes; or why nothing can be compared with it.
    fn workspace_of(&self, revision: &Revision) -> Result<Result<Workspace, String>, BuildError> {
        let root = &self.workspace.root;
        let source = AtRevision::read(root, revision)?;
        Ok(match Workspace::load_from(root, &source) {
            Ok(then) if then.section.digest_function != self.workspace.section.digest_function => {
                Err("`digest_function` was another one".to_owned())
            }
            Ok(mut then) => {
                then.commit = Some(revision.commit().to_owned());
                Ok(then)
            }
            Err(BuildError::NoWorkspace { .. }) => Err(format!("`{MANIFEST_FILE}` was not there, or no workspace's")),
            Err(BuildError::Manifest { path, findings, .. }) => {
                let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                let first = findings.first().map(|finding| format!(": {}", finding.message)).unwrap_or_default();
                Err(format!("`{path}` as it was cannot be used{first}"))
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// The files of a revision, with those in the store that are read to find out what targets are made of.
    fn revised(&self, snapshot: &Snapshot, revision: &Revision) -> Result<Revised, BuildError> {
        let function = self.workspace.section.digest_function;
        let is_kept = |path: &[u8]| {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let is_config = path.ends_with(b".cargo/config") || path.ends_with(b".cargo/config.toml");
            is_config || LockfileKind::ALL.iter().any(|kind| kind.file_name().as_bytes() == name)
        };
        let mut keep = |_: &[u8], content: &mut dyn std::io::Read| self.store.put(function, content).map(drop);
        snapshot.at::<StoreError>(revision, &is_kept, &mut keep).map_err(|error| match error {
            KeepError::Snapshot(error) => error.into(),
            KeepError::Revision(error) => error.into(),
            KeepError::Keep { path, source } => {
                BuildError::Keep { path: String::from_utf8_lossy(&path).into_owned(), source }
            }
        })
    }

    /// All targets, for one reason.
    fn all_of(&self, revision: &Revision, labels: Vec<Label>, why: String) -> Affected {
        let target = |label| AffectedTarget { label, is_refined: false, causes: vec![Cause::Everything] };
        Affected {
            commit: revision.commit().to_owned(),
            everything: Some(why),
            targets: labels.into_iter().map(target).collect(),
            removed: Vec::new(),
        }
    }
}

impl Sides<'_> {
    fn reason(&self, label: &Label, told: &mut BTreeSet<Label>) -> Result<Reason, BuildError> {
        told.insert(label.clone());
        let verdict = match self.then.outlined(label) {
            None => Verdict::Added,
            Some(_) if self.are_same(label) => Verdict::Same,
            Some(_) => Verdict::Differs,
        };
        let mut reason = Reason::of(label, verdict);
        if verdict != Verdict::Differs {
            return Ok(reason);
        }
        let one = BTreeSet::from([label.clone()]);
        if let (Some(now), Some(then)) = (self.now.words(&one)?.get(label), self.then.words(&one)?.get(label)) {
            reason.differences = now.differences(then);
        } else {
            for (side, what) in [(&self.now, What::Added), (&self.then, What::Removed)] {
                if let Some(failure) = side.outlined(label).and_then(|outlined| outlined.failure.clone()) {
                    reason.differences.push(Difference { kind: "failure".to_owned(), name: failure, what });
                }
            }
        }
        let changed: Vec<Label> = (reason.differences.iter())
            .filter(|difference| matches!(difference.kind.as_str(), "dependency" | "toolchain"))
            .filter_map(|difference| match difference.name.parse() {
                Ok(cas_config::Reference::Full(label)) => Some(label),
                _ => None,
            })
            .collect();
        for need in changed {
            let is_told = told.contains(&need) || self.now.outlined(&need).is_none();
            if !is_told {
                reason.because.push(self.reason(&need, told)?);
            }
        }
        Ok(reason)
    }
}

/// A target of which nothing can be compared.
fn incomparable(label: &Label, why: String) -> Reason {
    let difference = Difference { kind: "revision".to_owned(), name: why, what: What::Removed };
    Reason { differences: vec![difference], ..Reason::of(label, Verdict::Differs) }
}

/// The targets that patterns select; without one, all.
fn select(workspace: &Workspace, from: Option<&RelPath>, patterns: &[Pattern]) -> Result<Vec<Label>, BuildError> {
    match patterns {
        [] => Ok(workspace.targets().map(|(label, _)| label).collect()),
        patterns => workspace.select(from, patterns),
    }
}

/// Whether an error is one of how targets depend on each other.
fn is_of_graph(error: &BuildError) -> bool {
    matches!(error, BuildError::UnknownTarget { .. } | BuildError::NoManifest { .. } | BuildError::Cycle { .. })
}

/// The files of a revision that describe a workspace.
struct AtRevision<'a> {
    root: &'a Path,
    revision: &'a Revision,
    /// Of those that may differ from the working tree's, by path.
    contents: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// The folders in each folder that lead to a manifest.
    folders: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl<'a> AtRevision<'a> {
    fn read(root: &'a Path, revision: &'a Revision) -> Result<Self, RevisionError> {
        let mut folders: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
        let mut open = Vec::new();
        for folder in revision.folders_with(MANIFEST_FILE) {
            for name in [MANIFEST_FILE, PACKAGE_JSON] {
                open.push(joined(folder, name.as_bytes()));
            }
            let mut at = folder;
            while !at.is_empty() {
                let (above, name) = match at.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => (&at[..slash], &at[slash + 1..]),
                    None => (&b""[..], at),
                };
                if !folders.entry(above.to_vec()).or_default().insert(name.to_vec()) {
                    break;
                }
                at = above;
            }
        }
        open.retain(|path| revision.differs(path) == Some(true));
        let texts = revision.contents(&open, MAX_MANIFEST_BYTES)?;
        let mut contents: BTreeMap<Vec<u8>, Option<Vec<u8>>> = open.into_iter().zip(texts).collect();
        let lock = LOCK_FILE.as_bytes().to_vec();
        if revision.differs(&lock) == Some(true) {
            let text = revision.contents(std::slice::from_ref(&lock), MAX_LOCK_BYTES)?.pop().flatten();
            contents.insert(lock, text);
        }
        Ok(Self { root, revision, contents, folders })
    }
}

impl Source for AtRevision<'_> {
    fn text(&self, folder: Option<&RelPath>, name: &str) -> Result<Option<String>, BuildError> {
        let Some(bytes) = self.bytes(folder, name, MAX_MANIFEST_BYTES)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|error| {
            let message = format!("not UTF-8: {}", error.utf8_error());
            let finding = cas_config::Diagnostic { message, span: None, hint: None };
            let path = at(self.root, folder).join(name);
            BuildError::Manifest { path, text: String::new(), findings: vec![finding] }
        })
    }

    fn bytes(&self, folder: Option<&RelPath>, name: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, BuildError> {
        let path = joined(folder.map_or(&b""[..], RelPath::as_bytes), name.as_bytes());
        match self.revision.differs(&path) {
            None => Ok(None),
            Some(false) => Ok(Some(cas_fs::read_limited(&at(self.root, folder).join(name), limit_bytes)?)),
            Some(true) => match self.contents.get(&path) {
                Some(Some(content)) => Ok(Some(content.clone())),
                _ => {
                    Err(RevisionError::Output { command: "cat-file", problem: "a manifest is not in the clone" }.into())
                }
            },
        }
    }

    fn folders(
        &self,
        folder: Option<&RelPath>,
        is_wanted: &dyn Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, BuildError> {
        let names = self.folders.get(folder.map_or(&b""[..], RelPath::as_bytes)).into_iter().flatten();
        let names = names.filter(|name| is_wanted(OsStr::from_bytes(name)));
        Ok(names.map(|name| OsString::from_vec(name.clone())).collect())
    }
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}
