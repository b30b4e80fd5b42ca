//! A large Debian closure, resolved again with a warm index, beside apt's own resolver.

use std::fs;
use std::process::Command;

use super::{Bench, median, milliseconds, output, ratio, version, version_of_cas};
use crate::run::Failure;

/// What is asked for: with what it needs, more than 400 packages.
const PACKAGES: [&str; 7] = ["build-essential", "ca-certificates", "cmake", "git", "libgtk-3-dev", "nodejs", "python3"];
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub(super) fn debian(bench: &mut Bench) -> Result<(), Failure> {
    let place = bench.folder.join("workspace");
    fs::create_dir_all(&place)?;
    fs::write(
        place.join("cas.toml"),
        format!("[workspace]\n[toolchain.big]\ndebian = {{ suite = \"bookworm\", packages = {PACKAGES:?} }}\n"),
    )?;
    // Once with everything, so that what is measured fetches the release alone.
    output(&mut bench.cas(&place, "store", &["lock"]))?;
    let lock = fs::read_to_string(place.join("cas.lock"))?;
    let ours = median(|| Ok(bench.cas(&place, "store", &["lock", "--update"])))?;
    if fs::read_to_string(place.join("cas.lock"))? != lock {
        return Err("the archive moved on during the measurement".into());
    }
    let apt = bench.folder.join("apt");
    for folder in ["lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    fs::write(apt.join("status"), "")?;
    fs::write(apt.join("etc/sources.list"), format!("deb [signed-by={KEYRING}] {MIRROR} bookworm main\n"))?;
    let at = apt.display();
    fs::write(
        apt.join("apt.conf"),
        format!(
            "Dir::State \"{at}\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\nDir::Etc \"{at}/etc\";\n\
             Dir::Log \"{at}\";\nDebug::NoLocking \"1\";\nAPT::Install-Recommends \"0\";\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n"
        ),
    )?;
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", apt.join("apt.conf")).args(arguments);
        command
    };
    output(&mut apt_get(&["update"]))?;
    let install = |how: &[&str]| apt_get(&[how, &["install", "?essential"], &PACKAGES].concat());
    let listed = output(&mut install(&["--simulate"]))?;
    let simulated = median(|| Ok(install(&["--simulate"])))?;
    let resolved = median(|| Ok(install(&["--print-uris", "--yes"])))?;
    let count = lock.lines().filter(|line| line.starts_with("  { name = ")).count();
    let their_count = listed.lines().filter(|line| line.starts_with("Inst ")).count();
    bench.head("A large Debian closure")?;
    bench.write(&format!(
        "`{}` and what they need of bookworm's main, {count} packages by the rule of cas and {their_count} by apt's. The index is known: cas has it in its\nstore, apt in its lists and its binary cache. cas fetches the release file from the mirror each time, checks its signature, resolves anew and writes\nthe lock. apt makes no request, knows of no installed package and takes no recommended one; it names what it would fetch, or simulates the whole\ninstallation, with an order of its steps.\n",
        PACKAGES.join(" ")
    ));
    bench.write("| resolve and lock with cas | apt | cas / apt |\n|---|---|---|");
    for (how, theirs) in [("--print-uris", resolved), ("--simulate", simulated)] {
        let (our, their, by) = (milliseconds(ours), milliseconds(theirs), ratio(ours, theirs));
        bench.write(&format!("| {our} | {their}, `apt-get {how} install` | {by} |"));
    }
    bench.write(&format!("\n{}; {}.", version("apt-get").lines().next().unwrap_or_default(), version_of_cas(bench)));
    Ok(())
}
