//! Signing and checking: in the program alone, and as whole commands before a registry.

use std::fs;
use std::process::Command;

use super::super::{Bench, median, milliseconds, output, remove};
use super::server::Server;
use crate::run::{Failure, cargo, workspace};

const TARGET: &str = "//apps/web:image";

pub(super) fn section(bench: &Bench) -> Result<String, Failure> {
    println!("signatures");
    let profile = if bench.is_small { "dev" } else { "bench" };
    let rows = output(&mut cargo(&["bench", "--quiet", "--locked", "--profile", profile, "--bench", "attest"]))?;
    let mut text = format!(
        "\n## Signatures\n\nA thousand digests, on one core, without files and registries: statements, bundles and signatures are made, then read and \
         checked.\n\n| key | sign 1,000 | check 1,000 |\n|---|---|---|\n{}\n",
        rows.trim_end()
    );
    let place = bench.folder.join("example");
    output(Command::new("cp").arg("-a").arg(workspace().join("testdata/monorepo")).arg(&place))?;
    remove(&place.join("cas-out"))?;
    let server = Server::start(&bench.folder.join("signed"))?;
    let image = format!("{}/example:1.0.0", server.address);
    let cas = |arguments: &[&str]| -> Command {
        let mut command = bench.cas(&place, "signed-store", arguments);
        command.env("CAS_KEYS", bench.folder.join("keys")).env_remove("CAS_KEY_PASSWORD");
        command
    };
    output(&mut cas(&["key", "generate", "--plain", "bench"]))?;
    output(&mut cas(&["push", TARGET, &image]))?;
    let predicate = bench.folder.join("provenance.json");
    fs::write(&predicate, output(&mut cas(&["provenance", "--predicate", TARGET]))?)?;
    let inputs = fs::read_to_string(&predicate)?.matches("\"sha256\"").count();
    let kind = "https://slsa.dev/provenance/v1";
    output(&mut cas(&["sign", &image, "--key", "bench"]))?;
    output(&mut cas(&[
        "attest",
        &image,
        "--predicate",
        &predicate.display().to_string(),
        "--type",
        kind,
        "--key",
        "bench",
    ]))?;
    let verify = median(|| Ok(cas(&["verify", &image, "--key", "bench"])))?;
    let walk = median(|| Ok(cas(&["verify", &image, "--key", "bench", "--inputs"])))?;
    let again = median(|| Ok(cas(&["sign", &image, "--key", "bench"])))?;
    text.push_str(&format!(
        "\nWhole commands, with starting the program, before a docker-registry of this machine. The image is that of the example, whose provenance names {inputs} \
         inputs.\n\n| command | time |\n|---|---|\n| `cas verify` | {} |\n| `cas verify --inputs`: signed provenance, actions, and every input in the store | {} |\n\
         | `cas sign`, signed before | {} |\n",
        milliseconds(verify),
        milliseconds(walk),
        milliseconds(again)
    ));
    drop(server);
    remove(&bench.folder.join("signed"))?;
    remove(&place)?;
    Ok(text)
}
