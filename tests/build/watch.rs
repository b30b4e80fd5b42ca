//! `cas watch`: builds with a watcher give what builds without it give.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Home, text};

/// Ends the watcher of a workspace whatever happens to the test.
struct Guard<'a>(&'a Home);

impl Guard<'_> {
    fn status(&self) -> Value {
        let output = self.0.cas(&["watch", "status", "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        document["results"][0].clone()
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(process) = self.status()["process"].as_i64() {
            let process = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
}

const COPY: &str = "[workspace]\n[command.copy]\ntoolchain = \":sh\"\nrun = \"cat src/* > out\"\noutputs = [\"out\"]\n";

#[test]
fn a_watcher_is_started_once_and_stopped() {
    let home = Home::new("[workspace]\n");
    let guard = Guard(&home);
    assert_eq!(guard.status()["running"], false);
    let output = home.cas(&["watch", "stop"]);
    assert!(text(&output.stdout).starts_with("no watcher of `"), "{}", text(&output.stdout));
    let output = home.cas(&["watch", "start"]);
    assert!(text(&output.stdout).starts_with("watching `"), "{}{}", text(&output.stdout), text(&output.stderr));
    let process = guard.status()["process"].clone();
    assert!(process.is_number());
    let output = home.cas(&["watch", "start"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).ends_with("runs already\n"), "{}", text(&output.stdout));
    assert_eq!(guard.status()["process"], process);
    // It is a process of its own: no terminal, folder or stream of whoever started it.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, process.to_string());
    assert_eq!(fs::read_link(format!("/proc/{process}/cwd")).unwrap().to_str(), Some("/"));
    let output = home.cas(&["watch", "stop"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(guard.status()["running"], false);
    let output = home.cas(&["watch", "start", "--idle-seconds", "0"]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("does not answer"), "{}", text(&output.stderr));
}

#[test]
fn a_build_sees_a_change_made_right_before_it() {
    let Some(home) = Home::with_busybox(COPY, &[("src/a", "0"), ("src/b", "b"), ("other/deep/c", "c")]) else { return };
    let guard = Guard(&home);
    assert_eq!(home.cas(&["watch", "start"]).status.code(), Some(0));
    for round in 0..12 {
        home.write("src/a", &(round % 10).to_string());
        let output = home.cas(&["build"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(home.read("cas-out/copy/out"), format!("{}b", round % 10));
        let again = home.cas(&["build"]);
        assert!(text(&again.stderr).contains("0 steps ran, 1 was cached"), "{}", text(&again.stderr));
    }
    assert_eq!(guard.status()["folders"], 4);
    // One that was killed leaves its socket; builds go on.
    drop(guard);
    home.write("src/b", "B");
    let output = home.cas(&["build"]);
    assert_eq!((output.status.code(), home.read("cas-out/copy/out")), (Some(0), "1B".to_owned()));
    let guard = Guard(&home);
    assert_eq!(home.cas(&["watch", "start"]).status.code(), Some(0));
    let process = guard.status()["process"].clone();
    fs::remove_dir_all(home.workspace().join("src")).unwrap();
    assert_eq!(home.cas(&["build"]).status.code(), Some(1));
    let folder = home.workspace();
    fs::rename(&folder, folder.with_extension("elsewhere")).unwrap();
    let started = Instant::now();
    while fs::exists(format!("/proc/{process}")).unwrap() {
        assert!(started.elapsed() < Duration::from_secs(20), "it goes on without a workspace");
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::rename(folder.with_extension("elsewhere"), &folder).unwrap();
}
