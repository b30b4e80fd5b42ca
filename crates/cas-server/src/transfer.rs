//! Bodies between the network, which is waited for, and the disk, which blocks: a few pieces at a time.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Pieces of a body that wait: one is written while the next one comes.
const PIECES: usize = 2;
/// Bytes of a piece that is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// A client that neither sends nor takes anything for so long is gone.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

enum Piece {
    Bytes(Bytes),
    Failed(io::Error),
    /// Without it the sender was dropped in the middle.
    End,
}

/// A body that somebody reads as a file. It fails where the body does not come to its end.
#[derive(Debug)]
pub(crate) struct Incoming {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    is_at_end: bool,
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Piece")
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.is_at_end {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.current = bytes,
                Some(Piece::End) => self.is_at_end = true,
                Some(Piece::Failed(error)) => return Err(error),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current[..count]);
        self.current.advance(count);
        Ok(count)
    }
}

/// Runs `work` on a thread that may block, with the body to read. It ends as well when it does not read all of it.
///
/// Cancelled, `work` finds a body that ends early.
pub(crate) async fn take<T: Send + 'static>(
    body: Body,
    work: impl FnOnce(&mut Incoming) -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let work = tokio::task::spawn_blocking(move || {
        let mut incoming = Incoming { pieces, current: Bytes::new(), is_at_end: false };
        work(&mut incoming)
    });
    let feed = async move {
        let mut body = body;
        loop {
            let piece = match timeout(PATIENCE, body.frame()).await {
                Err(_) => Piece::Failed(io::ErrorKind::TimedOut.into()),
                Ok(None) => Piece::End,
                Ok(Some(Err(error))) => Piece::Failed(io::Error::other(error)),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => Piece::Bytes(bytes),
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
            };
            let is_last = !matches!(piece, Piece::Bytes(_));
            // Whoever reads may have seen enough.
            if sender.send(piece).await.is_err() || is_last {
                break;
            }
        }
    };
    tokio::join!(feed, work).1
}

/// A body that a thread reads from a file, of a length that is known.
#[derive(Debug)]
struct Outgoing {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(bytes)) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body of the next `length` bytes of `source`, which is read as they are taken.
///
/// The last piece goes out when the source has said that it is at its end, for that is when it says that all of it was right.
pub(crate) fn give(mut source: Box<dyn Read + Send>, length: u64, is_to_end: bool) -> Body {
    let (sender, pieces) = mpsc::channel(PIECES);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut left = length;
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let mut bytes = vec![0; wanted];
            let mut read = source.read_exact(&mut bytes);
            left -= wanted as u64;
            if left == 0 && is_to_end && read.is_ok() {
                read = match source.read(&mut [0]) {
                    Ok(0) => Ok(()),
                    Ok(_) => Err(io::ErrorKind::InvalidData.into()),
                    Err(error) => Err(error),
                };
            }
            let has_failed = read.is_err();
            let piece = read.map(|()| Bytes::from(bytes));
            let sent = runtime.block_on(timeout(PATIENCE, sender.send(piece)));
            if has_failed || !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    });
    Body::new(Outgoing { pieces, left: length })
}
