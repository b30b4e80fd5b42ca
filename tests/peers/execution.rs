//! buildbox-casd executes our actions, and gives the digests of the local run.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cas_action::decode_result;
use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_store::Store;
use cas_tree::Directory;
use prost::Message;

use crate::reapi::{self, Client};
use crate::{Home, folder, has, missing, run};

const MAX_BLOB_BYTES: u64 = 1 << 30;

/// The server, ended with all that it started when the test ends.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

fn start(home: &Home) -> Option<(Server, Client)> {
    let programs = folder().join("buildbox-1.4.25");
    if !programs.join("buildbox-casd").exists() {
        missing("buildbox-casd");
        return None;
    }
    if !has("bwrap") {
        missing("bubblewrap");
        return None;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    // It gives up at a folder of PATH that its user cannot search.
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let child = Command::new(programs.join("buildbox-casd"))
        .arg(format!("--bind={address}"))
        .arg(format!("--buildbox-run={}", programs.join("buildbox-run").display()))
        // FUSE is not for every user.
        .arg("--runner-arg=--staging-mode=copy-or-link")
        .arg(home.path("casd"))
        .env("PATH", path)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(home.path("casd.log")).unwrap())
        .process_group(0)
        .spawn()
        .unwrap();
    let server = Server { child, address };
    let started = Instant::now();
    loop {
        if let Some(client) = Client::connect(&server.address) {
            return Some((server, client));
        }
        assert!(started.elapsed() < Duration::from_secs(20), "buildbox-casd does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Uploads an action with all that it names, from the store alone.
fn upload(store: &Store, client: &mut Client, action: &Descriptor) {
    let load = |blob: &Descriptor| store.load(blob, MAX_BLOB_BYTES).unwrap();
    let bytes = load(action);
    let message = reapi::Action::decode(&bytes[..]).unwrap();
    client.upload(action, bytes);
    let command = message.command.unwrap().descriptor();
    client.upload(&command, load(&command));
    let mut seen = BTreeSet::new();
    let mut open = vec![message.input_root.unwrap().descriptor()];
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        let bytes = load(&name);
        let directory = reapi::Directory::decode(&bytes[..]).unwrap();
        client.upload(&name, bytes);
        open.extend(directory.directories.iter().map(|node| node.digest.as_ref().unwrap().descriptor()));
        for file in &directory.files {
            let blob = file.digest.as_ref().unwrap().descriptor();
            if seen.insert(blob) {
                client.upload(&blob, load(&blob));
            }
        }
    }
}

/// Builds a target here, executes its action there, and compares the trees of the outputs.
fn compare(home: &Home, target: &str) {
    let Some((_server, mut client)) = start(home) else { return };
    let output = run(&mut home.cas(&["build", target, "--format", "json"]));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &document["results"][0];
    let store = Store::open(&home.store()).unwrap();
    let action: Descriptor = row["action"].as_str().unwrap().parse().unwrap();
    upload(&store, &mut client, &action);
    let result = client.execute(&action);
    let theirs: Directory = decode_result(&result, DigestFunction::Sha256, &mut |blob| {
        Ok::<_, std::convert::Infallible>(client.download(blob))
    })
    .unwrap();
    let name = theirs.encode(DigestFunction::Sha256).unwrap().root;
    assert_eq!(name.digest.to_string(), row["digest"].as_str().unwrap());
}

const STEP: &str = "run = \"mkdir -p out/empty 'out/sp ace' && tr a-z A-Z < in > 'out/sp ace/ü' && cp in out/run && chmod +x out/run && ln -s run out/link && echo $LANG $TZ $SOURCE_DATE_EPOCH $HOME > out/env && pwd > where\"\ninputs = [\"in\"]\noutputs = [\"out\", \"where\"]\nenv = { X = \"1\" }\n";

#[test]
fn an_action_of_busybox_gives_the_same_there() {
    let Some(package) = crate::toolchain::package() else { return };
    let home = Home::new("");
    std::fs::write(home.path("busybox.deb"), &package).unwrap();
    let manifest = format!(
        "[workspace]\ndigest_function = \"sha256\"\n[toolchain.sh]\ndebian = {{ suite = \"test\", packages = [\"busybox\"], mirror = \"file://{}\" }}\n\
         [command.x]\ntoolchain = \":sh\"\n{STEP}",
        home.folder.path().display()
    );
    std::fs::write(home.workspace().join("cas.toml"), manifest).unwrap();
    std::fs::write(home.workspace().join("cas.lock"), crate::toolchain::lock(&package)).unwrap();
    std::fs::write(home.workspace().join("in"), "text\n").unwrap();
    compare(&home, ":x");
}

#[test]
fn an_action_of_debian_gives_the_same_there() {
    let home = Home::new(&format!(
        "[workspace]\ndigest_function = \"sha256\"\n[toolchain.base]\ndebian = {{ suite = \"bookworm\", packages = [] }}\n\
         [command.x]\ntoolchain = \":base\"\n{STEP}"
    ));
    std::fs::write(home.workspace().join("in"), "text\n").unwrap();
    if !home.cas(&["lock"]).output().unwrap().status.success() {
        eprintln!("SKIPPED: Debian's archive cannot be reached");
        return;
    }
    compare(&home, ":x");
}
