//! The server over real sockets, asked by the tools that people use.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dns::metrics::Metrics;
use dns::query::{Answer, Outcome, Query};
use dns::serve::{Answers, At, Limits, Listener, Scheme, Server, Site, sockets};
use dns::wire::{Class, Data, Header, Message, Name, Question, Rcode, Record, Type};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Answers by the first label: `a` one address, `manyN` so many, `slow` late, `panic` not. Its
/// zones are told apart by the last number of the address.
#[derive(Default)]
pub struct Fixed(Vec<Name>);

pub fn fixed(zones: &[&str]) -> Arc<Fixed> {
    Arc::new(Fixed(
        zones.iter().map(|zone| zone.parse().unwrap()).collect(),
    ))
}

impl Answers for Fixed {
    fn sites(&self) -> Vec<Site> {
        let each = self.0.iter().map(|zone| Site {
            zone: zone.clone(),
            view: String::new(),
            plugins: vec!["prometheus"],
        });
        each.collect()
    }

    fn route(&self, query: &Query) -> Option<usize> {
        let asked = &query.question;
        let within = |zone| asked.class == Class::IN && asked.name.is_within(zone);
        self.0.iter().position(within)
    }

    async fn answer(self: &Arc<Self>, site: usize, query: &mut Query) -> Outcome {
        let name = &query.question.name;
        let first = name.labels().next().unwrap_or_default();
        let first = first.to_ascii_lowercase();
        let mut answer = Answer {
            authoritative: true,
            by: "fixed",
            ..Answer::default()
        };
        let count = match first.as_slice() {
            b"panic" => panic!("as asked"),
            b"drop" => return Outcome::Drop,
            b"none" => {
                answer.rcode = Rcode::NXDOMAIN;
                0
            }
            b"slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                1
            }
            many if many.starts_with(b"many") => {
                std::str::from_utf8(&many[4..]).unwrap().parse().unwrap()
            }
            _ => 1,
        };
        if query.question.kind == Type::A {
            for number in 0..count {
                let ip = Ipv4Addr::new(10, 0, number, site as u8);
                let record = Record::new(name.clone(), 5, Data::A(ip));
                answer.answers.push(record);
            }
        }
        Outcome::Answer(answer)
    }
}

/// A server with sites on a free port of an address.
pub struct Running {
    pub server: Server<Fixed>,
    pub metrics: Arc<Metrics>,
    pub at: At,
    pub address: SocketAddr,
}

pub fn running(ip: IpAddr, workers: usize, answers: Arc<Fixed>) -> Running {
    let sockets = dns::serve::sockets(Scheme::Dns, (ip, 0).into(), workers).unwrap();
    let address = sockets[0].tcp.local_addr().unwrap();
    let at = At {
        scheme: Scheme::Dns,
        ip: Some(ip),
        port: address.port(),
    };
    let metrics = Arc::new(Metrics::default());
    let listener = Listener {
        at,
        answers,
        sockets,
        tls: None,
        limits: Limits {
            idle: Duration::from_secs(2),
            ..Limits::default()
        },
    };
    let server = Server::start(workers, Arc::clone(&metrics), vec![listener]).unwrap();
    Running {
        server,
        metrics,
        at,
        address,
    }
}

