//! Results that were found complete, by what their steps are made of: a step whose name is here and whose blobs did not move
//! since needs neither the index nor a look at its outputs. Rules: docs/formats/complete.md.
//!
//! Not here: looking for results that are not known here (`results`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cas_blob::Descriptor;
use cas_digest::{Digest, DigestFunction};
use cas_store::{Looks, Store};

use crate::results::Whole;

/// Its name, in the folder of what is remembered of a workspace.
const FILE: &str = "complete";
/// First bytes of the file.
const MAGIC: &[u8; 16] = b"cas complete 1\n\0";
/// Longer files are not read: a hundred thousand targets take 40 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// What was found longer ago is looked for again, so that it counts as used.
const MAX_AGE_SECONDS: u64 = 3600;
/// Functions that name blobs, as the file numbers them.
const FUNCTIONS: [DigestFunction; 3] = [DigestFunction::Blake3, DigestFunction::Sha256, DigestFunction::Sha512];

/// A result that was found complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The action.
    pub(crate) action: Descriptor,
    /// Name of the tree of its outputs, with paths from the workspace's root.
    pub(crate) tree: Descriptor,
    /// The result.
    pub(crate) result: Arc<[u8]>,
    /// When everything that it names was found, in seconds since 1970.
    found_at: u64,
    /// How the folders looked then that hold it.
    looks: Vec<(u8, u64)>,
}

/// What is known when a build begins, and what it finds.
#[derive(Debug)]
pub(crate) struct Complete {
    /// The file and how the store's folders looked; `None` where nothing is kept.
    kept: Option<(PathBuf, Looks)>,
    now: u64,
    known: HashMap<Descriptor, Entry>,
    found: Mutex<BTreeMap<Descriptor, (Entry, Vec<Descriptor>)>>,
}

impl Complete {
    /// Reads what is known of the workspace whose history is in `folder`; what cannot be read is nothing.
    pub(crate) fn open(store: &Store, folder: PathBuf, function: DigestFunction, now: u64) -> Self {
        let path = folder.join(FILE);
        let known = cas_fs::read_limited(&path, MAX_BYTES).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        // Before anything is looked for.
        Self { kept: Some((path, store.looks(function))), now, known, found: Mutex::default() }
    }

    /// Knows nothing and keeps nothing.
    pub(crate) fn none() -> Self {
        Self { kept: None, now: 0, known: HashMap::new(), found: Mutex::default() }
    }

    /// A result that is complete, as far as can be told without looking.
    pub(crate) fn get(&self, static_name: &Descriptor) -> Option<&Entry> {
        self.known.get(static_name).filter(|entry| self.holds(entry))
    }

    fn holds(&self, entry: &Entry) -> bool {
        let Some((_, looks)) = &self.kept else { return false };
        let age = self.now.checked_sub(entry.found_at);
        let is_same = |(folder, look): &(u8, u64)| looks.of(*folder) == Some(*look);
        age.is_some_and(|age| age < MAX_AGE_SECONDS) && entry.looks.iter().all(is_same)
    }

    /// Notes a result that was found complete since this was opened.
    pub(crate) fn add(&self, static_name: Descriptor, action: Descriptor, tree: Descriptor, whole: &Whole) {
        if self.kept.is_none() {
            return;
        }
        let result = whole.result.as_slice().into();
        let entry = Entry { action, tree, result, found_at: self.now, looks: Vec::new() };
        let blobs = whole.blobs.iter().filter(|blob| blob.size > 0).copied().collect();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(static_name, (entry, blobs));
    }

