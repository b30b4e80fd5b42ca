//! docs/formats/bad-images.md, row by row: each case is made of a small image that is in order, and brought to the program in
//! each way that an image can come in. The page says how it ends and what is said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use cas_digest::{Digest, DigestFunction};
use serde_json::{Value, json};

use crate::bad_input::says;
use crate::{Home, text};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const NOTHING: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const OWN: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// Ways in which an image comes in.
const LAYOUT: &[&str] = &["oci", "oci-archive"];
const ALL: &[&str] = &["oci", "oci-archive", "docker-archive"];

/// What is wrong with an image.
#[derive(Clone, Copy)]
enum Change {
    /// Other layers.
    Layers(fn() -> Vec<Layer>),
    /// The configuration says other things.
    Config(fn(&mut Value)),
    /// The configuration's text is another one.
    Text(fn(String) -> String),
    /// The manifest says other things.
    Manifest(fn(&mut Value)),
    /// The layout holds other things.
    Layout(fn(&mut Files)),
    /// What `docker save` writes holds other things.
    Saved(fn(&mut Files)),
    /// The archive of the files is another one.
    Archive(fn(&Files) -> Vec<u8>),
    /// The image is named like this.
    Name(&'static str, &'static str),
}

/// A layer as it is sent.
#[derive(Clone)]
struct Layer {
    blob: Vec<u8>,
    diff_id: String,
    annotations: Value,
}

