//! Why a target would run, or why it last did: what it is made of, compared with what it was made of before.

use std::collections::{BTreeMap, BTreeSet};

use cas_blob::Descriptor;
use cas_config::{Label, TargetKind};
use cas_store::Store;

use crate::builder::Examined;
use crate::graph::TargetId;
use crate::history::History;
use crate::trace::{Difference, Trace};
use crate::{BuildError, Builder};

/// Kind of the memos that lead from what a step is made of to its trace.
pub(crate) const TRACE_MEMO: &str = "trace-1";
/// Longest trace that is read.
const MAX_TRACE_BYTES: u64 = 256 << 20;

/// Why a target is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The target.
    pub label: Label,
    /// What becomes of it.
    pub verdict: Verdict,
    /// How it differs from what it was made of before.
    pub differences: Vec<Difference>,
    /// The same of what it depends on, as far as that matters; each target once.
    pub because: Vec<Reason>,
}

/// What becomes of a target in a build now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its outputs are there; the differences are those of its last change.
    UpToDate,
    /// Its outputs are there from another build than the last one, from which it differs.
    Known,
    /// It would run, because it is made of something else.
    Changed,
    /// It would run, because what it depends on would.
    Waits,
    /// It would run, because it never did.
    New,
    /// It would run, although nothing changed: its last run failed, or its result is gone.
    Again,
    /// It has to be fetched first.
    Absent,
    /// Nobody keeps what it was made of.
    Unknown,
    /// Compared with a revision: it is made of the same.
    Same,
    /// Compared with a revision: it is made of something else.
    Differs,
    /// Compared with a revision: that has no such target.
    Added,
}

impl Reason {
    /// One without words.
    pub(crate) fn of(label: &Label, verdict: Verdict) -> Self {
        Self { label: label.clone(), verdict, differences: Vec::new(), because: Vec::new() }
    }
}

/// Whether something is missing that a build would fetch.
fn is_absent(error: &BuildError) -> bool {
    matches!(error, BuildError::Fetch(cas_fetch::FetchError::Offline { .. }))
}

impl Builder<'_> {
    /// Tells why a target would run, or, if it would not, why it last changed. Nothing is run.
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`].
    pub fn why(&self, label: &Label) -> Result<Reason, BuildError> {
        let Examined { graph, values, made_of, mut errors } = self.examine(std::slice::from_ref(label))?;
        let is_other = |error: &BuildError| !matches!(error, BuildError::WouldRun { .. }) && !is_absent(error);
        if let Some(target) = errors.iter().find(|(_, error)| is_other(error)).map(|(target, _)| *target)
            && let Some(error) = errors.remove(&target)
        {
            return Err(error);
        }
        let history = History::open(self.store, &self.workspace.root);
        let target = graph.find(label).expect("it was examined");
        let store = self.store;
        let (graph, values, made_of, errors) = (&graph, &values, &made_of, &errors);
        let mut asker = Asker { graph, values, made_of, errors, history, store, told: BTreeSet::new() };
        asker.reason(target)
    }
}

struct Asker<'a> {
    graph: &'a crate::graph::Graph<'a>,
    values: &'a BTreeSet<TargetId>,
    made_of: &'a BTreeMap<String, Descriptor>,
    errors: &'a BTreeMap<TargetId, BuildError>,
    history: History,
    store: &'a Store,
    told: BTreeSet<TargetId>,
}

impl Asker<'_> {
    fn reason(&mut self, target: TargetId) -> Result<Reason, BuildError> {
        self.told.insert(target);
        let label = self.graph.label(target).clone();
        let mut reason = Reason { verdict: Verdict::Unknown, differences: Vec::new(), because: Vec::new(), label };
        let state = self.history.state(&reason.label.to_string());
        if self.values.contains(&target) {
            reason.verdict = Verdict::UpToDate;
            let made_of = self.made_of.get(&reason.label.to_string());
            let compared = match (state, made_of) {
                // An earlier build gave its outputs, and the last one was of something else.
                (Some(state), Some(made_of)) if state.now != *made_of => {
                    reason.verdict = Verdict::Known;
                    Some((*made_of, state.now))
                }
                (Some(state), _) => state.before.map(|before| (state.now, before)),
                (None, _) => None,
            };
            if let Some((now, before)) = compared
                && let (Some(now), Some(before)) = (self.trace(&now)?, self.trace(&before)?)
            {
                reason.differences = now.differences(&before);
            }
        } else if let Some(BuildError::WouldRun { trace, .. }) = self.errors.get(&target) {
            match state {
                None => reason.verdict = Verdict::New,
                Some(state) => {
                    if let Some(before) = self.trace(&state.now)? {
                        reason.differences = trace.differences(&before);
                        let is_same = reason.differences.is_empty();
                        reason.verdict = if is_same { Verdict::Again } else { Verdict::Changed };
                    }
                }
            }
        } else if self.errors.contains_key(&target) {
            reason.verdict = Verdict::Absent;
        } else {
            reason.verdict = Verdict::Waits;
            let needs: Vec<TargetId> = self.graph.needs(target).targets().collect();
            for need in needs {
                if !self.values.contains(&need) && !self.told.contains(&need) {
                    let because = self.reason(need)?;
                    reason.because.push(because);
                }
            }
        }
        let changed: Vec<String> = (reason.differences.iter())
            .filter(|difference| difference.kind == "dependency")
            .map(|difference| difference.name.clone())
            .collect();
        for name in changed {
            let Some(need) = self.find(&name).filter(|need| !self.told.contains(need)) else { continue };
            // Only steps have a history.
            if matches!(self.graph.target(need).kind, TargetKind::Command(_) | TargetKind::Test(_)) {
                let because = self.reason(need)?;
                reason.because.push(because);
            }
        }
        Ok(reason)
    }

    fn find(&self, label: &str) -> Option<TargetId> {
        match label.parse().ok()? {
            // One that is no longer depended on was not looked at.
            cas_config::Reference::Full(label) => self.graph.find(&label).filter(|target| self.graph.holds(*target)),
            _ => None,
        }
    }

    fn trace(&self, static_name: &Descriptor) -> Result<Option<Trace>, BuildError> {
        let memo = self.store.memo(TRACE_MEMO, static_name.to_string().as_bytes())?;
        let blob = memo.and_then(|value| std::str::from_utf8(&value).ok()?.parse::<Descriptor>().ok());
        let Some(blob) = blob else { return Ok(None) };
        if !self.store.contains(&blob)? {
            return Ok(None);
        }
        let bytes = self.store.load(&blob, MAX_TRACE_BYTES)?;
        Ok(std::str::from_utf8(&bytes).ok().and_then(Trace::parse))
    }
}
