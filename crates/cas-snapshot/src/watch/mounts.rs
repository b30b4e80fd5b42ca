//! What is mounted inside a workspace: no watch tells of a mount, so there is no acceleration where there is one.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most that is read of the table of mounts.
const MAX_TABLE_BYTES: u64 = 16 << 20;

/// Whether something is mounted below a folder. It is taken to be so when it cannot be told.
pub(crate) fn any_below(folder: &Path) -> bool {
    let table = cas_fs::read_limited(Path::new("/proc/self/mountinfo"), MAX_TABLE_BYTES);
    table.map_or(true, |table| is_any_below(&table, folder.as_os_str().as_bytes()))
}

fn is_any_below(table: &[u8], folder: &[u8]) -> bool {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).any(|line| {
        // proc_pid_mountinfo(5): the fifth field is the mount point, with spaces and the like as octal numbers.
        match line.split(|byte| *byte == b' ').nth(4).and_then(unescape) {
            Some(point) => point.strip_prefix(folder).is_some_and(|rest| rest.len() > 1 && rest[0] == b'/'),
            None => true,
        }
    })
}

fn unescape(field: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'\\' {
            let digits = std::str::from_utf8(after.get(..3)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 8).ok()?);
            rest = &after[3..];
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_are_found_by_whole_names() {
        let table = b"22 1 0:5 / / rw - ext4 /dev/a rw\n23 22 0:6 / /home/a\\040b/w rw shared:1 - tmpfs x rw\n";
        for (folder, expected) in [
            ("/", true),
            ("/home/a b", true),
            ("/home/a b/w", false),
            ("/home/a", false),
            ("/home/a b/w/x", false),
            ("/home", true),
            ("/srv", false),
        ] {
            assert_eq!(is_any_below(table, folder.as_bytes()), expected, "{folder}");
        }
        assert!(is_any_below(b"not a table\n", b"/srv"));
    }
}
