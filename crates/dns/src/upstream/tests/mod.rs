//! `forward` as a whole, against an upstream that does as it is told.

mod connections;
mod health;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use super::fake::{Fake, Say};
use super::*;
use crate::wire::{Class, Data, Name, Question, Type};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query(text: &str, transport: Transport) -> Query {
    Query {
        id: 7,
        question: Question {
            name: name(text),
            kind: Type::A,
            class: Class::IN,
        },
        recursion_desired: true,
        authentic: false,
        checking_disabled: false,
        edns: None,
        serial: None,
        client: "192.0.2.200:4000".parse().unwrap(),
        server: "127.0.0.1:53".parse().unwrap(),
        transport,
        now: std::time::Instant::now(),
    }
}

fn udp() -> Query {
    query("a.test", Transport::Udp)
}

fn to(address: SocketAddr) -> To {
    To::Server(Upstream {
        scheme: Scheme::Dns,
        address,
        interface: None,
        server_name: None,
    })
}

fn options(servers: &[&Fake]) -> Options {
    Options {
        to: servers.iter().map(|fake| to(fake.address)).collect(),
        policy: Policy::Sequential,
        read_timeout: Duration::from_millis(150),
        ..Options::default()
    }
}

fn no_files(path: &str) -> io::Result<String> {
    panic!("{path} is read")
}

fn with(options: Options, resources: &Resources) -> Forwards {
    Forwards::new(&[options], resources, &no_files).unwrap()
}

fn forwards(options: Options) -> Forwards {
    with(options, &Resources::default())
}

async fn ask(forwards: &Forwards, query: &Query) -> Result<Answer, Failure> {
    forwards
        .answer(query)
        .await
        .map(|answer| answer.expect("its zone"))
}

