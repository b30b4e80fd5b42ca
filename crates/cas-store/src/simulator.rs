//! The crash simulator: the code that ships, over a file system that knows what a crash leaves.
//!
//! A seeded workload runs over the model. Then the machine crashes after each operation that it recorded, in each way the
//! model knows, the store is opened again, and everything that was promised is checked: what is said to be here reads back
//! right; what was acknowledged as durable is here; sealed objects need no second look; pins are what they were; afterwards
//! everything can be put again and the check of the store finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};

use crate::check::Depth;
use crate::collect::{Kind, Victim};
use crate::disk::model::{Crash, Faults, ModelDisk};
use crate::disk::{Access, Disk, Site, write_all};
use crate::format::{self, Format};
use crate::lease::Record;
use crate::pins::{Keep, Pin};
use crate::room::Amount;
use crate::roots::{encode_size, root_name};
use crate::vault::Vault;
use crate::{Durability, Quota, StoreError};

const HOME: &str = "/store";

fn lot(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// Something that was promised when the record had `at` changes.
#[derive(Clone, Debug)]
enum Promise {
    /// The blob is here, whatever happens.
    Durable(Descriptor),
    /// The blob is here and needs no second look.
    Sealed(Descriptor),
    /// From now on the blob may be gone.
    Condemned(Descriptor),
    /// Somebody began to change a pin: until it is done, it is either.
    PinBegins(String),
    /// The pin keeps this, or is gone.
    Pin(String, Option<Vec<Keep>>),
    /// Somebody began to set a limit: until it is done, it is either.
    LimitBegins,
    /// The limit is this.
    Limit(Option<u64>),
    /// Its bits rot: only a reader can know.
    Rots(Descriptor),
    /// It was put, so that what is here is whole.
    Put(Descriptor),
}

/// A workload that ran, and what it was promised.
struct Run {
    disk: ModelDisk,
    promises: Vec<(usize, Promise)>,
    blobs: Vec<(Descriptor, Vec<u8>)>,
    roots: Vec<PathBuf>,
    /// Without a crash, what was put must be found, and what was moved aside must not.
    violations: Vec<String>,
    /// How many changes the record had when something was done, and what that was.
    kinds: Vec<(usize, &'static str)>,
    /// The store has a limit that its content comes up to.
    is_limited: bool,
}

impl Run {
    /// What was being done when the record had `position` changes.
    fn kind(&self, position: usize) -> &'static str {
        self.kinds.iter().find(|(end, _)| position < *end).map_or("end", |(_, kind)| kind)
    }
}

/// What there is when a workload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// Nothing: the making of the store is part of the record.
    Nothing,
    /// A store.
    Store,
    /// One of before there were descriptions: its conversion is part of the record.
    OldStore,
}

/// Puts objects where a program of before there were descriptions has put them; the last one is torn.
fn make_old_store(disk: &ModelDisk, random: &mut u64) -> Vec<(Descriptor, Vec<u8>)> {
    let objects = Path::new(HOME).join("objects");
    disk.create_folder(&objects).unwrap();
    for function in crate::objects::FUNCTIONS {
        disk.create_folder(&objects.join(function.name())).unwrap();
        for byte in 0..=255u8 {
            disk.create_folder(&objects.join(function.name()).join(format!("{byte:02x}"))).unwrap();
        }
    }
    let objects = objects.join("blake3");
    let mut blobs: Vec<(Descriptor, Vec<u8>)> = Vec::new();
    for number in 0..6 {
        let bytes = [content(random), format!(" of an old store: {number}").into_bytes()].concat();
        let blob = Descriptor::of(DigestFunction::Blake3, &bytes);
        let hex = blob.digest.to_hex();
        let file = disk.open(&objects.join(&hex[..2]).join(&hex[2..]), Access::New).unwrap().unwrap();
        write_all(disk, &file, 0, if number == 5 { &bytes[..bytes.len() / 2] } else { &bytes }).unwrap();
        blobs.push((blob, bytes));
    }
    blobs
}

fn open(disk: &Arc<ModelDisk>, durability: Durability) -> Result<Arc<Vault<ModelDisk>>, StoreError> {
    Ok(Arc::new(Vault::open(Arc::clone(disk), Path::new(HOME), durability)?))
}

