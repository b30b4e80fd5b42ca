//! Steps as messages of the Remote Execution API v2, in canonical bytes.
//!
//! [`project`] gives what an executor sees of a tree, [`Step::encode`] the action with its key,
//! [`encode_result`] what it gave. The messages are the few
//! that are needed, written out here; their field numbers are those of `remote_execution.proto`. Format:
//! docs/formats/action.md.
//!
//! Not here: sending anything anywhere, running (`cas-sandbox`), storing (`cas-store`).

mod contents;
mod messages;
mod project;
mod result;
mod step;

pub use contents::{ActionParts, DirectoryParts, action_parts, directory_parts};
pub use project::{EncodedBlob, ProjectError, Projection, project};
pub use result::{DecodeResultError, EncodedResult, decode_result, encode_result};
pub use step::{EncodedStep, Step};
