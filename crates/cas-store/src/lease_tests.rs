//! Every interleaving of a session that looks for an object and a collector that removes it.
//!
//! The code that ships runs over the model of a disk in two threads, one step at a time; a plan says whose step is next, and
//! all plans with at most so many switches from one that could have gone on are tried: without a bound, a session that waits could
//! look again after each step of the collector, which shows nothing new. A step is an operation on something that both use.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;

use crate::Durability;
use crate::collect::{Kind, Victim};
use crate::disk::Disk;
use crate::disk::model::{Crash, ModelDisk};
use crate::vault::Vault;

const HOME: &str = "/store";
/// Operations that matter for the order of the two.
const STEPS: [&str; 6] = ["write", "read", "remove", "stat", "lock", "link"];

#[derive(Debug, Default)]
struct State {
    /// Whose turn it is at each decision, as far as it was planned; then as it happened.
    plan: Vec<usize>,
    /// Whether the other one could have gone too, at each decision.
    had_choice: Vec<bool>,
    turn: usize,
    /// Threads that wait for a turn or run; not those that are done.
    is_alive: [bool; 2],
    is_waiting: [bool; 2],
    switches: usize,
    max_switches: usize,
}

#[derive(Debug, Default)]
struct Turns(Mutex<State>, Condvar);

thread_local! {
    static WHO: std::cell::Cell<Option<usize>> = const { std::cell::Cell::new(None) };
}

impl Turns {
    /// Waits until it is this thread's turn, which a decision gives it.
    fn step(&self, who: usize, is_pause: bool) {
        let mut state = self.0.lock().unwrap();
        state.is_waiting[who] = true;
        if state.turn == who {
            Self::decide(&mut state, who, is_pause);
        }
        self.1.notify_all();
        while state.turn != who {
            state = self.1.wait(state).unwrap();
        }
        state.is_waiting[who] = false;
    }

    fn decide(state: &mut State, who: usize, is_pause: bool) {
        let other = 1 - who;
        let at = state.had_choice.len();
        // Whoever pauses waits for the other one.
        let must_switch = is_pause && state.is_alive[other];
        let may_switch = state.is_alive[other] && state.switches < state.max_switches;
        let next = if must_switch { other } else { state.plan.get(at).copied().unwrap_or(who) };
        state.had_choice.push(!must_switch && may_switch);
        if state.plan.len() == at {
            state.plan.push(next);
        }
        if next != who && !must_switch {
            state.switches += 1;
        }
        state.turn = next;
    }

    /// Waits until a thread has come to its first step: what happens before is no part of the order.
    fn wait_for(&self, who: usize) {
        let mut state = self.0.lock().unwrap();
        while !state.is_waiting[who] {
            state = self.1.wait(state).unwrap();
        }
    }

    fn end(&self, who: usize) {
        let mut state = self.0.lock().unwrap();
        state.is_alive[who] = false;
        state.turn = 1 - who;
        self.1.notify_all();
    }
}

/// Tries all plans with at most so many switches that nobody is forced to; returns how many there were.
fn every_order(max_switches: usize, session: impl Fn(&Arc<Vault<ModelDisk>>, &Descriptor) -> bool + Sync) -> usize {
    let bytes = b"an object that is about to go";
    let blob = Descriptor::of(DigestFunction::Blake3, bytes);
    let made = ModelDisk::new(1);
    made.create_folder(Path::new(HOME)).unwrap();
    let made = Arc::new(made);
    {
        let vault = Vault::open(Arc::clone(&made), Path::new(HOME), Durability::Epoch).unwrap();
        vault.put_bytes(DigestFunction::Blake3, bytes).unwrap();
    }
    let made = Arc::into_inner(made).expect("the vault is closed");
    let mut plan: Vec<usize> = Vec::new();
    for count in 1.. {
        let turns = Arc::new(Turns::default());
        let mut disk = made.crash(made.position(), Crash::Kill, 7);
        let hook_turns = Arc::clone(&turns);
        disk.hook = Some(Arc::new(move |name| {
            if let Some(who) = WHO.get()
                && (name == "pause" || STEPS.contains(&name))
            {
                hook_turns.step(who, name == "pause");
            }
        }));
        let disk = Arc::new(disk);
        let open = || Arc::new(Vault::open(Arc::clone(&disk), Path::new(HOME), Durability::Epoch).unwrap());
        let (user, collector) = (open(), open());
        *turns.0.lock().unwrap() = State { plan: plan.clone(), is_alive: [true; 2], max_switches, ..State::default() };
        let said = std::thread::scope(|scope| {
            let side = scope.spawn(|| {
                WHO.set(Some(1));
                turns.step(1, false);
                let mut victims = Vec::new();
                let mut collection = collector.begin_collection().unwrap();
                collector
                    .each_object(&mut |digest, stat| {
                        victims.push(Victim { kind: Kind::Object, digest, stat });
                        Ok(())
                    })
                    .unwrap();
                collection.remove(&victims.iter().collect::<Vec<_>>()).unwrap();
                collection.finish().unwrap();
                turns.end(1);
            });
            turns.wait_for(1);
            WHO.set(Some(0));
            let said = session(&user, &blob);
            turns.end(0);
            WHO.set(None);
            side.join().unwrap();
            said
        });
        let is_there = user.peek(&blob).unwrap().as_deref() == Some(&bytes[..]);
        let state = std::mem::take(&mut *turns.0.lock().unwrap());
        assert!(!said || is_there, "order {:?}: it was said to be here, and is gone", state.plan);
        drop((user, collector));
        // The next plan: the last decision that could have been another one becomes that.
        plan = state.plan;
        loop {
            let Some(last) = plan.pop() else { return count };
            // Zero is tried first where nothing was planned: the thread that was running goes on.
            let before = if plan.is_empty() { 0 } else { plan[plan.len() - 1] };
            if state.had_choice[plan.len()] && last == before {
                plan.push(1 - last);
                break;
            }
        }
    }
    unreachable!("the loop ends by returning")
}

#[test]
fn what_a_session_was_told_is_there_stays_whatever_the_order() {
    let orders = every_order(4, |vault, blob| vault.contains(blob).unwrap());
    assert!(orders > 100, "the two never met: {orders}");
}

#[test]
fn what_a_session_puts_stays_whatever_the_order() {
    let orders = every_order(4, |vault, blob| {
        let put = vault.put_bytes(DigestFunction::Blake3, b"an object that is about to go").unwrap();
        assert_eq!(put, *blob);
        true
    });
    assert!(orders > 100, "the two never met: {orders}");
}
