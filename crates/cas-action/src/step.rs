//! A command with everything that it depends on.

use std::collections::{BTreeMap, BTreeSet};

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use prost::Message;

use crate::messages::{Action, Command, Duration, Pair, Platform};
use crate::project::EncodedBlob;

/// A command with everything that it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
    /// Relative to the input root.
    pub working_directory: String,
    /// Paths that are kept, relative to the working directory.
    pub output_paths: BTreeSet<String>,
    /// What the executor must be, by name: `OSFamily`, `ISA`.
    pub platform: BTreeMap<String, String>,
    /// Name of the input root's `Directory` message.
    pub input_root: Descriptor,
    /// How long it may take, in seconds.
    pub timeout_seconds: u32,
}

/// A step in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedStep {
    /// The `Action` message; its name is the action key.
    pub action: EncodedBlob,
    /// The `Command` message.
    pub command: EncodedBlob,
}

impl Step {
    /// The canonical bytes, named with the function of the input root.
    #[must_use]
    pub fn encode(&self) -> EncodedStep {
        let function = self.input_root.digest.function();
        let pairs = |map: &BTreeMap<String, String>| -> Vec<Pair> {
            map.iter().map(|(name, value)| Pair { name: name.clone(), value: value.clone() }).collect()
        };
        let platform = Some(Platform { properties: pairs(&self.platform) });
        let command = Command {
            arguments: self.arguments.clone(),
            environment_variables: pairs(&self.environment),
            platform: platform.clone(),
            working_directory: self.working_directory.clone(),
            output_paths: self.output_paths.iter().cloned().collect(),
        };
        let command = blob(function, command.encode_to_vec());
        let action = Action {
            command_digest: Some((&command.0).into()),
            input_root_digest: Some((&self.input_root).into()),
            timeout: Some(Duration { seconds: self.timeout_seconds.into() }),
            platform,
        };
        EncodedStep { action: blob(function, action.encode_to_vec()), command }
    }
}

fn blob(function: DigestFunction, bytes: Vec<u8>) -> EncodedBlob {
    (Descriptor::of(function, &bytes), bytes)
}

#[cfg(test)]
mod tests {
    use cas_tree::{Directory, Metadata, Node, RelPath};

    use super::*;
    use crate::{ProjectError, project};

    fn path(text: impl AsRef<[u8]>) -> RelPath {
        RelPath::new(text).expect("a path")
    }

    fn tree() -> Directory {
        let file = |text: &str, mode| Node::file(Descriptor::of(DigestFunction::Sha256, text.as_bytes()), mode);
        let mut tree = Directory::root();
        let mut add = |at: &str, node| tree.insert(&path(at), node, &Metadata::root_owned(0o750)).expect("free");
        add("bin/busybox", file("program", 0o4755));
        add("bin/sh", Node::Link { target: path("bin/busybox") });
        add("src/a", file("a", 0o640));
        add("src/link", Node::symlink("a"));
        tree
    }

