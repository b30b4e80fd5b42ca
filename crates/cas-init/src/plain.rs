//! Folders with a Makefile or shell scripts, and nothing that says what they make: comments to begin with.

use crate::InitError;
use crate::draft::{Draft, HOST, target_name};
use crate::folder::Folder;
use crate::note::{NoteKind, counted};

/// Most names that a comment tells.
const MAX_TOLD: usize = 20;

/// Adds comments to the root's file. No target: which files a rule or a script reads and writes is not known.
pub(crate) fn add(folder: &Folder, draft: &mut Draft) -> Result<(), InitError> {
    let mut starts: Vec<(String, String)> = Vec::new();
    for name in ["GNUmakefile", "makefile", "Makefile"] {
        // A Makefile may be in any encoding.
        let Some(text) = folder.read(name).ok().flatten() else { continue };
        let rules = rules(&text);
        draft.note(NoteKind::Found, format!("{name}: {}", counted(rules.len(), "rule")));
        draft.section("").comments.push(format!("The rules of {name}: {}.", told(&rules)));
        starts.extend(rules.iter().take(1).filter_map(|rule| Some((target_name(rule)?, format!("make {rule}")))));
        break;
    }
    let scripts: Vec<String> = folder
        .list("")?
        .into_iter()
        .filter(|entry| {
            let is_shell = std::path::Path::new(&entry.name).extension().is_some_and(|end| end == "sh");
            !entry.is_dir && is_shell && !folder.is_ignored(&entry.name, false)
        })
        .map(|entry| entry.name)
        .collect();
    if !scripts.is_empty() {
        draft.note(NoteKind::Found, counted(scripts.len(), "shell script"));
        draft.section("").comments.push(format!("Shell scripts: {}.", told(&scripts)));
        if starts.is_empty() {
            starts.extend(
                scripts
                    .iter()
                    .take(1)
                    .filter_map(|name| Some((target_name(name.strip_suffix(".sh")?)?, format!("sh {name}")))),
            );
        }
    }
    draft.host.is_used = true;
    for (name, run) in starts {
        let lines = [
            "Which files they read and write is not known. To begin with:".to_owned(),
            String::new(),
            format!("[command.{name}]"),
            format!("toolchain = \":{HOST}\""),
            format!("run = \"{run}\""),
            "outputs = [\"what it makes\"]".to_owned(),
        ];
        draft.section("").comments.extend(lines);
    }
    Ok(())
}

fn told(names: &[String]) -> String {
    let mut text = names.iter().take(MAX_TOLD).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MAX_TOLD {
        text.push_str(&format!(" and {} more", names.len() - MAX_TOLD));
    }
    text
}

/// Names of rules that are plain words, in order.
fn rules(text: &str) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let name = name.trim_end();
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if is_word
            && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            && !rest.starts_with(['=', ':'])
            && !rules.iter().any(|rule| rule == name)
        {
            rules.push(name.to_owned());
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_words_before_a_colon() {
        let text = ".PHONY: all\nA := 1\nB ::= 2\nall: a.o b.o\n\tcc: x\na.o: a.c\n%.o: %.c\n$(X): y\nall: c\ntest :\n";
        assert_eq!(rules(text), ["all", "a.o", "test"]);
    }
}
