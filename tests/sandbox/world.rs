//! What a step sees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use cas_sandbox::{EPOCH_SECONDS, Network, Overlay, SandboxError, Spec, StartError, processors};

use crate::{Home, run, try_run};

#[test]
fn user_host_name_mask_and_directory_are_fixed() {
    let Some(mut home) = Home::new() else { return };
    let script = "id; hostname; dnsdomainname || echo none; umask; pwd; cat /proc/sys/kernel/domainname; \
                  cat /proc/self/uid_map /proc/self/gid_map | tr -s ' ' | grep -c '^ 1000 '";
    assert_eq!(run(&home.script(script)).text(), "uid=1000 gid=1000\ncas\nnone\n0022\n/src\n(none)\n2");
}

#[test]
fn other_ids_can_be_asked_for_and_give_no_rights() {
    let Some(mut home) = Home::new() else { return };
    let script = "id; grep -E 'Cap|NoNewPrivs' /proc/self/status | tr -s '\\t' ' '; \
                  mount -t tmpfs none /tmp 2>/dev/null || echo refused; mknod /x c 1 3 2>/dev/null || echo refused";
    let mut spec = home.script(script);
    (spec.uid, spec.gid) = (0, 0);
    let none = "0000000000000000";
    assert_eq!(
        run(&spec).text(),
        format!(
            "uid=0 gid=0\nCapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nCapAmb: {none}\n\
             NoNewPrivs: 1\nrefused\nrefused"
        )
    );
}

#[test]
fn environment_is_exactly_what_is_given() {
    let Some(mut home) = Home::new() else { return };
    let mut spec = home.spec(&["/bin/env"]);
    spec.environment = BTreeMap::from([("B".into(), "2=3".into()), ("A".into(), "one\ntwo".into())]);
    assert_eq!(run(&spec).text(), "A=one\ntwo\nB=2=3");
}

#[test]
fn network_is_a_loopback_interface_of_its_own() {
    let Some(mut home) = Home::new() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "ls /proc/sys/net/ipv4/conf | tr '\\n' ' '; grep -c : /proc/net/dev; ip -o addr show lo | grep -c 127.0.0.1/8; \
         nc -w 1 127.0.0.1 {port} </dev/null 2>&1 && echo connected; nc -w 1 192.0.2.1 80 </dev/null 2>&1 && echo out; \
         echo end"
    );
    assert_eq!(
        run(&home.script(&script)).text(),
        "all default lo 1\n1\nnc: can't connect to remote host (127.0.0.1): Connection refused\n\
         nc: can't connect to remote host (192.0.2.1): Network is unreachable\nend"
    );
    // The same address is reachable when the host's network is asked for, so the test above can fail.
    let server = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let mut spec = home.script(&format!("nc -w 1 127.0.0.1 {port} </dev/null && echo connected"));
    spec.network = Network::Host;
    assert_eq!(run(&spec).text(), "connected");
    server.join().unwrap();
}

#[test]
fn only_own_processes_are_seen_and_the_command_is_number_two() {
    let Some(mut home) = Home::new() else { return };
    assert_eq!(run(&home.script("echo $$; ls -d /proc/[0-9]* | tr '\\n' ' '")).text().lines().next(), Some("2"));
    let text = run(&home.spec(&["ps", "-o", "pid,args"])).text().to_owned();
    assert_eq!(text, "PID   COMMAND\n    1 cas __sandbox\n    2 ps -o pid,args");
    let script = "for f in exe fd/0 cwd root; do readlink /proc/1/$f || echo closed; done; \
                  cat /proc/1/environ 2>/dev/null || echo closed; kill -9 1; echo alive";
    assert_eq!(run(&home.script(script)).text(), "closed\nclosed\nclosed\nclosed\nclosed\nalive");
}

#[test]
fn three_descriptors_are_open_and_input_is_empty() {
    let Some(mut home) = Home::new() else { return };
    // The listing itself has a descriptor of the folder.
    let text = run(&home.spec(&["ls", "/proc/self/fd"])).text().to_owned();
    assert_eq!(text, "0\n1\n2\n3");
    assert_eq!(run(&home.script("readlink /proc/self/fd/0; cat | grep -c ''")).stdout, "/dev/null\n0\n");
}

#[test]
fn limits_and_signals_do_not_depend_on_the_caller() {
    let Some(mut home) = Home::new() else { return };
    let script = "ulimit -c; ulimit -n; ulimit -s; \
                  grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -s '\\t' ' '; cat /proc/self/personality";
    let none = "0000000000000000";
    assert_eq!(run(&home.script(script)).text(), format!("0\n1024\n8192\nSigBlk: {none}\nSigIgn: {none}\n00000000"));
}

