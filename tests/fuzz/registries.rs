//! What comes from registries, or goes to them.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;

use crate::{fuzz, text};

/// Whatever is done to a file, a bundle or a signature: nothing is read that is written in another way, and nothing is
/// accepted that was not signed.
#[test]
fn keys_and_signatures() {
    use cas_attest::{
        Bundle, Envelope, PrivateKey, PrivateKeyFile, PublicKey, SimplePayload, SimpleSignature, Statement,
    };
    macro_rules! data {
        ($name:literal) => {
            include_bytes!(concat!("../../testdata/signing/", $name)).to_vec()
        };
    }
    let open = |text: Vec<u8>| PrivateKeyFile::parse(&text).unwrap().open(None).unwrap();
    let keys = [open(data!("ed25519.pem")), open(data!("p256.pem"))];
    let files = [data!("ed25519.pem"), data!("p256.pem"), data!("ed25519.sigstore.pem"), data!("p256.cosign.pem")];
    fuzz("private-key", &files, |bytes| {
        if let Ok(PrivateKeyFile::Plain(key)) = PrivateKeyFile::parse(bytes) {
            assert!(PrivateKeyFile::parse(key.to_pem().as_bytes()).is_ok());
        }
    });
    fuzz("pkcs8", &keys.each_ref().map(|key| key.to_pkcs8_der().to_vec()), |bytes| {
        if let Ok(key) = PrivateKey::from_pkcs8_der(bytes) {
            let again = PrivateKey::from_pkcs8_der(&key.to_pkcs8_der()).unwrap();
            assert_eq!(again.public_key(), key.public_key());
        }
    });
    fuzz("public-key", &[data!("ed25519.pub"), data!("p256.pub")], |bytes| {
        if let Ok(key) = PublicKey::from_pem(bytes) {
            assert_eq!(PublicKey::from_pem(key.to_pem().as_bytes()).unwrap(), key);
        }
    });
    fuzz("spki", &keys.each_ref().map(|key| key.public_key().to_spki_der()), |bytes| {
        if let Ok(key) = PublicKey::from_spki_der(bytes) {
            assert_eq!(key.to_spki_der(), bytes, "one form alone");
        }
    });
    for key in &keys {
        let right = key.sign(b"message");
        let name = format!("signature-{}", key.public_key().algorithm());
        fuzz(&name, std::slice::from_ref(&right), |bytes| {
            assert_eq!(key.public_key().verify(b"message", bytes).is_ok(), bytes == right, "{bytes:?}");
        });
    }
    fuzz("statement", &[data!("statement.json")], |bytes| {
        if let Ok(statement) = Statement::decode(bytes) {
            assert_eq!(Statement::decode(statement.encode().as_bytes()).unwrap(), statement);
        }
    });
    let bundles = [data!("ed25519.bundle.json"), data!("p256.bundle.json"), data!("p256.high.bundle.json")];
    let envelopes = bundles.each_ref().map(|bytes| Bundle::decode(bytes).unwrap().envelope().encode().into_bytes());
    fuzz("envelope", &envelopes, |bytes| {
        if let Ok(envelope) = Envelope::decode(bytes) {
            assert_eq!(Envelope::decode(envelope.encode().as_bytes()).unwrap(), envelope);
        }
    });
    let trusted = |(name, key): (&str, &PrivateKey)| cas_attest::TrustedKey {
        name: name.to_owned(),
        key: key.public_key().clone(),
        not_before: None,
        not_after: None,
    };
    let set = cas_attest::KeySet::new(["a", "b"].into_iter().zip(&keys).map(trusted).collect()).unwrap();
    let artifact = [format!("sha256:{}", "ab".repeat(32)).parse().unwrap()];
    let annotations = BTreeMap::new();
    let expected = cas_attest::Expectation {
        artifact: &artifact,
        predicate_type: cas_attest::SIGN_PREDICATE,
        repository: None,
        is_unclaimed_enough: false,
        annotations: &annotations,
        threshold: std::num::NonZeroUsize::MIN,
        now: 0,
    };
    let signed = Statement::decode(&data!("statement.json")).unwrap();
    for bundle in &bundles {
        assert!(cas_attest::verify_bundles(&set, &expected, [bundle]).is_ok());
    }
    fuzz("bundle", &bundles, |bytes| match cas_attest::verify_bundles(&set, &expected, [bytes]) {
        Ok(verified) => assert_eq!(verified.accepted[0].statement.as_ref(), Some(&signed)),
        Err(error) => drop((error.to_string(), error.hint())),
    });
    let payload = data!("simple.json");
    let signature = text(&data!("p256.simple.sig"));
    let expected = cas_attest::Expectation { repository: Some("registry.example/app"), ..expected };
    fuzz("simple-signing", std::slice::from_ref(&payload), |bytes| {
        if let Ok(read) = SimplePayload::decode(bytes) {
            assert_eq!(SimplePayload::decode(read.encode().as_bytes()).unwrap(), read);
        }
        let candidate = SimpleSignature { payload: bytes, signature: &signature };
        assert_eq!(cas_attest::verify_simple(&set, &expected, [candidate]).is_ok(), bytes == payload);
    });
}

