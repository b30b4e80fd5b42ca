//! What developers do all day: checkouts of outputs, programs with live sources, builds that follow changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Home, text};

const MADE: &str = "[workspace]\n[defaults]\ntoolchain = \":sh\"\n\
    [command.made]\nrun = \"mkdir -p dist/deep; for f in one two; do cat src/$f > dist/$f; done; echo > dist/deep/x; ln -s one dist/link; chmod +x dist/two\"\n\
    inputs = [\"src/**\"]\noutputs = [\"dist\"]\n\
    [test.all]\nrun = \"find . -type f | sort > /dev/stderr\"\n";
const SOURCES: [(&str, &str); 2] = [("src/one", "1"), ("src/two", "2")];

fn git(home: &Home, arguments: &[&str]) -> bool {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(arguments);
    command.current_dir(home.workspace()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn inode(home: &Home, path: &str) -> u64 {
    fs::symlink_metadata(home.workspace().join(path)).unwrap().ino()
}

#[track_caller]
fn succeeds(home: &Home, arguments: &[&str]) -> String {
    let output = home.cas(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn fails(home: &Home, arguments: &[&str], code: i32, message: &str) {
    let output = home.cas(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(message), "{arguments:?}: {stderr}");
}

#[test]
fn only_what_differs_is_written() {
    let Some(home) = Home::with_busybox(MADE, &SOURCES) else { return };
    home.write(".gitignore", "dist\n");
    assert_eq!(succeeds(&home, &["checkout", ":made"]), "dist //:made, 4 written\n");
    assert_eq!((home.read("dist/one"), home.read("dist/link")), ("1".to_owned(), "1".to_owned()));
    assert_eq!(fs::metadata(home.workspace().join("dist/two")).unwrap().mode() & 0o777, 0o755);
    let times = |path: &str| fs::metadata(home.workspace().join(path)).unwrap().mtime();
    assert!(times("dist/one") > 1_500_000_000, "it is as new as it is, for those who look at times");
    let before = ["dist", "dist/one", "dist/two", "dist/link"].map(|path| inode(&home, path));
    assert_eq!(succeeds(&home, &["checkout", ":made"]), "dist //:made, as it was\n");
    home.write("src/two", "22");
    assert_eq!(succeeds(&home, &["checkout", ":made"]), "dist //:made, 1 written\n");
    let after = ["dist", "dist/one", "dist/two", "dist/link"].map(|path| inode(&home, path));
    assert_eq!([before[0], before[1], before[3]], [after[0], after[1], after[3]]);
    assert!(before[2] != after[2] && home.read("dist/two") == "22");
    // What is gone comes back, what is no output any more leaves.
    fs::remove_file(home.workspace().join("dist/one")).unwrap();
    let manifest = home.read("cas.toml").replace("; echo > dist/deep/x", "");
    home.write("cas.toml", &manifest);
    assert_eq!(succeeds(&home, &["checkout", ":made"]), "dist //:made, 1 written, 1 removed\n");
    assert!(home.workspace().join("dist/deep").is_dir() && !home.workspace().join("dist/deep/x").exists());
    assert_eq!(fs::read_dir(home.workspace().join("cas-out")).unwrap().count(), 0, "nothing is left in the workshop");
}

#[test]
fn nothing_of_the_users_is_lost() {
    let Some(home) = Home::with_busybox(MADE, &SOURCES) else { return };
    home.write(".gitignore", "dist\n");
    // What is there before the first checkout is somebody's.
    home.write("dist/old", "mine");
    fails(&home, &["checkout", ":made"], 1, "`dist/old` is in the way of outputs");
    assert!(!home.workspace().join("dist/one").exists());
    fs::remove_file(home.workspace().join("dist/old")).unwrap();
    home.write("dist/one", "1");
    assert_eq!(succeeds(&home, &["checkout", ":made"]), "dist //:made, 3 written\n", "what is equal is no loss");
    // A change of the user's, be it as long as what was there.
    home.write("dist/one", "x");
    home.write("src/two", "22");
    for arguments in [&["checkout", ":made"][..], &["checkout", "--clean"]] {
        fails(&home, arguments, 1, "error: `dist/one` is in the way of outputs: not as `cas checkout` left it");
        assert_eq!((home.read("dist/one"), home.read("dist/two")), ("x".to_owned(), "2".to_owned()));
    }
    // A touch is no change, nor is a file of a tool's in a folder of ours.
    home.write("dist/one", "1");
    home.write("dist/.cache/tool", "t");
    assert_eq!(succeeds(&home, &["checkout", ":made"]), "dist //:made, 1 written\n");
    assert_eq!(home.read("dist/.cache/tool"), "t");
    home.write("dist/one", "x");
    assert_eq!(succeeds(&home, &["checkout", ":made", "--force"]), "dist //:made, 1 written, 1 removed\n");
    assert_eq!(home.read("dist/one"), "1");
    assert!(!home.workspace().join("dist/.cache").exists());
}

#[test]
fn what_was_checked_out_is_removed_again() {
    let Some(home) = Home::with_busybox(MADE, &SOURCES) else { return };
    home.write(".gitignore", "dist\n");
    succeeds(&home, &["checkout", "//..."]);
    home.write("dist/deep/own", "mine");
    assert_eq!(succeeds(&home, &["checkout", "--clean", ":made"]), "dist //:made, 4 removed\n");
    assert_eq!((home.workspace().join("dist/one").exists(), home.read("dist/deep/own")), (false, "mine".to_owned()));
    assert_eq!(succeeds(&home, &["checkout", "--clean"]), "");
    fs::remove_file(home.workspace().join("dist/deep/own")).unwrap();
    fs::remove_dir(home.workspace().join("dist/deep")).unwrap();
    fs::remove_dir(home.workspace().join("dist")).unwrap();
    succeeds(&home, &["checkout", ":made"]);
    succeeds(&home, &["checkout", "--clean"]);
    assert!(!home.workspace().join("dist").exists());
}

#[test]
fn places_are_those_that_git_ignores() {
    let Some(home) = Home::with_busybox(MADE, &SOURCES) else { return };
    if !git(&home, &["init", "."]) {
        eprintln!("SKIPPED: there is no git");
        return;
    }
    let hint = "hint: add the line `/dist` to `.gitignore`";
    fails(&home, &["checkout", ":made"], 2, hint);
    fails(&home, &["checkout", ":made", "--force"], 2, hint);
    assert!(!home.workspace().join("dist").exists());
    home.write(".gitignore", "/dist\n!/dist/one\n");
    succeeds(&home, &["checkout", ":made"]);
    // A file that is tracked is a source, whatever the rules say.
    assert!(git(&home, &["add", "-f", "dist/two"]));
    fails(&home, &["checkout", ":made"], 2, "`dist` is where `//:made` would be checked out, and git tracks it");
    fails(&home, &["checkout", ":all"], 2, "cannot be checked out");
}

/// With git and without it, nothing that is checked out is an input of anybody.
#[test]
fn what_is_checked_out_is_no_source() {
    for has_git in [true, false] {
        let Some(home) = Home::with_busybox(MADE, &SOURCES) else { return };
        if has_git {
            if !git(&home, &["init", "."]) {
                continue;
            }
            home.write(".gitignore", "dist\n");
        }
        succeeds(&home, &["test"]);
        succeeds(&home, &["checkout", ":made"]);
        let output = home.cas(&["test"]);
        assert!(text(&output.stderr).contains("0 steps ran, 1 was cached"), "{has_git}: {}", text(&output.stderr));
        if !has_git {
            // Without git, a place that is taken is not touched.
            succeeds(&home, &["checkout", "--clean"]);
            home.write("dist/source", "mine");
            fails(&home, &["checkout", ":made", "--force"], 2, "`/dist` to `.gitignore`");
            let output = home.cas(&["test"]);
            assert!(text(&output.stderr).contains("ran //:all"), "{}", text(&output.stderr));
        }
    }
}

#[test]
fn a_link_above_a_place_leads_nowhere() {
    let Some(home) = Home::with_busybox(&MADE.replace("dist", "build/dist"), &SOURCES) else { return };
    home.write(".gitignore", "build\n");
    let elsewhere = home.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, home.workspace().join("build")).unwrap();
    fails(&home, &["checkout", ":made"], 1, "`build` is in the way of outputs: no folder");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

const PROGRAMS: &str = "[workspace]\n[defaults]\ntoolchain = \":sh\"\n\
    [command.made]\nrun = \"cat src/one > out; echo ran\"\noutputs = [\"out\"]\n\
    [command.fails]\nrun = \"exit 9\"\n\
    [test.all]\nrun = \"cat src/one; echo $WORD; cat; echo > left; exit 7\"\nenv = { WORD = \"w\" }\n\
    [run.box]\nrun = [\"/bin/busybox\", \"cat\", \"src/one\", \"out\"]\nlive = false\ndeps = [\":made\"]\n\
    [run.dev]\nrun = \"cat out; echo $WORD $OTHER $PATH; pwd\"\ndeps = [\":made\"]\nenv = { WORD = \"w\", OTHER = \"o\" }\nenv_in = [\"OTHER\"]\n\
    [run.broken]\nrun = \"echo no\"\ndeps = [\":fails\"]\n";

#[test]
fn commands_and_tests_run_with_the_streams_of_the_caller() {
    let Some(home) = Home::with_busybox(PROGRAMS, &SOURCES) else { return };
    let mut child = home.command(&["run", ":all", "-e", "WORD=v"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"typed").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(7), "1v\ntyped"),
        "{}",
        text(&output.stderr)
    );
    assert!(!home.workspace().join("left").exists());
    let output = home.cas(&["run", ":box", "--", "src/two"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "112"), "{}", text(&output.stderr));
    // Nothing of it was kept, and it is no target of builds.
    let output = home.cas(&["test", ":all"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(succeeds(&home, &["query", "--kind", "run"]), "run //:box\nrun //:broken\nrun //:dev\n");
    fails(&home, &["build", ":box"], 2, "`//:box` is a run, and cannot be built");
    let output = home.cas(&["build", "//...", "--keep-going"]);
    assert!(!text(&output.stderr).contains("cannot be built"), "{}", text(&output.stderr));
}

#[test]
fn a_shell_finds_what_the_step_finds() {
    let Some(home) = Home::with_busybox(MADE, &SOURCES) else { return };
    let shell = |input: &str, arguments: &[&str]| {
        let mut command = home.command(&[&["sandbox", "shell", ":made"], arguments].concat());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, told) = shell("pwd\nls src\necho $SOURCE_DATE_EPOCH\ntouch left\ncat cas.toml\nexit 7\n", &[]);
    assert_eq!(code, Some(7), "{told}");
    assert!(
        out.starts_with("/src\none\ntwo\n") && out.trim_end().ends_with(|last: char| last.is_ascii_digit()),
        "{out}"
    );
    assert!(told.contains("in the sandbox of //:made") && told.contains("mkdir -p dist/deep"), "{told}");
    assert!(told.contains("cas.toml"), "it is no input, so it is not there: {told}");
    assert!(!home.workspace().join("left").exists());
    assert_eq!(shell("", &["--", "/bin/sh", "-c", "echo one word"]), (Some(0), "one word\n".to_owned(), String::new()));
    // Nothing of it is a result: the step still has to run.
    assert!(text(&home.cas(&["build"]).stderr).contains("1 step ran"));
    fails(&home, &["sandbox", "shell", ":sh"], 2, "looked into");
}

#[test]
fn a_live_program_runs_in_the_workspace() {
    let Some(home) = Home::with_busybox(PROGRAMS, &SOURCES) else { return };
    home.write(".gitignore", "out\nnode_modules\n");
    let run = |arguments: &[&str]| {
        home.command(arguments).env("PATH", "/usr/bin:/bin").env("WORD", "user").env("OTHER", "user").output().unwrap()
    };
    let bin = home.workspace().join("node_modules/.bin");
    let expected = format!("1w user {}:/usr/bin:/bin\n{}\n", bin.display(), home.workspace().display());
    let output = run(&["run", ":dev"]);
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    // Sources are live, outputs are built.
    home.write("src/one", "new");
    assert!(text(&run(&["run", ":dev"]).stdout).starts_with("neww user"));
    let output = run(&["run", ":dev", "-e", "WORD=e", "--", "&&", "exit 5"]);
    assert!(text(&output.stdout).contains("newe user"), "{}", text(&output.stdout));
    fails(&home, &["run", ":broken"], 1, "`//:fails` failed");
    fs::remove_file(home.workspace().join(".gitignore")).unwrap();
    assert!(git(&home, &["init", "."]));
    fails(&home, &["run", ":dev"], 2, "add the line `/out` to `.gitignore`");
}

/// The processes with a word in their command line.
fn with_word(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

#[test]
fn a_live_program_gets_signals_and_leaves_nothing_behind() {
    // Seconds that no other test sleeps: they name the processes.
    let word = |number: u32| format!("{}.{number}", 3000 + std::process::id() % 900);
    let (child, far) = (word(1), word(2));
    let run = format!(
        "sleep {child} & setsid sleep {far} & trap 'echo told; exit 3' INT TERM; echo up > up; while :; do sleep 0.1; done"
    );
    for (number, code) in [("-INT", 3), ("-TERM", 3)] {
        let home = Home::new(&format!("[workspace]\n[run.dev]\nrun = \"{run}\"\n"));
        let mut command = home.command(&["run", ":dev"]);
        let process = command.env("PATH", "/usr/bin:/bin").stdout(Stdio::piped()).spawn().unwrap();
        until("it does not start", || {
            home.workspace().join("up").exists() && with_word(&child).len() == 1 && with_word(&far).len() == 1
        });
        signal(number, process.id());
        let output = process.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(code), "told\n"));
        assert_eq!((with_word(&child).len(), with_word(&far).len()), (0, 0), "something was left behind");
    }
    let home = Home::new("[workspace]\n[run.dev]\nrun = \"kill -9 $$\"\n[run.none]\nrun = [\"/no/such\"]\n");
    assert_eq!(home.cas(&["run", ":dev"]).status.code(), Some(128 + 9));
    fails(&home, &["run", ":none"], 2, "could not run `/no/such`");
}

/// A build that watches, and what it printed so far.
struct Watching {
    process: std::process::Child,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Watching {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let (out, err) = (home.folder.path().join("stdout"), home.folder.path().join("stderr"));
        let mut command = home.command(arguments);
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap()).process_group(0);
        Self { process: command.spawn().unwrap(), out, err }
    }

    fn errors(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// How often it has nothing to do.
    fn rest_count(&self) -> usize {
        self.errors().matches("waiting for changes\n").count()
    }

    #[track_caller]
    fn rests(&self, count: usize) {
        until(&format!("it does not rest {count} times: {}", self.errors()), || self.rest_count() >= count);
    }

    #[track_caller]
    fn ends(mut self, signal: &str, code: i32) {
        crate::daily::signal(signal, self.process.id());
        let started = Instant::now();
        assert_eq!(self.process.wait().unwrap().code(), Some(code));
        assert!(started.elapsed() < Duration::from_secs(5));
        let group = format!("{}", self.process.id());
        let left = Command::new("pgrep").args(["-g", &group]).output();
        assert!(left.is_ok_and(|left| left.stdout.is_empty()), "a process is left");
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const COPY: &str = "[workspace]\nmembers = [\"p/*\"]\n[command.copy]\ntoolchain = \":sh\"\nrun = \"cat src/* > out\"\noutputs = [\"out\"]\n";

#[test]
fn a_build_follows_changes() {
    let Some(home) = Home::with_busybox(COPY, &[("src/one", "1")]) else { return };
    let watching = Watching::start(&home, &["build", "--watch", "--trace", "trace.json"]);
    watching.rests(1);
    let is_out = |content: &str| home.read("cas-out/copy/out") == content;
    assert!(is_out("1"));
    let mut step = {
        let mut count = 1;
        let (home, watching) = (&home, &watching);
        move |what: &str, change: &dyn Fn(), content: &str| {
            change();
            until(&format!("{what}: {}", watching.errors()), || home.read("cas-out/copy/out") == content);
            count += 1;
            watching.rests(count);
        }
    };
    step("content", &|| home.write("src/one", "2"), "2");
    step("a burst", &|| (0..300).for_each(|number| home.write("src/one", &number.to_string())), "299");
    step("a new file", &|| home.write("src/two", "b"), "299b");
    let at = |path: &str| home.workspace().join(path);
    step("a rename", &|| fs::rename(at("src/two"), at("src/a")).unwrap(), "b299");
    step(
        "a folder made anew",
        &|| {
            fs::remove_dir_all(at("src")).unwrap();
            home.write("src/one", "x");
        },
        "x",
    );
    step("a file in it", &|| home.write("src/one", "y"), "y");
    step(
        "a folder moved away and another one in its place",
        &|| {
            home.write("next/one", "z");
            fs::rename(at("src"), at("last")).unwrap();
            fs::rename(at("next"), at("src")).unwrap();
        },
        "z",
    );
    let manifest = home.read("cas.toml");
    step("another command", &|| home.write("cas.toml", &manifest.replace("cat src/*", "echo new")), "new\n");
    assert!(watching.errors().contains("changed: cas.toml\n"), "{}", watching.errors());
    // Neither its own outputs nor what nobody builds from make it build again.
    let before = watching.errors().matches("changed: ").count();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(watching.errors().matches("changed: ").count(), before, "{}", watching.errors());
    assert!(at("trace.json").exists() && !watching.errors().contains("\u{1b}"));
    watching.ends("-INT", 130);
}

#[test]
fn what_is_wrong_is_told_and_waited_on() {
    let Some(home) = Home::with_busybox(COPY, &[("src/one", "1")]) else { return };
    let manifest = home.read("cas.toml");
    home.write("cas.toml", &manifest.replace("toolchain", "toolchian"));
    let watching = Watching::start(&home, &["build", "--watch"]);
    watching.rests(1);
    assert!(watching.errors().contains("unknown key `toolchian`"), "{}", watching.errors());
    home.write("cas.toml", &manifest);
    until("it does not recover", || home.workspace().join("cas-out/copy/out").exists());
    watching.rests(2);
    home.write("src/.gitignore", "[z-a]\n");
    until("it does not tell of the rules", || watching.errors().contains(".gitignore"));
    fs::remove_file(home.workspace().join("src/.gitignore")).unwrap();
    home.write("src/one", "2");
    until("it does not go on", || home.read("cas-out/copy/out") == "2");
    // A root that is renamed for a moment, as some editors do it.
    fs::rename(home.workspace().join("cas.toml"), home.workspace().join("saved")).unwrap();
    until("it does not tell of the manifest", || watching.errors().contains("error: "));
    fs::rename(home.workspace().join("saved"), home.workspace().join("cas.toml")).unwrap();
    home.write("src/one", "3");
    until("it does not come back", || home.read("cas-out/copy/out") == "3");
    watching.ends("-TERM", 143);
}

/// A build that is overtaken is followed by another, whatever it gave.
#[test]
fn a_branch_switched_during_a_build_is_built() {
    let manifest = COPY.replace("cat src/*", "sleep 1; cat src/*");
    let Some(home) = Home::with_busybox(&manifest, &[("src/one", "main"), ("src/two", "main")]) else { return };
    home.write(".gitignore", "cas-out\n");
    let is_ready = git(&home, &["init", "."]) && git(&home, &["add", "."]) && git(&home, &["commit", "-m", "main"]);
    if !is_ready {
        eprintln!("SKIPPED: there is no git");
        return;
    }
    assert!(git(&home, &["checkout", "-b", "other"]));
    home.write("src/one", "other");
    fs::remove_file(home.workspace().join("src/two")).unwrap();
    home.write("src/sub/three", "");
    home.write("cas.toml", &home.read("cas.toml").replace("cat src/*", "cat src/one src/sub/*"));
    assert!(git(&home, &["add", "-A"]) && git(&home, &["commit", "-m", "other"]) && git(&home, &["checkout", "main"]));
    let watching = Watching::start(&home, &["build", "--watch"]);
    let is =
        |content: &str| fs::read_to_string(home.workspace().join("cas-out/copy/out")).is_ok_and(|out| out == content);
    until("the first build", || is("mainmain"));
    watching.rests(1);
    for (branch, content) in [("other", "other"), ("main", "mainmain")] {
        home.write("src/one", "edited");
        std::thread::sleep(Duration::from_millis(600));
        assert!(git(&home, &["checkout", "-f", branch]));
        until(&format!("branch {branch}: {}", watching.errors()), || is(content));
    }
    watching.ends("-INT", 130);
}

#[test]
fn tests_are_run_again_and_a_step_ends_with_the_watch() {
    let manifest = "[workspace]\n[test.t]\ntoolchain = \":sh\"\nrun = \"if test -e src/slow; then sleep 61; fi; grep -q good src/one\"\n";
    let Some(home) = Home::with_busybox(manifest, &[("src/one", "good")]) else { return };
    let watching = Watching::start(&home, &["test", "--watch", "--junit", "report.xml", "--format", "json"]);
    watching.rests(1);
    home.write("src/one", "bad");
    watching.rests(2);
    home.write("src/one", "good again");
    watching.rests(3);
    let exits: Vec<String> = fs::read_to_string(&watching.out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["exit"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(exits, ["done", "failed", "done"]);
    home.write("src/slow", "");
    until("the slow step does not begin", || is_running(&home, watching.process.id()));
    watching.ends("-INT", 130);
}

/// Nobody could end such a build any more.
#[test]
fn a_watch_that_is_killed_takes_its_build_with_it() {
    let manifest = "[workspace]\n[test.t]\ntoolchain = \":sh\"\nrun = \"sleep 62\"\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    let mut watching = Watching::start(&home, &["test", "--watch"]);
    let group = watching.process.id().to_string();
    until("the step does not begin", || is_running(&home, watching.process.id()));
    watching.process.kill().unwrap();
    watching.process.wait().unwrap();
    until("the build goes on", || Command::new("pgrep").args(["-g", &group]).output().unwrap().stdout.is_empty());
}

/// Whether a watch has a build whose step runs.
fn is_running(home: &Home, watch: u32) -> bool {
    let output = Command::new("pgrep").args(["-P", &watch.to_string()]).output().unwrap();
    let build = text(&output.stdout).trim().to_owned();
    let helpers = Command::new("pgrep").args(["-P", &build]).output();
    Path::new(&home.folder.path().join("store")).exists() && helpers.is_ok_and(|helpers| !helpers.stdout.is_empty())
}
