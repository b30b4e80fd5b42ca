//! Which ids of the host stand behind those of a sandbox.
//!
//! With one id everything is the invoking user's. Many ids are 0 to 65535: for root those of the host, else the invoking
//! user as 0 and a range of subordinate ids (subuid(5)) for the others, which `newuidmap` and `newgidmap` put in place.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::host::{HostCannot, ManyIdsObstacle};
use crate::spec::{Spec, Users};

/// How many ids there are where there are many: all that are 16 bits wide, 65534 among them.
pub(crate) const MANY: u32 = 1 << 16;
/// Programs that may map subordinate ids, in the order of user and group.
const TOOLS: [&str; 2] = ["newuidmap", "newgidmap"];
/// Where they are looked for: not in a `PATH` that somebody sets.
const TOOL_FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];
/// Longest list of users or ranges that is read.
const MAX_LIST_BYTES: u64 = 16 << 20;

/// A row of a map: the first id in the sandbox, the first one of the host, how many.
pub(crate) type Row = [u32; 3];

/// The maps of a sandbox, and who writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IdMaps {
    /// One id each, which a process may map by itself.
    Own { uid: u32, gid: u32 },
    /// Ids of the host, written by root.
    Root,
    /// Subordinate ids, written by the two programs.
    Subordinate { uids: Vec<Row>, gids: Vec<Row>, tools: [PathBuf; 2] },
}

impl IdMaps {
    pub(crate) fn of(spec: &Spec) -> Result<Self, HostCannot> {
        match spec.users {
            Users::One => Ok(Self::Own { uid: spec.uid, gid: spec.gid }),
            Users::Many => Self::many(),
        }
    }

    /// The maps of many ids for the invoking user.
    pub(crate) fn many() -> Result<Self, HostCannot> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if uid.is_root() {
            return Ok(Self::Root);
        }
        let cannot = |obstacle| HostCannot::ManyIds { obstacle };
        let find =
            |tool: &str| TOOL_FOLDERS.iter().map(|folder| Path::new(folder).join(tool)).find(|path| path.exists());
        let (Some(for_users), Some(for_groups)) = (find(TOOLS[0]), find(TOOLS[1])) else {
            return Err(cannot(ManyIdsObstacle::NoTools));
        };
        let read = |path: &str| {
            let bytes = cas_fs::read_limited(Path::new(path), MAX_LIST_BYTES).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let user = user_name(&read("/etc/passwd"), uid.as_raw()).unwrap_or_else(|| uid.as_raw().to_string());
        let rows = |file: &'static str, own: u32| {
            let first = subordinate(&read(file), &user, uid.as_raw());
            let first = first.ok_or_else(|| cannot(ManyIdsObstacle::NoRange { file, user: user.clone() }))?;
            Ok(vec![[0, own, 1], [1, first, MANY - 1]])
        };
        let (uids, gids) = (rows("/etc/subuid", uid.as_raw())?, rows("/etc/subgid", gid.as_raw())?);
        Ok(Self::Subordinate { uids, gids, tools: [for_users, for_groups] })
    }
}

/// The name of a user in `/etc/passwd`.
fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let rows = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    rows.into_iter()
        .find(|fields| fields.get(2).and_then(|field| field.parse().ok()) == Some(uid))
        .map(|fields| fields[0].to_owned())
}

/// The first id of the first range that is long enough. Rows are `user:first:count`, with a name or a number (subuid(5)).
fn subordinate(list: &str, user: &str, uid: u32) -> Option<u32> {
    list.lines().find_map(|line| {
        let [owner, first, count] = line.trim().split(':').collect::<Vec<_>>()[..] else { return None };
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        let is_ours = owner == user || owner.parse() == Ok(uid);
        (is_ours && count >= MANY - 1 && first.checked_add(MANY - 1).is_some()).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_and_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(passwd, 1001), None);
        for (list, expected) in [
            ("ann:100000:65536", Some(100_000)),
            ("bob:1:65536\n1000:200000:65535\n", Some(200_000)),
            ("ann:100000:1000\nann:300000:70000", Some(300_000)),
            ("ann:100000:65534", None),
            ("ann:4294967000:65536", None),
            ("ann:x:65536\nann:1\nann:1:2:3\n\n# ann:1:65536", None),
            ("", None),
        ] {
            assert_eq!(subordinate(list, "ann", 1000), expected, "{list}");
        }
    }
}
