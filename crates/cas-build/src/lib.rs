//! The engine: graph, keys, execution, assembly.
