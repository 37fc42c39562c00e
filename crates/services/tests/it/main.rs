//! Services, from the plan to packets between real network namespaces.

#![expect(clippy::unwrap_used, reason = "a test's failure is a panic")]

mod answers;
mod bad;
mod between;
mod build;
mod cases;
mod changes;
mod choose;
mod clashes;
mod echo;
mod faults;
mod flows;
mod iptables;
mod lab;
mod left;
mod nftables;
mod oracle;
mod probe;
mod spread;
mod stale;
mod table;
mod world;
mod worlds;

use testing::station;
