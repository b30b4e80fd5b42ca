//! `cas sign`, `cas attest` and `cas verify`.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use cas_attest::{
    BUNDLE_MEDIA_TYPE, Bundle, CONTENT_ANNOTATION, CONTENT_DSSE, DocumentError, Expectation, KeySet, MAX_BUNDLE_BYTES,
    MAX_CANDIDATES, MAX_PAYLOAD_BYTES, PREDICATE_ANNOTATION, PROVENANCE_PREDICATE, PrivateKey, Provenance, Rejected,
    Rejection, SIGN_PREDICATE, SIGNATURE_ANNOTATION, SIMPLE_MEDIA_TYPE, SimplePayload, SimpleSignature, SimpleType,
    Statement, Subject, TrustedKey, Verified, VerifyError, signature_tag, verify_bundles, verify_simple,
};
use cas_digest::{Digest, DigestFunction};
use cas_oci::Reference;
use cas_sync::{Attachable, Attachments};
use clap::Args;
use serde_json::{Value, json};

use crate::args::{Format, Global};
use crate::commands::{cancel_on_signals, in_here, logins, now_unix_seconds, open_store, print, text};
use crate::exit::Exit;
use crate::key::{PasswordArgs, private, public};
use crate::provenance;
use crate::render::{self, Failure};

/// Longest payload of the older form.
const MAX_SIMPLE_BYTES: u64 = 64 << 10;

#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    /// Images in registries: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The private key: a file, or the name of one that `cas key` keeps
    #[arg(long)]
    key: String,
    /// The repository that is signed for, where the image will be copied to another one
    #[arg(long, value_name = "HOST/NAME")]
    repository: Option<String>,
    /// Write the bundle alone, and not the older form, which is for podman and skopeo
    #[arg(long)]
    no_legacy: bool,
    #[command(flatten)]
    password: PasswordArgs,
}

