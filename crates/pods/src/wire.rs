//! How the plugin and the command line ask the agent: one JSON request a connection, one
//! JSON answer, both of bounded size. The agent answers root only (SO_PEERCRED).

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cni::{Call, CniError};

/// The longest request taken: a GC list of some thousand attachments fits.
pub const MOST_REQUEST: usize = 1 << 20;
/// The longest answer taken.
pub const MOST_ANSWER: usize = 16 << 20;

/// A question to the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// A CNI operation.
    Cni {
        /// Command and environment.
        call: Call,
        /// The network configuration as it came on standard input.
        config: Box<serde_json::value::RawValue>,
    },
    /// How the agent stands.
    Status,
    /// The node's routes that are the agent's, and why they are there.
    Routes,
    /// How the node's own DNS server stands.
    Dns,
    /// What a trace needs: the cluster as the agent knows it.
    Cluster,
    /// Connections that policies denied. Behind the answer, a line of JSON, comes a line for each
    /// event for as long as the connection lasts; empty lines say nothing.
    Drops {
        /// Where the reader stood: the agent's run, and the number of the next event.
        place: Option<(u64, u64)>,
        /// Whether one that has no place wants what is kept of the past, or only what is new.
        past: bool,
    },
}

/// The agent's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The result; its form is the question's.
    Ok(Value),
    /// It failed.
    Error(CniError),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum WireError {
    /// Nobody listens: the agent is away.
    Away(io::Error),
    /// The connection broke or the answer was not understood.
    Broken(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Away(error) => write!(f, "the agent does not listen: {error}"),
            WireError::Broken(cause) => write!(f, "the agent gave no answer: {cause}"),
        }
    }
}

impl std::error::Error for WireError {}

/// Asks the agent that listens on `socket`.
pub fn ask(socket: &Path, request: &Request, patience: Duration) -> Result<Answer, WireError> {
    let mut stream = UnixStream::connect(socket).map_err(WireError::Away)?;
    let broken = |error: io::Error| WireError::Broken(error.to_string());
    stream.set_read_timeout(Some(patience)).map_err(broken)?;
    stream.set_write_timeout(Some(patience)).map_err(broken)?;
    let bytes =
        serde_json::to_vec(request).map_err(|error| WireError::Broken(error.to_string()))?;
    if bytes.len() > MOST_REQUEST {
        return Err(WireError::Broken(format!(
            "the request has more than {MOST_REQUEST} bytes"
        )));
    }
    stream.write_all(&bytes).map_err(broken)?;
    stream.shutdown(Shutdown::Write).map_err(broken)?;
    let mut answer = Vec::with_capacity(1024);
    stream
        .take(MOST_ANSWER as u64)
        .read_to_end(&mut answer)
        .map_err(broken)?;
    if answer.is_empty() {
        return Err(WireError::Broken(
            "it closed the connection (it answers root only)".to_owned(),
        ));
    }
    serde_json::from_slice(&answer)
        .map_err(|error| WireError::Broken(format!("not understood: {error}")))
}
