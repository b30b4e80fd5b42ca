//! The program where nothing else is: a root with a kernel's file systems and the addresses of name servers, and no more.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::remove;
use crate::run::Failure;

/// The workspace that is built there: a step in a toolchain of Debian, fetched over HTTPS, and an image.
const EXAMPLE: &str = "[workspace]\n\
    [toolchain.sh]\ndebian = { suite = \"bookworm\", packages = [\"busybox-static\"], mirror = \"https://deb.debian.org/debian\" }\n\
    [command.make]\ntoolchain = \":sh\"\nrun = [\"/bin/busybox\", \"sh\", \"-c\", \"echo hello > hello\"]\noutputs = [\"hello\"]\n\
    [image.hello]\nlayers = [{ from = \":make\", path = \"hello\", to = \"/hello\" }]\n";
/// Gives a root what a container has. `own ROOT VARIABLES ARGUMENTS` is the program, with that as its root: nothing else is left of the
/// machine's, and unlike in a root of `chroot` user namespaces can be made.
const ENTER: &str = "mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" && mount --rbind /sys \"$1/sys\" || exit 1\n\
    own() { unshare --mount env -i $2 HOME=/tmp CAS_HOME=/tmp/store PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/busybox sh -c \
    'mount --rbind \"$0\" \"$0\" && cd \"$0\" && pivot_root . old && /old/bin/busybox umount -l /old && exec /cas \"$@\"' \"$1\" $3; }\n";
/// Starts a registry there, pushes to it by name, and ends it.
const PUSH: &str = "rm -f \"$1/tmp/port\"\n\
    own \"$1\" '' 'serve --registry --store /tmp/registry --listen 127.0.0.1:0 --port-file /tmp/port' & server=$!\n\
    count=0; while ! [ -s \"$1/tmp/port\" ] && [ $count -lt 200 ]; do sleep 0.1; count=$((count + 1)); done\n\
    own \"$1\" '' \"-C /work push :hello localhost:$(cat \"$1/tmp/port\")/team/hello:1.0.0 --locked\"; code=$?\n\
    kill $server; exit $code\n";

/// Tries it; whether all went well.
pub(super) fn run(root: &Path, program: &Path) -> Result<bool, Failure> {
    remove(root)?;
    for folder in ["proc", "dev", "sys", "tmp", "etc", "work", "old"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy(program, root.join("cas"))?;
    fs::write(root.join("work/cas.toml"), EXAMPLE)?;
    // Where names are asked for is told by whoever runs a container.
    let resolver = Path::new("/etc/resolv.conf");
    if resolver.exists() {
        fs::copy(resolver, root.join("etc/resolv.conf"))?;
    }
    let mut all_well = inside(root, "the version", "own \"$1\" '' --version")?;
    all_well &= inside(root, "what the host can do", "own \"$1\" '' doctor")?;
    all_well &= over_https(root)?;
    all_well &= inside(root, "a push, to `localhost`", PUSH)?;
    Ok(all_well)
}

/// The program believes what Mozilla believes where a machine has no certificates. A network in which a proxy of its own answers
/// HTTPS has certificates that Mozilla does not know: there those that `SSL_CERT_FILE` names are tried behind it.
fn over_https(root: &Path) -> Result<bool, Failure> {
    if inside(root, "a step over HTTPS, with the certificates of the program", "own \"$1\" '' '-C /work build'")? {
        return Ok(true);
    }
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| Path::new(path).exists()) else {
        return Ok(false);
    };
    println!("note: once more, with the certificates that SSL_CERT_FILE names");
    fs::copy(path, root.join("etc/certificates.pem"))?;
    let script = "own \"$1\" SSL_CERT_FILE=/etc/certificates.pem '-C /work build'";
    inside(root, "a step over HTTPS, with the certificates of this machine", script)
}

/// Runs a script whose `own` is the program in the root.
fn inside(root: &Path, what: &str, script: &str) -> Result<bool, Failure> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["sh", "-c", &format!("{ENTER}{script}"), "sh"]).arg(root).stdin(Stdio::null());
    let started = Instant::now();
    let is_well = command.status()?.success();
    println!("{} {what}, {:.2} s", if is_well { "well:" } else { "FAILED:" }, started.elapsed().as_secs_f64());
    std::io::stdout().flush()?;
    Ok(is_well)
}
