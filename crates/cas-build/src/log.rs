//! What a step prints: kept in a file, its end shown when the step fails.

use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::BuildError;

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

/// Reads a pipe to its end on a thread of its own, into a file.
pub(crate) struct Recorder {
    thread: std::thread::JoinHandle<io::Result<Vec<u8>>>,
    temporary: PathBuf,
}

impl Recorder {
    /// Begins; the second value is for the step.
    pub(crate) fn start(temporary: &Path) -> Result<(Self, OwnedFd), BuildError> {
        let (mut reader, writer) = io::pipe().map_err(BuildError::Log)?;
        let file = cas_fs::create_new(temporary, 0o644)?;
        let thread = std::thread::spawn(move || -> io::Result<Vec<u8>> {
            let mut file = BufWriter::new(file);
            let (mut tail, mut total, mut kept) = (Vec::new(), 0, Ok(()));
            let mut buffer = [0; 16 << 10];
            loop {
                let count = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                let bytes = &buffer[..count];
                // A disk that is full must not make the step wait for a reader that is gone: it is read on.
                if kept.is_ok() && total < MAX_LOG_BYTES {
                    kept = file.write_all(bytes);
                }
                total += count as u64;
                tail.extend_from_slice(bytes);
                if tail.len() > 2 * MAX_TAIL_BYTES {
                    tail.drain(..tail.len() - MAX_TAIL_BYTES);
                }
            }
            if total > MAX_LOG_BYTES && kept.is_ok() {
                kept = writeln!(file, "\n[{} bytes more were printed and not kept]", total - MAX_LOG_BYTES);
            }
            kept.and_then(|()| file.flush())?;
            Ok(tail)
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
