//! Kernels, each a row with its packages; how they are obtained, and the first file system that starts them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::peers;
use crate::run::Failure;

const DEBIAN: &str = "http://deb.debian.org/debian/pool/main/l";
const UBUNTU: &str = "http://archive.ubuntu.com/ubuntu/pool/main/l";

/// What the first file system loads, in this order. Kernels have some of them built in.
const MODULES: &str = "virtio_pci virtio_blk crc32c_generic ext4 9pnet_virtio 9p overlay";
/// Where these and what they depend on are in a package, below the folder of the modules.
const MODULE_FOLDERS: [&str; 13] = [
    "arch/x86/crypto",
    "crypto",
    "drivers/block/virtio_blk*",
    "drivers/virtio",
    "fs/9p",
    "fs/ext4",
    "fs/fscache",
    "fs/jbd2",
    "fs/mbcache*",
    "fs/netfs",
    "fs/overlayfs",
    "lib",
    "net/9p",
];

/// A kernel of a distribution.
pub(super) struct Kernel {
    /// As `uname -r` says.
    pub(super) release: &'static str,
    pub(super) from: &'static str,
    /// Whether it lacks what a sandbox needs.
    pub(super) is_too_old: bool,
    packages: &'static [Package],
}

/// A package of it, by address and SHA-256.
struct Package {
    pool: &'static str,
    path: &'static str,
    sha256: &'static str,
}

const fn package(pool: &'static str, path: &'static str, sha256: &'static str) -> Package {
    Package { pool, path, sha256 }
}

pub(super) const KERNELS: [Kernel; 7] = [
    Kernel {
        release: "5.10.0-30-amd64",
        from: "Debian 11",
        is_too_old: true,
        packages: &[package(
            DEBIAN,
            "linux-signed-amd64/linux-image-5.10.0-30-amd64_5.10.218-1_amd64.deb",
            "b9f8df30f94a8fcd0f42e55771c2d3d699ea36a8084e2ade7303d6c692f20f63",
        )],
    },
    Kernel {
        release: "5.11.0-22-generic",
        from: "Ubuntu 20.04",
        is_too_old: true,
        packages: &[
            package(
                UBUNTU,
                "linux-signed-hwe-5.11/linux-image-5.11.0-22-generic_5.11.0-22.23~20.04.1_amd64.deb",
                "75b4d9f232556dbcf35d1719bbf04727cf5c5c040025dd128fcd53bca64fd5fa",
            ),
            package(
                UBUNTU,
                "linux-hwe-5.11/linux-modules-5.11.0-22-generic_5.11.0-22.23~20.04.1_amd64.deb",
                "c481738e6c2e6fd6849c45915d721e58c829cf953af6f73a50b79529d659351f",
            ),
        ],
    },
    Kernel {
        release: "5.13.0-21-generic",
        from: "Ubuntu 20.04",
        is_too_old: false,
        packages: &[
            package(
                UBUNTU,
                "linux-signed-hwe-5.13/linux-image-5.13.0-21-generic_5.13.0-21.21~20.04.1_amd64.deb",
                "722d9e009c4229b760de32c88fe05f33acba40bf63e3f366a4f4fa37d9c5734b",
            ),
            package(
                UBUNTU,
                "linux-hwe-5.13/linux-modules-5.13.0-21-generic_5.13.0-21.21~20.04.1_amd64.deb",
                "65355bba848f544c08a37610ffe6899b5afef08cac449fe39e87c67cc3edebf2",
            ),
        ],
    },
    Kernel {
        release: "5.15.0-25-generic",
        from: "Ubuntu 22.04",
        is_too_old: false,
        packages: &[
            package(
                UBUNTU,
                "linux-signed/linux-image-5.15.0-25-generic_5.15.0-25.25_amd64.deb",
                "ad56f8c442a54d4f5ff2dff010d00321d53e32b543f3a92f3ba4e042d20a71da",
            ),
            package(
                UBUNTU,
                "linux/linux-modules-5.15.0-25-generic_5.15.0-25.25_amd64.deb",
                "d0ba4087d9e1d497925b3481d3531fba6c2a852855f8019d73b0b1385aa4da1f",
            ),
        ],
    },
    Kernel {
        release: "6.1.0-50-amd64",
        from: "Debian 12",
        is_too_old: false,
        packages: &[package(
            DEBIAN,
            "linux-signed-amd64/linux-image-6.1.0-50-amd64_6.1.176-1_amd64.deb",
            "7b5597492a0a65aee61985a492e6bcc3f2cde830072a0e3b3d8c7e1b90279bd3",
        )],
    },
    Kernel {
        release: "6.8.0-31-generic",
        from: "Ubuntu 24.04",
        is_too_old: false,
        packages: &[
            package(
                UBUNTU,
                "linux-signed/linux-image-6.8.0-31-generic_6.8.0-31.31_amd64.deb",
                "fd2ed023c84163e62c73d3b7b613a9b004bd31e335641c23d42bd249e489fbe6",
            ),
            package(
                UBUNTU,
                "linux/linux-modules-6.8.0-31-generic_6.8.0-31.31_amd64.deb",
                "3f17f2c279257eb50e40da44390bdf8272c440ca078831c348773d1314b5c2fe",
            ),
        ],
    },
    Kernel {
        release: "6.12.117+deb13-amd64",
        from: "Debian 13",
        is_too_old: false,
        packages: &[package(
            DEBIAN,
            "linux-signed-amd64/linux-image-6.12.117+deb13-amd64_6.12.117-1_amd64.deb",
            "ca712d36790184f6ac125ce2b20ea4e2202ae6bb7817b7de268f1f0115ccda73",
        )],
    },
];

