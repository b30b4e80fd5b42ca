//! Reading ahead: a thread makes the bytes that another one uses, a few pieces before them.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

/// Bytes that are handed over at once.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait to be used.
const PIECES: usize = 16;

/// Bytes that a thread reads from somewhere, in its pace.
pub(crate) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    position: usize,
}

/// Reads `source` in a thread of its own, to its end or until nobody wants more of it; the thread gives the source back.
pub(crate) fn read_ahead<'scope, R: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut source: R,
) -> (Ahead, ScopedJoinHandle<'scope, R>) {
    let (sender, pieces) = sync_channel(PIECES);
    let thread = scope.spawn(move || {
        feed(&mut source, &sender);
        source
    });
    (Ahead { pieces, piece: Vec::new(), position: 0 }, thread)
}

fn feed(source: &mut impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = source.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece);
        let is_last = read.is_err() || piece.is_empty();
        let piece = read.map(|_| piece);
        if sender.send(piece).is_err() || is_last {
            return;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.piece.len() {
            // A thread that has ended gave its last piece before, which was empty or an error.
            self.piece = self.pieces.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            self.position = 0;
        }
        let rest = &self.piece[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives some bytes, then fails.
    struct Breaks(usize);

    impl Read for Breaks {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.min(buffer.len());
            self.0 -= count;
            if count == 0 { Err(io::Error::other("broken")) } else { Ok(count) }
        }
    }

    #[test]
    fn all_bytes_come_in_their_order() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|number| number.to_le_bytes()[1]).collect();
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            let (mut ahead, thread) = read_ahead(scope, &bytes[..]);
            ahead.read_to_end(&mut read).expect("it is whole");
            assert!(thread.join().expect("it does not panic").is_empty());
        });
        assert!(read == bytes);
    }

    #[test]
    fn errors_come_after_what_was_read_and_nobody_waits_for_whoever_left() {
        std::thread::scope(|scope| {
            let (mut ahead, thread) = read_ahead(scope, Breaks(5));
            let error = ahead.read_to_end(&mut Vec::new()).expect_err("it breaks");
            assert_eq!(error.to_string(), "broken");
            thread.join().expect("it does not panic");
            let (ahead, thread) = read_ahead(scope, io::repeat(0));
            drop(ahead);
            thread.join().expect("it does not panic");
        });
    }
}
