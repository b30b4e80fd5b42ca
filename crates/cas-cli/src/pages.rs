//! `cas schema`, `cas completions` and `cas man`: what other programs want to know of the command line.

use std::io::Write;
use std::path::Path;

use cas_build::BuildError;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Exit;
use crate::render::Failure;

/// Made of the shape that `cas-config` reads, by `tests/book`, which fails when it is stale.
const SCHEMA: &str = include_str!("../../../docs/cas.schema.json");

pub(crate) fn schema() -> Result<Exit, Failure> {
    std::io::stdout().lock().write_all(SCHEMA.as_bytes()).map_err(Failure::Output)?;
    Ok(Exit::Done)
}

pub(crate) fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cas", &mut text);
    std::io::stdout().lock().write_all(&text).map_err(Failure::Output)?;
    Ok(Exit::Done)
}

pub(crate) fn man(folder: &Path) -> Result<Exit, Failure> {
    cas_fs::create_dir_all(folder).map_err(BuildError::from)?;
    let mut root = Cli::command();
    root.build();
    write(&root, "cas", folder)?;
    Ok(Exit::Done)
}

/// The page of a command, and those of the commands below it.
fn write(command: &Command, name: &str, folder: &Path) -> Result<(), Failure> {
    let page = clap_mangen::Man::new(command.clone()).title(name.to_uppercase());
    let mut text = Vec::new();
    page.render(&mut text).map_err(Failure::Output)?;
    cas_fs::replace(&folder.join(format!("{name}.1")), &text).map_err(BuildError::from)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}
