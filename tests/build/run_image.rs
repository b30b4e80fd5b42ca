//! `cas run` of an image: what is said in the place of its configuration, what it sees of the host, and what it leaves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Home, text};

/// An image with accounts, a user, a folder to work in, and a program.
const IMAGE: &str = "[workspace]\n\
    [command.etc]\ntoolchain = \":sh\"\noutputs = [\"etc\"]\n\
    run = \"mkdir etc; echo app:x:1000:1001::/home/app:/bin/sh > etc/passwd; echo web:x:33: > etc/group\"\n\
    [image.i]\nbase = \":sh\"\nlayers = [{ from = \":etc\", to = \"/\" }]\n\
    config = { user = \"app\", entrypoint = [\"/bin/sh\", \"-c\"], cmd = [\"id -u; id -g; pwd; echo $HOME $WORD\"], env = { WORD = \"own\" }, workdir = \"/etc\" }\n";

#[track_caller]
fn prints(output: &Output, expected: &str) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!((output.status.code(), stdout.as_str()), (Some(0), expected), "{stderr}");
}

#[test]
fn what_is_said_wins_over_the_configuration() {
    let Some(home) = Home::with_busybox(IMAGE, &[("vars", "# none\n\nWORD=from a file\nHERE\nNOT_SET\n")]) else {
        return;
    };
    let shell = "id -u; id -g; pwd; echo $HOME $WORD $HERE ${NOT_SET-unset}";
    for (options, expected) in [
        (&[][..], "1000\n1001\n/etc\n/home/app own unset\n"),
        (&["--user", "app:web"], "1000\n33\n/etc\n/home/app own unset\n"),
        (&["--user", "1000"], "1000\n1001\n/etc\n/home/app own unset\n"),
        (&["--user", "5:6"], "5\n6\n/etc\n/ own unset\n"),
        (&["--user", "5"], "5\n0\n/etc\n/ own unset\n"),
        (&["--workdir", "/made/here"], "1000\n1001\n/made/here\n/home/app own unset\n"),
        (&["--env", "WORD=a=b", "--env", "HERE", "--env", "NOT_SET"], "1000\n1001\n/etc\n/home/app a=b told unset\n"),
        (&["--env-file", "vars"], "1000\n1001\n/etc\n/home/app from a file told unset\n"),
        (&["-e", "WORD=w", "--env-file", "vars"], "1000\n1001\n/etc\n/home/app w told unset\n"),
    ] {
        let arguments = [&["run", ":i"], options, &["--", "/bin/sh", "-c", shell]].concat();
        prints(&home.command(&arguments).env("HERE", "told").output().unwrap(), expected);
    }
    prints(&home.cas(&["run", ":i"]), "1000\n1001\n/etc\n/home/app own\n");
    // The image's own arguments are those of its own entrypoint.
    prints(&home.cas(&["run", ":i", "--entrypoint", "/bin/busybox", "--", "echo", "-n", "x"]), "x");
    let output = home.cas(&["run", ":i", "--entrypoint", "/bin/sh", "--", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7));
}

