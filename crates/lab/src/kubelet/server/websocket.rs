//! WebSockets: exec's channels, and a WebSocket as a plain stream of bytes.

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::remote::{Input, Output};

/// Channels of exec and attach.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// In version 5: closes the channel named by the next byte.
const CLOSE: u8 = 255;

/// The largest message taken.
const MAX_MESSAGE: usize = 1 << 20;
/// Bytes under way between a WebSocket and the protocol inside it.
const TUNNEL: usize = 64 << 10;

/// The server's side of a WebSocket that has been negotiated.
pub async fn open<S>(stream: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

/// exec and attach over `v4.channel.k8s.io` and `v5.channel.k8s.io`; only the latter can
/// close standard input.
pub async fn remote<S>(
    stream: S,
    closes_stdin: bool,
    input: mpsc::Sender<Input>,
    output: mpsc::Receiver<Output>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, source) = open(stream).await.split();
    let receive = receive(source, closes_stdin, input);
    let send = send(sink, output);
    tokio::pin!(receive, send);
    tokio::select! {
        // The session has ended and the client was told.
        () = &mut send => {}
        // The client is gone; `input` is dropped, and the session ends by that.
        () = &mut receive => send.await,
    }
}

async fn receive<S>(
    mut source: SplitStream<WebSocketStream<S>>,
    closes_stdin: bool,
    input: mpsc::Sender<Input>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = source.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return,
            _ => continue,
        };
        let Some(message) = decode(&bytes, closes_stdin) else {
            continue;
        };
        if input.send(message).await.is_err() {
            return;
        }
    }
}

fn decode(bytes: &Bytes, closes_stdin: bool) -> Option<Input> {
    let channel = *bytes.first()?;
    let rest = bytes.slice(1..);
    match channel {
        STDIN if rest.is_empty() => None,
        STDIN => Some(Input::Stdin(rest)),
        RESIZE => serde_json::from_slice(&rest).ok().map(Input::Resize),
        CLOSE if closes_stdin && rest.first() == Some(&STDIN) => Some(Input::StdinEnd),
        _ => None,
    }
}

async fn send<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut output: mpsc::Receiver<Output>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = output.recv().await {
        let framed = match message {
            Output::Stdout(bytes) => frame(STDOUT, &bytes),
            Output::Stderr(bytes) => frame(STDERR, &bytes),
            Output::Status(status) => frame(ERROR, status.to_string().as_bytes()),
        };
        if sink.send(Message::Binary(framed)).await.is_err() {
            return;
        }
    }
    let _ = sink.send(Message::Close(Some(goodbye()))).await;
    let _ = sink.close().await;
}

/// A close frame that says all went well; clients take a close without a code for a fault.
pub fn goodbye() -> CloseFrame {
    CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::default(),
    }
}

/// A channel's number and its bytes.
pub fn frame(channel: u8, bytes: &[u8]) -> Bytes {
    let mut framed = Vec::with_capacity(bytes.len() + 1);
    framed.push(channel);
    framed.extend_from_slice(bytes);
    framed.into()
}

/// The bytes inside a WebSocket's binary messages, as a stream.
pub async fn tunnel<S>(stream: S) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (inner, outer) = tokio::io::duplex(TUNNEL);
    let (mut sink, mut source) = open(stream).await.split();
    let (mut from_inner, mut to_inner) = tokio::io::split(outer);
    tokio::spawn(async move {
        let incoming = async {
            while let Some(Ok(message)) = source.next().await {
                let bytes = match message {
                    Message::Binary(bytes) => bytes,
                    Message::Close(_) => break,
                    _ => continue,
                };
                if to_inner.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = to_inner.shutdown().await;
        };
        let outgoing = async {
            let mut chunk = vec![0; TUNNEL / 2];
            while let Ok(count @ 1..) = from_inner.read(&mut chunk).await {
                let message = Message::Binary(Bytes::copy_from_slice(&chunk[..count]));
                if sink.send(message).await.is_err() {
                    return;
                }
            }
            let _ = sink.send(Message::Close(Some(goodbye()))).await;
            let _ = sink.close().await;
        };
        tokio::select! {
            () = incoming => {}
            () = outgoing => {}
        }
    });
    inner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::server::remote::Size;

    #[test]
    fn channels_are_told_apart() {
        let input = |bytes: &'static [u8], v5| decode(&Bytes::from_static(bytes), v5);
        assert!(matches!(input(b"\x00hi", false), Some(Input::Stdin(bytes)) if bytes == "hi"));
        assert!(matches!(
            input(b"\x04{\"Width\":10,\"Height\":5}", false),
            Some(Input::Resize(Size {
                width: 10,
                height: 5
            }))
        ));
        assert!(matches!(input(b"\xff\x00", true), Some(Input::StdinEnd)));
        assert!(
            input(b"\xff\x00", false).is_none(),
            "version 4 has no close"
        );
        assert!(input(b"", true).is_none());
        assert!(input(b"\x01spoof", true).is_none());
    }

    #[tokio::test]
    async fn a_tunnel_carries_bytes_both_ways() {
        let (near, far) = tokio::io::duplex(1024);
        let mut inner = tunnel(near).await;
        let mut client = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        client
            .send(Message::Binary(Bytes::from_static(b"abc")))
            .await
            .unwrap();
        let mut got = [0; 3];
        inner.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"abc");
        inner.write_all(b"xyz").await.unwrap();
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            Message::Binary(Bytes::from_static(b"xyz"))
        );
        client.close(None).await.unwrap();
        assert_eq!(inner.read(&mut got).await.unwrap(), 0);
    }
}
