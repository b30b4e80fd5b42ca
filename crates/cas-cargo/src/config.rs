//! `config.toml` of cargo, as far as it says where crates come from (The Cargo Book, "Source Replacement", "Configuration").

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::CRATES_IO;

/// Longest file that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Most sources that replace each other.
const MAX_REPLACEMENTS: usize = 16;
/// Name of the registry crates.io in configuration.
const CRATES_IO_NAME: &str = "crates-io";
/// Name of the source that stands for all others in a step.
const OWN_NAME: &str = "cas";

/// A file of configuration.
#[derive(Clone, Debug, Default)]
pub struct CargoConfig {
    table: Table,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CargoConfigError {
    /// It is longer than any real one.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It is not TOML.
    #[error("it is not TOML")]
    Syntax(#[from] toml::de::Error),
    /// It cannot be written again.
    #[error("it cannot be written with other sources")]
    Write(#[from] toml::ser::Error),
}

/// Why the index of a registry is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Its index is in git.
    #[error("the index `{url}` of the registry `{registry}` is in git; only sparse ones can be read")]
    Git {
        /// The registry, as the lockfile names it.
        registry: String,
        /// The index.
        url: String,
    },
    /// The configuration replaces it by something else.
    #[error("configuration replaces the registry `{registry}` by the source `{name}`, which is no registry")]
    Kind {
        /// The registry, as the lockfile names it.
        registry: String,
        /// The source.
        name: String,
    },
    /// The configuration names a source that it does not have.
    #[error("configuration replaces the registry `{registry}` by the source `{name}`, which it does not have")]
    Unknown {
        /// The registry, as the lockfile names it.
        registry: String,
        /// The source.
        name: String,
    },
    /// Sources replace each other in a circle.
    #[error("configuration replaces the registry `{registry}` in a circle")]
    Circle {
        /// The registry, as the lockfile names it.
        registry: String,
    },
}

impl CargoConfig {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`CargoConfigError`]
    pub fn parse(text: &str) -> Result<Self, CargoConfigError> {
        if text.len() > MAX_BYTES {
            return Err(CargoConfigError::TooLong);
        }
        Ok(Self { table: toml::from_str(text)? })
    }

    /// The text at `section.name.key`.
    fn text(&self, section: &str, name: &str, key: &str) -> Option<&str> {
        self.table.get(section)?.get(name)?.get(key)?.as_str()
    }

    /// The file with `directory` in the place of every registry, and without any other source; the rest stays.
    ///
    /// # Errors
    ///
    /// [`CargoConfigError::Write`]
    pub fn with_directory(&self, registries: &BTreeSet<&str>, directory: &str) -> Result<String, CargoConfigError> {
        let one = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::String((*value).to_owned())));
            Value::Table(pairs.collect())
        };
        let mut sources = Table::new();
        sources.insert(OWN_NAME.to_owned(), one(&[("directory", directory)]));
        sources.insert(CRATES_IO_NAME.to_owned(), one(&[("replace-with", OWN_NAME)]));
        for registry in registries.iter().filter(|registry| **registry != CRATES_IO) {
            // An index in git is named by its address alone.
            let address = registry.strip_prefix("registry+").unwrap_or(registry);
            sources.insert((*registry).to_owned(), one(&[("registry", address), ("replace-with", OWN_NAME)]));
        }
        let mut table = self.table.clone();
        table.insert("source".to_owned(), Value::Table(sources));
        Ok(toml::to_string(&table)?)
    }
}

/// Address of the sparse index of a registry, without a slash at its end: what configuration puts in its place, or its own.
///
/// `configs` are from the nearest to the farthest; `default` is the index of crates.io.
///
/// # Errors
///
/// [`IndexError`]
pub fn index_of(configs: &[CargoConfig], registry: &str, default: &str) -> Result<String, IndexError> {
    let address = registry.strip_prefix("registry+").unwrap_or(registry);
    let look = |section: &str, name: &str, key: &str| configs.iter().find_map(|config| config.text(section, name, key));
    let mut name = if registry == CRATES_IO {
        Some(CRATES_IO_NAME.to_owned())
    } else {
        // A source that has this registry, whatever its name.
        let tables = configs.iter().filter_map(|config| config.table.get("source")?.as_table());
        tables
            .flatten()
            .find(|(_, source)| source.get("registry").and_then(Value::as_str) == Some(address))
            .map(|(name, _)| name.clone())
    };
    let mut index = address.to_owned();
    for _ in 0..MAX_REPLACEMENTS {
        let Some(current) = name.take() else { return sparse(registry, &index, default) };
        if let Some(other) = look("source", &current, "replace-with") {
            name = Some(other.to_owned());
            continue;
        }
        let found = look("source", &current, "registry").or_else(|| look("registries", &current, "index"));
        index = match found {
            Some(found) => found.to_owned(),
            None if current == CRATES_IO_NAME => return Ok(default.to_owned()),
            None => {
                let is_there = configs.iter().any(|config| {
                    config.table.get("source").is_some_and(|sources| sources.get(current.as_str()).is_some())
                });
                let registry = registry.to_owned();
                return Err(match is_there {
                    true => IndexError::Kind { registry, name: current },
                    false => IndexError::Unknown { registry, name: current },
                });
            }
        };
    }
    Err(IndexError::Circle { registry: registry.to_owned() })
}