/// Files of a layout, or of what `docker save` writes.
#[derive(Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Puts a blob in, and tells its descriptor.
    fn put(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.0.insert(path_of(&sha256(bytes)), bytes.to_vec());
        json!({ "mediaType": media_type, "digest": sha256(bytes), "size": bytes.len() })
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.0[path]).unwrap()
    }

    /// Changes a document that has a name of its own.
    fn change(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut document = self.json(path);
        change(&mut document);
        self.0.insert(path.to_owned(), document.to_string().into_bytes());
    }

    /// What the layout's index names.
    fn named(&self) -> Value {
        self.json("index.json")["manifests"][0].clone()
    }

    fn manifest(&self) -> Value {
        self.json(&path_of(self.named()["digest"].as_str().unwrap()))
    }

    /// Lets the layout's index name these.
    fn name(&mut self, items: &[Value]) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": items });
        self.0.insert("index.json".to_owned(), index.to_string().into_bytes());
    }

    /// Puts another index above what the layout's index names, this many times.
    fn nest(&mut self, count: usize) {
        for _ in 0..count {
            let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [self.named()] });
            let named = self.put(INDEX, index.to_string().as_bytes());
            self.name(&[named]);
        }
    }

    /// Lets the layout's index name an index of these.
    fn index_of(&mut self, items: &[Value]) {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": items });
        let named = self.put(INDEX, index.to_string().as_bytes());
        self.name(&[named]);
    }

    /// What the index names, for a platform.
    fn named_for(&self, os: &str, architecture: &str) -> Value {
        let mut item = self.named();
        item["platform"] = json!({ "os": os, "architecture": architecture });
        item
    }

    /// The archive of them.
    fn tar(&self) -> Vec<u8> {
        tar(&self.0.iter().map(|(path, bytes)| member(path, b'0', "", bytes)).collect::<Vec<_>>())
    }

    /// The archive of them, with further members before them and behind them.
    fn tar_with(&self, before: &[Vec<u8>], behind: &[Vec<u8>]) -> Vec<u8> {
        let own = self.tar();
        [&before.concat(), &own[..own.len() - 1024], &behind.concat(), &[0; 1024]].concat()
    }

    /// The path of the first layer's file.
    fn layer(&self) -> String {
        match self.0.contains_key("manifest.json") {
            true => "0.tar".to_owned(),
            false => path_of(self.manifest()["layers"][0]["digest"].as_str().unwrap()),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    Digest::of(DigestFunction::Sha256, bytes).to_string()
}

fn path_of(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// A member of an archive; names and targets of up to 100 bytes.
fn member(name: &str, flag: u8, target: &str, content: &[u8]) -> Vec<u8> {
    stated(name, flag, target, content, &format!("{:011o}\0", content.len()))
}

/// A member whose header tells this length.
fn stated(name: &str, flag: u8, target: &str, content: &[u8], size: &str) -> Vec<u8> {
    let mut block = [0; 512];
    let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    set(0, name.as_bytes());
    set(100, if flag == b'5' { b"0000755\0" } else { b"0000644\0" });
    set(108, b"0000000\0");
    set(116, b"0000000\0");
    set(124, size.as_bytes());
    set(136, b"00000000000\0");
    set(148, b"        ");
    set(156, &[flag]);
    set(157, target.as_bytes());
    set(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [&block, content, &vec![0; padding]].concat()
}

/// A member that extends the next one.
fn records(records: &[(&str, &str)]) -> Vec<u8> {
    let text: String = records
        .iter()
        .map(|(key, value)| {
            let rest = key.len() + value.len() + 3;
            let length = (1..9).map(|digits| rest + digits).find(|sum| sum.to_string().len() + rest == *sum).unwrap();
            format!("{length} {key}={value}\n")
        })
        .collect();
    member("records", b'x', "", text.as_bytes())
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// The archive of the layer that is in order.
fn good() -> Vec<u8> {
    tar(&[member("etc/", b'5', "", b""), member("etc/a", b'0', "", &[b'a'; 5000])])
}

/// A layer of an archive.
fn of(tar: &[u8]) -> Layer {
    sent(gzip(tar), tar)
}

/// A layer of these bytes, which are to be this archive.
fn sent(blob: Vec<u8>, tar: &[u8]) -> Layer {
    Layer { blob, diff_id: sha256(tar), annotations: json!({}) }
}

/// A layer with one more member.
fn with(members: &[Vec<u8>]) -> Vec<Layer> {
    vec![of(&tar(members))]
}

/// The good layer, cut off.
fn cut(compress: fn(&[u8]) -> Vec<u8>, keep: fn(usize) -> usize) -> Vec<Layer> {
    let whole = compress(&good());
    vec![sent(whole[..keep(whole.len())].to_vec(), &good())]
}

/// Something that is nested very deep.
fn deep(text: &str, count: usize) -> String {
    let deep = format!("{{\"deep\":{}{},", "[".repeat(count), "]".repeat(count));
    text.replacen('{', &deep, 1)
}

const CASES: &[(&str, Change)] = &[
    ("an image that is in order", Change::Layers(|| vec![of(&good())])),
    // Digests and sizes.
    ("another diffID", Change::Config(|config| config["rootfs"]["diff_ids"][0] = json!(NOTHING))),
    ("fewer diffIDs than layers", Change::Config(|config| config["rootfs"]["diff_ids"] = json!([]))),
    (
        "more diffIDs than layers",
        Change::Config(|config| config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(NOTHING))),
    ),
    ("a diffID that is no digest", Change::Config(|config| config["rootfs"]["diff_ids"] = json!(["sha256:x"]))),
    ("no diffIDs, but null", Change::Config(|config| config["rootfs"]["diff_ids"] = Value::Null)),
    ("a layer longer than told", Change::Manifest(|manifest| add(&mut manifest["layers"][0]["size"], -1))),
    ("a layer shorter than told", Change::Manifest(|manifest| add(&mut manifest["layers"][0]["size"], 1))),
    ("a configuration longer than told", Change::Manifest(|manifest| add(&mut manifest["config"]["size"], -1))),
    ("a configuration shorter than told", Change::Manifest(|manifest| add(&mut manifest["config"]["size"], 1))),
    (
        "a manifest longer than told",
        Change::Layout(|files| files.change("index.json", |index| add(&mut index["manifests"][0]["size"], -1))),
    ),
    (
        "a manifest shorter than told",
        Change::Layout(|files| files.change("index.json", |index| add(&mut index["manifests"][0]["size"], 1))),
    ),
    ("a negative size", Change::Manifest(|manifest| manifest["layers"][0]["size"] = json!(-1))),
    ("a size with a fraction", Change::Manifest(|manifest| manifest["layers"][0]["size"] = json!(1.5))),
    ("a layer of exabytes", Change::Manifest(|manifest| manifest["layers"][0]["size"] = json!(1_u64 << 62))),
    (
        "a layer with other bytes",
        Change::Layout(|files| {
            let layer = files.layer();
            files.0.get_mut(&layer).unwrap()[20] ^= 1;
        }),
    ),
    (
        "a configuration with other bytes",
        Change::Layout(|files| {
            let path = path_of(files.manifest()["config"]["digest"].as_str().unwrap());
            let text = String::from_utf8(files.0[&path].clone()).unwrap().replace("linux", "linus");
            files.0.insert(path, text.into_bytes());
        }),
    ),
    (
        "a manifest with other bytes",
        Change::Layout(|files| {
            let path = path_of(files.named()["digest"].as_str().unwrap());
            files.0.get_mut(&path).unwrap()[0] = b' ';
        }),
    ),
    (
        "a layer that is missing",
        Change::Layout(|files| {
            let layer = files.layer();
            files.0.remove(&layer);
        }),
    ),
    (
        "a configuration that is missing",
        Change::Layout(|files| {
            let path = path_of(files.manifest()["config"]["digest"].as_str().unwrap());
            files.0.remove(&path);
        }),
    ),
    (
        "a manifest that is missing",
        Change::Layout(|files| {
            let path = path_of(files.named()["digest"].as_str().unwrap());
            files.0.remove(&path);
        }),
    ),
    (
        "a digest that leaves the layout",
        Change::Manifest(|manifest| manifest["layers"][0]["digest"] = json!("sha256:../../x")),
    ),
    ("a digest of MD5", Change::Manifest(|manifest| manifest["layers"][0]["digest"] = json!("md5:00"))),
    // Indexes.
    ("an index in an index", Change::Layout(|files| files.nest(1))),
    ("two indexes in each other, and an image", Change::Layout(|files| files.nest(2))),
    ("more indexes in each other than allowed", Change::Layout(|files| files.nest(4))),
    ("a hundred indexes in each other", Change::Layout(|files| files.nest(100))),
    (
        "an index that names its own file",
        // Its digest cannot be known before it is written, so what it says of its size and digest is wrong.
        Change::Layout(|files| {
            let own = json!({ "mediaType": INDEX, "digest": sha256(&files.0["index.json"]), "size": files.0["index.json"].len() });
            files.name(&[own]);
        }),
    ),
    (
        "two indexes that name each other",
        Change::Layout(|files| {
            let to = |digest: &str| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{ "mediaType": INDEX, "digest": digest, "size": 300 }] });
            let other = to(NOTHING).to_string();
            let one = to(&sha256(other.as_bytes())).to_string();
            files.put(INDEX, other.as_bytes());
            files.0.insert(path_of(NOTHING), one.clone().into_bytes());
            let named = files.put(INDEX, one.as_bytes());
            files.name(&[named]);
        }),
    ),
    (
        "an index with the same image twice",
        Change::Layout(|files| files.index_of(&[files.named_for("linux", OWN), files.named_for("linux", OWN)])),
    ),
    ("a layout with two images and no tag", Change::Layout(|files| files.name(&[files.named(), files.named()]))),
    ("an index without images", Change::Layout(|files| files.index_of(&[]))),
    ("a layout without images", Change::Layout(|files| files.name(&[]))),
    (
        "an index without one for this machine",
        Change::Layout(|files| files.index_of(&[files.named_for("linux", "s390x"), files.named_for("linux", "mips")])),
    ),
    (
        "an index for platforms of control characters",
        Change::Layout(|files| files.index_of(&[files.named_for("li\u{1b}[31m", "x\n"), files.named_for("", "")])),
    ),
    (
        "an index of attestations alone",
        Change::Layout(|files| files.index_of(&[files.named_for("unknown", "unknown")])),
    ),
    (
        "an index whose image is for another machine",
        Change::Layout(|files| {
            let manifest = files.manifest();
            let mut config = files.json(&path_of(manifest["config"]["digest"].as_str().unwrap()));
            config["architecture"] = json!("s390x");
            let mut manifest = manifest.clone();
            manifest["config"] = files.put(CONFIG, config.to_string().as_bytes());
            let named = files.put(MANIFEST, manifest.to_string().as_bytes());
            files.name(&[named]);
            files.index_of(&[files.named_for("linux", OWN)]);
        }),
    ),
    ("no `index.json`", Change::Layout(|files| drop(files.0.remove("index.json")))),
    (
        "an `index.json` that is a manifest",
        Change::Layout(|files| {
            let manifest = files.manifest().to_string();
            files.0.insert("index.json".to_owned(), manifest.into_bytes());
        }),
    ),
    ("an `index.json` of 5 MiB", Change::Layout(|files| files.0.get_mut("index.json").unwrap().resize(5 << 20, b' '))),
    // Media types and versions.
    (
        "a layer of an unknown media type",
        Change::Manifest(|manifest| manifest["layers"][0]["mediaType"] = json!("a/b")),
    ),
    (
        "a layer of another compression than told",
        Change::Manifest(|manifest| {
            manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+zstd")
        }),
    ),
    (
        "a configuration of an unknown media type",
        Change::Manifest(|manifest| manifest["config"]["mediaType"] = json!("a/b")),
    ),
    ("a manifest of an unknown media type", Change::Manifest(|manifest| manifest["mediaType"] = json!("a/b"))),
    (
        "a manifest without a media type",
        Change::Manifest(|manifest| drop(manifest.as_object_mut().unwrap().remove("mediaType"))),
    ),
    (
        "a manifest that is named as an index",
        Change::Layout(|files| files.change("index.json", |index| index["manifests"][0]["mediaType"] = json!(INDEX))),
    ),
    (
        "a manifest that is named as an index, further below",
        Change::Layout(|files| {
            files.change("index.json", |index| index["manifests"][0]["mediaType"] = json!(INDEX));
            files.nest(1);
        }),
    ),
    (
        "a manifest of OCI that is named as one of Docker",
        Change::Layout(|files| {
            files.change("index.json", |index| {
                index["manifests"][0]["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
            });
        }),
    ),
    ("a manifest that is an index too", Change::Manifest(|manifest| manifest["manifests"] = json!([]))),
    ("a manifest of schema 1", Change::Manifest(|manifest| manifest["schemaVersion"] = json!(1))),
    ("a manifest with layers of schema 1", Change::Manifest(|manifest| manifest["fsLayers"] = json!([]))),
    ("a manifest of schema 3", Change::Manifest(|manifest| manifest["schemaVersion"] = json!(3))),
    // Documents that are no documents.
    (
        "a manifest that is a list",
        Change::Manifest(|manifest| {
            *manifest = json!([2, MANIFEST, manifest["config"], manifest["layers"], null, null]);
        }),
    ),
    (
        "a layer that is named by a list",
        Change::Manifest(|manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"][0] = json!([LAYER, layer["digest"], layer["size"], null, {}]);
        }),
    ),
    (
        "a manifest without layers",
        Change::Manifest(|manifest| drop(manifest.as_object_mut().unwrap().remove("layers"))),
    ),
    ("a manifest whose layers are null", Change::Manifest(|manifest| manifest["layers"] = Value::Null)),
    (
        "a manifest with 5,000 layers",
        Change::Manifest(|manifest| {
            manifest["layers"] = json!(vec![manifest["layers"][0].clone(); 5000]);
        }),
    ),
    (
        "a manifest that is nested 100,000 deep",
        Change::Layout(|files| {
            let text = deep(&files.manifest().to_string(), 100_000);
            let named = files.put(MANIFEST, text.as_bytes());
            files.name(&[named]);
        }),
    ),
    ("a configuration that is nested 100,000 deep", Change::Text(|text| deep(&text, 100_000))),
    (
        "a configuration of 5 MiB",
        Change::Text(|text| text.replacen('{', &format!("{{\"x\":\"{}\",", "x".repeat(5 << 20)), 1)),
    ),
    (
        "a configuration with numbers of 1,000 digits",
        Change::Text(|text| text.replacen('{', &format!("{{\"x\":{},", "9".repeat(1000)), 1)),
    ),
    ("a configuration with a key twice", Change::Text(|text| text.replacen('{', "{\"os\":\"linux\",", 1))),
    (
        "a configuration with a user twice",
        Change::Text(|text| text.replace("\"config\":{", "\"config\":{\"User\":\"0\",\"User\":\"1\",")),
    ),
    ("a configuration that is empty", Change::Text(|_| String::new())),
    ("a configuration with text behind it", Change::Text(|text| text + "{}")),
    ("a configuration that is a list", Change::Text(|_| "[]".to_owned())),
    ("a configuration with half a surrogate", Change::Text(|text| text.replacen('{', "{\"x\":\"\\ud800\",", 1))),
    // What configurations say.
    (
        "a history longer than the layers",
        Change::Config(|config| config["history"] = json!([{}, {}, {}, { "empty_layer": true }])),
    ),
    (
        "a history of nulls",
        Change::Config(|config| {
            config["history"] = json!([{ "created": null, "created_by": null, "empty_layer": null }])
        }),
    ),
    ("a history that is no list", Change::Config(|config| config["history"] = json!("x"))),
    ("a variable without `=`", Change::Config(|config| config["config"]["Env"] = json!(["ODD", "=x", "A=1"]))),
    ("a user with a line end", Change::Config(|config| config["config"]["User"] = json!("a\nb"))),
    ("a working directory that is relative", Change::Config(|config| config["config"]["WorkingDir"] = json!("etc"))),
    (
        "fields that are null",
        Change::Config(|config| {
            config["history"] = Value::Null;
            let keys = [
                "User",
                "Env",
                "Volumes",
                "WorkingDir",
                "Labels",
                "ExposedPorts",
                "Entrypoint",
                "StopSignal",
                "Healthcheck",
                "OnBuild",
            ];
            keys.iter().for_each(|key| config["config"][key] = Value::Null);
        }),
    ),
    ("a `config` that is null", Change::Config(|config| config["config"] = Value::Null)),
    ("a `config` that is a list", Change::Config(|config| config["config"] = json!([]))),
    ("a `rootfs` that is null", Change::Config(|config| config["rootfs"] = Value::Null)),
    ("a `rootfs` that is a list", Change::Config(|config| config["rootfs"] = json!([]))),
    ("an empty platform", Change::Config(|config| (config["os"], config["architecture"]) = (json!(""), json!("")))),
    ("no platform", Change::Config(|config| drop(config.as_object_mut().unwrap().remove("os")))),
    ("a platform with a line end", Change::Config(|config| config["variant"] = json!("v8\nbase x"))),
    (
        "a platform that nobody has",
        Change::Config(|config| (config["os"], config["architecture"]) = (json!("plan9"), json!("vax"))),
    ),
    ("a variable with NUL", Change::Config(|config| config["config"]["Env"] = json!(["A=\0"]))),
    ("a command with NUL", Change::Config(|config| config["config"]["Cmd"] = json!(["/bin/sh", "\0"]))),
    (
        "a check with a negative time",
        Change::Config(|config| config["config"]["Healthcheck"] = json!({ "Test": ["NONE"], "Interval": -1 })),
    ),
    ("labels that are numbers", Change::Config(|config| config["config"]["Labels"] = json!({ "a": 1 }))),
    // Entries of layers.
    ("the same layer twice", Change::Layers(|| vec![of(&good()), of(&good())])),
    ("a layer without entries", Change::Layers(|| with(&[]))),
    ("a layer of no bytes", Change::Layers(|| vec![sent(Vec::new(), b"")])),
    ("an entry twice", Change::Layers(|| with(&[member("a", b'0', "", b"1"), member("a", b'0', "", b"2")]))),
    (
        "a file where a directory was",
        Change::Layers(|| with(&[member("a/b", b'0', "", b"1"), member("a", b'0', "", b"2")])),
    ),
    ("a path below a file", Change::Layers(|| with(&[member("a", b'0', "", b"1"), member("a/b", b'0', "", b"2")]))),
    (
        "a whiteout of all in the lowest layer",
        Change::Layers(|| with(&[member(".wh..wh..opq", b'0', "", b""), member("a", b'0', "", b"")])),
    ),
    ("a whiteout of what is not there", Change::Layers(|| with(&[member("x/.wh.y", b'0', "", b"")]))),
    ("a whiteout of `..`", Change::Layers(|| with(&[member("etc/.wh...", b'0', "", b"")]))),
    ("a whiteout of `.`", Change::Layers(|| with(&[member("etc/.wh..", b'0', "", b"")]))),
    ("a whiteout of nothing", Change::Layers(|| with(&[member("etc/.wh.", b'0', "", b"")]))),
    ("a name with `..`", Change::Layers(|| with(&[member("etc/../../x", b'0', "", b"")]))),
    ("an absolute name", Change::Layers(|| with(&[member("/etc/x", b'0', "", b"x")]))),
    ("a name with NUL", Change::Layers(|| with(&[records(&[("path", "a\0b")]), member("a", b'0', "", b"")]))),
    (
        "a name of 2,000 parts",
        Change::Layers(|| with(&[records(&[("path", &"d/".repeat(2000))]), member("a", b'5', "", b"")])),
    ),
    (
        "a name of 300 bytes",
        Change::Layers(|| with(&[records(&[("path", &"x".repeat(300))]), member("a", b'0', "", b"")])),
    ),
    (
        "a file behind a link to the outside",
        Change::Layers(|| with(&[member("out", b'2', "/../../tmp", b""), member("out/x", b'0', "", b"x")])),
    ),
    (
        "links in a circle",
        Change::Layers(|| {
            with(&[member("a", b'2', "b", b""), member("b", b'2', "a", b""), member("a/x", b'0', "", b"")])
        }),
    ),
    ("a hard link to nothing", Change::Layers(|| with(&[member("a", b'1', "b", b"")]))),
    ("a hard link to the outside", Change::Layers(|| with(&[member("a", b'1', "../b", b"")]))),
    (
        "a hard link to a directory",
        Change::Layers(|| with(&[member("d/", b'5', "", b""), member("a", b'1', "d", b"")])),
    ),
    (
        "an attribute without a name",
        Change::Layers(|| with(&[records(&[("SCHILY.xattr.", "x")]), member("a", b'0', "", b"")])),
    ),
    (
        "an attribute of 70,000 bytes",
        Change::Layers(|| {
            with(&[records(&[("SCHILY.xattr.user.x", &"x".repeat(70_000))]), member("a", b'0', "", b"")])
        }),
    ),
    ("an entry of an unknown type", Change::Layers(|| with(&[member("a", b'Z', "", b"")]))),
    (
        "a wrong checksum",
        Change::Layers(|| {
            let mut bytes = good();
            bytes[0] ^= 1;
            vec![of(&bytes)]
        }),
    ),
    (
        "a header for all that follows with a path",
        Change::Layers(|| {
            let mut global = records(&[("path", "x")]);
            global[156] = b'g';
            let sum: u32 = global[..512]
                .iter()
                .enumerate()
                .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
                .sum();
            global[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            with(&[global, member("a", b'0', "", b"")])
        }),
    ),
    // Bytes behind the end, and too few.
    ("text behind gzip", Change::Layers(|| vec![sent([&gzip(&good())[..], b"text"].concat(), &good())])),
    ("zeros behind gzip", Change::Layers(|| vec![sent([&gzip(&good())[..], &[0; 512]].concat(), &good())])),
    ("text behind zstd", Change::Layers(|| vec![sent([&zstd(&good())[..], b"text"].concat(), &good())])),
    ("text behind the archive", Change::Layers(|| vec![of(&[&good()[..], b"text"].concat())])),
    (
        "another archive behind the archive",
        Change::Layers(|| vec![of(&[good(), tar(&[member("hidden", b'0', "", b"")])].concat())]),
    ),
    (
        "two members of gzip",
        Change::Layers(|| {
            let (head, tail) = (good()[..700].to_vec(), good()[700..].to_vec());
            vec![sent([gzip(&head), gzip(&tail)].concat(), &good())]
        }),
    ),
    ("gzip that is cut in its header", Change::Layers(|| cut(gzip, |_| 5))),
    ("gzip that is cut in the middle", Change::Layers(|| cut(gzip, |length| length / 2))),
    ("gzip that is cut before its checksum", Change::Layers(|| cut(gzip, |length| length - 8))),
    (
        "gzip with a wrong checksum",
        Change::Layers(|| {
            let mut blob = gzip(&good());
            let at = blob.len() - 8;
            blob[at] ^= 1;
            vec![sent(blob, &good())]
        }),
    ),
    ("zstd that is cut in its header", Change::Layers(|| cut(zstd, |_| 5))),
    ("zstd that is cut in the middle", Change::Layers(|| cut(zstd, |length| length / 2))),
    ("zstd that is cut by a byte", Change::Layers(|| cut(zstd, |length| length - 1))),
    ("an archive that is cut in a header", Change::Layers(|| vec![of(&good()[..800])])),
    ("an archive that is cut in a content", Change::Layers(|| vec![of(&good()[..3000])])),
    ("an archive without its end", Change::Layers(|| vec![of(&good()[..good().len() - 1024])])),
    ("a layer that is no archive", Change::Layers(|| vec![of(&[b'x'; 3000])])),
    ("a layer of xz", Change::Layers(|| vec![sent([&b"\xfd7zXZ\0"[..], &[0; 100]].concat(), &good())])),
    // Tables of contents.
    (
        "zstd:chunked with a table that is none",
        Change::Layers(|| {
            let table = b"\x50\x2a\x4d\x18\x05\0\0\0table";
            let mut layer = sent([&zstd(&good())[..], table].concat(), &good());
            layer.annotations = json!({
                "io.github.containers.zstd-chunked.manifest-checksum": NOTHING,
                "io.github.containers.zstd-chunked.manifest-position": "18446744073709551615:5:5:1",
            });
            vec![layer]
        }),
    ),
    (
        "eStargz with a table of other files",
        Change::Layers(|| {
            let table =
                json!({ "version": 1, "entries": [{ "name": "other", "type": "reg", "size": 9, "digest": NOTHING }] });
            let own = tar(&[
                member("etc/a", b'0', "", &[b'a'; 5000]),
                member("stargz.index.json", b'0', "", table.to_string().as_bytes()),
            ]);
            let mut layer = of(&own);
            layer.annotations = json!({ "containerd.io/snapshot/stargz/toc.digest": NOTHING });
            vec![layer]
        }),
    ),
    // Bombs.
    ("gzip of very many zeros", Change::Layers(|| with(&[member("zeros", b'0', "", &vec![0; 16 << 20])]))),
    (
        "zstd with a window of 2 GiB",
        Change::Layers(|| {
            // A frame with its own window, 2^31 bytes, and one raw block.
            let blob = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00][..], b"x"].concat();
            vec![sent(blob, b"x")]
        }),
    ),
    (
        "a file that is longer than its archive",
        Change::Layers(|| vec![of(&stated("a", b'0', "", b"", "777777777777"))]),
    ),
    (
        "a sparse file of exabytes",
        Change::Layers(|| {
            let map = [("GNU.sparse.size", "9000000000000000000"), ("GNU.sparse.name", "a"), ("GNU.sparse.map", "")];
            with(&[records(&map), member("a", b'0', "", b"")])
        }),
    ),
    (
        "20,000 entries in few bytes",
        Change::Layers(|| {
            let entry = |number: usize| member(&format!("{}/{number}", number % 100), b'0', "", b"");
            vec![sent(
                zstd(&tar(&(0..20_000).map(entry).collect::<Vec<_>>())),
                &tar(&(0..20_000).map(entry).collect::<Vec<_>>()),
            )]
        }),
    ),
    // Archives that images come in.
    (
        "an archive with absolute names",
        Change::Archive(|files| {
            tar(&files.0.iter().map(|(path, bytes)| member(&format!("/{path}"), b'0', "", bytes)).collect::<Vec<_>>())
        }),
    ),
    (
        "an archive with a name of `..`",
        Change::Archive(|files| files.tar_with(&[member("../../x", b'0', "", b"x")], &[])),
    ),
    ("an archive with a device", Change::Archive(|files| files.tar_with(&[member("dev", b'3', "", b"")], &[]))),
    (
        "an archive with a layer behind a link",
        Change::Archive(|files| {
            let layer = files.layer();
            let up = "../".repeat(layer.matches('/').count());
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member("elsewhere/layer", b'0', "", &files.0[&layer]));
            members.push(member(&layer, b'2', &format!("{up}elsewhere/layer"), b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer behind a link to the outside",
        Change::Archive(|files| {
            let layer = files.layer();
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member(&layer, b'2', "/etc/passwd", b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer behind links in a circle",
        Change::Archive(|files| {
            let layer = files.layer();
            let name = layer.rsplit('/').next().unwrap();
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member(&layer, b'2', name, b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer that is a directory",
        Change::Archive(|files| {
            let layer = files.layer();
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member(&format!("{layer}/"), b'5', "", b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer twice",
        Change::Archive(|files| {
            let layer = files.layer();
            files.tar_with(&[member(&layer, b'0', "", b"something else")], &[])
        }),
    ),
    (
        "an archive that is cut",
        Change::Archive(|files| {
            // In the content of the first file.
            files.tar()[..600].to_vec()
        }),
    ),
    ("an archive of no bytes", Change::Archive(|_| Vec::new())),
    ("an archive that is none", Change::Archive(|_| vec![b'x'; 3000])),
    (
        "an archive in zstd that is cut",
        Change::Archive(|files| {
            let whole = zstd(&files.tar());
            whole[..whole.len() / 2].to_vec()
        }),
    ),
    ("an archive in gzip with text behind it", Change::Archive(|files| [&gzip(&files.tar())[..], b"text"].concat())),
    (
        "an archive with a sparse file of exabytes",
        Change::Archive(|files| {
            let map = [("GNU.sparse.size", "9000000000000000000"), ("GNU.sparse.name", "a"), ("GNU.sparse.map", "")];
            files.tar_with(&[records(&map), member("a", b'0', "", b"")], &[])
        }),
    ),
    // What `docker save` writes.
    (
        "two saved images and no name",
        Change::Saved(|files| {
            files.change("manifest.json", |list| {
                let mut other = list[0].clone();
                other["RepoTags"] = json!(["other/app:2"]);
                list.as_array_mut().unwrap().push(other);
            });
        }),
    ),
    ("no saved image", Change::Saved(|files| files.change("manifest.json", |list| *list = json!([])))),
    (
        "a list of saved images that is an object",
        Change::Saved(|files| files.change("manifest.json", |list| *list = list[0].clone())),
    ),
    (
        "a saved image without names",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["RepoTags"] = Value::Null)),
    ),
    (
        "a saved image without layers",
        Change::Saved(|files| {
            files.change("manifest.json", |list| drop(list[0].as_object_mut().unwrap().remove("Layers")));
        }),
    ),
    ("a saved layer that is missing", Change::Saved(|files| drop(files.0.remove("0.tar")))),
    ("a saved configuration that is missing", Change::Saved(|files| drop(files.0.remove("config.json")))),
    (
        "a saved layer at `..`",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["Layers"][0] = json!("../../etc/passwd"))),
    ),
    (
        "a saved layer at an absolute path",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["Layers"][0] = json!("/etc/passwd"))),
    ),
    (
        "a saved layer with NUL in its name",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["Layers"][0] = json!("0.tar\0"))),
    ),
    (
        "a saved layer too many",
        Change::Saved(|files| {
            files.change("manifest.json", |list| list[0]["Layers"].as_array_mut().unwrap().push(json!("0.tar")));
        }),
    ),
    (
        "a saved configuration of 5 MiB",
        Change::Saved(|files| files.0.get_mut("config.json").unwrap().resize(5 << 20, b' ')),
    ),
    ("an archive without a list of saved images", Change::Saved(|files| drop(files.0.remove("manifest.json")))),
    (
        "a list of saved images that is nested 100,000 deep",
        Change::Saved(|files| {
            let text = String::from_utf8(files.0["manifest.json"].clone()).unwrap();
            files.0.insert("manifest.json".to_owned(), deep(&text, 100_000).into_bytes());
        }),
    ),
    // Places that are not read.
    ("a folder of skopeo's", Change::Name("dir", "dir:../bad")),
    ("an archive of a root file system", Change::Name("tar", "tar:../bad.tar")),
];

fn add(size: &mut Value, more: i64) {
    *size = json!(size.as_i64().unwrap() + more);
}

impl Change {
    /// The ways in which it can come in.
    fn transports(self) -> Vec<&'static str> {
        match self {
            Self::Layers(_) | Self::Config(_) | Self::Text(_) => ALL.to_vec(),
            Self::Manifest(_) | Self::Layout(_) => LAYOUT.to_vec(),
            Self::Saved(_) => vec!["docker-archive"],
            Self::Archive(_) => vec!["oci-archive", "docker-archive"],
            Self::Name(transport, _) => vec![transport],
        }
    }

    /// Makes the image beside a workspace, and gives its name.
    fn make(self, home: &Home, transport: &str, layers: Vec<Layer>) -> String {
        let layers = if let Self::Layers(make) = self { make() } else { layers };
        let diff_ids: Vec<&str> = layers.iter().map(|layer| &*layer.diff_id).collect();
        let mut config = json!({
            "architecture": OWN, "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "config": { "Cmd": ["/busybox", "sh", "-c", "/busybox pwd"] },
        });
        if let Self::Config(change) = self {
            change(&mut config);
        }
        let mut config = config.to_string();
        if let Self::Text(change) = self {
            config = change(config);
        }
        let mut files = Files::default();
        match transport {
            "docker-archive" => {
                let names: Vec<String> = (0..layers.len()).map(|index| format!("{index}.tar")).collect();
                let list = json!([{ "Config": "config.json", "RepoTags": ["acme/app:1"], "Layers": names }]);
                files.0.insert("manifest.json".to_owned(), list.to_string().into_bytes());
                files.0.insert("config.json".to_owned(), config.into_bytes());
                files.0.extend(names.into_iter().zip(layers.into_iter().map(|layer| layer.blob)));
            }
            _ => {
                let config = files.put(CONFIG, config.as_bytes());
                let layers: Vec<Value> = layers
                    .into_iter()
                    .map(|layer| {
                        let mut named = files.put(LAYER, &layer.blob);
                        named["annotations"] = layer.annotations;
                        named
                    })
                    .collect();
                let mut manifest =
                    json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
                if let Self::Manifest(change) = self {
                    change(&mut manifest);
                }
                let named = files.put(MANIFEST, manifest.to_string().as_bytes());
                files.0.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
                files.name(&[named]);
            }
        }
        if let Self::Layout(change) | Self::Saved(change) = self {
            change(&mut files);
        }
        let place = home.folder.path().join("bad");
        if transport == "oci" {
            for (path, bytes) in &files.0 {
                crate::archives::write(&place.join(path), bytes);
            }
            return "oci:../bad".to_owned();
        }
        if let Self::Name(_, name) = self {
            return name.to_owned();
        }
        let bytes = if let Self::Archive(change) = self { change(&files) } else { files.tar() };
        fs::write(place.with_extension("tar"), bytes).unwrap();
        format!("{transport}:../bad.tar")
    }
}

/// What a row of the page says.
#[derive(Debug)]
struct Row {
    transports: Vec<String>,
    commands: Vec<String>,
    code: i32,
    said: String,
}

/// The rows of the page, by case.
fn rows() -> BTreeMap<String, Vec<Row>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/formats/bad-images.md");
    let page = fs::read_to_string(page).unwrap();
    let mut rows: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(code) = cells[3].parse() else { continue };
        let words = |text: &str| -> Vec<String> { text.split(", ").map(str::to_owned).collect() };
        let transports =
            if cells[1] == "all" { ALL.iter().map(|&name| name.to_owned()).collect() } else { words(cells[1]) };
        let said = cells[4].trim_matches('`').trim().to_owned();
        rows.entry(cells[0].to_owned()).or_default().push(Row { transports, commands: words(cells[2]), code, said });
    }
    rows
}

