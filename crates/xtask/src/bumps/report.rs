//! The page with the figures.

use super::{CODECS, Change, Cost, Cut, SPLITS};

/// The goal: new bytes over those of the changed files alone, in the median.
const GOAL: f64 = 1.5;
/// Simulations are told bump by bump for this one of the codecs.
const DETAIL: usize = 1;

/// Writes the page.
pub(crate) fn page((layer_count, modules_count): (usize, usize), changes: &[Change], cuts: &[Cut]) -> String {
    let (modules, base): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|change| !change.is_base);
    let mut page = String::new();
    let mut line = |text: &str| {
        page.push_str(text);
        page.push('\n');
    };
    line(
        "# Dependency bumps\n\n\
         Written by `cargo xtask bumps`. All figures are bytes and follow from what is recorded in `testdata/bumps`; no machine is in them.\n\n\
         The image of a service is built at eleven states of its dependencies, and at three more of its base. After each bump some blobs of layers are *new*: the\n\
         image before does not have them. *Changed* is what had to be new: the files whose path, content, mode, owner or type is new, with the directories they are\n\
         in, as one layer of the same codec. The figure is new bytes over changed ones, the median of the ten bumps (the mean of the two in the middle);\n\
         the goal is at most 1.5.\n",
    );
    line(&format!(
        "## As images are cut\n\nAt the first state the image has {layer_count} layers, of which {modules_count} have modules. The rules: docs/formats/cut.md.\n"
    ));
    let names: Vec<String> = CODECS.iter().map(|(name, ..)| format!("new, {name} | changed | ratio")).collect();
    line(&format!("| bump | new layers | {} |\n|---|{}", names.join(" | "), "---|".repeat(1 + 3 * CODECS.len())));
    for change in changes {
        let cells: Vec<String> = change
            .costs
            .iter()
            .map(|cost| format!("{} | {} | {}", thousands(cost.today), thousands(cost.changed), number(today(cost))))
            .collect();
        line(&format!(
            "| {} {} | {} | {} |",
            change.name,
            change.what,
            change.costs[0].new_layer_count,
            cells.join(" | ")
        ));
    }
    let medians: Vec<String> =
        (0..CODECS.len()).map(|codec| format!("| | **{}**", number(median(&modules, codec, today)))).collect();
    line(&format!("| median of 01 to 10 | | {} |", medians.join(" ")));
    if !base.is_empty() {
        let medians: Vec<String> =
            (0..CODECS.len()).map(|codec| format!("| | {}", number(median(&base, codec, today)))).collect();
        line(&format!("| median of the base | | {} |", medians.join(" ")));
    }

    line(
        "\n## What changed\n\nPackages count by name, changed ones with added and removed ones. Bytes are those of contents, not compressed.\n\n\
         | bump | packages | changed | their bytes | share of the modules | changed files | their bytes | share of their packages |\n\
         |---|---|---|---|---|---|---|---|",
    );
    for change in &modules {
        line(&format!(
            "| {} {} | {} | {} | {} | {} | {} | {} | {} |",
            change.name,
            change.what,
            change.package_count,
            change.changed_package_count,
            thousands(change.changed_packages_bytes),
            share(change.changed_packages_bytes, change.modules_bytes),
            thousands(change.changed_files_count as u64),
            thousands(change.changed_files_bytes),
            share(change.changed_files_bytes, change.changed_packages_bytes),
        ));
    }
    line("\nChanged files count the service's own `package.json`, so there may be more of them than packages have.\n");

    line(
        "## What other ways of cutting would give\n\nSimulated: the modules in several layers, the other layers as they are. By hash, the layer of a package follows from its name alone.\n\
         An image can have about 127 layers,\n\
         and rows with more show what would be left at best. Layers and bytes are those of the modules at state 10; bytes are compared with one layer for all.\n",
    );
    let names: Vec<String> = CODECS.iter().map(|(name, ..)| format!("median, {name}")).collect();
    let totals: Vec<String> = CODECS.iter().map(|(name, ..)| format!("all ten, {name}")).collect();
    let bytes: Vec<String> = CODECS.iter().map(|(name, ..)| format!("bytes, {name}")).collect();
    line(&format!(
        "| modules | layers | {} | {} | {} |\n|---|{}",
        names.join(" | "),
        totals.join(" | "),
        bytes.join(" | "),
        "---|".repeat(1 + 3 * CODECS.len())
    ));
    for (index, (by, cut)) in SPLITS.iter().zip(cuts).enumerate() {
        let of = |cost: &Cost| ratio(cost.simulated[index], cost.changed);
        let medians: Vec<String> = (0..CODECS.len())
            .map(|codec| {
                let median = median(&modules, codec, of);
                if median <= GOAL { format!("**{}**", number(median)) } else { number(median) }
            })
            .collect();
        let together: Vec<String> = (0..CODECS.len())
            .map(|codec| {
                let new: u64 = modules.iter().map(|change| change.costs[codec].simulated[index]).sum();
                let changed: u64 = modules.iter().map(|change| change.costs[codec].changed).sum();
                number(ratio(new, changed))
            })
            .collect();
        let bytes: Vec<String> =
            cut.bytes.iter().zip(&cuts[0].bytes).map(|(own, one)| format!("{:.3}", ratio(*own, *one))).collect();
        line(&format!(
            "| {by} | {} | {} | {} | {} |",
            cut.layer_count,
            medians.join(" | "),
            together.join(" | "),
            bytes.join(" | ")
        ));
    }
    line(
        "\n*All ten* are the new bytes of all ten bumps over the changed ones of all ten: what is sent in the end. Medians within the goal are bold.\n",
    );

    line(&format!("Bump by bump, {}:\n", CODECS[DETAIL].0));
    let names: Vec<&str> = modules.iter().map(|change| change.name).collect();
    line(&format!("| modules | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len())));
    for (index, by) in SPLITS.iter().enumerate() {
        let ratios: Vec<String> = modules
            .iter()
            .map(|change| &change.costs[DETAIL])
            .map(|cost| number(ratio(cost.simulated[index], cost.changed)))
            .collect();
        line(&format!("| {by} | {} |", ratios.join(" | ")));
    }
    page
}

fn today(cost: &Cost) -> f64 {
    ratio(cost.today, cost.changed)
}

#[expect(clippy::cast_precision_loss, reason = "bytes of layers are far below 2^52")]
fn ratio(over: u64, under: u64) -> f64 {
    over as f64 / under as f64
}

fn median(changes: &[&Change], codec: usize, of: impl Fn(&Cost) -> f64) -> f64 {
    let mut ratios: Vec<f64> = changes.iter().map(|change| of(&change.costs[codec])).collect();
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.len() / 2;
    if ratios.len() % 2 == 1 { ratios[middle] } else { f64::midpoint(ratios[middle - 1], ratios[middle]) }
}

fn number(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", 100.0 * ratio(part, whole)) }
}

/// A number with its thousands apart.
fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
