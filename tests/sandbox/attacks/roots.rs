//! Roots that are made to attack, and the known escapes of other runtimes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cas_sandbox::{Change, Ending, Overlay, Private, SandboxError, Secret, Spec, changes};

use super::{MANY, Stage, executable, modes, programs, tries};
use crate::checks::{check, serve};
use crate::{Home, run, try_run};

/// Whether the tests may make devices and owners.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Stage {
    /// Puts a loader that attacks where programs of this system look for theirs.
    fn add_loader(&self) {
        let root = self.home.root();
        for place in ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"] {
            fs::create_dir_all(root.join(place).parent().unwrap()).unwrap();
            fs::copy(programs().unwrap().join("loader"), root.join(place)).unwrap();
            executable(&root.join(place), 0o755);
        }
    }
}

/// runc: a script whose interpreter is the program that starts it, of the host.
#[test]
fn cve_2019_5736_program_of_the_host() {
    let Some(mut stage) = Stage::new() else { return };
    let root = stage.home.root();
    stage.add_loader();
    for (name, content) in [("script", "#!/proc/self/exe\n"), ("second", "#!/bin/script\n")] {
        fs::write(root.join("bin").join(name), content).unwrap();
        executable(&root.join("bin").join(name), 0o755);
    }
    symlink("/proc/self/exe", root.join("bin/link")).unwrap();
    fs::copy("/bin/true", root.join("bin/dynamic")).unwrap();
    stage.host.marks = stage.host.look(&stage.home);
    // The loader works: an ordinary program of this system is given to it.
    let spec = stage.home.spec(&["/bin/dynamic"]);
    assert!(run(&spec).stdout.starts_with("runs\n"));
    for command in ["/proc/self/exe", "/bin/script", "/bin/second", "/bin/link", "/proc/2/exe", "/dev/fd/../exe"] {
        for (mode, change) in modes() {
            let mut spec = stage.home.spec(&[command]);
            change(&mut spec);
            match try_run(&spec) {
                Err(SandboxError::Start(_)) => {}
                other => panic!("{command}, {mode}: {:?}", other.map(|run| (run.stdout, run.outcome))),
            }
        }
    }
    stage.host.is_untouched();
}

/// The same by a check, which the command swaps for a script in the moment after it was looked at. What runs then is a copy of the
/// host's program that belongs to nobody.
#[test]
fn cve_2019_5736_by_a_check() {
    let Some(mut stage) = Stage::new() else { return };
    stage.add_loader();
    let root = stage.home.root();
    fs::copy(root.join("bin/attack"), root.join("bin/check")).unwrap();
    fs::write(root.join("bin/script"), "#!/proc/self/exe\n").unwrap();
    executable(&root.join("bin/script"), 0o755);
    stage.host.marks = stage.host.look(&stage.home);
    for (mode, change) in modes() {
        let mut spec = stage.home.spec(&["/bin/attack", "swap"]);
        change(&mut spec);
        // The harmless program fails, and the loader does not: so the first time that it runs is told.
        spec.check = Some(check(&["/bin/check"]));
        spec.timeout = Some(Duration::from_secs(30));
        let (_, told, _) = serve(&spec, &|health| health.output.starts_with(b"runs"));
        if !told.iter().any(|health| health.output.starts_with(b"runs\nchmod\n")) {
            eprintln!("SKIPPED: {mode}: the program was never swapped in the right moment");
        }
        stage.host.is_untouched();
    }
}

/// A check before it has become its program is a fork of process 1, and as closed as that.
#[test]
fn helpers_by_checks() {
    let Some(mut stage) = Stage::new() else { return };
    for (mode, change) in modes() {
        let mut spec = stage.home.spec(&["/bin/attack", "helpers"]);
        change(&mut spec);
        // Each one is told, because its answer is another one than that before.
        spec.check = Some(check(&["sh", "-c", "rm /tmp/x || ! touch /tmp/x"]));
        spec.timeout = Some(Duration::from_secs(600));
        let left = AtomicU32::new(tries());
        let (outcome, _, printed) = serve(&spec, &|_| left.fetch_sub(1, Ordering::SeqCst) == 1);
        assert_eq!((outcome.ending, printed.as_str()), (Ending::Cancelled, ""), "{mode}");
        stage.host.is_untouched();
    }
}

