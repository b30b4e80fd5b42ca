//! Images in the registries of others, read back by the clients of others: docs/interop/registry.md has the table.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::registry::Server;
use crate::{Home, has, run};

/// Files alone, for two platforms, and an image of parts that are long enough to be interrupted.
const MANIFEST: &str = "[workspace]\n[image.app]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\n\
    layers = [{ files = [\"data/**\"], path = \"data\", to = \"/srv\" }, { files = [\"more\"], to = \"/\" }]\n";
const PARTS: u32 = 6;
const PART_BYTES: u32 = 40_000_000;
const START: Duration = Duration::from_secs(30);

/// A registry as it is started for a test.
pub(crate) struct Started {
    pub(crate) _server: Server,
    pub(crate) address: String,
}

/// One of [`REGISTRIES`]; `None` where it is not installed.
pub(crate) fn start_named(home: &Home, name: &str) -> Option<Started> {
    let (name, make) = REGISTRIES.into_iter().find(|(known, _)| *known == name)?;
    start(home, name, make, 0)
}

/// How a registry is started with its files in a folder, at an address; `None` without the program.
type Make = fn(&Path, &str) -> Option<Command>;

/// Registries by name, each with how it is started.
const REGISTRIES: [(&str, Make); 4] = [
    ("docker-registry", |folder, address| Some(distribution(Path::new("docker-registry"), folder, address))),
    ("distribution", |folder, address| Some(distribution(&program("CAS_DISTRIBUTION")?, folder, address))),
    ("crane registry", |folder, address| {
        let mut command = Command::new(program("CAS_CRANE")?);
        command.args(["registry", "serve", "--address", address, "--disk"]).arg(folder);
        Some(command)
    }),
    ("cas serve", |folder, address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cas"));
        command.args(["serve", "--registry", "--listen", address, "--store"]).arg(folder);
        Some(command)
    }),
];

/// A program that `cargo xtask test --peers registry` built.
fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn distribution(program: &Path, folder: &Path, address: &str) -> Command {
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
        folder.join("data").display()
    );
    fs::write(folder.join("config.yml"), text).unwrap();
    let mut command = Command::new(program);
    command.arg("serve").arg(folder.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
    command
}

fn start(home: &Home, name: &str, make: Make, number: usize) -> Option<Started> {
    let folder = home.path(&format!("registry-{number}-{}", name.replace(' ', "-")));
    fs::create_dir_all(&folder).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = make(&folder, &address)?;
    let server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let server = Server(server);
    let begin = Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(begin.elapsed() < START, "{name} does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(Started { _server: server, address })
}

fn said(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap()
}

fn json(command: &mut Command) -> Value {
    let text = said(command);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command:?}: {error}: {text}"))
}

