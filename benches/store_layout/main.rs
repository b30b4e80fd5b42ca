//! Layouts of the local store, one beside the other: `cargo bench --bench store_layout -- DIR CORPUS [ROUNDS]`.
//!
//! `DIR` is an empty folder of the file system to be measured, `CORPUS` a tree of which every second file is taken, 40,000
//! at most. A second corpus is 100,000 blobs of 1 KiB. Each layout gets the same work in each round (three if not told
//! otherwise), one after the other, so that a change of the machine's load meets all of them; a figure is the median of the rounds. The
//! result is a page of markdown. What was decided by it: docs/adr/0008-store-layout.md.
//!
//! Not here: reads of a cold cache, several processes on one store, network file systems.
#![expect(clippy::print_stdout, reason = "the printed page is the result")]

mod layouts;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use blake3::Hash;
use rustix::fs::{Access, AtFlags, CWD, Mode, StatVfs, StatxFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use layouts::{Blob, LAYOUTS, Layout, Reader, SEGMENTED_BYTES, STEPS, Store};
use layouts::{each, ensure_is, name, open_dir, present};

const ROUNDS: usize = 3;
const TREE_FILES: usize = 40_000;
const SMALL_BLOBS: usize = 100_000;
const ASKED: usize = 10_000;
const DURABLE_BLOBS: usize = 2_000;

struct Tree {
    blobs: Vec<Blob>,
    folders: BTreeSet<PathBuf>,
    files: Vec<(PathBuf, usize)>,
}

impl Tree {
    fn read(corpus: &Path) -> Result<Self> {
        let (mut paths, mut waiting) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(folder) = waiting.pop() {
            for entry in cas_fs::read_dir(&corpus.join(&folder))? {
                let path = folder.join(entry.name);
                let metadata = cas_fs::symlink_metadata(&corpus.join(&path))?;
                if entry.is_dir {
                    waiting.push(path);
                } else if metadata.is_file() && (1..=SEGMENTED_BYTES as u64).contains(&metadata.len()) {
                    paths.push(path);
                }
            }
        }
        let (mut tree, mut known) = (Self { blobs: vec![], folders: BTreeSet::new(), files: vec![] }, BTreeMap::new());
        for path in paths.into_iter().step_by(2).take(TREE_FILES) {
            let blob = Blob::new(cas_fs::read(&corpus.join(&path))?);
            tree.folders.extend(path.parent().into_iter().flat_map(Path::ancestors).map(Path::to_owned));
            let next = tree.blobs.len();
            let position = *known.entry(*blob.hash.as_bytes()).or_insert(next);
            if position == next {
                tree.blobs.push(blob);
            }
            tree.files.push((path, position));
        }
        tree.folders.remove(Path::new(""));
        Ok(tree)
    }

    fn materialize(&self, store: &Store, target: &Path, threads: usize, clone: bool) -> Result<()> {
        cas_fs::create_dir(target)?;
        let top = open_dir(target)?;
        self.folders.iter().try_for_each(|folder| rustix::fs::mkdirat(&top, folder, Mode::from_raw_mode(0o755)))?;
        each(
            &self.files,
            threads,
            || store.reader(),
            |reader, (path, position)| reader.write_out(&self.blobs[*position], &top, path, clone),
        )
    }
}

/// What one cell got: a round's figures, in the order in which they print.
type Rounds = Vec<Vec<f64>>;

/// Figures of all rounds: row, then column. A cell prints the median of each of its parts.
#[derive(Default)]
struct Table {
    columns: Vec<String>,
    rows: Vec<(String, BTreeMap<String, Rounds>)>,
}

impl Table {
    fn add(&mut self, row: &str, column: &str, figures: Vec<f64>) {
        if !self.columns.iter().any(|known| known == column) {
            self.columns.push(column.to_owned());
        }
        if !self.rows.iter().any(|(known, _)| known == row) {
            self.rows.push((row.to_owned(), BTreeMap::new()));
        }
        let cells = self.rows.iter_mut().find(|(known, _)| known == row).map(|(_, cells)| cells);
        cells.expect("the row was just added").entry(column.to_owned()).or_default().push(figures);
    }

    fn forget(&mut self, row: &str, column: &str) {
        for (_, cells) in self.rows.iter_mut().filter(|(known, _)| known == row) {
            cells.remove(column);
        }
    }

    /// Wall time, and the process's own CPU time, of which the kernel's threads are not a part.
    fn time<T>(&mut self, row: &str, column: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (value, figures) = timed(work).with_context(|| format!("{row}: {column}"))?;
        self.add(row, column, figures);
        Ok(value)
    }

    fn print(&self, title: &str) {
        println!("\n### {title}\n\n| | {} |\n|---|{}", self.columns.join(" | "), "---|".repeat(self.columns.len()));
        for (row, cells) in &self.rows {
            let cell = |column| {
                cells.get(column).map_or("-".to_owned(), |rounds: &Rounds| {
                    let parts = (0..rounds[0].len()).map(|part| {
                        let mut sorted: Vec<f64> = rounds.iter().map(|round| round[part]).collect();
                        sorted.sort_by(f64::total_cmp);
                        let median = sorted[sorted.len() / 2];
                        if median < 100.0 { format!("{median:.2}") } else { format!("{median:.0}") }
                    });
                    parts.collect::<Vec<_>>().join(" / ")
                })
            };
            println!("| {row} | {} |", self.columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
        }
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (folder, corpus, rounds) = match &arguments[..] {
        [folder, corpus] => (folder, corpus, ROUNDS),
        [folder, corpus, rounds] => (folder, corpus, rounds.parse()?),
        _ => {
            println!("usage: cargo bench --bench store_layout -- DIR CORPUS [ROUNDS]");
            return Ok(());
        }
    };
    let folder = Path::new(folder);
    let tree = Tree::read(Path::new(corpus))?;
    let small: Vec<Blob> = (0..SMALL_BLOBS as u64)
        .map(|number| {
            let mut bytes = vec![0; 1024];
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
            Blob::new(bytes)
        })
        .collect();
    let bytes: usize = tree.blobs.iter().map(|blob| blob.bytes.len()).sum();
    println!("{} files, {} blobs, {:.0} MB", tree.files.len(), tree.blobs.len(), bytes as f64 / 1e6);
    for limit in [1usize, 4, 16, 64, 1024].map(|kibibytes| kibibytes << 10) {
        let within: Vec<usize> = tree.blobs.iter().map(|blob| blob.bytes.len()).filter(|size| *size <= limit).collect();
        println!("- up to {limit}: {} blobs, {:.0} MB", within.len(), within.iter().sum::<usize>() as f64 / 1e6);
    }
    let (mut trees, mut smalls, mut asked, mut durable, mut steps) = <(Table, Table, Table, Table, Table)>::default();
    for _ in 0..rounds {
        for (label, layout) in LAYOUTS {
            run(&mut trees, label, layout, folder, &tree.blobs, Some(&tree), 1)?;
            let threads = match layout {
                Layout::Files { renamed: false } | Layout::Segments => 1..=2,
                Layout::Rows { limit: 16384, .. } => 1..=1,
                // What they differ in does not meet blobs of one size.
                _ => continue,
            };
            for threads in threads {
                run(&mut smalls, &format!("{label}; {threads}"), layout, folder, &small, None, threads)?;
            }
        }
        ask(&mut asked, folder, &small)?;
        put_durably(&mut durable, folder, &tree.blobs[..DURABLE_BLOBS.min(tree.blobs.len())])?;
        put_in_steps(&mut steps, folder, &small[..ASKED])?;
    }
    trees.print("The tree: seconds, wall / CPU");
    smalls.print("Blobs of 1 KiB: seconds, wall / CPU");
    asked.print("Existence of 10,000 of the 1 KiB blobs as files: million digests a second, by wall / by CPU");
    durable.print("The tree's first 2,000 blobs as files, durable: seconds, wall / CPU");
    steps.print("One put of 1 KiB: microseconds of CPU, 0.2 to 0.4 a step for the reading of the clock");
    Ok(())
}

/// One store, from its making to its removal.
fn run(
    table: &mut Table,
    row: &str,
    layout: Layout,
    folder: &Path,
    blobs: &[Blob],
    tree: Option<&Tree>,
    threads: usize,
) -> Result<()> {
    let (base, target) = (folder.join("store"), folder.join("tree"));
    let store = Store::create(layout, &base)?;
    let top = open_dir(folder)?;
    let empty = synced(&top)?;
    table.time(row, "put", || store.put(blobs, threads))?;
    table.time(row, "syncfs", || Ok(rustix::fs::syncfs(&top)?))?;
    let full = synced(&top)?;
    let check = |reader: &mut Reader<'_>, blob: &Blob| reader.load(blob, |bytes| ensure_is(blob.hash, bytes));
    table.time(row, "get", || each(blobs, threads, || store.reader(), check))?;
    table.time(row, "has 10,000", || {
        each(
            &blobs[..ASKED.min(blobs.len())],
            threads,
            || store.reader(),
            |reader, blob| {
                ensure!(reader.has(blob)?, "a blob is gone");
                Ok(())
            },
        )
    })?;
    for (column, clone) in [("copy out", false), ("clone out", true)] {
        let Some(tree) = tree.filter(|_| !clone || layout != Layout::Segments) else { break };
        let made = table.time(row, column, || match tree.materialize(&store, &target, threads, clone) {
            Err(error) if error.downcast_ref() == Some(&Errno::OPNOTSUPP) => Ok(false),
            other => other.map(|()| true),
        })?;
        if !made {
            // The file system has no reflinks: what was timed is the way to the refusal.
            table.forget(row, column);
        }
        cas_fs::remove_tree(&target)?;
    }
    synced(&top)?;
    let victims: Vec<&Blob> = blobs.iter().filter(|blob| blob.hash.as_bytes()[31] & 1 == 0).collect();
    table.time(row, "collect half", || store.collect(&victims, threads))?;
    table.time(row, "shrink", || store.shrink())?;
    let half = synced(&top)?;
    let used = |end: &StatVfs| (empty.f_bfree as f64 - end.f_bfree as f64) * empty.f_frsize as f64 / 1e6;
    table.add(row, "MB, then", vec![used(&full), used(&half)]);
    table.add(
        row,
        "inodes, then",
        vec![full.f_ffree, half.f_ffree].into_iter().map(|free| empty.f_ffree as f64 - free as f64).collect(),
    );
    Ok(cas_fs::remove_tree(&base)?)
}

fn ask(table: &mut Table, folder: &Path, blobs: &[Blob]) -> Result<()> {
    const REPEATED: usize = 20;
    let base = folder.join("store");
    let store = Store::create(Layout::Files { renamed: false }, &base)?;
    store.put(blobs, 2)?;
    let absent: Vec<Hash> = blobs[..ASKED].iter().map(|blob| blake3::hash(blob.hash.as_slice())).collect();
    let there: Vec<Hash> = blobs[..ASKED].iter().map(|blob| blob.hash).collect();
    let shards: Vec<OwnedFd> =
        (0..=255u8).map(|byte| open_dir(&base.join(format!("objects/blake3/{byte:02x}")))).collect::<Result<_>>()?;
    let (objects, prefix) = (&store.objects, format!("{}/objects/blake3/", base.display()));
    let stat = |folder: &OwnedFd, name: &str| rustix::fs::statx(folder, name, AtFlags::empty(), StatxFlags::SIZE);
    let whole =
        |hash: &Hash| present(rustix::fs::statx(CWD, prefix.clone() + &name(hash), AtFlags::empty(), StatxFlags::SIZE));
    let relative = |hash: &Hash| present(stat(objects, &name(hash)));
    let sharded = |hash: &Hash| present(stat(&shards[usize::from(hash.as_bytes()[0])], &hash.to_hex()[2..]));
    let access = |hash: &Hash| present(rustix::fs::accessat(objects, name(hash), Access::EXISTS, AtFlags::empty()));
    type Question<'a> = &'a (dyn Fn(&Hash) -> Result<bool> + Sync);
    let mut rate = |row: &str, hashes: &[Hash], expected: bool, threads: usize, question: Question<'_>| -> Result<()> {
        // What is asked once cannot be repeated.
        let repeated = if row.ends_with("first time") { 1 } else { REPEATED };
        let ((), seconds) = timed(|| {
            (0..repeated).try_for_each(|_| {
                each(
                    hashes,
                    threads,
                    || Ok(()),
                    |(), hash| {
                        ensure!(question(hash)? == expected, "asked for one blob, told of another");
                        Ok(())
                    },
                )
            })
        })?;
        let millions = (repeated * hashes.len()) as f64 / 1e6;
        table.add(row, &format!("{threads} threads"), seconds.iter().map(|seconds| millions / seconds).collect());
        Ok(())
    };
    // The first questions fill the kernel's cache of names, so each thread count asks for digests of its own.
    let (first, second) = absent.split_at(ASKED / 2);
    rate("absent, first time", first, false, 1, &relative)?;
    rate("absent, first time", second, false, 2, &relative)?;
    for threads in [1, 2] {
        rate("absent, asked again", &absent, false, threads, &relative)?;
        rate("statx, whole path", &there, true, threads, &whole)?;
        rate("statx from `objects/blake3`", &there, true, threads, &relative)?;
        rate("statx from the shard's folder", &there, true, threads, &sharded)?;
        rate("faccessat from `objects/blake3`", &there, true, threads, &access)?;
    }
    Ok(cas_fs::remove_tree(&base)?)
}

fn put_durably(table: &mut Table, folder: &Path, blobs: &[Blob]) -> Result<()> {
    let (base, top) = (folder.join("store"), open_dir(folder)?);
    for (label, threads, durable) in
        [("one syncfs", 1, false), ("fdatasync each", 1, true), ("fdatasync each", 8, true)]
    {
        let store = Store::create(Layout::Files { renamed: false }, &base)?;
        synced(&top)?;
        table.time(&format!("{label}; {threads}"), "put", || {
            each(blobs, threads, || Ok(()), |(), blob| store.put_file(blob, durable, |_| {}))
        })?;
        table.time(&format!("{label}; {threads}"), "seal", || {
            if !durable {
                return Ok(rustix::fs::syncfs(&top)?);
            }
            (0..=255u8).try_for_each(|byte| {
                Ok(rustix::fs::fsync(open_dir(&base.join(format!("objects/blake3/{byte:02x}")))?)?)
            })
        })?;
        table.time(&format!("{label}; {threads}"), "syncfs of nothing", || Ok(rustix::fs::syncfs(&top)?))?;
        cas_fs::remove_tree(&base)?;
    }
    Ok(())
}

fn put_in_steps(table: &mut Table, folder: &Path, blobs: &[Blob]) -> Result<()> {
    let base = folder.join("store");
    for (label, renamed) in [("linkat", false), ("rename", true)] {
        let store = Store::create(Layout::Files { renamed }, &base)?;
        let mut spent = [0.0; STEPS.len()];
        for blob in blobs {
            let mut last = seconds_of(ClockId::ThreadCPUTime);
            store.put_file(blob, false, |step| {
                let now = seconds_of(ClockId::ThreadCPUTime);
                spent[step] += now - last;
                last = now;
            })?;
        }
        for (step, seconds) in STEPS.iter().zip(spent) {
            table.add(label, step, vec![seconds * 1e6 / blobs.len() as f64]);
        }
        cas_fs::remove_tree(&base)?;
    }
    Ok(())
}

/// Wall time and CPU time of the process, in seconds.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<f64>)> {
    let (start, before) = (Instant::now(), seconds_of(ClockId::ProcessCPUTime));
    let value = work()?;
    Ok((value, vec![start.elapsed().as_secs_f64(), seconds_of(ClockId::ProcessCPUTime) - before]))
}

fn seconds_of(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What is free when nothing waits to be written.
fn synced(folder: &OwnedFd) -> Result<StatVfs> {
    rustix::fs::syncfs(folder)?;
    Ok(rustix::fs::fstatvfs(folder)?)
}
