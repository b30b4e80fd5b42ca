//! Tags, by what people expect of them.

pub use cas_oci::TagClass;

/// The tag that names something else every day.
pub(crate) const LATEST: &str = "latest";
