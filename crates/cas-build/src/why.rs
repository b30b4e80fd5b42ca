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
    use cas_fetch::FetchError::Offline;
    matches!(error, BuildError::Fetch(Offline { .. }) | BuildError::Archive { source: Offline { .. }, .. })
}

impl Builder<'_> {
    /// Tells why a target would run, or, if it would not, why it last changed. Nothing is run.
    ///
    /// # Errors
    ///
    /// As for [`Builder::build`].
    pub fn why(&self, label: &Label) -> Result<Reason, BuildError> {
        self.ask(label, None)
    }

    /// Tells how what a target is made of differs from what it was made of in its last build in a lane. Nothing is run.
    ///
    /// Of the lanes whose names begin with `lane` it is the one of the last build, whose name is told, too; each dependency is
    /// compared in the same way.
    ///
    /// # Errors
    ///
    /// [`BuildError::NoLane`] when nobody remembers a build of the target in such a lane, else as for [`Builder::build`].
    pub fn why_in_lane(&self, label: &Label, lane: &str) -> Result<(String, Reason), BuildError> {
        let history = History::open(self.store, &self.workspace.root);
        let state = history.state(&label.to_string());
        let Some((found, _)) = state.and_then(|state| state.in_lane(lane)) else {
            let known = state.into_iter().flat_map(|state| state.lanes.iter().map(|(lane, _)| lane.clone())).collect();
            return Err(BuildError::NoLane { label: label.to_string(), lane: lane.to_owned(), known });
        };
        Ok((found.to_owned(), self.ask(label, Some(lane))?))
    }

    fn ask(&self, label: &Label, lane: Option<&str>) -> Result<Reason, BuildError> {
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
        let mut asker = Asker { graph, values, made_of, errors, history, lane, store, told: BTreeSet::new() };
        asker.reason(target)
    }
}

struct Asker<'a> {
    graph: &'a crate::graph::Graph<'a>,
    values: &'a BTreeSet<TargetId>,
    made_of: &'a BTreeMap<String, Descriptor>,
    errors: &'a BTreeMap<TargetId, BuildError>,
    history: History,
    /// What is compared with, instead of the last build.
    lane: Option<&'a str>,
    store: &'a Store,
    told: BTreeSet<TargetId>,
}

impl Asker<'_> {
    fn reason(&mut self, target: TargetId) -> Result<Reason, BuildError> {
        self.told.insert(target);
        let mut reason = Reason::of(self.graph.label(target), Verdict::Unknown);
        let is_step =
            self.values.contains(&target) || matches!(self.errors.get(&target), Some(BuildError::WouldRun { .. }));
        if is_step {
            (reason.verdict, reason.differences) = match self.lane {
                Some(lane) => self.against_lane(target, lane)?,
                None => self.against_last(target)?,
            };
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

    /// What becomes of a target now, and how it differs from its last build; or, if it does not, that one from the one before.
    fn against_last(&self, target: TargetId) -> Result<(Verdict, Vec<Difference>), BuildError> {
        let label = self.graph.label(target).to_string();
        let state = self.history.state(&label);
        if let Some(BuildError::WouldRun { trace, .. }) = self.errors.get(&target) {
            let Some(state) = state else { return Ok((Verdict::New, Vec::new())) };
            let Some(before) = self.trace(&state.now)? else { return Ok((Verdict::Unknown, Vec::new())) };
            let differences = trace.differences(&before);
            let verdict = if differences.is_empty() { Verdict::Again } else { Verdict::Changed };
            return Ok((verdict, differences));
        }
        let mut verdict = Verdict::UpToDate;
        let compared = match (state, self.made_of.get(&label)) {
            // An earlier build gave its outputs, and the last one was of something else.
            (Some(state), Some(made_of)) if state.now != *made_of => {
                verdict = Verdict::Known;
                Some((*made_of, state.now))
            }
            (Some(state), _) => state.before.map(|before| (state.now, before)),
            (None, _) => None,
        };
        if let Some((now, before)) = compared
            && let (Some(now), Some(before)) = (self.trace(&now)?, self.trace(&before)?)
        {
            return Ok((verdict, now.differences(&before)));
        }
        Ok((verdict, Vec::new()))
    }

    /// How a target differs from its last build in a lane.
    fn against_lane(&self, target: TargetId, lane: &str) -> Result<(Verdict, Vec<Difference>), BuildError> {
        let label = self.graph.label(target).to_string();
        let then = match self.history.state(&label).and_then(|state| state.in_lane(lane)) {
            Some((_, then)) => self.trace(&then)?,
            None => None,
        };
        let now = match (self.errors.get(&target), self.made_of.get(&label)) {
            (Some(BuildError::WouldRun { trace, .. }), _) => Some((**trace).clone()),
            (_, Some(made_of)) => self.trace(made_of)?,
            _ => None,
        };
        let (Some(now), Some(then)) = (now, then) else { return Ok((Verdict::Unknown, Vec::new())) };
        let differences = now.differences(&then);
        let verdict = if differences.is_empty() { Verdict::Same } else { Verdict::Differs };
        Ok((verdict, differences))
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
