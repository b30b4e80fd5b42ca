//! Who signs: a private key, or a program that somebody named. Protocol: docs/formats/signing.md.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cas_attest::{PrivateKey, PublicKey, Signer, SignerError};
use cas_digest::{Digest, DigestFunction};
use cas_sandbox::Cancel;
use clap::Args;

use crate::args::Global;
use crate::attend::{Ended, LOOK, attend};
use crate::commands::variables;
use crate::key::{PASSWORD_VARIABLE, PasswordArgs, private, public};
use crate::render::Failure;

/// Longest answer: a signature has 72 bytes, and some programs write it as text.
const MAX_ANSWER_BYTES: u64 = 4 << 10;
/// What is read of what the program says beside its answer; the end of it is told.
const MAX_SAID_BYTES: u64 = 64 << 10;
/// Longest end of that.
const MAX_TOLD_CHARS: usize = 400;
/// Shorter values are everywhere.
const MIN_SECRET_BYTES: usize = 4;
/// Words of variables whose values are nobody's to read.
const SECRET_WORDS: [&str; 5] = ["PASS", "PIN", "SECRET", "TOKEN", "CREDENTIAL"];

/// How something is signed.
#[derive(Args, Clone, Debug)]
pub(crate) struct SigningArgs {
    /// The private key: a file, or the name of one that `cas key` keeps; with `--signer` its public key
    #[arg(long)]
    key: String,
    /// Let this program sign: it is given what to sign on standard input, and writes the signature
    ///
    /// A program and its arguments, with blanks between them; no shell is asked. The key of `--key` decides whether the answer is right.
    #[arg(long, value_name = "COMMAND", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    signer: Option<String>,
    /// So many seconds the program of `--signer` has for a signature
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "signer",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    signer_timeout: u64,
    #[command(flatten)]
    password: PasswordArgs,
}

impl SigningArgs {
    /// Whoever signs. `cancel` ends a program that does not answer.
    pub(crate) fn open(&self, global: &Global, cancel: &Cancel) -> Result<Box<dyn Signer>, Failure> {
        let Some(command) = &self.signer else {
            let key: PrivateKey = private(global, &self.key, &self.password)?;
            return Ok(Box::new(key));
        };
        let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() {
            return Err(Failure::Usage("`--signer` names no program".to_owned()));
        }
        let (key, timeout) = (public(global, &self.key)?, Duration::from_secs(self.signer_timeout));
        Ok(Box::new(Program { words, key, timeout, cancel: cancel.clone() }))
    }
}

/// A program that signs.
struct Program {
    words: Vec<String>,
    key: PublicKey,
    timeout: Duration,
    cancel: Cancel,
}

/// What a program ended with.
struct Answered {
    is_success: bool,
    status: String,
    answer: Vec<u8>,
    said: Vec<u8>,
}

impl Signer for Program {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let program = &self.words[0];
        let fails = |reason: String, hint: &str| SignerError {
            reason: format!("`{program}` {reason}"),
            hint: Some(hint.to_owned()),
        };
        let ended =
            self.run(message).map_err(|reason| fails(reason, "docs/formats/signing.md says what it is given"))?;
        let said = told(&ended.said, &secrets(&variables()));
        let said = if said.is_empty() { said } else { format!(", and said: {said}") };
        if !ended.is_success {
            return Err(fails(
                format!("ended with {}{said}", ended.status),
                "see what it lacks: a login, a device, a PIN",
            ));
        }
        if ended.answer.len() as u64 > MAX_ANSWER_BYTES {
            let reason = format!("wrote more than {MAX_ANSWER_BYTES} bytes");
            return Err(fails(reason, "let it write the signature and nothing else to standard output"));
        }
        // The bytes themselves, or base64 of them: whichever is a signature.
        let text = std::str::from_utf8(&ended.answer).ok().map(str::trim);
        let decoded = text.and_then(|text| STANDARD.decode(text).ok());
        let answers = [Some(ended.answer), decoded];
        let right = answers.into_iter().flatten().find(|answer| self.key.verify(message, answer).is_ok());
        right.ok_or_else(|| {
            let (id, kind) = (self.key.id(), self.key.algorithm());
            let reason = format!("wrote no {kind} signature by the key {id} of what it was given{said}");
            fails(reason, "name its public key with `--key`; a signature of ECDSA is DER, one of Ed25519 has 64 bytes")
        })
    }
}

