//! What every place of results of actions promises, as one suite.

use std::collections::BTreeSet;
use std::sync::Barrier;

use cas_blob::{ActionCache, ActionLane, Descriptor, Recorded, wait};
use cas_digest::DigestFunction;

/// Runs all checks, each with an empty place of its own. What is wrong is a panic.
pub fn actions_conformance<C: ActionCache>(make: impl Fn() -> C) {
    let checks: [fn(&C); 6] = [
        the_first_result_stays,
        results_are_kept_to_the_byte,
        lanes_and_actions_are_told_apart,
        what_differs_is_kept_as_evidence,
        only_the_result_that_was_seen_is_forgotten,
        all_who_record_at_once_learn_of_one_first,
    ];
    for check in checks {
        check(&make());
    }
}

fn action(name: &str) -> Descriptor {
    Descriptor::of(DigestFunction::Blake3, name.as_bytes())
}

fn find(cache: &impl ActionCache, lane: &ActionLane, action: &Descriptor) -> Option<Vec<u8>> {
    wait(cache.find(lane, action)).unwrap()
}

fn record(cache: &impl ActionCache, lane: &ActionLane, action: &Descriptor, result: &[u8]) -> Recorded {
    wait(cache.record(lane, action, result)).unwrap()
}

fn the_first_result_stays<C: ActionCache>(cache: &C) {
    let (lane, action) = (ActionLane::strict(), action("a"));
    assert_eq!(find(cache, &lane, &action), None);
    assert_eq!(record(cache, &lane, &action, b"first"), Recorded::Own);
    for _ in 0..2 {
        assert_eq!(record(cache, &lane, &action, b"second"), Recorded::Other(b"first".to_vec()));
        assert_eq!(record(cache, &lane, &action, b"first"), Recorded::Own);
        assert_eq!(find(cache, &lane, &action).as_deref(), Some(&b"first"[..]));
    }
}

fn results_are_kept_to_the_byte<C: ActionCache>(cache: &C) {
    let lane = ActionLane::strict();
    let all = (0..=u8::MAX).collect::<Vec<_>>();
    for (name, result) in [("none", &b""[..]), ("zero", b"\0"), ("all", &all), ("long", &all.repeat(4096))] {
        assert_eq!(record(cache, &lane, &action(name), result), Recorded::Own, "{name}");
        assert!(find(cache, &lane, &action(name)).as_deref() == Some(result), "{name} has other bytes");
    }
}

fn lanes_and_actions_are_told_apart<C: ActionCache>(cache: &C) {
    let strict = ActionLane::strict();
    let (one, two) = (ActionLane::host("one"), ActionLane::host("two"));
    let lanes =
        [strict.clone(), one.clone(), two, one.clone().weaker("none"), one.weaker("landlock"), strict.incremental()];
    let named = action("a");
    let same_bytes = Descriptor::of(DigestFunction::Sha256, b"a");
    let actions = [named, action("b"), same_bytes, Descriptor { size: named.size + 1, ..named }];
    let name = |lane: &ActionLane, action: &Descriptor| format!("{lane} {action}").into_bytes();
    for lane in &lanes {
        for action in &actions {
            assert_eq!(find(cache, lane, action), None, "{lane} {action}");
            assert_eq!(record(cache, lane, action, &name(lane, action)), Recorded::Own);
        }
    }
    for lane in &lanes {
        for action in &actions {
            assert_eq!(find(cache, lane, action), Some(name(lane, action)));
        }
    }
}

fn what_differs_is_kept_as_evidence<C: ActionCache>(cache: &C) {
    let (lane, action) = (ActionLane::strict(), action("a"));
    let differing = |lane: &ActionLane| wait(cache.differing(lane, &action)).unwrap();
    record(cache, &lane, &action, b"first");
    record(cache, &lane, &action, b"first");
    assert_eq!(differing(&lane), None);
    for other in [b"second", b"third!"] {
        record(cache, &lane, &action, other);
        assert_eq!(differing(&lane).as_deref(), Some(&other[..]));
    }
    assert_eq!(differing(&ActionLane::host("one")), None);
}

