//! What a host can lack for sandboxes, told from the error of a failed attempt, with the command that mends it.
//!
//! Only attempts count: versions and settings are read after one failed, to explain it, never to predict one.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::landlock::Landlock;
use crate::spec::Users;
use crate::tier::Tier;
use crate::wire::{SetupFailure, Stage};

/// Why this host cannot run sandboxes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostCannot {
    /// Making namespaces is forbidden, or was made useless by taking the rights in them away.
    #[error("user namespaces cannot be used: {obstacle}")]
    Namespaces {
        /// What is in the way.
        obstacle: NamespaceObstacle,
    },
    /// Only one user id can be had, and the sandbox needs many.
    #[error("many user ids cannot be had: {obstacle}")]
    ManyIds {
        /// What is in the way.
        obstacle: ManyIdsObstacle,
    },
    /// There is no Landlock, which a weaker tier was to be held by.
    #[error("Landlock cannot be used: {obstacle}")]
    Landlock {
        /// What is in the way.
        obstacle: LandlockObstacle,
    },
    /// A fresh `/proc` may only be mounted where the present one is whole; in many containers parts are hidden.
    #[error("a new `/proc` cannot be mounted, because parts of the present one are hidden, as in most containers")]
    ProcHidden,
    /// The kernel has no overlay file system, or it is a module that is not loaded.
    #[error("the kernel has no overlay file system")]
    NoOverlay,
    /// The kernel is older than what the sandbox needs.
    #[error("kernel {release} is too old: sandboxes need Linux 5.12")]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// The scratch folder's file system cannot hold the changes of an overlay.
    #[error("file system `{file_system}` of `{}` cannot hold the changes of an overlay", path.display())]
    ScratchUnsuitable {
        /// The scratch folder.
        path: PathBuf,
        /// Name of the file system, or its number.
        file_system: String,
    },
    /// A needed call is forbidden by something that could not be told.
    #[error("the system refuses to {action}: {reason}")]
    Refused {
        /// What was tried.
        action: String,
        /// What the system said.
        reason: String,
    },
}

/// What forbids user namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceObstacle {
    /// Ubuntu 23.10 and later: AppArmor takes the rights in them away from programs without a profile.
    AppArmor,
    /// Debian 10 and earlier, hardened kernels: the switch for ordinary users is off.
    Switch,
    /// The number of namespaces is limited, to zero or to what is in use.
    Limit,
    /// The kernel was built without them.
    NotBuilt,
    /// Something else, mostly the system call filter of a container.
    Unknown,
}

/// Why there is no Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LandlockObstacle {
    /// The kernel was built without it, or is older than Linux 5.13.
    NotBuilt,
    /// It was not switched on when the kernel started.
    Off,
    /// Something else, mostly the system call filter of a container.
    Refused,
}

impl fmt::Display for LandlockObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotBuilt => "the kernel was built without it",
            Self::Off => "it was not switched on when the kernel started",
            Self::Refused => "asking for it is refused, most likely by a container",
        })
    }
}

/// Why there is one user id alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManyIdsObstacle {
    /// The programs are missing that may map subordinate ids.
    NoTools,
    /// The user has no range of them, or a short one.
    NoRange {
        /// Where it would be.
        file: &'static str,
        /// Name of the user, or the number.
        user: String,
    },
    /// The map was refused: by the programs, or by the kernel inside of a container that has few ids itself.
    Refused,
}

impl fmt::Display for ManyIdsObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTools => f.write_str("the programs `newuidmap` and `newgidmap` are missing"),
            Self::NoRange { file, user } => write!(f, "`{file}` has no range of 65535 ids for `{user}`"),
            Self::Refused => f.write_str("mapping them is refused"),
        }
    }
}

impl fmt::Display for NamespaceObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AppArmor => "AppArmor restricts them for ordinary users",
            Self::Switch => "they are switched off for ordinary users",
            Self::Limit => "the limit on their number is reached",
            Self::NotBuilt => "the kernel was built without them",
            Self::Unknown => "permission denied, most likely by a container or a security module",
        })
    }
}

