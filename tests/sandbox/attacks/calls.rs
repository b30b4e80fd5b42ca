//! Attacks that a program makes by system calls; `attack.c` has each.

use cas_sandbox::Ending;

use super::{MANY, Stage, modes};

/// A row: the attack's name in `attack.c`, how each of its tries is answered in the sandbox (`|` between answers of
/// different kernels), and where it works.
struct Attack {
    name: &'static str,
    refused: &'static [(&'static str, &'static str)],
    control: Control,
}

/// Tries that user 0 of many is answered otherwise, by attack: what it may do is to itself and to other users of the sandbox.
const OF_MANY: &[(&str, &str, &str)] = &[("mounts", "chroot", "done"), ("rights", "capabilities", "done")];

impl Attack {
    fn refused_to_many(&self) -> Vec<(&'static str, &'static str)> {
        let answer = |&(tried, errors): &(&'static str, &'static str)| {
            let other = OF_MANY.iter().find(|(name, what, _)| *name == self.name && *what == tried);
            (tried, other.map_or(errors, |(_, _, errors)| *errors))
        };
        self.refused.iter().map(answer).collect()
    }
}

/// Where the same program does what is refused in the sandbox. Tries in the list prove nothing there.
enum Control {
    /// On the host, for everybody.
    Host(&'static [&'static str]),
    /// On the host, for root.
    Root(&'static [&'static str]),
    /// For the root of new namespaces, in which it harms nobody.
    Bare(&'static [&'static str]),
}

/// What a host may say that forbids it to all of its processes.
const FORBIDDEN_BY_HOST: [&str; 7] = ["EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT", "ENODEV", "EOPNOTSUPP", "ESTALE"];

use Control::{Bare, Host, Root};

