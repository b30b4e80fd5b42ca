//! How images are named on the command line: targets, names in the store, and places of others.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::analyze::{file, noise, run, write};
use crate::{Home, image, text};

/// Runs a command that has to fail, and returns what it says.
#[track_caller]
fn fails(home: &Home, arguments: &[&str], code: i32) -> String {
    let output = home.cas(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    stderr
}

fn inspected(home: &Home, image: &str) -> Value {
    serde_json::from_str(&run(home, &["image", "inspect", image], 0)).unwrap()
}

#[test]
fn an_image_of_others_is_written_out_and_looked_at_without_a_name() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")], vec![file("b", "2")]], |_| {});
    let given = inspected(&home, "oci:given");
    assert_eq!((&given["name"], &given["config"]["config"]["Cmd"][0]), (&"oci:given".into(), &"sh".into()));
    for (place, is_same) in [("oci-archive:given.tar", true), ("dir:folder", true), ("docker-archive:saved.tar", false)]
    {
        run(&home, &["image", "export", "oci:given", place], 0);
        let found = inspected(&home, place);
        assert_eq!(found["digest"] == given["digest"], is_same, "{place}");
        assert_eq!(found["config"], given["config"], "{place}");
        let said = run(&home, &["image", "export", place, "oci:again"], 0);
        assert_eq!(said, format!("{place} {}\n", found["digest"].as_str().unwrap()));
        run(&home, &["image", "diff", "oci:given", "oci:again"], 0);
    }
    run(&home, &["image", "export", "oci:given", "tar:files.tar"], 0);
    run(&home, &["image", "export", "tar:files.tar:linux/s390x", "oci:files"], 0);
    assert_eq!(inspected(&home, "tar:files.tar:linux/s390x")["config"]["architecture"], "s390x");
    run(&home, &["image", "inspect", "oci:files", "--platform", "linux/s390x"], 0);
    let told = fails(&home, &["image", "export", "oci:files", "oci:x", "--platform", "linux/riscv64"], 2);
    assert!(told.contains("linux/riscv64"), "{told}");
    for command in
        [&["image", "export", "oci:none", "oci:x"][..], &["image", "inspect", "oci:none"], &["run", "oci:none"]]
    {
        let told = fails(&home, command, 2);
        assert!(told.starts_with("error: there is no image `oci:none`: "), "{told}");
    }
    assert_eq!(run(&home, &["image", "ls"], 0), "");
}

#[test]
fn an_image_of_others_runs_without_a_name() {
    let Some(home) = Home::with_busybox(
        "[workspace]\n[image.i]\nbase = \":sh\"\nconfig = { cmd = [\"/bin/sh\", \"-c\", \"echo ran\"] }\n",
        &[],
    ) else {
        return;
    };
    let folder = home.folder.path().join("elsewhere");
    fs::create_dir(&folder).unwrap();
    let place = |transport: &str| format!("{transport}:{}", folder.join(transport).display());
    for transport in ["oci", "docker-archive"] {
        run(&home, &["image", "export", ":i", &place(transport)], 0);
    }
    // In another store, and without a workspace.
    for (transport, arguments, expected) in
        [("oci", &[][..], "ran\n"), ("docker-archive", &["--", "/bin/sh", "-c", "echo $0"], "/bin/sh\n")]
    {
        let mut command = home.command(&[&["run", &place(transport)], arguments].concat());
        let output = command.current_dir(&folder).env("CAS_HOME", home.folder.path().join("other")).output().unwrap();
        assert_eq!(
            (text(&output.stdout), output.status.code()),
            (expected.to_owned(), Some(0)),
            "{}",
            text(&output.stderr)
        );
    }
}

/// Nobody listens at the port, so whoever asks the registry fails.
#[test]
fn a_name_in_the_store_comes_before_the_registry() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")]], |_| {});
    let name = "localhost:1/team/app:1";
    run(&home, &["image", "import", "oci:given", "--name", name], 0);
    assert_eq!(inspected(&home, name)["digest"], inspected(&home, "oci:given")["digest"]);
    run(&home, &["image", "diff", name, "oci:given"], 0);
    let told = fails(&home, &["image", "inspect", &format!("docker://{name}"), "--offline"], 4);
    assert!(told.contains("localhost:1/team/app"), "{told}");
    fails(&home, &["image", "inspect", "localhost:1/team/app:2", "--offline"], 4);
}

