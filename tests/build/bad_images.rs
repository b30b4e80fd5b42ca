//! docs/formats/bad-images.md, row by row: each case is made of a small image that is in order, and brought to the program in
//! each way that an image can come in. The page says how it ends and what is said.

mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use cas_digest::{Digest, DigestFunction};
use serde_json::{Value, json};

use self::cases::CASES;
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
const MANIFESTS: &[&str] = &["oci", "oci-archive", "dir"];
const ALL: &[&str] = &["oci", "oci-archive", "docker-archive", "dir"];

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
    /// A folder of skopeo's holds other things.
    Folder(fn(&mut Files)),
    /// A root file system is this file.
    Root(fn() -> Vec<u8>),
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

/// Files of a layout, of a folder of skopeo's, or of what `docker save` writes.
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

    /// Makes the layout a folder as skopeo has it, whose manifest is the one that the index names.
    fn flatten(&mut self) {
        let manifest = self.0.remove(&path_of(self.named()["digest"].as_str().unwrap())).unwrap();
        let blobs = std::mem::take(&mut self.0).into_iter();
        let name = |path: &str| path.strip_prefix("blobs/sha256/").map(str::to_owned);
        self.0 = blobs.filter_map(|(path, bytes)| Some((name(&path)?, bytes))).collect();
        self.0.insert("manifest.json".to_owned(), manifest);
        self.0.insert("version".to_owned(), b"Directory Transport Version: 1.1\n".to_vec());
    }

    /// The name in such a folder of what its manifest says.
    fn flat(&self, pointer: &str) -> String {
        let digest = self.json("manifest.json").pointer(pointer).unwrap().as_str().unwrap().to_owned();
        digest.strip_prefix("sha256:").unwrap().to_owned()
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

impl Change {
    /// The ways in which it can come in.
    fn transports(self) -> Vec<&'static str> {
        match self {
            Self::Layers(_) | Self::Config(_) | Self::Text(_) => ALL.to_vec(),
            Self::Manifest(_) => MANIFESTS.to_vec(),
            Self::Layout(_) => LAYOUT.to_vec(),
            Self::Folder(_) => vec!["dir"],
            Self::Root(_) => vec!["tar"],
            Self::Saved(_) => vec!["docker-archive"],
            Self::Archive(_) => vec!["oci-archive", "docker-archive"],
            Self::Name(transport, _) => vec![transport],
        }
    }

    /// Makes the image beside a workspace, and gives its name.
    fn make(self, home: &Home, transport: &str, layers: Vec<Layer>) -> String {
        if let Self::Name(_, name) = self {
            return name.to_owned();
        }
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
        if transport == "dir" {
            files.flatten();
        }
        if let Self::Layout(change) | Self::Saved(change) | Self::Folder(change) = self {
            change(&mut files);
        }
        let place = home.folder.path().join("bad");
        if ["oci", "dir"].contains(&transport) {
            for (path, bytes) in &files.0 {
                crate::archives::write(&place.join(path), bytes);
            }
            return format!("{transport}:../bad");
        }
        if let Self::Root(make) = self {
            fs::write(place.with_extension("tar"), make()).unwrap();
            return "tar:../bad.tar".to_owned();
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
    let home = Home::in_memory("[workspace]\n");
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
