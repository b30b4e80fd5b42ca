//! `cas serve`: what others reach of the store.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cas_server::{Options, Server};
use clap::Args;
use serde_json::json;

use crate::args::{Global, parse_size};
use crate::commands::{cancel_on_signals, in_here, open_store, print, text};
use crate::exit::Exit;
use crate::render::{self, Failure};

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Serve a registry of images and artifacts, as docker, podman, skopeo and `cas push` know them
    #[arg(long, required = true)]
    registry: bool,
    /// Address and port; port 0 takes one that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// Listen at an address that other machines reach: everybody who reaches it can read and write
    #[arg(long)]
    allow_anyone: bool,
    /// Let versions and commits as tags come to name something else
    #[arg(long)]
    allow_moves: bool,
    /// Let tags, manifests and blobs be removed
    #[arg(long)]
    allow_deletes: bool,
    /// Longest blob that is taken
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64G")]
    max_blob_size: u64,
    /// Write the port to a file when it is listened at
    #[arg(long, value_name = "FILE")]
    port_file: Option<PathBuf>,
}

pub(crate) fn run(global: &Global, args: &ServeArgs) -> Result<Exit, Failure> {
    let options = Options {
        allow_moves: args.allow_moves,
        allow_deletes: args.allow_deletes,
        allow_anyone: args.allow_anyone,
        max_blob_bytes: args.max_blob_size,
    };
    let store = Arc::new(open_store(global)?);
    let server = Server::bind(store, args.listen, options).map_err(Failure::Serve)?;
    let signals = cancel_on_signals()?;
    let address = server.address();
    if let Some(file) = &args.port_file {
        let port = format!("{}\n", address.port());
        cas_fs::write_atomic(&in_here(global, file), port.as_bytes()).map_err(cas_build::BuildError::from)?;
    }
    let row = json!({ "address": address.to_string(), "port": address.port() });
    print(global, &[row], |row| format!("listening at {}", text(&row["address"])))?;
    let switch = signals.0.clone();
    server.run(
        move || switch.is_cancelled(),
        |error| {
            let causes = std::iter::successors(Some(error), |error| error.source());
            let words: Vec<String> = causes.map(ToString::to_string).collect();
            render::note(&format!("error: {}", words.join(": ")));
        },
    );
    Ok(Exit::Done)
}
