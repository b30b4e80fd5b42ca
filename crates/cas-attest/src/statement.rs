//! Statements of in-toto 1.1 (statement.md, resource_descriptor.md, digest_set.md): what is said, and of which artifacts.

use std::collections::BTreeMap;

use cas_digest::{Digest, DigestFunction};

use crate::error::shown;
use crate::json::{self, Object, compact, object_of, quoted};
use crate::{DocumentError, MAX_PAYLOAD_BYTES};

/// Type of the payload of an envelope that holds a statement.
pub const STATEMENT_PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Type of the statements that are read and written.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The version before, of the same shape, which `cosign attest` writes. It is read alone.
const OLDER_STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v0.1";
/// Predicate of a signature: that the signer stands for the artifact, and no more.
pub const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Predicate of SLSA provenance.
pub const PROVENANCE_PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// Predicate of an SBOM in SPDX.
pub const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
/// Predicate of an SBOM in CycloneDX.
pub const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom";
/// Predicate of a list of vulnerabilities.
pub const VULNERABILITIES_PREDICATE: &str = "https://in-toto.io/attestation/vulns";

const WHAT: &str = "the statement";
const WHAT_SUBJECT: &str = "a subject of the statement";
// sigstore-go takes as many subjects and digests.
const MAX_SUBJECTS: usize = 1024;
const MAX_DIGESTS: usize = 32;
const MAX_ANNOTATIONS: usize = 64;
const MAX_TYPE_BYTES: usize = 1 << 10;
const MAX_NAME_BYTES: usize = 4 << 10;

/// An artifact that a statement is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// What it is called: for an image, its repository.
    pub name: Option<String>,
    /// Values by the name of their function; at least one. Those of functions that `cas` computes are lower-case hex.
    pub digests: BTreeMap<String, String>,
    /// Claims about it, of which texts alone are read.
    pub annotations: BTreeMap<String, String>,
}

impl Subject {
    /// A subject with one digest.
    #[must_use]
    pub fn of(digest: &Digest) -> Self {
        let digests = BTreeMap::from([(digest.function().name().to_owned(), digest.to_hex())]);
        Self { digests, ..Self::default() }
    }

    /// What the subject says of an artifact with these digests.
    ///
    /// Digests match when one of them is the same and none of the others is another. SHA-1 is not looked at.
    #[must_use]
    pub(crate) fn matches(&self, artifact: &[Digest]) -> Match {
        let (mut same, mut other) = (None, None);
        for digest in artifact.iter().filter(|digest| digest.function() != DigestFunction::Sha1) {
            match self.digests.get(digest.function().name()) {
                Some(value) if *value == digest.to_hex() => same = same.or(Some(*digest)),
                Some(_) => other = other.or(Some(digest.function())),
                None => {}
            }
        }
        match (same, other) {
            (Some(digest), None) => Match::Same(digest),
            (Some(_), Some(function)) => Match::Contradiction(function),
            // What agrees in nothing is another artifact, and contradicts nobody.
            (None, _) => Match::Other,
        }
    }

    fn read(object: &Object<'_>) -> Result<Self, DocumentError> {
        let name = object.raw("name").map(|_| object.short_text("name", MAX_NAME_BYTES)).transpose()?;
        let (digests, total) = object.texts("digest", MAX_DIGESTS)?;
        if total == 0 {
            return Err(DocumentError::Missing { what: WHAT_SUBJECT, field: "digest" });
        }
        if digests.len() != total {
            return Err(DocumentError::Kind { what: WHAT_SUBJECT, field: "digest", expected: "an object of texts" });
        }
        let (annotations, _) = object.texts("annotations", MAX_ANNOTATIONS)?;
        Ok(Self { name, digests, annotations })
    }

