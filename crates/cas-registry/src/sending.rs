//! A body that is written while it is sent.

use std::io::{self, Write};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of a blob, written from the first one on each time that they are asked for.
pub type Content = Arc<dyn Fn(&mut dyn Write) -> io::Result<()> + Send + Sync>;

/// The same from a byte on, for contents that are costly to write from the first one on.
pub type Tail = Arc<dyn Fn(u64, &mut dyn Write) -> io::Result<()> + Send + Sync>;

/// How much is handed on at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How many chunks wait for the network.
const WAITING: usize = 4;

/// What went wrong with reading what was to be sent.
pub(crate) type Failure = Arc<Mutex<Option<io::Error>>>;

/// A part of a content as the body of a request. It has that length, or breaks off; what the content says then goes to `failure`.
pub(crate) fn body(content: &Content, tail: Option<&Tail>, range: Range<u64>, failure: &Failure) -> reqwest::Body {
    let (sender, receiver) = channel(WAITING);
    let (content, failure) = (Arc::clone(content), Arc::clone(failure));
    let tail = tail.filter(|_| range.start > 0).cloned();
    let left = range.end - range.start;
    tokio::task::spawn_blocking(move || {
        let skip = if tail.is_some() { 0 } else { range.start };
        let mut window = Window { sender, skip, left, chunk: BytesMut::new(), is_gone: false };
        let written = match tail {
            Some(tail) => tail(range.start, &mut window),
            None => content(&mut window),
        };
        let written = written.and_then(|()| window.flush());
        let is_short = window.left > 0 && !window.is_gone;
        let error = match written {
            Err(error) if window.left > 0 && !window.is_gone => error,
            _ if is_short => io::ErrorKind::UnexpectedEof.into(),
            _ => return,
        };
        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        // The other end hears of it by the body's end.
        let _ = window.sender.blocking_send(Err(io::ErrorKind::Other.into()));
    });
    reqwest::Body::wrap(Sending { receiver, left })
}

/// Hands on what is in a range.
struct Window {
    sender: Sender<io::Result<Bytes>>,
    skip: u64,
    left: u64,
    chunk: BytesMut,
    /// Nobody reads any more.
    is_gone: bool,
}

impl Write for Window {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        let rest = &bytes[skipped..];
        if rest.is_empty() {
            return Ok(bytes.len());
        }
        if self.left == 0 {
            // Enough; whoever writes needs not go on.
            return Err(io::ErrorKind::WriteZero.into());
        }
        let room = (CHUNK_BYTES - self.chunk.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let taken = room.min(rest.len());
        self.chunk.extend_from_slice(&rest[..taken]);
        self.left -= taken as u64;
        if self.chunk.len() == CHUNK_BYTES || self.left == 0 {
            self.flush()?;
        }
        Ok(skipped + taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = self.chunk.split().freeze();
        self.sender.blocking_send(Ok(chunk)).map_err(|_| {
            self.is_gone = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

struct Sending {
    receiver: Receiver<io::Result<Bytes>>,
    left: u64,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(context).map(|received| {
            received.map(|chunk| {
                let chunk = chunk?;
                self.left = self.left.saturating_sub(chunk.len() as u64);
                Ok(Frame::data(chunk))
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(content: &Content, tail: Option<&Tail>, range: Range<u64>) -> (Result<Vec<u8>, String>, Option<String>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let failure = Failure::default();
        let read = runtime.expect("the machine has threads").block_on(async {
            let mut body = body(content, tail, range, &failure);
            let mut bytes = Vec::new();
            loop {
                let frame = std::future::poll_fn(|context| http_body::Body::poll_frame(Pin::new(&mut body), context));
                match frame.await {
                    None => return Ok(bytes),
                    Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return Err(error.to_string()),
                }
            }
        });
        let failure =
            failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|error| error.kind().to_string());
        (read, failure)
    }

    #[test]
    fn a_part_of_a_content_is_sent_and_what_fails_is_told() {
        let whole: Vec<u8> =
            (0..1_000_000u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
        let bytes = whole.clone();
        let content: Content = Arc::new(move |sink| bytes.chunks(70_000).try_for_each(|piece| sink.write_all(piece)));
        for range in [0..1_000_000, 0..1, 999_999..1_000_000, 262_144..524_288, 100_000..900_001, 5..5] {
            let place = |byte: u64| usize::try_from(byte).expect("it is small");
            let expected = whole[place(range.start)..place(range.end)].to_vec();
            assert_eq!(sent(&content, None, range.clone()), (Ok(expected.clone()), None), "{range:?}");
            // From there on where that is cheaper; the first byte is never asked for that way.
            let bytes = whole.clone();
            let tail: Tail = Arc::new(move |from, sink| {
                assert!(from > 0);
                sink.write_all(&bytes[place(from)..])
            });
            let unwanted: Content = Arc::new(|_| Err(io::ErrorKind::Unsupported.into()));
            let content = if range.start == 0 { &content } else { &unwanted };
            assert_eq!(sent(content, Some(&tail), range.clone()), (Ok(expected), None), "{range:?}");
        }
        let (read, failure) = sent(&content, None, 0..1_000_001);
        assert!(read.is_err() && failure.as_deref() == Some("unexpected end of file"), "{failure:?}");
        let broken: Content = Arc::new(|sink| {
            sink.write_all(&[0; 10])?;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        let (read, failure) = sent(&broken, None, 0..20);
        assert!(read.is_err() && failure.as_deref() == Some("permission denied"), "{failure:?}");
    }
}
