//! Explanations: for each kind of change what would run, and why, before and after it did.

use std::fs;
use std::os::unix::fs::PermissionsExt;

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
";

const FILES: [(&str, &str); 8] = [
    ("shared.txt", "shared\n"),
    ("libs/base/cas.toml", "[command.build]\nrun = \"mkdir -p out; cat src/main > out/all\"\n"),
    ("libs/base/package.json", "{\"name\":\"base\"}"),
    ("libs/base/src/main", "base\n"),
    ("apps/web/cas.toml", "[command.build]\nenv = { MODE = \"dev\" }\nenv_in = [\"CHANNEL\"]\n"),
    ("apps/web/package.json", "{\"name\":\"web\",\"dependencies\":{\"base\":\"*\"}}"),
    ("apps/web/src/a", "a\n"),
    ("apps/web/src/b", "b\n"),
];

const WEB: &str = "//apps/web:build";
const BASE: &str = "//libs/base:build";

impl Home {
    fn why(&self, target: &str, channel: &str) -> String {
        let output = self.command(&["why", target]).env("CHANNEL", channel).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The steps that a build ran.
    fn runs(&self, channel: &str) -> Vec<String> {
        let output = self.command(&["build", "//..."]).env("CHANNEL", channel).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        let ran = |line: &str| Some(line.strip_prefix("ran ")?.split(' ').next()?.to_owned());
        let mut labels: Vec<String> = stderr.lines().filter_map(ran).collect();
        labels.sort();
        labels
    }

    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let before = self.read(path);
        assert!(before.contains(from), "{path} has no {from:?}");
        self.write(path, &before.replace(from, to));
    }
}

/// A change, what it makes run, and lines that `cas why //apps/web:build` prints before the build.
struct Change {
    what: &'static str,
    edit: fn(&Home),
    runs: &'static [&'static str],
    lines: &'static [&'static str],
}

const CHANGES: [Change; 17] = [
    Change {
        what: "content of a file",
        edit: |home| home.write("apps/web/src/a", "A\n"),
        runs: &[WEB],
        lines: &["//apps/web:build would run", "  file apps/web/src/a changed"],
    },
    Change {
        what: "a new file",
        edit: |home| home.write("apps/web/src/c", "c\n"),
        runs: &[WEB],
        lines: &["//apps/web:build would run", "  file apps/web/src/c is new"],
    },
    Change {
        what: "another name of a file",
        edit: |home| {
            let at = home.workspace().join("apps/web/src");
            fs::rename(at.join("c"), at.join("d")).unwrap();
        },
        runs: &[WEB],
        lines: &["//apps/web:build would run", "  file apps/web/src/d was apps/web/src/c"],
    },
    Change {
        what: "a file that is gone",
        edit: |home| fs::remove_file(home.workspace().join("apps/web/src/b")).unwrap(),
        runs: &[WEB],
        lines: &["//apps/web:build would run", "  file apps/web/src/b is gone"],
    },
    Change {
        what: "the file is there again, and everything as it was before",
        edit: |home| home.write("apps/web/src/b", "b\n"),
        runs: &[],
        lines: &[
            "//apps/web:build has its outputs from an earlier build; since the last one",
            "  file apps/web/src/b is new",
        ],
    },
    Change {
        what: "the right to execute",
        edit: |home| {
            let path = home.workspace().join("apps/web/src/b");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        },
        runs: &[WEB],
        lines: &["//apps/web:build would run", "  file apps/web/src/b may be executed now, or no longer"],
    },
    Change {
        what: "other rights and times",
        edit: |home| {
            let path = home.workspace().join("apps/web/src/b");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o744)).unwrap();
            fs::File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        },
        runs: &[],
        lines: &["//apps/web:build is up to date, and last changed with"],
    },
    Change {
        what: "a variable",
        edit: |home| home.edit("apps/web/cas.toml", "\"dev\"", "\"production\""),
        runs: &[WEB],
        lines: &["//apps/web:build would run", "  env MODE: dev -> production"],
    },
    Change {
        what: "the command",
        edit: |home| home.edit("cas.toml", "cat src/* >", "cat src/?* >"),
        // The other package has its own.
        runs: &[WEB],
        lines: &[
            "  run: [\"/bin/sh\",\"-euc\",\"mkdir -p out; cat src/* > out/all\"] -> [\"/bin/sh\",\"-euc\",\"mkdir -p out; cat src/?* > out/all\"]",
        ],
    },
    Change {
        what: "the time that it may take",
        edit: |home| home.edit("apps/web/cas.toml", "[command.build]\n", "[command.build]\ntimeout = \"1m\"\n"),
        runs: &[WEB],
        lines: &["//apps/web:build would run", "  timeout: 600 s -> 60 s"],
    },
    Change {
        what: "an output",
        edit: |home| home.edit("cas.toml", "outputs = [\"out\"]", "outputs = [\"out/all\"]"),
        runs: &[WEB, BASE],
        lines: &[
            "//apps/web:build would run after what it depends on",
            "  //libs/base:build would run",
            "    output out is gone",
        ],
    },
    Change {
        what: "a file that the workspace gives to all",
        edit: |home| home.write("shared.txt", "other\n"),
        runs: &[WEB, BASE],
        lines: &[
            "//apps/web:build would run after what it depends on",
            "  //libs/base:build would run",
            "    file shared.txt changed",
        ],
    },
    Change {
        what: "a dependency that then gives something else",
        edit: |home| home.write("libs/base/src/main", "base 2\n"),
        runs: &[WEB, BASE],
        lines: &[
            "//apps/web:build would run after what it depends on",
            "  //libs/base:build would run",
            "    file libs/base/src/main changed",
        ],
    },
    Change {
        what: "a dependency that then gives the same",
        edit: |home| home.write("libs/base/src/comment", "not used\n"),
        runs: &[BASE],
        lines: &["//apps/web:build would run after what it depends on", "    file libs/base/src/comment is new"],
    },
    Change {
        what: "a dependency less",
        edit: |home| home.edit("apps/web/package.json", ",\"dependencies\":{\"base\":\"*\"}", ""),
        runs: &[WEB],
        lines: &[
            "//apps/web:build would run",
            "  dependency //libs/base:build is gone",
            "  file apps/web/package.json changed",
        ],
    },
    Change {
        what: "an output that was deleted or edited by hand",
        edit: |home| {
            fs::write(home.workspace().join("cas-out/apps/web/build/out/all"), "edited").unwrap();
            fs::remove_dir_all(home.workspace().join("cas-out/libs")).unwrap();
        },
        runs: &[],
        lines: &["//apps/web:build is up to date, and last changed with"],
    },
    Change {
        what: "a file that is ignored",
        edit: |home| {
            home.write(".gitignore", "*.tmp\n");
            home.write("apps/web/src/x.tmp", "ignored\n");
        },
        runs: &[],
        lines: &["//apps/web:build is up to date, and last changed with"],
    },
];

