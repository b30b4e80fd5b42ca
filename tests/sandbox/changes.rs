//! What a step leaves, as the kernel's overlay records it.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cas_sandbox::{Change, Overlay, Volume, changes};

use crate::{Home, run, try_run};

/// The changes as text; without notes on directories that hide nothing, which a kernel may add or leave out.
fn lines(overlay: &Overlay) -> Vec<String> {
    let hides = |change: &Change| {
        let path = std::path::PathBuf::from(change.path().to_string());
        !matches!(change, Change::Opaque { .. }) || overlay.lowers.iter().any(|lower| lower.join(&path).is_dir())
    };
    changes(&overlay.upper())
        .unwrap()
        .into_iter()
        .filter(hides)
        .map(|change| match change {
            Change::Written { path, kind, mode } => format!("{kind:?} {path} {mode:o}"),
            Change::Removed { path } => format!("removed {path}"),
            Change::Opaque { path } => format!("opaque {path}"),
        })
        .collect()
}

#[test]
fn writes_and_removals_are_told_apart_in_byte_order() {
    let Some(mut home) = Home::new() else { return };
    let files =
        [("keep/read", "r"), ("keep/edit", "e"), ("gone/a", "a"), ("replaced/a", "a"), ("mode", "m"), ("z", "z")];
    let script = "cat keep/read >/dev/null; echo more >>keep/edit; rm -r gone; rm -r replaced; mkdir replaced; \
                  echo b >replaced/b; mkdir -p new/deep; echo n >new/deep/n; chmod 755 mode; ln -s z link; rm z; \
                  dd if=/dev/null of=empty 2>/dev/null; chmod 700 keep";
    let script = script.replace("ln -s z link", "busybox ln -s z link");
    let spec = home.script_with_source(&script, &files);
    let run = run(&spec);
    run.text();
    let source = run.spec.source.as_ref().unwrap();
    assert_eq!(
        lines(source),
        [
            "File empty 644",
            "removed gone",
            "File keep/edit 644",
            "Symlink link 777",
            "File mode 755",
            "Directory new 755",
            "Directory new/deep 755",
            "File new/deep/n 644",
            "Directory replaced 755",
            "opaque replaced",
            "File replaced/b 644",
            "removed z",
        ]
    );
    assert_eq!(fs::read_to_string(source.upper().join("keep/edit")).unwrap(), "emore\n");
    assert_eq!(lines(&run.spec.root), [""; 0], "the mount points are no change of the root");
}

/// A part of the host is seen where it is, with what is in it now, and cannot be written.
#[test]
fn parts_of_the_host_are_shown_read_only() {
    let Some(mut home) = Home::new() else { return };
    // Not in `/tmp` or `/dev`, where a sandbox has its own.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let shown = folder.path().join("shown");
    fs::create_dir_all(shown.join("below")).unwrap();
    fs::write(shown.join("below/file"), "content\n").unwrap();
    let lower = home.fresh("lower");
    fs::create_dir_all(lower.join(shown.strip_prefix("/").unwrap())).unwrap();
    let at = shown.display();
    let mut spec = home.script(&format!(
        "cat {at}/below/file; ! (echo x > {at}/below/file) 2>/dev/null; ! rm -r {at}/below 2>/dev/null"
    ));
    spec.root.lowers.push(lower);
    spec.host_paths = vec![shown.clone()];
    assert_eq!(run(&spec).text(), "content");
    assert_eq!(fs::read_to_string(shown.join("below/file")).unwrap(), "content\n");
    let overlay = spec.root.clone();
    assert_eq!(lines(&overlay), [""; 0]);
    // A root without a place for it is an error, and so is one where the place is a link.
    let mut spec = home.script("true");
    spec.host_paths = vec![shown.clone()];
    assert!(try_run(&spec).is_err(), "the root has no such folder");
    let lower = home.fresh("lower");
    let link = lower.join(shown.strip_prefix("/").unwrap());
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/", link).unwrap();
    let mut spec = home.script("true");
    spec.root.lowers.push(lower);
    spec.host_paths = vec![shown];
    assert!(try_run(&spec).is_err(), "the place is a link");
}

#[test]
fn a_source_tree_without_inputs_can_be_written() {
    let Some(mut home) = Home::new() else { return };
    let mut spec = home.script("ls -a | tr '\\n' ' '; echo x >made; echo y >/made");
    spec.source = Some(Overlay { lowers: Vec::new(), scratch: home.fresh("source") });
    assert_eq!(run(&spec).text(), ". .. ");
    assert_eq!(lines(spec.source.as_ref().unwrap()), ["File made 644"]);
    assert_eq!(lines(&spec.root), ["File made 644"]);
}

#[test]
fn what_a_step_locks_away_is_captured_and_removed() {
    let Some(mut home) = Home::new() else { return };
    let spec = home.script_with_source("mkdir -p a/b; echo x >a/b/c; chmod 0 a/b/c a/b a", &[]);
    run(&spec).text();
    let source = spec.source.as_ref().unwrap();
    assert_eq!(lines(source), ["Directory a 0", "Directory a/b 0", "File a/b/c 0"]);
    assert_eq!(fs::read_to_string(source.upper().join("a/b/c")).unwrap(), "x\n");
    for overlay in [source, &spec.root] {
        cas_fs::remove_tree(&overlay.scratch).unwrap();
        assert!(!overlay.scratch.exists());
    }
}

/// The notes of the overlay live in attributes that the command could otherwise set itself.
#[test]
fn a_command_cannot_make_a_whiteout() {
    let Some(mut home) = Home::new() else { return };
    let spec = home.script_with_source("mknod fake c 0 0 2>/dev/null || echo refused", &[]);
    assert_eq!(run(&spec).text(), "refused");
    assert_eq!(lines(spec.source.as_ref().unwrap()), [""; 0]);
}

/// Parts of the host at other paths: what is written there belongs to whoever runs the sandbox, and is no change of the root.
#[test]
fn volumes_are_written_as_the_invoking_user() {
    let Some(mut home) = Home::new() else { return };
    let (kept, shown) = (home.fresh("kept"), home.fresh("shown"));
    fs::create_dir(&kept).unwrap();
    fs::write(&shown, "content\n").unwrap();
    let mut spec =
        home.script("cat /a/file; echo x > /a/b/made; stat -c %u /a/b/made; ! (echo x > /a/file) 2>/dev/null");
    spec.volumes = vec![
        Volume { host: kept.clone(), inside: "a/b".into(), is_folder: true, is_read_only: false },
        Volume { host: shown.clone(), inside: "a/file".into(), is_folder: false, is_read_only: true },
    ];
    assert_eq!(run(&spec).text(), "content\n1000");
    assert_eq!(fs::metadata(kept.join("made")).unwrap().uid(), rustix::process::geteuid().as_raw());
    assert_eq!(fs::read_to_string(&shown).unwrap(), "content\n");
    assert_eq!(lines(&spec.root), [""; 0]);
    // Nothing that makes the sandbox one is covered, and a folder covers no file.
    for (inside, is_folder) in
        [("", true), ("proc", true), ("dev/null", false), ("../x", true), ("sys/a", true), ("bin/busybox", true)]
    {
        let mut spec = home.script("true");
        spec.volumes = vec![Volume { host: kept.clone(), inside: inside.into(), is_folder, is_read_only: false }];
        assert!(try_run(&spec).is_err(), "{inside}");
    }
}
