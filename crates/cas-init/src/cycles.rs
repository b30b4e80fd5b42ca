//! Dependencies between targets: those that lead nowhere are left out, and none goes in a circle.
//!
//! What `^name` means here is what it means in a build: this target of every package of the workspace that the package depends
//! on, itself or by others. Packages may depend on each other in circles, as far as npm is concerned; targets may not.

use std::collections::{BTreeMap, BTreeSet};

use crate::draft::{Dep, Draft};
use crate::javascript::Packages;
use crate::note::NoteKind;

/// A target: its folder's and its own position.
type Node = (usize, usize);

/// Makes the dependencies of all targets ones that a build takes.
pub(crate) fn settle(draft: &mut Draft, packages: &Packages) {
    drop_dangling(draft, packages);
    cut(draft, packages);
}

fn cut(draft: &mut Draft, packages: &Packages) {
    let folders: Vec<String> = draft.sections.keys().cloned().collect();
    let graph = Graph::new(draft, packages, &folders);
    let mut cuts: BTreeMap<(Node, usize), BTreeSet<Node>> = BTreeMap::new();
    for (from, index, to) in graph.back_edges() {
        cuts.entry((from, index)).or_default().insert(to);
    }
    let names: Vec<Vec<String>> =
        draft.sections.values().map(|section| section.targets.iter().map(|(name, _)| name.clone()).collect()).collect();
    let label = |node: Node| Dep::Full(folders[node.0].clone(), names[node.0][node.1].clone());
    let mut replacements: BTreeMap<Node, Vec<(usize, Vec<Dep>)>> = BTreeMap::new();
    let mut notes = Vec::new();
    for ((from, index), cut) in cuts {
        let left = graph.edges(from, index).into_iter().filter(|to| !cut.contains(to)).map(label).collect();
        let told: Vec<String> = cut.iter().map(|node| label(*node).to_string()).collect();
        notes.push(format!(
            "`{}` would wait for `{}`, which waits for it: that dependency was left out",
            label(from),
            told.join("`, `")
        ));
        replacements.entry(from).or_default().push((index, left));
    }
    for text in notes {
        draft.note(NoteKind::Check, text);
    }
    for ((folder, target), mut parts) in replacements {
        let Some((_, target)) =
            draft.sections.get_mut(&folders[folder]).and_then(|section| section.targets.get_mut(target))
        else {
            continue;
        };
        parts.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (index, left) in parts {
            target.deps.splice(index..=index, left);
        }
        let mut seen = BTreeSet::new();
        target.deps.retain(|dep| seen.insert(dep.clone()));
    }
}

/// Adds to each target what those that it waits for wait for themselves.
///
/// With turbo and nx everything that ran is on the disk, and a test that waits for its package's build finds what that build
/// waited for. A step finds the outputs of its own `deps` alone. Nothing new is waited for, so that no circle comes of it.
pub(crate) fn close(draft: &mut Draft, packages: &Packages) {
    let find = |draft: &'_ Draft, folder: &str, name: &str| -> Option<Vec<Dep>> {
        let section = draft.sections.get(folder)?;
        section.targets.iter().find(|(own, _)| own == name).map(|(_, target)| target.deps.clone())
    };
    let mut closed: Vec<(String, usize, Vec<Dep>)> = Vec::new();
    for (folder, section) in &draft.sections {
        for (index, (name, target)) in section.targets.iter().enumerate() {
            let mut all: BTreeSet<Dep> = target.deps.iter().cloned().collect();
            let mut added = Vec::new();
            let mut open: Vec<Dep> = target.deps.iter().rev().cloned().collect();
            while let Some(dep) = open.pop() {
                let (to, of) = match &dep {
                    Dep::Own(name) => (folder.clone(), name),
                    Dep::Full(to, name) => (to.clone(), name),
                    // It goes on through packages by itself.
                    Dep::Up(_) => continue,
                };
                for next in find(draft, &to, of).unwrap_or_default() {
                    let seen_from_here: Vec<Dep> = match next {
                        Dep::Own(name) if to != *folder => vec![Dep::Full(to.clone(), name)],
                        Dep::Up(name) if to != *folder => {
                            let reached = packages.reached(&to).into_iter();
                            let has = |at: &String| draft.sections.get(at).is_some_and(|section| section.has(&name));
                            reached.filter(has).map(|at| Dep::Full(at, name.clone())).collect()
                        }
                        other => vec![other],
                    };
                    for dep in seen_from_here {
                        let is_itself = matches!(&dep, Dep::Full(at, own) if at == folder && own == name)
                            || matches!(&dep, Dep::Own(own) if own == name);
                        if !is_itself && all.insert(dep.clone()) {
                            added.push(dep.clone());
                            open.push(dep);
                        }
                    }
                }
            }
            if !added.is_empty() {
                closed.push((folder.clone(), index, added));
            }
        }
    }
    for (folder, index, added) in closed {
        let Some((_, target)) = draft.sections.get_mut(&folder).and_then(|section| section.targets.get_mut(index))
        else {
            continue;
        };
        // Third-party packages stay last, where people look for them.
        let is_third_party = |dep: &Dep| matches!(dep, Dep::Full(folder, name) if folder.is_empty() && matches!(name.as_str(), "npm" | "node_modules"));
        let at = target.deps.iter().position(is_third_party).unwrap_or(target.deps.len());
        target.deps.splice(at..at, added);
    }
}

