//! What a host can lack, made to lack it in a namespace around the helper.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cas_sandbox::{Cancel, HostCannot, NamespaceObstacle, Runner, SandboxError, probe};

use crate::{Home, runner, try_run_with};

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
    assert_eq!(probe(&runner(), memory.path()).unwrap().file_system, "tmpfs");
    // Lower and upper on different file systems show one device.
    let mut spec = home.script("touch /here; stat -c %d / /here /bin /bin/busybox | tr '\\n' ' '");
    spec.root.scratch = memory.path().join("scratch");
    let run = try_run_with(&runner(), &spec, &Cancel::new().unwrap()).unwrap();
    let devices: Vec<&str> = run.text().split_whitespace().collect();
    assert!(devices.iter().all(|device| *device == devices[0]), "{devices:?}");
    cas_fs::remove_tree(&spec.root.scratch).unwrap();
}

/// A helper that first puts itself into a namespace of its own, where it is root, and runs some commands there.
fn helper_after(home: &mut Home, commands: &str) -> Runner {
    let path = home.fresh("helper");
    let program = runner().helper;
    let script = format!(
        "#!/bin/sh\nexec unshare --user --map-root-user --mount --pid --fork --mount-proc -- sh -c '{commands}\nexec \"$0\" \"$@\"' {} \"$@\"\n",
        program.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Runner { helper: path }
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
