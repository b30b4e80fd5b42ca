//! What steps may not find: programs, a version of Node, places of this machine.

use super::{assert_text, notes, put, tree};
use crate::{Host, NoteKind, Source, propose};

const ROOT: &str = r#"{"workspaces": ["a", "b"], "engines": {"node": ">=22"}, "devDependencies": {"typescript": "5", "npm-run-all": "4"},
    "scripts": {"build": "turbo run build", "release": "changeset publish", "prepare": "husky"}}"#;
const A: &str = r#"{"name": "a", "engines": {"node": ">=18"}, "devDependencies": {"@acme/codegen": "1"}, "scripts": {
    "build": "rm -rf dist && tsc && run-s make:*", "make:wasm": "NODE_ENV=production wasm-pack build && codegen", "test": "jq . x.json",
    "dev": "docker compose up"}}"#;

/// A machine whose programs are these, of which `node` has headers of a version.
fn machine(programs: &[&str], node: &str) -> (tempfile::TempDir, Host) {
    // Not where steps have files of their own, as in `/tmp`.
    let home = tempfile::tempdir_in("/var/tmp").expect("a folder can be made");
    for program in programs {
        put(home.path(), &format!("sdk/bin/{program}"), b"");
    }
    if let [major, minor, patch] = node.split('.').collect::<Vec<_>>()[..] {
        let header = format!(
            "#define NODE_MAJOR_VERSION {major}\n#define NODE_MINOR_VERSION {minor}\n#define NODE_PATCH_VERSION {patch}\n"
        );
        put(home.path(), "sdk/include/node/node_version.h", header.as_bytes());
    }
    let host = Host { path: vec![home.path().join("sdk/bin")], ..Host::default() };
    (home, host)
}

