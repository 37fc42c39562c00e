//! All names of a generated cluster and mutations of them, against a second way to answer: all
//! records of the zone are written down, name by name, straight from the objects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Cluster, Endpoint, EndpointSlice, Labels, Namespace, Service, ServiceType};
use proptest::prelude::*;

use super::*;
use crate::plan::testing::{service, shown};

/// What a name stands for.
#[derive(Clone, Default)]
struct Entry {
    /// Address and port, and the name a server has.
    hosts: Vec<(IpAddr, Option<u16>, String)>,
    /// Where it leads.
    alias: Option<String>,
    /// Other records, as `TYPE data`.
    others: Vec<String>,
}

type Zone = BTreeMap<String, Entry>;

const ZONE: &str = "cluster.local";

fn host(endpoint: &Endpoint, ip: IpAddr, pod_names: bool) -> String {
    if let Some(hostname) = &endpoint.hostname {
        return hostname.clone();
    }
    if let (true, Some(pod)) = (pod_names, &endpoint.pod) {
        return pod.clone();
    }
    let text = ip.to_string().replace(['.', ':'], "-");
    if text.ends_with('-') {
        text + "0"
    } else {
        text
    }
}

/// How the two labels in front of a Service may be written for a port.
fn port_labels(name: &str, protocol: &str) -> Vec<String> {
    let mut all = Vec::new();
    for port in [format!("_{name}"), name.to_owned(), "_".to_owned()] {
        for word in [format!("_{protocol}"), protocol.to_owned(), "_".to_owned()] {
            if !port.is_empty() {
                all.push(format!("{port}.{word}"));
            }
        }
    }
    all.sort();
    all.dedup();
    all
}

fn zone(cluster: &Cluster, options: &options::Kubernetes) -> Zone {
    let mut zone = Zone::new();
    for bare in ["", "svc.", "pod."] {
        zone.entry(format!("{bare}{ZONE}")).or_default();
    }
    let version = zone.entry(format!("dns-version.{ZONE}")).or_default();
    version.others.push("TXT \"1.1.0\"".to_owned());
    let own = ("10.244.1.9".parse().unwrap(), None, String::new());
    zone.entry(format!("ns.dns.{ZONE}"))
        .or_default()
        .hosts
        .push(own);
    for name in cluster.namespaces.keys() {
        zone.entry(format!("{name}.svc.{ZONE}")).or_default();
    }
    for service in cluster.services.values() {
        zone.entry(format!("{}.svc.{ZONE}", service.namespace))
            .or_default();
        let slices: Vec<_> = cluster
            .slices
            .values()
            .filter(|slice| slice.namespace == service.namespace && slice.service == service.name)
            .collect();
        of_service(&mut zone, service, &slices, options);
    }
    zone
}

fn of_service(
    zone: &mut Zone,
    service: &Service,
    slices: &[&Arc<EndpointSlice>],
    options: &options::Kubernetes,
) {
    let name = format!("{}.{}.svc.{ZONE}", service.name, service.namespace);
    if service.kind == ServiceType::ExternalName {
        zone.entry(name).or_default().alias = service.external_name.clone();
        return;
    }
    let headless = service.cluster_ips.is_empty();
    for slice in slices {
        for one in slice.endpoints.iter().filter(|one| one.ready) {
            let host = format!("{}.{name}", host(one, one.ip, options.endpoint_pod_names));
            let numbers: Vec<Option<u16>> = slice.ports.iter().map(|port| port.port).collect();
            let numbers = if numbers.is_empty() {
                vec![None]
            } else {
                numbers
            };
            let mut put = |owner: String, number| {
                zone.entry(owner.to_lowercase()).or_default().hosts.push((
                    one.ip,
                    number,
                    host.clone(),
                ));
            };
            for number in numbers {
                put(host.clone(), number);
                if headless {
                    put(name.clone(), number);
                }
            }
            if headless && slice.ports.is_empty() {
                put(format!("_._.{name}"), None);
            }
            for port in slice.ports.iter().filter(|_| headless) {
                for labels in port_labels(&port.name, port.protocol.word()) {
                    put(format!("{labels}.{name}"), port.port);
                }
            }
        }
    }
    let ready = slices
        .iter()
        .any(|slice| slice.endpoints.iter().any(|one| one.ready));
    if headless || options.ignore_empty_service && !ready {
        if !headless {
            zone.retain(|owner, _| *owner != name && !owner.ends_with(&format!(".{name}")));
        }
        return;
    }
    for ip in &service.cluster_ips {
        zone.entry(name.clone()).or_default();
        for port in &service.ports {
            let mut put = |owner: String| {
                zone.entry(owner.to_lowercase()).or_default().hosts.push((
                    *ip,
                    Some(port.port),
                    name.clone(),
                ));
            };
            put(name.clone());
            for labels in port_labels(&port.name, port.protocol.word()) {
                put(format!("{labels}.{name}"));
            }
        }
        if service.ports.is_empty() {
            for owner in [name.clone(), format!("_._.{name}")] {
                zone.entry(owner)
                    .or_default()
                    .hosts
                    .push((*ip, None, name.clone()));
            }
        }
    }
}

