//! `cargo xtask test --peers images`: layers before the libraries that clients of images are made of; `--peers registry`: the
//! registry before the conformance program of the OCI; `--peers signing`: signatures before cosign, and before the library of podman and skopeo.
//!
//! They are in Go, which not every machine has, and not always a new one; so this is a tier of its own, and says what it skips.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Failure, workspace};
use crate::{arch, peers, test};

/// What the libraries need at least.
const GO: (u32, u32) = (1, 26);
/// A client of registries, whose version `go.mod` pins too; its program is `crane`.
const CRANE: &str = "github.com/google/go-containerregistry/cmd/crane";
const CRANE_VERSION: &str = "v0.22.1";
/// What the OCI judges registries with, and clients and registries of others, each in a variable of the tests;
/// docs/interop/registry.md has what they said.
const REGISTRY_PEERS: [(&str, &str, &str); 5] = [
    (
        "CAS_CONFORMANCE",
        "github.com/opencontainers/distribution-spec/conformance",
        "v0.0.0-20260831232431-97274622c111",
    ),
    ("CAS_CRANE", CRANE, CRANE_VERSION),
    ("CAS_REGCTL", "github.com/regclient/regclient/cmd/regctl", "v0.11.7"),
    ("CAS_ORAS", "oras.land/oras/cmd/oras", "v1.3.6"),
    ("CAS_DISTRIBUTION", "github.com/distribution/distribution/v3/cmd/registry", "v3.1.2"),
];
/// Versions of cosign, of which docs/interop/signing.md has what each does.
const COSIGN: [(&str, &str); 3] = [("v2", "v2.6.5"), ("v3", "v3.0.6"), ("v3", "v3.1.3")];
/// Leaves out what needs C libraries.
const TAGS: &str = "-tags=containers_image_openpgp,exclude_graphdriver_btrfs,exclude_graphdriver_devicemapper";

/// Runs the tests of a group of peers, or of all; whether none failed.
pub(crate) fn run(group: &str) -> Result<bool, Failure> {
    match group {
        "images" => images(),
        "arch" => arch::run(),
        "registry" => registry(),
        "signing" => signing(),
        "all" => Ok([images()?, arch::run()?, registry()?, signing()?].into_iter().all(|success| success)),
        _ => Err(format!(
            "there is no group `{group}` of peers: `images`, `arch`, `registry` and `signing` are, `all` is every one"
        )
        .into()),
    }
}

fn images() -> Result<bool, Failure> {
    let arguments = ["test", "--test", "peers", "--locked", "--", "--ignored", "--nocapture", "layers::"];
    let Some(go) = go() else {
        println!("SKIPPED: the judges of layers need Go {}.{}", GO.0, GO.1);
        return Ok(true);
    };
    let program = build(&go)?;
    let (success, passed) = test::run_with(&arguments, &[("CAS_JUDGE", program.as_os_str())])?;
    if passed == 0 && success { Err("no judge was asked".into()) } else { Ok(success) }
}

