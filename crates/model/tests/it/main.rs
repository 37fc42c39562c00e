//! Tests of the values, and of the workspace's own structure.

mod structure;
