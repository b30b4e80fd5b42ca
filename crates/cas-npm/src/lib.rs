//! npm packages: manifests, file selection, tarball order, lockfiles, node_modules layout.
