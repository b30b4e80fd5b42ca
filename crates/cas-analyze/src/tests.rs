//! Whole images, written as words: what each entry comes to, and whose it is.

use std::collections::BTreeMap;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::image::{AddError, Entry, Fate, Image, LayerFacts, MAX_LAYERS, MAX_PARSED_BYTES, MAX_TEXT_BYTES, What};
use crate::package::Packages;
use crate::{AdviceKind, analyze, wanted};

fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("it is a path")
}

fn entry(name: &str, what: What, size: u64, content: &[u8]) -> Entry {
    let (header_bytes, padded) = (512, size.next_multiple_of(512));
    Entry { path: Some(path(name)), what, bytes: header_bytes + padded, header_bytes, content: content.to_vec() }
}

fn file(name: &str, content: &str) -> Entry {
    let blob = Descriptor::of(DigestFunction::Sha256, content.as_bytes());
    entry(name, What::Node(Node::file(blob, 0o644)), blob.size, content.as_bytes())
}

/// `f path=content`, `d path`, `l path=target`, `h path=target`, `w path`, `o path`; `-` begins the next layer.
fn parse(text: &str) -> Entry {
    let (kind, rest) = text.split_once(' ').expect("a kind and a path");
    let (name, value) = rest.split_once('=').unwrap_or((rest, ""));
    match kind {
        "f" => file(name, value),
        "d" => entry(name, What::Node(Node::Directory(Directory::new(Metadata::root_owned(0o755)).into())), 0, b""),
        "l" => entry(name, What::Node(Node::symlink(value)), 0, b""),
        "h" => entry(name, What::Link(path(value)), 0, b""),
        "w" => entry(&format!("{name}.wh"), What::Whiteout(path(name)), 0, b""),
        "o" => entry(&format!("{name}/o"), What::Opaque, 0, b""),
        other => panic!("{other}"),
    }
}

fn image(text: &str) -> Result<Image, AddError> {
    let mut image = Image::new();
    for layer in text.split(", -, ") {
        image.begin_layer();
        let mut bytes = 1024;
        for entry in layer.split(", ").map(parse) {
            bytes += entry.bytes;
            image.add(entry)?;
        }
        image.end_layer(LayerFacts { bytes, compressed_bytes: bytes / 2, ..LayerFacts::default() });
    }
    Ok(image)
}

fn listed(files: &[(&str, &str)]) -> Image {
    let mut image = Image::new();
    image.begin_layer();
    for (name, content) in files {
        image.add(file(name, content)).expect("it has a place");
    }
    image.end_layer(LayerFacts::default());
    image
}

/// One letter for each entry: visible, overwritten, removed, covered, apart.
#[test]
fn each_entry_comes_to_what_unpacking_makes_of_it() {
    for (layers, expected) in [
        ("f a=1, -, f a=2", "ov"),
        ("f a=1, f a=2", "ov"),
        ("d a, f a/b=1, -, d a, f a/c=1", "cvvv"),
        ("d a, f a/b=1, -, f a=2", "oov"),
        ("f a/b=1, -, w a", "ra"),
        // A directory that was said twice goes with both of its entries.
        ("d a, -, d a, f a/b=1, -, w a", "rrra"),
        ("f a/b=1, f a/c=1, -, o a, f a/c=2", "roav"),
        // Whiteouts remove nothing of their own layer, and do nothing where nothing is.
        ("f a=1, w a", "va"),
        ("w nothing, f a=1", "av"),
        // Ways lead through links.
        ("f usr/bin/x=1, l bin=usr/bin, -, f bin/x=2", "ovv"),
        ("f usr/bin/x=1, l bin=usr/bin, -, w bin/x", "rva"),
        // A name of a file of a lower layer, and a name of itself.
        ("f a=1, -, h b=a, -, w a", "rva"),
        ("f a=1, h a=a", "va"),
        ("f a=1, -, w a, -, f a=2, -, f a=3", "raov"),
    ] {
        let image = image(layers).expect("it has a place");
        let letter = |fate: Fate| match fate {
            Fate::Visible => 'v',
            Fate::Overwritten(_) => 'o',
            Fate::Removed { .. } => 'r',
            Fate::Covered => 'c',
            Fate::Apart => 'a',
        };
        let found: String = image.entries.iter().map(|entry| letter(entry.fate)).collect();
        assert_eq!(found, expected, "{layers}");
    }
    assert!(matches!(image("h b=a"), Err(AddError::Unpack(_))));
    assert!(matches!(image("d a, h b=a"), Err(AddError::Unpack(_))));
}

