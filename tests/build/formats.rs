//! Layer formats: images of others converted and imported, and layers that are made again after a change.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::analyze::{file, folder, item, noise, run, tar, write};
use crate::{Home, text};

const FORMATS: [(&str, &str); 5] = [
    ("none", "tar"),
    ("gzip", "tar+gzip"),
    ("zstd", "tar+zstd"),
    ("zstd:chunked", "tar+zstd"),
    ("estargz", "tar+gzip"),
];

fn document(home: &Home, layout: &str, digest: &Value) -> Value {
    let digest = digest.as_str().unwrap().replace(':', "/");
    serde_json::from_slice(&fs::read(home.workspace().join(layout).join("blobs").join(digest)).unwrap()).unwrap()
}

/// The entry of the index, the manifest and the configuration of a layout.
fn documents(home: &Home, layout: &str) -> (Value, Value, Value) {
    let index = fs::read(home.workspace().join(layout).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let entry = index["manifests"][0].clone();
    let manifest = document(home, layout, &entry["digest"]);
    let config = document(home, layout, &manifest["config"]["digest"]);
    (entry, manifest, config)
}

fn convert(home: &Home, from: &str, format: &str, to: &str) -> String {
    run(home, &["image", "convert", from, "--compression", format, "--to", to], 0)
}

#[test]
fn an_image_in_another_format_holds_the_same() {
    let home = Home::new("[workspace]\n");
    let layers = [
        vec![folder("etc"), file("etc/a", "1"), file("etc/noise", noise(1, 3 << 20)), item("link", b'2', b"", "etc/a")],
        vec![file("etc/.wh.a", ""), item("again", b'1', b"", "etc/noise"), file("empty", "")],
    ];
    write(&home, "given", &layers, |config| config["history"] = json!([{ "created_by": "somebody" }]));
    let (_, given, given_config) = documents(&home, "given");
    for (format, media_type) in FORMATS {
        let to = format!("in-{}", format.replace(':', "-"));
        convert(&home, "oci:given", format, &format!("oci:{to}"));
        let (_, manifest, config) = documents(&home, &to);
        assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        for layer in manifest["layers"].as_array().unwrap() {
            assert_eq!(layer["mediaType"], format!("application/vnd.oci.image.layer.v1.{media_type}"), "{format}");
            let has_contents = format.contains("gz") && format != "gzip" || format.contains("chunked");
            assert_eq!(layer["annotations"].is_object(), has_contents, "{format}");
        }
        if format == "estargz" {
            assert_ne!(config["rootfs"]["diff_ids"], given_config["rootfs"]["diff_ids"]);
            assert_eq!(config["history"], given_config["history"]);
        } else {
            assert_eq!(manifest["config"]["digest"], given["config"]["digest"], "{format}");
            // What is gzip already stays as its maker compressed it.
            assert_eq!(manifest["layers"][0]["digest"] == given["layers"][0]["digest"], format == "gzip", "{format}");
        }
        // Back and forth, and the same again: there is one way to write each format.
        convert(&home, &format!("oci:{to}"), "none", &format!("oci:{to}-plain"));
        convert(&home, &format!("oci:{to}-plain"), format, &format!("oci:{to}-again"));
        let (again, ..) = documents(&home, &format!("{to}-again"));
        let (first, ..) = documents(&home, &to);
        assert_eq!(again["digest"] == first["digest"], format != "gzip", "{format}");
        let difference = home.cas(&["image", "diff", "oci:given", &format!("oci:{to}"), "--format", "json"]);
        let told = text(&difference.stdout);
        // The table and the landmark of eStargz are files of the image for who does not know them.
        assert_eq!(difference.status.code(), Some(i32::from(format == "estargz")), "{format}: {told}");
    }
}

/// What only passes through has files, too; and the tar of eStargz is not that of the tree.
#[test]
fn a_converted_image_goes_to_every_place() {
    let home = Home::new("[workspace]\n");
    let layers = [vec![folder("etc"), file("etc/a", "1")], vec![file("etc/b", "2"), file("etc/.wh.a", "")]];
    write(&home, "given", &layers, |_| {});
    for (format, _) in FORMATS {
        convert(&home, "oci:given", format, "tar:files.tar");
        let files = fs::read(home.workspace().join("files.tar")).unwrap();
        assert!(files.windows(5).any(|window| window == b"etc/b"), "{format}");
        assert!(!files.windows(5).any(|window| window == b"etc/a"), "{format}");
        convert(&home, "oci:given", format, "docker-archive:saved.tar:acme/x:1");
        run(&home, &["image", "diff", "docker-archive:saved.tar", "oci:given"], i32::from(format == "estargz"));
        convert(&home, "oci:given", format, "dir:folder");
    }
}

#[test]
fn a_made_image_goes_to_docker_in_every_format() {
    let manifest = "[workspace]\n[fetch.data]\nurl = \"DATA\"\n\
        sha256 = \"6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f\"\n";
    let images = FORMATS.map(|(format, _)| {
        let name = format.replace(':', "-");
        format!("[image.{name}]\ncompression = \"{format}\"\nlayers = [{{ from = \":data\", to = \"/\" }}]\n")
    });
    let home = Home::new(&format!("{manifest}{}", images.concat()));
    for (format, _) in FORMATS {
        let name = format!(":{}", format.replace(':', "-"));
        run(&home, &["image", "export", &name, "docker-archive:saved.tar"], 0);
        run(&home, &["image", "diff", "docker-archive:saved.tar", &name], 0);
    }
}

#[test]
fn another_platform_is_not_taken_for_the_one_that_is_asked_for() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")]], |_| {});
    for arguments in [
        &["image", "import", "oci:given", "--platform", "linux/s390x", "--name", "x:1"][..],
        &["image", "convert", "oci:given", "--platform", "linux/s390x", "--compression", "zstd", "--to", "oci:x"],
    ] {
        let output = home.cas(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output.stderr).contains("linux/s390x"), "{}", text(&output.stderr));
    }
}

