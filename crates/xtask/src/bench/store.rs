//! `cargo xtask bench store`: the store and the snapshot on the source of Linux, and what a whole command takes with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Bench, SHELL, median, milliseconds, output, ratio};
use crate::run::{Failure, cargo};

/// Where Debian's package `linux-source-6.1` puts S.
const SOURCE: &str = "/usr/src/linux-source-6.1.tar.xz";

/// S: the folder that `CAS_BENCH_CORPUS` names, or Debian's source of Linux 6.1.
fn corpus(bench: &Bench) -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("CAS_BENCH_CORPUS") {
        return Ok(path.into());
    }
    if !Path::new(SOURCE).exists() {
        return Err("no corpus: install linux-source-6.1, or name a folder with CAS_BENCH_CORPUS".into());
    }
    let folder = bench.folder.join("S");
    fs::create_dir_all(&folder)?;
    output(Command::new("tar").args(["xf", SOURCE, "--strip-components=1", "-C"]).arg(&folder))?;
    // Debian's ignores everything.
    fs::remove_file(folder.join(".gitignore"))?;
    Ok(folder)
}

/// The page of `benches/store`; of some sections alone, without its head.
fn page(corpus: &Path, folder: &Path, sections: &[&str]) -> Result<String, Failure> {
    let page = output(
        cargo(&["bench", "--quiet", "--locked", "--bench", "store", "--"]).arg(corpus).arg(folder).args(sections),
    )?;
    if sections.is_empty() {
        return Ok(page);
    }
    Ok(page.find("## ").map_or(String::new(), |start| page[start..].to_owned()))
}

/// A file system in a file, for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(bench: &Bench, kind: &str, options: &[&str]) -> Result<Self, Failure> {
        let (image, at) = (bench.folder.join(format!("{kind}.img")), bench.folder.join(kind));
        fs::create_dir_all(&at)?;
        fs::File::create(&image)?.set_len(8 << 30)?;
        output(Command::new(format!("mkfs.{kind}")).args(options).arg(&image))?;
        output(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("umount").arg(&self.0)) {
            eprintln!("{error}");
        }
    }
}

pub(super) fn store(bench: &mut Bench) -> Result<(), Failure> {
    let corpus = corpus(bench)?;
    let own = page(&corpus, &bench.folder.join("own"), &[])?;
    bench.write(&own);
    whole_command(bench, &corpus)?;
    for (kind, options) in [("xfs", &["-q", "-m", "reflink=1"][..]), ("btrfs", &["-q"])] {
        match Mounted::new(bench, kind, options) {
            Ok(mounted) => {
                let text = page(&corpus, &mounted.0.join("own"), &["trees"])?;
                bench.write(&format!("On {kind}, in an image:\n\n{}", text.replace("## ", "### ")));
            }
            Err(error) => bench.write(&format!("Not measured on {kind}: {error}\n")),
        }
    }
    Ok(())
}

/// `cas build` of a workspace that is S, when nothing changed.
fn whole_command(bench: &mut Bench, corpus: &Path) -> Result<(), Failure> {
    let place = bench.folder.join("workspace");
    output(Command::new("cp").arg("-a").arg(corpus).arg(&place))?;
    let target = "[command.count]\ntoolchain = \":sh\"\nrun = \"ls | wc -l > count\"\noutputs = [\"count\"]\n";
    fs::write(place.join("cas.toml"), format!("[workspace]\n{SHELL}{target}"))?;
    let build = |bench: &Bench| bench.cas(&place, "S-store", &["build", ":count"]);
    output(&mut build(bench))?;
    output(&mut build(bench))?;
    let without = median(|| Ok(build(bench)))?;
    output(&mut bench.cas(&place, "S-store", &["watch", "start"]))?;
    output(&mut build(bench))?;
    output(&mut build(bench))?;
    let with = median(|| Ok(build(bench)));
    output(&mut bench.cas(&place, "S-store", &["watch", "stop"]))?;
    let with = with?;
    let start = median(|| {
        let mut command = Command::new(&bench.cas);
        command.arg("--version");
        Ok(command)
    })?;
    bench.write("## A whole `cas build` of a workspace that is S, nothing changed\n\n| | time |\n|---|---|");
    bench.write(&format!("| without a watcher | {} |", milliseconds(without)));
    bench.write(&format!("| with one | {}, {} of that |", milliseconds(with), ratio(with, without)));
    bench.write(&format!("| `cas --version`: starting a process | {} |\n", milliseconds(start)));
    Ok(())
}