#[rustfmt::skip]
const ATTACKS: &[Attack] = &[
    Attack { name: "io_uring", refused: &[("io_uring_setup", "ENOSYS")], control: Host(&[]) },
    Attack { name: "bpf", refused: &[("bpf", "ENOSYS")], control: Root(&[]) },
    Attack { name: "userfaultfd", refused: &[("userfaultfd", "ENOSYS")], control: Host(&[]) },
    Attack { name: "perf", refused: &[("perf_event_open", "ENOSYS")], control: Host(&[]) },
    Attack {
        name: "keys",
        refused: &[("add_key", "ENOSYS"), ("keyctl", "ENOSYS"), ("request_key", "ENOSYS")],
        control: Host(&[]),
    },
    Attack { name: "kernel log", refused: &[("syslog", "EPERM")], control: Root(&[]) },
    Attack {
        name: "personalities",
        refused: &[("READ_IMPLIES_EXEC", "EPERM"), ("ADDR_COMPAT_LAYOUT", "EPERM")],
        control: Host(&[]),
    },
    Attack {
        name: "families",
        refused: &[
            ("AF_ALG", "EAFNOSUPPORT"), ("AF_VSOCK", "EAFNOSUPPORT"), ("AF_PACKET", "EAFNOSUPPORT"),
            ("NETLINK_GENERIC", "EPROTONOSUPPORT"), ("NETLINK_SOCK_DIAG", "EPROTONOSUPPORT"),
            ("NETLINK_KOBJECT_UEVENT", "EPROTONOSUPPORT"),
        ],
        control: Root(&[]),
    },
    Attack { name: "netlink", refused: &[("RTM_SETLINK", "EPERM"), ("SOCK_RAW", "EPERM")], control: Bare(&[]) },
    Attack { name: "abstract socket", refused: &[("connect", "ECONNREFUSED")], control: Host(&[]) },
    Attack { name: "loopback", refused: &[("connect", "ECONNREFUSED")], control: Host(&[]) },
    Attack { name: "shared memory", refused: &[("shmget", "ENOENT")], control: Host(&[]) },
    Attack {
        name: "nested namespaces",
        refused: &[
            ("unshare user", "EPERM"), ("unshare mount", "EPERM"), ("unshare pid", "EPERM"), ("unshare network", "EPERM"),
            ("unshare ipc", "EPERM"), ("unshare uts", "EPERM"), ("unshare cgroup", "EPERM"), ("unshare time", "EPERM"),
            ("clone", "EPERM"), ("clone3", "ENOSYS"),
        ],
        control: Host(&[]),
    },
    Attack {
        name: "set namespace",
        refused: &[
            ("setns of process 1", "EACCES"), ("setns of itself", "EPERM"), ("parent of the user namespace", "EPERM"),
        ],
        control: Root(&["setns of process 1", "parent of the user namespace"]),
    },
    Attack {
        name: "mounts",
        refused: &[
            ("mount tmpfs", "EPERM"), ("mount proc", "EPERM"), ("mount sysfs", "EPERM"), ("bind", "EPERM"),
            ("open_tree", "EPERM"), ("fsopen", "EPERM"), ("remount /proc/sys", "EPERM"), ("propagation", "EPERM"),
            ("umount", "EPERM"), ("pivot_root", "EPERM"), ("chroot", "EPERM"), ("name of the host", "EPERM"),
        ],
        // Nothing is mounted at /proc/sys there, the root cannot be moved, and what is mounted in it cannot be left out.
        control: Bare(&["open_tree", "remount /proc/sys", "umount", "pivot_root"]),
    },
    Attack {
        name: "control groups",
        refused: &[("mount cgroup2", "EPERM"), ("mount cgroup", "EPERM"), ("/sys/fs/cgroup", "ENOENT")],
        control: Bare(&["mount cgroup", "/sys/fs/cgroup"]),
    },
    Attack {
        name: "file handles",
        refused: &[("name_to_handle_at", "EOPNOTSUPP"), ("open_by_handle_at", "EOPNOTSUPP")],
        control: Root(&[]),
    },
    Attack {
        name: "host files",
        refused: &[
            ("by its path", "ENOENT"), ("by ..", "ENOENT"), ("by the root of process 1", "EACCES"),
            ("by its own root", "ENOENT"), ("by the folder of process 1", "EACCES"),
            ("by the root of a process outside", "ENOENT"), ("by a symbolic link", "ENOENT"),
        ],
        control: Host(&["by the root of process 1", "by the folder of process 1"]),
    },
    Attack {
        name: "process outside",
        refused: &[
            ("environ", "ENOENT"), ("mem", "ENOENT"), ("maps", "ENOENT"), ("auxv", "ENOENT"), ("stack", "ENOENT"),
            ("syscall", "ENOENT"), ("exe", "ENOENT"), ("cwd", "ENOENT"), ("root", "ENOENT"), ("fd/0", "ENOENT"),
            ("fd/3", "ENOENT"), ("ns/mnt", "ENOENT"),
        ],
        control: Root(&["fd/3"]),
    },
    Attack {
        name: "process 1",
        refused: &[
            ("environ", "EACCES"), ("mem", "EACCES"), ("maps", "EACCES"), ("auxv", "EACCES"), ("stack", "EACCES|EPERM"),
            ("syscall", "EACCES|EPERM"), ("exe", "EACCES"), ("cwd", "EACCES"), ("root", "EACCES"), ("fd/0", "EACCES"),
            ("fd/3", "EACCES"), ("ns/mnt", "EACCES"),
        ],
        // There it is itself process 1.
        control: Bare(&["stack", "fd/3"]),
    },
    Attack { name: "processes", refused: &[("others in /proc", "ENOENT")], control: Host(&[]) },
    Attack {
        name: "signals",
        refused: &[
            ("kill", "ESRCH"), ("sigqueue", "ESRCH"), ("pidfd_open", "ESRCH"), ("ptrace", "ESRCH"),
            ("process_vm_readv", "ESRCH"), ("kcmp", "ESRCH|ENOSYS"), ("prlimit", "ESRCH"), ("sched_getaffinity", "ESRCH"),
        ],
        control: Root(&[]),
    },
    Attack {
        name: "signals to process 1",
        refused: &[("ptrace", "EPERM"), ("pidfd_getfd", "EPERM"), ("kill all", "EPERM")],
        // There it is itself process 1, so that it can at least take its own descriptor.
        control: Bare(&["ptrace", "kill all"]),
    },
    Attack {
        name: "descriptors",
        refused: &[
            ("inherited", "EBADF"), ("above a stream", "ENOTDIR"), ("above a stream", "ENOTDIR"),
            ("above a stream", "ENOTDIR"), ("folder", "ENOENT"),
        ],
        control: Host(&["above a stream"]),
    },
    Attack { name: "shown files", refused: &[("chmod of /dev/null, open", "EROFS")], control: Root(&[]) },
    Attack {
        name: "kernel settings",
        refused: &[("core_pattern", "EROFS|EACCES"), ("modprobe", "EROFS|EACCES|ENOENT"), ("sysrq", "EROFS|EACCES|ENOENT"), ("memory", "ENODATA|ENOENT|EACCES")],
        control: Root(&["modprobe", "sysrq", "memory"]),
    },
    Attack {
        name: "device nodes",
        refused: &[
            ("mknod of memory", "EPERM"), ("mknod of null", "EPERM"), ("mknod of a disk", "EPERM"),
            ("mknod of a whiteout", "EPERM"), ("console", "ENOENT"),
        ],
        control: Root(&["console"]),
    },
    // CVE-2023-25173 of containerd: supplementary groups that stay.
    Attack {
        name: "rights",
        refused: &[("user", "EPERM"), ("capabilities", "EPERM"), ("groups", "EPERM")],
        control: Host(&["user", "capabilities"]),
    },
    Attack { name: "terminal", refused: &[("TIOCSTI", "EPERM")], control: Root(&[]) },
    Attack {
        name: "leases",
        refused: &[("F_SETLEASE", "EACCES"), ("fanotify_init", "EPERM")],
        control: Host(&[]),
    },
    #[cfg(target_arch = "x86_64")]
    Attack {
        name: "other interface",
        refused: &[
            ("getpid", "done|ENOSYS"), ("socketcall", "EAFNOSUPPORT"), ("socket", "EPROTONOSUPPORT"), ("keyctl", "ENOSYS"),
            ("io_uring_setup", "ENOSYS"), ("unshare", "EPERM"),
        ],
        control: Host(&[]),
    },
];

