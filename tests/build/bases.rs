//! Images over those of others: layers are passed on as they are, and looked into where something needs what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use serde_json::{Value, json};

use crate::analyze::{file, folder, item, run, tar, write};
use crate::{Home, SHA256, text};

const OWN: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Images of all uses over the toolchain `root`, which is the layout `given`.
fn home() -> Home {
    Home::new(&format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n[toolchain.root]\nimage = \"oci:given\"\n\
         [image.bare]\nbase = \":root\"\n\
         [image.web]\nbase = \":root\"\nlayers = [{{ from = \":data\", to = \"/\", owner = \"7:8\" }}]\n\
         [image.placed]\nbase = \":root\"\nlayers = [{{ from = \":data\", to = \"/srv\" }}]\n\
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
            &["build", ":placed"],
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
    for (image, owner, path) in
        [(":web", "7/8", "data.txt"), (":owned", "41/42", "srv/data.txt"), (":over", "41/42", "srv/data.txt")]
    {
        run(&home, &["image", "export", image, "tar:files.tar"], 0);
        let mut listing = Command::new("tar");
        listing.args(["tvf", "files.tar", "--numeric-owner", path]).current_dir(home.workspace());
        let said = text(&listing.output().unwrap().stdout);
        assert!(said.contains(&format!(" {owner} ")), "{image}: {said}");
    }
    // What was looked into once is known: the layers are not needed for it.
    fs::remove_dir_all(home.workspace().join("given")).unwrap();
    run(&home, &["build", "--offline", ":web", ":owned", ":over", ":user"], 0);
}

/// Folders that a layer passes through are as they were, and links to folders are gone after.
#[test]
fn a_layer_leaves_what_is_below_as_it_is() {
    let home = Home::new(&format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n[toolchain.root]\nimage = \"oci:given\"\n\
         [image.web]\nbase = \":root\"\nlayers = [\n\
         {{ from = \":data\", to = \"/home/node/app\", owner = \"1000:1000\" }},\n{{ files = [\"f\"], to = \"/root/x\" }},\n\
         {{ files = [\"tmp/f\"], to = \"/\" }},\n{{ files = [\"f\"], to = \"/bin\", mode = \"0755\" }},\n\
         {{ from = \":data\", to = \"/home/node/app/more\" }}]\n\
         [image.again]\nbase = \":web\"\nlayers = [{{ files = [\"f\"], to = \"/bin/more\" }}]\n\
         [image.blind]\nbase = \":web\"\nlayers = [{{ files = [\"f\"], to = \"/loop/x\" }}]\n"
    ));
    let below = vec![
        folder("tmp").with_mode(0o1777),
        folder("root").with_mode(0o700),
        folder("home/node").with_mode(0o750),
        folder("usr/bin"),
        item("bin", b'2', b"", "usr/bin"),
        item("loop", b'2', b"", "loop"),
    ];
    write(&home, "given", &[below], |_| {});
    fs::write(home.workspace().join("f"), "f").unwrap();
    fs::create_dir(home.workspace().join("tmp")).unwrap();
    fs::write(home.workspace().join("tmp/f"), "f").unwrap();
    run(&home, &["build", ":again"], 0);
    run(&home, &["image", "export", ":again", "tar:files.tar"], 0);
    // By others, layer by layer: what is told here is what is in there.
    let mut listings = Vec::new();
    let layout = home.workspace().join("cas-out/again");
    for layer in inspect(&home, ":again")["manifest"]["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        listings.push(listing(&layout.join("blobs/sha256").join(digest)));
    }
    listings.push(listing(&home.workspace().join("files.tar")));
    for (path, mode) in [("tmp/", "drwxrwxrwt"), ("root/", "drwx------"), ("home/node/", "drwxr-x---")] {
        let told = listings.iter().filter_map(|listing| listing.get(path)).collect::<Vec<_>>();
        assert!(told.len() >= 3 && told.iter().all(|found| *found == &format!("{mode} 0/0")), "{path}: {told:?}");
    }
    let whole = listings.last().unwrap();
    for (path, told) in [
        ("bin", "lrwxrwxrwx 0/0"),
        ("usr/bin/f", "-rwxr-xr-x 0/0"),
        ("usr/bin/more/f", "-rw-r--r-- 0/0"),
        ("home/node/app/data.txt", "-rw-r--r-- 1000/1000"),
        ("home/node/app/more/data.txt", "-rw-r--r-- 0/0"),
    ] {
        assert_eq!(whole.get(path).map(String::as_str), Some(told), "{path}: {whole:?}");
    }
    let over: Vec<&String> = listings[1..listings.len() - 1].iter().flat_map(|listing| listing.keys()).collect();
    assert!(!over.iter().any(|path| path.starts_with("bin")), "{over:?}");
    refused(
        &home,
        &["build", ":blind"],
        "layer 1 has a folder at `/loop`, where what is below has a link that leads in a circle",
    );
}

/// Rights and owner of each entry of an archive, by path.
fn listing(archive: &Path) -> BTreeMap<String, String> {
    let output = Command::new("tar").args(["tvf"]).arg(archive).arg("--numeric-owner").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[5].to_owned(), format!("{} {}", words[0], words[1]))
    };
    text(&output.stdout).lines().map(entry).collect()
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
