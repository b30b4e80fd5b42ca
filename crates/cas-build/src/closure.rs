//! What a rebuild needs, packed to lie beside an image, and unpacked again. Format: docs/formats/inputs.md.
//!
//! Not here: what something was made of (`provenance`), sending it (`cas-sync`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Seek, Write};
use std::path::Path;

use cas_action::{action_parts, directory_parts};
use cas_attest::{Input, Provenance};
use cas_blob::{Descriptor, OpenBlob};
use cas_digest::{Digest, DigestFunction};
use cas_oci::{PackEntry, pack_length, read_pack, write_pack};
use cas_store::{Store, StoreError};
use cas_tar::{Codec, Compression, decompress};

use crate::provenance::MAX_MESSAGE_BYTES;
use crate::{Artifact, ArtifactPart, BuildError, Described, download};

/// A blob of this length is a pack of its own.
const LARGE_BYTES: u64 = 1 << 20;
/// What a pack of smaller ones has on average at most.
const PACK_BYTES: u64 = 8 << 20;
/// Most packs of smaller ones: the first byte of a digest tells them apart.
const MAX_PACKS: u64 = 256;
/// Most bytes of a pack that is read.
const MAX_PACK_BYTES: u64 = 64 << 30;
/// Kinds of inputs that are of a workspace, or named with their sizes.
const NO_DOWNLOADS: [&str; 3] = ["image", "link", "source"];
/// Longest configuration.
const MAX_CONFIG_BYTES: u64 = 32 << 20;

/// Inputs of a build, packed in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedInputs {
    /// The predicate of the provenance.
    pub config: Descriptor,
    /// Packs, in their order.
    pub packs: Vec<Descriptor>,
    /// How many blobs are in them.
    pub blob_count: usize,
}

/// Packs all that a provenance names, and what else a build asks for; names are by SHA-256.
///
/// # Errors
///
/// [`StoreError::Missing`] for what the store has lost, and what it says else.
pub fn pack_inputs(store: &Store, described: &Described) -> Result<PackedInputs, BuildError> {
    let Described { provenance, beside, .. } = described;
    let entries = entries(store, provenance, beside)?;
    let blob_count = entries.len();
    let mut packs = Vec::new();
    for pack in split(entries) {
        packs.push(put_pack(store, &pack)?);
    }
    let config = store.put_bytes(DigestFunction::Sha256, provenance.encode().as_bytes())?;
    Ok(PackedInputs { config, packs, blob_count })
}

/// Every blob that a rebuild reads, by its name and further digests, in the order of names.
fn entries(store: &Store, provenance: &Provenance, beside: &BTreeSet<Input>) -> Result<Vec<PackEntry>, BuildError> {
    let mut found: BTreeMap<Descriptor, BTreeSet<Digest>> = BTreeMap::new();
    // Directories are shared by steps.
    let mut seen = BTreeSet::new();
    for action in provenance.actions.values() {
        let unknown =
            || BuildError::Store(StoreError::Missing(Descriptor::of(DigestFunction::Sha256, action.as_bytes())));
        let action: Descriptor = action.parse().map_err(|_| unknown())?;
        reach(store, &action, &mut seen)?;
    }
    found.extend(seen.into_iter().map(|blob| (blob, BTreeSet::new())));
    let function = DigestFunction::ALL.into_iter().find(|known| known.name() == provenance.digest_function);
    for input in provenance.inputs.iter().chain(beside).filter(|input| input.kind != "link") {
        let names = names(input);
        let mut here = None;
        for name in &names {
            if here.is_none() && store.contains(name)? {
                here = Some(*name);
            }
        }
        let missing = || StoreError::Missing(names[0]);
        let primary = store.name_with(function.unwrap_or(DigestFunction::Sha256), &here.ok_or_else(missing)?)?;
        let further = names.into_iter().map(|name| name.digest).filter(|digest| *digest != primary.digest);
        found.entry(primary).or_default().extend(further);
    }
    let entry =
        |(blob, digests): (Descriptor, BTreeSet<Digest>)| PackEntry { blob, digests: digests.into_iter().collect() };
    Ok(found.into_iter().map(entry).collect())
}

/// The names of an input by functions that are known, SHA-256 among them.
fn names(input: &Input) -> Vec<Descriptor> {
    let named = |(function, value): (&String, &String)| {
        let function = DigestFunction::ALL.into_iter().find(|known| known.name() == function)?;
        Some(Descriptor { digest: Digest::from_hex(function, value).ok()?, size: input.size })
    };
    let mut names: Vec<Descriptor> = input.digests.iter().filter_map(named).collect();
    if names.is_empty() {
        names.push(Descriptor::of(DigestFunction::Sha256, input.name.as_bytes()));
    }
    names
}

/// An action with all that it names.
fn reach(store: &Store, action: &Descriptor, seen: &mut BTreeSet<Descriptor>) -> Result<(), BuildError> {
    let function = action.digest.function();
    let damaged = |what: &Descriptor| BuildError::Record { what: *what };
    let parts = action_parts(&store.load(action, MAX_MESSAGE_BYTES)?, function).ok_or_else(|| damaged(action))?;
    seen.extend([*action, parts.command]);
    let mut open = vec![parts.input_root];
    while let Some(directory) = open.pop() {
        if !seen.insert(directory) {
            continue;
        }
        let bytes = store.load(&directory, MAX_MESSAGE_BYTES)?;
        let parts = directory_parts(&bytes, function).ok_or_else(|| damaged(&directory))?;
        seen.extend(parts.files.into_iter().map(|(_, file)| file));
        open.extend(parts.directories.into_iter().map(|(_, child)| child));
    }
    Ok(())
}

