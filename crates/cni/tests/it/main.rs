//! The plugin as a runtime sees it: the real binary, real namespaces, an agent process of its
//! own without any Kubernetes.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod agent;
mod bridged;
mod cnitool;
mod concurrency;
mod extras;
mod kubernetes;
mod lab;
mod operations;
mod policies;
mod routed;
mod size;
