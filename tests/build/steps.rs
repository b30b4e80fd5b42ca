//! Steps: what they find, what becomes of what they leave, and when they run at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use crate::{Home, text};

const STEP: &str = "toolchain = \"//:sh\"\n";

pub(crate) fn workspace(targets: &str) -> String {
    format!("[workspace]\nmembers = [\"libs/*\", \"apps/*\"]\n{}", targets.replace("STEP\n", STEP))
}

fn targets(text: &str) -> String {
    text.replace("STEP\n", STEP)
}

/// The last line on standard error: how many steps ran, how many were cached.
#[track_caller]
fn steps(output: &Output) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    stderr.lines().last().unwrap_or_default().to_owned()
}

/// Steps that ran, by label.
fn ran(output: &Output) -> Vec<String> {
    let stderr = text(&output.stderr);
    let mut labels: Vec<String> =
        stderr.lines().filter_map(|line| Some(line.strip_prefix("ran ")?.split(' ').next()?.to_owned())).collect();
    labels.sort();
    labels
}

#[test]
fn a_step_sees_its_inputs_and_nothing_else() {
    let manifest = workspace(
        "[command.look]\nSTEP\nrun = \"find /src > /tmp/l; sort /tmp/l > out/list; env | sort > out/env; id >> out/env\"\n\
         inputs = [\"a\", \"dir/**\"]\noutputs = [\"out/list\", \"out/env\"]\nenv = { ZED = \"1 2\", TZ = \"Asia/Tokyo\" }\n",
    );
    let Some(home) = Home::with_busybox(
        &manifest,
        &[
            ("a", "#!x"),
            ("b", "not an input"),
            ("dir/sp ace/\u{fc}", "x"),
            ("libs/l/cas.toml", ""),
            ("libs/l/x", "another package's"),
        ],
    ) else {
        return;
    };
    let output = home.command(&["build", ":look"]).env("SECRET", "hidden").output().unwrap();
    assert_eq!(steps(&output), "1 step ran, 0 were cached");
    assert_eq!(
        home.read("cas-out/look/out/list"),
        "/src\n/src/a\n/src/dir\n/src/dir/sp ace\n/src/dir/sp ace/\u{fc}\n/src/out\n"
    );
    assert_eq!(
        home.read("cas-out/look/out/env"),
        "HOME=/tmp\nLANG=C.UTF-8\nLC_ALL=C.UTF-8\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/src\nSHLVL=1\n\
         SOURCE_DATE_EPOCH=499162500\nTMPDIR=/tmp\nTZ=Asia/Tokyo\nZED=1 2\nuid=1000(build) gid=1000(build)\n"
    );
}

/// What these bytes are is part of `format_version` 1: keys, results and trees.
#[test]
fn outputs_have_golden_digests_whatever_must_not_matter() {
    let manifest = workspace(
        "[command.make]\nSTEP\nrun = \"mkdir -p out/empty && cp a out/a && chmod 700 out/a && ln -s a out/l && : > 'out/n o'\"\noutputs = [\"out\"]\n",
    );
    for (umask, jobs) in [("022", "1"), ("077", "8")] {
        let Some(home) = Home::with_busybox(&manifest, &[("a", "text\n")]) else { return };
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args([
            "-c",
            &format!("umask {umask} && exec \"$0\" build :make --jobs {jobs}"),
            env!("CARGO_BIN_EXE_cas"),
        ]);
        shell.current_dir(home.workspace()).env_clear().env("CAS_HOME", home.folder.path().join("s"));
        let output = shell.output().unwrap();
        assert_eq!(
            text(&output.stdout),
            "command //:make blake3:e6830ee9d9b3c0b984bab1cf052c2578ada9e882ad2319b67e80121b8ff5a367  cas-out/make\n",
            "{}",
            text(&output.stderr)
        );
    }
}

/// Two libraries, one using the other, and an application that uses both.
fn monorepo() -> Option<Home> {
    let library = "[command.build]\nSTEP\nrun = \"mkdir dist; tr a-z A-Z < src > dist/x; for d in ../*/dist/x; do cat $d; done | sort > dist/seen\"\n\
         deps = [\"^build\"]\noutputs = [\"dist\"]\n";
    let application = "[command.build]\nSTEP\nrun = \"cat ../../libs/*/dist/x ../../libs/*/package.json src > all\"\n\
         deps = [\"^build\"]\noutputs = [\"all\"]\n[test.unit]\nSTEP\nrun = \"ls all src\"\ndeps = [\":build\"]\n";
    Home::with_busybox(
        &workspace(""),
        &[
            ("libs/one/cas.toml", &targets(library)),
            ("libs/one/package.json", "{\"name\": \"one\"}"),
            ("libs/one/src", "one # a\n"),
            ("libs/two/cas.toml", &targets(library)),
            ("libs/two/package.json", "{\"name\": \"two\", \"dependencies\": {\"one\": \"*\", \"left\": \"1\"}}"),
            ("libs/two/src", "two\n"),
            ("apps/web/cas.toml", &targets(application)),
            ("apps/web/package.json", "{\"name\": \"web\", \"devDependencies\": {\"two\": \"*\"}}"),
            ("apps/web/src", "web\n"),
        ],
    )
}

