//! `cas publish`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cas_attest::PrivateKey;
use cas_build::{BuildError, Destination, Output, Whole, Workspace, export_artifact, export_image};
use cas_config::{Label, Located, Publication, Reference};
use cas_digest::{Digest, DigestFunction};
use cas_oci::TagClass;
use cas_registry::{Credentials, Login};
use cas_store::Store;
use cas_sync::{Attachable, Parcel, ParcelAttachments, Publishing, PushEvent, Pushed, Shipment, Target};
use clap::Args;
use serde_json::{Value, json};

use crate::args::{Global, InputArgs};
use crate::commands::{
    OnSignals, Options, build_options, cancel_on_signals, logins, open_store, open_workspace, outputs, print, text,
};
use crate::exit::Exit;
use crate::key::{PasswordArgs, private};
use crate::render::{self, Failure};
use crate::whereabouts::remembering;
use crate::{gate, inputs, push, sign, template};

/// Longest journal that is read.
const MAX_JOURNAL_BYTES: u64 = 16 << 20;
/// Where npm packages go.
const NPM: &str = "npm:";

#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    /// Which one: `name` or `:name` of this package, `//folder:name` [default: the only one of this package]
    name: Option<String>,
    /// Build, look at what is there, and send nothing; gates do not run
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    password: PasswordArgs,
    #[command(flatten)]
    input: InputArgs,
}

/// A target, where it goes, and which of its tags may move.
type Place = (Label, Vec<Target>, BTreeSet<String>);

/// A target with what becomes of it.
struct Item {
    label: Label,
    output: Output,
    targets: Vec<Target>,
}

pub(crate) fn run(global: &Global, args: &PublishArgs) -> Result<Exit, Failure> {
    if args.input.offline {
        return Err(Failure::Usable("a publication needs the network".to_owned(), "leave `--offline` out".to_owned()));
    }
    let (workspace, package) = open_workspace(global)?;
    let (label, publication) = find(&workspace, package.as_ref(), args.name.as_deref())?;
    let places = places(&workspace, &label, publication)?;
    let store = Arc::new(open_store(global)?);
    let options = build_options(None, &args.input);
    let labels: Vec<Label> = places.iter().map(|(label, ..)| label.clone()).collect();
    let mut built = outputs(&workspace, &store, &labels, &options)?;
    let (mut items, mut parcels) = (Vec::new(), Vec::new());
    for (label, targets, moved) in places {
        let output = built.remove(&label).ok_or_else(|| Failure::Usage(format!("`{label}` gave nothing")))?;
        parcels.push(Parcel { shipment: shipment(&store, &label, &output)?, targets: targets.clone(), moved });
        items.push(Item { label, output, targets });
    }
    let subjects: Vec<Attachable> = parcels.iter().map(|parcel| push::subject(&parcel.shipment)).collect();
    let key = match &publication.sign {
        Some(key) if !args.dry_run => Some(private(global, key, &args.password)?),
        _ => None,
    };
    let secrets = secrets(publication, &items)?;
    let signals = cancel_on_signals()?;
    let client = remembering(signals.client(logins(), BTreeMap::new()), &store);
    let mut journal = Journal::new(&store, &workspace, &label, &items, &subjects);
    journal.note_before();
    let publishing = Publishing::look(&client, parcels).map_err(Failure::Sync)?;
    let (done, attached) = if args.dry_run {
        (publishing.plan().map_err(Failure::Sync)?, Vec::new())
    } else {
        gates(&workspace, &store, &label, publication, &items, &subjects, &secrets, &signals)?;
        // Packing is long, and for nothing where something is refused.
        let attached = attachments(&workspace, &store, &items, &subjects, key.as_ref(), publication, &options)?;
        journal.begin()?;
        let done = publishing.send(&attached, &|event| journal.tell(&event)).map_err(Failure::Sync)?;
        journal.end()?;
        (done, attached)
    };
    show(global, &items, &subjects, &done, &attached, args.dry_run)?;
    Ok(Exit::Done)
}

