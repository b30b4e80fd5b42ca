//! What other programs made of the same keys and statements (testdata/signing) is read here, and written byte for byte.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use cas_attest::{
    Bundle, KeyError, KeyLabel, PrivateKey, PrivateKeyFile, PublicKey, SimplePayload, SimpleType, Statement, Subject,
};

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("../../../testdata/signing/", $name))
    };
}

struct Files {
    private: &'static str,
    public: &'static str,
    sigstore: &'static str,
    cosign: &'static str,
    bundle: &'static str,
    simple: &'static str,
}

const FILES: [Files; 2] = [
    Files {
        private: data!("ed25519.pem"),
        public: data!("ed25519.pub"),
        sigstore: data!("ed25519.sigstore.pem"),
        cosign: data!("ed25519.cosign.pem"),
        bundle: data!("ed25519.bundle.json"),
        simple: data!("ed25519.simple.sig"),
    },
    Files {
        private: data!("p256.pem"),
        public: data!("p256.pub"),
        sigstore: data!("p256.sigstore.pem"),
        cosign: data!("p256.cosign.pem"),
        bundle: data!("p256.bundle.json"),
        simple: data!("p256.simple.sig"),
    },
];
const PASSWORD: &[u8] = b"correct horse";

fn key(files: &Files) -> PrivateKey {
    PrivateKeyFile::parse(files.private.as_bytes()).unwrap().open(None).unwrap()
}

/// The bytes 0, 1, 2 …: salt and nonce of the files.
fn counter() -> impl FnMut(&mut [u8]) -> std::io::Result<()> {
    let mut next = 0;
    move |bytes| {
        for byte in bytes {
            *byte = next;
            next += 1;
        }
        Ok(())
    }
}

#[test]
fn keys_in_the_clear_are_those_of_openssl() {
    for files in &FILES {
        let key = key(files);
        assert_eq!(*key.to_pem(), files.private);
        assert_eq!(key.public_key().to_pem(), files.public);
        assert_eq!(PublicKey::from_pem(files.public.as_bytes()).unwrap(), *key.public_key());
    }
}

#[test]
fn encrypted_keys_are_those_of_libsodium() {
    for files in &FILES {
        let key = key(files);
        for (text, label) in [(files.sigstore, KeyLabel::Sigstore), (files.cosign, KeyLabel::Cosign)] {
            let PrivateKeyFile::Encrypted(encrypted) = PrivateKeyFile::parse(text.as_bytes()).unwrap() else {
                panic!("{text} is in the clear");
            };
            assert_eq!(encrypted.label(), label);
            assert_eq!(*encrypted.decrypt(PASSWORD).unwrap().to_pem(), files.private);
            assert!(matches!(encrypted.decrypt(b"correct horse "), Err(KeyError::Password)));
        }
        // The other one has the lower cost, which is not written.
        assert_eq!(key.to_encrypted_pem(KeyLabel::Sigstore, PASSWORD, &mut counter()).unwrap(), files.sigstore);
    }
}

#[test]
fn bundles_are_the_same_bytes() {
    let digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    let statement = Statement::signature_of(Subject::of(&digest)).unwrap();
    assert_eq!(statement.encode(), data!("statement.json"));
    for files in &FILES {
        let key = key(files);
        assert_eq!(Bundle::sign(&key, &statement).unwrap(), files.bundle);
        let bundle = Bundle::decode(files.bundle.as_bytes()).unwrap();
        bundle.envelope().verify(key.public_key()).unwrap();
        assert_eq!(Statement::decode(&bundle.envelope().payload).unwrap(), statement);
    }
    let high = Bundle::decode(data!("p256.high.bundle.json").as_bytes()).unwrap();
    high.envelope().verify(key(&FILES[1]).public_key()).unwrap();
    assert_ne!(data!("p256.high.bundle.json"), FILES[1].bundle);
}

#[test]
fn payloads_of_simple_signing_are_the_same_bytes() {
    let payload = SimplePayload {
        kind: SimpleType::Cosign,
        reference: "registry.example/app".to_owned(),
        manifest: format!("sha256:{}", "ab".repeat(32)).parse().unwrap(),
        claims: BTreeMap::from([("commit".to_owned(), "0123".to_owned())]),
    };
    for files in &FILES {
        let (bytes, signature) = payload.sign(&key(files)).unwrap();
        assert_eq!((bytes.as_str(), signature.as_str()), (data!("simple.json"), files.simple));
    }
    assert_eq!(SimplePayload::decode(data!("simple.json").as_bytes()).unwrap(), payload);
}
