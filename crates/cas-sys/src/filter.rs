//! The system calls that a sandboxed program does not have: a seccomp filter.
//!
//! A list of what is refused, each row with its reason. Namespaces and absent rights stop most of these calls already; the
//! filter takes away the code of the kernel behind them, and what no namespace covers: keyrings, supplementary groups, the
//! kernel's log, sockets to the machine that the host runs on. The answer is one from which well-behaved programs go on:
//! `EPERM` where a right is missing, `ENOSYS` where the kernel could have been built without the call. A call that is newer than
//! [`NEWEST_CALL`] does not exist, so that a new kernel offers nothing that nobody has looked at, and programs see one kernel.
//!
//! The same rows are in docs/formats/sandbox.md. Cost: since Linux 5.11 the kernel remembers the calls that a filter allows
//! whatever their arguments, and does not run it for them. It runs for those in [`RULES`] alone.
//!
//! Not here: telling which files are looked for ([`crate::tell_lookups`]).

use std::io;

use libc::{sock_filter, sock_fprog};

/// Interfaces by which programs call the kernel, in the order of [`Call::numbers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abi {
    X86_64,
    I386,
    Aarch64,
    Arm,
}

/// The native interface and the 32-bit one that the same kernel may offer.
const ABIS: [Abi; 2] = if cfg!(target_arch = "x86_64") { [Abi::X86_64, Abi::I386] } else { [Abi::Aarch64, Abi::Arm] };
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the numbers of the filtered system calls are known for x86_64 and aarch64 alone");

impl Abi {
    /// `AUDIT_ARCH_*` of `<linux/audit.h>`.
    const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xC000_00B7,
            Self::Arm => 0x4000_0028,
        }
    }
}

/// A system call and its numbers, in the order of [`Abi`]; [`NONE`] where an interface lacks it.
struct Call {
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and for the page, which a test compares"))]
    name: &'static str,
    numbers: [u32; 4],
}

const NONE: u32 = u32::MAX;

const fn call(name: &'static str, numbers: [u32; 4]) -> Call {
    Call { name, numbers }
}

/// A call that came when all interfaces had one numbering.
const fn common(name: &'static str, number: u32) -> Call {
    Call { name, numbers: [number; 4] }
}

/// The last call that was looked at for this list: `file_setattr` of Linux 6.17. x32, which marks its calls by a high bit, is
/// refused by this as well.
const NEWEST_CALL: u32 = 469;
/// Calls of 32-bit ARM that belong to the architecture and not to Linux begin here.
const FIRST_ARM_CALL: u32 = 0x000F_0000;

/// What must hold of the argument with a position, of which the lower half counts: the kernel looks at no more of those here.
enum Condition {
    Is(u32, u32),
    IsNot(u32, u32),
    HasAnyBitOf(u32, u32),
}

use Condition::{HasAnyBitOf, Is, IsNot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Done, with result 0: for `getgroups`, that there are none.
    Zero,
    Error(i32),
}

impl Answer {
    const fn action(self) -> u32 {
        match self {
            Self::Zero => libc::SECCOMP_RET_ERRNO,
            Self::Error(number) => libc::SECCOMP_RET_ERRNO | number.cast_unsigned(),
        }
    }
}

/// A row of the list.
struct Rule {
    calls: &'static [Call],
    /// When it counts, in words; the same as `conditions`.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and for the page, which a test compares"))]
    when: &'static str,
    /// All must hold.
    conditions: &'static [Condition],
    answer: Answer,
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers, and for the page, which a test compares"))]
    reason: &'static str,
}

/// Flags of new namespaces, as `clone` takes them. The lowest byte is a signal there.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();
const NEW_TIME_NAMESPACE: u32 = 0x80;

/// `personality(0xffffffff)` asks and changes nothing.
const ASK_PERSONALITY: u32 = u32::MAX;
/// `PER_LINUX32` and `ADDR_NO_RANDOMIZE` of `<linux/personality.h>`.
const HARMLESS_PERSONALITIES: u32 = 0x0008 | 0x0004_0000;

/// `TIOCSTI` and `TIOCLINUX` of `<asm-generic/ioctls.h>`.
const TYPE: u32 = 0x5412;
const SELECT_AND_PASTE: u32 = 0x541C;

/// `F_SETLEASE` of `<linux/fcntl.h>`.
const LEASE: u32 = 1024;

