//! Port-forward: connections made inside the pod's network namespace, carried over
//! SPDY (plain or inside a WebSocket) or over WebSocket channels.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{Connection, Stream, Writer};
use super::upgrade::{self, Protocol};
use super::websocket::{frame, goodbye, open, tunnel};
use super::{Answer, Query, text};
use crate::kubelet::PodView;
use crate::kubelet::status::pod_full_name;

/// SPDY inside a WebSocket, as kubectl does it.
const TUNNELED: &str = "SPDY/3.1+portforward.k8s.io";
/// Plain WebSocket channels, as kube-rs does it.
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "portforward.k8s.io"];
const SPDY: [&str; 1] = ["portforward.k8s.io"];
/// Ports over one WebSocket.
const MAX_PORTS: usize = 64;
/// An error stream waits this long for its data stream.
const PAIRING: Duration = Duration::from_secs(30);
const QUEUE: usize = 16;
const CHUNK: usize = 32 << 10;

/// Where connections are made.
#[derive(Clone)]
struct Pod {
    netns: PathBuf,
    name: String,
}

/// Answers a port-forward request.
pub fn answer(view: &PodView, query: &Query, request: Request<Incoming>) -> Answer {
    let Some(sandbox) = &view.sandbox else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unable to do port forwarding: the pod is not running\n",
        );
    };
    let pod = Pod {
        netns: sandbox.netns(),
        name: pod_full_name(&view.pod),
    };
    let offers = [TUNNELED, CHANNELS[0], CHANNELS[1]];
    let protocol = match upgrade::choose(request.headers(), &offers, &SPDY) {
        Ok(protocol) => protocol,
        Err(answer) => return *answer,
    };
    let plain = match &protocol {
        Protocol::WebSocket(name) => name.as_deref() != Some(TUNNELED),
        Protocol::Spdy(_) => false,
    };
    let ports = match ports(query) {
        Ok(ports) if !plain || !ports.is_empty() => ports,
        Ok(_) => {
            return text(
                StatusCode::BAD_REQUEST,
                "query parameter \"port\" is required\n",
            );
        }
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let (answer, upgraded) = match upgrade::accept(request, &protocol) {
        Ok(accepted) => accepted,
        Err(answer) => return *answer,
    };
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let stream = TokioIo::new(upgraded);
        match protocol {
            Protocol::Spdy(_) => over_spdy(pod, Connection::start(stream)).await,
            Protocol::WebSocket(_) if !plain => {
                over_spdy(pod, Connection::start(tunnel(stream).await)).await;
            }
            Protocol::WebSocket(_) => over_channels(pod, ports, stream).await,
        }
    });
    answer
}

fn ports(query: &Query) -> Result<Vec<u16>, String> {
    let words = query
        .all("port")
        .chain(query.all("ports"))
        .flat_map(|text| text.split(','));
    let ports: Vec<u16> = words
        .map(|word| {
            word.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("port {word:?} is not a port number\n"))
        })
        .collect::<Result<_, _>>()?;
    if ports.len() > MAX_PORTS {
        return Err(format!("more than {MAX_PORTS} ports at once\n"));
    }
    Ok(ports)
}

/// A connection to a port inside a network namespace.
async fn connect(pod: &Pod, port: u16) -> Result<TcpStream, String> {
    let netns = pod.netns.clone();
    let connected = tokio::task::spawn_blocking(move || -> io::Result<std::net::TcpStream> {
        let netns = linux::NetNs::open(&netns).map_err(io::Error::other)?;
        linux::run_in(&netns, || {
            let to = |ip: IpAddr| {
                std::net::TcpStream::connect_timeout(
                    &SocketAddr::new(ip, port),
                    Duration::from_secs(10),
                )
            };
            to(Ipv4Addr::LOCALHOST.into())
                .or_else(|first| to(Ipv6Addr::LOCALHOST.into()).map_err(|_| first))
        })
        .map_err(io::Error::other)?
    })
    .await;
    let stream = connected
        .map_err(io::Error::other)
        .flatten()
        .and_then(|stream| {
            stream.set_nonblocking(true)?;
            TcpStream::from_std(stream)
        });
    stream.map_err(|error| {
        format!("error forwarding port {port} to pod {}: failed to connect to localhost:{port} inside its network namespace: {error}", pod.name)
    })
}

/// Pairs the streams the client opens: an error and a data stream for each connection.
async fn over_spdy(pod: Pod, mut connection: Connection) {
    let mut waiting: HashMap<String, (Option<Stream>, Option<Stream>)> = HashMap::new();
    loop {
        let accepted = match waiting.is_empty() {
            true => Ok(connection.accept().await),
            false => tokio::time::timeout(PAIRING, connection.accept()).await,
        };
        let stream = match accepted {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(_) => {
                waiting.clear();
                continue;
            }
        };
        let id = stream.header("requestid").unwrap_or_default().to_owned();
        let data = stream.header("streamtype") == Some("data");
        let pair = waiting.entry(id.clone()).or_default();
        if data {
            pair.1 = Some(stream);
        } else {
            pair.0 = Some(stream);
        }
        if let (Some(_), Some(_)) = pair
            && let Some((Some(error), Some(data))) = waiting.remove(&id)
        {
            tokio::spawn(forward(pod.clone(), error, data));
        }
    }
}

