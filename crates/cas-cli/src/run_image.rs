//! What the command line says of a run of an image, and variables for every run.
//!
//! Not here: what becomes of it (`cas-build`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cas_build::RunChanges;
use cas_config::Label;

use crate::args::RunImageArgs;
use crate::commands;
use crate::render::Failure;

/// Longest file of variables that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The variables of files and of the command line, the later ones over the earlier ones.
pub(crate) fn variables(files: &[PathBuf], texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let own = commands::variables();
    let mut env = BTreeMap::new();
    for file in files {
        let text = read(file)?;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') && !set(&mut env, &own, line) {
                let message = format!("line {} of `{}` is not `NAME=VALUE` or `NAME`", index + 1, file.display());
                return Err(Failure::Usage(message));
            }
        }
    }
    for text in texts {
        if !set(&mut env, &own, text) {
            return Err(Failure::Usage(format!("`{text}` is not `NAME=VALUE` or `NAME`")));
        }
    }
    Ok(env)
}

/// Sets what a text says; whether it says something. A name that has no value here is left out.
fn set(env: &mut BTreeMap<String, String>, own: &BTreeMap<String, String>, text: &str) -> bool {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, own.get(text).map(String::as_str)),
    };
    if let Some(value) = value {
        env.insert(name.to_owned(), value.to_owned());
    }
    !name.is_empty() && !name.contains(char::is_whitespace)
}

fn read(file: &Path) -> Result<String, Failure> {
    let fail = |why: String| {
        let hint = "name a file of at most 1 MiB with a `NAME=VALUE` a line".to_owned();
        Failure::Usable(format!("could not read the variables of `{}`: {why}", file.display()), hint)
    };
    let bytes = cas_fs::read_stream_limited(file, MAX_FILE_BYTES).map_err(|error| fail(error.source.to_string()))?;
    String::from_utf8(bytes).map_err(|_| fail("it is not UTF-8".to_owned()))
}

/// Refuses what only a run of an image can have.
pub(crate) fn refuse(args: &RunImageArgs, label: &Label, kind: &str) -> Result<(), Failure> {
    let given = [
        ("--entrypoint", args.entrypoint.is_some()),
        ("--user", args.user.is_some()),
        ("--workdir", args.workdir.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => Err(Failure::Usage(format!("`{option}` is for images, and `{label}` is a {kind}"))),
    }
}

/// What is said in the place of the image's configuration, and beside it.
pub(crate) fn changes(args: &RunImageArgs) -> Result<RunChanges, Failure> {
    if let Some(path) = args.workdir.as_ref().filter(|path| !path.is_absolute()) {
        return Err(Failure::Usage(format!("`--workdir` is `{}`, which does not begin with `/`", path.display())));
    }
    Ok(RunChanges {
        entrypoint: args.entrypoint.clone(),
        user: args.user.clone(),
        working_directory: args.workdir.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alone_have_the_value_of_the_caller() {
        let own = BTreeMap::from([("HERE".to_owned(), "v".to_owned())]);
        for (text, is_one, expected) in [
            ("A=b", true, Some(("A", "b"))),
            ("A==b c ", true, Some(("A", "=b c "))),
            ("A=", true, Some(("A", ""))),
            ("HERE", true, Some(("HERE", "v"))),
            ("ABSENT", true, None),
            ("=b", false, Some(("", "b"))),
            ("", false, None),
            ("export A=b", false, Some(("export A", "b"))),
        ] {
            let mut env = BTreeMap::new();
            assert_eq!(set(&mut env, &own, text), is_one, "{text}");
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(env.into_iter().next(), expected, "{text}");
        }
    }
}