/// The digest that the index of a layout names.
fn named(layout: &Path) -> String {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

/// The digest that each client finds under a name, by reading what is there.
fn read_back(home: &Home, image: &str, digest: &str) -> Vec<&'static str> {
    let mut readers = Vec::new();
    let mut reads = |name: &'static str, found: &str| {
        assert_eq!(found.trim(), digest, "{name} found another one under {image}");
        readers.push(name);
    };
    let place = |name: &str| {
        let place = home.path(&format!("read-{name}"));
        let _ = fs::remove_dir_all(&place);
        place
    };
    if has("skopeo") {
        let layout = place("skopeo");
        let mut command = Command::new("skopeo");
        command.args(["copy", "--all", "--src-tls-verify=false", &format!("docker://{image}")]);
        run(command.arg(format!("oci:{}:x", layout.display())).env("REGISTRY_AUTH_FILE", logins(home)));
        reads("skopeo", &named(&layout));
    }
    if let Some(crane) = program("CAS_CRANE") {
        run(Command::new(&crane).args(["validate", "--remote", image]));
        let layout = place("crane");
        run(Command::new(&crane).args(["pull", "--format=oci", image]).arg(&layout));
        assert_eq!(said(Command::new(&crane).args(["digest", image])).trim(), digest);
        reads("crane", &named(&layout));
    }
    if let Some(regctl) = program("CAS_REGCTL") {
        let layout = place("regctl");
        let host = format!("reg={},tls=disabled", image.split('/').next().unwrap());
        let mut command = Command::new(regctl);
        run(command.args(["--host", &host, "image", "copy", image]).arg(format!("ocidir://{}:x", layout.display())));
        reads("regctl", &named(&layout));
    }
    if let Some(oras) = program("CAS_ORAS") {
        let layout = place("oras");
        let mut command = Command::new(&oras);
        command.args(["copy", "--from-plain-http", "--recursive", "--to-oci-layout", image]);
        run(command.arg(format!("{}:x", layout.display())));
        let found = json(Command::new(oras).args(["manifest", "fetch", "--plain-http", "--descriptor", image]));
        reads("oras", found["digest"].as_str().unwrap());
    }
    if has("podman") {
        let folder = tempfile::Builder::new().prefix("p").tempdir_in("/var/tmp").unwrap();
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            command.arg("--root").arg(folder.path().join("r")).arg("--runroot").arg(folder.path().join("n"));
            command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]).args(arguments);
            said(command.env("REGISTRY_AUTH_FILE", logins(home)))
        };
        let by_digest = format!("{}@{digest}", image.rsplit_once(':').unwrap().0);
        let id = podman(&["pull", "--quiet", "--tls-verify=false", &by_digest]);
        let digests = podman(&["image", "inspect", "--format", "{{json .RepoDigests}}", id.trim()]);
        let found = if digests.contains(digest) { digest } else { &digests };
        reads("podman", found);
    }
    readers
}

/// An empty file of logins: those of the machine may be somebody else's.
fn logins(home: &Home) -> PathBuf {
    let file = home.path("no-logins.json");
    fs::write(&file, "{}").unwrap();
    file
}

fn push(home: &Home, target: &str, image: &str) -> String {
    let found = json(&mut home.cas(&["--format", "json", "push", target, image]));
    found["results"][0]["digest"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "cargo xtask test --peers registry"]
fn clients_of_others_read_back_what_was_pushed_to_registries_of_others() {
    let home = Home::new(MANIFEST);
    let workspace = home.workspace();
    fs::create_dir(workspace.join("data")).unwrap();
    for name in ["one", "two"] {
        fs::write(workspace.join("data").join(name), name.repeat(10_000)).unwrap();
    }
    fs::write(workspace.join("more"), noise(3_000_000, 7)).unwrap();
    let keys = home.path("keys");
    let cas = |arguments: &[&str]| {
        let mut command = home.cas(arguments);
        command.env("CAS_KEYS", &keys);
        command
    };
    run(&mut cas(&["key", "generate", "--plain", "mine"]));
    let other = start_named(&home, "docker-registry");
    let mut rows = Vec::new();
    for (name, make) in REGISTRIES {
        let Some(registry) = start(&home, name, make, 1) else {
            eprintln!("SKIPPED: {name} is missing");
            continue;
        };
        let image = format!("{}/team/app:1.0.0", registry.address);
        let repository = image.rsplit_once(':').unwrap().0;
        let digest = push(&home, ":app", &image);
        run(&mut cas(&["sign", &image, "--key", "mine"]));
        let readers = read_back(&home, &image, &digest);
        // To another registry, with what refers to it.
        let mut copied = "–";
        if let Some(other) = &other {
            let copy = format!("{}/{}:1.0.0", other.address, name.replace(' ', "-"));
            run(&mut cas(&["copy", &image, &copy]));
            read_back(&home, &copy, &digest);
            let text = said(&mut cas(&["verify", &copy, "--key", "mine", "--repository", repository]));
            assert!(text.contains("is signed by mine"), "{text}");
            copied = "with its signature";
        }
        let (there, sent) = interrupted(&home, &registry.address);
        mirrored(&home, &registry.address, other.as_ref().map(|other| &*other.address));
        rows.push(format!(
            "| {name} | {} | {copied} | {there} of {} blobs were there, {sent} sent | second run sends nothing |",
            readers.join(", "),
            there + sent
        ));
    }
    assert!(rows.len() > 1, "there is no registry of others");
    eprintln!(
        "| registry | read back by | copied to docker-registry | push killed, made again | mirror |\n|---|---|---|---|---|"
    );
    for row in rows {
        eprintln!("{row}");
    }
}

fn noise(bytes: u32, seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 32).unwrap().to_le_bytes()
    };
    std::iter::repeat_with(next).take(bytes as usize / 4).flatten().collect()
}