    fn step() -> Step {
        Step {
            arguments: vec!["/bin/sh".to_owned(), "-euc".to_owned(), "cp a b".to_owned()],
            environment: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned()), ("A".to_owned(), "1".to_owned())]),
            working_directory: "src".to_owned(),
            output_paths: BTreeSet::from(["b".to_owned()]),
            platform: BTreeMap::from([
                ("OSFamily".to_owned(), "linux".to_owned()),
                ("ISA".to_owned(), "x86-64".to_owned()),
            ]),
            input_root: project(&tree(), DigestFunction::Sha256).expect("an executor can see it").root,
            timeout_seconds: 600,
        }
    }

    /// An empty directory is an empty message, the digest that every implementation of the API knows.
    #[test]
    fn the_empty_directory_is_the_empty_blob() {
        let projection = project(&Directory::root(), DigestFunction::Sha256).expect("nothing is in it");
        assert_eq!(projection.root, Descriptor::empty(DigestFunction::Sha256));
    }

    /// Keys are a contract with every cache that holds results.
    #[test]
    fn keys_are_golden() {
        let step = step();
        let encoded = step.encode();
        assert_eq!(
            [step.input_root.to_string(), encoded.command.0.to_string(), encoded.action.0.to_string()],
            [
                "sha256:c507ceaaa282d01a46ad78687f00550936a2330c86d034035f9abb5848e1a3cd/155",
                "sha256:e19468c96e46fefd1aff5c2a4bce8f91ad8b8e4491ec58e6cf59819a966f111b/89",
                "sha256:ba9958f0a9ce03c9e949bc6a542452761b9bf94e255808b32df3e5ce3a7f5e4c/182"
            ]
        );
    }

    #[test]
    fn what_a_step_does_not_see_does_not_reach_its_key() {
        let root = project(&tree(), DigestFunction::Sha256).expect("an executor can see it").root;
        let mut other = tree();
        let blob = Descriptor::of(DigestFunction::Sha256, b"a");
        let metadata = Metadata { uid: 7, ..Metadata::root_owned(0o604) };
        other.insert(&path("src/a"), Node::File { metadata, blob }, &Metadata::default()).expect("there");
        assert_eq!(project(&other, DigestFunction::Sha256).expect("an executor can see it").root, root);
        other.insert(&path("src/a"), Node::file(blob, 0o755), &Metadata::default()).expect("there");
        assert_ne!(project(&other, DigestFunction::Sha256).expect("an executor can see it").root, root);
        // Everything that a step does see is in its key.
        let base = step().encode().action.0;
        for change in [
            Step { timeout_seconds: 601, ..step() },
            Step { working_directory: String::new(), ..step() },
            Step { output_paths: BTreeSet::new(), ..step() },
            Step { environment: BTreeMap::new(), ..step() },
            Step { platform: BTreeMap::new(), ..step() },
            Step { arguments: vec!["/bin/sh".to_owned()], ..step() },
        ] {
            assert_ne!(change.encode().action.0, base, "{change:?}");
        }
    }

    /// What is put together of projections is the projection of what is put together.
    #[test]
    fn projections_are_put_together_without_encoding_them_again() {
        let whole = project(&tree(), DigestFunction::Sha256).expect("an executor can see it");
        let mut root = tree();
        let sources = root.subtree(&path("src")).expect("it is a directory");
        let sources = project(&sources, DigestFunction::Sha256).expect("an executor can see it");
        let name = cas_tree::Name::new("src").expect("a name");
        for before in [None, Some(Node::symlink("bin")), Some(Node::Directory(Directory::root().into()))] {
            root.remove(&path("src"));
            if let Some(node) = before {
                root.insert(&path("src"), node, &Metadata::default()).expect("free");
            }
            let bare = project(&root, DigestFunction::Sha256).expect("an executor can see it");
            let added = bare.with(&name, &sources).expect("a name in ASCII");
            assert_eq!(added.root, whole.root);
            assert!(added.directories.keys().all(|name| !bare.directories.contains_key(name)));
            let has = |name| added.directories.get(name).or_else(|| bare.directories.get(name));
            assert!(whole.directories.iter().all(|(name, bytes)| has(name) == Some(bytes)));
        }
    }

    #[test]
    fn what_executors_cannot_see_is_an_error() {
        for (at, node, message) in [
            (&b"d"[..], Node::Whiteout, "`d` is a whiteout, which steps cannot be given"),
            (b"p", Node::Fifo { metadata: Metadata::default() }, "`p` is a fifo, which steps cannot be given"),
            (b"l", Node::symlink(b"\xff"), "`l` is not UTF-8, which steps cannot be given"),
            (
                b"f",
                Node::file(Descriptor::of(DigestFunction::Blake3, b"x"), 0o644),
                "`f` is named by another digest function than the action",
            ),
        ] {
            let mut tree = Directory::root();
            tree.insert(&path(at), node, &Metadata::default()).expect("free");
            let error = project(&tree, DigestFunction::Sha256).expect_err("it must be refused");
            assert_eq!(error.to_string(), message);
        }
        let mut tree = Directory::root();
        tree.insert(&path(b"\xff"), Node::symlink("x"), &Metadata::default()).expect("free");
        assert!(matches!(project(&tree, DigestFunction::Sha256), Err(ProjectError::NotUtf8 { .. })));
    }
}
