//! Runs the nodes of a graph, each after those it depends on, several at once.
//!
//! The order in which ready nodes start is that of their names, so that a run with one job is the same every time. After
//! the first failure nothing new starts and what runs is finished; or, if asked so, everything goes on that does not
//! depend on what failed. Not here: what a node does (`builder`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Stack of the threads that work. Trees are walked by functions that call themselves, and may be as deep as paths may have parts;
/// memory is taken for what is used of it.
const STACK_BYTES: usize = 64 << 20;

/// A node, by number.
pub(crate) type Node = u32;

/// The values of nodes that are finished.
#[derive(Debug)]
pub(crate) struct Values<V>(HashMap<Node, OnceLock<V>>);

impl<V> Values<V> {
    /// Those that a run gave.
    pub(crate) fn of(values: BTreeMap<Node, V>) -> Self {
        Self(values.into_iter().map(|(node, value)| (node, OnceLock::from(value))).collect())
    }

    /// That of a node which another one depends on, by itself or by what it depends on.
    pub(crate) fn get(&self, node: Node) -> &V {
        self.0.get(&node).and_then(OnceLock::get).expect("what a node depends on is finished before it")
    }
}

/// What a run gave: a value for each node that succeeded, an error for each that failed.
#[derive(Debug)]
pub(crate) struct Finished<V, E> {
    pub(crate) values: BTreeMap<Node, V>,
    pub(crate) errors: BTreeMap<Node, E>,
}

/// What is done for a node, given the values of those that are finished.
type Work<'a, V, E> = dyn Fn(Node, &Values<V>) -> Result<V, E> + Sync + 'a;

struct State<E> {
    /// How many dependencies of a node have not finished; a node that started has no entry.
    waiting: HashMap<Node, usize>,
    ready: BTreeSet<Node>,
    running: usize,
    /// Workers that wait for something to do.
    idle: usize,
    errors: BTreeMap<Node, E>,
    has_panicked: bool,
}

