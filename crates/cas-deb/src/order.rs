//! In which groups packages are installed, so that each `Pre-Depends` is met.
//!
//! dpkg orders the scripts of the packages that it is given by their dependencies itself, and breaks cycles; only a
//! `Pre-Depends` has to be configured before its package is even unpacked (Policy 7.2), which it does not arrange.
//!
//! Not here: which packages ([`crate::closure`]), and running anything.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Alternatives, Control, Relation, RelationFieldError, Relations};

/// Installed before all others: its script makes the users that the files of others belong to.
const FIRST: &str = "base-passwd";

/// Why packages cannot be installed in an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A relation field cannot be parsed.
    #[error(transparent)]
    Field(#[from] RelationFieldError),
    /// Packages need each other configured before they are unpacked.
    #[error("no order of installation: `{package}` has to wait for what waits for it")]
    Cycle {
        /// Name and version of one of them.
        package: String,
    },
}

struct Needs {
    before: Relations,
    after: Relations,
}

struct Order<'a> {
    packages: &'a [&'a Control],
    needs: Vec<Needs>,
    /// Positions of the packages that have a name or provide it.
    named: BTreeMap<&'a str, Vec<usize>>,
}

/// The groups of packages to install one after another, by positions: first the essential ones with all that they need, which
/// has to be done by force; then others, each after what it depends on before it is unpacked.
///
/// Packages of a group are in the order of their names, but for `base-passwd`, which is the first of all.
///
/// # Errors
///
/// [`OrderError`]
pub fn installation_order(packages: &[&Control]) -> Result<Vec<Vec<usize>>, OrderError> {
    let mut needs = Vec::new();
    let mut named: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, control) in packages.iter().enumerate() {
        needs.push(Needs { before: control.pre_depends()?, after: control.depends()? });
        named.entry(&*control.name).or_default().push(position);
        for provided in control.provides.flat() {
            named.entry(&*provided.name).or_default().push(position);
        }
    }
    let order = Order { packages, needs, named };
    let mut left: BTreeSet<usize> = (0..packages.len()).collect();
    let mut done = order.essential();
    let mut groups = vec![order.sorted(&done)];
    left.retain(|position| !done.contains(position));
    while !left.is_empty() {
        let group = order.next(&done, &left);
        if group.is_empty() {
            let first = left.first().expect("something is left");
            return Err(OrderError::Cycle { package: packages[*first].to_string() });
        }
        left.retain(|position| !group.contains(position));
        groups.push(order.sorted(&group));
        done.extend(group);
    }
    groups.retain(|group| !group.is_empty());
    Ok(groups)
}

impl Order<'_> {
    /// Packages that fulfil one of the alternatives.
    fn fulfilling<'a>(&'a self, group: &'a Alternatives) -> impl Iterator<Item = usize> + 'a {
        group.iter().flat_map(|relation| {
            let candidates = self.named.get(&*relation.name).map_or(&[][..], Vec::as_slice);
            candidates.iter().copied().filter(|position| fulfils(self.packages[*position], relation))
        })
    }

    /// The essential packages, with what they depend on.
    fn essential(&self) -> BTreeSet<usize> {
        let is_first = |control: &Control| control.essential || *control.name == *FIRST;
        let mut open: Vec<usize> = (0..self.packages.len()).filter(|at| is_first(self.packages[*at])).collect();
        let mut taken: BTreeSet<usize> = open.iter().copied().collect();
        while let Some(position) = open.pop() {
            let Needs { before, after } = &self.needs[position];
            for group in before.iter().chain(after.iter()) {
                // Every package that fulfils it is installed anyway, and is no harm here.
                for needed in self.fulfilling(group) {
                    if taken.insert(needed) {
                        open.push(needed);
                    }
                }
            }
        }
        taken
    }

    /// The largest group whose members can be configured together once the others are done.
    fn next(&self, done: &BTreeSet<usize>, left: &BTreeSet<usize>) -> BTreeSet<usize> {
        let is_met = |relations: &Relations, there: &dyn Fn(usize) -> bool| {
            relations.iter().all(|group| {
                // What nothing fulfils was decided on when the packages were chosen, and is not for this place to judge.
                self.fulfilling(group).next().is_none() || self.fulfilling(group).any(there)
            })
        };
        let mut group: BTreeSet<usize> = left.clone();
        group.retain(|position| is_met(&self.needs[*position].before, &|at| done.contains(&at)));
        loop {
            let before = group.clone();
            group.retain(|position| {
                is_met(&self.needs[*position].after, &|at| done.contains(&at) || before.contains(&at))
            });
            if group.len() == before.len() {
                return group;
            }
        }
    }

    fn sorted(&self, group: &BTreeSet<usize>) -> Vec<usize> {
        let mut group: Vec<usize> = group.iter().copied().collect();
        group.sort_by_key(|position| {
            let name = &*self.packages[*position].name;
            (name != FIRST, name)
        });
        group
    }
}

