//! Users and groups by name, as the files of an image know them (passwd(5), group(5)), and whose the files of a layer are.
//!
//! Not here: what owners may be called (`cas-config`).

use cas_config::{Owner, Principal, Rights};
use cas_store::Store;
use cas_tree::{Directory, Metadata, Node, RelPath};

use crate::BuildError;

/// Longest `/etc/passwd` or `/etc/group` that is read.
const MAX_BYTES: u64 = 1 << 20;

/// What the files of an image know.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
}

/// A name that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// `user` or `group`.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
}

impl Accounts {
    /// Those that a tree has; none where it has no such file.
    pub(crate) fn of(store: &Store, tree: &Directory) -> Result<Self, BuildError> {
        let read = |path: &str| -> Result<String, BuildError> {
            let path = RelPath::new(path).expect("it is a path");
            Ok(match tree.get_file(&path) {
                Some((_, blob)) => String::from_utf8_lossy(&store.load(&blob, MAX_BYTES)?).into_owned(),
                None => String::new(),
            })
        };
        Ok(Self { passwd: read("etc/passwd")?, group: read("etc/group")? })
    }

    /// A user by name or number, as far as there is a line for it.
    pub(crate) fn user(&self, wanted: &str) -> Option<Account> {
        // Lines that make no sense name nobody.
        let account = |fields: &[&str]| {
            let (uid, gid) = (id(fields.get(2)?)?, id(fields.get(3)?)?);
            Some(Account { uid, gid, home: (*fields.get(5)?).to_owned() })
        };
        let number = wanted.parse::<u32>().ok();
        let mut rows = self.passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        rows.find_map(|fields| {
            account(&fields).filter(|account| fields[0] == wanted || number.is_some_and(|number| account.uid == number))
        })
    }

    /// The number of a group.
    pub(crate) fn group(&self, wanted: &str) -> Option<u32> {
        let mut rows = self.group.lines().map(|line| line.split(':').collect::<Vec<_>>());
        rows.find_map(|fields| id(fields.get(2)?).filter(|_| fields[0] == wanted))
    }

    /// The numbers of an owner. As with `COPY --chown`, a number without a group has the group of that number, and a name its own.
    pub(crate) fn numbers(&self, owner: &Owner) -> Result<(u32, u32), Unknown> {
        let unknown = |kind, name: &str| Unknown { kind, name: name.to_owned() };
        let (uid, own) = match &owner.user {
            Principal::Number(number) => (*number, *number),
            Principal::Name(name) => {
                let account = self.user(name).ok_or_else(|| unknown("user", name))?;
                (account.uid, account.gid)
            }
        };
        let gid = match &owner.group {
            None => own,
            Some(Principal::Number(number)) => *number,
            Some(Principal::Name(name)) => self.group(name).ok_or_else(|| unknown("group", name))?,
        };
        Ok((uid, gid))
    }
}

/// A number of a user or group; the largest one means none to the system.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// Whether an owner says a name, which files have to know.
pub(crate) fn has_names(owner: &Owner) -> bool {
    let is_name = |principal: &Principal| matches!(principal, Principal::Name(_));
    is_name(&owner.user) || owner.group.as_ref().is_some_and(is_name)
}

/// Gives what a layer puts at `top` its rights and its owner. Folders on the way there are nobody's part.
pub(crate) fn give(tree: &mut Directory, top: Option<&RelPath>, rights: &Rights, owner: Option<(u32, u32)>) {
    if *rights == Rights::default() {
        return;
    }
    tree.change_metadata(top, &mut |node| {
        let mut metadata = node.metadata().cloned().unwrap_or_else(|| Metadata::root_owned(0o644));
        let mode = match node {
            Node::Directory(_) => rights.directory_mode,
            Node::File { .. } => rights.mode,
            // A link's mode is always the same, and devices are no files.
            _ => None,
        };
        metadata.mode = mode.unwrap_or(metadata.mode);
        if let Some((uid, gid)) = owner {
            (metadata.uid, metadata.gid) = (uid, gid);
        }
        metadata
    });
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;

    use super::*;

    #[test]
    fn names_are_looked_up_and_numbers_are_not() {
        let accounts = Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1000:1001:,,,:/home/app:/bin/sh\nodd:x:y:1::/:\nx:x:late:0::/:\nlate:x:9:9::/:\nmax:x:4294967295:0::/:\n"
                .to_owned(),
            group: "root:x:0:\nweb:x:33:app,root\nmax:x:4294967295:\n".to_owned(),
        };
        for (text, expected) in [
            ("0", Ok((0, 0))),
            ("5", Ok((5, 5))),
            ("1000", Ok((1000, 1000))), // as `COPY --chown` has it, whatever the files say
            ("app", Ok((1000, 1001))),
            ("app:web", Ok((1000, 33))),
            ("app:7", Ok((1000, 7))),
            ("7:web", Ok((7, 33))),
            ("nobody", Err(("user", "nobody"))),
            ("odd", Err(("user", "odd"))),
            // A line before its own has the name where a number belongs.
            ("late", Ok((9, 9))),
            // The number that is none.
            ("max", Err(("user", "max"))),
            ("5:max", Err(("group", "max"))),
            ("app:app", Err(("group", "app"))),
        ] {
            let owner = Owner::parse(text).expect("it is one");
            let found = accounts.numbers(&owner);
            let found = found.as_ref().copied().map_err(|unknown| (unknown.kind, &*unknown.name));
            assert_eq!(found, expected, "{text}");
            assert_eq!(has_names(&owner), text.contains(char::is_alphabetic), "{text}");
        }
        assert_eq!(accounts.user("1000").map(|account| account.home), Some("/home/app".to_owned()));
    }

    #[test]
    fn files_and_folders_have_their_own_modes() {
        let path = |text: &str| RelPath::new(text).expect("it is a path");
        let mut tree = Directory::root();
        let blob = Descriptor::of(DigestFunction::Blake3, b"x");
        let parents = Metadata::root_owned(0o755);
        tree.insert(&path("srv/app/run"), Node::file(blob, 0o755), &parents).expect("it is empty");
        tree.insert(&path("srv/app/link"), Node::symlink("run"), &parents).expect("nothing is there");
        let told = |tree: &Directory| -> Vec<String> {
            let told = |(path, node): (RelPath, &Node)| {
                let metadata = node.metadata().expect("it has its own");
                format!("{path} {:o} {}:{}", metadata.mode, metadata.uid, metadata.gid)
            };
            tree.walk().map(told).collect()
        };
        let rights = Rights { mode: Some(0o640), directory_mode: Some(0o2750), owner: None };
        let mut changed = tree.clone();
        give(&mut changed, Some(&path("srv/app")), &rights, Some((5, 6)));
        assert_eq!(told(&changed), ["srv 755 0:0", "srv/app 2750 5:6", "srv/app/link 777 5:6", "srv/app/run 640 5:6"]);
        let mut same = tree.clone();
        give(&mut same, Some(&path("srv/app")), &Rights::default(), None);
        assert_eq!(same, tree);
    }
}
