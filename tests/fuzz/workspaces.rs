//! What is known of the files of a workspace.

use cas_blob::Descriptor;
use cas_digest::DigestFunction;

use crate::fuzz;

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