/// Code, answers and additional records, each sorted, in lower case.
fn expected(zone: &Zone, asked: &str, kind: Type) -> (String, Vec<String>, Vec<String>) {
    let Some(entry) = zone.get(&asked.to_lowercase()) else {
        return ("NXDOMAIN".to_owned(), Vec::new(), Vec::new());
    };
    let (mut answers, mut additionals) = (Vec::new(), Vec::new());
    match kind {
        Type::A | Type::AAAA => answers = addresses(zone, asked, kind, &mut Vec::new()),
        Type::SRV => {
            let weight = (100 / entry.hosts.len().max(1)).max(1);
            for (ip, port, target) in &entry.hosts {
                if let (Some(port), false) = (port, target.is_empty()) {
                    answers.push(format!("{asked}. 5 SRV 0 {weight} {port} {target}."));
                    let family = if ip.is_ipv4() { "A" } else { "AAAA" };
                    additionals.push(format!("{target}. 5 {family} {ip}"));
                }
            }
        }
        Type::CNAME => answers.extend(
            entry
                .alias
                .iter()
                .map(|target| format!("{asked}. 5 CNAME {target}.")),
        ),
        Type::TXT => answers.extend(
            entry
                .others
                .iter()
                .map(|data| format!("{asked}. 28800 {data}")),
        ),
        _ => {}
    }
    let tidy = |mut lines: Vec<String>| {
        lines
            .iter_mut()
            .for_each(|line| *line = line.to_lowercase());
        lines.sort();
        lines.dedup();
        lines
    };
    ("NOERROR".to_owned(), tidy(answers), tidy(additionals))
}

fn addresses(zone: &Zone, name: &str, kind: Type, before: &mut Vec<String>) -> Vec<String> {
    let Some(entry) = zone.get(&name.to_lowercase()) else {
        return Vec::new();
    };
    if let Some(target) = &entry.alias {
        let own = format!("{name}. 5 CNAME {target}.");
        let below = format!(".{}", name.to_lowercase());
        let looped =
            before.contains(&name.to_lowercase()) || format!(".{target}").ends_with(&below);
        before.push(name.to_lowercase());
        if looped {
            return Vec::new();
        }
        if !target.ends_with(ZONE) {
            return vec![own];
        }
        let mut rest = addresses(zone, target, kind, before);
        if !rest.is_empty() {
            rest.push(own);
        }
        return rest;
    }
    let family = |ip: &IpAddr| ip.is_ipv4() == (kind == Type::A);
    let ips = entry
        .hosts
        .iter()
        .map(|(ip, ..)| ip)
        .filter(|ip| family(ip));
    ips.map(|ip| format!("{name}. 5 {kind} {ip}")).collect()
}

