//! cas.toml and the locks.
