//! Words in destinations, and what they stand for in a workspace.

use cas_build::{Workspace, commit_of, version_of};
use cas_config::Label;
use cas_sync::{TemplatePart, is_template, template_parts};

use crate::args::Global;
use crate::commands::{one_target, open_workspace, variables};
use crate::render::Failure;

/// Digits of `git.short`.
const SHORT_DIGITS: usize = 12;

/// Destinations of an image or artifact, with values in the place of words.
pub(crate) fn destinations(global: &Global, image: &str, texts: &[String]) -> Result<Vec<String>, Failure> {
    if !texts.iter().any(|text| is_template(text)) {
        return Ok(texts.to_vec());
    }
    let (workspace, package) = open_workspace(global)?;
    let label = one_target(&workspace, package.as_ref(), image)?;
    expanded(&workspace, &label, texts)
}

/// The same for a target.
pub(crate) fn expanded(workspace: &Workspace, label: &Label, texts: &[String]) -> Result<Vec<String>, Failure> {
    let variables = variables();
    let value = |word: &'static str| match word {
        "name" => Ok(label.name.to_string()),
        "version" => release(version_of(workspace, &variables, label)?),
        _ => match commit_of(workspace, &variables)? {
            (_, true) => {
                let message = format!("`{{{word}}}` would name a commit, and the working tree has changes beside it");
                Err(Failure::Usable(message, "commit them, or put them away".to_owned()))
            }
            (commit, false) if word == "git.short" => Ok(commit.chars().take(SHORT_DIGITS).collect()),
            (commit, false) => Ok(commit),
        },
    };
    let expanded = |text: &String| {
        let parts = template_parts(text).map_err(|error| Failure::Usable(error.to_string(), error.hint()))?;
        let told = |part| match part {
            TemplatePart::Text(text) => Ok(text.to_owned()),
            TemplatePart::Word(word) => value(word),
        };
        parts.into_iter().map(told).collect::<Result<String, Failure>>()
    };
    texts.iter().map(expanded).collect()
}

/// No tag of a registry has a `+`, and whatever stood in its place would make another version of it.
fn release(version: String) -> Result<String, Failure> {
    if version.contains('+') {
        let message = format!("`{{version}}` is `{version}`, which no tag of a registry can be");
        return Err(Failure::Usable(message, "tag this commit with a version, or use `{git.short}`".to_owned()));
    }
    Ok(version)
}