#[test]
fn only_dependents_of_changed_outputs_run() {
    let Some(home) = monorepo() else { return };
    let first = home.cas(&["build"]);
    assert_eq!(ran(&first), ["//apps/web:build", "//libs/one:build", "//libs/two:build"]);
    // The application gets what its dependency depends on, too.
    let all = home.read("cas-out/apps/web/build/all");
    assert!(all.starts_with("ONE # A\nTWO\n{\"name\": \"one\"}{\"name\": \"two\""), "{all}");
    assert_eq!(steps(&home.cas(&["build"])), "0 steps ran, 3 were cached");
    // A file of one library.
    home.write("libs/two/src", "two two\n");
    assert_eq!(ran(&home.cas(&["build"])), ["//apps/web:build", "//libs/two:build"]);
    // An edit that leaves the output equal: nothing behind it runs.
    home.write("libs/one/src", "ONE # a\n");
    assert_eq!(ran(&home.cas(&["build"])), ["//libs/one:build"]);
    // Back to what was: everything is known.
    home.write("libs/one/src", "one # a\n");
    home.write("libs/two/src", "two\n");
    let last = home.cas(&["build", "--offline", "--locked"]);
    assert_eq!(steps(&last), "0 steps ran, 3 were cached");
    assert_eq!(text(&last.stdout), text(&first.stdout));
    // The right to execute is part of a file.
    home.write("libs/two/package.json", "{\"name\": \"two\", \"dependencies\": {\"one\": \"*\"}}");
    assert_eq!(ran(&home.cas(&["build"])), ["//apps/web:build", "//libs/two:build"]);
}

