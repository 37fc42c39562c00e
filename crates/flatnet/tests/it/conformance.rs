//! One suite of questions for this server and for `CoreDNS`: the same Corefiles, the same
//! objects. What `CoreDNS` 1.15 answers is recorded in `conformance/answers`; where `CoreDNS` is
//! installed it is asked again, beside this server.
//!
//! `FLATNET_TEST_RECORD=1` writes the records anew, by the `CoreDNS` that is installed.

mod deliberate;
mod questions;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dns::wire::{Data, Message, Record};
use dns::zonefile::record_text;

use self::deliberate::{Difference, why};
use self::questions::{Asked, asked, questions};
use crate::cluster::{Cluster, FLATNET, eventually, root};

const PATIENCE: Duration = Duration::from_secs(30);
const WORLD: &str = include_str!("conformance/world.yaml");
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/conformance");

/// The Corefiles, each with questions of its own.
const COREFILES: [&str; 3] = ["cluster", "options", "plugins"];

#[test]
fn names_are_answered_as_by_coredns() {
    let test = "names_are_answered_as_by_coredns";
    if !root(test) {
        return;
    }
    let cluster = Cluster::up("conform", &["--nodes", "1", "--dual-stack"]);
    apply(&cluster);
    let folder = tempfile::tempdir().unwrap();
    let upstream = Peer::start(&cluster, folder.path(), FLATNET, "upstream", 0);
    let coredns = coredns(test);
    let mut wrong = String::new();
    for corefile in COREFILES {
        let ours = Peer::start(&cluster, folder.path(), FLATNET, corefile, upstream.port);
        let answers = ours.answers(corefile);
        drop(ours);
        if let Some(coredns) = &coredns {
            let peer = Peer::start(&cluster, folder.path(), coredns, corefile, upstream.port);
            let theirs = peer.answers(corefile);
            if std::env::var_os("FLATNET_TEST_RECORD").is_some() {
                std::fs::write(record(corefile), recorded(&theirs)).unwrap();
            }
            compare(corefile, "CoreDNS beside", &answers, &theirs, &mut wrong);
        }
        let theirs = std::fs::read_to_string(record(corefile)).unwrap_or_default();
        compare(
            corefile,
            "CoreDNS as recorded",
            &answers,
            &parse(&theirs),
            &mut wrong,
        );
    }
    drop(upstream);
    cluster.down();
    assert!(wrong.is_empty(), "{wrong}");
}

/// A question and what was answered.
type Answered = (String, String);

fn record(corefile: &str) -> PathBuf {
    Path::new(HERE).join("answers").join(corefile)
}

fn recorded(answers: &[Answered]) -> String {
    let one = |(question, answer): &Answered| format!("? {question}\n{answer}\n");
    answers.iter().map(one).collect()
}

fn parse(text: &str) -> Vec<Answered> {
    let parts = text.split("? ").skip(1);
    let one = |part: &str| {
        let (question, answer) = part.split_once('\n').unwrap();
        (
            question.to_owned(),
            answer.trim_end_matches('\n').to_owned() + "\n",
        )
    };
    parts.map(one).collect()
}

/// Notes each difference that is not a deliberate one.
fn compare(
    corefile: &str,
    whose: &str,
    ours: &[Answered],
    theirs: &[Answered],
    wrong: &mut String,
) {
    for (question, answer) in ours {
        let Some((_, other)) = theirs.iter().find(|(other, _)| other == question) else {
            let _ = writeln!(wrong, "{corefile}: {question}: {whose}: not asked");
            continue;
        };
        let difference = Difference {
            question,
            ours: answer,
            theirs: other,
        };
        if answer != other && why(&difference).is_none() {
            let _ = writeln!(
                wrong,
                "{corefile}: {question}\n--- ours\n{answer}--- {whose}\n{other}"
            );
        }
    }
}