const UNIX: u32 = 1;
const INET: u32 = 2;
const INET6: u32 = 10;
const NETLINK: u32 = 16;
/// `NETLINK_ROUTE` of `<linux/netlink.h>`.
const ROUTE: u32 = 0;
/// `SYS_SOCKET` of `<linux/net.h>`.
const CALL_OF_SOCKET: u32 = 1;

const PERMISSION: Answer = Answer::Error(libc::EPERM);
const NO_SUCH_CALL: Answer = Answer::Error(libc::ENOSYS);
const FAMILY: Answer = Answer::Error(libc::EAFNOSUPPORT);

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule {
        calls: &[call("clone", [56, 120, 220, 120])],
        when: "flags ask for a namespace",
        conditions: &[HasAnyBitOf(0, NEW_NAMESPACES)],
        answer: PERMISSION,
        reason: "in a user namespace of its own a program has all rights over parts of the kernel that are written for root",
    },
    Rule {
        calls: &[call("unshare", [272, 310, 97, 337])],
        when: "flags ask for a namespace",
        conditions: &[HasAnyBitOf(0, NEW_NAMESPACES | NEW_TIME_NAMESPACE)],
        answer: PERMISSION,
        reason: "as `clone`",
    },
    Rule {
        calls: &[common("clone3", 435)],
        when: "always",
        conditions: &[],
        answer: NO_SUCH_CALL,
        reason: "its flags are in memory, where a filter cannot look; C libraries fall back to `clone`",
    },
    Rule {
        calls: &[call("setns", [308, 346, 268, 375])],
        when: "always",
        conditions: &[],
        answer: PERMISSION,
        reason: "the way into other namespaces",
    },
    Rule {
        calls: &[
            call("mount", [165, 21, 40, 21]), call("umount", [NONE, 22, NONE, NONE]), call("umount2", [166, 52, 39, 52]),
            call("pivot_root", [155, 217, 41, 218]), common("open_tree", 428), common("open_tree_attr", 467),
            common("move_mount", 429), common("fsopen", 430), common("fsconfig", 431), common("fsmount", 432),
            common("fspick", 433), common("mount_setattr", 442),
        ],
        when: "always",
        conditions: &[],
        answer: PERMISSION,
        reason: "what is seen is made before the command starts; parsers of file systems and of their options are for root",
    },
    Rule {
        calls: &[call("name_to_handle_at", [303, 341, 264, 370]), call("open_by_handle_at", [304, 342, 265, 371])],
        when: "always",
        conditions: &[],
        answer: Answer::Error(libc::EOPNOTSUPP),
        reason: "a handle names a file of the host's file system, whatever is mounted; as a file system without handles says",
    },
    Rule {
        calls: &[call("socket", [41, 359, 198, 281]), call("socketpair", [53, 360, 199, 288])],
        when: "family is none of `AF_UNIX`, `AF_INET`, `AF_INET6`, `AF_NETLINK`",
        conditions: &[IsNot(0, UNIX), IsNot(0, INET), IsNot(0, INET6), IsNot(0, NETLINK)],
        answer: FAMILY,
        reason: "`AF_VSOCK` reaches the host of a virtual machine past every network namespace; others load seldom used code",
    },
    Rule {
        calls: &[call("socket", [41, 359, 198, 281])],
        when: "family is `AF_NETLINK`, protocol is not `NETLINK_ROUTE`",
        conditions: &[Is(0, NETLINK), IsNot(2, ROUTE)],
        answer: Answer::Error(libc::EPROTONOSUPPORT),
        reason: "C libraries ask `NETLINK_ROUTE` for interfaces; the others are for administrators",
    },
    Rule {
        calls: &[call("socketcall", [NONE, 102, NONE, NONE])],
        when: "of `socket`",
        conditions: &[Is(0, CALL_OF_SOCKET)],
        answer: FAMILY,
        reason: "its family is in memory, where a filter cannot look; 32-bit programs have the call `socket` since Linux 4.3",
    },
    Rule {
        calls: &[call("ioctl", [16, 54, 29, 54])],
        when: "request is `TIOCSTI`",
        conditions: &[Is(1, TYPE)],
        answer: PERMISSION,
        reason: "types into a terminal, for whoever reads from it after the command (CVE-2017-5226)",
    },
    Rule {
        calls: &[call("ioctl", [16, 54, 29, 54])],
        when: "request is `TIOCLINUX`",
        conditions: &[Is(1, SELECT_AND_PASTE)],
        answer: PERMISSION,
        reason: "the same on the machine's own screen, by its selection",
    },
    Rule {
        calls: &[call("fcntl", [72, 55, 25, 55]), call("fcntl64", [NONE, 221, NONE, 221])],
        when: "command is `F_SETLEASE`",
        conditions: &[Is(1, LEASE)],
        answer: Answer::Error(libc::EACCES),
        reason: "who holds a lease makes all others wait who open the file; as for who does not own it",
    },
    Rule {
        calls: &[call("fanotify_init", [300, 338, 262, 367])],
        when: "always",
        conditions: &[],
        answer: PERMISSION,
        reason: "watches for administrators; `inotify` is there",
    },
    Rule {
        calls: &[call("personality", [135, 136, 92, 136])],
        when: "value has more than `PER_LINUX32` and `ADDR_NO_RANDOMIZE`, and does not ask",
        conditions: &[IsNot(0, ASK_PERSONALITY), HasAnyBitOf(0, !HARMLESS_PERSONALITIES)],
        answer: PERMISSION,
        reason: "others take protections of memory away; debuggers and 32-bit builds need these two",
    },
    Rule {
        calls: &[call("getgroups", [115, 80, 158, 80]), call("getgroups32", [NONE, 205, NONE, 205])],
        when: "always",
        conditions: &[],
        answer: Answer::Zero,
        reason: "an ordinary user cannot give supplementary groups up, and they tell who runs the step",
    },
    Rule {
        calls: &[call("add_key", [248, 286, 217, 309]), call("request_key", [249, 287, 218, 310]), call("keyctl", [250, 288, 219, 311])],
        when: "always",
        conditions: &[],
        answer: NO_SUCH_CALL,
        reason: "keyrings are inherited and belong to no namespace",
    },
    Rule {
        calls: &[common("io_uring_setup", 425), common("io_uring_enter", 426), common("io_uring_register", 427)],
        when: "always",
        conditions: &[],
        answer: NO_SUCH_CALL,
        reason: "makes system calls that no filter sees; libraries fall back",
    },
    Rule {
        calls: &[call("bpf", [321, 357, 280, 386]), call("userfaultfd", [323, 374, 282, 388]), call("perf_event_open", [298, 336, 241, 364])],
        when: "always",
        conditions: &[],
        answer: NO_SUCH_CALL,
        reason: "code in the kernel, faults that wait for a program, counters of the machine: helpers of many attacks, of no build",
    },
    Rule {
        calls: &[
            call("init_module", [175, 128, 105, 128]), call("finit_module", [313, 350, 273, 379]),
            call("delete_module", [176, 129, 106, 129]), call("kexec_load", [246, 283, 104, 347]),
            call("kexec_file_load", [320, NONE, 294, 401]), call("reboot", [169, 88, 142, 88]),
            call("swapon", [167, 87, 224, 87]), call("swapoff", [168, 115, 225, 115]), call("acct", [163, 51, 89, 51]),
            call("quotactl", [179, 131, 60, 131]), common("quotactl_fd", 443), call("iopl", [172, 110, NONE, NONE]),
            call("ioperm", [173, 101, NONE, NONE]),
        ],
        when: "always",
        conditions: &[],
        answer: PERMISSION,
        reason: "administration of the machine",
    },
    Rule {
        calls: &[call("syslog", [103, 103, 116, 103])],
        when: "always",
        conditions: &[],
        answer: PERMISSION,
        reason: "the kernel's log tells of the host, and some hosts show it to everybody",
    },
];

