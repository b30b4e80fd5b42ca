//! The ecosystems' public addresses: the only hosts in the program, used when the user's configuration names none.

/// Archive of the Debian project.
pub const DEBIAN: &str = "http://deb.debian.org/debian";
/// Where it has security updates, suites like `bookworm-security`.
pub const DEBIAN_SECURITY: &str = "http://security.debian.org/debian-security";

/// Debian's own archive of a suite.
#[must_use]
pub fn debian(suite: &str) -> &'static str {
    if suite.ends_with("-security") { DEBIAN_SECURITY } else { DEBIAN }
}

/// Registry of npm.
pub const NPM: &str = "https://registry.npmjs.org";
/// Index of the crates registry, of the sparse protocol.
pub const CRATES: &str = "https://index.crates.io";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_updates_have_an_archive_of_their_own() {
        assert_eq!(debian("trixie-security"), DEBIAN_SECURITY);
        assert_eq!(["trixie", "trixie-updates", "security"].map(debian), [DEBIAN; 3]);
    }
}
