//! What to change, and exactly how many bytes that saves.
//!
//! Every entry is claimed by at most one piece of advice, the first that it fits, so that savings can be added.

use std::collections::{BTreeMap, BTreeSet};

use cas_blob::Descriptor;
use cas_tree::{Metadata, Node, RelPath};

use crate::image::{Fate, Image, Skipped, What};
use crate::package::{Packages, development_folders};
use crate::rules::{cache, documentation, is_build_package, repository, tool_folder};
use crate::secret::SecretKind;
use crate::told::{Place, ToldSecret};

/// Shorter files are no duplicates that are worth a link.
const MIN_DUPLICATE_BYTES: u64 = 4096;
/// Longer targets of links need a header of their own.
const MAX_TARGET_BYTES: usize = 100;
/// End of the subject of what is overwritten by the same.
const NOTHING: &str = "nothing changed";
/// The same of what has the content that it had.
const RIGHTS: &str = "rights and owners alone";
/// How many names are told in a sentence.
const MAX_NAMES: usize = 12;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is dangerous.
    Warning,
    /// It is of no use.
    Waste,
    /// It may be of no use.
    Hint,
}

impl Level {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Waste => "waste",
            Self::Hint => "hint",
        }
    }
}

/// What a piece of advice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "docs/formats/image-analyze.md has the table")]
pub enum AdviceKind {
    Secret,
    ToldSecret,
    Removed,
    Overwritten,
    Cache,
    VersionControl,
    Development,
    BuildTools,
    Duplicate,
    Documentation,
}

impl AdviceKind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::ToldSecret => "told-secret",
            Self::Removed => "removed",
            Self::Overwritten => "overwritten",
            Self::Cache => "cache",
            Self::VersionControl => "version-control",
            Self::Development => "development",
            Self::BuildTools => "build-tools",
            Self::Duplicate => "duplicate",
            Self::Documentation => "documentation",
        }
    }

    /// How much it matters.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Secret | Self::ToldSecret => Level::Warning,
            Self::Documentation => Level::Hint,
            _ => Level::Waste,
        }
    }
}

/// A thing to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it is about.
    pub kind: AdviceKind,
    /// Of what, in a few words.
    pub subject: String,
    /// What to do.
    pub change: String,
    /// How many bytes the uncompressed layers have less then.
    pub saves_bytes: u64,
    /// The same of the compressed layers, in proportion.
    pub saves_compressed_bytes: u64,
    /// The entries to leave out, or to make links, by layer and path.
    pub entries: Vec<Removal>,
}

/// An entry to leave out, or to make a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Position of its layer.
    pub layer: usize,
    /// Its name in the archive.
    pub path: RelPath,
    /// How many bytes that saves.
    pub bytes: u64,
    /// What it becomes a link to.
    pub link: Option<(LinkKind, RelPath)>,
}

/// What kind of link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A further name, in the same layer.
    Hard,
    /// A symbolic link from the root on.
    Symbolic,
}

impl LinkKind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Symbolic => "symbolic",
        }
    }
}

/// What an entry is claimed for.
type Key = (AdviceKind, String);

/// All that is advised, what was claimed for what, and what more was not parsed.
pub(crate) struct Advised {
    pub(crate) advice: Vec<Advice>,
    pub(crate) skipped: Vec<Skipped>,
    /// Bytes of duplicates by the number of the entry, whether a link is worth it or not.
    pub(crate) duplicates: BTreeMap<usize, u64>,
    pub(crate) development: BTreeSet<usize>,
    pub(crate) build_tools: BTreeSet<usize>,
}

#[derive(Default)]
struct Claims {
    /// What is claimed, and for what.
    sets: Vec<(Key, BTreeSet<usize>)>,
    positions: BTreeMap<Key, usize>,
    /// Positions of sets by the numbers of entries.
    claimed: BTreeMap<usize, usize>,
}

impl Claims {
    fn claim(&mut self, kind: AdviceKind, subject: impl Into<String>, number: usize) {
        if self.claimed.contains_key(&number) {
            return;
        }
        let key = (kind, subject.into());
        let position = *self.positions.entry(key).or_insert_with_key(|key| {
            self.sets.push((key.clone(), BTreeSet::new()));
            self.sets.len() - 1
        });
        self.put(position, number);
    }