/// A layer with a program that images can run; `None` where this machine has none.
fn program() -> Option<Layer> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists())?;
    let mut file = member("busybox", b'0', "", &fs::read(path).unwrap());
    file[100..108].copy_from_slice(b"0000755\0");
    let sum: u32 = file[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    file[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let bytes = tar(&[file, member("etc/", b'5', "", b"")]);
    Some(Layer { diff_id: sha256(&bytes), blob: bytes, annotations: json!({}) })
}

/// Files that are in a folder, but for what a workspace has.
fn left_in(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => left_in(&entry.path(), found),
            false if ["cas.toml", "cas.lock"].iter().any(|name| entry.file_name() == *name) => {}
            false => drop(found.insert(entry.path())),
        }
    }
}

/// Brings a case to the program; `None` where this machine cannot.
fn bring(home: &Home, change: Change, transport: &str, command: &str) -> Option<Output> {
    let layers = if command == "run" { vec![program()?] } else { vec![of(&good())] };
    let name = change.make(home, transport, layers);
    Some(match command {
        "import" => home.cas(&["image", "import", &name, "--name", "bad/app:1"]),
        "analyze" => home.cas(&["image", "analyze", &name]),
        "convert" => home.cas(&["image", "convert", &name, "--compression", "zstd", "--to", "oci-archive:out.tar:v1"]),
        "keep" => home.cas(&["image", "convert", &name, "--compression", "gzip", "--to", "oci-archive:out.tar:v1"]),
        "base" => {
            // What is added makes the files of the root wanted; a base alone is not looked into.
            let manifest = format!(
                "[workspace]\n[toolchain.root]\nimage = {name:?}\nadd = [{{ link = \"/added\", target = \"x\" }}]\n\
                 [image.i]\nbase = \":root\"\n"
            );
            home.write("cas.toml", &manifest);
            home.cas(&["build", ":i"])
        }
        "run" => {
            let imported = home.cas(&["image", "import", &name, "--name", "bad/app:1"]);
            assert_eq!(imported.status.code(), Some(0), "{}", text(&imported.stderr));
            home.cas(&["run", "bad/app:1"])
        }
        other => panic!("the page has the command `{other}`"),
    })
}