/// Runs every node of `graph`, which maps it to what it depends on, on up to `jobs` threads.
///
/// `graph` has no cycle and holds every node that is depended on. `stop` is asked before each start.
pub(crate) fn run<V, E>(
    graph: &BTreeMap<Node, Vec<Node>>,
    jobs: NonZeroUsize,
    keep_going: bool,
    stop: &(dyn Fn() -> bool + Sync),
    work: &Work<'_, V, E>,
) -> Finished<V, E>
where
    V: Send + Sync,
    E: Send,
{
    let mut dependents: HashMap<Node, Vec<Node>> = HashMap::new();
    let mut waiting = HashMap::new();
    for (node, dependencies) in graph {
        let mut dependencies = dependencies.clone();
        dependencies.sort_unstable();
        dependencies.dedup();
        waiting.insert(*node, dependencies.len());
        for dependency in dependencies {
            dependents.entry(dependency).or_default().push(*node);
        }
    }
    let ready = waiting.iter().filter(|(_, count)| **count == 0).map(|(node, _)| *node).collect();
    let values = Values(graph.keys().map(|node| (*node, OnceLock::new())).collect());
    let state = Mutex::new(State { waiting, ready, running: 0, idle: 0, errors: BTreeMap::new(), has_panicked: false });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..jobs.get().min(graph.len()) {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let started = thread.spawn_scoped(scope, || {
                let stop = |failed: bool| stop() || (failed && !keep_going);
                worker(&dependents, &values, &state, &changed, &stop, work);
            });
            started.expect("a thread can be started");
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let values = values.0.into_iter().filter_map(|(node, value)| Some((node, value.into_inner()?)));
    Finished { values: values.collect(), errors: state.errors }
}

fn worker<V, E>(
    dependents: &HashMap<Node, Vec<Node>>,
    values: &Values<V>,
    state: &Mutex<State<E>>,
    changed: &Condvar,
    stop: &dyn Fn(bool) -> bool,
    work: &Work<'_, V, E>,
) where
    V: Send + Sync,
    E: Send,
{
    let lock = || -> MutexGuard<'_, State<E>> { state.lock().unwrap_or_else(PoisonError::into_inner) };
    loop {
        let mut guard = lock();
        let node = loop {
            if guard.has_panicked || stop(!guard.errors.is_empty()) {
                changed.notify_all();
                return;
            }
            if let Some(node) = guard.ready.pop_first() {
                break node;
            }
            if guard.running == 0 {
                changed.notify_all();
                return;
            }
            guard.idle += 1;
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            guard.idle -= 1;
        };
        guard.running += 1;
        guard.waiting.remove(&node);
        drop(guard);
        // A panic in the work ends the others, and goes on in whoever waits for them.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(node, values)));
        let mut guard = lock();
        guard.running -= 1;
        let result = match result {
            Ok(result) => result,
            Err(panic) => {
                guard.has_panicked = true;
                drop(guard);
                changed.notify_all();
                std::panic::resume_unwind(panic);
            }
        };
        match result {
            Ok(value) => {
                // Nobody else sets it: a node is taken once.
                let _ = values.0[&node].set(value);
                for dependent in dependents.get(&node).into_iter().flatten() {
                    if let Some(count) = guard.waiting.get_mut(dependent) {
                        *count -= 1;
                        if *count == 0 {
                            guard.ready.insert(*dependent);
                        }
                    }
                }
            }
            Err(error) => {
                guard.errors.insert(node, error);
            }
        }
        // Waking nobody is a system call as well, and small targets are many.
        let is_anybody_idle = guard.idle > 0;
        drop(guard);
        if is_anybody_idle {
            changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const A: Node = 0;
    const B: Node = 1;
    const C: Node = 2;
    const D: Node = 3;
    const E: Node = 4;

    fn graph(edges: &[(Node, &[Node])]) -> BTreeMap<Node, Vec<Node>> {
        edges.iter().map(|(node, needs)| (*node, needs.to_vec())).collect()
    }

    fn jobs(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("not zero")
    }

    #[test]
    fn a_panic_ends_all_and_goes_on() {
        let graph = graph(&[(A, &[]), (B, &[A]), (C, &[A])]);
        for count in [1, 4] {
            let result = std::panic::catch_unwind(|| {
                run(&graph, jobs(count), true, &|| false, &|node, _: &Values<()>| {
                    assert_ne!(node, B, "this one goes wrong");
                    Ok::<_, ()>(())
                })
            });
            assert!(result.is_err(), "{count} jobs");
        }
    }

    #[test]
    fn nodes_get_the_values_of_their_dependencies() {
        let graph = graph(&[(A, &[]), (B, &[A]), (C, &[A]), (D, &[B, C])]);
        for count in [1, 2, 8] {
            let finished = run(&graph, jobs(count), false, &|| false, &|node, values: &Values<String>| {
                let needs: Vec<&str> = graph[&node].iter().map(|need| &**values.get(*need)).collect();
                Ok::<_, ()>(format!("{node}({})", needs.join(" ")))
            });
            assert_eq!(finished.values[&D], "3(1(0()) 2(0()))", "{count} jobs");
        }
    }

    #[test]
    fn nothing_starts_after_a_failure() {
        let graph = graph(&[(A, &[]), (B, &[A]), (C, &[B])]);
        let started = AtomicUsize::new(0);
        let finished = run(&graph, jobs(1), false, &|| false, &|node, _: &Values<()>| {
            started.fetch_add(1, Ordering::Relaxed);
            if node == B { Err("failed") } else { Ok(()) }
        });
        assert_eq!(started.into_inner(), 2);
        assert_eq!(finished.errors, BTreeMap::from([(B, "failed")]));
    }

    #[test]
    fn what_does_not_depend_on_a_failure_may_go_on() {
        let graph = graph(&[(A, &[]), (B, &[A]), (C, &[B]), (D, &[A]), (E, &[D])]);
        let finished = run(&graph, jobs(1), true, &|| false, &|node, _: &Values<()>| {
            if node == B { Err("failed") } else { Ok(()) }
        });
        assert_eq!(finished.errors, BTreeMap::from([(B, "failed")]));
        assert_eq!(finished.values.into_keys().collect::<Vec<_>>(), [A, D, E]);
    }

    #[test]
    fn as_many_run_at_once_as_there_are_jobs() {
        let graph: BTreeMap<_, _> = (0..6).map(|node| (node, Vec::new())).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let barrier = std::sync::Barrier::new(3);
        run(&graph, jobs(3), false, &|| false, &|_, _: &Values<()>| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            barrier.wait(); // three must be here at once, or this test hangs
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, ()>(())
        });
        assert_eq!(most.into_inner(), 3);
    }

    #[test]
    fn a_stop_leaves_the_rest_unstarted() {
        let graph = graph(&[(A, &[]), (B, &[A])]);
        let stopped = std::sync::atomic::AtomicBool::new(false);
        let finished = run(&graph, jobs(2), false, &|| stopped.load(Ordering::SeqCst), &|_, _: &Values<()>| {
            stopped.store(true, Ordering::SeqCst);
            Ok::<_, ()>(())
        });
        assert_eq!(finished.values.into_keys().collect::<Vec<_>>(), [A]);
    }
}
