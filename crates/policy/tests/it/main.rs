//! Policies, from the objects as they are written to packets between real network namespaces.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod cases;
mod corners;
mod fake;
mod flows;
mod kill;
mod lab;
mod left;
mod manifests;
mod names;
mod objects;
mod oracle;
mod order;
mod plan;
mod probe;
mod race;
mod random;
mod server;
mod sight;
mod table;
mod traffic;
mod translated;
mod underway;
mod views;
