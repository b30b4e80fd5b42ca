//! Hard trees as tars: what writers of layers do that readers have to take, written here byte by byte.
//!
//! Nothing of `cas` writes these. Each image is one or several layers; large ones are streamed to their file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use cas_digest::{Digest, DigestFunction, HashingReader};

const BLOCK: usize = 512;
/// GNU tar writes blocks of this length.
const RECORD: usize = 10240;

/// How big the big ones are.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) small_files: u32,
    pub(super) large_file: u64,
}

impl Sizes {
    /// Those of every day, or of `CAS_LARGE=1`.
    pub(super) fn of_environment() -> Self {
        match super::is_large() {
            true => Self { small_files: 100_000, large_file: 4 << 30 },
            false => Self { small_files: 20_000, large_file: 64 << 20 },
        }
    }
}

/// An image of the corpus: its layers as files, lowest first.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) layers: Vec<PathBuf>,
}

/// How what does not fit a header is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Gnu,
    Pax,
}

/// A header before it is bytes.
struct Entry<'a> {
    kind: u8,
    name: &'a [u8],
    link: &'a [u8],
    mode: u32,
    owner: (u64, u64),
    device: (u32, u32),
    records: Vec<(&'a str, Vec<u8>)>,
}

fn entry(kind: u8, name: &[u8]) -> Entry<'_> {
    let mode = match kind {
        b'5' => 0o755,
        b'2' => 0o777,
        _ => 0o644,
    };
    Entry { kind, name, link: b"", mode, owner: (0, 0), device: (0, 0), records: Vec::new() }
}

/// Writes a tar.
struct Tar {
    out: BufWriter<File>,
    style: Style,
    length: usize,
}

