//! docs/formats/bad-input.md, row by row: the page says the exit code and what is said, the scenes here bring it about.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use crate::archives::{Archives, write};
use crate::{Home, text, toolchain};

/// An ordinary user that exists on every system and owns nothing.
const NOBODY: u32 = 65534;
/// A step that copies an input.
const COPY: &str = "[workspace]\n[command.a]\ntoolchain = \":sh\"\nrun = \"cp f o\"\noutputs = [\"o\"]\n";

/// What a row of the page says.
struct Row {
    code: i32,
    said: String,
}

/// Brings the case of a row about; `None` where this machine cannot.
type Scene = fn(&Home) -> Option<Output>;

/// The rows of the page, by case.
fn rows() -> BTreeMap<String, Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats/bad-input.md");
    let page = fs::read_to_string(page).unwrap();
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(code) = cells[1].parse() else { continue };
        let said = cells[2].trim_matches('`').trim().to_owned();
        let known = rows.insert(cells[0].to_owned(), Row { code, said });
        assert!(known.is_none(), "two rows for `{}`", cells[0]);
    }
    rows
}

/// Whether the parts of `said` are in `shown`, in their order.
pub(crate) fn says(shown: &str, said: &str) -> bool {
    let mut rest = shown;
    said.split('…').map(str::trim).all(|part| {
        let found = rest.find(part);
        rest = found.map_or("", |at| &rest[at + part.len()..]);
        found.is_some()
    })
}

impl Home {
    /// A `cas.toml` of the root, with the toolchain `//:sh` in it.
    fn manifest(&self, manifest: &str) {
        let own = self.read("cas.toml");
        let section = &own[own.find("[toolchain.sh]").unwrap()..];
        self.write("cas.toml", &format!("{manifest}\n{section}"));
    }

    fn with(&self, manifest: &str, arguments: &[&str]) -> Option<Output> {
        self.manifest(manifest);
        Some(self.cas(arguments))
    }

    /// Builds [`COPY`], does something, and builds again.
    fn twice(&self, between: impl FnOnce(&Self)) -> Option<Output> {
        self.write("f", "one");
        let first = self.with(COPY, &["build", ":a"])?;
        assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
        between(self);
        Some(self.cas(&["build", ":a"]))
    }

    fn set_time(&self, path: &str, time: SystemTime) {
        fs::File::options().write(true).open(self.workspace().join(path)).unwrap().set_modified(time).unwrap();
    }

    fn in_store(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join("store/v1").join(path)
    }
}

fn step(name: &str, run: &str, more: &str) -> String {
    format!("[command.{name}]\ntoolchain = \"//:sh\"\nrun = \"{run}\"\n{more}\n")
}

/// Runs an image with options.
fn of_a_run(home: &Home, options: &[&str]) -> Option<Output> {
    let image = "[workspace]\n[image.i]\nbase = \":sh\"\nconfig = { cmd = [\"/bin/sh\", \"-c\", \"true\"] }\n";
    home.with(image, &[&["run", ":i"], options].concat())
}

fn two_that_write_one_file() -> String {
    let one = step("a", "mkdir d; echo a > d/f", "outputs = [\"d\"]");
    let other = step("b", "mkdir d; echo b > d/f", "outputs = [\"d\"]");
    format!("[workspace]\n{one}{other}")
}

/// The program as a user who is not root.
fn as_somebody(home: &Home, arguments: &[&str]) -> Option<Output> {
    if !rustix::process::geteuid().is_root() {
        return Some(home.cas(arguments));
    }
    let program = home.folder.path().join("cas");
    fs::copy(env!("CARGO_BIN_EXE_cas"), &program).unwrap();
    fs::set_permissions(home.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "--"]);
    command.arg(&program).args(arguments).current_dir(home.workspace());
    command.env("CAS_HOME", home.folder.path().join("store")).output().ok()
}

/// The program on a workspace that is mounted read-only, in namespaces of its own.
fn on_a_read_only_disk(home: &Home) -> Option<Output> {
    fs::write(home.folder.path().join("data.txt"), "data\n").unwrap();
    let data = format!("file://{}/data.txt", home.folder.path().display());
    home.write("cas.toml", &crate::image().replace("DATA", &data));
    let script = "mount --bind . . && mount -o remount,ro,bind . && cd \"$PWD\" || exit 99; exec \"$0\" build";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_cas")]);
    command.current_dir(home.workspace()).env("CAS_HOME", home.folder.path().join("store"));
    let output = command.output().ok()?;
    (!matches!(output.status.code(), Some(1 | 99))).then_some(output)
}

