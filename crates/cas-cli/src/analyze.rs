//! `cas image analyze`: what an image holds and wastes, as lines and as JSON. The page is made in `analyze_page`.

use cas_analyze::{Advice, Guesses, LayerReport, Report, analyze, masked, told_secrets};
use cas_build::{ImageContent, write_file};
use cas_config::{is_secret_like, token_in, without_tokens};
use serde_json::{Value, json};

use crate::analyze_page::page;
use crate::args::{AnalyzeArgs, Format, Global};
use crate::commands::{healed, in_here, open_store};
use crate::exit::Exit;
use crate::image_look::{look, plain, shown};
use crate::render::{self, Failure, counted};
use crate::store::size;

/// What is taken for a secret in a configuration, as for steps.
pub(crate) const GUESSES: Guesses = Guesses { is_secret_name: is_secret_like, token_in, without_tokens };
/// How many packages are told on lines.
const MAX_PACKAGES: usize = 20;
/// How many entries of a piece of advice are told on lines.
const MAX_ENTRIES: usize = 5;

pub(crate) fn run(global: &Global, args: &AnalyzeArgs) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let mut work = || {
        let content = look(global, &store, &args.image, &args.look)?;
        let mut report = analyze(&content.read(&store)?);
        report.add_told(told_secrets(&content.config, &GUESSES));
        Ok((content, report))
    };
    let (content, report) = healed(&store, &mut work)?;
    if let Some(path) = &args.html {
        let path = in_here(global, path);
        write_file(&path, page(&content, &report).as_bytes())?;
    }
    match global.format {
        Format::Json => render::lines([document(&content, &report).to_string()])?,
        Format::Text => render::lines(lines(&content, &report))?,
    }
    Ok(Exit::Done)
}

/// The platform of an image, as its configuration has it.
pub(crate) fn platform(content: &ImageContent) -> String {
    let part = |key: &str| content.config[key].as_str().filter(|text| !text.is_empty());
    let parts = [part("os"), part("architecture"), part("variant")];
    plain(&parts.into_iter().flatten().collect::<Vec<_>>().join("/"))
}

/// What made a layer, without the values of secrets.
pub(crate) fn made_by(layer: &LayerReport) -> String {
    masked(&layer.facts.created_by, &GUESSES)
}

/// Entries, uncompressed and compressed bytes of all layers.
pub(crate) fn totals(report: &Report) -> (u64, u64, u64) {
    report.layers.iter().fold((0, 0, 0), |(entries, bytes, compressed), layer| {
        (entries + layer.entry_count, bytes + layer.facts.bytes, compressed + layer.facts.compressed_bytes)
    })
}

/// A part of a whole in percent, with one digit behind the point.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// What of a layer is worth a word: a name and bytes.
pub(crate) fn shares(layer: &LayerReport) -> Vec<(&'static str, u64)> {
    let all = [
        ("overwritten later", layer.overwritten_bytes),
        ("removed later", layer.removed_bytes),
        ("duplicates", layer.duplicate_bytes),
        ("caches", layer.cache_bytes),
        ("version control", layer.version_control_bytes),
        ("build tools", layer.build_tool_bytes),
        ("for development", layer.development_bytes),
        ("documentation", layer.documentation_bytes),
    ];
    all.into_iter().filter(|(_, bytes)| *bytes > 0).collect()
}

fn lines(content: &ImageContent, report: &Report) -> Vec<String> {
    let (entry_count, bytes, compressed) = totals(report);
    let mut lines = vec![
        format!("{} {} {}", plain(&content.name), content.manifest.digest, platform(content)),
        format!(
            "{} in {}: {}, {} compressed",
            entries(entry_count),
            counted(report.layers.len() as u64, "layer"),
            size(bytes),
            size(compressed)
        ),
    ];
    for (index, layer) in report.layers.iter().enumerate() {
        let facts = &layer.facts;
        let told: String = shares(layer).iter().map(|(what, bytes)| format!("; {} {what}", size(*bytes))).collect();
        let (bytes, compressed) = (size(facts.bytes), size(facts.compressed_bytes));
        lines.push(format!("layer {index}: {bytes}, {compressed} compressed, {}{told}", entries(layer.entry_count)));
        if !facts.created_by.is_empty() {
            lines.push(format!("  {}", plain(&made_by(layer))));
        }
    }
    for package in report.packages.iter().take(MAX_PACKAGES) {
        let layers: Vec<String> = package.layers.iter().map(usize::to_string).collect();
        lines.push(format!(
            "package {} {} {}: {}, {}, in {} {}",
            package.ecosystem,
            plain(&package.name),
            plain(&package.version),
            size(package.bytes),
            percent(package.bytes, bytes),
            if layers.len() == 1 { "layer" } else { "layers" },
            layers.join(", ")
        ));
    }
    if report.packages.len() > MAX_PACKAGES {
        lines.push(format!("and {} more packages", report.packages.len() - MAX_PACKAGES));
    }
    if report.unowned_bytes > 0 && !report.packages.is_empty() {
        lines.push(format!("of no package: {}, {}", size(report.unowned_bytes), percent(report.unowned_bytes, bytes)));
    }
    for skipped in &report.skipped {
        let path = shown(skipped.path.as_bytes());
        lines.push(format!("not read: {path} of layer {}, {}: {}", skipped.layer, size(skipped.bytes), skipped.why));
    }
    report.advice.iter().for_each(|advice| advise(&mut lines, advice));
    let (saves, saves_compressed) = report.savings();
    lines.push(format!(
        "all of this saves {}, {}; {} compressed",
        size(saves),
        percent(saves, bytes),
        size(saves_compressed)
    ));
    lines
}

