//! The book and the schema: pages that are made of the code are fresh, examples do what they show.
//!
//! With the variable `CAS_UPDATE` set, pages that are stale are written anew.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "tests look at the disk and the environment as others do")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod commands;
mod console;
mod reference;
mod schema;
mod shape;
mod validate;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Fails when a page is not what it is made of, or writes it.
fn fresh(path: &str, made: &str) {
    let at = root().join(path);
    if fs::read_to_string(&at).is_ok_and(|text| text == made) {
        return;
    }
    assert!(std::env::var_os("CAS_UPDATE").is_some(), "`{path}` is stale: run `CAS_UPDATE=1 cargo test --test book`");
    fs::write(at, made).unwrap();
}

fn schema_text() -> String {
    format!("{}\n", serde_json::to_string_pretty(&schema::schema(&root())).unwrap())
}

#[test]
fn the_schema_is_fresh() {
    fresh("docs/cas.schema.json", &schema_text());
}

#[test]
fn the_program_prints_the_schema() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cas")).arg("schema").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, fs::read(root().join("docs/cas.schema.json")).unwrap());
}

#[test]
fn the_reference_is_fresh() {
    fresh("docs/book/cas-toml.md", &reference::page(&root()));
}

#[test]
fn the_commands_are_fresh() {
    fresh("docs/book/commands.md", &commands::page());
}

/// A new key of `cas.toml` gets its words in docs/book/keys.toml.
#[test]
fn every_key_has_words() {
    assert_eq!(schema::wordless(&root()), Vec::<String>::new());
}

fn json_of(text: &str) -> Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

/// What is in Markdown's fences of one language.
fn fences(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let body: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            if line.trim_start_matches('`') == language {
                found.push(body.join("\n"));
            }
        }
    }
    found
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str() {
            Some("target" | ".git" | "node_modules" | "cas-out") => {}
            _ if path.is_dir() => files_below(&path, found),
            _ => found.push(path),
        }
    }
}

/// The `cas.toml` texts of this repository: files, and examples of its pages.
fn documents() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["docs", "testdata"] {
        files_below(&root().join(folder), &mut files);
    }
    files.push(root().join("README.md"));
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        if path.file_name().is_some_and(|name| name == "cas.toml") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        } else if path.extension().is_some_and(|kind| kind == "md") {
            let page = fs::read_to_string(&path).unwrap();
            let examples = fences(&page, "toml").into_iter();
            // Other files have examples in TOML, too: those of `cas.toml` have its tables.
            let is_ours = |text: &String| {
                let tables =
                    ["[workspace]", "[command.", "[test.", "[toolchain.", "[image.", "[npm.", "[fetch.", "[defaults"];
                tables.iter().any(|table| text.lines().any(|line| line.starts_with(table)))
            };
            found.extend(examples.filter(is_ours).map(|text| (format!("an example of {name}"), text)));
        }
    }
    found
}

#[test]
fn every_document_of_the_repository_is_valid() {
    let schema = schema::schema(&root());
    let documents = documents();
    assert!(documents.len() > 5, "{} are there", documents.len());
    for (name, text) in documents {
        if let Err(why) = validate::validate(&schema, &json_of(&text)) {
            panic!("{name}: {why}\n{text}");
        }
    }
}

/// Of each document the program says the same as the schema, as far as shape goes.
#[test]
fn the_schema_and_the_program_agree() {
    let schema = schema::schema(&root());
    let step = |more: &str| format!("[command.a]\ntoolchain = \":t\"\nrun = \"x\"\n{more}");
    let good = [
        String::new(),
        "[workspace]\nmembers = [\"a/*\"]\ndigest_function = \"sha256\"\n".to_owned(),
        step("timeout = \"10m\"\nmemory = \"2GiB\"\ncpus = 4\naslr = false\nenv = { A = \"1\" }\nenv_in = [\"B\"]\n"),
        step("deps = [\"^a\", \":b\", \"//x:y\"]\ninputs = []\noutputs = [\"d\"]\nscratch = [\"s\"]\n"),
        "[test.t]\ntoolchain = [\":a\", \":b\"]\nrun = [\"node\", \"--test\"]\n".to_owned(),
        "[toolchain.t]\ndebian = { suite = \"bookworm\", packages = [] }\n[toolchain.h]\nhost = {}\n".to_owned(),
        "[fetch.a]\nnpm = \"@s/x@1.0.0\"\n[fetch.b]\nlockfile = \"web/pnpm-lock.yaml\"\n".to_owned(),
        "[image.i]\nlayers = [{ from = \":x\", to = \"/\", for = \"production\" }]\ncompression = \"zstd\"\n\
         config = { expose = [\"80\", \"53/udp\"] }\n[npm.p]\nfrom = \":x\"\n[npm.q]\nfrom = [\":x\"]\n"
            .to_owned(),
        "[workspace]\n[defaults]\ntoolchain = \":t\"\n[defaults.command.b]\nrun = \"x\"\n".to_owned(),
    ];
    let bad = [
        "[comand.a]\n".to_owned(),
        "[workspace]\nmembers = \"a\"\n".to_owned(),
        "[workspace]\ndigest_function = \"md5\"\n".to_owned(),
        step("timeout = \"soon\"\n"),
        step("memory = \"2G\"\n"),
        step("cpus = 0\n"),
        step("cpus = \"2\"\n"),
        step("ouputs = []\n"),
        step("env = { A = 1 }\n"),
        "[command.\"a b\"]\ntoolchain = \":t\"\nrun = \"x\"\n".to_owned(),
        "[test.t]\ntoolchain = \":t\"\nrun = 1\n".to_owned(),
        "[toolchain.t]\n".to_owned(),
        "[toolchain.t]\nhost = {}\ndebian = { suite = \"a\", packages = [] }\n".to_owned(),
        "[toolchain.t]\ndebian = { packages = [] }\n".to_owned(),
        "[fetch.a]\nurl = \"https://x.example/y\"\n".to_owned(),
        "[fetch.a]\nnpm = \"x@latest\"\n".to_owned(),
        "[fetch.a]\nlockfile = \"yarn.lock\"\n".to_owned(),
        "[image.i]\nlayers = [{ from = \":x\" }]\n".to_owned(),
        "[image.i]\nlayers = [{ from = \":x\", to = \"app\" }]\n".to_owned(),
        "[image.i]\nconfig = { expose = [\"http\"] }\n".to_owned(),
    ];
    for (texts, expected) in [(&good[..], true), (&bad[..], false)] {
        for text in texts {
            let by_schema = validate::validate(&schema, &json_of(text));
            let by_program = cas_config::Manifest::parse(text);
            assert_eq!(by_schema.is_ok(), expected, "the schema: {by_schema:?}\n{text}");
            assert_eq!(by_program.is_ok(), expected, "the program: {by_program:?}\n{text}");
        }
    }
}
