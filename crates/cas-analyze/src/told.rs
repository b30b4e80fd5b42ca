//! Secrets that the configuration of an image tells: in variables, labels, command lines and the history.
//!
//! What looks like one is guessed by whoever asks ([`Guesses`]). Names and kinds leave this module, and texts without values; a value
//! never does.

use std::borrow::Cow;

use serde_json::Value;

/// Values that say yes or no, and are no secrets whatever the name.
const SWITCHES: [&str; 8] = ["0", "1", "false", "no", "none", "off", "on", "true"];
/// Ends of names that say where a secret is.
const PLACES: [&str; 5] = ["_FILE", "_PATH", "_DIR", "_SOCK", "_NAME"];
/// What stands in the place of a value.
const STARS: &str = "***";

/// What looks like a secret.
#[derive(Clone, Copy, Debug)]
pub struct Guesses {
    /// Whether the name of a variable says that it holds one.
    pub is_secret_name: fn(&str) -> bool,
    /// What a value is by its form: "an npm token".
    pub token_in: fn(&str) -> Option<&'static str>,
    /// A text with stars in place of what `token_in` would find, but for private keys.
    pub without_tokens: fn(&str) -> Cow<'_, str>,
}

/// Where the configuration tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`name` has the words")]
pub enum Place {
    Variable,
    Label,
    CommandLine,
    History,
}

impl Place {
    /// The name in JSON, which is that of the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Variable => "Env",
            Self::Label => "Labels",
            Self::CommandLine => "command-line",
            Self::History => "history",
        }
    }
}

/// Why it looks like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ToldKind {
    /// By its name.
    Named,
    /// By its form, and what it is then.
    Token(&'static str),
    /// A password in an address.
    Address,
}

impl ToldKind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Named => "name",
            Self::Token(_) => "token",
            Self::Address => "address",
        }
    }

    /// The same for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Named => "its name is one of a secret",
            Self::Token(kind) => kind,
            Self::Address => "an address with a password",
        }
    }
}

/// A secret that the configuration seems to tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ToldSecret {
    /// Where.
    pub place: Place,
    /// The variable or label; of a command line its key, of the history the number of the entry and perhaps a variable.
    pub name: String,
    /// Why it looks like one.
    pub kind: ToldKind,
}

/// All that a configuration seems to tell.
#[must_use]
pub fn told_secrets(document: &Value, guesses: &Guesses) -> Vec<ToldSecret> {
    let mut told = Vec::new();
    let config = &document["config"];
    for variable in config["Env"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        told.extend(named(guesses, name, value).map(|kind| ToldSecret {
            place: Place::Variable,
            name: shown(name, guesses),
            kind,
        }));
    }
    for (name, value) in config["Labels"].as_object().into_iter().flatten() {
        let kind = value.as_str().and_then(|value| named(guesses, name, value));
        told.extend(kind.map(|kind| ToldSecret { place: Place::Label, name: shown(name, guesses), kind }));
    }
    let lists = [
        ("Entrypoint", &config["Entrypoint"]),
        ("Cmd", &config["Cmd"]),
        ("Healthcheck", &config["Healthcheck"]["Test"]),
    ];
    for (key, words) in lists {
        let words = words.as_array().into_iter().flatten().filter_map(Value::as_str);
        let found = words.filter_map(|word| in_text(guesses, word)).next();
        told.extend(found.map(|(name, kind)| ToldSecret {
            place: Place::CommandLine,
            name: [key, &name].join(" ").trim_end().to_owned(),
            kind,
        }));
    }
    for (index, entry) in document["history"].as_array().into_iter().flatten().enumerate() {
        let texts = ["created_by", "comment"].into_iter().filter_map(|key| entry[key].as_str());
        let found = texts.filter_map(|text| in_text(guesses, text)).next();
        told.extend(found.map(|(name, kind)| ToldSecret {
            place: Place::History,
            name: [&index.to_string(), &*name].join(" ").trim_end().to_owned(),
            kind,
        }));
    }
    told
}