    fn write(&self) -> String {
        let texts =
            |map: &BTreeMap<String, String>| object_of(map.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let mut fields = Vec::new();
        if let Some(name) = &self.name {
            fields.push(format!(r#""name":{}"#, quoted(name)));
        }
        fields.push(format!(r#""digest":{}"#, texts(&self.digests)));
        if !self.annotations.is_empty() {
            fields.push(format!(r#""annotations":{}"#, texts(&self.annotations)));
        }
        format!("{{{}}}", fields.join(","))
    }
}

/// How a subject's digests and an artifact's compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It is this artifact, by this digest.
    Same(Digest),
    /// One digest is the same, and the one of this function is not.
    Contradiction(DigestFunction),
    /// It is another artifact.
    Other,
}

/// Something said of artifacts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    subjects: Vec<Subject>,
    predicate_type: String,
    predicate: String,
}

impl Statement {
    /// Says the predicate, an object in JSON, of subjects.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for a predicate that is none, and for more or less of anything than is read again.
    pub fn new(subjects: Vec<Subject>, predicate_type: &str, predicate: &str) -> Result<Self, DocumentError> {
        json::read(predicate.as_bytes(), "the predicate", MAX_PAYLOAD_BYTES)?;
        let statement = Self { subjects, predicate_type: predicate_type.to_owned(), predicate: compact(predicate) };
        // Its limits are those of reading.
        Self::decode(statement.encode().as_bytes())
    }

    /// Says of an artifact that the signer stands for it, as `cosign sign` does.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for a subject without digests, or with more than is read again.
    pub fn signature_of(subject: Subject) -> Result<Self, DocumentError> {
        Self::new(vec![subject], SIGN_PREDICATE, "{}")
    }

    /// Reads a statement. Fields that are not known are ignored.
    ///
    /// # Errors
    ///
    /// [`DocumentError`] for what is none, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = json::read(bytes, WHAT, MAX_PAYLOAD_BYTES)?;
        let found = document.text("_type")?;
        if found != STATEMENT_TYPE && found != OLDER_STATEMENT_TYPE {
            return Err(DocumentError::Value {
                what: WHAT,
                field: "_type",
                value: shown(&found),
                expected: STATEMENT_TYPE,
            });
        }
        let predicate_type = document.short_text("predicateType", MAX_TYPE_BYTES)?;
        if predicate_type.is_empty() {
            return Err(DocumentError::Missing { what: WHAT, field: "predicateType" });
        }
        let subjects = document.objects("subject", WHAT_SUBJECT, MAX_SUBJECTS)?;
        if subjects.is_empty() {
            return Err(DocumentError::Missing { what: WHAT, field: "subject" });
        }
        let subjects = subjects.iter().map(Subject::read).collect::<Result<_, _>>()?;
        document.optional_object("predicate", "the predicate")?;
        let predicate = document.raw("predicate").map_or_else(|| "{}".to_owned(), |value| compact(value.get()));
        Ok(Self { subjects, predicate_type, predicate })
    }

    /// JSON without white space, and the same for the same statement.
    #[must_use]
    pub fn encode(&self) -> String {
        let subjects: Vec<String> = self.subjects.iter().map(Subject::write).collect();
        format!(
            r#"{{"_type":"{STATEMENT_TYPE}","subject":[{}],"predicateType":{},"predicate":{}}}"#,
            subjects.join(","),
            quoted(&self.predicate_type),
            self.predicate
        )
    }

    /// The artifacts.
    #[must_use]
    pub fn subjects(&self) -> &[Subject] {
        &self.subjects
    }

    /// What kind of thing is said.
    #[must_use]
    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// What is said: an object in JSON, without white space, its fields and numbers as the signer wrote them.
    #[must_use]
    pub fn predicate(&self) -> &str {
        &self.predicate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(function: DigestFunction, bytes: &[u8]) -> Digest {
        Digest::of(function, bytes)
    }

    #[test]
    fn statements_are_read_as_the_specification_says() {
        let subject = r#"{"digest":{"sha256":"00"}}"#;
        let whole = |subject: &str, rest: &str| {
            format!(r#"{{"_type":"{STATEMENT_TYPE}","subject":[{subject}],"predicateType":"t"{rest}}}"#)
        };
        let many = |count: usize| vec![subject; count].join(",");
        let digests = |count: usize| {
            let items: Vec<String> = (0..count).map(|number| format!(r#""f{number}":"00""#)).collect();
            format!(r#"{{"digest":{{{}}}}}"#, items.join(","))
        };
        for (text, right) in [
            (whole(subject, ""), true),
            (whole(subject, r#","predicate":null"#), true),
            (whole(subject, r#","predicate":{"a":1.10},"more":[]"#), true),
            (whole(r#"{"name":"n","digest":{"x":"y"},"annotations":{"a":1},"uri":"u"}"#, ""), true),
            (whole(&many(1024), ""), true),
            (whole(&many(1025), ""), false),
            (whole(&digests(32), ""), true),
            (whole(&digests(33), ""), false),
            (whole("", ""), false),
            (whole("[]", ""), false),
            (whole(r#"{"name":"n"}"#, ""), false),
            (whole(r#"{"digest":{}}"#, ""), false),
            (whole(r#"{"digest":{"sha256":7}}"#, ""), false),
            (whole(r#"{"digest":["sha256"]}"#, ""), false),
            (whole(r#"{"digest":{"sha256":"00","sha256":"01"}}"#, ""), false),
            (whole(subject, r#","predicate":[]"#), false),
            (whole(subject, r#","predicate":{"a":1,"a":2}"#), false),
            (whole(subject, r#","predicateType":"u""#), false),
            (whole(subject, "").replace("Statement/v1", "Statement/v0.1"), true),
            (whole(subject, "").replace("Statement/v1", "Statement/v0.2"), false),
            (whole(subject, "").replace("Statement/v1", "Statement/v2"), false),
            (whole(subject, "").replace(r#""predicateType":"t""#, r#""predicateType":"""#), false),
            (whole(subject, "").replace("_type", "type"), false),
        ] {
            let read = Statement::decode(text.as_bytes());
            assert_eq!(read.is_ok(), right, "{text}: {read:?}");
            if let Ok(statement) = read {
                assert_eq!(Statement::decode(statement.encode().as_bytes()).unwrap(), statement);
            }
        }
    }

    #[test]
    fn written_statements_keep_the_predicate_and_the_order_of_fields() {
        let mut subject = Subject::of(&digest(DigestFunction::Sha256, b"x"));
        subject.name = Some("registry.example/\"a\"".to_owned());
        subject.annotations.insert("tag".to_owned(), "1".to_owned());
        let statement = Statement::new(vec![subject.clone()], "t", "{ \"b\": 1.50,\n \"a\": 1e400000 }");
        assert!(statement.is_err(), "a number that no reader of ours can hold");
        let statement = Statement::new(vec![subject], "t", "{ \"b\": 1.50,\n \"a\": 18446744073709551616 }").unwrap();
        let hex = digest(DigestFunction::Sha256, b"x").to_hex();
        assert_eq!(
            statement.encode(),
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"registry.example/\"a\"","digest":{{"sha256":"{hex}"}},"annotations":{{"tag":"1"}}}}],"predicateType":"t","predicate":{{"b":1.50,"a":18446744073709551616}}}}"#
            )
        );
        assert!(Statement::new(vec![], "t", "{}").is_err());
        assert!(Statement::new(vec![Subject::default()], "t", "{}").is_err());
        for predicate in ["[]", "{", "{}{}", r#"{"a":1,"a":1}"#, r#"{}],"predicate":{"#] {
            let subject = Subject::of(&digest(DigestFunction::Sha256, b"x"));
            assert!(Statement::new(vec![subject], "t", predicate).is_err(), "{predicate}");
        }
    }

    #[test]
    fn subjects_match_by_one_digest_and_contradict_in_none() {
        use DigestFunction::{Blake3, Sha1, Sha256};
        let (here, there) = (b"here", b"there");
        let of = |functions: &[(DigestFunction, &[u8])]| {
            let digests = functions.iter().map(|(function, bytes)| digest(*function, bytes));
            let digests = digests.map(|digest| (digest.function().name().to_owned(), digest.to_hex()));
            Subject { digests: digests.collect(), ..Subject::default() }
        };
        let both = [digest(Sha256, here), digest(Blake3, here), digest(Sha1, here)];
        let same = Match::Same(both[0]);
        for (subject, artifact, expected) in [
            (of(&[(Sha256, here)]), &both[..], same),
            (of(&[(Sha256, here), (Blake3, here)]), &both, same),
            (of(&[(Blake3, here)]), &both, Match::Same(both[1])),
            (of(&[(Sha256, here), (Blake3, there)]), &both[..1], same),
            (of(&[(Sha256, here), (Blake3, there)]), &both, Match::Contradiction(Blake3)),
            (of(&[(Sha256, there), (Blake3, here)]), &both, Match::Contradiction(Sha256)),
            (of(&[(Sha256, there)]), &both, Match::Other),
            (of(&[(Sha256, there), (Blake3, there)]), &both, Match::Other),
            (of(&[(Sha1, here)]), &both, Match::Other),
            (of(&[(Sha1, here), (Sha256, there)]), &both, Match::Other),
            (of(&[(Sha256, here)]), &[], Match::Other),
        ] {
            assert_eq!(subject.matches(artifact), expected, "{subject:?}");
        }
        let upper = BTreeMap::from([("sha256".to_owned(), both[0].to_hex().to_uppercase())]);
        assert_eq!(Subject { digests: upper, ..Subject::default() }.matches(&both), Match::Other);
    }
}
