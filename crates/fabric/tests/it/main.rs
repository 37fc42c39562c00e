//! The fabric on the fake kernel and between real network namespaces.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod cluster;
mod fake;
mod heal;
mod lab;
mod live;
mod modes;
mod pure;
