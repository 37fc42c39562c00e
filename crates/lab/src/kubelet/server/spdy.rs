//! SPDY/3.1 as Kubernetes' clients use it: streams in both directions over one
//! connection, opened by the client. Like their implementation it has no flow control;
//! a stream nobody reads holds the connection, so memory stays bounded.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::spdy_headers::{Decoder, Encoder};

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
/// The most bytes of a frame that are taken.
const MAX_FRAME: usize = 1 << 20;
/// Bytes of a data frame that is sent.
const CHUNK: usize = 32 << 10;
/// Streams open at once.
const MAX_STREAMS: usize = 1024;
/// Frames under way.
const QUEUE: usize = 16;

/// The server's side of a connection. Dropping it ends the connection.
pub struct Connection {
    accepted: mpsc::Receiver<Stream>,
    frames: mpsc::Sender<Vec<u8>>,
    ended: watch::Receiver<bool>,
    tasks: [AbortHandle; 2],
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A stream the client opened.
pub struct Stream {
    headers: BTreeMap<String, String>,
    writer: Writer,
    reader: mpsc::Receiver<Bytes>,
}

impl Stream {
    /// A header the client gave it; names are lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The two directions; the reader ends with the client's.
    pub fn split(self) -> (Writer, mpsc::Receiver<Bytes>) {
        (self.writer, self.reader)
    }
}

/// Our direction of a stream.
#[derive(Clone)]
pub struct Writer {
    id: u32,
    frames: mpsc::Sender<Vec<u8>>,
}

/// The connection has ended.
#[derive(Debug)]
pub struct Ended;

impl Writer {
    /// Sends bytes.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Ended> {
        for part in bytes.chunks(CHUNK) {
            self.frames
                .send(data(self.id, 0, part))
                .await
                .map_err(|_| Ended)?;
        }
        Ok(())
    }

    /// Ends our direction.
    pub async fn finish(&self) {
        let _ = self.frames.send(data(self.id, FLAG_FIN, &[])).await;
    }

    /// Ends both directions at once.
    pub async fn reset(&self) {
        const CANCEL: u32 = 5;
        let mut body = self.id.to_be_bytes().to_vec();
        body.extend_from_slice(&CANCEL.to_be_bytes());
        let _ = self.frames.send(control(RST_STREAM, 0, &body)).await;
    }
}

fn data(id: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(bytes.len() + 8);
    frame.extend_from_slice(&(id & 0x7fff_ffff).to_be_bytes());
    frame.extend_from_slice(&head(flags, bytes.len()));
    frame.extend_from_slice(bytes);
    frame
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80, 3];
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&head(flags, body.len()));
    frame.extend_from_slice(body);
    frame
}

fn head(flags: u8, length: usize) -> [u8; 4] {
    let mut head = u32::try_from(length).unwrap_or(0).to_be_bytes();
    head[0] = flags;
    head
}

impl Connection {
    /// Speaks SPDY over a stream of bytes.
    pub fn start<S>(stream: S) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut source, mut sink) = tokio::io::split(stream);
        let (frames, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        let (accepts, accepted) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(false);
        let writing = tokio::spawn(async move {
            while let Some(frame) = queue.recv().await {
                // An empty frame is the end of all.
                if frame.is_empty()
                    || sink.write_all(&frame).await.is_err()
                    || sink.flush().await.is_err()
                {
                    break;
                }
            }
            let _ = sink.shutdown().await;
        });
        let answers = frames.clone();
        let reading = tokio::spawn(async move {
            let mut state = Reading {
                decoder: Decoder::default(),
                encoder: Encoder::default(),
                open: Arc::default(),
                frames: answers,
                accepts,
            };
            if let Err(error) = state.read(&mut source).await {
                tracing::debug!(%error, "SPDY connection");
            }
            drop(state);
            end.send_replace(true);
        });
        Self {
            accepted,
            frames,
            ended,
            tasks: [writing.abort_handle(), reading.abort_handle()],
        }
    }

    /// The next stream the client opens; none when the connection has ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Writes out what is under way, says goodbye and waits a moment for the client to go.
    pub async fn finish(self) {
        let _ = self.frames.send(control(GOAWAY, 0, &[0; 8])).await;
        let _ = self.frames.send(Vec::new()).await;
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.closed()).await;
    }
}

/// The streams whose client direction is open.
type Open = Arc<Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

struct Reading {
    decoder: Decoder,
    encoder: Encoder,
    open: Open,
    frames: mpsc::Sender<Vec<u8>>,
    accepts: mpsc::Sender<Stream>,
}