/// The objects, and the answers that the peers wait for.
fn apply(cluster: &Cluster) {
    let mut objects = WORLD.to_owned();
    for number in 0..40 {
        let _ = writeln!(
            objects,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: many-{number}, namespace: shop, labels: {{kubernetes.io/service-name: many}}}}\naddressType: IPv4\nports: [{{name: http, port: 80}}]\nendpoints: [{{addresses: [10.51.0.{number}], hostname: many-{number}, conditions: {{ready: true}}}}]"
        );
    }
    let mut kubectl = cluster
        .kubectl(&["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    kubectl
        .stdin
        .take()
        .unwrap()
        .write_all(objects.as_bytes())
        .unwrap();
    assert!(kubectl.wait().unwrap().success());
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.31"},{"hostname":"lb.example.com"}]}}}"#;
    let words = [
        "-n",
        "shop",
        "patch",
        "service",
        "balanced",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ];
    cluster.kube(&words);
    cluster.kube(&[
        "-n",
        "shop",
        "wait",
        "--for=condition=Ready",
        "pod/resting",
        "--timeout=60s",
    ]);
}

/// Where `CoreDNS` is: `COREDNS`, the path, or where `go install` puts it.
fn coredns(test: &str) -> Option<String> {
    if let Ok(path) = std::env::var("COREDNS") {
        return Some(path);
    }
    let homes = std::env::var_os("HOME").map(|home| Path::new(&home).join("go/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(homes);
    let Some(folder) = folders.find(|folder| folder.join("coredns").is_file()) else {
        let why = "needs coredns; go install github.com/coredns/coredns@latest brings it";
        testing::skip(&format!("{test} (CoreDNS beside)"), why);
        return None;
    };
    folder.join("coredns").to_str().map(str::to_owned)
}

/// A server, ended with the test.
struct Peer {
    server: Child,
    port: u16,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Peer {
    /// Starts a program on a port of loopback with a Corefile, and waits until it answers.
    fn start(
        cluster: &Cluster,
        folder: &Path,
        program: &str,
        corefile: &str,
        upstream: u16,
    ) -> Self {
        let port = free_port();
        let source = format!("{HERE}/corefiles");
        let text = std::fs::read_to_string(format!("{source}/{corefile}")).unwrap();
        let text = text
            .replace("{PORT}", &port.to_string())
            .replace("{UPSTREAM}", &upstream.to_string())
            .replace("{FOLDER}", &source)
            .replace("{KUBECONFIG}", cluster.paths.kubeconfig().to_str().unwrap());
        let path = folder.join(format!("{corefile}-{port}"));
        std::fs::write(&path, text).unwrap();
        let log = std::fs::File::create(path.with_extension("log")).unwrap();
        let mut command = Command::new(program);
        if program == FLATNET {
            command.arg("dns");
            command.arg("--conf");
        } else {
            command.arg("-conf");
        }
        let peer = Self {
            server: command
                .arg(&path)
                .stdin(Stdio::null())
                .stderr(log.try_clone().unwrap())
                .stdout(log)
                .spawn()
                .unwrap(),
            port,
        };
        let first = match corefile {
            "cluster" => "many.shop.svc.cluster.local. A tcp",
            "options" => "web.shop.svc.cluster.local. A",
            "plugins" => "example.net. SOA",
            _ => "example.org. SOA",
        };
        let ready = asked(first);
        eventually(
            &format!("{program} answers for {corefile}; {}", path.display()),
            PATIENCE,
            || {
                let answer = peer.ask(&ready)?;
                let enough = if first.starts_with("many") { 40 } else { 1 };
                (answer.answers.len() >= enough).then_some(())
            },
        );
        peer
    }

    fn answers(&self, corefile: &str) -> Vec<Answered> {
        let answered = questions(corefile).into_iter().map(|asked| {
            let answer = match self.ask(&asked) {
                Some(answer) => normal(corefile, &answer),
                None => "nothing\n".to_owned(),
            };
            (asked.words, answer)
        });
        answered.collect()
    }

    fn ask(&self, asked: &Asked) -> Option<Message> {
        let mut message = asked.message.clone();
        message.header.id = 4711;
        let bytes = message.to_bytes();
        let answer = if asked.tcp {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
            stream.set_read_timeout(Some(PATIENCE / 6)).unwrap();
            stream.write_all(&(bytes.len() as u16).to_be_bytes()).ok()?;
            stream.write_all(&bytes).ok()?;
            let mut len = [0; 2];
            stream.read_exact(&mut len).ok()?;
            let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut answer).ok()?;
            answer
        } else {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
            socket.set_read_timeout(Some(PATIENCE / 6)).unwrap();
            socket.send(&bytes).ok()?;
            let mut answer = vec![0; 65_535];
            let len = socket.recv(&mut answer).ok()?;
            answer.truncate(len);
            answer
        };
        let answer = Message::parse(&answer).unwrap();
        assert_eq!(answer.header.id, 4711);
        Some(answer)
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// An answer as text, without what may differ: the order of records, serials, which records of
/// many had to go, and, from a cache, the seconds that are left.
fn normal(corefile: &str, answer: &Message) -> String {
    let header = &answer.header;
    let flags = [
        (header.response, " qr"),
        (header.authoritative, " aa"),
        (header.truncated, " tc"),
        (header.recursion_desired, " rd"),
        (header.recursion_available, " ra"),
        (header.authentic, " ad"),
        (header.checking_disabled, " cd"),
    ];
    let mut text = header.rcode.to_string();
    for (_, flag) in flags.iter().filter(|(set, _)| *set) {
        text.push_str(flag);
    }
    text.push('\n');
    if let Some(edns) = &answer.edns {
        let _ = write!(text, "edns version {} size {}", edns.version, edns.udp_size);
        if edns.dnssec_ok {
            text.push_str(" do");
        }
        for option in &edns.options {
            let _ = write!(text, " {}:{:?}", option.code, option.data);
        }
        text.push('\n');
    }
    let sections = [
        ("", &answer.answers),
        ("authority: ", &answer.authorities),
        ("additional: ", &answer.additionals),
    ];
    for (section, records) in sections {
        if header.truncated {
            let _ = writeln!(
                text,
                "{section}{} records",
                if records.is_empty() { "no" } else { "some" }
            );
            continue;
        }
        let mut lines: Vec<String> = records
            .iter()
            .map(|record| line(corefile, record))
            .collect();
        lines.sort_by_key(|line| line.to_lowercase());
        for line in lines {
            let _ = writeln!(text, "{section}{line}");
        }
    }
    text
}

fn line(corefile: &str, record: &Record) -> String {
    let mut record = record.clone();
    if let Data::Soa(soa) = &mut record.data {
        soa.serial = 0;
    }
    // Both may have had an answer in their caches for a second already.
    if corefile == "cluster"
        && !record
            .name
            .to_string()
            .to_lowercase()
            .ends_with("cluster.local.")
    {
        record.ttl = 0;
    }
    // whoami tells the port that was asked from.
    if let Data::Srv { port, .. } = &mut record.data
        && corefile == "plugins"
        && record.name.to_string().contains(".small.")
    {
        *port = 0;
    }
    record_text(&record)
}
