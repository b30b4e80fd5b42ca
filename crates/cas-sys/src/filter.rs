//! A seccomp filter for calls that would show the invoking user's session to a program.
//!
//! It hides two things that no namespace covers: supplementary groups, which an unprivileged user cannot drop, and the
//! kernel's keyrings, which are inherited. It is no general sandbox: it allows everything else.

use std::io;

use libc::{sock_filter, sock_fprog};

/// How one system call interface numbers the filtered calls.
struct Abi {
    /// `AUDIT_ARCH_*` of `<linux/audit.h>`.
    audit: u32,
    /// `getgroups`, and its 32-bit variant.
    groups: &'static [u32],
    /// `add_key`, `request_key`, `keyctl`.
    keys: &'static [u32],
}

/// The native interface and the 32-bit one that the same kernel may offer.
#[cfg(target_arch = "x86_64")]
const ABIS: &[Abi] = &[
    Abi { audit: 0xC000_003E, groups: &[115], keys: &[248, 249, 250] },
    Abi { audit: 0x4000_0003, groups: &[80, 205], keys: &[286, 287, 288] },
];
#[cfg(target_arch = "aarch64")]
const ABIS: &[Abi] = &[
    Abi { audit: 0xC000_00B7, groups: &[158], keys: &[217, 218, 219] },
    Abi { audit: 0x4000_0028, groups: &[80, 205], keys: &[309, 310, 311] },
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the numbers of the filtered system calls are known for x86_64 and aarch64 alone");

/// The x32 interface shares its audit value with x86_64 and sets this bit; it is refused as a whole, as most kernels do.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`.
pub(crate) const OFFSET_OF_NUMBER: u32 = 0;
pub(crate) const OFFSET_OF_AUDIT: u32 = 4;

pub(crate) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(crate) const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
#[cfg(target_arch = "x86_64")]
const JUMP_SET: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(crate) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: sock_filter = statement(RETURN, libc::SECCOMP_RET_ALLOW);
/// "Done, with result 0": for `getgroups`, that there are none.
const ANSWER_ZERO: sock_filter = statement(RETURN, libc::SECCOMP_RET_ERRNO);
/// As a kernel built without the call answers.
const NO_SUCH_CALL: sock_filter = statement(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());

pub(crate) const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Skips the next statement unless the loaded value passes the test.
pub(crate) const fn unless(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 1, k }
}

fn program() -> Vec<sock_filter> {
    let mut program = vec![statement(LOAD, OFFSET_OF_AUDIT)];
    for abi in ABIS {
        let mut block = vec![statement(LOAD, OFFSET_OF_NUMBER)];
        #[cfg(target_arch = "x86_64")]
        if abi.audit == ABIS[0].audit {
            block.extend([unless(JUMP_SET, X32_BIT), NO_SUCH_CALL]);
        }
        for number in abi.groups {
            block.extend([unless(JUMP_EQUAL, *number), ANSWER_ZERO]);
        }
        for number in abi.keys {
            block.extend([unless(JUMP_EQUAL, *number), NO_SUCH_CALL]);
        }
        block.push(ALLOW);
        let length = u8::try_from(block.len()).expect("a block has a dozen statements");
        program.push(sock_filter { code: JUMP_EQUAL, jt: 0, jf: length, k: abi.audit });
        program.append(&mut block);
    }
    program.push(ALLOW);
    program
}

/// From now on, and for all that it starts, the process sees no supplementary groups and no kernel keyrings.
///
/// # Errors
///
/// `EACCES` unless "no new privileges" was set before; `EINVAL` when the kernel has no seccomp filters.
pub fn filter_ambient_calls() -> io::Result<()> {
    let mut statements = program();
    let filter = sock_fprog {
        len: u16::try_from(statements.len()).expect("a program has a few dozen statements"),
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
    use super::*;

    #[test]
    fn native_numbers_are_those_of_this_machine() {
        let abi = &ABIS[0];
        let native = |number: libc::c_long| u32::try_from(number).expect("system calls have small numbers");
        assert_eq!(abi.groups, [native(libc::SYS_getgroups)]);
        assert_eq!(abi.keys, [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl].map(native));
    }

    /// Interprets the program, so that a wrong jump shows without a kernel.
    fn run(audit: u32, number: u32) -> u32 {
        let program = program();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let statement = program[at];
            at += 1;
            let jump = |test: bool| usize::from(if test { statement.jt } else { statement.jf });
            match statement.code {
                LOAD => loaded = if statement.k == OFFSET_OF_AUDIT { audit } else { number },
                JUMP_EQUAL => at += jump(loaded == statement.k),
                RETURN => return statement.k,
                _ => at += jump(loaded & statement.k != 0),
            }
        }
    }

    #[test]
    fn groups_look_empty_keyrings_absent_and_the_rest_passes() {
        for abi in ABIS {
            for number in abi.groups {
                assert_eq!(run(abi.audit, *number), ANSWER_ZERO.k);
            }
            for number in abi.keys {
                assert_eq!(run(abi.audit, *number), NO_SUCH_CALL.k);
            }
            for number in [0, 1, 79, 114, 116, 247, 251, 289, 308, 312] {
                assert_eq!(run(abi.audit, number), ALLOW.k, "{number}");
            }
        }
        assert_eq!(run(0xDEAD_BEEF, 115), ALLOW.k);
        #[cfg(target_arch = "x86_64")]
        assert_eq!(run(ABIS[0].audit, X32_BIT | 1), NO_SUCH_CALL.k);
    }
}