    fn put(&mut self, position: usize, number: usize) {
        self.sets[position].1.insert(number);
        self.claimed.insert(number, position);
    }
}

pub(crate) fn advise(image: &Image, packages: &Packages, visible: &[(RelPath, usize)]) -> Advised {
    let mut claims = Claims::default();
    let mut skipped = Vec::new();
    lost(image, &mut claims);
    let files: Vec<&(RelPath, usize)> =
        visible.iter().filter(|(_, number)| !image.entries[*number].is_directory()).collect();
    for (path, number) in &files {
        if let Some(owner) = cache(path) {
            claims.claim(AdviceKind::Cache, owner, *number);
        } else if let Some(folder) = repository(path) {
            claims.claim(AdviceKind::VersionControl, folder, *number);
        }
    }
    let (development, build_tools) = for_building(image, packages, &files, &mut skipped);
    for number in &development {
        claims.claim(AdviceKind::Development, "npm packages for development", *number);
    }
    let mut tools: BTreeSet<usize> = BTreeSet::new();
    for (number, subject) in &build_tools {
        tools.insert(*number);
        claims.claim(AdviceKind::BuildTools, *subject, *number);
    }
    let links = duplicates(image, &files, &claims.claimed);
    let duplicates = all_duplicates(image, &files);
    let linked: BTreeSet<usize> = links.iter().map(|link| link.0).collect();
    for (path, number) in files.iter().filter(|(_, number)| !linked.contains(number)) {
        if let Some(kind) = documentation(path) {
            claims.claim(AdviceKind::Documentation, format!("usr/share/{kind}"), *number);
        }
    }
    let mut advice: Vec<Advice> = claims
        .sets
        .iter()
        .map(|((kind, subject), set)| {
            let removal = |(number, bytes): (usize, u64)| {
                let entry = &image.entries[number];
                let path = entry.path.clone()?;
                Some(Removal { layer: entry.layer, path, bytes, link: None })
            };
            let entries = image.savings(set).filter_map(removal).collect();
            let change = change(image, packages, *kind, subject, set);
            finished(image, *kind, subject.clone(), change, entries)
        })
        .collect();
    if !links.is_empty() {
        let is_own = links.iter().all(|(number, ..)| image.layers[image.entries[*number].layer].is_own);
        let entries = links.into_iter().filter_map(|(number, kind, target)| {
            let entry = &image.entries[number];
            let bytes = entry.bytes - entry.header_bytes;
            Some(Removal { layer: entry.layer, path: entry.path.clone()?, bytes, link: Some((kind, target)) })
        });
        let change = match is_own {
            true => "name the files in one entry of `layers` alone, or let the step make links in place of copies",
            false => "keep one of the paths and make the others links to it, or copy the files once",
        };
        let change = change.to_owned();
        let subject = "files with equal content".to_owned();
        advice.push(finished(image, AdviceKind::Duplicate, subject, change, entries.collect()));
    }
    sort(&mut advice);
    Advised { advice, skipped, duplicates, development, build_tools: tools }
}

/// What matters most first.
pub(crate) fn sort(advice: &mut [Advice]) {
    advice.sort_by_key(|advice| {
        (advice.kind.level(), std::cmp::Reverse(advice.saves_bytes), advice.kind, advice.subject.clone())
    });
}

