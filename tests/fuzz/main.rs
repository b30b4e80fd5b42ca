//! Every decoder of outside bytes gets damaged ones: it must return, with a value or an error, and never panic.
//!
//! Each target is a valid input and a function; inputs are mutated by a generator with a fixed seed, so that a failure
//! repeats. `cargo test --test fuzz` does a few thousand rounds of each; the variable `CAS_FUZZ_SECONDS` makes every
//! target go on for so long, with another seed each time, and a failing input is written to the temporary folder.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::disallowed_methods, reason = "a test reads its environment and the clock plainly")]
#![expect(clippy::print_stderr, reason = "a failing input is named")]

#[path = "../common/toolchain.rs"]
mod toolchain;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Metadata, Node, RelPath};

const ROUNDS: u64 = 3000;
/// So many keys take longer than other seeds.
const KEYRING_ROUNDS: u64 = 300;
/// A round of a whole store takes so much longer.
const STORE_ROUNDS: u64 = 20;
/// No single input takes longer.
const SLOW: Duration = Duration::from_secs(5);

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }
}

/// Values at which fields are often wrong.
const ODD: [&[u8]; 16] = [
    b"\0",
    b"\xff",
    b"/",
    b"..",
    b"../../x",
    b"\n",
    b"-1",
    b"99999999999999999999",
    b"{",
    b"[",
    b"\"",
    b"\xff\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"%",
    b" ",
    b"18446744073709551615",
];

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            2 => bytes.truncate(at),
            3 => {
                let odd = ODD[random.below(ODD.len())];
                bytes.splice(at..at, odd.iter().copied());
            }
            4 => {
                let end = (at + random.below(64)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + random.below(256)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            _ => {
                let odd = ODD[random.below(ODD.len())];
                let end = (at + odd.len()).min(bytes.len());
                bytes.splice(at..end, odd.iter().copied());
            }
        }
    }
    bytes
}

#[track_caller]
fn fuzz(name: &str, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    fuzz_rounds(name, ROUNDS, seeds, target);
}

