//! The API server as its clients see it: kube-rs, kubectl and plain requests over TLS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod crash;
mod custom;
mod kubectl;
mod kubelet;
mod lists;
mod owners;
mod pods;
mod policies;
mod selectors;
mod server;
mod services;
mod verbs;
mod watches;
