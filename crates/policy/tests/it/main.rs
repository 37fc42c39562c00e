//! Policies, from the objects as they are written to packets between real network namespaces.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod plan;