/// Kills a push when the registry has one of its blobs, and pushes again; how many blobs were there then, and how many were sent.
fn interrupted(home: &Home, address: &str) -> (usize, usize) {
    let place = home.path("parts");
    fs::create_dir_all(&place).unwrap();
    let mut layers = Vec::new();
    for part in 0..PARTS {
        let name = format!("part-{part}");
        if !place.join(&name).exists() {
            fs::write(place.join(&name), noise(PART_BYTES, 100 + part)).unwrap();
        }
        layers.push(format!("{{ files = [\"{name}\"], to = \"/\" }}"));
    }
    fs::write(place.join("cas.toml"), format!("[workspace]\n[image.parts]\nlayers = [{}]\n", layers.join(", ")))
        .unwrap();
    let cas = |arguments: &[&str]| {
        let mut command = home.cas(arguments);
        command.current_dir(&place);
        command
    };
    run(&mut cas(&["build", ":parts"]));
    let layout: Value = {
        let layout = place.join("cas-out/parts");
        let digest = named(&layout);
        let path = layout.join("blobs").join(digest.replace(':', "/"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let blobs: Vec<String> =
        layout["layers"].as_array().unwrap().iter().map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect();
    let image = format!("{address}/team/parts:1.0.0");
    let mut pushing = cas(&["push", ":parts", &image]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    while !blobs.iter().any(|blob| is_there(address, &format!("/v2/team/parts/blobs/{blob}"))) {
        assert!(begin.elapsed() < Duration::from_secs(120), "no blob has arrived");
        assert!(pushing.try_wait().unwrap().is_none(), "the push was over before a blob was seen");
        std::thread::sleep(Duration::from_millis(5));
    }
    pushing.kill().unwrap();
    pushing.wait().unwrap();
    assert!(!is_there(address, "/v2/team/parts/manifests/1.0.0"), "a tag without its image");
    let text = String::from_utf8(run(&mut cas(&["push", ":parts", &image])).stderr).unwrap();
    // `HOST/NAME: N blobs (… bytes) sent, M blobs (… bytes) were there`.
    let line = text.lines().find(|line| line.ends_with("were there")).unwrap_or_else(|| panic!("{text}"));
    let rest = line.split_once(": ").unwrap().1;
    let number = |text: &str| text.split(' ').next().unwrap().parse::<usize>().unwrap();
    let (sent, there) = rest.split_once("sent, ").map(|(sent, there)| (number(sent), number(there))).unwrap();
    assert!(there > 0 && sent > 0, "{text}");
    read_back(home, &image, &named(&place.join("cas-out/parts")));
    (there, sent)
}

/// Brings the tags of a repository to another place, twice.
fn mirrored(home: &Home, address: &str, other: Option<&str>) {
    let to = other.map_or_else(
        || format!("{address}/mirror/app"),
        |other| format!("{other}/mirror/{}", address.replace([':', '.'], "-")),
    );
    let text = format!("[[image]]\nfrom = \"{address}/team/app\"\nto = [\"{to}\"]\ntags = [\"1.*\"]\n");
    fs::write(home.workspace().join("mirror.toml"), text).unwrap();
    let _ = fs::remove_file(home.workspace().join("mirror.lock"));
    run(&mut home.cas(&["sync", "plan", "mirror.toml"]));
    let apply = || json(&mut home.cas(&["--format", "json", "sync", "apply", "mirror.toml"]));
    let tags = |found: &Value| -> Vec<String> {
        found["results"].as_array().unwrap().iter().map(|row| row["tag"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(tags(&apply()), ["new"]);
    assert_eq!(tags(&apply()), ["same"]);
    run(&mut home.cas(&["sync", "verify", "mirror.toml"]));
}

/// Whether a registry answers a HEAD with 200.
fn is_there(address: &str, path: &str) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
    write!(stream, "HEAD {path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1) == Some("200")
}
