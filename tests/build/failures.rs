//! Damage from outside: bad packages and signatures, full disks, killed builds. Nothing is lost, nothing wrong is used.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas_digest::{Digest, DigestFunction};

use crate::toolchain::{lock, package};
use crate::{Home, text};

const STEP: &str = "[workspace]\n[test.x]\ntoolchain = \":sh\"\nrun = \"true\"\n";

#[test]
fn a_package_that_is_another_is_refused() {
    let Some(home) = Home::with_busybox(STEP, &[]) else { return };
    let path = home.folder.path().join("mirror/busybox.deb");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let output = home.cas(&["test"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains("busybox.deb` is not what is pinned"), "{}", text(&output.stderr));
}

#[test]
fn a_damaged_package_is_told() {
    let Some(mut bytes) = package() else { return };
    let Some(home) = Home::with_busybox(STEP, &[]) else { return };
    // The lock pins just these bytes, which are no package.
    bytes.truncate(bytes.len() - 600);
    fs::write(home.folder.path().join("mirror/busybox.deb"), &bytes).unwrap();
    home.write("cas.lock", &lock(&bytes));
    let output = home.cas(&["test"]);
    assert_eq!(output.status.code(), Some(3));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("error: package `busybox 1` is damaged\n  cause: "), "{stderr}");
}

#[test]
fn a_package_that_the_archive_lost_names_the_way_out() {
    let Some(home) = Home::with_busybox(STEP, &[]) else { return };
    fs::remove_file(home.folder.path().join("mirror/busybox.deb")).unwrap();
    let output = home.cas(&["test"]);
    assert_eq!(output.status.code(), Some(4));
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with("error: the archive no longer has `busybox 1`, which `cas.lock` pins\n")
            && stderr.contains("hint: run `cas lock --update`"),
        "{stderr}"
    );
}

#[test]
fn an_index_with_a_bad_signature_is_refused() {
    let Some(home) = Home::with_busybox(STEP, &[]) else { return };
    fs::remove_file(home.workspace().join("cas.lock")).unwrap();
    let suite = home.folder.path().join("mirror/dists/test");
    fs::create_dir_all(&suite).unwrap();
    let signature = "iHUEARYKAB0WIQQAAAAAAAAAAAAAAAAAAAAAAAAAAAUCAAAAAAAKCRAAAAAAAAAAAAAA";
    let message = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: test\n-----BEGIN PGP SIGNATURE-----\n\n{signature}\n=AAAA\n-----END PGP SIGNATURE-----\n"
    );
    for text_of_index in [message.as_str(), "Suite: test\n", ""] {
        fs::write(suite.join("InRelease"), text_of_index).unwrap();
        let output = home.cas(&["test"]);
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("error: could not make the toolchain `//:sh` of `test`\n  cause: "), "{stderr}");
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(!home.workspace().join("cas.lock").exists());
    }
}

/// A disk of 4 MiB, in namespaces of its own, that the store fills.
#[test]
fn a_full_disk_is_told_and_harms_nothing() {
    let home = Home::new("");
    let content = "x".repeat(6 << 20);
    fs::write(home.folder.path().join("data.txt"), &content).unwrap();
    let manifest = format!(
        "[workspace]\n[fetch.data]\nurl = \"file://{}/data.txt\"\nsha256 = \"{}\"\n",
        home.folder.path().display(),
        Digest::of(DigestFunction::Sha256, content.as_bytes()).to_hex()
    );
    home.write("cas.toml", &manifest);
    let disk = home.folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let script = "mount -t tmpfs -o size=4m cas \"$1\" || exit 99; \"$0\" build --store \"$1/store\"; code=$?; \
                  find \"$1/store/v1/objects\" -type f | wc -l; exit $code";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_cas")])
        .arg(&disk)
        .current_dir(home.workspace())
        .output();
    let Some(output) = output.ok().filter(|output| !matches!(output.status.code(), Some(1 | 99))) else {
        eprintln!("SKIPPED: no memory file system can be mounted here");
        return;
    };
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).trim()), (Some(5), "0"), "{stderr}");
    assert!(stderr.contains("hint: make room on the disk of the store"), "{stderr}");
}

