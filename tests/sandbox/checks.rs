//! Checks: that they are what the command could do itself, that they are held to their time and output, and that they end.

use std::sync::Mutex;
use std::time::Duration;

use cas_sandbox::{Cancel, Check, Ending, Health, Outcome, Spec, Streams};

use crate::{Home, null, read_all, runner};

/// A run that would last longer hangs.
const HANGS: Duration = Duration::from_secs(60);

/// A check of a shell's that begins at once, and whose first failure counts.
pub(crate) fn check(words: &[&str]) -> Check {
    Check {
        command: words.iter().map(Into::into).collect(),
        interval: Duration::from_millis(1),
        timeout: HANGS,
        start_period: Duration::ZERO,
        start_interval: Duration::from_millis(1),
        retries: 1,
    }
}

/// Runs until the command ends or `is_enough` says so; gives what was told and printed.
pub(crate) fn serve(spec: &Spec, is_enough: &(dyn Fn(&Health) -> bool + Sync)) -> (Outcome, Vec<Health>, String) {
    let (reader, stdout) = std::io::pipe().unwrap();
    let printed = read_all(reader);
    let (cancel, told) = (Cancel::new().unwrap(), Mutex::new(Vec::new()));
    let on_health = |health: Health| {
        if is_enough(&health) {
            cancel.cancel();
        }
        told.lock().unwrap().push(health);
    };
    let streams = Streams::new(stdout, null());
    let (outcome, _) = runner().run_served(spec, streams, Vec::new(), &on_health, &cancel).unwrap();
    (outcome, told.into_inner().unwrap(), printed.join().unwrap())
}

/// Everything by which a process is held is the same for both.
#[test]
fn a_check_is_in_the_sandbox_of_its_command() {
    let Some(mut home) = Home::new() else { return };
    let world = "id; pwd; env; hostname; ulimit -a; ls /; cat /proc/self/cgroup; \
                 grep -E '^(Cap|NoNew|Seccomp|Uid|Gid|Groups|Sig[BIC])' /proc/self/status; \
                 for kind in user pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$kind; done; ls /dev /proc/self/fd | grep -c .";
    let mut spec = home.script(&format!("{world}\ntouch /tmp/end\nsleep 600"));
    spec.timeout = Some(HANGS);
    let after = format!("until test -e /tmp/end; do sleep 0.01; done\n{world}\nexit 3");
    spec.check = Some(check(&["sh", "-euc", &after]));
    let (outcome, told, printed) = serve(&spec, &|_| true);
    assert_eq!(outcome.ending, Ending::Cancelled);
    let [Health { is_healthy: false, ending, output }] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*ending, String::from_utf8_lossy(output)), (Ending::Exited(3), printed.into()));
}

/// What lasts too long is killed with its group, what it prints is kept up to a size, and the command goes on.
#[test]
fn a_check_is_held_to_its_time_and_output() {
    let Some(mut home) = Home::new() else { return };
    let waits =
        "until test -s /tmp/child; do sleep 0.01; done; while kill -0 $(cat /tmp/child); do sleep 0.01; done; exit 5";
    let mut spec = home.script(waits);
    spec.timeout = Some(HANGS);
    let lasts = "test -e /tmp/child && exit 1; sleep 600 & echo $! > /tmp/child; while :; do echo 0123456789; done";
    spec.check = Some(Check { timeout: Duration::from_millis(300), ..check(&["sh", "-c", lasts]) });
    let (outcome, told, _) = serve(&spec, &|_| false);
    assert_eq!(outcome.ending, Ending::Exited(5));
    let [Health { is_healthy: false, ending: Ending::TimedOut, output }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*output, "0123456789\n".repeat(400).as_bytes()[..4096]);
}

#[test]
fn a_check_that_does_not_start_says_why() {
    let Some(mut home) = Home::new() else { return };
    let mut spec = home.spec(&["sleep", "600"]);
    spec.timeout = Some(HANGS);
    for (program, expected) in
        [("curl", "program `curl` is not in the root file system"), ("/tmp", "`/tmp` is not executable")]
    {
        spec.root.scratch = home.fresh("scratch");
        spec.check = Some(check(&[program]));
        let (_, told, _) = serve(&spec, &|_| true);
        let [Health { is_healthy: false, ending: Ending::Exited(127), output }] = &told[..] else { panic!("{told:?}") };
        assert_eq!(String::from_utf8_lossy(output), expected);
    }
}

/// Process 1 runs the checks, which no signal of the sandbox reaches.
#[test]
fn the_command_cannot_end_its_checks() {
    let Some(mut home) = Home::new() else { return };
    let kills = "for i in 1 2 3 4 5 6 7 8 9 10; do kill -9 -1 || true; kill -STOP -1 || true; done; touch /tmp/works; sleep 600";
    let mut spec = home.script(kills);
    spec.timeout = Some(HANGS);
    spec.check = Some(Check { timeout: Duration::from_secs(1), ..check(&["sh", "-c", "test -e /tmp/works"]) });
    let (outcome, told, _) = serve(&spec, &|health| health.is_healthy);
    assert_eq!((outcome.ending, told.last().map(|health| health.is_healthy)), (Ending::Cancelled, Some(true)));
}

/// Neither a check that still runs, nor what has fled from it, keeps the run from ending.
#[test]
fn checks_end_with_the_command() {
    let Some(mut home) = Home::new() else { return };
    let mut spec = home.script("until test -e /tmp/runs; do sleep 0.01; done; exit 4");
    spec.timeout = Some(HANGS);
    let lasts = "setsid sh -c 'trap \"\" TERM HUP; sleep 600' & touch /tmp/runs; sleep 600";
    spec.check = Some(check(&["sh", "-c", lasts]));
    let (outcome, told, _) = serve(&spec, &|_| false);
    assert_eq!((outcome.ending, told), (Ending::Exited(4), Vec::new()));
    // Nobody is told of a check by a plain run, and there is none.
    spec.root.scratch = home.fresh("scratch");
    spec.command = ["sh", "-c", "sleep 0.2; test ! -e /tmp/runs"].map(Into::into).to_vec();
    assert_eq!(crate::run(&spec).outcome.ending, Ending::Exited(0));
}
