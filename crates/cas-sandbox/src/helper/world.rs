//! What is seen in the sandbox: overlays, `/proc`, `/dev`; and the end of all sight of the host.
//!
//! Mount points are found inside the new root alone, without following symlinks, and mounts are moved by descriptor: a
//! root that holds a symlink at `/dev` or `/proc` gets an error, not a mount somewhere else.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change, move_mount, open_tree,
    unmount,
};

use super::{At, Setup};
use crate::spec::{SECRETS_DIRECTORY, SOURCE_DIRECTORY};
use crate::wire::{Bytes, Job, Layers, OwnerRow, SecretFile, Stage, VolumeRow};

/// Options of every overlay. `userxattr`: notes in attributes that an ordinary user may set. `volatile`: neither `fsync`
/// in a step nor the end of the sandbox flushes the host's disk; what survives a crash is not used. `xino=on`: files of
/// different host file systems show one device number, so that `find -xdev` and the like cross no border. `index=off`:
/// a kernel's default must not matter.
const OVERLAY_OPTIONS: &str = "userxattr,volatile,xino=on,index=off";

/// Devices that a step has, all of them taken from the host: name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Parts of `/proc` that tell of the host or control it, and are shown empty where they exist.
const HIDDEN: [&str; 11] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "kmsg",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// Parts of `/proc` that are shown and cannot be written, which counts when the invoking user is root.
const READ_ONLY: [&str; 8] = ["bus", "dynamic_debug", "fs", "irq", "mtrr", "pressure", "sys", "sysrq-trigger"];

/// A limit of `/dev`, where nobody writes after it is made.
const DEV_SIZE: &str = "64k";
/// A limit of `/dev/shm` that does not depend on the host's memory. It is used up only by what is written.
const SHARED_MEMORY_SIZE: &str = "1g";

/// Builds the root and switches to it.
pub(super) fn build(job: &Job) -> Setup<()> {
    // Nothing that is mounted here may reach the host, nor the other way round.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(Stage::Propagation)?;
    // No sandbox path may be opened here before the overlay is mounted on it: the old directory would be meant.
    let root = mount_overlay(&job.root, None)?;
    for owner in &job.owners {
        set_owner(&root, owner)?;
    }
    if let Some(source) = &job.source {
        let point = mount_point(&root, Path::new(SOURCE_DIRECTORY))?;
        mount_overlay(source, Some(&point))?;
    }
    for (host, inside) in &job.private {
        share(&root, host, inside)?;
    }
    for path in &job.host_paths {
        show(&root, path)?;
    }
    for volume in &job.volumes {
        mount_volume(&root, volume)?;
    }
    if !job.secrets.is_empty() {
        mount_secrets(&root, &job.secrets)?;
    }
    // All files there that are not of a process are the host's root's; as one of many users that may be user 0 of the sandbox.
    mount_proc(&root, job.keeps_rights)?;
    mount_dev(&root)?;
    if let Some(size) = job.tmp_size_bytes {
        let options = [("mode", "1777"), ("size", &size.to_string())];
        let tmp = new_mount("tmpfs", &options, plain()).at(Stage::MountTmp)?;
        attach(&tmp, &mount_point(&root, Path::new("/tmp"))?).at(Stage::MountTmp)?;
    }
    switch_to(&root).at(Stage::SwitchRoot)
}

/// Attributes of all mounts: set-id bits and device files mean nothing in a sandbox.
fn plain() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV
}

/// Mounts an overlay at a descriptor, or at its own mount point, and returns its root.
///
/// Its folders are named by descriptors, so that paths of the host need no escaping, have no limit of length, and do not
/// show in the sandbox's `/proc/self/mountinfo`. By `mount`, because before Linux 6.7 the newer calls take 255 bytes of
/// lower directories.
fn mount_overlay(layers: &Layers, point: Option<&OwnedFd>) -> Setup<OwnedFd> {
    let lowers = layers.lowers.iter().map(open_folder).collect::<Setup<Vec<_>>>()?;
    let (upper, work) = (open_folder(&layers.upper)?, open_folder(&layers.work)?);
    let own_point = open_folder(&layers.mount_point)?;
    let lower_paths: Vec<String> = lowers.iter().map(descriptor_path).collect();
    let options = format!(
        "{OVERLAY_OPTIONS},lowerdir={},upperdir={},workdir={}\0",
        lower_paths.join(":"),
        descriptor_path(&upper),
        descriptor_path(&work)
    );
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).expect("numbers and letters, and one NUL");
    let upper_path = layers.upper.clone().into_path();
    let target = descriptor_path(point.unwrap_or(&own_point));
    mount("overlay", target, "overlay", MountFlags::NOSUID | MountFlags::NODEV, options)
        .at_path(Stage::MountOverlay, &upper_path)?;
    match point {
        // Only needed for the root, and there the path leads to what was just mounted.
        None => open_folder(&layers.mount_point),
        Some(_) => Ok(own_point),
    }
}

