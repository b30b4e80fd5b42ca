//! What others say is in a tar, and what they leave on disk, as lines that can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::corpus::digest_of;

/// Prints what Go's judge prints: an object for each entry. Bytes that are not printable ASCII are `\xNN`.
const PYTHON: &str = r"
import sys, tarfile, json, hashlib
def escape(text):
    bytes = text.encode('utf-8', 'surrogateescape')
    return ''.join(chr(b) if 32 <= b <= 126 and b != 92 else '\\x%02x' % b for b in bytes)
with tarfile.open(sys.argv[1], 'r:', errorlevel=2) as tar:
    for m in tar:
        kind = ('reg' if m.isreg() else 'dir' if m.isdir() else 'symlink' if m.issym() else 'hardlink' if m.islnk()
            else 'char' if m.ischr() else 'block' if m.isblk() else 'fifo' if m.isfifo() else '?')
        sha = ''
        if kind == 'reg':
            hash, file = hashlib.sha256(), tar.extractfile(m)
            while part := file.read(1 << 20): hash.update(part)
            sha = hash.hexdigest()
        prefix = 'SCHILY.xattr.'
        print(json.dumps({'type': kind, 'name': escape(m.name), 'link': escape(m.linkname) if kind in ('symlink', 'hardlink') else '',
            'mode': m.mode & 0o7777, 'uid': m.uid, 'gid': m.gid, 'size': m.size if kind == 'reg' else 0,
            'device': '%d,%d' % (m.devmajor, m.devminor) if kind in ('char', 'block') else '', 'sha256': sha,
            'xattrs': {escape(k[len(prefix):]): escape(v) for k, v in m.pax_headers.items() if k.startswith(prefix)}}))
";

/// Bytes as text that loses none of them.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\x5c"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// Names as all programs have them: Python has no slash behind those of folders.
fn normal(mut line: Value) -> Value {
    let name = line["name"].as_str().unwrap();
    let name = name.strip_prefix("./").unwrap_or(name).trim_end_matches('/');
    line["name"] = json!(if name.is_empty() { "." } else { name });
    line
}

fn objects(command: &mut Command) -> Result<Vec<Value>, String> {
    let text = output(command)?;
    text.lines()
        .map(|line| serde_json::from_str(line).map(normal).map_err(|error| format!("{error}: {line}")))
        .collect()
}

/// What a program prints, or what it says when it fails.
pub(super) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // podman tells of each kind of archive that it is none.
    let lines = lines.into_iter().filter(|line| !line.contains("not a directory")).collect::<Vec<_>>().join("; ");
    Err(if lines.is_empty() { "it failed".to_owned() } else { lines.chars().take(600).collect() })
}

pub(super) fn by_python(tar: &Path) -> Result<Vec<Value>, String> {
    objects(Command::new("python3").args(["-c", PYTHON]).arg(tar).env("PYTHONUTF8", "1"))
}

pub(super) fn by_go(judge: &Path, tar: &Path) -> Result<Vec<Value>, String> {
    objects(Command::new(judge).arg("tar").arg(tar))
}

/// GNU tar's listing, which has no digests and no attributes.
pub(super) fn by_tar(tar: &Path) -> Result<Vec<Value>, String> {
    let mut command = Command::new("tar");
    command.args(["--numeric-owner", "--quoting-style=c", "-tvf"]).arg(tar).env("LC_ALL", "C");
    output(&mut command)?.lines().map(|line| gnu_line(line).map(normal).ok_or_else(|| line.to_owned())).collect()
}

/// `-rw-r--r-- 0/0  5 2024-01-01 00:00 "name" -> "target"`.
fn gnu_line(line: &str) -> Option<Value> {
    let (front, names) = line.split_at(line.find('"')?);
    let mut words = front.split_whitespace();
    let (mode, owner, size) = (words.next()?, words.next()?, words.next()?);
    let (uid, gid) = owner.split_once('/')?;
    let (name, rest) = unquoted(names)?;
    let link = rest.strip_prefix(" -> ").or_else(|| rest.strip_prefix(" link to "));
    let link = link.map_or(Some(Vec::new()), |link| Some(unquoted(link)?.0))?;
    let kind = match mode.as_bytes()[0] {
        b'-' => "reg",
        b'd' => "dir",
        b'l' => "symlink",
        b'h' => "hardlink",
        b'c' => "char",
        b'b' => "block",
        b'p' => "fifo",
        _ => return None,
    };
    let mut bits = 0;
    for (index, letter) in mode.bytes().skip(1).enumerate() {
        // The execute bits of owner, group and others carry one more each.
        let extra = if index % 3 == 2 { 0o4000 >> (index / 3) } else { 0 };
        bits |= match letter {
            b'-' => 0,
            b's' | b't' => extra | 0o400 >> index,
            b'S' | b'T' => extra,
            _ => 0o400 >> index,
        };
    }
    let is_device = ["char", "block"].contains(&kind);
    Some(json!({
        "type": kind, "name": escape(&name), "link": escape(&link), "mode": bits,
        "uid": uid.parse::<u64>().ok()?, "gid": gid.parse::<u64>().ok()?,
        "size": if kind == "reg" { size.parse::<u64>().ok()? } else { 0 },
        "device": if is_device { size } else { "" },
    }))
}