impl Tar {
    fn new(path: &Path, style: Style) -> Self {
        Self { out: BufWriter::with_capacity(1 << 20, File::create(path).unwrap()), style, length: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.out.write_all(bytes).unwrap();
        self.length += bytes.len();
    }

    fn pad(&mut self) {
        let missing = self.length.next_multiple_of(BLOCK) - self.length;
        self.write(&vec![0; missing]);
    }

    /// An octal field, or base 256 where that does not fit.
    fn number(value: u64, width: usize) -> Vec<u8> {
        let text = format!("{value:0width$o}\0", width = width - 1);
        if text.len() == width {
            return text.into_bytes();
        }
        let mut bytes = vec![0; width];
        bytes[width - 8..].copy_from_slice(&value.to_be_bytes());
        bytes[0] = 0x80;
        bytes
    }

    /// One block; names are cut to what fits.
    fn header(&mut self, entry: &Entry<'_>, size: u64, extra: &[(usize, Vec<u8>)]) {
        let mut block = [0_u8; BLOCK];
        let mut set = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        let id = |value: u64| Self::number(if self.style == Style::Pax { value.min(0o7_777_777) } else { value }, 8);
        set(0, &entry.name[..entry.name.len().min(100)]);
        set(100, &Self::number(u64::from(entry.mode), 8));
        set(108, &id(entry.owner.0));
        set(116, &id(entry.owner.1));
        set(124, &Self::number(size, 12));
        set(136, b"14000000000\0");
        set(148, b"        ");
        set(156, &[entry.kind]);
        set(157, &entry.link[..entry.link.len().min(100)]);
        set(257, if self.style == Style::Pax { b"ustar\x0000" } else { b"ustar  \0" });
        set(265, b"root\0");
        set(329, &Self::number(u64::from(entry.device.0), 8));
        set(337, &Self::number(u64::from(entry.device.1), 8));
        for (at, bytes) in extra {
            set(*at, bytes);
        }
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.write(&block);
    }

    /// A header with content that belongs to the next one.
    fn side(&mut self, kind: u8, name: &[u8], content: &[u8]) {
        self.header(&entry(kind, name), content.len() as u64, &[]);
        self.write(content);
        self.pad();
    }

    /// What comes before a header, and the header.
    fn head(&mut self, entry: &Entry<'_>, size: u64, extra: &[(usize, Vec<u8>)]) {
        let mut records = entry.records.clone();
        if self.style == Style::Gnu {
            for (kind, text) in [(b'K', entry.link), (b'L', entry.name)] {
                if text.len() > 100 {
                    self.side(kind, b"././@LongLink", &[text, b"\0"].concat());
                }
            }
        } else {
            let long = |text: &[u8]| text.len() > 100;
            records.extend(long(entry.name).then(|| ("path", entry.name.to_vec())));
            records.extend(long(entry.link).then(|| ("linkpath", entry.link.to_vec())));
            for (key, value) in [("uid", entry.owner.0), ("gid", entry.owner.1)] {
                records.extend((value > 0o7_777_777).then(|| (key, value.to_string().into_bytes())));
            }
        }
        if !records.is_empty() {
            let mut text = Vec::new();
            for (key, value) in &records {
                let rest = key.len() + value.len() + 3;
                let mut length = rest + rest.to_string().len();
                length = rest + length.to_string().len();
                text.extend_from_slice(format!("{length} {key}=").as_bytes());
                text.extend_from_slice(value);
                text.push(b'\n');
            }
            self.side(b'x', b"PaxHeaders/x", &text);
        }
        self.header(entry, size, extra);
    }

    fn put(&mut self, entry: &Entry<'_>, content: &[u8]) {
        self.head(entry, content.len() as u64, &[]);
        self.write(content);
        self.pad();
    }

    fn file(&mut self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
        self.put(&entry(b'0', name.as_ref()), content.as_ref());
    }

    fn folder(&mut self, name: impl AsRef<[u8]>) {
        self.put(&entry(b'5', name.as_ref()), b"");
    }

    fn link(&mut self, kind: u8, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) {
        self.put(&Entry { link: target.as_ref(), ..entry(kind, name.as_ref()) }, b"");
    }

    /// Two blocks of zeros, or zeros up to a whole record.
    fn end(mut self, padded: bool) {
        let end = self.length + 2 * BLOCK;
        let end = if padded { end.next_multiple_of(RECORD) } else { end };
        self.write(&vec![0; end - self.length]);
        self.out.flush().unwrap();
    }
}

fn names(path: &Path, style: Style) {
    let mut tar = Tar::new(path, style);
    for name in [
        "a b",
        " leading",
        "trailing ",
        "-dash",
        "--option=x",
        "quote'\"quote",
        "back\\slash",
        "line\nbreak",
        "tab\there",
        "colon:",
        "star*?[x]",
        "$HOME",
        "#hash",
        "%s",
        "~",
        "...",
        "ä",
        "日本語",
        "e\u{301}",
        "\u{1b}[31m",
        "emoji 🦀",
    ] {
        tar.file(name, name);
    }
    let parts = |length: usize| format!("{}/{}", "p".repeat(length / 2), "n".repeat(length - length / 2 - 1));
    for length in [99, 100, 101, 155, 255, 256, 257, 400] {
        tar.file(parts(length), length.to_string());
    }
    tar.file("x".repeat(255), "as long as a name can be");
    tar.file(format!("{}deep", "d/".repeat(100)), "deep");
    tar.folder(format!("{}/", "folder-".repeat(20)));
    tar.end(style == Style::Gnu);
}

/// Bytes that are no text; POSIX has no place for them, and file systems have.
fn bytes(path: &Path) {
    let mut tar = Tar::new(path, Style::Gnu);
    tar.folder(b"latin-\xe4/");
    tar.file(b"latin-\xe4/\xff\xfe", "1");
    tar.file(b"cut-\xe2\x82", "2");
    tar.file([b"long-\xe4-".repeat(20), b"end".to_vec()].concat(), "3");
    tar.link(b'2', b"to-\xe4", b"latin-\xe4/\xff\xfe");
    tar.link(b'1', b"again-\xe4", b"latin-\xe4/\xff\xfe");
    tar.end(true);
}

fn attributes(path: &Path) {
    let mut tar = Tar::new(path, Style::Pax);
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
    for (name, key, value) in [
        ("capable", "SCHILY.xattr.security.capability", capability),
        ("text", "SCHILY.xattr.user.text", b"a=b\nc = d".to_vec()),
        ("bytes", "SCHILY.xattr.user.bytes", (0..=255).collect()),
        ("empty", "SCHILY.xattr.user.empty", Vec::new()),
        ("long", "SCHILY.xattr.user.long", vec![b'v'; 3000]),
    ] {
        tar.put(&Entry { records: vec![(key, value)], ..entry(b'0', name.as_bytes()) }, name.as_bytes());
    }
    let several = vec![
        ("SCHILY.xattr.user.z", b"3".to_vec()),
        ("SCHILY.xattr.user.a", b"1".to_vec()),
        ("SCHILY.xattr.user.B", b"2".to_vec()),
    ];
    tar.put(&Entry { records: several, ..entry(b'5', b"folder/") }, b"");
    for (name, owner) in [("known", (1000, 100)), ("large", (2_097_151, 2_097_152)), ("huge", (4_294_967_294, 1 << 31))]
    {
        tar.put(&Entry { owner, mode: 0o600, ..entry(b'0', name.as_bytes()) }, b"owned");
    }
    for mode in [0, 0o1, 0o777, 0o4755, 0o2755, 0o1777, 0o7777] {
        tar.put(&Entry { mode, ..entry(b'0', format!("mode-{mode:o}").as_bytes()) }, b"mode");
        tar.put(&Entry { mode, ..entry(b'5', format!("folder-{mode:o}/").as_bytes()) }, b"");
    }
    tar.end(true);
}

fn links(path: &Path, style: Style) {
    let mut tar = Tar::new(path, style);
    let long = "long-".repeat(40);
    tar.file("z/first", "linked");
    tar.link(b'1', "a", "z/first");
    tar.link(b'1', "z/second", "a");
    tar.link(b'1', &long, "z/second");
    tar.file(format!("{long}2"), "long");
    tar.link(b'1', "to-long", format!("{long}2"));
    tar.file("empty", "");
    tar.link(b'1', "empty-again", "empty");
    for (name, target) in [
        ("relative", "z/first"),
        ("absolute", "/z/first"),
        ("dangling", "nowhere"),
        ("up", "../../../z"),
        ("self", "self"),
        ("space", "a b\nc"),
        ("long-target", &*format!("{long}/{long}")),
    ] {
        tar.link(b'2', name, target);
    }
    tar.end(style == Style::Gnu);
}

/// Parts of a sparse file, each with its content, and the length of the whole. GNU tar takes whole blocks alone.
fn sparse_parts(count: u64) -> (Vec<(u64, Vec<u8>)>, u64) {
    let content = |part: u64| format!("part {part}").repeat(200).into_bytes()[..2 * BLOCK].to_vec();
    ((0..count).map(|part| (part * 100_000, content(part))).collect(), count * 100_000 + 5000)
}

fn sparse(path: &Path) {
    let mut tar = Tar::new(path, Style::Gnu);
    // Four parts are in the header; of the others, each further block has 21.
    for (name, count) in [("old-few", 2), ("old-many", 30), ("old-hole", 0)] {
        let (parts, size) = sparse_parts(count);
        let mut map: Vec<(u64, u64)> = parts.iter().map(|(at, content)| (*at, content.len() as u64)).collect();
        map.push((size, 0));
        let field = |(at, length): &(u64, u64)| [Tar::number(*at, 12), Tar::number(*length, 12)].concat();
        let (first, rest) = map.split_at(map.len().min(4));
        let more = u8::from(!rest.is_empty());
        let extra = [(386, first.iter().flat_map(field).collect()), (482, vec![more]), (483, Tar::number(size, 12))];
        let stored: Vec<u8> = parts.into_iter().flat_map(|(_, content)| content).collect();
        tar.head(&entry(b'S', name.as_bytes()), stored.len() as u64, &extra);
        for (index, chunk) in rest.chunks(21).enumerate() {
            let mut block: Vec<u8> = chunk.iter().flat_map(field).collect();
            block.resize(504, 0);
            block.push(u8::from((index + 1) * 21 < rest.len()));
            block.resize(BLOCK, 0);
            tar.write(&block);
        }
        tar.write(&stored);
        tar.pad();
    }
    tar.style = Style::Pax;
    for (name, count) in [("one-few", 2), ("one-many", 60), ("one-hole", 0)] {
        let (parts, size) = sparse_parts(count);
        let mut text = format!("{}\n", parts.len() + 1);
        for (at, content) in &parts {
            text.push_str(&format!("{at}\n{}\n", content.len()));
        }
        text.push_str(&format!("{size}\n0\n"));
        let mut content = text.into_bytes();
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        content.extend(parts.into_iter().flat_map(|(_, content)| content));
        let records = vec![
            ("GNU.sparse.major", b"1".to_vec()),
            ("GNU.sparse.minor", b"0".to_vec()),
            ("GNU.sparse.name", name.as_bytes().to_vec()),
            ("GNU.sparse.realsize", size.to_string().into_bytes()),
        ];
        tar.put(&Entry { records, ..entry(b'0', format!("GNUSparseFile.0/{name}").as_bytes()) }, &content);
    }
    tar.end(true);
}

fn special(path: &Path) {
    let mut tar = Tar::new(path, Style::Pax);
    tar.folder("./");
    tar.folder("./dev/");
    for (name, kind, device) in [
        ("./dev/null", b'3', (1, 3)),
        ("./dev/large", b'3', (259, 65_536)),
        ("./dev/loop0", b'4', (7, 0)),
        ("./dev/fifo", b'6', (0, 0)),
    ] {
        tar.put(&Entry { device, mode: 0o666, ..entry(kind, name.as_bytes()) }, b"");
    }
    tar.link(b'1', "./dev/fifo-again", "./dev/fifo");
    tar.file("./plain", "plain");
    tar.end(true);
}

/// Folders behind what they hold, folders without an entry, and folders with several.
fn order(path: &Path) {
    let mut tar = Tar::new(path, Style::Pax);
    tar.file("late/inner/file", "1");
    tar.put(&Entry { mode: 0o700, ..entry(b'5', b"late/inner/") }, b"");
    tar.put(&Entry { mode: 0o711, ..entry(b'5', b"late/") }, b"");
    tar.put(&Entry { mode: 0o700, ..entry(b'5', b"twice/") }, b"");
    tar.file("twice/file", "2");
    tar.put(&Entry { mode: 0o750, ..entry(b'5', b"twice/") }, b"");
    tar.file("none/at/all", "3");
    tar.folder("dir/");
    tar.folder("dir.d/");
    tar.file("dir/file", "4");
    tar.file("dir-x", "5");
    tar.end(true);
}

fn many(path: &Path, count: u32) {
    let mut tar = Tar::new(path, Style::Gnu);
    for number in 0..count {
        let size = number.wrapping_mul(2_654_435_761) % 700;
        let content: String = format!("{number} ").repeat(100).chars().take(size as usize).collect();
        tar.file(format!("packages/{:03}/{:02}/file-{number}", number / 1000, number % 50), content);
    }
    tar.end(true);
}

/// One file of blocks that are noise, repeat or are zeros, by turns.
fn large(path: &Path, size: u64) {
    let mut tar = Tar::new(path, Style::Gnu);
    tar.file("before", "before");
    tar.head(&entry(b'0', b"large"), size, &[]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = vec![0; 1 << 20];
    for turn in 0..size >> 20 {
        match turn % 4 {
            0 => {
                for word in noise.chunks_exact_mut(8) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    word.copy_from_slice(&state.to_le_bytes());
                }
            }
            1 => {}
            2 => noise.fill(0),
            _ => noise.fill(b'a' + u8::try_from(turn % 26).unwrap()),
        }
        tar.write(&noise);
    }
    tar.file("behind", "behind");
    tar.end(true);
}

/// Three layers that remove, replace and hide.
fn whiteouts(paths: &[PathBuf]) {
    let mut tar = Tar::new(&paths[0], Style::Pax);
    for name in ["kept/a", "gone/a", "hidden/a", "hidden/b/c", "replaced/a", "file"] {
        tar.file(name, "lowest");
    }
    tar.link(b'2', "link", "kept");
    tar.end(false);
    let mut tar = Tar::new(&paths[1], Style::Gnu);
    tar.file(".wh.gone", "");
    tar.folder("hidden/");
    tar.file("hidden/.wh..wh..opq", "");
    tar.file("hidden/d", "middle");
    tar.file("replaced", "a file now");
    tar.end(true);
    let mut tar = Tar::new(&paths[2], Style::Pax);
    tar.file("gone", "there again");
    tar.link(b'2', "file", "gone");
    tar.file("link/through", "by the link");
    tar.end(true);
}

/// A static shell with what it needs to say that it runs.
fn program(path: &Path, busybox: &Path) {
    let mut tar = Tar::new(path, Style::Gnu);
    for folder in ["bin/", "srv/", "proc/", "sys/", "dev/", "tmp/", "etc/", "run/"] {
        tar.folder(folder);
    }
    tar.put(&Entry { mode: 0o755, ..entry(b'0', b"bin/busybox") }, &std::fs::read(busybox).unwrap());
    tar.link(b'2', "bin/sh", "busybox");
    // containers/storage gives the file the rights of the last name.
    tar.put(&Entry { link: b"bin/busybox", mode: 0o755, ..entry(b'1', b"bin/cat") }, b"");
    tar.file("srv/told", "it runs\n");
    tar.end(true);
}

/// Writes all images of the corpus into a folder.
pub(super) fn write(folder: &Path, sizes: Sizes) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut add = |name: &'static str, count: usize, make: &dyn Fn(&[PathBuf])| {
        let layers: Vec<PathBuf> = (0..count).map(|index| folder.join(format!("{name}-{index}.tar"))).collect();
        make(&layers);
        samples.push(Sample { name, layers });
    };
    add("names-gnu", 1, &|paths| names(&paths[0], Style::Gnu));
    add("names-pax", 1, &|paths| names(&paths[0], Style::Pax));
    add("bytes", 1, &|paths| bytes(&paths[0]));
    add("attributes", 1, &|paths| attributes(&paths[0]));
    add("links-gnu", 1, &|paths| links(&paths[0], Style::Gnu));
    add("links-pax", 1, &|paths| links(&paths[0], Style::Pax));
    add("sparse", 1, &|paths| sparse(&paths[0]));
    add("special", 1, &|paths| special(&paths[0]));
    add("order", 1, &|paths| order(&paths[0]));
    add("empty", 2, &|paths| {
        Tar::new(&paths[0], Style::Pax).end(false);
        Tar::new(&paths[1], Style::Gnu).end(true);
    });
    add("whiteouts", 3, &whiteouts);
    add("many", 1, &|paths| many(&paths[0], sizes.small_files));
    add("large", 1, &|paths| large(&paths[0], sizes.large_file));
    if let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists()) {
        add("program", 1, &|paths| program(&paths[0], busybox));
    }
    samples
}

/// The digest and length of a file.
pub(super) fn digest_of(path: &Path) -> (Digest, u64) {
    let mut file = HashingReader::new(File::open(path).unwrap(), &[DigestFunction::Sha256]);
    std::io::copy(&mut file, &mut std::io::sink()).unwrap();
    let (digests, length) = file.finish();
    (digests[0], length)
}