#[test]
fn what_is_told_of_a_converted_image_names_both() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")]], |_| {});
    let (given, ..) = documents(&home, "given");
    let said = convert(&home, "oci:given", "zstd", "oci:made");
    let (made, ..) = documents(&home, "made");
    let (from, to) = (given["digest"].as_str().unwrap(), made["digest"].as_str().unwrap());
    assert_eq!(said, format!("oci:given {from} is {to} now; signatures and other referrers name the former\n"));
}

/// It is written all the same, and what it is called then is told.
#[test]
fn a_format_that_an_image_has_already_is_told() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")], vec![file("b", "2")]], |_| {});
    let mut from = "oci:given".to_owned();
    for (format, is_already) in
        [("gzip", true), ("zstd", false), ("zstd", true), ("zstd:chunked", false), ("gzip", false)]
    {
        let to = format!("oci:{}-{is_already}", format.replace(':', "-"));
        let output = home.cas(&["image", "convert", &from, "--compression", format, "--to", &to]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let told = format!("all layers have the format `{format}` already, and stay as they are\n");
        assert_eq!(text(&output.stderr), if is_already { told.as_str() } else { "" }, "{from} to {format}");
        let (entry, ..) = documents(&home, &to["oci:".len()..]);
        assert!(text(&output.stdout).contains(entry["digest"].as_str().unwrap()), "{}", text(&output.stdout));
        // The documents of `cas` stay to the byte.
        assert_eq!(
            text(&output.stdout).contains(" is sha256:"),
            !(is_already && format == "zstd"),
            "{}",
            text(&output.stdout)
        );
        from = to;
    }
}

