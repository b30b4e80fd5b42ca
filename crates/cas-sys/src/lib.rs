//! System calls that safe crates lack, each behind a small safe function.
//!
//! The only crate with `unsafe`: every block says why it is sound, and no function here needs its caller to keep a
//! memory rule. What rustix offers safely is used from there directly and has no wrapper here.
//!
//! Not here: what the calls are for (`cas-sandbox`), files and folders (`cas-fs`).
#![expect(unsafe_code, reason = "this crate is where unsafe lives")]

mod descriptor;
mod filter;
mod landlock;
mod lookups;
mod mount;
mod namespace;
mod network;
mod process;
mod signal;

pub use descriptor::close_on_exec_from;
pub use filter::filter_system_calls;
pub use landlock::{Access, landlock_version, restrict_to};
pub use lookups::{Lookup, let_go_on, next_lookup, tell_lookups};
pub use mount::{set_all_plain, set_plain, set_read_only, set_shown};
pub use namespace::enter_new_namespaces;
pub use network::raise_loopback;
pub use process::{
    Fork, child_ends, exec, exit, fork, fork_into, ignore_terminal_output_signal, reset_signals, set_personality,
};
pub use signal::{send_signal, signal_number};

use std::io;

/// Turns the return value of a system call into a result.
fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
