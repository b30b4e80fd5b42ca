//! What the command line says of a run of an image, and variables for every run.
//!
//! Not here: what becomes of it (`cas-build`).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use cas_build::{RunChanges, article};
use cas_config::Label;
use cas_sandbox::{Ending, Health, MAX_PORTS, Network, Port, Volume};

use crate::args::{RunImageArgs, RunNetwork};
use crate::commands;
use crate::render::{self, Failure};

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
        ("--volume", !args.volume.is_empty()),
        ("--network", args.network != RunNetwork::default()),
        ("--publish", !args.publish.is_empty()),
        ("--stop-timeout", args.stop_timeout.is_some()),
        ("--no-healthcheck", args.no_healthcheck),
        ("--health-exit", args.health_exit),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((option, _)) => {
            let article = article(kind);
            Err(Failure::Usage(format!("`{option}` is for images, and `{label}` is {article} {kind}")))
        }
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
        volumes: volumes(&args.volume)?,
        network: match args.network {
            RunNetwork::None => Network::None,
            RunNetwork::Host => Network::Host,
        },
        has_no_check: args.no_healthcheck,
    })
}

/// Says what a check found: one line, and below it what an unhealthy program's check printed.
pub(crate) fn tell_health(health: &Health) {
    render::note(&health_text(health));
}

fn health_text(health: &Health) -> String {
    if health.is_healthy {
        return "health: healthy".to_owned();
    }
    let why = match health.ending {
        Ending::Exited(code @ 0..) => format!("ended with code {code}"),
        Ending::Signalled(signal) => format!("was ended by signal {signal}"),
        Ending::TimedOut => "took too long".to_owned(),
        _ => "could not run".to_owned(),
    };
    let output = String::from_utf8_lossy(&health.output);
    let lines = output.trim_end().lines().map(|line| format!("\n  {line}"));
    format!("health: unhealthy, the check {why}{}", lines.collect::<String>())
}

/// Takes the ports of this machine, and says which free ones were taken.
pub(crate) fn ports(args: &RunImageArgs) -> Result<Vec<Port>, Failure> {
    let refused = |message: String, hint: &str| Err(Failure::Usable(message, hint.to_owned()));
    if args.network == RunNetwork::Host && !args.publish.is_empty() {
        let message = "with `--network host` the program listens at the ports of this machine itself".to_owned();
        return refused(message, "leave out `--publish`");
    }
    if args.publish.len() > MAX_PORTS {
        return refused(format!("{} ports are to be published", args.publish.len()), "name at most 64");
    }
    let mut ports = Vec::new();
    for text in &args.publish {
        let (host, inside) = match port(text) {
            Ok(found) => found,
            Err(PortError::Syntax) => {
                return refused(
                    format!("`{text}` is no port that can be published"),
                    "write `HOSTPORT:PORT`, or `PORT` for a free port of this machine",
                );
            }
            Err(PortError::Address) => {
                let message = format!("`{text}` is of an address that other machines reach");
                return refused(message, "`--publish` listens at 127.0.0.1 alone: leave out the address");
            }
        };
        let port = Port::bind(host, inside).map_err(|error| {
            let message = format!("port {host} of this machine cannot be listened at: {error}");
            Failure::Usable(message, format!("choose another one, or `--publish {inside}` for a free one"))
        })?;
        if host == 0 {
            let taken = port.address().map_err(Failure::Output)?;
            render::note(&format!("port {inside} is at {taken}"));
        }
        ports.push(port);
    }
    Ok(ports)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortError {
    Syntax,
    Address,
}

/// Port of this machine, 0 for a free one, and port of the program.
fn port(text: &str) -> Result<(u16, u16), PortError> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number).ok_or(PortError::Syntax)
    };
    let text = text.strip_suffix("/tcp").unwrap_or(text);
    let (host, inside) = text.rsplit_once(':').unwrap_or(("", text));
    let inside = number(inside)?;
    let host = match host.rsplit_once(':') {
        None if host.is_empty() => 0,
        None => number(host)?,
        Some(("127.0.0.1" | "localhost", "")) => 0,
        Some(("127.0.0.1" | "localhost", host)) => number(host)?,
        Some((_, host)) => return Err(number(host).map_or(PortError::Syntax, |_| PortError::Address)),
    };
    if inside == 0 { Err(PortError::Syntax) } else { Ok((host, inside)) }
}

