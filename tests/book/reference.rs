//! docs/book/cas-toml.md: the keys of `cas.toml`, from the schema's own sources.

use std::fmt::Write as _;
use std::path::Path;

use crate::schema::Words;
use crate::shape::{Field, Shape, ShapeKind, Type, shapes};

const HEAD: &str = "\
# `cas.toml`: all keys

Made of the code and of [keys.toml](keys.toml); editors read the same as [cas.schema.json](../cas.schema.json), which `cas schema`
prints. What steps see and leave, and what the rules behind a key are, is in [the format's page](../formats/cas-toml.md).

A label is `//folder:name`, `//:name` for the root's targets, or `:name` in the same package; in `deps`, `^name` is the target
`name` of every workspace package that this one depends on. A key in italics is required.
";

pub(crate) fn page(root: &Path) -> String {
    let (shapes, words) = (shapes(root), Words::read(root));
    let mut page = HEAD.to_owned();
    let file = shapes.iter().find(|shape| shape.name == "File").expect("there is a file");
    let ShapeKind::Structure(sections) = &file.kind else { panic!("a file has sections") };
    let mut told = vec!["File".to_owned()];
    for section in sections {
        let (title, inside) = match &section.of {
            Type::Table(of) if matches!(**of, Type::Named(_)) => (format!("`[{}.NAME]`", section.key), of.as_ref()),
            Type::Table(of) => (format!("`[{}]`", section.key), of.as_ref()),
            of @ Type::Named(_) => (format!("`[{}]`", section.key), of),
            of => (format!("`{}`", section.key), of),
        };
        let about = about(&words, "File", &section.key);
        write!(page, "\n## {title}\n\n{about}\n").expect("a text takes every text");
        let Type::Named(name) = inside else { continue };
        if told.contains(name) {
            page.push_str("\nThe keys are those of a command.\n");
            continue;
        }
        tell(name, &shapes, &words, &mut told, &mut page);
    }
    page
}

/// Tables of a structure, and of those in it.
fn tell(name: &str, shapes: &[Shape], words: &Words, told: &mut Vec<String>, page: &mut String) {
    told.push(name.to_owned());
    let shape = shapes.iter().find(|shape| shape.name == name).unwrap_or_else(|| panic!("there is no `{name}`"));
    let ShapeKind::Structure(fields) = &shape.kind else { return };
    page.push_str("\n| key | value | what it means |\n|---|---|---|\n");
    for field in fields {
        let key = if field.is_required { format!("*`{}`*", field.key) } else { format!("`{}`", field.key) };
        let value = value(&field.of, shapes);
        let meaning = format!("{}{}", about(words, name, &field.key), more(words, name, field));
        writeln!(page, "| {key} | {value} | {} |", meaning.replace('|', "\\|")).expect("a text takes every text");
    }
    for field in fields {
        let Some(inner) = structure(&field.of, shapes).filter(|inner| !told.iter().any(|name| name == inner)) else {
            continue;
        };
        write!(page, "\n### `{}`\n", field.key).expect("a text takes every text");
        tell(inner, shapes, words, told, page);
    }
}

/// The structure that a type is made of, if it is.
fn structure<'a>(of: &'a Type, shapes: &[Shape]) -> Option<&'a str> {
    match of {
        Type::Named(name) => {
            let is_structure = |shape: &Shape| shape.name == *name && matches!(shape.kind, ShapeKind::Structure(_));
            shapes.iter().any(is_structure).then_some(name)
        }
        Type::List(of) | Type::Table(of) => structure(of, shapes),
        Type::Text | Type::Number | Type::Truth => None,
    }
}

/// A type in words.
fn value(of: &Type, shapes: &[Shape]) -> String {
    match of {
        Type::Text => "text".to_owned(),
        Type::Number => "number".to_owned(),
        Type::Truth => "`true` or `false`".to_owned(),
        Type::List(of) => format!("list of {}s", value(of, shapes)),
        Type::Table(of) => format!("table: {} by name", value(of, shapes)),
        Type::Named(name) => match shapes.iter().find(|shape| shape.name == *name).map(|shape| &shape.kind) {
            Some(ShapeKind::Choice(forms)) => {
                forms.iter().map(|form| value(form, shapes)).collect::<Vec<_>>().join(" or ")
            }
            _ => "table".to_owned(),
        },
    }
}

/// What values a key may have, and what it has when nobody says.
fn more(words: &Words, shape: &str, field: &Field) -> String {
    let Some(said) = words.of(shape, &field.key) else { return String::new() };
    let mut more = String::new();
    if let Some(values) = said.get("enum").and_then(toml::Value::as_array) {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        write!(more, " One of {}.", values.join(", ")).expect("a text takes every text");
    }
    if let Some(value) = said.get("default") {
        write!(more, " Default: `{value}`.").expect("a text takes every text");
    }
    if let Some(values) = said.get("examples").and_then(toml::Value::as_array) {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        write!(more, " For example {}.", values.join(", ")).expect("a text takes every text");
    }
    more
}

fn about(words: &Words, shape: &str, key: &str) -> String {
    let said = words.of(shape, key).and_then(|said| said.get("about")).and_then(toml::Value::as_str);
    said.unwrap_or_default().to_owned()
}