    /// Keeps what was found, and what of the earlier is not too old.
    pub(crate) fn save(self, store: &Store) {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Some((path, before)) = self.kept.filter(|_| !found.is_empty()) else { return };
        let looks = store.looks(before.function());
        let mut all = self.known;
        for (static_name, (mut entry, blobs)) in found {
            // Blobs of other functions have second names here.
            let folders: Option<BTreeSet<u8>> = blobs.iter().map(|blob| looks.folder_of(blob)).collect();
            let Some(folders) = folders else { continue };
            let now: Option<Vec<(u8, u64)>> =
                folders.into_iter().map(|folder| Some((folder, looks.of(folder)?))).collect();
            let Some(now) = now else { continue };
            let did_not_move = now.iter().all(|(folder, look)| before.of(*folder) == Some(*look));
            // What came or left since the beginning may have been among these.
            let is_here =
                did_not_move || store.contain(&blobs).is_ok_and(|here| here.into_iter().all(|is_here| is_here));
            if is_here {
                entry.looks = now;
                all.insert(static_name, entry);
            }
        }
        all.retain(|_, entry| self.now.checked_sub(entry.found_at).is_some_and(|age| age < MAX_AGE_SECONDS));
        let folder = path.parent().expect("it is in the store");
        // What cannot be kept is looked for again.
        let _ = cas_fs::create_dir_all(folder).and_then(|()| cas_fs::replace(&path, &encode(&all)));
    }
}

/// Forgets what is known of all workspaces, because something was not there that should have been.
pub(crate) fn forget(store: &Store) {
    let histories = store.folder().join("history");
    for entry in cas_fs::read_dir(&histories).unwrap_or_default() {
        // One that cannot be removed is no worse than before.
        let _ = cas_fs::remove_file(&histories.join(entry.name).join(FILE));
    }
}

fn encode(entries: &HashMap<Descriptor, Entry>) -> Vec<u8> {
    let mut body = Vec::new();
    let descriptor = |body: &mut Vec<u8>, blob: &Descriptor| {
        let function = FUNCTIONS.iter().position(|function| *function == blob.digest.function());
        body.push(u8::try_from(function.unwrap_or(FUNCTIONS.len())).expect("they are few"));
        body.extend(blob.digest.value());
        body.extend(blob.size.to_le_bytes());
    };
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| **name);
    for (name, entry) in sorted {
        for blob in [name, &entry.action, &entry.tree] {
            descriptor(&mut body, blob);
        }
        body.extend(entry.found_at.to_le_bytes());
        body.extend(u32::try_from(entry.result.len()).expect("results are limited").to_le_bytes());
        body.extend(&*entry.result);
        body.extend(u16::try_from(entry.looks.len()).expect("there are 256 folders").to_le_bytes());
        for (folder, look) in &entry.looks {
            body.push(*folder);
            body.extend(look.to_le_bytes());
        }
    }
    let check = Digest::of(DigestFunction::Blake3, &body);
    [&MAGIC[..], check.value(), &body].concat()
}

