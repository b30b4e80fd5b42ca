//! Trees of files to images: R and a made up one of 2 GB, beside BuildKit, buildah, umoci and the bare programs; then
//! every layer format, growth, export and import, several platforms.
//!
//! The whole takes a bounded time: a job that takes long is run fewer times, and peers get what is left for the large
//! tree. What was not measured is named in the page.

mod buildkit;
mod formats;
mod page;
pub(super) mod peers;
mod platforms;
mod shape;
pub(super) mod subject;
mod synthetic;
mod transport;
mod tree;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Bench, remove, root_file_system};
use crate::run::Failure;
use buildkit::BuildKit;
use peers::{Bare, Buildah, Umoci};
use shape::{Cas, Shape};
use subject::{Cell, Codec, Column, Job, Limits, Subject, by, measure, megabytes, seconds, share, table, timed};
use tree::Tree;

/// What the whole may take, in minutes; a job that was begun is ended.
const MINUTES: (&str, u64) = ("CAS_BENCH_MINUTES", 25);
/// Of the large tree, for each job.
const LARGE_JOB: Duration = Duration::from_secs(15);
/// Of R, for each job of a peer.
const PEER_JOB: Duration = Duration::from_secs(10);
/// Of R, for each job of cas.
const OWN_JOB: Duration = Duration::from_secs(30);

/// How long a job may be begun once more; tiny trees are built once.
fn once_more(bench: &Bench, job: Duration) -> Duration {
    if bench.is_small { Duration::ZERO } else { job }
}

/// Numbers of files.
struct Sizes {
    /// Of the large tree and smaller ones of the same files, the largest last.
    growth: [usize; 4],
    /// Of each of the trees for four platforms.
    platforms: usize,
}

const FULL: Sizes = Sizes { growth: [12_500, 25_000, 50_000, 100_000], platforms: 12_500 };
const TINY: Sizes = Sizes { growth: [100, 200, 300, 400], platforms: 100 };

pub(super) fn image(bench: &mut Bench) -> Result<(), Failure> {
    let minutes = std::env::var(MINUTES.0).ok().and_then(|text| text.parse().ok()).unwrap_or(MINUTES.1);
    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let sizes = if bench.is_small { TINY } else { FULL };
    let buildkit = buildkit::programs().map_err(|error| {
        eprintln!("note: BuildKit is not measured: {error}");
        format!("BuildKit ({error})")
    });
    let (shapes, mut notes) = Shape::known(bench)?;
    notes.extend(buildkit.as_ref().err().cloned());
    let buildkit = buildkit.ok();
    for program in ["buildah", "umoci", "skopeo", "pigz"] {
        if !peers::is_there(program) {
            notes.push(format!("{program} (not installed)"));
        }
    }

    let small = small_tree(bench, &shapes, buildkit.as_ref(), until)?;
    let mut grown = growth(bench, shapes[0], &sizes.growth[..3])?;
    let large = large_tree(bench, &shapes, buildkit.as_ref(), (sizes.growth[3], until))?;
    grown.push(large.grown);
    bench.head("Trees of files to images")?;
    bench.write(&page::limits(minutes));
    bench.write(&page::missing(&notes));
    page::section(bench, "R", &page::small(&small, bench.is_small), &small.jobs);
    let shape = shapes[0].name();
    page::section(bench, "Formats", &page::formats(shape), &small.formats);
    page::section(bench, "The large tree", &page::large(&large.tree), &large.tree.jobs);
    page::section(bench, "Growth", &page::growth(shape), &growth_table(&grown));
    page::section(bench, "Export and import", page::TRANSPORT, &large.transport);
    page::section(bench, "Four platforms", page::PLATFORMS, &large.platforms);
    bench.write(&page::versions(bench));
    bench.write(&format!("Image of R: `{}`", small.image));
    Ok(())
}

/// What was found out about a tree.
struct Told {
    files: u64,
    bytes: u64,
    jobs: String,
    /// Of R alone.
    formats: String,
    image: String,
}

