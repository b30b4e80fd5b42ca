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
        let room = usize::try_from(MAX_LOG_BYTES.saturating_sub(self.total)).unwrap_or(usize::MAX);
        // A disk that is full must not make the step wait for a reader that is gone: it is read on.
        if self.kept.is_ok() {
            self.kept = self.file.write_all(&bytes[..bytes.len().min(room)]);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// More than is kept, in one line, and then a last word.
    #[test]
    fn a_flood_is_read_to_its_end_and_kept_as_far_as_it_may() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let (recorder, writer) = Recorder::start(&home.path().join("recording"), None).expect("the folder is ours");
        let mut writer = File::from(writer);
        let block = [b'x'; 1 << 20];
        for _ in 0..(MAX_LOG_BYTES >> 20) + 3 {
            writer.write_all(&block).expect("somebody reads");
        }
        writer.write_all(b"\nlast word\n").expect("somebody reads");
        drop(writer);
        let log = recorder.finish(&home.path().join("log")).expect("the disk is not full");
        let note = format!("\n[{} bytes more were printed and not kept]\n", (3 << 20) + 11);
        let length = cas_fs::metadata(&log.path).expect("it was kept").len();
        assert_eq!(length, MAX_LOG_BYTES + note.len() as u64);
        let mut file = cas_fs::open(&log.path).expect("it was kept");
        io::Seek::seek(&mut file, io::SeekFrom::Start(MAX_LOG_BYTES)).expect("it is a file");
        assert_eq!(io::read_to_string(file).expect("it is text"), note);
        assert!(log.tail.ends_with("x\nlast word") && log.tail.len() <= MAX_TAIL_BYTES, "{}", log.tail.len());
    }
}