/// podman drops a check from OCI's documents.
#[test]
fn a_check_asks_for_dockers_documents() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")]], |config| {
        config["config"]["Healthcheck"] = json!({ "Test": ["CMD", "true"] });
    });
    for (format, is_docker) in [("gzip", true), ("none", true), ("zstd", false), ("estargz", false)] {
        let output = home.cas(&["image", "convert", "oci:given", "--compression", format, "--to", "dir:made"]);
        let said = text(&output.stderr);
        let manifest: Value =
            serde_json::from_slice(&fs::read(home.workspace().join("made/manifest.json")).unwrap()).unwrap();
        let media_type = manifest["mediaType"].as_str().unwrap();
        assert_eq!(media_type == "application/vnd.docker.distribution.manifest.v2+json", is_docker, "{format}");
        let expected = if is_docker { "it is written with Docker's" } else { "podman drops the check" };
        assert!(said.contains(expected), "{format}: {said}");
    }
}

#[test]
fn what_cannot_be_converted_is_told() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")]], |_| {});
    write(&home, "lying", &[vec![file("a", "1")]], |config| {
        config["rootfs"]["diff_ids"] = json!([format!("sha256:{}", "0".repeat(64))]);
    });
    write(&home, "short", &[vec![file("a", "1")]], |config| config["rootfs"]["diff_ids"] = json!([]));
    write(&home, "twice", &[vec![file("a", "1"), file("a", "2")]], |_| {});
    for (arguments, code, expected) in [
        (["oci:given", "lzma", "oci:x"], 2, "unknown compression `lzma`"),
        (["oci:given", "zstd", "x"], 2, "`x` is not a destination\nhint: write `oci:FOLDER"),
        (
            ["oci:given", "zstd", "oci:x:y:v1"],
            2,
            "`oci:x:y:v1` has a bad tag, `y:v1`\nhint: the path ends at the first colon",
        ),
        (
            ["oci:given:y:v1", "zstd", "oci:x"],
            2,
            "`oci:given:y:v1` has a bad tag, `y:v1`\nhint: the path ends at the first",
        ),
        (["oci:none", "zstd", "oci:x"], 2, "there is no image `oci:none`"),
        (["oci:lying", "zstd", "oci:x"], 3, "its uncompressed bytes are"),
        (["oci:short", "zstd", "oci:x"], 3, "its manifest has 1 layers, its configuration 0"),
        (["oci:twice", "zstd:chunked", "oci:x"], 1, "another entry has its name, which zstd:chunked does not allow"),
        (["//:nothing", "zstd", "oci:x"], 2, "nothing"),
    ] {
        let [from, format, to] = arguments;
        let output = home.cas(&["image", "convert", from, "--compression", format, "--to", to]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!home.workspace().join("x").exists(), "{arguments:?}");
    }
}

#[test]
fn an_imported_image_is_what_it_was() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")], vec![file("b", "2")]], |_| {});
    run(&home, &["image", "import", "oci:given", "--name", "team/app:1"], 0);
    run(&home, &["image", "export", "team/app:1", "oci:out"], 0);
    assert_eq!(documents(&home, "given").0["digest"], documents(&home, "out").0["digest"]);
    run(&home, &["image", "export", "team/app:1", "tar:files.tar"], 0);
    let both = tar(&[file("a", "1"), file("b", "2")]);
    assert_eq!(fs::read(home.workspace().join("files.tar")).unwrap().len(), both.len());
    // What is not what it tells is not in the store afterwards.
    write(&home, "lying", &[vec![file("a", "1")]], |config| {
        config["rootfs"]["diff_ids"] = json!([format!("sha256:{}", "0".repeat(64))]);
    });
    for name in ["//:x", "lie", "Lie:1", ":x"] {
        run(&home, &["image", "import", "oci:given", "--name", name], 2);
    }
    let output = home.cas(&["image", "import", "oci:lying", "--name", "lie:1"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("its uncompressed bytes are"), "{}", text(&output.stderr));
    assert!(!run(&home, &["image", "ls"], 0).contains("lie"));
}