/// A program with the rights of its owner and group, and with capabilities, has no more than another one.
#[test]
fn set_id_bits_and_capabilities_of_files() {
    let Some(mut stage) = Stage::new() else { return };
    let program = stage.home.root().join("bin/attack");
    if is_root() {
        std::os::unix::fs::chown(&program, Some(65534), Some(65534)).unwrap();
    }
    executable(&program, 0o6755);
    if is_root() {
        // Outside, root becomes its owner.
        let outside = stage.host.output(Command::new(&program).arg("rights"));
        if !outside.starts_with("user: done") {
            eprintln!("SKIPPED: the folder of the tests is mounted without set-id programs: {outside}");
        }
        // `vfs_cap_data` of <linux/capability.h>, revision 2, effective: all of the first 32.
        let mut value = 0x0200_0001_u32.to_le_bytes().to_vec();
        value.extend([[0xFF; 4], [0; 4], [0xFF, 0, 0, 0], [0; 4]].concat());
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&program, c"security.capability", &value, flags).unwrap();
    }
    stage.host.marks = stage.host.look(&stage.home);
    for (mode, change) in modes() {
        let run = stage.attack("rights", change);
        // User 0 of many has some, whatever the program; which ones is in `many.rs`.
        let capabilities = if mode == MANY.0 { "done" } else { "EPERM" };
        assert_eq!(run.text(), format!("user: EPERM\ncapabilities: {capabilities}\ngroups: EPERM"), "{mode}");
    }
}

/// Devices that a root brings along cannot be opened.
#[test]
fn device_nodes_of_a_root() {
    if !is_root() {
        eprintln!("SKIPPED: making a device needs root");
        return;
    }
    let Some(mut home) = Home::new() else { return };
    let nodes = [("memory", "c", "1", "1"), ("zero", "c", "1", "5"), ("loop", "b", "7", "0")];
    for (name, kind, major, minor) in nodes {
        let status = Command::new("mknod").arg(home.root().join(name)).args([kind, major, minor]).status().unwrap();
        assert!(status.success());
        executable(&home.root().join(name), 0o666);
    }
    // Outside, the harmless one works.
    use std::io::Read;
    assert_eq!(fs::File::open(home.root().join("zero")).unwrap().read(&mut [1]).unwrap(), 1);
    for (mode, change) in modes() {
        for (name, ..) in nodes {
            let mut spec = home.script(&format!("dd if=/{name} bs=1 count=1"));
            change(&mut spec);
            let run = run(&spec);
            assert!(run.stderr.contains("Permission denied"), "{name}, {mode}: {}", run.stderr);
        }
    }
}

/// Puts a symbolic link where a mount goes, or above that.
fn trapped(home: &mut Home, place: &str, target: &Path) -> Overlay {
    let trap = home.fresh("trap");
    let link = trap.join(place);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(target, link).unwrap();
    Overlay { lowers: vec![trap], scratch: home.fresh("scratch") }
}

/// buildah: the place of a mount is a symbolic link in the image. BuildKit: it is one in what an earlier step kept.
#[test]
fn cve_2024_1753_and_23651_mounts_through_links() {
    let Some(mut stage) = Stage::new() else { return };
    let target = stage.host.folder.clone();
    let secret = || Secret { name: "TOKEN".into(), content: b"token".to_vec() };
    for (mode, change) in modes() {
        for place in ["proc", "dev", "src", "tmp", "run", "run/secrets", "usr", "usr/share"] {
            let mut spec = stage.home.spec_with_source_of(&[]);
            let trap = trapped(&mut stage.home, place, &target);
            spec.root.lowers.splice(0..0, trap.lowers);
            spec.tmp_size_bytes = Some(1 << 20);
            spec.secrets = vec![secret()];
            if place.starts_with("usr") {
                spec.host_paths = vec!["/usr/share".into()];
            }
            change(&mut spec);
            let result = try_run(&spec).map(|run| run.outcome);
            let is_refused = matches!(result, Err(SandboxError::MountPoint { .. } | SandboxError::Setup { .. }));
            assert!(is_refused, "{place}, {mode}: {result:?}");
        }
        // In the inputs, and in a folder that is kept, below which another one is wanted.
        let kept = stage.home.fresh("kept");
        fs::create_dir(&kept).unwrap();
        symlink(&target, kept.join("b")).unwrap();
        let inside = |host: &Path, inside: &str| Private { host: host.to_owned(), inside: inside.into() };
        let other = stage.home.fresh("other");
        fs::create_dir(&other).unwrap();
        for private in [
            vec![inside(&other, "link")],
            vec![inside(&other, "link/b")],
            vec![inside(&kept, "a"), inside(&other, "a/b")],
        ] {
            let mut spec = stage.home.spec_with_source_of(&[]);
            spec.source = Some(trapped(&mut stage.home, "link", &target));
            spec.private = private;
            change(&mut spec);
            let result = try_run(&spec).map(|run| run.outcome);
            assert!(matches!(result, Err(SandboxError::MountPoint { .. })), "{mode}: {result:?}");
        }
    }
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1, "something was made outside");
    stage.host.is_untouched();
}

