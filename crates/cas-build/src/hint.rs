//! What the user can do about a failure.

use std::io;

use cas_fetch::FetchError;
use cas_fs::FsError;
use cas_sandbox::StartError;

use crate::BuildError;
use crate::error::quoted;
use crate::image_place::OtherArchive;

/// How much of a lane's name is shown: the digests in them are told apart by less.
const SHOWN_LANE: usize = 24;
/// How many platforms of an index are shown.
const MAX_PLATFORMS: usize = 32;
/// How many names a line to write has.
const MAX_NAMES: usize = 8;

impl BuildError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoWorkspace { .. } => "write a `cas.toml` with `[workspace]`, or use `-C FOLDER`".to_owned(),
            Self::Lock { source, .. } => source.hint().to_owned(),
            Self::LockStale { .. } => "run `cas lock` and commit `cas.lock`".to_owned(),
            Self::UnknownTarget { near: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::Image { source, .. } => {
                let OtherArchive { transport, place, .. } = source.downcast_ref()?;
                format!("it looks like an archive of the other kind: write `{transport}:{place}`")
            }
            Self::Platform { known, .. } if known.is_empty() => "it names no platform".to_owned(),
            Self::Platform { known, .. } => {
                let names = known.iter().take(MAX_PLATFORMS).map(|name| name.escape_debug().to_string());
                let more = if known.len() > MAX_PLATFORMS { ", and others" } else { "" };
                format!("it is for {}{more}", names.collect::<Vec<_>>().join(", "))
            }
            Self::WhichImage { known, .. } if known.is_empty() => "it holds no image with a tag".to_owned(),
            Self::WhichImage { known, .. } => {
                let known: Vec<String> = known.iter().take(MAX_NAMES).map(|name| quoted(name)).collect();
                format!("it has {}", known.join(", "))
            }
            Self::UnknownAccount { kind, name, .. } => {
                let file = if *kind == "user" { "/etc/passwd" } else { "/etc/group" };
                format!("write its number in place of `{name}`, or let the base or a layer up to this one have it in `{file}`")
            }
            Self::BlindLink { .. } => {
                "choose another `to`, or put a folder in place of the link in a layer of its own".to_owned()
            }
            Self::WhichOutput { known, .. } if known.is_empty() => "name a target that makes something".to_owned(),
            Self::WhichOutput { known, .. } => {
                let known = known.iter().take(MAX_NAMES).map(|path| format!("`path = {}`", quoted(path)));
                format!("say which: {}", known.collect::<Vec<_>>().join(", "))
            }
            Self::TwoTitles { .. } => "give one of them another `title`: it is the name of the file where it is pulled".to_owned(),
            Self::NoTitle { .. } => "write `title = \"…\"`".to_owned(),
            Self::ArtifactDestination { .. } => {
                "write it to `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]` or `dir:FOLDER`, which skopeo and oras read".to_owned()
            }
            Self::ForeignPlatform { .. } => {
                "let each layer be of files that are fetched, or build the image on a machine of that platform".to_owned()
            }
            Self::WhichPlatform { known, .. } => {
                let known: Vec<String> = known.iter().map(|name| format!("`--platform {name}`")).collect();
                format!("say which: {}", known.join(", "))
            }
            Self::Engine { program, .. } => {
                format!("install {program}, or go by an archive: `oci-archive:FILE` and `docker-archive:FILE` need no program")
            }
            Self::NotWritten { source, .. } => return place_hint(source).map(str::to_owned),
            Self::LayoutIndex { .. } => {
                "it would be replaced with all tags that it has: correct it, move it away, or name another folder".to_owned()
            }
            Self::LayoutLocked { .. } => "wait until it is done, and try again".to_owned(),
            Self::DocumentTooLong { .. } => {
                "let it say less: its labels, variables, annotations and history are in there, and those of its base".to_owned()
            }
            Self::LayerFormat { .. } => "write `format = \"oci\"`".to_owned(),
            Self::ImageGone { .. } => {
                "copy the image again, whole; where it was pinned, run `cas lock --update` to pin what is there now".to_owned()
            }
            Self::Registry(error) => return error.hint(),
            Self::PackageGone { .. } => "run `cas lock --update` to pin what the archive has now".to_owned(),
            Self::Mismatch { .. } => {
                "nothing was kept; the origin or a proxy changed the file, or the digest is wrong".to_owned()
            }
            Self::Debian { source, .. } => {
                let release = source.downcast_ref().and_then(cas_deb::ReleaseError::hint);
                return release.or_else(|| source.downcast_ref().and_then(cas_deb::ClosureError::hint));
            }
            Self::NoSuite { .. } => "correct `suite`, or name as `mirror` an archive that has it".to_owned(),
            Self::NoComponent { known, .. } if known.is_empty() => "the suite has nothing for this machine".to_owned(),
            Self::NoComponent { known, .. } => {
                let known: Vec<String> = known.iter().take(MAX_NAMES).map(|name| quoted(name)).collect();
                format!("it has {}", known.join(", "))
            }
            Self::Archive { source: FetchError::Offline { .. }, .. } => "build once without `--offline`".to_owned(),
            Self::Archive { .. } => {
                "try again later, or name as `mirror` an archive that can be reached; without it the one that the machine's \
                 apt uses counts, else Debian's own"
                    .to_owned()
            }
            Self::ToolchainFile { source, .. } => rights_hint(source)
                .unwrap_or("paths of a toolchain go from the folder of its `cas.toml` on")
                .to_owned(),
            Self::RootShape { path, .. } => format!(
                "steps have a `{}` of their own: take the one of the toolchain out of its image, packages or `add`",
                path.display()
            ),
            Self::Keyring { .. } => "it holds public keys of OpenPGP, as `gpg --export` writes them".to_owned(),
            Self::NoLane { label, known, .. } if known.is_empty() => format!("build it first: `cas build {label}`"),
            Self::NoLane { known, .. } => {
                let short = |lane: &String| format!("`{}`", lane.chars().take(SHOWN_LANE).collect::<String>());
                let known: Vec<String> = known.iter().map(short).collect();
                format!("there are builds in {}; the beginning of a name is enough", known.join(", "))
            }
            Self::NotRepeatable { .. } => {
                "look for times, random names, or an order of files or threads in what it writes".to_owned()
            }
            Self::Cycle { .. } => "`^name` goes by the dependencies in `package.json`, `deps` by labels".to_owned(),
            Self::NotIgnored { path, .. } => format!("add the line `/{path}` to `.gitignore` in the workspace's root"),
            Self::PlaceTracked { path, .. } => {
                format!("run `git rm -r --cached {path}` if it is not meant to be committed")
            }
            Self::InTheWay { is_folder: true, .. } => "remove or rename it".to_owned(),
            Self::InTheWay { is_folder: false, .. } => {
                "move away what is worth keeping; `cas checkout --force` replaces all that is at these places"
                    .to_owned()
            }
            Self::SameName { .. } => "rename one of them: `^name` and `node_modules` go by it".to_owned(),
            Self::RootConflict { .. } => "list toolchains that do not overlap, or make one of all packages".to_owned(),
            Self::HostMerged { .. } => "give the step this toolchain alone".to_owned(),
            Self::HostPath { .. } => "correct `paths` of its `host`".to_owned(),
            Self::Probe { .. } => "install the program, or correct `probe`".to_owned(),
            Self::Step { log, .. } | Self::Configure { log, .. } => {
                format!("the whole output is in `{}`", log.path.display())
            }
            Self::NotStarted { source, .. } => return source.hint(),
            Self::RootNotEntered { .. } => {
                "build it where `cas doctor` says that the sandbox works; a toolchain of `host` works here".to_owned()
            }
            Self::SecretsNotHeld { .. } => "build it where `cas doctor` says that the sandbox works".to_owned(),
            Self::OutputMissing { written, .. } if !written.is_empty() => format!("it made {written}"),
            Self::OutputMissing { .. } => "paths of `outputs` are relative to the package's folder".to_owned(),
            Self::Undeclared { names, .. } if names.is_empty() => {
                "a step writes into the folder of its own package alone".to_owned()
            }
            Self::Undeclared { names, .. } => {
                let names = names.iter().take(MAX_NAMES).map(|name| quoted(&name.to_string())).collect::<Vec<_>>();
                let names = names.join(", ");
                format!("add {names} to `outputs`, or to `scratch` if nobody needs what is there")
            }
            Self::TwoOwnVersions { .. } => "let them agree, or remove one".to_owned(),
            Self::NoVersion { .. } => {
                "write `version = \"1.4.0\"` into the package's `cas.toml`, or tag a commit `v1.4.0`".to_owned()
            }
            Self::SecretMissing { name, .. } => format!("set the variable `{name}`, or use `--secret {name}=FILE`"),
            Self::SecretSize { .. } => "a shorter one cannot be kept out of logs; give the whole value".to_owned(),
            Self::SecretLeft { .. } => "nothing of the step was kept; use the secret, and do not write it".to_owned(),
            Self::InputWritten { .. } => "write elsewhere, or name in `outputs` what the step makes".to_owned(),
            Self::Lockfile {
                source: cas_npm::LockfileError::Unmet { .. } | cas_npm::LockfileError::Stale { .. },
                path,
            } => format!("run `{}` and commit the lockfile", lock_command(path)),
            Self::Lockfile { source: cas_npm::LockfileError::PnpmVersion { .. }, path } => {
                format!("write it anew with a current pnpm: `{}`", lock_command(path))
            }
            Self::NoLockfile { path } => format!("make it with `{}`", lock_command(path)),
            Self::CargoLock { source, .. } => return source.hint().map(str::to_owned),
            Self::NotInRegistry { .. } => {
                "the configured registry may lack it, or it was removed; see what `.npmrc` or `.cargo/config.toml` name"
                    .to_owned()
            }
            Self::TwoVersions { .. } => "let the lockfile have one version of it, with `npm dedupe`".to_owned(),
            Self::NoManifest { .. } => "name the targets instead".to_owned(),
            Self::Snapshot(error) => return error.hint(),
            Self::Revision(error) => return error.hint(),
            Self::Fs(error) => return rights_hint(error).map(str::to_owned),
            Self::Members { .. } => "write folders from the root on, as `apps/*`; `**` is not one".to_owned(),
            Self::InputConflict { .. } => {
                "two of its `deps` make it: depend on one, or let them write elsewhere".to_owned()
            }
            Self::Project { source: cas_action::ProjectError::NotUtf8 { .. }, .. } => {
                "rename it, or leave it out with `inputs` or a .gitignore".to_owned()
            }
            Self::Unportable { .. } => "let the step write other names, or name a part of them in `scratch`".to_owned(),
            Self::Fetch(FetchError::Offline { .. }) => "build once without `--offline`".to_owned(),
            Self::UnknownImage { .. } => "`cas image ls` lists those that are there".to_owned(),
            Self::VolumePlace { .. } => "show it at another path of the image".to_owned(),
            Self::VolumeKind { .. } => "a volume covers what is like it: a folder, or a file; choose another path of the image".to_owned(),
            Self::NotRunnable { name, .. } => format!(
                "build the image without it, or let another program run it: `cas image export {name} docker-daemon:NAME:TAG`"
            ),
            Self::ImageNotStarted { name, source } => return not_started(name, source),
            Self::NoCheck { .. } => "leave `--health-exit` out, or build it with `healthcheck` in `config`".to_owned(),
            Self::VolumesMeet { .. } => "show one of them at another path of the image".to_owned(),
            Self::User { .. } => "write numbers, which need no line there: `--user 1000:1000`".to_owned(),
            Self::NoCommand { .. } => "give one: `cas run IMAGE -- COMMAND`".to_owned(),
            Self::Sandbox(error) => return error.hint().map(|hint| hint.to_string()),
            Self::Store(error) | Self::Keep { source: error, .. } => return error.hint().map(str::to_owned),
            Self::Log(error) if error.kind() == io::ErrorKind::StorageFull => {
                "make room on the disk of the store, where steps write: `cas store gc --max-size SIZE`".to_owned()
            }
            _ => return None,
        })
    }
}

