//! Roots from images: R out of a layout and out of a registry, beside skopeo, umoci and the bare decompressors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cas_testing::registry::{FakeRegistry, Gate};

use super::{Bench, median, milliseconds, output, ratio, remove, version, version_of_cas};
use crate::run::Failure;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub(super) fn root(bench: &mut Bench) -> Result<(), Failure> {
    let maker = bench.folder.join("maker");
    fs::create_dir_all(&maker)?;
    fs::write(
        maker.join("cas.toml"),
        "[workspace]\n[toolchain.node]\ndebian = { suite = \"bookworm\", packages = [\"nodejs\"] }\n\
         [image.zstd]\nbase = \":node\"\ncompression = \"zstd\"\n[image.gzip]\nbase = \":node\"\n",
    )?;
    output(&mut bench.cas(&maker, "maker-store", &["build"]))?;
    bench.head("Roots from images")?;
    bench.write(
        "R is the Debian 12 root file system with node as an image of one layer. cas begins with an empty store: it pins the image, takes its layer,\nchecks it, and has every file in the store by digest, and the tree. The registry is on loopback, in memory.\n",
    );
    bench.write("| job | cas | peer | cas / peer |\n|---|---|---|---|");
    for codec in ["zstd", "gzip"] {
        let layout = bench.folder.join(codec);
        let destination = format!("oci:{}:t", layout.display());
        output(&mut bench.cas(&maker, "maker-store", &["image", "export", &format!("//:{codec}"), &destination]))?;
        let layer = largest(&layout.join("blobs/sha256"))?;
        let ours = cold(bench, &destination)?;
        let script = format!("{codec} -dc {} | tar tf - > /dev/null", layer.display());
        let theirs = median(|| {
            let mut command = Command::new("sh");
            command.args(["-c", &script]);
            Ok(command)
        })?;
        row(bench, &format!("layout, {codec}"), ours, &format!("`{codec} -dc` and `tar t`"), theirs);
        // umoci reads no zstd.
        if codec == "gzip" {
            let bundle = bench.folder.join("bundle");
            let theirs = median(|| {
                remove(&bundle)?;
                let mut command = Command::new("umoci");
                command.args(["unpack", "--rootless", "--image", &format!("{}:t", layout.display())]).arg(&bundle);
                Ok(command)
            })?;
            row(bench, &format!("layout, {codec}"), ours, "`umoci unpack`", theirs);
        }
        let fake = serve(&layout)?;
        let name = format!("{}/acme/r:t", fake.address());
        let ours = cold(bench, &name)?;
        let copy = bench.folder.join("copy");
        let theirs = median(|| {
            remove(&copy)?;
            let mut command = Command::new("skopeo");
            command.args(["copy", "--src-tls-verify=false", &format!("docker://{name}")]);
            command.arg(format!("oci:{}:t", copy.display()));
            Ok(command)
        })?;
        row(bench, &format!("registry, {codec}"), ours, "`skopeo copy`, which unpacks nothing", theirs);
    }
    bench.write(&format!(
        "\nBytes of the layers: {} (zstd), {} (gzip). {}; {}; {}.",
        fs::metadata(largest(&bench.folder.join("zstd/blobs/sha256"))?)?.len(),
        fs::metadata(largest(&bench.folder.join("gzip/blobs/sha256"))?)?.len(),
        version("skopeo"),
        version("umoci"),
        version_of_cas(bench)
    ));
    Ok(())
}

fn row(bench: &mut Bench, job: &str, ours: Duration, peer: &str, theirs: Duration) {
    let (our, their, by) = (milliseconds(ours), milliseconds(theirs), ratio(ours, theirs));
    bench.write(&format!("| {job} | {our} | {their}, {peer} | {by} |"));
}

/// A build of a toolchain of an image by a store that has nothing.
fn cold(bench: &Bench, image: &str) -> Result<Duration, Failure> {
    let place = bench.folder.join("place");
    fs::create_dir_all(&place)?;
    fs::write(place.join("cas.toml"), format!("[workspace]\n[toolchain.r]\nimage = {image:?}\n"))?;
    median(|| {
        remove(&bench.folder.join("cold"))?;
        if place.join("cas.lock").exists() {
            fs::remove_file(place.join("cas.lock"))?;
        }
        Ok(bench.cas(&place, "cold", &["build", ":r"]))
    })
}

fn largest(folder: &Path) -> Result<PathBuf, Failure> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found.push((entry.metadata()?.len(), entry.path()));
    }
    found.sort();
    Ok(found.pop().ok_or("the layout has no blobs")?.1)
}

/// A registry with the image of a layout: every blob is served as one and as a manifest.
fn serve(layout: &Path) -> Result<FakeRegistry, Failure> {
    let fake = FakeRegistry::start(Gate::Open);
    // Whether there is a registry at all.
    fake.put("", "application/json", b"{}");
    let index = fs::read_to_string(layout.join("index.json"))?;
    for entry in fs::read_dir(layout.join("blobs/sha256"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&path)?;
        if index.contains(&name) {
            fake.put("acme/r/manifests/t", MANIFEST, &bytes);
            fake.put(&format!("acme/r/manifests/sha256:{name}"), MANIFEST, &bytes);
        }
        fake.put(&format!("acme/r/blobs/sha256:{name}"), "application/octet-stream", &bytes);
    }
    Ok(fake)
}