/// Runs one row in one way.
fn outcome(case: &str, change: Change, transport: &str, command: &str, row: &Row) -> Option<String> {
    let home = Home::new("[workspace]\n");
    let Some(output) = bring(&home, change, transport, command) else {
        eprintln!("SKIPPED: this machine cannot make the case `{case}`");
        return None;
    };
    let folder = home.folder.path().display().to_string();
    let shown = format!("{}{}", text(&output.stderr), text(&output.stdout)).replace(&folder, "PATH");
    let is_said = match row.said.as_str() {
        "—" => !shown.contains("error:") && !shown.contains("warning:"),
        said => says(&shown, said),
    };
    let mut wrong = Vec::new();
    if output.status.code() != Some(row.code) || !is_said {
        wrong.push(format!("ended with {:?}:\n{shown}", output.status.code()));
    }
    if shown.chars().any(|character| character.is_control() && character != '\n') {
        wrong.push(format!("a terminal obeys what is said: {shown:?}"));
    }
    let mut left = BTreeSet::new();
    left_in(&home.workspace(), &mut left);
    if row.code != 0 && !left.is_empty() {
        wrong.push(format!("left {left:?}"));
    }
    if command == "import" {
        let known = text(&home.cas(&["image", "ls"]).stdout);
        if (row.code == 0) != known.contains("bad/app:1") {
            wrong.push(format!("the store knows these images:\n{known}"));
        }
    }
    let check = home.cas(&["store", "fsck", "--full"]);
    if check.status.code() != Some(0) {
        wrong.push(format!("the store is damaged:\n{}{}", text(&check.stdout), text(&check.stderr)));
    }
    (!wrong.is_empty()).then(|| format!("`{case}` in {transport} by {command}: {}", wrong.join("\n")))
}