fn only_the_result_that_was_seen_is_forgotten<C: ActionCache>(cache: &C) {
    let (lane, action, other) = (ActionLane::strict(), action("a"), action("b"));
    let forget = |action: &Descriptor, result: &[u8]| wait(cache.forget(&lane, action, result)).unwrap();
    forget(&action, b"first");
    record(cache, &lane, &action, b"first");
    record(cache, &lane, &other, b"first");
    // Whoever saw another result speaks of one that is gone already.
    forget(&action, b"second");
    assert_eq!(find(cache, &lane, &action).as_deref(), Some(&b"first"[..]));
    forget(&action, b"first");
    assert_eq!(find(cache, &lane, &action), None);
    assert_eq!(find(cache, &lane, &other).as_deref(), Some(&b"first"[..]));
    assert_eq!(record(cache, &lane, &action, b"second"), Recorded::Own);
    assert_eq!(find(cache, &lane, &action).as_deref(), Some(&b"second"[..]));
}

fn all_who_record_at_once_learn_of_one_first<C: ActionCache>(cache: &C) {
    const WRITERS: u8 = 8;
    let lane = ActionLane::strict();
    for round in 0..20 {
        let (action, barrier) = (action(&format!("round {round}")), Barrier::new(WRITERS.into()));
        let counted: Vec<(Vec<u8>, bool)> = std::thread::scope(|scope| {
            let writer = |number: u8| {
                let (barrier, action, lane) = (&barrier, &action, &lane);
                move || {
                    let own = vec![number; 3];
                    barrier.wait();
                    match record(cache, lane, action, &own) {
                        Recorded::Own => (own, true),
                        Recorded::Other(first) => (first, false),
                    }
                }
            };
            let threads: Vec<_> = (0..WRITERS).map(|number| scope.spawn(writer(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let firsts: BTreeSet<&Vec<u8>> = counted.iter().map(|(first, _)| first).collect();
        assert_eq!(firsts.len(), 1, "round {round}: {counted:?}");
        assert_eq!(counted.iter().filter(|(_, is_own)| *is_own).count(), 1, "round {round}");
        assert_eq!(find(cache, &lane, &action).as_ref(), firsts.into_iter().next());
    }
}

/// The same of a place that fails: what a failed call left is what it was asked for, or nothing; and never is a result
/// replaced that was seen. Returns how many calls failed and how many did not.
pub fn actions_conformance_with_faults<C: ActionCache>(cache: &C, set_faults: impl Fn(bool), seed: u64) -> (u32, u32) {
    let (mut failures, mut successes) = (0, 0);
    let lane = ActionLane::strict();
    for round in 0..40_u64 {
        let action = action(&format!("{seed} {round}"));
        let own = |number: u64| format!("result {number}").into_bytes();
        set_faults(true);
        // What somebody was told to be the first.
        let mut told = None;
        let mut told_of = |first: Vec<u8>| assert_eq!(*told.get_or_insert_with(|| first.clone()), first, "{action}");
        for number in 0..6 {
            let outcome = match (round + number) % 3 {
                0 => wait(cache.find(&lane, &action)).map(|found| found.into_iter().for_each(&mut told_of)),
                _ => wait(cache.record(&lane, &action, &own(number))).map(|recorded| match recorded {
                    Recorded::Own => told_of(own(number)),
                    Recorded::Other(first) => told_of(first),
                }),
            };
            *(if outcome.is_ok() { &mut successes } else { &mut failures }) += 1;
        }
        set_faults(false);
        let first = find(cache, &lane, &action);
        if let Some(told) = told {
            assert_eq!(first.as_ref(), Some(&told), "{action}");
        }
        // A failed call may have happened; then it was one of these.
        assert!(first.is_none_or(|first| (0..6).any(|number| own(number) == first)), "{action}");
    }
    (failures, successes)
}
