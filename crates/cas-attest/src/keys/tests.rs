//! Keys and signatures at their edges. Whole files of other programs are in tests/golden.rs.

use super::*;

const ED25519: &str = include_str!("../../../../testdata/signing/ed25519.pem");
const P256: &str = include_str!("../../../../testdata/signing/p256.pem");
const ENCRYPTED: &str = include_str!("../../../../testdata/signing/ed25519.cosign.pem");

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn open(text: &str) -> PrivateKey {
    PrivateKeyFile::parse(text.as_bytes()).unwrap().open(None).unwrap()
}

fn filled(byte: u8) -> impl FnMut(&mut [u8]) -> std::io::Result<()> {
    move |bytes| {
        bytes.fill(byte);
        Ok(())
    }
}

/// RFC 8032, 7.1, tests 1 to 3.
#[test]
fn ed25519_is_that_of_the_specification() {
    for (seed, public, message, signature) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let der = [hex("302e020100300506032b657004220420"), hex(seed)].concat();
        let key = PrivateKey::from_pkcs8_der(&der).unwrap();
        assert_eq!(key.public_key().to_spki_der()[12..], hex(public));
        assert_eq!(key.sign(&hex(message)), hex(signature));
        key.public_key().verify(&hex(message), &hex(signature)).unwrap();
    }
}

/// RFC 6979, A.2.5, SHA-256, message `sample`, with the lower of the two values of `s`.
#[test]
fn ecdsa_is_that_of_the_specification() {
    let key = open(P256);
    let signature = p256::ecdsa::Signature::from_der(&key.sign(b"sample")).unwrap();
    let expected = hex(
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    );
    let high = p256::ecdsa::Signature::from_slice(&expected).unwrap();
    assert_ne!(high, high.normalize_s());
    assert_eq!(signature, high.normalize_s());
    for signature in [signature, high] {
        key.public_key().verify(b"sample", signature.to_der().as_bytes()).unwrap();
    }
}

