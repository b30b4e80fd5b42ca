//! System calls that safe crates lack.
