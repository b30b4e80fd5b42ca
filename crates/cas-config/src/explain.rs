//! What the parser of TOML says, in the words of `cas.toml`: what is there, what is wanted, and how that is written.
//!
//! The parser knows types and fields of this program alone. Its messages are taken apart here; one that is not known is told as it is.

use std::ops::Range;

use crate::diagnostic::Diagnostic;
use crate::nearest::nearest;
use crate::secret::without_tokens;

/// Words of the design that this version does not know yet: they deserve another answer than "unknown".
const LATER: [&str; 7] = ["dockerfile", "exec", "image", "network", "platforms", "policy", "remote"];
/// Longest piece of a text that is shown in a hint.
const MAX_SHOWN_BYTES: usize = 80;
/// Tables by the names of their types, with how one is written; `*` stands for a text that is there in its place.
const TABLES: [(&str, &str); 10] = [
    ("Addition", "{ from = *, to = \"/opt\" }"),
    ("Archive", "{ suite = * }"),
    ("ArtifactConfig", "{ path = *, media_type = \"application/json\" }"),
    ("ArtifactFile", "{ path = * }"),
    ("Debian", "{ suite = *, packages = [\"gcc\"] }"),
    ("Gate", "{ run = [*] }"),
    ("Healthcheck", "{ test = * }"),
    ("Host", "{ paths = [\"/usr\"] }"),
    ("ImageConfig", "{ cmd = [\"/app/server\"] }"),
    ("Layer", "{ from = *, to = \"/app\" }"),
];
/// Keys that something has to have, with how one is written.
const REQUIRED: [(&str, &str); 7] = [
    ("media_type", "media_type = \"application/json\"`, what it is"),
    ("packages", "packages = [\"gcc\"]`, what is installed"),
    ("suite", "suite = \"bookworm\"`, the release of the distribution"),
    ("test", "test = [\"CMD\", \"/bin/check\"]`, what is run"),
    ("to", "to = \"/app\"`, where it goes"),
    ("type", "type = \"application/vnd.example.report.v1\"`, what it is"),
    ("target", "target = \"/usr/bin/x\"`, where it leads"),
];

/// The parser's error as a finding: for an unknown key with the nearest known one.
pub(crate) fn explain(error: &toml::de::Error, text: &str) -> Diagnostic {
    let span = error.span().unwrap_or(0..0);
    let message = error.message();
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field")
        && let Some((word, known)) = quoted.split_first()
    {
        if LATER.contains(word) {
            return Diagnostic::new(format!("`{word}` is not available in this version of cas"), span)
                .with_hint("remove it");
        }
        let finding = Diagnostic::new(format!("unknown key `{word}`"), span);
        return match nearest(word, known.iter().copied()) {
            Some(near) => finding.with_hint(format!("did you mean `{near}`?")),
            None => finding.with_hint(format!("known here: {}", known.join(", "))),
        };
    }
    let written = text.get(span.clone()).unwrap_or_default();
    if message.starts_with("missing field")
        && let [key, ..] = quoted[..]
    {
        let finding = Diagnostic::new(format!("`{key}` is missing"), span);
        return match REQUIRED.iter().find(|(name, _)| *name == key) {
            Some((_, example)) => finding.with_hint(format!("write `{example}")),
            None => finding,
        };
    }
    // The parser calls a date of TOML a map.
    if message.contains("expected a string") && written.parse::<toml::value::Datetime>().is_ok() {
        return Diagnostic::new("a date is a text here", span).with_hint(format!("write `\"{written}\"`"));
    }
    let other = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((is, wanted)) = other.and_then(|rest| rest.rsplit_once(", expected "))
        && let Some(finding) = mismatch(text, span.clone(), written, is, wanted)
    {
        return finding;
    }
    if let Some(kind) = message.strip_prefix("data did not match any variant of untagged enum ") {
        let finding = Diagnostic::new("a text or a list of texts is wanted", span);
        return finding.with_hint(match kind {
            "Run" => "write `\"make all\"` for the shell, or `[\"make\", \"all\"]`, a program with its arguments",
            _ => "write one text in quotes, or several in `[` and `]`",
        });
    }
    if message == "duplicate key" {
        let finding = Diagnostic::new(format!("`{written}` is there twice"), span);
        return finding.with_hint("leave one of them out");
    }
    if message.starts_with("string values must be quoted") {
        // The parser stops at the first letter that it cannot take.
        let rest = text.get(span.start..).unwrap_or_default();
        let word = rest.split(|letter: char| letter.is_whitespace() || matches!(letter, ',' | ']' | '}' | '#'));
        let word = word.into_iter().next().unwrap_or_default();
        let finding = Diagnostic::new("a text is written in quotes", span);
        return match shown(word).filter(|word| !word.contains(['"', '\''])) {
            Some(word) => finding.with_hint(format!("write `\"{word}\"`")),
            None => finding,
        };
    }
    if message.starts_with("invalid basic string") && message.ends_with("expected `\"`") {
        return Diagnostic::new("a text does not end on its line", span)
            .with_hint("end it with `\"`, or write `\"\"\"` on both sides of one with several lines");
    }
    Diagnostic::new(message.trim().replace('\n', "; "), span)
}

