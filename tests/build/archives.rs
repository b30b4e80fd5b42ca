//! Toolchains from several archives of packages, each signed by keys of its own: made here with `dpkg-deb` and `gpg`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cas_digest::{Digest, DigestFunction};

use crate::{Home, text, toolchain};

/// Keys and archives in a folder.
pub(crate) struct Archives {
    folder: tempfile::TempDir,
}

const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

impl Archives {
    /// `None` after saying what is missing.
    pub(crate) fn new() -> Option<Self> {
        for program in ["gpg", "dpkg-deb"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
                eprintln!("SKIPPED: {program} is missing");
                return None;
            }
        }
        // The socket of gpg's agent has a path of at most 107 bytes.
        Some(Self { folder: tempfile::Builder::new().prefix("cas").tempdir_in("/tmp").unwrap() })
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    #[track_caller]
    fn gpg(&self, arguments: &[&str]) -> Vec<u8> {
        let home = self.at("gnupg");
        if !home.exists() {
            fs::create_dir(&home).unwrap();
            fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        }
        let mut command = Command::new("gpg");
        command.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]).args(arguments);
        let output = command.env("GNUPGHOME", home).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    }

    /// Makes a key; returns its public part.
    pub(crate) fn key(&self, name: &str) -> Vec<u8> {
        self.gpg(&["--quick-generate-key", name, "ed25519", "sign", "never"]);
        self.gpg(&["--export", name])
    }

    /// A package with one file.
    pub(crate) fn package(&self, name: &str, version: &str, content: &str) -> Vec<u8> {
        self.scripted(name, version, content, "")
    }

    /// The same with a script that runs when it is configured.
    pub(crate) fn scripted(&self, name: &str, version: &str, content: &str, script: &str) -> Vec<u8> {
        let tree = self.at("package");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("usr/share")).unwrap();
        fs::write(tree.join("usr/share").join(name), content).unwrap();
        let control =
            format!("Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x\nDescription: x\n");
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        if !script.is_empty() {
            let path = tree.join("DEBIAN/postinst");
            fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let deb = self.at("package.deb");
        let mut command = Command::new("dpkg-deb");
        let output = command.args(["--root-owner-group", "-b"]).arg(&tree).arg(&deb).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::read(deb).unwrap()
    }

    /// An archive with one suite that has these packages, signed.
    pub(crate) fn publish(&self, archive: &str, suite: &str, key: &str, packages: &[(&str, &str, &[u8])]) {
        let index = self.pool(archive, packages);
        self.sign(archive, suite, key, "Date: Sat, 01 Nov 2025 00:00:00 UTC\n", index.as_bytes());
    }

    /// Puts packages into an archive; returns an index of them.
    pub(crate) fn pool(&self, archive: &str, packages: &[(&str, &str, &[u8])]) -> String {
        let mut index = String::new();
        for (name, version, bytes) in packages {
            let path = format!("pool/{name}_{version}.deb");
            write(&self.at(archive).join(&path), bytes);
            index.push_str(&format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: {path}\nSize: {}\nSHA256: {}\n\n",
                bytes.len(),
                Digest::of(DigestFunction::Sha256, bytes).to_hex()
            ));
        }
        index
    }

    /// Gives an archive one suite with this index, signed; the fields of the release are `dates` and what has to be.
    pub(crate) fn sign(&self, archive: &str, suite: &str, key: &str, dates: &str, index: &[u8]) {
        let path = format!("main/binary-{ARCHITECTURE}/Packages");
        let folder = self.at(archive).join("dists").join(suite);
        write(&folder.join(&path), index);
        let release = format!(
            "Codename: {suite}\n{dates}SHA256:\n {} {} {path}\n",
            Digest::of(DigestFunction::Sha256, index).to_hex(),
            index.len()
        );
        let plain = self.at("Release");
        fs::write(&plain, release).unwrap();
        let signed = self.gpg(&["--local-user", key, "--clearsign", "--output", "-", plain.to_str().unwrap()]);
        write(&folder.join("InRelease"), &signed);
    }
}