/// The publication that a name means.
fn find<'a>(
    workspace: &'a Workspace,
    package: Option<&cas_tree::RelPath>,
    name: Option<&str>,
) -> Result<(Label, &'a Publication), Failure> {
    let of = |package: Option<&cas_tree::RelPath>| {
        workspace.packages.get(&package.cloned()).map(|package| &package.manifest.publications)
    };
    let known = || {
        let all = workspace.packages.iter().flat_map(|(package, found)| {
            let names = found.manifest.publications.keys();
            names.map(|name| Label { package: package.clone(), name: name.clone() }.to_string())
        });
        let all: Vec<String> = all.collect();
        match all.is_empty() {
            true => "write `[publish.release]` into `cas.toml`".to_owned(),
            false => format!("there are `{}`", all.join("`, `")),
        }
    };
    let Some(text) = name else {
        let own: Vec<_> = of(package).into_iter().flatten().collect();
        let [(name, publication)] = own[..] else {
            return Err(Failure::Usable(format!("this package has {} publications", own.len()), known()));
        };
        return Ok((Label { package: package.cloned(), name: name.clone() }, publication));
    };
    let text = if text.contains([':', '/']) { text.to_owned() } else { format!(":{text}") };
    let label = match text.parse::<Reference>() {
        Ok(Reference::Own(name)) => Label { package: package.cloned(), name },
        Ok(Reference::Full(label)) => label,
        Ok(Reference::Dependencies(_)) | Err(_) => {
            return Err(Failure::Usable(format!("`{text}` is no name"), known()));
        }
    };
    let found = of(label.package.as_ref()).and_then(|all| all.get(&label.name));
    found.map(|found| (label.clone(), found)).ok_or_else(|| {
        let message = format!("there is no publication `{label}`");
        Failure::Usable(message, known())
    })
}

/// Where each target goes, and which of its tags may move.
fn places(workspace: &Workspace, label: &Label, publication: &Publication) -> Result<Vec<Place>, Failure> {
    if let Some(npm) = publication.to.iter().find(|to| to.value.starts_with(NPM)) {
        let message = format!("`{}` of `{label}` is a registry of npm packages: those come later", npm.value);
        return Err(Failure::Usable(message, "leave it out, and publish the tarball of `cas npm pack`".to_owned()));
    }
    let mut places = Vec::new();
    let mut taken: BTreeMap<String, Label> = BTreeMap::new();
    let values = |texts: &[Located<String>]| -> Vec<String> { texts.iter().map(|text| text.value.clone()).collect() };
    for of in &publication.of {
        let target = workspace.resolve(label.package.as_ref(), &of.value)?;
        let texts = template::expanded(workspace, &target, &values(&publication.to))?;
        let moving = template::expanded(workspace, &target, &values(&publication.moving))?;
        let mut targets = Target::parse_all(texts.iter().map(String::as_str))
            .map_err(|error| Failure::Usable(error.to_string(), error.hint()))?;
        for place in &mut targets {
            if let Some(tag) = place.tags.iter().find(|tag| TagClass::of(tag) == TagClass::Moving) {
                let message = format!("`{}:{tag}` is neither a version nor a commit", place.repository);
                let hint = format!("name a version, and `{tag}` in `moving`");
                return Err(Failure::Usable(message, hint));
            }
            if place.tags.is_empty() && !moving.is_empty() {
                let message = format!("`{}` would get `{}` alone", place.repository, moving.join("`, `"));
                return Err(Failure::Usable(message, format!("set a version with it: `{}:VERSION`", place.repository)));
            }
            for tag in &moving {
                let class = TagClass::of(tag);
                if class != TagClass::Moving {
                    let message = format!("`{tag}` of `moving` cannot move: {} do not", class.words());
                    return Err(Failure::Usable(message, "name it in `to`".to_owned()));
                }
                if !cas_oci::is_tag(tag) {
                    let hint = "write the tag alone: at most 128 letters, digits, `.`, `_` and `-`";
                    return Err(Failure::Usable(format!("`{tag}` is not a tag"), hint.to_owned()));
                }
                if !place.tags.contains(tag) {
                    place.tags.push(tag.clone());
                }
            }
            for name in place.tags.iter().map(|tag| format!("{}:{tag}", place.repository)) {
                if let Some(other) = taken.insert(name.clone(), target.clone()) {
                    let message = format!("`{name}` would be `{other}` and `{target}`");
                    return Err(Failure::Usable(message, "write `{name}` into the destination".to_owned()));
                }
            }
        }
        places.push((target, targets, moving.into_iter().collect()));
    }
    Ok(places)
}

