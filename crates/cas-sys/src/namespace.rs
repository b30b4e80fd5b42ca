//! Namespaces of the process.

use std::io;

use rustix::thread::UnshareFlags;

/// Moves the calling process into new namespaces; a pid namespace takes effect for its next child.
///
/// # Errors
///
/// What the system says; `EINVAL` also when the process has threads and asks for a user namespace, and when `flags` has
/// [`UnshareFlags::FILES`], which is not a namespace.
pub fn enter_new_namespaces(flags: UnshareFlags) -> io::Result<()> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: only an unshared descriptor table can break a rule of memory or ownership, and that flag is refused above.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}