fn content(seed: &mut u64) -> Vec<u8> {
    // Mostly small; some are longer than what is read in one piece.
    let size = if lot(seed, 12) == 0 { 270_000 } else { 1 + lot(seed, 60) };
    let fill = u8::try_from(lot(seed, 256)).unwrap();
    let mut bytes = vec![fill; usize::try_from(size).unwrap()];
    let tag = lot(seed, 40).to_le_bytes();
    let count = tag.len().min(bytes.len());
    bytes[..count].copy_from_slice(&tag[..count]);
    bytes
}

fn read(vault: &Arc<Vault<ModelDisk>>, blob: &Descriptor) -> Result<Option<Vec<u8>>, String> {
    let Some(mut content) = vault.open_object(blob).map_err(|error| format!("{error:?}"))? else { return Ok(None) };
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(Some(bytes))
}

/// Runs `steps` operations chosen by `seed`.
fn run(seed: u64, steps: usize, unnamed: bool, start: Start, disabled: Option<Site>) -> Run {
    let mut model = ModelDisk::new(seed);
    model.unnamed = unnamed;
    model.disabled = disabled;
    model.create_folder(Path::new(HOME)).unwrap();
    // Trees of a version that did not say when it wrote them.
    if lot(&mut { seed }, 2) == 0 {
        for at in ["roots", "trash", "roots/old", "roots/old/file"] {
            model.create_folder(&Path::new(HOME).join(at)).unwrap();
        }
    }
    let disk = Arc::new(model);
    let mut random = seed;
    let mut promises = Vec::new();
    let mut violations = Vec::new();
    let mut blobs: Vec<(Descriptor, Vec<u8>)> = Vec::new();
    if start == Start::OldStore {
        blobs = make_old_store(&disk, &mut random);
        disk.begin_here();
        // It was there for long, so the disk has it; but for the torn one.
        promises.extend(blobs[..5].iter().map(|(blob, _)| (0, Promise::Durable(*blob))));
    }
    let mut roots = Vec::new();
    let mut vaults = vec![open(&disk, Durability::Epoch).unwrap(), open(&disk, Durability::Durable).unwrap()];
    // What each open vault put and did not seal.
    let mut unsealed: Vec<Vec<Descriptor>> = vec![Vec::new(), Vec::new()];
    if start == Start::Store {
        disk.begin_here();
    }
    let mut kinds = vec![(disk.position(), if start == Start::OldStore { "migrate" } else { "make" })];
    for _ in 0..steps {
        let which = usize::try_from(lot(&mut random, vaults.len() as u64)).unwrap();
        let vault = Arc::clone(&vaults[which]);
        let mut promise = |promise| promises.push((disk.position(), promise));
        let step = lot(&mut random, 21);
        match step {
            0..=8 => {
                // Often something that is there already, perhaps of another level.
                let again = if lot(&mut random, 3) == 0 { blobs.last().cloned() } else { None };
                let bytes = again.as_ref().map_or_else(|| content(&mut random), |(_, bytes)| bytes.clone());
                let function = match again {
                    Some((blob, _)) => blob.digest.function(),
                    None if lot(&mut random, 3) == 0 => DigestFunction::Sha256,
                    None => DigestFunction::Blake3,
                };
                let blob = if lot(&mut random, 2) == 0 {
                    vault.put(function, &mut bytes.as_slice()).unwrap()
                } else {
                    let blob = Descriptor::of(function, &bytes);
                    vault.put_expected(&mut bytes.as_slice(), &blob).unwrap();
                    blob
                };
                if vault.durability == Durability::Durable {
                    promise(Promise::Durable(blob));
                }
                if !vault.contains(&blob).unwrap_or(false) {
                    violations.push(format!("{blob} was put and is not here"));
                }
                promise(Promise::Put(blob));
                unsealed[which].push(blob);
                blobs.push((blob, bytes));
            }
            9 | 10 => {
                vault.seal().unwrap();
                // All of the sessions that took part: this one's alone, others go on in their epochs.
                let sealed = vault.epochs.sealed_now();
                for blob in std::mem::take(&mut unsealed[which]) {
                    let stat = disk.stat(&vault.path(&blob.digest)).unwrap();
                    // One that another session found damaged and put again is of that session's epoch.
                    let is_own = !unsealed.iter().any(|list| list.contains(&blob));
                    if is_own && stat.is_some_and(|stat| !sealed(stat.mark)) {
                        violations.push(format!("{blob} was put before a seal and is not sealed"));
                    }
                }
                for (blob, _) in &blobs {
                    let stat = disk.stat(&vault.path(&blob.digest)).unwrap();
                    if stat.is_some_and(|stat| sealed(stat.mark)) {
                        promise(Promise::Sealed(*blob));
                    }
                }
            }
            11 => {
                let name = format!("pin/{}", lot(&mut random, 2));
                if lot(&mut random, 2) == 0 {
                    promise(Promise::PinBegins(name.clone()));
                    vault.unpin(&name).unwrap();
                    promises.push((disk.position(), Promise::Pin(name, None)));
                } else if let Some((blob, _)) = blobs.last() {
                    let keeps = vec![Keep::Blob(*blob)];
                    promise(Promise::PinBegins(name.clone()));
                    let pin = Pin { name: name.clone(), keeps: keeps.clone(), ..Pin::default() };
                    vault.pin(&pin).unwrap();
                    promises.push((disk.position(), Promise::Pin(name, Some(keeps))));
                }
            }
            12 => {
                // Bits rot; the next reader notices.
                if let Some((blob, bytes)) =
                    blobs.get(usize::try_from(lot(&mut random, 1 + blobs.len() as u64)).unwrap())
                    && disk.stat(&vault.path(&blob.digest)).unwrap().is_some()
                {
                    let _ = bytes;
                    promise(Promise::Condemned(*blob));
                    promise(Promise::Rots(*blob));
                    disk.damage(&vault.path(&blob.digest));
                    let _ = read(&vault, blob);
                    if vault.contains(blob).unwrap() {
                        violations.push(format!("damaged {blob} was read and is still said to be here"));
                    }
                    match read(&vault, blob) {
                        Ok(None) => {}
                        other => violations.push(format!("damaged {blob} is still served: {:?}", other.is_ok())),
                    }
                }
            }
            13 | 14 => {
                // A tree written out, in miniature: a folder with a file.
                let made = vault.temporary("root");
                let target = Path::new(HOME).join("roots").join(format!("root-{}", lot(&mut random, 3)));
                if vault.find_root(&target).unwrap() {
                    if disk.peek(&target.join("file")).as_deref() != Some(&b"root"[..]) {
                        violations.push(format!("{} is not whole", target.display()));
                    }
                    vault.remove_root(&target).unwrap();
                    if disk.stat(&target).unwrap().is_some() {
                        violations.push(format!("{} was removed and is here", target.display()));
                    }
                } else {
                    disk.create_folder(&made).unwrap();
                    let file = disk.open(&made.join("file"), Access::New).unwrap().unwrap();
                    write_all(&*disk, &file, 0, b"root").unwrap();
                    vault.publish_root(&made, &target).unwrap();
                    if !vault.find_root(&target).unwrap() {
                        violations.push(format!("{} was made and is not here", target.display()));
                    }
                    roots.push(target);
                }
            }
            15 => {
                // Everything that no pin keeps goes, but what sessions use.
                let pinned: Vec<Descriptor> = vault
                    .pins()
                    .unwrap()
                    .into_iter()
                    .flat_map(|pin| pin.keeps)
                    .map(|keep| match keep {
                        Keep::Blob(blob) | Keep::Tree(blob) => blob,
                    })
                    .collect();
                let mut victims = Vec::new();
                vault
                    .each_object(&mut |digest, stat| {
                        if !pinned.iter().any(|blob| blob.digest == digest) {
                            victims.push(Victim { kind: Kind::Object, digest, stat });
                        }
                        Ok(())
                    })
                    .unwrap();
                for victim in &victims {
                    for (blob, _) in blobs.iter().filter(|(blob, _)| blob.digest == victim.digest) {
                        promise(Promise::Condemned(*blob));
                    }
                }
                let mut collection = vault.begin_collection().unwrap();
                collection.remove(&victims.iter().collect::<Vec<_>>()).unwrap();
                collection.finish().unwrap();
            }
            18 => {
                let max_bytes = Some((1 << 40) + lot(&mut random, 1000));
                promise(Promise::LimitBegins);
                let format = Format { quota: Quota { max_bytes, ..Quota::default() }, ..vault.format.clone() };
                format::write(&*disk, Path::new(HOME), &vault.temporary("format"), &format).unwrap();
                promises.push((disk.position(), Promise::Limit(max_bytes)));
            }
            16 | 17 => {
                // A process ends and another one begins, with no lease and another level.
                let level = [Durability::Epoch, Durability::Durable, Durability::None];
                let level = level[usize::try_from(lot(&mut random, 3)).unwrap()];
                drop(vault);
                vaults.remove(which);
                unsealed.remove(which);
                vaults.push(open(&disk, level).unwrap());
                unsealed.push(Vec::new());
            }
            _ => {
                for (blob, bytes) in blobs.iter().rev().take(3) {
                    match read(&vault, blob) {
                        Ok(None) => {}
                        Ok(Some(found)) if found == *bytes => {}
                        other => violations.push(format!("{blob} reads as {other:?}")),
                    }
                }
            }
        }
        let kind = match step {
            0..=8 => "put",
            9 | 10 => "commit",
            11 => "pin",
            12 => "set aside",
            13 | 14 => "materialise",
            15 => "collect",
            16 | 17 => "end and start",
            18 => "limit",
            _ => "read",
        };
        kinds.push((disk.position(), kind));
    }
    drop(vaults);
    let disk = Arc::into_inner(disk).expect("all vaults are closed");
    Run { disk, promises, blobs, roots, violations, kinds, is_limited: false }
}

