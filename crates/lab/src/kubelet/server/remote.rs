//! A command's or container's streams on one side, a client's on the other: the part of
//! exec and attach that does not depend on how the client is connected.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::shim::Stream;
use crate::shim::client::{ExecHandle, Streams};

/// After a command's end its output is waited for this long: a child it left behind may
/// hold the pipes open for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// Bytes moved at once.
const CHUNK: usize = 32 << 10;

/// What a client sends.
#[derive(Debug)]
pub enum Input {
    /// Standard input.
    Stdin(Bytes),
    /// The end of standard input.
    StdinEnd,
    /// The terminal's new size.
    Resize(Size),
}

/// What a client gets.
#[derive(Debug)]
pub enum Output {
    /// Standard output.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The end, as a Status object.
    Status(Value),
}

/// A terminal's size, as clients write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Size {
    /// Columns.
    #[serde(rename = "Width", alias = "width")]
    pub width: u16,
    /// Rows.
    #[serde(rename = "Height", alias = "height")]
    pub height: u16,
}

/// Ends of the channels between a session and its client; bounded, so that a slow client
/// slows the command and nothing piles up.
pub struct Client {
    /// From the client; closed when it is gone.
    pub input: mpsc::Receiver<Input>,
    /// To the client.
    pub output: mpsc::Sender<Output>,
}

/// Connects streams with a client until the command ends (`handle`), or until the streams
/// end where nothing is waited for (attach).
pub async fn run(streams: Streams, mut handle: Option<ExecHandle>, client: Client) {
    let Streams {
        stdin,
        stdout,
        stderr,
        terminal,
    } = streams;
    let Client { mut input, output } = client;
    let resize = move |size: Size| {
        if let Some(terminal) = &terminal {
            let _ = terminal.resize(size.width, size.height);
        }
    };
    let feed = async {
        let mut stdin = stdin;
        while let Some(message) = input.recv().await {
            match message {
                Input::Stdin(bytes) => {
                    let written = match &mut stdin {
                        Some(stdin) => stdin.write_all(&bytes).await,
                        None => Ok(()),
                    };
                    if written.is_err() {
                        stdin = None;
                    }
                }
                Input::StdinEnd => stdin = None,
                Input::Resize(size) => resize(size),
            }
        }
    };
    let drain = async {
        tokio::join!(
            copy(stdout, &output, Output::Stdout),
            copy(stderr, &output, Output::Stderr)
        );
    };
    tokio::pin!(drain, feed);
    let status = match &mut handle {
        Some(handle) => {
            let mut drained = false;
            let code = loop {
                tokio::select! {
                    code = handle.wait() => break code,
                    () = &mut drain, if !drained => drained = true,
                    () = &mut feed => {
                        // The client is gone: so is the reason for the command.
                        let _ = handle.kill().await;
                        return;
                    }
                }
            };
            if !drained {
                tokio::select! {
                    _ = tokio::time::timeout(DRAIN, &mut drain) => {}
                    () = &mut feed => return,
                }
            }
            match code {
                Ok(code) => exit_status(code),
                Err(error) => failure(&error.to_string()),
            }
        }
        None => {
            tokio::select! {
                () = &mut drain => {}
                () = &mut feed => return,
            }
            exit_status(0)
        }
    };
    let _ = output.send(Output::Status(status)).await;
}

async fn copy(stream: Option<Stream>, output: &mpsc::Sender<Output>, wrap: fn(Bytes) -> Output) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let bytes = Bytes::copy_from_slice(&chunk[..count]);
        if output.send(wrap(bytes)).await.is_err() {
            return;
        }
    }
}

/// The Status of a command that ended.
pub fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

/// The Status of a command that could not be run.
pub fn failure(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_told_as_kubectl_reads_them() {
        assert_eq!(exit_status(0)["status"], "Success");
        let status = exit_status(3);
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }

    #[test]
    fn sizes_are_read_as_kubectl_writes_them() {
        let size: Size = serde_json::from_str(r#"{"Width":80,"Height":24}"#).unwrap();
        assert_eq!(
            size,
            Size {
                width: 80,
                height: 24
            }
        );
    }
}