/// What a test says of where it was.
const WHERE: &[(&str, Scene)] = &[
    ("no workspace here or above", |home| {
        let elsewhere = home.folder.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        home.command(&["build"]).current_dir(elsewhere).output().ok()
    }),
    ("`-C` names nothing", |home| Some(home.cas(&["-C", "/nope", "store", "stat"]))),
    ("`-C` names a file", |home| Some(home.cas(&["-C", "cas.toml", "build"]))),
    ("the current folder was removed", |home| {
        let script = "mkdir gone && cd gone && rmdir ../gone && exec \"$0\" build";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_cas")]).current_dir(home.workspace());
        command.env("CAS_HOME", home.folder.path().join("store")).output().ok()
    }),
    ("the root is a symbolic link", |home| {
        home.manifest(COPY);
        home.write("f", "x");
        let link = home.folder.path().join("link");
        symlink(home.workspace(), &link).unwrap();
        home.command(&["-C", link.to_str().unwrap(), "build", ":a"]).output().ok()
    }),
    ("the workspace is on a read-only disk", on_a_read_only_disk),
    ("`cas.toml` without the right to read it", |home| {
        let path = home.workspace().join("cas.toml");
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        as_somebody(home, &["query"])
    }),
    ("`cas.toml` is a folder", |home| {
        fs::remove_file(home.workspace().join("cas.toml")).unwrap();
        fs::create_dir(home.workspace().join("cas.toml")).unwrap();
        Some(home.cas(&["build"]))
    }),
    ("the `cas.toml` of a member is a folder", |home| {
        fs::create_dir_all(home.workspace().join("a/cas.toml")).unwrap();
        home.with("[workspace]\nmembers = [\"*\"]\n", &["build"])
    }),
    ("`cas.toml` of 10 MB", |home| home.with(&format!("[workspace]\n{}", "#".repeat(10_000_000)), &["build"])),
    ("`cas.toml` that is not UTF-8", |home| {
        fs::write(home.workspace().join("cas.toml"), b"[workspace]\n# \xff\n").unwrap();
        Some(home.cas(&["build"]))
    }),
    ("an option that is not known, `--format json`", |home| Some(home.cas(&["build", "--nope", "--format", "json"]))),
    ("a command that is not known, `--format json`", |home| Some(home.cas(&["--format=json", "frobnicate"]))),
    ("no command at all, `--format json`", |home| Some(home.cas(&["--format", "json"]))),
];

