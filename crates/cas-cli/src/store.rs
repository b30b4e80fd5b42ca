//! `cas store`: look at the store, clear it, check it, keep things in it.

use std::time::Duration;

use cas_blob::Descriptor;
use cas_build::{artifact_keeps, image_keeps};
use cas_store::{Depth, Keep, Quota, Retention};
use serde_json::{Value, json};

use crate::args::{GcArgs, Global, LimitArgs, PinCommand, StoreCommand};
use crate::commands::{Named, open_store, print, remove_left, text};
use crate::exit::Exit;
use crate::render::{Failure, counted};

pub(crate) fn run(global: &Global, command: StoreCommand) -> Result<Exit, Failure> {
    match command {
        StoreCommand::Stat => stat(global),
        StoreCommand::Gc(args) => gc(global, &args),
        StoreCommand::Fsck { full } => fsck(global, if full { Depth::Full } else { Depth::Fast }),
        StoreCommand::Path { blob } => {
            let blob = parse(&blob)?;
            let path = open_store(global)?.object_path(&blob)?;
            let rows = [json!({ "blob": blob.to_string(), "path": path.display().to_string() })];
            print(global, &rows, |row| text(&row["path"]).to_owned())?;
            Ok(Exit::Done)
        }
        StoreCommand::Pin(command) => pin(global, command),
        StoreCommand::Limit(args) => limit(global, &args),
    }
}

fn parse(blob: &str) -> Result<Descriptor, Failure> {
    blob.parse().map_err(|error| Failure::Usage(format!("`{blob}` is not `FUNCTION:HEX/SIZE`: {error}")))
}

/// A size for people: three digits and a unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let (mut whole, mut rest) = (bytes, 0);
    while whole >= 1024 && unit + 1 < UNITS.len() {
        rest = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    if unit == 0 { format!("{whole} B") } else { format!("{whole}.{rest} {}", UNITS[unit]) }
}

fn limit_text(limit: Option<u64>, show: impl Fn(u64) -> String, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), show)
}

fn quota_rows(quota: &Quota) -> Vec<Value> {
    vec![
        json!({ "name": "max_bytes", "value": quota.max_bytes, "text": limit_text(quota.max_bytes, size, "none") }),
        json!({ "name": "max_files", "value": quota.max_inodes,
            "text": limit_text(quota.max_inodes, |count| count.to_string(), "none") }),
        json!({ "name": "min_free_bytes", "value": quota.min_free_bytes,
            "text": limit_text(quota.min_free_bytes, size, "the smaller of 5 % and 1 GiB") }),
    ]
}

fn line(row: &Value) -> String {
    format!("{:<16} {}", text(&row["name"]), text(&row["text"]))
}

fn stat(global: &Global) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let found = store.statistics()?;
    let count = |name: &str, value: u64| json!({ "name": name, "value": value, "text": value.to_string() });
    let bytes = |name: &str, value: u64| json!({ "name": name, "value": value, "text": size(value) });
    let folder = store.folder().display().to_string();
    let mut rows = vec![
        json!({ "name": "folder", "value": folder, "text": folder }),
        count("objects", found.objects),
        bytes("content_bytes", found.content_bytes),
        bytes("object_bytes", found.object_bytes),
        count("suspects", found.suspects),
        count("roots", found.roots),
        bytes("root_bytes", found.root_bytes),
        count("files", found.inodes),
        count("aliases", found.aliases),
        count("results", found.results),
        count("memos", found.memos),
        count("pins", found.pins),
        bytes("free_bytes", found.free_bytes),
    ];
    rows.extend(quota_rows(&found.quota));
    print(global, &rows, line)?;
    Ok(Exit::Done)
}

fn gc(global: &Global, args: &GcArgs) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let retention = Retention { min_age_seconds: args.min_age, keep_seconds: args.keep };
    let done = store.collect(retention, args.max_size, args.dry_run)?;
    let private = store.remove_private(Duration::from_secs(args.keep), args.dry_run)?;
    let rows = [json!({
        "dry_run": args.dry_run,
        "objects": done.objects,
        "roots": done.roots,
        "rows": done.rows,
        "pins": done.pins,
        "bytes": done.bytes,
        "private": private,
        "spared": done.spared,
        "bytes_left": done.bytes_left,
    })];
    let verb = if args.dry_run { "would remove" } else { "removed" };
    print(global, &rows, |_| {
        let spared = match done.spared {
            0 => String::new(),
            count => format!("; {count} stay because running builds use them"),
        };
        let kept = match private {
            0 => String::new(),
            count => format!("; {verb} {} of steps", counted(count, "private folder")),
        };
        format!(
            "{verb} {}, {} and {}, {} together; {} are left{spared}{kept}",
            counted(done.objects, "object"),
            counted(done.roots, "written tree"),
            counted(done.rows, "result"),
            size(done.bytes),
            size(done.bytes_left),
        )
    })?;
    if !args.dry_run {
        remove_left(&store)?;
    }
    Ok(Exit::Done)
}

