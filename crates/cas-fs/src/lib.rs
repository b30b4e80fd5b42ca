//! File system access with the path in every error.
//!
//! `std::fs` says "No such file or directory" and leaves the reader to guess which; here every failure is an [`FsError`]
//! that names the operation and the path. Other crates are kept from calling `std::fs` directly by `clippy.toml`.
//!
//! Not here: what is stored where (`cas-store`), mounts and namespaces (`cas-sys`).
#![expect(clippy::disallowed_methods, reason = "this crate is the wrapper that the ban points to")]

mod delivery;
mod dir;
mod error;
mod file;
mod lock;
mod remove;
mod times;

pub use delivery::{Delivery, deliver, delivery, folder_of, open_stream, try_delivery};
pub use dir::{
    DirEntry, create_dir, create_dir_all, create_dir_with_mode, read_dir, remove_dir, remove_temporary_dirs,
    temporary_dir_in,
};
pub use error::{FsError, Operation};
pub use file::{
    append, canonicalize, copy, create_new, exists, hard_link, metadata, open, open_no_follow, read, read_limited,
    read_link, read_stream_limited, read_to_string, remove_file, remove_file_if_there, rename, replace, set_mode,
    symlink, symlink_metadata, touch, write, write_atomic,
};
pub use lock::lock;
pub use remove::remove_tree;
pub use times::has_multigrain_times;
