//! Pins: names that keep what they point to, and survive the loss of the index.
//!
//! A pin is a small file, `pins/<name>`: a line for each blob or tree that it keeps, and for each second name by which
//! something of it is known. Format: docs/formats/store.md, "Pins".

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};

use crate::StoreError;
use crate::disk::{Disk, Replacement, Site, read_file, replace_durably};
use crate::vault::Vault;

/// Most bytes of a pin's file: more than 100,000 lines.
pub(crate) const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Longest name of a pin.
const MAX_NAME_BYTES: usize = 200;
const HEADER: &str = "cas pin 2";
/// Pins had no checksum before.
const OLD_HEADER: &str = "cas pin 1";

/// What is kept: a blob, or a tree with everything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// The bytes alone.
    Blob(Descriptor),
    /// A directory, those below it, and the content of their files.
    Tree(Descriptor),
}

impl Keep {
    /// The blob, or the tree's top directory.
    #[must_use]
    pub const fn blob(&self) -> &Descriptor {
        match self {
            Self::Blob(blob) | Self::Tree(blob) => blob,
        }
    }
}

/// A pin: a name and what it keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin {
    /// Letters, digits, `.`, `_`, `-`, `+`, `@`, `:` and `/`.
    pub name: String,
    /// The pin ends when there is nothing at this path.
    pub lifetime: Option<PathBuf>,
    /// What it keeps, in the order in which it was given.
    pub keeps: Vec<Keep>,
    /// Second names of what it keeps, each with the name under which the bytes are stored.
    pub names: Vec<(Descriptor, Descriptor)>,
}

/// What was found where a listing said that there is a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PinFile {
    /// A pin.
    Whole(Pin),
    /// Nobody knows what it keeps.
    Damaged,
    /// It was ended since it was listed, and keeps nothing any more.
    Gone,
}

/// Text of a pin's file.
pub(crate) fn encode(pin: &Pin) -> String {
    let mut text = format!("{HEADER}\n");
    if let Some(path) = &pin.lifetime {
        text.push_str("while ");
        for byte in path.as_os_str().as_bytes() {
            match byte {
                b'%' | 0..=b' ' | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
                _ => text.push(char::from(*byte)),
            }
        }
        text.push('\n');
    }
    for (name, primary) in &pin.names {
        text.push_str(&format!("name {name} {primary}\n"));
    }
    for keep in &pin.keeps {
        let line = match keep {
            Keep::Blob(blob) => format!("blob {blob}\n"),
            Keep::Tree(tree) => format!("tree {tree}\n"),
        };
        text.push_str(&line);
    }
    let check = check(&text);
    text.push_str(&format!("end {check}\n"));
    text
}

fn check(text: &str) -> String {
    Digest::of(DigestFunction::Blake3, text.as_bytes()).to_hex()
}

/// The opposite, but for the name. A text without its last line was cut, and is none; one that was changed is none either.
pub(crate) fn decode(bytes: &[u8]) -> Option<Pin> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (body, last) = text.rsplit_once('\n')?;
    let mut lines = body.split('\n');
    match lines.next()? {
        HEADER if last.strip_prefix("end ")? == check(&text[..=body.len()]) => {}
        OLD_HEADER if last == "end" => {}
        _ => return None,
    }
    let mut pin = Pin::default();
    for line in lines {
        let (kind, value) = line.split_once(' ')?;
        match kind {
            "while" if pin.lifetime.is_none() => pin.lifetime = Some(decode_path(value)?),
            "name" => {
                let (name, primary) = value.split_once(' ')?;
                pin.names.push((name.parse().ok()?, primary.parse().ok()?));
            }
            "blob" => pin.keeps.push(Keep::Blob(value.parse().ok()?)),
            "tree" => pin.keeps.push(Keep::Tree(value.parse().ok()?)),
            _ => return None,
        }
    }
    Some(pin)
}

fn decode_path(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    (!bytes.is_empty()).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

/// Name of the pin that a file is.
pub(crate) fn name_of(file_name: &OsStr) -> Option<String> {
    let name = file_name.to_str()?.replace("%2F", "/");
    (self::file_name(&name).ok()?.as_str() == file_name).then_some(name)
}

fn file_name(name: &str) -> Result<String, StoreError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+@:/".contains(c);
    let coded = name.replace('/', "%2F");
    if coded.is_empty() || coded.len() > MAX_NAME_BYTES || coded.starts_with('.') || !name.chars().all(allowed) {
        return Err(StoreError::PinName(name.to_owned()));
    }
    Ok(coded)
}