/// runc: parts of `/proc` are covered by the image's own `/dev/null`, terminals come to its own `/dev/console`, and what is
/// written to `/proc` goes to files of the image.
#[test]
fn cve_2025_31133_52565_52881_devices_and_proc_of_the_root() {
    let Some(mut stage) = Stage::new() else { return };
    let root = stage.home.root();
    for (name, target) in [
        ("dev/null", "/proc/sys/kernel/core_pattern"),
        ("dev/console", "/proc/sysrq-trigger"),
        ("dev/pts/0", "/proc/sysrq-trigger"),
        ("dev/tty", "/src"),
        ("proc/self/attr/exec", "/proc/sysrq-trigger"),
        ("proc/self/uid_map", "/proc/sys/kernel/core_pattern"),
        ("proc/interrupts", "/proc/kcore"),
    ] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        symlink(target, root.join(name)).unwrap();
    }
    for name in ["proc/self/gid_map", "proc/self/setgroups", "proc/self/oom_score_adj", "proc/sysrq-trigger"] {
        fs::write(root.join(name), "unwritten").unwrap();
    }
    stage.host.marks = stage.host.look(&stage.home);
    for (mode, change) in modes() {
        for attack in ["kernel settings", "shown files", "device nodes"] {
            let run = stage.attack(attack, change);
            assert!(!run.text().contains("done"), "{attack}, {mode}: {}", run.stdout);
        }
        let mut spec =
            stage.home.script("cat /proc/interrupts; stat -c '%t %T' /dev/null; ls /dev/pts; ls -l /dev/console");
        change(&mut spec);
        let run = run(&spec);
        assert_eq!(run.stdout, "1 3\nptmx\n", "{mode}: {}", run.stderr);
    }
    stage.host.is_untouched();
}

/// BuildKit: after the step, empty places of mounts are removed, through a link that the step left there.
#[test]
fn cve_2024_23652_removal_after_the_step() {
    let Some(mut stage) = Stage::new() else { return };
    let target = stage.host.folder.clone();
    fs::create_dir(target.join("empty")).unwrap();
    for (mode, change) in modes() {
        let script = format!(
            "cd /; rm -rf /bin/ls /tmp /run; ln -s {0} /tmp; ln -s {0}/empty /run; ln -s {0} /src/kept-not; \
             mkdir -p /src/deep/er; ln -s {0} /src/deep/er/link; chmod 000 /src/deep",
            target.display()
        );
        let mut spec = stage.home.script(&script.replace("ln -s", "busybox ln -s"));
        spec.source = Some(Overlay { lowers: vec![], scratch: stage.home.fresh("source") });
        change(&mut spec);
        assert_eq!(run(&spec).outcome.ending, Ending::Exited(0), "{mode}");
        for overlay in [&spec.root, spec.source.as_ref().unwrap()] {
            let changes = changes(&overlay.upper()).unwrap();
            assert!(!changes.iter().any(|change| change.path().to_string().contains("secret")), "{mode}: {changes:?}");
            cas_fs::remove_tree(&overlay.scratch).unwrap();
            assert!(fs::symlink_metadata(&overlay.scratch).is_err());
        }
        assert!(target.join("secret").exists() && target.join("empty").exists(), "{mode}");
    }
    fs::remove_dir(target.join("empty")).unwrap();
    stage.host.is_untouched();
}

