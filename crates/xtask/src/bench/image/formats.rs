//! Every layer format of `cas`, on one tree: time, size, memory.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::{count, peak_kib};
use super::shape::Cas;
use super::subject::{megabytes, timed};
use super::tree::Tree;
use crate::run::Failure;

/// The formats as `cas.toml` has them.
pub(super) const ALL: [&str; 5] = ["none", "gzip", "zstd", "zstd:chunked", "estargz"];

/// The section of the page.
pub(super) fn section(cas: &Cas<'_>, tree: &mut Tree, limit: Duration) -> Result<String, Failure> {
    let mut text =
        "| format | cold | one file changed | MB of the layout | most memory, cold |\n|---|---|---|---|---|\n"
            .to_owned();
    for format in ALL {
        println!("format {format}");
        let cold = timed(limit, || {
            cas.forget_all()?;
            Ok(cas.build_format(format))
        })?;
        let size = count(&cas.layout_of(format))?.1;
        let changed = timed(limit, || {
            tree.change()?;
            Ok(cas.build_format(format))
        })?;
        // Not while it is timed: who measures this starts it.
        cas.forget_all()?;
        let peak = peak_kib(&cas.build_format(format))?;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{format}` | {} | {} | {} | {} MiB |",
            cold.text(),
            changed.text(),
            megabytes(size),
            peak / 1024
        );
    }
    Ok(text)
}