/// Whether a package is or provides what a relation names (Policy 7.5). All packages are of one architecture.
fn fulfils(control: &Control, relation: &Relation) -> bool {
    let provides = |provided: &Relation| {
        *provided.name == *relation.name
            && match (&relation.version, &provided.version) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(_), Some((_, version))) => relation.accepts(version),
            }
    };
    (*control.name == *relation.name && relation.accepts(&control.version)) || control.provides.flat().any(provides)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(packages: &[&str]) -> Result<Vec<Vec<String>>, OrderError> {
        let controls: Vec<Control> = packages
            .iter()
            .map(|text| {
                let (name, fields) = text.split_once('\n').unwrap_or((text, ""));
                let text = format!("Package: {name}\nVersion: 1\nArchitecture: amd64\n{fields}\n");
                Control::parse(text.as_bytes()).expect("it is a package")
            })
            .collect();
        let controls: Vec<&Control> = controls.iter().collect();
        let order = installation_order(&controls)?;
        Ok(order.iter().map(|group| group.iter().map(|at| controls[*at].name.to_string()).collect()).collect())
    }

    #[test]
    fn the_essential_come_first_and_no_package_before_what_it_depends_on_before_it_is_unpacked() {
        for (packages, expected) in [
            (&["a"][..], &[&["a"][..]][..]),
            (
                &["bash\nEssential: yes\nPre-Depends: libc (>= 1)", "libc\nDepends: gcc-base", "gcc-base", "x"],
                &[&["bash", "gcc-base", "libc"], &["x"]],
            ),
            (&["base-files\nEssential: yes", "base-passwd"], &[&["base-passwd", "base-files"]]),
            // Cycles of plain dependencies are dpkg's to break.
            (&["a\nDepends: b", "b\nDepends: a"], &[&["a", "b"]]),
            (&["a\nPre-Depends: b", "b\nDepends: c", "c", "d\nDepends: a"], &[&["b", "c"], &["a", "d"]]),
            // Alternatives, and what is provided.
            (&["a\nPre-Depends: gone | virtual", "b\nProvides: virtual"], &[&["b"], &["a"]]),
            (&["a\nPre-Depends: virtual (>= 2)", "b\nProvides: virtual (= 2)"], &[&["b"], &["a"]]),
            // What nobody has is no reason to wait.
            (&["a\nPre-Depends: gone"], &[&["a"]]),
        ] {
            assert_eq!(groups(packages).expect("there is an order"), expected, "{packages:?}");
        }
    }

    #[test]
    fn packages_that_wait_for_each_other_are_an_error() {
        let error = groups(&["a\nPre-Depends: b", "b\nPre-Depends: a"]).expect_err("there is no order");
        assert_eq!(error.to_string(), "no order of installation: `a 1` has to wait for what waits for it");
    }
}
