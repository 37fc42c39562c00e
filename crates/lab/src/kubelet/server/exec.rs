//! exec and attach: which container, which streams, and the client's protocol.

use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::remote::{self, Client, Input, Output};
use super::upgrade::{self, Protocol};
use super::{Answer, Query, spdy, text, websocket};
use crate::kubelet::{PodView, launch, state};
use crate::shim::ExecSpec;
use crate::shim::client::Sandbox;

/// WebSocket subprotocols, best first.
const WEBSOCKET: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// SPDY stream protocols, best first.
const SPDY: [&str; 1] = ["v4.channel.k8s.io"];
/// Messages under way in each direction.
const QUEUE: usize = 16;
/// A SPDY client has this long to open its streams.
const STREAMS: Duration = Duration::from_secs(30);

/// Which streams a client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; with a terminal there is none.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Wanted {
    fn parse(query: &Query) -> Self {
        // kube-apiserver says input/output/error; stdin/stdout/stderr are taken too.
        let either = |a, b| query.is_set(a) || query.is_set(b);
        let tty = query.is_set("tty");
        Self {
            stdin: either("input", "stdin"),
            stdout: either("output", "stdout"),
            stderr: either("error", "stderr") && !tty,
            tty,
        }
    }
}

/// What is to be run.
struct Session {
    sandbox: Sandbox,
    id: String,
    argv: Option<Vec<String>>,
    wanted: Wanted,
}

/// Answers an exec or attach request.
pub fn answer(
    view: &PodView,
    attach: bool,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let bad = |message: String| text(StatusCode::BAD_REQUEST, message);
    let wanted = Wanted::parse(query);
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return bad("you must specify at least 1 of stdin, stdout, stderr\n".to_owned());
    }
    if state::find(&view.pod, container).is_none() {
        return text(
            StatusCode::NOT_FOUND,
            format!("container {container:?} not found in pod\n"),
        );
    }
    let running = view
        .containers
        .get(container)
        .filter(|(_, running)| *running);
    let (Some((attempts, _)), Some(sandbox)) = (running, view.sandbox.clone()) else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("unable to upgrade connection: container not found ({container:?})\n"),
        );
    };
    let argv: Vec<String> = query.all("command").map(str::to_owned).collect();
    if !attach && argv.is_empty() {
        return bad("you must specify a command\n".to_owned());
    }
    let mut wanted = wanted;
    if attach {
        // The container's own terminal decides.
        wanted.tty = state::find(&view.pod, container).is_some_and(|c| c.tty == Some(true));
        wanted.stderr &= !wanted.tty;
    }
    let session = Session {
        id: launch::id(container, attempts.saturating_sub(1)),
        argv: (!attach).then_some(argv),
        sandbox,
        wanted,
    };
    let protocol = match upgrade::choose(request.headers(), &WEBSOCKET, &SPDY) {
        Ok(protocol) => protocol,
        Err(answer) => return *answer,
    };
    let (answer, upgraded) = match upgrade::accept(request, &protocol) {
        Ok(accepted) => accepted,
        Err(answer) => return *answer,
    };
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let stream = TokioIo::new(upgraded);
        let (input_sender, input) = mpsc::channel::<Input>(QUEUE);
        let (output, output_receiver) = mpsc::channel::<Output>(QUEUE);
        let client = Client { input, output };
        match protocol {
            Protocol::WebSocket(name) => {
                let closes_stdin = name.as_deref() == Some(WEBSOCKET[0]);
                let transport =
                    websocket::remote(stream, closes_stdin, input_sender, output_receiver);
                tokio::join!(transport, session.run(client));
            }
            Protocol::Spdy(_) => {
                let wanted = session.wanted;
                let transport = spdy_remote(stream, wanted, input_sender, output_receiver);
                tokio::join!(transport, session.run(client));
            }
        }
    });
    answer
}

