//! What is asked.

use std::net::IpAddr;

use dns::wire::{Class, Edns, EdnsOption, Header, Message, Name, Question, Type};

/// A question, and the message it is asked with.
#[derive(Clone, Debug)]
pub struct Asked {
    pub words: String,
    pub message: Message,
    pub tcp: bool,
}

/// Of words: `NAME TYPE [tcp] [edns[=SIZE]] [do] [nord] [cd] [ad] [ch] [nsid] [badvers]`.
pub fn asked(words: &str) -> Asked {
    let mut rest = words.split(' ');
    let name: Name = rest.next().unwrap().parse().unwrap();
    let kind = Type::from_word(rest.next().unwrap()).unwrap();
    let mut header = Header {
        recursion_desired: true,
        ..Header::default()
    };
    let (mut class, mut edns, mut tcp) = (Class::IN, None::<Edns>, false);
    for word in rest {
        let (word, value) = word.split_once('=').unwrap_or((word, ""));
        match word {
            "tcp" => tcp = true,
            "nord" => header.recursion_desired = false,
            "cd" => header.checking_disabled = true,
            "ad" => header.authentic = true,
            "ch" => class = Class::CH,
            "edns" => {
                let udp_size = value.parse().unwrap_or(1232);
                edns.get_or_insert_default().udp_size = udp_size;
            }
            "do" => edns.get_or_insert_default().dnssec_ok = true,
            "badvers" => edns.get_or_insert_default().version = 1,
            "nsid" => {
                let option = EdnsOption {
                    code: EdnsOption::NSID,
                    data: Box::default(),
                };
                edns.get_or_insert_default().options.push(option);
            }
            other => panic!("{other}"),
        }
    }
    let question = Question { name, kind, class };
    Asked {
        words: words.to_owned(),
        message: Message {
            header,
            question: Some(question),
            edns,
            ..Message::default()
        },
        tcp,
    }
}

/// Names below a zone of the cluster, whether they are there or not.
const CLUSTER: &[&str] = &[
    "",
    "svc.",
    "pod.",
    "shop.svc.",
    "void.svc.",
    "nowhere.svc.",
    "shop.pod.",
    "nowhere.pod.",
    "dns-version.",
    "ns.dns.",
    "dns.",
    "web.shop.svc.",
    "WeB.sHoP.SvC.",
    "10-50-2-1.web.shop.svc.",
    "named.web.shop.svc.",
    "_http._tcp.10-50-2-1.web.shop.svc.",
    "four.shop.svc.",
    "six.shop.svc.",
    "db.shop.svc.",
    "db-0.db.shop.svc.",
    "db-3.db.shop.svc.",
    "db-4.db.shop.svc.",
    "10-50-0-3.db.shop.svc.",
    "10-50-0-1.db.shop.svc.",
    "fd50--1.db.shop.svc.",
    "early.shop.svc.",
    "early-0.early.shop.svc.",
    "none.shop.svc.",
    "x.none.shop.svc.",
    "idle.shop.svc.",
    "out.shop.svc.",
    "in.shop.svc.",
    "chain.shop.svc.",
    "tick.shop.svc.",
    "lost.shop.svc.",
    "x.out.shop.svc.",
    "_http._tcp.out.shop.svc.",
    "_http._tcp.web.shop.svc.",
    "_https._tcp.web.shop.svc.",
    "_dns._udp.web.shop.svc.",
    "_dns._tcp.web.shop.svc.",
    "_http._udp.web.shop.svc.",
    "http.tcp.web.shop.svc.",
    "_http.web.shop.svc.",
    "_tcp.web.shop.svc.",
    "_8080._tcp.four.shop.svc.",
    "_http._tcp.six.shop.svc.",
    "_sql._tcp.db.shop.svc.",
    "_admin._tcp.db.shop.svc.",
    "_sql._tcp.db-0.db.shop.svc.",
    "_http._tcp.none.shop.svc.",
    "_http._tcp.idle.shop.svc.",
    "a123456789-123456789-123456789-123456789-123456789-123456789-1z.shop.svc.",
    "balanced.shop.svc.",
    "nothing.shop.svc.",
    "web.void.svc.",
    "web.nowhere.svc.",
    "x.web.shop.svc.",
    "a.b.c.web.shop.svc.",
    "web.shop.",
    "shop.",
    "web.",
    "*.shop.svc.",
    "web.*.svc.",
    "*.*.svc.",
    "*.web.shop.svc.",
    "any.shop.svc.",
    "kubernetes.default.svc.",
    "10-244-9-9.shop.pod.",
    "1-2-3-4.nowhere.pod.",
    "1-2-3.shop.pod.",
    "fd00--1.shop.pod.",
    "x.1-2-3-4.shop.pod.",
    "256-1-1-1.shop.pod.",
    "resting.shop.pod.",
];

const TYPES: &[&str] = &[
    "A", "AAAA", "SRV", "TXT", "CNAME", "MX", "NS", "SOA", "PTR", "ANY", "HTTPS", "DS",
];

/// All names of the cluster with all types below a zone.
fn cluster(zone: &str) -> Vec<String> {
    let names = CLUSTER.iter().map(|name| format!("{name}{zone}"));
    names
        .flat_map(|name| TYPES.iter().map(move |kind| format!("{name} {kind}")))
        .collect()
}

fn reverse() -> Vec<String> {
    let addresses = [
        "10.96.100.1",
        "fd00:10:96::6401",
        "10.50.0.1",
        "10.50.0.3",
        "10.50.0.4",
        "fd50::1",
        "10.50.1.1",
        "10.50.2.2",
        "10.96.100.99",
        "192.0.2.1",
        "fd50::99",
        "10.96.0.1",
    ];
    let names = addresses.map(|ip| Name::of_address(ip.parse::<IpAddr>().unwrap()).to_string());
    let partial = [
        "96.10.in-addr.arpa.",
        "in-addr.arpa.",
        "ip6.arpa.",
        "0.0.d.f.ip6.arpa.",
    ];
    let all = names.into_iter().chain(partial.map(str::to_owned));
    all.flat_map(|name| ["PTR", "A", "SOA"].map(|kind| format!("{name} {kind}")))
        .collect()
}