/// buildah: a name becomes an option of the mount.
#[test]
fn cve_2024_9407_options_in_names() {
    let Some(mut stage) = Stage::new() else { return };
    let target = stage.host.folder.clone();
    for (mode, change) in modes() {
        for name in ["a:b", "a,upperdir=", "a\\,b", "a\nb", "a,lowerdir=/", "a b\\040"] {
            let folder = stage.home.fresh("odd").join(format!("{name}x"));
            fs::create_dir_all(folder.join("inputs")).unwrap();
            fs::write(folder.join("inputs/given"), "given").unwrap();
            let mut spec = stage.home.script("cat given; echo made >made; ls / | tr '\\n' ' '");
            spec.source = Some(Overlay { lowers: vec![folder.join("inputs")], scratch: folder.join("scratch") });
            change(&mut spec);
            let run = run(&spec);
            assert_eq!(run.text(), "givenbin dev proc src tmp ", "{name:?}, {mode}");
            assert!(folder.join("scratch/upper/made").exists(), "{name:?}, {mode}");
        }
    }
    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
    stage.host.is_untouched();
}

/// containerd: a user id that is too large becomes root's.
#[test]
fn cve_2024_40635_large_user_ids() {
    let Some(mut home) = Home::new() else { return };
    for id in [0x7FFF_FFFF, 0x8000_0000, 65_536, u32::MAX - 1] {
        let mut spec = home.script("id -u; id -g; stat -c %u /src");
        (spec.uid, spec.gid) = (id, id);
        assert_eq!(run(&spec).text(), format!("{id}\n{id}\n{id}"));
    }
    let mut spec = home.script("id -u");
    spec.uid = u32::MAX;
    assert!(matches!(try_run(&spec), Err(SandboxError::Spec(_))));
}

/// A root whose files are not what they are called.
#[test]
fn a_hostile_root() {
    let Some(mut stage) = Stage::new() else { return };
    let root = stage.home.root();
    let count = if std::env::var_os("CAS_SOAK").is_some() { 1_000_000 } else { 2_000 };
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("many")).unwrap();
    for (name, content) in
        [("passwd", &b"root\0:x:99999999999999:-1:\xFF\n:::::::\nroot:x:0"[..]), ("group", b"\n\n:::\n")]
    {
        fs::write(root.join("etc").join(name), content).unwrap();
    }
    symlink("/", root.join("etc/absolute")).unwrap();
    symlink(&stage.host.folder, root.join("etc/out")).unwrap();
    symlink("loop", root.join("etc/loop")).unwrap();
    fs::write(root.join("many/new\nline"), "odd").unwrap();
    fs::write(root.join("many").join("x".repeat(255)), "long").unwrap();
    for number in 0..count {
        fs::write(root.join(format!("many/{number}")), "").unwrap();
    }
    stage.host.marks = stage.host.look(&stage.home);
    for (mode, change) in modes() {
        let script = "id -u; cat /etc/out/secret || echo nothing; cat /etc/absolute/etc/absolute/many/new*; cat /etc/loop || echo loop; \
                      ls /many | grep -c ''; rm /many/new*; echo changed >\"/many/made
too\"; ls -d /etc/absolute/proc/1";
        let mut spec = stage.home.script(script);
        change(&mut spec);
        let user = spec.uid;
        let text = format!("{user}\nnothing\noddloop\n{}\n/etc/absolute/proc/1", count + 2);
        assert_eq!(run(&spec).text(), text, "{mode}");
        let changes = changes(&spec.root.upper()).unwrap();
        let names: Vec<String> = changes
            .iter()
            .filter(|change| !matches!(change, Change::Opaque { .. }))
            .map(|change| change.path().to_string())
            .collect();
        assert_eq!(names, ["many/made\ntoo", "many/new\nline"], "{mode}");
    }
    // Mounts need folders.
    for name in ["proc", "dev", "src"] {
        let file = stage.home.fresh("file");
        fs::create_dir(&file).unwrap();
        fs::write(file.join(name), "").unwrap();
        let mut spec = stage.home.spec_with_source_of(&[]);
        spec.root.lowers.insert(0, file);
        let result = try_run(&spec).map(|run| run.outcome);
        assert!(matches!(result, Err(SandboxError::MountPoint { .. })), "{name}: {result:?}");
    }
    stage.host.is_untouched();
}

impl Home {
    /// `true` over a source tree.
    fn spec_with_source_of(&mut self, files: &[(&str, &str)]) -> Spec {
        self.script_with_source("true", files)
    }
}