#[track_caller]
fn fuzz_rounds(name: &str, rounds: u64, seeds: &[Vec<u8>], target: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    for seed in seeds {
        target(seed);
    }
    let soak = std::env::var("CAS_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let started = Instant::now();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let mut random = Random(if soak.is_some() { clock | 1 } else { 0x9E37_79B9_7F4A_7C15 });
    let mut round = 0;
    while soak.map_or(round < rounds, |soak| started.elapsed() < soak) {
        round += 1;
        let bytes = mutate(&seeds[random.below(seeds.len())], &mut random);
        let begun = Instant::now();
        let result = std::panic::catch_unwind(|| target(&bytes));
        if result.is_err() || begun.elapsed() > SLOW {
            let path = std::env::temp_dir().join(format!("cas-fuzz-{name}"));
            std::fs::write(&path, &bytes).unwrap();
            eprintln!("round {round} of {name} failed; the input is in {}", path.display());
            panic!("{name} panicked or was slow");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn tree() -> Directory {
    let mut tree = Directory::root();
    let blob = Descriptor::of(DigestFunction::Blake3, b"x");
    let parents = Metadata::root_owned(0o755);
    for (at, node) in [
        ("a/b", Node::file(blob, 0o4755)),
        ("a/c", Node::Link { target: path("a/b") }),
        ("d", Node::symlink("a")),
        ("ü/e", Node::file(blob, 0o644)),
    ] {
        tree.insert(&path(at), node, &parents).unwrap();
    }
    tree
}

#[test]
fn trees() {
    let encoded = tree().encode(DigestFunction::Blake3).unwrap();
    let others: BTreeMap<Descriptor, Vec<u8>> = encoded.directories.into_iter().collect();
    fuzz("tree", &[others[&encoded.root].clone()], |bytes| {
        let root = Descriptor::of(DigestFunction::Blake3, bytes);
        let load = &mut |name: &Descriptor| {
            Ok::<_, Infallible>(if *name == root {
                bytes.to_vec()
            } else {
                others.get(name).cloned().unwrap_or_default()
            })
        };
        let _ = cas_tree::decode(&root, load);
    });
}

#[test]
fn recipes_and_results() {
    let blob = Descriptor::of(DigestFunction::Sha256, b"x");
    let frame = cas_tar::Frame { blob, summary: cas_tar::FrameSummary { length: 1, crc32: 7 } };
    let recipe = cas_tar::Recipe {
        profile: cas_tar::Profile::Layer1,
        codec: cas_tar::Codec::Gzip6,
        tree: blob,
        tar: blob,
        blob,
        frames: vec![frame],
        tail: None,
    };
    let annotations = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
    let tail = cas_tar::RecipeTail { blob, tar_length: 0, annotations };
    let with_tail = cas_tar::Recipe { codec: cas_tar::Codec::ZstdChunked3, tail: Some(tail), ..recipe.clone() };
    fuzz("recipe", &[recipe.encode(), with_tail.encode()], |bytes| {
        if let Ok(recipe) = cas_tar::Recipe::decode(bytes) {
            assert_eq!(recipe.encode(), bytes, "one form alone");
        }
    });
    let result = cas_action::encode_result(&tree(), &[path("a"), path("d")], DigestFunction::Blake3).unwrap();
    let trees = result.trees.clone();
    fuzz("result", &[result.bytes], |bytes| {
        let load = &mut |_: &Descriptor| Ok::<_, Infallible>(trees[0].1.clone());
        let _ = cas_action::decode_result(bytes, DigestFunction::Blake3, load);
    });
    let bytes = cas_action::encode_result(&tree(), &[path("a")], DigestFunction::Blake3).unwrap().bytes;
    fuzz("tree-message", &[trees[0].1.clone()], |tree| {
        let load = &mut |_: &Descriptor| Ok::<_, Infallible>(tree.to_vec());
        let _ = cas_action::decode_result(&bytes, DigestFunction::Blake3, load);
    });
}

#[test]
fn archives() {
    let plan = cas_tar::npm_plan(&[(path("päckage.json"), 0o644, Descriptor::empty(DigestFunction::Blake3))]);
    let mut tar = Vec::new();
    struct Nothing;
    impl cas_blob::OpenBlob for Nothing {
        fn open_blob(&self, _: &Descriptor) -> Result<Box<dyn Read + Send>, cas_blob::OpenBlobError> {
            Ok(Box::new(std::io::empty()))
        }
    }
    for group in &plan.groups {
        cas_tar::copy_pieces(group.pieces(), &Nothing, &mut tar).unwrap();
    }
    fuzz("tar", &[tar.clone()], |bytes| {
        let keep = &mut |content: &mut dyn Read| {
            let mut kept = Vec::new();
            content.take(1 << 20).read_to_end(&mut kept).ok();
            Ok::<_, Infallible>(Descriptor::of(DigestFunction::Blake3, &kept))
        };
        let limits = cas_tar::ReadTarLimits { content_bytes: 1 << 20 };
        let _ = cas_tar::read_tree(&mut &bytes[..], limits, keep);
        let mut tree = cas_tree::Unpacking::new(cas_tree::Directory::root());
        for _ in 0..2 {
            let _ = cas_tar::read_layer(&mut tree, &mut &bytes[..], limits, keep);
        }
        let _ = tree.finish();
        let _ = cas_tar::read_entries(&mut &bytes[..], limits, &mut |_, _, content| keep(content), &mut |_| Ok(()));
    });
    let mut gzip = cas_tar::Codec::Gzip6.header().to_vec();
    let encoder = cas_tar::Codec::Gzip6.encoder(Vec::new(), 3).unwrap();
    let (body, summary) = {
        let mut encoder = encoder;
        std::io::Write::write_all(&mut encoder, b"abc").unwrap();
        encoder.finish().unwrap()
    };
    gzip.extend(body);
    gzip.extend(cas_tar::Codec::Gzip6.trailer(&[summary]));
    fuzz(
        "decompress",
        &[gzip, b"\x28\xb5\x2f\xfd\x04\x00\x19\x00\x00abc".to_vec(), b"\xfd7zXZ\0\0\x04".to_vec()],
        |bytes| {
            let compression = cas_tar::Compression::detect(bytes);
            if let Ok(reader) = cas_tar::decompress(bytes, compression, 1 << 20) {
                std::io::copy(&mut reader.take(2 << 20), &mut std::io::sink()).ok();
            }
        },
    );
}

/// An image of one file, or of what a damaged archive holds.
/// Archives of others are planned without losing a byte, and what a table of contents cannot tell is an error.
#[test]
fn archives_of_others() {
    #[derive(Default)]
    struct Memory(std::sync::Mutex<BTreeMap<Descriptor, Vec<u8>>>);
    impl cas_blob::OpenBlob for Memory {
        fn open_blob(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>, cas_blob::OpenBlobError> {
            let found = self.0.lock().unwrap().get(blob).cloned();
            found
                .map_or(Err(cas_blob::OpenBlobError::Missing(*blob)), |bytes| Ok(Box::new(std::io::Cursor::new(bytes))))
        }
    }
    let place = Memory::default();
    let put = |bytes: &[u8]| {
        let blob = Descriptor::of(DigestFunction::Blake3, bytes);
        place.0.lock().unwrap().insert(blob, bytes.to_vec());
        blob
    };
    let mut tree = tree();
    put(b"x");
    let parents = Metadata::root_owned(0o755);
    for (name, content) in [("files/a", &b"content"[..]), ("files/b", &[7; 1500]), ("files/empty", b"")] {
        tree.insert(&path(name), Node::file(put(content), 0o644), &parents).unwrap();
    }
    let seeds: Vec<Vec<u8>> = [cas_tar::LayerPlan::stargz(&tree, put(cas_tar::LANDMARK))]
        .into_iter()
        .chain([cas_tar::LayerPlan::new(&tree)])
        .filter_map(|plan| {
            let mut bytes = Vec::new();
            for group in &plan.ok()?.groups {
                cas_tar::copy_pieces(group.pieces(), &place, &mut bytes).ok()?;
            }
            Some(bytes)
        })
        .collect();
    assert!(!seeds.is_empty());
    fuzz("scan", &seeds, |bytes| {
        let place = Memory::default();
        let keep = &mut |content: &mut dyn Read| {
            let mut kept = Vec::new();
            content.take(1 << 20).read_to_end(&mut kept)?;
            let blob = Descriptor::of(DigestFunction::Blake3, &kept);
            place.0.lock().unwrap().insert(blob, kept);
            Ok::<_, std::io::Error>(blob)
        };
        let limits = cas_tar::ReadTarLimits { content_bytes: 1 << 20 };
        let whole = cas_tar::LayerPlan::scan(&mut &bytes[..], limits, cas_tar::ScanForm::Whole, keep);
        let Ok(plan) = whole else { return };
        let mut again = Vec::new();
        for group in &plan.groups {
            cas_tar::copy_pieces(group.pieces(), &place, &mut again).unwrap();
        }
        assert!(again == bytes, "every byte is there");
        for codec in [cas_tar::Codec::ZstdChunked3, cas_tar::Codec::Stargz6] {
            let mut groups = Vec::new();
            for group in &plan.groups {
                let (frame, encoded) = codec.encode(group, &place, Vec::new()).unwrap();
                groups.push((frame.len() as u64, encoded.contents));
            }
            let groups: Vec<_> =
                groups.iter().map(|(size, contents)| cas_tar::GroupIndex { size: *size, contents }).collect();
            let _ = cas_tar::Tail::new(codec, &plan, &groups, &mut std::io::sink());
        }
    });
    let digest = Descriptor::of(DigestFunction::Sha256, b"x").digest;
    let chunk = cas_tar::ChunkIndex { size: 1, start: 0, end: 9, sha256: digest };
    let index = cas_tar::ContentIndex { sha256: digest, crc64: 7, chunks: vec![chunk] };
    fuzz("contents", &[cas_tar::ContentIndex::encode(&[index])], |bytes| {
        let _ = cas_tar::ContentIndex::decode(bytes);
    });
}

#[test]
fn images_to_look_at() {
    let seeds: [(&str, &str); 6] = [
        ("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n\nPackage: b\nVersion: 2\n"),
        ("var/lib/dpkg/info/a.list", "/.\n/usr/bin/a\n/../x\n"),
        ("lib/apk/db/installed", "P:b\nV:2\nF:usr/bin\nR:a\n\nP:c\nV:3\n"),
        ("a/demo-1.dist-info/RECORD", "demo/a.py,,\n\"b,c\",,\n../../x,,\n"),
        ("node_modules/a/package.json", r#"{"name":"a","version":"1"}"#),
        ("node_modules/.package-lock.json", r#"{"packages":{"node_modules/a":{"dev":true}}}"#),
    ];
    let entry = |name: &str, content: &[u8]| cas_analyze::Entry {
        path: Some(path(name)),
        what: cas_analyze::What::Node(Node::file(Descriptor::of(DigestFunction::Sha256, content), 0o644)),
        bytes: 512 + (content.len() as u64).next_multiple_of(512),
        header_bytes: 512,
        content: content.to_vec(),
    };
    for (name, seed) in seeds {
        fuzz("analyze", &[seed.as_bytes().to_vec()], |bytes| {
            let mut image = cas_analyze::Image::new();
            image.begin_layer();
            let mut total = 0;
            for (other, content) in seeds.iter().chain(&[("root/.docker/config.json", "")]) {
                let is_damaged = *other == name || content.is_empty();
                let entry = entry(other, if is_damaged { bytes } else { content.as_bytes() });
                total += entry.bytes;
                image.add(entry).unwrap();
            }
            image.end_layer(cas_analyze::LayerFacts::default());
            let report = cas_analyze::analyze(&image);
            assert!(report.savings().0 <= total);
        });
    }
}

#[test]
fn debian() {
    if let Some(package) = toolchain::package() {
        // Its program is long and says nothing to a parser.
        let head = package[..package.len().min(8192)].to_vec();
        fuzz("deb", &[head], |bytes| {
            let Ok(mut reader) = cas_deb::DebReader::new(bytes) else { return };
            while let Ok(Some(member)) = reader.next_member() {
                std::io::copy(&mut member.take(1 << 20), &mut std::io::sink()).ok();
            }
        });
    }
    let control =
        b"Package: a\nVersion: 1:2.3-4\nArchitecture: amd64\nMulti-Arch: same\nEssential: yes\nPriority: required\n\
        Filename: pool/a.deb\nSize: 3\nSHA256: 6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f\n\
        Depends: b (>= 1) | c [amd64 !i386], d:any <!nocheck>\nProvides: x (= 1)\nDescription: x\n more\n .\n";
    fuzz("control", &[control.to_vec()], |bytes| {
        if let Ok(control) = cas_deb::Control::parse(bytes) {
            let _ =
                (control.depends(), control.pre_depends(), control.conflicts(), control.breaks(), control.replaces());
        }
        let mut index = cas_deb::IndexBuilder::new("amd64");
        if index.add(0, bytes).is_ok() {
            let mut again = cas_deb::IndexBuilder::new("amd64");
            again.add(0, &cas_deb::shorten(bytes).unwrap()[..]).unwrap();
            let (index, again) = (index.build(), again.build());
            assert_eq!(format!("{index:?}"), format!("{again:?}"), "the short form says the same");
            if let Err(error) = cas_deb::closure(&index, &["a"]) {
                drop((error.to_string(), error.hint()));
            }
        }
    });
    let relations = b"libc6 (>= 2.34), a | b:any (<< 1) | x,\n c:amd64 (= 1:2-3), d (< 1~)".to_vec();
    fuzz("relations", &[relations], |bytes| {
        let Ok(relations) = cas_deb::Relations::parse(&text(bytes)) else { return };
        let printed = relations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        assert_eq!(cas_deb::Relations::parse(&printed).unwrap(), relations, "{printed}");
    });
    let seed = cas_deb::Version::parse("1:2.3~rc1+dfsg-4+b1").unwrap();
    fuzz("version", &[b"1:2.3~rc1+dfsg-4+b1".to_vec(), b"0".to_vec()], |bytes| {
        let Ok(version) = cas_deb::Version::parse(&text(bytes)) else { return };
        assert_eq!(cas_deb::Version::parse(version.as_str()).unwrap(), version);
        assert_eq!(version.cmp(&seed), seed.cmp(&version).reverse(), "{version}");
    });
    let signed = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Debian\nSuite: test\nDate: Sat, 10 Jan 2026 10:00:00 UTC\n\
        SHA256:\n 6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f 5 main/binary-amd64/Packages.xz\n- -x\n\
        -----BEGIN PGP SIGNATURE-----\n\niHUEARYKAB0WIQQAAAAAAAAAAAAAAAAAAAAAAAAAAAUCAAAAAAAKCRAAAAAAAAAAAAAA\n=AAAA\n-----END PGP SIGNATURE-----\n";
    let keyring = cas_deb::Keyring::debian();
    fuzz("inrelease", &[signed.to_vec()], |bytes| {
        assert!(cas_deb::verify_inrelease(bytes, &keyring, cas_deb::Moment::Now(0)).is_err(), "nobody signed this");
    });
    let ring = include_bytes!("../../crates/cas-deb/keyrings/debian-archive-keyring.gpg");
    fuzz_rounds("keyring", KEYRING_ROUNDS, &[ring.to_vec()], |bytes| {
        if let Ok(ring) = cas_deb::Keyring::parse(bytes) {
            assert!(cas_deb::verify_inrelease(signed, &ring, cas_deb::Moment::Now(0)).is_err(), "nobody signed this");
        }
    });
}

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
fn configuration() {
    let manifest = b"[workspace]\nmembers = [\"a/*\"]\n[toolchain.t]\ndebian = { suite = \"s\", packages = [\"p\"], mirror = \"http://x\" }\n\
        [fetch.f]\nurl = \"https://x/y\"\nsha256 = \"6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f\"\n[fetch.g]\nnpm = \"@a/b@1.0.0\"\n\
        [command.c]\ntoolchain = \":t\"\nrun = [\"x\"]\ndeps = [\"^c\", \"//a:b\"]\noutputs = [\"o/p\"]\ntimeout = \"90s\"\n\
        [image.i]\nbase = \":t\"\nlayers = [{ from = \":c\", path = \"o\", to = \"/\", mode = \"0644\", owner = \"a:1\" }]\nformat = \"docker\"\nconfig = { expose = [\"80/tcp\"], user = \"1\", stop_signal = \"SIGTERM\", healthcheck = { test = \"x\", interval = \"30s\" } }\n[npm.n]\nfrom = \":c\"\n";
    fuzz("cas-toml", &[manifest.to_vec()], |bytes| {
        if let Err(findings) = cas_config::Manifest::parse(&text(bytes)) {
            assert!(!findings.is_empty());
        }
    });
    let lock = toolchain::lock(b"x")
        + "[[npm]]\ntarget = \"//:a\"\nrequest = \"a@1\"\npath = \"a/-/a-1.tgz\"\nintegrity = \"sha512-x\"\n";
    fuzz("cas-lock", &[lock.into_bytes()], |bytes| {
        if let Ok(lock) = cas_config::Lock::parse(&text(bytes)) {
            assert_eq!(cas_config::Lock::parse(&lock.to_text()).unwrap(), lock);
        }
    });
    let mut index = cas_oci::LayoutIndex::default();
    let manifest = Descriptor::of(DigestFunction::Sha256, b"x");
    index.set(cas_oci::IndexEntry::new("v1", cas_oci::MANIFEST_MEDIA_TYPE, &manifest));
    fuzz("oci-index", &[index.encode()], |bytes| {
        if let Ok(index) = cas_oci::LayoutIndex::parse(bytes) {
            assert_eq!(cas_oci::LayoutIndex::parse(&index.encode()).unwrap(), index);
        }
    });
    let named = br#"{"digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":1,"urls":["x"]}"#;
    let whole = [&br#"{"artifactType":"a/b","config":"#[..], named, br#","layers":["#, named, b"]}"].concat();
    fuzz("oci-links", &[index.encode(), whole], |bytes| {
        if let Ok(links) = cas_oci::Links::parse(bytes, None) {
            assert!(links.is_index() || (links.documents.is_empty() && !links.blobs.is_empty()));
        }
    });
    let below = br#"{"config":{"User":"a","ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Cmd":"x","Healthcheck":{"Test":["NONE"],"Retries":1}},"history":[{"created_by":"x","empty_layer":true}]}"#;
    fuzz("oci-config", &[below.to_vec()], |bytes| {
        let _ = cas_oci::Inherited::parse(bytes);
    });
    fuzz(
        "words",
        &[b"blake3:51f855e8f080df9cbc2a561b6ddaad85e1bbf884ea4b73f3455e8c86202d0422/5".to_vec(), b"//a/b:c".to_vec()],
        |bytes| {
            let _ = (text(bytes).parse::<Descriptor>(), text(bytes).parse::<cas_config::Pattern>());
        },
    );
}

#[test]
fn npm() {
    let manifest = b"{\"name\": \"@a/b\", \"version\": \"1.0.0\", \"files\": [\"src/**\", \"!*.map\", \"{a,b}/[!c]*\"], \"main\": \"./x\", \
        \"bin\": {\"y\": \"./z\"}, \"dependencies\": {\"c\": \"workspace:^\"}, \"peerDependencies\": {\"c\": \"workspace:>=1 || 2\"}}";
    let mut files = tree();
    files
        .insert(
            &path(".npmignore"),
            Node::file(Descriptor::of(DigestFunction::Blake3, b"i"), 0o644),
            &Metadata::default(),
        )
        .unwrap();
    let member = cas_npm::WorkspaceMember { folder: "c".to_owned(), version: Some("1.0.0".to_owned()) };
    let members = [("c".to_owned(), member)].into();
    fuzz("package-json", &[manifest.to_vec()], |bytes| {
        let Ok(manifest) = cas_npm::Manifest::parse(bytes) else { return };
        if let Ok(rewritten) = cas_npm::rewrite_workspace_ranges(&text(bytes), "x", &members)
            && bytes.first() == Some(&b'{')
        {
            serde_json::from_str::<serde_json::Value>(&rewritten).expect("what is rewritten is JSON still");
        }
        let read = &mut |_: &Descriptor| Ok::<_, Infallible>(bytes.to_vec());
        let _ = cas_npm::packed_files(&manifest, &files, &[], read);
    });
    let manifest = cas_npm::Manifest::parse(b"{}").unwrap();
    fuzz("npmignore", &[b"# x\n*.js\n!/a/**\n**/b/\n{a,b{c,d}}\n[a-z]?\\*\n".to_vec()], |bytes| {
        let read = &mut |_: &Descriptor| Ok::<_, Infallible>(bytes.to_vec());
        let _ = cas_npm::packed_files(&manifest, &files, &[text(bytes)], read);
    });
    let lockfile = br#"{"lockfileVersion": 3, "packages": {"": {"dependencies": {"a": "1"}}, "x": {"name": "y"}, "node_modules/y": {"resolved": "x", "link": true},
        "node_modules/a": {"version": "1.0.0", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "bin": "./c", "os": ["!win32"], "dependencies": {"b": "1"}},
        "node_modules/a/node_modules/b": {"version": "1.0.0", "integrity": "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "resolved": "https://x/y.tgz"}}}"#;
    fuzz("package-lock", &[lockfile.to_vec()], |bytes| {
        let Ok(lockfile) = cas_npm::Lockfile::parse(bytes) else { return };
        for part in [cas_npm::Part::All, cas_npm::Part::Production] {
            let _ = lockfile.reached("", part);
        }
        for (location, _) in lockfile.packages() {
            assert!(RelPath::new(location).is_ok(), "{location}");
            let _ = lockfile.programs(location);
        }
        layouts(&cas_npm::ModulesLock::Npm(lockfile), &cas_npm::Programs::new());
    });
    let integrity = "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=";
    let nine = format!(
        "lockfileVersion: '9.0'\noverrides:\n  'x>y@1': 2\nimporters:\n  .:\n    dependencies:\n      a:\n        specifier: ^1\n        version: 1.0.0(@s/p@2.0.0)\n      l:\n        specifier: workspace:*\n        version: link:libs/l\n\
         \n  libs/l:\n    optionalDependencies:\n      z:\n        specifier: npm:@s/p@2.0.0\n        version: '@s/p@2.0.0'\n\npackages:\n  a@1.0.0:\n    resolution: {{integrity: {integrity}}}\n    os: ['!win32']\n    hasBin: true\n\
         \n  '@s/p@2.0.0':\n    resolution: {{integrity: {integrity}, tarball: https://h/x.tgz}}\nsnapshots:\n  a@1.0.0(@s/p@2.0.0):\n    dependencies:\n      '@s/p': 2.0.0\n      l: link:libs/l\n  '@s/p@2.0.0':\n    optional: true\n"
    );
    let six = format!(
        "lockfileVersion: '6.0'\ndependencies:\n  a:\n    specifier: ^1\n    version: 1.0.0(b@2.0.0)\npackages:\n  /a@1.0.0(b@2.0.0):\n    resolution: {{integrity: {integrity}}}\n    dependencies:\n      b: 2.0.0\n      c: /b@2.0.0\n    dev: false\n  /b@2.0.0:\n    resolution: {{integrity: {integrity}}}\n"
    );
    let programs = cas_npm::Programs::from([
        (cas_npm::Owner::Package("a@1.0.0".to_owned()), [("a".to_owned(), "./x".to_owned())].into()),
        (cas_npm::Owner::Member("libs/l".to_owned()), [("l".to_owned(), "y".to_owned())].into()),
    ]);
    for seed in [&nine, &six] {
        let lockfile = cas_npm::PnpmLockfile::parse(seed.as_bytes()).expect("the seed is a lockfile");
        assert!(layouts(&cas_npm::ModulesLock::Pnpm(lockfile), &programs) > 0);
    }
    fuzz("pnpm-lock", &[nine.into_bytes(), six.into_bytes()], |bytes| {
        let Ok(lockfile) = cas_npm::PnpmLockfile::parse(bytes) else { return };
        for (_, package) in lockfile.packages() {
            assert!(RelPath::new(&package.name).is_ok(), "{package:?}");
        }
        let _ = lockfile.check("", &manifest);
        layouts(&cas_npm::ModulesLock::Pnpm(lockfile), &programs);
    });
}

/// Places of layouts do not leave the workspace, whatever a lockfile says; returns how many packages there are.
fn layouts(lock: &cas_npm::ModulesLock, programs: &cas_npm::Programs) -> usize {
    let mut package_count = 0;
    for part in [cas_npm::Part::All, cas_npm::Part::Production] {
        for layout in [lock.layout("", part, programs), lock.portable_layout("", part, programs)].into_iter().flatten()
        {
            package_count += layout.packages.len();
            for place in layout.packages.keys().chain(layout.links.keys()).chain(layout.programs.keys()) {
                let parts: Vec<&str> = place.split('/').collect();
                assert!(!parts.contains(&"..") && !parts.contains(&"") && parts.contains(&"node_modules"), "{place}");
            }
        }
    }
    package_count
}

#[test]
fn cargo() {
    let lockfile = format!(
        "version = 4\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\ndependencies = [\"a\"]\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"{}\"\nchecksum = \"{}\"\n\
         [[package]]\nname = \"b\"\nversion = \"1.0.0+x\"\nsource = \"git+https://h/b?rev=1#2\"\n",
        cas_cargo::CRATES_IO,
        "0".repeat(64)
    );
    let registry = lockfile
        .replace("git+https://h/b?rev=1#2\"", &format!("sparse+https://h/\"\nchecksum = \"{}\"", "1".repeat(64)));
    let downloads = cas_cargo::Downloads::parse(b"{\"dl\": \"https://h/{prefix}/{crate}\"}").unwrap();
    fuzz("cargo-lock", &[lockfile.into_bytes(), registry.into_bytes()], |bytes| {
        let Ok(lock) = cas_cargo::CargoLock::parse(bytes) else { return };
        for one in &lock.crates {
            assert!(cas_tree::Name::new(one.folder()).is_ok(), "{one:?}");
            let _ = downloads.address(one);
        }
    });
    let config = "[source.crates-io]\nreplace-with = \"m\"\n[source.m]\nregistry = \"sparse+https://m/\"\n[source.x]\nreplace-with = \"crates-io\"\nregistry = \"https://x\"\n[registries.y]\nindex = \"z\"\n[build]\njobs = 1\n";
    fuzz("cargo-config", &[config.as_bytes().to_vec()], |bytes| {
        let Ok(config) = cas_cargo::CargoConfig::parse(&text(bytes)) else { return };
        let written = config.with_directory(&[cas_cargo::CRATES_IO, "registry+https://x"].into(), "../c").unwrap();
        let again = cas_cargo::CargoConfig::parse(&written).expect("what is written is TOML");
        for registry in [cas_cargo::CRATES_IO, "registry+https://x", "sparse+https://y/"] {
            let _ = cas_cargo::index_of(&[config.clone(), again.clone()], registry, "https://d");
        }
    });
    fuzz("cargo-index", &[b"{\"dl\": \"https://h/{crate}/{version}\", \"api\": null}".to_vec()], |bytes| {
        let _ = cas_cargo::Downloads::parse(bytes);
    });
}

/// Each form of the index, and the small texts beside it. A checksum of zeros is accepted, so that damage gets past it.
#[test]
fn git_repositories() {
    use cas_git::{Decoded, ObjectFormat, decode_index};
    let seed = |version: u32, extensions: &[u8]| {
        let mut bytes = [&b"DIRC"[..], &version.to_be_bytes(), &2u32.to_be_bytes()].concat();
        for (path, stripped) in [("a/b", 0u8), ("a/c", 1)] {
            let begin = bytes.len();
            bytes.extend([0; 24]);
            bytes.extend(0o100_644u32.to_be_bytes());
            bytes.extend([0; 12]);
            bytes.extend([7; 20]);
            let extended = if version == 2 { 0 } else { 0x4000 };
            bytes.extend((3u16 | extended).to_be_bytes());
            if version > 2 {
                bytes.extend(0x4000u16.to_be_bytes());
            }
            match version {
                4 => bytes.extend([&[stripped], &path.as_bytes()[if stripped == 0 { 0 } else { 2 }..], b"\0"].concat()),
                _ => {
                    bytes.extend(path.as_bytes());
                    bytes.resize(bytes.len() + 8 - (bytes.len() - begin) % 8, 0);
                }
            }
        }
        [&bytes, extensions, &[0; 20]].concat()
    };
    let bitmap =
        [&3u32.to_be_bytes()[..], &2u32.to_be_bytes(), &(1u64 << 33).to_be_bytes(), &5u64.to_be_bytes(), &[0; 4]];
    let link = [&[9; 20][..], &bitmap.concat(), &bitmap.concat()].concat();
    let link = [b"link", &u32::try_from(link.len()).unwrap().to_be_bytes()[..], &link].concat();
    let seeds = [seed(2, b""), seed(3, b"TREE\0\0\0\x02ab"), seed(4, b"sdir\0\0\0\0"), seed(2, &link)];
    let Ok(Decoded::Whole(base)) = decode_index(&seeds[0], ObjectFormat::Sha1) else { panic!("the seed is an index") };
    for seed in &seeds {
        assert!(decode_index(seed, ObjectFormat::Sha1).is_ok(), "{}", seed.escape_ascii());
    }
    fuzz("git-index", &seeds, |bytes| {
        for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
            let whole = match decode_index(bytes, format) {
                Ok(Decoded::Whole(index)) => Some(index),
                Ok(Decoded::Split(split)) => split.over(&base).ok(),
                Err(error) => {
                    drop((error.to_string(), error.hint()));
                    None
                }
            };
            let Some(index) = whole else { continue };
            let paths: Vec<_> = index.entries().map(|entry| (entry.path, entry.stage)).collect();
            assert!(paths.is_sorted() && index.below(b"a").len() <= index.len());
        }
    });
    let texts = [
        &b"[core]\n\tautocrlf = \"input\" # c\n[a \"b\\\"c\"]d=e\\\n f\n"[..],
        b"* text=auto\n\"a b\" eol=crlf -x !y\n",
        b"gitdir: ../x\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",
    ];
    fuzz("git-texts", &texts.map(<[u8]>::to_vec), |bytes| {
        let _ = (cas_git::Config::parse(bytes), cas_git::Attributes::parse(bytes));
        let _ = (cas_git::gitfile(bytes), cas_git::commondir(bytes), cas_git::is_lfs_pointer(bytes));
    });
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

#[test]
fn provenance_and_what_it_names() {
    use cas_attest::{Input, LOCAL_BUILDER, Provenance};
    let set = |text: &str| std::collections::BTreeSet::from([text.to_owned()]);
    let provenance = Provenance {
        target: "//a:b".to_owned(),
        actions: [("//a:c".to_owned(), "blake3:00/7".to_owned())].into(),
        codecs: set("zstd"),
        digest_function: "blake3".to_owned(),
        hosts: set("//:host"),
        incremental: set("//a:d"),
        sandboxes: set("none"),
        inputs: [Input {
            kind: "npm".to_owned(),
            name: "a@1".to_owned(),
            digests: [("sha256".to_owned(), "00".repeat(32))].into(),
            size: 7,
            uri: Some("pkg:npm/a@1".to_owned()),
        }]
        .into(),
        builder: LOCAL_BUILDER.to_owned(),
        version: "1".to_owned(),
    };
    fuzz("provenance", &[provenance.encode().into_bytes()], |bytes| match Provenance::decode(bytes) {
        // What is read is written, and read again as the same.
        Ok(read) => assert_eq!(Provenance::decode(read.encode().as_bytes()).unwrap(), read),
        Err(error) => drop(error.to_string()),
    });
    let content = b"content";
    let digests = vec![cas_digest::Digest::of(DigestFunction::Sha256, content)];
    let entry = cas_oci::PackEntry { blob: Descriptor::of(DigestFunction::Blake3, content), digests };
    let mut pack = Vec::new();
    cas_oci::write_pack(&[entry], |_| Ok(&content[..]), &mut pack).unwrap();
    fuzz("pack", &[pack], |mut bytes| {
        let _ = cas_oci::read_pack(&mut bytes, |entry, content| {
            // No blob has more bytes than its name says.
            let read = std::io::copy(content, &mut std::io::sink())?;
            assert!(read <= entry.blob.size);
            Ok::<_, std::io::Error>(())
        });
    });
    let digest = format!("\n\x40{}\x10\x07", "0".repeat(64)).into_bytes();
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    let action = [field(1, &digest), field(2, &digest)].concat();
    let node = [field(1, b"name"), field(2, &digest)].concat();
    let directory = [field(1, &node), field(2, &node)].concat();
    let function = DigestFunction::Blake3;
    assert!(cas_action::action_parts(&action, function).is_some());
    assert!(cas_action::directory_parts(&directory, function).is_some_and(|parts| !parts.files.is_empty()));
    fuzz("action-parts", &[action, directory], |bytes| {
        drop((cas_action::action_parts(bytes, function), cas_action::directory_parts(bytes, function)));
    });
}

/// Records with a right checksum and wrong content: what a writer of another version, or a hand, may leave.
#[test]
fn messages_of_watchers() {
    let message = |body: &[u8]| {
        let len = u32::try_from(body.len()).unwrap().to_le_bytes();
        [b"caswat01", &len[..], body].concat()
    };
    let path = b"\x03\0\0\0a/b".as_slice();
    let (token, identity) = ([7; 24].as_slice(), [9; 16].as_slice());
    let seeds: Vec<Vec<u8>> = [
        [b"\x01\x01", token, path].concat(),
        [b"\x02\x01\0\0\0".as_slice(), path, b"\x01", identity].concat(),
        [b"\x01".as_slice(), identity, token, b"\x01\x02\0\0\0", path, b"\0", path, b"\x01"].concat(),
        [b"\x02".as_slice(), token, b"\0\0\0\0"].concat(),
        b"\x03\x01\0\0\0\x02\0\0\0\0".to_vec(),
    ]
    .iter()
    .map(|body| message(body))
    .collect();
    for seed in &seeds {
        assert!(cas_snapshot::watch::is_message(seed), "{seed:?}");
    }
    fuzz("watch", &seeds, |bytes| {
        let _ = cas_snapshot::watch::is_message(bytes);
    });
}

#[test]
fn stat_cache() {
    use cas_snapshot::{Options, Selection, Snapshot, Trust};
    let root = tempfile::tempdir().unwrap();
    let caches = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("d")).unwrap();
    std::fs::write(root.path().join("a"), "one").unwrap();
    std::fs::write(root.path().join("d/.gitignore"), "*.o\n").unwrap();
    std::fs::write(root.path().join("d/b.o"), "two").unwrap();
    std::os::unix::fs::symlink("a", root.path().join("link")).unwrap();
    let options =
        Options { function: DigestFunction::Blake3, trust: Trust::Local, caches: Some(caches.path()), watchers: None };
    let everything = |snapshot: &Snapshot| {
        let picked = snapshot.select(&Selection::default()).unwrap();
        // A forged record may say anything of a file, so that its digest or its kind can be wrong; it must not panic.
        let _ = (snapshot.fingerprint(&picked), snapshot.tree(&picked).is_ok());
    };
    let snapshot = Snapshot::take(root.path(), &options).unwrap();
    everything(&snapshot);
    snapshot.save().unwrap();
    let file = std::fs::read_dir(caches.path()).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    let (head, payload) = (whole[..16].to_vec(), whole[24..whole.len() - 16].to_vec());
    fuzz("stat cache", &[payload], |payload| {
        let checksum = Descriptor::of(DigestFunction::Blake3, payload).digest;
        let len = (payload.len() as u64).to_le_bytes();
        std::fs::write(&file, [&head, &len[..], payload, &checksum.value()[..16]].concat()).unwrap();
        match Snapshot::take(root.path(), &options) {
            Ok(snapshot) => everything(&snapshot),
            Err(error) => drop(error.to_string()),
        }
    });
}

/// Every file of a store but the objects, which are hashed, and the index.
#[test]
fn files_of_a_store() {
    use cas_store::fuzzing;
    let blob = Descriptor::of(DigestFunction::Blake3, b"x");
    let second = Descriptor::of(DigestFunction::Sha256, b"x");
    let description = br#"{ "version": 1, "compatible": ["new"], "ro_compatible": [], "incompatible": ["epochs"],
        "quota": { "max_bytes": 21474836480, "max_inodes": 1000000, "min_free_bytes": 1073741824 } }"#;
    let pin = format!("cas pin 1\nwhile /a%20b/%25\nname {second} {blob}\nblob {blob}\ntree {blob}\nend\n");
    let record = [&[1][..], &blob.digest.value()[..31]].concat();
    let batch = [&7u64.to_le_bytes()[..], &2u64.to_le_bytes(), &[0; 16], &record, &record, &[0; 64]].concat();
    let boot = b"01234567-89ab-cdef-0123-456789abcdef 1234567890 17\n";
    type Target = fn(&[u8]) -> bool;
    let targets: [(&str, Target, &[&[u8]]); 9] = [
        ("store.json", fuzzing::description, &[description, br#"{"version": 1}"#]),
        ("epoch-sealed", fuzzing::sealed, &[b"cas epochs 1\n268435456 0-3 5-5\n1234567890 7-9\n", b"cas epochs 1\n"]),
        ("epoch-boot", fuzzing::boot, &[boot]),
        ("session-epoch", fuzzing::session_epoch, &[b"1234567890 0000000017\n"]),
        ("pin", fuzzing::pin, &[pin.as_bytes(), b"cas pin 1\nend\n"]),
        ("leases", fuzzing::leases, &[&record, &[record.as_slice(), &record].concat()]),
        ("collect", fuzzing::batch, &[&batch]),
        ("usage", fuzzing::amount, &[b"0000000007 00000000000000004096 00000000000000000001\n"]),
        ("root-size", fuzzing::root_size, &[b"12288 3\n"]),
    ];
    for (name, target, seeds) in targets {
        let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
        for seed in &seeds {
            assert!(target(seed), "{name}: {}", seed.escape_ascii());
        }
        fuzz(name, &seeds, |bytes| {
            target(bytes);
        });
    }
    fuzz("pin-name", &[b"apps%2Fweb:image@1".to_vec()], |bytes| {
        fuzzing::pin_name(std::os::unix::ffi::OsStrExt::from_bytes(bytes));
    });
}

/// A store with one damaged file never gives wrong bytes, and what a pin keeps stays: a pin that cannot be read stops
/// whoever would remove something.
#[test]
fn a_store_with_a_damaged_file() {
    use cas_store::{Depth, Keep, Quota, Retention, Store, StoreOptions};
    const NOTHING_STAYS: Retention = Retention { min_age_seconds: 0, keep_seconds: 0 };
    let home = tempfile::tempdir().unwrap();
    let options = StoreOptions { needs: Some(|_, _| Ok(Some(Vec::new()))), ..StoreOptions::default() };
    let open = || Store::open_with(home.path(), options);
    let contents = [b"pinned".to_vec(), b"in a tree".to_vec(), vec![3; 300_000], b"nobody's".to_vec()];
    let blobs = contents.each_ref().map(|bytes| Descriptor::of(DigestFunction::Blake3, bytes));
    let mut tree = Directory::root();
    for (number, blob) in blobs[1..3].iter().enumerate() {
        tree.insert(&path(&format!("d/{number}")), Node::file(*blob, 0o644), &Metadata::root_owned(0o755)).unwrap();
    }
    let fill = || {
        let store = open().unwrap();
        for bytes in &contents {
            store.put_bytes(DigestFunction::Blake3, bytes).unwrap();
        }
        let name = store.put_tree(&tree, DigestFunction::Blake3).unwrap();
        let root = store.materialize(&name, &tree).unwrap();
        store.pin("a", &[Keep::Blob(blobs[0])]).unwrap();
        store.pin("b/c", &[Keep::Tree(name)]).unwrap();
        (store.pins().unwrap(), root.with_file_name("size"))
    };
    open().unwrap().set_quota(Quota { max_bytes: Some(64 << 20), ..Quota::default() }).unwrap();
    let (pins, size) = fill();
    let names = ["store.json", "index.db", "epoch/sealed", "epoch/boot", "pins/a", "pins/b%2Fc", "collect", "usage"];
    let files: Vec<_> = names.iter().map(|name| home.path().join("v1").join(name)).chain([size]).collect();
    let whole: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    for (file, whole) in files.iter().zip(&whole) {
        let name = file.file_name().unwrap().display();
        let unread = AtomicU64::new(0);
        let mut seeds = vec![whole.clone()];
        if file.ends_with("size") {
            // Sums with it leave the range of numbers.
            seeds.push(b"18446744073709551615 18446744073709551615\n".to_vec());
        }
        fuzz_rounds(&format!("store-with-{name}"), STORE_ROUNDS, &seeds, |bytes| {
            std::fs::write(file, bytes).unwrap();
            match open() {
                // A description that cannot be read keeps everybody out.
                Err(error) => assert!(file.ends_with("store.json"), "{error}"),
                Ok(store) => {
                    let found = store.pins();
                    let dry = store.collect(NOTHING_STAYS, Some(0), true);
                    let collected = store.collect(NOTHING_STAYS, Some(0), false);
                    drop((store.statistics(), store.seal(), dry));
                    match &found {
                        Ok(found) if *found == pins => {
                            assert!(collected.is_ok() || file.ends_with("index.db"), "{collected:?}");
                            let gone = !store.contains(&blobs[3]).unwrap_or(false);
                            assert!(gone || collected.is_err(), "the collection did nothing");
                        }
                        // A line that was damaged into another one cannot be told from one that was written.
                        Ok(_) => assert!(file.starts_with(home.path().join("v1/pins"))),
                        Err(error) => {
                            unread.fetch_add(1, Ordering::Relaxed);
                            assert!(collected.is_err(), "a collection went on although {error}");
                        }
                    }
                    let has_all = found.is_err() || found.is_ok_and(|found| found == pins);
                    for (blob, bytes) in blobs.iter().zip(&contents) {
                        match store.load(blob, 1 << 20) {
                            Ok(found) => assert!(found == *bytes, "{blob} has other bytes"),
                            Err(error) => assert!(!has_all || *blob == blobs[3], "{blob} was pinned: {error}"),
                        }
                    }
                    let check = store.check(Depth::Fast).unwrap();
                    assert!(check.damaged.is_empty() && (!has_all || check.missing.is_empty()), "{check:?}");
                }
            }
            // A root was collected with its size, and is made anew.
            if file.parent().unwrap().exists() {
                std::fs::write(file, whole).unwrap();
            }
            fill();
        });
        let is_pin = file.starts_with(home.path().join("v1/pins"));
        assert_eq!(unread.into_inner() > 0, is_pin, "{name}");
    }
}
