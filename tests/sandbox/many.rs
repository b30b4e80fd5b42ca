//! Sandboxes with many users: what user 0 of them may, what it may not, and what becomes of what it leaves.

use std::collections::BTreeSet;
use std::io::Read;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_sandbox::{Cancel, HostCannot, ManyIdsObstacle, Owner, SandboxError, Spec, Users};
use cas_tar::{ReadTarLimits, read_layer};
use cas_tree::{Directory, Metadata, Node, RelPath, Unpacking};

use crate::{Home, Run, run, runner, try_run};

fn many(mut spec: Spec) -> Spec {
    (spec.uid, spec.gid, spec.users) = (0, 0, Users::Many);
    spec
}

/// Runs a specification of many users, or says that they cannot be had here.
#[track_caller]
fn run_many(spec: Spec) -> Option<Run> {
    match try_run(&many(spec)) {
        Ok(run) => Some(run),
        Err(SandboxError::Host(HostCannot::ManyIds { obstacle: ManyIdsObstacle::NoTools }))
            if std::env::var_os("CI").is_some() =>
        {
            panic!("newuidmap is missing: install the package uidmap")
        }
        Err(SandboxError::Host(cannot @ HostCannot::ManyIds { .. })) => {
            eprintln!("SKIPPED: {cannot}");
            None
        }
        Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
    }
}

/// What a run left, over an empty tree.
fn packed(run: &Run) -> Directory {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let overlay = run.spec.root.clone();
    let packing = std::thread::spawn(move || runner().pack(&overlay, writer.into(), &Cancel::new().unwrap()));
    let mut tree = Unpacking::new(Directory::root());
    let keep = &mut |content: &mut dyn Read| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(Descriptor::of(DigestFunction::Blake3, &bytes))
    };
    read_layer(&mut tree, &mut reader, ReadTarLimits { content_bytes: 16 << 20 }, keep).unwrap();
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    packing.join().unwrap().unwrap();
    tree.finish()
}

#[test]
fn user_0_of_many_rules_over_the_others_and_their_files_alone() {
    let Some(mut home) = Home::new() else { return };
    let script = "
        id -u; id -g; cat /proc/self/uid_map | tr -s ' '
        grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status | tr '\\t' ' '
        touch /a; chown 8:65534 /a; chmod 6755 /a; stat -c '%u %g %a' /a
        chown 65536 /a 2>/dev/null || echo no such user
        mount -t tmpfs none /tmp 2>/dev/null || echo no mount
        mknod /device c 1 3 2>/dev/null || echo no device
        hostname other 2>/dev/null || echo no host name
        kill -9 1 2>/dev/null; echo process 1 lives
        cat /proc/1/environ 2>/dev/null || echo process 1 is not read
        mkdir -p /root/bin; chroot / true && echo chroot";
    let Some(run) = run_many(home.script(script)) else { return };
    let lines: Vec<&str> = run.text().lines().collect();
    assert_eq!(lines[..2], ["0", "0"]);
    let maps: BTreeSet<&str> = lines[2..].iter().copied().take_while(|line| !line.starts_with("Cap")).collect();
    let total: u32 = maps.iter().map(|row| row.split(' ').next_back().unwrap().parse::<u32>().unwrap()).sum();
    assert_eq!(total, 65_536, "{maps:?}");
    assert_eq!(
        lines[2 + maps.len()..],
        [
            "CapInh: 0000000000000000",
            // chown, dac_override, fowner, fsetid, kill, setgid, setuid, sys_chroot, setfcap: capability.h.
            "CapPrm: 00000000800400fb",
            "CapEff: 00000000800400fb",
            "CapBnd: 00000000800400fb",
            "CapAmb: 0000000000000000",
            "NoNewPrivs: 1",
            "8 65534 6755",
            "no such user",
            "no mount",
            "no device",
            "no host name",
            "process 1 lives",
            "process 1 is not read",
            "chroot"
        ]
    );
}

#[test]
fn what_user_0_leaves_is_packed_as_it_saw_it_and_can_be_removed() {
    let Some(mut home) = Home::new() else { return };
    let script = "
        mkdir /made /made/closed; echo 1 > /made/closed/secret; chmod 0600 /made/closed/secret
        ln /made/closed/secret /made/other; ln -s ../x /made/link; mkfifo -m 640 /made/pipe
        chown -R 33:33 /made/closed; chmod 0700 /made/closed; chmod 4711 /bin/busybox
        rm /bin/env; stat -c '%u %g %a' /bin";
    let mut spec = home.script(script);
    spec.owners = vec![Owner { inside: "bin".into(), uid: 0, gid: 8, mode: 0o2775 }];
    let Some(run) = run_many(spec) else { return };
    assert_eq!(run.text(), "0 8 2775", "owners are put right before the command starts");

    let tree = packed(&run);
    let path = |text: &str| RelPath::new(text).unwrap();
    let mode = |at: &str| {
        let Metadata { mode, uid, gid, xattrs } = tree.get(&path(at)).unwrap().metadata().unwrap().clone();
        assert!(xattrs.is_empty(), "{at}: {xattrs:?}");
        (mode, uid, gid)
    };
    let names: Vec<String> = tree.walk().map(|(path, _)| path.to_string()).collect();
    let expected =
        ["bin", "bin/busybox", "made", "made/closed", "made/closed/secret", "made/link", "made/other", "made/pipe"];
    assert_eq!(names, expected, "a whiteout leaves nothing in an empty tree");
    assert_eq!(mode("bin"), (0o2775, 0, 8));
    assert_eq!(mode("bin/busybox"), (0o4711, 0, 0));
    assert_eq!(mode("made/closed"), (0o700, 33, 33));
    assert_eq!(mode("made/closed/secret"), (0o600, 33, 33));
    assert_eq!(mode("made/pipe"), (0o640, 0, 0));
    assert_eq!(tree.get(&path("made/other")), Some(&Node::Link { target: path("made/closed/secret") }));

    runner().remove(&run.spec.root.scratch).unwrap();
    assert!(!run.spec.root.scratch.exists());
}

#[test]
fn names_that_mean_something_else_in_a_layer_are_refused() {
    let Some(mut home) = Home::new() else { return };
    let Some(run) = run_many(home.script("mkdir /d; touch /d/.wh.x")) else { return };
    let sink = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let error = runner().pack(&run.spec.root, sink.into(), &Cancel::new().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "could not read what the command wrote at `d/.wh.x`");
}

#[test]
fn one_user_stays_the_default() {
    let Some(mut home) = Home::new() else { return };
    let run = run(&home.script("touch /a; chown 8 /a 2>/dev/null || echo none"));
    assert_eq!(run.text(), "none");
}
