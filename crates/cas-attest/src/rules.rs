//! Policies: what must have been said of an image, and by how many of whose keys. Format: docs/formats/signing.md.
//!
//! A file has keys, each with its time, and slots, each with a predicate type. All slots must be filled; what the file does not
//! say is not allowed, and a word that is not known is an error, since it may be the one that somebody relied on.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;

use cas_digest::Digest;
use cas_time::parse_moment;
use serde::Deserialize;
use toml::Spanned;

use crate::error::shown;
use crate::{Candidate, Expectation, KeySet, PublicKey, TrustedKey, Verified, VerifyError, verify_candidates};

/// Longest policy.
pub const MAX_POLICY_BYTES: usize = 1 << 20;
/// Keys of a file.
const MAX_FILE_KEYS: usize = 1024;
/// Slots of a file; all candidates are looked at for each of them.
const MAX_SLOTS: usize = 64;
/// Most of what is claimed in one slot.
const MAX_CLAIMS: usize = 64;
/// Longest type, as in statements.
const MAX_TYPE_BYTES: usize = 1 << 10;

/// What is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PolicyFileError {
    /// What.
    pub message: String,
    /// Where, in bytes.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A policy whose keys were not read yet.
#[derive(Debug)]
pub struct PolicyFile {
    keys: BTreeMap<String, FileKey>,
    slots: Vec<FileSlot>,
}

/// Where a public key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySource<'a> {
    /// In a file, which is looked for beside the policy.
    File(&'a str),
    /// In the policy itself, as PEM.
    Pem(&'a str),
}

#[derive(Debug)]
struct FileKey {
    file: Option<String>,
    pem: Option<String>,
    not_before: Option<i64>,
    not_after: Option<i64>,
}

#[derive(Debug)]
struct FileSlot {
    name: String,
    predicate_type: String,
    keys: Vec<Spanned<String>>,
    threshold: NonZeroUsize,
    threshold_span: Range<usize>,
    repository: Option<String>,
    is_unclaimed_enough: bool,
    claims: BTreeMap<String, String>,
}

/// What must hold for an image. It has one slot at least.
#[derive(Clone, Debug)]
pub struct Policy(Vec<Slot>);

/// One thing that must have been said.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What the policy calls it.
    pub name: String,
    /// The type of the predicate.
    pub predicate_type: String,
    /// Who may say it.
    pub keys: KeySet,
    /// So many keys must have said it.
    pub threshold: NonZeroUsize,
    /// The repository that must be claimed, in place of the one that the image is in.
    pub repository: Option<String>,
    /// Whether claiming none is enough.
    pub is_unclaimed_enough: bool,
    /// What else must be claimed.
    pub claims: BTreeMap<String, String>,
}

/// What a policy is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Digests of the image, all of them true.
    pub artifact: &'a [Digest],
    /// The repository that the image is in.
    pub repository: &'a str,
    /// The present second, since 1970.
    pub now: i64,
}

