//! What looks like a secret: names of variables, and values.
//!
//! A guess that only warns or refuses, never one that decides what is shown: what a step gets is part of its key and of what
//! the store keeps in plain text, so a secret has to come another way.

use std::borrow::Cow;
use std::ops::Range;

/// Beginnings that issuers gave their tokens so that they are found, with the least and the most letters that follow.
const PREFIXES: [(&str, usize, usize, &str); 13] = [
    ("npm_", 36, usize::MAX, "an npm token"),
    ("ghp_", 36, usize::MAX, "a GitHub token"),
    ("gho_", 36, usize::MAX, "a GitHub token"),
    ("ghu_", 36, usize::MAX, "a GitHub token"),
    ("ghs_", 36, usize::MAX, "a GitHub token"),
    ("ghr_", 36, usize::MAX, "a GitHub token"),
    ("github_pat_", 22, usize::MAX, "a GitHub token"),
    ("glpat-", 20, usize::MAX, "a GitLab token"),
    ("AKIA", 16, 16, "an AWS access key"),
    ("ASIA", 16, 16, "an AWS access key"),
    ("xoxb-", 20, usize::MAX, "a Slack token"),
    ("xoxp-", 20, usize::MAX, "a Slack token"),
    ("dckr_pat_", 20, usize::MAX, "a Docker token"),
];
/// Words in names of variables that hold secrets.
const WORDS: [&str; 9] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE_KEY", "API_KEY", "APIKEY", "ACCESS_KEY"];

/// Whether the name of a variable says that it holds a secret.
#[must_use]
pub fn is_secret_like(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    WORDS.iter().any(|word| name.contains(word)) || name.split('_').any(|part| part == "AUTH")
}

/// What secret a value holds, if it looks like one.
#[must_use]
pub fn token_in(value: &str) -> Option<&'static str> {
    if value.contains("-----BEGIN ") && value.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    words(value).find_map(|(_, word)| token(word)).map(|(_, kind)| kind)
}

/// The text with stars in the places of tokens, byte for byte, so that places in it stay what they are.
#[must_use]
pub fn without_tokens(text: &str) -> Cow<'_, str> {
    let mut masked = Cow::Borrowed(text);
    for (at, word) in words(text) {
        if let Some((prefix, _)) = token(word) {
            let stars = "*".repeat(word.len() - prefix.len());
            masked.to_mut().replace_range(at + prefix.len()..at + word.len(), &stars);
        }
    }
    for place in logins(text) {
        let stars = "*".repeat(place.len());
        masked.to_mut().replace_range(place, &stars);
    }
    masked
}

/// Where addresses have a login: between `://` and the last `@` before anything that no address has.
fn logins(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.match_indices("://").filter_map(|(at, mark)| {
        let start = at + mark.len();
        let is_end = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '`' | '<' | '>');
        let address = text[start..].split(is_end).next().unwrap_or_default();
        let (login, rest) = address.rsplit_once('@')?;
        let is_digest = rest.starts_with("sha");
        (login.contains(':') && !is_digest).then_some(start..start + login.len())
    })
}

/// What could be tokens, with their places.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    let mut at = 0;
    text.split(move |letter| !is_part(letter)).map(move |word| {
        // Behind each word is one letter that is no part of it.
        let start = at;
        at += word.len() + text[at + word.len()..].chars().next().map_or(0, char::len_utf8);
        (start, word)
    })
}

/// The prefix and the kind of a word that is a token.
fn token(word: &str) -> Option<(&'static str, &'static str)> {
    PREFIXES.iter().find_map(|(prefix, least, most, kind)| {
        let rest = word.strip_prefix(prefix)?;
        (*least..=*most).contains(&rest.len()).then_some((*prefix, *kind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_in_addresses_are_masked_where_they_stand() {
        for (text, shown) in [
            ("a = \"https://bob:pa/ss@r.example/x\"", "a = \"https://*********@r.example/x\""),
            ("http://a:b@c d https://e:f@g", "http://***@c d https://***@g"),
            ("https://host:5000/a@sha256:0", "https://host:5000/a@sha256:0"),
            ("https://host/a@b", "https://host/a@b"),
        ] {
            assert_eq!(without_tokens(text), shown);
        }
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for (name, expected) in [
            ("NPM_TOKEN", true),
            ("AWS_SECRET_ACCESS_KEY", true),
            ("BASIC_AUTH", true),
            ("npm_config__authToken", true),
            ("AUTHOR", false),
            ("NODE_ENV", false),
        ] {
            assert_eq!(is_secret_like(name), expected, "{name}");
        }
    }

    #[test]
    fn tokens_are_known_by_their_beginnings() {
        let letters = "aB3".repeat(12);
        for (value, expected) in [
            (format!("npm_{letters}"), Some("an npm token")),
            (format!("//registry/:_authToken=ghp_{letters}"), Some("a GitHub token")),
            ("AKIAABCDEFGHIJKLMNOP".to_owned(), Some("an AWS access key")),
            ("-----BEGIN RSA PRIVATE KEY-----\nMII".to_owned(), Some("a private key")),
            // Short and long words, and variables that only name one.
            ("npm_config".to_owned(), None),
            ("AKIAABCDEFGHIJKLMNOPQ".to_owned(), None),
            ("$NPM_TOKEN".to_owned(), None),
            (letters.clone(), None),
        ] {
            assert_eq!(token_in(&value), expected, "{value}");
        }
    }

    #[test]
    fn what_is_shown_has_no_tokens() {
        let token = format!("ghp_{}", "x".repeat(36));
        let text = format!("ü = \"{token}\" # npm_config");
        let shown = without_tokens(&text);
        assert_eq!(shown, format!("ü = \"ghp_{}\" # npm_config", "*".repeat(36)));
        assert_eq!(shown.len(), text.len());
    }
}
