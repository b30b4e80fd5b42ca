//! `cas sign` and `cas attest`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cas_attest::{
    BUNDLE_MEDIA_TYPE, Bundle, CONTENT_ANNOTATION, CONTENT_DSSE, DocumentError, MAX_PAYLOAD_BYTES,
    PREDICATE_ANNOTATION, PROVENANCE_PREDICATE, SIGNATURE_ANNOTATION, SIMPLE_MEDIA_TYPE, Signer, SimplePayload,
    SimpleType, Statement, Subject, signature_tag,
};
use cas_blob::Descriptor;
use cas_build::BuildError;
use cas_digest::{Digest, DigestFunction};
use cas_oci::Reference;
use cas_sandbox::Cancel;
use cas_sync::{Attachable, Attachment, Attachments, OlderForm};
use clap::Args;
use serde_json::json;

use crate::args::Global;
use crate::commands::{OnSignals, cancel_on_signals, in_here, logins, print, text};
use crate::exit::Exit;
use crate::render::Failure;
use crate::signer::SigningArgs;

#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    /// Images in registries: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// The repository that is signed for, where the image will be copied to another one
    #[arg(long, value_name = "HOST/NAME")]
    repository: Option<String>,
    /// Write the bundle alone, and not the older form, which is for podman and skopeo
    #[arg(long)]
    no_legacy: bool,
    /// Write the bundle of the one image into this new file, and nothing to the registry; of a digest nobody is asked
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
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
    /// The repository that is signed for, where the image will be copied to another one
    #[arg(long, value_name = "HOST/NAME")]
    repository: Option<String>,
    /// Write the bundle into this new file, and nothing to the registry; of a digest nobody is asked
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    signing: SigningArgs,
}

/// A repository that something is signed for, which verifiers compare with that of an image.
fn check_repository(named: Option<&String>) -> Result<(), Failure> {
    let Some(text) = named else { return Ok(()) };
    let parsed = format!("{text}:x").parse::<Reference>();
    if parsed.is_ok_and(|parsed| parsed.repository.to_string() == *text) {
        return Ok(());
    }
    let shown = text.rsplit('@').next().unwrap_or_default();
    Err(Failure::Usable(
        format!("`{shown}` is no repository"),
        "write `HOST/NAME`, without a tag or a digest".to_owned(),
    ))
}

pub(crate) fn sign(global: &Global, args: &SignArgs) -> Result<Exit, Failure> {
    check_repository(args.repository.as_ref())?;
    let images = args.images.iter().map(|image| reference(image)).collect::<Result<Vec<_>, _>>()?;
    if args.bundle.is_some() && images.len() > 1 {
        return Err(Failure::Usage("`--bundle` is for one image: a bundle is about one".to_owned()));
    }
    let signals = cancel_on_signals()?;
    let signing = Signing::new(global, &args.signing, args.bundle.as_deref(), &signals)?;
    let client = signals.client(logins(), BTreeMap::new());
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    let mut rows = Vec::new();
    for (image, name) in images.iter().zip(&args.images) {
        let found = signing.find(&attachments, image)?;
        let repository = args.repository.clone().unwrap_or_else(|| found.repository.to_string());
        let statement = Statement::signature_of(subject(&found, &repository)).map_err(too_much)?;
        let mut row = json!({
            "image": name,
            "digest": found.blob.digest.to_string(),
            "repository": repository,
            "key": signing.signer.public_key().id().to_string(),
            "bundle": signing.give(&attachments, &found, &statement)?,
        });
        if args.bundle.is_none() && !args.no_legacy {
            let older = older_form(&*signing.signer, &found, &repository).map_err(|error| signing.refused(error))?;
            if let Some(OlderForm { tag, media_type, content, annotations }) = older {
                let tagged = attachments.tag(&found.repository, &tag, &media_type, &content, &annotations);
                tagged.map_err(Failure::Sync)?;
                row["legacy"] = json!(tag);
            }
        }
        rows.push(row);
    }
    print(global, &rows, |row| {
        format!("{}@{} signed for {}", text(&row["image"]), text(&row["digest"]), text(&row["repository"]))
    })?;
    Ok(Exit::Done)
}

pub(crate) fn attest(global: &Global, args: &AttestArgs) -> Result<Exit, Failure> {
    check_repository(args.repository.as_ref())?;
    let image = reference(&args.image)?;
    let predicate = cas_fs::read_limited(&in_here(global, &args.predicate), MAX_PAYLOAD_BYTES as u64)?;
    let no_text = |_| Failure::Usage(format!("`{}` is no text", args.predicate.display()));
    let predicate = String::from_utf8(predicate).map_err(no_text)?;
    let signals = cancel_on_signals()?;
    let signing = Signing::new(global, &args.signing, args.bundle.as_deref(), &signals)?;
    let client = signals.client(logins(), BTreeMap::new());
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    let found = signing.find(&attachments, &image)?;
    let repository = args.repository.clone().unwrap_or_else(|| found.repository.to_string());
    let subjects = vec![subject(&found, &repository)];
    let statement = Statement::new(subjects, &args.predicate_type, &predicate).map_err(too_much)?;
    let row = json!({
        "image": args.image,
        "digest": found.blob.digest.to_string(),
        "repository": repository,
        "type": args.predicate_type,
        "key": signing.signer.public_key().id().to_string(),
        "bundle": signing.give(&attachments, &found, &statement)?,
    });
    print(global, &[row], |row| {
        format!("{}@{} attested: {}", text(&row["image"]), text(&row["digest"]), text(&row["type"]))
    })?;
    Ok(Exit::Done)
}