/// The registry before the conformance program of the OCI.
fn registry() -> Result<bool, Failure> {
    let Some(go) = go() else {
        println!("SKIPPED: the judge of registries needs Go {}.{}", GO.0, GO.1);
        return Ok(true);
    };
    let programs = REGISTRY_PEERS
        .iter()
        .map(|(variable, package, version)| Ok((*variable, peers::from_go(&go, (package, version))?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let variables: Vec<(&str, &OsStr)> = programs.iter().map(|(name, path)| (*name, path.as_os_str())).collect();
    let arguments = ["test", "--test", "peers", "--locked", "--", "--ignored", "--nocapture", "registr"];
    let (success, passed) = test::run_with(&arguments, &variables)?;
    if passed == 0 && success { Err("no judge of registries was asked".into()) } else { Ok(success) }
}

/// Signatures before cosign, each version in a folder of its own.
fn signing() -> Result<bool, Failure> {
    let Some(go) = go() else {
        println!("SKIPPED: cosign needs Go {}.{}", GO.0, GO.1);
        return Ok(true);
    };
    let mut programs = Vec::new();
    for (major, version) in COSIGN {
        let package = format!("github.com/sigstore/cosign/{major}/cmd/cosign");
        let program = peers::from_go(&go, (&package, version))?;
        programs.push(format!("{}={}", version.trim_start_matches('v'), program.display()));
    }
    let crane = peers::from_go(&go, (CRANE, CRANE_VERSION))?;
    let judge = peers::folder().join("judges/policy");
    let mut build = go_build(&go, &["build"], &judge, ".");
    if !build.current_dir(workspace().join("tests/judges/policy")).status()?.success() {
        return Err("go build failed in tests/judges/policy".into());
    }
    let programs = OsString::from(programs.join(";"));
    let variables =
        [("CAS_COSIGN", &*programs), ("CAS_CRANE", crane.as_os_str()), ("CAS_POLICY_JUDGE", judge.as_os_str())];
    let mut passed = 0;
    for group in ["signing::", "policies::"] {
        let arguments = ["test", "--test", "peers", "--locked", "--", "--ignored", "--nocapture", group];
        let (success, more) = test::run_with(&arguments, &variables)?;
        if !success {
            return Ok(false);
        }
        passed += more;
    }
    if passed == 0 { Err("cosign was not asked".into()) } else { Ok(true) }
}

/// Where a Go that is new enough is.
pub(crate) fn go() -> Option<PathBuf> {
    ["go", "/usr/local/go/bin/go"].map(PathBuf::from).into_iter().find(|go| {
        let output = Command::new(go).arg("version").env("GOTOOLCHAIN", "local").output();
        output.is_ok_and(|output| version(&String::from_utf8_lossy(&output.stdout)).is_some_and(|found| found >= GO))
    })
}

/// The version in `go version go1.26.8 linux/amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(2)?.strip_prefix("go")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Builds the judges, and crane beside them, and lets them judge themselves; where their program is.
///
/// Versions of modules are those of `go.mod`, and their digests those of `go.sum`. Go builds what changed alone.
fn build(go: &Path) -> Result<PathBuf, Failure> {
    let folder = peers::folder().join("judges");
    std::fs::create_dir_all(&folder)?;
    let (program, tests) = (folder.join("judge"), folder.join("judge.test"));
    println!("peers: building the judges of layers in {}", folder.display());
    let crane = folder.join("crane");
    for (words, output, package) in
        [(&["build"][..], &program, "."), (&["test", "-c"], &tests, "."), (&["build"], &crane, CRANE)]
    {
        if !go_build(go, words, output, package).status()?.success() {
            return Err(format!("go {} failed in tests/judges", words.join(" ")).into());
        }
    }
    // Where they run is where the module is: no file is read there.
    if !Command::new(&tests).current_dir(&folder).status()?.success() {
        return Err("the judges of layers do not judge what their own libraries write as they should".into());
    }
    Ok(program)
}

/// A command of Go in the module of the judges.
fn go_build(go: &Path, words: &[&str], output: &Path, package: &str) -> Command {
    let mut command = Command::new(go);
    command.args(words).arg("-o").arg(output).arg(package).current_dir(workspace().join("tests/judges"));
    command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local");
    command.env("GOFLAGS", format!("-mod=readonly -trimpath -buildvcs=false {TAGS}"));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_by_number() {
        for (text, is_new) in [
            ("go version go1.26.8 linux/amd64", true),
            ("go version go1.27 linux/arm64", true),
            ("go version go2.0.1 linux/arm64", true),
            ("go version go1.19.8 linux/amd64", false),
            ("go version go1.3 linux/amd64", false),
            ("", false),
        ] {
            assert_eq!(version(text).is_some_and(|found| found >= GO), is_new, "{text}");
        }
    }
}
