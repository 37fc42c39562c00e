//! The CNI plugin: it reads the call, asks the node's agent, prints the answer.
//!
//! With the agent away, ADD says "try again later" and DEL removes the interface itself and
//! leaves word for the agent, which releases the address when it comes back.

mod away;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use pods::cni::{Call, CniError, Command, NetConf, code, version_answer};
use pods::wire::{self, Answer, Request, WireError};
use serde_json::Value;
use serde_json::value::RawValue;

/// How long the agent may take: less than the minute a runtime gives a plugin.
const PATIENCE: Duration = Duration::from_secs(50);

fn main() -> ExitCode {
    let mut stdin = Vec::new();
    let read = std::io::stdin()
        .lock()
        .take(wire::MOST_REQUEST as u64)
        .read_to_end(&mut stdin);
    let answer = match read {
        Ok(_) => run(&stdin),
        Err(error) => Err(CniError::new(
            code::IO,
            format!("standard input cannot be read: {error}"),
        )),
    };
    let (text, exit) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(value)) => (value.to_string(), ExitCode::SUCCESS),
        Err(error) => (
            error.to_json(&asked_version(&stdin)).to_string(),
            ExitCode::FAILURE,
        ),
    };
    // The runtime may be gone; there is nobody else to tell.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    exit
}

fn run(stdin: &[u8]) -> Result<Option<Value>, CniError> {
    let call = Call::from_env(|name| std::env::var(name).ok())?;
    if call.command == Command::Version {
        return Ok(Some(version_answer(stdin)));
    }
    let conf = NetConf::parse(stdin)?;
    // Looked at already: the agent parses it once more, for it may be asked by others.
    let text = std::str::from_utf8(stdin)
        .map_err(|error| CniError::new(code::DECODE, error.to_string()))?;
    let config = RawValue::from_string(text.trim().to_owned())
        .map_err(|error| CniError::new(code::DECODE, error.to_string()))?;
    match wire::ask(
        &conf.agent_socket,
        &Request::Cni {
            call: call.clone(),
            config,
        },
        PATIENCE,
    ) {
        Ok(Answer::Ok(Value::Null)) => Ok(None),
        Ok(Answer::Ok(value)) => Ok(Some(value)),
        Ok(Answer::Error(error)) => Err(error),
        Err(WireError::Away(cause)) => away::answer(&call, &conf, &cause.to_string()),
        // It may have acted before it broke off: only the runtime's DEL makes that certain.
        Err(error @ WireError::Broken(_)) => away::answer(&call, &conf, &error.to_string()),
    }
}

/// The version errors are answered in: that of the configuration where it can be told.
fn asked_version(stdin: &[u8]) -> String {
    let answer = version_answer(stdin);
    answer["cniVersion"].as_str().unwrap_or("1.1.0").to_owned()
}
