//! The words of the page, true whatever the figures are.

use super::super::{Bench, version_of_cas};
use super::subject::megabytes;
use super::{LARGE_JOB, OWN_JOB, PEER_JOB, Told, buildkit, peers};

pub(super) const TRANSPORT: &str = "The image of the large tree, zstd. An import looks into each layer and keeps every file of it; the others unpack nothing.";
pub(super) const PLATFORMS: &str = "Each platform has a base of its own, out of a layout, and one layer is common to all. Nothing is run for them; every build is cold, with zstd.";

/// A heading with what is below it.
pub(super) fn section(bench: &mut Bench, title: &str, words: &str, table: &str) {
    bench.write(&format!("## {title}\n\n{words}\n\n{table}"));
}

/// What is measured, and for how long.
pub(super) fn limits(minutes: u64) -> String {
    format!(
        "Each program makes an image of a folder, as a layout on the disk. cas: `cas build`. BuildKit: `buildctl` and a daemon that runs already, `FROM scratch` and\n\
         `COPY . /`, output `type=oci` with `force-compression`. buildah: `bud --layers --isolation chroot`, then `push` to `oci:`. umoci: `insert` into an empty layout, gzip alone.\n\
         *Cold* is with an empty store, root or storage. The other rows are with zstd where the program has it; no state of the tree comes twice. cas has these shapes:\n\
         *files*, where the files of a package are one layer; *split*, where they are cut into several; *step*, where a sandboxed step copies them and its output is one layer.\n\
         *Cas by it* is the first column by that of the peer.\n\n\
         A job is begun once more, up to the runs above, while it took less than {} s in all for R ({} s of peers), {} s for the large tree (there a step runs once); a cell says if it\n\
         had fewer runs. Peers on the large tree come last and begin no job after {minutes} minutes.\n",
        OWN_JOB.as_secs(),
        PEER_JOB.as_secs(),
        LARGE_JOB.as_secs()
    )
}

pub(super) fn missing(notes: &[String]) -> String {
    let list = if notes.is_empty() { "nothing".to_owned() } else { notes.join("; ") };
    format!("Missing here: {list}.\n")
}

pub(super) fn small(tree: &Told, is_small: bool) -> String {
    let what =
        if is_small { "a made up tree" } else { "a Debian 12 root file system with node, without its absolute links" };
    format!(
        "R is {what}: {} files, {} MB. After the timing a file was edited so that its size and time\n\
         stay; each shape of cas saw it, and gave the digest of a build that knew nothing.",
        tree.files,
        megabytes(tree.bytes)
    )
}

pub(super) fn formats(shape: &str) -> String {
    format!(
        "R as *{shape}*, in each format of a layer. [Formats](formats.md) compares their sizes with those of other programs."
    )
}

pub(super) fn large(tree: &Told) -> String {
    format!(
        "{} made up files, {} MB, in the sizes of real trees: words, and bytes that nothing compresses.",
        tree.files,
        megabytes(tree.bytes)
    )
}

pub(super) fn growth(shape: &str) -> String {
    format!("The first files of the large tree as *{shape}*, cold, zstd.")
}

pub(super) fn versions(bench: &Bench) -> String {
    let mut versions = vec![version_of_cas(bench), format!("BuildKit {}", buildkit::VERSION)];
    for program in ["buildah", "umoci", "skopeo", "zstd", "pigz"] {
        if peers::is_there(program) {
            versions.push(peers::first_line(program));
        }
    }
    format!("{}.", versions.join("; "))
}