/// A text in quotes with C's escapes at the beginning, and what follows.
fn unquoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    let inner = text.strip_prefix('"')?.as_bytes();
    let mut at = 0;
    loop {
        match *inner.get(at)? {
            b'"' => return Some((bytes, std::str::from_utf8(&inner[at + 1..]).ok()?)),
            b'\\' => {
                at += 1;
                let letter = *inner.get(at)?;
                if letter.is_ascii_digit() {
                    let digits = std::str::from_utf8(inner.get(at..at + 3)?).ok()?;
                    bytes.push(u8::from_str_radix(digits, 8).ok()?);
                    at += 2;
                } else {
                    let at = b"abfnrtv".iter().position(|known| *known == letter);
                    bytes.push(at.map_or(letter, |at| b"\x07\x08\x0c\n\r\t\x0b"[at]));
                }
            }
            byte => bytes.push(byte),
        }
        at += 1;
    }
}

/// What both of two listings tell must be the same, entry by entry.
pub(super) fn agree(names: (&str, &str), one: &[Value], other: &[Value]) -> Result<(), String> {
    for (left, right) in one.iter().zip(other) {
        for (key, value) in left.as_object().unwrap() {
            if right.get(key).is_some_and(|told| told != value) {
                return Err(format!("{}: {}, {}: {}", names.0, left, names.1, right));
            }
        }
    }
    if one.len() == other.len() {
        Ok(())
    } else {
        Err(format!("{} has {} entries, {} has {}", names.0, one.len(), names.1, other.len()))
    }
}

/// What lies below a folder, a line for each path but those of `without`.
pub(super) fn of_folder(root: &Path, without: &[&str]) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut names: BTreeMap<(u64, u64), String> = BTreeMap::new();
    let mut pending: Vec<PathBuf> = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            lines.insert(
                escape(folder.strip_prefix(root).unwrap().as_os_str().as_bytes()) + "/",
                "a folder that may not be read".to_owned(),
            );
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let name = escape(path.strip_prefix(root).unwrap().as_os_str().as_bytes());
            if without.contains(&name.as_str()) {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            let content = if kind.is_file() && fs::File::open(&path).is_err() {
                // As its mode says, to whoever is not root.
                format!("file {} that may not be read", metadata.len())
            } else if kind.is_file() {
                let (digest, length) = digest_of(&path);
                format!("file {length} {}", digest.to_hex())
            } else if kind.is_symlink() {
                format!("link {}", escape(fs::read_link(&path).unwrap().as_os_str().as_bytes()))
            } else if kind.is_char_device() || kind.is_block_device() {
                format!("device {} {}", kind.is_block_device(), metadata.rdev())
            } else {
                format!("{kind:?}")
            };
            let first = names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone()).clone();
            if kind.is_dir() {
                pending.push(path.clone());
            }
            let owner = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
            let attributes = if kind.is_symlink() { Vec::new() } else { attributes(&path) };
            lines.insert(name, format!("{content} {:o} {}:{} is {first} {attributes:?}", owner.0, owner.1, owner.2));
        }
    }
    // A file's first name depends on the order of looking, which is the same for equal trees.
    lines
}

fn attributes(path: &Path) -> Vec<(String, String)> {
    let mut buffer = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::llistxattr(path, &mut buffer[..]) else { return Vec::new() };
    let mut found = Vec::new();
    for name in buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
        found.push((escape(name), escape(&value[..length])));
    }
    found.sort();
    found
}

/// The first line that two trees differ in.
pub(super) fn same(expected: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Result<(), String> {
    for (path, line) in expected {
        if found.get(path) != Some(line) {
            return Err(format!("{path}: expected {line}, found {:?}", found.get(path)));
        }
    }
    match found.keys().find(|path| !expected.contains_key(*path)) {
        Some(path) => Err(format!("{path} is new: {}", found[path])),
        None => Ok(()),
    }
}

#[test]
fn lines_of_gnu_tar_are_read() {
    for (line, expected) in [
        (
            r#"-rwsr-x--T 0/1000         5 2024-01-01 00:00 "a \"b\"\\\303\244\n""#,
            r#"{"device":"","gid":1000,"link":"","mode":3048,"name":"a \"b\"\\x5c\\xc3\\xa4\\x0a","size":5,"type":"reg","uid":0}"#,
        ),
        (
            r#"crw-rw-rw- 0/0       1,3 2024-01-01 00:00 "./dev/null""#,
            r#"{"device":"1,3","gid":0,"link":"","mode":438,"name":"dev/null","size":0,"type":"char","uid":0}"#,
        ),
        (
            r#"hrw-r--r-- 0/0         0 2024-01-01 00:00 "x" link to "y z""#,
            r#"{"device":"","gid":0,"link":"y z","mode":420,"name":"x","size":0,"type":"hardlink","uid":0}"#,
        ),
    ] {
        assert_eq!(gnu_line(line).map(normal).unwrap().to_string(), expected);
    }
}
