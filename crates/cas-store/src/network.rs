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
    Ok(name_of(stat.f_type as u32))
}

fn name_of(kind: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers are those of linux/magic.h and of the file systems' own headers, written here a second time.
    #[test]
    fn network_file_systems_are_told_from_local_ones() {
        for (kind, expected) in [
            (0x0000_6969, Some("NFS")),
            (0x0000_517B, Some("SMB")),
            (0xFF53_4D42, Some("CIFS")),
            (0xFE53_4D42, Some("SMB2")),
            (0x6573_5546, Some("FUSE")),
            (0x0102_1997, Some("9P")),
            (0x00C3_6400, Some("Ceph")),
            (0x5346_414F, Some("AFS")),
            (0x6B41_4653, Some("kAFS")),
            (0x7375_7245, Some("Coda")),
            (0x0BD0_0BD0, Some("Lustre")),
            (0x0116_1970, Some("GFS2")),
            (0x7461_636F, Some("OCFS2")),
            // ext4, XFS, btrfs, tmpfs, overlayfs, F2FS, ZFS, bcachefs.
            (0x0000_EF53, None),
            (0x5846_5342, None),
            (0x9123_683E, None),
            (0x0102_1994, None),
            (0x794C_7630, None),
            (0xF2F5_2010, None),
            (0x2FC1_2FC1, None),
            (0xCA45_1A4E, None),
        ] {
            assert_eq!(name_of(kind), expected, "{kind:#x}");
        }
    }
}