#[test]
fn each_change_runs_what_it_has_to_and_is_told() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    assert_eq!(
        home.why(WEB, "beta"),
        "//apps/web:build would run after what it depends on\n  //:sh has to be fetched first\n  \
         //libs/base:build would run after what it depends on\n"
    );
    assert_eq!(home.runs("beta"), [WEB, BASE]);
    assert_eq!(home.why(WEB, "beta"), "//apps/web:build is up to date\n");
    for Change { what, edit, runs, lines } in CHANGES {
        edit(&home);
        let told = home.why(WEB, "beta");
        for line in lines {
            assert!(told.lines().any(|told| told == *line), "{what}: no line {line:?} in\n{told}");
        }
        assert_eq!(home.runs("beta"), runs, "{what}");
        let after = home.why(WEB, "beta");
        if runs.contains(&WEB) {
            assert!(after.starts_with("//apps/web:build is up to date, and last changed with\n"), "{what}: {after}");
            if !lines[0].ends_with("depends on") {
                let before: Vec<&str> = told.lines().skip(1).collect();
                assert_eq!(after.lines().skip(1).collect::<Vec<_>>(), before, "{what}");
            }
        }
        assert_eq!(home.runs("beta"), [""; 0], "{what}, once more");
        assert_eq!(home.read("cas-out/libs/base/build/out/all"), home.read("libs/base/src/main"), "{what}");
        let sources =
            ["a", "b", "c", "d"].map(|name| fs::read_to_string(home.workspace().join("apps/web/src").join(name)));
        let expected: String = sources.into_iter().flatten().collect();
        assert_eq!(home.read("cas-out/apps/web/build/out/all").replace("ignored\n", ""), expected, "{what}");
    }
    // A variable of whoever builds.
    assert!(home.why(WEB, "stable").contains("  env CHANNEL: beta -> stable\n"));
    assert_eq!(home.runs("stable"), [WEB]);
}

#[test]
fn a_dependency_that_changed_leads_to_its_own_reasons() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.runs("");
    home.write("libs/base/src/main", "base 2\n");
    home.runs("");
    assert_eq!(
        home.why(WEB, ""),
        "//apps/web:build is up to date, and last changed with\n  dependency //libs/base:build changed\n  \
         //libs/base:build is up to date, and last changed with\n    file libs/base/src/main changed\n"
    );
    let output = home.command(&["why", WEB, "--format", "json"]).env("CHANNEL", "").output().unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["reason"]["because"][0]["differences"][0]["name"], "libs/base/src/main");
}

