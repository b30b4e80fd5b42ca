//! Commands of cas: parse, call one function of the engine, print.
//!
//! Not here: anything that a server or a test would also need (`cas-build` and below).

mod affected;
mod analyze;
mod analyze_page;
mod args;
mod args_remote;
mod attend;
mod checkout;
mod commands;
mod copy;
mod doctor;
mod exit;
mod gate;
mod image;
mod image_convert;
mod image_diff;
mod image_file;
mod image_look;
mod image_names;
mod init;
mod inputs;
mod junit;
mod key;
mod key_exchange;
mod live;
mod login;
mod own_files;
mod pages;
mod place;
mod progress;
mod prompt;
mod provenance;
mod publish;
mod pull;
mod push;
mod push_package;
mod rebuild;
mod registry;
mod remarks;
mod render;
mod run;
mod run_image;
mod screen;
mod serve;
mod sign;
mod signals;
mod signer;
mod store;
mod sync;
mod template;
mod test;
mod timeline;
mod verify;
mod watch;
mod whereabouts;
mod why;

pub use exit::Exit;

use std::ffi::OsString;

use clap::Parser;

use crate::args::Format;
use crate::render::Failure;

/// Runs the command line; returns what the process ends with.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match args::Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            if error.use_stderr() && args::asks_for_json(&arguments) {
                return render::failure(&Failure::of_arguments(&error), Format::Json);
            }
            // A closed pipe is the reader's choice.
            let _ = error.print();
            return code;
        }
    };
    let format = cli.global.format;
    match commands::run(cli, &arguments) {
        Ok(exit) => exit,
        Err(failure) => render::failure(&failure, format),
    }
}
