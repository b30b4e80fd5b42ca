//! `cas key`, and how other commands come to keys and their passwords.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cas_attest::{KeyAlgorithm, KeyError, KeyLabel, MAX_KEY_FILE_BYTES, PrivateKey, PrivateKeyFile, PublicKey};
use clap::{Args, Subcommand};
use etcetera::BaseStrategy;
use serde_json::json;

use crate::args::Global;
use crate::commands::{cancel_on_signals, in_here, print, text, variable};
use crate::exit::Exit;
use crate::prompt::{Echo, ask};
use crate::render::Failure;

/// Longest password, as the format has it.
const MAX_PASSWORD_BYTES: usize = 4 << 10;
/// The variable that has the password where nobody names another one.
pub(crate) const PASSWORD_VARIABLE: &str = "CAS_KEY_PASSWORD";
const PRIVATE_ENDING: &str = "key";
const PUBLIC_ENDING: &str = "pub";

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key to sign with, and keep it in the folder of keys
    ///
    /// The folder is `$CAS_KEYS`, or `cas/keys` where configuration is kept. NAME.key is for its owner alone, NAME.pub is what others
    /// verify with. A key that is there is never replaced.
    Generate(GenerateArgs),
    /// List the keys in the folder of keys
    List,
    /// Take a key that another program made into the folder of keys
    ///
    /// A private key as PKCS#8 in PEM or as cosign's encrypted file, or a public key. A private key in the clear is kept under a new
    /// password, an encrypted one under its own.
    Import(crate::key_exchange::ImportArgs),
    /// Write a key as other programs read it
    ///
    /// The public key, unless a form of the private one is named. Files are made, never replaced.
    Export(crate::key_exchange::ExportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// What the key is called: letters, digits, `.`, `_` and `-`
    name: String,
    /// Its kind: `ed25519` or `ecdsa-p256`, which cosign and podman take as well
    #[arg(long = "type", value_name = "KIND", default_value = "ecdsa-p256")]
    kind: KeyAlgorithm,
    /// Keep it without a password
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    password: PasswordArgs,
}

/// Where a password comes from.
#[derive(Args, Clone, Debug)]
pub(crate) struct PasswordArgs {
    /// Read the password of the key from this file descriptor, in place of `$CAS_KEY_PASSWORD` or the terminal
    #[arg(long, value_name = "N")]
    password_fd: Option<u32>,
    /// Read it from this variable
    #[arg(long, value_name = "NAME", conflicts_with = "password_fd")]
    password_env: Option<String>,
}

pub(crate) fn run(global: &Global, command: KeyCommand) -> Result<Exit, Failure> {
    match command {
        KeyCommand::Generate(args) => generate(global, &args),
        KeyCommand::List => list(global),
        KeyCommand::Import(args) => crate::key_exchange::import(global, &args),
        KeyCommand::Export(args) => crate::key_exchange::export(global, &args),
    }
}

fn generate(global: &Global, args: &GenerateArgs) -> Result<Exit, Failure> {
    let place = NewKey::named(&args.name)?;
    let key = PrivateKey::generate(args.kind, &mut random).map_err(refused)?;
    let pem = match args.plain {
        true => key.to_pem().to_string(),
        false => {
            let password = args.password.read("Password of the new key", true)?;
            key.to_encrypted_pem(KeyLabel::Sigstore, &password, &mut random).map_err(refused)?
        }
    };
    place.keep(global, Some(&pem), key.public_key())
}

/// Where a key will be that is not there yet.
pub(crate) struct NewKey {
    name: String,
    folder: PathBuf,
    private: PathBuf,
    public: PathBuf,
}

impl NewKey {
    /// The place of a name, which is free.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        let is_allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(is_allowed) {
            let hint = "use letters, digits, `.`, `_` and `-`, beginning with a letter, a digit or `_`";
            return Err(Failure::Usable(format!("`{name}` is no name of a key"), hint.to_owned()));
        }
        let folder = folder()?;
        let place = |ending: &str| folder.join(format!("{name}.{ending}"));
        let (private, public) = (place(PRIVATE_ENDING), place(PUBLIC_ENDING));
        for path in [&private, &public] {
            if cas_fs::exists(path)? {
                let hint = "choose another name: keys are never replaced";
                return Err(Failure::Usable(format!("`{}` is there already", path.display()), hint.to_owned()));
            }
        }
        Ok(Self { name: name.to_owned(), folder, private, public })
    }

    /// Writes the files and tells where they are.
    pub(crate) fn keep(&self, global: &Global, private: Option<&str>, public: &PublicKey) -> Result<Exit, Failure> {
        cas_fs::create_dir_all(&self.folder)?;
        let mut row = json!({
            "name": self.name,
            "id": public.id().to_string(),
            "type": public.algorithm().name(),
            "public": self.public.display().to_string(),
        });
        if let Some(pem) = private {
            write_new(&self.private, 0o600, pem)?;
            row["private"] = json!(self.private.display().to_string());
        }
        write_new(&self.public, 0o644, &public.to_pem())?;
        print(global, &[row], |row| format!("{} {} {}", text(&row["id"]), text(&row["type"]), text(&row["public"])))?;
        Ok(Exit::Done)
    }
}

fn list(global: &Global) -> Result<Exit, Failure> {
    let folder = folder()?;
    let mut rows = Vec::new();
    let entries = if cas_fs::exists(&folder)? { cas_fs::read_dir(&folder)? } else { Vec::new() };
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| folder.join(entry.name)).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|ending| ending == PUBLIC_ENDING)) {
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        let key = public_key(path)?;
        rows.push(json!({
            "name": name,
            "id": key.id().to_string(),
            "type": key.algorithm().name(),
            "public": path.display().to_string(),
        }));
    }
    print(global, &rows, |row| format!("{} {} {}", text(&row["name"]), text(&row["id"]), text(&row["type"])))?;
    Ok(Exit::Done)
}

