//! What a server wants to know (RFC 9110, 11.6.1; distribution-spec's token authentication).

/// One way of proving who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password.
    Basic,
    /// A token from another address.
    Bearer {
        realm: String,
        service: Option<String>,
        /// Rights that the request needs, as the server says.
        scope: Option<String>,
    },
}

/// The challenges of a `WWW-Authenticate` header that are known here, in its order.
pub(crate) fn challenges(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
        let scheme = &rest[..end];
        let (parameters, after) = parameters(rest[end..].trim_start_matches([' ', '\t']));
        let value = |name: &str| {
            parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = value("realm")
        {
            found.push(Challenge::Bearer { realm, service: value("service"), scope: value("scope") });
        }
        // What makes no sense ends it.
        if after.len() == rest.len() {
            break;
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    found
}

/// `name=value` with commas between, up to something that is none; and what follows.
fn parameters(mut rest: &str) -> (Vec<(&str, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let end = start.bytes().position(|byte| !is_name(byte)).unwrap_or(start.len());
        let Some(value) = start[end..].trim_start_matches([' ', '\t']).strip_prefix('=').filter(|_| end > 0) else {
            return (found, rest);
        };
        let value = value.trim_start_matches([' ', '\t']);
        let Some((text, after)) = quoted(value) else { return (found, rest) };
        found.push((&start[..end], text));
        rest = after;
    }
}

/// A quoted text, or all up to the next comma or space.
fn quoted(text: &str) -> Option<(String, &str)> {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.to_owned(), service: owned(service), scope: owned(scope) }
    }

    #[test]
    fn headers_of_registries_are_read() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/node:pull""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:library/node:pull"),
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            (
                r#"basic realm=x, BEARER Realm = "a, \"b\"" , service=c"#,
                vec![Challenge::Basic, bearer("a, \"b\"", Some("c"), None)],
            ),
            (r#"Negotiate, Bearer realm="r",scope="a b,c""#, vec![bearer("r", None, Some("a b,c"))]),
            (r#"Bearer service="x""#, vec![]),
            (r#"Bearer realm="unfinished"#, vec![]),
            ("=,=,", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(challenges(header), expected, "{header}");
        }
    }
}