impl Session {
    async fn run(self, client: Client) {
        let wanted = self.wanted;
        let (mut streams, handle) = match self.argv {
            Some(argv) => {
                let spec = ExecSpec {
                    container: self.id,
                    argv,
                    tty: wanted.tty,
                    stdin: wanted.stdin,
                };
                match self.sandbox.exec(&spec).await {
                    Ok(exec) => (exec.io, Some(exec.handle)),
                    Err(error) => {
                        let _ = client
                            .output
                            .send(Output::Status(remote::failure(&error.to_string())))
                            .await;
                        return;
                    }
                }
            }
            None => match self.sandbox.attach(&self.id, wanted.stdin).await {
                Ok(streams) => (streams, None),
                Err(error) => {
                    let _ = client
                        .output
                        .send(Output::Status(remote::failure(&error.to_string())))
                        .await;
                    return;
                }
            },
        };
        if !wanted.stdin {
            streams.stdin = None;
        }
        remote::run(streams, handle, client).await;
    }
}

/// The streams of exec over SPDY: the client opens one for each.
async fn spdy_remote<S>(
    stream: S,
    wanted: Wanted,
    input: mpsc::Sender<Input>,
    mut output: mpsc::Receiver<Output>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = spdy::Connection::start(stream);
    let expected = 1
        + usize::from(wanted.stdin)
        + usize::from(wanted.stdout)
        + usize::from(wanted.stderr)
        + usize::from(wanted.tty);
    let mut writers = std::collections::HashMap::new();
    let collect = async {
        for _ in 0..expected {
            let Some(stream) = connection.accept().await else {
                return false;
            };
            let kind = stream.header("streamtype").unwrap_or_default().to_owned();
            let (writer, reader) = stream.split();
            match kind.as_str() {
                "stdin" => {
                    tokio::spawn(feed_stdin(reader, input.clone()));
                }
                "resize" => {
                    tokio::spawn(feed_resize(reader, input.clone()));
                }
                _ => {}
            }
            writers.insert(kind, writer);
        }
        true
    };
    if !matches!(tokio::time::timeout(STREAMS, collect).await, Ok(true)) {
        return;
    }
    loop {
        let message = tokio::select! {
            message = output.recv() => message,
            // The end of the connection: dropping `input` tells the session.
            () = connection.closed() => return,
        };
        let (kind, bytes) = match message {
            Some(Output::Stdout(bytes)) => ("stdout", bytes),
            Some(Output::Stderr(bytes)) => ("stderr", bytes),
            Some(Output::Status(status)) => ("error", status.to_string().into()),
            None => break,
        };
        if let Some(writer) = writers.get(kind)
            && writer.send(bytes).await.is_err()
        {
            return;
        }
    }
    for writer in writers.values() {
        writer.finish().await;
    }
    connection.finish().await;
}

async fn feed_stdin(mut reader: mpsc::Receiver<bytes::Bytes>, input: mpsc::Sender<Input>) {
    while let Some(bytes) = reader.recv().await {
        if input.send(Input::Stdin(bytes)).await.is_err() {
            return;
        }
    }
    let _ = input.send(Input::StdinEnd).await;
}

/// Sizes come as JSON objects one after another, cut anywhere.
async fn feed_resize(mut reader: mpsc::Receiver<bytes::Bytes>, input: mpsc::Sender<Input>) {
    let mut text = Vec::new();
    while let Some(bytes) = reader.recv().await {
        text.extend_from_slice(&bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&text).into_iter();
        let mut last = None;
        while let Some(Ok(size)) = sizes.next() {
            last = Some(size);
        }
        let read = sizes.byte_offset();
        text.drain(..read);
        if text.len() > 4096 {
            return;
        }
        if let Some(size) = last
            && input.send(Input::Resize(size)).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_no_standard_error_of_its_own() {
        let wanted = |query| Wanted::parse(&Query::parse(Some(query)));
        assert_eq!(
            wanted("input=1&output=1&error=1&tty=1"),
            Wanted {
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true
            }
        );
        assert_eq!(
            wanted("stdout=true&stderr=true"),
            Wanted {
                stdin: false,
                stdout: true,
                stderr: true,
                tty: false
            }
        );
    }
}
