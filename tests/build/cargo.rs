//! Cargo: the folder of crates from a lockfile, with a registry on loopback; cargo itself builds from it where it is installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use cas_digest::{Digest, DigestFunction};

use crate::registry::{archive, serve};
use crate::{Home, text};

const LEFT: &[(&str, &str)] = &[
    ("Cargo.toml", "[package]\nname = \"left\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"),
    ("src/lib.rs", "pub fn text() -> &'static str { \"left\" }\n"),
    ("tools/run.sh", "#!/bin/sh\n"),
];
const RIGHT: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        "[package]\nname = \"right\"\nversion = \"0.2.0\"\nedition = \"2021\"\n[dependencies]\nleft = \"1\"\n",
    ),
    ("src/lib.rs", "pub fn text() -> String { format!(\"{} and right\", left::text()) }\n"),
    (".cargo-checksum.json", "{\"files\": {\"src/lib.rs\": \"00\"}}"),
];

fn lockfile(left: &[u8], right: &[u8]) -> String {
    let sum = |bytes: &[u8]| Digest::of(DigestFunction::Sha256, bytes).to_hex();
    format!(
        "version = 4\n\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\ndependencies = [\n \"right\",\n]\n\n\
         [[package]]\nname = \"left\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{}\"\n\n\
         [[package]]\nname = \"right\"\nversion = \"0.2.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{}\"\ndependencies = [\n \"left\",\n]\n",
        sum(left),
        sum(right)
    )
}

/// A workspace with crates in `rust`, and a registry that the user's configuration puts in the place of crates.io.
fn workspace(left: &[u8], right: &[u8]) -> Option<Home> {
    let look = "[command.look]\ntoolchain = \"//:sh\"\nrun = \"cd /src; find . -type f | sort > $OLDPWD/list; cat rust/.cargo/config.toml > $OLDPWD/config; test -x crates/left-1.0.0/tools/run.sh\"\noutputs = [\"list\", \"config\"]\ndeps = [\":crates\"]\n[command.copy]\ntoolchain = \"//:sh\"\nrun = \"mkdir out; cp -a crates rust out\"\noutputs = [\"out\"]\ndeps = [\":crates\"]\n";
    let home = Home::with_busybox(
        &format!("[workspace]\nmembers = [\"other\"]\n[fetch.crates]\nlockfile = \"rust/Cargo.lock\"\n{look}"),
        &[
            (
                "rust/Cargo.toml",
                "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nright = \"0.2\"\n",
            ),
            ("rust/src/main.rs", "fn main() { println!(\"{}\", right::text()); }\n"),
            ("rust/Cargo.lock", &lockfile(left, right)),
        ],
    )?;
    let address =
        serve(vec![("/right/0.2.0.crate".to_owned(), right.to_vec()), ("/left/1.0.0.crate".to_owned(), left.to_vec())]);
    let index = serve(vec![(
        "/index/config.json".to_owned(),
        format!("{{\"dl\": \"{address}/{{crate}}/{{version}}.crate\"}}").into_bytes(),
    )]);
    let cargo_home = home.folder.path().join("cargo");
    fs::create_dir(&cargo_home).unwrap();
    let config =
        format!("[source.crates-io]\nreplace-with = \"near\"\n[source.near]\nregistry = \"sparse+{index}/index/\"\n");
    fs::write(cargo_home.join("config.toml"), config).unwrap();
    Some(home)
}

fn build(home: &Home, arguments: &[&str]) -> Output {
    home.command(arguments).env("CARGO_HOME", home.folder.path().join("cargo")).output().unwrap()
}

fn crates() -> (Vec<u8>, Vec<u8>) {
    (archive("left-1.0.0", LEFT), archive("right-0.2.0", RIGHT))
}

