//! The shape of `cas.toml`, read from the source that parses it: what is there appears in the schema by itself.
//!
//! The reader knows the few forms that crates/cas-config/src/raw.rs uses; one that it does not know fails the test that asks.

use std::path::Path;

/// A structure or a choice of `raw.rs`.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) kind: ShapeKind,
}

#[derive(Debug)]
pub(crate) enum ShapeKind {
    Structure(Vec<Field>),
    /// One of several forms.
    Choice(Vec<Type>),
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) of: Type,
    pub(crate) is_required: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Number,
    Truth,
    List(Box<Type>),
    /// Values by any names.
    Table(Box<Type>),
    Named(String),
}

/// The shapes of `raw.rs`, in their order.
pub(crate) fn shapes(root: &Path) -> Vec<Shape> {
    read(&std::fs::read_to_string(root.join("crates/cas-config/src/raw.rs")).unwrap())
}

fn read(source: &str) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut lines = source.lines().map(str::trim);
    let mut is_untagged = false;
    while let Some(line) = lines.next() {
        let opened = line.strip_suffix('{').map(str::trim);
        if line == "#[serde(untagged)]" {
            is_untagged = true;
        } else if let Some(name) = opened.and_then(|line| line.strip_prefix("pub(crate) struct ")) {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "}").collect();
            shapes.push(Shape { name: name.to_owned(), kind: ShapeKind::Structure(fields(&body)) });
        } else if let Some(name) = opened.and_then(|line| line.strip_prefix("pub(crate) enum ")) {
            assert!(is_untagged, "`{name}` has names for its forms, which the schema does not know");
            is_untagged = false;
            let body = lines.by_ref().take_while(|line| *line != "}");
            let forms = body.filter(|line| !line.starts_with("//") && !line.is_empty()).map(|line| {
                let form = line.trim_end_matches(',').trim_end_matches(')');
                parse(form.split_once('(').unwrap_or_else(|| panic!("`{line}` holds nothing")).1).0
            });
            shapes.push(Shape { name: name.to_owned(), kind: ShapeKind::Choice(forms.collect()) });
        }
    }
    shapes
}

fn fields(body: &[&str]) -> Vec<Field> {
    let mut fields = Vec::new();
    let (mut has_default, mut renamed) = (false, None);
    for line in body.iter().filter(|line| !line.starts_with("//") && !line.is_empty()) {
        if let Some(attribute) = line.strip_prefix("#[serde(") {
            for part in attribute.trim_end_matches(")]").split(", ") {
                match part.split_once(" = ") {
                    None if part == "default" => has_default = true,
                    Some(("rename", name)) => renamed = Some(name.trim_matches('"').to_owned()),
                    _ => panic!("`{part}` is not known to the schema"),
                }
            }
            continue;
        }
        let field = line.strip_prefix("pub(crate) ").and_then(|line| line.strip_suffix(','));
        let (name, of) = field.and_then(|field| field.split_once(": ")).unwrap_or_else(|| panic!("`{line}`"));
        let (of, is_optional) = parse(of);
        let key = renamed.take().unwrap_or_else(|| name.trim_start_matches("r#").to_owned());
        fields.push(Field { key, of, is_required: !is_optional && !std::mem::take(&mut has_default) });
        has_default = false;
    }
    fields
}

/// A type, and whether it may be left out.
fn parse(text: &str) -> (Type, bool) {
    let (name, inside) = match text.split_once('<') {
        Some((name, rest)) => (name, rest.strip_suffix('>').unwrap_or_else(|| panic!("`{text}`"))),
        None => (text, ""),
    };
    let of = match name {
        "Option" => return (parse(inside).0, true),
        "Spanned" | "Box" => return parse(inside),
        "Text" | "String" => Type::Text,
        "bool" => Type::Truth,
        "u8" | "u16" | "u32" | "u64" => Type::Number,
        "Vec" => Type::List(Box::new(parse(inside).0)),
        "Table" => Type::Table(Box::new(parse(inside).0)),
        "BTreeMap" => Type::Table(Box::new(parse(inside.split_once(", ").unwrap_or_else(|| panic!("`{text}`")).1).0)),
        other => {
            assert!(inside.is_empty(), "`{text}` is not known to the schema");
            Type::Named(other.to_owned())
        }
    };
    (of, false)
}

#[test]
fn the_forms_of_the_source_are_read() {
    let source = "#[derive(Deserialize)]\n#[serde(deny_unknown_fields)]\npub(crate) struct A {\n    /// Words.\n    \
        pub(crate) one: Text,\n    #[serde(default)]\n    pub(crate) two: Vec<Text>,\n    #[serde(rename = \"for\")]\n    \
        pub(crate) purpose: Option<Spanned<B>>,\n    pub(crate) env: BTreeMap<Text, u32>,\n}\n\
        #[serde(untagged)]\npub(crate) enum B {\n    One(String),\n    Many(Vec<String>),\n}\n";
    let shapes = read(source);
    let ShapeKind::Structure(fields) = &shapes[0].kind else { panic!("it is one") };
    let text = || Box::new(Type::Text);
    let found: Vec<(&str, &Type, bool)> =
        fields.iter().map(|field| (&*field.key, &field.of, field.is_required)).collect();
    assert_eq!(
        found,
        [
            ("one", &Type::Text, true),
            ("two", &Type::List(text()), false),
            ("for", &Type::Named("B".to_owned()), false),
            ("env", &Type::Table(Box::new(Type::Number)), true),
        ]
    );
    let ShapeKind::Choice(forms) = &shapes[1].kind else { panic!("it is one") };
    assert_eq!(*forms, [Type::Text, Type::List(text())]);
}
