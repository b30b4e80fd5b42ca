//! The packages of one architecture that one or several archives offer.
//!
//! Of a name that is offered in several versions only the highest is a candidate, as it is for apt without pins; of equal
//! versions the one that was added first. So the order of archives matters only where they disagree on one version.
//!
//! Not here: which packages to take ([`crate::closure`]), the signed list of indexes ([`crate::Release`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use cas_blob::Descriptor;

use crate::deb822::Paragraphs;
use crate::relation::Relation;
use crate::{Comparison, MultiArch, Package, PackageError, Version};

/// Most packages of one index: eight times those of Debian's largest component.
const MAX_PACKAGES: usize = 1 << 19;

/// Why an index could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A paragraph does not describe a package.
    #[error("the package index is damaged")]
    Package(#[from] PackageError),
    /// There are more packages than in any real index.
    #[error("the package index has more than {MAX_PACKAGES} packages")]
    TooMany,
}

/// Packages, to be looked up by name and by what they provide.
#[derive(Clone, Debug)]
pub struct PackageIndex {
    architecture: Box<str>,
    /// In the order of their names, one of each.
    packages: Vec<Package>,
    /// What else is offered under these names, in the order of names and versions, the highest first.
    others: Vec<Package>,
    /// What is provided, by which package, in the order of the two.
    provided: Vec<Provided>,
    /// Names of the archives, for errors.
    archives: BTreeMap<usize, Box<str>>,
}

#[derive(Clone, Debug)]
struct Provided {
    name: Box<str>,
    package_index: usize,
    architecture: Option<Box<str>>,
    version: Option<Version>,
}

/// Collects packages from the indexes of archives.
#[derive(Clone, Debug)]
pub struct IndexBuilder {
    architecture: Box<str>,
    packages: Vec<Package>,
    /// Content of the packages that are candidates whatever else is offered under their names.
    preferred: BTreeSet<Descriptor>,
    archives: BTreeMap<usize, Box<str>>,
}

impl IndexBuilder {
    /// Begins an index for an architecture, in Debian's words (`amd64`, `arm64`).
    #[must_use]
    pub fn new(architecture: &str) -> Self {
        Self {
            architecture: architecture.into(),
            packages: Vec::new(),
            preferred: BTreeSet::new(),
            archives: BTreeMap::new(),
        }
    }

    /// Names an archive for errors, which tell of several where from something is.
    pub fn name_archive(&mut self, archive: usize, name: &str) {
        self.archives.insert(archive, name.into());
    }

    /// Makes a package the candidate of its name, by its content, if it is offered: a pin that is to stay.
    pub fn prefer(&mut self, package: Descriptor) {
        self.preferred.insert(package);
    }

    /// Adds what a `Packages` file of an archive holds; packages of other architectures are left out. The archive's number is
    /// the caller's own, and is in each package.
    ///
    /// Reads it as a stream: give it the decoder of the compressed file.
    ///
    /// # Errors
    ///
    /// [`IndexError`]; the builder then holds a part of the file and is of no use.
    pub fn add(&mut self, archive: usize, packages: impl BufRead) -> Result<(), IndexError> {
        let mut paragraphs = Paragraphs::new(packages);
        while let Some(paragraph) = paragraphs.next_paragraph().map_err(PackageError::from)? {
            let package = Package { archive, ..Package::from_paragraph(&paragraph)? };
            if *package.control.architecture == *self.architecture || &*package.control.architecture == "all" {
                if self.packages.len() == MAX_PACKAGES {
                    return Err(IndexError::TooMany);
                }
                self.packages.push(package);
            }
        }
        Ok(())
    }

    /// Ends the collection.
    #[must_use]
    pub fn build(self) -> PackageIndex {
        let (mut packages, preferred) = (self.packages, self.preferred);
        let is_preferred = |package: &Package| preferred.contains(&package.blob);
        // Both steps keep the order of what is equal, so the first that was added is the one that stays.
        packages.sort_by(|left, right| {
            let by_preference = || is_preferred(right).cmp(&is_preferred(left));
            let (left, right) = (&left.control, &right.control);
            left.name.cmp(&right.name).then_with(by_preference).then_with(|| right.version.cmp(&left.version))
        });
        let mut others = Vec::new();
        let mut candidates: Vec<Package> = Vec::with_capacity(packages.len());
        for package in packages {
            match candidates.last() {
                Some(candidate) if candidate.control.name == package.control.name => others.push(package),
                _ => candidates.push(package),
            }
        }
        let provides = |(package_index, package): (usize, &Package)| -> Vec<Provided> {
            // What dpkg and apt do not take for provided: several at a choice, and versions other than exact ones.
            let exact = package.control.provides.iter().filter_map(|group| group.single()).filter(|relation| {
                relation.version.as_ref().is_none_or(|(comparison, _)| *comparison == Comparison::Equal)
            });
            exact
                .map(|relation| Provided {
                    name: relation.name.clone(),
                    package_index,
                    architecture: relation.architecture.clone(),
                    version: relation.version.as_ref().map(|(_, version)| version.clone()),
                })
                .collect()
        };
        let mut provided: Vec<Provided> = candidates.iter().enumerate().flat_map(provides).collect();
        provided.sort_by(|left, right| left.name.cmp(&right.name));
        let archives = self.archives;
        PackageIndex { architecture: self.architecture, packages: candidates, others, provided, archives }
    }
}

