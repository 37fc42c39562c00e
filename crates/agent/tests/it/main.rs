//! The agent's loop with a real kernel, in namespaces of its own, told what there is by the test.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod drops;
mod names;
mod node;
mod pod;
mod policies;
mod reuse;

mod services;
