//! A toolchain without a network: one package with a static busybox, in an archive of files, pinned in `cas.lock`.

use std::fs;
use std::path::PathBuf;

use cas_digest::{Digest, DigestFunction};

/// Programs of the toolchain beside `sh`.
const APPLETS: [&str; 18] = [
    "sh", "cat", "ls", "mkdir", "rm", "mv", "cp", "chmod", "ln", "sleep", "mkfifo", "touch", "env", "id", "tr", "sort",
    "find", "true",
];

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists())
}

/// A member of a tar: name, mode, link target or content.
pub(crate) fn tar_member(name: &str, mode: u32, link: Option<&str>, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let kind = if link.is_some() { b'2' } else { b'0' };
    header[..name.len()].copy_from_slice(name.as_bytes());
    for (at, text) in [
        (100, format!("{mode:07o}")),
        (108, "0000000".to_owned()),
        (116, "0000000".to_owned()),
        (124, format!("{:011o}", content.len())),
        (136, "00000000000".to_owned()),
        (148, " ".repeat(8)),
        (257, "ustar\u{0}00".to_owned()),
    ] {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    header[156] = kind;
    if let Some(link) = link {
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let header = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", content.len());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// The package's bytes; `None` after saying that there is no busybox.
pub(crate) fn package() -> Option<Vec<u8>> {
    let Some(busybox) = busybox() else {
        assert!(std::env::var_os("CI").is_none(), "busybox is missing: install the package busybox-static");
        eprintln!("SKIPPED: /bin/busybox is missing (Debian package busybox-static)");
        return None;
    };
    let control = "Package: busybox\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n";
    let mut data = tar_member("./usr/bin/busybox", 0o755, None, &fs::read(busybox).unwrap());
    for applet in APPLETS {
        data.extend(tar_member(&format!("./usr/bin/{applet}"), 0o777, Some("busybox"), b""));
    }
    let ended = |mut tar: Vec<u8>| {
        tar.resize(tar.len() + 1024, 0);
        tar
    };
    let control = ended(tar_member("./control", 0o644, None, control.as_bytes()));
    Some(ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &ended(data))]))
}

/// The lock that pins the package for the target `//:sh`.
pub(crate) fn lock(package: &[u8]) -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    format!(
        "format = 1\n[[debian]]\ntarget = \"//:sh\"\nrequest = \"test main busybox\"\narchitecture = \"{architecture}\"\n\
         release_date = 0\npackages = [{{ name = \"busybox\", version = \"1\", path = \"busybox.deb\", sha256 = \"{}\", size = {} }}]\n",
        Digest::of(DigestFunction::Sha256, package).to_hex(),
        package.len()
    )
}