/// R, or what stands for it where sizes are tiny.
fn small_tree(
    bench: &Bench,
    shapes: &[Shape],
    buildkit: Option<&buildkit::Programs>,
    until: Instant,
) -> Result<Told, Failure> {
    let place = bench.folder.join("R");
    shape::write_workspace(&place, shapes, &formats::ALL)?;
    let folder = place.join("app/in");
    if bench.is_small {
        synthetic::fill(&folder, 300, 3)?;
    } else {
        fs::rename(root_file_system(bench, "maker-store")?, &folder)?;
        remove(&bench.folder.join("maker-store"))?;
        remove(&bench.folder.join("maker"))?;
    }
    let mut tree = Tree::new(&folder)?;
    let mut cas = Cas::all(bench, &place, shapes)?;
    let limits = |job| Limits { job: once_more(bench, job), until };
    let bare = peers::bare(&bench.folder.join("bare"), &tree, limits(OWN_JOB))?;
    let mut columns: Vec<Column> = Vec::new();
    for subject in &mut cas {
        columns.push(own(subject, &mut tree, limits(OWN_JOB))?);
    }
    columns.extend(peer_columns(bench, &mut tree, buildkit, limits(PEER_JOB))?);
    let formats = formats::section(&cas[0], &mut tree, once_more(bench, PEER_JOB))?;
    let mut image = String::new();
    for subject in &cas {
        image = subject.check(tree.middle())?;
    }
    remove(&place)?;
    Ok(Told { files: tree.files, bytes: tree.bytes, jobs: jobs(&columns, &bare), formats, image })
}

/// What was found out with the large tree.
struct Large {
    tree: Told,
    grown: Grown,
    transport: String,
    platforms: String,
}

fn large_tree(
    bench: &Bench,
    shapes: &[Shape],
    buildkit: Option<&buildkit::Programs>,
    (files, until): (usize, Instant),
) -> Result<Large, Failure> {
    let (place, mut tree) = made_up(bench, shapes, files)?;
    let mut cas = Cas::all(bench, &place, shapes)?;
    let limits = Limits { job: once_more(bench, LARGE_JOB), until };
    let bare = peers::bare(&bench.folder.join("bare"), &tree, limits)?;
    // Before anything is edited.
    let peak = peak(&cas[0])?;
    let mut columns: Vec<Column> = Vec::new();
    for subject in &mut cas {
        // That of a step takes longer, and says little more.
        let job = if subject.is_step() { Duration::ZERO } else { limits.job };
        columns.push(own(subject, &mut tree, Limits { job, until })?);
    }
    let grown = Grown { files, cell: columns[0].cell(Job::ColdZstd), peak_kib: peak };
    let transport = transport::section(bench, &cas[0], &place, limits)?;
    cas[0].forget_all()?;
    let sizes = if bench.is_small { TINY } else { FULL };
    let platforms = platforms::section(bench, shapes[0], sizes.platforms, limits.job)?;
    columns.extend(peer_columns(bench, &mut tree, buildkit, limits)?);
    let jobs = jobs(&columns, &bare);
    remove(&place)?;
    let tree = Told { files: tree.files, bytes: tree.bytes, jobs, formats: String::new(), image: String::new() };
    Ok(Large { tree, grown, transport, platforms })
}

/// What cas does; where it fails there is no page.
fn own(cas: &mut Cas<'_>, tree: &mut Tree, limits: Limits) -> Result<Column, Failure> {
    let column = measure(cas, tree, limits);
    cas.forget_all()?;
    match &column.note {
        Some(note) => Err(note.clone().into()),
        None => Ok(column),
    }
}

/// What the peers do that are there, one after the other, so that the storage of one alone takes room.
///
/// Of the time that is left each gets an equal part; the quickest comes first.
fn peer_columns(
    bench: &Bench,
    tree: &mut Tree,
    buildkit: Option<&buildkit::Programs>,
    limits: Limits,
) -> Result<Vec<Column>, Failure> {
    let folder = |name: &str| bench.folder.join(name);
    let context = tree.folder.clone();
    let mut subjects: Vec<Box<dyn Subject>> = Vec::new();
    subjects.extend(Umoci::new(&folder("umoci"), &context).map(|umoci| Box::new(umoci) as Box<dyn Subject>));
    if let Some(programs) = buildkit {
        subjects.push(Box::new(BuildKit::new(programs.clone(), &folder("buildkit"), &context)?));
    }
    subjects.extend(Buildah::new(&folder("buildah"), &context)?.map(|buildah| Box::new(buildah) as Box<dyn Subject>));
    let mut columns = Vec::new();
    let mut left = u32::try_from(subjects.len())?;
    for mut subject in subjects {
        let now = Instant::now();
        let until = now + limits.until.saturating_duration_since(now) / left;
        left -= 1;
        columns.push(measure(subject.as_mut(), tree, Limits { until, ..limits }));
        // BuildKit's daemon ends here.
        drop(subject);
        for name in ["umoci", "buildkit", "buildah"] {
            let folder = folder(name);
            for part in ["root", "storage", "run", "zstd", "gzip", "blobs"] {
                remove(&folder.join(part))?;
            }
        }
    }
    columns.reverse();
    Ok(columns)
}

