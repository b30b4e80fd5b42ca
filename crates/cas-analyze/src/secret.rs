//! What looks like a secret. Nothing of a content leaves this module but which kind it is.

use cas_tree::RelPath;
use serde_json::Value;

/// Longest file that is looked at for a private key.
const MAX_KEY_BYTES: u64 = 64 << 10;
/// Ends of names of files that are examples.
const EXAMPLES: [&str; 5] = ["example", "sample", "template", "dist", "defaults"];

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`describe` has the words")]
pub enum SecretKind {
    PrivateKey,
    Environment,
    NpmToken,
    Netrc,
    AwsCredentials,
    DockerLogin,
    Kubeconfig,
}

impl SecretKind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "private-key",
            Self::Environment => "environment",
            Self::NpmToken => "npm-token",
            Self::Netrc => "netrc",
            Self::AwsCredentials => "aws-credentials",
            Self::DockerLogin => "docker-login",
            Self::Kubeconfig => "kubeconfig",
        }
    }

    /// The same for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::PrivateKey => "a private key",
            Self::Environment => "variables of an environment",
            Self::NpmToken => "a token of an npm registry",
            Self::Netrc => "passwords of hosts",
            Self::AwsCredentials => "credentials of AWS",
            Self::DockerLogin => "logins of registries",
            Self::Kubeconfig => "credentials of a cluster",
        }
    }
}

/// What kind of secret a file looks like, by its path, its length and the beginning of its content.
pub(crate) fn judge(path: &RelPath, size: u64, content: &[u8]) -> Option<SecretKind> {
    let head = &content[..content.len().min(crate::rules::HEAD_BYTES)];
    let head = String::from_utf8_lossy(head);
    let path = path.to_string();
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let is_in = |wanted: &str| folder == wanted || folder.ends_with(&format!("/{wanted}"));
    if size <= MAX_KEY_BYTES && head.lines().any(is_key_line) {
        return Some(SecretKind::PrivateKey);
    }
    let is_environment = name == ".env" || name.strip_prefix(".env.").is_some_and(|end| !EXAMPLES.contains(&end));
    match name {
        _ if is_environment => head.lines().any(sets_variable).then_some(SecretKind::Environment),
        ".npmrc" => head.lines().any(is_npm_token).then_some(SecretKind::NpmToken),
        ".netrc" | "_netrc" => head.split_whitespace().any(|word| word == "password").then_some(SecretKind::Netrc),
        "credentials" if is_in(".aws") => {
            let has =
                head.lines().any(|line| value_of(line, '=').is_some_and(|(key, _)| key == "aws_secret_access_key"));
            has.then_some(SecretKind::AwsCredentials)
        }
        "config.json" if is_in(".docker") => has_login(&head).then_some(SecretKind::DockerLogin),
        ".dockercfg" => has_login(&head).then_some(SecretKind::DockerLogin),
        "config" if is_in(".kube") => {
            let keys = ["client-key-data", "token", "password"];
            let has = |line: &str| {
                value_of(line.trim_start().trim_start_matches("- "), ':').is_some_and(|(key, _)| keys.contains(&key))
            };
            head.lines().any(has).then_some(SecretKind::Kubeconfig)
        }
        _ => None,
    }
}

/// RFC 7468, and the older forms of programs.
fn is_key_line(line: &str) -> bool {
    let label = line.trim_end().strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
    label.is_some_and(|label| {
        let label = label.strip_suffix(" BLOCK").unwrap_or(label);
        label.ends_with("PRIVATE KEY")
            && label.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ')
    })
}

/// Key and value of a line where neither is empty.
fn value_of(line: &str, separator: char) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(separator)?;
    let (key, value) = (key.trim(), value.trim().trim_matches(['"', '\'']));
    (!key.is_empty() && !key.starts_with('#') && !value.is_empty()).then_some((key, value))
}

fn sets_variable(line: &str) -> bool {
    let line = line.trim_start();
    value_of(line.strip_prefix("export ").unwrap_or(line), '=')
        .is_some_and(|(key, _)| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn is_npm_token(line: &str) -> bool {
    let line = line.trim_start();
    !line.starts_with(';')
        && value_of(line, '=').is_some_and(|(key, value)| {
            let key = key.rsplit(':').next().unwrap_or(key);
            matches!(key, "_authToken" | "_auth" | "_password") && !value.starts_with("${")
        })
}

/// Whether a docker configuration has a login of its own, and does not ask a helper.
fn has_login(text: &str) -> bool {
    let holds = |login: &Value| {
        ["auth", "identitytoken", "registrytoken", "password"]
            .iter()
            .any(|key| login[*key].as_str().is_some_and(|value| !value.is_empty()))
    };
    match serde_json::from_str::<Value>(text) {
        Ok(document) => {
            let logins = document.get("auths").unwrap_or(&document);
            logins.as_object().is_some_and(|logins| logins.values().any(holds))
        }
        // It is cut, or no JSON: the key is looked for.
        Err(_) => text.contains("\"auth\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_what_is_in_them() {
        use SecretKind::*;
        for (path, content, expected) in [
            ("x/id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", Some(PrivateKey)),
            ("x/any.txt", "Bag Attributes\n-----BEGIN RSA PRIVATE KEY-----\r\nx\n", Some(PrivateKey)),
            ("x/key.asc", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", Some(PrivateKey)),
            ("x/key.pub", "-----BEGIN PUBLIC KEY-----\n", None),
            ("x/lib.js", "const a = '-----BEGIN PRIVATE KEY-----';\n", None),
            ("app/.env", "# x\nexport TOKEN=1\n", Some(Environment)),
            ("app/.env.production", "TOKEN=1", Some(Environment)),
            ("app/.env.example", "TOKEN=1", None),
            ("app/.env", "# TOKEN=1\nX=\n", None),
            ("root/.npmrc", "//r.io/:_authToken=abc", Some(NpmToken)),
            ("root/.npmrc", "//r.io/:_authToken=${TOKEN}\nregistry=https://r.io\n", None),
            (".netrc", "machine x login y password z", Some(Netrc)),
            (".netrc", "machine x login y", None),
            ("root/.aws/credentials", "[default]\naws_secret_access_key = x\n", Some(AwsCredentials)),
            ("srv/credentials", "aws_secret_access_key = x\n", None),
            ("root/.docker/config.json", r#"{"auths":{"r.io":{"auth":"eA=="}}}"#, Some(DockerLogin)),
            ("root/.docker/config.json", r#"{"auths":{"r.io":{}},"credsStore":"pass"}"#, None),
            ("root/.kube/config", "users:\n- name: a\n  user:\n    token: x\n", Some(Kubeconfig)),
            ("root/.kube/config", "users: []\n", None),
        ] {
            let path = RelPath::new(path).expect("it is a path");
            assert_eq!(judge(&path, content.len() as u64, content.as_bytes()), expected, "{path}: {content}");
        }
        let long = RelPath::new("x").expect("it is a path");
        assert_eq!(judge(&long, MAX_KEY_BYTES + 1, b"-----BEGIN PRIVATE KEY-----\n"), None);
    }
}
