//! The ruleset of Services in the kernel: random choice, refusal, affinity; both families.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use linux::link::NewKind;
use linux::{Address, NetNs, Netlink, NewLink, Nftables, Route, VethEnd, run_in};
use nft::{
    Chain, Datum, ElementKey, Family, Hook, IpFamily, Key, Looked, MapDatum, MapTarget, NatKind,
    NatTo, Op, Reject, Rule, Set, SetData, Statement, Table, Transaction, Type, Update, Value,
    Verdict,
};

use crate::nftables::{apply, listed, nat, nft};
use crate::{namespace, root};

const UDP: u8 = 17;
const TIMEOUT: Duration = Duration::from_secs(10800);

/// What differs between the families.
struct Names {
    family: IpFamily,
    address: Type,
    ips: &'static str,
    endpoints: &'static str,
    sticky_endpoints: &'static str,
    affinity: &'static str,
    sticky: &'static str,
    chain: &'static str,
    sticky_chain: &'static str,
    /// A Service with affinity, and one without.
    services: [&'static str; 2],
    pods: [&'static str; 3],
    source: &'static str,
}

const V4: Names = Names {
    family: IpFamily::V4,
    address: Type::Ipv4,
    ips: "services-ips",
    endpoints: "services-endpoints",
    sticky_endpoints: "services-sticky-endpoints",
    affinity: "services-affinity",
    sticky: "services-sticky",
    chain: "services-plain-3",
    sticky_chain: "services-plain-3-sticky",
    services: ["10.96.0.1", "10.96.0.2"],
    pods: ["10.244.1.1", "10.244.1.2", "10.244.1.3"],
    source: "10.9.9.9",
};

const V6: Names = Names {
    family: IpFamily::V6,
    address: Type::Ipv6,
    ips: "services-ips6",
    endpoints: "services-endpoints6",
    sticky_endpoints: "services-sticky-endpoints6",
    affinity: "services-affinity6",
    sticky: "services-sticky6",
    chain: "services-plain6-3",
    sticky_chain: "services-plain6-3-sticky",
    services: ["fd00:10:96::1", "fd00:10:96::2"],
    pods: ["fd00:10:244:1::1", "fd00:10:244:1::2", "fd00:10:244:1::3"],
    source: "fd00:9::9",
};

impl Names {
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Address, protocol and port of a Service, and what follows.
    fn at(service: &str, more: impl IntoIterator<Item = Value>) -> Vec<Value> {
        let fields = [Self::ip(service).into(), Value::Proto(UDP), Value::Port(80)];
        fields.into_iter().chain(more).collect()
    }

    fn to(&self) -> Vec<Key> {
        vec![Key::Daddr(self.family), Key::L4Proto, Key::ThDport]
    }

    fn chosen(&self) -> Vec<Key> {
        self.to().into_iter().chain([Key::Random(3)]).collect()
    }

    fn client(&self) -> Vec<Key> {
        let canonical = Looked {
            keys: self.to(),
            map: self.sticky.into(),
            data: vec![self.address, Type::Proto, Type::Port],
        };
        vec![Key::Saddr(self.family), Key::Looked(canonical)]
    }

    fn dnat(&self, keys: Vec<Key>, map: &str) -> Rule {
        Rule::new([Statement::Nat {
            kind: NatKind::Dnat,
            family: self.family,
            to: NatTo::Map(MapTarget {
                keys,
                map: map.into(),
                with_port: true,
            }),
        }])
    }

    fn put_into(&self, table: &mut Table) {
        let endpoint = SetData::Values(vec![self.address, Type::Port]);
        let service = [self.address, Type::Proto, Type::Port];
        let mut ips = Set::map(service, SetData::Verdict);
        let mut endpoints = Set::map(
            [self.address, Type::Proto, Type::Port, Type::Mark],
            endpoint.clone(),
        );
        let mut sticky = Looked::map_of(service, &service);
        let mut sticky_endpoints =
            Looked::map_of(endpoints.key.clone(), &[self.address, Type::Port]);
        let chains = [self.sticky_chain, self.chain];
        for (service, chain) in self.services.into_iter().zip(chains) {
            let goto = Verdict::Goto(chain.into());
            ips.put(Self::at(service, []), MapDatum::Verdict(goto));
            for (index, pod) in (0..).zip(self.pods) {
                let key = Self::at(service, [Value::Mark(index)]);
                let endpoint = vec![Self::ip(pod).into(), Value::Port(8080)];
                if chain == self.sticky_chain {
                    let endpoint = MapDatum::Values(Looked::data_of(&endpoint));
                    sticky_endpoints.put(key.clone(), endpoint);
                }
                endpoints.put(key, MapDatum::Values(endpoint));
            }
        }
        let service = Self::at(self.services[0], []);
        let canonical = MapDatum::Values(Looked::data_of(&service));
        sticky.put(service, canonical);
        let affinity = Set {
            size: Some(1000),
            dynamic: true,
            ..Set::map(
                [self.address, self.address, Type::Proto, Type::Port],
                endpoint.clone(),
            )
        };
        let endpoint = Looked {
            keys: self.chosen(),
            map: self.sticky_endpoints.into(),
            data: vec![self.address, Type::Port],
        };
        let remember = Rule::new([Statement::Update(Update {
            set: self.affinity.into(),
            key: self.client(),
            data: vec![Key::Looked(endpoint)],
            timeout: TIMEOUT,
        })]);
        let at_random = self.dnat(self.chosen(), self.endpoints);
        let sub = |rules| Chain { base: None, rules };
        table.chains.insert(
            self.sticky_chain.into(),
            sub(vec![
                remember,
                self.dnat(self.client(), self.affinity),
                at_random.clone(),
            ]),
        );
        table.chains.insert(self.chain.into(), sub(vec![at_random]));
        table.sets.insert(self.ips.into(), ips);
        table.sets.insert(self.endpoints.into(), endpoints);
        table
            .sets
            .insert(self.sticky_endpoints.into(), sticky_endpoints);
        table.sets.insert(self.affinity.into(), affinity);
        table.sets.insert(self.sticky.into(), sticky);
    }

    fn dispatch(&self) -> Rule {
        Rule::new([Statement::VerdictMap {
            keys: self.to(),
            map: self.ips.into(),
        }])
    }
}

fn table() -> Table {
    let mut table = Table::new(Family::Inet, "flatnet");
    V4.put_into(&mut table);
    V6.put_into(&mut table);
    let reject = |how| Rule::new([Statement::is(Key::L4Proto, Value::Proto(6)), how]);
    let goto = |chain: &str| Statement::Verdict(Verdict::Goto(chain.into()));
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let rules = vec![
        V4.dispatch(),
        V6.dispatch(),
        Rule::new([
            Statement::is(Key::Daddr(IpFamily::V4), net("10.96.0.0/16")),
            goto("services-reject"),
        ]),
        Rule::new([
            Statement::is(Key::Daddr(IpFamily::V6), net("fd00:10:96::/112")),
            goto("services-reject"),
        ]),
    ];
    for (name, hook) in [
        ("services-prerouting", Hook::Prerouting),
        ("services-output", Hook::Output),
    ] {
        let base = nat(hook, -100);
        let rules = rules.clone();
        table.chains.insert(name.into(), Chain { base, rules });
    }
    let rules = vec![
        reject(Statement::Reject(Reject::TcpReset)),
        Rule::new([Statement::Reject(Reject::PortUnreachable)]),
    ];
    let chain = Chain { base: None, rules };
    table.chains.insert("services-reject".into(), chain);
    let bit = Statement::MatchBits {
        key: Key::Mark,
        mask: 0x4000,
        value: 0x4000,
    };
    let rules = vec![
        Rule::new([
            bit,
            Statement::ClearMarkBits(0x4000),
            Statement::Masquerade { fully_random: true },
        ]),
        Rule::new([
            Statement::SaddrIsLocal,
            Statement::CtDnat,
            Statement::Counter,
        ]),
    ];
    table.chains.insert(
        "services-postrouting".into(),
        Chain {
            base: nat(Hook::Postrouting, 100),
            rules,
        },
    );
    table
}

/// The pods as addresses of a namespace, and a way to everything by a link.
pub(crate) fn lonely_host(netlink: &mut Netlink) {
    let end = VethEnd {
        name: "far",
        ..VethEnd::default()
    };
    netlink
        .create_link(&NewLink::new("eth0", NewKind::Veth(end)))
        .unwrap();
    let mut index = |name| {
        let index = netlink.expect_link(name).unwrap().index;
        netlink.set_up(index).unwrap();
        index
    };
    let [lo, eth0, _] = ["lo", "eth0", "far"].map(&mut index);
    for names in [V4, V6] {
        let addresses = names.pods.into_iter().chain([names.source]);
        for ip in addresses.map(Names::ip) {
            netlink.add_address(&Address::new(lo, ip)).unwrap();
        }
    }
    for all in ["0.0.0.0/0", "::/0"] {
        let all: ipnet::IpNet = all.parse().unwrap();
        netlink.add_route(&Route::new(all, eth0)).unwrap();
    }
}

/// Which pods a client reaches by a Service with so many connections.
fn reached(names: &Names, service: &str, connections: usize) -> BTreeMap<IpAddr, usize> {
    let pods: Vec<UdpSocket> = names
        .pods
        .into_iter()
        .map(|pod| {
            let socket = UdpSocket::bind((Names::ip(pod), 8080)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    for _ in 0..connections {
        let client = UdpSocket::bind((Names::ip(names.source), 0)).unwrap();
        client.send_to(b"x", (Names::ip(service), 80)).unwrap();
    }
    let mut reached = BTreeMap::new();
    for pod in &pods {
        // Loopback delivers within the call that sends.
        while pod.recv(&mut [0; 8]).is_ok() {
            *reached.entry(pod.local_addr().unwrap().ip()).or_default() += 1;
        }
    }
    assert_eq!(reached.values().sum::<usize>(), connections);
    reached
}

#[test]
fn services_choose_at_random_and_stick() {
    if !root("nftables services") {
        return;
    }
    let (netns, mut netlink) = namespace();
    let mut nftables = Nftables::open_in(&netns).unwrap();
    lonely_host(&mut netlink);
    let want = table();
    assert!(!apply(&mut nftables, &want).is_empty());
    assert!(apply(&mut nftables, &want).is_empty());
    if let Some(listed) = listed(&netns) {
        assert_eq!(rules(&listed), rules(&as_listed(&want)));
    }
    for names in [V4, V6] {
        let at = |service: &'static str, connections| {
            run_in(&netns, || reached(&names, service, connections)).unwrap()
        };
        let spread = at(names.services[1], 300);
        assert_eq!(spread.len(), 3, "{spread:?}");
        assert!(spread.values().all(|count| *count > 50), "{spread:?}");

        let first = at(names.services[0], 30);
        assert_eq!(first.len(), 1, "one client stays with one pod: {first:?}");
        let pod = *first.keys().next().unwrap();
        if let Some(listed) = listed(&netns) {
            let client = format!(
                "{} . {} . udp . 80 timeout 3h",
                names.source, names.services[0]
            );
            assert!(listed.contains(&client), "{listed}");
            nft(&netns, &["-j", "-a", "list", "ruleset"]);
            nft(&netns, &["list", "map", "inet", "flatnet", names.affinity]);
        }
        forget(&mut nftables, &names, pod);
    }
    assert!(
        apply(&mut nftables, &want).is_empty(),
        "what packets add is no difference"
    );
    refused(&netns);
}

/// The one element is there as it should be, and can be removed, once and again.
fn forget(nftables: &mut Nftables, names: &Names, pod: IpAddr) {
    let elements = nftables
        .dynamic(Family::Inet, "flatnet", names.affinity)
        .unwrap();
    let [element] = elements.as_slice() else {
        panic!("one element, not {elements:?}");
    };
    let source = Names::ip(names.source).into();
    let key: Vec<Value> = [source]
        .into_iter()
        .chain(Names::at(names.services[0], []))
        .collect();
    assert_eq!(element.key, ElementKey::of(&key));
    let endpoint = Datum::of(&[pod.into(), Value::Port(8080)]);
    assert_eq!(element.data, Some(endpoint));
    assert!(element.remaining <= TIMEOUT && element.remaining > TIMEOUT - Duration::from_secs(60));
    let mut ops = vec![Op::DestroyElements(
        names.affinity.into(),
        vec![element.key.clone()],
    )];
    let mut change = |ops: &[Op]| {
        nftables.apply(&Transaction {
            family: Family::Inet,
            table: "flatnet".into(),
            ops: ops.to_vec(),
        })
    };
    change(&ops).unwrap();
    change(&ops).unwrap();
    ops[0] = Op::DeleteElements(names.affinity.into(), vec![element.key.clone()]);
    assert!(change(&ops).unwrap_err().is_not_found());
    let left = nftables.dynamic(Family::Inet, "flatnet", names.affinity);
    assert_eq!(left.unwrap(), []);
}

/// The chains of a listing; elements come in the order of the kernel's tables.
fn rules(listing: &str) -> &str {
    let (_, rules) = listing.split_once("\tchain ").unwrap();
    rules
}

/// The program cannot know a lookup within a key: it lists what was looked up.
fn as_listed(table: &Table) -> String {
    [("ip", ""), ("ip6", "6")]
        .into_iter()
        .fold(table.to_string(), |text, (ip, family)| {
            let service = format!("{ip} daddr . meta l4proto . th dport");
            let chosen = format!(
                "{service} . numgen random mod 3 map @services-sticky-endpoints{family} }}"
            );
            text.replace(&chosen, &format!("{ip} daddr . meta l4proto }}"))
                .replace(&format!(" map @services-sticky{family} "), " ")
        })
}

/// A port that no Service has is refused at once, by a reset or by ICMP.
fn refused(netns: &NetNs) {
    let ports: BTreeSet<_> = [V4, V6].map(|names| names.services[0]).into();
    for service in ports {
        let to = SocketAddr::new(Names::ip(service), 81);
        let error = run_in(netns, || {
            TcpStream::connect_timeout(&to, Duration::from_secs(30))
        });
        let error = error.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
        let error = run_in(netns, || {
            let socket = UdpSocket::bind(match to {
                SocketAddr::V4(_) => "0.0.0.0:0",
                SocketAddr::V6(_) => "[::]:0",
            })?;
            socket.set_read_timeout(Some(Duration::from_secs(30)))?;
            socket.connect(to)?;
            // The sender on this host is also told at once that its packet was dropped.
            let _ = socket.send(b"x");
            socket.recv(&mut [0; 8])
        });
        let error = error.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
    }
}
