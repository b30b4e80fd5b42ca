//! `cas run` of an image: what is said in the place of its configuration, what it sees of the host, and what it leaves.

use std::process::Output;

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
    let manifest =
        "[workspace]\n[image.i]\nbase = \":sh\"\nconfig = { cmd = [\"/bin/sh\"], volumes = [\"/data/own\"] }\n";
    let files = [("host/kept/in", "one\n"), ("host/file", "two\n")];
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
    let output = shell(&["--volume", "host:/bin/busybox"], "true");
    let stderr = text(&output.stderr);
    assert!(
        output.status.code() != Some(0) && stderr.contains("other than a directory at `/usr/bin/busybox`"),
        "{stderr}"
    );
}