/// Which blobs are packed together.
fn split(entries: Vec<PackEntry>) -> Vec<Vec<PackEntry>> {
    let (large, small): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.blob.size >= LARGE_BYTES);
    let total: u64 = small.iter().map(|entry| entry.blob.size).sum();
    let count = total.div_ceil(PACK_BYTES).max(1).next_power_of_two().min(MAX_PACKS);
    let mut packs: BTreeMap<u64, Vec<PackEntry>> = BTreeMap::new();
    for entry in small {
        let first = entry.blob.digest.value().first().copied().unwrap_or_default();
        packs.entry(u64::from(first) * count / MAX_PACKS).or_default().push(entry);
    }
    packs.into_values().chain(large.into_iter().map(|entry| vec![entry])).collect()
}

fn put_pack(store: &Store, entries: &[PackEntry]) -> Result<Descriptor, BuildError> {
    let folder = cas_fs::temporary_dir_in(store.scratch(), "pack-")?;
    let packed = put_pack_in(store, entries, &folder);
    cas_fs::remove_tree(&folder)?;
    packed
}

fn put_pack_in(store: &Store, entries: &[PackEntry], folder: &Path) -> Result<Descriptor, BuildError> {
    let path = folder.join("pack");
    let file = cas_fs::create_new(&path, 0o600)?;
    let sink = io::BufWriter::new(file);
    let mut encoder = Codec::Zstd3.encoder(sink, pack_length(entries)).map_err(BuildError::Compress)?;
    let open = |blob: &Descriptor| store.open_blob(blob).map_err(io::Error::other);
    write_pack(entries, open, &mut encoder).map_err(BuildError::Compress)?;
    let (mut sink, _) = encoder.finish().map_err(BuildError::Compress)?;
    sink.flush().map_err(BuildError::Compress)?;
    drop(sink);
    let mut file = cas_fs::open(&path)?;
    file.rewind().map_err(BuildError::Compress)?;
    Ok(store.put(DigestFunction::Sha256, &mut file)?)
}

/// Stores what an artifact with inputs has: how many blobs, and the provenance that they are of, which nobody has proved.
///
/// # Errors
///
/// [`BuildError::Image`] for what is no such artifact, or has other bytes than it names.
pub fn unpack_inputs(store: &Store, artifact: &Artifact) -> Result<(usize, Provenance), BuildError> {
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Image {
        place: artifact.reference.clone(),
        source,
    };
    let config = store.load(&artifact.config, MAX_CONFIG_BYTES)?;
    let provenance = Provenance::decode(&config).map_err(|error| damaged(Box::new(error)))?;
    let mut count = 0;
    for part in &artifact.parts {
        let ArtifactPart::File(blob) = part else { continue };
        let source = store.open_blob(blob).map_err(StoreError::from)?;
        let source = decompress(source, Compression::Zstd, MAX_PACK_BYTES).map_err(BuildError::Compress)?;
        let unpacked = read_pack(&mut BufReader::new(source), |entry, content| {
            count += 1;
            let mut source = content;
            store.put_expected(&mut source, &entry.blob).map_err(Unpack::Store)?;
            for digest in &entry.digests {
                let named = store.name_with(digest.function(), &entry.blob).map_err(Unpack::Store)?;
                if named.digest != *digest {
                    let said = format!("`{}` is not `{digest}`", entry.blob);
                    return Err(Unpack::Read(io::Error::new(io::ErrorKind::InvalidData, said)));
                }
                // Pins of downloads know no sizes.
                download::remember(store, &named).map_err(Unpack::Store)?;
            }
            Ok(())
        });
        unpacked.map_err(|error| match error {
            Unpack::Store(error) => BuildError::from(error),
            Unpack::Read(error) => damaged(Box::new(error)),
        })?;
    }
    // The first name of a blob may be the one that a pin knows.
    for input in provenance.inputs.iter().filter(|input| !NO_DOWNLOADS.contains(&&*input.kind)) {
        for name in names(input) {
            if store.contains(&name)? {
                download::remember(store, &name)?;
            }
        }
    }
    Ok((count, provenance))
}

/// What goes wrong while a pack is read.
enum Unpack {
    Store(StoreError),
    Read(io::Error),
}

impl From<io::Error> for Unpack {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, size: u64) -> PackEntry {
        let digest = Digest::of(DigestFunction::Blake3, &number.to_le_bytes());
        PackEntry { blob: Descriptor { digest, size }, digests: Vec::new() }
    }

    #[test]
    fn a_blob_that_changes_changes_its_own_pack_alone() {
        let mut entries: Vec<PackEntry> = (0..4000).map(|number| entry(number, 9000)).collect();
        entries.push(entry(5000, LARGE_BYTES));
        entries.sort();
        let before = split(entries.clone());
        assert_eq!(before.len(), 9, "36 MB are eight packs, and the large one has its own");
        assert_eq!(before[8].len(), 1);
        assert_eq!(before.iter().map(Vec::len).sum::<usize>(), 4001);
        let at = entries.iter().position(|one| one.blob.size == 9000).expect("most are small");
        entries[at] = entry(6000, 9000);
        entries.sort();
        let after = split(entries);
        let same = before.iter().filter(|pack| after.contains(pack)).count();
        assert!((7..=8).contains(&same), "{same}");
        assert!(split(Vec::new()).is_empty());
    }
}
