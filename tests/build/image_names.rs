//! How images are named on the command line: targets, names in the store, and places of others.

use std::fs;

use serde_json::Value;

use crate::analyze::{file, run, write};
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
