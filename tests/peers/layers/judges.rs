//! The judges: each takes an image that `cas` wrote, and says what is wrong with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tar::{ReadTarLimits, decompress, read_layer};
use cas_tree::{Directory, Node, Unpacking};
use serde_json::Value;

use super::corpus::{Sample, digest_of};
use super::listing;

/// A byte of the largest file, and of all files of an image.
const LIMIT_BYTES: u64 = 64 << 30;
/// What an image of `cas` has more than the layers that it was made from: a link that makes the root one of its own, and
/// what eStargz adds.
pub(super) const ADDED: [&str; 4] = ["added", ".no.prefetch.landmark", ".prefetch.landmark", "stargz.index.json"];

/// How layers are compressed.
pub(super) struct Format {
    /// The word of `compression`.
    pub(super) name: &'static str,
    /// End of the layers' media type.
    media_type: &'static str,
    /// What decompresses it.
    program: Option<&'static str>,
}

/// A new format is a line here.
pub(super) const FORMATS: [Format; 5] = [
    Format { name: "none", media_type: ".tar", program: None },
    Format { name: "gzip", media_type: ".tar+gzip", program: Some("gzip") },
    Format { name: "zstd", media_type: ".tar+zstd", program: Some("zstd") },
    Format { name: "zstd:chunked", media_type: ".tar+zstd", program: Some("zstd") },
    Format { name: "estargz", media_type: ".tar+gzip", program: Some("gzip") },
];

/// An image in one format.
pub(super) struct Case<'a> {
    pub(super) sample: &'a Sample,
    pub(super) format: &'a Format,
    /// The layout that `cas` wrote, with one tag.
    pub(super) layout: PathBuf,
    pub(super) tag: String,
    /// The layout that it was made from, with the tag `t`, if there is one.
    pub(super) given: Option<PathBuf>,
    /// A folder for the judge alone.
    pub(super) place: PathBuf,
    /// Of all judges of this case: where the tars of the layers are.
    pub(super) tars: PathBuf,
    /// The program of `tests/judges`.
    pub(super) go: Option<PathBuf>,
}

/// What a judge says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Taken,
    Refused(String),
    /// Why it cannot be asked.
    NotFor(&'static str),
    /// What `cas` does not make.
    Unmade(&'static str),
    /// A program that is not installed.
    Missing(&'static str),
}

use Verdict::{NotFor, Taken};

pub(super) type Judge = fn(&Case<'_>) -> Result<Verdict, String>;

/// Who judges, and the program that it needs; all but those of `tests/judges` belong to the core tier.
pub(super) const JUDGES: [(&str, &str, Judge); 13] = [
    ("its own decompressor, digest = diffID", "", decompressed),
    ("`cas`, read again", "", read_again),
    ("GNU tar and Python, listings agree", "python3", listings),
    ("GNU tar, unpacked as what was given", "tar", unpacked),
    ("Python tarfile, unpacked as what was given", "python3", unpacked_by_python),
    ("umoci unpack, as what was given", "umoci", umoci),
    ("skopeo copy to `dir:`", "skopeo", skopeo),
    ("podman load", "podman", podman_load),
    ("podman run", "podman", podman_run),
    ("crane push, validate or export", "go", crane),
    ("Go archive/tar, listings agree", "go", go_listing),
    ("containers/storage, pull in parts", "go", chunked),
    ("stargz-snapshotter, chunk by chunk", "go", estargz),
];

impl Case<'_> {
    fn document(&self, digest: &Value) -> Value {
        serde_json::from_slice(&fs::read(self.blob(digest)).unwrap()).unwrap()
    }

    fn blob(&self, digest: &Value) -> PathBuf {
        self.layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
    }

    fn manifest(&self) -> (Value, Value) {
        let index: Value = serde_json::from_slice(&fs::read(self.layout.join("index.json")).unwrap()).unwrap();
        let digest = index["manifests"][0]["digest"].clone();
        (self.document(&digest), digest)
    }

    /// Blob, descriptor and diffID of each layer.
    fn layers(&self) -> Vec<(PathBuf, Value, String)> {
        let (manifest, _) = self.manifest();
        let config = self.document(&manifest["config"]["digest"]);
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), diff_ids.len());
        let whole = layers.iter().zip(diff_ids);
        whole.map(|(layer, id)| (self.blob(&layer["digest"]), layer.clone(), id.as_str().unwrap().to_owned())).collect()
    }

    /// The tars that [`decompressed`] left.
    fn tars(&self) -> Vec<PathBuf> {
        (0..self.layers().len()).map(|index| self.tars.join(format!("{index}.tar"))).collect()
    }
}

