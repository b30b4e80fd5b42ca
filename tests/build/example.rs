//! The example monorepo, with the real archives of Debian and npm.

use std::fs;
use std::path::Path;

use crate::{Home, text};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if entry.file_name() == "cas-out" {
            continue;
        }
        if kind.is_dir() {
            copy(&source, &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source).unwrap(), &target).unwrap();
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// What is made from the files of the repository alone has golden digests; what holds packages of Debian has not, because
/// the archive drops old ones and the lock may have to be made anew.
const GOLDEN: [&str; 7] = [
    "command //apps/web:build blake3:f89a53728604c41e3d2c0e68314074ae7e1a949edfeda3defc190810a6f02a4c",
    "command //codegen:words blake3:34c1b16e5431bd62f72cc44d0aab841cd27e91cf852b0c6f92db50d0db13d56b",
    "command //libs/greeting:build blake3:a2e9dee949ec158cd5fb82837bf403537df6c64237610194f75b7b3cbbd4cd59",
    "npm //libs/greeting:package sha256:2f2871bc3bd5d930e22febf2a8aaff5f033b1cf99349dd76f94a770669f8e90a",
    "command //libs/text:build blake3:ae75b9437c1354ee7e8987650af7eb243492c47a9988c5f46dc16250cd439480",
    "npm //libs/text:package sha256:270ad5c98f97f5ca35c23994b674fc6318b0c7965e55ba34df49249c424c4f1d",
    "fetch //:npm blake3:10357a5c915e33b0590c0ed2baa7ae9b247986b27b85f26efe914cfc23d32703",
];

#[test]
fn the_example_is_built_tested_and_run() {
    let home = Home::new("");
    let workspace = home.workspace();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/monorepo"), &workspace);
    let cas = |arguments: &[&str]| {
        let mut command = home.command(arguments);
        // Where the machine has its own registry or certificates, they are used.
        for name in ["npm_config_registry", "SSL_CERT_FILE", "HTTPS_PROXY", "HTTP_PROXY", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.output().unwrap()
    };
    let mut output = cas(&["build", "--locked"]);
    if output.status.code() == Some(4) {
        if !text(&output.stderr).contains("no longer has") {
            eprintln!("SKIPPED: the archives of Debian and npm cannot be reached");
            return;
        }
        eprintln!("note: the archive dropped a pinned package; the lock is made anew in a copy");
        let locked = cas(&["lock", "--update"]);
        assert_eq!(locked.status.code(), Some(0), "{}", text(&locked.stderr));
        output = cas(&["build", "--locked"]);
    }
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    for line in GOLDEN {
        assert!(stdout.contains(line), "{line} is not in\n{stdout}");
    }
    let output = cas(&["test", "--locked"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).lines().filter(|line| line.ends_with(" passed")).count(), 5);
    let output = cas(&["run", "//apps/web:image", "--offline", "--", "node", "/app/server.js", "--check"]);
    let page = text(&output.stdout);
    assert!(
        page.starts_with("<h1>* Hello, &lt;you&gt; *</h1>\n<ul>\n<li>Grüße.txt 657c48d2</li>"),
        "{page}{}",
        text(&output.stderr)
    );
    // A comment that leaves the output equal: nothing behind it runs.
    let words = workspace.join("codegen/words.json");
    let changed = format!("// A comment.\n{}", fs::read_to_string(&words).unwrap());
    fs::write(words, changed).unwrap();
    let output = cas(&["test", "--offline"]);
    let stderr = text(&output.stderr);
    let ran: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("ran ")?.split(' ').next()).collect();
    assert_eq!(ran, ["//codegen:words"], "{stderr}");
    // A source of one library: its dependents run, and nothing else.
    let source = workspace.join("libs/greeting/src/index.js");
    let changed = fs::read_to_string(&source).unwrap().replace("\"* \"", "\"*  \"");
    fs::write(source, changed).unwrap();
    let output = cas(&["build", "--offline"]);
    let stderr = text(&output.stderr);
    let ran: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("ran ")?.split(' ').next()).collect();
    assert_eq!(ran, ["//libs/greeting:build"], "{stderr}");
    let changed = text(&output.stdout);
    let image = |text: &str| text.lines().find(|line| line.starts_with("image ")).map(str::to_owned);
    assert_ne!(image(&changed), image(&stdout));
    assert!(changed.contains(GOLDEN[5]), "the other library's tarball is the same");
}
