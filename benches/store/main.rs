//! The store and the snapshot beside the limits of the machine and beside peers, on one corpus, in one run.
//!
//! `cargo bench --bench store -- CORPUS FOLDER [SECTION]...` prints a page of Markdown. CORPUS is a tree of files (the source
//! of Linux is what the budgets are stated for), FOLDER an empty place on the file system that is to be measured, a section
//! one of those below; all without one. Peers that are not installed are left out.

#![expect(clippy::print_stdout, reason = "this is a command line tool")]
#![expect(clippy::disallowed_methods, reason = "the rules are those of cas; this runs beside it")]
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

mod blobs;
mod harness;
mod many;
mod snapshot;
mod trees;

use std::fs;

use harness::Bench;

/// Measures and prints.
type Section = fn(&Bench);

const SECTIONS: [(&str, Section); 6] = [
    ("unchanged", snapshot::unchanged),
    ("digests", snapshot::digests),
    ("large", snapshot::large),
    ("stored", blobs::stored),
    ("trees", trees::written),
    ("many", many::many),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [corpus, folder, sections @ ..] = arguments.as_slice() else {
        // Cargo runs every benchmark without arguments when it tests.
        println!("usage: cargo bench --bench store -- CORPUS FOLDER [SECTION]...");
        return;
    };
    let bench = Bench { corpus: corpus.into(), folder: folder.into() };
    fs::create_dir_all(&bench.folder).unwrap();
    bench.head();
    for (name, section) in SECTIONS {
        if sections.is_empty() || sections.iter().any(|section| section == name) {
            harness::reset_peak();
            section(&bench);
        }
    }
    harness::clear(&bench.folder);
}
