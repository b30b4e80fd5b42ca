//! What is said of a workspace before it is built, and of images once they are: things that are allowed, and seldom meant.

use std::collections::BTreeMap;

use cas_analyze::{Place, told_secrets};
use cas_build::{Image, Workspace};
use cas_config::{Label, TargetKind, is_secret_like};
use cas_oci::{ImageFormat, MAX_DOCUMENT_BYTES};
use cas_store::Store;
use serde_json::Value;

use crate::analyze::GUESSES;
use crate::render;

/// Docker's clients take no more, and neither does overlayfs with names of usual length.
const MOST_LAYERS: usize = 127;

/// Tells of variables that look like secrets and are handed to steps as if they were none.
pub(crate) fn tell(workspace: &Workspace) {
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

/// Tells of images that were made, with all that they took over from what is below: more layers than engines take, variables that look
/// like secrets, and checks that are not looked at.
pub(crate) fn tell_images<'a>(store: &Store, images: impl IntoIterator<Item = &'a Image>) {
    for image in images {
        for remark in of_image(store, image) {
            render::note(&format!("warning: {}", remark.what));
            render::note(&format!("hint: {}", remark.hint));
        }
    }
}

/// What is said of an image, in this order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Remark {
    what: String,
    hint: &'static str,
}

fn of_image(store: &Store, image: &Image) -> Vec<Remark> {
    let label = &image.reference;
    let platforms = image.index.as_ref().map_or(std::slice::from_ref(image), |index| &index.images);
    let mut remarks = Vec::new();
    let mut add = |what: String, hint| {
        let remark = Remark { what, hint };
        // What is true of one platform mostly is of all.
        if !remarks.contains(&remark) {
            remarks.push(remark);
        }
    };
    for image in platforms {
        let count = image.layers.len();
        if count > MOST_LAYERS {
            let what = format!("`{label}` has {count} layers, and engines take at most {MOST_LAYERS}");
            add(what, "write fewer entries of `layers`, or a smaller `max_layers` where its base is made");
        }
        // What cannot be read is told by whoever needs it.
        let document = store.load(&image.config, MAX_DOCUMENT_BYTES).ok();
        let config: Value = document.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        for secret in told_secrets(&config, &GUESSES).iter().filter(|secret| secret.place == Place::Variable) {
            let name = &secret.name;
            let what = format!("`{name}` looks like a secret, and whoever has the image `{label}` can read it");
            add(what, "give it to the container when it is started, in place of `env` of `config`");
        }
        let check = config["config"]["Healthcheck"]["Test"].as_array();
        let has_check = check.is_some_and(|words| !words.is_empty() && words[0] != "NONE");
        if has_check && image.format == ImageFormat::Oci {
            let what =
                format!("`{label}` has a `healthcheck` and the format of OCI, which knows none: podman leaves it out");
            add(what, "write `format = \"docker\"`");
        }
    }
    remarks
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
