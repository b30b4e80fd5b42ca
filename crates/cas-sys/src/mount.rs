//! Attributes of mounts.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr` of `<linux/mount.h>`, first version.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 1;

const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;

/// Makes one mount read-only, named by a descriptor of its root; mounts below it keep their rights.
///
/// Linux 5.12.
///
/// # Errors
///
/// What the system says, `ENOSYS` on an older kernel.
pub fn set_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, MOUNT_ATTR_RDONLY, 0)
}

/// Makes a mount and all that are below it read-only, without set-id programs and devices.
///
/// Linux 5.12.
///
/// # Errors
///
/// What the system says, `ENOSYS` on an older kernel.
pub fn set_shown(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, libc::AT_RECURSIVE)
}

/// Makes a mount one without set-id programs and devices.
///
/// Linux 5.12.
///
/// # Errors
///
/// What the system says, `ENOSYS` on an older kernel.
pub fn set_plain(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0)
}

/// Makes a mount and all that are below it ones without set-id programs and devices.
///
/// Linux 5.12.
///
/// # Errors
///
/// What the system says, `ENOSYS` on an older kernel.
pub fn set_all_plain(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, libc::AT_RECURSIVE)
}

fn set(mount: BorrowedFd<'_>, attributes: u64, flags: libc::c_int) -> io::Result<()> {
    let attributes = MountAttributes { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the path is a static C string, and the structure lives through the call and has the size that is passed.
    crate::check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })?;
    Ok(())
}