#[test]
fn a_command_sees_as_many_processors_as_it_is_given() {
    let Some(mut home) = Home::new() else { return };
    let all = processors();
    let mut seen = |given: Vec<usize>| {
        let mut spec = home.script("grep Cpus_allowed_list /proc/self/status | tr -d '\\t'; nproc");
        spec.processors = given;
        run(&spec).text().to_owned()
    };
    let last = *all.last().unwrap();
    assert_eq!(seen(vec![last]), format!("Cpus_allowed_list:{last}\n1"));
    assert!(seen(Vec::new()).ends_with(&format!("\n{}", all.len())), "without a number it may use all");
}

/// A program starts with the same addresses each time if it is asked for, and with others if not.
#[test]
fn addresses_are_random_unless_they_are_to_repeat() {
    let Some(mut home) = Home::new() else { return };
    let mut addresses = |aslr| {
        // Of a program that the command starts, as it is inherited.
        let mut spec = home.script("cat /proc/self/personality /proc/self/maps; :");
        spec.aslr = aslr;
        let text = run(&spec).text().to_owned();
        let mut lines = text.lines().map(|line| line.split(' ').next().unwrap().to_owned());
        (lines.next().unwrap(), lines.collect::<Vec<_>>())
    };
    let (first, second) = (addresses(false), addresses(false));
    assert_eq!(first.0, "00040000");
    assert!(first.1.len() > 3);
    assert_eq!(first, second);
    let (first, second) = (addresses(true), addresses(true));
    assert_eq!(first.0, "00000000");
    if fs::read_to_string("/proc/sys/kernel/randomize_va_space").is_ok_and(|text| text.trim() == "0") {
        eprintln!("SKIPPED: this host has no random addresses");
        return;
    }
    assert_ne!(first.1, second.1);
}

#[test]
fn nothing_of_the_host_shows_in_mounts_groups_or_proc() {
    let Some(mut home) = Home::new() else { return };
    let spec = home.script_with_source("cat /proc/self/mountinfo", &[("a", "")]);
    let mounts = run(&spec).text().to_owned();
    assert!(!mounts.contains(&home.directory.display().to_string()), "{mounts}");
    let points: Vec<&str> = mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert!(points.starts_with(&["/", "/src", "/proc"]), "{points:?}");
    assert!(!points.iter().any(|point| point.starts_with("/sys")), "{points:?}");
    // Hidden files are there and empty, so programs that look for them find nothing to stumble over.
    let script = "cat /proc/interrupts; for f in kcore keys timer_list; do [ ! -e /proc/$f ] || cat /proc/$f; done; \
                  for f in sys/kernel/core_pattern sysrq-trigger irq/default_smp_affinity; do \
                  [ ! -e /proc/$f ] || ! echo x >/proc/$f || echo wrote $f; done 2>/dev/null; \
                  grep -v ':/$' /proc/self/cgroup || echo only roots";
    assert_eq!(run(&home.script(script)).text(), "only roots");
    assert!(!fs::read_to_string("/proc/interrupts").unwrap().is_empty(), "or else the test shows nothing");
}

#[test]
fn devices_are_the_usual_ones_and_work() {
    let Some(mut home) = Home::new() else { return };
    let script = "ls /dev | tr '\\n' ' '; echo; head -c 3 /dev/zero | tr '\\0' z; echo; echo lost >/dev/null; \
                  head -c 4 /dev/urandom | dd 2>/dev/null | grep -c ''; echo x >/dev/full || echo full; echo s >/dev/shm/a; cat \
                  /dev/shm/a; echo t >/dev/stdout; touch /dev/new 2>/dev/null || echo read-only; stat -c %a /dev/shm /tmp";
    let run = run(&home.script(script));
    let lines: Vec<&str> = run.text().lines().collect();
    assert_eq!(lines[0].trim_end(), "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero");
    assert_eq!(lines[1], "zzz");
    assert_eq!(&lines[3..], ["full", "s", "t", "read-only", "1777", "1777"]);
    // A terminal is made by who opens the other end.
    let script = "exec 3<>/dev/ptmx; ls /dev/pts | tr '\\n' ' '";
    assert_eq!(crate::run(&home.script(script)).text().trim_end(), "0 ptmx");
}

#[test]
fn lower_directories_are_shown_in_order_and_never_written() {
    let Some(mut home) = Home::new() else { return };
    let (first, second) = (home.fresh("first"), home.fresh("second"));
    for (path, name, text) in [(&first, "a", "first"), (&second, "a", "second"), (&second, "b", "second")] {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join(name), text).unwrap();
    }
    let mut spec = home.script("cat a; echo; cat b; echo; echo changed >a; rm b; chmod 777 .; rm -rf /bin/ls; cat a");
    spec.source = Some(Overlay { lowers: vec![first.clone(), second.clone()], scratch: home.fresh("source") });
    assert_eq!(run(&spec).text(), "first\nsecond\nchanged");
    assert_eq!(fs::read_to_string(first.join("a")).unwrap(), "first");
    assert_eq!(fs::read_to_string(second.join("b")).unwrap(), "second");
    assert!(fs::symlink_metadata(home.root().join("bin/ls")).is_ok());
}

