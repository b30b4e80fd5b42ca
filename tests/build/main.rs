//! The program as a user meets it: exit codes, messages, and the same bytes whatever must not matter.

#![expect(clippy::print_stderr, reason = "a skipped test says so")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "tests look at the disk as others do")]

mod analyze;
mod archives;
mod artifacts;
mod bad_images;
mod bad_input;
mod bases;
mod cargo;
mod configured;
mod copy;
mod daily;
mod example;
mod exports;
mod failures;
mod foreign;
mod formats;
mod golden;
#[path = "../common/golden.rs"]
mod golden_table;
mod image_names;
mod images;
mod init;
mod keys;
mod login;
mod npm;
mod packages;
mod pnpm;
mod policies;
mod probe;
mod provenance;
mod publish;
mod pull;
mod push;
mod random;
mod registry;
mod roots;
mod run_image;
mod secrets;
mod serve;
mod shapes;
mod sign;
mod since;
mod stamps;
mod steps;
mod store;
mod sync;
mod terminal;
mod test_command;
mod tiers;
mod together;
#[path = "../common/toolchain.rs"]
mod toolchain;
mod watch;
mod why;
mod workspace;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A workspace and a store in a folder of their own.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new(manifest: &str) -> Self {
        Self::of(tempfile::tempdir().unwrap(), manifest)
    }

    /// In memory where this machine has a place for that: for tables whose many stores are small, and mostly wait for the disk.
    fn in_memory(manifest: &str) -> Self {
        Self::of(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(), manifest)
    }

    fn of(folder: tempfile::TempDir, manifest: &str) -> Self {
        let home = Self { folder };
        fs::create_dir(home.workspace()).unwrap();
        fs::write(home.folder.path().join("data.txt"), "data\n").unwrap();
        let manifest = manifest.replace("DATA", &format!("file://{}/data.txt", home.folder.path().display()));
        fs::write(home.workspace().join("cas.toml"), manifest).unwrap();
        home
    }

    fn workspace(&self) -> PathBuf {
        self.folder.path().join("workspace")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cas"));
        command.args(arguments).current_dir(self.workspace()).env_clear();
        command.env("CAS_HOME", self.folder.path().join("store"));
        command
    }

    fn cas(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// SHA-256 of `data\n`.
const SHA256: &str = "6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f";

fn image() -> String {
    format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n\
         [image.base]\nlayers = [{{ from = \":data\", to = \"/srv/a b\" }}]\n\
         [image.web]\nbase = \":base\"\ncompression = \"zstd\"\nlayers = [{{ from = \":data\", to = \"/\" }}]\n\
         config = {{ cmd = [\"/x\"], env = {{ B = \"2\", A = \"1\" }}, expose = [\"80\"], user = \"1000\" }}\n\
         [image.plain]\ncompression = \"none\"\nlayers = [{{ from = \":data\", to = \"/\" }}]\n"
    )
}

/// The manifests of `image()`: what these bytes are is part of `format_version` 1. Checked once with skopeo and umoci.
const GOLDEN: &str = "\
image //:base sha256:54645f4e73fc441ea4df182bb10589de5be4412a6b8baf6f895522c78286ecf0  cas-out/base
fetch //:data blake3:51f855e8f080df9cbc2a561b6ddaad85e1bbf884ea4b73f3455e8c86202d0422  cas-out/data/data.txt
image //:plain sha256:dd9ef18cb02afbc70996d6fb7d683a4639bcd0fd54c6201efb1233701d8445d8  cas-out/plain
image //:web sha256:274bb16bd24f7b276ef83bb518aaf87b0a59c93eb65ca27a6c81a74f5037502e  cas-out/web
";

#[test]
fn images_have_the_same_bytes_whatever_must_not_matter() {
    for (umask, jobs, zone) in [("022", "1", "UTC"), ("077", "8", "Asia/Kathmandu")] {
        let home = Home::new(&image());
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("umask {umask} && exec \"$0\" build --jobs {jobs}")).arg(env!("CARGO_BIN_EXE_cas"));
        shell.current_dir(home.workspace()).env_clear().env("TZ", zone).env("CAS_HOME", home.folder.path().join("s"));
        let output = shell.output().unwrap();
        assert_eq!(text(&output.stderr), "");
        assert_eq!(text(&output.stdout), GOLDEN, "umask {umask}, {jobs} jobs, {zone}");
    }
}

/// Groups over 8 MiB are compressed by way of a file: images that are made at once share none.
#[test]
fn images_of_one_large_file_are_made_at_once() {
    for round in 0..4u8 {
        let home = Home::new("");
        let bytes: Vec<u8> =
            (0..9_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8 ^ round).collect();
        fs::write(home.folder.path().join("large"), &bytes).unwrap();
        let digest = cas_digest::Digest::of(cas_digest::DigestFunction::Sha256, &bytes).to_hex();
        let mut manifest = format!(
            "[workspace]\n[fetch.data]\nurl = \"file://{}\"\nsha256 = \"{digest}\"\n",
            home.folder.path().join("large").display()
        );
        for (name, codec) in [("a", "zstd"), ("b", "gzip"), ("c", "zstd"), ("d", "gzip")] {
            let layer = format!("layers = [{{ from = \":data\", to = \"/{}\" }}]", if name < "c" { "x" } else { "y" });
            manifest.push_str(&format!("[image.{name}]\ncompression = \"{codec}\"\n{layer}\n"));
        }
        home.write("cas.toml", &manifest);
        let output = home.cas(&["build", "--jobs", "8"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
}

#[test]
fn an_image_is_built_once_and_works_without_its_origin() {
    let home = Home::new(&image());
    let first = home.cas(&["build"]);
    fs::remove_file(home.folder.path().join("data.txt")).unwrap();
    let second = home.cas(&["build", "--offline", "--locked"]);
    assert_eq!(
        (second.status.code(), text(&second.stdout)),
        (Some(0), text(&first.stdout)),
        "{}",
        text(&second.stderr)
    );
    let list = home.cas(&["image", "ls"]);
    assert_eq!(text(&list.stdout).lines().count(), 3);
}

#[test]
fn a_layout_has_every_blob_that_it_names() {
    let home = Home::new(&image());
    for destination in ["oci:out:v1", "oci:out:v2", "oci-archive:out.tar:v1"] {
        let output = home.cas(&["image", "export", ":web", destination]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    // The same image gives the same bytes.
    for transport in ["oci-archive", "docker-archive", "tar"] {
        let written = ["first", "second"].map(|name| {
            let output = home.cas(&["image", "export", ":web", &format!("{transport}:{name}")]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            fs::read(home.workspace().join(name)).unwrap()
        });
        assert_eq!(written[0], written[1], "{transport}");
    }
    let out = home.workspace().join("out");
    let index = fs::read_to_string(out.join("index.json")).unwrap();
    assert!(index.contains("\"v1\"") && index.contains("\"v2\""), "{index}");
    // Two layers, a configuration, a manifest; each file's name is the digest of its bytes.
    let blobs: Vec<PathBuf> =
        fs::read_dir(out.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(blobs.len(), 4);
    for blob in blobs {
        let bytes = fs::read(&blob).unwrap();
        assert_eq!(cas_digest::Digest::of(cas_digest::DigestFunction::Sha256, &bytes).to_hex(), name(&blob));
    }
    assert!(fs::metadata(home.workspace().join("out.tar")).unwrap().len() > 0);
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn bad_input_has_its_exit_code_and_message() {
    let image = image();
    let rows: &[(&str, &[&str], i32, &str)] = &[
        ("[workspace]\nmember = []\n", &["build"], 2, "error: unknown key `member`"),
        ("[workspace]\n[toolchian.x]\n", &["build"], 2, "error: unknown key `toolchian`"),
        ("[workspace]\n[image.a]\nbase = \":b\"\n", &["build"], 2, "error: there is no target `//:b`"),
        ("[workspace]\n[image.a]\nbase = \"b\"\n", &["build"], 2, "error: `b` is not a label"),
        (
            "[workspace]\n[image.a]\nbase = \"b:1\"\n",
            &["build"],
            2,
            "error: `b:1` is an image of others, and `base` takes",
        ),
        (
            "[workspace]\n[image.a]\nbase = \":b\"\n[image.b]\nbase = \":c\"\n[image.c]\nbase = \":b\"\n",
            &["build", ":a"],
            2,
            "error: targets need each other: //:b → //:c → //:b",
        ),
        ("[package]\n", &["build"], 2, "error: `PATH` is not in a workspace"),
        (&image, &["build", ":dat"], 2, "error: there is no target `//:dat`\nhint: did you mean `//:data`?"),
        (&image, &["build", "data"], 2, "error: `data` is not a label"),
        (&image, &["run", ":data"], 2, "error: `//:data` is a fetch, and cannot be used as an image"),
        (&image, &["run", ":base"], 2, "error: image `//:base` has neither entrypoint nor command"),
        (&image, &["image", "export", ":web", "docker:x"], 2, "error: `docker:x` is not a destination"),
        (
            &image,
            &["build", "--offline"],
            4,
            "error: `file://PATH` is not in the store, and the network may not be used",
        ),
        (&image, &["frobnicate"], 2, "error: unrecognized subcommand 'frobnicate'"),
        (
            "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n",
            &["build"],
            3,
            "error: `file://PATH` is not what is pinned",
        ),
        (
            "[workspace]\n[toolchain.t]\ndebian = { suite = \"bookworm\", packages = [] }\n",
            &["build", "--locked"],
            2,
            "error: `cas.lock` is not up to date: `//:t` would change",
        ),
        ("[workspace]\n[test.t]\ntoolchain = \":x\"\nrun = \"x\"\n", &["test"], 2, "error: there is no target `//:x`"),
        (
            &format!("{image}[test.t]\ntoolchain = \":base\"\nrun = \"x\"\n"),
            &["test"],
            2,
            "error: `//:base` is an image, and cannot be the toolchain of a step",
        ),
    ];
    for (manifest, arguments, code, message) in rows {
        let home = Home::new(manifest);
        let output = home.cas(arguments);
        let folder = home.folder.path().display().to_string();
        let stderr = text(&output.stderr);
        let shown =
            stderr.replace(&format!("{folder}/data.txt"), "PATH").replace(&format!("{folder}/workspace"), "PATH");
        assert!(shown.starts_with(message), "{arguments:?} gave {shown}");
        assert_eq!(output.status.code(), Some(*code), "{shown}");
    }
}

#[test]
fn a_lock_that_leaves_its_root_is_refused() {
    let home = Home::new("[workspace]\n");
    let lock = "format = 1\n[[npm]]\ntarget = \"//:a\"\nrequest = \"a@1.0.0\"\npath = \"../../x\"\nintegrity = \"\"\n";
    fs::write(home.workspace().join("cas.lock"), lock).unwrap();
    let output = home.cas(&["build", "//..."]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("cause: the lock names the path `../../x` for `//:a`"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_store_without_rights_is_told() {
    let home = Home::new(&image());
    let store = home.folder.path().join("store");
    // A file in the place of the folder is in the way of root, too.
    fs::write(&store, "").unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o444)).unwrap();
    let output = home.cas(&["build"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(text(&output.stderr).starts_with("error: the store `"), "{}", text(&output.stderr));
}

#[test]
fn json_tells_the_same() {
    let home = Home::new(&image());
    let output = home.cas(&["build", ":web", "--format", "json"]);
    let line = text(&output.stdout);
    assert!(line.starts_with("{\"exit\":\"done\",\"results\":[{"), "{line}");
    let output = home.cas(&["build", ":none", "--format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stdout).contains("\"error\":\"there is no target `//:none`\""));
}

/// A machine that nobody watches must not pin anything by itself.
#[test]
fn the_variable_ci_implies_locked() {
    let home = Home::new("[workspace]\n[toolchain.t]\ndebian = { suite = \"bookworm\", packages = [] }\n");
    let output = home.command(&["build"]).env("CI", "true").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: `cas.lock` is not up to date"), "{}", text(&output.stderr));
}
