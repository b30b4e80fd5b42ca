//! How a run ends, and that nothing outlives it.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas_sandbox::{Cancel, Ending, SandboxError, Streams};

use crate::{Home, null, program, run, runner, try_run, try_run_with};

/// Longer than any test may take.
const FOREVER: &str = "600";

#[test]
fn codes_and_signals_are_reported() {
    let Some(mut home) = Home::new() else { return };
    for (script, expected) in [
        ("exit 0", Ending::Exited(0)),
        ("exit 37", Ending::Exited(37)),
        ("kill -TERM $$; sleep 600", Ending::Signalled(15)),
        ("kill -9 $$", Ending::Signalled(9)),
    ] {
        assert_eq!(run(&home.script(script)).outcome.ending, expected, "{script}");
    }
}

#[test]
fn a_timeout_kills_all_even_those_that_ignore_signals() {
    let Some(mut home) = Home::new() else { return };
    let mut spec =
        home.script(&format!("trap '' TERM INT HUP; setsid sleep {FOREVER} & sleep {FOREVER}; sleep {FOREVER}"));
    spec.timeout = Some(Duration::from_millis(300));
    let run = run(&spec);
    assert_eq!(run.outcome.ending, Ending::TimedOut);
    assert!(run.outcome.elapsed >= Duration::from_millis(300) && run.outcome.elapsed < Duration::from_secs(30));
}

#[test]
fn cancelling_from_another_thread_kills() {
    let Some(mut home) = Home::new() else { return };
    let cancel = Cancel::new().unwrap();
    let thread = std::thread::spawn({
        let cancel = cancel.clone();
        move || {
            std::thread::sleep(Duration::from_millis(200));
            cancel.cancel();
        }
    });
    let spec = home.spec(&["sleep", FOREVER]);
    assert_eq!(try_run_with(&runner(), &spec, &cancel).unwrap().outcome.ending, Ending::Cancelled);
    thread.join().unwrap();
    // A switch that was thrown before ends a run at once.
    let spec = home.spec(&["sleep", FOREVER]);
    assert_eq!(try_run_with(&runner(), &spec, &cancel).unwrap().outcome.ending, Ending::Cancelled);
}

/// The child holds the pipe of standard output open; that the reader saw its end is the proof that it is dead.
#[test]
fn a_daemon_dies_with_its_command() {
    let Some(mut home) = Home::new() else { return };
    let started = Instant::now();
    let run = run(&home.script(&format!("setsid sh -c 'trap \"\" HUP TERM; sleep {FOREVER}' & echo started")));
    assert_eq!(run.text(), "started");
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn standard_input_can_be_handed_in() {
    let Some(mut home) = Home::new() else { return };
    let spec = home.spec(&["cat"]);
    let (reader, writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut &writer, b"typed").unwrap();
    drop(writer);
    let output = home.fresh("output");
    let file = fs::File::create_new(&output).unwrap();
    let streams = Streams { stdin: Some(OwnedFd::from(reader)), ..Streams::new(file, null()) };
    let outcome = runner().run(&spec, streams, &Cancel::new().unwrap()).unwrap();
    assert_eq!(outcome.ending, Ending::Exited(0));
    assert_eq!(fs::read_to_string(&output).unwrap(), "typed");
}

#[test]
fn many_sandboxes_run_at_once() {
    let Some(mut home) = Home::new() else { return };
    let specs: Vec<_> = (0..16).map(|number| home.script(&format!("echo {number} >/tmp/x; cat /tmp/x"))).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = specs.iter().map(|spec| scope.spawn(|| run(spec).text().to_owned())).collect();
        for (number, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), number.to_string());
        }
    });
}

#[test]
fn a_helper_that_is_none_is_an_error() {
    let Some(mut home) = Home::new() else { return };
    let spec = home.script("true");
    let missing = cas_sandbox::Runner::new("/nonexistent/cas");
    assert!(matches!(try_run_with(&missing, &spec, &Cancel::new().unwrap()), Err(SandboxError::Helper { .. })));
    let spec = home.script("true");
    let other = cas_sandbox::Runner::new("/bin/false");
    assert!(matches!(try_run_with(&other, &spec, &Cancel::new().unwrap()), Err(SandboxError::HelperEnded { .. })));
    let used = home.script("true");
    run(&used);
    assert!(matches!(try_run(&used), Err(SandboxError::Scratch(_))), "a scratch folder serves one run");
}

