//! `cas test`: what is run again, in which parts, with which arguments, and the report.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::{Home, text};

const PASSING: &str = "[workspace]\nmembers = [\"p/*\"]\n[defaults]\ntoolchain = \"//:sh\"\n[test.a]\nrun = \"true\"\n[test.b]\nrun = \"true; true\"\n";

fn ran(stderr: &str) -> usize {
    stderr.lines().filter(|line| line.starts_with("ran ")).count()
}

/// Seconds since the machine was started: the one thing that a step sees change.
fn uptime_seconds() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}

/// A workspace with one test that fails until the machine has been up for as long as `UNTIL` says, and one that fails from
/// then on.
fn of_the_hour() -> Option<Home> {
    let run =
        |operator| format!("echo at `cat /proc/uptime`; sleep 0.2; test `cut -d. -f1 /proc/uptime` {operator} $UNTIL");
    let (late, early) = (run("-ge"), run("-lt"));
    let manifest = format!(
        "[workspace]\n[defaults]\ntoolchain = \":sh\"\nenv_in = [\"UNTIL\"]\n\
         [test.late]\nrun = \"{late}\"\n[test.early]\nrun = \"{early}\"\n"
    );
    let home = Home::with_busybox(&manifest, &[])?;
    assert_eq!(home.cas(&["build", ":sh"]).status.code(), Some(0));
    Some(home)
}

#[test]
fn a_test_that_passed_runs_again_when_it_is_told_to() {
    let Some(home) = Home::with_busybox(PASSING, &[]) else { return };
    for (arguments, count) in
        [(&["test"][..], 2), (&["test"], 0), (&["test", "--rerun"], 2), (&["test", ":a", "--rerun"], 1), (&["test"], 0)]
    {
        let output = home.cas(arguments);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), ran(&stderr)), (Some(0), count), "{arguments:?}: {stderr}");
    }
}

/// What a test needs is not what was asked for.
#[test]
fn what_a_test_needs_is_not_run_again() {
    let manifest = "[workspace]\n[defaults]\ntoolchain = \":sh\"\n\
                    [command.made]\nrun = \"echo > out\"\noutputs = [\"out\"]\n[test.first]\nrun = \"true\"\n\
                    [test.t]\nrun = \"test -e out\"\ndeps = [\":made\", \":first\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    assert_eq!(home.cas(&["test", ":t"]).status.code(), Some(0));
    let stderr = text(&home.cas(&["test", ":t", "--rerun"]).stderr);
    assert!(ran(&stderr) == 1 && stderr.contains("ran //:t"), "{stderr}");
    // Nor does it get arguments: `true` would take them, and be another step.
    let stderr = text(&home.cas(&["test", ":t", "--", "-a", "1"]).stderr);
    assert!(ran(&stderr) == 1 && stderr.contains("ran //:t"), "{stderr}");
}

