//! Bombs: what wants more memory, processes, disk or files than it may have is ended, by each way that this host has.
//!
//! Every bomb is bounded by itself, so that nothing happens to a host on which a limit does not hold.

use std::time::Duration;

use cas_sandbox::{Ending, Enforcement, Limit, Limits, SandboxError, Spec};

use crate::{Home, run, try_run};

/// All ways, those first that this host may not have.
const WAYS: [Enforcement; 3] = [Enforcement::CgroupV2, Enforcement::CgroupV1, Enforcement::Watched];

/// Longer than a soft limit needs to see it, on a slow machine too.
const LINGER: &str = "sleep 300";

/// Runs a script under limits by each way that this host has, with files in memory at `/tmp`.
fn each_way(home: &mut Home, script: &str, limits: Limits, check: impl Fn(Enforcement, &Spec, Ending)) {
    for way in WAYS {
        let mut spec = home.script(script);
        spec.limits = Limits { enforcement: Some(way), ..limits };
        spec.timeout = Some(Duration::from_secs(600));
        match try_run(&spec) {
            Err(error @ (SandboxError::Setup { .. } | SandboxError::Host(_))) if way != Enforcement::Watched => {
                eprintln!("SKIPPED: {way} is not there: {error}: {:?}", std::error::Error::source(&error));
            }
            result => check(way, &spec, result.unwrap().outcome.ending),
        }
    }
}

#[test]
fn a_memory_bomb_is_ended() {
    let Some(mut home) = Home::new() else { return };
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let script = format!("x=$(head -c 256m /dev/zero | tr '\\0' x); {LINGER}; echo ${{#x}}");
    each_way(&mut home, &script, limits, |way, _, ending| {
        assert_eq!(ending, Ending::OverLimit(Limit::Memory), "{way}");
    });
}

/// The part that was killed is not the step itself, which ends as if all was well.
#[test]
fn a_step_that_lives_on_without_what_was_killed_has_failed() {
    let Some(mut home) = Home::new() else { return };
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    each_way(
        &mut home,
        "sh -c 'x=$(head -c 256m /dev/zero | tr \"\\0\" x); sleep 300' || :",
        limits,
        |way, _, ending| {
            assert_eq!(ending, Ending::OverLimit(Limit::Memory), "{way}");
        },
    );
}

#[test]
fn a_command_within_its_limits_sees_none_of_them() {
    let Some(mut home) = Home::new() else { return };
    let limits = Limits {
        memory_bytes: Some(256 << 20),
        process_count: Some(64),
        scratch_bytes: Some(64 << 20),
        scratch_entries: Some(1000),
        ..Limits::default()
    };
    let script = "cat /proc/self/cgroup >/src/cgroup; x=$(head -c 8m /dev/zero | tr '\\0' x); head -c 8m /dev/zero >/big; \
                  for i in 1 2 3 4 5 6 7 8; do sleep 0.5 & done; wait; echo ${#x}";
    each_way(&mut home, script, limits, |way, spec, ending| {
        assert_eq!(ending, Ending::Exited(0), "{way}");
        let groups = std::fs::read_to_string(spec.root.upper().join("src/cgroup")).unwrap();
        assert!(groups.lines().all(|line| line.ends_with(":/")), "{way}: {groups}");
    });
    assert_eq!(run(&home.script("true")).outcome.ending, Ending::Exited(0));
}

#[test]
fn a_fork_bomb_is_ended() {
    let Some(mut home) = Home::new() else { return };
    let limits = Limits { process_count: Some(50), ..Limits::default() };
    let script = "i=0; while [ $i -lt 300 ]; do sleep 20 & i=$((i + 1)); done; wait";
    each_way(&mut home, script, limits, |way, _, ending| {
        assert_eq!(ending, Ending::OverLimit(Limit::Processes), "{way}");
    });
}

