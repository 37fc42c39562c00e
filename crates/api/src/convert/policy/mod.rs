//! Policies as [`model`] values.
//!
//! Whoever broke a policy, the API server or the program that wrote it: it must not open what it
//! was to close, and must not keep other policies from being read. So a policy is read field by
//! field from whatever JSON is there; what cannot be understood is told with its path, and
//! stands for what closes.

mod cluster;
mod field;
mod network;
mod parts;
mod selector;
