//! Programs of this machine, and what a `host` toolchain has to show for them.
//!
//! The environment comes in as a value. Of the file system only names are looked up; nothing is run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a step's `PATH` has (docs/formats/step.md).
pub(crate) const STEP_PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What every host toolchain shows.
const SHOWN: [&str; 2] = ["/usr", "/bin"];

/// The parts of the environment that say where programs are.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Folders of `PATH`, in order.
    pub path: Vec<PathBuf>,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// `RUSTUP_HOME`
    pub rustup_home: Option<PathBuf>,
    /// `GOMODCACHE`
    pub go_module_cache: Option<PathBuf>,
    /// `GOPATH`
    pub go_path: Option<PathBuf>,
}

/// A program as a step finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Folders that a toolchain has to show beside the ones that it shows anyway.
    pub(crate) paths: BTreeSet<String>,
}

impl Program {
    fn new(folder: &Path, files: &[&Path], home: Option<&Path>) -> Self {
        let mut paths = BTreeSet::new();
        for file in files {
            if SHOWN.iter().any(|shown| file.starts_with(shown)) {
                continue;
            }
            let Some(folder) = file.parent() else { continue };
            let above = folder.parent().filter(|_| folder.ends_with("bin"));
            // A distribution of a program is the folder above `bin`; a home is none, and its secrets are not shown.
            let is_private = |above: &Path| {
                above.parent().is_none() || home.is_some_and(|home| above == home) || above.ends_with(".local")
            };
            let shown = above.filter(|above| !is_private(above)).unwrap_or(folder);
            paths.insert(shown.display().to_string());
        }
        Self { folder: folder.to_owned(), paths }
    }

    pub(crate) fn is_on_step_path(&self) -> bool {
        STEP_PATH.iter().any(|folder| self.folder == Path::new(folder))
    }

    /// The word that runs it in a step.
    pub(crate) fn word(&self, name: &str) -> String {
        if self.is_on_step_path() { name.to_owned() } else { self.folder.join(name).display().to_string() }
    }
}

impl Host {
    /// The first program of this name on `PATH`.
    pub(crate) fn find(&self, name: &str) -> Option<Program> {
        for folder in self.path.iter().filter(|folder| folder.is_absolute()) {
            let file = folder.join(name);
            if cas_fs::metadata(&file).is_ok_and(|metadata| metadata.is_file()) {
                let real = cas_fs::canonicalize(&file).ok()?;
                // A link from a folder that is shown leads to where the program is; one elsewhere has to be shown as well.
                return Some(Program::new(folder, &[&file, &real], self.home.as_deref()));
            }
        }
        None
    }

    /// `cargo` itself: what rustup puts on `PATH` only chooses one, by settings that no step sees.
    ///
    /// `channel` is that of the workspace's `rust-toolchain.toml`.
    pub(crate) fn cargo(&self, channel: Option<&str>) -> Option<Program> {
        let found = self.find("cargo")?;
        let file = cas_fs::canonicalize(&found.folder.join("cargo")).ok()?;
        let is_proxy = file.file_name().is_some_and(|name| name == "rustup")
            || cas_fs::exists(&found.folder.join("rustup")).unwrap_or(false);
        if !is_proxy {
            return Some(found);
        }
        let home = self.rustup_home.clone().or_else(|| Some(self.home.as_ref()?.join(".rustup")))?;
        let wanted = match channel {
            Some(channel) => channel.to_owned(),
            None => default_toolchain(&home)?,
        };
        let toolchains = home.join("toolchains");
        let names = cas_fs::read_dir(&toolchains).ok()?;
        let name = names.iter().filter_map(|entry| entry.name.to_str()).find(|name| {
            *name == wanted || name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('-'))
        })?;
        let folder = toolchains.join(name).join("bin");
        let file = folder.join("cargo");
        cas_fs::exists(&file).ok()?.then(|| Program::new(&folder, &[&file], self.home.as_deref()))
    }

    /// The version of `node`, as the headers beside it say it; `None` where there are none. Nothing is run.
    pub(crate) fn node_version(&self) -> Option<String> {
        let program = self.find("node")?;
        let file = cas_fs::canonicalize(&program.folder.join("node")).ok()?;
        let header = file.parent()?.parent()?.join("include/node/node_version.h");
        let text = String::from_utf8(cas_fs::read_limited(&header, 1 << 20).ok()?).ok()?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("#define NODE_{name}_VERSION ")))?;
            line.trim().parse::<u32>().ok()
        };
        Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
    }

    /// Where Go keeps the modules that it downloaded.
    pub(crate) fn module_cache(&self) -> Option<PathBuf> {
        if let Some(cache) = &self.go_module_cache {
            return Some(cache.clone());
        }
        let path = self.go_path.clone().or_else(|| Some(self.home.as_ref()?.join("go")))?;
        Some(path.join("pkg/mod"))
    }
}