/// Something of another type than what is wanted.
fn mismatch(text: &str, span: Range<usize>, written: &str, is: &str, wanted: &str) -> Option<Diagnostic> {
    let kind = match is.split([' ', '`']).next()? {
        "string" => "a text",
        "integer" | "floating" => "a number",
        "boolean" => "`true` or `false`",
        "sequence" => "a list",
        "map" => "a table",
        _ => return None,
    };
    let piece = shown(written);
    let is_text = kind == "a text";
    let name_of_table = wanted.strip_prefix("struct ");
    // `[image]` in place of `[image.NAME]`: each of its keys stands where a target is looked for.
    let section = section(text, span.start);
    let is_target = name_of_table.is_some_and(|name| !TABLES.iter().any(|(table, _)| *table == name));
    if let Some(section) = section.filter(|_| is_target) {
        let finding = Diagnostic::new(format!("`[{section}]` has no name of a target"), span);
        return Some(finding.with_hint(format!("write `[{section}.NAME]`")));
    }
    if wanted == "a map" && written.starts_with("[[") {
        let name = written.trim_matches(['[', ']']);
        let finding = Diagnostic::new(format!("`{name}` is no list of sections"), span);
        return Some(finding.with_hint(format!("write `[{name}.NAME]`")));
    }
    let (what, hint) = match wanted {
        "a string" => {
            let hint = match (kind, &piece) {
                ("a number" | "`true` or `false`", Some(piece)) => Some(format!("write `\"{piece}\"`")),
                ("a list", Some(piece)) => {
                    let inner = piece.trim_matches(['[', ']', ' ']);
                    let is_one = inner.starts_with('"') && !inner.contains(',');
                    Some(if is_one { format!("write `{inner}`") } else { "write one of them".to_owned() })
                }
                _ => None,
            };
            ("a text is wanted", hint)
        }
        "a sequence" if is_text => {
            let words = written.trim_matches(['"', '\'']);
            let words = words.split_whitespace().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            let words = if words.is_empty() { "\"…\"".to_owned() } else { without_tokens(&words).into_owned() };
            ("a list of texts is wanted", Some(format!("write a list: `[{words}]`")))
        }
        "a sequence" => {
            let quote = if kind == "a table" { "" } else { "\"" };
            let hint = piece.map(|piece| format!("write a list: `[{quote}{piece}{quote}]`"));
            ("a list is wanted", hint.or_else(|| Some("write `[` before it and `]` behind it".to_owned())))
        }
        "a map" => ("names with their values are wanted", Some("write `{ NAME = \"value\" }`".to_owned())),
        "a boolean" => ("`true` or `false` is wanted", Some("write one of the two, without quotes".to_owned())),
        "u32" | "u64" => {
            let number = written.trim_matches(['"', '\'']);
            let is_number = is_text && number.parse::<u32>().is_ok();
            let hint =
                if is_number { format!("write `{number}`, without quotes") } else { "write one from 0 on".to_owned() };
            ("a whole number is wanted", Some(hint))
        }
        _ => {
            let (_, example) = TABLES.iter().find(|(name, _)| Some(*name) == name_of_table)?;
            let piece = piece.filter(|_| is_text);
            (
                "a table is wanted",
                Some(format!("write `{}`", example.replace('*', piece.as_deref().unwrap_or("\"…\"")))),
            )
        }
    };
    let message = format!("{kind}, where {what}");
    let finding = Diagnostic::new(message, span);
    Some(match hint {
        Some(hint) => finding.with_hint(hint),
        None => finding,
    })
}

/// A piece of the text for a hint: short, on one line, without tokens.
fn shown(piece: &str) -> Option<String> {
    let is_short = !piece.is_empty() && piece.len() <= MAX_SHOWN_BYTES && !piece.contains(['\n', '`']);
    is_short.then(|| without_tokens(piece).into_owned())
}