/// A text of a configuration without the values of what looks like secrets.
#[must_use]
pub fn masked(text: &str, guesses: &Guesses) -> String {
    if (guesses.token_in)(text) == Some("a private key") {
        return STARS.to_owned();
    }
    let text = (guesses.without_tokens)(text);
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for (start, end) in values(guesses, &text) {
        masked.push_str(&text[done..start]);
        masked.push_str(STARS);
        done = end;
    }
    masked.push_str(&text[done..]);
    masked
}

/// A name, which a token can be written into as well.
fn shown(name: &str, guesses: &Guesses) -> String {
    (guesses.without_tokens)(name).into_owned()
}

/// What a value is under its name.
fn named(guesses: &Guesses, name: &str, value: &str) -> Option<ToldKind> {
    if let Some(token) = (guesses.token_in)(value) {
        return Some(ToldKind::Token(token));
    }
    if holds(guesses, name, value) {
        return Some(ToldKind::Named);
    }
    (!passwords(value).is_empty()).then_some(ToldKind::Address)
}

/// Whether a name says that its value is a secret, and the value could be one.
fn holds(guesses: &Guesses, name: &str, value: &str) -> bool {
    names_one(guesses, name) && !value.is_empty() && !is_elsewhere(value) && !is_switch(value)
}

fn names_one(guesses: &Guesses, name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    (guesses.is_secret_name)(name) && !PLACES.iter().any(|end| upper.ends_with(end))
}

/// Whether a text begins with what is filled in later, or a path.
fn is_elsewhere(text: &str) -> bool {
    text.starts_with(['$', '/'])
}

fn is_switch(value: &str) -> bool {
    SWITCHES.iter().any(|switch| value.eq_ignore_ascii_case(switch))
}

/// What a text holds, and which variable holds it, if one does.
fn in_text(guesses: &Guesses, text: &str) -> Option<(String, ToldKind)> {
    if let Some(token) = (guesses.token_in)(text) {
        return Some((String::new(), ToldKind::Token(token)));
    }
    let (start, _) = *values(guesses, text).first()?;
    let name = text[..start].trim_end_matches(['"', '\'']).strip_suffix(['=']).map(last_name);
    Some(match name {
        Some(name) if !name.is_empty() => (shown(name, guesses), ToldKind::Named),
        _ => (String::new(), ToldKind::Address),
    })
}

/// The name at the end of a text.
fn last_name(text: &str) -> &str {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    &text[text.trim_end_matches(is_part).len()..]
}

/// Where the values of a text are that look like secrets, in order and none over another: behind `NAME=`, and passwords of addresses.
///
/// Takes time in proportion to the text, which is of others.
fn values(guesses: &Guesses, text: &str) -> Vec<(usize, usize)> {
    let mut found = passwords(text);
    let mut end = 0;
    for (at, _) in text.match_indices('=') {
        if at < end {
            continue;
        }
        let quote = text[at + 1..].chars().next().filter(|letter| matches!(letter, '"' | '\''));
        let start = at + 1 + quote.map_or(0, char::len_utf8);
        let name = last_name(&text[..at]);
        // What is looked at to its end is passed over then.
        if !names_one(guesses, name) || is_elsewhere(&text[start..]) {
            continue;
        }
        let is_end = |letter: char| match quote {
            Some(quote) => letter == quote,
            None => letter.is_whitespace() || matches!(letter, '"' | '\'' | ';' | '&' | '|' | ')'),
        };
        let length = text[start..].find(is_end).unwrap_or(text.len() - start);
        let value = &text[start..start + length];
        end = start + length;
        if !value.is_empty() && value != STARS && !is_switch(value) {
            found.push((start, end));
        }
    }
    found.sort_unstable();
    let mut last = 0;
    found.retain(|(start, end)| {
        let is_apart = *start >= last;
        last = if is_apart { *end } else { last };
        is_apart
    });
    found
}