impl PackageIndex {
    /// The architecture of its packages.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The candidate of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.position(name).map(|position| &self.packages[position])
    }

    /// Every candidate, in the order of names.
    pub fn packages(&self) -> impl ExactSizeIterator<Item = &Package> {
        self.packages.iter()
    }

    /// Packages that provide a name, in the order of their own names.
    pub fn providers<'index>(&'index self, name: &str) -> impl Iterator<Item = &'index Package> {
        let mut providers: Vec<usize> = self.provided_as(name).iter().map(|provided| provided.package_index).collect();
        providers.dedup();
        providers.into_iter().map(|position| &self.packages[position])
    }

    pub(crate) fn at(&self, position: usize) -> &Package {
        &self.packages[position]
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.packages.binary_search_by(|package| (*package.control.name).cmp(name)).ok()
    }

    fn provided_as(&self, name: &str) -> &[Provided] {
        let start = self.provided.partition_point(|provided| *provided.name < *name);
        let count = self.provided[start..].partition_point(|provided| *provided.name == *name);
        &self.provided[start..start + count]
    }

    /// The candidate with the name of a dependency, if it fulfils it for dpkg and for apt.
    pub(crate) fn real_match(&self, relation: &Relation) -> Option<usize> {
        let position = self.position(&relation.name)?;
        let control = &self.packages[position].control;
        let architecture_fits = match relation.architecture.as_deref() {
            None => true,
            // Only a package that allows it stands in for its namesakes of any architecture.
            Some("any") => control.multi_arch == MultiArch::Allowed,
            Some(architecture) => *architecture == *self.architecture,
        };
        (architecture_fits && relation.accepts(&control.version)).then_some(position)
    }

    /// Candidates that provide what a dependency names; for one with versions they must tell theirs (Policy 7.5).
    pub(crate) fn provider_matches(&self, relation: &Relation) -> Vec<usize> {
        let own = &*self.architecture;
        self.providing(relation, |provided| {
            match (relation.architecture.as_deref(), provided.architecture.as_deref()) {
                (None, None) => true,
                (None, Some(provided)) => *provided == *own,
                (Some("any"), None) => self.packages[provided.package_index].control.multi_arch == MultiArch::Allowed,
                (Some(needed), None) => *needed == *own,
                (Some(needed), Some(provided)) => needed == provided,
            }
        })
    }

    /// Candidates that a `Conflicts` or `Breaks` is about, for dpkg or for apt: of whatever architecture they say to be,
    /// unless the relation names one.
    pub(crate) fn excluded_matches(&self, relation: &Relation) -> Vec<usize> {
        let own = &*self.architecture;
        let named = relation.architecture.as_deref().filter(|word| *word != "any" && *word != own);
        let real = self.position(&relation.name).filter(|position| {
            matches!(named, None | Some("native")) && relation.accepts(&self.packages[*position].control.version)
        });
        let providers = self.providing(relation, |provided| match (named, provided.architecture.as_deref()) {
            (None, _) | (Some("native"), None) => true,
            (Some("native"), Some(provided)) => *provided == *own,
            (Some(named), provided) => provided == Some(named),
        });
        real.into_iter().chain(providers).collect()
    }

    /// Candidates that provide a name in the versions of a relation, as far as the filter lets them.
    fn providing(&self, relation: &Relation, filter: impl Fn(&Provided) -> bool) -> Vec<usize> {
        let has_version = |provided: &Provided| match (&relation.version, &provided.version) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(_), Some(version)) => relation.accepts(version),
        };
        let provided = self.provided_as(&relation.name).iter();
        let mut matches: Vec<usize> = provided
            .filter(|provided| has_version(provided) && filter(provided))
            .map(|provided| provided.package_index)
            .collect();
        matches.dedup();
        matches
    }

    /// Everything that is offered under a name: the candidate, then the others.
    pub(crate) fn offered(&self, name: &str) -> impl Iterator<Item = &Package> {
        let start = self.others.partition_point(|package| *package.control.name < *name);
        let others = self.others[start..].iter().take_while(move |package| *package.control.name == *name);
        self.get(name).into_iter().chain(others)
    }

    /// Name, version and, where there are several, archive of a package.
    pub(crate) fn describe(&self, package: &Package) -> String {
        match self.archives.get(&package.archive).filter(|_| self.archives.len() > 1) {
            Some(archive) => format!("`{}` of `{archive}`", package.control),
            None => format!("`{}`", package.control),
        }
    }

    /// Names like `name`, the most similar first, at most three.
    #[must_use]
    pub fn similar_names(&self, name: &str) -> Vec<&str> {
        crate::similar::similar(name, self.packages.iter().map(|package| &*package.control.name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An index of `amd64` from short forms: fields with `;` between them, of which the first is `name version`.
    pub(crate) fn index(packages: &[&str]) -> PackageIndex {
        let mut builder = IndexBuilder::new("amd64");
        builder.add(0, packages_file(packages).as_bytes()).expect("an index");
        builder.build()
    }

    pub(crate) fn packages_file(packages: &[&str]) -> String {
        let mut text = String::new();
        for package in packages {
            let mut fields = package.split(';');
            let (name, version) = fields.next().and_then(|first| first.split_once(' ')).expect("a name and a version");
            let fields: Vec<&str> = fields.map(str::trim).collect();
            text += &format!("Package: {name}\nVersion: {version}\nFilename: pool/{name}_{version}.deb\nSize: 1\n");
            text += &format!("SHA256: {}\n", "0".repeat(64));
            if !fields.iter().any(|field| field.starts_with("Architecture:")) {
                text += "Architecture: amd64\n";
            }
            for field in fields {
                text += field;
                text.push('\n');
            }
            text.push('\n');
        }
        text
    }

    #[test]
    fn the_highest_version_of_a_name_is_its_candidate() {
        let mut builder = IndexBuilder::new("amd64");
        builder
            .add(0, packages_file(&["a 1", "b 2;Architecture: all", "c 1;Architecture: arm64"]).as_bytes())
            .expect("an index");
        builder.add(0, packages_file(&["a 1.1", "a 1.0", "b 2-0"]).as_bytes()).expect("an index");
        let index = builder.build();
        let names: Vec<String> = index.packages().map(|package| package.control.to_string()).collect();
        assert_eq!(names, ["a 1.1", "b 2"]);
        assert_eq!(index.get("a").expect("it is there").filename.to_string(), "pool/a_1.1.deb");
        assert!(index.get("c").is_none());
    }

    /// What dpkg 1.21 and apt 2.6 say of each row is asked of them by the peers' tests.
    #[test]
    fn relations_find_real_and_providing_packages() {
        let index = index(&[
            "mail 2",
            "python 3;Multi-Arch: allowed;Provides: interpreter",
            "exim 1;Provides: mta, mail (= 3)",
            "postfix 1;Provides: mta (= 5), mta-any",
            "odd 1;Provides: odd-a:any, odd-b:amd64, odd-c:i386, odd-d (>= 1), odd-e | odd-f",
        ]);
        let name = |position: usize| index.at(position).control.name.to_string();
        for (relation, real, provided, excluded) in [
            ("mta", None, "exim postfix", "exim postfix"),
            ("mta (>= 1)", None, "postfix", "postfix"),
            ("mta (>= 6)", None, "", ""),
            ("mail", Some("mail"), "exim", "mail exim"),
            ("mail (>= 3)", None, "exim", "exim"),
            ("mail:any", None, "", "mail exim"),
            ("mail:amd64", Some("mail"), "exim", "mail exim"),
            ("mail:i386", None, "", ""),
            ("mail:native", None, "", "mail exim"),
            ("mail:all", None, "", ""),
            ("python:any (>= 3)", Some("python"), "", "python"),
            ("python:any (>= 4)", None, "", ""),
            ("interpreter:any", None, "python", "python"),
            ("odd-a", None, "", "odd"),
            ("odd-a:any", None, "odd", "odd"),
            ("odd-a:amd64", None, "", "odd"),
            ("odd-b", None, "odd", "odd"),
            ("odd-b:any", None, "", "odd"),
            ("odd-b:amd64", None, "odd", "odd"),
            ("odd-c", None, "", "odd"),
            ("odd-c:i386", None, "odd", "odd"),
            ("odd-c:amd64", None, "", "odd"),
            ("odd-c:native", None, "", ""),
            ("odd-a:native", None, "", ""),
            ("odd-a:i386", None, "", ""),
            ("odd-b:native", None, "", "odd"),
            ("odd-d", None, "", ""),
            ("odd-e", None, "", ""),
        ] {
            let parsed = Relation::parse(relation).expect("a relation");
            let joined = |positions: Vec<usize>| positions.into_iter().map(name).collect::<Vec<_>>().join(" ");
            assert_eq!(index.real_match(&parsed).map(name).as_deref(), real, "{relation}");
            assert_eq!(joined(index.provider_matches(&parsed)), provided, "{relation}");
            assert_eq!(joined(index.excluded_matches(&parsed)), excluded, "{relation}");
        }
        let providers: Vec<&str> = index.providers("mta").map(|package| &*package.control.name).collect();
        assert_eq!(providers, ["exim", "postfix"]);
    }
}
