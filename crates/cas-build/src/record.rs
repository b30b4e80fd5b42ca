//! What was left at which places of a workspace, and how it looked then. Format: docs/formats/checkout.md.
//!
//! A record that is lost makes what it told of somebody else's: it is not touched then. A path can have several lines, of
//! what was there and of what was about to be written when the process ended.

use std::collections::BTreeMap;
use std::path::Path;

use cas_blob::Descriptor;
use cas_fs::FsError;
use cas_tree::RelPath;

/// The first lines.
const HEAD: &str = "cas checkout 1";
const ROOTS_HEAD: &str = "cas checkout places 1";
/// Longest record that is read: a hundred thousand files take 20 MiB.
const MAX_BYTES: u64 = 1 << 30;
const FILE: &str = "checked-out";
const ROOTS: &str = "checked-out-places";

/// What was left at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) what: What,
    /// How it looked; `None` when it was only about to be written.
    pub(crate) looks: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    File { blob: Descriptor, is_executable: bool },
    Symlink { target: Descriptor },
}

/// What was left where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    /// Places, with the labels of those whose outputs they hold.
    pub(crate) roots: BTreeMap<RelPath, String>,
    pub(crate) paths: BTreeMap<RelPath, Vec<Known>>,
}

impl Record {
    /// Reads a workspace's record; what cannot be read is empty.
    pub(crate) fn read(folder: &Path) -> Self {
        let text = cas_fs::read_limited(&folder.join(FILE), MAX_BYTES).ok();
        let paths = text.and_then(|bytes| parse(std::str::from_utf8(&bytes).ok()?)).unwrap_or_default();
        Self { roots: Self::read_roots(folder), paths }
    }

    /// The places alone.
    pub(crate) fn read_roots(folder: &Path) -> BTreeMap<RelPath, String> {
        let text = cas_fs::read_limited(&folder.join(ROOTS), MAX_BYTES).ok();
        text.and_then(|bytes| parse_roots(std::str::from_utf8(&bytes).ok()?)).unwrap_or_default()
    }

    /// Writes it; the places first, so that nothing is at one that is not known.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), FsError> {
        let mut roots = format!("{ROOTS_HEAD}\n");
        for (path, label) in &self.roots {
            roots.push_str(&format!("{}\t{}\n", quoted(path.as_bytes()), quoted(label.as_bytes())));
        }
        cas_fs::write_atomic(&folder.join(ROOTS), roots.as_bytes())?;
        let mut text = format!("{HEAD}\n");
        for (path, known) in &self.paths {
            for Known { what, looks } in known {
                let (kind, blob) = match what {
                    What::File { blob, is_executable: false } => ("file", blob),
                    What::File { blob, is_executable: true } => ("program", blob),
                    What::Symlink { target } => ("link", target),
                };
                let looks = looks.as_deref().unwrap_or("-");
                text.push_str(&format!("{}\t{kind}\t{blob}\t{looks}\n", quoted(path.as_bytes())));
            }
        }
        cas_fs::write_atomic(&folder.join(FILE), text.as_bytes())
    }

    /// Adds what is about to be written.
    pub(crate) fn expect(&mut self, roots: &BTreeMap<RelPath, String>, coming: impl Iterator<Item = (RelPath, Known)>) {
        self.roots.extend(roots.iter().map(|(path, label)| (path.clone(), label.clone())));
        for (path, known) in coming {
            let all = self.paths.entry(path).or_default();
            if !all.iter().any(|other| other.what == known.what) {
                all.push(known);
            }
        }
    }

    /// Puts what is at places now in the place of what was.
    pub(crate) fn settle(&mut self, places: &[RelPath], roots: &BTreeMap<RelPath, String>, now: Vec<(RelPath, Known)>) {
        self.roots.retain(|path, _| !places.contains(path));
        self.roots.extend(roots.clone());
        let is_meant = |path: &RelPath| places.iter().any(|place| path == place || path.strip_prefix(place).is_some());
        self.paths.retain(|path, _| !is_meant(path));
        self.paths.extend(now.into_iter().map(|(path, known)| (path, vec![known])));
    }
}

fn parse(text: &str) -> Option<BTreeMap<RelPath, Vec<Known>>> {
    let mut lines = text.lines();
    (lines.next()? == HEAD).then_some(())?;
    let mut paths: BTreeMap<RelPath, Vec<Known>> = BTreeMap::new();
    for line in lines {
        let mut parts = line.split('\t');
        let (path, kind) = (unquoted(parts.next()?)?, parts.next()?);
        let (blob, looks) = (parts.next()?.parse().ok()?, parts.next()?);
        let what = match kind {
            "file" => What::File { blob, is_executable: false },
            "program" => What::File { blob, is_executable: true },
            "link" => What::Symlink { target: blob },
            _ => return None,
        };
        let looks = (looks != "-").then(|| looks.to_owned());
        paths.entry(RelPath::new(path).ok()?).or_default().push(Known { what, looks });
    }
    Some(paths)
}

fn parse_roots(text: &str) -> Option<BTreeMap<RelPath, String>> {
    let mut lines = text.lines();
    (lines.next()? == ROOTS_HEAD).then_some(())?;
    lines
        .map(|line| {
            let (path, label) = line.split_once('\t')?;
            Some((RelPath::new(unquoted(path)?).ok()?, String::from_utf8(unquoted(label)?).ok()?))
        })
        .collect()
}

/// Bytes on one line: control characters, `%` and what is not ASCII as `%` and two digits.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => text.push_str(&format!("%{byte:02x}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

fn unquoted(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first == b'%' {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let home = tempfile::tempdir().expect("the temporary folder is writable");
        let path = |bytes: &[u8]| RelPath::new(bytes).expect("it is a path");
        let blob = Descriptor::of(DigestFunction::Blake3, b"x");
        let file = |is_executable, looks: Option<&str>| Known {
            what: What::File { blob, is_executable },
            looks: looks.map(str::to_owned),
        };
        let link = Known { what: What::Symlink { target: blob }, looks: Some("1:2".to_owned()) };
        let record = Record {
            roots: [(path(b"a b/di\tst"), "//a b:x".to_owned()), (path(b"\xff"), "//:y".to_owned())].into(),
            paths: [
                (path(b"a b/di\tst/100%\n"), vec![file(false, Some("1")), file(true, None)]),
                (path(b"\xff"), vec![link]),
            ]
            .into(),
        };
        record.write(home.path()).expect("the disk has room");
        assert_eq!(Record::read(home.path()), record);
        for wrong in ["", "cas checkout 2\n", "cas checkout 1\na\tfile\tx\t-\n", "cas checkout 1\n%0\tfile\n"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
