//! Debian packages and archives: `ar`, control files, versions, closures, signed indexes, and the tree that packages make.
//!
//! What a toolchain of Debian packages goes through, in order: [`verify_inrelease`] proves the list of a suite's indexes,
//! [`IndexBuilder`] reads the indexes, [`closure`] picks packages by a fixed rule, [`DebReader`] opens each of them.
//! Every function is pure; the formats and rules are in docs/formats/debian.md, and ADR 0006 argues them.
//!
//! Not here: fetching and caching (`cas-fetch`), decompression and tar (`cas-tar`), pins (`cas-config`).

mod ar;
mod cleartext;
mod closure;
mod configured;
mod deb822;
mod fixups;
mod index;
mod keyring;
mod merge;
mod order;
mod package;
mod relation;
mod release;
mod similar;
mod version;

pub use ar::{Compression, DebError, DebReader, HeaderPart, Member, MemberKind};
pub use cleartext::FrameError;
pub use closure::{Because, ClosureError, Exclusion, closure};
pub use configured::{OwnerError, USER_LISTS, after_scripts, before_scripts, check_owners, order_users};
pub use deb822::{Deb822Error, Paragraph, Paragraphs};
pub use fixups::{AddedFile, FixUpError, fix_up};
pub use index::{IndexBuilder, IndexError, PackageIndex};
pub use keyring::{Keyring, KeyringError, SignatureError, Unusable};
pub use merge::{MergeError, Unpacked, merge};
pub use order::{OrderError, installation_order};
pub use package::{Control, FieldError, MultiArch, Package, PackageError, Priority, RelationFieldError, shorten};
pub use relation::{Alternatives, Comparison, ParseRelationError, Relation, Relations};
pub use release::{Moment, Release, ReleaseError, verify_inrelease};
pub use version::{ParseVersionError, Version, VersionProblem};