/// What one slot says.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The slot.
    pub slot: &'a Slot,
    /// The keys that count, or why it is not filled.
    pub result: Result<Verified, VerifyError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: Spanned<u64>,
    #[serde(default)]
    key: BTreeMap<Spanned<String>, RawKey>,
    #[serde(default)]
    require: BTreeMap<Spanned<String>, RawSlot>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKey {
    file: Option<String>,
    pem: Option<String>,
    not_before: Option<Spanned<String>>,
    not_after: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSlot {
    #[serde(rename = "type")]
    predicate_type: Spanned<String>,
    keys: Spanned<Vec<Spanned<String>>>,
    threshold: Option<Spanned<usize>>,
    repository: Option<Spanned<String>>,
    #[serde(default)]
    unclaimed: bool,
    claims: Option<Spanned<BTreeMap<String, String>>>,
}

fn wrong(message: impl Into<String>, span: Range<usize>, hint: impl Into<String>) -> PolicyFileError {
    PolicyFileError { message: message.into(), span: Some(span), hint: Some(hint.into()) }
}

impl PolicyFile {
    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// [`PolicyFileError`] for what is not known, for slots that nobody could fill, and for a policy that asks for nothing.
    pub fn parse(text: &str) -> Result<Self, PolicyFileError> {
        let nowhere =
            |message: String, hint: &str| PolicyFileError { message, span: None, hint: Some(hint.to_owned()) };
        if text.len() > MAX_POLICY_BYTES {
            let message = format!("it has {} bytes, and at most {MAX_POLICY_BYTES} are read", text.len());
            return Err(nowhere(message, "make several policies of it"));
        }
        let raw: Raw = toml::from_str(text).map_err(|error| PolicyFileError {
            message: error.message().to_owned(),
            span: error.span(),
            hint: None,
        })?;
        if *raw.version.get_ref() != 1 {
            let message = format!("`version` is {}", raw.version.get_ref());
            return Err(wrong(message, raw.version.span(), "write `version = 1`, which is all that there is"));
        }
        if raw.require.is_empty() {
            let hint = "add a section `[require.signature]` with `type` and `keys`";
            return Err(nowhere("it asks for nothing, so that everything would pass".to_owned(), hint));
        }
        for (what, most, actual) in
            [("keys", MAX_FILE_KEYS, raw.key.len()), ("sections `require`", MAX_SLOTS, raw.require.len())]
        {
            if actual > most {
                let message = format!("it has {actual} {what}, and at most {most} are read");
                return Err(nowhere(message, "make several policies of it"));
            }
        }
        let mut keys = BTreeMap::new();
        for (name, key) in raw.key {
            let read = read_key(&name, key)?;
            keys.insert(name.into_inner(), read);
        }
        let slots: Vec<FileSlot> =
            raw.require.into_iter().map(|(name, slot)| read_slot(name, slot, &keys)).collect::<Result<_, _>>()?;
        Ok(Self { keys, slots })
    }

    /// The names of the keys, and where they are.
    pub fn keys(&self) -> impl Iterator<Item = (&str, KeySource<'_>)> {
        self.keys.iter().filter_map(|(name, key)| {
            let file = key.file.as_deref().map(KeySource::File);
            Some((name.as_str(), file.or_else(|| key.pem.as_deref().map(KeySource::Pem))?))
        })
    }

    /// The policy, with the keys by their names.
    ///
    /// # Errors
    ///
    /// [`PolicyFileError`] for a key that was not read, for a set with one key under two names, and for a key that is valid
    /// at no time.
    pub fn with_keys(self, found: &BTreeMap<String, PublicKey>) -> Result<Policy, PolicyFileError> {
        let mut slots = Vec::new();
        for slot in self.slots {
            let mut trusted = Vec::new();
            for name in &slot.keys {
                let (Some(key), Some(told)) = (found.get(name.get_ref()), self.keys.get(name.get_ref())) else {
                    let message = format!("the key `{}` was not read", shown(name.get_ref()));
                    return Err(wrong(message, name.span(), "name the file that it is in"));
                };
                trusted.push(TrustedKey {
                    name: name.get_ref().clone(),
                    key: key.clone(),
                    not_before: told.not_before,
                    not_after: told.not_after,
                });
            }
            let span = slot.keys.first().map_or(slot.threshold_span.clone(), Spanned::span);
            let keys = KeySet::new(trusted)
                .map_err(|error| wrong(format!("`require.{}`: {error}", slot.name), span, "mend the list `keys`"))?;
            slots.push(Slot {
                name: slot.name,
                predicate_type: slot.predicate_type,
                keys,
                threshold: slot.threshold,
                repository: slot.repository,
                is_unclaimed_enough: slot.is_unclaimed_enough,
                claims: slot.claims,
            });
        }
        Ok(Policy(slots))
    }
}

fn read_key(name: &Spanned<String>, raw: RawKey) -> Result<FileKey, PolicyFileError> {
    if raw.file.is_some() == raw.pem.is_some() {
        let message = format!("the key `{}` needs one of `file` and `pem`", shown(name.get_ref()));
        return Err(wrong(message, name.span(), "`file` names a file beside this one, `pem` has its text"));
    }
    let moment = |text: Option<Spanned<String>>| {
        let Some(text) = text else { return Ok(None) };
        let seconds = parse_moment(text.get_ref()).and_then(|seconds| i64::try_from(seconds).ok());
        seconds.map(Some).ok_or_else(|| {
            let message = format!("`{}` is no moment", shown(text.get_ref()));
            wrong(message, text.span(), "write it as `2026-08-01`, its first second, or as `2026-08-01T12:30:00Z`")
        })
    };
    let (not_before, not_after) = (moment(raw.not_before)?, moment(raw.not_after)?);
    if not_before.zip(not_after).is_some_and(|(first, last)| last < first) {
        let message = format!("the key `{}` is valid at no time", shown(name.get_ref()));
        return Err(wrong(message, name.span(), "let `not_after` be later than `not_before`"));
    }
    Ok(FileKey { file: raw.file, pem: raw.pem, not_before, not_after })
}

fn read_slot(
    name: Spanned<String>,
    raw: RawSlot,
    keys: &BTreeMap<String, FileKey>,
) -> Result<FileSlot, PolicyFileError> {
    let keys_span = raw.keys.span();
    let named = raw.keys.into_inner();
    let predicate_type = raw.predicate_type.get_ref().clone();
    if predicate_type.is_empty() || predicate_type.len() > MAX_TYPE_BYTES {
        let message = format!("`type` of `require.{}` has {} bytes", shown(name.get_ref()), predicate_type.len());
        return Err(wrong(message, raw.predicate_type.span(), "write the URI of a predicate"));
    }
    if named.is_empty() {
        let message = format!("`require.{}` trusts no key", shown(name.get_ref()));
        return Err(wrong(message, keys_span, "name a key of a section `[key.NAME]`"));
    }
    let mut seen: Vec<&str> = Vec::new();
    for key in &named {
        if !keys.contains_key(key.get_ref()) {
            let message = format!("there is no key `{}`", shown(key.get_ref()));
            return Err(wrong(message, key.span(), "add a section `[key.NAME]`, or remove the name"));
        }
        if seen.contains(&key.get_ref().as_str()) {
            let message = format!("the key `{}` is named twice, and counts once", shown(key.get_ref()));
            return Err(wrong(message, key.span(), "remove one"));
        }
        seen.push(key.get_ref());
    }
    let threshold_span = raw.threshold.as_ref().map_or(keys_span, Spanned::span);
    let threshold = raw.threshold.map_or(1, Spanned::into_inner);
    let Some(threshold) = NonZeroUsize::new(threshold).filter(|threshold| threshold.get() <= named.len()) else {
        let message = format!("`threshold` is {threshold}, of {} keys", named.len());
        return Err(wrong(message, threshold_span, format!("write a number from 1 to {}", named.len())));
    };
    if let Some(repository) = raw.repository.as_ref().filter(|repository| repository.get_ref().is_empty()) {
        return Err(wrong("`repository` is empty", repository.span(), "write `HOST/NAME`, or remove it"));
    }
    if let Some(claims) = raw.claims.as_ref().filter(|claims| claims.get_ref().len() > MAX_CLAIMS) {
        let message = format!("`claims` has {} keys", claims.get_ref().len());
        return Err(wrong(message, claims.span(), format!("ask for {MAX_CLAIMS} at most")));
    }
    Ok(FileSlot {
        name: name.into_inner(),
        predicate_type,
        keys: named,
        threshold,
        threshold_span,
        repository: raw.repository.map(Spanned::into_inner),
        is_unclaimed_enough: raw.unclaimed,
        claims: raw.claims.map(Spanned::into_inner).unwrap_or_default(),
    })
}

impl Policy {
    /// What is asked for.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.0
    }

    /// Asks every slot, each of all candidates. The image passes when all results are `Ok`.
    #[must_use]
    pub fn ask(&self, question: Question<'_>, candidates: &[Candidate<'_>]) -> Vec<Answer<'_>> {
        let ask = |slot: &'_ Slot| {
            let expected = Expectation {
                artifact: question.artifact,
                predicate_type: &slot.predicate_type,
                repository: Some(slot.repository.as_deref().unwrap_or(question.repository)),
                is_unclaimed_enough: slot.is_unclaimed_enough,
                annotations: &slot.claims,
                threshold: slot.threshold,
                now: question.now,
            };
            verify_candidates(&slot.keys, &expected, candidates.iter().copied())
        };
        self.0.iter().map(|slot| Answer { slot, result: ask(slot) }).collect()
    }
}
