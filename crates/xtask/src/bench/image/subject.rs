//! Who makes images here, which jobs they get, and how long each takes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::{RUNS, count, output};
use super::tree::Tree;
use crate::run::Failure;

/// How the layers are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Codec {
    Zstd,
    Gzip,
}

impl Codec {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// A program that makes an image of a tree, as a layout on the disk.
pub(super) trait Subject {
    /// What it is called in a table.
    fn name(&self) -> String;
    /// How it can compress; what changes is measured with the first one.
    fn codecs(&self) -> &'static [Codec];
    /// Whether a second image takes anything from a first one.
    fn remembers(&self) -> bool {
        true
    }
    /// Lets it know nothing, and removes its layouts.
    fn forget(&mut self) -> Result<(), Failure>;
    /// Makes the image.
    fn build(&self, codec: Codec) -> Command;
    /// Where the image is then.
    fn layout(&self, codec: Codec) -> PathBuf;
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Job {
    ColdZstd,
    Changed,
    Nothing,
    ColdGzip,
    Added,
    Mode,
}

impl Job {
    /// As they are measured: one that changes something begins where the one before it ended, and what matters most is
    /// done before the time is up.
    const ORDER: [Self; 6] = [Self::ColdZstd, Self::Changed, Self::Nothing, Self::Added, Self::Mode, Self::ColdGzip];
    /// As a page lists them.
    pub(super) const ROWS: [Self; 6] =
        [Self::ColdZstd, Self::ColdGzip, Self::Changed, Self::Added, Self::Mode, Self::Nothing];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ColdZstd => "cold, zstd",
            Self::ColdGzip => "cold, gzip",
            Self::Changed => "one file changed",
            Self::Added => "one file added in the middle",
            Self::Mode => "mode of one file changed",
            Self::Nothing => "nothing changed",
        }
    }
}

/// What came of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::bench) enum Cell {
    /// The median time, and of how many runs.
    Time(Duration, usize),
    /// It cannot do this.
    Never,
    /// The same as cold, since it remembers nothing.
    AsCold,
    /// It was not its turn before the time of the benchmark was up.
    TooLate,
    /// The program is not installed.
    Missing,
    /// It failed, and a note tells how.
    Failed,
}

impl Cell {
    pub(in crate::bench) fn time(self) -> Option<Duration> {
        match self {
            Self::Time(time, _) => Some(time),
            _ => None,
        }
    }

    pub(in crate::bench) fn text(self) -> String {
        match self {
            Self::Time(time, runs) if runs == RUNS => seconds(time),
            Self::Time(time, 1) => format!("{} (1 run)", seconds(time)),
            Self::Time(time, runs) => format!("{} ({runs} runs)", seconds(time)),
            Self::Never => "–".to_owned(),
            Self::AsCold => "as cold".to_owned(),
            Self::TooLate => "no time left".to_owned(),
            Self::Missing => "missing".to_owned(),
            Self::Failed => "failed".to_owned(),
        }
    }
}

/// How much time measuring may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// No job is begun once more when its runs took so long together.
    pub(super) job: Duration,
    /// No job is begun after this.
    pub(super) until: Instant,
}

/// What a program did with a tree.
pub(super) struct Column {
    pub(super) name: String,
    cells: Vec<(Job, Cell)>,
    /// Bytes of the layout after a cold build.
    pub(super) sizes: Vec<(Codec, u64)>,
    /// How it failed.
    pub(super) note: Option<String>,
}

impl Column {
    pub(super) fn cell(&self, job: Job) -> Cell {
        self.cells.iter().find(|(own, _)| *own == job).map_or(Cell::Failed, |(_, cell)| *cell)
    }

    pub(super) fn size(&self, codec: Codec) -> Option<u64> {
        self.sizes.iter().find(|(own, _)| *own == codec).map(|(_, size)| *size)
    }
}

/// Gives each job to a program; a failure ends its turn, and is noted.
pub(super) fn measure(subject: &mut dyn Subject, tree: &mut Tree, limits: Limits) -> Column {
    let mut column = Column { name: subject.name(), cells: Vec::new(), sizes: Vec::new(), note: None };
    println!("{}, {} files", column.name, tree.files);
    for job in Job::ORDER {
        match one(subject, tree, limits, job, &mut column.sizes) {
            Ok(cell) => {
                println!("  {}: {}", job.name(), cell.text());
                column.cells.push((job, cell));
            }
            Err(error) => {
                eprintln!("  {} failed: {error}", job.name());
                column.note =
                    Some(format!("{}: {} failed: {}", column.name, job.name(), shortened(&error.to_string())));
                break;
            }
        }
    }
    column
}

fn one(
    subject: &mut dyn Subject,
    tree: &mut Tree,
    limits: Limits,
    job: Job,
    sizes: &mut Vec<(Codec, u64)>,
) -> Result<Cell, Failure> {
    let codec = match job {
        Job::ColdZstd => Codec::Zstd,
        Job::ColdGzip => Codec::Gzip,
        _ => subject.codecs()[0],
    };
    if !subject.codecs().contains(&codec) {
        return Ok(Cell::Never);
    }
    let is_cold = matches!(job, Job::ColdZstd | Job::ColdGzip);
    if !is_cold && !subject.remembers() {
        return Ok(Cell::AsCold);
    }
    if Instant::now() >= limits.until {
        return Ok(Cell::TooLate);
    }
    if job == Job::Nothing {
        // What a build finds out about a fresh file is of use to the next one.
        output(&mut subject.build(codec))?;
    }
    let cell = timed(limits.job, || {
        match job {
            Job::ColdZstd | Job::ColdGzip => subject.forget()?,
            Job::Changed => tree.change()?,
            Job::Added => tree.add()?,
            Job::Mode => tree.mode()?,
            Job::Nothing => {}
        }
        Ok(subject.build(codec))
    })?;
    if is_cold {
        sizes.push((codec, count(&subject.layout(codec))?.1));
    }
    Ok(cell)
}