#[test]
fn the_hidden_argument_by_hand_is_a_usage_error() {
    let output = Command::new(program()).arg("__sandbox").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: `__sandbox` is for cas itself to start\n");
}

/// Number of the variable under which the next test gives itself a folder.
const INNER: &str = "CAS_TEST_INNER_HOME";

/// Not a test: the process that the next test kills.
#[test]
fn inner_runner_that_is_killed() {
    let Some(directory) = std::env::var_os(INNER) else { return };
    let mut home = Home { directory: directory.into(), count: 100 };
    let mut spec = home.script(&format!("setsid sleep {FOREVER} & echo $$ >started; sleep {FOREVER}"));
    spec.source = Some(cas_sandbox::Overlay { lowers: Vec::new(), scratch: home.directory.join("inner-source") });
    std::mem::forget(home);
    let _ =
        runner().run(&spec, Streams::new(std::io::stdout().lock().try_clone_owned(), null()), &Cancel::new().unwrap());
}

trait TryCloneOwned {
    fn try_clone_owned(&self) -> OwnedFd;
}

impl TryCloneOwned for std::io::StdoutLock<'_> {
    fn try_clone_owned(&self) -> OwnedFd {
        std::os::fd::AsFd::as_fd(self).try_clone_to_owned().unwrap()
    }
}

/// As above, the end of the pipe shows that every process of the sandbox is dead.
#[test]
fn killing_the_runner_kills_the_command() {
    let Some(home) = Home::new() else { return };
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "endings::inner_runner_that_is_killed", "--nocapture"])
        .env(INNER, &home.directory)
        .stdout(writer)
        .stderr(null())
        .spawn()
        .unwrap();
    let started = home.directory.join("inner-source/upper/started");
    wait_for(&started);
    runner.kill().unwrap();
    runner.wait().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(std::io::copy(&mut reader, &mut std::io::sink()).is_ok()));
    assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok(true), "something still holds the output open");
}

fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "{} did not come", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// For finding out why a step failed: also what is not there, by processes that a process started, relative to folders.
#[test]
fn what_a_command_looks_for_is_told() {
    let Some(mut home) = Home::new() else { return };
    let script = "mkdir -p /src/sub; cd /src/sub; echo x > there; cat there ../missing ./../sub/./gone /etc/passwd 2>/dev/null || :; \
                  (cd ..; sh -c 'test -e deep/er; exec cat sub/there')";
    let spec = home.script(script);
    let (reader, writer) = std::io::pipe().unwrap();
    let streams = Streams::new(writer.try_clone().unwrap(), writer);
    let (outcome, paths) = runner().run_watched(&spec, streams, &Cancel::new().unwrap()).unwrap();
    let printed = std::io::read_to_string(reader).unwrap();
    assert_eq!(outcome.ending, Ending::Exited(0), "{printed}");
    assert!(printed.ends_with("x\n"), "{printed}");
    let paths: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
    for expected in ["sub/there", "missing", "sub/gone", "deep/er"] {
        assert!(paths.contains(&expected), "{expected}: {paths:?}");
    }
    assert!(!paths.iter().any(|path| path.contains("passwd") || path.contains("bin")), "{paths:?}");
    // Nothing hangs when the program cannot be started, and when it is killed.
    let mut spec = home.script("true");
    spec.command = vec!["/missing".into()];
    let (_reader, writer) = std::io::pipe().unwrap();
    let streams = Streams::new(writer.try_clone().unwrap(), writer);
    assert!(runner().run_watched(&spec, streams, &Cancel::new().unwrap()).is_err());
    let spec = home.script("cat /src/x 2>/dev/null || echo looked; while :; do cat /src/x || :; done 2>/dev/null");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let streams = Streams::new(writer.try_clone().unwrap(), writer);
    let cancel = Cancel::new().unwrap();
    let (outcome, paths) = std::thread::scope(|scope| {
        let run = scope.spawn(|| runner().run_watched(&spec, streams, &cancel).unwrap());
        reader.read_exact(&mut [0]).unwrap();
        cancel.cancel();
        run.join().unwrap()
    });
    assert_eq!(outcome.ending, Ending::Cancelled);
    assert!(paths.contains(std::path::Path::new("x")), "{paths:?}");
}
