//! File system trees by content: nodes, edit, merge, diff, canonical encoding.
