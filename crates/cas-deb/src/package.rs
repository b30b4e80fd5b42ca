//! A package, as an index or its own control file describes it.
//!
//! Of an index of 64,000 packages a closure looks at some hundred, so relations are kept as text and parsed when asked
//! for. Names, versions, paths and digests are checked at once: they reach locks and addresses.

use std::fmt;
use std::io::BufRead;

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction, ParseDigestError};
use cas_tree::{RelPath, RelPathError};

use crate::deb822::{Deb822Error, Paragraph, Paragraphs};
use crate::relation::is_package_name;
use crate::{ParseRelationError, ParseVersionError, Relations, Version};

/// Why a paragraph does not describe a package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The text is not made of paragraphs.
    #[error(transparent)]
    Syntax(#[from] Deb822Error),
    /// A required field is not there.
    #[error("the package at line {line} has no field `{field}`")]
    Missing {
        /// First line of the paragraph.
        line: u64,
        /// The field.
        field: &'static str,
    },
    /// A field holds what it must not.
    #[error("field `{field}` of the package at line {line} holds `{value}`")]
    Field {
        /// First line of the paragraph.
        line: u64,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// Why that is wrong.
        source: Option<FieldError>,
    },
    /// A control file holds more than one paragraph, or none.
    #[error("a control file has one paragraph, this one has not")]
    NotOneParagraph,
}

/// Why the value of a field is wrong.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// It is not a version.
    #[error(transparent)]
    Version(#[from] ParseVersionError),
    /// It is not a list of relations.
    #[error(transparent)]
    Relation(#[from] ParseRelationError),
    /// It is not a digest.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    /// It is not a path below the archive's root.
    #[error(transparent)]
    Path(#[from] RelPathError),
}

/// A relation field of a package is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("package `{package}` has a bad field `{field}`")]
pub struct RelationFieldError {
    /// Name and version of the package.
    pub package: String,
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub source: ParseRelationError,
}

/// How important a package is to its distribution (Policy 2.5), the most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of the policy")]
pub enum Priority {
    Required,
    Important,
    Standard,
    Optional,
    Extra,
}

/// How a package behaves where several architectures are installed (deb-control(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the manual")]
pub enum MultiArch {
    No,
    Same,
    Foreign,
    Allowed,
}

/// What a package says of itself.
#[derive(Clone, Debug)]
pub struct Control {
    /// Its name.
    pub name: Box<str>,
    /// Its version.
    pub version: Version,
    /// What it was built for; `all` for everything.
    pub architecture: Box<str>,
    /// Whether nothing works without it.
    pub essential: bool,
    /// Its importance; what is not told is optional.
    pub priority: Priority,
    /// What it may do for packages of other architectures.
    pub multi_arch: MultiArch,
    /// What it can stand in for, perhaps with a version.
    pub provides: Relations,
    depends: Box<str>,
    pre_depends: Box<str>,
    conflicts: Box<str>,
    breaks: Box<str>,
    replaces: Box<str>,
}

/// A package of an index: what it says of itself, and where it is.
#[derive(Clone, Debug)]
pub struct Package {
    /// What it says of itself.
    pub control: Control,
    /// Number of the archive that offers it (see [`crate::IndexBuilder::add`]).
    pub archive: usize,
    /// Path below the root of the archive.
    pub filename: RelPath,
    /// SHA-256 and size of the `.deb`.
    pub blob: Descriptor,
}

/// Every field that is read here: of an index they are a third.
const FIELDS: [&str; 15] = [
    "Package",
    "Version",
    "Architecture",
    "Essential",
    "Priority",
    "Multi-Arch",
    "Provides",
    "Pre-Depends",
    "Depends",
    "Conflicts",
    "Breaks",
    "Replaces",
    "Filename",
    "Size",
    "SHA256",
];

/// Copies a `Packages` file with nothing but the fields that [`crate::IndexBuilder::add`] looks at, which takes the copy as the same.
///
/// # Errors
///
/// [`PackageError::Syntax`]
pub fn shorten(packages: impl BufRead) -> Result<Vec<u8>, PackageError> {
    let mut short = Vec::new();
    let mut paragraphs = Paragraphs::new(packages);
    while let Some(paragraph) = paragraphs.next_paragraph()? {
        let known = |name: &str| FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name));
        for (name, value) in paragraph.fields().filter(|(name, _)| known(name)) {
            for part in [name, ": ", value, "\n"] {
                short.extend_from_slice(part.as_bytes());
            }
        }
        short.push(b'\n');
    }
    Ok(short)
}

