//! Runs on the host as it is, in the weaker tiers: what of a sandbox holds there.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cas_sandbox::{Cancel, Ending, Landlock, Limit, Limits, Outcome, Plain, SandboxError, StartError, Streams};

use crate::{null, read_all, runner};

/// Longer than any test may take.
const FOREVER: &str = "600";
/// Number of the variable under which a test gives its folder to another process.
const INNER: &str = "CAS_TEST_INNER_PLAIN";

/// A daemon in the old way: a process whose parent has ended, in a session of its own, deaf to what may be ignored. It writes its
/// number and holds the standard output open.
fn daemon(file: &str) -> String {
    format!(
        "setsid sh -c 'trap \"\" HUP TERM INT; (setsid sh -c \"echo \\$\\$ > {file}.new; mv {file}.new {file}; \
         sleep {FOREVER}\" &)' & while ! test -e {file}; do sleep 0.01; done; "
    )
}

fn has_shell() -> bool {
    let is_there = ["/bin/sh", "/usr/bin/setsid"].iter().all(|path| Path::new(path).exists());
    if !is_there {
        eprintln!("SKIPPED: this machine has no /bin/sh or no /usr/bin/setsid");
    }
    is_there
}

fn script(folder: &Path, script: &str) -> Plain {
    Plain {
        folder: folder.to_owned(),
        confined_to: None,
        command: ["/bin/sh", "-euc", script].map(Into::into).to_vec(),
        environment: [("PATH".into(), "/usr/bin:/bin".into())].into(),
        working_directory: folder.to_owned(),
        timeout: None,
        limits: Limits::default(),
        processors: Vec::new(),
        aslr: true,
    }
}

fn try_run(plain: &Plain, cancel: &Cancel) -> Result<(Outcome, String), SandboxError> {
    let (reader, writer) = std::io::pipe().unwrap();
    // The text ends when nobody holds the other side any more.
    let printed = read_all(reader);
    let outcome = runner().run_plain(plain, Streams::new(writer.try_clone().unwrap(), writer), cancel);
    let printed = printed.join().unwrap();
    Ok((outcome?, printed))
}

#[track_caller]
fn run(plain: &Plain) -> (Ending, String) {
    let (outcome, printed) = try_run(plain, &Cancel::new().unwrap()).unwrap();
    (outcome.ending, printed)
}

fn is_alive(folder: &Path, file: &str) -> bool {
    let number = fs::read_to_string(folder.join(file)).unwrap();
    Path::new("/proc").join(number.trim()).exists()
}

#[test]
fn a_command_finds_what_is_given_and_nothing_of_the_caller() {
    if !has_shell() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let text = "pwd; env | sort; umask; ulimit -c; ulimit -n; cat; grep -E '^(NoNewPrivs|Cap(Prm|Eff))' /proc/self/status; \
                ls /proc/self/fd | wc -l; exit 3";
    let (ending, printed) = run(&script(home.path(), text));
    assert_eq!(ending, Ending::Exited(3), "{printed}");
    let here = fs::canonicalize(home.path()).unwrap();
    let expected = format!(
        "{here}\nPATH=/usr/bin:/bin\nPWD={here}\n0022\n0\n1024\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
         NoNewPrivs:\t1\n",
        here = here.display()
    );
    // Standard streams, and the one by which the folder is listed.
    let (found, descriptors) = printed.trim_end().rsplit_once('\n').unwrap();
    assert_eq!((format!("{found}\n"), descriptors), (expected, "4"));
}

#[test]
fn endings_and_what_does_not_start_are_told_as_in_a_sandbox() {
    if !has_shell() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    assert_eq!(run(&script(home.path(), "kill -TERM $$; sleep 600")).0, Ending::Signalled(15));
    let missing = Plain { command: vec!["no-such-program".into()], ..script(home.path(), "") };
    let error = try_run(&missing, &Cancel::new().unwrap()).unwrap_err();
    assert!(matches!(error, SandboxError::Start(StartError::NotFound { .. })), "{error:?}");
    let nowhere = Plain { working_directory: home.path().join("gone"), ..script(home.path(), "true") };
    let error = try_run(&nowhere, &Cancel::new().unwrap()).unwrap_err();
    assert!(matches!(error, SandboxError::Start(StartError::WorkingDirectory { .. })), "{error:?}");
    let relative = Plain { folder: PathBuf::from("x"), ..script(home.path(), "true") };
    assert!(matches!(try_run(&relative, &Cancel::new().unwrap()), Err(SandboxError::Spec(_))));
}