/// A kernel and its first file system, as files.
pub(super) struct Bootable {
    pub(super) kernel: PathBuf,
    pub(super) initial: PathBuf,
}

impl Kernel {
    /// Fetches what is not kept yet beside the peers, and makes the two files in `folder`.
    ///
    /// # Errors
    ///
    /// That a package cannot be had, or is another one than the row says; that it could not be unpacked.
    pub(super) fn obtain(&self, folder: &Path) -> Result<Bootable, Failure> {
        let unpacked = folder.join("packages");
        fs::create_dir_all(&unpacked)?;
        for package in self.packages {
            self.unpack(&package.obtain()?, &unpacked)?;
        }
        let root = folder.join("first");
        fs::create_dir_all(root.join("bin"))?;
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        fs::write(root.join("init"), include_str!("init.sh").replace("MODULES", MODULES))?;
        succeed(Command::new("chmod").arg("0755").arg(root.join("init")))?;
        // A link of some distributions leads from here to the next path.
        let modules = ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path).join(self.release));
        let modules = modules.iter().find(|path| path.exists()).ok_or("the packages have no modules")?;
        // What loads them reads neither form of compression.
        let plain =
            "find \"$0\" -name '*.ko.xz' -exec xz -d {} +; find \"$0\" -name '*.ko.zst' -exec zstd -q -d --rm {} +";
        succeed(Command::new("sh").args(["-euc", plain]).arg(modules))?;
        let place = root.join("lib/modules");
        fs::create_dir_all(&place)?;
        fs::rename(modules, place.join(self.release))?;
        succeed(Command::new("busybox").args(["depmod", "-b"]).arg(&root).arg(self.release))?;
        let initial = folder.join("initial.cpio");
        let pack = "cd \"$0\" && find . | busybox cpio -o -H newc 2>/dev/null";
        succeed(Command::new("sh").args(["-euc", pack]).arg(&root).stdout(fs::File::create(&initial)?))?;
        Ok(Bootable { kernel: unpacked.join(format!("boot/vmlinuz-{}", self.release)), initial })
    }

    fn unpack(&self, package: &Path, folder: &Path) -> Result<(), Failure> {
        let mut archive = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
        let mut tar = Command::new("tar");
        tar.arg("-x").arg("-C").arg(folder).args(["--no-same-owner", "--wildcards", "./boot/vmlinuz-*"]);
        for prefix in ["./lib", "./usr/lib"] {
            let modules = format!("{prefix}/modules/{}", self.release);
            tar.arg(format!("{modules}/modules.*"));
            tar.args(MODULE_FOLDERS.map(|folder| format!("{modules}/kernel/{folder}")));
        }
        // A package has some of these alone, which tar takes as a failure; what is missing in the end shows.
        let status = tar.stdin(archive.stdout.take().ok_or("it is piped")?).stderr(Stdio::null()).status()?;
        let archive = archive.wait()?;
        let said = status.code().is_some_and(|code| code <= 2);
        if said && archive.success() { Ok(()) } else { Err(format!("{} cannot be unpacked", package.display()).into()) }
    }
}

impl Package {
    /// The file, fetched if it is not kept yet, and checked.
    fn obtain(&self) -> Result<PathBuf, Failure> {
        let folder = peers::folder().join("vm");
        fs::create_dir_all(&folder)?;
        let (_, name) = self.path.rsplit_once('/').ok_or("a package is in a folder")?;
        let (file, partial) = (folder.join(name), folder.join(format!("{name}.{}", std::process::id())));
        if !file.exists() {
            let address = format!("{}/{}", self.pool, self.path);
            println!("vm: fetching {address}");
            let curl = ["--silent", "--show-error", "--fail", "--location", "--max-time", "600", "--output"];
            let fetched = succeed(Command::new("curl").args(curl).arg(&partial).arg(address));
            fetched.and_then(|()| self.check(&partial)).inspect_err(|_| drop(fs::remove_file(&partial)))?;
            fs::rename(&partial, &file)?;
        }
        self.check(&file)?;
        Ok(file)
    }

    fn check(&self, file: &Path) -> Result<(), Failure> {
        let mut sum = Command::new("sha256sum").args(["--check", "--status"]).stdin(Stdio::piped()).spawn()?;
        let mut list = sum.stdin.take().ok_or("it is piped")?;
        writeln!(list, "{}  {}", self.sha256, file.display())?;
        drop(list);
        if sum.wait()?.success() { Ok(()) } else { Err(format!("{} has another SHA-256", file.display()).into()) }
    }
}

/// Runs a program that has to succeed.
pub(super) fn succeed(command: &mut Command) -> Result<(), Failure> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} failed: {status}", command.get_program().display()).into()),
        Err(error) => Err(format!("{}: {error}", command.get_program().display()).into()),
    }
}
