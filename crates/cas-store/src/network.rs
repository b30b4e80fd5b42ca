//! File systems whose locks and memory maps cannot be relied on.

use std::path::Path;

use cas_fs::{FsError, Operation};

/// `f_type` of `statfs(2)` and the names of the file systems.
const NETWORK: [(u32, &str); 13] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "kAFS"),
    (0x7375_7245, "Coda"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// Name of the network file system that `path` is on; `None` on a local one.
pub(crate) fn name(path: &Path) -> Result<Option<&'static str>, FsError> {
    let stat = rustix::fs::statfs(path).map_err(|error| FsError::new(Operation::Stat, path, error.into()))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the kernel's value has 32 bits")]
    let kind = stat.f_type as u32;
    Ok(NETWORK.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name))
}
