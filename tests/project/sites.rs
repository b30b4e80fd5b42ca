//! Nobody syncs, renames or links in the store behind the crash simulator's back.
//!
//! Each such call in `cas-store` goes through the trait of its disk with a named site, and each site is used. What is
//! searched is text: a call is one of a few words, and its site stands within it.

use std::fs;
use std::path::Path;

/// Words that decide about durability without a site.
const FORBIDDEN: [&str; 11] = [
    "cas_fs::replace",
    "cas_fs::write_atomic",
    "cas_fs::append",
    "fs::rename",
    "fs::hard_link",
    "renameat",
    "linkat",
    "syncfs",
    "fdatasync",
    ".sync_data(",
    ".persist(",
];
/// Calls of the trait that need one.
const NAMED: [&str; 6] = [".rename(", ".link(", ".sync_file(", ".sync_folder(", ".sync_all(", "replace_durably("];
/// Tests, and the disks themselves, which are what the sites are given to.
const EXEMPT: [&str; 7] =
    ["tests.rs", "lease_tests.rs", "conformance.rs", "kill_sites.rs", "simulator.rs", "host.rs", "model.rs"];
/// A tree's own hard links are made before the tree is published.
const TREE_LINKS: (&str, &str) = ("write.rs", "fs::hard_link");

/// What is wrong with a source file.
fn faults(name: &str, text: &str) -> Vec<String> {
    let code: Vec<&str> = text
        .lines()
        .take_while(|line| *line != "mod tests {")
        .map(|line| if line.trim_start().starts_with("//") { "" } else { line })
        .collect();
    let mut faults = Vec::new();
    for (index, line) in code.iter().enumerate() {
        let at = format!("{name}:{}", index + 1);
        for word in FORBIDDEN.iter().filter(|word| line.contains(**word) && (name, **word) != TREE_LINKS) {
            faults.push(format!("{at}: `{word}` goes past the disk's sites"));
        }
        for call in NAMED.iter().filter(|call| line.contains(**call)) {
            // The site is an argument: on this line, or on one of those that a call is broken into.
            let whole = code[index..code.len().min(index + 8)].join(" ");
            let rest = &whole[whole.find(call).expect("it is on the first line")..];
            let arguments = &rest[..rest.find(';').unwrap_or(rest.len())];
            if !["Site::", "sites", "site,"].iter().any(|site| arguments.contains(site)) {
                faults.push(format!("{at}: `{call}` without a site"));
            }
        }
    }
    faults
}

#[expect(clippy::unwrap_used, reason = "a test may panic")]
fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/cas-store/src");
    let mut sources = Vec::new();
    for folder in [folder.clone(), folder.join("disk")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".rs") && !EXEMPT.contains(&name.as_str()) {
                sources.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources
}

#[test]
fn every_sync_and_rename_of_the_store_has_a_named_site() {
    let sources = sources();
    assert!(sources.len() > 15, "only {} files were found", sources.len());
    let faults: Vec<String> = sources.iter().flat_map(|(name, text)| faults(name, text)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_site_is_used() {
    let sources = sources();
    let declared = &sources.iter().find(|(name, text)| name == "mod.rs" && text.contains("enum Site")).unwrap().1;
    let list = declared.split("const ALL").nth(1).unwrap().split("];").next().unwrap();
    let sites: Vec<&str> =
        list.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.strip_suffix(',')).collect();
    assert!(sites.len() > 15, "{sites:?}");
    for site in sites {
        let used = sources
            .iter()
            .filter(|(name, _)| name != "mod.rs")
            .any(|(_, text)| text.contains(&format!("Site::{site}")));
        assert!(used, "no code uses the site {site}");
    }
}

#[test]
fn a_call_without_a_site_is_found() {
    for (line, is_right) in [
        ("disk.rename(Site::RenamePin, a, b)?;", true),
        ("disk.rename(a, b)?;", false),
        ("// disk.rename(a, b)?;", true),
        ("file.sync_all()?;", false),
        ("cas_fs::rename(a, b)?;", false),
        ("rustix::fs::syncfs(&file)?;", false),
        ("self.disk\n    .sync_file(\n        Site::SyncPin,\n        &file)?;", true),
    ] {
        assert_eq!(faults("x.rs", line).is_empty(), is_right, "{line}");
    }
}
