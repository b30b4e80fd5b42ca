//! Which packages a root file system needs.
//!
//! The rule, made so that the answer depends on the index and the set of requests alone (docs/formats/debian.md, Closure):
//! every essential package and every requested one is taken; then, until nothing is open, what their Depends and
//! Pre-Depends leave no choice about; and only where every open dependency leaves a choice, the first of them is decided
//! by preference. Recommends are not followed, nothing once taken is given back, and a conflict is an error.
//!
//! Not here: several architectures in one root; how packages become a tree ([`crate::merge`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::{Alternatives, Package, PackageIndex, Relation, RelationFieldError};

/// Why there is no closure.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// No package has a requested name.
    #[error("no package is named `{name}`{}", hint(.similar, .providers))]
    Unknown {
        /// The name.
        name: String,
        /// Names like it.
        similar: Vec<String>,
        /// Packages that provide it, where it is only provided.
        providers: Vec<String>,
    },
    /// Nothing in the index fulfils a dependency.
    #[error("package `{package}` depends on `{dependency}`, which nothing in the index fulfils")]
    Unsatisfied {
        /// Name and version of the package.
        package: String,
        /// The dependency.
        dependency: String,
    },
    /// Two packages of the closure exclude each other.
    #[error("packages `{package}` and `{other}` cannot be together: the first declares `{field}: {relation}`")]
    Conflict {
        /// Name and version of the package that says so.
        package: String,
        /// Name and version of the other.
        other: String,
        /// `Conflicts` or `Breaks`.
        field: &'static str,
        /// The relation declared.
        relation: String,
    },
    /// A relation field of a package of the closure cannot be parsed.
    #[error(transparent)]
    Field(#[from] RelationFieldError),
}

fn hint(similar: &[String], providers: &[String]) -> String {
    let list = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (providers, similar) {
        ([], []) => String::new(),
        ([], similar) => format!("; there is {}", list(similar)),
        (providers, _) => format!("; it is provided by {}", list(providers)),
    }
}

/// A dependency, by the position of the package that has it and its own place there.
type Place = (usize, usize);

struct Resolver<'index> {
    index: &'index PackageIndex,
    selected: BTreeSet<usize>,
    /// Dependencies that nothing selected fulfils yet.
    open: BTreeMap<Place, Alternatives>,
}

/// Finds the packages that the requested ones need, with every essential one, in the order of their names.
///
/// # Errors
///
/// [`ClosureError`]. Where several things are wrong, the one told depends on the set of requests alone, too.
pub fn closure<'index>(
    index: &'index PackageIndex,
    requested: &[impl AsRef<str>],
) -> Result<Vec<&'index Package>, ClosureError> {
    let mut seeds = BTreeSet::new();
    let names: BTreeSet<&str> = requested.iter().map(AsRef::as_ref).collect();
    for name in names {
        seeds.insert(index.position(name).ok_or_else(|| unknown(index, name))?);
    }
    seeds.extend(index.packages().enumerate().filter(|(_, package)| package.control.essential).map(|(at, _)| at));
    let mut resolver = Resolver { index, selected: BTreeSet::new(), open: BTreeMap::new() };
    // All seeds are selected before any dependency is looked at: each may be the alternative that another one needs.
    resolver.selected.clone_from(&seeds);
    for seed in seeds {
        resolver.open_dependencies(seed)?;
    }
    while resolver.settle()? {}
    resolver.check_conflicts()?;
    Ok(resolver.selected.into_iter().map(|position| index.at(position)).collect())
}

fn unknown(index: &PackageIndex, name: &str) -> ClosureError {
    ClosureError::Unknown {
        name: name.to_owned(),
        similar: index.similar_names(name).into_iter().map(str::to_owned).collect(),
        providers: index.providers(name).map(|package| package.control.name.to_string()).collect(),
    }
}

