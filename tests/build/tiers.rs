//! Builds with less than the whole sandbox: the same outputs, results of their own, and what each tier holds.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas_sandbox::Landlock;

use crate::{Home, text};

/// Steps that read their inputs, each other's outputs, a probe, and keep a folder.
const MANIFEST: &str = "\
[workspace]
[toolchain.host]
host = { identity = \"x\", probe = [\"echo same\"] }
[command.first]
toolchain = \":host\"
run = \"mkdir -p out/deep; cat in.txt > out/deep/copy; ln -s deep/copy out/link; cp in.txt out/run; chmod +x out/run; mkdir out/empty\"
outputs = [\"out\"]
[command.second]
toolchain = \":host\"
deps = [\":first\"]
run = \"cat out/link > seen; pwd > /dev/null; echo $HOME > $TMPDIR/x; test -s $TMPDIR/x; echo more >> kept/count; mkdir node_modules; touch node_modules/.tool\"
outputs = [\"seen\"]
cache = [\"kept\"]
[test.passes]
toolchain = \":host\"
deps = [\":second\"]
run = \"test \\\"$(cat seen)\\\" = read\"
";

fn home(manifest: &str) -> Option<Home> {
    if !Path::new("/bin/sh").exists() {
        eprintln!("SKIPPED: this machine has no /bin/sh");
        return None;
    }
    let home = Home::new(manifest);
    home.write("in.txt", "read\n");
    Some(home)
}

/// What a build printed, and the steps that it counted; it must have done its work.
fn built(home: &Home, arguments: &[&str]) -> (String, String, String) {
    let output = home.cas(arguments);
    let (printed, told) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}");
    let last = told.lines().last().unwrap_or_default().to_owned();
    (printed, told, last)
}

/// `digest` and `action` of targets.
fn names(home: &Home, tier: &str) -> Vec<(String, String)> {
    let (printed, ..) = built(home, &["build", ":first", ":second", "--format", "json", "--sandbox", tier]);
    let document: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let rows = document["results"].as_array().unwrap();
    for row in rows {
        let expected = if tier == "namespaces" { None } else { Some(tier) };
        assert_eq!(row["sandboxes"][0].as_str(), expected, "{row}");
    }
    let name = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
    rows.iter().map(|row| (name(row, "digest"), name(row, "action"))).collect()
}

/// The tiers that this host has.
fn tiers() -> Vec<&'static str> {
    let mut tiers = vec!["namespaces", "none"];
    match Landlock::of_kernel() {
        Ok(_) => tiers.push("landlock"),
        Err(cannot) => eprintln!("SKIPPED in part: {cannot}"),
    }
    tiers
}

#[test]
fn each_tier_gives_the_same_outputs_and_has_results_of_its_own() {
    let Some(home) = home(MANIFEST) else { return };
    let mut found = Vec::new();
    for tier in tiers() {
        let (_, _, steps) = built(&home, &["test", "--sandbox", tier]);
        assert_eq!(steps, "3 steps ran, 0 were cached", "{tier}: a result of another tier was taken");
        assert_eq!(built(&home, &["test", "--sandbox", tier]).2, "0 steps ran, 3 were cached", "{tier}");
        found.push(names(&home, tier));
    }
    for other in &found[1..] {
        for ((digest, action), (first_digest, first_action)) in other.iter().zip(&found[0]) {
            assert_eq!(digest, first_digest);
            assert_ne!(action, first_action);
        }
    }
    // The folder that a step keeps is there again: each tier added to it.
    let output = home.cas(&["why", ":second", "--lane", "incremental:none"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn what_is_kept_is_there_in_the_next_run_and_sources_are_at_one_path() {
    let manifest = "[workspace]\n[toolchain.host]\nhost = {}\n[command.c]\ntoolchain = \":host\"\n\
                    run = \"echo x >> kept/count; wc -l < kept/count > out; pwd > where; cat in.txt > /dev/null\"\n\
                    outputs = [\"out\", \"where\"]\ncache = [\"kept\"]\n";
    let Some(home) = home(manifest) else { return };
    let build = || {
        built(&home, &["build", "--sandbox=none"]);
        (home.read("cas-out/c/out").trim().to_owned(), home.read("cas-out/c/where"))
    };
    let first = build();
    home.write("in.txt", "other\n");
    let second = build();
    assert_eq!((first.0.as_str(), second.0.as_str()), ("1", "2"));
    assert_eq!(first.1, second.1);
    assert!(!Path::new(first.1.trim()).starts_with(home.workspace()), "{}", first.1);
}

#[test]
fn less_than_the_whole_sandbox_is_told_once() {
    let Some(home) = home(MANIFEST) else { return };
    let (printed, told, _) = built(&home, &["build", "--sandbox=none"]);
    assert_eq!(told.matches("warning: `--sandbox=none`").count(), 1, "{told}");
    assert!(printed.lines().filter(|line| line.ends_with("(made with --sandbox=none)")).count() == 2, "{printed}");
    let (printed, told, _) = built(&home, &["build"]);
    assert!(!told.contains("--sandbox") && !printed.contains("--sandbox"), "{told}{printed}");
}

#[test]
fn what_is_written_to_inputs_and_beside_outputs_is_found() {
    for (run, message) in [
        ("echo x >> in.txt; touch out", "`//:c` changed `in.txt`"),
        ("rm in.txt; touch out", "`in.txt`"),
        ("touch out beside", "`beside`"),
        ("true", "did not make `out`"),
        // Touched, or written as it was, is no change.
        ("touch in.txt; cp in.txt copy; mv copy in.txt; touch out", ""),
    ] {
        let manifest = format!(
            "[workspace]\n[toolchain.host]\nhost = {{}}\n[command.c]\ntoolchain = \":host\"\nrun = \"{run}\"\noutputs = [\"out\"]\n"
        );
        let Some(home) = home(&manifest) else { return };
        let whole = home.cas(&["build"]);
        let weaker = home.cas(&["build", "--sandbox=none"]);
        let told = text(&weaker.stderr);
        let code = if message.is_empty() { 0 } else { 1 };
        assert_eq!((whole.status.code(), weaker.status.code()), (Some(code), Some(code)), "{run}: {told}");
        let error = |told: &str| told.lines().find(|line| line.starts_with("error")).unwrap_or_default().to_owned();
        assert_eq!(error(&text(&whole.stderr)), error(&told), "{run}");
        assert_eq!(home.read("in.txt"), "read\n", "the workspace's own file was reached");
    }
}

#[test]
fn roots_and_secrets_are_refused_with_the_way_out() {
    let manifest = "[workspace]\n[toolchain.host]\nhost = {}\n[command.c]\ntoolchain = \":sh\"\nrun = \"touch out\"\noutputs = [\"out\"]\n\
                    [test.s]\ntoolchain = \":host\"\nrun = \"true\"\nsecrets = [\"TOKEN\"]\n[image.i]\nconfig = { cmd = [\"/bin/sh\"] }\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    for tier in tiers().into_iter().filter(|tier| *tier != "namespaces") {
        let sandbox = format!("--sandbox={tier}");
        for (arguments, message) in [
            (
                ["build", ":c", &sandbox],
                format!("error: `//:c` runs in the root of `//:sh`, and with `{sandbox}` steps run in"),
            ),
            (["run", ":c", &sandbox], "error: `//:c` runs in the root of `//:sh`".to_owned()),
            (["run", ":i", &sandbox], "error: `//:i` runs in the root of `//:i`".to_owned()),
            (["test", ":s", &sandbox], "error: `//:s` has secrets".to_owned()),
        ] {
            let output = home.command(&arguments).env("TOKEN", "a long enough secret").output().unwrap();
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(6), "{arguments:?}: {told}");
            assert!(told.contains(&message) && told.contains("cas doctor"), "{arguments:?}: {told}");
        }
    }
    assert!(!home.workspace().join("cas-out").exists());
}

#[test]
fn a_command_can_be_run_in_each_tier() {
    let manifest =
        "[workspace]\n[toolchain.host]\nhost = {}\n[command.c]\ntoolchain = \":host\"\nrun = \"cat in.txt; exit 7\"\n";
    let Some(home) = home(manifest) else { return };
    for tier in tiers() {
        let output = home.cas(&["run", ":c", "--sandbox", tier]);
        assert_eq!(
            (output.status.code(), text(&output.stdout).as_str()),
            (Some(7), "read\n"),
            "{}",
            text(&output.stderr)
        );
    }
}

/// Where no namespaces can be had nothing is weakened by itself; what can be asked for is named, and works.
#[test]
fn a_host_without_namespaces_names_the_tier_that_it_has() {
    let Some(home) = home(MANIFEST) else { return };
    let without = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
        command.args(["--user", "--map-root-user", "/bin/sh", "-euc", script, env!("CARGO_BIN_EXE_cas")]);
        command.args(arguments).current_dir(home.workspace()).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("CAS_HOME", home.folder.path().join("store")).output()
    };
    if !without(&["--version"]).is_ok_and(|output| output.status.success()) {
        return eprintln!("SKIPPED: `unshare` is missing or may not make user namespaces");
    }
    let strongest = if Landlock::of_kernel().is_ok() { "landlock" } else { "none" };
    for arguments in [&["build"][..], &["doctor"]] {
        let output = without(arguments).unwrap();
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{told}");
        assert!(told.contains("sysctl -w user.max_user_namespaces="), "{told}");
        assert!(told.contains(&format!("run with less: `--sandbox={strongest}`")), "{told}");
    }
    for tier in tiers().into_iter().filter(|tier| *tier != "namespaces") {
        let output = without(&["test", "--sandbox", tier]).unwrap();
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert!(told.ends_with("3 steps ran, 0 were cached\n"), "{told}");
    }
}

/// Each of these succeeds without a sandbox, so that what fails is what Landlock holds.
#[test]
fn a_step_held_by_landlock_reaches_nothing_that_is_not_named() {
    let Ok(landlock) = Landlock::of_kernel() else { return eprintln!("SKIPPED: this kernel has no Landlock") };
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    let at = outside.path().display();
    fs::write(outside.path().join("seen"), "x").unwrap();
    let mut rows = vec![
        format!("cat {at}/seen"),
        format!("echo x > {at}/new"),
        format!("echo x > {at}/seen"),
        format!("rm {at}/seen && touch {at}/seen"),
        format!("mkdir {at}/folder && rmdir {at}/folder"),
        "ls /".to_owned(),
        "cat /etc/hostname /etc/passwd".to_owned(),
    ];
    if let Some(busybox) = busybox.filter(|_| landlock.version >= 4) {
        rows.push(format!("{busybox} nc 127.0.0.1 {port} < /dev/null"));
    }
    if landlock.version >= 6 {
        rows.push(format!("kill -0 {}", std::process::id()));
    }
    for run in rows {
        let manifest =
            format!("[workspace]\n[toolchain.host]\nhost = {{}}\n[test.t]\ntoolchain = \":host\"\nrun = \"{run}\"\n");
        let Some(home) = home(&manifest) else { return };
        let open = home.cas(&["test", "--sandbox=none"]);
        assert_eq!(open.status.code(), Some(0), "{run}: {}", text(&open.stderr));
        let held = home.cas(&["test", "--sandbox=landlock"]);
        let told = text(&held.stderr);
        assert_eq!(held.status.code(), Some(1), "{run}: {told}");
        assert!(told.contains("`//:t` failed: exit code"), "{run}: {told}");
    }
    assert_eq!(fs::read_to_string(outside.path().join("seen")).unwrap(), "");
}

/// What a step of the usual kind needs is not taken away.
#[test]
fn a_step_held_by_landlock_has_what_it_is_given() {
    if Landlock::of_kernel().is_err() {
        return eprintln!("SKIPPED: this kernel has no Landlock");
    }
    let run = "cat in.txt > out; mv out $TMPDIR/moved; mv $TMPDIR/moved out; printf '#!/bin/sh\\necho run' > made; chmod +x made; \
               ./made >> out; rm made; ls /usr/bin > /dev/null; head -c 4 /dev/urandom > /dev/null; cat /proc/self/status > /dev/null; \
               echo piped | cat >> out; test -e /usr/bin/env; kill -0 $$";
    let manifest = format!(
        "[workspace]\n[toolchain.host]\nhost = {{}}\n[command.c]\ntoolchain = \":host\"\nrun = \"\"\"{run}\"\"\"\noutputs = [\"out\"]\n"
    );
    let Some(home) = home(&manifest) else { return };
    let (_, told, _) = built(&home, &["build", "--sandbox=landlock"]);
    assert_eq!(home.read("cas-out/c/out"), "read\nrun\npiped\n");
    assert!(told.starts_with("warning: `--sandbox=landlock`: "), "{told}");
}

/// Ctrl-C, as a terminal sends it: to all processes of the group in front.
#[test]
fn an_interrupted_build_leaves_no_process() {
    let manifest = "[workspace]\n[toolchain.host]\nhost = { paths = [\"FOLDER\"] }\n[command.c]\ntoolchain = \":host\"\n\
        run = \"\"\"setsid sh -c '(setsid sh -c \"echo \\\\$\\\\$ > number.new; mv number.new number; exec sleep 600\" >/dev/null 2>&1 &)' & sleep 600\"\"\"\n";
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some(home) = home(&manifest.replace("FOLDER", &folder.path().display().to_string())) else { return };
    for tier in tiers().into_iter().filter(|tier| *tier != "namespaces") {
        let mut command = home.command(&["build", "--sandbox", tier]);
        let mut child = command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let private = home.folder.path().join("store/v1/private");
        let number = wait_for(|| {
            let folders = fs::read_dir(&private).ok()?;
            folders.flatten().find_map(|folder| fs::read_to_string(folder.path().join("data/src/number")).ok())
        });
        let process = Path::new("/proc").join(number.trim());
        assert!(process.exists(), "{tier}");
        let group = format!("-{}", child.id());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{tier}");
        assert!(!process.exists(), "{tier}: a daemon of the step is alive");
    }
}

fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "it did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