impl Program {
    fn run(&self, message: &[u8]) -> Result<Answered, String> {
        let digest = Digest::of(DigestFunction::Sha256, message).to_hex();
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // What opens other keys is not for it.
        command.env_remove(PASSWORD_VARIABLE);
        let (kind, id) = (self.key.algorithm().name(), self.key.id().to_string());
        command.env("CAS_SIGNER_VERSION", "1").env("CAS_SIGNER_TYPE", kind).env("CAS_SIGNER_KEY", id);
        command.env("CAS_SIGNER_SHA256", digest);
        let mut child = command.spawn().map_err(|error| format!("could not be started: {error}"))?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let bytes = message.to_vec();
        // One that does not read it all may know enough by the digest.
        std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        let answer = read(child.stdout.take().expect("it is piped"), MAX_ANSWER_BYTES + 1);
        let said = read(child.stderr.take().expect("it is piped"), MAX_SAID_BYTES);
        let start = Instant::now();
        // It may have ended just now. What it started stays: a program that asks for a PIN is in the group of the terminal.
        let end = |child: &mut Child| drop(child.kill());
        let ended = attend(&mut child, self.timeout, &self.cancel, end);
        let status = match ended.map_err(|error| format!("is lost: {error}"))? {
            Ended::With(status) => status,
            Ended::Late => return Err(format!("did not sign in {} seconds", self.timeout.as_secs())),
            Ended::Interrupted => return Err("was ended".to_owned()),
        };
        // What it started may keep its output open.
        let rest = || self.timeout.saturating_sub(start.elapsed()).max(LOOK);
        let late = |_| "did not close its output".to_owned();
        let unreadable = |error: io::Error| format!("could not be read: {error}");
        let answer = answer.recv_timeout(rest()).map_err(late)?.map_err(unreadable)?;
        let said = said.recv_timeout(rest()).map_err(late)?.map_err(unreadable)?;
        Ok(Answered { is_success: status.success(), status: status.to_string(), answer, said })
    }
}

/// Reads on a thread of its own: some bytes are kept, and the rest is read so that the other side does not wait.
fn read(mut from: impl Read + Send + 'static, limit_bytes: u64) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = from.by_ref().take(limit_bytes).read_to_end(&mut bytes);
        let read = read.and_then(|_| io::copy(&mut from, &mut io::sink()));
        // Whoever waited may have given up.
        let _ = sender.send(read.map(|_| bytes));
    });
    receiver
}

/// Values that are nobody's to read, the longest first.
fn secrets(variables: &BTreeMap<String, String>) -> Vec<String> {
    let is_secret = |name: &str| {
        let name = name.to_ascii_uppercase();
        name.ends_with("KEY") || SECRET_WORDS.iter().any(|word| name.contains(word))
    };
    let values = variables.iter().filter(|(name, value)| is_secret(name) && value.len() >= MIN_SECRET_BYTES);
    let mut values: Vec<String> = values.map(|(_, value)| value.clone()).collect();
    values.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    values
}

/// The end of what a program said: one line, without secrets and without what a terminal would obey.
fn told(said: &[u8], secrets: &[String]) -> String {
    let mut text = String::from_utf8_lossy(said).into_owned();
    for secret in secrets {
        text = text.replace(secret, "***");
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text: String = lines.join("; ").chars().filter(|character| !character.is_control()).collect();
    let surplus = text.chars().count().saturating_sub(MAX_TOLD_CHARS);
    let end: String = text.chars().skip(surplus).collect();
    if surplus > 0 { format!("…{end}") } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_told_without_secrets_and_orders_to_terminals() {
        let variables = [("HSM_PIN", "1234"), ("A_TOKEN", "12345678"), ("SHORT_PIN", "1"), ("HOME", "/home/me")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let secrets = secrets(&variables);
        assert_eq!(secrets, ["12345678", "1234"]);
        for (said, expected) in [
            ("", String::new()),
            ("no device\n", "no device".to_owned()),
            ("one\n\n two \r\n", "one; two".to_owned()),
            ("PIN 1234 is wrong, token 12345678 too", "PIN *** is wrong, token *** too".to_owned()),
            ("\x1b[2Jgone\x07 in /home/me", "[2Jgone in /home/me".to_owned()),
            (&"x".repeat(500), format!("…{}", "x".repeat(400))),
        ] {
            assert_eq!(told(said.as_bytes(), &secrets), expected);
        }
        assert_eq!(told(b"\xff", &secrets), "\u{fffd}");
    }
}
