//! `cas login` and `cas logout`.
//!
//! A password comes from a pipe or from a terminal that does not show it; never from the command line, which others can read. Nothing
//! that is printed holds it.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;

use cas_oci::Reference;
use cas_registry::{Login, drop_login, keep_login};
use cas_sandbox::Cancel;
use cas_sync::SyncError;
use serde_json::json;

use crate::args::Global;
use crate::args_remote::{LoginArgs, LogoutArgs};
use crate::commands::{cancel_on_signals, in_here, logins, print, text};
use crate::exit::Exit;
use crate::prompt::{Echo, MAX_BYTES, ask, line, unreadable};
use crate::render::{self, Failure};

pub(crate) fn login(global: &Global, args: &LoginArgs) -> Result<Exit, Failure> {
    let host = host(&args.host)?;
    let files = files(global, args.authfile.as_ref());
    let signals = cancel_on_signals()?;
    if args.password_stdin && args.user.is_none() {
        let hint = "name the account: `--user USER`";
        return Err(Failure::Usable("`--password-stdin` takes the password alone".to_owned(), hint.to_owned()));
    }
    if !args.password_stdin && !std::io::stdin().is_terminal() {
        let hint = "`--password-stdin` takes it from a pipe";
        return Err(Failure::Usable("there is no terminal to ask for the password at".to_owned(), hint.to_owned()));
    }
    let user = match &args.user {
        Some(user) => user.clone(),
        None => asked(&format!("User of {host}: "), Echo::On, &signals.0)?,
    };
    // The first colon ends the name wherever both are written together (RFC 7617, 2).
    if user.is_empty() || user.contains(|character: char| character == ':' || character.is_control()) {
        return Err(Failure::Usable(
            "that is no name of a user".to_owned(),
            "it is not empty, and has no colon".to_owned(),
        ));
    }
    let password = match args.password_stdin {
        true => piped()?,
        false => asked(&format!("Password of {user} for {host}: "), Echo::Off, &signals.0)?,
    };
    if password.is_empty() {
        return Err(Failure::Usable("the password is empty".to_owned(), "nothing was changed".to_owned()));
    }
    let client = signals.client(Vec::new(), BTreeMap::new());
    let login = Login::Password { user: user.clone(), password: password.clone() };
    let is_checked = match cas_sync::try_login(&client, &host, &login) {
        Ok(is_checked) => is_checked,
        // A push has other advice.
        Err(SyncError::Registry(error)) => return Err(error.into()),
        Err(other) => return Err(Failure::Sync(other)),
    };
    let keeper = keep_login(&files, &host, &user, &password)?;
    let rows = [json!({ "host": host, "user": user, "kept": keeper.to_string(), "checked": is_checked })];
    print(global, &rows, |row| {
        format!("{} is logged in to {}: {}", text(&row["user"]), text(&row["host"]), text(&row["kept"]))
    })?;
    if !is_checked {
        render::note(&format!("`{host}` asks nobody who they are, so nothing says whether the password is right"));
    }
    Ok(Exit::Done)
}

pub(crate) fn logout(global: &Global, args: &LogoutArgs) -> Result<Exit, Failure> {
    let host = host(&args.host)?;
    let dropped = drop_login(&files(global, args.authfile.as_ref()), &host)?;
    if dropped.is_empty() {
        let hint = "logins for parts of a host, as `HOST/TEAM`, stay; the files are those that docker and podman use";
        return Err(Failure::Usable(format!("nobody is logged in to `{host}`"), hint.to_owned()));
    }
    let rows: Vec<_> = dropped.iter().map(|keeper| json!({ "host": host, "dropped": keeper.to_string() })).collect();
    print(global, &rows, |row| format!("{} is gone from {}", text(&row["host"]), text(&row["dropped"])))?;
    Ok(Exit::Done)
}

/// A host, with a port or not, and nothing behind it.
fn host(text: &str) -> Result<String, Failure> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let parsed = format!("{name}/x:x").parse::<Reference>().ok().filter(|_| !name.contains('/'));
    parsed.map(|parsed| parsed.repository.host).ok_or_else(|| {
        let hint = "write it as names of images have it: `ghcr.io`, `docker.io`, `localhost:5000`";
        // What stands before an `@` may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        Failure::Usable(format!("`{shown}` is no host of a registry"), hint.to_owned())
    })
}

fn files(global: &Global, named: Option<&PathBuf>) -> Vec<PathBuf> {
    named.map_or_else(logins, |path| vec![in_here(global, path)])
}

/// What somebody answers at the terminal.
fn asked(question: &str, echo: Echo, cancel: &Cancel) -> Result<String, Failure> {
    text_of(ask(std::io::stdin().as_fd(), question, echo, cancel)?)
}

fn text_of(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| unreadable("it is no text"))
}

/// What a pipe gives, without the end of its last line.
fn piped() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    text_of(line(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_names() {
        for (text, expected) in [
            ("ghcr.io", Some("ghcr.io")),
            ("docker.io", Some("docker.io")),
            ("index.docker.io", Some("docker.io")),
            ("localhost:5000", Some("localhost:5000")),
            ("docker://ghcr.io", Some("ghcr.io")),
            ("ghcr.io/team", None),
            ("https://ghcr.io", None),
            ("ghcr", None),
            ("", None),
            ("me:s3cret@ghcr.io", None),
        ] {
            let found = host(text);
            assert!(!format!("{found:?}").contains("s3cret"), "{found:?}");
            assert_eq!(found.ok().as_deref(), expected, "{text}");
        }
    }
}
