//! Open descriptors of the process.

use std::io;

/// Marks every descriptor from `first` on to be closed by the next successful [`exec`](crate::exec()).
///
/// Linux 5.11.
///
/// # Errors
///
/// What the system says, `ENOSYS` or `EINVAL` on an older kernel.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes three integers and changes flags of descriptors; it closes none, so no owner is surprised.
    crate::check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })?;
    Ok(())
}
