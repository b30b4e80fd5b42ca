//! The image of the program, made by the program in two folders, and shipped.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::remove;
use crate::run::Failure;
use crate::ship::Ship;

pub(super) fn run(folder: &Path, program: &Path) -> Result<bool, Failure> {
    remove(folder)?;
    let version = env!("CARGO_PKG_VERSION");
    for name in ["workspace", "again"] {
        let place = folder.join(name);
        fs::create_dir_all(&place)?;
        fs::copy(program, place.join("cas"))?;
        let manifest = format!(
            "version = \"{version}\"\n\n[workspace]\n\n[image.cas]\nlayers = [{{ files = [\"cas\"], to = \"/\", mode = \"0755\" }}]\n\
             config = {{ entrypoint = [\"/cas\"], cmd = [\"--help\"], env = {{ CAS_HOME = \"/tmp/store\" }} }}\n"
        );
        fs::write(place.join("cas.toml"), manifest)?;
    }
    let cas = |place: &str, store: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.arg("--store").arg(store).args(arguments).current_dir(folder.join(place));
        command
    };
    let build = |place: &str| -> Result<Vec<u8>, Failure> {
        let mut command = cas(place, &folder.join(place).with_extension("store"), &["build", ":cas"]);
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
        if output.status.success() { Ok(output.stdout) } else { Err("the image was not built".into()) }
    };
    let built = build("workspace")?;
    print!("{}", String::from_utf8_lossy(&built));
    if built != build("again")? {
        eprintln!("error: the image of another folder is another one");
        return Ok(false);
    }
    let store = folder.join("workspace.store");
    let make = |other: Option<&Path>, arguments: &[&str]| cas("workspace", other.unwrap_or(&store), arguments);
    let ship = Ship { cas: &make, folder: &folder.join("shipped"), target: ":cas", version };
    Ok(ship.run(&["/cas", "--version"])?.trim_end().ends_with(version))
}
