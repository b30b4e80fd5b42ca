//! Sending images and artifacts to registries: what goes first, what is there already, and which tags may move.
//!
//! [`push`] brings a [`Shipment`] to [`Target`]s: blobs, then documents by digest, and when all of that is everywhere, tags. What is
//! there is not sent again, so a push that broke off is made again by pushing. [`Attachments`]
//! are what refers to an image: signatures. Rules and order: docs/formats/registry.md.
//!
//! [`Publishing`] does that for several shipments together: signatures and the like go before the first tag of any of them.
//!
//! [`copy`] makes a shipment of what a registry has, whose blobs are read while they are sent; [`tag`] sets tags on what is there.
//!
//! What a [`SyncFile`] says is pinned ([`resolve_sync`]), looked at ([`look_sync`]) and brought ([`apply_sync`]).
//!
//! [`push_package`] sends the files of an artifact as a generic package of GitLab.
//!
//! Not here: requests (`cas-registry`), what images are made of (`cas-build`).

mod attached;
mod copy;
mod error;
mod package;
mod publish;
mod push;
mod shipment;
mod source;
mod sync;
mod sync_file;
mod tag;
mod tag_filter;
mod target;
mod tee;
mod template;

pub use attached::{Attachable, Attached, Attachment, Attachments, OlderForm};
pub use copy::{Copied, CopyOptions, copy, probe, tag, try_login};
pub use error::SyncError;
pub use package::{CHECKSUMS, PushedFile, PushedPackage, push_package};
pub use publish::{Parcel, ParcelAttachments, Publishing};
pub use push::{PushEvent, PushOptions, Pushed, PushedTag, TagChange, push};
pub use shipment::{Shipment, ShippedBlob, ShippedDocument};
pub use sync::{ItemState, SyncItem, SyncOutcome, apply_sync, look_sync, resolve_sync, sync_items};
pub use sync_file::{MAX_SYNC_FILE_BYTES, MAX_SYNC_LOCK_BYTES, SyncFile, SyncFileError, SyncLock, SyncSection};
pub use tag::TagClass;
pub use tag_filter::{Chosen, FilterError, TagFilter, TagRequest};
pub use target::{ParseTargetError, Target};
pub use template::{TemplateError, TemplatePart, WORDS, is_template, template_parts};