/// Bytes that a limited store may hold: two long contents fit, and three do not.
const LIMIT_BYTES: u64 = 700 << 10;

/// What a limited store and whoever makes room in it tell the run.
#[derive(Debug, Default)]
struct Notes {
    promises: Vec<(usize, Promise)>,
    kinds: Vec<(usize, &'static str)>,
    blobs: Vec<(Descriptor, Vec<u8>)>,
}

/// What a store holds.
fn held(vault: &Vault<ModelDisk>) -> Result<Amount, StoreError> {
    let counted = vault.count()?;
    Ok(counted.objects_amount.add(counted.roots_amount))
}

/// Opens a limited store, which makes room as `retain` does: roots go first, then objects that no pin keeps.
fn open_limited(disk: &Arc<ModelDisk>, durability: Durability, notes: &Arc<Mutex<Notes>>) -> Arc<Vault<ModelDisk>> {
    let vault = open(disk, durability).unwrap();
    let (weak, notes) = (Arc::downgrade(&vault), Arc::clone(notes));
    let make_room = move |missing: Amount| {
        let vault = weak.upgrade().expect("its owner asks for room");
        let begun = vault.disk.position();
        notes.lock().unwrap().kinds.push((begun, "put"));
        let pins = vault.pins()?;
        let is_pinned =
            |digest: &Digest| pins.iter().flat_map(|pin| &pin.keeps).any(|keep| keep.blob().digest == *digest);
        let mut collection = vault.begin_collection()?;
        let tally = vault.begin_tally()?;
        let mut left = held(&vault)?;
        let (mut victims, mut freed, mut roots) = (Vec::new(), 0, BTreeMap::new());
        let enough = missing.bytes + LIMIT_BYTES / 5;
        vault.each_root(&mut |digest, stat, amount| {
            if freed < enough {
                freed += amount.bytes;
                roots.insert(digest, amount);
                victims.push(Victim { kind: Kind::Root, digest, stat });
            }
            Ok(())
        })?;
        vault.each_object(&mut |digest, stat| {
            if freed < enough && !is_pinned(&digest) {
                freed += stat.allocated;
                victims.push(Victim { kind: Kind::Object, digest, stat });
                let mut notes = notes.lock().unwrap();
                let condemned: Vec<_> = notes.blobs.iter().map(|(blob, _)| *blob).collect();
                let condemned = condemned.into_iter().filter(|blob| blob.digest == digest);
                notes.promises.extend(condemned.map(|blob| (vault.disk.position(), Promise::Condemned(blob))));
            }
            Ok(())
        })?;
        let removed = collection.remove(&victims.iter().collect::<Vec<_>>())?.removed;
        for victim in removed {
            let amount =
                roots.get(&victim.digest).copied().unwrap_or(Amount { bytes: victim.stat.allocated, inodes: 1 });
            left = left.less(amount);
        }
        vault.end_tally(tally, left)?;
        collection.finish()?;
        notes.lock().unwrap().kinds.push((vault.disk.position(), "evict"));
        Ok(())
    };
    vault.claims.make_room.set(Box::new(make_room)).ok().expect("the vault is new");
    vault
}

/// Runs `steps` operations in a store with a limit, so that much of what is put makes room first.
fn run_limited(seed: u64, steps: usize, unnamed: bool) -> Run {
    let mut model = ModelDisk::new(seed);
    model.unnamed = unnamed;
    model.create_folder(Path::new(HOME)).unwrap();
    let disk = Arc::new(model);
    {
        let vault = open(&disk, Durability::Epoch).unwrap();
        let quota = Quota { max_bytes: Some(LIMIT_BYTES), ..Quota::default() };
        let format = Format { quota, ..vault.format.clone() };
        format::write(&*disk, Path::new(HOME), &vault.temporary("format"), &format).unwrap();
        vault.forget_usage().unwrap();
    }
    disk.begin_here();
    let notes = Arc::new(Mutex::new(Notes::default()));
    notes.lock().unwrap().promises.push((0, Promise::Limit(Some(LIMIT_BYTES))));
    let (mut random, mut violations, mut roots) = (seed, Vec::new(), Vec::new());
    let note = |promise| notes.lock().unwrap().promises.push((disk.position(), promise));
    let did = |kind| notes.lock().unwrap().kinds.push((disk.position(), kind));
    let mut vault = open_limited(&disk, Durability::Epoch, &notes);
    for step in 0..steps {
        // What a session uses does not make room, so sessions are short.
        if lot(&mut random, 3) == 0 {
            drop(vault);
            let level = if lot(&mut random, 2) == 0 { Durability::Epoch } else { Durability::Durable };
            vault = open_limited(&disk, level, &notes);
            did("end and start");
        }
        match lot(&mut random, 8) {
            0 => {
                vault.seal().unwrap();
                did("commit");
            }
            1 => {
                let small =
                    notes.lock().unwrap().blobs.iter().rev().map(|(blob, _)| *blob).find(|blob| blob.size < 1000);
                if let Some(blob) = small.filter(|blob| vault.contains(blob).unwrap()) {
                    vault.seal().unwrap();
                    note(Promise::PinBegins("pin".to_owned()));
                    let keeps = vec![Keep::Blob(blob)];
                    vault.pin(&Pin { name: "pin".to_owned(), keeps: keeps.clone(), ..Pin::default() }).unwrap();
                    note(Promise::Pin("pin".to_owned(), Some(keeps)));
                    did("pin");
                }
            }
            2 | 3 => {
                let digest =
                    Descriptor::of(DigestFunction::Blake3, &[u8::try_from(lot(&mut random, 9)).unwrap()]).digest;
                let target = Path::new(HOME).join("roots").join(root_name(&digest));
                vault.leases.take(&[Record::root(&digest)]).unwrap();
                let amount = Amount { bytes: 80_000, inodes: 3 };
                if !vault.find_root(&target).unwrap() && vault.claim(amount).is_ok() {
                    let made = vault.temporary("root");
                    disk.create_folder(&made).unwrap();
                    for (name, bytes) in [("file", b"root".as_slice()), ("size", encode_size(amount).as_bytes())] {
                        let file = disk.open(&made.join(name), Access::New).unwrap().unwrap();
                        write_all(&*disk, &file, 0, bytes).unwrap();
                    }
                    assert!(vault.publish_root(&made, &target).unwrap());
                    vault.use_claim(amount);
                    roots.push(target);
                }
                did("materialise");
            }
            _ => {
                let mut bytes = if lot(&mut random, 3) == 0 { vec![7; 300_000] } else { content(&mut random) };
                bytes.extend(step.to_le_bytes());
                let blob = Descriptor::of(DigestFunction::Blake3, &bytes);
                notes.lock().unwrap().blobs.push((blob, bytes.clone()));
                let mut result = vault.put_expected(&mut bytes.as_slice(), &blob);
                if matches!(result, Err(StoreError::Quota { .. })) {
                    // All of it is in use by this session; another one has room.
                    drop(vault);
                    vault = open_limited(&disk, Durability::Durable, &notes);
                    result = vault.put_expected(&mut bytes.as_slice(), &blob);
                }
                if let Err(error) = result {
                    violations.push(format!("there is no room for {blob}: {error:?}"));
                } else if vault.durability == Durability::Durable {
                    note(Promise::Durable(blob));
                }
                did("put");
            }
        }
        let held = held(&vault).unwrap();
        if held.bytes > LIMIT_BYTES {
            violations.push(format!("{} bytes are more than the limit", held.bytes));
        }
    }
    drop(vault);
    let Notes { promises, kinds, blobs } = std::mem::take(&mut *notes.lock().unwrap());
    let disk = Arc::into_inner(disk).expect("all vaults are closed");
    Run { disk, promises, blobs, roots, violations, kinds, is_limited: true }
}

/// What is wrong with the store after a crash.
fn judge(run: &Run, position: usize, crash: Crash) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut after = run.disk.crash(position, crash, position as u64 ^ 0x5eed);
    after.disabled = None;
    let disk = Arc::new(after);
    if disk.create_folder(Path::new(HOME)).is_err() {
        return wrong;
    }
    let mut vault = match open(&disk, Durability::Epoch) {
        Ok(vault) => vault,
        Err(error) => return vec![format!("the store does not open: {error:?}")],
    };
    let mut durable: BTreeMap<String, Descriptor> = BTreeMap::new();
    let mut sealed: BTreeMap<String, Descriptor> = BTreeMap::new();
    let mut pins: BTreeMap<&str, &Option<Vec<Keep>>> = BTreeMap::new();
    let mut rotten: BTreeSet<String> = BTreeSet::new();
    let mut limit = None;
    for (_, promise) in run.promises.iter().filter(|(at, _)| *at <= position) {
        match promise {
            Promise::Durable(blob) => drop(durable.insert(blob.to_string(), *blob)),
            Promise::Sealed(blob) => drop(sealed.insert(blob.to_string(), *blob)),
            Promise::Condemned(blob) => {
                durable.remove(&blob.to_string());
                sealed.remove(&blob.to_string());
            }
            Promise::PinBegins(name) => drop(pins.remove(name.as_str())),
            Promise::Pin(name, keeps) => drop(pins.insert(name, keeps)),
            Promise::LimitBegins => limit = None,
            Promise::Limit(value) => limit = Some(*value),
            Promise::Rots(blob) => drop(rotten.insert(blob.to_string())),
            Promise::Put(blob) => drop(rotten.remove(&blob.to_string())),
        }
    }
    for blob in sealed.values() {
        match disk.stat(&vault.path(&blob.digest)) {
            Ok(Some(stat)) if vault.epochs.trusts(stat.mark) => {}
            other => wrong.push(format!("{blob} was sealed and is {other:?}")),
        }
    }
    if limit.is_some_and(|limit| limit != vault.format.quota.max_bytes) {
        wrong.push(format!("the limit is {:?}, not {limit:?}", vault.format.quota));
    }
    for (name, keeps) in &pins {
        match vault.pins() {
            Ok(found) => {
                let found = found.into_iter().find(|pin| pin.name == **name).map(|pin| pin.keeps);
                if found != **keeps {
                    wrong.push(format!("pin {name} keeps {found:?}, not {keeps:?}"));
                }
            }
            Err(error) => wrong.push(format!("pins: {error:?}")),
        }
    }
    for (blob, bytes) in &run.blobs {
        let said = vault.contains(blob).unwrap_or(false);
        match read(&vault, blob) {
            Ok(Some(found)) if found == *bytes => {}
            Ok(None) if !said => {}
            // What was looked at alone is found out by the one who reads: a miss, or an error in the middle of a large one.
            Ok(None) | Err(_) if rotten.contains(&blob.to_string()) => {}
            other => wrong.push(format!("{blob} is said to be here ({said}) and reads as {other:?}")),
        }
        if !said && durable.contains_key(&blob.to_string()) {
            wrong.push(format!("{blob} was durable and is not here"));
        }
    }
    for root in &run.roots {
        if vault.find_root(root).unwrap_or(false) && disk.peek(&root.join("file")).as_deref() != Some(&b"root"[..]) {
            wrong.push(format!("{} is not whole", root.display()));
        }
    }
    if run.is_limited {
        // What counts against the limit is never less than what is there.
        let (mut counted, held) = (Amount::default(), held(&vault));
        let result = vault.change_usage(&mut |usage| {
            counted = usage;
            Ok(usage)
        });
        if result.is_err() || held.as_ref().map_or(true, |held| counted.bytes < held.bytes) {
            wrong.push(format!("{counted:?} are counted of {held:?}: {result:?}"));
        }
        // What follows needs more room than the limit leaves.
        let format = Format { quota: Quota::default(), ..vault.format.clone() };
        format::write(&*disk, Path::new(HOME), &vault.temporary("format"), &format).unwrap();
        drop(vault);
        vault = open(&disk, Durability::Epoch).unwrap();
    }
    // Whatever was lost can be put again.
    for (blob, bytes) in &run.blobs {
        let again = vault.put_bytes(blob.digest.function(), bytes);
        if again.as_ref().ok() != Some(blob) || read(&vault, blob).ok().flatten().as_ref() != Some(bytes) {
            wrong.push(format!("{blob} cannot be put again: {again:?}"));
        }
    }
    match vault.check(Depth::Full, 1) {
        Ok(check) if check.is_clean() => {}
        other => wrong.push(format!("the check after healing says {other:?}")),
    }
    wrong
}

