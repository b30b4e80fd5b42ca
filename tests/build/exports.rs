//! Images that leave: which one, where to, what is there already, and what is in the way.

use std::fs;
use std::process::{Child, Stdio};

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
fn read(path: &std::path::Path) -> Value {
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