/// What to do about a secret that the configuration tells; `is_own` where a `cas.toml` says what that is.
pub(crate) fn telling(secret: &ToldSecret, is_own: bool) -> Advice {
    let change = match (secret.place, is_own) {
        (Place::Variable, true) => "take it out of `env` of `config`, here or where the base has it",
        (Place::Variable, false) => "take it out of `ENV`",
        (Place::Label, true) => "take it out of `labels` of `config`, here or where the base has it",
        (Place::Label, false) => "take it out of `LABEL`",
        (Place::CommandLine, true) => {
            "take it out of `entrypoint`, `cmd` or `healthcheck` of `config`, here or where the base has it"
        }
        (Place::CommandLine, false) => "take it out of `ENTRYPOINT`, `CMD` or `HEALTHCHECK`",
        (Place::History, _) => {
            "build the image that tells it without it: `RUN --mount=type=secret` in place of `ARG` and `ENV`"
        }
    };
    let then = match secret.place {
        Place::History => "replace it, when the image has left the house",
        _ => "give it to the program when it starts; replace it, when the image has left the house",
    };
    let place = secret.place.name();
    Advice {
        kind: AdviceKind::ToldSecret,
        subject: format!("{place} {}: {}", secret.name, secret.kind.describe()),
        change: format!("{change}; {then}"),
        saves_bytes: 0,
        saves_compressed_bytes: 0,
        entries: Vec::new(),
    }
}

fn finished(image: &Image, kind: AdviceKind, subject: String, change: String, mut entries: Vec<Removal>) -> Advice {
    entries.sort_by(|one, other| (one.layer, &one.path).cmp(&(other.layer, &other.path)));
    let mut by_layer: BTreeMap<usize, u64> = BTreeMap::new();
    for entry in &entries {
        *by_layer.entry(entry.layer).or_default() += entry.bytes;
    }
    let saves_bytes = by_layer.values().sum();
    let saves_compressed_bytes = by_layer.iter().map(|(layer, bytes)| image.compressed(*layer, *bytes)).sum();
    Advice { kind, subject, change, saves_bytes, saves_compressed_bytes, entries }
}

/// Secrets, and what is not there in the end.
fn lost(image: &Image, claims: &mut Claims) {
    for (number, entry) in image.entries.iter().enumerate() {
        // All names of a file go together.
        if let (Some(kind), Some(path)) = (entry.secret, &image.entries[entry.source].path)
            && entry.fate != Fate::Apart
        {
            claims.claim(AdviceKind::Secret, format!("{path}: {}", kind.describe()), number);
        }
    }
    for (number, entry) in image.entries.iter().enumerate() {
        match entry.fate {
            Fate::Removed { layer } => claims.claim(AdviceKind::Removed, format!("layer {layer}"), number),
            Fate::Overwritten(by) => {
                let layer = image.entries[by].layer;
                let subject = match changed(image, number, by) {
                    Changed::Nothing => format!("layer {layer}, {NOTHING}"),
                    Changed::Rights => format!("layer {layer}, {RIGHTS}"),
                    Changed::Content => format!("layer {layer}"),
                };
                claims.claim(AdviceKind::Overwritten, subject, number);
            }
            Fate::Visible | Fate::Covered | Fate::Apart => {}
        }
    }
    // A whiteout goes with the last of what it removes, where one piece of advice has it all.
    for (whiteout, removed) in &image.removed_by {
        let positions: BTreeSet<Option<usize>> =
            removed.iter().map(|number| claims.claimed.get(number).copied()).collect();
        if let (1, Some(Some(position))) = (positions.len(), positions.first()) {
            claims.put(*position, *whiteout);
        }
    }
}

/// What an entry does to the one in whose place it stands.
enum Changed {
    Nothing,
    /// Rights, owners and extended attributes.
    Rights,
    Content,
}

fn changed(image: &Image, old: usize, new: usize) -> Changed {
    let node = |number: usize| match &image.entries[image.entries[number].source].what {
        What::Node(node) => Some(node),
        _ => None,
    };
    // What was below a folder and has another name is another file.
    let name = |number: usize| image.entries[number].path.as_ref().map(RelPath::name);
    let (Some(one), Some(other)) = (node(old).filter(|_| name(old) == name(new)), node(new)) else {
        return Changed::Content;
    };
    let is_same = match (one, other) {
        (Node::File { blob: one, .. }, Node::File { blob: other, .. }) => one == other,
        (Node::Symlink { target: one, .. }, Node::Symlink { target: other, .. }) => one == other,
        _ => false,
    };
    match is_same {
        true if one.metadata() == other.metadata() => Changed::Nothing,
        true => Changed::Rights,
        false => Changed::Content,
    }
}

fn content(image: &Image, number: usize) -> Option<Descriptor> {
    match &image.entries[image.entries[number].source].what {
        What::Node(Node::File { blob, .. }) => Some(*blob),
        _ => None,
    }
}