fn decompressed(case: &Case<'_>) -> Result<Verdict, String> {
    for ((blob, layer, diff_id), tar) in case.layers().into_iter().zip(case.tars()) {
        let media_type = layer["mediaType"].as_str().unwrap();
        if !media_type.ends_with(case.format.media_type) {
            return Err(format!("the media type is {media_type}"));
        }
        match case.format.program {
            None => drop(fs::copy(&blob, &tar).unwrap()),
            Some(program) => {
                // Its input is the standard one, so that the name of the file does not matter.
                let input = || File::open(&blob).unwrap();
                listing::output(Command::new(program).arg("-tq").stdin(input()))?;
                let mut command = Command::new(program);
                command.arg("-dcq").stdin(input()).stdout(File::create(&tar).unwrap());
                listing::output(&mut command)?;
            }
        }
        let (digest, _) = digest_of(&tar);
        if digest.to_string() != diff_id {
            return Err(format!("the tar is {digest}, the diffID {diff_id}"));
        }
    }
    Ok(Taken)
}

fn keep(content: &mut dyn Read) -> std::io::Result<Descriptor> {
    let mut hasher = cas_digest::HashingReader::new(content, &[DigestFunction::Sha256]);
    let size = std::io::copy(&mut hasher, &mut std::io::sink())?;
    Ok(Descriptor { digest: hasher.finish().0[0], size })
}

/// The tree that layers give, a line for each path, without what was added.
fn tree(layers: &[PathBuf]) -> Result<Vec<String>, String> {
    let mut tree = Unpacking::new(Directory::root());
    for layer in layers {
        let mut head = [0; 6];
        let length = File::open(layer).unwrap().read(&mut head).unwrap();
        let compression = cas_tar::Compression::detect(&head[..length]);
        let file = std::io::BufReader::with_capacity(1 << 20, File::open(layer).unwrap());
        let mut source = decompress(file, compression, LIMIT_BYTES).unwrap();
        let limits = ReadTarLimits { content_bytes: LIMIT_BYTES };
        read_layer(&mut tree, &mut source, limits, &mut keep).map_err(|error| format!("{error}"))?;
    }
    let tree = tree.finish();
    let lines = tree.walk().filter(|(path, _)| !ADDED.contains(&path.to_string().as_str()));
    Ok(lines
        .map(|(path, node)| match node {
            Node::Directory(directory) => format!("{path:?} {:?}", directory.metadata),
            node => format!("{path:?} {node:?}"),
        })
        .collect())
}

fn read_again(case: &Case<'_>) -> Result<Verdict, String> {
    let blobs: Vec<PathBuf> = case.layers().into_iter().map(|(blob, _, _)| blob).collect();
    let found = tree(&blobs)?;
    if case.given.is_some() {
        let expected = tree(&case.sample.layers)?;
        if let Some((left, right)) = expected.iter().zip(&found).find(|(left, right)| left != right) {
            return Err(format!("expected {left}, found {right}"));
        }
        if expected.len() != found.len() {
            return Err(format!("{} paths, expected {}", found.len(), expected.len()));
        }
    }
    Ok(Taken)
}

fn listings(case: &Case<'_>) -> Result<Verdict, String> {
    for tar in case.sample.layers.iter().chain(&case.tars()) {
        let (one, other) = (listing::by_tar(tar)?, listing::by_python(tar)?);
        listing::agree(("GNU tar", "Python"), &one, &other)?;
    }
    Ok(Taken)
}