fn words(lines: &str) -> Vec<String> {
    lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The questions of a Corefile.
pub fn questions(corefile: &str) -> Vec<Asked> {
    let all = match corefile {
        "cluster" => {
            let mut all = cluster("cluster.local.");
            all.extend(reverse());
            all.extend(words(CLUSTER_MORE));
            all
        }
        "options" => {
            let mut all = cluster("cluster.local.");
            all.retain(|words| {
                ["A", "SRV", "NS", "SOA"].contains(&words.split(' ').nth(1).unwrap())
            });
            for zone in ["other.example.", "labels.example."] {
                let mut more = cluster(zone);
                more.retain(|words| words.ends_with(" A") || words.ends_with(" SRV"));
                all.extend(more);
            }
            all.extend(words(OPTIONS_MORE));
            all
        }
        "plugins" => words(PLUGINS),
        other => panic!("{other}"),
    };
    all.iter().map(|words| asked(words)).collect()
}

const CLUSTER_MORE: &str = "
    web.shop.svc.cluster.local. A tcp
    web.shop.svc.cluster.local. A edns
    web.shop.svc.cluster.local. A edns=4096
    web.shop.svc.cluster.local. A edns do
    web.shop.svc.cluster.local. A nord
    web.shop.svc.cluster.local. A cd
    web.shop.svc.cluster.local. A ad
    web.shop.svc.cluster.local. A ch
    web.shop.svc.cluster.local. A badvers
    nothing.shop.svc.cluster.local. A edns do
    many.shop.svc.cluster.local. A
    many.shop.svc.cluster.local. A edns=512
    many.shop.svc.cluster.local. A edns=4096
    many.shop.svc.cluster.local. A tcp
    _http._tcp.many.shop.svc.cluster.local. SRV
    _http._tcp.many.shop.svc.cluster.local. SRV edns=1232
    _http._tcp.many.shop.svc.cluster.local. SRV tcp
    www.example.org. A
    www.example.org. AAAA
    www.example.org. MX
    WWW.example.ORG. A
    www.example.org. A edns do
    www.example.org. A nord
    www.example.org. A cd
    www.example.org. A ad
    txt.example.org. TXT
    nothing.example.org. A
    nothing.example.org. A edns do
    google.com.shop.svc.cluster.local. A
    google.com. A
    . NS
    . A
    localhost. A
    version.bind. TXT ch
";

const OPTIONS_MORE: &str = "
    1.100.96.10.in-addr.arpa. PTR
    1.0.96.10.in-addr.arpa. PTR
    99.100.96.10.in-addr.arpa. PTR
    1.0.50.10.in-addr.arpa. PTR
    fell.labels.example. A
    fell.labels.example. AAAA
    web.shop.external.example. A
    web.shop.external.example. AAAA
    web.shop.external.example. SRV
    _http._tcp.web.shop.external.example. SRV
    balanced.shop.external.example. A
    four.shop.external.example. A
    nothing.shop.external.example. A
    web.nowhere.external.example. A
    external.example. SOA
    external.example. NS
    external.example. A
    ns1.dns.external.example. A
    elsewhere.example.com. A
";

const PLUGINS: &str = "
    example.net. SOA
    example.net. NS
    example.net. MX
    example.net. TXT
    example.net. CAA
    example.net. A
    example.net. ANY
    example.net. DS
    ns1.example.net. A
    mail.example.net. A
    mail.example.net. AAAA
    mail.example.net. MX
    MAIL.Example.net. A
    www.example.net. A
    www.example.net. AAAA
    www.example.net. CNAME
    web.example.net. A
    loop1.example.net. A
    away.example.net. A
    broken.example.net. A
    x.wild.example.net. A
    x.y.wild.example.net. A
    x.wild.example.net. TXT
    x.wild.example.net. MX
    host.wild.example.net. A
    host.wild.example.net. TXT
    wild.example.net. A
    *.wild.example.net. A
    a.b.c.example.net. A
    b.c.example.net. A
    c.example.net. A
    x.b.c.example.net. A
    sub.example.net. A
    sub.example.net. NS
    x.sub.example.net. A
    ns.sub.example.net. A
    sub.example.net. DS
    _sip._tcp.example.net. SRV
    _tcp.example.net. SRV
    big.example.net. TXT
    big.example.net. TXT edns=600
    big.example.net. TXT edns=4096
    big.example.net. TXT tcp
    x.old.example.net. A
    old.example.net. A
    old.example.net. DNAME
    nothing.example.net. A
    nothing.example.net. A edns do
    one.hosts.example. A
    one.hosts.example. AAAA
    one.hosts.example. MX
    UNO.hosts.example. A
    two.hosts.example. AAAA
    three.hosts.example. A
    hosts.example. A
    1-2.template.example. A
    1-2.template.example. AAAA
    x.template.example. A
    www.rewrite.example. A
    mail.rewrite.example. AAAA
    nothing.rewrite.example. A
    x.acl.example. A
    x.acl.example. AAAA
    x.acl.example. MX
    x.dns64.example. A
    x.dns64.example. AAAA
    x.small.example. ANY
    x.small.example. A edns=4096
    x.small.example. A nsid
    x.small.example. A tcp
    x.small.example. AAAA
    version.bind. TXT ch
    version.server. TXT ch
    elsewhere.example.com. A
";