fn town() -> impl Strategy<Value = Town> {
    let port = || {
        proptest::sample::subsequence(
            vec![
                "http/TCP/80",
                "dns/UDP/53",
                "dns/TCP/53",
                "/TCP/81",
                "any/TCP/-",
            ],
            0..3,
        )
    };
    let kind = prop_oneof![
        Just(vec![]),
        Just(vec!["10.96.0.1"]),
        Just(vec!["10.96.0.2", "fd00::2"])
    ];
    let target = proptest::option::weighted(
        0.3,
        prop_oneof![
            Just("www.example.com"),
            Just("s0.a.svc.cluster.local"),
            Just("s1.b.svc.cluster.local"),
            Just("s2.a.svc.cluster.local"),
            Just("x.s2.a.svc.cluster.local"),
            Just("gone.a.svc.cluster.local"),
            Just("cluster.local"),
        ],
    );
    let one = ("[a-b]", 0..3_u8, kind, port(), target);
    let endpoint = (
        1..9_u8,
        0..3_usize,
        proptest::bool::weighted(0.8),
        any::<bool>(),
    );
    let slice = (
        "[a-b]",
        0..3_u8,
        port(),
        proptest::collection::vec(endpoint, 0..5),
        0..2_u8,
    );
    let services = proptest::collection::vec(one, 0..8);
    let slices = proptest::collection::vec(slice, 0..8);
    (services, slices, any::<bool>()).prop_map(|(services, slices, spaces)| {
        let mut town = Town::default();
        for name in ["a", "empty"].into_iter().filter(|_| spaces) {
            let labels = Labels::default();
            town.take(model::Change::Namespace(Arc::new(Namespace {
                name: name.to_owned(),
                labels,
            })));
        }
        for (space, number, ips, ports, target) in services {
            let key = format!("{space}/s{number}");
            let ports: Vec<&str> = ports
                .into_iter()
                .filter(|port| !port.ends_with('-'))
                .collect();
            match target {
                Some(target) => town.alias(&key, target),
                None => town.take(model::Change::Service(Arc::new(service(
                    &key, &ips, &ports,
                )))),
            };
        }
        for (space, number, ports, endpoints, v6) in slices {
            let texts: Vec<String> = endpoints
                .iter()
                .map(|(last, called, ready, _)| {
                    let ip = if v6 == 1 {
                        format!("fd00:1::{}", last - 1)
                    } else {
                        format!("10.244.0.{last}")
                    };
                    let called = [
                        "".to_owned(),
                        format!(" host=h-{last}"),
                        format!(" pod=p-{last}"),
                    ][*called]
                        .clone();
                    format!("{ip}{called}{}", if *ready { "" } else { " unready" })
                })
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let key = format!("{space}/s{number}");
            if v6 == 1 {
                town.slice6(&key, &ports, &texts)
            } else {
                town.slice(&key, &ports, &texts)
            };
        }
        town
    })
}

/// A name as it is, or a little different.
fn mutated(name: &str, how: u8, at: usize) -> String {
    let labels: Vec<&str> = name.split('.').collect();
    let at = at % labels.len();
    match how {
        0 => name.to_owned(),
        1 => name.to_uppercase(),
        2 => format!("x.{name}"),
        3 => format!("_http._tcp.{name}"),
        4 => labels[1..].join("."),
        5 => labels
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != at)
            .map(|(_, l)| *l)
            .collect::<Vec<_>>()
            .join("."),
        6 => labels
            .iter()
            .enumerate()
            .map(|(n, l)| if n == at { "other" } else { l })
            .collect::<Vec<_>>()
            .join("."),
        7 => format!("10-244-0-{}.{name}", at + 1),
        8 => format!("h-{}.{name}", at + 1),
        _ => format!("fd00-1--{at}.{name}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn all_names_are_answered_as_written_down(
        town in town(),
        pod_names in any::<bool>(),
        ignore in any::<bool>(),
        mutations in proptest::collection::vec((0..10_u8, 0..6_usize), 60),
    ) {
        let mut options = options();
        options.endpoint_pod_names = pod_names;
        options.ignore_empty_service = ignore;
        let plugin = Kubernetes::new(&options, &["10.244.1.9".parse().unwrap()]).unwrap();
        let view = town.view();
        let zone = zone(&town.cluster, &options);
        let kinds = [Type::A, Type::AAAA, Type::SRV, Type::CNAME, Type::TXT, Type::MX, Type::PTR];
        for (number, (name, (how, at))) in zone.keys().zip(mutations.iter().cycle()).enumerate() {
            for asked in [name.clone(), mutated(name, *how, *at + number)] {
                // Below pods any labels are taken, and the start of the zone is told elsewhere.
                if asked.to_lowercase().ends_with("pod.cluster.local") || !asked.to_lowercase().ends_with(ZONE) {
                    continue;
                }
                for kind in kinds {
                    let question = question(&format!("{asked} {kind}"));
                    let found = plugin.answer(Some(&view), &question).unwrap();
                    let lines = |records: &[crate::wire::Record]| {
                        let mut lines: Vec<String> = records.iter().map(|one| shown(one).to_lowercase()).collect();
                        lines.sort();
                        lines
                    };
                    let (rcode, answers, additionals) = expected(&zone, &asked, kind);
                    prop_assert_eq!(
                        (found.answer.rcode.to_string(), lines(&found.answer.answers), lines(&found.answer.additionals)),
                        (rcode, answers.clone(), additionals),
                        "{} {}", asked, kind
                    );
                    prop_assert_eq!(found.answer.authorities.len(), usize::from(answers.is_empty()));
                }
            }
        }
    }
}
