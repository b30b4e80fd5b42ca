//! Logging in and out: passwords from a pipe and at a terminal, in files and with helpers, and nowhere else.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cas_testing::registry::{FakeRegistry, Gate};
use rustix::termios::{LocalModes, tcgetattr};
use serde_json::{Value, json};

use crate::push::home;
use crate::terminal::{Terminal, XTERM};
use crate::{Home, text};

/// `me:s3cret`
const LOGIN: &str = "bWU6czNjcmV0";

fn registry(gate: fn(String) -> Gate) -> FakeRegistry {
    let fake = FakeRegistry::start(gate(format!("Basic {LOGIN}")));
    fake.put("", "application/json", b"{}");
    fake
}

/// Runs the program with a home folder, and what a pipe gives it; neither password may be in what it prints.
fn run(home: &Home, arguments: &[&str], piped: &str) -> Output {
    let folder = home.folder.path();
    let mut command = home.command(arguments);
    command.env("HOME", folder.join("user")).env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may not want it.
    let _ = child.stdin.take().unwrap().write_all(piped.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout) + &text(&output.stderr);
    for secret in ["s3cret", "wr0ng", LOGIN, "bWU6d3Iwbmc="] {
        assert!(!said.contains(secret), "{arguments:?}: {said}");
    }
    output
}

