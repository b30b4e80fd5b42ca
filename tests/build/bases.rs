//! Images over those of others: layers are passed on as they are, and looked into where something needs what is in them.

use std::fs;
use std::process::Command;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use serde_json::{Value, json};

use crate::analyze::{file, folder, run, tar, write};
use crate::{Home, SHA256, text};

const OWN: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Images of all uses over the toolchain `root`, which is the layout `given`.
fn home() -> Home {
    Home::new(&format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n[toolchain.root]\nimage = \"oci:given\"\n\
         [image.bare]\nbase = \":root\"\n\
         [image.web]\nbase = \":root\"\nlayers = [{{ from = \":data\", to = \"/srv\", owner = \"7:8\" }}]\n\
         [image.above]\nbase = \":web\"\nconfig = {{ user = \"9\" }}\n\
         [image.owned]\nbase = \":root\"\nlayers = [{{ from = \":data\", to = \"/srv\", owner = \"app\" }}]\n\
         [image.over]\nbase = \":web\"\nlayers = [{{ from = \":data\", to = \"/srv\", owner = \"app\" }}]\n\
         [image.user]\nbase = \":root\"\nconfig = {{ user = \"app\" }}\n\
         [image.added]\nbase = \":more\"\n\
         [toolchain.more]\nimage = \"oci:given\"\nadd = [{{ link = \"/x\", target = \"srv\" }}]\n\
         [command.step]\ntoolchain = \":root\"\nrun = \"true\"\noutputs = [\"out\"]\n"
    ))
}

/// Writes a layout of one layer, for each of some processors; what its descriptor is.
fn layout(home: &Home, layer: &[u8], diff_id: &str, architectures: &[&str]) -> Value {
    let folder = home.workspace().join("given");
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let blob = Descriptor::of(DigestFunction::Sha256, bytes);
        fs::write(folder.join("blobs/sha256").join(blob.digest.to_hex()), bytes).unwrap();
        json!({ "digest": blob.digest.to_string(), "size": blob.size })
    };
    let mut layer = put(layer);
    layer["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    layer["annotations"] = json!({ "org.example.note": "kept" });
    let manifests: Vec<Value> = architectures
        .iter()
        .map(|architecture| {
            let config = json!({ "architecture": architecture, "os": "linux", "config": {},
                                 "rootfs": { "type": "layers", "diff_ids": [diff_id] } });
            let manifest =
                json!({ "schemaVersion": 2, "config": put(config.to_string().as_bytes()), "layers": [layer] });
            let mut item = put(manifest.to_string().as_bytes());
            item["platform"] = json!({ "os": "linux", "architecture": architecture });
            item
        })
        .collect();
    let index = put(json!({ "schemaVersion": 2, "manifests": manifests }).to_string().as_bytes());
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [index] }).to_string()).unwrap();
    layer
}

fn sha256(bytes: &[u8]) -> String {
    Descriptor::of(DigestFunction::Sha256, bytes).digest.to_string()
}

fn inspect(home: &Home, image: &str) -> Value {
    serde_json::from_str(&run(home, &["image", "inspect", image], 0)).unwrap()
}

#[track_caller]
fn refused(home: &Home, arguments: &[&str], expected: &str) {
    let output = home.cas(arguments);
    let said = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1..=3)) && said.contains(expected), "{arguments:?}: {said}");
}

/// What cannot be unpacked was not unpacked.
#[test]
fn a_base_is_looked_into_where_its_files_are_needed_alone() {
    let (broken, archive) = (b"this is no archive".repeat(100), tar(&[folder("etc"), file("etc/passwd", "")]));
    for (layer, diff_id, expected) in [
        (&broken, sha256(&broken), sha256(&broken)),
        (&archive, sha256(b"something else"), "its uncompressed bytes are".to_owned()),
    ] {
        let home = home();
        let given = layout(&home, layer, &diff_id, &[OWN]);
        for image in [":bare", ":web", ":above"] {
            run(&home, &["build", image], 0);
            let made = inspect(&home, &format!("//{image}"));
            assert_eq!(made["manifest"]["layers"][0], given, "{image}");
            assert_eq!(made["config"]["rootfs"]["diff_ids"][0], diff_id, "{image}");
            let blob = home.workspace().join("cas-out").join(&image[1..]).join("blobs/sha256");
            let blob = blob.join(given["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap());
            assert!(fs::read(blob).unwrap() == *layer, "{image}");
        }
        // With the toolchain itself among what is asked for.
        run(&home, &["build", ":root", ":web"], 0);
        run(&home, &["build", "--offline", "--locked", ":root", ":web"], 0);
        for arguments in [
            &["build", ":owned"][..],
            &["build", ":over"],
            &["build", ":user"],
            &["build", ":added"],
            &["build", ":step"],
            &["build", ":root"],
            &["image", "export", ":web", "tar:files.tar"],
        ] {
            refused(&home, arguments, &expected);
        }
        // It was never to blame.
        run(&home, &["build", ":web"], 0);
    }
}

#[test]
fn a_base_whose_files_are_needed_gives_them() {
    let home = home();
    let passwd = "app:x:41:42::/app:/bin/sh\n";
    write(&home, "given", &[vec![folder("etc"), file("etc/passwd", passwd)]], |_| {});
    run(&home, &["build", ":web", ":owned", ":over", ":user"], 0);
    for (image, owner) in [(":web", "7/8"), (":owned", "41/42"), (":over", "41/42")] {
        run(&home, &["image", "export", image, "tar:files.tar"], 0);
        let mut listing = Command::new("tar");
        listing.args(["tvf", "files.tar", "--numeric-owner", "srv/data.txt"]).current_dir(home.workspace());
        let said = text(&listing.output().unwrap().stdout);
        assert!(said.contains(&format!(" {owner} ")), "{image}: {said}");
    }
    // What was looked into once is known: the layers are not needed for it.
    fs::remove_dir_all(home.workspace().join("given")).unwrap();
    run(&home, &["build", "--offline", ":web", ":owned", ":over", ":user"], 0);
}

#[test]
fn a_base_for_other_platforms_alone_needs_none_for_this_machine() {
    let layer = b"this is no archive";
    let images = |platforms: &str| {
        format!(
            "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n[toolchain.root]\nimage = \"oci:given\"\n\
             [image.web]\nbase = \":root\"\nplatforms = [{platforms}]\nlayers = [{{ from = \":data\", to = \"/\" }}]\n"
        )
    };
    let others = "\"linux/s390x\", \"linux/riscv64\"";
    let home = Home::new(&images(others));
    layout(&home, layer, &sha256(layer), &["s390x", "riscv64"]);
    run(&home, &["lock"], 0);
    run(&home, &["build", "--locked"], 0);
    refused(&home, &["build", ":root"], "for linux/");
    let home = Home::new(&images(&format!("{others}, \"linux/{OWN}\"")));
    layout(&home, layer, &sha256(layer), &["s390x", "riscv64"]);
    for arguments in [&["lock"][..], &["build", ":web"]] {
        refused(&home, arguments, &format!("for linux/{OWN}"));
        assert!(!home.workspace().join("cas.lock").exists(), "what is refused is not pinned");
    }
}
