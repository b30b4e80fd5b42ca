//! What a step prints: kept in a file, its end shown when the step fails.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::BuildError;
use crate::secret::{Finder, Redactor};

/// Most of a step's output that is kept.
const MAX_LOG_BYTES: u64 = 64 << 20;
/// How much of its end an error shows.
const MAX_TAIL_BYTES: usize = 8 << 10;
/// How many of its last lines.
const MAX_TAIL_LINES: usize = 40;

/// What a step printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The file.
    pub path: PathBuf,
    /// Its last lines, what is not UTF-8 replaced.
    pub tail: String,
}

/// What was printed so far, in a file as far as it may be kept.
struct Printed {
    file: BufWriter<File>,
    tail: Vec<u8>,
    total: u64,
    kept: io::Result<()>,
}

impl Printed {
    fn take(&mut self, bytes: &[u8]) {
        // A disk that is full must not make the step wait for a reader that is gone: it is read on.
        if self.kept.is_ok() && self.total < MAX_LOG_BYTES {
            self.kept = self.file.write_all(bytes);
        }
        self.total += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * MAX_TAIL_BYTES {
            self.tail.drain(..self.tail.len() - MAX_TAIL_BYTES);
        }
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        if self.total > MAX_LOG_BYTES && self.kept.is_ok() {
            let more = self.total - MAX_LOG_BYTES;
            self.kept = writeln!(self.file, "\n[{more} bytes more were printed and not kept]");
        }
        self.kept?;
        self.file.flush()?;
        Ok(self.tail)
    }
}

/// Reads a pipe to its end on a thread of its own, into a file.
pub(crate) struct Recorder {
    thread: std::thread::JoinHandle<io::Result<Vec<u8>>>,
    temporary: PathBuf,
}

impl Recorder {
    /// Begins; the second value is for the step. Nothing is kept of `secrets`.
    pub(crate) fn start(temporary: &Path, secrets: Option<Finder>) -> Result<(Self, OwnedFd), BuildError> {
        let (mut reader, writer) = io::pipe().map_err(BuildError::Log)?;
        let file = cas_fs::create_new(temporary, 0o644)?;
        let thread = std::thread::spawn(move || -> io::Result<Vec<u8>> {
            let file = BufWriter::new(file);
            let mut printed = Printed { file, tail: Vec::new(), total: 0, kept: Ok(()) };
            let mut redactor = secrets.map(Redactor::new);
            let mut clean = Vec::new();
            let mut buffer = [0; 16 << 10];
            loop {
                let count = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                match &mut redactor {
                    None => printed.take(&buffer[..count]),
                    Some(redactor) => {
                        clean.clear();
                        redactor.push(&buffer[..count], &mut clean);
                        printed.take(&clean);
                    }
                }
            }
            if let Some(redactor) = redactor {
                clean.clear();
                redactor.finish(&mut clean);
                printed.take(&clean);
            }
            printed.finish()
        });
        Ok((Self { thread, temporary: temporary.to_owned() }, writer.into()))
    }

    /// Waits for the end of the pipe, and gives the file its name.
    pub(crate) fn finish(self, path: &Path) -> Result<Log, BuildError> {
        let tail = self.thread.join().map_err(|_| BuildError::Log(io::Error::other("reading ended early")))?;
        let tail = tail.map_err(BuildError::Log)?;
        cas_fs::rename(&self.temporary, path)?;
        let tail = &tail[tail.len().saturating_sub(MAX_TAIL_BYTES)..];
        let text = String::from_utf8_lossy(tail);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(MAX_TAIL_LINES)..].join("\n");
        Ok(Log { path: path.to_owned(), tail })
    }
}
