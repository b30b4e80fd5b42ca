//! Files that are wrong: a message with the place, never a panic, and never a text that `cas-config` does not take.

use proptest::prelude::*;

use super::{check, host, of, put, tree};
use crate::{InitError, Source, propose};

#[test]
fn mistakes_are_told_with_file_line_and_column() {
    let package = ("package.json", r#"{"workspaces": ["a"]}"#);
    for (files, source, expected) in [
        (
            &[("package.json", "{\n  \"name\": }")][..],
            Source::Folder,
            "`package.json`, line 2, column 11: a value was expected",
        ),
        (
            &[package, ("a/package.json", "{\"x\": \"")],
            Source::Folder,
            "`a/package.json`, line 1, column 8: the string does not end",
        ),
        (
            &[("package.json", "{}"), ("pnpm-workspace.yaml", "packages:\n  x: y\n")],
            Source::Folder,
            "`pnpm-workspace.yaml`, line 2, column 1: `- GLOB` was expected in `packages`",
        ),
        (
            &[("go.work", "use (\n  ./a ./b\n)\n")],
            Source::Folder,
            "`go.work`, line 2, column 1: a folder was expected after `use`",
        ),
        (&[package, ("turbo.json", "[]")], Source::Turbo, "`turbo.json`, line 1, column 1: the file is not an object"),
        (
            &[package, ("turbo.json", "{\"tasks\":\n {\"build\": 1}}")],
            Source::Turbo,
            "`turbo.json`, line 2, column 12: task `build` is not an object",
        ),
        (
            &[("nx.json", "{\"targetDefaults\": 1}")],
            Source::Nx,
            "`nx.json`, line 1, column 20: `targetDefaults` is not an object",
        ),
        (
            &[("nx.json", "{}"), ("a/project.json", "{\"targets\": []}")],
            Source::Nx,
            "`a/project.json`, line 1, column 13: `targets` is not an object",
        ),
    ] {
        let error = of(files, source).expect_err("it is wrong");
        assert_eq!(error.to_string(), expected);
        assert!(error.is_about_configuration() && error.hint().is_some());
    }
    let error = of(&[("Cargo.toml", "[package]\nname = x\n")], Source::Folder).expect_err("it is wrong").to_string();
    assert!(error.starts_with("`Cargo.toml`, line 2, column 8: "), "{error}");
}

#[test]
fn files_have_a_limit() {
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    let error = of(&[("package.json", &long)], Source::Folder).expect_err("it is too long");
    assert!(
        matches!(&error, InitError::Fs(error) if error.source.kind() == std::io::ErrorKind::FileTooLarge),
        "{error}"
    );
    let folder = tree(&[]);
    put(folder.path(), "package.json", b"{\"name\": \"\xff\"}");
    let error = propose(folder.path(), &host(), Source::Folder).expect_err("it is no text");
    assert_eq!(error.to_string(), "`package.json` is not UTF-8");
}

/// What a name or a script of another tool holds must not become more than a string of TOML.
#[test]
fn hostile_names_stay_strings() {
    let proposal = of(
        &[
            ("package.json", r#"{"workspaces": ["a"], "name": "x\"\n[command.evil]\n"}"#),
            ("turbo.json", r#"{"tasks": {"te\"st\n": {"dependsOn": ["\u0000"]}, "build": {"outputs": ["di\"st/**", "a\nb", "\u0000"], "env": ["A\"B\n", "A\u0000"], "inputs": ["..", "{", "[", "\n"]}, "---": {}}}"#),
            ("a/package.json", r#"{"name": "a", "scripts": {"te\"st\n": "x", "build": "y\n\n[command.evil]", "---": "z", "\n[x]\n": ""}}"#),
        ],
        Source::Turbo,
    )
    .expect("it is right");
    let text = &proposal.files["a/cas.toml"];
    assert!(!text.contains("evil"), "{text}");
    assert!(text.contains("[command.te-st-]\ntoolchain = \"//:host\"\nrun = \"npm run 'te\\\"st\\n'\"\n"), "{text}");
}

/// A fixture that has every kind of file.
const FIXTURE: [(&str, &str); 12] = [
    (
        "package.json",
        r#"{"name": "r", "workspaces": ["p/*"], "scripts": {"build": "turbo build"}, "nx": {"includedScripts": []}}"#,
    ),
    ("pnpm-workspace.yaml", "packages:\n  - 'p/*'\n"),
    (
        "turbo.json",
        r#"{"globalEnv": ["A"], "tasks": {"build": {"dependsOn": ["^build", "b#test"], "outputs": ["dist/**"], "inputs": ["src/*"]}, "test": {"cache": false}}}"#,
    ),
    (
        "nx.json",
        r#"{"namedInputs": {"default": ["default", {"env": "A"}]}, "targetDefaults": {"build": {"dependsOn": ["^build"], "inputs": ["default"], "outputs": ["{projectRoot}/x"]}}}"#,
    ),
    (
        "p/a/package.json",
        r#"{"name": "a", "main": "dist/a.js", "scripts": {"build": "tsc -b && vite build --outDir x", "test": "npm run build"}, "dependencies": {"b": "1"}}"#,
    ),
    (
        "p/a/tsconfig.json",
        r#"{"extends": "b/tsconfig.json", "compilerOptions": {"outDir": "dist", "rootDir": "src", "composite": true}, "references": [{"path": "."}]}"#,
    ),
    ("p/a/turbo.json", r#"{"extends": ["//"], "tasks": {"build": {"outputs": ["$TURBO_EXTENDS$", "y"]}}}"#),
    ("p/b/package.json", r#"{"name": "b", "scripts": {"test": "jest"}, "devDependencies": {"a": "1"}}"#),
    (
        "p/b/project.json",
        r#"{"name": "b", "targets": {"build": {"command": "x {projectRoot}", "options": {"cwd": "p/b"}, "dependsOn": [{"target": "build", "projects": ["a"]}]}}}"#,
    ),
    (
        "Cargo.toml",
        "[workspace]\nmembers = [\"c/*\"]\n[package]\nname = \"x\"\n[[bin]]\nname = \"y\"\npath = \"src/main.rs\"\n",
    ),
    ("go.work", "use (\n\t./g\n)\n"),
    ("g/go.mod", "module g\n"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        file in 0..FIXTURE.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let folder = tree(&FIXTURE);
        let (path, text) = FIXTURE[file];
        let mut bytes = text.as_bytes().to_vec();
        let splices: [&[u8]; 6] = [b"\"", b"{", b"[[[[", b"\\u0000", b"../", b"**/{a,"];
        for (at, byte, how) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => {
                    bytes.remove(at);
                }
                _ => {
                    let splice = splices[usize::from(byte) % splices.len()];
                    bytes.splice(at..at, splice.iter().copied());
                }
            }
        }
        put(folder.path(), path, &bytes);
        for source in [Source::Folder, Source::Turbo, Source::Nx] {
            if let Ok(proposal) = propose(folder.path(), &host(), source) {
                check(&proposal);
            }
        }
    }

    #[test]
    fn any_bytes_never_panic(file in 0..FIXTURE.len(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let folder = tree(&FIXTURE);
        put(folder.path(), FIXTURE[file].0, &bytes);
        for source in [Source::Folder, Source::Turbo, Source::Nx] {
            if let Ok(proposal) = propose(folder.path(), &host(), source) {
                check(&proposal);
            }
        }
    }

    #[test]
    fn any_text_is_a_value_or_a_mistake(text in ".{0,200}") {
        let _ = crate::jsonc::Document::parse("x", text.clone());
        let _ = crate::yaml::packages("x", &text);
        let _ = crate::yaml::packages("x", &format!("packages:{text}"));
    }
}
