//! Why something did not reach its places.

use cas_digest::Digest;
use cas_oci::ParseDocumentError;
use cas_registry::RegistryError;

use crate::TagClass;

/// Why something did not reach its places.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A tag names something else, and must not move.
    #[error("`{repository}:{tag}` is `{found}`, and {} do not move", class.words())]
    Taken {
        /// Where.
        repository: String,
        /// The tag.
        tag: String,
        /// What it names.
        found: Digest,
        /// Why it must not.
        class: TagClass,
    },
    /// A tag was moved by others in between.
    #[error("`{repository}:{tag}` was moved by somebody else meanwhile")]
    Moved {
        /// Where.
        repository: String,
        /// The tag.
        tag: String,
    },
    /// Nothing would tell later what `latest` was.
    #[error("`{repository}` would get `latest` alone")]
    OnlyLatest {
        /// Where.
        repository: String,
    },
    /// A registry has it, and another one has not.
    #[error("{} of {all} registries have not all of it; no tag was set anywhere", failures.len())]
    Partial {
        /// Repositories, and what is the matter with them.
        failures: Vec<(String, Box<SyncError>)>,
        /// How many were to have it.
        all: usize,
    },
    /// Tags are not everywhere.
    #[error("{} of {all} registries have not all tags; the others have them", failures.len())]
    PartialTags {
        /// Repositories, and what is the matter with them.
        failures: Vec<(String, Box<SyncError>)>,
        /// How many were to have them.
        all: usize,
    },
    /// A document that is to be copied cannot be.
    #[error("`{name}` cannot be copied")]
    Document {
        /// Which.
        name: String,
        /// Why.
        source: Box<ParseDocumentError>,
    },
    /// Documents name each other without end.
    #[error("`{name}` has documents more than {depth} deep, or more than {count} of them")]
    Nested {
        /// What was to be copied.
        name: String,
        /// How deep they may be.
        depth: usize,
        /// How many there may be.
        count: usize,
    },
    /// The source has something else than its documents name.
    #[error("`{name}` is not what it is named as: {said}")]
    Named {
        /// What was to be copied.
        name: String,
        /// What is wrong with it.
        said: String,
    },
    /// A registry does not say what refers to something.
    #[error("nothing tells what refers to `{name}`")]
    Referrers {
        /// What was to be copied.
        name: String,
        /// Why.
        source: RegistryError,
    },
    /// There is nothing for a platform.
    #[error("`{name}` has nothing for `{wanted}`, only for `{known}`")]
    Platform {
        /// What was to be copied.
        name: String,
        /// What was asked for.
        wanted: String,
        /// What there is, with quotes between.
        known: String,
    },
    /// Tags are named that are not there.
    #[error("`{repository}` has no tag `{tags}`")]
    NoTag {
        /// The repository.
        repository: String,
        /// The tags, with quotes between.
        tags: String,
    },
    /// A section of a file has no pins, or other words than they were made for.
    #[error("nothing is pinned of `{repository}` as the file has it")]
    Unpinned {
        /// The repository.
        repository: String,
    },
    /// A version of a package has another file under a name.
    #[error("`{package}` has another `{file}`: `{found}`, and it would become `{wanted}`")]
    PackageFile {
        /// The version.
        package: String,
        /// The file.
        file: String,
        /// What is there.
        found: Digest,
        /// What was to be there.
        wanted: Digest,
    },
    /// A file cannot have its name in a package.
    #[error("`{name}` cannot be a file of a package")]
    PackageName {
        /// The name.
        name: String,
    },
    /// There is nothing to send to a package.
    #[error("there is no file to send: a package is made of the files of an artifact")]
    NoFiles,
    /// No thread could be started.
    #[error("no task could be started")]
    Runtime(#[source] std::io::Error),
}

impl SyncError {
    /// What went wrong with a blob: where it comes from another registry, that is told in its own words.
    pub(crate) fn of_blob(error: RegistryError) -> Self {
        match error {
            RegistryError::Content { name, source } => match source.downcast::<Self>() {
                Ok(own) => own,
                Err(source) => RegistryError::Content { name, source }.into(),
            },
            other => other.into(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        if let Some(advice) = self.advice() {
            return Some(advice.to_owned());
        }
        Some(match self {
            // What is there is found again.
            Self::Registry(RegistryError::Transport { .. } | RegistryError::Status { .. }) => {
                "do it again: what is there is not sent again".to_owned()
            }
            Self::Registry(error) => return error.hint(),
            Self::Taken { class: TagClass::Moving, tag, .. } => {
                format!("`--move-tag {tag}` moves it: look and write are two requests, so others may come in between")
            }
            Self::Taken { .. } => "give it another tag: whoever has pulled this one has something else".to_owned(),
            Self::Moved { .. } => "look at it, and do it again".to_owned(),
            Self::OnlyLatest { repository } => format!("set a version with it: `{repository}:VERSION`"),
            Self::Partial { .. } | Self::PartialTags { .. } => {
                "do it again: what is there is not sent again".to_owned()
            }
            Self::Document { .. } | Self::Nested { .. } => {
                "no tag was set; whoever made it can say what it is".to_owned()
            }
            Self::Named { .. } => "no tag was set; the registry or a proxy before it is damaged".to_owned(),
            Self::Referrers { .. } => {
                "no tag was set; `--referrers=false` copies without signatures and the like".to_owned()
            }
            Self::Platform { .. } => "name another platform, or copy all of it".to_owned(),
            Self::NoTag { .. } => "look at the tags that are there, or leave it out of the file".to_owned(),
            Self::Unpinned { .. } => "`cas sync plan FILE` pins it".to_owned(),
            Self::PackageFile { .. } => {
                "give it another version: whoever has fetched this one has something else".to_owned()
            }
            Self::PackageName { .. } => {
                "give it a `title` of letters, digits and `.`, `_`, `-`, `+` that no other file has".to_owned()
            }
            Self::NoFiles => "name an artifact that has `files`".to_owned(),
            Self::Runtime(_) => return None,
        })
    }

    /// What is known about an answer of a registry, at the first place that has such a one.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Registry(error) => error.advice(),
            other => other.failures().iter().find_map(|(_, failure)| failure.advice()),
        }
    }

    /// What went wrong at single places.
    #[must_use]
    pub fn failures(&self) -> &[(String, Box<Self>)] {
        match self {
            Self::Partial { failures, .. } | Self::PartialTags { failures, .. } => failures,
            _ => &[],
        }
    }
}
