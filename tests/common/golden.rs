//! Golden digests: what `cas` writes of the workspace `testdata/golden`, against `digests.txt` there.
//!
//! The table is of `format_version` 1: it is the same on every processor. Who makes it is a parameter, so the program can be
//! one for another processor than the tests. No step runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cas_digest::{Digest, DigestFunction};
use serde_json::Value;

/// Images of the workspace, by what they are for.
const IMAGES: [&str; 8] = ["below", "none", "gzip", "docker", "zstd", "zstd-chunked", "estargz", "cut"];
/// Artifacts of the workspace.
const ARTIFACTS: [&str; 2] = ["nothing", "files"];
/// Length of the file that is cut into chunks and groups.
const NOISE_BYTES: usize = 3 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/golden")
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(DigestFunction::Sha256, bytes).to_string()
}

/// Fails when what a program makes in an empty folder is not what the table says.
pub(crate) fn compare(place: &Path, cas: &dyn Fn() -> Command) {
    let made = table(place, cas);
    let path = folder().join("digests.txt");
    let known = fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<String> = known
        .lines()
        .filter(|line| !made.contains(&format!("{line}\n")))
        .map(|line| {
            let name = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
            let other = made.lines().find(|other| name(other) == name(line)).unwrap_or("nothing");
            format!("  was: {line}\n  now: {other}\n")
        })
        .collect();
    assert!(
        changed.is_empty(),
        "digests that `format_version` 1 fixes are others now ({}), so whatever anybody made of the same inputs has another \
         digest.\nIf that is not meant, it is a bug. If it is, `format_version` must change on purpose: the formats' pages, \
         the codec's or profile's id, and the table {} with the version in its first line.\n{}",
        changed.len(),
        path.display(),
        changed.concat()
    );
    // What is there can never be changed like this.
    if known != made && std::env::var_os("CAS_UPDATE").is_some() {
        fs::write(&path, &made).unwrap();
    } else {
        assert_eq!(known, made, "the table lacks rows: `CAS_UPDATE=1` adds them");
    }
}

/// All digests, a line for each.
fn table(place: &Path, cas: &dyn Fn() -> Command) -> String {
    let mut lines = vec!["format_version 1".to_owned()];
    for function in ["blake3", "sha256"] {
        let home = place.join(function);
        let workspace = home.join("workspace");
        prepare(&home, function);
        let run = |arguments: &[&str]| -> String {
            let mut command = cas();
            command.args(arguments).current_dir(&workspace).env("CAS_HOME", home.join("store"));
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{command:?}: {said}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run(&["build", "//tool:tool", ":below"]);
        let tarball = fs::read(workspace.join("cas-out/tool/tool/tool-1.0.0.tgz")).unwrap();
        fs::create_dir_all(home.join("mirror/tool/-")).unwrap();
        fs::write(home.join("mirror/tool/-/tool-1.0.0.tgz"), &tarball).unwrap();
        run(&["image", "export", "//:below", "oci:below:v1"]);
        // A root is wanted whole where no image is asked for with it: its name is made of that of its tree.
        let told = run(&["build", ":modules", ":base"]);
        for line in told.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            lines.push(format!("{function} {} {} {}", words[0], words[1], words[2]));
        }
        // All else has names by SHA-256 whatever the store's function is.
        if function == "blake3" {
            lines.push(format!("npm //tool:tool {}", sha256(&tarball)));
            let images: Vec<String> = IMAGES.iter().map(|name| format!(":{name}")).collect();
            let images: Vec<&str> = images.iter().map(String::as_str).collect();
            run(&[&["build"], &images[..]].concat());
            for name in IMAGES {
                of_image(&workspace.join("cas-out").join(name), name, &mut lines);
            }
            let artifacts: Vec<String> = ARTIFACTS.iter().map(|name| format!(":{name}")).collect();
            let artifacts: Vec<&str> = artifacts.iter().map(String::as_str).collect();
            run(&[&["build"], &artifacts[..]].concat());
            for name in ARTIFACTS {
                of_artifact(&workspace.join("cas-out").join(name), name, &mut lines);
            }
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The workspace and the place that it fetches from, but for the package that it makes itself.
fn prepare(home: &Path, function: &str) {
    let (workspace, mirror) = (home.join("workspace"), home.join("mirror"));
    fs::create_dir_all(&mirror).unwrap();
    let copied = Command::new("cp").arg("-r").arg(folder()).arg(&workspace).status().unwrap();
    assert!(copied.success());
    fs::copy(workspace.join("passwd"), mirror.join("passwd")).unwrap();
    let manifest = fs::read_to_string(workspace.join("cas.toml")).unwrap();
    let manifest = manifest
        .replace("http://mirror", &format!("file://{}", mirror.display()))
        .replace("\"blake3\"", &format!("\"{function}\""));
    fs::write(workspace.join("cas.toml"), manifest).unwrap();
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..NOISE_BYTES)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 % 64 + b' '
        })
        .collect();
    fs::write(workspace.join("tool/lib/noise"), noise).unwrap();
}

/// What the layout of an artifact names: its manifest, and what that names.
fn of_artifact(layout: &Path, name: &str, lines: &mut Vec<String>) {
    let blob = |digest: &str| -> Vec<u8> {
        let bytes = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert_eq!(sha256(&bytes), digest);
        bytes
    };
    let digest = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let top: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = digest(&top["manifests"][0]);
    lines.push(format!("artifact {name} manifest {manifest}"));
    let manifest: Value = serde_json::from_slice(&blob(&manifest)).unwrap();
    let files = manifest["layers"].as_array().unwrap().iter().enumerate();
    let parts = [("config".to_owned(), digest(&manifest["config"]))].into_iter();
    for (part, digest) in parts.chain(files.map(|(count, file)| (format!("file {count}"), digest(file)))) {
        blob(&digest);
        lines.push(format!("artifact {name} {part} {digest}"));
    }
}

/// What a layout of one tag names: its index, and of each platform the documents and layers.
fn of_image(layout: &Path, name: &str, lines: &mut Vec<String>) {
    let blob = |digest: &str| -> Value {
        let bytes = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert_eq!(sha256(&bytes), digest);
        serde_json::from_slice(&bytes).unwrap()
    };
    let digest = |value: &Value| value["digest"].as_str().unwrap().to_owned();
    let top: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let index = digest(&top["manifests"][0]);
    lines.push(format!("image {name} index {index}"));
    for item in blob(&index)["manifests"].as_array().unwrap() {
        let platform = ["os", "architecture", "variant"].map(|key| item["platform"][key].as_str().unwrap_or_default());
        let platform = platform.join("/");
        let platform = platform.trim_end_matches('/');
        let manifest = blob(&digest(item));
        let config = digest(&manifest["config"]);
        lines.push(format!("image {name} {platform} manifest {}", digest(item)));
        lines.push(format!("image {name} {platform} config {config}"));
        let diff_ids = blob(&config)["rootfs"]["diff_ids"].clone();
        for (count, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
            let digest = digest(layer);
            let bytes = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
            assert_eq!(sha256(&bytes), digest);
            lines.push(format!("image {name} {platform} layer {count} {digest}"));
            lines.push(format!("image {name} {platform} diffID {count} {}", diff_ids[count].as_str().unwrap()));
        }
    }
}