/// The median time of a command, each run after its preparation; no run begins when the former ones took `limit`.
pub(in crate::bench) fn timed(
    limit: Duration,
    mut prepare: impl FnMut() -> Result<Command, Failure>,
) -> Result<Cell, Failure> {
    let (mut times, mut spent) = (Vec::new(), Duration::ZERO);
    while times.is_empty() || (times.len() < RUNS && spent < limit) {
        let mut command = prepare()?;
        let started = Instant::now();
        output(&mut command)?;
        times.push(started.elapsed());
        spent += started.elapsed();
    }
    let runs = times.len();
    Ok(Cell::Time(middle(times), runs))
}

/// The median; of an even number the mean of the two in the middle.
fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let half = times.len() / 2;
    if times.len() % 2 == 1 { times[half] } else { (times[half - 1] + times[half]) / 2 }
}

/// A time with three digits.
pub(in crate::bench) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let digits = if seconds >= 10.0 {
        1
    } else if seconds >= 1.0 {
        2
    } else {
        3
    };
    format!("{seconds:.digits$} s")
}

/// The table of jobs: the programs one beside the other, and the first one's time by that of each that is no `cas`.
pub(super) fn table(columns: &[Column]) -> String {
    let mut text = "| job |".to_owned();
    let mut rule = "|---|".to_owned();
    let first = columns.first();
    let is_peer = |column: &Column| !column.name.starts_with("cas");
    for column in columns {
        // Writing to a string cannot fail.
        let _ = write!(text, " {} |", column.name);
        rule.push_str("---|");
        if is_peer(column) {
            text.push_str(" cas by it |");
            rule.push_str("---|");
        }
    }
    let _ = write!(text, "\n{rule}\n");
    for job in Job::ROWS {
        let _ = write!(text, "| {} |", job.name());
        for column in columns {
            let cell = column.cell(job);
            let _ = write!(text, " {} |", cell.text());
            if is_peer(column) {
                let cold = if column.cell(Job::ColdZstd).time().is_some() { Job::ColdZstd } else { Job::ColdGzip };
                let theirs = if cell == Cell::AsCold { column.cell(cold) } else { cell }.time();
                let _ = write!(text, " {} |", by(first.and_then(|first| first.cell(job).time()), theirs));
            }
        }
        text.push('\n');
    }
    for codec in [Codec::Zstd, Codec::Gzip] {
        let _ = write!(text, "| MB of the layout, {} |", codec.name());
        for column in columns {
            let _ = write!(text, " {} |", column.size(codec).map_or("–".to_owned(), megabytes));
            if is_peer(column) {
                let _ = match (first.and_then(|first| first.size(codec)), column.size(codec)) {
                    (Some(ours), Some(theirs)) => write!(text, " {} |", share(ours, theirs)),
                    _ => write!(text, " |"),
                };
            }
        }
        text.push('\n');
    }
    text
}

/// A time by another, where both are known.
pub(in crate::bench) fn by(ours: Option<Duration>, theirs: Option<Duration>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => format!("{:.2}", ours.as_secs_f64() / theirs.as_secs_f64()),
        _ => String::new(),
    }
}

pub(in crate::bench) fn megabytes(bytes: u64) -> String {
    format!("{}.{}", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// A number of bytes by another.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn share(ours: u64, theirs: u64) -> String {
    format!("{:.3}", ours as f64 / theirs as f64)
}

/// The end of an error of another program, in one line.
fn shortened(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words[words.len().saturating_sub(30)..].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_times_is_their_median() {
        let times = |numbers: &[u64]| middle(numbers.iter().copied().map(Duration::from_secs).collect());
        for (numbers, median) in [(&[7][..], 7_000), (&[9, 1], 5_000), (&[9, 1, 2], 2_000), (&[4, 9, 1, 2], 3_000)] {
            assert_eq!(times(numbers), Duration::from_millis(median), "{numbers:?}");
        }
    }

    #[test]
    fn a_table_tells_ratios_of_peers_and_what_was_not_measured() {
        let column = |name: &str, cells: &[(Job, Cell)]| Column {
            name: name.to_owned(),
            cells: cells.to_vec(),
            sizes: vec![(Codec::Gzip, 1_250_000)],
            note: None,
        };
        let second = |seconds: u64| Cell::Time(Duration::from_secs(seconds), RUNS);
        let text = table(&[
            column("cas, files", &[(Job::ColdZstd, second(2)), (Job::ColdGzip, second(3)), (Job::Nothing, second(1))]),
            column("umoci", &[(Job::ColdZstd, Cell::Never), (Job::ColdGzip, second(6)), (Job::Nothing, Cell::AsCold)]),
        ]);
        let row = |job: &str| text.lines().find(|line| line.starts_with(&format!("| {job} |"))).map(str::to_owned);
        assert_eq!(row("job").as_deref(), Some("| job | cas, files | umoci | cas by it |"));
        assert_eq!(row("cold, zstd").as_deref(), Some("| cold, zstd | 2.00 s | – |  |"));
        assert_eq!(row("cold, gzip").as_deref(), Some("| cold, gzip | 3.00 s | 6.00 s | 0.50 |"));
        assert_eq!(row("nothing changed").as_deref(), Some("| nothing changed | 1.00 s | as cold | 0.17 |"));
        assert_eq!(row("one file changed").as_deref(), Some("| one file changed | failed | failed |  |"));
        assert_eq!(row("MB of the layout, gzip").as_deref(), Some("| MB of the layout, gzip | 1.2 | 1.2 | 1.000 |"));
    }
}