const CRASHES: [Crash; 5] =
    [Crash::Kill, Crash::Nothing, Crash::NamesOnly, Crash::Lots(1), Crash::Lots(0x0123_4567_89ab_cdef)];

/// Crashes after every `stride`-th change, and returns how often it did while what was done, and what was wrong.
fn crash_everywhere(run: &Run, stride: usize, enough: usize) -> (BTreeMap<&'static str, usize>, Vec<String>) {
    let mut points = BTreeMap::new();
    let mut wrong: Vec<String> = run.violations.clone();
    for position in (0..=run.disk.position()).step_by(stride) {
        for crash in CRASHES {
            let crash = match crash {
                Crash::Lots(seed) => Crash::Lots(seed ^ position as u64),
                crash => crash,
            };
            *points.entry(run.kind(position)).or_default() += 1;
            let found = judge(run, position, crash);
            wrong.extend(found.into_iter().map(|what| format!("change {position}, {crash:?}: {what}")));
            if wrong.len() >= enough {
                return (points, wrong);
            }
        }
    }
    (points, wrong)
}

/// The promises of the store hold at no fewer than 10,000 crash points, of which each kind of work has its part.
#[test]
#[expect(clippy::print_stderr, reason = "how many crashes were tried is told")]
fn whatever_crashes_nothing_wrong_is_read_and_nothing_promised_is_lost() {
    let mut points: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 0.. {
        let unnamed = seed % 4 != 3;
        let (run, stride) = match seed % 6 {
            // The making of a store is a thousand changes that differ little.
            0 if seed == 0 => (run(seed, 40, unnamed, Start::Nothing, None), 5),
            1 => (run(seed, 10, unnamed, Start::OldStore, None), 1),
            2 | 4 => (run_limited(seed, 20, unnamed), 1),
            _ => (run(seed, 40, unnamed, Start::Store, None), 1),
        };
        let (count, wrong) = crash_everywhere(&run, stride, 5);
        assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
        for (kind, count) in count {
            *points.entry(kind).or_default() += count;
        }
        if points.values().sum::<usize>() >= 10_000 {
            break;
        }
    }
    eprintln!("crash points: {points:?}, {} together", points.values().sum::<usize>());
    for kind in ["put", "commit", "pin", "materialise", "collect", "evict", "migrate"] {
        assert!(points.get(kind).is_some_and(|count| *count >= 50), "few crashes during {kind}: {points:?}");
    }
}

