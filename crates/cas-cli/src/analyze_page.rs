//! The page of `cas image analyze --html`: one file, no script, nothing from elsewhere, every text escaped.

use cas_analyze::{Advice, Report};
use cas_build::ImageContent;

use crate::analyze::{entries, made_by, percent, platform, shares, totals};
use crate::image_look::{plain, shown};
use crate::store::size;

/// How many entries of a piece of advice are on the page.
const MAX_ENTRIES: usize = 200;
/// How many packages are on the page.
const MAX_PACKAGES: usize = 500;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222; background: #fff }\n\
table { border-collapse: collapse; width: 100%; margin: 1em 0 } th, td { text-align: left; padding: .25em .7em; border-bottom: 1px solid #ddd; vertical-align: top }\n\
td.n, th.n { text-align: right; white-space: nowrap } code { font-size: 90%; word-break: break-all }\n\
.warning { border-left: 5px solid #c0392b } .waste { border-left: 5px solid #d68910 } .hint { border-left: 5px solid #7f8c8d }\n\
section { padding-left: 1em; margin: 1.2em 0 } h3 { margin: 0 } p { margin: .2em 0 }\n\
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } th, td { border-color: #444 } }\n\
</style>\n";

/// A text between tags or in quotes.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in plain(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

pub(crate) fn page(content: &ImageContent, report: &Report) -> String {
    let (entry_count, bytes, compressed) = totals(report);
    let (saves, saves_compressed) = report.savings();
    let name = escaped(&content.name);
    let mut page = format!("{HEAD}<title>{name}</title>\n</head>\n<body>\n<h1>{name}</h1>\n");
    page.push_str(&format!(
        "<p><code>{}</code> {}</p>\n<p>{}, {}, {} compressed. The advice below saves {} ({}), about {} compressed.</p>\n",
        content.manifest.digest,
        escaped(&platform(content)),
        entries(entry_count),
        size(bytes),
        size(compressed),
        size(saves),
        percent(saves, bytes),
        size(saves_compressed),
    ));
    page.push_str("<h2>Advice</h2>\n");
    report.advice.iter().for_each(|advice| section(&mut page, advice));
    page.push_str(
        "<h2>Layers</h2>\n<table>\n<tr><th>layer</th><th class=\"n\">bytes</th><th class=\"n\">compressed</th>\
         <th class=\"n\">entries</th><th>of these</th></tr>\n",
    );
    for (index, layer) in report.layers.iter().enumerate() {
        let told: Vec<String> = shares(layer).iter().map(|(what, bytes)| format!("{} {what}", size(*bytes))).collect();
        page.push_str(&format!(
            "<tr><td>{index}<br><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
            escaped(&made_by(layer)),
            size(layer.facts.bytes),
            size(layer.facts.compressed_bytes),
            layer.entry_count,
            told.join("<br>"),
        ));
    }
    page.push_str("</table>\n");
    if !report.packages.is_empty() {
        page.push_str(
            "<h2>Packages</h2>\n<table>\n<tr><th>package</th><th>version</th><th class=\"n\">files</th>\
             <th class=\"n\">bytes</th><th class=\"n\">share</th><th>layers</th></tr>\n",
        );
        for package in report.packages.iter().take(MAX_PACKAGES) {
            let layers: Vec<String> = package.layers.iter().map(usize::to_string).collect();
            page.push_str(&format!(
                "<tr><td>{} {}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
                package.ecosystem,
                escaped(&package.name),
                escaped(&package.version),
                package.file_count,
                size(package.bytes),
                percent(package.bytes, bytes),
                layers.join(", "),
            ));
        }
        page.push_str("</table>\n");
        if report.packages.len() > MAX_PACKAGES {
            page.push_str(&format!("<p>and {} more</p>\n", report.packages.len() - MAX_PACKAGES));
        }
    }
    if !report.skipped.is_empty() {
        page.push_str("<h2>Not read</h2>\n<table>\n");
        for skipped in &report.skipped {
            let path = escaped(&shown(skipped.path.as_bytes()));
            page.push_str(&format!(
                "<tr><td><code>{path}</code> of layer {}</td><td class=\"n\">{}</td><td>{}</td></tr>\n",
                skipped.layer,
                size(skipped.bytes),
                skipped.why
            ));
        }
        page.push_str("</table>\n");
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(page: &mut String, advice: &Advice) {
    let level = advice.kind.level().name();
    if advice.entries.is_empty() {
        let (subject, change) = (escaped(&advice.subject), escaped(&advice.change));
        let kind = advice.kind.name();
        page.push_str(&format!(
            "<section class=\"{level}\">\n<h3>{kind}: {subject}</h3>\n<p>{change}</p>\n</section>\n"
        ));
        return;
    }
    page.push_str(&format!(
        "<section class=\"{level}\">\n<h3>{}: {}</h3>\n<p>{}</p>\n<p>Saves {} ({} bytes), about {} compressed.</p>\n\
         <details><summary>{}</summary>\n<table>\n",
        advice.kind.name(),
        escaped(&advice.subject),
        escaped(&advice.change),
        size(advice.saves_bytes),
        advice.saves_bytes,
        size(advice.saves_compressed_bytes),
        entries(advice.entries.len() as u64),
    ));
    for entry in advice.entries.iter().take(MAX_ENTRIES) {
        let link = entry.link.as_ref().map_or_else(String::new, |(kind, target)| {
            format!(" becomes a {} link to <code>{}</code>", kind.name(), escaped(&shown(target.as_bytes())))
        });
        let path = escaped(&shown(entry.path.as_bytes()));
        page.push_str(&format!(
            "<tr><td><code>{path}</code>{link}</td><td class=\"n\">layer {}</td><td class=\"n\">{}</td></tr>\n",
            entry.layer, entry.bytes
        ));
    }
    page.push_str("</table>\n");
    if advice.entries.len() > MAX_ENTRIES {
        page.push_str(&format!("<p>and {} more</p>\n", advice.entries.len() - MAX_ENTRIES));
    }
    page.push_str("</details>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_its_place() {
        assert_eq!(escaped("<a href='x'>\"&\u{1b}"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;\\x1b");
    }
}