/// Offsets in `struct seccomp_data`.
pub(crate) const OFFSET_OF_NUMBER: u32 = 0;
pub(crate) const OFFSET_OF_AUDIT: u32 = 4;
/// Of the first argument; each has 8 bytes, the lower half first on both architectures.
const OFFSET_OF_ARGUMENTS: u32 = 16;

pub(crate) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
pub(crate) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: sock_filter = statement(RETURN, libc::SECCOMP_RET_ALLOW);

pub(crate) const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Skips the next statement unless the loaded value passes the test.
pub(crate) const fn unless(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 1, k }
}

/// Skips the next statement if the loaded value passes the test.
const fn when(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 1, jf: 0, k }
}

/// Answers one call as the rule says, and goes on behind this with the call's number loaded otherwise.
fn refuse(number: u32, rule: &Rule) -> Vec<sock_filter> {
    let answer = statement(RETURN, rule.answer.action());
    if rule.conditions.is_empty() {
        return vec![unless(JUMP_EQUAL, number), answer];
    }
    // A test has three statements; the last of them leads to the one behind the answer.
    let end = |tests_before: usize| {
        let tests_left = rule.conditions.len() - tests_before;
        statement(JUMP, u32::try_from(3 * tests_left + 1).expect("a rule has a few conditions"))
    };
    let mut whole = vec![when(JUMP_EQUAL, number), end(0)];
    for (index, condition) in rule.conditions.iter().enumerate() {
        let (argument, test) = match *condition {
            Is(argument, value) => (argument, when(JUMP_EQUAL, value)),
            IsNot(argument, value) => (argument, unless(JUMP_EQUAL, value)),
            HasAnyBitOf(argument, mask) => (argument, when(JUMP_SET, mask)),
        };
        whole.extend([statement(LOAD, OFFSET_OF_ARGUMENTS + 8 * argument), test, end(index + 1)]);
    }
    whole.extend([answer, statement(LOAD, OFFSET_OF_NUMBER)]);
    whole
}

