//! Versions as semver.org 2.0.0 has them.

/// Whether a text is a version: three numbers without leading zeros, then what comes before a release and what tells of the
/// build, if anything.
#[must_use]
pub fn is_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_before = |part: &str| is_word(part) && (!part.bytes().all(|byte| byte.is_ascii_digit()) || is_number(part));
    text.len() <= 256
        && core.split('.').count() == 3
        && core.split('.').all(is_number)
        && before.is_none_or(|before| before.split('.').all(is_before))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_are_versions() {
        for good in ["0.0.0", "1.2.3", "1.0.0-alpha.1", "1.0.0-0a.x-y", "1.0.0+20130313144700", "1.0.0-rc.1+build.007"]
        {
            assert!(is_version(good), "{good}");
        }
        for wrong in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3+",
            "v1.2.3",
            "1.2.x",
            "1.2.3-a..b",
            " 1.2.3",
        ] {
            assert!(!is_version(wrong), "{wrong}");
        }
    }
}