/// The last number of the only address.
fn last(answer: &Answer) -> u8 {
    match answer.answers.as_slice() {
        [record] => match record.data.ip() {
            Some(IpAddr::V4(ip)) => ip.octets()[3],
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test);
}

/// Waits until it is so.
async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..400 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[test]
fn what_goes_out_and_comes_back() {
    run(async {
        let fake = Fake::start(|_, _| vec![Say::Address(1)]).await;
        let forwards = forwards(options(&[&fake]));
        let mut question = query("A.tEst", Transport::Udp);
        question.checking_disabled = true;
        question.authentic = true;
        let option = |code| EdnsOption {
            code,
            data: [1; 8].into(),
        };
        question.edns = Some(Edns {
            udp_size: 4096,
            dnssec_ok: true,
            options: vec![
                option(EdnsOption::COOKIE),
                option(EdnsOption::CLIENT_SUBNET),
            ],
            version: 0,
        });
        let answer = ask(&forwards, &question).await.unwrap();
        assert_eq!((last(&answer), answer.by), (1, "forward"));
        assert!(answer.recursion_available && !answer.live);
        assert!(answer.answers[0].name.is_exactly(&name("A.tEst")));
        for _ in 0..30 {
            ask(&forwards, &question).await.unwrap();
        }
        let seen = fake.seen();
        let (by_tcp, sent) = &seen[0];
        assert!(
            !by_tcp
                && sent
                    .question
                    .as_ref()
                    .unwrap()
                    .name
                    .is_exactly(&name("A.tEst"))
        );
        assert!(sent.header.recursion_desired && sent.header.checking_disabled);
        assert!(sent.header.authentic);
        let edns = sent.edns.as_ref().unwrap();
        assert_eq!((edns.udp_size, edns.dnssec_ok), (4096, true));
        assert!(edns.option(EdnsOption::CLIENT_SUBNET).is_some());
        assert!(
            edns.option(EdnsOption::COOKIE).is_none(),
            "cookies are for neighbours"
        );
        let ids: HashSet<u16> = seen.iter().map(|(_, sent)| sent.header.id).collect();
        assert!(ids.len() > 25, "identifiers are random: {ids:?}");
    });
}

#[test]
fn which_way() {
    run(async {
        let fake = Fake::start(|_, tcp| match tcp {
            false => vec![Say::Truncated],
            true => vec![Say::Address(2)],
        })
        .await;
        let by = |change: fn(&mut Options), transport| {
            let mut options = options(&[&fake]);
            change(&mut options);
            let fake = fake.clone();
            async move {
                let before = fake.seen().len();
                let question = query("a.test", transport);
                let answer = ask(&forwards(options), &question).await.unwrap();
                let seen: Vec<bool> = fake.seen()[before..].iter().map(|(tcp, _)| *tcp).collect();
                (answer.truncated, seen)
            }
        };
        assert_eq!(by(|_| {}, Transport::Udp).await, (true, vec![false]));
        assert_eq!(by(|_| {}, Transport::Tcp).await, (false, vec![true]));
        assert_eq!(by(|_| {}, Transport::Tls).await, (false, vec![true]));
        assert_eq!(
            by(|o| o.force_tcp = true, Transport::Udp).await,
            (false, vec![true])
        );
        let prefer: fn(&mut Options) = |o| o.prefer_udp = true;
        assert_eq!(by(prefer, Transport::Udp).await, (false, vec![false, true]));
        assert_eq!(by(prefer, Transport::Tcp).await, (false, vec![false, true]));
    });
}

#[test]
fn lies_are_not_listened_to() {
    run(async {
        let lies = [Say::OtherId, Say::OtherName, Say::Garbage, Say::Question];
        for lie in lies {
            let told = lie.clone();
            let fake = Fake::start(move |_, _| {
                let pause = Say::After(Duration::from_millis(5));
                vec![told.clone(), told.clone(), pause, Say::Address(3)]
            })
            .await;
            let answer = ask(&forwards(options(&[&fake])), &udp()).await.unwrap();
            assert_eq!(last(&answer), 3, "{lie:?}");

            let told = lie.clone();
            let liar = Fake::start(move |_, _| vec![told.clone()]).await;
            let one = Options {
                max_connect_attempts: Some(1),
                ..options(&[&liar])
            };
            let failure = ask(&forwards(one), &udp()).await.unwrap_err();
            assert_eq!(failure.rcode, Rcode::SERVFAIL);
            let text = failure.text;
            assert!(
                text.contains("i/o timeout (1 messages that are no answer"),
                "{lie:?}: {text}"
            );
        }
        // The second copy of an answer is not the answer to the next question.
        let fake = Fake::start(|question, _| {
            let n = question.question.as_ref().unwrap().name.as_bytes()[1] - b'a';
            vec![Say::Address(n), Say::Address(n)]
        })
        .await;
        let forwards = forwards(options(&[&fake]));
        for (n, text) in ["a.test", "b.test", "c.test", "d.test"].iter().enumerate() {
            let answer = ask(&forwards, &query(text, Transport::Udp)).await.unwrap();
            assert_eq!(usize::from(last(&answer)), n);
        }
    });
}

#[test]
fn lies_over_tcp() {
    run(async {
        for (lie, told) in [
            (Say::OtherName, "an answer to another question"),
            (Say::Garbage, "an answer that is not well formed"),
            (Say::Question, "a message that is no answer"),
            (Say::Close, "EOF"),
        ] {
            let fake = Fake::start(move |_, _| vec![lie.clone()]).await;
            let question = query("a.test", Transport::Tcp);
            let failure = ask(&forwards(options(&[&fake])), &question)
                .await
                .unwrap_err();
            assert!(failure.text.ends_with(told), "{}", failure.text);
        }
        let fake = Fake::start(|_, _| vec![Say::OtherId, Say::Address(4)]).await;
        let question = query("a.test", Transport::Tcp);
        let answer = ask(&forwards(options(&[&fake])), &question).await.unwrap();
        assert_eq!(last(&answer), 4);
    });
}

#[test]
fn large_answers() {
    run(async {
        let fake = Fake::start(|_, tcp| vec![Say::Giant(if tcp { 240 } else { 100 })]).await;
        let forwards = forwards(options(&[&fake]));
        let answer = ask(&forwards, &udp()).await.unwrap();
        assert_eq!(
            (answer.answers.len(), answer.truncated),
            (100, false),
            "more than was agreed"
        );
        let answer = ask(&forwards, &query("a.test", Transport::Tcp))
            .await
            .unwrap();
        assert_eq!(answer.answers.len(), 240);
    });
}

#[test]
fn failures_in_coredns_words() {
    run(async {
        let silent = Fake::start(|_, _| vec![]).await;
        let failure = ask(&forwards(options(&[&silent])), &udp())
            .await
            .unwrap_err();
        let text = &failure.text;
        let (read, rest) = text.split_at("read udp 127.0.0.1:".len());
        let (port, rest) = rest.split_once("->").unwrap();
        assert_eq!(
            (read, failure.rcode),
            ("read udp 127.0.0.1:", Rcode::SERVFAIL)
        );
        assert!(port.parse::<u16>().is_ok(), "{text}");
        assert_eq!(rest, format!("{}: i/o timeout", silent.address));
        assert_eq!(failure.by, "forward");
        until("asked twice, and checked", || silent.seen().len() >= 3).await;

        let nobody = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut to_nobody = options(&[]);
        to_nobody.to = vec![to(nobody)];
        let failure = ask(&forwards(to_nobody.clone()), &udp()).await.unwrap_err();
        let end = format!("->{nobody}: read: connection refused");
        assert!(failure.text.ends_with(&end), "{}", failure.text);
        let question = query("a.test", Transport::Tcp);
        let failure = ask(&forwards(to_nobody), &question).await.unwrap_err();
        assert_eq!(
            failure.text,
            format!("dial tcp {nobody}: connect: connection refused")
        );
    });
}

#[test]
fn policies() {
    run(async {
        let fakes = [
            Fake::start(|_, _| vec![Say::Address(0)]).await,
            Fake::start(|_, _| vec![Say::Address(1)]).await,
            Fake::start(|_, _| vec![Say::Address(2)]).await,
        ];
        let all: Vec<&Fake> = fakes.iter().collect();
        let by = |policy| {
            let options = Options {
                policy,
                ..options(&all)
            };
            async move {
                let forwards = forwards(options);
                let mut answered = Vec::new();
                for _ in 0..30 {
                    answered.push(last(&ask(&forwards, &udp()).await.unwrap()));
                }
                answered
            }
        };
        assert_eq!(by(Policy::Sequential).await, [0; 30]);
        assert_eq!(by(Policy::RoundRobin).await[..6], [1, 2, 0, 1, 2, 0]);
        let random: HashSet<u8> = by(Policy::Random).await.into_iter().collect();
        assert_eq!(random.len(), 3);
    });
}

#[test]
fn upstreams_that_say_no() {
    run(async {
        let refusing = Fake::start(|_, _| vec![Say::Code(Rcode::REFUSED)]).await;
        let empty = Fake::start(|_, _| vec![Say::Code(Rcode::NOERROR)]).await;
        let good = Fake::start(|_, _| vec![Say::Address(1)]).await;
        let code = |options: Vec<Options>| async move {
            let forwards = Forwards::new(&options, &Resources::default(), &no_files).unwrap();
            let answer = ask(&forwards, &udp()).await.unwrap();
            (answer.rcode, answer.answers.len())
        };
        let no = (Rcode::REFUSED, 0);
        let yes = (Rcode::NOERROR, 1);
        assert_eq!(code(vec![options(&[&refusing, &good])]).await, no);
        let failover = |servers: &[&Fake]| Options {
            failover: vec![Rcode::REFUSED],
            ..options(servers)
        };
        assert_eq!(code(vec![failover(&[&refusing, &good])]).await, yes);
        assert_eq!(code(vec![failover(&[&refusing, &refusing])]).await, no);
        let next = Options {
            next: vec![Rcode::REFUSED],
            ..options(&[&refusing])
        };
        assert_eq!(code(vec![next.clone()]).await, no, "there is no next");
        assert_eq!(code(vec![next, options(&[&good])]).await, yes);
        let nodata = Options {
            next_on_nodata: true,
            ..options(&[&empty])
        };
        assert_eq!(
            code(vec![options(&[&empty]), options(&[&good])]).await,
            (Rcode::NOERROR, 0)
        );
        assert_eq!(code(vec![nodata, options(&[&good])]).await, yes);
    });
}

#[test]
fn whose_names() {
    run(async {
        let fake = Fake::start(|_, _| vec![Say::Address(1)]).await;
        let forwards = forwards(Options {
            from: name("example.org"),
            except: vec![name("in.example.org"), name("example.org")],
            ..options(&[&fake])
        });
        for (question, is) in [
            ("example.ORG", true),
            ("www.example.org", false),
            ("other.test", false),
        ] {
            let answer = forwards
                .answer(&query(question, Transport::Udp))
                .await
                .unwrap();
            assert_eq!(answer.is_some(), is, "{question}");
        }
    });
}

#[test]
fn no_more_than_max_concurrent() {
    run(async {
        let slow = Fake::start(|_, _| vec![Say::After(Duration::from_millis(50)), Say::Address(1)]);
        let slow = slow.await;
        let resources = Resources::default();
        let forwards = with(
            Options {
                max_concurrent: 2,
                ..options(&[&slow])
            },
            &resources,
        );
        let question = udp();
        let asked = (0..3).map(|_| ask(&forwards, &question));
        let answers = futures::future::join_all(asked).await;
        assert!(answers[0].is_ok() && answers[1].is_ok());
        let failure = answers[2].clone().unwrap_err();
        assert_eq!(failure.rcode, Rcode::REFUSED);
        assert_eq!(failure.text, "concurrent queries exceeded maximum 2");
        assert_eq!(resources.metrics.max_concurrent_rejects.get(), 1);
        assert!(
            ask(&forwards, &question).await.is_ok(),
            "places are given back"
        );
    });
}

#[test]
fn upstreams_of_a_file() {
    let options = Options {
        to: vec![
            To::File("/etc/resolv.conf".into()),
            to("127.0.0.1:5301".parse().unwrap()),
        ],
        ..Options::default()
    };
    let resources = Resources {
        resolv_conf: Some("/run/node/resolv.conf".into()),
        ..Resources::default()
    };
    let says = |text: &'static str| {
        move |path: &str| {
            assert_eq!(path, "/run/node/resolv.conf");
            Ok(text.to_owned())
        }
    };
    let read = says("nameserver 10.0.0.1\nnameserver 10.0.0.2\n");
    let forwards = Forwards::new(std::slice::from_ref(&options), &resources, &read).unwrap();
    assert_eq!(
        forwards.files().collect::<Vec<_>>(),
        ["/run/node/resolv.conf"]
    );
    let servers = || Vec::clone(&forwards.0[0].servers.load());
    let before = servers();
    let addresses: Vec<String> = before.iter().map(|s| s.address.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1:53", "10.0.0.2:53", "127.0.0.1:5301"]);
    forwards
        .reread(&says("nameserver 10.0.0.2\nnameserver 10.0.0.3\n"))
        .unwrap();
    let after = servers();
    assert!(
        Arc::ptr_eq(&before[1], &after[0]),
        "who stays keeps what is known about it"
    );
    assert_eq!(after.len(), 3);
    // A file that is being written has nobody in it: things stay as they are.
    let gone = |_: &str| Err(io::ErrorKind::NotFound.into());
    assert!(forwards.reread(&gone).is_err());
    assert_eq!(servers().len(), 3);
    let only_file = Options {
        to: vec![To::File("/etc/resolv.conf".into())],
        ..options
    };
    let error = Forwards::new(&[only_file], &resources, &says("search a.test")).unwrap_err();
    assert_eq!(error, "no valid upstream addresses found");
}

#[test]
fn peers_answer_where_upstreams_do_not() {
    run(async {
        let peer = Fake::start(|_, _| vec![Say::Address(9)]).await;
        let peers = Arc::new(Peers::default());
        let resources = Resources {
            peers: Some(Arc::clone(&peers)),
            ..Resources::default()
        };
        let closing = Fake::start(|_, _| vec![Say::Close]).await;
        let broken = || Options {
            max_connect_attempts: Some(1),
            force_tcp: true,
            ..options(&[&closing])
        };
        let forwards = with(broken(), &resources);
        assert_eq!(
            ask(&forwards, &udp()).await.unwrap_err().text,
            "EOF",
            "nobody yet"
        );
        peers.set(vec![peer.address]);
        assert_eq!(last(&ask(&forwards, &udp()).await.unwrap()), 9);
        // A peer that asks is told the truth, or two would ask each other for ever.
        let mut of_peer = udp();
        of_peer.client = SocketAddr::from((peer.address.ip(), 4000));
        assert_eq!(ask(&forwards, &of_peer).await.unwrap_err().text, "EOF");
        // Upstreams that answer are asked first.
        let good = Fake::start(|_, _| vec![Say::Address(1)]).await;
        let forwards = with(options(&[&good]), &resources);
        let before = peer.seen().len();
        assert_eq!(last(&ask(&forwards, &udp()).await.unwrap()), 1);
        assert_eq!(peer.seen().len(), before);
        // Those that take long are not waited for.
        let silent = Fake::start(|_, _| vec![]).await;
        let patient = Options {
            read_timeout: Duration::from_secs(4),
            ..options(&[&silent])
        };
        let start = Instant::now();
        assert_eq!(
            last(&ask(&with(patient, &resources), &udp()).await.unwrap()),
            9
        );
        let took = start.elapsed();
        assert!(
            took >= PATIENCE && took < Duration::from_secs(4),
            "{took:?}"
        );
    });
}

#[test]
fn sockets_are_opened_where_they_are_wanted() {
    run(async {
        let fake = Fake::start(|_, _| vec![Say::Address(1)]).await;
        let opened: Arc<Mutex<Vec<Wanted>>> = Arc::default();
        let noted = Arc::clone(&opened);
        let dial = Dial::by(move |wanted| {
            noted.lock().unwrap().push(wanted);
            Ok(match wanted.stream {
                false => std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.into(),
                true => {
                    let socket = tokio::net::TcpSocket::new_v4()?;
                    use std::os::fd::{FromRawFd, IntoRawFd};
                    // SAFETY: the descriptor is owned by nobody else.
                    unsafe { std::os::fd::OwnedFd::from_raw_fd(socket.into_raw_fd()) }
                }
            })
        });
        let resources = Resources {
            dial,
            ..Resources::default()
        };
        let forwards = with(options(&[&fake]), &resources);
        ask(&forwards, &udp()).await.unwrap();
        ask(&forwards, &query("a.test", Transport::Tcp))
            .await
            .unwrap();
        let wanted = |stream| Wanted { stream, v6: false };
        assert_eq!(*opened.lock().unwrap(), [wanted(false), wanted(true)]);
    });
}

#[test]
fn a_source_address() {
    run(async {
        let fake = Fake::start(|_, _| vec![]).await;
        let forwards = forwards(Options {
            source_address: Some("127.0.0.9".parse().unwrap()),
            max_connect_attempts: Some(1),
            ..options(&[&fake])
        });
        let failure = ask(&forwards, &udp()).await.unwrap_err();
        assert!(
            failure.text.starts_with("read udp 127.0.0.9:"),
            "{}",
            failure.text
        );
    });
}

#[test]
fn data_is_data() {
    // What is not understood goes through as it is.
    let message = Message {
        answers: vec![crate::wire::Record::new(
            name("a.test"),
            5,
            Data::Other(Type(65_280), [1, 2, 3].into()),
        )],
        ..Message::default()
    };
    assert_eq!(taken(message.clone()).answers, message.answers);
}