/// Where the passwords of addresses are: `scheme://user:password@host`.
fn passwords(text: &str) -> Vec<(usize, usize)> {
    let password = |(at, _): (usize, &str)| {
        let start = at + "://".len();
        let is_end = |letter: char| letter.is_whitespace() || matches!(letter, '/' | '"' | '\'');
        let authority = &text[start..start + text[start..].find(is_end).unwrap_or(text.len() - start)];
        let (login, _) = authority.rsplit_once('@')?;
        let (user, password) = login.split_once(':')?;
        let is_told = !password.is_empty() && !password.starts_with('$') && password != STARS;
        is_told.then_some((start + user.len() + 1, start + login.len()))
    };
    text.match_indices("://").filter_map(password).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GUESSES: Guesses = Guesses {
        is_secret_name: |name| name.to_ascii_uppercase().contains("TOKEN") || name.contains("PASSWORD"),
        token_in: |text| match text {
            _ if text.contains("BEGIN KEY") => Some("a private key"),
            _ => text.contains("tok_1234").then_some("a token"),
        },
        without_tokens: |text| text.replace("tok_1234", "tok_****").into(),
    };

    #[test]
    fn what_the_configuration_tells_is_found() {
        for (config, history, expected) in [
            (json!({ "Env": ["PATH=/bin", "NPM_TOKEN=x"] }), json!([]), "Env NPM_TOKEN name"),
            (json!({ "Env": ["A=tok_1234", "PASSWORD="] }), json!([]), "Env A token"),
            // Where a secret is, whether there is one, and what is filled in later.
            (
                json!({ "Env": ["PASSWORD_FILE=x", "TOKEN=/run/secrets/x", "TOKENS=true", "TOKEN=$T", "TOKEN"] }),
                json!([]),
                "",
            ),
            (json!({ "Env": ["URL=https://u:p@h/x", "OTHER=https://u@h:80/x"] }), json!([]), "Env URL address"),
            (
                json!({ "Labels": { "a.token": "x", "b": "tok_1234", "c": "d" } }),
                json!([]),
                "Labels a.token name, Labels b token",
            ),
            (json!({ "Cmd": ["x", "--token=abc"] }), json!([]), "command-line Cmd --token name"),
            (
                json!({ "Healthcheck": { "Test": ["CMD", "curl http://a:b@c"] } }),
                json!([]),
                "command-line Healthcheck address",
            ),
            (
                json!({}),
                json!([{ "created_by": "ADD x" }, { "created_by": "|1 NPM_TOKEN=abc /bin/sh -c npm ci" }, { "comment": "tok_1234" }]),
                "history 1 NPM_TOKEN name, history 2 token",
            ),
            (json!({}), json!([{ "created_by": "RUN TOKEN=$(cat x) PASSWORD=\"${P}\" b=c" }]), ""),
            (json!({ "Env": 1, "Labels": [], "Cmd": "x" }), json!({}), ""),
        ] {
            let told = told_secrets(&json!({ "config": config, "history": history }), &GUESSES);
            let told: Vec<String> = told
                .iter()
                .map(|secret| format!("{} {} {}", secret.place.name(), secret.name, secret.kind.name()))
                .collect();
            assert_eq!(told.join(", "), expected, "{config} {history}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        for (text, expected) in [
            ("ADD file:abc in /", "ADD file:abc in /"),
            ("|2 NPM_TOKEN=abc A=b /bin/sh", "|2 NPM_TOKEN=*** A=b /bin/sh"),
            ("ENV TOKEN='a b' PASSWORD=\"c\" D=e", "ENV TOKEN='***' PASSWORD=\"***\" D=e"),
            ("curl https://me:pa:ss@host/x https://u:${P}@h", "curl https://me:***@host/x https://u:${P}@h"),
            ("git clone https://u:p@h && TOKEN=x; y", "git clone https://u:***@h && TOKEN=***; y"),
            ("TOKEN=0 TOKEN=01 TOKEN=/x TOKEN=ü", "TOKEN=0 TOKEN=*** TOKEN=/x TOKEN=***"),
            ("TOKEN=a=b TOKEN=\"u\" TOKEN=http://u:p@h", "TOKEN=*** TOKEN=\"***\" TOKEN=***"),
            ("echo tok_1234", "echo tok_****"),
            ("echo BEGIN KEY abc", "***"),
            ("TOKEN=***", "TOKEN=***"),
        ] {
            assert_eq!(masked(text, &GUESSES), expected);
        }
    }
}
