//! Trees, recipes, results, configurations and what a build was made of.

use std::collections::BTreeMap;
use std::convert::Infallible;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;

use crate::{fuzz, path, text, toolchain, tree};

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
