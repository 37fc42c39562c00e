//! How a name comes to be resolved, step by step. Pure.

pub mod resolve;
pub mod search;
