//! End to end: the built program, stock kubectl, real traffic. A cluster a scenario.
#![cfg(test)]

mod bad_policies;
mod bad_services;
mod balancer;
mod cluster;
mod conformance;
mod dns;
mod dns_faults;
mod internet;
mod life;
mod modes;
mod monitor;
mod policies;
mod policies_documents;
mod policies_living;
mod policies_written;
mod policy;
mod refusals;
mod services;
mod stock_clients;
mod workloads;
