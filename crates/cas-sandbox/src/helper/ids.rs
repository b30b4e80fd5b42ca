//! Maps of user and group ids, written from inside or by a process that stays outside.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use cas_sys::Fork;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::{At, Setup};
use crate::ids::{IdMaps, MANY, Row};
use crate::wire::{self, SetupFailure, Stage};

/// What gives the new user namespace its ids once it is there.
pub(super) enum Mapper<'a> {
    /// The process itself.
    Own { uid: u32, gid: u32, outer: (u32, u32) },
    /// A process that stays outside, because only there it may.
    Outside { maps: &'a IdMaps, child: Pid, start: OwnedFd, result: OwnedFd },
}

impl<'a> Mapper<'a> {
    /// To be called before the namespace is made.
    pub(super) fn prepare(maps: &'a IdMaps) -> Setup<Self> {
        if let IdMaps::Own { uid, gid } = *maps {
            let outer = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            return Ok(Self::Own { uid, gid, outer });
        }
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(Stage::IdMaps);
        let ((started, start), (result, done)) = (pipe()?, pipe()?);
        let parent = rustix::process::getpid();
        match cas_sys::fork().at(Stage::IdMaps)? {
            Fork::Child => {
                drop((start, result));
                // Without a byte the parent has ended, or made no namespace.
                if File::from(started).read_exact(&mut [0]).is_ok() {
                    let written = write_outside(maps, parent).err();
                    if let Ok(message) = wire::encode(&written) {
                        drop(File::from(done).write_all(&message));
                    }
                }
                cas_sys::exit(0)
            }
            Fork::Parent(child) => Ok(Self::Outside { maps, child, start, result }),
        }
    }

    /// To be called in the new namespace, by the process that has called [`Mapper::prepare`].
    pub(super) fn finish(self) -> Setup<()> {
        match self {
            Self::Own { uid, gid, outer } => {
                // The kernel wants the group call off before an ordinary user may map a group.
                write(Path::new("/proc/self/setgroups"), "deny")?;
                write(Path::new("/proc/self/uid_map"), &lines(&[[uid, outer.0, 1]]))?;
                write(Path::new("/proc/self/gid_map"), &lines(&[[gid, outer.1, 1]]))
            }
            Self::Outside { maps, child, start, result } => {
                File::from(start).write_all(&[0]).at(Stage::IdMaps)?;
                let failure: Option<Option<SetupFailure>> = wire::decode(File::from(result)).at(Stage::IdMaps)?;
                waitpid(Some(child), WaitOptions::empty()).at(Stage::IdMaps)?;
                match failure {
                    Some(None) => {}
                    Some(Some(failure)) => return Err(failure),
                    None => return Err(Errno::PIPE).at(Stage::IdMaps),
                }
                debug_assert!(!matches!(maps, IdMaps::Own { .. }), "one id needs nobody outside");
                // Groups of the invoking user that have no number here are let go of.
                rustix::thread::set_thread_groups(&[]).at(Stage::IdMaps)
            }
        }
    }
}

fn write_outside(maps: &IdMaps, process: Pid) -> Setup<()> {
    let process = process.as_raw_nonzero();
    match maps {
        IdMaps::Own { .. } => Ok(()),
        IdMaps::Root => {
            let rows = lines(&[[0, 0, MANY]]);
            ["uid_map", "gid_map"].iter().try_for_each(|file| {
                let path = format!("/proc/{process}/{file}");
                write(Path::new(&path), &rows)
            })
        }
        IdMaps::Subordinate { uids, gids, tools } => {
            [uids, gids].into_iter().zip(tools).try_for_each(|(rows, tool)| {
                let status = Command::new(tool)
                    .arg(process.to_string())
                    .args(rows.iter().flatten().map(u32::to_string))
                    .env_clear()
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .at_path(Stage::IdMaps, tool)?;
                // It says no more than that it may not.
                if status.success() { Ok(()) } else { Err(Errno::PERM).at_path(Stage::IdMaps, tool) }
            })
        }
    }
}

fn write(path: &Path, text: &str) -> Setup<()> {
    cas_fs::write(path, text.as_bytes()).map_err(|error| error.source).at(Stage::IdMaps)
}

/// As the kernel reads them, user_namespaces(7). It takes a map in one piece.
fn lines(rows: &[Row]) -> String {
    rows.iter().map(|[inside, outside, count]| format!("{inside} {outside} {count}\n")).collect()
}