const PACKAGES: &[(&str, Scene)] = &[
    ("10,000 members", |home| {
        for number in 0..10_000 {
            home.write(&format!("p/{number}/cas.toml"), &step("x", "true", ""));
        }
        let output = home.with("[workspace]\nmembers = [\"p/*\"]\n", &["query"])?;
        assert_eq!(text(&output.stdout).lines().count(), 10_001);
        Some(output)
    }),
    ("`members` that select nothing", |home| {
        fs::create_dir_all(home.workspace().join("apps/empty")).unwrap();
        home.with("[workspace]\nmembers = [\"apps/*\"]\n", &["query"])
    }),
    ("`**` in `members`", |home| home.with("[workspace]\nmembers = [\"apps/**\"]\n", &["build"])),
    ("two packages with one name in `package.json`", |home| {
        for package in ["a", "b"] {
            home.write(&format!("{package}/cas.toml"), "");
            home.write(&format!("{package}/package.json"), r#"{"name": "x"}"#);
        }
        home.with("[workspace]\nmembers = [\"*\"]\n", &["build"])
    }),
    ("a broken `package.json`", |home| {
        home.write("package.json", "{");
        Some(home.cas(&["build"]))
    }),
    ("a cycle through `^`", |home| {
        for (package, other) in [("a", "b"), ("b", "a")] {
            home.write(&format!("{package}/cas.toml"), &step("build", "true", "deps = [\"^build\"]"));
            let json = format!(r#"{{"name": "{package}", "dependencies": {{"{other}": "*"}}}}"#);
            home.write(&format!("{package}/package.json"), &json);
        }
        home.with("[workspace]\nmembers = [\"*\"]\n", &["build"])
    }),
];

const TARGETS: &[(&str, Scene)] = &[
    ("one name for two kinds", |home| {
        home.with(
            &format!("[workspace]\n{}{}", step("a", "true", ""), "[test.a]\nrun = \"x\"\ntoolchain = \":sh\"\n"),
            &["build"],
        )
    }),
    ("a dependency that is not there", |home| {
        let steps = format!("{}{}", step("a", "true", "deps = [\":bb\"]"), step("b", "true", ""));
        home.with(&format!("[workspace]\n{steps}"), &["build"])
    }),
    ("a command that depends on a test", |home| {
        let steps = format!("[test.t]\ntoolchain = \":sh\"\nrun = \"true\"\n{}", step("a", "true", "deps = [\":t\"]"));
        home.with(&format!("[workspace]\n{steps}"), &["build", ":a"])
    }),
    ("a test as a layer of an image", |home| {
        let test = "[test.t]\ntoolchain = \":sh\"\nrun = \"true\"\n";
        home.with(&format!("[workspace]\n{test}[image.i]\nlayers = [{{ from = \":t\", to = \"/\" }}]\n"), &["build"])
    }),
    ("a test in an npm package", |home| {
        home.write("package.json", r#"{"name": "x", "version": "1.0.0"}"#);
        let test = "[test.t]\ntoolchain = \":sh\"\nrun = \"true\"\n";
        home.with(&format!("[workspace]\n{test}[npm.n]\nfrom = \":t\"\n"), &["build"])
    }),
    ("a step that depends on an image", |home| {
        home.with(&format!("[workspace]\n[image.i]\n{}", step("a", "true", "deps = [\":i\"]")), &["build", ":a"])
    }),
    ("a step in a command instead of a toolchain", |home| {
        let steps = step("b", "true", "");
        let other = "[command.a]\ntoolchain = \":b\"\nrun = \"true\"\n";
        home.with(&format!("[workspace]\n{steps}{other}"), &["build", ":a"])
    }),
    ("an image as a layer of an image", |home| {
        home.with("[workspace]\n[image.i]\n[image.j]\nlayers = [{ from = \":i\", to = \"/\" }]\n", &["build", ":j"])
    }),
    ("a root of a layout that is not there", |home| of_an_image(home, "oci:nope")),
    ("a root of an archive of an image that is not there", |home| of_an_image(home, "oci-archive:nope.tar")),
    ("a root with a link at `/dev`", |home| of_an_image_with(home, "dev", "ln -s usr dev")),
    ("a program that runs in a root with a link at `/dev`", |home| {
        of_an_image_with(home, "dev", "ln -s usr dev")?;
        let manifest = home.read("cas.toml");
        home.write("cas.toml", &format!("{manifest}\n[run.serve]\nlive = false\ntoolchain = \":t\"\nrun = \"true\"\n"));
        Some(home.cas(&["run", ":serve"]))
    }),
    ("a program that runs and is not in its root", |home| {
        let run = "[run.serve]\nlive = false\ntoolchain = \":sh\"\nrun = [\"/usr/bin/absent\"]\n";
        home.with(&format!("[workspace]\n{run}"), &["run", ":serve"])
    }),
    ("a root with a file at `/proc`", |home| of_an_image_with(home, "proc", "echo > proc")),
    ("an image on a command", |home| {
        home.with(&format!("[workspace]\n{}[image.i]\nbase = \":b\"\n", step("b", "true", "")), &["build", ":i"])
    }),
    ("an image on programs of this machine", |home| {
        home.with("[workspace]\n[toolchain.h]\nhost = {}\n[image.i]\nbase = \":h\"\n", &["build", ":i"])
    }),
    ("a layer of a user that is not there", |home| {
        let image = "[image.i]\nlayers = [{ from = \":b\", to = \"/\", owner = \"app\" }]\n";
        home.with(&format!("[workspace]\n{}{image}", step("b", "echo > o", "outputs = [\"o\"]")), &["build", ":i"])
    }),
    ("an image that runs as a user that is not there", |home| {
        home.with("[workspace]\n[image.i]\nconfig = { user = \"app\" }\n", &["build", ":i"])
    }),
    ("a run as a user that the image does not have", |home| of_a_run(home, &["--user", "app"])),
    ("a run in a folder that is relative", |home| of_a_run(home, &["--workdir", "app"])),
    ("a run with a variable without a name", |home| of_a_run(home, &["--env", "=x"])),
    ("a run with variables of a file that is not there", |home| of_a_run(home, &["--env-file", "nope"])),
    ("a run with variables of a shell's file", |home| {
        home.write("vars", "A=b\nexport C=d\n");
        of_a_run(home, &["--env-file", "vars"])
    }),
    ("a volume of a folder that is not there", |home| of_a_run(home, &["--volume", "nope:/x"])),
    ("a volume without a place", |home| of_a_run(home, &["--volume", "x"])),
    ("a volume at a path that leaves the root", |home| of_a_run(home, &["--volume", ".:/x/../.."])),
    ("a volume over the root", |home| of_a_run(home, &["--volume", ".:/"])),
    ("a volume in `/dev`", |home| of_a_run(home, &["--volume", ".:/dev/shm"])),
    ("two volumes at one place", |home| of_a_run(home, &["--volume", ".:/x", "--volume", ".:/x/"])),
    ("a port for other machines", |home| of_a_run(home, &["--publish", "0.0.0.0:8080:80"])),
    ("a port of UDP", |home| of_a_run(home, &["--publish", "53/udp"])),
    ("a port and the network of the host", |home| of_a_run(home, &["--publish", "80", "--network", "host"])),
    ("a network that there is not", |home| of_a_run(home, &["--network", "bridge"])),
    ("a step that is run as another user", |home| {
        home.with(&format!("[workspace]\n{}", step("b", "true", "")), &["run", ":b", "--user", "1"])
    }),
    ("a mode that is none", |home| {
        let image = "[image.i]\nlayers = [{ from = \":b\", to = \"/\", mode = \"u+x\" }]\n";
        home.with(&format!("[workspace]\n{image}"), &["build", ":i"])
    }),
    ("zstd in an image of Docker's format", |home| {
        home.with("[workspace]\n[image.i]\nformat = \"docker\"\ncompression = \"zstd\"\n", &["build", ":i"])
    }),
    ("an annotation without a name", |home| {
        home.with("[workspace]\n[image.i]\nannotations = { \"\" = \"x\" }\n", &["build", ":i"])
    }),
    ("a check in an image of OCI's format", |home| {
        let image = "[image.i]\nconfig = { healthcheck = { test = \"true\" } }\n[image.j]\nformat = \"docker\"\n";
        home.with(&format!("[workspace]\n{image}"), &["build", ":i"])
    }),
    ("an image for an architecture that nobody has", |home| {
        home.with("[workspace]\n[image.i]\nplatforms = [\"linux/x86_64\"]\n", &["build", ":i"])
    }),
    ("an image for one platform twice", |home| {
        let image = "[image.i]\nplatforms = [\"linux/arm64\", \"linux/arm64/v8\"]\n";
        home.with(&format!("[workspace]\n{image}"), &["build", ":i"])
    }),
    ("what a step makes, for another machine", |home| {
        let image = "[image.i]\nplatforms = [\"linux/riscv64\"]\nlayers = [{ from = \":b\", to = \"/\" }]\n";
        let command = step("b", "echo > o", "outputs = [\"o\"]");
        let output = home.with(&format!("[workspace]\n{command}{image}"), &["build", ":i"]);
        assert!(!home.workspace().join("cas-out").exists());
        output
    }),
    ("an image of one machine below one for another", |home| {
        let image = "[image.i]\nbase = \":j\"\nplatforms = [\"linux/riscv64\"]\n[image.j]\n";
        home.with(&format!("[workspace]\n{image}"), &["build", ":i"])
    }),
    ("a test as a file of an artifact", |home| {
        of_an_artifact(home, "[test.t]\ntoolchain = \":sh\"\nrun = \"true\"\n", "files = [{ from = \":t\" }]")
    }),
    ("an image as a file of an artifact", |home| of_an_artifact(home, "[image.i]\n", "files = [{ from = \":i\" }]")),
    ("a root as a file of an artifact", |home| of_an_artifact(home, "", "files = [{ from = \":sh\" }]")),
    ("a command as the subject of an artifact", |home| {
        of_an_artifact(home, &step("b", "echo > o; echo > p", "outputs = [\"o\", \"p\"]"), "subject = \":b\"")
    }),
    ("a command of two outputs as a file of an artifact", |home| {
        of_an_artifact(
            home,
            &step("b", "echo > o; echo > p", "outputs = [\"o\", \"p\"]"),
            "files = [{ from = \":b\" }]",
        )
    }),
    ("two files of one title", |home| {
        of_an_artifact(
            home,
            &step("b", "echo > o; echo > p", "outputs = [\"o\", \"p\"]"),
            "files = [{ from = \":b\", path = \"o\" }, { from = \":b\", path = \"p\", title = \"o\" }]",
        )
    }),
    ("a file of an artifact that is not made", |home| {
        of_an_artifact(
            home,
            &step("b", "echo > o; echo > p", "outputs = [\"o\", \"p\"]"),
            "files = [{ from = \":b\", path = \"x\" }]",
        )
    }),
    ("a file of an artifact that is not there", |home| of_an_artifact(home, "", "files = [{ path = \"x\" }]")),
    ("a folder as the configuration of an artifact", |home| {
        of_an_artifact(home, "", "config = { path = \"d\", media_type = \"a/b\" }")
    }),
    ("an artifact of a type that is none", |home| {
        home.with("[workspace]\n[artifact.a]\ntype = \"report\"\n", &["build", ":a"])
    }),
    ("an artifact with the configuration of an image", |home| {
        of_an_artifact(
            home,
            "",
            "config = { path = \"d/f\", media_type = \"application/vnd.oci.image.config.v1+json\" }",
        )
    }),
    ("an artifact that is about itself", |home| of_an_artifact(home, "", "subject = \":a\"")),
    ("an artifact as a layer of an image", |home| {
        home.with(
            "[workspace]\n[artifact.a]\ntype = \"a/b\"\n[image.i]\nlayers = [{ from = \":a\", to = \"/\" }]\n",
            &["build", ":i"],
        )
    }),
    ("a step that depends on an artifact", |home| {
        home.with(
            &format!("[workspace]\n[artifact.x]\ntype = \"a/b\"\n{}", step("a", "true", "deps = [\":x\"]")),
            &["build", ":a"],
        )
    }),
    ("the root of an artifact", |home| of_an_image_and(home, "//:x", "[artifact.x]\ntype = \"a/b\"\n")),
    ("the ID of two images", |home| {
        home.with("[workspace]\n[image.i]\n[image.j]\n", &["build", ":i", ":j", "--iidfile", "../id"])
    }),
    ("an npm package of an image", |home| {
        home.write("package.json", r#"{"name": "x", "version": "1.0.0"}"#);
        home.with("[workspace]\n[image.i]\n[npm.n]\nfrom = \":i\"\n", &["build", ":n"])
    }),
    ("a step that depends on a program that runs", |home| {
        let run = "[run.serve]\nrun = \"true\"\n";
        home.with(&format!("[workspace]\n{run}{}", step("a", "true", "deps = [\":serve\"]")), &["build", ":a"])
    }),
    ("targets of a kind that there is none of", |home| home.with("[workspace]\n", &["query", "--kind", "comand"])),
    ("a Debian root of too many archives", |home| {
        let also = "{ suite = \"more\" }, ".repeat(16);
        let debian = format!("debian = {{ suite = \"trixie\", packages = [\"a\"], also = [{also}] }}");
        home.with(&format!("[workspace]\n[toolchain.d]\n{debian}\n"), &["query"])
    }),
];

/// Builds an artifact that says this.
fn of_an_artifact(home: &Home, before: &str, said: &str) -> Option<Output> {
    home.write("d/f", "f");
    home.with(&format!("[workspace]\n{before}[artifact.a]\ntype = \"a/b\"\n{said}\n"), &["build", ":a"])
}

/// Builds a step in the root of an image.
fn of_an_image(home: &Home, image: &str) -> Option<Output> {
    of_an_image_and(home, image, "")
}

/// The same with more targets.
fn of_an_image_and(home: &Home, image: &str, more: &str) -> Option<Output> {
    let step = "[command.a]\ntoolchain = \":t\"\nrun = \"true\"\n";
    home.with(&format!("[workspace]\n[toolchain.t]\nimage = \"{image}\"\n{step}{more}"), &["build", ":a"])
}

/// Builds a step in the root of an image that holds one thing, which a step makes.
fn of_an_image_with(home: &Home, name: &str, run: &str) -> Option<Output> {
    let made = step("make", run, &format!("outputs = [\"{name}\"]"));
    let image = "[image.i]\nlayers = [{ from = \":make\", to = \"/\" }]\n";
    of_an_image_and(home, "//:i", &format!("{made}{image}"))
}

const FILES: &[(&str, Scene)] = &[
    ("a glob that selects nothing", |home| {
        home.with(&format!("[workspace]\n{}", step("a", "true", "inputs = [\"src/**\"]")), &["build"])
    }),
    ("a glob that selects nothing of a package", |home| {
        home.write("a/cas.toml", &step("a", "true", "inputs = [\"src/**\"]"));
        home.with("[workspace]\nmembers = [\"a\"]\n", &["build"])
    }),
    ("a glob that is none", |home| {
        home.with(&format!("[workspace]\n{}", step("a", "true", "inputs = [\"[\"]")), &["build"])
    }),
    ("a glob that selects very many files", |home| {
        for folder in 0..200 {
            fs::create_dir_all(home.workspace().join(format!("src/{folder}"))).unwrap();
            for file in 0..100 {
                fs::write(home.workspace().join(format!("src/{folder}/{file}")), "").unwrap();
            }
        }
        let count = "find src -type f | wc -l > n";
        let output = home.with(
            &format!("[workspace]\n{}", step("a", count, "inputs = [\"src/**\"]\noutputs = [\"n\"]")),
            &["build", ":a"],
        )?;
        assert_eq!(home.read("cas-out/a/n").trim(), "20000", "{}", text(&output.stderr));
        Some(output)
    }),
    ("two outputs of one target overlap", |home| {
        home.with(&format!("[workspace]\n{}", step("a", "true", "outputs = [\"d\", \"d/e\"]")), &["build"])
    }),
    ("outputs of two targets overlap", |home| {
        let output = home.with(&two_that_write_one_file(), &["build", ":a", ":b"])?;
        assert_eq!((home.read("cas-out/a/d/f"), home.read("cas-out/b/d/f")), ("a\n".to_owned(), "b\n".to_owned()));
        Some(output)
    }),
    ("… and one step needs both", |home| {
        let both = step("c", "cat d/f", "deps = [\":a\", \":b\"]");
        home.with(&format!("{}{both}", two_that_write_one_file()), &["build"])
    }),
    ("an output with the name of a file of the workspace", |home| {
        home.write("f", "of the workspace");
        let one = step("a", "test ! -e f; echo made > f", "outputs = [\"f\"]");
        let other = step("b", "cp f g", "deps = [\":a\"]\noutputs = [\"g\"]");
        let output = home.with(&format!("[workspace]\n{one}{other}"), &["build", ":b"])?;
        assert_eq!(home.read("cas-out/b/g"), "made\n", "{}", text(&output.stderr));
        Some(output)
    }),
    ("a step needs a file inside of its own output", |home| {
        home.write("src/f", "x");
        home.with(&format!("[workspace]\n{}", step("a", "cat src/f > src/g", "outputs = [\"src\"]")), &["build"])
    }),
    ("outputs that differ in case alone", |home| {
        let make = step("a", "echo 1 > Dist; echo 2 > dist", "outputs = [\"Dist\", \"dist\"]");
        let output = home.with(&format!("[workspace]\n{make}"), &["build", ":a"])?;
        assert_eq!(home.read("cas-out/a/Dist"), "1\n", "{}", text(&output.stderr));
        Some(output)
    }),
    ("an output outside of the package", |home| {
        home.with(&format!("[workspace]\n{}", step("a", "true", "outputs = [\"../x\"]")), &["build"])
    }),
    ("an input whose name is not UTF-8", |home| {
        fs::write(home.workspace().join(OsStr::from_bytes(b"a\xffb")), "").unwrap();
        home.with(&format!("[workspace]\n{}", step("a", "true", "")), &["build"])
    }),
    ("… that `inputs` leave out", |home| {
        fs::write(home.workspace().join(OsStr::from_bytes(b"a\xffb")), "").unwrap();
        home.write("f", "x");
        home.with(&format!("[workspace]\n{}", step("a", "true", "inputs = [\"f\"]")), &["build"])
    }),
    ("an output whose name is not UTF-8", |home| {
        let make = "mkdir o; touch o/$(printf 'a\\\\377b')";
        home.with(&format!("[workspace]\n{}", step("a", make, "outputs = [\"o\"]")), &["build"])
    }),
];

const OTHERS: &[(&str, Scene)] = &[
    ("a name like a secret's in `env`", |home| {
        home.with(&format!("[workspace]\n{}", step("a", "true", "env = { NPM_TOKEN = \"x\" }")), &["build"])
    }),
    ("a name like a secret's in `env_in`", |home| {
        home.with(&format!("[workspace]\n{}", step("a", "true", "env_in = [\"AWS_SECRET_ACCESS_KEY\"]")), &["build"])
    }),
    ("a name like a secret's in an image", |home| {
        home.with("[workspace]\n[image.i]\nconfig = { env = { API_KEY = \"x\" } }\n", &["build", ":i"])
    }),
    ("a value like a token in `env`", |home| {
        let secret = "Qx7".repeat(12);
        let env = format!("env = {{ REGISTRY = \"//r/:_authToken=npm_{secret}\" }}");
        let output = home.with(&format!("[workspace]\n{}", step("a", "true", &env)), &["build"])?;
        assert!(!text(&output.stderr).contains("Qx7"), "{}", text(&output.stderr));
        Some(output)
    }),
    ("a broken `turbo.json`", |home| imported(home, "turbo", &[("turbo.json", "{\n")])),
    ("a `turbo.json` that is no object", |home| imported(home, "turbo", &[("turbo.json", "[]")])),
    ("a pipe in the place of `package.json`", |home| {
        fs::remove_file(home.workspace().join("cas.toml")).unwrap();
        assert!(Command::new("mkfifo").arg(home.workspace().join("package.json")).status().unwrap().success());
        Some(home.cas(&["init"]))
    }),
    ("no `turbo.json`", |home| imported(home, "turbo", &[])),
    ("a broken `nx.json`", |home| imported(home, "nx", &[("nx.json", "{\"a\":}")])),
    ("a broken `project.json`", |home| imported(home, "nx", &[("nx.json", "{}"), ("a/project.json", "{ targets")])),
];

fn imported(home: &Home, tool: &str, files: &[(&str, &str)]) -> Option<Output> {
    fs::remove_file(home.workspace().join("cas.toml")).unwrap();
    home.write("package.json", r#"{"name": "root", "workspaces": []}"#);
    for (path, content) in files {
        home.write(path, content);
    }
    Some(home.cas(&["import", tool]))
}

const KEY: &str = "archive@example.invalid";
const LONG_AGO: &str = "Date: Sat, 01 Nov 2025 00:00:00 UTC\n";

/// Locks a toolchain of the package `x`, out of an archive that is made here.
fn of_an_archive(home: &Home, make: impl FnOnce(&Archives)) -> Option<Output> {
    of_an_archive_with(home, "", make)
}

/// The same with more in the section.
fn of_an_archive_with(home: &Home, more: &str, make: impl FnOnce(&Archives)) -> Option<Output> {
    let archives = Archives::new()?;
    write(&home.workspace().join("archive.gpg"), &archives.key(KEY));
    make(&archives);
    let mirror = format!("mirror = \"file://{}\", keyring = \"archive.gpg\"", archives.at("main").display());
    home.with(
        &format!("[workspace]\n[toolchain.d]\ndebian = {{ suite = \"stable\", packages = [\"x\"], {mirror}{more} }}\n"),
        &["build", ":d"],
    )
}

/// A release with these dates, of an archive that is in order.
fn of_release(home: &Home, dates: &str) -> Option<Output> {
    of_an_archive(home, |archives| {
        let index = archives.pool("main", &[("x", "1", &archives.package("x", "1", "x"))]);
        archives.sign("main", "stable", KEY, dates, index.as_bytes());
    })
}

/// A snapshot of a suite that was valid for a week, judged as of a moment.
fn as_of(home: &Home, moment: &str) -> Option<Output> {
    of_an_archive_with(home, &format!(", as_of = {moment}"), |archives| {
        let dates = format!("{LONG_AGO}Valid-Until: Sat, 08 Nov 2025 00:00:00 UTC\n");
        archives.sign("main", "stable", KEY, &dates, archives.pool("main", &[]).as_bytes());
    })
}

/// An index out of one that is in order.
fn of_index(home: &Home, change: impl FnOnce(String) -> String) -> Option<Output> {
    of_an_archive(home, |archives| {
        let index = archives.pool("main", &[("x", "1", &archives.package("x", "1", "x"))]);
        archives.sign("main", "stable", KEY, LONG_AGO, change(index).as_bytes());
    })
}

/// A package of these bytes, which its index announces.
fn of_package(home: &Home, deb: &[u8]) -> Option<Output> {
    of_an_archive(home, |archives| {
        let index = archives.pool("main", &[("x", "1", deb)]);
        archives.sign("main", "stable", KEY, LONG_AGO, index.as_bytes());
    })
}

/// A package with this control file, whose data archive has these members.
fn deb(control: &[u8], data: &[Vec<u8>]) -> Vec<u8> {
    let control = toolchain::tar_member("./control", 0o644, None, control);
    let ended = |mut tar: Vec<u8>| {
        tar.resize(tar.len() + 1024, 0);
        tar
    };
    let (control, data) = (ended(control), ended(data.concat()));
    toolchain::ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &data)])
}

/// The same with a control file that is in order, and one member with a name and perhaps a target; `1` is that of hard links.
fn deb_with(kind: u8, name: &str, target: Option<&str>) -> Vec<u8> {
    let mut member = toolchain::tar_member(name, 0o644, target, b"");
    member[156] = kind;
    member[148..156].fill(b' ');
    let sum: u32 = member[..512].iter().map(|byte| u32::from(*byte)).sum();
    member[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let link = toolchain::tar_member("./link", 0o777, Some("/etc"), b"");
    deb(CONTROL, &[link, member])
}

const CONTROL: &[u8] = b"Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n";

/// Compresses with a program.
fn compressed(program: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let plain = tempfile::NamedTempFile::new().unwrap();
    fs::write(plain.path(), bytes).unwrap();
    let output = Command::new(program).arg("-c").arg(plain.path()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

const DEBIAN: &[(&str, Scene)] = &[
    ("a release that was valid until yesterday", |home| {
        of_release(home, &format!("{LONG_AGO}Valid-Until: Sat, 08 Nov 2025 00:00:00 UTC\n"))
    }),
    ("a snapshot that was valid until the day before `as_of`", |home| as_of(home, "\"2025-11-09\"")),
    ("a release of the day after `as_of`", |home| as_of(home, "\"2025-10-31\"")),
    ("`as_of` is still to come", |home| as_of(home, "\"2999-01-01\"")),
    ("`as_of` is no date", |home| as_of(home, "\"2025-11-31\"")),
    ("`as_of` has an offset", |home| as_of(home, "\"2025-11-05T00:00:00+02:00\"")),
    ("`as_of` is not in quotes", |home| as_of(home, "2025-11-05")),
    ("a release from the future", |home| of_release(home, "Date: Fri, 01 Jan 2100 00:00:00 UTC\n")),
    ("a release without a signature", |home| {
        of_an_archive(home, |archives| write(&archives.at("main/dists/stable/InRelease"), LONG_AGO.as_bytes()))
    }),
    ("an archive without the suite", |home| of_an_archive(home, |_| ())),
    ("an archive that cannot be reached", |home| {
        // Nothing listens at this port, which only root could take.
        let mirror = "mirror = \"http://127.0.0.1:1\"";
        let debian = format!("debian = {{ suite = \"stable\", packages = [\"x\"], {mirror} }}");
        home.with(&format!("[workspace]\n[toolchain.d]\n{debian}\n"), &["build", ":d"])
    }),
    ("an archive without the package index", |home| {
        of_an_archive(home, |archives| {
            archives.sign("main", "stable", KEY, LONG_AGO, b"Package: x\n");
            fs::remove_dir_all(archives.at("main/dists/stable/main")).unwrap();
        })
    }),
    ("a release that another key signs", |home| {
        of_an_archive(home, |archives| {
            archives.key("another@example.invalid");
            archives.sign("main", "stable", "another@example.invalid", LONG_AGO, b"Package: x\n");
        })
    }),
    ("a keyring that is not there", |home| {
        let debian = "debian = { suite = \"stable\", packages = [\"x\"], keyring = \"gone.gpg\" }";
        home.with(&format!("[workspace]\n[toolchain.d]\n{debian}\n"), &["build", ":d"])
    }),
    ("a component that is not in the suite", |home| {
        of_an_archive_with(home, ", components = [\"mian\"]", |archives| {
            archives.sign("main", "stable", KEY, LONG_AGO, b"Package: x\n");
        })
    }),
    ("an index with other bytes than the release says", |home| {
        of_an_archive(home, |archives| {
            archives.sign("main", "stable", KEY, LONG_AGO, b"Package: x\n");
            let folder = fs::read_dir(archives.at("main/dists/stable/main")).unwrap().next().unwrap().unwrap().path();
            fs::write(folder.join("Packages"), "Package: y\n").unwrap();
        })
    }),
    ("an index with a field twice", |home| of_index(home, |index| index.replace("Size: ", "Size: 1\nsize: "))),
    ("an index without a digest", |home| of_index(home, |index| index.replace("SHA256", "MD5sum"))),
    ("an index with a negative size", |home| of_index(home, |index| index.replace("Size: ", "Size: -"))),
    ("an index with a size beyond 64 bits", |home| {
        of_index(home, |index| index.replace("Size: ", "Size: 99999999999999999999"))
    }),
    ("an index with NUL in a name", |home| of_index(home, |index| index.replace("Package: x", "Package: x\0y"))),
    ("an index with a carriage return in a version", |home| {
        of_index(home, |index| index.replace("Version: 1", "Version: 1\r2"))
    }),
    ("an index with a path that leaves the archive", |home| {
        of_index(home, |index| index.replace("Filename: pool", "Filename: pool/../.."))
    }),
    ("an index with a field of 17 MB", |home| {
        of_index(home, |index| index.replace("Size: ", &format!("Description: {}\nSize: ", "x".repeat(17_000_000))))
    }),
    ("two packages of one name and version", |home| {
        of_index(home, |index| {
            let digest = index.lines().find_map(|line| line.strip_prefix("SHA256: ")).unwrap().to_owned();
            format!("{index}{}", index.replace(&digest, &"0".repeat(64)))
        })
    }),
    ("a dependency that nothing fulfils", |home| {
        of_index(home, |index| index.replace("Size: ", "Depends: y (>= 2)\nSize: "))
    }),
    ("a package that is not in the index", |home| of_index(home, |index| index.replace("Package: x", "Package: xx"))),
    ("a `.deb` that is another file", |home| of_package(home, b"PK\x03\x04")),
    ("a `.deb` that is cut off", |home| {
        let whole = deb(CONTROL, &[]);
        of_package(home, &whole[..whole.len() - 700])
    }),
    ("a `.deb` whose member says to be longer", |home| {
        let control = [0; 1024];
        let mut bytes = toolchain::ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control)]);
        let at = bytes.len() - control.len() - 12;
        bytes[at..at + 10].copy_from_slice(b"9999999999");
        of_package(home, &bytes)
    }),
    ("a `.deb` without a data archive", |home| {
        let control = [0; 1024];
        of_package(home, &toolchain::ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control)]))
    }),
    ("a `.deb` without a control file", |home| {
        let empty = [0; 1024];
        of_package(home, &toolchain::ar(&[("debian-binary", b"2.0\n"), ("control.tar", &empty), ("data.tar", &empty)]))
    }),
    ("a `.deb` of another package", |home| {
        of_package(home, &deb(&String::from_utf8_lossy(CONTROL).replace("Package: x", "Package: y").into_bytes(), &[]))
    }),
    ("a `.deb` with a name that leaves the root", |home| of_package(home, &deb_with(b'0', "./usr/../../x", None))),
    ("a `.deb` with a file behind a link", |home| of_package(home, &deb_with(b'0', "./link/passwd", None))),
    ("a `.deb` with a hard link to the outside", |home| {
        of_package(home, &deb_with(b'1', "./usr/x", Some("../../etc/passwd")))
    }),
    ("a `.deb` with damaged compression", |home| {
        let empty = [0; 1024];
        of_package(
            home,
            &toolchain::ar(&[("debian-binary", b"2.0\n"), ("control.tar.xz", &empty), ("data.tar", &empty)]),
        )
    }),
    ("a `.deb` whose control archive is a bomb", |home| {
        let bomb = compressed("gzip", &toolchain::tar_member("./control", 0o644, None, &vec![b'x'; 70 << 20]))?;
        of_package(
            home,
            &toolchain::ar(&[("debian-binary", b"2.0\n"), ("control.tar.gz", &bomb), ("data.tar", &[0; 1024])]),
        )
    }),
    ("a `.deb` whose data archive is a bomb", |home| {
        let part = vec![0; 150 << 20];
        let bomb = [toolchain::tar_member("./a", 0o644, None, &part), toolchain::tar_member("./b", 0o644, None, &part)];
        let bomb = compressed("zstd", &bomb.concat())?;
        let mut control = toolchain::tar_member("./control", 0o644, None, CONTROL);
        control.resize(control.len() + 1024, 0);
        of_package(
            home,
            &toolchain::ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.zst", &bomb)]),
        )
    }),
];

