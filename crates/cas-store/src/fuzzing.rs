//! Entry points for damaged files of a store; only `tests/fuzz` calls them.
//!
//! Each decodes bytes, says whether they are such a file, and panics when what was decoded is not what its encoder would
//! write. Where a checksum guards a file, the right one is put in, so that damage gets past it.

use std::ffi::OsStr;

use cas_digest::{Digest, DigestFunction};

use crate::epoch::{self, Boot, Sealed};
use crate::lease::{self, Batch, RECORD_BYTES, Record};
use crate::room::Amount;
use crate::{format, pins, roots};

/// `store.json`.
pub fn description(bytes: &[u8]) -> bool {
    let Ok(decoded) = format::decode(bytes) else { return false };
    assert_eq!(format::decode(&format::encode(&decoded)).ok().as_ref(), Some(&decoded));
    true
}

/// `epoch/sealed`, without its last line, which is the checksum.
pub fn sealed(bytes: &[u8]) -> bool {
    // As it is, it has no checksum, or a wrong one.
    assert_eq!(Sealed::decode(bytes), None);
    let check = Digest::of(DigestFunction::Blake3, bytes).to_hex();
    let Some(decoded) = Sealed::decode(&[bytes, check.as_bytes(), b"\n"].concat()) else { return false };
    assert_eq!(Sealed::decode(decoded.encode().as_bytes()).as_ref(), Some(&decoded));
    true
}

/// `epoch/boot`.
pub fn boot(bytes: &[u8]) -> bool {
    let Some(decoded) = Boot::decode(bytes) else { return false };
    assert_eq!(Boot::decode(decoded.encode().as_bytes()).as_ref(), Some(&decoded));
    // Whatever it says, what is written in this boot must not look as if it had been flushed.
    assert!(epoch::BOOTS.contains(&decoded.seconds) && epoch::DURABLE.seconds < i64::from(epoch::BOOTS.start));
    // A seal of all epochs that the file tells of takes no time.
    let live = [1, decoded.next / 2, decoded.next.saturating_sub(1)];
    let sealed = Sealed::default().with_all_but(&decoded, &live);
    assert_eq!(Sealed::decode(sealed.encode().as_bytes()), Some(sealed));
    true
}

/// The epoch that a session says it writes in.
pub fn session_epoch(bytes: &[u8]) -> bool {
    epoch::decode_claim(bytes).is_some()
}

/// A pin's file.
pub fn pin(bytes: &[u8]) -> bool {
    let Some(decoded) = pins::decode(bytes) else { return false };
    // Each line of it keeps something, or says until when: none is passed over.
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, 2 + decoded.keeps.len() + decoded.names.len() + usize::from(decoded.lifetime.is_some()));
    assert_eq!(pins::decode(pins::encode(&decoded).as_bytes()).as_ref(), Some(&decoded));
    true
}

/// The name of a file in `pins`.
pub fn pin_name(name: &OsStr) -> bool {
    pins::name_of(name).is_some()
}

/// `leases` of a session; a record that is cut is none.
pub fn leases(bytes: &[u8]) -> bool {
    let count = Record::decode_all(bytes).count();
    assert!(count <= bytes.len() / RECORD_BYTES);
    count > 0
}

/// `collect`, the batch of a collector.
pub fn batch(bytes: &[u8]) -> bool {
    let mut bytes = bytes.to_vec();
    // The check is of as many records as the header tells; what is behind them are those of longer batches.
    if let Some(count) = bytes.get(8..16).and_then(|count| count.try_into().ok()).map(u64::from_le_bytes) {
        let length = count.saturating_add(1).saturating_mul(RECORD_BYTES as u64).min(bytes.len() as u64);
        lease::put_check(&mut bytes[..usize::try_from(length).expect("no more than there are")]);
    }
    let Some(decoded) = Batch::decode(&bytes) else { return false };
    assert_eq!(Batch::decode(&decoded.encode()).as_ref(), Some(&decoded));
    true
}

/// `usage`, and `claim` of a session, of the boot 7.
pub fn amount(bytes: &[u8]) -> bool {
    let Some(decoded) = Amount::decode(bytes, 7) else { return false };
    assert_eq!(Amount::decode(decoded.encode(7).as_bytes(), 7), Some(decoded));
    true
}

/// `size` of a tree written out.
pub fn root_size(bytes: &[u8]) -> bool {
    let Some(decoded) = roots::decode_size(bytes) else { return false };
    assert_eq!(roots::decode_size(roots::encode_size(decoded).as_bytes()), Some(decoded));
    true
}
