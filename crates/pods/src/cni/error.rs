//! What can go wrong, in the protocol's own form.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The specification's error codes, and from 100 on our own.
pub mod code {
    /// The configuration's version is not spoken.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field this plugin does not know; the message holds key and value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is not known; nothing has to be cleaned up for it.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or wrong; the message names it.
    pub const BAD_ENVIRONMENT: u32 = 4;
    /// Input or output failed.
    pub const IO: u32 = 5;
    /// The input is not JSON of the right shape.
    pub const DECODE: u32 = 6;
    /// The configuration is well formed and wrong.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace is not one, or is the node's own.
    pub const INVALID_NETNS: u32 = 8;
    /// A passing condition; the runtime should try again.
    pub const TRY_AGAIN: u32 = 11;
    /// ADD cannot be served now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// ADD cannot be served and pods already there may be cut off.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// The kernel refused.
    pub const KERNEL: u32 = 100;
    /// The requested address cannot be given.
    pub const ADDRESS: u32 = 101;
    /// The container has an interface of that name.
    pub const INTERFACE_EXISTS: u32 = 102;
    /// Another pod holds the host port.
    pub const HOST_PORT: u32 = 103;
    /// CHECK found something other than what ADD made.
    pub const CHECK: u32 = 104;
}

/// An error as a plugin prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    /// See [`code`].
    pub code: u32,
    /// Short sentence.
    pub msg: String,
    /// Cause and next step; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// The same with details.
    #[must_use]
    pub fn details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The JSON a plugin prints for this error.
    pub fn to_json(&self, version: &str) -> serde_json::Value {
        let mut json = serde_json::json!({
            "cniVersion": version,
            "code": self.code,
            "msg": self.msg,
        });
        if !self.details.is_empty() {
            json["details"] = self.details.clone().into();
        }
        json
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code)?;
        if self.details.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.details)
        }
    }
}

impl std::error::Error for CniError {}