/// A workspace whose package is a made up tree.
fn made_up(bench: &Bench, shapes: &[Shape], files: usize) -> Result<(PathBuf, Tree), Failure> {
    println!("writing {files} files");
    let place = bench.folder.join("large");
    remove(&place)?;
    shape::write_workspace(&place, shapes, &["zstd", "gzip"])?;
    synthetic::fill(&place.join("app/in"), files, 1)?;
    let tree = Tree::new(&place.join("app/in"))?;
    Ok((place, tree))
}

/// A cold build of a tree of so many files.
struct Grown {
    files: usize,
    cell: Cell,
    peak_kib: u64,
}

impl Grown {
    /// The time of one file.
    fn each(&self) -> Option<Duration> {
        Some(self.cell.time()? / u32::try_from(self.files).ok()?)
    }
}

/// Smaller trees.
fn growth(bench: &Bench, shape: Shape, sizes: &[usize]) -> Result<Vec<Grown>, Failure> {
    let mut grown = Vec::new();
    for &files in sizes {
        let (place, _) = made_up(bench, &[shape], files)?;
        let cas = Cas::all(bench, &place, &[shape])?.remove(0);
        let cell = timed(once_more(bench, LARGE_JOB), || {
            cas.forget_all()?;
            Ok(cas.build_format("zstd"))
        })?;
        grown.push(Grown { files, cell, peak_kib: peak(&cas)? });
        cas.forget_all()?;
        remove(&place)?;
    }
    Ok(grown)
}

/// The table of growth, smallest first.
fn growth_table(grown: &[Grown]) -> String {
    let mut text =
        "| files | time | of a file | of a file, by that of the smallest tree | most memory |\n|---|---|---|---|---|\n"
            .to_owned();
    for row in grown {
        let each = row.each().map_or(String::new(), |each| format!("{:.0} µs", each.as_secs_f64() * 1e6));
        let (files, time, memory) = (row.files, row.cell.text(), row.peak_kib / 1024);
        let _ = writeln!(text, "| {files} | {time} | {each} | {} | {memory} MiB |", by(row.each(), grown[0].each()));
    }
    text
}

/// The most memory of a cold build.
fn peak(cas: &Cas<'_>) -> Result<u64, Failure> {
    cas.forget_all()?;
    super::peak_kib(&cas.build_format("zstd"))
}

/// The table of jobs, that of the bare programs, and what failed.
fn jobs(columns: &[Column], bare: &[Bare; 4]) -> String {
    let mut text = table(columns);
    for note in columns.iter().filter_map(|column| column.note.as_ref()) {
        let _ = write!(text, "\n{note}.\n");
    }
    let ours = &columns[0];
    let _ =
        write!(text, "\n| bare | time | MB | {} | cas by it | bytes by it |\n|---|---|---|---|---|---|\n", ours.name);
    let jobs = [Job::ColdZstd, Job::ColdZstd, Job::ColdGzip, Job::Changed];
    for (bare, job) in bare.iter().zip(jobs) {
        let codec = if job == Job::ColdGzip { Codec::Gzip } else { Codec::Zstd };
        let cell = ours.cell(job);
        let bytes = bare.bytes.zip(ours.size(codec));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {}, {} | {} | {} |",
            bare.what,
            bare.cell.text(),
            bare.bytes.map_or(String::new(), megabytes),
            job.name(),
            cell.time().map_or(String::new(), seconds),
            by(cell.time(), bare.cell.time()),
            bytes.map_or(String::new(), |(theirs, ours)| share(ours, theirs))
        );
    }
    text
}
