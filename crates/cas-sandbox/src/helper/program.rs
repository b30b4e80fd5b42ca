//! Whether a file may become the step's program.
//!
//! While process 2 is still this program, `/proc/self/exe` names this program's file, which belongs to the host and often to the
//! user that the step runs as: as an interpreter (`#!/proc/self/exe`) it would run in the sandbox with libraries of the root,
//! and its rights could be changed from there (CVE-2019-5736 of runc). So nothing is executed that leads through a link of
//! `/proc` which is not a path. For the same reason the file must be one that the kernel executes by itself: whom it calls for
//! other formats is registered on the host (binfmt_misc), as a path, which means a file of the root.
//!
//! For the command, nothing else runs in the sandbox yet, so what is found here is what is executed. Where something else can change
//! files meanwhile, which are checks (`check.rs`) and volumes, this program is a copy that belongs to nobody (`sealed.rs`).

use std::ffi::{CStr, CString};

use rustix::fs::{Access, CWD, Mode, OFlags, ResolveFlags, access, openat2};
use rustix::io::Errno;

/// How much of a file the kernel reads to tell what it is.
const HEAD: usize = 256;
/// Scripts whose interpreters are scripts: the kernel follows five.
const MAX_SCRIPTS: usize = 6;
/// `e_machine` of programs that the kernel executes, at its place in an ELF file.
const MACHINES: [u16; 2] = if cfg!(target_arch = "x86_64") { [62, 3] } else { [183, 40] };
const MACHINE_AT: usize = 18;

/// # Errors
///
/// [`Errno::LOOP`] for a link of `/proc`, [`Errno::NOEXEC`] for a format of others, else what the system says. A missing interpreter
/// is for the kernel to tell.
pub(super) fn check(path: &CStr) -> rustix::io::Result<()> {
    let mut path = path.to_owned();
    for depth in 0..MAX_SCRIPTS {
        let head = match head(&path) {
            Err(Errno::NOENT | Errno::NOTDIR) if depth > 0 => return Ok(()),
            other => other?,
        };
        match interpreter(&head) {
            Some(interpreter) => path = interpreter,
            None if is_of_this_machine(&head) => return Ok(()),
            None => return Err(Errno::NOEXEC),
        }
    }
    Err(Errno::LOOP)
}

fn head(path: &CStr) -> rustix::io::Result<Vec<u8>> {
    // Before its format, as the kernel looks.
    access(path, Access::EXEC_OK)?;
    // Not blocking, because it may be a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    let mut head = vec![0; HEAD];
    let count = match rustix::io::read(&file, &mut head[..]) {
        // The kernel says this of everything that is no file.
        Err(Errno::ISDIR | Errno::INVAL | Errno::AGAIN) => return Err(Errno::ACCESS),
        other => other?,
    };
    head.truncate(count);
    Ok(head)
}

/// The program in the first line of a script, as `fs/binfmt_script.c` reads it.
fn interpreter(head: &[u8]) -> Option<CString> {
    // Exactly these bytes: with others, a name for the kernel would be another one here.
    let line = head.strip_prefix(b"#!")?;
    let line = &line[line.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(line.len())..];
    let end = line.iter().position(|byte| b" \t\n\0".contains(byte)).unwrap_or(line.len());
    CString::new(&line[..end]).ok()
}

fn is_of_this_machine(head: &[u8]) -> bool {
    let machine = head.get(MACHINE_AT..MACHINE_AT + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_le_bytes);
    head.starts_with(b"\x7fELF") && machine.is_some_and(|machine| MACHINES.contains(&machine))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_found_as_the_kernel_finds_them() {
        for (head, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! \t/bin/sh -e\n", Some("/bin/sh")),
            ("#!/bin/sh\t-e", Some("/bin/sh")),
            ("#!/proc/self/exe", Some("/proc/self/exe")),
            ("#!sh\0x", Some("sh")),
            ("#!\x0c/bin/sh\n", Some("\x0c/bin/sh")),
            ("#!\n/bin/sh\n", Some("")),
            (" #!/bin/sh\n", None),
            ("\x7fELF", None),
            ("", None),
        ] {
            let found = interpreter(head.as_bytes());
            assert_eq!(found.as_deref().map(|path| path.to_str().expect("it is text")), expected, "{head:?}");
        }
    }

    #[test]
    fn links_of_proc_and_formats_of_others_are_refused() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let this = std::env::current_exe().expect("a test is a program");
        let mut foreign = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        foreign.extend([0xFF, 0x7F]);
        let script = |interpreter: &str| format!("#!{interpreter}\n").into_bytes();
        let itself = home.path().join("itself").display().to_string();
        for (name, content, expected) in [
            ("good", script(&this.display().to_string()), Ok(())),
            ("missing", script("/nowhere/sh"), Ok(())),
            ("link", script("/proc/self/exe"), Err(Errno::LOOP)),
            ("deeper", script(&home.path().join("link").display().to_string()), Err(Errno::LOOP)),
            ("itself", script(&itself), Err(Errno::LOOP)),
            ("foreign", foreign, Err(Errno::NOEXEC)),
            ("text", b"text".to_vec(), Err(Errno::NOEXEC)),
            ("empty", Vec::new(), Err(Errno::NOEXEC)),
            ("plain", b"text".to_vec(), Err(Errno::ACCESS)),
        ] {
            let path = home.path().join(name);
            cas_fs::write(&path, &content).expect("the temporary folder is writable");
            cas_fs::set_mode(&path, if name == "plain" { 0o644 } else { 0o755 }).expect("it is ours");
            let path = CString::new(path.into_os_string().into_encoded_bytes()).expect("no NUL is in it");
            assert_eq!(check(&path), expected, "{name}");
        }
        for (path, expected) in
            [(c"/proc/self/exe", Err(Errno::LOOP)), (c"/nowhere", Err(Errno::NOENT)), (c"/", Err(Errno::ACCESS))]
        {
            assert_eq!(check(path), expected, "{path:?}");
        }
    }
}
