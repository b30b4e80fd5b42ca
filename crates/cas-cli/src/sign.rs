//! `cas sign` and `cas attest`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cas_attest::{
    BUNDLE_MEDIA_TYPE, Bundle, CONTENT_ANNOTATION, CONTENT_DSSE, DocumentError, MAX_PAYLOAD_BYTES,
    PREDICATE_ANNOTATION, SIGNATURE_ANNOTATION, SIMPLE_MEDIA_TYPE, Signer, SimplePayload, SimpleType, Statement,
    Subject, signature_tag,
};
use cas_blob::Descriptor;
use cas_build::BuildError;
use cas_digest::{Digest, DigestFunction};
use cas_oci::Reference;
use cas_sandbox::Cancel;
use cas_sync::{Attachable, Attachments};
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

pub(crate) fn sign(global: &Global, args: &SignArgs) -> Result<Exit, Failure> {
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
        let subject = Subject { name: Some(repository.clone()), ..Subject::of(&found.blob.digest) };
        let statement = Statement::signature_of(subject).map_err(too_much)?;
        let mut row = json!({
            "image": name,
            "digest": found.blob.digest.to_string(),
            "repository": repository,
            "key": signing.signer.public_key().id().to_string(),
            "bundle": signing.give(&attachments, &found, &statement)?,
        });
        // The older form knows no other digests.
        if args.bundle.is_none() && !args.no_legacy && found.blob.digest.function() == DigestFunction::Sha256 {
            let tag = signature_tag(&found.blob.digest);
            let kind = SimpleType::Cosign;
            let (manifest, claims) = (found.blob.digest, BTreeMap::new());
            let payload = SimplePayload { kind, reference: repository, manifest, claims };
            let (payload, signature) = payload.sign(&*signing.signer).map_err(|error| signing.refused(error))?;
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
    let signals = cancel_on_signals()?;
    let signing = Signing::new(global, &args.signing, args.bundle.as_deref(), &signals)?;
    let client = signals.client(logins(), BTreeMap::new());
    let attachments = Attachments::new(&client).map_err(Failure::Sync)?;
    let found = signing.find(&attachments, &image)?;
    let repository = args.repository.clone().unwrap_or_else(|| found.repository.to_string());
    let subject = Subject { name: Some(repository.clone()), ..Subject::of(&found.blob.digest) };
    let statement = Statement::new(vec![subject], &args.predicate_type, &predicate).map_err(too_much)?;
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
        let annotations = [(CONTENT_ANNOTATION, CONTENT_DSSE), (PREDICATE_ANNOTATION, statement.predicate_type())];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let attached = attachments.attach(found, BUNDLE_MEDIA_TYPE, bundle.as_bytes(), annotations);
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

pub(crate) fn reference(image: &str) -> Result<Reference, Failure> {
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