#[test]
fn signatures_have_one_form() {
    use KeyAlgorithm::{EcdsaP256, Ed25519};
    let message = b"message";
    let (ed25519, p256) = (open(ED25519), open(P256));
    let (good, der) = (ed25519.sign(message), p256.sign(message));
    // S + L: the same to whoever does not compare S with L.
    let order = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut malleable = good.clone();
    let mut carry = 0;
    for (byte, add) in malleable[32..].iter_mut().zip(&order) {
        let sum = u16::from(*byte) + u16::from(*add) + carry;
        (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    let length = der.len();
    let r = usize::from(der[3]);
    let padded = {
        let mut bytes = der.clone();
        bytes.insert(4, 0);
        (bytes[1], bytes[3]) = (bytes[1] + 1, bytes[3] + 1);
        bytes
    };
    let negative = {
        let mut bytes = der.clone();
        bytes[4] |= 0x80;
        if bytes[4] == 0x80 || r == 33 {
            bytes.remove(4);
            (bytes[1], bytes[3]) = (bytes[1] - 1, bytes[3] - 1);
        }
        bytes
    };
    let long_length = [&[0x30, 0x81, der[1]], &der[2..]].concat();
    let raw = p256::ecdsa::Signature::from_der(&der).unwrap().to_bytes().to_vec();
    let zero = hex("3006020100020100");
    for (name, key, signature) in [
        ("nothing", &ed25519, vec![]),
        ("nothing", &p256, vec![]),
        ("a short one", &ed25519, good[..63].to_vec()),
        ("a long one", &ed25519, [&good[..], &[0]].concat()),
        ("S above the order", &ed25519, malleable),
        ("zeros", &ed25519, vec![0; 64]),
        // R is the neutral element: whoever has the key can make it, and few verifiers agree on it.
        (
            "R of small order",
            &ed25519,
            hex(
                "0100000000000000000000000000000000000000000000000000000000000000520a2e25b0f11547a9ae2ad848ed7731c77f99f1a8712d363455d344db33ac04",
            ),
        ),
        ("the other algorithm's", &ed25519, der.clone()),
        ("the other algorithm's", &p256, good.clone()),
        ("r and s without DER", &p256, raw),
        ("more behind it", &p256, [&der[..], &[0]].concat()),
        ("less of it", &p256, der[..length - 1].to_vec()),
        ("a number with a zero before it", &p256, padded),
        ("a negative number", &p256, negative),
        ("a length in two bytes", &p256, long_length),
        ("zero for both numbers", &p256, zero),
    ] {
        let error = key.public_key().verify(message, &signature).expect_err(name);
        // What has another form does not come as far as the curve.
        let has_form = signature.len() == 64 && key.public_key().algorithm() == Ed25519;
        assert_eq!(matches!(error, KeyError::SignatureForm { .. }), !has_form, "{name}: {error}");
    }
    for (key, signature, algorithm) in [(&ed25519, &good, Ed25519), (&p256, &der, EcdsaP256)] {
        assert_eq!(key.public_key().algorithm(), algorithm);
        key.public_key().verify(message, signature).unwrap();
        assert!(matches!(key.public_key().verify(b"massage", signature), Err(KeyError::Signature)));
        for bit in 0..signature.len() * 8 {
            let mut other = signature.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(key.public_key().verify(message, &other).is_err(), "bit {bit} does not matter");
        }
    }
}

#[test]
fn public_keys_have_one_form() {
    let (ed25519, p256) = (open(ED25519).public_key().to_spki_der(), open(P256).public_key().to_spki_der());
    let p256_head = hex("3039301306072a8648ce3d020106082a8648ce3d030107032200");
    let compressed = [&p256_head[..], &[2 + (p256[90] & 1)], &p256[27..59]].concat();
    let point = |bytes: [u8; 32]| [&ed25519[..12], &bytes[..]].concat();
    let one = std::array::from_fn(|at| u8::from(at == 0));
    let off = {
        let mut bytes = p256.clone();
        bytes[90] ^= 1;
        bytes
    };
    let with_null = hex("302c300706032b65700500032100").into_iter().chain(ed25519[12..].iter().copied()).collect();
    let p384 = hex("3076301006072a8648ce3d020106052b81040022036200");
    let p384 = [p384, vec![4; 97]].concat();
    let rsa = hex("301a300d06092a864886f70d01010105000309003006020101020103");
    for (name, bytes, expected) in [
        ("nothing", vec![], "DER"),
        ("a short one", ed25519[..43].to_vec(), "DER"),
        ("more behind it", [&ed25519[..], &[0]].concat(), "DER"),
        ("a point of small order", point(one), "small order"),
        ("zeros", point([0; 32]), "small order"),
        ("no point", point(std::array::from_fn(|at| if at == 0 { 2 } else { 0 })), "no point"),
        ("parameters", with_null, "DER"),
        ("a compressed point", compressed, "DER"),
        ("a point beside the curve", off, "no point"),
        ("another curve", p384, "1.3.132.0.34"),
        ("RSA", rsa, "1.2.840.113549.1.1.1"),
    ] {
        let error = PublicKey::from_spki_der(&bytes).expect_err(name).to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    for der in [ed25519, p256] {
        let key = PublicKey::from_spki_der(&der).unwrap();
        assert_eq!(key.to_spki_der(), der);
        assert_eq!(key.id().to_string().parse::<KeyId>().unwrap(), key.id());
    }
    assert!("AB".repeat(32).parse::<KeyId>().is_err() && "ab".parse::<KeyId>().is_err());
}

#[test]
fn private_keys_bring_their_own_public_key_or_none() {
    let (ed25519, p256) = (open(ED25519), open(P256));
    let ed_der = ed25519.to_pkcs8_der();
    let p_der = p256.to_pkcs8_der();
    let public = &ed25519.public_key().to_spki_der()[12..];
    // RFC 8410, 10.3: version 2 has the public key as [1].
    let second =
        |public: &[u8]| [&hex("3051020101300506032b657004220420")[..], &ed_der[16..], &hex("812100"), public].concat();
    let without = [
        &hex("304102010030 1306072a8648ce3d020106082a8648ce3d030107042730250201010420".replace(' ', "").as_str())[..],
        &p_der[36..68],
    ]
    .concat();
    let changed = |at: usize| {
        let mut bytes = p_der.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let huge = [&p_der[..36], &[0xff; 32], &p_der[68..]].concat();
    let nothing = [&p_der[..36], &[0; 32], &p_der[68..]].concat();
    let with_null = [&hex("3030020100300706032b6570050004220420")[..], &ed_der[16..]].concat();
    let other = &open(P256).public_key().to_spki_der()[12..44];
    for (name, bytes, expected) in [
        ("Ed25519, version 1", ed_der.to_vec(), None),
        ("Ed25519, version 2", second(public), None),
        ("P-256", p_der.to_vec(), None),
        ("P-256 without a public key", without, None),
        ("Ed25519 with another key", second(other), Some("another key's")),
        ("P-256 with another key", changed(36), Some("another key's")),
        ("P-256 with no point", changed(137), Some("another key's")),
        ("a scalar above the order", huge, Some("order")),
        ("a scalar of zero", nothing, Some("order")),
        ("a short one", p_der[..137].to_vec(), Some("DER")),
        ("more behind it", [&ed_der[..], &[0]].concat(), Some("DER")),
        ("a public key", ed25519.public_key().to_spki_der(), Some("DER")),
        ("nothing", vec![], Some("DER")),
        (
            "X25519",
            {
                let mut bytes = ed_der.to_vec();
                bytes[11] = 0x6e;
                bytes
            },
            Some("1.3.101.110"),
        ),
        ("Ed25519 with parameters", with_null, Some("DER")),
        ("a long one", vec![0x30; 5000], Some("at most 4096")),
    ] {
        match (PrivateKey::from_pkcs8_der(&bytes), expected) {
            (Ok(key), None) => {
                let plain = if key.public_key().algorithm() == KeyAlgorithm::Ed25519 { &ed_der } else { &p_der };
                assert_eq!(key.to_pkcs8_der(), *plain, "{name}");
            }
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{name}: {error}"),
            (result, _) => panic!("{name}: {result:?}"),
        }
    }
}

#[test]
fn key_files_hold_one_key_of_the_right_kind() {
    let public = open(ED25519).public_key().to_pem();
    let labelled = |label: &str| ED25519.replace("PRIVATE KEY", label);
    for (name, text, expected) in [
        ("two keys", format!("{ED25519}{P256}"), "2 PEM blocks"),
        ("a public key", public.clone(), "`PUBLIC KEY`"),
        ("SEC1", labelled("EC PRIVATE KEY"), "`EC PRIVATE KEY`"),
        ("PKCS#8 with a password", labelled("ENCRYPTED PRIVATE KEY"), "`ENCRYPTED PRIVATE KEY`"),
        ("no PEM", "{}".to_owned(), "not a PEM block"),
        ("nothing", String::new(), "not a PEM block"),
        ("headers", ED25519.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1), "not a PEM block"),
        ("half a key", ED25519[..60].to_owned(), "not a PEM block"),
        ("another end", ED25519.replace("END PRIVATE", "END PUBLIC"), "not a PEM block"),
        ("a book", "x".repeat(MAX_KEY_FILE_BYTES + 1), "at most 16384"),
    ] {
        let error = PrivateKeyFile::parse(text.as_bytes()).expect_err(name);
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert_eq!(error.hint().is_some(), name.starts_with("two") || name.contains("SEC1") || name.contains('#'));
    }
    assert!(matches!(PublicKey::from_pem(ED25519.as_bytes()), Err(KeyError::Label { .. })));
    PublicKey::from_pem(public.replace('\n', "\r\n").as_bytes()).unwrap();
}

#[test]
fn encrypted_keys_cost_what_is_safe_or_are_refused() {
    let json = pem::read(ENCRYPTED.as_bytes()).unwrap().bytes.to_vec();
    let json = String::from_utf8(json).unwrap();
    EncryptedKey::parse(KeyLabel::Cosign, json.as_bytes()).unwrap();
    for (from, to, expected) in [
        ("32768", "65536", ""),
        ("32768", "32769", "N=32769"),
        ("32768", "1073741824", "N=1073741824"),
        ("32768", "18446744073709551615", "N=18446744073709551615"),
        ("32768", "18446744073709551616", "whole number"),
        ("32768", "2", "N=2"),
        ("32768", "-1", "whole number"),
        ("32768", "\"32768\"", "whole number"),
        ("\"r\":8", "\"r\":9", "r=9"),
        ("\"p\":1", "\"p\":1000000", "p=1000000"),
        ("\"p\":1", "\"p\":1,\"p\":1", "twice"),
        ("scrypt", "pbkdf2", "pbkdf2"),
        ("nacl/secretbox", "aes", "aes"),
        ("\"salt\":\"AAEC", "\"salt\":\"", "32 bytes"),
        ("\"salt\":\"", "\"salt\":\"AAEC", "at most"),
        ("\"nonce\":\"ICEi", "\"nonce\":\"", "24 bytes"),
        ("\"ciphertext\":\"", "\"ciphertext\":\"*", "base64"),
    ] {
        let text = json.replacen(from, to, 1);
        assert_ne!(text, json, "{from}");
        match EncryptedKey::parse(KeyLabel::Cosign, text.as_bytes()) {
            Ok(_) => assert!(expected.is_empty(), "{to}"),
            Err(error) => {
                let causes = format!(
                    "{error}: {}",
                    std::error::Error::source(&error)
                        .map(|source| {
                            format!("{source}: {:?}", std::error::Error::source(source).map(ToString::to_string))
                        })
                        .unwrap_or_default()
                );
                assert!(!expected.is_empty() && causes.contains(expected), "{to}: {causes}");
            }
        }
    }
    let file = PrivateKeyFile::parse(ENCRYPTED.as_bytes()).unwrap();
    assert!(matches!(file.open(None), Err(KeyError::NeedsPassword)));
    let key = open(ED25519);
    let long = vec![b'x'; 5000];
    let result = key.to_encrypted_pem(KeyLabel::Cosign, &long, &mut filled(1));
    assert!(matches!(result, Err(KeyError::LongPassword { .. })));
}

/// Every byte of the box is under the tag, and the password may be empty.
#[test]
fn a_damaged_box_is_not_opened() {
    let key = open(ED25519);
    let text = key.to_encrypted_pem(KeyLabel::Cosign, b"", &mut filled(7)).unwrap();
    assert_eq!(*PrivateKeyFile::parse(text.as_bytes()).unwrap().open(Some(b"")).unwrap().to_pem(), ED25519);
    let json = String::from_utf8(pem::read(text.as_bytes()).unwrap().bytes.to_vec()).unwrap();
    let start = json.find("ciphertext").unwrap() + 13;
    for at in [start, start + 30, json.len() - 6] {
        let mut json = json.clone().into_bytes();
        json[at] = if json[at] == b'A' { b'B' } else { b'A' };
        let damaged = EncryptedKey::parse(KeyLabel::Cosign, &json).unwrap();
        assert!(matches!(damaged.decrypt(b""), Err(KeyError::Password)), "byte {at}");
    }
}

#[test]
fn new_keys_need_random_bytes() {
    for algorithm in KeyAlgorithm::ALL {
        let one = PrivateKey::generate(algorithm, &mut filled(1)).unwrap();
        let two = PrivateKey::generate(algorithm, &mut filled(2)).unwrap();
        assert_ne!(one.public_key().id(), two.public_key().id());
        assert_eq!(
            *PrivateKeyFile::parse(one.to_pem().as_bytes()).unwrap().open(None).unwrap().to_pem(),
            *one.to_pem()
        );
        assert!(matches!(PrivateKey::generate(algorithm, &mut filled(0)), Err(KeyError::BadRandom)));
        let mut failing = |_: &mut [u8]| Err(std::io::Error::other("no entropy"));
        assert!(matches!(PrivateKey::generate(algorithm, &mut failing), Err(KeyError::Random(_))));
        assert_eq!(algorithm.name().parse::<KeyAlgorithm>().unwrap(), algorithm);
    }
    // Above the order of the curve: the next bytes are taken, and not those modulo the order.
    assert!(matches!(PrivateKey::generate(KeyAlgorithm::EcdsaP256, &mut filled(0xff)), Err(KeyError::BadRandom)));
    let mut calls = 0;
    let mut second = |bytes: &mut [u8]| {
        calls += 1;
        bytes.fill(if calls == 1 { 0xff } else { 3 });
        Ok(())
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256, &mut second).unwrap();
    let expected = PrivateKey::generate(KeyAlgorithm::EcdsaP256, &mut filled(3)).unwrap();
    assert_eq!(key.public_key(), expected.public_key());
    assert!("rsa".parse::<KeyAlgorithm>().is_err());
}

#[test]
fn secrets_are_in_no_debug_output_and_no_error() {
    for algorithm in KeyAlgorithm::ALL {
        let key = PrivateKey::generate(algorithm, &mut filled(0x5a)).unwrap();
        let shown = format!("{key:?} {:?}", PrivateKeyFile::parse(key.to_pem().as_bytes()).unwrap());
        assert!(shown.contains("***") && shown.contains(&key.public_key().id().to_string()), "{shown}");
        for secret in ["5a5a", "90, 90", "WlpaWl"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let damaged = key.to_pem().replace("WlpaWlpa", "WlpaWlp*");
        let error = PrivateKeyFile::parse(damaged.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("WlpaWl"), "{error:?}");
    }
}