fn shipment(store: &Arc<Store>, label: &Label, output: &Output) -> Result<Shipment, Failure> {
    match output {
        Output::Image(image) => push::shipment(store, Whole::of_image(store, image)?),
        Output::Artifact(artifact) => push::shipment(store, Whole::of_artifact(store, artifact)?),
        Output::Tarball(_) => {
            let message = format!("`{label}` is an npm tarball, and those are published later");
            Err(Failure::Usable(message, "leave it out, and publish the tarball of `cas npm pack`".to_owned()))
        }
        other => {
            let (label, kind) = (label.to_string(), other.kind());
            Err(BuildError::Role { label, kind, role: "published" }.into())
        }
    }
}

/// What is not to be seen: secrets of gates, and passwords of registries.
fn secrets(publication: &Publication, items: &[Item]) -> Result<Vec<Vec<u8>>, Failure> {
    if publication.gates.is_empty() {
        return Ok(Vec::new());
    }
    let mut secrets = Vec::new();
    for (name, gate) in &publication.gates {
        secrets.extend(gate::secrets(name, gate)?);
    }
    let credentials = Credentials::read(logins()).map_err(BuildError::from)?;
    for target in items.iter().flat_map(|item| &item.targets) {
        match credentials.find(&target.repository).map_err(BuildError::from)? {
            Some(Login::Password { password, .. }) => secrets.push(password.into_bytes()),
            Some(Login::IdentityToken(token)) => secrets.push(token.into_bytes()),
            None => {}
        }
    }
    Ok(secrets)
}

/// What goes beside each target at each of its places.
fn attachments(
    workspace: &Workspace,
    store: &Arc<Store>,
    items: &[Item],
    subjects: &[Attachable],
    key: Option<&PrivateKey>,
    publication: &Publication,
    options: &Options,
) -> Result<Vec<Vec<ParcelAttachments>>, Failure> {
    let mut all = Vec::new();
    for (item, subject) in items.iter().zip(subjects) {
        let described = match (key.is_some() && publication.provenance) || publication.inputs {
            true => Some(crate::provenance::described(workspace, store, &item.label, options)?),
            false => None,
        };
        let predicate = described.as_ref().filter(|_| publication.provenance).map(|one| one.provenance.encode());
        let inputs = described.as_ref().filter(|_| publication.inputs);
        let inputs = inputs.map(|described| inputs::attachment(store, described, subject)).transpose()?;
        let mut places = Vec::new();
        for target in &item.targets {
            let mut attached = ParcelAttachments::default();
            if let Some(key) = key {
                let repository = target.repository.to_string();
                attached.referrers.push(sign::signature(key, subject, &repository).map_err(sign::too_much)?);
                if let Some(predicate) = &predicate {
                    attached
                        .referrers
                        .push(sign::provenance(key, subject, &repository, predicate).map_err(sign::too_much)?);
                }
                attached.older = sign::older_form(key, subject, &repository).map_err(sign::too_much)?;
            }
            attached.referrers.extend(inputs.clone());
            places.push(attached);
        }
        all.push(places);
    }
    Ok(all)
}

/// Runs the gates over each target.
#[expect(clippy::too_many_arguments, reason = "all of a publication, at one place")]
fn gates(
    workspace: &Workspace,
    store: &Store,
    label: &Label,
    publication: &Publication,
    items: &[Item],
    subjects: &[Attachable],
    secrets: &[Vec<u8>],
    signals: &OnSignals,
) -> Result<(), Failure> {
    if publication.gates.is_empty() {
        return Ok(());
    }
    let folder =
        label.package.as_ref().map_or_else(|| workspace.root.clone(), |at| workspace.root.join(at.to_string()));
    for (item, subject) in items.iter().zip(subjects) {
        let layout = cas_fs::temporary_dir_in(store.scratch(), "layout-")?;
        let destination = Destination::Layout { folder: layout.clone(), tag: "latest".to_owned() };
        let passed = (|| -> Result<(), Failure> {
            match &item.output {
                Output::Image(image) => export_image(store, image, &destination)?,
                Output::Artifact(artifact) => export_artifact(store, artifact, &destination)?,
                _ => {}
            }
            let (target, digest) = (item.label.to_string(), subject.blob.digest.to_string());
            let looked = gate::Looked { target: &target, digest: &digest, layout: &layout };
            for (name, gate) in &publication.gates {
                gate::run(name, gate, &looked, &folder, secrets, &signals.0)?;
                render::note(&format!("the gate `{name}` lets `{target}` pass"));
            }
            Ok(())
        })();
        cas_fs::remove_tree(&layout)?;
        passed?;
    }
    Ok(())
}

