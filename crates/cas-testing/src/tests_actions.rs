//! The suite of places of results passes what is right and finds what is not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cas_blob::{ActionCache, ActionLane, Descriptor, Pending, Recorded};

use crate::{FaultyActions, MemoryActions, actions_conformance, actions_conformance_with_faults};

#[test]
fn results_in_memory_pass() {
    actions_conformance(MemoryActions::default);
}

#[test]
fn answers_that_take_a_while_pass() {
    actions_conformance(|| FaultyActions::new(MemoryActions::default(), 1));
}

#[test]
fn a_place_that_fails_passes() {
    let (mut failures, mut successes) = (0, 0);
    for seed in 0..8 {
        let cache = FaultyActions::new(MemoryActions::default(), seed);
        let set = |fails| cache.set_faults(if fails { 2 + seed } else { 0 });
        let (failed, succeeded) = actions_conformance_with_faults(&cache, set, seed);
        failures += failed;
        successes += succeeded;
    }
    assert!(failures > 200 && successes > 200, "{failures} failures, {successes} successes");
}

/// A mistake that a place could make.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    LastWins,
    OneLane,
    DropsEvidence,
    ForgetsWhatever,
    ForgetsAll,
    SaysOwnToAll,
    CutsAtZero,
    NothingIsEmpty,
}

#[derive(Debug)]
struct Flawed(MemoryActions, Flaw);

impl Flawed {
    fn lane(&self, lane: &ActionLane) -> ActionLane {
        if self.1 == Flaw::OneLane { ActionLane::strict() } else { lane.clone() }
    }
}

impl ActionCache for Flawed {
    fn find<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let found = self.0.find(&self.lane(lane), action).await?;
            Ok(found.filter(|found| self.1 != Flaw::NothingIsEmpty || !found.is_empty()))
        })
    }

    fn record<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, Recorded> {
        Box::pin(async move {
            let lane = self.lane(lane);
            let zero = result.iter().position(|byte| *byte == 0).filter(|_| self.1 == Flaw::CutsAtZero);
            let result = &result[..zero.unwrap_or(result.len())];
            if self.1 == Flaw::LastWins
                && let Some(first) = self.0.find(&lane, action).await?
            {
                self.0.forget(&lane, action, &first).await?;
            }
            match self.0.record(&lane, action, result).await? {
                Recorded::Other(_) if self.1 == Flaw::SaysOwnToAll => Ok(Recorded::Own),
                recorded => Ok(recorded),
            }
        })
    }

    fn forget<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor, result: &'a [u8]) -> Pending<'a, ()> {
        Box::pin(async move {
            let lane = self.lane(lane);
            if self.1 == Flaw::ForgetsAll {
                return Ok(());
            }
            match self.0.find(&lane, action).await? {
                Some(first) if self.1 == Flaw::ForgetsWhatever => self.0.forget(&lane, action, &first).await,
                _ => self.0.forget(&lane, action, result).await,
            }
        })
    }

    fn differing<'a>(&'a self, lane: &'a ActionLane, action: &'a Descriptor) -> Pending<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            let found = self.0.differing(&self.lane(lane), action).await?;
            Ok(found.filter(|_| self.1 != Flaw::DropsEvidence))
        })
    }
}

#[test]
fn every_mistake_is_found() {
    for flaw in [
        Flaw::LastWins,
        Flaw::OneLane,
        Flaw::DropsEvidence,
        Flaw::ForgetsWhatever,
        Flaw::ForgetsAll,
        Flaw::SaysOwnToAll,
        Flaw::CutsAtZero,
        Flaw::NothingIsEmpty,
    ] {
        let suite = || actions_conformance(|| Flawed(MemoryActions::default(), flaw));
        assert!(catch_unwind(AssertUnwindSafe(suite)).is_err(), "{flaw:?} passes");
    }
}
