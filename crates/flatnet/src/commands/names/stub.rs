//! One question to one server, from where the calling thread's network is.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use dns::wire::{Class, Edns, EdnsOption, Header, Message, Name, Question, Type};

/// Asks, and again over TCP where the answer is cut; the answer comes within `patience` or not
/// at all.
pub fn ask(server: SocketAddr, name: &Name, kind: Type, patience: Duration) -> io::Result<Message> {
    let until = Instant::now() + patience;
    let question = Message {
        header: Header {
            id: rand::random(),
            recursion_desired: true,
            ..Header::default()
        },
        question: Some(Question {
            name: name.clone(),
            kind,
            class: Class::IN,
        }),
        edns: Some(Edns {
            options: [EdnsOption::NSID, EdnsOption::ANSWERED_BY]
                .map(|code| EdnsOption {
                    code,
                    data: Box::default(),
                })
                .into(),
            ..Edns::default()
        }),
        ..Message::default()
    };
    let answer = by_datagram(server, &question, until)?;
    if answer.header.truncated {
        return by_stream(server, &question, until);
    }
    Ok(answer)
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn by_datagram(server: SocketAddr, question: &Message, until: Instant) -> io::Result<Message> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.send(&question.to_bytes())?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        socket.set_read_timeout(Some(left(until)?))?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            length => length?,
        };
        let answer = Message::parse(buffer.get(..length).unwrap_or_default());
        // What is no answer to this question is somebody else's.
        if let Ok(answer) = answer
            && is_answer(&answer, question)
        {
            return Ok(answer);
        }
    }
}

fn by_stream(server: SocketAddr, question: &Message, until: Instant) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    stream.set_read_timeout(Some(left(until)?))?;
    let bytes = question.to_bytes();
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    let answer = Message::parse(&bytes).map_err(io::Error::other)?;
    if is_answer(&answer, question) {
        Ok(answer)
    } else {
        Err(io::Error::other("the answer is to another question"))
    }
}

fn is_answer(answer: &Message, question: &Message) -> bool {
    answer.header.response
        && answer.header.id == question.header.id
        && answer
            .question
            .as_ref()
            .is_none_or(|asked| Some(asked) == question.question.as_ref())
}
