//! A tree of 40,000 files written out, as it is for a sandbox.

use std::fs;
use std::process::Command;

use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::blobs::put;
use crate::harness::{Bench, Job, clear, run, say_peak, table};

/// Files of the tree.
const FILES: usize = 40_000;
/// Files in one of its folders.
const A_FOLDER: usize = 1000;

pub(crate) fn written(bench: &Bench) {
    let mut files = bench.files();
    // Those of all parts of the corpus.
    let step = files.len().div_ceil(FILES).max(1);
    files = files.into_iter().step_by(step).take(FILES).collect();
    let store = Store::open(&bench.at("store")).unwrap();
    let blobs = put(&store, &files);
    let mut tree = Directory::root();
    for (index, blob) in blobs.iter().enumerate() {
        let path = RelPath::new(format!("{}/{index}", index / A_FOLDER)).unwrap();
        tree.insert(&path, Node::file(*blob, 0o644), &Metadata::root_owned(0o755)).unwrap();
    }
    let (source, copy, clone, target) = (bench.at("source"), bench.at("copy"), bench.at("clone"), bench.at("target"));
    store.write_tree(&tree, &source).unwrap();
    let can_clone = {
        let probe = bench.at("probe");
        let status = Command::new("cp").arg("--reflink=always").arg(source.join("0/0")).arg(&probe).output();
        let works = status.unwrap().status.success();
        // Not there when it does not work.
        let _ = fs::remove_file(&probe);
        works
    };
    let mut jobs = vec![
        Job::new("`cp -a --reflink=never`", || {
            run(Command::new("cp").args(["-a", "--reflink=never"]).arg(&source).arg(&copy));
        })
        .after(|| clear(&copy)),
        Job::new("**the tree written out**", || store.write_tree(&tree, &target).unwrap()).after(|| clear(&target)),
    ];
    if can_clone {
        jobs.push(
            Job::new("`cp -a --reflink=always`", || {
                run(Command::new("cp").args(["-a", "--reflink=always"]).arg(&source).arg(&clone));
            })
            .after(|| clear(&clone)),
        );
    }
    let bytes: u64 = blobs.iter().map(|blob| blob.size).sum();
    table(&format!("{} files of {} MB written out", blobs.len(), bytes / 1_000_000), &jobs);
    say_peak("writing out");
    drop(jobs);
    drop(store);
    for path in [&source, &copy, &clone, &target, &bench.at("store")] {
        clear(path);
    }
}