/// The store knows images of several workspaces by the same labels.
#[test]
fn a_label_means_the_workspace_that_it_is_written_in() {
    let one = Home::new(&image());
    let other = Home::new(&format!("{}[image.own]\nlayers = [{{ from = \":data\", to = \"/\" }}]\n", image()));
    let store = one.folder.path().join("store");
    let command = |home: &Home, arguments: &[&str]| home.command(arguments).env("CAS_HOME", &store).output().unwrap();
    let built = command(&other, &["build", ":own"]);
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    write(&one, "given", &[vec![file("a", "1")]], |_| {});
    run(&one, &["image", "import", "oci:given", "--name", "own:1"], 0);
    for name in ["//:own", ":own"] {
        for arguments in [
            &["image", "export", name, "oci:x"][..],
            &["image", "inspect", name],
            &["image", "analyze", name],
            &["image", "diff", "//:base", name],
            &["image", "convert", name, "--compression", "none", "--to", "oci:x"],
            &["run", name],
        ] {
            let told = fails(&one, arguments, 2);
            assert!(told.starts_with("error: there is no target `//:own`"), "{arguments:?}: {told}");
        }
    }
    let told = fails(&one, &["image", "export", "//:wbe", "oci:x"], 2);
    assert_eq!(told, "error: there is no target `//:wbe`\nhint: did you mean `//:web`?\n");
    run(&one, &["image", "inspect", "own:1"], 0);
    // Outside of workspaces a label has no other meaning.
    let outside = one.command(&["image", "inspect", "//:own"]).current_dir(one.folder.path()).output().unwrap();
    assert_eq!(outside.status.code(), Some(0), "{}", text(&outside.stderr));
}

/// A name means the same in every folder, with or without what it was imported from.
#[test]
fn an_imported_image_has_a_name_without_folders() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")]], |_| {});
    for (place, name) in [
        ("oci:lay/shell:v1", "shell:v1"),
        ("oci-archive:./web.tar", "web:latest"),
        ("docker-archive:saved.tar:acme/app:2", "acme/app:2"),
        ("dir:lay/folder", "folder:latest"),
    ] {
        run(&home, &["image", "export", "oci:given", place], 0);
        let said = run(&home, &["image", "import", place], 0);
        assert_eq!(said.split(' ').next(), Some(name), "{said}");
    }
    // A name is never one of a place.
    run(&home, &["image", "export", "oci:given", "dir:lay/oci"], 0);
    let told = fails(&home, &["image", "import", "dir:lay/oci"], 2);
    assert!(told.starts_with("error: `dir:lay/oci` gives the image no name\n"), "{told}");
    let told = fails(&home, &["image", "import", "oci:."], 2);
    assert_eq!(
        told,
        "error: `oci:.` gives the image no name\nhint: give it one: `--name NAME:TAG`, in small letters\n"
    );
    fs::remove_dir_all(home.workspace().join("lay")).unwrap();
    let listed = run(&home, &["image", "ls"], 0);
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["acme/app:2", "folder:latest", "shell:v1", "web:latest"]);
    for name in names {
        for folder in [home.workspace(), home.folder.path().to_owned()] {
            let output = home.command(&["image", "inspect", name]).current_dir(folder).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output.stderr));
        }
    }
}

/// Whether the store has the only layer of an image.
fn has_layer(home: &Home, manifest: &Value) -> bool {
    let layer = &manifest["manifest"]["layers"][0];
    let blob = format!("{}/{}", layer["digest"].as_str().unwrap(), layer["size"]);
    home.cas(&["store", "path", &blob]).status.code() == Some(0)
}

fn names(home: &Home) -> Vec<String> {
    let listed = run(home, &["image", "ls"], 0);
    listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn an_image_leaves_with_the_last_of_its_names() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", noise(1, 300_000))]], |_| {});
    write(&home, "other", &[vec![file("b", noise(2, 300_000))]], |_| {});
    let (given, other) = (inspected(&home, "oci:given"), inspected(&home, "oci:other"));
    run(&home, &["image", "import", "oci:given", "--name", "team/app:1"], 0);
    run(&home, &["image", "import", "oci:other", "--name", "other:1"], 0);
    let said = run(&home, &["image", "tag", "team/app:1", "app:2"], 0);
    assert_eq!(said, format!("app:2 {}\n", given["digest"].as_str().unwrap()));
    assert_eq!(inspected(&home, "app:2")["name"], "app:2");
    // Ages are whole seconds.
    let collect = || {
        std::thread::sleep(Duration::from_millis(2100));
        run(&home, &["store", "gc", "--min-age", "0s"], 0)
    };

    assert_eq!(run(&home, &["image", "rm", "team/app:1"], 0), "team/app:1 was removed\n");
    collect();
    run(&home, &["image", "export", "app:2", "oci:out"], 0);
    assert_eq!(inspected(&home, "oci:out")["digest"], given["digest"]);
    // A pin keeps what no name does, and another image's name is no business of this one.
    run(&home, &["store", "pin", "add", "release", "app:2"], 0);
    run(&home, &["image", "rm", "app:2"], 0);
    collect();
    assert!(has_layer(&home, &given));
    run(&home, &["store", "pin", "rm", "release"], 0);
    assert!(has_layer(&home, &given));
    collect();
    assert!(!has_layer(&home, &given));
    assert!(has_layer(&home, &other));
    assert_eq!(names(&home), ["other:1"]);
}