fn sparse(registry: &str, index: &str, default: &str) -> Result<String, IndexError> {
    match index.strip_prefix("sparse+") {
        Some(address) => Ok(address.trim_end_matches('/').to_owned()),
        // The old index of crates.io has the same crates as the new one.
        None if CRATES_IO.strip_prefix("registry+") == Some(index) => Ok(default.to_owned()),
        None => Err(IndexError::Git { registry: registry.to_owned(), url: index.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(texts: &[&str]) -> Vec<CargoConfig> {
        texts.iter().map(|text| CargoConfig::parse(text).expect("it is TOML")).collect()
    }

    fn index(texts: &[&str], registry: &str) -> Result<String, String> {
        index_of(&configs(texts), registry, "https://default").map_err(|error| error.to_string())
    }

    #[test]
    fn configuration_says_where_crates_come_from() {
        let mirror = "[source.crates-io]\nreplace-with = \"m\"\n[source.m]\nregistry = \"sparse+https://m/i/\"\n";
        let chain = "[source.crates-io]\nreplace-with = \"a\"\n[source.a]\nreplace-with = \"b\"\n";
        let named = "[registries.b]\nindex = \"sparse+https://b/\"\n";
        let other = "[source.x]\nregistry = \"sparse+https://x/\"\nreplace-with = \"b\"\n";
        for (texts, registry, expected) in [
            (&[][..], CRATES_IO, Ok("https://default")),
            (&[mirror], CRATES_IO, Ok("https://m/i")),
            (&["", mirror], CRATES_IO, Ok("https://m/i")),
            // The nearest file counts, key by key.
            (&["[source.m]\nregistry = \"sparse+https://near/\"\n", mirror], CRATES_IO, Ok("https://near")),
            (&[chain, named], CRATES_IO, Ok("https://b")),
            (&[], "sparse+https://x/", Ok("https://x")),
            (&[other, named], "sparse+https://x/", Ok("https://b")),
            (
                &["[source.crates-io]\nregistry = \"https://github.com/rust-lang/crates.io-index\"\n"],
                CRATES_IO,
                Ok("https://default"),
            ),
            (
                &[],
                "registry+https://g/i",
                Err(
                    "the index `https://g/i` of the registry `registry+https://g/i` is in git; only sparse ones can be read",
                ),
            ),
            (
                &["[source.crates-io]\nreplace-with = \"v\"\n[source.v]\ndirectory = \"vendor\"\n"],
                CRATES_IO,
                Err(
                    "configuration replaces the registry `registry+https://github.com/rust-lang/crates.io-index` by the source `v`, which is no registry",
                ),
            ),
            (
                &[chain],
                CRATES_IO,
                Err(
                    "configuration replaces the registry `registry+https://github.com/rust-lang/crates.io-index` by the source `b`, which it does not have",
                ),
            ),
            (
                &[chain, "[source.b]\nreplace-with = \"a\"\n"],
                CRATES_IO,
                Err(
                    "configuration replaces the registry `registry+https://github.com/rust-lang/crates.io-index` in a circle",
                ),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(index(texts, registry), expected, "{texts:?} {registry}");
        }
    }

    #[test]
    fn one_folder_takes_the_place_of_every_registry() {
        let text = "[build]\nrustflags = [\"-Dwarnings\"]\n[source.crates-io]\nreplace-with = \"m\"\n[source.m]\nregistry = \"sparse+https://m/\"\n[registries.x]\nindex = \"sparse+https://x/\"\n";
        let config = CargoConfig::parse(text).expect("it is TOML");
        let written = config.with_directory(&BTreeSet::from([CRATES_IO, "sparse+https://x/"]), "../crates");
        let expected = "[build]\nrustflags = [\"-Dwarnings\"]\n\n[registries.x]\nindex = \"sparse+https://x/\"\n\n\
            [source.cas]\ndirectory = \"../crates\"\n\n[source.crates-io]\nreplace-with = \"cas\"\n\n\
            [source.\"sparse+https://x/\"]\nregistry = \"sparse+https://x/\"\nreplace-with = \"cas\"\n";
        assert_eq!(written.expect("it can be written"), expected);
    }
}
