//! An upstream that does as it is told, for tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use crate::wire::{Data, Message, Question, Rcode, Record};

/// What it says.
#[derive(Clone, Debug)]
pub(super) enum Say {
    /// 192.0.2.N.
    Address(u8),
    /// A code alone.
    Code(Rcode),
    /// That there is more over TCP.
    Truncated,
    /// 192.0.2.66, under another identifier.
    OtherId,
    /// 192.0.2.66, for another name.
    OtherName,
    /// What is asked, as a question.
    Question,
    /// Bytes that begin as they should.
    Garbage,
    /// So many TXT records of 250 bytes.
    Giant(usize),
    /// A wait.
    After(Duration),
    /// The end of the connection.
    Close,
}

type Script = dyn Fn(&Message, bool) -> Vec<Say> + Send + Sync;

#[derive(Clone)]
pub(super) struct Fake {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<(bool, Message)>>>,
    connections: Arc<Mutex<usize>>,
}

impl Fake {
    /// One that says this to each question; false is by UDP.
    pub(super) async fn start(
        script: impl Fn(&Message, bool) -> Vec<Say> + Send + Sync + 'static,
    ) -> Self {
        Self::with(script, None).await
    }

    pub(super) async fn with(
        script: impl Fn(&Message, bool) -> Vec<Say> + Send + Sync + 'static,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Somebody else may have the same port for datagrams.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let fake = Self {
            address: tcp.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let script: Arc<Script> = Arc::new(script);
        tokio::spawn(fake.clone().datagrams(udp, Arc::clone(&script)));
        tokio::spawn(
            fake.clone()
                .connections(tcp, script, tls.map(TlsAcceptor::from)),
        );
        fake
    }

    /// What it was asked; true is by TCP.
    pub(super) fn seen(&self) -> Vec<(bool, Message)> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn connected(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    async fn datagrams(self, socket: UdpSocket, script: Arc<Script>) {
        let socket = Arc::new(socket);
        let mut buffer = vec![0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let question = Message::parse(&buffer[..len]).unwrap();
            self.seen.lock().unwrap().push((false, question.clone()));
            let (socket, script) = (Arc::clone(&socket), Arc::clone(&script));
            tokio::spawn(async move {
                for say in script(&question, false) {
                    match say {
                        Say::After(time) => tokio::time::sleep(time).await,
                        say => {
                            let bytes = bytes(&say, &question);
                            socket.send_to(&bytes, from).await.unwrap();
                        }
                    }
                }
            });
        }
    }

    async fn connections(self, tcp: TcpListener, script: Arc<Script>, tls: Option<TlsAcceptor>) {
        while let Ok((stream, _)) = tcp.accept().await {
            *self.connections.lock().unwrap() += 1;
            let (fake, script, tls) = (self.clone(), Arc::clone(&script), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => fake.connection(stream, script).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            fake.connection(stream, script).await;
                        }
                    }
                }
            });
        }
    }

    async fn connection(
        self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        script: Arc<Script>,
    ) {
        while let Ok(len) = stream.read_u16().await {
            let mut buffer = vec![0; usize::from(len)];
            stream.read_exact(&mut buffer).await.unwrap();
            let question = Message::parse(&buffer).unwrap();
            self.seen.lock().unwrap().push((true, question.clone()));
            for say in script(&question, true) {
                match say {
                    Say::After(time) => tokio::time::sleep(time).await,
                    Say::Close => return,
                    say => {
                        let bytes = bytes(&say, &question);
                        let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
                        framed.extend(bytes);
                        if stream.write_all(&framed).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }
}

fn bytes(say: &Say, question: &Message) -> Vec<u8> {
    let mut answer = question.clone();
    answer.header.response = true;
    answer.header.recursion_available = true;
    let owner = |answer: &Message| answer.question.as_ref().map(|q| q.name.clone()).unwrap();
    let address = |answer: &mut Message, last| {
        let data = Data::A(Ipv4Addr::new(192, 0, 2, last));
        answer.answers.push(Record::new(owner(answer), 60, data));
    };
    match say {
        Say::Address(last) => address(&mut answer, *last),
        Say::Code(code) => answer.header.rcode = *code,
        Say::Truncated => answer.header.truncated = true,
        Say::OtherId => {
            answer.header.id ^= 1;
            address(&mut answer, 66);
        }
        Say::OtherName => {
            let asked = answer.question.take().unwrap();
            let name = "other.test".parse().unwrap();
            answer.question = Some(Question { name, ..asked });
            address(&mut answer, 66);
        }
        Say::Question => answer.header.response = false,
        Say::Garbage => {
            let mut bytes = answer.to_bytes();
            bytes[7] = 3;
            bytes.extend([0xff; 40]);
            return bytes;
        }
        Say::Giant(records) => {
            for _ in 0..*records {
                let data = Data::text(&"x".repeat(250));
                let record = Record::new(owner(&answer), 60, data);
                answer.answers.push(record);
            }
        }
        Say::After(_) | Say::Close => {}
    }
    answer.to_bytes()
}