impl<D: Disk> Vault<D> {
    /// Writes a pin, durably, in place of the one of its name. What it keeps must be here and flushed.
    pub(crate) fn pin(&self, pin: &Pin) -> Result<(), StoreError> {
        self.check_poison()?;
        let path = self.folder.join("pins").join(file_name(&pin.name)?);
        let text = encode(pin);
        if text.len() > MAX_BYTES {
            return Err(StoreError::PinTooLong(pin.name.clone()));
        }
        if read_file(&*self.disk, &path, MAX_BYTES)?.is_some_and(|bytes| bytes == text.as_bytes()) {
            return Ok(());
        }
        let temporary = self.temporary("pin");
        let sites = Replacement { sync: Site::SyncPin, rename: Site::RenamePin, sync_folder: Site::SyncPinFolder };
        replace_durably(&*self.disk, &temporary, &path, text.as_bytes(), sites)
            .map_err(|error| self.flush_failed(error))
    }

    /// Whether there is a pin of this name.
    pub(crate) fn has_pin(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.disk.stat(&self.folder.join("pins").join(file_name(name)?))?.is_some())
    }

    /// Ends a pin; `false` when there is none of this name.
    pub(crate) fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        self.check_poison()?;
        let folder = self.folder.join("pins");
        if !self.disk.remove(&folder.join(file_name(name)?))? {
            return Ok(false);
        }
        self.disk.sync_folder(Site::SyncPinRemoval, &folder).map_err(|error| self.flush_failed(error))?;
        Ok(true)
    }

    /// All pins, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`StoreError::Pin`] for one that cannot be read: nothing may be collected then.
    pub(crate) fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let folder = self.folder.join("pins");
        let mut pins = Vec::new();
        for entry in self.disk.list(&folder)? {
            let path = folder.join(&entry.name);
            match self.read_pin(&entry.name, &path)? {
                PinFile::Whole(pin) => pins.push(pin),
                PinFile::Damaged => return Err(StoreError::Pin { path }),
                PinFile::Gone => {}
            }
        }
        Ok(pins)
    }

    /// The pin in a file that was listed.
    pub(crate) fn read_pin(&self, file_name: &OsStr, path: &Path) -> Result<PinFile, StoreError> {
        let Some(bytes) = read_file(&*self.disk, path, MAX_BYTES)? else {
            let is_too_long = self.disk.stat(path)?.is_some();
            return Ok(if is_too_long { PinFile::Damaged } else { PinFile::Gone });
        };
        let pin = name_of(file_name).and_then(|name| Some(Pin { name, ..decode(&bytes)? }));
        Ok(pin.map_or(PinFile::Damaged, PinFile::Whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_as_they_were_written_and_cut_ones_are_none() {
        let of = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        let pin = Pin {
            name: String::new(),
            lifetime: Some(PathBuf::from(OsString::from_vec(b"/a b/%\n\xff/cas.lock".to_vec()))),
            keeps: vec![Keep::Blob(of("blob")), Keep::Tree(of("tree"))],
            names: vec![(Descriptor::of(DigestFunction::Sha256, b"blob"), of("blob"))],
        };
        let text = encode(&pin);
        assert_eq!(decode(text.as_bytes()), Some(pin));
        for length in 0..text.len() {
            assert_eq!(decode(&text.as_bytes()[..length]), None, "{length}");
            let mut changed = text.clone().into_bytes();
            changed[length] ^= 1;
            assert_eq!(decode(&changed), None, "another byte at {length}");
        }
        assert_eq!(decode(b"cas pin 1\nend\n"), Some(Pin::default()));
    }

    #[test]
    fn names_of_pins_are_names_of_files() {
        for (name, file) in
            [("a", Some("a")), ("apps/web:image@1", Some("apps%2Fweb:image@1")), ("v1.2+3_x-y", Some("v1.2+3_x-y"))]
        {
            assert_eq!(file_name(name).ok().as_deref(), file, "{name}");
            assert_eq!(name_of(OsStr::new(file.unwrap())).as_deref(), Some(name));
        }
        for name in ["", ".", ".hidden", "a b", "a%2Fb", "a\nb", "ä", &"x".repeat(201)] {
            assert!(matches!(file_name(name), Err(StoreError::PinName(_))), "{name:?}");
        }
        assert_eq!(name_of(OsStr::new("a%2fb")), None);
    }
}