/// Names of all rows; of those for another machine too.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let elsewhere = (!cfg!(target_arch = "x86_64")).then_some("other interface");
    ATTACKS.iter().map(|attack| attack.name).chain(elsewhere)
}

/// Lines of the attacker: what was tried, and how that ended.
fn lines(text: &str) -> Vec<(&str, &str)> {
    text.lines().map(|line| line.rsplit_once(": ").unwrap_or((line, ""))).collect()
}

#[test]
fn each_attack_is_refused_in_each_mode() {
    let Some(mut stage) = Stage::new() else { return };
    let (mut wrong, modes) = (Vec::new(), modes());
    for attack in ATTACKS {
        // A user that calls itself root has no more rights.
        let runs = modes.iter().flat_map(|(mode, change)| [(mode, change, 1000), (mode, change, 0)]);
        for (mode, change, uid) in runs.filter(|(mode, _, uid)| **mode != MANY.0 || *uid == 0) {
            let refused = if *mode == MANY.0 { attack.refused_to_many() } else { attack.refused.to_vec() };
            let run = stage.attack(attack.name, |spec| {
                (spec.uid, spec.gid) = (uid, uid);
                change(spec);
            });
            let answers = lines(&run.stdout);
            let is_refused = answers.len() == refused.len()
                && answers.iter().zip(&refused).all(|((what, answer), (expected, errors))| {
                    what == expected && errors.split('|').any(|error| error == *answer)
                });
            if !is_refused || run.outcome.ending != Ending::Exited(0) {
                wrong.push(format!(
                    "{}, {mode}, user {uid}: {answers:?} {} {:?}",
                    attack.name, run.stderr, run.outcome.ending
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The positive side: an attack that cannot work anywhere proves nothing.
#[test]
fn each_attack_works_where_nothing_forbids_it() {
    let Some(stage) = Stage::new() else { return };
    let is_root = rustix::process::geteuid().is_root();
    let mut wrong = Vec::new();
    for attack in ATTACKS {
        let (output, unproven) = match attack.control {
            Root(_) if !is_root => continue,
            Root(unproven) | Host(unproven) => (stage.host.outside(attack.name), unproven),
            Bare(unproven) => (stage.host.in_bare_namespaces(attack.name), unproven),
        };
        let answers = lines(&output);
        for (what, _) in attack.refused.iter().filter(|(what, _)| !unproven.contains(what)) {
            match answers.iter().find(|(tried, _)| tried == what) {
                Some((_, "done")) => {}
                Some((_, error)) if FORBIDDEN_BY_HOST.contains(error) => {
                    eprintln!("SKIPPED: {}, {what}: this host says {error} without a sandbox too", attack.name);
                }
                other => wrong.push(format!("{}, {what}: {other:?} of {output}", attack.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
