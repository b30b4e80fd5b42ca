//! Digests the workspace: which files belong to it and what they hold.
