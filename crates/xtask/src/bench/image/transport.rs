//! Images out of the store and into it, beside `cp -r` and skopeo.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::{Bench, output, remove};
use super::peers::is_there;
use super::shape::Cas;
use super::subject::{Cell, Limits, by, timed};
use crate::run::Failure;

/// The section of the page; `cas` builds the image with zstd first.
pub(super) fn section(bench: &Bench, cas: &Cas<'_>, place: &Path, limits: Limits) -> Result<String, Failure> {
    println!("export and import");
    cas.forget_all()?;
    output(&mut cas.build_format("zstd"))?;
    let target = cas.target("zstd");
    let (layout, archive, copy) =
        (bench.folder.join("export"), bench.folder.join("export.tar"), bench.folder.join("copy"));
    let (to_layout, to_archive) =
        (format!("oci:{}:t", layout.display()), format!("oci-archive:{}:t", archive.display()));
    let export = |destination: &str| {
        timed(limits.job, || {
            remove(&layout)?;
            remove_file(&archive)?;
            Ok(bench.cas(place, "cold", &["image", "export", &target, destination]))
        })
    };
    let archived = export(&to_archive)?;
    // The layout stays for what comes next, and the archive is made once more beside it.
    let exported = export(&to_layout)?;
    let copied = timed(limits.job, || {
        remove(&copy)?;
        let mut command = Command::new("cp");
        command.arg("-r").arg(&layout).arg(&copy);
        Ok(command)
    })?;
    let skopeo = if is_there("skopeo") {
        timed(limits.job, || {
            remove(&copy)?;
            let mut command = Command::new("skopeo");
            command.args(["copy", "--quiet", &to_layout, &format!("oci:{}:t", copy.display())]);
            Ok(command)
        })?
    } else {
        Cell::Missing
    };
    remove(&copy)?;
    output(&mut bench.cas(place, "cold", &["image", "export", &target, &to_archive]))?;
    let import = |source: &str| {
        timed(limits.job, || {
            remove(&bench.folder.join("import"))?;
            Ok(bench.cas(place, "import", &["image", "import", source]))
        })
    };
    let imported = import(&to_layout)?;
    let unarchived = import(&to_archive)?;
    for folder in ["import", "export"] {
        remove(&bench.folder.join(folder))?;
    }
    remove_file(&archive)?;
    let mut text = format!(
        "`cp -r` of the layout takes {}, `skopeo copy` of it to another layout {}.\n\n\
         | job | cas | its speed by that of `cp -r` | cas / skopeo |\n|---|---|---|---|\n",
        copied.text(),
        skopeo.text()
    );
    for (job, cell) in [
        ("`image export` to `oci:`", exported),
        ("`image export` to `oci-archive:`", archived),
        ("`image import` from `oci:`, nothing known", imported),
        ("`image import` from `oci-archive:`, nothing known", unarchived),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {job} | {} | {} | {} |",
            cell.text(),
            by(copied.time(), cell.time()),
            by(cell.time(), skopeo.time())
        );
    }
    Ok(text)
}

fn remove_file(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}
