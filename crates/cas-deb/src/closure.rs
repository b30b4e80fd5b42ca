//! Which packages a root file system needs.
//!
//! The rule, made so that the answer depends on the index and the set of requests alone (docs/formats/debian.md, Closure):
//! every essential package and every requested one is taken; then, until nothing is open, what their Depends and
//! Pre-Depends leave no choice about; and only where every open dependency leaves a choice, the first of them is decided
//! by preference. What cannot be beside something taken is no choice. Recommends are not followed, and nothing once taken
//! is given back: so an error that names no choice is a proof that there is no closure, and one that does is not.
//!
//! Not here: several architectures in one root; how packages become a tree ([`crate::merge`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::{Alternatives, Control, Package, PackageIndex, Relation, RelationFieldError, Relations};

/// Names of a list that an error shows.
const MAX_SHOWN: usize = 4;

/// Why there is no closure.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// No package has a requested name.
    #[error("no package is named `{name}`{}", likely(.similar, .providers))]
    Unknown {
        /// The name.
        name: String,
        /// Names like it.
        similar: Vec<String>,
        /// Packages that provide it, where it is only provided.
        providers: Vec<String>,
    },
    /// Nothing in the index fulfils a dependency.
    #[error("`{package}` depends on `{dependency}`, which nothing in the index fulfils{}", there_is(.offered))]
    Unsatisfied {
        /// Name and version of the package.
        package: String,
        /// The dependency.
        dependency: String,
        /// What there is under the names of the dependency.
        offered: Vec<String>,
        /// Names among those whose version would do, and which are not the candidate because another one is to stay.
        kept_out: Vec<String>,
        /// Why the package is taken.
        #[source]
        because: Because,
    },
    /// Whatever fulfils a dependency excludes something that is taken.
    #[error("`{package}` depends on `{dependency}`, and {}", excluded(.exclusions))]
    Excluded {
        /// Name and version of the package.
        package: String,
        /// The dependency.
        dependency: String,
        /// What would fulfil it, and why that cannot be; at least one.
        exclusions: Vec<Exclusion>,
        /// Why the package, and what excludes those, are taken.
        #[source]
        because: Because,
    },
    /// Two packages that have to be taken exclude each other.
    #[error("{0}")]
    Conflict(Exclusion, #[source] Because),
    /// A relation field of a package of the closure cannot be parsed.
    #[error(transparent)]
    Field(#[from] RelationFieldError),
}

impl ClosureError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let because = match self {
            Self::Unknown { providers, .. } if !providers.is_empty() => {
                return Some("name one of these in `packages`".to_owned());
            }
            Self::Unknown { .. } => return Some("an archive that has it can be named in `also`".to_owned()),
            Self::Unsatisfied { kept_out, .. } if !kept_out.is_empty() => {
                return Some(format!("the lock keeps another version; update {}, too", quoted(kept_out)));
            }
            Self::Unsatisfied { because, .. } | Self::Excluded { because, .. } | Self::Conflict(_, because) => because,
            Self::Field(_) => return None,
        };
        Some(match (because.others(), self) {
            (others, _) if !others.is_empty() => {
                format!(
                    "what was chosen is not given back; another choice can be named in `packages`: {}",
                    quoted(&others)
                )
            }
            (_, Self::Unsatisfied { .. }) => {
                format!("name an archive that has it in `also`, or leave out {}", quoted(&because.requested()))
            }
            _ => "make toolchains of their own of them, or leave one out".to_owned(),
        })
    }
}

/// Two packages that cannot be together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// Name and version of the package that says so.
    pub package: String,
    /// Name and version of the other.
    pub other: String,
    /// `Conflicts` or `Breaks`.
    pub field: &'static str,
    /// The relation declared.
    pub relation: String,
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { package, other, field, relation } = self;
        write!(f, "`{package}` and `{other}` cannot be together: the first declares `{field}: {relation}`")
    }
}

/// Why packages are taken: for each the way from what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Because(Vec<Vec<Link>>);

/// A package on such a way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    version: String,
    /// The dependency of the package before; none for the first.
    dependency: Option<String>,
    /// What could have been taken in its place.
    others: Vec<String>,
    is_essential: bool,
}

impl std::error::Error for Because {}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, way) in self.0.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "; " })?;
            for Link { name, version, dependency, others, is_essential } in way {
                match dependency {
                    None if *is_essential => write!(f, "essential: `{name} {version}`")?,
                    None => write!(f, "asked for: `{name} {version}`")?,
                    Some(_) if others.is_empty() => write!(f, " → `{name} {version}`")?,
                    Some(dependency) => write!(f, " → `{name} {version}`, chosen for `{dependency}`")?,
                }
            }
        }
        Ok(())
    }
}