/// Parts of this machine by `HOST:PATH[:ro]`, or `:rw` as without.
fn volumes(texts: &[PathBuf]) -> Result<Vec<Volume>, Failure> {
    let mut volumes: Vec<Volume> = Vec::new();
    for text in texts {
        let fail = |why: &str, hint: &str| {
            Failure::Usable(format!("`{}` is no volume: {why}", text.display()), hint.to_owned())
        };
        let (host, inside, is_read_only) = match parts(text.as_os_str().as_bytes()) {
            Ok(found) => found,
            Err(Some(option)) => {
                return Err(fail(&format!("`{option}` is not known"), "behind the path can be `:ro` or `:rw`"));
            }
            Err(None) => {
                return Err(fail(
                    "it is not `HOST:PATH`, `HOST:PATH:ro` or `HOST:PATH:rw`",
                    "paths of volumes have no colon",
                ));
            }
        };
        let clean = |inside: &Path| inside.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
        let inside_root = match inside.strip_prefix("/") {
            Ok(rest) if clean(&inside) && rest != Path::new("") => rest.to_owned(),
            _ => return Err(fail("its place in the image is no clean path below `/`", "write it as `/srv/data`")),
        };
        if !Volume::can_be_at(&inside_root) {
            return Err(fail("the sandbox has its own `/dev` and `/proc`, and no `/sys`", "choose another path"));
        }
        if volumes.iter().any(|other| other.inside == inside_root) {
            return Err(fail("another one has the same place", "give each its own path in the image"));
        }
        let missing = |error: cas_fs::FsError| {
            fail(&format!("`{}`: {}", host.display(), error.source), "make the folder or file first")
        };
        let host = cas_fs::canonicalize(&host).map_err(missing)?;
        let is_folder = cas_fs::metadata(&host).map_err(missing)?.is_dir();
        volumes.push(Volume { host, inside: inside_root, is_folder, is_read_only });
    }
    Ok(volumes)
}

/// Path on this machine, path in the image, and whether `:ro` follows; or the option that is not known, if it is one.
fn parts(text: &[u8]) -> Result<(PathBuf, PathBuf, bool), Option<String>> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b':').collect();
    match *parts {
        [host, inside] if !host.is_empty() => Ok((path(host), path(inside), false)),
        [host, inside, b"rw"] if !host.is_empty() => Ok((path(host), path(inside), false)),
        [host, inside, b"ro"] if !host.is_empty() => Ok((path(host), path(inside), true)),
        // What looks like a path is more likely one with a colon.
        [host, _, option] if !host.is_empty() && !option.contains(&b'/') => {
            Err(Some(String::from_utf8_lossy(option).into_owned()))
        }
        _ => Err(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_unhealthy_program_s_check_printed_is_told() {
        let health = |is_healthy, ending, output: &[u8]| Health { is_healthy, ending, output: output.to_vec() };
        for (health, expected) in [
            (health(true, Ending::Exited(0), b"fine\n"), "health: healthy"),
            (health(false, Ending::Exited(1), b""), "health: unhealthy, the check ended with code 1"),
            (
                health(false, Ending::Exited(7), b"a\nb\xff\n\n"),
                "health: unhealthy, the check ended with code 7\n  a\n  b\u{fffd}",
            ),
            (health(false, Ending::Signalled(9), b""), "health: unhealthy, the check was ended by signal 9"),
            (health(false, Ending::TimedOut, b"x"), "health: unhealthy, the check took too long\n  x"),
            (health(false, Ending::Exited(-1), b"why"), "health: unhealthy, the check could not run\n  why"),
        ] {
            assert_eq!(health_text(&health), expected);
        }
    }

    #[test]
    fn ports_are_of_the_loopback() {
        use PortError::*;
        for (text, expected) in [
            ("80", Ok((0, 80))),
            ("80/tcp", Ok((0, 80))),
            ("8080:80", Ok((8080, 80))),
            ("8080:80/tcp", Ok((8080, 80))),
            ("0:80", Ok((0, 80))),
            ("127.0.0.1:8080:80", Ok((8080, 80))),
            ("127.0.0.1::80", Ok((0, 80))),
            ("0.0.0.0:8080:80", Err(Address)),
            ("[::]:8080:80", Err(Address)),
            ("80/udp", Err(Syntax)),
            ("8080:0", Err(Syntax)),
            ("65536", Err(Syntax)),
            ("+80", Err(Syntax)),
            ("8080:", Err(Syntax)),
            (":80", Ok((0, 80))),
            ("", Err(Syntax)),
            ("a:b:c", Err(Syntax)),
        ] {
            assert_eq!(port(text), expected, "{text}");
        }
    }

    #[test]
    fn volumes_have_two_options() {
        let volume = |is_read_only| Ok((PathBuf::from("a"), PathBuf::from("/b"), is_read_only));
        for (text, expected) in [
            ("a:/b", volume(false)),
            ("a:/b:rw", volume(false)),
            ("a:/b:ro", volume(true)),
            ("a:/b:z", Err(Some("z".to_owned()))),
            ("a:/b:ro,z", Err(Some("ro,z".to_owned()))),
            ("a:/b:/c", Err(None)),
            ("a:/b:ro:rw", Err(None)),
            (":/b", Err(None)),
            ("a", Err(None)),
        ] {
            assert_eq!(parts(text.as_bytes()), expected, "{text}");
        }
    }

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