/// A folder of skopeo's has the documents and blobs of the image; of a root file system the bytes are the layer.
#[test]
fn an_image_comes_back_from_a_folder_and_from_files() {
    let home = Home::new("[workspace]\n");
    write(&home, "given", &[vec![file("a", "1")], vec![file("b", "2")]], |_| {});
    run(&home, &["image", "import", "oci:given", "--name", "team/app:1"], 0);
    run(&home, &["image", "export", "team/app:1", "dir:folder"], 0);
    run(&home, &["image", "diff", "oci:given", "dir:folder"], 0);
    run(&home, &["image", "import", "dir:folder", "--name", "back:1"], 0);
    run(&home, &["image", "export", "back:1", "oci:back"], 0);
    assert_eq!(documents(&home, "given").0["digest"], documents(&home, "back").0["digest"]);

    run(&home, &["image", "export", "team/app:1", "tar:files.tar"], 0);
    let path = |name: &str| home.workspace().join(name);
    let bytes = fs::read(path("files.tar")).unwrap();
    let digest = |bytes: &[u8]| cas_digest::Digest::of(cas_digest::DigestFunction::Sha256, bytes).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).unwrap();
    let gzip = gzip.finish().unwrap();
    fs::write(path("files.tar.gz"), &gzip).unwrap();
    for (source, out, media_type, blob) in [
        ("tar:files.tar:linux/arm64", "plain", "tar", &bytes),
        ("tar:files.tar.gz:linux/arm64", "gzip", "tar+gzip", &gzip),
    ] {
        run(&home, &["image", "import", source, "--name", "files:1"], 0);
        run(&home, &["image", "export", "files:1", &format!("oci:{out}")], 0);
        let (_, manifest, config) = documents(&home, out);
        assert_eq!((&config["architecture"], &config["os"]), (&json!("arm64"), &json!("linux")));
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&bytes)]));
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        assert_eq!(manifest["layers"][0]["mediaType"], format!("application/vnd.oci.image.layer.v1.{media_type}"));
        assert_eq!(manifest["layers"][0]["digest"], digest(blob));
    }
    // Where the name tells no platform the option does; neither the name nor the way counts.
    fs::rename(path("files.tar"), path("other")).unwrap();
    run(&home, &["image", "import", "tar:other", "--platform", "linux/arm64", "--name", "files:1"], 0);
    run(&home, &["image", "export", "files:1", "oci:other-out"], 0);
    assert_eq!(documents(&home, "other-out").0["digest"], documents(&home, "plain").0["digest"]);
    run(&home, &["image", "export", "files:1", "tar:again.tar"], 0);
    assert_eq!(fs::read(path("again.tar")).unwrap(), bytes);
    run(&home, &["image", "diff", "tar:other:linux/arm64", "tar:files.tar.gz", "--platform", "linux/arm64"], 0);
    run(&home, &["image", "import", "tar:other:linux/s390x", "--platform", "linux/arm64", "--name", "files:1"], 2);
}

