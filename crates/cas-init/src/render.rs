//! From a draft to the texts of `cas.toml` files.
//!
//! The layout is fixed: `[workspace]`, toolchains, fetches, then targets in their order; keys in the order of the reference;
//! arrays that do not fit into a line one value a line.

use std::collections::BTreeMap;

use cas_config::Manifest;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, Value, value};

use crate::InitError;
use crate::draft::{Draft, HOST, Kind, Section, Target};
use crate::folder::join;

/// Longest line that an array is written in.
const MAX_LINE: usize = 110;

/// The texts by path.
pub(crate) fn texts(draft: &Draft) -> Result<BTreeMap<String, String>, InitError> {
    let mut texts = BTreeMap::new();
    let empty = Section::default();
    let root = draft.sections.get("").unwrap_or(&empty);
    texts.insert("cas.toml".to_owned(), text(Some(draft), root));
    for (folder, section) in draft.sections.iter().filter(|(folder, _)| !folder.is_empty()) {
        texts.insert(join(folder, "cas.toml"), text(None, section));
    }
    for (path, text) in &texts {
        // What other files say went into it, so this is no mere assertion.
        Manifest::parse(text).map_err(|findings| InitError::Text {
            path: path.clone(),
            message: findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>().join("; "),
        })?;
    }
    Ok(texts)
}

fn text(root: Option<&Draft>, section: &Section) -> String {
    let mut document = DocumentMut::new();
    let mut blocks: Vec<(Vec<String>, [&str; 2], Table)> = Vec::new();
    if let Some(draft) = root {
        let mut workspace = Table::new();
        if !draft.members.is_empty() {
            workspace.insert("members", value(array("members", &draft.members)));
        }
        if !draft.inputs.is_empty() {
            let inputs: Vec<String> = draft.inputs.iter().cloned().collect();
            workspace.insert("inputs", value(array("inputs", &inputs)));
        }
        blocks.push((Vec::new(), ["workspace", ""], workspace));
        if draft.host.is_used {
            let comments = vec![
                "This machine's own programs: not hermetic. What the probes print is part of every key.".to_owned(),
            ];
            blocks.push((comments, ["toolchain", HOST], host(draft)));
        }
    }
    for (name, lockfile) in &section.fetches {
        let mut fetch = Table::new();
        fetch.insert("lockfile", value(lockfile.as_str()));
        blocks.push((Vec::new(), ["fetch", name], fetch));
    }
    // Steps first: what a package makes says more of it than what is run while somebody works on it.
    let (programs, steps): (Vec<_>, Vec<_>) = section.targets.iter().partition(|(_, target)| target.kind == Kind::Run);
    for (name, target) in steps.into_iter().chain(programs) {
        let word = match target.kind {
            Kind::Command => "command",
            Kind::Test => "test",
            Kind::Run => "run",
        };
        let toolchain = if root.is_some() { format!(":{HOST}") } else { format!("//:{HOST}") };
        // What runs in the workspace itself has the user's programs.
        let toolchain = (target.kind != Kind::Run).then_some(&*toolchain);
        blocks.push((target.comments.clone(), [word, name], table(toolchain, target)));
    }
    for (position, (comments, [kind, name], mut table)) in blocks.into_iter().enumerate() {
        let mut prefix = if position == 0 { String::new() } else { "\n".to_owned() };
        comment(&mut prefix, &comments);
        table.decor_mut().set_prefix(prefix);
        table.set_position(Some(isize::try_from(position).unwrap_or(isize::MAX)));
        if name.is_empty() {
            document.insert(kind, Item::Table(table));
            continue;
        }
        let parent = document.entry(kind).or_insert_with(|| {
            let mut parent = Table::new();
            parent.set_implicit(true);
            Item::Table(parent)
        });
        if let Some(parent) = parent.as_table_mut() {
            parent.insert(name, Item::Table(table));
        }
    }
    let mut text = document.to_string();
    if !section.comments.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        comment(&mut text, &section.comments);
    }
    text
}

/// Adds lines of comment; what other files say cannot end one.
fn comment(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push('#');
        if !line.is_empty() {
            text.push(' ');
            text.extend(line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
        }
        text.push('\n');
    }
}

fn host(draft: &Draft) -> Table {
    let mut host = InlineTable::new();
    if !draft.host.paths.is_empty() {
        host.insert("paths", Value::Array(draft.host.paths.iter().map(|path| text_value(path)).collect()));
    }
    if !draft.host.probes.is_empty() {
        host.insert("probe", Value::Array(draft.host.probes.iter().map(|probe| text_value(probe)).collect()));
    }
    let mut table = Table::new();
    table.insert("host", value(host));
    table
}

fn table(toolchain: Option<&str>, target: &Target) -> Table {
    let mut table = Table::new();
    if let Some(toolchain) = toolchain {
        table.insert("toolchain", value(toolchain));
    }
    table.insert("run", Item::Value(text_value(&target.run)));
    let deps: Vec<String> = target.deps.iter().map(ToString::to_string).collect();
    for (key, values) in
        [("deps", &deps), ("inputs", target.inputs.as_ref().unwrap_or(&Vec::new())), ("outputs", &target.outputs)]
    {
        if !values.is_empty() {
            table.insert(key, value(array(key, values)));
        }
    }
    if !target.scratch.is_empty() {
        table.insert("scratch", value(array("scratch", &target.scratch)));
    }
    if !target.env.is_empty() {
        let env: InlineTable = target.env.iter().map(|(name, text)| (name.as_str(), text_value(text))).collect();
        table.insert("env", value(env));
    }
    if !target.env_in.is_empty() {
        let names: Vec<String> = target.env_in.iter().cloned().collect();
        table.insert("env_in", value(array("env_in", &names)));
    }
    if let Some(timeout) = target.timeout {
        table.insert("timeout", value(timeout));
    }
    table
}

/// A string in one line and in double quotes: the form of every string in these files, whatever is in it.
fn text_value(text: &str) -> Value {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            letter if letter.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    // What is not understood keeps the form that the writer chooses.
    quoted.parse().unwrap_or_else(|_| Value::from(text))
}

fn array(key: &str, values: &[String]) -> Array {
    let mut array: Array = values.iter().map(|text| text_value(text)).collect();
    if key.len() + array.to_string().len() + 3 > MAX_LINE {
        for item in array.iter_mut() {
            item.decor_mut().set_prefix("\n  ");
        }
        array.set_trailing("\n");
        array.set_trailing_comma(true);
    }
    array
}