#[test]
fn another_lane_is_compared_with() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.runs("");
    let in_lane = |lane: &str| {
        let output = home.command(&["why", WEB, "--lane", lane]).env("CHANNEL", "").output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let same = |lane: &str| format!("compared with the last build in lane {lane}\n{WEB} is made of the same\n");
    assert_eq!(in_lane("strict"), (Some(0), same("strict"), String::new()));
    // The programs of the machine instead, as on a laptop, and another edit.
    home.edit("cas.toml", "toolchain = \"//:sh\"", "toolchain = \"//:machine\"");
    home.edit("cas.toml", "[defaults]", "[toolchain.machine]\nhost = { identity = \"a\" }\n[defaults]");
    home.write("libs/base/src/main", "base 2\n");
    let strict = [
        format!("{WEB} is made of something else\n"),
        "  host //:machine is new\n  toolchain //:machine is new\n  toolchain //:sh is gone\n".to_owned(),
        format!("  dependency {BASE} changed\n"),
        "    file libs/base/src/main changed\n".to_owned(),
    ];
    // Before it is built only the dependency is known to run; afterwards all is told.
    let told = in_lane("strict").1;
    assert!(
        told.contains(&format!("\n{WEB} would run after what it depends on\n")) && told.contains(&strict[3]),
        "{told}"
    );
    assert_eq!(home.runs(""), [WEB, BASE]);
    let told = in_lane("strict").1;
    for part in strict {
        assert!(part.lines().all(|line| told.contains(line)), "{part}{told}");
    }
    let told = in_lane("host").1;
    let lane = told.lines().next().unwrap().rsplit(' ').next().unwrap().to_owned();
    assert!(lane.starts_with("host:") && told == same(&lane), "{told}");
    let (code, _, told) = in_lane("incremental");
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains(&format!("no build of `{WEB}` in a lane `incremental` is remembered")), "{told}");
    assert!(told.contains("there are builds in `host:") && told.contains("`strict`"), "{told}");
}

#[test]
fn a_step_that_failed_or_lost_its_result_would_run_again() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    home.runs("");
    // All content goes, and what is made of it with it.
    fs::remove_dir_all(home.folder.path().join("store/v1/objects")).unwrap();
    fs::create_dir(home.folder.path().join("store/v1/objects")).unwrap();
    let told = home.why(BASE, "");
    assert!(told.contains("would run") || told.contains("nobody remembers"), "{told}");
    assert_eq!(home.runs(""), [WEB, BASE]);
    home.write("libs/base/src/main", "base 2\n");
    home.edit("libs/base/cas.toml", "mkdir -p out;", "false; mkdir -p out;");
    assert_eq!(home.cas(&["build", BASE]).status.code(), Some(1));
    let told = home.why(BASE, "");
    assert!(told.contains("nothing changed, but its last run failed"), "{told}");
}

#[test]
fn targets_are_listed_and_drawn() {
    let Some(home) = Home::with_busybox(MANIFEST, &FILES) else { return };
    let lines = |arguments: &[&str]| {
        let output = home.cas(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(lines(&["query"]), format!("toolchain //:sh\ncommand {WEB}\ncommand {BASE}\n"));
    assert_eq!(lines(&["query", BASE, "--needed-by", "--kind", "command"]), format!("command {WEB}\ncommand {BASE}\n"));
    assert_eq!(lines(&["query", BASE, "--needs"]), format!("toolchain //:sh\ncommand {BASE}\n"));
    let drawn = lines(&["graph", "--format", "dot", WEB]);
    assert!(
        drawn.starts_with("digraph cas {\n") && drawn.contains(&format!("  \"{WEB}\" -> \"{BASE}\";\n")),
        "{drawn}"
    );
    let document: serde_json::Value = serde_json::from_str(&lines(&["graph", "--format", "json"])).unwrap();
    assert_eq!(document["targets"].as_array().map(Vec::len), Some(3));
}

#[test]
fn shells_and_manuals_get_their_texts() {
    let home = Home::new("[workspace]\n");
    let output = home.cas(&["completions", "bash"]);
    assert!(output.status.success() && text(&output.stdout).contains("cas__subcmd__why"), "{}", text(&output.stdout));
    assert_eq!(home.cas(&["man", "pages"]).status.code(), Some(0));
    let page = home.read("pages/cas-why.1");
    assert!(page.starts_with(".ie") && page.contains("cas\\-why"), "{page}");
    assert!(home.read("pages/cas.1").contains(".TH CAS 1"));
}
