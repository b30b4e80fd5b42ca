//! `cargo xtask adopt`: public workspaces that others keep, built and tested by `cas` with no more than what it writes itself.
//!
//! Each is obtained when this runs, at a commit that is named here, and nothing of it is kept in this repository. One that cannot
//! be obtained is skipped, with the reason. Notes on what was found: docs/book/from-turborepo.md.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::run::{Failure, cargo, workspace};

/// Folder with clones, `<owner>/<name>`, that are taken in place of the public ones.
const MIRRORS: &str = "CAS_ADOPT_MIRRORS";
/// Exit code of `cas` when a remote refused, or is not there.
const REMOTE: i32 = 4;

/// A workspace, and what is known of it.
struct Public {
    /// Owner and name.
    name: &'static str,
    commit: &'static str,
    /// What writes its `cas.toml` files.
    written_by: &'static [&'static str],
    /// What its scripts call, as a package of npm.
    manager: Option<&'static str>,
    /// Tests that need nothing from outside and pass at this commit.
    tests: &'static [&'static str],
    /// A file that is changed, with the target that has to say so.
    source: &'static str,
    target: &'static str,
    /// Builds that run because of it.
    run_count: usize,
}

const PUBLIC: [Public; 2] = [
    Public {
        name: "modelcontextprotocol/servers",
        commit: "76d64c822f5125032f89eb71dbdb94e42b434821",
        written_by: &["init"],
        manager: None,
        tests: &[
            "//src/everything:test",
            "//src/filesystem:test",
            "//src/memory:test",
            "//src/sequentialthinking:test",
        ],
        source: "src/filesystem/lib.ts",
        target: "//src/filesystem:build",
        run_count: 1,
    },
    Public {
        name: "vercel/edge-runtime",
        commit: "77be36e84fbeb20ecd83ad065243ded353a3f803",
        written_by: &["import", "turbo"],
        manager: Some("pnpm@8.4.0"),
        // Those of four more packages ask servers of the internet, or need what only a whole installation has.
        tests: &[
            "//packages/cookies:test",
            "//packages/format:test",
            "//packages/jest-expect:test",
            "//packages/node-utils:test",
            "//packages/ponyfill:test",
            "//packages/user-agent:test",
        ],
        source: "packages/format/src/index.ts",
        target: "//packages/format:build",
        run_count: 1,
    },
];

/// How one of them ended.
enum End {
    Adopted,
    Skipped(String),
    Failed(String),
}

/// Adopts each of them, or those whose name holds a text; whether none failed.
pub(crate) fn run(filter: &str) -> Result<bool, Failure> {
    if !cargo(&["build", "--locked", "--bin", "cas"]).status()?.success() {
        return Ok(false);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for public in PUBLIC.iter().filter(|public| public.name.contains(filter)) {
        println!("\n== {} at {}", public.name, public.commit);
        let place = Place { cas: target.join("debug/cas"), home: target.join("adopt"), public };
        match place.adopt()? {
            End::Adopted => passed += 1,
            End::Skipped(why) => {
                println!("skipped: {why}");
                skipped += 1;
            }
            End::Failed(why) => {
                println!("failed: {why}");
                failed += 1;
            }
        }
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0)
}

struct Place<'a> {
    cas: PathBuf,
    /// Holds clones, the store, and programs.
    home: PathBuf,
    public: &'a Public,
}

impl Place<'_> {
    fn folder(&self) -> PathBuf {
        self.home.join(self.public.name)
    }

    fn adopt(&self) -> Result<End, Failure> {
        if let Err(why) = self.obtain() {
            return Ok(End::Skipped(format!("it could not be obtained: {why}")));
        }
        if let Some(manager) = self.public.manager
            && let Err(why) = self.install(manager)
        {
            return Ok(End::Skipped(format!("`{manager}` could not be installed: {why}")));
        }
        if !self.cas(self.public.written_by)?.status.success() {
            return Ok(End::Failed("`cas.toml` files were not written".to_owned()));
        }
        let first = self.cas(&["build"])?;
        if first.status.code() == Some(REMOTE) {
            return Ok(End::Skipped("its third-party packages could not be fetched".to_owned()));
        }
        if !first.status.success() {
            return Ok(End::Failed("the build failed".to_owned()));
        }
        if ran(&self.cas(&["build"])?) != Some(0) {
            return Ok(End::Failed("the second build was not free of steps".to_owned()));
        }
        if !self.cas(&[&["test"], self.public.tests].concat())?.status.success() {
            return Ok(End::Failed("tests failed".to_owned()));
        }
        self.change()
    }

    /// Changes one file, and looks at what that leads to.
    fn change(&self) -> Result<End, Failure> {
        let Public { source, target, run_count, .. } = *self.public;
        OpenOptions::new().append(true).open(self.folder().join(source))?.write_all(b"// changed\n")?;
        let why = self.cas(&["why", target])?;
        if !String::from_utf8_lossy(&why.stdout).contains(&format!("file {source} changed")) {
            return Ok(End::Failed(format!("`cas why {target}` does not tell of `{source}`")));
        }
        let count = ran(&self.cas(&["build"])?);
        if count != Some(run_count) {
            return Ok(End::Failed(format!("{count:?} steps ran after a change of `{source}`, not {run_count}")));
        }
        Ok(End::Adopted)
    }

    /// A fresh clone, in the place of one that an earlier run left.
    fn obtain(&self) -> Result<(), Failure> {
        let folder = self.folder();
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let mirror = std::env::var_os(MIRRORS).map(|mirrors| Path::new(&mirrors).join(self.public.name));
        let source = mirror.map_or_else(
            || format!("https://github.com/{}.git", self.public.name),
            |mirror| mirror.display().to_string(),
        );
        git(&folder, &["init", "--quiet"])?;
        git(&folder, &["fetch", "--quiet", "--depth", "1", &source, self.public.commit])?;
        git(&folder, &["checkout", "--quiet", "FETCH_HEAD"])
    }

    /// Where the programs of its package manager are.
    fn programs(&self) -> Option<PathBuf> {
        Some(self.home.join("programs").join(self.public.manager?))
    }

    fn install(&self, manager: &str) -> Result<(), Failure> {
        let Some(prefix) = self.programs().filter(|prefix| !prefix.join("bin").exists()) else { return Ok(()) };
        let mut npm = Command::new("npm");
        npm.args(["install", "--global", "--no-audit", "--no-fund", "--prefix"]).arg(prefix).arg(manager);
        if npm.status()?.success() { Ok(()) } else { Err("npm install failed".into()) }
    }

    /// Runs `cas`, and shows what it does.
    fn cas(&self, arguments: &[&str]) -> Result<Output, Failure> {
        println!("$ cas {}", arguments.join(" "));
        let mut command = Command::new(&self.cas);
        command.arg("--store").arg(self.home.join("store")).args(arguments).current_dir(self.folder());
        if let Some(programs) = self.programs() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::iter::once(programs.join("bin")).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders)?);
        }
        let output = command.env_remove("CI").stdin(Stdio::null()).output()?;
        print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }
}

/// How many steps a successful build ran.
fn ran(output: &Output) -> Option<usize> {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains(" ran, "))?;
    line.split(' ').next()?.parse().ok().filter(|_| output.status.success())
}

fn git(folder: &Path, arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into())
}
