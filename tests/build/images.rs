//! What images say: what they take over from the one below, whose their files are, and in which documents it stands.

use std::fs;
use std::path::Path;
use std::process::Command;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use serde_json::{Value, json};

use crate::{Home, text};

/// Users of an image, with a file for each as a target.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:,,,:/home/app:/bin/sh\n";
const GROUP: &str = "root:x:0:\napp:x:1001:\nweb:x:33:app\n";

/// A workspace whose targets `data`, `passwd` and `group` are files beside it.
fn home(images: &str) -> Home {
    let home = Home::new("");
    let mut manifest = "[workspace]\n".to_owned();
    for (name, content) in [("data", "data\n"), ("passwd", PASSWD), ("group", GROUP)] {
        let path = home.folder.path().join("files").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let sha256 = Descriptor::of(DigestFunction::Sha256, content.as_bytes()).digest.to_hex();
        manifest.push_str(&format!("[fetch.{name}]\nurl = \"file://{}\"\nsha256 = \"{sha256}\"\n", path.display()));
    }
    home.write("cas.toml", &format!("{manifest}{images}"));
    home
}

fn inspect(home: &Home, image: &str) -> Value {
    let output = home.cas(&["image", "inspect", image]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Puts a document into a layout, and gives what names it.
fn put(layout: &Path, media_type: &str, document: &Value) -> Value {
    let bytes = document.to_string().into_bytes();
    let digest = Descriptor::of(DigestFunction::Sha256, &bytes).digest;
    fs::write(layout.join("blobs/sha256").join(digest.to_hex()), &bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
}

/// Writes an image into the layout `layout` beside the workspace, and gives it another configuration there.
fn others(home: &Home, image: &str, change: impl Fn(&mut Value)) {
    let exported = home.cas(&["image", "export", image, "oci:../layout:v1"]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    let layout = home.folder.path().join("layout");
    let blob = |value: &Value| layout.join("blobs").join(value["digest"].as_str().unwrap().replace(':', "/"));
    let mut index = read(&layout.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]));
    let mut config = read(&blob(&manifest["config"]));
    change(&mut config);
    manifest["config"] = put(&layout, "application/vnd.oci.image.config.v1+json", &config);
    let mut entry = put(&layout, "application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    index["manifests"][0] = entry;
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn what_the_image_below_says_is_taken_over() {
    let home = home(
        "[image.base]\nlayers = [{ from = \":data\", to = \"/srv\" }, { from = \":passwd\", to = \"/etc\" }]\n\
         [image.web]\nbase = \":root\"\nlayers = [{ from = \":data\", to = \"/web\" }]\n\
         config = { cmd = [\"own\"], env = { A = \"own\" }, labels = { b = \"own\" }, expose = [\"443\"] }\n\
         [image.more]\nbase = \":web\"\nconfig = { entrypoint = [\"/more\"], user = \"7\" }\n\
         [image.added]\nbase = \":with\"\n\
         [toolchain.root]\nimage = \"oci:../layout:v1\"\n\
         [toolchain.with]\nimage = \"oci:../layout:v1\"\nadd = [{ link = \"/x\", target = \"srv\" }]\n",
    );
    others(&home, "//:base", |config| {
        config["config"] = json!({
            "User": "app", "ExposedPorts": { "80/tcp": {} }, "Env": ["PATH=/srv", "A=below"], "Entrypoint": ["/init"],
            "Cmd": ["below"], "Volumes": { "/data": {} }, "WorkingDir": "/srv", "Labels": { "a": "below", "b": "below" },
            "StopSignal": "SIGINT", "Healthcheck": { "Test": ["CMD", "true"], "Interval": 1_000_000_000_u64 },
            "OnBuild": ["RUN x"],
        });
        config["history"] = json!([
            { "created": "2020-01-01T00:00:00Z", "created_by": "ADD data" },
            { "created": "2020-01-01T00:00:00Z", "created_by": "ENV A=below", "empty_layer": true },
            { "created_by": "ADD passwd", "author": "me" },
        ]);
    });
    let below = inspect(&home, "//:base");
    let web = inspect(&home, "//:web");
    assert_eq!(
        web["config"]["config"],
        json!({
            "User": "app", "ExposedPorts": { "443/tcp": {}, "80/tcp": {} }, "Env": ["A=own", "PATH=/srv"],
            "Entrypoint": ["/init"], "Cmd": ["own"], "Volumes": { "/data": {} }, "WorkingDir": "/srv",
            "Labels": { "a": "below", "b": "own" }, "StopSignal": "SIGINT",
            "Healthcheck": { "Test": ["CMD", "true"], "Interval": 1_000_000_000_u64 },
        })
    );
    let layers = |image: &Value| image["manifest"]["layers"].as_array().unwrap().clone();
    assert_eq!(layers(&web)[..2], layers(&below)[..], "byte for byte");
    let history = web["config"]["history"].as_array().unwrap();
    let by: Vec<&str> = history.iter().map(|entry| entry["created_by"].as_str().unwrap()).collect();
    assert_eq!(by, ["ADD data", "ENV A=below", "ADD passwd", "cas //:data"]);
    assert_eq!((&history[0]["created"], &history[1]["empty_layer"]), (&json!("2020-01-01T00:00:00Z"), &json!(true)));
    assert_eq!((history[2].get("created"), &history[2]["author"]), (None, &json!("me")));
    // An image of the workspace is one of these too; another program has other arguments.
    let more = inspect(&home, "//:more");
    let config = &more["config"]["config"];
    assert_eq!((&config["Entrypoint"], config.get("Cmd"), &config["User"]), (&json!(["/more"]), None, &json!("7")));
    assert_eq!((&config["WorkingDir"], &config["Env"]), (&json!("/srv"), &json!(["A=own", "PATH=/srv"])));
    assert_eq!(more["config"]["history"], web["config"]["history"]);
    // With something added it is one layer.
    let added = inspect(&home, "//:added");
    assert_eq!((layers(&added).len(), added["config"]["history"].as_array().unwrap().len()), (1, 1));
    assert_eq!(added["config"]["config"]["Entrypoint"], json!(["/init"]));
    let exported = home.cas(&["image", "export", "//:added", "tar:../added.tar"]);
    assert_eq!(exported.status.code(), Some(0), "{}", text(&exported.stderr));
    // Another program below is another image above, though no file changed.
    others(&home, "//:base", |config| config["config"] = json!({ "Cmd": ["other"] }));
    assert_eq!(home.cas(&["lock", "--update"]).status.code(), Some(0));
    assert_eq!(inspect(&home, "//:added")["config"]["config"], json!({ "Cmd": ["other"] }));
}

/// Lines of `tar` about a layer of a layout.
fn listed(home: &Home, image: &str, layer_index: usize) -> Vec<String> {
    assert_eq!(home.cas(&["image", "export", image, "dir:../listed"]).status.code(), Some(0));
    let folder = home.folder.path().join("listed");
    let manifest = read(&folder.join("manifest.json"));
    let digest = manifest["layers"][layer_index]["digest"].as_str().unwrap().replace("sha256:", "");
    let output = Command::new("tar").args(["tvzf", &digest, "--numeric-owner"]).current_dir(folder).output().unwrap();
    let words = |line: &str| {
        line.split_whitespace()
            .enumerate()
            .filter(|(at, _)| [0, 1, 5].contains(at))
            .map(|(_, word)| word.to_owned())
            .collect::<Vec<_>>()
    };
    text(&output.stdout).lines().map(|line| words(line).join(" ")).collect()
}

#[test]
fn layers_have_the_rights_and_owners_that_they_are_given() {
    let accounts = "{ from = \":passwd\", to = \"/etc\", mode = \"0600\", owner = \"app:web\" }";
    let home = home(&format!(
        "[image.base]\nlayers = [{{ from = \":group\", to = \"/etc\" }}]\n\
         [image.web]\nbase = \":base\"\nlayers = [{accounts}, {{ from = \":data\", to = \"/srv/app\", mode = \"4755\", dir_mode = \"0700\", owner = \"app\" }}]\n\
         config = {{ user = \"app:web\" }}\n\
         [image.numbers]\nlayers = [{{ from = \":data\", to = \"/\", owner = \"5:6\" }}, {{ from = \":data\", to = \"/x\", owner = \"7\" }}]\nconfig = {{ user = \"1234:5\" }}\n"
    ));
    // Its own file knows the user, the one below the group.
    assert_eq!(listed(&home, "//:web", 1), ["drwxr-xr-x 0/0 etc/", "-rw------- 1000/33 etc/passwd"]);
    // A file is put into folders that are not its own.
    assert_eq!(
        listed(&home, "//:web", 2),
        ["drwxr-xr-x 0/0 srv/", "drwxr-xr-x 0/0 srv/app/", "-rwsr-xr-x 1000/1001 srv/app/data"]
    );
    assert_eq!(listed(&home, "//:numbers", 0), ["-rw-r--r-- 5/6 data"]);
    assert_eq!(listed(&home, "//:numbers", 1), ["drwxr-xr-x 0/0 x/", "-rw-r--r-- 7/7 x/data"]);
    let plain = inspect(&home, "//:web")["manifest"]["layers"][0].clone();
    assert_eq!(plain, inspect(&home, "//:base")["manifest"]["layers"][0]);
}

#[test]
fn documents_of_docker_have_its_media_types_wherever_they_are_written() {
    let home = home(
        "[image.web]\nformat = \"docker\"\nlayers = [{ from = \":data\", to = \"/\" }]\n\
         config = { healthcheck = { test = [\"CMD\", \"/x\"], interval = \"30s\" }, volumes = [\"/v\"], stop_signal = \"SIGINT\" }\n\
         [image.small]\nformat = \"docker\"\nbase = \":web\"\ncompression = \"none\"\nlayers = [{ from = \":data\", to = \"/a\" }]\n\
         [image.zstd]\ncompression = \"zstd\"\nlayers = [{ from = \":data\", to = \"/\" }]\n\
         [image.over]\nbase = \":zstd\"\nformat = \"docker\"\n\
         [image.titled]\nannotations = { \"org.opencontainers.image.title\" = \"web\", a = \"\" }\n",
    );
    const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    const PLAIN: &str = "application/vnd.docker.image.rootfs.diff.tar";
    let small = inspect(&home, "//:small");
    let types: Vec<&str> = small["manifest"]["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap())
        .collect();
    assert_eq!((small["manifest"]["mediaType"].as_str(), types), (Some(MANIFEST), vec![GZIP, PLAIN]));
    assert_eq!(small["manifest"]["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(
        small["config"]["config"],
        json!({ "Volumes": { "/v": {} }, "StopSignal": "SIGINT", "Healthcheck": { "Test": ["CMD", "/x"], "Interval": 30_000_000_000_u64 } })
    );
    // A layout may hold both; what is there stays what it is.
    for (image, tag) in [("//:small", "docker"), ("//:titled", "oci"), ("//:web", "again")] {
        assert_eq!(home.cas(&["image", "export", image, &format!("oci:both:{tag}")]).status.code(), Some(0));
    }
    let index = read(&home.workspace().join("both/index.json"));
    let types: Vec<&str> =
        index["manifests"].as_array().unwrap().iter().map(|entry| entry["mediaType"].as_str().unwrap()).collect();
    assert_eq!(types, [MANIFEST, "application/vnd.oci.image.manifest.v1+json", MANIFEST]);
    for destination in ["dir:d", "docker-archive:d.tar:acme/web:v1", "oci-archive:o.tar:v1"] {
        let output = home.cas(&["image", "export", "//:small", destination]);
        assert_eq!(output.status.code(), Some(0), "{destination}: {}", text(&output.stderr));
    }
    assert_eq!(read(&home.workspace().join("d/manifest.json"))["mediaType"], MANIFEST);
    let titled = inspect(&home, "//:titled");
    assert_eq!(titled["manifest"]["annotations"], json!({ "a": "", "org.opencontainers.image.title": "web" }));
    assert_eq!(titled["config"]["config"], json!({}));
    let output = home.cas(&["build", ":over"]);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("a manifest of Docker cannot tell"), "{stderr}");
    assert!(stderr.contains("hint: write `format = \"oci\"`"), "{stderr}");
}

/// Puts the image into the layout beside the workspace behind an index, with one for riscv64 beside it.
fn several(home: &Home, image: &str) {
    others(home, image, |config| config["config"] = json!({ "Cmd": ["here"] }));
    let layout = home.folder.path().join("layout");
    let mut index = read(&layout.join("index.json"));
    let here = index["manifests"][0].clone();
    let blob = |value: &Value| layout.join("blobs").join(value["digest"].as_str().unwrap().replace(':', "/"));
    let mut manifest = read(&blob(&here));
    let mut config = read(&blob(&manifest["config"]));
    let own = config["architecture"].clone();
    config["architecture"] = json!("riscv64");
    config["config"] = json!({ "Cmd": ["there"] });
    // It has the first layer alone.
    config["rootfs"]["diff_ids"].as_array_mut().unwrap().truncate(1);
    manifest["layers"].as_array_mut().unwrap().truncate(1);
    manifest["config"] = put(&layout, "application/vnd.oci.image.config.v1+json", &config);
    let mut there = put(&layout, "application/vnd.oci.image.manifest.v1+json", &manifest);
    there["platform"] = json!({ "os": "linux", "architecture": "riscv64" });
    let here = json!({ "mediaType": here["mediaType"], "digest": here["digest"], "size": here["size"],
                       "platform": { "os": "linux", "architecture": own } });
    let list = json!({ "schemaVersion": 2, "manifests": [there, here] });
    let mut entry = put(&layout, "application/vnd.oci.image.index.v1+json", &list);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    index["manifests"] = json!([entry]);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

fn own_platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}

#[test]
fn an_image_for_several_platforms_is_an_index_of_them() {
    let own = own_platform();
    let both = format!("platforms = [\"linux/riscv64\", \"{own}\"]\n");
    let platforms = format!("{both}annotations = {{ a = \"b\" }}\n");
    let home = home(&format!(
        "[image.base]\nlayers = [{{ from = \":data\", to = \"/srv\" }}, {{ from = \":passwd\", to = \"/etc\" }}]\n\
         [toolchain.root]\nimage = \"oci:../layout:v1\"\n\
         [image.web]\nbase = \":root\"\nlayers = [{{ from = \":data\", to = \"/web\" }}]\n{platforms}\
         [image.more]\nbase = \":web\"\nlayers = [{{ from = \":group\", to = \"/etc\" }}]\n{platforms}\
         [image.plain]\nlayers = [{{ from = \":data\", to = \"/\" }}]\n{both}format = \"docker\"\n\
         [image.there]\nbase = \":plain\"\nplatforms = [\"linux/riscv64\"]\n\
         [image.user]\nbase = \":web\"\nconfig = {{ user = \"app\" }}\n{platforms}"
    ));
    several(&home, "//:base");
    let web = inspect(&home, "//:web");
    let items = web["index"]["manifests"].as_array().unwrap();
    let told: Vec<String> = items
        .iter()
        .map(|item| format!("{} {}", item["platform"]["architecture"].as_str().unwrap(), item["annotations"]))
        .collect();
    assert_eq!(told, ["riscv64 {\"a\":\"b\"}".to_owned(), format!("{} {{\"a\":\"b\"}}", &own[6..])]);
    let (there, here) = (&web["platforms"][0], &web["platforms"][1]);
    assert_eq!((&there["platform"], &here["platform"]), (&json!("linux/riscv64"), &json!(own)));
    assert_eq!(
        (&there["config"]["config"]["Cmd"], &here["config"]["config"]["Cmd"]),
        (&json!(["there"]), &json!(["here"]))
    );
    assert_eq!(there["config"]["architecture"], "riscv64");
    let layers = |image: &Value| image["manifest"]["layers"].as_array().unwrap().clone();
    assert_eq!((layers(there).len(), layers(here).len()), (2, 3));
    assert_eq!(layers(there)[1], layers(here)[2], "equal trees are equal layers");
    assert_eq!(web["manifest"], here["manifest"], "the one for this machine stands for all");
    // On an image of the workspace each is on its own.
    let more = inspect(&home, "//:more");
    assert_eq!(layers(&more["platforms"][0])[..2], layers(there)[..]);
    assert_eq!(layers(&more["platforms"][1])[..3], layers(here)[..]);
    // One platform makes a manifest, and what is below it has it.
    let alone = inspect(&home, "//:there");
    assert_eq!((alone.get("index"), &alone["config"]["architecture"]), (None, &json!("riscv64")));
    let ran = home.cas(&["run", "//:there"]);
    let stderr = text(&ran.stderr);
    assert!(ran.status.code() == Some(2) && stderr.contains("it is for linux/riscv64"), "{stderr}");
    // Names are looked up in the files of each.
    let user = home.cas(&["build", ":user"]);
    let stderr = text(&user.stderr);
    assert!(user.status.code() == Some(2) && stderr.contains("names the user `app`"), "{stderr}");

    // Layouts hold all of it, also after the store was cleared; others one.
    assert_eq!(home.cas(&["store", "gc"]).status.code(), Some(0));
    for destination in ["oci:all:v1", "oci-archive:all.tar:v1"] {
        let output = home.cas(&["image", "export", "//:web", destination]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let folder = home.workspace().join("all");
    let entry = &read(&folder.join("index.json"))["manifests"][0];
    assert_eq!(
        (entry["mediaType"].as_str(), &entry["digest"]),
        (Some("application/vnd.oci.image.index.v1+json"), &web["digest"])
    );
    let path = |value: &Value| folder.join("blobs").join(value["digest"].as_str().unwrap().replace(':', "/"));
    for item in read(&path(entry))["manifests"].as_array().unwrap() {
        let manifest = read(&path(item));
        for part in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
            assert_eq!(fs::metadata(path(part)).unwrap().len(), part["size"].as_u64().unwrap());
        }
    }
    for destination in ["dir:d", "docker-archive:d.tar", "tar:t.tar"] {
        let output = home.cas(&["image", "export", "//:web", destination]);
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains("`//:web` is for several platforms"), "{stderr}");
        assert!(stderr.contains("hint: say which: `--platform linux/riscv64`"), "{stderr}");
        let output = home.cas(&["image", "export", "//:web", destination, "--platform", "linux/riscv64"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    assert_eq!(read(&home.workspace().join("d/manifest.json")), there["manifest"]);
    let output = home.cas(&["image", "export", "//:web", "oci:one", "--platform", "linux/s390x"]);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("hint: it is for linux/riscv64, linux/"), "{stderr}");
    // Docker's list has its own media types.
    let plain = inspect(&home, "//:plain");
    assert_eq!(plain["index"]["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    let listed = home.cas(&["image", "ls"]);
    assert!(text(&listed.stdout).contains(&format!("//:web {}", web["digest"].as_str().unwrap())));
}

#[test]
fn what_was_built_is_told_to_whoever_comes_after() {
    let own = own_platform();
    let home = home(&format!(
        "[image.one]\nlayers = [{{ from = \":data\", to = \"/\" }}]\n[image.two]\nplatforms = [\"{own}\", \"linux/riscv64\"]\n\
         [image.broken]\nconfig = {{ user = \"app\" }}\n"
    ));
    let (metadata, id) = (home.folder.path().join("m.json"), home.folder.path().join("id"));
    let build = |targets: &[&str], more: &[&str]| home.cas(&[&["build"], targets, more].concat());
    let output = build(&[":one", ":two"], &["--metadata-file", "../m.json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = read(&metadata);
    let one = inspect(&home, "//:one");
    let config = one["manifest"]["config"]["digest"].clone();
    let size = one["manifest"].to_string().len();
    assert_eq!(
        told["//:one"],
        json!({
            "containerimage.digest": one["digest"], "containerimage.config.digest": config, "image.name": "//:one",
            "containerimage.descriptor": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": one["digest"],
                "size": size, "platform": { "architecture": own[6..], "os": "linux" } },
            "platforms": [{ "platform": own, "digest": one["digest"], "size": size, "config": config }],
        })
    );
    let two = &told["//:two"];
    assert_eq!(two["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(
        (two["containerimage.digest"].clone(), two.get("containerimage.config.digest")),
        (inspect(&home, "//:two")["digest"].clone(), None)
    );
    assert_eq!(two["platforms"][1]["platform"], "linux/riscv64");
    // The ID is that of one image.
    assert_eq!(build(&[":one", ":data"], &["--iidfile", "../id"]).status.code(), Some(0));
    assert_eq!(fs::read_to_string(&id).unwrap(), config.as_str().unwrap());
    for targets in [&[":two"][..], &[":data"], &[":one", ":two"]] {
        let output = build(targets, &["--iidfile", "../none"]);
        assert_eq!(output.status.code(), Some(2), "{targets:?}: {}", text(&output.stderr));
        assert!(!home.folder.path().join("none").exists());
    }
    // A failure leaves what was there.
    let before = fs::read(&metadata).unwrap();
    assert_eq!(build(&[":one", ":broken"], &["--metadata-file", "../m.json"]).status.code(), Some(2));
    assert_eq!(fs::read(&metadata).unwrap(), before);
}

/// Images that nobody asked for are not warned of, and what an image takes over counts as its own.
#[test]
fn what_engines_and_people_see_in_an_image_is_warned_of_where_it_is_built() {
    let layers = |count: usize, name: &str| {
        let layers: Vec<String> =
            (0..count).map(|at| format!("{{ from = \":data\", to = \"/{name}{at}\" }}")).collect();
        format!("layers = [{}]\n", layers.join(", "))
    };
    let home = home(&format!(
        "[image.plain]\n{}[image.many]\nbase = \":plain\"\n{}[image.few]\nbase = \":plain\"\nmax_layers = 20\n{}\
         [image.checked]\nformat = \"docker\"\nconfig = {{ healthcheck = {{ test = \"true\" }}, env = {{ API_KEY = \"x\" }} }}\n\
         [image.inherits]\nbase = \":checked\"\n\
         [image.ends]\nbase = \":checked\"\nconfig = {{ healthcheck = {{ test = [\"NONE\"] }}, env = {{ API_KEY = \"$KEY\" }} }}\n",
        layers(100, "a"),
        layers(28, "b"),
        layers(27, "b")
    ));
    let key = |label: &str| {
        format!("warning: `API_KEY` looks like a secret, and whoever has the image `//:{label}` can read it")
    };
    let check =
        "warning: `//:inherits` has a `healthcheck` and the format of OCI, which knows none: podman leaves it out";
    let many = "warning: `//:many` has 128 layers, and engines take at most 127";
    for (asked, expected) in [
        (&[":plain"][..], vec![]),
        (&[":few"], vec![]),
        (&[":many"], vec![many.to_owned()]),
        (&[":checked"], vec![key("checked")]),
        (&[":inherits"], vec![key("inherits"), check.to_owned()]),
        (&[":ends"], vec![]),
        (&[], vec![key("checked"), key("inherits"), check.to_owned(), many.to_owned()]),
    ] {
        let built = home.cas(&[&["build"], asked].concat());
        assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
        let stderr = text(&built.stderr);
        let told: Vec<&str> = stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(told, expected, "{asked:?}");
    }
}

/// Layers of an image, as its manifest has them.
fn layers(home: &Home, image: &str) -> Vec<Value> {
    inspect(home, image)["manifest"]["layers"].as_array().unwrap().clone()
}

#[test]
fn own_files_are_a_layer_without_a_step() {
    let home = Home::new("");
    home.write("cas.toml", "[workspace]\nmembers = [\"app\"]\ninputs = [\"shared\"]\n");
    home.write("shared", "of all");
    home.write(
        "app/cas.toml",
        "[image.all]\nlayers = [{ files = [\"src/**\", \"run\"], to = \"/app\" }]\n\
         [image.part]\nlayers = [{ files = [\"src/**\"], path = \"src\", to = \"/srv\" }]\n\
         [image.less]\nlayers = [{ files = [\"src\", \"run\"], exclude = [\"src/deep\", \"**/*.map\", \"no\"], to = \"/app\" }]\n\
         [image.none]\nlayers = [{ files = [\"no/**\"], to = \"/\" }]\n\
         [image.both]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\nlayers = [{ files = [\"run\"], to = \"/\" }]\n",
    );
    home.write("app/src/a.js", "a");
    home.write("app/src/deep/b.js", "b");
    home.write("app/run", "#!/bin/sh\n");
    let names = |image: &str| {
        let built = home.cas(&["build", image]);
        assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
        let place = home.workspace().join("cas-out").join(image.trim_start_matches("//").replace(':', "/"));
        let layer = layers(&home, image)[0]["digest"].as_str().unwrap().replace(':', "/");
        let listed = Command::new("tar").arg("tzf").arg(place.join("blobs").join(layer)).output().unwrap();
        text(&listed.stdout).lines().filter(|name| !name.ends_with('/')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names("//app:all"), ["app/run", "app/src/a.js", "app/src/deep/b.js"]);
    assert_eq!(names("//app:part"), ["srv/a.js", "srv/deep/b.js"]);
    // What is left out is no part of it, whatever becomes of it.
    home.write("app/src/a.js.map", "1");
    let less = names("//app:less");
    let before = layers(&home, "//app:less");
    home.write("app/src/a.js.map", "2");
    home.write("app/src/deep/b.js", "other");
    assert_eq!(
        (less, names("//app:less")),
        (vec!["app/run".to_owned(), "app/src/a.js".to_owned()], vec!["app/run".to_owned(), "app/src/a.js".to_owned()])
    );
    assert_eq!(layers(&home, "//app:less"), before);
    fs::remove_file(home.workspace().join("app/src/a.js.map")).unwrap();
    home.write("app/src/deep/b.js", "b");
    let none = home.cas(&["build", "//app:none"]);
    assert_eq!(none.status.code(), Some(2), "{}", text(&none.stderr));
    assert!(text(&none.stderr).contains("`no/**`"), "{}", text(&none.stderr));
    // Sources are of no machine.
    let both = home.cas(&["build", "//app:both"]);
    assert_eq!(both.status.code(), Some(0), "{}", text(&both.stderr));
    // What is not selected changes nothing, what is does, and a file that is gone is gone.
    let before = layers(&home, "//app:part");
    home.write("app/run", "#!/bin/sh\n:\n");
    home.write("shared", "other");
    assert_eq!(names("//app:part"), ["srv/a.js", "srv/deep/b.js"]);
    assert_eq!(layers(&home, "//app:part"), before);
    fs::remove_file(home.workspace().join("app/src/a.js")).unwrap();
    assert_eq!(names("//app:part"), ["srv/deep/b.js"]);
}

/// Which of two places gets which files is part of what an image is, and so is into how many layers they are cut.
#[test]
fn what_own_files_become_is_known_to_affected() {
    let home = Home::new("");
    let image = |first: &str, second: &str, more: &str| {
        format!(
            "[workspace]\n[image.i]\nlayers = [{{ files = [\"{first}/**\"], to = \"/x\" }}, {{ files = [\"{second}/**\"], to = \"/y\"{more} }}]\n"
        )
    };
    home.write("cas.toml", &image("a", "b", ""));
    home.write("a/f", "1");
    home.write("b/f", "2");
    home.write("c/f", "3");
    home.git(&["init", "-q"]);
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "x"]);
    let affected = || {
        let output = home.cas(&["affected", "--since", "HEAD"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(affected(), "");
    let less = ", exclude = [\"b/f\"]";
    for other in [image("b", "a", ""), image("a", "b", ", split = false"), image("a", "c", ""), image("a", "b", less)] {
        home.write("cas.toml", &other);
        assert!(affected().contains("//:i"), "{other}");
    }
    home.write("cas.toml", &image("a", "b", ""));
    home.write("c/f", "4");
    assert_eq!(affected(), "");
    home.write("a/f", "4");
    assert!(affected().contains("//:i"));
}

/// A tree that was cut before, and of which a folder left the store since, is cut anew.
#[test]
fn what_is_lost_of_a_cut_tree_is_made_again() {
    let home = Home::new("");
    let images: String = ["gzip", "zstd"]
        .map(|codec| {
            format!("[image.{codec}]\ncompression = \"{codec}\"\nlayers = [{{ files = [\"d/**\"], to = \"/\" }}]\n")
        })
        .concat();
    home.write("cas.toml", &format!("[workspace]\n{images}"));
    for number in 0..8 {
        home.write(&format!("d/{number}/large"), &format!("{number}\n").repeat(200_000));
        home.write(&format!("d/{number}/marked-name"), "x");
    }
    let built = |image: &str| {
        let built = home.cas(&["build", image]);
        assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
        layers(&home, image)
    };
    let count = built("//:gzip").len();
    assert!(count > 1);
    let objects = home.objects();
    let is_folder = |path: &&std::path::PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(11).any(|window| window == b"marked-name")
    };
    let lost: Vec<_> = objects.iter().filter(is_folder).collect();
    assert!(!lost.is_empty());
    lost.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(built("//:zstd").len(), count);
}

#[test]
fn a_large_tree_is_cut_and_a_change_is_one_layer() {
    let home = Home::new("");
    let image = |name: &str, more: &str, layer: &str| {
        format!("[image.{name}]\n{more}layers = [{{ files = [\"d/**\"], to = \"/\"{layer} }}]\n")
    };
    let images = [("cut", "", ""), ("one", "max_layers = 1\n", ""), ("whole", "", ", split = false")];
    let images: String = images.iter().map(|(name, more, layer)| image(name, more, layer)).collect();
    home.write("cas.toml", &format!("[workspace]\n{images}"));
    let content = |seed: usize| (0..20_000).map(|line| format!("{}\n", line * seed)).collect::<String>();
    for number in 0..20 {
        home.write(&format!("d/{number}/file"), &content(number + 3));
        home.write(&format!("d/{number}/small"), "x");
    }
    let built = |image: &str| {
        let built = home.cas(&["build", image]);
        assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
        layers(&home, image)
    };
    assert_eq!((built("//:one").len(), built("//:whole").len()), (1, 1));
    let before = built("//:cut");
    assert!((4..=8).contains(&before.len()), "{}", before.len());
    // Another store cuts alike.
    home.write("d/7/small", "y");
    let after = built("//:cut");
    let new: Vec<&Value> = after.iter().filter(|layer| !before.contains(layer)).collect();
    assert_eq!((after.len(), new.len()), (before.len(), 1));
    fs::remove_dir_all(home.folder.path().join("store")).unwrap();
    // `image inspect` and `image diff` are of images of the store.
    built("//:whole");
    assert_eq!(built("//:cut"), after);
    // All of it is in them: what is cut and what is not are the same files.
    let difference = home.cas(&["image", "diff", "//:cut", "//:whole"]);
    let told = text(&difference.stdout);
    assert!(difference.status.code() == Some(0) && !told.contains("d/"), "{told}{}", text(&difference.stderr));
    for bad in ["0", "128"] {
        home.write("cas.toml", &format!("[workspace]\n{}", image("bad", &format!("max_layers = {bad}\n"), "")));
        let refused = home.cas(&["build"]);
        assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("from 1 to 127"), "{}", text(&refused.stderr));
    }
}

/// What would be longer than others read is not made.
#[test]
fn a_configuration_that_grows_over_the_limit_is_an_error() {
    let home = home(
        "[image.base]\nlayers = [{ from = \":data\", to = \"/srv\" }]\n[toolchain.root]\nimage = \"oci:../layout:v1\"\n\
         [image.fits]\nbase = \":root\"\n[image.long]\nbase = \":root\"\nconfig = { labels = { own = \"WORDS\" } }\n",
    );
    let manifest = home.read("cas.toml").replace("WORDS", &"x".repeat(5000));
    home.write("cas.toml", &manifest);
    others(&home, "//:base", |config| config["config"]["Labels"] = json!({ "below": "x".repeat((4 << 20) - 4000) }));
    let built = home.cas(&["build", ":fits"]);
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    let built = home.cas(&["build", ":long"]);
    let stderr = text(&built.stderr);
    let expected = "error: the configuration of `//:long` has ";
    assert!(
        built.status.code() == Some(2) && stderr.contains(expected) && stderr.contains("hint: let it say less"),
        "{stderr}"
    );
}

#[test]
fn platforms_that_images_are_not_made_for_are_told_at_once() {
    let home = home("");
    for command in ["analyze", "import"] {
        for (platform, expected) in [
            ("windows/amd64", "images are made for linux, and not for `windows`"),
            ("linux/x86_64", "known: 386, amd64"),
        ] {
            let output = home.cas(&["image", command, "oci:nope", "--platform", platform]);
            let stderr = text(&output.stderr);
            assert!(output.status.code() == Some(2) && stderr.contains(expected), "{command} {platform}: {stderr}");
        }
    }
}
