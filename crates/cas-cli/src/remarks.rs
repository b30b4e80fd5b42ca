//! What is said of a workspace before it is built: things that are allowed, and seldom meant.

use std::collections::BTreeMap;

use cas_build::Workspace;
use cas_config::{ImageFormat, Label, TargetKind, is_secret_like};

use crate::render;

/// Tells of variables that look like secrets and are handed to steps, or put into images, as if they were none.
pub(crate) fn tell(workspace: &Workspace) {
    for (label, target) in workspace.targets() {
        let TargetKind::Image(image) = &target.kind else { continue };
        for name in image.config.env.keys().filter(|name| is_secret_like(name)) {
            render::note(&format!(
                "warning: `{name}` looks like a secret, and whoever has the image `{label}` can read it"
            ));
            render::note("hint: give it to the container when it is started, in place of `env` of `config`");
        }
    }
    if let Some(label) = unheard_check(workspace) {
        render::note(&format!(
            "warning: `{label}` has a `healthcheck` and the format of OCI, which knows none: podman leaves it out"
        ));
        render::note("hint: write `format = \"docker\"`");
    }
    for (name, labels) in exposed(workspace) {
        let more = match labels.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        let first = &labels[0];
        render::note(&format!(
            "warning: `{name}` looks like a secret, and is part of the key of `{first}`{more}: it is kept in the store in plain text"
        ));
        render::note(&format!(
            "hint: name it in `secrets` of the step, instead of `env` or `env_in`: `secrets = [\"{name}\"]`"
        ));
    }
}

/// The first image whose check some engines do not look at.
fn unheard_check(workspace: &Workspace) -> Option<Label> {
    let mut targets = workspace.targets();
    targets.find_map(|(label, target)| match &target.kind {
        TargetKind::Image(image) if image.config.healthcheck.is_some() && image.format == ImageFormat::Oci => {
            Some(label)
        }
        _ => None,
    })
}

/// Those variables, each with the steps that get it.
fn exposed(workspace: &Workspace) -> BTreeMap<String, Vec<Label>> {
    let mut found: BTreeMap<String, Vec<Label>> = BTreeMap::new();
    for (label, target) in workspace.targets() {
        let (TargetKind::Command(step) | TargetKind::Test(step)) = &target.kind else { continue };
        let names = step.env.keys().map(String::as_str).chain(step.env_in.iter().map(|name| &**name));
        for name in names.filter(|name| is_secret_like(name)) {
            let labels = found.entry(name.to_owned()).or_default();
            if labels.last() != Some(&label) {
                labels.push(label.clone());
            }
        }
    }
    found
}