/// Writable or not, folder or file; what the image says of volumes is there and goes.
#[test]
fn volumes_show_parts_of_this_machine() {
    let manifest = "[workspace]\n[image.i]\nbase = \":sh\"\nlayers = [{ files = [\"host/file\"], to = \"/l\" }]\n\
         config = { cmd = [\"/bin/sh\"], volumes = [\"/data/own\"] }\n";
    let files = [("host/kept/in", "one\n"), ("host/file", "two\n"), ("other", "three\n")];
    let Some(home) = Home::with_busybox(manifest, &files) else { return };
    let shell = |options: &[&str], script: &str| {
        home.cas(&[&["run", ":i"], options, &["--", "/bin/sh", "-c", script]].concat())
    };
    let write = "cat /new/place/in && echo made > /new/place/out && ls /new";
    prints(&shell(&["--volume", "host/kept:/new/place"], write), "one\nplace\n");
    assert_eq!(home.read("host/kept/out"), "made\n");
    let absolute = format!("{}:/new/place/:ro", home.workspace().join("host/kept").display());
    let refused = "cat /new/place/out; echo x > /new/place/out || echo x > /new/place/more || echo refused";
    let output = shell(&["--volume", &absolute], refused);
    prints(&output, "made\nrefused\n");
    assert!(text(&output.stderr).contains("Read-only"), "{}", text(&output.stderr));
    // A file, over one that the image has and where there is none; one volume in another.
    prints(
        &shell(
            &["--volume", "host/file:/bin/busybox.txt:ro", "--volume", "host/file:/a/b"],
            "cat /bin/busybox.txt /a/b",
        ),
        "two\ntwo\n",
    );
    std::fs::create_dir(home.workspace().join("host/kept/sub")).unwrap();
    prints(&shell(&["--volume", "host:/v/sub", "--volume", "host/kept:/v"], "cat /v/sub/file /v/in"), "two\none\n");
    // One of the image's own.
    let own = "ls /data/own; echo x > /data/own/x; ls /data/own";
    for _ in 0..2 {
        prints(&shell(&[], own), "x\n");
    }
    // `/bin` is a link to `usr/bin`.
    let output = shell(&["--volume", "host:/bin/x", "--volume", "host/kept:/usr/bin/x"], "true");
    let stderr = text(&output.stderr);
    let expected = "volumes at `/bin/x` and `/usr/bin/x` are both at `/usr/bin/x` of image";
    assert!(output.status.code() == Some(2) && stderr.contains(expected), "{stderr}");
    let output = shell(&["--volume", "host:/bin/busybox"], "true");
    let stderr = text(&output.stderr);
    let expected =
        "the volume for `/bin/busybox` of `//:i` is a folder, and at `/usr/bin/busybox` the image has a file";
    assert!(output.status.code() == Some(2) && stderr.contains(expected) && stderr.contains("hint: "), "{stderr}");
    for (option, expected) in [
        ("host/file:/bin", "is a file, and at `/usr/bin` the image has a folder"),
        ("host:/bin/busybox/x", "is a folder, and at `/usr/bin/busybox` the image has a file"),
        ("host:/x:z", "`z` is not known"),
    ] {
        let output = shell(&["--volume", option], "true");
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(expected), "{option}: {stderr}");
    }
    prints(&shell(&[], "cat /l/host/file"), "two\n");
    prints(&shell(&["--volume", "other:/l/host/file:rw"], "cat /l/host/file"), "three\n");
}

/// The exit codes are those of shells; the image is named, and what it lacks.
#[test]
fn a_program_that_does_not_start_is_told_of_with_its_image() {
    let Some(home) = Home::with_busybox(PLAIN, &[("host/plain", "x")]) else { return };
    for (options, command, code, expected) in [
        (&[][..], "/nope", 127, "hint: `/nope` is not in `//:i`: name a program that is, or add it to a layer"),
        (&[], "nope", 127, "hint: `nope` is in no folder of `PATH` in `//:i`: write its whole path"),
        (&["--volume", "host/plain:/plain"], "/plain", 126, "`/plain` is not executable"),
    ] {
        let output = home.cas(&[&["run", ":i"], options, &["--", command]].concat());
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(expected), "{command}: {stderr}");
        assert!(stderr.contains("the program of `//:i` did not start"), "{command}: {stderr}");
    }
}

/// With the name of what is not kept from the program; and nothing where it makes no difference.
#[test]
fn owners_that_are_not_kept_are_told_of() {
    let manifest = "[workspace]\n\
        [command.f]\ntoolchain = \":sh\"\noutputs = [\"f\"]\nrun = \"echo x > f\"\n\
        [image.i]\nbase = \":sh\"\n\
        layers = [{ from = \":f\", to = \"/secret\", owner = \"0:0\", mode = \"0600\", dir_mode = \"0700\" }]\n\
        config = { cmd = [\"/bin/busybox\", \"cat\", \"/secret/f\"], user = \"1000\" }\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    let warning = "warning: owners of the image's files are not kept here: everything belongs to the user, `/secret";
    for (options, is_told) in [(&[][..], true), (&["--user", "0"], false)] {
        let output = home.cas(&[&["run", ":i"], options].concat());
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), stderr.contains(warning)), (Some(0), is_told), "{stderr}");
        assert_eq!(text(&output.stdout), "x\n");
    }
}

