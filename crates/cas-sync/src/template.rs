//! Destinations with words in braces, as `ghcr.io/acme/web:{version}`.

/// Words that may stand in braces, with what they stand for.
pub const WORDS: [(&str, &str); 4] = [
    ("name", "the name of the target"),
    ("version", "the version of its package"),
    ("git.sha", "the commit, whole"),
    ("git.short", "the first twelve digits of the commit"),
];

/// Whether a destination has words in braces.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains(['{', '}'])
}

/// A part of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplatePart<'a> {
    /// As it is.
    Text(&'a str),
    /// What one of [`WORDS`] stands for.
    Word(&'static str),
}

/// Why a destination has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace has no other side, or is within others.
    #[error("`{text}` has a brace without its other side")]
    Brace {
        /// The destination.
        text: String,
    },
    /// Nobody knows the word.
    #[error("`{text}` has `{{{word}}}`, which stands for nothing")]
    Word {
        /// The destination.
        text: String,
        /// The word.
        word: String,
    },
}

impl TemplateError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Brace { .. } => "write words as `{version}`".to_owned(),
            Self::Word { .. } => {
                let known: Vec<String> = WORDS.iter().map(|(word, what)| format!("`{{{word}}}` ({what})")).collect();
                format!("known are {}", known.join(", "))
            }
        }
    }
}

/// The parts of a destination, in their order.
///
/// # Errors
///
/// [`TemplateError`]
pub fn template_parts(text: &str) -> Result<Vec<TemplatePart<'_>>, TemplateError> {
    let brace = || TemplateError::Brace { text: text.to_owned() };
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, inner) = rest.split_at(at);
        parts.push(TemplatePart::Text(before));
        let (word, after) = inner.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or_else(brace)?;
        if word.contains('{') {
            return Err(brace());
        }
        let known = WORDS.iter().find(|(known, _)| *known == word);
        let unknown = || TemplateError::Word { text: text.to_owned(), word: word.to_owned() };
        parts.push(TemplatePart::Word(known.ok_or_else(unknown)?.0));
        rest = after;
    }
    parts.push(TemplatePart::Text(rest));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_and_braces_have_two_sides() {
        let brace = |text: &str| Err(TemplateError::Brace { text: text.to_owned() });
        let word = |text: &str, word: &str| Err(TemplateError::Word { text: text.to_owned(), word: word.to_owned() });
        for (text, expected) in [
            ("ghcr.io/a/b:1", Ok("ghcr.io/a/b:1")),
            ("h/{name}:{version}", Ok("h/<name>:<version>")),
            ("h/a:v{version}-x", Ok("h/a:v<version>-x")),
            ("h/a:{git.sha}{git.short}", Ok("h/a:<git.sha><git.short>")),
            ("h/a:{x}", word("h/a:{x}", "x")),
            ("h/a:{}", word("h/a:{}", "")),
            ("h/a:{version", brace("h/a:{version")),
            ("h/a:version}", brace("h/a:version}")),
            ("h/a:{{version}}", brace("h/a:{{version}}")),
        ] {
            let shown = template_parts(text).map(|parts| {
                let shown = |part: &TemplatePart<'_>| match part {
                    TemplatePart::Text(text) => (*text).to_owned(),
                    TemplatePart::Word(word) => format!("<{word}>"),
                };
                parts.iter().map(shown).collect::<String>()
            });
            assert_eq!(shown, expected.map(str::to_owned), "{text}");
            assert_eq!(is_template(text), text.contains('{') || text.contains('}'));
        }
        let error = template_parts("{x}").expect_err("nobody knows it");
        assert!(
            error.hint().starts_with("known are `{name}` (the name of the target), `{version}`"),
            "{}",
            error.hint()
        );
    }
}
