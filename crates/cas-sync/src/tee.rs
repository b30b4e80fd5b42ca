//! One read of a blob for several places: what comes is handed to all that have begun to send it.
//!
//! A place that has not begun when others are waiting for it reads by itself later, and so does one that begins anew after
//! its upload broke off. One that is slow holds the others of this blob up, and not those of other blobs.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cas_registry::Content;

/// Longest piece that is handed on at once.
const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait for each place.
const PIECES: usize = 16;
/// How long others wait for a place that has not begun.
const LAG: Duration = Duration::from_millis(500);
/// How often it is looked whether a place has taken something.
const LOOK: Duration = Duration::from_millis(1);

/// A piece, or nothing at the end.
type Piece = Option<Arc<[u8]>>;
/// Where a place takes its pieces from, until it has begun.
type Slot = Arc<Mutex<Option<Receiver<Piece>>>>;

/// The one who reads. It ends when no place wants anything any more.
pub(crate) struct Tee {
    content: Content,
    /// Says that a place has begun; ends when no place can begin any more.
    begun: Receiver<()>,
    places: Vec<(Slot, Option<SyncSender<Piece>>)>,
}

/// The same content for each of several places, and the one who reads it for them, who is to run beside them.
pub(crate) fn tee(content: &Content, count: usize) -> (Vec<Content>, Tee) {
    let (begin, begun): (Sender<()>, _) = channel();
    let (mut contents, mut places) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (sender, receiver) = sync_channel(PIECES);
        let slot: Slot = Arc::new(Mutex::new(Some(receiver)));
        places.push((Arc::clone(&slot), Some(sender)));
        let (begin, whole) = (begin.clone(), Arc::clone(content));
        let one: Content = Arc::new(move |sink: &mut dyn Write| {
            let Some(pieces) = take(&slot) else { return whole(sink) };
            // It may have ended for want of others.
            let _ = begin.send(());
            loop {
                match pieces.recv() {
                    Ok(Some(piece)) => sink.write_all(&piece)?,
                    Ok(None) => return Ok(()),
                    Err(_) => return Err(io::Error::other("what is read for several registries broke off")),
                }
            }
        });
        contents.push(one);
    }
    (contents, Tee { content: Arc::clone(content), begun, places })
}

fn take(slot: &Slot) -> Option<Receiver<Piece>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Tee {
    /// Reads when the first place begins. What goes wrong with that, each place is told by its own end.
    pub(crate) fn run(mut self) {
        if self.begun.recv().is_err() {
            return;
        }
        let content = Arc::clone(&self.content);
        // Places see that there is no end.
        if content(&mut self).is_ok() {
            self.give(&None);
        }
    }

    fn give(&mut self, piece: &Piece) {
        for (slot, sender) in &mut self.places {
            let start = Instant::now();
            while let Some(to) = sender {
                match to.try_send(piece.clone()) {
                    Ok(()) => break,
                    Err(TrySendError::Disconnected(_)) => *sender = None,
                    Err(TrySendError::Full(_)) => {
                        if start.elapsed() > LAG && take(slot).is_some() {
                            *sender = None;
                        }
                        std::thread::sleep(LOOK);
                    }
                }
            }
        }
    }
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        self.give(&Some(piece.into()));
        match self.places.iter().any(|(_, sender)| sender.is_some()) {
            true => Ok(piece.len()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Content that counts how often it is read.
    fn counted(bytes: &[u8], reads: &Arc<AtomicUsize>) -> Content {
        let (bytes, reads) = (bytes.to_vec(), Arc::clone(reads));
        Arc::new(move |sink: &mut dyn Write| {
            reads.fetch_add(1, Ordering::SeqCst);
            sink.write_all(&bytes)
        })
    }

    fn read(content: &Content) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        content(&mut bytes).map(|()| bytes)
    }

    #[test]
    fn a_blob_is_read_once_for_all_and_again_for_who_comes_late() {
        let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let reads = Arc::new(AtomicUsize::new(0));
        let (contents, reader) = tee(&counted(&bytes, &reads), 3);
        std::thread::scope(|scope| {
            scope.spawn(|| reader.run());
            // The third one never begins while the others go on.
            for content in &contents[..2] {
                scope.spawn(|| assert!(read(content).expect("it is whole") == bytes));
            }
        });
        assert_eq!(reads.load(Ordering::SeqCst), 1);
        assert!(read(&contents[2]).expect("it is whole") == bytes, "who comes late reads by itself");
        assert!(read(&contents[0]).expect("it is whole") == bytes, "and so does who begins anew");
        assert_eq!(reads.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn nothing_is_read_for_nobody_and_a_failure_is_one_of_all() {
        let reads = Arc::new(AtomicUsize::new(0));
        let (contents, reader) = tee(&counted(b"x", &reads), 2);
        drop(contents);
        reader.run();
        assert_eq!(reads.load(Ordering::SeqCst), 0);
        let fails: Content = Arc::new(|sink: &mut dyn Write| {
            sink.write_all(b"some")?;
            Err(io::Error::other("damaged"))
        });
        let (contents, reader) = tee(&fails, 2);
        std::thread::scope(|scope| {
            scope.spawn(|| reader.run());
            for content in &contents {
                scope.spawn(|| assert!(read(content).is_err()));
            }
        });
    }
}
