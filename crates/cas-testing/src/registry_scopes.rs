//! Tokens with rights, as the registry of tests gives and reads them.

use super::Scopes;

/// The repository of a path, and whether a request reads alone.
fn wanted(line: &str) -> (String, bool) {
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default().strip_prefix("/v2/").unwrap_or_default();
    let kinds = ["/blobs/", "/manifests/", "/tags/", "/referrers/"];
    let end = kinds.iter().filter_map(|kind| path.find(kind)).min().unwrap_or(0);
    (path[..end].to_owned(), matches!(method, "GET" | "HEAD"))
}

/// What a token says: the scopes that it was asked for.
pub(super) fn token(target: &str, kind: Scopes) -> String {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let text = |value: &str| value.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
    let mut scopes: Vec<String> = query.split('&').filter_map(|pair| pair.strip_prefix("scope=")).map(text).collect();
    if kind == Scopes::Last {
        scopes.drain(..scopes.len().saturating_sub(1));
    }
    format!("~{}", scopes.join("~"))
}

/// Whether a token is good for a request.
pub(super) fn is_let_in(line: &str, sent: &str) -> bool {
    let (repository, reads) = wanted(line);
    may(sent, &repository, if reads { "pull" } else { "push" })
}

/// Whether a token has a right.
pub(super) fn may(sent: &str, repository: &str, right: &str) -> bool {
    sent.split('~').skip(1).any(|scope| {
        let actions = scope.strip_prefix(&format!("repository:{repository}:"));
        actions.is_some_and(|actions| actions.split(',').any(|action| action == right))
    })
}

/// Where tokens are, and for what.
pub(super) fn challenge(line: &str, own: &str, kind: Scopes) -> String {
    let (repository, reads) = wanted(line);
    let actions = if reads { "pull" } else { "pull,push" };
    let scope = format!(",scope=\"repository:{repository}:{actions}\"");
    let scope = if kind == Scopes::Untold { "" } else { &scope };
    format!("Bearer realm=\"http://{own}/token\",service=\"fake\"{scope}")
}