/// Leaves out what no package has, and what the target is itself.
fn drop_dangling(draft: &mut Draft, packages: &Packages) {
    let names: BTreeMap<String, BTreeSet<String>> = draft
        .sections
        .iter()
        .map(|(folder, section)| {
            let targets = section.targets.iter().map(|(name, _)| name);
            (folder.clone(), targets.chain(section.fetches.keys()).cloned().collect())
        })
        .collect();
    let has = |folder: &str, name: &str| names.get(folder).is_some_and(|names| names.contains(name));
    for (folder, section) in &mut draft.sections {
        let mut reached = None;
        for (own, target) in &mut section.targets {
            let mut seen = BTreeSet::new();
            target.deps.retain(|dep| {
                let leads = match dep {
                    Dep::Own(name) => name != own && has(folder, name),
                    Dep::Full(to, name) => has(to, name) && (to, name) != (folder, &*own),
                    Dep::Up(name) => {
                        let reached = reached.get_or_insert_with(|| packages.reached(folder));
                        reached.iter().any(|to| has(to, name))
                    }
                };
                leads && seen.insert(dep.clone())
            });
        }
    }
}

struct Graph<'a> {
    draft: &'a Draft,
    packages: &'a Packages,
    folders: &'a [String],
    positions: BTreeMap<&'a str, (usize, BTreeMap<&'a str, usize>)>,
}

impl<'a> Graph<'a> {
    fn new(draft: &'a Draft, packages: &'a Packages, folders: &'a [String]) -> Self {
        let mut positions = BTreeMap::new();
        for (index, (folder, section)) in draft.sections.iter().enumerate() {
            let names = section.targets.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
            positions.insert(folder.as_str(), (index, names));
        }
        Self { draft, packages, folders, positions }
    }

    fn find(&self, folder: &str, name: &str) -> Option<Node> {
        let (index, names) = self.positions.get(folder)?;
        Some((*index, *names.get(name)?))
    }

    fn deps(&self, node: Node) -> &'a [Dep] {
        self.draft.sections.get(&self.folders[node.0]).map_or(&[], |section| &section.targets[node.1].1.deps)
    }

    /// The targets that an entry of `deps` stands for, in order.
    fn edges(&self, from: Node, index: usize) -> Vec<Node> {
        let folder = &self.folders[from.0];
        match &self.deps(from)[index] {
            Dep::Own(name) => self.find(folder, name).into_iter().collect(),
            Dep::Full(to, name) => self.find(to, name).into_iter().collect(),
            Dep::Up(name) => self.packages.reached(folder).iter().filter_map(|to| self.find(to, name)).collect(),
        }
    }

    /// Edges that close a circle, found by going deep first; without them there is none.
    fn back_edges(&self) -> Vec<(Node, usize, Node)> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            Open,
            Done,
        }
        let mut back = Vec::new();
        let mut states: BTreeMap<Node, State> = BTreeMap::new();
        let all = |node: Node| -> Vec<(usize, Node)> {
            let indexes = 0..self.deps(node).len();
            indexes.flat_map(|index| self.edges(node, index).into_iter().map(move |to| (index, to))).collect()
        };
        let nodes = self.positions.values().flat_map(|(folder, names)| (0..names.len()).map(|index| (*folder, index)));
        for start in nodes {
            if states.contains_key(&start) {
                continue;
            }
            states.insert(start, State::Open);
            let mut path = vec![(start, all(start).into_iter())];
            while let Some((node, edges)) = path.last_mut() {
                let node = *node;
                match edges.next() {
                    None => {
                        states.insert(node, State::Done);
                        path.pop();
                    }
                    Some((index, to)) => match states.get(&to) {
                        Some(State::Open) => back.push((node, index, to)),
                        Some(State::Done) => {}
                        None => {
                            states.insert(to, State::Open);
                            path.push((to, all(to).into_iter()));
                        }
                    },
                }
            }
        }
        back
    }
}
