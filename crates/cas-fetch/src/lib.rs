//! Downloads over HTTP, verified while they stream.
