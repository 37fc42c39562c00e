//! Kubernetes objects as values: which kinds there are, their schemas, defaults,
//! validation, patches, server-side apply, selectors and printed tables.
//!
//! Everything here is pure: JSON values in, JSON values or a [`Status`] out.
//! The clock is an argument. The embedded API server is the only caller that
//! does I/O with it.

pub mod apply;
pub mod crd;
pub mod defaults;
pub mod event;
pub mod jsonpath;
pub mod kind;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod scale;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod validation;

pub use kind::Kind;
pub use schema::Schema;
pub use status::{Cause, Status};

/// A Kubernetes object as it travels: untyped JSON.
pub type Object = serde_json::Value;
