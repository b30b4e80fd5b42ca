//! Gates of a publication: programs of this machine that must pass before anything is sent. Rules: docs/formats/publish.md.
//!
//! Not here: which gates there are (`cas-config`), what is sent (`cas-sync`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cas_build::{BuildError, MIN_SECRET_BYTES, redacted};
use cas_config::PublishGate;
use cas_sandbox::Cancel;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::attend::{Ended, LOOK, attend};
use crate::commands::variable;
use crate::render::{self, Failure};

/// Variables that every gate gets: where programs and their data are, and how the network is reached.
const VARIABLES: [&str; 14] = [
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "NO_PROXY",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// How much of what a gate prints is shown: its end.
const MAX_SHOWN_BYTES: usize = 64 << 10;
/// How long what a gate left behind may keep its output open.
const REST_GRACE: Duration = Duration::from_secs(2);

/// What a gate looks at.
#[derive(Debug)]
pub(crate) struct Looked<'a> {
    /// The label.
    pub(crate) target: &'a str,
    /// The digest of its document.
    pub(crate) digest: &'a str,
    /// A folder with its OCI layout.
    pub(crate) layout: &'a Path,
}

/// The values of a gate's secrets; nothing is run.
pub(crate) fn secrets(name: &str, gate: &PublishGate) -> Result<Vec<Vec<u8>>, Failure> {
    let value = |variable_name: &str| {
        let value = variable(variable_name).map(OsString::into_encoded_bytes);
        value.filter(|value| value.len() >= MIN_SECRET_BYTES).ok_or_else(|| {
            let message = format!("the gate `{name}` needs the secret `{variable_name}`");
            Failure::Usable(message, format!("set that variable: at least {MIN_SECRET_BYTES} bytes"))
        })
    };
    gate.secrets.iter().map(|one| value(one)).collect()
}

/// Runs a gate; what it prints is shown without `hidden` when it does not pass.
pub(crate) fn run(
    name: &str,
    gate: &PublishGate,
    looked: &Looked<'_>,
    folder: &Path,
    hidden: &[Vec<u8>],
    cancel: &Cancel,
) -> Result<(), Failure> {
    let refused = |said: String| {
        let message = format!("the gate `{name}` does not let `{}` pass: {said}", looked.target);
        Failure::Refused(message, "nothing was sent".to_owned())
    };
    let words: Vec<String> = gate.run.iter().map(|word| expanded(word, looked)).collect();
    let (program, arguments) = words.split_first().expect("a gate has a program");
    // The program goes by the package's folder, as its own paths do.
    let place = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    let names = VARIABLES.into_iter().chain(gate.env_in.iter().chain(&gate.secrets).map(|name| &**name));
    let variables: BTreeMap<&str, OsString> = names.filter_map(|name| Some((name, variable(name)?))).collect();
    let mut command = Command::new(&place);
    command.args(arguments).current_dir(folder).env_clear().envs(&variables).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| refused(format!("`{program}` cannot be run: {error}")))?;
    let said = Arc::new(Mutex::new(Vec::new()));
    let readers = [pipe(child.stdout.take(), &said), pipe(child.stderr.take(), &said)];
    let end = |child: &mut Child| {
        // It may have ended this moment.
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    };
    let ended = attend(&mut child, gate.timeout, cancel, end);
    // What it left behind ends with it.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let start = Instant::now();
    while readers.iter().any(|reader| !reader.is_finished()) && start.elapsed() < REST_GRACE {
        std::thread::sleep(LOOK);
    }
    let said = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
    let why = match ended.map_err(|error| refused(error.to_string()))? {
        Ended::With(status) if status.success() => return Ok(()),
        Ended::With(status) => status.to_string(),
        Ended::Late => format!("it did not end in {} seconds", gate.timeout.as_secs()),
        Ended::Interrupted => return Err(BuildError::Interrupted.into()),
    };
    let shown = redacted(&said, hidden);
    render::note(String::from_utf8_lossy(&shown).trim_end());
    Err(refused(why))
}

fn expanded(word: &str, looked: &Looked<'_>) -> String {
    let layout = looked.layout.display().to_string();
    let words = [("{layout}", layout.as_str()), ("{digest}", looked.digest), ("{target}", looked.target)];
    let mut rest = word;
    let mut out = String::new();
    'next: while let Some(first) = rest.chars().next() {
        for (name, value) in words {
            if let Some(after) = rest.strip_prefix(name) {
                out.push_str(value);
                rest = after;
                continue 'next;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// Reads a stream to its end, and keeps the end of it.
fn pipe(stream: Option<impl Read + Send + 'static>, said: &Arc<Mutex<Vec<u8>>>) -> std::thread::JoinHandle<()> {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let Some(mut stream) = stream else { return };
        let mut piece = [0; 8 << 10];
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.extend_from_slice(&piece[..count]);
            if said.len() > 2 * MAX_SHOWN_BYTES {
                let before = said.len() - MAX_SHOWN_BYTES;
                said.drain(..before);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_gate_are_replaced_once() {
        let looked = Looked { target: "//:{digest}", digest: "sha256:00", layout: Path::new("/l") };
        for (word, expected) in [
            ("{layout}", "/l"),
            ("oci:{layout}@{digest}", "oci:/l@sha256:00"),
            ("{target}", "//:{digest}"),
            ("{other}{", "{other}{"),
        ] {
            assert_eq!(expanded(word, &looked), expected);
        }
    }
}