/// `None` for what is damaged or of another version.
fn decode(bytes: &[u8]) -> Option<HashMap<Descriptor, Entry>> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (check, body) = rest.split_at_checked(32)?;
    (Digest::of(DigestFunction::Blake3, body).value() == check).then_some(())?;
    let mut reader = Reader(body);
    let mut entries = HashMap::new();
    while !reader.0.is_empty() {
        let (name, action, tree) = (reader.descriptor()?, reader.descriptor()?, reader.descriptor()?);
        let found_at = u64::from_le_bytes(reader.array()?);
        let length = u32::from_le_bytes(reader.array()?);
        let result = reader.take(length.try_into().ok()?)?.into();
        let count = u16::from_le_bytes(reader.array()?);
        let look = |reader: &mut Reader<'_>| Some((reader.take(1)?[0], u64::from_le_bytes(reader.array()?)));
        let looks = (0..count).map(|_| look(&mut reader)).collect::<Option<Vec<_>>>()?;
        entries.insert(name, Entry { action, tree, result, found_at, looks });
    }
    Some(entries)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn descriptor(&mut self) -> Option<Descriptor> {
        let function = *FUNCTIONS.get(usize::from(self.take(1)?[0]))?;
        let digest = Digest::from_value(function, self.take(function.digest_len())?).ok()?;
        Some(Descriptor { digest, size: u64::from_le_bytes(self.array()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn of(text: &str) -> Descriptor {
        Descriptor::of(FUNCTION, text.as_bytes())
    }

    fn entry(number: u64) -> Entry {
        let result = format!("result {number}").into_bytes().into();
        let tree = Descriptor::of(DigestFunction::Sha512, b"tree");
        Entry { action: of("action"), tree, result, found_at: number, looks: vec![(3, number), (255, u64::MAX)] }
    }

    #[test]
    fn entries_are_read_as_they_were_written_and_damage_is_nothing() {
        let entries = HashMap::from([(of("a"), entry(1)), (of("b"), Entry { looks: Vec::new(), ..entry(2) })]);
        let bytes = encode(&entries);
        assert_eq!(decode(&bytes), Some(entries));
        assert_eq!(decode(&encode(&HashMap::new())), Some(HashMap::new()));
        for position in 0..bytes.len() {
            assert_eq!(decode(&bytes[..position]), None, "cut at {position}");
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            assert_eq!(decode(&flipped), None, "flipped at {position}");
        }
    }

    /// Whatever is damaged in what the check covers must not panic either.
    #[test]
    fn lengths_that_lie_are_nothing() {
        let bytes = encode(&HashMap::from([(of("a"), entry(1))]));
        let body = &bytes[MAGIC.len() + 32..];
        for position in 0..body.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut body = body.to_vec();
                body[position] = value;
                let check = Digest::of(DigestFunction::Blake3, &body);
                let _ = decode(&[&MAGIC[..], check.value(), &body].concat());
            }
        }
    }

    struct Home {
        _folder: tempfile::TempDir,
        store: Store,
        history: PathBuf,
    }

    impl Home {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("the temporary folder is writable");
            let store = Store::open(&folder.path().join("store")).expect("the folder is empty");
            let history = store.folder().join("history/x");
            Self { store, history, _folder: folder }
        }

        fn open(&self, now: u64) -> Complete {
            Complete::open(&self.store, self.history.clone(), FUNCTION, now)
        }

        /// A result that names the blob.
        fn note(&self, name: &str, blob: Descriptor, now: u64) {
            let complete = self.open(now);
            let whole = Whole { result: b"result".to_vec(), outputs: cas_tree::Directory::root(), blobs: vec![blob] };
            complete.add(of(name), of("action"), of("tree"), &whole);
            complete.save(&self.store);
        }

        fn knows(&self, name: &str, now: u64) -> bool {
            self.open(now).get(&of(name)).is_some()
        }

        /// With coarse times a folder says nothing for a while.
        fn settle(&self, blob: &Descriptor) {
            let looks = || self.store.looks(FUNCTION);
            while looks().of(looks().folder_of(blob).expect("the function is this")).is_none() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }

    #[test]
    fn a_result_is_known_until_something_moves_or_time_passes() {
        let home = Home::new();
        let blob = home.store.put_bytes(FUNCTION, b"content").expect("the disk has room");
        home.settle(&blob);
        assert!(!home.knows("a", 100));
        home.note("a", blob, 100);
        assert!(home.knows("a", 100) && home.knows("a", 100 + MAX_AGE_SECONDS - 1));
        assert!(!home.knows("b", 100));
        assert!(!home.knows("a", 100 + MAX_AGE_SECONDS), "it would never count as used");
        assert!(!home.knows("a", 99), "the clock was set back");
        cas_fs::remove_file(&home.store.object_path(&blob).expect("it is here")).expect("it is ours");
        assert!(!home.knows("a", 100), "what it names is gone");
    }

    #[test]
    fn what_came_during_the_build_is_known_afterwards() {
        let home = Home::new();
        let complete = home.open(100);
        let blob = home.store.put_bytes(FUNCTION, b"content").expect("the disk has room");
        home.settle(&blob);
        let gone = home.store.put_bytes(FUNCTION, b"found, and removed before the end").expect("the disk has room");
        home.settle(&gone);
        cas_fs::remove_file(&home.store.object_path(&gone).expect("it is here")).expect("it is ours");
        for (name, blob) in [("a", blob), ("b", gone)] {
            let whole = Whole { result: Vec::new(), outputs: cas_tree::Directory::root(), blobs: vec![blob] };
            complete.add(of(name), of("action"), of("tree"), &whole);
        }
        complete.save(&home.store);
        assert!(home.knows("a", 100) && !home.knows("b", 100));
        forget(&home.store);
        assert!(!home.knows("a", 100));
    }
}