fn show(
    global: &Global,
    items: &[Item],
    subjects: &[Attachable],
    done: &[Vec<Pushed>],
    attached: &[Vec<ParcelAttachments>],
    is_dry: bool,
) -> Result<(), Failure> {
    let mut rows: Vec<Value> = Vec::new();
    for (index, ((item, subject), done)) in items.iter().zip(subjects).zip(done).enumerate() {
        let (name, digest) = (item.label.to_string(), subject.blob.digest.to_string());
        for (place, pushed) in done.iter().enumerate() {
            let referrers = attached.get(index).and_then(|places| places.get(place));
            let referrers = referrers.into_iter().flat_map(|attached| &attached.referrers);
            let referrers: Vec<String> = referrers.map(|one| one.referrer.blob.digest.to_string()).collect();
            for mut row in push::rows(&name, &digest, pushed, is_dry) {
                if !referrers.is_empty() {
                    row["referrers"] = json!(referrers);
                }
                rows.push(row);
            }
        }
    }
    print(global, &rows, |row| {
        let tag = row["tag"].as_str().map_or_else(String::new, |tag| format!(" {tag}"));
        format!("{} {} {}{tag}", text(&row["name"]), text(&row["digest"]), text(&row["destination"]))
    })?;
    for pushed in done.iter().flatten() {
        render::note(&push::summary(pushed, is_dry));
    }
    Ok(())
}

/// What a run has done so far, for the next one to tell. It decides nothing.
struct Journal {
    path: PathBuf,
    /// The lines that begin it.
    begun: Vec<String>,
    digests: BTreeMap<String, Digest>,
    lock: Mutex<()>,
}

const JOURNAL: &str = "cas publish journal 1";

impl Journal {
    fn new(store: &Store, workspace: &Workspace, label: &Label, items: &[Item], subjects: &[Attachable]) -> Self {
        let words = [workspace.root.as_os_str().as_encoded_bytes(), b"\0", label.to_string().as_bytes()].concat();
        let name = Digest::of(DigestFunction::Sha256, &words).to_hex();
        let (mut begun, mut digests) = (Vec::new(), BTreeMap::new());
        for (item, subject) in items.iter().zip(subjects) {
            begun.push(format!("begun {} {}", item.label, subject.blob.digest));
            for target in &item.targets {
                digests.extend(target.tags.iter().map(|tag| (format!("{target}:{tag}"), subject.blob.digest)));
            }
        }
        let path = store.folder().join("publications").join(format!("{name}.journal"));
        Self { path, begun, digests, lock: Mutex::new(()) }
    }

    /// Tells what the last run left.
    fn note_before(&self) {
        let Ok(before) = cas_fs::read_limited(&self.path, MAX_JOURNAL_BYTES) else { return };
        let before = String::from_utf8_lossy(&before);
        let lines = |word: &'static str| before.lines().filter(move |line| line.starts_with(word));
        let tags: Vec<&str> = lines("tag ").filter_map(|line| line.split(' ').nth(1)).collect();
        if lines("begun ").eq(self.begun.iter().map(String::as_str)) {
            let done = format!("{} of {}", tags.len(), render::counted(self.digests.len() as u64, "tag"));
            render::note(&format!("note: the last run broke off when it had set {done}: this one goes on"));
        } else if !tags.is_empty() {
            let message = "warning: the last run was for something else, and broke off when it had set";
            render::note(&format!("{message} `{}`", tags.join("`, `")));
        }
    }

    fn begin(&self) -> Result<(), Failure> {
        if let Some(folder) = self.path.parent() {
            cas_fs::create_dir_all(folder)?;
        }
        let lines = [JOURNAL].into_iter().chain(self.begun.iter().map(String::as_str));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        Ok(cas_fs::write_atomic(&self.path, text.as_bytes())?)
    }

    fn tell(&self, event: &PushEvent<'_>) {
        let line = match event {
            PushEvent::Sent => "sent\n".to_owned(),
            PushEvent::Tagged { target, tag } => {
                let name = format!("{target}:{tag}");
                self.digests.get(&name).map_or_else(String::new, |digest| format!("tag {name} {digest}\n"))
            }
            PushEvent::Delivered { .. } => return,
        };
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // It tells what was done, and decides nothing.
        let _ = cas_fs::append(&self.path, line.as_bytes());
    }

    fn end(&mut self) -> Result<(), Failure> {
        Ok(cas_fs::remove_file_if_there(&self.path)?)
    }
}
