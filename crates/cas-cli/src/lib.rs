//! Commands of cas and their rendering.
