//! The order of an npm tarball: by extension, by last name, by path, each as the collation of English has it.
//!
//! npm sorts with `localeCompare(…, 'en')`; the collation data are pinned exactly, because they decide bytes.

use std::cmp::Ordering;

use icu_collator::options::CollatorOptions;
use icu_collator::{Collator, CollatorBorrowed};
use icu_locale_core::locale;

/// Sorts paths as `npm pack` does. Paths that collate equal are in the order of their bytes.
#[must_use]
pub fn in_tarball_order<T>(mut files: Vec<T>, path: impl Fn(&T) -> &str) -> Vec<T> {
    let collator: CollatorBorrowed<'static> = Collator::try_new(locale!("en").into(), CollatorOptions::default())
        .expect("the data of English are compiled in");
    files.sort_by(|a, b| compare(&collator, path(a), path(b)));
    files
}

fn compare(collator: &CollatorBorrowed<'_>, a: &str, b: &str) -> Ordering {
    let by = |a: &str, b: &str| collator.compare(a, b);
    by(&extension(a).to_lowercase(), &extension(b).to_lowercase())
        .then_with(|| by(&base(a).to_lowercase(), &base(b).to_lowercase()))
        .then_with(|| by(&shown(a), &shown(b)))
        .then_with(|| a.cmp(b))
}

/// npm protects a path that begins with `@` from its archiver, and sorts it so.
fn shown(path: &str) -> std::borrow::Cow<'_, str> {
    if path.starts_with('@') { format!("./{path}").into() } else { path.into() }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// From the last dot on; a name's first character is no such dot.
fn extension(path: &str) -> &str {
    let base = base(path);
    match base.rfind('.') {
        None | Some(0) => "",
        Some(at) => &base[at..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order that `npm pack` of npm 12.2 gave for these names.
    #[test]
    fn the_order_is_that_of_npm() {
        let mut names = vec![
            ".env",
            "_u.js",
            "alpha.js",
            "sub/b.js",
            "cli.js",
            "\u{e9}a.js",
            "index.js",
            "Zed.js",
            "package.json",
            "README.md",
        ];
        let expected = names.clone();
        names.sort_unstable();
        assert_eq!(in_tarball_order(names, |name| name), expected);
    }
}
