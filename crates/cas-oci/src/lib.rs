//! OCI image specification: config, manifest, index, layout.
