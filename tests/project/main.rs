//! The project's own rules: crates depend on each other as docs/ARCHITECTURE.md says.

#![expect(clippy::disallowed_methods, reason = "tests look at the disk as others do")]

mod sites;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Layers of the map, lowest first, whose crates may use each other.
const OPEN: [&str; 2] = ["vocabulary", "system"];

/// The layer of each crate, as the table of the page has it: name and position.
fn layers(page: &str) -> BTreeMap<String, (usize, String)> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| layer"));
    let mut layers = BTreeMap::new();
    for (position, row) in rows.enumerate() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for name in cells[2].split('`').skip(1).step_by(2) {
            layers.insert(name.to_owned(), (position, cells[1].to_owned()));
        }
    }
    layers
}

/// What is wrong with the arrow from one crate to another, if anything is.
fn fault(layers: &BTreeMap<String, (usize, String)>, from: &str, to: &str) -> Option<String> {
    let (Some((below, _)), Some((above, layer))) = (layers.get(to), layers.get(from)) else {
        return Some(format!("{from} -> {to}: the map does not have both"));
    };
    let allowed = below < above || (below == above && OPEN.contains(&layer.as_str())) || layer == "beside";
    (!allowed).then(|| format!("{from} -> {to}: {layer} may use the layers above it in the map alone"))
}

#[test]
fn crates_depend_on_each_other_as_the_map_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let layers = layers(&std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).unwrap());
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline", "--locked"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut faults = Vec::new();
    let mut arrow_count = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let from = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            // The binary stands for the edge; what tests use is no arrow of the program.
            if from != "cas" && to.starts_with("cas-") && dependency["kind"].is_null() {
                arrow_count += 1;
                faults.extend(fault(&layers, from, to));
            }
        }
    }
    assert!(arrow_count > 20, "only {arrow_count} arrows were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_wrong_arrow_is_found() {
    let layers =
        layers("| layer | crates |\n| vocabulary | `a`, `b` | x |\n| places | `c`, `d` | x |\n| beside | `t` | x |\n");
    for (from, to, right) in [
        ("c", "a", true),
        ("a", "b", true),
        ("t", "c", true),
        ("a", "c", false),
        ("c", "d", false),
        ("c", "unknown", false),
    ] {
        assert_eq!(fault(&layers, from, to).is_none(), right, "{from} -> {to}");
    }
}
