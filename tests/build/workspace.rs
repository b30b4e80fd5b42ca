//! Workspaces with a toolchain of busybox.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::Home;
use crate::toolchain::{lock, package};

/// What a manifest needs to say for [`Home::with_busybox`].
pub(crate) const SECTION: &str =
    "[toolchain.sh]\ndebian = { suite = \"test\", packages = [\"busybox\"], mirror = \"MIRROR\" }\n";

impl Home {
    /// A workspace with the toolchain `//:sh` and files by path. `None` after saying that the test is skipped.
    pub(crate) fn with_busybox(manifest: &str, files: &[(&str, &str)]) -> Option<Self> {
        let package = package()?;
        let home = Self::new(&format!("{manifest}\n{SECTION}"));
        let mirror = home.folder.path().join("mirror");
        fs::create_dir(&mirror).unwrap();
        fs::write(mirror.join("busybox.deb"), &package).unwrap();
        let path = home.workspace().join("cas.toml");
        let text = fs::read_to_string(&path).unwrap().replace("MIRROR", &format!("file://{}", mirror.display()));
        fs::write(&path, text).unwrap();
        fs::write(home.workspace().join("cas.lock"), lock(&package)).unwrap();
        for (path, content) in files {
            home.write(path, content);
        }
        Some(home)
    }

    /// Writes a file of the workspace; content that begins with `#!` makes it executable.
    pub(crate) fn write(&self, path: &str, content: &str) {
        let path: &Path = &self.workspace().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.workspace().join(path)).unwrap()
    }
}
