//! The messages, as far as they are used (`build/bazel/remote/execution/v2/remote_execution.proto`, v2.13).

use cas_blob::Descriptor;

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Digest {
    #[prost(string, tag = "1")]
    pub(crate) hash: String,
    #[prost(int64, tag = "2")]
    pub(crate) size_bytes: i64,
}

impl From<&Descriptor> for Digest {
    fn from(blob: &Descriptor) -> Self {
        Self { hash: blob.digest.to_hex(), size_bytes: blob.size.cast_signed() }
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Directory {
    #[prost(message, repeated, tag = "1")]
    pub(crate) files: Vec<FileNode>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) directories: Vec<DirectoryNode>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) symlinks: Vec<SymlinkNode>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct FileNode {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) digest: Option<Digest>,
    #[prost(bool, tag = "4")]
    pub(crate) is_executable: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct DirectoryNode {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) digest: Option<Digest>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct SymlinkNode {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) target: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Platform {
    #[prost(message, repeated, tag = "1")]
    pub(crate) properties: Vec<Pair>,
}

/// `Platform.Property` and `Command.EnvironmentVariable` have the same two fields.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Pair {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Command {
    #[prost(string, repeated, tag = "1")]
    pub(crate) arguments: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) environment_variables: Vec<Pair>,
    #[prost(message, optional, tag = "5")]
    pub(crate) platform: Option<Platform>,
    #[prost(string, tag = "6")]
    pub(crate) working_directory: String,
    #[prost(string, repeated, tag = "7")]
    pub(crate) output_paths: Vec<String>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Duration {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Action {
    #[prost(message, optional, tag = "1")]
    pub(crate) command_digest: Option<Digest>,
    #[prost(message, optional, tag = "2")]
    pub(crate) input_root_digest: Option<Digest>,
    #[prost(message, optional, tag = "6")]
    pub(crate) timeout: Option<Duration>,
    #[prost(message, optional, tag = "10")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Tree {
    #[prost(message, optional, tag = "1")]
    pub(crate) root: Option<Directory>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) children: Vec<Directory>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct OutputFile {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) digest: Option<Digest>,
    #[prost(bool, tag = "4")]
    pub(crate) is_executable: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct OutputDirectory {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) tree_digest: Option<Digest>,
    #[prost(message, optional, tag = "5")]
    pub(crate) root_directory_digest: Option<Digest>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct OutputSymlink {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(string, tag = "2")]
    pub(crate) target: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ActionResult {
    #[prost(message, repeated, tag = "2")]
    pub(crate) output_files: Vec<OutputFile>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) output_directories: Vec<OutputDirectory>,
    #[prost(int32, tag = "4")]
    pub(crate) exit_code: i32,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output_symlinks: Vec<OutputSymlink>,
}
