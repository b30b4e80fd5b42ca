//! `cas verify`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use cas_attest::{
    Acceptance, Answer, BUNDLE_MEDIA_TYPE, Candidate, Expectation, KeySet, KeySource, MAX_BUNDLE_BYTES, MAX_CANDIDATES,
    MAX_KEY_FILE_BYTES, MAX_POLICY_BYTES, PROVENANCE_PREDICATE, Policy, PolicyFile, PolicyFileError, Provenance,
    PublicKey, Question, Rejected, Rejection, SIGN_PREDICATE, SIGNATURE_ANNOTATION, SIMPLE_MEDIA_TYPE, SimpleSignature,
    Statement, TrustedKey, VerifyError, signature_tag, verify_candidates,
};
use cas_digest::{Digest, DigestFunction};
use cas_oci::Reference;
use cas_sync::{Attachable, Attachments};
use clap::Args;
use serde_json::{Value, json};

use crate::args::{Format, Global};
use crate::commands::{cancel_on_signals, in_here, logins, now_unix_seconds, open_store, text};
use crate::exit::Exit;
use crate::key::{of_file, public};
use crate::provenance;
use crate::render::{self, Failure};
use crate::sign::reference;

/// Longest payload of the older form.
const MAX_SIMPLE_BYTES: u64 = 64 << 10;

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Image in a registry: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`
    image: String,
    /// A public key that is trusted: a file, or the name of one that `cas key` keeps; one of several is enough
    #[arg(long, required_unless_present = "policy")]
    key: Vec<String>,
    /// A file that says what must have been said of the image, and by how many of whose keys; all of it must hold
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "repository", "predicate_type", "inputs", "unclaimed"])]
    policy: Option<PathBuf>,
    /// The repository that must have been signed for, in place of the image's own
    #[arg(long, value_name = "HOST/NAME")]
    repository: Option<String>,
    /// Take what was signed for no repository at all as well, as cosign 3 does it
    #[arg(long)]
    unclaimed: bool,
    /// Look at this bundle alone, and at none of the registry
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// What must have been said of the image, as the URI of a predicate; without it, that it is signed
    #[arg(long = "type", value_name = "URI")]
    predicate_type: Option<String>,
    /// Look for a signed provenance of `cas provenance`, and whether all that it names is in the store
    ///
    /// From the signature to each action of a step, and from there to each file that it saw; what is not there is told by name, and
    /// the exit code is 1 then.
    #[arg(long, conflicts_with = "predicate_type")]
    inputs: bool,
}

/// A bundle, or a signature of the older form, as it was found.
struct Found {
    place: String,
    content: Result<Vec<u8>, String>,
    /// Of the older form, which has it beside the content.
    signature: Option<String>,
}

impl Found {
    fn candidate(&self) -> Result<Candidate<'_>, &str> {
        let content = self.content.as_deref().map_err(String::as_str)?;
        Ok(match &self.signature {
            Some(signature) => Candidate::Simple(SimpleSignature { payload: content, signature }),
            None => Candidate::Bundle(content),
        })
    }
}

/// What is asked about, and all that is said of it.
struct Subject<'a> {
    name: &'a str,
    image: &'a Reference,
    digest: Digest,
    found: Vec<Found>,
    now: i64,
}

impl Subject<'_> {
    fn shown(&self) -> String {
        format!("{}@{}", self.image.repository, self.digest)
    }
}

pub(crate) fn verify(global: &Global, args: &VerifyArgs) -> Result<Exit, Failure> {
    let image = reference(&args.image)?;
    let trust = match &args.policy {
        Some(file) => Trust::Policy(read_policy(global, file)?),
        None => Trust::Keys(read_keys(global, &args.key)?),
    };
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), BTreeMap::new());
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    let (attachable, digest) = match (&args.bundle, image.digest) {
        // Offline: the digest is what is known of the image.
        (Some(_), Some(digest)) => (None, digest),
        _ => {
            let found = attachments.find(&image).map_err(Failure::Sync)?;
            let digest = found.blob.digest;
            (Some(found), digest)
        }
    };
    let found = match (&args.bundle, &attachable) {
        (Some(file), _) => {
            let content = cas_fs::read_limited(&in_here(global, file), MAX_BUNDLE_BYTES as u64)?;
            vec![Found { place: file.display().to_string(), content: Ok(content), signature: None }]
        }
        // The older form says nothing but that something is signed.
        (None, Some(attachable)) => look(&attachments, attachable, trust.asks_for(args, SIGN_PREDICATE))?,
        (None, None) => Vec::new(),
    };
    let now = i64::try_from(now_unix_seconds()).unwrap_or(i64::MAX);
    let subject = Subject { name: &args.image, image: &image, digest, found, now };
    match trust {
        Trust::Keys(keys) => by_keys(global, args, &subject, &keys),
        Trust::Policy(policy) => by_policy(global, &subject, &policy),
    }
}

/// Who is believed, and in what.
enum Trust {
    Keys(KeySet),
    Policy(Policy),
}

impl Trust {
    fn asks_for(&self, args: &VerifyArgs, predicate_type: &str) -> bool {
        match self {
            Self::Keys(_) => asked(args) == predicate_type,
            Self::Policy(policy) => policy.slots().iter().any(|slot| slot.predicate_type == predicate_type),
        }
    }
}

/// The predicate that the command line asks for.
fn asked(args: &VerifyArgs) -> &str {
    match &args.predicate_type {
        Some(kind) => kind,
        None if args.inputs => PROVENANCE_PREDICATE,
        None => SIGN_PREDICATE,
    }
}

fn read_keys(global: &Global, names: &[String]) -> Result<KeySet, Failure> {
    let mut keys = Vec::new();
    for name in names {
        keys.push(TrustedKey { name: name.clone(), key: public(global, name)?, not_before: None, not_after: None });
    }
    KeySet::new(keys).map_err(|error| Failure::Usage(error.to_string()))
}

fn read_policy(global: &Global, file: &Path) -> Result<Policy, Failure> {
    let path = in_here(global, file);
    let bytes = cas_fs::read_limited(&path, MAX_POLICY_BYTES as u64).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("`{}` is no text", path.display())))?;
    let refused = |error: PolicyFileError| {
        let line = error.span.map(|span| text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1));
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        let message = format!("`{}`{place}: {}", path.display(), error.message);
        let hint = error.hint.unwrap_or_else(|| "docs/formats/signing.md says what a policy may have".to_owned());
        Failure::Usable(message, hint)
    };
    let policy = PolicyFile::parse(&text).map_err(refused)?;
    let mut keys = BTreeMap::new();
    for (name, source) in policy.keys() {
        let key = match source {
            KeySource::Pem(pem) => PublicKey::from_pem(pem.as_bytes()).map_err(|error| of_file(&path, error))?,
            KeySource::File(file) => {
                let beside = path.parent().map_or_else(|| PathBuf::from(file), |folder| folder.join(file));
                let bytes = cas_fs::read_limited(&beside, MAX_KEY_FILE_BYTES as u64).map_err(unreadable)?;
                PublicKey::from_pem(&bytes).map_err(|error| of_file(&beside, error))?
            }
        };
        keys.insert(name.to_owned(), key);
    }
    policy.with_keys(&keys).map_err(refused)
}

/// A policy is not read without one of its files.
fn unreadable(error: cas_fs::FsError) -> Failure {
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
    let hint = "keys are looked for in the folder of the policy".to_owned();
    Failure::Usable(format!("the policy cannot be read: {error}{cause}"), hint)
}

/// All bundles that refer to an image, and signatures of the older form.
fn look(attachments: &Attachments<'_>, image: &Attachable, with_older: bool) -> Result<Vec<Found>, Failure> {
    let limit = MAX_BUNDLE_BYTES as u64;
    let bundles = attachments.attached(image, BUNDLE_MEDIA_TYPE, limit, MAX_CANDIDATES).map_err(Failure::Sync)?;
    let bundle = |bundle: cas_sync::Attached| Found {
        place: bundle.name,
        content: bundle.content.map_err(|error| error.to_string()),
        signature: None,
    };
    let mut found: Vec<Found> = bundles.into_iter().map(bundle).collect();
    if !with_older || image.blob.digest.function() != DigestFunction::Sha256 {
        return Ok(found);
    }
    let tag = signature_tag(&image.blob.digest);
    let layers = attachments.tagged(&image.repository, &tag, SIMPLE_MEDIA_TYPE, MAX_SIMPLE_BYTES, MAX_CANDIDATES);
    for layer in layers.map_err(Failure::Sync)? {
        let signature = layer.annotations.get(SIGNATURE_ANNOTATION).cloned();
        let content = layer.content.map_err(|error| error.to_string());
        let content = content.and_then(|content| match signature {
            Some(_) => Ok(content),
            None => Err("it has no signature".to_owned()),
        });
        found.push(Found { place: layer.name, content, signature });
    }
    Ok(found)
}

/// One signature of a key is enough; each is judged by itself, so that all are told.
fn by_keys(global: &Global, args: &VerifyArgs, subject: &Subject<'_>, keys: &KeySet) -> Result<Exit, Failure> {
    let repository = args.repository.clone().unwrap_or_else(|| subject.image.repository.to_string());
    let expected = Expectation {
        artifact: &[subject.digest],
        predicate_type: asked(args),
        repository: Some(&repository),
        is_unclaimed_enough: args.unclaimed,
        annotations: &BTreeMap::new(),
        threshold: NonZeroUsize::MIN,
        now: subject.now,
    };
    let mut judged = Judged::default();
    for found in &subject.found {
        match found.candidate() {
            Ok(candidate) => match verify_candidates(keys, &expected, [candidate]) {
                Ok(verified) => {
                    verified.accepted.into_iter().for_each(|accepted| judged.accept(&found.place, accepted))
                }
                Err(error) => judged.refuse_for(error, |_| &found.place),
            },
            Err(reason) => judged.refuse(&found.place, reason, false),
        }
    }
    let is_verified = !judged.accepted.is_empty();
    let (mut absent, mut summaries) = (Vec::new(), Vec::new());
    if args.inputs && is_verified {
        (absent, summaries) = inputs(global, &judged.statements)?;
    }
    let exit = match (is_verified, absent.is_empty()) {
        (false, _) => Exit::Mismatch,
        (true, false) => Exit::Failed,
        (true, true) => Exit::Done,
    };
    if global.format == Format::Json {
        let row = json!({
            "image": subject.name, "digest": subject.digest.to_string(), "repository": repository,
            "type": expected.predicate_type, "verified": is_verified,
            "accepted": judged.accepted, "refused": judged.refused, "absent": absent,
        });
        render::lines([json!({ "exit": exit.word(), "results": [row] }).to_string()])?;
        return Ok(exit);
    }
    let told = |row: &Value| {
        let [key, id, place] = ["key", "id", "place"].map(|field| text(&row[field]));
        format!("{} is signed by {key} ({id}): {place}", subject.shown())
    };
    render::lines(judged.accepted.iter().map(told))?;
    render::lines(absent.iter().map(provenance::line))?;
    judged.tell_refused(!is_verified);
    summaries.iter().for_each(|summary| render::note(summary));
    if !is_verified {
        let count = judged.refused.len();
        let why =
            if count == 0 { "there is no signature".to_owned() } else { format!("{count} of {count} are refused") };
        render::note(&format!("error: {} is not verified: {why}", subject.shown()));
        if judged.is_unclaimed {
            render::note("hint: `--unclaimed` takes signatures that name no repository, as cosign 3 makes them");
        }
    }
    Ok(exit)
}

/// What the store lacks of the inputs, and what was looked through. One provenance that is whole is enough: an image that was made
/// several times has several, and any of them tells how it can be made.
fn inputs(global: &Global, statements: &[Statement]) -> Result<(Vec<Value>, Vec<String>), Failure> {
    let store = open_store(global)?;
    let (mut best, mut unread) = (None::<(Vec<Value>, String)>, None);
    for statement in statements {
        let provenance = match Provenance::decode(statement.predicate().as_bytes()) {
            Ok(provenance) => provenance,
            Err(error) => {
                unread = Some(error);
                continue;
            }
        };
        let rows = provenance::absent(&store, &provenance)?;
        if best.as_ref().is_none_or(|(least, _)| rows.len() < least.len()) {
            let summary = provenance::summary(&provenance, rows.len());
            best = Some((rows, summary));
        }
    }
    match (best, unread) {
        (Some((rows, summary)), _) => Ok((rows, vec![summary])),
        (None, Some(error)) => {
            let hint = "whoever signed it has to sign what `cas provenance` gives";
            Err(Failure::Usable(format!("no signed provenance can be looked through: {error}"), hint.to_owned()))
        }
        (None, None) => Ok((Vec::new(), Vec::new())),
    }
}

/// All that a policy asks for must be there.
fn by_policy(global: &Global, subject: &Subject<'_>, policy: &Policy) -> Result<Exit, Failure> {
    // What could not be had is told, and counts as nothing.
    let readable: Vec<(&str, Candidate<'_>)> = subject
        .found
        .iter()
        .filter_map(|found| found.candidate().ok().map(|candidate| (found.place.as_str(), candidate)))
        .collect();
    let candidates: Vec<Candidate<'_>> = readable.iter().map(|(_, candidate)| *candidate).collect();
    let repository = subject.image.repository.to_string();
    let question = Question { artifact: &[subject.digest], repository: &repository, now: subject.now };
    let answers = policy.ask(question, &candidates);
    let is_verified = answers.iter().all(|answer| answer.result.is_ok());
    let exit = if is_verified { Exit::Done } else { Exit::Policy };
    let mut slots = Vec::new();
    for Answer { slot, result } in answers {
        let place = |candidate: usize| readable.get(candidate).map_or("", |(place, _)| place);
        let (mut judged, is_filled) = (Judged::default(), result.is_ok());
        match result {
            Ok(verified) => {
                verified.accepted.into_iter().for_each(|key| judged.accept(place(key.candidate), key));
                verified.rejected.into_iter().for_each(|rejected| judged.reject(place(rejected.candidate), &rejected));
            }
            Err(error) => judged.refuse_for(error, place),
        }
        for found in &subject.found {
            if let Err(reason) = found.candidate() {
                judged.refuse(&found.place, reason, false);
            }
        }
        slots.push((slot, judged, is_filled));
    }
    if global.format == Format::Json {
        let slots: Vec<Value> = slots
            .iter()
            .map(|(slot, judged, is_filled)| {
                json!({
                    "slot": slot.name, "type": slot.predicate_type, "threshold": slot.threshold,
                    "filled": is_filled, "accepted": judged.accepted, "refused": judged.refused,
                })
            })
            .collect();
        let row = json!({
            "image": subject.name, "digest": subject.digest.to_string(), "repository": repository,
            "verified": is_verified, "slots": slots,
        });
        render::lines([json!({ "exit": exit.word(), "results": [row] }).to_string()])?;
        return Ok(exit);
    }
    for (slot, judged, is_filled) in &slots {
        let told = |row: &Value| {
            let [key, id, place] = ["key", "id", "place"].map(|field| text(&row[field]));
            format!("{}: {}: {key} ({id}): {place}", subject.shown(), slot.name)
        };
        render::lines(judged.accepted.iter().map(told))?;
        if *is_filled {
            continue;
        }
        judged.tell_refused(true);
        let (count, least) = (judged.accepted.len(), slot.threshold);
        render::note(&format!(
            "error: {}: the policy's `{}` is not filled: {count} of {least} keys said `{}`",
            subject.shown(),
            slot.name,
            slot.predicate_type
        ));
    }
    Ok(exit)
}

/// What counts and what does not.
#[derive(Debug, Default)]
struct Judged {
    accepted: Vec<Value>,
    refused: Vec<Value>,
    /// Whether one of these names no repository.
    is_unclaimed: bool,
    /// What those say that were accepted.
    statements: Vec<Statement>,
}

impl Judged {
    fn accept(&mut self, place: &str, accepted: Acceptance) {
        let id = accepted.key_id.to_string();
        self.accepted.push(json!({ "place": place, "key": accepted.key_name, "id": id }));
        self.statements.extend(accepted.statement);
    }

    fn reject(&mut self, place: &str, rejected: &Rejected) {
        let is_other = matches!(rejected.reason, Rejection::PredicateType { .. });
        self.refuse(place, &rejected.reason.to_string(), is_other);
        if matches!(&rejected.reason, Rejection::Repository { actual, .. } if actual.is_empty()) {
            self.is_unclaimed = true;
        }
    }

    fn refuse(&mut self, place: &str, reason: &str, is_other: bool) {
        self.refused.push(json!({ "place": place, "reason": reason, "other": is_other }));
    }

    fn refuse_for<'a>(&mut self, error: VerifyError, place: impl Fn(usize) -> &'a str) {
        match error {
            VerifyError::Threshold { accepted, rejected, .. } => {
                accepted.into_iter().for_each(|key| self.accept(place(key.candidate), key));
                rejected.iter().for_each(|rejected| self.reject(place(rejected.candidate), rejected));
            }
            // Nothing to judge is no signature that is refused.
            VerifyError::NoSignature { .. } => {}
            error => self.refuse("all", &error.to_string(), false),
        }
    }

    /// What says something else was not asked for, and matters where nothing was found.
    fn tell_refused(&self, is_all: bool) {
        for row in self.refused.iter().filter(|row| is_all || row["other"] != true) {
            render::note(&format!("refused: {}: {}", text(&row["place"]), text(&row["reason"])));
        }
    }
}