fn default_toolchain(rustup_home: &Path) -> Option<String> {
    let bytes = cas_fs::read_limited(&rustup_home.join("settings.toml"), 1 << 20).ok()?;
    let table: toml::Table = String::from_utf8(bytes).ok()?.parse().ok()?;
    table.get("default_toolchain")?.as_str().map(str::to_owned)
}

/// The value of `PATH` for programs that are elsewhere than in the folders of a step's own.
pub(crate) fn step_path(programs: &[&Program]) -> Option<String> {
    let mut folders: Vec<String> = Vec::new();
    for program in programs.iter().filter(|program| !program.is_on_step_path()) {
        let folder = program.folder.display().to_string();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    if folders.is_empty() {
        return None;
    }
    folders.extend(STEP_PATH.iter().map(|folder| (*folder).to_owned()));
    Some(folders.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path) {
        cas_fs::create_dir_all(path.parent().expect("it has one")).expect("the folder is ours");
        cas_fs::write(path, b"").expect("the folder is ours");
    }

    #[test]
    fn programs_outside_of_usr_are_shown_and_found() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let node = home.path().join("node-20");
        put(&node.join("bin/node"));
        let host = Host { path: vec![PathBuf::from("relative"), node.join("bin")], ..Host::default() };
        let program = host.find("node").expect("it is there");
        assert_eq!(
            program.paths,
            BTreeSet::from([cas_fs::canonicalize(&node).expect("it is there").display().to_string()])
        );
        assert_eq!(program.word("node"), node.join("bin/node").display().to_string());
        let path = step_path(&[&program]).expect("it is not on the step's own");
        assert!(path.starts_with(&format!("{}:/usr/local/sbin:", node.join("bin").display())), "{path}");
        assert_eq!(host.find("npm"), None);
    }

    #[test]
    fn a_home_is_never_shown_whole() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let home = cas_fs::canonicalize(home.path()).expect("it is there");
        for bin in [home.join("bin"), home.join(".local/bin")] {
            put(&bin.join("node"));
            let host = Host { path: vec![bin.clone()], home: Some(home.clone()), ..Host::default() };
            let paths = host.find("node").expect("it is there").paths;
            assert_eq!(paths, BTreeSet::from([bin.display().to_string()]));
            cas_fs::remove_tree(&home).expect("the folder is ours");
        }
    }

    #[test]
    fn what_rustup_chooses_is_shown_instead_of_rustup() {
        let home = tempfile::tempdir().expect("a folder can be made");
        for name in ["cargo-home/bin/rustup", "cargo-home/bin/cargo", "rustup/toolchains/stable-x86_64/bin/cargo"] {
            put(&home.path().join(name));
        }
        put(&home.path().join("rustup/toolchains/1.80-x86_64/bin/cargo"));
        let settings = home.path().join("rustup/settings.toml");
        cas_fs::write(&settings, b"default_toolchain = \"stable-x86_64\"\n").expect("the folder is ours");
        let host = Host {
            path: vec![home.path().join("cargo-home/bin")],
            rustup_home: Some(home.path().join("rustup")),
            ..Host::default()
        };
        for (channel, expected) in
            [(None, Some("stable-x86_64")), (Some("1.80"), Some("1.80-x86_64")), (Some("nightly"), None)]
        {
            let folder = expected.map(|name| home.path().join("rustup/toolchains").join(name).join("bin"));
            assert_eq!(host.cargo(channel).map(|program| program.folder), folder, "{channel:?}");
        }
    }
}