/// What dig prints for some arguments.
pub fn dig(address: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("dig")
        .arg(format!("@{}", address.ip()))
        .args(["-p", &address.port().to_string(), "+tries=1", "+timeout=5"])
        .args(arguments)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
fn dig_is_answered() {
    let running = running(LOCALHOST, 2, fixed(&["b.example", "."]));
    for tcp in ["+notcp", "+tcp"] {
        let said = dig(running.address, &["a.example", tcp]);
        assert!(said.contains("status: NOERROR"), "{said}");
        assert!(said.contains("flags: qr aa rd;"), "{said}");
        assert!(said.contains("10.0.0.1"), "{said}");
        assert!(!said.contains("WARNING: Messages"), "{said}");
        assert!(dig(running.address, &["x.B.example", tcp, "+short"]).contains("10.0.0.0"));
        assert!(dig(running.address, &["slow.example", tcp, "+short"]).contains("10.0.0.1"));
        assert!(dig(running.address, &["panic.example", tcp]).contains("SERVFAIL"));
        assert!(dig(running.address, &["a.example", "CH", "TXT", tcp]).contains("REFUSED"));
    }
    assert_eq!(running.at.to_string(), format!("dns://{}", running.address));
    assert!(running.metrics.text().contains("coredns_panics_total 2\n"));
    drop(running.server);
}

#[test]
fn too_long_for_udp_is_asked_again_over_tcp() {
    let running = running(LOCALHOST, 1, fixed(&["."]));
    let many = "many100.example";
    let said = dig(running.address, &[many, "+noedns"]);
    assert!(said.contains("Truncated, retrying in TCP mode"), "{said}");
    assert!(said.contains("ANSWER: 100,"), "{said}");
    let cut = dig(running.address, &[many, "+ignore", "+noedns"]);
    assert!(cut.contains("flags: qr aa tc rd;"), "{cut}");
    let cut = dig(running.address, &[many, "+ignore", "+bufsize=1232"]);
    assert!(cut.contains("flags: qr aa tc rd;"), "{cut}");
    assert!(cut.contains("udp: 1232"), "{cut}");
    let whole = dig(running.address, &[many, "+ignore", "+bufsize=4096"]);
    assert!(whole.contains("flags: qr aa rd;"), "{whole}");
    // Less than anybody takes is taken as that.
    let whole = dig(
        running.address,
        &["many20.example", "+ignore", "+bufsize=100"],
    );
    assert!(whole.contains("flags: qr aa rd;"), "{whole}");
}

#[test]
fn edns_and_what_is_not_a_question() {
    let running = running(LOCALHOST, 1, fixed(&["example"]));
    let ask = |arguments: &[&str]| dig(running.address, arguments);
    assert!(ask(&["a.example", "+edns=1", "+noednsneg"]).contains("status: BADVERS"));
    assert!(ask(&["a.example", "+dnssec"]).contains("flags: do;"));
    let said = ask(&["a.example", "+cookie=0102030405060708"]);
    assert!(said.contains("COOKIE: 010203040506070801000000"), "{said}");
    assert!(said.contains("(good)"), "{said}");
    assert!(ask(&["a.example", "+nocookie", "+ednsopt=10:1122"]).contains("status: FORMERR"));
    assert!(ask(&["a.example", "+opcode=UPDATE"]).contains("status: NOTIMP"));
    assert!(ask(&["a.example", "+opcode=NOTIFY"]).contains("status: NOTIMP"));
    assert!(ask(&["a.elsewhere"]).contains("status: REFUSED"));
    assert!(ask(&["none.example"]).contains("status: NXDOMAIN"));
    let said = ask(&["a.example", "+tcp", "+keepalive"]);
    assert!(said.contains("TCP KEEPALIVE: 2.0 secs"), "{said}");

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let patience = Duration::from_millis(300);
    socket.set_read_timeout(Some(patience)).unwrap();
    let response = Message {
        header: Header {
            response: true,
            ..question(7, "a.example").header
        },
        ..question(7, "a.example")
    };
    for silent in [&b""[..], b"\0\x01\x01\0", &response.to_bytes()] {
        socket.send_to(silent, running.address).unwrap();
        assert!(socket.recv(&mut [0; 512]).is_err(), "{silent:?}");
    }
    // The letters of a question come back as they were, in the answer's name as well.
    socket.set_read_timeout(Some(LONG)).unwrap();
    let asked = question(8, "wWw.ExAmPlE").to_bytes();
    socket.send_to(&asked, running.address).unwrap();
    let mut bytes = [0; 512];
    let len = socket.recv(&mut bytes).unwrap();
    assert_eq!(bytes[12..asked.len()], asked[12..]);
    let answer = Message::parse(&bytes[..len]).unwrap();
    assert_eq!(answer.answers[0].name.to_string(), "wWw.ExAmPlE.");
}

const LONG: Duration = Duration::from_secs(10);

fn question(id: u16, name: &str) -> Message {
    Message {
        header: Header {
            id,
            recursion_desired: true,
            ..Header::default()
        },
        question: Some(Question {
            name: name.parse().unwrap(),
            kind: Type::A,
            class: Class::IN,
        }),
        ..Message::default()
    }
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_bytes();
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), &bytes[..]].concat()
}

