//! `cas init` and `cas import`: what is printed, what is written, and the exit codes.

use std::fs;

use crate::{Home, text};

fn home(files: &[(&str, &str)]) -> Home {
    let home = Home::new("");
    fs::remove_file(home.workspace().join("cas.toml")).unwrap();
    for (path, content) in files {
        home.write(path, content);
    }
    home
}

#[test]
fn init_writes_once_and_never_over_a_file() {
    let home = home(&[
        ("package.json", r#"{"name": "x", "scripts": {"build": "tsc"}, "devDependencies": {"typescript": "5"}}"#),
        ("package-lock.json", r#"{"lockfileVersion": 3}"#),
        ("tsconfig.json", r#"{"compilerOptions": {"outDir": "dist"}}"#),
        (".git/HEAD", "ref: refs/heads/main\n"),
        (".gitignore", "dist\n"),
    ]);
    let shown = home.cas(&["init", "--dry-run"]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    assert!(shown.starts_with("==> cas.toml <==\n[workspace]\n"), "{shown}");
    assert!(!home.workspace().join("cas.toml").exists());

    let output = home.cas(&["init"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "wrote cas.toml\nwrote .gitignore\n".to_owned())
    );
    let notes = text(&output.stderr);
    assert!(notes.contains("found: 1 target in 1 file\n") && notes.contains("hermetic: "), "{notes}");
    let written = home.read("cas.toml");
    assert_eq!(shown, format!("==> cas.toml <==\n{written}\n==> .gitignore <==\ndist\n/cas-out/\n\n"));

    let again = home.cas(&["init"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        text(&again.stderr),
        "error: `cas.toml` is there already, and is not overwritten\nhint: remove it, or change it by hand\n"
    );
    assert_eq!(home.read("cas.toml"), written);
}

#[test]
fn an_import_tells_where_what_it_left_is() {
    let home = home(&[
        ("package.json", r#"{"workspaces": ["a"]}"#),
        ("a/package.json", r#"{"name": "a", "scripts": {"deploy": "x", "dev": "x", "test": "node --test"}}"#),
        (
            "turbo.json",
            "{\n  \"tasks\": {\n    \"test\": {},\n    \"deploy\": { \"cache\": false },\n    \"dev\": { \"persistent\": true }\n  }\n}\n",
        ),
    ]);
    let output = home.cas(&["import", "turbo", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let notes = document["notes"].as_array().unwrap();
    let left: Vec<_> = notes.iter().filter(|note| note["kind"] == "not carried").collect();
    assert_eq!(left.len(), 1, "{notes:?}");
    assert_eq!((&left[0]["file"], &left[0]["line"]), (&"turbo.json".into(), &4.into()));
    let written = home.read("a/cas.toml");
    assert!(
        written.starts_with("[test.test]\n") && written.ends_with("[run.dev]\nrun = \"npm run dev\"\n"),
        "{written}"
    );
}

#[test]
fn a_broken_file_is_an_error_of_configuration() {
    let home = home(&[("package.json", "{}"), ("nx.json", "{\n  \"targetDefaults\" 1\n}\n")]);
    let output = home.cas(&["import", "nx"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "error: `nx.json`, line 2, column 20: `:` was expected\nhint: mend `nx.json`\n");
    let output = home.cas(&["import", "nx", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["findings"][0]["line"], &document["exit"]), (&2.into(), &"usage".into()));
    assert_eq!(home.cas(&["import", "turbo"]).status.code(), Some(2));
}

/// An application on a library that is built, on one that is used as it is.
const MONOREPO: [(&str, &str); 11] = [
    ("package.json", r#"{"name": "acme", "private": true, "workspaces": ["apps/*", "libs/*"]}"#),
    (
        "package-lock.json",
        r#"{"name": "acme", "lockfileVersion": 3, "requires": true, "packages": {
  "": {"name": "acme", "workspaces": ["apps/*", "libs/*"]},
  "apps/web": {"version": "1.0.0", "dependencies": {"@a/ui": "*"}},
  "libs/text": {"name": "@a/text", "version": "1.0.0"},
  "libs/ui": {"name": "@a/ui", "version": "1.0.0", "dependencies": {"@a/text": "*"}},
  "node_modules/@a/text": {"resolved": "libs/text", "link": true},
  "node_modules/@a/ui": {"resolved": "libs/ui", "link": true},
  "node_modules/web": {"resolved": "apps/web", "link": true}}}"#,
    ),
    (".gitignore", "dist\nnode_modules\n"),
    (
        "turbo.json",
        r#"{"tasks": {"build": {"dependsOn": ["^build"], "outputs": ["dist/**"]}, "test": {"dependsOn": ["build"]}}}"#,
    ),
    (
        "apps/web/package.json",
        r#"{"name": "web", "version": "1.0.0", "main": "dist/main.js", "scripts": {"build": "node build.js", "test": "node --test"}, "dependencies": {"@a/ui": "*"}}"#,
    ),
    (
        "apps/web/build.js",
        "const fs = require('fs');\nfs.mkdirSync('dist');\nfs.writeFileSync('dist/main.js', `// ${require('@a/ui')('web')}\\n`);\n",
    ),
    (
        "apps/web/web.test.js",
        "require('node:test')('x', () => { require('@a/ui')('y'); require('fs').readFileSync('dist/main.js'); });\n",
    ),
    (
        "libs/ui/package.json",
        r#"{"name": "@a/ui", "version": "1.0.0", "main": "dist/index.js", "scripts": {"build": "mkdir -p dist && cp src/*.js dist/"}, "dependencies": {"@a/text": "*"}}"#,
    ),
    ("libs/ui/src/index.js", "module.exports = (x) => require('@a/text')(x) + '!';\n"),
    ("libs/text/package.json", r#"{"name": "@a/text", "version": "1.0.0", "main": "index.js"}"#),
    ("libs/text/index.js", "module.exports = (x) => x.toUpperCase();\n"),
];

/// The point of it: what is written builds and passes, as it is.
#[test]
fn what_is_written_builds_at_once() {
    if !["/usr/bin/node", "/usr/bin/npm"].iter().all(|path| fs::exists(path).unwrap()) {
        eprintln!("SKIPPED: this machine has no node and npm in /usr/bin");
        return;
    }
    for arguments in [&["init"][..], &["import", "turbo"]] {
        let home = home(&MONOREPO);
        let output = home.command(arguments).env("PATH", "/usr/bin").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        for work in ["build", "test"] {
            let output = home.cas(&[work]);
            assert_eq!(output.status.code(), Some(0), "{arguments:?}, {work}: {}", text(&output.stderr));
        }
        assert_eq!(home.read("cas-out/apps/web/build/dist/main.js"), "// WEB!\n");
    }
}
