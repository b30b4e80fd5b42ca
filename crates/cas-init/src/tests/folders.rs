//! `cas init` for each kind of folder.

use std::path::PathBuf;

use super::{assert_text, notes, of, shown, tree};
use crate::{Host, InitError, NoteKind, Source, propose};

/// An application on two libraries: one compiled, by settings of a package of settings, and one used as it is.
const WORKSPACE: [(&str, &str); 14] = [
    (
        "package.json",
        r#"{"name": "acme", "private": true, "workspaces": ["apps/*", "libs/**", "!libs/old"],
        "scripts": {"build": "turbo run build", "lint": "eslint ."}, "devDependencies": {"typescript": "^5"}}"#,
    ),
    ("package-lock.json", r#"{"lockfileVersion": 3}"#),
    (".gitignore", "node_modules/\ndist/\ncoverage\n"),
    (".npmrc", "//registry/:_authToken=secret"),
    ("tsconfig.base.json", r#"{"compilerOptions": {"strict": true}}"#),
    (
        "apps/web/package.json",
        r#"{"name": "@acme/web", "scripts": {"dev": "vite", "build": "tsc --noEmit && vite build",
        "test": "vitest run --coverage", "test:unit": "vitest run", "test:e2e": "playwright test", "lint": "eslint . --fix"},
        "dependencies": {"@acme/ui": "*"}, "devDependencies": {"@acme/settings": "*", "vite": "^6"}}"#,
    ),
    ("apps/web/tsconfig.json", r#"{"extends": "@acme/settings/base.json", "compilerOptions": {"incremental": true}}"#),
    (
        "libs/ui/package.json",
        r#"{"name": "@acme/ui", "main": "./dist/index.js", "exports": {".": "./dist/index.js", "./theme.css": "./theme.css"},
        "scripts": {"build": "npm run clean && npm run compile", "compile": "tsc -p tsconfig.json", "clean": "rm -rf dist",
        "typecheck": "tsc --noEmit", "test": "echo \"Error: no test specified\" && exit 1"},
        "dependencies": {"@acme/text": "*"}, "devDependencies": {"@acme/settings": "*"}}"#,
    ),
    ("libs/ui/theme.css", ""),
    (
        "libs/ui/tsconfig.json",
        r#"{"extends": "@acme/settings/base.json", "compilerOptions": {"outDir": "./dist", "rootDir": "src", "composite": true}}"#,
    ),
    ("libs/text/package.json", r#"{"name": "@acme/text", "main": "src/index.js", "scripts": {"test": "node --test"}}"#),
    ("libs/settings/package.json", r#"{"name": "@acme/settings"}"#),
    (
        "libs/settings/base.json",
        r#"{ // for all
        "compilerOptions": {"target": "es2022",},}"#,
    ),
    ("libs/old/package.json", r#"{"name": "@acme/old", "scripts": {"build": "tsc"}}"#),
];

#[test]
fn an_npm_workspace_gets_one_file_a_package() {
    let proposal = of(&WORKSPACE, Source::Folder).expect("it is right");
    assert_text(
        &shown(&proposal),
        r#"== apps/web/cas.toml
[command.build]
toolchain = "//:host"
run = "npm run build"
deps = ["^build", "//:npm"]
outputs = ["dist"]
scratch = ["tsconfig.tsbuildinfo"]

[test.test]
toolchain = "//:host"
run = "npm run test"
deps = [":build", "^build", "//:npm"]
scratch = ["coverage"]

[test.test-unit]
toolchain = "//:host"
run = "npm run test:unit"
deps = [":build", "^build", "//:npm"]
scratch = ["coverage"]

[test.lint]
toolchain = "//:host"
run = "npm run lint"
deps = ["^build", "//:npm"]
scratch = ["coverage"]

[run.dev]
run = "npm run dev"
deps = ["^build"]

# Scripts of package.json that are no target: test:e2e.
== cas.toml
[workspace]
members = ["apps/*", "libs/settings", "libs/text", "libs/ui"]
inputs = ["libs/settings/**", "libs/text/**", "libs/ui/theme.css", "package.json", "tsconfig.base.json"]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { probe = ["node --version", "npm --version"] }

[fetch.npm]
lockfile = "package-lock.json"
== libs/settings/cas.toml
# No targets: this file makes the folder a package of the workspace.
== libs/text/cas.toml
[test.test]
toolchain = "//:host"
run = "npm run test"
deps = ["//:npm"]
scratch = ["coverage"]
== libs/ui/cas.toml
[command.build]
toolchain = "//:host"
run = "npm run build"
deps = ["//:npm"]
outputs = ["dist"]
scratch = ["tsconfig.tsbuildinfo"]

[test.typecheck]
toolchain = "//:host"
run = "npm run typecheck"
deps = ["//:npm"]
scratch = ["coverage", "tsconfig.tsbuildinfo"]

# Scripts of package.json that are no target: compile, clean, test.
"#,
    );
    assert_text(
        &notes(&proposal, &[NoteKind::Found, NoteKind::Check, NoteKind::Dropped]),
        "found: 8 targets in 5 files\n\
         found: npm workspace with 4 packages\n\
         check: sources that other packages use as they are became inputs of every package: libs/settings/**, libs/text/**, \
         libs/ui/theme.css; a build with outputs in their packages would make that finer\n\
         not carried: package.json:2:21: `build` runs turbo: `cas build` and `cas test` do that\n\
         not carried: package.json:2:49: `lint` of the root is no target: in a step it would see the root's own files alone\n",
    );
}

/// npm lets packages need each other; a build would wait for ever.
#[test]
fn circles_of_packages_become_no_circles_of_targets() {
    let package = |name: &str, needs: &str| {
        format!(
            r#"{{"name": "{name}", "scripts": {{"build": "tsc"}}, "devDependencies": {{{needs}}}, "dependencies": {{}}}}"#
        )
    };
    let (a, b, c) = (package("a", r#""b": "*""#), package("b", r#""c": "*", "a": "*""#), package("c", r#""b": "*""#));
    let settings = r#"{"compilerOptions": {"outDir": "dist"}}"#;
    let proposal = of(
        &[
            ("package.json", r#"{"workspaces": {"packages": ["p/*"]}}"#),
            ("p/a/package.json", &a),
            ("p/b/package.json", &b),
            ("p/c/package.json", &c),
            ("p/a/tsconfig.json", settings),
            ("p/b/tsconfig.json", settings),
            ("p/c/tsconfig.json", settings),
        ],
        Source::Folder,
    )
    .expect("it is right");
    let deps = |path: &str| proposal.files[path].lines().find(|line| line.starts_with("deps")).map(str::to_owned);
    assert_eq!(deps("p/a/cas.toml").as_deref(), Some("deps = [\"^build\"]"));
    assert_eq!(deps("p/b/cas.toml").as_deref(), Some("deps = [\"//p/c:build\"]"));
    assert_eq!(deps("p/c/cas.toml"), None);
    let told = notes(&proposal, &[NoteKind::Check]);
    assert_eq!(
        told,
        "check: `//p/b:build` would wait for `//p/a:build`, which waits for it: that dependency was left out\n\
         check: `//p/c:build` would wait for `//p/b:build`, which waits for it: that dependency was left out\n"
    );
}

#[test]
fn a_pnpm_workspace_has_its_own_lockfile() {
    let proposal = of(
        &[
            ("package.json", r#"{"name": "root", "packageManager": "pnpm@9.1.0"}"#),
            ("pnpm-workspace.yaml", "packages:\n  - 'site'\n"),
            ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n"),
            ("site/package.json", r#"{"name": "site", "scripts": {"build": "next build", "start": "next start", "check-types": "next typegen && tsc --noEmit"}, "dependencies": {"next": "15"}}"#),
            ("site/next.config.mjs", "export default { output: 'export' }\n"),
        ],
        Source::Folder,
    )
    .expect("it is right");
    assert_text(
        &shown(&proposal),
        r#"== cas.toml
[workspace]
members = ["site"]
inputs = ["package.json", "pnpm-workspace.yaml"]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { probe = ["node --version", "npm --version"] }

[fetch.npm]
lockfile = "pnpm-lock.yaml"
== site/cas.toml
[command.build]
toolchain = "//:host"
run = "npm run build"
deps = ["//:npm"]
outputs = [".next", "out"]
scratch = ["next-env.d.ts"]

[test.check-types]
toolchain = "//:host"
run = "npm run check-types"
deps = ["//:npm"]
scratch = [".next", "next-env.d.ts", "out"]

# Scripts of package.json that are no target: start.
"#,
    );
}

#[test]
fn what_yarn_installed_is_an_input_of_this_machine() {
    let folder = tree(&[
        (
            "package.json",
            r#"{"name": "one", "scripts": {"build": "webpack", "test": "jest"}, "dependencies": {"x": "1"}}"#,
        ),
        ("yarn.lock", ""),
    ]);
    let proposal = propose(folder.path(), &super::host(), Source::Folder).expect("it is right");
    super::check(&proposal);
    let root = cas_fs::canonicalize(folder.path()).expect("it is there").display().to_string();
    assert_text(
        // Not shown where the temporary folder is one that steps never see.
        &shown(&proposal).replace(&root, "ROOT").replace("paths = [\"ROOT/node_modules\"], ", ""),
        r#"== cas.toml
[workspace]
inputs = ["package.json"]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { probe = ["node --version", "npm --version"] }

# What `yarn install` installed on this machine: cas does not read yarn.lock yet. Not hermetic.
# Fill it with: yarn install
[command.node_modules]
toolchain = ":host"
run = "cp -a \"ROOT/node_modules\" ."
inputs = ["yarn.lock", "package.json"]
outputs = ["node_modules"]

# What it makes is not known: add `outputs`, the folders or files in the package.
[command.build]
toolchain = ":host"
run = "npm run build"
deps = ["//:node_modules"]

[test.test]
toolchain = ":host"
run = "npm run test"
deps = [":build", "//:node_modules"]
"#,
    );
    let told = notes(&proposal, &[NoteKind::Todo]).replace(&root, "ROOT");
    assert!(told.contains("to do: run `yarn install`: `//:node_modules` copies what it installs\n"), "{told}");
}

#[test]
fn a_cargo_workspace_is_built_and_tested_as_one() {
    let proposal = of(
        &[
            ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\nexclude = [\"crates/old\"]\n"),
            (
                "Cargo.lock",
                "[[package]]\nname = \"x\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n",
            ),
            (
                "crates/app/Cargo.toml",
                "[package]\nname = \"app\"\n[[bin]]\nname = \"extra\"\nrequired-features = [\"x\"]\n",
            ),
            ("crates/app/src/main.rs", ""),
            ("crates/app/src/bin/helper.rs", ""),
            ("crates/lib/Cargo.toml", "[package]\nname = \"lib\"\n"),
            ("crates/lib/src/lib.rs", ""),
            ("crates/old/Cargo.toml", "[package]\nname = \"old\"\n"),
            ("crates/old/src/main.rs", ""),
        ],
        Source::Folder,
    )
    .expect("it is right");
    assert_text(
        &shown(&proposal),
        r#"== cas.toml
[workspace]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { probe = ["cargo --version", "cc --version"] }

[fetch.crates]
lockfile = "Cargo.lock"

[command.build]
toolchain = ":host"
run = "cargo build --release --workspace --locked --offline"
deps = [":crates"]
outputs = ["target/release/app", "target/release/helper"]
scratch = ["target"]
timeout = "30m"

[test.test]
toolchain = ":host"
run = "cargo test --workspace --locked --offline"
deps = [":crates"]
scratch = ["target"]
timeout = "30m"
"#,
    );
}

#[test]
fn go_modules_read_the_module_cache_of_this_machine() {
    let files = [
        ("go.work", "go 1.22\n\nuse (\n\t./api\n\t./lib\n)\n"),
        ("api/go.mod", "module example.org/api\n"),
        ("api/go.sum", "x v1 h1:x\n"),
        ("api/cmd/server/main.go", "// The server.\npackage main\n"),
        ("lib/go.mod", "module example.org/lib\n"),
        ("lib/lib.go", "package lib\n"),
    ];
    let folder = tree(&files);
    let host = Host { go_module_cache: Some(PathBuf::from("/cache/mod")), ..Host::default() };
    let proposal = propose(folder.path(), &host, Source::Folder).expect("it is right");
    super::check(&proposal);
    assert_text(
        &shown(&proposal),
        r#"== cas.toml
[workspace]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { paths = ["/cache/mod"], probe = ["go version"] }

# Modules come from this machine's module cache: not hermetic.
# Fill it with: go mod download
[command.build]
toolchain = ":host"
run = "mkdir -p bin && go build -trimpath -o bin/ ./api/... ./lib/..."
outputs = ["bin"]
env = { GOMODCACHE = "/cache/mod", GOPROXY = "off", GOTOOLCHAIN = "local" }

[test.test]
toolchain = ":host"
run = "go test ./api/... ./lib/..."
env = { GOMODCACHE = "/cache/mod", GOPROXY = "off", GOTOOLCHAIN = "local" }
"#,
    );
    let told = notes(&proposal, &[NoteKind::Todo]);
    assert!(told.contains("to do: run `go mod download`: steps read modules from `/cache/mod`\n"), "{told}");
}

#[test]
fn vendored_go_modules_need_nothing_of_this_machine() {
    let files = [("go.mod", "module x\n"), ("go.sum", "x\n"), ("vendor/modules.txt", ""), ("lib.go", "package x\n")];
    let proposal = of(&files, Source::Folder).expect("it is right");
    let text = &proposal.files["cas.toml"];
    assert!(text.contains("host = { probe = [\"go version\"] }") && !text.contains("GOMODCACHE"), "{text}");
    assert!(text.contains("run = \"go build ./...\"\n"), "{text}");
}

#[test]
fn a_makefile_and_scripts_are_told_and_not_guessed() {
    let files = [("Makefile", "all: app\n\ncheck:\n\t./check.sh\n"), ("check.sh", "#!/bin/sh\n"), ("notes.txt", "")];
    let proposal = of(&files, Source::Folder).expect("it is right");
    assert_text(
        &shown(&proposal),
        r#"== cas.toml
[workspace]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = {}

# The rules of Makefile: all, check.
# Shell scripts: check.sh.
# Which files they read and write is not known. To begin with:
#
# [command.all]
# toolchain = ":host"
# run = "make all"
# outputs = ["what it makes"]
"#,
    );
}

#[test]
fn several_kinds_share_a_folder() {
    let proposal = of(
        &[
            ("package.json", r#"{"name": "x", "scripts": {"build": "tsc"}, "workspaces": ["js/*"]}"#),
            ("js/native/package.json", r#"{"name": "native", "scripts": {"build": "node build.js"}}"#),
            ("js/native/Cargo.toml", "[package]\nname = \"native\"\n"),
            ("Cargo.toml", "[workspace]\nmembers = [\"js/native\"]\n"),
            ("Cargo.lock", ""),
            ("tools/go.mod", "module tools\n"),
            ("tools/main.go", "package main\n"),
        ],
        Source::Folder,
    )
    .expect("it is right");
    assert_eq!(
        proposal.files.keys().map(String::as_str).collect::<Vec<_>>(),
        ["cas.toml", "js/native/cas.toml", "tools/cas.toml"]
    );
    let root = &proposal.files["cas.toml"];
    assert!(
        root.contains("members = [\"js/*\", \"tools\"]\ninputs = [\"js/native/**\", \"package.json\"]\n"),
        "{root}"
    );
    assert!(root.contains("[command.build]\ntoolchain = \":host\"\nrun = \"cargo build"), "{root}");
    assert!(proposal.files["tools/cas.toml"].contains("toolchain = \"//:host\"\nrun = \"mkdir -p bin && go build"));

    let single = of(
        &[
            ("package.json", r#"{"name": "x", "scripts": {"build": "tsc --outDir lib"}}"#),
            ("Cargo.toml", "[package]\nname = \"x\"\n"),
        ],
        Source::Folder,
    )
    .expect("it is right");
    let names: Vec<&str> = single.files["cas.toml"].lines().filter(|line| line.starts_with("[command")).collect();
    assert_eq!(names, ["[command.build]", "[command.cargo-build]"]);
    assert!(single.files["cas.toml"].contains("outputs = [\"lib\"]"));
}

#[test]
fn what_is_there_is_not_overwritten() {
    for at in ["cas.toml", "libs/ui/cas.toml"] {
        let mut files = WORKSPACE.to_vec();
        files.push((at, "[workspace]\n"));
        match of(&files, Source::Folder) {
            Err(error @ InitError::Exists { .. }) => {
                assert_eq!(error.to_string(), format!("`{at}` is there already, and is not overwritten"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn outputs_are_left_to_git_in_repositories_alone() {
    for (files, expected) in [
        (&[("a.sh", "")][..], None),
        (&[(".git/HEAD", "")][..], Some("/cas-out/\n")),
        (&[(".git", "gitdir: x"), (".gitignore", "dist")][..], Some("dist\n/cas-out/\n")),
        (&[(".git/HEAD", ""), (".gitignore", "cas-out\n")][..], None),
    ] {
        let proposal = of(files, Source::Folder).expect("it is right");
        assert_eq!(proposal.gitignore.as_deref(), expected, "{files:?}");
    }
}

/// Vite's own template: the build info of two configurations goes where nothing would look for it.
#[test]
fn build_info_of_references_is_dropped() {
    let info = |name: &str| {
        format!(
            "{{\"compilerOptions\": {{\"tsBuildInfoFile\": \"./node_modules/.tmp/tsconfig.{name}.tsbuildinfo\", \"noEmit\": true}}}}"
        )
    };
    let proposal = of(
        &[
            (
                "package.json",
                r#"{"name": "x", "scripts": {"build": "tsc -b && vite build"}, "devDependencies": {"vite": "6"}}"#,
            ),
            (
                "tsconfig.json",
                r#"{"files": [], "references": [{"path": "./tsconfig.app.json"}, {"path": "./tsconfig.node.json"}]}"#,
            ),
            ("tsconfig.app.json", &info("app")),
            ("tsconfig.node.json", &info("node")),
            ("vite.config.ts", "export default defineConfig({ build: { outDir: 'public' } })"),
        ],
        Source::Folder,
    )
    .expect("it is right");
    let text = &proposal.files["cas.toml"];
    assert!(text.contains("outputs = [\"public\"]\nscratch = [\"node_modules/.tmp\"]\n"), "{text}");
}
