//! The server as its users see it.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod corefiles;
mod forwarding;
mod fuzzed;
mod many;
mod node;
mod serve;
mod wire;
