//! The command line of what is done with registries: pushes, copies, pulls, tags, logins.

use std::path::PathBuf;

use cas_sync::PushOptions;
use clap::Args;

use crate::args::{InputArgs, parse_platform};

#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    /// Image or artifact: a target as `:name` or `//package:name`, or what is in the store by name
    pub(crate) image: String,
    /// Where to: `HOST/NAME:TAG`, or `HOST/NAME` for no tag; `{version}`, `{git.sha}`, `{git.short}` and `{name}` are those of the target.
    /// The files of an artifact go to `gitlab-generic://HOST/PROJECT/PACKAGE/VERSION`, too
    #[arg(required = true)]
    pub(crate) destinations: Vec<String>,
    /// Send what a rebuild needs beside it: whoever may pull it may then read its sources
    ///
    /// That is what `cas provenance` names: sources, packages, and what steps see. `cas pull --with-inputs` brings it back.
    #[arg(long)]
    pub(crate) with_inputs: bool,
    #[command(flatten)]
    pub(crate) tags: MoveArgs,
    #[command(flatten)]
    pub(crate) input: InputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// Where from: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`; `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME:TAG]`
    /// or `dir:FOLDER`
    pub(crate) source: String,
    /// Where to: `HOST/NAME:TAG`, or `HOST/NAME` for no tag; a place on this machine as for `image export`
    #[arg(required = true)]
    pub(crate) destinations: Vec<String>,
    /// Of several platforms the one for this alone, as `linux/arm64/v8` [default: all of them, under their index]
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = parse_platform)]
    pub(crate) platform: Option<cas_oci::TargetPlatform>,
    /// Whether signatures and other manifests that refer to it come along; those that are tags alone are copied by their tags
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub(crate) referrers: bool,
    #[command(flatten)]
    pub(crate) tags: MoveArgs,
}

#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// What to bring here: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`; several at once
    #[arg(required = true)]
    pub(crate) sources: Vec<String>,
    /// What it is called in the store, `NAME:TAG` in small letters, in place of what had the name before [default: the name in the
    /// registry]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Of several platforms the one for this, as `linux/arm64/v8` [default: that of this machine]
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = parse_platform)]
    pub(crate) platform: Option<cas_oci::TargetPlatform>,
    /// All platforms, under their index
    #[arg(long, conflicts_with = "platform")]
    pub(crate) all: bool,
    /// Bring what a rebuild needs as well, where it was pushed with `--with-inputs`
    #[arg(long)]
    pub(crate) with_inputs: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// What gets the tags: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`
    pub(crate) source: String,
    /// The tags, alone
    #[arg(required = true)]
    pub(crate) new: Vec<String>,
    #[command(flatten)]
    pub(crate) tags: MoveArgs,
}

/// What becomes of tags that are there.
#[derive(Args, Debug)]
pub(crate) struct MoveArgs {
    /// A tag that may be moved, if it is no version and no commit; can be given several times
    ///
    /// The tag is looked at and then written, by two requests: registries have no way to do both at once. What others write in
    /// between is lost.
    #[arg(long, value_name = "TAG")]
    pub(crate) move_tag: Vec<String>,
    /// Look at what is there, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// The registry, as names of images have it: `ghcr.io`, `docker.io`, `localhost:5000`
    pub(crate) host: String,
    /// The account [default: asked for]
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Take the password or token from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// The file of logins [default: `$REGISTRY_AUTH_FILE`, else that of podman]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// The registry, as for `login`
    pub(crate) host: String,
    /// The file of logins [default: all that are read]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

impl MoveArgs {
    /// What a push makes of it.
    pub(crate) fn options(&self) -> PushOptions {
        PushOptions { moved: self.move_tag.iter().cloned().collect(), is_dry: self.dry_run, ..PushOptions::default() }
    }
}
