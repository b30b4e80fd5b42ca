//! Every file of the corpus put into a store and read back, beside what others do with it.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;

use cas_blob::{Descriptor, OpenBlob};
use cas_digest::DigestFunction;
use cas_store::Store;

use crate::harness::{Bench, Job, clear, is_there, on_all_cores, run, say_peak, table};

/// Puts every file; the descriptors, in the order of the paths.
pub(crate) fn put(store: &Store, files: &[PathBuf]) -> Vec<Descriptor> {
    on_all_cores(files.len(), &|index| {
        let mut file = fs::File::open(&files[index]).unwrap();
        store.put(DigestFunction::Blake3, &mut file).unwrap()
    })
}

fn read_back(store: &Store, blobs: &[Descriptor]) {
    on_all_cores(blobs.len(), &|index| {
        let mut content = store.open_blob(&blobs[index]).unwrap();
        let mut buffer = vec![0; 1 << 16];
        while content.read(&mut buffer).unwrap() > 0 {}
    });
}

pub(crate) fn stored(bench: &Bench) {
    let files = bench.files();
    let places = ["copy", "store", "git-add", "ostree", "restic", "casync"].map(|name| bench.at(name));
    let [copy, store, git, ostree, restic, casync] = &places;
    let repository = format!("--repo={}", ostree.display());
    let restic_run = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "x").args(["-q", "--no-cache", "-r"]).arg(restic).args(arguments);
        command
    };
    let mut jobs = vec![
        Job::new("`cp -r`", || run(Command::new("cp").arg("-r").arg(&bench.corpus).arg(copy))).after(|| clear(copy)),
        Job::new("**stored, and read back**", || {
            let store = Store::open(store).unwrap();
            let blobs = put(&store, &files);
            read_back(&store, &blobs);
        })
        .after(|| clear(store)),
        Job::new("**stored again**", || {
            put(&Store::open(store).unwrap(), &files);
        }),
    ];
    if is_there("git") {
        jobs.push(
            Job::new("`git add`, no fsync", || bench.git(git, &["add", "-A", "-f"])).after(|| bench.git_init(git)),
        );
    }
    if is_there("ostree") {
        jobs.push(
            Job::new("`ostree commit`, no fsync", || {
                run(Command::new("ostree")
                    .args([&repository, "commit", "-b", "x"])
                    .arg(format!("--tree=dir={}", bench.corpus.display())));
            })
            .after(|| {
                clear(ostree);
                run(Command::new("ostree").args([&repository, "init", "--mode=bare-user"]));
                run(Command::new("ostree").args([&repository, "config", "set", "core.fsync", "false"]));
            }),
        );
    }
    if is_there("restic") {
        jobs.push(Job::new("`restic backup`", || run(restic_run(&["backup"]).arg(&bench.corpus))).after(|| {
            clear(restic);
            run(&mut restic_run(&["init"]));
        }));
    }
    if is_there("casync") {
        jobs.push(
            Job::new("`casync make`", || {
                run(Command::new("casync")
                    .arg("make")
                    .arg(format!("--store={}", casync.join("s").display()))
                    .arg(casync.join("i.caidx"))
                    .arg(&bench.corpus));
            })
            .after(|| {
                clear(casync);
                fs::create_dir_all(casync).unwrap();
            }),
        );
    }
    table("Everything stored", &jobs);
    say_peak("storing and reading");
    drop(jobs);
    places.iter().for_each(|place| clear(place));
}