/// The key that a text names: a file, or a name in the folder of keys.
pub(crate) fn private(global: &Global, named: &str, password: &PasswordArgs) -> Result<PrivateKey, Failure> {
    opened(global, named, password).map(|(key, _)| key)
}

/// The same, with the password that opened it.
pub(crate) fn opened(
    global: &Global,
    named: &str,
    password: &PasswordArgs,
) -> Result<(PrivateKey, Option<Vec<u8>>), Failure> {
    let path = path_of(global, named, PRIVATE_ENDING)?;
    let bytes = cas_fs::read_limited(&path, MAX_KEY_FILE_BYTES as u64)?;
    open_bytes(&path, &bytes, password)
}

/// The key in a file that was read, and the password that opened it.
pub(crate) fn open_bytes(
    path: &Path,
    bytes: &[u8],
    password: &PasswordArgs,
) -> Result<(PrivateKey, Option<Vec<u8>>), Failure> {
    let file = PrivateKeyFile::parse(bytes).map_err(|error| of_file(path, error))?;
    let is_encrypted = matches!(file, PrivateKeyFile::Encrypted(_));
    let password = match is_encrypted {
        true => Some(password.read(&format!("Password of `{}`", path.display()), false)?),
        false => None,
    };
    let key = file.open(password.as_deref()).map_err(|error| of_file(path, error))?;
    Ok((key, password))
}

/// The public key that a text names: a file, or a name in the folder of keys.
pub(crate) fn public(global: &Global, named: &str) -> Result<PublicKey, Failure> {
    public_key(&path_of(global, named, PUBLIC_ENDING)?)
}

/// The public key in a file.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey, Failure> {
    let bytes = cas_fs::read_limited(path, MAX_KEY_FILE_BYTES as u64)?;
    PublicKey::from_pem(&bytes).map_err(|error| of_file(path, error))
}

fn path_of(global: &Global, named: &str, ending: &str) -> Result<PathBuf, Failure> {
    let file = in_here(global, Path::new(named));
    if named.contains('/') || cas_fs::exists(&file)? {
        return Ok(file);
    }
    let kept = folder()?.join(format!("{named}.{ending}"));
    if cas_fs::exists(&kept)? {
        return Ok(kept);
    }
    let message = format!("there is no key `{named}`: neither that file nor `{}`", kept.display());
    if ending == PRIVATE_ENDING && cas_fs::exists(&folder()?.join(format!("{named}.{PUBLIC_ENDING}")))? {
        let hint = "its public half is kept here alone: `--signer PROGRAM` signs with what another program holds";
        return Err(Failure::Usable(message, hint.to_owned()));
    }
    Err(Failure::Usable(message, "`cas key list` tells which there are, `cas key generate` makes one".to_owned()))
}

/// Where keys are kept.
fn folder() -> Result<PathBuf, Failure> {
    if let Some(folder) = variable("CAS_KEYS") {
        return Ok(PathBuf::from(folder));
    }
    let strategy = etcetera::choose_base_strategy().map_err(|error| {
        Failure::Usable(format!("there is no home folder: {error}"), "name a folder in `CAS_KEYS`".to_owned())
    })?;
    Ok(strategy.config_dir().join("cas/keys"))
}

/// Writes a file that is not there yet.
pub(crate) fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let mut file = cas_fs::create_new(path, mode)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Failure::Output)
}

pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

pub(crate) fn refused(error: KeyError) -> Failure {
    let hint = error.hint().unwrap_or_else(|| "`cas key generate` makes a key".to_owned());
    Failure::Usable(error.to_string(), hint)
}

pub(crate) fn of_file(path: &Path, error: KeyError) -> Failure {
    let hint = error.hint().unwrap_or_else(|| "name another file, or give its password".to_owned());
    Failure::Usable(format!("`{}`: {error}", path.display()), hint)
}

impl PasswordArgs {
    /// The password: from a file descriptor, the environment or the terminal.
    pub(crate) fn read(&self, prompt: &str, is_new: bool) -> Result<Vec<u8>, Failure> {
        if let Some(number) = self.password_fd {
            let path = PathBuf::from(format!("/proc/self/fd/{number}"));
            let mut bytes = cas_fs::read_stream_limited(&path, MAX_PASSWORD_BYTES as u64)?;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            return Ok(bytes);
        }
        if let Some(name) = &self.password_env {
            let missing =
                || Failure::Usage(format!("the variable `{name}` of `--password-env` is not set, or is empty"));
            return Ok(variable(name).ok_or_else(missing)?.into_encoded_bytes());
        }
        if let Some(password) = variable(PASSWORD_VARIABLE) {
            return Ok(password.into_encoded_bytes());
        }
        let Ok(terminal) = cas_fs::open(Path::new("/dev/tty")) else {
            let hint =
                "use `--password-fd N`, `--password-env NAME` or `CAS_KEY_PASSWORD`; `--plain` makes a key without one";
            return Err(Failure::Usable("there is no terminal to ask for the password".to_owned(), hint.to_owned()));
        };
        let signals = cancel_on_signals()?;
        let one = |question: &str| ask(terminal.as_fd(), &format!("{question}: "), Echo::Off, &signals.0);
        let password = one(prompt)?;
        if is_new && one("The same again")? != password {
            return Err(Failure::Usage("the two passwords differ".to_owned()));
        }
        Ok(password)
    }
}
