//! What messages of actions and directories name: for whoever looks whether all of an action is there.

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use prost::Message;

use crate::messages;
use crate::result::descriptor;

/// What an action names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionParts {
    /// Its command.
    pub command: Descriptor,
    /// The message of its input root.
    pub input_root: Descriptor,
}

/// What a directory names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryParts {
    /// Its files, by name.
    pub files: Vec<(String, Descriptor)>,
    /// Messages of the directories in it, by name.
    pub directories: Vec<(String, Descriptor)>,
}

/// Reads what the message of an action names; `None` for what is none.
#[must_use]
pub fn action_parts(bytes: &[u8], function: DigestFunction) -> Option<ActionParts> {
    let action = messages::Action::decode(bytes).ok()?;
    Some(ActionParts {
        command: descriptor(action.command_digest.as_ref(), function)?,
        input_root: descriptor(action.input_root_digest.as_ref(), function)?,
    })
}

/// Reads what the message of a directory names; `None` for what is none.
#[must_use]
pub fn directory_parts(bytes: &[u8], function: DigestFunction) -> Option<DirectoryParts> {
    let directory = messages::Directory::decode(bytes).ok()?;
    let named = |name: String, digest: Option<messages::Digest>| Some((name, descriptor(digest.as_ref(), function)?));
    let files = directory.files.into_iter().map(|file| named(file.name, file.digest)).collect::<Option<_>>()?;
    let directories = directory.directories.into_iter();
    let directories = directories.map(|child| named(child.name, child.digest)).collect::<Option<_>>()?;
    Some(DirectoryParts { files, directories })
}

#[cfg(test)]
mod tests {
    use cas_tree::{Directory, Metadata, Node, RelPath};

    use super::*;
    use crate::{Step, project};

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    #[test]
    fn messages_name_what_they_were_made_of() {
        let blob = Descriptor::of(FUNCTION, b"content");
        let mut tree = Directory::root();
        let path = RelPath::new("folder/file").expect("it is a path");
        tree.insert(&path, Node::file(blob, 0o644), &Metadata::root_owned(0o755)).expect("nothing is in the way");
        let projection = project(&tree, FUNCTION).expect("messages can carry it");
        let root = directory_parts(&projection.directories[&projection.root], FUNCTION).expect("it is one");
        assert_eq!(root.files, []);
        let (name, child) = &root.directories[0];
        assert_eq!(name, "folder");
        let child = directory_parts(&projection.directories[child], FUNCTION).expect("it is one");
        assert_eq!(child, DirectoryParts { files: vec![("file".to_owned(), blob)], directories: Vec::new() });

        let step = Step {
            arguments: vec!["/bin/true".to_owned()],
            environment: Default::default(),
            working_directory: "src".to_owned(),
            output_paths: Default::default(),
            platform: Default::default(),
            input_root: projection.root,
            timeout_seconds: 1,
        };
        let encoded = step.encode();
        let parts = action_parts(&encoded.action.1, FUNCTION).expect("it is one");
        assert_eq!(parts, ActionParts { command: encoded.command.0, input_root: projection.root });
        assert_eq!(action_parts(b"", FUNCTION), None, "it names nothing");
        assert_eq!(directory_parts(b"\xff", FUNCTION), None);
    }
}
