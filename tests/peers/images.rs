//! skopeo and umoci read our images.

use crate::{Home, has, missing, run};

const MANIFEST: &str = "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f\"\n\
    [image.gzip]\nlayers = [{ from = \":data\", to = \"/srv/a b\" }, { from = \":data\", to = \"/\" }]\nconfig = { cmd = [\"/x\"], user = \"1000\" }\n\
    [image.zstd]\nbase = \":gzip\"\ncompression = \"zstd\"\nlayers = [{ from = \":data\", to = \"/top\" }]\n\
    [image.none]\ncompression = \"none\"\nlayers = [{ from = \":data\", to = \"/srv/a b\" }, { from = \":data\", to = \"/\" }]\n\
    [image.docker]\nformat = \"docker\"\nlayers = [{ from = \":data\", to = \"/\", owner = \"5:6\" }]\n\
    config = { healthcheck = { test = \"true\", interval = \"30s\" }, stop_signal = \"SIGINT\" }\n\
    [image.several]\nplatforms = [\"linux/amd64\", \"linux/arm64\", \"linux/arm/v7\"]\nannotations = { a = \"b\" }\n\
    layers = [{ from = \":data\", to = \"/\" }]\n";

fn built() -> Home {
    let home = Home::new("");
    std::fs::write(home.path("data.txt"), "data\n").unwrap();
    let manifest = MANIFEST.replace("DATA", &format!("file://{}", home.path("data.txt").display()));
    std::fs::write(home.workspace().join("cas.toml"), manifest).unwrap();
    run(&mut home.cas(&["build"]));
    home
}

#[test]
fn skopeo_inspects_and_copies_them() {
    if !has("skopeo") {
        return missing("skopeo");
    }
    let home = built();
    for name in ["gzip", "zstd", "none"] {
        let source = format!("oci:{}/cas-out/{name}:{name}", home.workspace().display());
        let output = run(std::process::Command::new("skopeo").args(["inspect", &source]));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["Os"], "linux");
        let copy = format!("dir:{}", home.path(name).display());
        run(std::process::Command::new("skopeo").args([
            "--insecure-policy",
            "copy",
            "--preserve-digests",
            &source,
            &copy,
        ]));
        run(&mut home.cas(&["image", "diff", &format!("//:{name}"), &copy]));
    }
}

/// What is written for others is read by them, with the bytes that were meant.
#[test]
fn skopeo_and_tar_read_what_is_exported() {
    if !has("skopeo") {
        return missing("skopeo");
    }
    let home = built();
    for name in ["gzip", "zstd", "none"] {
        let inspect = |place: String| {
            let output = run(std::process::Command::new("skopeo").args(["inspect", "--config", &place]));
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
        };
        let own = inspect(format!("oci:{}/cas-out/{name}:{name}", home.workspace().display()));
        let (saved, folder) = (home.path(&format!("{name}.tar")), home.path(&format!("{name}-dir")));
        for place in [format!("docker-archive:{}:acme/x:v1", saved.display()), format!("dir:{}", folder.display())] {
            run(&mut home.cas(&["image", "export", &format!(":{name}"), &place]));
            assert_eq!(inspect(place.clone())["rootfs"], own["rootfs"], "{place}");
            let copy = format!("oci:{}:x", home.path(&format!("{name}-copy")).display());
            run(std::process::Command::new("skopeo").args(["--insecure-policy", "copy", &place, &copy]));
        }
        let files = home.path(&format!("{name}-files.tar"));
        run(&mut home.cas(&["image", "export", &format!(":{name}"), &format!("tar:{}", files.display())]));
        let listed = run(std::process::Command::new("tar").arg("tf").arg(&files));
        let expected = match name {
            "zstd" => "data.txt\nsrv/\nsrv/a b/\nsrv/a b/data.txt\ntop/\ntop/data.txt\n",
            _ => "data.txt\nsrv/\nsrv/a b/\nsrv/a b/data.txt\n",
        };
        assert_eq!(String::from_utf8_lossy(&listed.stdout), expected);
    }
}

/// Docker's documents stay what they are, with the check that OCI's have no meaning for.
#[test]
fn skopeo_takes_documents_of_docker_for_what_they_are() {
    if !has("skopeo") {
        return missing("skopeo");
    }
    let home = built();
    // Old versions do not look for tags of these in a layout.
    run(std::process::Command::new("skopeo")
        .args(["inspect", &format!("oci:{}/cas-out/docker", home.workspace().display())]));
    let source = format!("dir:{}", home.path("docker-own").display());
    run(&mut home.cas(&["image", "export", ":docker", &source]));
    let copy = home.path("docker-dir");
    let to = format!("dir:{}", copy.display());
    run(std::process::Command::new("skopeo").args(["--insecure-policy", "copy", "--preserve-digests", &source, &to]));
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(copy.join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    let output = run(std::process::Command::new("skopeo").args(["inspect", "--config", "--raw", &to]));
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["config"]["Healthcheck"]["Interval"], 30_000_000_000_u64);
}

