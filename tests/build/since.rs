//! What differs from a revision: for each kind of change `cas affected` before and after a build, compared with what the
//! build of the changed workspace did otherwise than that of the revision.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{Home, text};

const MANIFEST: &str = "\
[workspace]
members = [\"libs/*\", \"apps/*\"]
inputs = [\"shared.txt\"]
[defaults]
toolchain = \"//:sh\"
[defaults.command.build]
run = \"mkdir -p out; cat src/* > out/all\"
deps = [\"^build\"]
outputs = [\"out\"]
[defaults.test.unit]
run = \"test -e out/all\"
deps = [\":build\"]
[image.all]
layers = [{ from = \"//apps/web:build\", path = \"out\", to = \"/srv\" }]
[command.alone]
run = \"cat one.txt > two.txt\"
inputs = [\"one.txt\"]
outputs = [\"two.txt\"]
";

const FILES: [(&str, &str); 16] = [
    (".gitignore", "*.tmp\n/cas-out/\n"),
    ("one.txt", "one\n"),
    ("shared.txt", "shared\n"),
    ("other.txt", "other\n"),
    ("libs/base/cas.toml", "[command.build]\nrun = \"mkdir -p out; cat src/main > out/all\"\n[test.unit]\n"),
    ("libs/base/package.json", "{\"name\":\"base\",\"version\":\"1.0.0\"}"),
    ("libs/base/src/main", "base\n"),
    ("libs/base/src/comment", "not read\n"),
    ("libs/tool/cas.toml", "[command.build]\n[npm.package]\nfrom = \":build\"\n"),
    ("libs/tool/package.json", "{\"name\":\"tool\",\"version\":\"1.0.0\"}"),
    ("libs/tool/src/main", "tool\n"),
    ("apps/web/cas.toml", "[command.build]\nenv = { MODE = \"dev\" }\nenv_in = [\"CHANNEL\"]\n[test.unit]\n"),
    ("apps/web/package.json", "{\"name\":\"web\",\"version\":\"1.0.0\",\"dependencies\":{\"base\":\"*\"}}"),
    ("apps/web/src/a", "a\n"),
    ("apps/web/src/b", "b\n"),
    ("apps/web/notes.tmp", "ignored\n"),
];

const ALONE: &str = "//:alone";
const ALL: &str = "//:all";
const BASE: &str = "//libs/base:build";
const BASE_UNIT: &str = "//libs/base:unit";
const TOOL: &str = "//libs/tool:build";
const TOOL_PACKAGE: &str = "//libs/tool:package";
const WEB: &str = "//apps/web:build";
const WEB_UNIT: &str = "//apps/web:unit";

/// Runs git without the settings of the machine.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always", "-c", "user.name=n", "-c", "user.email=e@example"])
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

impl Home {
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(&self.workspace(), arguments)
    }

    pub(crate) fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "state"]);
    }

    /// What `cas affected` says.
    pub(crate) fn affected(&self, arguments: &[&str]) -> Value {
        let arguments = [&["affected", "--format", "json"], arguments].concat();
        let output = self.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Builds everything: the steps that ran, and what each target gave.
    fn all(&self) -> (BTreeSet<String>, BTreeMap<String, String>) {
        let output = self.cas(&["build", "//...", "--tests", "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
        let ran = |line: &str| Some(line.strip_prefix("ran ")?.split(' ').next()?.to_owned());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = document["results"].as_array().unwrap().iter();
        let digests = rows.map(|row| (row["target"].to_string().replace('"', ""), row["digest"].to_string()));
        (text(&output.stderr).lines().filter_map(ran).collect(), digests.collect())
    }
}

pub(crate) fn labels(document: &Value) -> BTreeSet<String> {
    document["results"].as_array().unwrap().iter().map(|row| row["target"].as_str().unwrap().to_owned()).collect()
}

/// The reasons of a target, each as its kind and name.
fn reasons(document: &Value, target: &str) -> Vec<String> {
    let rows = document["results"].as_array().unwrap().iter();
    let found = rows.filter(|row| row["target"] == target).flat_map(|row| row["reasons"].as_array().unwrap().clone());
    found
        .map(|reason| match reason["name"].as_str() {
            Some(name) => format!("{} {name}", reason["kind"].as_str().unwrap()),
            None => reason["kind"].as_str().unwrap().to_owned(),
        })
        .collect()
}

/// A change, which targets a build of it may do otherwise by static keys, which it does, and why the first of them is told.
struct Change {
    what: &'static str,
    edit: fn(&Home),
    before: &'static [&'static str],
    after: &'static [&'static str],
    reasons: &'static [&'static str],
}

const CHANGES: &[Change] = &[
    Change { what: "nothing", edit: |_| {}, before: &[], after: &[], reasons: &[] },
    Change {
        what: "content of a file",
        edit: |home| home.write("apps/web/src/a", "A\n"),
        before: &[WEB, WEB_UNIT, ALL],
        after: &[WEB, WEB_UNIT, ALL],
        reasons: &["file apps/web/src/a"],
    },
    Change {
        what: "a new file that nobody added",
        edit: |home| home.write("apps/web/src/c", "c\n"),
        before: &[WEB, WEB_UNIT, ALL],
        after: &[WEB, WEB_UNIT, ALL],
        reasons: &["file apps/web/src/c"],
    },
    Change {
        what: "a file in a new folder, added",
        edit: |home| {
            home.write("libs/tool/new/folder/file", "x\n");
            home.git(&["add", "libs/tool/new"]);
        },
        before: &[TOOL, TOOL_PACKAGE],
        after: &[TOOL, TOOL_PACKAGE],
        reasons: &["file libs/tool/new/folder/file"],
    },
    Change {
        what: "another name of a file",
        edit: |home| {
            home.git(&["mv", "apps/web/src/c", "apps/web/src/d"]);
        },
        before: &[WEB, WEB_UNIT, ALL],
        after: &[WEB, WEB_UNIT],
        reasons: &["file apps/web/src/c", "file apps/web/src/d"],
    },
    Change {
        what: "a file that is gone, and its folder",
        edit: |home| fs::remove_dir_all(home.workspace().join("libs/tool/new")).unwrap(),
        before: &[TOOL, TOOL_PACKAGE],
        // It was built before it had that file.
        after: &[TOOL, TOOL_PACKAGE],
        reasons: &["file libs/tool/new/folder/file"],
    },
    Change {
        what: "the right to execute",
        edit: |home| {
            let path = home.workspace().join("one.txt");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        },
        before: &[ALONE],
        after: &[ALONE],
        reasons: &["file one.txt"],
    },
    Change {
        what: "other rights and times",
        edit: |home| {
            let path = home.workspace().join("other.txt");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        },
        before: &[],
        after: &[],
        reasons: &[],
    },
    Change {
        what: "a symbolic link, and then another target of it",
        edit: |home| {
            symlink("a", home.workspace().join("apps/web/src/link")).unwrap();
            home.commit();
            home.all();
            fs::remove_file(home.workspace().join("apps/web/src/link")).unwrap();
            symlink("b", home.workspace().join("apps/web/src/link")).unwrap();
        },
        before: &[WEB, WEB_UNIT, ALL],
        after: &[WEB, WEB_UNIT, ALL],
        reasons: &["file apps/web/src/link"],
    },
    Change {
        what: "a file in the place of a link, a folder in that of a file",
        edit: |home| {
            fs::remove_file(home.workspace().join("apps/web/src/link")).unwrap();
            home.write("apps/web/src/link", "no link\n");
            fs::remove_file(home.workspace().join("other.txt")).unwrap();
            home.write("other.txt/file", "x\n");
        },
        before: &[WEB, WEB_UNIT, ALL],
        after: &[WEB, WEB_UNIT, ALL],
        reasons: &["file apps/web/src/link"],
    },
    Change {
        what: "a file in the place of a folder",
        edit: |home| {
            fs::remove_dir_all(home.workspace().join("apps/web/src")).unwrap();
            home.write("apps/web/src", "x\n");
            home.commit();
            fs::remove_file(home.workspace().join("apps/web/src")).unwrap();
            home.write("apps/web/src/a", "once more\n");
            home.write("apps/web/src/b", "b\n");
        },
        before: &[WEB, WEB_UNIT, ALL],
        // The revision cannot be built.
        after: &[WEB, WEB_UNIT, ALL],
        reasons: &["file apps/web/src", "file apps/web/src/a", "file apps/web/src/b"],
    },
    Change {
        what: "a variable",
        edit: |home| home.edit("apps/web/cas.toml", "\"dev\"", "\"production\""),
        before: &[WEB, WEB_UNIT, ALL],
        // It gives the same.
        after: &[WEB],
        reasons: &["definition env MODE"],
    },
    Change {
        what: "a default that one package says itself",
        edit: |home| home.edit("cas.toml", "cat src/* >", "cat src/?* >"),
        before: &[WEB, WEB_UNIT, ALL, TOOL, TOOL_PACKAGE],
        after: &[WEB, TOOL],
        reasons: &["definition run"],
    },
    Change {
        what: "a comment and the order of a manifest",
        edit: |home| home.write("libs/tool/cas.toml", "# words\n[npm.package]\nfrom = \":build\"\n[command.build]\n"),
        before: &[],
        after: &[],
        reasons: &[],
    },
    Change {
        what: "a file that the workspace gives to all",
        edit: |home| home.write("shared.txt", "other\n"),
        before: &[ALONE, WEB, WEB_UNIT, ALL, TOOL, TOOL_PACKAGE, BASE, BASE_UNIT],
        after: &[ALONE, WEB, WEB_UNIT, TOOL, TOOL_PACKAGE, BASE, BASE_UNIT],
        reasons: &["file shared.txt"],
    },
    Change {
        what: "a dependency that then gives something else",
        edit: |home| home.write("libs/base/src/main", "base 2\n"),
        before: &[BASE, BASE_UNIT, WEB, WEB_UNIT, ALL],
        // What depends on it reads nothing of it.
        after: &[BASE, BASE_UNIT, WEB],
        reasons: &["through //libs/base:build"],
    },
    Change {
        what: "a dependency that then gives the same",
        edit: |home| home.write("libs/base/src/comment", "not read either\n"),
        before: &[BASE, BASE_UNIT, WEB, WEB_UNIT, ALL],
        after: &[BASE, BASE_UNIT],
        reasons: &["through //libs/base:build"],
    },
    Change {
        what: "a dependency more",
        edit: |home| home.edit("apps/web/package.json", "\"base\":\"*\"", "\"base\":\"*\",\"tool\":\"*\""),
        before: &[WEB, WEB_UNIT, ALL],
        after: &[WEB, WEB_UNIT],
        reasons: &["file apps/web/package.json", "through //libs/tool:build"],
    },
    Change {
        what: "a folder that becomes a package",
        edit: |home| {
            home.edit("cas.toml", "\"apps/*\"", "\"apps/*\", \"apps/web/src\"");
            home.write("apps/web/src/cas.toml", "[command.inner]\nrun = \"cat a > x\"\noutputs = [\"x\"]\n");
            home.edit(
                "apps/web/cas.toml",
                "[command.build]\n",
                "[command.build]\nrun = \"mkdir out; echo > out/all\"\n",
            );
        },
        before: &[WEB, WEB_UNIT, ALL, "//apps/web/src:inner"],
        after: &[WEB, WEB_UNIT, ALL, "//apps/web/src:inner"],
        reasons: &["file apps/web/src/a", "file apps/web/src/b", "definition run"],
    },
    Change {
        what: "a target less",
        edit: |home| home.edit("apps/web/cas.toml", "[test.unit]\n", ""),
        before: &[],
        after: &[],
        reasons: &[],
    },
    Change {
        what: "a file that is ignored, and one that was",
        edit: |home| {
            home.write("libs/base/x.tmp", "ignored\n");
            home.edit(".gitignore", "*.tmp\n", "/libs/base/*.tmp\n");
        },
        // The file that was ignored is an input now; of `.gitignore` packing alone asks.
        before: &[WEB, ALL, TOOL_PACKAGE],
        after: &[WEB, TOOL_PACKAGE],
        reasons: &["file apps/web/notes.tmp"],
    },
    Change {
        what: "a file that git is told not to look at",
        edit: |home| {
            home.git(&["update-index", "--assume-unchanged", "one.txt"]);
            home.write("one.txt", "not looked at\n");
            home.git(&["update-index", "--skip-worktree", "libs/tool/src/main"]);
            home.write("libs/tool/src/main", "not looked at\n");
        },
        before: &[ALONE, TOOL, TOOL_PACKAGE, WEB, ALL],
        after: &[ALONE, TOOL, TOOL_PACKAGE, WEB],
        reasons: &["file one.txt"],
    },
    Change {
        what: "a file that git no longer tracks, with its content",
        edit: |home| {
            home.git(&["update-index", "--no-assume-unchanged", "one.txt"]);
            home.git(&["update-index", "--no-skip-worktree", "libs/tool/src/main"]);
            home.commit();
            home.all();
            home.git(&["rm", "--quiet", "--cached", "one.txt"]);
        },
        before: &[],
        after: &[],
        reasons: &[],
    },
    Change {
        what: "a folder that a step keeps",
        edit: |home| home.edit("cas.toml", "[command.alone]\n", "[command.alone]\ncache = [\"kept\"]\n"),
        before: &[ALONE],
        after: &[ALONE],
        reasons: &["definition cache kept"],
    },
    Change {
        what: "a folder that a step may leave, in the place of the other",
        edit: |home| home.edit("cas.toml", "cache = [\"kept\"]", "scratch = [\"left\"]"),
        before: &[ALONE],
        after: &[ALONE],
        reasons: &["definition cache kept", "definition scratch left"],
    },
    Change {
        what: "the toolchain's pins",
        edit: |home| home.edit("cas.lock", "version = \"", "version = \"0."),
        before: &[],
        // Other words for the same package.
        after: &[],
        reasons: &[],
    },
];

fn set(labels: &[&str]) -> BTreeSet<String> {
    labels.iter().map(|label| (*label).to_owned()).collect()
}

#[test]
fn what_a_build_does_otherwise_is_affected() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.git(&["init", "--quiet"]);
    for Change { what, edit, before, after, reasons: expected } in CHANGES {
        home.commit();
        let (_, given) = home.all();
        edit(&home);
        let told = home.affected(&["--since", "HEAD"]);
        let (ran, gives) = home.all();
        let otherwise: BTreeSet<String> = gives
            .iter()
            .filter(|(label, digest)| given.get(*label) != Some(digest))
            .map(|(label, _)| label.clone())
            .collect();
        assert_eq!(labels(&told), set(before), "{what}: {told}");
        assert!(ran.is_subset(&labels(&told)), "{what}: {ran:?} ran, told was {told}");
        assert!(otherwise.is_subset(&labels(&told)), "{what}: {otherwise:?} differ, told was {told}");
        if let Some(first) = before.first() {
            let first = if *first == BASE { WEB } else { first };
            assert_eq!(reasons(&told, first), *expected, "{what}: {told}");
        }
        let refined = home.affected(&["--since", "HEAD"]);
        assert_eq!(labels(&refined), set(after), "{what}, after a build: {refined}");
        assert!(ran.is_subset(&labels(&refined)), "{what}: {ran:?} ran, told was {refined}");
        assert!(otherwise.is_subset(&labels(&refined)), "{what}: {otherwise:?} differ, told was {refined}");
    }
    // However far away the revision is.
    let first = home.git(&["rev-list", "--max-parents=0", "HEAD"]);
    let told = home.affected(&["--since", first.trim(), "//libs/..."]);
    assert_eq!(labels(&told), set(&[BASE, BASE_UNIT, TOOL, TOOL_PACKAGE]), "{told}");
    assert_eq!(told["commit"], first.trim());
}

/// What nobody has is named by what it would be made of, and nothing is fetched for that.
#[test]
fn an_empty_store_gives_the_answer_of_static_keys() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.git(&["init", "--quiet"]);
    home.commit();
    home.write("libs/base/src/comment", "not read either\n");
    let told = home.affected(&["--since", "HEAD"]);
    assert_eq!(labels(&told), set(&[BASE, BASE_UNIT, WEB, WEB_UNIT, ALL]), "{told}");
    let by = |target: &str| {
        let row = told["results"].as_array().unwrap().iter().find(|row| row["target"] == target).unwrap();
        row["by"].as_str().unwrap().to_owned()
    };
    // Nothing below this one is unknown.
    assert_eq!([by(BASE), by(BASE_UNIT), by(WEB)], ["results", "static-keys", "static-keys"]);
    assert_eq!(labels(&home.affected(&["--since", "HEAD", "--kind", "test,image"])), set(&[BASE_UNIT, WEB_UNIT, ALL]));
    let output = home.cas(&["affected", "--since", "HEAD", "//libs/..."]);
    assert_eq!(
        text(&output.stdout),
        "command //libs/base:build  file libs/base/src/comment\n\
         test //libs/base:unit  file libs/base/src/comment, through //libs/base:build (by static keys)\n"
    );
    assert_eq!(text(&output.stderr), "");
    assert_eq!(home.affected(&["--since", "HEAD", "//libs/tool/..."])["results"], serde_json::json!([]));
}

/// A target that waits for others of its name passes on what they give, whatever it gives itself.
#[test]
fn what_is_behind_a_dependency_counts() {
    let member = |name: &str, needs: &str, run: &str| {
        let needs = if needs.is_empty() { String::new() } else { format!(",\"dependencies\":{{\"{needs}\":\"*\"}}") };
        [
            (format!("{name}/package.json"), format!("{{\"name\":\"{name}\"{needs}}}")),
            (
                format!("{name}/cas.toml"),
                format!("[command.build]\nrun = \"{run}\"\ndeps = [\"^build\"]\noutputs = [\"out\"]\n"),
            ),
        ]
    };
    let manifest = "[workspace]\nmembers = [\"*\"]\n[defaults]\ntoolchain = \"//:sh\"\n";
    let Some(home) = Home::with_busybox(manifest, &[("base/file", "one\n")]) else { return };
    let members = [
        member("base", "", "cp file out"),
        member("middle", "base", "echo always > out"),
        member("app", "middle", "cat ../*/out > out"),
    ];
    for (path, content) in members.iter().flatten() {
        home.write(path, content);
    }
    home.git(&["init", "--quiet"]);
    home.commit();
    home.all();
    home.write("base/file", "two\n");
    let all = set(&["//app:build", "//base:build", "//middle:build"]);
    for _ in 0..2 {
        let told = home.affected(&["--since", "HEAD"]);
        assert_eq!(labels(&told), all, "{told}");
        assert_eq!(reasons(&told, "//app:build"), ["through //middle:build"]);
        home.all();
    }
}

#[test]
fn a_lockfile_counts_as_far_as_a_package_reaches() {
    let Some((home, lock)) = crate::npm::workspace() else { return };
    home.git(&["init", "--quiet"]);
    home.commit();
    let integrity = |place: &str| {
        let entry = &lock[lock.find(&format!("\"{place}\"")).unwrap()..];
        entry.split('"').find(|word| word.starts_with("sha512-")).unwrap()
    };
    let other = "sha512-RvRC/ti6u6xG1dfSg8G5gN0Ep9GU/03sX1X7knHFmruRPTn1VGPdCn+xXLsuoVDL6L2aArAyqY+en0jjYFATpw==";
    for is_built in [false, true] {
        if is_built {
            home.write("package-lock.json", &lock);
            let output = crate::npm::build(&home, &["build", "//..."]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        }
        for (place, expected) in [
            ("node_modules/unused", &["//:npm"][..]),
            ("node_modules/tool", &["//:npm", "//apps/web:look"]),
            ("node_modules/@s/left", &["//:npm", "//apps/web:image", "//apps/web:look", "//apps/web:run"]),
        ] {
            home.write("package-lock.json", &lock.replace(integrity(place), other));
            let told = home.affected(&["--since", "HEAD"]);
            assert_eq!(labels(&told), set(expected), "{place}, built: {is_built}: {told}");
            if expected.len() > 1 {
                assert_eq!(reasons(&told, "//apps/web:look"), ["lockfile package-lock.json"], "{told}");
            }
        }
    }
}

#[test]
fn what_cannot_be_compared_is_affected_and_said() {
    let manifest =
        "[workspace]\n[command.build]\ntoolchain = \":sh\"\nrun = \"cat a > b\"\ninputs = [\"a\"]\noutputs = [\"b\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[("a", "a\n")]) else { return };
    home.git(&["init", "--quiet"]);
    let manifest = home.read("cas.toml");
    for (before, words) in [
        (None, "`cas.toml` was not there, or no workspace's"),
        (
            Some("[command.build]\ntoolchain = \":x\"\nrun = \"x\"\noutputs = [\"x\"]\n".to_owned()),
            "`cas.toml` was not there, or no workspace's",
        ),
        (Some(manifest.replace("outputs", "outptus")), "`cas.toml` as it was cannot be used: unknown key `outptus`"),
        (
            Some(manifest.replace("[workspace]\n", "[workspace]\ndigest_function = \"sha256\"\n")),
            "`digest_function` was another one",
        ),
        (Some(manifest.replace("\":sh\"", "\":none\"")), "there is no target `//:none`"),
    ] {
        match before {
            Some(before) => home.write("cas.toml", &before),
            None => fs::remove_file(home.workspace().join("cas.toml")).unwrap(),
        }
        home.commit();
        home.write("cas.toml", &manifest);
        let told = home.affected(&["--since", "HEAD"]);
        assert_eq!((told["everything"].as_str(), labels(&told)), (Some(words), set(&["//:build", "//:sh"])));
        let output = home.cas(&["affected", "--since", "HEAD"]);
        assert_eq!(text(&output.stderr), format!("everything is affected: in HEAD {words}\n"));
    }
}

#[test]
fn targets_that_cannot_be_built_are_the_same_when_nothing_of_theirs_differs() {
    let manifest = "[workspace]\nmembers = [\"*\"]\n[defaults]\ntoolchain = \"//:sh\"\n\
        [command.use]\nrun = \"true\"\ndeps = [\"//p:broken\"]\n";
    let broken = "[command.broken]\nrun = \"true\"\ninputs = [\"none/*\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[("p/cas.toml", broken), ("p/a", "a\n")]) else { return };
    home.git(&["init", "--quiet"]);
    home.commit();
    assert_eq!(labels(&home.affected(&["--since", "HEAD"])), set(&[]));
    home.write("b", "b\n");
    assert_eq!(labels(&home.affected(&["--since", "HEAD"])), set(&["//:use"]));
    home.write("p/a", "b\n");
    let told = home.affected(&["--since", "HEAD"]);
    assert_eq!(labels(&told), set(&["//:use", "//p:broken"]));
    let failure = "failure input pattern `none/*` selects no file of `p`";
    assert_eq!(reasons(&told, "//p:broken"), [failure]);
    home.write("p/none/file", "");
    assert_eq!(reasons(&home.affected(&["--since", "HEAD"]), "//p:broken"), [failure]);
}

#[test]
fn a_revision_that_cannot_be_read_is_told() {
    let home = Home::new("[workspace]\n");
    let told = |arguments: &[&str]| {
        let output = home.cas(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
        text(&output.stderr).replace(&home.folder.path().display().to_string(), "HOME")
    };
    assert_eq!(
        told(&["affected", "--since", "HEAD"]),
        "error: `HOME/workspace` is in no git repository\nhint: revisions are those of git: `git init`, and commit what there is\n"
    );
    home.git(&["init", "--quiet"]);
    home.commit();
    home.commit();
    let first = home.git(&["rev-parse", "HEAD~1"]);
    assert_eq!(
        told(&["affected", "--since", "nope"]),
        "error: `nope` is no revision of this repository\nhint: name a commit, a branch or a tag; `git fetch` brings those of others\n"
    );
    let url = format!("file://{}", home.workspace().display());
    home.git(&["clone", "--quiet", "--depth=1", &url, "../shallow"]);
    let shown = told(&["-C", "../shallow", "affected", "--since", first.trim()]);
    assert!(shown.contains("hint: the clone is shallow: `git fetch --unshallow`"), "{shown}");
    assert!(told(&["affected", "--since=HEAD", "--kind", "comand"]).starts_with("error: invalid value 'comand'"));
    let output = home.cas(&["affected", "--since", "HEAD", "//none:x"]);
    assert!(text(&output.stderr).starts_with("error: there is no target `//none:x`"), "{}", text(&output.stderr));
}

#[test]
fn targets_that_are_new_or_gone_are_told_apart() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.git(&["init", "--quiet"]);
    home.commit();
    fs::rename(home.workspace().join("libs/tool"), home.workspace().join("libs/other")).unwrap();
    let told = home.affected(&["--since", "HEAD"]);
    assert_eq!(labels(&told), set(&["//libs/other:build", "//libs/other:package"]));
    assert_eq!(reasons(&told, "//libs/other:build"), ["new"]);
    let gone = serde_json::json!([
        { "kind": "command", "target": TOOL },
        { "kind": "npm", "target": TOOL_PACKAGE },
    ]);
    assert_eq!(told["removed"], gone);
    let told = home.affected(&["--since", "HEAD", "//libs/tool/..."]);
    assert_eq!((labels(&told), &told["removed"]), (set(&[]), &gone));
    let output = home.cas(&["affected", "--since", "HEAD", "--kind", "npm"]);
    assert_eq!(text(&output.stdout), "npm //libs/other:package  new\nremoved npm //libs/tool:package\n");
}

#[test]
fn why_tells_what_differs_from_a_revision() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.git(&["init", "--quiet"]);
    home.commit();
    let why = |target: &str| {
        let output = home.cas(&["why", target, "--since", "HEAD"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(why(WEB), "//apps/web:build is made of the same\n");
    home.write("libs/base/src/main", "base 2\n");
    home.edit("apps/web/cas.toml", "\"dev\"", "\"production\"");
    fs::rename(home.workspace().join("apps/web/src/b"), home.workspace().join("apps/web/src/c")).unwrap();
    assert_eq!(
        why(WEB_UNIT),
        "//apps/web:unit is made of something else\n  dependency //apps/web:build changed\n  \
         file apps/web/src/c was apps/web/src/b\n  \
         //apps/web:build is made of something else\n    dependency //libs/base:build changed\n    \
         env MODE: dev -> production\n    file apps/web/src/c was apps/web/src/b\n    \
         //libs/base:build is made of something else\n      file libs/base/src/main changed\n"
    );
    home.write("apps/web/cas.toml", "[command.new]\nrun = \"true\"\n");
    assert_eq!(why("//apps/web:new"), "//apps/web:new is new\n");
    home.write(
        "cas.toml",
        &home.read("cas.toml").replace("[workspace]\n", "[workspace]\ndigest_function = \"sha256\"\n"),
    );
    assert_eq!(
        why(BASE),
        "//libs/base:build is made of something else\n  nothing can be compared: `digest_function` was another one\n"
    );
}

/// Packages that a sparse checkout leaves out are in neither state.
#[test]
fn a_sparse_checkout_is_compared_as_far_as_it_goes() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.git(&["init", "--quiet"]);
    home.commit();
    home.write("libs/base/src/comment", "not read either\n");
    home.commit();
    for index in ["--no-sparse-index", "--sparse-index"] {
        home.git(&["sparse-checkout", "set", "--cone", index, "libs/base", "apps"]);
        let told = home.affected(&["--since", "HEAD"]);
        assert_eq!((labels(&told), &told["removed"]), (set(&[]), &serde_json::json!([])), "{told}");
        let told = home.affected(&["--since", "HEAD~1"]);
        assert_eq!(labels(&told), set(&[BASE, BASE_UNIT, WEB, WEB_UNIT, ALL]), "{told}");
        home.git(&["sparse-checkout", "disable"]);
    }
}

/// Before there was a folder, there was no workspace in it.
#[test]
fn a_folder_that_a_revision_lacks_is_new() {
    let home = Home::new("[workspace]\n");
    let top = home.folder.path();
    git(top, &["init", "--quiet"]);
    git(top, &["commit", "--quiet", "--allow-empty", "--message", "nothing"]);
    git(top, &["add", "workspace"]);
    git(top, &["commit", "--quiet", "--message", "workspace"]);
    assert_eq!(home.affected(&["--since", "HEAD"])["everything"], Value::Null);
    let told = home.affected(&["--since", "HEAD~1"]);
    assert_eq!(told["everything"], "`cas.toml` was not there, or no workspace's");
}
