//! What a probe does in place of a command: it removes, replaces and writes, and looks at what comes of it.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{At, Setup};
use crate::probe::{REMOVED, REPLACED, WRITTEN};
use crate::wire::Stage;

pub(super) fn run() -> Setup<()> {
    use_overlay().at(Stage::Probe)
}

fn use_overlay() -> rustix::io::Result<()> {
    rustix::process::chdir("/")?;
    rustix::fs::unlink(REMOVED)?;
    let hidden = format!("{REPLACED}/hidden");
    rustix::fs::unlink(&hidden)?;
    rustix::fs::rmdir(REPLACED)?;
    rustix::fs::mkdir(REPLACED, Mode::RWXU)?;
    let file = rustix::fs::openat(CWD, WRITTEN, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)?;
    rustix::io::write(&file, b"written")?;
    for gone in [REMOVED, &hidden] {
        if rustix::fs::stat(gone).err() != Some(Errno::NOENT) {
            return Err(Errno::IO);
        }
    }
    Ok(())
}