fn said(host: &Host, kinds: &[NoteKind]) -> String {
    let folder = tree(&[
        ("package.json", ROOT),
        ("package-lock.json", "{}"),
        ("a/package.json", A),
        ("b/package.json", r#"{"name": "b", "scripts": {"test": "jq . y.json && prettier --check ."}}"#),
        ("node_modules/.bin/prettier", ""),
    ]);
    notes(&propose(folder.path(), host, Source::Folder).expect("it is right"), kinds)
}

#[test]
fn what_scripts_call_and_nobody_brings_is_to_be_done() {
    let (_home, host) = machine(&["node", "npm"], "22.1.0");
    assert_text(
        &said(&host, &[NoteKind::Todo]),
        "to do: `jq`, which the script `test` of `a` and 1 more calls, is neither on this machine's PATH nor a dependency: install \
         it, or add it to `devDependencies`\n\
         to do: `wasm-pack`, which the script `build` of `a` calls, is neither on this machine's PATH nor a dependency: install it, \
         or add it to `devDependencies`\n",
    );
}

#[test]
fn a_program_that_steps_do_not_see_is_told_with_its_place() {
    let (home, host) = machine(&["node", "npm", "jq", "wasm-pack"], "22.1.0");
    let place = home.path().join("sdk/bin").display().to_string();
    let said = said(&host, &[NoteKind::Todo]).replace(&place, "PLACE");
    assert_eq!(said.matches("is in `PLACE`: add that to `paths` of `[toolchain.host]`").count(), 2, "{said}");
}

#[test]
fn scripts_of_the_root_are_listed() {
    let (_home, host) = machine(&[], "");
    assert_text(
        &said(&host, &[NoteKind::Dropped]),
        "not carried: package.json:2:17: `build` runs turbo: `cas build` and `cas test` do that\n\
         not carried: package.json:2:45: `release`, `prepare` of the root are no targets\n",
    );
}

#[test]
fn the_wanted_node_is_compared_with_the_one_that_is_there() {
    let cases = [
        ("20.1.0", NoteKind::Todo, "Node `>=22` is wanted, and this machine has 20.1.0: install another one\n"),
        ("22.0.0", NoteKind::Todo, ""),
        ("", NoteKind::Check, "Node `>=22` is wanted: see what `node --version` says here"),
    ];
    for (there, kind, expected) in cases {
        let (_home, host) = machine(&["node", "npm"], there);
        let said = said(&host, &[kind]);
        assert_eq!(said.contains("is wanted"), !expected.is_empty(), "{there}: {said}");
        assert!(said.contains(expected), "{there}: {said}");
    }
}

#[test]
fn places_of_this_machine_are_named() {
    let (home, host) = machine(&["node", "npm"], "22.1.0");
    let place = cas_fs::canonicalize(&home.path().join("sdk")).expect("it is there").display().to_string();
    let said = said(&host, &[NoteKind::Check]);
    let is_shown = !place.starts_with("/tmp");
    assert_eq!(
        said.contains(&format!("`cas.toml` names places of this machine: `{place}`; on another one")),
        is_shown,
        "{said}"
    );
}

/// Scripts call each other by the package manager, which is where the user installed it.
#[test]
fn the_manager_that_scripts_call_is_shown_to_their_targets() {
    let files: &[(&str, &str)] = &[
        ("package.json", r#"{"packageManager": "pnpm@9.0.0"}"#),
        ("pnpm-workspace.yaml", "packages: [a, b]\n"),
        ("pnpm-lock.yaml", ""),
        ("turbo.json", r#"{"tasks": {"build": {"outputs": ["dist/**"]}}}"#),
        ("a/package.json", r#"{"name": "a", "scripts": {"build": "pnpm compile", "compile": "cat x"}}"#),
        ("b/package.json", r#"{"name": "b", "scripts": {"build": "cat x"}}"#),
    ];
    for source in [Source::Folder, Source::Turbo] {
        let folder = tree(files);
        // Not below `/tmp`, where no place of the machine can be shown.
        let home = tempfile::tempdir_in("/var/tmp").expect("a folder can be made");
        put(home.path(), "sdk/bin/pnpm", b"");
        let host = Host { path: vec![home.path().join("sdk/bin")], ..Host::default() };
        let proposal = propose(folder.path(), &host, source).expect("it is right");
        super::check(&proposal);
        let bin = home.path().join("sdk/bin").display().to_string();
        assert!(
            proposal.files["a/cas.toml"].contains(&format!("env = {{ PATH = \"{bin}:/usr/local/sbin:")),
            "{proposal:?}"
        );
        assert!(!proposal.files["b/cas.toml"].contains("PATH"), "{proposal:?}");
        let root = &proposal.files["cas.toml"];
        assert!(root.contains(&format!("\"{bin}/pnpm --version\"")), "{root}");
        assert!(root.contains(&format!("\"{}\"", home.path().join("sdk").display())), "{root}");
        assert!(!notes(&proposal, &[NoteKind::Todo]).contains("`pnpm`"), "{proposal:?}");
    }
}

#[test]
fn a_manager_that_corepack_would_download_is_to_be_installed() {
    let (home, _) = machine(&[], "");
    put(home.path(), "lib/node_modules/corepack/dist/pnpm.js", b"");
    cas_fs::create_dir_all(&home.path().join("bin")).expect("the folder is ours");
    cas_fs::symlink("../lib/node_modules/corepack/dist/pnpm.js".as_ref(), &home.path().join("bin/pnpm"))
        .expect("the folder is ours");
    let folder = tree(&[
        ("package.json", r#"{"packageManager": "pnpm@9.0.0"}"#),
        ("turbo.json", r#"{"tasks": {"build": {}}}"#),
        ("pnpm-workspace.yaml", "packages: [a]\n"),
        (
            "a/package.json",
            r#"{"name": "a", "scripts": {"prebuild": "pnpm run clean", "clean": "rm -rf x", "build": "cat x"}}"#,
        ),
    ]);
    let host = Host { path: vec![home.path().join("bin")], ..Host::default() };
    let said = notes(&propose(folder.path(), &host, Source::Turbo).expect("it is right"), &[NoteKind::Todo]);
    assert!(
        said.contains(
            "`pnpm`, which the script `build` of `a` calls, is the one of corepack, which downloads it: install it with \
             `npm install --global pnpm`, or add it to `devDependencies`"
        ),
        "{said}"
    );
}