/// A layer that begins as it did before is hashed from the change on, and has the digest that it would have anyway.
#[test]
fn a_layer_after_a_change_is_the_layer_of_a_new_store() {
    let mut manifest = String::new();
    for (format, _) in FORMATS {
        let name = format.replace(':', "-");
        manifest.push_str(&format!(
            "[image.{name}]\ncompression = \"{format}\"\nlayers = [{{ from = \":files\", to = \"/\" }}]\n"
        ));
    }
    let manifest = crate::steps::workspace(&format!(
        "[command.files]\nSTEP\ninputs = [\"src/**\"]\noutputs = [\"src-copy\"]\nrun = \"cp -r src src-copy\"\n{manifest}"
    ));
    let files: Vec<(String, Vec<u8>)> =
        (0..60).map(|index| (format!("src/{index:02}"), noise(index, 120_000))).collect();
    let digests = |home: &Home| -> Vec<String> {
        let stdout = run(home, &["build"], 0);
        let digests = stdout.split_whitespace().filter(|word| word.starts_with("sha256:"));
        digests.map(str::to_owned).collect()
    };
    let put = |home: &Home, name: &str, bytes: &[u8]| {
        let path = home.workspace().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let Some(home) = Home::with_busybox(&manifest, &[]) else { return };
    files.iter().for_each(|(name, bytes)| put(&home, name, bytes));
    let first = digests(&home);
    assert_eq!(first.len(), FORMATS.len());
    let mut seen = vec![first];
    for (name, bytes) in [("src/40", noise(900, 120_000)), ("src/10x", noise(901, 5_000)), ("src/59", Vec::new())] {
        put(&home, name, &bytes);
        let again = digests(&home);
        assert!(!seen.contains(&again), "{name}");
        seen.push(again.clone());
        let other = Home::with_busybox(&manifest, &[]).expect("it was there before");
        for (name, bytes) in &files {
            put(&other, name, bytes);
        }
        for entry in fs::read_dir(home.workspace().join("src")).unwrap() {
            let entry = entry.unwrap();
            let name = format!("src/{}", entry.file_name().to_str().unwrap());
            put(&other, &name, &fs::read(entry.path()).unwrap());
        }
        assert_eq!(digests(&other), again, "{name}");
    }
}

/// An index over images of two platforms is taken as it is, and converted image by image.
#[test]
fn an_index_comes_in_and_goes_out_whole() {
    let home = Home::new(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\n\
        sha256 = \"6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f\"\n\
        [image.two]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nlayers = [{ from = \":data\", to = \"/\" }]\n",
    );
    run(&home, &["image", "export", ":two", "oci:given"], 0);
    run(&home, &["image", "import", "oci:given", "--all", "--name", "two:1"], 0);
    run(&home, &["image", "export", "two:1", "oci:out"], 0);
    let index = |layout: &str| {
        let bytes = fs::read(home.workspace().join(layout).join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        let entry = index["manifests"][0].clone();
        (document(&home, layout, &entry["digest"]), entry)
    };
    assert_eq!(index("given"), index("out"));
    run(&home, &["image", "convert", "oci:given", "--all", "--compression", "zstd:chunked", "--to", "oci:made"], 0);
    let (given, _) = index("given");
    let (made, _) = index("made");
    for (one, other) in given["manifests"].as_array().unwrap().iter().zip(made["manifests"].as_array().unwrap()) {
        assert_eq!(one["platform"], other["platform"]);
        let (one, other) = (document(&home, "given", &one["digest"]), document(&home, "made", &other["digest"]));
        assert_eq!(one["config"], other["config"]);
        assert!(other["layers"][0]["annotations"].is_object(), "{other}");
    }
    // What is no image, and an index in its place, cannot be taken whole.
    let folder = home.workspace().join("given");
    let put = |value: &Value| {
        let bytes = value.to_string();
        let blob = cas_blob::Descriptor::of(cas_digest::DigestFunction::Sha256, bytes.as_bytes());
        fs::write(folder.join("blobs/sha256").join(blob.digest.to_hex()), bytes).unwrap();
        json!({ "mediaType": value["mediaType"], "digest": blob.digest.to_string(), "size": blob.size })
    };
    let mut attested = given.clone();
    attested["manifests"][1]["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let mut inner = put(&given);
    inner["platform"] = given["manifests"][0]["platform"].clone();
    let mut nested = given.clone();
    nested["manifests"] = json!([inner]);
    for (value, expected) in [(attested, "which is no image"), (nested, "which is an index itself")] {
        let outer = json!({ "schemaVersion": 2, "manifests": [put(&value)] });
        fs::write(folder.join("index.json"), outer.to_string()).unwrap();
        let output = home.cas(&["image", "import", "oci:given", "--all", "--name", "x:1"]);
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
        assert!(!run(&home, &["image", "ls"], 0).contains("x:1"));
    }
}
