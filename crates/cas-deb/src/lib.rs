//! Debian packages and archives: ar, control, versions, closure, signed indexes.