impl HostCannot {
    /// The command that mends it, run as root, or what else to do; and the weaker tier that can be had meanwhile.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let weaker = self.weaker_tier().map(|tier| {
            format!("; or let steps with a `host` toolchain, and those alone, run with less: `--sandbox={tier}`")
        });
        Some(self.mending()? + &weaker.unwrap_or_default())
    }

    /// The strongest tier that can be had where the whole sandbox cannot.
    fn weaker_tier(&self) -> Option<Tier> {
        match self {
            Self::ManyIds { .. } => None,
            Self::Landlock { .. } => Some(Tier::None),
            Self::Namespaces { .. }
            | Self::ProcHidden
            | Self::NoOverlay
            | Self::KernelTooOld { .. }
            | Self::ScratchUnsuitable { .. }
            | Self::Refused { .. } => Some(Landlock::of_kernel().map_or(Tier::None, |_| Tier::Landlock)),
        }
    }

    fn mending(&self) -> Option<String> {
        Some(match self {
            Self::Namespaces { obstacle: NamespaceObstacle::AppArmor } => {
                "run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`".into()
            }
            Self::Namespaces { obstacle: NamespaceObstacle::Switch } => {
                "run `sudo sysctl -w kernel.unprivileged_userns_clone=1`".into()
            }
            Self::Namespaces { obstacle: NamespaceObstacle::Limit } => {
                "run `sudo sysctl -w user.max_user_namespaces=63000 user.max_mnt_namespaces=63000 \
                 user.max_pid_namespaces=63000 user.max_net_namespaces=63000`"
                    .into()
            }
            Self::Namespaces { obstacle: NamespaceObstacle::Unknown } | Self::Refused { .. } => {
                "in a container, start it with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                 --security-opt systempaths=unconfined`, or run outside of it"
                    .into()
            }
            Self::ManyIds { obstacle: ManyIdsObstacle::NoTools } => {
                "run `sudo apt-get install uidmap`, or build as root".into()
            }
            Self::ManyIds { obstacle: ManyIdsObstacle::NoRange { user, .. } } => format!(
                "run `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}` (other ranges if \
                 these are taken), or build as root"
            ),
            Self::ManyIds { obstacle: ManyIdsObstacle::Refused } => {
                "compare `/etc/subuid`, `/etc/subgid` and the set-id bits of `newuidmap`; in a container, give it \
                 65536 ids of its own"
                    .into()
            }
            Self::Landlock { obstacle: LandlockObstacle::Off } => {
                "start the kernel with `landlock` first in its parameter `lsm=`".into()
            }
            Self::Landlock { obstacle: LandlockObstacle::NotBuilt } => {
                "use a kernel of Linux 5.13 or later with `CONFIG_SECURITY_LANDLOCK`".into()
            }
            Self::Landlock { obstacle: LandlockObstacle::Refused } => {
                "allow the container the system calls `landlock_create_ruleset`, `landlock_add_rule` and \
                 `landlock_restrict_self`"
                    .into()
            }
            Self::ProcHidden => {
                "start the container with `--security-opt systempaths=unconfined` (Kubernetes: `procMount: Unmasked`), \
                 or run outside of it"
                    .into()
            }
            Self::NoOverlay => "run `sudo modprobe overlay`".into(),
            Self::KernelTooOld { .. } | Self::Namespaces { obstacle: NamespaceObstacle::NotBuilt } => {
                "use a kernel of Linux 5.12 or later with user namespaces".into()
            }
            Self::ScratchUnsuitable { .. } => "put the store on ext4, xfs or btrfs, or since Linux 6.6 on tmpfs".into(),
        })
    }
}

/// What of the host explains a failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) release: String,
    pub(crate) apparmor_restricts: bool,
    pub(crate) switched_off: bool,
    pub(crate) scratch_file_system: String,
}