/// What nothing but the supervisor sees, since the kernel has no limit for it that an ordinary user could set.
#[test]
fn a_full_scratch_folder_is_ended() {
    let Some(mut home) = Home::new() else { return };
    let bytes = Limits { scratch_bytes: Some(16 << 20), ..Limits::default() };
    let entries = Limits { scratch_entries: Some(500), ..Limits::default() };
    let deep = Limits { scratch_bytes: Some(1 << 30), ..Limits::default() };
    for (what, limits, script, expected) in [
        ("a file", bytes, "head -c 64m /dev/zero >/src/big", Limit::ScratchBytes),
        ("many files", bytes, "for i in 1 2 3 4 5 6; do head -c 6m /dev/zero >/tmp/$i; done", Limit::ScratchBytes),
        ("a deleted file", bytes, "exec 5>/gone; rm /gone; head -c 64m /dev/zero >&5", Limit::ScratchBytes),
        ("without rights", bytes, "mkdir /a; head -c 64m /dev/zero >/a/b; chmod 0 /a/b /a", Limit::ScratchBytes),
        ("files", entries, "i=0; while [ $i -lt 900 ]; do : >/src/$i; i=$((i + 1)); done", Limit::ScratchEntries),
        ("folders", deep, "i=0; while [ $i -lt 1100 ]; do mkdir a; cd a; i=$((i + 1)); done", Limit::ScratchDepth),
    ] {
        let mut spec = home.script(&format!("{script}; {LINGER}"));
        spec.limits = limits;
        assert_eq!(run(&spec).outcome.ending, Ending::OverLimit(expected), "{what}");
    }
    // Names of one file count once, and so does what a sparse file does not have.
    let script = "head -c 10m /dev/zero >/big; for i in 1 2 3 4; do ln /big /$i; done; \
                  dd if=/dev/zero of=/sparse bs=1 seek=1000000000 count=1 2>/dev/null; sleep 3";
    let mut spec = home.script(script);
    spec.limits = bytes;
    assert_eq!(run(&spec).outcome.ending, Ending::Exited(0));
}

/// Files in memory are memory, too, whoever has them mapped.
#[test]
fn memory_in_files_counts() {
    let Some(mut home) = Home::new() else { return };
    let limits = Limits { memory_bytes: Some(48 << 20), ..Limits::default() };
    for script in
        ["head -c 128m /dev/zero >/dev/shm/big", "exec 5>/dev/shm/gone; rm /dev/shm/gone; head -c 128m /dev/zero >&5"]
    {
        each_way(&mut home, &format!("{script}; {LINGER}"), limits, |way, _, ending| {
            assert_eq!(ending, Ending::OverLimit(Limit::Memory), "{way}: {script}");
        });
    }
}

/// A killed program leaves its group. The next one removes it, and none that is in use.
#[test]
fn groups_of_the_dead_are_removed() {
    let Some(mut home) = Home::new() else { return };
    let mut has_any = false;
    for way in [Enforcement::CgroupV2, Enforcement::CgroupV1] {
        let spec = |home: &mut Home| {
            let mut spec = home.script("true");
            spec.limits.memory_bytes = Some(64 << 20);
            spec.limits.enforcement = Some(way);
            spec
        };
        // The first one makes of a group that was handed over one that has others.
        if try_run(&spec(&mut home)).is_err() {
            continue;
        }
        let Some(parent) = own_group(way) else { continue };
        has_any = true;
        let left = parent.join("cas-step-0-0");
        std::fs::create_dir_all(&left).unwrap();
        let used = parent.join(format!("cas-step-0-{}", std::process::id()));
        std::fs::create_dir_all(&used).unwrap();
        let folder = std::fs::File::open(&used).unwrap();
        rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).unwrap();
        run(&spec(&mut home));
        let (left, used_is_there) = (left.exists(), used.exists());
        std::fs::remove_dir(&used).unwrap();
        assert!(!left && used_is_there, "{way}");
    }
    if !has_any {
        eprintln!("SKIPPED: no hierarchy of the memory controller can be written");
    }
}

/// The group in which the program makes others, if this process can, too.
fn own_group(way: Enforcement) -> Option<std::path::PathBuf> {
    let (kind, mount) = match way {
        Enforcement::CgroupV2 => ("0::/", "/sys/fs/cgroup"),
        _ => (":memory:/", "/sys/fs/cgroup/memory"),
    };
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.split_once(kind))?.1;
    let folder = std::path::Path::new(mount).join(path.strip_suffix("cas-self").unwrap_or(path));
    let probe = folder.join(format!("cas-test-{}", std::process::id()));
    std::fs::create_dir(&probe).ok()?;
    std::fs::remove_dir(&probe).ok()?;
    Some(folder)
}