#[test]
fn requests_to_the_registry() {
    let hex = "6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f";
    let requests = [
        format!("/v2/a/b/blobs/sha256:{hex}\nbytes=5-99\nbytes 0-9/*"),
        "/v2/a/tags/list?n=5&last=a%2Fb\nbytes=-5\n0-9".to_owned(),
        format!("/v2/a/blobs/uploads/{}?digest=sha256%3A{hex}\nbytes=5-\n10-19", &hex[..32]),
        format!("/v2/a/manifests/sha256:{hex}?tag=a&tag=b\n\n"),
    ];
    fuzz("registry-request", &requests.map(String::into_bytes), cas_server::fuzzing::request);
    let blob = format!(r#"{{"mediaType":"a/b","digest":"sha256:{hex}","size":5,"urls":["x"]}}"#);
    let manifest = format!(
        r#"{{"schemaVersion":2,"artifactType":"a/b","config":{blob},"layers":[{blob}],"subject":{blob},"annotations":{{"a":"b"}}}}"#
    );
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{blob}],"mediaType":"x"}}"#);
    fuzz("registry-manifest", &[manifest.into_bytes(), index.into_bytes()], cas_server::fuzzing::manifest);
}

#[test]
fn files_of_sync_and_destinations() {
    use cas_sync::{SyncFile, SyncLock, TagFilter, TagRequest, template_parts};
    let file = b"[[image]]\nfrom = \"h.example/a\"\nto = [\"r.example/a\"]\ntags = [\"1.*\", \"x\"]\nregex = \"v\\\\d+\"\n\
        semver = \">=1 <3\"\nexclude = [\"*-rc\"]\nnewest = 3\nplatforms = [\"linux/arm64\"]\n[host.\"h.example\"]\nat_once = 2\n";
    let section = std::str::from_utf8(file).unwrap();
    assert!(SyncFile::parse(section).is_ok(), "{:?}", SyncFile::parse(section));
    fuzz("sync-file", &[file.to_vec()], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        match SyncFile::parse(&text) {
            Ok(file) => {
                for section in &file.sections {
                    let chosen = section.filter.choose(["1.0", "v1", "x", "1.2.3-rc", "1.2.3"]);
                    assert!(chosen.tags.len() <= 5 && file.at_once(&section.from.host) > 0);
                }
            }
            Err(error) => assert!(error.span.is_none_or(|span| span.end <= text.len() && span.start <= span.end)),
        }
    });
    let digest = Descriptor::of(DigestFunction::Sha256, b"x").digest;
    let lock = format!(
        "version = 1\n[[image]]\nfrom = \"h.example/a\"\nrequest = \"tags 1\"\n[image.tags]\n\"1\" = \"{digest}\"\n"
    );
    assert!(SyncLock::parse(&lock).is_ok());
    fuzz("sync-lock", &[lock.into_bytes()], |bytes| {
        if let Ok(lock) = SyncLock::parse(&String::from_utf8_lossy(bytes)) {
            assert_eq!(SyncLock::parse(&lock.to_text()).unwrap(), lock);
        }
    });
    fuzz("destination", &[b"ghcr.io/a/{name}:{version}-{git.short}".to_vec()], |bytes| {
        let _ = template_parts(&String::from_utf8_lossy(bytes));
    });
    fuzz(
        "tag-pattern",
        &[b"{12,13}*[a-z]".to_vec(), b"v(\\d+)\\.[0-9]{1,3}".to_vec(), b">=1.2 <3 || ^5".to_vec()],
        |bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            for request in [
                TagRequest { tags: vec![text.clone()], ..TagRequest::default() },
                TagRequest { regex: Some(text.clone()), ..TagRequest::default() },
                TagRequest { semver: Some(text.clone()), ..TagRequest::default() },
            ] {
                if let Ok(filter) = TagFilter::new(&request) {
                    let _ = filter.choose(["1.0.0", "v2", "12-a", "x"]);
                }
            }
        },
    );
}
