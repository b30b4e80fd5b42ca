//! Runs the nodes of a graph, each after those it depends on, several at once.
//!
//! The order in which ready nodes start is that of their names, so that a run with one job is the same every time. After
//! the first failure nothing new starts and what runs is finished; or, if asked so, everything goes on that does not
//! depend on what failed. Not here: what a node does (`builder`).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a run gave: a value for each node that succeeded, an error for each that failed.
#[derive(Debug)]
pub(crate) struct Finished<N, V, E> {
    pub(crate) values: BTreeMap<N, V>,
    pub(crate) errors: BTreeMap<N, E>,
}

/// What is done for a node, given the values of its own dependencies.
type Work<'a, N, V, E> = dyn Fn(&N, BTreeMap<N, V>) -> Result<V, E> + Sync + 'a;

struct State<N, V, E> {
    /// How many dependencies of a node have not finished; a node that started has no entry.
    waiting: BTreeMap<N, usize>,
    ready: BTreeSet<N>,
    running: usize,
    values: BTreeMap<N, V>,
    errors: BTreeMap<N, E>,
    has_panicked: bool,
}

/// Runs every node of `graph`, which maps it to what it depends on, on up to `jobs` threads.
///
/// `graph` has no cycle and holds every node that is depended on. `stop` is asked before each start. `work` gets the values
/// of the node's own dependencies.
pub(crate) fn run<N, V, E>(
    graph: &BTreeMap<N, BTreeSet<N>>,
    jobs: NonZeroUsize,
    keep_going: bool,
    stop: &(dyn Fn() -> bool + Sync),
    work: &Work<'_, N, V, E>,
) -> Finished<N, V, E>
where
    N: Ord + Clone + Send + Sync,
    V: Clone + Send,
    E: Send,
{
    let mut dependents: BTreeMap<&N, Vec<&N>> = BTreeMap::new();
    for (node, dependencies) in graph {
        for dependency in dependencies {
            dependents.entry(dependency).or_default().push(node);
        }
    }
    let waiting: BTreeMap<N, usize> = graph.iter().map(|(node, needs)| (node.clone(), needs.len())).collect();
    let ready = waiting.iter().filter(|(_, count)| **count == 0).map(|(node, _)| node.clone()).collect();
    let state = Mutex::new(State {
        waiting,
        ready,
        running: 0,
        values: BTreeMap::new(),
        errors: BTreeMap::new(),
        has_panicked: false,
    });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..jobs.get().min(graph.len()) {
            scope.spawn(|| {
                let stop = |failed: bool| stop() || (failed && !keep_going);
                worker(graph, &dependents, &state, &changed, &stop, work);
            });
        }
    });
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    Finished { values: state.values, errors: state.errors }
}

fn worker<N, V, E>(
    graph: &BTreeMap<N, BTreeSet<N>>,
    dependents: &BTreeMap<&N, Vec<&N>>,
    state: &Mutex<State<N, V, E>>,
    changed: &Condvar,
    stop: &dyn Fn(bool) -> bool,
    work: &Work<'_, N, V, E>,
) where
    N: Ord + Clone + Send + Sync,
    V: Clone + Send,
    E: Send,
{
    let lock = || -> MutexGuard<'_, State<N, V, E>> { state.lock().unwrap_or_else(PoisonError::into_inner) };
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
            guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        guard.running += 1;
        guard.waiting.remove(&node);
        let needs =
            graph[&node].iter().filter_map(|need| Some((need.clone(), guard.values.get(need)?.clone()))).collect();
        drop(guard);
        // A panic in the work ends the others, and goes on in whoever waits for them.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&node, needs)));
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
                for dependent in dependents.get(&node).into_iter().flatten() {
                    if let Some(count) = guard.waiting.get_mut(*dependent) {
                        *count -= 1;
                        if *count == 0 {
                            guard.ready.insert((*dependent).clone());
                        }
                    }
                }
                guard.values.insert(node, value);
            }
            Err(error) => {
                guard.errors.insert(node, error);
            }
        }
        drop(guard);
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn graph(edges: &[(&'static str, &[&'static str])]) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        edges.iter().map(|(node, needs)| (*node, needs.iter().copied().collect())).collect()
    }

    fn jobs(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).expect("not zero")
    }

    #[test]
    fn a_panic_ends_all_and_goes_on() {
        let graph = graph(&[("a", &[]), ("b", &["a"]), ("c", &["a"])]);
        for count in [1, 4] {
            let result = std::panic::catch_unwind(|| {
                run(&graph, jobs(count), true, &|| false, &|node, _: BTreeMap<_, ()>| {
                    assert_ne!(*node, "b", "this one goes wrong");
                    Ok::<_, ()>(())
                })
            });
            assert!(result.is_err(), "{count} jobs");
        }
    }

    #[test]
    fn nodes_get_the_values_of_their_dependencies() {
        let graph = graph(&[("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"])]);
        for count in [1, 2, 8] {
            let finished = run(&graph, jobs(count), false, &|| false, &|node, needs: BTreeMap<_, String>| {
                let needs: Vec<String> = needs.into_values().collect();
                Ok::<_, ()>(format!("{node}({})", needs.join(" ")))
            });
            assert_eq!(finished.values["d"], "d(b(a()) c(a()))", "{count} jobs");
        }
    }

    #[test]
    fn nothing_starts_after_a_failure() {
        let graph = graph(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]);
        let started = AtomicUsize::new(0);
        let finished = run(&graph, jobs(1), false, &|| false, &|node: &&str, _: BTreeMap<_, ()>| {
            started.fetch_add(1, Ordering::Relaxed);
            if *node == "b" { Err("failed") } else { Ok(()) }
        });
        assert_eq!(started.into_inner(), 2);
        assert_eq!(finished.errors, BTreeMap::from([("b", "failed")]));
    }

    #[test]
    fn what_does_not_depend_on_a_failure_may_go_on() {
        let graph = graph(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["a"]), ("e", &["d"])]);
        let finished = run(&graph, jobs(1), true, &|| false, &|node: &&str, _: BTreeMap<_, ()>| {
            if *node == "b" { Err("failed") } else { Ok(()) }
        });
        assert_eq!(finished.errors, BTreeMap::from([("b", "failed")]));
        assert_eq!(finished.values.into_keys().collect::<Vec<_>>(), ["a", "d", "e"]);
    }

    #[test]
    fn as_many_run_at_once_as_there_are_jobs() {
        let names = ["a", "b", "c", "d", "e", "f"];
        let graph: BTreeMap<_, _> = names.iter().map(|name| (*name, BTreeSet::new())).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let barrier = std::sync::Barrier::new(3);
        run(&graph, jobs(3), false, &|| false, &|_: &&str, _: BTreeMap<_, ()>| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            barrier.wait(); // three must be here at once, or this test hangs
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, ()>(())
        });
        assert_eq!(most.into_inner(), 3);
    }

    #[test]
    fn a_stop_leaves_the_rest_unstarted() {
        let graph = graph(&[("a", &[]), ("b", &["a"])]);
        let stopped = std::sync::atomic::AtomicBool::new(false);
        let finished =
            run(&graph, jobs(2), false, &|| stopped.load(Ordering::SeqCst), &|_: &&str, _: BTreeMap<_, ()>| {
                stopped.store(true, Ordering::SeqCst);
                Ok::<_, ()>(())
            });
        assert_eq!(finished.values.into_keys().collect::<Vec<_>>(), ["a"]);
    }
}