#[derive(Args, Debug)]
pub(crate) struct AttestArgs {
    /// Image in a registry: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`
    image: String,
    /// What is said of the image: a file with a JSON object
    #[arg(long, value_name = "FILE")]
    predicate: PathBuf,
    /// What kind of thing is said, as a URI
    #[arg(long = "type", value_name = "URI", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    predicate_type: String,
    /// The private key: a file, or the name of one that `cas key` keeps
    #[arg(long)]
    key: String,
    /// The repository that is signed for, where the image will be copied to another one
    #[arg(long, value_name = "HOST/NAME")]
    repository: Option<String>,
    #[command(flatten)]
    password: PasswordArgs,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Image in a registry: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`
    image: String,
    /// A public key that is trusted: a file, or the name of one that `cas key` keeps; one of several is enough
    #[arg(long, required = true)]
    key: Vec<String>,
    /// The repository that must have been signed for, in place of the image's own
    #[arg(long, value_name = "HOST/NAME")]
    repository: Option<String>,
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

pub(crate) fn sign(global: &Global, args: &SignArgs) -> Result<Exit, Failure> {
    let images = args.images.iter().map(|image| reference(image)).collect::<Result<Vec<_>, _>>()?;
    let key = private(global, &args.key, &args.password)?;
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), BTreeMap::new());
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    let mut rows = Vec::new();
    for (image, name) in images.iter().zip(&args.images) {
        let found = attachments.find(image).map_err(Failure::Sync)?;
        let repository = args.repository.clone().unwrap_or_else(|| found.repository.to_string());
        let subject = Subject { name: Some(repository.clone()), ..Subject::of(&found.blob.digest) };
        let statement = Statement::signature_of(subject).map_err(too_much)?;
        let referrer = attach(&attachments, &found, &key, &statement)?;
        let mut row = json!({
            "image": name,
            "digest": found.blob.digest.to_string(),
            "repository": repository,
            "key": key.public_key().id().to_string(),
            "bundle": referrer.to_string(),
        });
        // The older form knows no other digests.
        if !args.no_legacy && found.blob.digest.function() == DigestFunction::Sha256 {
            let tag = signature_tag(&found.blob.digest);
            let kind = SimpleType::Cosign;
            let (manifest, claims) = (found.blob.digest, BTreeMap::new());
            let payload = SimplePayload { kind, reference: repository, manifest, claims };
            let (payload, signature) = payload.sign(&key).map_err(too_much)?;
            let annotations = BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), signature)]);
            let place = &found.repository;
            let tagged = attachments.tag(place, &tag, SIMPLE_MEDIA_TYPE, payload.as_bytes(), &annotations);
            tagged.map_err(Failure::Sync)?;
            row["legacy"] = json!(tag);
        }
        rows.push(row);
    }
    print(global, &rows, |row| {
        format!("{}@{} signed for {}", text(&row["image"]), text(&row["digest"]), text(&row["repository"]))
    })?;
    Ok(Exit::Done)
}

pub(crate) fn attest(global: &Global, args: &AttestArgs) -> Result<Exit, Failure> {
    let image = reference(&args.image)?;
    let predicate = cas_fs::read_limited(&in_here(global, &args.predicate), MAX_PAYLOAD_BYTES as u64)?;
    let no_text = |_| Failure::Usage(format!("`{}` is no text", args.predicate.display()));
    let predicate = String::from_utf8(predicate).map_err(no_text)?;
    let key = private(global, &args.key, &args.password)?;
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), BTreeMap::new());
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    let found = attachments.find(&image).map_err(Failure::Sync)?;
    let repository = args.repository.clone().unwrap_or_else(|| found.repository.to_string());
    let subject = Subject { name: Some(repository.clone()), ..Subject::of(&found.blob.digest) };
    let statement = Statement::new(vec![subject], &args.predicate_type, &predicate).map_err(too_much)?;
    let referrer = attach(&attachments, &found, &key, &statement)?;
    let row = json!({
        "image": args.image,
        "digest": found.blob.digest.to_string(),
        "repository": repository,
        "type": args.predicate_type,
        "key": key.public_key().id().to_string(),
        "bundle": referrer.to_string(),
    });
    print(global, &[row], |row| {
        format!("{}@{} attested: {}", text(&row["image"]), text(&row["digest"]), text(&row["type"]))
    })?;
    Ok(Exit::Done)
}

/// Signs a statement and attaches it to what it is about.
fn attach(
    attachments: &Attachments<'_>,
    found: &Attachable,
    key: &PrivateKey,
    statement: &Statement,
) -> Result<Digest, Failure> {
    let bundle = Bundle::sign(key, statement).map_err(too_much)?;
    let annotations = [(CONTENT_ANNOTATION, CONTENT_DSSE), (PREDICATE_ANNOTATION, statement.predicate_type())];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    attachments.attach(found, BUNDLE_MEDIA_TYPE, bundle.as_bytes(), annotations).map_err(Failure::Sync)
}

pub(crate) fn verify(global: &Global, args: &VerifyArgs) -> Result<Exit, Failure> {
    let image = reference(&args.image)?;
    let mut keys = Vec::new();
    for name in &args.key {
        keys.push(TrustedKey { name: name.clone(), key: public(global, name)?, not_before: None, not_after: None });
    }
    let keys = KeySet::new(keys).map_err(|error| Failure::Usage(error.to_string()))?;
    let signals = cancel_on_signals()?;
    let client = signals.client(logins(), BTreeMap::new());
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    let repository = args.repository.clone().unwrap_or_else(|| image.repository.to_string());
    let (found, digest) = match (&args.bundle, image.digest) {
        // Offline: the digest is what is known of the image.
        (Some(_), Some(digest)) => (None, digest),
        _ => {
            let found = attachments.find(&image).map_err(Failure::Sync)?;
            let digest = found.blob.digest;
            (Some(found), digest)
        }
    };
    let expected = Expectation {
        artifact: &[digest],
        predicate_type: match &args.predicate_type {
            Some(kind) => kind,
            None if args.inputs => PROVENANCE_PREDICATE,
            None => SIGN_PREDICATE,
        },
        repository: Some(&repository),
        annotations: &BTreeMap::new(),
        threshold: NonZeroUsize::MIN,
        now: i64::try_from(now_unix_seconds()).unwrap_or(i64::MAX),
    };
    let mut judged = Judged::default();
    match (&args.bundle, &found) {
        (Some(file), _) => {
            let bundle = cas_fs::read_limited(&in_here(global, file), MAX_BUNDLE_BYTES as u64)?;
            judged.add(&file.display().to_string(), verify_bundles(&keys, &expected, [bundle]));
        }
        (None, Some(found)) => judge_attached(&attachments, found, &keys, &expected, &mut judged)?,
        (None, None) => {}
    }
    let is_verified = !judged.accepted.is_empty();
    let (mut absent, mut summaries) = (Vec::new(), Vec::new());
    if args.inputs && is_verified {
        let store = open_store(global)?;
        for statement in &judged.statements {
            let read = Provenance::decode(statement.predicate().as_bytes());
            let refused = |error: DocumentError| {
                let hint = "sign what `cas provenance` gives";
                Failure::Usable(format!("the signed provenance cannot be looked through: {error}"), hint.to_owned())
            };
            let provenance = read.map_err(refused)?;
            let rows = provenance::absent(&store, &provenance)?;
            summaries.push(provenance::summary(&provenance, rows.len()));
            absent.extend(rows);
        }
    }
    let exit = match (is_verified, absent.is_empty()) {
        (false, _) => Exit::Mismatch,
        (true, false) => Exit::Failed,
        (true, true) => Exit::Done,
    };
    if global.format == Format::Json {
        let row = json!({
            "image": args.image, "digest": digest.to_string(), "repository": repository,
            "type": expected.predicate_type, "verified": is_verified,
            "accepted": judged.accepted, "refused": judged.refused, "absent": absent,
        });
        render::lines([json!({ "exit": exit.word(), "results": [row] }).to_string()])?;
        return Ok(exit);
    }
    let told = |row: &Value| {
        format!(
            "{}@{digest} is signed by {} ({}): {}",
            image.repository,
            text(&row["key"]),
            text(&row["id"]),
            text(&row["place"])
        )
    };
    render::lines(judged.accepted.iter().map(told))?;
    render::lines(absent.iter().map(provenance::line))?;
    // What says something else was not asked for, and matters where nothing was found.
    for row in judged.refused.iter().filter(|row| !is_verified || row["other"] != true) {
        render::note(&format!("refused: {}: {}", text(&row["place"]), text(&row["reason"])));
    }
    summaries.iter().for_each(|summary| render::note(summary));
    if !is_verified {
        let count = judged.refused.len();
        let why =
            if count == 0 { "there is no signature".to_owned() } else { format!("{count} of {count} are refused") };
        render::note(&format!("error: {}@{digest} is not verified: {why}", image.repository));
    }
    Ok(exit)
}

/// What counts and what does not: each candidate is judged by itself, so that all are told.
#[derive(Debug, Default)]
struct Judged {
    accepted: Vec<Value>,
    refused: Vec<Value>,
    /// What those say that were accepted.
    statements: Vec<Statement>,
}

impl Judged {
    fn add(&mut self, place: &str, result: Result<Verified, VerifyError>) {
        match result {
            Ok(verified) => {
                for accepted in verified.accepted {
                    let id = accepted.key_id.to_string();
                    self.accepted.push(json!({ "place": place, "key": accepted.key_name, "id": id }));
                    self.statements.extend(accepted.statement);
                }
            }
            Err(VerifyError::Threshold { rejected, .. }) if !rejected.is_empty() => {
                for Rejected { reason, .. } in rejected {
                    let other = matches!(reason, Rejection::PredicateType { .. });
                    self.refused.push(json!({ "place": place, "reason": reason.to_string(), "other": other }));
                }
            }
            Err(error) => self.refuse(place, &error.to_string()),
        }
    }

    fn refuse(&mut self, place: &str, reason: &str) {
        self.refused.push(json!({ "place": place, "reason": reason, "other": false }));
    }
}

fn judge_attached(
    attachments: &Attachments<'_>,
    found: &Attachable,
    keys: &KeySet,
    expected: &Expectation<'_>,
    judged: &mut Judged,
) -> Result<(), Failure> {
    let limit = MAX_BUNDLE_BYTES as u64;
    let bundles = attachments.attached(found, BUNDLE_MEDIA_TYPE, limit, MAX_CANDIDATES).map_err(Failure::Sync)?;
    for bundle in bundles {
        match bundle.content {
            Ok(content) => judged.add(&bundle.name, verify_bundles(keys, expected, [content])),
            Err(error) => judged.refuse(&bundle.name, &error.to_string()),
        }
    }
    // The older form says nothing but that something is signed.
    if expected.predicate_type != SIGN_PREDICATE || found.blob.digest.function() != DigestFunction::Sha256 {
        return Ok(());
    }
    let tag = signature_tag(&found.blob.digest);
    let layers = attachments.tagged(&found.repository, &tag, SIMPLE_MEDIA_TYPE, MAX_SIMPLE_BYTES, MAX_CANDIDATES);
    for layer in layers.map_err(Failure::Sync)? {
        match (&layer.content, layer.annotations.get(SIGNATURE_ANNOTATION)) {
            (Ok(payload), Some(signature)) => {
                judged.add(&layer.name, verify_simple(keys, expected, [SimpleSignature { payload, signature }]));
            }
            (Ok(_), None) => judged.refuse(&layer.name, "it has no signature"),
            (Err(error), _) => judged.refuse(&layer.name, &error.to_string()),
        }
    }
    Ok(())
}

fn reference(image: &str) -> Result<Reference, Failure> {
    let name = image.strip_prefix("docker://").unwrap_or(image);
    name.parse().map_err(|error: cas_oci::ParseReferenceError| {
        Failure::Usable(
            error.to_string(),
            "name an image in a registry: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`".to_owned(),
        )
    })
}

fn too_much(error: DocumentError) -> Failure {
    let hint = error.hint().unwrap_or_else(|| "sign less at once".to_owned());
    Failure::Usable(error.to_string(), hint)
}
