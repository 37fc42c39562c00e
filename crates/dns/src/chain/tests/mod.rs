//! Server blocks as people write them, and what is answered.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::chain::{Chain, Resources, Router, Site};
use crate::corefile::{self, NoSources};
use crate::plan::testing::Town;
use crate::plugins::output::Output;
use crate::plugins::tests::query;
use crate::query::{Answer, Outcome, Query, Transport};
use crate::serve::Answers;
use crate::wire::{Class, Edns, EdnsOption, Rcode, Type};
use crate::zonefile::record_text;

mod sources;

/// A server of one Corefile, and what it wrote.
struct Server {
    router: Arc<Router>,
    output: Arc<Output>,
}

fn resources() -> Resources {
    Resources {
        view: Arc::default(),
        output: Arc::new(Output::kept()),
        metrics: Arc::default(),
        search: Vec::new(),
        local: vec![IpAddr::from([10, 96, 0, 10])],
        host: "here".to_owned(),
        upstream: Default::default(),
        looping: Default::default(),
        started: Instant::now(),
    }
}

fn try_server(text: &str) -> Result<Server, String> {
    let (corefile, _) = corefile::parse("Corefile", text, 53, &NoSources)
        .map_err(|errors| errors[0].to_string())?;
    let mut town = Town::default();
    town.namespace("default");
    town.service("default/web", &["10.96.0.7"], &["http/TCP/80"]);
    town.alias("default/out", "elsewhere.test");
    let resources = resources();
    resources.view.store(Some(Arc::new(town.view())));
    let mut sites = Vec::new();
    for block in &corefile.servers {
        let chain = Chain::new(block, &resources).map_err(|error| error.to_string())?;
        let chain = Arc::new(chain);
        sites.extend(block.addresses.iter().map(|address| Site {
            zone: address.zone.clone(),
            chain: Arc::clone(&chain),
            plugins: Vec::new(),
        }));
    }
    let router = Arc::new(Router::new("dns://:53".to_owned(), sites));
    let output = resources.output;
    Ok(Server { router, output })
}

fn server(text: &str) -> Server {
    try_server(text).unwrap()
}

impl Server {
    async fn outcome(&self, query: &mut Query) -> Outcome {
        match Answers::route(&*self.router, query) {
            Some(site) => self.router.answer(site, query).await,
            None => Outcome::Answer(Answer {
                rcode: Rcode::REFUSED,
                ..Answer::default()
            }),
        }
    }

