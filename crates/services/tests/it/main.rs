//! Services, from the plan to packets.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod answers;
mod bad;
mod build;
mod changes;
mod choose;
mod clashes;
mod worlds;