fn read_framed(stream: &mut TcpStream) -> std::io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    Ok(Message::parse(&bytes).unwrap())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

#[test]
fn a_connection_has_many_questions_in_flight() {
    let running = running(LOCALHOST, 1, fixed(&["."]));
    let mut stream = connect(running.address);
    let questions = ["slow.x", "a.x", "b.x"].iter().zip(1..);
    let bytes: Vec<u8> = questions
        .flat_map(|(name, id)| framed(&question(id, name)))
        .collect();
    stream.write_all(&bytes).unwrap();
    let mut order = || read_framed(&mut stream).unwrap().header.id;
    assert_eq!([order(), order(), order()], [2, 3, 1]);
    // A thousand, more than are taken at once, and read only when all are written.
    let bytes: Vec<u8> = (0..1000)
        .flat_map(|id| {
            framed(&question(
                id,
                if id % 2 == 0 { "slow.x" } else { "many50.x" },
            ))
        })
        .collect();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&bytes));
    let mut ids: Vec<u16> = (0..1000)
        .map(|_| read_framed(&mut stream).unwrap().header.id)
        .collect();
    ids.sort_unstable();
    assert!(ids.into_iter().eq(0..1000));
    writing.join().unwrap().unwrap();
}

#[test]
fn slow_and_half_closed_connections() {
    let running = running(LOCALHOST, 1, fixed(&["."]));
    let mut slow = connect(running.address);
    for byte in framed(&question(1, "a.x")) {
        slow.write_all(&[byte]).unwrap();
        slow.flush().unwrap();
    }
    assert_eq!(read_framed(&mut slow).unwrap().header.id, 1);

    let mut half = connect(running.address);
    half.write_all(&framed(&question(2, "slow.x"))).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_framed(&mut half).unwrap().header.id, 2);
    assert_eq!(half.read(&mut [0; 1]).unwrap(), 0);

    // A promise of more than any question has ends the connection.
    let mut giant = connect(running.address);
    giant.write_all(&[0xff, 0xff, 0, 0]).unwrap();
    assert!(matches!(giant.read(&mut [0; 1]), Ok(0) | Err(_)));
    // Zero bytes are no message, and the next one is.
    let mut dwarf = connect(running.address);
    dwarf.write_all(&[0, 0]).unwrap();
    dwarf.write_all(&framed(&question(3, "a.x"))).unwrap();
    assert_eq!(read_framed(&mut dwarf).unwrap().header.id, 3);
}

/// After its first question two seconds here, without one three.
#[test]
fn an_idle_connection_ends() {
    let running = running(LOCALHOST, 1, fixed(&["."]));
    for (seconds, question) in [(2, Some(question(1, "a.x"))), (3, None)] {
        let mut stream = connect(running.address);
        if let Some(question) = question {
            stream.write_all(&framed(&question)).unwrap();
            read_framed(&mut stream).unwrap();
        }
        let start = Instant::now();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        assert!(start.elapsed() > Duration::from_secs(seconds) * 9 / 10);
    }
}

#[test]
fn ten_thousand_connections_are_bounded() {
    const TEST: &str = "ten_thousand_connections_are_bounded";
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if most < 13_000 || setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
        return testing::skip(TEST, "needs 13,000 open files");
    }
    let running = running(LOCALHOST, 1, fixed(&["."]));
    let mut first = connect(running.address);
    let crowd: Vec<TcpStream> = (0..10_000).map(|_| connect(running.address)).collect();
    let mut last = connect(running.address);
    last.write_all(&framed(&question(1, "a.x"))).unwrap();
    assert_eq!(read_framed(&mut last).unwrap().header.id, 1);
    // Whoever was idle the longest has made room.
    assert_eq!(first.read(&mut [0; 1]).unwrap(), 0);
    let here = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        stream
            .peek(&mut [0; 1])
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let here = crowd.iter().filter(here).count();
    assert!(here <= 1024, "{here} connections are open");
}

