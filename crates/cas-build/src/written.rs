//! Files that leave: an error of the place that somebody named tells that place, and one of what is written stays what it is.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use cas_fs::{Delivery, FsError};

use crate::BuildError;

/// Writes a whole file for whoever asked for it: links are followed, streams written to, missing folders made.
///
/// # Errors
///
/// [`BuildError::NotWritten`]
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    cas_fs::deliver(path, bytes).map_err(not_written(path))
}

/// Finds out, before anything is built, whether a file can be written; makes folders that are missing.
///
/// # Errors
///
/// [`BuildError::NotWritten`]
pub fn try_file(path: &Path) -> Result<(), BuildError> {
    cas_fs::try_delivery(path).map_err(not_written(path))
}

/// The same of bytes that are made on the way. A file is there when all of it is.
pub(crate) fn write_with(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let place = match cas_fs::delivery(path).map_err(not_written(path))? {
        Delivery::Stream(place) => return filled(cas_fs::open_stream(&place).map_err(not_written(path))?, path, write),
        Delivery::File(place) => place,
    };
    let folder = cas_fs::folder_of(&place);
    cas_fs::create_dir_all(folder).map_err(not_written(path))?;
    put_at(folder, &place, path, write)
}

/// Puts a file at `place`, by way of a folder of its own in `folder`. Errors tell `path`.
pub(crate) fn put_at(
    folder: &Path,
    place: &Path,
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let temporary = cas_fs::temporary_dir_in(folder, ".tmp-").map_err(not_written(path))?;
    let part = temporary.join("part");
    let written = cas_fs::create_new(&part, 0o644)
        .map_err(not_written(path))
        .and_then(|file| filled(file, path, write))
        .and_then(|()| cas_fs::rename(&part, place).map_err(not_written(path)));
    let removed = cas_fs::remove_tree(&temporary);
    written?;
    removed.map_err(not_written(path))
}

/// The error of a place that somebody named as `path`.
pub(crate) fn not_written(path: &Path) -> impl FnOnce(FsError) -> BuildError {
    let path = path.to_owned();
    move |error| BuildError::NotWritten { path, source: error.source }
}

fn filled(
    file: File,
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), BuildError>,
) -> Result<(), BuildError> {
    let mut writer = BufWriter::with_capacity(1 << 20, Watched { sink: file, failure: None });
    let written = write(&mut writer).and_then(|()| writer.flush().map_err(BuildError::Compress));
    match writer.get_mut().failure.take() {
        Some(source) => Err(BuildError::NotWritten { path: PathBuf::from(path), source }),
        None => written,
    }
}

/// Knows which failures are its own, and not of those who read for it.
struct Watched<W> {
    sink: W,
    failure: Option<io::Error>,
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.write(bytes).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted && self.failure.is_none() {
                self.failure = Some(error);
            }
            kind.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_is_told() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let path = folder.path().join("file");
        // The reader's failure stays what it is.
        let error = write_with(&path, &mut |_| Err(BuildError::Compress(io::ErrorKind::InvalidData.into())));
        assert!(matches!(error, Err(BuildError::Compress(_))), "{error:?}");
        let full = Path::new("/dev/full");
        for size in [1, 3 << 20] {
            let bytes = vec![0; size];
            let error = write_with(full, &mut |sink| sink.write_all(&bytes).map_err(BuildError::Compress));
            let error = error.expect_err("it is always full");
            assert_eq!(error.to_string(), "could not write `/dev/full`");
            assert!(error.hint().is_some_and(|hint| hint.contains("make room")), "{:?}", error.hint());
        }
        assert_eq!(cas_fs::read_dir(folder.path()).expect("it is there"), []);
    }
}