#[test]
fn tests_are_cached_when_they_pass_and_run_again_when_they_fail() {
    let Some(home) = monorepo() else { return };
    let tests = "[test.good]\nSTEP\nrun = \"true\"\n[test.bad]\nSTEP\nrun = \"echo out; echo err >&2; test -e fixed\"\n[test.ugly]\nSTEP\nrun = \"true ugly\"\ndeps = [\":bad\"]\n";
    home.write("libs/three/cas.toml", &targets(tests));
    for _ in 0..2 {
        let output = home.cas(&["test"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stderr.contains(
                "error: `//libs/three:bad` failed: exit code 1\n  | out\n  | err\nhint: the whole output is in `"
            ),
            "{stderr}"
        );
        // What does not depend on the failure went on; what does was not tried.
        assert_eq!(
            text(&output.stdout).lines().map(|line| line.split(' ').nth(1).unwrap()).collect::<Vec<_>>(),
            ["//apps/web:unit", "//libs/three:good"]
        );
    }
    home.write("libs/three/fixed", "");
    assert_eq!(ran(&home.cas(&["test"])), ["//libs/three:bad", "//libs/three:good", "//libs/three:ugly"]);
    assert_eq!(steps(&home.cas(&["test"])), "0 steps ran, 7 were cached");
    // A pattern of `build` leaves tests alone, a name does not.
    assert_eq!(home.cas(&["build", "//libs/three/..."]).status.code(), Some(0));
    assert_eq!(steps(&home.cas(&["build", "//libs/three:good"])), "0 steps ran, 1 was cached");
}

#[test]
fn what_a_step_does_wrong_is_told_and_nothing_is_kept() {
    let rows: &[(&str, &str, &str)] = &[
        ("run = \"exit 3\"\noutputs = [\"o\"]", "error: `//:x` failed: exit code 3", "hint: the whole output is in `"),
        ("run = \"kill -9 $$\"", "error: `//:x` failed: signal 9", ""),
        ("run = \"sleep 60\"\ntimeout = \"1s\"", "error: `//:x` failed: it ran longer than 1 s", ""),
        (
            "run = \"true\"\noutputs = [\"o\", \"p/q\"]",
            "error: `//:x` did not make `o`, `p/q`",
            "hint: paths of `outputs` are relative",
        ),
        ("run = \"touch 0\"\noutputs = [\"o\"]", "error: `//:x` did not make `o`", "hint: it made `0`"),
        (
            "run = \"touch o p; mkdir q\"\noutputs = [\"o\"]",
            "error: `//:x` left `p`, `q`, which its `outputs` do not name",
            "hint: add \"p\", \"q\" to `outputs`, or to `scratch`",
        ),
        (
            "run = \"touch \\\"$(printf 'p\\\\nran y')\\\"\"",
            "error: `//:x` left `p\\nran y`, which",
            "hint: add \"p\\nran y\" to `outputs`",
        ),
        (
            "run = \"mkdir -p $(yes d | head -n 1500 | tr -c d /); touch o\"\noutputs = [\"d\", \"o\"]",
            "error: ",
            "step made more than 1024 folders inside of each other, in `d`",
        ),
        (
            "run = \"echo x > in; touch o\"\noutputs = [\"o\"]",
            "error: `//:x` changed its inputs `in`",
            "hint: write elsewhere",
        ),
        ("run = \"rm in; rm -r d\"", "error: `//:x` changed its inputs `d`, `in`", ""),
        ("run = \"chmod +x in\"", "error: `//:x` changed its inputs `in`", ""),
        ("run = \"rm d/f && rm -r d && mkdir d\"", "error: `//:x` changed its inputs `d`", ""),
        ("run = \"mkfifo o\"\noutputs = [\"o\"]", "error: `//:x` made `o`, a fifo", ""),
        (
            "run = [\"frobnicate\"]",
            "error: `//:x` did not start\n  cause: program `frobnicate` is not in the root file system",
            "hint: add what provides `frobnicate`",
        ),
        ("run = \"true\"\ndeps = [\":sh\"]", "", ""),
        (
            "run = \"true\"\ndeps = [\"^x\"]",
            "error: `^x` of `//:x`: its package has no `package.json`",
            "hint: name the targets instead",
        ),
        (
            "run = \"true\"\ninputs = [\"nope\"]",
            "error: input pattern `nope` selects no file of the workspace's root",
            "",
        ),
    ];
    for (step, message, hint) in rows {
        let kind = if step.contains("outputs") { "command" } else { "test" };
        let manifest = workspace(&format!("[{kind}.x]\nSTEP\n{step}\n"));
        let Some(home) = Home::with_busybox(&manifest, &[("in", "text\n"), ("d/f", "")]) else { return };
        for _ in 0..2 {
            let output = home.cas(&["build", ":x"]);
            // The workspace has no packages yet, of which a warning tells.
            let stderr: String = text(&output.stderr)
                .lines()
                .filter(|line| !line.starts_with("warning: "))
                .map(|line| format!("{line}\n"))
                .collect();
            if message.is_empty() {
                // The toolchain may be named twice.
                assert_eq!(output.status.code(), Some(0), "{stderr}");
                continue;
            }
            assert!(stderr.starts_with(message) && stderr.contains(hint), "{step} gave {stderr}");
            assert!(matches!(output.status.code(), Some(1 | 2)), "{step}");
            assert!(!home.workspace().join("cas-out").exists());
        }
    }
}

#[test]
fn what_a_step_may_do_is_no_error() {
    for step in [
        "run = \"touch in; cat in > /tmp/x; cat /tmp/x > in\"",
        "run = \"mv in /tmp/x; mv /tmp/x in\"",
        "run = \"mkdir -p s/t .cache node_modules/.cache; touch s/t/u .cache/v node_modules/.cache/w\"\nscratch = [\"s\"]",
        "run = \"mkdir -p d/node_modules/.vite/t node_modules/.vite-temp; touch d/node_modules/.vite/t/r\"",
        "run = \"touch /usr/bin/x /etc/passwd; rm -r /var\"",
        "run = \"mkdir -p d/e; touch d/e/g\"\noutputs = [\"d\"]",
        "run = \"mkdir -p $(yes p | head -n 1000 | tr -c p /)\"\noutputs = [\"p\"]",
    ] {
        let kind = if step.contains("outputs") { "command" } else { "test" };
        let manifest = workspace(&format!("[{kind}.x]\nSTEP\n{step}\n"));
        let Some(home) = Home::with_busybox(&manifest, &[("in", "text\n"), ("d/f", "")]) else { return };
        let output = home.cas(&["build", ":x"]);
        assert_eq!(steps(&output), "1 step ran, 0 were cached", "{step}");
        assert!(!home.workspace().join("cas-out/x/d/f").exists());
    }
}

/// What a step may leave is part of what it is: an equal one that may not is another one.
#[test]
fn what_a_step_may_leave_belongs_to_its_key() {
    let manifest = workspace("[command.x]\nSTEP\nrun = \"mkdir s; echo > s/t; echo 1 > o\"\noutputs = [\"o\"]\n");
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    home.edit("cas.toml", "outputs = [", "scratch = [\"s\"]\noutputs = [");
    assert_eq!(steps(&home.cas(&["build", ":x"])), "1 step ran, 0 were cached");
    home.edit("cas.toml", "scratch = [\"s\"]\n", "");
    let output = home.cas(&["build", ":x"]);
    assert_eq!(output.status.code(), Some(1), "a clean build fails as well: {}", text(&output.stderr));
    assert!(text(&output.stderr).contains("`//:x` left `s"), "{}", text(&output.stderr));
}

/// A number of processors that a step says is what it sees, and part of what it is; the machine's number is neither.
#[test]
fn a_step_sees_as_many_processors_as_it_says() {
    let manifest = workspace("[command.x]\nSTEP\nrun = \"busybox nproc > n\"\noutputs = [\"n\"]\n");
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    let seen = || {
        let output = home.cas(&["build", ":x"]);
        (steps(&output), home.read("cas-out/x/n"))
    };
    let all = std::thread::available_parallelism().unwrap();
    assert_eq!(seen(), ("1 step ran, 0 were cached".to_owned(), format!("{all}\n")));
    home.edit("cas.toml", "outputs = [", "cpus = 1\noutputs = [");
    assert_eq!(seen(), ("1 step ran, 0 were cached".to_owned(), "1\n".to_owned()));
    home.edit("cas.toml", "cpus = 1\n", "");
    assert_eq!(seen(), ("0 steps ran, 1 was cached".to_owned(), format!("{all}\n")));
}

/// Addresses that repeat are asked for, and part of the key.
#[test]
fn a_step_without_random_addresses_is_another_one() {
    let manifest = workspace(
        "[command.x]\nSTEP\nrun = \"busybox cut -d' ' -f1 /proc/self/personality /proc/self/maps > a\"\noutputs = [\"a\"]\n",
    );
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    assert_eq!(steps(&home.cas(&["build", ":x"])), "1 step ran, 0 were cached");
    assert!(home.read("cas-out/x/a").starts_with("00000000\n"));
    home.edit("cas.toml", "outputs = [", "aslr = false\noutputs = [");
    assert_eq!(steps(&home.cas(&["build", ":x"])), "1 step ran, 0 were cached");
    assert!(home.read("cas-out/x/a").starts_with("00040000\n"));
    let repeated = home.cas(&["build", ":x", "--check-repeat"]);
    assert_eq!(repeated.status.code(), Some(0), "{}", text(&repeated.stderr));
}

/// Whoever meets what the store lost makes it again, and each step is counted once.
#[test]
fn what_was_lost_is_made_again_and_counted_once() {
    let manifest = workspace(
        "[command.a]\nSTEP\nrun = \"cat in > o\"\noutputs = [\"o\"]\n\
         [command.b]\nSTEP\nrun = \"cat o > p\"\ndeps = [\":a\"]\ninputs = []\noutputs = [\"p\"]\n",
    );
    let Some(home) = Home::with_busybox(&manifest, &[("in", "text of a length that no other object has\n")]) else {
        return;
    };
    let damage = || {
        let objects = home.folder.path().join("store/v1/objects/blake3");
        for shard in fs::read_dir(objects).unwrap() {
            for object in fs::read_dir(shard.unwrap().path()).unwrap() {
                let path = object.unwrap().path();
                if fs::read(&path).unwrap().starts_with(b"text of a length") {
                    let times = fs::metadata(&path).unwrap().modified().unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
                    fs::write(&path, "TEXT of a length that no other object has\n").unwrap();
                    fs::File::options().write(true).open(&path).unwrap().set_modified(times).unwrap();
                }
            }
        }
    };
    assert_eq!(steps(&home.cas(&["build", ":a"])), "1 step ran, 0 were cached");
    damage();
    let output = home.cas(&["run", ":b"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(steps(&home.cas(&["build"])), "1 step ran, 1 was cached");
    damage();
    fs::remove_dir_all(home.workspace().join("cas-out")).unwrap();
    let output = home.cas(&["build"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let last = steps(&output);
    assert!(last.starts_with("1 step ran, 1 was cached") || last.starts_with("2 steps ran, 0 were"), "{last}");
    assert_eq!(home.read("cas-out/b/p"), "text of a length that no other object has\n");
}

/// What a dependency of the same package made goes before a stale copy in the workspace, and is part of an output.
#[test]
fn outputs_take_the_place_of_stale_copies() {
    let manifest = workspace(
        "[command.gen]\nSTEP\nrun = \"mkdir gen; echo new > gen/a\"\noutputs = [\"gen\"]\n\
         [command.more]\nSTEP\nrun = \"cat gen/a > gen/b\"\ndeps = [\":gen\"]\noutputs = [\"gen\"]\n",
    );
    let Some(home) = Home::with_busybox(&manifest, &[("gen/a", "old"), ("gen/stale", "")]) else { return };
    assert_eq!(steps(&home.cas(&["build", ":more"])), "2 steps ran, 0 were cached");
    let mut names: Vec<_> = fs::read_dir(home.workspace().join("cas-out/more/gen"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(home.read("cas-out/more/gen/b"), "new\n");
}

/// A store may be named from the folder that one is in.
#[test]
fn steps_run_with_a_store_that_has_a_relative_name() {
    let manifest = workspace("[test.x]\nSTEP\nrun = \"test -e in\"\n");
    let Some(home) = Home::with_busybox(&manifest, &[("in", "")]) else { return };
    assert_eq!(steps(&home.cas(&["--store", "../near", "build", ":x"])), "1 step ran, 0 were cached");
}

#[test]
fn inputs_that_differ_at_one_path_are_an_error() {
    let manifest = workspace(
        "[command.a]\nSTEP\nrun = \"mkdir d; echo 1 > d/x\"\noutputs = [\"d\"]\n\
         [command.b]\nSTEP\nrun = \"mkdir d; echo 2 > d/x\"\noutputs = [\"d\"]\n\
         [test.c]\nSTEP\nrun = \"true\"\ndeps = [\":a\", \":b\"]\n",
    );
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    let output = home.cas(&["test"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("error: two inputs of `//:c` differ at `d/x`"), "{}", text(&output.stderr));
}

/// A result whose blobs are gone is made again.
#[test]
fn a_result_without_its_blobs_is_a_miss() {
    let manifest = workspace("[command.x]\nSTEP\nrun = \"echo hello > o\"\noutputs = [\"o\"]\n");
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    assert_eq!(steps(&home.cas(&["build", ":x"])), "1 step ran, 0 were cached");
    let digest = cas_digest::Digest::of(cas_digest::DigestFunction::Blake3, b"hello\n").to_hex();
    let object = home.folder.path().join("store/v1/objects/blake3").join(&digest[..2]).join(&digest[2..]);
    fs::remove_file(object).unwrap();
    assert_eq!(steps(&home.cas(&["build", ":x"])), "1 step ran, 0 were cached");
    assert_eq!(steps(&home.cas(&["build", ":x"])), "0 steps ran, 1 was cached");
}

#[test]
fn a_file_that_changes_during_the_build_fails_it() {
    let manifest = workspace("[test.slow]\nSTEP\nrun = \"sleep 2\"\n");
    let Some(home) = Home::with_busybox(&manifest, &[("in", "one")]) else { return };
    let child = home
        .command(&["test"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    home.write("in", "two");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("error: `in` changed during the build\nhint: "), "{}", text(&output.stderr));
}

#[test]
fn layers_take_what_steps_made() {
    let manifest = workspace(
        "[command.x]\nSTEP\nrun = \"mkdir -p dist/sub; echo 1 > dist/a; echo 2 > dist/sub/b; chmod +x dist/a\"\noutputs = [\"dist\"]\n\
         [image.all]\nbase = \":sh\"\nlayers = [{ from = \":x\", to = \"/\" }]\n\
         [image.part]\nbase = \":sh\"\nlayers = [{ from = \":x\", path = \"dist\", to = \"/app\" }, { from = \":x\", path = \"dist/sub/b\", to = \"/etc\" }]\n\
         [image.wrong]\nlayers = [{ from = \":x\", path = \"dits\", to = \"/\" }]\n",
    );
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    for (image, command, expected) in
        [(":all", "cat /dist/a /dist/sub/b", "1\n2\n"), (":part", "cat /app/a /app/sub/b /etc/b", "1\n2\n2\n")]
    {
        let output = home.cas(&["run", image, "--", "/bin/sh", "-c", command]);
        assert!(text(&output.stdout).starts_with(expected), "{}{}", text(&output.stdout), text(&output.stderr));
    }
    let output = home.cas(&["build", ":wrong"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).starts_with("ran //:x")
            || text(&output.stderr).contains("error: `//:x` has no output `dits`")
    );
}
