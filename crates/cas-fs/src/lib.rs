//! File system access with paths in errors.