impl Control {
    /// Parses the `control` file of a package.
    ///
    /// # Errors
    ///
    /// [`PackageError`]
    pub fn parse(text: &[u8]) -> Result<Self, PackageError> {
        let mut paragraphs = Paragraphs::new(text);
        let control = match paragraphs.next_paragraph()? {
            Some(paragraph) => Self::from_paragraph(&paragraph)?,
            None => return Err(PackageError::NotOneParagraph),
        };
        match paragraphs.next_paragraph()? {
            None => Ok(control),
            Some(_) => Err(PackageError::NotOneParagraph),
        }
    }

    fn from_paragraph(paragraph: &Paragraph<'_>) -> Result<Self, PackageError> {
        let name = required(paragraph, "Package")?;
        if !is_package_name(name) {
            return Err(wrong(paragraph, "Package", None));
        }
        let version = Version::parse(required(paragraph, "Version")?)
            .map_err(|error| wrong(paragraph, "Version", Some(error.into())))?;
        let architecture = required(paragraph, "Architecture")?;
        if !is_package_name(architecture) {
            return Err(wrong(paragraph, "Architecture", None));
        }
        let essential = match paragraph.get("Essential") {
            Some("yes") => true,
            None | Some("no") => false,
            Some(_) => return Err(wrong(paragraph, "Essential", None)),
        };
        let priority = match paragraph.get("Priority") {
            Some("required") => Priority::Required,
            Some("important") => Priority::Important,
            Some("standard") => Priority::Standard,
            Some("extra") => Priority::Extra,
            // Anything else is of no more weight than what is not told; third-party archives invent words.
            _ => Priority::Optional,
        };
        let multi_arch = match paragraph.get("Multi-Arch") {
            None | Some("no") => MultiArch::No,
            Some("same") => MultiArch::Same,
            Some("foreign") => MultiArch::Foreign,
            Some("allowed") => MultiArch::Allowed,
            Some(_) => return Err(wrong(paragraph, "Multi-Arch", None)),
        };
        let text = |field| paragraph.get(field).unwrap_or_default();
        let provides =
            Relations::parse(text("Provides")).map_err(|error| wrong(paragraph, "Provides", Some(error.into())))?;
        Ok(Self {
            name: name.into(),
            version,
            architecture: architecture.into(),
            essential,
            priority,
            multi_arch,
            provides,
            depends: text("Depends").into(),
            pre_depends: text("Pre-Depends").into(),
            conflicts: text("Conflicts").into(),
            breaks: text("Breaks").into(),
            replaces: text("Replaces").into(),
        })
    }

    /// What it needs to work.
    ///
    /// # Errors
    ///
    /// [`RelationFieldError`], here and below, when the field is not a list of relations.
    pub fn depends(&self) -> Result<Relations, RelationFieldError> {
        self.relations("Depends", &self.depends)
    }

    /// What it needs to be unpacked.
    ///
    /// # Errors
    ///
    /// [`RelationFieldError`]
    pub fn pre_depends(&self) -> Result<Relations, RelationFieldError> {
        self.relations("Pre-Depends", &self.pre_depends)
    }

    /// What must not be unpacked beside it.
    ///
    /// # Errors
    ///
    /// [`RelationFieldError`]
    pub fn conflicts(&self) -> Result<Relations, RelationFieldError> {
        self.relations("Conflicts", &self.conflicts)
    }

    /// What does not work beside it.
    ///
    /// # Errors
    ///
    /// [`RelationFieldError`]
    pub fn breaks(&self) -> Result<Relations, RelationFieldError> {
        self.relations("Breaks", &self.breaks)
    }

    /// Whose files it may take over.
    ///
    /// # Errors
    ///
    /// [`RelationFieldError`]
    pub fn replaces(&self) -> Result<Relations, RelationFieldError> {
        self.relations("Replaces", &self.replaces)
    }

    fn relations(&self, field: &'static str, text: &str) -> Result<Relations, RelationFieldError> {
        Relations::parse(text).map_err(|source| RelationFieldError { package: self.to_string(), field, source })
    }
}

impl Package {
    /// Takes a paragraph of an index.
    pub(crate) fn from_paragraph(paragraph: &Paragraph<'_>) -> Result<Self, PackageError> {
        let control = Control::from_paragraph(paragraph)?;
        let filename = required(paragraph, "Filename")?;
        let filename = match RelPath::new(filename) {
            // It becomes a part of an address, in which other characters would have a meaning or need quoting.
            Ok(path) if filename.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\\"<>|".contains(&byte)) => path,
            Ok(_) => return Err(wrong(paragraph, "Filename", None)),
            Err(error) => return Err(wrong(paragraph, "Filename", Some(error.into()))),
        };
        let digest = Digest::from_hex(DigestFunction::Sha256, required(paragraph, "SHA256")?)
            .map_err(|error| wrong(paragraph, "SHA256", Some(error.into())))?;
        let size = parse_size(required(paragraph, "Size")?).ok_or_else(|| wrong(paragraph, "Size", None))?;
        Ok(Self { control, archive: 0, filename, blob: Descriptor { digest, size } })
    }
}

