//! `cas image diff`: two images by configuration, packages and files.

use cas_analyze::{Difference, FileChange, FileState, compare};
use cas_build::ImageContent;
use serde_json::{Map, Value, json};

use crate::args::{DiffArgs, Format, Global};
use crate::commands::{healed, open_store};
use crate::exit::Exit;
use crate::image_look::{look, plain, shown};
use crate::render::{self, Failure};

pub(crate) fn run(global: &Global, args: &DiffArgs) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let mut work = || {
        let from = look(global, &store, &args.from, &args.look)?;
        let to = look(global, &store, &args.to, &args.look)?;
        // What has one manifest is one image.
        let difference = match from.manifest == to.manifest {
            true => Difference::default(),
            false => compare((&from.read(&store)?, &from.config), (&to.read(&store)?, &to.config)),
        };
        Ok((from, to, difference))
    };
    let (from, to, difference) = healed(&store, &mut work)?;
    let exit = if difference.is_empty() { Exit::Done } else { Exit::Failed };
    match global.format {
        Format::Json => render::lines([document(&from, &to, &difference, exit).to_string()])?,
        Format::Text => render::lines(lines(&difference))?,
    }
    Ok(exit)
}

fn lines(difference: &Difference) -> Vec<String> {
    let mut lines = Vec::new();
    let value = |text: &Option<String>| text.as_ref().map_or_else(|| "(none)".to_owned(), |text| plain(text));
    for change in &difference.config {
        lines.push(format!("config {}: {} -> {}", plain(&change.key), value(&change.from), value(&change.to)));
    }
    let versions = |versions: &std::collections::BTreeSet<String>| match versions.is_empty() {
        true => "(none)".to_owned(),
        false => plain(&versions.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
    };
    for change in &difference.packages {
        let (from, to) = (versions(&change.from), versions(&change.to));
        lines.push(format!("package {} {}: {from} -> {to}", change.ecosystem, plain(&change.name)));
    }
    let size = |state: &Option<FileState>| state.as_ref().and_then(|state| state.content).map(|content| content.size);
    for FileChange { path, changed, from, to } in &difference.files {
        let sizes = match (size(from), size(to)) {
            (Some(from), Some(to)) if from != to => format!(" ({from} -> {to} bytes)"),
            (Some(size), None) | (None, Some(size)) => format!(" ({size} bytes)"),
            _ => String::new(),
        };
        lines.push(format!("file {}: {}{sizes}", shown(path.as_bytes()), changed.join(", ")));
    }
    lines
}

fn document(from: &ImageContent, to: &ImageContent, difference: &Difference, exit: Exit) -> Value {
    let image = |image: &ImageContent| json!({ "image": image.name, "digest": image.manifest.digest.to_string() });
    let config = difference.config.iter();
    let config = config.map(|change| json!({ "key": change.key, "from": change.from, "to": change.to }));
    let packages = difference.packages.iter().map(
        |change| json!({ "ecosystem": change.ecosystem, "name": change.name, "from": change.from, "to": change.to }),
    );
    let files = difference.files.iter().map(|change| {
        json!({ "path": shown(change.path.as_bytes()), "changed": change.changed,
                "from": change.from.as_ref().map(state), "to": change.to.as_ref().map(state) })
    });
    json!({
        "exit": exit.word(),
        "from": image(from),
        "to": image(to),
        "equal": difference.is_empty(),
        "config": config.collect::<Vec<_>>(),
        "packages": packages.collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
    })
}

fn state(state: &FileState) -> Value {
    let FileState { kind, metadata, content, target, link, device } = state;
    let mut fields = Map::new();
    let mut set = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    set("type", json!(kind));
    set("mode", json!(format!("{:04o}", metadata.mode)));
    set("uid", json!(metadata.uid));
    set("gid", json!(metadata.gid));
    if let Some(content) = content {
        set("size", json!(content.size));
        set("digest", json!(content.digest.to_string()));
    }
    if let Some(target) = target {
        set("target", json!(shown(target)));
    }
    if let Some(link) = link {
        set("link", json!(shown(link.as_bytes())));
    }
    if let Some((major, minor)) = device {
        set("device", json!([major, minor]));
    }
    if !metadata.xattrs.is_empty() {
        set("xattrs", json!(metadata.xattrs.keys().map(|name| shown(name)).collect::<Vec<_>>()));
    }
    Value::Object(fields)
}