/// An image without anything but busybox, whose programs are given.
const PLAIN: &str = "[workspace]\n[image.i]\nbase = \":sh\"\nconfig = { cmd = [\"/bin/sh\"], user = \"1000\" }\n";

fn in_plain(home: &Home, options: &[&str], script: &str) -> Output {
    home.cas(&[&["run", ":i"], options, &["--", "/bin/sh", "-c", script]].concat())
}

/// The sign is a name that was looked up: not any failure, and none where the program has dealt with it.
#[test]
fn a_name_that_is_missed_is_told_when_the_program_fails() {
    let Some(home) = Home::with_busybox(PLAIN, &[]) else { return };
    assert_eq!(home.cas(&["build", ":i"]).status.code(), Some(0));
    let hint = "`example.org` was looked up, and there is no network: `--network host`";
    for (script, code, is_told) in [
        ("busybox nslookup example.org; busybox nslookup other.org; exit 3", 3, true),
        ("busybox nslookup example.org; exit 0", 0, false),
        ("exit 3", 3, false),
    ] {
        let started = Instant::now();
        let output = in_plain(&home, &[], script);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), stderr.contains(hint)), (Some(code), is_told), "{script}: {stderr}");
        assert_eq!(stderr.contains("was looked up"), is_told, "{script}: {stderr}");
        assert!(started.elapsed() < Duration::from_secs(10), "names are answered at once");
    }
    prints(&in_plain(&home, &[], "cat /etc/resolv.conf"), "nameserver 127.0.0.1\n");
}

#[test]
fn the_network_is_none_or_the_host_s() {
    let Some(home) = Home::with_busybox(PLAIN, &[]) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ask = format!("busybox nc 127.0.0.1 {port} </dev/null || echo nobody");
    prints(&in_plain(&home, &[], &ask), "nobody\n");
    let answering = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"host\n").unwrap());
    prints(&in_plain(&home, &["--network", "host"], &ask), "host\n");
    answering.join().unwrap();
    if let Ok(own) = std::fs::read_to_string("/etc/resolv.conf") {
        prints(&in_plain(&home, &["--network", "host"], "cat /etc/resolv.conf; echo x > /etc/resolv.conf"), &own);
        assert_eq!(std::fs::read_to_string("/etc/resolv.conf").unwrap(), own);
    }
}

/// Connects until somebody answers, says a text, says that there is no more, and reads all.
fn said(port: u16) -> String {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut answer = String::new();
        let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            stream.write_all(b"asked")?;
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_string(&mut answer)
        });
        if asked.is_ok() && !answer.is_empty() || until < Instant::now() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The program is no user 0, listens at a port below 1024, and ends when both ways are closed; what it said last arrives.
#[test]
fn ports_of_the_loopback_lead_to_the_program() {
    let Some(home) = Home::with_busybox(PLAIN, &[]) else { return };
    assert_eq!(home.cas(&["build", ":i"]).status.code(), Some(0));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let published = format!("{port}:80/tcp");
    let serve =
        "busybox nc -l -p 80 -e /bin/busybox sh -c 'cat; busybox head -c 300000 /dev/zero | busybox tr \\\\0 x'";
    for option in [published.as_str(), "80"] {
        let mut child = home.command(&["run", ":i", "--publish", option, "--", "/bin/sh", "-c", serve]);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let port = if option == "80" {
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                let mut byte = [0];
                stderr.read_exact(&mut byte).unwrap();
                line.push(byte[0]);
            }
            let line = String::from_utf8(line).unwrap();
            line.trim_end().strip_prefix("port 80 is at 127.0.0.1:").unwrap().parse().unwrap()
        } else {
            port
        };
        let answer = said(port);
        assert_eq!((answer.len(), &answer[..answer.len().min(6)]), (300_005, "askedx"), "{option}");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        // Nothing listens any more.
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "{option}");
    }
    // Nor does anything when `cas` is killed.
    let serve = "while busybox nc -l -p 80 -e /bin/busybox cat; do :; done";
    let mut child =
        home.command(&["run", ":i", "--publish", &published, "--", "/bin/sh", "-c", serve]).spawn().unwrap();
    assert_eq!(said(port), "asked");
    child.kill().unwrap();
    child.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < until, "it still listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let output = in_plain(&home, &["--publish", &published], "true");
    let stderr = text(&output.stderr);
    let expected = format!("error: port {port} of this machine cannot be listened at: Address already in use");
    assert!(
        output.status.code() == Some(2) && stderr.contains(&expected) && stderr.contains("--publish 80"),
        "{stderr}"
    );
    drop(listener);
}