/// An index is read for each of its platforms, and copied whole.
#[test]
fn skopeo_finds_every_platform_of_an_image() {
    if !has("skopeo") {
        return missing("skopeo");
    }
    let home = built();
    let archive = format!("oci-archive:{}:v1", home.path("several.tar").display());
    run(&mut home.cas(&["image", "export", ":several", &archive]));
    for place in [format!("oci:{}/cas-out/several:several", home.workspace().display()), archive] {
        for (arch, variant) in [("amd64", ""), ("arm64", ""), ("arm", "v7")] {
            let arguments = ["--override-arch", arch, "--override-variant", variant, "inspect", "--config", &place];
            let output = run(std::process::Command::new("skopeo").args(arguments));
            let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(
                (&config["architecture"], config["variant"].as_str().unwrap_or_default()),
                (&arch.into(), variant)
            );
        }
        let copy = format!("dir:{}", home.path("several-dir").display());
        run(std::process::Command::new("skopeo").args([
            "--insecure-policy",
            "copy",
            "--all",
            "--preserve-digests",
            &place,
            &copy,
        ]));
        run(&mut home.cas(&["image", "import", &copy, "--all", "--name", "several:1"]));
    }
}

#[test]
fn umoci_unpacks_them() {
    if !has("umoci") {
        return missing("umoci");
    }
    let home = built();
    // It knows no zstd.
    for name in ["gzip", "none"] {
        let source = format!("{}/cas-out/{name}:{name}", home.workspace().display());
        let bundle = home.path(&format!("bundle-{name}"));
        run(std::process::Command::new("umoci").args(["unpack", "--rootless", "--image", &source]).arg(&bundle));
        for path in ["srv/a b/data.txt", "data.txt"] {
            assert_eq!(std::fs::read_to_string(bundle.join("rootfs").join(path)).unwrap(), "data\n");
        }
    }
}

/// What podman keeps is a place of images, in both directions. Its storage is one of its own here.
#[test]
fn podman_keeps_images_and_gives_them_back() {
    let is_root = run(std::process::Command::new("id").arg("-u")).stdout == b"0\n";
    if !is_root {
        eprintln!("SKIPPED: podman's storage needs root");
        return;
    }
    if !has("podman") {
        return missing("podman");
    }
    let home = built();
    // The path of its run root may have 50 characters.
    let run_root = tempfile::Builder::new().prefix("cas").tempdir_in("/tmp").unwrap();
    let settings = home.path("storage.conf");
    let root = home.path("podman").display().to_string();
    let text =
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}\"\nrunroot = \"{}\"\n", run_root.path().display());
    std::fs::write(&settings, text).unwrap();
    let cas = |arguments: &[&str]| {
        let mut command = home.cas(arguments);
        command.env("CONTAINERS_STORAGE_CONF", &settings);
        command
    };
    for name in ["gzip", "zstd", "none"] {
        let place = format!("containers-storage:acme/{name}:v1");
        run(&mut cas(&["image", "export", &format!(":{name}"), &place]));
        let mut podman = std::process::Command::new("podman");
        podman.env("CONTAINERS_STORAGE_CONF", &settings).args(["image", "inspect", &format!("acme/{name}:v1")]);
        let told: serde_json::Value = serde_json::from_slice(&run(&mut podman).stdout).unwrap();
        let layers = if name == "zstd" { 3 } else { 2 };
        assert_eq!(told[0]["RootFS"]["Layers"].as_array().unwrap().len(), layers, "{name}");
        run(&mut cas(&["image", "import", &place, "--name", "back:1"]));
        run(&mut cas(&["image", "diff", &format!("//:{name}"), &place]));
        run(&mut cas(&["image", "convert", &place, "--compression", "zstd:chunked", "--to", "oci:back"]));
    }
    let output = cas(&["image", "import", "containers-storage:acme/none-such:v1"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("`podman` failed"), "{output:?}");
    let output = cas(&["image", "import", "containers-storage:acme"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = cas(&["image", "import", "docker-daemon:acme/x:v1"]).env("PATH", "/nowhere").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("install docker, or go by an archive"), "{output:?}");
}
