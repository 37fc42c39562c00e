//! The Container Network Interface, versions 0.3.1 to 1.1.0, as values.

mod call;
mod config;
mod error;
mod result;

pub use call::{Call, Command, PodArgs};
pub use config::{NetConf, RuntimeConfig, Subnet, ValidAttachment};
pub(crate) use config::{address, parse_mac};
pub use error::{CniError, code};
pub use result::{CniResult, Dns, Interface, Ip, Route};

use std::fmt;

/// Protocol versions spoken, oldest first.
pub const SUPPORTED: [Version; 4] = [
    Version::V0_3_1,
    Version::V0_4_0,
    Version::V1_0_0,
    Version::V1_1_0,
];

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.3.1
    V0_3_1,
    /// 0.4.0, which brought CHECK.
    V0_4_0,
    /// 1.0.0, which dropped the address's own version field.
    V1_0_0,
    /// 1.1.0, which brought GC and STATUS.
    V1_1_0,
}

impl Version {
    /// The version in its own writing.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// The version called `text`, or error 1.
    pub fn parse(text: &str) -> Result<Version, CniError> {
        SUPPORTED
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| {
                let known: Vec<String> = SUPPORTED
                    .iter()
                    .map(|v| format!("{:?}", v.as_str()))
                    .collect();
                CniError::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions").details(
                    format!("config is {text:?}, plugin supports [{}]", known.join(" ")),
                )
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer to VERSION, given what came on standard input.
pub fn version_answer(stdin: &[u8]) -> serde_json::Value {
    let asked = serde_json::from_slice::<serde_json::Value>(stdin)
        .ok()
        .and_then(|config| config.get("cniVersion")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| Version::V1_1_0.to_string());
    let supported: Vec<&str> = SUPPORTED.iter().map(|version| version.as_str()).collect();
    serde_json::json!({ "cniVersion": asked, "supportedVersions": supported })
}
