//! What images hold and waste: advice that is followed saves what it said; and how images differ.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use serde_json::{Value, json};

use crate::{Home, image, text};

const SECRET: &str = "hunter2-and-nobody-may-see-it";

/// An entry of a layer.
#[derive(Clone)]
pub(crate) struct Item {
    path: String,
    flag: u8,
    mode: u32,
    content: Vec<u8>,
    target: String,
}

pub(crate) fn item(path: &str, flag: u8, content: &[u8], target: &str) -> Item {
    let mode = if flag == b'5' { 0o755 } else { 0o644 };
    Item { path: path.to_owned(), flag, mode, content: content.to_vec(), target: target.to_owned() }
}

pub(crate) fn file(path: &str, content: impl AsRef<[u8]>) -> Item {
    item(path, b'0', content.as_ref(), "")
}

pub(crate) fn folder(path: &str) -> Item {
    item(path, b'5', b"", "")
}

impl Item {
    pub(crate) fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
}

/// Bytes that are no others' and do not compress to nothing.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 % 64 + b' '
    };
    (0..length).map(|_| next()).collect()
}

/// A tar as GNU tar would have it, times aside.
pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Item { path, flag, mode, content, target } in items {
        let name = if *flag == b'5' { format!("{path}/") } else { path.clone() };
        let mut block = [0; 512];
        let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        set(0, name.as_bytes());
        set(100, format!("{mode:07o}\0").as_bytes());
        set(108, b"0000000\x000000000\0");
        set(124, format!("{:011o}\0", content.len()).as_bytes());
        set(136, b"00000000000\0        ");
        set(156, &[*flag]);
        set(157, target.as_bytes());
        set(257, b"ustar\x0000");
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend(block);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip").arg("-nc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

/// Writes a layout with one image; what its layers are long, uncompressed.
pub(crate) fn write(home: &Home, name: &str, layers: &[Vec<Item>], change: impl Fn(&mut Value)) -> Vec<u64> {
    let folder = home.workspace().join(name);
    fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| {
        let blob = Descriptor::of(DigestFunction::Sha256, bytes);
        fs::write(folder.join("blobs/sha256").join(blob.digest.to_hex()), bytes).unwrap();
        json!({ "digest": blob.digest.to_string(), "size": blob.size })
    };
    let tars: Vec<Vec<u8>> = layers.iter().map(|items| tar(items)).collect();
    let diff_ids: Vec<String> =
        tars.iter().map(|tar| Descriptor::of(DigestFunction::Sha256, tar).digest.to_string()).collect();
    let blobs: Vec<Value> = tars.iter().map(|tar| put(&gzip(tar))).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut config = json!({ "architecture": architecture, "os": "linux", "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    change(&mut config);
    let manifest = json!({ "schemaVersion": 2, "config": put(config.to_string().as_bytes()), "layers": blobs });
    let manifest = put(manifest.to_string().as_bytes());
    fs::write(folder.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string()).unwrap();
    tars.iter().map(|tar| tar.len() as u64).collect()
}

pub(crate) fn run(home: &Home, arguments: &[&str], code: i32) -> String {
    let output = home.cas(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}{}", text(&output.stderr), text(&output.stdout));
    text(&output.stdout)
}

fn analyze(home: &Home, name: &str) -> Value {
    let stdout = run(home, &["image", "analyze", &format!("oci:{name}"), "--format", "json"], 0);
    serde_json::from_str(&stdout).unwrap()
}

/// Makes the layers again as a piece of advice says.
fn follow(layers: &[Vec<Item>], advice: &Value) -> Vec<Vec<Item>> {
    let mut layers = layers.to_vec();
    for entry in advice["entries"].as_array().unwrap() {
        let path = entry["path"].as_str().unwrap();
        let layer = &mut layers[usize::try_from(entry["layer"].as_u64().unwrap()).unwrap()];
        let at = layer.iter().position(|item| item.path == path).unwrap_or_else(|| panic!("there is no {path}"));
        match (entry["link"].as_str(), entry["link_kind"].as_str()) {
            (None, None) => drop(layer.remove(at)),
            (Some(target), Some("hard")) => layer[at] = item(path, b'1', b"", target),
            (Some(target), Some("symbolic")) => layer[at] = item(path, b'2', b"", &format!("/{target}")),
            other => panic!("{other:?}"),
        }
    }
    layers
}

/// What an image of a shape is told, by kind and subject: each piece of advice, followed alone, and all together save what they say.
fn advised(layers: &[Vec<Item>]) -> (Home, Value, BTreeMap<String, u64>) {
    let home = Home::new("[workspace]\n");
    let before = write(&home, "before", layers, |_| {});
    let report = analyze(&home, "before");
    for (layer, bytes) in report["layers"].as_array().unwrap().iter().zip(&before) {
        assert_eq!(layer["bytes"].as_u64(), Some(*bytes));
    }
    let all = report["advice"].as_array().unwrap();
    let mut saved = BTreeMap::new();
    let mut together = layers.to_vec();
    for (index, advice) in all.iter().enumerate() {
        let said = advice["saves_bytes"].as_u64().unwrap();
        let name = format!("after-{index}");
        let after = write(&home, &name, &follow(layers, advice), |_| {});
        let what = format!("{} {}", advice["kind"].as_str().unwrap(), advice["subject"].as_str().unwrap());
        assert_eq!(before.iter().sum::<u64>() - after.iter().sum::<u64>(), said, "{what}");
        let again = analyze(&home, &name);
        let is_same = |other: &Value| (&other["kind"], &other["subject"]) == (&advice["kind"], &advice["subject"]);
        assert!(!again["advice"].as_array().unwrap().iter().any(is_same), "{what} is advised again");
        // What nobody sees is missed by nobody.
        if matches!(advice["kind"].as_str(), Some("removed" | "overwritten")) {
            run(&home, &["image", "diff", "oci:before", &format!("oci:{name}")], 0);
        }
        together = follow(&together, advice);
        saved.insert(what, said);
    }
    let after = write(&home, "after", &together, |_| {});
    let said = report["totals"]["saves_bytes"].as_u64().unwrap();
    assert_eq!(before.iter().sum::<u64>() - after.iter().sum::<u64>(), said);
    assert_eq!(saved.values().sum::<u64>(), said);
    (home, report, saved)
}

/// Bytes of a file in an archive.
fn takes(length: u64) -> u64 {
    512 + length.next_multiple_of(512)
}

fn expect(saved: &BTreeMap<String, u64>, expected: &[(&str, u64)]) {
    let expected: BTreeMap<String, u64> = expected.iter().map(|(what, bytes)| ((*what).to_owned(), *bytes)).collect();
    assert_eq!(*saved, expected);
}

fn status(packages: &[(&str, &str)]) -> String {
    let one = |(name, version): &(&str, &str)| {
        format!(
            "Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\nDescription: x\n y: z\n\n"
        )
    };
    packages.iter().map(one).collect()
}

#[test]
fn an_image_of_apt_is_told_its_lists_and_caches() {
    let base = vec![
        folder("bin"),
        file("bin/sh", noise(1, 3000)),
        folder("var"),
        folder("var/lib"),
        folder("var/lib/dpkg"),
        file("var/lib/dpkg/status", status(&[("dash", "0.5")])),
        file("var/lib/dpkg/info/dash.list", "/.\n/bin\n/bin/sh\n"),
    ];
    let installed = vec![
        folder("var"),
        folder("var/lib"),
        file("var/lib/dpkg/status", status(&[("dash", "0.5"), ("curl", "8.1")])),
        file("var/lib/dpkg/info/curl:amd64.list", "/.\n/usr\n/usr/bin\n/usr/bin/curl\n"),
        file("usr/bin/curl", noise(2, 20_000)),
        file("usr/share/doc/curl/copyright", "a licence"),
        file("usr/share/doc/curl/changelog.gz", noise(3, 700)),
        folder("var/lib/apt/lists"),
        file("var/lib/apt/lists/deb.example_Packages", noise(4, 100_001)),
        file("var/lib/apt/lists/lock", ""),
        file("var/cache/apt/archives/curl_8.1_amd64.deb", noise(5, 9000)),
        file("var/cache/apt/pkgcache.bin", noise(6, 512)),
    ];
    let (_home, report, saved) = advised(&[base.clone(), installed]);
    let lists = takes(100_001) + 512 + takes(9000) + takes(512);
    let lower = takes(base[5].content.len() as u64);
    expect(
        &saved,
        &[("cache apt", lists), ("overwritten layer 1", lower), ("documentation usr/share/doc", takes(700))],
    );
    let curl = &report["packages"][0];
    assert_eq!((&curl["ecosystem"], &curl["name"], &curl["version"]), (&json!("deb"), &json!("curl"), &json!("8.1")));
    assert_eq!((curl["files"].as_u64(), &curl["layers"]), (Some(2), &json!([1])));
    assert_eq!(report["packages"][1]["layers"], json!([0]));
}

#[test]
fn an_image_of_npm_is_told_its_development_and_cache() {
    let package = |name: &str| json!({ "name": name, "version": "1.2.3" }).to_string();
    let lock = json!({ "packages": {
        "node_modules/kept": { "version": "1.2.3" },
        "node_modules/tool": { "version": "1.2.3", "dev": true },
        "node_modules/@s/tool": { "version": "1.2.3", "dev": true },
    } });
    let app = vec![
        folder("app"),
        file("app/package.json", package("app")),
        file("app/node_modules/.package-lock.json", lock.to_string()),
        item("app/node_modules/.bin/tool", b'2', b"", "../tool/cli.js"),
        item("app/node_modules/.bin/kept", b'2', b"", "../kept/cli.js"),
        file("app/node_modules/kept/package.json", package("kept")),
        file("app/node_modules/kept/cli.js", noise(1, 5000)),
        folder("app/node_modules/tool"),
        file("app/node_modules/tool/package.json", package("tool")),
        file("app/node_modules/tool/cli.js", noise(2, 6000)),
        file("app/node_modules/@s/tool/package.json", package("@s/tool")),
        file("app/node_modules/@s/tool/lib/a.js", noise(3, 70_000)),
        // The package's own file again: it is of the package that goes.
        file("app/node_modules/tool/copy.js", noise(1, 5000)),
        file("root/.npm/_cacache/content-v2/sha512/aa", noise(4, 30_000)),
        file("root/.npm/_logs/debug.log", "log"),
        file("app/dist/a.js", noise(5, 8000)),
        file("app/dist/b.js", noise(5, 8000)),
    ];
    let own = vec![file("srv/a.js", noise(5, 8000)), file("srv/b.js", noise(5, 8000))];
    let (_home, report, saved) = advised(&[app.clone(), own]);
    let manifests = takes(package("tool").len() as u64) + takes(package("@s/tool").len() as u64);
    expect(
        &saved,
        &[
            ("cache npm", takes(30_000) + takes(3)),
            ("development npm packages for development", manifests + 512 + takes(6000) + takes(70_000) + takes(5000)),
            ("duplicate files with equal content", 3 * 8192),
        ],
    );
    assert_eq!(report["layers"][0]["duplicate_bytes"], json!(8192 + 5120));
    let change = report["advice"].as_array().unwrap().iter().find(|advice| advice["kind"] == json!("development"));
    let change = change.unwrap()["change"].as_str().unwrap();
    assert!(change.contains("`@s/tool`, `tool`") && !change.contains("kept"), "{change}");
}

#[test]
fn what_is_overwritten_or_only_given_other_rights_is_told() {
    let base = vec![
        folder("app"),
        file("app/config", noise(1, 5000)),
        file("app/server", noise(2, 90_000)),
        item("app/also", b'1', b"", "app/server"),
        file("app/solid", noise(3, 4000)),
        file("app/twice", noise(4, 100)),
        file("app/twice", noise(5, 100)),
        folder("app/folder"),
        file("app/folder/below", noise(6, 10)),
        item("lib", b'2', b"", "app"),
    ];
    let mut chmod = file("app/solid", noise(3, 4000));
    chmod.mode = 0o755;
    // Layer 1 writes through the link; a directory over a directory is no waste, a file over one is.
    let upper = vec![folder("app"), file("lib/config", noise(7, 6000)), chmod, file("app/server", noise(8, 80_000))];
    let last = vec![folder("app"), file("app/folder", noise(9, 10))];
    let home = Home::new("[workspace]\n");
    write(&home, "image", &[base.clone(), upper.clone(), last.clone()], |_| {});
    let report = analyze(&home, "image");
    let saves = |subject: &str| {
        let all = report["advice"].as_array().unwrap();
        let found = all.iter().find(|advice| advice["subject"] == json!(subject));
        found.unwrap_or_else(|| panic!("{subject}"))["saves_bytes"].as_u64().unwrap()
    };
    assert_eq!(saves("layer 1, rights and owners alone"), takes(4000));
    // `app/also` keeps the content of the first `app/server`, whose headers alone can go.
    assert_eq!(saves("layer 1"), takes(5000) + 512);
    assert_eq!(saves("layer 0"), takes(100));
    assert_eq!(saves("layer 2"), 512 + takes(10));
    let base: Vec<Item> = base.into_iter().filter(|item| !matches!(&*item.path, "app/also" | "app/twice")).collect();
    let (_home, report, _) = advised(&[base, upper, last]);
    assert_eq!(
        report["layers"][0]["overwritten_bytes"],
        json!(takes(5000) + takes(90_000) + takes(4000) + 512 + takes(10))
    );
}

#[test]
fn what_a_later_layer_removes_is_told_and_a_secret_never() {
    let key = format!("-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----\n");
    let npmrc = format!("//registry.example/:_authToken={SECRET}\n");
    let base = vec![
        folder("src"),
        file("src/big", noise(1, 200_000)),
        folder("src/deep"),
        file("src/deep/file", noise(2, 600)),
        folder("root"),
        file("root/.npmrc", &npmrc),
        file("root/.env", format!("TOKEN={SECRET}\n")),
        folder("etc"),
        file("etc/<b>key</b>", &key),
        folder("opt"),
        file("opt/old", noise(3, 1000)),
    ];
    let again = vec![folder("src/deep"), file("src/deep/more", noise(4, 10))];
    let removed = vec![
        file(".wh.src", ""),
        file("root/.wh..npmrc", ""),
        folder("opt"),
        file("opt/.wh..wh..opq", ""),
        file("opt/new", noise(5, 10)),
    ];
    let (home, report, saved) = advised(&[base, again, removed]);
    let src = 512 + takes(200_000) + 512 + takes(600) + 512 + takes(10) + 512;
    expect(
        &saved,
        &[
            ("removed layer 2", src + takes(1000) + 512),
            ("secret root/.npmrc: a token of an npm registry", takes(npmrc.len() as u64) + 512),
            ("secret root/.env: variables of an environment", takes(1)),
            ("secret etc/<b>key</b>: a private key", takes(1)),
        ],
    );
    let secrets: Vec<String> = report["secrets"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(secrets.len(), 3);
    assert_eq!(
        report["secrets"][2],
        json!({ "layer": 0, "path": "root/.npmrc", "kind": "npm-token", "visible": false })
    );
    assert_eq!(report["layers"][0]["removed_bytes"], json!(src - 1024 - takes(10) + takes(1000) + takes(1)));
    // Nothing of a secret is in any form of the report, and no text of the image is markup.
    let lines = run(&home, &["image", "analyze", "oci:before", "--html", "page.html"], 0);
    let page = home.read("page.html");
    for shown in [&lines, &page, &report.to_string()] {
        assert!(shown.contains("npmrc") && !shown.contains(SECRET), "{shown}");
    }
    assert!(page.contains("etc/&lt;b&gt;key&lt;/b&gt;") && !page.contains("<b>"), "{page}");
    for outside in ["http://", "https://", "src=", "href=", "<script", "url(", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(lines.contains("warning: secret, root/.npmrc: a token of an npm registry: saves"), "{lines}");
}

#[test]
fn an_image_is_told_its_repositories_and_what_changes_nothing() {
    let base = vec![
        folder("app"),
        file("app/same", noise(1, 9000)),
        file("app/other", noise(2, 3000)),
        folder("app/.git"),
        file("app/.git/HEAD", "ref: x"),
        file("app/.git/objects/aa", noise(3, 50_000)),
        file("app/.gitignore", "x"),
        file("srv/.svn/wc.db", noise(4, 700)),
    ];
    let again = vec![file("app/same", noise(1, 9000)), file("app/other", noise(2, 3000)).with_mode(0o600)];
    let (_home, report, saved) = advised(&[base, again]);
    expect(
        &saved,
        &[
            ("overwritten layer 1, nothing changed", takes(9000)),
            ("overwritten layer 1, rights and owners alone", takes(3000)),
            ("version-control app/.git", takes(6) + takes(50_000)),
            ("version-control srv/.svn", takes(700)),
        ],
    );
    assert_eq!(report["layers"][0]["version_control_bytes"], json!(takes(6) + takes(50_000) + takes(700)));
    assert_eq!(report["layers"][0]["made_by_cas"], json!(false));
}

#[test]
fn what_a_configuration_tells_is_found_and_not_shown() {
    let home = Home::new("[workspace]\n");
    write(&home, "image", &[vec![file("a", "1")]], |config| {
        config["config"]["Env"] = json!(["PATH=/bin", format!("API_KEY={SECRET}")]);
        config["config"]["Labels"] = json!({ "<b>_TOKEN": SECRET });
        config["config"]["Cmd"] = json!(["x", format!("--url=https://me:{SECRET}@host")]);
        config["history"] = json!([
            { "created_by": format!("|1 NPM_TOKEN={SECRET} /bin/sh -c npm ci") },
            { "created_by": "ENV A=b", "empty_layer": true },
        ]);
    });
    let report = analyze(&home, "image");
    let told: Vec<String> = report["told_secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["place"], one["name"]))
        .collect();
    assert_eq!(
        told,
        [r#""Env" "API_KEY""#, r#""Labels" "<b>_TOKEN""#, r#""command-line" "Cmd""#, r#""history" "0 NPM_TOKEN""#]
    );
    let lines = run(&home, &["image", "analyze", "oci:image", "--html", "page.html"], 0);
    let page = home.read("page.html");
    for shown in [&lines, &page, &report.to_string()] {
        assert!(shown.contains("NPM_TOKEN=*** /bin/sh -c npm ci") && !shown.contains(SECRET), "{shown}");
        assert!(shown.contains("Env API_KEY: its name is one of a secret"), "{shown}");
    }
    assert!(lines.contains("\nwarning: told-secret, history 0 NPM_TOKEN: its name is one of a secret\n"), "{lines}");
    assert!(page.contains("told-secret: Labels &lt;b&gt;_TOKEN") && !page.contains("<b>"), "{page}");
}

/// What the store made of a `cas.toml` is advised on in its words, here and where its images went.
#[test]
fn layers_of_a_workspace_are_advised_on_in_its_words() {
    let home = Home::new(
        "[workspace]\n[image.i]\nlayers = [{ files = [\"app\"], to = \"/app\" }, { files = [\"app/x\"], to = \"/app\", path = \"app\" }]\n",
    );
    home.write("app/.env", "TOKEN=abc\n");
    home.write("app/__pycache__/x", "1");
    home.write("app/x", "1");
    run(&home, &["image", "export", "//:i", "oci:out:v1"], 0);
    for name in ["//:i", "oci:out:v1"] {
        let report = run(&home, &["image", "analyze", name, "--format", "json"], 0);
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["layers"][0]["made_by_cas"], json!(true), "{name}");
        let all = report["advice"].as_array().unwrap();
        assert_eq!(all.len(), 2, "{report}");
        for advice in all {
            let change = advice["change"].as_str().unwrap();
            assert!(
                change.contains("leave it out with `exclude` of the entry of `layers` with files of `//:i`"),
                "{change}"
            );
        }
    }
}

#[test]
fn an_image_with_compilers_is_told_of_them() {
    let packages = [("libc6", "2.36"), ("gcc-12", "12.2"), ("libc6-dev", "2.36"), ("make", "4.3")];
    let base = vec![
        item("bin", b'2', b"", "usr/bin"),
        folder("usr"),
        folder("usr/bin"),
        file("var/lib/dpkg/status", status(&packages)),
        file("var/lib/dpkg/info/libc6:amd64.list", "/lib/libc.so.6\n"),
        file("var/lib/dpkg/info/gcc-12.list", "/usr\n/bin/gcc-12\n"),
        file("var/lib/dpkg/info/gcc-12.md5sums", "x"),
        file("var/lib/dpkg/info/libc6-dev:amd64.list", "/usr/include/stdio.h\n/usr/share/doc/libc6-dev/changelog.gz\n"),
        file("var/lib/dpkg/info/make.list", "/usr/bin/make\n/usr/bin/gmake\n"),
        file("lib/libc.so.6", noise(1, 9000)),
        file("usr/bin/gcc-12", noise(2, 300_000)),
        file("usr/include/stdio.h", noise(3, 100)),
        file("usr/share/doc/libc6-dev/changelog.gz", noise(4, 100)),
        file("usr/bin/make", noise(5, 50_000)),
        item("usr/bin/gmake", b'1', b"", "usr/bin/make"),
        file("usr/local/go/bin/go", noise(6, 40_000)),
    ];
    let app = vec![file("app/server", noise(7, 10_000))];
    let (_home, report, saved) = advised(&[base, app]);
    let lists = takes(18) + takes(1) + takes(60) + takes(30);
    let tools = lists + takes(300_000) + 2 * takes(100) + takes(50_000) + 512;
    expect(&saved, &[("build-tools Debian packages", tools), ("build-tools usr/local/go", takes(40_000))]);
    let change = report["advice"][0]["change"].as_str().unwrap();
    assert!(change.ends_with("without `gcc-12`, `libc6-dev`, `make`"), "{change}");
    assert_eq!(report["layers"][0]["build_tool_bytes"], json!(tools + takes(40_000)));
}

#[test]
fn images_of_the_store_are_looked_at_by_label_and_equal_their_exports() {
    let home = Home::new(&image());
    let export = run(&home, &["image", "export", "//:web", "oci:out:v1"], 0);
    assert!(export.starts_with("//:web sha256:"));
    run(&home, &["image", "export", "//:web", "docker-archive:web.tar"], 0);
    run(&home, &["image", "export", "//:web", "oci-archive:oci.tar"], 0);
    let report: Value =
        serde_json::from_str(&run(&home, &["image", "analyze", ":web", "--format", "json"], 0)).unwrap();
    assert_eq!((&report["image"], &report["exit"]), (&json!("//:web"), &json!("done")));
    let exported = analyze(&home, "out:v1");
    assert_eq!((&report["layers"], &report["totals"]), (&exported["layers"], &exported["totals"]));
    for other in ["oci:out:v1", "docker-archive:web.tar", "oci-archive:oci.tar"] {
        assert_eq!(run(&home, &["image", "diff", "//:web", other], 0), "", "{other}");
    }
    let told = run(&home, &["image", "diff", "//:base", "//:web"], 1);
    let expected = "config Cmd: (none) -> [\"/x\"]\nconfig Env.A: (none) -> 1\nconfig Env.B: (none) -> 2\n\
                    config ExposedPorts.80/tcp: (none) -> {}\nconfig User: (none) -> 1000\nfile data.txt: added (5 bytes)\n";
    assert_eq!(told, expected);
}

#[test]
fn images_differ_by_what_their_files_are() {
    let home = Home::new("[workspace]\n");
    let package = |version: &str| json!({ "name": "dep", "version": version }).to_string();
    let apk = |version: &str| format!("P:busybox\nV:{version}\nF:bin\nR:busybox\n\nP:musl\nV:1\n\n");
    let common =
        vec![file("same", "same"), file("d/mode", "m"), file("d/gone", "gone"), item("d/link", b'2', b"", "x")];
    let one = vec![
        file("d/content", "one"),
        file("d/first", "linked"),
        item("d/second", b'1', b"", "d/first"),
        file("d/type", "x"),
        file("node_modules/dep/package.json", package("1.0.0")),
        file("lib/apk/db/installed", apk("1.36")),
        file("py/demo-1.0.dist-info/RECORD", "demo/__init__.py,,\n"),
    ];
    let mut mode = file("d/mode", "m");
    mode.mode = 0o600;
    let other = vec![
        file("d/.wh.gone", ""),
        mode,
        item("d/link", b'2', b"", "y"),
        file("d/content", "three"),
        file("d/first", "linked"),
        file("d/second", "linked"),
        folder("d/type"),
        file("node_modules/dep/package.json", package("2.0.0")),
        file("lib/apk/db/installed", apk("1.37")),
        file("d/new", "new"),
    ];
    write(&home, "one", &[common.clone(), one], |_| {});
    write(&home, "other", &[common, other], |config| {
        config["config"] = json!({ "Env": ["PATH=/usr/bin", "X=1"], "Cmd": ["sh"], "WorkingDir": "/srv" });
    });
    let expected = "config Env.PATH: /bin -> /usr/bin\nconfig Env.X: (none) -> 1\nconfig WorkingDir: (none) -> /srv\n\
        package apk busybox: 1.36 -> 1.37\npackage npm dep: 1.0.0 -> 2.0.0\npackage python demo: 1.0 -> (none)\n\
        file d/content: content (3 -> 5 bytes)\nfile d/gone: removed (4 bytes)\nfile d/link: target\nfile d/mode: mode\n\
        file d/new: added (3 bytes)\nfile d/second: link\nfile d/type: type, content, mode (1 bytes)\n\
        file lib/apk/db/installed: content\nfile node_modules/dep/package.json: content\n\
        file py: removed\nfile py/demo-1.0.dist-info: removed\nfile py/demo-1.0.dist-info/RECORD: removed (19 bytes)\n";
    assert_eq!(run(&home, &["image", "diff", "oci:one", "oci:other"], 1), expected);
    let difference = run(&home, &["image", "diff", "oci:one", "oci:other", "--format", "json"], 1);
    let difference: Value = serde_json::from_str(&difference).unwrap();
    assert_eq!((&difference["exit"], &difference["equal"]), (&json!("failed"), &json!(false)));
    let second = &difference["files"][5];
    assert_eq!((&second["path"], &second["from"]["link"]), (&json!("d/second"), &json!("d/first")));
    assert_eq!(second["to"]["link"], Value::Null);
    assert_eq!(difference["packages"][1]["from"], json!(["1.0.0"]));
    assert_eq!(run(&home, &["image", "diff", "oci:one", "oci:one"], 0), "");
}

#[test]
fn what_is_no_image_is_told_with_the_codes_of_other_commands() {
    let home = Home::new("[workspace]\n");
    write(&home, "wrong", &[vec![file("a", "a")]], |config| {
        config["rootfs"]["diff_ids"][0] = json!(Descriptor::of(DigestFunction::Sha256, b"x").digest.to_string());
    });
    write(&home, "other", &[vec![file("a", "a")]], |config| config["architecture"] = json!("riscv64"));
    write(&home, "dangling", &[vec![item("a", b'1', b"", "b")]], |_| {});
    for (name, code, expected) in [
        ("//:nothing", 2, "nothing"),
        ("oci:nowhere", 2, "nowhere/index.json"),
        ("oci:wrong:tag", 2, "has no image `tag`"),
        ("ghcr.io/a/b", 2, "has neither a tag nor a digest"),
        ("oci:wrong", 3, "its uncompressed bytes are"),
        ("oci:dangling", 3, "cannot be unpacked"),
        ("localhost:1/a/b:1", 4, "the network may not be used"),
    ] {
        let output = home.cas(&["image", "analyze", "--offline", name]);
        let stderr = text(&output.stderr);
        assert!(output.status.code() == Some(code) && stderr.contains(expected), "{name}: {stderr}");
    }
    // An image without an index is looked at whatever it is for.
    assert!(run(&home, &["image", "analyze", "oci:other"], 0).contains("linux/riscv64"));
    assert_eq!(home.cas(&["image", "diff", "oci:other"]).status.code(), Some(2));
}
