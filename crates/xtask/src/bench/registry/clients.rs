//! The programs that move images, and how each is told to.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Bench;
use super::super::image::peers::{first_line, is_there};
use crate::judges::go;
use crate::peers;
use crate::run::Failure;

/// Modules of Go with their programs, pinned.
const CRANE: (&str, &str) = ("github.com/google/go-containerregistry/cmd/crane", "v0.22.1");
const REGCTL: (&str, &str) = ("github.com/regclient/regclient/cmd/regctl", "v0.11.7");
const REGSYNC: (&str, &str) = ("github.com/regclient/regclient/cmd/regsync", "v0.11.7");

/// Where an image is.
pub(super) enum Place<'a> {
    /// A built target of the workspace here.
    Target(&'a Path),
    Layout(&'a Path),
    Registry(&'a str),
}

/// A program that moves images.
pub(super) enum Client {
    Cas { program: PathBuf, store: PathBuf },
    Skopeo,
    Crane(PathBuf),
    Regctl { program: PathBuf, regsync: PathBuf },
}

impl Client {
    /// Those that are here or can be had; cas is the first.
    pub(super) fn known(bench: &Bench) -> Result<Vec<Self>, Failure> {
        let mut known = vec![Self::Cas { program: bench.cas.clone(), store: bench.folder.join("store") }];
        if is_there("skopeo") {
            known.push(Self::Skopeo);
        }
        if let Some(go) = go() {
            known.push(Self::Crane(peers::from_go(&go, CRANE)?));
            known.push(Self::Regctl { program: peers::from_go(&go, REGCTL)?, regsync: peers::from_go(&go, REGSYNC)? });
        }
        Ok(known)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Cas { .. } => "cas",
            Self::Skopeo => "skopeo",
            Self::Crane(_) => "crane",
            Self::Regctl { .. } => "regctl",
        }
    }

    pub(super) fn is_cas(&self) -> bool {
        matches!(self, Self::Cas { .. })
    }

    pub(super) fn version(&self) -> String {
        match self {
            Self::Cas { program, .. } => first_line(&program.display().to_string()),
            Self::Skopeo => first_line("skopeo"),
            Self::Crane(_) => format!("crane {}", CRANE.1),
            Self::Regctl { .. } => format!("regctl and regsync {}", REGCTL.1),
        }
    }

    /// Brings an image from one place to another.
    pub(super) fn command(&self, from: &Place<'_>, to: &Place<'_>) -> Command {
        match self {
            Self::Cas { program, store } => {
                let mut command = Command::new(program);
                command.arg("--store").arg(store);
                match from {
                    Place::Target(workspace) => command.args(["push", ":i"]).current_dir(workspace),
                    Place::Layout(layout) => command.arg("copy").arg(format!("oci:{}:v1", layout.display())),
                    Place::Registry(name) => command.args(["copy", name]),
                };
                command.arg(match to {
                    Place::Target(place) | Place::Layout(place) => format!("oci:{}:v1", place.display()),
                    Place::Registry(name) => (*name).to_owned(),
                });
                command.env_remove("CI");
                command
            }
            Self::Skopeo => {
                let word = |place: &Place<'_>| match place {
                    Place::Target(place) | Place::Layout(place) => format!("oci:{}:v1", place.display()),
                    Place::Registry(name) => format!("docker://{name}"),
                };
                let mut command = Command::new("skopeo");
                command.args(["--insecure-policy", "copy", "--quiet", "--preserve-digests"]);
                command.args(["--src-tls-verify=false", "--dest-tls-verify=false", &word(from), &word(to)]);
                command
            }
            Self::Crane(program) => {
                let mut command = Command::new(program);
                match (from, to) {
                    (Place::Registry(from), Place::Registry(to)) => command.args(["copy", from, to]),
                    (Place::Registry(from), Place::Target(to) | Place::Layout(to)) => {
                        command.args(["pull", "--format=oci", from]).arg(to)
                    }
                    (Place::Target(from) | Place::Layout(from), Place::Registry(to)) => {
                        command.arg("push").arg(from).arg(to)
                    }
                    (_, Place::Target(to) | Place::Layout(to)) => command.arg("help").arg(to),
                };
                command
            }
            Self::Regctl { program, .. } => {
                let mut command = Command::new(program);
                let word = |place: &Place<'_>| match place {
                    Place::Target(place) | Place::Layout(place) => format!("ocidir://{}:v1", place.display()),
                    Place::Registry(name) => (*name).to_owned(),
                };
                for place in [from, to] {
                    if let Place::Registry(name) = place {
                        let host = name.split('/').next().unwrap_or_default();
                        command.arg("--host").arg(format!("reg={host},tls=disabled"));
                    }
                }
                command.args(["image", "copy", &word(from), &word(to)]);
                command
            }
        }
    }
}
