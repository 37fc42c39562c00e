//! The server over real sockets, asked by the tools that people use.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dns::metrics::Metrics;
use dns::query::{Answer, Outcome, Query};
use dns::serve::{Answers, At, Listener, Scheme, Server, Site};
use dns::wire::{Class, Data, Name, Rcode, Record, Type};

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
