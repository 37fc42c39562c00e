//! Tests of the values, and of the workspace's own structure.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod structure;