impl Reading {
    async fn read(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        loop {
            let mut head = [0; 8];
            match source.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            };
            let [a, b, c, d, flags, x, y, z] = head;
            let length = u32::from_be_bytes([0, x, y, z]) as usize;
            if length > MAX_FRAME {
                return Err(io::Error::other("frame too large"));
            }
            let mut body = vec![0; length];
            source.read_exact(&mut body).await?;
            if a & 0x80 != 0 {
                let kind = u16::from_be_bytes([c, d]);
                if !self.control(kind, flags, &body).await? {
                    return Ok(());
                }
            } else {
                let id = u32::from_be_bytes([a, b, c, d]);
                self.data(id, flags, body).await;
            }
        }
    }

    async fn data(&mut self, id: u32, flags: u8, body: Vec<u8>) {
        let sender = self.lock().get(&id).cloned();
        if let Some(sender) = sender
            && !body.is_empty()
        {
            // Nobody reads it any more: dropped.
            let _ = sender.send(body.into()).await;
        }
        if flags & FLAG_FIN != 0 {
            self.lock().remove(&id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, mpsc::Sender<Bytes>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A control frame; false where the client said goodbye.
    async fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> io::Result<bool> {
        let id = |body: &[u8]| -> io::Result<u32> {
            let bytes = body.first_chunk::<4>();
            let bytes = bytes.ok_or_else(|| io::Error::other("control frame ends early"))?;
            Ok(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
        };
        match kind {
            SYN_STREAM => {
                let block = body
                    .get(10..)
                    .ok_or_else(|| io::Error::other("SYN_STREAM ends early"))?;
                let headers = self.decoder.decode(block).map_err(io::Error::other)?;
                self.opened(id(body)?, flags, headers).await
            }
            RST_STREAM => {
                let id = id(body)?;
                self.lock().remove(&id);
                Ok(true)
            }
            PING => {
                // Odd numbers are the client's; it gets its number back.
                let _ = self.frames.send(control(PING, 0, body)).await;
                Ok(true)
            }
            GOAWAY => Ok(false),
            _ => Ok(true),
        }
    }

    async fn opened(
        &mut self,
        id: u32,
        flags: u8,
        headers: BTreeMap<String, String>,
    ) -> io::Result<bool> {
        if self.lock().len() >= MAX_STREAMS {
            return Err(io::Error::other("too many streams"));
        }
        let (sender, reader) = mpsc::channel(QUEUE);
        if flags & FLAG_FIN == 0 {
            self.lock().insert(id, sender);
        }
        let mut reply = id.to_be_bytes().to_vec();
        reply.extend(self.encoder.encode(&[]));
        let _ = self.frames.send(control(SYN_REPLY, 0, &reply)).await;
        let writer = Writer {
            id,
            frames: self.frames.clone(),
        };
        let stream = Stream {
            headers,
            writer,
            reader,
        };
        Ok(self.accepts.send(stream).await.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, Vec<u8>) {
        let mut head = vec![0; 8];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]);
        let mut body = vec![0; length as usize];
        stream.read_exact(&mut body).await.unwrap();
        (head, body)
    }

    #[tokio::test]
    async fn streams_are_opened_answered_and_ended() {
        let (near, mut far) = tokio::io::duplex(4096);
        let mut connection = Connection::start(near);
        let mut encoder = Encoder::default();
        let mut syn = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        syn.extend(encoder.encode(&[("streamType", "data"), ("port", "80")]));
        far.write_all(&control(SYN_STREAM, 0, &syn)).await.unwrap();
        let stream = connection.accept().await.unwrap();
        assert_eq!(stream.header("streamtype"), Some("data"));
        let (head, body) = read_frame(&mut far).await;
        assert_eq!(head[..4], [0x80, 3, 0, 2], "a SYN_REPLY");
        assert_eq!(body[..4], [0, 0, 0, 1]);
        let (writer, mut reader) = stream.split();
        far.write_all(&data(1, 0, b"ping")).await.unwrap();
        assert_eq!(reader.recv().await.unwrap(), "ping");
        far.write_all(&data(1, FLAG_FIN, b"")).await.unwrap();
        assert!(reader.recv().await.is_none());
        writer.send(Bytes::from_static(b"pong")).await.unwrap();
        writer.finish().await;
        assert_eq!(read_frame(&mut far).await.1, b"pong");
        assert_eq!(
            read_frame(&mut far).await.0,
            [0, 0, 0, 1, FLAG_FIN, 0, 0, 0]
        );
        far.write_all(&control(PING, 0, &[0, 0, 0, 3]))
            .await
            .unwrap();
        assert_eq!(read_frame(&mut far).await.1, [0, 0, 0, 3]);
        drop(far);
        connection.closed().await;
        assert!(connection.accept().await.is_none());
    }

    #[tokio::test]
    async fn nonsense_ends_the_connection() {
        let (near, mut far) = tokio::io::duplex(4096);
        let mut connection = Connection::start(near);
        far.write_all(&control(SYN_STREAM, 0, b"short"))
            .await
            .unwrap();
        assert!(connection.accept().await.is_none());
    }
}
