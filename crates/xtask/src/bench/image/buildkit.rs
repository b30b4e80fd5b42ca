//! BuildKit: built once with Go into the folder of peers, from `benches/buildkit`, which pins it; a daemon of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::{output, remove};
use super::peers::{DOCKERFILE, is_there, shell};
use super::subject::{Codec, Subject};
use crate::run::{Failure, workspace};
use crate::{judges, peers};

/// The version that `benches/buildkit/go.mod` pins.
pub(super) const VERSION: &str = "v0.31.2";
/// How long the daemon may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where BuildKit's two programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs(PathBuf);

/// Builds what is not there yet.
///
/// # Errors
///
/// Says what is missing: a new Go, runc, the modules.
pub(super) fn programs() -> Result<Programs, Failure> {
    let folder = peers::folder().join(format!("buildkit-{VERSION}"));
    if !is_there("runc") {
        return Err("runc is not installed".into());
    }
    if folder.exists() {
        return Ok(Programs(folder));
    }
    let go = judges::go().ok_or("BuildKit needs a newer Go")?;
    let temporary = peers::folder().join(format!("building-{}", std::process::id()));
    fs::create_dir_all(&temporary)?;
    println!("peers: building BuildKit {VERSION} in {}", folder.display());
    let mut command = Command::new(go);
    // A folder with its separator: each program gets its own name there.
    command.arg("build").arg("-o").arg(temporary.join("")).current_dir(workspace().join("benches/buildkit"));
    command.args(["buildkitd", "buildctl"].map(|name| format!("github.com/moby/buildkit/cmd/{name}")));
    command
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly -trimpath -buildvcs=false");
    if !command.status()?.success() {
        return Err("go build failed in benches/buildkit".into());
    }
    fs::rename(&temporary, &folder)?;
    Ok(Programs(folder))
}

pub(super) struct BuildKit {
    programs: Programs,
    folder: PathBuf,
    context: PathBuf,
    daemon: Option<Child>,
}

impl BuildKit {
    pub(super) fn new(programs: Programs, folder: &Path, context: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(folder.join("dockerfile"))?;
        fs::write(folder.join("dockerfile/Dockerfile"), DOCKERFILE)?;
        Ok(Self { programs, folder: folder.to_owned(), context: context.to_owned(), daemon: None })
    }

    fn address(&self) -> String {
        format!("unix://{}", self.folder.join("socket").display())
    }

    fn buildctl(&self) -> Command {
        let mut command = Command::new(self.programs.0.join("buildctl"));
        command.args(["--addr", &self.address()]);
        command
    }

    fn start(&mut self) -> Result<(), Failure> {
        let log = fs::File::create(self.folder.join("log"))?;
        let mut command = Command::new(self.programs.0.join("buildkitd"));
        command.args(["--addr", &self.address(), "--root"]).arg(self.folder.join("root"));
        command.args(["--oci-worker-binary", "runc", "--oci-worker-snapshotter", "overlayfs"]);
        // Nothing is collected while it is measured.
        command.args(["--oci-worker-gc=false", "--containerd-worker=false"]);
        self.daemon = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        let started = Instant::now();
        while output(self.buildctl().args(["debug", "workers"])).is_err() {
            let has_ended = self.daemon.as_mut().map(Child::try_wait).transpose()?.flatten().is_some();
            if has_ended || started.elapsed() > PATIENCE {
                let log = fs::read_to_string(self.folder.join("log"))?;
                return Err(format!("buildkitd does not answer: {log}").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), Failure> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        // It takes its mounts away when it is asked to end.
        output(&mut shell(&format!("kill -TERM {}", daemon.id())))?;
        let asked = Instant::now();
        while daemon.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                daemon.kill()?;
                daemon.wait()?;
                return Err("buildkitd did not end".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Subject for BuildKit {
    fn name(&self) -> String {
        "BuildKit".to_owned()
    }

    fn codecs(&self) -> &'static [Codec] {
        &[Codec::Zstd, Codec::Gzip]
    }

    fn forget(&mut self) -> Result<(), Failure> {
        self.stop()?;
        for part in ["root", "zstd", "gzip"] {
            remove(&self.folder.join(part))?;
        }
        self.start()
    }

    fn build(&self, codec: Codec) -> Command {
        let mut command = self.buildctl();
        command.args(["build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local"]);
        command.arg(format!("context={}", self.context.display())).arg("--local");
        command.arg(format!("dockerfile={}", self.folder.join("dockerfile").display())).arg("--output").arg(format!(
            "type=oci,tar=false,dest={},compression={},force-compression=true,oci-mediatypes=true",
            self.layout(codec).display(),
            codec.name()
        ));
        command
    }

    fn layout(&self, codec: Codec) -> PathBuf {
        self.folder.join(codec.name())
    }
}

impl Drop for BuildKit {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error}");
        }
    }
}
