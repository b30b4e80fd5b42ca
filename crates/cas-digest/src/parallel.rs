//! BLAKE3 of something long on all cores: each thread reads its own part and hashes it while it is in the core's cache.
//!
//! BLAKE3 is a tree of chunks (BLAKE3 specification, section 2.1): parts whose length is a power of two are subtrees that
//! can be hashed apart and merged. The digest is that of hashing from the beginning to the end.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use crate::{Digest, DigestFunction};

/// Bytes that one thread reads and hashes at once: enough that reading costs nothing beside hashing, and within a core's
/// second cache.
const PART_BYTES: u64 = 256 * 1024;

/// Fills a buffer with the bytes at an offset.
pub type ReadPart<'a, E> = dyn Fn(u64, &mut [u8]) -> Result<(), E> + Sync + 'a;

/// Hashes `len` bytes with BLAKE3, by the threads of the current pool.
///
/// `read` is called for each part once, by any thread.
///
/// # Errors
///
/// The first error of `read`.
pub fn hash_parts<E: Send>(len: u64, read: &ReadPart<'_, E>) -> Result<Digest, E> {
    let hash = if len <= PART_BYTES {
        hash_part(0, len, read)?.finalize()
    } else {
        let (left, right) = hash_halves(0, len, read)?;
        merge_subtrees_root(&left, &right, Mode::Hash)
    };
    Ok(Digest::from_value(DigestFunction::Blake3, hash.as_bytes()).expect("BLAKE3 gives 32 bytes"))
}

fn hash_halves<E: Send>(offset: u64, len: u64, read: &ReadPart<'_, E>) -> Result<(ChainingValue, ChainingValue), E> {
    let left = left_subtree_len(len);
    let (left, right) =
        rayon::join(|| hash_subtree(offset, left, read), || hash_subtree(offset + left, len - left, read));
    Ok((left?, right?))
}

fn hash_subtree<E: Send>(offset: u64, len: u64, read: &ReadPart<'_, E>) -> Result<ChainingValue, E> {
    if len <= PART_BYTES {
        return Ok(hash_part(offset, len, read)?.finalize_non_root());
    }
    let (left, right) = hash_halves(offset, len, read)?;
    Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

fn hash_part<E>(offset: u64, len: u64, read: &ReadPart<'_, E>) -> Result<blake3::Hasher, E> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(usize::try_from(PART_BYTES).expect("it is small"), 0);
        let part = &mut buffer[..usize::try_from(len).expect("parts are small")];
        read(offset, part)?;
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset);
        hasher.update(part);
        Ok(hasher)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_give_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        let part = usize::try_from(PART_BYTES).unwrap();
        for len in [0, 1, 1024, 1025, part - 1, part, part + 1, 2 * part, 3 * part - 5, 8 * part + 1, bytes.len()] {
            let bytes = &bytes[..len];
            let digest = hash_parts::<()>(len as u64, &|offset, buffer| {
                let start = usize::try_from(offset).unwrap();
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            });
            assert_eq!(digest, Ok(Digest::of(DigestFunction::Blake3, bytes)), "{len} bytes");
        }
    }

    #[test]
    fn an_error_of_one_part_is_that_of_the_whole() {
        let digest =
            hash_parts(10 * PART_BYTES, &|offset, _| if offset < 7 * PART_BYTES { Ok(()) } else { Err(offset) });
        assert_eq!(digest, Err(7 * PART_BYTES));
    }
}
