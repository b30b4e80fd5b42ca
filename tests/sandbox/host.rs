//! What a host can lack, made to lack it in a namespace around the helper.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use cas_sandbox::{
    Cancel, Ending, Enforcement, HostCannot, Limit, Limits, NamespaceObstacle, Runner, SandboxError, Streams, probe,
};

use crate::{Home, attacks, null, program, runner, try_run_with};

#[test]
fn probing_tells_what_was_found() {
    let Some(home) = Home::new() else { return };
    let report = probe(&runner(), &home.directory).unwrap();
    assert!(report.kernel.starts_with(|c: char| c.is_ascii_digit()), "{report:?}");
    assert!(["ext4", "tmpfs", "xfs", "btrfs"].contains(&report.file_system.as_str()), "{report:?}");
    let left: Vec<_> = fs::read_dir(&home.directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["root"], "the probe removes what it made");
}

#[test]
fn memory_file_systems_hold_scratch_folders_too() {
    let Some(mut home) = Home::new() else { return };
    let Ok(memory) = tempfile::Builder::new().prefix("cas-sandbox-").tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: /dev/shm cannot be written");
        return;
    };
    match probe(&runner(), memory.path()) {
        Ok(report) => assert_eq!(report.file_system, "tmpfs"),
        // Before Linux 6.6 files in memory have no attributes that a user may set.
        Err(SandboxError::Host(cannot @ HostCannot::ScratchUnsuitable { .. })) if kernel() < (6, 6) => {
            assert!(cannot.to_string().contains("`tmpfs`"), "{cannot}");
            eprintln!("SKIPPED: {cannot}");
            return;
        }
        Err(error) => panic!("{error:?}"),
    }
    // Lower and upper on different file systems show one device.
    let mut spec = home.script("touch /here; stat -c %d / /here /bin /bin/busybox | tr '\\n' ' '");
    spec.root.scratch = memory.path().join("scratch");
    let run = try_run_with(&runner(), &spec, &Cancel::new().unwrap()).unwrap();
    let devices: Vec<&str> = run.text().split_whitespace().collect();
    assert!(devices.iter().all(|device| *device == devices[0]), "{devices:?}");
    cas_fs::remove_tree(&spec.root.scratch).unwrap();
}

/// The two numbers that begin the kernel's release.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// A helper that first puts itself into a namespace of its own, where it is root, and runs some commands there.
fn helper_after(home: &mut Home, commands: &str) -> Runner {
    let path = home.fresh("helper");
    let program = program();
    let script = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user --mount --pid --fork --mount-proc -- sh -c '{commands}\nexec \"$0\" \"$@\"' {} \"$@\"\n",
        program.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Runner::new(path)
}

fn has_unshare() -> bool {
    let found = Path::new("/usr/bin/unshare").exists();
    if !found {
        eprintln!("SKIPPED: unshare of util-linux is missing");
    }
    found
}

#[test]
fn each_lack_of_the_host_is_named_with_what_mends_it() {
    let Some(mut home) = Home::new() else { return };
    if !has_unshare() {
        return;
    }
    let namespaces = |obstacle| Some(HostCannot::Namespaces { obstacle });
    for (commands, expected, hint) in [
        (":", None, ""),
        (
            "echo 0 >/proc/sys/user/max_user_namespaces",
            namespaces(NamespaceObstacle::Limit),
            "sysctl -w user.max_user_namespaces=",
        ),
        ("mount -t tmpfs none /proc/sys/fs", Some(HostCannot::ProcHidden), "systempaths=unconfined"),
    ] {
        let helper = helper_after(&mut home, commands);
        match (probe(&helper, &home.directory), expected) {
            (Ok(_), None) => {}
            (Err(SandboxError::Host(cannot)), Some(expected)) => {
                assert_eq!(cannot, expected);
                assert!(cannot.hint().unwrap().contains(hint), "{:?}", cannot.hint());
            }
            (other, expected) => panic!("{commands}: {other:?} instead of {expected:?}"),
        }
    }
}

