//! Runs a command in namespaces of its own over a materialised root.