/// Parses a decimal number without sign.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn required<'text>(paragraph: &Paragraph<'text>, field: &'static str) -> Result<&'text str, PackageError> {
    paragraph.get(field).ok_or_else(|| PackageError::Missing { line: paragraph.line(), field })
}

fn wrong(paragraph: &Paragraph<'_>, field: &'static str, source: Option<FieldError>) -> PackageError {
    let value = paragraph.get(field).unwrap_or_default().chars().take(100).collect();
    PackageError::Field { line: paragraph.line(), field, value, source }
}

impl fmt::Display for Control {
    /// Prints `name version`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_is_parsed() {
        let control = Control::parse(
            b"Package: mawk\nVersion: 1.3-4\nArchitecture: amd64\nEssential: no\nPriority: required\nMulti-Arch: foreign\n\
              Provides: awk, awk-like (= 2)\nPre-Depends: libc6 (>= 2.34)\nReplaces: old-awk (<< 1)\nDescription: x\n y\n",
        )
        .expect("a control file");
        assert_eq!(control.to_string(), "mawk 1.3-4");
        assert_eq!(
            (control.priority, control.multi_arch, control.essential),
            (Priority::Required, MultiArch::Foreign, false)
        );
        let printed = |relations: Relations| relations.flat().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        assert_eq!(printed(control.provides.clone()), "awk, awk-like (= 2)");
        assert_eq!(printed(control.pre_depends().expect("a field")), "libc6 (>= 2.34)");
        assert_eq!(printed(control.replaces().expect("a field")), "old-awk (<< 1)");
        assert_eq!(printed(control.depends().expect("no field is an empty one")), "");
    }

    #[test]
    fn a_bad_relation_names_package_and_field() {
        let control =
            Control::parse(b"Package: a\nVersion: 1\nArchitecture: all\nDepends: b [i386]\n").expect("a file");
        let error = control.depends().expect_err("it is only for source packages");
        assert_eq!(error.to_string(), "package `a 1` has a bad field `Depends`");
    }

    #[test]
    fn what_describes_no_package_is_refused() {
        const GOOD: &str = "Package: a\nVersion: 1\nArchitecture: all\nFilename: pool/a.deb\nSize: 5\n\
                            SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
        let parse = |text: &str| {
            let mut paragraphs = Paragraphs::new(text.as_bytes());
            let paragraph = paragraphs.next_paragraph().expect("paragraphs").expect("a paragraph");
            Package::from_paragraph(&paragraph)
                .map(|package| package.control.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(parse(GOOD), Ok("a 1".to_owned()));
        for (old, new, message) in [
            ("Package: a", "Package: ../a", "field `Package` of the package at line 1 holds `../a`"),
            ("Version: 1", "Version: 1_2", "field `Version` of the package at line 1 holds `1_2`"),
            ("Version: 1\n", "", "the package at line 1 has no field `Version`"),
            ("pool/a.deb", "pool/../../a", "field `Filename` of the package at line 1 holds `pool/../../a`"),
            ("pool/a.deb", "/etc/passwd", "field `Filename` of the package at line 1 holds `/etc/passwd`"),
            ("pool/a.deb", "a?b", "field `Filename` of the package at line 1 holds `a?b`"),
            ("pool/a.deb", "a b", "field `Filename` of the package at line 1 holds `a b`"),
            ("Size: 5", "Size: +5", "field `Size` of the package at line 1 holds `+5`"),
            ("Size: 5", "Size:", "field `Size` of the package at line 1 holds ``"),
            (
                "e3b0",
                "e3B0",
                "field `SHA256` of the package at line 1 holds `e3B0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`",
            ),
            ("Size: 5", "Size: 5\nEssential: true", "field `Essential` of the package at line 1 holds `true`"),
            ("Size: 5", "Size: 5\nMulti-Arch: x", "field `Multi-Arch` of the package at line 1 holds `x`"),
        ] {
            assert_eq!(parse(&GOOD.replace(old, new)), Err(message.to_owned()));
        }
        assert!(matches!(Control::parse(b"\n\n"), Err(PackageError::NotOneParagraph)));
        let twice = GOOD.to_owned() + "\n" + GOOD;
        assert!(matches!(Control::parse(twice.as_bytes()), Err(PackageError::NotOneParagraph)));
    }
}