impl Because {
    /// What could have been chosen in the place of what was.
    fn others(&self) -> Vec<String> {
        let links = self.0.iter().flatten();
        links.flat_map(|link| link.others.iter().cloned()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The requested packages that the ways begin with.
    fn requested(&self) -> Vec<String> {
        let first = self.0.iter().filter_map(|way| way.first());
        first.map(|link| link.name.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

fn quoted(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > MAX_SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn likely(similar: &[String], providers: &[String]) -> String {
    match (providers, similar) {
        ([], []) => String::new(),
        ([], similar) => format!("; there is {}", quoted(similar)),
        (providers, _) => format!("; it is provided by {}", quoted(providers)),
    }
}

fn there_is(offered: &[String]) -> String {
    match offered {
        [] => String::new(),
        offered => format!("; there is {}", offered.iter().take(MAX_SHOWN).cloned().collect::<Vec<_>>().join(", ")),
    }
}

fn excluded(exclusions: &[Exclusion]) -> String {
    exclusions.iter().take(MAX_SHOWN).map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A dependency, by the position of the package that has it and its own place there.
type Place = (usize, usize);

/// Why a package is taken.
enum Reason {
    Requested,
    Essential,
    /// It fulfils a dependency of another; the others that did so as well, if it was chosen.
    Needed {
        by: usize,
        dependency: String,
        others: Vec<usize>,
    },
}

struct Resolver<'index> {
    index: &'index PackageIndex,
    selected: BTreeMap<usize, Reason>,
    /// Dependencies that nothing selected fulfils yet.
    open: BTreeMap<Place, Alternatives>,
    /// What something selected excludes, and by which package.
    excluded: BTreeMap<usize, usize>,
    /// What packages exclude that were looked at.
    exclusions: BTreeMap<usize, BTreeSet<usize>>,
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
    let mut seeds = BTreeMap::new();
    for (position, package) in index.packages().enumerate() {
        if package.control.essential {
            seeds.insert(position, Reason::Essential);
        }
    }
    let names: BTreeSet<&str> = requested.iter().map(AsRef::as_ref).collect();
    for name in names {
        seeds.insert(index.position(name).ok_or_else(|| unknown(index, name))?, Reason::Requested);
    }
    let (selected, open, excluded, exclusions) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut resolver = Resolver { index, selected, open, excluded, exclusions };
    // All seeds are selected before any dependency is decided: each may be the alternative that another one needs.
    for (position, reason) in seeds {
        resolver.select(position, reason)?;
    }
    while resolver.settle()? {}
    Ok(resolver.selected.into_keys().map(|position| index.at(position)).collect())
}

fn unknown(index: &PackageIndex, name: &str) -> ClosureError {
    ClosureError::Unknown {
        name: name.to_owned(),
        similar: index.similar_names(name).into_iter().map(str::to_owned).collect(),
        providers: index.providers(name).map(|package| package.control.name.to_string()).collect(),
    }
}

impl Resolver<'_> {
    fn control(&self, position: usize) -> &Control {
        &self.index.at(position).control
    }

    fn select(&mut self, position: usize, reason: Reason) -> Result<(), ClosureError> {
        if self.selected.contains_key(&position) {
            return Ok(());
        }
        self.selected.insert(position, reason);
        for other in excludes(self.index, position)? {
            self.excluded.entry(other).or_insert(position);
        }
        if let Some(other) = self.against(position) {
            let because = self.because(&[position.min(other), position.max(other)]);
            return Err(ClosureError::Conflict(self.exclusion(position, other), because));
        }
        let control = self.control(position);
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
                let Some(group) = self.open.get(&place).cloned() else { continue };
                if self.is_satisfied(&group) {
                    self.open.remove(&place);
                    continue;
                }
                if let [only] = self.choices(place.0, &group)?.as_slice() {
                    let (by, dependency, others) = (place.0, group.to_string(), Vec::new());
                    self.open.remove(&place);
                    self.select(*only, Reason::Needed { by, dependency, others })?;
                }
            }
            if self.selected.len() == selected_before {
                break;
            }
        }
        let Some(((by, _), group)) = self.open.pop_first() else { return Ok(false) };
        let choices = self.choices(by, &group)?;
        let (dependency, others) = (group.to_string(), choices[1..].to_vec());
        self.select(choices[0], Reason::Needed { by, dependency, others })?;
        Ok(true)
    }

    fn is_satisfied(&self, group: &Alternatives) -> bool {
        group.iter().any(|relation| self.matches(relation).any(|position| self.selected.contains_key(&position)))
    }

    /// Packages that fulfil a relation, the preferred first: the real one, then providers by priority and name.
    fn matches(&self, relation: &Relation) -> impl Iterator<Item = usize> {
        let mut providers = self.index.provider_matches(relation);
        // Positions are in the order of names.
        providers.sort_by_key(|position| (self.control(*position).priority, *position));
        self.index.real_match(relation).into_iter().chain(providers)
    }

    /// Every package that can fulfil one of the alternatives, the preferred first, each once; at least one.
    fn choices(&mut self, by: usize, group: &Alternatives) -> Result<Vec<usize>, ClosureError> {
        let mut fulfilling = Vec::new();
        for position in group.iter().flat_map(|relation| self.matches(relation)) {
            if !fulfilling.contains(&position) {
                fulfilling.push(position);
            }
        }
        let mut choices = Vec::new();
        let mut against = Vec::new();
        for position in fulfilling {
            match self.against(position) {
                None => choices.push(position),
                Some(other) => against.push((position, other)),
            }
        }
        if !choices.is_empty() {
            return Ok(choices);
        }
        let (package, dependency) = (self.control(by).to_string(), group.to_string());
        if against.is_empty() {
            let names: BTreeSet<&str> = group.iter().map(|relation| &*relation.name).collect();
            let offered = names.iter().flat_map(|name| self.index.offered(name));
            let offered = offered.map(|package| self.index.describe(package)).collect();
            // Only because of a pin that is to stay is a higher version no candidate.
            let would_do = |relation: &&Relation| {
                let candidate = self.index.get(&relation.name).map(|package| &package.control.version);
                self.index.offered(&relation.name).any(|package| {
                    let version = &package.control.version;
                    candidate.is_some_and(|candidate| version > candidate) && relation.accepts(version)
                })
            };
            let kept_out = group.iter().filter(would_do).map(|relation| relation.name.to_string()).collect();
            let because = self.because(&[by]);
            return Err(ClosureError::Unsatisfied { package, dependency, offered, kept_out, because });
        }
        let exclusions = against.iter().map(|(position, other)| self.exclusion(*position, *other)).collect();
        let mut taken = vec![by];
        taken.extend(against.iter().map(|(_, other)| *other).collect::<BTreeSet<_>>());
        let because = self.because(&taken);
        Err(ClosureError::Excluded { package, dependency, exclusions, because })
    }

    /// Something selected that a package cannot be beside.
    fn against(&mut self, position: usize) -> Option<usize> {
        if let Some(other) = self.excluded.get(&position) {
            return Some(*other);
        }
        let index = self.index;
        // A field that cannot be parsed is told when the package is selected, if it is.
        let exclusions =
            self.exclusions.entry(position).or_insert_with(|| excludes(index, position).unwrap_or_default());
        exclusions.iter().find(|other| self.selected.contains_key(other)).copied()
    }

    /// What the one of two packages says that excludes the other.
    fn exclusion(&self, one: usize, two: usize) -> Exclusion {
        let says = |from: usize, to: usize| {
            let fields = excluding(self.control(from)).unwrap_or_default();
            let relation = fields.iter().flat_map(|(field, relations)| relations.flat().map(move |one| (*field, one)));
            let mut found = relation.filter(|(_, relation)| self.index.excluded_matches(relation).contains(&to));
            found.next().map(|(field, relation)| Exclusion {
                package: self.control(from).to_string(),
                other: self.control(to).to_string(),
                field,
                relation: relation.to_string(),
            })
        };
        says(one, two).or_else(|| says(two, one)).expect("one of the two was found to exclude the other")
    }

    /// The ways to some packages from what was asked for.
    fn because(&self, positions: &[usize]) -> Because {
        let name = |position: &usize| self.control(*position).name.to_string();
        let way = |end: &usize| {
            let mut way = Vec::new();
            let mut next = Some(*end);
            while let Some(position) = next {
                let (by, dependency, others, is_essential) = match self.selected.get(&position) {
                    Some(Reason::Needed { by, dependency, others }) => {
                        (Some(*by), Some(dependency.clone()), others.iter().map(name).collect(), false)
                    }
                    Some(Reason::Essential) => (None, None, Vec::new(), true),
                    Some(Reason::Requested) | None => (None, None, Vec::new(), false),
                };
                let version = self.control(position).version.to_string();
                way.push(Link { name: name(&position), version, dependency, others, is_essential });
                next = by;
            }
            way.reverse();
            way
        };
        Because(positions.iter().map(way).collect())
    }
}

/// The packages that one says that it cannot be beside.
fn excludes(index: &PackageIndex, position: usize) -> Result<BTreeSet<usize>, RelationFieldError> {
    let fields = excluding(&index.at(position).control)?;
    let relations = fields.iter().flat_map(|(_, relations)| relations.flat());
    // A package may exclude what it provides itself: it means the others that do (Policy 7.6.2).
    let others = relations.flat_map(|relation| index.excluded_matches(relation)).filter(|other| *other != position);
    Ok(others.collect())
}

/// What a package says that it cannot be beside.
fn excluding(control: &Control) -> Result<Vec<(&'static str, Relations)>, RelationFieldError> {
    Ok(vec![("Conflicts", control.conflicts()?), ("Breaks", control.breaks()?)])
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

    /// What is asked for may exclude the preferred alternative: then it is none.
    #[test]
    fn what_cannot_be_beside_something_taken_is_no_choice() {
        let index = index(&[
            "app 1;Depends: exim | postfix",
            "exim 1;Conflicts: mta;Provides: mta",
            "postfix 1;Conflicts: mta;Provides: mta",
            "mailer 1;Depends: mta;Breaks: exim",
            "sendmail 1;Provides: mta",
        ]);
        for (requested, expected) in [
            (&["app"][..], "app exim"),
            (&["app", "mailer"], "app mailer postfix"), // `mailer` says so
            (&["app", "sendmail"], ""),                 // the alternatives do
        ] {
            let found = names(&index, requested);
            assert_eq!(found.clone().unwrap_or_default(), expected, "{requested:?}: {found:?}");
        }
    }

    /// The error, each cause of it, and the hint.
    fn told(index: &PackageIndex, requested: &[&str]) -> Vec<String> {
        let error = closure(index, requested).expect_err("there is none");
        let mut told = vec![error.to_string()];
        let mut next = std::error::Error::source(&error);
        while let Some(cause) = next {
            told.push(cause.to_string());
            next = cause.source();
        }
        told.extend(error.hint().map(|hint| format!("hint: {hint}")));
        told
    }

    #[test]
    fn what_cannot_be_is_explained() {
        let index = index(&[
            "base 1;Essential: yes;Depends: libc",
            "libc 1",
            "nodejs 18;Depends: libnode",
            "libnode 18;Depends: libc",
            "old 1;Depends: libnode (<< 18) | gone",
            "mid 2;Depends: old",
            "app 1;Depends: mid",
            "x 1;Conflicts: y (<< 2)",
            "y 1",
            "breaker 1;Breaks: mta",
            "exim 1;Provides: mta;Conflicts: mta",
            "postfix 1;Provides: mta",
            "mail 1;Depends: mta",
            "picky 1;Depends: old | postfix",
            "hater 1;Conflicts: libc",
            "also 1;Depends: mail",
            "only 1;Depends: exim",
            "bad 1;Depends: a b",
        ]);
        for (requested, expected) in [
            (
                &["nodesj"][..],
                &[
                    "no package is named `nodesj`; there is `nodejs`",
                    "hint: an archive that has it can be named in `also`",
                ][..],
            ),
            (&["qqqqq"], &["no package is named `qqqqq`", "hint: an archive that has it can be named in `also`"]),
            (
                &["mta"],
                &[
                    "no package is named `mta`; it is provided by `exim`, `postfix`",
                    "hint: name one of these in `packages`",
                ],
            ),
            (
                &["app"],
                &[
                    "`old 1` depends on `libnode (<< 18) | gone`, which nothing in the index fulfils; there is `libnode 18`",
                    "asked for: `app 1` → `mid 2` → `old 1`",
                    "hint: name an archive that has it in `also`, or leave out `app`",
                ],
            ),
            (
                &["picky"],
                &[
                    "`old 1` depends on `libnode (<< 18) | gone`, which nothing in the index fulfils; there is `libnode 18`",
                    "asked for: `picky 1` → `old 1`, chosen for `old | postfix`",
                    "hint: what was chosen is not given back; another choice can be named in `packages`: `postfix`",
                ],
            ),
            (
                &["y", "x"],
                &[
                    "`x 1` and `y 1` cannot be together: the first declares `Conflicts: y (<< 2)`",
                    "asked for: `x 1`; asked for: `y 1`",
                    "hint: make toolchains of their own of them, or leave one out",
                ],
            ),
            (
                &["breaker", "postfix"],
                &[
                    "`breaker 1` and `postfix 1` cannot be together: the first declares `Breaks: mta`",
                    "asked for: `breaker 1`; asked for: `postfix 1`",
                    "hint: make toolchains of their own of them, or leave one out",
                ],
            ),
            (
                &["hater"],
                &[
                    "`base 1` depends on `libc`, and `hater 1` and `libc 1` cannot be together: the first declares `Conflicts: libc`",
                    "essential: `base 1`; asked for: `hater 1`",
                    "hint: make toolchains of their own of them, or leave one out",
                ],
            ),
            (
                &["only", "also", "postfix"],
                &[
                    "`only 1` depends on `exim`, and `exim 1` and `postfix 1` cannot be together: the first declares `Conflicts: mta`",
                    "asked for: `only 1`; asked for: `postfix 1`",
                    "hint: make toolchains of their own of them, or leave one out",
                ],
            ),
            (
                &["breaker", "also"],
                &[
                    "`mail 1` depends on `mta`, and `breaker 1` and `exim 1` cannot be together: the first declares `Breaks: mta`; \
                     `breaker 1` and `postfix 1` cannot be together: the first declares `Breaks: mta`",
                    "asked for: `also 1` → `mail 1`; asked for: `breaker 1`",
                    "hint: make toolchains of their own of them, or leave one out",
                ],
            ),
            (
                &["bad"],
                &[
                    "package `bad 1` has a bad field `Depends`",
                    "relation `a b` is not a package and a version in parentheses",
                ],
            ),
        ] {
            assert_eq!(told(&index, requested), expected, "{requested:?}");
        }
        assert_eq!(names(&index, &["exim"]), Ok("base exim libc".into()));
    }

    /// A pin that is to stay is in the way of a version that would do.
    #[test]
    fn a_version_that_the_lock_keeps_out_is_named() {
        let mut builder = crate::IndexBuilder::new("amd64");
        builder.name_archive(0, "stable");
        builder.name_archive(1, "stable-security");
        let digest = |digit: &str| digit.repeat(64);
        let old = crate::index::tests::packages_file(&["tool 1", "lib 1"]);
        let new = crate::index::tests::packages_file(&["tool 2;Depends: lib (>= 2)", "lib 2"]);
        builder.add(0, old.as_bytes()).expect("an index");
        builder.add(1, new.replace(&digest("0"), &digest("1")).as_bytes()).expect("an index");
        assert_eq!(names(&builder.clone().build(), &["tool"]), Ok("lib tool".into()));
        // Both are of one digest here: `lib` stays at 1, and `tool` would.
        let whole = builder.clone().build();
        let (lib, tool) = (whole.offered("lib").nth(1), whole.offered("tool").next());
        let pins = [lib.expect("two are offered").blob];
        assert_ne!(pins[0], tool.expect("it is there").blob);
        let mut builder = crate::IndexBuilder::new("amd64");
        builder.name_archive(0, "stable");
        builder.name_archive(1, "stable-security");
        builder.prefer(pins[0]);
        builder.add(0, crate::index::tests::packages_file(&["lib 1"]).as_bytes()).expect("an index");
        builder.add(1, new.replace(&digest("0"), &digest("1")).as_bytes()).expect("an index");
        assert_eq!(
            told(&builder.build(), &["tool"]),
            [
                "`tool 2` depends on `lib (>= 2)`, which nothing in the index fulfils; \
                 there is `lib 1` of `stable`, `lib 2` of `stable-security`",
                "asked for: `tool 2`",
                "hint: the lock keeps another version; update `lib`, too",
            ]
        );
    }

    /// What a generated package says, as the judge of closures reads it: without the code that finds them.
    #[derive(Clone, Default)]
    struct Model {
        version: u64,
        essential: bool,
        provides: Vec<(char, Option<u64>)>,
        depends: Vec<Vec<(char, Option<u64>)>>,
        conflicts: Vec<(char, Option<u64>)>,
    }

    /// Whether a package is meant by a name and the least version.
    fn is_meant(models: &[Model], which: usize, (name, least): (char, Option<u64>)) -> bool {
        let own = char::from(b'a' + u8::try_from(which).expect("few"));
        let real = own == name && least.is_none_or(|least| models[which].version >= least);
        real || models[which].provides.iter().any(|(provided, version)| {
            *provided == name && least.is_none_or(|least| version.is_some_and(|version| version >= least))
        })
    }

    fn is_valid(models: &[Model], set: u32) -> bool {
        let members = || (0..models.len()).filter(|which| set & (1 << which) != 0);
        (0..models.len()).all(|which| {
            let model = &models[which];
            if set & (1 << which) == 0 {
                return !model.essential;
            }
            let fulfilled = |group: &Vec<(char, Option<u64>)>| {
                group.iter().any(|relation| members().any(|other| is_meant(models, other, *relation)))
            };
            let excluded = |relation: &(char, Option<u64>)| {
                members().any(|other| other != which && is_meant(models, other, *relation))
            };
            model.depends.iter().all(fulfilled) && !model.conflicts.iter().any(excluded)
        })
    }

    /// A closure keeps every relation; an error without a choice says that there is none, and one with a choice names it.
    #[test]
    fn closures_are_whole_and_errors_are_honest() {
        const PACKAGES: usize = 8;
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut below = |end: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % end
        };
        let (mut found, mut proven, mut not_found) = (0, 0, 0);
        for round in 0..3000 {
            let relation = |below: &mut dyn FnMut(u64) -> u64| {
                let name = char::from(b'a' + u8::try_from(below(10)).expect("small"));
                (name, (below(3) == 0).then(|| 1 + below(3)))
            };
            let models: Vec<Model> = (0..PACKAGES)
                .map(|_| Model {
                    version: 1 + below(3),
                    essential: below(12) == 0,
                    provides: (0..below(2)).map(|_| relation(&mut below)).collect(),
                    depends: (0..below(3)).map(|_| (0..=below(3)).map(|_| relation(&mut below)).collect()).collect(),
                    conflicts: (0..u64::from(below(3) == 0)).map(|_| relation(&mut below)).collect(),
                })
                .collect();
            let text = |sign: &str, (name, version): &(char, Option<u64>)| match version {
                Some(version) => format!("{name} ({sign} {version})"),
                None => name.to_string(),
            };
            let list = |sign: &str, separator: &str, relations: &[(char, Option<u64>)]| {
                relations.iter().map(|one| text(sign, one)).collect::<Vec<_>>().join(separator)
            };
            let packages: Vec<String> = models
                .iter()
                .zip('a'..)
                .map(|(model, name)| {
                    let depends: Vec<String> = model.depends.iter().map(|group| list(">=", " | ", group)).collect();
                    format!(
                        "{name} {};Essential: {};Provides: {};Depends: {};Conflicts: {}",
                        model.version,
                        if model.essential { "yes" } else { "no" },
                        list("=", ", ", &model.provides),
                        depends.join(", "),
                        list(">=", ", ", &model.conflicts)
                    )
                })
                .collect();
            let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
            let index = index(&packages);
            let requested: BTreeSet<u64> = (0..=below(2)).map(|_| below(PACKAGES as u64)).collect();
            let names: Vec<String> = requested
                .iter()
                .map(|which| char::from(b'a' + u8::try_from(*which).expect("small")).to_string())
                .collect();
            let wanted: u32 = requested.iter().map(|which| 1 << which).sum();
            let is_possible = || (0..1_u32 << PACKAGES).any(|set| set & wanted == wanted && is_valid(&models, set));
            match closure(&index, &names) {
                Ok(closure) => {
                    let member = |package: &&Package| 1 << (package.control.name.as_bytes()[0] - b'a');
                    let set: u32 = closure.iter().map(member).sum();
                    assert!(
                        set & wanted == wanted && is_valid(&models, set),
                        "{round}: {packages:#?} {names:?} {set:b}"
                    );
                    found += 1;
                }
                Err(error) => {
                    let chosen = match &error {
                        ClosureError::Unsatisfied { because, .. }
                        | ClosureError::Excluded { because, .. }
                        | ClosureError::Conflict(_, because) => !because.others().is_empty(),
                        other => panic!("{round}: {other}"),
                    };
                    match (is_possible(), chosen) {
                        (true, false) => panic!("{round}: {error}: {packages:#?} {names:?}"),
                        (true, true) => not_found += 1,
                        (false, _) => proven += 1,
                    }
                }
            }
        }
        assert!(found > 500 && proven > 500 && not_found > 0, "{found} {proven} {not_found}");
    }
}