async fn forward(pod: Pod, error: Stream, data: Stream) {
    let port = data.header("port").and_then(|port| port.parse().ok());
    let (error, _) = error.split();
    let (writer, reader) = data.split();
    let connected = match port {
        Some(port) => connect(&pod, port).await,
        None => Err("the stream names no port".to_owned()),
    };
    match connected {
        Ok(stream) => {
            relay(stream, reader, &writer).await;
            error.finish().await;
        }
        Err(message) => {
            let _ = error.send(message.into()).await;
            error.finish().await;
            writer.reset().await;
        }
    }
}

/// Moves bytes both ways until both directions have ended.
async fn relay(stream: TcpStream, mut reader: mpsc::Receiver<Bytes>, writer: &Writer) {
    let (mut from, mut to) = stream.into_split();
    let inward = async {
        while let Some(bytes) = reader.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let outward = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            if writer
                .send(Bytes::copy_from_slice(&chunk[..count]))
                .await
                .is_err()
            {
                break;
            }
        }
        writer.finish().await;
    };
    tokio::pin!(inward, outward);
    tokio::select! {
        // The pod closed: nothing the client still sends can arrive.
        () = &mut outward => {}
        () = &mut inward => outward.await,
    }
}

/// Two channels for each port: data and error, each begun by the port's number.
async fn over_channels<S>(pod: Pod, ports: Vec<u16>, stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut source) = open(stream).await.split();
    let (frames, mut queue) = mpsc::channel::<Bytes>(QUEUE);
    let mut inputs = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let channel = u8::try_from(2 * index).unwrap_or(u8::MAX - 1);
        let (input, receiver) = mpsc::channel::<Bytes>(QUEUE);
        inputs.push(input);
        tokio::spawn(channel_pair(
            pod.clone(),
            port,
            channel,
            receiver,
            frames.clone(),
        ));
    }
    drop(frames);
    let sending = async {
        while let Some(bytes) = queue.recv().await {
            if sink.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(Some(goodbye()))).await;
        let _ = sink.close().await;
    };
    let receiving = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            let Some(channel) = bytes.first().map(|channel| usize::from(*channel)) else {
                continue;
            };
            if channel % 2 == 0
                && let Some(input) = inputs.get(channel / 2)
            {
                let _ = input.send(bytes.slice(1..)).await;
            }
        }
        inputs.clear();
    };
    tokio::pin!(sending, receiving);
    tokio::select! {
        () = &mut sending => {}
        () = &mut receiving => {
            let _ = tokio::time::timeout(PAIRING, sending).await;
        }
    }
}

async fn channel_pair(
    pod: Pod,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    frames: mpsc::Sender<Bytes>,
) {
    let number = port.to_le_bytes();
    for channel in [channel, channel + 1] {
        if frames.send(frame(channel, &number)).await.is_err() {
            return;
        }
    }
    let stream = match connect(&pod, port).await {
        Ok(stream) => stream,
        Err(message) => {
            let _ = frames.send(frame(channel + 1, message.as_bytes())).await;
            return;
        }
    };
    let (from, mut to) = stream.into_split();
    let outward = copy_out(from, channel, frames);
    let inward = async {
        while let Some(bytes) = input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::pin!(inward, outward);
    tokio::select! {
        () = &mut outward => {}
        () = &mut inward => outward.await,
    }
}

async fn copy_out(mut from: OwnedReadHalf, channel: u8, frames: mpsc::Sender<Bytes>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        if frames.send(frame(channel, &chunk[..count])).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_both_forms() {
        let of = |query| ports(&Query::parse(Some(query)));
        assert_eq!(of("port=80&port=443"), Ok(vec![80, 443]));
        assert_eq!(of("ports=80,443"), Ok(vec![80, 443]));
        assert!(of("port=0").is_err() && of("port=http").is_err());
    }

    #[tokio::test]
    async fn a_closed_port_is_told_by_name() {
        let pod = Pod {
            netns: PathBuf::from("/proc/self/ns/net"),
            name: "web_default(u)".to_owned(),
        };
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let Err(message) = connect(&pod, port).await else {
            panic!("connected")
        };
        // Without root the namespace cannot be entered, which is told as well.
        assert!(
            message.starts_with(&format!(
                "error forwarding port {port} to pod web_default(u)"
            )),
            "{message}"
        );
    }
}