#[track_caller]
fn ends(home: &Home, arguments: &[&str], piped: &str, code: i32, said: &str) {
    let output = run(home, arguments, piped);
    let printed = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {printed}");
    assert!(printed.contains(said), "{arguments:?}: {said}: {printed}");
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_login_from_a_pipe_is_tried_and_kept() {
    for gate in [Gate::Basic as fn(String) -> Gate, Gate::Token] {
        let (home, fake) = (home(), registry(gate));
        let host = fake.address();
        let destination = format!("{host}/a:1.0.0");
        let file = home.folder.path().join("user/.config/containers/auth.json");
        ends(&home, &["push", ":one", &destination], "", 4, &format!("hint: log in with `cas login {host}`"));
        let login = ["login", host, "-u", "me", "--password-stdin"];
        ends(&home, &login, "wr0ng\n", 4, "does not take the name and the password");
        assert!(!file.exists());
        ends(&home, &login, "s3cret\n", 0, &format!("me is logged in to {host}: {}", file.display()));
        assert_eq!(read(&file), json!({ "auths": { host: { "auth": LOGIN } } }));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        ends(&home, &["push", ":one", &destination], "", 0, "sent");
        // One that is wrong leaves the one that is kept.
        ends(&home, &login, "wr0ng\n", 4, "hint: nothing was kept");
        assert_eq!(read(&file), json!({ "auths": { host: { "auth": LOGIN } } }));
        if let Ok(skopeo) =
            Command::new("skopeo").args(["login", "--get-login", "--authfile"]).arg(&file).arg(host).output()
        {
            assert_eq!(text(&skopeo.stdout), "me\n", "{}", text(&skopeo.stderr));
        }
        ends(&home, &["logout", host], "", 0, &format!("{host} is gone from"));
        assert_eq!(read(&file), json!({ "auths": {} }));
        ends(&home, &["logout", host], "", 2, "nobody is logged in to");
        ends(&home, &["push", ":one", &destination.replace(":1.0.0", ":2.0.0")], "", 4, "does not let us");
    }
}

#[test]
fn what_is_no_login_is_refused_before_anything_is_asked() {
    let (home, fake) = (home(), registry(Gate::Basic));
    let host = fake.address();
    for (arguments, piped, said) in [
        (&["login", host][..], "s3cret\n", "there is no terminal to ask for the password at"),
        (&["login", host, "-u", "me"], "s3cret\n", "hint: `--password-stdin` takes it from a pipe"),
        (&["login", host, "--password-stdin"], "s3cret\n", "hint: name the account: `--user USER`"),
        (&["login", host, "-u", "me", "--password-stdin"], "\n", "the password is empty"),
        (&["login", host, "-u", "a:b", "--password-stdin"], "s3cret\n", "that is no name of a user"),
        (&["login", "me:s3cret@ghcr.io", "-u", "me", "--password-stdin"], "", "is no host of a registry"),
        (&["login", host, "-u", "me", "--password=s3cret"], "", "unexpected argument '--password'"),
        (&["login", host, "-u", "me", "-ps3cret"], "", "unexpected argument '-p'"),
        (&["logout", "https://ghcr.io"], "", "is no host of a registry"),
    ] {
        ends(&home, arguments, piped, 2, said);
    }
    assert!(fake.requests().is_empty());
    // A registry that lets everybody in cannot tell; a file of one's own is as good.
    let open = FakeRegistry::start(Gate::Open);
    open.put("", "application/json", b"{}");
    let (file, more) = (home.folder.path().join("own.json"), ["--authfile", "../own.json"]);
    fs::write(&file, r#"{"auths": {"x.example": {"auth": "dTpw"}}, "detachKeys": "ctrl-e,e"}"#).unwrap();
    let login = ["login", open.address(), "-u", "me", "--password-stdin"];
    ends(&home, &[&login[..], &more].concat(), "s3cret", 0, "asks nobody who they are");
    assert_eq!(read(&file)["auths"][open.address()]["auth"], LOGIN);
    ends(&home, &[&["logout", open.address()][..], &more].concat(), "", 0, "own.json");
    assert_eq!(read(&file), json!({ "auths": { "x.example": { "auth": "dTpw" } }, "detachKeys": "ctrl-e,e" }));
    // A damaged one is told, and stays.
    fs::write(&file, r#"{"auths": {"x.example": {"auth": s3cret}}}"#).unwrap();
    ends(&home, &[&login[..], &more].concat(), "s3cret", 2, "no logins as docker keeps them, from line 1");
    assert_eq!(fs::read(&file).unwrap(), br#"{"auths": {"x.example": {"auth": s3cret}}}"#);
}

#[test]
fn a_helper_keeps_the_login_where_one_is_configured() {
    let (home, fake) = (home(), registry(Gate::Token));
    let (folder, host) = (home.folder.path(), fake.address());
    let (kept, calls) = (folder.join("kept"), folder.join("calls"));
    let script = format!(
        "#!/bin/sh\necho \"$1\" >> {calls}\ncase $1 in\nstore) cat > {kept} ;;\nerase) rm {kept} ;;\n\
         get) test -e {kept} && cat {kept} || {{ echo credentials not found in native keychain; exit 1; }} ;;\nesac\n",
        calls = calls.display(),
        kept = kept.display()
    );
    let program = folder.join("docker-credential-test");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for (place, whole) in [
        (".config/containers/auth.json", json!({ "auths": { host: {} }, "credHelpers": { host: "test" } })),
        (".docker/config.json", json!({ "credsStore": "test", "auths": {} })),
    ] {
        let user = folder.join("user");
        // Forgets what the round before left.
        let _ = fs::remove_dir_all(&user);
        let files = [user.join(".config/containers/auth.json"), user.join(place)];
        for file in &files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
        }
        // An old login before the helper's would be found first.
        fs::write(&files[0], json!({ "auths": { host: { "auth": "b2xkOm9sZA==" } } }).to_string()).unwrap();
        fs::write(&files[1], whole.to_string()).unwrap();
        fs::write(&calls, "").unwrap();
        let login = ["login", host, "--user", "me", "--password-stdin"];
        ends(&home, &login, "s3cret\n", 0, "docker-credential-test");
        let expected = json!({ "ServerURL": host, "Username": "me", "Secret": "s3cret" });
        assert_eq!(read(&kept), expected);
        for file in &files {
            assert!(read(file)["auths"].get(host).is_none(), "{}", text(&fs::read(file).unwrap()));
        }
        ends(&home, &["push", ":one", &format!("{host}/a:1.0.0")], "", 0, "");
        ends(&home, &["logout", host], "", 0, "is gone from docker-credential-test");
        assert!(!kept.exists());
        ends(&home, &["logout", host], "", 2, "nobody is logged in to");
        assert_eq!(fs::read_to_string(&calls).unwrap(), "store\nget\nget\nerase\nget\n", "{place}");
    }
    // One that fails is told without what it was given.
    fs::write(&program, "#!/bin/sh\ncat\nexit 3\n").unwrap();
    ends(&home, &["login", host, "-u", "me", "--password-stdin"], "s3cret\n", 2, "it did not keep the login");
}

#[test]
fn a_password_is_not_shown_while_it_is_typed() {
    let (home, fake) = (home(), registry(Gate::Basic));
    let host = fake.address();
    let file = home.folder.path().join("auth.json");
    let variables = [XTERM, ("REGISTRY_AUTH_FILE", file.to_str().unwrap())];
    let terminal = Terminal::start(&home, &["login", host], (100, 24), &variables);
    let mut keys = terminal.master.try_clone().unwrap();
    terminal.wait_for("the first question", |screen| screen.contains(&format!("User of {host}:")));
    keys.write_all(b"me\n").unwrap();
    terminal.wait_for("the second question", |screen| screen.contains(&format!("Password of me for {host}:")));
    keys.write_all(b"s3cret\n").unwrap();
    let (code, screen, bytes) = terminal.end();
    assert_eq!(code, Some(0), "{screen}");
    assert!(bytes.contains("User of") && bytes.contains("me\r\n") && !bytes.contains("s3cret"), "{bytes}");
    assert_eq!(read(&file)["auths"][host]["auth"], LOGIN);
    // Whoever changes their mind has a terminal that shows what they type.
    fs::remove_file(&file).unwrap();
    let terminal = Terminal::start(&home, &["login", host, "-u", "me"], (100, 24), &variables);
    let mut keys = terminal.master.try_clone().unwrap();
    terminal.wait_for("the question", |screen| screen.contains("Password of me for"));
    let shows = |file: &fs::File| tcgetattr(file).unwrap().local_modes.contains(LocalModes::ECHO);
    assert!(!shows(&keys));
    keys.write_all(b"s3c\x03").unwrap();
    let master = terminal.master.try_clone().unwrap();
    let (code, screen, bytes) = terminal.end();
    assert_eq!(code, Some(130), "{screen}");
    assert!(shows(&master) && !bytes.contains("s3c"), "{bytes}");
    assert!(!file.exists());
}
