//! Storing behind: what is read out of an archive is written by other threads, while the next is read.

use std::io::Read;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};

use cas_blob::{Descriptor, NamedBytes};
use cas_digest::DigestFunction;
use cas_store::{Store, StoreError};

/// Contents up to this size are handed over; longer ones are stored as they come.
const MAX_BYTES: u64 = 256 << 10;
/// Contents that wait, so at most 16 MiB.
const WAITING: usize = 64;
/// Threads that store.
const THREADS: usize = 2;

/// Stores a content, and names it.
pub(crate) type Keep<'a> = &'a mut dyn FnMut(&mut dyn Read) -> Result<Descriptor, StoreError>;

/// Calls `read` with what stores contents, and returns when all of them are stored. What could not be stored is an error of a later
/// call, or of this function.
pub(crate) fn store_behind<T, E: From<StoreError>>(
    store: &Store,
    function: DigestFunction,
    read: impl FnOnce(Keep<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let (sender, receiver) = sync_channel(WAITING);
    let (receiver, failure) = (Mutex::new(receiver), Mutex::new(None));
    let result = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| work(store, &receiver, &failure));
        }
        // Moved in, so that its end is that of the threads.
        let sender = sender;
        read(&mut |content| {
            if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error);
            }
            let mut bytes = Vec::new();
            content.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(StoreError::Source)?;
            if bytes.len() as u64 > MAX_BYTES {
                return store.put(function, &mut bytes.chain(content));
            }
            let named = NamedBytes::new(function, bytes);
            let blob = *named.blob();
            sender.send(named).expect("the other end lives longer");
            Ok(blob)
        })
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error.into()),
        None => result,
    }
}

/// Stores what comes. After a failure it only takes it, so that nobody waits.
fn work(store: &Store, receiver: &Mutex<Receiver<NamedBytes<Vec<u8>>>>, failure: &Mutex<Option<StoreError>>) {
    let next = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(named) = next() {
        if let Err(error) = store.put_named(&named) {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            while next().is_ok() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    /// Contents of all lengths around the one that decides, each its own.
    fn contents() -> Vec<Vec<u8>> {
        let most = usize::try_from(MAX_BYTES).expect("it is small");
        let lengths = [0, 1, most - 1, most, most + 1, 3 * most].into_iter().chain(100..100 + 2 * WAITING);
        lengths.zip(0u8..).map(|(length, fill)| vec![fill; length]).collect()
    }

    #[test]
    fn all_that_was_named_is_stored_when_it_returns() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let store = Store::open(home.path()).expect("the folder is empty");
        let names = store_behind(&store, FUNCTION, |keep| {
            contents().iter().map(|content| keep(&mut &content[..])).collect::<Result<Vec<_>, StoreError>>()
        });
        for (content, name) in contents().iter().zip(names.expect("the disk has room")) {
            assert_eq!(name, Descriptor::of(FUNCTION, content));
            assert_eq!(store.load(&name, u64::MAX).expect("it is there"), *content);
        }
    }

    /// More contents than may wait: nobody takes them for ever.
    #[test]
    fn a_store_that_is_full_is_an_error() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let first = Store::open(home.path()).expect("the folder is empty");
        first
            .set_quota(cas_store::Quota { max_bytes: Some(1), ..cas_store::Quota::default() })
            .expect("a file is written");
        drop(first);
        let store = Store::open(home.path()).expect("it was there");
        let mut kept = 0;
        let result = store_behind(&store, FUNCTION, |keep| {
            for content in (0..20 * WAITING).map(|number| number.to_string()) {
                keep(&mut content.as_bytes())?;
                kept += 1;
            }
            Ok::<_, StoreError>(())
        });
        assert!(matches!(result, Err(StoreError::Quota { .. })), "{result:?} after {kept}");
    }
}
