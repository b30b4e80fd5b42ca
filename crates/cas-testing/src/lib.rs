//! Helpers and conformance suites for tests.