const TIMES: &[(&str, Scene)] = &[
    ("files from the future", |home| {
        let time = SystemTime::now() + Duration::from_secs(3_000_000_000);
        home.write("f", "one");
        home.set_time("f", time);
        let output = home.twice(|home| {
            home.write("f", "two");
            home.set_time("f", time);
        })?;
        assert_eq!(home.read("cas-out/a/o"), "two", "{}", text(&output.stderr));
        Some(output)
    }),
    ("files from before 1970", |home| {
        home.twice(|home| home.set_time("f", SystemTime::UNIX_EPOCH - Duration::from_secs(86_400)))
    }),
    ("a clock that runs backwards", |home| {
        // What was written by the first build has times that are still to come for the second one.
        let output = home.twice(|home| {
            let later = SystemTime::now() + Duration::from_secs(86_400);
            for folder in ["scan", "history", "."] {
                for entry in fs::read_dir(home.in_store(folder)).into_iter().flatten().flatten() {
                    if entry.file_type().unwrap().is_file() {
                        fs::File::options().write(true).open(entry.path()).unwrap().set_modified(later).unwrap();
                    }
                }
            }
            home.write("f", "two");
        })?;
        assert_eq!(home.read("cas-out/a/o"), "two", "{}", text(&output.stderr));
        Some(output)
    }),
    ("a lock of a later version", |home| {
        home.write("cas.lock", "format = 2\n");
        Some(home.cas(&["build"]))
    }),
    ("a damaged lock", |home| {
        home.write("cas.lock", "{{{");
        Some(home.cas(&["build"]))
    }),
    ("a store with features of a later version", |home| {
        home.twice(|home| {
            let text = fs::read_to_string(home.in_store("store.json")).unwrap();
            let text = text.replacen("\"incompatible\": [", "\"incompatible\": [\"telepathy\",", 1);
            fs::write(home.in_store("store.json"), text).unwrap();
        })
    }),
    ("an index of a later version that needs no feature", |home| {
        home.twice(|home| {
            let index = rusqlite::Connection::open(home.in_store("index.db")).unwrap();
            index.pragma_update(None, "user_version", 99).unwrap();
        })
    }),
    ("memos of kinds that are not known", |home| {
        let insert = "INSERT INTO memo VALUES('telepathy-7', x'00', x'01', unixepoch())";
        let output = home.twice(|home| {
            let index = rusqlite::Connection::open(home.in_store("index.db")).unwrap();
            index.execute(insert, []).unwrap();
        })?;
        assert_eq!(home.cas(&["store", "gc"]).status.code(), Some(0));
        let index = rusqlite::Connection::open(home.in_store("index.db")).unwrap();
        let count: i64 =
            index.query_row("SELECT count(*) FROM memo WHERE kind = 'telepathy-7'", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1, "it stays");
        Some(output)
    }),
    ("a history of another version", |home| {
        home.twice(|home| {
            for folder in fs::read_dir(home.in_store("history")).unwrap() {
                for (name, version) in [("states", 2), ("placed", 1)] {
                    let path = folder.as_ref().unwrap().path().join(name);
                    let text = fs::read_to_string(&path).unwrap();
                    let word = if name == "states" { "history" } else { "placed" };
                    assert!(text.starts_with(&format!("cas {word} {version}\n")), "{text}");
                    fs::write(&path, text.replacen(&format!(" {version}\n"), " 9\n", 1)).unwrap();
                }
            }
        })
    }),
];