#[test]
fn a_killed_build_leaves_nothing_that_is_in_the_way() {
    let manifest = "[workspace]\n[command.a]\ntoolchain = \":sh\"\nrun = \"echo 1 > a\"\noutputs = [\"a\"]\n\
        [command.b]\ntoolchain = \":sh\"\nrun = \"sleep 1; cat a a > b\"\ndeps = [\":a\"]\noutputs = [\"b\"]\n";
    for delay_ms in [0, 30, 120, 700] {
        let Some(home) = Home::with_busybox(manifest, &[]) else { return };
        let mut child = home.command(&["build"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let output = home.cas(&["build"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(home.read("cas-out/b/b"), "1\n1\n");
        let store = home.folder.path().join("store/v1");
        assert_eq!(fs::read_dir(store.join("quarantine")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(store.join("tmp")).unwrap().count(), 0, "work of the dead is cleared");
    }
}

/// Both signals end the build and its steps at once, each with its own exit code.
#[test]
fn signals_end_a_build_with_its_steps() {
    let manifest = "[workspace]\n[test.x]\ntoolchain = \":sh\"\nrun = \"sleep 60\"\n";
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let Some(home) = Home::with_busybox(manifest, &[]) else { return };
        let child = home.command(&["test"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let started = Instant::now();
        // Until the step runs, the whole store is being filled.
        while !home.folder.path().join("store/v1/roots").read_dir().is_ok_and(|mut roots| roots.next().is_some()) {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(20));
        }
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(text(&output.stderr), "error: interrupted\n");
        assert!(started.elapsed() < Duration::from_secs(25));
    }
}

/// What would have helped is told with the line to write: what another target makes, what `inputs` leaves out, files of
/// other packages, what git ignores. What the step has, makes itself or looks for in vain is not.
#[test]
fn a_failed_step_tells_what_it_looked_for_and_was_not_given() {
    let step = "toolchain = \"//:sh\"\n";
    let manifest = format!(
        "[workspace]\nmembers = [\"libs/*\", \"apps/*\"]\n[fetch.npm]\nlockfile = \"package-lock.json\"\n{}",
        crate::workspace::SECTION
    )
    .replace(crate::workspace::SECTION, "");
    let ui = format!("[command.build]\n{step}outputs = [\"dist\"]\nrun = \"mkdir dist; echo x > dist/index\"\n");
    let web = format!(
        "[command.build]\n{step}outputs = [\"out\"]\ninputs = [\"src/**\"]\nrun = '''\n\
         cat src/a ../../libs/ui/dist/index ./config.json ../../tsconfig.base.json ../../libs/ui/package.json \
         node_modules/left/index.js ./.npmrc ./secret.env nowhere out/x 2>/dev/null\n'''\n"
    );
    let Some(home) = Home::with_busybox(
        &manifest,
        &[
            ("package-lock.json", "{\"lockfileVersion\": 3, \"packages\": {}}"),
            ("tsconfig.base.json", "{}"),
            (".gitignore", "*.env\n"),
            ("libs/ui/cas.toml", &ui),
            ("libs/ui/package.json", "{\"name\": \"ui\"}"),
            ("apps/web/cas.toml", &web),
            ("apps/web/package.json", "{\"name\": \"web\"}"),
            ("apps/web/src/a", "a"),
            ("apps/web/config.json", "{}"),
            ("apps/web/secret.env", "x"),
            // It may hold a token: no advice to show it.
            ("apps/web/.npmrc", "x"),
        ],
    ) else {
        return;
    };
    let output = home.cas(&["build", "//apps/web:build"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let told: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("  looked for ")).collect();
    assert_eq!(
        told,
        [
            "`apps/web/node_modules/left/index.js`: `//:npm` makes it: add \"//:npm\" to `deps`",
            "`libs/ui/dist/index`: `//libs/ui:build` makes it: add \"//libs/ui:build\" to `deps`",
            "`apps/web/config.json`: add \"config.json\" to `inputs`",
            "`apps/web/secret.env`: git ignores it, so it is no input: track it, or let a target make it",
            "`tsconfig.base.json`: add \"tsconfig.base.json\" to `inputs` of `[workspace]`",
        ],
        "{stderr}"
    );
    let json = home.cas(&["build", "//apps/web:build", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["failures"][0]["missed"][1]["path"], "libs/ui/dist/index");
    // With these lines it works, as far as they are about what is needed.
    let fixed = web
        .replace("inputs = [", "deps = [\"//libs/ui:build\"]\ninputs = [\"config.json\", ")
        .replace("node_modules/left/index.js ./.npmrc ./secret.env nowhere out/x", "> out")
        .replace("2>/dev/null", "");
    home.write("apps/web/cas.toml", &fixed);
    let manifest = fs::read_to_string(home.workspace().join("cas.toml")).unwrap();
    home.write("cas.toml", &manifest.replace("[workspace]\n", "[workspace]\ninputs = [\"tsconfig.base.json\"]\n"));
    let output = home.cas(&["build", "//apps/web:build"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// The bomb is bounded by itself.
#[test]
fn a_step_that_wants_more_memory_than_it_may_have_is_told_so() {
    const BOMB: &str = "[workspace]\n[test.x]\ntoolchain = \":sh\"\nmemory = \"64MiB\"\n\
                        run = \"busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=256; busybox sleep 20\"\n";
    let Some(home) = Home::with_busybox(BOMB, &[]) else { return };
    let output = home.cas(&["test"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let expected =
        "`//:x` failed: it wanted more than 64 MiB of memory; `memory` of the step says how much it may have\n";
    assert!(stderr.contains(expected), "{stderr}");
}