/// A pass is what the cache says until an input changes, even if a later run fails; who is told is the user.
#[test]
fn a_result_that_is_there_stays() {
    let Some(home) = of_the_hour() else { return };
    let until = uptime_seconds() + 4;
    let test = |arguments: &[&str]| home.command(arguments).env("UNTIL", until.to_string()).output().unwrap();
    assert_eq!(test(&["test", ":early"]).status.code(), Some(0));
    while uptime_seconds() < until {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let output = test(&["test", ":early", "--rerun"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("warning: `//:early` passed before and failed now, with the same inputs"), "{stderr}");
    let output = test(&["test", ":early"]);
    assert_eq!((output.status.code(), ran(&text(&output.stderr))), (Some(0), 0));
}

#[test]
fn a_test_that_passes_at_last_is_flaky_and_not_kept() {
    let Some(home) = of_the_hour() else { return };
    let until = (uptime_seconds() + 2).to_string();
    let report = home.workspace().join("cas-out/report.xml");
    let test = |arguments: &[&str]| home.command(arguments).env("UNTIL", &until).output().unwrap();
    let output = test(&["test", ":late", "--retries", "60", "--format", "json", "--junit", "cas-out/report.xml"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &document["results"][0];
    let attempts = row["attempts"].as_u64().unwrap();
    assert_eq!((&row["status"], attempts > 1), (&"flaky".into(), true), "{document}");
    let warning = format!("warning: `//:late` is flaky: it failed {} times before it passed", attempts - 1);
    assert!(stderr.contains(&warning), "{stderr}");
    assert_eq!(stderr.matches("; trying it again").count() as u64, attempts - 1, "{stderr}");
    let xml = fs::read_to_string(report).unwrap();
    assert_eq!(xml.matches("<flakyFailure message=").count() as u64, attempts - 1, "{xml}");
    assert!(xml.contains("tests=\"1\" failures=\"0\"") && xml.contains("at "), "{xml}");
    // It runs again: now it passes at once, and that is kept.
    for count in [1, 0] {
        let output = test(&["test", ":late"]);
        assert_eq!((output.status.code(), ran(&text(&output.stderr))), (Some(0), count));
        assert_eq!(text(&output.stdout), "test //:late passed\n");
    }
}

#[test]
fn a_test_that_always_fails_is_tried_as_often_as_was_said() {
    let manifest = "[workspace]\n[test.t]\ntoolchain = \":sh\"\nrun = \"echo no; exit 7\"\n\
                    [test.u]\ntoolchain = \":sh\"\nrun = \"echo > left\"\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    let output = home.cas(&["test", ":t", "--retries", "2"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.matches("; trying it again").count(), 2, "{stderr}");
    let log = stderr.lines().find_map(|line| line.strip_prefix("hint: the whole output is in `")?.strip_suffix('`'));
    assert_eq!(fs::read_to_string(log.unwrap()).unwrap(), "no\n");
    // What is no failure of the test is not tried again: it would be the same.
    let output = home.cas(&["test", ":u", "--retries", "2"]);
    assert_eq!((output.status.code(), text(&output.stderr).contains("trying")), (Some(1), false));
}

#[test]
fn shards_are_all_tests_together() {
    let Some(home) = Home::with_busybox(PASSING, &[]) else { return };
    for package in ["x", "y"] {
        home.write(&format!("p/{package}/cas.toml"), "[test.u]\nrun = \"true\"\n[test.v]\nrun = \"true\"\n");
    }
    let tests = |shard: &str| -> BTreeSet<String> {
        let output = home.cas(&["test", "--shard", shard]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    };
    let all = tests("1/1");
    assert_eq!(all.len(), 6);
    let parts: Vec<BTreeSet<String>> = ["1/4", "2/4", "3/4", "4/4"].map(tests).into();
    assert_eq!(parts.iter().map(BTreeSet::len).collect::<Vec<_>>(), [2, 2, 1, 1]);
    assert_eq!(parts.into_iter().flatten().collect::<BTreeSet<_>>(), all);
    let output = home.cas(&["test", "--shard", "9/9", "--junit", "cas-out/report.xml"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), "note: no test is in part 9 of 9\n"));
    assert!(home.read("cas-out/report.xml").contains("<testsuites name=\"cas\" tests=\"0\""));
    assert_eq!(home.cas(&["test", "--shard", "0/2"]).status.code(), Some(2));
}

#[test]
fn arguments_go_behind_the_command_and_are_part_of_the_key() {
    let manifest = "[workspace]\n[defaults]\ntoolchain = \":sh\"\n\
                    [test.text]\nrun = \"echo shell\"\n\
                    [test.place]\nrun = \"set -- \\\"$@\\\" last\\nprintf '[%s]' \\\"$@\\\"\"\n\
                    [test.array]\nrun = [\"/bin/busybox\", \"echo\", \"first\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    let logs = || {
        let folder = fs::read_dir(home.folder.path().join("store/v1/logs")).unwrap();
        folder.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(home.cas(&["test"]).status.code(), Some(0));
    assert_eq!(logs(), ["shell\n", "[last]", "first\n"].map(str::to_owned).into());
    let arguments = ["test", "--", "a b", "$HOME", "--x"];
    let output = home.cas(&arguments);
    assert_eq!((output.status.code(), ran(&text(&output.stderr))), (Some(0), 3));
    for expected in ["shell a b $HOME --x\n", "[a b][$HOME][--x][last]", "first a b $HOME --x\n"] {
        assert!(logs().contains(expected), "{expected}: {:?}", logs());
    }
    // Both are known now, and what the target is made of is what it says.
    assert_eq!(ran(&text(&home.cas(&arguments).stderr)), 0);
    assert_eq!(ran(&text(&home.cas(&["test"]).stderr)), 0);
    assert_eq!(text(&home.cas(&["why", ":text"]).stdout), "//:text is up to date\n");
}

#[test]
fn the_report_has_every_test_and_is_xml() {
    let manifest = "[workspace]\nmembers = [\"p/*\"]\n[defaults]\ntoolchain = \"//:sh\"\n\
                    [test.good]\nrun = \"true\"\n[test.bad]\nrun = \"printf '<a> & ]]> \\\\033[31mred\\\\001\\\\377\\\\n'; exit 3\"\n\
                    [command.broken]\nrun = \"exit 4\"\noutputs = [\"x\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    home.write("p/x/cas.toml", "[test.waits]\nrun = \"true\"\ndeps = [\"//:broken\"]\n");
    home.write("cas-out/reports/junit.xml", "old");
    for cached in ["false", "true"] {
        let output = home.cas(&["test", "--junit", "cas-out/reports/junit.xml"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let xml = home.read("cas-out/reports/junit.xml");
        for expected in [
            "<testsuites name=\"cas\" tests=\"4\" failures=\"1\" errors=\"2\"",
            "<testsuite name=\"//\" tests=\"3\" failures=\"1\" errors=\"1\"",
            "<testsuite name=\"//p/x\" tests=\"1\" failures=\"0\" errors=\"1\"",
            "&lt;a&gt; &amp; ]]&gt; red\u{fffd}\u{fffd}",
            "<error message=\"not tried, because of what failed before\"",
            &format!("name=\"good\" time=\"0.{}", if cached == "true" { "000\"" } else { "" }),
            &format!("<property name=\"cached\" value=\"{cached}\"/>"),
        ] {
            assert!(xml.contains(expected), "{expected}: {xml}");
        }
        let python = "import sys, xml.etree.ElementTree as t; print(len(list(t.parse(sys.argv[1]).iter('testcase'))))";
        let path = home.workspace().join("cas-out/reports/junit.xml");
        if let Ok(judge) = std::process::Command::new("python3").args(["-c", python]).arg(&path).output() {
            assert_eq!(text(&judge.stdout), "4\n", "{}", text(&judge.stderr));
        }
        assert_eq!(fs::read_dir(home.workspace().join("cas-out/reports")).unwrap().count(), 1, "nothing else is left");
    }
}