fn go_listing(case: &Case<'_>) -> Result<Verdict, String> {
    let go = case.go.as_ref().ok_or("there is no judge")?;
    for tar in case.sample.layers.iter().chain(&case.tars()) {
        let (one, other) = (listing::by_python(tar)?, listing::by_go(go, tar)?);
        listing::agree(("Python", "Go"), &one, &other)?;
    }
    Ok(Taken)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Unpacks the one layer of an image beside what was given, in the same way.
fn compare_unpacked(case: &Case<'_>, unpack: &dyn Fn(&Path, &Path) -> Result<(), String>) -> Result<Verdict, String> {
    let tars = case.tars();
    if case.given.is_none() {
        return Ok(NotFor("it was made from no tar"));
    }
    let ([given], [made]) = (&case.sample.layers[..], &tars[..]) else {
        return Ok(NotFor("it knows no layers over each other"));
    };
    if !is_root() {
        return Ok(NotFor("owners and devices need root"));
    }
    let mut found = Vec::new();
    for (name, tar) in [("given", given), ("made", made)] {
        let folder = case.place.join(name);
        fs::create_dir(&folder).unwrap();
        unpack(tar, &folder)?;
        found.push(listing::of_folder(&folder, &ADDED));
        fs::remove_dir_all(&folder).unwrap();
    }
    listing::same(&found[0], &found[1]).map(|()| Taken)
}

fn unpacked(case: &Case<'_>) -> Result<Verdict, String> {
    compare_unpacked(case, &by_tar)
}

fn by_tar(tar: &Path, folder: &Path) -> Result<(), String> {
    let mut command = Command::new("tar");
    command.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]).arg(tar).arg("-C").arg(folder);
    listing::output(&mut command).map(drop)
}

fn unpacked_by_python(case: &Case<'_>) -> Result<Verdict, String> {
    let script = "import sys, tarfile\nwith tarfile.open(sys.argv[1], 'r:', errorlevel=2) as tar: tar.extractall(sys.argv[2], numeric_owner=True)";
    compare_unpacked(case, &|tar, folder| {
        let mut command = Command::new("python3");
        command.args(["-W", "ignore", "-c", script]).arg(tar).arg(folder).env("PYTHONUTF8", "1");
        listing::output(&mut command).map(drop)
    })
}

fn umoci(case: &Case<'_>) -> Result<Verdict, String> {
    if case.format.program == Some("zstd") {
        return Ok(NotFor("version 0.4 knows no zstd"));
    }
    let unpack = |name: &str, layout: &Path, tag: &str| {
        let bundle = case.place.join(name);
        let mut command = Command::new("umoci");
        command.args(["unpack", "--image", &format!("{}:{tag}", layout.display())]);
        command.args((!is_root()).then_some("--rootless")).arg(&bundle);
        listing::output(&mut command)?;
        Ok::<_, String>(listing::of_folder(&bundle.join("rootfs"), &ADDED))
    };
    let found = unpack("made", &case.layout, &case.tag)?;
    let Some(given) = &case.given else { return Ok(Taken) };
    // It knows no sparse files of the old format; what they are, GNU tar knows.
    let expected = match (unpack("given", given, "t"), &case.sample.layers[..]) {
        (Err(error), [tar]) if error.contains("unknown typeflag") && is_root() => {
            let folder = case.place.join("by-tar");
            fs::create_dir(&folder).unwrap();
            by_tar(tar, &folder)?;
            listing::of_folder(&folder, &ADDED)
        }
        (given, _) => given?,
    };
    listing::same(&expected, &found).map(|()| Taken)
}

fn skopeo(case: &Case<'_>) -> Result<Verdict, String> {
    let source = format!("oci:{}:{}", case.layout.display(), case.tag);
    let copy = case.place.join("copy");
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "-q", "--preserve-digests", &source]);
    listing::output(command.arg(format!("dir:{}", copy.display())))?;
    let (_, digest) = case.manifest();
    let (copied, _) = digest_of(&copy.join("manifest.json"));
    if digest == copied.to_string() { Ok(Taken) } else { Err(format!("the copy is {copied}")) }
}

/// podman with a storage of its own.
fn podman(case: &Case<'_>) -> Command {
    let mut command = Command::new("podman");
    for (option, name) in [("--root", "root"), ("--tmpdir", "tmp")] {
        command.arg(option).arg(case.place.join(name));
    }
    // Its path may have 50 characters.
    command.arg("--runroot").arg(format!("/tmp/cas-podman-{}", std::process::id()));
    command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]);
    command
}

