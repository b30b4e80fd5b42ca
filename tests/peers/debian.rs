//! mmdebstrap unpacks the same packages, and has the same files: before the merge of `/usr` and the fix-ups of docs/formats/debian.md.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use cas_digest::{Digest, DigestFunction};

use crate::{Home, has, missing, run};

/// What an entry is: all that a package says of it.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let rights = format!("{:o} {} {}", metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.gid());
            let what = if metadata.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if metadata.is_dir() {
                open.push(path.clone());
                format!("folder {rights}")
            } else if metadata.is_file() {
                format!("{rights} {}", Digest::of(DigestFunction::Blake3, &std::fs::read(&path).unwrap()))
            } else {
                "special".to_owned()
            };
            entries.insert(path.strip_prefix(root).unwrap().display().to_string(), what);
        }
    }
    entries
}

/// Folders that are links into `/usr` after the merge.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// What mmdebstrap and the apt that it runs add.
const THEIRS: [&str; 9] = [
    "dev/",
    "etc/apt/",
    "etc/fstab",
    "etc/hostname",
    "etc/resolv.conf",
    "var/cache/apt",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log/apt",
];
/// What the fix-ups make of folders.
const FIXED: [&str; 2] = ["var/lock", "var/run"];
/// What the fix-ups add, and folders of `base-files` that its script makes.
const OURS: [&str; 22] = [
    "bin",
    "sbin",
    "lib",
    "lib64",
    "etc/group",
    "etc/hosts",
    "etc/nsswitch.conf",
    "etc/passwd",
    "etc/profile",
    "mnt",
    "opt",
    "srv",
    "src",
    "root/.bashrc",
    "root/.profile",
    "run/lock",
    "usr/local",
    "usr/bin/",
    "usr/sbin/rmt",
    "usr/local/",
    "usr/lib64",
    "var/lib/dpkg",
];

#[test]
fn a_toolchain_has_the_files_of_mmdebstrap() {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !is_root {
        eprintln!("SKIPPED: only root can unpack owners as they are");
        return;
    }
    if !has("mmdebstrap") {
        return missing("mmdebstrap");
    }
    let home = Home::new(
        "[workspace]\n[toolchain.node]\ndebian = { suite = \"bookworm\", packages = [\"nodejs\"], mirror = \"http://deb.debian.org/debian\" }\n[image.i]\nbase = \":node\"\n",
    );
    if !home.cas(&["lock"]).output().unwrap().status.success() {
        eprintln!("SKIPPED: Debian's archive cannot be reached");
        return;
    }
    run(&mut home.cas(&["build", ":i"]));
    let blobs = home.workspace().join("cas-out/i/blobs/sha256");
    let layer = std::fs::read_dir(blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len());
    let (ours, theirs) = (home.path("ours"), home.path("theirs"));
    std::fs::create_dir(&ours).unwrap();
    run(Command::new("tar").arg("-xzpf").arg(layer.unwrap()).args(["--numeric-owner", "-C"]).arg(&ours));
    run(Command::new("mmdebstrap")
        .args(["--variant=extract", "--mode=root", "--include=nodejs,?essential", "bookworm"])
        .arg(&theirs)
        .arg("deb http://deb.debian.org/debian bookworm main"));
    let (ours, theirs) = (listing(&ours), listing(&theirs));
    assert!(theirs.len() > 6000, "{}", theirs.len());
    let starts = |path: &str, list: &[&str]| {
        list.iter().any(|start| path == *start || path.starts_with(&format!("{}/", start.trim_end_matches('/'))))
    };
    let mut seen = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, what) in &theirs {
        let first = path.split('/').next().unwrap();
        let at = if MERGED.contains(&first) { format!("usr/{path}") } else { path.clone() };
        if MERGED.contains(&path.as_str()) || starts(path, &THEIRS) || starts(path, &FIXED) {
            continue;
        }
        if ours.get(&at) != Some(what) {
            wrong.push(format!("{path}: {what}, here {:?}", ours.get(&at)));
        }
        seen.insert(at);
    }
    for (path, what) in &ours {
        if !seen.contains(path) && !starts(path, &OURS) && !starts(path, &FIXED) && !starts(path, &THEIRS) {
            wrong.push(format!("{path}: {what}, there nothing"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), theirs.len(), wrong.join("\n"));
}