    async fn answer(&self, query: &mut Query) -> Answer {
        match self.outcome(query).await {
            Outcome::Answer(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// `RCODE answers`, each without its TTL and class.
    async fn says(&self, name: &str, kind: Type) -> String {
        shown(&self.answer(&mut query(name, kind)).await)
    }
}

fn shown(answer: &Answer) -> String {
    let record = |record: &crate::wire::Record| {
        let text = record_text(record);
        let fields: Vec<&str> = text.splitn(4, '\t').collect();
        format!("; {} {}", fields[0], fields[3].replace('\t', " "))
    };
    let records: String = answer.answers.iter().map(record).collect();
    format!("{}{records}", answer.rcode)
}

const HOSTS: &str = "hosts /nowhere {\n 10.0.0.1 a.test\n 10.0.0.2 b.test\n fallthrough\n}\n";

#[tokio::test]
async fn the_block_with_the_longest_zone_answers() {
    let server = server(
        ".:53 {\n erratic { drop 0\n }\n}\n\
         test:53 {\n hosts /nowhere {\n 10.0.0.1 a.test a.sub.test\n }\n}\n\
         sub.test:53 {\n whoami\n}\n",
    );
    assert_eq!(
        server.says("a.TEST", Type::A).await,
        "NOERROR; a.TEST. A 10.0.0.1"
    );
    assert_eq!(server.says("a.sub.test", Type::A).await, "NOERROR");
    assert_eq!(
        server.says("elsewhere", Type::A).await,
        "NOERROR; elsewhere. A 192.0.2.53"
    );
    assert_eq!(
        server.says("xtest", Type::A).await,
        "NOERROR; xtest. A 192.0.2.53"
    );
    // DS is the parent's.
    assert_eq!(server.says("sub.test", Type::DS).await, "SERVFAIL");
    let mut chaos = query("a.test", Type::A);
    chaos.question.class = Class::CH;
    assert_eq!(server.answer(&mut chaos).await.rcode, Rcode::REFUSED);
}

#[tokio::test]
async fn nobody_is_left_to_ask() {
    let server = server(&format!(". {{\n errors\n log\n {HOSTS} }}\n"));
    let mut asked = query("none.test", Type::A);
    asked.edns = Some(Edns::default());
    assert_eq!(server.answer(&mut asked).await.rcode, Rcode::SERVFAIL);
    let lines = server.output.take();
    let (error, log) = lines.split_once('\n').unwrap();
    assert_eq!(
        error,
        "[ERROR] plugin/errors: 2 none.test. A: plugin/hosts: no next plugin found"
    );
    assert!(
        log.starts_with(
            "[INFO] 10.244.1.5:33333 - 7 \"A IN none.test. udp 38 false 1232\" SERVFAIL qr,rd 27 0.0"
        ),
        "{log}"
    );
}

#[tokio::test]
async fn classes_of_the_log() {
    let server = server(&format!(
        ". {{\n log test {{\n class denial error\n }}\n log . \"{{rcode}}\"\n {HOSTS} whoami\n}}\n"
    ));
    server.says("a.test", Type::A).await;
    assert_eq!(server.output.take(), "");
    server.says("other", Type::A).await;
    assert_eq!(server.output.take(), "[INFO] NOERROR\n");
}

#[tokio::test]
async fn a_rewritten_name_is_what_sources_see_and_the_cache_keeps() {
    let server = server(&format!(
        ". {{\n rewrite name alias.test a.test\n rewrite name suffix .old .test\n cache\n {HOSTS} }}\n"
    ));
    assert_eq!(
        server.says("alias.test", Type::A).await,
        "NOERROR; alias.test. A 10.0.0.1"
    );
    assert_eq!(
        server.says("a.test", Type::A).await,
        "NOERROR; a.test. A 10.0.0.1"
    );
    assert_eq!(
        server.says("b.old", Type::A).await,
        "NOERROR; b.test. A 10.0.0.2"
    );
    let figures = server.router.sites()[0].chain.cache().unwrap().figures();
    // Both ask the same of the cache, which sees the name it becomes.
    assert_eq!((figures.hits_success, figures.misses), (1, 2));
}

#[tokio::test]
async fn failures_are_rewritten_too() {
    let server = server(
        ". {\n rewrite continue rcode regex (.*) SERVFAIL NXDOMAIN\n hosts /nowhere {\n 10.0.0.1 a.test\n }\n}\n",
    );
    assert_eq!(server.says("none.test", Type::A).await, "NXDOMAIN");
}

#[tokio::test]
async fn targets_that_become_others_are_resolved_by_the_server_itself() {
    let server = server(
        ". {\n rewrite cname exact elsewhere.test. mirror.test.\n kubernetes cluster.local\n\
         hosts /nowhere {\n 10.0.0.1 elsewhere.test\n 10.0.0.9 mirror.test\n fallthrough\n }\n}\n",
    );
    assert_eq!(
        server.says("out.default.svc.cluster.local", Type::A).await,
        "NOERROR; out.default.svc.cluster.local. CNAME mirror.test.; mirror.test. A 10.0.0.9"
    );
}

#[tokio::test]
async fn names_outside_are_resolved_by_the_server_itself() {
    let server = server(
        ". {\n kubernetes cluster.local\n}\n\
         test {\n hosts /nowhere {\n 10.0.0.1 elsewhere.test\n }\n}\n",
    );
    assert_eq!(
        server.says("web.default.svc.cluster.local", Type::A).await,
        "NOERROR; web.default.svc.cluster.local. A 10.96.0.7"
    );
    assert_eq!(
        server.says("out.default.svc.cluster.local", Type::A).await,
        "NOERROR; out.default.svc.cluster.local. CNAME elsewhere.test.; elsewhere.test. A 10.0.0.1"
    );
}

#[tokio::test]
async fn hosts_come_before_the_cluster() {
    let server = server(
        ". {\n kubernetes cluster.local\n\
         hosts /nowhere {\n 10.0.0.1 web.default.svc.cluster.local\n fallthrough\n }\n}\n",
    );
    assert_eq!(
        server.says("web.default.svc.cluster.local", Type::A).await,
        "NOERROR; web.default.svc.cluster.local. A 10.0.0.1"
    );
}

#[tokio::test]
async fn who_may_ask() {
    let server = server(&format!(
        ". {{\n acl test {{\n allow type A net 10.244.1.0/24\n filter net 10.244.2.0/24\n drop net 10.244.3.0/24\n block\n }}\n {HOSTS} whoami\n}}\n"
    ));
    let from = |client: [u8; 4], kind| {
        let mut query = query("a.test", kind);
        query.client = (client, 1).into();
        query
    };
    let allowed = server.answer(&mut from([10, 244, 1, 5], Type::A)).await;
    assert_eq!(shown(&allowed), "NOERROR; a.test. A 10.0.0.1");
    let blocked = server.answer(&mut from([10, 244, 1, 5], Type::AAAA)).await;
    assert_eq!(blocked.rcode, Rcode::REFUSED);
    let error = |code| {
        vec![EdnsOption {
            code: EdnsOption::EXTENDED_ERROR,
            data: [0, code].into(),
        }]
    };
    assert_eq!(blocked.options, error(15));
    let filtered = server.answer(&mut from([10, 244, 2, 5], Type::A)).await;
    assert_eq!(
        (shown(&filtered).as_str(), filtered.options),
        ("NOERROR", error(17))
    );
    assert_eq!(
        server.outcome(&mut from([10, 244, 3, 5], Type::A)).await,
        Outcome::Drop
    );
    let mut elsewhere = from([10, 9, 9, 9], Type::A);
    elsewhere.question.name = "other".parse().unwrap();
    assert_eq!(server.answer(&mut elsewhere).await.rcode, Rcode::NOERROR);
}

#[tokio::test]
async fn addresses_for_those_without_ipv4() {
    let server = server(&format!(". {{\n dns64\n {HOSTS} }}\n"));
    let mut asked = query("a.test", Type::AAAA);
    assert_eq!(shown(&server.answer(&mut asked).await), "NOERROR");
    asked.client = "[fd00::5]:1".parse().unwrap();
    let answer = server.answer(&mut asked).await;
    assert_eq!(shown(&answer), "NOERROR; a.test. AAAA 64:ff9b::a00:1");
    assert_eq!(answer.answers[0].ttl, 600);
}

#[tokio::test]
async fn about_the_server() {
    let server = server(
        ". {\n nsid me\n any\n chaos V1 alice bob\n bufsize 1000\n header {\n query clear rd\n response set ra\n }\n minimal\n whoami\n}\n",
    );
    let mut asked = query("version.bind", Type::TXT);
    asked.question.class = Class::CH;
    assert_eq!(
        shown(&server.answer(&mut asked).await),
        "NOERROR; version.bind. TXT \"V1\""
    );
    asked.question.name = "id.server".parse().unwrap();
    assert_eq!(
        shown(&server.answer(&mut asked).await),
        "NOERROR; id.server. TXT \"here\""
    );
    asked.question.name = "authors.bind".parse().unwrap();
    assert_eq!(server.answer(&mut asked).await.answers.len(), 2);
    assert_eq!(
        server.says("a.test", Type::ANY).await,
        "NOERROR; a.test. HINFO \"ANY obsoleted\" \"See RFC 8482\""
    );
    let mut asked = query("a.test", Type::A);
    asked.edns = Some(Edns {
        udp_size: 4096,
        options: vec![EdnsOption {
            code: EdnsOption::NSID,
            data: [].into(),
        }],
        ..Edns::default()
    });
    let answer = server.answer(&mut asked).await;
    assert_eq!(asked.edns.unwrap().udp_size, 1000);
    assert_eq!(*answer.options[0].data, *b"me");
    assert!(answer.recursion_available);
    assert_eq!(answer.recursion_desired, Some(false));
    assert_eq!(answer.additionals, []);
}

#[tokio::test]
async fn who_asks() {
    let server = server(". {\n whoami\n}\n");
    let mut asked = query("a.test", Type::MX);
    asked.transport = Transport::Tls;
    let answer = server.answer(&mut asked).await;
    let additional: Vec<String> = answer.additionals.iter().map(record_text).collect();
    assert_eq!(
        additional,
        [
            "a.test.\t0\tIN\tA\t10.244.1.5",
            "_tcp.a.test.\t0\tIN\tSRV\t0 0 33333 ."
        ]
    );
    assert!(answer.authoritative);
}

#[tokio::test]
async fn names_that_never_leave_a_machine() {
    let server = server(". {\n local\n}\n");
    for (name, kind, expected) in [
        ("localhost", Type::A, "NOERROR; localhost. A 127.0.0.1"),
        ("localhost", Type::AAAA, "NOERROR; localhost. AAAA ::1"),
        ("localhost", Type::NS, "NOERROR; localhost. NS localhost."),
        ("localhost", Type::MX, "NOERROR"),
        ("a.localhost", Type::A, "NOERROR; a.localhost. A 127.0.0.1"),
        (
            "localhost.example.org",
            Type::AAAA,
            "NOERROR; localhost.example.org. AAAA ::1",
        ),
        (
            "1.0.0.127.in-addr.arpa",
            Type::PTR,
            "NOERROR; 1.0.0.127.in-addr.arpa. PTR localhost.",
        ),
        ("1.0.0.127.in-addr.arpa", Type::A, "NOERROR"),
        ("2.0.0.127.in-addr.arpa", Type::PTR, "NXDOMAIN"),
        ("127.in-addr.arpa", Type::A, "NOERROR"),
        ("1.in-addr.arpa", Type::A, "SERVFAIL"),
        ("xlocalhost", Type::A, "SERVFAIL"),
    ] {
        assert_eq!(server.says(name, kind).await, expected, "{name} {kind}");
    }
}

#[tokio::test]
async fn bad_answers_on_purpose() {
    let server = server(". {\n erratic {\n drop 3\n truncate 2\n delay 5 1ms\n }\n}\n");
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(match server.outcome(&mut query("a", Type::A)).await {
            Outcome::Drop => "-",
            Outcome::Answer(answer) if answer.truncated => "tc",
            Outcome::Answer(_) => "ok",
            Outcome::Messages(_) => "?",
        });
    }
    assert_eq!(seen, ["-", "ok", "tc", "-", "tc", "ok"]);
}

#[tokio::test]
async fn a_query_is_given_up() {
    let server = server(". {\n cancel 10ms\n errors\n erratic {\n drop 0\n delay 1 1h\n }\n}\n");
    assert_eq!(server.says("a", Type::A).await, "SERVFAIL");
    assert_eq!(
        server.output.take(),
        "[ERROR] plugin/errors: 2 a. A: context deadline exceeded\n"
    );
}

#[tokio::test]
async fn addresses_take_turns() {
    let server = server(
        ". {\n loadbalance\n hosts /nowhere {\n 10.0.0.1 a\n 10.0.0.2 a\n 10.0.0.3 a\n }\n}\n",
    );
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let answer = server.answer(&mut query("a", Type::A)).await;
        assert_eq!(answer.answers.len(), 3);
        firsts.insert(record_text(&answer.answers[0]));
    }
    assert_eq!(firsts.len(), 3);
}

#[tokio::test]
async fn preferred_networks_come_first() {
    let server = server(
        ". {\n loadbalance round_robin {\n prefer 10.2.0.0/16 10.1.0.0/16\n }\n\
         hosts /nowhere {\n 10.0.0.1 a\n 10.1.0.1 a\n 10.2.0.1 a\n }\n}\n",
    );
    for _ in 0..20 {
        assert_eq!(
            server.says("a", Type::A).await,
            "NOERROR; a. A 10.2.0.1; a. A 10.1.0.1; a. A 10.0.0.1"
        );
    }
}

#[tokio::test]
async fn weights_say_how_often_an_address_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights");
    std::fs::write(&weights, "# weights\na\n10.0.0.1 3\n10.0.0.2 1\n").unwrap();
    let text = format!(
        ". {{\n loadbalance weighted {}\n hosts /nowhere {{\n 10.0.0.1 a\n 10.0.0.2 a\n }}\n}}\n",
        weights.display()
    );
    let weighted = server(&text);
    let mut first = 0;
    for _ in 0..1000 {
        let says = weighted.says("a", Type::A).await;
        first += u32::from(says.starts_with("NOERROR; a. A 10.0.0.1"));
    }
    assert!((650..850).contains(&first), "{first}");
    for bad in [
        "10.0.0.1 3\n",
        "a\n10.0.0.1\n",
        "a\n10.0.0.1 0\n",
        "a\n10.0.0.1 256\n",
        "a b c\n",
    ] {
        std::fs::write(&weights, bad).unwrap();
        let error = try_server(&text).err().unwrap();
        assert!(error.starts_with("Corefile:1: loadbalance: "), "{error}");
    }
}

/// Each question under way has a future of its own.
#[test]
fn the_usual_way_is_small() {
    let server = server(". {\n kubernetes cluster.local\n cache\n loadbalance\n}\n");
    let mut query = query("web.default.svc.cluster.local", Type::A);
    let size = size_of_val(&server.router.answer(0, &mut query));
    assert!(size <= 4096, "{size}");
}
