//! What package managers read and write.

use std::convert::Infallible;
use std::io::Read;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use cas_tree::{Metadata, Node, RelPath};

use crate::{KEYRING_ROUNDS, fuzz, fuzz_rounds, path, text, toolchain, tree};

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