fn fsck(global: &Global, depth: Depth) -> Result<Exit, Failure> {
    let check = open_store(global)?.check(depth)?;
    let mut rows: Vec<Value> = Vec::new();
    let mut found = |kind: &str, what: String, text: String| {
        rows.push(json!({ "kind": kind, "what": what, "text": text }));
    };
    for digest in &check.damaged {
        found(
            "object",
            digest.to_string(),
            format!("damaged object `{digest}` was set aside; it is made or fetched again"),
        );
    }
    for path in &check.strays {
        found("stray", path.display().to_string(), format!("`{}` is no object and was set aside", path.display()));
    }
    for path in &check.damaged_roots {
        found("root", path.display().to_string(), format!("written tree `{}` was damaged and removed", path.display()));
    }
    for path in &check.damaged_pins {
        found(
            "pin",
            path.display().to_string(),
            format!("pin `{}` is damaged: remove the file, or pin again", path.display()),
        );
    }
    for (pin, blob) in &check.missing {
        found(
            "missing",
            blob.to_string(),
            format!("pin `{pin}` keeps `{blob}`, which is not here: build or pull it again, or end the pin"),
        );
    }
    if check.is_index_damaged {
        found(
            "index",
            "index.db".to_owned(),
            "the index was damaged and is begun anew: results are computed again".to_owned(),
        );
    }
    let is_clean = check.is_clean();
    rows.push(json!({
        "kind": "summary",
        "clean": is_clean,
        "objects": check.object_count,
        "bytes": check.object_bytes,
        "read": check.read_count,
        "roots": check.root_count,
        "text": format!(
            "{}: {}, {}, of which {} were read; {}",
            match (is_clean, check.read_count == check.object_count) {
                (false, _) => "not clean",
                (true, true) => "clean",
                (true, false) => "clean by names and sizes (`--full` reads everything)",
            },
            counted(check.object_count, "object"),
            size(check.object_bytes),
            check.read_count,
            counted(check.root_count, "written tree"),
        ),
    }));
    print(global, &rows, |row| text(&row["text"]).to_owned())?;
    Ok(if is_clean { Exit::Done } else { Exit::Mismatch })
}

fn pin(global: &Global, command: PinCommand) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    match command {
        PinCommand::Add { name, keeps } => {
            let mut all = Vec::new();
            for what in &keeps {
                if let Some(blob) = what.strip_prefix("blob:") {
                    all.push(Keep::Blob(parse(blob)?));
                } else if let Some(tree) = what.strip_prefix("tree:") {
                    all.push(Keep::Tree(parse(tree)?));
                } else {
                    all.extend(match Named::of_store(&store, what)? {
                        Named::Image(image) => image_keeps(&store, &image)?,
                        Named::Artifact(artifact) => artifact_keeps(&store, &artifact)?,
                    });
                }
            }
            all.sort_unstable();
            all.dedup();
            store.pin(&name, &all)?;
            let rows = [json!({ "name": name, "keeps": all.len() })];
            print(global, &rows, |row| format!("{} keeps {} things", text(&row["name"]), all.len()))?;
        }
        PinCommand::Rm { name } => {
            if !store.unpin(&name)? {
                return Err(Failure::Usage(format!("there is no pin `{name}`; `cas store pin ls` lists them")));
            }
            print(global, &[json!({ "name": name })], |row| format!("{} was ended", text(&row["name"])))?;
        }
        PinCommand::Ls => {
            let rows: Vec<Value> = store
                .pins()?
                .iter()
                .map(|pin| {
                    let lifetime = pin.lifetime.as_ref().map(|path| path.display().to_string());
                    json!({ "name": pin.name, "keeps": pin.keeps.len(), "while": lifetime })
                })
                .collect();
            print(global, &rows, |row| {
                let lifetime = row["while"].as_str().map(|path| format!(" while there is {path}")).unwrap_or_default();
                format!("{} keeps {} things{lifetime}", text(&row["name"]), row["keeps"])
            })?;
        }
    }
    Ok(Exit::Done)
}

fn limit(global: &Global, args: &LimitArgs) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let mut quota = store.statistics()?.quota;
    let before = quota;
    for (value, limit) in [
        (args.max_size, &mut quota.max_bytes),
        (args.max_files, &mut quota.max_inodes),
        (args.min_free, &mut quota.min_free_bytes),
    ] {
        if let Some(value) = value {
            *limit = value.0;
        }
    }
    if quota != before {
        store.set_quota(quota)?;
    }
    print(global, &quota_rows(&quota), line)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (20 << 30, "20.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }
}
