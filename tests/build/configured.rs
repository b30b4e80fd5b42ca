//! Toolchains whose packages' scripts ran: Debian's essential packages, with one more whose script is made here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cas_blob::Descriptor;
use cas_config::Lock;
use cas_digest::{Digest, DigestFunction};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::archives::Archives;
use crate::{Home, text};

/// An ordinary user that exists on every system.
const USER: u32 = 65534;
const KEY: &str = "one@example.invalid";

/// What a script does on a machine, and some of what it must not leave.
const SCRIPT: &str = "\
[ $(id -u) = 0 ]
useradd --system --uid 777 --user-group --no-create-home tool
mkdir /srv/tool /srv/tool/own
echo data > /srv/tool/own/file; chown -R tool:tool /srv/tool; chmod 2750 /srv/tool/own; chmod 0600 /srv/tool/own/file
ln /srv/tool/own/file /srv/tool/second
echo now > /var/log/alternatives.log; echo now > /run/tool.pid; mkdir /tmp/left; echo 0123 > /etc/machine-id
update-alternatives --install /usr/bin/tool tool /bin/true 10
if [ -e /sys/kernel ] || mount -t tmpfs none /mnt 2>/dev/null; then exit 1; fi
cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' ' > /srv/network";

struct Configured {
    archives: Archives,
    home: Home,
}

impl Configured {
    /// A workspace with the toolchain, in a folder that everybody may enter; `None` after saying what is missing.
    fn new(script: &str) -> Option<Self> {
        let archives = Archives::new()?;
        let key = archives.key(KEY);
        let tool = archives.scripted("tool", "1", "tool 1\n", script);
        archives.publish("main", "stable", KEY, &[("tool", "1", &tool)]);
        let home = Home::new(&format!(
            "[workspace]\n[toolchain.root]\ndebian = {{ suite = \"bookworm\", packages = [\"passwd\", \"tool\"], configure = true, \
             also = [{{ suite = \"stable\", mirror = \"file://{}\", keyring = \"one.gpg\" }}] }}\n",
            archives.at("main").display()
        ));
        fs::write(home.workspace().join("one.gpg"), key).unwrap();
        let configured = Self { archives, home };
        let output = configured.cas(&["lock"]);
        match output.status.code() {
            Some(0) => Some(configured),
            Some(4) => {
                eprintln!("SKIPPED: the archive of Debian cannot be reached");
                None
            }
            _ => panic!("{}", text(&output.stderr)),
        }
    }

    fn cas(&self, arguments: &[&str]) -> Output {
        self.with_environment(self.home.command(arguments)).output().unwrap()
    }