#[test]
fn a_daemon_is_dead_however_the_command_ended() {
    if !has_shell() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (ending, _) = run(&script(home.path(), &daemon("by-itself")));
    assert_eq!(ending, Ending::Exited(0));
    assert!(!is_alive(home.path(), "by-itself"));
    // One that holds no stream, so that nothing but its number tells of it.
    let (ending, _) = run(&script(
        home.path(),
        &format!("{}exit 3", daemon("closed").replace("sleep 600\"", "exec sleep 600 >/dev/null 2>&1 </dev/null\"")),
    ));
    assert_eq!(ending, Ending::Exited(3));
    assert!(!is_alive(home.path(), "closed"));
    let slow = script(home.path(), &format!("{}sleep {FOREVER}", daemon("slow")));
    let (ending, _) = run(&Plain { timeout: Some(Duration::from_secs(2)), ..slow });
    assert_eq!(ending, Ending::TimedOut);
    assert!(!is_alive(home.path(), "slow"));
    let cancel = Cancel::new().unwrap();
    let started = home.path().join("cancelled");
    let cancelled = script(home.path(), &format!("{}sleep {FOREVER}", daemon("cancelled")));
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_for(&started);
            cancel.cancel();
        });
        try_run(&cancelled, &cancel).unwrap().0
    });
    assert_eq!(outcome.ending, Ending::Cancelled);
    assert!(!is_alive(home.path(), "cancelled"));
}

/// A step that kills who collects its orphans gets them all the same killed.
#[test]
fn orphans_die_when_the_command_killed_its_parent() {
    if !has_shell() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (ending, _) = run(&script(home.path(), &format!("{}kill -9 $PPID; sleep {FOREVER}", daemon("orphan"))));
    assert_eq!(ending, Ending::Signalled(9));
    assert!(!is_alive(home.path(), "orphan"));
}

/// Not a test: the process that the next test kills.
#[test]
fn inner_plain_runner_that_is_killed() {
    let Some(folder) = std::env::var_os(INNER) else { return };
    let stdout: OwnedFd = std::os::fd::AsFd::as_fd(&std::io::stdout().lock()).try_clone_to_owned().unwrap();
    let plain = script(Path::new(&folder), &format!("{}sleep {FOREVER}", daemon("inner")));
    let _ = runner().run_plain(&plain, Streams::new(stdout, null()), &Cancel::new().unwrap());
}

#[test]
fn killing_the_runner_kills_a_plain_command() {
    if !has_shell() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plain::inner_plain_runner_that_is_killed", "--nocapture"])
        .env(INNER, home.path())
        .stdout(writer)
        .stderr(null())
        .spawn()
        .unwrap();
    wait_for(&home.path().join("inner"));
    runner.kill().unwrap();
    runner.wait().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(std::io::copy(&mut reader, &mut std::io::sink()).is_ok()));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(true), "something still holds the output open");
}

/// By the watcher, which every host has.
#[test]
fn limits_are_held_without_a_sandbox() {
    if !has_shell() {
        return;
    }
    let watched = Limits { enforcement: Some(cas_sandbox::Enforcement::Watched), ..Limits::default() };
    let many = "i=0; while test $i -lt 40; do sleep 600 & i=$((i+1)); done; wait";
    let large = "dd if=/dev/zero of=large bs=1048576 count=64 2>/dev/null; sleep 600";
    for (text, limits, expected) in [
        (many, Limits { process_count: Some(20), ..watched }, Limit::Processes),
        (large, Limits { scratch_bytes: Some(8 << 20), ..watched }, Limit::ScratchBytes),
        (
            "x=$(head -c 200000000 /dev/zero | tr '\\0' x); sleep 600",
            Limits { memory_bytes: Some(50 << 20), ..watched },
            Limit::Memory,
        ),
    ] {
        let home = tempfile::tempdir().unwrap();
        let (ending, printed) = run(&Plain { limits, ..script(home.path(), text) });
        assert_eq!(ending, Ending::OverLimit(expected), "{printed}");
    }
}

/// Files, and calls that no ruleset is for.
#[test]
fn a_confined_command_has_its_folder_what_is_shown_and_fewer_system_calls() {
    if !has_shell() {
        return;
    }
    if let Err(cannot) = Landlock::of_kernel() {
        return eprintln!("SKIPPED: {cannot}");
    }
    let home = tempfile::tempdir().unwrap();
    let (own, other) = (home.path().join("own"), home.path().join("other"));
    for folder in [&own, &other] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(other.join("file"), "secret").unwrap();
    let shown = ["/bin", "/lib", "/lib64", "/usr", "/etc/ld.so.cache"].map(PathBuf::from);
    let shown: Vec<PathBuf> = shown.into_iter().filter(|path| path.exists()).collect();
    let text = "echo x > mine; cat mine; for at in cat ls; do $at ../other/file 2>/dev/null || echo no $at; done; \
                (echo y > ../other/new) 2>/dev/null || echo no write; (mkdir /usr/new) 2>/dev/null || echo no mkdir; \
                unshare --uts true 2>/dev/null || echo no namespace; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status";
    let open = script(&own, text);
    let confined = Plain { confined_to: Some(shown.clone()), ..open.clone() };
    let (ending, printed) = run(&confined);
    assert_eq!(ending, Ending::Exited(0), "{printed}");
    // That a path is there can be seen: only reading is held.
    let expected = "x\nno cat\n../other/file\nno write\nno mkdir\nno namespace\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert_eq!(printed, expected);
    // More of the host is a matter of what is named.
    let shown = shown.into_iter().chain([other.clone()]).collect();
    let (_, printed) = run(&Plain { confined_to: Some(shown), ..open });
    assert!(printed.starts_with("x\nsecret../other/file\nno write\n"), "{printed}");
}

fn wait_for(path: &Path) {
    let started = std::time::Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "{} did not come", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}