#[test]
fn contents_count_when_all_names_of_a_file_go() {
    let text = "x".repeat(1000);
    for (layers, kind, expected) in [
        (format!("f a={text}, -, w a"), AdviceKind::Removed, 512 + 1024 + 512),
        (format!("f a={text}, h b=a, -, w a"), AdviceKind::Removed, 512 + 512),
        (format!("f a={text}, h b=a, -, w a, w b"), AdviceKind::Removed, 512 + 1024 + 512 + 1024),
        (format!("f a={text}, -, h b=a, -, w a"), AdviceKind::Removed, 512 + 512),
        (format!("f a={text}, h b=a, -, f a=1, f b=2"), AdviceKind::Overwritten, 512 + 1024 + 512),
        // A whiteout stays as long as something that it removes does.
        (format!("f d/.env=A=1, f d/b={text}, -, w d"), AdviceKind::Removed, 512 + 1024),
        (format!("f d/.env=A=1, f d/b={text}, -, w d"), AdviceKind::Secret, 1024),
        (format!("f d/.env={text}, h d/other=d/.env"), AdviceKind::Secret, 0),
        ("f d/.env=A=1, h d/other=d/.env".to_owned(), AdviceKind::Secret, 1024 + 512),
    ] {
        let report = analyze(&image(&layers).expect("it has a place"));
        let saves: u64 =
            report.advice.iter().filter(|advice| advice.kind == kind).map(|advice| advice.saves_bytes).sum();
        assert_eq!(saves, expected, "{layers}");
    }
}

#[test]
fn compressed_savings_are_in_proportion() {
    let report = analyze(&image("f a=1, f b=1, -, w a").expect("it has a place"));
    let advice = &report.advice[0];
    assert_eq!((advice.saves_bytes, advice.saves_compressed_bytes), (1024 + 512, 512 + 256));
}

#[test]
fn duplicates_are_equal_in_all_and_no_links() {
    let large = "x".repeat(4096);
    let long = format!("{}/{}", "n".repeat(60), "m".repeat(60));
    for (layers, expected) in [
        (format!("f a={large}, f b={large}, f c={large}"), vec!["b hard a", "c hard a"]),
        (format!("f b={large}, -, f a={large}"), vec!["a symbolic b"]),
        (format!("f a={large}, h b=a"), vec![]),
        (format!("f a={large}, f b={large}, h c=b"), vec![]),
        (format!("f {long}={large}, f z={large}"), vec![]),
        ("f a=small, f b=small".to_owned(), vec![]),
        (format!("f a={large}, f __pycache__/b={large}"), vec![]),
    ] {
        let report = analyze(&image(&layers).expect("it has a place"));
        let advice = report.advice.iter().find(|advice| advice.kind == AdviceKind::Duplicate);
        let links = advice.into_iter().flat_map(|advice| &advice.entries).filter_map(|entry| {
            let (kind, target) = entry.link.as_ref()?;
            assert_eq!(entry.bytes, 4096);
            Some(format!("{} {} {target}", entry.path, kind.name()))
        });
        assert_eq!(links.collect::<Vec<_>>(), expected, "{}", layers.replace(&large, "…"));
    }
}

