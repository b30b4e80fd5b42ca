//! docs/book/commands.md: what the program says of itself.

use std::fmt::Write as _;
use std::process::Command;

const HEAD: &str = "\
# Commands

Made of the program's own help: `cas COMMAND --help` says the same, `-h` less. Options that all commands have are listed once,
here. `cas man FOLDER` writes manual pages, `cas completions SHELL` what a shell needs.
";

/// Options that every command repeats.
const GLOBAL: [&str; 5] = ["-C, --directory", "--store <", "--store-on-network", "--format <", "-h, --help"];

pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    write!(page, "\n```text\n{}\n```\n", help(&[]).trim_end()).expect("a text takes every text");
    for name in below(&help(&[])) {
        tell(&[&name], &mut page);
    }
    page
}

fn tell(path: &[&str], page: &mut String) {
    let text = help(path);
    let marks = "#".repeat(path.len() + 1);
    let shown = without_global(&text);
    write!(page, "\n{marks} `cas {}`\n\n```text\n{}\n```\n", path.join(" "), shown.trim_end())
        .expect("a text takes every text");
    for name in below(&text) {
        tell(&[path, &[&name]].concat(), page);
    }
}

fn help(path: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cas")).args(path).arg("--help").env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{path:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The commands that a help lists.
fn below(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// A help without the options that all commands have.
fn without_global(help: &str) -> String {
    let mut shown = Vec::new();
    let mut is_global = false;
    for line in help.lines() {
        let text = line.trim_start();
        if text.starts_with('-') && line.starts_with("  ") && line.len() - text.len() <= 6 {
            is_global = GLOBAL.iter().any(|option| text.starts_with(option));
        } else if !line.is_empty() && !line.starts_with(' ') {
            is_global = false;
        }
        if !is_global {
            shown.push(line);
        }
    }
    let text = shown.join("\n");
    let text = text.trim_end();
    text.strip_suffix("Options:").unwrap_or(text).to_owned()
}