/// Reads a line of a program that goes on.
fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line
}

/// The program's own code if it ends by itself, whichever signal `cas` gets; else that of the signal.
#[test]
fn a_program_is_asked_to_end_before_it_is_killed() {
    let manifest = "[workspace]\n\
        [image.i]\nbase = \":sh\"\nconfig = { cmd = [\"/bin/sh\"] }\n\
        [image.u]\nbase = \":sh\"\nconfig = { cmd = [\"/bin/sh\"], stop_signal = \"SIGUSR1\" }\n";
    let Some(home) = Home::with_busybox(manifest, &[("host/in", "")]) else { return };
    assert_eq!(home.cas(&["build", ":i", ":u"]).status.code(), Some(0));
    // Longer than any test, and not for ever.
    let wait = "echo ready; i=0; while test $i -lt 600; do i=$((i+1)); busybox sleep 0.1; done; exit 1";
    let saves = "busybox sync; echo saved > /data/state; exit 9";
    let start = |image: &str, options: &[&str], script: &str| {
        let script = format!("{script}; {wait}");
        let arguments =
            [&["run", image, "--volume", "host:/data"], options, &["--", "/bin/sh", "-c", &script]].concat();
        let mut child = home.command(&arguments);
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(line(&mut stdout), "ready\n");
        (child, stdout)
    };
    for (image, script, signals, code, saved) in [
        (":i", format!("trap '{saves}' TERM"), &[Signal::TERM][..], 9, "saved\n"),
        (":i", format!("trap '{saves}' TERM"), &[Signal::INT], 9, "saved\n"),
        (":u", format!("trap '{saves}' USR1"), &[Signal::TERM], 9, "saved\n"),
        (":i", ":".to_owned(), &[Signal::TERM], 143, ""),
        (":u", ":".to_owned(), &[Signal::INT], 130, ""),
        // Not waited for a second time: the time would be longer than the program's.
        (":i", "trap 'echo asked' TERM".to_owned(), &[Signal::INT, Signal::INT], 130, ""),
    ] {
        std::fs::write(home.workspace().join("host/state"), "").unwrap();
        let (mut child, mut stdout) = start(image, &["--stop-timeout", "600"], &script);
        let process = Pid::from_child(&child);
        for (index, signal) in signals.iter().enumerate() {
            kill_process(process, *signal).unwrap();
            if index + 1 < signals.len() {
                assert_eq!(line(&mut stdout), "asked\n");
            }
        }
        assert_eq!(child.wait().unwrap().code(), Some(code), "{image} {script}");
        assert_eq!(home.read("host/state"), saved, "{image} {script}");
    }
    let (mut child, _stdout) = start(":i", &["--stop-timeout", "1"], "trap 'echo asked' TERM");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    // The time that it has is not one in which it could be left behind.
    let (mut child, mut stdout) = start(":i", &["--stop-timeout", "600"], "trap 'echo asked' TERM");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(line(&mut stdout), "asked\n");
    child.kill().unwrap();
    child.wait().unwrap();
    let since = Instant::now();
    stdout.read_to_end(&mut Vec::new()).unwrap();
    assert!(since.elapsed() < Duration::from_secs(20), "it lived on");
}