/// Files of npm packages for development, and files of compilers with where they are from.
fn for_building(
    image: &Image,
    packages: &Packages,
    files: &[&(RelPath, usize)],
    skipped: &mut Vec<Skipped>,
) -> (BTreeSet<usize>, BTreeMap<usize, &'static str>) {
    let folders = development_folders(image, skipped);
    let (mut development, mut tools) = (BTreeSet::new(), BTreeMap::new());
    for (path, number) in files {
        let owner = packages.owners.get(number).map(|package| &packages.packages[*package]);
        match owner {
            Some(package) if package.folder.as_ref().is_some_and(|folder| folders.contains(folder)) => {
                development.insert(*number);
            }
            Some(package) if package.ecosystem == "deb" && is_build_package(&package.name) => {
                tools.insert(*number, "Debian packages");
            }
            Some(package) if package.ecosystem == "apk" && is_build_package(&package.name) => {
                tools.insert(*number, "apk packages");
            }
            Some(_) => {}
            None => {
                if let Some(folder) = tool_folder(path) {
                    tools.insert(*number, folder);
                } else if command_folder(image, path, *number).is_some_and(|folder| folders.contains(&folder)) {
                    development.insert(*number);
                }
            }
        }
    }
    (development, tools)
}

/// The package that a command of `node_modules/.bin` is of.
fn command_folder(image: &Image, path: &RelPath, number: usize) -> Option<RelPath> {
    let What::Node(Node::Symlink { target, .. }) = &image.entries[number].what else { return None };
    let text = path.to_string();
    let (modules, _) = text.rsplit_once("/.bin/")?;
    let target = std::str::from_utf8(target).ok()?.strip_prefix("../")?;
    let count = if target.starts_with('@') { 2 } else { 1 };
    let name: Vec<&str> = target.split('/').take(count).collect();
    RelPath::new(format!("{modules}/{}", name.join("/"))).ok()
}

/// What makes two files the same.
type Same<'a> = (Descriptor, u32, u32, u32, &'a BTreeMap<Box<[u8]>, Box<[u8]>>);

/// Files that become links, with what to.
fn duplicates(
    image: &Image,
    files: &[&(RelPath, usize)],
    claimed: &BTreeMap<usize, usize>,
) -> Vec<(usize, LinkKind, RelPath)> {
    let mut groups: BTreeMap<Same<'_>, Vec<(usize, &RelPath, usize)>> = BTreeMap::new();
    for (path, number) in files.iter().filter(|(_, number)| !claimed.contains_key(number)) {
        let entry = &image.entries[*number];
        if let What::Node(Node::File { blob, metadata: Metadata { mode, uid, gid, xattrs } }) = &entry.what
            && blob.size >= MIN_DUPLICATE_BYTES
        {
            groups.entry((*blob, *mode, *uid, *gid, xattrs)).or_default().push((entry.layer, path, *number));
        }
    }
    let mut links = Vec::new();
    for mut group in groups.into_values() {
        group.sort();
        let Some(((first_layer, target, _), others)) = group.split_first() else { continue };
        for (layer, _, number) in others {
            let kind = if layer == first_layer { LinkKind::Hard } else { LinkKind::Symbolic };
            let length = target.as_bytes().len() + usize::from(kind == LinkKind::Symbolic);
            let is_short = length <= MAX_TARGET_BYTES && target.as_bytes().is_ascii();
            if is_short && !image.names.contains_key(number) {
                links.push((*number, kind, (*target).clone()));
            }
        }
    }
    links
}

/// Every file whose content an earlier one has, with the bytes of its content and padding.
fn all_duplicates(image: &Image, files: &[&(RelPath, usize)]) -> BTreeMap<usize, u64> {
    let mut seen: BTreeMap<Descriptor, usize> = BTreeMap::new();
    let mut ordered: Vec<(usize, &RelPath, usize)> =
        files.iter().map(|(path, number)| (image.entries[*number].layer, path, *number)).collect();
    ordered.sort();
    let mut found = BTreeMap::new();
    for (_, _, number) in ordered {
        let entry = &image.entries[number];
        let Some(blob) = content(image, number).filter(|blob| blob.size > 0) else { continue };
        if *seen.entry(blob).or_insert(entry.source) != entry.source && entry.source == number {
            found.insert(number, entry.bytes - entry.header_bytes);
        }
    }
    found
}