fn block(abi: Abi) -> Vec<sock_filter> {
    let mut block = vec![statement(LOAD, OFFSET_OF_NUMBER)];
    if abi == Abi::Arm {
        block.extend([unless(JUMP_GREATER, FIRST_ARM_CALL), ALLOW]);
    }
    block.extend([unless(JUMP_GREATER, NEWEST_CALL), statement(RETURN, NO_SUCH_CALL.action())]);
    for rule in RULES {
        let numbers = rule.calls.iter().map(|call| call.numbers[abi as usize]);
        block.extend(numbers.filter(|number| *number != NONE).flat_map(|number| refuse(number, rule)));
    }
    block.push(ALLOW);
    block
}

fn program() -> Vec<sock_filter> {
    let mut program = vec![statement(LOAD, OFFSET_OF_AUDIT)];
    for abi in ABIS {
        let block = block(abi);
        let length = u32::try_from(block.len()).expect("a block has a few hundred statements");
        program.extend([when(JUMP_EQUAL, abi.audit()), statement(JUMP, length)]);
        program.extend(block);
    }
    // No kernel of this machine has a third interface.
    program.push(statement(RETURN, NO_SUCH_CALL.action()));
    program
}

/// From now on, the process and all that it starts have no system calls but those of docs/formats/sandbox.md.
///
/// # Errors
///
/// `EACCES` unless "no new privileges" was set before; `EINVAL` when the kernel has no seccomp filters.
pub fn filter_system_calls() -> io::Result<()> {
    let mut statements = program();
    let filter = sock_fprog {
        len: u16::try_from(statements.len()).expect("a program has a few hundred statements"),
        filter: statements.as_mut_ptr(),
    };
    // SAFETY: `filter` points at `len` statements, which the kernel copies before the call returns.
    crate::check(
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) }.into(),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// Interprets the program, so that a wrong jump shows without a kernel.
    fn run(audit: u32, number: u32, arguments: [u32; 3]) -> u32 {
        static PROGRAM: LazyLock<Vec<sock_filter>> = LazyLock::new(program);
        let program = &*PROGRAM;
        let (mut at, mut loaded) = (0, 0);
        loop {
            let statement = program[at];
            at += 1;
            let jump = |test: bool| usize::from(if test { statement.jt } else { statement.jf });
            match statement.code {
                LOAD => {
                    loaded = match statement.k {
                        OFFSET_OF_NUMBER => number,
                        OFFSET_OF_AUDIT => audit,
                        other => arguments[((other - OFFSET_OF_ARGUMENTS) / 8) as usize],
                    }
                }
                JUMP => at += statement.k as usize,
                JUMP_EQUAL => at += jump(loaded == statement.k),
                JUMP_GREATER => at += jump(loaded > statement.k),
                JUMP_SET => at += jump(loaded & statement.k != 0),
                RETURN => return statement.k,
                code => panic!("statement {code:#x}"),
            }
        }
    }

    /// What the list says, without jumps.
    fn expected(abi: Abi, number: u32, arguments: [u32; 3]) -> u32 {
        let rule = RULES.iter().find(|rule| {
            rule.calls.iter().any(|call| call.numbers[abi as usize] == number)
                && rule.conditions.iter().all(|condition| match *condition {
                    Is(argument, value) => arguments[argument as usize] == value,
                    IsNot(argument, value) => arguments[argument as usize] != value,
                    HasAnyBitOf(argument, mask) => arguments[argument as usize] & mask != 0,
                })
        });
        rule.map_or(ALLOW.k, |rule| rule.answer.action())
    }

    #[test]
    fn each_call_with_each_argument_is_answered_as_the_list_says() {
        let values = [0, 1, 2, 3, 8, 10, 16, 17, 40, 0x80, 0x0002_0000, 0x0004_0000, 0x0040_0000, 0x1000_0000]
            .into_iter()
            .chain([0x5411, TYPE, SELECT_AND_PASTE, 0x0004_0008, 0x003D_0F00, 0x7E02_0080, u32::MAX]);
        for abi in ABIS {
            for number in 0..=NEWEST_CALL {
                for value in values.clone() {
                    for arguments in [[value, 0, 0], [value, value, value], [0, value, 7], [16, 3, value]] {
                        let answer = run(abi.audit(), number, arguments);
                        assert_eq!(answer, expected(abi, number, arguments), "{abi:?} {number} {arguments:x?}");
                    }
                }
            }
        }
    }

    /// Those that programs of every kind make, by their arguments: threads, children, terminals, look-ups of names, debuggers.
    #[test]
    fn what_ordinary_programs_do_passes_and_what_leads_out_does_not() {
        let number = |name: &str| {
            let call = RULES.iter().flat_map(|rule| rule.calls).find(|call| call.name == name).expect("it has a row");
            call.numbers[ABIS[0] as usize]
        };
        const NEW_USER: u32 = 0x1000_0000;
        for (name, arguments, answer) in [
            ("clone", [0x003D_0F00, 0, 0], ALLOW.k),
            ("clone", [0x0120_0011, 0, 0], ALLOW.k),
            ("clone", [NEW_USER | 17, 0, 0], PERMISSION.action()),
            ("clone3", [0, 0, 0], NO_SUCH_CALL.action()),
            ("unshare", [0x0000_0400, 0, 0], ALLOW.k),
            ("unshare", [0x0000_0200, 0, 0], ALLOW.k),
            ("unshare", [NEW_USER, 0, 0], PERMISSION.action()),
            ("unshare", [NEW_TIME_NAMESPACE, 0, 0], PERMISSION.action()),
            ("socket", [UNIX, 1, 0], ALLOW.k),
            ("socket", [INET, 2, 17], ALLOW.k),
            ("socket", [INET6, 1, 6], ALLOW.k),
            ("socket", [NETLINK, 3, ROUTE], ALLOW.k),
            ("socket", [NETLINK, 3, 4], Answer::Error(libc::EPROTONOSUPPORT).action()),
            ("socket", [17, 3, 0], FAMILY.action()),
            ("socket", [38, 5, 0], FAMILY.action()),
            ("socket", [40, 1, 0], FAMILY.action()),
            ("socketpair", [UNIX, 1, 0], ALLOW.k),
            ("ioctl", [0, 0x5401, 0], ALLOW.k),
            ("ioctl", [0, TYPE, 0], PERMISSION.action()),
            ("ioctl", [TYPE, 0x5401, TYPE], ALLOW.k),
            ("personality", [0, 0, 0], ALLOW.k),
            ("personality", [ASK_PERSONALITY, 0, 0], ALLOW.k),
            ("personality", [HARMLESS_PERSONALITIES, 0, 0], ALLOW.k),
            ("personality", [0x0040_0000, 0, 0], PERMISSION.action()),
            ("personality", [0x0010_0000, 0, 0], PERMISSION.action()),
            ("getgroups", [0, 0, 0], Answer::Zero.action()),
        ] {
            assert_eq!(run(ABIS[0].audit(), number(name), arguments), answer, "{name} {arguments:x?}");
        }
    }

    #[test]
    fn newer_calls_and_other_interfaces_do_not_exist() {
        let absent = NO_SUCH_CALL.action();
        for abi in ABIS {
            for number in [NEWEST_CALL + 1, 512, 0x4000_0000, u32::MAX - 1] {
                let private = abi == Abi::Arm && number > FIRST_ARM_CALL;
                assert_eq!(
                    run(abi.audit(), number, [0; 3]),
                    if private { ALLOW.k } else { absent },
                    "{abi:?} {number}"
                );
            }
        }
        assert_eq!(run(0xDEAD_BEEF, 1, [0; 3]), absent);
    }

    #[test]
    fn native_numbers_are_those_of_this_machine() {
        let native = |number: libc::c_long| u32::try_from(number).expect("system calls have small numbers");
        let known: &[(&str, libc::c_long)] = &[
            ("clone", libc::SYS_clone),
            ("unshare", libc::SYS_unshare),
            ("clone3", libc::SYS_clone3),
            ("setns", libc::SYS_setns),
            ("mount", libc::SYS_mount),
            ("umount2", libc::SYS_umount2),
            ("pivot_root", libc::SYS_pivot_root),
            ("open_tree", libc::SYS_open_tree),
            ("move_mount", libc::SYS_move_mount),
            ("fsopen", libc::SYS_fsopen),
            ("fsconfig", libc::SYS_fsconfig),
            ("fsmount", libc::SYS_fsmount),
            ("fspick", libc::SYS_fspick),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("name_to_handle_at", libc::SYS_name_to_handle_at),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("socket", libc::SYS_socket),
            ("socketpair", libc::SYS_socketpair),
            ("ioctl", libc::SYS_ioctl),
            ("personality", libc::SYS_personality),
            ("getgroups", libc::SYS_getgroups),
            ("add_key", libc::SYS_add_key),
            ("request_key", libc::SYS_request_key),
            ("keyctl", libc::SYS_keyctl),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("io_uring_register", libc::SYS_io_uring_register),
            ("bpf", libc::SYS_bpf),
            ("userfaultfd", libc::SYS_userfaultfd),
            ("perf_event_open", libc::SYS_perf_event_open),
            ("init_module", libc::SYS_init_module),
            ("finit_module", libc::SYS_finit_module),
            ("delete_module", libc::SYS_delete_module),
            ("kexec_load", libc::SYS_kexec_load),
            ("kexec_file_load", libc::SYS_kexec_file_load),
            ("reboot", libc::SYS_reboot),
            ("swapon", libc::SYS_swapon),
            ("swapoff", libc::SYS_swapoff),
            ("acct", libc::SYS_acct),
            ("quotactl", libc::SYS_quotactl),
            ("syslog", libc::SYS_syslog),
        ];
        for call in RULES.iter().flat_map(|rule| rule.calls) {
            if let Some((_, number)) = known.iter().find(|(name, _)| *name == call.name) {
                assert_eq!(call.numbers[ABIS[0] as usize], native(*number), "{}", call.name);
            }
        }
        let named = |name: &str| RULES.iter().flat_map(|rule| rule.calls).any(|call| call.name == name);
        assert_eq!(known.iter().find(|(name, _)| !named(name)), None);
    }

    #[test]
    fn the_page_has_the_same_rows() {
        let page = include_str!("../../../docs/formats/sandbox.md");
        let answer = |answer: Answer| match answer {
            Answer::Zero => "0",
            Answer::Error(libc::EPERM) => "`EPERM`",
            Answer::Error(libc::EACCES) => "`EACCES`",
            Answer::Error(libc::ENOSYS) => "`ENOSYS`",
            Answer::Error(libc::EOPNOTSUPP) => "`EOPNOTSUPP`",
            Answer::Error(libc::EAFNOSUPPORT) => "`EAFNOSUPPORT`",
            Answer::Error(libc::EPROTONOSUPPORT) => "`EPROTONOSUPPORT`",
            Answer::Error(other) => panic!("the page has no word for error {other}"),
        };
        let rows: Vec<String> = RULES
            .iter()
            .map(|rule| {
                let calls: Vec<String> = rule.calls.iter().map(|call| format!("`{}`", call.name)).collect();
                format!("| {} | {} | {} | {} |", calls.join(", "), rule.when, answer(rule.answer), rule.reason)
            })
            .collect();
        let rows = format!("|---|---|---|---|\n{}\n\n", rows.join("\n"));
        assert!(page.contains(&rows), "the table of system calls should be\n{rows}");
        assert!(page.contains(&format!("{NEWEST_CALL} (`file_setattr`, Linux 6.17)")));
    }
}