/// Names of artifacts and of images are one space, and what is not there ends no other name.
#[test]
fn names_are_given_and_ended_one_by_one() {
    let artifact = "[artifact.docs]\ntype = \"application/vnd.example.docs\"\nfiles = [{ from = \":data\" }]\n";
    let home = Home::new(&format!("{}{artifact}", image()));
    run(&home, &["build", ":base"], 0);
    run(&home, &["image", "tag", ":web", "web:1"], 0);
    run(&home, &["image", "tag", "web:1", "web:2"], 0);
    run(&home, &["image", "tag", ":docs", "docs:1"], 0);
    assert_eq!(inspected(&home, "web:2")["digest"], inspected(&home, ":web")["digest"]);
    assert_eq!(names(&home), ["//:base", "//:docs", "//:web", "docs:1", "web:1", "web:2"]);
    let told = fails(&home, &["image", "rm", "web:1", "none:1", "web:2", "nor:2"], 2);
    let said = "error: there are no images `none:1`, `nor:2` in the store; nothing was removed\nhint: `cas image ls` lists those that are there\n";
    assert_eq!(told, said);
    assert_eq!(
        fails(&home, &["image", "rm", ":none"], 2).lines().next(),
        Some("error: there is no image `//:none` in the store; nothing was removed")
    );
    // In place of what had the name.
    run(&home, &["image", "tag", "docs:1", "web:2"], 0);
    assert_eq!(inspected(&home, "web:2")["artifact_type"], "application/vnd.example.docs");
    run(&home, &["image", "tag", "web:1", "docs:1"], 0);
    assert!(inspected(&home, "docs:1")["config"].is_object());
    run(&home, &["image", "rm", "web:1", ":base", "//:docs"], 0);
    assert_eq!(names(&home), ["//:web", "docs:1", "web:2"]);
    run(&home, &["build", ":base"], 0);
    assert_eq!(names(&home), ["//:base", "//:web", "docs:1", "web:2"]);
    for name in ["//:x", ":x", "x", "X:1", "oci:1", "docker-daemon:1", "oci:x:1"] {
        let told = fails(&home, &["image", "tag", ":web", name], 2);
        assert!(told.starts_with(&format!("error: `{name}` is not a name with a tag\n")), "{told}");
    }
    let told = fails(&home, &["image", "tag", "oci:x", "y:1"], 2);
    assert!(told.ends_with("hint: bring the image into the store: `cas image import oci:x --name y:1`\n"), "{told}");
    assert!(
        fails(&home, &["image", "tag", "none:1", "y:1"], 2)
            .starts_with("error: there is no image `none:1` in the store")
    );
    assert!(fails(&home, &["image", "tag", "//:none", "y:1"], 2).starts_with("error: there is no target `//:none`"));
}

#[test]
fn an_archive_of_the_other_kind_is_told_with_its_transport() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")]], |_| {});
    for (transport, other, missing) in
        [("oci-archive", "docker-archive", "manifest.json"), ("docker-archive", "oci-archive", "index.json")]
    {
        run(&home, &["image", "export", "oci:given", &format!("{transport}:a.tar")], 0);
        let told = fails(&home, &["image", "import", &format!("{other}:a.tar")], 3);
        assert!(told.contains(&format!("cause: it has no `{missing}`\n")), "{told}");
        let hint = format!("hint: it looks like an archive of the other kind: write `{transport}:./a.tar`\n");
        assert!(told.ends_with(&hint), "{told}");
    }
    // One of neither kind.
    run(&home, &["image", "export", "oci:given", "tar:files.tar"], 0);
    let told = fails(&home, &["image", "import", "oci-archive:files.tar"], 3);
    assert!(told.contains("cause: it has no `index.json`") && !told.contains("hint: it looks"), "{told}");
}

#[test]
fn what_is_an_image_or_an_artifact_is_told_in_english() {
    let home = Home::new(&image());
    let output = home.cas(&["test", ":base"]);
    assert!(
        text(&output.stderr).starts_with("note: `//:base` is no test but an image: it is built\n"),
        "{}",
        text(&output.stderr)
    );
}