/// Who signs, and where bundles go.
struct Signing {
    signer: Box<dyn Signer>,
    /// The file that has the bundle in place of the registry.
    file: Option<PathBuf>,
    cancel: Cancel,
}

impl Signing {
    fn new(global: &Global, args: &SigningArgs, file: Option<&Path>, signals: &OnSignals) -> Result<Self, Failure> {
        let file = file.map(|file| in_here(global, file));
        if let Some(file) = &file
            && cas_fs::exists(file)?
        {
            let hint = "choose another name: bundles are not replaced".to_owned();
            return Err(Failure::Usable(format!("`{}` is there already", file.display()), hint));
        }
        Ok(Self { signer: args.open(global, &signals.0)?, file, cancel: signals.0.clone() })
    }

    /// What is signed. Where nothing is written to the registry, a digest says enough.
    fn find(&self, attachments: &Attachments<'_>, image: &Reference) -> Result<Attachable, Failure> {
        match (&self.file, image.digest) {
            (Some(_), Some(digest)) => {
                let blob = Descriptor { digest, size: 0 };
                Ok(Attachable { repository: image.repository.clone(), blob, media_type: String::new() })
            }
            _ => attachments.find(image).map_err(Failure::Sync),
        }
    }

    /// Signs a statement and attaches it to what it is about, or writes it to the file; tells where it is.
    fn give(
        &self,
        attachments: &Attachments<'_>,
        found: &Attachable,
        statement: &Statement,
    ) -> Result<String, Failure> {
        let bundle = Bundle::sign(&*self.signer, statement).map_err(|error| self.refused(error))?;
        if let Some(file) = &self.file {
            crate::key::write_new(file, 0o644, &bundle)?;
            return Ok(file.display().to_string());
        }
        let attached = attachments.attach(found, BUNDLE_MEDIA_TYPE, bundle.as_bytes(), annotations(statement));
        attached.map(|digest: Digest| digest.to_string()).map_err(Failure::Sync)
    }

    /// Why there is no signature; an interrupted signer is no error of its own.
    fn refused(&self, error: DocumentError) -> Failure {
        match (&error, self.cancel.is_cancelled()) {
            (DocumentError::Signer(_), true) => BuildError::Interrupted.into(),
            _ => too_much(error),
        }
    }
}

/// What is attached to say that something is signed for a repository.
pub(crate) fn signature(
    signer: &dyn Signer,
    image: &Attachable,
    repository: &str,
) -> Result<Attachment, DocumentError> {
    attachment(signer, image, &Statement::signature_of(subject(image, repository))?)
}

/// What is attached to say what something was made of.
pub(crate) fn provenance(
    signer: &dyn Signer,
    image: &Attachable,
    repository: &str,
    predicate: &str,
) -> Result<Attachment, DocumentError> {
    let subjects = vec![subject(image, repository)];
    attachment(signer, image, &Statement::new(subjects, PROVENANCE_PREDICATE, predicate)?)
}

/// A signature in the older form, which knows no digests but SHA-256.
pub(crate) fn older_form(
    signer: &dyn Signer,
    image: &Attachable,
    repository: &str,
) -> Result<Option<OlderForm>, DocumentError> {
    let manifest = image.blob.digest;
    if manifest.function() != DigestFunction::Sha256 {
        return Ok(None);
    }
    let (kind, reference) = (SimpleType::Cosign, repository.to_owned());
    let (payload, signature) = SimplePayload { kind, reference, manifest, claims: BTreeMap::new() }.sign(signer)?;
    Ok(Some(OlderForm {
        tag: signature_tag(&manifest),
        media_type: SIMPLE_MEDIA_TYPE.to_owned(),
        content: payload.as_bytes().to_vec(),
        annotations: BTreeMap::from([(SIGNATURE_ANNOTATION.to_owned(), signature)]),
    }))
}

fn subject(image: &Attachable, repository: &str) -> Subject {
    Subject { name: Some(repository.to_owned()), ..Subject::of(&image.blob.digest) }
}

fn attachment(signer: &dyn Signer, image: &Attachable, statement: &Statement) -> Result<Attachment, DocumentError> {
    let bundle = Bundle::sign(signer, statement)?;
    Ok(Attachment::of_content(image, BUNDLE_MEDIA_TYPE, bundle.as_bytes(), annotations(statement)))
}

fn annotations(statement: &Statement) -> BTreeMap<String, String> {
    let annotations = [(CONTENT_ANNOTATION, CONTENT_DSSE), (PREDICATE_ANNOTATION, statement.predicate_type())];
    annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

pub(crate) fn reference(image: &str) -> Result<Reference, Failure> {
    let name = image.strip_prefix("docker://").unwrap_or(image);
    name.parse().map_err(|error: cas_oci::ParseReferenceError| {
        let hint = match &error {
            cas_oci::ParseReferenceError::Login { .. } => error.hint(),
            _ => "name an image in a registry: `HOST/NAME:TAG` or `HOST/NAME@DIGEST`".to_owned(),
        };
        Failure::Usable(error.to_string(), hint)
    })
}

pub(crate) fn too_much(error: DocumentError) -> Failure {
    let hint = error.hint().unwrap_or_else(|| "sign less at once".to_owned());
    Failure::Usable(error.to_string(), hint)
}