/// What to do where the system refuses.
fn rights_hint(error: &FsError) -> Option<&'static str> {
    match error.source.kind() {
        io::ErrorKind::PermissionDenied => Some("give this user the right to it, with `chmod` or `chown`"),
        io::ErrorKind::ReadOnlyFilesystem => Some(
            "a build writes `cas-out/` and `cas.lock` in the workspace: work in a folder or copy that can be written to",
        ),
        _ => None,
    }
}

/// What to do where something that was asked for cannot be.
fn place_hint(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind::{
        AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    match error.kind() {
        StorageFull | QuotaExceeded => Some("make room there, or name a place on another disk"),
        PermissionDenied => Some("give this user the right to it, with `chmod` or `chown`, or name another place"),
        ReadOnlyFilesystem => Some("nothing can be written on that disk: name another place"),
        AlreadyExists | InvalidInput | IsADirectory | NotADirectory | NotFound => Some("name another place"),
        _ => None,
    }
}

/// The command that writes a lockfile.
fn lock_command(path: &str) -> &'static str {
    match path.rsplit('/').next() {
        Some("pnpm-lock.yaml") => "pnpm install --lockfile-only",
        Some("Cargo.lock") => "cargo generate-lockfile",
        _ => "npm install --package-lock-only",
    }
}

/// What can be done about a program of an image that did not start.
fn not_started(name: &str, error: &StartError) -> Option<String> {
    Some(match error {
        StartError::NotFound { program } if program.as_encoded_bytes().contains(&b'/') => {
            format!("`{}` is not in `{name}`: name a program that is, or add it to a layer", program.display())
        }
        StartError::NotFound { program } => {
            format!("`{}` is in no folder of `PATH` in `{name}`: write its whole path", program.display())
        }
        StartError::NotExecutable { .. } => {
            "give it the right in its layer: `mode = \"0755\"`, or run it by its interpreter".to_owned()
        }
        StartError::InterpreterMissing { .. } => {
            "add the interpreter, or the C library that the program is linked against, to the image".to_owned()
        }
        StartError::WorkingDirectory { .. } => "choose another one with `--workdir`".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_under_a_log_is_the_store_s() {
        let log = |kind: io::ErrorKind| BuildError::Log(kind.into()).hint();
        assert!(log(io::ErrorKind::StorageFull).is_some_and(|hint| hint.contains("cas store gc")));
        assert_eq!(log(io::ErrorKind::BrokenPipe), None);
    }
}