fn open_folder(path: &Bytes) -> Setup<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path.0.as_slice(), flags, Mode::empty()).at_path(Stage::OpenLayer, &path.clone().into_path())
}

fn descriptor_path(descriptor: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", descriptor.as_raw_fd())
}

/// Opens a directory of the new root by its absolute path there.
fn mount_point(root: &OwnedFd, path: &Path) -> Setup<OwnedFd> {
    open_inside(root, path, OFlags::DIRECTORY).at_path(Stage::MountPoint, path)
}

/// Opens what the new root has at a path, which cannot lead out of it; a symlink on the way is an error. One at the end is opened
/// itself with [`OFlags::NOFOLLOW`], else an error.
fn open_inside(root: &OwnedFd, path: &Path, kind: OFlags) -> rustix::io::Result<OwnedFd> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, inside, OFlags::PATH | OFlags::CLOEXEC | kind, Mode::empty(), resolve)
}

/// Gives a path of the new root its owners and rights.
fn set_owner(root: &OwnedFd, (inside, uid, gid, mode): &OwnerRow) -> Setup<()> {
    let path = inside.clone().into_path();
    let set = || {
        let file = open_inside(root, &path, OFlags::NOFOLLOW)?;
        let (user, group) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        rustix::fs::chownat(&file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Symlink {
            return Ok(());
        }
        // After the owner, whose change takes set-id bits away. The descriptor itself is not one to change rights by.
        rustix::fs::chmod(descriptor_path(&file), Mode::from_raw_mode(*mode))
    };
    set().at_path(Stage::Owners, &path)
}

/// Makes a mount that is not attached anywhere yet.
fn new_mount(kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn attach(mount: &OwnedFd, point: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", point, "", flags)
}

/// A second mount of what a directory or file shows.
fn clone(directory: BorrowedFd<'_>, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(directory, name, flags)
}

fn open_entry(directory: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Shows what the host has at a path, with what is mounted below it, at the same path of the new root.
fn show(root: &OwnedFd, path: &Bytes) -> Setup<()> {
    let host = path.clone().into_path();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let shown = open_tree(CWD, &host, flags).at_path(Stage::ShowHost, &host)?;
    cas_sys::set_shown(shown.as_fd()).at_path(Stage::ShowHost, &host)?;
    let point = open_inside(root, &host, OFlags::NOFOLLOW).at_path(Stage::MountPoint, &host)?;
    attach(&shown, &point).at_path(Stage::ShowHost, &host)
}

/// Shows a folder of the host, to be read and written.
fn share(root: &OwnedFd, host: &Bytes, inside: &Bytes) -> Setup<()> {
    let path = host.clone().into_path();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let shared = open_tree(CWD, &path, flags).at_path(Stage::MountPrivate, &path)?;
    cas_sys::set_plain(shared.as_fd()).at_path(Stage::MountPrivate, &path)?;
    attach(&shared, &mount_point(root, &inside.clone().into_path())?).at_path(Stage::MountPrivate, &path)
}

/// Shows a part of the host somewhere else.
fn mount_volume(root: &OwnedFd, (host, inside, is_folder, is_read_only): &VolumeRow) -> Setup<()> {
    let (path, inside) = (host.clone().into_path(), inside.clone().into_path());
    // With what is mounted below: the kernel lets nobody look behind mounts that were there before the namespace.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let shown = open_tree(CWD, &path, flags).at_path(Stage::MountVolume, &path)?;
    let held = if *is_read_only { cas_sys::set_shown(shown.as_fd()) } else { cas_sys::set_all_plain(shown.as_fd()) };
    held.at_path(Stage::MountVolume, &path)?;
    let kind = if *is_folder { OFlags::DIRECTORY } else { OFlags::empty() };
    let in_root = Path::new("/").join(&inside);
    let point = open_inside(root, &inside, kind).at_path(Stage::MountPoint, &in_root)?;
    attach(&shown, &point).at_path(Stage::MountVolume, &path)
}

/// Secrets are files in memory, which may be swapped out and never reach a file system.
fn mount_secrets(root: &OwnedFd, secrets: &[SecretFile]) -> Setup<()> {
    // Whole pages, and one for each folder and file beside them.
    let bytes: usize = secrets.iter().map(|secret| secret.content.0.len() + 2 * 4096).sum();
    let options = [("mode", "0500"), ("size", &(bytes + 4096).to_string())];
    let memory = new_mount("tmpfs", &options, plain() | MountAttrFlags::MOUNT_ATTR_NOEXEC).at(Stage::MountSecrets)?;
    for secret in secrets {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&memory, &secret.name, flags, Mode::from_raw_mode(0o400));
        let mut file = File::from(file.at(Stage::MountSecrets)?);
        file.write_all(&secret.content.0).at(Stage::MountSecrets)?;
    }
    cas_sys::set_read_only(memory.as_fd()).at(Stage::MountSecrets)?;
    attach(&memory, &mount_point(root, Path::new(SECRETS_DIRECTORY))?).at(Stage::MountSecrets)
}

fn mount_proc(root: &OwnedFd, is_read_only: bool) -> Setup<()> {
    let read_only = if is_read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let proc = new_mount("proc", &[], plain() | MountAttrFlags::MOUNT_ATTR_NOEXEC | read_only).at(Stage::MountProc)?;
    attach(&proc, &mount_point(root, Path::new("/proc"))?).at(Stage::MountProc)?;
    let mut nothing = None;
    for name in HIDDEN {
        let point = match open_entry(&proc, name) {
            Err(Errno::NOENT) => continue,
            other => other.at(Stage::HideProc)?,
        };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&point).at(Stage::HideProc)?.st_mode);
        let cover = if kind == FileType::Directory {
            new_mount("tmpfs", &[("mode", "0555"), ("size", "4k")], plain() | MountAttrFlags::MOUNT_ATTR_RDONLY)
        } else {
            let nothing = match &nothing {
                Some(nothing) => nothing,
                None => nothing.insert(host_device("null", 1, 3)?),
            };
            clone_of(nothing)
        };
        cover.and_then(|cover| attach(&cover, &point)).at(Stage::HideProc)?;
    }
    for name in READ_ONLY {
        let cover = match clone(proc.as_fd(), name) {
            Err(Errno::NOENT) => continue,
            other => other.at(Stage::HideProc)?,
        };
        cas_sys::set_read_only(cover.as_fd()).at(Stage::HideProc)?;
        open_entry(&proc, name).and_then(|point| attach(&cover, &point)).at(Stage::HideProc)?;
    }
    Ok(())
}

