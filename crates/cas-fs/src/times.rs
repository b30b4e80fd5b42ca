//! How fine the times of a file system are.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, Stat};

/// How often it is tried: with coarse times several writes fall into one tick of 1 to 10 ms, so that chance does not pass.
const TRIES: usize = 8;

/// Whether on the file system of this folder a change after a look at an inode always moves its change time, as with the
/// multigrain times of Linux 6.13. Tried with a nameless file; `false` where that cannot be made.
#[must_use]
pub fn has_multigrain_times(folder: BorrowedFd<'_>) -> bool {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(folder, c".", flags, Mode::from_raw_mode(0o600)) else { return false };
    let Ok(Stat { st_dev: device, .. }) = rustix::fs::fstat(folder) else { return false };
    let look = || rustix::fs::fstat(file.as_fd()).ok().filter(|stat| stat.st_dev == device);
    let time = |stat: &Stat| (stat.st_ctime, stat.st_ctime_nsec);
    (0..TRIES).all(|_| {
        let Some(before) = look() else { return false };
        if rustix::io::pwrite(&file, b"x", 0).is_err() {
            return false;
        }
        look().is_some_and(|after| time(&before) != time(&after))
    })
}