impl Resolver<'_> {
    fn select(&mut self, position: usize) -> Result<(), ClosureError> {
        if self.selected.insert(position) {
            self.open_dependencies(position)?;
        }
        Ok(())
    }

    fn open_dependencies(&mut self, position: usize) -> Result<(), ClosureError> {
        let control = &self.index.at(position).control;
        let (before, after) = (control.pre_depends()?, control.depends()?);
        for (place, group) in before.iter().chain(after.iter()).enumerate() {
            self.open.insert((position, place), group.clone());
        }
        Ok(())
    }

    /// Selects all that there is no choice about, then decides one choice; `false` when nothing is open.
    fn settle(&mut self) -> Result<bool, ClosureError> {
        loop {
            let selected_before = self.selected.len();
            for place in self.open.keys().copied().collect::<Vec<Place>>() {
                let Some(group) = self.open.get(&place) else { continue };
                if self.is_satisfied(group) {
                    self.open.remove(&place);
                    continue;
                }
                match self.choices(group).as_slice() {
                    [] => {
                        return Err(ClosureError::Unsatisfied {
                            package: self.index.at(place.0).control.to_string(),
                            dependency: group.to_string(),
                        });
                    }
                    [only] => {
                        let only = *only;
                        self.open.remove(&place);
                        self.select(only)?;
                    }
                    _ => {}
                }
            }
            if self.selected.len() == selected_before {
                break;
            }
        }
        let Some((_, group)) = self.open.pop_first() else { return Ok(false) };
        let preferred = self.choices(&group)[0];
        self.select(preferred)?;
        Ok(true)
    }

    fn is_satisfied(&self, group: &Alternatives) -> bool {
        group.iter().any(|relation| self.matches(relation).any(|position| self.selected.contains(&position)))
    }

    /// Packages that fulfil a relation, the preferred first: the real one, then providers by priority and name.
    fn matches(&self, relation: &Relation) -> impl Iterator<Item = usize> {
        let mut providers: Vec<usize> = self.index.provider_matches(relation).collect();
        // Positions are in the order of names.
        providers.sort_by_key(|position| (self.index.at(*position).control.priority, *position));
        self.index.real_match(relation).into_iter().chain(providers)
    }

    /// Every package that would fulfil one of the alternatives, the preferred first, each once.
    fn choices(&self, group: &Alternatives) -> Vec<usize> {
        let mut choices = Vec::new();
        for position in group.iter().flat_map(|relation| self.matches(relation)) {
            if !choices.contains(&position) {
                choices.push(position);
            }
        }
        choices
    }

    fn check_conflicts(&self) -> Result<(), ClosureError> {
        for position in &self.selected {
            let control = &self.index.at(*position).control;
            for (field, relations) in [("Conflicts", control.conflicts()?), ("Breaks", control.breaks()?)] {
                for relation in relations.flat() {
                    // Here `:any` means the package of whatever architecture, and all of ours are of one.
                    let meant = Relation {
                        architecture: relation.architecture.clone().filter(|word| **word != *"any"),
                        ..relation.clone()
                    };
                    // A package may exclude what it provides itself: it means the others that do (Policy 7.6.2).
                    let other = self.matches(&meant).find(|other| other != position && self.selected.contains(other));
                    if let Some(other) = other {
                        return Err(ClosureError::Conflict {
                            package: control.to_string(),
                            other: self.index.at(other).control.to_string(),
                            field,
                            relation: relation.to_string(),
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::index;

    fn names(index: &PackageIndex, requested: &[&str]) -> Result<String, String> {
        let closure = closure(index, requested).map_err(|error| error.to_string())?;
        Ok(closure.iter().map(|package| &*package.control.name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn dependencies_and_essential_packages_are_taken() {
        let index = index(&[
            "base 1;Essential: yes;Pre-Depends: libc",
            "libc 2",
            "app 1;Depends: lib (>= 1), base;Recommends: docs",
            "lib 1;Depends: libc (>= 2)",
            "docs 1",
        ]);
        assert_eq!(names(&index, &[]), Ok("base libc".into()));
        assert_eq!(names(&index, &["app", "app"]), Ok("app base lib libc".into()));
    }

    #[test]
    fn alternatives_are_decided_by_a_fixed_rule() {
        let index = index(&[
            "first 1;Depends: a | b",
            "takes-b 1;Depends: b",
            "late 1;Depends: missing | a (>= 2) | b",
            "a 1",
            "b 1",
            "virtual 1;Depends: awk",
            "real 1;Depends: mail",
            "mail 1",
            "exim 1;Provides: mail;Priority: required",
            "gawk 1;Provides: awk",
            "mawk 1;Provides: awk;Priority: required",
            "nawk 1;Provides: awk;Priority: required",
            "deep 1;Depends: deeper",
            "deeper 1;Depends: b",
        ]);
        for (requested, expected) in [
            (&["first"][..], "a first"),                 // the first alternative
            (&["late"], "b late"),                       // the first that exists in that version
            (&["first", "takes-b"], "b first takes-b"),  // one that something else needs anyway
            (&["first", "deep"], "b deep deeper first"), // also when that is found later
            (&["first", "b"], "b first"),                // or is asked for
            (&["virtual"], "mawk virtual"),              // a provider by priority, then name
            (&["virtual", "gawk"], "gawk virtual"),
            (&["real"], "mail real"), // a real package before a provider
            (&["real", "exim"], "exim real"),
        ] {
            assert_eq!(names(&index, requested), Ok(expected.into()), "{requested:?}");
            let reversed: Vec<&str> = requested.iter().rev().copied().collect();
            assert_eq!(names(&index, &reversed), Ok(expected.into()), "{reversed:?}");
        }
    }

    #[test]
    fn cycles_end() {
        let index = index(&["a 1;Depends: b", "b 1;Depends: a | c", "c 1"]);
        assert_eq!(names(&index, &["a"]), Ok("a b".into()));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let index = index(&[
            "nodejs 18;Depends: libnode",
            "libnode 18",
            "old 1;Depends: libnode (<< 18) | gone",
            "x 1;Conflicts: y (<< 2)",
            "y 1",
            "breaker 1;Breaks: mta",
            "exim 1;Provides: mta;Conflicts: mta",
            "postfix 1;Provides: mta",
            "bad 1;Depends: a b",
        ]);
        for (requested, message) in [
            (&["nodesj"][..], "no package is named `nodesj`; there is `nodejs`"),
            (&["qqqqq"], "no package is named `qqqqq`"),
            (&["mta"], "no package is named `mta`; it is provided by `exim`, `postfix`"),
            (&["old"], "package `old 1` depends on `libnode (<< 18) | gone`, which nothing in the index fulfils"),
            (&["y", "x"], "packages `x 1` and `y 1` cannot be together: the first declares `Conflicts: y (<< 2)`"),
            (
                &["breaker", "postfix"],
                "packages `breaker 1` and `postfix 1` cannot be together: the first declares `Breaks: mta`",
            ),
            (
                &["postfix", "exim"],
                "packages `exim 1` and `postfix 1` cannot be together: the first declares `Conflicts: mta`",
            ),
            (&["bad"], "package `bad 1` has a bad field `Depends`"),
        ] {
            assert_eq!(names(&index, requested), Err(message.into()), "{requested:?}");
        }
        assert_eq!(names(&index, &["exim"]), Ok("exim".into()));
    }
}