/// The name of the section that a place is in.
fn section(text: &str, at: usize) -> Option<&str> {
    let header = text.get(..at)?.lines().rev().find(|line| line.starts_with('[') && !line.starts_with("[["))?;
    let (name, _) = header[1..].split_once(']')?;
    Some(name.trim())
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;

    /// Nobody has to know how this program calls its types.
    #[test]
    fn what_the_parser_says_is_told_in_words_of_the_file() {
        let image = |text: &str| format!("[image.a]\n{text}\n");
        let layer = |text: &str| image(&format!("layers = [{{ from = \":x\", to = \"/\", {text} }}]"));
        let config = |text: &str| image(&format!("config = {{ {text} }}"));
        let artifact = |text: &str| format!("[artifact.a]\ntype = \"a/b\"\n{text}\n");
        let step = |text: &str| format!("[command.a]\n{text}\n");
        let toolchain = |text: &str| format!("[toolchain.a]\n{text}\n");
        let list = "a table, where a list is wanted";
        let number = "a number, where a text is wanted";
        let table = "a text, where a table is wanted";
        let either = "a text or a list of texts is wanted";
        for (text, message, hint) in [
            (image("layers = { to = \"/\" }"), list, "write a list: `[{ to = \"/\" }]`"),
            (image("layers = [\":x\"]"), table, "write `{ from = \":x\", to = \"/app\" }`"),
            (image("layers = [{ from = \":x\" }]"), "`to` is missing", "write `to = \"/app\"`, where it goes"),
            (layer("mode = 644"), number, "write `\"644\"`"),
            (layer("path = [\"x\"]"), "a list, where a text is wanted", "write `\"x\"`"),
            (layer("path = [\"x\", \"y\"]"), "a list, where a text is wanted", "write one of them"),
            (
                layer("split = \"no\""),
                "a text, where `true` or `false` is wanted",
                "write one of the two, without quotes",
            ),
            (image("max_layers = \"20\""), "a text, where a whole number is wanted", "write `20`, without quotes"),
            (image("max_layers = -1"), "a number, where a whole number is wanted", "write one from 0 on"),
            (image("max_layers = 1.5"), "a number, where a whole number is wanted", "write one from 0 on"),
            (config("expose = [80]"), number, "write `\"80\"`"),
            (config("expose = 80"), "a number, where a list is wanted", "write a list: `[\"80\"]`"),
            (
                config("env = [\"A=1\"]"),
                "a list, where names with their values are wanted",
                "write `{ NAME = \"value\" }`",
            ),
            (config("labels = { A = true }"), "`true` or `false`, where a text is wanted", "write `\"true\"`"),
            (config("healthcheck = \"x\""), table, "write `{ test = \"x\" }`"),
            (
                config("healthcheck = { interval = \"3s\" }"),
                "`test` is missing",
                "write `test = [\"CMD\", \"/bin/check\"]`, what is run",
            ),
            (config("healthcheck = { test = 1 }"), either, "write one text in quotes, or several in `[` and `]`"),
            (image("config = 1"), "a number, where a table is wanted", "write `{ cmd = [\"/app/server\"] }`"),
            ("[image]\nbase = \":x\"\n".to_owned(), "`[image]` has no name of a target", "write `[image.NAME]`"),
            ("[[command]]\nrun = \"x\"\n".to_owned(), "`command` is no list of sections", "write `[command.NAME]`"),
            (artifact("files = [\"x\"]"), table, "write `{ path = \"x\" }`"),
            (artifact("files = { path = \"x\" }"), list, "write a list: `[{ path = \"x\" }]`"),
            (
                artifact("config = { path = \"x\" }"),
                "`media_type` is missing",
                "write `media_type = \"application/json\"`, what it is",
            ),
            (
                step("run = 1"),
                either,
                "write `\"make all\"` for the shell, or `[\"make\", \"all\"]`, a program with its arguments",
            ),
            (step("toolchain = 1"), either, "write one text in quotes, or several in `[` and `]`"),
            (step("timeout = 30"), number, "write `\"30\"`"),
            (step("outputs = [[\"a\"]]"), "a list, where a text is wanted", "write `\"a\"`"),
            (step("run = \"x\"\nrun = \"y\""), "`run` is there twice", "leave one of them out"),
            (step("run = make"), "a text is written in quotes", "write `\"make\"`"),
            (
                step("run = \"x"),
                "a text does not end on its line",
                "end it with `\"`, or write `\"\"\"` on both sides of one with several lines",
            ),
            (toolchain("debian = \"b\""), table, "write `{ suite = \"b\", packages = [\"gcc\"] }`"),
            (
                toolchain("debian = { suite = \"b\" }"),
                "`packages` is missing",
                "write `packages = [\"gcc\"]`, what is installed",
            ),
            (toolchain("host = true"), "`true` or `false`, where a table is wanted", "write `{ paths = [\"/usr\"] }`"),
            (toolchain("image = { ref = \"x\" }"), "a table, where a text is wanted", ""),
            (
                toolchain("debian = { suite = \"s\", packages = \"a b\" }"),
                "a text, where a list of texts is wanted",
                "write a list: `[\"a\", \"b\"]`",
            ),
        ] {
            let findings = Manifest::parse(&text).expect_err(&text);
            let finding = &findings[0];
            assert_eq!(
                (finding.message.as_str(), finding.hint.as_deref().unwrap_or_default()),
                (message, hint),
                "{text}"
            );
        }
    }

    #[test]
    fn hints_have_no_tokens() {
        let token = format!("ghp_{}", "x".repeat(36));
        for text in [format!("[command.a]\ndeps = \"{token}\"\n"), format!("[image.a]\nlayers = [\"{token}\"]\n")] {
            let findings = Manifest::parse(&text).expect_err("it is wrong");
            let hint = findings[0].hint.as_deref().unwrap_or_default();
            assert!(hint.contains("ghp_***") && !hint.contains(&token), "{hint}");
        }
    }
}