/// As root without capabilities, rights count as they do for everybody: the same step fails in both cases.
#[test]
fn rights_of_files_hold_for_root_too() {
    let Some(mut home) = Home::new() else { return };
    let spec = home.script_with_source("cat secret 2>/dev/null || echo refused", &[("secret", "x")]);
    let secret = spec.source.as_ref().unwrap().lowers[0].join("secret");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(run(&spec).text(), "refused");
}

#[test]
fn directories_that_the_root_lacks_have_fixed_modes_and_times() {
    let Some(mut home) = Home::new() else { return };
    let text = run(&home.script("stat -c '%a %u:%g %Y %n' / /src /tmp")).text().to_owned();
    let time = EPOCH_SECONDS;
    assert_eq!(text, format!("755 1000:1000 {time} /\n755 1000:1000 {time} /src\n1777 1000:1000 {time} /tmp"));
    assert_eq!(fs::metadata(home.root()).unwrap().mode() & 0o7777, 0o755);
    assert!(fs::symlink_metadata(home.root().join("proc")).is_err(), "the mount points are not made in the root");
}

#[test]
fn a_memory_tmp_is_limited() {
    let Some(mut home) = Home::new() else { return };
    let mut spec =
        home.script("dd if=/dev/zero of=/tmp/big bs=4096 count=1024 2>&1 | grep -c 'No space left'; stat -c %a /tmp");
    spec.tmp_size_bytes = Some(1 << 20);
    assert_eq!(run(&spec).text(), "1\n1777");
}

#[test]
fn a_root_that_points_mounts_elsewhere_is_refused() {
    let Some(mut home) = Home::new() else { return };
    for name in ["proc", "dev", "src"] {
        let trap = home.fresh("trap");
        fs::create_dir(&trap).unwrap();
        std::os::unix::fs::symlink("/tmp", trap.join(name)).unwrap();
        let mut spec = home.script_with_source("true", &[]);
        spec.root.lowers.insert(0, trap);
        match try_run(&spec) {
            Err(SandboxError::MountPoint { path }) => assert_eq!(path.to_str(), Some(format!("/{name}").as_str())),
            other => panic!("{name}: {:?}", other.map(|run| run.outcome)),
        }
    }
}

#[test]
fn programs_are_found_or_named() {
    let Some(mut home) = Home::new() else { return };
    let root = home.root();
    for (path, content, mode) in [
        ("bin/plain", "text", 0o644),
        ("bin/script", "#!/nowhere/interpreter\n", 0o755),
        ("bin/garbage", "no program", 0o755),
        ("bin/works", "#!/bin/sh\necho works\n", 0o755),
    ] {
        fs::write(root.join(path), content).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut start = |command: &str, change: &dyn Fn(&mut Spec)| {
        let mut spec = home.spec(&[command]);
        change(&mut spec);
        match try_run(&spec) {
            Ok(run) => run.text().to_owned(),
            Err(SandboxError::Start(error)) => {
                let same = matches!(
                    (&error, command),
                    (StartError::NotFound { .. }, "missing" | "/bin/missing")
                        | (StartError::NotExecutable { .. }, "plain")
                        | (StartError::InterpreterMissing { .. }, "script")
                        | (StartError::WrongFormat { .. }, "garbage")
                        | (StartError::WorkingDirectory { .. }, "works")
                        | (StartError::ArgumentsTooLong { .. }, "true")
                );
                assert!(same, "{command}: {error:?}");
                error.to_string()
            }
            Err(other) => panic!("{command}: {other:?}"),
        }
    };
    let same = |_: &mut Spec| {};
    for (command, expected) in [
        ("works", "works"),
        ("missing", "program `missing` is not in the root file system"),
        ("/bin/missing", "program `/bin/missing` is not in the root file system"),
        ("plain", "`/bin/plain` is not executable"),
        ("script", "the interpreter or dynamic loader of `/bin/script` is not in the root file system"),
        ("garbage", "`/bin/garbage` is not a program for this machine, and has no `#!` line"),
    ] {
        assert_eq!(start(command, &same), expected);
    }
    assert_eq!(start("works", &|spec| spec.environment.clear()), "works", "there is a default PATH");
    assert_eq!(
        start("works", &|spec| spec.working_directory = "/missing".into()),
        "could not enter working directory `/missing`"
    );
    assert_eq!(
        start("true", &|spec| spec.command.push("x".repeat(3 << 20).into())),
        "arguments and environment of `/bin/true` are longer than the kernel allows"
    );
}
