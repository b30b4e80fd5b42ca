//! `cargo xtask demo`: the main job on the example monorepo, with nothing but a Rust toolchain, a C compiler and a network.
//!
//! Everything happens below `target/demo`. Downloads of an earlier run are used again, results are not.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use crate::run::{Failure, cargo, workspace};
use crate::ship::Ship;

/// Exit code of `cas` when a remote refused.
const REMOTE: i32 = 4;
/// Exit code of `cas` when the host cannot make sandboxes.
const HOST: u8 = 6;

struct Place {
    cas: PathBuf,
    folder: PathBuf,
    store: PathBuf,
    umask: &'static str,
}

impl Place {
    fn command(&self, arguments: &[&str]) -> Command {
        self.with_store(&self.store, arguments)
    }

    fn with_store(&self, store: &Path, arguments: &[&str]) -> Command {
        // The shell is asked for nothing but the mask.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("umask {} && exec \"$0\" \"$@\"", self.umask)]).arg(&self.cas);
        command
            .arg("--store")
            .arg(store)
            .args(arguments)
            .current_dir(&self.folder)
            .env_remove("CI")
            .stdin(Stdio::null());
        command
    }

    /// Runs `cas`, and shows what it does; the output is that on standard output.
    fn cas(&self, arguments: &[&str]) -> Result<Output, Failure> {
        println!("$ cas {}", arguments.join(" "));
        let output = self.command(arguments).stderr(Stdio::inherit()).output()?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        Ok(output)
    }
}

/// Runs the demo; returns what the process ends with.
pub(crate) fn run() -> Result<u8, Failure> {
    let root = workspace();
    println!("== building cas");
    if !cargo(&["build", "--locked", "--bin", "cas"]).status()?.success() {
        return Ok(1);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let demo = target.join("demo");
    let first = Place {
        cas: target.join("debug/cas"),
        folder: demo.join("one/monorepo"),
        store: demo.join("store-one"),
        umask: "022",
    };
    let second = Place {
        cas: first.cas.clone(),
        folder: demo.join("two/a longer path/monorepo"),
        store: demo.join("store-two"),
        umask: "077",
    };
    fs::create_dir_all(&demo)?;
    for folder in [demo.join("one"), demo.join("two"), second.store.clone()] {
        remove(&folder)?;
    }
    let downloads = demo.join("downloads");
    let kept = first.store.join("v1/objects/sha256");
    if kept.exists() {
        remove(&downloads)?;
        fs::rename(&kept, &downloads)?;
    }
    remove(&first.store)?;
    if downloads.exists() {
        fs::create_dir_all(first.store.join("v1/objects"))?;
        fs::rename(&downloads, &kept)?;
    }
    let example = root.join("testdata/monorepo");
    copy(&example, &first.folder, 0o755, 0o644, SystemTime::now())?;

    println!("\n== can this machine make sandboxes?");
    let doctor = first.cas(&["doctor"])?;
    if !doctor.status.success() {
        return Ok(doctor.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(HOST));
    }

    println!("\n== the example monorepo, built");
    let mut built = first.cas(&["build", "--locked"])?;
    if built.status.code() == Some(REMOTE) {
        println!("note: the archive may no longer have a pinned package; the lock is made anew in the copy");
        if !first.cas(&["lock", "--update"])?.status.success() {
            return Ok(1);
        }
        built = first.cas(&["build", "--locked"])?;
    }
    if !built.status.success() {
        return Ok(1);
    }

    println!(
        "\n== again: other folder, other times and rights of the files, umask 077, one job, nothing known but the downloads"
    );
    copy(&example, &second.folder, 0o700, 0o600, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))?;
    fs::copy(first.folder.join("cas.lock"), second.folder.join("cas.lock"))?;
    copy(
        &first.store.join("v1/objects/sha256"),
        &second.store.join("v1/objects/sha256"),
        0o755,
        0o444,
        SystemTime::now(),
    )?;
    let again = second.cas(&["build", "--locked", "--jobs", "1"])?;
    if !again.status.success() || again.stdout != built.stdout {
        eprintln!("error: the second build gave other digests");
        return Ok(1);
    }
    println!("every digest is equal");

    println!("\n== the tests; one installs the two tarballs with npm into a fresh project, without a network");
    if !first.cas(&["test", "--locked"])?.status.success() {
        return Ok(1);
    }

    println!("\n== the service, from its image, asked once");
    let page = first.cas(&["run", "//apps/web:image", "--locked", "--", "node", "/app/server.js", "--check"])?;
    if !page.status.success() || !is_page(&String::from_utf8_lossy(&page.stdout)) {
        eprintln!("error: the service gave another answer");
        return Ok(1);
    }

    println!(
        "\n== its image to a registry of this machine: pushed, signed, verified, and run from there by a store that knows nothing"
    );
    let shipped = demo.join("shipped");
    remove(&shipped)?;
    let cas = |store: Option<&Path>, arguments: &[&str]| first.with_store(store.unwrap_or(&first.store), arguments);
    let ship = Ship { cas: &cas, folder: &shipped, target: "//apps/web:image", version: "1.0.0" };
    if !is_page(&ship.run(&["node", "/app/server.js", "--check"])?) {
        eprintln!("error: the service from the registry gave another answer");
        return Ok(1);
    }
    println!("\nThe images and tarballs are below {}", first.folder.join("cas-out").display());
    Ok(0)
}

/// Whether this is what the service answers.
fn is_page(text: &str) -> bool {
    text.contains("<h1>* Hello, &lt;you&gt; *</h1>")
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}

/// Copies a folder without what a build leaves in it. Files that may be executed get the mode of folders.
fn copy(from: &Path, to: &Path, folders: u32, files: u32, time: SystemTime) -> Result<(), Failure> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !matches!(entry.file_name().to_str(), Some("cas-out" | "node_modules" | "dist")) {
                copy(&source, &target, folders, files, time)?;
            }
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else {
            fs::copy(&source, &target)?;
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            File::options().read(true).open(&target)?.set_times(FileTimes::new().set_modified(time))?;
            fs::set_permissions(&target, fs::Permissions::from_mode(if executable { folders } else { files }))?;
        }
    }
    fs::set_permissions(to, fs::Permissions::from_mode(folders))?;
    Ok(())
}