fn advise(lines: &mut Vec<String>, advice: &Advice) {
    let (level, kind) = (advice.kind.level().name(), advice.kind.name());
    if advice.entries.is_empty() {
        lines.push(format!("{level}: {kind}, {}", plain(&advice.subject)));
        lines.push(format!("  {}", plain(&advice.change)));
        return;
    }
    lines.push(format!(
        "{level}: {kind}, {}: saves {} ({} bytes, about {} compressed) with {}",
        plain(&advice.subject),
        size(advice.saves_bytes),
        advice.saves_bytes,
        size(advice.saves_compressed_bytes),
        entries(advice.entries.len() as u64),
    ));
    lines.push(format!("  {}", plain(&advice.change)));
    let mut largest: Vec<_> = advice.entries.iter().collect();
    largest.sort_by_key(|entry| (std::cmp::Reverse(entry.bytes), entry.layer, &entry.path));
    for entry in largest.into_iter().take(MAX_ENTRIES) {
        lines.push(format!("  {} of layer {}: {}", shown(entry.path.as_bytes()), entry.layer, size(entry.bytes)));
    }
}

/// Entries, counted.
pub(crate) fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

fn document(content: &ImageContent, report: &Report) -> Value {
    let (entry_count, bytes, compressed_bytes) = totals(report);
    let (saves_bytes, saves_compressed_bytes) = report.savings();
    let layer = |layer: &LayerReport| {
        json!({
            "digest": layer.facts.digest,
            "diff_id": layer.facts.diff_id,
            "created_by": made_by(layer),
            "made_by_cas": layer.facts.is_own,
            "entries": layer.entry_count,
            "bytes": layer.facts.bytes,
            "compressed_bytes": layer.facts.compressed_bytes,
            "overwritten_bytes": layer.overwritten_bytes,
            "removed_bytes": layer.removed_bytes,
            "duplicate_bytes": layer.duplicate_bytes,
            "cache_bytes": layer.cache_bytes,
            "version_control_bytes": layer.version_control_bytes,
            "build_tool_bytes": layer.build_tool_bytes,
            "development_bytes": layer.development_bytes,
            "documentation_bytes": layer.documentation_bytes,
            "secrets": layer.secret_count,
        })
    };
    let packages = report.packages.iter().map(|package| {
        json!({ "ecosystem": package.ecosystem, "name": package.name, "version": package.version,
                "files": package.file_count, "bytes": package.bytes, "layers": package.layers })
    });
    let secrets = report.secrets.iter().map(|secret| {
        json!({ "layer": secret.layer, "path": shown(secret.path.as_bytes()), "kind": secret.kind.name(),
                "visible": secret.is_visible })
    });
    let told = report.told.iter().map(|secret| {
        json!({ "place": secret.place.name(), "name": plain(&secret.name), "kind": secret.kind.name(),
                "what": secret.kind.describe() })
    });
    let advice = |advice: &Advice| {
        let entries = advice.entries.iter().map(|entry| {
            let mut row = json!({ "layer": entry.layer, "path": shown(entry.path.as_bytes()), "bytes": entry.bytes });
            if let Some((kind, target)) = &entry.link {
                row["link"] = json!(shown(target.as_bytes()));
                row["link_kind"] = json!(kind.name());
            }
            row
        });
        json!({ "kind": advice.kind.name(), "level": advice.kind.level().name(), "subject": advice.subject,
                "change": advice.change, "saves_bytes": advice.saves_bytes,
                "saves_compressed_bytes": advice.saves_compressed_bytes, "entries": entries.collect::<Vec<_>>() })
    };
    let skipped = report.skipped.iter().map(|skipped| {
        json!({ "layer": skipped.layer, "path": shown(skipped.path.as_bytes()), "bytes": skipped.bytes,
                "why": skipped.why })
    });
    json!({
        "exit": Exit::Done.word(),
        "image": content.name,
        "digest": content.manifest.digest.to_string(),
        "platform": platform(content),
        "totals": {
            "entries": entry_count, "bytes": bytes, "compressed_bytes": compressed_bytes, "saves_bytes": saves_bytes,
            "saves_compressed_bytes": saves_compressed_bytes, "unowned_bytes": report.unowned_bytes,
        },
        "layers": report.layers.iter().map(layer).collect::<Vec<_>>(),
        "packages": packages.collect::<Vec<_>>(),
        "secrets": secrets.collect::<Vec<_>>(),
        "told_secrets": told.collect::<Vec<_>>(),
        "advice": report.advice.iter().map(advice).collect::<Vec<_>>(),
        "skipped": skipped.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rounded_down() {
        for (part, whole, expected) in [(0, 0, "0.0 %"), (1, 3, "33.3 %"), (2, 2, "100.0 %")] {
            assert_eq!(percent(part, whole), expected);
        }
    }
}
