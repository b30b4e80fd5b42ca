//! Attacks that last: races, and processes that do not end with their command.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use cas_sandbox::{Ending, Overlay, Private, Spec, changes};

use super::{Stage, modes, tries};
use crate::run;

/// Long enough for a process that still runs to show: it works every half a millisecond.
const MOMENT: Duration = Duration::from_millis(20);

impl Stage {
    /// A specification of an attack over inputs of its own, with a folder `kept` that outlives the run.
    fn spec_with_inputs(&mut self, attack: &str, target: &Path) -> Spec {
        let inputs = self.home.fresh("inputs");
        lay_out(&inputs);
        let kept = self.home.fresh("kept");
        fs::create_dir(&kept).unwrap();
        let mut spec = self.home.spec(&["/bin/attack", attack]);
        spec.source = Some(Overlay { lowers: vec![inputs], scratch: self.home.fresh("source") });
        spec.private = vec![Private { host: kept, inside: "kept".into() }];
        spec.environment.insert("TARGET".into(), target.into());
        spec
    }
}

/// The files that attacks on inputs are about.
fn lay_out(folder: &Path) {
    fs::create_dir_all(folder.join("folder")).unwrap();
    for (name, content) in [("input", "input of the step"), ("folder/inner", "inner"), ("script", "#!/bin/sh\n")] {
        fs::write(folder.join(name), content).unwrap();
    }
}

/// All that shows a change of a tree: names, contents, and what the file system notes.
fn state(folder: &Path) -> BTreeMap<String, (u32, u64, i64, i64, Vec<u8>)> {
    let mut state = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        // Reading a folder may write its time of access, which is no change.
        let name = path.strip_prefix(folder).unwrap().display().to_string();
        state.insert(name, (metadata.mode(), metadata.nlink(), metadata.ctime(), metadata.ctime_nsec(), content));
    }
    state
}

/// No way of writing reaches the files that an overlay shows: neither the store's nor the workspace's.
#[test]
fn inputs_stay_as_they_are() {
    let Some(mut stage) = Stage::new() else { return };
    for (attack, count) in [("write inputs", 1), ("race of copies", tries())] {
        for (mode, change) in modes() {
            for _ in 0..count {
                let mut spec = stage.spec_with_inputs(attack, Path::new("/"));
                change(&mut spec);
                let inputs = spec.source.as_ref().unwrap().lowers[0].clone();
                let before = state(&inputs);
                let run = run(&spec);
                assert_eq!(run.text(), "all: done", "{attack}, {mode}");
                assert!(
                    !changes(&spec.source.as_ref().unwrap().upper()).unwrap().is_empty(),
                    "it wrote nothing at all"
                );
                assert_eq!(before, state(&inputs), "{attack}, {mode}");
            }
        }
        // The same on the files themselves changes each of them.
        let plain = stage.home.fresh("plain");
        lay_out(&plain);
        let before = state(&plain);
        let output = std::process::Command::new(&stage.host.attacker).arg(attack).current_dir(&plain).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "all: done\n");
        let after = state(&plain);
        assert!(
            ["input", "folder/inner"].iter().all(|path| before.get(*path) != after.get(*path)),
            "{attack}: {after:?}"
        );
    }
    stage.host.is_untouched();
}

/// What a step notes as if it were the kernel is none of its changes.
#[test]
fn notes_of_the_overlay_cannot_be_forged() {
    let Some(mut stage) = Stage::new() else { return };
    for (mode, change) in modes() {
        let mut spec = stage.spec_with_inputs("overlay notes", Path::new("/"));
        change(&mut spec);
        assert_eq!(run(&spec).text(), "whiteout: EPERM", "{mode}");
        let upper = spec.source.as_ref().unwrap().upper();
        let found: Vec<String> = changes(&upper).unwrap().iter().map(|change| change.path().to_string()).collect();
        let hides = |path: &str| {
            changes(&upper).unwrap().iter().any(|change| {
                !matches!(change, cas_sandbox::Change::Written { .. }) && change.path().to_string() == path
            })
        };
        // A folder that the step made may be marked by the kernel; one of the inputs must not be.
        assert!(!hides("folder") && !hides("input2"), "{mode}: {found:?}");
        assert!(found.iter().any(|path| path == "forged/file"), "{mode}: {found:?}");
    }
}

/// The end of the run is the end of every process: what one writes every half a millisecond does not grow any more.
#[test]
fn nothing_is_left_behind() {
    let Some(mut stage) = Stage::new() else { return };
    for (attack, count) in [("detach", 5), ("hop", tries())] {
        for (mode, change) in modes() {
            for _ in 0..count {
                let mut spec = stage.spec_with_inputs(attack, Path::new("/"));
                change(&mut spec);
                let beats = spec.private[0].host.join("beats");
                assert_eq!(run(&spec).text(), "left behind: done", "{attack}, {mode}");
                let length = fs::metadata(&beats).unwrap().len();
                assert!(length > 0, "{attack}, {mode}: it did nothing");
                std::thread::sleep(MOMENT);
                assert_eq!(fs::metadata(&beats).unwrap().len(), length, "{attack}, {mode}: it still runs");
            }
        }
    }
    // Nor is a mount: what was mounted for a sandbox is gone with it.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&stage.home.directory.display().to_string()), "{mounts}");
    stage.host.is_untouched();
}

/// What is read after the end, and removed, is what was there at the end: no name leads out of it.
#[test]
fn capture_and_removal_follow_no_link() {
    let Some(mut stage) = Stage::new() else { return };
    let target = stage.host.folder.clone();
    let mut links = 0;
    for (mode, change) in modes() {
        for _ in 0..tries() {
            let mut spec = stage.spec_with_inputs("flip", &target);
            change(&mut spec);
            assert_eq!(run(&spec).outcome.ending, Ending::Exited(0), "{mode}");
            let source = spec.source.clone().unwrap();
            let once = changes(&source.upper()).unwrap();
            let names: Vec<String> = once.iter().map(|change| change.path().to_string()).collect();
            // One of the two is the folder, and the file in it is the step's.
            let folder = if names.contains(&"out/secret".to_owned()) { "out" } else { "link" };
            assert!(names.contains(&format!("{folder}/secret")) && names.len() >= 3, "{mode}: {names:?}");
            assert_eq!(fs::read_to_string(source.upper().join(folder).join("secret")).unwrap(), "x", "{mode}");
            links += u32::from(folder == "link");
            std::thread::sleep(MOMENT / 20);
            assert_eq!(changes(&source.upper()).unwrap(), once, "{mode}: it still runs");
            cas_fs::remove_tree(&source.scratch).unwrap();
            assert_eq!(fs::read_to_string(target.join("secret")).unwrap(), "secret");
        }
    }
    assert!(links > 0, "the names were never exchanged");
    stage.host.is_untouched();
}