/// Each sync and each name has its reason: without it the simulator finds a promise that is broken.
#[test]
fn without_any_one_of_the_syncs_and_renames_a_promise_is_broken() {
    // A workload over a broken disk may well fail loudly; that is noticing too.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let unnoticed: Vec<Site> = Site::ALL.into_iter().filter(|site| !is_noticed(*site)).collect();
    std::panic::set_hook(quiet);
    assert_eq!(unnoticed, [], "these can be left out and nobody notices");
}

/// Workloads that are tried without a site before it counts as needless.
const MAX_SEEDS: u64 = 24;

fn is_noticed(site: Site) -> bool {
    (0..MAX_SEEDS).any(|seed| {
        let is_new = matches!(site, Site::SyncLayout | Site::SyncFormat | Site::RenameFormat | Site::SyncFormatFolder)
            && seed % 2 == 0;
        let found = std::panic::catch_unwind(|| {
            let start = if is_new { Start::Nothing } else { Start::Store };
            let run = run(seed, 30, site != Site::RenameObject, start, Some(site));
            crash_everywhere(&run, if is_new { 40 } else { 3 }, 1).1
        });
        found.map_or(true, |wrong| !wrong.is_empty())
    })
}

/// Errors of the disk are errors of the store, or are made good; none of them makes a promise false.
#[test]
fn a_disk_that_fails_now_and_then_makes_errors_and_no_damage() {
    let (mut failures, mut successes) = (0, 0);
    for seed in 0..40 {
        let disk = ModelDisk::new(seed);
        disk.create_folder(Path::new(HOME)).unwrap();
        let disk = Arc::new(disk);
        let level = if seed % 2 == 0 { Durability::Epoch } else { Durability::Durable };
        let vault = open(&disk, level).unwrap();
        disk.set_faults(Faults { one_in: 5 + seed % 30, fail_next_sync: false });
        let mut random = seed;
        let mut kept = Vec::new();
        for _ in 0..60 {
            let bytes = content(&mut random);
            match vault.put(DigestFunction::Blake3, &mut bytes.as_slice()) {
                Ok(blob) => {
                    successes += 1;
                    kept.push((blob, bytes));
                }
                Err(StoreError::Poisoned) => break,
                Err(_) => failures += 1,
            }
            if let Some((blob, bytes)) = kept.last()
                && let Ok(Some(found)) = read(&vault, blob)
            {
                assert_eq!(found, *bytes, "seed {seed}");
            }
        }
        disk.set_faults(Faults::default());
        drop(vault);
        let vault = open(&disk, level).unwrap();
        for (blob, bytes) in &kept {
            assert_eq!(read(&vault, blob).unwrap().as_ref(), Some(bytes), "seed {seed}: {blob}");
        }
        assert!(vault.check(Depth::Full, 1).unwrap().is_clean(), "seed {seed}");
    }
    assert!(failures > 50 && successes > 50, "{failures} failures, {successes} successes");
}

