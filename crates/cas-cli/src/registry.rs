//! `cas registry probe`: what a live registry does, beside what is known of it.

use std::collections::BTreeMap;

use cas_oci::{Reference, Repository};
use cas_registry::{Finding, Hosted};
use cas_sync::SyncError;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::{Format, Global};
use crate::commands::{cancel_on_signals, logins, text};
use crate::exit::Exit;
use crate::render::{self, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Ask a registry what it supports, and compare that with what is known of it
    ///
    /// Without a repository: whether it is one, and who gives tokens. With one: tags, documents, parts of blobs, what refers to a manifest.
    /// Nothing is written without `--write`. A line whose host is known for something else is marked, and ends it with 1, as no answer
    /// does. Credentials are those of docker and podman, and are never shown.
    Probe(ProbeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// The registry, `HOST` or `HOST/REPOSITORY`
    place: String,
    /// Write into the repository, too: small blobs and two manifests without tags, which are deleted again where that is allowed
    #[arg(long)]
    write: bool,
    /// Whose registry it is, where its name does not tell: `ghcr`, `gitlab`, `docker-hub`, `ecr`, `artifactory`, `quay`, `harbor`, `nexus`, `google`
    #[arg(long = "as", value_name = "WHOSE", value_parser = parse_hosted)]
    hosted: Option<Hosted>,
}

fn parse_hosted(text: &str) -> Result<Hosted, String> {
    let found = Hosted::ALL.into_iter().filter(|hosted| *hosted != Hosted::Others).find(|hosted| hosted.word() == text);
    found.ok_or_else(|| "nothing is known of it".to_owned())
}

pub(crate) fn run(global: &Global, command: &RegistryCommand) -> Result<Exit, Failure> {
    let RegistryCommand::Probe(args) = command;
    let repository = place(&args.place)?;
    if args.write && repository.path.is_empty() {
        let hint = format!("`{}/NAME`, one where nothing is lost", repository.host);
        return Err(Failure::Usable("`--write` needs a repository".to_owned(), hint));
    }
    let hosted = args.hosted.or_else(|| Hosted::of_host(&repository.host));
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), BTreeMap::new());
    let findings = match cas_sync::probe(&client, &repository, hosted, args.write) {
        Ok(findings) => findings,
        Err(SyncError::Registry(error)) if !signals.0.is_cancelled() => {
            let mut words = vec![error.to_string()];
            let mut cause = std::error::Error::source(&error);
            while let Some(next) = cause {
                words.push(next.to_string());
                cause = next.source();
            }
            let finding = Finding { line: "api", found: format!("no answer: {}", words.join(": ")), expected: None };
            print(global, &[finding], Exit::Failed)?;
            return Ok(Exit::Failed);
        }
        Err(SyncError::Registry(error)) => return Err(error.into()),
        Err(other) => return Err(Failure::Sync(other)),
    };
    let exit = if findings.iter().any(Finding::differs) { Exit::Failed } else { Exit::Done };
    print(global, &findings, exit)?;
    match hosted {
        Some(hosted) => render::note(&format!("compared with what is known of {hosted}")),
        None => render::note("nothing is known of this host; `--as` says whose it is"),
    }
    Ok(exit)
}

/// A table, or a row of JSON for each line.
fn print(global: &Global, findings: &[Finding], exit: Exit) -> Result<(), Failure> {
    let rows: Vec<Value> = findings.iter().map(row).collect();
    match global.format {
        Format::Json => render::lines([json!({ "exit": exit.word(), "results": rows }).to_string()]),
        Format::Text => {
            let width = findings.iter().map(|finding| finding.line.len()).max().unwrap_or(0);
            let line = |row: &Value| {
                let told = match row["row"].as_str() {
                    Some(name) if row["differs"] == true => format!("  DIFFERS: {} ({name})", text(&row["expected"])),
                    Some(name) => format!("  as known ({name})"),
                    None => String::new(),
                };
                format!("{:width$}  {}{told}", text(&row["line"]), text(&row["found"]))
            };
            render::lines(rows.iter().map(line))
        }
    }
}

fn row(finding: &Finding) -> Value {
    let mut row = json!({ "line": finding.line, "found": finding.found });
    if let Some((name, value)) = finding.expected {
        row["row"] = json!(name);
        row["expected"] = json!(value);
        row["differs"] = json!(finding.differs());
    }
    row
}

/// A host, or a host and a repository.
fn place(text: &str) -> Result<Repository, Failure> {
    let name = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
    let is_host = !name.contains('/');
    let whole = if is_host { format!("{name}/x:x") } else { format!("{name}:x") };
    let repository = whole.parse::<Reference>().map(|parsed| parsed.repository).map_err(|_| {
        // What stands before an `@` may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let hint = "write `HOST` or `HOST/REPOSITORY`, without a tag";
        Failure::Usable(format!("`{shown}` is no registry or repository"), hint.to_owned())
    })?;
    Ok(if is_host { Repository { path: String::new(), ..repository } } else { repository })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_and_repositories() {
        for (text, expected) in [
            ("ghcr.io", Some(("ghcr.io", ""))),
            ("ghcr.io/", Some(("ghcr.io", ""))),
            ("docker://ghcr.io/acme/web", Some(("ghcr.io", "acme/web"))),
            ("localhost:5000/a", Some(("localhost:5000", "a"))),
            ("ghcr.io/acme/web:1", None),
            ("me:s3cret@ghcr.io", None),
            ("ghcr", None),
        ] {
            let found = place(text);
            assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
            let found = found.ok().map(|found| (found.host, found.path));
            assert_eq!(found.as_ref().map(|(host, path)| (&**host, &**path)), expected, "{text}");
        }
    }

    #[test]
    fn every_registry_has_a_word() {
        for hosted in Hosted::ALL {
            assert_eq!(parse_hosted(&hosted.word()).is_ok(), hosted != Hosted::Others, "{hosted}");
        }
    }
}