#[test]
fn a_step_finds_crates_and_the_way_to_them() {
    let (left, right) = crates();
    let Some(home) = workspace(&left, &right) else { return };
    let output = build(&home, &["build", ":look"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let list = home.read("cas-out/look/list");
    let found: Vec<&str> = list.lines().filter(|line| line.contains("crates/") || line.contains("rust/")).collect();
    let expected = [
        "./crates/left-1.0.0/.cargo-checksum.json",
        "./crates/left-1.0.0/Cargo.toml",
        "./crates/left-1.0.0/src/lib.rs",
        "./crates/left-1.0.0/tools/run.sh",
        "./crates/right-0.2.0/.cargo-checksum.json",
        "./crates/right-0.2.0/Cargo.toml",
        "./crates/right-0.2.0/src/lib.rs",
        "./rust/.cargo/config.toml",
        "./rust/Cargo.lock",
        "./rust/Cargo.toml",
        "./rust/src/main.rs",
    ];
    assert_eq!(found, expected);
    let config = "[source.cas]\ndirectory = \"../crates\"\n\n[source.crates-io]\nreplace-with = \"cas\"\n";
    assert_eq!(home.read("cas-out/look/config"), config);
    // Where the crates were fetched from is in no key.
    fs::remove_dir_all(home.folder.path().join("cargo")).unwrap();
    let again = build(&home, &["build", "--offline", ":look"]);
    assert!(text(&again.stderr).ends_with("0 steps ran, 1 was cached\n"), "{}", text(&again.stderr));
    // What the workspace says itself stays, but for where crates come from.
    let own = "[build]\nincremental = false\n[source.crates-io]\nreplace-with = \"gone\"\n[source.gone]\nregistry = \"sparse+http://127.0.0.1:1/\"\n";
    home.write("rust/.cargo/config.toml", own);
    let output = build(&home, &["build", "--offline", ":look"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(home.read("cas-out/look/config"), format!("[build]\nincremental = false\n\n{config}"));
}

/// cargo takes the crates as they are, without a network and with the lockfile as it is.
#[test]
fn cargo_builds_from_the_folder() {
    let (left, right) = crates();
    let Some(home) = workspace(&left, &right) else { return };
    if Command::new("cargo").arg("--version").output().is_err() {
        eprintln!("SKIPPED: cargo is not installed");
        return;
    }
    let output = build(&home, &["build", ":copy"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let place = home.workspace().join("cas-out/copy/out");
    let mode = fs::metadata(place.join("crates/left-1.0.0/tools/run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
    let checksum = fs::read_to_string(place.join("crates/left-1.0.0/.cargo-checksum.json")).unwrap();
    let sum = Digest::of(DigestFunction::Sha256, &left).to_hex();
    assert_eq!(checksum, format!("{{\"files\":{{}},\"package\":\"{sum}\"}}"));
    let cargo_home = home.folder.path().join("empty");
    let run = Command::new("cargo")
        .args(["run", "--offline", "--locked", "--quiet"])
        .current_dir(place.join("rust"))
        .env("CARGO_HOME", &cargo_home)
        .env("CARGO_TARGET_DIR", home.folder.path().join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert_eq!(text(&run.stdout), "left and right\n", "{}", text(&run.stderr));
}

#[test]
fn what_is_wrong_is_told() {
    let (left, right) = crates();
    let git = "source = \"git+https://host/left?rev=1#0123456789\"";
    let source = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    let rows: &[(&str, &str, i32, &str)] = &[
        (
            "version = 4",
            "version = 2",
            2,
            "cause: it has version 2; known are 3 and 4, which cargo 1.53 and later write\nhint: ",
        ),
        (
            source,
            git,
            2,
            "cause: `left 1.0.0` (https://host/left) come from git, which is not available yet\nhint: use a version from a registry",
        ),
        (
            source,
            "source = \"registry+https://host/index\"",
            2,
            "error: could not find where the crates of `rust/Cargo.lock` are\n  cause: the index `https://host/index`",
        ),
        ("checksum = ", "checksums = ", 2, "cause: `left 1.0.0` has no checksum\nhint: restore `Cargo.lock`"),
        ("checksum = \"", "checksum = \"00", 2, "cause: `left 1.0.0` has a bad checksum"),
        ("1.0.0", "1.0.1", 4, "error: the registry does not have `left 1.0.1`, which `rust/Cargo.lock` names\n"),
    ];
    for (from, to, code, message) in rows {
        let Some(home) = workspace(&left, &right) else { return };
        let lock = home.read("rust/Cargo.lock");
        let changed = lock.replacen(from, to, 1);
        assert_ne!(changed, lock);
        home.write("rust/Cargo.lock", &changed);
        let output = build(&home, &["build", ":crates"]);
        let stderr = text(&output.stderr);
        assert!(stderr.contains(message), "{to} gave {stderr}");
        assert_eq!(output.status.code(), Some(*code), "{stderr}");
    }
}

#[test]
fn archives_that_are_not_the_crate_are_refused() {
    let (left, right) = crates();
    let mut bomb = crate::toolchain::tar_member("left-1.0.0/Cargo.toml", 0o644, None, b"");
    // The size of its content: 2 GiB, of which nothing comes.
    let size = format!("{:011o}", 2_u64 << 30);
    bomb[124..135].copy_from_slice(size.as_bytes());
    bomb[148..156].copy_from_slice(b"        ");
    let sum: u32 = bomb[..512].iter().map(|byte| u32::from(*byte)).sum();
    bomb[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let bomb = gzip(&bomb);
    for (bytes, code, message) in [
        (
            &bomb,
            3,
            "error: package `left 1.0.0` is damaged\n  cause: the archive holds more than 1073741824 bytes of content",
        ),
        (&archive("other-1.0.0", LEFT), 3, "cause: it has no folder `left-1.0.0`"),
        (&archive("left-1.0.0", &LEFT[1..]), 3, "cause: it has no `Cargo.toml`"),
        (&b"none".to_vec(), 3, "error: package `left 1.0.0` is damaged\n"),
    ] {
        let Some(home) = workspace(bytes, &right) else { return };
        let output = build(&home, &["build", ":crates"]);
        assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
        assert_eq!(output.status.code(), Some(code));
    }
    // The registry has other bytes than those that are locked.
    let Some(home) = workspace(&left, &right) else { return };
    home.write("rust/Cargo.lock", &lockfile(b"other", &right));
    let output = build(&home, &["build", ":crates"]);
    assert!(text(&output.stderr).contains("/left/1.0.0.crate` is not what is pinned"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(3));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    Command::new("gzip").arg("-c").arg(file.path()).output().unwrap().stdout
}