/// What fails before the flush, or behind it, as for want of room, leaves a store that can be written to.
#[test]
fn a_seal_that_finds_no_room_ends_nothing() {
    let disk = ModelDisk::new(5);
    disk.create_folder(Path::new(HOME)).unwrap();
    let disk = Arc::new(disk);
    let vault = open(&disk, Durability::Epoch).unwrap();
    let blob = vault.put_bytes(DigestFunction::Blake3, b"before the failure").unwrap();
    disk.set_faults(Faults { one_in: 1, fail_next_sync: false });
    assert!(matches!(vault.seal(), Err(StoreError::Fs(_))));
    disk.set_faults(Faults { one_in: 0, fail_next_sync: false });
    vault.put_bytes(DigestFunction::Blake3, b"after it").unwrap();
    vault.seal().unwrap();
    let mark = disk.stat(&vault.path(&blob.digest)).unwrap().unwrap().mark;
    assert!(vault.epochs.sealed_now()(mark), "it is sealed by the next one");
}

/// After a flush that failed nothing more is written, and nothing that was not flushed by then counts as sealed later.
#[test]
fn a_failed_flush_ends_writing_and_sealing() {
    let disk = ModelDisk::new(5);
    disk.create_folder(Path::new(HOME)).unwrap();
    let disk = Arc::new(disk);
    let vault = open(&disk, Durability::Epoch).unwrap();
    let blob = vault.put_bytes(DigestFunction::Blake3, b"before the failure").unwrap();
    disk.set_faults(Faults { one_in: 0, fail_next_sync: true });
    assert!(matches!(vault.seal(), Err(StoreError::Fs(_))));
    assert!(matches!(vault.seal(), Err(StoreError::Poisoned)));
    assert!(matches!(vault.put_bytes(DigestFunction::Blake3, b"after it"), Err(StoreError::Poisoned)));
    // Reading goes on.
    assert!(read(&vault, &blob).unwrap().is_some());
    drop(vault);
    let next = open(&disk, Durability::Epoch).unwrap();
    next.put_bytes(DigestFunction::Blake3, b"of the next one").unwrap();
    next.seal().unwrap();
    let mark = disk.stat(&next.path(&blob.digest)).unwrap().unwrap().mark;
    assert!(!next.epochs.sealed_now()(mark), "what a failed flush may have lost was sealed by the next one");
}