    /// Where the machine has its own certificates and proxies, they are used.
    fn with_environment(&self, mut command: Command) -> Command {
        for name in ["SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }

    /// The same as an ordinary user, in a copy of the workspace, with a list of subordinate ids.
    fn as_user(&self, ranges: &str) -> Output {
        let folder = self.users_folder(ranges);
        self.with_environment(command_of_user(&folder, &["build", ":root", "--locked"])).output().unwrap()
    }

    /// A folder of that user, with a copy of the workspace and of the program, and that list.
    fn users_folder(&self, ranges: &str) -> PathBuf {
        let folder = self.archives.at("user");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for name in ["cas.toml", "cas.lock", "one.gpg"] {
            fs::copy(self.home.workspace().join(name), folder.join(name)).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(self.archives.at("."), fs::Permissions::from_mode(0o755)).unwrap();
        prepare_user(&folder, ranges);
        folder
    }

    /// The tree that the packages of the lock have, by the name under which it is remembered.
    fn tree(&self, store: &Store) -> (Descriptor, Directory) {
        let lock = fs::read_to_string(self.home.workspace().join("cas.lock")).unwrap();
        let mut rules = "configured-1 blake3\n".to_owned();
        for package in &Lock::parse(&lock).unwrap().debian[0].packages {
            rules.push_str(&format!("{}\n", package.blob));
        }
        let key = Digest::of(DigestFunction::Blake3, rules.as_bytes()).to_string();
        let name = store.memo("debian-tree", key.as_bytes()).unwrap().unwrap();
        let name: Descriptor = text(&name).parse().unwrap();
        (name, store.load_tree(&name).unwrap())
    }
}

/// Gives a folder to the ordinary user, with a copy of the program and a list of subordinate ids.
fn prepare_user(folder: &Path, ranges: &str) {
    fs::copy(env!("CARGO_BIN_EXE_cas"), folder.join("cas")).unwrap();
    fs::write(folder.join("ranges"), ranges).unwrap();
    chown(folder, Some(USER), Some(USER)).unwrap();
}

/// The program as that user runs it there.
fn command_of_user(folder: &Path, arguments: &[&str]) -> Command {
    let lists = "for list in /etc/subuid /etc/subgid; do mount --bind \"$0\" $list; done; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", lists]).arg(folder.join("ranges")).args([
        "setpriv",
        &format!("--reuid={USER}"),
        &format!("--regid={USER}"),
        "--clear-groups",
        "--",
    ]);
    command.arg(folder.join("cas")).args(arguments).current_dir(folder).env_clear();
    command.env("CAS_HOME", folder.join("store")).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Whether this host lets an ordinary user have subordinate ids, which takes root to be set up.
fn has_users() -> bool {
    let has_lists = ["/etc/subuid", "/etc/subgid"].iter().all(|list| Path::new(list).exists());
    let has_users = is_root() && has_lists && Command::new("newuidmap").output().is_ok();
    if !has_users {
        eprintln!("SKIPPED: an ordinary user needs root, `/etc/subuid`, `/etc/subgid` and newuidmap (package uidmap)");
    }
    has_users
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn scripts_run_with_many_users_and_leave_nothing_of_the_moment() {
    let Some(configured) = Configured::new(SCRIPT) else { return };
    let output = configured.cas(&["build", ":root", "--locked"]);
    let stderr = text(&output.stderr);
    if output.status.code() == Some(6) && !is_root() {
        assert!(stderr.contains("many user ids cannot be had"), "{stderr}");
        eprintln!("SKIPPED: this user has no subordinate ids");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let stdout = text(&output.stdout);
    let store = Store::open(&configured.home.folder.path().join("store")).unwrap();
    let (name, tree) = configured.tree(&store);
    assert_eq!(stdout, format!("toolchain //:root {}\n", name.digest));
    let path = |text: &str| RelPath::new(text).unwrap();
    let metadata = |at: &str| {
        let Metadata { mode, uid, gid, .. } = *tree.get(&path(at)).unwrap().metadata().unwrap();
        (mode, uid, gid)
    };
    assert_eq!(metadata("srv/tool"), (0o755, 777, 777));
    assert_eq!(metadata("srv/tool/own"), (0o2750, 777, 777));
    assert_eq!(metadata("srv/tool/own/file"), (0o600, 777, 777));
    assert_eq!(tree.get(&path("srv/tool/second")), Some(&Node::Link { target: path("srv/tool/own/file") }));
    assert_eq!(metadata("var/mail"), (0o2775, 0, 8), "what the scripts did not touch keeps its group");
    assert_eq!(metadata("usr/bin/passwd"), (0o4755, 0, 0));
    for gone in ["var/log/alternatives.log", "run/tool.pid", "tmp/left", "etc/passwd-", "usr/sbin/policy-rc.d", "src"] {
        assert_eq!(tree.get(&path(gone)), None, "{gone}");
    }
    assert_eq!(metadata("tmp"), (0o1777, 0, 0));
    assert_eq!(tree.get_file(&path("etc/machine-id")).unwrap().1.size, 0);
    let content = |at: &str| {
        let (_, blob) = tree.get_file(&path(at)).unwrap();
        String::from_utf8(store.load(&blob, 1 << 20).unwrap()).unwrap()
    };
    assert_eq!(content("srv/network"), "lo\n");
    let passwd = content("etc/passwd");
    let numbers: Vec<u32> = passwd.lines().map(|row| row.split(':').nth(2).unwrap().parse().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers.contains(&777) && numbers.contains(&1000), "{passwd}");
    let shadow = content("etc/shadow");
    let (users, shadows): (Vec<_>, Vec<_>) = (
        passwd.lines().map(|row| row.split(':').next().unwrap()).filter(|user| *user != "build").collect(),
        shadow.lines().map(|row| row.split(':').next().unwrap()).collect(),
    );
    assert_eq!(users, shadows);
    assert!(shadow.contains("\ntool:!:5777:"), "the day is the one of the epoch: {shadow}");
    let status = content("var/lib/dpkg/status");
    assert!(status.contains("Package: tool\nStatus: install ok installed\n"), "{status}");
    assert!(!status.contains("half-") && !status.contains("unpacked"), "{status}");
    drop(store);

    // It is there: nothing runs.
    let again = configured.cas(&["build", ":root", "--locked", "--offline"]);
    assert_eq!(text(&again.stdout), stdout, "{}", text(&again.stderr));
    if !has_users() {
        return;
    }
    for ranges in ["", &format!("{USER}:100000:65534\n"), "somebody:100000:65536\n"] {
        let refused = configured.as_user(ranges);
        let stderr = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(6), "{stderr}");
        assert!(stderr.contains("`/etc/subuid` has no range of 65535 ids for `nobody`"), "{stderr}");
        assert!(stderr.contains("usermod --add-subuids 100000-165535"), "{stderr}");
    }
    let ordinary = configured.as_user(&format!("{USER}:300000:65535\n"));
    assert_eq!(text(&ordinary.stdout), stdout, "root and others make the same: {}", text(&ordinary.stderr));
    let left: Vec<_> = fs::read_dir(configured.archives.at("user/store/v1/tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_script_that_fails_is_told_with_what_it_printed() {
    let Some(configured) = Configured::new("echo this is why; exit 3") else { return };
    let output = configured.cas(&["build", ":root", "--locked"]);
    let stderr = text(&output.stderr);
    if output.status.code() == Some(6) && !is_root() {
        eprintln!("SKIPPED: this user has no subordinate ids");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: the packages of `//:root` could not be configured: exit code 1"), "{stderr}");
    assert!(stderr.contains("this is why"), "{stderr}");
    let log = stderr.split("the whole output is in `").nth(1).unwrap().split('`').next().unwrap();
    assert!(fs::read_to_string(Path::new(log)).unwrap().contains("this is why"));
}

/// Ids of the user's range, for what scripts of other users leave.
const RANGE: &str = "65534:300000:65535\n";

/// Folders of processes, running or killed.
fn sessions(store: &Path) -> Vec<PathBuf> {
    fs::read_dir(store.join("v1/tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What a killed program left belongs to users whom the one who killed it is not: the next command removes it all the same, where it
/// may be these users, and says what is missing where not.
#[test]
fn what_a_killed_build_left_of_other_users_is_removed() {
    if !has_users() {
        return;
    }
    let home = Home::new("[workspace]\n");
    fs::set_permissions(home.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let folder = home.workspace();
    prepare_user(&folder, RANGE);
    let store = folder.join("store");
    let run = |arguments: &[&str]| command_of_user(&folder, arguments).output().unwrap();
    assert_eq!(run(&["store", "stat"]).status.code(), Some(0));
    let left = store.join("v1/tmp/1-00000000/configure-x/root/upper/srv");
    fs::create_dir_all(left.join("own")).unwrap();
    for path in left.ancestors().take_while(|path| !path.ends_with("tmp")) {
        chown(path, Some(USER), Some(USER)).unwrap();
    }
    chown(left.join("own"), Some(300_032), Some(300_032)).unwrap();
    fs::write(left.join("own/file"), "x").unwrap();
    fs::set_permissions(left.join("own"), fs::Permissions::from_mode(0o700)).unwrap();

    fs::write(folder.join("ranges"), "").unwrap();
    assert_eq!(run(&["store", "stat"]).status.code(), Some(0), "it is in nobody's way");
    let refused = run(&["store", "gc"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("many user ids cannot be had"), "{}", text(&refused.stderr));
    assert!(text(&refused.stdout).starts_with("removed 0 objects"), "what could be done was done");
    assert!(left.join("own/file").exists());
    fs::write(folder.join("ranges"), RANGE).unwrap();
    let done = run(&["store", "gc"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(sessions(&store), Vec::<PathBuf>::new());
}

#[test]
fn a_configuration_that_is_killed_leaves_nothing_for_ever() {
    if !has_users() {
        return;
    }
    let script = "mkdir /srv/own; chown 33:33 /srv/own; chmod 700 /srv/own; touch /srv/own/file; sleep 1000";
    let Some(configured) = Configured::new(script) else { return };
    let folder = configured.users_folder(RANGE);
    let mut command = configured.with_environment(command_of_user(&folder, &["build", ":root", "--locked"]));
    let mut build = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let store = folder.join("store");
    let is_there = |session: &PathBuf| {
        let scratch = fs::read_dir(session).into_iter().flatten().flatten().map(|entry| entry.path());
        scratch.map(|scratch| scratch.join("root/upper/srv/own/file")).any(|file| file.exists())
    };
    while !store.join("v1/tmp").exists() || !sessions(&store).iter().any(is_there) {
        assert_eq!(build.try_wait().unwrap(), None, "it ended before the script ran");
        std::thread::sleep(Duration::from_millis(50));
    }
    build.kill().unwrap();
    build.wait().unwrap();
    assert!(sessions(&store).iter().any(is_there), "there is something to remove");
    // Its sandbox ends by itself a moment later; until then some of it may come back.
    while !sessions(&store).is_empty() {
        let done = command_of_user(&folder, &["store", "stat"]).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    }
}