/// What to do, in the words of those who made the layers: of `cas.toml`, or else of a Dockerfile.
fn change(image: &Image, packages: &Packages, kind: AdviceKind, subject: &str, set: &BTreeSet<usize>) -> String {
    let is_hidden = set.iter().any(|number| matches!(image.entries[*number].fate, Fate::Removed { .. }));
    let hidden = match kind {
        AdviceKind::Secret if is_hidden => "a later layer removes it, but whoever has the image can read it; ",
        _ => "",
    };
    let is_own = |number: &usize| image.layers[image.entries[*number].layer].is_own;
    let change = match (set.iter().all(is_own), set.iter().any(is_own)) {
        (true, _) => own_change(image, packages, kind, subject, set),
        (false, true) => format!(
            "in layers of `cas.toml`: {}. In layers of others: {}",
            own_change(image, packages, kind, subject, set),
            others_change(packages, kind, subject, set)
        ),
        (false, false) => {
            // What `cas` put over a file of the base is the part that can be changed here.
            let by = set.iter().find_map(|number| match image.entries[*number].fate {
                Fate::Overwritten(by) => Some(by),
                _ => None,
            });
            match by.filter(|by| kind == AdviceKind::Overwritten && is_own(by)) {
                Some(_) if subject.ends_with(NOTHING) => {
                    "leave it out with `exclude` of the entry of `layers`: the base has the same file".to_owned()
                }
                Some(_) => {
                    "choose a `base` without it, or leave it out with `exclude` of the entry of `layers` and keep \
                            the one of the base: both are in the image"
                        .to_owned()
                }
                None => others_change(packages, kind, subject, set),
            }
        }
    };
    format!("{hidden}{change}")
}

/// What to do in the words of `cas.toml`.
fn own_change(image: &Image, packages: &Packages, kind: AdviceKind, subject: &str, set: &BTreeSet<usize>) -> String {
    let entry = entry_of(image, set);
    match kind {
        AdviceKind::Secret => format!(
            "leave it out with `exclude` of {entry}, or do not make it: a step reads it as one of its `secrets`, the program \
             gets it when it starts; replace it, when the image has left the house"
        ),
        AdviceKind::Removed => format!("leave it out with `exclude` of {entry}"),
        AdviceKind::Overwritten if subject.ends_with(NOTHING) => {
            format!("leave it out with `exclude` of {entry}, or of the later one: both have the same file")
        }
        AdviceKind::Overwritten if subject.ends_with(RIGHTS) => format!(
            "write `mode`, `dir_mode` and `owner` at {entry}, and leave the later one out: other rights in another layer copy \
             the whole file"
        ),
        AdviceKind::Overwritten => {
            format!("leave it out with `exclude` or `path` of {entry}: what is below another file is never seen")
        }
        AdviceKind::Cache => format!(
            "leave it out with `exclude` of {entry}, or name it in `cache` or `scratch` of the step, in place of `outputs`"
        ),
        AdviceKind::VersionControl => format!(
            "leave it out with `exclude = [\"**/{}\"]` of {entry}: whoever has the image has all that ever was in the repository",
            subject.rsplit('/').next().unwrap_or(subject)
        ),
        AdviceKind::Development => {
            format!("write `for = \"production\"` at {entry}: without {}", names(packages, set, subject))
        }
        AdviceKind::BuildTools => format!(
            "give the image a `base` of its own with fewer `packages`, where nothing needs them when it runs: without {}",
            names(packages, set, subject)
        ),
        AdviceKind::Documentation => {
            format!("leave it out with `exclude` of {entry}, or take a smaller `base`, where nobody reads it in there")
        }
        AdviceKind::Duplicate | AdviceKind::ToldSecret => String::new(),
    }
}