/// What the check finds is told when it changes, with what it printed; the program goes on unless it is to end.
#[test]
fn health_is_told_when_it_changes() {
    let check = "echo asked; test -e /tmp/broken && sleep 60; test -e /tmp/works";
    let manifest = format!(
        "[workspace]\n[image.i]\nbase = \":sh\"\nformat = \"docker\"\nconfig = {{ cmd = [\"/bin/sh\"], healthcheck = {{ test = \"{check}\", \
         interval = \"100ms\", timeout = \"2s\", retries = 2 }} }}\n"
    );
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    assert_eq!(home.cas(&["build", ":i"]).status.code(), Some(0));
    // Each state is left when it has been told, which the program sees by what it is typed.
    let script = "read a; busybox touch /tmp/works; read a; busybox touch /tmp/broken; read a; busybox rm /tmp/broken; read a; exit 5";
    let mut child = home.command(&["run", ":i", "--", "/bin/sh", "-c", script]);
    let mut child = child.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut typed, stderr) = (child.stdin.take().unwrap(), BufReader::new(child.stderr.take().unwrap()));
    let mut told = stderr.lines();
    for expected in [
        &["health: unhealthy, the check ended with code 1", "  asked"][..],
        &["health: healthy"],
        &["health: unhealthy, the check took too long", "  asked"],
        &["health: healthy"],
    ] {
        let lines: Vec<String> = told.by_ref().take(expected.len()).map(Result::unwrap).collect();
        assert_eq!(lines, expected);
        typed.write_all(b"\n").unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(5));
    assert!(told.next().is_none());
    let output = home.cas(&["run", ":i", "--health-exit", "--", "/bin/sh", "-c", "busybox sleep 600"]);
    let expected =
        "health: unhealthy, the check ended with code 1\n  asked\nthe program was ended because it is unhealthy\n";
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), expected));
    let output = home.cas(&["run", ":i", "--no-healthcheck", "--", "/bin/sh", "-c", "busybox sleep 1"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

/// What cannot be done is told before the program starts.
#[test]
fn what_links_of_the_image_and_its_checks_do_not_allow_is_told() {
    let manifest = "[workspace]\n\
        [command.links]\ntoolchain = \":sh\"\noutputs = [\"in\"]\n\
        run = \"mkdir in; ln -s /proc/x in/to_proc; ln -s / in/to_root; ln -s /srv in/to_srv\"\n\
        [image.i]\nbase = \":sh\"\nlayers = [{ from = \":links\", path = \"in\", to = \"/l\" }]\nconfig = { cmd = [\"/bin/true\"] }\n";
    let Some(home) = Home::with_busybox(manifest, &[("host/in", "one\n")]) else { return };
    for (options, expected) in [
        (&["--volume", "host:/l/to_proc"][..], "`/l/to_proc` of `//:i` is led to `/proc/x` by links of the image"),
        (&["--volume", "host:/l/to_root"], "`/l/to_root` of `//:i` is led to `/` by links of the image"),
        (&["--volume", "host:/l/to_srv", "--volume", "host:/srv"], "`/l/to_srv`"),
        (&["--health-exit"], "`//:i` has no health check"),
    ] {
        let output = home.cas(&[&["run", ":i"], options].concat());
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(expected), "{options:?}: {stderr}");
        assert!(stderr.contains("hint: "), "{options:?}: {stderr}");
    }
    prints(&home.cas(&["run", ":i", "--volume", "host:/l/to_srv"]), "");
}

/// In the middle of a long file, after a build that had listened for signals itself.
#[test]
fn a_signal_ends_an_export_and_leaves_nothing_of_it() {
    let manifest = "[workspace]\n\
        [command.big]\ntoolchain = \":sh\"\noutputs = [\"big\"]\nrun = \"busybox head -c 400000000 /dev/zero > big\"\n\
        [image.i]\ncompression = \"none\"\nlayers = [{ from = \":big\", to = \"/\" }]\n";
    let Some(home) = Home::with_busybox(manifest, &[("out/kept", "")]) else { return };
    assert_eq!(home.cas(&["build", ":i"]).status.code(), Some(0));
    let out = home.workspace().join("out");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut child = home.command(&["image", "export", ":i", "oci-archive:out/i.tar"]).spawn().unwrap();
        while names() == ["kept"] {
            assert!(child.try_wait().unwrap().is_none(), "it was not seen in the middle");
            std::thread::sleep(Duration::from_millis(1));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(names(), ["kept"]);
    }
}
