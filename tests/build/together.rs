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