/// The entries of `layers` that layers were made of, as the history has them.
fn entry_of(image: &Image, set: &BTreeSet<usize>) -> String {
    let layers: BTreeSet<usize> = set.iter().map(|number| image.entries[*number].layer).collect();
    let label = |layer: &usize| {
        let by = image.layers[*layer].created_by.strip_prefix("cas ")?;
        let label = by.split(' ').next().filter(|label| label.starts_with("//"))?;
        Some(format!("`{label}`"))
    };
    let labels: BTreeSet<String> = layers.iter().filter_map(label).take(MAX_NAMES).collect();
    match labels.len() {
        0 => "the entry of `layers`".to_owned(),
        _ => format!("the entry of `layers` with files of {}", labels.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// What to do in the words of a Dockerfile.
fn others_change(packages: &Packages, kind: AdviceKind, subject: &str, set: &BTreeSet<usize>) -> String {
    match kind {
        AdviceKind::Secret => {
            "leave it out of every layer: mount it while the step runs, or give it to the program when it starts; \
             replace it, when the image has left the house"
                .to_owned()
        }
        AdviceKind::Removed => "remove it in the step that makes it, or do not make it".to_owned(),
        AdviceKind::Overwritten if subject.ends_with(NOTHING) => {
            "write the file once: the same one, with the same rights, is in both layers".to_owned()
        }
        AdviceKind::Overwritten if subject.ends_with(RIGHTS) => {
            "set rights and owners where the file is made (`COPY --chmod --chown`, or in the same step): \
             changing them in another layer copies the whole file"
                .to_owned()
        }
        AdviceKind::Overwritten => "write the file once: what is below it is never seen".to_owned(),
        AdviceKind::Cache => match subject {
            "apt" => "end the step that installs with `rm -rf /var/lib/apt/lists/* /var/cache/apt/*`, or keep them in cache mounts",
            "apk" => "install with `apk add --no-cache`",
            "dnf" => "end the step that installs with `dnf clean all`",
            "npm" => "end the step that installs with `npm cache clean --force`, or keep `~/.npm` in a cache mount",
            "yarn" => "end the step that installs with `yarn cache clean`",
            "pnpm" => "keep the store in a cache mount; files that `node_modules` shares with it stay there",
            "pip" => "install with `pip install --no-cache-dir`",
            "cargo" | "go" => "copy what was built into an image without the caches of the build",
            _ => "install with `PYTHONDONTWRITEBYTECODE=1`, where a slower first start is fine",
        }
        .to_owned(),
        AdviceKind::VersionControl => {
            "name it in `.dockerignore`: whoever has the image has all that ever was in the repository".to_owned()
        }
        AdviceKind::Development => {
            format!("install with `npm ci --omit=dev`: without {}", names(packages, set, subject))
        }
        AdviceKind::BuildTools => format!(
            "build in another stage and copy what it gives, where nothing needs them when it runs: without {}",
            names(packages, set, subject)
        ),
        AdviceKind::Duplicate | AdviceKind::ToldSecret => String::new(),
        AdviceKind::Documentation => {
            "leave it out, where nobody reads it in there (`path-exclude` of dpkg, `--setopt=tsflags=nodocs` of dnf)".to_owned()
        }
    }
}

/// The packages that files are of.
fn names(packages: &Packages, set: &BTreeSet<usize>, otherwise: &str) -> String {
    let owners: BTreeSet<usize> = set.iter().filter_map(|number| packages.owners.get(number).copied()).collect();
    let names: BTreeSet<&str> = owners.iter().map(|owner| &*packages.packages[*owner].name).collect();
    let told: Vec<String> = names.iter().take(MAX_NAMES).map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => format!("`{otherwise}`"),
        count if count > MAX_NAMES => format!("{} and {} more", told.join(", "), count - MAX_NAMES),
        _ => told.join(", "),
    }
}

/// Secrets by entry, for whoever counts them.
pub(crate) fn secrets(image: &Image) -> impl Iterator<Item = (usize, SecretKind)> + '_ {
    let real = image.entries.iter().enumerate().filter(|(_, entry)| entry.fate != Fate::Apart);
    real.filter_map(|(number, entry)| Some((number, entry.secret?)))
}
