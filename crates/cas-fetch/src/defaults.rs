//! The ecosystems' public addresses: the only hosts in the program, used when the user's configuration names none.

/// Archive of the Debian project.
pub const DEBIAN: &str = "http://deb.debian.org/debian";
/// Registry of npm.
pub const NPM: &str = "https://registry.npmjs.org";
/// Index of the crates registry, of the sparse protocol.
pub const CRATES: &str = "https://index.crates.io";