#[test]
fn thousands_of_slow_questions_at_once() {
    let running = running(LOCALHOST, 2, fixed(&["."]));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let start = Instant::now();
    let mut missing: BTreeSet<u16> = (0..2000).collect();
    for id in 0..2000 {
        let bytes = question(id, "slow.x").to_bytes();
        socket.send_to(&bytes, running.address).unwrap();
        // What a socket can hold is not what is tested.
        if id % 100 == 99 {
            while missing.len() > usize::from(2000 - id) {
                missing.remove(&received(&socket));
            }
        }
    }
    while !missing.is_empty() {
        missing.remove(&received(&socket));
    }
    assert!(start.elapsed() < LONG);
}

fn received(socket: &UdpSocket) -> u16 {
    let mut bytes = [0; 512];
    let len = socket.recv(&mut bytes).unwrap();
    Message::parse(&bytes[..len]).unwrap().header.id
}

/// Questions one after the other, over UDP and over one connection, while the server blocks
/// change all the time and a listener comes and goes: each is answered, and of each there is one
/// answer.
#[test]
fn reload_under_load_loses_nothing() {
    let mut running = running(LOCALHOST, 2, fixed(&["."]));
    let address = running.address;
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let asking: Vec<_> = (0..4)
        .map(|number| {
            let (done, answered) = (Arc::clone(&done), Arc::clone(&answered));
            std::thread::spawn(move || {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket.connect(address).unwrap();
                socket.set_read_timeout(Some(LONG)).unwrap();
                let mut stream = connect(address);
                let (mut count, mut lasts) = (0_u32, BTreeSet::new());
                while !done.load(Ordering::Relaxed) {
                    let id = count as u16;
                    let name = if count % 50 == 49 { "slow.x" } else { "a.x" };
                    let answer = if number % 2 == 0 {
                        socket.send(&question(id, name).to_bytes()).unwrap();
                        let mut bytes = [0; 512];
                        let len = socket.recv(&mut bytes).expect("an answer");
                        Message::parse(&bytes[..len]).unwrap()
                    } else {
                        stream.write_all(&framed(&question(id, name))).unwrap();
                        read_framed(&mut stream).expect("an answer")
                    };
                    assert_eq!(answer.header.id, id);
                    lasts.insert(answer.answers[0].data.ip().unwrap());
                    count += 1;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                (count, lasts)
            })
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let zones = [&["."][..], &["y", "."], &["z", "y", "."]];
    let mut other = sockets(Scheme::Dns, (LOCALHOST, 0).into(), 2).unwrap();
    let port = other[0].tcp.local_addr().unwrap().port();
    for round in 0..60 {
        let listener = |at, sockets| Listener {
            at,
            answers: fixed(zones[round % zones.len()]),
            sockets,
            tls: None,
            limits: Limits::default(),
        };
        let mut listeners = vec![listener(running.at, Vec::new())];
        if round % 2 == 0 {
            listeners.push(listener(
                At { port, ..running.at },
                std::mem::take(&mut other),
            ));
        }
        runtime.block_on(running.server.reload(listeners)).unwrap();
        // Each of the four may have asked one question before; the others are asked now.
        let (before, deadline) = (answered.load(Ordering::Relaxed), Instant::now() + LONG);
        while answered.load(Ordering::Relaxed) < before + 8 {
            assert!(Instant::now() < deadline, "no answers after a reload");
            std::thread::yield_now();
        }
    }
    done.store(true, Ordering::Relaxed);
    let (mut total, mut all) = (0, BTreeSet::new());
    for asking in asking {
        let (count, lasts) = asking.join().unwrap();
        total += count;
        all.extend(lasts);
    }
    assert!(total > 400, "{total} questions");
    assert_eq!(all.len(), zones.len(), "all three were served");
}