/// Runs every so many of the cases.
fn check(part: usize) {
    let rows = rows();
    let mut wrong = Vec::new();
    for (case, change) in CASES.iter().skip(part).step_by(PARTS) {
        let rows = rows.get(*case).unwrap_or_else(|| panic!("the page has no row for `{case}`"));
        for row in rows {
            for transport in &row.transports {
                wrong.extend(row.commands.iter().filter_map(|command| outcome(case, *change, transport, command, row)));
            }
        }
    }
    assert!(wrong.is_empty(), "not as docs/formats/bad-images.md says:\n{}", wrong.join("\n"));
}

/// Cases are run in this many tests, which the machine has at once.
const PARTS: usize = 4;

#[test]
fn bad_images_of_the_first_part() {
    check(0);
}

#[test]
fn bad_images_of_the_second_part() {
    check(1);
}

#[test]
fn bad_images_of_the_third_part() {
    check(2);
}

#[test]
fn bad_images_of_the_fourth_part() {
    check(3);
}

/// Neither is alone: each row of the page has a case here, and each case a row for each way in which it can come in.
#[test]
fn each_row_of_the_page_is_run_in_each_way() {
    let rows = rows();
    let known: BTreeSet<&str> = CASES.iter().map(|(case, _)| *case).collect();
    assert_eq!(known.len(), CASES.len(), "two cases have one name");
    assert_eq!(rows.keys().map(String::as_str).collect::<BTreeSet<_>>(), known);
    for (case, change) in CASES {
        let mut ways = BTreeSet::new();
        for row in &rows[*case] {
            for way in
                row.transports.iter().flat_map(|transport| row.commands.iter().map(move |command| (transport, command)))
            {
                assert!(ways.insert(way), "two rows of `{case}` for {way:?}");
            }
        }
        let told: BTreeSet<&str> = ways.iter().map(|(transport, _)| transport.as_str()).collect();
        assert_eq!(told, change.transports().into_iter().collect(), "ways of `{case}`");
    }
}
