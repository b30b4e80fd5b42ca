//! Images that leave: which one, where to, what is there already, and what is in the way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::{Home, SHA256, image, text};

/// Runs a command that has to succeed.
#[track_caller]
fn done(home: &Home, arguments: &[&str]) -> String {
    let output = home.cas(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that has to fail, and returns what it says.
#[track_caller]
fn fails(home: &Home, arguments: &[&str], code: i32) -> String {
    let output = home.cas(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    stderr
}

/// A workspace whose image `both` is for two platforms.
fn several() -> Home {
    Home::new(&format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n[image.both]\n\
         layers = [{{ from = \":data\", to = \"/\" }}]\nplatforms = [\"linux/riscv64\", \"linux/s390x\"]\n"
    ))
}

#[test]
fn a_platform_chooses_the_image_that_is_looked_at() {
    let home = several();
    for architecture in ["riscv64", "s390x"] {
        let platform = format!("linux/{architecture}");
        let told = done(&home, &["image", "analyze", ":both", "--platform", &platform]);
        assert!(told.lines().next().is_some_and(|line| line.ends_with(&platform)), "{told}");
    }
    // The platform is part of the configuration, so an image that is compared with itself is equal for each.
    assert_eq!(done(&home, &["image", "diff", ":both", ":both", "--platform", "linux/s390x"]), "");
    for command in [&["analyze", ":both"][..], &["diff", ":both", ":both"]] {
        let arguments = [&["image"], command, &["--platform", "linux/arm64"]].concat();
        let told = fails(&home, &arguments, 2);
        assert!(told.contains("`//:both` has no image for linux/arm64"), "{told}");
        assert!(told.contains("hint: it is for linux/riscv64, linux/s390x"), "{told}");
    }
}

/// Reads a document.
fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The tags of a layout, sorted.
fn tags(home: &Home, layout: &str) -> Vec<String> {
    let index = read(&home.workspace().join(layout).join("index.json"));
    let entries = index["manifests"].as_array().unwrap().iter();
    let tag = |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].as_str().map(str::to_owned);
    let mut tags: Vec<String> = entries.filter_map(tag).collect();
    tags.sort();
    tags
}

#[test]
fn exports_into_one_layout_at_once_lose_no_tag() {
    let home = Home::new(&image());
    done(&home, &["build"]);
    for round in 0..3 {
        let expected: Vec<String> = (0..8).map(|number| format!("v{number}")).collect();
        let layout = format!("lay{round}");
        let export = |tag: &String| {
            let destination = format!("oci:{layout}:{tag}");
            home.command(&["image", "export", ":web", &destination]).stdout(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<Child> = expected.iter().map(export).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(tags(&home, &layout), expected);
        let mut names: Vec<String> = fs::read_dir(home.workspace().join(&layout))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["blobs", "index.json", "oci-layout"], "the specification knows no other file");
    }
}

#[test]
fn what_others_said_in_a_layout_stays() {
    let home = Home::new(&image());
    done(&home, &["image", "export", ":web", "oci:lay:v1"]);
    let path = home.workspace().join("lay/index.json");
    // A list of lists, something that is no image, and words about all of it.
    let theirs = json!([
        { "mediaType": "application/vnd.oci.image.index.v1+json", "digest": format!("sha256:{SHA256}"), "size": 5,
          "annotations": { "org.opencontainers.image.ref.name": "theirs", "a": "b" },
          "platform": { "architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["x"] } },
        { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha512:{SHA256}{SHA256}"), "size": 5,
          "artifactType": "application/x", "data": "ZGF0YQo=", "urls": ["https://example.invalid"] },
    ]);
    let mut index = read(&path);
    let own = index["manifests"][0].clone();
    index["manifests"].as_array_mut().unwrap().extend(theirs.as_array().unwrap().iter().cloned());
    index["annotations"] = json!({ "c": "d" });
    index["subject"] = theirs[0].clone();
    fs::write(&path, index.to_string()).unwrap();
    done(&home, &["image", "export", ":web", "oci:lay:v2"]);
    done(&home, &["image", "export", ":base", "oci:lay:v1"]);
    let mut now = read(&path);
    let manifests = now["manifests"].take();
    assert_eq!(json!([manifests[0], manifests[1]]), theirs);
    assert_eq!((&manifests[2]["digest"], manifests.as_array().unwrap().len()), (&own["digest"], 4));
    assert_eq!((&now["annotations"], &now["subject"]), (&index["annotations"], &index["subject"]));
    assert_eq!(tags(&home, "lay"), ["theirs", "v1", "v2"]);
}

#[test]
fn an_index_that_is_none_is_left_as_it_is() {
    let home = Home::new(&image());
    done(&home, &["image", "export", ":web", "oci:lay:v1"]);
    let path = home.workspace().join("lay/index.json");
    let whole = fs::read(&path).unwrap();
    for wrong in [&whole[..whole.len() / 2], b"", b"{\"schemaVersion\":2,\"config\":{}}"] {
        fs::write(&path, wrong).unwrap();
        let told = fails(&home, &["image", "export", ":web", "oci:lay:v2"], 1);
        assert!(told.starts_with("error: `lay/index.json` cannot be added to"), "{told}");
        assert!(told.contains("cause: `index.json` is not an image index") && told.contains("move it away"), "{told}");
        assert_eq!(fs::read(&path).unwrap(), wrong);
    }
    // What a build has put there is its own.
    done(&home, &["build", ":web"]);
    let own = home.workspace().join("cas-out/web/index.json");
    fs::write(&own, "{").unwrap();
    done(&home, &["build", ":web"]);
    assert_eq!(tags(&home, "cas-out/web"), ["web"]);
}

/// The largest blob in a folder.
fn largest(folder: &Path) -> PathBuf {
    let blobs = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    blobs.filter(|path| path.is_file()).max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

#[test]
fn a_damaged_blob_of_equal_size_is_written_anew() {
    let home = Home::new(&image());
    done(&home, &["build", ":web"]);
    done(&home, &["image", "export", ":web", "oci:lay:v1"]);
    done(&home, &["image", "export", ":web", "dir:folder"]);
    let (layout, folder) = (["image", "export", ":web", "oci:lay:v1"], ["image", "export", ":web", "dir:folder"]);
    let rows: [(&str, &[&str]); 3] =
        [("lay/blobs/sha256", &layout), ("folder", &folder), ("cas-out/web/blobs/sha256", &["build", ":web"])];
    for (below, arguments) in rows {
        let path = largest(&home.workspace().join(below));
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&path, &damaged).unwrap();
        done(&home, arguments);
        assert_eq!(fs::read(&path).unwrap(), whole, "{below}");
    }
}

/// Names of files in a folder that are read while something is done.
fn read_while(folder: &Path, work: impl FnOnce()) -> BTreeSet<String> {
    use rustix::fs::inotify;
    let handle = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&handle, folder, inotify::WatchFlags::ACCESS).unwrap();
    work();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(handle, &mut buffer);
    let mut names = BTreeSet::new();
    while let Ok(event) = reader.next() {
        // Folders of names that are not there yet are listed when they go.
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned());
        names.extend(name.filter(|name| !name.starts_with('.')));
    }
    names
}

#[test]
fn blobs_that_look_as_they_were_left_are_not_read_again() {
    let home = Home::new(&image());
    done(&home, &["build", ":web"]);
    let blobs = home.workspace().join("cas-out/web/blobs/sha256");
    let old: BTreeSet<String> =
        fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(read_while(&blobs, || drop(done(&home, &["build", ":web"]))), BTreeSet::new());
    // Another configuration: the layers stay.
    let changed = image().replace("cmd = [\"/x\"]", "cmd = [\"/y\"]");
    home.write("cas.toml", &changed.replace("DATA", &format!("file://{}/data.txt", home.folder.path().display())));
    assert_eq!(read_while(&blobs, || drop(done(&home, &["build", ":web"]))), BTreeSet::new());
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), old.len() + 2);
    // What was touched is compared, once.
    let index = read(&home.workspace().join("cas-out/web/index.json"));
    let touched = blobs.join(index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", ""));
    let bytes = fs::read(&touched).unwrap();
    fs::write(&touched, bytes).unwrap();
    let name = touched.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(read_while(&blobs, || drop(done(&home, &["build", ":web"]))), BTreeSet::from([name]));
    assert_eq!(read_while(&blobs, || drop(done(&home, &["build", ":web"]))), BTreeSet::new());
}

#[test]
fn links_are_followed_and_streams_written_to() {
    let home = Home::new(&image());
    let at = |path: &str| home.workspace().join(path);
    done(&home, &["image", "export", ":web", "oci-archive:plain.tar:v1"]);
    let plain = fs::read(at("plain.tar")).unwrap();
    let link = |target: &str, path: &str| std::os::unix::fs::symlink(target, at(path)).unwrap();
    // To what is there, and to what is not.
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/old.tar"), "old").unwrap();
    for (target, name) in [("real/old.tar", "old"), ("real/new.tar", "new")] {
        link(target, name);
        done(&home, &["image", "export", ":web", &format!("oci-archive:{name}:v1")]);
        assert!(fs::read(at(target)).unwrap() == plain && fs::symlink_metadata(at(name)).unwrap().is_symlink());
    }
    link("real/told.json", "told");
    link("real/id", "id");
    done(&home, &["build", ":web", "--metadata-file", "told", "--iidfile", "id"]);
    assert!(read(&at("real/told.json"))["//:web"].is_object());
    assert!(fs::read_to_string(at("real/id")).unwrap().starts_with("sha256:"));
    // A pipe with a name, and the one of a shell.
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let reader = Command::new("cat").arg(at("pipe")).stdout(Stdio::piped()).spawn().unwrap();
    done(&home, &["image", "export", ":web", "oci-archive:pipe:v1"]);
    assert!(reader.wait_with_output().unwrap().stdout == plain, "the same bytes");
    let output = home.cas(&["image", "export", ":web", "oci-archive:/dev/stdout:v1"]);
    assert!(output.status.success() && output.stdout == plain, "nothing but the archive");
    assert!(text(&output.stderr).starts_with("//:web sha256:"), "{}", text(&output.stderr));
    done(&home, &["image", "export", ":web", "tar:/dev/null"]);
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    // What cannot hold a file is told, and stays.
    let told = fails(&home, &["image", "export", ":web", "tar:real"], 1);
    assert_eq!(told, "error: could not write `real`\n  cause: it is a folder\nhint: name another place\n");
}

#[test]
fn what_cannot_be_written_is_told_by_the_name_that_it_was_given() {
    let home = Home::new(&image());
    done(&home, &["build", ":web"]);
    let told = fails(&home, &["image", "export", ":web", "docker-archive:/dev/full"], 1);
    assert!(told.starts_with("error: could not write `/dev/full`\n  cause: No space left on device"), "{told}");
    assert!(told.contains("hint: make room there"), "{told}");
    // A file in the place of a folder is in the way of root, too.
    for (destination, shown) in [
        ("oci:cas.toml/x:v1", "cas.toml/x"),
        ("dir:cas.toml/x", "cas.toml/x"),
        ("tar:cas.toml/x/a.tar", "cas.toml/x/a.tar"),
    ] {
        let told = fails(&home, &["image", "export", ":web", destination], 1);
        assert!(told.starts_with(&format!("error: could not write `{shown}`\n")), "{told}");
        assert!(told.contains("hint: name another place") && !told.contains(".tmp"), "{told}");
    }
    // Folders that are missing are made for all of them.
    for destination in ["oci:a/new/lay:v1", "dir:b/new/dir", "tar:c/new/a.tar", "oci-archive:d/new/a.tar"] {
        done(&home, &["image", "export", ":web", destination]);
    }
    done(&home, &["build", ":web", "--metadata-file", "e/new/told.json", "--iidfile", "f/new/id"]);
    assert!(home.workspace().join("e/new/told.json").is_file() && home.workspace().join("f/new/id").is_file());
    // What the workspace is read from is never a place for them.
    let read = |name: &str| fs::read(home.workspace().join(name)).ok();
    let before = (read("cas.toml"), read("cas.lock"));
    std::os::unix::fs::symlink("cas.toml", home.workspace().join("link")).unwrap();
    for path in ["cas.toml", "cas.lock", "./cas.toml", "link", "../workspace/cas.lock", "c/cas.toml"] {
        for option in ["--metadata-file", "--iidfile", "--trace"] {
            let told = fails(&home, &["build", ":web", option, path], 2);
            assert!(told.starts_with(&format!("error: `{path}` would be replaced: ")), "{told}");
        }
    }
    assert_eq!((read("cas.toml"), read("cas.lock")), before);
    assert!(!home.workspace().join("c/cas.toml").exists());
    // Before anything is built.
    fs::remove_dir_all(home.workspace().join("cas-out")).unwrap();
    for option in ["--metadata-file", "--iidfile"] {
        let told = fails(&home, &["build", ":web", option, "cas.toml/x"], 1);
        assert!(told.contains("error: could not write `cas.toml/x`\n"), "{told}");
        assert!(!home.workspace().join("cas-out").exists());
    }
}