/// A helper as on a kernel that lacks a system call; `None` after saying that there is no compiler.
fn helper_without(home: &mut Home, call: &str) -> Option<Runner> {
    let without = attacks::programs()?.join("without");
    let path = home.fresh("helper");
    let program = program();
    fs::write(&path, format!("#!/bin/sh\nexec {} {call} {} \"$@\"\n", without.display(), program.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Some(Runner::new(path))
}

/// There is no second way to make a sandbox: without one of these calls it is not made.
#[test]
fn a_kernel_that_lacks_a_call_is_refused() {
    let Some(mut home) = Home::new() else { return };
    for call in ["close_range", "fsopen", "mount_setattr", "move_mount", "open_tree", "openat2", "pidfd_open"] {
        let Some(helper) = helper_without(&mut home, call) else { return };
        match try_run_with(&helper, &home.script("echo ran"), &Cancel::new().unwrap()) {
            Err(SandboxError::Host(HostCannot::KernelTooOld { .. })) => {}
            other => panic!("{call}: {:?}", other.map(|run| run.stdout)),
        }
    }
    let helper = helper_without(&mut home, "bpf").unwrap();
    let run = try_run_with(&helper, &home.script("echo ran"), &Cancel::new().unwrap()).unwrap();
    assert_eq!(run.text(), "ran", "it is not the filter of this test that refuses");
}

/// Telling what is looked for is for advice alone: a kernel that cannot do it runs steps as others do.
#[test]
fn a_kernel_that_cannot_tell_what_is_looked_for_runs_steps() {
    let Some(mut home) = Home::new() else { return };
    let Some(helper) = helper_without(&mut home, "seccomp") else { return };
    let (spec, cancel) = (home.script("true"), Cancel::new().unwrap());
    let watched = helper.run_watched(&spec, Streams::new(null(), null()), &cancel);
    assert!(watched.is_err(), "{watched:?}");
    try_run_with(&helper, &home.script("true"), &cancel).unwrap();
}

/// Without a say about what is to hold limits, the best is taken that the host has; the last one needs nothing of it.
#[test]
fn a_host_without_control_groups_is_watched() {
    let Some(mut home) = Home::new() else { return };
    if !has_unshare() {
        return;
    }
    // Nothing is where the hierarchies are mounted.
    let helper = helper_after(&mut home, "mount -t tmpfs none /sys/fs/cgroup");
    let mut spec = home.script("i=0; while [ $i -lt 300 ]; do sleep 20 & i=$((i + 1)); done; wait");
    spec.timeout = Some(Duration::from_secs(60));
    spec.limits.process_count = Some(50);
    let cancel = Cancel::new().unwrap();
    let ending = try_run_with(&helper, &spec, &cancel).unwrap().outcome.ending;
    assert_eq!(ending, Ending::OverLimit(Limit::Processes));
    for way in [Enforcement::CgroupV2, Enforcement::CgroupV1] {
        let mut spec = home.script("true");
        spec.limits = Limits { process_count: Some(50), enforcement: Some(way), ..Limits::default() };
        assert!(try_run_with(&helper, &spec, &cancel).is_err(), "{way} that is asked for is not replaced by another");
    }
}

/// Looking at what is written takes open files, of which a host may allow few.
#[test]
fn few_open_files_are_enough_to_be_watched() {
    let Some(mut home) = Home::new() else { return };
    let path = home.fresh("helper");
    fs::write(&path, format!("#!/bin/sh\nulimit -n 64\nexec {} \"$@\"\n", program().display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = home.script("ulimit -n; mkdir -p /src/a/b/c; head -c 64m /dev/zero >/src/a/b/c/big; sleep 30");
    spec.limits.scratch_bytes = Some(16 << 20);
    let run = try_run_with(&Runner::new(path), &spec, &Cancel::new().unwrap()).unwrap();
    assert_eq!((run.outcome.ending, run.stdout.as_str()), (Ending::OverLimit(Limit::ScratchBytes), "64\n"));
}

/// The upper directory of an overlay cannot be on another overlay.
#[test]
fn a_scratch_folder_on_an_overlay_is_refused_by_name() {
    let Some(mut home) = Home::new() else { return };
    if !has_unshare() {
        return;
    }
    let point = home.directory.join("scratch-parent");
    for name in ["lower", "upper", "work"] {
        fs::create_dir(home.directory.join(name)).unwrap();
    }
    fs::create_dir(&point).unwrap();
    let at = home.directory.display().to_string();
    // What the runner has made there is hidden by the overlay, so the helper has to see it in the lower directory.
    let helper = helper_after(
        &mut home,
        &format!(
            "mount -t overlay none -o userxattr,lowerdir={at}/scratch-parent:{at}/lower,upperdir={at}/upper,workdir={at}/work {at}/scratch-parent"
        ),
    );
    match probe(&helper, &point) {
        Err(SandboxError::Host(HostCannot::ScratchUnsuitable { path, .. })) => assert!(path.starts_with(&point)),
        other => panic!("{other:?}"),
    }
}
