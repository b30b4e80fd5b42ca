//! Roots from images of others: from a layout, from archives and from a registry they are the same, pinned, and checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_testing::registry::{FakeRegistry, Fault, Gate};
use serde_json::{Value, json};

use crate::{Home, text};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const STEP: &str = "[command.tell]\ntoolchain = \":root\"\noutputs = [\"told\"]\n\
                    run = \"\"\"tool > told; ls -l /srv >> told; echo $PATH $LANG >> told; env | grep GREETING >> told\"\"\"\n";

fn of(bytes: &[u8]) -> Descriptor {
    Descriptor::of(DigestFunction::Sha256, bytes)
}

/// An image of two layers with a program on a path of its own, as a layout with the tag `v1`.
struct Made {
    /// It was built here.
    home: Home,
    layout: PathBuf,
}

fn made() -> Option<Made> {
    let manifest = "[workspace]\n[command.tool]\ntoolchain = \":sh\"\noutputs = [\"t\"]\n\
        run = \"mkdir t; printf '#!/bin/sh\\\\necho a tool\\\\n' > t/tool; chmod 755 t/tool\"\n\
        [image.base]\nbase = \":sh\"\nlayers = [{ from = \":tool\", path = \"t\", to = \"/srv\" }]\n\
        config = { env = { PATH = \"/srv:/usr/bin:/bin\", GREETING = \"hello\" } }\n";
    let home = Home::with_busybox(manifest, &[])?;
    let built = home.cas(&["build", ":base"]);
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    let layout = home.folder.path().join("layout");
    let exported = home.cas(&["image", "export", "//:base", &format!("oci:{}:v1", layout.display())]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    Some(Made { home, layout })
}

impl Made {
    fn blob(&self, digest: &str) -> Vec<u8> {
        fs::read(self.layout.join("blobs").join(digest.replace(':', "/"))).unwrap()
    }

    /// The manifest that the tag names.
    fn manifest(&self) -> (String, Vec<u8>) {
        let index: Value = serde_json::from_slice(&fs::read(self.layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let bytes = self.blob(&digest);
        (digest, bytes)
    }

    /// What `docker save` would write.
    fn saved(&self) -> PathBuf {
        let manifest: Value = serde_json::from_slice(&self.manifest().1).unwrap();
        let folder = self.home.folder.path().join("saved");
        let name = |value: &Value| value["digest"].as_str().unwrap().replace("sha256:", "");
        let config = format!("{}.json", name(&manifest["config"]));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(&config), self.blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
        let mut layers = Vec::new();
        for layer in manifest["layers"].as_array().unwrap() {
            let path = format!("{}/layer.tar", name(layer));
            fs::create_dir_all(folder.join(name(layer))).unwrap();
            fs::write(folder.join(&path), self.blob(layer["digest"].as_str().unwrap())).unwrap();
            layers.push(path);
        }
        let list = json!([{ "Config": config, "RepoTags": ["acme/base:v1"], "Layers": layers }]);
        fs::write(folder.join("manifest.json"), list.to_string()).unwrap();
        let file = self.home.folder.path().join("saved.tar");
        assert!(Command::new("tar").arg("-cf").arg(&file).arg("-C").arg(&folder).arg(".").status().unwrap().success());
        file
    }

    /// Puts the image into a registry, with an index over it that also has one for another machine.
    fn serve(&self, fake: &FakeRegistry) -> Vec<u8> {
        let (digest, bytes) = self.manifest();
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        fake.put(&format!("acme/base/manifests/{digest}"), MANIFEST, &bytes);
        for part in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
            let digest = part["digest"].as_str().unwrap();
            fake.put(&format!("acme/base/blobs/{digest}"), "application/octet-stream", &self.blob(digest));
        }
        let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let item = |digest: &str, size: usize, architecture: &str| {
            json!({ "mediaType": MANIFEST, "digest": digest, "size": size,
                    "platform": { "os": "linux", "architecture": architecture } })
        };
        let other = of(b"other").digest.to_string();
        let manifests = json!([item(&other, 5, "riscv64"), item(&digest, bytes.len(), own)]);
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into_bytes();
        put(fake, "v1", INDEX, &index);
        index
    }
}

/// Puts a document into a registry, by its digest and a tag.
fn put(fake: &FakeRegistry, tag: &str, media_type: &str, bytes: &[u8]) {
    fake.put(&format!("acme/base/manifests/{tag}"), media_type, bytes);
    fake.put(&format!("acme/base/manifests/{}", of(bytes).digest), media_type, bytes);
}

fn workspace(image: &str) -> Home {
    let home = Home::new("");
    home.write("cas.toml", &format!("[workspace]\n[toolchain.root]\nimage = {image:?}\n{STEP}"));
    home
}

fn forget(home: &Home) {
    let store = home.folder.path().join("store");
    if store.exists() {
        fs::remove_dir_all(store).unwrap();
    }
}

fn built(home: &Home, arguments: &[&str]) -> Output {
    home.cas(&[&["build", ":tell"], arguments].concat())
}

fn told(home: &Home, arguments: &[&str]) -> String {
    let output = built(home, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    home.read("cas-out/tell/told")
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn an_image_gives_the_same_root_wherever_it_comes_from() {
    let Some(made) = made() else { return };
    let fake = FakeRegistry::start(Gate::Anonymous);
    made.serve(&fake);
    let archive = made.home.folder.path().join("archive.tar");
    let exported = made.home.cas(&["image", "export", "//:base", &format!("oci-archive:{}:v1", archive.display())]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    let zipped = made.home.folder.path().join("archive.tar.gz");
    let gzip = Command::new("gzip").arg("-c").arg(&archive).output().unwrap();
    fs::write(&zipped, gzip.stdout).unwrap();
    let own_saved = made.home.folder.path().join("saved by cas.tar");
    let exported =
        made.home.cas(&["image", "export", "//:base", &format!("docker-archive:{}:acme/own:v1", own_saved.display())]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    let folder = made.home.folder.path().join("folder");
    let exported = made.home.cas(&["image", "export", "//:base", &format!("dir:{}", folder.display())]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    let inside = workspace("oci:images/base:v1");
    fs::create_dir_all(inside.workspace().join("images")).unwrap();
    copy(&made.layout, &inside.workspace().join("images/base"));
    let mut results = vec![("a layout in the workspace", told(&inside, &[]))];
    for (what, image) in [
        ("a layout", format!("oci:{}:v1", made.layout.display())),
        ("an archive of it", format!("oci-archive:{}", archive.display())),
        ("a compressed one", format!("oci-archive:{}:v1", zipped.display())),
        ("what docker saves", format!("docker-archive:{}:acme/base:v1", made.saved().display())),
        ("what is saved like that here", format!("docker-archive:{}:acme/own:v1", own_saved.display())),
        ("a folder as skopeo has it", format!("dir:{}", folder.display())),
        ("a registry", format!("{}/acme/base:v1", fake.address())),
        ("a registry, by digest", format!("docker://{}/acme/base@{}", fake.address(), made.manifest().0)),
    ] {
        results.push((what, told(&workspace(&image), &[])));
    }
    let expected = &results[0].1;
    assert!(
        expected.starts_with("a tool\n") && expected.ends_with("/srv:/usr/bin:/bin C.UTF-8\nGREETING=hello\n"),
        "{expected}"
    );
    for (what, result) in &results {
        assert_eq!(result, expected, "{what}");
    }
}

#[test]
fn what_a_tag_named_stays_until_it_is_asked_anew() {
    let Some(made) = made() else { return };
    let fake = FakeRegistry::start(Gate::Open);
    let index = made.serve(&fake);
    let home = workspace(&format!("{}/acme/base:v1", fake.address()));
    assert_eq!(built(&home, &["--locked"]).status.code(), Some(2), "there is no pin");
    let first = told(&home, &[]);
    let lock = home.read("cas.lock");
    let digest = of(&index).digest;
    assert!(lock.contains(&format!("request = \"{}/acme/base:v1\"\ndigest = \"{digest}\"", fake.address())), "{lock}");
    let count = fake.requests().len();
    assert_eq!((told(&home, &[]), fake.requests().len()), (first.clone(), count), "nothing is asked again");
    // The tag is moved: the pin counts, here and elsewhere.
    let moved = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }).to_string();
    put(&fake, "v1", INDEX, moved.as_bytes());
    forget(&home);
    let offline = built(&home, &["--offline"]);
    assert_eq!(offline.status.code(), Some(4), "{}", text(&offline.stderr));
    assert!(text(&offline.stderr).contains("the network may not be used"), "{}", text(&offline.stderr));
    assert_eq!(told(&home, &["--locked"]), first);
    let update = home.cas(&["lock", "--update"]);
    let stderr = text(&update.stderr);
    assert!(update.status.code() == Some(2) && stderr.contains("has no image for linux/"), "{stderr}");
    assert_eq!(home.read("cas.lock"), lock);
    let (own, manifest) = made.manifest();
    put(&fake, "v1", MANIFEST, &manifest);
    let update = home.cas(&["lock", "--update"]);
    assert_eq!(update.status.code(), Some(0), "{}", text(&update.stderr));
    assert!(home.read("cas.lock").contains(&own));
    assert_eq!(told(&home, &["--locked"]), first);
    // The root is looked at with the eyes of `why` and `affected` too.
    let why = home.cas(&["why", ":tell"]);
    assert_eq!(why.status.code(), Some(0), "{}", text(&why.stderr));
}

#[test]
fn what_does_not_fit_its_name_is_refused_and_nothing_of_it_is_kept() {
    let Some(made) = made() else { return };
    let fake = FakeRegistry::start(Gate::Open);
    made.serve(&fake);
    let home = workspace(&format!("{}/acme/base:v1", fake.address()));
    for (what, fault, code, expected) in [
        ("another layer", Fault::Body(b"other".to_vec()), 3, "is not what is pinned"),
        ("no layer", Fault::Status(404, Vec::new()), 4, "does not exist in"),
        ("no rights", Fault::Status(403, Vec::new()), 4, "does not let us have"),
    ] {
        fake.fail("/blobs/", fault, 1);
        let output = built(&home, &[]);
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(expected), "{what}: {stderr}");
        assert!(stderr.contains("hint: "), "{what}: {stderr}");
    }
    told(&home, &[]);
    // Documents that fit their names, and not each other.
    let (_, manifest) = made.manifest();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config: Value = serde_json::from_slice(&made.blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
    let serve = |change: &dyn Fn(&mut Value, &mut Value)| {
        let (mut manifest, mut config) = (manifest.clone(), config.clone());
        change(&mut manifest, &mut config);
        let bytes = config.to_string().into_bytes();
        fake.put(&format!("acme/base/blobs/{}", of(&bytes).digest), "", &bytes);
        manifest["config"]["digest"] = json!(of(&bytes).digest.to_string());
        manifest["config"]["size"] = json!(bytes.len());
        put(&fake, "v2", MANIFEST, manifest.to_string().as_bytes());
    };
    let other = of(b"other").digest.to_string();
    let layers = manifest["layers"].as_array().unwrap().len();
    let counts = format!("its manifest has {layers} layers, its configuration {}", layers - 1);
    type Change<'a> = &'a dyn Fn(&mut Value, &mut Value);
    let cases: [(&str, Change, i32, &str); 5] = [
        (
            "another diffID",
            &|_, config| config["rootfs"]["diff_ids"][1] = json!(other),
            3,
            "its uncompressed bytes are",
        ),
        ("a layer less", &|_, config| drop(config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()), 3, &counts),
        ("another machine", &|_, config| config["architecture"] = json!("mips"), 2, "it is for linux/mips"),
        ("no configuration", &|_, config| *config = json!([]), 3, "it is no configuration of an image"),
        (
            "a long document",
            &|manifest, _| manifest["x"] = json!("x".repeat(5 << 20)),
            3,
            "gave more than 4194304 bytes",
        ),
    ];
    for (what, change, code, expected) in cases {
        serve(change);
        let home = workspace(&format!("{}/acme/base:v2", fake.address()));
        let output = built(&home, &[]);
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(expected), "{what}: {stderr}");
        assert!(!home.workspace().join("cas-out/tell").exists(), "{what}");
        assert!(!home.workspace().join("cas.lock").exists(), "{what} is not pinned");
    }
}

/// A header of a tar without content.
fn header(name: &str, flag: u8) -> Vec<u8> {
    let mut block = [0; 512];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, name.as_bytes());
    set(100, b"0000666\0");
    set(124, b"00000000000\0");
    set(148, b"        ");
    set(156, &[flag]);
    set(257, b"ustar\x0000");
    set(329, b"0000001\0");
    set(337, b"0000003\0");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

#[test]
fn devices_are_left_to_the_sandbox_where_it_has_its_own() {
    let Some(made) = made() else { return };
    let fake = FakeRegistry::start(Gate::Open);
    made.serve(&fake);
    let (_, manifest) = made.manifest();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let config = made.blob(manifest["config"]["digest"].as_str().unwrap());
    let config: Value = serde_json::from_slice(&config).unwrap();
    for (name, flag, expected) in [
        ("dev/null", b'3', None),
        ("dev/initctl", b'6', None),
        ("var/null", b'3', Some("`var/null` is a device, which steps cannot be given")),
        ("var/pipe", b'6', Some("`var/pipe` is a fifo, which steps cannot be given")),
    ] {
        let layer = [header(name, flag), vec![0; 1024]].concat();
        let (mut manifest, mut config) = (manifest.clone(), config.clone());
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(of(&layer).digest.to_string()));
        let config = config.to_string().into_bytes();
        let descriptor = |bytes: &[u8]| json!({ "digest": of(bytes).digest.to_string(), "size": bytes.len() });
        manifest["config"] = descriptor(&config);
        manifest["layers"].as_array_mut().unwrap().push(descriptor(&layer));
        for bytes in [&layer, &config] {
            fake.put(&format!("acme/base/blobs/{}", of(bytes).digest), "", bytes);
        }
        put(&fake, "v3", MANIFEST, manifest.to_string().as_bytes());
        let home = workspace(&format!("{}/acme/base:v3", fake.address()));
        // As a whole it is run where a step has it as its root; else the image and the path are named.
        let source = format!("docker://{}/acme/base:v3", fake.address());
        let imported = home.cas(&["image", "import", &source, "--name", "acme/base:v3"]);
        assert_eq!(imported.status.code(), Some(0), "{name}: {}", text(&imported.stderr));
        let ran = home.cas(&["run", "acme/base:v3", "--", "/bin/sh", "-c", "exit 7"]);
        let stderr = text(&ran.stderr);
        match expected {
            None => assert_eq!(ran.status.code(), Some(7), "{name}: {stderr}"),
            Some(_) => {
                let expected = format!("`acme/base:v3` cannot be run here: `/{name}` in it is a ");
                let is_told = stderr.contains(&expected) && stderr.contains("hint: build the image without it");
                assert!(ran.status.code() == Some(2) && is_told, "{name}: {stderr}");
            }
        }
        let output = built(&home, &[]);
        let stderr = text(&output.stderr);
        match expected {
            None => assert_eq!(output.status.code(), Some(0), "{name}: {stderr}"),
            Some(expected) => assert!(output.status.code() == Some(2) && stderr.contains(expected), "{name}: {stderr}"),
        }
    }
}

/// What a root file system is called in the lock is made of its bytes, so it can be read again, and another one is not taken for it.
#[test]
fn a_root_file_system_is_pinned_by_its_bytes() {
    let Some(made) = made() else { return };
    let file = made.home.folder.path().join("root.tar");
    let exported = made.home.cas(&["image", "export", "//:base", &format!("tar:{}", file.display())]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    let home = Home::new("");
    let manifest = format!(
        "[workspace]\n[toolchain.root]\nimage = \"tar:{}\"\n\
         [command.tell]\ntoolchain = \":root\"\noutputs = [\"told\"]\nrun = \"/srv/tool > told\"\n",
        file.display()
    );
    home.write("cas.toml", &manifest);
    let step = |home: &Home| {
        let output = built(home, &[]);
        (output.status.code(), text(&output.stderr))
    };
    let (code, stderr) = step(&home);
    assert_eq!(code, Some(0), "{stderr}");
    let lock = fs::read(home.workspace().join("cas.lock")).unwrap();
    forget(&home);
    let (code, stderr) = step(&home);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(fs::read(home.workspace().join("cas.lock")).unwrap(), lock);
    forget(&home);
    fs::write(&file, [0; 1024]).unwrap();
    let (code, stderr) = step(&home);
    assert!(code == Some(4) && stderr.contains("root.tar` no longer has `sha256:"), "{stderr}");
}

#[test]
fn places_without_the_image_say_what_they_have() {
    let Some(made) = made() else { return };
    let layout = made.layout.display();
    let saved = made.saved();
    let not_there = made.home.folder.path().join("not-there");
    let garbage = made.home.folder.path().join("garbage.tar");
    fs::write(&garbage, [7; 3000]).unwrap();
    for (image, code, expected) in [
        (format!("oci:{layout}:v2"), 2, "has no image `v2`\nhint: it has \"v1\""),
        (
            format!("docker-archive:{}:acme/base:v2", saved.display()),
            2,
            "has no image `acme/base:v2`\nhint: it has \"acme/base:v1\"",
        ),
        (format!("oci:{}", not_there.display()), 2, "not-there/index.json"),
        (format!("oci-archive:{}", not_there.display()), 2, "not-there"),
        (
            format!("oci-archive:{}", garbage.display()),
            3,
            "garbage.tar` cannot be used\n  cause: could not read the archive",
        ),
        (format!("oci-archive:{}", saved.display()), 3, "it has no `index.json`"),
        ("node:18".to_owned(), 2, "write `docker.io/library/node:18`"),
        ("quay.io/acme/web".to_owned(), 2, "has neither a tag nor a digest"),
    ] {
        let output = built(&workspace(&image), &[]);
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(expected), "{image}: {code} {stderr}");
    }
    // A blob of the layout is gone after it was pinned.
    let home = workspace(&format!("oci:{layout}:v1"));
    told(&home, &[]);
    forget(&home);
    let (digest, _) = made.manifest();
    fs::remove_file(made.layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
    let output = built(&home, &[]);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(4) && stderr.contains(&format!("no longer has `{digest}`")), "{stderr}");
}

#[test]
fn an_image_on_one_of_others_has_its_layers_byte_for_byte() {
    let Some(made) = made() else { return };
    let fake = FakeRegistry::start(Gate::Open);
    made.serve(&fake);
    let home = workspace("");
    let own = "[command.own]\ntoolchain = \":root\"\noutputs = [\"o\"]\nrun = \"tool > o\"\n\
               [image.web]\nbase = \":root\"\nlayers = [{ from = \":own\", to = \"/srv\" }]\n\
               config = { cmd = [\"/usr/bin/cat\", \"/srv/o\"] }\n[image.more]\nbase = \":web\"\n";
    let image = format!("{}/acme/base:v1", fake.address());
    home.write("cas.toml", &format!("[workspace]\n[toolchain.root]\nimage = {image:?}\n{own}"));
    let output = home.cas(&["build", ":web", ":more"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let layers = |folder: &Path| -> Vec<String> {
        let read = |path: &str| serde_json::from_slice::<Value>(&fs::read(folder.join(path)).unwrap()).unwrap();
        let index = read("index.json");
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let manifest = read(&format!("blobs/{digest}"));
        let layers = manifest["layers"].as_array().unwrap();
        for layer in layers {
            let path = folder.join("blobs").join(layer["digest"].as_str().unwrap().replace(':', "/"));
            assert_eq!(fs::metadata(path).unwrap().len(), layer["size"].as_u64().unwrap());
        }
        layers.iter().map(|layer| format!("{} {}", layer["mediaType"], layer["digest"])).collect()
    };
    let base = layers(&made.layout);
    for name in ["web", "more"] {
        let all = layers(&home.workspace().join("cas-out").join(name));
        assert_eq!((all.len(), &all[..base.len()]), (base.len() + 1, &base[..]), "{name}");
    }
    let ran = home.cas(&["run", ":web"]);
    assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(0), "a tool\n"), "{}", text(&ran.stderr));
    // A clear of the store leaves what the image needs.
    assert_eq!(home.cas(&["store", "gc"]).status.code(), Some(0));
    assert_eq!(home.cas(&["image", "export", "//:more", "oci:again:v1"]).status.code(), Some(0));
    assert_eq!(layers(&home.workspace().join("again")).len(), base.len() + 1);
    // Uncompressed, the layers of others are what their configuration says.
    assert_eq!(home.cas(&["image", "export", "//:more", "docker-archive:more.tar"]).status.code(), Some(0));
    let read = |path: &str| {
        let output =
            Command::new("tar").args(["xOf", "more.tar", path]).current_dir(home.workspace()).output().unwrap();
        output.stdout
    };
    let list: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
    let config: Value = serde_json::from_slice(&read(list[0]["Config"].as_str().unwrap())).unwrap();
    let expected = config["rootfs"]["diff_ids"].as_array().unwrap();
    let saved = list[0]["Layers"].as_array().unwrap();
    assert_eq!((saved.len(), &list[0]["RepoTags"]), (base.len() + 1, &json!([])));
    for (layer, expected) in saved.iter().zip(expected) {
        assert_eq!(of(&read(layer.as_str().unwrap())).digest.to_string(), expected.as_str().unwrap());
    }
}

#[test]
fn an_image_of_the_workspace_is_a_root_too() {
    let manifest = |content: &str| {
        format!(
            "[workspace]\n[command.tool]\ntoolchain = \":sh\"\noutputs = [\"t\"]\nrun = \"mkdir t; echo {content} > t/word\"\n\
             [image.base]\nbase = \":sh\"\nlayers = [{{ from = \":tool\", path = \"t\", to = \"/srv\" }}]\nconfig = {{ env = {{ GREETING = \"hello\" }} }}\n\
             [toolchain.root]\nimage = \":base\"\nadd = [{{ link = \"/srv/link\", target = \"word\" }}]\n\
             [command.tell]\ntoolchain = \":root\"\noutputs = [\"told\"]\nrun = \"cat /srv/link > told; echo $GREETING >> told\"\n"
        )
    };
    let Some(home) = Home::with_busybox(&manifest("one"), &[]) else { return };
    let section = home.read("cas.toml");
    let section = &section[section.find("[toolchain.sh]").unwrap()..];
    assert_eq!(told(&home, &[]), "one\nhello\n");
    let again = built(&home, &[]);
    assert!(text(&again.stderr).contains("0 steps ran"), "{}", text(&again.stderr));
    home.write("cas.toml", &format!("{}\n{section}", manifest("two")));
    assert_eq!(told(&home, &[]), "two\nhello\n");
    let why = home.cas(&["why", ":tell"]);
    assert!(text(&why.stdout).contains("toolchain //:root"), "{}", text(&why.stdout));
    // It is no image.
    home.write(
        "cas.toml",
        &format!("{}\n{section}", manifest("two").replace("image = \":base\"", "image = \":tool\"")),
    );
    let output = built(&home, &[]);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("cannot be the image of a toolchain"), "{stderr}");
}