impl Facts {
    pub(crate) fn read(scratch: &Path) -> Self {
        // An absent setting is the normal case; an unreadable one explains nothing.
        let is =
            |path: &str, value: &str| cas_fs::read_to_string(Path::new(path)).is_ok_and(|text| text.trim() == value);
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            apparmor_restricts: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            switched_off: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            scratch_file_system: file_system(scratch),
        }
    }

    /// Whether the kernel is older than Linux 5.12, the first with all calls that are used; an unreadable version is not.
    fn is_too_old(&self) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => (major, minor) < (5, 12),
            _ => false,
        }
    }
}

/// Name of the file system that holds a path, or its number where the name is not known.
pub(crate) fn file_system(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(path) else { return "unknown".to_owned() };
    // <linux/magic.h>; those that are met in practice.
    let name = match stat.f_type {
        0x794c_7630 => "overlay",
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        0x4d44 => "vfat",
        0x2fc1_2fc1 => "zfs",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0xf2f5_2010 => "f2fs",
        0xf15f => "ecryptfs",
        number => return format!("{number:#x}"),
    };
    name.to_owned()
}

/// Tells whether a failure is the host's doing, and which.
pub(crate) fn diagnose(failure: &SetupFailure, users: Users, scratch: &Path, facts: &Facts) -> Option<HostCannot> {
    let errno = Errno::from_raw_os_error(failure.errno);
    let refused = matches!(errno, Errno::PERM | Errno::ACCESS);
    let namespaces = |obstacle| Some(HostCannot::Namespaces { obstacle });
    let unsuitable = || {
        Some(HostCannot::ScratchUnsuitable { path: scratch.to_owned(), file_system: facts.scratch_file_system.clone() })
    };
    if errno == Errno::NOSYS || (facts.is_too_old() && failure.stage == Stage::MountOverlay) {
        return Some(HostCannot::KernelTooOld { release: facts.release.clone() });
    }
    match failure.stage {
        Stage::Namespaces if matches!(errno, Errno::NOSPC | Errno::USERS) => namespaces(NamespaceObstacle::Limit),
        Stage::Namespaces if errno == Errno::INVAL => namespaces(NamespaceObstacle::NotBuilt),
        // A folder that the user may not enter is no fault of the host.
        Stage::OpenLayer | Stage::MountPoint | Stage::ShowHost | Stage::MountVolume => None,
        // AppArmor lets the namespace be made and refuses the first use of a right in it.
        _ if refused && facts.apparmor_restricts => namespaces(NamespaceObstacle::AppArmor),
        Stage::IdMaps if users == Users::Many && matches!(errno, Errno::PERM | Errno::INVAL) => {
            Some(HostCannot::ManyIds { obstacle: ManyIdsObstacle::Refused })
        }
        Stage::Namespaces | Stage::IdMaps if refused && facts.switched_off => namespaces(NamespaceObstacle::Switch),
        Stage::Namespaces | Stage::IdMaps if refused => namespaces(NamespaceObstacle::Unknown),
        Stage::MountProc if refused => Some(HostCannot::ProcHidden),
        Stage::MountOverlay if errno == Errno::NODEV => Some(HostCannot::NoOverlay),
        Stage::MountOverlay if matches!(errno, Errno::INVAL | Errno::NOTSUP | Errno::REMOTE) => unsuitable(),
        Stage::Probe if matches!(errno, Errno::NOTSUP | Errno::IO | Errno::PERM) => unsuitable(),
        stage if refused => {
            Some(HostCannot::Refused { action: stage.to_string(), reason: std::io::Error::from(errno).to_string() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_laid_to_what_causes_it() {
        use NamespaceObstacle::*;
        let plain =
            Facts { release: "6.1.0-28-amd64".into(), scratch_file_system: "overlay".into(), ..Facts::default() };
        let ubuntu = Facts { apparmor_restricts: true, release: "6.8.0-31-generic".into(), ..plain.clone() };
        let debian_10 = Facts { switched_off: true, release: "4.19.0-27-amd64".into(), ..plain.clone() };
        let old = Facts { release: "5.10.0".into(), ..plain.clone() };
        let namespaces = |obstacle| Some(HostCannot::Namespaces { obstacle });
        let too_old = |facts: &Facts| Some(HostCannot::KernelTooOld { release: facts.release.clone() });
        let unsuitable =
            || Some(HostCannot::ScratchUnsuitable { path: "/scratch".into(), file_system: "overlay".into() });
        let refused = |action: &str| {
            Some(HostCannot::Refused { action: action.into(), reason: std::io::Error::from(Errno::PERM).to_string() })
        };
        for (stage, errno, facts, expected) in [
            (Stage::Namespaces, Errno::PERM, &ubuntu, namespaces(AppArmor)),
            (Stage::IdMaps, Errno::ACCESS, &ubuntu, namespaces(AppArmor)),
            (Stage::MountOverlay, Errno::PERM, &ubuntu, namespaces(AppArmor)),
            (Stage::Namespaces, Errno::PERM, &debian_10, namespaces(Switch)),
            (Stage::Namespaces, Errno::NOSPC, &plain, namespaces(Limit)),
            (Stage::Namespaces, Errno::USERS, &plain, namespaces(Limit)),
            (Stage::Namespaces, Errno::INVAL, &plain, namespaces(NotBuilt)),
            (Stage::Namespaces, Errno::PERM, &plain, namespaces(Unknown)),
            (Stage::IdMaps, Errno::PERM, &plain, namespaces(Unknown)),
            (Stage::MountProc, Errno::PERM, &plain, Some(HostCannot::ProcHidden)),
            (Stage::MountOverlay, Errno::NODEV, &plain, Some(HostCannot::NoOverlay)),
            (Stage::MountOverlay, Errno::PERM, &old, too_old(&old)),
            (Stage::MountDev, Errno::NOSYS, &old, too_old(&old)),
            (Stage::MountOverlay, Errno::INVAL, &plain, unsuitable()),
            (Stage::Probe, Errno::IO, &plain, unsuitable()),
            (Stage::SwitchRoot, Errno::PERM, &plain, refused("switch to the root")),
            (Stage::OpenLayer, Errno::ACCESS, &ubuntu, None),
            (Stage::OpenLayer, Errno::NOENT, &plain, None),
            (Stage::Fork, Errno::AGAIN, &plain, None),
        ] {
            let failure = SetupFailure { stage, errno: errno.raw_os_error(), path: None };
            let actual = diagnose(&failure, Users::One, Path::new("/scratch"), facts);
            assert_eq!(actual, expected, "{stage:?} {errno:?}");
            if let Some(cannot) = actual {
                assert!(cannot.hint().is_some_and(|hint| hint.contains("; or let steps ")), "{cannot}");
            }
        }
    }

    #[test]
    fn what_a_weaker_tier_does_not_mend_names_none() {
        let of = |cannot: HostCannot| cannot.weaker_tier();
        assert_eq!(of(HostCannot::ManyIds { obstacle: ManyIdsObstacle::Refused }), None);
        for obstacle in [LandlockObstacle::NotBuilt, LandlockObstacle::Off, LandlockObstacle::Refused] {
            assert_eq!(of(HostCannot::Landlock { obstacle }), Some(Tier::None));
        }
        assert_ne!(of(HostCannot::NoOverlay), Some(Tier::Namespaces));
    }

    #[test]
    fn a_refused_map_of_many_ids_is_told_as_that() {
        let failure = SetupFailure { stage: Stage::IdMaps, errno: Errno::PERM.raw_os_error(), path: None };
        let actual = diagnose(&failure, Users::Many, Path::new("/scratch"), &Facts::default());
        assert_eq!(actual, Some(HostCannot::ManyIds { obstacle: ManyIdsObstacle::Refused }));
        for obstacle in [
            ManyIdsObstacle::NoTools,
            ManyIdsObstacle::Refused,
            ManyIdsObstacle::NoRange { file: "/etc/subuid", user: "ann".into() },
        ] {
            let cannot = HostCannot::ManyIds { obstacle };
            assert!(cannot.hint().is_some(), "{cannot}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, expected) in
            [("5.11.22-generic", true), ("5.12", false), ("5.4.0", true), ("6.1.0-28-amd64", false), ("unknown", false)]
        {
            assert_eq!(Facts { release: release.into(), ..Facts::default() }.is_too_old(), expected, "{release}");
        }
    }
}