#[test]
fn packages_are_read_from_their_databases() {
    let status = "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n\
                  Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: bad\n";
    let python =
        "demo/__init__.py,sha256=x,1\n\"demo/a,b.py\",,\n../../../usr/local/bin/demo,,\n../../../../../../x,,\n";
    let image = listed(&[
        ("usr/bin/a", "1"),
        ("var/lib/dpkg/status", status),
        ("var/lib/dpkg/info/a:amd64.list", "/.\n/usr\n/usr/bin/a\n/not/there\n"),
        ("var/lib/dpkg/status.d/tz", "Package: tzdata\nVersion: 2024a\n"),
        ("var/lib/dpkg/status.d/tz.md5sums", "aa  usr/share/zone\n"),
        ("usr/share/zone", "z"),
        ("lib/apk/db/installed", "P:b\nV:2\nF:\nR:top\nF:usr/bin\nR:a\nR:b\n\nP:no-version\n"),
        ("top", "1"),
        ("usr/bin/b", "1"),
        ("opt/lib/py/demo-3.0.dist-info/RECORD", python),
        ("opt/lib/py/demo/__init__.py", "1"),
        ("opt/lib/py/demo/a,b.py", "1"),
        ("usr/local/bin/demo", "1"),
        ("x", "1"),
        ("opt/lib/py/broken.dist-info/RECORD", ""),
        ("n/node_modules/@s/p/package.json", r#"{"name":"@s/p","version":"4"}"#),
        ("n/node_modules/@s/p/lib/a.js", "1"),
        ("n/node_modules/@s/p/node_modules/q/package.json", r#"{"name":"q","version":"5"}"#),
        ("n/node_modules/bad/package.json", "{"),
        ("n/node_modules/other/package.json", r#"{"name":"other"}"#),
    ]);
    let packages = Packages::of(&image);
    let mut told = Vec::new();
    for (number, package) in packages.packages.iter().enumerate() {
        let own = packages.owners.iter().filter(|(_, owner)| **owner == number).map(|(entry, _)| *entry);
        let own: Vec<String> =
            own.map(|entry| image.entries[entry].path.clone().expect("it has one").to_string()).collect();
        told.push(format!("{} {} {}: {}", package.ecosystem, package.name, package.version, own.join(" ")));
    }
    assert_eq!(
        told,
        [
            "deb a 1: usr/bin/a var/lib/dpkg/info/a:amd64.list",
            "deb tzdata 2024a: var/lib/dpkg/status.d/tz var/lib/dpkg/status.d/tz.md5sums usr/share/zone",
            // `usr/bin/a` is of the first that has it.
            "apk b 2: top usr/bin/b",
            "python demo 3.0: opt/lib/py/demo/__init__.py opt/lib/py/demo/a,b.py usr/local/bin/demo",
            "npm q 5: n/node_modules/@s/p/node_modules/q/package.json",
            "npm @s/p 4: n/node_modules/@s/p/package.json n/node_modules/@s/p/lib/a.js",
        ]
    );
    let skipped: Vec<String> = packages.skipped.iter().map(|one| format!("{}: {}", one.path, one.why)).collect();
    assert_eq!(
        skipped,
        [
            "opt/lib/py/broken.dist-info/RECORD: its folder has no name and version",
            "n/node_modules/bad/package.json: it is no JSON"
        ]
    );
}

/// Of what is overwritten it is told what is other: all, rights alone, or nothing.
#[test]
fn what_an_entry_changes_is_told() {
    let node = |mode: u32, uid: u32, content: &str| {
        let blob = Descriptor::of(DigestFunction::Sha256, content.as_bytes());
        let metadata = Metadata { mode, uid, ..Metadata::root_owned(mode) };
        What::Node(Node::file(blob, mode).with_metadata(metadata))
    };
    let link = |target: &str| What::Node(Node::symlink(target));
    for (lower, upper, expected) in [
        (node(0o644, 0, "x"), node(0o644, 0, "x"), "layer 1, nothing changed"),
        (node(0o644, 0, "x"), node(0o755, 0, "x"), "layer 1, rights and owners alone"),
        (node(0o644, 0, "x"), node(0o644, 7, "x"), "layer 1, rights and owners alone"),
        (node(0o644, 0, "x"), node(0o644, 0, "y"), "layer 1"),
        (link("x"), link("x"), "layer 1, nothing changed"),
        (link("x"), link("y"), "layer 1"),
        (link("x"), node(0o644, 0, "x"), "layer 1"),
    ] {
        let mut image = Image::new();
        for what in [lower, upper] {
            image.begin_layer();
            image.add(entry("a/b", what, 0, b"")).expect("it has a place");
            image.end_layer(LayerFacts { bytes: 2048, ..LayerFacts::default() });
        }
        let report = analyze(&image);
        let told: Vec<&str> = report.advice.iter().map(|advice| &*advice.subject).collect();
        assert_eq!(told, [expected]);
    }
    // A folder gives way to a file with the content of one that was in it.
    let report = analyze(&image("f a/b=1, -, f a=1").expect("it has a place"));
    assert_eq!(report.advice[0].subject, "layer 1");
}

/// Layers that `cas` made are made again by other words of `cas.toml`, those of others by a Dockerfile.
#[test]
fn advice_speaks_the_language_of_whoever_made_the_layers() {
    let kinds = "f app/.git/HEAD=ref, f app/.env=A=1, f root/.npm/_cacache/x=1, f usr/share/doc/a/b=1, f app/x=1";
    for (lower_is_own, upper_is_own, own, others) in
        [(true, true, true, false), (false, false, false, true), (false, true, true, false), (true, false, true, false)]
    {
        let mut image = Image::new();
        for (text, is_own) in [(kinds, lower_is_own), ("f app/x=2", upper_is_own)] {
            image.begin_layer();
            for entry in text.split(", ").map(parse) {
                image.add(entry).expect("it has a place");
            }
            let created_by = if is_own { "cas //app:build (root.2)".to_owned() } else { "COPY . .".to_owned() };
            image.end_layer(LayerFacts { created_by, is_own, ..LayerFacts::default() });
        }
        let report = analyze(&image);
        for advice in &report.advice {
            let kind = advice.kind;
            let (wants_own, wants_others) = match kind {
                AdviceKind::Overwritten => (own, others),
                _ => (lower_is_own, !lower_is_own),
            };
            let has_own = advice.change.contains("`exclude") && advice.change.contains("`layers`");
            let told = (has_own, advice.change.contains("`//app:build`"));
            let is_named = wants_own && (kind != AdviceKind::Overwritten || lower_is_own);
            assert_eq!(told, (wants_own, is_named), "{kind:?}: {}", advice.change);
            let words = [".dockerignore", "mount it while", "npm cache clean", "path-exclude", "write the file once"];
            let has_others = words.iter().any(|word| advice.change.contains(word));
            assert_eq!(has_others, wants_others, "{kind:?}: {}", advice.change);
        }
        assert_eq!(report.advice.len(), 5, "{:?}", report.advice);
        assert!(report.layers[0].version_control_bytes > 0);
    }
    // Both together.
    let mut image = Image::new();
    for is_own in [true, false] {
        image.begin_layer();
        image.add(file(&format!("srv/.git/{is_own}"), "1")).expect("it has a place");
        image.end_layer(LayerFacts { is_own, ..LayerFacts::default() });
    }
    let report = analyze(&image);
    let change = &report.advice[0].change;
    assert!(change.contains("`exclude = [\"**/.git\"]`") && change.contains(".dockerignore"), "{change}");
    assert_eq!((report.advice[0].kind, &*report.advice[0].subject), (AdviceKind::VersionControl, "srv/.git"));
}

#[test]
fn what_is_too_long_is_not_parsed_and_that_is_said() {
    let mut image = Image::new();
    image.begin_layer();
    let name = "var/lib/dpkg/status";
    let blob = Descriptor { size: MAX_PARSED_BYTES + 1, ..Descriptor::of(DigestFunction::Sha256, b"long") };
    assert_eq!(wanted(&path(name)).limit_bytes(), MAX_PARSED_BYTES);
    image.add(entry(name, What::Node(Node::file(blob, 0o644)), blob.size, b"")).expect("it has a place");
    image.end_layer(LayerFacts::default());
    let report = analyze(&image);
    assert_eq!((report.skipped.len(), report.skipped[0].why), (1, "it is longer than 64 MiB"));
}

#[test]
fn names_attributes_and_layers_have_limits() {
    let too_many = |limit, unit| Err(AddError::TooMany { limit, unit });
    let link = || {
        entry("a/b", What::Node(Node::Symlink { metadata: Metadata::default(), target: (*b"abc").into() }), 512, b"")
    };
    let attributes = BTreeMap::from([((*b"user.x").into(), (*b"1234").into())]);
    let root = || {
        let what = What::Root(Metadata { xattrs: attributes.clone(), ..Metadata::default() });
        Entry { path: None, ..entry("a", what, 512, b"") }
    };
    for (what, make, bytes) in [
        ("a name and a target", &link as &dyn Fn() -> Entry, 6),
        ("attributes", &root, 10),
        ("a whiteout", &|| entry("a/.wh.b", What::Whiteout(path("a/b")), 512, b""), 10),
    ] {
        for (used, expected) in [
            (MAX_TEXT_BYTES - bytes, Ok(())),
            (MAX_TEXT_BYTES - bytes + 1, too_many(MAX_TEXT_BYTES, "bytes of names and attributes")),
        ] {
            let mut image = Image::new();
            image.begin_layer();
            image.text_bytes = used;
            assert_eq!(image.add(make()), expected, "{what}");
        }
    }
    let mut image = Image::new();
    for _ in 0..MAX_LAYERS {
        image.begin_layer();
        image.add(link()).expect("it has a place");
        image.end_layer(LayerFacts::default());
    }
    image.begin_layer();
    assert_eq!(image.add(link()), too_many(MAX_LAYERS, "layers"));
}
