//! `cas key import` and `cas key export`: keys from and for other programs.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use cas_attest::{KeyLabel, MAX_KEY_FILE_BYTES, PublicKey};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::args::{Format, Global};
use crate::commands::{in_here, print, text};
use crate::exit::Exit;
use crate::key::{NewKey, PasswordArgs, of_file, open_bytes, opened, public, random, refused, write_new};
use crate::render::Failure;

/// What begins the PEM of a public key.
const PUBLIC_BEGIN: &[u8] = b"-----BEGIN PUBLIC KEY-----";

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The file, in PEM
    file: PathBuf,
    /// What the key is called here, in place of the file's name
    #[arg(long)]
    name: Option<String>,
    /// Keep it without a password
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    password: PasswordArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The key: the name of one that `cas key` keeps, or a file
    name: String,
    /// What is written
    #[arg(long = "as", value_name = "FORM", value_enum, default_value_t = Form::Public)]
    form: Form,
    /// Write it to this file, which must not be there yet, in place of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show a private key even where standard output is a terminal
    #[arg(long, conflicts_with = "output")]
    to_terminal: bool,
    #[command(flatten)]
    password: PasswordArgs,
}

/// How keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// The public key, in PEM
    Public,
    /// The private key under its password, as cosign 2 and 3 write it
    Sigstore,
    /// The same with the label of cosign 1
    Cosign,
    /// The private key in the clear: PKCS#8 in PEM
    Pkcs8,
}

pub(crate) fn import(global: &Global, args: &ImportArgs) -> Result<Exit, Failure> {
    let path = in_here(global, &args.file);
    let stem = || path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let place = NewKey::named(&args.name.clone().unwrap_or_else(stem))?;
    let bytes = cas_fs::read_stream_limited(&path, MAX_KEY_FILE_BYTES as u64)?;
    if bytes.windows(PUBLIC_BEGIN.len()).any(|window| window == PUBLIC_BEGIN) {
        let key = PublicKey::from_pem(&bytes).map_err(|error| of_file(&path, error))?;
        return place.keep(global, None, &key);
    }
    let (key, password) = open_bytes(&path, &bytes, &args.password)?;
    let pem = match args.plain {
        true => key.to_pem().to_string(),
        false => {
            let password = match password {
                Some(password) => password,
                None => args.password.read("Password that the key is kept under", true)?,
            };
            key.to_encrypted_pem(KeyLabel::Sigstore, &password, &mut random).map_err(refused)?
        }
    };
    place.keep(global, Some(&pem), key.public_key())
}

pub(crate) fn export(global: &Global, args: &ExportArgs) -> Result<Exit, Failure> {
    let output = args.output.as_ref().map(|output| in_here(global, output));
    if let Some(output) = &output
        && cas_fs::exists(output)?
    {
        let hint = "choose another name: files of keys are never replaced";
        return Err(Failure::Usable(format!("`{}` is there already", output.display()), hint.to_owned()));
    }
    if args.form == Form::Public {
        let key = public(global, &args.name)?;
        return give(global, args, output.as_deref(), 0o644, &key.to_pem(), &key);
    }
    if output.is_none() && !args.to_terminal && std::io::stdout().is_terminal() {
        let hint = "use `--output FILE`, or `--to-terminal` if it is to be seen";
        return Err(Failure::Usable("a private key is not written to a terminal".to_owned(), hint.to_owned()));
    }
    let (key, password) = opened(global, &args.name, &args.password)?;
    let label = match args.form {
        Form::Cosign => KeyLabel::Cosign,
        Form::Sigstore | Form::Pkcs8 | Form::Public => KeyLabel::Sigstore,
    };
    let pem = match (args.form, password) {
        (Form::Pkcs8, _) => key.to_pem(),
        (_, Some(password)) => key.to_encrypted_pem(label, &password, &mut random).map_err(refused)?.into(),
        (_, None) => {
            let password = args.password.read("Password of what is written", true)?;
            key.to_encrypted_pem(label, &password, &mut random).map_err(refused)?.into()
        }
    };
    give(global, args, output.as_deref(), 0o600, &pem, key.public_key())
}

fn give(
    global: &Global,
    args: &ExportArgs,
    output: Option<&Path>,
    mode: u32,
    pem: &str,
    key: &PublicKey,
) -> Result<Exit, Failure> {
    let Some(output) = output else {
        if global.format == Format::Json {
            let row = json!({ "name": args.name, "id": key.id().to_string(), "pem": pem });
            return print(global, &[row], |_| String::new()).map(|()| Exit::Done);
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(pem.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)?;
        return Ok(Exit::Done);
    };
    write_new(output, mode, pem)?;
    let row = json!({ "name": args.name, "id": key.id().to_string(), "file": output.display().to_string() });
    print(global, &[row], |row| format!("{} {}", text(&row["id"]), text(&row["file"])))?;
    Ok(Exit::Done)
}
