//! Several builds at once.

use std::process::Stdio;

use crate::{Home, text};

const MANIFEST: &str = "\
[workspace]
[defaults]
toolchain = \":sh\"
[command.slow]
run = \"sleep 1; echo done > out\"
outputs = [\"out\"]
[command.same]
run = \"sleep 1; echo done > out\"
outputs = [\"out\"]
[command.after]
run = \"cat out > copy\"
deps = [\":slow\"]
outputs = [\"copy\"]
";

fn ran(stderr: &str) -> usize {
    stderr.lines().filter(|line| line.starts_with("ran ")).count()
}

/// What one process runs the others wait for, and use.
#[test]
fn processes_do_nothing_twice() {
    let Some(home) = Home::with_busybox(MANIFEST, &[]) else { return };
    // So that they do not all begin by making the toolchain.
    assert_eq!(home.cas(&["build", ":sh"]).status.code(), Some(0));
    let builds: Vec<_> = (0..4)
        .map(|_| {
            let mut command = home.command(&["build", ":after"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut count = 0;
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        count += ran(&text(&output.stderr));
    }
    assert_eq!(count, 2, "two steps, whoever ran them");
    assert_eq!(home.read("cas-out/after/copy"), "done\n");
}

/// Targets that are the same action run it once.
#[test]
fn equal_steps_of_one_build_run_once() {
    let Some(home) = Home::with_busybox(MANIFEST, &[]) else { return };
    let output = home.cas(&["build", ":slow", ":same", "--jobs", "4"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(ran(&text(&output.stderr)), 1, "{}", text(&output.stderr));
}

/// Who waits for another process ends at once when it is told to, and what the other one made is whole.
#[test]
fn a_wait_can_be_interrupted() {
    let Some(home) = Home::with_busybox(MANIFEST, &[]) else { return };
    assert_eq!(home.cas(&["build", ":sh"]).status.code(), Some(0));
    let start = || home.command(&["build", ":slow"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let first = start();
    std::thread::sleep(std::time::Duration::from_millis(400));
    let second = start();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let kill = std::process::Command::new("kill").arg("-INT").arg(second.id().to_string()).status().unwrap();
    assert!(kill.success());
    let second = second.wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(130), "{}", text(&second.stderr));
    let first = first.wait_with_output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert_eq!(home.read("cas-out/slow/out"), "done\n");
}

/// One that is killed leaves no lock behind.
#[test]
fn work_of_a_killed_process_is_taken_up() {
    let Some(home) = Home::with_busybox(MANIFEST, &[]) else { return };
    assert_eq!(home.cas(&["build", ":sh"]).status.code(), Some(0));
    let mut first = home.command(&["build", ":slow"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    first.kill().unwrap();
    first.wait().unwrap();
    let output = home.cas(&["build", ":slow"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(ran(&text(&output.stderr)), 1);
}

/// A step that gives something else each time is found, be its result known or not, and nothing of the second run is kept.
#[test]
fn steps_that_do_not_repeat_are_found() {
    let manifest = "[workspace]\n[defaults]\ntoolchain = \":sh\"\n\
                    [command.same]\nrun = \"mkdir d; echo x > d/x\"\noutputs = [\"d\"]\n\
                    [command.other]\nrun = \"mkdir d; echo x > d/x; cat /proc/uptime > d/time; cat /proc/uptime > d/t$(cat /proc/sys/kernel/random/uuid)\"\noutputs = [\"d\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    for _ in 0..2 {
        let output = home.cas(&["build", "--check-repeat", ":same"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(ran(&text(&output.stderr)), 1);
    }
    let fails = || {
        let output = home.cas(&["build", "--check-repeat", ":other"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let told = "`//:other` does not repeat: two runs differ in `d/t";
        assert!(stderr.contains(told) && stderr.contains("(in the other run only)"), "{stderr}");
        assert!(!stderr.contains("`d/x`"), "{stderr}");
    };
    fails();
    assert_eq!(home.cas(&["build", ":other"]).status.code(), Some(0));
    let before = home.read("cas-out/other/d/time");
    fails();
    let output = home.cas(&["build", ":other"]);
    assert_eq!(ran(&text(&output.stderr)), 0, "the first result stays");
    assert_eq!(home.read("cas-out/other/d/time"), before);
}

/// What failed and what was not tried is counted, and the log of a failed step is what `cas why` speaks of afterwards.
#[test]
fn a_failure_says_what_was_not_tried() {
    let manifest = "[workspace]\n[defaults]\ntoolchain = \":sh\"\n\
                    [command.bad]\nrun = \"false\"\noutputs = [\"x\"]\n\
                    [command.after]\nrun = \"true\"\ndeps = [\":bad\"]\n\
                    [command.other]\nrun = \"echo > y\"\noutputs = [\"y\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    let output = home.cas(&["build", "--keep-going", ":after", ":bad", ":other"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("1 step ran, 0 were cached, 1 failed\n//:after not tried"), "{stderr}");
    let why = text(&home.cas(&["why", ":bad"]).stdout);
    assert_eq!(why, "//:bad would run: nothing changed, but its last run failed or its result is gone\n");
}

#[test]
fn manifests_that_cannot_be_are_told_with_their_place() {
    let manifest = "[workspace]\nmembers = [\"p/*\"]\n";
    let check = |prepare: &dyn Fn(&Home), message: &str| {
        let home = Home::new(manifest);
        prepare(&home);
        let output = home.cas(&["query"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
        stderr
    };
    let member = |home: &Home| home.workspace().join("p/a/cas.toml");
    let told = check(
        &|home| {
            home.write("p/a/x", "");
            std::fs::write(member(home), [0xff]).unwrap();
        },
        "not UTF-8",
    );
    assert!(told.contains("p/a/cas.toml"), "{told}");
    check(&|home| std::fs::create_dir_all(member(home)).unwrap(), "this is no file");
    check(&|home| home.write("p/a/cas.toml", &"#".repeat(2 << 20)), "the file is longer than 1048576 bytes");
    check(
        &|home| {
            for package in ["a", "b"] {
                home.write(&format!("p/{package}/cas.toml"), "");
                home.write(&format!("p/{package}/package.json"), "{\"name\":\"same\"}");
            }
        },
        "the packages in `p/a` and `p/b` are both named `same`",
    );
    let home = Home::new(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f\"\n",
    );
    std::os::unix::fs::symlink(home.folder.path(), home.workspace().join("cas-out")).unwrap();
    let output = home.cas(&["build"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("in the way of what targets give"), "{}", text(&output.stderr));
}

/// A folder where a label is meant gets the label that is probably meant.
#[test]
fn words_that_are_no_labels_are_told_what_to_write() {
    let home = Home::new("[workspace]\n");
    for (word, hint) in [
        ("//apps/web", "did you mean `//apps/web/...`?"),
        ("apps/web/", "did you mean `//apps/web/...`?"),
        ("web", "did you mean `:web`, or `//web/...`?"),
    ] {
        let output = home.cas(&["build", word]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(&format!("hint: {hint}")), "{stderr}");
    }
}

/// Who is not the owner of a store is sent away before anything is written there.
#[test]
fn a_store_of_another_user_is_refused() {
    if !std::process::Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n") {
        eprintln!("SKIPPED: only root can give a store to another user");
        return;
    }
    let Some(home) = Home::with_busybox("[workspace]\n", &[]) else { return };
    assert_eq!(home.cas(&["store", "stat"]).status.code(), Some(0));
    std::os::unix::fs::chown(home.folder.path().join("store/v1"), Some(65534), None).unwrap();
    let output = home.cas(&["store", "stat"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("belongs to user 65534, and this is user 0"), "{stderr}");
}
