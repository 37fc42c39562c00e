//! Services, from the plan to packets.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod build;
mod choose;
