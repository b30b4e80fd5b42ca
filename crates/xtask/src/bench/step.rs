//! Steps: with many inputs and with few, beside bubblewrap; and the writing out of their root, beside `cp -a`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Bench, median, milliseconds, output, ratio, remove, version, version_of_cas};
use crate::run::Failure;

/// Steps whose time is compared with bubblewrap's, and the files that each of them reads.
const WIDE: (usize, usize) = (40, 1000);
/// The same, of small ones.
const SMALL: (usize, usize) = (1000, 1);

pub(super) fn step(bench: &mut Bench) -> Result<(), Failure> {
    let place = bench.folder.join("workspace");
    let mut salt = 0;
    let mut steps = |bench: &Bench, (count, inputs): (usize, usize)| -> Result<(Duration, Duration), Failure> {
        remove(&place)?;
        fs::create_dir_all(place.join("in"))?;
        for index in 0..inputs {
            fs::write(place.join(format!("in/file-{index:04}")), format!("content {index}\n"))?;
        }
        let mut with = |count: usize| {
            median(|| {
                salt += 1;
                fs::write(place.join("cas.toml"), manifest(count, salt))?;
                Ok(bench.cas(&place, "store", &["test", "--jobs", "1"]))
            })
        };
        let (many, single) = (with(count + 1)?, with(1)?);
        Ok((many.saturating_sub(single) / u32::try_from(count)?, single))
    };
    let (wide, whole) = steps(bench, WIDE)?;
    let (small, _) = steps(bench, SMALL)?;
    // The same root and files for bubblewrap, prepared before.
    let roots = bench.folder.join("store/v1/roots");
    let root = fs::read_dir(&roots)?.next().ok_or("no root was written out")??.path().join("root");
    let peer = peer(&root, &place.join("in"))?;
    let (written, copied) = root_written(bench, &place, &roots, &root, &mut salt)?;

    bench.head("A sandboxed step")?;
    bench.write(
        "Steps of `test -e` with R (Debian 12 with node) as their root, warm, one after the other. For cas the time of N + 1 steps less that of\none, by N: key, lookup, sandbox, capture, record. bubblewrap gets a prepared root and the folder of the inputs as it is, read-only: no key, no\nrecord, nothing written.\n\n| a step | cas | bubblewrap | difference | cas / bubblewrap |\n|---|---|---|---|---|",
    );
    for ((count, inputs), ours) in [(WIDE, wide), (SMALL, small)] {
        bench.write(&format!(
            "| one of {count}, {inputs} input files | {:.1} ms | {:.1} ms | {:.1} ms | {} |",
            ours.as_secs_f64() * 1e3,
            peer.as_secs_f64() * 1e3,
            (ours.as_secs_f64() - peer.as_secs_f64()) * 1e3,
            ratio(ours, peer)
        ));
    }
    bench.write(&format!(
        "\nR as files on the disk, from the store: a `cas test` of one step less the same with the root there; `cp -a` copies that root.\n\n| job | cas | `cp -a` | cas / `cp -a` |\n|---|---|---|---|\n| root written out | {} | {} | {} |",
        milliseconds(written),
        milliseconds(copied),
        ratio(written, copied)
    ));
    bench.write(&format!(
        "\nA whole `cas test` of one step with {} input files that has to run: {}. {}; {}.",
        WIDE.1,
        milliseconds(whole),
        version("bwrap"),
        version_of_cas(bench)
    ));
    Ok(())
}

fn manifest(steps: usize, salt: usize) -> String {
    let mut text =
        "[workspace]\n[toolchain.node]\ndebian = { suite = \"bookworm\", packages = [\"nodejs\"] }\n".to_owned();
    for index in 0..steps {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[test.t{index}]\ntoolchain = \":node\"\nrun = [\"/usr/bin/test\", \"-e\", \"in/file-0000\"]\nenv = {{ SALT = \"{salt}-{index}\" }}\n"
        );
    }
    text
}

/// One run of bubblewrap, over as many as fit the median.
fn peer(root: &Path, inputs: &Path) -> Result<Duration, Failure> {
    let script = format!(
        "for i in $(seq {}); do bwrap --unshare-all --ro-bind {} / --proc /proc --dev /dev --ro-bind {} /srv --chdir /srv --clearenv /usr/bin/test -e file-0000 || exit 1; done",
        WIDE.0,
        root.display(),
        inputs.display()
    );
    let all = median(|| {
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        Ok(command)
    })?;
    Ok(all / u32::try_from(WIDE.0)?)
}

/// Time to write a root out of the store, and that of `cp -a` for the same files.
fn root_written(
    bench: &Bench,
    place: &Path,
    roots: &Path,
    root: &Path,
    salt: &mut usize,
) -> Result<(Duration, Duration), Failure> {
    let copy = bench.folder.join("copy");
    let copied = median(|| {
        remove(&copy)?;
        let mut command = Command::new("cp");
        command.arg("-a").args([root, &copy]);
        Ok(command)
    })?;
    remove(&copy)?;
    let mut one = |without: &[PathBuf]| {
        median(|| {
            *salt += 1;
            fs::write(place.join("cas.toml"), manifest(1, *salt))?;
            for folder in without {
                output(Command::new("chmod").args(["-R", "u+w"]).arg(folder))?;
                remove(folder)?;
            }
            Ok(bench.cas(place, "store", &["test"]))
        })
    };
    let with = one(&[])?;
    let folders = fs::read_dir(roots)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    let without = one(&folders)?;
    Ok((without.saturating_sub(with), copied))
}