/// Runs scenes, and compares what they give with the page.
fn check(scenes: &[(&str, Scene)]) {
    let rows = rows();
    let mut wrong = Vec::new();
    for (case, scene) in scenes {
        let Some(home) = Home::with_busybox("[workspace]\n", &[]) else { return };
        let row = rows.get(*case).unwrap_or_else(|| panic!("the page has no row for `{case}`"));
        let Some(output) = scene(&home) else {
            eprintln!("SKIPPED: this machine cannot make the case `{case}`");
            continue;
        };
        let folder = home.folder.path().display().to_string();
        let shown = format!("{}{}", text(&output.stderr), text(&output.stdout)).replace(&folder, "PATH");
        let is_said = match row.said.as_str() {
            "—" => !shown.contains("error") && !shown.contains("warning"),
            said => says(&shown, said),
        };
        if output.status.code() != Some(row.code) || !is_said {
            wrong.push(format!("`{case}` ended with {:?}:\n{shown}", output.status.code()));
        }
    }
    assert!(wrong.is_empty(), "not as docs/formats/bad-input.md says:\n{}", wrong.join("\n"));
}

#[test]
fn where_it_is_run() {
    check(WHERE);
}

#[test]
fn packages_and_members() {
    check(PACKAGES);
}

#[test]
fn targets_that_do_not_go_together() {
    check(TARGETS);
}

#[test]
fn inputs_and_outputs() {
    check(FILES);
}

#[test]
fn secrets_and_files_of_other_tools() {
    check(OTHERS);
}

#[test]
fn archives_of_debian_packages() {
    check(DEBIAN);
}

#[test]
fn clocks_and_versions() {
    check(TIMES);
}

#[test]
fn each_row_of_the_page_is_run() {
    let all = [WHERE, PACKAGES, TARGETS, FILES, OTHERS, DEBIAN, TIMES].concat();
    let mut run: Vec<&str> = all.iter().map(|(case, _)| *case).collect();
    run.sort_unstable();
    let rows = rows();
    let mut page: Vec<&str> = rows.keys().map(String::as_str).collect();
    page.sort_unstable();
    assert_eq!(page, run);
}

#[test]
fn what_is_said_is_compared_in_order() {
    assert!(says("error: a\nhint: b\n", "error: a … hint: b"));
    assert!(!says("hint: b\nerror: a\n", "error: a … hint: b"));
    assert!(!says("error: x\n", "error: a"));
}
