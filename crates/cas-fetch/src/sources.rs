//! Which mirrors the user's own configuration names. Pure: the caller reads the files.

/// The address of a Debian archive that apt's sources name for `suite`: of one-line files (`sources.list(5)`) and of
/// deb822 files, the first that has the suite.
#[must_use]
pub fn debian_mirror(sources: &[String], suite: &str) -> Option<String> {
    sources.iter().find_map(|text| one_line(text, suite).or_else(|| deb822(text, suite)))
}

fn one_line(text: &str, suite: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb ")?.trim();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1.trim(),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let (uri, found) = (words.next()?, words.next()?);
        (found == suite).then(|| address(uri)).flatten()
    })
}

fn deb822(text: &str, suite: &str) -> Option<String> {
    text.split("\n\n").find_map(|paragraph| {
        let field = |name: &str| {
            paragraph.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        if field("Enabled") == Some("no") || !field("Types")?.split_whitespace().any(|kind| kind == "deb") {
            return None;
        }
        if !field("Suites")?.split_whitespace().any(|found| found == suite) {
            return None;
        }
        field("URIs")?.split_whitespace().find_map(address)
    })
}

fn address(uri: &str) -> Option<String> {
    let known = ["http://", "https://", "file:///"];
    known.iter().any(|scheme| uri.starts_with(scheme)).then(|| uri.trim_end_matches('/').to_owned())
}

/// The registry that an `.npmrc` names, as `registry = <address>`.
#[must_use]
pub fn npm_registry(npmrc: &str) -> Option<String> {
    npmrc.lines().rev().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "registry").then(|| address(value.trim().trim_matches('"'))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_apt_sources_are_read() {
        let old =
            "# deb http://no/debian bookworm main\ndeb [arch=amd64 signed-by=/x] http://one/debian/ bookworm main\n";
        let new = "Types: deb deb-src\nURIs: mirror+file:/x https://two/debian\nSuites: trixie trixie-updates\n\nTypes: deb\nURIs: http://three\nSuites: sid\nEnabled: no\n";
        let sources = [old.to_owned(), new.to_owned()];
        for (suite, expected) in [
            ("bookworm", Some("http://one/debian")),
            ("trixie", Some("https://two/debian")),
            ("sid", None),
            ("bookworm-updates", None),
        ] {
            assert_eq!(debian_mirror(&sources, suite).as_deref(), expected, "{suite}");
        }
    }

    #[test]
    fn the_last_registry_of_an_npmrc_counts() {
        let text = "registry=https://a/\n@scope:registry=https://b\nregistry = \"https://c/npm/\"\n";
        assert_eq!(npm_registry(text).as_deref(), Some("https://c/npm"));
        assert_eq!(npm_registry("color=true"), None);
    }
}