/// Loads the image, and tells its name there.
fn load(case: &Case<'_>) -> Result<String, String> {
    let archive = case.place.join("archive.tar");
    listing::output(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&case.layout).arg("."))?;
    listing::output(podman(case).args(["load", "-q", "-i"]).arg(&archive))?;
    let id = listing::output(podman(case).args(["images", "-q"]))?;
    Ok(id.trim().to_owned())
}

fn podman_load(case: &Case<'_>) -> Result<Verdict, String> {
    if !is_root() {
        return Ok(NotFor("its storage needs root"));
    }
    let loaded = load(case).map(|_| Taken);
    listing::output(podman(case).args(["rmi", "-af"]))?;
    loaded
}

fn podman_run(case: &Case<'_>) -> Result<Verdict, String> {
    if !["program", "built"].contains(&case.sample.name) {
        return Ok(NotFor("there is no program in it"));
    }
    if !is_root() || !crate::has("runc") {
        return Ok(NotFor("it needs root and runc"));
    }
    let id = load(case)?;
    let mut command = podman(case);
    command.args(["run", "--rm", "--runtime", "runc", "--network=none"]);
    command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]);
    let told = listing::output(command.args([&id, "sh", "-c", "cat /srv/told"]));
    listing::output(podman(case).args(["rmi", "-af"]))?;
    match told?.as_str() {
        "it runs\n" => Ok(Taken),
        other => Err(format!("it told {other:?}")),
    }
}

/// A registry of crane's, which ends with it.
struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    fn start(crane: &Path, place: &Path) -> Result<Self, String> {
        let mut command = Command::new(crane);
        command.args(["registry", "serve", "--address", "127.0.0.1:0", "--disk"]).arg(place).env_remove("PORT");
        let mut process = command.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let mut said = BufReader::new(process.stderr.take().expect("it is a pipe"));
        let port = said
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("serving on port ").map(|(_, port)| port.trim().to_owned()));
        // It tells of each request, and ends when nobody listens.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let mut registry = Self { process, address: String::new() };
        registry.address = format!("127.0.0.1:{}", port.ok_or("crane serves no registry")?);
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The image goes to a registry and is looked through there: digests, and in gzip diffIDs and each archive entry by entry.
fn crane(case: &Case<'_>) -> Result<Verdict, String> {
    let crane = case.go.as_ref().ok_or("there is no judge")?.with_file_name("crane");
    let place = case.place.join("registry");
    fs::create_dir(&place).unwrap();
    let registry = Registry::start(&crane, &place)?;
    let name = format!("{}/judged:t", registry.address);
    let crane = |arguments: &[&str]| listing::output(Command::new(&crane).args(arguments));
    crane(&["push", case.layout.to_str().unwrap(), &name])?;
    // Its validation knows gzip alone; what puts the layers together knows all of them.
    match case.format.program {
        Some("gzip") => crane(&["validate", "--remote", &name])?,
        _ => crane(&["export", &name, case.place.join("files.tar").to_str().unwrap()])?,
    };
    let (_, digest) = case.manifest();
    let pushed = crane(&["digest", &name])?;
    if digest == pushed.trim() { Ok(Taken) } else { Err(format!("it is {pushed} there")) }
}

fn chunked(case: &Case<'_>) -> Result<Verdict, String> {
    if case.format.name != "zstd:chunked" {
        return Ok(NotFor("the format has no parts"));
    }
    let go = case.go.as_ref().ok_or("there is no judge")?;
    let (manifest, _) = case.manifest();
    let told = case.place.join("manifest.json");
    fs::write(&told, manifest.to_string()).unwrap();
    for (index, (blob, _, diff_id)) in case.layers().into_iter().enumerate() {
        let mut command = Command::new(go);
        command.arg("chunked").arg(blob).arg(&told).args([&index.to_string(), &diff_id]);
        listing::output(command.arg(case.place.join(format!("files-{index}"))))?;
    }
    Ok(Taken)
}

fn estargz(case: &Case<'_>) -> Result<Verdict, String> {
    if case.format.name != "estargz" {
        return Ok(NotFor("the format has no table"));
    }
    let go = case.go.as_ref().ok_or("there is no judge")?;
    for (blob, layer, diff_id) in case.layers() {
        let toc = layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"].as_str();
        let mut command = Command::new(go);
        listing::output(command.arg("estargz").arg(blob).args([toc.ok_or("there is no annotation")?, &diff_id]))?;
    }
    Ok(Taken)
}