/// Opens a device of the host, and refuses what only has its name.
fn host_device(name: &str, major: u32, minor: u32) -> Setup<OwnedFd> {
    let path = Path::new("/dev").join(name);
    let device = rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .at_path(Stage::Device, &path)?;
    let stat = rustix::fs::fstat(&device).at_path(Stage::Device, &path)?;
    let is_character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_character || stat.st_rdev != rustix::fs::makedev(major, minor) {
        return Err(Errno::NODEV).at_path(Stage::Device, &path);
    }
    Ok(device)
}

/// A second mount of a device, whose rights and times cannot be changed there: it is the host's, and may belong to the user that the
/// step runs as. Reading and writing a device are no changes of the file system.
fn clone_of(device: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(device, "", flags)?;
    cas_sys::set_read_only(clone.as_fd()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(clone)
}

fn mount_dev(root: &OwnedFd) -> Setup<()> {
    let memory = |mode, size, attributes| new_mount("tmpfs", &[("mode", mode), ("size", size)], plain() | attributes);
    let dev = memory("0755", DEV_SIZE, MountAttrFlags::MOUNT_ATTR_NOEXEC).at(Stage::MountDev)?;
    attach(&dev, &mount_point(root, Path::new("/dev"))?).at(Stage::MountDev)?;
    for (name, major, minor) in DEVICES {
        let device = host_device(name, major, minor)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let path = Path::new("/dev").join(name);
        rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o666)).at_path(Stage::Device, &path)?;
        let place = open_entry(&dev, name).at_path(Stage::Device, &path)?;
        clone_of(&device).and_then(|device| attach(&device, &place)).at_path(Stage::Device, &path)?;
    }
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, &dev, name).at(Stage::MountDev)?;
    }
    let add = |name: &str, mount: rustix::io::Result<OwnedFd>| -> rustix::io::Result<()> {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755))?;
        attach(&mount?, &open_entry(&dev, name)?)
    };
    add("shm", memory("1777", SHARED_MEMORY_SIZE, MountAttrFlags::empty())).at(Stage::MountDev)?;
    let terminals = [("mode", "0620"), ("ptmxmode", "0666")];
    // Terminals are devices, and the only ones there.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    add("pts", new_mount("devpts", &terminals, attributes)).at(Stage::MountDev)?;
    cas_sys::set_read_only(dev.as_fd()).at(Stage::MountDev)
}

/// Makes a directory the root, and lets go of the old root with all that is mounted there.
fn switch_to(root: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(root)?;
    // With equal arguments the old root ends up on top of the new one, so neither needs a folder for it.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    // The old root is out of reach if the working directory is the new one, and it is: a failure would show here.
    let (here, new) = (rustix::fs::statat(CWD, ".", AtFlags::empty())?, rustix::fs::fstat(root)?);
    if (here.st_dev, here.st_ino) == (new.st_dev, new.st_ino) { Ok(()) } else { Err(Errno::XDEV) }
}