impl Drop for Archives {
    fn drop(&mut self) {
        // gpg leaves an agent behind, which ends when it is told so.
        let mut command = Command::new("gpgconf");
        let _ = command.args(["--kill", "all"]).env("GNUPGHOME", self.at("gnupg")).output();
    }
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

const STEP: &str = "[command.tell]\ntoolchain = \":sh\"\nrun = \"cat /usr/share/tool /usr/share/other > told\"\noutputs = [\"told\"]\n";

#[test]
fn the_highest_version_of_several_archives_is_taken_and_each_has_its_keys() {
    let (Some(busybox), Some(archives)) = (toolchain::package(), Archives::new()) else { return };
    let (one, two) = (archives.key("one@example.invalid"), archives.key("two@example.invalid"));
    let tool = |version: &str| archives.package("tool", version, &format!("tool {version}\n"));
    let other = archives.package("other", "1.0", "the first\n");
    archives.publish(
        "main",
        "stable",
        "one@example.invalid",
        &[("busybox", "1", &busybox), ("tool", "1.9", &tool("1.9")), ("other", "1.0", &other)],
    );
    // The same version of `other`, with other bytes: the archive that is named first counts.
    let rebuilt = archives.package("other", "1.0", "the second\n");
    archives.publish(
        "more",
        "stable-security",
        "two@example.invalid",
        &[("tool", "1.10", &tool("1.10")), ("other", "1.0", &rebuilt)],
    );
    let manifest = |also: &str| {
        format!(
            "[workspace]\n[toolchain.sh]\ndebian = {{ suite = \"stable\", packages = [\"busybox\", \"other\", \"tool\"], \
             mirror = \"file://{}\", keyring = \"keys/one.gpg\"{also} }}\n{STEP}",
            archives.at("main").display()
        )
    };
    let further = |suite: &str, keyring: &str| {
        let mirror = archives.at("more").display().to_string();
        manifest(&format!(
            ", also = [{{ suite = \"{suite}\", mirror = \"file://{mirror}\", keyring = \"{keyring}\" }}]"
        ))
    };
    let home = Home::new(&manifest(""));
    write(&home.workspace().join("keys/one.gpg"), &one);
    write(&home.workspace().join("keys/two.gpg"), &two);
    home.write("keys/none.gpg", "no keys\n");
    let built = |expected: &str| {
        let output = home.cas(&["build", ":tell"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(home.read("cas-out/tell/told"), expected);
    };
    built("tool 1.9\nthe first\n");
    home.write("cas.toml", &further("stable-security", "keys/two.gpg"));
    let told = text(&home.cas(&["lock"]).stdout);
    assert_eq!(told, "//:sh tool: 1.9 -> 1.10\ncas.lock was written\n");
    assert_eq!(text(&home.cas(&["lock"]).stdout), "cas.lock is up to date\n");
    built("tool 1.10\nthe first\n");
    let lock = home.read("cas.lock");
    assert!(lock.contains("version = \"1.10\", archive = 1, path = \"pool/tool_1.10.deb\""), "{lock}");
    assert!(
        lock.contains(
            "request = \"stable main busybox,other,tool by keys/one.gpg + stable-security main by keys/two.gpg\""
        ),
        "{lock}"
    );
    assert!(!lock.contains("file:"), "a lock names no host: {lock}");
    // With the lock and the archives alone, elsewhere, it is the same.
    fs::remove_dir_all(home.folder.path().join("store")).unwrap();
    let output = home.cas(&["build", ":tell", "--locked"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // A lock that somebody wrote in names an archive that there is not.
    home.write("cas.lock", &lock.replace("archive = 1", "archive = 7"));
    fs::remove_dir_all(home.folder.path().join("store")).unwrap();
    let output = home.cas(&["build", ":tell", "--locked"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("the archive of `tool 1.10`") && stderr.contains("cas lock"), "{stderr}");
    home.write("cas.lock", &lock);
    let fails = |manifest: &str, code: i32, told: &str| {
        home.write("cas.toml", manifest);
        let output = home.cas(&["build", ":tell"]);
        assert_eq!(
            (output.status.code(), home.read("cas.lock")),
            (Some(code), lock.clone()),
            "{}",
            text(&output.stderr)
        );
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    };
    // A key vouches for its own archive alone.
    fails(&further("stable-security", "keys/one.gpg"), 3, "no signature is by a key of the keyring");
    fails(&further("stable-security", "keys/none.gpg"), 2, "keys/none.gpg` is not a keyring");
    fails(&further("stable-security", "keys/gone.gpg"), 2, "keys/gone.gpg");
    // The same keys sign another suite, which is in the place of this one.
    let suites = archives.at("more/dists");
    fs::rename(suites.join("stable-security"), suites.join("testing-security")).unwrap();
    fails(
        &further("testing-security", "keys/two.gpg"),
        3,
        "this is the release of `stable-security`, not of `testing-security`",
    );
}

#[test]
fn one_package_is_updated_and_the_others_stay() {
    let (Some(busybox), Some(archives)) = (toolchain::package(), Archives::new()) else { return };
    let key = archives.key("one@example.invalid");
    let made = |name: &str, version: &str| archives.package(name, version, &format!("{name} {version}\n"));
    let (tool, other) = (made("tool", "1"), made("other", "1"));
    let publish =
        |packages: &[(&str, &str, &[u8])]| archives.publish("main", "stable", "one@example.invalid", packages);
    publish(&[("busybox", "1", &busybox), ("tool", "1", &tool), ("other", "1", &other)]);
    let home = Home::new(&format!(
        "[workspace]\n[toolchain.sh]\ndebian = {{ suite = \"stable\", packages = [\"busybox\", \"other\", \"tool\"], \
         mirror = \"file://{}\", keyring = \"one.gpg\" }}\n{STEP}",
        archives.at("main").display()
    ));
    write(&home.workspace().join("one.gpg"), &key);
    let lock = |arguments: &[&str]| {
        let output = home.cas(&[&["lock"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(lock(&[]), format!("//:sh: 3 packages for {ARCHITECTURE} is new\ncas.lock was written\n"));
    let (tool2, other2) = (made("tool", "2"), made("other", "2"));
    publish(&[
        ("busybox", "1", &busybox),
        ("tool", "1", &tool),
        ("tool", "2", &tool2),
        ("other", "1", &other),
        ("other", "2", &other2),
    ]);
    assert_eq!(lock(&[]), "cas.lock is up to date\n");
    assert_eq!(lock(&["--update", "--only", "tool"]), "//:sh tool: 1 -> 2\ncas.lock was written\n");
    // What the archive no longer has cannot stay.
    publish(&[("busybox", "1", &busybox), ("tool", "2", &tool2), ("other", "2", &other2)]);
    assert_eq!(lock(&["--update", "--only", "tool"]), "//:sh other: 1 -> 2\ncas.lock was written\n");
    assert_eq!(lock(&["--update", "--only", ":sh"]), "cas.lock is up to date\n");
    let output = home.cas(&["lock", "--update", "--only", "nothing"]);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains("pins no package `nothing`"), "{stderr}");
}

/// An old state of an archive was signed well once, and hides what was mended since.
#[test]
fn a_replayed_release_is_refused_until_its_pins_are_removed() {
    let (Some(busybox), Some(archives)) = (toolchain::package(), Archives::new()) else { return };
    let key = archives.key("one@example.invalid");
    let made = |version: &str| archives.package("tool", version, &format!("tool {version}\n"));
    let publish = |archive: &str, day: u32, version: &str| {
        let index = archives.pool(archive, &[("busybox", "1", &busybox), ("tool", version, &made(version))]);
        let date = format!("Date: Sat, {day:02} Nov 2025 00:00:00 UTC\n");
        archives.sign(archive, "stable", "one@example.invalid", &date, index.as_bytes());
    };
    publish("main", 3, "3");
    publish("more", 3, "1");
    let manifest = |packages: &str| {
        format!(
            "[workspace]\n[toolchain.sh]\ndebian = {{ suite = \"stable\", packages = [{packages}], \
             mirror = \"file://{}\", keyring = \"one.gpg\", also = [{{ suite = \"stable\", mirror = \"file://{}\", keyring = \"one.gpg\" }}] }}\n",
            archives.at("main").display(),
            archives.at("more").display()
        )
    };
    let home = Home::new(&manifest("\"busybox\", \"tool\""));
    write(&home.workspace().join("one.gpg"), &key);
    let lock = |code: i32, arguments: &[&str]| {
        let output = home.cas(&[&["lock"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    };
    lock(0, &[]);
    let locked = home.read("cas.lock");
    assert!(locked.contains("\nrelease_date = [1762128000, 1762128000]\n"), "{locked}");
    // Each archive has a date of its own, so a newer one does not hide that another went back.
    publish("main", 4, "4");
    publish("more", 2, "9");
    for arguments in [&["--update"][..], &["--update", "--only", "tool"]] {
        let told = lock(3, arguments);
        assert!(
            told.contains("the release file of `stable` is of 2025-11-02 00:00:00 UTC, older than that of 2025-11-03 00:00:00 UTC which is pinned")
                && told.contains("hint: use a mirror that is up to date; to go back on purpose, remove the entry"),
            "{told}"
        );
        assert_eq!(home.read("cas.lock"), locked);
    }
    // Another set of packages is resolved anew, and no way around.
    home.write("cas.toml", &manifest("\"tool\""));
    lock(3, &[]);
    home.write("cas.toml", &manifest("\"busybox\", \"tool\""));
    // Pins alone need no release.
    assert_eq!(lock(0, &[]), "cas.lock is up to date\n");
    publish("more", 3, "1");
    assert_eq!(lock(0, &["--update"]), "//:sh tool: 3 -> 4\ncas.lock was written\n");
    publish("main", 1, "1");
    lock(3, &["--update"]);
    home.write("cas.lock", "format = 1\n");
    lock(0, &[]);
    assert!(home.read("cas.lock").contains("\nrelease_date = [1761955200, 1762128000]\n"));
}

/// A snapshot is right although its release has expired; who says `as_of` gets what was there then, everywhere.
#[test]
fn a_snapshot_is_judged_as_of_the_moment_that_is_named() {
    let (Some(busybox), Some(archives)) = (toolchain::package(), Archives::new()) else { return };
    let key = archives.key("one@example.invalid");
    let (tool, other) = (archives.package("tool", "1", "tool\n"), archives.package("other", "1", "other\n"));
    let index = archives.pool("main", &[("busybox", "1", &busybox), ("tool", "1", &tool), ("other", "1", &other)]);
    let date = "Date: Sat, 01 Nov 2025 00:00:00 UTC\n";
    let sign = |dates: &str| archives.sign("main", "stable", "one@example.invalid", dates, index.as_bytes());
    let manifest = |more: &str| {
        format!(
            "[workspace]\n[toolchain.sh]\ndebian = {{ suite = \"stable\", packages = [\"busybox\", \"other\", \"tool\"], \
             mirror = \"file://{}\", keyring = \"one.gpg\"{more} }}\n{STEP}",
            archives.at("main").display()
        )
    };
    let home = |more: &str| {
        let home = Home::new(&manifest(more));
        write(&home.workspace().join("one.gpg"), &key);
        home
    };
    let cas = |home: &Home, code: i32, arguments: &[&str]| {
        let output = home.cas(arguments);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    };
    let built = |home: &Home, more: &str| {
        let output = home.cas(&[&["build", ":sh", ":tell"][..], &[more]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(home.read("cas-out/tell/told"), "tool\nother\n");
        text(&output.stdout)
    };
    // What is made of the same packages without the key, as long as that is possible.
    sign(date);
    let first = home("");
    let (expected, pins) = (built(&first, "--keep-going"), first.read("cas.lock"));
    assert!(expected.contains(":tell blake3:"), "{expected}");
    sign(&format!("{date}Valid-Until: Sat, 08 Nov 2025 00:00:00 UTC\n"));
    let one = home("");
    cas(&one, 3, &["lock"]);
    assert!(!one.workspace().join("cas.lock").exists());
    one.write("cas.toml", &manifest(", as_of = \"2025-11-05\""));
    cas(&one, 0, &["lock"]);
    let words = "busybox,other,tool as of 2025-11-05T00:00:00Z by one.gpg";
    assert_eq!(one.read("cas.lock"), pins.replace("busybox,other,tool by one.gpg", words));
    assert_eq!(built(&one, "--locked"), expected);
    // The same moment in other words is the same.
    one.write("cas.toml", &manifest(", as_of = \"2025-11-05T00:00:00Z\""));
    assert_eq!(cas(&one, 0, &["lock"]), "cas.lock is up to date\n");
    // Another one is resolved anew: until the last second that is valid, and from the first one on.
    for (moment, code) in [
        ("2025-11-08T00:00:01Z", 3),
        ("2025-11-08T00:00:00Z", 0),
        ("2025-10-31T23:59:59Z", 3),
        ("2025-11-01T00:00:00Z", 0),
    ] {
        let before = one.read("cas.lock");
        one.write("cas.toml", &manifest(&format!(", as_of = \"{moment}\"")));
        let told = cas(&one, 2, &["build", ":sh", "--locked"]);
        assert!(told.contains("`cas.lock` is not up to date"), "{told}");
        cas(&one, code, &["lock"]);
        let after = one.read("cas.lock");
        assert_eq!((after != before, after.contains(&format!(" as of {moment} "))), (code == 0, code == 0), "{moment}");
    }
    // With the lock, or with the key alone, another store has the same.
    let other = home(", as_of = \"2025-11-01\"");
    assert_eq!(built(&other, "--keep-going"), expected);
    assert_eq!(other.read("cas.lock"), one.read("cas.lock"));
    fs::remove_dir_all(other.folder.path().join("store")).unwrap();
    assert_eq!(built(&other, "--locked"), expected);
    // Without the key it is now again.
    one.write("cas.toml", &manifest(""));
    cas(&one, 3, &["lock"]);
}
